//! What the relay claims or withholds alone, and removals that the members do not follow.

use std::cell::Cell;

use super::*;
use crate::frame::Entry;

thread_local! {
    static WITHHELD: Cell<u64> = const { Cell::new(0) };
}

/// Shows the hash of one entry alone.
fn withhold(entries: &mut [Entry]) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.seq == WITHHELD.get()) {
        entry.body = EntryBody::Expired(entry.digest());
    }
}

#[test]
fn a_withheld_bundle_pauses_the_matter_until_it_is_shown() {
    let (mut world, matter) = office();
    let before = seq(&world, DAN, matter);
    WITHHELD.set(before + 1);
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| withhold(entries)));
    world.add(ADA, matter, CYN);
    world.run();
    world.say(CYN, matter, "here I am");
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Paused);
    assert_eq!(seq(&world, DAN, matter), before + 1, "the Commit is not skipped");
    assert_eq!(people(&world, DAN, matter), 4);
    let waiting = world.say(DAN, matter, "in the meantime");
    for _ in 0..3 {
        world.wait(DAN);
        assert_eq!(stage(&world, DAN, matter), Stage::Paused, "asked again, and still withheld");
        assert_eq!(seq(&world, DAN, matter), before + 1);
    }
    world.nodes[DAN].crash();
    world.settle();
    assert_eq!(stage(&world, DAN, matter), Stage::Paused);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Stored { id, .. } if *id == waiting)), 0);
    let paused = world.records(DAN, matter).iter().filter(|record| record.what == RecordBody::Paused).count();
    assert_eq!(paused, 1, "told once");

    world.relay.shown = None;
    world.wait(DAN);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    // Between two looks at what is withheld nothing is posted.
    world.wait(DAN);
    for who in [ADA, BOB, EVE, DAN] {
        let words = world.words(who, matter);
        assert_eq!(words[words.len() - 2..], ["here I am", "in the meantime"], "device {who}");
    }
    world.remove(BOB, matter, CYN);
    world.run();
    goes_on(&mut world, matter, &ALL);
}

/// What is withheld may never come: after a while the members let the device back in behind it.
#[test]
fn a_bundle_that_never_comes_does_not_stop_a_device_for_ever() {
    let (mut world, matter) = office();
    WITHHELD.set(seq(&world, DAN, matter) + 1);
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| withhold(entries)));
    world.add(ADA, matter, CYN);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Paused);
    let end = world.now.plus_ms(limits::PAUSE_MS + 60_000);
    while world.now < end && stage(&world, DAN, matter) != Stage::Open {
        let next = (0..world.nodes.len()).filter_map(|i| Some((world.nodes[i].device.deadline()?, i))).min();
        world.wait(next.unwrap().1);
    }
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    let back = |record: &&Record| matches!(record.what, RecordBody::Repaired { .. });
    assert_eq!(world.records(DAN, matter).iter().filter(back).count(), 1);
    for who in [ADA, BOB, EVE, CYN, DAN] {
        world.say(who, matter, "on we go");
        world.run();
        assert_eq!(world.words(DAN, matter).last().map(String::as_str), Some("on we go"));
    }
}

/// A text that is withheld is a gap, whatever Commit comes behind it.
#[test]
fn a_withheld_text_pauses_nothing() {
    let (mut world, matter) = office();
    WITHHELD.set(seq(&world, DAN, matter) + 1);
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| withhold(entries)));
    world.say(ADA, matter, "unread");
    world.run();
    world.add(ADA, matter, CYN);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    together(&world, matter, &[ADA, BOB, DAN, EVE, CYN]);
    assert_eq!(world.records(DAN, matter).iter().filter(|record| record.what == RecordBody::Gap).count(), 1);
}

/// Nothing but a bundle is waited for: a member who named an old text as one would otherwise stop whoever comes back after it expired.
#[test]
fn a_commit_that_adds_nobody_waits_for_nothing_that_it_names() {
    let (mut world, matter) = office();
    WITHHELD.set(seq(&world, DAN, matter) + 1);
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| withhold(entries)));
    let before = epoch(&world, ADA, matter);
    let content = Content::text(MessageId::random(), world.now, "no bundle").unwrap().encode();
    let honest = seen(&world, EVE, matter);
    let text = world.nodes[EVE].device.sealed(matter, &content, &honest).unwrap();
    let named = Seen { bundle: Some(hash(&text)), ..honest };
    let good = forged(&mut world, EVE, matter, &Wild::default(), &named);
    post(&mut world, EVE, matter, vec![text]);
    post_commit(&mut world, EVE, matter, &good);
    for who in [ADA, BOB, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}");
        assert_eq!(epoch(&world, who, matter), before + 1, "device {who}");
    }
}

