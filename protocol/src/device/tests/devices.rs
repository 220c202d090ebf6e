//! Several devices of one person: linked, let into matters, revoked; and what a relay can't make of it.

use super::*;
use crate::device::linking::device_fingerprint;
use crate::frame::DeviceRegistration;
use crate::identity::{DeviceRevocation, Issuer};
use crate::invite::{InviteSecret, LinkPack};

fn added(world: &World, who: usize, matter: MatterId) -> Vec<DeviceId> {
    let added = world.records(who, matter).into_iter().filter_map(|record| match record.what {
        RecordBody::DeviceAdded { device, .. } => Some(device),
        _ => None,
    });
    added.collect()
}

fn removed(world: &World, who: usize, matter: MatterId) -> Vec<DeviceId> {
    let removed = world.records(who, matter).into_iter().filter_map(|record| match record.what {
        RecordBody::DeviceRemoved { device, .. } => Some(device),
        _ => None,
    });
    removed.collect()
}

/// Whether a device has a leaf in a matter, as another sees it.
fn is_in(world: &mut World, who: usize, matter: MatterId, whose: usize) -> bool {
    let device = world.device(whose);
    let members = world.nodes[who].device.group(matter).unwrap().members();
    members.iter().any(|member| member.credential.device == device)
}

/// Everybody's turn comes.
fn take_turns(world: &mut World) {
    world.settle_but(usize::MAX);
}

#[test]
fn both_devices_of_a_client_read_and_write_every_matter_of_theirs() {
    let mut world = World::office();
    let (one, other) = (world.matter(&[DAN]), world.matter(&[DAN, BOB]));
    world.say(ADA, one, "before");
    world.run();
    let second = world.link(DAN);
    assert_eq!(world.nodes[second].device.profile().name, world.nodes[DAN].device.profile().name);
    assert!(world.nodes[second].device.is_ready());
    assert!(world.nodes[DAN].device.profile().person_key.is_some());
    assert!(world.nodes[second].device.profile().person_key.is_none());
    assert!(world.nodes[DAN].device.untidy().is_empty());
    for matter in [one, other] {
        world.say(second, matter, "from the new one");
        world.run();
        world.say(DAN, matter, "from the old one");
        world.run();
        world.say(ADA, matter, "to both");
        world.settle();
        let texts = ["from the new one", "from the old one", "to both"];
        // What was said before the new device came is not there: history does not come along.
        assert_eq!(world.words(second, matter), texts);
        assert_eq!(added(&world, ADA, matter), [world.device(second)]);
        assert_eq!(people(&world, ADA, matter), if matter == one { 2 } else { 3 });
    }
    assert_eq!(world.words(ADA, one), ["before", "from the new one", "from the old one", "to both"]);
    world.agree(one, &[ADA, DAN], &["before", "from the new one", "from the old one", "to both"]);
    assert_eq!(world.told(second, |notice| matches!(notice, Notice::Problem(_))), 0);
}

#[test]
fn whoever_is_added_later_comes_with_every_device_and_sees_everybodys() {
    let mut world = World::office();
    let (second_ada, second_dan) = (world.link(ADA), world.link(DAN));
    let matter = world.matter(&[DAN]);
    world.settle();
    assert!(is_in(&mut world, ADA, matter, second_dan));
    assert!(is_in(&mut world, DAN, matter, second_ada));
    world.add(second_ada, matter, BOB);
    world.settle();
    world.say(BOB, matter, "hello all");
    world.settle();
    for who in [ADA, second_ada, DAN, second_dan, BOB] {
        assert_eq!(world.words(who, matter), ["hello all"], "device {who}");
    }
}

#[test]
fn a_new_device_is_certified_by_nobody_but_the_device_with_the_person_key() {
    let mut world = World::office();
    let second = world.link(DAN);
    let refused = world.nodes[second].device.link_invite(world.now);
    assert!(matches!(refused, Err(Error::Refused(Refused::NotAllowed { .. }))), "{refused:?}");
    // And what waits there without its user's word is linked by nobody.
    let third = world.waiting(DAN);
    world.settle();
    assert!(!world.nodes[third].device.is_ready());
    assert!(world.nodes[third].device.open_matter(world.now, "Mine").is_err());
    let shown = device_fingerprint(&world.nodes[third].device.profile().certificate.digest());
    let device = world.device(third);
    let waits = |notice: &Notice| *notice == Notice::DeviceWaits { device, fingerprint: shown };
    assert_eq!(world.told(DAN, waits), 1);
    let dan = world.person(DAN);
    let standing: Vec<Standing> = world.nodes[DAN].device.devices_of(dan).iter().map(|own| own.standing).collect();
    assert_eq!(standing.iter().filter(|standing| **standing == Standing::Waiting).count(), 1, "{standing:?}");
}

