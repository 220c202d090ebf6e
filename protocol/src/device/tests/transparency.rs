//! The relay's audit log, as devices hold the relay to it.

use super::rescue::let_pass;
use super::world::log::Log;
use super::world::{ADA, BOB, CYN, DAN, World};
use super::*;
use crate::error::PeerMisbehaved;
use crate::log::{Act, LogHead};

fn faults(world: &World, who: usize) -> Vec<String> {
    let view = world.nodes[who].device.log().expect("a checkpoint was taken");
    view.faults.iter().map(|fault| fault.what.clone()).collect()
}

fn told(world: &World, who: usize) -> usize {
    world.told(who, |notice| matches!(notice, Notice::Log { .. }))
}

/// Somebody's log, with one more leaf that is in no other.
fn forked(world: &World) -> Log {
    let mut log = world.relay.log.clone();
    log.add(world.person(DAN), Act::InviteExpired { invite: InviteId::new([9; 16]) });
    log
}

#[test]
fn an_honest_log_grows_and_accuses_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let before = world.nodes[ADA].device.log().unwrap().head;
    world.join(ADA, "fay", Role::Client);
    world.settle();
    world.disconnect(ADA);
    world.settle();
    world.say(ADA, matter, "one");
    world.settle();
    let after = world.nodes[ADA].device.log().unwrap().head;
    assert!(after.size > before.size, "{before:?} {after:?}");
    for who in [ADA, BOB, DAN] {
        assert!(faults(&world, who).is_empty() && told(&world, who) == 0, "device {who}: {:?}", faults(&world, who));
        assert_eq!(world.told(who, |notice| matches!(notice, Notice::DoneInYourName(_))), 0, "device {who}");
    }
}

/// The relay shows Dan another log than everybody else: the next message that he reads tells him, and his tells them.
#[test]
fn a_relay_that_shows_two_logs_is_exposed_by_the_next_message() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.relay.other_log = Some((world.nodes[DAN].device.profile().device, forked(&world)));
    world.disconnect(DAN);
    world.join(ADA, "fay", Role::Client);
    world.disconnect(ADA);
    world.settle();
    assert_eq!(told(&world, DAN), 0, "to each alone its log is in order: {:?}", faults(&world, DAN));
    world.say(ADA, matter, "one");
    world.settle();
    assert_eq!(told(&world, DAN), 1, "{:?}", world.nodes[DAN].notices);
    let by = world.person(ADA);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Log { by: Some(person), .. } if *person == by)), 1);
    world.say(DAN, matter, "two");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["one", "two"], "the matter goes on");
    // What it was is kept, with what the relay signed, across a crash.
    world.nodes[DAN].crash();
    let view = world.nodes[DAN].device.log().unwrap().clone();
    assert_eq!(view.faults.len(), 1);
    let verifier = view.keys.verifier(&world.nodes[DAN].device.profile().relay).unwrap();
    assert!(verifier.open(&view.faults[0].known).is_ok());
}

#[test]
fn a_log_that_became_shorter_or_another_is_told_and_not_taken() {
    for (cut, what) in [(2, "shorter"), (0, "changed"), (1, "does not continue")] {
        let mut world = World::office();
        world.matter(&[BOB]);
        let known = world.nodes[BOB].device.log().unwrap().head;
        let mut log = world.relay.log.clone();
        let dan = world.person(DAN);
        log.leaves.truncate(log.leaves.len() - 2);
        for number in 0..(2_u8.saturating_sub(cut)) {
            log.add(dan, Act::InviteExpired { invite: InviteId::new([number; 16]) });
        }
        if cut == 1 {
            (0..4).for_each(|number| log.add(dan, Act::InviteExpired { invite: InviteId::new([number; 16]) }));
        }
        world.relay.other_log = Some((world.nodes[BOB].device.profile().device, log));
        world.disconnect(BOB);
        world.settle();
        assert_eq!(told(&world, BOB), 1, "{what}: {:?}", world.nodes[BOB].notices);
        assert!(faults(&world, BOB)[0].contains(what), "{:?}", faults(&world, BOB));
        assert_eq!(world.nodes[BOB].device.log().unwrap().head, known, "{what}");
    }
}

