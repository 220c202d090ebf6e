//! `suite.json`, `signatures.json`: the primitives as the suite puts them together.

use privity_protocol::suite::{self, Digest, Label, PublicKey, SIGNATURE_LEN};
use serde::{Deserialize, Serialize};
use shake::{ExtendableOutput, Shake256, Update, XofReader};

use crate::by_hand::{aead_open, hpke_open, hpke_schedule, x_wing_decapsulate, x_wing_encapsulate, x_wing_public};
use crate::json::{self, Hex, hex};
use crate::{recorded, secret};

const LABELS: [Label; 10] = [
    Label::Mls,
    Label::DeviceCertificate,
    Label::Endorsement,
    Label::Invite,
    Label::HelloDevice,
    Label::HelloRelay,
    Label::Repair,
    Label::Successor,
    Label::DeviceRevocation,
    Label::EndorsementRevocation,
];

/// Seeds of key and encapsulation, published in draft-connolly-cfrg-xwing-kem's appendix, which has the answers too.
const X_WING: [[&str; 2]; 3] = [
    [
        "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26",
        "3cb1eea988004b93103cfb0aeefd2a686e01fa4a58e8a3639ca8a1e3f9ae57e235b8cc873c23dc62b8d260169afa2f75ab916a58d974918835d25e6a435085b2",
    ],
    [
        "badfd6dfaac359a5efbb7bcc4b59d538df9a04302e10c8bc1cbf1a0b3a5120ea",
        "17cda7cfad765f5623474d368ccca8af0007cd9f5e4c849f167a580b14aabdefaee7eef47cb0fca9767be1fda69419dfb927e9df07348b196691abaeb580b32d",
    ],
    [
        "ef58538b8d23f87732ea63b02b4fa0f4873360e2841928cd60dd4cee8cc0d4c9",
        "22a96188d032675c8ac850933c7aff1533b94c834adbb69c6115bad4692d8619f90b0cdf8a7b9c264029ac185b70b83f2801f2f4b3f70c593ea3aeeb613a7f1b",
    ],
];

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    about: String,
    cipher_suite: u16,
    hpke_ids: [u16; 3],
    x_wing: Vec<XWing>,
    x_wing_derive_key_pair: Vec<Derived>,
    hpke_base: Vec<Hpke>,
    hkdf_sha_384: Vec<Hkdf>,
    hmac_sha_384: Vec<Hmac>,
    sha_384_fingerprint: Vec<Fingerprint>,
    hybrid_public_keys: Vec<Pair>,
}

