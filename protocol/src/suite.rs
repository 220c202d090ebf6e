//! The one hybrid suite; with its folder, the only file of this crate that imports cryptographic libraries.
//!
//! - KEM: X-Wing (X25519 + ML-KEM-768, draft-connolly-cfrg-xwing-kem), HPKE id 0x647a; private keys are 32-byte seeds.
//! - AEAD AES-256-GCM, KDF HKDF-SHA-384, hash SHA-384 (RFC 9180 ids 2, 2).
//! - Signatures: Ed25519 (RFC 8032) **and** ML-DSA-65 (FIPS 204), both over `label ‖ 0x00 ‖ message`, both required.
//!
//! Invariant: a signature verifies only if both halves do, and only under the label it was made for.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement;
use aws_lc_rs::digest::{SHA384, SHA384_OUTPUT_LEN};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, CryptoProvider, HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey,
    SignaturePublicKey, SignatureSecretKey,
};
use mls_rs_core::error::IntoAnyError;
use mls_rs_crypto_hpke::context::{ContextR, ContextS};
use mls_rs_crypto_hpke::hpke::{Hpke, HpkeError};
use mls_rs_crypto_traits::{AeadId, AeadType, KdfId, KdfType, KemResult, KemType};
use shake::{ExtendableOutput, Shake256, Update, XofReader};
use subtle::ConstantTimeEq;
use x_wing::{DecapsulationKeyRejectNonContrib, Decapsulator, EncapsulationKey, KeyExport, TryDecapsulate};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Malformed, Misuse, PeerMisbehaved};

pub use fingerprint::Fingerprint;

mod fingerprint;
pub mod note;

/// The suite's code point in MLS, from the private-use range (RFC 9420, section 17.1).
pub const CIPHER_SUITE: u16 = 0xF0A2;
/// HPKE's id of X-Wing.
pub const KEM_ID: u16 = 0x647a;
/// Bytes of a hybrid public key: Ed25519 ‖ ML-DSA-65.
pub const PUBLIC_KEY_LEN: usize = ED25519_PUBLIC_LEN + MLDSA_PUBLIC_LEN;
/// Bytes of a hybrid signature: Ed25519 ‖ ML-DSA-65.
pub const SIGNATURE_LEN: usize = ED25519_SIGNATURE_LEN + MLDSA_SIGNATURE_LEN;
/// Bytes of a hybrid private key: two 32-byte seeds, Ed25519 ‖ ML-DSA-65.
pub const SECRET_KEY_LEN: usize = 64;
/// Bytes of a hash, SHA-384.
pub const DIGEST_LEN: usize = SHA384_OUTPUT_LEN;
/// Bytes of an AES-256-GCM key.
pub const AEAD_KEY_LEN: usize = 32;

const ED25519_PUBLIC_LEN: usize = 32;
const MLDSA_PUBLIC_LEN: usize = 1952;
const ED25519_SIGNATURE_LEN: usize = 64;
const MLDSA_SIGNATURE_LEN: usize = 3309;
const TAG_LEN: usize = 16;
/// The most that HKDF-Expand gives (RFC 5869, section 2.3).
const EXPAND_MAX: usize = 255 * DIGEST_LEN;

/// What a signature is for. One label a purpose; a signature made under one never verifies under another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Label {
    /// Whatever MLS signs (RFC 9420 adds its own label inside).
    Mls,
    /// A person certifies a device.
    DeviceCertificate,
    /// An endorsement of a person.
    Endorsement,
    /// An invite's statement by its inviter.
    Invite,
    /// A device's hello to a relay.
    HelloDevice,
    /// A relay's answer to a hello.
    HelloRelay,
    /// A device asks to be let back into a matter.
    Repair,
    /// A device opens the successor of a matter.
    Successor,
    /// A person, or a registrar's device, revokes a device.
    DeviceRevocation,
    /// A person certifies the key that may replace theirs.
    RecoveryKey,
    /// One person key takes the place of another.
    Replacement,
    /// Whoever may endorse somebody takes their endorsement back.
    EndorsementRevocation,
    /// A relay says which keys sign its log's checkpoints.
    LogKeys,
    /// A device tells another of the same person something.
    DeviceNote,
    /// A device says what it found out about its relay.
    Proof,
    /// A relay's key says which one takes its place.
    RelayRotation,
}

