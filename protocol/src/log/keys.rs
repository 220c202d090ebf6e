//! The file `keys` of a log: what verifies its checkpoints, and how a relay's keys followed each other.
//!
//! ```text
//! <verifier key, Ed25519>
//! <verifier key, ML-DSA-44>
//! relay <key>                                the relay's key
//! signature <signature>                      its word for the two lines above
//! ```
//! For each key that was the relay's before, the newest of them first, the same four lines as they were then, and behind them
//! ```text
//! rotation <statement> <signature>           its word for the key above, whose place that took
//! ```
//!
//! Invariant: there is one way to write it, and every byte is signed, or written anew and compared.

use data_encoding::BASE64;

use super::{LogKeys, Verifier};
use crate::error::{Error, Malformed, PeerMisbehaved};
use crate::identity::Signed;
use crate::rotation::RelayRotation;
use crate::suite::{Fingerprint, PublicKey};

/// A key that was the relay's before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastKey {
    /// The key.
    pub relay: PublicKey,
    /// The keys of the log as they were then.
    pub keys: LogKeys,
    /// Its word for the key that took its place.
    pub rotation: Signed,
}

/// The file of the keys of a relay that has always had the same.
pub fn keys_file(relay: &PublicKey, keys: &LogKeys) -> String {
    let (relay, signature) = (BASE64.encode(relay.as_bytes()), BASE64.encode(&keys.signature));
    format!("{}relay {relay}\nsignature {signature}\n", keys.vkeys)
}

/// The file of the keys of a relay that had others before, oldest first.
pub fn keys_file_after(past: &[PastKey], relay: &PublicKey, keys: &LogKeys) -> String {
    let mut text = keys_file(relay, keys);
    for past in past.iter().rev() {
        let Signed { body, signature } = &past.rotation;
        text += &keys_file(&past.relay, &past.keys);
        text += &format!("rotation {} {}\n", BASE64.encode(body), BASE64.encode(signature));
    }
    text
}

/// The relay's newest key in a file of keys, and what it says verifies checkpoints.
///
/// # Errors
/// [`Malformed`] if it is no such file; [`PeerMisbehaved`] if a key has not signed what it is said to have.
pub fn read_keys(text: &str) -> Result<(PublicKey, Verifier), Error> {
    Ring::read(text).map(|ring| ring.newest)
}

/// What a file of keys says, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    newest: (PublicKey, Verifier),
    /// Oldest first.
    past: Vec<(PublicKey, Verifier)>,
}

impl Ring {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Malformed`] if it is none; [`PeerMisbehaved`] if a key has not signed what it is said to have.
    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines();
        let (relay, keys) = block(&mut lines)?.ok_or(WRONG)?;
        let newest = (relay.clone(), keys.verifier(&relay)?);
        let (mut past, mut verified) = (Vec::new(), Vec::new());
        let mut after = relay.clone();
        while let Some((before, old)) = block(&mut lines)? {
            let rotation = statement(lines.next().ok_or(WRONG)?)?;
            if RelayRotation::verify(&rotation, &before)?.to != after {
                return Err(PeerMisbehaved::Mismatch("the relay's word for its new key").into());
            }
            verified.push((before.clone(), old.verifier(&before)?));
            after = before.clone();
            past.push(PastKey { relay: before, keys: old, rotation });
        }
        past.reverse();
        verified.reverse();
        if keys_file_after(&past, &relay, &keys) == text {
            Ok(Self { newest, past: verified })
        } else {
            Err(WRONG.into())
        }
    }

    /// What verifies the log's checkpoints.
    pub(super) fn verifier(&self) -> &Verifier {
        &self.newest.1
    }

    /// The relay's fingerprint.
    pub(super) fn relay(&self) -> Fingerprint {
        self.newest.0.fingerprint()
    }

    /// The fingerprints that it had before, oldest first.
    pub(super) fn before(&self) -> Vec<Fingerprint> {
        self.past.iter().map(|(key, _)| key.fingerprint()).collect()
    }

    /// Whether one of the keys, by its fingerprint, calls this log so.
    pub(super) fn has(&self, relay: &Fingerprint, origin: &str) -> bool {
        let all = self.past.iter().chain(std::iter::once(&self.newest));
        let mut same = all.filter(|(_, verifier)| incarnation(verifier) == incarnation(self.verifier()));
        same.any(|(key, verifier)| verifier.origin() == origin && key.fingerprint() == *relay)
    }

    /// What verifies a checkpoint that may be older than the relay's key, but is of the same incarnation: of the same log, that is.
    pub(super) fn verifier_of(&self, note: &str) -> &Verifier {
        let named = note.lines().next();
        let same = |verifier: &&Verifier| {
            Some(verifier.origin()) == named && incarnation(verifier) == incarnation(self.verifier())
        };
        self.past.iter().map(|(_, verifier)| verifier).find(same).unwrap_or_else(|| self.verifier())
    }
}

const WRONG: Malformed = Malformed::Text("keys of the log");

fn incarnation(verifier: &Verifier) -> Option<&str> {
    verifier.origin().rsplit('/').next()
}

/// The next four lines; none where there are no more.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Option<(PublicKey, LogKeys)>, Error> {
    let Some(first) = lines.next() else { return Ok(None) };
    let vkeys: String = [first, "\n", lines.next().ok_or(WRONG)?, "\n"].concat();
    let mut bytes = |name| decoded(lines.next().and_then(|line| line.strip_prefix(name)).ok_or(WRONG)?);
    let relay = PublicKey::from_slice(&bytes("relay ")?)?;
    Ok(Some((relay, LogKeys { vkeys, signature: bytes("signature ")? })))
}

fn statement(line: &str) -> Result<Signed, Malformed> {
    let (body, signature) = line.strip_prefix("rotation ").and_then(|rest| rest.split_once(' ')).ok_or(WRONG)?;
    Ok(Signed { body: decoded(body)?, signature: decoded(signature)? })
}

fn decoded(text: &str) -> Result<Vec<u8>, Malformed> {
    BASE64.decode(text.as_bytes()).map_err(|_| WRONG)
}
