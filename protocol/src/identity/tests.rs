//! Chains: only what hybrid signatures say, all the way up to the organisation's key, is believed.

use super::*;
use crate::ids::{DeviceId, PersonId};

/// A person with one device, and whatever a test changes before everything is signed.
struct Someone {
    person: PersonId,
    device: DeviceId,
    person_key: SecretKey,
    mls_key: SecretKey,
}

impl Someone {
    fn new() -> Self {
        let (person, device) = (PersonId::random(), DeviceId::random());
        Self { person, device, person_key: SecretKey::generate(), mls_key: SecretKey::generate() }
    }

    fn issuer(&self) -> Option<Issuer> {
        Some(Issuer { person: self.person, device: self.device })
    }

    fn certificate(&self) -> DeviceCertificate {
        let mls_key = self.mls_key.public().unwrap();
        let (person, device) = (self.person, self.device);
        DeviceCertificate { person, device, link_key: Digest::of(&[b"link"]), mls_key, made_at: Timestamp(0) }
    }

    fn said(&self, role: Role, registrar: bool, issuer: Option<Issuer>) -> Endorsement {
        Endorsement {
            person: self.person,
            person_key: self.person_key.public().unwrap().digest(),
            role,
            registrar,
            handle: "someone".to_owned(),
            name: Digest::of(&[b"name"]),
            issuer,
            from: Timestamp(0),
            until: Timestamp(1),
            confirmed: false,
            adopted: false,
            after: None,
        }
    }

    fn identity(&self, endorsement: Signed) -> Identity {
        let certificate = Signed::make(Label::DeviceCertificate, &self.person_key, &self.certificate()).unwrap();
        Identity {
            person: self.person,
            person_key: self.person_key.public().unwrap(),
            certificates: vec![certificate],
            endorsement,
            line: Vec::new(),
        }
    }

    fn endorsed(&self, by: &SecretKey, said: &Endorsement) -> Identity {
        self.identity(Signed::make(Label::Endorsement, by, said).unwrap())
    }
}

/// Organisation → registrar → attorney → client.
struct Firm {
    organisation: SecretKey,
    registrar: Someone,
    attorney: Someone,
    client: Someone,
}

impl Firm {
    fn new() -> Self {
        Self {
            organisation: SecretKey::generate(),
            registrar: Someone::new(),
            attorney: Someone::new(),
            client: Someone::new(),
        }
    }

    fn key(&self) -> PublicKey {
        self.organisation.public().unwrap()
    }

    fn top(&self) -> Identity {
        self.registrar.endorsed(&self.organisation, &self.registrar.said(Role::Attorney, true, None))
    }

    fn middle(&self) -> Identity {
        let said = self.attorney.said(Role::Attorney, false, self.registrar.issuer());
        self.attorney.endorsed(&self.registrar.mls_key, &said)
    }

    fn bottom(&self) -> Identity {
        self.client.endorsed(&self.attorney.mls_key, &self.client.said(Role::Client, false, self.attorney.issuer()))
    }

    fn chain(&self) -> Vec<Identity> {
        vec![self.bottom(), self.middle(), self.top()]
    }
}

#[test]
fn a_chain_up_to_the_organisation_says_who_somebody_is() {
    let firm = Firm::new();
    let verified = verify_chain(&firm.chain(), &firm.key()).unwrap();
    assert_eq!(verified.person, firm.client.person);
    assert_eq!(verified.endorsement.role, Role::Client);
    assert_eq!(verified.device(firm.client.device), Some(&firm.client.certificate()));
    assert_eq!(verify_chain(&firm.chain()[1..], &firm.key()).unwrap().endorsement.role, Role::Attorney);
    assert!(verify_chain(&firm.chain()[2..], &firm.key()).unwrap().endorsement.registrar);
}

#[test]
fn another_organisations_key_vouches_for_nobody_here() {
    let firm = Firm::new();
    let other = SecretKey::generate().public().unwrap();
    for from in 0..3 {
        assert!(verify_chain(&firm.chain()[from..], &other).is_err());
    }
    let spliced = PublicKey::from_halves(firm.key().ed25519(), other.ml_dsa()).unwrap();
    assert!(verify_chain(&firm.chain(), &spliced).is_err());
    let spliced = PublicKey::from_halves(other.ed25519(), firm.key().ml_dsa()).unwrap();
    assert!(verify_chain(&firm.chain(), &spliced).is_err());
}

