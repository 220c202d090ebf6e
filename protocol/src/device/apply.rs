//! Reading: what comes out of mailboxes, entry by entry, and what it does to this device.
//!
//! 1. An entry continues the running hash, or it was read before and is dropped.
//! 2. A message is opened and recorded; an own one is recognised by its hash.
//! 3. A Commit is judged and applied, an own one with the secrets kept for it; a void one is skipped and its place shown.
//! 4. A Welcome in the inbox makes a new matter.
//!
//! Invariant: state, records and position of a batch of entries change together, and an entry that fails changes only the position.

use crate::content::{Body, Bundle, Content};
use crate::device::state::{
    Counters, Heard, HeldBundle, Intent, KnownPerson, MatterRow, Purpose, RECENT, Recent, Record, RecordBody, Stage,
    Table, Withheld,
};
use crate::device::{Device, Notice, Room};
use crate::envelope::{self, Class};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Entry, EntryBody, Reply, Request};
use crate::identity::{Identity, Signed, Verified, verify_chain};
use crate::ids::{DeviceId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use crate::limits;
use crate::matter::{Matter, MatterContext, Member, Opened, Seen};
use crate::rescue::Successor;
use crate::suite::Digest;

use super::Asked;
use super::inbox::assemble_from;

/// Why an entry is not applied.
#[derive(Debug)]
pub(super) enum Stop {
    /// All skip it alike.
    Void(Error),
    /// This device alone can't follow.
    OutOfStep,
    /// The relay withholds what it is judged by.
    Paused,
    /// This version can't tell.
    Outdated,
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        match error.into() {
            Error::PeerMisbehaved(PeerMisbehaved::OutOfStep) => Self::OutOfStep,
            Error::Misuse(Misuse::Outdated) => Self::Outdated,
            error => Self::Void(error),
        }
    }
}

impl Device {
    pub(super) fn subscribed(&mut self, now: Timestamp, mailbox: MailboxId, asked: Option<Position>, reply: Reply) {
        match reply {
            Reply::Subscribed { start, head } => {
                if mailbox == self.profile.inbox {
                    self.inbox_subscribed(start, head);
                    return;
                }
                if let Some(matter) = self.continued_from(mailbox) {
                    self.old_subscribed(matter, asked, start, head);
                    return;
                }
                let Some(matter) = self.room_of(mailbox) else { return };
                if !self.continues(now, matter, asked, start) {
                    return;
                }
                if let Some(link) = self.link.as_mut() {
                    link.heads.insert(mailbox, head);
                }
                self.read_to_the_end_of_before(now, matter, head);
            }
            // The relay alone can't claim a removal, nor take back what was read: the matter rests, on this link.
            Reply::Refused(refused) => {
                let Some(matter) = self.room_of(mailbox) else { return };
                let Some(row) = self.rooms.get(&matter).map(|room| &room.row) else { return };
                if row.stage == Stage::Removed {
                    return;
                }
                if row.before.is_some() && matches!(refused, Refused::NotFound { .. }) {
                    self.mailbox_is_gone(now, matter);
                } else {
                    self.deliver(Notice::Problem(refused.into()));
                }
            }
            _ => {}
        }
    }

    /// The relay says that this device's reading of a mailbox has ended. Whether it was removed, only a Commit tells.
    pub(super) fn ended(&mut self, mailbox: MailboxId) {
        if let Some(matter) = self.room_of(mailbox)
            && self.rooms.get(&matter).is_some_and(|room| room.row.stage == Stage::Open)
        {
            let why = PeerMisbehaved::Mismatch("the relay's claim that this device was removed");
            self.deliver(Notice::Problem(why.into()));
        }
    }

    pub(super) fn room_of(&self, mailbox: MailboxId) -> Option<MatterId> {
        self.rooms.iter().find(|(_, room)| room.row.mailbox == mailbox).map(|(id, _)| *id)
    }

