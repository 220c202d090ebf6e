//! What a person sees, and what a script, when something went wrong: disputes, copies, removals that nobody has confirmed, old keys.
//!
//! Where it takes a hostile member or a long time to come about, what a device would then remember is put into its vault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use privity_client::vault::Vault;
use privity_protocol::cbor;
use privity_protocol::device::state::{Batch, MatterRow, Snapshot as _, Table};
use privity_protocol::ids::{MatterId, PersonId, Timestamp};
use privity_tests::{Firm, Person, Ran, binaries};
use serde_json::Value;

/// Changes what a device remembers of its only matter.
fn remember(person: &Person, change: impl FnOnce(&mut MatterRow)) {
    let passphrase = fs::read_to_string(&person.passphrase).unwrap();
    let mut vault = Vault::open(&person.home, passphrase.trim_end().as_bytes()).unwrap();
    let (key, row) = vault.rows(Table::Matter, None).unwrap().pop().unwrap();
    let mut row: MatterRow = cbor::decode(&row, "matter").unwrap();
    change(&mut row);
    let mut batch = Batch::default();
    batch.put(Table::Matter, None, &key, &row);
    vault.apply(batch).unwrap();
}

fn person_id(person: &Person) -> PersonId {
    person.ok(&["status"]).unwrap()[0]["person"].as_str().unwrap().parse().unwrap()
}

fn types(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["type"].as_str()).collect()
}

/// A chat with these lines typed into it, without a terminal.
fn chat(person: &Person, lines: &str) -> Ran {
    let mut command = person.command(&["chat", "Lease"]).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_dispute_refuses_to_send_until_the_user_says_to_go_on() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob\u{202e} Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let whom = person_id(&bob);
    remember(ada, |row| row.disputed = Some(whom));

    let refused = ada.run(&["send", "Lease", "hello"]).unwrap();
    assert_eq!(refused.code, Some(5), "{refused:?}");
    for part in ["Jones (bob, self-stated) says", "telephone", "--anyway"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains('\x1b'));
    let shown = ada.ok(&["matter", "show", "Lease"]).unwrap();
    assert_eq!(shown[0]["disputed"]["handle"], "bob");
    assert!(ada.run(&["matter", "ls"]).unwrap().stdout.contains("disputed"));
    assert!(ada.texts("Lease").unwrap().is_empty());

    assert_eq!(ada.ok(&["send", "Lease", "first", "--anyway"]).unwrap()[0]["state"], "stored");
    assert_eq!(ada.ok(&["send", "Lease", "second"]).unwrap()[0]["state"], "stored");
    assert_eq!(ada.ok(&["matter", "show", "Lease"]).unwrap()[0]["disputed"], Value::Null);
    bob.ok(&["recv"]).unwrap();
    let texts: Vec<String> = bob.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["first", "second"]);
}

#[test]
fn chat_holds_what_is_typed_in_a_dispute_until_a_yes() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let whom = person_id(&bob);
    remember(ada, |row| row.disputed = Some(whom));

    let held = chat(ada, "hello\nare you there?\n");
    assert_eq!(held.code, Some(5), "{held:?}");
    assert!(held.stdout.contains("Bob Jones (bob, self-stated) says") && held.stderr.contains("2 messages not sent"));
    assert!(ada.texts("Lease").unwrap().is_empty());

    let sent = chat(ada, "hello\nyes\nmore\n");
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let texts: Vec<String> = ada.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["hello", "more"]);
}

