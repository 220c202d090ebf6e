//! Person keys that are replaced: by a sheet, by their person, by being enrolled anew; and what matters make of it.

use super::*;
use crate::device::Recovering;
use crate::identity::{Replacement, Step, verify_chain};

fn members(world: &mut World, who: usize, matter: MatterId) -> Vec<DeviceId> {
    let members = world.nodes[who].device.group(matter).unwrap().members();
    members.iter().map(|member| member.credential.device).collect()
}

fn listed(world: &mut World, who: usize, matter: MatterId, whom: usize) -> Digest {
    let person = world.person(whom);
    let context = world.nodes[who].device.group(matter).unwrap().context().unwrap();
    context.participant(person).unwrap().person_key
}

fn own_key(world: &World, who: usize) -> Digest {
    world.nodes[who].device.own_person_key().unwrap()
}

/// An attorney alone with a client loses the only device, and begins again from paper: the client's device lets them back in.
#[test]
fn a_client_lets_their_attorney_back_in_who_began_again_from_a_sheet() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    world.say(ADA, matter, "before");
    world.run();
    let secret = world.sheet(ADA);
    let (before, old) = (own_key(&world, ADA), world.device(ADA));
    world.disconnect(ADA);
    let ada = world.restore_person(ADA, &secret);
    world.settle_but(ADA);
    assert!(world.nodes[ada].device.is_ready());
    assert_ne!(own_key(&world, ada), before);
    assert_eq!(listed(&mut world, DAN, matter, ADA), own_key(&world, ada));
    assert!(!members(&mut world, DAN, matter).contains(&old), "the lost device is out");
    world.say(ada, matter, "I am back");
    world.settle_but(ADA);
    world.say(DAN, matter, "welcome back");
    world.settle_but(ADA);
    assert_eq!(world.words(DAN, matter), ["before", "I am back", "welcome back"]);
    // History does not come back, and everybody is told of the new key.
    assert_eq!(world.words(ada, matter), ["I am back", "welcome back"]);
    let person = world.person(ADA);
    let told = |notice: &Notice| matches!(notice, Notice::IdentityChanged { person: of, .. } if *of == person);
    assert_eq!(world.told(DAN, told), 1);
    assert_eq!(world.told(ada, |notice| matches!(notice, Notice::Problem(_) | Notice::DoneInYourName(_))), 0);
}

/// Whoever was endorsed by a device that is gone is whole, and can be added by people who meet them only now.
#[test]
fn clients_of_somebody_who_began_again_stay_vouched_for() {
    let mut world = World::office();
    let secret = world.sheet(ADA);
    let fay = world.join(ADA, "fay", Role::Client);
    world.disconnect(ADA);
    let ada = world.restore_person(ADA, &secret);
    world.settle_but(ADA);
    let chain = world.relay.chain_of(world.person(fay));
    let organisation = world.nodes[BOB].device.profile().organisation.clone();
    assert_eq!(verify_chain(&chain, &organisation).unwrap().person, world.person(fay));
    let matter = world.matter_by(ada, &[fay, BOB]);
    world.say(fay, matter, "hello");
    world.settle_but(ADA);
    for who in [ada, BOB] {
        assert_eq!(world.words(who, matter), ["hello"], "device {who}");
    }
}

/// A rotation names every device: nobody leaves a matter, and nothing is committed for it.
#[test]
fn a_rotated_key_makes_nobody_leave_and_a_device_linked_later_comes_in_under_it() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, BOB]);
    let second = world.link(DAN);
    world.settle();
    let (before, epoch) = (own_key(&world, DAN), world.nodes[ADA].device.matter(matter).unwrap().epoch);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle();
    assert_eq!(world.told(DAN, |notice| *notice == Notice::KeyReplaced), 1);
    assert_eq!(world.told(second, |notice| *notice == Notice::OwnKeyReplaced { recovered: false }), 1);
    let now = own_key(&world, DAN);
    assert_ne!(now, before);
    assert_eq!(own_key(&world, second), now);
    assert!(world.nodes[second].device.profile().person_key.is_none());
    assert_eq!(
        world.nodes[ADA].device.matter(matter).unwrap().epoch,
        epoch + 1,
        "one Commit for it, with nobody in or out"
    );
    assert_eq!(listed(&mut world, ADA, matter, DAN), now);
    for who in [DAN, second] {
        world.say(who, matter, "under the new key");
        world.settle();
    }
    let third = world.link(DAN);
    world.settle();
    assert_eq!(listed(&mut world, ADA, matter, DAN), now, "the list follows with the device");
    world.say(third, matter, "from the third");
    world.settle();
    for who in [ADA, BOB, DAN, second] {
        assert_eq!(world.words(who, matter).last().unwrap(), "from the third", "device {who}");
        assert_eq!(stage(&world, who, matter), Stage::Open);
    }
    // The next matter lists the new key from the start.
    let other = world.matter_by(ADA, &[DAN]);
    assert_eq!(listed(&mut world, ADA, other, DAN), now);
    world.say(third, other, "here too");
    world.settle();
    assert_eq!(world.words(ADA, other), ["here too"]);
}

