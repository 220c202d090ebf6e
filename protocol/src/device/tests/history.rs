//! What was said before a device was linked, sent to it: whole, once, in order, wherever it is interrupted.

use super::*;
use crate::between::{self, Between, Piece, TransferId};
use crate::device::HistoryProgress;
use crate::device::state::{Receiving, Sending, largest};
use crate::envelope::{self, Class};

/// What a device has received of a matter.
fn past(world: &World, who: usize, matter: MatterId) -> Vec<Record> {
    let rows = largest(world.nodes[who].vault.rows(Table::Past, Some(matter)).unwrap());
    rows.into_iter().map(|(_, row)| Record::kept(&row, matter).unwrap()).collect()
}

fn past_words(world: &World, who: usize, matter: MatterId) -> Vec<String> {
    let texts = past(world, who, matter).into_iter().filter_map(|record| match record.what {
        RecordBody::Text { text, .. } => Some(text),
        _ => None,
    });
    texts.collect()
}

fn start(world: &mut World, by: usize, to: usize) -> bool {
    let (device, now) = (world.device(to), world.now);
    let node = &mut world.nodes[by];
    let started = node.device.send_history(now, device, &node.vault).unwrap();
    world.drain(by);
    started
}

fn progress(world: &World, who: usize) -> HistoryProgress {
    world.nodes[who].device.history()[0]
}

fn problems(world: &World, who: usize) -> Vec<&Notice> {
    world.nodes[who].notices.iter().filter(|notice| matches!(notice, Notice::Problem(_))).collect()
}

/// Dan has two matters with something said in them, and links a second device.
fn linked() -> (World, [MatterId; 2], usize) {
    let mut world = World::office();
    let matters = [world.matter(&[DAN]), world.matter(&[DAN, BOB])];
    for text in ["one", "two", "three"] {
        world.say(ADA, matters[0], text);
        world.say(DAN, matters[0], &format!("{text} to you"));
        world.settle();
    }
    world.say(BOB, matters[1], "other");
    world.settle();
    let second = world.link(DAN);
    world.settle();
    world.say(ADA, matters[0], "after");
    world.settle();
    (world, matters, second)
}

#[test]
fn what_was_said_before_comes_with_author_time_and_place_once_the_user_says_so() {
    let (mut world, matters, second) = linked();
    assert!(past(&world, second, matters[0]).is_empty(), "nothing comes unasked");
    let offer = world.nodes[DAN].device.history_for(world.device(second), &world.nodes[DAN].vault).unwrap();
    assert_eq!((offer.messages, offer.matters), (7, 2));
    assert!(start(&mut world, DAN, second));
    world.settle();
    for matter in matters {
        let before: Vec<Record> = world
            .records(DAN, matter)
            .into_iter()
            .take_while(|record| !matches!(record.what, RecordBody::DeviceAdded { .. }))
            .collect();
        assert_eq!(past(&world, second, matter), before);
    }
    assert_eq!(past_words(&world, second, matters[0]).len(), 6);
    assert_eq!(world.words(second, matters[0]), ["after"], "what it has read itself is not there twice");
    for (who, comes) in [(DAN, false), (second, true)] {
        let done = progress(&world, who);
        assert!(done.complete && done.comes == comes && done.sent, "{done:?}");
        assert_eq!((done.messages, done.done), (7, 7));
        assert!(problems(&world, who).is_empty(), "{:?}", problems(&world, who));
    }
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::HistorySent { messages: 7, .. })), 1);
    assert_eq!(world.told(second, |notice| matches!(notice, Notice::HistoryCame { messages: 7 })), 1);
    // There is nothing more to send, and no key is left.
    assert!(!start(&mut world, DAN, second));
    let offer = world.nodes[DAN].device.history_for(world.device(second), &world.nodes[DAN].vault).unwrap();
    assert_eq!(offer.messages, 0);
    let goes = world.nodes[DAN].vault.rows(Table::Sending, None).unwrap();
    let goes: Sending = cbor::decode(&goes[0].1, "x").unwrap();
    let comes = world.nodes[second].vault.rows(Table::Receiving, None).unwrap();
    let comes: Receiving = cbor::decode(&comes[0].1, "x").unwrap();
    assert!(goes.key.is_empty() && comes.key.is_empty());
    // And to somebody else's device there is nothing to send at all.
    let (bob, now) = (world.device(BOB), world.now);
    let node = &mut world.nodes[DAN];
    assert!(node.device.send_history(now, bob, &node.vault).is_err());
}

#[test]
fn a_third_device_gets_what_the_second_has_received_and_read() {
    let (mut world, matters, second) = linked();
    start(&mut world, DAN, second);
    world.settle();
    let third = world.link(DAN);
    world.settle();
    assert!(start(&mut world, second, third));
    world.settle();
    let words = past_words(&world, third, matters[0]);
    assert_eq!(words.len(), 7, "{words:?}");
    assert_eq!(words[6], "after");
    assert_eq!(words[..6], past_words(&world, second, matters[0]));
}

