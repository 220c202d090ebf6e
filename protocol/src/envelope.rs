//! Envelopes: the opaque units of a mailbox. `version ‖ class ‖ payload`, and the padding of what is inside.
//!
//! ```text
//! offset  bytes  what
//! 0       1      version, 1
//! 1       1      class: 1 message, 2 commit, 3 welcome, 4 repair request, 5 successor, 6 between devices
//! 2       …      payload: an MLS message in RFC 9420's own encoding; for 4 and 5 a signed statement, CBOR (`rescue.rs`); for 6 CBOR (`between.rs`)
//! ```
//!
//! A message's content is padded *before* it is sealed: `length (u32, big-endian) ‖ content ‖ zeros`, so that the envelope
//! just fits one of [`limits::BUCKETS`]. Invariant: an envelope's size tells its bucket and nothing finer.

use crate::error::Malformed;
use crate::limits;

const VERSION: u8 = 1;
const LENGTH_LEN: usize = 4;

/// What an envelope carries. The relay can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// A sealed content.
    Message,
    /// A Commit.
    Commit,
    /// A Welcome.
    Welcome,
    /// A [`crate::rescue::RepairRequest`], signed and not sealed.
    Repair,
    /// A [`crate::rescue::Successor`], signed and not sealed.
    Successor,
    /// A [`crate::between::Between`], from another device of the same person.
    Between,
}

/// Puts a payload into an envelope.
///
/// # Errors
/// [`Malformed::TooLarge`] above [`limits::ENVELOPE_MAX`].
pub fn wrap(class: Class, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
    let class = match class {
        Class::Message => 1,
        Class::Commit => 2,
        Class::Welcome => 3,
        Class::Repair => 4,
        Class::Successor => 5,
        Class::Between => 6,
    };
    let envelope = [&[VERSION, class], payload].concat();
    if envelope.len() > limits::ENVELOPE_MAX {
        return Err(Malformed::TooLarge { what: "envelope", limit: limits::ENVELOPE_MAX });
    }
    Ok(envelope)
}

/// Takes an envelope apart.
///
/// # Errors
/// [`Malformed`] for another version, an unknown class, or too large.
pub fn unwrap(envelope: &[u8]) -> Result<(Class, &[u8]), Malformed> {
    if envelope.len() > limits::ENVELOPE_MAX {
        return Err(Malformed::TooLarge { what: "envelope", limit: limits::ENVELOPE_MAX });
    }
    let (head, payload) = envelope.split_at_checked(2).ok_or(Malformed::Length("envelope"))?;
    match head {
        [VERSION, 1] => Ok((Class::Message, payload)),
        [VERSION, 2] => Ok((Class::Commit, payload)),
        [VERSION, 3] => Ok((Class::Welcome, payload)),
        [VERSION, 4] => Ok((Class::Repair, payload)),
        [VERSION, 5] => Ok((Class::Successor, payload)),
        [VERSION, 6] => Ok((Class::Between, payload)),
        _ => Err(Malformed::Cbor("envelope's head")),
    }
}

/// Pads a content for the smallest bucket that holds it.
///
/// # Errors
/// [`Malformed::TooLarge`] if none does.
pub fn pad(content: &[u8]) -> Result<Vec<u8>, Malformed> {
    let needed = content.len().saturating_add(LENGTH_LEN);
    let room = limits::BUCKETS
        .iter()
        .map(|bucket| bucket.saturating_sub(limits::ENVELOPE_OVERHEAD))
        .find(|room| *room >= needed)
        .ok_or(Malformed::TooLarge { what: "content", limit: limits::ENVELOPE_MAX - limits::ENVELOPE_OVERHEAD })?;
    let length = u32::try_from(content.len()).map_err(|_| Malformed::Length("content"))?;
    let mut padded = Vec::with_capacity(room);
    padded.extend_from_slice(&length.to_be_bytes());
    padded.extend_from_slice(content);
    padded.resize(room, 0);
    Ok(padded)
}

/// The content inside a padding, whose zeros are checked.
///
/// # Errors
/// [`Malformed`] for a length beyond the end, or padding that is not zero.
pub fn unpad(padded: &[u8]) -> Result<&[u8], Malformed> {
    let (length, rest) = padded.split_first_chunk::<LENGTH_LEN>().ok_or(Malformed::Length("padding"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Malformed::Length("padding"))?;
    let (content, zeros) = rest.split_at_checked(length).ok_or(Malformed::Length("padding"))?;
    if zeros.iter().all(|byte| *byte == 0) { Ok(content) } else { Err(Malformed::Cbor("padding")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_hides_the_length_and_comes_off() {
        let mut sizes = std::collections::BTreeSet::new();
        for length in (0..600).chain([5000, 60_000, 262_144, 1_000_000]) {
            let content = vec![b'x'; length];
            let padded = pad(&content).unwrap();
            sizes.insert(padded.len());
            assert_eq!(unpad(&padded).unwrap(), content);
        }
        assert!(sizes.len() <= limits::BUCKETS.len(), "{sizes:?}");
        assert!(pad(&vec![0; limits::ENVELOPE_MAX]).is_err());
    }

    #[test]
    fn padding_that_carries_something_is_refused() {
        let mut padded = pad(b"content").unwrap();
        *padded.last_mut().unwrap() = 1;
        assert!(unpad(&padded).is_err());
        assert!(unpad(&[0, 0, 0, 9, 1]).is_err());
        assert!(unpad(&[0, 0]).is_err());
    }

    #[test]
    fn an_envelope_of_another_version_or_class_is_refused() {
        let envelope = wrap(Class::Welcome, b"payload").unwrap();
        assert_eq!(unwrap(&envelope).unwrap(), (Class::Welcome, &b"payload"[..]));
        for head in [[0, 1], [2, 1], [1, 0], [1, 7]] {
            assert!(unwrap(&[&head[..], b"payload"].concat()).is_err(), "{head:?}");
        }
        assert!(unwrap(&[1]).is_err());
    }
}
