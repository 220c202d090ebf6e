//! `log.json`: events and leaves of the audit log, the tree over them with proofs, and a checkpoint with the keys that verify it.

use minicbor::bytes::ByteArray;
use privity_protocol::cbor;
use privity_protocol::frame::Rights;
use privity_protocol::identity::Role;
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, PersonId, Timestamp};
use privity_protocol::log::tree::{self, verify_consistency, verify_inclusion};
use privity_protocol::log::{Act, Checkpoint, Event, Last, Leaf, LogKeys, Opening, RosterChange, TreeHash, note};
use privity_protocol::suite::Digest;
use serde::{Deserialize, Serialize};

use crate::json::{self, Hex, hex};
use crate::{follows, recorded, secret};

const ADA: [u8; 16] = [0xa0; 16];
const CLEO: [u8; 16] = [0xc0; 16];
const AT: Timestamp = Timestamp(1_800_000_000_000);

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    about: String,
    leaves: Vec<LoggedLeaf>,
    roots: Vec<Hex>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoggedLeaf {
    act: String,
    salt: Hex,
    event: Hex,
    leaf: Hex,
    hash: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inclusion {
    index: u64,
    size: u64,
    proof: Vec<Hex>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consistency {
    from: u64,
    to: u64,
    proof: Vec<Hex>,
}

/// One act of every kind, each with the one whom its leaf is about.
fn acts() -> Vec<(Option<[u8; 16]>, Act)> {
    let digest = |name: &str| Digest::of(&[name.as_bytes()]);
    let (device, mailbox, invite) = (DeviceId::new([7; 16]), MailboxId::new([0x3b; 16]), InviteId::new([0x1e; 16]));
    let (ada, cleo) = (PersonId::new(ADA), PersonId::new(CLEO));
    let (key, person_key) = (digest("key"), digest("person key"));
    let (certificate, endorsement) = (digest("certificate"), digest("endorsement"));
    let changes = vec![
        RosterChange { device, rights: Some(Rights::MEMBER) },
        RosterChange { device: DeviceId::new([8; 16]), rights: None },
    ];
    let registered = Act::Registered { person_key, handle: "ada".to_owned(), role: Role::Attorney, invite };
    vec![
        (None, Act::Configured { configuration: digest("configuration"), version: "0.1.0".to_owned() }),
        (None, Act::InviteMade { invite, statement: None, expires: AT }),
        (None, Act::Founded { organisation: digest("organisation") }),
        (Some(ADA), registered),
        (Some(ADA), Act::DeviceAdded { device, certificate }),
        (Some(ADA), Act::Endorsed { endorsement, by: None }),
        (Some(ADA), Act::InviteMade { invite, statement: Some(digest("statement")), expires: AT }),
        (Some(ADA), Act::InviteUsed { invite, by: cleo }),
        (Some(CLEO), Act::Endorsed { endorsement, by: Some(ada) }),
        (Some(CLEO), Act::EndorsementRevoked { endorsement, by: Some(ada) }),
        (Some(CLEO), Act::DeviceRevoked { device, certificate, by: None }),
        (Some(CLEO), Act::Recovered { person_key, statement: digest("statement") }),
        (Some(CLEO), Act::Replaced { person_key, by: ada }),
        (Some(ADA), Act::InviteExpired { invite }),
        (Some(ADA), Act::InviteCancelled { invite }),
        (Some(ADA), Act::InviteRefused { invite, why: "it has been used already".to_owned() }),
        (Some(ADA), Act::MailboxCreated { mailbox, device }),
        (Some(ADA), Act::RosterChanged { mailbox, device, changes }),
        (None, Act::KeyRotated { key, statement: digest("statement") }),
        (None, Act::BackedUp { backup: digest("backup") }),
        (None, Act::Restored { before: [1; 16], incarnation: [2; 16] }),
        (Some(CLEO), Act::Adopted { endorsement, by: ada }),
    ]
}

fn hexes(hashes: &[TreeHash]) -> Vec<Hex> {
    hashes.iter().map(|hash| hex(hash.as_bytes())).collect()
}

fn log() -> (Vec<LoggedLeaf>, Vec<TreeHash>) {
    let mut last: std::collections::BTreeMap<_, Last> = std::collections::BTreeMap::new();
    let mut leaves = Vec::new();
    let mut hashes = Vec::new();
    for (number, (person, act)) in (0_u8..).zip(acts()) {
        let act_name = act.name().to_owned();
        let event = cbor::encode(&Event { at: AT.plus_ms(u64::from(number)), act });
        let opening = Opening { salt: ByteArray::from([number; 32]), event };
        let leaf = Leaf::after(last.get(&person), person.map(PersonId::new), &opening);
        let by_hand = Digest::of(&[b"privity/1 event", &[0], &[number; 32], &opening.event]);
        assert_eq!(leaf.commitment, by_hand);
        last.insert(person, leaf.last());
        assert!(follows("log-event", &opening.event) && follows("leaf", &leaf.encode()), "{act_name}");
        assert!(follows("opening", &cbor::encode(&opening)), "{act_name}");
        hashes.push(leaf.hash());
        leaves.push(LoggedLeaf {
            act: act_name,
            salt: hex([number; 32]),
            event: hex(&opening.event),
            leaf: hex(leaf.encode()),
            hash: hex(leaf.hash().as_bytes()),
        });
    }
    (leaves, hashes)
}

#[test]
fn events_leaves_and_proofs_are_as_recorded() {
    let (leaves, hashes) = log();
    let size = hashes.len() as u64;
    let roots: Vec<TreeHash> = (0..=size).map(|size| tree::root(&hashes[..], size).unwrap()).collect();
    let root = |size: u64| &roots[usize::try_from(size).unwrap()];
    let inclusion = [(0, 1), (0, 7), (6, 7), (3, 8), (20, size)].map(|(index, size)| {
        let proof = tree::inclusion(&hashes[..], index, size).unwrap();
        verify_inclusion(&hashes[usize::try_from(index).unwrap()], index, size, &proof, root(size)).unwrap();
        Inclusion { index, size, proof: hexes(&proof) }
    });
    let consistency = [(0, 5), (1, 2), (3, 7), (4, 7), (8, 21), (21, 21)].map(|(from, to)| {
        let proof = tree::consistency(&hashes[..], from, to).unwrap();
        verify_consistency((from, root(from)), (to, root(to)), &proof).unwrap();
        Consistency { from, to, proof: hexes(&proof) }
    });
    json::computed("log.json", &Log {
        about: "A log with one act of every kind: salts, events, leaves and their hashes; the roots of its first 0, 1, … leaves; inclusion \
                and consistency proofs."
            .to_owned(),
        leaves,
        roots: hexes(&roots),
        inclusion: inclusion.into(),
        consistency: consistency.into(),
    });
}

/// Leaves are named by their hashes everywhere: an act that is written otherwise tomorrow is another act.
#[test]
fn the_recorded_leaves_open_to_the_acts_of_today() {
    for (logged, (_, act)) in json::read::<Log>("log.json").leaves.iter().zip(acts()) {
        let salt: [u8; 32] = logged.salt.0[..].try_into().unwrap();
        let opening = Opening { salt: ByteArray::from(salt), event: logged.event.0.clone() };
        assert_eq!(Leaf::decode(&logged.leaf.0).unwrap().open(&opening).unwrap().act, act);
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    about: String,
    relay_seeds: Hex,
    relay_key: Hex,
    incarnation: Hex,
    cosigner_key: Hex,
    vkeys: String,
    vkeys_signature: Hex,
    note: String,
}

/// How many leaves the log had when its checkpoint was recorded.
const SIGNED: usize = 21;

#[test]
fn the_recorded_checkpoint_verifies_under_the_recorded_keys() {
    let relay = secret(4);
    let public = relay.public().unwrap();
    let origin = note::origin(&public.fingerprint(), &[0x1c; 16]);
    let (_, mut hashes) = log();
    hashes.truncate(SIGNED);
    let size = hashes.len() as u64;
    let checkpoint = Checkpoint { origin: origin.clone(), size, root: tree::root(&hashes[..], size).unwrap() };
    let found = recorded("checkpoint.json", || {
        let keys = LogKeys::make(&origin, &relay).unwrap();
        Note {
            about: "A checkpoint of the log in log.json, and the log's keys, signed by the relay's; the signatures are random."
                .to_owned(),
            relay_seeds: hex(relay.as_bytes()),
            relay_key: hex(public.as_bytes()),
            incarnation: hex([0x1c; 16]),
            cosigner_key: hex(relay.cosign_key().unwrap()),
            vkeys: keys.vkeys,
            vkeys_signature: hex(keys.signature),
            note: checkpoint.sign(&relay, AT).unwrap(),
        }
    });
    assert_eq!(found.cosigner_key, hex(relay.cosign_key().unwrap()), "derived as it was");
    assert_eq!(found.vkeys, LogKeys::make(&origin, &relay).unwrap().vkeys);
    let keys = LogKeys { vkeys: found.vkeys, signature: found.vkeys_signature.0 };
    assert_eq!(keys.verifier(&public).unwrap().open_exactly(&found.note).unwrap(), (checkpoint, AT));
}