#[test]
fn a_rotation_goes_on_after_a_crash_or_a_lost_answer() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let before = own_key(&world, DAN);
    world.disconnect(DAN);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.drain(DAN);
    world.nodes[DAN].crash();
    world.settle();
    assert_ne!(own_key(&world, DAN), before);
    assert!(world.nodes[DAN].device.profile().replacing.is_none());
    world.say(DAN, matter, "goes on");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["goes on"]);
}

/// Whom somebody has verified is not followed under another key before they have accepted it; then the matter follows.
#[test]
fn a_verified_person_who_began_again_waits_for_the_users_word() {
    let mut world = World::office();
    let matter = world.matter(&[BOB]);
    let bob = world.person(BOB);
    let secret = world.sheet(BOB);
    let number = world.nodes[ADA].device.safety_number(bob).unwrap();
    world.nodes[ADA].device.verify_person(world.now, bob, &number).unwrap();
    world.disconnect(BOB);
    let again = world.restore_person(BOB, &secret);
    assert!(world.nodes[again].device.matter(matter).is_none(), "nobody else is there to let him in");
    let refused = world.nodes[ADA].device.send_text(world.now, matter, MessageId::random(), "no");
    assert_eq!(refused, Err(Error::Misuse(Misuse::IdentityChanged)));
    // The lost device is put out in any case.
    world.settle_but(BOB);
    let lost = world.device(BOB);
    assert!(!members(&mut world, ADA, matter).contains(&lost));
    assert!(world.nodes[again].device.matter(matter).is_none());
    assert!(world.nodes[ADA].device.trust_person(world.now, bob).unwrap());
    world.settle_but(BOB);
    world.say(again, matter, "it is me");
    world.settle_but(BOB);
    assert_eq!(world.words(ADA, matter), ["it is me"]);
}

/// Enrolled anew, nothing leads from the old key to the new one: whoever manages the matter takes the person out and in.
#[test]
fn somebody_enrolled_anew_comes_back_under_their_handle_and_the_lost_device_is_out() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, BOB]);
    let (dan, old) = (world.person(DAN), world.device(DAN));
    world.disconnect(DAN);
    let again = world.enrol_anew(ADA, DAN);
    world.settle_but(DAN);
    assert_eq!(world.person(again), dan);
    assert!(world.nodes[again].device.is_ready());
    assert!(!members(&mut world, BOB, matter).contains(&old));
    assert_eq!(listed(&mut world, BOB, matter, DAN), own_key(&world, again));
    world.say(again, matter, "new telephone");
    world.settle_but(DAN);
    for who in [ADA, BOB] {
        assert_eq!(world.words(who, matter), ["new telephone"]);
    }
    let told = |notice: &Notice| matches!(notice, Notice::IdentityChanged { person, .. } if *person == dan);
    assert_eq!((world.told(BOB, told), world.told(ADA, told)), (1, 0), "whoever vouches knows");
    assert_eq!(world.told(again, |notice| matches!(notice, Notice::Problem(_) | Notice::DoneInYourName(_))), 0);
}

fn named(world: &World, who: usize, whom: PersonId) -> (Option<String>, bool) {
    let known = world.nodes[who].device.person(whom).unwrap();
    (known.name.as_ref().map(|name| name.name.clone()), known.is_named())
}

