//! Linking and revoking at the relay, with real keys and signatures.

use privity_protocol::frame::{Instance, NewInvite, Part, Rights};
use privity_protocol::identity::{Issuer, Role};
use privity_protocol::ids::{DeviceId, MailboxId};
use privity_protocol::invite::{InviteSecret, InviteStatement};
use privity_protocol::suite::{Digest, SecretKey};

use super::super::world::{Human, World};
use super::*;
use crate::relay::{From, admission};

fn statement(world: &World, by: &Human, secret: &InviteSecret) -> InviteStatement {
    InviteStatement {
        invite: secret.id(),
        issuer: by.issuer(),
        role: Role::Client,
        handle: None,
        name: None,
        expires: world.now.plus_ms(limits::LINK_LIFETIME_MS),
        links: Some(by.caller.person),
        replaces: None,
    }
}

fn file(world: &mut World, by: &Human, secret: &InviteSecret, statement: &InviteStatement) -> Result<Reply, Refused> {
    let statement = Signed::make(Label::Invite, &by.mls_key, statement).unwrap();
    world.ask(by.caller, &Request::Invite(NewInvite { token_hash: secret.token_hash(), statement, name: None }))
}

fn link_invite(world: &mut World, by: &Human) -> InviteSecret {
    let secret = InviteSecret::random();
    let statement = statement(world, by, &secret);
    file(world, by, &secret, &statement).unwrap();
    secret
}

/// One more device of somebody's, with keys of its own.
fn twin(of: &Human) -> Human {
    let mut twin = Human::new(&of.handle);
    twin.caller.person = of.caller.person;
    twin.person_key = of.person_key.clone();
    twin
}

fn registration(twin: &Human, secret: &InviteSecret) -> DeviceRegistration {
    DeviceRegistration {
        invite: secret.id(),
        token: secret.token(),
        person: twin.caller.person,
        certificate: Signed { body: twin.certificate().body, signature: Vec::new() },
        proof: Digest::of(&[b"proof"]),
        inbox: twin.inbox,
    }
}

fn register(world: &mut World, twin: &Human, asked: DeviceRegistration) -> Result<Outcome, Refused> {
    world.handle(&From::Newcomer(twin.link_key()), &Request::RegisterDevice(Box::new(asked)))
}

/// A client with a device that waits.
fn waiting() -> (World, Human, Human) {
    let mut world = World::new();
    let dan = world.person("dan", Role::Client);
    let secret = link_invite(&mut world, &dan);
    let second = twin(&dan);
    let outcome = register(&mut world, &second, registration(&second, &secret)).unwrap();
    assert_eq!(outcome.wakes, [Wake::Person { person: dan.caller.person, event: Event::Devices }]);
    world.admit(second.caller).unwrap();
    (world, dan, second)
}

fn certify(second: &Human) -> Request {
    Request::CertifyDevice { certificate: second.certificate(), pack: Blob(vec![1; 100]) }
}

fn linked() -> (World, Human, Human) {
    let (mut world, dan, second) = waiting();
    world.ask(dan.caller, &certify(&second)).unwrap();
    (world, dan, second)
}

fn revocation(of: &Human, issuer: Option<Issuer>, key: &SecretKey) -> Request {
    let (person, device) = (of.caller.person, of.caller.device);
    let said = DeviceRevocation { person, device, issuer, at: Timestamp(1) };
    Request::RevokeDevice { revocation: Signed::make(Label::DeviceRevocation, key, &said).unwrap() }
}

fn publish() -> Request {
    Request::PublishKeyPackages { single_use: vec![Blob(vec![7])], last_resort: Some(Blob(vec![8])) }
}

fn packages(world: &mut World, by: Caller, of: &Human, device: Option<DeviceId>) -> Vec<DeviceId> {
    match world.ask(by, &Request::TakeKeyPackages { person: of.caller.person, device }) {
        Ok(Reply::KeyPackages { packages }) => packages.iter().map(|taken| taken.device).collect(),
        other => panic!("{other:?}"),
    }
}

fn is_invite(refused: &Refused) -> bool {
    matches!(refused, Refused::Invite { .. })
}

fn is_forbidden(refused: &Refused) -> bool {
    matches!(refused, Refused::NotAllowed { .. })
}

