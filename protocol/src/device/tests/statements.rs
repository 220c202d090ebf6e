//! Statements, Welcomes and fates by somebody without a say: nobody is led away, thrown out or brought back by them.

use super::corners::continued;
use super::crossings::{DAY, MINUTE, all_hear_each_other};
use super::rescue::{let_pass, lose_way, notes};
use super::successors::{HOUR, come_back, leave};
use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::{people, stage};
use crate::device::state::Stage;
use crate::ids::{MatterId, PersonId};
use crate::rescue::Fate;

/// A device continues a matter at its user's wish, before anybody lets it back in.
fn continue_by_hand(world: &mut World, who: usize, matter: MatterId) {
    world.disconnect(who);
    lose_way(world, who, matter);
    let now = world.now;
    world.nodes[who].device.continue_matter(now, matter).unwrap();
}

/// From here on this device's program says of people what its user wants it to.
fn lies(world: &mut World, who: usize, matter: MatterId, fates: Vec<Fate>) {
    world.nodes[who].device.rooms.get_mut(&matter).unwrap().row.fates = fates;
}

fn lists(world: &World, who: usize, matter: MatterId, person: PersonId) -> bool {
    world.nodes[who].device.matter(matter).unwrap().people.contains(&person)
}

/// Dan is away while Ada continues the matter and removes Bob from the successor. Bob continues the successor where nobody reads it, in
/// a Welcome to Dan alone.
#[test]
fn a_removed_attorney_does_not_lead_a_waiting_client_away_by_a_welcome() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    leave(&mut world, &[DAN]);
    let device = world.nodes[DAN].device.profile().device;
    world.relay.forget_packages(device, true);
    continue_by_hand(&mut world, ADA, matter);
    let_pass(&mut world, HOUR);
    for who in [ADA, BOB] {
        assert_eq!((stage(&world, who, matter), people(&world, who, matter)), (Stage::Open, 2), "device {who}");
    }
    // A changed program takes the mailbox for gone.
    let now = world.now;
    let bob = &mut world.nodes[BOB].device;
    let row = &mut bob.rooms.get_mut(&matter).unwrap().row;
    (row.gone, row.continue_at) = (true, Some(now));
    bob.handle_time(now);
    world.run();
    world.remove(ADA, matter, BOB);
    world.run();
    let bob = world.person(BOB);
    assert!(!lists(&world, ADA, matter, bob), "the control for what follows");
    leave(&mut world, &[ADA]);
    come_back(&mut world, &[DAN]);
    let_pass(&mut world, 10 * MINUTE);
    world.say(DAN, matter, "for my attorney alone");
    let_pass(&mut world, 10 * MINUTE);
    assert!(
        !world.words(BOB, matter).contains(&"for my attorney alone".to_owned()),
        "a removed person leads a client away: {:?}",
        notes(&world, DAN, matter)
    );
    come_back(&mut world, &[ADA]);
    let_pass(&mut world, 7 * DAY);
    all_hear_each_other(&mut world, matter, &[ADA, DAN]);
}

/// Ada removes Bob, the relay forgets it, and Ada says so in her statement. Bob overrules it, and says that he was added again. Cyn reads
/// both, one behind the other; Bob's is void to her.
fn a_removed_attorney_says(fate: impl Fn(&World) -> Fate) -> (World, MatterId) {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN]);
    let yesterday = world.relay.clone();
    leave(&mut world, &[BOB, CYN, DAN]);
    world.remove(ADA, matter, BOB);
    world.run();
    world.restore(yesterday);
    let_pass(&mut world, MINUTE);
    assert_eq!(stage(&world, ADA, matter), Stage::Open);
    let fate = fate(&world);
    lies(&mut world, BOB, matter, vec![fate]);
    come_back(&mut world, &[BOB]);
    let_pass(&mut world, HOUR);
    come_back(&mut world, &[CYN]);
    let_pass(&mut world, HOUR);
    come_back(&mut world, &[DAN]);
    let_pass(&mut world, DAY);
    (world, matter)
}

#[test]
fn a_removed_attorney_does_not_bring_themselves_back_by_a_void_statement() {
    let (mut world, matter) =
        a_removed_attorney_says(|world| Fate { person: world.person(BOB), number: 9, out: false });
    let bob = world.person(BOB);
    world.say(ADA, matter, "not for Bob");
    let_pass(&mut world, HOUR);
    for who in [ADA, CYN, DAN] {
        assert!(!lists(&world, who, matter, bob), "device {who}: he is in again: {:?}", notes(&world, who, matter));
    }
    assert!(!world.words(BOB, matter).contains(&"not for Bob".to_owned()), "he reads on");
}

