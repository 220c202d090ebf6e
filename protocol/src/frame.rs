//! Frames: what a device and the relay say to each other on a link, CBOR (RFC 8949), each behind its length.
//!
//! 1. The device sends a [`Hello`], the relay answers [`FromRelay::Admitted`] or [`FromRelay::Refused`].
//! 2. From then on the device sends [`Request`]s, each with a number of its own; every one gets one [`FromRelay::Reply`].
//! 3. Between replies the relay sends [`Event`]s.
//!
//! Invariant: no frame is larger than [`limits::FRAME_MAX`], none before admission larger than [`limits::HELLO_MAX`].

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::{Malformed, Refused};
use crate::identity::{Identity, Role, Signed};
use crate::ids::{DeviceId, InviteId, MailboxId, PersonId, Position};
use crate::invite::InviteState;
use crate::limits;
use crate::log::{LogKeys, Opening, TreeHash};
use crate::suite::Digest;

mod adoption;
mod hello;
mod joining;
mod recovery;

pub use adoption::AdoptionView;
pub use hello::{AcceptedIdem, Admitted, AdmittedBody, Hello, HelloBody, Instance};
pub use joining::{DeviceRegistration, Founding, InviteView, NewInvite, Registration};
pub use recovery::{NewKey, Recovery, RecoveryFiling, RecoveryView};

/// The protocol on the wire, as TLS negotiates it (RFC 7301).
pub const ALPN: &[u8] = b"privity/1";
/// The newest version this crate speaks.
pub const VERSION: u16 = 1;
/// The oldest version this crate accepts.
pub const VERSION_LOWEST: u16 = 1;
/// Bytes of the length before each frame, big-endian.
pub const LENGTH_LEN: usize = 4;

/// The frame with its length in front.
///
/// # Errors
/// [`Malformed::TooLarge`] above [`limits::FRAME_MAX`].
pub fn to_wire<T: Encode<()>>(frame: &T) -> Result<Vec<u8>, Malformed> {
    let body = cbor::encode(frame);
    let too_large = Malformed::TooLarge { what: "frame", limit: limits::FRAME_MAX };
    if body.len() > limits::FRAME_MAX {
        return Err(too_large);
    }
    let length = u32::try_from(body.len()).map_err(|_| too_large)?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

/// The length that a frame's first four bytes announce, if it is at most `limit`.
///
/// # Errors
/// [`Malformed::TooLarge`] above `limit`.
pub fn announced(length: [u8; LENGTH_LEN], limit: usize) -> Result<usize, Malformed> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit { Err(Malformed::TooLarge { what: "frame", limit }) } else { Ok(length) }
}

/// A frame from a device after its hello.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ToRelay {
    /// The device's number for it; the reply carries it back.
    #[n(0)]
    pub id: u64,
    /// What is asked.
    #[n(1)]
    pub request: Request,
}

