//! The audit log from end to end: written by a real relay, exported beside it, and verified by two programs that share no code.
//!
//! Invariant: whatever is done to a bundle, `privity_protocol::log::bundle` and `verify_audit.py` say the same of it.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use privity_protocol::ids::{InviteId, PersonId, Timestamp};
use privity_protocol::log::bundle::{self, PastKey, Piece, pieces};
use privity_protocol::log::tree::{self, Tiles as _};
use privity_protocol::log::{Act, Checkpoint, Event, Last, Leaf, LogKeys, Opening, TreeHash, note};
use privity_protocol::rotation::RelayRotation;
use privity_protocol::suite::SecretKey;
use privity_tests::{Firm, binaries};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verify_audit.py");

/// Whether the other verifier can run here; says so where it can't.
fn python() -> bool {
    let import = "from cryptography.hazmat.primitives.asymmetric import mldsa; mldsa.MLDSA44PublicKey.from_public_bytes(bytes(1312))";
    let there = Command::new("python3").args(["-c", import]).output().is_ok_and(|ran| ran.status.success());
    if !there {
        eprintln!("skipped: python3 with cryptography 47 or newer, and ML-DSA in it, is not here");
    }
    there
}

/// What the other verifier says of each bundle.
fn verified_by_python(bundles: &[PathBuf]) -> Vec<String> {
    let ran = Command::new("python3").arg(SCRIPT).args(bundles).output().unwrap();
    let said: Vec<String> = String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect();
    assert_eq!(said.len(), bundles.len(), "{}", String::from_utf8_lossy(&ran.stderr));
    said
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                waiting.push(entry);
            } else {
                let name = entry.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(entry).unwrap());
            }
        }
    }
    found
}