#[test]
fn a_chain_with_any_link_altered_is_refused() {
    let firm = Firm::new();
    let good = firm.chain();
    let stranger = Someone::new();
    for link in 0..good.len() {
        let mut chains = Vec::new();
        let mut change = |alter: &dyn Fn(&mut Identity)| {
            let mut chain = good.clone();
            alter(&mut chain[link]);
            chains.push(chain);
        };
        change(&|identity| identity.person = stranger.person);
        change(&|identity| identity.person_key = stranger.person_key.public().unwrap());
        for byte in [0, 63, 64, 3372] {
            change(&|identity| identity.endorsement.signature[byte] ^= 1);
            change(&|identity| identity.certificates[0].signature[byte] ^= 1);
        }
        let middle = good[link].endorsement.body.len() / 2;
        change(&|identity| identity.endorsement.body[middle] ^= 1);
        change(&|identity| identity.endorsement.body.truncate(middle));
        change(&|identity| identity.endorsement.signature.truncate(64));
        change(&|identity| identity.certificates[0].body[middle] ^= 1);
        change(&|identity| {
            identity.certificates =
                vec![Signed::make(Label::DeviceCertificate, &stranger.person_key, &stranger.certificate()).unwrap()];
        });
        for (number, chain) in chains.iter().enumerate() {
            assert!(verify_chain(chain, &firm.key()).is_err(), "link {link}, change {number}");
        }
    }
}

#[test]
fn a_chain_that_lacks_a_link_or_ends_elsewhere_is_refused() {
    let firm = Firm::new();
    let good = firm.chain();
    assert_eq!(verify_chain(&[], &firm.key()).unwrap_err(), PeerMisbehaved::NotEndorsed.into());
    assert!(verify_chain(&good[..2], &firm.key()).is_err());
    assert!(verify_chain(&good[..1], &firm.key()).is_err());
    assert!(verify_chain(&[good[0].clone(), good[2].clone()], &firm.key()).is_err());
    assert!(verify_chain(&[good[1].clone(), good[0].clone(), good[2].clone()], &firm.key()).is_err());
    let own = firm.client.endorsed(&firm.client.mls_key, &firm.client.said(Role::Client, false, firm.client.issuer()));
    assert!(verify_chain(&vec![own; 3], &firm.key()).is_err(), "somebody endorses themselves");
}

#[test]
fn an_issuer_of_the_wrong_role_endorses_nobody() {
    let firm = Firm::new();
    let (attorney, newcomer) = (&firm.attorney, Someone::new());
    let by_role = |role, newcomers| {
        let middle = attorney.endorsed(&firm.registrar.mls_key, &attorney.said(role, false, firm.registrar.issuer()));
        let first = newcomer.endorsed(&attorney.mls_key, &newcomer.said(newcomers, false, attorney.issuer()));
        verify_chain(&[first, middle, firm.top()], &firm.key())
    };
    let all = [Role::Attorney, Role::Staff, Role::Client, Role::Custodian];
    for role in all {
        for newcomers in all {
            let good = role.manages() && newcomers == Role::Client;
            assert_eq!(by_role(role, newcomers).is_ok(), good, "{role:?} endorses {newcomers:?}");
        }
    }
    assert_eq!(by_role(Role::Client, Role::Client).unwrap_err(), PeerMisbehaved::Role("endorsing").into());
}

#[test]
fn only_the_organisation_makes_registrars() {
    let firm = Firm::new();
    let said = firm.attorney.said(Role::Attorney, true, firm.registrar.issuer());
    let identity = firm.attorney.endorsed(&firm.registrar.mls_key, &said);
    let error = verify_chain(&[identity, firm.top()], &firm.key()).unwrap_err();
    assert_eq!(error, PeerMisbehaved::Role("endorsing").into());
}

