//! Commits that their author's role forbids, and rules of another version.

use std::cell::RefCell;

use super::*;
use crate::frame::Entry;

const OTHERS: [usize; 3] = [ADA, BOB, DAN];

#[test]
fn what_a_client_may_not_do_is_void() {
    let (mut world, matter) = office();
    let cyn = participant(&world, CYN);
    let told = identity(&world, CYN);
    let told = bundle(&mut world, EVE, matter, vec![told]);
    let wild =
        Wild { add: vec![package(&mut world, CYN)], context: Some(with(&mut world, matter, cyn)), ..Wild::default() };
    let seen = Seen { bundle: Some(hash(&told)), ..seen(&world, EVE, matter) };
    let commit = forged(&mut world, EVE, matter, &wild, &seen);
    let commit = part(&world, EVE, matter, Class::Commit, &commit, true);
    post(&mut world, EVE, matter, vec![told, commit]);
    assert!(void(&world, matter, EVE, &OTHERS).contains("role"), "she adds somebody");

    // Dan is listed, and has certified it himself.
    let (me, identity) = second_device(&world, DAN);
    let (package, _, _) = crate::matter::key_package(&me, &KeyPackages::default(), false).unwrap();
    let told = bundle(&mut world, EVE, matter, vec![identity]);
    let seen = Seen { bundle: Some(hash(&told)), ..super::seen(&world, EVE, matter) };
    let commit = forged(&mut world, EVE, matter, &Wild { add: vec![package], ..Wild::default() }, &seen);
    let commit = part(&world, EVE, matter, Class::Commit, &commit, true);
    post(&mut world, EVE, matter, vec![told, commit]);
    assert!(void(&world, matter, EVE, &OTHERS).contains("role may not add"), "she adds a device of Dan's");

    let dan = leaf(&mut world, DAN, matter);
    strike(&mut world, EVE, matter, &Wild { remove: vec![dan], ..Wild::default() });
    assert!(void(&world, matter, EVE, &OTHERS).contains("role may not remove"), "she removes Dan");
    assert_eq!(stage(&world, DAN, matter), Stage::Open);

    let honest = context(&mut world, matter);
    let title = MatterContext { title: "Mine".to_owned(), ..honest.clone() };
    let mut promoted = honest.clone();
    let eve = world.person(EVE);
    promoted.people.iter_mut().filter(|listed| listed.person == eve).for_each(|listed| listed.role = Role::Attorney);
    let people = with(&mut world, matter, cyn);
    let removal = without(&mut world, matter, DAN);
    // Whoever knows no such rules must not stop for a client's word.
    let rules = MatterContext { rules: crate::matter::RULES + 1, ..honest };
    for context in [title, promoted, people, removal, rules] {
        strike(&mut world, EVE, matter, &Wild { context: Some(context), ..Wild::default() });
        assert!(void(&world, matter, EVE, &OTHERS).contains("role may not change"));
        assert_eq!(stage(&world, ADA, matter), Stage::Open);
    }
    goes_on(&mut world, matter, &ALL);
}

#[test]
fn what_nobody_may_change_is_void_from_an_attorney_too() {
    let (mut world, matter) = office();
    let honest = context(&mut world, matter);
    let elsewhere = MatterContext { mailbox: MailboxId::random(), ..honest.clone() };
    let continues = Some(crate::matter::Continues { group: MatterId::random(), epoch: 7 });
    let continued = MatterContext { continues, ..honest };
    for context in [elsewhere, continued] {
        strike(&mut world, BOB, matter, &Wild { context: Some(context), ..Wild::default() });
        assert!(void(&world, matter, BOB, &[ADA, DAN, EVE]).contains("what never changes"));
    }
    goes_on(&mut world, matter, &ALL);
}

thread_local! {
    static SHOWN: RefCell<Option<Entry>> = const { RefCell::new(None) };
}

/// Shows another entry in the place of one.
fn instead(entries: &mut [Entry]) {
    SHOWN.with_borrow(|shown| {
        let Some(shown) = shown else { return };
        let Some(entry) = entries.iter_mut().find(|entry| entry.seq == shown.seq) else { return };
        *entry = shown.clone();
    });
}

#[test]
fn an_attorneys_rules_of_another_version_stop_every_device_before_them() {
    let (mut world, matter) = office();
    let before = seq(&world, ADA, matter);
    let rules = MatterContext { rules: crate::matter::RULES + 1, ..context(&mut world, matter) };
    strike(&mut world, BOB, matter, &Wild { context: Some(rules), ..Wild::default() });
    for who in [ADA, DAN, EVE] {
        assert_eq!(stage(&world, who, matter), Stage::Outdated, "device {who}");
        assert_eq!(seq(&world, who, matter), before, "nothing is skipped");
        assert!(voids(&world, who, matter).is_empty());
    }
    // Told once, however often it is read.
    for who in [ADA, DAN, EVE] {
        world.nodes[who].crash();
    }
    world.settle();
    world.disconnect(DAN);
    world.settle();
    for who in [ADA, DAN, EVE] {
        assert_eq!(stage(&world, who, matter), Stage::Outdated, "device {who}");
        assert_eq!(seq(&world, who, matter), before);
        let told = world.records(who, matter).iter().filter(|record| record.what == RecordBody::Outdated).count();
        assert_eq!(told, 1, "device {who}");
    }
    // No other matter stops with it, and the inbox is read.
    let other = world.matter(&[DAN, EVE]);
    world.say(DAN, other, "elsewhere");
    world.settle();
    assert_eq!(world.words(EVE, other), ["elsewhere"]);
}

/// What a newer program makes of the same entry: it goes on from there. Here, the entry itself becomes one that this version knows.
#[test]
fn a_device_that_comes_to_know_the_rules_goes_on_where_it_stopped() {
    let (mut world, matter) = office();
    let rules = MatterContext { rules: crate::matter::RULES + 1, ..context(&mut world, matter) };
    let seen = seen(&world, BOB, matter);
    let commit = forged(&mut world, BOB, matter, &Wild { context: Some(rules), ..Wild::default() }, &seen);
    let before = seq(&world, DAN, matter);
    let body = EntryBody::Envelope(Blob(envelope::wrap(Class::Commit, &commit).unwrap()));
    SHOWN.set(Some(Entry { seq: before + 1, fence: true, body, by: None }));
    let dan = world.nodes[DAN].device.profile().device;
    world.relay.shown = Some((dan, |entries| instead(entries)));
    world.now = world.now.plus_ms(10_000);
    let now = world.now;
    let device = &mut world.nodes[ADA].device;
    device.post_update(now, matter, true).unwrap();
    device.settle(now);
    world.run();
    world.say(EVE, matter, "meanwhile");
    world.run();
    assert_eq!(stage(&world, DAN, matter), Stage::Outdated);
    assert_eq!(seq(&world, DAN, matter), before);
    world.relay.shown = None;
    world.disconnect(DAN);
    world.settle();
    assert_eq!(world.words(DAN, matter), world.words(EVE, matter));
    goes_on(&mut world, matter, &ALL);
}
