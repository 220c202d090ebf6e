//! Invites, registration and endorsement, with real keys and signatures.

use privity_protocol::cbor;
use privity_protocol::frame::{Blob, Founding, Request};
use privity_protocol::identity::Issuer;
use privity_protocol::ids::{DeviceId, PersonId};
use privity_protocol::invite::InviteSecret;
use privity_protocol::log::Leaf;

use super::super::world::{Human, World};
use super::*;
use crate::relay::From;
use crate::store::LogRow;

/// A founded relay: its registrar.
fn founded() -> (World, Human) {
    let mut world = World::new();
    let ada = Human::new("ada");
    let secret = InviteSecret::random();
    world.write(&first_invite(secret.token_hash(), secret.id(), world.now));
    let registration = founding_registration(&ada, &secret);
    assert_eq!(world.newcomer(&ada, &Request::Register(Box::new(registration))).unwrap(), Reply::Done);
    (world, ada)
}

fn founding_registration(human: &Human, secret: &InviteSecret) -> Registration {
    let key = suite::SecretKey::generate();
    let said = human.endorsement_by(None, Role::Attorney);
    let endorsement = Signed::make(Label::Endorsement, &key, &said).unwrap();
    let organisation = Some(Founding { key: key.public().unwrap(), endorsement });
    Registration { organisation, ..human.registration(secret.id(), secret.token(), Role::Attorney) }
}

fn statement(world: &World, by: &Human, secret: &InviteSecret, role: Role) -> InviteStatement {
    let expires = world.now.plus_ms(limits::INVITE_LIFETIME_MS);
    InviteStatement {
        invite: secret.id(),
        issuer: by.issuer(),
        role,
        handle: None,
        name: None,
        expires,
        links: None,
        replaces: None,
    }
}

fn filing(by: &Human, secret: &InviteSecret, statement: &InviteStatement) -> Request {
    let statement = Signed::make(Label::Invite, &by.mls_key, statement).unwrap();
    Request::Invite(NewInvite { token_hash: secret.token_hash(), statement, name: Some(Blob(vec![1; 40])) })
}

fn invite(world: &mut World, by: &Human, role: Role) -> InviteSecret {
    let secret = InviteSecret::random();
    let statement = statement(world, by, &secret, role);
    world.ask(by.caller, &filing(by, &secret, &statement)).unwrap();
    secret
}

fn register(world: &mut World, human: &Human, secret: &InviteSecret, role: Role) -> Result<Reply, Refused> {
    let registration = human.registration(secret.id(), secret.token(), role);
    world.newcomer(human, &Request::Register(Box::new(registration)))
}

fn endorse(world: &mut World, by: &Human, whom: &Human, said: &Endorsement) -> Result<Reply, Refused> {
    let endorsement = Signed::make(Label::Endorsement, &by.mls_key, said).unwrap();
    world.ask(by.caller, &Request::Endorse { person: whom.caller.person, endorsement })
}

/// Somebody invited and endorsed by `by`.
fn joined(world: &mut World, by: &Human, handle: &str, role: Role) -> Human {
    let human = Human::new(handle);
    let secret = invite(world, by, role);
    register(world, &human, &secret, role).unwrap();
    endorse(world, by, &human, &human.endorsement_by(Some(by.issuer()), role)).unwrap();
    human
}

fn is_invite(refused: &Refused) -> bool {
    matches!(refused, Refused::Invite { .. })
}

#[test]
fn the_first_invite_founds_the_organisation_once() {
    let (mut world, ada) = founded();
    assert!(world.store.person(ada.caller.person).unwrap().unwrap().registrar);
    let (eve, secret) = (Human::new("eve"), InviteSecret::random());
    world.write(&first_invite(secret.token_hash(), secret.id(), world.now));
    let registration = founding_registration(&eve, &secret);
    assert!(is_invite(&world.newcomer(&eve, &Request::Register(Box::new(registration))).unwrap_err()));
    let plain = eve.registration(secret.id(), secret.token(), Role::Attorney);
    world.newcomer(&eve, &Request::Register(Box::new(plain))).unwrap_err();
}

