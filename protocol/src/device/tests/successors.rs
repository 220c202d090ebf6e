//! Successors: honest devices must not end apart, nobody removed comes back, and nobody without a say moves a matter.

use super::corners::{again, continued, end_of};
use super::crossings::{DAY, MINUTE, all_hear_each_other, bob_overrules, continued_without_bob};
use super::rescue::{let_pass, lose_way, notes};
use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::{people, stage};
use crate::device::Notice;
use crate::device::state::{PendingPost, Purpose, Stage};
use crate::envelope::{self, Class};
use crate::frame::{Blob, Part};
use crate::ids::{MailboxId, MatterId, PersonId};
use crate::rescue::Successor;

pub(super) const HOUR: u64 = 60 * MINUTE;

/// These devices are away until they come back.
pub(super) fn leave(world: &mut World, who: &[usize]) {
    for index in who {
        world.disconnect(*index);
        world.nodes[*index].replaced = true;
    }
}

pub(super) fn come_back(world: &mut World, who: &[usize]) {
    for index in who {
        world.nodes[*index].replaced = false;
    }
}

/// A device owes the matter fresh keys, and commits them.
fn renew(world: &mut World, who: usize, matter: MatterId) {
    world.nodes[who].device.rooms.get_mut(&matter).unwrap().row.healing.due = true;
    world.now = world.now.plus_ms(10_000);
    let now = world.now;
    world.nodes[who].device.heal(now);
    world.run();
}

/// A device that can't follow the matter continues it at its user's wish, and is online from then on.
fn continue_by_hand(world: &mut World, who: usize, matter: MatterId) {
    lose_way(world, who, matter);
    let now = world.now;
    world.nodes[who].device.continue_matter(now, matter).unwrap();
}

fn mailbox(world: &World, who: usize, matter: MatterId) -> MailboxId {
    world.nodes[who].device.matter(matter).unwrap().mailbox
}

/// A statement of this device's about a group, in the mailbox where it stands, posted by another.
fn state(world: &mut World, who: usize, by: usize, matter: MatterId, place: (MailboxId, MatterId), said: Claim) {
    let (mailbox, group) = place;
    let (position, base) = end_of(world, mailbox);
    let profile = world.nodes[who].device.profile();
    let said = Successor {
        group,
        device: profile.device,
        epoch: said.epoch,
        position,
        mailbox: MailboxId::random(),
        successor: MatterId::random(),
        turn: said.turn,
        people: said.people,
        fates: Vec::new(),
    };
    let envelope = envelope::wrap(Class::Successor, &said.sign(&profile.mls_key).unwrap()).unwrap();
    let append = Part::Append { mailbox, base, fence: true, envelope: Blob(envelope), keep_ms: 1_000_000 };
    let now = world.now;
    let device = &mut world.nodes[by].device;
    device.new_post(PendingPost::new(vec![append], matter, Purpose::Roster));
    device.handle_time(now);
    world.drain(by);
}

/// What somebody claims.
struct Claim {
    epoch: u64,
    turn: u32,
    people: Vec<PersonId>,
}

/// Ada removes Bob, the relay forgets it, and Ada says so in her statement; Bob, whom nobody has told, overrules it in good faith. Dan
/// reads both one behind the other.
#[test]
fn whoever_a_statement_names_as_removed_leads_nobody_away() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let yesterday = world.relay.clone();
    leave(&mut world, &[BOB, DAN]);
    world.remove(ADA, matter, BOB);
    world.run();
    world.restore(yesterday);
    let_pass(&mut world, MINUTE);
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
    come_back(&mut world, &[BOB]);
    let_pass(&mut world, HOUR);
    come_back(&mut world, &[DAN]);
    let_pass(&mut world, HOUR);
    world.say(DAN, matter, "for my attorney alone");
    let_pass(&mut world, DAY);
    assert!(
        !world.words(BOB, matter).contains(&"for my attorney alone".to_owned()),
        "a removed person leads a client away: {:?}",
        notes(&world, DAN, matter)
    );
    all_hear_each_other(&mut world, matter, &[ADA, DAN]);
}

