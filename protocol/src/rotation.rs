//! A relay's key that is replaced: the old one signs for the new one, and whoever pins the old one follows.
//!
//! 1. The relay makes a new key; the one before signs a [`RelayRotation`] that names both.
//! 2. A device names the key that it pins ([`server_name`](crate::link::server_name)) and is served under it, as long as the relay has it.
//! 3. The relay's answer to its hello brings the statements from that key on; the device [follows](follow) them and pins the last.
//!
//! Invariant: a key takes the place of another only by that one's own word, both halves of it; nobody who lacks the pinned key leads a
//! device anywhere.

use minicbor::{Decode, Encode};

use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::identity::Signed;
use crate::ids::Timestamp;
use crate::limits;
use crate::suite::{Digest, Fingerprint, Label, PublicKey, SecretKey};

/// A relay's word for the key that takes the place of its own; signed under [`Label::RelayRotation`] by the key before.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayRotation {
    /// The hash of the key before, which signs this.
    #[n(0)]
    pub from: Digest,
    /// The key that takes its place.
    #[n(1)]
    pub to: PublicKey,
    /// When, by the relay's clock.
    #[n(2)]
    pub at: Timestamp,
}

impl RelayRotation {
    /// Signs that `to` takes the place of the key `from`.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign(from: &SecretKey, to: &PublicKey, at: Timestamp) -> Result<Signed, Misuse> {
        let statement = Self { from: from.public()?.digest(), to: to.clone(), at };
        Signed::make(Label::RelayRotation, from, &statement)
    }

    /// The statement, if the key `from` has signed it, for another than itself.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if it has not; [`Malformed`] if it is no such statement.
    pub fn verify(signed: &Signed, from: &PublicKey) -> Result<Self, Error> {
        let statement: Self = signed.verify(Label::RelayRotation, from, "the relay's word for its new key")?;
        if statement.from != from.digest() || statement.to == *from {
            return Err(PeerMisbehaved::Mismatch("the relay's word for its new key").into());
        }
        Ok(statement)
    }
}

/// Where statements lead from a key: each is signed by the key that the one before it names. The last one's is the key to pin.
///
/// # Errors
/// [`PeerMisbehaved`] or [`Malformed`] if one of them does not verify, or there are more than [`limits::ROTATIONS_MAX`].
pub fn follow(pinned: &PublicKey, statements: &[Signed]) -> Result<Vec<RelayRotation>, Error> {
    if statements.len() > limits::ROTATIONS_MAX {
        return Err(Malformed::TooLarge { what: "the relay's statements", limit: limits::ROTATIONS_MAX }.into());
    }
    let mut steps: Vec<RelayRotation> = Vec::new();
    for signed in statements {
        let from = steps.last().map_or(pinned, |step| &step.to);
        let step = RelayRotation::verify(signed, from)?;
        steps.push(step);
    }
    Ok(steps)
}

/// A key that was the relay's, as a device remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PastRelay {
    /// Which.
    #[n(0)]
    pub key: Fingerprint,
    /// When another took its place, by the relay's clock.
    #[n(1)]
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<const N: usize>() -> [(SecretKey, PublicKey); N] {
        std::array::from_fn(|_| {
            let key = SecretKey::generate();
            let public = key.public().unwrap();
            (key, public)
        })
    }

    fn step(from: &SecretKey, to: &PublicKey) -> Signed {
        RelayRotation::sign(from, to, Timestamp(1)).unwrap()
    }

    #[test]
    fn statements_lead_from_the_pinned_key_to_the_newest() {
        let [(a, pa), (b, pb), (_, pc)] = keys();
        let chain = [step(&a, &pb), step(&b, &pc)];
        assert_eq!(follow(&pa, &chain).unwrap().last().unwrap().to, pc);
        assert_eq!(follow(&pb, &chain[1..]).unwrap().last().unwrap().to, pc);
        assert!(follow(&pa, &[]).unwrap().is_empty());
    }

    #[test]
    fn no_statement_of_another_key_leads_anywhere() {
        let [(a, pa), (b, pb), (thief, pt)] = keys();
        let wrong = |statements: &[Signed]| follow(&pa, statements).unwrap_err();
        // By nobody who is the relay, for the thief's key or the relay's own.
        assert!(matches!(wrong(&[step(&thief, &pt)]), Error::PeerMisbehaved(_)));
        assert!(matches!(wrong(&[step(&thief, &pb)]), Error::PeerMisbehaved(_)));
        // From another key than the pinned one, though that is the relay's, too; in another order; to itself.
        assert!(matches!(wrong(&[step(&b, &pt)]), Error::PeerMisbehaved(_)));
        assert!(matches!(wrong(&[step(&b, &pt), step(&a, &pb)]), Error::PeerMisbehaved(_)));
        assert!(matches!(wrong(&[step(&a, &pa)]), Error::PeerMisbehaved(PeerMisbehaved::Mismatch(_))));
        // It says that it leads from another key than the one that signs it.
        let body = RelayRotation { from: pb.digest(), to: pt, at: Timestamp(1) };
        let lie = Signed::make(Label::RelayRotation, &a, &body).unwrap();
        assert!(matches!(wrong(&[lie]), Error::PeerMisbehaved(PeerMisbehaved::Mismatch(_))));
        // Signed by the right key for another purpose.
        let other = Signed::make(Label::LogKeys, &a, &RelayRotation { from: pa.digest(), to: pb, at: Timestamp(1) });
        assert!(matches!(wrong(&[other.unwrap()]), Error::PeerMisbehaved(PeerMisbehaved::Signature(_))));
    }

    #[test]
    fn both_halves_of_the_old_key_have_signed() {
        let [(a, pa), (_, pb), (thief, _)] = keys();
        let good = step(&a, &pb);
        let body = good.body.clone();
        let forged_half = thief.sign(Label::RelayRotation, &body).unwrap();
        for (one, other) in [(&good.signature, &forged_half), (&forged_half, &good.signature)] {
            let signature = [&one[..64], &other[64..]].concat();
            assert!(follow(&pa, &[Signed { body: body.clone(), signature }]).is_err());
        }
    }

    #[test]
    fn one_answer_takes_a_device_so_many_steps_and_no_more() {
        let keys: [(SecretKey, PublicKey); limits::ROTATIONS_MAX + 2] = keys();
        let chain: Vec<Signed> = keys.windows(2).map(|pair| step(&pair[0].0, &pair[1].1)).collect();
        assert_eq!(follow(&keys[0].1, &chain[..limits::ROTATIONS_MAX]).unwrap().len(), limits::ROTATIONS_MAX);
        assert!(matches!(follow(&keys[0].1, &chain), Err(Error::Malformed(Malformed::TooLarge { .. }))));
    }
}
