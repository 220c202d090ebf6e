//! People: inviting, judging and endorsing newcomers, learning chains, and keeping key packages at the relay.
//!
//! 1. An invite's secret stays in this vault; the relay gets the hash of its token and a signed statement.
//! 2. A newcomer is believed only with the proof that who can read the invite can make; then this device endorses them.
//! 3. Chains are fetched when somebody is to be added, and verified up to the organisation's key.
//!
//! Invariant: this device signs an endorsement for nobody whose keys the invite's proof does not cover.

use crate::between::Body;
use crate::device::enrol::identity_of;
use crate::device::state::{Counters, OwnInvite, Table};
use crate::device::withdrawing::withdrawn_told;
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved, Refused};
use crate::frame::{Blob, NewInvite, Registration, Reply, Request};
use crate::identity::{
    DeviceCertificate, Endorsement, Identity, Issuer, Name, Role, Signed, check_handle, may_endorse, verify_chain,
};
use crate::ids::{InviteId, PersonId, Timestamp};
use crate::invite::{Claim, Invite, InviteSecret, InviteStatement};
use crate::limits;
use crate::matter::key_package;
use crate::suite::{Digest, Label};

/// Whom to invite.
#[derive(Debug, Clone)]
pub struct NewPersonInvite {
    /// As what.
    pub role: Role,
    /// The handle they must take, if it is chosen already.
    pub handle: Option<String>,
    /// Their name, if it is given already.
    pub name: Option<String>,
    /// For how long it is good, in milliseconds.
    pub lasts_ms: u64,
    /// Who is enrolled anew, with another key, if it is nobody new: their handle and role count, not those above.
    pub replaces: Option<PersonId>,
}

impl NewPersonInvite {
    /// An invite for anybody in a role, good as long as invites are.
    pub fn new(role: Role) -> Self {
        Self { role, handle: None, name: None, lasts_ms: limits::INVITE_LIFETIME_MS, replaces: None }
    }
}

impl Device {
    /// Makes an invite and files it. It may be used once [`Notice::InviteFiled`] comes.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] where this person's role may not; [`crate::error::Malformed`] for a bad handle or name.
    pub fn invite(&mut self, now: Timestamp, wanted: &NewPersonInvite) -> Result<Invite, Error> {
        let wanted = &self.as_they_are(wanted)?;
        if !may_endorse(self.profile.role, self.profile.registrar, wanted.role) {
            let (own, other) = (self.profile.role.word(), wanted.role.word());
            let who = if self.profile.role.manages() { "a registrar" } else { "your attorney" };
            let what = format!("as {own} you may not invite somebody as {other}; ask {who} to do it");
            return Err(Refused::not_allowed(what).into());
        }
        if let Some(handle) = &wanted.handle {
            check_handle(handle)?;
        }
        let name = wanted.name.as_deref().map(|name| self.name_of(wanted.replaces, name)).transpose()?;
        let secret = InviteSecret::random();
        let lasts = wanted.lasts_ms.clamp(limits::INVITE_LIFETIME_MIN_MS, limits::INVITE_LIFETIME_MS);
        let expires = now.plus_ms(lasts);
        let statement = InviteStatement {
            invite: secret.id(),
            issuer: self.issuer(),
            role: wanted.role,
            handle: wanted.handle.clone(),
            name: name.as_ref().map(Name::commitment),
            expires,
            links: None,
            replaces: wanted.replaces,
        };
        let statement = Signed::make(Label::Invite, &self.profile.mls_key, &statement)?;
        let sealed = name.as_ref().map(|name| secret.seal_name(name)).transpose()?;
        let own = OwnInvite {
            secret: secret.clone(),
            role: wanted.role,
            statement: statement.digest(),
            name,
            expires,
            links: false,
            shared: false,
            replaces: wanted.replaces,
            relay: None,
            from: None,
            by: None,
        };
        self.batch.put(Table::Invite, None, secret.id().as_bytes(), &own);
        self.invites.insert(secret.id(), own);
        // With the invite itself, so that neither is without the other, whatever happens before the relay has answered.
        self.share_invite(secret.id());
        let filed = NewInvite { token_hash: secret.token_hash(), statement, name: sealed.map(Blob) };
        self.ask(Asked::Invite(secret.id()), Request::Invite(filed));
        self.settle(now);
        Ok(Invite {
            address: self.profile.address.clone(),
            relay: self.profile.relay.fingerprint(),
            organisation: Some(self.profile.organisation.fingerprint()),
            secret,
        })
    }