/// Cyn came in when Eve was gone already; a statement from before both names Eve, and Cyn alone is there to overrule it.
#[test]
fn who_was_removed_before_a_newcomer_came_stays_out_of_what_the_newcomer_continues() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    leave(&mut world, &[BOB]);
    world.remove(ADA, matter, EVE);
    world.run();
    world.add(ADA, matter, CYN);
    world.run();
    assert_eq!(people(&world, CYN, matter), 4);
    leave(&mut world, &[ADA]);
    come_back(&mut world, &[BOB]);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, HOUR);
    let eve = world.person(EVE);
    for who in [CYN, DAN] {
        let row = world.nodes[who].device.matter(matter).unwrap();
        assert!(!row.people.contains(&eve), "device {who}: whom Ada removed is in again");
    }
}

/// Whoever was added while the author of a statement was away overrules it, from a later epoch.
#[test]
fn a_statement_is_overruled_by_a_manager_whom_its_author_has_not_met() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    leave(&mut world, &[BOB]);
    world.add(ADA, matter, CYN);
    world.run();
    leave(&mut world, &[ADA]);
    come_back(&mut world, &[BOB]);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, HOUR);
    come_back(&mut world, &[ADA]);
    let_pass(&mut world, 7 * DAY);
    let places: Vec<MailboxId> = [ADA, BOB, CYN, DAN].iter().map(|who| mailbox(&world, *who, matter)).collect();
    assert!(places.iter().all(|place| *place == places[0]), "two matters: {places:?}");
    all_hear_each_other(&mut world, matter, &[ADA, BOB, CYN, DAN]);
}

/// To Cyn, added since the backup, the mailbox is gone; to the other attorneys, who sleep when the relay is restored, it is not.
#[test]
fn a_mailbox_that_is_gone_to_one_attorney_alone_splits_nothing() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let yesterday = world.relay.clone();
    world.add(ADA, matter, CYN);
    world.settle();
    leave(&mut world, &[ADA, BOB]);
    renew(&mut world, CYN, matter);
    world.restore(yesterday);
    let_pass(&mut world, HOUR);
    come_back(&mut world, &[ADA, BOB]);
    let_pass(&mut world, 7 * DAY);
    let places: Vec<MailboxId> = [ADA, BOB, CYN, DAN].iter().map(|who| mailbox(&world, *who, matter)).collect();
    assert!(places.iter().all(|place| *place == places[0]), "two matters: {places:?}");
    all_hear_each_other(&mut world, matter, &[ADA, BOB, CYN, DAN]);
}

/// A client alone has applied the last Commit, and an attorney continues the matter from before it.
#[test]
fn a_client_in_a_later_epoch_is_not_left_behind_by_a_statement() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    leave(&mut world, &[ADA, BOB]);
    renew(&mut world, DAN, matter);
    come_back(&mut world, &[BOB]);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, DAY);
    let id = world.say(DAN, matter, "is anybody there");
    let_pass(&mut world, DAY);
    let stored = world.told(DAN, |notice| matches!(notice, Notice::Stored { id: told, .. } if *told == id));
    let read = world.words(BOB, matter).contains(&"is anybody there".to_owned());
    assert!(stored == 0 || read, "told to be stored, and nobody reads it: {:?}", notes(&world, DAN, matter));
    all_hear_each_other(&mut world, matter, &[BOB, DAN]);
}

/// Whoever overrules a statement leaves the successor at once; what is accepted there a moment later is theirs to read, too.
#[test]
fn what_is_stored_in_a_successor_is_read_by_whoever_has_just_left_it() {
    // Which of the two mailboxes Dan reads first is the ids' chance.
    (0..8).for_each(|_| said_behind_whoever_left());
}

fn said_behind_whoever_left() {
    let (mut world, matter) = continued_without_bob();
    world.remove(ADA, matter, EVE);
    world.run();
    world.say(DAN, matter, "she is gone");
    let_pass(&mut world, MINUTE);
    let first = mailbox(&world, ADA, matter);
    bob_overrules(&mut world, matter);
    while mailbox(&world, ADA, matter) == first {
        assert!(world.turn(ADA), "Ada overrules Bob, who names Eve");
    }
    let id = world.say(DAN, matter, "in between");
    let_pass(&mut world, HOUR);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Stored { id: told, .. } if *told == id)), 1);
    for who in [DAN, BOB, ADA] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}");
    }
    let heard = world.words(ADA, matter).iter().filter(|text| *text == "in between").count();
    assert_eq!(heard, 1, "{:?}", notes(&world, ADA, matter));
}

