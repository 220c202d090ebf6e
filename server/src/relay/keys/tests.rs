//! Replaced keys at the relay, with real keys and signatures.

use privity_protocol::frame::{Blob, NewInvite, Part, Request, Rights};
use privity_protocol::identity::{Replacement, Role};
use privity_protocol::invite::{InviteSecret, InviteStatement};
use privity_protocol::recovery::{RecoverySecret, SheetKind};
use privity_protocol::suite::SecretKey;

use super::super::world::{Human, World, append};
use super::*;
use crate::relay::From;
use crate::relay::people::chain;
use crate::store::Store as _;

fn recovery_key(of: &Human, secret: &RecoverySecret, signer: &SecretKey) -> Signed {
    let key = secret.key().unwrap().public().unwrap();
    let said = RecoveryKey { person: of.caller.person, key, made_at: Timestamp(1) };
    Signed::make(Label::RecoveryKey, signer, &said).unwrap()
}

fn file(world: &mut World, of: &Human, secret: &RecoverySecret) -> Result<Reply, Refused> {
    let statement = recovery_key(of, secret, &of.person_key);
    let filing = RecoveryFiling { token_hash: secret.token_hash(), statement, note: Blob(vec![1; 100]) };
    world.ask(of.caller, &Request::SetRecovery(Box::new(filing)))
}

/// The same person with another key and another device.
fn again(of: &Human) -> Human {
    let mut again = Human::new(&of.handle);
    again.caller.person = of.caller.person;
    again
}

fn replacement(of: &Human, to: &SecretKey, stays: &[&Signed]) -> Replacement {
    let stays = stays.iter().map(|signed| signed.digest()).collect();
    Replacement::new(of.caller.person, &of.person_key.public().unwrap(), to, stays, Timestamp(5)).unwrap()
}

fn revocation(by: &SecretKey, of: &Human, device: DeviceId) -> Signed {
    let said = DeviceRevocation { person: of.caller.person, device, issuer: None, at: Timestamp(5) };
    Signed::make(Label::DeviceRevocation, by, &said).unwrap()
}

fn recovery(of: &Human, anew: &Human, secret: &RecoverySecret) -> Recovery {
    let said = replacement(of, &anew.person_key, &[]);
    Recovery {
        handle: of.handle.clone(),
        token: secret.token(),
        person_key: anew.person_key.public().unwrap(),
        statement: Signed::make(Label::Replacement, &secret.key().unwrap(), &said).unwrap(),
        certificate: anew.certificate(),
        stays: Vec::new(),
        revocations: vec![revocation(&anew.person_key, of, of.caller.device)],
        inbox: anew.inbox,
    }
}

fn recover(world: &mut World, anew: &Human, asked: &Recovery) -> Result<Outcome, Refused> {
    world.handle(&From::Newcomer(anew.link_key()), &Request::Recover(Box::new(asked.clone())))
}

/// An attorney with a sheet, and a client.
fn office() -> (World, Human, Human, RecoverySecret) {
    let mut world = World::new();
    let (ada, dan) = (world.person("ada", Role::Attorney), Human::new("dan"));
    world.settle(&dan, Role::Client, Some(&dan.endorsement_by(Some(ada.issuer()), Role::Client)));
    let secret = RecoverySecret::random(SheetKind::Person);
    file(&mut world, &ada, &secret).unwrap();
    (world, ada, dan, secret)
}

fn acts(world: &World) -> Vec<Act> {
    let rows = world.store.as_read().log_rows(0, 99).unwrap();
    let act = |row: crate::store::LogRow| {
        let event: privity_protocol::log::Event = privity_protocol::cbor::decode(&row.opening.event, "event").unwrap();
        event.act
    };
    rows.into_iter().map(act).collect()
}

fn bodies(of: &Identity) -> Vec<Vec<u8>> {
    of.certificates.iter().map(|signed| signed.body.clone()).collect()
}

fn current(world: &World, of: &Human) -> Identity {
    chain_first(world, of.caller.person)
}

fn chain_first(world: &World, person: PersonId) -> Identity {
    let row = world.store.person(person).unwrap().unwrap();
    Identity {
        person,
        person_key: row.registration.person_key,
        certificates: certificates(&world.store, person, None).unwrap(),
        endorsement: row.endorsement.unwrap(),
        line: row.line,
    }
}

