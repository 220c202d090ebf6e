//! Notes to and from other devices of the same person, through their inboxes.
//!
//! 1. A note waits in the vault until there is a key package of its reader's that was verified: the credential of a certificate of
//!    this person's own that was not revoked, and the package's own signatures.
//! 2. It is signed, sealed to that package's init key, and posted into the reader's inbox; what the relay does not take is sealed anew.
//!    What is for one device waits alone where that one's inbox is full.
//! 3. Whoever reads one believes it only from a device that their own chain certifies, and then drops the private half that opened it. A
//!    note of a device that is not in it yet is held until the relay has shown the chain once more.
//!
//! Invariant: a note is believed only under the MLS key that this person's own key has certified, of a device that is not revoked, and
//! only by the device that it names.

use std::collections::BTreeMap;

use crate::between::{self, Between, Body, NOTE_INFO, Note, SealedNote};
use crate::device::post::AGAIN_MS;
use crate::device::state::{Counters, HeldNote, OutNote, OwnDevice, PendingPost, Purpose, Snapshot, Table, load};
use crate::device::{Asked, Device, Notice, keyed, numbered};
use crate::envelope::{self, Class};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Blob, Part, Request, TakenKeyPackage};
use crate::identity::{DeviceCertificate, Signed};
use crate::ids::{DeviceId, InviteId, Position, Timestamp};
use crate::limits;
use crate::matter::{Sealed, check_key_package, seal_to};
use crate::secret::Secret;
use crate::suite::Label;

/// How long what is for one device waits at first where it can't go out, its inbox being full, say; and at most, twice as long each time.
const FULL_MS: u64 = 60_000;
const FULL_MAX_MS: u64 = 3_600_000;

/// The other devices of this person, as this one knows them and has to do with them.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Notes that the relay does not have yet, by number.
    pub(super) waiting: BTreeMap<u64, OutNote>,
    /// Notes whose author is not known yet, by their seq in the inbox.
    held: BTreeMap<u64, HeldNote>,
    /// Devices by id.
    pub(super) devices: BTreeMap<DeviceId, OwnDevice>,
    /// Invites that were cancelled or used, and until when no word of another device brings them back.
    pub(super) gone: BTreeMap<InviteId, Timestamp>,
    /// Devices that nothing is posted to before a time, and for how long that was put off.
    back: BTreeMap<DeviceId, (Timestamp, u64)>,
    /// Nothing is posted to inboxes of other devices before.
    pub(super) not_before: Timestamp,
    /// When to look again for newcomers who were left to another device, and whether that was done.
    pub(super) newcomers_at: Option<Timestamp>,
    pub(super) newcomers_waited: bool,
}

impl Notes {
    pub(super) fn open(vault: &dyn Snapshot) -> Result<Self, Error> {
        let counters = vault.rows(Table::Counter, None)?;
        let gone = counters.iter().find(|(key, _)| key.as_slice() == Counters::INVITES_GONE);
        let gone: Vec<(InviteId, Timestamp)> =
            gone.map(|(_, bytes)| crate::cbor::decode(bytes, "invites gone")).transpose()?.unwrap_or_default();
        Ok(Self {
            waiting: numbered(load(vault, Table::Note, None, "note")?)?,
            held: numbered(load(vault, Table::HeldNote, None, "held note")?)?,
            devices: keyed(load(vault, Table::OwnDevice, None, "own device")?, DeviceId::from_slice)?,
            gone: gone.into_iter().collect(),
            back: BTreeMap::new(),
            not_before: Timestamp(0),
            newcomers_at: None,
            newcomers_waited: false,
        })
    }
}

impl Notes {
    /// Whether what is for a device waits, because it could not go out before.
    pub(super) fn holds_back(&self, to: DeviceId, now: Timestamp) -> bool {
        self.back.get(&to).is_some_and(|(until, _)| *until > now)
    }

    /// What is for this device waits for a while, longer each time; what is for others does not.
    fn hold_back(&mut self, to: DeviceId, now: Timestamp, first: u64) {
        let for_ms = self.back.get(&to).map_or(first, |(_, last)| last.saturating_mul(2).min(FULL_MAX_MS));
        self.back.insert(to, (now.plus_ms(for_ms), for_ms));
    }

    /// When something that waits may go.
    pub(super) fn due(&self) -> impl Iterator<Item = Timestamp> {
        self.back.values().map(|(until, _)| *until)
    }

