//! HPKE (RFC 9180), MLS's codec and its key schedule (RFC 9420), as far as the vectors need them: written out, so that the engine is held
//! against something that shares nothing with it but HMAC, AES-256-GCM and X-Wing.

use privity_protocol::suite::{self, CIPHER_SUITE, Digest, KEM_ID};
use x_wing::{DecapsulationKeyRejectNonContrib, Decapsulator, EncapsulationKey, KeyExport, TryDecapsulate};

/// HKDF-Extract (RFC 5869, section 2.2).
pub(crate) fn extract(salt: &[u8], ikm: &[u8]) -> Vec<u8> {
    suite::mac(salt, ikm).as_bytes().to_vec()
}

/// HKDF-Expand (RFC 5869, section 2.3).
pub(crate) fn expand(prk: &[u8], info: &[u8], len: usize) -> Vec<u8> {
    let (mut out, mut block) = (Vec::new(), Vec::new());
    for counter in 1_u8.. {
        if out.len() >= len {
            break;
        }
        block = suite::mac(prk, &[&block, info, &[counter]].concat()).as_bytes().to_vec();
        out.extend_from_slice(&block);
    }
    out.truncate(len);
    out
}

/// AES-256-GCM with the nonce given.
pub(crate) fn aead_open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    suite::open(key.try_into().unwrap(), aad, &[nonce, sealed].concat()).ok().map(|opened| opened.to_vec())
}

/// X-Wing's public key of a seed.
pub(crate) fn x_wing_public(seed: &[u8]) -> Vec<u8> {
    x_wing_key(seed).encapsulation_key().to_bytes().to_vec()
}

/// X-Wing's ciphertext and shared secret for a public key and 64 bytes: ML-KEM-768's 32, then X25519's ephemeral key.
pub(crate) fn x_wing_encapsulate(public: &[u8], randomness: &[u8; 64]) -> (Vec<u8>, Vec<u8>) {
    let key = EncapsulationKey::try_from(public).unwrap();
    let (ciphertext, shared) = key.encapsulate_deterministic(&(*randomness).into());
    (ciphertext.to_vec(), shared.to_vec())
}

/// X-Wing's shared secret.
pub(crate) fn x_wing_decapsulate(seed: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    Some(x_wing_key(seed).try_decapsulate(&ciphertext.try_into().ok()?).ok()?.to_vec())
}

fn x_wing_key(seed: &[u8]) -> DecapsulationKeyRejectNonContrib {
    DecapsulationKeyRejectNonContrib::from(<[u8; 32]>::try_from(seed).unwrap())
}

/// HPKE's key and nonce of the first message, mode base (RFC 9180, section 5.1).
pub(crate) fn hpke_schedule(shared: &[u8], info: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let suite_id = [&b"HPKE"[..], &KEM_ID.to_be_bytes(), &[0, 2], &[0, 2]].concat();
    let labeled_extract = |salt: &[u8], label: &str, ikm: &[u8]| {
        extract(salt, &[b"HPKE-v1", &suite_id[..], label.as_bytes(), ikm].concat())
    };
    let context =
        [&[0][..], &labeled_extract(b"", "psk_id_hash", b""), &labeled_extract(b"", "info_hash", info)].concat();
    let secret = labeled_extract(shared, "secret", b"");
    let labeled_expand = |label: &str, len: u16| {
        let info = [&len.to_be_bytes()[..], b"HPKE-v1", &suite_id, label.as_bytes(), &context].concat();
        expand(&secret, &info, usize::from(len))
    };
    (labeled_expand("key", 32), labeled_expand("base_nonce", 12))
}

/// HPKE's single-shot opening, mode base.
pub(crate) fn hpke_open(seed: &[u8], enc: &[u8], info: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (key, nonce) = hpke_schedule(&x_wing_decapsulate(seed, enc)?, info);
    aead_open(&key, &nonce, aad, sealed)
}

/// A vector with its length in front (RFC 9420, section 2.1.2).
pub(crate) fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let head = match length {
        0..64 => vec![length.to_be_bytes()[3]],
        64..16_384 => (0x4000 | length).to_be_bytes()[2..].to_vec(),
        _ => (0x8000_0000 | length).to_be_bytes().to_vec(),
    };
    [&head[..], bytes].concat()
}

/// What MLS signs, before our own label comes in front (RFC 9420, section 5.1.2).
pub(crate) fn sign_content(label: &str, content: &[u8]) -> Vec<u8> {
    [vector(format!("MLS 1.0 {label}").as_bytes()), vector(content)].concat()
}

/// RFC 9420, section 5.1.3.
pub(crate) fn encrypt_context(label: &str, context: &[u8]) -> Vec<u8> {
    sign_content(label, context)
}

/// RFC 9420, section 5.2.
pub(crate) fn reference(label: &str, value: &[u8]) -> Vec<u8> {
    Digest::of(&[&vector(format!("MLS 1.0 {label}").as_bytes()), &vector(value)]).as_bytes().to_vec()
}

/// RFC 9420, section 8.
pub(crate) fn expand_with_label(secret: &[u8], label: &str, context: &[u8], len: u16) -> Vec<u8> {
    let info = [&len.to_be_bytes()[..], &vector(format!("MLS 1.0 {label}").as_bytes()), &vector(context)].concat();
    expand(secret, &info, usize::from(len))
}

/// RFC 9420, section 8.
pub(crate) fn derive_secret(secret: &[u8], label: &str) -> Vec<u8> {
    expand_with_label(secret, label, b"", 48)
}

/// Reads MLS's encoding (RFC 9420, section 2).
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    pub(crate) fn number(&mut self, len: usize) -> u64 {
        self.take(len).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub(crate) fn vector(&mut self) -> &'a [u8] {
        let more = [0, 1, 3][usize::from(self.0[0] >> 6)];
        let length = self.number(1) & 0x3f;
        let length = self.take(more).iter().fold(length, |number, byte| number << 8 | u64::from(*byte));
        self.take(usize::try_from(length).unwrap())
    }

    /// The version, our suite: what begins key packages, and GroupContexts.
    pub(crate) fn version_and_suite(&mut self) {
        assert_eq!((self.number(2), self.number(2)), (1, u64::from(CIPHER_SUITE)));
    }
}
