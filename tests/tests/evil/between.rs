//! Between devices of one person: key packages of the relay's own, history thrown away; and what it keeps back of somebody's end.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::{Part, Reply, Request, TakenKeyPackage};
use privity_protocol::identity::{EndorsementRevocation, Identity, Issuer, Signed};
use privity_protocol::suite::Label;
use privity_server::store::Read as _;
use privity_tests::evil::{Asked, Evil};
use privity_tests::{Firm, KDF_MEMORY, Person};
use serde_json::Value;

use super::super::{Forged, alter, office, told};

/// A second device of somebody's, linked.
fn link(firm: &Firm<Evil>, person: &Person) -> Person {
    let mut child =
        person.command(&["--json", "device", "link", "--yes"]).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let begun: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let folder = format!("{}-phone", person.handle);
    let device = Person { handle: person.handle.clone(), ..Person::new(firm.folder(), &folder).unwrap() };
    device.ok(&["join", begun["url"].as_str().unwrap(), "--kdf-memory", KDF_MEMORY]).unwrap();
    assert!(lines.count() > 0 && child.wait().unwrap().code() == Some(0));
    device.ok(&["recv"]).unwrap();
    device
}

fn called(device: &Person) -> Vec<Value> {
    device.ok(&["device", "ls"]).unwrap().into_iter().map(|row| row["name"].clone()).collect()
}

/// What devices of one person tell each other is sealed to key packages that the relay hands out.
#[test]
fn a_note_is_sealed_to_nobody_elses_key_package() {
    let (firm, _bob, dan) = office();
    let phone = link(&firm, &dan);
    let id = phone.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned();
    // Those of Bob's device are handed out as the phone's.
    let bobs = {
        let inside = firm.relay.inside();
        let row = inside.store.people().unwrap().into_iter().find(|row| row.registration.handle == "bob").unwrap();
        let device = inside.store.devices_of(row.registration.person).unwrap().remove(0).device;
        inside.store.key_package(device).unwrap().unwrap().package
    };
    alter(&firm, "dan", move |request, reply| {
        if let (Request::TakeKeyPackages { device: Some(_), .. }, Reply::KeyPackages { packages }) = (request, reply) {
            for TakenKeyPackage { package, .. } in packages {
                package.0.clone_from(&bobs);
            }
        }
    });
    let renamed = dan.run(&["device", "rename", &id, "phone"]).unwrap();
    told(&renamed, 0, &["a key package is not the one expected"]);
    phone.run(&["recv"]).unwrap();
    assert!(called(&phone).iter().all(Value::is_null), "nothing of it came");
    firm.relay.repents();
    dan.ok(&["recv"]).unwrap();
    phone.ok(&["recv"]).unwrap();
    assert!(called(&phone).contains(&"phone".into()), "it goes once the relay has come to its senses");
}

/// Accepted in words alone: it never reads as there, and goes once more.
#[test]
fn history_that_was_accepted_and_thrown_away_is_not_called_whole() {
    let (firm, _bob, dan) = office();
    firm.attorney.ok(&["send", "Lease", "before"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    let phone = link(&firm, &dan);
    let between = |part: &Part| match part {
        Part::Append { envelope, .. } => matches!(envelope::unwrap(&envelope.0), Ok((Class::Between, _))),
        _ => false,
    };
    firm.relay.when_asked(move |who, request| match request {
        Request::Post(post) if who.handle == "dan" && post.parts.iter().any(between) => {
            Asked::Answer(Reply::Posted { seqs: vec![9] })
        }
        request => Asked::Do(request),
    });
    let id = phone.ok(&["status"]).unwrap()[0]["device"].as_str().unwrap().to_owned();
    told(&dan.run(&["--json", "device", "history", &id, "--yes"]).unwrap(), 0, &["\"state\":\"sent\""]);
    phone.ok(&["recv"]).unwrap();
    assert!(phone.texts("Lease").unwrap().is_empty());
    dan.ok(&["recv"]).unwrap();
    let waits = dan.ok(&["status"]).unwrap()[0]["history"].clone();
    assert_eq!(waits.as_array().unwrap().len(), 1, "it is not there: {waits}");
    firm.relay.repents();
    dan.ok(&["device", "history", &id, "--yes"]).unwrap();
    phone.ok(&["recv"]).unwrap();
    dan.ok(&["recv"]).unwrap();
    assert_eq!(phone.texts("Lease").unwrap().len(), 1);
    assert_eq!(dan.ok(&["status"]).unwrap()[0]["history"], Value::Array(Vec::new()));
}

fn ids(firm: &Firm<Evil>, handle: &str) -> (privity_protocol::ids::PersonId, privity_protocol::ids::DeviceId) {
    let inside = firm.relay.inside();
    let row = inside.store.people().unwrap().into_iter().find(|row| row.registration.handle == handle).unwrap();
    let person = row.registration.person;
    (person, inside.store.devices_of(person).unwrap().remove(0).device)
}

#[test]
fn a_withdrawal_that_nobody_made_withdraws_nobody_and_one_that_is_kept_back_is_found() {
    let (firm, bob, dan) = office();
    let ((person, _), (ada, adas)) = (ids(&firm, "bob"), ids(&firm, "ada"));
    let endorsement = {
        let row = firm.relay.inside().store.person(person).unwrap().unwrap();
        row.endorsement.unwrap().digest()
    };
    let issuer = Some(Issuer { person: ada, device: adas });
    let said = EndorsementRevocation { person, endorsement, issuer, at: privity_server::clock::now() };
    let forged = Signed::make(Label::EndorsementRevocation, &Forged::keys().mls_key, &said).unwrap();
    // With the true chain of whoever is to have said so.
    let author = {
        let inside = firm.relay.inside();
        let row = inside.store.person(ada).unwrap().unwrap();
        let certificates = inside.store.devices_of(ada).unwrap().into_iter().map(|row| row.certificate).collect();
        let (person_key, endorsement) = (row.registration.person_key, row.endorsement.unwrap());
        Identity { person: ada, person_key, certificates, endorsement, line: row.line }
    };
    // Once for each, or it is told again and again.
    let mut left = 1;
    alter(&firm, "dan", move |_, reply| {
        if let Reply::Revocations { withdrawn, identities, .. } = reply
            && left > 0
        {
            (*withdrawn, *identities) = (vec![forged.clone()], vec![author.clone()]);
            left -= 1;
        }
    });
    let read = dan.run(&["recv"]).unwrap();
    assert!(read.stderr.contains("the signature on a withdrawal does not verify"), "{read:?}");
    assert!(dan.ok(&["identity", "show", "bob"]).unwrap()[0]["withdrawn"].is_null());
    dan.ok(&["send", "Lease", "to all"]).unwrap();
    bob.ok(&["recv"]).unwrap();
    // A true one, that is kept back from him: the log has it.
    alter(&firm, "dan", |_, reply| {
        if let Reply::Revocations { withdrawn, .. } = reply {
            withdrawn.clear();
        }
    });
    firm.attorney.ok(&["identity", "revoke", "bob", "--yes"]).unwrap();
    let read = dan.run(&["recv"]).unwrap();
    told(&read, 4, &["keeps back the withdrawal of the endorsement of bob"]);
    let sent = dan.run(&["send", "Lease", "no"]).unwrap();
    assert_eq!(sent.code, Some(5), "{sent:?}");
}
