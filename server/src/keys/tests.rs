//! A rotation, interrupted behind every step of it.

use std::collections::BTreeSet;

use privity_protocol::log::bundle::Verified;

use super::*;
use crate::audit::export::View;
use crate::setup;

/// A relay's folder that nobody has used.
fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new("Firm", "127.0.0.1:4433".parse().unwrap(), None).unwrap();
    setup::init(folder.path(), &config).unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { assert!(fs::copy(entry.path(), to).is_ok()) }
    }
}

/// What a start does with the keys, short of listening.
fn start(folder: &Path) -> Keys {
    let _lock = Lock::take(folder).unwrap();
    let mut store = Sqlite::open(folder).unwrap();
    files::size(folder, &Signer::new(&Keys::load(folder).unwrap(), &store.incarnation()).unwrap(), &store).unwrap();
    let keys = settle(folder, &mut store).unwrap();
    let signer = Signer::new(&keys, &store.incarnation()).unwrap();
    files::Folder::open(folder, &signer, &store).unwrap().update(&signer, &store, clock::now()).unwrap();
    keys
}

fn rotations_logged(folder: &Path) -> usize {
    let newest = View::of(folder).unwrap().newest(1000).unwrap();
    newest.iter().filter(|logged| matches!(logged.event.act, Act::KeyRotated { .. })).count()
}

fn verified(folder: &Path) -> Verified {
    let out = folder.join("export");
    View::of(folder).unwrap().export(&out).unwrap();
    let names = ["checkpoint", "keys"].map(str::to_owned);
    let mut found: std::collections::BTreeMap<String, Vec<u8>> =
        names.into_iter().map(|name| (name.clone(), fs::read(out.join(name)).unwrap())).collect();
    let size: u64 = String::from_utf8(found["checkpoint"].clone()).unwrap().lines().nth(1).unwrap().parse().unwrap();
    for piece in privity_protocol::log::bundle::pieces(0, size) {
        found.insert(piece.path(), fs::read(out.join(piece.path())).unwrap());
    }
    fs::remove_dir_all(out).unwrap();
    privity_protocol::log::bundle::verify(&found, None, &mut |_, _| {}).unwrap()
}

fn fingerprint(key: &SecretKey) -> Fingerprint {
    key.public().unwrap().fingerprint()
}

/// The steps of a rotation are done here one by one on copies of the folder, which are then left as a crash would leave them.
#[test]
fn a_crash_between_any_two_steps_leaves_a_relay_that_starts_with_the_one_key_or_the_other() {
    let folder = made();
    let first = start(folder.path());
    let whole = tempfile::tempdir().unwrap();
    copy(folder.path(), whole.path());
    let done = rotate(whole.path()).unwrap();
    let (old, new) = (fingerprint(first.newest()), fingerprint(done.newest()));
    assert_ne!(old, new);

    // What each step leaves behind: the steps before it are done.
    let next = fs::read(whole.path().join(KEY_FILE)).unwrap();
    let rotations = fs::read(whole.path().join(ROTATIONS_FILE)).unwrap();
    type Step<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>, bool);
    let steps: Vec<Step<'_>> = vec![
        ("nothing", Box::new(|_: &Path| ()), false),
        (
            "half of the new key",
            Box::new(|to: &Path| fs::write(to.join("relay.key.next.tmp"), &next[..9]).unwrap()),
            false,
        ),
        ("the new key", Box::new(|to: &Path| fs::write(to.join(NEXT_FILE), &next).unwrap()), false),
        (
            "half of the statement",
            Box::new(|to: &Path| fs::write(to.join("relay.rotations.tmp"), &rotations[..99]).unwrap()),
            false,
        ),
        ("the statement", Box::new(|to: &Path| fs::write(to.join(ROTATIONS_FILE), &rotations).unwrap()), true),
        (
            "the leaf",
            Box::new(|to: &Path| log_rotations(&mut Sqlite::open(to).unwrap(), &Keys::load(to).unwrap()).unwrap()),
            true,
        ),
        (
            "the old key kept",
            Box::new(|to: &Path| fs::hard_link(to.join(KEY_FILE), to.join(numbered(1))).unwrap()),
            true,
        ),
        (
            "the new key in place",
            Box::new(|to: &Path| fs::rename(to.join(NEXT_FILE), to.join(KEY_FILE)).unwrap()),
            true,
        ),
    ];
    for crashed in 0..steps.len() {
        for again in [false, true] {
            let copied = tempfile::tempdir().unwrap();
            copy(folder.path(), copied.path());
            steps[..=crashed].iter().for_each(|(_, step, _)| step(copied.path()));
            let (what, _, rotated) = &steps[crashed];
            let keys = start(copied.path());
            let expected = if *rotated { (new, vec![old]) } else { (old, vec![]) };
            assert_eq!(fingerprint(keys.newest()), expected.0, "{what}");
            assert_eq!(keys.served().len(), 1 + usize::from(*rotated), "{what}: the old one is served, too");
            assert_eq!(rotations_logged(copied.path()), usize::from(*rotated), "{what}: logged once");
            let said = verified(copied.path());
            assert_eq!((said.relay, said.before), expected, "{what}");
            let named = fs::read(copied.path().join(KEY_FILE)).unwrap();
            assert_eq!(named, keys.newest().as_bytes(), "{what}");
            if again {
                // Rotating goes on from there as well.
                let keys = rotate(copied.path()).unwrap();
                let served: BTreeSet<Fingerprint> = keys.served().iter().map(fingerprint).collect();
                assert_eq!(served.len(), 2 + usize::from(*rotated), "{what}");
                assert!(served.contains(&old) && keys.past.len() == 1 + usize::from(*rotated), "{what}");
                assert_eq!(rotations_logged(copied.path()), keys.past.len(), "{what}");
                assert_eq!(verified(copied.path()).before.len(), keys.past.len(), "{what}");
            }
        }
    }
}