    pub(super) fn entries(&mut self, now: Timestamp, mailbox: MailboxId, entries: Vec<Entry>) {
        if mailbox == self.profile.inbox {
            for entry in entries {
                self.inbox_entry(now, &entry);
            }
            self.acknowledge(mailbox, self.inbox.seq);
            return;
        }
        if let Some(matter) = self.continued_from(mailbox) {
            entries.iter().for_each(|entry| self.old_entry(now, matter, entry));
            return;
        }
        let Some(matter) = self.room_of(mailbox) else { return };
        // What comes between asking to read again and the answer belongs to the reading before.
        let Some(head) = self.link.as_ref().and_then(|link| link.heads.get(&mailbox)).copied() else { return };
        for entry in entries {
            // A statement may have led the matter elsewhere.
            if self.room_of(mailbox) == Some(matter) {
                self.matter_entry(now, matter, &entry);
            } else {
                self.old_entry(now, matter, &entry);
            }
        }
        self.read_to_the_end_of_before(now, matter, head);
        self.save_state(matter);
        if let Some(room) =
            self.rooms.get(&matter).filter(|room| room.row.mailbox == mailbox && room.row.lost.is_none())
        {
            self.acknowledge(mailbox, room.row.position.seq);
        }
    }

    /// The mailbox before is read again, from where this device may.
    fn old_subscribed(&mut self, matter: MatterId, asked: Option<Position>, start: Position, head: u64) {
        let Some(old) = self.rooms.get_mut(&matter).and_then(|room| room.row.old.as_mut()) else { return };
        if asked.is_none() {
            (old.position, old.fence) = (start, start);
        }
        let mailbox = old.mailbox;
        if asked.is_none_or(|asked| asked == start)
            && let Some(link) = self.link.as_mut()
        {
            link.heads.insert(mailbox, head);
        }
        self.save_room(matter);
    }

    fn continued_from(&self, mailbox: MailboxId) -> Option<MatterId> {
        let from = |room: &Room| room.row.old.as_ref().is_some_and(|old| old.mailbox == mailbox);
        self.rooms.iter().find(|(_, room)| from(room)).map(|(matter, _)| *matter)
    }

    fn acknowledge(&mut self, mailbox: MailboxId, upto: u64) {
        self.ask(Asked::Ack, Request::Ack { mailbox, upto });
    }

    /// An entry that comes before its turn is not applied: the relay withholds what stands before it.
    pub(super) fn early(&mut self, is_early: bool) {
        let Some(link) = self.link.as_mut().filter(|link| is_early && !link.gap_told) else { return };
        link.gap_told = true;
        self.deliver(Notice::Problem(PeerMisbehaved::Mismatch("the order in which the relay sends entries").into()));
    }

