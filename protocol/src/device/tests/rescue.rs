//! Out of step and back: repairs, copies, successors and restored relays.

use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::{people, stage};
use crate::device::Notice;
use crate::device::state::{PendingPost, Purpose, RecordBody, Stage, Table};
use crate::envelope::{self, Class};
use crate::error::{Error, PeerMisbehaved, Refused};
use crate::frame::{Blob, Part};
use crate::ids::{MatterId, Position};
use crate::matter::{Certificates, Change, Companion, Seen};

/// What a device has recorded beside texts and people coming and going.
pub(super) fn notes(world: &World, who: usize, matter: MatterId) -> Vec<RecordBody> {
    let usual = |what: &RecordBody| {
        matches!(
            what,
            RecordBody::Text { .. } | RecordBody::Joined | RecordBody::Added { .. } | RecordBody::Removed { .. }
        )
    };
    world.records(who, matter).into_iter().map(|record| record.what).filter(|what| !usual(what)).collect()
}

/// Everybody says something that everybody reads, in the same order.
fn all_can_talk(world: &mut World, matter: MatterId, who: &[usize]) {
    let before: Vec<usize> = who.iter().map(|index| world.texts(*index, matter).len()).collect();
    for index in who {
        world.say(*index, matter, &format!("{index} is here"));
    }
    world.settle();
    let last = |world: &World, index: usize| {
        let texts = world.texts(index, matter);
        texts[texts.len().saturating_sub(who.len())..].to_vec()
    };
    for (index, before) in who.iter().zip(before) {
        assert_eq!(world.texts(*index, matter).len(), before + who.len(), "device {index}");
        assert_eq!(last(world, *index), last(world, who[0]), "device {index}");
        assert!(world.nodes[*index].device.is_settled(), "device {index}");
    }
    let epochs: Vec<u64> = who.iter().map(|index| world.nodes[*index].device.matter(matter).unwrap().epoch).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
}

/// A device can't follow the matter any more.
pub(super) fn lose_way(world: &mut World, who: usize, matter: MatterId) {
    let now = world.now;
    world.nodes[who].device.lose_way(now, matter);
    world.nodes[who].device.handle_time(now);
}

/// Lets the time come for whoever waits for it, until nobody does within this many milliseconds.
pub(super) fn let_pass(world: &mut World, ms: u64) {
    let end = world.now.plus_ms(ms);
    let mut turns = 0;
    loop {
        world.settle();
        let next = (0..world.nodes.len()).filter_map(|i| Some((world.nodes[i].device.deadline()?, i))).min();
        let Some((at, index)) = next.filter(|(at, _)| *at <= end) else { break };
        turns += 1;
        assert!(turns < 100_000, "a deadline that leads to nothing makes its driver spin");
        // Devices learn the time when they are called: another's may have passed since.
        world.now = world.now.max(at);
        let now = world.now;
        world.nodes[index].device.handle_time(now);
    }
    world.now = end;
    world.settle();
}

#[test]
fn a_device_put_out_of_step_is_let_back_in_and_sees_what_it_missed() {
    let mut world = World::office();
    world.nodes[DAN].spoil_leaf_keys();
    let matter = world.matter(&[BOB, DAN]);
    world.say(ADA, matter, "one");
    world.settle();
    // A Commit whose path secret does not open for Dan, whatever is right for the others.
    world.add(BOB, matter, EVE);
    world.run();
    world.say(ADA, matter, "two");
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::OutOfStep);
    let waits = world.say(DAN, matter, "three");
    let_pass(&mut world, 60_000);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    let told = notes(&world, DAN, matter);
    assert!(matches!(told[..], [RecordBody::OutOfStep, RecordBody::Repaired { .. }]), "{told:?}");
    let dans = world.nodes[DAN].device.profile().clone();
    for who in [ADA, BOB, EVE] {
        let back = RecordBody::LetBackIn { person: dans.person, device: dans.device };
        assert_eq!(notes(&world, who, matter), [back], "device {who}");
    }
    assert!(!world.words(DAN, matter).contains(&"two".to_owned()), "it was said before he was back");
    assert_eq!(world.words(DAN, matter), ["one", "three"]);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Stored { id, .. } if *id == waits)), 1);
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

