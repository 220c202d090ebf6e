//! What devices of one person tell each other: open invites, who came with them, names of devices; and what nobody else can tell them.

use super::*;
use crate::between::{self, Between, Body, DeviceName, NOTE_INFO, Note, SealedNote};
use crate::envelope::{self, Class};
use crate::limits;
use crate::matter::seal_to;

fn ready(world: &World, who: usize) -> bool {
    world.nodes[who].device.is_ready()
}

fn name(world: &World, who: usize, whose: usize) -> Option<String> {
    world.nodes[who].device.device_name(world.device(whose)).map(str::to_owned)
}

fn problems(world: &World, who: usize) -> usize {
    world.told(who, |notice| matches!(notice, Notice::Problem(_)))
}

/// A note in an envelope, sealed to the next key package that the relay has of its reader.
fn sealed(world: &mut World, signed: &Signed, to: DeviceId) -> Vec<u8> {
    let package = world.relay.take_package(to);
    let sealed = seal_to(&package.0, NOTE_INFO, &between::pad(signed).unwrap()).unwrap();
    let note = SealedNote {
        reference: Blob(sealed.reference),
        kem_output: Blob(sealed.kem_output),
        ciphertext: Blob(sealed.ciphertext),
    };
    envelope::wrap(Class::Between, &cbor::encode(&Between::Note(note))).unwrap()
}

#[test]
fn whichever_device_is_online_first_lets_the_newcomer_in() {
    let mut world = World::office();
    let second = world.link(ADA);
    let invited = world.invite(ADA, "zoe", Role::Attorney);
    world.disconnect(ADA);
    world.disconnect(second);
    let zoe = world.enter(invited);
    assert!(!ready(&world, zoe));
    world.connect(second);
    world.run();
    assert!(ready(&world, zoe));
    assert_eq!(world.told(second, |notice| matches!(notice, Notice::Endorsed { .. })), 1);
    let said = world.relay.endorsement(world.person(zoe));
    assert_eq!(said.issuer.unwrap().device, world.device(second));
    // The other one knows them, with their name, and has forgotten the secret.
    world.settle();
    let person = world.person(zoe);
    assert_eq!(world.nodes[ADA].device.person(person).unwrap().name.as_ref().unwrap().name, "zoe");
    for who in [ADA, second] {
        assert!(world.nodes[who].device.invites.values().all(|own| own.links), "device {who}");
        assert_eq!(world.told(who, |notice| matches!(notice, Notice::Suspicious { .. })), 0);
        assert_eq!(problems(&world, who), 0, "{:?}", world.nodes[who].notices);
    }
    let matter = world.open(ADA);
    world.add(ADA, matter, zoe);
    world.settle();
    world.say(zoe, matter, "hello");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["hello"]);
    assert_eq!(world.words(second, matter), ["hello"]);
}

/// Both are online: the one that has made the invite goes first, the other only where it does nothing.
#[test]
fn of_two_devices_that_are_online_one_lets_the_newcomer_in() {
    let mut world = World::office();
    let second = world.link(ADA);
    let invited = world.invite(ADA, "zoe", Role::Attorney);
    let zoe = world.enter(invited);
    world.settle_but(usize::MAX);
    let endorsed = |world: &World, who| world.told(who, |notice| matches!(notice, Notice::Endorsed { .. }));
    assert_eq!((endorsed(&world, ADA), endorsed(&world, second)), (1, 0));
    assert_eq!(world.relay.endorsement(world.person(zoe)).issuer.unwrap().device, world.device(ADA));
    // The first hears of nobody: after a moment it is the other's turn.
    let invited = world.invite(ADA, "yan", Role::Attorney);
    world.nodes[ADA].device.invites.clear();
    let yan = world.enter(invited);
    assert!(!ready(&world, yan));
    world.settle_but(usize::MAX);
    assert!(ready(&world, yan));
    assert_eq!(endorsed(&world, second), 1);
}

