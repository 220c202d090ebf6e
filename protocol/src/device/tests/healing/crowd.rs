//! Many devices at the same moment.

use super::*;

/// So many people, ready and online: the office, then attorneys and clients by turns.
fn crowd(people: usize) -> World {
    let mut world = World::office();
    for index in world.nodes.len()..people {
        let role = if index % 2 == 0 { Role::Attorney } else { Role::Client };
        world.join(ADA, &format!("person{index}"), role);
    }
    world
}

fn manages(world: &World, who: usize) -> bool {
    world.nodes[who].device.profile().role.manages()
}

/// Whom each wants in or out, all at once: new people, the same people, and each other.
const WISHES: &[(usize, usize, bool)] = &[
    (ADA, 20, true),
    (BOB, 20, true),
    (CYN, 21, true),
    (6, 22, true),
    (8, DAN, false),
    (10, DAN, false),
    (12, 23, true),
    (12, EVE, false),
    (14, 16, false),
    (16, 14, false),
    (16, 24, true),
    (18, 21, true),
    (18, 5, false),
    (CYN, 25, true),
    (BOB, 12, false),
];

/// Of the twenty who were in the matter each has said one thing, those of `out` perhaps too late.
fn texts_stand_once(world: &World, matter: MatterId, out: &[usize]) {
    // Every text stands once, in one order; whoever left early was told that theirs was not sent.
    let all = world.texts(ADA, matter);
    for who in 0..20 {
        let said = all.iter().filter(|(_, _, text)| *text == format!("text of {who}")).count();
        let unsent = world.told(who, |notice| matches!(notice, Notice::Unsendable { .. }));
        assert_eq!(said + unsent, 1, "device {who}");
        assert!(said == 1 || out.contains(&who), "device {who}");
        let own = world.texts(who, matter);
        if out.contains(&who) { assert_eq!(own, all[..own.len()]) } else { assert_eq!(own, all, "device {who}") }
    }
    for who in 20..26 {
        let own = world.texts(who, matter);
        assert_eq!(own, all[all.len() - own.len()..], "device {who}");
    }
}

#[test]
fn twenty_devices_that_commit_at_once_all_get_there() {
    let mut world = crowd(26);
    let inside: Vec<usize> = (0..20).collect();
    let matter = world.matter(&inside[1..]);
    let from = fences(&world, ADA, matter).len();
    assert!(WISHES.iter().all(|(by, ..)| manages(&world, *by)));
    let now = world.now;
    for who in &inside {
        if !manages(&world, *who) {
            row(&mut world, *who, matter).healing.due = true;
        }
    }
    for (by, whom, add) in WISHES {
        let person = world.person(*whom);
        let handle = world.nodes[*whom].device.profile().handle.clone();
        let device = &mut world.nodes[*by].device;
        let wish =
            if *add { device.add(now, matter, person, &handle) } else { device.remove(now, matter, person, &handle) };
        wish.unwrap();
    }
    for who in &inside {
        let text = format!("text of {who}");
        world.nodes[*who].device.send_text(now, matter, MessageId::random(), &text).unwrap();
    }
    world.run();
    pass(&mut world, 5 * 60 * SECOND);

    // One Commit for each epoch, without a gap.
    let epochs: Vec<u64> = fences(&world, ADA, matter).iter().skip(from).map(|fence| fence.epoch).collect();
    let first = epochs[0];
    assert_eq!(epochs, (first..first + epochs.len() as u64).collect::<Vec<u64>>());
    let last = first + epochs.len() as u64;

    let at = |who: &usize| world.nodes[*who].device.matter(matter).map(|row| row.stage);
    let out: Vec<usize> = (0..26).filter(|who| at(who) == Some(Stage::Removed)).collect();
    let present: Vec<usize> = (0..26).filter(|who| at(who).is_some() && !out.contains(who)).collect();
    assert!((20..23).all(|who| present.contains(&who)), "{present:?}");
    assert!([DAN, 5, 12].iter().all(|who| out.contains(who)), "{out:?}");
    assert!(out.contains(&14) != out.contains(&16), "the one who was faster: {out:?}");
    for who in 0..26 {
        let odd = |body: &RecordBody| {
            matches!(body, RecordBody::Void { .. } | RecordBody::Dispute { .. } | RecordBody::OutOfStep)
        };
        assert_eq!(count(&world, who, matter, odd), 0, "device {who}: {:?}", world.records(who, matter));
        assert_eq!(world.told(who, |notice| matches!(notice, Notice::Problem(_))), 0, "{:?}", world.nodes[who].notices);
        assert!(world.nodes[who].device.is_settled(), "device {who}");
    }
    let mut people: Vec<PersonId> = present.iter().map(|who| world.person(*who)).collect();
    people.sort();
    for who in &present {
        assert_eq!((stage(&world, *who, matter), epoch(&world, *who, matter)), (Stage::Open, last), "device {who}");
        let mut listed = world.nodes[*who].device.matter(matter).unwrap().people.clone();
        listed.sort();
        assert_eq!(listed, people, "device {who}");
        assert!(!world.nodes[*who].device.owes_keys(world.now), "device {who}");
    }
    // Each wish was carried out and told, or told to be void with its author's place.
    for (by, whom, add) in WISHES {
        let whom = world.person(*whom);
        let done = |n: &Notice| matches!(n, Notice::Done { person, add: a, .. } if *person == whom && a == add);
        let not = |n: &Notice| matches!(n, Notice::NotDone { person, .. } if *person == whom);
        let told = (world.told(*by, done), world.told(*by, not));
        assert!(told == (1, 0) || (out.contains(by) && told == (0, 1)), "{by} {add}: {told:?}");
    }
    texts_stand_once(&world, matter, &out);
    all_talk(&mut world, matter, &present);
}

