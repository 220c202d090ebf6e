//! What people read after the relay was put back: by `restore`, which says so, or by hand, which looks like a fork.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use privity_tests::{Firm, Person, binaries};

/// The relay's database as it is now.
fn backup(firm: &mut Firm) -> PathBuf {
    let path = firm.folder().join("backup.db");
    firm.relay.stop().unwrap();
    fs::copy(firm.relay.folder().join("relay.db"), &path).unwrap();
    firm.relay.run().unwrap();
    path
}

fn restore(firm: &mut Firm, backup: &Path) {
    firm.relay.stop().unwrap();
    let mut restore = Command::new(binaries().unwrap().join("privity-relay"));
    restore.arg("restore").arg("--data").arg(firm.relay.folder()).arg("--from").arg(backup);
    assert!(restore.output().unwrap().status.success());
    firm.relay.run().unwrap();
}

fn texts(person: &Person, matter: &str) -> Vec<String> {
    person.texts(matter).unwrap().into_iter().map(|(_, text)| text).collect()
}

fn kinds(person: &Person, matter: &str, kind: &str) -> usize {
    person.ok(&["read", matter]).unwrap().iter().filter(|record| record["type"] == kind).count()
}

#[test]
fn a_matter_opened_after_the_backup_goes_on_as_one_matter_with_all_that_was_said() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    bob.ok(&["recv"]).unwrap();
    let old = backup(&mut firm);
    firm.matter("Lease", &[&bob]).unwrap();
    ada.ok(&["send", "Lease", "read before"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    // Only the relay that is lost has it.
    bob.ok(&["send", "Lease", "not read before"]).unwrap();
    restore(&mut firm, &old);

    let told = bob.run(&["recv"]).unwrap();
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    for part in ["restored from a backup", "for a minute or two"] {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    let kept = bob.run(&["--json", "send", "Lease", "written meanwhile"]).unwrap();
    assert_eq!((kept.code, kept.objects().unwrap()[0]["state"].as_str()), (Some(7), Some("queued")), "{kept:?}");
    for part in ["is kept", "has forgotten this matter", "attorney or staff member"] {
        assert!(kept.stderr.contains(part), "{part}: {kept:?}");
    }
    assert_eq!(bob.ok(&["matter", "ls"]).unwrap()[0]["state"], "out_of_step");

    ada.ok(&["recv"]).unwrap();
    let shown = ada.run(&["matter", "show", "Lease"]).unwrap().stdout;
    assert!(shown.contains("privity matter continue") && shown.contains("goes on by itself"), "{shown}");
    let told = ada.ok(&["matter", "continue", "Lease"]).unwrap();
    assert_eq!(told[0]["state"], "open");
    ada.ok(&["send", "Lease", "on we go"]).unwrap();
    for person in [&bob, &ada, &bob] {
        person.ok(&["recv"]).unwrap();
    }

    let all = ["read before", "not read before", "written meanwhile", "on we go"];
    for person in [&ada, &bob] {
        let mut read = texts(person, "Lease");
        read.sort();
        let mut all = all;
        all.sort_unstable();
        assert_eq!(read, all, "{}: each once", person.handle);
        assert_eq!(kinds(person, "Lease", "continued"), 1);
        let listed = person.ok(&["matter", "ls"]).unwrap();
        assert_eq!((listed.len(), listed[0]["state"].as_str()), (1, Some("open")), "one matter: {listed:?}");
        assert_eq!(listed[0]["people"], 2);
    }
}

/// It waited ten seconds for an answer and read as if the relay were gone; then whoever was to be removed was taken along.
#[test]
fn a_removal_wished_while_the_relay_has_forgotten_the_matter_is_kept_and_holds() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let eve = firm.bring("eve", "Eve Doe", "client").unwrap();
    let old = backup(&mut firm);
    firm.matter("Lease", &[&bob, &eve]).unwrap();
    for person in [&ada, &bob, &eve] {
        person.ok(&["recv"]).unwrap();
    }
    restore(&mut firm, &old);
    for person in [&bob, &eve] {
        person.ok(&["recv"]).unwrap();
    }
    let wished = ada.run(&["--json", "matter", "remove", "Lease", "eve"]).unwrap();
    assert_eq!((wished.code, wished.objects().unwrap()[0]["state"].as_str()), (Some(7), Some("waiting")), "{wished:?}");
    assert!(wished.stderr.contains("goes on by itself"), "{wished:?}");
    assert_eq!(ada.ok(&["matter", "continue", "Lease"]).unwrap()[0]["state"], "open");
    for person in [&bob, &ada, &eve] {
        person.ok(&["recv"]).unwrap();
    }
    let people = ada.ok(&["matter", "show", "Lease"]).unwrap();
    let people = people[0]["people"].as_array().unwrap().iter();
    let mut handles: Vec<&str> = people.map(|person| person["handle"].as_str().unwrap()).collect();
    handles.sort_unstable();
    assert_eq!(handles, ["ada", "bob"]);
    ada.ok(&["send", "Lease", "without Eve"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    eve.ok(&["recv"]).unwrap();
    assert_eq!((texts(&bob, "Lease"), texts(&eve, "Lease")), (vec!["without Eve".to_owned()], Vec::new()));
}

#[test]
fn a_restored_relay_is_one_note_and_who_was_removed_since_reads_what_moving_means() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let eve = firm.bring("eve", "Eve Doe", "client").unwrap();
    firm.matter("Lease", &[&bob, &eve]).unwrap();
    for person in [&bob, &eve] {
        person.ok(&["recv"]).unwrap();
    }
    let old = backup(&mut firm);
    ada.ok(&["matter", "remove", "Lease", "eve"]).unwrap();
    bob.ok(&["send", "Lease", "after the backup"]).unwrap();
    for person in [&ada, &bob] {
        person.ok(&["recv"]).unwrap();
    }
    restore(&mut firm, &old);

    // Once it has continued the matter, in its turn.
    let mut notes = Vec::new();
    while !notes.iter().any(|note: &String| note.contains("new place")) {
        let told = ada.run(&["recv", "--timeout", "4"]).unwrap();
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "no note beside the note");
        notes.extend(told.stdout.lines().map(str::to_owned));
    }
    assert!(notes.iter().filter(|note| note.contains("restored from a backup")).count() == 1, "{notes:?}");
    let told = bob.run(&["recv"]).unwrap();
    assert_eq!((told.stdout.lines().count(), told.stderr.as_str()), (1, ""), "{told:?}");
    for part in ["restored from a backup", "1 message of yours is sent again", "opened by Ada Byron"] {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    let kinds: Vec<String> = bob.ok(&["read", "Lease"]).unwrap().iter().map(|r| r["type"].to_string()).collect();
    assert!(kinds.contains(&"\"restored\"".to_owned()), "a script reads each: {kinds:?}");

    eve.ok(&["recv"]).unwrap();
    let shown = eve.run(&["matter", "show", "Lease"]).unwrap().stdout;
    for part in ["not let in yet", "you may have been removed", "ask your lawyer"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(eve.run(&["matter", "ls"]).unwrap().stdout.contains("moving: not let in yet"));
}

#[test]
fn a_fork_is_exit_4_for_send_and_recv_and_says_what_becomes_of_what_was_unsent() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let old = backup(&mut firm);
    ada.ok(&["send", "Lease", "read by both"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    // By hand: no new incarnation, so this is another history.
    firm.relay.stop().unwrap();
    for log in ["relay.db-wal", "relay.db-shm"] {
        let _gone = fs::remove_file(firm.relay.folder().join(log));
    }
    fs::copy(&old, firm.relay.folder().join("relay.db")).unwrap();
    let kept = ada.run(&["--timeout", "1", "send", "Lease", "unsent"]).unwrap();
    assert_eq!(kept.code, Some(3), "{kept:?}");
    firm.relay.run().unwrap();

    let found = bob.run(&["--json", "recv"]).unwrap();
    assert_eq!(found.code, Some(4), "{found:?}");
    let records = found.objects().unwrap();
    assert!(records.iter().any(|record| record["type"] == "forked"), "printed first: {found:?}");
    assert_eq!(bob.run(&["recv"]).unwrap().code, Some(0), "found once");
    let refused = ada.run(&["send", "Lease", "more"]).unwrap();
    assert_eq!(refused.code, Some(4), "{refused:?}");
    for part in ["this matter has stopped", "Nothing was sent or kept now", "marked not sent", "telephone"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    let pending = ada.ok(&["read", "Lease", "--pending"]).unwrap();
    assert_eq!((pending.len(), pending[0]["state"].as_str()), (1, Some("refused")), "{pending:?}");
    assert!(ada.run(&["read", "Lease", "--pending"]).unwrap().stdout.contains("you (not sent): unsent"));
    assert!(ada.run(&["matter", "ls"]).unwrap().stdout.contains("stopped: the relay showed two histories"));
}

/// What came behind a note that had been held was printed again with every `recv`.
#[test]
fn what_was_printed_behind_a_held_note_is_not_printed_again() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let eve = firm.bring("eve", "Eve Doe", "client").unwrap();
    firm.matter("Lease", &[&eve]).unwrap();
    ada.ok(&["send", "Lease", "before the backup"]).unwrap();
    let old = backup(&mut firm);
    ada.ok(&["matter", "add", "Lease", "bob"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    bob.ok(&["send", "Lease", "after the backup"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    restore(&mut firm, &old);
    let mut printed: Vec<String> = Vec::new();
    for _ in 0..3 {
        for person in [&ada, &bob] {
            let told = person.run(&["recv", "--timeout", "4"]).unwrap().stdout;
            if person.handle == "bob" {
                printed.extend(told.lines().map(str::to_owned));
            }
        }
    }
    let mut once = printed.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), printed.len(), "{printed:?}");
    assert!(printed.iter().any(|line| line.contains("new place")), "{printed:?}");
}
