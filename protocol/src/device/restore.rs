//! What the relay shows twice: forks, envelopes it withholds, and a relay that was restored from a backup.
//!
//! - Under one incarnation a position means one history. Another one is a fork: the matter stops, both positions are kept.
//! - Under a new incarnation the relay may have forgotten the end. The device reads again from its start, compares with what it remembers,
//!   and goes on from the last position both know. Its own messages that are missing are sent again under the same ids;
//!   where Commits are missing, only a successor helps.
//!
//! Invariant: what was read once is never applied twice, and no forgotten Commit is ever built upon.

use std::collections::BTreeMap;

use crate::content::{Body, Content};
use crate::device::state::{Counters, Lost, Record, RecordBody, Snapshot, Stage, Table, load};
use crate::device::{Device, Notice, Output};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{Entry, EntryBody};
use crate::ids::{MatterId, MessageId, Position, Timestamp};

impl Device {
    /// The relay names its incarnation. In a new one every position is held against what the relay still has.
    pub(super) fn meet_incarnation(&mut self, incarnation: [u8; 16]) {
        let known = self.incarnation.replace(incarnation);
        if known == Some(incarnation) {
            return;
        }
        self.batch.put(Table::Counter, None, Counters::INCARNATION, &minicbor::bytes::ByteArray::from(incarnation));
        if known.is_none() {
            return;
        }
        self.deliver(Notice::Restored);
        // A restored relay serves no key package twice: it has none.
        self.set_last_resort(Timestamp(0));
        let read = self.inbox.seq.max(self.restored_inbox.unwrap_or(0));
        self.restored_inbox = Some(read);
        self.batch.put(Table::Counter, None, Counters::RESTORED_INBOX, &read);
        self.inbox = Position::start(self.profile.inbox);
        self.batch.put(Table::Counter, None, Counters::INBOX, &self.inbox);
        let matters: Vec<MatterId> = self.rooms.keys().copied().collect();
        for matter in matters {
            let Some(room) = self.rooms.get_mut(&matter) else { continue };
            let row = &mut room.row;
            if matches!(row.stage, Stage::Opening | Stage::Joining) {
                continue;
            }
            if row.stage == Stage::Forked {
                // What looked like a fork was the backup, before anybody said so.
                row.stage = match (&row.removal, &row.successor, &row.lost) {
                    (Some(_), ..) => Stage::Removed,
                    (_, Some(_), _) => Stage::Moving,
                    (.., Some(_)) => Stage::OutOfStep,
                    _ => Stage::Open,
                };
            }
            if let Some(lost) = &mut row.lost {
                (lost.request, lost.ask_at) = (None, Timestamp(0));
            }
            row.before.get_or_insert(row.position);
            row.position = Position::start(row.mailbox);
            if let Some(old) = &mut row.old {
                // Statements that were followed already have no rank any more.
                old.position = Position::start(old.mailbox);
            }
            self.save_room(matter);
        }
    }

    /// Whether reading goes on where this device left off.
    pub(super) fn continues(
        &mut self,
        now: Timestamp,
        matter: MatterId,
        asked: Option<Position>,
        start: Position,
    ) -> bool {
        let Some(room) = self.rooms.get_mut(&matter) else { return false };
        if room.row.stage == Stage::Joining {
            (room.row.position, room.row.fence) = (start, start);
            self.joined_at(now, matter, start);
            return true;
        }
        if room.row.before.is_some() && asked.is_none() {
            room.row.position = start;
            room.row.fence = start;
            return true;
        }
        if asked == Some(start) {
            return true;
        }
        let read = room.row.position;
        self.fork(now, matter, read, start);
        false
    }