#[test]
fn a_removal_that_the_relay_claims_alone_is_not_believed() {
    let (mut world, matter) = office();
    let (now, row) = (world.now, world.nodes[DAN].device.matter(matter).unwrap().clone());
    let device = &mut world.nodes[DAN].device;
    device.handle_event(now, Event::Ended { mailbox: row.mailbox });
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Problem(Error::PeerMisbehaved(_)))), 1);
    goes_on(&mut world, matter, &ALL);

    let refused = Reply::Refused(Refused::not_found("that mailbox"));
    let now = world.now;
    let device = &mut world.nodes[DAN].device;
    let row = device.matter(matter).unwrap().clone();
    device.subscribed(now, row.mailbox, Some(row.position), refused);
    device.settle(now);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Problem(Error::Refused(_)))), 1);
    assert!(world.records(DAN, matter).iter().all(|record| !is_removal(&world, record, DAN)));
    goes_on(&mut world, matter, &ALL);
}

fn is_removal(world: &World, record: &Record, whom: usize) -> bool {
    matches!(&record.what, RecordBody::Removed { people } if people.contains(&world.person(whom)))
}

/// A Commit of Bob's that removes Dan, which nobody follows but Dan; the relay has revoked Dan's reading with it.
fn void_removal(world: &mut World, matter: MatterId) {
    let spell = Spell { spoil_tag: true, ..Spell::default() };
    let (leaf, context) = (leaf(world, DAN, matter), without(world, matter, DAN));
    let wild = Wild { remove: vec![leaf], context: Some(context), spell, ..Wild::default() };
    let seen = seen(world, BOB, matter);
    let commit = forged(world, BOB, matter, &wild, &seen);
    let commit = part(world, BOB, matter, Class::Commit, &commit, true);
    let mailbox = world.nodes[BOB].device.matter(matter).unwrap().mailbox;
    let revoke = Part::Revoke { mailbox, device: world.nodes[DAN].device.profile().device };
    post(world, BOB, matter, vec![commit, revoke]);
}

#[test]
fn a_removal_that_the_others_judge_void_is_undone() {
    for crash in [false, true] {
        let (mut world, matter) = office();
        void_removal(&mut world, matter);
        void(&world, matter, BOB, &[ADA, EVE]);
        assert_eq!(people(&world, ADA, matter), 4);
        assert_eq!(stage(&world, DAN, matter), Stage::Removed, "he alone can't tell");
        if crash {
            world.nodes[DAN].crash();
            world.settle();
        }
        // Whoever removed him is not believed, somebody else is.
        world.say(BOB, matter, "he is gone");
        world.run();
        assert_eq!(stage(&world, DAN, matter), Stage::Removed);
        world.say(EVE, matter, "he is not");
        world.run();
        assert_eq!(stage(&world, DAN, matter), Stage::Open, "crash {crash}");
        let reinstated = |record: &Record| record.what == RecordBody::Reinstated;
        assert_eq!(world.records(DAN, matter).iter().filter(|record| reinstated(record)).count(), 1);
        together(&world, matter, &ALL);
        world.say(DAN, matter, "I am back");
        world.run();
        for who in [ADA, BOB, EVE] {
            assert_eq!(world.words(who, matter).last().unwrap(), "I am back");
        }
    }
}

/// Also where nobody writes and somebody only changes the matter.
#[test]
fn a_void_removal_is_undone_by_the_next_commit_too() {
    let (mut world, matter) = office();
    void_removal(&mut world, matter);
    assert_eq!(stage(&world, DAN, matter), Stage::Removed);
    world.add(ADA, matter, CYN);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    together(&world, matter, &[ADA, BOB, DAN, EVE, CYN]);
    world.say(DAN, matter, "still here");
    world.run();
    assert_eq!(world.words(CYN, matter), ["still here"]);
}

/// A roster that an attorney spoils without any Commit is put right as soon as somebody looks: behind the next fence.
#[test]
fn the_roster_is_put_right_behind_a_void_fence() {
    let (mut world, matter) = office();
    let mailbox = world.nodes[BOB].device.matter(matter).unwrap().mailbox;
    let cyn = world.nodes[CYN].device.profile().device;
    let garbage = part(&world, BOB, matter, Class::Commit, b"garbage", true);
    let dan = world.nodes[DAN].device.profile().device;
    let stranger = Part::Grant { mailbox, device: cyn, rights: crate::frame::Rights::MEMBER, resume: false };
    post(&mut world, BOB, matter, vec![garbage, stranger, Part::Revoke { mailbox, device: dan }]);
    void(&world, matter, BOB, &[ADA, EVE]);
    world.say(EVE, matter, "for all of us");
    world.run();
    assert_eq!(world.words(DAN, matter).last().unwrap(), "for all of us");
    let members = ALL.map(|who| world.nodes[who].device.profile().device);
    assert_eq!(world.relay.readers(mailbox), members.into());
    goes_on(&mut world, matter, &ALL);
}