#[test]
fn a_client_may_let_their_attorney_back_in() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    lose_way(&mut world, ADA, matter);
    let_pass(&mut world, 60_000);
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
    all_can_talk(&mut world, matter, &[ADA, DAN]);
}

#[test]
fn a_repair_is_done_once_however_many_could_do_it() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN, EVE]);
    let epoch = world.nodes[ADA].device.matter(matter).unwrap().epoch;
    let before = world.relay.posts;
    lose_way(&mut world, EVE, matter);
    let_pass(&mut world, 60_000);
    assert_eq!(world.relay.posts, before + 2, "one request, one answer");
    assert_eq!(world.nodes[BOB].device.matter(matter).unwrap().epoch, epoch + 1);
    all_can_talk(&mut world, matter, &[ADA, BOB, CYN, DAN, EVE]);
}

/// Whoever could answer first may be away: then others do, after a while.
#[test]
fn a_request_is_answered_by_whoever_comes_online() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.disconnect(ADA);
    world.disconnect(BOB);
    lose_way(&mut world, DAN, matter);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::OutOfStep);
    world.connect(BOB);
    for _ in 0..3 {
        world.run();
        if stage(&world, DAN, matter) == Stage::OutOfStep {
            world.wait(BOB);
        }
    }
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

/// The Commit that answers is read before the Welcome, with what was said behind it: all of that is read again.
#[test]
fn whoever_is_let_back_in_while_away_reads_what_was_said_since() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    lose_way(&mut world, DAN, matter);
    world.drain(DAN);
    world.disconnect(DAN);
    world.settle_but(DAN);
    assert_eq!(notes(&world, BOB, matter).len(), 1, "he was let back in");
    world.say(BOB, matter, "since");
    world.settle_but(DAN);
    let_pass(&mut world, 60_000);
    assert_eq!(world.words(DAN, matter), ["since"]);
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

/// A member's answer to the one request there is, not posted: the Commit's envelope, and the part that carries its Welcome.
pub(super) fn answer_in_private(world: &mut World, by: usize, matter: MatterId) -> (Vec<u8>, Part) {
    let device = &mut world.nodes[by].device;
    let row = device.rooms[&matter].row.clone();
    let held = row.requests[0].clone();
    let companion = Companion {
        bundle: device.bundle_of(row.people.into_iter(), &[]),
        seen: row.position,
        line: Vec::new(),
        fates: Vec::new(),
    };
    let group = device.group(matter).unwrap();
    let change = Change {
        add: vec![held.request.package.0.clone()],
        remove: vec![group.member_of(held.request.device).unwrap().0.leaf],
        context: None,
        companion: Some(companion),
    };
    let seen = Seen { repair: Some(held.digest), ..Seen::at(row.position) };
    let inbox = held.request.inbox;
    let built = group.build(change, &seen, Certificates::repair(held.request)).unwrap();
    let welcome = Part::Append {
        mailbox: inbox,
        base: Position::start(inbox),
        fence: false,
        envelope: Blob(envelope::wrap(Class::Welcome, &built.welcome.unwrap()).unwrap()),
        keep_ms: 1_000_000,
    };
    (envelope::wrap(Class::Commit, &built.commit).unwrap(), welcome)
}

/// A member lets somebody back into a group of the two alone: a Welcome, and a fence that is void for everybody else.
#[test]
fn a_false_answer_is_found_out_by_what_the_others_say() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.disconnect(ADA);
    world.disconnect(BOB);
    lose_way(&mut world, DAN, matter);
    world.run();
    let now = world.now;
    let (mut commit, welcome) = answer_in_private(&mut world, EVE, matter);
    *commit.last_mut().unwrap() ^= 1;
    let eve = &mut world.nodes[EVE].device;
    let fence = eve.append(matter, &commit, true).unwrap();
    eve.rooms.get_mut(&matter).unwrap().row.requests.clear();
    eve.new_post(PendingPost::new(vec![fence, welcome], matter, Purpose::Roster));
    eve.handle_time(now);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open, "he believes it");
    world.settle();
    world.say(BOB, matter, "honest");
    let_pass(&mut world, 60_000);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    let told = notes(&world, DAN, matter);
    let back = told.iter().filter(|what| matches!(what, RecordBody::Repaired { .. })).count();
    assert_eq!(back, 2, "{told:?}");
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

