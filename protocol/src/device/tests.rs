//! The endpoint machine against a relay in memory: what several devices agree on, and what survives crashes, races and lies.

use super::state::{PendingPost, Purpose, Record, RecordBody, Snapshot, Stage, Table};
use super::*;
use crate::content::{Body, Bundle, Content};
use crate::error::Refused;
use crate::frame::EntryBody;
use crate::identity::{DeviceCertificate, Role, Signed};
use crate::ids::MessageId;
use crate::matter::{Matter, MatterContext, Participant, Seen};
use crate::suite::{Label, SecretKey};

mod adopting;
mod anew;
mod corners;
mod crossings;
mod devices;
mod healing;
mod history;
mod hostile;
mod identities;
mod keys;
mod late;
mod lines;
mod logged;
mod notes;
mod proofs;
mod renewals;
mod rescue;
mod rotations;
mod sharing;
mod shown;
mod statements;
mod successors;
mod transparency;
mod withdrawals;
mod world;

use world::{ADA, BOB, CYN, DAN, EVE, World};

fn stage(world: &World, who: usize, matter: MatterId) -> Stage {
    world.nodes[who].device.matter(matter).unwrap().stage
}

fn people(world: &World, who: usize, matter: MatterId) -> usize {
    world.nodes[who].device.matter(matter).unwrap().people.len()
}

fn disputes(world: &World, who: usize, matter: MatterId) -> usize {
    world.records(who, matter).iter().filter(|record| matches!(record.what, RecordBody::Dispute { .. })).count()
}

#[test]
fn two_people_and_then_five_read_the_same_in_the_same_order() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(ADA, matter, "one");
    world.say(DAN, matter, "two");
    world.settle();
    let before = world.words(ADA, matter);
    assert_eq!(before.len(), 2);
    world.agree(matter, &[ADA, DAN], &[&before[0], &before[1]]);

    for other in [BOB, CYN, EVE] {
        world.add(ADA, matter, other);
    }
    world.settle();
    for (who, text) in [(EVE, "three"), (BOB, "four"), (DAN, "five"), (CYN, "six"), (ADA, "seven")] {
        world.say(who, matter, text);
    }
    world.settle();
    let after = world.texts(EVE, matter);
    assert_eq!(after.len(), 5);
    for who in [ADA, BOB, CYN, DAN] {
        let all = world.texts(who, matter);
        assert_eq!(all[all.len() - 5..], after, "device {who}");
    }
    world.agree(matter, &[BOB, CYN, EVE], &after.iter().map(|(_, _, text)| text.as_str()).collect::<Vec<_>>());
}

#[test]
fn a_newcomer_reads_nothing_from_before() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(ADA, matter, "before");
    world.settle();
    world.add(ADA, matter, EVE);
    world.settle();
    world.say(DAN, matter, "after");
    world.settle();
    world.agree(matter, &[EVE], &["after"]);
    world.agree(matter, &[ADA, DAN], &["before", "after"]);
    assert_eq!(world.told(EVE, |notice| *notice == Notice::Joined(matter)), 1);
}

#[test]
fn whoever_is_removed_reads_nothing_after_and_knows_it() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, EVE]);
    world.say(ADA, matter, "before");
    world.settle();
    world.remove(ADA, matter, DAN);
    world.settle();
    world.say(ADA, matter, "after");
    world.settle();
    world.agree(matter, &[ADA, EVE], &["before", "after"]);
    world.agree(matter, &[DAN], &["before"]);
    assert_eq!(stage(&world, DAN, matter), Stage::Removed);
    assert_eq!(people(&world, EVE, matter), 2);
    let now = world.now;
    assert!(world.nodes[DAN].device.send_text(now, matter, MessageId::random(), "x").is_err());
}

#[test]
fn whoever_was_removed_may_be_added_again() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.remove(ADA, matter, DAN);
    world.settle();
    world.say(ADA, matter, "alone");
    world.add(ADA, matter, DAN);
    world.settle();
    world.say(DAN, matter, "back");
    world.settle();
    world.agree(matter, &[ADA], &["alone", "back"]);
    world.agree(matter, &[DAN], &["back"]);
    world.nodes[DAN].crash();
    world.settle();
    world.say(DAN, matter, "again");
    world.settle();
    world.agree(matter, &[ADA], &["alone", "back", "again"]);
}

