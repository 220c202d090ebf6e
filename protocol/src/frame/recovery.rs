//! What replaces a person's key: the sheet's filing, who asks with it, and the new key.
//!
//! Invariant: whoever reads these frames can verify that the new key follows the old one, without believing the relay.

use minicbor::{Decode, Encode};

use super::Blob;
use crate::identity::{Identity, Signed, Step};
use crate::ids::MailboxId;
use crate::suite::{Digest, PublicKey};

/// A recovery sheet, as the relay keeps it: one a person, the newest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryFiling {
    /// The hash of the token that the sheet's holder can show.
    #[n(0)]
    pub token_hash: Digest,
    /// The [`RecoveryKey`](crate::identity::RecoveryKey), signed by the person's key.
    #[n(1)]
    pub statement: Signed,
    /// The [`RecoveryNote`](crate::recovery::RecoveryNote), sealed under the sheet's secret.
    #[n(2)]
    pub note: Blob,
}

/// What the relay shows to the holder of a sheet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryView {
    /// The person and the chain above.
    #[n(0)]
    pub chain: Vec<Identity>,
    /// The statement that was filed.
    #[n(1)]
    pub statement: Signed,
    /// The sealed note.
    #[n(2)]
    pub note: Blob,
}

/// A person's key is replaced by their recovery key, on a new device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recovery {
    /// The person's handle.
    #[n(0)]
    pub handle: String,
    /// The sheet's token.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub token: [u8; 32],
    /// The new key.
    #[n(2)]
    pub person_key: PublicKey,
    /// The [`Replacement`](crate::identity::Replacement), signed by the recovery key.
    #[n(3)]
    pub statement: Signed,
    /// The new device's certificate, signed by the new key.
    #[n(4)]
    pub certificate: Signed,
    /// The certificates of the devices that stay, signed by the new key.
    #[n(5)]
    pub stays: Vec<Signed>,
    /// Revocations of every other device, signed by the new key.
    #[n(6)]
    pub revocations: Vec<Signed>,
    /// The new device's inbox.
    #[n(7)]
    pub inbox: MailboxId,
}

/// A person's key is replaced by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NewKey {
    /// The new key.
    #[n(0)]
    pub person_key: PublicKey,
    /// The [`Replacement`](crate::identity::Replacement), signed by the key before.
    #[n(1)]
    pub statement: Signed,
    /// The certificates of the devices in use, which all stay, signed by the new key.
    #[n(2)]
    pub certificates: Vec<Signed>,
    /// The recovery key that was certified before, certified by the new key.
    #[n(3)]
    pub recovery: Option<Signed>,
    /// Where this was done before and the relay, restored, has forgotten it: every step from the key that it shows, the last of them the
    /// statement. At most [`limits::KEY_STEPS_MAX`](crate::limits::KEY_STEPS_MAX).
    #[cbor(n(90), default, skip_if = "Vec::is_empty")]
    pub line: Vec<Step>,
    /// With the line: the revocations of devices of theirs, each by one of those keys or the new one. At most
    /// [`limits::DEVICES_PER_PERSON_MAX`](crate::limits::DEVICES_PER_PERSON_MAX).
    #[cbor(n(91), default, skip_if = "Vec::is_empty")]
    pub revocations: Vec<Signed>,
}
