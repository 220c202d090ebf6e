//! Corners where two things go wrong at once: false answers, clocks, links and backups beside repairs and successors.

use super::rescue::{answer_in_private, let_pass, lose_way, notes};
use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::{people, stage};
use crate::device::state::{PendingPost, Purpose, RecordBody, Snapshot, Stage, Table};
use crate::device::{NewPersonInvite, Notice};
use crate::envelope::{self, Class};
use crate::error::Refused;
use crate::frame::{Blob, EntryBody, Part};
use crate::identity::Role;
use crate::ids::{MailboxId, MatterId, Position};
use crate::matter::Seen;
use crate::rescue::Successor;

/// Whoever knows the later epoch comes online after the others were invited.
#[test]
fn a_welcome_into_a_refused_successor_stops_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let now = world.now;
    world.disconnect(BOB);
    world.remove(ADA, matter, EVE);
    world.run();
    world.disconnect(ADA);
    world.disconnect(DAN);
    lose_way(&mut world, BOB, matter);
    world.nodes[BOB].device.continue_matter(now, matter).unwrap();
    world.connect(BOB);
    for _ in 0..20 {
        world.run();
        if let Some(at) = world.nodes[BOB].device.deadline() {
            world.now = at;
            world.nodes[BOB].device.handle_time(at);
        }
    }
    world.run();
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, DAN] {
        assert!(world.nodes[who].device.is_caught_up(), "device {who} stands still in all its matters");
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}");
        assert_eq!(people(&world, who, matter), 3, "device {who}");
    }
}

pub(super) fn continued(world: &mut World, with: &[usize]) -> MatterId {
    let matter = world.matter(with);
    again(world, matter, with);
    matter
}

pub(super) fn again(world: &mut World, matter: MatterId, with: &[usize]) {
    lose_way(world, ADA, matter);
    for who in with {
        lose_way(world, *who, matter);
    }
    let_pass(world, 120_000);
    assert_eq!(stage(world, ADA, matter), Stage::Open);
}

/// A mailbox's last position, and its last fence.
pub(super) fn end_of(world: &World, mailbox: MailboxId) -> (Position, Position) {
    let (mut position, mut fence) = (Position::start(mailbox), Position::start(mailbox));
    for entry in world.relay.entries(mailbox) {
        position = position.next(entry.fence, &entry.digest());
        if entry.fence {
            fence = position;
        }
    }
    (position, fence)
}

/// Posts a statement that continues a matter from an epoch, whatever the device itself thinks of it.
fn claim(world: &mut World, who: usize, matter: MatterId, epoch: u64) -> MailboxId {
    let now = world.now;
    let row = world.nodes[who].device.matter(matter).unwrap().clone();
    let (position, base) = end_of(world, row.mailbox);
    let device = &mut world.nodes[who].device;
    let (mailbox, successor) = (MailboxId::random(), MatterId::random());
    let said = Successor {
        group: row.group,
        device: device.profile().device,
        epoch,
        position,
        mailbox,
        successor,
        turn: 0,
        people: row.people.clone(),
        fates: Vec::new(),
    };
    let envelope = envelope::wrap(Class::Successor, &said.sign(&device.profile().mls_key).unwrap()).unwrap();
    let append = Part::Append { mailbox: row.mailbox, base, fence: true, envelope: Blob(envelope), keep_ms: 1_000_000 };
    device.new_post(PendingPost::new(vec![Part::Create { mailbox }, append], matter, Purpose::Roster));
    device.handle_time(now);
    mailbox
}

#[test]
fn of_two_statements_from_one_epoch_the_first_counts_for_all() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN]);
    let epoch = world.nodes[ADA].device.matter(matter).unwrap().epoch;
    let now = world.now;
    lose_way(&mut world, BOB, matter);
    world.nodes[BOB].device.continue_matter(now, matter).unwrap();
    world.run();
    let first = world.nodes[BOB].device.matter(matter).unwrap().mailbox;
    let second = claim(&mut world, CYN, matter, epoch);
    assert_ne!(first, second);
    let_pass(&mut world, 10_000);
    for who in [ADA, BOB, CYN, DAN] {
        assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}");
        assert_eq!(world.nodes[who].device.matter(matter).unwrap().mailbox, first, "device {who}");
    }
}

