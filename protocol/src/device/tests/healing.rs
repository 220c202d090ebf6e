//! Fresh keys in time, many devices at once, and a member who was away for long.
//!
//! What several rooms need stands here, with the tests of when keys are owed and when they are made.

use super::*;
use crate::envelope::{self, Class};
use crate::ids::DeviceId;

mod away;
mod crowd;
mod lost;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

/// A Commit in a matter's mailbox: its seq, the epoch it ends, and its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fence {
    seq: u64,
    epoch: u64,
    by: DeviceId,
}

/// Lets time pass: every device is called when it wants to be, and all of them at the end.
fn pass(world: &mut World, ms: u64) {
    let end = world.now.plus_ms(ms);
    for _ in 0..100_000 {
        let online = world.nodes.iter().filter(|node| node.is_online());
        let next = online.filter_map(|node| node.device.deadline()).filter(|at| *at <= end).min();
        world.now = next.map_or(end, |at| at.max(world.now));
        let now = world.now;
        for node in world.nodes.iter_mut().filter(|node| node.is_online()) {
            if next.is_none() || node.device.deadline().is_some_and(|at| at <= now) {
                node.device.handle_time(now);
            }
        }
        world.run();
        if next.is_none() {
            return;
        }
    }
    panic!("some device wants to be called for ever");
}

/// Time in which nobody is called.
fn skip(world: &mut World, ms: u64) {
    world.now = world.now.plus_ms(ms);
}

/// Every Commit of a matter, as its mailbox has them.
fn fences(world: &World, who: usize, matter: MatterId) -> Vec<Fence> {
    let mailbox = world.nodes[who].device.matter(matter).unwrap().mailbox;
    let fences = world.relay.entries(mailbox).iter().filter(|entry| entry.fence).map(|entry| {
        let EntryBody::Envelope(bytes) = &entry.body else { panic!("a fence expired") };
        let (class, payload) = envelope::unwrap(&bytes.0).unwrap();
        assert_eq!(class, Class::Commit);
        Fence { seq: entry.seq, epoch: Seen::with_epoch(payload).unwrap().0, by: entry.by.unwrap() }
    });
    fences.collect()
}

/// How many Commits of a device stand in a matter.
fn made(world: &World, who: usize, matter: MatterId) -> usize {
    let device = world.nodes[who].device.profile().device;
    fences(world, who, matter).iter().filter(|fence| fence.by == device).count()
}

fn epoch(world: &World, who: usize, matter: MatterId) -> u64 {
    world.nodes[who].device.matter(matter).unwrap().epoch
}

fn row(world: &mut World, who: usize, matter: MatterId) -> &mut MatterRow {
    &mut world.nodes[who].device.rooms.get_mut(&matter).unwrap().row
}

/// From now on this device owes the matter fresh keys.
fn owe(world: &mut World, who: usize, matter: MatterId) {
    row(world, who, matter).healing.due = true;
    let device = &mut world.nodes[who].device;
    device.save_room(matter);
    device.flush();
}

fn leaf(world: &mut World, who: usize, matter: MatterId) -> u64 {
    u64::from(world.nodes[who].device.group(matter).unwrap().own_leaf())
}

/// A matter of Ada's with somebody who is not online.
fn matter_while_away(world: &mut World, whom: usize) -> MatterId {
    let matter = world.open(ADA);
    world.add(ADA, matter, whom);
    world.run();
    matter
}

/// How many records of a kind a device has.
fn count(world: &World, who: usize, matter: MatterId, what: impl Fn(&RecordBody) -> bool) -> usize {
    world.records(who, matter).iter().filter(|record| what(&record.what)).count()
}

