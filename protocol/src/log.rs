//! The audit log: what a relay did with people, devices and rosters, in a Merkle tree that it can't change later (RFC 9162).
//!
//! 1. An [`Event`] is what happened. The relay makes an [`Opening`] of it, with a random salt, and a [`Leaf`] that commits to it.
//! 2. Leaves stand in the order of the actions. [`tree`] proves that one is among them, and that a log has only grown.
//! 3. A [`Checkpoint`] says how many there are and what their root is, signed by the relay with Ed25519 and ML-DSA-44 ([`note`]).
//! 4. [`bundle`] verifies a whole log offline.
//!
//! A leaf shows whom it is about by their random id, counts their events, and names the one before by its hash: so owners recognise what
//! was done in their name, and miss nothing. Everything else is in the opening, which the relay shows to those who may see that person.
//!
//! Invariant: one event and salt have one leaf, one leaf one encoding, and nobody reads an event out of a leaf without its opening.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::{Error, Malformed, PeerMisbehaved};
use crate::frame::Rights;
use crate::identity::Role;
use crate::ids::{DeviceId, InviteId, MailboxId, PersonId, Timestamp};
use crate::suite::{self, Digest};

pub mod bundle;
mod keys;
pub mod note;
pub mod tree;

pub use note::{Checkpoint, LogKeys, Verifier};
pub use tree::TreeHash;

/// The version of leaves.
pub const LEAF_VERSION: u8 = 1;
/// Bytes of an opening's salt.
pub const SALT_LEN: usize = 32;

/// An entry of the log, as everybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Leaf {
    /// [`LEAF_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Whom it is about; none for the relay itself.
    #[n(1)]
    pub person: Option<PersonId>,
    /// The how-manieth of theirs it is, from 1.
    #[n(2)]
    pub number: u64,
    /// The hash of the leaf of theirs before it; none in the first.
    #[n(3)]
    pub previous: Option<TreeHash>,
    /// `H("privity/1 event" ‖ 0x00 ‖ salt ‖ event)`.
    #[n(4)]
    pub commitment: Digest,
}

impl Leaf {
    /// The leaf of an event after the last one of the same person.
    pub fn after(last: Option<&Last>, person: Option<PersonId>, opening: &Opening) -> Self {
        Self {
            version: LEAF_VERSION,
            person,
            number: last.map_or(0, |last| last.number).saturating_add(1),
            previous: last.map(|last| last.hash),
            commitment: opening.commitment(),
        }
    }

    /// The bytes that stand in the log.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The leaf that `bytes` are.
    ///
    /// # Errors
    /// [`Malformed`] if they are none of this version, or not written in the one way.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let leaf: Self = cbor::decode(bytes, "leaf")?;
        let written_so = leaf.version == LEAF_VERSION && leaf.number > 0 && leaf.encode() == bytes;
        if written_so { Ok(leaf) } else { Err(Malformed::Cbor("leaf")) }
    }

    /// Its hash in the tree.
    pub fn hash(&self) -> TreeHash {
        TreeHash::leaf(&self.encode())
    }

    /// What the next leaf of the same person follows.
    pub fn last(&self) -> Last {
        Last { number: self.number, hash: self.hash() }
    }

    /// Whether it comes right after the last one of the same person.
    pub fn follows(&self, last: Option<&Last>) -> bool {
        match last {
            Some(last) => Some(self.number) == last.number.checked_add(1) && self.previous == Some(last.hash),
            None => self.number == 1 && self.previous.is_none(),
        }
    }

    /// The event that this leaf commits to.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Mismatch`] for the opening of another; [`Malformed`] for an event that this version does not know.
    pub fn open(&self, opening: &Opening) -> Result<Event, Error> {
        if opening.commitment() != self.commitment {
            return Err(PeerMisbehaved::Mismatch("the opening of a leaf").into());
        }
        Ok(cbor::decode(&opening.event, "event")?)
    }
}