#[test]
fn a_sheet_replaces_the_key_once_shuts_out_the_lost_device_and_is_logged() {
    let (mut world, ada, dan, secret) = office();
    let matter = world.matter(&ada, &[(dan.caller, Rights::MEMBER)]);
    let open = Request::OpenRecovery { handle: "ada".to_owned(), token: secret.token() };
    assert!(world.newcomer(&again(&ada), &open).is_err(), "whoever endorsed her is nobody here, so there is no chain");
    let anew = again(&ada);
    let asked = recovery(&ada, &anew, &secret);
    let outcome = recover(&mut world, &anew, &asked).unwrap();
    assert!(outcome.wakes.contains(&Wake::Revoked { device: ada.caller.device }));
    let identity = current(&world, &ada);
    assert_eq!(identity.person_key, anew.person_key.public().unwrap());
    assert_eq!(bodies(&identity), [anew.certificate().body], "of the old key there is none");
    let steps = verify_line(&identity).unwrap();
    assert!(steps.last().unwrap().recovered);
    assert!(world.say(ada.caller, matter).is_err(), "the lost device posts nothing");
    world.admit(anew.caller).unwrap();
    let told = world.ask(dan.caller, &Request::Revocations { after: 0 }).unwrap();
    let Reply::Revocations { revocations, replaced, upto, .. } = told else { panic!("{told:?}") };
    assert_eq!((revocations, replaced, upto), (asked.revocations.clone(), vec![ada.caller.person], 2));
    let acts = acts(&world);
    let is = |wanted: fn(&Act) -> bool| acts.iter().filter(|act| wanted(act)).count();
    assert_eq!(is(|act| matches!(act, Act::Recovered { .. })), 1);
    assert_eq!(is(|act| matches!(act, Act::DeviceRevoked { .. })), 1);
    assert_eq!(is(|act| matches!(act, Act::DeviceAdded { .. })), 1);
    // An answer that was lost is given again; the sheet opens nothing more.
    recover(&mut world, &anew, &asked).unwrap();
    assert_eq!(acts_count(&world), acts.len());
    let thief = again(&ada);
    assert!(matches!(recover(&mut world, &thief, &recovery(&anew, &thief, &secret)), Err(Refused::Invite { .. })));
}

fn acts_count(world: &World) -> usize {
    acts(world).len()
}

#[test]
fn what_is_not_exactly_what_the_sheet_may_do_changes_nothing() {
    let (mut world, ada, _, secret) = office();
    let second = world.device(&ada);
    let before = current(&world, &ada);
    let anew = again(&ada);
    let good = Recovery {
        revocations: vec![
            revocation(&anew.person_key, &ada, ada.caller.device),
            revocation(&anew.person_key, &ada, second.device),
        ],
        ..recovery(&ada, &anew, &secret)
    };
    let other = RecoverySecret::random(SheetKind::Person);
    let by = |key: &SecretKey, said: &Replacement| Signed::make(Label::Replacement, key, said).unwrap();
    let said = replacement(&ada, &anew.person_key, &[]);
    let eve = world.person("eve", Role::Client);
    let cases: Vec<(&str, Recovery)> = vec![
        ("another token", Recovery { token: other.token(), ..good.clone() }),
        ("another handle", Recovery { handle: "eve".to_owned(), ..good.clone() }),
        ("signed by another sheet", Recovery { statement: by(&other.key().unwrap(), &said), ..good.clone() }),
        ("signed by the new key", Recovery { statement: by(&anew.person_key, &said), ..good.clone() }),
        ("another new key", Recovery { person_key: eve.person_key.public().unwrap(), ..good.clone() }),
        ("a device left out", Recovery { revocations: good.revocations[..1].to_vec(), ..good.clone() }),
        ("a device that stays unnamed", Recovery { stays: vec![ada.certificate()], ..good.clone() }),
        ("a certificate by the old key", {
            let mut lost = again(&ada);
            lost.person_key = ada.person_key.clone();
            Recovery { certificate: lost.certificate(), ..good.clone() }
        }),
        ("a revocation by the old key", {
            let by_old = revocation(&ada.person_key, &ada, second.device);
            Recovery { revocations: vec![good.revocations[0].clone(), by_old], ..good.clone() }
        }),
        ("an inbox in use", Recovery { inbox: eve.inbox, ..good.clone() }),
    ];
    for (case, asked) in cases {
        assert!(recover(&mut world, &anew, &asked).is_err(), "{case}");
        assert_eq!(current(&world, &ada), before, "{case}");
    }
    let elsewhere = again(&ada);
    let asked = Request::Recover(Box::new(good.clone()));
    assert!(world.handle(&From::Newcomer(elsewhere.link_key()), &asked).is_err(), "over another link key");
    recover(&mut world, &anew, &good).unwrap();
}