    /// A name to be stated. Whoever is enrolled anew under the name that they had keeps it with its salt: so everybody who knew it still does.
    fn name_of(&self, person: Option<PersonId>, name: &str) -> Result<Name, Error> {
        let name = Name::new(name)?;
        let known = person.and_then(|person| self.people.get(&person)).filter(|known| known.is_named());
        let same = known.and_then(|known| known.name.clone()).filter(|known| known.name == name.name);
        Ok(same.unwrap_or(name))
    }

    /// Whoever is enrolled anew keeps handle and role.
    fn as_they_are(&self, wanted: &NewPersonInvite) -> Result<NewPersonInvite, Error> {
        let Some(person) = wanted.replaces else { return Ok(wanted.clone()) };
        if person == self.profile.person {
            return Err(Refused::not_allowed(
                "nobody vouches for themselves: use your recovery sheet, or ask another registrar",
            )
            .into());
        }
        let known = self.people.get(&person).ok_or_else(|| Refused::not_found("that person"))?;
        let said = known.endorsements().into_iter().next().ok_or(PeerMisbehaved::NotEndorsed)?;
        self.check_may_enrol_anew(&said)?;
        let name = wanted.name.clone().or_else(|| known.name.as_ref().map(|name| name.name.clone()));
        Ok(NewPersonInvite { role: said.role, handle: Some(said.handle), name, ..wanted.clone() })
    }

    /// Asks what became of this person's invites; the answer is [`Notice::Invites`].
    pub fn ask_invites(&mut self, now: Timestamp) {
        self.ask(Asked::Invites, Request::Invites);
        self.settle(now);
    }

    pub(super) fn invites_came(&mut self, reply: Reply) {
        match reply {
            Reply::Invites { invites } => self.deliver(Notice::Invites(invites)),
            Reply::Refused(refused) => self.deliver(Notice::InviteRefused(refused)),
            _ => {}
        }
    }

    /// Cancels an own invite: [`Notice::InviteCancelled`] or [`Notice::InviteRefused`] tells what became of it.
    pub fn cancel_invite(&mut self, now: Timestamp, invite: InviteId) {
        self.ask(Asked::CancelInvite(invite), Request::CancelInvite { invite });
        self.settle(now);
    }

    pub(super) fn invite_cancelled(&mut self, invite: InviteId, reply: Reply) {
        match reply {
            Reply::Done => {
                self.bury_invite(invite);
                self.note_to_others(&Body::InviteGone(invite));
                self.deliver(Notice::InviteCancelled(invite));
            }
            Reply::Refused(refused) => self.deliver(Notice::InviteRefused(refused)),
            _ => {}
        }
    }

    /// The name that this device has given with an invite, while it keeps it.
    pub fn name_in_invite(&self, invite: InviteId) -> Option<&str> {
        self.invites.get(&invite).and_then(|own| own.name.as_ref()).map(|name| name.name.as_str())
    }

    /// Whom an invite of this device's enrols anew, while it keeps it.
    pub fn replaced_by_invite(&self, invite: InviteId) -> Option<PersonId> {
        self.invites.get(&invite).and_then(|own| own.replaces)
    }

    pub(super) fn invite_filed(&mut self, invite: InviteId, reply: Reply) {
        match reply {
            Reply::Refused(refused) => {
                self.forget_invite(invite);
                self.note_to_others(&Body::InviteGone(invite));
                self.deliver(Notice::InviteRefused(refused));
            }
            _ => self.deliver(Notice::InviteFiled),
        }
    }

    pub(super) fn forget_invite(&mut self, invite: InviteId) {
        self.invites.remove(&invite);
        self.batch.delete(Table::Invite, None, invite.as_bytes());
    }

    /// Whoever used an invite in time may wait for their endorsement a good while longer; then its secret goes.
    pub(super) fn forget_old_invites(&mut self, now: Timestamp) {
        let old = self.invites.iter().filter(|(_, own)| own.is_over(now));
        let old: Vec<InviteId> = old.map(|(invite, _)| *invite).collect();
        old.into_iter().for_each(|invite| self.forget_invite(invite));
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer { person: self.profile.person, device: self.profile.device }
    }

