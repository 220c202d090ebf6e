//! A relay that names keys which do not take the place of its own.

use privity_protocol::ids::Timestamp;
use privity_protocol::rotation::RelayRotation;
use privity_protocol::suite::SecretKey;
use privity_tests::evil::Evil;
use privity_tests::{Firm, Person};

/// A statement by another key than the one that is pinned is for nobody: neither for who is here nor for who is about to join.
#[test]
fn a_key_for_which_the_pinned_one_has_not_signed_is_never_pinned() {
    let firm = Firm::<Evil>::under().unwrap();
    let ada = firm.attorney.clone();
    let invite = ada.ok(&["invite", "new", "--role", "client"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
    let key_of = |person: &Person| person.ok(&["security", "show"]).unwrap()[0]["relay"].clone();
    let before = key_of(&ada);
    firm.relay.when_greeted(|_, mut body| {
        let (thief, next) = (SecretKey::generate(), SecretKey::generate());
        body.rotations = vec![RelayRotation::sign(&thief, &next.public().unwrap(), Timestamp(1)).unwrap()];
        body
    });
    let told = ada.run(&["recv"]).unwrap();
    assert_eq!(told.code, Some(4), "{told:?}");
    assert!(told.stderr.contains("new key"), "{told:?}");
    assert_eq!(key_of(&ada), before);
    let bob = Person::new(firm.folder(), "bob").unwrap();
    let told = bob.run(&["join", &invite, "--handle", "bob", "--name", "Bob", "--kdf-memory", "64"]).unwrap();
    assert_eq!(told.code, Some(4), "{told:?}");
    assert_eq!(bob.run(&["status"]).unwrap().code, Some(1), "nothing is left of it");
    firm.relay.repents();
    assert_eq!(ada.run(&["recv"]).unwrap().code, Some(0));
    bob.join(&invite, "Bob Jones").unwrap();
    assert_eq!((key_of(&ada), key_of(&bob)), (before.clone(), before));
}