/// Everybody says something that all of them read, and nobody waits for anything.
fn all_talk(world: &mut World, matter: MatterId, who: &[usize]) {
    for by in who {
        let text = format!("device {by} is here at {}", world.now.0);
        world.say(*by, matter, &text);
        world.settle();
        for reader in who {
            assert_eq!(world.words(*reader, matter).last(), Some(&text), "device {reader} reads {by}");
        }
    }
    for index in who {
        assert_eq!(stage(world, *index, matter), Stage::Open, "device {index}");
        assert_eq!(epoch(world, *index, matter), epoch(world, who[0], matter), "device {index}");
        let room = &world.nodes[*index].device.rooms[&matter];
        assert!(room.outbox.is_empty() && room.intents.is_empty() && room.commits.is_empty(), "device {index}");
        assert!(room.row.lost.is_none(), "device {index}");
    }
}

#[test]
fn keys_are_owed_after_a_hundred_texts_and_not_before() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    for text in 1..limits::HEAL_MESSAGES {
        world.say(DAN, matter, &text.to_string());
    }
    world.run();
    pass(&mut world, 20 * SECOND);
    assert_eq!(made(&world, DAN, matter), 0);
    assert!(!world.nodes[DAN].device.owes_keys(world.now));
    world.say(DAN, matter, "the last one");
    world.run();
    assert!(world.nodes[DAN].device.owes_keys(world.now));
    pass(&mut world, 20 * SECOND);
    assert_eq!(made(&world, DAN, matter), 1);
    assert!(!world.nodes[DAN].device.owes_keys(world.now));
    assert_eq!(world.words(ADA, matter).len(), limits::HEAL_MESSAGES as usize);
    all_talk(&mut world, matter, &[ADA, DAN]);
}

#[test]
fn keys_are_owed_a_day_after_the_last_ones_by_whoever_spoke_and_after_a_week_by_the_others() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(DAN, matter, "good day");
    world.run();
    pass(&mut world, DAY - MINUTE);
    assert_eq!(fences(&world, ADA, matter).len(), 1, "nothing but the addition");
    pass(&mut world, 2 * MINUTE);
    assert_eq!((made(&world, ADA, matter), made(&world, DAN, matter)), (1, 1), "whoever spoke");
    pass(&mut world, 6 * DAY - 2 * MINUTE);
    assert_eq!((made(&world, ADA, matter), made(&world, DAN, matter)), (1, 1));
    pass(&mut world, 2 * MINUTE);
    assert_eq!((made(&world, ADA, matter), made(&world, DAN, matter)), (2, 1), "whoever did not");
    pass(&mut world, DAY);
    assert_eq!((made(&world, ADA, matter), made(&world, DAN, matter)), (2, 2));
    assert_eq!(world.relay.refused(), 0);
    all_talk(&mut world, matter, &[ADA, DAN]);
}

#[test]
fn whoever_joined_by_a_last_resort_key_package_makes_new_keys_at_once() {
    for last_resort in [false, true] {
        let mut world = World::office();
        let dan = world.nodes[DAN].device.profile().device;
        world.disconnect(DAN);
        if last_resort {
            world.relay.forget_packages(dan, false);
        }
        let matter = matter_while_away(&mut world, DAN);
        world.connect(DAN);
        world.run();
        assert_eq!(stage(&world, DAN, matter), Stage::Open);
        assert_eq!(world.nodes[DAN].device.owes_keys(world.now), last_resort);
        pass(&mut world, 10 * SECOND);
        assert_eq!(made(&world, DAN, matter), usize::from(last_resort));
        assert!(!world.nodes[DAN].device.owes_keys(world.now));
        all_talk(&mut world, matter, &[ADA, DAN]);
    }
}