    /// The hash of this person's key.
    pub(super) fn own_person_key(&self) -> Result<Digest, Error> {
        if self.profile.linking.is_some() {
            return Err(Refused::not_allowed(
                "this device waits to be linked: confirm it on the device that made the invite",
            )
            .into());
        }
        let known = self.people.get(&self.profile.person).and_then(|known| known.chain.first());
        match known {
            Some(identity) => Ok(identity.person_key.digest()),
            None => Err(Refused::not_allowed("nobody has endorsed you yet").into()),
        }
    }

    /// Asks for what a device needs to know of people when its link comes up: its own chain, and who waits for it.
    pub(super) fn ask_about_people(&mut self) {
        // Other devices of this person may have come since, or its name was confirmed while this device was away.
        self.ask_own_chain();
        self.ask_revocations();
        self.ask_newcomers();
        self.look_who_waits();
    }

    /// Asks what is said of this person now: their endorsement, and which devices there are.
    pub(super) fn ask_own_chain(&mut self) {
        if self.ready {
            let person = self.profile.person;
            self.ask(Asked::Chain(person), Request::Chain { person });
        }
    }

    pub(super) fn ask_newcomers(&mut self) {
        if self.ready && !self.invites.is_empty() {
            self.ask(Asked::Newcomers, Request::Newcomers);
        }
    }

    /// Asks for somebody's chain and key packages.
    pub(super) fn ask_about(&mut self, person: PersonId) {
        self.ask(Asked::Chain(person), Request::Chain { person });
        self.ask(Asked::Take(person), Request::TakeKeyPackages { person, device: None });
    }

    pub(super) fn chain_came(&mut self, person: PersonId, reply: Reply) {
        match self.take_chain(person, reply) {
            Ok(chain) => {
                if person == self.profile.person {
                    self.look_at_devices();
                    self.greet();
                    self.read_held(self.now);
                }
                if let Some(material) = self.materials.get_mut(&person) {
                    material.chain = Some(chain);
                }
            }
            Err(error) => self.material_failed(person, error),
        }
    }

    pub(super) fn key_packages_came(&mut self, person: PersonId, reply: Reply) {
        match reply {
            Reply::KeyPackages { packages } if packages.is_empty() => {
                self.material_failed(person, Refused::not_found("a key package of that person").into());
            }
            Reply::KeyPackages { packages } => {
                if let Err(error) = self.note_packages(&packages) {
                    return self.material_failed(person, error);
                }
                if let Some(material) = self.materials.get_mut(&person) {
                    material.packages = Some(packages);
                }
            }
            Reply::Refused(refused) => self.material_failed(person, refused.into()),
            _ => self.material_failed(person, PeerMisbehaved::Mismatch("the relay's answer").into()),
        }
    }

    /// Somebody who can't be added now: not endorsed yet, and then it waits; or never, and then it is told.
    pub(super) fn material_failed(&mut self, person: PersonId, error: Error) {
        let withdrawn = self.is_withdrawn(person);
        let error = if withdrawn { withdrawn_told() } else { error };
        let waits = !withdrawn
            && matches!(
                error,
                Error::Refused(Refused::NotFound { .. } | Refused::NotAllowed { .. } | Refused::Slow { .. })
            );
        let Some(material) = self.materials.get_mut(&person) else { return };
        let told = std::mem::replace(&mut material.waits, true);
        if told {
            return;
        }
        let wanting: Vec<(crate::ids::MatterId, u64, bool)> = self
            .rooms
            .iter()
            .flat_map(|(id, room)| room.intents.iter().map(move |(number, intent)| (*id, *number, intent)))
            .filter(|(_, _, intent)| intent.add && intent.person == person)
            .map(|(id, number, intent)| (id, number, intent.told))
            .collect();
        for (matter, number, told) in wanting {
            if !waits {
                self.not_done(matter, number, error.clone());
            } else if !told {
                self.tell_waits(matter, number);
            }
        }
    }

    fn tell_waits(&mut self, matter: crate::ids::MatterId, number: u64) {
        let Some(intent) = self.rooms.get_mut(&matter).and_then(|room| room.intents.get_mut(&number)) else { return };
        intent.told = true;
        let person = intent.person;
        self.batch.put(Table::Intent, Some(matter), &number.to_be_bytes(), &*intent);
        self.deliver(Notice::Waits { matter, person });
    }

