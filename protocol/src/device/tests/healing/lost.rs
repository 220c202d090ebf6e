//! Replies that are lost, Posts that are refused, and what they must not do to anybody else.

use super::*;

/// Whatever comes due in a while, and everybody online again.
fn rest(world: &mut World) {
    world.settle();
    pass(world, 20 * SECOND);
    world.settle();
}

/// A healing update, a removal with its confirmation, and a repair. Before one of its steps the relay is told to lose a reply.
fn story(world: &mut World, lose_at: usize) -> MatterId {
    let mut step = 0;
    let mut next = |world: &mut World| {
        world.relay.lose_reply |= step == lose_at;
        step += 1;
    };
    next(world);
    let matter = world.matter(&[BOB, DAN, EVE]);
    rest(world);
    next(world);
    owe(world, BOB, matter);
    world.say(BOB, matter, "one");
    rest(world);
    next(world);
    world.remove(ADA, matter, EVE);
    rest(world);
    next(world);
    world.say(BOB, matter, "two");
    rest(world);
    next(world);
    let now = world.now;
    world.nodes[DAN].device.lose_way(now, matter);
    world.nodes[DAN].device.handle_time(now);
    world.say(ADA, matter, "three");
    rest(world);
    next(world);
    world.say(DAN, matter, "four");
    rest(world);
    matter
}

#[test]
fn a_lost_reply_or_a_crash_anywhere_in_an_update_a_removal_or_a_repair_does_nothing_twice() {
    let base = World::office();
    for who in [ADA, BOB, DAN] {
        for persist in 1.. {
            let mut world = base.fork();
            world.nodes[who].crash_at = Some(persist);
            world.settle();
            let matter = story(&mut world, persist % 7);
            let at = format!("device {who} crashed after {persist}");
            assert_eq!(world.words(ADA, matter), ["one", "two", "three", "four"], "{at}");
            world.agree(matter, &[ADA, BOB], &["one", "two", "three", "four"]);
            assert!(world.words(DAN, matter).ends_with(&["four".to_owned()]), "{at}");
            for index in [ADA, BOB, DAN] {
                assert_eq!(stage(&world, index, matter), Stage::Open, "{at}: {index}");
                assert_eq!(epoch(&world, index, matter), epoch(&world, ADA, matter), "{at}: {index}");
                assert!(world.nodes[index].device.is_settled(), "{at}: {index}");
                let room = &world.nodes[index].device.rooms[&matter];
                assert!(room.row.lost.is_none() && room.commits.is_empty(), "{at}: {index}");
                let problems = world.told(index, |notice| matches!(notice, Notice::Problem(_)));
                assert_eq!(problems, 0, "{at}: {:?}", world.nodes[index].notices);
            }
            assert_eq!(stage(&world, EVE, matter), Stage::Removed, "{at}");
            assert_eq!(made(&world, BOB, matter), 1, "{at}: the update");
            assert_eq!(made(&world, DAN, matter), 0, "{at}");
            assert_eq!(made(&world, ADA, matter), 3, "{at}: the addition, the removal and the repair");
            let requested = |body: &RecordBody| matches!(body, RecordBody::Requested { .. });
            let removed = |body: &RecordBody| matches!(body, RecordBody::Removed { .. });
            let counts = (count(&world, ADA, matter, requested), count(&world, ADA, matter, removed));
            assert_eq!(counts, (1, 1), "{at}");
            let repaired = |body: &RecordBody| matches!(body, RecordBody::Repaired { .. });
            assert_eq!(count(&world, DAN, matter, repaired), 1, "{at}");
            if world.nodes[who].crash_at.is_some() {
                assert!(persist > 5, "device {who} hardly persists");
                break;
            }
        }
    }
}

#[test]
fn a_commit_refused_for_good_is_told_once_and_blocks_nothing() {
    for refused in [Refused::Full { what: "that inbox".to_owned() }, Refused::not_allowed("that person was revoked")] {
        let mut world = World::office();
        let matter = world.matter(&[BOB, DAN]);
        world.relay.refuse.push_back(refused.clone());
        world.add(ADA, matter, EVE);
        world.say(ADA, matter, "on we go");
        rest(&mut world);
        world.nodes[ADA].crash();
        rest(&mut world);
        let told = Notice::NotDone { matter, person: world.person(EVE), why: refused.clone().into() };
        assert_eq!(world.told(ADA, |notice| *notice == told), 1, "{:?}", world.nodes[ADA].notices);
        world.agree(matter, &[ADA, BOB, DAN], &["on we go"]);
        // Neither does an update, which is not tried again and again.
        owe(&mut world, BOB, matter);
        world.say(BOB, matter, "and on");
        world.run();
        let before = world.relay.posts;
        world.relay.refuse.push_back(refused);
        pass(&mut world, MINUTE);
        assert_eq!((world.relay.posts, made(&world, BOB, matter)), (before + 1, 0));
        world.say(BOB, matter, "and further");
        world.run();
        world.agree(matter, &[ADA, BOB, DAN], &["on we go", "and on", "and further"]);
        world.add(ADA, matter, EVE);
        rest(&mut world);
        assert_eq!(people(&world, EVE, matter), 4);
    }
}