/// What a device may ask.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Request {
    /// A newcomer proves the invite and asks what it says.
    #[n(0)]
    OpenInvite {
        /// The invite.
        #[n(0)]
        invite: InviteId,
        /// Its token.
        #[cbor(n(1), with = "minicbor::bytes")]
        token: [u8; 32],
    },
    /// A newcomer registers.
    #[n(1)]
    Register(#[n(0)] Box<Registration>),
    /// The one write to mailboxes.
    #[n(2)]
    Post(#[n(0)] Post),
    /// Stream a mailbox from here on. Without a position: from where this device's grant begins.
    #[n(3)]
    Subscribe {
        /// Which mailbox.
        #[n(0)]
        mailbox: MailboxId,
        /// The last position read.
        #[n(1)]
        after: Option<Position>,
    },
    /// Everything up to here is durable on the device. Cumulative.
    #[n(4)]
    Ack {
        /// Which mailbox.
        #[n(0)]
        mailbox: MailboxId,
        /// The seq.
        #[n(1)]
        upto: u64,
    },
    /// Add key packages.
    #[n(5)]
    PublishKeyPackages {
        /// Single-use ones.
        #[n(0)]
        single_use: Vec<Blob>,
        /// Replaces the last-resort one.
        #[n(1)]
        last_resort: Option<Blob>,
    },
    /// Take one key package of each device of a person, or of one device alone.
    #[n(6)]
    TakeKeyPackages {
        /// Whose.
        #[n(0)]
        person: PersonId,
        /// Which device's, if not every one's.
        #[n(1)]
        device: Option<DeviceId>,
    },
    /// Whom this device may see.
    #[n(7)]
    People,
    /// A person and the chain above them.
    #[n(8)]
    Chain {
        /// Who.
        #[n(0)]
        person: PersonId,
    },
    /// File an invite.
    #[n(9)]
    Invite(#[n(0)] NewInvite),
    /// Newcomers whom this device may endorse.
    #[n(10)]
    Newcomers,
    /// Endorse a newcomer.
    #[n(11)]
    Endorse {
        /// Who.
        #[n(0)]
        person: PersonId,
        /// The endorsement.
        #[n(1)]
        endorsement: Signed,
    },
    /// Who may do what in a mailbox, and from where to where; for those who are in it.
    #[n(12)]
    Roster {
        /// Which mailbox.
        #[n(0)]
        mailbox: MailboxId,
    },
    /// A checkpoint of the audit log, as it is now.
    #[n(13)]
    Checkpoint,
    /// The proof that the log has only grown from one size to another.
    #[n(14)]
    Consistency {
        /// The lesser size.
        #[n(0)]
        from: u64,
        /// The greater.
        #[n(1)]
        to: u64,
    },
    /// What the log says of a person whom this device may see, in the order of their numbers, [`limits::HISTORY_MAX`] at once.
    #[n(15)]
    History {
        /// Of whom.
        #[n(0)]
        person: PersonId,
        /// After which number of theirs; 0 for all.
        #[n(1)]
        after: u64,
        /// Of which size the log is to be, for the proofs.
        #[n(2)]
        size: u64,
    },
    /// The invites of this person, and what became of each.
    #[n(20)]
    Invites,
    /// Cancel an own invite that nobody has used.
    #[n(21)]
    CancelInvite {
        /// Which.
        #[n(0)]
        invite: InviteId,
    },
    /// Whose endorsements this person may renew by now.
    #[n(22)]
    Renewals,
    /// Newcomers whom this person may take in, whoever has invited them.
    #[n(50)]
    Adoptable,
    /// A new device of a person registers, with an invite that one of the person's devices made.
    #[n(30)]
    RegisterDevice(#[n(0)] Box<DeviceRegistration>),
    /// Devices of this person that wait to be certified.
    #[n(31)]
    WaitingDevices,
    /// The person's key certifies a device that waits.
    #[n(32)]
    CertifyDevice {
        /// Its certificate, signed.
        #[n(0)]
        certificate: Signed,
        /// What it needs to know, sealed under the invite.
        #[n(1)]
        pack: Blob,
    },
    /// A device that waited asks whether it is certified by now.
    #[n(33)]
    Certified,
    /// It keeps its certificate and pack now; the relay need not.
    #[n(34)]
    Linked,
    /// Revoke a device.
    #[n(35)]
    RevokeDevice {
        /// A [`crate::identity::DeviceRevocation`].
        #[n(0)]
        revocation: Signed,
    },
    /// Statements about people whom this device may see, beyond those told before: devices revoked, endorsements withdrawn.
    #[n(36)]
    Revocations {
        /// The number up to which they were told.
        #[n(0)]
        after: u64,
    },
    /// File a recovery sheet; it takes the place of the one before.
    #[n(40)]
    SetRecovery(#[n(0)] Box<RecoveryFiling>),
    /// The holder of a sheet asks what it needs to know.
    #[n(41)]
    OpenRecovery {
        /// The person's handle.
        #[n(0)]
        handle: String,
        /// The sheet's token.
        #[cbor(n(1), with = "minicbor::bytes")]
        token: [u8; 32],
    },
    /// The holder of a sheet replaces the person's key.
    #[n(42)]
    Recover(#[n(0)] Box<Recovery>),
    /// A person replaces their key themselves.
    #[n(43)]
    ReplaceKey(#[n(0)] Box<NewKey>),
    /// Take somebody's endorsement back.
    #[n(70)]
    WithdrawEndorsement {
        /// An [`crate::identity::EndorsementRevocation`].
        #[n(0)]
        revocation: Signed,
    },
    /// Such statements about one person alone: whoever has not been allowed to see them for long may have missed some.
    #[n(71)]
    StatementsAbout {
        /// Who.
        #[n(0)]
        person: PersonId,
        /// The number behind which to begin; 0 for all.
        #[n(1)]
        after: u64,
    },
    /// One of the newcomers whom this person may take in, with what their inviter has said of them.
    #[n(80)]
    Adoption {
        /// Who.
        #[n(0)]
        person: PersonId,
    },
}

/// Opaque bytes.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Blob(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// One atomic write: all of its parts, or none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Post {
    /// A counter of the device's; the same one is accepted once.
    #[n(0)]
    pub idem: u64,
    /// The device's MAC over idem and the hash of the parts, which only its vault can make.
    #[n(1)]
    pub mac: Digest,
    /// What to do, in order.
    #[n(2)]
    pub parts: Vec<Part>,
}

impl Post {
    /// The hash of the parts, as MAC and relay take it.
    pub fn parts_digest(parts: &[Part]) -> Digest {
        Digest::of(&[b"privity/1 parts\0", &cbor::encode(&parts)])
    }

    /// The hash of the parts that change rosters, as a Commit authenticates it.
    pub fn roster_digest(parts: &[Part]) -> Digest {
        let roster: Vec<&Part> =
            parts.iter().filter(|part| matches!(part, Part::Grant { .. } | Part::Revoke { .. })).collect();
        Digest::of(&[b"privity/1 roster\0", &cbor::encode(&roster)])
    }
}

/// A part of a [`Post`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Part {
    /// A new mailbox, with the poster as manager.
    #[n(0)]
    Create {
        /// Its id, random.
        #[n(0)]
        mailbox: MailboxId,
    },
    /// One more envelope.
    #[n(1)]
    Append {
        /// Where.
        #[n(0)]
        mailbox: MailboxId,
        /// The position of the last fence the poster has read; seq 0 where there is none yet.
        #[n(1)]
        base: Position,
        /// Whether it carries a Commit.
        #[n(2)]
        fence: bool,
        /// The envelope.
        #[n(3)]
        envelope: Blob,
        /// How long the relay keeps it, milliseconds from now; at most [`limits::ENVELOPE_LIFETIME_MS`].
        #[n(4)]
        keep_ms: u64,
    },
    /// Somebody's device may read, post or manage from here on.
    #[n(2)]
    Grant {
        /// Where.
        #[n(0)]
        mailbox: MailboxId,
        /// Who.
        #[n(1)]
        device: DeviceId,
        /// What.
        #[n(2)]
        rights: Rights,
        /// The device's last interval goes on where it ended, as if it never had: how a roster is corrected.
        #[n(3)]
        #[cbor(default)]
        resume: bool,
    },
    /// A device may no longer do anything.
    #[n(3)]
    Revoke {
        /// Where.
        #[n(0)]
        mailbox: MailboxId,
        /// Who.
        #[n(1)]
        device: DeviceId,
    },
}

/// What a device may do with a mailbox, as bits: 1 read, 2 post, 4 manage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Rights(#[n(0)] pub u8);

impl Rights {
    /// Read.
    pub const READ: Self = Self(1);
    /// Read and post.
    pub const MEMBER: Self = Self(3);
    /// Read, post and manage.
    pub const MANAGER: Self = Self(7);

    /// Whether these rights include all of `other`.
    pub fn include(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A frame from the relay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum FromRelay {
    /// The device is admitted; nothing before this frame means anything.
    #[n(0)]
    Admitted(#[n(0)] Admitted),
    /// The link is refused and closes.
    #[n(1)]
    Refused(#[n(0)] Refused),
    /// The answer to a request.
    #[n(2)]
    Reply {
        /// The request's number.
        #[n(0)]
        id: u64,
        /// The answer.
        #[n(1)]
        reply: Reply,
    },
    /// Something happened.
    #[n(3)]
    Event(#[n(0)] Event),
}

/// The answer to a request. What it acknowledges is durable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Reply {
    /// No.
    #[n(0)]
    Refused(#[n(0)] Refused),
    /// Done; nothing to say.
    #[n(1)]
    Done,
    /// What the invite says.
    #[n(2)]
    Invite(#[n(0)] Box<InviteView>),
    /// Posted: the seq of each Append, in order.
    #[n(3)]
    Posted {
        /// One for each Append part.
        #[n(0)]
        seqs: Vec<u64>,
    },
    /// Subscribed: entries after `start` follow as events, and at this moment the mailbox ends at `head`.
    #[n(4)]
    Subscribed {
        /// Where reading begins for this device.
        #[n(0)]
        start: Position,
        /// The seq of the newest entry the device may read.
        #[n(1)]
        head: u64,
    },
    /// Key packages, one for each device.
    #[n(5)]
    KeyPackages {
        /// The packages.
        #[n(0)]
        packages: Vec<TakenKeyPackage>,
    },
    /// People.
    #[n(6)]
    People {
        /// Sorted by handle.
        #[n(0)]
        people: Vec<PersonView>,
    },
    /// A person and the chain above them, up to one whom the organisation endorses.
    #[n(7)]
    Chain {
        /// The chain, the person first.
        #[n(0)]
        chain: Vec<Identity>,
    },
    /// Newcomers to endorse.
    #[n(8)]
    Newcomers {
        /// Their registrations.
        #[n(0)]
        newcomers: Vec<Registration>,
    },
    /// A mailbox's roster.
    #[n(9)]
    Roster {
        /// Every open interval, sorted by device.
        #[n(0)]
        grants: Vec<Interval>,
        /// The newest fence at that moment: whoever has read less knows too little to correct anything.
        #[n(1)]
        fence: Position,
    },
    /// A checkpoint of the audit log.
    #[n(10)]
    Checkpoint {
        /// The signed note.
        #[n(0)]
        note: String,
        /// The keys that verify it.
        #[n(1)]
        keys: LogKeys,
    },
    /// A consistency proof (RFC 9162, section 2.1.4).
    #[n(11)]
    Consistency {
        /// The hashes.
        #[n(0)]
        proof: Vec<TreeHash>,
    },
    /// A person's leaves.
    #[n(12)]
    History {
        /// In the order of their numbers, gap-free.
        #[n(0)]
        leaves: Vec<ProvedLeaf>,
        /// Whether more follow the last of them.
        #[n(1)]
        more: bool,
    },
    /// Invites, the newest first.
    #[n(20)]
    Invites {
        /// At most [`limits::INVITES_SHOWN`].
        #[n(0)]
        invites: Vec<InviteState>,
    },
    /// People and the chains above them.
    #[n(21)]
    Chains {
        /// At most [`limits::RENEWALS_AT_ONCE`].
        #[n(0)]
        chains: Vec<Vec<Identity>>,
    },
    /// Newcomers to take in.
    #[n(50)]
    Adoptable {
        /// Their registrations, at most [`limits::ADOPTABLE_MAX`].
        #[n(0)]
        newcomers: Vec<Registration>,
    },
    /// Devices that wait to be certified.
    #[n(30)]
    WaitingDevices {
        /// Their registrations.
        #[n(0)]
        devices: Vec<DeviceRegistration>,
    },
    /// The device is certified.
    #[n(31)]
    Certified {
        /// Its certificate, signed.
        #[n(0)]
        certificate: Signed,
        /// What it needs to know, sealed under the invite.
        #[n(1)]
        pack: Blob,
        /// Its person's chain: their key may have been replaced since the device read the invite.
        #[cbor(n(2), default, skip_if = "Vec::is_empty")]
        chain: Vec<Identity>,
    },
    /// Statements about people, oldest first.
    #[n(32)]
    Revocations {
        /// Devices revoked.
        #[n(0)]
        revocations: Vec<Signed>,
        /// Their authors and the chains above, in any order; of withdrawn endorsements those whom they were of, too.
        #[n(1)]
        identities: Vec<Identity>,
        /// The number up to which they are told now.
        #[n(2)]
        upto: u64,
        /// Whether there are more.
        #[n(3)]
        more: bool,
        /// Endorsements withdrawn.
        #[n(4)]
        #[cbor(default)]
        withdrawn: Vec<Signed>,
        /// People whose key was replaced; their chains are among the identities.
        #[cbor(n(5), default, skip_if = "Vec::is_empty")]
        replaced: Vec<PersonId>,
    },
    /// What the holder of a sheet needs to know.
    #[n(40)]
    Recovery(#[n(0)] Box<RecoveryView>),
    /// A newcomer to take in.
    #[n(80)]
    Adoption(#[n(0)] Box<AdoptionView>),
}

/// A leaf of the audit log, with the proof that it is in it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ProvedLeaf {
    /// Its index in the log.
    #[n(0)]
    pub index: u64,
    /// CBOR of the [`Leaf`](crate::log::Leaf).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub leaf: Vec<u8>,
    /// The inclusion proof (RFC 9162, section 2.1.3) in the log of the size asked for.
    #[n(2)]
    pub proof: Vec<TreeHash>,
    /// What it commits to; none where that is for the person alone.
    #[n(3)]
    pub opening: Option<Opening>,
}

/// An open interval of a roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Interval {
    /// Whose.
    #[n(0)]
    pub device: DeviceId,
    /// What.
    #[n(1)]
    pub rights: Rights,
    /// The last seq before it.
    #[n(2)]
    pub from: u64,
}

/// A key package and the device it came from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TakenKeyPackage {
    /// Whose.
    #[n(0)]
    pub device: DeviceId,
    /// That device's inbox, for the Welcome.
    #[n(1)]
    pub inbox: MailboxId,
    /// The key package, an MLS message (RFC 9420, section 10).
    #[n(2)]
    pub package: Blob,
}

/// A person as the directory shows them: a handle, never a name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PersonView {
    /// Who.
    #[n(0)]
    pub person: PersonId,
    /// Their handle.
    #[n(1)]
    pub handle: String,
    /// Their role.
    #[n(2)]
    pub role: Role,
    /// Whether they are endorsed.
    #[n(3)]
    pub ready: bool,
    /// Who invited them.
    #[n(4)]
    pub inviter: Option<PersonId>,
}

/// Something the relay tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Event {
    /// Entries of a subscribed mailbox, in seq order, gap-free.
    #[n(0)]
    Entries {
        /// Which mailbox.
        #[n(0)]
        mailbox: MailboxId,
        /// The entries.
        #[n(1)]
        entries: Vec<Entry>,
    },
    /// This device's reading of a mailbox has ended here.
    #[n(1)]
    Ended {
        /// Which mailbox.
        #[n(0)]
        mailbox: MailboxId,
    },
    /// A newcomer waits for this device.
    #[n(2)]
    Newcomer,
    /// This device's person has been endorsed.
    #[n(3)]
    Endorsed,
    /// Key packages are running out.
    #[n(4)]
    KeyPackagesLow {
        /// How many single-use ones are left.
        #[n(0)]
        left: u32,
    },
    /// Something about this person's devices has changed: one waits, or was certified.
    #[n(30)]
    Devices,
    /// There is a new statement about somebody whom this device may see: a device of theirs was revoked, or their endorsement withdrawn.
    #[n(31)]
    Revoked,
}

/// An entry of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// Its seq.
    #[n(0)]
    pub seq: u64,
    /// Whether it carries a Commit.
    #[n(1)]
    pub fence: bool,
    /// The envelope, or the hash of one that has expired.
    #[n(2)]
    pub body: EntryBody,
    /// Who posted it, as the relay says: believed for nothing but to name somebody where the envelope itself names nobody.
    #[n(3)]
    pub by: Option<DeviceId>,
}

impl Entry {
    /// The hash of the envelope.
    pub fn digest(&self) -> Digest {
        match &self.body {
            EntryBody::Envelope(envelope) => Digest::of(&[&envelope.0]),
            EntryBody::Expired(digest) => *digest,
        }
    }
}

/// An envelope, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum EntryBody {
    /// The envelope.
    #[n(0)]
    Envelope(#[n(0)] Blob),
    /// The hash of an expired envelope, so that the running hash stays verifiable.
    #[n(1)]
    Expired(#[n(0)] Digest),
}
