//! Frames and contents as bytes: golden ones for every kind, round trips, mutations, and the published CDDL.
//!
//! `PRIVITY_BLESS=1` rewrites `vectors/frames.json`: a change of the wire, to be made on purpose and noted as such.

#![expect(clippy::unwrap_used, clippy::panic, reason = "used by tests alone")]

mod common;

use common::json::{self, Hex, hex};
use common::{Source, samples};
use privity_protocol::between::{Between, Body, Note, Segment};
use privity_protocol::cbor;
use privity_protocol::content::Content;
use privity_protocol::frame::{
    self, Admitted, AdmittedBody, Entry, FromRelay, Hello, HelloBody, Part, Request, ToRelay,
};
use privity_protocol::identity::{
    DeviceCertificate, DeviceRevocation, Endorsement, EndorsementRevocation, Issuer, Name, RecoveryKey, Replacement,
    Role, Signed,
};
use privity_protocol::ids::{DeviceId, InviteId, PersonId, Timestamp};
use privity_protocol::invite::{InviteStatement, LinkPack};
use privity_protocol::limits;
use privity_protocol::matter::{Companion, LeafCredential, MatterContext, Seen};
use privity_protocol::recovery::RecoveryNote;
use privity_protocol::suite::{Digest, Label, SecretKey};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const SCHEMA: &str = include_str!("../privity.cddl");
const FILE: &str = "frames.json";
const ABOUT: &str = "One frame and one content of every kind, and what MLS carries, CBOR without the length in front. `rule` is the rule in \
                     privity.cddl. Keys, signatures and names in them are noise: only the shape counts.";

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frames {
    about: String,
    frames: Vec<Golden>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    rule: String,
    name: String,
    bytes: Hex,
}

/// Whether the bytes are what the schema's rule says.
fn follows(rule: &str, bytes: &[u8]) -> bool {
    cddl_cat::validate_cbor_bytes(rule, SCHEMA, bytes).is_ok()
}

/// The bytes as whatever a sample of this name is, decoded and encoded again.
fn again(name: &str, bytes: &[u8]) -> Result<Vec<u8>, privity_protocol::error::Malformed> {
    Ok(match name.split('/').next().unwrap_or_default() {
        "hello" => cbor::encode(&cbor::decode::<Hello>(bytes, "x")?),
        "hello-body" => cbor::encode(&cbor::decode::<HelloBody>(bytes, "x")?),
        "admitted-body" => cbor::encode(&cbor::decode::<AdmittedBody>(bytes, "x")?),
        "admitted" => cbor::encode(&cbor::decode::<Admitted>(bytes, "x")?),
        "to-relay" => cbor::encode(&cbor::decode::<ToRelay>(bytes, "x")?),
        "from-relay" => cbor::encode(&cbor::decode::<FromRelay>(bytes, "x")?),
        "seen" => cbor::encode(&cbor::decode::<Seen>(bytes, "x")?),
        "matter-context" => cbor::encode(&cbor::decode::<MatterContext>(bytes, "x")?),
        "companion" => cbor::encode(&cbor::decode::<Companion>(bytes, "x")?),
        "leaf-credential" => cbor::encode(&cbor::decode::<LeafCredential>(bytes, "x")?),
        "content" => Content::decode(bytes)?.encode(),
        "between" => cbor::encode(&Between::read(bytes)?),
        "note" => {
            let signed = Signed { body: bytes.to_vec(), signature: Vec::new() };
            Note::unverified(&signed)?.sign(&SecretKey::generate()).unwrap().body
        }
        "note-invites" => Body::decode(1, bytes)?.encode().1,
        "note-invite-gone" => Body::decode(2, bytes)?.encode().1,
        "note-endorsed" => Body::decode(3, bytes)?.encode().1,
        "note-names" => Body::decode(4, bytes)?.encode().1,
        "note-transfer" => Body::decode(5, bytes)?.encode().1,
        "note-received" => Body::decode(6, bytes)?.encode().1,
        "segments" => cbor::encode(&cbor::decode::<Vec<Segment>>(bytes, "x")?),
        _ => return Err(privity_protocol::error::Malformed::Text("name of a sample")),
    })
}

