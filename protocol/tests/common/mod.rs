//! One frame of every kind, and frames made of entropy.

#![expect(clippy::unwrap_used, reason = "used by tests alone")]

use privity_protocol::cbor;
use privity_protocol::content::{Body, Bundle, Content, NamedPerson};
use privity_protocol::error::Refused;
use privity_protocol::frame::{
    AcceptedIdem, Admitted, AdmittedBody, Blob, Entry, EntryBody, Event, Founding, FromRelay, Hello, HelloBody,
    InviteView, NewInvite, Part, PersonView, Post, Registration, Reply, Request, Rights, TakenKeyPackage, ToRelay,
};
use privity_protocol::identity::{Identity, Name, Role, Signed};
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, MessageId, PersonId, Position, Timestamp};
use privity_protocol::suite::{Digest, PUBLIC_KEY_LEN, PublicKey};

/// How many kinds there are of each, for samples of all of them.
const REQUESTS: u8 = 12;
const REPLIES: u8 = 9;
const REFUSALS: u8 = 11;
const EVENTS: u8 = 5;
const PARTS: u8 = 4;
const CONTENTS: u8 = 3;

/// Every kind of frame, named by the schema's rule and by what it is.
pub(crate) fn samples() -> Vec<(String, Vec<u8>)> {
    let seed: Vec<u8> = (0..=255).cycle().skip(7).step_by(3).take(4096).collect();
    let mut source = Source::new(&seed);
    let mut samples = vec![
        ("hello".to_owned(), cbor::encode(&Hello { body: source.some(9), signature: source.some(64) })),
        ("hello-body/device".to_owned(), cbor::encode(&source.hello(true))),
        ("hello-body/newcomer".to_owned(), cbor::encode(&source.hello(false))),
        ("admitted".to_owned(), cbor::encode(&Admitted { body: source.some(9), signature: source.some(64) })),
        ("admitted-body/full".to_owned(), cbor::encode(&source.admitted(true))),
        ("admitted-body/empty".to_owned(), cbor::encode(&source.admitted(false))),
    ];
    for kind in 0..REQUESTS {
        let frame = ToRelay { id: u64::from(kind), request: source.request(kind) };
        samples.push((format!("to-relay/request-{kind}"), cbor::encode(&frame)));
    }
    for kind in 0..PARTS {
        let post = Post { idem: 1, mac: source.digest(), parts: vec![source.part(kind)] };
        samples
            .push((format!("to-relay/part-{kind}"), cbor::encode(&ToRelay { id: 300, request: Request::Post(post) })));
    }
    for kind in 0..REPLIES {
        let frame = FromRelay::Reply { id: u64::from(kind), reply: source.reply(kind) };
        samples.push((format!("from-relay/reply-{kind}"), cbor::encode(&frame)));
    }
    for kind in 0..REFUSALS {
        samples.push((format!("from-relay/refused-{kind}"), cbor::encode(&FromRelay::Refused(source.refused(kind)))));
    }
    for kind in 0..EVENTS {
        samples.push((format!("from-relay/event-{kind}"), cbor::encode(&FromRelay::Event(source.event(kind)))));
    }
    let admitted = Admitted { body: source.some(3), signature: source.some(64) };
    samples.push(("from-relay/admitted".to_owned(), cbor::encode(&FromRelay::Admitted(admitted))));
    for kind in 0..CONTENTS {
        samples.push((format!("content/{kind}"), source.content_of(kind).encode()));
    }
    samples
}