/// Bob was removed, the relay forgets it, and Bob claims to know better than everybody.
#[test]
fn somebody_removed_before_a_backup_does_not_lead_the_matter_away() {
    for ahead in [1, 1 << 20, u64::MAX / 2] {
        let mut world = World::office();
        let matter = world.matter(&[BOB, DAN]);
        let yesterday = world.relay.clone();
        world.disconnect(BOB);
        world.disconnect(DAN);
        world.remove(ADA, matter, BOB);
        world.run();
        let epoch = world.nodes[BOB].device.matter(matter).unwrap().epoch;
        world.restore(yesterday);
        world.disconnect(ADA);
        world.disconnect(DAN);
        world.connect(BOB);
        world.run();
        claim(&mut world, BOB, matter, epoch.saturating_add(ahead));
        world.run();
        world.connect(DAN);
        world.run();
        let_pass(&mut world, 120_000);
        for who in [ADA, DAN] {
            assert_eq!(stage(&world, who, matter), Stage::Open, "device {who}, {ahead} ahead");
            assert_eq!(people(&world, who, matter), 2, "device {who}, {ahead} ahead");
        }
        world.say(DAN, matter, "for my attorney alone");
        let_pass(&mut world, 60_000);
        assert!(world.words(ADA, matter).contains(&"for my attorney alone".to_owned()), "{ahead} ahead");
        assert!(!world.words(BOB, matter).contains(&"for my attorney alone".to_owned()), "{ahead} ahead");
    }
}

/// Somebody removed from the successor speaks in the old mailbox.
#[test]
fn a_person_removed_from_the_successor_does_not_take_the_matter_away() {
    let mut world = World::office();
    let matter = continued(&mut world, &[BOB, DAN]);
    world.remove(ADA, matter, BOB);
    let_pass(&mut world, 10_000);
    assert_eq!(stage(&world, BOB, matter), Stage::Removed);
    assert_eq!(people(&world, DAN, matter), 2);
    let old = world.nodes[ADA].device.matter(matter).unwrap().old.clone().unwrap();
    let (position, fence) = end_of(&world, old.mailbox);
    let now = world.now;
    let bob = &mut world.nodes[BOB].device;
    let said = Successor {
        group: old.group,
        device: bob.profile().device,
        epoch: old.epoch + 1,
        position,
        mailbox: MailboxId::random(),
        successor: MatterId::random(),
        turn: 0,
        people: old.managers.clone(),
        fates: Vec::new(),
    };
    let envelope = envelope::wrap(Class::Successor, &said.sign(&bob.profile().mls_key).unwrap()).unwrap();
    let parts = vec![
        Part::Create { mailbox: said.mailbox },
        Part::Append { mailbox: old.mailbox, base: fence, fence: true, envelope: Blob(envelope), keep_ms: 1_000_000 },
    ];
    let from = (bob.profile().person, bob.profile().device);
    bob.follow(now, matter, position, (&said, &Blob(Vec::new())), from).unwrap();
    bob.new_post(PendingPost::new(parts, matter, Purpose::Roster));
    bob.handle_time(now);
    world.run();
    world.disconnect(BOB);
    let_pass(&mut world, 60_000);
    world.disconnect(BOB);
    let_pass(&mut world, 60_000);
    world.say(DAN, matter, "for my attorney alone");
    let_pass(&mut world, 60_000);
    assert!(!world.words(BOB, matter).contains(&"for my attorney alone".to_owned()), "a removed person reads on");
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
}

#[test]
fn what_is_sent_again_into_a_successor_is_shown_once() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let yesterday = world.relay.clone();
    world.remove(ADA, matter, EVE);
    world.run();
    world.say(DAN, matter, "two");
    world.run();
    assert_eq!(world.words(ADA, matter), ["two"]);
    world.restore(yesterday);
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, DAN] {
        assert_eq!(world.words(who, matter), ["two"], "device {who}");
    }
}

