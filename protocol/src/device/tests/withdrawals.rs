//! Endorsements that are withdrawn: who may, what follows in matters, and what brings a person back.

use super::*;
use crate::device::state::Lapse;
use crate::error::PeerMisbehaved;
use crate::identity::{EndorsementRevocation, Issuer};

fn lapsed(world: &World, who: usize, matter: MatterId) -> Vec<PersonId> {
    world.nodes[who].device.lapses_in(matter).iter().map(|lapse: &Lapse| lapse.person).collect()
}

fn try_to_say(world: &mut World, who: usize, matter: MatterId, text: &str) -> Result<(), Error> {
    let (now, id) = (world.now, MessageId::random());
    let said = world.nodes[who].device.send_text(now, matter, id, text);
    world.run();
    said
}

fn recorded(world: &World, who: usize, matter: MatterId, what: &RecordBody) -> usize {
    world.records(who, matter).iter().filter(|record| record.what == *what).count()
}

#[test]
fn who_stays_is_asked_once_and_nobody_falls_out_when_an_endorsement_is_withdrawn() {
    let mut world = World::office();
    let (matter, bob) = (world.matter(&[BOB, CYN, DAN]), world.person(BOB));
    let epoch = world.nodes[ADA].device.matter(matter).unwrap().epoch;
    world.withdraw(ADA, BOB);
    for who in [ADA, CYN, DAN] {
        assert!(world.nodes[who].device.is_withdrawn(bob), "device {who} is told");
        assert_eq!(lapsed(&world, who, matter), [bob]);
        assert_eq!(recorded(&world, who, matter, &RecordBody::Withdrawn { person: bob }), 1);
        assert_eq!(people(&world, who, matter), 4);
        assert_eq!(try_to_say(&mut world, who, matter, "no"), Err(Misuse::Lapsed.into()));
    }
    assert!(!world.nodes[BOB].is_online(), "the relay serves him no more");
    // Across a crash it is asked still, and not told again.
    world.nodes[DAN].crash();
    world.settle();
    assert_eq!(try_to_say(&mut world, DAN, matter, "no"), Err(Misuse::Lapsed.into()));
    assert_eq!(recorded(&world, DAN, matter, &RecordBody::Withdrawn { person: bob }), 1);
    let now = world.now;
    world.nodes[DAN].device.go_on(now, matter).unwrap();
    try_to_say(&mut world, DAN, matter, "nevertheless").unwrap();
    world.nodes[DAN].crash();
    world.settle();
    try_to_say(&mut world, DAN, matter, "and again").unwrap();
    // Where he is put out nobody is asked any more.
    world.remove(ADA, matter, BOB);
    world.settle();
    assert_eq!((people(&world, ADA, matter), lapsed(&world, ADA, matter)), (3, Vec::new()));
    try_to_say(&mut world, ADA, matter, "without him").unwrap();
    try_to_say(&mut world, CYN, matter, "quite").unwrap();
    world.agree(matter, &[ADA, CYN, DAN], &["nevertheless", "and again", "without him", "quite"]);
    assert_eq!(world.nodes[ADA].device.matter(matter).unwrap().epoch, epoch + 1, "the removal, and nothing else");
}

/// A text that was typed before waits, like those that are typed after.
#[test]
fn what_was_unsent_when_it_was_told_waits_for_the_users_word() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.disconnect(DAN);
    try_to_say(&mut world, DAN, matter, "written on the train").unwrap();
    world.withdraw(ADA, BOB);
    world.settle();
    assert_eq!(world.words(ADA, matter), [""; 0]);
    assert_eq!(world.nodes[DAN].device.pending(matter).len(), 1);
    assert!(world.nodes[DAN].device.is_idle(), "it waits for nothing but a word");
    let now = world.now;
    world.nodes[DAN].device.go_on(now, matter).unwrap();
    world.run();
    assert_eq!(world.words(ADA, matter), ["written on the train"]);
}

