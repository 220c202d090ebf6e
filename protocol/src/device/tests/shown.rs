//! What the relay shows of a mailbox: left out, out of order, another than before, or expired; and what members say to have read.

use super::*;

#[test]
fn a_reader_whose_relay_drops_or_reorders_entries_learns_it_from_the_next_message() {
    let lies: [fn(&mut Vec<crate::frame::Entry>); 3] = [
        |entries| drop((entries.len() > 3).then(|| entries.remove(2))),
        |entries| {
            if entries.len() > 3 {
                entries.swap(2, 3);
            }
        },
        |entries| {
            if entries.len() > 3 {
                entries[2].body = entries[3].body.clone();
            }
        },
    ];
    for lie in lies {
        let mut world = World::office();
        let matter = world.matter(&[DAN, EVE]);
        world.disconnect(DAN);
        // Neither has read the other's when they write.
        world.say(ADA, matter, "one");
        world.say(EVE, matter, "two");
        world.run();
        let dan = world.nodes[DAN].device.profile().device;
        world.relay.shown = Some((dan, lie));
        world.connect(DAN);
        world.run();
        assert_eq!(disputes(&world, DAN, matter), 0);
        world.say(EVE, matter, "three");
        world.run();
        assert_eq!(disputes(&world, DAN, matter), 1, "{:?}", world.records(DAN, matter));
        world.agree(matter, &[ADA, EVE], &["one", "two", "three"]);
    }
}

#[test]
fn a_member_who_says_to_have_read_something_else_is_shown_with_their_name() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, EVE]);
    let room = world.nodes[DAN].device.rooms.get_mut(&matter).unwrap();
    room.row.position.chain = Digest::of(&[b"another history"]);
    world.say(DAN, matter, "I read otherwise");
    world.run();
    for who in [ADA, EVE] {
        let record =
            world.records(who, matter).into_iter().find(|record| matches!(record.what, RecordBody::Dispute { .. }));
        assert_eq!(record.unwrap().from, Some(world.person(DAN)), "device {who}");
        assert_eq!(world.words(who, matter), ["I read otherwise"], "the claim is shown, not silenced");
    }
    let now = world.now;
    let silenced = world.nodes[EVE].device.send_text(now, matter, MessageId::random(), "x");
    assert_eq!(silenced, Err(Misuse::Disputed.into()), "the user is asked first");
    world.nodes[EVE].device.go_on(now, matter).unwrap();
    world.say(EVE, matter, "go on");
    world.run();
    assert_eq!(world.words(ADA, matter).len(), 2);
}

#[test]
fn a_relay_that_goes_back_on_a_position_stops_the_matter_and_no_other() {
    let mut world = World::office();
    let (matter, other) = (world.matter(&[DAN]), world.matter(&[DAN]));
    world.disconnect(DAN);
    let room = world.nodes[DAN].device.rooms.get_mut(&matter).unwrap();
    room.row.position.chain = Digest::of(&[b"another history"]);
    world.connect(DAN);
    world.say(DAN, matter, "here");
    world.say(DAN, other, "there");
    world.run();
    assert_eq!(world.words(ADA, matter), Vec::<String>::new());
    world.agree(other, &[ADA, DAN], &["there"]);
    assert_ne!(stage(&world, DAN, matter), Stage::Removed, "the relay alone can't claim a removal");
    let fork = Notice::Problem(PeerMisbehaved::Fork { seq: 2 }.into());
    assert_eq!(world.told(DAN, |notice| *notice == fork), 1, "{:?}", world.nodes[DAN].notices);
}

#[test]
fn an_expired_envelope_is_a_gap_and_the_rest_goes_on() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.disconnect(DAN);
    for text in ["one", "two"] {
        world.say(ADA, matter, text);
        world.run();
    }
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| {
        if let Some(entry) = entries.get_mut(2) {
            entry.body = EntryBody::Expired(entry.digest());
        }
    }));
    world.connect(DAN);
    world.run();
    assert_eq!(world.words(DAN, matter), ["two"]);
    assert_eq!(world.records(DAN, matter).iter().filter(|record| record.what == RecordBody::Gap).count(), 1);
    assert_eq!(disputes(&world, DAN, matter), 0);
}

/// A relay that leaves an entry out without hiding that it does.
#[test]
fn an_entry_that_comes_before_its_turn_is_not_applied_and_told_once() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let mailbox = world.nodes[DAN].device.matter(matter).unwrap().mailbox;
    let body = EntryBody::Envelope(Blob(vec![1, 1, 0]));
    for seq in [40, 41] {
        let entries = vec![crate::frame::Entry { seq, fence: false, body: body.clone(), by: None }];
        let now = world.now;
        world.nodes[DAN].device.handle_event(now, Event::Entries { mailbox, entries });
        world.run();
    }
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Problem(Error::PeerMisbehaved(_)))), 1);
    world.say(ADA, matter, "in its turn");
    world.run();
    world.agree(matter, &[ADA, DAN], &["in its turn"]);
}

/// An application message in a fence, by a relay that flips the bit, is void for whoever sees it so; and they learn that they do.
#[test]
fn a_flipped_fence_bit_is_void_and_disputed() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.disconnect(DAN);
    world.say(ADA, matter, "one");
    world.run();
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| {
        if let Some(entry) = entries.get_mut(2) {
            entry.fence = true;
        }
    }));
    world.connect(DAN);
    world.run();
    assert!(world.words(DAN, matter).is_empty());
    world.say(ADA, matter, "two");
    world.run();
    assert_eq!(world.words(DAN, matter), ["two"]);
    assert_eq!(disputes(&world, DAN, matter), 1);
}
