//! Invites that devices of one person tell each other of, and that are not to be believed any more.

use super::*;
use crate::between::{self, Between, Body as NoteBody, NOTE_INFO, Note, SealedNote, SharedInvite};
use crate::envelope::{self, Class};
use crate::error::PeerMisbehaved;
use crate::invite::InviteSecret;
use crate::limits;
use crate::matter::seal_to;

fn suspicious(world: &World, who: usize, why: &Error) -> usize {
    world.told(who, |notice| matches!(notice, Notice::Suspicious { why: told, .. } if told == why))
}

/// A note of one device in another's inbox, however late.
fn says(world: &mut World, from: usize, to: usize, body: NoteBody) {
    let (author, reader) = (world.nodes[from].device.profile().clone(), world.device(to));
    let note = Note { from: author.device, to: reader, at: world.now, body }.sign(&author.mls_key).unwrap();
    let package = world.relay.take_package(reader);
    let sealed = seal_to(&package.0, NOTE_INFO, &between::pad(&note).unwrap()).unwrap();
    let note = SealedNote {
        reference: Blob(sealed.reference),
        kem_output: Blob(sealed.kem_output),
        ciphertext: Blob(sealed.ciphertext),
    };
    let envelope = envelope::wrap(Class::Between, &cbor::encode(&Between::Note(note))).unwrap();
    world.relay.deliver(author.device, reader, &envelope);
    world.run();
}

/// A thief has a device, and the relay goes on to take whoever comes with an invite that was made there.
#[test]
fn an_invite_of_a_device_that_was_revoked_lets_nobody_in() {
    for linked_after in [false, true] {
        let mut world = World::office();
        let second = world.link(ADA);
        world.settle();
        let invited = world.invite(second, "zoe", Role::Attorney);
        let id = invited.invite.secret.id();
        world.settle();
        // A third hears of it from the first: it is the second's all the same.
        let third = linked_after.then(|| world.link(ADA));
        world.settle();
        let other = third.unwrap_or(ADA);
        assert!(world.nodes[other].device.invites.contains_key(&id));
        world.revoke(ADA, second);
        world.settle();
        world.disconnect(if other == ADA { second } else { ADA });
        let zoe = world.enter(invited);
        world.settle_but(if other == ADA { second } else { ADA });
        assert!(!world.nodes[zoe].device.is_ready(), "{linked_after}");
        assert!(suspicious(&world, other, &PeerMisbehaved::InviterGone.into()) > 0, "{:?}", world.nodes[other].notices);
    }
}

/// Notes come in any order.
#[test]
fn what_was_cancelled_or_used_does_not_come_back_by_a_late_word() {
    let mut world = World::office();
    let second = world.link(ADA);
    world.settle();
    let told = |world: &World, id: InviteId| {
        let own = world.nodes[ADA].device.invites[&id].clone();
        let (role, expires) = (own.role, own.expires);
        let (name, replaces, relay, by) = (None, None, None, None);
        SharedInvite { secret: own.secret, role, statement: own.statement, name, expires, replaces, relay, by }
    };
    let cancelled = world.invite(ADA, "zoe", Role::Attorney);
    let used = world.invite(ADA, "yan", Role::Attorney);
    let (first, other) = (cancelled.invite.secret.id(), used.invite.secret.id());
    let late = vec![told(&world, first), told(&world, other)];
    let now = world.now;
    world.nodes[ADA].device.cancel_invite(now, first);
    world.run();
    world.enter(used);
    world.settle_but(usize::MAX);
    for crash in [false, true] {
        if crash {
            world.nodes[second].crash();
            world.settle();
        }
        says(&mut world, ADA, second, NoteBody::Invites(late.clone()));
        let invites = &world.nodes[second].device.invites;
        assert!(!invites.contains_key(&first) && !invites.contains_key(&other), "after a crash: {crash}");
    }
    // What was cancelled before it was told of is not kept, either.
    let unknown = InviteSecret::random();
    says(&mut world, ADA, second, NoteBody::InviteGone(unknown.id()));
    let late = SharedInvite { secret: unknown.clone(), ..late[0].clone() };
    says(&mut world, ADA, second, NoteBody::Invites(vec![late]));
    assert!(!world.nodes[second].device.invites.contains_key(&unknown.id()));
    // It is not remembered for ever, nor is there room for any number.
    for _ in 0..limits::INVITES_GONE + 5 {
        world.nodes[second].device.bury_invite(InviteId::random());
    }
    assert_eq!(world.nodes[second].device.notes.gone.len(), limits::INVITES_GONE);
    world.now = world.now.plus_ms(limits::INVITE_LIFETIME_MS + limits::INVITE_KEPT_MS + 1);
    let now = world.now;
    world.nodes[second].device.handle_time(now);
    world.nodes[second].device.bury_invite(InviteId::random());
    assert_eq!(world.nodes[second].device.notes.gone.len(), 1);
}

/// The device stays away from its relay, and was not there to forget what is over.
#[test]
fn an_invite_that_ended_long_ago_lets_nobody_in() {
    let mut world = World::office();
    let invited = world.invite(ADA, "zoe", Role::Attorney);
    world.now = world.now.plus_ms(limits::INVITE_LIFETIME_MS + limits::INVITE_KEPT_MS);
    assert!(world.nodes[ADA].is_online());
    let zoe = world.enter(invited);
    world.settle_but(usize::MAX);
    assert!(!world.nodes[zoe].device.is_ready());
}

/// The relay has the invite, and the device that filed it dies before it hears of that.
#[test]
fn other_devices_hear_of_an_invite_though_the_one_that_made_it_was_interrupted() {
    let mut seed = World::office();
    let second = seed.link(ADA);
    seed.settle();
    for crash in 1..8 {
        let mut world = seed.fork();
        world.settle();
        world.nodes[ADA].crash_at = Some(world.nodes[ADA].persists + crash);
        let id = world.invite_unfiled(ADA);
        world.settle();
        world.settle_but(usize::MAX);
        if world.relay.is_filed(id) {
            assert!(world.nodes[ADA].device.invites.contains_key(&id), "{crash}");
            assert!(world.nodes[second].device.invites.contains_key(&id), "{crash}");
        }
    }
}