#[test]
fn every_kind_of_frame_has_its_golden_bytes() {
    let golden = |(name, bytes): (String, Vec<u8>)| {
        let (rule, name) = name.split_once('/').unwrap_or((&name, &name));
        Golden { rule: rule.to_owned(), name: name.to_owned(), bytes: hex(bytes) }
    };
    let frames = samples().into_iter().map(golden).collect();
    json::computed(FILE, &Frames { about: ABOUT.to_owned(), frames });
}

#[test]
fn golden_bytes_decode_and_encode_to_themselves() {
    for Golden { rule, name, bytes: Hex(bytes) } in json::read::<Frames>(FILE).frames {
        assert_eq!(again(&rule, &bytes).unwrap(), bytes, "{name}");
        assert!(again(&rule, &[&bytes[..], &[0]].concat()).is_err(), "{name} with a byte after it");
        for length in (0..bytes.len().min(200)).chain([bytes.len() - 1]) {
            assert!(again(&rule, &bytes[..length]).is_err(), "{name} cut at {length}");
        }
    }
}

/// The schema is read by a library that knows nothing of ours.
#[test]
fn the_schema_accepts_every_frame_and_refuses_what_is_none() {
    for (name, bytes) in samples() {
        let rule = name.split('/').next().unwrap();
        if let Err(error) = cddl_cat::validate_cbor_bytes(rule, SCHEMA, &bytes) {
            panic!("{name}: {error:?}");
        }
        let others = ["hello", "hello-body", "admitted", "admitted-body", "to-relay", "from-relay", "content"];
        for other in others.iter().filter(|other| **other != rule && !(["hello", "admitted"].contains(&rule))) {
            assert!(cddl_cat::validate_cbor_bytes(other, SCHEMA, &bytes).is_err(), "{name} passes as {other}");
        }
    }
}

#[test]
fn the_schema_accepts_what_replaces_a_persons_key() {
    let valid = |rule, bytes: &[u8]| cddl_cat::validate_cbor_bytes(rule, SCHEMA, bytes).unwrap();
    let (key, person) = (SecretKey::generate(), PersonId::random());
    let recovery = RecoveryKey { person, key: key.public().unwrap(), made_at: Timestamp(7) };
    valid("recovery-key", &cbor::encode(&recovery));
    let (from, stays) = (key.public().unwrap(), vec![Digest::of(&[b"certificate"])]);
    let replacement = Replacement::new(person, &from, &SecretKey::generate(), stays, Timestamp(7)).unwrap();
    valid("replacement", &cbor::encode(&replacement));
    let note = RecoveryNote {
        person,
        relay: from.fingerprint(),
        organisation: from.fingerprint(),
        name: Name::new("Ada").unwrap(),
        self_stated: true,
    };
    valid("recovery-note", &cbor::encode(&note));
}

