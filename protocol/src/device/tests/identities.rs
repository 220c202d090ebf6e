//! Who somebody is: what is compared, and what happens when it changes.

use super::*;
use crate::content::NamedPerson;
use crate::envelope::{self, Class};
use crate::error::PeerMisbehaved;
use crate::identity::Name;
use crate::matter::Participant;
use crate::matter::forge::{self, Wild};

fn is_changed(notice: &Notice, of: PersonId, was_verified: bool) -> bool {
    matches!(notice, Notice::IdentityChanged { person, verified, .. } if *person == of && *verified == was_verified)
}

fn changes(world: &World, who: usize, matter: MatterId) -> usize {
    let told = |record: &&Record| matches!(record.what, RecordBody::IdentityChanged { .. });
    world.records(who, matter).iter().filter(told).count()
}

/// Both have compared their numbers.
fn compare(world: &mut World, one: usize, other: usize) {
    for (who, whom) in [(one, other), (other, one)] {
        let (person, own) = (world.person(whom), world.person(who));
        let number = world.nodes[whom].device.safety_number(own).unwrap();
        let now = world.now;
        world.nodes[who].device.verify_person(now, person, &number).unwrap();
        world.drain(who);
        assert!(world.nodes[who].device.person(person).unwrap().verified_at().is_some());
    }
}

#[test]
fn two_people_compare_one_number_and_another_one_verifies_nobody() {
    let mut world = World::office();
    world.matter(&[DAN, EVE]);
    compare(&mut world, ADA, DAN);
    let (ada, dan, eve) = (world.person(ADA), world.person(DAN), world.person(EVE));
    let now = world.now;
    let other = world.nodes[EVE].device.safety_number(ada).unwrap();
    assert_ne!(other, world.nodes[DAN].device.safety_number(ada).unwrap());
    let wrong = world.nodes[EVE].device.verify_person(now, dan, &other);
    assert!(matches!(wrong, Err(Error::PeerMisbehaved(PeerMisbehaved::WrongKey(_)))), "{wrong:?}");
    assert!(world.nodes[EVE].device.person(dan).unwrap().verified.is_none());
    assert!(world.nodes[EVE].device.safety_number(eve).is_err(), "with oneself there is nothing to compare");
    // It survives a restart.
    world.nodes[ADA].crash();
    assert!(world.nodes[ADA].device.person(dan).unwrap().verified_at().is_some());
}

#[test]
fn a_changed_key_of_somebody_unverified_is_told_once_and_stops_nothing() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[DAN]), world.person(DAN));
    let before = world.nodes[ADA].device.person(dan).unwrap().key();
    world.give_another_key(BOB, DAN, world.now);
    world.look(ADA, DAN);
    world.look(ADA, DAN);
    assert_eq!(world.told(ADA, |notice| is_changed(notice, dan, false)), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!(changes(&world, ADA, matter), 1);
    let known = world.nodes[ADA].device.person(dan).unwrap();
    assert_eq!(known.key(), before, "nothing is taken silently");
    assert!(known.changed.is_some());
    world.say(ADA, matter, "still here");
    world.settle();
    world.agree(matter, &[ADA, DAN], &["still here"]);
}

#[test]
fn a_changed_key_of_somebody_verified_stops_texts_to_them_until_it_is_accepted() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[DAN, EVE]), world.person(DAN));
    let other = world.matter(&[EVE]);
    compare(&mut world, ADA, DAN);
    world.disconnect(ADA);
    world.say(ADA, matter, "typed before");
    world.give_another_key(BOB, DAN, world.now);
    // The newest chain comes before the text goes out.
    let chain = world.relay.show(dan);
    world.nodes[ADA].device.take_chain(dan, chain).unwrap();
    world.settle();
    assert_eq!(world.told(ADA, |notice| is_changed(notice, dan, true)), 1);
    assert_eq!((changes(&world, ADA, matter), changes(&world, ADA, other)), (1, 0));
    let (now, id) = (world.now, MessageId::random());
    let refused = world.nodes[ADA].device.send_text(now, matter, id, "no").unwrap_err();
    assert_eq!(refused, Misuse::IdentityChanged.into());
    assert_eq!(world.nodes[ADA].device.in_doubt(matter), [dan]);
    world.say(ADA, other, "elsewhere");
    world.settle();
    world.agree(other, &[ADA, EVE], &["elsewhere"]);
    world.agree(matter, &[ADA, DAN, EVE], &[]);
    // A restart changes nothing.
    world.nodes[ADA].crash();
    world.settle();
    world.agree(matter, &[ADA, DAN, EVE], &[]);
    let (was, is) = {
        let device = &world.nodes[ADA].device;
        (device.safety_number(dan).unwrap(), device.changed_safety_number(dan).unwrap())
    };
    assert_ne!(was, is);
    let now = world.now;
    let early = world.nodes[ADA].device.verify_person(now, dan, &is).unwrap_err();
    assert_eq!(early, Misuse::IdentityChanged.into(), "accepting comes first");
    assert!(world.nodes[ADA].device.trust_person(now, dan).unwrap());
    world.settle();
    world.agree(matter, &[ADA, DAN, EVE], &["typed before"]);
    let device = &mut world.nodes[ADA].device;
    assert_eq!(device.safety_number(dan).unwrap(), is);
    assert!(device.person(dan).unwrap().verified.is_none(), "what was verified was the key before");
    assert!(!device.trust_person(now, dan).unwrap(), "there is nothing more to accept");
    device.verify_person(now, dan, &is).unwrap();
}