#[test]
fn nobody_is_added_whose_keys_are_not_in_the_log() {
    let mut world = World::office();
    let (matter, cyn) = (world.matter(&[]), world.person(CYN));
    world.relay.unlogged.insert(cyn);
    world.relay.log.leaves.retain(|(leaf, _)| leaf.person != Some(cyn));
    world.disconnect(ADA);
    let now = world.now;
    // A device that has seen no log yet: the one that it is shown is in order in itself.
    world.nodes[ADA].vault.0.retain(|(_, _, key), _| key != b"log");
    world.nodes[ADA].crash();
    world.settle();
    world.add(ADA, matter, CYN);
    world.settle();
    let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::PeerMisbehaved(PeerMisbehaved::Unlogged), .. } if *person == cyn);
    assert_eq!(world.told(ADA, refused), 1, "{now:?} {:?}", world.nodes[ADA].notices);
    assert_eq!(people(&world, ADA, matter), 1);
    world.relay.unlogged.clear();
    world.add(ADA, matter, CYN);
    let_pass(&mut world, 60_000);
    assert_eq!(people(&world, ADA, matter), 2, "once they are, they are added");
}

#[test]
fn what_is_done_in_somebodys_name_is_told_to_them_once() {
    let mut world = World::office();
    world.matter(&[DAN]);
    let dan = world.person(DAN);
    world.relay.log.add(dan, Act::DeviceAdded { device: DeviceId::random(), certificate: Digest::of(&[b"x"]) });
    for _ in 0..2 {
        world.disconnect(DAN);
        world.settle();
    }
    let strange = |notice: &Notice| matches!(notice, Notice::DoneInYourName(Act::DeviceAdded { .. }));
    assert_eq!(world.told(DAN, strange), 1, "{:?}", world.nodes[DAN].notices);
    assert_eq!(world.told(ADA, strange), 0);
}

/// A member lies about the log: their name is shown, once, and nothing else comes of it.
#[test]
fn a_member_who_lies_about_the_log_is_named_and_stops_nothing() {
    for size in [Some(1), None, Some(4_000)] {
        let mut world = World::office();
        let matter = world.matter(&[BOB, DAN]);
        for _ in 0..2 {
            let device = &mut world.nodes[DAN].device;
            let head = device.log().unwrap().head;
            let root = crate::log::TreeHash::new([7; 32]);
            let lie = LogHead { size: size.unwrap_or(head.size), root, ..head };
            device.watch.view.as_mut().unwrap().head = lie;
            world.say(DAN, matter, "two");
            world.run();
        }
        let by = world.person(DAN);
        let named = |notice: &Notice| matches!(notice, Notice::Log { by: Some(person), .. } if *person == by);
        for who in [ADA, BOB] {
            assert_eq!(world.told(who, named), 1, "device {who}, size {size:?}");
            assert_eq!(world.words(who, matter), ["two", "two"]);
        }
        world.nodes[DAN].crash();
        world.say(BOB, matter, "on we go");
        world.settle();
        assert_eq!(world.words(ADA, matter).last().unwrap(), "on we go");
    }
}

#[test]
fn another_log_of_the_same_relay_is_not_this_one() {
    let mut world = World::office();
    world.relay.log_name = Some([77; 16]);
    let known = world.nodes[BOB].device.log().unwrap().head;
    world.disconnect(BOB);
    world.settle();
    assert_eq!(told(&world, BOB), 1, "{:?}", world.nodes[BOB].notices);
    assert!(faults(&world, BOB)[0].contains("the name of the relay's audit log"), "{:?}", faults(&world, BOB));
    assert_eq!(world.nodes[BOB].device.log().unwrap().head, known);
}

/// What the relay says of somebody must be in the log, all of it, and in order.
#[test]
fn what_is_left_out_or_made_up_of_somebody_adds_nobody() {
    for forged in [true, false] {
        let mut world = World::office();
        let (matter, cyn) = (world.matter(&[]), world.person(CYN));
        world.relay.log.leaves.retain(|(leaf, _)| leaf.person != Some(cyn));
        world.disconnect(ADA);
        world.nodes[ADA].vault.0.retain(|(_, _, key), _| key != b"log");
        world.nodes[ADA].crash();
        if forged {
            world.relay.unlogged.insert(cyn);
            world.relay.forged_leaves = true;
        } else {
            // Everything that is looked for stands behind the leaf that is left out.
            world.relay.log.add(cyn, Act::InviteExpired { invite: InviteId::new([9; 16]) });
            world.relay.hidden_leaf = Some((cyn, 1));
        }
        world.settle();
        world.add(ADA, matter, CYN);
        world.settle();
        let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::PeerMisbehaved(PeerMisbehaved::Unlogged), .. } if *person == cyn);
        assert_eq!(world.told(ADA, refused), 1, "forged {forged}: {:?}", world.nodes[ADA].notices);
        assert!(!faults(&world, ADA).is_empty());
        assert_eq!(people(&world, ADA, matter), 1);
    }
}
