//! What was said before, on its way to a device that was linked: its user says yes first.
//!
//! 1. The old device counts what it has of each matter up to where the new one came in, and makes a key, which goes ahead in a note.
//! 2. Pieces follow, one at a time, each some records as they are kept, sealed under that key with its place in the transfer. The driver
//!    gives the records: [`Output::History`].
//! 3. The new device keeps what comes in order, and confirms it now and then; a few pieces may be on their way unconfirmed.
//! 4. Whoever is interrupted goes on where the vault says: a piece that comes twice is known by its index.
//!
//! Invariant: a piece and how far the transfer has come change together, on both sides; what a device has received itself comes before
//! what it has read.

use std::collections::BTreeMap;

use crate::between::{self, Between, Body, Piece, Received, Segment, Transfer, TransferId};
use crate::device::notes::into_inbox;
use crate::device::state::{
    Mark, Past, PendingPost, Planned, Purpose, Receiving, Record, RecordBody, Sending, Snapshot, Stage, Table, largest,
    load,
};
use crate::device::{Device, Notice, Output, keyed};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::Blob;
use crate::ids::{DeviceId, MailboxId, MatterId, Timestamp};
use crate::limits;
use crate::secret::Secret;
use crate::suite::{self, AEAD_KEY_LEN};

/// Rows that are looked at at once.
const PAGE: usize = 512;
/// What a record takes in a piece beside its own bytes, and a matter beside its records.
const RECORD_OVERHEAD: usize = 5;
const SEGMENT_OVERHEAD: usize = 64;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// History on its way, both ways.
#[derive(Debug, Default)]
pub(super) struct Histories {
    pub(super) sending: BTreeMap<DeviceId, Sending>,
    receiving: BTreeMap<TransferId, Receiving>,
    /// The device for which the driver was asked for records.
    asked: Option<DeviceId>,
}

impl Histories {
    pub(super) fn open(vault: &dyn Snapshot) -> Result<Self, Error> {
        let transfer = |key: &[u8]| {
            let bytes: [u8; 16] = key.try_into().map_err(|_| crate::error::Malformed::Length("transfer"))?;
            Ok(TransferId::from(bytes))
        };
        Ok(Self {
            sending: keyed(load(vault, Table::Sending, None, "history")?, DeviceId::from_slice)?,
            receiving: keyed(load(vault, Table::Receiving, None, "history")?, transfer)?,
            asked: None,
        })
    }
}

/// How much there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryOffer {
    /// Messages.
    pub messages: u64,
    /// Matters with any.
    pub matters: usize,
}

/// How far history has come on its way to or from another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryProgress {
    /// The other device.
    pub device: DeviceId,
    /// Whether it comes from there.
    pub comes: bool,
    /// How many messages there are.
    pub messages: u64,
    /// How many of them are done: here, where it comes; at the relay, where it goes.
    pub done: u64,
    /// Whether everything is where it belongs, and the other device has said so.
    pub complete: bool,
    /// Whether all of it is at the relay.
    pub sent: bool,
    /// Whether the other device has to be online before more can go.
    pub waits: bool,
}

impl Device {
    /// How much a device could be sent that it does not have: what was said in the matters that it came into later than this one.
    ///
    /// # Errors
    /// [`Misuse::State`] if the vault can't be read; [`Refused::NotFound`] for a device that is none of this person's others.
    pub fn history_for(&self, device: DeviceId, vault: &dyn Snapshot) -> Result<HistoryOffer, Error> {
        let (plan, messages) = self.plan(device, vault)?;
        Ok(HistoryOffer { messages, matters: plan.len() })
    }