#[test]
fn whoever_is_in_doubt_is_not_added() {
    let mut world = World::office();
    let (dan, matter) = (world.person(DAN), world.matter(&[]));
    world.look(ADA, DAN);
    world.look(DAN, ADA);
    compare(&mut world, ADA, DAN);
    world.give_another_key(BOB, DAN, world.now);
    world.add(ADA, matter, DAN);
    world.settle();
    let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::Misuse(Misuse::IdentityChanged), .. } if *person == dan);
    assert_eq!(world.told(ADA, refused), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!(people(&world, ADA, matter), 1);
}

#[test]
fn an_old_statement_does_not_bring_an_old_key_back() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[DAN]), world.person(DAN));
    let old = world.relay.show(dan);
    world.give_another_key(BOB, DAN, world.now);
    world.look(ADA, DAN);
    let now = world.now;
    world.nodes[ADA].device.trust_person(now, dan).unwrap();
    let accepted = world.nodes[ADA].device.person(dan).unwrap().key();
    let told = world.nodes[ADA].device.take_chain(dan, old);
    assert!(matches!(told, Err(Error::PeerMisbehaved(PeerMisbehaved::Mismatch(_)))), "{told:?}");
    world.drain(ADA);
    let known = world.nodes[ADA].device.person(dan).unwrap();
    assert_eq!((known.key(), known.changed.is_none()), (accepted, true));
    // The matter goes on to list the key before; that is not news.
    world.say(ADA, matter, "one");
    world.add(ADA, matter, EVE);
    world.settle();
    assert_eq!(changes(&world, ADA, matter), 1);
    assert_eq!(people(&world, EVE, matter), 3, "a newcomer is shown the key that the matter lists");
}

/// Nobody becomes somebody else by a word of whoever manages the matter: that would keep every newcomer out, too.
#[test]
fn another_key_or_role_in_the_list_of_a_matter_is_void_for_all() {
    type Alter = fn(&mut Participant);
    let alters: [Alter; 2] =
        [|listed| listed.person_key = Digest::of(&[b"another"]), |listed| listed.role = Role::Custodian];
    for alter in alters {
        let mut world = World::office();
        let (matter, dan) = (world.matter(&[BOB, DAN]), world.person(DAN));
        compare(&mut world, ADA, DAN);
        let now = world.now;
        let bob = &mut world.nodes[BOB].device;
        let mut context = bob.group(matter).unwrap().context().unwrap();
        context.people.iter_mut().filter(|listed| listed.person == dan).for_each(alter);
        let (row, state) = (bob.rooms[&matter].row.clone(), bob.group(matter).unwrap().state());
        let wild = Wild { context: Some(context), ..Wild::default() };
        let commit = forge::commit(&bob.me, row.group, state, &wild, &Seen::at(row.position));
        let fence = bob.append(matter, &envelope::wrap(Class::Commit, &commit).unwrap(), true).unwrap();
        bob.new_post(PendingPost::new(vec![fence], matter, Purpose::Roster));
        bob.handle_time(now);
        world.settle();
        let void =
            |record: &Record| matches!(&record.what, RecordBody::Void { why, .. } if why.contains("who somebody is"));
        for who in [ADA, DAN] {
            assert_eq!(world.records(who, matter).iter().filter(|record| void(record)).count(), 1, "device {who}");
        }
        assert_eq!((changes(&world, ADA, matter), changes(&world, DAN, matter)), (0, 0));
        world.say(DAN, matter, "still me");
        world.add(ADA, matter, EVE);
        world.settle();
        assert_eq!(people(&world, EVE, matter), 4, "a newcomer gets in");
    }
}