impl Label {
    /// The label's bytes on the wire.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Mls => b"privity/1 mls",
            Self::DeviceCertificate => b"privity/1 device certificate",
            Self::Endorsement => b"privity/1 endorsement",
            Self::Invite => b"privity/1 invite",
            Self::HelloDevice => b"privity/1 hello device",
            Self::HelloRelay => b"privity/1 hello relay",
            Self::Repair => b"privity/1 repair",
            Self::Successor => b"privity/1 successor",
            Self::DeviceRevocation => b"privity/1 device revocation",
            Self::RecoveryKey => b"privity/1 recovery key",
            Self::Replacement => b"privity/1 replacement",
            Self::EndorsementRevocation => b"privity/1 endorsement revocation",
            Self::LogKeys => b"privity/1 log keys",
            Self::DeviceNote => b"privity/1 device note",
            Self::Proof => b"privity/1 proof",
            Self::RelayRotation => b"privity/1 relay rotation",
        }
    }

    fn with(self, message: &[u8]) -> Vec<u8> {
        [self.as_bytes(), &[0], message].concat()
    }
}

/// A SHA-384 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[n(0)] ByteArray<DIGEST_LEN>);

impl Digest {
    /// The hash of the parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&SHA384);
        for part in parts {
            context.update(part);
        }
        let mut bytes = [0; DIGEST_LEN];
        for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(ByteArray::from(bytes))
    }

    /// The 48 bytes.
    pub fn as_bytes(&self) -> &[u8; DIGEST_LEN] {
        &self.0
    }

    /// The digest in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] unless they are 48.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: [u8; DIGEST_LEN] = bytes.try_into().map_err(|_| Malformed::Length("hash"))?;
        Ok(Self(ByteArray::from(bytes)))
    }

    /// The first 32 bytes: a fingerprint, as invites and people carry it.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(self.0.iter()) {
            *to = *from;
        }
        Fingerprint(ByteArray::from(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(6) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}…")
    }
}

/// Fills an array from the system's randomness.
///
/// Aborts the process where the operating system has none to give: nothing that this crate does is safe then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

fn fill_random(bytes: &mut [u8]) {
    if SystemRandom::new().fill(bytes).is_err() {
        std::process::abort();
    }
}

/// HMAC-SHA-384 (RFC 2104).
pub fn mac(key: &[u8], message: &[u8]) -> Digest {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA384, key), message);
    Digest::from_slice(tag.as_ref()).unwrap_or_else(|_| Digest::of(&[message]))
}

/// Compares in constant time.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// HKDF-SHA-384 (RFC 5869) with an empty salt: `N` bytes for one purpose out of `secret`.
pub fn derive<const N: usize>(secret: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let prk = mac(&[0; DIGEST_LEN], secret);
    let mut out = Zeroizing::new([0; N]);
    let bytes = expand(prk.as_bytes(), info, N);
    for (to, from) in out.iter_mut().zip(bytes.iter()) {
        *to = *from;
    }
    out
}

/// HKDF-Expand (RFC 5869, section 2.3) of at most [`EXPAND_MAX`] bytes.
fn expand(prk: &[u8], info: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA384, prk);
    let mut out = Zeroizing::new(Vec::with_capacity(len.saturating_add(DIGEST_LEN)));
    let mut block = Zeroizing::new(Vec::new());
    let mut counter = 1_u8;
    while out.len() < len {
        let mut context = hmac::Context::with_key(&key);
        context.update(&block);
        context.update(info);
        context.update(&[counter]);
        *block = context.sign().as_ref().to_vec();
        out.extend_from_slice(&block);
        counter = counter.wrapping_add(1);
    }
    out.truncate(len);
    out
}