/// The name went with the key: after a new enrolment everybody who had accepted it saw a bare handle.
#[test]
fn the_name_of_somebody_enrolled_anew_stays_known() {
    let mut world = World::office();
    let (shared, dan) = (world.matter_by(BOB, &[DAN, ADA]), world.person(DAN));
    // Cyn knows him from a matter that he is in no more.
    let over = world.matter_by(BOB, &[DAN, CYN]);
    world.nodes[BOB].device.remove(world.now, over, dan, "dan").unwrap();
    world.settle();
    let before = named(&world, ADA, dan);
    assert!(before.1);
    assert_eq!(named(&world, CYN, dan), before);
    world.disconnect(DAN);
    let again = world.enrol_anew(BOB, DAN);
    world.settle_but(DAN);
    for who in [ADA, CYN] {
        world.nodes[who].device.ask_identity(world.now, dan);
        world.settle_but(DAN);
        assert!(world.nodes[who].device.trust_person(world.now, dan).unwrap());
        assert_eq!(named(&world, who, dan), before, "device {who}");
        assert_eq!(world.nodes[who].device.person(dan).unwrap().key(), Some(own_key(&world, again)));
    }
    assert_eq!(named(&world, BOB, dan), before);
    assert_eq!(named(&world, again, world.person(BOB)), named(&world, ADA, world.person(BOB)));
    assert_eq!(listed(&mut world, ADA, shared, DAN), own_key(&world, again));
}

#[test]
fn another_name_under_a_new_key_is_told_with_it_and_until_then_the_one_before_is_shown() {
    let mut world = World::office();
    let (_shared, dan) = (world.matter_by(BOB, &[DAN, EVE]), world.person(DAN));
    let over = world.matter_by(BOB, &[DAN, CYN]);
    world.nodes[BOB].device.remove(world.now, over, dan, "dan").unwrap();
    world.settle();
    let before = named(&world, CYN, dan).0;
    world.disconnect(DAN);
    let again = world.enrol_anew_as(BOB, DAN, Some("Daniel Roe"));
    world.settle_but(DAN);
    for who in [EVE, CYN] {
        world.nodes[who].device.ask_identity(world.now, dan);
        world.settle_but(DAN);
        assert!(world.nodes[who].device.trust_person(world.now, dan).unwrap());
    }
    assert_eq!(named(&world, EVE, dan), (Some("Daniel Roe".to_owned()), true));
    assert_eq!(named(&world, CYN, dan), (before, false));
    assert!(world.nodes[CYN].device.person(dan).unwrap().self_stated);
    // What does not fit is stated by nobody.
    let refused = world.nodes[CYN].device.confirm_name(world.now, dan);
    assert!(refused.is_err(), "{refused:?}");
    // Who meets them in a matter is told.
    let matter = world.matter_by(BOB, &[again, CYN]);
    assert_eq!(named(&world, CYN, dan), (Some("Daniel Roe".to_owned()), true));
    assert!(world.nodes[CYN].device.matter(matter).is_some());
}

/// The relay's operator makes up a key for somebody and has no statement that leads to it.
#[test]
fn a_new_key_without_statements_or_endorsement_is_believed_by_nobody() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let key = SecretKey::generate();
    let chain = world.relay.chain_of(world.person(DAN));
    let organisation = world.nodes[ADA].device.profile().organisation.clone();
    let false_step = |by: &SecretKey, change: fn(&mut Replacement)| {
        let (person, first) = (chain[0].person, &chain[0]);
        let mut said = Replacement::new(person, &first.person_key, &key, Vec::new(), world.now).unwrap();
        change(&mut said);
        let statement = Signed::make(Label::Replacement, by, &said).unwrap();
        let step = Step { key: first.person_key.clone(), statement, recovery: None };
        let forged =
            Identity { person_key: key.public().unwrap(), certificates: Vec::new(), line: vec![step], ..first.clone() };
        let forged: Vec<Identity> = std::iter::once(forged).chain(chain[1..].iter().cloned()).collect();
        verify_chain(&forged, &organisation)
    };
    assert!(false_step(&key, |_| ()).is_err(), "signed by the new key alone");
    assert!(false_step(&SecretKey::generate(), |_| ()).is_err());
    let dans = world.nodes[DAN].device.profile().person_key.clone().unwrap();
    assert!(false_step(&dans, |_| ()).is_ok(), "signed by the key before");
    assert!(false_step(&dans, |said| said.person = PersonId::random()).is_err());
    assert!(false_step(&dans, |said| said.from = said.to).is_err());
    let unsorted = |said: &mut Replacement| {
        let (one, other) = (said.to.max(said.from), said.to.min(said.from));
        said.stays = vec![one, other];
    };
    assert!(false_step(&dans, unsorted).is_err());
    world.say(DAN, matter, "still me");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["still me"]);
}

