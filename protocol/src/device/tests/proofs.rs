//! What a device found out about its relay, as files that others check.

use std::collections::BTreeMap;

use super::world::log::Log;
use super::world::{BOB, DAN, World, relay_key};
use super::*;
use crate::log::{Act, Checkpoint, LogKeys, TreeHash, bundle, note, tree};
use crate::proof::{Claim, DEVICE, How, Proved, README, STATEMENT, verify};
use crate::suite::PublicKey;

type Files = BTreeMap<String, Vec<u8>>;

fn proof(world: &World, who: usize) -> Files {
    let device = &world.nodes[who].device;
    let matters: Vec<MatterId> = device.matters().map(|(id, _)| id).collect();
    let records: Vec<Record> = matters.into_iter().flat_map(|matter| world.records(who, matter)).collect();
    device.proof(world.now, device.claims(&records), "In plain words.\n".to_owned()).unwrap()
}

fn proved(files: &Files) -> Proved {
    verify(files, None, None).unwrap()
}

/// Dan, whom the relay shows a log that is altered and then not what it was; with what he found.
fn deceived(alter: impl FnOnce(&mut Log, PersonId)) -> (World, Files) {
    let mut world = World::office();
    world.matter(&[BOB, DAN]);
    let (dan, mut log) = (world.person(DAN), world.relay.log.clone());
    alter(&mut log, dan);
    world.relay.other_log = Some((world.nodes[DAN].device.profile().device, log));
    // Notes of one second are not told apart.
    world.disconnect(DAN);
    world.settle();
    let files = proof(&world, DAN);
    (world, files)
}

fn made_up(log: &mut Log, person: PersonId, number: u8) {
    log.add(person, Act::InviteExpired { invite: InviteId::new([number; 16]) });
}

#[test]
fn two_notes_of_one_size_are_proof_and_a_proof_is_whole_or_nothing() {
    let (world, files) = deceived(|log, dan| {
        log.leaves.pop();
        made_up(log, dan, 9);
    });
    let found = proved(&files);
    let size = world.nodes[DAN].device.log().unwrap().head.size;
    let of: Vec<(&str, &str, How)> =
        found.contradictions.iter().map(|found| (found.one.as_str(), found.other.as_str(), found.how)).collect();
    // Once, although the newest note is the same as the one that was known.
    assert_eq!(of, [("log/1/known", "log/1/shown", How::OtherRoot { size })]);
    let profile = world.nodes[DAN].device.profile();
    assert_eq!((found.said.device, found.organisation), (profile.device, profile.organisation.fingerprint()));
    assert_eq!((found.handle.as_str(), found.said.claims.len()), ("dan", 1));
    assert!(!found.is_word_alone(&found.said.claims[0]));
    assert!(found.notes.iter().all(|note| note.relay == relay_key().public().unwrap().fingerprint()));

    for (path, bytes) in &files {
        // Every byte of the short ones, and many of the long ones.
        for at in (0..bytes.len()).step_by((bytes.len() / 40).max(1)) {
            let mut changed = files.clone();
            changed.get_mut(path).unwrap()[at] ^= 1;
            let fault = verify(&changed, None, None).unwrap_err();
            assert!(fault.file == *path || path == STATEMENT, "{path} {at}: {fault}");
        }
        let mut without = files.clone();
        without.remove(path);
        assert_eq!(verify(&without, None, None).unwrap_err().file, *path);
    }
    let mut more = files.clone();
    more.insert("log/9/known".to_owned(), b"x".to_vec());
    assert_eq!(verify(&more, None, None).unwrap_err().file, "log/9/known");
}

#[test]
fn nothing_secret_is_in_a_proof() {
    let (world, files) = deceived(|log, _| log.leaves.truncate(log.leaves.len() - 2));
    let device = world.nodes[DAN].device.profile();
    let secrets = [device.mls_key.as_bytes().to_vec(), device.link_key.as_bytes().to_vec(), device.name.salt.to_vec()];
    for (path, bytes) in &files {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let decoded: Vec<u8> = text
            .split_whitespace()
            .filter_map(|word| data_encoding::BASE64.decode(word.as_bytes()).ok())
            .flatten()
            .chain(bytes.iter().copied())
            .collect();
        for secret in &secrets {
            assert!(!decoded.windows(secret.len()).any(|part| part == secret), "{path}");
        }
    }
}

/// What the relay's signatures do not prove is the device's word, and is called so.
#[test]
fn a_longer_log_that_does_not_continue_is_word_alone_until_the_whole_log_is_there() {
    let (mut world, files) = deceived(|log, dan| {
        log.leaves.truncate(log.leaves.len() - 2);
        (1..=4).for_each(|number| made_up(log, dan, number));
    });
    let found = proved(&files);
    assert!(found.contradictions.is_empty(), "{found:?}");
    assert!(found.is_word_alone(&found.said.claims[0]));
    let shown = files.keys().filter(|path| path.ends_with("/shown")).count();
    assert_eq!((shown, found.notes.len()), (1, 3), "{:?}", files.keys());

    // The log that the relay exports is the one that everybody else knows; by now it has grown.
    let dan = world.person(DAN);
    (11..=20).for_each(|number| made_up(&mut world.relay.log, dan, number));
    let whole = bundle::read(&exported(&world.relay.log, &world.relay.incarnation), &mut |_, _| {}).unwrap();
    let found = verify(&files, None, Some(&whole)).unwrap();
    let against: Vec<(&str, &How)> =
        found.contradictions.iter().map(|found| (found.one.as_str(), &found.how)).collect();
    assert!(matches!(against[..], [("log/1/shown", How::NotInExport { .. })]), "{against:?}");
    let other = bundle::read(&exported(&world.relay.log, &[77; 16]), &mut |_, _| {}).unwrap();
    assert_eq!(verify(&files, None, Some(&other)).unwrap_err().file, crate::proof::EXPORT);
}

