//! What only the embedded store can get wrong: its files and its disk.

use privity_protocol::identity::Signed;
use privity_protocol::ids::MailboxId;

use super::*;
use crate::store::{RevokedRow, Told};

fn modes(folder: &Path) -> Vec<(String, u32)> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mode = |file: fs::DirEntry| {
        (file.file_name().into_string().unwrap(), file.metadata().unwrap().permissions().mode() & 0o777)
    };
    files.map(mode).collect()
}

#[test]
fn every_file_is_its_owners_alone_even_after_somebody_opened_it_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    drop(Sqlite::create(folder.path()).unwrap());
    fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o666)).unwrap();
    let mut store = Sqlite::open(folder.path()).unwrap();
    store.begin().unwrap();
    store.apply(&[Write::Mailbox { mailbox: MailboxId::random(), inbox_of: None }]).unwrap();
    store.commit().unwrap();
    let mut found = modes(folder.path());
    found.sort();
    assert_eq!(found, ["relay.db", "relay.db-shm", "relay.db-wal"].map(|name| (name.to_owned(), 0o600)));
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    store.checkpoint().unwrap();
    assert_eq!(fs::metadata(folder.path().join("relay.db-wal")).unwrap().len(), 0, "the log is in the file");
}

#[test]
fn a_full_disk_is_known_as_one_and_nothing_is_left_of_the_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Sqlite::create(folder.path()).unwrap();
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
    let device = DeviceId::random();
    let package = Write::KeyPackage { device, last_resort: false, package: vec![0; 20_000] };
    store.begin().unwrap();
    let failure = store.apply(std::slice::from_ref(&package)).and_then(|()| store.commit()).unwrap_err();
    assert!(failure.is_disk_full(), "{failure}");
    store.rollback().unwrap();
    assert_eq!(store.key_packages_left(device).unwrap(), 0);
    store.connection.pragma_update(None, "max_page_count", pages + 100).unwrap();
    store.begin().unwrap();
    store.apply(&[package]).unwrap();
    store.commit().unwrap();
    assert_eq!(store.key_packages_left(device).unwrap(), 1);
}

#[test]
fn a_database_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::create(folder.path()).unwrap();
    store.connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
    drop(store);
    assert!(matches!(Sqlite::open(folder.path()), Err(StoreError::Version { .. })));
}

/// The people of a relay that had no log are in it from the start, so that whoever asks finds them.
#[test]
fn a_database_of_version_3_gets_the_log_of_its_people() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let store = Sqlite::create(folder.path()).unwrap();
    let people = crate::store::conformance::two_people();
    for (person, device) in &people {
        store.apply_one(&Write::Person(Box::new(person.clone()))).unwrap();
        store.apply_one(&Write::Device(Box::new(device.clone()))).unwrap();
    }
    store.apply_one(&Write::Organisation(people[0].1.link_key.clone())).unwrap();
    store
        .connection
        .execute_batch("DROP TABLE log; DROP TABLE log_tiles; DROP TABLE told; PRAGMA user_version = 3;")
        .unwrap();
    drop(store);
    assert!(matches!(Sqlite::open(folder.path()), Err(StoreError::Version { found: 3, .. })));
    for _ in 0..2 {
        Sqlite::upgrade(&path).unwrap();
    }
    let store = Sqlite::open(folder.path()).unwrap();
    let acts: Vec<&str> = store
        .log_rows(0, 99)
        .unwrap()
        .iter()
        .map(|row| {
            let leaf = privity_protocol::log::Leaf::decode(&row.leaf).unwrap();
            leaf.open(&row.opening).unwrap().act.name()
        })
        .collect();
    assert_eq!(acts, ["founded", "registered", "device-added", "endorsed", "registered", "device-added"]);
}

/// What was told of revoked devices is told on, under the same numbers.
#[test]
fn a_database_of_version_4_tells_on_of_its_revoked_devices() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let store = Sqlite::create(folder.path()).unwrap();
    let statement = |number| Signed { body: vec![number], signature: vec![9] };
    let people = crate::store::conformance::two_people();
    store
        .connection
        .execute_batch(
            "DROP TABLE told; CREATE TABLE revoked (number INTEGER PRIMARY KEY, device BLOB NOT NULL UNIQUE) STRICT;
             PRAGMA user_version = 4;",
        )
        .unwrap();
    for ((_, device), number) in people.iter().zip([2_u8, 1]) {
        let revoked = Some(RevokedRow { number: number.into(), statement: statement(number) });
        store.put_device(&DeviceRow { revoked, ..device.clone() }).unwrap();
        store.run("INSERT INTO revoked VALUES (?1, ?2)", params![number, device.device.as_bytes()]).unwrap();
    }
    drop(store);
    assert!(matches!(Sqlite::open(folder.path()), Err(StoreError::Version { found: 4, .. })));
    for _ in 0..2 {
        Sqlite::upgrade(&path).unwrap();
    }
    let store = Sqlite::open(folder.path()).unwrap();
    let told = |number: u8, of: usize| ToldRow {
        number: number.into(),
        person: people[of].1.person,
        what: Told::Revoked(statement(number)),
    };
    assert_eq!(store.told(None, 0, 9).unwrap(), [told(1, 1), told(2, 0)]);
    assert_eq!(store.newest_told().unwrap(), 2);
}

#[test]
fn a_restored_database_says_so_in_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let before = Sqlite::create(folder.path()).unwrap().incarnation();
    let store = Sqlite::renew(&folder.path().join(FILE), Timestamp(7)).unwrap();
    let [row] = &store.log_rows(0, 99).unwrap()[..] else { panic!("one leaf") };
    let event: Event = cbor::decode(&row.opening.event, "event").unwrap();
    assert_eq!(event, Event { at: Timestamp(7), act: Act::Restored { before, incarnation: store.incarnation() } });
}