/// Seals under AES-256-GCM with a random nonce in front: for values that are sealed once under keys that seal few.
///
/// # Errors
/// [`Misuse::Crypto`] if the library fails.
pub fn seal(key: &[u8; AEAD_KEY_LEN], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Misuse> {
    let nonce: [u8; NONCE_LEN] = random();
    let sealed = aead_seal(key, &nonce, aad, plaintext)?;
    Ok([&nonce[..], &sealed].concat())
}

/// Opens what [`seal`] sealed.
///
/// # Errors
/// [`Malformed`] if it was not sealed under this key with this `aad`, or was altered.
pub fn open(key: &[u8; AEAD_KEY_LEN], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(Malformed::Length("sealed value"))?;
    aead_open(key, nonce, aad, sealed).map_err(|_| Malformed::Cbor("sealed value"))
}

fn aead_seal(key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Misuse> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Misuse::Crypto)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Misuse::Crypto)?;
    let mut bytes = Vec::with_capacity(plaintext.len().saturating_add(TAG_LEN));
    bytes.extend_from_slice(plaintext);
    LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::from(aad), &mut bytes).map_err(|_| Misuse::Crypto)?;
    Ok(bytes)
}

fn aead_open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Misuse> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Misuse::Crypto)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Misuse::Crypto)?;
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let len = LessSafeKey::new(key).open_in_place(nonce, Aad::from(aad), &mut bytes).map_err(|_| Misuse::Crypto)?.len();
    bytes.truncate(len);
    Ok(bytes)
}

/// A hybrid public key: Ed25519 (32 bytes) ‖ ML-DSA-65 (1952 bytes).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

impl PublicKey {
    /// The key in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] unless they are 1,984.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() == PUBLIC_KEY_LEN { Ok(Self(bytes.to_vec())) } else { Err(Malformed::Length("public key")) }
    }

    /// The key of these halves.
    ///
    /// # Errors
    /// [`Malformed`] if either has the wrong length.
    pub fn from_halves(ed25519: &[u8], ml_dsa: &[u8]) -> Result<Self, Malformed> {
        if ed25519.len() != ED25519_PUBLIC_LEN {
            return Err(Malformed::Length("Ed25519 half"));
        }
        Self::from_slice(&[ed25519, ml_dsa].concat())
    }

    /// The 1,984 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The Ed25519 half.
    pub fn ed25519(&self) -> &[u8] {
        self.0.get(..ED25519_PUBLIC_LEN).unwrap_or_default()
    }

    /// The ML-DSA-65 half.
    pub fn ml_dsa(&self) -> &[u8] {
        self.0.get(ED25519_PUBLIC_LEN..).unwrap_or_default()
    }

    /// The whole hash of the key.
    pub fn digest(&self) -> Digest {
        Digest::of(&[&self.0])
    }

    /// What people compare and invites pin.
    pub fn fingerprint(&self) -> Fingerprint {
        self.digest().fingerprint()
    }

    /// Verifies a hybrid signature over `label ‖ 0x00 ‖ message`; both halves must verify.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Signature`], naming `what`, if either half does not.
    pub fn verify(
        &self,
        label: Label,
        message: &[u8],
        signature: &[u8],
        what: &'static str,
    ) -> Result<(), PeerMisbehaved> {
        let refused = PeerMisbehaved::Signature(what);
        if signature.len() != SIGNATURE_LEN || self.0.len() != PUBLIC_KEY_LEN {
            return Err(refused);
        }
        let Some((classical, post_quantum)) = signature.split_at_checked(ED25519_SIGNATURE_LEN) else {
            return Err(refused);
        };
        let message = label.with(message);
        let classical = UnparsedPublicKey::new(&ED25519, self.ed25519()).verify(&message, classical);
        let post_quantum = UnparsedPublicKey::new(&ML_DSA_65, self.ml_dsa()).verify(&message, post_quantum);
        if classical.is_ok() && post_quantum.is_ok() { Ok(()) } else { Err(refused) }
    }

    /// Verifies an Ed25519 signature alone: for a hello, whose other half is TLS's own ML-DSA-65 signature.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Signature`] if it does not verify.
    pub fn verify_ed25519(
        &self,
        label: Label,
        message: &[u8],
        signature: &[u8],
        what: &'static str,
    ) -> Result<(), PeerMisbehaved> {
        UnparsedPublicKey::new(&ED25519, self.ed25519())
            .verify(&label.with(message), signature)
            .map_err(|_| PeerMisbehaved::Signature(what))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.digest())
    }
}