/// After a restore everybody files again what they have said; the key that said it may have been replaced since.
#[test]
fn what_an_earlier_key_has_revoked_may_be_filed_again_and_that_key_revokes_nothing_more() {
    let (mut world, ada, dan, secret) = office();
    let anew = again(&ada);
    let asked = recovery(&ada, &anew, &secret);
    recover(&mut world, &anew, &asked).unwrap();
    world.admit(anew.caller).unwrap();
    let key = SecretKey::generate();
    let mut after = Human::new("ada");
    after.caller = anew.caller;
    (after.link_key, after.mls_key, after.person_key) = (anew.link_key.clone(), anew.mls_key.clone(), key.clone());
    let certificate = after.certificate();
    let said = replacement(&anew, &key, &[&certificate]);
    let statement = Signed::make(Label::Replacement, &anew.person_key, &said).unwrap();
    let next = NewKey {
        person_key: key.public().unwrap(),
        statement,
        certificates: vec![certificate],
        recovery: None,
        line: Vec::new(),
        revocations: Vec::new(),
    };
    world.ask(anew.caller, &Request::ReplaceKey(Box::new(next))).unwrap();
    let before = acts(&world);
    let filed = |statement: &Signed| Request::RevokeDevice { revocation: statement.clone() };
    assert_eq!(world.ask(anew.caller, &filed(&asked.revocations[0])), Ok(Reply::Done));
    assert_eq!(acts(&world), before, "nothing is new");
    let stolen = revocation(&anew.person_key, &anew, anew.caller.device);
    assert!(world.ask(anew.caller, &filed(&stolen)).is_err());
    assert!(world.ask(dan.caller, &filed(&stolen)).is_err());
    assert!(world.store.as_read().device(anew.caller.device).unwrap().unwrap().revoked.is_none());
}

/// Ada has replaced her key twice, and revoked a device under the first of them; the relay is restored from before, and told again.
#[test]
fn a_restored_relay_takes_again_what_led_to_a_key_and_nothing_else() {
    let (mut world, ada, dan, secret) = office();
    let lost = world.device(&ada).device;
    let of = DeviceCertificate { device: lost, ..ada.certificate().unverified("certificate").unwrap() };
    let row = world.store.as_read().device(lost).unwrap().unwrap();
    let row = DeviceRow { certificate: Signed::make(Label::DeviceCertificate, &ada.person_key, &of).unwrap(), ..row };
    world.write(&[Write::Device(Box::new(row))]);
    let keys = [SecretKey::generate(), SecretKey::generate()];
    let certificate = |key: &SecretKey| {
        let said: DeviceCertificate = ada.certificate().unverified("certificate").unwrap();
        Signed::make(Label::DeviceCertificate, key, &said).unwrap()
    };
    let before = [&ada.person_key, &keys[0]];
    let line: Vec<Step> = (0..2)
        .map(|n| {
            let stays = vec![certificate(&keys[n]).digest()];
            let from = before[n].public().unwrap();
            let said = Replacement::new(ada.caller.person, &from, &keys[n], stays, Timestamp(5)).unwrap();
            Step { key: from, statement: Signed::make(Label::Replacement, before[n], &said).unwrap(), recovery: None }
        })
        .collect();
    let good = NewKey {
        person_key: keys[1].public().unwrap(),
        statement: line[1].statement.clone(),
        certificates: vec![certificate(&keys[1])],
        recovery: Some(recovery_key(&ada, &secret, &keys[1])),
        line: line.clone(),
        revocations: vec![revocation(&ada.person_key, &ada, lost)],
    };
    let ask = |world: &mut World, asked: &NewKey| world.ask(ada.caller, &Request::ReplaceKey(Box::new(asked.clone())));
    let foreign = revocation(&dan.person_key, &ada, lost);
    let other = SecretKey::generate();
    for bad in [
        NewKey { line: line[1..].to_vec(), ..good.clone() },
        NewKey { line: line[..1].to_vec(), ..good.clone() },
        NewKey { line: vec![line[1].clone(), line[0].clone()], ..good.clone() },
        NewKey { person_key: other.public().unwrap(), certificates: vec![certificate(&other)], ..good.clone() },
        NewKey { certificates: vec![certificate(&keys[0])], ..good.clone() },
        NewKey { certificates: Vec::new(), ..good.clone() },
        NewKey { revocations: Vec::new(), ..good.clone() },
        NewKey { revocations: vec![foreign], ..good.clone() },
    ] {
        assert!(ask(&mut world, &bad).is_err(), "{bad:?}");
    }
    assert!(world.ask(dan.caller, &Request::ReplaceKey(Box::new(good.clone()))).is_err());
    assert!(current(&world, &ada).line.is_empty());
    ask(&mut world, &good).unwrap();
    let now = current(&world, &ada);
    assert_eq!((now.line, now.certificates), (line, good.certificates));
    assert!(world.store.as_read().device(lost).unwrap().unwrap().revoked.is_some());
    assert_eq!(acts(&world).iter().filter(|act| matches!(act, Act::KeyRotated { .. })).count(), 1);
}

