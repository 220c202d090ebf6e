//! Newcomers whose inviter is away, taken in by somebody else after comparing numbers.

use super::*;
use crate::frame::{AdoptionView, Registration};
use crate::identity::SafetyNumber;
use crate::invite::{InviteSecret, InviteStatement};

/// A client of Bob's and an attorney of Ada's wait, while both inviters are away.
fn waiting() -> (World, usize, usize) {
    let mut world = World::office();
    let client = world.invite(BOB, "zoe", Role::Client);
    let attorney = world.invite(ADA, "yan", Role::Attorney);
    world.disconnect(BOB);
    world.disconnect(ADA);
    let (zoe, yan) = (world.enter(client), world.enter(attorney));
    (world, zoe, yan)
}

fn asks(world: &mut World, who: usize, whom: usize) {
    let (now, person) = (world.now, world.person(whom));
    world.nodes[who].device.ask_adoptable(now);
    world.run();
    assert!(world.nodes[who].device.adoptable().any(|(waits, ..)| waits == person));
    world.nodes[who].device.ask_adoption(now, person);
    world.run();
}

fn adopt(world: &mut World, by: usize, whom: usize, name: &str) -> Result<(), Error> {
    asks(world, by, whom);
    let (now, person) = (world.now, world.person(whom));
    let number = world.nodes[whom].device.firm_number().unwrap();
    let adopted = world.nodes[by].device.adopt(now, person, &number, name);
    world.run();
    adopted
}

#[test]
fn a_client_is_taken_in_by_another_attorney_and_everybody_sees_that_and_by_whom() {
    let mut world = World::office();
    let other = world.join(ADA, "max", Role::Attorney);
    let invited = world.invite(BOB, "zoe", Role::Client);
    world.disconnect(BOB);
    let zoe = world.enter(invited);
    assert!(!world.nodes[zoe].device.is_ready());
    adopt(&mut world, other, zoe, "Zoe Doe").unwrap();
    assert_eq!(world.told(other, |notice| matches!(notice, Notice::Adopted { outcome: Ok(()), .. })), 1);
    assert!(world.nodes[zoe].device.is_ready());
    assert!(world.nodes[zoe].device.firm_number().is_err(), "it has served");
    let matter = world.open(other);
    world.add(other, matter, zoe);
    world.add(other, matter, ADA);
    world.settle();
    world.say(zoe, matter, "hello");
    world.settle();
    let person = world.person(zoe);
    for who in [other, ADA] {
        assert_eq!(world.words(who, matter), ["hello"]);
        let known = world.nodes[who].device.person(person).unwrap();
        let said = &known.endorsements()[0];
        assert!(said.adopted && !known.self_stated, "device {who}");
        assert_eq!(said.issuer.unwrap().person, world.person(other));
        assert_eq!(known.name.as_ref().unwrap().name, "Zoe Doe", "as the adopter was told it");
    }
    assert!(world.nodes[other].device.person(person).unwrap().verified_at().is_some());
    assert!(world.nodes[ADA].device.person(person).unwrap().verified_at().is_none());
    // The inviter is back: there is nothing to do, and nothing to warn of.
    world.settle();
    assert_eq!(world.told(BOB, |notice| matches!(notice, Notice::Suspicious { .. } | Notice::Problem(_))), 0);
}

#[test]
fn staff_and_clients_take_in_nobody_and_attorneys_only_clients() {
    let (mut world, zoe, yan) = waiting();
    world.connect(BOB);
    world.nodes[BOB].device.forget_old_invites(Timestamp(u64::MAX));
    for (by, whom) in [(CYN, zoe), (DAN, zoe), (BOB, yan), (CYN, yan)] {
        let refused = adopt(&mut world, by, whom, "Anybody");
        assert!(matches!(refused, Err(Error::Refused(Refused::NotAllowed { .. }))), "{by} {whom}: {refused:?}");
    }
    assert!(!world.nodes[zoe].device.is_ready() && !world.nodes[yan].device.is_ready());
    // A registrar takes in anybody.
    world.connect(ADA);
    world.nodes[ADA].device.forget_old_invites(Timestamp(u64::MAX));
    adopt(&mut world, ADA, zoe, "Zoe").unwrap();
    assert!(world.nodes[zoe].device.is_ready());
}

#[test]
fn a_relay_that_puts_another_key_in_the_newcomers_place_shows_another_number() {
    let (mut world, zoe, _) = waiting();
    world.connect(BOB);
    world.relay.altered = Some(|registration: &mut Registration| {
        let key = SecretKey::generate();
        let mut certificate: DeviceCertificate = registration.certificate.unverified("certificate").unwrap();
        certificate.mls_key = SecretKey::generate().public().unwrap();
        registration.person_key = key.public().unwrap();
        registration.certificate = Signed::make(Label::DeviceCertificate, &key, &certificate).unwrap();
    });
    asks(&mut world, BOB, zoe);
    let (person, now) = (world.person(zoe), world.now);
    let (shown, theirs) =
        (world.nodes[BOB].device.adoption_number(person).unwrap(), world.nodes[zoe].device.firm_number().unwrap());
    assert_ne!(shown, theirs);
    let refused = world.nodes[BOB].device.adopt(now, person, &theirs, "Zoe");
    assert_eq!(refused, Err(PeerMisbehaved::WrongKey("the safety number").into()));
    assert!(world.nodes[BOB].device.person(person).is_none());
    // With the truth shown the same digits do.
    world.relay.altered = None;
    asks(&mut world, BOB, zoe);
    assert_eq!(world.nodes[BOB].device.adoption_number(person).unwrap(), theirs);
    let misread: SafetyNumber = format!("{:0>60}", 7).parse().unwrap();
    assert!(world.nodes[BOB].device.adopt(now, person, &misread, "Zoe").is_err());
    assert!(world.nodes[BOB].device.adopt(now, person, &theirs, " ").is_err(), "a name is told, too");
    world.nodes[BOB].device.adopt(now, person, &theirs, "Zoe").unwrap();
    world.run();
    assert!(world.nodes[zoe].device.is_ready());
}

