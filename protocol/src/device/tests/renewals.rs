//! Endorsements that end, are renewed, and confirm names; names that look alike.

use super::*;
use crate::device::state::Cause;
use crate::error::PeerMisbehaved;
use crate::frame::Reply;
use crate::ids::Timestamp;
use crate::limits;

/// Somebody's endorsement ends in a second.
fn ends_soon(world: &mut World, by: usize, whom: usize) {
    let now = world.now;
    world.endorse_anew(by, whom, |said| (said.from, said.until) = (now, now.plus_ms(1000)));
}

fn expired(world: &World, who: usize, matter: MatterId) -> Vec<PersonId> {
    world.nodes[who].device.expired_in(matter, world.now)
}

/// Why a text is not taken.
fn refused(world: &mut World, who: usize, matter: MatterId) -> Misuse {
    let (now, id) = (world.now, MessageId::random());
    let why = world.nodes[who].device.send_text(now, matter, id, "no").unwrap_err();
    world.drain(who);
    match why {
        Error::Misuse(misuse) => misuse,
        other => panic!("{other:?}"),
    }
}

fn recorded(world: &World, who: usize, matter: MatterId, what: &RecordBody) -> usize {
    world.records(who, matter).iter().filter(|record| record.what == *what).count()
}

fn go_on(world: &mut World, who: usize, matter: MatterId) {
    let now = world.now;
    world.nodes[who].device.go_on(now, matter).unwrap();
    world.run();
}

fn until(world: &World, whom: usize) -> Timestamp {
    world.relay.endorsement(world.person(whom)).until
}

#[test]
fn one_expired_endorsement_among_five_neither_forks_the_matter_nor_keeps_a_sixth_out() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[BOB, CYN, DAN, EVE]), world.person(DAN));
    ends_soon(&mut world, BOB, DAN);
    for who in [ADA, BOB, CYN, EVE] {
        world.look(who, DAN);
        assert_eq!(expired(&world, who, matter), []);
    }
    world.now = world.now.plus_ms(2000);
    assert_eq!(expired(&world, ADA, matter), [dan]);

    // The sender is asked, once, and sends.
    assert_eq!(refused(&mut world, ADA, matter), Misuse::Lapsed);
    let told =
        |notice: &Notice| matches!(notice, Notice::Lapsed { person, cause: Cause::Expired(_), .. } if *person == dan);
    assert_eq!(world.told(ADA, told), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!(recorded(&world, ADA, matter, &RecordBody::Expired { person: dan }), 1);
    go_on(&mut world, ADA, matter);
    world.say(ADA, matter, "one");
    world.say(ADA, matter, "two");
    world.settle();
    let again = Device::open(&world.nodes[ADA].vault).unwrap();
    assert!(again.lapses_in(matter).is_empty(), "her word outlives a crash");
    assert_eq!(world.told(ADA, told), 1, "{:?}", world.nodes[ADA].notices);
    world.say(DAN, matter, "three");
    world.settle();
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Lapsed { .. })), 0, "he knows of nothing");

    // Nobody judges by it: a sixth comes in, and everybody goes on.
    let fay = world.join(CYN, "fay", Role::Client);
    world.add(CYN, matter, fay);
    world.settle();
    assert_eq!(
        refused(&mut world, fay, matter),
        Misuse::Lapsed,
        "a newcomer knows it from the chains that came with the Welcome"
    );
    go_on(&mut world, fay, matter);
    world.say(fay, matter, "four");
    world.settle();
    world.agree(matter, &[ADA, BOB, CYN, DAN, EVE], &["one", "two", "three", "four"]);
    assert_eq!(world.words(fay, matter), ["four"]);
    assert_eq!((0..6).map(|who| people(&world, who, matter)).collect::<Vec<_>>(), [6; 6]);
    for who in [ADA, BOB, CYN, EVE, fay] {
        let told = |notice: &Notice| matches!(notice, Notice::Lapsed { .. });
        assert_eq!(world.told(who, told), 1, "device {who}: {:?}", world.nodes[who].notices);
    }

    // It keeps him out of what he is not in.
    let other = world.matter(&[]);
    world.add(ADA, other, DAN);
    world.settle();
    let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::Refused(Refused::NotAllowed { .. }), .. } if *person == dan);
    assert_eq!(world.told(ADA, refused), 1, "{:?}", world.nodes[ADA].notices);
}

