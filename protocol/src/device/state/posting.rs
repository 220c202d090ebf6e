//! Posts that wait for the relay's reply, and what each is for.
//!
//! Invariant: what a Post was for is durable with it, so that its reply means the same after any crash.

use minicbor::{Decode, Encode};

use crate::frame::Part;
use crate::ids::{DeviceId, MailboxId, MatterId};
use crate::suite::Digest;

/// A Post whose reply has not come.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct PendingPost {
    /// Its parts.
    #[n(0)]
    pub parts: Vec<Part>,
    /// Which matter; none for what goes into the inbox of another device of the same person.
    #[n(1)]
    pub matter: Option<MatterId>,
    /// What for.
    #[n(2)]
    pub purpose: Purpose,
    /// Whether the relay could not tell if it was accepted: reading the mailbox to its end does.
    #[n(3)]
    #[cbor(default)]
    pub unknown: bool,
}

impl PendingPost {
    pub(in crate::device) fn new(parts: Vec<Part>, matter: MatterId, purpose: Purpose) -> Self {
        Self { parts, matter: Some(matter), purpose, unknown: false }
    }

    /// For the inbox of another device of the same person.
    pub(in crate::device) fn between(parts: Vec<Part>, purpose: Purpose) -> Self {
        Self { parts, matter: None, purpose, unknown: false }
    }

    /// Whether it brings one to this mailbox.
    pub(in crate::device) fn appends_to(&self, to: MailboxId) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Append { mailbox, .. } if *mailbox == to))
    }

    /// How many envelopes it brings.
    pub(in crate::device) fn appends(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Append { .. })).count()
    }
}

/// What a Post is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Purpose {
    /// A new matter's mailbox.
    #[n(0)]
    Open,
    /// A text, by its number in the outbox.
    #[n(1)]
    Text(#[n(0)] u64),
    /// A Commit, by the hash of its envelope.
    #[n(2)]
    Commit(#[n(0)] Digest),
    /// A repair request, by the hash of its envelope.
    #[n(3)]
    Repair(#[n(0)] Digest),
    /// A successor's statement, with its mailbox.
    #[n(4)]
    Successor,
    /// A correction of the roster.
    #[n(5)]
    Roster,
    /// A note to another device, by its number.
    #[n(50)]
    Note(#[n(0)] u64),
    /// A piece of history.
    #[n(51)]
    Piece {
        /// For which device.
        #[n(0)]
        device: DeviceId,
        /// Which piece.
        #[n(1)]
        index: u64,
    },
}
