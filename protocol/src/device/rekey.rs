//! Matters that follow somebody's new key: the devices that it certifies come in, those that it does not name go, in one Commit.
//!
//! 1. A matter lists a key; the newest chain known of that person shows another, and a device that the matter does not have.
//! 2. Where statements lead from the one key to the other, any member may make the Commit: the statements in its bundle prove it, so
//!    that a client can let their attorney back in. Else whoever manages the matter takes the person out and in again, once the user has
//!    accepted the new key there, or vouches for it. A key that leaves
//!    every device where it is is listed by a Commit of its own, made by the person's own device first.
//! 3. Its key packages are taken like those of own devices. Where none comes for a while, whoever manages the matter removes what was
//!    revoked, and adds the person once there is one.
//!
//! Invariant: nobody comes in under a key that the organisation's chain, or statements from the listed key on, do not vouch for; and not
//! under one that the user has yet to accept.

use crate::device::post::Wanted;
use crate::device::state::{Intent, KnownPerson};
use crate::device::{Device, Notice};
use crate::error::{Error, PeerMisbehaved, Refused};
use crate::frame::{Rights, TakenKeyPackage};
use crate::identity::{DeviceRevocation, Endorsement, Identity, Verified, stays_since, verify_chain, verify_line};
use crate::ids::{DeviceId, MatterId, PersonId, Timestamp};
use crate::matter::{LeafCredential, MatterContext, Member, Participant, key_package_owner};
use crate::suite::{Digest, Label};

/// How long whoever manages a matter waits for a key package of a new device before what was revoked is removed anyway.
const PACKAGE_WAIT_MS: u64 = 60_000;

/// Somebody whose new key a matter has yet to rekey.
#[derive(Debug)]
pub(super) struct Rekey {
    pub(super) person: PersonId,
    listed: Participant,
    chain: Vec<Identity>,
    /// Leaves that go.
    pub(super) gone: Vec<DeviceId>,
    /// Devices that come.
    come: Vec<DeviceId>,
}

impl Device {
    /// Whether anybody known here has another key than before.
    pub(super) fn has_new_keys(&self) -> bool {
        let new = |known: &KnownPerson| known.changed.is_some() || !known.past.is_empty();
        let leads = |known: &KnownPerson| known.chain.first().is_some_and(|identity| !identity.line.is_empty());
        self.people.values().any(|known| new(known) || leads(known))
    }

    /// The first person, of those whom the matter lists with another key than their newest, whose devices are to come in.
    pub(super) fn to_rekey(&self, members: &[Member], context: &MatterContext) -> Option<Rekey> {
        let due = context.people.iter().filter_map(|listed| self.rekeyed(members, listed));
        // Who has no key package, for now, keeps nobody else waiting.
        let lacks =
            |rekey: &Rekey| !rekey.come.is_empty() && rekey.come.iter().all(|device| self.lacks_packages(*device));
        let mut first = None;
        for rekey in due {
            if !lacks(&rekey) {
                return Some(rekey);
            }
            first = first.or(Some(rekey));
        }
        first
    }

