//! People enrolled anew: who may do it, whose word it takes, and what nobody can make of it.

use super::world::{ADA, BOB, CYN, DAN, World};
use super::*;
use crate::frame::Registration;
use crate::identity::{Endorsement, Issuer, Name};
use crate::ids::{DeviceId, MailboxId};
use crate::invite::Claim;
use crate::matter::{KeyPackages, LeafCredential, Me};

fn is_in(world: &mut World, who: usize, matter: MatterId, device: DeviceId) -> bool {
    let members = world.nodes[who].device.group(matter).unwrap().members();
    members.iter().any(|member| member.credential.device == device)
}

/// Keys under somebody's id, with a device that has a key package at the relay.
fn keys_for(world: &mut World, person: PersonId) -> (SecretKey, DeviceId, Signed) {
    let (person_key, link_key, mls_key) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
    let device = DeviceId::random();
    let said = DeviceCertificate {
        person,
        device,
        link_key: link_key.public().unwrap().digest(),
        mls_key: mls_key.public().unwrap(),
        made_at: world.now,
    };
    let certificate = Signed::make(Label::DeviceCertificate, &person_key, &said).unwrap();
    let me = Me { credential: LeafCredential { person, device, certificate: certificate.digest() }, key: mls_key };
    let (package, _, _) = crate::matter::key_package(&me, &KeyPackages::default(), false).unwrap();
    world.relay.single_use.insert(device, [Blob(package)].into());
    (person_key, device, certificate)
}

/// A device that says it is a registrar's, to itself: what a colleague's altered client would do.
fn claims_to_be_a_registrar(world: &mut World, who: usize, claims: bool) {
    world.nodes[who].device.profile.registrar = claims;
}

#[test]
fn nobody_enrols_anew_whom_they_do_not_vouch_for_and_is_told_who_does() {
    let mut world = World::office();
    world.look(CYN, DAN);
    let dan = world.person(DAN);
    let before = world.relay.chain_of(dan);
    let by = before[1].person;
    let label = world.nodes[CYN].device.people.get(&by).map(|known| known.label());
    let wanted = NewPersonInvite { replaces: Some(dan), ..NewPersonInvite::new(Role::Client) };
    let refused = world.nodes[CYN].device.invite(world.now, &wanted).unwrap_err().to_string();
    assert!(refused.contains("vouches for dan") && refused.contains("a registrar"), "{refused}");
    assert!(label.is_none_or(|label| refused.contains(&label)), "{refused}");
    // An invite that was made all the same is not endorsed.
    claims_to_be_a_registrar(&mut world, CYN, true);
    let invite = world.nodes[CYN].device.invite(world.now, &wanted).unwrap();
    world.run();
    claims_to_be_a_registrar(&mut world, CYN, false);
    world.use_anew(&invite, DAN, None);
    assert_eq!(world.told(CYN, |notice| matches!(notice, Notice::Suspicious { .. })), 1);
    assert_eq!(world.relay.chain_of(dan), before);
    // Whoever vouches for Dan may, and a registrar.
    world.look(ADA, DAN);
    for who in [BOB, ADA] {
        world.nodes[who].device.invite(world.now, &wanted).unwrap();
    }
}

/// Staff who is in no matter of Dan's made themselves an invite for him and joined with it: every device that managed the matter put Dan out
/// and the thief in, unasked. Here the relay helps, too.
#[test]
fn a_colleague_who_enrols_a_client_anew_is_let_in_nowhere_before_the_users_word() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let (dan, old) = (world.person(DAN), world.device(DAN));
    world.look(CYN, DAN);
    claims_to_be_a_registrar(&mut world, CYN, true);
    let thief = world.enrol_anew(CYN, DAN);
    world.settle();
    let told = |notice: &Notice| matches!(notice, Notice::IdentityChanged { person, .. } if *person == dan);
    assert_eq!(world.told(ADA, told), 1);
    assert!(world.nodes[ADA].device.awaits_word(dan));
    let device = world.device(thief);
    assert!(is_in(&mut world, ADA, matter, old) && !is_in(&mut world, ADA, matter, device));
    world.say(ADA, matter, "privileged");
    world.settle();
    assert!(world.nodes[thief].device.matter(matter).is_none());
    // Nor is he added under that key to anything else.
    let other = world.open(ADA);
    world.add(ADA, other, thief);
    world.settle();
    assert!(!is_in(&mut world, ADA, other, device));
    let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::Misuse(Misuse::IdentityChanged), .. } if *person == dan);
    assert_eq!(world.told(ADA, refused), 1);
    // The user's word is what it takes.
    assert!(world.nodes[ADA].device.trust_person(world.now, dan).unwrap());
    world.settle();
    assert!(!is_in(&mut world, ADA, matter, old) && is_in(&mut world, ADA, matter, device));
}