/// What a copy is about to post may have been refused to the other under the same idem, so that nothing of it waits any more.
#[test]
fn another_post_under_the_newest_idem_proves_a_copy() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    world.relay.copies = true;
    world.disconnect(ADA);
    let vault = world.nodes[ADA].vault.clone();
    // The other copy's text is accepted under the next idem.
    world.say(ADA, matter, "of the first");
    world.settle();
    // This one's, under the same idem, was refused for good.
    let newest = world.relay.newest.clone();
    world.disconnect(ADA);
    world.nodes[ADA].vault = vault;
    world.nodes[ADA].crash();
    world.relay.newest.clear();
    world.say(ADA, matter, "of the second");
    world.relay.refuse_before_idem = Some(Refused::Full { what: "this mailbox".to_owned() });
    world.connect(ADA);
    world.run();
    world.disconnect(ADA);
    world.relay.newest = newest;
    let_pass(&mut world, 60_000);
    assert_eq!(world.told(ADA, |notice| *notice == Notice::Copied), 1);
    all_can_talk(&mut world, matter, &[ADA, BOB]);
}

#[test]
fn a_request_behind_which_a_fence_came_is_asked_again() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.disconnect(BOB);
    lose_way(&mut world, DAN, matter);
    // Ada adds somebody before she answers.
    world.add(ADA, matter, EVE);
    let_pass(&mut world, 60_000);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

#[test]
fn a_crash_while_being_let_back_in_loses_nothing() {
    for persist in 1.. {
        let mut world = World::office();
        world.nodes[DAN].spoil_leaf_keys();
        let matter = world.matter(&[BOB, DAN]);
        world.nodes[DAN].persists = 0;
        world.nodes[DAN].crash_at = Some(persist);
        world.say(DAN, matter, "mine");
        world.add(BOB, matter, EVE);
        let_pass(&mut world, 60_000);
        assert_eq!(stage(&world, DAN, matter), Stage::Open, "crashed after {persist}");
        assert_eq!(world.words(ADA, matter), ["mine"], "crashed after {persist}");
        all_can_talk(&mut world, matter, &[ADA, BOB, DAN, EVE]);
        if world.nodes[DAN].crash_at.is_some() {
            assert!(persist > 5);
            break;
        }
    }
}

#[test]
fn a_copied_vault_sends_nothing_under_old_keys_comes_back_and_the_other_copy_is_told() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let copy = world.nodes[ADA].vault.clone();
    world.say(ADA, matter, "one");
    world.settle();
    world.relay.copies = true;
    let original = world.nodes[ADA].vault.clone();
    world.nodes[ADA].vault = copy;
    world.nodes[ADA].crash();
    world.say(ADA, matter, "two");
    let_pass(&mut world, 60_000);
    assert_eq!(world.told(ADA, |notice| *notice == Notice::Copied), 1);
    assert_eq!(world.nodes[ADA].device.instance().number, 1);
    assert_eq!(world.words(BOB, matter), ["one", "two"]);
    for who in [BOB, DAN] {
        let void = |what: &RecordBody| matches!(what, RecordBody::Void { .. });
        assert!(!notes(&world, who, matter).iter().any(void), "nothing was said under keys that were used");
    }
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
    // The copy that was there first is admitted no more.
    world.disconnect(ADA);
    world.nodes[ADA].vault = original;
    world.nodes[ADA].crash();
    world.connect(ADA);
    assert!(world.nodes[ADA].replaced && !world.nodes[ADA].is_online());
}

