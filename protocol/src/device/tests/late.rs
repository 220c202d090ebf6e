//! Statements about others by somebody who had been shut out before.

use super::rescue::let_pass;
use super::*;
use crate::identity::{DeviceCertificate, DeviceRevocation, EndorsementRevocation, Identity, Issuer};
use crate::ids::DeviceId;
use crate::log::Act;

/// A second device of the registrar's, whose keys a thief has.
fn with_second() -> (World, usize, MatterId) {
    let mut world = World::office();
    let second = world.link(ADA);
    world.settle();
    let matter = world.matter(&[BOB, DAN]);
    world.settle();
    (world, second, matter)
}

fn issuer(world: &World, who: usize) -> Option<Issuer> {
    let Profile { person, device, .. } = *world.nodes[who].device.profile();
    Some(Issuer { person, device })
}

fn revocation(world: &World, by: usize, whose: usize) -> (PersonId, DeviceId, Signed) {
    let (person, device) = (world.person(whose), world.device(whose));
    // A thief's clock says what the thief likes.
    let said = DeviceRevocation { person, device, issuer: issuer(world, by), at: Timestamp(1) };
    let key = &world.nodes[by].device.profile().mls_key;
    (person, device, Signed::make(Label::DeviceRevocation, key, &said).unwrap())
}

fn withdrawal(world: &World, by: usize, whose: usize) -> (PersonId, Digest, Signed) {
    let person = world.person(whose);
    let endorsement = match world.relay.show(person) {
        Reply::Chain { chain } => chain[0].endorsement.digest(),
        other => panic!("{other:?}"),
    };
    let said = EndorsementRevocation { person, endorsement, issuer: issuer(world, by), at: world.now };
    let key = &world.nodes[by].device.profile().mls_key;
    (person, endorsement, Signed::make(Label::EndorsementRevocation, key, &said).unwrap())
}

fn faults(world: &World, who: usize) -> usize {
    let late = |what: &str| what.contains("after they had been shut out");
    let faults: Vec<&str> =
        world.nodes[who].device.log().unwrap().faults.iter().map(|fault| fault.what.as_str()).collect();
    assert!(faults.iter().all(|fault| late(fault)), "device {who}: {faults:?}");
    faults.len()
}

/// The relay helps a thief who has a registrar's second device: its log has the theft's end first, and then what the thief says.
#[test]
fn what_a_revoked_device_says_of_others_shuts_nobody_out() {
    let (mut world, second, matter) = with_second();
    let (device, dan) = (world.device(DAN), world.person(DAN));
    world.revoke(ADA, second);
    let (person, gone, statement) = revocation(&world, second, DAN);
    let act = Act::DeviceRevoked { device: gone, certificate: Digest::of(&[]), by: Some(world.person(ADA)) };
    world.relay.log.add(person, act);
    world.relay.tell_revoked(person, &statement);
    let (person, endorsement, statement) = withdrawal(&world, second, DAN);
    world.relay.log.add(person, Act::EndorsementRevoked { endorsement, by: Some(world.person(ADA)) });
    world.relay.tell_withdrawn(person, &statement);
    world.settle();
    let_pass(&mut world, 60_000);
    for who in [ADA, BOB, CYN] {
        let node = &world.nodes[who].device;
        assert!(!node.is_revoked(device) && !node.is_withdrawn(dan), "device {who}: {:?}", world.nodes[who].notices);
    }
    for who in [ADA, BOB, DAN] {
        assert_eq!(people(&world, who, matter), 3, "device {who}");
        assert!(world.nodes[who].device.lapses_in(matter).is_empty(), "device {who}");
    }
    assert_eq!((faults(&world, ADA), faults(&world, BOB)), (1, 1));
    // Nor does it after a crash, or when it is told again.
    world.nodes[BOB].crash();
    world.settle();
    world.relay.tell_withdrawn(person, &statement);
    world.settle();
    let_pass(&mut world, 60_000);
    assert!(!world.nodes[BOB].device.is_withdrawn(dan) && faults(&world, BOB) == 1);
    assert!(world.nodes[BOB].device.lapses_in(matter).is_empty(), "{:?}", world.nodes[BOB].device.lapses_in(matter));
    world.say(BOB, matter, "all here");
    world.settle();
    world.agree(matter, &[ADA, BOB, DAN], &["all here"]);
}

/// What ended the thief's device is kept back at first: what it has said is taken back as soon as that comes to light.
#[test]
fn what_was_believed_is_taken_back_once_its_authors_end_is_known() {
    let (mut world, second, _) = with_second();
    let dan = world.person(DAN);
    // The end is in the log, and told to nobody.
    let (person, gone, end) = revocation(&world, ADA, second);
    let act = Act::DeviceRevoked { device: gone, certificate: Digest::of(&[]), by: Some(person) };
    world.relay.log.add(person, act);
    let (person, endorsement, statement) = withdrawal(&world, second, DAN);
    world.relay.log.add(person, Act::EndorsementRevoked { endorsement, by: Some(world.person(ADA)) });
    world.relay.tell_withdrawn(person, &statement);
    world.run();
    assert!(world.nodes[CYN].device.is_withdrawn(dan), "nobody can know better yet");
    world.relay.tell_revoked(world.person(ADA), &end);
    world.settle();
    let_pass(&mut world, 60_000);
    assert!(!world.nodes[CYN].device.is_withdrawn(dan), "{:?}", world.nodes[CYN].notices);
    assert_eq!(faults(&world, CYN), 1);
}

