//! What a device keeps, row by row, and how a batch of changes reaches the vault.
//!
//! Invariant: a [`Batch`] is applied whole or not at all; within it the last change of a row wins.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::cbor;
use crate::content::Bundle;
use crate::device::keys::Replacing;
use crate::error::Misuse;
use crate::frame::{Blob, Instance, Part, RecoveryFiling};
use crate::identity::{Name, Role, Signed};
use crate::ids::{DeviceId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use crate::invite::InviteSecret;
use crate::matter::MatterContext;
use crate::rescue::{Fate, RepairRequest, Successor};
use crate::rotation::PastRelay;
use crate::secret::Secret;
use crate::suite::{Digest, PublicKey, SecretKey};

mod between;
mod devices;
mod history;
mod lapse;
mod logged;
mod past;
mod person;
mod posting;
mod record;

pub use between::{HeldNote, OutNote, OwnDevice, OwnInvite};
pub(super) use devices::RevocationsTold;
pub use devices::Revoked;
pub use history::{Mark, Past, Planned, Receiving, Sending, TRANSFER_LEN, largest};
pub use lapse::{Cause, Lapse, Withdrawn};
pub use logged::{Doubt, Logged};
pub use past::{Old, Removal, Withheld};
pub use person::{Changed, KnownPerson, Verification};
pub use posting::{PendingPost, Purpose};
pub use record::{Record, RecordBody};

/// A table of the vault. The numbers are part of the vault's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Table {
    /// One row: the [`Profile`].
    Profile = 0,
    /// Private halves of key packages, by reference.
    KeyPackage = 1,
    /// A [`MatterRow`] for each matter.
    Matter = 2,
    /// MLS state, one row for each matter.
    Group = 3,
    /// An [`OwnCommit`] by the hash of its envelope.
    Commit = 4,
    /// An [`OutItem`] by its number.
    Outbox = 5,
    /// An [`Intent`] by its number.
    Intent = 6,
    /// A [`Record`] by its cursor.
    Record = 7,
    /// A [`KnownPerson`] by id.
    Person = 8,
    /// An [`OwnInvite`] by id.
    Invite = 9,
    /// A [`Recent`] entry by seq modulo [`RECENT`].
    Recent = 10,
    /// A [`PendingPost`] by idem.
    Post = 11,
    /// Counters and positions by name; see [`Counters`].
    Counter = 12,
    /// The seq of an own message, by message id: the same id is never sent twice.
    Sent = 13,
    /// A [`Revoked`] device by its id.
    Revoked = 30,
    /// An [`OutNote`] by its number.
    Note = 50,
    /// A [`HeldNote`] by its seq in the inbox.
    HeldNote = 51,
    /// An [`OwnDevice`] by its id.
    OwnDevice = 52,
    /// A [`Sending`] by the id of the device to which it goes.
    Sending = 53,
    /// A [`Receiving`] by its transfer.
    Receiving = 54,
    /// Records of another device, by matter, and by transfer, piece and number.
    Past = 55,
    /// A [`Withdrawn`] endorsement by the person's id.
    Withdrawn = 70,
    /// What the audit log says of a person: a [`Logged`] by their id.
    Logged = 71,
}

/// How many of the last entries of a mailbox a device remembers, to hold against what others say they read.
pub const RECENT: u64 = 1024;

/// A key of a row: its table, its matter where it belongs to one, and its key.
pub type RowKey = (Table, Option<MatterId>, Vec<u8>);

/// Changes to the vault that belong together.
#[derive(Debug, Default)]
pub struct Batch {
    rows: BTreeMap<RowKey, Option<Zeroizing<Vec<u8>>>>,
}

impl Batch {
    /// The changes: a value to write, or none to delete the row.
    pub fn into_rows(self) -> impl Iterator<Item = (RowKey, Option<Zeroizing<Vec<u8>>>)> {
        self.rows.into_iter()
    }

