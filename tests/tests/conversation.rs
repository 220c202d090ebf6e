//! People talk through the real binaries: who reads what, in which order, before and after they come and go.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use privity_tests::{Firm, Person};

fn say(person: &Person, matter: &str, text: &str) {
    let told = person.ok(&["send", matter, text]).unwrap();
    assert_eq!(told[0]["state"], "stored");
}

fn texts(person: &Person, matter: &str) -> Vec<String> {
    person.ok(&["recv"]).unwrap();
    person.texts(matter).unwrap().into_iter().map(|(from, text)| format!("{from}: {text}")).collect()
}

#[test]
fn two_people_then_five_talk_and_all_read_the_same_in_the_same_order() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Smith v Jones", &[&bob]).unwrap();
    say(ada, "Smith v Jones", "Good morning, Bob.");
    say(&bob, "Smith v Jones", "Good morning, Ada.");
    assert_eq!(texts(ada, "Smith v Jones"), texts(&bob, "Smith v Jones"));

    let late: Vec<Person> = [("carol", "attorney"), ("dan", "staff"), ("eve", "client")]
        .map(|(handle, role)| firm.bring(handle, &format!("{handle} Doe"), role).unwrap())
        .into();
    ada.ok(&["matter", "add", "Smith v Jones", "carol", "dan", "eve"]).unwrap();
    let everyone = [&[ada.clone(), bob][..], &late].concat();
    for person in &everyone {
        say(person, "Smith v Jones", &format!("{} is here", person.handle));
    }
    let all = texts(ada, "Smith v Jones");
    assert_eq!(all.len(), 7);
    assert_eq!(texts(&everyone[1], "Smith v Jones"), all);
    for person in &late {
        assert_eq!(texts(person, "Smith v Jones"), all[2..], "{} reads what was said before", person.handle);
    }
}

#[test]
fn a_person_removed_reads_nothing_from_after_and_can_post_nothing() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let eve = firm.bring("eve", "Eve Smith", "client").unwrap();
    firm.matter("Estate", &[&bob, &eve]).unwrap();
    say(&eve, "Estate", "before");
    ada.ok(&["matter", "remove", "Estate", "eve"]).unwrap();
    say(ada, "Estate", "after");

    let refused = eve.run(&["send", "Estate", "let me in"]).unwrap();
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert_eq!(texts(&eve, "Estate"), ["eve: before"]);
    assert_eq!(texts(&bob, "Estate"), ["eve: before", "ada: after"]);
    let shown = eve.ok(&["matter", "show", "Estate"]).unwrap();
    assert_eq!(shown[0]["state"], "removed");
}

/// The Welcome was judged before the removal was read, refused, and lost: the person stayed out while everyone else saw them in.
#[test]
fn a_person_removed_and_added_again_while_away_is_in_again() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Estate", &[&bob]).unwrap();
    say(&bob, "Estate", "here");
    say(ada, "Estate", "unread");
    ada.ok(&["matter", "remove", "Estate", "bob"]).unwrap();
    ada.ok(&["matter", "add", "Estate", "bob"]).unwrap();
    say(ada, "Estate", "welcome back");
    say(&bob, "Estate", "thank you");
    let all = ["bob: here", "ada: unread", "ada: welcome back", "bob: thank you"];
    assert_eq!(texts(&bob, "Estate"), all);
    assert_eq!(texts(ada, "Estate"), all);
}

