//! Who is who: signed statements and the chain from a person up to the organisation's key.
//!
//! 1. The organisation key endorses the first registrar.
//! 2. A device of a registrar endorses anyone; one of an attorney or of staff endorses clients.
//! 3. A person key certifies the person's devices.
//!
//! Invariant: [`verify_chain`] returns only what hybrid signatures say, all the way up to the key it was given.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::limits;
use crate::suite::{self, Digest, Label, PublicKey, SecretKey};

mod alike;
mod line;
mod safety;
mod withdrawal;

pub use alike::{NameLook, look_of};
pub use line::{KeyStep, RecoveryKey, Replacement, Step, stays_since, verify_line};
pub use safety::SafetyNumber;
pub use withdrawal::{EndorsementRevocation, is_lifted};

/// What a person is at this firm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Role {
    /// A lawyer of the firm.
    #[n(0)]
    Attorney,
    /// Works for the firm's lawyers.
    #[n(1)]
    Staff,
    /// Somebody the firm acts for.
    #[n(2)]
    Client,
    /// Archives matters, visibly.
    #[n(3)]
    Custodian,
}

impl Role {
    /// The role's word, as commands and JSON use it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Attorney => "attorney",
            Self::Staff => "staff",
            Self::Client => "client",
            Self::Custodian => "custodian",
        }
    }

    /// Whether this role opens matters, and adds and removes people in them.
    pub fn manages(self) -> bool {
        matches!(self, Self::Attorney | Self::Staff)
    }
}

/// Whether somebody with `role`, and the right of a registrar or not, may invite and endorse a `newcomer`.
pub fn may_endorse(role: Role, registrar: bool, newcomer: Role) -> bool {
    registrar || (role.manages() && newcomer == Role::Client)
}

/// Whether somebody with `role`, and the right of a registrar or not, may take in a `newcomer` whom somebody else has invited.
pub fn may_adopt(role: Role, registrar: bool, newcomer: Role) -> bool {
    registrar || (role == Role::Attorney && newcomer == Role::Client)
}

/// What is false is left out.
fn is_not(word: &bool) -> bool {
    !word
}

/// A statement and a hybrid signature over its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Signed {
    /// The statement, CBOR.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Ed25519 ‖ ML-DSA-65, 3,373 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl Signed {
    /// Signs a statement.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn make<T: Encode<()>>(label: Label, key: &SecretKey, statement: &T) -> Result<Self, Misuse> {
        let body = cbor::encode(statement);
        let signature = key.sign(label, &body)?;
        Ok(Self { body, signature })
    }

    /// The statement, if `key` signed it under `label`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Signature`] or [`Malformed`].
    pub fn verify<'b, T: Decode<'b, ()>>(
        &'b self,
        label: Label,
        key: &PublicKey,
        what: &'static str,
    ) -> Result<T, Error> {
        if self.body.len() > limits::STATEMENT_MAX {
            return Err(Malformed::TooLarge { what, limit: limits::STATEMENT_MAX }.into());
        }
        key.verify(label, &self.body, &self.signature, what)?;
        Ok(cbor::decode(&self.body, what)?)
    }

    /// The statement, believed by nobody yet: to learn whose key must verify it.
    ///
    /// # Errors
    /// [`Malformed`] if it does not decode.
    pub fn unverified<'b, T: Decode<'b, ()>>(&'b self, what: &'static str) -> Result<T, Malformed> {
        cbor::decode(&self.body, what)
    }

    /// The hash of the statement's bytes, by which credentials name a certificate: the signature is not part of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&[&self.body])
    }
}

/// A person certifies a device. Immutable; signed under [`Label::DeviceCertificate`] by the person key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceCertificate {
    /// Whose device.
    #[n(0)]
    pub person: PersonId,
    /// Which device.
    #[n(1)]
    pub device: DeviceId,
    /// The hash of the device's hybrid link key (TLS and hello).
    #[n(2)]
    pub link_key: Digest,
    /// The device's MLS signature key.
    #[n(3)]
    pub mls_key: PublicKey,
    /// When it was made, by the person's clock.
    #[n(4)]
    pub made_at: Timestamp,
}

