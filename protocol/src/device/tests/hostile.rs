//! Members and relays that break the rules: what all honest members make of it alike, whom they show, and that the matter goes on.
//!
//! Everywhere Ada and Bob are attorneys, Dan and Eve clients of one matter, and Cyn comes in last, to see that the matter can still
//! change. A hostile member runs the same program as the others, which posts here what it never would by itself.

use std::sync::{Mutex, OnceLock};

use super::*;
use crate::device::state::Record;
use crate::envelope::{self, Class};
use crate::frame::{Blob, Part};
use crate::matter::forge::{self, Spell, Wild};

mod bundles;
mod commits;
mod members;
mod packages;
mod relays;
mod repairs;
mod roles;

const ALL: [usize; 4] = [ADA, BOB, DAN, EVE];

/// A matter of Ada's, with Bob, Dan and Eve.
fn office() -> (World, MatterId) {
    static SEED: OnceLock<Mutex<(World, MatterId)>> = OnceLock::new();
    let seed = SEED.get_or_init(|| {
        let mut world = World::office();
        let matter = world.matter(&[BOB, DAN, EVE]);
        world.say(EVE, matter, "hello");
        world.settle();
        Mutex::new((world, matter))
    });
    let (mut world, matter) = {
        let seed = seed.lock().unwrap();
        (seed.0.fork(), seed.1)
    };
    world.settle();
    (world, matter)
}

/// Where a member is.
fn seen(world: &World, who: usize, matter: MatterId) -> Seen {
    Seen::at(world.nodes[who].device.matter(matter).unwrap().position)
}

fn epoch(world: &World, who: usize, matter: MatterId) -> u64 {
    world.nodes[who].device.matter(matter).unwrap().epoch
}

fn seq(world: &World, who: usize, matter: MatterId) -> u64 {
    world.nodes[who].device.matter(matter).unwrap().position.seq
}

fn leaf(world: &mut World, whom: usize, matter: MatterId) -> u32 {
    let device = world.nodes[whom].device.profile().device;
    world.nodes[ADA].device.group(matter).unwrap().member_of(device).unwrap().0.leaf
}

fn context(world: &mut World, matter: MatterId) -> MatterContext {
    world.nodes[ADA].device.group(matter).unwrap().context().unwrap()
}

fn participant(world: &World, whom: usize) -> Participant {
    let profile = world.nodes[whom].device.profile();
    let person_key = world.nodes[whom].device.own_person_key().unwrap();
    Participant { person: profile.person, role: profile.role, person_key }
}

/// The context with somebody more in it.
fn with(world: &mut World, matter: MatterId, more: Participant) -> MatterContext {
    let mut context = context(world, matter);
    context.people.push(more);
    context.people.sort();
    context
}

/// The context without somebody.
fn without(world: &mut World, matter: MatterId, whom: usize) -> MatterContext {
    let (mut context, person) = (context(world, matter), world.person(whom));
    context.people.retain(|participant| participant.person != person);
    context
}

/// A Commit that a member's program would never make.
fn forged(world: &mut World, by: usize, matter: MatterId, wild: &Wild, seen: &Seen) -> Vec<u8> {
    let device = &mut world.nodes[by].device;
    let state = device.group(matter).unwrap().state();
    forge::commit(&device.me, device.rooms[&matter].row.group, state, wild, seen)
}

/// A part that appends a payload.
fn part(world: &World, by: usize, matter: MatterId, class: Class, payload: &[u8], fence: bool) -> Part {
    world.nodes[by].device.append(matter, &envelope::wrap(class, payload).unwrap(), fence).unwrap()
}

fn hash(part: &Part) -> Digest {
    let Part::Append { envelope, .. } = part else { panic!("no envelope") };
    Digest::of(&[&envelope.0])
}

/// Posts what a member's program would never post, and lets everybody read it.
fn post(world: &mut World, by: usize, matter: MatterId, parts: Vec<Part>) {
    let now = world.now;
    let device = &mut world.nodes[by].device;
    device.new_post(PendingPost::new(parts, matter, Purpose::Roster));
    device.settle(now);
    world.run();
}

fn post_commit(world: &mut World, by: usize, matter: MatterId, commit: &[u8]) {
    let part = part(world, by, matter, Class::Commit, commit, true);
    post(world, by, matter, vec![part]);
}

/// Forges a Commit and posts it as a fence.
fn strike(world: &mut World, by: usize, matter: MatterId, wild: &Wild) {
    let seen = seen(world, by, matter);
    let commit = forged(world, by, matter, wild, &seen);
    post_commit(world, by, matter, &commit);
}

/// A sealed bundle of somebody's identities.
fn bundle(world: &mut World, by: usize, matter: MatterId, identities: Vec<Identity>) -> Part {
    let bundle = Bundle { identities, names: Vec::new() };
    let content =
        Content { id: MessageId::random(), sent_at: Timestamp(0), body: Body::Bundle(bundle), log: None }.encode();
    let seen = seen(world, by, matter);
    let device = &mut world.nodes[by].device;
    let part = device.sealed(matter, &content, &seen).unwrap();
    device.flush();
    part
}

/// A person's own identity, with the certificates of their devices.
fn identity(world: &World, whom: usize) -> Identity {
    let person = world.person(whom);
    world.nodes[whom].device.person(person).unwrap().chain[0].clone()
}

fn package(world: &mut World, whom: usize) -> Vec<u8> {
    world.nodes[whom].device.new_key_package(false).unwrap().0
}