    /// Sends a device what was said before it came, or goes on with that: the user has said so. False if there is nothing to send.
    ///
    /// # Errors
    /// As [`Self::history_for`].
    pub fn send_history(&mut self, now: Timestamp, device: DeviceId, vault: &dyn Snapshot) -> Result<bool, Error> {
        if self.history.sending.get(&device).is_some_and(|sending| !sending.done) {
            self.resume(device);
            self.settle(now);
            return Ok(true);
        }
        let (plan, messages) = self.plan(device, vault)?;
        if plan.is_empty() {
            return Ok(false);
        }
        let before = self.history.sending.get(&device).map(|sending| sending.covered.clone()).unwrap_or_default();
        let covered = before.into_iter().chain(plan.iter().map(|planned| planned.matter)).collect();
        let (transfer, key) =
            (TransferId::from(suite::random()), Secret::new(suite::random::<AEAD_KEY_LEN>().to_vec()));
        let (next, marks, inbox) = (Mark::default(), Vec::new(), None);
        let sending = Sending {
            transfer,
            key,
            plan,
            messages,
            next,
            marks,
            confirmed: 0,
            pieces: None,
            inbox,
            covered,
            done: false,
            since: now,
            today: 0,
        };
        self.put_sending(device, sending);
        self.announce(device);
        self.settle(now);
        Ok(true)
    }

    /// How far history has come, on its way to other devices and from them.
    pub fn history(&self) -> Vec<HistoryProgress> {
        let goes = self.history.sending.iter().map(|(device, sending)| HistoryProgress {
            device: *device,
            comes: false,
            messages: sending.messages,
            done: sending.next.messages,
            complete: sending.done,
            sent: sending.done || sending.pieces.is_some() && !self.piece_under_way(*device),
            waits: !sending.done
                && sending.pieces.is_none()
                && (sending.is_ahead() || sending.is_enough_for_today(self.now)),
        });
        let comes = self.history.receiving.values().map(|receiving| HistoryProgress {
            device: receiving.from,
            comes: true,
            messages: receiving.messages,
            done: receiving.received,
            complete: receiving.done && !receiving.revoked,
            sent: true,
            waits: !receiving.done && !receiving.broken,
        });
        goes.chain(comes).collect()
    }

    fn plan(&self, device: DeviceId, vault: &dyn Snapshot) -> Result<(Vec<Planned>, u64), Error> {
        if !self.other_devices().contains(&device) {
            return Err(Refused::not_found("that device among your others").into());
        }
        let covered = self.history.sending.get(&device).map(|sending| sending.covered.as_slice()).unwrap_or_default();
        let revoked = Receiving::of_the_revoked(&vault.rows(Table::Receiving, None)?);
        let mut plan = Vec::new();
        let mut all = 0_u64;
        let rooms =
            self.rooms.iter().filter(|(matter, room)| room.row.stage == Stage::Open && !covered.contains(matter));
        for (matter, room) in rooms {
            let mut records = Vec::new();
            let mut came = false;
            for (_, bytes) in vault.rows(Table::Record, Some(*matter))? {
                let record = Record::kept(&bytes, *matter).map_err(|_| Misuse::State("record"))?;
                came |= matches!(record.what, RecordBody::DeviceAdded { device: added, .. } if added == device);
                if came {
                    break;
                }
                records.push(record);
            }
            // Who came in together with this device has read what it has.
            let Some(upto) = records.last().map(|record| record.cursor).filter(|_| came) else { continue };
            let past = largest(vault.rows(Table::Past, Some(*matter))?, &revoked);
            let is_text = |bytes: &[u8]| Record::kept(bytes, *matter).is_ok_and(|record| record.is_text());
            let texts = past.iter().filter(|(_, bytes)| is_text(bytes)).count();
            let texts = texts.saturating_add(records.iter().filter(|record| record.is_text()).count());
            if texts == 0 {
                continue;
            }
            let past = past.first().zip(past.last()).map(|((first, _), (last, _))| Past {
                from: first.get(..super::state::TRANSFER_LEN).unwrap_or_default().to_vec(),
                upto: last.clone(),
            });
            all = all.saturating_add(u64::try_from(texts).unwrap_or(u64::MAX));
            let (group, mailbox) = (room.row.group, room.row.mailbox);
            plan.push(Planned { matter: *matter, group, mailbox, past, upto });
        }
        Ok((plan, all))
    }

    fn put_sending(&mut self, device: DeviceId, sending: Sending) {
        self.batch.put(Table::Sending, None, device.as_bytes(), &sending);
        self.history.sending.insert(device, sending);
    }

