//! Whom people see and reach, by their role, and as matters come and go.

use privity_protocol::frame::{Part, Request};
use privity_protocol::identity::Role;
use privity_protocol::ids::{MailboxId, Position};

use super::super::world::{Human, World, append};
use super::*;

fn sees(world: &mut World, who: &Human) -> Vec<String> {
    match world.ask(who.caller, &Request::People).unwrap() {
        Reply::People { people } => people.into_iter().map(|person| person.handle).collect(),
        other => panic!("{other:?}"),
    }
}

fn invited_by(world: &mut World, whom: &Human, by: &Human) {
    let row = world.store.person(whom.caller.person).unwrap().unwrap();
    world.put_person(PersonRow { inviter: Some(by.caller.person), ..row });
}

/// Every question about somebody that `by` may not see is answered as if there were nobody.
fn knows_nothing_of(world: &mut World, by: &Human, whom: &Human) {
    let person = whom.caller.person;
    for asked in [Request::Chain { person }, Request::History { person, after: 0, size: 0 }] {
        assert!(matches!(world.ask(by.caller, &asked), Err(Refused::NotFound { .. })), "{}: {asked:?}", by.handle);
    }
}

fn reaches(world: &mut World, by: &Human, whom: &Human) -> bool {
    let parts = vec![append(whom.inbox, Position::start(whom.inbox), false, b"welcome")];
    let taken = Request::TakeKeyPackages { person: whom.caller.person, device: None };
    let (delivers, takes) = (world.post(by.caller, parts).is_ok(), world.ask(by.caller, &taken).is_ok());
    assert_eq!(delivers, takes, "whoever may write to somebody may take their key packages, and nobody else");
    delivers
}

/// An invite makes somebody an attorney only once somebody vouches for them: until then its holder sees who invited them.
#[test]
fn an_attorney_for_whom_nobody_vouches_yet_sees_their_inviter_alone() {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let bob = world.person("bob", Role::Client);
    for (handle, role) in [("newattorney", Role::Attorney), ("newstaff", Role::Staff)] {
        let new = Human::new(handle);
        world.settle(&new, role, None);
        invited_by(&mut world, &new, &ada);
        assert_eq!(sees(&mut world, &new), ["ada", handle]);
        knows_nothing_of(&mut world, &new, &bob);
        assert!(!reaches(&mut world, &new, &bob) && !reaches(&mut world, &new, &ada));
        let row = world.store.person(new.caller.person).unwrap().unwrap();
        let said = new.endorsement_by(Some(ada.issuer()), role);
        let endorsement = Signed { body: privity_protocol::cbor::encode(&said), signature: Vec::new() };
        world.put_person(PersonRow { endorsement: Some(endorsement), ..row });
        assert!(sees(&mut world, &new).contains(&"bob".to_owned()));
        assert!(reaches(&mut world, &new, &bob));
    }
}

#[test]
fn a_client_sees_and_reaches_those_of_their_matters_as_long_as_they_are_in_them() {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let stf = world.person("stf", Role::Staff);
    let (bob, eve, cus) =
        (world.person("bob", Role::Client), world.person("eve", Role::Client), world.person("cus", Role::Custodian));
    invited_by(&mut world, &bob, &stf);
    let others = [(bob.caller, Rights::MEMBER), (eve.caller, Rights::MEMBER), (cus.caller, Rights::READ)];
    let mailbox = world.matter(&ada, &others);
    for who in [&bob, &eve, &cus] {
        let expected: &[&str] =
            if who.handle == "bob" { &["ada", "bob", "cus", "eve", "stf"] } else { &["ada", "bob", "cus", "eve"] };
        assert_eq!(sees(&mut world, who), expected, "{}", who.handle);
        assert!(reaches(&mut world, who, &ada));
    }
    assert!(
        !reaches(&mut world, &eve, &stf) && !reaches(&mut world, &bob, &stf),
        "an inviter reaches, not the invited"
    );
    knows_nothing_of(&mut world, &eve, &stf);
    world.post(ada.caller, vec![Part::Revoke { mailbox, device: bob.caller.device }]).unwrap();
    assert_eq!(sees(&mut world, &bob), ["bob", "stf"], "their inviter stays");
    for other in [&ada, &eve, &cus] {
        knows_nothing_of(&mut world, &bob, other);
        assert!(!reaches(&mut world, &bob, other), "{}", other.handle);
    }
    assert_eq!(sees(&mut world, &eve), ["ada", "cus", "eve"], "and the others see no more who has left");
    knows_nothing_of(&mut world, &eve, &bob);
    assert!(matches!(world.ask(bob.caller, &Request::Roster { mailbox }), Err(Refused::NotFound { .. })));
    // Attorneys and staff see everybody, whoever's matter it is.
    assert_eq!(sees(&mut world, &stf), ["ada", "bob", "cus", "eve", "stf"]);
}

/// A custodian archives: they read, and manage, open and invite nothing.
#[test]
fn a_custodian_opens_and_manages_nothing_and_adds_nobody() {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let (cus, eve) = (world.person("cus", Role::Custodian), world.person("eve", Role::Client));
    let mailbox = world.matter(&ada, &[(cus.caller, Rights::READ)]);
    let refused = |done: Result<Vec<u64>, Refused>| matches!(done, Err(Refused::NotAllowed { .. }));
    assert!(refused(world.post(cus.caller, vec![Part::Create { mailbox: MailboxId::random() }])));
    assert!(refused(world.say(cus.caller, mailbox)), "who may only read");
    for (device, rights) in [(eve.caller.device, Rights::READ), (cus.caller.device, Rights::MEMBER)] {
        assert!(refused(world.post(cus.caller, vec![Part::Grant { mailbox, device, rights, resume: false }])));
    }
    assert!(refused(world.post(cus.caller, vec![Part::Revoke { mailbox, device: ada.caller.device }])));
    assert_eq!(sees(&mut world, &cus), ["ada", "cus"]);
    assert!(!reaches(&mut world, &cus, &eve));
}

/// Managing one matter gives no say in another, nor a look into it.
#[test]
fn an_attorney_takes_no_part_in_a_matter_that_nobody_let_them_into() {
    let mut world = World::new();
    let (ada, att, eve) =
        (world.person("ada", Role::Attorney), world.person("att", Role::Attorney), world.person("eve", Role::Client));
    let mailbox = world.matter(&ada, &[(eve.caller, Rights::MEMBER)]);
    world.matter(&att, &[]);
    let device = att.caller.device;
    for rights in [Rights::READ, Rights::MEMBER, Rights::MANAGER] {
        let grant = vec![Part::Grant { mailbox, device, rights, resume: false }];
        assert!(matches!(world.post(att.caller, grant), Err(Refused::NotAllowed { .. })), "{rights:?}");
    }
    assert!(world.say(att.caller, mailbox).is_err() && world.commit(att.caller, mailbox).is_err());
    let revoke = vec![Part::Revoke { mailbox, device: eve.caller.device }];
    assert!(matches!(world.post(att.caller, revoke), Err(Refused::NotAllowed { .. })));
    assert!(matches!(world.ask(att.caller, &Request::Roster { mailbox }), Err(Refused::NotFound { .. })));
}