/// Cyn was never in the matter; Eve, a client, puts her statement there.
#[test]
fn a_statement_of_somebody_who_was_never_in_the_matter_moves_nobody() {
    let mut world = World::office();
    world.matter(&[CYN]);
    let matter = world.matter(&[BOB, DAN, EVE]);
    let row = world.nodes[ADA].device.matter(matter).unwrap().clone();
    let claim = Claim { epoch: row.epoch, turn: 0, people: Vec::new() };
    state(&mut world, CYN, EVE, matter, (row.mailbox, row.group), claim);
    let_pass(&mut world, HOUR);
    for who in [ADA, BOB, DAN, EVE] {
        assert_eq!(mailbox(&world, who, matter), row.mailbox, "device {who}: {:?}", notes(&world, who, matter));
    }
}

/// Bob was removed, and signs for ever; Eve, a client who is still in, puts each of his statements where the matter is.
#[test]
fn a_removed_attorney_and_a_client_do_not_keep_a_matter_moving() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.remove(ADA, matter, BOB);
    world.settle();
    let first = mailbox(&world, ADA, matter);
    let mut moved = 0;
    for _ in 0..3 {
        let row = world.nodes[ADA].device.matter(matter).unwrap().clone();
        let claim = Claim { epoch: row.epoch, turn: 0, people: Vec::new() };
        state(&mut world, BOB, EVE, matter, (row.mailbox, row.group), claim);
        let_pass(&mut world, HOUR);
        moved += usize::from(mailbox(&world, ADA, matter) != row.mailbox);
    }
    assert_eq!(moved, 0, "moved {moved} times by somebody without a say");
    assert_eq!(mailbox(&world, ADA, matter), first);
}

/// No statement is the last word: the highest turn there is, in the mailbox before, and then silence.
#[test]
fn a_statement_of_the_highest_turn_does_not_end_a_matter() {
    let mut world = World::office();
    let matter = continued(&mut world, &[BOB, DAN]);
    let old = world.nodes[ADA].device.matter(matter).unwrap().old.clone().unwrap();
    let claim = Claim { epoch: old.epoch, turn: u32::MAX, people: old.managers.clone() };
    state(&mut world, BOB, BOB, matter, (old.mailbox, old.group), claim);
    leave(&mut world, &[BOB]);
    let_pass(&mut world, 14 * DAY);
    all_hear_each_other(&mut world, matter, &[ADA, DAN]);
}

/// A matter continued twice while somebody was away of whom the relay had no key package.
fn continued_twice_without(away: usize) -> (World, MatterId) {
    let mut world = World::office();
    let matter = world.matter(&[BOB, away]);
    leave(&mut world, &[away]);
    let device = world.nodes[away].device.profile().device;
    world.relay.forget_packages(device, true);
    continue_by_hand(&mut world, ADA, matter);
    let_pass(&mut world, HOUR);
    assert_eq!((stage(&world, BOB, matter), people(&world, BOB, matter)), (Stage::Open, 2));
    let second = mailbox(&world, ADA, matter);
    again(&mut world, matter, &[BOB]);
    assert_ne!(mailbox(&world, ADA, matter), second);
    come_back(&mut world, &[away]);
    let_pass(&mut world, 7 * DAY);
    (world, matter)
}

