//! What was said before a device was linked, sent to it: whole, once, in order, wherever it is interrupted.

use super::*;
use crate::between::{self, Between, Piece, TransferId};
use crate::device::HistoryProgress;
use crate::device::state::{Receiving, Sending, largest};
use crate::envelope::{self, Class};

/// What a device has received of a matter.
fn past(world: &World, who: usize, matter: MatterId) -> Vec<Record> {
    let vault = &world.nodes[who].vault;
    let revoked = Receiving::of_the_revoked(&vault.rows(Table::Receiving, None).unwrap());
    let rows = largest(vault.rows(Table::Past, Some(matter)).unwrap(), &revoked);
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

/// The transfer that Dan's first device has begun, as his vault has it.
fn begun(world: &World) -> Sending {
    let sending = world.nodes[DAN].vault.rows(Table::Sending, None).unwrap();
    cbor::decode(&sending[0].1, "x").unwrap()
}

fn enveloped(sending: &Sending, matter: MatterId, records: Vec<Blob>) -> Vec<u8> {
    let planned = &sending.plan[0];
    let segments = [between::Segment { matter, group: planned.group, mailbox: planned.mailbox, records }];
    let sealed = between::seal_piece(&sending.key, (&sending.transfer, 0, true), &segments).unwrap();
    let piece = Piece { transfer: sending.transfer, index: 0, last: true, sealed: Blob(sealed) };
    envelope::wrap(Class::Between, &cbor::encode(&Between::Piece(piece))).unwrap()
}

/// Whatever reads the matter would fail on it for ever.
#[test]
fn a_piece_that_can_not_be_read_is_refused_when_it_comes() {
    let (mut world, matters, second) = linked();
    let (dan, to) = (world.device(DAN), world.device(second));
    let posts = world.relay.posts;
    start(&mut world, DAN, second);
    while world.relay.posts == posts {
        world.turn(DAN);
    }
    world.relay.refuse.push_back(Refused::Slow { after_ms: 5_000 });
    world.run();
    let good = world.records(DAN, matters[0]).into_iter().map(|record| Blob(cbor::encode(&record)));
    let records: Vec<Blob> = good.take(2).chain([Blob(b"garbage".to_vec())]).collect();
    world.relay.deliver(dan, to, &enveloped(&begun(&world), matters[0], records));
    world.settle();
    assert!(past(&world, second, matters[0]).is_empty(), "nothing of it is kept");
    assert_eq!(problems(&world, second).len(), 1);
    assert!(problems(&world, second).iter().all(|problem| format!("{problem:?}").contains("can't be read")));
    // It is told once, and nothing more comes of that transfer.
    world.settle_but(usize::MAX);
    assert_eq!((problems(&world, second).len(), past(&world, second, matters[0]).len()), (1, 0));
    world.nodes[second].crash();
    world.settle();
    assert_eq!(problems(&world, second).len(), 1);
}

#[test]
fn a_device_that_came_later_has_nothing_to_tell_of_before() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(ADA, matter, "one");
    world.settle();
    world.now = world.now.plus_ms(2 * 24 * 3600 * 1000);
    let second = world.link(DAN);
    world.settle();
    let (second_profile, dan) = (world.nodes[second].device.profile().clone(), world.device(DAN));
    let told =
        between::Transfer { id: TransferId::from([5; 16]), key: crate::secret::Secret::new(vec![7; 32]), messages: 9 };
    for (from, to, problem) in [(second, DAN, 1), (DAN, second, 0)] {
        let author = world.nodes[from].device.profile().clone();
        let (reader, now) = (world.device(to), world.now);
        let note =
            between::Note { from: author.device, to: reader, at: now, body: between::Body::Transfer(told.clone()) };
        let package = world.relay.take_package(reader);
        let padded = between::pad(&note.sign(&author.mls_key).unwrap()).unwrap();
        let sealed = crate::matter::seal_to(&package.0, between::NOTE_INFO, &padded).unwrap();
        let note = between::SealedNote {
            reference: Blob(sealed.reference),
            kem_output: Blob(sealed.kem_output),
            ciphertext: Blob(sealed.ciphertext),
        };
        let envelope = envelope::wrap(Class::Between, &cbor::encode(&Between::Note(note))).unwrap();
        world.relay.deliver(author.device, reader, &envelope);
        world.settle();
        assert_eq!((problems(&world, to).len(), world.nodes[to].device.history().len()), (problem, 1 - problem));
    }
    assert!(second_profile.device != dan);
}

/// A thief with an older device sends more than there ever was. Once that device is revoked, what the true one has sent is read.
#[test]
fn what_a_device_has_sent_that_was_revoked_hides_nothing() {
    let (mut world, matters, second) = linked();
    let third = world.link(DAN);
    world.settle();
    start(&mut world, DAN, third);
    world.settle();
    let true_words = past_words(&world, third, matters[0]);
    assert_eq!(true_words.len(), 7);
    // The second has more to tell, made up.
    start(&mut world, DAN, second);
    world.settle();
    let rows = world.nodes[second].vault.rows(Table::Past, Some(matters[0])).unwrap();
    let (key, row) = rows.into_iter().rfind(|(_, row)| Record::kept(row, matters[0]).unwrap().is_text()).unwrap();
    let made_up: Record = cbor::decode(&row, "x").unwrap();
    for number in 0..9_u32 {
        let id = MessageId::random();
        let what = RecordBody::Text { id, text: "made up".to_owned() };
        let made_up = Record { what, ..made_up.clone() };
        let key = [&key[..24], &(1000 + number).to_be_bytes()].concat();
        let row = cbor::encode(&made_up).into();
        world.nodes[second].vault.0.insert((Table::Past, Some(matters[0]), key), row);
    }
    start(&mut world, second, third);
    world.settle();
    assert!(past_words(&world, third, matters[0]).contains(&"made up".to_owned()));
    world.revoke(DAN, second);
    world.settle();
    assert_eq!(past_words(&world, third, matters[0]), true_words);
    // Where there is nothing else it stays: most devices that are revoked were lost or replaced.
    let first = world.device(DAN);
    let rows = world.nodes[third].vault.rows(Table::Receiving, None).unwrap();
    for (key, row) in rows {
        let row: Receiving = cbor::decode(&row, "x").unwrap();
        if row.from == first {
            world.nodes[third].vault.0.retain(|(table, _, at), _| *table != Table::Past || !at.starts_with(&key));
        }
    }
    assert_eq!(past_words(&world, third, matters[0]).len(), 16);
}

/// What goes in the background leaves room for messages.
#[test]
fn so_much_history_goes_in_a_day_and_the_rest_on_the_next() {
    let (mut world, matters, second) = linked();
    let device = world.device(second);
    let (now, node) = (world.now, &mut world.nodes[DAN]);
    node.device.send_history(now, device, &node.vault).unwrap();
    let sending = node.device.history.sending.get_mut(&device).unwrap();
    (sending.since, sending.today) = (now, limits::PIECES_PER_DAY);
    world.settle();
    let waits = progress(&world, DAN);
    assert!(waits.waits && !waits.sent, "{waits:?}");
    assert!(past(&world, second, matters[0]).is_empty());
    let next = world.nodes[DAN].device.deadline().unwrap();
    assert!(next <= now.plus_ms(24 * 3600 * 1000));
    world.now = now.plus_ms(24 * 3600 * 1000);
    let now = world.now;
    world.nodes[DAN].device.handle_time(now);
    world.run();
    world.settle_but(usize::MAX);
    assert_eq!(past_words(&world, second, matters[0]).len(), 6);
}
