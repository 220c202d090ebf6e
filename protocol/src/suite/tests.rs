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
