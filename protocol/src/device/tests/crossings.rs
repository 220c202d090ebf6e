//! Crossings: backups, successors, repairs, removals and lies that meet.

use super::rescue::{let_pass, lose_way, notes};
use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::{people, stage};
use crate::content::Content;
use crate::device::Notice;
use crate::device::state::{PendingPost, Purpose, Stage};
use crate::envelope::{self, Class};
use crate::frame::{Blob, EntryBody, Part};
use crate::ids::{MatterId, MessageId, Position};
use crate::matter::{Certificates, Change, Companion, Seen};
use crate::rescue::Successor;

pub(super) const MINUTE: u64 = 60_000;
pub(super) const DAY: u64 = 24 * 3_600_000;

/// Everybody who is in the matter says something, and everybody reads it.
pub(super) fn all_hear_each_other(world: &mut World, matter: MatterId, who: &[usize]) {
    for index in who {
        assert_eq!(stage(world, *index, matter), Stage::Open, "device {index}: {:?}", notes(world, *index, matter));
    }
    for index in who {
        world.say(*index, matter, &format!("{index} is here after all"));
        let_pass(world, MINUTE);
    }
    for reader in who {
        for author in who {
            let text = format!("{author} is here after all");
            let heard = world.words(*reader, matter).contains(&text);
            let (heard_here, said_there) = (notes(world, *reader, matter), notes(world, *author, matter));
            assert!(heard, "device {reader} did not hear {author}: {heard_here:?}; {author}: {said_there:?}");
        }
    }
}

/// The relay forgets a Commit that a client alone has applied; the attorney, who was away, notices nothing.
#[test]
fn a_client_who_alone_has_applied_a_commit_that_the_relay_forgot_comes_back() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let yesterday = world.relay.clone();
    world.disconnect(ADA);
    // Dan renews his keys, as he owes it.
    world.nodes[DAN].device.rooms.get_mut(&matter).unwrap().row.healing.due = true;
    let now = world.now.plus_ms(10_000);
    world.now = now;
    world.nodes[DAN].device.heal(now);
    world.run();
    world.restore(yesterday);
    let_pass(&mut world, 20 * MINUTE);
    all_hear_each_other(&mut world, matter, &[ADA, DAN]);
}

/// One attorney removes a client, the relay is set back to before, and the other attorney goes on from there before the first returns.
#[test]
fn a_removal_that_the_relay_forgot_holds_though_others_went_on_from_before() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let yesterday = world.relay.clone();
    for who in [BOB, DAN, EVE] {
        world.disconnect(who);
    }
    world.remove(ADA, matter, EVE);
    world.run();
    assert_eq!(people(&world, ADA, matter), 3);
    world.restore(yesterday);
    for who in [CYN, BOB] {
        world.connect(who);
        world.run();
    }
    world.add(BOB, matter, CYN);
    world.run();
    world.nodes[BOB].device.rooms.get_mut(&matter).unwrap().row.healing.due = true;
    world.now = world.now.plus_ms(10_000);
    let now = world.now;
    world.nodes[BOB].device.heal(now);
    world.run();
    let_pass(&mut world, 60 * MINUTE);
    let eve = world.person(EVE);
    for who in [ADA, BOB, DAN, CYN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}: {:?}", notes(&world, who, matter));
        let row = world.nodes[who].device.matter(matter).unwrap();
        assert!(!row.people.contains(&eve), "device {who}: whom Ada removed is in again");
    }
}

/// A matter was opened since the backup: the relay does not know its mailbox any more.
#[test]
fn a_matter_opened_since_the_backup_goes_on() {
    let mut world = World::office();
    let yesterday = world.relay.clone();
    let matter = world.matter(&[BOB, DAN]);
    world.say(ADA, matter, "one");
    world.settle();
    world.restore(yesterday);
    let_pass(&mut world, 60 * MINUTE);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// Its opener is alone in it and has read nothing there: it stayed *open*, and nothing that was sent there ever arrived.
#[test]
fn a_matter_of_one_person_that_the_relay_forgot_goes_on() {
    let mut world = World::office();
    let yesterday = world.relay.clone();
    let matter = world.matter(&[]);
    world.settle();
    world.restore(yesterday);
    let_pass(&mut world, 60 * MINUTE);
    world.add(ADA, matter, BOB);
    let_pass(&mut world, MINUTE);
    assert_eq!(people(&world, ADA, matter), 2);
    let (anew, _) = world.nodes[BOB].device.matters().next().unwrap();
    world.say(BOB, anew, "found it");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["found it"]);
}