/// Each of two people alone has a log in order; their notes together convict the relay.
#[test]
fn a_note_that_somebody_else_kept_is_held_against_it() {
    let (mut world, files) = deceived(|log, dan| {
        log.leaves.pop();
        made_up(log, dan, 9);
    });
    world.relay.other_log = None;
    let bobs = proof(&world, BOB);
    assert!(proved(&bobs).contradictions.is_empty());
    let dans = String::from_utf8(files["log/1/shown"].clone()).unwrap();
    let found = verify(&bobs, Some(&dans), None).unwrap();
    assert!(matches!(found.contradictions[0].how, How::OtherRoot { .. }), "{found:?}");
    let stranger = files["log/1/keys"].clone();
    let stranger = String::from_utf8(stranger).unwrap();
    assert_eq!(verify(&bobs, Some(&stranger), None).unwrap_err().file, bundle::AGAINST);
}

#[test]
fn forks_and_disputes_are_claims_with_both_positions() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let (at, mine) = (world.now, world.nodes[DAN].device.matter(matter).unwrap().position);
    let shown = Position::start(MailboxId::random());
    let bob = world.person(BOB);
    let record = |cursor, what| Record { cursor, matter, seq: 1, from: Some(bob), device: None, at, what };
    let records = [
        record(1, RecordBody::Forked { read: mine, shown }),
        record(2, RecordBody::Dispute { read: None, said: Some(shown) }),
        record(3, RecordBody::Dispute { read: None, said: None }),
        record(4, RecordBody::Gap),
    ];
    let device = &world.nodes[DAN].device;
    let claims = device.claims(&records);
    assert_eq!(
        claims,
        [
            Claim::Fork { at, matter, read: mine, shown },
            Claim::Dispute { at, matter, by: bob, positions: Some((None, shown)) },
            Claim::Dispute { at, matter, by: bob, positions: None },
        ]
    );
    let files = device.proof(world.now, claims.clone(), String::new()).unwrap();
    let found = proved(&files);
    assert_eq!(found.said.claims, claims);
    assert!(claims.iter().all(|claim| found.is_word_alone(claim)));
    assert!([STATEMENT, DEVICE, README].iter().all(|file| files.contains_key(*file)));
}

/// A record of a version before positions were kept.
#[test]
fn an_old_record_of_a_dispute_still_opens() {
    let old: RecordBody = cbor::decode(&[0x82, 0x07, 0x80], "record").unwrap();
    assert_eq!(old, RecordBody::Dispute { read: None, said: None });
}

#[test]
fn whoever_signs_for_somebody_else_is_refused() {
    let (world, files) = deceived(|log, dan| made_up(log, dan, 9));
    let bobs = proof(&world, BOB);
    // Bob's statement with Dan's identity, and the other way round.
    for (mine, other) in [(&files, &bobs), (&bobs, &files)] {
        let mut mixed = mine.clone();
        mixed.insert(DEVICE.to_owned(), other[DEVICE].clone());
        assert_eq!(verify(&mixed, None, None).unwrap_err().file, DEVICE);
    }
}

/// The files of an export of a small log.
fn exported(log: &Log, incarnation: &[u8; 16]) -> Files {
    let leaves: Vec<Vec<u8>> = log.leaves.iter().map(|(leaf, _)| leaf.encode()).collect();
    let hashes: Vec<TreeHash> = leaves.iter().map(|leaf| TreeHash::leaf(leaf)).collect();
    let public: PublicKey = relay_key().public().unwrap();
    let (origin, size) = (note::origin(&public.fingerprint(), incarnation), leaves.len() as u64);
    let checkpoint = Checkpoint { origin: origin.clone(), size, root: tree::root(&hashes[..], size).unwrap() };
    let checkpoint = checkpoint.sign(relay_key(), Timestamp(1_800_000_000_000)).unwrap();
    let keys = bundle::keys_file(&public, &LogKeys::make(&origin, relay_key()).unwrap());
    let entries = bundle::pack(leaves.iter().map(Vec::as_slice)).unwrap();
    Files::from([
        (bundle::CHECKPOINT.to_owned(), checkpoint.into_bytes()),
        (bundle::KEYS.to_owned(), keys.into_bytes()),
        (format!("tile/entries/000.p/{size}"), entries),
        (format!("tile/0/000.p/{size}"), bundle::pack_hashes(&hashes)),
    ])
}

/// A clock that was set back makes no honest relay a liar: a shorter log, signed later, is what the device says and no more.
#[test]
fn a_shorter_log_that_was_signed_later_is_no_proof_by_itself() {
    let (_, files) = deceived(|log, _| log.leaves.truncate(log.leaves.len() - 2));
    let found = proved(&files);
    assert!(found.contradictions.is_empty(), "{:?}", found.contradictions);
    assert!(matches!(&found.said.claims[0], Claim::Log { what, .. } if what.contains("shorter")));
    assert!(found.is_word_alone(&found.said.claims[0]));
}