/// The backup was made between sealing a text and hearing that it is stored; the other copy has said it, and more.
#[test]
fn what_a_copy_was_about_to_say_is_said_once() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    world.say(ADA, matter, "one");
    let copy = world.nodes[ADA].vault.clone();
    world.settle();
    world.say(ADA, matter, "two");
    world.settle();
    world.relay.copies = true;
    world.nodes[ADA].vault = copy;
    world.nodes[ADA].crash();
    let_pass(&mut world, 60_000);
    assert_eq!(world.told(ADA, |notice| *notice == Notice::Copied), 1);
    assert!(world.nodes[ADA].device.pending(matter).is_empty(), "nothing waits for ever");
    assert_eq!(world.words(BOB, matter), ["one", "two"]);
    all_can_talk(&mut world, matter, &[ADA, BOB]);
}

/// A text was sealed and refused as stale; the backup from before would seal another with the same key.
#[test]
fn a_backup_from_before_a_refused_text_is_a_copy_too() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    let backup = world.nodes[ADA].vault.clone();
    world.relay.copies = true;
    world.relay.refuse.push_back(Refused::Full { what: "this mailbox".to_owned() });
    world.say(ADA, matter, "refused");
    world.settle();
    world.nodes[ADA].vault = backup;
    world.nodes[ADA].crash();
    world.say(ADA, matter, "another");
    let_pass(&mut world, 60_000);
    assert_eq!(world.told(ADA, |notice| *notice == Notice::Copied), 1);
    assert_eq!(world.words(BOB, matter), ["another"]);
}

/// Two copies of one vault are online at once, and both post: the relay takes one idem once.
#[test]
fn of_two_copies_that_post_at_once_one_finds_out_from_the_refusal() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.relay.copies = true;
    world.disconnect(ADA);
    let vault = world.nodes[ADA].vault.clone();
    world.say(ADA, matter, "of the first");
    world.connect(ADA);
    world.run();
    // The other copy was online before, so that nobody has shown it the newest idem.
    world.nodes[ADA].vault = vault;
    world.nodes[ADA].crash();
    let newest = world.relay.newest.clone();
    let device = world.nodes[ADA].device.profile().device;
    world.relay.newest.remove(&device);
    world.say(ADA, matter, "of the second");
    world.connect(ADA);
    world.relay.newest = newest;
    let_pass(&mut world, 60_000);
    assert_eq!(world.told(ADA, |notice| *notice == Notice::Copied), 1);
    assert_eq!(world.words(BOB, matter), ["of the first", "of the second"]);
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

#[test]
fn a_backup_from_before_a_matter_finds_it_and_comes_in() {
    let mut world = World::office();
    let backup = world.nodes[DAN].vault.clone();
    let matter = world.matter(&[BOB, DAN]);
    world.say(DAN, matter, "one");
    world.settle();
    world.relay.copies = true;
    world.nodes[DAN].vault = backup;
    world.nodes[DAN].crash();
    let_pass(&mut world, 60_000);
    assert_eq!(stage(&world, DAN, matter), Stage::Open, "{:?}", notes(&world, DAN, matter));
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

#[test]
fn when_nobody_is_in_step_an_attorney_continues_the_matter() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(ADA, matter, "one");
    world.settle();
    for who in [ADA, DAN] {
        lose_way(&mut world, who, matter);
    }
    world.say(DAN, matter, "two");
    let_pass(&mut world, 120_000);
    for who in [ADA, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}");
        assert_eq!(world.nodes[who].device.matters().count(), 1, "one matter with a note in it");
        let told = notes(&world, who, matter);
        assert_eq!(told.iter().filter(|what| **what == RecordBody::Continued).count(), 1, "device {who}: {told:?}");
        assert_eq!(world.words(who, matter), ["one", "two"], "device {who}");
    }
    all_can_talk(&mut world, matter, &[ADA, DAN]);
}

