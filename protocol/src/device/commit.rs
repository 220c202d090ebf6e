//! Commits, as they are read: judged, applied, told; and what follows from this device's own removal.
//!
//! Invariant: a Commit is applied when it is read, this device's own too, with the secrets that were kept for it; and whether it is void
//! follows from what stands in the mailbox alone.

use crate::content::Bundle;
use crate::device::apply::{Stop, author};
use crate::device::state::{Healing, HeldBundle, OwnCommit, Purpose, RecordBody, Removal, Stage, Table};
use crate::device::{Device, Notice, Room};
use crate::envelope::Class;
use crate::error::{Error, Misuse, PeerMisbehaved};
use crate::ids::{DeviceId, MatterId, MessageId, PersonId, Position, Timestamp};
use crate::matter::{Applied, Certificates, MatterContext, NO_CERTIFICATE, NO_PROOF, Seen};
use crate::suite::Digest;

impl Device {
    pub(super) fn commit(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
        payload: &[u8],
    ) -> Result<(), Stop> {
        let room = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?;
        let (mut bundles, requests) = (room.row.bundles.clone(), room.row.requests.clone());
        let own: Option<OwnCommit> = room.commits.get(digest).cloned();
        if let Some((digest, bundle)) = own.as_ref().and_then(|own| own.bundle.clone()) {
            // What it names is known here, whatever the relay shows of it.
            bundles.push(HeldBundle { digest, device: self.profile.device, bundle });
        }
        let applied = match &own {
            Some(own) => self.group(matter)?.apply_own(&own.secrets, own.epoch)?,
            None => self.try_commit(matter, payload)??,
        };
        let answered = requests.iter().find(|held| Some(held.digest) == applied.seen.repair);
        let bundle = if answered.is_none() { check_bundle(&applied, &bundles)? } else { None };
        if let Some(bundle) = &bundle {
            self.learn(bundle);
        }
        let from = author(&applied.committer);
        if applied.removed_me {
            self.removed_here(now, matter, seq, &applied);
            return Ok(());
        }
        if own.is_none() {
            self.heard(now, matter, seq, from, &applied.seen);
        }
        let context = self.group(matter)?.context()?;
        let before = self.rooms.get(&matter).map(|room| room.row.people.clone()).unwrap_or_default();
        self.new_epoch(now, matter, seq, own.is_some());
        if let Some(room) = self.rooms.get_mut(&matter) {
            applied.added.iter().for_each(|member| room.heard(member.credential.device, now));
            room.row.heard.retain(|heard| !applied.removed.iter().any(|gone| gone.credential.device == heard.device));
        }
        self.tell_people(now, matter, seq, Some(from), &context);
        self.tell_devices(now, matter, seq, from, &applied, &before);
        if let Some(held) = answered
            && let Ok((member, _)) = self.group(matter)?.member_of(held.request.device)
        {
            self.count_let_in(now, matter, held.request.device);
            let what = RecordBody::LetBackIn { person: member.credential.person, device: held.request.device };
            self.record(now, matter, seq, Some(from), now, what);
        }
        self.settle_commits(matter, &context);
        if let Some(bundle) = bundle.filter(|_| own.is_none()) {
            self.tell_names(matter, &bundle);
        }
        if own.is_none() && (!applied.added.is_empty() || !applied.removed.is_empty()) {
            self.look_at_roster(matter);
        }
        Ok(())
    }

    /// Applies somebody else's Commit. One that lacks nothing but the bundle that it names waits for it, if the relay withholds it.
    fn try_commit(&mut self, matter: MatterId, payload: &[u8]) -> Result<Result<Applied, Error>, Stop> {
        let certificates = self.evidence(matter, payload)?;
        let named = Seen::of_message(payload)?.bundle;
        let applied = self.group(matter)?.apply(payload, certificates);
        let lacks = |why: &Error| {
            let of = |void: &str| *why == Error::from(PeerMisbehaved::Void(void.to_owned()));
            of(NO_CERTIFICATE) || of(NO_PROOF)
        };
        let withheld = |room: &Room| room.row.withheld.iter().any(|withheld| Some(withheld.digest) == named);
        let pauses = applied.as_ref().is_err_and(lacks) && self.rooms.get(&matter).is_some_and(withheld);
        if pauses { Err(Stop::Paused) } else { Ok(applied) }
    }

    /// What a Commit is judged by: the bundle or the request that it names itself, so that nobody else's can make it void.
    fn evidence(&self, matter: MatterId, payload: &[u8]) -> Result<Certificates, Stop> {
        let row = &self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row;
        let seen = Seen::of_message(payload)?;
        if let Some(named) = seen.repair {
            let held = row.requests.iter().find(|held| held.digest == named);
            let missing = || PeerMisbehaved::Void("the request it names does not stand before it".to_owned());
            return Ok(Certificates::repair(held.ok_or_else(missing)?.request.clone()));
        }
        let held = row.bundles.iter().find(|held| Some(held.digest) == seen.bundle);
        Ok(Certificates::of(held.map_or(&[][..], |held| &held.bundle.identities))?)
    }