    /// Room for one more note to a device: one that has been dead for long is told the newest things alone.
    fn one_to_drop(&self, to: DeviceId) -> Option<u64> {
        let theirs = || self.waiting.iter().filter(|(_, note)| note.to == to);
        if theirs().count() < limits::NOTES_PER_DEVICE {
            return None;
        }
        let mut may = theirs().filter(|(_, note)| !note.sealed && note.kind != between::TRANSFER);
        may.next().map(|(number, _)| *number)
    }
}

impl Device {
    /// The other devices of this person that are in use, as its chain shows them.
    pub(super) fn other_devices(&self) -> Vec<DeviceId> {
        let own = self.people.get(&self.profile.person).and_then(|known| known.chain.first());
        let certificates = own.map_or(&[][..], |identity| &identity.certificates);
        let devices = certificates.iter().filter_map(|signed| {
            signed.unverified::<DeviceCertificate>("device certificate").ok().map(|certificate| certificate.device)
        });
        devices.filter(|device| *device != self.profile.device && !self.is_revoked(*device)).collect()
    }

    /// Puts a note for another device into the vault. It goes out as soon as that can be.
    pub(super) fn note_to(&mut self, to: DeviceId, body: &Body) {
        if let Some(number) = self.notes.one_to_drop(to) {
            self.drop_note(number);
        }
        if self.notes.waiting.len() >= limits::NOTES_MAX {
            self.deliver(Notice::Problem(Misuse::Busy("too many notes to your other devices wait").into()));
            return;
        }
        let (kind, body) = body.encode();
        let number = self.next_number();
        self.put_note(number, OutNote { to, kind, body: Secret::new(body), sealed: false, part: None });
    }

    /// The same for each other device.
    pub(super) fn note_to_others(&mut self, body: &Body) {
        for device in self.other_devices() {
            self.note_to(device, body);
        }
    }

    /// The same, in the place of one of that kind that has not gone out yet.
    pub(super) fn replace_note(&mut self, to: DeviceId, body: &Body) {
        let (kind, bytes) = body.encode();
        let waits = |(_, note): &(&u64, &OutNote)| note.to == to && note.kind == kind && !note.sealed;
        match self.notes.waiting.iter().find(waits).map(|(number, _)| *number) {
            Some(number) => {
                self.put_note(number, OutNote { to, kind, body: Secret::new(bytes), sealed: false, part: None })
            }
            None => self.note_to(to, body),
        }
    }

    fn put_note(&mut self, number: u64, note: OutNote) {
        self.batch.put(Table::Note, None, &number.to_be_bytes(), &note);
        self.notes.waiting.insert(number, note);
    }

    fn drop_note(&mut self, number: u64) {
        self.notes.waiting.remove(&number);
        self.batch.delete(Table::Note, None, &number.to_be_bytes());
    }

    /// Whether there is something to tell another device that could go out now.
    pub fn has_notes_to_send(&self) -> bool {
        let lacks = |note: &OutNote| note.part.is_none() && self.lacks_packages(note.to);
        let can = |note: &OutNote| note.sealed || !lacks(note) && !self.notes.holds_back(note.to, self.now);
        self.notes.not_before <= self.now && self.notes.waiting.values().any(can)
    }

    /// Seals and posts every note whose reader has a key package.
    pub(super) fn post_notes(&mut self, now: Timestamp) {
        if self.notes.not_before > now {
            return;
        }
        let waiting = self.notes.waiting.iter().filter(|(_, note)| !note.sealed);
        let waiting: Vec<(u64, DeviceId)> = waiting.map(|(number, note)| (*number, note.to)).collect();
        for (number, to) in waiting {
            if self.is_revoked(to) {
                self.drop_note(number);
                continue;
            }
            if self.notes.holds_back(to, now) || self.post_note_again(number) {
                continue;
            }
            let Some(taken) = self.package_of(now, self.profile.person, to) else { continue };
            if let Err(why) = self.post_note(now, number, &taken) {
                self.notes.hold_back(to, now, AGAIN_MS);
                self.deliver(Notice::Problem(why));
            }
        }
    }

    /// Posts a note that is sealed already, and that the relay had no room for.
    fn post_note_again(&mut self, number: u64) -> bool {
        let Some(mut note) = self.notes.waiting.get(&number).cloned() else { return false };
        let Some(part) = note.part.take() else { return false };
        self.put_note(number, OutNote { sealed: true, ..note });
        self.new_post(PendingPost::between(vec![part], Purpose::Note(number)));
        true
    }

