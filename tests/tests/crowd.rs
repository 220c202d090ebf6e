//! Many at once, and somebody away: what everybody reads in the end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use privity_tests::{Firm, Person};

fn texts(person: &Person, matter: &str) -> Vec<String> {
    person.ok(&["recv", "--timeout", "1"]).unwrap();
    person.texts(matter).unwrap().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_member_who_was_away_while_people_came_and_went_reads_it_all_and_talks() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let [bob, dan, eve] = ["bob", "dan", "eve"].map(|handle| firm.bring(handle, handle, "client").unwrap());
    firm.matter("Lease", &[&bob, &dan, &eve]).unwrap();
    for person in [&bob, &dan, &eve] {
        person.ok(&["recv"]).unwrap();
    }
    // Dan is away from here on.
    let carol = firm.bring("carol", "Carol", "staff").unwrap();
    ada.ok(&["matter", "add", "Lease", "carol"]).unwrap();
    carol.ok(&["send", "Lease", "carol came"]).unwrap();
    ada.ok(&["matter", "remove", "Lease", "eve"]).unwrap();
    bob.ok(&["send", "Lease", "eve went"]).unwrap();
    carol.ok(&["matter", "remove", "Lease", "bob"]).unwrap();
    ada.ok(&["send", "Lease", "bob went"]).unwrap();
    carol.ok(&["matter", "add", "Lease", "bob"]).unwrap();
    bob.ok(&["send", "Lease", "bob is back"]).unwrap();

    assert_eq!(dan.ok(&["send", "Lease", "dan is back"]).unwrap()[0]["state"], "stored");
    let all = ["carol came", "eve went", "bob went", "bob is back", "dan is back"];
    assert_eq!(texts(&dan, "Lease"), all);
    for person in [ada, &carol] {
        assert_eq!(texts(person, "Lease"), all, "{}", person.handle);
    }
    assert_eq!(texts(&bob, "Lease"), ["carol came", "eve went", "bob is back", "dan is back"]);
    for person in [ada, &bob, &carol, &dan] {
        let shown = person.ok(&["matter", "show", "Lease"]).unwrap();
        assert_eq!((shown[0]["state"].as_str(), shown[0]["people"].as_array().map(Vec::len)), (Some("open"), Some(4)));
        let odd = ["void", "out_of_step", "dispute", "gap"];
        let records = person.ok(&["read", "Lease"]).unwrap();
        assert!(!records.iter().any(|record| odd.iter().any(|kind| record["type"] == *kind)), "{records:?}");
    }
}

#[test]
fn twenty_sends_at_once_all_arrive_once_and_in_one_order() {
    let firm = Firm::found().unwrap();
    let others = ["bob", "carol", "dan", "eve"].map(|handle| firm.bring(handle, handle, "client").unwrap());
    let matters = ["Lease", "Estate"];
    for matter in matters {
        firm.matter(matter, &others.iter().collect::<Vec<_>>()).unwrap();
    }
    let everyone: Vec<&Person> = [&firm.attorney].into_iter().chain(&others).collect();
    for person in &others {
        person.ok(&["recv"]).unwrap();
    }
    std::thread::scope(|scope| {
        for (person, matter) in everyone.iter().flat_map(|person| matters.map(|matter| (person, matter))) {
            for number in 0..2 {
                scope.spawn(move || {
                    let text = format!("{matter} {} {number}", person.handle);
                    // One command at a time uses a profile; one that waited too long for its turn has sent nothing.
                    let sent = |_| match person.run(&["send", matter, &text]).unwrap() {
                        ran if ran.code == Some(2) => None,
                        ran => Some(ran),
                    };
                    let ran = (0..10).find_map(sent).unwrap();
                    assert_eq!(ran.code, Some(0), "{text}: {ran:?}");
                });
            }
        }
    });
    for matter in matters {
        let read = texts(everyone[0], matter);
        let unique: BTreeSet<&String> = read.iter().collect();
        assert_eq!((read.len(), unique.len()), (10, 10), "{read:?}");
        assert!(read.iter().all(|text| text.starts_with(matter)), "{read:?}");
        for person in &others {
            assert_eq!(texts(person, matter), read, "{} reads another order", person.handle);
        }
    }
}