#[test]
fn the_schema_accepts_signed_statements() {
    let key = SecretKey::generate();
    let issuer = Issuer { person: PersonId::random(), device: DeviceId::random() };
    let certificate = DeviceCertificate {
        person: issuer.person,
        device: issuer.device,
        link_key: Digest::of(&[b"link"]),
        mls_key: key.public().unwrap(),
        made_at: Timestamp(7),
    };
    let mut endorsement = Endorsement {
        person: issuer.person,
        person_key: Digest::of(&[b"person"]),
        role: Role::Client,
        registrar: false,
        handle: "ada".to_owned(),
        name: Digest::of(&[b"name"]),
        issuer: Some(issuer),
        from: Timestamp(0),
        until: Timestamp(u64::MAX),
        confirmed: false,
        adopted: false,
        after: None,
    };
    let mut invite = InviteStatement {
        invite: InviteId::random(),
        issuer,
        role: Role::Custodian,
        handle: Some("ada".to_owned()),
        name: Some(Digest::of(&[b"name"])),
        expires: Timestamp(7),
        links: Some(issuer.person),
        replaces: None,
    };
    let signed = Signed::make(Label::Endorsement, &key, &endorsement).unwrap();
    let valid = |rule, bytes: &[u8]| cddl_cat::validate_cbor_bytes(rule, SCHEMA, bytes).unwrap();
    valid("signed", &cbor::encode(&signed));
    valid("device-certificate", &cbor::encode(&certificate));
    valid("endorsement", &cbor::encode(&endorsement));
    valid("invite-statement", &cbor::encode(&invite));
    let mut revocation =
        DeviceRevocation { person: issuer.person, device: issuer.device, issuer: Some(issuer), at: Timestamp(7) };
    valid("device-revocation", &cbor::encode(&revocation));
    revocation.issuer = None;
    valid("device-revocation", &cbor::encode(&revocation));
    let person = issuer.person;
    invite.replaces = Some(person);
    valid("invite-statement", &cbor::encode(&invite));
    invite.replaces = None;
    for issuer in [Some(issuer), None] {
        let (person, endorsement, at) = (endorsement.person, signed.digest(), Timestamp(7));
        let withdrawal = EndorsementRevocation { person, endorsement, issuer, at };
        valid("endorsement-revocation", &cbor::encode(&withdrawal));
    }
    endorsement.after = Some(signed.digest());
    valid("endorsement", &cbor::encode(&endorsement));
    valid("link-pack", &cbor::encode(&LinkPack { name: Name::new("Ada").unwrap(), self_stated: true }));
    endorsement.adopted = true;
    valid("endorsement", &cbor::encode(&endorsement));
    endorsement.adopted = false;
    (endorsement.issuer, invite.handle, invite.name, invite.links) = (None, None, None, None);
    valid("endorsement", &cbor::encode(&endorsement));
    valid("invite-statement", &cbor::encode(&invite));
    for (name, bytes) in samples().iter().filter(|(name, _)| name == "content/bundle") {
        let content = Content::decode(bytes).unwrap();
        let privity_protocol::content::Body::Bundle(bundle) = content.body else { panic!("{name} is no bundle") };
        valid("bundle", &cbor::encode(&bundle));
    }
}

/// A frame with one id a byte short, and one with a number where there is none.
#[test]
fn the_schema_refuses_a_broken_frame() {
    for broken in [
        &[0x82, 0x01, 0x82, 0x08, 0x81, 0x4f][..],
        &[0x82, 0x01, 0x82, 0x18, 0x63, 0x80],
        &[0x82, 0x20, 0x82, 0x07, 0x80],
    ] {
        let mut bytes = broken.to_vec();
        if broken.last() == Some(&0x4f) {
            bytes.extend([4; 15]);
        }
        assert!(cddl_cat::validate_cbor_bytes("to-relay", SCHEMA, &bytes).is_err(), "{:?}", hex(&bytes));
        assert!(cbor::decode::<ToRelay>(&bytes, "x").is_err(), "{:?}", hex(&bytes));
    }
    let good = cbor::encode(&ToRelay { id: 1, request: Request::People });
    cddl_cat::validate_cbor_bytes("to-relay", SCHEMA, &good).unwrap();
}

/// What is hashed or signed must have one encoding: shortest heads, no indefinite lengths, keys ascending, nothing absent at the end.
#[test]
fn everything_is_written_in_one_way() {
    for (name, bytes) in samples() {
        let mut rest = &bytes[..];
        one_way(&mut rest, &name);
        assert!(rest.is_empty(), "{name}");
    }
}

/// Walks over one CBOR item (RFC 8949), and tells its major type and argument.
fn one_way(rest: &mut &[u8], name: &str) -> (u8, u64) {
    let mut byte = || {
        let (first, after) = rest.split_first().unwrap();
        *rest = after;
        *first
    };
    let head = byte();
    let (major, short) = (head >> 5, head & 31);
    let argument = match short {
        0..24 => u64::from(short),
        24..28 => (0..1 << (short - 24)).fold(0, |number, _| number << 8 | u64::from(byte())),
        _ => panic!("{name}: an indefinite length"),
    };
    let least = [0, 24, 1 << 8, 1 << 16, 1 << 32][usize::from(short.saturating_sub(23))];
    assert!(argument >= least, "{name}: {argument} could be shorter");
    let mut last = None;
    match major {
        2 | 3 => *rest = &rest[usize::try_from(argument).unwrap()..],
        4 => {
            for _ in 0..argument {
                last = Some(one_way(rest, name));
            }
            assert_ne!(last, Some((7, 22)), "{name}: null at the end");
        }
        5 => {
            for _ in 0..argument {
                let key = one_way(rest, name);
                assert_eq!(key.0, 0, "{name}: a key that is no number");
                assert!(last < Some(key), "{name}: keys out of order");
                assert_ne!(one_way(rest, name), (7, 22), "{name}: a key with null");
                last = Some(key);
            }
        }
        0 => {}
        7 => assert!((20..=22).contains(&argument), "{name}: a simple value {argument}"),
        _ => panic!("{name}: major type {major}"),
    }
    (major, argument)
}