/// The relay puts keys of its own in the new device's place.
#[test]
fn a_relay_that_swaps_the_new_devices_keys_is_found_out_by_the_proof() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let second = world.waiting(DAN);
    let device = world.device(second);
    let row = world.relay.linked.get_mut(&device).unwrap();
    let mut certificate: DeviceCertificate = row.registration.certificate.unverified("certificate").unwrap();
    certificate.mls_key = SecretKey::generate().public().unwrap();
    row.registration.certificate.body = cbor::encode(&certificate);
    world.nodes[DAN].device.ask_waiting(world.now);
    world.run();
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::FalseDevice(_))), 1);
    assert!(world.nodes[DAN].device.certify(world.now, device).is_err());
    assert!(!is_in(&mut world, ADA, matter, second));
}

/// What is sealed and proved for one purpose is good for no other.
#[test]
fn an_invite_for_a_device_makes_no_person_and_one_for_a_person_no_device() {
    let mut world = World::office();
    let (invite, view) = world.link_invite(ADA);
    let organisation = Some(world.nodes[ADA].device.profile().organisation.clone());
    let relay = world.nodes[ADA].device.profile().relay.clone();
    let enrolment =
        Enrolment::new(invite.clone(), SecretKey::generate(), view, organisation.clone(), world.now).unwrap();
    assert!(enrolment.links());
    assert!(enrolment.enrol(world.now, relay.clone(), "Firm", "ada2", "Ada", Role::Attorney).is_err());
    // Whoever reads a person's invite, and a relay that helps them, get no device certified.
    let secret = InviteSecret::random();
    let own = OwnInvite {
        secret: secret.clone(),
        role: Role::Client,
        statement: Digest::of(&[b"statement"]),
        name: None,
        expires: world.now.plus_ms(1000),
        links: false,
        shared: false,
        replaces: None,
        relay: None,
        from: None,
        by: None,
    };
    world.nodes[ADA].device.invites.insert(secret.id(), own);
    let profile = world.nodes[ADA].device.profile().clone();
    let certificate = DeviceCertificate {
        person: profile.person,
        device: DeviceId::random(),
        link_key: Digest::of(&[b"link"]),
        mls_key: SecretKey::generate().public().unwrap(),
        made_at: world.now,
    };
    let certificate = Signed { body: cbor::encode(&certificate), signature: Vec::new() };
    let said: DeviceCertificate = certificate.unverified("certificate").unwrap();
    let claim = crate::invite::Claim {
        invite: secret.id(),
        relay: relay.fingerprint(),
        person: profile.person,
        device: said.device,
        person_key: world.nodes[ADA].device.own_person_key().unwrap(),
        certificate: certificate.digest(),
        handle: profile.handle.clone(),
        statement: Some(Digest::of(&[b"statement"])),
    };
    let registration = DeviceRegistration {
        invite: secret.id(),
        token: secret.token(),
        person: profile.person,
        certificate,
        proof: secret.prove(&claim),
        inbox: MailboxId::random(),
    };
    world.relay.register_device(&registration);
    world.run();
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::DeviceWaits { .. })), 0);
    assert!(world.nodes[ADA].device.certify(world.now, said.device).is_err());
}

#[test]
fn a_new_device_believes_no_certificate_but_its_own_persons_over_its_own_keys() {
    let mut world = World::office();
    let second = world.waiting(DAN);
    let own = world.nodes[second].device.profile().clone();
    let secret = own.linking.clone().unwrap();
    let pack = LinkPack { name: own.name.clone(), self_stated: false };
    let packed = |certificate: &Signed| Blob(secret.seal_pack(&certificate.digest(), &pack).unwrap());
    let body = own.certificate.body.clone();
    let signed = |key: &SecretKey, body: &[u8]| Signed {
        body: body.to_vec(),
        signature: key.sign(Label::DeviceCertificate, body).unwrap(),
    };
    let persons = world.nodes[DAN].device.profile().person_key.clone().unwrap();
    let mut other: DeviceCertificate = own.certificate.unverified("certificate").unwrap();
    other.mls_key = SecretKey::generate().public().unwrap();
    for certificate in
        [signed(&SecretKey::generate(), &body), own.certificate.clone(), signed(&persons, &cbor::encode(&other))]
    {
        let pack = packed(&certificate);
        world.nodes[second].device.certified_came(Reply::Certified { certificate, pack, chain: Vec::new() });
        assert!(!world.nodes[second].device.is_ready());
    }
    let certificate = signed(&persons, &body);
    let garbled = Blob(InviteSecret::random().seal_pack(&certificate.digest(), &pack).unwrap());
    world.nodes[second].device.certified_came(Reply::Certified {
        certificate: certificate.clone(),
        pack: garbled,
        chain: Vec::new(),
    });
    assert!(!world.nodes[second].device.is_ready());
    let pack = packed(&certificate);
    world.nodes[second].device.certified_came(Reply::Certified { certificate, pack, chain: Vec::new() });
    assert!(world.nodes[second].device.is_ready());
}