    fn rekeyed(&self, members: &[Member], listed: &Participant) -> Option<Rekey> {
        let chain = self.newest_chain(listed.person)?;
        let first = chain.first()?;
        let key = first.person_key.digest();
        if key == listed.person_key {
            return None;
        }
        let known = self.people.get(&listed.person)?;
        // A list may be ahead of what this device knows, never behind what the person had before that.
        let line = verify_line(first).ok()?;
        let stays = stays_since(&line, listed.person_key);
        let earlier =
            stays.is_some() || known.past.contains(&listed.person_key) || known.key() == Some(listed.person_key);
        if !earlier || (stays.is_none() && !self.profile.role.manages()) {
            return None;
        }
        let verified = verify_chain(chain, &self.profile.organisation).ok()?;
        if !known.keeps_handle_and_role(&verified.endorsement) || verified.endorsement.role != listed.role {
            return None;
        }
        let theirs = || members.iter().filter(|member| member.credential.person == listed.person);
        let named = |certificate: Digest| stays.as_ref().is_some_and(|stays| stays.contains(&certificate));
        let gone = theirs().filter(|member| !named(member.credential.certificate));
        let is_in = |device: DeviceId| theirs().any(|member| member.credential.device == device);
        let come = verified.devices.iter().map(|(_, certificate)| certificate.device);
        let come: Vec<DeviceId> = come.filter(|device| !is_in(*device) && !self.is_revoked(*device)).collect();
        let own = listed.person == self.profile.person;
        // A key that a device of theirs follows is listed at once: what the key before might still sign leads nowhere then.
        let key_alone = theirs().any(|member| named(member.credential.certificate));
        if (come.is_empty() && !key_alone)
            || (own && gone.clone().any(|member| member.credential.device == self.profile.device))
        {
            return None;
        }
        let gone = gone.map(|member| member.credential.device).collect();
        Some(Rekey { person: listed.person, listed: *listed, chain: chain.to_vec(), gone, come })
    }

    /// What the Commit is to do, once there are key packages; asks for them. Nothing, while there are none.
    pub(super) fn rekey(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        rekey: &Rekey,
        wanted: &mut Wanted,
    ) -> Result<(), Error> {
        if self.was_unproved(&rekey.chain) {
            self.put_off_tidying(matter);
            return Ok(());
        }
        // This device need not be told who it is; a restored relay may have yet to hear of the key.
        if rekey.person != self.profile.person && !self.is_proved(&rekey.chain) {
            return Ok(());
        }
        let verified = verify_chain(&rekey.chain, &self.profile.organisation)?;
        let rights = if verified.endorsement.role.manages() { Rights::MANAGER } else { Rights::MEMBER };
        for device in &rekey.come {
            let Some(taken) = self.package_of(now, rekey.person, *device) else { continue };
            match certified(&verified, &taken) {
                Ok(owner) => wanted.own_device(owner, rights, taken),
                Err(why) => self.deliver(Notice::Problem(why)),
            }
        }
        if wanted.is_empty() && !rekey.come.is_empty() {
            return Ok(());
        }
        let key = verified.person_key.digest();
        let participant = Participant { person_key: key, ..rekey.listed };
        wanted.rekey(participant, rekey.chain.clone(), rekey.gone.iter().copied());
        Ok(())
    }

    /// Until when a revoked leaf of somebody waits, whose new key the matter is about to follow: removed at once, the person would be out.
    pub(super) fn awaits_key(&self, listed: &Participant) -> Option<Timestamp> {
        let known = self.people.get(&listed.person)?;
        let since = match &known.changed {
            Some(changed) => changed.at,
            None if known.key() != Some(listed.person_key) => known.since,
            None => return None,
        };
        // A clock that was put back keeps nobody in.
        Some(since.plus_ms(PACKAGE_WAIT_MS)).filter(|until| *until > self.now && since <= self.now)
    }

    /// Whoever is put out with their last leaf, and has another key, is to come in again under it: once there is a key package, and the
    /// user has accepted the key where it has to be.
    pub(super) fn wants_back(&mut self, matter: MatterId, person: PersonId) {
        let Some(known) = self.people.get(&person).filter(|_| self.profile.role.manages()) else { return };
        let replaced = known.changed.is_some() || known.chain.first().is_some_and(|first| !first.line.is_empty());
        let handle = known.handle.clone();
        let there = |room: &super::Room| room.intents.values().any(|intent| intent.person == person);
        if replaced && !self.rooms.get(&matter).is_some_and(there) {
            self.put_intent(matter, Intent { person, handle, add: true, told: true, taken_over: true });
        }
    }
}

impl Device {
    /// Whether somebody has another key that is followed only once the user has accepted it: where the one before was verified, and where no
    /// statements lead to the new one. Whoever vouches for it here needs no such word: they have compared.
    pub fn awaits_word(&self, person: PersonId) -> bool {
        self.is_in_doubt(person) || self.is_anew(person)
    }

