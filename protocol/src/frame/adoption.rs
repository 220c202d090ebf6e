//! What the relay shows of a newcomer to whoever may take them in.
//!
//! Invariant: as whom somebody was invited is the inviter's word, with the chain that it is verified by, and never the relay's.

use minicbor::{Decode, Encode};

use super::Registration;
use crate::identity::{Identity, Signed};

/// A newcomer who waits, and as whom they were invited.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AdoptionView {
    /// Their registration.
    #[n(0)]
    pub registration: Registration,
    /// The [`crate::invite::InviteStatement`] of their invite, signed by its inviter's device.
    #[n(1)]
    pub statement: Signed,
    /// The inviter, as they were when that device was theirs, and the chain above.
    #[n(2)]
    pub chain: Vec<Identity>,
}
