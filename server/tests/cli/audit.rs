//! What IT sees of the audit log, and what it hands to an auditor.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use privity_protocol::log::bundle;

use super::{Running, fails, made, output, text};

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, under: &str, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{under}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), files);
            } else {
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, "", &mut found);
    found
}

#[test]
fn an_export_beside_a_running_relay_verifies_and_is_never_overwritten() {
    let (parent, folder, _) = made();
    let running = Running::start(&folder);
    let out = parent.path().join("bundle");
    let export = ["audit", "export", "--data", &folder, "--out", out.to_str().unwrap(), "--json"];
    let exported = output(&export);
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    let said: serde_json::Value = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(said["leaves"], 2, "the first invite, and the configuration");
    let checkpoint = text(&output(&["audit", "checkpoint", "--data", &folder]).stdout);
    let found = files(&out);
    let verified = bundle::verify(&found, Some(&checkpoint), &mut |_, _| {}).unwrap();
    assert_eq!((verified.checkpoint.size, verified.against), (2, Some(2)));
    let check = text(&output(&["check", "--data", &folder]).stdout);
    assert!(check.contains("audit log      ok: 2 leaves, its files at 2"), "{check}");
    assert!(check.contains(&verified.relay.to_string()), "{check}");
    fails(&export, 1, "is there already");
    assert_eq!(files(&out), found);
    assert_eq!(running.end("-TERM").0, Some(0));
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let (parent, folder, _) = made();
    let out = parent.path().join("no/such/folder/bundle");
    fs::write(parent.path().join("no"), b"a file").unwrap();
    fails(&["audit", "export", "--data", &folder, "--out", out.to_str().unwrap()], 2, "no/such/folder");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "the relay and that file");
}

#[test]
fn tail_shows_the_newest_leaves_for_people_and_for_scripts() {
    let (_parent, folder, _) = made();
    for _ in 0..3 {
        assert!(output(&["invite", "--data", &folder]).status.success());
    }
    let plain = text(&output(&["audit", "tail", "--data", &folder]).stdout);
    assert_eq!(plain.lines().count(), 4);
    assert!(plain.lines().all(|line| line.contains(" UTC  invite-made") && line.contains("relay  invite ")), "{plain}");
    let json = text(&output(&["audit", "tail", "--data", &folder, "--last", "2", "--json"]).stdout);
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [third, fourth] = &lines[..] else { panic!("{json}") };
    assert_eq!((&third["index"], &fourth["index"], &fourth["number"]), (&2.into(), &3.into(), &4.into()));
    assert_eq!((&fourth["act"], &fourth["person"]), (&"invite-made".into(), &serde_json::Value::Null));
    assert!(fourth["at"].as_u64().unwrap() > 1_700_000_000_000 && fourth["invite"].is_string());
}

#[test]
fn a_relay_does_not_start_on_a_database_put_back_by_hand_and_says_what_to_do() {
    let (parent, folder, _) = made();
    let (database, backup) = (Path::new(&folder).join("relay.db"), parent.path().join("backup.db"));
    assert_eq!(Running::start(&folder).end("-TERM").0, Some(0));
    fs::copy(&database, &backup).unwrap();
    assert!(output(&["invite", "--data", &folder]).status.success());
    assert_eq!(Running::start(&folder).end("-TERM").0, Some(0));
    for suffix in ["-wal", "-shm"] {
        let _removed = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    fs::copy(&backup, &database).unwrap();
    let configuration = Path::new(&folder).join("relay.toml");
    let configured = fs::read_to_string(&configuration).unwrap().replace("20000", "19999");
    fs::write(&configuration, configured).unwrap();
    fails(&["run", "--data", &folder], 1, "privity-relay restore");
    let tail = text(&output(&["audit", "tail", "--data", &folder]).stdout);
    assert_eq!(tail.matches("configured").count(), 1, "nothing was added: {tail}");
    let check = output(&["check", "--data", &folder]);
    assert!(check.status.code() == Some(1) && text(&check.stderr).contains("privity-relay restore"), "{check:?}");
    assert!(output(&["restore", "--data", &folder]).status.success());
    assert_eq!(Running::start(&folder).end("-TERM").0, Some(0));
    assert!(Path::new(&folder).join("audit.before-restore/checkpoint").exists());
}

#[test]
fn a_database_of_a_version_before_is_checked_and_brought_up_to_date_by_a_start() {
    let to_3 = "DROP TABLE log; DROP TABLE log_tiles; DROP TABLE told; PRAGMA user_version = 3;";
    let to_4 = "DROP TABLE told; CREATE TABLE revoked (number INTEGER PRIMARY KEY, device BLOB NOT NULL UNIQUE) STRICT; \
                PRAGMA user_version = 4;";
    for (version, back) in [(3, to_3), (4, to_4)] {
        let (_parent, folder, _) = made();
        let database = rusqlite::Connection::open(Path::new(&folder).join("relay.db")).unwrap();
        database.execute_batch(back).unwrap();
        drop(database);
        let check = output(&["check", "--data", &folder]);
        let said = format!("has version {version}");
        assert!(check.status.success() && text(&check.stdout).contains(&said), "{check:?}");
        fails(&["audit", "tail", "--data", &folder], 2, "when the relay starts");
        assert_eq!(Running::start(&folder).end("-TERM").0, Some(0));
        let tail = text(&output(&["audit", "tail", "--data", &folder]).stdout);
        // What was logged before stays; that of version 3 begins here.
        assert_eq!(tail.matches("configured").count(), 1, "{tail}");
        assert_eq!(tail.lines().count(), if version == 3 { 1 } else { 2 }, "{tail}");
    }
}