#[test]
fn a_commit_that_the_relay_took_and_denied_is_applied_when_read() {
    for lie in [Refused::Full { what: "x".to_owned() }, Refused::Unknown] {
        let mut world = World::office();
        let matter = world.matter(&[BOB, DAN]);
        world.relay.lie = Some(lie.clone());
        world.add(ADA, matter, EVE);
        let_pass(&mut world, 60_000);
        let epoch = |who: usize| world.nodes[who].device.matter(matter).unwrap().epoch;
        assert_eq!(epoch(ADA), epoch(BOB), "{lie:?}");
    }
}

#[test]
fn a_matter_continued_twice_watches_the_mailbox_before() {
    let mut world = World::office();
    let matter = continued(&mut world, &[BOB, DAN]);
    let second = world.nodes[ADA].device.matter(matter).unwrap().mailbox;
    again(&mut world, matter, &[BOB, DAN]);
    for who in [ADA, BOB, DAN] {
        let old = world.nodes[who].device.matter(matter).unwrap().old.clone().unwrap();
        assert_eq!(old.mailbox, second, "device {who}");
    }
}

#[test]
fn a_removed_device_is_not_in_again_after_a_fork_that_was_a_backup() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, EVE]);
    let yesterday = world.relay.clone();
    world.remove(ADA, matter, EVE);
    world.settle();
    assert_eq!(stage(&world, EVE, matter), Stage::Removed);
    let incarnation = world.relay.incarnation;
    world.restore(yesterday);
    world.relay.incarnation = incarnation;
    world.connect(EVE);
    world.run();
    world.disconnect(EVE);
    world.relay.incarnation = [9; 16];
    let_pass(&mut world, 120_000);
    assert_eq!(stage(&world, EVE, matter), Stage::Removed, "{:?}", notes(&world, EVE, matter));
}

#[test]
fn a_device_out_of_step_is_so_after_a_fork_that_was_a_backup() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let yesterday = world.relay.clone();
    world.disconnect(ADA);
    world.disconnect(BOB);
    lose_way(&mut world, DAN, matter);
    world.run();
    world.disconnect(DAN);
    let incarnation = world.relay.incarnation;
    world.restore(yesterday);
    world.relay.incarnation = incarnation;
    world.connect(DAN);
    world.run();
    world.disconnect(DAN);
    world.relay.incarnation = [9; 16];
    let_pass(&mut world, 3_600_000);
    world.say(ADA, matter, "hello");
    let_pass(&mut world, 3_600_000);
    assert_eq!(world.words(DAN, matter), ["hello"]);
}

#[test]
fn a_clock_that_was_wrong_once_does_not_keep_a_device_out() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let now = world.now;
    world.disconnect(DAN);
    let future = now.plus_ms(10 * 365 * 24 * 3600 * 1000);
    world.nodes[DAN].device.lose_way(future, matter);
    world.nodes[DAN].device.handle_time(future);
    world.drain(DAN);
    let_pass(&mut world, 3 * 24 * 3600 * 1000);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
}

#[test]
fn a_clock_that_was_wrong_once_does_not_end_healing() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let now = world.now;
    world.now = now.plus_ms(10 * 365 * 24 * 3600 * 1000);
    world.add(ADA, matter, BOB);
    world.run();
    world.now = now.plus_ms(10_000);
    (0..5).for_each(|who| world.disconnect(who));
    world.settle();
    for _ in 0..30 {
        world.say(ADA, matter, "x");
        world.settle();
        let end = world.now.plus_ms(24 * 3600 * 1000);
        world.now = end;
        world.nodes[ADA].device.handle_time(end);
        world.run();
        assert!(world.nodes[ADA].device.matter(matter).is_some());
    }
    let own = world.nodes[ADA].device.matter(matter).unwrap();
    assert!(own.healing.sent < 30, "a month of messages and no update");
}