/// The head of a log as devices tell each other: which log, how many leaves, and their root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LogHead {
    /// The relay's incarnation, which has a log of its own.
    #[n(0)]
    pub incarnation: ByteArray<16>,
    /// How many leaves.
    #[n(1)]
    pub size: u64,
    /// The root of the tree.
    #[n(2)]
    pub root: TreeHash,
}

/// The newest leaf of a person, as the next one names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: TreeHash,
}

/// What a leaf commits to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Opening {
    /// Random, so that nobody finds the event by trying.
    #[n(0)]
    pub salt: ByteArray<SALT_LEN>,
    /// CBOR of the [`Event`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub event: Vec<u8>,
}

impl Opening {
    /// An event with a fresh salt.
    pub fn new(event: &Event) -> Self {
        Self { salt: ByteArray::from(suite::random()), event: cbor::encode(event) }
    }

    fn commitment(&self) -> Digest {
        Digest::of(&[b"privity/1 event\0", &self.salt[..], &self.event])
    }
}

/// What happened, and when by the relay's clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// What.
    #[n(1)]
    pub act: Act,
}

/// What can happen to the one whom a leaf is about, or be done by them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Act {
    /// The relay got its organisation's key.
    #[n(0)]
    Founded {
        /// The hash of the key.
        #[n(0)]
        organisation: Digest,
    },
    /// A person registered.
    #[n(1)]
    Registered {
        /// The hash of the person's key.
        #[n(0)]
        person_key: Digest,
        /// Under which handle.
        #[n(1)]
        handle: String,
        /// As what.
        #[n(2)]
        role: Role,
        /// With which invite.
        #[n(3)]
        invite: InviteId,
    },
    /// A person was endorsed.
    #[n(2)]
    Endorsed {
        /// The hash of the signed endorsement.
        #[n(0)]
        endorsement: Digest,
        /// By whom; none for the organisation's key.
        #[n(1)]
        by: Option<PersonId>,
    },
    /// An endorsement was revoked.
    #[n(3)]
    EndorsementRevoked {
        /// The hash of the signed endorsement.
        #[n(0)]
        endorsement: Digest,
        /// By whom; none for the organisation's key.
        #[n(1)]
        by: Option<PersonId>,
    },
    /// A person has one more device.
    #[n(4)]
    DeviceAdded {
        /// Which.
        #[n(0)]
        device: DeviceId,
        /// The hash of its signed certificate.
        #[n(1)]
        certificate: Digest,
    },
    /// A person has one device less.
    #[n(5)]
    DeviceRevoked {
        /// Which.
        #[n(0)]
        device: DeviceId,
        /// The hash of its signed certificate.
        #[n(1)]
        certificate: Digest,
        /// By whom; none for the person's own key or recovery key.
        #[n(2)]
        by: Option<PersonId>,
    },
    /// A person's key was replaced by their recovery key.
    #[n(6)]
    Recovered {
        /// The hash of the new key.
        #[n(0)]
        person_key: Digest,
        /// The hash of the signed statement.
        #[n(1)]
        statement: Digest,
    },
    /// A person's key was replaced by enrolling them anew.
    #[n(7)]
    Replaced {
        /// The hash of the new key.
        #[n(0)]
        person_key: Digest,
        /// By whom.
        #[n(1)]
        by: PersonId,
    },
    /// The relay's or the organisation's key was replaced.
    #[n(8)]
    KeyRotated {
        /// The hash of the new key.
        #[n(0)]
        key: Digest,
        /// The hash of the statement that the old one signed.
        #[n(1)]
        statement: Digest,
    },
    /// A person, or the relay, made an invite.
    #[n(9)]
    InviteMade {
        /// Which.
        #[n(0)]
        invite: InviteId,
        /// The hash of its signed statement; none for the relay's own.
        #[n(1)]
        statement: Option<Digest>,
        /// Until when it is good.
        #[n(2)]
        expires: Timestamp,
    },
    /// An invite of theirs was used.
    #[n(10)]
    InviteUsed {
        /// Which.
        #[n(0)]
        invite: InviteId,
        /// Who came.
        #[n(1)]
        by: PersonId,
    },
    /// An invite of theirs expired unused.
    #[n(11)]
    InviteExpired {
        /// Which.
        #[n(0)]
        invite: InviteId,
    },
    /// An invite of theirs was cancelled.
    #[n(12)]
    InviteCancelled {
        /// Which.
        #[n(0)]
        invite: InviteId,
    },
    /// Somebody who had an invite of theirs was turned away.
    #[n(13)]
    InviteRefused {
        /// Which.
        #[n(0)]
        invite: InviteId,
        /// Why, in the relay's words.
        #[n(1)]
        why: String,
    },
    /// They made a matter's mailbox.
    #[n(14)]
    MailboxCreated {
        /// Which.
        #[n(0)]
        mailbox: MailboxId,
        /// With which device.
        #[n(1)]
        device: DeviceId,
    },
    /// They changed who may read and post in a matter's mailbox.
    #[n(15)]
    RosterChanged {
        /// Which.
        #[n(0)]
        mailbox: MailboxId,
        /// With which device.
        #[n(1)]
        device: DeviceId,
        /// How, in the order of the parts.
        #[n(2)]
        changes: Vec<RosterChange>,
    },
    /// The relay started with another configuration or version than before.
    #[n(16)]
    Configured {
        /// The hash of its configuration.
        #[n(0)]
        configuration: Digest,
        /// The version of its program.
        #[n(1)]
        version: String,
    },
    /// The relay was backed up.
    #[n(17)]
    BackedUp {
        /// The hash of what it says of itself: who, when, and some random bytes.
        #[n(0)]
        backup: Digest,
    },
    /// The relay went back to a backup: what came after it is in the log of the incarnation before.
    #[n(18)]
    Restored {
        /// The incarnation of the backup.
        #[cbor(n(0), with = "minicbor::bytes")]
        before: [u8; 16],
        /// The new one.
        #[cbor(n(1), with = "minicbor::bytes")]
        incarnation: [u8; 16],
    },
    /// A person was endorsed by somebody who took them in in the place of whoever had invited them.
    #[n(19)]
    Adopted {
        /// The hash of the signed endorsement.
        #[n(0)]
        endorsement: Digest,
        /// By whom.
        #[n(1)]
        by: PersonId,
    },
}