#[test]
fn a_client_who_was_away_while_a_matter_was_continued_twice_is_in_it_again() {
    let (mut world, matter) = continued_twice_without(DAN);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

#[test]
fn an_attorney_who_was_away_while_a_matter_was_continued_twice_is_in_the_same_one() {
    let (mut world, matter) = continued_twice_without(CYN);
    for who in [ADA, BOB, CYN] {
        assert_eq!(world.nodes[who].device.matters().count(), 1, "device {who}: one matter");
    }
    all_hear_each_other(&mut world, matter, &[ADA, BOB, CYN]);
}

/// Bob continues the matter, Eve is not in it yet, and Ada removes her: told as done, it is done.
#[test]
fn a_removal_told_as_done_holds_though_another_has_yet_to_take_them_over() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let eve = world.person(EVE);
    leave(&mut world, &[EVE]);
    let device = world.nodes[EVE].device.profile().device;
    world.relay.forget_packages(device, true);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, MINUTE);
    assert_eq!((stage(&world, ADA, matter), people(&world, ADA, matter)), (Stage::Open, 3));
    world.remove(ADA, matter, EVE);
    let_pass(&mut world, MINUTE);
    let done = |notice: &Notice| matches!(notice, Notice::Done { person, add: false, .. } if *person == eve);
    let told = world.told(ADA, done);
    come_back(&mut world, &[EVE]);
    let_pass(&mut world, HOUR);
    let listed = world.nodes[ADA].device.matter(matter).unwrap().people.contains(&eve);
    assert!(told == 0 || !listed, "told as done, and in again: {:?}", notes(&world, ADA, matter));
    assert!(!listed, "she is to go");
}

/// The relay has forgotten the whole matter. Bob, who has not met Dan, is back first; Ada has applied a later epoch, and says so.
#[test]
fn a_statement_in_a_welcome_is_overruled_by_whoever_has_applied_a_later_epoch() {
    let mut world = World::office();
    let yesterday = world.relay.clone();
    let matter = world.matter(&[BOB]);
    leave(&mut world, &[BOB]);
    world.add(ADA, matter, DAN);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    world.restore(yesterday);
    leave(&mut world, &[ADA, DAN]);
    come_back(&mut world, &[BOB]);
    let_pass(&mut world, HOUR);
    come_back(&mut world, &[ADA, DAN]);
    let_pass(&mut world, 7 * DAY);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// Eve was removed and is in again; whoever has read the one, and not the other, names her as removed.
#[test]
fn who_was_added_again_is_not_thrown_out_by_a_statement_from_before() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.remove(ADA, matter, EVE);
    world.settle();
    leave(&mut world, &[BOB]);
    world.add(ADA, matter, EVE);
    let_pass(&mut world, MINUTE);
    assert_eq!((stage(&world, EVE, matter), people(&world, ADA, matter)), (Stage::Open, 4));
    come_back(&mut world, &[BOB]);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, DAY);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

/// Nobody has removed Eve: the user thought better of it. The next statement takes her over.
#[test]
fn a_removal_that_was_taken_back_keeps_nobody_out() {
    let mut world = World::office();
    let matter = continued(&mut world, &[BOB, DAN, EVE]);
    world.disconnect(ADA);
    world.remove(ADA, matter, EVE);
    world.add(ADA, matter, EVE);
    world.settle();
    assert_eq!((stage(&world, EVE, matter), people(&world, ADA, matter)), (Stage::Open, 4));
    again(&mut world, matter, &[BOB, DAN, EVE]);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN, EVE]);
}

/// No attorney does anything wrong: Eve is added again in the successor, and Bob comes in last, who knows of her removal alone.
#[test]
fn whoever_is_let_into_a_successor_forgets_removals_that_hold_no_more() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let eve = world.person(EVE);
    world.remove(ADA, matter, EVE);
    world.settle();
    leave(&mut world, &[BOB]);
    let device = world.nodes[BOB].device.profile().device;
    world.relay.forget_packages(device, true);
    continue_by_hand(&mut world, ADA, matter);
    let_pass(&mut world, MINUTE);
    world.add(ADA, matter, EVE);
    let_pass(&mut world, MINUTE);
    come_back(&mut world, &[BOB]);
    let_pass(&mut world, HOUR);
    if stage(&world, BOB, matter) != Stage::Open {
        world.add(ADA, matter, BOB);
        let_pass(&mut world, HOUR);
    }
    let row = world.nodes[BOB].device.matter(matter).unwrap();
    assert!(row.stage == Stage::Open && row.people.contains(&eve), "the control for what follows");
    assert!(!row.is_out(eve), "in, and kept out");
}