    /// Takes over the changes of a later batch.
    pub fn merge(&mut self, later: Self) {
        self.rows.extend(later.rows);
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes a row.
    pub fn put<T: Encode<()>>(&mut self, table: Table, matter: Option<MatterId>, key: &[u8], row: &T) {
        self.put_bytes(table, matter, key, Zeroizing::new(cbor::encode(row)));
    }

    /// Writes a row that is bytes already.
    pub fn put_bytes(&mut self, table: Table, matter: Option<MatterId>, key: &[u8], value: Zeroizing<Vec<u8>>) {
        self.rows.insert((table, matter, key.to_vec()), Some(value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, table: Table, matter: Option<MatterId>, key: &[u8]) {
        self.rows.insert((table, matter, key.to_vec()), None);
    }
}

/// Rows of one table, each key with its value.
pub type Rows = Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>;

/// The vault, as a device reads it when it opens.
pub trait Snapshot {
    /// All rows of a table that belong to one matter, or to none; by key.
    ///
    /// # Errors
    /// [`Misuse::State`] if the vault can't be read.
    fn rows(&self, table: Table, matter: Option<MatterId>) -> Result<Rows, Misuse>;

    /// The first rows behind a key, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::rows`].
    fn rows_after(&self, table: Table, matter: Option<MatterId>, after: &[u8], limit: usize) -> Result<Rows, Misuse> {
        let mut rows = self.rows(table, matter)?;
        rows.retain(|(key, _)| key.as_slice() > after);
        rows.truncate(limit);
        Ok(rows)
    }
}

/// Decodes every row of a table.
pub(super) fn load<T: for<'b> Decode<'b, ()>>(
    vault: &dyn Snapshot,
    table: Table,
    matter: Option<MatterId>,
    what: &'static str,
) -> Result<Vec<(Vec<u8>, T)>, Misuse> {
    let rows = vault.rows(table, matter)?;
    rows.into_iter()
        .map(|(key, value)| Ok((key, cbor::decode(&value, what).map_err(|_| Misuse::State(what))?)))
        .collect()
}

/// A person's device: who it is, and every long-term key it holds. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Profile {
    /// Whose device.
    #[n(0)]
    pub person: PersonId,
    /// Which device.
    #[n(1)]
    pub device: DeviceId,
    /// The person's key; on their first device only.
    #[n(2)]
    pub person_key: Option<SecretKey>,
    /// For TLS and the hello.
    #[n(3)]
    pub link_key: SecretKey,
    /// For matters.
    #[n(4)]
    pub mls_key: SecretKey,
    /// Certifies both device keys.
    #[n(5)]
    pub certificate: Signed,
    /// The person's handle.
    #[n(6)]
    pub handle: String,
    /// The person's display name.
    #[n(7)]
    pub name: Name,
    /// The person's role.
    #[n(8)]
    pub role: Role,
    /// Whether the person may endorse anyone.
    #[n(9)]
    pub registrar: bool,
    /// Where the relay is.
    #[n(10)]
    pub address: String,
    /// The relay's key.
    #[n(11)]
    pub relay: PublicKey,
    /// The organisation's key.
    #[n(12)]
    pub organisation: PublicKey,
    /// The organisation's private key; with the first registrar only.
    #[n(13)]
    pub organisation_key: Option<SecretKey>,
    /// Makes the MACs that prove an idem to be this vault's.
    #[n(14)]
    pub idem_key: Secret,
    /// Where Welcomes arrive.
    #[n(15)]
    pub inbox: MailboxId,
    /// The firm, as its relay names it.
    #[n(16)]
    pub firm: String,
    /// Whether the person chose the name: nobody who invited them gave it.
    #[n(17)]
    #[cbor(default)]
    pub self_stated: bool,
    /// Which copy of the profile this was when it was made.
    #[n(18)]
    pub instance: Instance,
    /// The invite by which this device is being linked, until the person's key has certified it.
    #[n(19)]
    pub linking: Option<InviteSecret>,
    /// A new person key that the relay has not acknowledged.
    #[n(40)]
    pub replacing: Option<Replacing>,
    /// The recovery key, as the person's key certified it; on the device that holds that key.
    #[n(41)]
    pub recovery: Option<Signed>,
    /// A recovery sheet that the relay has not acknowledged.
    #[n(94)]
    pub filing: Option<RecoveryFiling>,
    /// Whether the person was here before this device, under another key.
    #[n(42)]
    #[cbor(default)]
    pub again: bool,
    /// Keys that were the relay's before [`Self::relay`], oldest first, the newest of them.
    #[cbor(n(60), default, skip_if = "Vec::is_empty")]
    pub relays_before: Vec<PastRelay>,
}

/// How far a matter has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Stage {
    /// Made here, not yet at the relay.
    #[n(0)]
    Opening,
    /// Joined; the position at which reading begins is not yet known.
    #[n(1)]
    Joining,
    /// In use.
    #[n(2)]
    Open,
    /// This device was removed.
    #[n(3)]
    Removed,
    /// The relay showed two histories: stopped, kept as proof.
    #[n(4)]
    Forked,
    /// A Commit can't be followed any more: the members are asked to let this device back in.
    #[n(5)]
    OutOfStep,
    /// The relay withholds something without which nobody can judge the next Commit: nothing is skipped, and it is asked for again.
    #[n(6)]
    Paused,
    /// The matter follows rules that this version does not know: it waits for a newer program.
    #[n(7)]
    Outdated,
    /// Somebody continues the matter in a new mailbox, and has yet to let this device in.
    #[n(8)]
    Moving,
}

/// A matter beside its MLS state.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct MatterRow {
    /// Its mailbox.
    #[n(0)]
    pub mailbox: MailboxId,
    /// Its title.
    #[n(1)]
    pub title: String,
    /// How far it has come.
    #[n(2)]
    pub stage: Stage,
    /// The last position read.
    #[n(3)]
    pub position: Position,
    /// The last fence read.
    #[n(4)]
    pub fence: Position,
    /// Bundles read since that fence.
    #[n(5)]
    pub bundles: Vec<HeldBundle>,
    /// The epoch, for showing it without loading MLS state.
    #[n(6)]
    pub epoch: u64,
    /// The people, likewise.
    #[n(7)]
    pub people: Vec<PersonId>,
    /// When it was opened or joined, by this device's clock.
    #[n(8)]
    pub since: Timestamp,
    /// Its MLS group; another than the matter's own id once it was continued.
    #[n(9)]
    pub group: MatterId,
    /// The seq of the Commit with which the epoch began; 0 for the first.
    #[n(10)]
    pub epoch_seq: u64,
    /// When this device owes the matter fresh keys.
    #[n(11)]
    pub healing: Healing,
    /// Who says to have read something else, until the user has said to go on.
    #[n(12)]
    pub disputed: Option<PersonId>,
    /// Whom this device has removed, while no other member has been heard in the new epoch.
    #[n(13)]
    pub requested: Vec<PersonId>,
    /// Where this device lost its way: what follows is read again once it is let back in.
    #[n(14)]
    pub lost: Option<Lost>,
    /// Repair requests read since the last fence, the newest of each device.
    #[n(15)]
    pub requests: Vec<HeldRequest>,
    /// Expired envelopes read since the last fence, each with the position before it: a bundle that one of them was is withheld.
    #[n(16)]
    pub withheld: Vec<Withheld>,
    /// Where the matter goes on, as the first valid statement says.
    #[n(17)]
    pub successor: Option<Successor>,
    /// When each device was last heard, by this device's clock.
    #[n(18)]
    pub heard: Vec<Heard>,
    /// The position read in the relay's incarnation before, while what it still has is compared with it.
    #[n(19)]
    pub before: Option<Position>,
    /// Who removed this device, and when: its removal may turn out void.
    #[n(20)]
    pub removal: Option<Removal>,
    /// Messages read in the relay's incarnation before, and forgotten by it: they are sent again.
    #[n(21)]
    pub known: Vec<(PersonId, MessageId)>,
    /// Whether the relay has forgotten Commits that this device has applied: only a successor helps.
    #[n(22)]
    pub forgotten: bool,
    /// When this device continues the matter in a successor, if nobody else has by then.
    #[n(23)]
    pub continue_at: Option<Timestamp>,
    /// The mailbox that the matter was continued from: a later epoch may still be claimed there.
    #[n(24)]
    pub old: Option<Old>,
    /// Behind which seq this device's own texts are to be sent again.
    #[n(25)]
    pub recall: Option<u64>,
    /// Whether this device was let back in and has not heard anybody in the new epoch yet.
    #[n(26)]
    pub unconfirmed: bool,
    /// Since when it has rested before an entry that can't be judged yet.
    #[n(27)]
    pub paused_at: Option<Timestamp>,
    /// The mailbox in which this very vault would continue the matter, once its statement is read.
    #[n(28)]
    pub continues_in: Option<MailboxId>,
    /// The newest record when this mailbox was entered: what came before was said in another.
    #[n(29)]
    pub since_cursor: u64,
    /// Whether the roster is to be held against the members.
    #[n(30)]
    pub roster_due: bool,
    /// A statement that this device does not follow, though others may: it is to be overruled.
    #[n(31)]
    pub claimed: Option<Successor>,
    /// Who let this device back in, while it is [unconfirmed](Self::unconfirmed), and the epoch that it had applied before.
    #[n(32)]
    pub let_in_by: Option<(PersonId, u64)>,
    /// What became of people who were ever removed: who is out is not taken over when the matter is continued.
    #[n(33)]
    pub fates: Vec<Fate>,
    /// The signed statements by which this group continues others, the newest last, as far as this device has them.
    #[n(34)]
    pub line: Vec<Blob>,
    /// Whether the relay has forgotten this mailbox, or this device in it.
    #[n(35)]
    pub gone: bool,
    /// Whether the group is still followed, though a statement leads the matter away from it.
    #[n(36)]
    pub reads_on: bool,
    /// This device's own newest statement about this group, signed.
    #[n(38)]
    pub stated: Option<Blob>,
    /// Who of those taken over has come into this group, and may have left it since.
    #[n(39)]
    pub came: Vec<PersonId>,
    /// Whether it is for a restored relay that texts are sent again.
    #[n(37)]
    pub restored: bool,
    /// People here for whom nobody vouches any more, as the user was told.
    #[n(70)]
    #[cbor(default)]
    pub lapses: Vec<Lapse>,
}

