//! The link's opening: a device's hello, and the relay's answer; [`crate::link`] makes and checks them.
//!
//! Invariant: what is signed is kept as the bytes that were signed.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::identity::Signed;
use crate::ids::{DeviceId, Timestamp};
use crate::suite::{self, Digest, PublicKey};

/// A device's first frame: its body and an Ed25519 signature over `exporter ‖ body`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Hello {
    /// CBOR of a [`HelloBody`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Under [`crate::suite::Label::HelloDevice`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// What a hello says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HelloBody {
    /// The newest version the device speaks.
    #[n(0)]
    pub newest: u16,
    /// The oldest version it accepts.
    #[n(1)]
    pub lowest: u16,
    /// The device; none for a newcomer who has yet to register.
    #[n(2)]
    pub device: Option<DeviceId>,
    /// The link key: its ML-DSA-65 half must be the key of the TLS connection.
    #[n(3)]
    pub link_key: PublicKey,
    /// The software, for the operator's log; at most 64 bytes.
    #[n(4)]
    pub agent: String,
    /// Which copy of the profile this is; none for a newcomer.
    #[n(5)]
    pub instance: Option<Instance>,
}

/// Which copy of a profile a device is. A copy that finds out that it is one takes the next number, and the relay admits no
/// older one any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Instance {
    /// 0 in a new profile, one more in each copy that takes over.
    #[n(0)]
    pub number: u64,
    /// Random, so that two copies that take the same number are told apart.
    #[n(1)]
    pub nonce: ByteArray<16>,
}

impl Instance {
    /// The instance of a new profile, or the one that takes over from `before`.
    pub fn after(before: Option<Self>) -> Self {
        let number = before.map_or(0, |before| before.number.saturating_add(1));
        Self { number, nonce: ByteArray::from(suite::random::<16>()) }
    }
}

/// The relay's answer to a hello: its body and an Ed25519 signature over `exporter ‖ body`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Admitted {
    /// CBOR of an [`AdmittedBody`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Under [`crate::suite::Label::HelloRelay`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// What the relay tells a device that it admits.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AdmittedBody {
    /// The version both speak from here on.
    #[n(0)]
    pub version: u16,
    /// The relay's key: its ML-DSA-65 half must be the key of the TLS connection.
    #[n(1)]
    pub relay_key: PublicKey,
    /// Changes when the relay is restored from a backup; positions belong to one.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub incarnation: [u8; 16],
    /// The relay's clock.
    #[n(3)]
    pub now: Timestamp,
    /// The newest idem that came from this device, accepted or refused, with the device's own MAC.
    #[n(4)]
    pub idem: Option<AcceptedIdem>,
    /// Single-use key packages left.
    #[n(5)]
    pub key_packages: u32,
    /// Whether the device's person is endorsed.
    #[n(6)]
    pub ready: bool,
    /// The organisation's key, once there is one.
    #[n(7)]
    pub organisation: Option<PublicKey>,
    /// The firm's name, as its IT configured it.
    #[n(8)]
    pub firm: String,
    /// The relay's key has been replaced: [`crate::rotation::RelayRotation`]s from this one on, at most
    /// [`limits::ROTATIONS_MAX`](crate::limits::ROTATIONS_MAX).
    #[cbor(n(60), default, skip_if = "Vec::is_empty")]
    pub rotations: Vec<Signed>,
}

/// An idem that came, as the relay keeps it, unread.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AcceptedIdem {
    /// The counter.
    #[n(0)]
    pub idem: u64,
    /// The hash of the Post's parts.
    #[n(1)]
    pub parts: Digest,
    /// The device's MAC over both.
    #[n(2)]
    pub mac: Digest,
}
