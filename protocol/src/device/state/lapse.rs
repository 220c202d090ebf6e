//! What a device keeps of endorsements that were withdrawn, and of people in matters for whom nobody vouches any more.
//!
//! Invariant: only statements whose author was verified up to the organisation's key are kept.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::identity::{EndorsementRevocation, Signed};
use crate::ids::PersonId;
use crate::limits;
use crate::suite::Digest;

/// A person whose endorsement was withdrawn, as the newest verified statement says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Withdrawn {
    /// What it says.
    #[n(0)]
    pub said: EndorsementRevocation,
    /// The statement.
    #[n(1)]
    pub statement: Signed,
    /// The hashes of endorsements that other statements took back.
    #[n(2)]
    pub past: Vec<Digest>,
    /// The incarnation of the relay in which it was learnt; none of one from before this was kept.
    #[n(90)]
    pub under: Option<ByteArray<16>>,
}

impl Withdrawn {
    /// With another statement about the same person: the later one counts.
    pub(in crate::device) fn with(mut self, said: EndorsementRevocation, statement: Signed) -> Self {
        let older = if said.at > self.said.at {
            let older = self.said.endorsement;
            (self.said, self.statement) = (said, statement);
            older
        } else {
            said.endorsement
        };
        if older != self.said.endorsement && !self.past.contains(&older) {
            self.past.push(older);
            let surplus = self.past.len().saturating_sub(limits::PAST_KEYS);
            self.past.drain(..surplus);
        }
        self
    }

    /// Whether a statement took that endorsement back.
    pub fn takes_back(&self, endorsement: Digest) -> bool {
        self.said.endorsement == endorsement || self.past.contains(&endorsement)
    }
}

/// Why texts wait for the user's word where somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// Their endorsement was withdrawn, by the statement with this hash.
    #[n(0)]
    Withdrawn(#[n(0)] Digest),
    /// Their endorsement with this hash has ended, and nobody has renewed it.
    #[n(1)]
    Expired(#[n(0)] Digest),
    /// The audit log says something of them, with this hash, that the relay keeps back.
    #[n(2)]
    KeptBack(#[n(0)] Digest),
}

/// Somebody in a matter for whom nobody vouches any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lapse {
    /// Who.
    #[n(0)]
    pub person: PersonId,
    /// Why.
    #[n(1)]
    pub cause: Cause,
    /// Whether the user has said to go on nevertheless.
    #[n(2)]
    pub accepted: bool,
}
