//! What the audit log says of people, held against what the relay has told of them.

use super::rescue::let_pass;
use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::*;
use crate::device::state::{Cause, Lapse};
use crate::error::PeerMisbehaved;
use crate::limits;
use crate::log::Act;

fn faults(world: &World, who: usize) -> Vec<String> {
    let view = world.nodes[who].device.log().expect("a checkpoint was taken");
    view.faults.iter().map(|fault| fault.what.clone()).collect()
}

fn kept_back(world: &World, who: usize, matter: MatterId) -> Vec<PersonId> {
    let lapses = world.nodes[who].device.lapses_in(matter);
    let kept = |lapse: &&Lapse| matches!(lapse.cause, Cause::KeptBack(_));
    lapses.iter().filter(kept).map(|lapse| lapse.person).collect()
}

fn recorded(world: &World, who: usize, matter: MatterId) -> usize {
    world.records(who, matter).iter().filter(|record| matches!(record.what, RecordBody::KeptBack { .. })).count()
}

fn told(world: &World, who: usize) -> usize {
    world.told(who, |notice| matches!(notice, Notice::Log { .. }))
}

/// The relay keeps Ada's revocation of Eve's device, and her removal, back from Bob; its log has the leaf. The next message of Ada's that he
/// reads tells of a newer log, and that of what was kept back.
#[test]
fn a_revocation_that_is_kept_back_is_found_in_the_log_by_the_next_message() {
    let mut world = World::office();
    let (matter, other) = (world.matter(&[BOB, EVE]), world.matter(&[BOB]));
    let eve = world.person(EVE);
    let bob = world.device(BOB);
    world.relay.keeps_back = Some(bob);
    world.relay.shown = Some((bob, |entries| entries.retain(|entry| !entry.fence || entry.seq <= 2)));
    world.revoke(ADA, EVE);
    assert_eq!((people(&world, ADA, matter), people(&world, BOB, matter)), (2, 3), "her removal is kept back as well");
    assert!(!world.nodes[BOB].device.is_revoked(world.device(EVE)) && told(&world, BOB) == 0);
    world.say(ADA, other, "hello Bob");
    world.settle();
    assert_eq!(world.words(BOB, other), ["hello Bob"]);
    assert_eq!(told(&world, BOB), 1, "{:?} {:?}", faults(&world, BOB), world.nodes[BOB].notices);
    assert!(faults(&world, BOB)[0].contains("revocation of a device of eve"), "{:?}", faults(&world, BOB));
    assert_eq!(kept_back(&world, BOB, matter), [eve]);
    assert_eq!(recorded(&world, BOB, matter), 1, "{:?} {:?}", world.records(BOB, matter), world.nodes[BOB].notices);
    // Once it is told, all is well; the proof stays.
    (world.relay.keeps_back, world.relay.shown) = (None, None);
    world.again(BOB);
    assert_eq!((kept_back(&world, BOB, matter), people(&world, BOB, matter)), (Vec::new(), 2));
    assert_eq!((told(&world, BOB), faults(&world, BOB).len()), (1, 1));
}

/// The same, with the leaf hidden from Bob, too: his log is another than Ada's.
#[test]
fn a_revocation_that_is_hidden_from_the_log_as_well_shows_with_the_next_message() {
    let mut world = World::office();
    let other = world.matter(&[BOB]);
    world.matter(&[BOB, EVE]);
    let bob = world.device(BOB);
    world.relay.keeps_back = Some(bob);
    let mut log = world.relay.log.clone();
    log.add(world.person(DAN), Act::InviteExpired { invite: InviteId::new([9; 16]) });
    log.add(world.person(DAN), Act::InviteExpired { invite: InviteId::new([8; 16]) });
    world.relay.other_log = Some((bob, log));
    world.revoke(ADA, EVE);
    world.again(BOB);
    world.again(ADA);
    assert_eq!(told(&world, BOB), 0, "to him alone all is in order: {:?}", faults(&world, BOB));
    world.say(ADA, other, "hello Bob");
    world.settle();
    assert_eq!(told(&world, BOB), 1, "{:?}", world.nodes[BOB].notices);
}

#[test]
fn a_withdrawal_that_is_kept_back_makes_texts_wait_until_it_is_explained() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[BOB, DAN]), world.person(DAN));
    world.relay.keeps_back = Some(world.device(BOB));
    world.withdraw(ADA, DAN);
    world.settle();
    assert!(!world.nodes[BOB].device.is_withdrawn(dan));
    world.again(BOB);
    assert_eq!(kept_back(&world, BOB, matter), [dan]);
    let (now, id) = (world.now, MessageId::random());
    assert_eq!(world.nodes[BOB].device.send_text(now, matter, id, "no"), Err(Misuse::Lapsed.into()));
    world.drain(BOB);
    // It outlives a crash; and is not told again.
    world.nodes[BOB].crash();
    world.settle();
    assert_eq!((kept_back(&world, BOB, matter), told(&world, BOB)), (vec![dan], 1));
    world.relay.keeps_back = None;
    world.again(BOB);
    assert!(kept_back(&world, BOB, matter).is_empty());
    assert_eq!(world.nodes[BOB].device.lapses_in(matter).len(), 1, "now he knows that it was withdrawn");
}

/// Whoever meets somebody later was not told what happened before: they ask, and nobody is accused.
#[test]
fn what_was_told_before_somebody_could_see_it_is_asked_for() {
    let mut world = World::office();
    let second = world.link(EVE);
    world.settle();
    world.revoke(EVE, second);
    let matter = world.matter(&[EVE]);
    // Dan was told up to here when he could not see her.
    world.relay.keeps_back = Some(world.device(DAN));
    world.again(DAN);
    world.relay.keeps_back = None;
    world.add(ADA, matter, DAN);
    world.settle();
    world.again(DAN);
    assert!(world.nodes[DAN].device.is_revoked(world.device(second)));
    assert!(faults(&world, DAN).is_empty() && kept_back(&world, DAN, matter).is_empty(), "{:?}", faults(&world, DAN));
}