#[test]
fn a_sheet_is_filed_for_oneself_alone_and_the_newest_counts() {
    let (mut world, ada, dan, first) = office();
    let statement = recovery_key(&ada, &first, &ada.person_key);
    let note = Blob(vec![1; 100]);
    let foreign = RecoveryFiling { token_hash: first.token_hash(), statement: statement.clone(), note };
    assert!(world.ask(dan.caller, &Request::SetRecovery(Box::new(foreign.clone()))).is_err());
    let large = RecoveryFiling { note: Blob(vec![1; limits::RECOVERY_NOTE_MAX + 1]), ..foreign };
    assert!(world.ask(ada.caller, &Request::SetRecovery(Box::new(large))).is_err());
    let second = RecoverySecret::random(SheetKind::Person);
    file(&mut world, &ada, &second).unwrap();
    let anew = again(&ada);
    assert!(recover(&mut world, &anew, &recovery(&ada, &anew, &first)).is_err());
    recover(&mut world, &anew, &recovery(&ada, &anew, &second)).unwrap();
}

#[test]
fn a_rotation_keeps_every_device_and_the_sheet() {
    let (mut world, ada, dan, secret) = office();
    let matter = world.matter(&ada, &[(dan.caller, Rights::MEMBER)]);
    let key = SecretKey::generate();
    let mut after = Human::new("ada");
    after.caller = ada.caller;
    (after.link_key, after.mls_key, after.person_key) = (ada.link_key.clone(), ada.mls_key.clone(), key.clone());
    let certificate = after.certificate();
    let said = replacement(&ada, &key, &[&certificate]);
    let good = NewKey {
        person_key: key.public().unwrap(),
        statement: Signed::make(Label::Replacement, &ada.person_key, &said).unwrap(),
        certificates: vec![certificate.clone()],
        recovery: Some(recovery_key(&ada, &secret, &key)),
        line: Vec::new(),
        revocations: Vec::new(),
    };
    let ask = |world: &mut World, asked: &NewKey| world.ask(ada.caller, &Request::ReplaceKey(Box::new(asked.clone())));
    let none = replacement(&ada, &key, &[]);
    let none = Signed::make(Label::Replacement, &ada.person_key, &none).unwrap();
    assert!(ask(&mut world, &NewKey { certificates: Vec::new(), statement: none, ..good.clone() }).is_err());
    let forged = Signed::make(Label::Replacement, &key, &said).unwrap();
    assert!(ask(&mut world, &NewKey { statement: forged, ..good.clone() }).is_err());
    assert!(world.ask(dan.caller, &Request::ReplaceKey(Box::new(good.clone()))).is_err());
    ask(&mut world, &good).unwrap();
    ask(&mut world, &good).unwrap();
    assert_eq!(current(&world, &ada).certificates, [certificate]);
    world.say(ada.caller, matter).unwrap();
    let anew = again(&ada);
    recover(&mut world, &anew, &recovery(&after, &anew, &secret)).unwrap();
    assert_eq!(current(&world, &ada).line.len(), 2);
}

