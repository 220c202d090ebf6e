//! What people compare, and invites pin.

use std::fmt;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

/// The first 32 bytes of the SHA-384 of a hybrid public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Fingerprint(#[n(0)] pub(super) ByteArray<32>);

impl Fingerprint {
    /// The fingerprint with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(ByteArray::from(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    /// In groups of four characters of base32, as people compare it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = crate::ids::base32().encode(self.as_bytes());
        for (index, character) in text.chars().enumerate() {
            if index > 0 && index.is_multiple_of(4) {
                f.write_str(" ")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