#[test]
fn an_organisation_endorses_exactly_who_registers() {
    let (mut world, secret) = (World::new(), InviteSecret::random());
    world.write(&first_invite(secret.token_hash(), secret.id(), world.now));
    let (ada, eve) = (Human::new("ada"), Human::new("eve"));
    let mut registration = founding_registration(&ada, &secret);
    registration.organisation = founding_registration(&eve, &secret).organisation;
    world.newcomer(&ada, &Request::Register(Box::new(registration))).unwrap_err();
    let good = ada.endorsement_by(None, Role::Attorney);
    let wrong = [
        Endorsement { person_key: Digest::of(&[b"other"]), ..good.clone() },
        Endorsement { handle: "b0b".to_owned(), ..good.clone() },
        Endorsement { role: Role::Staff, ..good.clone() },
        Endorsement { registrar: false, ..good.clone() },
        Endorsement { issuer: Some(ada.issuer()), ..good },
    ];
    for said in wrong {
        let key = suite::SecretKey::generate();
        let endorsement = Signed::make(Label::Endorsement, &key, &said).unwrap();
        let mut registration = founding_registration(&ada, &secret);
        registration.organisation = Some(Founding { key: key.public().unwrap(), endorsement });
        world.newcomer(&ada, &Request::Register(Box::new(registration))).unwrap_err();
    }
    let mut registration = founding_registration(&ada, &secret);
    registration.role = Role::Client;
    assert!(is_invite(&world.newcomer(&ada, &Request::Register(Box::new(registration))).unwrap_err()));
    assert!(world.store.organisation().unwrap().is_none());
}

#[test]
fn an_invite_makes_one_person_and_repeats_only_for_the_same() {
    let (mut world, ada) = founded();
    let secret = invite(&mut world, &ada, Role::Client);
    let (bob, eve) = (Human::new("bob"), Human::new("eve"));
    let registration = Box::new(bob.registration(secret.id(), secret.token(), Role::Client));
    let outcome = world.handle(&From::Newcomer(bob.link_key()), &Request::Register(registration.clone())).unwrap();
    let told = Wake::Person { person: ada.caller.person, event: Event::Newcomer };
    assert_eq!(outcome.wakes, [told]);
    assert_eq!(world.newcomer(&bob, &Request::Register(registration)).unwrap(), Reply::Done);
    assert!(is_invite(&register(&mut world, &eve, &secret, Role::Client).unwrap_err()));
    let mut other = bob.registration(secret.id(), secret.token(), Role::Client);
    other.name = vec![2];
    assert!(is_invite(&world.newcomer(&bob, &Request::Register(Box::new(other))).unwrap_err()));
}

#[test]
fn no_stored_row_contains_the_token() {
    let mut world = World::new();
    let (ada, bob) = (Human::new("ada"), Human::new("bob"));
    let first = InviteSecret::random();
    world.write(&first_invite(first.token_hash(), first.id(), world.now));
    let founding = founding_registration(&ada, &first);
    world.newcomer(&ada, &Request::Register(Box::new(founding))).unwrap();
    let second = invite(&mut world, &ada, Role::Client);
    register(&mut world, &bob, &second, Role::Client).unwrap();
    for (human, secret) in [(&ada, &first), (&bob, &second)] {
        let (person, device) = (human.caller.person, human.caller.device);
        let rows = [
            cbor::encode(&world.store.person(person).unwrap().unwrap()),
            cbor::encode(&world.store.device(device).unwrap().unwrap()),
            cbor::encode(&world.store.invite(secret.id()).unwrap().unwrap()),
        ];
        assert!(rows.iter().all(|row| !row.windows(32).any(|bytes| bytes == secret.token())));
    }
}

#[test]
fn a_used_invite_opens_for_nobody() {
    let (mut world, ada) = founded();
    let secret = invite(&mut world, &ada, Role::Client);
    let (bob, eve) = (Human::new("bob"), Human::new("eve"));
    let registration = Box::new(bob.registration(secret.id(), secret.token(), Role::Client));
    world.newcomer(&bob, &Request::Register(registration.clone())).unwrap();
    for human in [&bob, &eve] {
        let open = Request::OpenInvite { invite: secret.id(), token: secret.token() };
        let Refused::Invite { what } = world.newcomer(human, &open).unwrap_err() else { panic!("another refusal") };
        assert!(what.contains("used"), "{what}");
    }
    assert_eq!(world.newcomer(&bob, &Request::Register(registration)).unwrap(), Reply::Done);
}

#[test]
fn expired_unknown_and_unproved_invites_are_refused() {
    let (mut world, ada) = founded();
    let secret = invite(&mut world, &ada, Role::Client);
    let bob = Human::new("bob");
    let open = |token| Request::OpenInvite { invite: secret.id(), token };
    assert!(matches!(world.newcomer(&bob, &open(secret.token())).unwrap(), Reply::Invite(_)));
    assert!(is_invite(&world.newcomer(&bob, &open([9; 32])).unwrap_err()));
    let mut wrong = bob.registration(secret.id(), [9; 32], Role::Client);
    assert!(is_invite(&world.newcomer(&bob, &Request::Register(Box::new(wrong.clone()))).unwrap_err()));
    wrong.invite = InviteSecret::random().id();
    assert!(is_invite(&world.newcomer(&bob, &Request::Register(Box::new(wrong))).unwrap_err()));
    world.now = world.now.plus_ms(limits::INVITE_LIFETIME_MS);
    assert!(is_invite(&world.newcomer(&bob, &open(secret.token())).unwrap_err()));
    assert!(is_invite(&register(&mut world, &bob, &secret, Role::Client).unwrap_err()));
}

