//! A matter's rules on real MLS: who may do what, what is void, what a newcomer and a removed device can read.

use super::*;
use crate::content::NamedPerson;
use crate::envelope;
use crate::identity::{DeviceCertificate, Endorsement, Identity, Name, Signed};
use crate::ids::Timestamp;
use crate::suite::Label;

struct Person {
    me: Me,
    packages: KeyPackages,
    identity: Identity,
    participant: Participant,
}

fn person(role: Role) -> Person {
    let (person, device) = (PersonId::random(), DeviceId::random());
    let person_secret = SecretKey::generate();
    let person_key = person_secret.public().unwrap();
    let key = SecretKey::generate();
    let certificate = DeviceCertificate {
        person,
        device,
        link_key: Digest::of(&[b"link"]),
        mls_key: key.public().unwrap(),
        made_at: Timestamp(0),
    };
    let signed = Signed::make(Label::DeviceCertificate, &person_secret, &certificate).unwrap();
    let endorsement = Endorsement {
        person,
        person_key: person_key.digest(),
        role,
        registrar: false,
        handle: "someone".to_owned(),
        name: Name::new("Someone").unwrap().commitment(),
        issuer: None,
        from: Timestamp(0),
        until: Timestamp(1),
        confirmed: false,
        adopted: false,
        after: None,
    };
    let credential = LeafCredential { person, device, certificate: signed.digest() };
    Person {
        me: Me { credential, key },
        packages: KeyPackages::default(),
        participant: Participant { person, role, person_key: person_key.digest() },
        identity: Identity {
            person,
            person_key,
            certificates: vec![signed],
            endorsement: Signed::make(Label::Endorsement, &person_secret, &endorsement).unwrap(),
            line: Vec::new(),
        },
    }
}

fn context(people: &[&Person]) -> MatterContext {
    let mut people: Vec<Participant> = people.iter().map(|person| person.participant).collect();
    people.sort();
    MatterContext {
        continues: None,
        rules: RULES,
        mailbox: MailboxId::new([9; 16]),
        title: "Smith v Jones".to_owned(),
        orders: [0; 48],
        people,
    }
}

fn seen() -> Seen {
    Seen::at(Position::start(MailboxId::new([9; 16])))
}

fn add(matter: &mut Matter, everyone: &[&Person], newcomer: &Person) -> Result<Built, Error> {
    let (package, _, _) = key_package(&newcomer.me, &newcomer.packages, false).unwrap();
    let identities: Vec<Identity> = everyone.iter().map(|person| person.identity.clone()).collect();
    let names =
        vec![NamedPerson { person: newcomer.identity.person, name: Name::new("N").unwrap(), self_stated: true }];
    let bundle = Bundle { identities, names };
    let certificates = Certificates::of(&bundle.identities).unwrap();
    let change = Change {
        add: vec![package],
        context: Some(context(everyone)),
        companion: Some(Companion { bundle, seen: seen().position, line: Vec::new(), fates: Vec::new() }),
        ..Change::default()
    };
    matter.build(change, &seen(), certificates)
}

fn pair() -> (Person, Matter, Person, Matter) {
    let (ada, bob) = (person(Role::Attorney), person(Role::Client));
    let mut hers = Matter::create(&ada.me, &ada.packages, MatterId::random(), &context(&[&ada])).unwrap();
    let built = add(&mut hers, &[&ada, &bob], &bob).unwrap();
    hers.apply_own(&built.secrets, built.epoch).unwrap();
    let (his, _) = Matter::join(&bob.me, &bob.packages, &built.welcome.unwrap()).unwrap();
    (ada, hers, bob, his)
}

#[test]
fn two_devices_read_each_other_and_sizes_are_buckets() {
    let (_ada, mut hers, bob, mut his) = pair();
    for length in [0, 10, 480, 570, 5_000, 60_000, 250_000] {
        let content = crate::content::Content::text(
            crate::ids::MessageId::random(),
            Timestamp(1_800_000_000_000),
            &"x".repeat(length),
        )
        .unwrap()
        .encode();
        let sealed = his.seal(&envelope::pad(&content).unwrap(), &seen()).unwrap();
        let wrapped = envelope::wrap(envelope::Class::Message, &sealed).unwrap();
        let bucket = *limits::BUCKETS.iter().find(|bucket| **bucket >= wrapped.len()).unwrap();
        assert!(bucket - wrapped.len() < 64, "{length}: {} in {bucket}", wrapped.len());
        if length <= 480 {
            assert_eq!(bucket, limits::BUCKETS[0]);
        }
        let opened = hers.open(&sealed).unwrap();
        assert_eq!(opened.sender.credential, bob.me.credential);
        assert_eq!(envelope::unpad(&opened.plaintext).unwrap(), content);
    }
}

