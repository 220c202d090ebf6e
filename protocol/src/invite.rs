//! Invites: a URL with the relay's address, two fingerprints and a 128-bit secret.
//!
//! From the secret, and known to nobody who can't read the invite:
//! 1. the invite's id, by which the relay files it;
//! 2. a token that proves the right to register: the relay keeps its hash;
//! 3. a check key: the newcomer's proof over their keys under it tells the inviter that no relay put others in their place;
//! 4. seal keys for names, and for what a linked device needs to know, which the relay must not learn.
//!
//! Invariant: what the relay sees (id, hash of the token, sealed names) tells it neither the check key nor the names.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::cbor;
use crate::error::{Malformed, Misuse, PeerMisbehaved};
use crate::identity::{Issuer, Name, Role};
use crate::ids::{DeviceId, InviteId, PersonId, Timestamp, base32};
use crate::suite::{self, Digest, Fingerprint};

const VERSION: u8 = 1;
const SCHEME: &str = "privity://";
const CHECKSUM_LEN: usize = 4;
const PAYLOAD_LEN: usize = 1 + 32 + 32 + 16;

/// The 128 secret bits of an invite.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(transparent)]
pub struct InviteSecret(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]);

impl InviteSecret {
    /// A fresh secret.
    pub fn random() -> Self {
        Self(suite::random())
    }

    /// The secret with these bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id under which the relay files the invite.
    pub fn id(&self) -> InviteId {
        InviteId::new(*suite::derive(&self.0, b"privity/1 invite id"))
    }

    /// Proves the right to register. Sent to the relay once, over an authenticated link.
    pub fn token(&self) -> [u8; 32] {
        *suite::derive(&self.0, b"privity/1 invite token")
    }

    /// What the relay keeps of the token.
    pub fn token_hash(&self) -> Digest {
        token_hash(&self.token())
    }

    /// Seals a name so that only who can read the invite opens it.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn seal_name(&self, name: &Name) -> Result<Vec<u8>, Misuse> {
        let key = suite::derive(&self.0, b"privity/1 invite name");
        suite::seal(&key, b"name", &cbor::encode(name))
    }

    /// Opens what [`Self::seal_name`] sealed.
    ///
    /// # Errors
    /// [`Malformed`] if it was sealed under another invite.
    pub fn open_name(&self, sealed: &[u8]) -> Result<Name, Malformed> {
        let key = suite::derive(&self.0, b"privity/1 invite name");
        cbor::decode(&suite::open(&key, b"name", sealed)?, "name")
    }

    /// Seals what a new device of the inviter's needs to know, for that device alone.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn seal_pack(&self, certificate: &Digest, pack: &LinkPack) -> Result<Vec<u8>, Misuse> {
        let key = suite::derive(&self.0, b"privity/1 invite pack");
        suite::seal(&key, certificate.as_bytes(), &cbor::encode(pack))
    }

    /// Opens what [`Self::seal_pack`] sealed.
    ///
    /// # Errors
    /// [`Malformed`] if it was sealed under another invite, or for another device.
    pub fn open_pack(&self, certificate: &Digest, sealed: &[u8]) -> Result<LinkPack, Malformed> {
        let key = suite::derive(&self.0, b"privity/1 invite pack");
        cbor::decode(&suite::open(&key, certificate.as_bytes(), sealed)?, "pack")
    }

    /// The newcomer's proof over everything that makes them who they are.
    pub fn prove(&self, claim: &Claim) -> Digest {
        let key = suite::derive::<48>(&self.0, b"privity/1 invite check");
        suite::mac(&*key, &cbor::encode(claim))
    }

    /// Checks a newcomer's proof.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongKey`]: somebody who can't read the invite put other keys in the newcomer's place.
    pub fn check(&self, claim: &Claim, proof: &Digest) -> Result<(), PeerMisbehaved> {
        if suite::same(self.prove(claim).as_bytes(), proof.as_bytes()) {
            Ok(())
        } else {
            Err(PeerMisbehaved::WrongKey("the newcomer's identity"))
        }
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(redacted)")
    }
}

/// The relay's record of a token.
pub fn token_hash(token: &[u8; 32]) -> Digest {
    Digest::of(&[b"privity/1 invite token hash\0", token])
}