#[test]
fn an_invite_holds_for_its_role_and_handle_alone() {
    let (mut world, ada) = founded();
    let secret = InviteSecret::random();
    let mut said = statement(&world, &ada, &secret, Role::Client);
    said.handle = Some("bob".to_owned());
    world.ask(ada.caller, &filing(&ada, &secret, &said)).unwrap();
    assert!(is_invite(&register(&mut world, &Human::new("bob"), &secret, Role::Attorney).unwrap_err()));
    assert!(is_invite(&register(&mut world, &Human::new("bill"), &secret, Role::Client).unwrap_err()));
    register(&mut world, &Human::new("bob"), &secret, Role::Client).unwrap();
}

#[test]
fn a_handle_that_looks_like_another_is_refused() {
    let (mut world, ada) = founded();
    joined(&mut world, &ada, "bill", Role::Client);
    for handle in ["bill", "b1ll", "bi11", "b.ill", "bi-ll", "Bill", "b", "bill ", "-bill"] {
        let secret = invite(&mut world, &ada, Role::Client);
        let refused = register(&mut world, &Human::new(handle), &secret, Role::Client).unwrap_err();
        assert!(matches!(refused, Refused::Handle { .. }), "{handle}");
    }
    let secret = InviteSecret::random();
    let mut said = statement(&world, &ada, &secret, Role::Client);
    said.handle = Some("b1ll".to_owned());
    let filed = world.ask(ada.caller, &filing(&ada, &secret, &said));
    assert!(matches!(filed.unwrap_err(), Refused::Handle { .. }));
}

#[test]
fn who_may_invite_whom() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let cli = joined(&mut world, &att, "cli", Role::Client);
    let may = |world: &mut World, by: &Human, role| {
        let secret = InviteSecret::random();
        let said = statement(world, by, &secret, role);
        world.ask(by.caller, &filing(by, &secret, &said)).is_ok()
    };
    assert!(may(&mut world, &ada, Role::Attorney) && may(&mut world, &ada, Role::Custodian));
    assert!(may(&mut world, &att, Role::Client) && !may(&mut world, &att, Role::Staff));
    assert!(!may(&mut world, &cli, Role::Client));
}

#[test]
fn an_invite_is_filed_only_as_its_device_signed_it() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let secret = InviteSecret::random();
    let said = statement(&world, &att, &secret, Role::Client);
    assert!(world.ask(att.caller, &filing(&ada, &secret, &said)).is_err(), "another's signature");
    let as_ada = statement(&world, &ada, &secret, Role::Client);
    assert!(world.ask(att.caller, &filing(&att, &secret, &as_ada)).is_err(), "another's name");
    let second = InviteStatement { issuer: Issuer { device: DeviceId::random(), ..att.issuer() }, ..said.clone() };
    assert!(world.ask(att.caller, &filing(&att, &secret, &second)).is_err(), "another device of theirs");
    let mut long = said.clone();
    long.expires = long.expires.plus_ms(60_001);
    assert!(world.ask(att.caller, &filing(&att, &secret, &long)).is_err(), "good for too long");
    let longest = InviteSecret::random();
    let mut said_longest = statement(&world, &att, &longest, Role::Client);
    said_longest.expires = said_longest.expires.plus_ms(60_000);
    world.ask(att.caller, &filing(&att, &longest, &said_longest)).unwrap();
    world.ask(att.caller, &filing(&att, &secret, &said)).unwrap();
    assert!(world.ask(att.caller, &filing(&att, &secret, &said)).is_err(), "twice");
}

#[test]
fn an_inviter_without_an_endorsement_voids_the_invite() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let secret = invite(&mut world, &att, Role::Client);
    let row = world.store.person(att.caller.person).unwrap().unwrap();
    world.put_person(PersonRow { endorsement: None, ..row });
    assert!(is_invite(&register(&mut world, &Human::new("bob"), &secret, Role::Client).unwrap_err()));
}

#[test]
fn a_registration_proves_its_device() {
    let (mut world, ada) = founded();
    let (bob, eve) = (Human::new("bob"), Human::new("eve"));
    let secret = invite(&mut world, &ada, Role::Client);
    let mut registration = bob.registration(secret.id(), secret.token(), Role::Client);
    world.newcomer(&eve, &Request::Register(Box::new(registration.clone()))).unwrap_err();
    registration.certificate = eve.certificate();
    world.newcomer(&bob, &Request::Register(Box::new(registration.clone()))).unwrap_err();
    registration.certificate = bob.certificate();
    registration.inbox = ada.inbox;
    world.newcomer(&bob, &Request::Register(Box::new(registration))).unwrap_err();
    register(&mut world, &bob, &secret, Role::Client).unwrap();
}