    pub(super) fn newcomers_came(&mut self, now: Timestamp, reply: Reply) {
        let Reply::Newcomers { newcomers } = reply else { return };
        let alone = self.other_devices().is_empty();
        for newcomer in newcomers.into_iter().take(limits::INVITES_OPEN_MAX) {
            // Another device of this person made that invite, and judges who has used it.
            if !alone && !self.invites.contains_key(&newcomer.invite) {
                continue;
            }
            if self.leaves_to_another(now, newcomer.invite) {
                continue;
            }
            let under_way = |asked: &Asked| matches!(asked, Asked::Endorse(person, ..) if *person == newcomer.person);
            if self.link.as_ref().is_some_and(|link| link.asked.values().any(under_way)) {
                continue;
            }
            match self.endorse(now, &newcomer) {
                Ok((endorsement, chain, name)) => {
                    let person = newcomer.person;
                    let asked = Asked::Endorse(person, newcomer.invite, Box::new((newcomer.handle, chain, name)));
                    self.ask(asked, Request::Endorse { person, endorsement });
                }
                Err(why) => self.deliver(Notice::Suspicious { handle: newcomer.handle, why }),
            }
        }
        self.notes.newcomers_waited = false;
    }

    /// Judges a newcomer by the proof under the invite's check key, and signs for them.
    fn endorse(&mut self, now: Timestamp, newcomer: &Registration) -> Result<(Signed, Vec<Identity>, Name), Error> {
        let invite = self.invites.get(&newcomer.invite).filter(|invite| !invite.links);
        let invite = invite.ok_or(PeerMisbehaved::WrongKey("the newcomer's invite"))?;
        if [invite.from, invite.by].into_iter().flatten().any(|device| self.is_revoked(device)) {
            return Err(PeerMisbehaved::InviterGone.into());
        }
        if invite.is_over(now) {
            return Err(Refused::Invite { what: "it ended too long ago".to_owned() }.into());
        }
        let certificate: DeviceCertificate =
            newcomer.certificate.verify(Label::DeviceCertificate, &newcomer.person_key, "device certificate")?;
        let claim = Claim {
            invite: newcomer.invite,
            relay: self.relay_of(invite),
            person: newcomer.person,
            device: certificate.device,
            person_key: newcomer.person_key.digest(),
            certificate: newcomer.certificate.digest(),
            handle: newcomer.handle.clone(),
            statement: Some(invite.statement),
        };
        invite.secret.check(&claim, &newcomer.proof)?;
        // Whoever is new has the id that follows from their key: it is nobody else's.
        let theirs = invite.replaces.unwrap_or_else(|| PersonId::of(&newcomer.person_key));
        if certificate.person != newcomer.person || newcomer.role != invite.role || newcomer.person != theirs {
            return Err(PeerMisbehaved::Mismatch("the newcomer's registration").into());
        }
        let anew = invite.replaces.is_some();
        let before = self.said_of(newcomer.person).filter(|_| anew);
        if let Some(before) = &before {
            self.check_may_enrol_anew(before)?;
            if (before.role, &before.handle) != (newcomer.role, &newcomer.handle) {
                return Err(PeerMisbehaved::Mismatch("the newcomer's registration").into());
            }
        }
        // Later than what was said before, whatever the clocks say, and not undone by what was withdrawn once.
        let from = before.as_ref().map_or(now, |before| now.max(before.from.plus_ms(1)));
        let withdrawn = self.withdrawn.get(&newcomer.person).map(|row| row.statement.digest());
        let after = withdrawn.or_else(|| before.and_then(|before| before.after));
        let name = invite.secret.open_name(&newcomer.name)?;
        let endorsement = Endorsement {
            person: newcomer.person,
            person_key: newcomer.person_key.digest(),
            role: invite.role,
            registrar: false,
            handle: newcomer.handle.clone(),
            name: name.commitment(),
            issuer: Some(self.issuer()),
            from,
            until: from.plus_ms(limits::ENDORSEMENT_LIFETIME_MS),
            confirmed: invite.name.as_ref() == Some(&name),
            adopted: false,
            after,
        };
        let signed = Signed::make(Label::Endorsement, &self.profile.mls_key, &endorsement)?;
        let mut chain = vec![identity_of(newcomer, signed.clone())];
        if let Some(own) = self.people.get(&self.profile.person) {
            chain.extend(own.chain.iter().cloned());
        }
        let said = verify_chain(&chain, &self.profile.organisation)?;
        let other = self.people.get(&said.person).is_some_and(|known| known.key() != Some(endorsement.person_key));
        match (other, anew) {
            // Who they are changes once the relay has taken it.
            (true, true) => {}
            (true, false) => return Err(PeerMisbehaved::WrongKey("the newcomer's identity").into()),
            (false, _) => self.meet(&said, &chain, Some(name.clone()))?,
        }
        self.look_at_devices();
        self.warn_of_look_alikes(said.person);
        Ok((signed, chain, name))
    }

