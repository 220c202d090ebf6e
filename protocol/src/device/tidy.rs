//! Matters kept in line with people's devices: one's own new ones are let in, revoked ones are put out, and whoever has another key comes
//! in under it (`rekey.rs`).
//!
//! What is to be done is no stored wish: it follows from the chains and revocations that a device knows, matter by matter, and so goes on
//! after any interruption. Removals go first.
//!
//! Invariant: a device is let in only with a key package that it signed under a certificate of this person's own, and nobody is put out
//! but by a verified revocation.

use std::collections::BTreeSet;

use crate::device::post::Wanted;
use crate::device::rekey::{Rekey, certified};
use crate::device::state::{KnownPerson, RecordBody, Stage};
use crate::device::{Asked, Device, Notice};
use crate::error::Error;
use crate::frame::{Reply, Request, Rights, TakenKeyPackage};
use crate::identity::{Verified, verify_chain};
use crate::ids::{DeviceId, MatterId, PersonId, Timestamp};
use crate::limits;
use crate::matter::{Applied, MatterContext, Member};

/// How much later each further device that may put another out does so: more than a fence takes to reach everybody.
const TURN_MS: u64 = 2_000;
/// How long to wait before asking again for a key package of a device that has none at the relay yet.
const NO_PACKAGE_MS: u64 = 15_000;
/// How long to wait after a Commit for this that nobody took.
pub(super) const TIDY_AGAIN_MS: u64 = 60_000;

/// A key package of a device that is to be let in, beside those of newcomers.
#[derive(Debug, Clone)]
pub(super) enum OwnPackage {
    /// It was asked for.
    Asked,
    /// It is here, for one matter.
    Here(TakenKeyPackage),
    /// There is none; to be asked for again.
    Missing(Timestamp),
}

/// What is to be done in a matter.
#[derive(Debug, Default)]
struct Untidy {
    /// Somebody whose new key the matter has yet to follow, with devices to let in.
    rekey: Option<Rekey>,
    missing: Vec<DeviceId>,
    gone: Vec<Member>,
    /// Whose turn it is, from 0.
    turn: u64,
    /// Until when a leaf that is to go is held back.
    awaited: Option<Timestamp>,
}

impl Device {
    /// The matters that have yet to let a device of this person in, or to put a revoked one out, as far as this device may.
    pub fn untidy(&self) -> Vec<MatterId> {
        let untidy = self.rooms.iter().filter(|(_, room)| room.row.stage == Stage::Open && room.tidy);
        untidy.map(|(matter, _)| *matter).collect()
    }

    /// Every matter is looked at, if there is anything to look for.
    pub(super) fn look_at_devices(&mut self) {
        let own = self.people.get(&self.profile.person).and_then(|known| known.chain.first());
        let several = own.is_some_and(|identity| identity.certificates.len() > 1);
        if several || !self.revoked.is_empty() || self.has_new_keys() {
            self.rooms.values_mut().for_each(|room| room.tidy = true);
        }
    }

