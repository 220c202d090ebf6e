//! What the relay keeps: rows, the reads that the rules need, and the writes that they decide on.
//!
//! A [`Store`] applies writes inside a transaction that [`Store::commit`] makes durable; several requests share one transaction and so
//! one sync. A [`Read`] sees what has been applied; a reader of [`Store::readers`] sees what has been committed.
//!
//! Invariant: after [`Store::commit`] has returned, every applied write survives a power cut; before, none needs to.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use privity_protocol::frame::{
    Blob, DeviceRegistration, Entry, Instance, NewInvite, RecoveryFiling, Registration, Rights,
};
use privity_protocol::identity::{Identity, Role, Signed, Step};
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::invite::InviteStatement;
use privity_protocol::log::{Event, Last, TreeHash};
use privity_protocol::suite::{Digest, PublicKey};

pub use log::{LogRow, LogTiles};

#[cfg(test)]
mod conformance;
mod log;
pub mod memory;
pub mod sqlite;

/// Why the store could not do it. After a failed commit the relay stops: what is on disk is unknown until it starts again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite failed.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored value does not decode: the database is damaged or from another version.
    #[error("database: {0} is damaged")]
    Damaged(&'static str),
    /// An in-memory store has reached its crash point.
    #[error("the store has crashed, as it was told to")]
    Crashed,
    /// The disk or its folder failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The database belongs to another version of this program.
    #[error(
        "the database has version {found}, this program has {known}; an older one is brought up to date when the relay starts, \
         a newer one needs a newer program"
    )]
    Version {
        /// The database's.
        found: i64,
        /// This program's.
        known: i64,
    },
}

impl StoreError {
    /// Whether the disk is full: nothing was written, and it may go on once there is room.
    pub fn is_disk_full(&self) -> bool {
        match self {
            // Where there is no room for its shared memory, SQLite says "I/O error" (SQLITE_IOERR_SHMSIZE).
            Self::Sqlite(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
                    || error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
            }
            Self::Io(error) => error.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// A registered person.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct PersonRow {
    /// What they registered with.
    #[n(0)]
    pub registration: Registration,
    /// As what; the endorsement's role once there is one.
    #[n(1)]
    pub role: Role,
    /// Whether they may endorse anyone.
    #[n(2)]
    pub registrar: bool,
    /// The newest endorsement.
    #[n(3)]
    pub endorsement: Option<Signed>,
    /// Who invited them.
    #[n(4)]
    pub inviter: Option<PersonId>,
    /// When they registered.
    #[n(5)]
    pub registered: Timestamp,
    /// The newest statement that took an endorsement of theirs back.
    #[n(70)]
    pub withdrawn: Option<WithdrawnRow>,
    /// Their recovery sheet.
    #[n(40)]
    pub recovery: Option<RecoveryFiling>,
    /// How keys before lead to the one in the registration.
    #[n(41)]
    #[cbor(default)]
    pub line: Vec<Step>,
    /// What they registered with anew, until somebody endorses the new key.
    #[n(42)]
    pub again: Option<Registration>,
    /// Who they were before their key was replaced, the newest last.
    #[n(43)]
    #[cbor(default)]
    pub past: Vec<Identity>,
}

impl PersonRow {
    /// Whether somebody vouches for them: they were endorsed, and that was not withdrawn since.
    pub fn is_endorsed(&self) -> bool {
        self.endorsement.is_some() && !self.is_withdrawn()
    }

    /// Whether nobody vouches for them any more.
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.as_ref().is_some_and(|withdrawn| !withdrawn.lifted)
    }
}

/// The withdrawal of a person's endorsement.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct WithdrawnRow {
    /// The statement.
    #[n(0)]
    pub statement: Signed,
    /// Whether they were endorsed again since.
    #[n(1)]
    pub lifted: bool,
    /// The instances of their devices that were admitted, to be admitted again then.
    #[n(2)]
    pub instances: Vec<(DeviceId, Instance)>,
}

