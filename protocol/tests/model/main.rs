//! The protocol as a model, and every state that it can reach: one mailbox, two or three members, and what may go wrong between them.
//!
//! 1. [`world`] is what there is, [`rules`] what everybody keeps to, [`steps`] what they do, [`matter`] what can happen next and what
//!    must hold.
//! 2. With all rules kept a checker takes every possible step in every order, within the [`Bounds`] of a scenario: nothing that must
//!    not happen does.
//! 3. With any one rule left out it finds a way to what that rule prevents. So the model can fail, and no rule is there for nothing.
//!
//! There is no cryptography in it: a key opens what it sealed, and nobody can make what only another can make. The relay may claim
//! what it likes, but it shows a device its newest idem: one that withholds it hides a copy. A link keeps what is sent on it in order.
//!
//! Four rules go further than one would think of first: `one_link`, `old_link_done`, `refused_idems_shown` and
//! `same_idem_compared`. Their rows in the table show what two copies of a vault can come to without them.
//!
//! Invariant: every rule of the model is a field of [`Rules`], with a row in the table below that shows what it is for.

mod matter;
mod rules;
mod steps;
mod world;

use std::collections::BTreeSet;
use std::panic::Location;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::matter::{
    DELIVERED, IN_STEP, IN_TIME, Matter, NOBODY_WAITS, ONCE, ONE_COMMIT, ONE_KEY, ONLY_COPIES, READABLE, STORED_ONCE,
    Seen, settled,
};
use crate::rules::Rules;
use crate::world::{Bounds, Device, Envelope, Link, Reply, What, World};

#[test]
fn two_members_race() {
    holds(&race(), 400_000, &[REST, STALE, RIVALS, LOST_POST, LOST_REPLY, CRASH]);
}

#[test]
fn void_fences_are_passed_over() {
    holds(&void(), 300_000, &[REST, STALE, LOST_REPLY, CRASH, GARBAGE, REPLAY, AGAIN]);
}

#[test]
fn links_break_twice() {
    holds(&breaks(), 100_000, &[REST, STALE, RIVALS, LOST_POST, LOST_REPLY, CRASH]);
}

#[test]
fn three_members_agree() {
    holds(&three(), 90_000, &[REST, STALE, LOST_REPLY, CRASH, GARBAGE, REPLAY, AGAIN]);
    holds(&three_commit(), 100_000, &[REST, STALE, RIVALS]);
}

#[test]
fn a_copied_vault_comes_back_in() {
    holds(&copy(), 80_000, &[REST, STALE, GARBAGE, FOUND, REPAIRED, REPEAT]);
    holds(&copy_commits(), 70_000, &[REST, STALE, RIVALS, FOUND, REPAIRED, REPLACED]);
    holds(&copy_says_more(), 30_000, &[REST, FOUND, REPAIRED, REPLACED, REPEAT]);
    holds(&Bounds { faults: 1, late: 1, ..copy_alone() }, 20_000, &[REST, FOUND, REPAIRED, REPLACED]);
    holds(&copy_in_company(), 25_000, &[REST, FOUND, REPAIRED, REPLACED, REPEAT]);
}

/// What takes a minute or two, and a few gigabytes.
#[test]
#[ignore = "takes minutes"]
fn wider_bounds_change_nothing() {
    holds(&copy_late(), 1_500_000, &[REST, STALE, RIVALS, FOUND, REPAIRED, REPLACED]);
    let in_company = Bounds { copies: 1, takeovers: 2, ..bounds(&[1, 0, 0], &[0, 1, 0]) };
    holds(&in_company, 2_000_000, &[REST, STALE, FOUND, REPAIRED, REPLACED, REPEAT]);
}

#[test]
fn what_comes_late_is_done_once() {
    holds(&late(), 9_000, &[REST, STALE, LOST_REPLY, LATE]);
}

#[test]
fn an_old_idem_is_settled_by_reading() {
    holds(&elsewhere(), 7_000, &[REST, UNKNOWN, LOST_REPLY, LATE]);
    holds(&elsewhere_in_company(), 20_000, &[REST, STALE, UNKNOWN, LOST_REPLY, LATE]);
}