#[test]
fn nobody_adds_whose_endorsement_was_withdrawn_until_they_are_endorsed_anew() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[]), world.person(DAN));
    let old = world.matter(&[DAN]);
    world.withdraw(ADA, DAN);
    // The relay forgets it for those who build.
    let said = world.relay.withdrawn.remove(&dan).unwrap();
    world.add(ADA, matter, DAN);
    world.settle();
    let refused = |notice: &Notice| matches!(notice, Notice::NotDone { person, why: Error::Refused(Refused::NotAllowed { .. }), .. } if *person == dan);
    assert_eq!(world.told(ADA, refused), 1, "{:?}", world.nodes[ADA].notices);
    assert_eq!(people(&world, ADA, matter), 1);
    world.relay.withdrawn.insert(dan, said);
    // Who gave it may not give it again: a registrar has withdrawn it. Nor does it come back by a renewal.
    let now = world.now;
    let refused = world.nodes[BOB].device.endorse_again(now, dan);
    assert!(matches!(refused, Err(Error::Refused(Refused::NotAllowed { .. }))), "{refused:?}");
    let before = world.relay.endorsement(dan);
    world.endorse_anew(BOB, DAN, |said| (said.from, said.until) = (now, now.plus_ms(1000)));
    world.now = now.plus_ms(900);
    world.again(BOB);
    world.again(ADA);
    assert_eq!(world.relay.endorsement(dan).until, now.plus_ms(1000), "nobody has renewed it");
    assert!(world.nodes[ADA].device.confirm_name(world.now, dan).is_err());
    assert!(before.after.is_none());
    // A registrar's new word makes him whole, everywhere.
    let now = world.now;
    world.nodes[ADA].device.endorse_again(now, dan).unwrap();
    world.nodes[DAN].replaced = false;
    world.settle();
    assert!(world.nodes[DAN].is_online() && world.nodes[DAN].device.is_ready());
    for who in [ADA, BOB, DAN] {
        assert!(!world.nodes[who].device.is_withdrawn(dan), "device {who}");
    }
    assert!(lapsed(&world, ADA, old).is_empty());
    try_to_say(&mut world, ADA, old, "welcome back").unwrap();
    world.settle();
    assert_eq!(world.words(DAN, old), ["welcome back"]);
    world.add(ADA, matter, DAN);
    world.settle();
    assert_eq!(people(&world, DAN, matter), 2);
    // It can be withdrawn once more.
    world.withdraw(ADA, DAN);
    assert!(world.nodes[BOB].device.is_withdrawn(dan) && lapsed(&world, ADA, old) == [dan]);
}

/// An attorney who leaves does not void their clients.
#[test]
fn those_whom_somebody_has_endorsed_stay_good_when_they_leave() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    world.withdraw(ADA, BOB);
    world.remove(ADA, matter, BOB);
    world.settle();
    let other = world.matter(&[DAN, EVE]);
    assert_eq!((people(&world, DAN, other), people(&world, EVE, other)), (3, 3));
    for (who, text) in [(ADA, "one"), (DAN, "two"), (EVE, "three")] {
        try_to_say(&mut world, who, other, text).unwrap();
    }
    world.agree(other, &[ADA, DAN, EVE], &["one", "two", "three"]);
    // And an attorney withdraws those whom they have endorsed.
    let mut world = World::office();
    let dan = world.person(DAN);
    world.withdraw(BOB, DAN);
    assert!([ADA, BOB, CYN].iter().all(|who| world.nodes[*who].device.is_withdrawn(dan)));
    let now = world.now;
    world.nodes[BOB].device.endorse_again(now, dan).unwrap();
    world.run();
    assert!([ADA, BOB, CYN].iter().all(|who| !world.nodes[*who].device.is_withdrawn(dan)));
}