fn write(folder: &Path, bundle: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in bundle {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn relay(arguments: &[&str]) -> Output {
    Command::new(binaries().unwrap().join("privity-relay")).args(arguments).output().unwrap()
}

fn verify(arguments: &[&str]) -> Output {
    Command::new(binaries().unwrap().join("privity")).args(["audit", "verify"]).args(arguments).output().unwrap()
}

#[test]
fn what_people_did_is_in_the_exported_log_and_no_name_or_handle_is() {
    let firm = Firm::found().unwrap();
    let data = firm.relay.folder().to_str().unwrap().to_owned();
    let before = firm.folder().join("checkpoint");
    fs::write(&before, relay(&["audit", "checkpoint", "--data", &data]).stdout).unwrap();
    let bob = firm.bring("bobjones", "Bartholomew Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();

    let out = firm.folder().join("bundle");
    let bundle = out.to_str().unwrap();
    assert!(relay(&["audit", "export", "--data", &data, "--out", bundle]).status.success());
    let tail = String::from_utf8(relay(&["audit", "tail", "--data", &data, "--last", "99", "--json"]).stdout).unwrap();
    let leaves: Vec<serde_json::Value> = tail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for act in [
        "founded",
        "configured",
        "registered",
        "device-added",
        "endorsed",
        "invite-used",
        "mailbox-created",
        "roster-changed",
    ] {
        assert!(leaves.iter().any(|leaf| leaf["act"] == act), "{act} in {tail}");
    }
    let files = files(&out);
    // Long enough to stand in no signature by chance.
    for secret in ["bobjones", "Bartholomew", "Jones", "Lease", "Smith"] {
        let told = files.iter().find(|(_, bytes)| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert!(told.is_none(), "{secret} stands in {:?}", told.map(|(name, _)| name));
    }

    let verified = verify(&["--bundle", bundle, "--against", before.to_str().unwrap(), "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&said["verified"], &said["leaves"]), (&true.into(), &leaves.len().into()), "{verified:?}");
    assert!(said["against"].as_u64().unwrap() < leaves.len() as u64);
    if python() {
        let root = said["root"].as_str().unwrap();
        assert_eq!(verified_by_python(std::slice::from_ref(&out)), [format!("ok {} {root}", leaves.len())]);
    }
}

/// A checkpoint on paper is of the key that the relay had then.
#[test]
fn an_export_over_a_rotation_grows_from_a_checkpoint_of_the_key_before() {
    let mut firm = Firm::found().unwrap();
    let data = firm.relay.folder().to_str().unwrap().to_owned();
    let before = firm.folder().join("checkpoint");
    fs::write(&before, relay(&["audit", "checkpoint", "--data", &data]).stdout).unwrap();
    let key = |json: &[u8]| -> String {
        serde_json::from_slice::<serde_json::Value>(json).unwrap()["key"].as_str().unwrap().to_owned()
    };
    let first = key(&relay(&["key", "show", "--data", &data, "--json"]).stdout);
    firm.relay.stop().unwrap();
    let second = key(&relay(&["key", "rotate", "--data", &data, "--json"]).stdout);
    // What is on disk is signed anew at once, before anybody starts the relay.
    let on_disk = fs::read_to_string(firm.relay.folder().join("audit/checkpoint")).unwrap();
    assert!(on_disk.starts_with(&format!("privity/{}/", second.replace(' ', ""))), "{on_disk}");
    firm.relay.run().unwrap();
    firm.bring("bob", "Bob Jones", "client").unwrap();

    let out = firm.folder().join("bundle");
    let bundle = out.to_str().unwrap();
    assert!(relay(&["audit", "export", "--data", &data, "--out", bundle]).status.success());
    let verified = verify(&["--bundle", bundle, "--against", before.to_str().unwrap(), "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(said["verified"], true, "{verified:?}");
    assert_eq!((&said["relay"], &said["relay_before"]), (&second.as_str().into(), &serde_json::json!([first])));
    let read = String::from_utf8(verify(&["--bundle", bundle]).stdout).unwrap();
    assert!(read.contains(&first) && read.contains("each has signed for the next"), "{read}");
    let tail = String::from_utf8(relay(&["audit", "tail", "--data", &data, "--last", "99"]).stdout).unwrap();
    assert!(tail.lines().any(|line| line.contains("key-rotated") && line.contains(&second)), "{tail}");

    let good = files(&out);
    let text = String::from_utf8(good["keys"].clone()).unwrap();
    let statement = text.find("rotation ").unwrap();
    for at in [statement + 20, statement + 2000, text.len() - 20] {
        let mut keys = text.clone().into_bytes();
        keys[at] ^= 1;
        let (touched, path) = ([good.clone(), [("keys".to_owned(), keys)].into()], firm.folder().join(at.to_string()));
        write(&path, &touched.into_iter().flatten().collect());
        let ended = verify(&["--bundle", path.to_str().unwrap(), "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((ended.status.code(), &said["file"]), (Some(8), &"keys".into()), "{ended:?}");
        if python() {
            assert!(verified_by_python(&[path])[0].starts_with("bad"), "byte {at}");
        }
    }
    if python() {
        let root = verify(&["--bundle", bundle, "--json"]).stdout;
        let root: serde_json::Value = serde_json::from_slice(&root).unwrap();
        assert_eq!(
            verified_by_python(std::slice::from_ref(&out)),
            [format!("ok {} {}", root["leaves"], root["root"].as_str().unwrap())]
        );
    }
}

/// What a device knows of an honest relay is in the log that this one exports, and in no other relay's.
#[test]
fn a_proof_is_held_against_an_exported_log() {
    let (firm, stranger) = (Firm::found().unwrap(), Firm::found().unwrap());
    let exported = |firm: &Firm| {
        let out = firm.folder().join("bundle");
        let data = firm.relay.folder().to_str().unwrap();
        assert!(relay(&["audit", "export", "--data", data, "--out", out.to_str().unwrap()]).status.success());
        out.to_str().unwrap().to_owned()
    };
    let proof = firm.folder().join("proof");
    let proof = proof.to_str().unwrap();
    firm.attorney.ok(&["audit", "proof", "--out", proof]).unwrap();
    let own = verify(&["--proof", proof, "--bundle", &exported(&firm), "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&own.stdout).unwrap();
    assert_eq!((own.status.code(), &said["contradictions"]), (Some(0), &serde_json::json!([])), "{own:?}");
    let other = verify(&["--proof", proof, "--bundle", &exported(&stranger)]);
    assert_eq!(other.status.code(), Some(8), "{other:?}");
    assert!(String::from_utf8_lossy(&other.stderr).contains("the log of another relay"), "{other:?}");
    // An export that was touched settles nothing.
    fs::write(firm.folder().join("bundle/checkpoint"), "x").unwrap();
    let bundle = firm.folder().join("bundle");
    let touched = verify(&["--proof", proof, "--bundle", bundle.to_str().unwrap()]);
    assert_eq!(touched.status.code(), Some(8), "{touched:?}");
    assert!(
        String::from_utf8_lossy(&touched.stderr).contains("the exported log does not verify: checkpoint"),
        "{touched:?}"
    );
}

#[test]
fn a_bundle_that_was_touched_ends_with_exit_code_8_and_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let good = log(20);
    let mut number = 0;
    let mut fails = |bundle: &BTreeMap<String, Vec<u8>>, place: &str, leaf: Option<u64>| {
        number += 1;
        let path = folder.path().join(number.to_string());
        write(&path, bundle);
        let ended = verify(&["--bundle", path.to_str().unwrap(), "--json"]);
        assert_eq!(ended.status.code(), Some(8), "{ended:?}");
        let said: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((said["file"].as_str(), said["leaf"].as_u64()), (Some(place), leaf), "{said}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains(place), "{ended:?}");
    };
    let entries = "tile/entries/000.p/20";
    let with = |name: &str, bytes: Option<&[u8]>| {
        let mut bundle = good.clone();
        match bytes {
            Some(bytes) => drop(bundle.insert(name.to_owned(), bytes.to_vec())),
            None => drop(bundle.remove(name)),
        }
        bundle
    };
    let before: usize = split(&good[entries])[..7].iter().map(|leaf| 2 + leaf.len()).sum();
    let mut flipped = good[entries].clone();
    flipped[before + 40] ^= 1;
    fails(&with(entries, Some(&flipped)), entries, Some(7));
    fails(&with(entries, None), entries, Some(0));
    fails(&with("notes", Some(b"x")), "notes", None);
    fails(&with("keys", Some(b"x")), "keys", None);
    fails(&with("checkpoint", Some(&log(20)["checkpoint"])), "checkpoint", None);
    let huge = folder.path().join("huge");
    write(&huge, &good);
    fs::File::create(huge.join("notes")).unwrap().set_len(1 << 40).unwrap();
    let ended = verify(&["--bundle", huge.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(8), "it is not read: {ended:?}");
    let nowhere = verify(&["--bundle", "/no/such/folder"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let link = folder.path().join("linked");
    write(&link, &with("checkpoint", None));
    std::os::unix::fs::symlink(folder.path().join("1/checkpoint"), link.join("checkpoint")).unwrap();
    assert_eq!(verify(&["--bundle", link.to_str().unwrap()]).status.code(), Some(8), "a link is no file of a bundle");
}

/// A bundle of that many leaves of three people and the relay, by a fresh relay key.
fn log(size: u64) -> BTreeMap<String, Vec<u8>> {
    let key = [SecretKey::generate()];
    let mut last: BTreeMap<Option<PersonId>, Last> = BTreeMap::new();
    let mut leaf = |number: u64| {
        let person = [None, Some(1), Some(2), Some(3)][usize::try_from(number % 4).unwrap()];
        let person = person.map(|byte| PersonId::new([byte; 16]));
        let event = Event { at: Timestamp(number), act: Act::InviteExpired { invite: InviteId::new([3; 16]) } };
        let leaf = Leaf::after(last.get(&person), person, &Opening::new(&event));
        last.insert(person, leaf.last());
        leaf.encode()
    };
    let leaves: Vec<Vec<u8>> = (0..size).map(&mut leaf).collect();
    made_of(&key, &leaves, &leaves)
}

/// The files of a log with these leaves, its checkpoint over others. The relay has had these keys, and has the last.
fn made_of(keys: &[SecretKey], leaves: &[Vec<u8>], signed: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let hashes = |leaves: &[Vec<u8>]| leaves.iter().map(|leaf| TreeHash::leaf(leaf)).collect::<Vec<_>>();
    let (key, public) = (keys.last().unwrap(), |key: &SecretKey| key.public().unwrap());
    let origin = |key| note::origin(&public(key).fingerprint(), &[9; 16]);
    let log = |key| LogKeys::make(&origin(key), key).unwrap();
    let past = keys.windows(2).map(|pair| PastKey {
        relay: public(&pair[0]),
        keys: log(&pair[0]),
        rotation: RelayRotation::sign(&pair[0], &public(&pair[1]), Timestamp(1_700_000_000_000)).unwrap(),
    });
    let past: Vec<PastKey> = past.collect();
    let size = signed.len() as u64;
    let checkpoint = Checkpoint { origin: origin(key), size, root: tree::root(&hashes(signed)[..], size).unwrap() };
    let checkpoint = checkpoint.sign(key, Timestamp(1_800_000_000_000)).unwrap();
    let keys = bundle::keys_file_after(&past, &public(key), &log(key));
    let mut files = BTreeMap::from([("checkpoint".to_owned(), checkpoint.into()), ("keys".to_owned(), keys.into())]);
    let hashes = hashes(leaves);
    for piece in pieces(0, leaves.len() as u64) {
        files.insert(piece.path(), contents(leaves, &hashes, &piece));
    }
    files
}

fn contents(leaves: &[Vec<u8>], hashes: &[TreeHash], piece: &Piece) -> Vec<u8> {
    let (first, end) = (piece.first(), piece.end());
    match piece.level {
        Some(level) => bundle::pack_hashes(&hashes.hashes(level, first, end).unwrap()),
        None => {
            let range = usize::try_from(first).unwrap()..usize::try_from(end).unwrap();
            bundle::pack(leaves[range].iter().map(Vec::as_slice)).unwrap()
        }
    }
}

/// Numbers that look random, the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// A bundle as somebody left it who has its disk, and, every now and then, its key.
fn altered(
    good: &BTreeMap<String, Vec<u8>>,
    keys: &[SecretKey],
    leaves: &[Vec<u8>],
    numbers: &mut Numbers,
) -> BTreeMap<String, Vec<u8>> {
    let mut bundle = good.clone();
    let name = bundle.keys().nth(numbers.below(good.len())).unwrap().clone();
    let (one, other) = (numbers.below(leaves.len()), numbers.below(leaves.len()));
    let mut changed = leaves.to_vec();
    match numbers.below(12) {
        0 => drop(bundle.remove(&name)),
        1 => drop(bundle.get_mut(&name).unwrap().pop()),
        2 => bundle.get_mut(&name).unwrap().push(b'\n'),
        3 => drop(bundle.insert(format!("{name}x"), b"x".to_vec())),
        4 => {
            changed.swap(one, other);
            return made_of(keys, &changed, if numbers.below(2) == 0 { leaves } else { &changed });
        }
        5 => {
            changed.remove(one);
            return made_of(keys, &changed, if numbers.below(2) == 0 { leaves } else { &changed });
        }
        6 => {
            let byte = numbers.below(changed[one].len());
            changed[one][byte] ^= 1 << numbers.below(8);
            return made_of(keys, &changed, &changed);
        }
        // Lines of the keys, one of them a statement for a new key, gone, or in another order.
        7 => {
            let text = String::from_utf8(bundle["keys"].clone()).unwrap();
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (one, other) = (numbers.below(lines.len()), numbers.below(lines.len()));
            match numbers.below(3) {
                0 => drop(lines.remove(one)),
                1 => lines.swap(one, other),
                _ => lines.truncate(one),
            }
            bundle.insert("keys".to_owned(), lines.concat().into_bytes());
        }
        _ => {
            let bytes = bundle.get_mut(&name).unwrap();
            let at = numbers.below(bytes.len());
            bytes[at] ^= 1 << numbers.below(8);
        }
    }
    bundle
}

#[test]
fn two_verifiers_that_share_no_code_agree_on_hundreds_of_altered_bundles() {
    if !python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let keys = [SecretKey::generate(), SecretKey::generate(), SecretKey::generate()];
    let mut numbers = Numbers(0x5eed);
    let mut bundles: Vec<BTreeMap<String, Vec<u8>>> = [0, 1, 255, 256, 257, 300].map(log).into();
    let leaves: Vec<Vec<u8>> = split(&bundles[5]["tile/entries/000"]).into_iter().take(40).collect();
    let good = made_of(&keys, &leaves, &leaves);
    bundles.push(good.clone());
    for _ in 0..360 {
        bundles.push(altered(&good, &keys, &leaves, &mut numbers));
    }
    let paths: Vec<PathBuf> = (0..bundles.len()).map(|number| folder.path().join(number.to_string())).collect();
    for (path, bundle) in paths.iter().zip(&bundles) {
        write(path, bundle);
    }
    let mut good = 0;
    for (number, (bundle, said)) in bundles.iter().zip(verified_by_python(&paths)).enumerate() {
        match bundle::verify(bundle, None, &mut |_, _| {}) {
            Ok(verified) => {
                good += 1;
                let Checkpoint { size, root, .. } = verified.checkpoint;
                assert_eq!(said, format!("ok {size} {root}"), "bundle {number}");
            }
            Err(fault) => assert!(said.starts_with("bad "), "bundle {number}: {fault}, but {said}"),
        }
    }
    assert!((7..100).contains(&good), "{good} of {} are good", bundles.len());
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        bytes = rest;
    }
    entries
}
