//! Who may withdraw an endorsement, and what the relay does from then on; with real keys and signatures.

use privity_protocol::frame::{Blob, HelloBody, NewInvite, Request};
use privity_protocol::identity::{Issuer, Role};
use privity_protocol::ids::DeviceId;
use privity_protocol::invite::{InviteSecret, InviteStatement};
use privity_protocol::suite::SecretKey;

use super::super::world::{Human, World};
use super::*;
use crate::relay::{From, admission};
use crate::store::Store;

struct Firm {
    world: World,
    key: SecretKey,
    /// The registrar.
    ada: Human,
    /// An attorney, whom she has endorsed.
    att: Human,
    /// Another.
    oth: Human,
    /// A client of `att`.
    bob: Human,
}

impl Firm {
    fn new() -> Self {
        let (mut world, key) = (World::new(), SecretKey::generate());
        world.write(&[Write::Organisation(key.public().unwrap())]);
        let [ada, att, oth, bob] = ["ada", "att", "oth", "bob"].map(Human::new);
        world.settle(&ada, Role::Attorney, Some(&ada.endorsement_by(None, Role::Attorney)));
        world.settle(&att, Role::Attorney, Some(&att.endorsement_by(Some(ada.issuer()), Role::Attorney)));
        world.settle(&oth, Role::Attorney, Some(&oth.endorsement_by(Some(ada.issuer()), Role::Attorney)));
        world.settle(&bob, Role::Client, Some(&bob.endorsement_by(Some(att.issuer()), Role::Client)));
        Self { world, key, ada, att, oth, bob }
    }

    fn row(&self, whom: &Human) -> PersonRow {
        self.world.store.person(whom.caller.person).unwrap().unwrap()
    }

    fn said(&self, whom: &Human, issuer: Option<Issuer>) -> EndorsementRevocation {
        let endorsement = self.row(whom).endorsement.unwrap().digest();
        EndorsementRevocation { person: whom.caller.person, endorsement, issuer, at: self.world.now }
    }

    fn withdraw(&mut self, by: Caller, key: &SecretKey, said: &EndorsementRevocation) -> Result<Outcome, Refused> {
        let revocation = Signed::make(Label::EndorsementRevocation, key, said).unwrap();
        self.world.handle(&From::Device(by), &Request::WithdrawEndorsement { revocation })
    }

    /// Ada's device withdraws somebody's.
    fn registrar_withdraws(&mut self, said: &EndorsementRevocation) -> Result<Outcome, Refused> {
        let (caller, key) = (self.ada.caller, self.ada.mls_key.clone());
        self.withdraw(caller, &key, said)
    }

    fn endorse(&mut self, by: &Human, anew: &Endorsement) -> Result<Reply, Refused> {
        let endorsement = Signed::make(Label::Endorsement, &by.mls_key, anew).unwrap();
        self.world.ask(by.caller, &Request::Endorse { person: anew.person, endorsement })
    }

    fn judge(&self, whom: &Human) -> Result<admission::Judged, Refused> {
        let hello = HelloBody {
            newest: 1,
            lowest: 1,
            device: Some(whom.caller.device),
            link_key: whom.link_key(),
            agent: String::new(),
            instance: Some(whom.caller.instance),
        };
        policy::refusal(admission::judge(&self.world.store, &hello)).unwrap()
    }

    fn acts(&self) -> Vec<Act> {
        let rows = self.world.store.as_read().log_rows(0, 99).unwrap();
        let act = |row: crate::store::LogRow| {
            let event: privity_protocol::log::Event = cbor::decode(&row.opening.event, "event").unwrap();
            event.act
        };
        rows.into_iter().map(act).collect()
    }
}

fn is_forbidden<T: std::fmt::Debug>(refused: &Result<T, Refused>) -> bool {
    matches!(refused, Err(Refused::NotAllowed { .. }))
}