/// Somebody whom the organisation trusts says who a person is. Signed under [`Label::Endorsement`] by the organisation key or
/// by a device's MLS key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Endorsement {
    /// Who is endorsed.
    #[n(0)]
    pub person: PersonId,
    /// The hash of the person's key.
    #[n(1)]
    pub person_key: Digest,
    /// As what.
    #[n(2)]
    pub role: Role,
    /// With the right to endorse anyone.
    #[n(3)]
    pub registrar: bool,
    /// Under which handle.
    #[n(4)]
    pub handle: String,
    /// A salted commitment to the display name; see [`Name`].
    #[n(5)]
    pub name: Digest,
    /// Who says so: none for the organisation key itself.
    #[n(6)]
    pub issuer: Option<Issuer>,
    /// From when it is good.
    #[n(7)]
    pub from: Timestamp,
    /// Until when; binds whoever builds a Commit, never whoever judges one.
    #[n(8)]
    pub until: Timestamp,
    /// Whether the endorser states the name, too; otherwise the person gave it themselves, and nobody has confirmed it.
    #[n(9)]
    #[cbor(default)]
    pub confirmed: bool,
    /// Whether the endorser took them in in the place of whoever had invited them, after comparing the number of newcomer and firm.
    #[cbor(n(50), skip_if = "is_not")]
    pub adopted: bool,
    /// The hash of the newest [`EndorsementRevocation`] about the person, if there was one: this endorsement was given in its knowledge.
    #[n(70)]
    pub after: Option<Digest>,
}

/// A device is nobody's any more. Signed under [`Label::DeviceRevocation`]: by the person key, or, where it names an issuer, by the MLS
/// key of a registrar's device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceRevocation {
    /// Whose device.
    #[n(0)]
    pub person: PersonId,
    /// Which device.
    #[n(1)]
    pub device: DeviceId,
    /// The registrar's device that says so; none for the person's own key.
    #[n(2)]
    pub issuer: Option<Issuer>,
    /// When, by the author's clock.
    #[n(3)]
    pub at: Timestamp,
}

/// The device that signed an endorsement, an invite or a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Issuer {
    /// Whose device.
    #[n(0)]
    pub person: PersonId,
    /// Which device.
    #[n(1)]
    pub device: DeviceId,
}

/// A display name and the salt of its commitment: travels end to end only, never to the relay in clear, nor into a log.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Name {
    /// The name, at most [`limits::NAME_MAX`] bytes.
    #[n(0)]
    pub name: String,
    /// 128 random bits.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub salt: [u8; 16],
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(redacted)")
    }
}

impl Name {
    /// A name with a fresh salt.
    ///
    /// # Errors
    /// [`Malformed::TooLarge`] above [`limits::NAME_MAX`] bytes.
    pub fn new(name: &str) -> Result<Self, Malformed> {
        let name = name.trim();
        if name.is_empty() {
            return Err(Malformed::Text("name"));
        }
        if name.len() > limits::NAME_MAX {
            return Err(Malformed::TooLarge { what: "name", limit: limits::NAME_MAX });
        }
        Ok(Self { name: name.to_owned(), salt: suite::random() })
    }

    /// What an endorsement says of it.
    pub fn commitment(&self) -> Digest {
        Digest::of(&[b"privity/1 name\0", &self.salt, self.name.as_bytes()])
    }
}

/// Everything the directory holds of one person, as it travels in chains, bundles and Welcomes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Identity {
    /// Who.
    #[n(0)]
    pub person: PersonId,
    /// The person's key.
    #[n(1)]
    pub person_key: PublicKey,
    /// Certificates of the person's devices.
    #[n(2)]
    pub certificates: Vec<Signed>,
    /// The newest endorsement.
    #[n(3)]
    pub endorsement: Signed,
    /// How keys that the person had before lead to this one, the oldest first; at most [`limits::KEY_STEPS_MAX`].
    #[cbor(n(40), default, skip_if = "Vec::is_empty")]
    pub line: Vec<Step>,
}

impl Identity {
    /// How many steps lead from a key to this one; none where they do not.
    pub fn steps_since(&self, key: Digest) -> Option<usize> {
        if self.person_key.digest() == key {
            return Some(0);
        }
        let at = self.line.iter().position(|step| step.key.digest() == key)?;
        Some(self.line.len().saturating_sub(at))
    }

    /// The person's key, and those before it that its steps begin at.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        std::iter::once(&self.person_key).chain(self.line.iter().map(|step| &step.key))
    }

    /// Whether a certificate here names that device; believed by nobody yet.
    pub fn certifies(&self, device: DeviceId) -> bool {
        let said = |signed: &Signed| signed.unverified::<DeviceCertificate>("device certificate").ok();
        self.certificates.iter().any(|signed| said(signed).is_some_and(|said| said.device == device))
    }
}

/// What a chain of signatures says of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who.
    pub person: PersonId,
    /// The person's key.
    pub person_key: PublicKey,
    /// The newest endorsement.
    pub endorsement: Endorsement,
    /// The devices, each with the hash of its certificate.
    pub devices: Vec<(Digest, DeviceCertificate)>,
    /// How keys before lead to the person's key.
    pub line: Vec<KeyStep>,
}