/// The same by somebody who may: whoever vouches for the new key has compared, and everybody else who manages a matter says so first.
#[test]
fn whoever_enrolled_somebody_anew_follows_at_once_and_others_once_their_user_says_so() {
    let mut world = World::office();
    let mine = world.matter(&[DAN]);
    let bobs = world.matter_by(BOB, &[DAN]);
    let (dan, old) = (world.person(DAN), world.device(DAN));
    world.disconnect(DAN);
    let again = world.enrol_anew(ADA, DAN);
    let device = world.device(again);
    world.settle_but(DAN);
    assert!(is_in(&mut world, ADA, mine, device) && !is_in(&mut world, ADA, mine, old));
    assert!(!is_in(&mut world, BOB, bobs, device) && is_in(&mut world, BOB, bobs, old));
    assert!(world.nodes[BOB].device.trust_person(world.now, dan).unwrap());
    world.settle_but(DAN);
    assert!(is_in(&mut world, BOB, bobs, device) && !is_in(&mut world, BOB, bobs, old));
    world.say(again, bobs, "new telephone");
    world.settle_but(DAN);
    assert_eq!(world.words(BOB, bobs), ["new telephone"]);
}

/// The relay's operator and an invited client: the client registered under Cyn's id, Bob (who has never met Cyn) vouched for "mal, client", and
/// Ada's device put Cyn out of the matter and the client in, as staff.
#[test]
fn nobody_is_endorsed_under_an_id_that_does_not_follow_from_their_key() {
    let mut world = World::office();
    let matter = world.matter(&[CYN]);
    let (cyn, old) = (world.person(CYN), world.device(CYN));
    assert!(world.nodes[BOB].device.person(cyn).is_none(), "Bob has never met Cyn");
    let wanted = NewPersonInvite { handle: Some("mal".to_owned()), ..NewPersonInvite::new(Role::Client) };
    let invite = world.nodes[BOB].device.invite(world.now, &wanted).unwrap();
    world.run();
    let statement = world.relay.invite_statement(invite.secret.id());
    let (person_key, device, certificate) = keys_for(&mut world, cyn);
    let claim = Claim {
        invite: invite.secret.id(),
        relay: invite.relay,
        person: cyn,
        device,
        person_key: person_key.public().unwrap().digest(),
        certificate: certificate.digest(),
        handle: "mal".to_owned(),
        statement: Some(statement.digest()),
    };
    let registration = Registration {
        invite: invite.secret.id(),
        token: invite.secret.token(),
        person: cyn,
        person_key: person_key.public().unwrap(),
        certificate,
        handle: "mal".to_owned(),
        role: Role::Client,
        name: invite.secret.seal_name(&Name::new("Mal").unwrap()).unwrap(),
        proof: invite.secret.prove(&claim),
        inbox: MailboxId::random(),
        organisation: None,
        revocations: Vec::new(),
    };
    let bob = world.person(BOB);
    world.disconnect(CYN);
    world.relay.register(&registration, Some(bob));
    world.run();
    assert_eq!(world.told(BOB, |notice| matches!(notice, Notice::Suspicious { handle, .. } if handle == "mal")), 1);
    assert!(world.nodes[BOB].device.person(cyn).is_none());
    world.settle_but(CYN);
    assert!(is_in(&mut world, ADA, matter, old) && !is_in(&mut world, ADA, matter, device));
}