/// A statement about a person, which everybody who may see them is told. All kinds have one counter.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ToldRow {
    /// Which one of this relay's it is, from 1.
    #[n(0)]
    pub number: u64,
    /// About whom.
    #[n(1)]
    pub person: PersonId,
    /// What is told.
    #[n(2)]
    pub what: Told,
}

/// What is told of a person.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Told {
    /// A device of theirs was revoked: the statement.
    #[n(0)]
    Revoked(#[n(0)] Signed),
    /// Their endorsement was withdrawn: the statement.
    #[n(1)]
    Withdrawn(#[n(0)] Signed),
    /// Their key was replaced.
    #[n(2)]
    Replaced,
}

/// A device of a person.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceRow {
    /// Which.
    #[n(0)]
    pub device: DeviceId,
    /// Whose.
    #[n(1)]
    pub person: PersonId,
    /// Its link key.
    #[n(2)]
    pub link_key: PublicKey,
    /// Its certificate.
    #[n(3)]
    pub certificate: Signed,
    /// Its inbox.
    #[n(4)]
    pub inbox: MailboxId,
    /// What it registered with, while it waits to be certified: its certificate is not signed yet.
    #[n(8)]
    #[cbor(default)]
    pub waiting: Option<DeviceRegistration>,
    /// What it needs to know, sealed, until it has it.
    #[n(9)]
    #[cbor(default)]
    pub pack: Option<Blob>,
    /// That it is nobody's any more.
    #[n(10)]
    #[cbor(default)]
    pub revoked: Option<RevokedRow>,
    /// Whether it waits for its person's new key to be endorsed.
    #[n(40)]
    #[cbor(default)]
    pub pending: bool,
    /// Whether its certificate is of a key that its person has no more.
    #[n(41)]
    #[cbor(default)]
    pub former: bool,
    /// Whether it waited for a key that is not endorsed any more: it is nobody's.
    #[n(94)]
    #[cbor(default)]
    pub ended: bool,
}

impl DeviceRow {
    /// Whether it is served like any device of its person.
    pub fn is_in_use(&self) -> bool {
        !self.waits() && self.revoked.is_none() && !self.ended
    }

    /// Whether it is not served yet: nobody has certified it, or endorsed its person's new key.
    pub fn waits(&self) -> bool {
        self.waiting.is_some() || self.pending
    }
}

/// A device's revocation.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct RevokedRow {
    /// Which revocation of this relay's it is, from 1.
    #[n(0)]
    pub number: u64,
    /// The statement.
    #[n(1)]
    pub statement: Signed,
}

/// A filed invite.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct InviteRow {
    /// Which.
    #[n(0)]
    pub invite: InviteId,
    /// The hash of its token.
    #[n(1)]
    pub token_hash: Digest,
    /// The inviter's filing; none for the first invite, which the relay made itself.
    #[n(2)]
    pub filed: Option<NewInvite>,
    /// Who invites.
    #[n(3)]
    pub inviter: Option<PersonId>,
    /// As what; none where the newcomer says.
    #[n(4)]
    pub role: Option<Role>,
    /// The handle it insists on.
    #[n(5)]
    pub handle: Option<String>,
    /// Until when.
    #[n(6)]
    pub expires: Timestamp,
    /// Who used it.
    #[n(7)]
    pub used_by: Option<PersonId>,
    /// Whether the log says that it has expired.
    #[n(8)]
    #[cbor(default)]
    pub expired: bool,
    /// How many refused uses of it the log has.
    #[n(9)]
    #[cbor(default)]
    pub refusals: u8,
    /// Whether its inviter has cancelled it.
    #[n(10)]
    #[cbor(default)]
    pub cancelled: bool,
}

impl InviteRow {
    /// Whether it was used or cancelled, or the log says that it has expired.
    pub fn is_closed(&self) -> bool {
        self.used_by.is_some() || self.expired || self.cancelled
    }
}