#[test]
fn a_sheet_restores_nobody_whom_the_relay_puts_in_its_persons_place() {
    let mut world = World::office();
    let (secret, other) = (world.sheet(BOB), world.sheet(ADA));
    let organisation = world.relay.organisation_key();
    let view = world.recovery_view(BOB);
    assert!(Recovering::new(secret.clone(), view.clone(), organisation.clone()).is_ok());
    let adas = world.recovery_view(ADA);
    let lies = [
        crate::frame::RecoveryView { chain: adas.chain.clone(), ..view.clone() },
        crate::frame::RecoveryView { statement: adas.statement.clone(), ..view.clone() },
        crate::frame::RecoveryView { note: adas.note.clone(), ..view.clone() },
        adas,
    ];
    for lie in lies {
        assert!(Recovering::new(secret.clone(), lie, organisation.clone()).is_err());
    }
    assert!(Recovering::new(other, view.clone(), organisation).is_err());
    let stranger = SecretKey::generate().public().unwrap();
    assert!(Recovering::new(secret.clone(), view.clone(), Some(stranger)).is_err());
    assert!(Recovering::new(secret, view, None).is_err());
}

/// The statements are needed only until whoever endorsed the person is online: then the new key has an endorsement of its own.
#[test]
fn whoever_endorsed_somebody_does_it_again_for_the_key_that_followed() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let dan = world.person(DAN);
    world.disconnect(BOB);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle_but(BOB);
    world.again(BOB);
    world.settle();
    assert_eq!(world.relay.endorsement(dan).person_key, own_key(&world, DAN));
    assert_eq!(world.told(BOB, |notice| matches!(notice, Notice::Problem(_))), 0);
    world.say(DAN, matter, "endorsed again");
    world.settle();
    assert_eq!(world.words(ADA, matter), ["endorsed again"]);
}

fn accused(world: &World, who: usize) -> Vec<Notice> {
    let faults = |notice: &&Notice| {
        matches!(notice, Notice::Log { .. } | Notice::Problem(_) | Notice::Lapsed { .. } | Notice::DoneInYourName(_))
    };
    world.nodes[who].notices.iter().filter(faults).cloned().collect()
}

/// Bob was away, and Fay comes only now: both and all others talk to Dan on a device of his, and have nothing to tell of the relay.
fn accuses_nobody(world: &mut World, matter: MatterId, dan: usize) -> usize {
    world.connect(BOB);
    world.settle_but(DAN);
    let fay = world.join(ADA, "fay", Role::Staff);
    world.add(ADA, matter, fay);
    world.settle_but(DAN);
    for who in [fay, BOB, dan, ADA] {
        world.say(who, matter, "goes on");
        world.settle_but(DAN);
    }
    for who in [ADA, BOB, dan, fay] {
        assert_eq!(accused(world, who), [], "device {who}");
        assert_eq!(world.words(who, matter).len(), 4, "device {who}");
    }
    fay
}

/// A device is revoked by the key of then; whoever hears of it only under a later key finds nothing kept back.
#[test]
fn what_an_earlier_key_has_revoked_is_no_fault_of_the_relays_after_the_key_is_replaced() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, BOB]);
    let second = world.link(DAN);
    world.settle();
    world.disconnect(BOB);
    world.revoke(DAN, second);
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle_but(BOB);
    let secret = world.sheet(DAN);
    world.disconnect(DAN);
    let dan = world.restore_person(DAN, &secret);
    world.settle_but(DAN);
    world.nodes[dan].device.replace_key(world.now).unwrap();
    world.settle_but(DAN);
    let fay = accuses_nobody(&mut world, matter, dan);
    assert!(!members(&mut world, fay, matter).contains(&world.device(second)));
}