/// What was still waiting when its author was removed is reported, not forgotten.
#[test]
fn texts_that_wait_when_their_author_is_removed_are_reported() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.disconnect(DAN);
    let id = world.say(DAN, matter, "too late");
    world.remove(ADA, matter, DAN);
    world.run();
    world.settle();
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Unsendable { id: told, .. } if *told == id)), 1);
    assert!(world.nodes[DAN].device.is_settled());
    assert!(world.nodes[DAN].vault.rows(Table::Commit, Some(matter)).unwrap().is_empty());
}

#[test]
fn a_text_refused_as_stale_is_sealed_again_and_arrives_once() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.disconnect(DAN);
    world.add(ADA, matter, EVE);
    world.run();
    let id = world.say(DAN, matter, "mine");
    // Dan catches up to a relay that hides the new fence until he has posted.
    let before = world.relay.posts;
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| entries.truncate(2)));
    world.connect(DAN);
    world.run();
    assert_eq!(world.relay.posts, before + 1, "refused, and not sent again before the fence is read");
    world.relay.shown = None;
    world.disconnect(DAN);
    world.settle();
    world.agree(matter, &[ADA, DAN, EVE], &["mine"]);
    let sent = world.records(EVE, matter).into_iter().find_map(|record| match record.what {
        RecordBody::Text { id, .. } => Some(id),
        _ => None,
    });
    assert_eq!(sent, Some(id));
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Stored { .. })), 1);
}

#[test]
fn a_lost_reply_and_a_crash_lose_nothing_and_repeat_nothing() {
    let mut world = World::office();
    world.relay.lose_reply = true;
    let matter = world.open(ADA);
    world.settle();
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
    world.relay.lose_reply = true;
    world.add(ADA, matter, DAN);
    world.settle();
    assert_eq!(people(&world, DAN, matter), 2);
    for text in ["one", "two", "three"] {
        world.relay.lose_reply = true;
        world.say(ADA, matter, text);
        world.settle();
        assert!(!world.relay.lose_reply);
    }
    world.agree(matter, &[ADA, DAN], &["one", "two", "three"]);
    assert!(world.nodes[ADA].device.is_settled());
}

/// Everything that devices do to each other, from the opening of a matter to a removal.
fn story(world: &mut World) -> MatterId {
    let matter = world.open(ADA);
    world.say(ADA, matter, "one");
    world.add(ADA, matter, BOB);
    world.settle();
    world.say(ADA, matter, "two");
    world.settle();
    world.say(BOB, matter, "three");
    world.settle();
    world.add(BOB, matter, DAN);
    world.settle();
    world.say(DAN, matter, "four");
    world.settle();
    world.remove(BOB, matter, DAN);
    world.settle();
    world.say(ADA, matter, "five");
    world.settle();
    matter
}

#[test]
fn a_crash_after_any_persist_loses_nothing_and_reuses_nothing() {
    let base = World::office();
    for who in [ADA, BOB, DAN] {
        for persist in 1.. {
            let mut world = base.fork();
            world.nodes[who].crash_at = Some(persist);
            world.settle();
            let matter = story(&mut world);
            let words = world.words(ADA, matter);
            assert_eq!(words, ["one", "two", "three", "four", "five"], "device {who} crashed after {persist}");
            world.agree(matter, &[ADA], &["one", "two", "three", "four", "five"]);
            let bobs = world.words(BOB, matter);
            assert!(["two", "three", "four", "five"].iter().all(|text| bobs.contains(&(*text).to_owned())), "{bobs:?}");
            world.agree(matter, &[BOB], &bobs.iter().map(String::as_str).collect::<Vec<_>>());
            world.agree(matter, &[DAN], &["four"]);
            assert_eq!(stage(&world, DAN, matter), Stage::Removed);
            for index in 0..world.nodes.len() {
                assert!(world.nodes[index].device.is_settled(), "device {index} after {persist} of {who}");
                let problems = world.told(index, |notice| matches!(notice, Notice::Problem(_)));
                assert_eq!(problems, 0, "{:?}", world.nodes[index].notices);
            }
            if world.nodes[who].crash_at.is_some() {
                assert!(persist > 5, "device {who} hardly persists");
                break;
            }
        }
    }
}

