//! At first contact: keys that the relay puts in the newcomer's place, or in the firm's.

use privity_protocol::cbor;
use privity_protocol::frame::{FromRelay, InviteView, Registration, Reply, Request};
use privity_protocol::identity::{DeviceCertificate, Role, Signed};
use privity_protocol::ids::PersonId;
use privity_protocol::invite::InviteStatement;
use privity_protocol::suite::{Label, SecretKey};
use privity_tests::evil::Asked;
use privity_tests::{Firm, KDF_MEMORY, Person};

use super::super::{Forged, told};

/// What the relay makes of what an invite says.
type Shown = fn(&mut InviteView);

/// What the inviter reads, word for word.
const SWAPPED: &str = "privity: WARNING: bob was not let in: the keys under that handle are not those of whoever read your invite. The relay has \
put others in their place, or somebody who has taken it over. Ask whom you invited, by another way, and tell your firm's IT\n";

#[test]
fn keys_swapped_at_registration_are_named_to_the_inviter_with_nothing_compared() {
    let swaps: [fn(&mut Registration); 3] = [
        // Other keys, and so another id: it follows from them.
        |registration| {
            let forged = Forged::keys();
            registration.person = PersonId::of(&forged.person_key.public().unwrap());
            let mut said: DeviceCertificate = registration.certificate.unverified("c").unwrap();
            said.person = registration.person;
            let label = Label::DeviceCertificate;
            registration.certificate = Signed::make(label, &forged.person_key, &said).unwrap();
            registration.person_key = forged.person_key.public().unwrap();
        },
        // Somebody else's handle is worth as much as their key.
        |registration| registration.handle = "bob".to_owned(),
        // A proof of the relay's own.
        |registration| registration.proof = SecretKey::generate().public().unwrap().digest(),
    ];
    for (number, swap) in swaps.into_iter().enumerate() {
        let firm = Firm::under().unwrap();
        let ada = &firm.attorney;
        let url = ada.ok(&["invite", "new"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
        firm.relay.when_asked(move |_, mut request| {
            if let Request::Register(registration) = &mut request {
                swap(registration);
            }
            Asked::Do(request)
        });
        let handle = if number == 1 { "robert" } else { "bob" };
        let bob = Person::new(firm.folder(), handle).unwrap();
        let joined = bob.run(&["join", &url, "--handle", handle, "--name", "Bob", "--kdf-memory", KDF_MEMORY]).unwrap();
        assert_eq!(joined.code, Some(0), "swap {number}: the newcomer alone can't tell: {joined:?}");

        // Whatever she does next says so, and the one that is asked who is here ends with it.
        let people = ada.run(&["people"]).unwrap();
        assert_eq!(people.code, Some(4), "swap {number}: {people:?}");
        assert!(people.stderr.contains(SWAPPED), "swap {number}: {people:?}");
        firm.matter("Lease", &[]).unwrap();
        let added = ada.run(&["matter", "add", "Lease", "bob"]).unwrap();
        told(&added, 7, &[SWAPPED]);
        assert_eq!(ada.ok(&["matter", "ls"]).unwrap()[0]["people"], 1, "nobody was let in");
        let status = bob.run(&["--json", "status"]).unwrap();
        assert!(!status.stdout.contains("\"ready\""), "swap {number}: {status:?}");
    }
}

#[test]
fn whoever_is_shown_another_firm_or_inviter_joins_nothing() {
    let firm = Firm::under().unwrap();
    let ada = &firm.attorney;
    let url = ada.ok(&["invite", "new"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
    let bob = Person::new(firm.folder(), "bob").unwrap();
    let join = || bob.run(&["join", &url, "--handle", "bob", "--name", "Bob", "--kdf-memory", KDF_MEMORY]).unwrap();

    firm.relay.when_greeted(|_, mut body| {
        body.organisation = Some(SecretKey::generate().public().unwrap());
        body
    });
    told(&join(), 4, &["the organisation's key is not the one expected; nothing was accepted"]);
    firm.relay.repents();

    let deeds: [(Shown, &str); 3] = [
        (|view| view.statement = None, "the invite does not match what was said before"),
        // The inviter's chain with the relay's own keys in it.
        (
            |view| {
                let forged = Forged::keys();
                view.chain[0].certificates = vec![forged.certificate(&view.chain[0].certificates[0])];
                view.chain[0].person_key = forged.person_key.public().unwrap();
            },
            "does not match what was said before",
        ),
        // A greater role than the inviter gave.
        (
            |view| {
                let statement = view.statement.as_mut().unwrap();
                let mut said: InviteStatement = statement.unverified("invite").unwrap();
                said.role = Role::Attorney;
                statement.body = cbor::encode(&said);
            },
            "the signature on invite does not verify",
        ),
    ];
    for (deed, part) in deeds {
        firm.relay.when_told(move |_, _, mut frame| {
            if let FromRelay::Reply { reply: Reply::Invite(view), .. } = &mut frame {
                deed(view);
            }
            vec![frame]
        });
        told(&join(), 4, &[part, "nothing was accepted"]);
        assert!(!bob.home.join("vault.db").exists());
    }
    firm.relay.repents();
    assert_eq!(join().code, Some(0), "and then as ever");
    told(&ada.run(&["people"]).unwrap(), 0, &["bob has joined"]);
}

/// The relay's word that somebody is endorsed is worth nothing: who vouches for them is what counts.
#[test]
fn an_endorsement_that_nobody_gave_is_none() {
    let firm = Firm::under().unwrap();
    let url =
        firm.attorney.ok(&["invite", "new", "--role", "attorney"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
    let eve = Person::new(firm.folder(), "eve").unwrap();
    eve.join(&url, "Eve").unwrap();
    firm.relay.when_greeted(|_, mut body| {
        body.ready = true;
        body
    });
    told(&eve.run(&["identity", "show"]).unwrap(), 0, &["nobody has vouched for it yet"]);
    told(&eve.run(&["matter", "new", "Lease"]).unwrap(), 5, &["nobody has endorsed you yet"]);
}
