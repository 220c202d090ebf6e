//! What a device keeps of what the relay's audit log says of somebody.
//!
//! Invariant: only leaves that are in the log, without a gap from the first one, are kept here.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::log::{Act, Last, TreeHash};

/// What the log of one incarnation says of somebody, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Logged {
    /// The incarnation, which has a log of its own.
    #[n(0)]
    pub incarnation: ByteArray<16>,
    /// The last leaf that was read, by its number and hash.
    #[n(1)]
    pub read: Option<(u64, TreeHash)>,
    /// Of which size the log was when it was read to its end.
    #[n(2)]
    pub size: u64,
    /// What says who they are, each with its place in the log.
    #[n(3)]
    pub acts: Vec<(u64, Act)>,
    /// What no statement has explained that this device was told.
    #[n(4)]
    pub doubts: Vec<Doubt>,
}

/// Something that the log says of somebody, and that nothing this device was told explains.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Doubt {
    /// What.
    #[n(0)]
    pub act: Act,
    /// Whether the relay was asked for the statement, and has none.
    #[n(1)]
    pub told: bool,
}

impl Logged {
    /// Nothing was read yet.
    pub(in crate::device) fn of(incarnation: [u8; 16]) -> Self {
        Self { incarnation: incarnation.into(), read: None, size: 0, acts: Vec::new(), doubts: Vec::new() }
    }

    /// What the next leaf follows.
    pub(in crate::device) fn last(&self) -> Option<Last> {
        self.read.map(|(number, hash)| Last { number, hash })
    }
}
