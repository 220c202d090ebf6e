//! What the audit log is hashed and signed with: SHA-256, as RFC 9162 and C2SP tlog-tiles have it, Ed25519 over a note's text (C2SP
//! signed-note) and ML-DSA-44 (C2SP tlog-cosignature).
//!
//! Invariant: no note can be taken for anything that the relay signs under a [`Label`](super::Label): those have a zero byte after
//! the label, and a note has none.

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN};
use aws_lc_rs::signature::{ED25519, KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, PqdsaKeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::{PublicKey, SecretKey, derive};
use crate::error::Misuse;

/// Bytes of a SHA-256 hash.
pub const SHA256_LEN: usize = SHA256_OUTPUT_LEN;
/// Bytes of an ML-DSA-44 public key.
pub const COSIGN_KEY_LEN: usize = 1312;
/// Bytes of an ML-DSA-44 signature.
pub const COSIGNATURE_LEN: usize = 2420;

/// SHA-256 of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = [0; SHA256_LEN];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

impl SecretKey {
    /// Signs the text of a note with the Ed25519 half.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign_note(&self, text: &[u8]) -> Result<Vec<u8>, Misuse> {
        Ok(self.pairs()?.0.sign(text).as_ref().to_vec())
    }

    /// Cosigns with the ML-DSA-44 key that belongs to this one: derived from it, so that there is one file to keep.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn cosign(&self, message: &[u8]) -> Result<Vec<u8>, Misuse> {
        let mut signature = vec![0; COSIGNATURE_LEN];
        let length = self.cosigner()?.sign(message, &mut signature).map_err(|_| Misuse::Crypto)?;
        signature.truncate(length);
        Ok(signature)
    }

    /// The public half of the ML-DSA-44 key.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn cosign_key(&self) -> Result<Vec<u8>, Misuse> {
        Ok(self.cosigner()?.public_key().as_ref().to_vec())
    }

    fn cosigner(&self) -> Result<PqdsaKeyPair, Misuse> {
        let seed: Zeroizing<[u8; 32]> = derive(self.as_bytes(), b"privity/1 log cosigner");
        PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &*seed).map_err(|_| Misuse::Crypto)
    }
}

/// Whether a note's text was signed by the Ed25519 half of `key`.
pub fn note_signed(key: &PublicKey, text: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.ed25519()).verify(text, signature).is_ok()
}

/// Whether a message was cosigned with this ML-DSA-44 key.
pub fn cosigned(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ML_DSA_44, key).verify(message, signature).is_ok()
}