/// A hybrid private key, as its two seeds: Ed25519 (32 bytes) ‖ ML-DSA-65 (32 bytes).
#[derive(Clone, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(transparent)]
pub struct SecretKey(#[cbor(n(0), with = "minicbor::bytes")] [u8; SECRET_KEY_LEN]);

impl SecretKey {
    /// A fresh key.
    pub fn generate() -> Self {
        Self(random())
    }

    /// The key with these seeds.
    ///
    /// # Errors
    /// [`Malformed`] unless they are 64 bytes.
    pub fn from_slice(seeds: &[u8]) -> Result<Self, Malformed> {
        Ok(Self(seeds.try_into().map_err(|_| Malformed::Length("private key"))?))
    }

    /// The 64 bytes of both seeds: a secret.
    pub fn as_bytes(&self) -> &[u8; SECRET_KEY_LEN] {
        &self.0
    }

    /// The matching public key.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn public(&self) -> Result<PublicKey, Misuse> {
        let (classical, post_quantum) = self.pairs()?;
        let bytes = [classical.public_key().as_ref(), post_quantum.public_key().as_ref()].concat();
        PublicKey::from_slice(&bytes).map_err(|_| Misuse::Crypto)
    }

    /// Signs `label ‖ 0x00 ‖ message` with both halves: 3,373 bytes.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign(&self, label: Label, message: &[u8]) -> Result<Vec<u8>, Misuse> {
        let (classical, post_quantum) = self.pairs()?;
        let message = label.with(message);
        let mut signature = classical.sign(&message).as_ref().to_vec();
        let mut half = vec![0; MLDSA_SIGNATURE_LEN];
        post_quantum.sign(&message, &mut half).map_err(|_| Misuse::Crypto)?;
        signature.extend_from_slice(&half);
        Ok(signature)
    }

    /// Signs with the Ed25519 half alone; see [`PublicKey::verify_ed25519`].
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign_ed25519(&self, label: Label, message: &[u8]) -> Result<Vec<u8>, Misuse> {
        Ok(self.pairs()?.0.sign(&label.with(message)).as_ref().to_vec())
    }

    /// The seed of the ML-DSA-65 half, for the TLS library.
    pub fn ml_dsa_seed(&self) -> &[u8] {
        self.0.get(32..).unwrap_or_default()
    }

    fn pairs(&self) -> Result<(Ed25519KeyPair, PqdsaKeyPair), Misuse> {
        let (classical, post_quantum) = self.0.split_at_checked(32).ok_or(Misuse::Crypto)?;
        Ok((
            Ed25519KeyPair::from_seed_unchecked(classical).map_err(|_| Misuse::Crypto)?,
            PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, post_quantum).map_err(|_| Misuse::Crypto)?,
        ))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// An error inside the suite, as mls-rs wants it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// A key, ciphertext or signature is not acceptable.
    #[error("cryptographic input refused")]
    Refused,
    /// HPKE failed.
    #[error(transparent)]
    Hpke(#[from] HpkeError),
    /// What was sealed to a private key of this device does not open: the one failure that others need not share.
    #[error("what was sealed to this device does not open")]
    Unopened,
}

impl IntoAnyError for SuiteError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// X-Wing as an HPKE KEM.
#[derive(Debug, Clone, Copy)]
struct XWing;

impl XWing {
    fn from_seed(seed: [u8; 32]) -> (HpkeSecretKey, HpkePublicKey) {
        let key = DecapsulationKeyRejectNonContrib::from(seed);
        let public = key.encapsulation_key().to_bytes().to_vec();
        (HpkeSecretKey::from(seed.to_vec()), HpkePublicKey::from(public))
    }

