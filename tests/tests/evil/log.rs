//! The audit log: two histories shown to two people, one rolled back, one that was changed.

use privity_protocol::ids::InviteId;
use privity_protocol::log::Act;
use privity_tests::Person;
use privity_tests::evil::Fork;
use serde_json::Value;

use super::super::{office, told, words};

fn faults(who: &Person) -> Vec<Value> {
    who.ok(&["security", "show"]).unwrap()[0]["log"]["faults"].as_array().unwrap().clone()
}

fn made_up() -> Act {
    Act::InviteExpired { invite: InviteId::new([9; 16]) }
}

/// Dan alone is shown a log in which something else happened.
#[test]
fn two_histories_are_told_by_the_next_message_exchanged() {
    let (firm, bob, dan) = office();
    let ada = &firm.attorney;
    let size = firm.relay.inside().log_size().unwrap();
    firm.relay
        .inside()
        .forks
        .insert("dan".to_owned(), Fork { from: size, ..Fork::default() }.and(None, made_up()).then_goes_on(0));
    // To each alone the log is in order, and it grows.
    ada.ok(&["invite", "new"]).unwrap();
    told(&dan.run(&["recv"]).unwrap(), 0, &[]);
    assert!(faults(&dan).is_empty());
    ada.ok(&["send", "Lease", "one"]).unwrap();

    // The next message that he reads says so: once, with the exit code of two histories, and the message is there.
    let read = dan.run(&["recv"]).unwrap();
    told(
        &read,
        4,
        &["one", "WARNING: a member has seen another audit log of the relay than this device", "privity audit proof"],
    );
    let found = faults(&dan);
    assert_eq!((found.len(), &found[0]["told"]["handle"]), (1, &Value::from("ada")), "{found:?}");
    let shown = dan.run(&["security", "show"]).unwrap();
    told(&shown, 0, &["Ada Byron (ada", "has seen another audit log of the relay than this device"]);
    told(&dan.run(&["status"]).unwrap(), 0, &["audit log  WARNING", "privity security show"]);
    told(&dan.run(&["recv"]).unwrap(), 0, &[]);

    // What he writes tells the others nothing of the log he was shown: that one is not to be believed. But he can still write.
    dan.ok(&["send", "Lease", "two"]).unwrap();
    told(&bob.run(&["recv"]).unwrap(), 0, &["two"]);
    assert_eq!(words(&bob), ["one", "two"]);
}

/// Whose message comes first does not matter: here the one who was deceived writes.
#[test]
fn two_histories_are_told_to_whoever_reads_the_deceived() {
    let (firm, _bob, dan) = office();
    let ada = &firm.attorney;
    let size = firm.relay.inside().log_size().unwrap();
    firm.relay
        .inside()
        .forks
        .insert("dan".to_owned(), Fork { from: size, ..Fork::default() }.and(None, made_up()).then_goes_on(0));
    ada.ok(&["invite", "new"]).unwrap();
    dan.ok(&["send", "Lease", "one"]).unwrap();
    told(&ada.run(&["recv"]).unwrap(), 4, &["one", "WARNING: ", "audit log"]);
    assert_eq!(faults(ada).len(), 1);
    assert_eq!(faults(ada)[0]["told"]["handle"], "dan");
}

#[test]
fn a_log_that_is_rolled_back_or_changed_is_told_at_the_next_contact() {
    let (firm, bob, dan) = office();
    let all = firm.relay.inside().log_size().unwrap();
    for (fork, what) in [
        (Fork::rolled_back(all - 2), "the relay's audit log has become shorter"),
        // As long as before, with another end.
        (Fork::rolled_back(all - 1).and(None, made_up()), "the relay's audit log has changed"),
        // Longer, with another middle.
        (
            Fork::rolled_back(all - 2).and(None, made_up()).then_goes_on(1).and(None, made_up()),
            "does not continue what it was",
        ),
    ] {
        firm.relay.inside().forks.insert("bob".to_owned(), fork);
        let read = bob.run(&["recv"]).unwrap();
        told(&read, 4, &[what, "privity audit proof"]);
        let found = faults(&bob);
        let last = found.last().unwrap();
        assert!(last["what"].as_str().unwrap().contains(what) && last["shown"].is_string(), "{last}");
    }
    // What it knew is what it still knows, and everything else goes on.
    assert_eq!(bob.ok(&["security", "show"]).unwrap()[0]["log"]["size"], all);
    bob.ok(&["send", "Lease", "still here"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(words(&dan), ["still here"]);
}