/// The same where nobody but a colleague vouches for the key that came after.
#[test]
fn what_was_revoked_before_somebody_was_enrolled_anew_is_no_fault_of_the_relays() {
    let mut world = World::office();
    let matter = world.matter(&[DAN, BOB]);
    let second = world.link(DAN);
    world.settle();
    world.disconnect(BOB);
    world.revoke(DAN, second);
    world.settle_but(BOB);
    world.disconnect(DAN);
    let dan = world.enrol_anew(ADA, DAN);
    world.settle_but(DAN);
    accuses_nobody(&mut world, matter, dan);
}

/// A key that was replaced because it may be known to others revokes nothing any more, whatever identity the relay shows beside it.
#[test]
fn a_key_that_was_replaced_revokes_no_device() {
    for show in ["as it is", "as it was", "without its devices"] {
        let mut world = World::office();
        let matter = world.matter(&[DAN, BOB]);
        let stolen = world.nodes[DAN].device.profile().person_key.clone().unwrap();
        let (person, device) = (world.person(DAN), world.device(DAN));
        let before = world.relay.chain_of(person);
        world.nodes[DAN].device.replace_key(world.now).unwrap();
        world.settle();
        let mut chain = if show == "as it was" { before } else { world.relay.chain_of(person) };
        if show == "without its devices" {
            chain[0].certificates.clear();
        }
        let said = DeviceRevocation { person, device, issuer: None, at: world.now };
        let statement = Signed::make(Label::DeviceRevocation, &stolen, &said).unwrap();
        world.nodes[ADA].device.take_statements(vec![statement], Vec::new(), &chain);
        assert!(!world.nodes[ADA].device.is_revoked(device), "{show}");
        world.settle_but(CYN);
        assert!(members(&mut world, ADA, matter).contains(&device), "{show}");
    }
}

/// Whoever meets somebody under an old key believes what it says; once they know the next one, of what stays no more.
#[test]
fn what_a_key_said_that_turns_out_to_be_over_is_forgotten() {
    let mut world = World::office();
    let stolen = world.nodes[DAN].device.profile().person_key.clone().unwrap();
    let (person, device) = (world.person(DAN), world.device(DAN));
    let before = world.relay.chain_of(person);
    let said = DeviceRevocation { person, device, issuer: None, at: world.now };
    let statement = Signed::make(Label::DeviceRevocation, &stolen, &said).unwrap();
    world.nodes[DAN].device.replace_key(world.now).unwrap();
    world.settle();
    world.nodes[EVE].device.people.remove(&person);
    world.nodes[EVE].device.take_statements(vec![statement], Vec::new(), &before);
    assert!(world.nodes[EVE].device.is_revoked(device));
    let verified = verify_chain(&before, &world.nodes[EVE].device.profile().organisation.clone()).unwrap();
    world.nodes[EVE].device.meet(&verified, &before, None).unwrap();
    world.nodes[EVE].device.ask_identity(world.now, person);
    world.settle();
    assert!(!world.nodes[EVE].device.is_revoked(device));
}

/// Whoever waits for a colleague's word is online meanwhile: answers cross, and what came before their key is none of their business.
#[test]
fn what_the_log_says_of_oneself_may_be_asked_twice_at_once() {
    let mut world = World::office();
    world.matter(&[DAN, BOB]);
    world.disconnect(DAN);
    let dan = world.enrol_anew(ADA, DAN);
    world.settle_but(DAN);
    let watch = &mut world.nodes[dan].device.watch;
    watch.statements_asked.clear();
    let view = watch.view.as_mut().unwrap();
    (view.read, view.begun) = (None, false);
    for _ in 0..2 {
        world.nodes[dan].device.read_own_history();
    }
    let now = world.now;
    world.nodes[dan].device.handle_time(now);
    world.settle_but(DAN);
    assert_eq!(accused(&world, dan), []);
    assert!(world.nodes[dan].device.log().unwrap().read.is_some(), "it was read");
}