    fn parse(key: &[u8]) -> Result<EncapsulationKey, SuiteError> {
        EncapsulationKey::try_from(key).map_err(|_| SuiteError::Refused)
    }
}

impl KemType for XWing {
    type Error = SuiteError;

    fn kem_id(&self) -> u16 {
        KEM_ID
    }

    /// X-Wing's DeriveKeyPair: the seed is SHAKE256(ikm, 32).
    fn generate_deterministic(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), SuiteError> {
        let mut shake = Shake256::default();
        shake.update(ikm);
        let mut seed = [0; 32];
        shake.finalize_xof().read(&mut seed);
        let pair = Self::from_seed(seed);
        seed.zeroize();
        Ok(pair)
    }

    fn generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), SuiteError> {
        Ok(Self::from_seed(random()))
    }

    /// ML-KEM's modulus check (FIPS 203, section 7.2), and no X25519 point of small order.
    fn public_key_validate(&self, key: &HpkePublicKey) -> Result<(), SuiteError> {
        Self::parse(key)?;
        let point = key.get(1184..).ok_or(SuiteError::Refused)?;
        let probe = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &SystemRandom::new())
            .map_err(|_| SuiteError::Refused)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, point);
        agreement::agree_ephemeral(probe, peer, SuiteError::Refused, |_| Ok(()))
    }

    fn encap(&self, remote_key: &HpkePublicKey) -> Result<KemResult, SuiteError> {
        self.public_key_validate(remote_key)?;
        let key = Self::parse(remote_key)?;
        let mut randomness: [u8; 64] = random();
        let (ciphertext, shared) = key.encapsulate_deterministic(&randomness.into());
        randomness.zeroize();
        Ok(KemResult::new(shared.to_vec(), ciphertext.to_vec()))
    }

    fn decap(&self, enc: &[u8], secret_key: &HpkeSecretKey, _: &HpkePublicKey) -> Result<Vec<u8>, SuiteError> {
        let seed: [u8; 32] = secret_key.as_ref().try_into().map_err(|_| SuiteError::Refused)?;
        let ciphertext = enc.try_into().map_err(|_| SuiteError::Refused)?;
        let shared = DecapsulationKeyRejectNonContrib::from(seed)
            .try_decapsulate(&ciphertext)
            .map_err(|_| SuiteError::Refused)?;
        Ok(shared.to_vec())
    }

    fn seed_length_for_derive(&self) -> usize {
        32
    }
}

/// HKDF-SHA-384.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kdf;

impl KdfType for Kdf {
    type Error = SuiteError;

    fn kdf_id(&self) -> u16 {
        KdfId::HkdfSha384 as u16
    }

    fn expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Vec<u8>, SuiteError> {
        if len > EXPAND_MAX {
            return Err(SuiteError::Refused);
        }
        Ok(expand(prk, info, len).to_vec())
    }

    fn extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, SuiteError> {
        let salt = if salt.is_empty() { &[0; DIGEST_LEN] } else { salt };
        Ok(mac(salt, ikm).as_bytes().to_vec())
    }

    fn extract_size(&self) -> usize {
        DIGEST_LEN
    }
}

/// AES-256-GCM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aead;

impl AeadType for Aead {
    type Error = SuiteError;

    fn aead_id(&self) -> u16 {
        AeadId::Aes256Gcm as u16
    }

    fn seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>, SuiteError> {
        aead_seal(key, nonce, aad.unwrap_or_default(), data).map_err(|_| SuiteError::Refused)
    }

    fn open(&self, key: &[u8], ciphertext: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>, SuiteError> {
        let opened = aead_open(key, nonce, aad.unwrap_or_default(), ciphertext).map_err(|_| SuiteError::Refused)?;
        Ok(opened.to_vec())
    }

    fn key_size(&self) -> usize {
        AEAD_KEY_LEN
    }

    fn nonce_size(&self) -> usize {
        NONCE_LEN
    }
}

/// The suite as mls-rs uses it.
#[derive(Clone)]
pub(crate) struct Suite {
    hpke: Hpke<XWing, Kdf, Aead>,
}

impl Suite {
    pub(crate) fn new() -> Self {
        Self { hpke: Hpke::new(XWing, Kdf, Some(Aead)) }
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Suite(0xF0A2)")
    }
}

impl CryptoProvider for Suite {
    type CipherSuiteProvider = Self;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![CipherSuite::from(CIPHER_SUITE)]
    }

