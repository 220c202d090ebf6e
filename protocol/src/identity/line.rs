//! Person keys that were replaced: how one key leads to the next, with nobody vouching anew.
//!
//! 1. While a person key is in use it certifies a recovery key ([`RecoveryKey`]), whose secret is on paper.
//! 2. A [`Replacement`] names the next key and the devices that stay. The key before signs it (a rotation), or the recovery key that it had
//!    certified.
//! 3. A [`Step`] is that statement with what it takes to verify it. The steps of an identity, in order, lead to the key that it has now.
//!
//! A key that somebody else vouches for (a person who was enrolled anew) has no step: its endorsement names it.
//!
//! Invariant: [`verify_line`] returns only steps of which each is signed by the key before, or by a recovery key that this one certified,
//! and the last of which leads to the identity's key.

use minicbor::{Decode, Encode};

use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::identity::{Identity, Signed};
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::suite::{Digest, Label, PublicKey, SecretKey};

const WHAT: &str = "a replaced key";

/// A person's key says which key may replace it. Signed under [`Label::RecoveryKey`] by the person key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryKey {
    /// Whose.
    #[n(0)]
    pub person: PersonId,
    /// The recovery key.
    #[n(1)]
    pub key: PublicKey,
    /// When it was made, by the person's clock.
    #[n(2)]
    pub made_at: Timestamp,
}

/// One person key takes the place of another. Signed under [`Label::Replacement`] by the key before, or by its recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Replacement {
    /// Whose.
    #[n(0)]
    pub person: PersonId,
    /// The hash of the key before.
    #[n(1)]
    pub from: Digest,
    /// The hash of the key that takes its place.
    #[n(2)]
    pub to: Digest,
    /// The certificates of the devices that stay, by the hash of their bodies, sorted: the new key has signed the same bodies.
    #[n(3)]
    pub stays: Vec<Digest>,
    /// When, by the author's clock.
    #[n(4)]
    pub at: Timestamp,
}

/// One replaced key, with what it takes to believe it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Step {
    /// The key before.
    #[n(0)]
    pub key: PublicKey,
    /// The [`Replacement`].
    #[n(1)]
    pub statement: Signed,
    /// The [`RecoveryKey`] that signed it; none where the key before did.
    #[n(2)]
    pub recovery: Option<Signed>,
}

/// What a [`Step`] says, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStep {
    /// The statement.
    pub said: Replacement,
    /// Whether the recovery key signed it, rather than the key before.
    pub recovered: bool,
}

impl Replacement {
    /// From one key to another, with these devices staying.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn new(
        person: PersonId,
        from: &PublicKey,
        to: &SecretKey,
        mut stays: Vec<Digest>,
        at: Timestamp,
    ) -> Result<Self, Misuse> {
        stays.sort();
        stays.dedup();
        Ok(Self { person, from: from.digest(), to: to.public()?.digest(), stays, at })
    }
}

impl Step {
    /// What it says, signed by the key before or by the recovery key that this one certified.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if a signature does not verify, or the statements do not fit each other.
    pub fn verify(&self, person: PersonId) -> Result<KeyStep, Error> {
        let mismatch = || Error::from(PeerMisbehaved::Mismatch(WHAT));
        let said: Replacement = match &self.recovery {
            None => self.statement.verify(Label::Replacement, &self.key, WHAT)?,
            Some(recovery) => {
                let recovery: RecoveryKey = recovery.verify(Label::RecoveryKey, &self.key, "a recovery key")?;
                if recovery.person != person {
                    return Err(mismatch());
                }
                self.statement.verify(Label::Replacement, &recovery.key, WHAT)?
            }
        };
        let sorted = said.stays.is_sorted_by(|one, next| one < next);
        if said.stays.len() > limits::DEVICES_PER_PERSON_MAX || !sorted {
            return Err(Malformed::Cbor(WHAT).into());
        }
        if said.person != person || said.from != self.key.digest() || said.to == said.from {
            return Err(mismatch());
        }
        Ok(KeyStep { said, recovered: self.recovery.is_some() })
    }
}

/// The steps that lead to an identity's key, the oldest first.
///
/// # Errors
/// [`PeerMisbehaved`] if one does not verify, or leads elsewhere; [`Malformed`] for more than [`limits::KEY_STEPS_MAX`].
pub fn verify_line(identity: &Identity) -> Result<Vec<KeyStep>, Error> {
    if identity.line.len() > limits::KEY_STEPS_MAX {
        return Err(Malformed::TooLarge { what: "list of replaced keys", limit: limits::KEY_STEPS_MAX }.into());
    }
    let steps: Vec<KeyStep> =
        identity.line.iter().map(|step| step.verify(identity.person)).collect::<Result<_, Error>>()?;
    let joined = steps.iter().zip(steps.iter().skip(1)).all(|(step, next)| step.said.to == next.said.from);
    let ends = steps.last().is_none_or(|last| last.said.to == identity.person_key.digest());
    if joined && ends { Ok(steps) } else { Err(PeerMisbehaved::Mismatch(WHAT).into()) }
}

/// The devices that stayed from one key up to the last of some verified steps, by the hash of their certificates' bodies; none where the
/// steps do not begin at that key. Of no step at all every device stays, and nothing is said.
pub fn stays_since(steps: &[KeyStep], from: Digest) -> Option<Vec<Digest>> {
    let first = steps.iter().position(|step| step.said.from == from)?;
    let mut steps = steps.iter().skip(first);
    let mut stays = steps.next()?.said.stays.clone();
    for step in steps {
        stays.retain(|device| step.said.stays.contains(device));
    }
    Some(stays)
}