/// Words that were added later are absent in what older programs wrote; what is unknown today may be a word of tomorrow.
#[test]
fn words_that_came_later_may_be_absent_and_unknown_ones_are_passed_over() {
    let id = [&[0x50][..], &[7; 16]].concat();
    let grant = [&[0x82, 2, 0x83][..], &id, &id, &[3]].concat();
    let part: Part = cbor::decode(&grant, "x").unwrap();
    assert!(matches!(part, Part::Grant { resume: false, .. }));
    assert!(follows("part", &grant));
    let entry = [0x83, 5, 0xf4, 0x82, 0, 0x81, 0x41, 9];
    assert!(follows("entry", &entry));
    assert_eq!(cbor::decode::<Entry>(&entry, "x").unwrap().by, None);
    let longer = [&[0x85, 5, 0xf4, 0x82, 0, 0x81, 0x41, 9][..], &id, &[0xf5]].concat();
    assert!(cbor::decode::<Entry>(&longer, "x").unwrap().by.is_some());
    let hello = samples().into_iter().find(|(name, _)| name == "hello-body/hello's body, bare").unwrap().1;
    let unknown = [&[hello[0] + 1][..], &hello[1..], &[0x18, 99, 0x81, 0xf6]].concat();
    assert_eq!(cbor::decode::<HelloBody>(&unknown, "x"), cbor::decode::<HelloBody>(&hello, "x"));
    assert!(follows("hello-body", &unknown));
    for unknown in [&[0x82, 1, 0x82, 0x18, 99, 0x80][..], &[0x82, 1, 0x82, 2, 0x81, 0x83, 1, 0x40, 0x80]] {
        assert!(cbor::decode::<ToRelay>(unknown, "x").is_err() && !follows("to-relay", unknown));
    }
}

#[test]
fn the_schema_refuses_what_is_nearly_right() {
    let id = [&[0x50][..], &[7; 16]].concat();
    let digest = [&[0x58, 48][..], &[7; 48]].concat();
    let position = [&[0x82, 1][..], &digest].concat();
    let near: [(&str, Vec<u8>); 12] = [
        ("instance", [&[0x82, 1, 0x4f][..], &[7; 15]].concat()),
        ("instance", [&[0x81][..], &id].concat()),
        ("interval", [&[0x83][..], &id, &[0x19, 1, 0, 1]].concat()),
        ("interval", [&[0x82][..], &id, &[1]].concat()),
        ("entry", [&[0x84, 5, 0xf4, 0x82, 0, 0x81, 0x41, 9][..], &digest].concat()),
        ("entry-body", [&[0x82, 1, 0x81][..], &id].concat()),
        ("part", [&[0x82, 2, 0x84][..], &id, &id, &[3, 1]].concat()),
        ("seen", [&[0x82][..], &position, &id].concat()),
        ("seen", [&[0x81][..], &digest].concat()),
        ("accepted-idem", [&[0x83, 1][..], &digest, &id].concat()),
        ("refused", [&[0x82, 12, 0x82, 1][..], &digest].concat()),
        ("reply", [&[0x82, 9, 0x81, 0x80][..]].concat()),
    ];
    for (rule, bytes) in near {
        assert!(!follows(rule, &bytes), "{rule} {:?}", hex(&bytes));
    }
    let right: [(&str, Vec<u8>); 6] = [
        ("instance", [&[0x82, 1][..], &id].concat()),
        ("interval", [&[0x83][..], &id, &[7, 1]].concat()),
        ("seen", [&[0x81][..], &position].concat()),
        ("seen", [&[0x84][..], &position, &[0xf6, 0xf6], &digest].concat()),
        ("refused", [&[0x82, 12, 0x83, 1][..], &digest, &digest].concat()),
        ("reply", [&[0x82, 9, 0x82, 0x80][..], &position].concat()),
    ];
    for (rule, bytes) in right {
        assert!(follows(rule, &bytes), "{rule} {:?}", hex(&bytes));
    }
    let seen: Seen = cbor::decode(&[&[0x84][..], &position, &[0xf6, 0xf6], &digest].concat(), "x").unwrap();
    assert!(seen.roster.is_none() && seen.bundle.is_none() && seen.repair.is_some());
}