    pub(super) fn endorsed(
        &mut self,
        person: PersonId,
        invite: InviteId,
        (handle, chain, name): (String, Vec<Identity>, Name),
        reply: Reply,
    ) {
        if let Reply::Refused(refused) = reply {
            // Where another device of this person was faster, it says so in a note.
            if !matches!(refused, Refused::Malformed { .. }) || self.other_devices().is_empty() {
                self.deliver(Notice::Problem(refused.into()));
            }
            return;
        }
        let met =
            verify_chain(&chain, &self.profile.organisation).and_then(|said| self.meet(&said, &chain, Some(name)));
        if let Err(error) = met {
            self.deliver(Notice::Problem(error));
        }
        self.bury_invite(invite);
        self.share_endorsed(person, invite);
        self.materials.remove(&person);
        self.deliver(Notice::Endorsed { handle });
    }

    /// Makes key packages until the relay has as many as it should, and a last-resort one.
    pub(super) fn top_up_key_packages(&mut self, left: u32) -> Result<(), Error> {
        let asked = |link: &super::Link| link.asked.values().any(|asked| matches!(asked, Asked::KeyPackages { .. }));
        if self.link.as_ref().is_none_or(asked) {
            return Ok(());
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let missing = limits::KEY_PACKAGES.saturating_sub(left);
        let single = if missing > limits::KEY_PACKAGES / 2 { missing } else { 0 };
        let fresh = self.last_resort.plus_ms(limits::LAST_RESORT_MS) > self.now;
        if single == 0 && fresh {
            return Ok(());
        }
        let mut single_use = Vec::new();
        for _ in 0..single {
            single_use.push(self.new_key_package(false)?);
        }
        let last_resort = if fresh { None } else { Some(self.new_key_package(true)?) };
        let asked = Asked::KeyPackages { last_resort: last_resort.is_some() };
        self.ask(asked, Request::PublishKeyPackages { single_use, last_resort });
        Ok(())
    }

    /// A link may stay up for weeks: the last-resort key package is replaced on it, too.
    pub(super) fn rotate_last_resort(&mut self, now: Timestamp) {
        let old = self.last_resort.plus_ms(limits::LAST_RESORT_MS) <= now;
        if old && self.is_caught_up() {
            let enough = u32::try_from(limits::KEY_PACKAGES).unwrap_or(u32::MAX);
            if let Err(error) = self.top_up_key_packages(enough) {
                self.deliver(Notice::Problem(error));
            }
        }
    }

    /// Key packages are at the relay: only now does the last-resort one count.
    pub(super) fn published(&mut self, last_resort: bool, reply: Reply) {
        match reply {
            Reply::Refused(refused) => self.deliver(Notice::Problem(refused.into())),
            _ if last_resort => self.set_last_resort(self.now),
            _ => {}
        }
    }

    /// Keeps when the last-resort key package was published; never, where its time is 0.
    pub(super) fn set_last_resort(&mut self, at: Timestamp) {
        self.last_resort = at;
        self.batch.put(Table::Counter, None, Counters::LAST_RESORT, &at.0);
    }

    pub(super) fn new_key_package(&mut self, last_resort: bool) -> Result<Blob, Error> {
        let (message, reference, secret) = key_package(&self.me, &self.key_packages, last_resort)?;
        self.batch.put_bytes(Table::KeyPackage, None, &reference, secret);
        if last_resort {
            self.keep_newest(reference);
        }
        Ok(Blob(message))
    }

    /// Of last-resort key packages the newest few are kept: a Welcome may be on its way to the one before.
    fn keep_newest(&mut self, reference: Vec<u8>) {
        self.last_resorts.push(Blob(reference));
        while self.last_resorts.len() > limits::LAST_RESORTS {
            let oldest = self.last_resorts.remove(0);
            self.key_packages.forget(&oldest.0);
            self.batch.delete(Table::KeyPackage, None, &oldest.0);
        }
        self.batch.put(Table::Counter, None, Counters::LAST_RESORTS, &self.last_resorts);
    }
}