#[test]
fn lies_move_nobody() {
    holds(&lies(), 20_000, &[REST, STALE, LIE]);
}

/// A rule by name, how it is left out, and where it is missed: what then happens that must not.
type Row = (&'static str, fn(&mut Rules), Bounds, &'static str);

fn table() -> Vec<Row> {
    vec![
        ("fence_refuses_stale", |rules| rules.fence_refuses_stale = false, race(), READABLE),
        ("idem_remembered", |rules| rules.idem_remembered = false, race(), STORED_ONCE),
        ("one_link", |rules| rules.one_link = false, copy(), ONE_KEY),
        ("old_link_done", |rules| rules.old_link_done = false, copy_late(), DELIVERED),
        ("old_link_done", |rules| rules.old_link_done = false, copy_late(), ONE_KEY),
        ("refused_idems_shown", |rules| rules.refused_idems_shown = false, copy(), ONE_KEY),
        ("apply_when_read", |rules| rules.apply_when_read = false, race(), ONE_COMMIT),
        ("reply_only_settles", |rules| rules.reply_only_settles = false, race(), READABLE),
        ("keep_unsettled_secrets", |rules| rules.keep_unsettled_secrets = false, void(), IN_STEP),
        ("keep_unsettled_secrets", |rules| rules.keep_unsettled_secrets = false, elsewhere(), IN_STEP),
        ("persist_before_send", |rules| rules.persist_before_send = false, race(), ONLY_COPIES),
        ("same_until_answered", |rules| rules.same_until_answered = false, late(), STORED_ONCE),
        ("unknown_settled_by_reading", |rules| rules.unknown_settled_by_reading = false, elsewhere(), STORED_ONCE),
        ("accepted_commit_read_first", |rules| rules.accepted_commit_read_first = false, race(), IN_TIME),
        ("caught_up_before_posting", |rules| rules.caught_up_before_posting = false, race(), IN_TIME),
        ("delivered_when_accepted", |rules| rules.delivered_when_accepted = false, race(), DELIVERED),
        ("drop_repeats", |rules| rules.drop_repeats = false, copy(), ONCE),
        ("copy_detected", |rules| rules.copy_detected = false, copy(), ONE_KEY),
        ("copy_detected", |rules| rules.copy_detected = false, copy_says_more(), DELIVERED),
        ("same_idem_compared", |rules| rules.same_idem_compared = false, copy_says_more(), ONE_KEY),
        ("same_idem_compared", |rules| rules.same_idem_compared = false, copy_commits(), DELIVERED),
        ("same_idem_compared", |rules| rules.same_idem_compared = false, copy_commits(), IN_STEP),
        ("copy_counts_on", |rules| rules.copy_counts_on = false, copy_commits(), DELIVERED),
        ("older_instance_refused", |rules| rules.older_instance_refused = false, copy_commits(), NOBODY_WAITS),
        ("claims_need_mac", |rules| rules.claims_need_mac = false, lies(), ONLY_COPIES),
        ("seal_at_head", |rules| rules.seal_at_head = false, race(), READABLE),
        ("repost_behind_void", |rules| rules.repost_behind_void = false, void(), NOBODY_WAITS),
        ("void_skipped", |rules| rules.void_skipped = false, void(), NOBODY_WAITS),
        ("other_epoch_is_void", |rules| rules.other_epoch_is_void = false, void(), ONCE),
        ("members_repair", |rules| rules.members_repair = false, copy(), NOBODY_WAITS),
    ]
}

/// Where one rule stands behind another, both must be left out.
fn pairs() -> Vec<Row> {
    let at_once: fn(&mut Rules) = |rules| (rules.persist_before_send, rules.copy_detected) = (false, false);
    let late: fn(&mut Rules) = |rules| (rules.fence_refuses_stale, rules.other_epoch_is_void) = (false, false);
    let again: fn(&mut Rules) = |rules| (rules.idem_remembered, rules.drop_repeats) = (false, false);
    vec![
        ("persist_before_send, copy_detected", at_once, void(), ONE_KEY),
        ("persist_before_send, copy_detected", at_once, race(), IN_STEP),
        ("fence_refuses_stale, other_epoch_is_void", late, race(), ONE_COMMIT),
        ("idem_remembered, drop_repeats", again, race(), ONCE),
    ]
}