#[test]
fn nobody_but_this_person_has_their_key() {
    let mut world = World::office();
    let dan = world.person(DAN);
    let before = world.nodes[DAN].device.person(dan).unwrap().key();
    world.give_another_key(BOB, DAN, world.now);
    world.look(DAN, DAN);
    let told = |notice: &Notice| {
        matches!(notice, Notice::Identity { outcome: Err(Error::PeerMisbehaved(PeerMisbehaved::WrongKey(_))), .. })
    };
    assert_eq!(world.told(DAN, told), 1, "{:?}", world.nodes[DAN].notices);
    let known = world.nodes[DAN].device.person(dan).unwrap();
    assert_eq!((known.key(), known.changed.is_none()), (before, true));
}

#[test]
fn a_relay_that_gives_somebody_elses_id_for_a_handle_gets_nobody_added() {
    let mut world = World::office();
    let (matter, eve) = (world.matter(&[]), world.person(EVE));
    let now = world.now;
    world.nodes[ADA].device.add(now, matter, eve, "dan").unwrap();
    world.settle();
    let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::PeerMisbehaved(_), .. } if *person == eve);
    assert_eq!(world.told(ADA, refused), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!(people(&world, ADA, matter), 1);
}

/// Ada adds whom Bob has invited: she knows no name, and everybody else in the matter saw a bare handle for ever.
#[test]
fn whoever_vouches_for_somebody_tells_their_name_where_it_is_missing() {
    let mut world = World::office();
    let dan = world.person(DAN);
    let name =
        |world: &World, who: usize| world.nodes[who].device.person(dan).unwrap().name.clone().map(|name| name.name);
    let known = Some("dan".to_owned());
    // Bob is there when Dan comes in.
    let matter = world.matter(&[BOB, EVE, DAN]);
    for who in [ADA, BOB, EVE] {
        assert_eq!(name(&world, who), known, "device {who}");
        assert!(world.nodes[who].device.pending(matter).is_empty());
    }
    // Cyn and Bob come in after Dan, and Bob finds that nobody has told it.
    let mut world = World::office();
    let late = world.matter(&[DAN, CYN, BOB]);
    for who in [ADA, CYN, BOB] {
        assert_eq!(name(&world, who), known, "device {who}");
    }
    world.say(CYN, late, "good morning");
    world.settle();
    assert_eq!(world.words(DAN, late), ["good morning"]);
}

/// A member tells names that nobody has vouched for, and one of somebody who is not in the matter.
#[test]
fn a_name_that_fits_no_endorsement_is_not_taken() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, CYN]);
    let (dan, eve) = (world.person(DAN), world.person(EVE));
    world.nodes[ADA].device.ask_identity(world.now, eve);
    world.settle();
    let named = |person, name: &str| NamedPerson { person, name: Name::new(name).unwrap(), self_stated: false };
    let eves = world.nodes[CYN].device.person(eve).unwrap().name.clone().unwrap();
    let names = vec![named(dan, "Queen Victoria"), NamedPerson { person: eve, name: eves, self_stated: false }];
    let body = Body::Bundle(Bundle { identities: Vec::new(), names });
    let content = Content { id: MessageId::random(), sent_at: world.now, body, log: None }.encode();
    let now = world.now;
    let device = &mut world.nodes[CYN].device;
    let seen = Seen::at(device.rooms[&matter].row.position);
    let part = device.sealed(matter, &content, &seen).unwrap();
    device.new_post(PendingPost::new(vec![part], matter, Purpose::Text(u64::MAX)));
    device.settle(now);
    world.settle();
    assert_eq!(world.nodes[ADA].device.person(dan).unwrap().name, None);
    assert_eq!(world.nodes[ADA].device.person(eve).unwrap().name, None, "who is not in it");
}

/// Nobody has looked at them between the confirmation and their new key, which nobody has accepted yet.
#[test]
fn a_name_that_was_confirmed_stays_so_under_a_key_that_follows() {
    let mut world = World::office();
    world.matter_by(BOB, &[DAN, CYN]);
    let dan = world.person(DAN);
    let self_stated = |world: &World| world.nodes[CYN].device.person(dan).unwrap().self_stated;
    assert!(self_stated(&world));
    world.disconnect(CYN);
    world.nodes[BOB].device.confirm_name(world.now, dan).unwrap();
    world.run();
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.run();
    world.settle();
    assert!(world.nodes[CYN].device.person(dan).unwrap().changed.is_some());
    assert!(!self_stated(&world));
}