    fn post_note(&mut self, now: Timestamp, number: u64, taken: &TakenKeyPackage) -> Result<(), Error> {
        let Some(note) = self.notes.waiting.get(&number).cloned() else { return Ok(()) };
        self.check_reader(taken)?;
        let said = Note { from: self.profile.device, to: note.to, at: now, body: Body::decode(note.kind, &note.body)? };
        let padded = zeroize::Zeroizing::new(between::pad(&said.sign(&self.profile.mls_key)?)?);
        let Sealed { reference, kem_output, ciphertext } = seal_to(&taken.package.0, NOTE_INFO, &padded)?;
        let sealed =
            SealedNote { reference: Blob(reference), kem_output: Blob(kem_output), ciphertext: Blob(ciphertext) };
        let part = into_inbox(taken.inbox, &Between::Note(sealed))?;
        if note.kind == between::TRANSFER {
            self.announced(note.to, taken.inbox);
        }
        self.put_note(number, OutNote { sealed: true, ..note });
        self.new_post(PendingPost::between(vec![part], Purpose::Note(number)));
        Ok(())
    }

    /// A key package is of the device that it was asked for, which this person's own key has certified, and signed by that device.
    fn check_reader(&self, taken: &TakenKeyPackage) -> Result<(), Error> {
        let (owner, key) = check_key_package(&taken.package.0)?;
        let own = self.own_chain()?;
        let certified = own.devices.iter().any(|(digest, certificate)| {
            *digest == owner.certificate
                && certificate.device == owner.device
                && certificate.mls_key == key
                && owner.device == taken.device
        });
        if owner.person != self.profile.person || !certified || self.is_revoked(owner.device) {
            return Err(PeerMisbehaved::WrongKey("a key package").into());
        }
        Ok(())
    }

    /// The relay has what was posted into another device's inbox.
    pub(super) fn between_accepted(&mut self, post: &PendingPost) {
        if let Some(to) = self.reader_of(post) {
            self.notes.back.remove(&to);
        }
        match post.purpose {
            Purpose::Note(number) => self.drop_note(number),
            Purpose::Piece { device, .. } => self.deliver(Notice::HistoryMoved { device }),
            _ => {}
        }
    }

    /// The relay takes it later, or never.
    pub(super) fn between_refused(&mut self, now: Timestamp, post: &PendingPost, refused: Refused) {
        match refused {
            Refused::Full { .. } => {
                if let Some(to) = self.reader_of(post) {
                    self.notes.hold_back(to, now, FULL_MS);
                }
                self.between_again(post);
                if let (Purpose::Note(number), Some(part)) = (post.purpose, post.parts.first())
                    && let Some(note) = self.notes.waiting.get(&number).cloned()
                {
                    self.put_note(number, OutNote { part: Some(part.clone()), ..note });
                }
            }
            refused => {
                match post.purpose {
                    Purpose::Note(number) => self.drop_note(number),
                    Purpose::Piece { device, .. } => self.piece_refused(device),
                    _ => {}
                }
                self.deliver(Notice::Problem(refused.into()));
            }
        }
    }

    /// For which device a Post is.
    fn reader_of(&self, post: &PendingPost) -> Option<DeviceId> {
        match post.purpose {
            Purpose::Note(number) => self.notes.waiting.get(&number).map(|note| note.to),
            Purpose::Piece { device, .. } => Some(device),
            _ => None,
        }
    }

    /// What a Post was for is to be sealed and posted anew.
    pub(super) fn between_again(&mut self, post: &PendingPost) {
        match post.purpose {
            Purpose::Note(number) => {
                if let Some(note) = self.notes.waiting.get(&number).cloned() {
                    self.put_note(number, OutNote { sealed: false, ..note });
                }
            }
            Purpose::Piece { device, index } => self.piece_again(device, index),
            _ => {}
        }
    }

    /// Another copy of this vault may have posted the same: everything is sealed anew.
    pub(super) fn forget_posts_between(&mut self) {
        let between: Vec<(u64, PendingPost)> = self
            .posts
            .iter()
            .filter(|(_, post)| post.matter.is_none())
            .map(|(idem, post)| (*idem, post.clone()))
            .collect();
        for (idem, post) in between {
            self.drop_post(idem);
            self.between_again(&post);
        }
    }