#[test]
fn linking_goes_on_wherever_the_new_or_the_old_device_is_interrupted() {
    let mut world = World::office();
    let matters = [world.matter(&[DAN]), world.matter(&[DAN])];
    let seed = world;
    for crash in 1..40 {
        for victim in [DAN, usize::MAX] {
            let mut world = seed.fork();
            world.settle();
            let second = world.waiting(DAN);
            let victim = if victim == usize::MAX { second } else { victim };
            world.nodes[victim].crash_at = Some(world.nodes[victim].persists + crash);
            let device = world.device(second);
            world.nodes[DAN].device.certify(world.now, device).unwrap();
            world.settle();
            if !world.nodes[second].device.is_ready() {
                // What was not sent before the crash its user asks for again.
                world.nodes[DAN].device.ask_waiting(world.now);
                world.run();
                world.nodes[DAN].device.certify(world.now, device).unwrap();
                world.settle();
            }
            take_turns(&mut world);
            for matter in matters {
                assert!(is_in(&mut world, ADA, matter, second), "crash {crash} of {victim}");
                world.say(second, matter, "here");
                world.settle();
                assert_eq!(world.words(ADA, matter), ["here"], "crash {crash} of {victim}");
            }
        }
    }
}

#[test]
fn a_revoked_device_with_all_its_keys_reads_nothing_later_and_is_let_in_no_more() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let second = world.link(DAN);
    world.say(second, matter, "while it was mine");
    world.settle();
    // The thief has the vault, as it was on that day.
    let stolen = world.nodes[second].vault.clone();
    world.revoke(DAN, second);
    take_turns(&mut world);
    assert!(world.nodes[DAN].device.untidy().is_empty());
    assert_eq!(removed(&world, ADA, matter), [world.device(second)]);
    assert_eq!(people(&world, ADA, matter), 2, "the person stays");
    let stands = world.nodes[ADA].device.matter(matter).unwrap().position;
    world.say(ADA, matter, "not for thieves");
    world.settle_but(second);
    let mut thief = Device::open(&stolen).unwrap();
    let entry = world.relay.entries(world.nodes[ADA].device.matter(matter).unwrap().mailbox).last().unwrap().clone();
    let EntryBody::Envelope(bytes) = &entry.body else { panic!("it has not expired") };
    let (_, payload) = crate::envelope::unwrap(&bytes.0).unwrap();
    assert!(thief.group(matter).unwrap().open(payload).is_err());
    assert!(entry.seq > stands.seq);
    world.connect(second);
    assert!(!world.nodes[second].is_online(), "it is admitted no more");
    // Nor is it taken into what comes next, should the relay serve its packages.
    let next = world.matter(&[DAN]);
    assert!(!is_in(&mut world, ADA, next, second));
}

/// The relay and the thief together can't have a revoked device taken in again.
#[test]
fn builders_take_no_key_package_of_a_revoked_device() {
    let mut world = World::office();
    let second = world.link(DAN);
    world.settle();
    world.revoke(DAN, second);
    let forgetful = world.relay.clone();
    let device = world.device(second);
    world.relay.forget_revocations();
    assert!(forgetful.is_revoked(device) && !world.relay.is_revoked(device));
    world.nodes[second].replaced = false;
    world.connect(second);
    world.run();
    let matter = world.matter(&[DAN]);
    take_turns(&mut world);
    assert!(is_in(&mut world, ADA, matter, DAN));
    assert!(!is_in(&mut world, ADA, matter, second));
    assert!(removed(&world, ADA, matter).is_empty(), "it never was in");
}

#[test]
fn a_relay_that_only_claims_a_revocation_moves_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, BOB]);
    let (person, device) = (world.person(DAN), world.device(DAN));
    let (bob, ada) = (world.nodes[BOB].device.profile().clone(), world.nodes[ADA].device.profile().clone());
    let signed = |key: &SecretKey, issuer| {
        let said = DeviceRevocation { person, device, issuer, at: Timestamp(7) };
        Signed::make(Label::DeviceRevocation, key, &said).unwrap()
    };
    let issuer = |profile: &Profile| Some(Issuer { person: profile.person, device: profile.device });
    let claims = [
        signed(&SecretKey::generate(), None),
        // By an attorney who is no registrar, by one who says to be another, and with somebody else's person key.
        signed(&bob.mls_key, issuer(&bob)),
        signed(&bob.mls_key, issuer(&ada)),
        signed(bob.person_key.as_ref().unwrap(), None),
    ];
    for claim in &claims {
        world.relay.revoke(person, DeviceId::random(), claim);
    }
    world.run();
    take_turns(&mut world);
    assert!(is_in(&mut world, ADA, matter, DAN));
    assert!(!world.nodes[ADA].device.is_revoked(device));
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::Problem(_))), claims.len());
    // A registrar's own word is another matter.
    world.revoke(ADA, DAN);
    assert!(world.nodes[BOB].device.is_revoked(device));
}