/// Lengths that a frame only claims must not be believed: this would abort if memory were taken for them.
#[test]
fn a_claimed_length_takes_no_memory() {
    for claim in [
        &[0x82, 0x01, 0x82, 0x05, 0x82, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        &[0x82, 0x01, 0x82, 0x02, 0x81, 0x83, 0x01, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x82, 0x01, 0x82, 0x05, 0x82, 0x9a, 0xff, 0xff, 0xff, 0xff, 0x40],
    ] {
        assert!(cbor::decode::<ToRelay>(claim, "x").is_err());
        assert!(cbor::decode::<FromRelay>(claim, "x").is_err());
    }
    let nested = vec![0x81; limits::HELLO_MAX];
    assert!(cbor::decode::<ToRelay>(&nested, "x").is_err());
    assert!(Content::decode(&nested).is_err());
}

#[test]
fn a_frame_above_its_limit_is_refused_by_its_length_alone() {
    let limit = u32::try_from(limits::HELLO_MAX).unwrap();
    assert_eq!(frame::announced(limit.to_be_bytes(), limits::HELLO_MAX).unwrap(), limits::HELLO_MAX);
    assert!(frame::announced((limit + 1).to_be_bytes(), limits::HELLO_MAX).is_err());
    assert!(frame::announced([0xff; 4], limits::FRAME_MAX).is_err());
    let wire = frame::to_wire(&ToRelay { id: 1, request: Request::People }).unwrap();
    assert_eq!(frame::announced([wire[0], wire[1], wire[2], wire[3]], limits::FRAME_MAX).unwrap(), wire.len() - 4);
    assert!(frame::to_wire(&minicbor::bytes::ByteVec::from(vec![0; limits::FRAME_MAX])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_is_encoded_decodes_to_itself(entropy in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut source = Source::new(&entropy);
        let (asked, told, content) = (source.asked(), source.told(), source.content());
        prop_assert_eq!(cbor::decode::<ToRelay>(&cbor::encode(&asked), "x").unwrap(), asked);
        prop_assert_eq!(cbor::decode::<FromRelay>(&cbor::encode(&told), "x").unwrap(), told);
        prop_assert_eq!(Content::decode(&content.encode()).unwrap(), content);
    }

    #[test]
    fn the_schema_accepts_whatever_is_encoded(entropy in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut source = Source::new(&entropy);
        let frames = [
            ("to-relay", cbor::encode(&source.asked())),
            ("from-relay", cbor::encode(&source.told())),
            ("content", source.content().encode()),
        ];
        for (rule, bytes) in frames {
            let valid = cddl_cat::validate_cbor_bytes(rule, SCHEMA, &bytes);
            prop_assert!(valid.is_ok(), "{} {:?}: {:?}", rule, hex(&bytes), valid);
        }
    }

    #[test]
    fn mutated_bytes_never_panic_and_never_mean_more_than_they_say(
        sample in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let (name, good) = &samples[sample.index(samples.len())];
        let mut bytes = good.clone();
        bytes[at.index(good.len())] = byte;
        for bytes in [&bytes[..], &bytes[..cut.index(good.len())], &good[..cut.index(good.len())]] {
            if let Ok(encoded) = again(name, bytes) {
                prop_assert!(encoded.len() <= bytes.len() + 64);
            }
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        for name in ["hello", "hello-body", "admitted", "admitted-body", "to-relay", "from-relay", "content"] {
            drop(again(name, &noise));
        }
        drop(privity_protocol::envelope::unwrap(&noise));
        drop(privity_protocol::envelope::unpad(&noise));
        drop(String::from_utf8_lossy(&noise).parse::<privity_protocol::invite::Invite>());
        drop(privity_protocol::matter::key_package_owner(&noise));
    }
}
