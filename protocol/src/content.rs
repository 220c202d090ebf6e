//! Contents: what a message in a matter is once it is decrypted.
//!
//! A content is a CBOR map; its body is a byte string whose form depends on `kind`, so that a device that does not know a kind can
//! still show that there was something, from whom and when. Unknown keys are ignored.
//!
//! Invariant: a content that a peer sends never makes reading fail; at worst it is [`Body::Unknown`].

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::Malformed;
use crate::identity::{Identity, Name};
use crate::ids::{MessageId, PersonId, Timestamp};
use crate::limits;
use crate::log::LogHead;

const TEXT: u32 = 1;
const BUNDLE: u32 = 2;

/// A message, as its sender wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Chosen by the sender; a repeat of (sender, id) is dropped.
    pub id: MessageId,
    /// By the sender's clock; order comes from seq.
    pub sent_at: Timestamp,
    /// What it says.
    pub body: Body,
    /// The head of the relay's log that its author knows: whoever reads another log learns of it.
    pub log: Option<LogHead>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Text, at most [`limits::TEXT_MAX`] bytes, as typed: strip terminal escapes before showing it.
    Text(String),
    /// Certificates, endorsements and names of the people whom the next Commit adds.
    Bundle(Bundle),
    /// A kind that this version does not know.
    Unknown {
        /// Its number.
        kind: u32,
    },
}

/// What members need to judge an Add: the newcomers' chains, and their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Bundle {
    /// The people, each followed somewhere in the list by whoever endorses them.
    #[n(0)]
    pub identities: Vec<Identity>,
    /// The names of those whose names the sender knows.
    #[n(1)]
    pub names: Vec<NamedPerson>,
}

/// A person's name, opened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NamedPerson {
    /// Who.
    #[n(0)]
    pub person: PersonId,
    /// The name, to be held against the endorsement's commitment.
    #[n(1)]
    pub name: Name,
    /// Whether the person chose it and nobody has confirmed it, as the sender knows.
    #[n(2)]
    pub self_stated: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    id: MessageId,
    #[n(1)]
    sent_at: Timestamp,
    #[n(2)]
    kind: u32,
    #[cbor(n(3), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(4)]
    log: Option<LogHead>,
}

impl Content {
    /// A text.
    ///
    /// # Errors
    /// [`Malformed::TooLarge`] above [`limits::TEXT_MAX`] bytes.
    pub fn text(id: MessageId, sent_at: Timestamp, text: &str) -> Result<Self, Malformed> {
        if text.len() > limits::TEXT_MAX {
            return Err(Malformed::TooLarge { what: "text", limit: limits::TEXT_MAX });
        }
        Ok(Self { id, sent_at, body: Body::Text(text.to_owned()), log: None })
    }

    /// The content's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match &self.body {
            Body::Text(text) => (TEXT, text.as_bytes().to_vec()),
            Body::Bundle(bundle) => (BUNDLE, cbor::encode(bundle)),
            Body::Unknown { kind } => (*kind, Vec::new()),
        };
        cbor::encode(&Wire { id: self.id, sent_at: self.sent_at, kind, body, log: self.log })
    }

    /// The content in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if there is not even an id, a time and a kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let wire: Wire = cbor::decode(bytes, "content")?;
        let unknown = Body::Unknown { kind: wire.kind };
        let body = match wire.kind {
            TEXT if wire.body.len() <= limits::TEXT_MAX => String::from_utf8(wire.body).map_or(unknown, Body::Text),
            BUNDLE => cbor::decode(&wire.body, "bundle").map_or(unknown, Body::Bundle),
            _ => unknown,
        };
        Ok(Self { id: wire.id, sent_at: wire.sent_at, body, log: wire.log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(kind: u32, body: &[u8]) -> Vec<u8> {
        cbor::encode(&Wire { id: MessageId::new([1; 16]), sent_at: Timestamp(5), kind, body: body.to_vec(), log: None })
    }

    #[test]
    fn a_text_survives_its_encoding() {
        let content = Content::text(MessageId::random(), Timestamp(17), "Grüße, §").unwrap();
        assert_eq!(Content::decode(&content.encode()).unwrap(), content);
    }

    #[test]
    fn an_unknown_kind_is_shown_not_refused() {
        assert_eq!(Content::decode(&wire(99, b"x")).unwrap().body, Body::Unknown { kind: 99 });
        assert_eq!(Content::decode(&wire(TEXT, b"\xff")).unwrap().body, Body::Unknown { kind: TEXT });
        assert_eq!(Content::decode(&wire(BUNDLE, b"\xff")).unwrap().body, Body::Unknown { kind: BUNDLE });
    }

    #[test]
    fn a_text_above_the_limit_is_refused_with_the_limit() {
        let text = "x".repeat(limits::TEXT_MAX + 1);
        let error = Content::text(MessageId::random(), Timestamp(0), &text).unwrap_err();
        assert!(error.to_string().contains("262144"), "{error}");
    }
}