#[test]
fn a_removal_reads_requested_until_somebody_else_has_confirmed_it() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let eve = firm.bring("eve", "Eve Smith", "client").unwrap();
    firm.matter("Lease", &[&bob, &eve]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let whom = person_id(&eve).to_string();

    assert_eq!(ada.ok(&["matter", "remove", "Lease", "eve"]).unwrap()[0]["state"], "requested");
    let shown = ada.ok(&["matter", "show", "Lease"]).unwrap();
    assert_eq!(shown[0]["requested"], serde_json::json!([whom]));
    assert!(ada.run(&["matter", "show", "Lease"]).unwrap().stdout.contains("removal requested"));
    let listed = ada.run(&["matter", "ls"]).unwrap().stdout;
    assert!(listed.contains("2 people and 1 whose removal is requested"), "{listed}");
    assert_eq!(ada.ok(&["matter", "ls"]).unwrap()[0]["requested"], 1);
    let again = chat(ada, "/remove eve\n/add bob\n");
    assert!(
        again.stdout.contains("eve is being removed already") && again.stdout.contains("bob is in this matter already")
    );
    assert!(!types(&ada.ok(&["read", "Lease"]).unwrap()).contains(&"removed"));

    bob.ok(&["send", "Lease", "still here"]).unwrap();
    let read = ada.ok(&["recv"]).unwrap();
    assert!(types(&read).contains(&"removed"), "{read:?}");
    assert_eq!(ada.ok(&["matter", "show", "Lease"]).unwrap()[0]["requested"], serde_json::json!([]));

    let told = eve.run(&["recv"]).unwrap();
    assert_eq!(told.code, Some(0), "{told:?}");
    let shown = eve.run(&["matter", "show", "Lease"]).unwrap();
    assert!(
        shown.stdout.contains("You are no longer in this matter") && shown.stdout.contains("last saw it"),
        "{shown:?}"
    );
}

/// A copied vault once said only that something was busy, and then nothing could be sent from either copy.
#[test]
fn a_copy_of_a_profile_is_let_back_in_and_the_other_is_told_that_it_was_replaced() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let home = firm.folder().join("copy");
    copy(&bob.home, &home);
    let twin = Person { home, ..bob.clone() };
    bob.ok(&["send", "Lease", "said by the one"]).unwrap();

    let told = twin.run(&["recv"]).unwrap();
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stderr.contains("copy of your profile"), "{told:?}");
    assert_eq!(twin.ok(&["matter", "ls"]).unwrap()[0]["state"], "out_of_step");
    let replaced = bob.run(&["send", "Lease", "am I still here?"]).unwrap();
    assert_eq!(replaced.code, Some(5), "{replaced:?}");
    assert!(replaced.stderr.contains("Use the other copy"), "{replaced:?}");
    let status = bob.run(&["--json", "status"]).unwrap();
    assert_eq!(status.code, Some(5), "{status:?}");
    assert!(status.stderr.contains("If you made no copy") && status.stderr.contains("IT"), "{status:?}");
    let told = &status.objects().unwrap()[0];
    assert_eq!(
        (told["relay"]["reached"].as_bool(), told["matters"][0]["title"].as_str()),
        (Some(false), Some("Lease"))
    );
    let status = bob.run(&["status"]).unwrap();
    assert!(status.stdout.contains("not admitted") && status.stdout.contains("Lease"), "{status:?}");

    let kept = twin.run(&["--json", "send", "Lease", "said by the other"]).unwrap();
    assert_eq!((kept.code, kept.objects().unwrap()[0]["state"].as_str()), (Some(7), Some("queued")), "{kept:?}");
    for _ in 0..2 {
        ada.ok(&["recv", "--timeout", "4"]).unwrap();
        twin.ok(&["recv", "--timeout", "2"]).unwrap();
    }
    ada.ok(&["recv"]).unwrap();
    assert!(types(&twin.ok(&["read", "Lease"]).unwrap()).contains(&"repaired"));
    assert!(types(&ada.ok(&["read", "Lease"]).unwrap()).contains(&"let_back_in"));
    let texts: Vec<String> = ada.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["said by the one", "said by the other"]);
}