/// What is wrong with what the relay shows, as whoever wants to take somebody in is told; nothing of it is endorsed.
fn refused(world: &mut World, by: usize, whom: usize) -> Error {
    let (now, person) = (world.now, world.person(whom));
    let theirs = world.nodes[whom].device.firm_number().unwrap();
    world.nodes[by].notices.clear();
    asks(world, by, whom);
    let why = world.nodes[by].notices.iter().find_map(|notice| match notice {
        Notice::Adoption { person: of, outcome: Err(why) } if *of == person => Some(why.clone()),
        _ => None,
    });
    assert!(why.is_none() || world.nodes[by].device.adoption().is_none());
    let adopted = world.nodes[by].device.adopt(now, person, &theirs, "Zoe");
    world.run();
    assert!(adopted.is_err() && !world.nodes[whom].device.is_ready(), "{adopted:?}");
    assert!(world.nodes[by].device.person(person).is_none(), "nothing is kept of them");
    why.unwrap_or_else(|| adopted.unwrap_err())
}

/// What the relay makes of what it shows of a newcomer.
type Shown = fn(&mut AdoptionView);

/// The role and the handle of an endorsement were once the relay's word.
#[test]
fn nobody_is_taken_in_in_another_role_or_under_another_handle_than_the_inviter_has_signed() {
    let (mut world, zoe, yan) = waiting();
    world.connect(ADA);
    world.nodes[ADA].device.forget_old_invites(Timestamp(u64::MAX));
    let deeds: [(Shown, Error); 6] = [
        (|view| view.registration.role = Role::Attorney, PeerMisbehaved::Mismatch("the newcomer's role").into()),
        (|view| view.registration.handle = "zoey".to_owned(), PeerMisbehaved::Mismatch("the newcomer's handle").into()),
        // The statement says what the relay likes.
        (
            |view| {
                let mut said: InviteStatement = view.statement.unverified("invite").unwrap();
                said.role = Role::Attorney;
                view.registration.role = Role::Attorney;
                view.statement.body = cbor::encode(&said);
            },
            PeerMisbehaved::Signature("invite").into(),
        ),
        // It is signed by a key of the relay's own, whom nobody has endorsed.
        (
            |view| {
                let mut said: InviteStatement = view.statement.unverified("invite").unwrap();
                (said.role, view.registration.role) = (Role::Attorney, Role::Attorney);
                view.statement = Signed::make(Label::Invite, &SecretKey::generate(), &said).unwrap();
            },
            PeerMisbehaved::Signature("invite").into(),
        ),
        // It is another invite's.
        (|view| view.registration.invite = InviteSecret::random().id(), PeerMisbehaved::Mismatch("the invite").into()),
        // Somebody else's registration.
        (
            |view| view.registration.person = PersonId::random(),
            PeerMisbehaved::Mismatch("the newcomer's registration").into(),
        ),
    ];
    for (number, (deed, why)) in deeds.into_iter().enumerate() {
        world.relay.altered_adoption = Some(deed);
        assert_eq!(refused(&mut world, ADA, zoe), why, "deed {number}");
        let faults = &world.nodes[ADA].device.log().unwrap().faults;
        assert!(faults.iter().any(|fault| fault.what.contains(&why.to_string())), "deed {number}: {faults:?}");
    }
    // Another invite that its inviter has signed for all the same, with the role in it that the relay wants: the digits differ.
    static YANS: std::sync::Mutex<Option<AdoptionView>> = std::sync::Mutex::new(None);
    *YANS.lock().unwrap() = Some(world.relay.adoption(world.person(yan)));
    world.relay.altered_adoption = Some(|view| {
        let yans = YANS.lock().unwrap().clone().unwrap();
        let registration = Registration {
            invite: yans.registration.invite,
            role: yans.registration.role,
            handle: yans.registration.handle.clone(),
            ..view.registration.clone()
        };
        *view = AdoptionView { registration, ..yans };
    });
    assert_eq!(refused(&mut world, ADA, zoe), PeerMisbehaved::WrongKey("the safety number").into());
    // The truth is believed, and says who has invited them.
    world.relay.altered_adoption = None;
    asks(&mut world, ADA, zoe);
    let adoption = world.nodes[ADA].device.adoption().unwrap();
    assert_eq!((adoption.handle(), adoption.role(), adoption.inviter), ("zoe", Role::Client, world.person(BOB)));
    adopt(&mut world, ADA, zoe, "Zoe").unwrap();
    assert!(world.nodes[zoe].device.is_ready());
}

#[test]
fn an_adoption_given_once_more_says_so_still() {
    let (mut world, zoe, _) = waiting();
    world.connect(BOB);
    world.nodes[BOB].device.forget_old_invites(Timestamp(u64::MAX));
    adopt(&mut world, BOB, zoe, "Zoe").unwrap();
    let person = world.person(zoe);
    let before = world.relay.endorsement(person);
    world.now = Timestamp(before.until.0 - 1000);
    world.again(BOB);
    world.settle();
    let after = world.relay.endorsement(person);
    assert!(after.from > before.from && after.adopted);
}
