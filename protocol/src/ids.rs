//! Identifiers and the two small values that order everything: time and position.
//!
//! Every id is 128 random bits, or such a hash, written as 26 characters of lowercase base32 without padding (RFC 4648), so that it never
//! begins with a `-` and survives a shell. Invariant: an id's text and bytes convert both ways without loss.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::error::Malformed;
use crate::suite::{self, Digest, PublicKey};

/// The project's base32: lowercase RFC 4648 alphabet, no padding.
pub(crate) fn base32() -> &'static Encoding {
    static ENCODING: std::sync::OnceLock<Encoding> = std::sync::OnceLock::new();
    ENCODING.get_or_init(|| {
        let mut specification = Specification::new();
        specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] ByteArray<16>);

        impl $name {
            /// The id with these bytes.
            pub fn new(bytes: [u8; 16]) -> Self {
                Self(ByteArray::from(bytes))
            }

            /// A fresh id from the system's randomness.
            pub fn random() -> Self {
                Self::new(suite::random())
            }

            /// The 16 bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The id in `bytes`, which must be 16.
            ///
            /// # Errors
            /// [`Malformed`] for any other length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, Malformed> {
                let bytes: [u8; 16] = bytes.try_into().map_err(|_| Malformed::Length("id"))?;
                Ok(Self::new(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32().encode(self.as_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                let bytes = base32().decode(text.as_bytes()).map_err(|_| Malformed::Text("id"))?;
                Self::from_slice(&bytes)
            }
        }
    };
}

id!(
    /// A human with an identity.
    PersonId
);
id!(
    /// One installation of the client or of a bot.
    DeviceId
);
id!(
    /// What people talk in: one MLS group.
    MatterId
);
id!(
    /// An append-only sequence of envelopes at the relay.
    MailboxId
);
id!(
    /// An invite; derived from its secret, so that it tells nothing about it.
    InviteId
);
id!(
    /// A message, chosen by its sender and kept through every resealing.
    MessageId
);

impl PersonId {
    /// The id of whoever begins with that key: nobody can choose another's, neither a newcomer nor a relay. It stays when keys follow.
    pub fn of(key: &PublicKey) -> Self {
        let hash = Digest::of(&[b"privity/1 person id\0", key.as_bytes()]);
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
        Self::new(bytes)
    }
}

/// Milliseconds since 1970-01-01T00:00:00 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

impl Timestamp {
    /// This time and `ms` milliseconds more.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A place in a mailbox: how many envelopes came before and with it, and the running hash over all of them.
///
/// Two readers at one position have read the same (PROTOCOL, "Mailboxes").
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Position {
    /// The seq of the last envelope read; 0 before the first.
    #[n(0)]
    pub seq: u64,
    /// The running hash after that envelope.
    #[n(1)]
    pub chain: Digest,
}

impl Position {
    /// The position before the first envelope: `chain(0) = H(mailbox id)`.
    pub fn start(mailbox: MailboxId) -> Self {
        Self { seq: 0, chain: Digest::of(&[mailbox.as_bytes()]) }
    }

    /// The position after one more envelope: `chain(s) = H(chain(s-1) ‖ fence bit ‖ H(envelope))`.
    pub fn next(self, fence: bool, envelope: &Digest) -> Self {
        Self {
            seq: self.seq.saturating_add(1),
            chain: Digest::of(&[self.chain.as_bytes(), &[u8::from(fence)], envelope.as_bytes()]),
        }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.seq, self.chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        for _ in 0..64 {
            let id = MatterId::random();
            assert_eq!(id.to_string().parse::<MatterId>().unwrap(), id);
            assert_eq!(id.to_string().len(), 26);
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "a", "zzzzzzzzzzzzzzzzzzzzzzzzzz1", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "aaaaaaaaaaaaaaaaaaaaaaaaab"]
        {
            assert!(text.parse::<MatterId>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_running_hash_tells_a_fence_from_a_message() {
        let start = Position::start(MailboxId::new([7; 16]));
        let envelope = Digest::of(&[b"x"]);
        assert_ne!(start.next(true, &envelope), start.next(false, &envelope));
        assert_eq!(start.next(true, &envelope).seq, 1);
    }
}