#[test]
fn invites_made_before_a_device_was_linked_come_to_it() {
    let mut world = World::office();
    let invited: Vec<_> = (0..40).map(|n| world.invite(ADA, &format!("zoe{n}"), Role::Staff)).collect();
    let second = world.link(ADA);
    world.settle();
    assert_eq!(world.nodes[second].device.invites.len(), invited.len());
    world.disconnect(ADA);
    let zoe = world.enter(invited.into_iter().next_back().unwrap());
    world.settle_but(ADA);
    assert!(ready(&world, zoe));
}

#[test]
fn a_cancelled_invite_is_forgotten_on_every_device_and_either_may_cancel() {
    let mut world = World::office();
    let second = world.link(ADA);
    for (by, other) in [(ADA, second), (second, ADA)] {
        let id = world.invite(ADA, "zoe", Role::Staff).invite.secret.id();
        assert!(world.nodes[second].device.invites.contains_key(&id));
        world.nodes[by].device.cancel_invite(world.now, id);
        world.run();
        assert_eq!(world.told(by, |notice| *notice == Notice::InviteCancelled(id)), 1);
        for who in [by, other] {
            assert!(!world.nodes[who].device.invites.contains_key(&id), "device {who}");
        }
    }
    // One for a device of one's own is told to nobody.
    world.link_invite(ADA);
    world.settle();
    assert!(world.nodes[second].device.invites.values().all(|own| !own.links));
}

#[test]
fn what_a_device_is_called_is_known_on_all_of_them_and_the_later_word_counts() {
    let mut world = World::office();
    let second = world.link(DAN);
    let rename = |world: &mut World, by: usize, whose: usize, name: &str| {
        let (device, now) = (world.device(whose), world.now);
        world.nodes[by].device.rename_device(now, device, name).unwrap();
        world.drain(by);
    };
    rename(&mut world, DAN, second, " phone ");
    world.settle();
    assert_eq!(name(&world, second, second).unwrap(), "phone");
    world.now = world.now.plus_ms(5);
    // Both say something while they don't see each other.
    world.disconnect(DAN);
    world.disconnect(second);
    rename(&mut world, DAN, second, "old phone");
    world.now = world.now.plus_ms(5);
    rename(&mut world, second, second, "new phone");
    rename(&mut world, second, DAN, "laptop");
    world.settle();
    for who in [DAN, second] {
        assert_eq!(name(&world, who, second).unwrap(), "new phone", "device {who}");
        assert_eq!(name(&world, who, DAN).unwrap(), "laptop", "device {who}");
    }
    // A third device learns them when it is linked; nobody else ever does.
    let third = world.link(DAN);
    world.settle();
    assert_eq!(
        (name(&world, third, second).unwrap(), name(&world, third, DAN).unwrap()),
        ("new phone".into(), "laptop".into())
    );
    let (dan, adas) = (world.person(DAN), world.device(ADA));
    let seen = world.nodes[DAN].device.devices_of(dan);
    assert_eq!(seen.iter().filter(|seen| seen.name.is_some()).count(), 2, "{seen:?}");
    let now = world.now;
    let refused = [(adas, "hers"), (world.device(DAN), "  "), (world.device(DAN), &"x".repeat(65))];
    for (device, name) in refused {
        assert!(world.nodes[DAN].device.rename_device(now, device, name).is_err(), "{name}");
    }
}

#[test]
fn a_note_uses_up_the_key_that_opens_it() {
    let mut world = World::office();
    let second = world.link(DAN);
    world.settle();
    let packages = |world: &World| {
        let references = world.nodes[second].device.key_packages.references();
        let rows = world.nodes[second].vault.rows(Table::KeyPackage, None).unwrap();
        assert_eq!(references, rows.into_iter().map(|(reference, _)| reference).collect::<Vec<_>>());
        references
    };
    let before = packages(&world);
    let (device, now) = (world.device(second), world.now);
    world.nodes[DAN].device.rename_device(now, device, "phone").unwrap();
    world.settle();
    let after = packages(&world);
    assert_eq!(before.iter().filter(|reference| !after.contains(reference)).count(), 1);
}