    fn cipher_suite_provider(&self, cipher_suite: CipherSuite) -> Option<Self> {
        (u16::from(cipher_suite) == CIPHER_SUITE).then(|| self.clone())
    }
}

impl CipherSuiteProvider for Suite {
    type Error = SuiteError;
    type HpkeContextS = ContextS<Kdf, Aead>;
    type HpkeContextR = ContextR<Kdf, Aead>;

    fn cipher_suite(&self) -> CipherSuite {
        CipherSuite::from(CIPHER_SUITE)
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, SuiteError> {
        Ok(Digest::of(&[data]).as_bytes().to_vec())
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, SuiteError> {
        Ok(mac(key, data).as_bytes().to_vec())
    }

    fn aead_seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>, SuiteError> {
        Aead.seal(key, data, aad, nonce)
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        aead_open(key, nonce, aad.unwrap_or_default(), ciphertext).map_err(|_| SuiteError::Refused)
    }

    fn aead_key_size(&self) -> usize {
        AEAD_KEY_LEN
    }

    fn aead_nonce_size(&self) -> usize {
        NONCE_LEN
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        Kdf.extract(salt, ikm).map(Zeroizing::new)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        Kdf.expand(prk, info, len).map(Zeroizing::new)
    }

    fn kdf_extract_size(&self) -> usize {
        DIGEST_LEN
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Result<HpkeCiphertext, SuiteError> {
        Ok(self.hpke.seal(remote_key, info, None, aad, pt)?)
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext, SuiteError> {
        Ok(self.hpke.seal(remote_key, info, Some(psk), aad, pt)?)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        self.hpke.open(ciphertext, local_secret, local_public, info, None, aad).map_err(|_| SuiteError::Unopened)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        Ok(self.hpke.open(ciphertext, local_secret, local_public, info, Some(psk), aad)?)
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS), SuiteError> {
        Ok(self.hpke.setup_sender(remote_key, info, None)?)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR, SuiteError> {
        Ok(self.hpke.setup_receiver(kem_output, local_secret, local_public, info, None)?)
    }

    /// Not `Hpke::derive`: that runs RFC 9180's LabeledExtract first, which is not X-Wing's DeriveKeyPair.
    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), SuiteError> {
        XWing.generate_deterministic(ikm)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), SuiteError> {
        XWing.generate()
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<(), SuiteError> {
        XWing.public_key_validate(key)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<(), SuiteError> {
        fill_random(out);
        Ok(())
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey), SuiteError> {
        let secret = SecretKey::generate();
        let public = secret.public().map_err(|_| SuiteError::Refused)?;
        Ok((secret.as_bytes().to_vec().into(), public.as_bytes().to_vec().into()))
    }

    fn signature_key_derive_public(&self, secret_key: &SignatureSecretKey) -> Result<SignaturePublicKey, SuiteError> {
        let secret = SecretKey::from_slice(secret_key.as_bytes()).map_err(|_| SuiteError::Refused)?;
        let public = secret.public().map_err(|_| SuiteError::Refused)?;
        Ok(public.as_bytes().to_vec().into())
    }

    fn sign(&self, secret_key: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>, SuiteError> {
        let secret = SecretKey::from_slice(secret_key.as_bytes()).map_err(|_| SuiteError::Refused)?;
        secret.sign(Label::Mls, data).map_err(|_| SuiteError::Refused)
    }

    fn verify(&self, public_key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<(), SuiteError> {
        let public = PublicKey::from_slice(public_key.as_bytes()).map_err(|_| SuiteError::Refused)?;
        public.verify(Label::Mls, data, signature, "MLS message").map_err(|_| SuiteError::Refused)
    }
}

#[cfg(test)]
mod tests;
