//! The tree against its definition and against others' answers; leaves, checkpoints and bundles, each altered.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::bundle::{self, Fault, pieces};
use super::tree::{self, Tiles, verify_consistency, verify_inclusion};
use super::*;
use crate::rotation::RelayRotation;
use crate::suite::SecretKey;

/// The definition of RFC 9162, section 2.1.1, word for word.
fn naive(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => TreeHash::empty(),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            TreeHash::node(&naive(left), &naive(right))
        }
    }
}

/// The proofs of RFC 9162, sections 2.1.3.1 and 2.1.4.1, word for word.
fn naive_path(index: usize, leaves: &[TreeHash]) -> Vec<TreeHash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, beside) = match index.checked_sub(left.len()) {
        None => (naive_path(index, left), right),
        Some(index) => (naive_path(index, right), left),
    };
    path.push(naive(beside));
    path
}

fn naive_subproof(from: usize, leaves: &[TreeHash], whole: bool) -> Vec<TreeHash> {
    if from == leaves.len() {
        return if whole { Vec::new() } else { vec![naive(leaves)] };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, beside) = match from.checked_sub(left.len()).filter(|rest| *rest > 0) {
        None => (naive_subproof(from, left, whole), right),
        Some(rest) => (naive_subproof(rest, right, false), left),
    };
    proof.push(naive(beside));
    proof
}

fn some(count: usize) -> Vec<TreeHash> {
    (0..count).map(|number| TreeHash::leaf(&number.to_be_bytes())).collect()
}