#[test]
fn fresh_keys_that_are_owed_go_out_with_the_next_command_and_only_once() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let epoch = || ada.ok(&["status"]).unwrap()[0]["matters"][0]["epoch"].as_u64().unwrap();
    let before = epoch();
    remember(ada, |row| row.healing.at = Timestamp(1));
    // Owed when this begins, given when it ends, read by the next.
    ada.ok(&["recv"]).unwrap();
    assert_eq!((epoch(), epoch()), (before + 1, before + 1));
}

#[test]
fn a_matter_left_and_joined_again_keeps_nothing_of_what_belonged_to_the_first_time() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    for text in ["one", "two", "three", "four"] {
        ada.ok(&["send", "Lease", text]).unwrap();
    }
    bob.ok(&["recv"]).unwrap();
    firm.relay.stop().unwrap();
    assert_eq!(bob.run(&["--timeout", "1", "send", "Lease", "too late"]).unwrap().code, Some(3));
    firm.relay.run().unwrap();
    ada.ok(&["matter", "remove", "Lease", "bob"]).unwrap();
    ada.ok(&["matter", "add", "Lease", "bob"]).unwrap();
    bob.ok(&["recv", "--timeout", "2"]).unwrap();
    assert_eq!(bob.ok(&["matter", "ls"]).unwrap()[0]["state"], "open");

    let passphrase = fs::read_to_string(&bob.passphrase).unwrap();
    let vault = Vault::open(&bob.home, passphrase.trim_end().as_bytes()).unwrap();
    let (key, _) = vault.rows(Table::Matter, None).unwrap().pop().unwrap();
    let matter = MatterId::from_slice(&key).unwrap();
    let count = |table| vault.rows(table, Some(matter)).unwrap().len();
    assert_eq!((count(Table::Group), count(Table::Outbox), count(Table::Commit)), (1, 0, 0));
    assert_eq!(vault.rows(Table::Post, None).unwrap().len(), 0);
    assert!(count(Table::Recent) <= 2, "{} entries are remembered, of the first time too", count(Table::Recent));
    // What was read stays.
    assert_eq!(bob.texts("Lease").unwrap().len(), 4);
}