#[test]
fn endorsing_is_the_inviters_or_a_registrars_and_for_exactly_that_person() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let other = joined(&mut world, &ada, "other", Role::Attorney);
    let secret = invite(&mut world, &att, Role::Client);
    let bob = Human::new("bob");
    register(&mut world, &bob, &secret, Role::Client).unwrap();
    let good = bob.endorsement_by(Some(att.issuer()), Role::Client);
    let by_other = bob.endorsement_by(Some(other.issuer()), Role::Client);
    assert!(matches!(endorse(&mut world, &other, &bob, &by_other), Err(Refused::NotAllowed { .. })));
    let wrong = [
        Endorsement { person: ada.caller.person, ..good.clone() },
        Endorsement { person_key: Digest::of(&[b"other"]), ..good.clone() },
        Endorsement { handle: "b0b".to_owned(), ..good.clone() },
        Endorsement { role: Role::Attorney, ..good.clone() },
        Endorsement { registrar: true, ..good.clone() },
        Endorsement { issuer: Some(ada.issuer()), ..good.clone() },
        Endorsement { issuer: None, ..good.clone() },
    ];
    for said in wrong {
        assert!(endorse(&mut world, &att, &bob, &said).is_err(), "{said:?}");
    }
    let signed_by_other = Signed::make(Label::Endorsement, &other.mls_key, &good).unwrap();
    let request = Request::Endorse { person: bob.caller.person, endorsement: signed_by_other };
    assert!(world.ask(att.caller, &request).is_err());
    assert!(world.store.person(bob.caller.person).unwrap().unwrap().endorsement.is_none());
    endorse(&mut world, &att, &bob, &good).unwrap();
    let by_registrar = bob.endorsement_by(Some(ada.issuer()), Role::Client);
    endorse(&mut world, &ada, &bob, &by_registrar).unwrap();
}

#[test]
fn a_registrar_endorses_newcomers_of_others_in_the_role_they_joined_with() {
    let (mut world, ada) = founded();
    let secret = invite(&mut world, &ada, Role::Client);
    let bob = Human::new("bob");
    register(&mut world, &bob, &secret, Role::Client).unwrap();
    let more = bob.endorsement_by(Some(ada.issuer()), Role::Attorney);
    assert!(matches!(endorse(&mut world, &ada, &bob, &more), Err(Refused::Malformed { .. })));
    let row = world.store.person(bob.caller.person).unwrap().unwrap();
    assert!(row.endorsement.is_none() && row.role == Role::Client);
}

#[test]
fn a_newcomer_is_taken_in_by_a_registrar_or_for_clients_by_any_attorney_and_the_log_says_so() {
    let (mut world, ada) = founded();
    let [att, other] = ["att", "other"].map(|handle| joined(&mut world, &ada, handle, Role::Attorney));
    let (staff, client) =
        (joined(&mut world, &ada, "staff", Role::Staff), joined(&mut world, &ada, "cli", Role::Client));
    let secret = invite(&mut world, &att, Role::Client);
    let (bob, yan) = (Human::new("bob"), Human::new("yan"));
    register(&mut world, &bob, &secret, Role::Client).unwrap();
    let secret = invite(&mut world, &ada, Role::Attorney);
    register(&mut world, &yan, &secret, Role::Attorney).unwrap();
    let shown = |world: &mut World, who: &Human| match world.ask(who.caller, &Request::Adoptable).unwrap() {
        Reply::Adoptable { newcomers } => newcomers.into_iter().map(|newcomer| newcomer.handle).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&mut world, &ada), ["bob", "yan"]);
    assert_eq!(shown(&mut world, &other), ["bob"]);
    assert!(shown(&mut world, &staff).is_empty() && shown(&mut world, &client).is_empty());
    // As whom they were invited is shown with it, in their inviter's own words.
    let asked = |world: &mut World, who: &Human, whom: &Human| {
        world.ask(who.caller, &Request::Adoption { person: whom.caller.person })
    };
    match asked(&mut world, &other, &bob).unwrap() {
        Reply::Adoption(view) => {
            let said: InviteStatement = view.statement.unverified("invite").unwrap();
            assert_eq!((said.issuer, said.role, said.invite), (att.issuer(), Role::Client, view.registration.invite));
            assert_eq!(view.registration.handle, "bob");
            let above: Vec<PersonId> = view.chain.iter().map(|identity| identity.person).collect();
            assert_eq!(above, [att.caller.person, ada.caller.person]);
        }
        other => panic!("{other:?}"),
    }
    for (who, whom) in [(&staff, &bob), (&client, &bob), (&other, &yan), (&ada, &att)] {
        let refused = asked(&mut world, who, whom);
        assert!(matches!(refused, Err(Refused::NotFound { .. } | Refused::NotAllowed { .. })), "{refused:?}");
    }
    let said =
        |by: &Human, whom: &Human, role| Endorsement { adopted: true, ..whom.endorsement_by(Some(by.issuer()), role) };
    for (by, whom, role) in
        [(&staff, &bob, Role::Client), (&client, &bob, Role::Client), (&other, &yan, Role::Attorney)]
    {
        let refused = endorse(&mut world, by, whom, &said(by, whom, role));
        assert!(matches!(refused, Err(Refused::NotAllowed { .. })), "{refused:?}");
    }
    // Whoever has not invited them, a registrar too, says that it is an adoption.
    for by in [&other, &ada] {
        let plain = bob.endorsement_by(Some(by.issuer()), Role::Client);
        assert!(matches!(endorse(&mut world, by, &bob, &plain), Err(Refused::NotAllowed { .. })));
    }
    endorse(&mut world, &other, &bob, &said(&other, &bob, Role::Client)).unwrap();
    let last = logged(&world).pop().unwrap();
    assert_eq!(last.0, Some(bob.caller.person));
    assert!(matches!(last.1, Act::Adopted { by, .. } if by == other.caller.person), "{last:?}");
    assert_eq!(shown(&mut world, &ada), ["yan"]);
    // Given once more, by whoever gave it or a registrar, it says the same still, and nobody else gives it.
    let later = |by: &Human, adopted| Endorsement { adopted, from: Timestamp(9), ..said(by, &bob, Role::Client) };
    assert!(matches!(endorse(&mut world, &other, &bob, &later(&other, false)), Err(Refused::Malformed { .. })));
    let third = joined(&mut world, &ada, "third", Role::Attorney);
    assert!(matches!(endorse(&mut world, &third, &bob, &later(&third, true)), Err(Refused::NotAllowed { .. })));
    endorse(&mut world, &other, &bob, &later(&other, true)).unwrap();
    assert_eq!(logged(&world).pop().unwrap().1.name(), "endorsed");
    endorse(&mut world, &ada, &bob, &later(&ada, true)).unwrap();
}