/// The private key is the seed; the randomness is ML-KEM-768's 32 bytes, then the ephemeral X25519 key.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct XWing {
    seed: Hex,
    public_key: Hex,
    randomness: Hex,
    ciphertext: Hex,
    shared_secret: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Derived {
    ikm: Hex,
    seed: Hex,
    public_key_sha_384: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hpke {
    recipient_seed: Hex,
    randomness: Hex,
    info: Hex,
    aad: Hex,
    plaintext: Hex,
    enc: Hex,
    shared_secret: Hex,
    key: Hex,
    nonce: Hex,
    ciphertext: Hex,
}

/// The salt is 48 zeros.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hkdf {
    secret: Hex,
    info: Hex,
    output: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hmac {
    key: Hex,
    message: Hex,
    tag: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    message: Hex,
    sha_384: Hex,
    fingerprint: String,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    seeds: Hex,
    public_key: Hex,
}

#[test]
fn the_suites_answers_are_as_recorded() {
    json::computed("suite.json", &Suite {
        about: "Cipher suite 0xF0A2: KEM X-Wing (values of x_wing as published in draft-connolly-cfrg-xwing-kem), HPKE in mode base, \
                HKDF, HMAC, fingerprints (32 bytes of SHA-384 in base32), hybrid public keys (Ed25519, then ML-DSA-65) of their seeds."
            .to_owned(),
        cipher_suite: suite::CIPHER_SUITE,
        hpke_ids: [suite::KEM_ID, 2, 2],
        x_wing: X_WING.iter().map(x_wing).collect(),
        x_wing_derive_key_pair: [&b""[..], b"ikm", &[0xab; 48]].map(derived).into(),
        hpke_base: vec![hpke(1, b"info", b"", b"plaintext"), hpke(2, b"", b"aad", &[7; 100])],
        hkdf_sha_384: vec![
            hkdf::<32>(&[3; 16], b"privity/1 invite token"),
            hkdf::<48>(&[3; 16], b"privity/1 invite check"),
            hkdf::<100>(b"secret", b""),
        ],
        hmac_sha_384: [(&b""[..], &b""[..]), (b"key", b"message"), (&[1; 200], &[2; 200])].map(hmac).into(),
        sha_384_fingerprint: [&b""[..], b"abc"].map(fingerprint).into(),
        hybrid_public_keys: [1, 2].map(pair).into(),
    });
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn x_wing([seed, randomness]: &[&str; 2]) -> XWing {
    let (seed, randomness) = (unhex(seed), unhex(randomness));
    let public = x_wing_public(&seed);
    let (ciphertext, shared) = x_wing_encapsulate(&public, &randomness.clone().try_into().unwrap());
    assert_eq!(x_wing_decapsulate(&seed, &ciphertext).unwrap(), shared);
    XWing {
        seed: hex(seed),
        public_key: hex(public),
        randomness: hex(randomness),
        ciphertext: hex(ciphertext),
        shared_secret: hex(shared),
    }
}

fn derived(ikm: &[u8]) -> Derived {
    let mut shake = Shake256::default();
    shake.update(ikm);
    let mut seed = [0; 32];
    shake.finalize_xof().read(&mut seed);
    let public = Digest::of(&[&x_wing_public(&seed)]);
    Derived { ikm: hex(ikm), seed: hex(seed), public_key_sha_384: hex(public.as_bytes()) }
}

fn hpke(number: u8, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Hpke {
    let (seed, randomness) = ([number; 32], [0x40 | number; 64]);
    let (enc, shared) = x_wing_encapsulate(&x_wing_public(&seed), &randomness);
    let (key, nonce) = hpke_schedule(&shared, info);
    let ciphertext = aead_seal(&key, &nonce, aad, plaintext);
    assert_eq!(hpke_open(&seed, &enc, info, aad, &ciphertext).unwrap(), plaintext);
    assert!(hpke_open(&seed, &enc, b"other", aad, &ciphertext).is_none());
    Hpke {
        recipient_seed: hex(seed),
        randomness: hex(randomness),
        info: hex(info),
        aad: hex(aad),
        plaintext: hex(plaintext),
        enc: hex(enc),
        shared_secret: hex(shared),
        key: hex(key),
        nonce: hex(nonce),
        ciphertext: hex(ciphertext),
    }
}

/// AES-256-GCM with the nonce given.
pub(crate) fn aead_seal(key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let mut bytes = plaintext.to_vec();
    let nonce_of = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    sealing.seal_in_place_append_tag(nonce_of, Aad::from(aad), &mut bytes).unwrap();
    assert_eq!(aead_open(key, nonce, aad, &bytes).unwrap(), plaintext);
    bytes
}

fn hkdf<const N: usize>(secret: &[u8], info: &[u8]) -> Hkdf {
    Hkdf { secret: hex(secret), info: hex(info), output: hex(&suite::derive::<N>(secret, info)[..]) }
}

fn hmac((key, message): (&[u8], &[u8])) -> Hmac {
    Hmac { key: hex(key), message: hex(message), tag: hex(suite::mac(key, message).as_bytes()) }
}

fn fingerprint(message: &[u8]) -> Fingerprint {
    let digest = Digest::of(&[message]);
    Fingerprint {
        message: hex(message),
        sha_384: hex(digest.as_bytes()),
        fingerprint: digest.fingerprint().to_string(),
    }
}

fn pair(number: u8) -> Pair {
    let secret = secret(number);
    Pair { seeds: hex(secret.as_bytes()), public_key: hex(secret.public().unwrap().as_bytes()) }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    about: String,
    seeds: Hex,
    public_key: Hex,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    label: String,
    message: Hex,
    signature: Hex,
}

fn signatures() -> Signatures {
    recorded("signatures.json", || {
        let secret = secret(5);
        let sign = |(index, label): (usize, &Label)| {
            let message = vec![b'x'; index * 100];
            let signature = secret.sign(*label, &message).unwrap();
            let label = String::from_utf8(label.as_bytes().to_vec()).unwrap();
            Signature { label, message: hex(message), signature: hex(signature) }
        };
        Signatures {
            about: "Hybrid signatures, one under each label, over label, a zero byte, message: Ed25519 (64 bytes, deterministic), then \
                    ML-DSA-65 (3,309 bytes, empty context, randomised: to be verified, not made again). Both halves must verify. Hellos \
                    carry the first half alone."
                .to_owned(),
            seeds: hex(secret.as_bytes()),
            public_key: hex(secret.public().unwrap().as_bytes()),
            signatures: LABELS.iter().enumerate().map(sign).collect(),
        }
    })
}

#[test]
fn a_recorded_signature_verifies_under_its_own_label_alone() {
    let file = signatures();
    let public = PublicKey::from_slice(&file.public_key.0).unwrap();
    assert_eq!(secret(5).public().unwrap(), public);
    assert_eq!(file.signatures.len(), LABELS.len());
    for (signature, label) in file.signatures.iter().zip(LABELS) {
        assert_eq!(signature.label.as_bytes(), label.as_bytes());
        for other in LABELS {
            let verified = public.verify(other, &signature.message.0, &signature.signature.0, "x");
            assert_eq!(verified.is_ok(), other == label, "{} as {other:?}", signature.label);
        }
    }
}

#[test]
fn a_recorded_signature_needs_both_of_its_halves() {
    let file = signatures();
    let public = PublicKey::from_slice(&file.public_key.0).unwrap();
    for (Signature { message, signature, .. }, label) in file.signatures.iter().zip(LABELS) {
        for index in [0, 32, 63, 64, 1000, SIGNATURE_LEN - 1] {
            let mut broken = signature.0.clone();
            broken[index] ^= 1;
            assert!(public.verify(label, &message.0, &broken, "x").is_err(), "byte {index} of {label:?}");
        }
        assert!(public.verify_ed25519(label, &message.0, &signature.0[..64], "x").is_ok());
        assert_eq!(signature.0[..64], secret(5).sign_ed25519(label, &message.0).unwrap());
    }
}