impl MatterRow {
    /// Whether texts wait until the user has said to go on.
    pub fn waits_for_a_word(&self) -> bool {
        self.disputed.is_some() || self.lapses.iter().any(|lapse| !lapse.accepted)
    }

    /// From where this device reads: its position; before what is withheld, where something is; from its start, where what the relay
    /// has is compared with what was read before.
    pub(super) fn reads_from(&self) -> Option<Position> {
        match self.stage {
            Stage::Joining => None,
            Stage::Paused => Some(self.withheld.first().map_or(self.position, |withheld| withheld.before)),
            _ if self.before.is_some() => None,
            _ => Some(self.position),
        }
    }

    /// A matter of which nothing was read yet.
    pub(super) fn new(group: MatterId, context: &MatterContext, stage: Stage, epoch: u64, now: Timestamp) -> Self {
        let start = Position::start(context.mailbox);
        Self {
            mailbox: context.mailbox,
            title: context.title.clone(),
            stage,
            position: start,
            fence: start,
            bundles: Vec::new(),
            epoch,
            people: context.people.iter().map(|participant| participant.person).collect(),
            since: now,
            group,
            epoch_seq: 0,
            healing: Healing { at: now, ..Healing::default() },
            disputed: None,
            requested: Vec::new(),
            lost: None,
            requests: Vec::new(),
            withheld: Vec::new(),
            successor: None,
            heard: Vec::new(),
            before: None,
            removal: None,
            known: Vec::new(),
            forgotten: false,
            continue_at: None,
            old: None,
            recall: None,
            unconfirmed: false,
            paused_at: None,
            continues_in: None,
            since_cursor: 0,
            roster_due: false,
            claimed: None,
            let_in_by: None,
            fates: Vec::new(),
            line: Vec::new(),
            gone: false,
            reads_on: false,
            restored: false,
            lapses: Vec::new(),
            stated: None,
            came: context.people.iter().map(|participant| participant.person).collect(),
        }
    }
}