#[test]
fn newcomers_are_shown_to_their_inviter_until_they_are_endorsed() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let secret = invite(&mut world, &att, Role::Client);
    let bob = Human::new("bob");
    register(&mut world, &bob, &secret, Role::Client).unwrap();
    let waiting = |world: &mut World, who: &Human| match world.ask(who.caller, &Request::Newcomers).unwrap() {
        Reply::Newcomers { newcomers } => newcomers.into_iter().map(|newcomer| newcomer.handle).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(waiting(&mut world, &att), ["bob"]);
    assert!(waiting(&mut world, &ada).is_empty());
    endorse(&mut world, &att, &bob, &bob.endorsement_by(Some(att.issuer()), Role::Client)).unwrap();
    assert!(waiting(&mut world, &att).is_empty());
}

#[test]
fn a_chain_is_no_longer_than_its_limit() {
    let mut world = World::new();
    let mut above = world.person("top", Role::Attorney);
    for number in 0..limits::CHAIN_MAX {
        let next = Human::new(&format!("n{number}"));
        world.settle(&next, Role::Attorney, Some(&next.endorsement_by(Some(above.issuer()), Role::Attorney)));
        above = next;
    }
    match world.ask(above.caller, &Request::Chain { person: above.caller.person }).unwrap() {
        Reply::Chain { chain } => assert_eq!(chain.len(), limits::CHAIN_MAX),
        other => panic!("{other:?}"),
    }
}

/// Two who endorse each other would have left a chain without an end.
#[test]
fn a_registrar_keeps_the_organisations_endorsement() {
    let (mut world, ada) = founded();
    let said = ada.endorsement_by(Some(ada.issuer()), Role::Attorney);
    let said = Endorsement { registrar: false, ..said };
    assert!(matches!(endorse(&mut world, &ada, &ada, &said), Err(Refused::NotAllowed { .. })));
}

