//! Members who were away for long, and removals that nobody has confirmed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Up to this seq a relay has let envelopes expire.
static EXPIRED: AtomicU64 = AtomicU64::new(0);

/// What is older than the border is a hash alone, but for fences and what was posted with one.
fn expire(entries: &mut [crate::frame::Entry]) {
    let fences: Vec<u64> = entries.iter().filter(|entry| entry.fence).map(|entry| entry.seq).collect();
    for entry in entries.iter_mut().filter(|entry| entry.seq <= EXPIRED.load(Ordering::Relaxed)) {
        if !entry.fence && !fences.contains(&(entry.seq + 1)) {
            entry.body = EntryBody::Expired(entry.digest());
        }
    }
}

/// A relay that keeps no fence either.
fn expire_all(entries: &mut [crate::frame::Entry]) {
    for entry in entries.iter_mut().filter(|entry| entry.seq <= EXPIRED.load(Ordering::Relaxed)) {
        entry.body = EntryBody::Expired(entry.digest());
    }
}

#[test]
fn a_member_back_after_a_hundred_days_sees_gaps_follows_every_commit_and_can_talk() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN]);
    let with = [ADA, BOB, CYN, DAN];
    all_talk(&mut world, matter, &with);
    world.disconnect(DAN);
    let device = world.nodes[DAN].device.profile().device;
    let read = row(&mut world, DAN, matter).position.seq;
    let mut old = 0;
    for day in 0..100 {
        match day {
            3 => world.add(ADA, matter, EVE),
            5 | 7 => {
                for who in [ADA, BOB, CYN] {
                    world.say(who, matter, &format!("{who} on day {day}"));
                    world.run();
                }
            }
            10 => old = row(&mut world, ADA, matter).position.seq,
            40 => world.remove(BOB, matter, EVE),
            60 | 95 => drop(world.say(ADA, matter, "still here")),
            _ => {}
        }
        world.run();
        pass(&mut world, DAY);
        let silent = |body: &RecordBody| matches!(body, RecordBody::Silent { .. });
        for who in [ADA, BOB, CYN] {
            let told = usize::from(day >= 90);
            if day != 89 {
                assert_eq!(count(&world, who, matter, silent), told, "device {who} on day {day}");
            }
        }
    }
    assert!(fences(&world, ADA, matter).len() > 20);
    EXPIRED.store(old, Ordering::Relaxed);
    for honest in [true, false] {
        let mut world = world.fork();
        let lie: world::Lie = if honest { |entries| expire(entries) } else { |entries| expire_all(entries) };
        world.relay.shown = Some((device, lie));
        for who in [ADA, BOB, CYN, DAN] {
            world.connect(who);
        }
        world.run();
        let gaps = world.records(DAN, matter).iter().filter(|record| record.what == RecordBody::Gap).count();
        let lost = count(&world, DAN, matter, |body| *body == RecordBody::OutOfStep);
        let void =
            count(&world, DAN, matter, |body| matches!(body, RecordBody::Void { .. } | RecordBody::Dispute { .. }));
        assert_eq!(void, 0);
        pass(&mut world, 30 * SECOND);
        world.settle();
        if honest {
            let mailbox = row(&mut world, DAN, matter).mailbox;
            let mut entries = world.relay.entries(mailbox).to_vec();
            expire(&mut entries);
            let gone = |entry: &&crate::frame::Entry| entry.seq > read && matches!(entry.body, EntryBody::Expired(_));
            assert_eq!(gaps, entries.iter().filter(gone).count());
            assert!(gaps >= 2, "{gaps}");
            assert_eq!(lost, 0);
        } else {
            assert_eq!(lost, 1, "a Commit is missing");
            let repaired = |body: &RecordBody| matches!(body, RecordBody::Repaired { .. });
            assert_eq!(count(&world, DAN, matter, repaired), 1);
        }
        all_talk(&mut world, matter, &with);
        pass(&mut world, 100 * SECOND);
        for who in [ADA, BOB, CYN] {
            assert_eq!(count(&world, who, matter, |body| matches!(body, RecordBody::Silent { .. })), 1, "told once");
        }
    }
}

fn requested(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Requested { .. })
}

fn removed(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Removed { .. })
}

#[test]
fn a_removal_reads_requested_until_another_member_is_heard_and_then_removed_once() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.remove(ADA, matter, DAN);
    world.settle();
    pass(&mut world, 2 * SECOND);
    world.say(ADA, matter, "its author's own word counts for nothing");
    world.settle();
    let seen = |world: &World| (count(world, ADA, matter, requested), count(world, ADA, matter, removed));
    assert_eq!(seen(&world), (1, 0));
    world.nodes[ADA].crash();
    world.settle();
    world.say(BOB, matter, "gone");
    world.settle();
    assert_eq!(seen(&world), (1, 1));
    world.say(BOB, matter, "told already");
    world.settle();
    assert_eq!(seen(&world), (1, 1));
    assert_eq!((count(&world, BOB, matter, requested), count(&world, BOB, matter, removed)), (0, 1));
}

#[test]
fn whoever_removes_the_only_other_member_needs_nobodys_word() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.remove(ADA, matter, DAN);
    world.settle();
    assert_eq!((count(&world, ADA, matter, requested), count(&world, ADA, matter, removed)), (0, 1));
}

#[test]
fn a_relay_that_shows_a_removal_to_its_author_alone_cannot_make_it_read_removed() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.disconnect(BOB);
    let bob = world.nodes[BOB].device.profile().device;
    // The bundle and the Commit of the addition are the two first.
    world.relay.shown = Some((bob, |entries| entries.truncate(2)));
    world.connect(BOB);
    world.remove(ADA, matter, DAN);
    world.run();
    world.say(BOB, matter, "in the epoch before");
    world.run();
    world.say(ADA, matter, "are you there?");
    world.run();
    pass(&mut world, 10 * DAY);
    assert_eq!(world.words(ADA, matter), ["are you there?"]);
    assert_eq!((count(&world, ADA, matter, requested), count(&world, ADA, matter, removed)), (1, 0));
}

#[test]
fn a_last_resort_key_package_is_replaced_after_a_week_and_still_opens_what_is_in_flight() {
    let mut world = World::office();
    let device = world.nodes[DAN].device.profile().device;
    let first = world.relay.last_resort[&device].clone();
    skip(&mut world, limits::LAST_RESORT_MS - 5 * MINUTE);
    world.disconnect(DAN);
    world.connect(DAN);
    world.run();
    assert!(world.relay.last_resort[&device] == first, "not before");
    world.disconnect(DAN);
    world.relay.forget_packages(device, false);
    let matter = matter_while_away(&mut world, DAN);
    skip(&mut world, 10 * MINUTE);
    world.connect(DAN);
    world.run();
    assert!(world.relay.last_resort[&device] != first);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    pass(&mut world, 10 * SECOND);
    assert_eq!(made(&world, DAN, matter), 1, "others may have used it");
    all_talk(&mut world, matter, &[ADA, DAN]);
}
