//! What a device keeps of devices that were revoked.
//!
//! Invariant: only statements whose author was verified up to the organisation's key are kept.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::identity::{DeviceRevocation, Signed};

/// A device that is nobody's any more, as a verified statement says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revoked {
    /// What it says.
    #[n(0)]
    pub said: DeviceRevocation,
    /// The statement.
    #[n(1)]
    pub statement: Signed,
    /// The incarnation of the relay in which it was learnt; none of one from before this was kept.
    #[n(90)]
    pub under: Option<ByteArray<16>>,
}

/// Up to which number revocations were told, and by which incarnation of the relay: numbers belong to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(in crate::device) struct RevocationsTold {
    /// The incarnation.
    #[n(0)]
    pub(in crate::device) incarnation: ByteArray<16>,
    /// The number.
    #[n(1)]
    pub(in crate::device) upto: u64,
}