    fn matter_entry(&mut self, now: Timestamp, matter: MatterId, entry: &Entry) {
        let Some(room) = self.rooms.get(&matter).filter(|room| room.reads(now)) else { return };
        let next = room.row.position.seq.saturating_add(1);
        if entry.seq != next {
            let rests = self.link.as_ref().is_some_and(|link| link.resting.contains(&room.row.mailbox));
            self.early(entry.seq > next && !rests);
            if entry.seq < next {
                self.shown_again(now, matter, entry);
            }
            return;
        }
        let digest = entry.digest();
        let position = room.row.position.next(entry.fence, &digest);
        if room.row.before.is_some() && self.is_as_before(now, matter, position, entry) {
            return;
        }
        match self.step(now, matter, position, entry, &digest) {
            Ok(message) => self.advance(now, matter, position, entry, message),
            Err(Stop::Void(error)) => {
                let why = error.to_string();
                // Only success is saved: what mls-rs has in memory is thrown away.
                self.drop_group(matter);
                let by = entry.by.and_then(|device| self.author_of(matter, device));
                self.record(now, matter, entry.seq, by, now, RecordBody::Void { why, claimed: by.is_some() });
                self.own_commit_void(matter, &digest, &error);
                self.advance(now, matter, position, entry, None);
                if entry.fence {
                    self.look_at_roster(matter);
                }
            }
            // What can't be followed any more in a group that the matter is leaving is missing there.
            Err(Stop::OutOfStep | Stop::Paused | Stop::Outdated)
                if self.rooms.get(&matter).is_some_and(|room| room.row.reads_on) =>
            {
                self.drop_group(matter);
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.row.reads_on = false;
                }
                self.advance(now, matter, position, entry, None);
            }
            Err(Stop::OutOfStep) => {
                self.lose_way(now, matter);
                self.advance(now, matter, position, entry, None);
            }
            Err(Stop::Paused) => self.rest(now, matter, entry.seq, Stage::Paused, RecordBody::Paused),
            Err(Stop::Outdated) => self.rest(now, matter, entry.seq, Stage::Outdated, RecordBody::Outdated),
        }
    }

    /// One entry further: read, whatever came of it.
    fn advance(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        entry: &Entry,
        message: Option<(PersonId, MessageId)>,
    ) {
        // A statement may have led the matter into another mailbox: this position is the old one's, and kept there.
        let here = room_at(&self.rooms, matter, position, entry);
        let Some(room) = self.rooms.get_mut(&matter).filter(|_| here) else { return };
        if matches!(room.row.stage, Stage::Paused | Stage::Outdated) {
            room.row.stage = Stage::Open;
            if let Some(link) = self.link.as_mut() {
                link.resting.remove(&room.row.mailbox);
            }
        }
        room.row.position = position;
        if entry.fence {
            let framing = match &entry.body {
                EntryBody::Envelope(bytes) => {
                    envelope::unwrap(&bytes.0).and_then(|(_, bytes)| Seen::with_epoch(bytes)).ok()
                }
                EntryBody::Expired(_) => None,
            };
            room.fence_passed(now, position);
            let (epoch, named) = framing.map(|(epoch, seen)| (epoch, seen.repair)).unzip();
            room.fence_while_lost(now, named.flatten(), epoch);
        }
        let recent = Recent { position, message };
        let slot = position.seq.checked_rem(RECENT).unwrap_or_default();
        self.batch.put(Table::Recent, Some(matter), &slot.to_be_bytes(), &recent);
        room.recent.insert(position.seq, recent);
        room.recent.remove(&position.seq.saturating_sub(RECENT));
    }

    /// Reading stops before an entry that can't be judged yet. Nothing is skipped; the next link tries again.
    fn rest(&mut self, now: Timestamp, matter: MatterId, seq: u64, stage: Stage, what: RecordBody) {
        self.drop_group(matter);
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        let told = room.row.stage == stage;
        room.row.stage = stage;
        room.row.paused_at = room.row.paused_at.filter(|_| told).or(Some(now));
        if let Some(link) = self.link.as_mut() {
            link.resting.insert(room.row.mailbox);
        }
        if !told {
            self.record(now, matter, seq, None, now, what);
        }
        self.save_room(matter);
    }

    /// Applies one entry. Returns the message's author and id, where it was one.
    fn step(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        position: Position,
        entry: &Entry,
        digest: &Digest,
    ) -> Result<Option<(PersonId, MessageId)>, Stop> {
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        let (stage, rereads, own) = (room.row.stage, room.row.lost.is_some(), room.commits.contains_key(digest));
        let moves = stage == Stage::Moving && !room.row.reads_on;
        let astray = rereads || stage == Stage::OutOfStep || moves;
        let EntryBody::Envelope(bytes) = &entry.body else {
            if astray {
                return Ok(None);
            }
            if entry.fence && own {
                // An own one is applied with the secrets kept for it.
                self.commit(now, matter, entry.seq, digest, &[])?;
                return Ok(None);
            }
            if entry.fence {
                // A Commit that was never read: what this device would say next, nobody could open.
                return Err(Stop::OutOfStep);
            }
            if room.row.withheld.len() >= limits::WITHHELD_MAX {
                room.row.withheld.remove(0);
            }
            room.row.withheld.push(Withheld { digest: *digest, before: room.row.position });
            self.record(now, matter, entry.seq, None, now, RecordBody::Gap);
            return Ok(None);
        };
        let (class, payload) = envelope::unwrap(&bytes.0)?;
        match (class, entry.fence) {
            (Class::Successor, true) => {
                self.successor_read(now, matter, position, payload)?;
                Ok(None)
            }
            (Class::Message | Class::Commit, _) if astray => {
                Ok(self.astray(now, matter, position, digest, class, payload)?)
            }
            (Class::Repair, false) if stage == Stage::OutOfStep => {
                self.other_asks(now, matter, payload)?;
                Ok(None)
            }
            (_, _) if astray => Ok(None),
            (_, fence) if stage == Stage::Removed => {
                self.after_removal(now, matter, position, digest, (class, fence), payload)
            }
            (Class::Message, false) => self
                .text_or_bundle(now, matter, position.seq, digest, payload)
                .map_err(|stop| self.doubt(matter, payload, stop)),
            (Class::Commit, true) => {
                let done = self.commit(now, matter, position.seq, digest, payload);
                done.map_err(|stop| self.doubt(matter, payload, stop)).map(|()| None)
            }
            (Class::Repair, false) => {
                self.request_read(now, matter, digest, payload)?;
                Ok(None)
            }
            _ => Err(Error::from(PeerMisbehaved::Void(
                "a fence is a commit or a successor, and nothing else is".to_owned(),
            ))
            .into()),
        }
    }

    /// What does not open for a device that was let back in, and has not heard anybody since, may be the others going on without it:
    /// the group into which it was let may be nobody's.
    fn doubt(&self, matter: MatterId, payload: &[u8], stop: Stop) -> Stop {
        let unheard = self.rooms.get(&matter).is_some_and(|room| room.row.unconfirmed);
        let framed = Seen::with_epoch(payload).is_ok();
        match stop {
            Stop::Void(_) if unheard && framed => Stop::OutOfStep,
            stop => stop,
        }
    }

    pub(super) fn text_or_bundle(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
        payload: &[u8],
    ) -> Result<Option<(PersonId, MessageId)>, Stop> {
        match self.own_message(now, matter, seq, digest)? {
            Some(message) => Ok(Some(message)),
            None => Ok(self.message(now, matter, seq, digest, payload)?),
        }
    }

    /// A member device and its person.
    fn author_of(&mut self, matter: MatterId, device: DeviceId) -> Option<(PersonId, DeviceId)> {
        let (member, _) = self.group(matter).ok()?.member_of(device).ok()?;
        Some((member.credential.person, device))
    }

    /// An own text, recognised by its hash: it leaves the outbox and becomes a record. An own bundle is just passed.
    pub(super) fn own_message(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
    ) -> Result<Option<(PersonId, MessageId)>, Error> {
        let own = self.profile.person;
        let device = self.profile.device;
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(None) };
        if let Some(bundle) = room.commits.values().find_map(|commit| commit.bundle.as_ref().filter(|b| b.0 == *digest))
        {
            let bundle = bundle.1.clone();
            room.hold(HeldBundle { digest: *digest, device, bundle });
            return Ok(Some((own, MessageId::new([0; 16]))));
        }
        let Some(number) = room.outbox.iter().find(|(_, item)| item.digest == Some(*digest)).map(|(n, _)| *n) else {
            return Ok(None);
        };
        let Some(item) = room.outbox.remove(&number) else { return Ok(None) };
        self.batch.delete(Table::Outbox, Some(matter), &number.to_be_bytes());
        self.forget_posts_if(matter, |purpose| *purpose == Purpose::Text(number));
        let content = Content::decode(&item.content)?;
        let resent = content.clone();
        self.batch.put(Table::Sent, Some(matter), item.id.as_bytes(), &seq);
        // What is sent again after the relay has forgotten it stands in the history already.
        if let Body::Text(text) = content.body
            && !item.again
        {
            let what = RecordBody::Text { id: item.id, text };
            self.record(now, matter, seq, Some((own, device)), content.sent_at, what);
        }
        if !item.told {
            self.deliver(Notice::Stored { matter, id: item.id, seq });
        }
        if self.rooms.get(&matter).is_some_and(|room| room.row.reads_on) {
            // Whoever has left this group already reads it in the next.
            self.send_again(matter, &resent);
        }
        Ok(Some((own, item.id)))
    }

    fn message(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        digest: &Digest,
        payload: &[u8],
    ) -> Result<Option<(PersonId, MessageId)>, Error> {
        let Opened { sender, seen, plaintext } = self.group(matter)?.open(payload)?;
        let from = author(&sender);
        let content = Content::decode(envelope::unpad(&plaintext)?)?;
        self.heard(now, matter, seq, from, &seen);
        if let Some(head) = content.log.filter(|_| from.0 != self.profile.person) {
            self.log_told(from.0, head);
        }
        let Some(room) = self.rooms.get_mut(&matter) else { return Ok(None) };
        if room.has_read((from.0, content.id)) {
            return Ok(Some((from.0, content.id)));
        }
        match content.body {
            Body::Text(text) => {
                let what = RecordBody::Text { id: content.id, text };
                self.record(now, matter, seq, Some(from), content.sent_at, what);
            }
            Body::Bundle(bundle) if bundle.identities.is_empty() => self.take_told_names(matter, bundle.names),
            Body::Bundle(bundle) => room.hold(HeldBundle { digest: *digest, device: from.1, bundle }),
            Body::Unknown { .. } => self.record(now, matter, seq, Some(from), content.sent_at, RecordBody::Unknown),
        }
        Ok(Some((from.0, content.id)))
    }

    /// A member was heard in this epoch: that confirms what this device has removed, and shows whether both have read the same.
    pub(super) fn heard(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        seq: u64,
        from: (PersonId, DeviceId),
        seen: &Seen,
    ) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        room.heard(from.1, now);
        // Whoever let this device in does not vouch for the group into which they did; where nobody else is, there is nobody to ask.
        let own = self.profile.person;
        let alone = |by: PersonId| room.row.people.iter().all(|person| *person == own || *person == by);
        if room.row.let_in_by.is_none_or(|(by, _)| by != from.0 || alone(by)) {
            (room.row.unconfirmed, room.row.let_in_by) = (false, None);
        }
        let removed = std::mem::take(&mut room.row.requested);
        let (disputed, read) = (room.disputes(&seen.position), room.read_at(seen.position.seq));
        if disputed {
            room.row.disputed = Some(from.0);
        }
        if !removed.is_empty() {
            let own = (self.profile.person, self.profile.device);
            self.record(now, matter, seq, Some(own), now, RecordBody::Removed { people: removed });
        }
        if disputed {
            let what = RecordBody::Dispute { read, said: Some(seen.position) };
            self.record(now, matter, seq, Some(from), now, what);
        }
    }

    /// Ends a matter on this device: nothing more is sent there, history stays.
    pub(super) fn close(&mut self, matter: MatterId, stage: Stage) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        room.row.stage = stage;
        let why = Refused::not_allowed(match stage {
            Stage::Removed => "you are no longer in this matter",
            _ => "this matter has stopped on this device",
        });
        for (number, Intent { person, .. }) in std::mem::take(&mut room.intents) {
            self.batch.delete(Table::Intent, Some(matter), &number.to_be_bytes());
            self.notices.push(Notice::NotDone { matter, person, why: why.clone().into() });
        }
        for digest in std::mem::take(&mut room.commits).into_keys() {
            self.batch.delete(Table::Commit, Some(matter), digest.as_bytes());
        }
        for (number, item) in room.outbox.iter_mut().filter(|(_, item)| item.seq.is_none() && item.failed.is_none()) {
            item.failed = Some(why.to_string());
            self.batch.put(Table::Outbox, Some(matter), &number.to_be_bytes(), &*item);
            if !item.is_text() {
                continue;
            }
            self.notices.push(Notice::Unsendable { matter, id: item.id, why: why.clone() });
        }
        self.forget_posts(matter);
        self.save_room(matter);
    }

    /// Remembers the people of a bundle whose chain reaches the organisation, and names that fit their endorsement.
    pub(super) fn learn(&mut self, bundle: &Bundle) {
        let chains = bundle.identities.iter().map(|identity| assemble_from(&bundle.identities, identity));
        let said = chains.filter_map(|chain| Some((verify_chain(&chain, &self.profile.organisation).ok()?, chain)));
        let said: Vec<(Verified, Vec<Identity>)> = said.collect();
        for (identity, chain) in &said {
            // Of somebody whose key was replaced, who they were is there for those whom they endorsed then.
            let newer = |(other, _): &(Verified, Vec<Identity>)| {
                let follows =
                    other.person_key != identity.person_key && other.is_listed_as(identity.person_key.digest());
                other.person == identity.person && (other.endorsement.from > identity.endorsement.from || follows)
            };
            if said.iter().any(newer) {
                continue;
            }
            let told = bundle.names.iter().find(|named| named.person == identity.person);
            let told = told.map(|named| named.name.clone());
            // A member may lag behind; what contradicts this person's own key is worth knowing.
            if let Err(error @ Error::PeerMisbehaved(PeerMisbehaved::WrongKey(_))) = self.meet(identity, chain, told) {
                self.deliver(Notice::Problem(error));
            }
        }
        // A chain may be older than what is known of somebody, and the name told beside it good all the same.
        self.take_names_of(bundle.names.iter().cloned());
    }

    pub(super) fn know(&mut self, person: PersonId, mut known: KnownPerson) {
        // What was verified once stays: who tells of a person may not know of all their devices, or no longer of some.
        if let (Some(now), Some(before)) =
            (known.chain.first_mut(), self.people.get(&person).and_then(|known| known.chain.first()))
            && now.person_key == before.person_key
        {
            let news: Vec<Digest> = now.certificates.iter().map(Signed::digest).collect();
            let kept = before.certificates.iter().filter(|signed| !news.contains(&signed.digest()));
            now.certificates.extend(kept.cloned());
            now.certificates.truncate(limits::DEVICES_PER_PERSON_MAX);
        }
        self.batch.put(Table::Person, None, person.as_bytes(), &known);
        self.people.insert(person, known);
        self.forget_what_is_over(person);
        self.look_for_lapses();
    }

    pub(super) fn record(
        &mut self,
        _now: Timestamp,
        matter: MatterId,
        seq: u64,
        from: Option<(PersonId, DeviceId)>,
        at: Timestamp,
        what: RecordBody,
    ) {
        self.cursor = self.cursor.saturating_add(1);
        let (person, device) = from.unzip();
        let record = Record { cursor: self.cursor, matter, seq, from: person, device, at, what };
        self.batch.put(Table::Counter, None, Counters::CURSOR, &self.cursor);
        self.batch.put(Table::Record, Some(matter), &self.cursor.to_be_bytes(), &record);
        self.deliver(Notice::Recorded(record));
    }

    /// The loaded group of a matter.
    pub(super) fn group(&mut self, matter: MatterId) -> Result<&mut Matter, Error> {
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        room.group(&self.me, &self.key_packages, matter)
    }

    /// Takes the group's saved state into the next batch, with the matter's row.
    pub(super) fn save_state(&mut self, matter: MatterId) {
        if let Some(room) = self.rooms.get_mut(&matter) {
            if let Some(group) = &room.group {
                room.state = group.state();
                // The epoch of a group into which this device is being let is not believed before its Commit is read.
                if room.row.lost.is_none() {
                    room.row.epoch = group.epoch();
                }
            }
            self.batch.put_bytes(Table::Group, Some(matter), &[], room.state.clone());
        }
        self.save_room(matter);
    }
}