#[test]
fn a_saved_matter_loads_and_goes_on() {
    let (ada, mut hers, bob, mut his) = pair();
    let one = his.seal(&[1; 100], &seen()).unwrap();
    hers.open(&one).unwrap();
    let id = hers.id().unwrap();
    let mut hers = Matter::load(&ada.me, &ada.packages, id, hers.state()).unwrap();
    let mut his = Matter::load(&bob.me, &bob.packages, id, his.state()).unwrap();
    let two = his.seal(&[2; 100], &seen()).unwrap();
    assert_eq!(hers.open(&two).unwrap().plaintext, [2; 100]);
    assert!(hers.open(&one).is_err(), "a replay opens");
}

#[test]
fn a_client_may_not_add_or_remove_others() {
    let (ada, _hers, bob, mut his) = pair();
    let eve = person(Role::Client);
    assert!(add(&mut his, &[&ada, &bob, &eve], &eve).is_err());
    let remove = Change { remove: vec![0], ..Change::default() };
    assert!(his.build(remove, &seen(), Certificates::default()).is_err());
    let rename = Change {
        context: Some(MatterContext { title: "Mine".to_owned(), ..his.context().unwrap() }),
        ..Change::default()
    };
    assert!(his.build(rename, &seen(), Certificates::default()).is_err());
}

#[test]
fn an_added_device_must_be_certified_by_the_listed_person_key() {
    let (ada, mut hers, bob, _his) = pair();
    let eve = person(Role::Client);
    let mut other = person(Role::Client);
    other.participant.person = eve.participant.person;
    let forged = Person { participant: other.participant, ..person(Role::Client) };
    let stranger = Person { identity: eve.identity.clone(), me: eve.me.clone(), ..forged };
    assert!(add(&mut hers, &[&ada, &bob, &stranger], &eve).is_err(), "listed under another key");
    assert!(add(&mut hers, &[&ada, &bob], &eve).is_err(), "not listed");
    assert!(add(&mut hers, &[&ada, &bob, &eve], &eve).is_ok());
}

#[test]
fn a_removed_device_reads_nothing_after_and_a_newcomer_nothing_before() {
    let (ada, mut hers, bob, mut his) = pair();
    let before = his.seal(&[1; 100], &seen()).unwrap();
    hers.open(&before).unwrap();
    let eve = person(Role::Staff);
    let built = add(&mut hers, &[&ada, &bob, &eve], &eve).unwrap();
    hers.apply_own(&built.secrets, built.epoch).unwrap();
    let everyone = [ada.identity.clone(), bob.identity.clone(), eve.identity.clone()];
    let applied = his.apply(&built.commit, Certificates::of(&everyone).unwrap()).unwrap();
    assert_eq!(applied.added.len(), 1);
    let (mut theirs, companion) = Matter::join(&eve.me, &eve.packages, &built.welcome.unwrap()).unwrap();
    assert_eq!(companion.bundle.identities.len(), 3);
    assert!(theirs.open(&before).is_err());

    let leaf = hers.members().iter().find(|member| member.credential == bob.me.credential).unwrap().leaf;
    let change = Change { remove: vec![leaf], context: Some(context(&[&ada, &eve])), ..Change::default() };
    let built = hers.build(change, &seen(), Certificates::default()).unwrap();
    hers.apply_own(&built.secrets, built.epoch).unwrap();
    theirs.apply(&built.commit, Certificates::default()).unwrap();
    let applied = his.apply(&built.commit, Certificates::default()).unwrap();
    assert!(applied.removed_me);
    let after = hers.seal(&[3; 100], &seen()).unwrap();
    assert!(theirs.open(&after).is_ok());
    assert!(his.open(&after).is_err());
}

#[test]
fn an_own_commit_of_another_epoch_is_never_applied() {
    let (ada, mut hers, bob, _his) = pair();
    let (eve, fay) = (person(Role::Client), person(Role::Client));
    let one = add(&mut hers, &[&ada, &bob, &eve], &eve).unwrap();
    let two = add(&mut hers, &[&ada, &bob, &fay], &fay).unwrap();
    hers.apply_own(&one.secrets, one.epoch).unwrap();
    assert!(hers.apply_own(&two.secrets, two.epoch).is_err());
}

#[test]
fn a_commit_without_its_certificates_is_void() {
    let (ada, mut hers, bob, mut his) = pair();
    let eve = person(Role::Client);
    let built = add(&mut hers, &[&ada, &bob, &eve], &eve).unwrap();
    assert!(his.apply(&built.commit, Certificates::default()).is_err());
}

/// Two Commits of one epoch must not come from one key: what the first used up is in the state, even if it is never applied.
#[test]
fn building_a_commit_uses_up_a_key_of_the_saved_state() {
    let (_ada, mut hers, _bob, _his) = pair();
    let (before, epoch) = (hers.state(), hers.epoch());
    hers.build(Change::default(), &seen(), Certificates::default()).unwrap();
    assert_ne!(before, hers.state());
    assert_eq!(epoch, hers.epoch());
}