fn invite_anew(world: &World, by: &Human, whom: &Human, role: Role, secret: &InviteSecret) -> Request {
    let statement = InviteStatement {
        invite: secret.id(),
        issuer: by.issuer(),
        role,
        handle: Some(whom.handle.clone()),
        name: None,
        expires: world.now.plus_ms(limits::INVITE_LIFETIME_MS),
        links: None,
        replaces: Some(whom.caller.person),
    };
    let statement = Signed::make(Label::Invite, &by.mls_key, &statement).unwrap();
    Request::Invite(NewInvite { token_hash: secret.token_hash(), statement, name: None })
}

#[test]
fn somebody_enrolled_anew_is_who_they_were_until_the_new_key_is_endorsed() {
    let (mut world, ada, dan, _) = office();
    let matter = world.matter(&ada, &[(dan.caller, Rights::MEMBER)]);
    let secret = InviteSecret::random();
    let request = invite_anew(&world, &ada, &dan, Role::Client, &secret);
    world.ask(ada.caller, &request).unwrap();
    let before = current(&world, &dan);
    let anew = again(&dan);
    let mut asked = anew.registration(secret.id(), secret.token(), Role::Client);
    let register = |world: &mut World, asked: &Registration| {
        world.handle(&From::Newcomer(anew.link_key()), &Request::Register(Box::new(asked.clone())))
    };
    assert!(register(&mut world, &asked).is_err(), "the old device is not named");
    asked.revocations = vec![revocation(&anew.person_key, &dan, dan.caller.device)];
    register(&mut world, &asked).unwrap();
    register(&mut world, &asked).unwrap();
    world.admit(anew.caller).unwrap();
    assert_eq!(current(&world, &dan), before);
    world.say(dan.caller, matter).unwrap();
    let none = Part::Create { mailbox: MailboxId::random() };
    assert!(world.post(anew.caller, vec![none]).is_err(), "the new device waits");
    let Reply::Newcomers { newcomers } = world.ask(ada.caller, &Request::Newcomers).unwrap() else { panic!() };
    assert_eq!(newcomers.len(), 1);
    let mut said = anew.endorsement_by(Some(ada.issuer()), Role::Client);
    said.from = Timestamp(7);
    let endorsement = Signed::make(Label::Endorsement, &ada.mls_key, &said).unwrap();
    let endorse = Request::Endorse { person: dan.caller.person, endorsement };
    world.ask(ada.caller, &endorse).unwrap();
    let after = current(&world, &dan);
    assert_eq!(bodies(&after), [anew.certificate().body]);
    assert!(after.line.is_empty());
    assert!(world.say(dan.caller, matter).is_err(), "the lost device is out");
    let row = world.store.person(dan.caller.person).unwrap().unwrap();
    assert_eq!(row.past, [before]);
    assert!(acts(&world).iter().any(|act| matches!(act, Act::Replaced { by, .. } if *by == ada.caller.person)));
}

#[test]
fn nobody_is_enrolled_anew_but_by_whoever_vouches_for_them_or_a_registrar() {
    let (mut world, ada, dan, _) = office();
    let (cyn, eve) = (world.person("cyn", Role::Staff), world.person("eve", Role::Client));
    let registrar = Human::new("reg");
    world.settle(&registrar, Role::Attorney, Some(&registrar.endorsement_by(None, Role::Attorney)));
    let mut ask = |by: &Human, whom: &Human, role| {
        let request = invite_anew(&world, by, whom, role, &InviteSecret::random());
        world.ask(by.caller, &request)
    };
    assert!(ask(&eve, &dan, Role::Client).is_err(), "a client");
    assert!(ask(&cyn, &ada, Role::Attorney).is_err(), "staff, an attorney");
    assert!(ask(&ada, &registrar, Role::Attorney).is_err(), "a registrar");
    assert!(ask(&registrar, &registrar, Role::Attorney).is_err(), "oneself");
    assert!(ask(&registrar, &dan, Role::Attorney).is_err(), "in another role");
    assert!(ask(&cyn, &dan, Role::Client).is_err(), "a colleague who never vouched for him");
    ask(&ada, &dan, Role::Client).unwrap();
    ask(&registrar, &dan, Role::Client).unwrap();
    ask(&registrar, &ada, Role::Attorney).unwrap();
}