#[test]
fn a_link_invite_is_for_the_inviters_own_and_for_minutes() {
    let mut world = World::new();
    let (dan, eve) = (world.person("dan", Role::Client), world.person("eve", Role::Client));
    let secret = InviteSecret::random();
    let good = statement(&world, &dan, &secret);
    let wrong = [
        InviteStatement { links: Some(eve.caller.person), ..good.clone() },
        InviteStatement { links: None, ..good.clone() },
        InviteStatement { role: Role::Attorney, ..good.clone() },
        InviteStatement { handle: Some("dan2".to_owned()), ..good.clone() },
        InviteStatement { expires: world.now.plus_ms(limits::INVITE_LIFETIME_MS), ..good.clone() },
    ];
    for statement in wrong {
        file(&mut world, &dan, &secret, &statement).unwrap_err();
    }
    file(&mut world, &dan, &secret, &good).unwrap();
}

#[test]
fn a_link_invite_makes_one_device_of_its_person_and_nobody_new() {
    let mut world = World::new();
    let (dan, eve) = (world.person("dan", Role::Client), world.person("eve", Role::Client));
    let secret = link_invite(&mut world, &dan);
    let (second, third, hers) = (twin(&dan), twin(&dan), twin(&eve));
    let person = Box::new(Human::new("new").registration(secret.id(), secret.token(), Role::Client));
    assert!(is_invite(&world.handle(&From::Newcomer(second.link_key()), &Request::Register(person)).unwrap_err()));
    assert!(is_invite(&register(&mut world, &hers, registration(&hers, &secret)).unwrap_err()), "another person's");
    let good = registration(&second, &secret);
    let wrong = [
        DeviceRegistration { token: [1; 32], ..good.clone() },
        DeviceRegistration { certificate: second.certificate(), ..good.clone() },
        DeviceRegistration { inbox: dan.inbox, ..good.clone() },
        registration(&third, &secret),
        registration(&dan, &secret),
    ];
    for asked in wrong {
        register(&mut world, &second, asked).unwrap_err();
    }
    register(&mut world, &second, good.clone()).unwrap();
    // The same again is the same; another device is one too many.
    register(&mut world, &second, good).unwrap();
    assert!(is_invite(&register(&mut world, &third, registration(&third, &secret)).unwrap_err()));
    let late = link_invite(&mut world, &dan);
    world.now = world.now.plus_ms(limits::LINK_LIFETIME_MS);
    assert!(is_invite(&register(&mut world, &third, registration(&third, &late)).unwrap_err()), "expired");
}

#[test]
fn an_invite_for_a_person_links_no_device() {
    let mut world = World::new();
    let ada = world.person("ada", Role::Attorney);
    let secret = InviteSecret::random();
    let said = InviteStatement { links: None, ..statement(&world, &ada, &secret) };
    file(&mut world, &ada, &secret, &said).unwrap();
    let second = twin(&ada);
    assert!(is_invite(&register(&mut world, &second, registration(&second, &secret)).unwrap_err()));
}

#[test]
fn a_waiting_device_publishes_key_packages_and_is_served_nothing_else() {
    let (mut world, dan, second) = waiting();
    let hello = HelloOf(&second).judge(&world).unwrap();
    assert!(!hello.ready && hello.admitted);
    world.ask(second.caller, &publish()).unwrap();
    world.ask(dan.caller, &publish()).unwrap();
    let forbidden = [
        Request::People,
        Request::Chain { person: dan.caller.person },
        Request::WaitingDevices,
        Request::Newcomers,
        Request::Linked,
        Request::Revocations { after: 0 },
        Request::TakeKeyPackages { person: dan.caller.person, device: None },
        certify(&second),
        revocation(&dan, None, &dan.person_key),
    ];
    for request in forbidden {
        assert!(is_forbidden(&world.ask(second.caller, &request).unwrap_err()), "{request:?}");
    }
    assert!(is_forbidden(&world.post(second.caller, Vec::new()).unwrap_err()));
    let not_yet = world.ask(second.caller, &Request::Certified).unwrap_err();
    assert!(matches!(not_yet, Refused::NotFound { .. }));
    assert_eq!(packages(&mut world, dan.caller, &dan, None), [dan.caller.device]);
    world.settle(&dan, Role::Client, Some(&dan.endorsement_by(None, Role::Client)));
    let Reply::Chain { chain } = world.ask(dan.caller, &Request::Chain { person: dan.caller.person }).unwrap() else {
        panic!("no chain")
    };
    assert_eq!(chain[0].certificates.len(), 1, "the chain leaves it out");
}