/// Everybody who may write into an inbox, and the relay, can take key packages and seal to them.
#[test]
fn a_note_is_believed_from_nobody_but_this_persons_own_devices() {
    let mut world = World::office();
    let (second, gone) = (world.link(DAN), world.link(DAN));
    world.settle();
    let dan = world.device(DAN);
    let profile = |world: &World, who: usize| world.nodes[who].device.profile().clone();
    let (thief, bob, other) = (profile(&world, gone), profile(&world, BOB), profile(&world, second));
    world.revoke(DAN, gone);
    world.settle();
    let body = Body::Names(vec![DeviceName { device: dan, name: "forged".to_owned(), at: world.now.plus_ms(1000) }]);
    let note = |from, to| Note { from, to, at: Timestamp(7), body: body.clone() };
    let claims = [
        // An attorney's, in their own name and in that of a device of Dan's; one by the relay; and one of a device that was revoked.
        note(bob.device, dan).sign(&bob.mls_key).unwrap(),
        note(other.device, dan).sign(&bob.mls_key).unwrap(),
        note(other.device, dan).sign(&SecretKey::generate()).unwrap(),
        note(thief.device, dan).sign(&thief.mls_key).unwrap(),
        // One that was for another device, passed on, and one in this device's own name.
        note(other.device, bob.device).sign(&other.mls_key).unwrap(),
        note(dan, dan).sign(&profile(&world, DAN).mls_key).unwrap(),
        // Signed for another purpose.
        Signed {
            signature: other.mls_key.sign(Label::Repair, b"x").unwrap(),
            ..note(other.device, dan).sign(&other.mls_key).unwrap()
        },
    ];
    for (count, claim) in claims.iter().enumerate() {
        let envelope = sealed(&mut world, claim, dan);
        world.relay.deliver(bob.device, dan, &envelope);
        world.settle();
        assert_eq!(problems(&world, DAN), count + 1, "{:?}", world.nodes[DAN].notices);
        assert_eq!(name(&world, DAN, DAN), None);
    }
    assert_eq!(world.nodes[DAN].vault.rows(Table::HeldNote, None).unwrap().len(), 0);
    // Garbage is no note, either, and the inbox goes on.
    let before = problems(&world, DAN);
    world.relay.deliver(bob.device, dan, &envelope::wrap(Class::Between, b"garbage").unwrap());
    let good = note(other.device, dan).sign(&other.mls_key).unwrap();
    let envelope = sealed(&mut world, &good, dan);
    world.relay.deliver(bob.device, dan, &envelope);
    world.settle();
    assert_eq!(problems(&world, DAN), before + 1);
    assert_eq!(name(&world, DAN, DAN).unwrap(), "forged", "it is who has signed that counts, not who has brought it");
    // The same once more is sealed to a key that is gone.
    world.relay.deliver(bob.device, dan, &envelope);
    world.settle();
    assert_eq!(problems(&world, DAN), before + 2);
}

/// The relay serves another's key packages in place of one's own device's, or altered ones.
#[test]
fn nothing_is_sealed_to_a_key_package_that_is_not_of_the_own_device() {
    let mut world = World::office();
    let second = world.link(DAN);
    world.settle();
    let (dan, bob, device) = (world.person(DAN), world.person(BOB), world.device(second));
    let inbox = world.nodes[second].device.profile().inbox;
    let before = world.relay.matter_entries(inbox);
    let lies: [fn(&mut world::Relay, PersonId, PersonId); 2] = [
        |relay, dan, bob| {
            relay.swap_packages.insert(dan, bob);
        },
        |relay, _, _| relay.spoil_packages = true,
    ];
    for (count, lie) in lies.into_iter().enumerate() {
        let mut world = world.fork();
        world.settle();
        lie(&mut world.relay, dan, bob);
        let now = world.now;
        if count == 0 {
            // Asked for one device alone, it shows Bob's under that device's id.
            world.relay.swap_device(device, world.nodes[BOB].device.profile().device);
        }
        world.nodes[DAN].device.rename_device(now, device, "phone").unwrap();
        world.run();
        assert_eq!(world.relay.matter_entries(inbox), before);
        assert_eq!(problems(&world, DAN), 1, "{:?}", world.nodes[DAN].notices);
        // The relay comes to its senses, and it goes out.
        world.relay.swap_packages.clear();
        world.relay.spoil_packages = false;
        world.relay.swap_back();
        world.settle_but(usize::MAX);
        assert_eq!(name(&world, second, second).unwrap(), "phone");
    }
}