#[test]
fn a_withdrawal_ends_everything_and_a_new_endorsement_that_names_it_begins_it_again() {
    let mut firm = Firm::new();
    let publish = Request::PublishKeyPackages { single_use: vec![Blob(vec![1])], last_resort: None };
    firm.world.ask(firm.att.caller, &publish).unwrap();
    let take = Request::TakeKeyPackages { person: firm.att.caller.person, device: None };
    let said = firm.said(&firm.att, Some(firm.ada.issuer()));
    let outcome = firm.registrar_withdraws(&said).unwrap();
    assert!(outcome.wakes.contains(&Wake::Withdrawn { device: firm.att.caller.device }), "its links end");
    let told = |human: &Human| Wake::Person { person: human.caller.person, event: Event::Revoked };
    assert!([&firm.ada, &firm.oth].iter().all(|human| outcome.wakes.contains(&told(human))));
    assert!(!outcome.wakes.contains(&told(&firm.bob)), "he does not see them");
    let by = Some(firm.ada.caller.person);
    assert_eq!(firm.acts(), [Act::EndorsementRevoked { endorsement: said.endorsement, by }]);

    assert_eq!(firm.judge(&firm.att), Err(admission::withdrawn()));
    for request in [Request::People, publish.clone(), Request::Revocations { after: 0 }] {
        assert_eq!(firm.world.ask(firm.att.caller, &request), Err(admission::withdrawn()), "{request:?}");
    }
    assert!(is_forbidden(&firm.world.admit(firm.att.caller)));
    assert!(matches!(firm.world.ask(firm.ada.caller, &take), Err(Refused::NotFound { .. })));
    let Reply::People { people } = firm.world.ask(firm.ada.caller, &Request::People).unwrap() else { panic!() };
    let ready: Vec<(&str, bool)> = people.iter().map(|view| (view.handle.as_str(), view.ready)).collect();
    assert_eq!(ready, [("ada", true), ("att", false), ("bob", true), ("oth", true)]);
    // Whom they have endorsed is served as before, with a chain that leads through them.
    firm.judge(&firm.bob).unwrap();
    let chain = Request::Chain { person: firm.bob.caller.person };
    let Reply::Chain { chain } = firm.world.ask(firm.bob.caller, &chain).unwrap() else { panic!() };
    assert_eq!(chain.len(), 3);
    // The same again is the same.
    firm.registrar_withdraws(&said).unwrap();
    assert_eq!(firm.acts().len(), 1);

    let after = Some(firm.row(&firm.att).withdrawn.unwrap().statement.digest());
    let anew = Endorsement {
        from: firm.world.now.plus_ms(1),
        after,
        ..firm.att.endorsement_by(Some(firm.ada.issuer()), Role::Attorney)
    };
    let ada = std::mem::replace(&mut firm.ada, Human::new("x"));
    assert!(is_forbidden(&firm.endorse(&ada, &Endorsement { after: None, ..anew.clone() })), "a renewal on its way");
    firm.endorse(&ada, &anew).unwrap();
    assert!(firm.judge(&firm.att).unwrap().admitted, "in the instance that it was");
    firm.world.ask(firm.att.caller, &Request::People).unwrap();
    firm.world.ask(ada.caller, &take).unwrap();
    // Filed again after that, as a restored relay is told, it takes nothing back.
    let old = firm.withdraw(ada.caller, &ada.mls_key, &said).unwrap();
    assert!(old.writes.is_empty() && firm.judge(&firm.att).unwrap().ready);
    // Renewed it goes on to name it.
    firm.endorse(&ada, &Endorsement { from: firm.world.now.plus_ms(2), ..anew }).unwrap();
}

