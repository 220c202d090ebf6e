//! Keys that follow one another, and what goes wrong between: crossing requests, withheld proofs, many rotations, forks.

use super::world::{ADA, BOB, CYN, DAN, EVE, World};
use super::*;
use crate::identity::{Replacement, Step, verify_chain};
use crate::ids::DeviceId;
use crate::matter::{KeyPackages, LeafCredential, Me};

fn own_key(world: &World, who: usize) -> Digest {
    world.nodes[who].device.own_key().unwrap().digest()
}

fn at_relay(world: &World, who: usize) -> Digest {
    world.relay.chain_of(world.person(who))[0].person_key.digest()
}

fn listed(world: &mut World, who: usize, matter: MatterId, whom: usize) -> Digest {
    let person = world.person(whom);
    let context = world.nodes[who].device.group(matter).unwrap().context().unwrap();
    context.participant(person).unwrap().person_key
}

fn rotate(world: &mut World, who: usize) {
    world.nodes[who].device.replace_key(world.now).unwrap();
    world.settle();
}

fn changed_told(world: &World, who: usize, whom: usize) -> usize {
    let person = world.person(whom);
    world.told(who, |notice| matches!(notice, Notice::IdentityChanged { person: of, .. } if *of == person))
}

/// `identity rotate` twice before the answer (timeout, run again): the key that the relay took is thrown away.
#[test]
fn a_second_rotation_before_the_answer_loses_no_key() {
    let mut world = World::office();
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle();
    assert_eq!(
        own_key(&world, DAN),
        at_relay(&world, DAN),
        "the device holds the key that the relay and all others know"
    );
}

/// The same over a crash: first run sent nothing, the second run rotates while the resent request is under way.
#[test]
fn a_second_rotation_on_the_next_link_loses_no_key() {
    let mut world = World::office();
    world.disconnect(DAN);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.drain(DAN);
    world.nodes[DAN].crash();
    world.connect(DAN);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle();
    assert_eq!(own_key(&world, DAN), at_relay(&world, DAN));
}

/// A client's Commit that lets the attorney back in; the relay withholds its bundle from another client, who must pause.
#[test]
fn a_withheld_proof_of_a_new_key_pauses_and_forks_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, EVE]);
    let secret = world.sheet(ADA);
    world.disconnect(ADA);
    world.disconnect(EVE);
    let ada = world.restore_person(ADA, &secret);
    for _ in 0..40 {
        world.run();
        let devices = [BOB, CYN, DAN, ada];
        let next = devices.iter().filter_map(|index| Some((world.nodes[*index].device.deadline()?, *index))).min();
        let Some((at, index)) = next else { break };
        if at > world.now.plus_ms(60_000) {
            break;
        }
        world.now = at.max(world.now);
        world.nodes[index].device.handle_time(at);
    }
    assert_eq!(listed(&mut world, DAN, matter, ADA), own_key(&world, ada), "Dan has let her in");
    let eve = world.device(EVE);
    world.relay.shown = Some((eve, |entries| {
        // The bundle stands right before the last fence.
        let fences: Vec<usize> = (0..entries.len()).filter(|index| entries[*index].fence).collect();
        for fence in fences {
            if fence > 0 && !entries[fence - 1].fence {
                entries[fence - 1].body = EntryBody::Expired(entries[fence - 1].digest());
            }
        }
    }));
    world.connect(EVE);
    world.run();
    // What the fork does: Eve, in a group of her own, and Dan read nothing of each other.
    world.say(EVE, matter, "from eve");
    world.run();
    world.say(DAN, matter, "from dan");
    world.run();
    let voids: Vec<_> =
        world.records(EVE, matter).into_iter().filter(|r| matches!(r.what, RecordBody::Void { .. })).collect();
    assert_eq!(stage(&world, EVE, matter), Stage::Paused, "{voids:?}");
}