impl Act {
    /// Whether it says who somebody is, so that all who may see the person may read it; the rest is for the person alone.
    pub fn is_identity(&self) -> bool {
        matches!(
            self,
            Self::Founded { .. }
                | Self::Registered { .. }
                | Self::Endorsed { .. }
                | Self::Adopted { .. }
                | Self::EndorsementRevoked { .. }
                | Self::DeviceAdded { .. }
                | Self::DeviceRevoked { .. }
                | Self::Recovered { .. }
                | Self::Replaced { .. }
                | Self::KeyRotated { .. }
        )
    }

    /// Its name, as people and scripts read it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Founded { .. } => "founded",
            Self::Registered { .. } => "registered",
            Self::Endorsed { .. } => "endorsed",
            Self::EndorsementRevoked { .. } => "endorsement-revoked",
            Self::DeviceAdded { .. } => "device-added",
            Self::DeviceRevoked { .. } => "device-revoked",
            Self::Recovered { .. } => "recovered",
            Self::Replaced { .. } => "replaced",
            Self::KeyRotated { .. } => "key-rotated",
            Self::InviteMade { .. } => "invite-made",
            Self::InviteUsed { .. } => "invite-used",
            Self::InviteExpired { .. } => "invite-expired",
            Self::InviteCancelled { .. } => "invite-cancelled",
            Self::InviteRefused { .. } => "invite-refused",
            Self::MailboxCreated { .. } => "mailbox-created",
            Self::RosterChanged { .. } => "roster-changed",
            Self::Configured { .. } => "configured",
            Self::BackedUp { .. } => "backed-up",
            Self::Restored { .. } => "restored",
            Self::Adopted { .. } => "adopted",
        }
    }
}

/// One change of a roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RosterChange {
    /// Whose device.
    #[n(0)]
    pub device: DeviceId,
    /// What it may do from now on; none where its interval has ended.
    #[n(1)]
    pub rights: Option<Rights>,
}

#[cfg(test)]
mod tests;
