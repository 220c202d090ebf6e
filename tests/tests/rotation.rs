//! The relay's key is replaced: nobody has to do anything, everybody is told, and whoever slept through it follows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use privity_tests::{Firm, KDF_MEMORY, Person, binaries};

fn relay(firm: &Firm, arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries().unwrap().join("privity-relay"));
    command.args(arguments).arg("--data").arg(firm.relay.folder());
    command.output().unwrap()
}

fn ok(firm: &Firm, arguments: &[&str]) -> serde_json::Value {
    let ran = relay(firm, &[arguments, &["--json"]].concat());
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// Stops the relay, gives it another key, and starts it; the new key's fingerprint.
fn rotate(firm: &mut Firm) -> String {
    firm.relay.stop().unwrap();
    let told = ok(firm, &["key", "rotate"]);
    firm.relay.run().unwrap();
    told["key"].as_str().unwrap().to_owned()
}

fn key_of(person: &Person) -> serde_json::Value {
    person.ok(&["security", "show"]).unwrap().remove(0)["relay"].clone()
}

fn texts(person: &Person, matter: &str) -> Vec<String> {
    person.texts(matter).unwrap().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn everybody_follows_the_relay_to_its_new_key_is_told_once_and_goes_on() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    ada.ok(&["send", "Lease", "before"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let first = key_of(&ada)["key"].clone();
    assert_eq!((&key_of(&bob)["key"], &key_of(&bob)["before"]), (&first, &serde_json::json!([])));
    // Made before, used after: by its URL it pins the first key.
    let invite = ada.ok(&["invite", "new", "--role", "client"]).unwrap();
    let invite = invite[0]["url"].as_str().unwrap().to_owned();
    let refused = relay(&firm, &["key", "rotate"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("runs this relay; stop that one first"), "{refused:?}");

    let second = rotate(&mut firm);
    assert_ne!(first, second.as_str());
    // Each is told in the first thing they do, and never again.
    let sent = ada.run(&["send", "Lease", "after"]).unwrap();
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.stderr.contains("new key since") && sent.stderr.contains(&second), "{sent:?}");
    let received = bob.run(&["recv"]).unwrap();
    assert!(received.stdout.contains("after"), "{received:?}");
    assert!(received.stderr.contains(&second) && received.stderr.contains("nothing to do"), "{received:?}");
    for person in [&ada, &bob] {
        let again = person.run(&["recv"]).unwrap();
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
        let known = key_of(person);
        assert_eq!((&known["key"], &known["before"][0]["key"]), (&second.as_str().into(), &first));
        assert_eq!(known["since"], known["before"][0]["until"]);
        assert_eq!(person.ok(&["security", "show"]).unwrap()[0]["log"]["faults"], serde_json::json!([]));
    }
    let shown = bob.run(&["security", "show"]).unwrap().stdout;
    assert!(shown.contains(&format!("{second}, since ")) && shown.contains(first.as_str().unwrap()), "{shown}");

    // The inviter has learned of the new key, the newcomer's invite knows the one before.
    let eve = Person::new(firm.folder(), "eve").unwrap();
    eve.join(&invite, "Eve Doe").unwrap();
    assert_eq!(key_of(&eve)["key"], second.as_str());
    ada.ok(&["people"]).unwrap();
    eve.ok(&["recv"]).unwrap();
    assert_eq!(eve.ok(&["status"]).unwrap()[0]["state"], "ready");
    ada.ok(&["matter", "add", "Lease", "eve"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    bob.ok(&["send", "Lease", "to all"]).unwrap();
    eve.ok(&["recv"]).unwrap();
    assert_eq!(texts(&eve, "Lease"), ["to all"]);

    let mode = |name: &str| fs::metadata(firm.relay.folder().join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["relay.key", "relay.key.1", "relay.rotations"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert!(!firm.relay.folder().join("relay.key.next").exists());
    let check = relay(&firm, &["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.contains(&second) && check.contains("still served"), "{check}");
}

#[test]
fn a_newcomer_who_registered_before_is_believed_by_an_inviter_who_has_followed_since() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let invite = ada.ok(&["invite", "new", "--role", "client"]).unwrap();
    let eve = Person::new(firm.folder(), "eve").unwrap();
    eve.join(invite[0]["url"].as_str().unwrap(), "Eve Doe").unwrap();
    let second = rotate(&mut firm);
    let told = ada.run(&["people"]).unwrap();
    assert!(told.stderr.contains(&second) && !told.stderr.contains("WARNING"), "{told:?}");
    eve.ok(&["recv"]).unwrap();
    assert_eq!(eve.ok(&["status"]).unwrap()[0]["state"], "ready");
}

#[test]
fn who_sleeps_through_rotations_follows_all_of_them_and_an_invite_of_the_first_key_stays_good() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let invite = ada.ok(&["invite", "new", "--role", "client"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
    rotate(&mut firm);
    ada.ok(&["send", "Lease", "one"]).unwrap();
    let third = rotate(&mut firm);
    ada.ok(&["send", "Lease", "two"]).unwrap();
    assert_eq!(ok(&firm, &["key", "show"])["before"].as_array().unwrap().len(), 2);
    let told = bob.run(&["recv"]).unwrap();
    assert_eq!((told.code, told.stderr.matches("new key").count()), (Some(0), 1), "{told:?}");
    assert!(told.stderr.contains(&third), "{told:?}");
    assert_eq!(texts(&bob, "Lease"), ["one", "two"]);
    assert_eq!(key_of(&bob)["before"].as_array().unwrap().len(), 2);
    let eve = Person::new(firm.folder(), "eve").unwrap();
    eve.join(&invite, "Eve Doe").unwrap();
    ada.ok(&["people"]).unwrap();
    eve.ok(&["recv"]).unwrap();
    assert_eq!(eve.ok(&["status"]).unwrap()[0]["state"], "ready");

    // Nine at once are more than one answer brings: another link brings the rest.
    firm.relay.stop().unwrap();
    let mut newest = String::new();
    for _ in 0..9 {
        newest = ok(&firm, &["key", "rotate"])["key"].as_str().unwrap().to_owned();
    }
    firm.relay.run().unwrap();
    bob.ok(&["recv"]).unwrap();
    assert_eq!(key_of(&bob)["key"], newest.as_str());
    let late = Person::new(firm.folder(), "late").unwrap();
    let url = ada.ok(&["invite", "new", "--role", "client"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
    late.ok(&["join", &url, "--handle", "late", "--name", "Late", "--kdf-memory", KDF_MEMORY]).unwrap();
    assert_eq!(key_of(&late)["before"], serde_json::json!([]), "an invite made after pins the newest");
}

/// The key before was taken away, because it was stolen, say: who still pins it hears nothing and believes nothing.
#[test]
fn a_key_that_is_served_no_more_leaves_only_those_out_who_have_not_come_since() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    rotate(&mut firm);
    ada.ok(&["recv"]).unwrap();
    firm.relay.stop().unwrap();
    fs::remove_file(firm.relay.folder().join("relay.key.1")).unwrap();
    firm.relay.run().unwrap();
    ada.ok(&["recv"]).unwrap();
    assert_eq!(ok(&firm, &["key", "show"])["before"][0]["served"], false);
    let refused = bob.run(&["recv"]).unwrap();
    assert_eq!(refused.code, Some(4), "{refused:?}");
}

/// The backup is from before the rotation: the folder keeps its newer key, and the log says of it once more.
#[test]
fn a_backup_from_before_a_rotation_is_restored_under_the_newer_key() {
    let mut firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    let backup = firm.folder().join("backup").to_str().unwrap().to_owned();
    ok(&firm, &["backup", "--out", &backup]);
    ada.ok(&["send", "Lease", "since the backup"]).unwrap();
    let second = rotate(&mut firm);
    ada.ok(&["recv"]).unwrap();
    firm.relay.stop().unwrap();
    ok(&firm, &["restore", "--from", &backup]);
    firm.relay.run().unwrap();
    assert_eq!(ok(&firm, &["key", "show"])["key"], second.as_str());
    let tail = String::from_utf8(relay(&firm, &["audit", "tail"]).stdout).unwrap();
    assert!(tail.contains("restored") && tail.contains("key-rotated"), "{tail}");
    for person in [&ada, &bob] {
        person.ok(&["recv"]).unwrap();
        assert_eq!(key_of(person)["key"], second.as_str());
        let log = person.ok(&["security", "show"]).unwrap()[0]["log"].clone();
        assert_eq!(log["faults"], serde_json::json!([]), "{}", person.handle);
    }
    bob.ok(&["recv"]).unwrap();
    assert_eq!(texts(&bob, "Lease"), ["since the backup"]);
}
