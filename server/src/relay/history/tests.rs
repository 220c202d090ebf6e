//! Who may read what of whom in the log, and that every action leaves its leaf.

use privity_protocol::error::Refused;
use privity_protocol::frame::{Part, Request, Rights};
use privity_protocol::identity::{Role, Signed};
use privity_protocol::ids::{MailboxId, PersonId};
use privity_protocol::log::{Act, Event, Leaf, RosterChange, TreeHash};
use privity_protocol::suite::Label;

use super::super::world::{Human, World};
use super::*;
use crate::store::Write;

fn size(world: &World) -> u64 {
    world.store.log_size().unwrap()
}

/// What the log says of somebody, read as one who may, proofs checked.
fn history(world: &mut World, by: &Human, person: PersonId) -> Result<Vec<(Leaf, Option<Event>)>, Refused> {
    let (size, root) = state(&world.store).unwrap();
    let mut found: Vec<(Leaf, Option<Event>)> = Vec::new();
    loop {
        let after = found.last().map_or(0, |(leaf, _)| leaf.number);
        let Reply::History { leaves, more } = world.ask(by.caller, &Request::History { person, after, size })? else {
            panic!("no history");
        };
        assert!(leaves.len() <= limits::HISTORY_MAX);
        for proved in leaves {
            tree::verify_inclusion(&TreeHash::leaf(&proved.leaf), proved.index, size, &proved.proof, &root).unwrap();
            let leaf = Leaf::decode(&proved.leaf).unwrap();
            assert_eq!(leaf.person, Some(person));
            assert!(leaf.follows(found.last().map(|(leaf, _)| leaf.last()).as_ref()));
            let event = proved.opening.map(|opening| leaf.open(&opening).unwrap());
            found.push((leaf, event));
        }
        if !more {
            return Ok(found);
        }
    }
}

fn acts(history: &[(Leaf, Option<Event>)]) -> Vec<&'static str> {
    history.iter().map(|(_, event)| event.as_ref().map_or("sealed", |event| event.act.name())).collect()
}

fn grant(mailbox: MailboxId, to: &Human) -> Part {
    Part::Grant { mailbox, device: to.caller.device, rights: Rights::MEMBER, resume: false }
}

#[test]
fn a_matter_and_what_changes_its_roster_stand_in_the_log_of_who_did_it() {
    let mut world = World::new();
    let (ada, bob) = (world.person("ada", Role::Attorney), world.person("bob", Role::Client));
    let mailbox = world.matter(&ada, &[(bob.caller, Rights::MEMBER)]);
    world.post(ada.caller, vec![Part::Revoke { mailbox, device: bob.caller.device }, grant(mailbox, &bob)]).unwrap();
    world.say(ada.caller, mailbox).unwrap();
    let found = history(&mut world, &ada, ada.caller.person).unwrap();
    let (device, bobs) = (ada.caller.device, bob.caller.device);
    let changed = |changes| Act::RosterChanged { mailbox, device, changes };
    let given = RosterChange { device: bobs, rights: Some(Rights::MEMBER) };
    let taken = RosterChange { device: bobs, rights: None };
    let found: Vec<Act> = found.into_iter().map(|(_, event)| event.unwrap().act).collect();
    assert_eq!(found, [Act::MailboxCreated { mailbox, device }, changed(vec![given]), changed(vec![taken, given])]);
    assert_eq!(size(&world), 3, "a message is none of the log's business");
}

#[test]
fn a_refused_post_leaves_no_leaf_and_a_repeated_one_no_second() {
    let mut world = World::new();
    let (ada, bob) = (world.person("ada", Role::Attorney), world.person("bob", Role::Client));
    let mailbox = MailboxId::random();
    world.post_as(ada.caller, 50, vec![Part::Create { mailbox }]).unwrap();
    world.post_as(ada.caller, 50, vec![Part::Create { mailbox }]).unwrap();
    world.post_as(bob.caller, 51, vec![grant(mailbox, &bob)]).unwrap_err();
    assert_eq!(size(&world), 1);
    world.post_as(ada.caller, 52, vec![Part::Revoke { mailbox, device: bob.caller.device }]).unwrap();
    assert_eq!(size(&world), 1, "nothing changed");
}