/// What a device needs to know to give a matter fresh keys in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Healing {
    /// Messages sealed since this device's last Commit.
    #[n(0)]
    pub sent: u32,
    /// Messages sealed in this epoch: what the ratchet of RFC 9420, section 9 has advanced.
    #[n(1)]
    pub generations: u32,
    /// When this device's last Commit was read, or it joined.
    #[n(2)]
    pub at: Timestamp,
    /// Whether a Commit is due in any case: this device joined by a key package that others may have used, too.
    #[n(3)]
    pub due: bool,
}

/// Where a device lost its way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lost {
    /// The last position whose entry it applied.
    #[n(0)]
    pub position: Position,
    /// The last fence up to there.
    #[n(1)]
    pub fence: Position,
    /// Whether it is because this vault is a copy: its keys may have been used.
    #[n(2)]
    pub copied: bool,
    /// When it may ask next.
    #[n(3)]
    pub ask_at: Timestamp,
    /// The hash of its request's envelope, while that stands behind the last fence.
    #[n(4)]
    pub request: Option<Digest>,
    /// The key package that it asks with, and its reference; kept until it is used.
    #[n(5)]
    pub package: Option<OwnKeyPackage>,
    /// Other devices that have asked since somebody was last in step.
    #[n(6)]
    pub others: Vec<DeviceId>,
}