#[test]
fn whoever_has_no_key_package_is_waited_for() {
    let mut world = World::office();
    let matter = world.matter(&[]);
    let device = world.nodes[DAN].device.profile().device;
    world.disconnect(DAN);
    world.relay.forget_packages(device, true);
    world.add(ADA, matter, DAN);
    world.say(ADA, matter, "meanwhile");
    world.run();
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Waits { .. })), 1);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::NotDone { .. })), 0);
    world.agree(matter, &[ADA], &["meanwhile"]);
    pass(&mut world, MINUTE);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Waits { .. })), 1, "told once");
    world.connect(DAN);
    rest(&mut world);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Done { .. })), 1);
    all_talk(&mut world, matter, &[ADA, DAN]);
}

#[test]
fn a_removal_survives_an_addition_that_fails_beside_it() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, EVE]);
    world.relay.spoil_packages = true;
    world.disconnect(ADA);
    world.add(ADA, matter, DAN);
    world.remove(ADA, matter, EVE);
    rest(&mut world);
    let (dan, eve) = (world.person(DAN), world.person(EVE));
    let done = |notice: &Notice| matches!(notice, Notice::Done { person, add: false, .. } if *person == eve);
    let failed = |notice: &Notice| matches!(notice, Notice::NotDone { person, .. } if *person == dan);
    assert_eq!((world.told(ADA, done), world.told(ADA, failed)), (1, 1), "{:?}", world.nodes[ADA].notices);
    assert_eq!(stage(&world, EVE, matter), Stage::Removed);
    all_talk(&mut world, matter, &[ADA, BOB]);
}

#[test]
fn a_post_that_the_relay_can_not_tell_of_is_settled_by_reading_to_the_head() {
    // Accepted: what was read is not sent again.
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let before = world.relay.posts;
    world.say(ADA, matter, "one");
    let now = world.now;
    let device = &mut world.nodes[ADA].device;
    let idem = *device.posts.keys().next().unwrap();
    device.posted(now, idem, Reply::Refused(Refused::Unknown));
    device.handle_time(now);
    rest(&mut world);
    assert_eq!(world.relay.posts, before + 1);
    world.agree(matter, &[ADA, DAN], &["one"]);
    // Not accepted: it is posted anew, a Commit with what it is for.
    world.relay.refuse.push_back(Refused::Unknown);
    world.add(ADA, matter, EVE);
    rest(&mut world);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Done { .. })), 2);
    assert_eq!(people(&world, EVE, matter), 3);
    assert!(world.nodes[ADA].device.is_settled());
    all_talk(&mut world, matter, &[ADA, DAN, EVE]);
}

#[test]
fn an_older_chain_takes_nothing_back_and_a_self_stated_name_is_told_as_one() {
    let mut world = World::office();
    let (dan, eve) = (world.person(DAN), world.person(EVE));
    let bob = &mut world.nodes[BOB].device;
    let old = bob.bundle_of([dan].into_iter(), &[]);
    assert!(old.names[0].self_stated, "nobody gave it");
    let mut said: crate::identity::Endorsement = old.identities[0].endorsement.unverified("endorsement").unwrap();
    (said.from, said.handle, said.confirmed) = (said.from.plus_ms(1), "daniel".to_owned(), true);
    let mut new = old.clone();
    new.identities[0].endorsement = Signed::make(Label::Endorsement, &bob.profile.mls_key, &said).unwrap();
    // Bob has confirmed the name, and the relay has logged it.
    let endorsement = new.identities[0].endorsement.digest();
    world.relay.log.add(dan, crate::log::Act::Endorsed { endorsement, by: None });
    let bob = &mut world.nodes[BOB].device;
    let known = bob.people.get_mut(&dan).unwrap();
    known.self_stated = false;
    known.chain[0] = new.identities[0].clone();
    new.names[0].self_stated = false;
    let device = &mut world.nodes[ADA].device;
    for bundle in [&new, &old] {
        device.learn(bundle);
        let known = &device.people[&dan];
        assert_eq!((known.handle.as_str(), known.self_stated), ("daniel", false));
    }
    // Those who come to know both in a matter of Bob's learn it so.
    let matter = world.open(BOB);
    let now = world.now;
    world.nodes[BOB].device.add(now, matter, dan, "daniel").unwrap();
    for whom in [EVE, CYN] {
        world.add(BOB, matter, whom);
    }
    rest(&mut world);
    assert!(!world.nodes[CYN].device.people[&dan].self_stated);
    assert!(world.nodes[DAN].device.people[&eve].self_stated);
}