impl InviteRow {
    /// What its inviter says; none for the first invite.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it does not decode.
    pub fn statement(&self) -> Result<Option<InviteStatement>, StoreError> {
        let filed = self.filed.as_ref();
        filed.map(|filed| filed.statement.unverified("invite").map_err(|_| StoreError::Damaged("invite"))).transpose()
    }
}

/// The head of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxRow {
    /// Which.
    pub mailbox: MailboxId,
    /// The device whose inbox it is, if it is one.
    pub inbox_of: Option<DeviceId>,
    /// The last entry's position.
    pub head: Position,
    /// The last fence's position; seq 0 where there is none.
    pub fence: Position,
}

/// A device's interval in a mailbox's roster: it reads entries after `from`, up to and with `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantRow {
    /// Who.
    pub device: DeviceId,
    /// What.
    pub rights: Rights,
    /// The last seq before it.
    pub from: u64,
    /// The last seq in it; none while it goes on.
    pub until: Option<u64>,
}

/// How many envelopes wait unread in an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// From one person.
    pub of_sender: u64,
    /// From everybody without a share in the reserve.
    pub unreserved: u64,
    /// From everybody.
    pub total: u64,
}

/// An accepted Post, remembered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IdemRow {
    /// The device's counter.
    #[n(0)]
    pub idem: u64,
    /// The hash of the Post's parts.
    #[n(1)]
    pub parts: Digest,
    /// The device's MAC.
    #[n(2)]
    pub mac: Digest,
    /// What was answered.
    #[n(3)]
    pub seqs: Vec<u64>,
}

/// A Post that came, as far as a device needs it to know its own again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReceivedRow {
    /// The device's counter.
    #[n(0)]
    pub idem: u64,
    /// The hash of the Post's parts.
    #[n(1)]
    pub parts: Digest,
    /// The device's MAC.
    #[n(2)]
    pub mac: Digest,
}

/// A key package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPackageRow {
    /// The store's number for it; none for the last-resort one, which is never dropped.
    pub number: Option<u64>,
    /// The package.
    pub package: Vec<u8>,
}

/// A change, decided by the rules.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// The organisation's key, once.
    Organisation(PublicKey),
    /// A new or changed person.
    Person(Box<PersonRow>),
    /// A new or changed device.
    Device(Box<DeviceRow>),
    /// A statement about a person is told from now on.
    Told(Box<ToldRow>),
    /// The instance of a device that is admitted from now on.
    Instance {
        /// Which device.
        device: DeviceId,
        /// Which copy of it.
        instance: Instance,
    },
    /// A new or changed invite.
    Invite(Box<InviteRow>),
    /// A new mailbox.
    Mailbox {
        /// Which.
        mailbox: MailboxId,
        /// Whose inbox, if it is one.
        inbox_of: Option<DeviceId>,
    },
    /// One more entry; the head, and with a fence the fence, move to `position`.
    Append {
        /// Where.
        mailbox: MailboxId,
        /// The new head.
        position: Position,
        /// Whether it is a fence.
        fence: bool,
        /// Whether it is a fence or was posted with one: kept until everyone has it.
        kept: bool,
        /// The hash of the envelope.
        digest: Digest,
        /// The envelope.
        envelope: Bytes,
        /// When the body may go.
        expires: Timestamp,
        /// Who posted it.
        by: DeviceId,
    },
    /// An envelope waits in an inbox, until its device acknowledges it.
    Waiting {
        /// Which inbox.
        inbox: MailboxId,
        /// Its seq.
        seq: u64,
        /// Who sent it.
        sender: PersonId,
        /// Whether it may use the reserve of attorneys and staff.
        reserved: bool,
    },
    /// An interval that is open; one that began at the same seq is replaced.
    Grant {
        /// Where.
        mailbox: MailboxId,
        /// What.
        grant: GrantRow,
    },
    /// A device's open interval ends.
    EndGrant {
        /// Where.
        mailbox: MailboxId,
        /// Whose.
        device: DeviceId,
        /// The last seq in it.
        until: u64,
    },
    /// A device has everything up to here; less than before changes nothing.
    Ack {
        /// Where.
        mailbox: MailboxId,
        /// Who.
        device: DeviceId,
        /// Up to which seq.
        upto: u64,
    },
    /// An accepted Post; those below `keep_from` are forgotten.
    Idem {
        /// Whose.
        device: DeviceId,
        /// What.
        row: IdemRow,
        /// The lowest idem to keep.
        keep_from: u64,
    },
    /// A Post that was refused; it replaces the one noted before.
    Received {
        /// Whose.
        device: DeviceId,
        /// What.
        row: ReceivedRow,
    },
    /// A key package; a last-resort one replaces the one before.
    KeyPackage {
        /// Whose.
        device: DeviceId,
        /// Whether it is the last resort.
        last_resort: bool,
        /// The package.
        package: Vec<u8>,
    },
    /// A single-use key package is gone.
    DropKeyPackage {
        /// Whose.
        device: DeviceId,
        /// The store's number for it.
        number: u64,
    },
    /// All key packages of a device are gone, the last-resort one too.
    DropKeyPackages {
        /// Whose.
        device: DeviceId,
    },
    /// The audit log has one more leaf.
    Log {
        /// Whom it is about; none for the relay itself.
        person: Option<PersonId>,
        /// What happened.
        event: Event,
    },
    /// The configuration and version that the log has named last.
    Configuration(Digest),
    /// The newest statement of the relay's for a new key that the log has named.
    Rotation(Digest),
}