    /// The key goes ahead.
    fn announce(&mut self, device: DeviceId) {
        let Some(Sending { transfer, key, messages, .. }) = self.history.sending.get(&device) else { return };
        let told = Transfer { id: *transfer, key: key.clone(), messages: *messages };
        self.note_to(device, &Body::Transfer(told));
    }

    /// What the other device has not confirmed goes once more: the relay may have lost it.
    fn resume(&mut self, device: DeviceId) {
        let Some(mut sending) = self.history.sending.get(&device).cloned() else { return };
        if self.piece_under_way(device) {
            return;
        }
        sending.back_to(sending.confirmed);
        let unknown = sending.confirmed == 0;
        self.put_sending(device, sending);
        if unknown && !self.is_announced_soon(device) {
            self.announce(device);
        }
    }

    fn is_announced_soon(&self, device: DeviceId) -> bool {
        self.notes.waiting.values().any(|note| note.to == device && note.kind == between::TRANSFER)
    }

    /// The note with the key is on its way to this inbox.
    pub(super) fn announced(&mut self, device: DeviceId, inbox: MailboxId) {
        if let Some(sending) = self.history.sending.get(&device).cloned() {
            self.put_sending(device, Sending { inbox: Some(inbox), ..sending });
        }
    }

    fn piece_under_way(&self, device: DeviceId) -> bool {
        let mut posts = self.posts.values();
        posts.any(|post| matches!(post.purpose, Purpose::Piece { device: to, .. } if to == device))
    }

    /// The device whose next piece can go now.
    fn next_to_send(&self) -> Option<DeviceId> {
        let able = |(device, sending): &(&DeviceId, &Sending)| {
            sending.inbox.is_some()
                && sending.pieces.is_none()
                && !sending.is_ahead()
                && !self.is_announced_soon(**device)
                && !self.piece_under_way(**device)
                && !self.is_revoked(**device)
                && !self.notes.holds_back(**device, self.now)
                && !sending.is_enough_for_today(self.now)
        };
        let active = self.history.sending.iter().filter(|(_, sending)| !sending.done);
        active.filter(able).map(|(device, _)| *device).next()
    }

    /// When history goes on that has reached what may go in a day.
    pub(super) fn history_due(&self) -> impl Iterator<Item = Timestamp> {
        self.history.sending.values().filter_map(Sending::goes_on_at)
    }

    /// Whether a piece of history could go out now.
    pub(super) fn has_history_to_send(&self) -> bool {
        self.notes.not_before <= self.now && self.next_to_send().is_some()
    }

    /// Asks the driver for records, if a piece can go.
    pub(super) fn post_history(&mut self, now: Timestamp) {
        self.drop_histories_of_the_revoked();
        if self.notes.not_before > now || self.history.asked.is_some() {
            return;
        }
        if let Some(device) = self.next_to_send() {
            self.history.asked = Some(device);
            self.flush_batch();
            self.outputs.push_back(Output::History { device });
        }
    }

    fn drop_histories_of_the_revoked(&mut self) {
        let revoked = |device: &&DeviceId| self.is_revoked(**device);
        let gone: Vec<DeviceId> = self.history.sending.keys().filter(revoked).copied().collect();
        for device in gone {
            self.history.sending.remove(&device);
            self.batch.delete(Table::Sending, None, device.as_bytes());
        }
        // What has come from one stays, for most that are revoked were lost or replaced; nothing more comes.
        let from = self.history.receiving.iter().filter(|(_, row)| !row.revoked && self.is_revoked(row.from));
        let from: Vec<(TransferId, Receiving)> = from.map(|(id, row)| (*id, row.clone())).collect();
        for (id, receiving) in from {
            let key = Secret::new(Vec::new());
            self.put_receiving(id, Receiving { revoked: true, done: true, key, ..receiving });
        }
    }

