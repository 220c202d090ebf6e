//! What a device keeps of the other devices of its person: notes to them, notes of them that wait, and what they are called.
//!
//! Invariant: a note stays until the relay has it, and is sealed anew for each Post that carries it.

use minicbor::{Decode, Encode};

use crate::identity::Signed;
use crate::ids::{DeviceId, Timestamp};
use crate::secret::Secret;

/// A note that the relay does not have yet. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct OutNote {
    /// To which device.
    #[n(0)]
    pub to: DeviceId,
    /// Of which kind.
    #[n(1)]
    pub kind: u32,
    /// What it says, encoded.
    #[n(2)]
    pub body: Secret,
    /// Whether a Post carries it.
    #[n(3)]
    #[cbor(default)]
    pub sealed: bool,
}

/// A note that was opened, and whose author's certificate is not known here yet.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct HeldNote {
    /// As it was signed.
    #[n(0)]
    pub note: Signed,
}

/// Another device of the same person, or this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OwnDevice {
    /// What its person calls it.
    #[n(0)]
    pub name: Option<String>,
    /// When that was said.
    #[n(1)]
    #[cbor(default)]
    pub named: Timestamp,
    /// Whether this device has told it what there was to know when it was linked.
    #[n(2)]
    #[cbor(default)]
    pub greeted: bool,
}
