//! A profile's passphrase: changed, mistyped, and a vault that somebody else has touched.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use privity_tests::{Firm, Person, Ran, Typed};
use rusqlite::Connection;

const NEW: &str = "another horse altogether";

fn new_file(firm: &Firm) -> PathBuf {
    let path = firm.folder().join("new.passphrase");
    fs::write(&path, format!("{NEW}\n")).unwrap();
    path
}

/// The same profile, opened with the new passphrase.
fn with_new(person: &Person, file: PathBuf) -> Person {
    Person { passphrase: file, ..person.clone() }
}

fn change(person: &Person, file: &std::path::Path) -> Ran {
    person.run(&["--json", "passphrase", "change", "--new-passphrase-file", file.to_str().unwrap()]).unwrap()
}

fn alter(person: &Person, sql: &str) {
    Connection::open(person.home.join("vault.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_changed_passphrase_opens_the_profile_and_the_old_one_no_more() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    firm.matter("Lease", &[]).unwrap();
    ada.ok(&["send", "Lease", "kept"]).unwrap();
    let unlocked = ada.run(&["unlock"]).unwrap().code == Some(0);
    let file = new_file(&firm);
    let changed = change(ada, &file);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    assert_eq!(changed.objects().unwrap()[0]["state"], "changed");

    let old = ada.run(&["read", "Lease"]).unwrap();
    assert_eq!(old.code, Some(1), "{old:?}");
    assert!(old.stderr.contains("wrong passphrase"), "{old:?}");
    if unlocked {
        let mut locked = std::process::Command::new(privity_tests::binaries().unwrap().join("privity"));
        let locked: Ran =
            locked.arg("--home").arg(&ada.home).arg("status").stdin(Stdio::null()).output().unwrap().into();
        assert_eq!(locked.code, Some(1), "it was unlocked before: {locked:?}");
        assert!(locked.stderr.contains("locked"), "{locked:?}");
    }
    let ada = with_new(ada, file);
    ada.ok(&["recv"]).unwrap();
    assert_eq!(ada.texts("Lease").unwrap(), [("ada".to_owned(), "kept".to_owned())]);
    assert_eq!(ada.ok(&["send", "Lease", "and on"]).unwrap()[0]["state"], "stored");
}

#[test]
fn at_a_terminal_the_old_one_is_asked_for_and_the_new_one_twice() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let arguments = ["--home", ada.home.to_str().unwrap(), "passphrase", "change"];
    let Some(mut typed) = Typed::start(&arguments).unwrap() else { return };
    let mut at = typed.at("The passphrase it has: ", 0, "not this\n").unwrap();
    at = typed.at("wrong passphrase; try again", at, "").unwrap();
    at = typed.at("The passphrase it has: ", at, "correct horse battery staple\n").unwrap();
    at = typed.at("Choose a passphrase", at, &format!("{NEW}\n")).unwrap();
    typed.at("once more: ", at, &format!("{NEW}\n")).unwrap();
    let (code, screen) = typed.end().unwrap();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("Changed.") && !screen.contains("horse"), "{screen}");
    with_new(ada, new_file(&firm)).ok(&["status"]).unwrap();
}

#[test]
fn a_passphrase_that_is_wrong_five_times_changes_nothing() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let (file, good) = (new_file(&firm), fs::read(&ada.passphrase).unwrap());
    fs::write(&ada.passphrase, "not it").unwrap();
    for _ in 0..5 {
        let wrong = change(ada, &file);
        assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(1), ""), "{wrong:?}");
        assert!(wrong.stderr.contains("wrong passphrase; try again"), "{wrong:?}");
    }
    let arguments = ["--home", ada.home.to_str().unwrap(), "status"];
    if let Some(mut typed) = Typed::start(&arguments).unwrap() {
        let mut at = 0;
        for _ in 0..5 {
            at = typed.at("Passphrase: ", at, "not it\n").unwrap();
        }
        let (code, screen) = typed.end().unwrap();
        assert_eq!(code, Some(1), "{screen}");
        assert!(screen.contains("wrong passphrase 5 times"), "{screen}");
    }
    fs::write(&ada.passphrase, good).unwrap();
    ada.ok(&["status"]).unwrap();
    fs::write(&file, "\n").unwrap();
    let empty = change(ada, &file);
    assert_eq!(empty.code, Some(1), "{empty:?}");
    assert!(empty.stderr.contains("protects nothing"), "{empty:?}");
}