#[test]
fn an_old_welcome_leads_nowhere_after_a_removal() {
    let mut world = World::office();
    let device = world.nodes[DAN].device.profile().device;
    world.relay.forget_packages(device, false);
    let matter = world.matter(&[BOB, DAN]);
    world.say(DAN, matter, "one");
    let_pass(&mut world, 1);
    let inbox = world.nodes[DAN].device.profile().inbox;
    let welcome = world
        .relay
        .entries(inbox)
        .iter()
        .find_map(|e| match &e.body {
            EntryBody::Envelope(b) => Some(b.clone()),
            _ => None,
        })
        .unwrap();
    world.remove(ADA, matter, DAN);
    let_pass(&mut world, 1);
    assert_eq!(stage(&world, DAN, matter), Stage::Removed);
    world.relay.shown = Some((device, |entries| entries.truncate(2)));
    world.disconnect(DAN);
    world.connect(DAN);
    // The relay shows the old Welcome again (or any member appends it).
    let now = world.now;
    let bob = &mut world.nodes[BOB].device;
    let part = Part::Append {
        mailbox: inbox,
        base: Position::start(inbox),
        fence: false,
        envelope: welcome,
        keep_ms: 1_000_000,
    };
    bob.new_post(PendingPost::new(vec![part], matter, Purpose::Roster));
    bob.handle_time(now);
    world.run();
    let row = world.nodes[DAN].device.matter(matter).unwrap();
    assert_eq!(row.stage, Stage::Removed);
}

#[test]
fn a_welcome_made_in_private_does_not_keep_a_device_out() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    world.disconnect(ADA);
    world.disconnect(BOB);
    // Eve has not read the request before she prepares: her honest program is kept from answering.
    lose_way(&mut world, DAN, matter);
    world.run();
    let now = world.now;
    let (_, welcome) = answer_in_private(&mut world, EVE, matter);
    let eve = &mut world.nodes[EVE].device;
    eve.rooms.get_mut(&matter).unwrap().row.requests.clear();
    eve.new_post(PendingPost::new(vec![welcome], matter, Purpose::Roster));
    eve.handle_time(now);
    world.run();
    world.connect(ADA);
    world.connect(BOB);
    for _ in 0..4 {
        world.run();
        if let Some(at) = world.nodes[ADA].device.deadline().filter(|at| at.0 < now.0 + 5_000) {
            world.now = at;
            world.nodes[ADA].device.handle_time(at);
        }
    }
    world.run();
    for i in 0..10 {
        world.say(ADA, matter, &format!("honest {i}"));
        let_pass(&mut world, 60_000);
    }
    let_pass(&mut world, 3 * 24 * 3_600_000);
    world.say(ADA, matter, "honest at last");
    let_pass(&mut world, 60_000);
    assert!(world.words(DAN, matter).contains(&"honest at last".to_owned()));
}

#[test]
fn what_waits_to_be_posted_when_a_relay_is_restored_disputes_nothing() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let yesterday = world.relay.clone();
    world.say(BOB, matter, "x");
    world.settle();
    world.relay.refuse.push_back(Refused::Slow { after_ms: 10_000 });
    world.say(ADA, matter, "two");
    world.run();
    world.restore(yesterday);
    let_pass(&mut world, 60_000);
    for who in [ADA, BOB, DAN] {
        let disputed = |what: &RecordBody| matches!(what, RecordBody::Dispute { .. });
        assert!(!notes(&world, who, matter).iter().any(disputed), "device {who}");
        let mut words = world.words(who, matter);
        words.sort();
        assert_eq!(words, ["two", "x"]);
    }
}

#[test]
fn a_refused_update_is_not_built_again_at_once() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.nodes[ADA].device.rooms.get_mut(&matter).unwrap().row.healing.generations = 900;
    for _ in 0..200 {
        world.relay.refuse.push_back(Refused::not_allowed("no"));
    }
    let before = world.relay.posts;
    world.say(ADA, matter, "x");
    world.run();
    assert!(world.relay.posts - before < 5, "{} Commits in no time", world.relay.posts - before);
}