#[test]
fn renewing_an_endorsement_changes_no_leaf_and_no_epoch() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[BOB, DAN, EVE]), world.person(DAN));
    ends_soon(&mut world, BOB, DAN);
    world.look(ADA, DAN);
    world.now = world.now.plus_ms(2000);
    let leaves = |world: &mut World| {
        let group = world.nodes[ADA].device.group(matter).unwrap();
        let leaves: Vec<_> = group.members().into_iter().map(|member| (member.leaf, member.credential)).collect();
        (group.epoch(), leaves, group.context().unwrap())
    };
    let before = leaves(&mut world);
    let entries = world.relay.matter_entries(world.nodes[ADA].device.matter(matter).unwrap().mailbox);

    world.again(BOB);
    assert_eq!(until(&world, DAN), world.now.plus_ms(limits::ENDORSEMENT_LIFETIME_MS));
    let renewed =
        |notice: &Notice| matches!(notice, Notice::EndorsedAnew { person, outcome: Ok(()) } if *person == dan);
    assert_eq!(world.told(BOB, renewed), 1, "{:?}", world.nodes[BOB].notices);
    // Who knows that it ends looks again.
    world.again(ADA);
    assert_eq!(expired(&world, ADA, matter), []);
    assert_eq!(leaves(&mut world), before);
    assert_eq!(world.relay.matter_entries(world.nodes[ADA].device.matter(matter).unwrap().mailbox), entries);
    world.say(DAN, matter, "here");
    world.settle();
    world.agree(matter, &[ADA, BOB, DAN, EVE], &["here"]);
    // It is good for adding him again.
    let other = world.matter(&[DAN]);
    assert_eq!(people(&world, DAN, other), 2);
}

#[test]
fn an_endorsement_is_renewed_once_less_than_a_third_of_its_life_is_left() {
    let mut world = World::office();
    let day = 24 * 3600 * 1000;
    let first = world.now;
    world.endorse_anew(BOB, DAN, |said| (said.from, said.until) = (first, first.plus_ms(30 * day)));
    world.now = first.plus_ms(19 * day);
    world.again(BOB);
    assert_eq!(until(&world, DAN), first.plus_ms(30 * day), "a third is left");
    // A link that stays up asks once a day.
    world.now = first.plus_ms(20 * day + 1);
    let now = world.now;
    world.nodes[BOB].device.handle_time(now);
    world.run();
    assert_eq!(until(&world, DAN), now.plus_ms(limits::ENDORSEMENT_LIFETIME_MS));
    let said = world.relay.endorsement(world.person(DAN));
    assert_eq!((said.handle.as_str(), said.role, said.registrar, said.confirmed), ("dan", Role::Client, false, false));
}

#[test]
fn a_relay_that_shows_what_is_not_due_or_not_valid_gets_nothing_signed() {
    let mut world = World::office();
    let (dan, before) = (world.person(DAN), until(&world, DAN));
    let Reply::Chain { chain } = world.relay.show(dan) else { panic!("no chain") };
    let mut cut = chain.clone();
    cut.truncate(1);
    ends_soon(&mut world, DAN, DAN);
    let Reply::Chain { chain: forged } = world.relay.show(dan) else { panic!("no chain") };
    let now = world.now.plus_ms(900);
    world.nodes[BOB].device.renewals_came(now, Reply::Chains { chains: vec![chain, cut, forged] });
    world.nodes[BOB].device.handle_time(now);
    world.run();
    let problems = world.told(BOB, |notice| matches!(notice, Notice::Problem(Error::PeerMisbehaved(_))));
    assert_eq!(problems, 2, "{:?}", world.nodes[BOB].notices);
    assert_eq!(world.told(BOB, |notice| matches!(notice, Notice::EndorsedAnew { .. })), 0);
    assert_ne!(until(&world, DAN), before, "but what the test forged");
    assert_eq!(until(&world, DAN), world.now.plus_ms(1000));
}

#[test]
fn a_registrar_renews_what_somebody_gave_who_does_not_come_back() {
    let mut world = World::office();
    world.disconnect(BOB);
    ends_soon(&mut world, BOB, DAN);
    world.now = world.now.plus_ms(900);
    world.disconnect(ADA);
    world.connect(ADA);
    world.run();
    let said = world.relay.endorsement(world.person(DAN));
    assert_eq!(said.issuer.map(|issuer| issuer.person), Some(world.person(ADA)));
    // Cyn of staff gave it not, and is no registrar.
    ends_soon(&mut world, BOB, DAN);
    world.now = world.now.plus_ms(900);
    let before = until(&world, DAN);
    world.disconnect(CYN);
    world.connect(CYN);
    world.run();
    assert_eq!(until(&world, DAN), before);
}

#[test]
fn the_organisations_key_renews_its_registrar() {
    let mut world = World::office();
    let now = world.now;
    world.organisation_endorses(ADA, |said| (said.from, said.until) = (now, now.plus_ms(1000)));
    world.now = now.plus_ms(900);
    world.again(ADA);
    let said = world.relay.endorsement(world.person(ADA));
    assert_eq!((said.issuer, said.registrar), (None, true));
    assert_eq!(said.until, now.plus_ms(900).plus_ms(limits::ENDORSEMENT_LIFETIME_MS));
    let fay = world.join(ADA, "fay", Role::Client);
    assert!(world.nodes[fay].device.is_ready(), "the chain holds");
}