#[test]
fn two_who_add_people_at_once_both_succeed() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    world.add(ADA, matter, DAN);
    world.add(BOB, matter, EVE);
    let before = world.relay.posts;
    world.settle();
    assert!(world.relay.posts - before >= 3, "nobody was refused: no race");
    for who in [ADA, BOB, DAN, EVE] {
        assert_eq!(people(&world, who, matter), 4, "device {who}");
    }
    for who in [DAN, EVE, BOB, ADA] {
        world.say(who, matter, "here");
        world.settle();
    }
    world.agree(matter, &[ADA, BOB, DAN, EVE], &["here", "here", "here", "here"]);
}

#[test]
fn two_who_add_the_same_person_at_once_are_both_done() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    world.add(ADA, matter, DAN);
    world.add(BOB, matter, DAN);
    world.settle();
    for who in [ADA, BOB] {
        assert_eq!(
            world.told(who, |n| matches!(n, Notice::Done { person, add: true, .. } if *person == world.person(DAN))),
            1
        );
        assert_eq!(people(&world, who, matter), 3);
    }
    world.say(DAN, matter, "here");
    world.settle();
    world.agree(matter, &[ADA, BOB, DAN], &["here"]);
}

#[test]
fn whom_the_relay_swaps_is_not_added() {
    for chain in [false, true] {
        let mut world = World::office();
        let matter = world.matter(&[]);
        let (dan, eve) = (world.person(DAN), world.person(EVE));
        let swap = if chain { &mut world.relay.swap_chain } else { &mut world.relay.swap_packages };
        swap.insert(dan, eve);
        world.add(ADA, matter, DAN);
        world.say(ADA, matter, "still here");
        world.settle();
        assert_eq!(people(&world, ADA, matter), 1);
        let blamed = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::PeerMisbehaved(_), .. } if *person == dan);
        assert_eq!(world.told(ADA, blamed), 1, "chain {chain}: {:?}", world.nodes[ADA].notices);
        world.agree(matter, &[ADA], &["still here"]);
        assert!(world.nodes[ADA].device.is_settled());
    }
}

#[test]
fn a_newcomer_whose_proof_fails_is_not_endorsed() {
    let mut world = World::office();
    world.relay.altered = Some(|registration| registration.inbox = MailboxId::random());
    let fay = world.join(ADA, "fay", Role::Client);
    assert!(world.nodes[fay].device.is_ready(), "the inbox is not in the proof; the control for what follows");

    world.relay.altered = Some(|registration| {
        let other = SecretKey::generate();
        registration.person_key = other.public().unwrap();
        let certificate: DeviceCertificate = registration.certificate.unverified("x").unwrap();
        registration.certificate = Signed::make(Label::DeviceCertificate, &other, &certificate).unwrap();
    });
    let gus = world.join(ADA, "gus", Role::Client);
    assert!(!world.nodes[gus].device.is_ready());
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Suspicious { handle, .. } if handle == "gus")), 1);
    let person = world.person(gus);
    assert!(world.nodes[ADA].device.person(person).is_none());
}

#[test]
fn whoever_is_not_ready_is_added_when_they_are() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    world.disconnect(BOB);
    // Invited by Bob, who goes offline before they register.
    world.connect(BOB);
    world.run();
    world.relay.altered = Some(|registration| registration.handle = "other".to_owned());
    let fay = world.join(BOB, "fay", Role::Client);
    world.relay.altered = None;
    assert!(!world.nodes[fay].device.is_ready());
    world.add(ADA, matter, fay);
    world.say(ADA, matter, "meanwhile");
    world.settle();
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Waits { .. })), 1);
    world.agree(matter, &[ADA], &["meanwhile"]);
    for _ in 0..3 {
        world.disconnect(ADA);
        world.settle();
    }
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Waits { .. })), 1, "told once, not on each link");
    world.nodes[BOB].crash();
    world.settle();
    assert!(world.nodes[fay].device.is_ready());
    world.disconnect(ADA);
    world.settle();
    assert_eq!(people(&world, fay, matter), 2);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Done { .. })), 1);
}