struct HelloOf<'a>(&'a Human);

impl HelloOf<'_> {
    fn judge(&self, world: &World) -> Result<admission::Judged, Refused> {
        let hello = privity_protocol::frame::HelloBody {
            newest: 1,
            lowest: 1,
            device: Some(self.0.caller.device),
            link_key: self.0.link_key(),
            agent: String::new(),
            instance: Some(self.0.caller.instance),
        };
        policy::refusal(admission::judge(&world.store, &hello)).unwrap()
    }
}

#[test]
fn only_the_persons_key_over_the_registered_body_certifies() {
    let (mut world, dan, second) = waiting();
    let eve = world.person("eve", Role::Client);
    world.ask(eve.caller, &certify(&second)).unwrap_err();
    let mut others = twin(&dan);
    others.caller.device = second.caller.device;
    world.ask(dan.caller, &certify(&others)).unwrap_err();
    let unsigned = Signed { body: second.certificate().body, signature: Vec::new() };
    world.ask(dan.caller, &Request::CertifyDevice { certificate: unsigned, pack: Blob(vec![1]) }).unwrap_err();
    let large = Blob(vec![1; limits::PACK_MAX + 1]);
    world.ask(dan.caller, &Request::CertifyDevice { certificate: second.certificate(), pack: large }).unwrap_err();
    assert!(!HelloOf(&second).judge(&world).unwrap().ready);
    let certificate = second.certificate();
    let asked = Request::CertifyDevice { certificate: certificate.clone(), pack: Blob(vec![1; 100]) };
    let outcome = world.handle(&From::Device(dan.caller), &asked).unwrap();
    assert_eq!(outcome.wakes, [Wake::Person { person: dan.caller.person, event: Event::Devices }]);
    assert!(HelloOf(&second).judge(&world).unwrap().ready);
    // Asked again after a lost answer it is the same.
    world.ask(dan.caller, &certify(&second)).unwrap();
    let told = world.ask(second.caller, &Request::Certified).unwrap();
    assert_eq!(told, Reply::Certified { certificate, pack: Blob(vec![1; 100]), chain: Vec::new() });
    world.ask(second.caller, &Request::Linked).unwrap();
    world.ask(second.caller, &Request::Certified).unwrap_err();
}

#[test]
fn a_persons_devices_are_few_and_each_ones_packages_can_be_asked_for_alone() {
    let (mut world, dan, second) = linked();
    for of in [&dan, &second] {
        world.ask(of.caller, &publish()).unwrap();
    }
    assert_eq!(packages(&mut world, dan.caller, &dan, None).len(), 2);
    assert_eq!(packages(&mut world, dan.caller, &dan, Some(second.caller.device)), [second.caller.device]);
    for more in 3..=limits::DEVICES_PER_PERSON_MAX + 1 {
        let secret = link_invite(&mut world, &dan);
        let next = twin(&dan);
        let registered = register(&mut world, &next, registration(&next, &secret));
        assert_eq!(registered.is_ok(), more <= limits::DEVICES_PER_PERSON_MAX, "{more}");
    }
}

#[test]
fn a_person_grants_their_own_new_device_what_they_have_and_no_more() {
    let (mut world, dan, second) = linked();
    let ada = world.person("ada", Role::Attorney);
    let mailbox = world.matter(&ada, &[(dan.caller, Rights::MEMBER)]);
    let grant = |rights| vec![Part::Grant { mailbox, device: second.caller.device, rights, resume: false }];
    assert!(is_forbidden(&world.post(dan.caller, grant(Rights::MANAGER)).unwrap_err()));
    world.post(dan.caller, grant(Rights::MEMBER)).unwrap();
    world.say(second.caller, mailbox).unwrap();
}

