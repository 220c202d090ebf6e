//! The relay's new key, as a device is told of it.

use super::world::{ADA, World};
use super::*;
use crate::error::{Malformed, PeerMisbehaved};
use crate::frame::AdmittedBody;
use crate::rotation::RelayRotation;
use crate::suite::PublicKey;

/// The first few keys of a relay, the first being the one that everybody has pinned, with the statements between them.
fn keys(world: &World, count: usize) -> (Vec<PublicKey>, Vec<Signed>) {
    let mut secrets = vec![world.relay.key().clone()];
    secrets.extend((1..count).map(|_| SecretKey::generate()));
    let publics: Vec<PublicKey> = secrets.iter().map(|key| key.public().unwrap()).collect();
    let step = |(at, pair): (u64, &[SecretKey])| {
        RelayRotation::sign(&pair[0], &pair[1].public().unwrap(), Timestamp(at)).unwrap()
    };
    (publics, (0..).zip(secrets.windows(2)).map(step).collect())
}

fn answer(world: &World, rotations: &[Signed]) -> AdmittedBody {
    let device = world.nodes[ADA].device.profile().device;
    AdmittedBody { rotations: rotations.to_vec(), ..world.relay.admitted(device, world.now) }
}

fn hear(world: &mut World, rotations: &[Signed]) -> Result<(), Error> {
    let (answer, now) = (answer(world, rotations), world.now);
    let heard = world.nodes[ADA].device.handle_link_up(now, &answer);
    world.drain(ADA);
    heard
}

fn pinned(world: &World) -> PublicKey {
    world.nodes[ADA].device.profile().relay.clone()
}

fn told(world: &World) -> usize {
    world.told(ADA, |notice| matches!(notice, Notice::RelayRotated { .. }))
}

#[test]
fn a_device_pins_the_newest_key_for_good_and_tells_once() {
    let mut world = World::office();
    let (keys, statements) = keys(&world, 3);
    let invite = world.nodes[ADA].device.invite(world.now, &NewPersonInvite::new(Role::Client)).unwrap();
    world.disconnect(ADA);
    hear(&mut world, &statements).unwrap();
    assert_eq!((pinned(&world), told(&world)), (keys[2].clone(), 1));
    let log = world.nodes[ADA].device.log().unwrap();
    log.keys.verifier(log.relay.as_ref().unwrap()).unwrap().open(&log.note).expect("under the key that signed it");
    let proof = world.nodes[ADA].device.proof(world.now, Vec::new(), String::new()).unwrap();
    crate::proof::verify(&proof, None, None).unwrap();
    world.nodes[ADA].crash();
    assert_eq!(pinned(&world), keys[2], "it is on disk");
    let before = &world.nodes[ADA].device.profile().relays_before;
    let before: Vec<_> = before.iter().map(|past| (past.key, past.until.0)).collect();
    assert_eq!(before, [(keys[0].fingerprint(), 0), (keys[1].fingerprint(), 1)]);
    // An invite from before is held against the key that its URL pins, one made now against the newest.
    let own = &world.nodes[ADA].device.invites[&invite.secret.id()];
    assert_eq!(world.nodes[ADA].device.relay_of(own), invite.relay);
    let now = world.now;
    let newer = world.nodes[ADA].device.invite(now, &NewPersonInvite::new(Role::Client)).unwrap();
    assert_eq!(newer.relay, keys[2].fingerprint());
    let own = &world.nodes[ADA].device.invites[&newer.secret.id()];
    assert_eq!(world.nodes[ADA].device.relay_of(own), newer.relay);
    hear(&mut world, &[]).unwrap();
    assert_eq!((pinned(&world), told(&world)), (keys[2].clone(), 1));
}

#[test]
fn a_statement_that_the_pinned_key_has_not_signed_changes_nothing() {
    let mut world = World::office();
    let (keys, statements) = keys(&world, 3);
    world.disconnect(ADA);
    let thief = SecretKey::generate();
    let forged = RelayRotation::sign(&thief, &thief.public().unwrap(), world.now).unwrap();
    let by_thief = RelayRotation::sign(&thief, &keys[1], world.now).unwrap();
    let mut altered = statements[0].clone();
    altered.body[60] ^= 1;
    for wrong in [
        vec![forged.clone()],
        vec![by_thief],
        vec![statements[1].clone()],
        vec![altered],
        vec![statements[0].clone(), forged],
    ] {
        let error = hear(&mut world, &wrong).unwrap_err();
        assert!(
            matches!(error, Error::PeerMisbehaved(PeerMisbehaved::Signature(_) | PeerMisbehaved::Mismatch(_))),
            "{error}"
        );
        assert_eq!((pinned(&world), told(&world)), (keys[0].clone(), 0));
        assert!(!world.nodes[ADA].device.is_caught_up() && world.nodes[ADA].device.profile().relays_before.is_empty());
    }
    world.nodes[ADA].crash();
    assert_eq!(pinned(&world), keys[0], "nor on disk");
}

#[test]
fn more_than_one_answer_brings_takes_another_link() {
    let mut world = World::office();
    let (keys, statements) = keys(&world, limits::ROTATIONS_MAX + 3);
    world.disconnect(ADA);
    let error = hear(&mut world, &statements).unwrap_err();
    assert!(matches!(error, Error::Malformed(Malformed::TooLarge { .. })), "{error}");
    let answer = answer(&world, &statements[..limits::ROTATIONS_MAX]);
    let now = world.now;
    world.nodes[ADA].device.handle_link_up(now, &answer).unwrap();
    let mut outputs = Vec::new();
    while let Some(output) = world.nodes[ADA].device.poll() {
        match output {
            Output::Persist(batch) => world.nodes[ADA].vault.apply(batch),
            other => outputs.push(other),
        }
    }
    assert!(matches!(outputs.last(), Some(Output::Reconnect)), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send(_))), "nothing is said under a key on the way");
    hear(&mut world, &statements[limits::ROTATIONS_MAX..]).unwrap();
    assert_eq!(pinned(&world), keys[limits::ROTATIONS_MAX + 2]);
}