/// Somebody else has come to vouch for them since the invite was made: it is good no more, neither to register with nor to endorse.
#[test]
fn an_invite_anew_is_good_only_while_its_inviter_vouches_for_the_person() {
    let (mut world, ada, dan, _) = office();
    let cyn = world.person("cyn", Role::Attorney);
    let by = |world: &mut World, by: &Human| {
        let mut row = world.store.person(dan.caller.person).unwrap().unwrap();
        let said = dan.endorsement_by(Some(by.issuer()), Role::Client);
        row.endorsement = Some(Signed { body: privity_protocol::cbor::encode(&said), signature: Vec::new() });
        world.put_person(row);
    };
    let secret = InviteSecret::random();
    let request = invite_anew(&world, &ada, &dan, Role::Client, &secret);
    world.ask(ada.caller, &request).unwrap();
    let anew = again(&dan);
    let mut asked = anew.registration(secret.id(), secret.token(), Role::Client);
    asked.revocations = vec![revocation(&anew.person_key, &dan, dan.caller.device)];
    let register = |world: &mut World| {
        world.handle(&From::Newcomer(anew.link_key()), &Request::Register(Box::new(asked.clone()))).map(|_| ())
    };
    by(&mut world, &cyn);
    assert!(matches!(register(&mut world), Err(Refused::NotAllowed { .. })));
    by(&mut world, &ada);
    register(&mut world).unwrap();
    by(&mut world, &cyn);
    let mut said = anew.endorsement_by(Some(ada.issuer()), Role::Client);
    said.from = Timestamp(7);
    let endorsement = Signed::make(Label::Endorsement, &ada.mls_key, &said).unwrap();
    let endorse = Request::Endorse { person: dan.caller.person, endorsement };
    assert!(matches!(world.ask(ada.caller, &endorse), Err(Refused::NotAllowed { .. })));
    by(&mut world, &ada);
    world.ask(ada.caller, &endorse).unwrap();
}

#[test]
fn a_client_posts_the_commit_that_lets_their_attorney_back_in_and_nobody_else() {
    let (mut world, ada, dan, secret) = office();
    let eve = world.person("eve", Role::Attorney);
    let matter = world.matter(&ada, &[(dan.caller, Rights::MEMBER)]);
    let anew = again(&ada);
    recover(&mut world, &anew, &recovery(&ada, &anew, &secret)).unwrap();
    let commit = |world: &World| append(matter, world.fence(matter), true, b"commit");
    let grant = |device, rights| Part::Grant { mailbox: matter, device, rights, resume: false };
    let revoke = |device| Part::Revoke { mailbox: matter, device };
    let stranger = vec![commit(&world), grant(eve.caller.device, Rights::MEMBER)];
    assert!(world.post(dan.caller, stranger).is_err());
    let outsider = vec![grant(anew.caller.device, Rights::MANAGER)];
    assert!(world.post(eve.caller, outsider).is_err(), "whoever is not in the matter");
    let parts = vec![commit(&world), grant(anew.caller.device, Rights::MANAGER), revoke(ada.caller.device)];
    world.post(dan.caller, parts).unwrap();
    world.admit(anew.caller).unwrap();
    world.say(anew.caller, matter).unwrap();
    // A device in use is put out by nobody who does not manage.
    assert!(world.post(dan.caller, vec![revoke(anew.caller.device)]).is_err());
}

#[test]
fn whoever_endorsed_under_a_key_before_is_shown_as_they_were_then() {
    let (mut world, ada, _, secret) = office();
    let bob = Human::new("bob");
    let organisation = SecretKey::generate();
    world.write(&[Write::Organisation(organisation.public().unwrap())]);
    world.settle(&ada, Role::Attorney, Some(&ada.endorsement_by(None, Role::Attorney)));
    world.settle(&bob, Role::Client, Some(&bob.endorsement_by(Some(ada.issuer()), Role::Client)));
    file(&mut world, &ada, &secret).unwrap();
    let before = current(&world, &ada);
    let anew = again(&ada);
    recover(&mut world, &anew, &recovery(&ada, &anew, &secret)).unwrap();
    let shown = chain(&world.store, bob.caller.person).unwrap();
    assert_eq!(shown[1], before);
    assert_eq!(chain(&world.store, ada.caller.person).unwrap()[0], current(&world, &ada));
}