/// The copy that continued the matter is gone; the one that comes back finds its own statement, and no Welcome.
#[test]
fn a_backup_of_whoever_continued_a_matter_is_let_into_it() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let backup = world.nodes[ADA].vault.clone();
    world.relay.copies = true;
    lose_way(&mut world, ADA, matter);
    let now = world.now;
    world.disconnect(BOB);
    world.nodes[ADA].device.continue_matter(now, matter).unwrap();
    let_pass(&mut world, 60_000);
    world.say(ADA, matter, "in the new place");
    world.settle();
    world.nodes[ADA].vault = backup;
    world.nodes[ADA].crash();
    let_pass(&mut world, 120_000);
    assert_eq!(stage(&world, ADA, matter), Stage::Open, "{:?}", notes(&world, ADA, matter));
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

#[test]
fn two_attorneys_who_continue_a_matter_at_once_end_in_one() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let now = world.now;
    for who in [ADA, BOB, DAN] {
        world.disconnect(who);
        lose_way(&mut world, who, matter);
    }
    for who in [ADA, BOB] {
        world.nodes[who].device.continue_matter(now, matter).unwrap();
    }
    let_pass(&mut world, 120_000);
    let mailbox = world.nodes[ADA].device.matter(matter).unwrap().mailbox;
    for who in [ADA, BOB, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}: {:?}", world.records(who, matter));
        assert_eq!(world.nodes[who].device.matter(matter).unwrap().mailbox, mailbox);
        assert_eq!(world.nodes[who].device.matters().count(), 1);
        assert_eq!(people(&world, who, matter), 3);
    }
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

/// Whoever continues a matter without knowing of a removal is overruled by whoever does.
#[test]
fn a_person_removed_meanwhile_stays_out_of_the_successor() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let now = world.now;
    world.disconnect(ADA);
    world.remove(BOB, matter, EVE);
    world.run();
    assert_eq!(people(&world, DAN, matter), 3);
    // Ada can't follow the removal, and would continue with Eve in it.
    lose_way(&mut world, ADA, matter);
    world.nodes[ADA].device.continue_matter(now, matter).unwrap();
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}: {:?}", world.records(who, matter));
        assert_eq!(people(&world, who, matter), 3, "device {who}");
    }
    assert_eq!(stage(&world, EVE, matter), Stage::Removed);
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

#[test]
fn a_client_does_not_continue_a_matter() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    lose_way(&mut world, DAN, matter);
    let now = world.now;
    assert!(matches!(world.nodes[DAN].device.continue_matter(now, matter), Err(Error::Refused(_))));
    world.nodes[DAN].device.post_successor(matter).unwrap();
    let_pass(&mut world, 60_000);
    let role: Error = PeerMisbehaved::Role("continuing a matter").into();
    let told = notes(&world, ADA, matter);
    assert!(told.contains(&RecordBody::Void { why: role.to_string(), claimed: true }), "{told:?}");
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
    assert_eq!(stage(&world, DAN, matter), Stage::Open, "he was let back in instead");
    all_can_talk(&mut world, matter, &[ADA, DAN]);
}

#[test]
fn a_crash_while_a_matter_is_continued_loses_nothing() {
    for who in [ADA, DAN] {
        for persist in 1.. {
            let mut world = World::office();
            let matter = world.matter(&[DAN]);
            for other in [ADA, DAN] {
                lose_way(&mut world, other, matter);
            }
            world.say(DAN, matter, "two");
            world.nodes[who].persists = 0;
            world.nodes[who].crash_at = Some(persist);
            let_pass(&mut world, 120_000);
            for other in [ADA, DAN] {
                assert_eq!(stage(&world, other, matter), Stage::Open, "device {other}, {who} crashed after {persist}");
                assert_eq!(world.words(other, matter), ["two"], "device {other}, {who} crashed after {persist}");
            }
            if world.nodes[who].crash_at.is_some() {
                assert!(persist > 5);
                break;
            }
        }
    }
}