/// With whoever vouches for somebody away, their key is replaced so often and no more: else nobody could verify them again.
#[test]
fn no_rotation_leaves_somebody_whom_nobody_can_verify() {
    let mut world = World::office();
    let secret = world.sheet(DAN);
    world.disconnect(BOB);
    for _ in 0..3 {
        world.nodes[DAN].device.replace_key(world.now).unwrap();
        world.run();
    }
    assert!(matches!(world.nodes[DAN].device.replace_key(world.now), Err(Error::Refused(Refused::NotAllowed { .. }))));
    let organisation = world.nodes[ADA].device.profile().organisation.clone();
    verify_chain(&world.relay.chain_of(world.person(DAN)), &organisation).unwrap();
    // A sheet is good all the same.
    world.disconnect(DAN);
    let dan = world.restore_person(DAN, &secret);
    world.run();
    verify_chain(&world.relay.chain_of(world.person(DAN)), &organisation).unwrap();
    assert_eq!(own_key(&world, dan), at_relay(&world, DAN));
    world.connect(BOB);
    world.run();
    world.nodes[dan].device.replace_key(world.now).unwrap();
    world.run();
    assert_eq!(own_key(&world, dan), at_relay(&world, DAN));
    verify_chain(&world.relay.chain_of(world.person(DAN)), &organisation).unwrap();
}

/// Whoever vouches for somebody is online and does it again each time.
#[test]
fn five_rotations_with_the_endorser_online_are_endorsed_in_time() {
    let mut world = World::office();
    for _ in 0..5 {
        world.nodes[DAN].device.replace_key(world.now).unwrap();
        world.settle();
    }
    let organisation = world.nodes[ADA].device.profile().organisation.clone();
    let verified = verify_chain(&world.relay.chain_of(world.person(DAN)), &organisation).map(|_| ());
    assert!(verified.is_ok(), "{verified:?}");
}

/// An attorney meets Dan under his new key, compares, and comes into a matter that lists the old one (a rotation makes no Commit).
fn met_then_added(again: bool) -> (World, usize, MatterId) {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    if !again {
        // Whoever endorsed Dan is away: his new key has no endorsement of its own yet.
        world.disconnect(BOB);
        world.disconnect(ADA);
    }
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.run();
    if again {
        world.again(BOB);
    }
    world.settle();
    let fay = world.join(ADA, "fay", Role::Attorney);
    world.look(fay, DAN);
    let dan = world.person(DAN);
    assert_eq!(world.nodes[fay].device.person(dan).unwrap().key(), Some(own_key(&world, DAN)));
    let number = world.nodes[fay].device.safety_number(dan).unwrap();
    world.nodes[fay].device.verify_person(world.now, dan, &number).unwrap();
    world.add(ADA, matter, fay);
    world.settle();
    (world, fay, matter)
}

#[test]
fn whoever_met_somebody_under_a_new_key_is_not_alarmed_by_a_matter_that_lists_the_old_one() {
    for endorsed_again in [false, true] {
        let (mut world, fay, matter) = met_then_added(endorsed_again);
        assert_eq!(changed_told(&world, fay, DAN), 0);
        world.nodes[fay].device.send_text(world.now, matter, MessageId::random(), "hello").unwrap();
    }
}

/// The user accepts a second new key; the matter lists the first.
#[test]
fn two_rotations_with_a_device_linked_between_block_nobody_for_good() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let dan = world.person(DAN);
    let number = world.nodes[ADA].device.safety_number(dan).unwrap();
    world.disconnect(ADA);
    // Ada is away while Dan rotates, links a device and rotates again; Dan's own device makes the Commit.
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.run();
    let _second = world.link(DAN);
    world.settle_but(ADA);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle_but(ADA);
    world.nodes[ADA].device.verify_person(world.now, dan, &number).unwrap();
    world.settle();
    let told = changed_told(&world, ADA, DAN);
    let trusted = world.nodes[ADA].device.trust_person(world.now, dan);
    world.settle();
    let number = world.nodes[ADA].device.safety_number(dan).unwrap();
    let verified = world.nodes[ADA].device.verify_person(world.now, dan, &number);
    world.add(ADA, matter, EVE);
    world.settle();
    world.again(ADA);
    let sent = world.nodes[ADA].device.send_text(world.now, matter, MessageId::random(), "hello");
    let again = world.nodes[ADA].device.trust_person(world.now, dan);
    assert!(sent.is_ok(), "told {told} trust {trusted:?} verify {verified:?} sent {sent:?} trust again {again:?}");
    assert!(told <= 2, "told {told}");
}