/// Enrols somebody anew up to the endorsement, and answers what the relay says to that.
fn anew(
    world: &mut World,
    by: &Human,
    whom: &Human,
    change: impl FnOnce(&mut Endorsement),
    between: impl FnOnce(&mut World),
) -> Result<Reply, Refused> {
    let secret = InviteSecret::random();
    let request = invite_anew(world, by, whom, Role::Client, &secret);
    world.ask(by.caller, &request).unwrap();
    let new = again(whom);
    let mut asked = new.registration(secret.id(), secret.token(), Role::Client);
    asked.revocations = vec![revocation(&new.person_key, whom, whom.caller.device)];
    world.handle(&From::Newcomer(new.link_key()), &Request::Register(Box::new(asked))).unwrap();
    world.admit(new.caller).unwrap();
    between(world);
    let mut said = new.endorsement_by(Some(by.issuer()), Role::Client);
    said.from = Timestamp(7);
    change(&mut said);
    let endorsement = Signed::make(Label::Endorsement, &by.mls_key, &said).unwrap();
    world.ask(by.caller, &Request::Endorse { person: whom.caller.person, endorsement })
}

fn waits_anew(world: &World, of: &Human) -> (bool, usize) {
    let pending = world.store.devices_of(of.caller.person).unwrap().iter().filter(|row| row.pending).count();
    (world.store.person(of.caller.person).unwrap().unwrap().again.is_some(), pending)
}

/// Somebody began again from their sheet while their enrolment anew waited: that one waited for ever.
#[test]
fn an_enrolment_anew_ends_when_its_person_begins_again_from_a_sheet() {
    let (mut world, ada, dan, _) = office();
    let secret = RecoverySecret::random(SheetKind::Person);
    file(&mut world, &dan, &secret).unwrap();
    let back = again(&dan);
    let answer = anew(
        &mut world,
        &ada,
        &dan,
        |_| (),
        |world| {
            recover(world, &back, &recovery(&dan, &back, &secret)).unwrap();
            world.admit(back.caller).unwrap();
            assert_eq!(waits_anew(world, &dan), (false, 0));
        },
    );
    assert!(answer.is_err());
    assert_eq!(current(&world, &dan).person_key, back.person_key.public().unwrap());
    assert_eq!(world.store.devices_of(dan.caller.person).unwrap().iter().filter(|row| row.is_in_use()).count(), 1);
}

/// A device was linked while an enrolment anew waited: it is refused, for good, and the person can be enrolled once more.
#[test]
fn an_enrolment_anew_that_is_refused_for_good_is_over() {
    let (mut world, ada, dan, _) = office();
    let mut second = None;
    let answer = anew(&mut world, &ada, &dan, |_| (), |world| second = Some(world.device(&dan)));
    assert!(matches!(answer, Err(Refused::Malformed { .. })), "{answer:?}");
    assert_eq!(waits_anew(&world, &dan), (false, 0));
    let second = second.unwrap();
    assert!(world.ask(second, &Request::People).is_ok(), "nothing has changed for who they were");
}

/// Devices sign for a new key what was said before: later than it, and after the withdrawal that it was given after.
#[test]
fn somebody_withdrawn_once_and_whole_again_is_enrolled_anew() {
    let (mut world, ada, dan, _) = office();
    let said = privity_protocol::identity::EndorsementRevocation {
        person: dan.caller.person,
        endorsement: Digest::of(&[b"before"]),
        issuer: Some(ada.issuer()),
        at: Timestamp(3),
    };
    let statement = Signed::make(Label::EndorsementRevocation, &ada.mls_key, &said).unwrap();
    let digest = statement.digest();
    let mut row = world.store.person(dan.caller.person).unwrap().unwrap();
    row.withdrawn = Some(crate::store::WithdrawnRow { statement, lifted: true, instances: Vec::new() });
    world.put_person(row);
    anew(&mut world, &ada, &dan, |said| said.after = Some(digest), |_| ()).unwrap();
    assert_eq!(waits_anew(&world, &dan), (false, 0));
}