#[test]
fn a_revoked_device_is_served_no_more_whatever_it_asks() {
    let (mut world, dan, second) = linked();
    let ada = world.person("ada", Role::Attorney);
    let mailbox = world.matter(&ada, &[(dan.caller, Rights::MEMBER), (second.caller, Rights::MEMBER)]);
    for of in [&dan, &second] {
        world.ask(of.caller, &publish()).unwrap();
    }
    world.say(second.caller, mailbox).unwrap();
    let asked = revocation(&second, None, &dan.person_key);
    let outcome = world.handle(&From::Device(dan.caller), &asked).unwrap();
    let told = |person| Wake::Person { person, event: Event::Revoked };
    assert!(outcome.wakes.contains(&Wake::Revoked { device: second.caller.device }));
    assert!(outcome.wakes.contains(&told(dan.caller.person)) && outcome.wakes.contains(&told(ada.caller.person)));
    let refused = Err(admission::revoked());
    assert_eq!(HelloOf(&second).judge(&world).map(|_| ()), refused);
    // A copy of its folder, restored, is the next instance.
    let next = Caller { instance: Instance::after(Some(second.caller.instance)), ..second.caller };
    world.admit(next).unwrap_err();
    assert_eq!(world.say(second.caller, mailbox).map(|_| ()), refused);
    for request in [Request::People, publish(), Request::Certified, Request::Revocations { after: 0 }] {
        for caller in [second.caller, next] {
            assert_eq!(world.ask(caller, &request).map(|_| ()), refused, "{request:?}");
        }
    }
    assert_eq!(packages(&mut world, ada.caller, &dan, None), [dan.caller.device]);
    world.ask(dan.caller, &asked).unwrap();
    world.say(dan.caller, mailbox).unwrap();
}

/// Its unsigned certificate once made the whole chain worthless.
#[test]
fn a_device_that_is_turned_away_leaves_nothing_in_the_chain() {
    let (mut world, dan, second) = waiting();
    world.ask(dan.caller, &revocation(&second, None, &dan.person_key)).unwrap();
    let told = world.ask(dan.caller, &Request::WaitingDevices).unwrap();
    assert_eq!(told, Reply::WaitingDevices { devices: Vec::new() });
    world.ask(dan.caller, &certify(&second)).unwrap_err();
    world.settle(&dan, Role::Client, Some(&dan.endorsement_by(None, Role::Client)));
    let Reply::Chain { chain } = world.ask(dan.caller, &Request::Chain { person: dan.caller.person }).unwrap() else {
        panic!("no chain")
    };
    assert_eq!(chain[0].certificates.len(), 1);
}

#[test]
fn only_the_persons_key_or_a_registrar_revokes() {
    let (mut world, dan, second) = linked();
    let (bob, eve) = (world.person("bob", Role::Attorney), world.person("eve", Role::Client));
    let root = Human::new("root");
    world.settle(&root, Role::Attorney, Some(&root.endorsement_by(None, Role::Attorney)));
    let wrong = [
        (bob.caller, revocation(&second, Some(bob.issuer()), &bob.mls_key)),
        (bob.caller, revocation(&second, Some(root.issuer()), &bob.mls_key)),
        (root.caller, revocation(&second, Some(root.issuer()), &bob.mls_key)),
        (eve.caller, revocation(&second, None, &dan.person_key)),
        (eve.caller, revocation(&second, None, &eve.person_key)),
        (dan.caller, revocation(&second, None, &dan.mls_key)),
        (dan.caller, revocation(&second, Some(dan.issuer()), &dan.mls_key)),
    ];
    for (caller, request) in wrong {
        world.ask(caller, &request).unwrap_err();
    }
    HelloOf(&second).judge(&world).unwrap();
    world.ask(root.caller, &revocation(&second, Some(root.issuer()), &root.mls_key)).unwrap();
    HelloOf(&second).judge(&world).unwrap_err();
}