/// What a newcomer's proof covers: person key, both device keys, invite and relay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Claim {
    /// The invite used.
    #[n(0)]
    pub invite: InviteId,
    /// The key of the relay that the invite pins, whatever key has taken its place since.
    #[n(1)]
    pub relay: Fingerprint,
    /// The newcomer.
    #[n(2)]
    pub person: PersonId,
    /// The newcomer's device.
    #[n(3)]
    pub device: DeviceId,
    /// The hash of the person's key.
    #[n(4)]
    pub person_key: Digest,
    /// The hash of the device's certificate, which covers both device keys.
    #[n(5)]
    pub certificate: Digest,
    /// The handle asked for.
    #[n(6)]
    pub handle: String,
    /// The hash of the inviter's statement; none with a relay's first invite.
    #[n(7)]
    pub statement: Option<Digest>,
}

/// What an inviter promises; signed under [`crate::suite::Label::Invite`] by the inviting device's MLS key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InviteStatement {
    /// Which invite.
    #[n(0)]
    pub invite: InviteId,
    /// Who invites.
    #[n(1)]
    pub issuer: Issuer,
    /// As what.
    #[n(2)]
    pub role: Role,
    /// The handle the newcomer must take, if the inviter chose one.
    #[n(3)]
    pub handle: Option<String>,
    /// The commitment to the name the inviter gave, if any.
    #[n(4)]
    pub name: Option<Digest>,
    /// Until when it may be used.
    #[n(5)]
    pub expires: Timestamp,
    /// It makes no person: it links one more device of this one, the inviter.
    #[n(10)]
    pub links: Option<PersonId>,
    /// It makes no new person: this one is enrolled anew, with another key, under their handle and in their role.
    #[n(40)]
    pub replaces: Option<PersonId>,
}

/// What a new device needs to know of its person that no chain of endorsements says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkPack {
    /// The person's display name, with the salt of its commitment.
    #[n(0)]
    pub name: Name,
    /// Whether nobody but the person gave that name.
    #[n(1)]
    pub self_stated: bool,
}

/// What has become of an invite, as the relay tells its inviter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InviteState {
    /// Which.
    #[n(0)]
    pub invite: InviteId,
    /// As what.
    #[n(1)]
    pub role: Role,
    /// The handle that the inviter chose.
    #[n(2)]
    pub handle: Option<String>,
    /// Until when it may be used.
    #[n(3)]
    pub expires: Timestamp,
    /// What has become of it.
    #[n(4)]
    pub standing: Standing,
}

/// Whether an invite may be used, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Standing {
    /// It may.
    #[n(0)]
    Open,
    /// Somebody has used it.
    #[n(1)]
    Used {
        /// Their handle.
        #[n(0)]
        handle: String,
    },
    /// Its time is over.
    #[n(2)]
    Expired,
    /// Its inviter has cancelled it.
    #[n(3)]
    Cancelled,
    /// Its inviter may not invite any more.
    #[n(4)]
    Void,
}

impl Standing {
    /// The standing's word, as commands and JSON use it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Used { .. } => "used",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Void => "void",
        }
    }
}

/// An invite as it travels outside Privity: `privity://HOST:PORT/BASE32`.
#[derive(Clone)]
pub struct Invite {
    /// Where the relay listens: a host name or address, and a port.
    pub address: String,
    /// The relay's key.
    pub relay: Fingerprint,
    /// The organisation's key; none in the first invite, which makes it.
    pub organisation: Option<Fingerprint>,
    /// The secret.
    pub secret: InviteSecret,
}

impl Invite {
    /// The URL: a secret, shown to the inviter once.
    pub fn url(&self) -> String {
        let mut payload = Vec::with_capacity(PAYLOAD_LEN + CHECKSUM_LEN);
        payload.push(VERSION);
        payload.extend_from_slice(self.relay.as_bytes());
        payload.extend_from_slice(self.organisation.map_or([0; 32], |key| *key.as_bytes()).as_slice());
        payload.extend_from_slice(&self.secret.0);
        payload.extend_from_slice(&checksum(&self.address, &payload));
        let url = format!("{SCHEME}{}/{}", self.address, base32().encode(&payload));
        payload.zeroize();
        url
    }
}

impl FromStr for Invite {
    type Err = Malformed;