#[test]
fn a_removed_attorney_throws_nobody_out_by_a_void_statement() {
    let (mut world, matter) = a_removed_attorney_says(|world| Fate { person: world.person(ADA), number: 1, out: true });
    all_hear_each_other(&mut world, matter, &[ADA, CYN, DAN]);
}

/// Eve, a client, lets Bob back in, and says in the companion of her Welcome that Ada was removed.
#[test]
fn a_client_who_lets_an_attorney_back_in_throws_nobody_out() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN, EVE]);
    let ada = world.person(ADA);
    lies(&mut world, EVE, matter, vec![Fate { person: ada, number: 1, out: true }]);
    leave(&mut world, &[ADA, DAN]);
    lose_way(&mut world, BOB, matter);
    let_pass(&mut world, 2 * MINUTE);
    assert_eq!(stage(&world, BOB, matter), Stage::Open, "Eve lets him in");
    come_back(&mut world, &[ADA, DAN]);
    let_pass(&mut world, MINUTE);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, DAY);
    all_hear_each_other(&mut world, matter, &[ADA, BOB, DAN]);
}

/// Eve was removed from the successor. Dan, a client, lets Bob back in, and says in the companion that she was added again.
#[test]
fn a_client_who_lets_an_attorney_back_in_brings_nobody_back() {
    let mut world = World::office();
    let matter = continued(&mut world, &[BOB, DAN, EVE]);
    let eve = world.person(EVE);
    world.remove(ADA, matter, EVE);
    world.settle();
    world.say(DAN, matter, "she is gone");
    let_pass(&mut world, MINUTE);
    lies(&mut world, DAN, matter, vec![Fate { person: eve, number: 2, out: false }]);
    leave(&mut world, &[ADA]);
    lose_way(&mut world, BOB, matter);
    let_pass(&mut world, 2 * MINUTE);
    assert_eq!(stage(&world, BOB, matter), Stage::Open, "Dan lets him in");
    come_back(&mut world, &[ADA]);
    let_pass(&mut world, MINUTE);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, HOUR);
    world.say(ADA, matter, "not for Eve");
    let_pass(&mut world, HOUR);
    for who in [ADA, BOB, DAN] {
        assert!(!lists(&world, who, matter, eve), "device {who}: she is in again: {:?}", notes(&world, who, matter));
    }
    assert!(!world.words(EVE, matter).contains(&"not for Eve".to_owned()), "she reads on");
}

/// Bob names Dan as removed, with the greatest number there is, and is removed for it; Dan is added again while Cyn is away.
#[test]
fn no_fate_is_the_last_word() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN]);
    let dan = world.person(DAN);
    lies(&mut world, BOB, matter, vec![Fate { person: dan, number: u32::MAX, out: true }]);
    continue_by_hand(&mut world, BOB, matter);
    let_pass(&mut world, HOUR);
    world.remove(ADA, matter, BOB);
    let_pass(&mut world, MINUTE);
    assert_eq!(people(&world, ADA, matter), people(&world, CYN, matter));
    leave(&mut world, &[CYN]);
    if !lists(&world, ADA, matter, dan) {
        world.add(ADA, matter, DAN);
    }
    let_pass(&mut world, HOUR);
    assert!(lists(&world, ADA, matter, dan) && stage(&world, DAN, matter) == Stage::Open, "the control");
    come_back(&mut world, &[CYN]);
    continue_by_hand(&mut world, CYN, matter);
    let_pass(&mut world, DAY);
    all_hear_each_other(&mut world, matter, &[ADA, CYN, DAN]);
}

/// Nobody does anything wrong: Bob's removal is known to all but him, and he is not let in. He says so a few times, not for ever.
#[test]
fn whoever_was_removed_does_not_state_for_ever_that_the_matter_goes_on() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let yesterday = world.relay.clone();
    let mailbox = world.nodes[ADA].device.matter(matter).unwrap().mailbox;
    leave(&mut world, &[BOB, DAN]);
    world.remove(ADA, matter, BOB);
    world.run();
    world.restore(yesterday);
    let_pass(&mut world, MINUTE);
    come_back(&mut world, &[BOB, DAN]);
    let_pass(&mut world, DAY);
    let before = world.relay.matter_entries(mailbox);
    let_pass(&mut world, DAY);
    let more = world.relay.matter_entries(mailbox) - before;
    assert!(more < 10, "{more} statements a day; Bob: {:?}", stage(&world, BOB, matter));
}