impl Room {
    pub(super) fn new(row: MatterRow, group: Matter) -> Self {
        Self {
            // The matter begins behind a fence: whoever joins is not in more of a hurry than the members.
            fence_at: row.since,
            row,
            state: group.state(),
            group: Some(group),
            outbox: std::collections::BTreeMap::new(),
            intents: std::collections::BTreeMap::new(),
            commits: std::collections::BTreeMap::new(),
            recent: std::collections::BTreeMap::new(),
            not_before: Timestamp(0),
            read_first: 0,
            fence_read: Timestamp(0),
            heal_now: false,
            tidy: true,
            tidy_at: None,
            heal_from: None,
        }
    }

    fn group(
        &mut self,
        me: &crate::matter::Me,
        packages: &crate::matter::KeyPackages,
        matter: MatterId,
    ) -> Result<&mut Matter, Error> {
        if let Some(group) = &self.group {
            // The state that an error later falls back to.
            self.state = group.state();
        }
        match &mut self.group {
            Some(group) => Ok(group),
            empty => Ok(empty.insert(Matter::load(me, packages, matter, self.state.clone())?)),
        }
    }

    /// Behind a fence, nothing that stood before it counts for the next Commit.
    fn fence_passed(&mut self, now: Timestamp, position: Position) {
        self.row.fence = position;
        self.row.bundles.clear();
        self.row.requests.clear();
        self.row.withheld.clear();
        (self.fence_at, self.fence_read, self.heal_from) = (now, now, None);
    }

