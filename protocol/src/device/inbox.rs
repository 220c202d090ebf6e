//! The inbox: Welcomes, and the matters they lead into; what comes from other devices of the same person is read in `notes.rs`.
//!
//! Invariant: a Welcome leads only into a matter that is new here, or that this device waits to be let into, and everybody in it is whom
//! the organisation's chain says.

use crate::content::Bundle;
use crate::device::state::{Counters, Heard, Lost, MatterRow, RECENT, Stage, Table};
use crate::device::{Asked, Device, Notice, Room};
use crate::envelope::{self, Class};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{Blob, Entry, EntryBody, Request};
use crate::identity::{Endorsement, Identity, verify_chain};
use crate::ids::{MatterId, PersonId, Position, Timestamp};
use crate::limits;
use crate::matter::{Matter, MatterContext, Participant};
use crate::rescue::Successor;
use crate::suite::PublicKey;

impl Device {
    pub(super) fn inbox_subscribed(&mut self, start: Position, head: u64) {
        let inbox = self.profile.inbox;
        if start != self.inbox {
            self.deliver(Notice::Problem(PeerMisbehaved::Fork { seq: self.inbox.seq }.into()));
            return;
        }
        if let Some(link) = self.link.as_mut() {
            link.heads.insert(inbox, head);
        }
        if self.used_welcomes == Some(u64::MAX) {
            // Whatever stands in the inbox by now, another copy of this vault may have used.
            self.set_used_welcomes(head);
        }
    }

    pub(super) fn inbox_entry(&mut self, now: Timestamp, entry: &Entry) {
        let next = self.inbox.seq.saturating_add(1);
        if entry.seq != next {
            let held = self.link.as_ref().is_some_and(|link| link.held_welcome.is_some());
            self.early(entry.seq > next && !held);
            return;
        }
        let joined = match &entry.body {
            EntryBody::Envelope(bytes) => match envelope::unwrap(&bytes.0) {
                Ok((Class::Welcome, welcome)) => self.welcome(now, entry.seq, welcome),
                Ok((Class::Between, payload)) => self.between_came(now, entry.seq, payload).map(|()| true),
                Ok(_) => Ok(true),
                Err(error) => Err(error.into()),
            },
            EntryBody::Expired(_) => Ok(true),
        };
        if joined == Ok(false) {
            return;
        }
        self.inbox = self.inbox.next(entry.fence, &entry.digest());
        self.batch.put(Table::Counter, None, Counters::INBOX, &self.inbox);
        if let Err(error) = joined {
            let welcomes = matches!(&entry.body, EntryBody::Envelope(bytes) if matches!(envelope::unwrap(&bytes.0), Ok((Class::Welcome, _))));
            self.deliver(if welcomes { Notice::FalseWelcome(error) } else { Notice::Problem(error) });
        }
    }