    /// Builds and posts the next piece of history for a device: the answer to [`Output::History`].
    ///
    /// # Errors
    /// [`Misuse::State`] if the vault can't be read.
    pub fn history_piece(&mut self, now: Timestamp, device: DeviceId, vault: &dyn Snapshot) -> Result<(), Error> {
        self.history.asked = None;
        if self.link.is_none() || self.next_to_send() != Some(device) {
            return Ok(());
        }
        let Some(mut sending) = self.history.sending.get(&device).cloned() else { return Ok(()) };
        let Some(inbox) = sending.inbox else { return Ok(()) };
        let from = sending.next.clone();
        let (segments, next, last) = cut(&sending.plan, &from, vault)?;
        let sealed = between::seal_piece(&sending.key, (&sending.transfer, from.index, last), &segments)?;
        let piece = Piece { transfer: sending.transfer, index: from.index, last, sealed: Blob(sealed) };
        let part = into_inbox(inbox, &Between::Piece(piece))?;
        let index = from.index;
        if sending.since.plus_ms(DAY_MS) <= now || sending.since > now {
            (sending.since, sending.today) = (now, 0);
        }
        sending.today = sending.today.saturating_add(1);
        sending.marks.push(from);
        sending.pieces = last.then_some(next.index);
        sending.next = next;
        self.put_sending(device, sending);
        self.new_post(PendingPost::between(vec![part], Purpose::Piece { device, index }));
        self.settle(now);
        Ok(())
    }

    /// A piece is to be sent again, and what comes after it.
    pub(super) fn piece_again(&mut self, device: DeviceId, index: u64) {
        if let Some(mut sending) = self.history.sending.get(&device).cloned() {
            sending.back_to(index);
            self.put_sending(device, sending);
        }
    }

    /// The relay takes no pieces for this device any more.
    pub(super) fn piece_refused(&mut self, device: DeviceId) {
        self.history.sending.remove(&device);
        self.batch.delete(Table::Sending, None, device.as_bytes());
    }

    /// The other device says how far it has come.
    pub(super) fn take_received(&mut self, from: DeviceId, received: Received) {
        let Some(mut sending) = self.history.sending.get(&from).cloned() else { return };
        let Received { transfer, upto, missing } = received;
        if sending.done || sending.transfer != transfer || upto > sending.next.index || upto < sending.confirmed {
            return;
        }
        sending.confirmed = upto;
        self.deliver(Notice::HistoryMoved { device: from });
        if missing {
            sending.back_to(upto);
        }
        sending.marks.retain(|mark| mark.index >= upto);
        if sending.pieces == Some(upto) {
            (sending.done, sending.key, sending.plan, sending.marks) =
                (true, Secret::new(Vec::new()), Vec::new(), Vec::new());
            self.deliver(Notice::HistorySent { device: from, messages: sending.messages });
        }
        self.put_sending(from, sending);
    }

    /// Another device sends what was said before: pieces under this key follow.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Void`] of one that came later, and has nothing to tell; [`Refused::Full`] where too many were kept.
    pub(super) fn take_transfer(&mut self, now: Timestamp, from: DeviceId, told: Transfer) -> Result<(), Error> {
        let Transfer { id, key, messages } = told;
        if self.history.receiving.contains_key(&id) || key.len() != AEAD_KEY_LEN {
            return Ok(());
        }
        if self.came_later(from)? {
            return Err(
                PeerMisbehaved::Void("history comes from a device that came later than this one".to_owned()).into()
            );
        }
        while self.history.receiving.len() >= limits::TRANSFERS_MAX {
            // Of those that have brought something it is to be known from whom that came.
            let empty = self.history.receiving.iter().filter(|(_, receiving)| receiving.next == 0);
            let oldest = empty.min_by_key(|(_, receiving)| receiving.at).map(|(id, _)| *id);
            let Some(oldest) = oldest else {
                return Err(Refused::Full { what: "what other devices have sent this one of before".to_owned() }.into());
            };
            self.history.receiving.remove(&oldest);
            self.batch.delete(Table::Receiving, None, &oldest[..]);
        }
        let (next, received, confirmed, done, broken, revoked) = (0, 0, 0, false, false, false);
        let at = now;
        let receiving = Receiving { from, key, messages, next, received, confirmed, done, at, broken, revoked };
        self.put_receiving(id, receiving);
        Ok(())
    }