#[test]
fn who_may_withdraw_whose_endorsement() {
    let firm = || {
        let mut firm = Firm::new();
        let sec = Human::new("sec");
        firm.world.settle(&sec, Role::Attorney, Some(&sec.endorsement_by(None, Role::Attorney)));
        (firm, sec)
    };
    let (mut world, sec) = firm();
    let keys = [&world.ada, &world.att, &world.oth, &world.bob].map(|human| (human.caller, human.mls_key.clone()));
    let [ada, att, oth, bob] = keys;
    let issuer = |(caller, _): &(Caller, SecretKey)| Some(Issuer { person: caller.person, device: caller.device });
    let organisation = world.key.clone();
    let of_bob = |by| world.said(&world.bob, by);
    let of_att = |by| world.said(&world.att, by);
    let of_ada = |by| world.said(&world.ada, by);
    let of_sec = |by| world.said(&sec, by);
    let wrong = [
        // Another attorney's client; an attorney's colleague; a registrar.
        (&oth, &oth.1, of_bob(issuer(&oth))),
        (&oth, &oth.1, of_att(issuer(&oth))),
        (&att, &att.1, of_sec(issuer(&att))),
        (&bob, &bob.1, of_att(issuer(&bob))),
        // Oneself.
        (&att, &att.1, of_att(issuer(&att))),
        (&ada, &ada.1, of_ada(issuer(&ada))),
        (&ada, &organisation, of_ada(None)),
        // A registrar's device does not withdraw a registrar; the organisation's key nobody else.
        (&ada, &ada.1, of_sec(issuer(&ada))),
        (&ada, &organisation, of_att(None)),
        // In somebody else's name, and by other keys.
        (&att, &att.1, of_bob(issuer(&ada))),
        (&ada, &att.1, of_bob(issuer(&ada))),
        (&ada, &ada.1, of_sec(None)),
    ];
    for (index, (by, key, said)) in wrong.into_iter().enumerate() {
        assert!(world.withdraw(by.0, key, &said).is_err(), "{index}");
    }
    assert!(world.acts().is_empty());
    let right = |by: &str, whom: &str| {
        let (mut firm, sec) = firm();
        let all = [&firm.ada, &firm.att, &firm.oth, &firm.bob, &sec];
        let of = |handle: &str| *all.iter().find(|human| human.handle == handle).unwrap();
        let issuer = (whom != "sec").then(|| of(by).issuer());
        let (caller, key) = (of(by).caller, if whom == "sec" { firm.key.clone() } else { of(by).mls_key.clone() });
        let said = firm.said(of(whom), issuer);
        firm.withdraw(caller, &key, &said).is_ok()
    };
    for (by, whom) in [("ada", "att"), ("ada", "bob"), ("att", "bob"), ("ada", "sec"), ("sec", "att")] {
        assert!(right(by, whom), "{by} {whom}");
    }
}

/// A device is lost while its person is shut out for another reason.
#[test]
fn a_device_that_was_revoked_meanwhile_does_not_come_back_with_its_person() {
    let mut firm = Firm::new();
    let said = firm.said(&firm.att, Some(firm.ada.issuer()));
    firm.registrar_withdraws(&said).unwrap();
    let (person, device, ada) = (firm.att.caller.person, firm.att.caller.device, firm.ada.caller);
    let gone = DeviceRevocation { person, device, issuer: Some(firm.ada.issuer()), at: firm.world.now };
    let revocation = Signed::make(Label::DeviceRevocation, &firm.ada.mls_key, &gone).unwrap();
    firm.world.ask(ada, &Request::RevokeDevice { revocation }).unwrap();
    let anew = Endorsement {
        from: firm.world.now.plus_ms(1),
        after: Some(firm.row(&firm.att).withdrawn.unwrap().statement.digest()),
        ..firm.att.endorsement_by(Some(firm.ada.issuer()), Role::Attorney)
    };
    let ada = std::mem::replace(&mut firm.ada, Human::new("x"));
    firm.endorse(&ada, &anew).unwrap();
    assert!(!firm.row(&firm.att).is_withdrawn());
    assert_eq!(firm.world.store.instance(device).unwrap(), Some(last_instance()));
    assert!(firm.world.admit(firm.att.caller).is_err());
}