    /// A Commit that lets this person's other devices in, or puts revoked ones out, if it is this device's turn.
    pub(super) fn post_tidy(&mut self, now: Timestamp, matter: MatterId) -> Result<bool, Error> {
        let Some(room) = self.rooms.get(&matter).filter(|room| room.tidy_due(now)) else { return Ok(false) };
        let row = room.row.clone();
        let untidy = self.untidy_in(matter)?;
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(false) };
        if untidy.missing.is_empty() && untidy.gone.is_empty() && untidy.rekey.is_none() {
            (room.tidy, room.tidy_at) = (untidy.awaited.is_some(), untidy.awaited);
            return Ok(false);
        }
        let at = *room.tidy_at.get_or_insert_with(|| now.plus_ms(untidy.turn.saturating_mul(TURN_MS)));
        if at > now {
            return Ok(false);
        }
        let mut wanted = Wanted::default();
        if let Some(rekey) = &untidy.rekey {
            self.rekey(now, matter, rekey, &mut wanted)?;
        }
        if !wanted.is_empty() {
            // One thing at a time: what else there is comes with the next.
        } else if untidy.gone.is_empty() {
            let verified = self.own_chain()?;
            for device in untidy.missing {
                if let Some(taken) = self.package_of(now, self.profile.person, device) {
                    match certified(&verified, &taken) {
                        Ok(owner) => wanted.own_device(owner, self.own_rights(), taken),
                        Err(why) => self.deliver(Notice::Problem(why)),
                    }
                }
            }
            if wanted.is_empty() {
                return Ok(false);
            }
        } else {
            wanted.put_out(untidy.gone.iter().map(|member| member.credential.device));
            let people: BTreeSet<PersonId> = untidy.gone.iter().map(|member| member.credential.person).collect();
            people.into_iter().for_each(|person| self.wants_back(matter, person));
        }
        let Err(why) = self.commit_post(matter, &row, wanted) else { return Ok(true) };
        self.drop_group(matter);
        self.put_off_tidying(matter);
        self.deliver(Notice::Problem(why));
        Ok(false)
    }

    /// What the relay, the members or the rules did not take is not tried again at once.
    pub(super) fn put_off_tidying(&mut self, matter: MatterId) {
        let at = self.now.plus_ms(TIDY_AGAIN_MS);
        if let Some(room) = self.rooms.get_mut(&matter).filter(|room| room.tidy) {
            room.tidy_at = Some(at);
        }
    }

    pub(super) fn own_rights(&self) -> Rights {
        if self.profile.role.manages() { Rights::MANAGER } else { Rights::MEMBER }
    }

    /// This person's own chain, verified.
    pub(super) fn own_chain(&self) -> Result<Verified, Error> {
        let own: Option<&KnownPerson> = self.people.get(&self.profile.person);
        verify_chain(own.map_or(&[][..], |known| &known.chain), &self.profile.organisation)
    }

    fn untidy_in(&mut self, matter: MatterId) -> Result<Untidy, Error> {
        let own = (self.profile.person, self.profile.device);
        let manages = self.profile.role.manages();
        let several = self
            .people
            .get(&own.0)
            .and_then(|known| known.chain.first())
            .is_some_and(|identity| identity.certificates.len() > 1);
        let certified: Vec<DeviceId> = match several {
            true => self.own_chain()?.devices.iter().map(|(_, certificate)| certificate.device).collect(),
            false => Vec::new(),
        };
        let group = self.group(matter)?;
        let (members, leaf, context) = (group.members(), group.own_leaf(), group.context()?);
        let rekey = self.to_rekey(&members, &context);
        let is_in = |device: &DeviceId| members.iter().any(|member| member.credential.device == *device);
        let mut missing = certified;
        // Under a key that the matter does not list yet, they come in with the list's change.
        let listed = context.participant(own.0).map(|listed| listed.person_key);
        missing.retain(|_| self.own_key().is_ok_and(|key| Some(key.digest()) == listed));
        missing.retain(|device| *device != own.1 && !is_in(device) && !self.revoked.contains_key(device));
        missing.truncate(limits::DEVICES_MAX.saturating_sub(members.len()));
        let is_out = |member: &&Member| {
            let credential = member.credential;
            let mine = credential.person == own.0;
            credential.device != own.1 && (mine || manages) && self.shuts_out(member)
        };
        let mut gone: Vec<Member> = members.iter().filter(is_out).copied().collect();
        let awaited = self.hold_back(&members, &context, &mut gone);
        let put_out = rekey.as_ref().map(|rekey| rekey.gone.as_slice()).unwrap_or_default();
        let stays = |member: &&Member| {
            let device = member.credential.device;
            member.leaf < leaf && !self.revoked.contains_key(&device) && !put_out.contains(&device)
        };
        let before = |person: Option<PersonId>| {
            let all = members.iter().filter(stays);
            all.filter(|member| person.is_none_or(|person| member.credential.person == person)).count() as u64
        };
        // Whoever has signed the statement does not wait for anybody; then come the person's own devices, then the others.
        let said_here = |member: &Member| {
            let said = self.revoked.get(&member.credential.device).map(|revoked| &revoked.said);
            said.is_some_and(|said| said.issuer.is_some_and(|issuer| issuer.device == own.1))
        };
        let turn = if gone.iter().any(said_here) || rekey.as_ref().is_some_and(|rekey| rekey.person == own.0) {
            0
        } else if rekey.is_some() {
            // One member after the other, or each would take a key package for it.
            before(None)
        } else if gone.iter().all(|member| member.credential.person == own.0) {
            before(Some(own.0))
        } else {
            before(None).saturating_add(1)
        };
        Ok(Untidy { rekey, missing, gone, turn, awaited })
    }

    /// Whoever would be out with their last leaf, and has another key, may come in under it in the same Commit: the leaf stays for a
    /// moment, until when is returned.
    fn hold_back(&self, members: &[Member], context: &MatterContext, gone: &mut Vec<Member>) -> Option<Timestamp> {
        let mut until: Option<Timestamp> = None;
        for listed in &context.people {
            let mut leaves = members.iter().filter(|member| member.credential.person == listed.person);
            if leaves.all(|member| gone.contains(member))
                && let Some(at) = self.awaits_key(listed)
            {
                gone.retain(|member| member.credential.person != listed.person);
                until = Some(until.map_or(at, |until| until.min(at)));
            }
        }
        until
    }

    /// A key package of somebody's device, if it is here; else it is asked for.
    pub(super) fn package_of(&mut self, now: Timestamp, person: PersonId, device: DeviceId) -> Option<TakenKeyPackage> {
        match self.own_packages.get(&device) {
            Some(OwnPackage::Asked) => return None,
            Some(OwnPackage::Missing(again)) if *again > now => return None,
            Some(OwnPackage::Here(_)) => {
                // It goes into one Welcome: another matter asks for its own.
                let Some(OwnPackage::Here(taken)) = self.own_packages.remove(&device) else { return None };
                return Some(taken);
            }
            _ => {}
        }
        self.own_packages.insert(device, OwnPackage::Asked);
        self.ask_later(Asked::TakeOwn(device), Request::TakeKeyPackages { person, device: Some(device) });
        None
    }

    pub(super) fn own_package_came(&mut self, now: Timestamp, device: DeviceId, reply: Reply) {
        let mut package = match reply {
            Reply::KeyPackages { packages } => packages.into_iter().find(|taken| taken.device == device),
            _ => None,
        };
        if let Err(error) = self.note_packages(package.as_slice()) {
            self.deliver(Notice::Problem(error));
            package = None;
        }
        let package = package.map_or_else(|| OwnPackage::Missing(now.plus_ms(NO_PACKAGE_MS)), OwnPackage::Here);
        self.own_packages.insert(device, package);
    }

    /// Whether there was no key package of an own device when it was asked for last.
    pub(super) fn lacks_packages(&self, device: DeviceId) -> bool {
        matches!(self.own_packages.get(&device), Some(OwnPackage::Missing(again)) if *again > self.now)
    }

    /// When a key package that was missing is to be asked for again.
    pub(super) fn packages_due(&self) -> Option<Timestamp> {
        let again = self.own_packages.values().filter_map(|package| match package {
            OwnPackage::Missing(again) => Some(*again),
            _ => None,
        });
        again.min()
    }

    /// Records whose devices came and went, beside the people who did.
    pub(super) fn tell_devices(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        from: (PersonId, DeviceId),
        applied: &Applied,
        before: &[PersonId],
    ) {
        let after: BTreeSet<PersonId> =
            self.rooms.get(&matter).map(|room| room.row.people.iter().copied().collect()).unwrap_or_default();
        let again = |members: &[Member], device| members.iter().any(|member| member.credential.device == device);
        for member in &applied.added {
            let (person, device) = (member.credential.person, member.credential.device);
            if before.contains(&person) && !again(&applied.removed, device) {
                self.record(now, matter, seq, Some(from), now, RecordBody::DeviceAdded { person, device });
            }
        }
        for member in &applied.removed {
            let (person, device) = (member.credential.person, member.credential.device);
            if after.contains(&person) && !again(&applied.added, device) {
                self.record(now, matter, seq, Some(from), now, RecordBody::DeviceRemoved { person, device });
            }
        }
    }
}

impl super::room::Room {
    /// Whether this device may have to let somebody in or put somebody out, by now.
    pub(super) fn tidy_due(&self, now: Timestamp) -> bool {
        let open = self.row.stage == Stage::Open && self.row.lost.is_none();
        open && self.tidy && self.commits.values().all(|own| own.refused) && self.tidy_at.is_none_or(|at| at <= now)
    }
}