/// A third device writes to the second, which has not heard of it yet.
#[test]
fn a_note_of_a_device_that_was_linked_just_now_waits_for_its_certificate() {
    let mut world = World::office();
    let (second, third) = (world.link(DAN), world.link(DAN));
    world.settle();
    let (dan, device, now) = (world.person(DAN), world.device(third), world.now);
    let forget = |world: &mut World| {
        let known = world.nodes[second].device.people.get_mut(&dan).unwrap();
        known.chain[0].certificates.retain(|signed| {
            let certificate: DeviceCertificate = signed.unverified("certificate").unwrap();
            certificate.device != device
        });
    };
    forget(&mut world);
    world.nodes[third].device.rename_device(now, device, "tablet").unwrap();
    world.run();
    assert_eq!((name(&world, second, third).unwrap().as_str(), problems(&world, second)), ("tablet", 0));
    // Where the relay goes on to know nothing of it, it is void, and nothing is left waiting.
    forget(&mut world);
    world.relay.linked.remove(&device);
    world.nodes[third].device.rename_device(now.plus_ms(5), device, "other").unwrap();
    world.run();
    assert_eq!((name(&world, second, third).unwrap().as_str(), problems(&world, second)), ("tablet", 1));
    assert_eq!(world.nodes[second].vault.rows(Table::HeldNote, None).unwrap().len(), 0);
}

#[test]
fn a_note_arrives_wherever_either_device_is_interrupted() {
    let mut seed = World::office();
    let second = seed.link(ADA);
    seed.settle();
    for crash in 1..14 {
        for victim in [ADA, second] {
            for lost in [false, true] {
                let mut world = seed.fork();
                world.settle();
                world.nodes[victim].crash_at = Some(world.nodes[victim].persists + crash);
                let id = world.invite_unfiled(ADA);
                world.relay.lose_reply = lost;
                world.settle();
                world.settle_but(usize::MAX);
                let asked = world.nodes[ADA].device.invites.contains_key(&id);
                let filed = world.relay.is_filed(id);
                if filed && world.told(ADA, |notice| *notice == Notice::InviteFiled) == 1 {
                    assert!(
                        asked && world.nodes[second].device.invites.contains_key(&id),
                        "{crash} of {victim}, {lost}"
                    );
                }
                assert!(world.nodes[ADA].device.notes.waiting.is_empty(), "{crash} of {victim}, {lost}");
                assert!(world.nodes[ADA].device.is_settled());
                assert_eq!(world.nodes[ADA].vault.rows(Table::Note, None).unwrap().len(), 0);
            }
        }
    }
}

#[test]
fn notes_wait_for_a_full_inbox_and_go_with_a_revoked_device() {
    let mut world = World::office();
    let second = world.link(DAN);
    world.settle();
    world.relay.refuse.push_back(Refused::Full { what: "that inbox".to_owned() });
    let (device, now) = (world.device(second), world.now);
    world.nodes[DAN].device.rename_device(now, device, "phone").unwrap();
    world.settle();
    assert_eq!(name(&world, second, second), None);
    world.settle_but(usize::MAX);
    assert_eq!(name(&world, second, second).unwrap(), "phone");
    world.disconnect(second);
    world.relay.refuse.push_back(Refused::Slow { after_ms: 10_000 });
    world.nodes[DAN].device.rename_device(now, device, "other phone").unwrap();
    world.run();
    world.revoke(DAN, second);
    world.settle_but(second);
    assert!(world.nodes[DAN].device.notes.waiting.is_empty());
}