    /// Takes over the people and title of a new epoch; returns who came and who went.
    pub(super) fn people_changed(&mut self, context: &MatterContext) -> (Vec<PersonId>, Vec<PersonId>) {
        let after: Vec<PersonId> = context.people.iter().map(|participant| participant.person).collect();
        let before = std::mem::replace(&mut self.row.people, after);
        let added: Vec<PersonId> = self.row.people.iter().filter(|person| !before.contains(person)).copied().collect();
        let removed: Vec<PersonId> =
            before.iter().filter(|person| !self.row.people.contains(person)).copied().collect();
        self.row.note_fates(&added, &removed);
        self.row.came.retain(|person| !added.contains(person));
        self.row.came.extend(&added);
        self.row.title.clone_from(&context.title);
        self.row.epoch = self.group.as_ref().map_or(self.row.epoch, Matter::epoch);
        (added, removed)
    }

    /// Whether a message was read before, here or in what the relay has forgotten since.
    fn has_read(&mut self, message: (PersonId, MessageId)) -> bool {
        let known = self.row.known.iter().position(|known| *known == message);
        let repeat = known.is_some() || self.recent.values().any(|recent| recent.message == Some(message));
        known.map(|index| self.row.known.swap_remove(index));
        repeat
    }

    pub(super) fn heard(&mut self, device: DeviceId, now: Timestamp) {
        self.row.heard.retain(|heard| heard.device != device);
        self.row.heard.push(Heard { device, at: now, told: false });
    }