/// Ada wants Dan out while the relay does not know the matter: she took him over into the successor all the same.
#[test]
fn whose_removal_waits_is_not_taken_over_into_the_successor() {
    let mut world = World::office();
    let yesterday = world.relay.clone();
    let matter = world.matter(&[BOB, DAN]);
    world.settle();
    world.restore(yesterday);
    world.settle();
    assert_eq!(stage(&world, ADA, matter), Stage::OutOfStep);
    world.remove(ADA, matter, DAN);
    let_pass(&mut world, 60 * MINUTE);
    all_hear_each_other(&mut world, matter, &[ADA, BOB]);
    let dan = world.person(DAN);
    assert!(!world.nodes[BOB].device.matter(matter).unwrap().people.contains(&dan));
}

/// Somebody was added since the backup: the relay does not let them read the mailbox in which the matter is continued.
#[test]
fn whoever_was_added_since_the_backup_follows_into_the_successor() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    let yesterday = world.relay.clone();
    world.add(ADA, matter, DAN);
    world.settle();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    world.restore(yesterday);
    let_pass(&mut world, 60 * MINUTE);
    assert_eq!(people(&world, ADA, matter), 3);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// Eve's answer to the one request there is, in a group that she has brought `ahead` epochs further by herself: the Commit's envelope,
/// the part that carries its Welcome, and an envelope with something said in that group behind it.
fn captured(world: &mut World, matter: MatterId, ahead: usize) -> (Vec<u8>, Part, Vec<u8>) {
    let now = world.now;
    let device = &mut world.nodes[EVE].device;
    device.save_state(matter);
    let state = device.rooms[&matter].state.clone();
    let row = device.rooms[&matter].row.clone();
    let held = row.requests[0].clone();
    let companion = Companion {
        bundle: device.bundle_of(row.people.into_iter(), &[]),
        seen: row.position,
        line: Vec::new(),
        fates: Vec::new(),
    };
    let group = device.group(matter).unwrap();
    for _ in 0..ahead {
        let built = group.build(Change::default(), &Seen::at(row.position), Certificates::default()).unwrap();
        group.apply_own(&built.secrets, built.epoch).unwrap();
    }
    let change = Change {
        add: vec![held.request.package.0.clone()],
        remove: vec![group.member_of(held.request.device).unwrap().0.leaf],
        context: None,
        companion: Some(companion),
    };
    let seen = Seen { repair: Some(held.digest), ..Seen::at(row.position) };
    let inbox = held.request.inbox;
    let built = group.build(change, &seen, Certificates::repair(held.request)).unwrap();
    group.apply_own(&built.secrets, built.epoch).unwrap();
    let content = Content::text(MessageId::random(), now, "only you and me").unwrap().encode();
    let sealed = group.seal(&envelope::pad(&content).unwrap(), &Seen::at(row.position)).unwrap();
    let room = device.rooms.get_mut(&matter).unwrap();
    (room.group, room.state) = (None, state);
    let mut welcome = envelope::wrap(Class::Welcome, &built.welcome.unwrap()).unwrap();
    let welcome = Part::Append {
        mailbox: inbox,
        base: Position::start(inbox),
        fence: false,
        envelope: Blob(std::mem::take(&mut welcome)),
        keep_ms: 1_000_000,
    };
    let commit = envelope::wrap(Class::Commit, &built.commit).unwrap();
    (commit, welcome, envelope::wrap(Class::Message, &sealed).unwrap())
}

/// Eve, who may not even manage the matter, sends a Welcome into a group of her own that is far ahead of the matter's epoch.
#[test]
fn a_false_welcome_far_ahead_does_not_keep_a_device_out() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.disconnect(ADA);
    world.disconnect(BOB);
    lose_way(&mut world, DAN, matter);
    world.run();
    let now = world.now;
    let (_, welcome, _) = captured(&mut world, matter, 200);
    let eve = &mut world.nodes[EVE].device;
    eve.rooms.get_mut(&matter).unwrap().row.requests.clear();
    eve.new_post(PendingPost::new(vec![welcome], matter, Purpose::Roster));
    eve.handle_time(now);
    world.run();
    // Eve has gone; the others are there for a week.
    world.nodes[EVE].replaced = true;
    world.disconnect(EVE);
    let_pass(&mut world, 7 * DAY);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// The Welcome of a private group, a fence that is void for all others, and one word said in that group: the one word of whoever let the