/// The relay is put back, and whoever had said so does not come any more.
#[test]
fn a_restored_relay_learns_from_whoever_holds_a_statement() {
    let (mut world, second, _) = with_second();
    let (eves, dan) = (world.device(EVE), world.person(DAN));
    let backup = world.relay.clone();
    world.withdraw(second, DAN);
    world.revoke(ADA, EVE);
    world.again(BOB);
    assert!(world.nodes[BOB].device.is_revoked(eves) && world.nodes[BOB].device.is_withdrawn(dan));
    world.disconnect(ADA);
    world.disconnect(second);
    world.restore(backup);
    assert!(world.relay.withdrawn.is_empty());
    let before = world.nodes[BOB].notices.len();
    world.connect(BOB);
    world.run();
    assert!(world.relay.withdrawn.contains_key(&dan) && !world.relay.admits(eves));
    let told = |notice: &&Notice| matches!(notice, Notice::DeviceRevoked { .. } | Notice::Withdrawn { .. });
    assert_eq!(world.nodes[BOB].notices[before..].iter().filter(told).count(), 0, "it is no news of Bob's");
    // Once is enough.
    let known = world.relay.told.len();
    world.again(BOB);
    world.again(CYN);
    assert_eq!(world.relay.told.len(), known);
}

/// A registrar's device says that another is revoked, and is revoked itself after that: the word stands, for whoever comes later, too.
#[test]
fn what_somebody_said_before_they_were_shut_out_counts() {
    let (mut world, second, _) = with_second();
    let (eve, eves, dan) = (world.person(EVE), world.device(EVE), world.person(DAN));
    world.revoke(second, EVE);
    world.withdraw(second, DAN);
    world.revoke(ADA, second);
    world.settle();
    let fresh = world.link(CYN);
    world.settle();
    let_pass(&mut world, 60_000);
    for who in [ADA, BOB, CYN, fresh] {
        let node = &world.nodes[who].device;
        assert!(node.is_revoked(eves) && node.is_withdrawn(dan), "device {who}: {eve} {:?}", world.nodes[who].notices);
        assert_eq!(faults(&world, who), 0);
    }
}

/// The founder began again. Whoever has stolen the key before makes up a device with it, and the relay logs what that device says.
#[test]
fn a_device_made_up_with_a_key_that_is_over_shuts_nobody_out() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let (ada, dan) = (world.person(ADA), world.person(DAN));
    let stolen = world.nodes[ADA].device.profile().person_key.clone().unwrap();
    let before = world.relay.chain_of(ada)[0].clone();
    let endorsement = world.relay.chain_of(dan)[0].endorsement.digest();
    let secret = world.sheet(ADA);
    world.disconnect(ADA);
    world.restore_person(ADA, &secret);
    world.settle_but(ADA);
    world.nodes[BOB].device.trust_person(world.now, ada).unwrap();
    let (device, key) = (DeviceId::random(), SecretKey::generate());
    let public = key.public().unwrap();
    let link_key = public.digest();
    let certificate = DeviceCertificate { person: ada, device, link_key, mls_key: public, made_at: Timestamp(1) };
    let certificate = Signed::make(Label::DeviceCertificate, &stolen, &certificate).unwrap();
    let made_up = Identity { certificates: vec![certificate], ..before };
    let said =
        EndorsementRevocation { person: dan, endorsement, issuer: Some(Issuer { person: ada, device }), at: world.now };
    let statement = Signed::make(Label::EndorsementRevocation, &key, &said).unwrap();
    let identities = [vec![made_up], world.relay.chain_of(dan)].concat();
    world.relay.log.add(dan, Act::EndorsementRevoked { endorsement, by: Some(ada) });
    let shown = world.nodes[BOB].device.verify_withdrawal(&statement, &identities);
    assert!(shown.is_ok(), "its signatures are good: {shown:?}");
    world.nodes[BOB].device.take_statements(Vec::new(), vec![statement], &identities);
    world.say(BOB, matter, "on");
    world.settle_but(ADA);
    assert!(!world.nodes[BOB].device.is_withdrawn(dan));
}