/// The one who endorses need not come back for what waited for it.
#[test]
fn an_endorsement_by_this_device_sets_off_what_waited_for_it() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    world.relay.altered = Some(|registration| registration.handle = "other".to_owned());
    let fay = world.join(ADA, "fay", Role::Client);
    world.add(ADA, matter, fay);
    world.run();
    assert_eq!(people(&world, ADA, matter), 1);
    world.relay.altered = None;
    let now = world.now;
    world.nodes[ADA].device.handle_event(now, Event::Newcomer);
    world.run();
    assert_eq!(people(&world, ADA, matter), 2);
    assert_eq!(stage(&world, fay, matter), Stage::Open);
}

/// What the relay claims without the vault's own MAC is no proof that there is a copy.
#[test]
fn an_unproved_claim_of_a_copy_is_ignored() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let device = world.nodes[ADA].device.profile().device;
    world.relay.newest.get_mut(&device).unwrap().idem += 100;
    world.nodes[ADA].crash();
    world.settle();
    world.say(ADA, matter, "one");
    world.settle();
    world.agree(matter, &[ADA, DAN], &["one"]);
}

#[test]
fn a_refusal_that_passes_is_tried_again_at_the_deadline_and_not_before() {
    let slow = Refused::Slow { after_ms: 700 };
    for refused in [slow, Refused::Storage] {
        let mut world = World::office();
        let before = world.relay.posts;
        world.relay.refuse.push_back(refused.clone());
        let matter = world.open(ADA);
        world.run();
        assert_eq!(world.relay.posts, before + 1, "{refused}");
        world.wait(ADA);
        assert_eq!(stage(&world, ADA, matter), Stage::Open);

        world.relay.refuse.push_back(refused.clone());
        world.say(ADA, matter, "one");
        world.run();
        assert_eq!(world.words(ADA, matter).len(), 0);
        world.wait(ADA);
        world.agree(matter, &[ADA], &["one"]);

        world.relay.refuse.push_back(refused.clone());
        world.add(ADA, matter, DAN);
        world.run();
        assert_eq!(people(&world, ADA, matter), 1);
        world.wait(ADA);
        assert_eq!(people(&world, DAN, matter), 2, "{refused}");
        let later = world.now.plus_ms(24 * 3600 * 1000);
        assert!(world.nodes[ADA].device.deadline().is_none_or(|at| at >= later), "nothing but keys to renew one day");
        assert_eq!(world.relay.posts, before + 6);
    }
}

/// A deadline that has passed and led to nothing must not be given again: its driver would spin.
#[test]
fn a_deadline_is_never_in_the_past() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    world.relay.altered = Some(|registration| registration.handle = "other".to_owned());
    let fay = world.join(ADA, "fay", Role::Client);
    world.add(ADA, matter, fay);
    world.relay.refuse.push_back(Refused::Slow { after_ms: 100 });
    world.say(ADA, matter, "one");
    world.run();
    world.wait(ADA);
    world.agree(matter, &[ADA], &["one"]);
    assert_eq!(world.nodes[ADA].device.intents(matter).len(), 1);
    for _ in 0..3 {
        // What waits for a person is asked about again after a while; `wait` checks that the while lies ahead.
        world.wait(ADA);
    }
}

/// A Commit refused because an inbox was full was built again every few seconds, each time with new key packages, and kept every
/// text of the matter waiting behind it.
#[test]
fn an_addition_refused_for_want_of_room_is_told_and_holds_up_no_text() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    world.relay.refuse.push_back(Refused::Full { what: "that inbox".to_owned() });
    world.add(ADA, matter, DAN);
    world.say(ADA, matter, "one");
    world.run();
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::NotDone { .. })), 1);
    world.agree(matter, &[ADA], &["one"]);
    let later = world.now.plus_ms(24 * 3600 * 1000);
    assert!(world.nodes[ADA].device.deadline().is_none_or(|at| at >= later), "nothing is tried again");
}