impl Lost {
    /// Lost at a place.
    pub(super) fn at(position: Position, fence: Position, now: Timestamp) -> Self {
        Self { position, fence, copied: false, ask_at: now, request: None, package: None, others: Vec::new() }
    }

    /// Lost because another copy of the vault may have used its keys.
    pub(super) fn copied(position: Position, now: Timestamp) -> Self {
        Self { copied: true, ..Self::at(position, position, now) }
    }
}

/// A key package of this device's, kept to be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct OwnKeyPackage {
    /// Its reference (RFC 9420, section 5.2).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub reference: Vec<u8>,
    /// The message.
    #[n(1)]
    pub message: Blob,
}

/// A repair request that waits for an answer.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct HeldRequest {
    /// The hash of its envelope.
    #[n(0)]
    pub digest: Digest,
    /// What it asks, its signature checked.
    #[n(1)]
    pub request: RepairRequest,
    /// When this device answers, if nobody else has.
    #[n(2)]
    pub answer_at: Timestamp,
}

/// When a device was last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Heard {
    /// Which.
    #[n(0)]
    pub device: DeviceId,
    /// When, by this device's clock.
    #[n(1)]
    pub at: Timestamp,
    /// Whether the user was told that it is silent.
    #[n(2)]
    pub told: bool,
}

/// A bundle that waits for its Commit.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct HeldBundle {
    /// The hash of its envelope.
    #[n(0)]
    pub digest: Digest,
    /// Its author.
    #[n(1)]
    pub device: DeviceId,
    /// What it says.
    #[n(2)]
    pub bundle: Bundle,
}

/// An own Commit that was built and not yet read back. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct OwnCommit {
    /// The epoch it was built in.
    #[n(0)]
    pub epoch: u64,
    /// Its MLS secrets.
    #[n(1)]
    pub secrets: Secret,
    /// The intents that it carries out.
    #[n(2)]
    pub intents: Vec<u64>,
    /// The hash of its bundle's envelope, and what it says: an own message can't be opened.
    #[n(3)]
    pub bundle: Option<(Digest, Bundle)>,
    /// The request that it answers, by the hash of its envelope.
    #[n(4)]
    pub repair: Option<Digest>,
    /// Its Post, once the relay has refused it as stale: behind a void fence the same bytes are posted again.
    #[n(5)]
    pub stale: Vec<Part>,
    /// Whether the relay has refused it for good, as it says.
    #[n(6)]
    pub refused: bool,
}