#[test]
fn a_weakened_header_and_a_newer_vault_are_refused_before_anybody_types_a_passphrase() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let file = new_file(&firm);
    for (sql, back, code, part) in [
        ("UPDATE header SET memory_mib = 8", "UPDATE header SET memory_mib = 64", 4, "weakened"),
        ("UPDATE header SET passes = 1", "UPDATE header SET passes = 3", 4, "weakened"),
        ("PRAGMA user_version = 2", "PRAGMA user_version = 1", 2, "update privity"),
    ] {
        alter(ada, sql);
        for refused in [change(ada, &file), ada.run(&["status"]).unwrap()] {
            assert_eq!(refused.code, Some(code), "{sql}: {refused:?}");
            assert!(refused.stderr.contains(part), "{sql}: {refused:?}");
        }
        let arguments = ["--home", ada.home.to_str().unwrap(), "passphrase", "change"];
        if let Some(typed) = Typed::start(&arguments).unwrap() {
            let (ended, screen) = typed.end().unwrap();
            assert_eq!(ended, Some(code), "{screen}");
            assert!(!screen.contains("The passphrase it has"), "{screen}");
        }
        alter(ada, back);
    }
    ada.ok(&["status"]).unwrap();
}

#[test]
fn a_change_that_is_killed_leaves_one_of_the_two_that_opens_everything() {
    let firm = Firm::found().unwrap();
    firm.matter("Lease", &[]).unwrap();
    let file = new_file(&firm);
    let mut is_old = true;
    for round in 0..12 {
        let old = firm.attorney.clone();
        let new = with_new(&old, file.clone());
        let (now, next) = if is_old { (&old, &new) } else { (&new, &old) };
        let next_file = next.passphrase.to_str().unwrap();
        let mut command = now.command(&["passphrase", "change", "--new-passphrase-file", next_file]).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // At another moment each time; the last ones are through.
        std::thread::sleep(Duration::from_millis(40 * round));
        let _dead = child.kill();
        child.wait().unwrap();
        let opens: Vec<bool> =
            [now, next].iter().map(|person| person.run(&["read", "Lease"]).unwrap().code == Some(0)).collect();
        assert_eq!(opens.iter().filter(|opens| **opens).count(), 1, "round {round}: {opens:?}");
        is_old = opens[usize::from(!is_old)];
    }
}

#[test]
fn security_show_tells_keys_protection_and_what_nobody_checked_without_a_network() {
    let mut firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let ada = &firm.attorney.clone();
    let status = ada.ok(&["status"]).unwrap();
    firm.relay.stop().unwrap();
    let told = ada.ok(&["security", "show"]).unwrap();
    assert_eq!(told.len(), 1);
    let told = &told[0];
    assert_eq!(told["organisation"], status[0]["organisation"]);
    assert_eq!(told["relay"]["key"], status[0]["relay"]["key"]);
    assert_eq!(told["profile"]["memory_mib"], 64);
    assert_eq!(told["profile"]["passes"], 3);
    assert_eq!(told["versions"]["wire"], 1);
    let unchecked: Vec<&str> =
        told["unchecked"].as_array().unwrap().iter().map(|found| found["what"].as_str().unwrap()).collect();
    assert_eq!(unchecked, ["link", "organisation", "log", "first_contact", "names"]);
    let shown = ada.run(&["security", "show"]).unwrap().stdout;
    let fingerprint = status[0]["organisation"].as_str().unwrap();
    for part in [fingerprint, "64 MiB and 3 passes", "X-Wing", "Not checked:", "With 1 person", "1 name was chosen by"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