/// The same key package once went into two Welcomes: the second led nowhere, and nobody was told.
#[test]
fn somebody_whom_two_matters_wait_for_is_added_to_both() {
    let mut world = World::office();
    let (one, two) = (world.matter(&[]), world.matter(&[]));
    world.relay.altered = Some(|registration| registration.handle = "other".to_owned());
    let fay = world.join(BOB, "fay", Role::Client);
    world.relay.altered = None;
    world.add(ADA, one, fay);
    world.add(ADA, two, fay);
    world.settle();
    world.nodes[BOB].crash();
    world.settle();
    // Nobody tells Ada's device, which stays connected, that Fay is ready now: it asks again by itself.
    world.wait(ADA);
    world.settle();
    for (matter, text) in [(one, "in one"), (two, "in two")] {
        world.say(ADA, matter, text);
        world.settle();
        world.agree(matter, &[ADA, fay], &[text]);
    }
}

/// The Welcome was judged before the removal was read, refused, and lost: the person stayed out while everyone else saw them in.
#[test]
fn somebody_removed_and_added_again_while_away_is_in_again() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.disconnect(DAN);
    world.say(ADA, matter, "unread");
    world.run();
    world.remove(ADA, matter, DAN);
    world.run();
    world.add(ADA, matter, DAN);
    world.run();
    world.say(ADA, matter, "welcome back");
    world.run();
    world.connect(DAN);
    world.settle();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    assert_eq!(world.words(DAN, matter), ["unread", "welcome back"]);
    world.say(DAN, matter, "thank you");
    world.settle();
    assert_eq!(world.words(ADA, matter).last().unwrap(), "thank you");
}

/// A client's bundle with a broken certificate kept everybody but its author from applying the attorney's next Commit: the matter was
/// split for good.
#[test]
fn a_members_broken_bundle_makes_nobody_elses_commit_void() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let now = world.now;
    let device = &mut world.nodes[EVE].device;
    let mut identity = device.people.values().find_map(|known| known.chain.first()).unwrap().clone();
    identity.certificates[0].signature[0] ^= 1;
    let bundle = Bundle { identities: vec![identity], names: Vec::new() };
    let content = Content { id: MessageId::random(), sent_at: now, body: Body::Bundle(bundle), log: None }.encode();
    let seen = Seen::at(device.rooms[&matter].row.position);
    let part = device.sealed(matter, &content, &seen).unwrap();
    device.new_post(PendingPost::new(vec![part], matter, Purpose::Text(u64::MAX)));
    device.settle(now);
    world.settle();

    world.remove(ADA, matter, EVE);
    world.settle();
    assert_eq!(stage(&world, EVE, matter), Stage::Removed);
    world.say(ADA, matter, "after");
    world.settle();
    world.agree(matter, &[ADA, BOB, DAN], &["after"]);
}

/// A member's own group, whose context named the mailbox of a matter that its victim was in, once stopped that matter for ever.
#[test]
fn a_welcome_into_another_matters_mailbox_or_under_a_false_role_is_refused() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, EVE]);
    let now = world.now;
    let (shared, inbox) = {
        let device = &world.nodes[DAN].device;
        (device.matter(matter).unwrap().mailbox, device.profile().inbox)
    };
    let honest = MailboxId::random();
    // Eve is a client.
    for (mailbox, author, good) in
        [(shared, ADA, false), (inbox, ADA, false), (honest, EVE, false), (honest, ADA, true)]
    {
        let package = world.nodes[DAN].device.new_key_package(false).unwrap().0;
        let victim = &world.nodes[DAN].device;
        let listed = |device: &Device, role| Participant {
            person: device.profile.person,
            role,
            person_key: device.own_person_key().unwrap(),
        };
        let author_device = &world.nodes[author].device;
        let mut people = vec![listed(author_device, Role::Attorney), listed(victim, Role::Client)];
        people.sort();
        let alone = MatterContext {
            rules: crate::matter::RULES,
            mailbox,
            title: "A trap".to_owned(),
            orders: [0; 48],
            people: vec![listed(author_device, Role::Attorney)],
            continues: None,
        };
        let mut group =
            Matter::create(&author_device.me, &author_device.key_packages, MatterId::random(), &alone).unwrap();
        let chains = [author_device, victim].map(|device| device.people[&device.profile.person].chain.clone());
        let bundle = Bundle { identities: chains.concat(), names: Vec::new() };
        let certificates = crate::matter::Certificates::of(&bundle.identities[..]).unwrap();
        let seen = Seen::at(Position::start(mailbox));
        let change = crate::matter::Change {
            add: vec![package],
            remove: Vec::new(),
            context: Some(MatterContext { people, ..alone }),
            companion: Some(crate::matter::Companion {
                bundle,
                seen: seen.position,
                line: Vec::new(),
                fates: Vec::new(),
            }),
        };
        let built = group.build(change, &seen, certificates).unwrap();
        let joined = world.nodes[DAN].device.welcome(now, 1, &built.welcome.unwrap());
        assert_eq!(joined.is_ok(), good, "{mailbox} by {author}: {joined:?}");
    }
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
}