#[test]
fn sixty_four_devices_that_come_online_at_once_can_all_send_at_once() {
    let mut world = crowd(64);
    let halves =
        [(0..64).filter(|who| who % 4 < 2).collect::<Vec<usize>>(), (0..64).filter(|who| who % 4 >= 2).collect()];
    let mut matters = Vec::new();
    for half in &halves {
        let matter = world.open(half[0]);
        for other in &half[1..] {
            world.add(half[0], matter, *other);
        }
        world.run();
        assert_eq!(people(&world, half[31], matter), 32);
        matters.push(matter);
    }
    (0..64).for_each(|who| world.disconnect(who));
    skip(&mut world, 8 * DAY);
    for (half, matter) in halves.iter().zip(&matters) {
        for who in half {
            world.say(*who, *matter, &format!("text of {who}"));
            assert!(world.nodes[*who].device.owes_keys(world.now));
        }
    }
    let (start, before) = (world.now, world.relay.refused());
    (0..64).for_each(|who| world.connect(who));
    world.run();
    let missing = |world: &World| {
        let short =
            |(half, matter): (&Vec<usize>, &MatterId)| half.iter().any(|who| world.words(*who, *matter).len() < 32);
        halves.iter().zip(&matters).any(short)
    };
    while missing(&world) {
        pass(&mut world, 100);
        assert!(world.now < start.plus_ms(10 * SECOND), "somebody can't send");
    }
    pass(&mut world, 12 * SECOND);
    let refused = world.relay.refused() - before;
    assert_eq!(refused, 0, "a storm");
    for (half, matter) in halves.iter().zip(&matters) {
        // One by one, in the order of leaves, each the while of its leaf behind the one before.
        let updates = fences(&world, half[0], *matter).split_off(1);
        let mut first: Vec<(u64, DeviceId)> = Vec::new();
        for who in half {
            first.push((leaf(&mut world, *who, *matter), world.nodes[*who].device.profile().device));
            assert_eq!(world.texts(*who, *matter), world.texts(half[0], *matter), "device {who}");
        }
        first.sort();
        assert_eq!(updates.len(), 4);
        assert!(updates.iter().map(|fence| fence.by).eq(first.iter().take(4).map(|(_, device)| *device)));
        assert_eq!(world.words(half[0], *matter).len(), 32);
        all_talk(&mut world, *matter, &half[..2]);
    }
}