/// A relay that was restored has forgotten it, and its author is away: whoever holds it, and may see whom it is about, brings it.
#[test]
fn a_withdrawal_is_taken_from_whoever_holds_it_as_long_as_its_author_is_served() {
    let mut firm = Firm::new();
    let (ada, adas, oth, bob) = (firm.ada.caller, firm.ada.mls_key.clone(), firm.oth.caller, firm.bob.caller);
    let of_att = firm.said(&firm.att, Some(firm.ada.issuer()));
    assert!(firm.withdraw(bob, &adas, &of_att).is_err(), "a client who does not see them");
    let attorneys = firm.said(&firm.bob, Some(firm.att.issuer()));
    let atts = firm.att.mls_key.clone();
    firm.withdraw(oth, &adas, &of_att).unwrap();
    let by = Some(ada.person);
    assert_eq!(firm.acts(), [Act::EndorsementRevoked { endorsement: of_att.endorsement, by }]);
    assert_eq!(firm.judge(&firm.att), Err(admission::withdrawn()));
    // Of whoever is served no more it takes nothing, in whatever hands.
    assert!(is_forbidden(&firm.withdraw(oth, &atts, &attorneys)));
    assert!(is_forbidden(&firm.withdraw(ada, &atts, &attorneys)));
    // One by the organisation's key needs no author.
    let sec = Human::new("sec");
    firm.world.settle(&sec, Role::Attorney, Some(&sec.endorsement_by(None, Role::Attorney)));
    let (organisation, of_sec) = (firm.key.clone(), firm.said(&sec, None));
    firm.withdraw(oth, &organisation, &of_sec).unwrap();
}

/// A clock that is years ahead would have the last word for years.
#[test]
fn statements_from_the_future_are_refused_with_the_reason() {
    let mut firm = Firm::new();
    let ahead = |firm: &Firm, more| firm.world.now.plus_ms(limits::CLOCK_AHEAD_MS + more);
    let told = |refused: Result<Outcome, Refused>| {
        assert!(matches!(&refused, Err(Refused::NotAllowed { what }) if what.contains("clock")), "{refused:?}");
    };
    let said = EndorsementRevocation { at: ahead(&firm, 1), ..firm.said(&firm.bob, Some(firm.ada.issuer())) };
    told(firm.registrar_withdraws(&said));
    let (att, person) = (std::mem::replace(&mut firm.att, Human::new("x")), firm.bob.caller.person);
    let anew = |firm: &Firm, more| Endorsement {
        from: ahead(firm, more),
        ..firm.bob.endorsement_by(Some(att.issuer()), Role::Client)
    };
    let late = Signed::make(Label::Endorsement, &att.mls_key, &anew(&firm, 1)).unwrap();
    told(firm.world.handle(&From::Device(att.caller), &Request::Endorse { person, endorsement: late }));
    // A day is what clocks may differ by.
    let anew = anew(&firm, 0);
    firm.world.put_person(PersonRow { inviter: Some(att.caller.person), ..firm.row(&firm.bob) });
    firm.endorse(&att, &anew).unwrap();
    let said = EndorsementRevocation { at: ahead(&firm, 0), ..firm.said(&firm.bob, Some(firm.ada.issuer())) };
    firm.registrar_withdraws(&said).unwrap();
}

#[test]
fn what_a_registrar_has_withdrawn_no_attorney_gives_back() {
    let mut firm = Firm::new();
    let said = firm.said(&firm.bob, Some(firm.ada.issuer()));
    firm.registrar_withdraws(&said).unwrap();
    firm.world.put_person(PersonRow { inviter: Some(firm.att.caller.person), ..firm.row(&firm.bob) });
    let after = Some(firm.row(&firm.bob).withdrawn.unwrap().statement.digest());
    let anew = |firm: &Firm, by: &Human, from| Endorsement {
        from: firm.world.now.plus_ms(from),
        after,
        ..firm.bob.endorsement_by(Some(by.issuer()), Role::Client)
    };
    let att = std::mem::replace(&mut firm.att, Human::new("x"));
    let by_att = anew(&firm, &att, 1);
    assert!(is_forbidden(&firm.endorse(&att, &by_att)));
    let ada = std::mem::replace(&mut firm.ada, Human::new("x"));
    let by_ada = anew(&firm, &ada, 1);
    firm.endorse(&ada, &by_ada).unwrap();
    // Once it is given back, who invited him renews it like any other.
    let by_att = anew(&firm, &att, 2);
    firm.endorse(&att, &by_att).unwrap();
}

#[test]
fn a_withdrawal_of_what_was_endorsed_anew_since_says_so() {
    let mut firm = Firm::new();
    let old = EndorsementRevocation { at: Timestamp(5), ..firm.said(&firm.bob, Some(firm.ada.issuer())) };
    let newer = Endorsement { from: Timestamp(6), ..firm.bob.endorsement_by(Some(firm.ada.issuer()), Role::Client) };
    let ada = std::mem::replace(&mut firm.ada, Human::new("x"));
    firm.endorse(&ada, &newer).unwrap();
    assert!(matches!(firm.withdraw(ada.caller, &ada.mls_key, &old), Err(Refused::Malformed { .. })));
    // Renewed while it was on its way: what was meant is the person.
    let late = EndorsementRevocation { at: Timestamp(7), ..old };
    firm.withdraw(ada.caller, &ada.mls_key, &late).unwrap();
    assert!(firm.judge(&firm.bob).is_err());
}