/// Values out of bytes; once these run out, zeros.
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn number(&mut self) -> u64 {
        let bytes = self.below(9);
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn some(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(40);
        self.some(usize::from(length))
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.below(4);
        (0..length).map(|_| one(self)).collect()
    }

    fn maybe<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| one(self))
    }

    fn digest(&mut self) -> Digest {
        Digest::from_slice(&[self.byte(); 48]).unwrap()
    }

    fn key(&mut self) -> PublicKey {
        PublicKey::from_slice(&[self.byte(); PUBLIC_KEY_LEN]).unwrap()
    }

    fn time(&mut self) -> Timestamp {
        Timestamp(self.number())
    }

    fn position(&mut self) -> Position {
        Position { seq: self.number(), chain: self.digest() }
    }

    fn role(&mut self) -> Role {
        [Role::Attorney, Role::Staff, Role::Client, Role::Custodian][usize::from(self.below(4))]
    }

    fn signed(&mut self) -> Signed {
        Signed { body: self.bytes(), signature: self.bytes() }
    }

    fn identity(&mut self) -> Identity {
        Identity {
            person: PersonId::new(self.array()),
            person_key: self.key(),
            certificates: self.list(Self::signed),
            endorsement: self.signed(),
        }
    }

    fn hello(&mut self, device: bool) -> HelloBody {
        HelloBody {
            newest: 1,
            lowest: 1,
            device: device.then(|| DeviceId::new(self.array())),
            link_key: self.key(),
            agent: "privity/0.1".to_owned(),
        }
    }

    fn admitted(&mut self, full: bool) -> AdmittedBody {
        let (idem, parts, mac) = (self.number(), self.digest(), self.digest());
        AdmittedBody {
            version: 1,
            relay_key: self.key(),
            incarnation: self.array(),
            now: self.time(),
            idem: full.then_some(AcceptedIdem { idem, parts, mac }),
            key_packages: 17,
            ready: full,
            organisation: full.then(|| self.key()),
            firm: "Smith & Partners".to_owned(),
        }
    }

    pub(crate) fn asked(&mut self) -> ToRelay {
        let kind = self.below(REQUESTS);
        ToRelay { id: self.number(), request: self.request(kind) }
    }

    fn request(&mut self, kind: u8) -> Request {
        match kind {
            0 => Request::OpenInvite { invite: InviteId::new(self.array()), token: self.array() },
            1 => Request::Register(Box::new(self.registration())),
            2 => Request::Post(Post { idem: self.number(), mac: self.digest(), parts: self.list(Self::any_part) }),
            3 => Request::Subscribe { mailbox: MailboxId::new(self.array()), after: self.maybe(Self::position) },
            4 => Request::Ack { mailbox: MailboxId::new(self.array()), upto: self.number() },
            5 => Request::PublishKeyPackages { single_use: self.list(Self::blob), last_resort: self.maybe(Self::blob) },
            6 => Request::TakeKeyPackages { person: PersonId::new(self.array()) },
            7 => Request::People,
            8 => Request::Chain { person: PersonId::new(self.array()) },
            9 => Request::Invite(NewInvite {
                token_hash: self.digest(),
                statement: self.signed(),
                name: self.maybe(Self::blob),
            }),
            10 => Request::Newcomers,
            _ => Request::Endorse { person: PersonId::new(self.array()), endorsement: self.signed() },
        }
    }

    fn registration(&mut self) -> Registration {
        Registration {
            invite: InviteId::new(self.array()),
            token: self.array(),
            person: PersonId::new(self.array()),
            person_key: self.key(),
            certificate: self.signed(),
            handle: self.text(),
            role: self.role(),
            name: self.bytes(),
            proof: self.digest(),
            inbox: MailboxId::new(self.array()),
            organisation: self.maybe(|source| Founding { key: source.key(), endorsement: source.signed() }),
        }
    }

    fn blob(&mut self) -> Blob {
        Blob(self.bytes())
    }

    fn any_part(&mut self) -> Part {
        let kind = self.below(PARTS);
        self.part(kind)
    }

    fn part(&mut self, kind: u8) -> Part {
        let mailbox = MailboxId::new(self.array());
        match kind {
            0 => Part::Create { mailbox },
            1 => Part::Append {
                mailbox,
                base: self.position(),
                fence: self.flag(),
                envelope: self.blob(),
                keep_ms: self.number(),
            },
            2 => Part::Grant { mailbox, device: DeviceId::new(self.array()), rights: Rights(self.byte()) },
            _ => Part::Revoke { mailbox, device: DeviceId::new(self.array()) },
        }
    }

    pub(crate) fn told(&mut self) -> FromRelay {
        match self.below(4) {
            0 => FromRelay::Admitted(Admitted { body: self.bytes(), signature: self.bytes() }),
            1 => {
                let kind = self.below(REFUSALS);
                FromRelay::Refused(self.refused(kind))
            }
            2 => {
                let kind = self.below(REPLIES);
                FromRelay::Reply { id: self.number(), reply: self.reply(kind) }
            }
            _ => {
                let kind = self.below(EVENTS);
                FromRelay::Event(self.event(kind))
            }
        }
    }

    fn refused(&mut self, kind: u8) -> Refused {
        match kind {
            0 => Refused::Stale { latest: self.number() },
            1 => Refused::Slow { after_ms: self.number() },
            2 => Refused::NotAllowed { what: self.text() },
            3 => Refused::Unknown,
            4 => Refused::NotFound { what: self.text() },
            5 => Refused::Malformed { what: self.text() },
            6 => Refused::Invite { what: self.text() },
            7 => Refused::Handle { what: self.text() },
            8 => Refused::Full { what: self.text() },
            9 => Refused::Version,
            _ => Refused::Storage,
        }
    }

    fn reply(&mut self, kind: u8) -> Reply {
        match kind {
            0 => {
                let kind = self.below(REFUSALS);
                Reply::Refused(self.refused(kind))
            }
            1 => Reply::Done,
            2 => Reply::Invite(Box::new(InviteView {
                statement: self.maybe(Self::signed),
                name: self.maybe(Self::blob),
                chain: self.list(Self::identity),
            })),
            3 => Reply::Posted { seqs: self.list(Self::number) },
            4 => Reply::Subscribed { start: self.position(), head: self.number() },
            5 => Reply::KeyPackages {
                packages: self.list(|source| TakenKeyPackage {
                    device: DeviceId::new(source.array()),
                    inbox: MailboxId::new(source.array()),
                    package: source.blob(),
                }),
            },
            6 => Reply::People {
                people: self.list(|source| PersonView {
                    person: PersonId::new(source.array()),
                    handle: source.text(),
                    role: source.role(),
                    ready: source.flag(),
                    inviter: source.maybe(|source| PersonId::new(source.array())),
                }),
            },
            7 => Reply::Chain { chain: self.list(Self::identity) },
            _ => Reply::Newcomers { newcomers: self.list(Self::registration) },
        }
    }

    fn event(&mut self, kind: u8) -> Event {
        match kind {
            0 => Event::Entries { mailbox: MailboxId::new(self.array()), entries: self.list(Self::entry) },
            1 => Event::Ended { mailbox: MailboxId::new(self.array()) },
            2 => Event::Newcomer,
            3 => Event::Endorsed,
            _ => Event::KeyPackagesLow { left: u32::from(self.byte()) },
        }
    }

    fn entry(&mut self) -> Entry {
        let body = if self.flag() { EntryBody::Envelope(self.blob()) } else { EntryBody::Expired(self.digest()) };
        Entry { seq: self.number(), fence: self.flag(), body }
    }

    pub(crate) fn content(&mut self) -> Content {
        let kind = self.below(CONTENTS);
        self.content_of(kind)
    }

    fn content_of(&mut self, kind: u8) -> Content {
        let body = match kind {
            0 => Body::Text(self.text()),
            1 => Body::Bundle(Bundle {
                identities: self.list(Self::identity),
                names: self.list(|source| NamedPerson {
                    person: PersonId::new(source.array()),
                    name: Name { name: source.text(), salt: source.array() },
                    self_stated: source.flag(),
                }),
            }),
            _ => Body::Unknown { kind: 1000 + u32::from(self.byte()) },
        };
        Content { id: MessageId::new(self.array()), sent_at: self.time(), body }
    }
}