    fn from_str(url: &str) -> Result<Self, Malformed> {
        const MANGLED: Malformed = Malformed::Text("invite");
        let rest = url.trim().strip_prefix(SCHEME).ok_or(MANGLED)?;
        let (address, encoded) = rest.split_once('/').ok_or(MANGLED)?;
        let (host, port) = address.rsplit_once(':').ok_or(MANGLED)?;
        if host.is_empty() || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(MANGLED);
        }
        let payload = base32().decode(encoded.as_bytes()).map_err(|_| MANGLED)?;
        let (payload, sum) = payload.split_at_checked(PAYLOAD_LEN).ok_or(MANGLED)?;
        if sum != checksum(address, payload) {
            return Err(MANGLED);
        }
        let (version, rest) = payload.split_at_checked(1).ok_or(MANGLED)?;
        let (relay, rest) = rest.split_at_checked(32).ok_or(MANGLED)?;
        let (organisation, secret) = rest.split_at_checked(32).ok_or(MANGLED)?;
        if version != [VERSION] {
            return Err(Malformed::Text("invite of a newer version"));
        }
        let organisation: [u8; 32] = organisation.try_into().map_err(|_| MANGLED)?;
        Ok(Self {
            address: address.to_owned(),
            relay: Fingerprint::new(relay.try_into().map_err(|_| MANGLED)?),
            organisation: (organisation != [0; 32]).then(|| Fingerprint::new(organisation)),
            secret: InviteSecret(secret.try_into().map_err(|_| MANGLED)?),
        })
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite").field("address", &self.address).field("relay", &self.relay).finish_non_exhaustive()
    }
}

/// Finds a character lost or changed in copying; no protection against anybody.
fn checksum(address: &str, payload: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Digest::of(&[address.as_bytes(), b"/", payload]);
    let mut sum = [0; CHECKSUM_LEN];
    for (to, from) in sum.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            address: "relay.example.com:4433".to_owned(),
            relay: Fingerprint::new([1; 32]),
            organisation: Some(Fingerprint::new([2; 32])),
            secret: InviteSecret::new([3; 16]),
        }
    }

    #[test]
    fn an_invite_survives_its_url() {
        let url = invite().url();
        let parsed: Invite = url.parse().unwrap();
        assert_eq!(parsed.url(), url);
        assert_eq!(parsed.relay, Fingerprint::new([1; 32]));
        assert_eq!(parsed.secret.token(), InviteSecret::new([3; 16]).token());
        let first = Invite { organisation: None, ..invite() };
        assert!(first.url().parse::<Invite>().unwrap().organisation.is_none());
    }

    #[test]
    fn every_character_lost_or_changed_is_noticed() {
        let url = invite().url();
        for index in 0..url.len() {
            let mut shorter = url.clone();
            shorter.remove(index);
            assert!(shorter.parse::<Invite>().is_err(), "without character {index}");
            let mut other = url.clone().into_bytes();
            other[index] = if other[index] == b'a' { b'b' } else { b'a' };
            assert!(String::from_utf8(other).unwrap().parse::<Invite>().is_err(), "character {index} changed");
        }
    }

    #[test]
    fn a_proof_covers_every_field_of_the_claim() {
        let secret = InviteSecret::random();
        let claim = Claim {
            invite: secret.id(),
            relay: Fingerprint::new([1; 32]),
            person: PersonId::random(),
            device: DeviceId::random(),
            person_key: Digest::of(&[b"person"]),
            certificate: Digest::of(&[b"certificate"]),
            handle: "ada".to_owned(),
            statement: None,
        };
        let proof = secret.prove(&claim);
        secret.check(&claim, &proof).unwrap();
        let others = [
            Claim { invite: InviteSecret::random().id(), ..claim.clone() },
            Claim { relay: Fingerprint::new([2; 32]), ..claim.clone() },
            Claim { person: PersonId::random(), ..claim.clone() },
            Claim { device: DeviceId::random(), ..claim.clone() },
            Claim { person_key: Digest::of(&[b"other"]), ..claim.clone() },
            Claim { certificate: Digest::of(&[b"other"]), ..claim.clone() },
            Claim { handle: "eve".to_owned(), ..claim.clone() },
            Claim { statement: Some(Digest::of(&[b"other"])), ..claim.clone() },
        ];
        for other in others {
            assert!(secret.check(&other, &proof).is_err(), "{other:?}");
        }
        assert!(InviteSecret::random().check(&claim, &proof).is_err());
    }

    #[test]
    fn names_open_only_with_the_invite() {
        let secret = InviteSecret::random();
        let name = Name::new("Ada Byron").unwrap();
        let sealed = secret.seal_name(&name).unwrap();
        assert_eq!(secret.open_name(&sealed).unwrap(), name);
        assert!(InviteSecret::random().open_name(&sealed).is_err());
    }

    #[test]
    fn secrets_never_print() {
        assert_eq!(format!("{:?}", InviteSecret::new([0xab; 16])), "InviteSecret(redacted)");
        assert!(!format!("{:?}", invite()).contains(&invite().url()));
    }
}