/// device in must not make it believe them.
#[test]
fn whoever_let_a_device_in_does_not_vouch_for_themselves() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.disconnect(ADA);
    world.disconnect(BOB);
    lose_way(&mut world, DAN, matter);
    world.run();
    let now = world.now;
    let (mut commit, welcome, word) = captured(&mut world, matter, 0);
    *commit.last_mut().unwrap() ^= 1;
    let eve = &mut world.nodes[EVE].device;
    let fence = eve.append(matter, &commit, true).unwrap();
    eve.rooms.get_mut(&matter).unwrap().row.requests.clear();
    eve.new_post(PendingPost::new(vec![fence, welcome], matter, Purpose::Roster));
    eve.handle_time(now);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open, "he believes it");
    let eve = &mut world.nodes[EVE].device;
    let said = eve.append(matter, &word, false).unwrap();
    eve.new_post(PendingPost::new(vec![said], matter, Purpose::Roster));
    eve.handle_time(now);
    world.run();
    assert!(world.words(DAN, matter).contains(&"only you and me".to_owned()), "the control for what follows");
    world.nodes[EVE].replaced = true;
    world.disconnect(EVE);
    let_pass(&mut world, MINUTE);
    for _ in 0..3 {
        world.say(BOB, matter, "honest");
        let_pass(&mut world, DAY);
    }
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// A backup made while the device waited to be let into the successor; the original has been let in since.
#[test]
fn a_backup_made_between_two_mailboxes_comes_back() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    lose_way(&mut world, ADA, matter);
    let now = world.now;
    world.disconnect(BOB);
    world.nodes[ADA].device.continue_matter(now, matter).unwrap();
    world.run();
    assert_eq!(
        stage(&world, DAN, matter),
        Stage::Moving,
        "the successor's author waits a moment before adding anybody"
    );
    let backup = world.nodes[DAN].vault.clone();
    let_pass(&mut world, MINUTE);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    world.say(DAN, matter, "in the new place");
    world.settle();
    world.relay.copies = true;
    world.nodes[DAN].vault = backup;
    world.nodes[DAN].crash();
    let_pass(&mut world, 7 * DAY);
    assert_eq!(world.told(DAN, |notice| *notice == Notice::Copied), 1);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// The relay shows an addition's author the hash alone of their own bundle, and the bundle itself later.
#[test]
fn whoever_made_a_commit_does_not_skip_it_when_its_bundle_is_withheld() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let ada = world.nodes[ADA].device.profile().device;
    let before = world.nodes[ADA].device.matter(matter).unwrap().epoch;
    world.relay.shown = Some((ada, |entries| {
        entries
            .iter_mut()
            .filter(|entry| !entry.fence)
            .for_each(|entry| entry.body = EntryBody::Expired(entry.digest()));
    }));
    world.add(ADA, matter, EVE);
    world.run();
    world.relay.shown = None;
    world.disconnect(ADA);
    let_pass(&mut world, DAY);
    let epoch = |who: usize| world.nodes[who].device.matter(matter).unwrap().epoch;
    assert_eq!(epoch(BOB), before + 1, "the others follow");
    assert_eq!(epoch(ADA), epoch(BOB), "{:?}", notes(&world, ADA, matter));
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

/// A matter of Ada's with Bob, Dan and Eve, continued by Ada; the relay keeps Bob out of it by serving her somebody else's key packages.
pub(super) fn continued_without_bob() -> (World, MatterId) {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let (bob, cyn) = (world.person(BOB), world.person(CYN));
    world.relay.swap_packages.insert(bob, cyn);
    let now = world.now;
    world.disconnect(ADA);
    lose_way(&mut world, ADA, matter);
    world.nodes[ADA].device.continue_matter(now, matter).unwrap();
    let_pass(&mut world, MINUTE);
    assert_eq!(stage(&world, BOB, matter), Stage::Moving);
    for who in [ADA, DAN, EVE] {
        assert_eq!((stage(&world, who, matter), people(&world, who, matter)), (Stage::Open, 3), "device {who}");
    }
    (world, matter)
}

/// Lets the time come at which Bob, who was let in by nobody, continues the matter himself, and posts his statement.
pub(super) fn bob_overrules(world: &mut World, matter: MatterId) {
    let at = world.nodes[BOB].device.matter(matter).unwrap().continue_at.expect("he would continue it");
    world.relay.swap_packages.clear();
    world.now = world.now.max(at);
    let now = world.now;
    world.nodes[BOB].device.handle_time(now);
    world.drain(BOB);
}

