//! What a backup has in it, whatever is done meanwhile, and what is made of it.

use std::os::unix::fs::PermissionsExt as _;

use privity_protocol::ids::DeviceId;
use privity_protocol::log::Act;

use super::*;
use crate::audit::export::View;
use crate::restore::restore;
use crate::setup;
use crate::store::Write;

fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new("Firm", "127.0.0.1:4433".parse().unwrap(), None).unwrap();
    setup::init(&folder.path().join("relay"), &config).unwrap();
    folder
}

fn package(store: &mut Sqlite, number: u8) {
    let device = DeviceId::new([number; 16]);
    store.begin().unwrap();
    store.apply(&[Write::KeyPackage { device, last_resort: false, package: vec![number; 24 * 1024] }]).unwrap();
    store.commit().unwrap();
}

fn backups_logged(data: &Path) -> Vec<Digest> {
    let newest = View::of(data).unwrap().newest(1000).unwrap().into_iter();
    newest
        .filter_map(|logged| match logged.event.act {
            Act::BackedUp { backup } => Some(backup),
            _ => None,
        })
        .collect()
}

#[test]
fn a_backup_is_of_one_moment_whatever_is_written_while_it_is_made() {
    let folder = made();
    let (data, out) = (folder.path().join("relay"), folder.path().join("out"));
    let mut store = Sqlite::open(&data).unwrap();
    for _ in 0..400 {
        package(&mut store, 1);
    }
    let mut steps = 0;
    let done = backup(&data, &out, &mut |done, of| {
        assert!(done <= of && of > 2000, "{done} of {of}");
        steps += 1;
        // Somebody else writes between the steps: that is not in it, and it does not begin again.
        package(&mut store, 2);
    })
    .unwrap();
    assert!((3..10).contains(&steps), "{steps} steps");
    let copied = Sqlite::open(&out).unwrap();
    let left = |number| copied.key_packages_left(DeviceId::new([number; 16])).unwrap();
    assert_eq!((left(1), left(2)), (400, 0));
    assert_eq!(store.key_packages_left(DeviceId::new([2; 16])).unwrap(), steps);
    drop(copied);
    // The log said so first: in the backup, too.
    assert_eq!((backups_logged(&data), backups_logged(&out)), (vec![done.name], vec![done.name]));
    assert_eq!(Digest::of(&[&fs::read(out.join(NAME_FILE)).unwrap()]), done.name);
}

#[test]
fn a_backup_is_its_owners_alone_and_never_written_over_another() {
    let folder = made();
    let (data, out) = (folder.path().join("relay"), folder.path().join("out"));
    keys::rotate(&data).unwrap();
    backup(&data, &out, &mut |_, _| {}).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&out), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&out).unwrap().map(|entry| entry.unwrap()) {
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["backup", "relay.db", "relay.key", "relay.key.1", "relay.rotations", "relay.toml"]);
    let again = backup(&data, &out, &mut |_, _| {}).unwrap_err();
    assert!(matches!(again, RelayError::Exists(_)) && again.is_wrong_use(), "{again}");
    assert_eq!(backups_logged(&data).len(), 1, "nothing was begun");
    // What fails leaves nothing.
    let unwritable = folder.path().join("no/such/folder");
    fs::write(folder.path().join("no"), b"a file").unwrap();
    assert!(backup(&data, &unwritable, &mut |_, _| {}).is_err());
    let mut beside: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    beside.sort();
    assert_eq!(beside, ["no", "out", "relay"]);
}

/// A folder of the operator's own that happened to be called OUT.unfinished was deleted.
#[test]
fn what_stands_beside_a_backup_or_an_export_stays() {
    let folder = made();
    let (data, out, log) = (folder.path().join("relay"), folder.path().join("out"), folder.path().join("log"));
    for name in ["out.unfinished", "log.unfinished"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("mine"), b"precious").unwrap();
    }
    backup(&data, &out, &mut |_, _| {}).unwrap();
    View::of(&data).unwrap().export(&log).unwrap();
    for name in ["out.unfinished", "log.unfinished"] {
        assert_eq!(fs::read(folder.path().join(name).join("mine")).unwrap(), b"precious", "{name}");
    }
    assert!(out.exists() && log.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5, "and nothing else is left");
}

#[test]
fn a_whole_backup_makes_a_relay_anew_and_another_relays_is_refused() {
    let folder = made();
    let (data, out) = (folder.path().join("relay"), folder.path().join("out"));
    let before = keys::rotate(&data).unwrap();
    backup(&data, &out, &mut |_, _| {}).unwrap();
    // On a new machine.
    let new = folder.path().join("new");
    restore(&new, Some(&out)).unwrap();
    let (config, keys) = Config::load(&new).unwrap();
    assert_eq!((config, keys.view().unwrap()), (Config::load(&data).unwrap().0, before.view().unwrap()));
    assert_ne!(Sqlite::open(&new).unwrap().incarnation(), Sqlite::open(&data).unwrap().incarnation());
    // In place, where the key has been replaced since: the newer key stays.
    let newer = keys::rotate(&data).unwrap();
    restore(&data, Some(&out)).unwrap();
    assert_eq!(Config::load(&data).unwrap().1.view().unwrap(), newer.view().unwrap());
    // A backup that has a newer key than the folder, and one of another relay: nothing has changed.
    let second = folder.path().join("second");
    backup(&data, &second, &mut |_, _| {}).unwrap();
    let incarnation = Sqlite::open(&new).unwrap().incarnation();
    let refused = restore(&new, Some(&second)).unwrap_err().to_string();
    assert!(refused.contains("newer key"), "{refused}");
    let other = made();
    let refused = restore(&other.path().join("relay"), Some(&out)).unwrap_err().to_string();
    assert!(refused.contains("another relay's"), "{refused}");
    assert_eq!(Sqlite::open(&new).unwrap().incarnation(), incarnation);
    // One that is damaged leaves no half relay behind.
    fs::write(out.join("relay.db"), b"no database").unwrap();
    let third = folder.path().join("third");
    restore(&third, Some(&out)).unwrap_err();
    assert!(!third.join("relay.key").exists() && !third.join("relay.toml").exists());
}
