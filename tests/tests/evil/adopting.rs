//! Where somebody is taken in while their inviter is away: in another role, under another handle, with keys of the relay's own.

use privity_protocol::frame::{AdoptionView, Reply};
use privity_protocol::identity::{Role, Signed};
use privity_protocol::invite::InviteStatement;
use privity_protocol::suite::Label;
use privity_tests::{Firm, KDF_MEMORY, Person};

use super::super::{Forged, alter, told};

/// What the relay makes of what it shows of a newcomer.
type Shown = fn(&mut AdoptionView);

#[test]
fn a_newcomer_in_another_role_or_with_other_keys_is_not_taken_in_and_the_relay_is_named() {
    let firm = Firm::under().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "attorney").unwrap();
    let made = bob.ok(&["invite", "new", "--role", "client", "--handle", "zoe"]).unwrap();
    let zoe = Person::new(firm.folder(), "zoe").unwrap();
    let url = made[0]["url"].as_str().unwrap();
    zoe.ok(&["join", url, "--handle", "zoe", "--name", "Zoe", "--kdf-memory", KDF_MEMORY]).unwrap();
    let digits = zoe.ok(&["status"]).unwrap()[0]["firm_number"].as_str().unwrap().to_owned();
    let adopt = || firm.attorney.run(&["identity", "adopt", "zoe", "--number", &digits, "--name", "Zoe Doe"]).unwrap();
    let inviter = "than whoever invited them has signed";
    let deeds: [(Shown, &str); 6] = [
        (|view| view.registration.role = Role::Attorney, inviter),
        (|view| view.registration.handle = "zoey".to_owned(), inviter),
        // The statement with another role in it, under the signature that it had, or one of the relay's own.
        (
            |view| {
                let mut said: InviteStatement = view.statement.unverified("invite").unwrap();
                (said.role, view.registration.role) = (Role::Attorney, Role::Attorney);
                view.statement.body = privity_protocol::cbor::encode(&said);
            },
            inviter,
        ),
        (
            |view| {
                let mut said: InviteStatement = view.statement.unverified("invite").unwrap();
                (said.role, view.registration.role) = (Role::Attorney, Role::Attorney);
                view.statement = Signed::make(Label::Invite, &Forged::keys().mls_key, &said).unwrap();
            },
            inviter,
        ),
        // The inviter's chain, with a device of the relay's own that has signed it.
        (
            |view| {
                let forged = Forged::keys();
                let mut said: InviteStatement = view.statement.unverified("invite").unwrap();
                (said.role, view.registration.role) = (Role::Attorney, Role::Attorney);
                view.statement = Signed::make(Label::Invite, &forged.mls_key, &said).unwrap();
                view.chain[0].certificates = vec![forged.certificate(&view.chain[0].certificates[0])];
                view.chain[0].person_key = forged.person_key.public().unwrap();
            },
            inviter,
        ),
        // Keys of the relay's own in the newcomer's place: the digits differ.
        (
            |view| {
                let forged = Forged::keys();
                view.registration.certificate = forged.certificate(&view.registration.certificate);
                view.registration.person_key = forged.person_key.public().unwrap();
            },
            "the relay shows another key, handle or role",
        ),
    ];
    for (number, (deed, part)) in deeds.into_iter().enumerate() {
        alter(&firm, "ada", move |_, reply| {
            if let Reply::Adoption(view) = reply {
                deed(view);
            }
        });
        told(&adopt(), 4, &[part, "Nothing was done"]);
        assert_eq!(zoe.ok(&["status"]).unwrap()[0]["state"], "waiting", "deed {number}");
        let inside = firm.relay.inside();
        let zoes = privity_server::store::Read::people(&inside.store).unwrap();
        let zoes = zoes.into_iter().find(|row| row.registration.handle == "zoe").unwrap();
        assert!(zoes.endorsement.is_none(), "deed {number}: something was endorsed");
    }
    // What was found out about the relay is kept.
    told(&firm.attorney.run(&["security", "show"]).unwrap(), 0, &["of a newcomer who is to be taken in"]);
    firm.relay.repents();
    let adopted = adopt();
    told(&adopted, 0, &["Bob Jones (bob", "has invited zoe as a client"]);
    assert_eq!(zoe.ok(&["status"]).unwrap()[0]["state"], "ready");
}
