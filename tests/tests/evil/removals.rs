//! Removals and revocations: claimed by the relay alone, or withheld.

use privity_protocol::error::Refused;
use privity_protocol::frame::{Event, FromRelay, Reply, Request};
use privity_protocol::identity::{DeviceRevocation, Signed};
use privity_protocol::suite::Label;
use privity_server::store::Read as _;
use privity_tests::evil::Asked;
use privity_tests::{Firm, Person};

use super::super::{Forged, alter, office, told, words};

fn row(who: &Person) -> serde_json::Value {
    who.ok(&["matter", "show", "Lease"]).unwrap().remove(0)
}

#[test]
fn a_removal_that_only_the_relay_claims_removes_nobody() {
    let (firm, bob, dan) = office();
    // It ends his reading.
    firm.relay.when_told(|who, _, frame| match &frame {
        FromRelay::Event(Event::Entries { mailbox, entries })
            if who.handle == "bob" && entries.iter().any(|entry| !entry.fence) =>
        {
            vec![FromRelay::Event(Event::Ended { mailbox: *mailbox })]
        }
        _ => vec![frame],
    });
    firm.attorney.ok(&["send", "Lease", "one"]).unwrap();
    let read = bob.run(&["recv", "--timeout", "3"]).unwrap();
    told(&read, 3, &["the relay's claim that this device was removed does not match what was said before"]);
    assert_eq!(row(&bob)["state"], "open");
    // It knows of no such mailbox.
    alter(&firm, "bob", |request, reply| {
        if matches!(request, Request::Subscribe { .. }) {
            *reply = Reply::Refused(Refused::not_found("that mailbox"));
        }
    });
    let read = bob.run(&["recv", "--timeout", "3"]).unwrap();
    assert!(read.stderr.contains("the relay says that it does not know one of your matters"), "{read:?}");
    assert_eq!(row(&bob)["state"], "open");
    firm.relay.repents();
    bob.ok(&["recv"]).unwrap();
    assert_eq!(words(&bob), ["one"]);
    bob.ok(&["send", "Lease", "still here"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(words(&dan), ["one", "still here"]);
}

/// The relay takes the removal, and shows it to nobody else: it reads requested for as long as that lasts, everywhere.
#[test]
fn a_removal_that_is_withheld_from_the_others_reads_requested() {
    let (firm, bob, dan) = office();
    let ada = &firm.attorney;
    firm.relay.when_told(|who, _, frame| match &frame {
        FromRelay::Event(Event::Entries { .. }) if who.handle != "ada" => Vec::new(),
        _ => vec![frame],
    });
    let removed = ada.ok(&["matter", "remove", "Lease", "bob"]).unwrap();
    assert_eq!(removed[0]["state"], "requested", "{removed:?}");
    for _ in 0..2 {
        ada.ok(&["recv"]).unwrap();
        assert_eq!(row(ada)["requested"].as_array().unwrap().len(), 1);
        assert_eq!(ada.ok(&["matter", "ls"]).unwrap()[0]["requested"], 1);
        told(&ada.run(&["matter", "show", "Lease"]).unwrap(), 0, &["requested"]);
    }
    // What she writes does not confirm it; nor can the relay in anybody's name.
    ada.ok(&["send", "Lease", "one"]).unwrap();
    assert_eq!(row(ada)["requested"].as_array().unwrap().len(), 1);
    // Somebody else's word does.
    firm.relay.repents();
    dan.ok(&["recv"]).unwrap();
    dan.ok(&["send", "Lease", "two"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    assert!(row(ada)["requested"].as_array().unwrap().is_empty());
    bob.run(&["recv"]).unwrap();
    assert_eq!(row(&bob)["state"], "removed");
    assert!(words(&bob).is_empty());
}

/// Accepted in words alone: it never reads as done.
#[test]
fn a_removal_that_was_accepted_and_thrown_away_is_never_done() {
    let (firm, bob, dan) = office();
    let ada = &firm.attorney;
    firm.relay.when_asked(|who, request| match request {
        Request::Post(_) if who.handle == "ada" => Asked::Answer(Reply::Posted { seqs: vec![4] }),
        request => Asked::Do(request),
    });
    let removed = ada.run(&["--json", "matter", "remove", "Lease", "bob", "--timeout", "3"]).unwrap();
    assert!(removed.code == Some(3) && removed.stdout.is_empty(), "it is not called anything: {removed:?}");
    firm.relay.repents();
    bob.ok(&["send", "Lease", "I am in"]).unwrap();
    for who in [ada, &dan] {
        who.run(&["recv"]).unwrap();
    }
    // It is tried again until the mailbox has it.
    let shown = row(ada);
    assert!(shown["people"].as_array().unwrap().iter().all(|person| person["handle"] != "bob"), "{shown}");
    assert_eq!(shown["requested"].as_array().unwrap().len(), 1, "not out on the relay's word: {shown}");
    dan.ok(&["send", "Lease", "without him"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    assert!(row(ada)["requested"].as_array().unwrap().is_empty());
    bob.run(&["recv"]).unwrap();
    assert_eq!(row(&bob)["state"], "removed");
    assert_eq!((words(&bob), words(ada)), (vec!["I am in".to_owned()], vec!["I am in".into(), "without him".into()]));
}

#[test]
fn a_revocation_that_nobody_made_revokes_nothing() {
    let (firm, bob, dan) = office();
    let (person, device) = {
        let inside = firm.relay.inside();
        let row = inside.store.people().unwrap().into_iter().find(|row| row.registration.handle == "bob").unwrap();
        let person = row.registration.person;
        (person, inside.store.devices_of(person).unwrap().remove(0).device)
    };
    let said = DeviceRevocation { person, device, issuer: None, at: privity_server::clock::now() };
    let forged = Signed::make(Label::DeviceRevocation, &Forged::keys().person_key, &said).unwrap();
    for handle in ["ada", "dan"] {
        let forged = forged.clone();
        alter(&firm, handle, move |_, reply| {
            if let Reply::Revocations { revocations, .. } = reply {
                *revocations = vec![forged.clone()];
            }
        });
        let who = if handle == "ada" { &firm.attorney } else { &dan };
        let listed = who.run(&["--json", "device", "ls", "--of", "bob"]).unwrap();
        told(&listed, 0, &["\"state\":\"linked\"", "nobody whom the organisation endorses vouches for this person"]);
        assert!(!listed.stdout.contains("revoked"), "{listed:?}");
    }
    firm.relay.repents();
    bob.ok(&["send", "Lease", "one"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(words(&dan), ["one"]);
    // Told at the door that he is revoked, he keeps everything, and comes back when the relay lets him.
    firm.relay.when_told(|who, _, frame| {
        if who.handle == "bob" {
            return vec![FromRelay::Refused(privity_server::relay::admission::revoked())];
        }
        vec![frame]
    });
    told(&bob.run(&["recv"]).unwrap(), 5, &["the relay refuses this device: it was revoked"]);
    firm.relay.repents();
    bob.ok(&["recv"]).unwrap();
    assert_eq!(words(&bob), ["one"]);
}

/// The relay does as it is told, and keeps it from one of them: its log has what it does not say.
#[test]
fn a_revocation_that_is_kept_back_from_one_is_found_in_the_log() {
    let (firm, bob, dan) = office();
    let device = bob.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned();
    alter(&firm, "dan", |_, reply| {
        if let Reply::Revocations { revocations, .. } = reply {
            revocations.clear();
        }
    });
    // Nor does it take her Commits, by which he would see that she has put him out.
    firm.relay.when_asked(|who, request| match request {
        Request::Post(_) if who.handle == "ada" => Asked::Nothing,
        request => Asked::Do(request),
    });
    let revoke = ["device", "revoke", &device, "--of", "bob", "--stolen", "--yes", "--timeout", "5"];
    let revoked = firm.attorney.run(&revoke).unwrap();
    assert!(matches!(revoked.code, Some(3 | 7)), "not done, and not called so: {revoked:?}");
    told(&dan.run(&["recv", "--timeout", "5"]).unwrap(), 4, &["keeps back the revocation of a device of bob"]);
    told(&dan.run(&["send", "Lease", "no"]).unwrap(), 5, &["nothing was sent"]);
    told(&dan.run(&["security", "show"]).unwrap(), 0, &["keeps back the revocation of a device of bob"]);
    assert!(words(&firm.attorney).is_empty());
}

/// What holds where a revocation is withheld: see docs/security.md.
#[test]
fn a_withheld_revocation_is_still_a_removal_wherever_its_author_is() {
    let firm = Firm::under().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let dan = firm.bring("dan", "Dan Doe", "client").unwrap();
    firm.matter("Lease", &[&bob, &dan]).unwrap();
    bob.ok(&["recv"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    let device = bob.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned();
    // The relay tells nobody of it, and serves the device as before.
    firm.relay.when_asked(|_, request| match request {
        Request::RevokeDevice { .. } => Asked::Answer(Reply::Done),
        request => Asked::Do(request),
    });
    let revoked =
        firm.attorney.run(&["--json", "device", "revoke", &device, "--of", "bob", "--stolen", "--yes"]).unwrap();
    assert!(matches!(revoked.code, Some(0 | 7)), "{revoked:?}");
    firm.relay.repents();
    // Her Commit shuts it out of what follows nevertheless.
    firm.attorney.run(&["recv"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    dan.ok(&["send", "Lease", "without it"]).unwrap();
    bob.run(&["recv"]).unwrap();
    assert!(!words(&bob).contains(&"without it".to_owned()), "{:?}", words(&bob));
}