    /// A Commit was applied: a new epoch with fresh keys.
    fn new_epoch(&mut self, now: Timestamp, matter: MatterId, seq: u64, own: bool) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        room.row.epoch_seq = seq;
        room.row.healing.generations = 0;
        if own {
            room.row.healing = Healing { at: now, ..Healing::default() };
        }
    }

    /// Records who came and who went. What this device removed itself is *requested* until another member is heard in the new epoch.
    pub(super) fn tell_people(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        from: Option<(PersonId, DeviceId)>,
        context: &MatterContext,
    ) {
        let own = from.is_some_and(|(_, device)| device == self.profile.device);
        self.watch_people(context);
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        let (added, removed) = room.people_changed(context);
        room.row.requested.retain(|person| !added.contains(person));
        if !added.is_empty() {
            self.record(now, matter, seq, from, now, RecordBody::Added { people: added });
        }
        let Some(room) = self.rooms.get_mut(&matter).filter(|_| !removed.is_empty()) else { return };
        // Alone, there is nobody whose word could be waited for.
        let what = if own && room.row.people.len() > 1 {
            room.row.requested.extend(&removed);
            RecordBody::Requested { people: removed }
        } else {
            RecordBody::Removed { people: removed }
        };
        self.record(now, matter, seq, from, now, what);
    }

    /// An own Commit that nobody can apply is not built again and again: what it was for is reported.
    pub(super) fn own_commit_void(&mut self, matter: MatterId, digest: &Digest, why: &Error) {
        let Some(commit) = self.rooms.get_mut(&matter).and_then(|room| room.commits.remove(digest)) else { return };
        self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        for number in commit.intents {
            self.not_done(matter, number, why.clone());
        }
        self.put_off_healing(matter);
    }

    /// A Commit of this epoch was applied: no own one of it can be any more, and intents that now hold are done.
    pub(super) fn settle_commits(&mut self, matter: MatterId, context: &MatterContext) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        for digest in std::mem::take(&mut room.commits).into_keys() {
            self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        }
        let mut done = Vec::new();
        let waits: Vec<PersonId> =
            room.intents.values().map(|intent| intent.person).filter(|person| room.is_yet_to_come(*person)).collect();
        room.intents.retain(|number, intent| {
            let waits = !intent.add && waits.contains(&intent.person);
            let holds = context.participant(intent.person).is_some() == intent.add && !waits;
            if holds {
                done.push((*number, intent.person, intent.add));
            }
            !holds
        });
        for (number, person, add) in done {
            self.batch.delete(Table::Intent, Some(matter), &number.to_be_bytes());
            self.materials.remove(&person);
            self.deliver(Notice::Done { matter, person, add });
        }
        self.forget_posts_if(matter, |purpose| matches!(purpose, Purpose::Commit(_)));
    }

    fn removed_here(&mut self, now: Timestamp, matter: MatterId, seq: u64, applied: &Applied) {
        let people = vec![self.profile.person];
        self.record(now, matter, seq, Some(author(&applied.committer)), now, RecordBody::Removed { people });
        // The old state stays for a while: the removal may turn out void.
        self.drop_group(matter);
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.row.removal = Some(Removal { by: applied.committer.credential.device, at: now });
        }
        self.close(matter, Stage::Removed);
    }

    /// Behind this device's own removal: if a member other than who removed it goes on in the old epoch, the removal was void.
    pub(super) fn after_removal(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        digest: &Digest,
        (class, fence): (Class, bool),
        payload: &[u8],
    ) -> Result<Option<(PersonId, MessageId)>, Stop> {
        let by = self.rooms.get(&matter).and_then(|room| room.row.removal).map(|removal| removal.by);
        let goes_on = match (class, fence) {
            (Class::Message, false) => self.group(matter)?.open(payload).map(|opened| opened.sender),
            (Class::Commit, true) => match self.try_commit(matter, payload) {
                Ok(applied) => applied.map(|applied| applied.committer),
                // What can't be judged is no sign that the others go on.
                Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        // It was only tried: what it changed in memory is thrown away.
        self.drop_group(matter);
        if goes_on.is_ok_and(|member| Some(member.credential.device) != by) {
            if let Some(room) = self.rooms.get_mut(&matter) {
                room.row.stage = Stage::Open;
                room.row.removal = None;
            }
            self.record(now, matter, position.seq, None, now, RecordBody::Reinstated);
            if class == Class::Message {
                return self.text_or_bundle(now, matter, position.seq, digest, payload);
            }
            self.commit(now, matter, position.seq, digest, payload)?;
        }
        Ok(None)
    }
}

/// A Commit that adds needs the bundle it names, by the same device, and no other certificates.
fn check_bundle(applied: &Applied, bundles: &[HeldBundle]) -> Result<Option<Bundle>, Error> {
    let Seen { bundle, .. } = applied.seen;
    if applied.added.is_empty() {
        // It may prove a new key of somebody; what it proves was judged with the Commit.
        let held = bundles.iter().find(|held| Some(held.digest) == bundle && bundle.is_some());
        let own = held.filter(|held| held.device == applied.committer.credential.device);
        return Ok(own.map(|held| held.bundle.clone()));
    }
    let missing = || PeerMisbehaved::Void("the bundle it names does not stand before it".to_owned());
    let held = bundles
        .iter()
        .find(|held| Some(held.digest) == bundle && held.device == applied.committer.credential.device)
        .ok_or_else(missing)?;
    let certificates: Vec<Digest> = held
        .bundle
        .identities
        .iter()
        .flat_map(|identity| identity.certificates.iter().map(crate::identity::Signed::digest))
        .collect();
    if applied.added.iter().any(|member| !certificates.contains(&member.credential.certificate)) {
        return Err(missing().into());
    }
    Ok(Some(held.bundle.clone()))
}