#[test]
fn an_update_comes_after_the_texts_that_wait() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.disconnect(DAN);
    skip(&mut world, 8 * DAY);
    for text in ["one", "two", "three"] {
        world.say(DAN, matter, text);
    }
    for one_shot in [false, true] {
        let mut world = world.fork();
        for who in [ADA, BOB, DAN] {
            world.connect(who);
        }
        if one_shot {
            // Asked for before anything was said, it still comes last.
            let now = world.now;
            assert!(world.nodes[DAN].device.owes_keys(now));
            world.nodes[DAN].device.heal(now);
        }
        world.run();
        assert_eq!(made(&world, DAN, matter), usize::from(one_shot), "nobody waits for it");
        world.agree(matter, &[ADA, BOB, DAN], &["one", "two", "three"]);
        pass(&mut world, 20 * SECOND);
        assert_eq!(made(&world, DAN, matter), 1);
        let device = world.nodes[DAN].device.profile().device;
        let update = fences(&world, ADA, matter).into_iter().find(|fence| fence.by == device).unwrap();
        assert!(world.texts(ADA, matter).iter().all(|(seq, _, _)| *seq < update.seq));
        all_talk(&mut world, matter, &[ADA, BOB, DAN]);
    }
}

#[test]
fn no_update_is_made_within_two_seconds_of_another_fence() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    pass(&mut world, 10 * SECOND);
    for who in [ADA, BOB, DAN] {
        let turn = leaf(&mut world, who, matter) * 500;
        let other = if who == ADA { BOB } else { ADA };
        for whom in [CYN, EVE] {
            // Another fence comes just before its turn, and it waits again.
            owe(&mut world, who, matter);
            world.add(other, matter, whom);
            world.run();
            let before = made(&world, who, matter);
            pass(&mut world, 1_999 + turn);
            assert_eq!(made(&world, who, matter), before, "device {who}");
        }
        let before = made(&world, who, matter);
        pass(&mut world, 1);
        assert_eq!(made(&world, who, matter), before + 1, "device {who}, leaf {turn}");
        for whom in [CYN, EVE] {
            world.remove(other, matter, whom);
            world.run();
        }
    }
    assert_eq!(world.relay.refused(), 0);
    all_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

#[test]
fn where_everybody_owes_keys_one_update_follows_the_other_and_none_is_refused() {
    let mut world = World::office();
    let who = [ADA, BOB, CYN, DAN, EVE];
    let matter = world.matter(&who[1..]);
    for index in who {
        owe(&mut world, index, matter);
        let now = world.now;
        world.nodes[index].device.handle_time(now);
    }
    world.run();
    let (epoch_before, from) = (epoch(&world, ADA, matter), fences(&world, ADA, matter).len());
    pass(&mut world, 30 * SECOND);
    for index in who {
        assert!(!world.nodes[index].device.owes_keys(world.now), "device {index}");
    }
    let after = fences(&world, ADA, matter).split_off(from);
    let mut leaves: Vec<u64> = Vec::new();
    for fence in &after {
        let by = who.into_iter().find(|index| world.nodes[*index].device.profile().device == fence.by).unwrap();
        leaves.push(leaf(&mut world, by, matter));
    }
    assert_eq!(leaves, [0, 1, 2, 3, 4], "one each, the lowest leaf first");
    assert_eq!(epoch(&world, EVE, matter), epoch_before + 5);
    assert_eq!(world.relay.refused(), 0, "a race");
    all_talk(&mut world, matter, &who);
}

/// Those who were let in together owe their weekly keys at the same moment, long behind the last fence.
#[test]
fn members_whose_week_ends_at_the_same_moment_take_turns() {
    let mut world = World::office();
    let who = [ADA, BOB, CYN, DAN, EVE];
    let matter = world.matter(&who[1..]);
    pass(&mut world, 7 * DAY + MINUTE);
    for index in who {
        assert!(!world.nodes[index].device.owes_keys(world.now), "device {index}");
        assert_eq!(made(&world, index, matter), 1 + usize::from(index == ADA), "device {index}");
    }
    assert_eq!(world.relay.refused(), 0, "a race");
    all_talk(&mut world, matter, &who);
}