/// Ada says one thing before the relay's backup and another behind it, which `read` has her read back; then the backup is restored. What
/// she is told, and what Bob has read in the end.
fn restored(read: bool) -> (Ran, Vec<String>) {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    ada.ok(&["send", "Lease", "before the backup"]).unwrap();
    firm.relay.stop().unwrap();
    let backup = firm.folder().join("backup.db");
    fs::copy(firm.relay.folder().join("relay.db"), &backup).unwrap();
    firm.relay.run().unwrap();
    ada.ok(&["send", "Lease", "behind the backup"]).unwrap();
    if read {
        ada.ok(&["recv"]).unwrap();
    }
    firm.relay.stop().unwrap();
    let mut restore = Command::new(binaries().unwrap().join("privity-relay"));
    restore.arg("restore").arg("--data").arg(firm.relay.folder()).arg("--from").arg(&backup);
    assert!(restore.output().unwrap().status.success());
    firm.relay.run().unwrap();

    let told = ada.run(&["--json", "recv", "--timeout", "2"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    (told, bob.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect())
}

#[test]
fn what_a_restored_relay_has_forgotten_is_sent_again_and_the_author_is_told() {
    let (told, texts) = restored(true);
    assert!(told.stderr.contains("restored from a backup"), "{told:?}");
    let records = told.objects().unwrap();
    let again = records.iter().find(|record| record["type"] == "restored").map(|record| &record["body"]["again"]);
    assert_eq!(again, Some(&serde_json::json!(1)), "{told:?}");
    assert_eq!(texts, ["before the backup", "behind the backup"]);
}

#[test]
fn what_the_relay_stored_and_forgot_before_its_author_read_it_back_is_sent_again() {
    assert_eq!(restored(false).1, ["before the backup", "behind the backup"]);
}

/// Ada, an attorney, and Bob talk; then both profiles are replaced by copies from before that.
fn both_out_of_step() -> (Firm, Person) {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["send", "Lease", "in both copies"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    let old = |person: &Person| firm.folder().join(format!("{}.old", person.handle));
    for person in [ada, &bob] {
        copy(&person.home, &old(person));
    }
    ada.ok(&["send", "Lease", "behind the copies"]).unwrap();
    bob.ok(&["send", "Lease", "and this"]).unwrap();
    for person in [ada, &bob] {
        fs::remove_dir_all(&person.home).unwrap();
        fs::rename(old(person), &person.home).unwrap();
    }
    (firm, bob)
}

fn state(person: &Person) -> String {
    let matters = person.ok(&["matter", "ls"]).unwrap();
    assert_eq!(matters.len(), 1, "one matter, with a note in it: {matters:?}");
    matters[0]["state"].as_str().unwrap().to_owned()
}

/// Both are let into one successor, in which they talk; what both had read before stays.
fn talk_again(ada: &Person, bob: &Person) {
    for _ in 0..4 {
        for person in [ada, bob] {
            person.ok(&["recv", "--timeout", "6"]).unwrap();
        }
        if state(ada) == "open" && state(bob) == "open" {
            break;
        }
    }
    for (person, text) in [(ada, "hello again"), (bob, "hello to you")] {
        assert_eq!(person.ok(&["send", "Lease", text]).unwrap()[0]["state"], "stored");
    }
    for person in [ada, bob] {
        person.ok(&["recv"]).unwrap();
        let records = person.ok(&["read", "Lease"]).unwrap();
        assert_eq!(types(&records).iter().filter(|kind| **kind == "continued").count(), 1, "{records:?}");
        let texts: Vec<String> = person.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts.first().map(String::as_str), Some("in both copies"), "{texts:?}");
        assert_eq!(texts[texts.len() - 2..], ["hello again", "hello to you"], "{}", person.handle);
    }
}

#[test]
fn two_people_whose_profiles_are_both_put_back_talk_again_by_themselves() {
    let (firm, bob) = both_out_of_step();
    for person in [&firm.attorney, &bob] {
        person.ok(&["recv"]).unwrap();
        assert_eq!(state(person), "out_of_step", "{}", person.handle);
    }
    talk_again(&firm.attorney, &bob);
}

#[test]
fn an_attorney_continues_a_matter_that_nobody_can_repair_and_a_client_does_not() {
    let (firm, bob) = both_out_of_step();
    let ada = &firm.attorney;
    ada.ok(&["recv"]).unwrap();
    assert_eq!(state(ada), "out_of_step");
    assert!(ada.run(&["matter", "show", "Lease"]).unwrap().stdout.contains("privity matter continue"));

    let told = ada.ok(&["matter", "continue", "Lease"]).unwrap();
    assert_eq!((told.len(), told[0]["state"].as_str()), (1, Some("open")), "{told:?}");
    assert!(told[0]["matter"].is_string());
    let again = ada.run(&["matter", "continue", "Lease"]).unwrap();
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("not out of step"), "{again:?}");
    let refused = bob.run(&["matter", "continue", "Lease"]).unwrap();
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.stderr.contains("only attorneys and staff"), "{refused:?}");
    let records = ada.ok(&["read", "Lease"]).unwrap();
    assert_eq!(types(&records).iter().filter(|kind| **kind == "continued").count(), 1, "{records:?}");
    assert_eq!(ada.ok(&["send", "Lease", "on we go"]).unwrap()[0]["state"], "stored");
}

#[test]
fn a_copy_that_first_connects_after_its_matter_was_continued_is_let_in_and_talks() {
    let (firm, bob) = both_out_of_step();
    let ada = &firm.attorney;
    ada.ok(&["recv"]).unwrap();
    ada.ok(&["matter", "continue", "Lease"]).unwrap();
    talk_again(ada, &bob);
}