#[test]
fn others_read_who_a_person_is_and_only_they_themselves_what_they_did() {
    let mut world = World::new();
    let (ada, cleo) = (world.person("ada", Role::Attorney), world.person("cleo", Role::Client));
    let statement = cleo.endorsement_by(Some(ada.issuer()), Role::Client);
    let mut row = world.store.person(cleo.caller.person).unwrap().unwrap();
    row.inviter = Some(ada.caller.person);
    world.put_person(row);
    let endorsement = Signed::make(Label::Endorsement, &ada.mls_key, &statement).unwrap();
    let request = Request::Endorse { person: cleo.caller.person, endorsement: endorsement.clone() };
    world.ask(ada.caller, &request).unwrap();
    world.matter(&ada, &[(cleo.caller, Rights::MEMBER)]);
    let stranger = world.person("eve", Role::Client);
    let own = history(&mut world, &ada, ada.caller.person).unwrap();
    assert_eq!(acts(&own), ["mailbox-created", "roster-changed"]);
    let seen = history(&mut world, &cleo, ada.caller.person).unwrap();
    assert_eq!(acts(&seen), ["sealed", "sealed"], "she sees that there is something, not what");
    let seen = history(&mut world, &ada, cleo.caller.person).unwrap();
    assert_eq!(acts(&seen), ["endorsed"]);
    let by = Some(ada.caller.person);
    assert_eq!(seen[0].1.as_ref().unwrap().act, Act::Endorsed { endorsement: endorsement.digest(), by });
    for person in [ada.caller.person, PersonId::random()] {
        let refused = history(&mut world, &stranger, person).unwrap_err();
        assert!(matches!(refused, Refused::NotFound { .. }), "{refused}");
    }
}

#[test]
fn a_long_history_comes_in_pieces_and_ends_where_the_asked_size_does() {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let person = ada.caller.person;
    let act = || Act::InviteExpired { invite: privity_protocol::ids::InviteId::random() };
    for number in 0..300 {
        let event = Event { at: world.now, act: act() };
        world.write(&[Write::Log { person: (number % 3 == 0).then_some(person), event }]);
    }
    assert_eq!(history(&mut world, &ada, person).unwrap().len(), 100);
    let at = |world: &mut World, after, size| match world.ask(ada.caller, &Request::History { person, after, size }) {
        Ok(Reply::History { leaves, more }) => (leaves.len(), more),
        other => panic!("{other:?}"),
    };
    assert_eq!(at(&mut world, 0, 300), (limits::HISTORY_MAX, true));
    assert_eq!(at(&mut world, 68, 300), (limits::HISTORY_MAX, false));
    assert_eq!(at(&mut world, 0, 4), (2, false));
    assert_eq!(at(&mut world, u64::MAX, 300), (0, false));
    assert_eq!(at(&mut world, 0, 0), (0, false));
    let refused = world.ask(ada.caller, &Request::History { person, after: 0, size: 301 }).unwrap_err();
    assert!(matches!(refused, Refused::Malformed { .. }));
}

#[test]
fn the_log_proves_that_it_has_only_grown() {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let mut roots = vec![state(&world.store).unwrap()];
    for _ in 0..20 {
        world.matter(&ada, &[]);
        roots.push(state(&world.store).unwrap());
    }
    for (from, from_root) in &roots {
        for (to, to_root) in roots.iter().filter(|(to, _)| to >= from) {
            let asked = Request::Consistency { from: *from, to: *to };
            let Reply::Consistency { proof } = world.ask(ada.caller, &asked).unwrap() else { panic!("no proof") };
            tree::verify_consistency((*from, from_root), (*to, to_root), &proof).unwrap();
        }
    }
    for (from, to) in [(0, 21), (5, 4), (0, u64::MAX)] {
        assert!(world.ask(ada.caller, &Request::Consistency { from, to }).is_err(), "{from} to {to}");
    }
}