/// Answers of the reference implementation of RFC 6962, as other logs' tests have them.
#[test]
fn roots_and_proofs_are_those_of_rfc_6962s_reference() {
    let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let leaves: Vec<TreeHash> =
        inputs.map(|hex| TreeHash::leaf(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap())).into();
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    assert_eq!(TreeHash::empty().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size, root) in (1..).zip(roots) {
        assert_eq!(tree::root(&leaves[..], size).unwrap().to_string(), root);
    }
    let proof: Vec<String> = tree::inclusion(&leaves[..], 5, 8).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        proof,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    let proof: Vec<String> = tree::consistency(&leaves[..], 6, 8).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        proof,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

#[test]
fn proofs_of_every_small_tree_are_those_of_the_definition_and_verify() {
    let leaves = some(40);
    for size in 1..=leaves.len() {
        let (tree, root) = (&leaves[..size], naive(&leaves[..size]));
        let to = size as u64;
        assert_eq!(tree::root(tree, to).unwrap(), root);
        for (index, leaf) in tree.iter().enumerate() {
            let proof = tree::inclusion(tree, index as u64, to).unwrap();
            assert_eq!(proof, naive_path(index, tree));
            verify_inclusion(leaf, index as u64, to, &proof, &root).unwrap();
        }
        for from in 1..=size {
            let proof = tree::consistency(tree, from as u64, to).unwrap();
            assert_eq!(proof, naive_subproof(from, tree, true), "{from} to {size}");
            verify_consistency((from as u64, &naive(&leaves[..from])), (to, &root), &proof).unwrap();
        }
        assert!(tree::inclusion(tree, to, to).is_err() && tree::consistency(tree, to + 1, to).is_err());
    }
}

#[test]
fn a_tree_over_several_tiles_is_the_same_tree() {
    let leaves = some(256 * 257 + 3);
    for size in [255, 256, 257, 512, 65_535, 65_536, 65_537, leaves.len()] {
        assert_eq!(tree::root(&leaves[..], size as u64).unwrap(), naive(&leaves[..size]), "{size}");
    }
    let tiles: Vec<TreeHash> = leaves.chunks_exact(256).map(naive).collect();
    assert_eq!(leaves[..].hashes(1, 3, 7).unwrap(), tiles[3..7]);
    assert_eq!(leaves[..].hashes(2, 0, 1).unwrap(), [naive(&leaves[..65_536])]);
    assert!(leaves[..].hashes(2, 0, 2).is_err() && leaves[..].hashes(0, 7, u64::MAX).is_err());
    let size = leaves.len() as u64;
    let proof = tree::inclusion(&leaves[..], 65_600, size).unwrap();
    assert_eq!(proof, naive_path(65_600, &leaves));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_proof_with_anything_changed_does_not_verify(
        size in 1..400_u64, index in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(), bit in 0..256_usize, other in 1..500_u64,
    ) {
        let leaves = some(usize::try_from(size).unwrap());
        let root = naive(&leaves);
        let (index, from) = (index.index(leaves.len()), 1 + from.index(leaves.len()));
        let flip = |hash: &TreeHash| {
            let mut bytes = *hash.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            TreeHash::new(bytes)
        };
        let proof = tree::inclusion(&leaves[..], index as u64, size).unwrap();
        let leaf = leaves[index];
        let included = |proof: &[TreeHash]| verify_inclusion(&leaf, index as u64, size, proof, &root);
        prop_assert!(included(&proof).is_ok());
        prop_assert!(verify_inclusion(&flip(&leaves[index]), index as u64, size, &proof, &root).is_err());
        prop_assert!(verify_inclusion(&leaves[index], index as u64, size, &proof, &flip(&root)).is_err());
        if other != index as u64 {
            prop_assert!(verify_inclusion(&leaves[index], other, size, &proof, &root).is_err());
        }
        let old = naive(&leaves[..from]);
        let grown = tree::consistency(&leaves[..], from as u64, size).unwrap();
        let (then, now) = ((from as u64, &old), (size, &root));
        prop_assert!(verify_consistency(then, now, &grown).is_ok());
        prop_assert!(verify_consistency((then.0, &flip(&old)), now, &grown).is_err());
        prop_assert!(verify_consistency(then, (size, &flip(&root)), &grown).is_err());
        for (proof, holds) in [
            (&proof, &included as &dyn Fn(&[TreeHash]) -> Result<(), PeerMisbehaved>),
            (&grown, &|proof: &[TreeHash]| verify_consistency(then, now, proof)),
        ] {
            let longer = [&proof[..], &[root]].concat();
            prop_assert!(holds(&longer).is_err());
            if proof.is_empty() {
                continue;
            }
            let mut changed = proof.clone();
            let at = at.index(changed.len());
            changed[at] = flip(&changed[at]);
            prop_assert!(holds(&changed).is_err());
            prop_assert!(holds(&proof[..proof.len() - 1]).is_err());
        }
    }
}

fn relay() -> SecretKey {
    SecretKey::from_slice(&[7; 64]).unwrap()
}

const INCARNATION: [u8; 16] = [9; 16];

fn origin() -> String {
    note::origin(&relay().public().unwrap().fingerprint(), &INCARNATION)
}

fn event(number: u64) -> Event {
    Event { at: Timestamp(number), act: Act::InviteExpired { invite: InviteId::new([3; 16]) } }
}

/// A log of three people and the relay in turn.
fn log(size: u64) -> Vec<Vec<u8>> {
    let mut last: BTreeMap<Option<PersonId>, Last> = BTreeMap::new();
    let people = [None, Some(1), Some(2), Some(3)];
    let mut leaf = |number: u64| {
        let person = people[usize::try_from(number % 4).unwrap()].map(|byte| PersonId::new([byte; 16]));
        let leaf = Leaf::after(last.get(&person), person, &Opening::new(&event(number)));
        last.insert(person, leaf.last());
        leaf.encode()
    };
    (0..size).map(&mut leaf).collect()
}

fn checkpoint(leaves: &[Vec<u8>], relay: &SecretKey) -> String {
    let hashes: Vec<TreeHash> = leaves.iter().map(|leaf| TreeHash::leaf(leaf)).collect();
    let size = hashes.len() as u64;
    let root = tree::root(&hashes[..], size).unwrap();
    Checkpoint { origin: origin(), size, root }.sign(relay, Timestamp(1_800_000_000_000)).unwrap()
}

fn files(leaves: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let hashes: Vec<TreeHash> = leaves.iter().map(|leaf| TreeHash::leaf(leaf)).collect();
    let keys = LogKeys::make(&origin(), &relay()).unwrap();
    let mut files = BTreeMap::from([
        (bundle::CHECKPOINT.to_owned(), checkpoint(leaves, &relay()).into_bytes()),
        (bundle::KEYS.to_owned(), bundle::keys_file(&relay().public().unwrap(), &keys).into_bytes()),
    ]);
    for piece in pieces(0, leaves.len() as u64) {
        let bytes = match piece.level {
            Some(level) => bundle::pack_hashes(&hashes[..].hashes(level, piece.first(), piece.end()).unwrap()),
            None => {
                let range = usize::try_from(piece.first()).unwrap()..usize::try_from(piece.end()).unwrap();
                bundle::pack(leaves[range].iter().map(Vec::as_slice)).unwrap()
            }
        };
        files.insert(piece.path(), bytes);
    }
    files
}

fn verify(files: &BTreeMap<String, Vec<u8>>) -> Result<bundle::Verified, Fault> {
    bundle::verify(files, None, &mut |_, _| {})
}

#[test]
fn files_are_named_as_tlog_tiles_says() {
    let paths = |size| -> Vec<String> { pieces(0, size).map(|piece| piece.path()).collect() };
    assert_eq!(paths(0), [""; 0]);
    assert_eq!(paths(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
    assert_eq!(paths(256), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    let many = paths(70_000);
    assert_eq!(many.len(), 2 * 274 + 2 + 1, "the example of the specification");
    for path in ["tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"] {
        assert!(many.contains(&path.to_owned()), "{path}");
    }
    let far = bundle::Piece { level: Some(0), number: 1_234_067, width: 256 };
    assert_eq!(far.path(), "tile/0/x001/x234/067");
    let new: Vec<String> = pieces(255, 257).map(|piece| piece.path()).collect();
    assert_eq!(new, ["tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1",]);
    assert_eq!(pieces(7, 7).count(), 0);
}

#[test]
fn a_leaf_says_what_its_opening_says_and_nothing_without() {
    let opening = Opening::new(&event(1));
    let leaf = Leaf::after(None, Some(PersonId::new([5; 16])), &opening);
    assert_eq!(leaf.open(&opening).unwrap(), event(1));
    assert_eq!(Leaf::decode(&leaf.encode()).unwrap(), leaf);
    assert_ne!(Opening::new(&event(1)), opening, "the salt is fresh");
    let salted = Opening { salt: ByteArray::from([0; 32]), ..opening.clone() };
    assert!(leaf.open(&salted).is_err());
    assert!(leaf.open(&Opening { event: cbor::encode(&event(2)), ..opening.clone() }).is_err());
    let next = Leaf::after(Some(&leaf.last()), leaf.person, &opening);
    assert!(next.follows(Some(&leaf.last())) && leaf.follows(None));
    assert!(!next.follows(None) && !leaf.follows(Some(&leaf.last())));
    assert!(!Leaf { number: 3, ..next.clone() }.follows(Some(&leaf.last())));
    assert!(!Leaf { previous: Some(TreeHash::empty()), ..next }.follows(Some(&leaf.last())));
}

#[test]
fn a_leaf_of_another_version_or_written_otherwise_is_none() {
    let leaf = Leaf::after(None, None, &Opening::new(&event(1)));
    let bytes = leaf.encode();
    assert!(Leaf::decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(Leaf::decode(&Leaf { version: 2, ..leaf.clone() }.encode()).is_err());
    assert!(Leaf::decode(&Leaf { number: 0, ..leaf }.encode()).is_err());
    let unknown = [&[bytes[0] + 1][..], &bytes[1..], &[9, 1]].concat();
    assert!(Leaf::decode(&unknown).is_err());
}

#[test]
fn a_checkpoint_needs_both_signatures_of_its_own_log() {
    let keys = LogKeys::make(&origin(), &relay()).unwrap();
    let verifier = keys.verifier(&relay().public().unwrap()).unwrap();
    let note = checkpoint(&log(5), &relay());
    let (opened, at) = verifier.open(&note).unwrap();
    assert_eq!((opened.size, opened.origin.as_str(), at), (5, verifier.origin(), Timestamp(1_800_000_000_000)));
    let lines: Vec<&str> = note.split_inclusive('\n').collect();
    for left_out in [4, 5] {
        let rest: String =
            lines.iter().enumerate().filter(|(line, _)| *line != left_out).map(|(_, line)| *line).collect();
        assert!(verifier.open(&rest).is_err(), "without line {left_out}");
    }
    let witnessed = format!("{note}\u{2014} witness.example/1 {}\n", data_encoding::BASE64.encode(&[1; 76]));
    verifier.open(&witnessed).unwrap();
    assert!(verifier.open_exactly(&witnessed).is_err());
    let twice = format!("{note}{}", lines[4]);
    assert!(verifier.open(&twice).is_ok() && verifier.open_exactly(&twice).is_err());
    let other = SecretKey::generate();
    assert!(verifier.open(&checkpoint(&log(5), &other)).is_err());
    assert!(keys.verifier(&other.public().unwrap()).is_err());
    let elsewhere = LogKeys::make(&origin().replace("privity", "other"), &relay()).unwrap();
    assert!(elsewhere.verifier(&relay().public().unwrap()).unwrap().open(&note).is_err());
    // A log's own keys, its cosigner's exchanged for another's.
    let theirs = LogKeys::make(&origin(), &other).unwrap();
    let mixed = keys.vkeys.lines().next().unwrap().to_owned() + "\n" + theirs.vkeys.lines().nth(1).unwrap() + "\n";
    assert!(LogKeys { vkeys: mixed, ..keys }.verifier(&relay().public().unwrap()).is_err());
}

#[test]
fn every_byte_of_a_checkpoint_counts() {
    let keys = LogKeys::make(&origin(), &relay()).unwrap();
    let verifier = keys.verifier(&relay().public().unwrap()).unwrap();
    let note = checkpoint(&log(5), &relay()).into_bytes();
    for at in 0..note.len() {
        let mut changed = note.clone();
        changed[at] ^= 1;
        if let Ok(changed) = String::from_utf8(changed) {
            assert!(verifier.open_exactly(&changed).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_bundle_verifies_and_says_whose_log_it_is() {
    for size in [0, 1, 255, 256, 257, 600] {
        let leaves = log(size);
        let mut heard = 0;
        let verified = bundle::verify(&files(&leaves), None, &mut |done, of| {
            assert_eq!(of, size);
            heard = done;
        });
        let verified = verified.unwrap();
        assert_eq!((verified.checkpoint.size, heard, verified.against), (size, size, None));
        assert_eq!(verified.relay, relay().public().unwrap().fingerprint());
    }
}

#[test]
fn a_bundle_with_any_byte_changed_is_faulty_in_that_file() {
    let good = files(&log(259));
    for (path, bytes) in &good {
        let step = if bytes.len() > 1500 { 37 } else { 5 };
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut files = good.clone();
            files.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
            let fault = verify(&files).unwrap_err();
            assert_eq!(&fault.file, path, "byte {at}: {fault}");
            if path.starts_with("tile/0/") {
                let first = if path.contains("000") { 0 } else { 256 };
                assert_eq!(fault.leaf, Some(first + at as u64 / 32), "byte {at} of {path}");
            }
        }
        for changed in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[]] {
            let mut files = good.clone();
            files.insert(path.clone(), changed.to_vec());
            assert_eq!(&verify(&files).unwrap_err().file, path);
        }
    }
}

#[test]
fn a_leaf_with_any_byte_changed_is_named() {
    let leaves = log(20);
    let good = files(&leaves);
    let mut at = 0;
    for (index, leaf) in (0..).zip(&leaves) {
        for byte in at..at + 2 + leaf.len() {
            let mut files = good.clone();
            files.get_mut("tile/entries/000.p/20").unwrap()[byte] ^= 0x10;
            let fault = verify(&files).unwrap_err();
            assert_eq!((fault.file.as_str(), fault.leaf), ("tile/entries/000.p/20", Some(index)), "{fault}");
        }
        at += 2 + leaf.len();
    }
}

#[test]
fn missing_and_foreign_files_are_named() {
    let good = files(&log(300));
    for path in good.keys() {
        let mut files = good.clone();
        files.remove(path);
        assert_eq!(&verify(&files).unwrap_err().file, path);
    }
    for foreign in ["notes.txt", "tile/0/000.p/12", "tile/2/000.p/1", "tile/0/../checkpoint"] {
        let mut files = good.clone();
        files.insert(foreign.to_owned(), b"x".to_vec());
        assert_eq!(verify(&files).unwrap_err().file, foreign);
    }
}

/// Whoever has the disk but not the relay's key changes leaves and tiles alike.
#[test]
fn leaves_dropped_swapped_or_cut_off_are_found_where_the_tiles_follow_them() {
    let leaves = log(300);
    let with = |changed: &[Vec<u8>], note: &[Vec<u8>]| {
        let mut files = files(changed);
        files.insert("checkpoint".to_owned(), checkpoint(note, &relay()).into_bytes());
        verify(&files).unwrap_err()
    };
    let mut swapped = leaves.clone();
    swapped.swap(40, 44);
    assert_eq!(with(&swapped, &leaves).leaf, Some(40), "two of one person");
    let mut other = leaves.clone();
    other[298] = log(299).pop().unwrap();
    assert_eq!(with(&other, &leaves).leaf, Some(298), "another in its place, of an earlier log");
    let mut dropped = leaves.clone();
    dropped.remove(40);
    assert_eq!(with(&dropped, &leaves).file, "tile/entries/001.p/44", "of 300 there are 299");
    dropped.push(leaves[299].clone());
    assert_eq!(with(&dropped, &leaves).leaf, Some(43), "the next of that person");
    let cut = with(&leaves[..256], &leaves);
    assert_eq!((cut.file.as_str(), cut.leaf), ("tile/entries/001.p/44", Some(256)));
    let mut twice = leaves.clone();
    twice[299] = leaves[295].clone();
    assert_eq!(with(&twice, &leaves).leaf, Some(299));
}

/// A relay that writes nonsense into its log and signs it.
#[test]
fn a_log_whose_leaves_do_not_follow_each_other_is_faulty_though_signed() {
    let mut leaves = log(12);
    leaves.swap(5, 9);
    let fault = verify(&files(&leaves)).unwrap_err();
    assert_eq!(fault.leaf, Some(5), "{fault}");
    leaves[5] = b"noise".to_vec();
    assert_eq!(verify(&files(&leaves)).unwrap_err().leaf, Some(5));
}

#[test]
fn a_bundle_of_another_history_is_none_that_has_grown_from_a_known_checkpoint() {
    let leaves = log(300);
    let files = files(&leaves);
    let against = |note: &str| bundle::verify(&files, Some(note), &mut |_, _| {});
    for size in [0, 1, 256, 299, 300] {
        let known = checkpoint(&leaves[..size], &relay());
        assert_eq!(against(&known).unwrap().against, Some(size as u64));
    }
    let fault = |note: &str| against(note).unwrap_err();
    assert_eq!(fault(&checkpoint(&log(200), &relay())).file, bundle::AGAINST, "another history");
    assert_eq!(fault(&checkpoint(&log(301), &relay())).file, bundle::AGAINST, "newer");
    assert_eq!(fault(&checkpoint(&leaves[..7], &SecretKey::generate())).file, bundle::AGAINST, "of another relay");
    assert_eq!(fault("").file, bundle::AGAINST);
}

#[test]
fn a_bundle_that_another_relay_signed_says_so() {
    let other = SecretKey::generate();
    let mut files = files(&log(9));
    files.insert("checkpoint".to_owned(), checkpoint(&log(9), &other).into_bytes());
    assert_eq!(verify(&files).unwrap_err().file, "checkpoint");
    let keys = LogKeys::make(&origin(), &relay()).unwrap();
    files.insert("keys".to_owned(), bundle::keys_file(&other.public().unwrap(), &keys).into_bytes());
    assert_eq!(verify(&files).unwrap_err().file, "keys");
}

/// A signed size that no disk holds must not be believed before the files are there.
#[test]
fn a_claimed_size_takes_no_memory() {
    let mut files = files(&log(9));
    let huge = Checkpoint { origin: origin(), size: u64::MAX, root: TreeHash::empty() };
    files.insert("checkpoint".to_owned(), huge.sign(&relay(), Timestamp(0)).unwrap().into_bytes());
    assert_eq!(verify(&files).unwrap_err().file, "tile/entries/000");
}

/// A log that a relay signs whose key was replaced twice: its files, and its keys, the first first.
fn rotated(leaves: &[Vec<u8>]) -> (BTreeMap<String, Vec<u8>>, [SecretKey; 3]) {
    let keys = [SecretKey::generate(), SecretKey::generate(), SecretKey::generate()];
    let newest = &keys[2];
    let past: Vec<bundle::PastKey> = keys
        .windows(2)
        .map(|pair| bundle::PastKey {
            relay: pair[0].public().unwrap(),
            keys: LogKeys::make(&origin_of(&pair[0]), &pair[0]).unwrap(),
            rotation: RelayRotation::sign(&pair[0], &pair[1].public().unwrap(), Timestamp(1)).unwrap(),
        })
        .collect();
    let mut files = files(leaves);
    let public = newest.public().unwrap();
    let text = bundle::keys_file_after(&past, &public, &LogKeys::make(&origin_of(newest), newest).unwrap());
    files.insert(bundle::KEYS.to_owned(), text.into_bytes());
    files.insert(bundle::CHECKPOINT.to_owned(), checkpoint_by(leaves, newest).into_bytes());
    (files, keys)
}

fn origin_of(key: &SecretKey) -> String {
    note::origin(&key.public().unwrap().fingerprint(), &[9; 16])
}

fn checkpoint_by(leaves: &[Vec<u8>], key: &SecretKey) -> String {
    let hashes: Vec<TreeHash> = leaves.iter().map(|leaf| TreeHash::leaf(leaf)).collect();
    let size = hashes.len() as u64;
    let root = tree::root(&hashes[..], size).unwrap();
    Checkpoint { origin: origin_of(key), size, root }.sign(key, Timestamp(1_800_000_000_000)).unwrap()
}

#[test]
fn a_log_goes_on_under_the_keys_that_follow_each_other() {
    let leaves = log(20);
    let (files, keys) = rotated(&leaves);
    let [first, second, third] = keys.each_ref().map(|key| key.public().unwrap().fingerprint());
    let verified = verify(&files).unwrap();
    assert_eq!((verified.relay, verified.before), (third, vec![first, second]));
    let against = |note: &str| bundle::verify(&files, Some(note), &mut |_, _| {});
    for key in &keys {
        assert_eq!(against(&checkpoint_by(&leaves[..7], key)).unwrap().against, Some(7), "whichever key signed it");
        assert_eq!(against(&checkpoint_by(&log(7), key)).unwrap_err().file, bundle::AGAINST, "another history");
    }
    assert_eq!(against(&checkpoint_by(&leaves[..7], &SecretKey::generate())).unwrap_err().file, bundle::AGAINST);
    // Of another incarnation it is another log, whichever key signed it.
    let origin = note::origin(&first, &[8; 16]);
    let other = Checkpoint { origin, size: 0, root: TreeHash::empty() }.sign(&keys[0], Timestamp(1)).unwrap();
    assert_eq!(against(&other).unwrap_err().file, bundle::AGAINST);
    // The bundle itself is signed by the newest.
    let mut old = files.clone();
    old.insert(bundle::CHECKPOINT.to_owned(), checkpoint_by(&leaves, &keys[1]).into_bytes());
    assert_eq!(verify(&old).unwrap_err().file, bundle::CHECKPOINT);
}

#[test]
fn no_byte_of_the_statements_between_keys_can_be_changed() {
    let (files, keys) = rotated(&log(3));
    let good = files[bundle::KEYS].clone();
    let fails = |keys: Vec<u8>, what: &str| {
        let mut files = files.clone();
        files.insert(bundle::KEYS.to_owned(), keys);
        assert_eq!(verify(&files).map_err(|fault| fault.file), Err(bundle::KEYS.to_owned()), "{what}");
    };
    // Each line is tried in a few places, its end among them, where base64 has bits that mean nothing.
    let mut start = 0;
    for (number, line) in good.split_inclusive(|byte| *byte == b'\n').enumerate() {
        for at in
            [0, 5, 12, line.len() / 2, line.len() - 5, line.len() - 4, line.len() - 3, line.len() - 2, line.len() - 1]
        {
            let mut changed = good.clone();
            changed[start + at] ^= 1;
            fails(changed, &format!("line {number}, byte {at}"));
        }
        let mut without = good.clone();
        without.drain(start..start + line.len());
        fails(without, &format!("without line {number}"));
        start += line.len();
    }
    fails([good.clone(), b"\n".to_vec()].concat(), "a line more");
    // Without the last block it is the file of a relay with one key fewer: that one vouches for nothing that is gone.
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let mut fewer = files.clone();
    fewer.insert(bundle::KEYS.to_owned(), lines[..9].concat());
    assert_eq!(verify(&fewer).unwrap().before, [keys[1].public().unwrap().fingerprint()]);
    // A statement by a key that is not the one before.
    let swapped = [lines[..8].concat(), lines[13].to_vec(), lines[9..].concat()].concat();
    fails(swapped, "another statement");
}