#[test]
fn a_client_sees_their_own_and_an_attorney_everyone() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let bob = joined(&mut world, &att, "bob", Role::Client);
    let eve = joined(&mut world, &ada, "eve", Role::Client);
    let sees = |world: &mut World, who: &Human| match world.ask(who.caller, &Request::People).unwrap() {
        Reply::People { people } => people.into_iter().map(|person| person.handle).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sees(&mut world, &att), ["ada", "att", "bob", "eve"]);
    assert_eq!(sees(&mut world, &bob), ["att", "bob"]);
    let chain = |person| Request::Chain { person };
    assert!(matches!(world.ask(bob.caller, &chain(eve.caller.person)), Err(Refused::NotFound { .. })));
    match world.ask(bob.caller, &chain(bob.caller.person)).unwrap() {
        Reply::Chain { chain } => {
            let people: Vec<_> = chain.iter().map(|identity| identity.person).collect();
            assert_eq!(people, [bob.caller.person, att.caller.person, ada.caller.person]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn open_invites_are_bounded() {
    let (mut world, ada) = founded();
    for _ in 0..limits::INVITES_OPEN_MAX {
        invite(&mut world, &ada, Role::Client);
    }
    let secret = InviteSecret::random();
    let said = statement(&world, &ada, &secret, Role::Client);
    let filed = world.ask(ada.caller, &filing(&ada, &secret, &said));
    assert!(matches!(filed.unwrap_err(), Refused::Full { .. }));
}

#[test]
fn a_newcomer_can_do_nothing_but_join() {
    let (mut world, _) = founded();
    let bob = Human::new("bob");
    for request in [Request::People, Request::Newcomers] {
        assert!(matches!(world.newcomer(&bob, &request), Err(Refused::NotAllowed { .. })));
    }
}

/// What the log says, leaf by leaf: about whom, and what.
fn logged(world: &World) -> Vec<(Option<PersonId>, Act)> {
    let rows = world.store.log_rows(0, u64::MAX).unwrap();
    let read = |row: &LogRow| {
        let leaf = Leaf::decode(&row.leaf).unwrap();
        (leaf.person, leaf.open(&row.opening).unwrap().act)
    };
    rows.iter().map(read).collect()
}

fn names(world: &World, person: Option<PersonId>) -> Vec<&'static str> {
    logged(world).iter().filter(|(about, _)| *about == person).map(|(_, act)| act.name()).collect()
}

#[test]
fn how_people_come_in_stands_in_the_log_of_each_who_had_a_part_in_it() {
    let (mut world, ada) = founded();
    let bob = joined(&mut world, &ada, "bob", Role::Client);
    assert_eq!(names(&world, None), ["invite-made", "founded", "invite-used"]);
    assert_eq!(
        names(&world, Some(ada.caller.person)),
        ["registered", "device-added", "endorsed", "invite-made", "invite-used"]
    );
    assert_eq!(names(&world, Some(bob.caller.person)), ["registered", "device-added", "endorsed"]);
    let row = world.store.person(bob.caller.person).unwrap().unwrap();
    let (device, endorsement) = (world.store.device(bob.caller.device).unwrap().unwrap(), row.endorsement.unwrap());
    let about =
        |act: &Act| logged(&world).iter().any(|(person, known)| *person == Some(bob.caller.person) && known == act);
    assert!(about(&Act::DeviceAdded { device: device.device, certificate: device.certificate.digest() }));
    assert!(about(&Act::Endorsed { endorsement: endorsement.digest(), by: Some(ada.caller.person) }));
    assert!(about(&Act::Registered {
        person_key: bob.person_key.public().unwrap().digest(),
        handle: "bob".to_owned(),
        role: Role::Client,
        invite: row.registration.invite,
    }));
}

#[test]
fn a_refused_use_of_an_invite_is_logged_up_to_a_bound_and_only_for_who_has_it() {
    let (mut world, ada) = founded();
    let secret = invite(&mut world, &ada, Role::Client);
    let open = |token| Request::OpenInvite { invite: secret.id(), token };
    let refusals =
        |world: &World| names(world, Some(ada.caller.person)).iter().filter(|name| **name == "invite-refused").count();
    register(&mut world, &Human::new("bob"), &secret, Role::Client).unwrap();
    let eve = Human::new("eve");
    assert!(world.newcomer(&eve, &open([9; 32])).is_err(), "who does not have it");
    assert_eq!(refusals(&world), 0);
    assert!(refusal_is_news(&world.store, secret.id(), &secret.token()).unwrap());
    assert!(!refusal_is_news(&world.store, secret.id(), &[9; 32]).unwrap());
    for used in 1..20 {
        match used % 2 {
            0 => drop(world.newcomer(&eve, &open(secret.token())).unwrap_err()),
            _ => drop(register(&mut world, &eve, &secret, Role::Client).unwrap_err()),
        }
        assert_eq!(refusals(&world), used.min(usize::from(limits::REFUSALS_LOGGED)));
    }
    assert!(!refusal_is_news(&world.store, secret.id(), &secret.token()).unwrap());
}

#[test]
fn an_invite_that_nobody_used_is_logged_as_expired_once() {
    let (mut world, ada) = founded();
    let (used, _unused) = (invite(&mut world, &ada, Role::Client), invite(&mut world, &ada, Role::Client));
    register(&mut world, &Human::new("bob"), &used, Role::Client).unwrap();
    let expired =
        |world: &World| names(world, Some(ada.caller.person)).iter().filter(|name| **name == "invite-expired").count();
    for (later, count) in [(0, 0), (limits::INVITE_LIFETIME_MS, 1), (limits::INVITE_LIFETIME_MS * 2, 1)] {
        let writes = overdue(&world.store, world.now.plus_ms(later)).unwrap();
        world.write(&writes);
        assert_eq!(expired(&world), count);
    }
}

fn invites(world: &mut World, who: &Human) -> Vec<(InviteId, Standing)> {
    match world.ask(who.caller, &Request::Invites).unwrap() {
        Reply::Invites { invites } => invites.into_iter().map(|state| (state.invite, state.standing)).collect(),
        other => panic!("{other:?}"),
    }
}

fn cancel(world: &mut World, who: &Human, secret: &InviteSecret) -> Result<Reply, Refused> {
    world.ask(who.caller, &Request::CancelInvite { invite: secret.id() })
}

fn why(refused: Refused) -> String {
    match refused {
        Refused::Invite { what } => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_inviter_sees_what_became_of_their_invites_and_nobody_elses() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let secrets: Vec<InviteSecret> = (0..3).map(|_| invite(&mut world, &att, Role::Client)).collect();
    let bob = Human::new("bob");
    register(&mut world, &bob, &secrets[0], Role::Client).unwrap();
    cancel(&mut world, &att, &secrets[1]).unwrap();
    let all: std::collections::BTreeMap<_, _> = invites(&mut world, &att).into_iter().collect();
    assert_eq!(all.len(), 3);
    assert_eq!(all[&secrets[0].id()], Standing::Used { handle: "bob".to_owned() });
    assert_eq!(all[&secrets[1].id()], Standing::Cancelled);
    assert_eq!(all[&secrets[2].id()], Standing::Open);
    assert!(invites(&mut world, &ada).iter().all(|(invite, _)| !all.contains_key(invite)));
    world.now = world.now.plus_ms(limits::INVITE_LIFETIME_MS);
    let later: std::collections::BTreeMap<_, _> = invites(&mut world, &att).into_iter().collect();
    assert_eq!(later[&secrets[2].id()], Standing::Expired);
    assert_eq!(later[&secrets[0].id()], all[&secrets[0].id()], "used stays used");
}

#[test]
fn a_cancelled_invite_opens_for_nobody_and_makes_nobody() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let secret = invite(&mut world, &att, Role::Client);
    assert!(matches!(cancel(&mut world, &ada, &secret), Err(Refused::NotFound { .. })), "it is not hers");
    assert_eq!(cancel(&mut world, &att, &secret).unwrap(), Reply::Done);
    assert_eq!(cancel(&mut world, &att, &secret).unwrap(), Reply::Done, "twice is once");
    let bob = Human::new("bob");
    let open = Request::OpenInvite { invite: secret.id(), token: secret.token() };
    assert!(why(world.newcomer(&bob, &open).unwrap_err()).contains("cancelled"));
    assert!(why(register(&mut world, &bob, &secret, Role::Client).unwrap_err()).contains("cancelled"));
    assert!(world.store.person(bob.caller.person).unwrap().is_none());
    // It does not count as open, and is not said to have expired.
    assert_eq!(world.store.open_invites(att.caller.person, world.now).unwrap(), 0);
}

#[test]
fn what_was_used_or_has_expired_is_not_cancelled() {
    let (mut world, ada) = founded();
    let (used, old) = (invite(&mut world, &ada, Role::Client), invite(&mut world, &ada, Role::Client));
    register(&mut world, &Human::new("bob"), &used, Role::Client).unwrap();
    assert!(why(cancel(&mut world, &ada, &used).unwrap_err()).contains("bob has used it"));
    world.now = world.now.plus_ms(limits::INVITE_LIFETIME_MS);
    assert!(why(cancel(&mut world, &ada, &old).unwrap_err()).contains("expired"));
}

#[test]
fn open_invites_are_void_once_their_inviter_may_not_invite() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let (secret, bob) = (invite(&mut world, &att, Role::Client), Human::new("bob"));
    let open = Request::OpenInvite { invite: secret.id(), token: secret.token() };
    let row = world.store.person(att.caller.person).unwrap().unwrap();
    let others = [PersonRow { role: Role::Client, ..row.clone() }, PersonRow { endorsement: None, ..row.clone() }];
    for other in others {
        world.put_person(other);
        assert!(why(world.newcomer(&bob, &open).unwrap_err()).contains("may not invite any more"));
        assert!(why(register(&mut world, &bob, &secret, Role::Client).unwrap_err()).contains("may not invite"));
        assert_eq!(invites(&mut world, &att), [(secret.id(), Standing::Void)]);
    }
    world.put_person(row);
    register(&mut world, &bob, &secret, Role::Client).unwrap();
}

fn renewals(world: &mut World, who: &Human) -> Vec<PersonId> {
    match world.ask(who.caller, &Request::Renewals).unwrap() {
        Reply::Chains { chains } => chains.into_iter().map(|chain| chain[0].person).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_gave_an_endorsement_and_every_registrar_are_shown_the_ones_that_end() {
    let (mut world, ada) = founded();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let other = joined(&mut world, &ada, "other", Role::Attorney);
    let bob = joined(&mut world, &att, "bob", Role::Client);
    assert!([&ada, &att, &other, &bob].into_iter().all(|who| renewals(&mut world, who).is_empty()));
    let now = world.now;
    let ending = |human: &Human, by: &Human, left: u64| Endorsement {
        from: Timestamp(now.0 - 300),
        until: now.plus_ms(left),
        ..human.endorsement_by(Some(by.issuer()), Role::Client)
    };
    endorse(&mut world, &att, &bob, &ending(&bob, &att, 150)).unwrap();
    assert!(renewals(&mut world, &att).is_empty(), "a third is left");
    endorse(&mut world, &att, &bob, &ending(&bob, &att, 140)).unwrap();
    for (who, shown) in [(&att, 1), (&ada, 1), (&other, 0), (&bob, 0)] {
        assert_eq!(renewals(&mut world, who).len(), shown, "{}", who.handle);
    }
    world.now = world.now.plus_ms(1000);
    assert_eq!(renewals(&mut world, &att), [bob.caller.person], "also once it has ended");
    endorse(&mut world, &att, &bob, &bob.endorsement_by(Some(att.issuer()), Role::Client)).unwrap_err();
    let anew = Endorsement { from: world.now, ..bob.endorsement_by(Some(att.issuer()), Role::Client) };
    let endorsement = Signed::make(Label::Endorsement, &att.mls_key, &anew).unwrap();
    let asked = Request::Endorse { person: bob.caller.person, endorsement };
    let outcome = world.handle(&From::Device(att.caller), &asked).unwrap();
    let told = Wake::Person { person: bob.caller.person, event: Event::Endorsed };
    assert_eq!(outcome.wakes, [told], "the person is told");
    assert!(renewals(&mut world, &att).is_empty());
}

#[test]
fn a_registrar_is_endorsed_anew_by_the_organisations_key_alone() {
    let (mut world, secret) = (World::new(), InviteSecret::random());
    world.write(&first_invite(secret.token_hash(), secret.id(), world.now));
    let (ada, key) = (Human::new("ada"), suite::SecretKey::generate());
    let said = ada.endorsement_by(None, Role::Attorney);
    let endorsement = Signed::make(Label::Endorsement, &key, &said).unwrap();
    let organisation = Some(Founding { key: key.public().unwrap(), endorsement });
    let registration = Registration { organisation, ..ada.registration(secret.id(), secret.token(), Role::Attorney) };
    world.newcomer(&ada, &Request::Register(Box::new(registration))).unwrap();
    let att = joined(&mut world, &ada, "att", Role::Attorney);
    let file = |world: &mut World, who: &Human, key: &suite::SecretKey, said: &Endorsement| {
        let endorsement = Signed::make(Label::Endorsement, key, said).unwrap();
        world.ask(who.caller, &Request::Endorse { person: said.person, endorsement })
    };
    let anew = Endorsement { from: world.now, ..said };
    let wrong = [
        Endorsement { registrar: false, ..anew.clone() },
        Endorsement { role: Role::Staff, ..anew.clone() },
        Endorsement { handle: "b0b".to_owned(), ..anew.clone() },
        Endorsement { person_key: Digest::of(&[b"other"]), ..anew.clone() },
    ];
    for said in &wrong {
        assert!(file(&mut world, &ada, &key, said).is_err(), "{said:?}");
    }
    assert!(file(&mut world, &ada, &ada.mls_key, &anew).is_err(), "by another key");
    assert!(file(&mut world, &att, &key, &anew).is_err(), "by somebody else");
    let raised = Endorsement { from: world.now, ..att.endorsement_by(None, Role::Attorney) };
    assert!(file(&mut world, &att, &key, &raised).is_err(), "nobody becomes one by this");
    file(&mut world, &ada, &key, &anew).unwrap();
}

#[test]
fn invites_that_link_a_device_of_ones_own_are_not_listed() {
    let (mut world, ada) = founded();
    let (link, other) = (InviteSecret::random(), invite(&mut world, &ada, Role::Client));
    let said = InviteStatement {
        links: Some(ada.caller.person),
        replaces: None,
        expires: world.now.plus_ms(limits::LINK_LIFETIME_MS),
        ..statement(&world, &ada, &link, Role::Attorney)
    };
    world.ask(ada.caller, &filing(&ada, &link, &said)).unwrap();
    assert_eq!(invites(&mut world, &ada), [(other.id(), Standing::Open)]);
}