/// Another device of a person's, certified by them, and the person with the certificates of both.
fn second_device(world: &World, whom: usize) -> (Me, Identity) {
    let profile = world.nodes[whom].device.profile();
    let (key, device) = (SecretKey::generate(), DeviceId::random());
    let mut certificate: DeviceCertificate = profile.certificate.unverified("certificate").unwrap();
    (certificate.device, certificate.mls_key) = (device, key.public().unwrap());
    let certificate =
        Signed::make(Label::DeviceCertificate, profile.person_key.as_ref().unwrap(), &certificate).unwrap();
    let credential = LeafCredential { person: profile.person, device, certificate: certificate.digest() };
    let mut identity = identity(world, whom);
    identity.certificates.push(certificate);
    (Me { credential, key }, identity)
}

fn voids(world: &World, who: usize, matter: MatterId) -> Vec<Record> {
    let void = |record: &Record| matches!(record.what, RecordBody::Void { .. });
    world.records(who, matter).into_iter().filter(void).collect()
}

/// These members have all judged the last entry void, for the same reason, and show who wrote it. Returns the reason.
fn void(world: &World, matter: MatterId, by: usize, who: &[usize]) -> String {
    let place = seq(world, who[0], matter);
    let why = |who: usize| {
        let last = voids(world, who, matter).pop().unwrap_or_else(|| panic!("device {who} finds nothing void"));
        assert_eq!((last.seq, last.from), (place, Some(world.person(by))), "device {who}: {last:?}");
        assert_eq!(seq(world, who, matter), place, "device {who}");
        let RecordBody::Void { why, claimed: true } = last.what else { panic!("device {who}: {last:?}") };
        why
    };
    let reason = why(who[0]);
    for other in who {
        assert_eq!(why(*other), reason, "device {other}");
        assert_eq!(epoch(world, *other, matter), epoch(world, who[0], matter), "device {other}");
    }
    reason
}

/// The members are in one epoch and in step.
fn together(world: &World, matter: MatterId, who: &[usize]) {
    for other in who {
        assert_eq!(stage(world, *other, matter), Stage::Open, "device {other}");
        assert_eq!(epoch(world, *other, matter), epoch(world, who[0], matter), "device {other}");
        assert_eq!(seq(world, *other, matter), seq(world, who[0], matter), "device {other}");
        assert_eq!(people(world, *other, matter), people(world, who[0], matter), "device {other}");
        assert!(world.nodes[*other].device.is_settled(), "device {other}");
    }
}

/// Everybody writes, Cyn is added and writes, too, and goes again; all have read the same. Nothing new is void meanwhile.
fn goes_on(world: &mut World, matter: MatterId, who: &[usize]) {
    together(world, matter, who);
    let before: Vec<usize> = who.iter().map(|other| voids(world, *other, matter).len()).collect();
    let heard = world.texts(CYN, matter).len();
    let (start, people_before) = (epoch(world, who[0], matter), people(world, who[0], matter));
    for other in who {
        world.say(*other, matter, &format!("on we go, says {other}"));
        world.run();
    }
    world.add(who[0], matter, CYN);
    world.run();
    let everyone: Vec<usize> = who.iter().copied().chain([CYN]).collect();
    together(world, matter, &everyone);
    for other in &everyone {
        world.say(*other, matter, &format!("with Cyn, says {other}"));
        world.run();
    }
    world.remove(who[0], matter, CYN);
    world.run();
    together(world, matter, who);
    assert_eq!(epoch(world, who[0], matter), start + 2);
    assert_eq!(people(world, who[0], matter), people_before);
    world.say(*who.last().unwrap(), matter, "without Cyn");
    world.run();
    let texts = world.texts(who[0], matter);
    let words: Vec<String> = texts.iter().map(|(_, _, text)| text.clone()).collect();
    let all = 2 * who.len() + 2;
    assert!(words.len() >= all, "{words:?}");
    assert!(words.ends_with(&["without Cyn".to_owned()]), "{words:?}");
    for (other, before) in who.iter().zip(before) {
        assert_eq!(world.texts(*other, matter), texts, "device {other}");
        assert_eq!(voids(world, *other, matter).len(), before, "device {other}: {:?}", voids(world, *other, matter));
    }
    let cyns = world.texts(CYN, matter).split_off(heard);
    assert_eq!(cyns.len(), everyone.len());
    assert!(cyns.iter().all(|text| texts.contains(text)));
}

/// The forgeries below are wrong in one thing alone: without it, everybody follows them.
#[test]
fn what_is_forged_without_a_flaw_is_followed() {
    let (mut world, matter) = office();
    let before = epoch(&world, ADA, matter);
    let wild = Wild {
        remove: vec![leaf(&mut world, EVE, matter)],
        context: Some(without(&mut world, matter, EVE)),
        ..Wild::default()
    };
    strike(&mut world, BOB, matter, &wild);
    for who in [ADA, DAN] {
        assert!(voids(&world, who, matter).is_empty(), "{:?}", voids(&world, who, matter));
        assert_eq!(epoch(&world, who, matter), before + 1);
    }
    assert_eq!(stage(&world, EVE, matter), Stage::Removed);

    let (mut world, matter) = office();
    let identity = identity(&world, CYN);
    let told = bundle(&mut world, BOB, matter, vec![identity]);
    let cyn = participant(&world, CYN);
    let wild =
        Wild { add: vec![package(&mut world, CYN)], context: Some(with(&mut world, matter, cyn)), ..Wild::default() };
    let seen = Seen { bundle: Some(hash(&told)), ..seen(&world, BOB, matter) };
    let commit = forged(&mut world, BOB, matter, &wild, &seen);
    let commit = part(&world, BOB, matter, Class::Commit, &commit, true);
    post(&mut world, BOB, matter, vec![told, commit]);
    for who in [ADA, DAN, EVE] {
        assert!(voids(&world, who, matter).is_empty(), "{:?}", voids(&world, who, matter));
        assert_eq!(epoch(&world, who, matter), before + 1);
        assert_eq!(people(&world, who, matter), 5);
    }
}