#[test]
fn a_relay_restored_from_a_backup_gets_back_what_it_has_forgotten() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.say(ADA, matter, "one");
    world.settle();
    let yesterday = world.relay.clone();
    for (who, text) in [(ADA, "two"), (DAN, "three"), (ADA, "four")] {
        world.say(who, matter, text);
        world.settle();
    }
    world.restore(yesterday);
    let_pass(&mut world, 60_000);
    for who in [ADA, BOB, DAN] {
        assert_eq!(world.told(who, |notice| *notice == Notice::Restored), 1, "device {who} alarms");
        let mut words = world.words(who, matter);
        words.sort();
        assert_eq!(words, ["four", "one", "three", "two"], "device {who}: once each");
        assert_eq!(stage(&world, who, matter), Stage::Open);
        let odd = |what: &RecordBody| matches!(what, RecordBody::Void { .. } | RecordBody::Forked { .. });
        assert!(!notes(&world, who, matter).iter().any(odd), "{:?}", notes(&world, who, matter));
    }
    let again = notes(&world, ADA, matter);
    assert!(again.contains(&RecordBody::Restored { again: 2 }), "{again:?}");
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
    // Somebody who comes in now reads all of it that still waits to be read, in the restored mailbox.
    let in_the_mailbox = world.relay.matter_entries(world.nodes[ADA].device.matter(matter).unwrap().mailbox);
    assert!(in_the_mailbox >= 2 + 4 + 3, "{in_the_mailbox}");
}

#[test]
fn a_matter_whose_commits_the_relay_has_forgotten_is_continued() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.say(ADA, matter, "one");
    world.settle();
    let yesterday = world.relay.clone();
    world.disconnect(BOB);
    world.remove(ADA, matter, EVE);
    world.run();
    world.say(DAN, matter, "two");
    world.run();
    world.restore(yesterday);
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}: {:?}", world.nodes[who].notices);
        assert_eq!(people(&world, who, matter), 3, "device {who}: Eve stays out");
        assert!(world.words(who, matter).contains(&"two".to_owned()), "device {who}: {:?}", world.records(who, matter));
    }
    all_can_talk(&mut world, matter, &[ADA, BOB, DAN]);
}

/// A text that was a device's last word: stored, and never read back before the relay went back in time.
#[test]
fn what_the_relay_stored_and_forgot_before_its_author_read_it_is_sent_again() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let yesterday = world.relay.clone();
    let id = world.say(ADA, matter, "last word");
    let vault = loop {
        world.turn(ADA);
        if world.told(ADA, |notice| matches!(notice, Notice::Stored { id: told, .. } if *told == id)) > 0 {
            break world.nodes[ADA].vault.clone();
        }
    };
    assert_eq!(world.words(ADA, matter).len(), 0, "it was not read back");
    world.restore(yesterday);
    world.nodes[ADA].vault = vault;
    world.nodes[ADA].crash();
    let_pass(&mut world, 60_000);
    world.agree(matter, &[DAN], &["last word"]);
    assert_eq!(world.words(ADA, matter), ["last word"]);
    assert!(world.nodes[ADA].device.pending(matter).is_empty());
}

/// A backup that nobody has declared as one looks like a fork, and stops; once it is declared, it goes on.
#[test]
fn a_fork_turns_out_to_be_a_backup_once_the_relay_says_so() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let yesterday = world.relay.clone();
    world.say(ADA, matter, "one");
    world.settle();
    let incarnation = world.relay.incarnation;
    world.restore(yesterday);
    world.relay.incarnation = incarnation;
    let_pass(&mut world, 1_000);
    for who in [ADA, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Forked, "device {who}");
        let told = notes(&world, who, matter);
        assert!(matches!(told[..], [RecordBody::Forked { .. }]), "{told:?}");
    }
    world.relay.incarnation = [7; 16];
    for who in [ADA, DAN] {
        world.disconnect(who);
    }
    let_pass(&mut world, 60_000);
    all_can_talk(&mut world, matter, &[ADA, DAN]);
    let mut words = world.words(DAN, matter);
    words.retain(|text| text == "one");
    assert_eq!(words.len(), 1);
}

#[test]
fn no_secret_of_a_request_is_left_once_it_was_used() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let before = world.nodes[DAN].vault.0.keys().filter(|key| key.0 == Table::KeyPackage).count();
    lose_way(&mut world, DAN, matter);
    let_pass(&mut world, 60_000);
    let after = world.nodes[DAN].vault.0.keys().filter(|key| key.0 == Table::KeyPackage).count();
    assert_eq!(after, before);
}
