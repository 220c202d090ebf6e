//! Going back to a backup, with the program that IT has.

use std::path::PathBuf;

use privity_server::store::Store as _;
use privity_server::store::sqlite::Sqlite;

use super::*;

/// A stopped relay with two invites, and a backup, made while it ran, that has one.
struct Backed {
    _parent: TempDir,
    folder: String,
    backup: String,
}

impl Backed {
    fn up() -> Self {
        let (parent, folder, _) = made();
        let backup = parent.path().join("backup.db").to_str().unwrap().to_owned();
        let running = Running::start(&folder);
        let database = rusqlite::Connection::open(Path::new(&folder).join("relay.db")).unwrap();
        database.execute("VACUUM INTO ?1", [&backup]).unwrap();
        drop(database);
        assert_eq!(running.end("-TERM").0, Some(0));
        assert!(output(&["invite", "--data", &folder]).status.success());
        Self { _parent: parent, folder, backup }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }

    fn restore(&self, more: &[&str]) -> String {
        let output = output(&[&["restore", "--data", &self.folder, "--from", &self.backup], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What stands beside the configuration, without SQLite's shared files of an open database.
    fn names(&self) -> Vec<String> {
        modes(Path::new(&self.folder)).into_iter().map(|(name, _)| name).collect()
    }

    fn incarnation(&self) -> [u8; 16] {
        Sqlite::open(Path::new(&self.folder)).unwrap().incarnation()
    }
}

fn invites(database: &Path) -> i64 {
    count(database, "invites")
}

fn count(database: &Path, table: &str) -> i64 {
    let database = rusqlite::Connection::open(database).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Some of them have been taken since the backup: served again, they would make Welcomes that nobody can open.
#[test]
fn a_restored_relay_serves_no_key_package_twice() {
    let backed = Backed::up();
    let add = "INSERT INTO key_packages (device, last_resort, package) VALUES (x'01', 0, x'02'), (x'01', 1, x'03')";
    rusqlite::Connection::open(&backed.backup).unwrap().execute_batch(add).unwrap();
    backed.restore(&[]);
    assert_eq!(count(&backed.path("relay.db"), "key_packages"), 0);
    assert_eq!(count(Path::new(&backed.backup), "key_packages"), 2);
    rusqlite::Connection::open(backed.path("relay.db")).unwrap().execute_batch(add).unwrap();
    assert!(output(&["restore", "--data", &backed.folder]).status.success());
    assert_eq!(count(&backed.path("relay.db"), "key_packages"), 0);
}

#[test]
fn a_backup_takes_the_databases_place_as_a_new_incarnation_and_what_was_there_is_kept() {
    let backed = Backed::up();
    let before = backed.incarnation();
    let said = backed.restore(&[]);
    for expected in ["which knows 0 people", "relay.db.before-restore", "send again", "invite them again", "run --data"]
    {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert_eq!(
        backed.names(),
        ["audit", "relay.db", "relay.db.before-restore", "relay.key", "relay.lock", "relay.toml"]
    );
    assert!(
        modes(Path::new(&backed.folder))
            .iter()
            .all(|(name, mode)| *mode == if name == "audit" { 0o700 } else { 0o600 })
    );
    assert_eq!(invites(&backed.path("relay.db")), 1);
    assert_eq!(invites(&backed.path("relay.db.before-restore")), 2);
    assert_ne!(backed.incarnation(), before);
    assert_eq!(invites(Path::new(&backed.backup)), 1, "the backup stays");
    assert_eq!(Running::start(&backed.folder).end("-TERM").0, Some(0));
}

#[test]
fn every_restore_is_another_incarnation_and_keeps_what_it_replaced() {
    let backed = Backed::up();
    let mut seen = vec![backed.incarnation()];
    for _ in 0..3 {
        backed.restore(&[]);
        assert!(!seen.contains(&backed.incarnation()));
        seen.push(backed.incarnation());
    }
    assert_eq!(invites(&backed.path("relay.db.before-restore")), 2, "the first one is not overwritten");
    assert!(backed.path("relay.db.before-restore-3").exists());
}

/// A killed relay leaves what it acknowledged in its log.
#[test]
fn what_a_killed_relay_left_in_its_log_is_kept_too() {
    let backed = Backed::up();
    let running = Running::start(&backed.folder);
    assert!(output(&["invite", "--data", &backed.folder]).status.success());
    running.end("-KILL");
    assert!(fs::metadata(backed.path("relay.db-wal")).unwrap().len() > 0, "there is a log to fold");
    backed.restore(&[]);
    assert!(!backed.names().iter().any(|name| name.ends_with("-wal")));
    assert_eq!(invites(&backed.path("relay.db.before-restore")), 3);
    assert_eq!(invites(&backed.path("relay.db")), 1);
}

/// The folder of a killed relay, copied as a whole.
#[test]
fn a_backup_with_a_log_beside_it_is_restored_with_that() {
    let backed = Backed::up();
    let running = Running::start(&backed.folder);
    assert!(output(&["invite", "--data", &backed.folder]).status.success());
    running.end("-KILL");
    let copied = backed.path("../copied.db");
    fs::copy(backed.path("relay.db"), &copied).unwrap();
    fs::copy(backed.path("relay.db-wal"), backed.path("../copied.db-wal")).unwrap();
    backed.restore(&[]);
    let arguments = ["restore", "--data", &backed.folder, "--from", copied.to_str().unwrap()];
    assert!(output(&arguments).status.success());
    assert_eq!(invites(&backed.path("relay.db")), 3, "what was acknowledged last is in the log");
}

#[test]
fn without_a_file_the_database_in_place_counts_as_restored() {
    let backed = Backed::up();
    let before = backed.incarnation();
    let arguments = ["restore", "--data", &backed.folder];
    let said = text(&output(&arguments).stdout);
    assert!(said.contains("counts as restored") && !said.contains("is kept in"), "{said}");
    assert_ne!(backed.incarnation(), before);
    assert_eq!(invites(&backed.path("relay.db")), 2);
    assert!(!backed.path("relay.db.before-restore").exists());
}

/// What another program shares with the old database would otherwise be shared with the restored one.
#[test]
fn a_program_that_has_the_old_database_open_keeps_the_old_one() {
    let backed = Backed::up();
    let other = rusqlite::Connection::open(backed.path("relay.db")).unwrap();
    let count = || other.query_row("SELECT count(*) FROM invites", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 2);
    backed.restore(&[]);
    assert!(
        !backed.names().iter().any(|name| name.ends_with("-wal") || name.ends_with("-shm")),
        "{:?}",
        backed.names()
    );
    assert_eq!((count(), invites(&backed.path("relay.db"))), (2, 1));
}

#[test]
fn a_program_that_is_reading_the_old_database_is_waited_for_and_then_named() {
    let backed = Backed::up();
    let other = rusqlite::Connection::open(backed.path("relay.db")).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM invites").unwrap();
    assert!(output(&["invite", "--data", &backed.folder]).status.success());
    fails(&["restore", "--data", &backed.folder, "--from", &backed.backup], 2, "is open in another program");
    drop(other);
    assert_eq!(invites(&backed.path("relay.db")), 3);
    backed.restore(&[]);
}

#[test]
fn restore_prints_json_on_demand() {
    let backed = Backed::up();
    let said: serde_json::Value = serde_json::from_str(&backed.restore(&["--json"])).unwrap();
    let kept = backed.path("relay.db.before-restore");
    assert_eq!(said, serde_json::json!({ "from": backed.backup, "kept": kept, "people": 0 }));
    let said = output(&["restore", "--data", &backed.folder, "--json"]).stdout;
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said, serde_json::json!({ "from": null, "kept": null, "people": 0 }));
}

#[test]
fn nothing_is_restored_under_a_running_relay() {
    let backed = Backed::up();
    let before = fs::read(backed.path("relay.db")).unwrap();
    let running = Running::start(&backed.folder);
    let id = format!("id {}", running.0.id());
    fails(&["restore", "--data", &backed.folder, "--from", &backed.backup], 2, &id);
    fails(&["restore", "--data", &backed.folder], 2, &id);
    assert_eq!(running.end("-TERM").0, Some(0));
    assert_eq!(fs::read(backed.path("relay.db")).unwrap(), before);
}

#[test]
fn a_file_that_is_no_good_database_of_this_version_is_refused_and_nothing_changes() {
    let backed = Backed::up();
    let bad = backed.path("../bad.db");
    let before = (fs::read(backed.path("relay.db")).unwrap(), backed.names());
    let refuses = |saying: &str| {
        let from = bad.to_str().unwrap();
        fails(&["restore", "--data", &backed.folder, "--from", from], 1, saying);
        assert_eq!((fs::read(backed.path("relay.db")).unwrap(), backed.names()), before, "{saying}");
    };
    let good = fs::read(&backed.backup).unwrap();
    let as_sqlite = |change: &str| {
        fs::write(&bad, &good).unwrap();
        rusqlite::Connection::open(&bad).unwrap().execute_batch(change).unwrap();
    };
    refuses("No such file");
    fs::write(&bad, b"My backup, I think".repeat(1000)).unwrap();
    refuses("not a database");
    fs::write(&bad, b"").unwrap();
    refuses("version 0");
    as_sqlite("PRAGMA user_version = 1");
    refuses("version 1");
    as_sqlite("DROP TABLE people");
    refuses("no good database");
    as_sqlite("DELETE FROM meta");
    refuses("no good database");
    // The middle of it, overwritten: the header is fine, a page of a table or index is not.
    let page = good.len() / 2 / 4096 * 4096;
    let mut damaged = good.clone();
    damaged[page..page + 4096].fill(0x5a);
    fs::write(&bad, damaged).unwrap();
    refuses("damaged");
    fs::write(&bad, &good[..good.len() - 4096]).unwrap();
    refuses("no good database");
    fs::remove_file(&bad).unwrap();
    std::os::unix::fs::symlink(backed.path("relay.db"), &bad).unwrap();
    refuses("leave out --from");
}

#[test]
fn a_damaged_database_in_place_is_not_declared_restored() {
    let backed = Backed::up();
    let damaged = b"no database any more".repeat(1000);
    fs::write(backed.path("relay.db"), &damaged).unwrap();
    fails(&["restore", "--data", &backed.folder], 1, "no good database");
    assert_eq!(fs::read(backed.path("relay.db")).unwrap(), damaged);
}

/// Its log would be taken for the restored database's own.
#[test]
fn a_damaged_database_is_kept_as_it_is_with_its_log() {
    let backed = Backed::up();
    let running = Running::start(&backed.folder);
    assert!(output(&["invite", "--data", &backed.folder]).status.success());
    running.end("-KILL");
    let log = fs::read(backed.path("relay.db-wal")).unwrap();
    let damaged = b"no database any more".repeat(1000);
    fs::write(backed.path("relay.db"), &damaged).unwrap();
    fs::remove_file(backed.path("relay.db-shm")).unwrap();
    backed.restore(&[]);
    assert_eq!(invites(&backed.path("relay.db")), 1);
    let kept = (backed.path("relay.db.before-restore"), backed.path("relay.db.before-restore-wal"));
    assert_eq!((fs::read(kept.0).unwrap(), fs::read(kept.1).unwrap()), (damaged, log));
    assert_eq!(Running::start(&backed.folder).end("-TERM").0, Some(0));
}

#[test]
fn a_restore_that_died_half_way_is_simply_done_again() {
    let backed = Backed::up();
    for suffix in ["", "-wal", "-shm"] {
        fs::write(backed.path(&format!("relay.db.restoring{suffix}")), b"half").unwrap();
    }
    fs::hard_link(backed.path("relay.db"), backed.path("relay.db.before-restore")).unwrap();
    let said = backed.restore(&[]);
    assert!(said.contains("relay.db.before-restore;"), "{said}");
    assert_eq!(
        backed.names(),
        ["audit", "relay.db", "relay.db.before-restore", "relay.key", "relay.lock", "relay.toml"]
    );
    assert_eq!(invites(&backed.path("relay.db.before-restore")), 2);
    assert_eq!(invites(&backed.path("relay.db")), 1);
}

/// On another machine there is nothing but what the backup has.
#[test]
fn a_new_folder_needs_the_configuration_and_the_key_of_the_backup_first() {
    let backed = Backed::up();
    let new = backed.path("../new");
    fs::create_dir(&new).unwrap();
    let arguments = ["restore", "--data", new.to_str().unwrap(), "--from", &backed.backup];
    fails(&arguments, 1, "put those of the backup there first");
    for name in ["relay.toml", "relay.key"] {
        fails(&arguments, 1, "put those of the backup there first");
        fs::copy(backed.path(name), new.join(name)).unwrap();
    }
    let output = output(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("is kept in"));
    assert_eq!(Running::start(new.to_str().unwrap()).end("-TERM").0, Some(0));
}

/// The recipe of docs/operations.md, on a relay that runs all the while.
#[test]
fn a_running_relay_is_backed_up_and_comes_back_on_another_machine() {
    let (parent, folder, _) = made();
    let path = |name: &str| parent.path().join(name).to_str().unwrap().to_owned();
    let (out, new) = (path("backup"), path("new"));
    let running = Running::start(&folder);
    let ran = output(&["backup", "--data", &folder, "--out", &out, "--json"]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&told["folder"], &told["people"]), (&out.as_str().into(), &0.into()), "{told}");
    let tail = text(&output(&["audit", "tail", "--data", &folder]).stdout);
    assert!(tail.contains("backed-up") && tail.contains(told["name"].as_str().unwrap()), "{tail}");
    fails(&["backup", "--data", &folder, "--out", &out], 1, "is there already");
    assert_eq!(running.end("-TERM").0, Some(0));
    let ran = output(&["restore", "--data", &new, "--from", &out]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(output(&["check", "--data", &new]).status.success());
    let tail = text(&output(&["audit", "tail", "--data", &new]).stdout);
    assert!(tail.contains("backed-up") && tail.contains("restored"), "{tail}");
    let running = Running::start(&new);
    assert_eq!(running.end("-TERM").0, Some(0));
    fails(&["backup", "--data", &path("nowhere"), "--out", &path("other")], 1, "has no relay");
}

/// `| head -1` in a script: whoever stops reading is no failure, and no panic.
#[test]
fn a_completion_script_may_be_read_in_part() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_privity-relay"));
    let mut child =
        command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", text(&ended.stderr));
}