#[test]
fn somebody_not_yet_ready_is_added_as_soon_as_they_are() {
    let firm = Firm::found().unwrap();
    let staff = firm.bring("sam", "Sam Page", "staff").unwrap();
    staff.ok(&["recv"]).unwrap();
    let told = staff.ok(&["invite", "new"]).unwrap();
    let bob = Person::new(firm.folder(), "bob").unwrap();
    let joined = bob.join(told[0]["url"].as_str().unwrap(), "Bob Jones").unwrap();
    assert_eq!(joined["state"], "waiting");

    firm.matter("Lease", &[]).unwrap();
    let added = firm.attorney.run(&["--json", "matter", "add", "Lease", "bob"]).unwrap();
    assert_eq!(added.code, Some(7), "{added:?}");
    assert_eq!(added.objects().unwrap()[0]["state"], "waiting");
    staff.ok(&["people"]).unwrap();
    firm.attorney.ok(&["people"]).unwrap();
    let shown = firm.attorney.ok(&["matter", "show", "Lease"]).unwrap();
    assert_eq!(shown[0]["people"].as_array().unwrap().len(), 2, "{shown:?}");
    say(&firm.attorney, "Lease", "Welcome.");
    assert_eq!(texts(&bob, "Lease"), ["ada: Welcome."]);
}

#[test]
fn a_client_may_neither_invite_nor_open_nor_add() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    for arguments in [&["invite", "new"][..], &["matter", "new", "Mine"], &["matter", "remove", "Lease", "ada"]] {
        let refused = bob.run(arguments).unwrap();
        assert_eq!(refused.code, Some(5), "{arguments:?} {refused:?}");
        assert!(refused.stderr.lines().count() == 1, "{refused:?}");
    }
    let refused = firm.attorney.ok(&["invite", "new", "--role", "attorney"]);
    assert!(refused.is_ok(), "a registrar invites anyone");
}

#[test]
fn a_message_of_60_kb_passes_and_one_over_the_limit_is_refused_with_the_limit() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Discovery", &[&bob]).unwrap();
    let long = "§ ".repeat(20_000);
    say(&firm.attorney, "Discovery", &long);
    assert_eq!(texts(&bob, "Discovery"), [format!("ada: {long}")]);

    let path = firm.folder().join("long");
    std::fs::write(&path, "x".repeat(300_000)).unwrap();
    let mut command = bob.command(&["send", "Discovery", "-"]).unwrap();
    command.stdin(std::fs::File::open(&path).unwrap());
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("262144") || said.contains("256 KiB"), "{said}");
}

#[test]
fn recv_prints_each_message_once_and_resumes_from_a_cursor() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    for text in ["one", "two", "three"] {
        say(&firm.attorney, "Lease", text);
    }
    let count = |records: &[serde_json::Value]| records.iter().filter(|record| record["type"] == "text").count();
    let first = bob.ok(&["recv"]).unwrap();
    assert_eq!(count(&first), 3);
    assert_eq!(count(&bob.ok(&["recv"]).unwrap()), 0);
    let cursor = first.iter().find(|record| record["body"]["text"] == "one").unwrap()["cursor"].to_string();
    assert_eq!(count(&bob.ok(&["recv", "--after", &cursor]).unwrap()), 2);
}

#[test]
fn the_same_id_is_never_sent_twice() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let id = "abcdefghijklmnopqrstuvwxya";
    let one = firm.attorney.ok(&["send", "Lease", "once", "--id", id]).unwrap();
    let two = firm.attorney.ok(&["send", "Lease", "once", "--id", id]).unwrap();
    assert_eq!(one, two);
    assert_eq!(texts(&bob, "Lease"), ["ada: once"]);
}

#[test]
fn without_a_relay_a_message_is_kept_and_goes_out_once_at_the_next_contact() {
    let mut firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    firm.relay.kill();
    let kept = firm.attorney.run(&["--json", "--timeout", "1", "send", "Lease", "later"]).unwrap();
    assert_eq!(kept.code, Some(3), "{kept:?}");
    assert_eq!(kept.objects().unwrap()[0]["state"], "queued");
    let pending = firm.attorney.ok(&["read", "Lease", "--pending"]).unwrap();
    assert_eq!(pending[0]["body"]["text"], "later");
    firm.relay.run().unwrap();
    firm.attorney.ok(&["recv", "--timeout", "1"]).unwrap();
    assert_eq!(texts(&bob, "Lease"), ["ada: later"]);
    assert!(firm.attorney.ok(&["read", "Lease", "--pending"]).unwrap().is_empty());
}