    /// Something from another device stands in the inbox.
    pub(super) fn between_came(&mut self, now: Timestamp, seq: u64, payload: &[u8]) -> Result<(), Error> {
        let read = Between::read(payload).map_err(Error::from).and_then(|between| match between {
            Between::Note(note) => self.note_came(now, seq, note),
            Between::Piece(piece) => self.piece_came(&piece),
        });
        // Read again after a restore, its key is gone: that tells nothing.
        if self.restored_inbox.is_some_and(|read| seq <= read) { Ok(()) } else { read }
    }

    fn note_came(&mut self, now: Timestamp, seq: u64, note: SealedNote) -> Result<(), Error> {
        let SealedNote { reference, kem_output, ciphertext } = note;
        let sealed = Sealed { reference: reference.0, kem_output: kem_output.0, ciphertext: ciphertext.0 };
        let padded = self.key_packages.open_sealed(&sealed, NOTE_INFO)?;
        let signed = between::unpad(&padded)?;
        let from = Note::unverified(&signed)?.from;
        if self.own_chain()?.device(from).is_some() || self.notes.held.len() >= limits::NOTES_HELD {
            self.believe(now, &signed)?;
            self.use_up(&sealed.reference);
            return Ok(());
        }
        let held = HeldNote { note: signed, reference: Some(Blob(sealed.reference)) };
        self.batch.put(Table::HeldNote, None, &seq.to_be_bytes(), &held);
        self.notes.held.insert(seq, held);
        let person = self.profile.person;
        self.ask_later(Asked::Chain(person), Request::Chain { person });
        Ok(())
    }

    /// A note that was believed uses up the key package that it was sealed to. One by nobody does not: whoever may write into an inbox could
    /// otherwise make what a device of this person seals to the same one unreadable.
    fn use_up(&mut self, reference: &[u8]) {
        if !self.last_resorts.iter().any(|kept| kept.0 == reference) {
            self.key_packages.forget(reference);
            self.batch.delete(Table::KeyPackage, None, reference);
        }
    }

    /// The relay has shown this person's chain: notes that waited for it are believed, or void.
    pub(super) fn read_held(&mut self, now: Timestamp) {
        for (seq, held) in std::mem::take(&mut self.notes.held) {
            self.batch.delete(Table::HeldNote, None, &seq.to_be_bytes());
            match self.believe(now, &held.note) {
                Ok(()) => held.reference.iter().for_each(|reference| self.use_up(&reference.0)),
                Err(why) => self.deliver(Notice::Problem(why)),
            }
        }
    }

    fn believe(&mut self, now: Timestamp, signed: &Signed) -> Result<(), Error> {
        let void = |why: &str| Error::from(PeerMisbehaved::Void(why.to_owned()));
        let note = Note::unverified(signed)?;
        if note.to != self.profile.device || note.from == self.profile.device {
            return Err(void("a note is for another device than this one"));
        }
        let own = self.own_chain()?;
        let author = own.device(note.from).ok_or_else(|| void("a note is of no device of yours"))?;
        if self.is_revoked(note.from) {
            return Err(void("a note is of a device that is yours no more"));
        }
        author.mls_key.verify(Label::DeviceNote, &signed.body, &signed.signature, "a note")?;
        match note.body {
            Body::Invites(invites) => self.take_invites(now, note.from, invites),
            Body::InviteGone(invite) => self.bury_invite(invite),
            Body::Endorsed(newcomer) => self.take_endorsed(*newcomer)?,
            Body::Names(names) => self.take_names(now, names),
            Body::Transfer(transfer) => self.take_transfer(now, note.from, transfer)?,
            Body::Received(received) => self.take_received(note.from, received),
            // Whatever a newer version says beside what this one knows.
            Body::Unknown { .. } => {}
        }
        Ok(())
    }
}

/// What is posted into the inbox of another device.
pub(super) fn into_inbox(inbox: crate::ids::MailboxId, between: &Between) -> Result<Part, Error> {
    let envelope = envelope::wrap(Class::Between, &crate::cbor::encode(between))?;
    Ok(Part::Append {
        mailbox: inbox,
        base: Position::start(inbox),
        fence: false,
        envelope: Blob(envelope),
        keep_ms: limits::ENVELOPE_LIFETIME_MS,
    })
}