#[test]
fn a_restored_relay_that_has_forgotten_a_revocation_gets_it_again() {
    let mut world = World::office();
    let second = world.link(DAN);
    world.settle();
    let backup = world.relay.clone();
    world.revoke(DAN, second);
    world.revoke(ADA, EVE);
    world.settle();
    let devices = [world.device(second), world.device(EVE)];
    world.restore(backup);
    assert!(devices.iter().all(|device| !world.relay.is_revoked(*device)));
    world.settle();
    assert!(devices.iter().all(|device| world.relay.is_revoked(*device)));
}

#[test]
fn a_registrar_revokes_somebodys_only_device_and_the_person_is_out_of_every_matter() {
    let mut world = World::office();
    let matters = [world.matter(&[DAN]), world.matter(&[DAN, BOB])];
    world.revoke(ADA, DAN);
    world.settle();
    assert!(world.nodes[ADA].device.untidy().is_empty());
    for matter in matters {
        let out: Vec<RecordBody> = world.records(ADA, matter).into_iter().map(|record| record.what).collect();
        assert!(
            out.iter().any(|what| matches!(what, RecordBody::Removed { .. } | RecordBody::Requested { .. })),
            "{out:?}"
        );
        assert!(!is_in(&mut world, ADA, matter, DAN));
        assert!(!world.nodes[ADA].device.matter(matter).unwrap().people.contains(&world.person(DAN)));
    }
    let (cyn, device) = (world.person(CYN), world.device(CYN));
    let refused = world.nodes[BOB].device.revoke_device(world.now, cyn, device);
    assert!(matches!(refused, Err(Error::Refused(Refused::NotAllowed { .. }))));
}

#[test]
fn a_revocation_that_was_interrupted_is_carried_out_by_whoever_comes_next() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, BOB]);
    let second = world.link(DAN);
    world.settle();
    // Dan says so and is gone; the managers are offline.
    world.disconnect(ADA);
    world.disconnect(BOB);
    let (person, device) = (world.person(second), world.device(second));
    world.nodes[DAN].device.revoke_device(world.now, person, device).unwrap();
    world.drain(DAN);
    world.disconnect(DAN);
    world.connect(BOB);
    world.settle_but(DAN);
    world.run();
    assert!(!is_in(&mut world, BOB, matter, second));
    // Dan comes back: nothing is left to do.
    world.settle();
    take_turns(&mut world);
    world.say(DAN, matter, "still here");
    world.settle();
    assert!(world.words(BOB, matter).contains(&"still here".to_owned()));
    assert!(world.nodes[DAN].device.untidy().is_empty());
}

/// Registered, and the key replaced before anybody has said yes: the new device's proof is over the key that the invite's chain showed.
#[test]
fn a_device_that_registered_before_a_rotation_is_not_called_false() {
    let mut world = World::office();
    let second = world.waiting(DAN);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle();
    world.nodes[DAN].device.ask_waiting(world.now);
    world.settle();
    let device = world.device(second);
    world.nodes[DAN].device.certify(world.now, device).unwrap();
    assert_eq!(world.told(DAN, |notice| matches!(notice, Notice::FalseDevice(_))), 0);
    world.settle();
    world.again(second);
    assert!(world.nodes[second].device.profile().linking.is_none());
}

/// Certified, and the key replaced before the new device has asked: it never became whole, and held it against the relay.
#[test]
fn a_device_that_was_certified_just_before_a_rotation_becomes_whole() {
    let mut world = World::office();
    let second = world.waiting(DAN);
    world.disconnect(second);
    let device = world.device(second);
    world.nodes[DAN].device.certify(world.now, device).unwrap();
    world.run();
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.run();
    world.settle();
    world.again(second);
    assert_eq!(world.told(second, |notice| matches!(notice, Notice::Problem(_))), 0);
    assert!(world.nodes[second].device.profile().linking.is_none());
    assert_eq!(world.nodes[second].device.own_key().unwrap(), world.nodes[DAN].device.own_key().unwrap());
}