#[test]
fn a_roster_is_corrected_though_the_link_broke() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let mailbox = world.nodes[ADA].device.matter(matter).unwrap().mailbox;
    let dan = world.nodes[DAN].device.profile().device;
    let now = world.now;
    world.disconnect(ADA);
    let bob = &mut world.nodes[BOB].device;
    let fence = bob.append(matter, &envelope::wrap(Class::Commit, &[1, 2, 3]).unwrap(), true).unwrap();
    bob.new_post(PendingPost::new(vec![fence, Part::Revoke { mailbox, device: dan }], matter, Purpose::Roster));
    bob.handle_time(now);
    world.drain(BOB);
    world.nodes[BOB].crash();
    world.nodes[BOB].replaced = true;
    world.connect(ADA);
    let place = world.relay.entries(mailbox).len() as u64;
    while world.nodes[ADA].device.matter(matter).unwrap().position.seq < place {
        world.turn(ADA);
    }
    world.disconnect(ADA);
    world.connect(ADA);
    for _ in 0..200 {
        world.turn(ADA);
    }
    let_pass(&mut world, 3_600_000);
    assert!(world.relay.readers(mailbox).contains(&dan));
}

#[test]
fn what_was_said_before_a_matter_was_continued_is_not_said_again() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    for i in 0..20 {
        world.say(ADA, matter, &format!("t{i}"));
        world.settle();
    }
    again(&mut world, matter, &[BOB, DAN]);
    let yesterday = world.relay.clone();
    world.say(ADA, matter, "new");
    world.settle();
    world.restore(yesterday);
    let_pass(&mut world, 60_000);
    for who in [ADA, BOB, DAN] {
        let again = world.words(who, matter).iter().filter(|w| *w == "t19").count();
        assert_eq!(again, 1, "device {who}: {:?}", world.words(who, matter));
    }
}

#[test]
fn a_statement_whose_author_is_gone_does_not_end_the_matter() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN]);
    world.nodes[BOB].device.post_successor(matter).unwrap();
    let now = world.now;
    world.nodes[BOB].device.handle_time(now);
    world.drain(BOB);
    world.nodes[BOB].crash();
    world.nodes[BOB].replaced = true;
    world.run();
    let_pass(&mut world, 14 * 24 * 3_600_000);
    let_pass(&mut world, 24 * 3_600_000);
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
}

/// Removed while out of step, added again.
#[test]
fn whoever_is_removed_while_out_of_step_comes_back_when_added() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.disconnect(DAN);
    world.nodes[DAN].device.lose_way(world.now, matter);
    let now = world.now;
    world.nodes[DAN].device.handle_time(now);
    world.drain(DAN);
    world.remove(ADA, matter, DAN);
    world.run();
    world.say(ADA, matter, "between");
    world.run();
    world.connect(DAN);
    let_pass(&mut world, 60_000);
    world.add(ADA, matter, DAN);
    let_pass(&mut world, 10 * 24 * 3_600_000);
    world.say(ADA, matter, "hello again");
    let_pass(&mut world, 60_000);
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    assert!(world.words(DAN, matter).contains(&"hello again".to_owned()));
    assert!(!notes(&world, DAN, matter).iter().any(|w| matches!(w, RecordBody::Forked { .. })));
}