#[test]
fn history_is_whole_and_once_wherever_either_device_is_interrupted() {
    let (seed, matters, second) = linked();
    let mut reached = 0;
    for crash in 1..24 {
        for victim in [DAN, second] {
            for lose in [false, true] {
                let mut world = seed.fork();
                world.settle();
                world.nodes[victim].crash_at = Some(world.nodes[victim].persists + crash);
                start(&mut world, DAN, second);
                world.relay.lose_reply = lose;
                world.settle();
                if world.nodes[DAN].device.history().is_empty() {
                    // It was never made durable that the user had said so.
                    start(&mut world, DAN, second);
                }
                world.settle_but(usize::MAX);
                reached += usize::from(world.nodes[victim].crash_at.is_none());
                let case = format!("crash {crash} of {victim}, {lose}");
                assert_eq!(past_words(&world, second, matters[0]).len(), 6, "{case}");
                assert_eq!(past_words(&world, second, matters[1]), ["other"], "{case}");
                assert!(progress(&world, DAN).complete && progress(&world, second).complete, "{case}");
            }
        }
    }
    assert!(reached > 20, "{reached} were interrupted at all");
}

/// Of texts as long as can be each piece has one.
#[test]
fn a_long_history_goes_in_pieces_few_of_which_are_on_their_way_at_once() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let texts: Vec<String> = (0..40).map(|n| format!("{n} {}", "x".repeat(130_000))).collect();
    for text in &texts {
        world.say(ADA, matter, text);
        world.settle();
    }
    world.say(ADA, matter, &"y".repeat(limits::TEXT_MAX));
    world.settle();
    let second = world.link(DAN);
    world.settle();
    world.disconnect(second);
    start(&mut world, DAN, second);
    let inbox = world.nodes[second].device.profile().inbox;
    let before = world.relay.matter_entries(inbox);
    world.run();
    let waits = progress(&world, DAN);
    assert!(waits.waits && !waits.sent, "{waits:?}");
    let sent = world.relay.matter_entries(inbox) - before;
    assert_eq!(sent as u64, limits::TRANSFER_WINDOW + 1, "the key and as many pieces as may be");
    // It has come halfway, and says so; its end is killed in the middle.
    world.connect(second);
    world.nodes[second].crash_at = Some(world.nodes[second].persists + 12);
    world.settle();
    let half = progress(&world, second);
    assert_eq!(half.messages, 41);
    world.settle_but(usize::MAX);
    let words = past_words(&world, second, matter);
    assert_eq!(words.len(), 41);
    assert_eq!(words[..40], texts);
    assert!(progress(&world, DAN).complete);
}

#[test]
fn what_a_restored_relay_has_forgotten_goes_again_when_the_user_says_so() {
    let (mut world, matters, second) = linked();
    world.disconnect(second);
    let backup = world.relay.clone();
    start(&mut world, DAN, second);
    world.run();
    assert!(progress(&world, DAN).sent && !progress(&world, DAN).complete);
    world.restore(backup);
    world.settle();
    assert!(past(&world, second, matters[0]).is_empty());
    start(&mut world, DAN, second);
    world.settle();
    world.settle_but(usize::MAX);
    assert_eq!(past_words(&world, second, matters[0]).len(), 6);
    assert!(progress(&world, DAN).complete);
}

#[test]
fn a_piece_of_nobodys_transfer_or_altered_is_void_and_the_true_one_counts() {
    let (mut world, matters, second) = linked();
    let (bob, to) = (world.device(BOB), world.device(second));
    let enveloped = |piece: Piece| envelope::wrap(Class::Between, &cbor::encode(&Between::Piece(piece))).unwrap();
    let forged = |transfer: TransferId, key: &[u8; 32]| {
        let sealed = between::seal_piece(key, (&transfer, 0, true), &[]).unwrap();
        enveloped(Piece { transfer, index: 0, last: true, sealed: Blob(sealed) })
    };
    world.relay.deliver(bob, to, &forged(TransferId::from([7; 16]), &[7; 32]));
    world.settle();
    assert_eq!(problems(&world, second).len(), 1);
    // The key has come, and the relay puts pieces of its own before the true ones.
    let posts = world.relay.posts;
    start(&mut world, DAN, second);
    while world.relay.posts == posts {
        world.turn(DAN);
    }
    world.relay.refuse.push_back(Refused::Slow { after_ms: 5_000 });
    world.run();
    assert!(past(&world, second, matters[0]).is_empty());
    let sending = world.nodes[DAN].vault.rows(Table::Sending, None).unwrap();
    let sending: Sending = cbor::decode(&sending[0].1, "x").unwrap();
    world.relay.deliver(bob, to, &forged(sending.transfer, &[7; 32]));
    world.settle();
    assert_eq!(problems(&world, second).len(), 2);
    assert!(!progress(&world, second).complete);
    world.settle_but(usize::MAX);
    assert_eq!(past_words(&world, second, matters[0]).len(), 6);
    // Told once more, the true one changes nothing.
    let entries: Vec<_> = world.relay.entries(world.nodes[second].device.profile().inbox).to_vec();
    let before = past(&world, second, matters[0]);
    for entry in entries {
        if let EntryBody::Envelope(bytes) = entry.body
            && let Ok((Class::Between, payload)) = envelope::unwrap(&bytes.0)
            && matches!(Between::read(payload), Ok(Between::Piece(_)))
        {
            world.relay.deliver(bob, to, &bytes.0);
        }
    }
    world.settle();
    assert_eq!(past(&world, second, matters[0]), before);
    assert_eq!(progress(&world, second).done, 7);
}

#[test]
fn nothing_more_goes_to_a_device_that_was_revoked() {
    let (mut world, _, second) = linked();
    world.disconnect(second);
    start(&mut world, DAN, second);
    world.revoke(DAN, second);
    world.settle_but(second);
    assert!(world.nodes[DAN].device.history().is_empty());
    assert!(world.nodes[DAN].device.notes.waiting.is_empty());
}