    /// Joins the matter that a Welcome leads into, if everyone in it is vouched for by the organisation. False if it has to wait.
    pub(super) fn welcome(&mut self, now: Timestamp, seq: u64, welcome: &[u8]) -> Result<bool, Error> {
        let (before, kept) = (self.key_packages.references(), self.key_packages.snapshot());
        let joined = Matter::join(&self.me, &self.key_packages, welcome);
        let mut waited = None;
        if let Ok((group, companion)) = &joined {
            let context = group.context()?;
            let matter = self.matter_of(group.id()?, &context, &companion.line);
            let waits = self.rooms.get(&matter).filter(|room| room.row.stage == Stage::Moving);
            waited = waits.map(|room| (room.row.successor.clone(), room.row.fates.clone()));
            if let Err(error) =
                self.statements_in_a_welcome(now, matter, &context, &companion.line, group.welcomed_by())
            {
                self.deliver(Notice::Problem(error));
            }
        }
        // It is used up, whatever comes of the Welcome.
        let after = self.key_packages.references();
        let by_last_resort = before == after;
        if let Ok((group, companion)) = &joined
            && self.holds_back(seq, group, &companion.line)?
        {
            self.key_packages.reset(kept);
            return Ok(false);
        }
        for reference in before.iter().filter(|reference| !after.contains(reference)) {
            self.batch.delete(Table::KeyPackage, None, reference);
        }
        // Read again after a restore, it has been used; that it can't be opened now tells nothing.
        if joined.is_err() && self.restored_inbox.is_some_and(|read| seq <= read) {
            return Ok(true);
        }
        let (group, companion) = joined?;
        let context = group.context()?;
        let group_id = group.id()?;
        let matter = self.matter_of(group_id, &context, &companion.line);
        if let Err(error) = self.check_welcome(matter, &group, &context, &companion.bundle) {
            // What came with a Welcome that leads nowhere leads nowhere, either.
            if let (Some((successor, fates)), Some(room)) = (waited, self.rooms.get_mut(&matter)) {
                (room.row.successor, room.row.fates) = (successor, fates);
            }
            self.save_room(matter);
            return Err(error);
        }
        self.learn(&companion.bundle);
        self.watch_people(&context);
        if self.rooms.get(&matter).is_some_and(|room| room.row.lost.is_some() && room.row.group == group_id) {
            let by = group.welcomed_by().and_then(|by| context.participant(by));
            if by.is_some_and(|by| by.role.manages())
                && let Some(room) = self.rooms.get_mut(&matter)
            {
                room.row.merge_fates(&companion.fates);
            }
            self.rejoin(now, matter, group)?;
            return Ok(true);
        }
        let mut row = MatterRow::new(group_id, &context, Stage::Joining, group.epoch(), now);
        row.old = self.old_of(matter, context.continues);
        row.line = line_to(&companion.line, &context, group_id);
        row.merge_fates(&companion.fates);
        row.heard =
            group.members().iter().map(|m| Heard { device: m.credential.device, at: now, told: false }).collect();
        row.healing.due = by_last_resort;
        if self.used_welcomes.is_some_and(|used| seq <= used) {
            row.lost = Some(Lost::copied(row.position, now));
        }
        self.take_room(matter, row, group);
        self.tell_names(matter, &companion.bundle);
        self.save_state(matter);
        let mailbox = context.mailbox;
        self.ask_later(Asked::Subscribe(mailbox, None), Request::Subscribe { mailbox, after: None });
        Ok(true)
    }

    /// A Welcome into a successor whose statement was not read yet waits, once on a link, until the old mailbox is read to its end.
    fn holds_back(&mut self, seq: u64, group: &Matter, line: &[Blob]) -> Result<bool, Error> {
        let context = group.context()?;
        let matter = self.matter_of(group.id()?, &context, line);
        let early = self.comes_before_its_statement(matter, &context);
        let Some(link) =
            self.link.as_mut().filter(|link| early && link.held_welcome.is_none_or(|(held, _)| held != seq))
        else {
            return Ok(false);
        };
        link.held_welcome = Some((seq, false));
        self.read_again(matter);
        Ok(true)
    }

    /// A Welcome leads only into a matter that is new here, in a mailbox that is no other's, and every listed person is who the
    /// organisation's chain says, in that role, and has a leaf.
    fn check_welcome(
        &self,
        matter: MatterId,
        group: &Matter,
        context: &MatterContext,
        bundle: &Bundle,
    ) -> Result<(), Error> {
        let known = self.rooms.get(&matter).is_some_and(|room| !room.may_be_entered(group, context));
        let taken = self.room_of(context.mailbox).is_some_and(|other| other != matter);
        if known || taken || context.mailbox == self.profile.inbox {
            return Err(PeerMisbehaved::Mismatch("a Welcome to a matter this device is in").into());
        }
        let members = group.members();
        let own = self.profile.person;
        if self.own_person_key().is_ok()
            && context.participant(own).is_some_and(|listed| !self.is_own_key(listed.person_key))
        {
            return Err(PeerMisbehaved::WrongKey("this person's key in a Welcome").into());
        }
        if context.participant(own).is_none_or(|listed| listed.role != self.profile.role) {
            return Err(PeerMisbehaved::Mismatch("a Welcome's list of people").into());
        }
        for participant in &context.people {
            if !members.iter().any(|member| member.credential.person == participant.person) {
                return Err(PeerMisbehaved::Mismatch("a Welcome's list of people").into());
            }
            if participant.person == own {
                continue;
            }
            let chain = assemble_listed(&bundle.identities, participant);
            let verified = verify_chain(&chain, &self.profile.organisation)?;
            if !verified.is_listed_as(participant.person_key) {
                return Err(PeerMisbehaved::WrongKey("a participant's key").into());
            }
            if verified.endorsement.role != participant.role {
                return Err(PeerMisbehaved::Role("a participant's place").into());
            }
        }
        Ok(())
    }