#[test]
fn what_a_registrar_or_another_device_has_done_is_told_as_what_it_is() {
    let mut world = World::office();
    let second = world.link(DAN);
    let third = world.link(DAN);
    world.settle();
    world.revoke(DAN, second);
    world.revoke(ADA, third);
    let by_ada = Some(world.person(ADA));
    for who in [DAN, DAN] {
        world.again(who);
    }
    let done = |notice: &Notice| matches!(notice, Notice::DoneForYou { .. });
    let by = |notice: &Notice| matches!(notice, Notice::DoneForYou { by, .. } if *by == by_ada);
    assert_eq!(
        (world.told(DAN, done), world.told(DAN, by)),
        (1, 1),
        "his own he knows: {:?}",
        world.nodes[DAN].notices
    );
    // What no statement explains is told as before.
    let dan = world.person(DAN);
    let device = DeviceId::random();
    world.relay.log.add(dan, Act::DeviceRevoked { device, certificate: Digest::of(&[]), by: by_ada });
    for _ in 0..2 {
        world.again(DAN);
    }
    let strange = |notice: &Notice| matches!(notice, Notice::DoneInYourName(Act::DeviceRevoked { .. }));
    assert_eq!(world.told(DAN, strange), 1, "{:?}", world.nodes[DAN].notices);
}

/// A thief with an attorney's revoked device, and a relay that helps: what it endorses is worth nothing to whoever builds.
#[test]
fn whom_a_revoked_device_endorses_nobody_adds() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[]), world.person(DAN));
    let bobs = world.device(BOB);
    world.revoke(ADA, BOB);
    // Its log says so, and then of an endorsement that the thief has made.
    let now = world.now;
    world.endorse_anew(BOB, DAN, |said| said.from = now.plus_ms(1));
    world.add(ADA, matter, DAN);
    let_pass(&mut world, 30_000);
    let late = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::PeerMisbehaved(PeerMisbehaved::EndorsedLate), .. } if *person == dan);
    assert_eq!(world.told(ADA, late), 1, "{bobs} {:?}", world.nodes[ADA].notices);
    assert_eq!(people(&world, ADA, matter), 1);
    assert!(faults(&world, ADA).is_empty(), "the log is in order");
    // Whom it had endorsed before is added as before, and so is he once somebody else vouches for him.
    world.endorse_anew(ADA, DAN, |said| {
        (said.from, said.issuer) = (now.plus_ms(2), None);
    });
    let ada = world.nodes[ADA].device.issuer();
    world.endorse_anew(ADA, DAN, |said| said.issuer = Some(ada));
    world.add(ADA, matter, DAN);
    let_pass(&mut world, 30_000);
    assert_eq!(people(&world, ADA, matter), 2, "{:?}", world.nodes[ADA].notices);
}

#[test]
fn whom_a_withdrawn_attorney_endorses_nobody_adds_until_they_are_back() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[]), world.person(DAN));
    world.withdraw(ADA, BOB);
    let now = world.now;
    world.endorse_anew(BOB, DAN, |said| said.from = now.plus_ms(1));
    world.add(ADA, matter, DAN);
    let_pass(&mut world, 30_000);
    let late = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::PeerMisbehaved(PeerMisbehaved::EndorsedLate), .. } if *person == dan);
    assert_eq!(world.told(ADA, late), 1, "{:?}", world.nodes[ADA].notices);
    let (now, bob) = (world.now, world.person(BOB));
    world.nodes[ADA].device.endorse_again(now, bob).unwrap();
    world.run();
    world.again(ADA);
    world.endorse_anew(BOB, DAN, |said| said.from = now.plus_ms(2));
    world.add(ADA, matter, DAN);
    let_pass(&mut world, 30_000);
    assert_eq!(people(&world, ADA, matter), 2, "{:?}", world.nodes[ADA].notices);
}

/// What was read is not read again, and one link reads no more than its rounds.
#[test]
fn histories_are_read_on_from_where_they_were_read_last() {
    let mut world = World::office();
    world.matter(&[BOB, CYN]);
    world.again(ADA);
    let bob = world.person(BOB);
    let read = |world: &World| world.nodes[ADA].device.histories[&bob].clone();
    let before = read(&world);
    assert!(before.size > 0 && !before.acts.is_empty());
    // The first leaves are gone from what the relay shows: nobody misses them.
    world.relay.hidden_leaf = Some((bob, 1));
    world.relay.log.add(bob, Act::InviteExpired { invite: InviteId::new([9; 16]) });
    world.nodes[ADA].crash();
    world.settle();
    assert!(read(&world).read.unwrap().0 > before.read.unwrap().0);
    assert_eq!(read(&world).acts, before.acts);
    assert!(faults(&world, ADA).is_empty());
    let mut rounds = crate::device::logged::Rounds::default();
    let begun =
        |rounds: &mut crate::device::logged::Rounds, at| (0..9).filter(|_| rounds.may_begin(Timestamp(at))).count();
    let most = usize::try_from(limits::HISTORY_ROUNDS).unwrap();
    assert_eq!(begun(&mut rounds, limits::HISTORY_ROUND_MS), most);
    assert_eq!(begun(&mut rounds, limits::HISTORY_ROUND_MS * 2 - 1), 0);
    assert_eq!(begun(&mut rounds, limits::HISTORY_ROUND_MS * 2), most);
}
