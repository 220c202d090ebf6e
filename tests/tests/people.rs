//! Somebody leaves the firm, on the real binaries: their endorsement is withdrawn, everybody is told, and they come back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use privity_tests::{Firm, KDF_MEMORY, Person, Ran};
use serde_json::Value;

fn one(told: Vec<Value>) -> Value {
    assert_eq!(told.len(), 1, "{told:?}");
    told.into_iter().next().unwrap()
}

fn send(person: &Person, text: &str) -> Ran {
    person.run(&["send", "Lease", text]).unwrap()
}

fn state_in_directory(of: &Person, handle: &str) -> Value {
    let people = of.ok(&["people"]).unwrap();
    people.iter().find(|person| person["handle"] == handle).unwrap()["state"].clone()
}

/// How often a kind of record is printed by what comes in.
fn records(ran: &[Value], kind: &str) -> usize {
    ran.iter().filter(|record| record["type"] == kind).count()
}

#[test]
fn an_attorney_leaves_and_is_asked_about_removed_and_taken_back() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "attorney").unwrap();
    let dan = bob.bring(firm.folder(), "dan", "Dan Doe", "client").unwrap();
    firm.matter("Lease", &[&bob, &dan]).unwrap();
    bob.ok(&["matter", "new", "Alone"]).unwrap();
    bob.ok(&["matter", "add", "Alone", "dan"]).unwrap();
    for person in [&bob, &dan] {
        person.ok(&["recv"]).unwrap();
    }
    let invite = one(bob.ok(&["invite", "new", "--role", "client"]).unwrap())["url"].as_str().unwrap().to_owned();

    // It takes a word; nobody withdraws a colleague's who may not.
    let unasked = ada.run(&["--json", "identity", "revoke", "bob"]).unwrap();
    assert_eq!((unasked.code, unasked.stderr.contains("--yes")), (Some(1), true), "{unasked:?}");
    let colleague = bob.run(&["identity", "revoke", "ada", "--yes"]).unwrap();
    assert_eq!(colleague.code, Some(5), "{colleague:?}");
    let revoked = one(ada.ok(&["identity", "revoke", "bob", "--yes"]).unwrap());
    assert_eq!((&revoked["state"], &revoked["matters"][0]["title"]), (&"withdrawn".into(), &"Lease".into()));
    let again = one(ada.ok(&["identity", "revoke", "bob", "--yes"]).unwrap());
    assert_eq!(again["state"], "withdrawn");
    let again = ada.run(&["identity", "revoke", "bob", "--yes"]).unwrap().stdout;
    assert!(again.contains("remove 'Lease' bob") && !again.contains("'Alone'"), "{again}");
    assert!(again.contains("can't be seen from here") && again.contains("needs a new matter"), "{again}");

    // The relay serves his device no more, and says why; his invite is void.
    let refused = bob.run(&["recv"]).unwrap();
    assert_eq!((refused.code, refused.stderr.contains("withdrawn your endorsement")), (Some(5), true), "{refused:?}");
    let zoe = Person::new(firm.folder(), "zoe").unwrap();
    let void = zoe.run(&["join", &invite, "--name", "Zoe", "--handle", "zoe", "--kdf-memory", KDF_MEMORY]).unwrap();
    assert_eq!((void.code, void.stderr.contains("may not invite any more")), (Some(5), true), "{void:?}");

    // His client stays whole, is told once, and asked before anything is sent.
    let told = dan.ok(&["recv"]).unwrap();
    assert_eq!(records(&told, "endorsement_withdrawn"), 2, "in both matters: {told:?}");
    assert_eq!(records(&dan.ok(&["recv"]).unwrap(), "endorsement_withdrawn"), 0);
    let asked = send(&dan, "not yet");
    assert_eq!(asked.code, Some(5), "{asked:?}");
    for part in ["Bob Jones (bob", "withdrawn", "ask Ada Byron (ada) to remove them", "--anyway"] {
        assert!(asked.stderr.contains(part), "{part}: {asked:?}");
    }
    // Where he was alone with his client, there is nobody to ask but the firm.
    let alone = dan.run(&["send", "Alone", "not yet"]).unwrap();
    assert_eq!(alone.code, Some(5), "{alone:?}");
    assert!(alone.stderr.contains("call the firm") && alone.stderr.contains("new matter"), "{alone:?}");
    assert!(!alone.stderr.contains("to remove them"), "{alone:?}");
    dan.ok(&["send", "Lease", "Is Bob still with you?", "--anyway"]).unwrap();
    assert_eq!(send(&dan, "It is urgent.").code, Some(0), "asked once");

    // Whoever manages the matter is given the very command.
    let asked = send(ada, "not yet");
    let command = "privity matter remove 'Lease' bob";
    assert_eq!((asked.code, asked.stderr.contains(command)), (Some(5), true), "{asked:?}");
    let shown = one(ada.ok(&["matter", "show", "Lease"]).unwrap());
    assert_eq!((&shown["lapsed"][0]["handle"], &shown["lapsed"][0]["why"]), (&"bob".into(), &"withdrawn".into()));
    assert!(ada.run(&["matter", "show", "Lease"]).unwrap().stdout.contains(command));
    assert!(ada.run(&["recv"]).unwrap().stdout.contains(command));
    assert_eq!((state_in_directory(ada, "bob"), state_in_directory(ada, "dan")), ("withdrawn".into(), "ready".into()));
    let known = one(ada.ok(&["identity", "show", "bob"]).unwrap());
    assert_eq!(known["withdrawn"]["by"]["handle"], "ada");
    one(ada.ok(&["matter", "remove", "Lease", "bob"]).unwrap());
    assert_eq!(send(ada, "He has left us; I go on.").code, Some(0), "nobody is left to ask about");
    dan.ok(&["recv"]).unwrap();
    assert_eq!(one(dan.ok(&["matter", "show", "Lease"]).unwrap())["lapsed"], Value::Array(Vec::new()));

    // Nobody adds him anywhere; whom he has vouched for is added as before.
    ada.ok(&["matter", "new", "Estate"]).unwrap();
    let add = ada.run(&["matter", "add", "Estate", "bob"]).unwrap();
    assert_eq!((add.code, add.stderr.contains("withdrawn")), (Some(5), true), "{add:?}");
    assert_eq!(one(ada.ok(&["matter", "add", "Estate", "dan"]).unwrap())["state"], "done");

    // He comes back, under the same keys.
    one(ada.ok(&["identity", "endorse", "bob", "--yes"]).unwrap());
    bob.ok(&["recv"]).unwrap();
    assert_eq!(state_in_directory(ada, "bob"), "ready");
    assert_eq!(one(ada.ok(&["matter", "add", "Estate", "bob"]).unwrap())["state"], "done");
    bob.ok(&["recv"]).unwrap();
    bob.ok(&["send", "Estate", "Good to be back."]).unwrap();
    ada.ok(&["recv"]).unwrap();
    assert_eq!(ada.texts("Estate").unwrap(), [("bob".to_owned(), "Good to be back.".to_owned())]);
}