#[test]
fn a_device_is_shown_the_key_that_it_asks_for_and_the_statements_from_there() {
    let folder = made();
    let first = start(folder.path());
    for _ in 0..limits::ROTATIONS_MAX + 1 {
        rotate(folder.path()).unwrap();
    }
    let keys = start(folder.path());
    let name = |key: &SecretKey| server_name(&fingerprint(key));
    let (shown, statements) = keys.shown(Some(&name(first.newest())));
    assert_eq!((shown.as_bytes(), statements.len()), (first.newest().as_bytes(), limits::ROTATIONS_MAX));
    let steps = privity_protocol::rotation::follow(&first.newest().public().unwrap(), &statements).unwrap();
    let last = steps.last().unwrap().to.fingerprint();
    let (_, rest) = keys.shown(Some(&server_name(&last)));
    let newest = privity_protocol::rotation::follow(&steps.last().unwrap().to, &rest).unwrap().pop().unwrap().to;
    assert_eq!(newest, keys.newest().public().unwrap());
    for other in [None, Some("privity"), Some(name(keys.newest()).as_str())] {
        let (shown, statements) = keys.shown(other);
        assert_eq!((shown.as_bytes(), statements.len()), (keys.newest().as_bytes(), 0), "{other:?}");
    }
}

#[test]
fn a_key_of_another_relay_and_a_statement_that_was_touched_are_refused_with_a_word() {
    let folder = made();
    start(folder.path());
    rotate(folder.path()).unwrap();
    let rotations = fs::read(folder.path().join(ROTATIONS_FILE)).unwrap();
    let fails = |part: &str| {
        let refused = Keys::load(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("relay.rotations") && refused.contains(part), "{refused}");
    };
    let mut touched = rotations.clone();
    *touched.last_mut().unwrap() ^= 1;
    fs::write(folder.path().join(ROTATIONS_FILE), touched).unwrap();
    fails("signature");
    fs::write(folder.path().join(ROTATIONS_FILE), b"x").unwrap();
    fails("damaged");
    fs::write(folder.path().join(ROTATIONS_FILE), rotations).unwrap();
    let good = fs::read(folder.path().join(KEY_FILE)).unwrap();
    fs::write(folder.path().join(KEY_FILE), SecretKey::generate().as_bytes()).unwrap();
    fails("has the key that it names last");
    fs::write(folder.path().join(KEY_FILE), good).unwrap();
    // Without the old key the relay starts, and serves it no more.
    fs::remove_file(folder.path().join(numbered(1))).unwrap();
    let keys = start(folder.path());
    assert_eq!((keys.served().len(), keys.view().unwrap()[1].served), (1, false));
    assert_eq!(verified(folder.path()).before.len(), 1);
}