/// Five rotations, each endorsed again in time, in a matter in which nobody comes or goes: nobody can be added any more.
#[test]
fn a_matter_takes_newcomers_after_five_rotations_of_a_member() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    for _ in 0..5 {
        rotate(&mut world, DAN);
        world.again(BOB);
        world.settle();
        world.again(ADA);
        world.settle();
        let dan = world.person(DAN);
        assert!(world.nodes[ADA].device.trust_person(world.now, dan).unwrap());
        world.settle();
    }
    let organisation = world.nodes[ADA].device.profile().organisation.clone();
    verify_chain(&world.relay.chain_of(world.person(DAN)), &organisation).unwrap();
    world.add(ADA, matter, EVE);
    world.settle();
    let refused = world.told(EVE, |notice| matches!(notice, Notice::FalseWelcome(_)));
    let inside = world.nodes[EVE].device.matter(matter).is_some();
    assert!(
        inside,
        "Ada shows {} people; Eve was told of {refused} false Welcomes: {:?}",
        people(&world, ADA, matter),
        world.nodes[EVE].notices.last()
    );
}

/// A fork: Dan replaces K1 by K2 because K1 was stolen, Ada accepts K2; the thief's K1 signs for K2', and the relay's operator shows that.
#[test]
fn a_key_that_was_replaced_makes_no_second_successor() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let (dan, honest) = (world.person(DAN), world.device(DAN));
    let k1 = world.nodes[DAN].device.profile().person_key.clone().unwrap();
    let before = world.relay.chain_of(dan);
    world.disconnect(BOB); // has yet to vouch for K2; or the operator shows Bob K2' first, and then his device vouches for that by itself
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle_but(BOB);
    world.nodes[ADA].device.trust_person(world.now, dan).unwrap();
    world.settle_but(BOB);
    assert_eq!(world.nodes[ADA].device.person(dan).unwrap().key(), Some(own_key(&world, DAN)));
    // The thief's.
    let (key, mls_key, device) = (SecretKey::generate(), SecretKey::generate(), DeviceId::random());
    let said = DeviceCertificate {
        person: dan,
        device,
        link_key: SecretKey::generate().public().unwrap().digest(),
        mls_key: mls_key.public().unwrap(),
        made_at: world.now,
    };
    let certificate = Signed::make(Label::DeviceCertificate, &key, &said).unwrap();
    let said = Replacement::new(dan, &before[0].person_key, &key, vec![certificate.digest()], world.now).unwrap();
    let statement = Signed::make(Label::Replacement, &k1, &said).unwrap();
    let step = Step { key: before[0].person_key.clone(), statement, recovery: None };
    let mut chain = before.clone();
    chain[0] = Identity {
        person_key: key.public().unwrap(),
        certificates: vec![certificate.clone()],
        line: vec![step],
        ..before[0].clone()
    };
    let me = Me { credential: LeafCredential { person: dan, device, certificate: certificate.digest() }, key: mls_key };
    let (package, _, _) = crate::matter::key_package(&me, &KeyPackages::default(), false).unwrap();
    world.relay.single_use.insert(device, [Blob(package)].into());
    world.disconnect(DAN);
    world.relay.forge(dan, &chain[0], device);
    world.settle_but(DAN);
    let members = world.nodes[ADA].device.group(matter).unwrap().members();
    let has = |device| members.iter().any(|member| member.credential.device == device);
    assert!(has(honest) && !has(device), "Dan is in: {}; the thief is in: {}", has(honest), has(device));
}

/// A device linked after a rotation reads its person's history.
#[test]
fn a_device_linked_after_rotations_is_told_of_nothing_done_in_its_name() {
    let mut world = World::office();
    let _matter = world.matter(&[DAN]);
    rotate(&mut world, DAN);
    world.again(ADA);
    rotate(&mut world, DAN);
    let second = world.link(DAN);
    world.settle();
    world.again(second);
    let told: Vec<_> = world.nodes[second]
        .notices
        .iter()
        .filter(|n| matches!(n, Notice::DoneInYourName(_) | Notice::Log { .. }))
        .collect();
    assert!(told.is_empty(), "{told:?}");
}