#[test]
fn who_may_not_withdraw_is_refused_here_and_believed_by_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, DAN]);
    let (now, dan, ada, bob) = (world.now, world.person(DAN), world.person(ADA), world.person(BOB));
    for (by, whom) in [(CYN, dan), (DAN, bob), (BOB, ada), (BOB, bob), (ADA, ada)] {
        let refused = world.nodes[by].device.withdraw_endorsement(now, whom);
        assert!(matches!(refused, Err(Error::Refused(_))), "{by}: {refused:?}");
    }
    let profile = |who: usize| world.nodes[who].device.profile().clone();
    let (root, attorney, staff, client) = (profile(ADA), profile(BOB), profile(CYN), profile(DAN));
    let issuer = |profile: &Profile| Some(Issuer { person: profile.person, device: profile.device });
    let digest = |whom: PersonId| {
        let signed: Vec<_> = match world.relay.show(whom) {
            Reply::Chain { chain } => chain,
            other => panic!("{other:?}"),
        };
        signed[0].endorsement.digest()
    };
    let claim = |whom: PersonId, issuer, key: &SecretKey| {
        let said = EndorsementRevocation { person: whom, endorsement: digest(whom), issuer, at: now.plus_ms(1) };
        (whom, Signed::make(Label::EndorsementRevocation, key, &said).unwrap())
    };
    let claims = [
        claim(dan, None, &SecretKey::generate()),
        claim(dan, None, root.person_key.as_ref().unwrap()),
        claim(dan, issuer(&staff), &staff.mls_key),
        claim(dan, issuer(&client), &client.mls_key),
        claim(dan, issuer(&root), &attorney.mls_key),
        claim(bob, issuer(&client), &client.mls_key),
        // Of a registrar no device's word counts, whoever's it is.
        claim(ada, issuer(&root), &root.mls_key),
        claim(ada, issuer(&attorney), &attorney.mls_key),
        // Another label's signature.
        {
            let said = EndorsementRevocation { person: dan, endorsement: digest(dan), issuer: issuer(&root), at: now };
            (dan, Signed::make(Label::Endorsement, &root.mls_key, &said).unwrap())
        },
    ];
    for (whom, claim) in &claims {
        world.relay.withdraw(*whom, claim);
    }
    world.relay.withdrawn.clear();
    world.settle();
    let problems = world.told(CYN, |notice| matches!(notice, Notice::Problem(Error::PeerMisbehaved(_))));
    assert_eq!(problems, claims.len(), "{:?}", world.nodes[CYN].notices);
    assert!(lapsed(&world, ADA, matter).is_empty() && lapsed(&world, DAN, matter).is_empty());
    assert!([dan, ada, bob].iter().all(|person| !world.nodes[CYN].device.is_withdrawn(*person)));
    let role = |notice: &Notice| matches!(notice, Notice::Problem(Error::PeerMisbehaved(PeerMisbehaved::Role(_))));
    assert_eq!(world.told(CYN, role), 5, "{:?}", world.nodes[CYN].notices);
}

#[test]
fn a_restored_relay_that_has_forgotten_a_withdrawal_gets_it_again() {
    let mut world = World::office();
    let (bob, dan) = (world.person(BOB), world.person(DAN));
    world.look(ADA, EVE);
    let backup = world.relay.clone();
    world.withdraw(BOB, DAN);
    world.withdraw(ADA, EVE);
    world.restore(backup);
    assert!(world.relay.withdrawn.is_empty());
    world.settle();
    assert!(world.relay.withdrawn.contains_key(&dan) && world.relay.withdrawn.contains_key(&world.person(EVE)));
    assert!(!world.relay.withdrawn.contains_key(&bob));
}

/// Two statements and a restored relay: the later one counts, in whatever order they come.
#[test]
fn of_two_withdrawals_the_later_one_counts() {
    let mut world = World::office();
    let (matter, dan) = (world.matter(&[DAN]), world.person(DAN));
    world.withdraw(ADA, DAN);
    let now = world.now;
    world.nodes[ADA].device.endorse_again(now, dan).unwrap();
    world.run();
    world.withdraw(ADA, DAN);
    let told: Vec<_> = world.relay.told.iter().rev().cloned().collect();
    world.relay.told = told;
    let fresh = world.link(CYN);
    assert!(world.nodes[fresh].device.is_withdrawn(dan));
    let now = world.now;
    world.nodes[ADA].device.endorse_again(now, dan).unwrap();
    world.run();
    world.look(fresh, DAN);
    assert!(!world.nodes[fresh].device.is_withdrawn(dan) && lapsed(&world, ADA, matter).is_empty());
}