/// Who was removed from the successor does not come back by a statement about the mailbox before it.
#[test]
fn whoever_was_removed_from_the_successor_stays_out_when_it_is_overruled() {
    let (mut world, matter) = continued_without_bob();
    world.remove(ADA, matter, EVE);
    world.run();
    assert_eq!(stage(&world, EVE, matter), Stage::Removed);
    world.say(DAN, matter, "she is gone");
    let_pass(&mut world, MINUTE);
    bob_overrules(&mut world, matter);
    let_pass(&mut world, 10 * MINUTE);
    world.say(ADA, matter, "not for Eve");
    let_pass(&mut world, MINUTE);
    let eve = world.person(EVE);
    for who in [ADA, BOB, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}: {:?}", notes(&world, who, matter));
        let listed = world.nodes[who].device.matter(matter).unwrap().people.contains(&eve);
        assert!(!listed, "device {who}: whom Ada removed is in again: {:?}", notes(&world, who, matter));
    }
    assert!(!world.words(EVE, matter).contains(&"not for Eve".to_owned()));
}

/// Nobody does anything wrong here: Ada takes Eve out before anybody is taken over, is told that it is done, and closes her laptop.
#[test]
fn a_removal_told_as_done_while_a_matter_is_continued_holds() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let eve = world.person(EVE);
    let now = world.now;
    world.disconnect(ADA);
    lose_way(&mut world, ADA, matter);
    world.nodes[ADA].device.continue_matter(now, matter).unwrap();
    world.connect(ADA);
    world.run();
    assert_eq!((stage(&world, ADA, matter), people(&world, ADA, matter)), (Stage::Open, 1));
    world.remove(ADA, matter, EVE);
    let done = |notice: &Notice| matches!(notice, Notice::Done { person, add: false, .. } if *person == eve);
    assert_eq!(world.told(ADA, done), 1);
    world.run();
    world.disconnect(ADA);
    world.nodes[ADA].replaced = true;
    let_pass(&mut world, 60 * MINUTE);
    world.nodes[ADA].replaced = false;
    let_pass(&mut world, 60 * MINUTE);
    for who in [ADA, BOB, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}: {:?}", notes(&world, who, matter));
        let listed = world.nodes[who].device.matter(matter).unwrap().people.contains(&eve);
        assert!(!listed, "device {who}: whom Ada removed is in again: {:?}", notes(&world, who, matter));
    }
}

/// Whoever overrules a successor and then lets nobody in is overruled in turn, as they would be in the first mailbox.
#[test]
fn an_overruling_statement_whose_author_is_gone_does_not_end_the_matter() {
    let (mut world, matter) = continued_without_bob();
    bob_overrules(&mut world, matter);
    world.nodes[BOB].crash();
    world.nodes[BOB].replaced = true;
    world.run();
    assert_eq!(stage(&world, ADA, matter), Stage::Moving);
    let_pass(&mut world, 14 * DAY);
    all_hear_each_other(&mut world, matter, &[ADA, DAN, EVE]);
}

/// Two mailboxes have no common order: a text may be accepted in the successor after some have read that it is overruled.
#[test]
fn what_is_stored_in_an_overruled_successor_is_read_by_all() {
    let (mut world, matter) = continued_without_bob();
    bob_overrules(&mut world, matter);
    while stage(&world, ADA, matter) != Stage::Moving {
        assert!(world.turn(ADA), "Ada reads the statement");
    }
    let id = world.say(DAN, matter, "in between");
    let_pass(&mut world, 10 * MINUTE);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Stored { id: told, .. } if *told == id)), 1);
    for who in [DAN, EVE, ADA] {
        let heard = world.words(who, matter).iter().filter(|text| *text == "in between").count();
        assert_eq!(heard, 1, "device {who}: {:?}", notes(&world, who, matter));
    }
}