/// Even where this person's own word is on the new key, and the user accepts it: nobody comes into another's place with another handle or role.
#[test]
fn a_matter_follows_nobody_whose_endorsement_has_another_handle_or_role() {
    for (handle, role) in [("mal", Role::Staff), ("cyn", Role::Client)] {
        let mut world = World::office();
        let matter = world.matter(&[CYN]);
        let (cyn, old) = (world.person(CYN), world.device(CYN));
        let (person_key, device, certificate) = keys_for(&mut world, cyn);
        let adas = world.nodes[ADA].device.profile.clone();
        let before: Endorsement = world.relay.chain_of(cyn)[0].endorsement.unverified("endorsement").unwrap();
        let said = Endorsement {
            person_key: person_key.public().unwrap().digest(),
            handle: handle.to_owned(),
            role,
            issuer: Some(Issuer { person: adas.person, device: adas.device }),
            from: world.now,
            ..before
        };
        let endorsement = Signed::make(Label::Endorsement, &adas.mls_key, &said).unwrap();
        let identity = Identity {
            person: cyn,
            person_key: person_key.public().unwrap(),
            certificates: vec![certificate],
            endorsement,
            line: Vec::new(),
        };
        world.disconnect(CYN);
        world.relay.forge(cyn, &identity, device);
        world.settle_but(CYN);
        let _ = world.nodes[ADA].device.trust_person(world.now, cyn);
        world.settle_but(CYN);
        assert!(is_in(&mut world, ADA, matter, old) && !is_in(&mut world, ADA, matter, device), "{handle}");
    }
}

/// A device was linked or a sheet used meanwhile, say. Ada believed in the new key as soon as she had signed for it, and accused the relay.
#[test]
fn an_enrolment_anew_that_the_relay_refuses_changes_nothing_at_the_inviter() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let dan = world.person(DAN);
    let before = world.nodes[DAN].device.own_key().unwrap().digest();
    world.relay.refuse_anew = true;
    world.register_anew_only(ADA, DAN, None);
    world.settle();
    world.again(ADA);
    world.look(ADA, DAN);
    assert_eq!(world.nodes[ADA].device.person(dan).unwrap().key(), Some(before));
    world.say(DAN, matter, "still me");
    world.settle();
    assert_eq!(faults(&world, ADA), Vec::<String>::new());
}

/// Neither does one whose endorsement never arrived.
#[test]
fn a_link_that_breaks_before_the_endorsement_accuses_no_relay() {
    let mut world = World::office();
    let _matter = world.matter(&[DAN]);
    let dan = world.person(DAN);
    world.relay.lose_endorsements = true;
    world.register_anew_only(ADA, DAN, None);
    let before = world.nodes[DAN].device.own_key().unwrap().digest();
    assert_eq!(world.nodes[ADA].device.person(dan).unwrap().key(), Some(before));
    world.relay.lose_endorsements = false;
    world.again(ADA);
    world.settle();
    assert_eq!(faults(&world, ADA), Vec::<String>::new());
    assert_ne!(world.nodes[ADA].device.person(dan).unwrap().key(), Some(before), "it arrived on the next link");
}

/// The relay took it, and its answer is lost: this device has signed, and needs nobody's word.
#[test]
fn whoever_endorsed_a_new_key_knows_it_though_the_answer_was_lost() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let dan = world.person(DAN);
    world.disconnect(DAN);
    world.relay.lose_answers = true;
    let again = world.enrol_anew(ADA, DAN);
    world.relay.lose_answers = false;
    world.again(ADA);
    world.settle_but(DAN);
    let device = world.device(again);
    assert_eq!(world.told(ADA, |notice| matches!(notice, Notice::IdentityChanged { person, .. } if *person == dan)), 0);
    assert!(is_in(&mut world, ADA, matter, device));
}

/// By the clock of whoever vouched before it is later than here, and what was said then was said after a withdrawal.
#[test]
fn an_endorsement_anew_is_later_than_the_one_before_and_names_the_withdrawal() {
    let mut world = World::office();
    world.look(ADA, DAN);
    let (dan, ahead) = (world.person(DAN), world.now.plus_ms(3_600_000));
    world.nodes[ADA].device.withdraw_endorsement(ahead, dan).unwrap();
    world.settle();
    world.nodes[ADA].device.endorse_again(ahead, dan).unwrap();
    world.settle();
    let before = world.relay.endorsement(dan);
    assert!(before.after.is_some() && before.from > world.now);
    world.register_anew_only(ADA, DAN, None);
    let now = world.relay.endorsement(dan);
    assert_ne!(now.person_key, before.person_key);
    assert!(now.from > before.from && now.after == before.after);
}

fn faults(world: &World, who: usize) -> Vec<String> {
    let view = world.nodes[who].device.log().expect("a checkpoint was taken");
    view.faults.iter().map(|fault| fault.what.clone()).collect()
}