    /// Whether another device of this person was made later than this one, as both have it in their certificates; clocks may differ by a day.
    fn came_later(&self, other: DeviceId) -> Result<bool, Error> {
        let own = self.own_chain()?;
        let made = |device| own.device(device).map(|certificate| certificate.made_at);
        let (own, other) = (made(self.profile.device), made(other));
        Ok(own.zip(other).is_some_and(|(own, other)| other > own.plus_ms(limits::CLOCK_AHEAD_MS)))
    }

    fn put_receiving(&mut self, id: TransferId, receiving: Receiving) {
        self.batch.put(Table::Receiving, None, &id[..], &receiving);
        self.history.receiving.insert(id, receiving);
    }

    /// A piece stands in the inbox.
    pub(super) fn piece_came(&mut self, piece: &Piece) -> Result<(), Error> {
        let void = |why: &str| Error::from(PeerMisbehaved::Void(why.to_owned()));
        let id = piece.transfer;
        let receiving = self.history.receiving.get(&id).cloned();
        let mut receiving = receiving.ok_or_else(|| void("a piece of history was announced by no device of yours"))?;
        if piece.index < receiving.next {
            // It was lost on the way back that it is here.
            self.confirm(id, false);
            return Ok(());
        }
        if self.is_revoked(receiving.from) {
            return Err(void("a piece of history is of a device that is yours no more"));
        }
        if receiving.broken {
            return Ok(());
        }
        let place = (&id, piece.index, piece.last);
        let segments = between::open_piece(&receiving.key, place, &piece.sealed.0)?;
        if piece.index > receiving.next {
            self.confirm(id, true);
            return Err(void("a piece of history came before its turn"));
        }
        let readable =
            |segment: &Segment| segment.records.iter().all(|Blob(record)| Record::kept(record, segment.matter).is_ok());
        if !segments.iter().all(readable) {
            // Kept, it would be in the way of whatever reads this matter.
            self.put_receiving(id, Receiving { broken: true, ..receiving });
            return Err(void("one of your devices sends history that can't be read; nothing more of it is taken"));
        }
        let mut number = 0_u32;
        for segment in segments {
            let matter = self.matter_here(&segment);
            for Blob(record) in segment.records {
                let is_text = Record::kept(&record, matter).is_ok_and(|record| record.is_text());
                receiving.received = receiving.received.saturating_add(u64::from(is_text));
                let key = [&id[..], &piece.index.to_be_bytes(), &number.to_be_bytes()].concat();
                self.batch.put_bytes(Table::Past, Some(matter), &key, record.into());
                number = number.saturating_add(1);
            }
        }
        receiving.next = receiving.next.saturating_add(1);
        if piece.last {
            (receiving.done, receiving.key) = (true, Secret::new(Vec::new()));
            self.deliver(Notice::HistoryCame { messages: receiving.received });
        }
        let due = receiving.next.saturating_sub(receiving.confirmed) >= limits::TRANSFER_CONFIRM;
        let done = receiving.done;
        self.put_receiving(id, receiving);
        if done || due {
            self.confirm(id, false);
        }
        Ok(())
    }

    /// What came and was not confirmed yet is confirmed, once everything that waited is read.
    pub(super) fn confirm_what_came(&mut self) {
        let unconfirmed = |receiving: &&Receiving| receiving.next > receiving.confirmed;
        let ids: Vec<TransferId> =
            self.history.receiving.iter().filter(|(_, receiving)| unconfirmed(receiving)).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.confirm(id, false));
    }

    fn confirm(&mut self, transfer: TransferId, missing: bool) {
        let Some(receiving) = self.history.receiving.get(&transfer).cloned() else { return };
        let (to, upto) = (receiving.from, receiving.next);
        self.put_receiving(transfer, Receiving { confirmed: upto, ..receiving });
        self.replace_note(to, &Body::Received(Received { transfer, upto, missing }));
    }

    /// The matter that a segment is of, as it is called here: a matter that was continued has another name for those who came in later.
    fn matter_here(&self, segment: &Segment) -> MatterId {
        let names = [segment.matter, segment.group];
        let is_it = |(id, room): &(&MatterId, &super::Room)| {
            let old = room.row.old.as_ref();
            names.contains(id)
                || names.contains(&room.row.group)
                || room.row.mailbox == segment.mailbox
                || old.is_some_and(|old| names.contains(&old.group) || old.mailbox == segment.mailbox)
        };
        self.rooms.iter().find(is_it).map_or(segment.matter, |(id, _)| *id)
    }
}