/// An attorney who began again and then replaced their key again and again: the clients whom the lost device had vouched for stay so.
#[test]
fn clients_of_a_lost_device_stay_vouched_for_however_often_a_key_is_replaced() {
    let (mut world, ada, _, secret) = office();
    let bob = Human::new("bob");
    world.write(&[Write::Organisation(SecretKey::generate().public().unwrap())]);
    world.settle(&ada, Role::Attorney, Some(&ada.endorsement_by(None, Role::Attorney)));
    world.settle(&bob, Role::Client, Some(&bob.endorsement_by(Some(ada.issuer()), Role::Client)));
    file(&mut world, &ada, &secret).unwrap();
    let mut now = again(&ada);
    recover(&mut world, &now, &recovery(&ada, &now, &secret)).unwrap();
    world.admit(now.caller).unwrap();
    for rotation in 1..=limits::PAST_IDENTITIES + 2 {
        let mut row = world.store.person(now.caller.person).unwrap().unwrap();
        let said = now.endorsement_by(None, Role::Attorney);
        row.endorsement = Some(Signed { body: privity_protocol::cbor::encode(&said), signature: Vec::new() });
        world.put_person(row);
        now = replaced_by(&mut world, &now, None).1;
        let shown = chain(&world.store, bob.caller.person).unwrap();
        assert!(shown[1].certifies(ada.caller.device), "after {rotation} rotations");
        let past = world.store.person(now.caller.person).unwrap().unwrap().past;
        assert!(past.len() <= limits::PAST_IDENTITIES, "what nobody needs goes");
    }
    // A device that its person has no more: its endorsements are given once more, by one that they have.
    let Reply::Chains { chains } = world.ask(now.caller, &Request::Renewals).unwrap() else { panic!() };
    assert!(chains.iter().any(|chain| chain[0].person == bob.caller.person));
}

/// The answer to `SetRecovery` was lost, so that the vault knows the sheet before, or none; or somebody else holds the device.
#[test]
fn no_rotation_drops_a_sheet_in_silence() {
    let (mut world, ada, _, first) = office();
    let second = RecoverySecret::random(SheetKind::Person);
    file(&mut world, &ada, &second).unwrap();
    for known in [Some(&first), None] {
        assert!(matches!(replaced_by(&mut world, &ada, known).0, Err(Refused::NotAllowed { .. })));
    }
    let anew = again(&ada);
    recover(&mut world, &anew, &recovery(&ada, &anew, &second)).unwrap();
}

/// Somebody's next key, with their one device staying, and a sheet certified again.
fn replaced_by(world: &mut World, of: &Human, sheet: Option<&RecoverySecret>) -> (Result<Reply, Refused>, Human) {
    let mut after = Human::new(&of.handle);
    after.caller = of.caller;
    (after.link_key, after.mls_key, after.inbox) = (of.link_key.clone(), of.mls_key.clone(), of.inbox);
    let certificate = after.certificate();
    let said = replacement(of, &after.person_key, &[&certificate]);
    let asked = NewKey {
        person_key: after.person_key.public().unwrap(),
        statement: Signed::make(Label::Replacement, &of.person_key, &said).unwrap(),
        certificates: vec![certificate],
        recovery: sheet.map(|secret| recovery_key(of, secret, &after.person_key)),
        line: Vec::new(),
        revocations: Vec::new(),
    };
    (world.ask(of.caller, &Request::ReplaceKey(Box::new(asked))), after)
}

/// Whoever made the first invite is gone, say: nobody else can check its proof, so a registrar makes another.
#[test]
fn of_two_enrolments_anew_of_one_person_the_later_counts() {
    let (mut world, ada, dan, _) = office();
    let registrar = Human::new("reg");
    world.settle(&registrar, Role::Attorney, Some(&registrar.endorsement_by(None, Role::Attorney)));
    let waits = |world: &mut World| {
        let secret = InviteSecret::random();
        let request = invite_anew(world, &ada, &dan, Role::Client, &secret);
        world.ask(ada.caller, &request).unwrap();
        let new = again(&dan);
        let mut asked = new.registration(secret.id(), secret.token(), Role::Client);
        asked.revocations = vec![revocation(&new.person_key, &dan, dan.caller.device)];
        world.handle(&From::Newcomer(new.link_key()), &Request::Register(Box::new(asked))).unwrap();
        new
    };
    let first = waits(&mut world);
    anew(&mut world, &registrar, &dan, |_| (), |_| ()).unwrap();
    assert_eq!(waits_anew(&world, &dan), (false, 0));
    let row = world.store.device(first.caller.device).unwrap().unwrap();
    assert!(row.ended && !row.is_in_use());
}