/// An attorney lists somebody who has no device in the matter.
#[test]
fn a_ghost_on_the_list_keeps_no_newcomer_out() {
    use crate::matter::Participant;
    use crate::matter::forge::{self, Wild};
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let now = world.now;
    let profile = world.nodes[CYN].device.profile();
    let ghost = Participant {
        person: profile.person,
        role: profile.role,
        person_key: world.nodes[CYN].device.own_person_key().unwrap(),
    };
    let bob = &mut world.nodes[BOB].device;
    let mut context = bob.group(matter).unwrap().context().unwrap();
    context.people.push(ghost);
    context.people.sort();
    let seen = Seen::at(bob.rooms[&matter].row.position);
    let state = bob.group(matter).unwrap().state();
    let wild = Wild { context: Some(context), ..Wild::default() };
    let commit = forge::commit(&bob.me, bob.rooms[&matter].row.group, state, &wild, &seen);
    let fence = bob.append(matter, &envelope::wrap(Class::Commit, &commit).unwrap(), true).unwrap();
    bob.new_post(PendingPost::new(vec![fence], matter, Purpose::Roster));
    bob.handle_time(now);
    world.run();
    world.nodes[BOB].replaced = true;
    world.disconnect(BOB);
    world.add(ADA, matter, EVE);
    let_pass(&mut world, 10 * MINUTE);
    assert!(world.nodes[EVE].device.matter(matter).is_some(), "{:?}", world.nodes[EVE].notices);
    all_hear_each_other(&mut world, matter, &[ADA, DAN, EVE]);
}

#[test]
fn a_reply_that_names_too_few_places_settles_nothing() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.relay.short_reply = true;
    world.say(ADA, matter, "one");
    world.settle();
    world.agree(matter, &[ADA, DAN], &["one"]);
    assert!(world.nodes[ADA].device.pending(matter).is_empty());
}

/// A statement that was refused once, and is put behind a later fence.
#[test]
fn a_statement_that_stands_elsewhere_than_it_says_is_void() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let epoch = world.nodes[BOB].device.matter(matter).unwrap().epoch;
    world.disconnect(BOB);
    let mailbox = world.nodes[ADA].device.matter(matter).unwrap().mailbox;
    let garbage = envelope::wrap(Class::Commit, b"garbage").unwrap();
    let now = world.now;
    let said_from = world.nodes[BOB].device.matter(matter).unwrap().position;
    let dan = &mut world.nodes[DAN].device;
    let fence = dan.append(matter, &garbage, true).unwrap();
    dan.new_post(PendingPost::new(vec![fence], matter, Purpose::Roster));
    dan.handle_time(now);
    world.run();
    let bob = &mut world.nodes[BOB].device;
    let said = Successor {
        group: matter,
        device: bob.profile().device,
        epoch,
        position: said_from,
        mailbox: crate::ids::MailboxId::random(),
        successor: MatterId::random(),
        turn: 0,
        people: Vec::new(),
        fates: Vec::new(),
    };
    let signed = said.sign(&bob.profile().mls_key).unwrap();
    let base = world.nodes[DAN].device.matter(matter).unwrap().fence;
    let late = Part::Append {
        mailbox,
        base,
        fence: true,
        envelope: Blob(envelope::wrap(Class::Successor, &signed).unwrap()),
        keep_ms: 1_000_000,
    };
    world.nodes[DAN].device.new_post(PendingPost::new(vec![late], matter, Purpose::Roster));
    world.nodes[DAN].device.handle_time(now);
    let_pass(&mut world, MINUTE);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
    assert_eq!(world.nodes[ADA].device.matter(matter).unwrap().mailbox, mailbox);
}

/// The relay is restored after a matter was continued: the mailbox before is watched from its beginning again.
#[test]
fn the_mailbox_before_is_watched_after_a_restore() {
    let (mut world, matter) = continued_without_bob();
    let now = world.relay.clone();
    world.restore(now);
    world.run();
    world.settle();
    bob_overrules(&mut world, matter);
    let_pass(&mut world, 10 * MINUTE);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

/// Behind its removal a device reads what it can't judge: that is no sign of the others going on with it.
#[test]
fn a_removed_device_does_not_rest_at_what_it_can_not_judge() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.remove(ADA, matter, DAN);
    world.settle();
    assert_eq!(stage(&world, DAN, matter), Stage::Removed);
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.keep_reading = Some(dan);
    world.relay.shown = Some((dan, |entries| {
        entries
            .iter_mut()
            .filter(|entry| !entry.fence)
            .for_each(|entry| entry.body = EntryBody::Expired(entry.digest()));
    }));
    world.add(BOB, matter, CYN);
    let_pass(&mut world, 20 * MINUTE);
    assert_eq!(stage(&world, DAN, matter), Stage::Removed);
}