#[test]
fn no_rule_is_there_for_nothing() {
    let idle: Vec<_> = table().into_iter().chain(pairs()).filter(|row| !missed(row)).collect();
    assert!(idle.is_empty(), "these rules prevent nothing: {idle:?}");
}

/// Whether leaving a rule out is found out.
fn missed((rule, leave_out, bounds, property): &Row) -> bool {
    let mut rules = Rules::ALL;
    leave_out(&mut rules);
    let matter = Matter { rules, bounds: bounds.clone(), seen: Vec::new() };
    let found = HasDiscoveries::AnyOf(BTreeSet::from([*property]));
    let checker = matter.checker().threads(2).finish_when(found).spawn_bfs().join();
    let trace = checker.discovery(property).map(Path::into_actions);
    println!("without {rule}, not {property:?}: {trace:?}");
    trace.is_some()
}

#[test]
fn every_rule_is_in_the_table() {
    let all = format!("{:?}", Rules::ALL);
    let mut without = Rules::ALL;
    for (rule, leave_out, _, _) in table() {
        let mut one = Rules::ALL;
        leave_out(&mut one);
        assert_eq!(format!("{one:?}"), all.replace(&format!("{rule}: true"), &format!("{rule}: false")));
        leave_out(&mut without);
    }
    assert!(!format!("{without:?}").contains("true"), "kept in every row: {without:?}");
}

/// Checks every state that can be reached with all rules kept, and that the scenario is no idle one.
#[track_caller]
fn holds(bounds: &Bounds, at_least: usize, seen: &[Seen]) {
    let matter = Matter { rules: Rules::ALL, bounds: bounds.clone(), seen: seen.to_vec() };
    let checker = matter.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{} states, {} deep: {}", states, checker.max_depth(), Location::caller());
    // With a property that nothing breaks, the checker is done only when no state is left.
    assert!(checker.is_done());
    checker.assert_properties();
    assert!(states >= at_least, "only {states} states");
}

fn bounds(texts: &[usize], commits: &[usize]) -> Bounds {
    Bounds { texts: texts.to_vec(), commits: commits.to_vec(), ..Bounds::default() }
}

/// Both say something and both change the group.
fn race() -> Bounds {
    Bounds { faults: 1, ..bounds(&[1, 1], &[1, 1]) }
}

fn void() -> Bounds {
    Bounds { faults: 1, voids: 1, ..bounds(&[1, 1], &[1, 0]) }
}

fn breaks() -> Bounds {
    Bounds { faults: 2, ..bounds(&[1, 0], &[1, 1]) }
}

fn three() -> Bounds {
    Bounds { faults: 1, voids: 1, ..bounds(&[1, 0, 0], &[0, 1, 0]) }
}

fn three_commit() -> Bounds {
    bounds(&[0, 0, 0], &[1, 1, 1])
}

fn copy() -> Bounds {
    Bounds { faults: 1, voids: 1, copies: 1, takeovers: 1, ..bounds(&[1, 0], &[0, 0]) }
}

fn copy_commits() -> Bounds {
    Bounds { copies: 1, takeovers: 2, ..bounds(&[1, 0], &[1, 0]) }
}

fn copy_says_more() -> Bounds {
    Bounds { copies: 1, takeovers: 2, ..bounds(&[2, 0], &[0, 0]) }
}

fn copy_alone() -> Bounds {
    Bounds { copies: 1, takeovers: 2, ..bounds(&[1, 0], &[0, 0]) }
}

fn copy_late() -> Bounds {
    Bounds { faults: 1, late: 1, copies: 1, takeovers: 2, ..bounds(&[1, 0], &[1, 0]) }
}

fn copy_in_company() -> Bounds {
    Bounds { copies: 1, takeovers: 2, ..bounds(&[1, 1], &[0, 0]) }
}

fn elsewhere() -> Bounds {
    Bounds { faults: 1, late: 1, elsewhere: 2, ..bounds(&[1, 0], &[1, 0]) }
}

