//! `envelopes.json`, `mailbox.json`, `post.json`, `link.json`, `readings.json`: how a link opens, what stands in mailboxes, and how
//! bytes are read that nobody should write.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use privity_protocol::cbor;
use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::{
    self, AcceptedIdem, AdmittedBody, Blob, Entry, EntryBody, FromRelay, Instance, Part, Post, Rights, ToRelay,
};
use privity_protocol::ids::{DeviceId, MailboxId, Position, Timestamp};
use privity_protocol::limits;
use privity_protocol::link::{Channel, Claimed, EXPORTER_LABEL, EXPORTER_LEN, Opening, Pin};
use privity_protocol::matter::{MatterContext, Seen};
use privity_protocol::suite::{self, Digest, PublicKey};
use serde::{Deserialize, Serialize};

use crate::json::{self, Hex, hex};
use crate::{follows, secret};

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelopes {
    about: String,
    buckets: Vec<usize>,
    overhead: usize,
    paddings: Vec<Padding>,
    no_paddings: Vec<Hex>,
    envelopes: Vec<Enveloped>,
    no_envelopes: Vec<Hex>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Padding {
    content_length: usize,
    padded_length: usize,
    padded_sha_384: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Enveloped {
    class: String,
    payload: Hex,
    envelope: Hex,
}

#[test]
fn padding_and_envelopes_are_as_recorded() {
    let lengths = limits::BUCKETS.map(|bucket| bucket - limits::ENVELOPE_OVERHEAD - 4);
    let lengths = [0, 1, 100].into_iter().chain(lengths.into_iter().flat_map(|most| [most, most + 1]));
    let padding = |content_length: usize| {
        let content = vec![b'x'; content_length];
        let padded = envelope::pad(&content).ok()?;
        assert_eq!(envelope::unpad(&padded).unwrap(), content);
        let padded_sha_384 = hex(Digest::of(&[&padded]).as_bytes());
        Some(Padding { content_length, padded_length: padded.len(), padded_sha_384 })
    };
    let classes = [Class::Message, Class::Commit, Class::Welcome, Class::Repair, Class::Successor, Class::Between];
    let enveloped = |class: Class| {
        let envelope = envelope::wrap(class, b"payload").unwrap();
        assert_eq!(envelope::unwrap(&envelope).unwrap(), (class, &b"payload"[..]));
        let class = format!("{class:?}").to_lowercase();
        Enveloped { class, payload: hex(b"payload"), envelope: hex(envelope) }
    };
    let refused = |bytes: &[u8]| {
        assert!(envelope::unwrap(bytes).is_err());
        hex(bytes)
    };
    let unpadded = |bytes: &[u8]| {
        assert!(envelope::unpad(bytes).is_err());
        hex(bytes)
    };
    json::computed("envelopes.json", &Envelopes {
        about: "Contents of that many letters x, padded: length of the padding and its hash, at both sides of every bucket; what is \
                no padding; envelopes of every class; and what is no envelope."
            .to_owned(),
        buckets: limits::BUCKETS.into(),
        overhead: limits::ENVELOPE_OVERHEAD,
        paddings: lengths.filter_map(padding).collect(),
        no_paddings: [&[0, 0, 0][..], &[0, 0, 0, 2, 1], &[0, 0, 0, 1, 7, 1]].map(unpadded).into(),
        envelopes: classes.map(enveloped).into(),
        no_envelopes: [&[][..], &[1], &[0, 1, 0], &[2, 1, 0], &[1, 0, 0], &[1, 7, 0]].map(refused).into(),
    });
    assert!(padding(limits::BUCKETS[4] - limits::ENVELOPE_OVERHEAD - 3).is_none());
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mailbox {
    about: String,
    mailbox: Hex,
    start: Hex,
    entries: Vec<Counted>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    seq: u64,
    fence: bool,
    envelope: Hex,
    envelope_sha_384: Hex,
    chain: Hex,
    position: Hex,
    entry: Hex,
    entry_expired: Hex,
}

#[test]
fn the_running_hash_of_a_mailbox_is_as_recorded() {
    let mailbox = MailboxId::new([0x3b; 16]);
    let mut position = Position::start(mailbox);
    assert_eq!(position.chain, Digest::of(&[&[0x3b; 16]]));
    let start = hex(cbor::encode(&position));
    let mut entries = Vec::new();
    for (fence, payload) in [(false, &b"one"[..]), (true, b"two"), (false, b""), (true, b"two"), (false, &[0xab; 300])]
    {
        let envelope = [&[1, 1 + u8::from(fence)], payload].concat();
        let digest = Digest::of(&[&envelope]);
        let by_hand = Digest::of(&[position.chain.as_bytes(), &[u8::from(fence)], digest.as_bytes()]);
        position = position.next(fence, &digest);
        assert_eq!(position.chain, by_hand);
        let (there, by) = (EntryBody::Envelope(Blob(envelope.clone())), Some(DeviceId::new([7; 16])));
        let there = Entry { seq: position.seq, fence, body: there, by };
        let expired = Entry { body: EntryBody::Expired(digest), by: None, ..there.clone() };
        assert_eq!(there.digest(), expired.digest());
        assert!(follows("entry", &cbor::encode(&there)) && follows("entry", &cbor::encode(&expired)));
        entries.push(Counted {
            seq: position.seq,
            fence,
            envelope: hex(envelope),
            envelope_sha_384: hex(digest.as_bytes()),
            chain: hex(position.chain.as_bytes()),
            position: hex(cbor::encode(&position)),
            entry: hex(cbor::encode(&there)),
            entry_expired: hex(cbor::encode(&expired)),
        });
    }
    json::computed("mailbox.json", &Mailbox {
        about: "A mailbox's positions: the start, and after each entry; `chain` is SHA-384 of the chain before, the fence as one byte, \
                SHA-384 of the envelope. Positions and entries are CBOR, as on the wire."
            .to_owned(),
        mailbox: hex(mailbox.as_bytes()),
        start,
        entries,
    });
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Posts {
    about: String,
    key: Hex,
    posts: Vec<Posted>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted {
    idem: u64,
    parts: Hex,
    parts_digest: Hex,
    roster: Hex,
    roster_digest: Hex,
    mac: Hex,
    post: Hex,
}

#[test]
fn a_posts_digests_and_mac_are_as_recorded() {
    let mailbox = MailboxId::new([0x3b; 16]);
    let device = DeviceId::new([7; 16]);
    let append = |fence, envelope: &[u8]| Part::Append {
        mailbox,
        base: Position::start(mailbox),
        fence,
        envelope: Blob(envelope.to_vec()),
        keep_ms: limits::ENVELOPE_LIFETIME_MS,
    };
    let grant = |resume| Part::Grant { mailbox, device, rights: Rights::MANAGER, resume };
    let posts = [
        (0, vec![Part::Create { mailbox }]),
        (1, vec![append(false, &[1, 1, 2, 3])]),
        (
            256,
            vec![append(false, &[1, 1, 9]), append(true, &[1, 2, 9]), grant(false), Part::Revoke { mailbox, device }],
        ),
        (u64::MAX, vec![grant(true)]),
    ];
    let posted = |(idem, parts): (u64, Vec<Part>)| {
        let roster: Vec<&Part> =
            parts.iter().filter(|part| matches!(part, Part::Grant { .. } | Part::Revoke { .. })).collect();
        let (parts_cbor, roster_cbor) = (cbor::encode(&parts), cbor::encode(&roster));
        let (parts_digest, roster_digest) = (Post::parts_digest(&parts), Post::roster_digest(&parts));
        assert_eq!(parts_digest, Digest::of(&[b"privity/1 parts", &[0], &parts_cbor]));
        assert_eq!(roster_digest, Digest::of(&[b"privity/1 roster", &[0], &roster_cbor]));
        let mac = suite::mac(&[0x77; 32], &[&idem.to_be_bytes()[..], parts_digest.as_bytes()].concat());
        let post = cbor::encode(&Post { idem, mac, parts });
        assert!(follows("post", &post));
        Posted {
            idem,
            parts: hex(parts_cbor),
            parts_digest: hex(parts_digest.as_bytes()),
            roster: hex(roster_cbor),
            roster_digest: hex(roster_digest.as_bytes()),
            mac: hex(mac.as_bytes()),
            post: hex(post),
        }
    };
    json::computed("post.json", &Posts {
        about: "Posts: CBOR of the parts and their hash, CBOR of the parts that change rosters and their hash, the MAC under a key that \
                only this device has."
            .to_owned(),
        key: hex([0x77; 32]),
        posts: posts.map(posted).into(),
    });
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Links {
    about: String,
    exporter_label: String,
    links: Vec<Link>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    exporter: Hex,
    device_seeds: Hex,
    device_link_key: Hex,
    relay_seeds: Hex,
    relay_key: Hex,
    hello_body: Hex,
    hello_signature: Hex,
    hello_frame: Hex,
    admitted_body: Hex,
    admitted_signature: Hex,
    admitted_frame: Hex,
}

#[test]
fn a_link_opens_with_the_bytes_recorded() {
    json::computed("link.json", &Links {
        about: "Two links being opened, by a device and by a newcomer: frames with their length in front. The signatures are Ed25519 \
                alone, over label, a zero byte, exporter, body."
            .to_owned(),
        exporter_label: String::from_utf8(EXPORTER_LABEL.to_vec()).unwrap(),
        links: [Some((DeviceId::new([7; 16]), Instance { number: 2, nonce: ByteArray::from([0x1d; 16]) })), None]
            .map(link)
            .into(),
    });
}

fn link(device: Option<(DeviceId, Instance)>) -> Link {
    let (link_key, relay_key) = (secret(3), secret(4));
    let (link_public, relay_public) = (link_key.public().unwrap(), relay_key.public().unwrap());
    let channel = |exporter: u8, peer: &PublicKey| Channel {
        exporter: [exporter; EXPORTER_LEN],
        peer_ml_dsa: peer.ml_dsa().to_vec(),
    };
    let ours = channel(0xe4, &relay_public);
    let (opening, hello) =
        Opening::hello(ours, Pin::Key(relay_public.clone()), device, &link_key, "privity/0.1.0").unwrap();
    assert!(Claimed::read(channel(0xe5, &link_public), &hello).is_err(), "of another connection");
    assert!(Claimed::read(channel(0xe4, &relay_public), &hello).is_err(), "by another key than TLS proved");
    let claimed = Claimed::read(channel(0xe4, &link_public), &hello).unwrap();
    assert!(follows("hello-body", &hello.body) && follows("hello", &cbor::encode(&hello)));
    let accepted = AcceptedIdem { idem: 256, parts: Digest::of(&[b"parts"]), mac: Digest::of(&[b"mac"]) };
    let body = AdmittedBody {
        version: claimed.version,
        relay_key: relay_public.clone(),
        incarnation: [0x1c; 16],
        now: Timestamp(1_800_000_000_000),
        idem: device.map(|_| accepted),
        key_packages: 20,
        ready: device.is_some(),
        organisation: Some(secret(10).public().unwrap()),
        firm: "Smith & Partners".to_owned(),
        rotations: Vec::new(),
    };
    let admitted = claimed.admit(&body, &relay_key).unwrap();
    assert_eq!(opening.admitted(&admitted).unwrap(), body);
    assert!(follows("admitted-body", &admitted.body) && follows("admitted", &cbor::encode(&admitted)));
    Link {
        exporter: hex([0xe4; EXPORTER_LEN]),
        device_seeds: hex(link_key.as_bytes()),
        device_link_key: hex(link_public.as_bytes()),
        relay_seeds: hex(relay_key.as_bytes()),
        relay_key: hex(relay_public.as_bytes()),
        hello_frame: hex(frame::to_wire(&hello).unwrap()),
        hello_body: hex(hello.body),
        hello_signature: hex(hello.signature),
        admitted_frame: hex(frame::to_wire(&FromRelay::Admitted(admitted.clone())).unwrap()),
        admitted_body: hex(admitted.body),
        admitted_signature: hex(admitted.signature),
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Readings {
    about: String,
    readings: Vec<Reading>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    rule: String,
    name: String,
    bytes: Hex,
    read_as: Option<Hex>,
}

/// Members must judge alike, so readers must agree on bytes that no writer writes, too.
#[test]
fn other_encodings_are_read_or_refused_as_recorded() {
    fn read<T: for<'b> Decode<'b, ()> + Encode<()>>(rule: &str, name: &str, parts: &[&[u8]]) -> Reading {
        let bytes = parts.concat();
        let read_as = cbor::decode::<T>(&bytes, "x").ok().map(|value| hex(cbor::encode(&value)));
        Reading { rule: rule.to_owned(), name: name.to_owned(), bytes: hex(bytes), read_as }
    }
    let id: &[u8] = &[&[0x50][..], &[7; 16]].concat();
    let digest: &[u8] = &[&[0x58, 48][..], &[7; 48]].concat();
    let position: &[u8] = &[&[0x82, 1][..], digest].concat();
    let participant = |role: u8| [&[0x83][..], id, &[role], digest].concat();
    let (as_attorney, as_client): (&[u8], &[u8]) = (&participant(0), &participant(2));
    let (title, orders): (&[u8], &[u8]) = (&[2, 0x61, b'x'], &[&[3][..], digest].concat());
    let context = |name: &str, parts: &[&[u8]]| read::<MatterContext>("matter-context", name, parts);
    let seen = |name: &str, parts: &[&[u8]]| read::<Seen>("seen", name, parts);
    let asked = |name: &str, parts: &[&[u8]]| read::<ToRelay>("to-relay", name, parts);
    let readings = vec![
        context("as written", &[&[0xa5, 0, 1, 1], id, title, orders, &[4, 0x81], as_client]),
        context("a longer head", &[&[0xa5, 0, 0x18, 1, 1], id, title, orders, &[4, 0x80]]),
        context("a map of indefinite length", &[&[0xbf, 0, 1, 1], id, title, orders, &[4, 0x80, 0xff]]),
        context("keys out of order", &[&[0xa5, 1], id, &[0, 1], orders, title, &[4, 0x80]]),
        context("a key twice", &[&[0xa6, 0, 2, 1], id, title, orders, &[4, 0x80, 0, 1]]),
        context("an unknown key", &[&[0xa6, 0, 1, 1], id, title, orders, &[4, 0x80, 9, 0x81, 0xf6]]),
        context("a negative key", &[&[0xa6, 0, 1, 1], id, title, orders, &[4, 0x80, 0x20, 1]]),
        context("a text as key", &[&[0xa6, 0, 1, 1], id, title, orders, &[4, 0x80, 0x61, b'a', 1]]),
        context("null for an absent key", &[&[0xa6, 0, 1, 1], id, title, orders, &[4, 0x80, 5, 0xf6]]),
        context("a key missing", &[&[0xa4, 0, 1, 1], id, title, orders]),
        context("a title in pieces", &[&[0xa5, 0, 1, 1], id, &[2, 0x7f, 0x61, b'x', 0xff], orders, &[4, 0x80]]),
        context("a mailbox in pieces", &[&[0xa5, 0, 1, 1, 0x5f], id, &[0xff], title, orders, &[4, 0x80]]),
        context("a tag", &[&[0xa5, 0, 0xc1, 1, 1], id, title, orders, &[4, 0x80]]),
        context("a byte after it", &[&[0xa5, 0, 1, 1], id, title, orders, &[4, 0x80, 0]]),
        context("a person twice", &[&[0xa5, 0, 1, 1], id, title, orders, &[4, 0x82], as_client, as_attorney]),
        context("an unknown role", &[&[0xa5, 0, 1, 1], id, title, orders, &[4, 0x81], &participant(4)]),
        seen("as written", &[&[0x81], position]),
        seen("an array of indefinite length", &[&[0x9f], position, &[0xff]]),
        seen("nulls at the end", &[&[0x84], position, &[0xf6, 0xf6, 0xf6]]),
        seen("an unknown field", &[&[0x85], position, &[0xf6, 0xf6, 0xf6, 1]]),
        asked("as written", &[&[0x82, 1, 0x82, 7, 0x80]]),
        asked("an unknown field of a choice", &[&[0x82, 1, 0x82, 7, 0x81, 1]]),
        asked("a choice without fields", &[&[0x82, 1, 0x81, 7]]),
        asked("a choice of three", &[&[0x82, 1, 0x83, 7, 0x80, 1]]),
        asked("a choice of indefinite length", &[&[0x82, 1, 0x9f, 7, 0x80, 0xff]]),
        asked("an unknown choice", &[&[0x82, 1, 0x82, 0x18, 99, 0x80]]),
    ];
    json::computed("readings.json", &Readings {
        about: "CBOR that is not what a writer writes: `read_as` is what a reader takes it for, written anew; null where it is refused."
            .to_owned(),
        readings,
    });
}