    /// A matter under a new group. What belonged to the old one goes; history stays, and what still waits to be sent or done where
    /// the matter was continued.
    pub(super) fn take_room(&mut self, matter: MatterId, row: MatterRow, group: Matter) {
        let continued = row.group != matter;
        let mut room = Room::new(row, group);
        if let Some(old) = self.rooms.remove(&matter) {
            self.forget_posts(matter);
            for seq in old.recent.keys() {
                let slot = seq.checked_rem(RECENT).unwrap_or_default();
                self.batch.delete(Table::Recent, Some(matter), &slot.to_be_bytes());
            }
            for digest in old.commits.into_keys() {
                self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
            }
            if continued {
                // What was read in the mailbox before may be sent again into this one.
                let read = old.recent.values().rev().filter_map(|recent| recent.message);
                room.row.known = old.row.known.iter().copied().chain(read).take(limits::KNOWN_MAX).collect();
                room.row.since_cursor = self.cursor;
                room.row.merge_fates(&old.row.fates);
                let of = room.row.old.as_ref().map(|old| old.group);
                if old.row.claimed.as_ref().is_some_and(|claimed| Some(claimed.group) == of) {
                    // What is to be said in the mailbox before is still to be said there.
                    (room.row.claimed, room.row.continue_at) = (old.row.claimed, old.row.continue_at);
                }
                (room.outbox, room.intents) = (old.outbox, old.intents);
            } else {
                for number in old.outbox.into_keys() {
                    self.batch.delete(Table::Outbox, Some(matter), &number.to_be_bytes());
                }
            }
        }
        self.rooms.insert(matter, room);
        self.unseal(matter);
    }
}

/// The statements that lead into a group, if they do.
fn line_to(line: &[Blob], context: &MatterContext, group: MatterId) -> Vec<Blob> {
    let last = line.last().and_then(|last| Successor::read(&last.0).ok()).map(|(said, _)| said);
    let leads = last.is_some_and(|said| said.mailbox == context.mailbox && said.successor == group);
    if leads && line.len() <= limits::LINE_MAX { line.to_vec() } else { Vec::new() }
}

/// The chain from one person upwards, out of a heap of identities.
pub(super) fn assemble(identities: &[Identity], person: PersonId) -> Vec<Identity> {
    newest_of(identities, person).map(|first| assemble_from(identities, first)).unwrap_or_default()
}

/// Somebody as they are: where they are there under keys before, too, the one to which the others lead.
pub(super) fn newest_of(identities: &[Identity], person: PersonId) -> Option<&Identity> {
    let theirs = || identities.iter().filter(|identity| identity.person == person);
    let over = |one: &Identity| theirs().any(|other| other.line.iter().any(|step| step.key == one.person_key));
    theirs().find(|one| !over(one)).or_else(|| theirs().next())
}

/// The chain of somebody with the key that a matter lists, or with one that it leads to.
fn assemble_listed(identities: &[Identity], listed: &Participant) -> Vec<Identity> {
    let mut theirs = identities.iter().filter(|identity| identity.person == listed.person);
    let has = |identity: &&Identity| {
        let key = |key: &PublicKey| key.digest() == listed.person_key;
        key(&identity.person_key) || identity.line.iter().any(|step| key(&step.key))
    };
    theirs.find(has).map(|first| assemble_from(identities, first)).unwrap_or_default()
}

/// The chain from one identity upwards. Somebody whose key was replaced stands there as they were when they endorsed.
pub(super) fn assemble_from(identities: &[Identity], first: &Identity) -> Vec<Identity> {
    let mut chain: Vec<Identity> = Vec::new();
    let mut next = Some(first);
    while let Some(identity) = next.filter(|_| chain.len() < limits::CHAIN_MAX) {
        let said: Option<Endorsement> = identity.endorsement.unverified("endorsement").ok();
        chain.push(identity.clone());
        next = said.and_then(|said| said.issuer).and_then(|issuer| {
            let of = || identities.iter().filter(|identity| identity.person == issuer.person);
            of().find(|identity| identity.certifies(issuer.device)).or_else(|| of().next())
        });
    }
    chain
}