fn elsewhere_in_company() -> Bounds {
    Bounds { faults: 1, late: 1, elsewhere: 2, ..bounds(&[1, 0], &[0, 1]) }
}

fn late() -> Bounds {
    Bounds { faults: 1, late: 1, voids: 1, ..bounds(&[1, 0], &[1, 0]) }
}

fn lies() -> Bounds {
    Bounds { faults: 1, lies: 1, ..bounds(&[1, 1], &[1, 0]) }
}

const REST: Seen = ("everything is said and read", |matter, world| matter.at_rest(world) && settled(world));
const STALE: Seen = ("a Post is stale", |_, world| answered(world, |reply| matches!(reply, Reply::Stale { .. })));
const UNKNOWN: Seen =
    ("an idem is too old", |_, world| answered(world, |reply| matches!(reply, Reply::Unknown { .. })));
const RIVALS: Seen = ("two members commit in one epoch", |_, world| {
    let commits = || world.reached.iter().filter(|envelope| envelope.what.is_commit());
    commits().any(|one| commits().any(|other| one.epoch == other.epoch && one.leaf != other.leaf))
});
const LOST_POST: Seen = ("a Post is lost", |_, world| lost(world, Link::Down, false));
const LOST_REPLY: Seen = ("an answer is lost", |_, world| lost(world, Link::Down, true));
const CRASH: Seen = ("a program dies before the answer", |_, world| lost(world, Link::Crashed, true));
const LATE: Seen = ("a Post arrives late and its sender is told so later", |_, world| {
    let gone = world.late.is_none() && world.left.late == 0 && world.left.faults == 0;
    gone && answered(world, |reply| matches!(reply, Reply::Accepted { .. }))
});
const GARBAGE: Seen = ("everybody passes over a void fence", |_, world| {
    world.mailbox.iter().any(|(envelope, _)| envelope.what == What::Garbage) && all_read(world)
});
const REPLAY: Seen =
    ("everybody passes over an old Commit", |_, world| twice(world, What::is_commit) && all_read(world));
const AGAIN: Seen = ("a Commit is posted again behind a void fence", |_, world| {
    world.mailbox.iter().any(|(envelope, base)| envelope.what.is_commit() && *base > envelope.seen)
});
const FOUND: Seen = ("a copy finds out that it is one", |_, world| {
    world.devices.iter().any(|device| device.ram.instance > 0 && device.ram.group.is_none())
});
const REPAIRED: Seen = ("a copy is let back in", |_, world| {
    world.devices.iter().any(|device| device.ram.instance > 0 && device.ram.group.is_some())
});
const REPLACED: Seen =
    ("the other copy is refused", |_, world| world.devices.iter().any(|device| device.link == Link::Replaced));
const REPEAT: Seen = ("everybody passes over a repeat", |_, world| {
    twice(world, |what| matches!(what, What::Text(_))) && all_read(world)
});
const LIE: Seen = ("the relay lies", |_, world| world.left.lies == 0);

fn answered(world: &World, is: fn(&Reply) -> bool) -> bool {
    world.devices.iter().any(|device| matches!(device.link, Link::Up(_, Some(reply)) if is(&reply)))
}

/// Whether a device that is off in this way waits for an answer to what was accepted, or was not.
fn lost(world: &World, link: Link, accepted: bool) -> bool {
    let stands = |envelope: Envelope| world.mailbox.iter().any(|(other, _)| *other == envelope);
    let waits = |device: &Device| device.ram.pending.is_some_and(|post| stands(post.envelope) == accepted);
    world.devices.iter().any(|device| device.link == link && waits(device))
}

fn all_read(world: &World) -> bool {
    let mut linked = world.devices.iter().filter(|device| matches!(device.link, Link::Up(..)));
    linked.all(|device| device.ram.read == world.mailbox.len())
}

fn twice(world: &World, is: fn(What) -> bool) -> bool {
    let what: Vec<What> = world.mailbox.iter().map(|(envelope, _)| envelope.what).filter(|what| is(*what)).collect();
    let distinct: BTreeSet<&What> = what.iter().collect();
    distinct.len() < what.len()
}