#[test]
fn a_statement_of_another_kind_or_person_is_no_endorsement() {
    let firm = Firm::new();
    let said = firm.attorney.said(Role::Attorney, false, firm.registrar.issuer());
    let mislabelled = firm.attorney.identity(Signed::make(Label::Invite, &firm.registrar.mls_key, &said).unwrap());
    assert!(verify_chain(&[mislabelled, firm.top()], &firm.key()).is_err());

    let by_person_key = firm.attorney.endorsed(&firm.registrar.person_key, &said);
    assert!(verify_chain(&[by_person_key, firm.top()], &firm.key()).is_err(), "devices endorse, not person keys");

    let other_device = Some(Issuer { person: firm.registrar.person, device: DeviceId::random() });
    let said = firm.attorney.said(Role::Attorney, false, other_device);
    let identity = firm.attorney.endorsed(&firm.registrar.mls_key, &said);
    assert!(verify_chain(&[identity, firm.top()], &firm.key()).is_err());

    let other_person = Some(Issuer { person: PersonId::random(), device: firm.registrar.device });
    let said = firm.attorney.said(Role::Attorney, false, other_person);
    let identity = firm.attorney.endorsed(&firm.registrar.mls_key, &said);
    assert!(verify_chain(&[identity, firm.top()], &firm.key()).is_err());

    let said = Endorsement { handle: "No Handle".to_owned(), ..firm.registrar.said(Role::Attorney, true, None) };
    assert!(verify_chain(&[firm.registrar.endorsed(&firm.organisation, &said)], &firm.key()).is_err());
}

#[test]
fn what_is_too_long_is_refused_before_it_is_verified() {
    let firm = Firm::new();
    let long = vec![firm.top(); limits::CHAIN_MAX + 1];
    assert!(matches!(verify_chain(&long, &firm.key()).unwrap_err(), Error::Malformed(Malformed::TooLarge { .. })));
    let mut many = firm.top();
    many.certificates = vec![many.certificates[0].clone(); limits::DEVICES_PER_PERSON_MAX + 1];
    assert!(matches!(verify_devices(&many).unwrap_err(), Error::Malformed(Malformed::TooLarge { .. })));
    let mut large = firm.top();
    large.endorsement.body = vec![0; limits::STATEMENT_MAX + 1];
    assert!(verify_chain(&[large], &firm.key()).is_err());
}

#[test]
fn a_device_of_somebody_else_is_no_device_of_this_person() {
    let firm = Firm::new();
    let mut identity = firm.top();
    let foreign = DeviceCertificate { person: PersonId::random(), ..firm.registrar.certificate() };
    identity.certificates = vec![Signed::make(Label::DeviceCertificate, &firm.registrar.person_key, &foreign).unwrap()];
    assert_eq!(verify_devices(&identity).unwrap_err(), PeerMisbehaved::Mismatch("a device certificate").into());
}

#[test]
fn handles_have_one_shape_and_look_alikes_one_skeleton() {
    for good in ["ab", "a.b", "smith-jones", "x2", &"a".repeat(32)] {
        check_handle(good).unwrap();
    }
    for bad in ["", "a", "-ab", "ab-", ".ab", "Ab", "a b", "ä", "a_b", &"a".repeat(33)] {
        assert!(check_handle(bad).is_err(), "{bad}");
    }
    for (one, other) in [("smith", "sm1th"), ("bob", "b0b"), ("warner", "wamer"), ("a.b", "ab"), ("clark", "dark")] {
        assert_eq!(handle_skeleton(one), handle_skeleton(other), "{one} {other}");
    }
    assert_ne!(handle_skeleton("ada"), handle_skeleton("ida"));
}

#[test]
fn a_name_is_committed_to_with_a_salt() {
    let (one, other) = (Name::new(" Ada Byron ").unwrap(), Name::new("Ada Byron").unwrap());
    assert_eq!(one.name, other.name);
    assert_ne!(one.commitment(), other.commitment(), "the relay could guess names");
    assert!(Name::new("  ").is_err());
    assert!(Name::new(&"x".repeat(limits::NAME_MAX + 1)).is_err());
}

/// Notices, registrations and bundles are printed by programs that log: no name of a client's is to stand there.
#[test]
fn names_never_print() {
    let name = Name { name: "Ada Byron".to_owned(), salt: [0xab; 16] };
    assert_eq!(format!("{name:?}"), "Name(redacted)");
    assert_eq!(format!("{:?}", Some(&name)), "Some(Name(redacted))");
}