#[test]
fn a_text_too_old_to_tell_is_sent_again_under_its_id_and_arrives_once() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.relay.refuse.push_back(Refused::Unknown);
    world.say(ADA, matter, "one");
    world.settle();
    world.agree(matter, &[ADA, DAN], &["one"]);
}

#[test]
fn what_is_wanted_before_a_matter_is_open_happens_once_it_is() {
    let mut world = World::office();
    world.disconnect(ADA);
    let matter = world.open(ADA);
    world.add(ADA, matter, DAN);
    world.say(ADA, matter, "one");
    world.run();
    world.nodes[ADA].crash();
    assert_eq!(stage(&world, ADA, matter), Stage::Opening);
    world.settle();
    world.agree(matter, &[ADA, DAN], &["one"]);
}

#[test]
fn taking_a_wish_back_before_it_is_carried_out_leaves_nothing() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    world.disconnect(ADA);
    world.add(ADA, matter, DAN);
    world.remove(ADA, matter, DAN);
    world.run();
    world.nodes[ADA].crash();
    world.settle();
    assert_eq!(people(&world, ADA, matter), 1);
    assert!(world.nodes[ADA].device.intents(matter).is_empty());
    assert!(world.nodes[ADA].device.is_settled());
}

/// Marked as published before it left, a last-resort package was lost with the link for good.
#[test]
fn a_last_resort_key_package_counts_once_the_relay_has_it() {
    let mut world = World::office();
    let device = world.nodes[DAN].device.profile().device;
    world.relay.last_resort.remove(&device);
    let mut vault = world.nodes[DAN].vault.clone();
    vault.0.remove(&(Table::Counter, None, Counters::LAST_RESORT.to_vec()));
    world.nodes[DAN].vault = vault;
    world.nodes[DAN].crash();
    world.nodes[DAN].crash_at = Some(world.nodes[DAN].persists + 1);
    world.connect(DAN);
    world.run();
    assert!(!world.relay.last_resort.contains_key(&device), "the crash came before it left");
    world.settle();
    assert!(world.relay.last_resort.contains_key(&device));
}

#[test]
fn key_packages_are_topped_up_as_they_are_used() {
    let mut world = World::office();
    for _ in 0..25 {
        let matter = world.matter(&[DAN]);
        assert_eq!(stage(&world, DAN, matter), Stage::Open);
    }
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Problem(_))), 0, "{:?}", world.nodes[DAN].notices);
}

/// A relay that serves a broken key package must not stop a matter, nor be asked for ever.
#[test]
fn a_change_that_can_never_be_built_is_reported_and_blocks_nothing() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    world.relay.spoil_packages = true;
    world.add(ADA, matter, DAN);
    world.say(ADA, matter, "on we go");
    world.run();
    let told = |notice: &Notice| matches!(notice, Notice::NotDone { why: Error::PeerMisbehaved(_), .. });
    assert_eq!(world.told(ADA, told), 1, "{:?}", world.nodes[ADA].notices);
    world.agree(matter, &[ADA], &["on we go"]);
    world.relay.spoil_packages = false;
    world.add(ADA, matter, DAN);
    world.run();
    assert_eq!(people(&world, DAN, matter), 2);
}