#[test]
fn open_invites_of_somebody_withdrawn_are_void() {
    let mut firm = Firm::new();
    let secret = InviteSecret::random();
    let statement = InviteStatement {
        invite: secret.id(),
        issuer: firm.att.issuer(),
        role: Role::Client,
        handle: None,
        name: None,
        expires: firm.world.now.plus_ms(1000),
        links: None,
        replaces: None,
    };
    let statement = Signed::make(Label::Invite, &firm.att.mls_key, &statement).unwrap();
    let filed = NewInvite { token_hash: secret.token_hash(), statement, name: None };
    firm.world.ask(firm.att.caller, &Request::Invite(filed)).unwrap();
    let said = firm.said(&firm.att, Some(firm.ada.issuer()));
    firm.registrar_withdraws(&said).unwrap();
    let eve = Human::new("eve");
    let open = Request::OpenInvite { invite: secret.id(), token: secret.token() };
    assert!(matches!(firm.world.newcomer(&eve, &open), Err(Refused::Invite { .. })));
    let register = Request::Register(Box::new(eve.registration(secret.id(), secret.token(), Role::Client)));
    assert!(matches!(firm.world.newcomer(&eve, &register), Err(Refused::Invite { .. })));
}

/// One counter for both kinds, and for each asker what they may see.
#[test]
fn withdrawals_and_revocations_are_told_in_one_order_and_of_one_person_alone() {
    let mut firm = Firm::new();
    let second = firm.world.device(&firm.oth);
    let revocation = |device: DeviceId, by: &Human, of: &Human| {
        let said = DeviceRevocation { person: of.caller.person, device, issuer: Some(by.issuer()), at: Timestamp(1) };
        let revocation = Signed::make(Label::DeviceRevocation, &by.mls_key, &said).unwrap();
        Request::RevokeDevice { revocation }
    };
    let asked = revocation(second.device, &firm.ada, &firm.oth);
    firm.world.ask(firm.ada.caller, &asked).unwrap();
    let said = firm.said(&firm.att, Some(firm.ada.issuer()));
    firm.registrar_withdraws(&said).unwrap();
    let told = |firm: &mut Firm, by: Caller, request: Request| match firm.world.ask(by, &request).unwrap() {
        Reply::Revocations { revocations, withdrawn, upto, more, identities, .. } => {
            let people: Vec<PersonId> = identities.iter().map(|identity| identity.person).collect();
            (revocations.len(), withdrawn.len(), upto, more, people)
        }
        other => panic!("{other:?}"),
    };
    let (ada, att, oth) = (firm.ada.caller, firm.att.caller.person, firm.oth.caller);
    let bob = firm.bob.caller;
    assert_eq!(told(&mut firm, oth, Request::Revocations { after: 0 }), (1, 1, 2, false, vec![ada.person, att]));
    assert_eq!(told(&mut firm, oth, Request::Revocations { after: 1 }), (0, 1, 2, false, vec![ada.person, att]));
    assert_eq!(told(&mut firm, oth, Request::Revocations { after: 2 }), (0, 0, 2, false, Vec::new()));
    assert_eq!(told(&mut firm, bob, Request::Revocations { after: 0 }), (0, 0, 2, false, Vec::new()));
    let about = |person, after| Request::StatementsAbout { person, after };
    assert_eq!(told(&mut firm, ada, about(att, 0)).1, 1);
    assert_eq!(told(&mut firm, ada, about(att, 0)).0, 0);
    assert_eq!(told(&mut firm, ada, about(oth.person, 0)).0, 1);
    assert_eq!(told(&mut firm, ada, about(oth.person, 1)).0, 0);
    assert_eq!(told(&mut firm, bob, about(att, 0)).1, 0);
}