#[test]
fn a_device_that_was_away_owes_keys_when_it_comes_back_even_after_a_crash() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(DAN, matter, "before");
    world.run();
    world.disconnect(DAN);
    skip(&mut world, DAY);
    world.nodes[DAN].crash();
    assert!(world.nodes[DAN].device.owes_keys(world.now));
    world.connect(DAN);
    world.run();
    assert_eq!(made(&world, DAN, matter), 0);
    world.nodes[DAN].crash();
    world.connect(DAN);
    world.run();
    pass(&mut world, 10 * SECOND);
    assert_eq!(made(&world, DAN, matter), 1);
    // What counts towards the next ones survives as well.
    row(&mut world, DAN, matter).healing.sent = limits::HEAL_MESSAGES - 1;
    world.say(DAN, matter, "the hundredth");
    world.run();
    world.nodes[DAN].crash();
    assert!(world.nodes[DAN].device.owes_keys(world.now));
    world.settle();
    pass(&mut world, 10 * SECOND);
    assert_eq!(made(&world, DAN, matter), 2);
    all_talk(&mut world, matter, &[ADA, DAN]);
}

#[test]
fn a_program_for_one_command_makes_what_is_owed_at_once_and_once() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let other = world.matter(&[DAN]);
    world.disconnect(DAN);
    assert!(!world.nodes[DAN].device.owes_keys(world.now));
    skip(&mut world, 7 * DAY);
    assert!(world.nodes[DAN].device.owes_keys(world.now));
    world.connect(DAN);
    world.run();
    assert_eq!(made(&world, DAN, matter), 0);
    let now = world.now;
    world.nodes[DAN].device.heal(now);
    world.run();
    for matter in [matter, other] {
        assert_eq!(made(&world, DAN, matter), 1, "without waiting for its turn");
    }
    assert!(!world.nodes[DAN].device.owes_keys(world.now));
    world.nodes[DAN].device.heal(now);
    world.run();
    pass(&mut world, 10 * SECOND);
    for matter in [matter, other] {
        assert_eq!(made(&world, DAN, matter), 1, "once");
        all_talk(&mut world, matter, &[ADA, DAN]);
    }
}

#[test]
fn where_an_epoch_has_sealed_its_last_message_the_next_text_waits_for_a_commit() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    row(&mut world, DAN, matter).healing.generations = limits::GENERATIONS_MAX - 1;
    let before = epoch(&world, ADA, matter);
    for text in ["the last", "the first", "the second"] {
        world.say(DAN, matter, text);
    }
    world.run();
    world.agree(matter, &[ADA, DAN], &["the last", "the first", "the second"]);
    let update = fences(&world, ADA, matter).last().unwrap().seq;
    let seqs: Vec<u64> = world.texts(ADA, matter).into_iter().map(|(seq, _, _)| seq).collect();
    assert!(seqs[0] < update && update < seqs[1], "{seqs:?}, {update}");
    assert_eq!(epoch(&world, ADA, matter), before + 1);
    assert_eq!(row(&mut world, DAN, matter).healing.generations, 2);
    // Somebody else's Commit does as well.
    row(&mut world, DAN, matter).healing.generations = limits::GENERATIONS_MAX;
    world.add(ADA, matter, EVE);
    world.run();
    world.say(DAN, matter, "the third");
    world.run();
    assert_eq!(made(&world, DAN, matter), 1);
    all_talk(&mut world, matter, &[ADA, DAN, EVE]);
}

#[test]
fn alone_in_a_matter_nothing_is_ever_owed() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    for text in 0..=limits::HEAL_MESSAGES {
        world.say(ADA, matter, &text.to_string());
    }
    world.run();
    pass(&mut world, 30 * DAY);
    assert!(!world.nodes[ADA].device.owes_keys(world.now));
    let epoch = world.nodes[ADA].device.matter(matter).unwrap().epoch;
    assert_eq!(epoch, 0, "no Commit was made");
    let now = world.now;
    world.nodes[ADA].device.heal(now);
    world.run();
    assert_eq!(fences(&world, ADA, matter), []);
    // With the first other person it is, at once.
    world.add(ADA, matter, DAN);
    world.run();
    pass(&mut world, 10 * SECOND);
    all_talk(&mut world, matter, &[ADA, DAN]);
}