impl Sending {
    /// Whether as many pieces are on their way unconfirmed as may be.
    fn is_ahead(&self) -> bool {
        self.next.index.saturating_sub(self.confirmed) >= limits::TRANSFER_WINDOW
    }

    /// Whether as many pieces have gone today as may.
    fn is_enough_for_today(&self, now: Timestamp) -> bool {
        self.today >= limits::PIECES_PER_DAY && self.since <= now && self.since.plus_ms(DAY_MS) > now
    }

    /// When more may go, where it is enough for today.
    fn goes_on_at(&self) -> Option<Timestamp> {
        (!self.done && self.today >= limits::PIECES_PER_DAY).then(|| self.since.plus_ms(DAY_MS))
    }

    /// Goes back to where a piece began.
    fn back_to(&mut self, index: u64) {
        if let Some(at) = self.marks.iter().position(|mark| mark.index == index) {
            self.next = self.marks.split_off(at).swap_remove(0);
            self.pieces = None;
        }
    }
}

/// The next piece of a plan: its records, where the one after it begins, and whether it is the last.
fn cut(plan: &[Planned], from: &Mark, vault: &dyn Snapshot) -> Result<(Vec<Segment>, Mark, bool), Error> {
    let mut mark = Mark { index: from.index.saturating_add(1), ..from.clone() };
    let mut segments: Vec<Segment> = Vec::new();
    let mut bytes = 0_usize;
    loop {
        let at = usize::try_from(mark.planned).unwrap_or(usize::MAX);
        let Some(planned) = plan.get(at) else { return Ok((segments, mark, true)) };
        let (rows, ended) = planned.rows(&mark, vault)?;
        for (key, record) in rows {
            let more = record.len().saturating_add(RECORD_OVERHEAD);
            if bytes > 0 && bytes.saturating_add(more).saturating_add(SEGMENT_OVERHEAD) > limits::PIECE_BYTES {
                return Ok((segments, mark, false));
            }
            let Planned { matter, group, mailbox, .. } = *planned;
            if segments.last().is_none_or(|segment| segment.matter != matter) {
                segments.push(Segment { matter, group, mailbox, records: Vec::new() });
                bytes = bytes.saturating_add(SEGMENT_OVERHEAD);
            }
            bytes = bytes.saturating_add(more);
            let is_text = Record::kept(&record, matter).is_ok_and(|record| record.is_text());
            mark.messages = mark.messages.saturating_add(u64::from(is_text));
            mark.after = Some(key);
            if let Some(segment) = segments.last_mut() {
                segment.records.push(Blob(record.to_vec()));
            }
        }
        match (ended, mark.own) {
            (false, _) => {}
            (true, false) => (mark.own, mark.after) = (true, None),
            (true, true) => (mark.planned, mark.own, mark.after) = (mark.planned.saturating_add(1), false, None),
        }
    }
}

impl Planned {
    /// Some rows behind a mark, and whether nothing comes after them in this part of the matter.
    fn rows(&self, mark: &Mark, vault: &dyn Snapshot) -> Result<(super::state::Rows, bool), Misuse> {
        let (table, first, upto) = match (&self.past, mark.own) {
            (None, false) => return Ok((Vec::new(), true)),
            (Some(past), false) => (Table::Past, past.from.clone(), past.upto.clone()),
            (_, true) => (Table::Record, Vec::new(), self.upto.to_be_bytes().to_vec()),
        };
        let after = mark.after.as_ref().unwrap_or(&first);
        let mut rows = vault.rows_after(table, Some(self.matter), after, PAGE)?;
        let short = rows.len() < PAGE;
        let before = rows.len();
        rows.retain(|(key, _)| *key <= upto);
        let ended = short || rows.len() < before || rows.last().is_some_and(|(key, _)| *key == upto);
        Ok((rows, ended))
    }
}