    /// Whether a Welcome may lead into this matter again: this device was removed; or it asked to be let back in, and this is a later epoch;
    /// or the matter goes on there.
    pub(super) fn may_be_entered(&self, group: &Matter, context: &MatterContext) -> bool {
        let same = group.id().is_ok_and(|id| id == self.row.group) && context.mailbox == self.row.mailbox;
        let follows =
            |next: &Successor| group.id().is_ok_and(|id| id == next.successor) && context.mailbox == next.mailbox;
        match self.row.stage {
            // Whoever continues the matter from before this device's removal does not know of it.
            // A Welcome from before the removal may come again.
            Stage::Removed => {
                let newer = group.id().is_ok_and(|id| id != self.row.group) || group.epoch() > self.row.epoch;
                newer
                    && context.continues.is_none_or(|from| from.group != self.row.group || from.epoch > self.row.epoch)
            }
            Stage::Moving => self.row.successor.as_ref().is_some_and(follows),
            _ => same && self.row.lost.is_some() && group.epoch() > self.row.epoch,
        }
    }

    /// Keeps a bundle for its Commit: the newest of each device, so that nobody fills this device's memory.
    pub(super) fn hold(&mut self, bundle: HeldBundle) {
        self.row.bundles.retain(|held| held.device != bundle.device);
        self.row.bundles.push(bundle);
    }

    /// Whether somebody says to have read what this device read differently, or what is not there yet.
    fn disputes(&self, claimed: &Position) -> bool {
        claimed.seq > self.row.position.seq || self.read_at(claimed.seq).is_some_and(|own| own != *claimed)
    }

    /// The position that this device has read at a seq, if it still knows.
    fn read_at(&self, seq: u64) -> Option<Position> {
        if seq == self.row.position.seq {
            Some(self.row.position)
        } else {
            self.recent.get(&seq).map(|recent| recent.position)
        }
    }
}

/// Whether an entry that was just read belongs where the matter is now.
fn room_at(
    rooms: &std::collections::BTreeMap<MatterId, Room>,
    matter: MatterId,
    position: Position,
    entry: &Entry,
) -> bool {
    rooms.get(&matter).is_some_and(|room| room.row.position.next(entry.fence, &entry.digest()) == position)
}

pub(super) fn author(member: &Member) -> (PersonId, DeviceId) {
    (member.credential.person, member.credential.device)
}
