//! What a member can do with messages and fences alone: forge, flood, and lie about what they have read.

use std::cell::Cell;

use super::*;
use crate::frame::Entry;

const OTHERS: [usize; 3] = [ADA, BOB, DAN];

#[test]
fn a_message_that_claims_another_leaf_is_unopenable_at_its_place() {
    let (mut world, matter) = office();
    let now = world.now;
    let text = |text: &str| {
        let content = Content::text(MessageId::random(), now, text).unwrap().encode();
        envelope::pad(&content).unwrap()
    };
    // Every member can derive every member's keys of an epoch (RFC 9420, section 9), but not sign for them.
    let seen = seen(&world, EVE, matter);
    let eves = world.nodes[EVE].device.me.key.clone();
    let dan = &mut world.nodes[DAN].device;
    let state = dan.group(matter).unwrap().state();
    let (me, group) = (dan.me.clone(), dan.rooms[&matter].row.group);
    let spell = Spell { signer: Some(eves), ..Spell::default() };
    let forgery = forge::message(&me, group, state.clone(), &text("I confess"), &seen, spell);
    // The control: signed by Dan himself it opens, whoever posts it.
    let honest = forge::message(&me, group, state, &text("as Dan"), &seen, Spell::default());
    let mut control = world.fork();
    control.settle();
    let honest = part(&control, EVE, matter, Class::Message, &honest, false);
    post(&mut control, EVE, matter, vec![honest]);
    for who in [ADA, BOB, EVE] {
        let (_, author, text) = control.texts(who, matter).pop().unwrap();
        assert_eq!((author, text.as_str()), (world.person(DAN), "as Dan"), "device {who}");
    }

    world.say(ADA, matter, "before");
    world.run();
    let forgery = part(&world, EVE, matter, Class::Message, &forgery, false);
    post(&mut world, EVE, matter, vec![forgery]);
    // The relay names Eve, and Eve alone is shown.
    assert!(void(&world, matter, EVE, &[ADA, BOB, EVE]).contains("invalid signature"));
    void(&world, matter, EVE, &[DAN]);
    world.say(DAN, matter, "I said nothing");
    world.run();
    for who in ALL {
        let words = world.words(who, matter);
        assert_eq!(words[words.len() - 2..], ["before", "I said nothing"], "device {who}");
    }
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_message_that_cannot_be_opened_is_shown_so_and_nothing_more() {
    let (mut world, matter) = office();
    let content = Content::text(MessageId::random(), world.now, "x").unwrap().encode();
    let seen = seen(&world, EVE, matter);
    let Part::Append { envelope, .. } = world.nodes[EVE].device.sealed(matter, &content, &seen).unwrap() else {
        panic!()
    };
    // The framing stays: only what is sealed is random, wholly or at its end.
    for keep in [envelope.0.len() - 1, envelope.0.len() - 1000, 200] {
        let mut broken = envelope.0.clone();
        broken.iter_mut().skip(keep).for_each(|byte| *byte = !*byte);
        let broken = part(&world, EVE, matter, Class::Message, &broken[2..], false);
        post(&mut world, EVE, matter, vec![broken]);
        void(&world, matter, EVE, &OTHERS);
    }
    let before = world.words(ADA, matter).len();
    goes_on(&mut world, matter, &ALL);
    assert!(world.words(ADA, matter).len() > before);
}

/// A sealed message whose content makes no sense, or is of a kind of which nobody knows anything.
#[test]
fn a_message_that_opens_and_makes_no_sense_is_shown_at_its_place() {
    let (mut world, matter) = office();
    let seen = seen(&world, EVE, matter);
    let sealed = world.nodes[EVE].device.sealed(matter, b"no content at all", &seen).unwrap();
    post(&mut world, EVE, matter, vec![sealed]);
    void(&world, matter, EVE, &OTHERS);
    let content =
        Content { id: MessageId::random(), sent_at: world.now, body: Body::Unknown { kind: 77 }, log: None }.encode();
    let sealed = world.nodes[EVE].device.sealed(matter, &content, &seen).unwrap();
    post(&mut world, EVE, matter, vec![sealed]);
    for who in OTHERS {
        let last = world.records(who, matter).pop().unwrap();
        assert_eq!((last.from, last.what), (Some(world.person(EVE)), RecordBody::Unknown), "device {who}");
    }
    goes_on(&mut world, matter, &ALL);
}

thread_local! {
    static UPTO: Cell<usize> = const { Cell::new(0) };
}

/// Ends a mailbox early.
fn upto(entries: &mut Vec<Entry>) {
    entries.truncate(UPTO.get());
}

fn garbage(world: &mut World, matter: MatterId, number: u32) {
    let part = part(world, EVE, matter, Class::Commit, &number.to_be_bytes(), true);
    post(world, EVE, matter, vec![part]);
}

#[test]
fn fifty_void_fences_in_a_row_hold_up_nobody() {
    let (mut world, matter) = office();
    for number in 0..40 {
        garbage(&mut world, matter, number);
    }
    for who in OTHERS {
        assert_eq!(voids(&world, who, matter).len(), 40);
    }
    // Ada wants Cyn in, and each time she posts, another fence has come before hers.
    let ada = world.nodes[ADA].device.profile().device;
    let head = usize::try_from(seq(&world, ADA, matter)).unwrap();
    UPTO.set(head);
    world.relay.shown = Some((ada, upto));
    garbage(&mut world, matter, 40);
    let posts = world.relay.posts;
    world.add(ADA, matter, CYN);
    world.run();
    assert_eq!(world.relay.posts, posts + 1);
    let digests = |world: &World| world.nodes[ADA].device.rooms[&matter].commits.keys().copied().collect::<Vec<_>>();
    let first = digests(&world);
    assert_eq!(first.len(), 1);
    for number in 41..50 {
        garbage(&mut world, matter, number);
        let posts = world.relay.posts;
        UPTO.set(UPTO.get() + 1);
        world.run();
        assert_eq!(world.relay.posts, posts + 1, "posted again behind the void fence, once");
        assert_eq!(digests(&world), first, "the same bytes");
    }
    let behind = seq(&world, BOB, matter);
    world.relay.shown = None;
    world.run();
    // The bundle, then the Commit with the hash that it had from the beginning; then Cyn tells what Eve is called, whom she has invited.
    for who in OTHERS {
        assert_eq!(seq(&world, who, matter), behind + 3, "device {who}");
        let recent = &world.nodes[who].device.rooms[&matter].recent;
        let (before, after) = (recent[&(behind + 1)].position, recent[&(behind + 2)].position);
        assert_eq!(before.next(true, &first[0]), after, "device {who}");
        assert_eq!(people(&world, who, matter), 5, "device {who}");
        assert_eq!(voids(&world, who, matter).len(), 50, "device {who}");
    }
    world.remove(ADA, matter, CYN);
    world.run();
    goes_on(&mut world, matter, &ALL);
}

/// A text waits for no Commit: it is sealed again behind every fence until it fits.
#[test]
fn a_text_gets_through_between_void_fences() {
    let (mut world, matter) = office();
    let ada = world.nodes[ADA].device.profile().device;
    UPTO.set(usize::try_from(seq(&world, ADA, matter)).unwrap());
    world.relay.shown = Some((ada, upto));
    garbage(&mut world, matter, 0);
    world.say(ADA, matter, "between");
    world.run();
    for number in 1..10 {
        garbage(&mut world, matter, number);
        UPTO.set(UPTO.get() + 1);
        world.run();
        assert!(!world.words(BOB, matter).contains(&"between".to_owned()));
    }
    world.relay.shown = None;
    world.run();
    assert_eq!(world.words(BOB, matter).last().unwrap(), "between");
    goes_on(&mut world, matter, &ALL);
}

/// Eve says something, and that she has read up to there.
fn say_having_read(world: &mut World, matter: MatterId, lie: Position) {
    let room = world.nodes[EVE].device.rooms.get_mut(&matter).unwrap();
    let honest = std::mem::replace(&mut room.row.position, lie);
    world.say(EVE, matter, "I read otherwise");
    world.nodes[EVE].device.rooms.get_mut(&matter).unwrap().row.position = honest;
    world.run();
}

#[test]
fn a_lie_about_what_was_read_is_shown_with_its_author_and_silences_nobody() {
    for beyond in [true, false] {
        let (mut world, matter) = office();
        let honest = seen(&world, EVE, matter).position;
        let lie = if beyond {
            Position { seq: honest.seq + 100, ..honest }
        } else {
            Position { chain: Digest::of(&[b"another history"]), ..honest }
        };
        say_having_read(&mut world, matter, lie);
        let now = world.now;
        for who in OTHERS {
            let dispute =
                world.records(who, matter).into_iter().find(|record| matches!(record.what, RecordBody::Dispute { .. }));
            assert_eq!(dispute.unwrap().from, Some(world.person(EVE)), "device {who}");
            assert_eq!(world.words(who, matter).last().unwrap(), "I read otherwise", "shown, not void");
            assert!(voids(&world, who, matter).is_empty());
            let asked = world.nodes[who].device.send_text(now, matter, MessageId::random(), "x");
            assert_eq!(asked, Err(Misuse::Disputed.into()), "device {who} asks once");
        }
        // Changes of the matter go on in any case: removals must.
        world.add(BOB, matter, CYN);
        world.run();
        assert_eq!(people(&world, DAN, matter), 5);
        world.remove(BOB, matter, CYN);
        world.run();
        for who in OTHERS {
            world.nodes[who].device.go_on(now, matter).unwrap();
        }
        goes_on(&mut world, matter, &ALL);
    }
}

/// What waited in the outbox when the claim came goes out once the user says so, and survives a crash before.
#[test]
fn a_text_that_waits_at_a_dispute_goes_out_when_the_user_goes_on() {
    let (mut world, matter) = office();
    world.disconnect(DAN);
    world.say(DAN, matter, "written before");
    let lie = Position { seq: 1_000_000, ..seen(&world, EVE, matter).position };
    say_having_read(&mut world, matter, lie);
    world.connect(DAN);
    world.run();
    world.nodes[DAN].crash();
    world.settle();
    assert!(!world.words(ADA, matter).contains(&"written before".to_owned()));
    let now = world.now;
    for who in OTHERS {
        world.nodes[who].device.go_on(now, matter).unwrap();
    }
    world.run();
    assert_eq!(world.words(ADA, matter).last().unwrap(), "written before");
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn a_lie_in_a_commit_is_shown_and_the_commit_counts() {
    let (mut world, matter) = office();
    let before = epoch(&world, ADA, matter);
    let honest = seen(&world, EVE, matter);
    let now = world.now;
    // A Commit that Eve's own program follows, too: new keys.
    let room = world.nodes[EVE].device.rooms.get_mut(&matter).unwrap();
    room.row.position.chain = Digest::of(&[b"another history"]);
    world.nodes[EVE].device.post_update(now, matter, true).unwrap();
    world.nodes[EVE].device.rooms.get_mut(&matter).unwrap().row.position = honest.position;
    world.nodes[EVE].device.settle(now);
    world.run();
    for who in OTHERS {
        assert_eq!(epoch(&world, who, matter), before + 1, "device {who}");
        let dispute =
            world.records(who, matter).into_iter().find(|record| matches!(record.what, RecordBody::Dispute { .. }));
        assert_eq!(dispute.unwrap().from, Some(world.person(EVE)), "device {who}");
        world.nodes[who].device.go_on(now, matter).unwrap();
    }
    goes_on(&mut world, matter, &ALL);
}