#[test]
fn nobody_is_renewed_under_another_key_than_is_known() {
    let mut world = World::office();
    world.look(ADA, DAN);
    let (dan, now) = (world.person(DAN), world.now);
    world.give_another_key(BOB, DAN, now);
    ends_soon(&mut world, BOB, DAN);
    world.now = now.plus_ms(900);
    world.disconnect(BOB);
    world.disconnect(ADA);
    world.connect(ADA);
    world.run();
    assert_eq!(until(&world, DAN), now.plus_ms(1000), "nobody has signed");
    let problem = |notice: &Notice| *notice == Notice::Problem(Misuse::IdentityChanged.into());
    assert_eq!(world.told(ADA, problem), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::IdentityChanged { person, .. } if *person == dan)), 1);
}

#[test]
fn a_name_is_self_stated_until_whoever_may_endorse_confirms_it() {
    let mut world = World::office();
    let (matter, dan) = (world.open(BOB), world.person(DAN));
    [ADA, DAN, EVE].into_iter().for_each(|whom| world.add(BOB, matter, whom));
    world.settle();
    let stated = |world: &World, who: usize| world.nodes[who].device.person(dan).unwrap().self_stated;
    assert!([ADA, BOB, DAN, EVE].iter().all(|who| stated(&world, *who)));
    let now = world.now;
    let refused = world.nodes[EVE].device.confirm_name(now, dan).unwrap_err();
    assert!(matches!(refused, Error::Refused(Refused::NotAllowed { .. })), "{refused:?}");
    let cyn = world.person(CYN);
    assert!(world.nodes[EVE].device.person(cyn).is_some_and(|known| known.name.is_none()));
    let refused = world.nodes[EVE].device.confirm_name(now, cyn).unwrap_err();
    assert!(matches!(refused, Error::Refused(Refused::NotAllowed { .. })), "whatever else is missing: {refused:?}");
    world.nodes[BOB].device.confirm_name(now, dan).unwrap();
    world.settle();
    assert!(world.relay.endorsement(dan).confirmed);
    assert!(!stated(&world, BOB) && !stated(&world, DAN), "he is told");
    world.look(ADA, DAN);
    assert!(!stated(&world, ADA));
    let name = world.nodes[ADA].device.person(dan).unwrap().name.clone();
    assert_eq!(name.unwrap().name, "dan", "and the name stays");
    // Whoever comes in learns it so; a renewal keeps it.
    world.add(ADA, matter, CYN);
    world.settle();
    assert!(!stated(&world, CYN));
    let later = world.now;
    world.endorse_anew(BOB, DAN, |said| (said.from, said.until) = (later, later.plus_ms(1)));
    world.now = later.plus_ms(1);
    world.again(BOB);
    assert!(world.relay.endorsement(dan).confirmed);
}

#[test]
fn a_newcomer_whose_name_looks_like_somebodys_is_pointed_out() {
    let mut world = World::office();
    let fay = world.join(BOB, "fay", Role::Client);
    assert_eq!(world.told(BOB, |notice| matches!(notice, Notice::LooksAlike { .. })), 0);
    let gus = world.join(BOB, "d-an", Role::Client);
    let (dan, other) = (world.person(DAN), world.person(gus));
    let told = |notice: &Notice| matches!(notice, Notice::LooksAlike { person, like, .. } if *person == other && *like == ["dan (dan)"]);
    assert_eq!(world.told(BOB, told), 1, "{:?}", world.nodes[BOB].notices);
    let device = &world.nodes[BOB].device;
    assert_eq!((device.look_alikes(other), device.look_alikes(dan)), (vec![dan], vec![other]));
    assert!(device.look_alikes(world.person(fay)).is_empty());
}

#[test]
fn the_newest_statement_counts_whatever_the_relay_shows() {
    let mut world = World::office();
    let (old, dan) = (world.relay.show(world.person(DAN)), world.person(DAN));
    let now = world.now;
    world.nodes[BOB].device.confirm_name(now, dan).unwrap();
    world.settle();
    world.look(ADA, DAN);
    let chain = world.nodes[ADA].device.take_chain(dan, old).unwrap();
    let said: crate::identity::Endorsement = chain[0].endorsement.unverified("endorsement").unwrap();
    assert!(said.confirmed && !world.nodes[ADA].device.person(dan).unwrap().self_stated);
    let other = world.relay.show(world.person(EVE));
    let told = world.nodes[ADA].device.take_chain(dan, other);
    assert_eq!(told, Err(PeerMisbehaved::Mismatch("a chain of endorsements").into()));
}