impl Verified {
    /// Whether a matter that lists this key of the person means them: it is theirs, or one that leads to theirs.
    pub fn is_listed_as(&self, key: Digest) -> bool {
        self.person_key.digest() == key || stays_since(&self.line, key).is_some()
    }

    /// The certificate of one device.
    pub fn device(&self, device: DeviceId) -> Option<&DeviceCertificate> {
        self.devices.iter().map(|(_, certificate)| certificate).find(|certificate| certificate.device == device)
    }
}

/// Verifies a chain that begins with a person and ends with one whom the organisation key endorses.
///
/// # Errors
/// [`PeerMisbehaved`] if any link is missing or says what its author may not say.
pub fn verify_chain(chain: &[Identity], organisation: &PublicKey) -> Result<Verified, Error> {
    if chain.len() > limits::CHAIN_MAX {
        return Err(Malformed::TooLarge { what: "chain of endorsements", limit: limits::CHAIN_MAX }.into());
    }
    let (first, rest) = chain.split_first().ok_or(PeerMisbehaved::NotEndorsed)?;
    let endorsement: Endorsement = first.endorsement.unverified("endorsement")?;
    let endorsement: Endorsement = match endorsement.issuer {
        None => first.endorsement.verify(Label::Endorsement, organisation, "endorsement")?,
        Some(issuer) => {
            let above = verify_chain(rest, organisation)?;
            let device = above.device(issuer.device).ok_or(PeerMisbehaved::NotEndorsed)?;
            if above.person != issuer.person {
                return Err(PeerMisbehaved::NotEndorsed.into());
            }
            let said = &above.endorsement;
            if !may_endorse(said.role, said.registrar, endorsement.role) || endorsement.registrar {
                return Err(PeerMisbehaved::Role("endorsing").into());
            }
            first.endorsement.verify(Label::Endorsement, &device.mls_key, "endorsement")?
        }
    };
    check_handle(&endorsement.handle)?;
    // The endorsement is of this key, or of one that leads to it.
    let line = verify_line(first)?;
    let named = endorsement.person_key;
    let leads = named == first.person_key.digest() || stays_since(&line, named).is_some();
    if endorsement.person != first.person || !leads {
        return Err(PeerMisbehaved::Mismatch("an endorsement").into());
    }
    let devices = verify_devices(first)?;
    Ok(Verified { person: first.person, person_key: first.person_key.clone(), endorsement, devices, line })
}

/// The devices that a person's key certifies.
///
/// # Errors
/// [`PeerMisbehaved`] if one certificate is not signed by that key or names somebody else.
pub fn verify_devices(identity: &Identity) -> Result<Vec<(Digest, DeviceCertificate)>, Error> {
    if identity.certificates.len() > limits::DEVICES_PER_PERSON_MAX {
        return Err(Malformed::TooLarge { what: "devices", limit: limits::DEVICES_PER_PERSON_MAX }.into());
    }
    let mut devices = Vec::new();
    for signed in &identity.certificates {
        let certificate: DeviceCertificate =
            signed.verify(Label::DeviceCertificate, &identity.person_key, "device certificate")?;
        if certificate.person != identity.person {
            return Err(PeerMisbehaved::Mismatch("a device certificate").into());
        }
        devices.push((signed.digest(), certificate));
    }
    Ok(devices)
}

/// Checks the shape of a handle: `[a-z0-9.-]`, 2 to 32 characters, a letter or digit at both ends.
///
/// # Errors
/// [`Malformed::Text`] for any other.
pub fn check_handle(handle: &str) -> Result<(), Malformed> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = limits::HANDLE_CHARS.contains(&handle.len())
        && handle.chars().all(|c| plain(c) || c == '.' || c == '-')
        && handle.starts_with(plain)
        && handle.ends_with(plain);
    if good { Ok(()) } else { Err(Malformed::Text("handle")) }
}

/// A handle with characters that people confuse made the same: two handles that look alike have one skeleton.
pub fn handle_skeleton(handle: &str) -> String {
    let mut skeleton = String::new();
    for character in handle.chars() {
        match character {
            '0' => skeleton.push('o'),
            '1' | 'i' => skeleton.push('l'),
            '5' => skeleton.push('s'),
            '.' | '-' => {}
            other => skeleton.push(other),
        }
    }
    skeleton.replace("rn", "m").replace("vv", "w").replace("cl", "d")
}

#[cfg(test)]
#[path = "identity/tests.rs"]
mod tests;