/// The log has a withdrawal of before, since made good: a later one by a device that was revoked in between does not take its place.
#[test]
fn a_late_withdrawal_takes_no_older_ones_place() {
    let (mut world, second, _) = with_second();
    let dan = world.person(DAN);
    let (_, before, _) = withdrawal(&world, ADA, DAN);
    world.withdraw(ADA, DAN);
    world.settle();
    world.now = world.now.plus_ms(1000);
    let now = world.now;
    world.nodes[ADA].device.endorse_again(now, dan).unwrap();
    world.settle();
    assert!(!world.nodes[CYN].device.is_withdrawn(dan));
    world.revoke(ADA, second);
    world.settle();
    world.now = world.now.plus_ms(1000);
    let said =
        EndorsementRevocation { person: dan, endorsement: before, issuer: issuer(&world, second), at: world.now };
    let key = &world.nodes[second].device.profile().mls_key;
    let signed = Signed::make(Label::EndorsementRevocation, key, &said).unwrap();
    world.relay.tell_withdrawn(dan, &signed);
    world.settle();
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, CYN] {
        assert!(!world.nodes[who].device.is_withdrawn(dan), "device {who}");
    }
}

/// The relay tells a thief's word before the thief's end, and logs the end alone.
#[test]
fn what_stands_in_no_log_is_worth_nothing_once_its_author_has_ended() {
    let (mut world, second, _) = with_second();
    let (person, device, statement) = revocation(&world, second, EVE);
    let (ada, gone) = (world.person(ADA), world.device(second));
    let end = DeviceRevocation { person: ada, device: gone, issuer: None, at: world.now };
    let key = world.nodes[ADA].device.profile().person_key.clone().unwrap();
    let end = Signed::make(Label::DeviceRevocation, &key, &end).unwrap();
    world.relay.log.add(ada, Act::DeviceRevoked { device: gone, certificate: Digest::of(&[]), by: None });
    world.relay.tell_revoked(person, &statement);
    world.relay.tell_revoked(ada, &end);
    world.settle();
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, CYN] {
        let node = &world.nodes[who].device;
        assert!(node.is_revoked(gone) && !node.is_revoked(device), "device {who}");
    }
}

/// An honest relay is restored to before a registrar's stolen device was revoked, and the thief comes first.
#[test]
fn a_thief_who_comes_first_to_a_restored_relay_shuts_nobody_out_and_the_relay_is_not_accused() {
    let (mut world, second, _) = with_second();
    let backup = world.relay.clone();
    world.disconnect(second);
    world.revoke(ADA, second);
    world.settle_but(second);
    let gone = world.device(second);
    for who in [ADA, BOB, CYN, DAN, EVE] {
        assert!(world.nodes[who].device.is_revoked(gone) || who > CYN);
        world.disconnect(who);
    }
    world.restore(backup);
    world.connect(second);
    world.run();
    world.withdraw(second, DAN);
    world.revoke(second, EVE);
    world.run();
    let (dan, eves) = (world.person(DAN), world.device(EVE));
    assert!(world.relay.is_revoked(eves), "the relay had to take it");
    for who in [CYN, BOB, ADA] {
        world.connect(who);
        world.run();
    }
    world.settle_but(second);
    let_pass(&mut world, 120_000);
    for who in [ADA, BOB, CYN] {
        let node = &world.nodes[who].device;
        assert!(!node.is_withdrawn(dan) && !node.is_revoked(eves), "device {who}");
        assert_eq!(faults(&world, who), 0, "device {who}");
    }
}

/// Somebody's key of before is stolen; the thief certifies a device with it after the key was replaced, and the relay logs what it says.
#[test]
fn a_device_that_was_added_after_its_key_was_over_shuts_nobody_out() {
    let (mut world, _, _) = with_second();
    let ada = world.person(ADA);
    let old: Vec<Identity> = world.relay.chain_of(ada);
    let stolen = world.nodes[ADA].device.profile().person_key.clone().unwrap();
    world.nodes[ADA].device.replace_key(world.now).unwrap();
    world.settle();
    // The log has the new key.
    world.again(CYN);
    let thief = SecretKey::generate();
    let mut said: DeviceCertificate = old[0].certificates[0].unverified("certificate").unwrap();
    (said.device, said.mls_key) = (DeviceId::random(), thief.public().unwrap());
    let certificate = Signed::make(Label::DeviceCertificate, &stolen, &said).unwrap();
    let mut shown = old;
    shown[0].certificates = vec![certificate.clone()];
    let (person, device) = (world.person(EVE), world.device(EVE));
    let by = Issuer { person: ada, device: said.device };
    let said = DeviceRevocation { person, device, issuer: Some(by), at: world.now };
    let signed = Signed::make(Label::DeviceRevocation, &thief, &said).unwrap();
    world.relay.log.add(ada, Act::DeviceAdded { device: by.device, certificate: certificate.digest() });
    world.relay.log.add(person, Act::DeviceRevoked { device, certificate: Digest::of(&[]), by: Some(ada) });
    for who in [BOB, CYN] {
        world.nodes[who].device.take_statements(vec![signed.clone()], Vec::new(), &shown);
    }
    for who in [BOB, CYN] {
        world.again(who);
    }
    world.settle();
    let_pass(&mut world, 120_000);
    for who in [BOB, CYN] {
        assert!(!world.nodes[who].device.is_revoked(device), "device {who}");
    }
}