    /// Whether nothing but the word of somebody else speaks for another key of a person: no statements lead to it.
    pub(super) fn is_anew(&self, person: PersonId) -> bool {
        let Some(known) = self.people.get(&person) else { return false };
        let Some(first) = known.changed.as_ref().and_then(|changed| changed.chain.first()) else { return false };
        let said = first.endorsement.unverified::<Endorsement>("endorsement").ok();
        let by = said.and_then(|said| said.issuer).map(|issuer| issuer.person);
        !known.leads_to(first) && by != Some(self.profile.person)
    }

    /// Whether this very device has endorsed somebody's other key, to which no statements lead: its user has compared, and is told nothing.
    pub(super) fn vouched_for(&self, said: &Verified) -> bool {
        let known = self.people.get(&said.person).and_then(KnownPerson::key);
        let leads = known.is_some_and(|key| stays_since(&said.line, key).is_some());
        !leads
            && said.endorsement.issuer == Some(self.issuer())
            && said.endorsement.person_key == said.person_key.digest()
    }

    /// Whether a device is out as soon as this one looks: what a key that still waits for the user's word has revoked stays until then.
    pub(super) fn shuts_out(&self, member: &Member) -> bool {
        let LeafCredential { person, device, .. } = member.credential;
        let Some(revoked) = self.revoked.get(&device) else { return false };
        if revoked.said.issuer.is_some() || !self.is_anew(person) {
            return true;
        }
        let known = self.people.get(&person).and_then(|known| known.chain.first());
        let by =
            |key| revoked.statement.verify::<DeviceRevocation>(Label::DeviceRevocation, key, "a revocation").is_ok();
        known.is_some_and(|known| by(&known.person_key))
    }
}

impl Device {
    /// Whether this person may enrol somebody anew: whoever vouches for them, or a registrar.
    pub(super) fn check_may_enrol_anew(&self, said: &Endorsement) -> Result<(), Refused> {
        if said.registrar {
            return Err(Refused::not_allowed(
                "a registrar is vouched for by the organisation's key alone; they use their recovery sheet",
            ));
        }
        let by = said.issuer.map(|issuer| issuer.person);
        if self.profile.registrar || by == Some(self.profile.person) {
            return Ok(());
        }
        let who = by.map(|by| self.label_of(by)).filter(|label| !label.is_empty());
        let who = who.unwrap_or_else(|| "whoever vouches for them".to_owned());
        let handle = &said.handle;
        Err(Refused::not_allowed(format!(
            "only {who}, who vouches for {handle}, or a registrar may enrol {handle} anew: ask them"
        )))
    }
}

impl KnownPerson {
    /// Whether statements lead from the key by which they are known to that identity's.
    fn leads_to(&self, identity: &Identity) -> bool {
        let line = verify_line(identity).unwrap_or_default();
        self.key().is_some_and(|key| stays_since(&line, key).is_some())
    }

    /// Whether somebody's endorsement says of handle and role what the ones before it did: an enrolment anew changes neither.
    fn keeps_handle_and_role(&self, said: &Endorsement) -> bool {
        let before = [&self.chain, &self.before].into_iter().filter_map(|chain| chain.first());
        let before = before.map(|identity| identity.endorsement.unverified::<Endorsement>("endorsement"));
        before
            .into_iter()
            .all(|before| before.is_ok_and(|before| (before.role, before.handle) == (said.role, said.handle.clone())))
    }
}

/// The device that a key package would add: one that the person's key has certified, and the one that was asked for.
pub(super) fn certified(person: &Verified, taken: &TakenKeyPackage) -> Result<LeafCredential, Error> {
    let owner = key_package_owner(&taken.package.0)?;
    let certified = person.devices.iter().any(|(digest, certificate)| {
        *digest == owner.certificate && certificate.device == owner.device && owner.device == taken.device
    });
    if owner.person == person.person && certified {
        Ok(owner)
    } else {
        Err(PeerMisbehaved::WrongKey("a key package").into())
    }
}