/// A text that has not been read back from the mailbox.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct OutItem {
    /// The message.
    #[n(0)]
    pub id: MessageId,
    /// Its content, encoded and not sealed.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub content: Vec<u8>,
    /// The hash of its envelope, once it was sealed; by this it is recognised in the mailbox.
    #[n(2)]
    pub digest: Option<Digest>,
    /// Its seq, once the relay has said so.
    #[n(3)]
    pub seq: Option<u64>,
    /// Why it can't be sent, if it can't.
    #[n(4)]
    pub failed: Option<String>,
    /// Whether it was in the mailbox before, and the relay has forgotten it.
    #[n(5)]
    #[cbor(default)]
    pub again: bool,
    /// Whether the user was told that the relay has it: told once, however often it is sent.
    #[n(6)]
    #[cbor(default)]
    pub told: bool,
}

/// A change of membership that somebody asked for.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Intent {
    /// Whom.
    #[n(0)]
    pub person: PersonId,
    /// Their handle.
    #[n(1)]
    pub handle: String,
    /// Whether to add or to remove.
    #[n(2)]
    pub add: bool,
    /// Whether the user was told that it waits; told once, not on each link.
    #[cbor(n(3), default)]
    pub told: bool,
    /// Whether it only takes over who was in the matter that this one continues.
    #[cbor(n(4), default)]
    pub taken_over: bool,
}

/// One of the last entries of a mailbox.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Recent {
    /// The position after it.
    #[n(0)]
    pub position: Position,
    /// Who sent which message, where it was one: a repeat is dropped.
    #[n(1)]
    pub message: Option<(PersonId, MessageId)>,
}

/// Names of rows in [`Table::Counter`].
#[derive(Debug)]
pub struct Counters;

impl Counters {
    /// The highest idem issued.
    pub const IDEM: &'static [u8] = b"idem";
    /// What the highest idem issued stands for: the hash of its parts.
    pub const ISSUED: &'static [u8] = b"issued";
    /// The newest record's cursor.
    pub const CURSOR: &'static [u8] = b"cursor";
    /// The number of the newest outbox item or intent.
    pub const NUMBER: &'static [u8] = b"number";
    /// The inbox's position.
    pub const INBOX: &'static [u8] = b"inbox";
    /// When a last-resort key package was published; it is replaced after a while.
    pub const LAST_RESORT: &'static [u8] = b"last resort";
    /// The references of last-resort key packages that are kept, the newest last.
    pub const LAST_RESORTS: &'static [u8] = b"last resorts";
    /// Single-use key packages that the relay has served to this device, by hash, the newest last.
    pub const SERVED: &'static [u8] = b"served";
    /// Which copy of the profile this is.
    pub const INSTANCE: &'static [u8] = b"instance";
    /// The relay's incarnation that this device's positions belong to.
    pub const INCARNATION: &'static [u8] = b"incarnation";
    /// The seq in the inbox up to which Welcomes may have been used by another copy.
    pub const USED_WELCOMES: &'static [u8] = b"used welcomes";
    /// The seq in the inbox up to which it was read before the relay was restored.
    pub const RESTORED_INBOX: &'static [u8] = b"restored inbox";
    /// Invites that were cancelled or used, with the time until which they stay so whatever another device says.
    pub const INVITES_GONE: &'static [u8] = b"invites gone";
    /// Up to which revocation the relay has told this device.
    pub const REVOCATIONS: &'static [u8] = b"revocations";
    /// What is known of the relay's audit log.
    pub const LOG: &'static [u8] = b"log";
    /// Whether this person is endorsed, as far as this device knows.
    pub const READY: &'static [u8] = b"ready";
    /// The secret of the organisation's recovery sheet, until somebody has put it on paper; the shell's.
    pub const ORGANISATION_SHEET: &'static [u8] = b"organisation sheet";
    /// The cursor of the last record that `recv` or `chat` printed; the shell's.
    pub const PRINTED: &'static [u8] = b"printed";
}