/// A device lies in a drawer, and nobody has revoked it: its inbox is full, and stays so.
#[test]
fn a_dead_device_keeps_no_word_from_the_others() {
    let mut world = World::office();
    let (second, third) = (world.link(DAN), world.link(DAN));
    world.settle();
    world.disconnect(second);
    let (dead, living) = (world.device(second), world.device(third));
    world.relay.full = Some(dead);
    let call = |world: &mut World, count: usize| {
        world.now = world.now.plus_ms(1000);
        let (now, called) = (world.now, format!("phone {count}"));
        world.nodes[DAN].device.rename_device(now, living, &called).unwrap();
        world.run();
        assert_eq!(name(world, third, third).unwrap(), called, "told at once");
    };
    // What it was refused is posted as it is: each note takes one key package of it, however often it is tried.
    let left = |world: &World| world.relay.single_use[&dead].len();
    let before = left(&world);
    for count in 0..4 {
        call(&mut world, count);
    }
    let posts = world.relay.posts;
    for _ in 0..48 {
        world.now = world.now.plus_ms(1_800_000);
        let now = world.now;
        world.nodes[DAN].device.handle_time(now);
        world.run();
    }
    assert_eq!(left(&world), before - 4);
    assert!(world.relay.posts - posts <= 4 * 30, "{} tries", world.relay.posts - posts);
    for count in 0..limits::NOTES_PER_DEVICE + 8 {
        call(&mut world, count);
    }
    let waiting = |world: &World| {
        let waiting = &world.nodes[DAN].device.notes.waiting;
        assert!(waiting.values().all(|note| note.to == dead));
        waiting.len()
    };
    assert_eq!(waiting(&world), limits::NOTES_PER_DEVICE);
    assert_eq!(problems(&world, DAN), 0, "{:?}", world.nodes[DAN].notices);
    // It comes back, and hears the newest.
    world.relay.full = None;
    world.now = world.now.plus_ms(3_600_000);
    world.settle();
    world.settle_but(usize::MAX);
    assert_eq!(name(&world, second, third), name(&world, third, third));
    assert_eq!(waiting(&world), 0);
}

/// Anybody who may write into an inbox can seal to the package that the relay gives them, and the relay can give it twice.
#[test]
fn a_forged_note_does_not_use_up_the_key_that_a_true_one_needs() {
    let mut world = World::office();
    let second = world.link(DAN);
    world.settle();
    let (dan, bob) = (world.device(DAN), world.nodes[BOB].device.profile().clone());
    let other = world.nodes[second].device.profile().clone();
    let body = Body::Names(vec![DeviceName { device: dan, name: "mine".to_owned(), at: world.now }]);
    let note = Note { from: other.device, to: dan, at: world.now, body };
    let package = world.relay.take_package(dan);
    let mut envelopes = Vec::new();
    for key in [&bob.mls_key, &other.mls_key] {
        let sealed = seal_to(&package.0, NOTE_INFO, &between::pad(&note.sign(key).unwrap()).unwrap()).unwrap();
        let note = SealedNote {
            reference: Blob(sealed.reference),
            kem_output: Blob(sealed.kem_output),
            ciphertext: Blob(sealed.ciphertext),
        };
        envelopes.push(envelope::wrap(Class::Between, &cbor::encode(&Between::Note(note))).unwrap());
    }
    for envelope in &envelopes {
        world.relay.deliver(bob.device, dan, envelope);
        world.settle();
    }
    assert_eq!((name(&world, DAN, DAN).as_deref(), problems(&world, DAN)), (Some("mine"), 1));
}