/// A relay that was restored has forgotten it, and its author is away: whoever holds it, and may see the person, brings it.
#[test]
fn a_revocation_is_taken_from_whoever_holds_it_as_long_as_its_author_is_served() {
    for by_registrar in [false, true] {
        let (mut world, dan, second) = linked();
        let (bob, eve) = (world.person("bob", Role::Attorney), world.person("eve", Role::Client));
        let root = Human::new("root");
        world.settle(&root, Role::Attorney, Some(&root.endorsement_by(None, Role::Attorney)));
        let held = match by_registrar {
            true => revocation(&second, Some(root.issuer()), &root.mls_key),
            false => revocation(&second, None, &dan.person_key),
        };
        assert!(matches!(world.ask(eve.caller, &held), Err(Refused::NotFound { .. })), "who does not see them");
        world.ask(bob.caller, &held).unwrap();
        HelloOf(&second).judge(&world).unwrap_err();
        world.ask(bob.caller, &held).unwrap();
        // What a registrar's device says that is revoked itself, nobody brings any more.
        world.ask(bob.caller, &revocation(&root, None, &root.person_key)).unwrap();
        let late = revocation(&dan, Some(root.issuer()), &root.mls_key);
        assert!(is_forbidden(&world.ask(bob.caller, &late).unwrap_err()), "{by_registrar}");
        HelloOf(&dan).judge(&world).unwrap();
    }
}

#[test]
fn revocations_are_told_once_in_order_to_those_who_may_see_the_person() {
    let (mut world, dan, second) = linked();
    let (ada, eve) = (world.person("ada", Role::Attorney), world.person("eve", Role::Client));
    let secret = link_invite(&mut world, &dan);
    let third = twin(&dan);
    register(&mut world, &third, registration(&third, &secret)).unwrap();
    for of in [&second, &third] {
        world.ask(dan.caller, &revocation(of, None, &dan.person_key)).unwrap();
    }
    let asked = |world: &mut World, by: Caller, after| match world.ask(by, &Request::Revocations { after }).unwrap() {
        Reply::Revocations { revocations, upto, more, .. } => (revocations.len(), upto, more),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&mut world, ada.caller, 0), (2, 2, false));
    assert_eq!(asked(&mut world, ada.caller, 1), (1, 2, false));
    assert_eq!(asked(&mut world, ada.caller, 2), (0, 2, false));
    assert_eq!(asked(&mut world, eve.caller, 0), (0, 2, false), "strangers learn nothing of it");
    assert_eq!(asked(&mut world, dan.caller, 0), (2, 2, false));
}

#[test]
fn an_invite_whose_device_was_revoked_is_void() {
    let (mut world, dan, second) = linked();
    let secret = InviteSecret::random();
    let said = InviteStatement { issuer: second.issuer(), ..statement(&world, &dan, &secret) };
    file(&mut world, &second, &secret, &said).unwrap();
    let open = Request::OpenInvite { invite: secret.id(), token: secret.token() };
    let third = twin(&dan);
    let shown = |world: &mut World| world.handle(&From::Newcomer(third.link_key()), &open);
    assert!(!matches!(shown(&mut world), Err(Refused::Invite { .. })));
    world.ask(dan.caller, &revocation(&second, None, &dan.person_key)).unwrap();
    assert!(is_invite(&shown(&mut world).unwrap_err()));
    assert!(is_invite(&register(&mut world, &third, registration(&third, &secret)).unwrap_err()));
}

#[test]
fn an_inbox_that_is_anothers_is_no_new_devices() {
    let (mut world, dan, _second) = linked();
    let secret = link_invite(&mut world, &dan);
    let third = twin(&dan);
    let taken = MailboxId::new(*dan.inbox.as_bytes());
    register(&mut world, &third, DeviceRegistration { inbox: taken, ..registration(&third, &secret) }).unwrap_err();
}

/// What waits is nobody's yet: nothing is given to it but by its certificate.
#[test]
fn a_waiting_device_is_let_into_no_mailbox() {
    let (mut world, dan, second) = waiting();
    let ada = world.person("ada", Role::Attorney);
    let mailbox = world.matter(&ada, &[(dan.caller, Rights::MEMBER)]);
    let device = second.caller.device;
    let grant = || vec![Part::Grant { mailbox, device, rights: Rights::READ, resume: false }];
    for by in [&dan, &ada] {
        assert!(matches!(world.post(by.caller, grant()), Err(Refused::NotFound { .. })), "{}", by.handle);
    }
    world.ask(dan.caller, &certify(&second)).unwrap();
    world.post(dan.caller, grant()).unwrap();
}