/// The relay is restored from a backup that was made before somebody replaced their key.
#[test]
fn a_restored_relay_learns_again_which_key_somebody_has() {
    let mut world = World::office();
    let matter = world.matter(&[DAN]);
    let backup = world.relay.clone();
    for _ in 0..2 {
        world.nodes[DAN].device.replace_key(world.now).unwrap();
        world.settle();
    }
    let now = own_key(&world, DAN);
    world.restore(backup);
    world.settle();
    world.settle_but(CYN);
    assert_eq!(own_key(&world, DAN), now);
    assert_eq!(world.relay.chain_of(world.person(DAN))[0].person_key.digest(), now);
    let second = world.link(DAN);
    world.settle_but(CYN);
    assert!(world.nodes[second].device.profile().linking.is_none(), "the relay takes what the new key certifies");
    world.say(DAN, matter, "here");
    world.settle_but(CYN);
    assert_eq!(world.words(ADA, matter), ["here"]);
    for who in [ADA, DAN, second] {
        assert_eq!(accused(&world, who), [], "device {who}");
    }
}

/// A colleague began again and replaced his key, and was withdrawn and taken back meanwhile: a founder who began again herself took the
/// relay for a liar, for what had been said under keys that are over did not verify any more.
#[test]
fn what_was_said_under_keys_that_are_over_is_good_for_whoever_begins_again() {
    let mut world = World::office();
    let (_matter, bob) = (world.matter(&[BOB]), world.person(BOB));
    let (adas, bobs) = (world.sheet(ADA), world.sheet(BOB));
    world.disconnect(BOB);
    let again = world.restore_person(BOB, &bobs);
    world.settle_but(BOB);
    world.nodes[again].device.replace_key(world.now).unwrap();
    world.settle_but(BOB);
    world.nodes[ADA].device.trust_person(world.now, bob).unwrap();
    world.settle_but(BOB);
    world.nodes[ADA].device.withdraw_endorsement(world.now, bob).unwrap();
    world.settle_but(BOB);
    world.nodes[ADA].device.endorse_again(world.now, bob).unwrap();
    world.settle_but(BOB);
    for gone in [ADA, BOB] {
        world.disconnect(gone);
    }
    let ada = world.restore_person(ADA, &adas);
    world.settle_but(ADA);
    let wrong = |notice: &Notice| matches!(notice, Notice::Problem(_) | Notice::Log { .. });
    assert_eq!(
        world.told(ada, wrong),
        0,
        "{:?}",
        world.nodes[ada].notices.iter().filter(|notice| wrong(notice)).collect::<Vec<_>>()
    );
    assert!(!world.nodes[ada].device.is_withdrawn(bob));
}

/// With nobody to put out every member took it for their own turn, and a key package of the new device each.
#[test]
fn one_member_takes_a_key_package_for_somebody_who_began_again() {
    let mut world = World::office();
    let matter = world.matter(&[BOB, CYN, DAN, EVE]);
    let secret = world.sheet(ADA);
    world.disconnect(ADA);
    let ada = world.restore_person(ADA, &secret);
    let device = world.device(ada);
    let mut least = usize::MAX;
    for _ in 0..60 {
        world.run();
        least = least.min(world.relay.single_use.get(&device).map_or(0, |packages| packages.len()));
        let devices = [BOB, CYN, DAN, EVE, ada];
        let next = devices.iter().filter_map(|index| Some((world.nodes[*index].device.deadline()?, *index))).min();
        let Some((at, index)) = next.filter(|(at, _)| *at < world.now.plus_ms(30_000)) else { break };
        world.now = at.max(world.now);
        world.nodes[index].device.handle_time(at);
    }
    assert_eq!(listed(&mut world, BOB, matter, ADA), own_key(&world, ada));
    assert_eq!(least, limits::KEY_PACKAGES - 1, "one was taken");
}

/// The request or its answer is lost: the sheet is on paper, the one before may be void already, and the vault knew nothing of either.
#[test]
fn a_sheet_is_filed_until_the_relay_has_answered_and_no_key_is_replaced_meanwhile() {
    let mut world = World::office();
    let secret = world.nodes[ADA].device.new_sheet().unwrap();
    world.disconnect(ADA);
    world.nodes[ADA].device.file_sheet(world.now, &secret).unwrap();
    assert!(world.nodes[ADA].device.replace_key(world.now).is_err());
    world.drain(ADA);
    world.nodes[ADA].crash();
    world.settle();
    assert_eq!(world.told(ADA, |notice| *notice == Notice::SheetFiled), 1);
    world.nodes[ADA].device.replace_key(world.now).unwrap();
    world.settle();
    let ada = world.restore_person(ADA, &secret);
    assert!(world.nodes[ada].device.is_ready());
}
