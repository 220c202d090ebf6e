//! Key packages that the relay serves twice.

use super::*;

/// Once the relay served the same one twice, Bob was shown as a member of a matter that he could not open.
#[test]
fn nobody_is_added_by_a_key_package_that_was_served_before() {
    let mut world = World::office();
    let (one, two, bob) = (world.matter(&[]), world.matter(&[]), world.nodes[BOB].device.profile().device);
    let stock = world.relay.single_use[&bob].clone();
    world.add(ADA, one, BOB);
    world.run();
    assert_eq!(people(&world, ADA, one), 2);
    world.relay.single_use.insert(bob, stock.clone());
    // Also after a restart.
    world.nodes[ADA].crash();
    world.settle();
    world.add(ADA, two, BOB);
    world.run();
    let refused = |notice: &Notice| {
        matches!(notice, Notice::NotDone { why: Error::PeerMisbehaved(PeerMisbehaved::ServedTwice), .. })
    };
    assert_eq!(world.told(ADA, refused), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!((people(&world, ADA, two), people(&world, ADA, one)), (1, 2));
    // The next one is as good as any.
    world.add(ADA, two, BOB);
    world.run();
    assert_eq!(people(&world, BOB, two), 2);
}

/// The last-resort one is served again and again, as it says itself.
#[test]
fn the_last_resort_package_may_come_twice() {
    let mut world = World::office();
    let bob = world.nodes[BOB].device.profile().device;
    for _ in 0..2 {
        let matter = world.matter(&[]);
        world.relay.single_use.insert(bob, Default::default());
        world.add(ADA, matter, BOB);
        world.run();
        assert_eq!(people(&world, BOB, matter), 2, "{:?}", world.nodes[ADA].notices);
    }
}

/// Where two others are served the same one, its owner finds out, and is told what to do.
#[test]
fn the_owner_is_told_of_a_welcome_by_a_key_that_is_used_up() {
    let mut world = World::office();
    let (one, two) = (world.matter(&[]), world.matter(&[BOB]));
    let dan = world.nodes[DAN].device.profile().device;
    let stock = world.relay.single_use[&dan].clone();
    world.add(ADA, one, DAN);
    world.run();
    world.relay.single_use.insert(dan, stock);
    world.add(BOB, two, DAN);
    world.run();
    assert_eq!(
        world.told(DAN, |notice| matches!(notice, Notice::FalseWelcome(_))),
        1,
        "{:?}",
        world.nodes[DAN].notices
    );
    assert!(world.nodes[DAN].device.matter(two).is_none());
}