/// What the rules ask.
pub trait Read {
    /// The organisation's key.
    fn organisation(&self) -> Result<Option<PublicKey>, StoreError>;
    /// A person.
    fn person(&self, person: PersonId) -> Result<Option<PersonRow>, StoreError>;
    /// Who has a handle with this skeleton.
    fn handle_owner(&self, skeleton: &str) -> Result<Option<PersonId>, StoreError>;
    /// Everybody, by handle.
    fn people(&self) -> Result<Vec<PersonRow>, StoreError>;
    /// A device.
    fn device(&self, device: DeviceId) -> Result<Option<DeviceRow>, StoreError>;
    /// The instance of a device that is admitted.
    fn instance(&self, device: DeviceId) -> Result<Option<Instance>, StoreError>;
    /// A person's devices.
    fn devices_of(&self, person: PersonId) -> Result<Vec<DeviceRow>, StoreError>;
    /// What is told of people behind a number, by number; of one person alone, or of all.
    fn told(&self, of: Option<PersonId>, after: u64, limit: usize) -> Result<Vec<ToldRow>, StoreError>;
    /// The newest number of what is told of people; 0 before the first.
    fn newest_told(&self) -> Result<u64, StoreError>;
    /// An invite.
    fn invite(&self, invite: InviteId) -> Result<Option<InviteRow>, StoreError>;
    /// Somebody's invites, those that end last first; at most `limit`.
    fn invites_of(&self, inviter: PersonId, limit: usize) -> Result<Vec<InviteRow>, StoreError>;
    /// How many unused, unexpired invites somebody has open.
    fn open_invites(&self, inviter: PersonId, now: Timestamp) -> Result<usize, StoreError>;
    /// A mailbox.
    fn mailbox(&self, mailbox: MailboxId) -> Result<Option<MailboxRow>, StoreError>;
    /// The position after an entry; the start for seq 0.
    fn position(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Position>, StoreError>;
    /// The position after an entry that is a fence; the start for seq 0.
    fn fence(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Position>, StoreError>;
    /// Entries after `after`, up to and with `until`, in order, while they fit into `bytes`, at least one if there is one.
    fn entries(&self, mailbox: MailboxId, after: u64, until: u64, bytes: usize) -> Result<Vec<Entry>, StoreError>;
    /// A device's intervals in a mailbox, oldest first.
    fn grants(&self, mailbox: MailboxId, device: DeviceId) -> Result<Vec<GrantRow>, StoreError>;
    /// All open intervals of a mailbox, by device.
    fn open_grants(&self, mailbox: MailboxId) -> Result<Vec<GrantRow>, StoreError>;
    /// How much waits in an inbox, and how much of it from `sender`.
    fn waiting(&self, inbox: MailboxId, sender: PersonId) -> Result<Waiting, StoreError>;
    /// Whether the two people have devices with open intervals in one mailbox.
    fn share_mailbox(&self, one: PersonId, other: PersonId) -> Result<bool, StoreError>;
    /// What a device has acknowledged.
    fn acked(&self, mailbox: MailboxId, device: DeviceId) -> Result<u64, StoreError>;
    /// A remembered Post.
    fn idem(&self, device: DeviceId, idem: u64) -> Result<Option<IdemRow>, StoreError>;
    /// The newest remembered Post.
    fn newest_idem(&self, device: DeviceId) -> Result<Option<IdemRow>, StoreError>;
    /// The refused Post that was noted last.
    fn received(&self, device: DeviceId) -> Result<Option<ReceivedRow>, StoreError>;
    /// The oldest single-use key package, or the last-resort one.
    fn key_package(&self, device: DeviceId) -> Result<Option<KeyPackageRow>, StoreError>;
    /// The last-resort key package.
    fn last_resort(&self, device: DeviceId) -> Result<Option<Vec<u8>>, StoreError>;
    /// How many single-use key packages are left.
    fn key_packages_left(&self, device: DeviceId) -> Result<u32, StoreError>;
    /// Invites that have expired unused, and of which the log does not say so; at most `limit`.
    fn overdue_invites(&self, now: Timestamp, limit: usize) -> Result<Vec<InviteRow>, StoreError>;
    /// The configuration and version that the log has named last.
    fn configuration(&self) -> Result<Option<Digest>, StoreError>;
    /// The newest statement of the relay's for a new key that the log has named.
    fn rotation(&self) -> Result<Option<Digest>, StoreError>;
    /// How many leaves the audit log has.
    fn log_size(&self) -> Result<u64, StoreError>;
    /// The newest leaf about somebody, or about the relay.
    fn log_last(&self, person: Option<PersonId>) -> Result<Option<Last>, StoreError>;
    /// The leaves from index `from` up to, without, `until`.
    fn log_rows(&self, from: u64, until: u64) -> Result<Vec<LogRow>, StoreError>;
    /// Leaves about a person after the number `after` and below the index `size`, in order, at most `limit`.
    fn log_of(&self, person: PersonId, after: u64, size: u64, limit: usize) -> Result<Vec<LogRow>, StoreError>;
    /// Hashes of the log's tree, as [`Tiles`](privity_protocol::log::tree::Tiles) has them.
    fn log_hashes(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, StoreError>;
}

/// A view of what has been committed.
pub trait Reader: Read + Send {
    /// From here to [`Self::release`], all answers are of one moment: that of the first.
    fn hold(&mut self) -> Result<(), StoreError>;
    /// Answers are of the moment of each again.
    fn release(&mut self) -> Result<(), StoreError>;
}

/// Opens one more view of what has been committed.
pub type OpenReader = Box<dyn Fn() -> Result<Box<dyn Reader>, StoreError> + Send + Sync>;

/// A store.
pub trait Store: Read + Send {
    /// Begins a transaction; a no-op inside one.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Applies one request's writes inside the transaction.
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError>;
    /// Makes everything applied since [`Self::begin`] durable.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Folds what the store keeps beside its main file into it, as before an orderly end.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Undoes everything applied since [`Self::begin`].
    fn rollback(&mut self) -> Result<(), StoreError>;
    /// This store as the rules read it.
    fn as_read(&self) -> &dyn Read;
    /// Opens other views, of what has been committed.
    fn readers(&self) -> OpenReader;
    /// Drops the bodies of at most `limit` expired entries; returns how many. What is [kept](Write::Append) stays while the inbox's
    /// device, or one whose open interval began before it, has not acknowledged it.
    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<usize, StoreError>;
    /// Changes when the store is restored from a backup.
    fn incarnation(&self) -> [u8; 16];
}