    fn joined_at(&mut self, now: Timestamp, matter: MatterId, start: Position) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        if let Some(lost) = room.row.lost.as_mut() {
            // A Welcome that another copy of this vault has used before: the way in leads through the members.
            (lost.position, lost.fence) = (start, start);
            room.row.stage = Stage::OutOfStep;
            self.record(now, matter, start.seq, None, now, RecordBody::OutOfStep);
        } else {
            room.row.stage = Stage::Open;
            self.record(now, matter, start.seq, None, now, RecordBody::Joined);
            self.deliver(Notice::Joined(matter));
        }
        self.save_room(matter);
    }

    /// The relay shows another history than before: the matter stops, with both as proof.
    pub(super) fn fork(&mut self, now: Timestamp, matter: MatterId, read: Position, shown: Position) {
        self.record(now, matter, read.seq, None, now, RecordBody::Forked { read, shown });
        self.deliver(Notice::Problem(PeerMisbehaved::Fork { seq: read.seq }.into()));
        self.close(matter, Stage::Forked);
    }

    /// An entry that was read before is shown again: it must be the same. What was withheld then may be there now.
    pub(super) fn shown_again(&mut self, now: Timestamp, matter: MatterId, entry: &Entry) {
        let Some(room) = self.rooms.get(&matter) else { return };
        let digest = entry.digest();
        let before = room.recent.get(&entry.seq.saturating_sub(1)).map(|recent| recent.position);
        let read = room.recent.get(&entry.seq).map(|recent| recent.position);
        if let (Some(before), Some(read)) = (before, read)
            && before.next(entry.fence, &digest) != read
        {
            self.fork(now, matter, read, before.next(entry.fence, &digest));
            return;
        }
        let wanted = room.row.withheld.iter().position(|withheld| withheld.digest == digest);
        if let (Some(index), EntryBody::Envelope(bytes)) = (wanted, &entry.body) {
            if let Some(room) = self.rooms.get_mut(&matter) {
                room.row.withheld.remove(index);
            }
            let opened = crate::envelope::unwrap(&bytes.0).map_err(Error::from);
            let held = opened.and_then(|(_, payload)| {
                self.text_or_bundle(now, matter, entry.seq, &digest, payload)
                    .map_err(|_| PeerMisbehaved::NotEndorsed.into())
            });
            if held.is_err() {
                self.drop_group(matter);
            }
        }
    }

    /// While the relay's new incarnation is compared with what was read: whether this entry is as it was before.
    pub(super) fn is_as_before(&mut self, now: Timestamp, matter: MatterId, position: Position, entry: &Entry) -> bool {
        let Some(room) = self.rooms.get_mut(&matter) else { return true };
        let Some(old) = room.row.before else { return false };
        let read = room.recent.get(&position.seq).map(|recent| recent.position);
        if position.seq > old.seq || read.is_some_and(|read| read != position) {
            self.forgotten(now, matter);
            return false;
        }
        room.row.position = position;
        if entry.fence {
            room.row.fence = position;
        }
        if position.seq == old.seq {
            room.row.before = None;
        }
        true
    }

    /// Whether the end of what the relay still has was reached before the end of what was read.
    pub(super) fn read_to_the_end_of_before(&mut self, now: Timestamp, matter: MatterId, head: u64) {
        let Some(room) = self.rooms.get(&matter) else { return };
        if room.row.before.is_some() && room.row.position.seq >= head {
            self.forgotten(now, matter);
        }
    }

    /// The relay has forgotten what comes behind this position.
    pub(super) fn forgotten(&mut self, now: Timestamp, matter: MatterId) {
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        let nothing = room.row.before.take().is_none_or(|old| old.seq <= room.row.position.seq);
        if nothing && !room.row.gone {
            return;
        }
        if room.row.gone {
            room.row.fence = room.row.position;
        }
        let last = room.row.position;
        let gone = room.recent.split_off(&last.seq.saturating_add(1));
        room.row.known.extend(gone.values().filter_map(|recent| recent.message));
        for recent in gone.values() {
            let slot = recent.position.seq.checked_rem(super::state::RECENT).unwrap_or_default();
            self.batch.delete(Table::Recent, Some(matter), &slot.to_be_bytes());
        }
        room.row.bundles.clear();
        room.row.requests.clear();
        room.row.withheld.clear();
        if let Some(lost) = room.row.lost.as_mut().filter(|lost| lost.position.seq > last.seq) {
            (lost.position, lost.fence) = (last, room.row.fence);
        }
        // Whatever was to be posted names a position that is gone.
        self.forget_posts(matter);
        self.unseal(matter);
        let manages = self.profile.role.manages();
        let Some(room) = self.rooms.get_mut(&matter) else { return };
        if (room.row.epoch_seq > last.seq || room.row.gone) && room.row.stage != Stage::Removed {
            // Whoever may continue the matter does; anybody else asks to be let back into what the others have, where they can.
            room.row.forgotten = manages || room.row.gone;
            room.row.epoch = if room.row.forgotten { room.row.epoch } else { 0 };
            room.row.stage = Stage::OutOfStep;
            room.row.lost = Some(Lost::at(last, room.row.fence, now));
            self.record(now, matter, last.seq, None, now, RecordBody::OutOfStep);
            self.want_successor(now, matter);
        }
        if let Some(room) = self.rooms.get_mut(&matter) {
            (room.row.recall, room.row.restored) = (Some(last.seq), true);
        }
        self.save_room(matter);
        self.ask_recall(matter);
    }

    /// Everything that the relay has is read: what it said to have stored before this link, and does not show, it has forgotten.
    pub(super) fn seal_again_what_is_gone(&mut self) {
        let matters: Vec<MatterId> = self.rooms.keys().copied().collect();
        for matter in matters {
            let Some(room) = self.rooms.get_mut(&matter).filter(|room| room.row.stage == Stage::Open) else { continue };
            for (number, item) in room.outbox.iter_mut().filter(|(_, item)| item.seq.is_some()) {
                (item.digest, item.seq) = (None, None);
                self.batch.put(Table::Outbox, Some(matter), &number.to_be_bytes(), &*item);
                self.batch.delete(Table::Sent, Some(matter), item.id.as_bytes());
            }
        }
    }

    /// Asks the driver for this device's own texts that the relay has forgotten.
    pub(super) fn ask_recall(&mut self, matter: MatterId) {
        let after = self.rooms.get(&matter).and_then(|room| room.row.recall);
        if let Some(after) = after {
            self.flush_batch();
            self.outputs.push_back(Output::Recall { matter, after });
        }
    }

    /// Sends this device's own texts of a matter again that stood behind `after`: the answer to [`Output::Recall`].
    ///
    /// # Errors
    /// [`crate::error::Misuse::State`] if the vault can't be read.
    pub fn recall(&mut self, now: Timestamp, matter: MatterId, vault: &dyn Snapshot) -> Result<(), Error> {
        let Some(after) = self.rooms.get(&matter).and_then(|room| room.row.recall) else { return Ok(()) };
        let own = self.profile.device;
        let waits: Vec<MessageId> = self.pending(matter).iter().map(|item| item.id).collect();
        let mut again: u64 = 0;
        let mut seqs: BTreeMap<MessageId, (u64, Content)> = BTreeMap::new();
        let since = self.rooms.get(&matter).map_or(0, |room| room.row.since_cursor);
        let stands: BTreeMap<Vec<u8>, u64> = load(vault, Table::Sent, Some(matter), "seq")?.into_iter().collect();
        for (_, record) in load::<Record>(vault, Table::Record, Some(matter), "record")? {
            if record.cursor <= since {
                // It was said in the mailbox that this one continues.
                continue;
            }
            if let (RecordBody::Text { id, text }, Some(device)) = (record.what, record.device)
                && device == own
            {
                let seq = stands.get(&id.as_bytes()[..]).copied().unwrap_or(record.seq);
                seqs.insert(id, (seq, Content { id, sent_at: record.at, body: Body::Text(text), log: None }));
            }
        }
        let mut lost: Vec<(u64, Content)> = seqs.into_values().filter(|(seq, _)| *seq > after).collect();
        lost.sort_by_key(|(seq, _)| *seq);
        for (_, content) in lost.into_iter().filter(|(_, content)| !waits.contains(&content.id)) {
            self.send_again(matter, &content);
            again = again.saturating_add(1);
        }
        let restored = self.rooms.get_mut(&matter).is_some_and(|room| {
            room.row.recall = None;
            std::mem::take(&mut room.row.restored)
        });
        self.save_room(matter);
        if restored {
            self.record(now, matter, after, None, now, RecordBody::Restored { again });
        }
        self.settle(now);
        Ok(())
    }

    /// Subscribes again where the relay withholds what the next Commit is judged by.
    pub(super) fn fetch_withheld(&mut self, now: Timestamp, matter: MatterId) {
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.not_before = now.plus_ms(super::post::AGAIN_MS);
        }
        self.read_again(matter);
    }
}