/// The relay did nothing wrong.
#[test]
fn what_stands_behind_newer_rules_accuses_nobody() {
    use crate::matter::forge::{self, Wild};
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let now = world.now;
    let bob = &mut world.nodes[BOB].device;
    let mut context = bob.group(matter).unwrap().context().unwrap();
    context.rules = 2;
    let seen = Seen::at(bob.rooms[&matter].row.position);
    let state = bob.group(matter).unwrap().state();
    let commit = forge::commit(
        &bob.me,
        bob.rooms[&matter].row.group,
        state,
        &Wild { context: Some(context), ..Wild::default() },
        &seen,
    );
    let fence = bob.append(matter, &envelope::wrap(Class::Commit, &commit).unwrap(), true).unwrap();
    bob.new_post(PendingPost::new(vec![fence], matter, Purpose::Roster));
    bob.handle_time(now);
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Outdated);
    // Something of Bob's newer program behind it.
    let mailbox = world.nodes[BOB].device.matter(matter).unwrap().mailbox;
    let (mut fence, mut position) = (Position::start(mailbox), Position::start(mailbox));
    for entry in world.relay.entries(mailbox) {
        position = position.next(entry.fence, &entry.digest());
        if entry.fence {
            fence = position;
        }
    }
    let bob = &mut world.nodes[BOB].device;
    let part = Part::Append {
        mailbox,
        base: fence,
        fence: false,
        envelope: Blob(envelope::wrap(Class::Message, b"x").unwrap()),
        keep_ms: 1000,
    };
    bob.new_post(PendingPost::new(vec![part], matter, Purpose::Roster));
    bob.handle_time(now.plus_ms(1));
    world.run();
    let accused = world.told(DAN, |n| format!("{n:?}").contains("the order in which the relay"));
    assert_eq!(accused, 0);
}

#[test]
fn old_keys_go() {
    use crate::device::state::Table;
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.remove(ADA, matter, DAN);
    world.settle();
    let packages = |world: &World| world.nodes[DAN].vault.0.keys().filter(|k| k.0 == Table::KeyPackage).count();
    let before = packages(&world);
    for _ in 0..10 {
        world.now = world.now.plus_ms(8 * 24 * 3_600_000);
        (0..5).for_each(|who| world.disconnect(who));
        world.settle();
    }
    let group =
        world.nodes[DAN].vault.0.iter().find(|(k, _)| k.0 == Table::Group && k.1 == Some(matter)).map(|(_, v)| v.len());
    assert!(packages(&world) <= before + 2 && group.is_none());
}

#[test]
fn what_waits_for_a_matter_that_is_refused_is_told() {
    let mut world = World::office();
    let now = world.now;
    world.relay.refuse.push_back(Refused::Full { what: "this relay".to_owned() });
    world.disconnect(ADA);
    let matter = world.nodes[ADA].device.open_matter(now, "Smith v Jones").unwrap();
    let id = world.say(ADA, matter, "one");
    world.add(ADA, matter, BOB);
    world.settle();
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::NotOpened(..))), 1);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Unsendable { id: of, .. } if *of == id)), 1);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::NotDone { .. })), 1);
    let left = |table| world.nodes[ADA].vault.rows(table, Some(matter)).unwrap().len();
    assert_eq!((left(Table::Outbox), left(Table::Intent), left(Table::Group)), (0, 0, 0));
}

#[test]
fn a_text_that_the_relay_took_and_denied_is_one_that_was_sent() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.relay.lie = Some(Refused::not_allowed("posting here"));
    world.say(ADA, matter, "one");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["one"]);
    assert_eq!(world.words(DAN, matter), ["one"]);
    assert!(world.nodes[ADA].device.pending(matter).is_empty());
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Stored { .. })), 1);
    assert!(!world.records(ADA, matter).iter().any(|record| matches!(record.what, RecordBody::Void { .. })));
}

#[test]
fn an_inbox_read_again_after_a_restore_and_a_crash_accuses_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let yesterday = world.relay.clone();
    world.restore(yesterday);
    world.connect(DAN);
    world.drain(DAN);
    world.nodes[DAN].crash();
    world.settle();
    assert_eq!(stage(&world, DAN, matter), Stage::Open);
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::Problem(_))), 0);
}

#[test]
fn an_old_invites_secret_goes() {
    let mut world = World::office();
    let now = world.now;
    let wanted = NewPersonInvite::new(Role::Client);
    world.nodes[ADA].device.invite(now, &wanted).unwrap();
    world.settle();
    let kept = |world: &World| world.nodes[ADA].vault.rows(Table::Invite, None).unwrap().len();
    let before = kept(&world);
    for (days, left) in [(32, before), (2, before - 1)] {
        world.disconnect(ADA);
        world.now = world.now.plus_ms(days * 24 * 3_600_000);
        world.settle();
        assert_eq!(kept(&world), left, "after {days} more days");
    }
}
