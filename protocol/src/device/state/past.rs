//! What a matter has left behind: the mailbox it came from, envelopes that have gone, and this device's own removal.
//!
//! Invariant: nothing here is a secret; it is kept to judge what is shown later.

use minicbor::{Decode, Encode};

use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Position, Timestamp};
use crate::suite::Digest;

/// An envelope of which the relay gives the hash alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Withheld {
    /// The hash.
    #[n(0)]
    pub digest: Digest,
    /// The position before it.
    #[n(1)]
    pub before: Position,
}

/// Where a matter was continued from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Old {
    /// The mailbox.
    #[n(0)]
    pub mailbox: MailboxId,
    /// The MLS group.
    #[n(1)]
    pub group: MatterId,
    /// The last position read there.
    #[n(2)]
    pub position: Position,
    /// The epoch at which it was continued.
    #[n(3)]
    pub epoch: u64,
    /// Who managed it then.
    #[n(4)]
    pub managers: Vec<PersonId>,
    /// The last fence read there.
    #[n(5)]
    pub fence: Position,
    /// The turn of the statement that was followed.
    #[n(6)]
    pub turn: u32,
    /// Whom that statement takes over.
    #[n(7)]
    pub listed: Vec<PersonId>,
    /// Whether the relay has forgotten it.
    #[n(8)]
    pub gone: bool,
    /// The mailbox in which that statement continues the matter.
    #[n(9)]
    pub next: MailboxId,
    /// Whether that statement stands in the mailbox.
    #[n(10)]
    pub stands: bool,
}

/// A removal of this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Removal {
    /// By which device.
    #[n(0)]
    pub by: DeviceId,
    /// When it was read, by this device's clock.
    #[n(1)]
    pub at: Timestamp,
}
