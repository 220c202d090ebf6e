//! One frame of every kind, and frames made of entropy.

#![expect(clippy::unwrap_used, clippy::panic, reason = "used by tests alone")]

pub(crate) mod json;

use minicbor::bytes::ByteArray;
use privity_protocol::between::{
    Between, Body as NoteBody, DeviceName, EndorsedNewcomer, Note, Piece, Received, SealedNote, Segment, SharedInvite,
    Transfer,
};
use privity_protocol::cbor;
use privity_protocol::content::{Body, Bundle, Content, NamedPerson};
use privity_protocol::device::state::{Record, RecordBody};
use privity_protocol::error::Refused;
use privity_protocol::frame::{
    AcceptedIdem, Admitted, AdmittedBody, AdoptionView, Blob, DeviceRegistration, Entry, EntryBody, Event, Founding,
    FromRelay, Hello, HelloBody, Instance, Interval, InviteView, NewInvite, NewKey, Part, PersonView, Post, ProvedLeaf,
    Recovery, RecoveryFiling, RecoveryView, Registration, Reply, Request, Rights, TakenKeyPackage, ToRelay,
};
use privity_protocol::identity::{Identity, Name, Role, Signed, Step};
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use privity_protocol::invite::{InviteSecret, InviteState, Standing};
use privity_protocol::log::{LogHead, LogKeys, Opening, TreeHash};
use privity_protocol::matter::{Companion, Continues, LeafCredential, MatterContext, Participant, RULES, Seen};
use privity_protocol::rescue::Fate;
use privity_protocol::secret::Secret;
use privity_protocol::suite::{Digest, Fingerprint, PUBLIC_KEY_LEN, PublicKey, SecretKey};

/// The kinds of each, by number.
const REQUESTS: [(u8, &str); 34] = [
    (0, "open invite"),
    (1, "register"),
    (2, "post"),
    (3, "subscribe"),
    (4, "acknowledge"),
    (5, "publish key packages"),
    (6, "take key packages"),
    (7, "people"),
    (8, "chain"),
    (9, "invite"),
    (10, "newcomers"),
    (11, "endorse"),
    (12, "roster"),
    (13, "checkpoint"),
    (14, "consistency"),
    (15, "history"),
    (20, "invites"),
    (21, "cancel invite"),
    (22, "renewals"),
    (30, "register device"),
    (31, "waiting devices"),
    (32, "certify device"),
    (33, "certified"),
    (34, "linked"),
    (35, "revoke device"),
    (36, "revocations"),
    (40, "set recovery"),
    (41, "open recovery"),
    (42, "recover"),
    (43, "replace key"),
    (50, "adoptable"),
    (70, "withdraw an endorsement"),
    (71, "statements about somebody"),
    (80, "adoption"),
];
const REPLIES: [(u8, &str); 21] = [
    (0, "refused"),
    (1, "done"),
    (2, "invite"),
    (3, "posted"),
    (4, "subscribed"),
    (5, "key packages"),
    (6, "people"),
    (7, "chain"),
    (8, "newcomers"),
    (9, "roster"),
    (10, "checkpoint"),
    (11, "consistency"),
    (12, "history"),
    (20, "invites"),
    (21, "chains"),
    (30, "waiting devices"),
    (31, "certified"),
    (32, "revocations"),
    (40, "recovery"),
    (50, "adoptable"),
    (80, "adoption"),
];
const REFUSALS: [&str; 13] = [
    "stale",
    "slow",
    "not allowed",
    "unknown",
    "not found",
    "malformed",
    "invite",
    "handle",
    "full",
    "version",
    "storage",
    "replaced",
    "reused",
];
const EVENTS: [(u8, &str); 7] = [
    (0, "entries"),
    (1, "ended"),
    (2, "newcomer"),
    (3, "endorsed"),
    (4, "key packages low"),
    (30, "devices"),
    (31, "revoked"),
];
/// Kinds from here on take what is left of the bytes: known answers of the others stay as they were.
const LATER: u8 = 70;
const PARTS: [&str; 4] = ["create", "append", "grant", "revoke"];
const NOTES: [(u32, &str); 6] =
    [(1, "invites"), (2, "invite-gone"), (3, "endorsed"), (4, "names"), (5, "transfer"), (6, "received")];
const CONTENTS: [&str; 3] = ["text", "bundle", "of an unknown kind"];

/// Every kind of frame, named by the schema's rule and by what it is: with everything in it, and with as little as can be.
pub(crate) fn samples() -> Vec<(String, Vec<u8>)> {
    let mut samples = samples_of(true);
    for (name, bytes) in samples_of(false) {
        let bare = samples.iter().all(|(other, full)| *other != name || full.len() != bytes.len());
        if bare {
            samples.push((name + ", bare", bytes));
        }
    }
    let (mailbox, device) = (MailboxId::new([9; 16]), DeviceId::new([7; 16]));
    let parts = vec![Part::Grant { mailbox, device, rights: Rights::MEMBER, resume: false }];
    let post = Post { idem: 1, mac: Digest::of(&[]), parts };
    let frame = ToRelay { id: 300, request: Request::Post(post) };
    samples.push(("to-relay/part 2 grant, anew".to_owned(), cbor::encode(&frame)));
    for (name, entry) in entries() {
        let event = Event::Entries { mailbox, entries: vec![entry] };
        samples.push((format!("from-relay/entry {name}"), cbor::encode(&FromRelay::Event(event))));
    }
    samples
}

fn samples_of(full: bool) -> Vec<(String, Vec<u8>)> {
    let seed: Vec<u8> = (0..=255).cycle().skip(7).step_by(3).take(8192).collect();
    let mut source = Source { fill: Some(full), ..Source::new(&seed) };
    let mut samples = vec![
        ("hello/hello".to_owned(), cbor::encode(&Hello { body: source.some(9), signature: source.some(64) })),
        ("hello-body/hello's body".to_owned(), cbor::encode(&source.hello())),
        ("admitted/admitted".to_owned(), cbor::encode(&Admitted { body: source.some(9), signature: source.some(64) })),
        ("admitted-body/admitted's body".to_owned(), cbor::encode(&source.admitted())),
    ];
    let requests = |source: &mut Source<'_>, samples: &mut Vec<(String, Vec<u8>)>, later: bool| {
        for (kind, name) in REQUESTS.into_iter().filter(|(kind, _)| (*kind >= LATER) == later) {
            let frame = ToRelay { id: u64::from(kind), request: source.request(kind) };
            samples.push((format!("to-relay/request {kind} {name}"), cbor::encode(&frame)));
        }
    };
    requests(&mut source, &mut samples, false);
    for (kind, name) in (0..).zip(PARTS) {
        let post = Post { idem: 1, mac: source.digest(), parts: vec![source.part(kind)] };
        let frame = ToRelay { id: 300, request: Request::Post(post) };
        samples.push((format!("to-relay/part {kind} {name}"), cbor::encode(&frame)));
    }
    for (kind, name) in REPLIES {
        // What came later is made of noise of its own, so that it changes nothing of what was there.
        let mut later = Source::of(&seed, full);
        let source = if kind < 50 { &mut source } else { &mut later };
        let frame = FromRelay::Reply { id: u64::from(kind), reply: source.reply(kind) };
        samples.push((format!("from-relay/reply {kind} {name}"), cbor::encode(&frame)));
    }
    for (kind, name) in (0..).zip(REFUSALS) {
        let frame = FromRelay::Refused(source.refused(kind));
        samples.push((format!("from-relay/refused {kind} {name}"), cbor::encode(&frame)));
    }
    for (kind, name) in EVENTS {
        samples.push((format!("from-relay/event {kind} {name}"), cbor::encode(&FromRelay::Event(source.event(kind)))));
    }
    let admitted = Admitted { body: source.some(3), signature: source.some(64) };
    samples.push(("from-relay/admitted".to_owned(), cbor::encode(&FromRelay::Admitted(admitted))));
    for (kind, name) in (0..).zip(CONTENTS) {
        samples.push((format!("content/{name}"), source.content_of(kind).encode()));
    }
    samples.push(("seen/authenticated data".to_owned(), cbor::encode(&source.seen())));
    samples.push(("matter-context/matter's context".to_owned(), cbor::encode(&source.context())));
    samples.push(("companion/companion".to_owned(), cbor::encode(&source.companion())));
    samples.push(("leaf-credential/credential".to_owned(), cbor::encode(&source.credential())));
    samples.push(("between/note".to_owned(), cbor::encode(&source.sealed_note())));
    samples.push(("between/piece".to_owned(), cbor::encode(&Source::of(&seed, full).piece())));
    samples.push(("segments/segments".to_owned(), cbor::encode(&Source::of(&seed, full).segments())));
    for (kind, name) in NOTES {
        let mut later = Source::of(&seed, full);
        let note = if kind < 5 { source.note(kind) } else { later.note(kind) };
        samples.push((format!("note/{name}"), note.sign(&SecretKey::generate()).unwrap().body));
        samples.push((format!("note-{name}/{name}"), note.body.encode().1));
    }
    requests(&mut source, &mut samples, true);
    samples
}

/// An entry with and without its envelope, with and without who posted it.
fn entries() -> [(&'static str, Entry); 4] {
    let there = EntryBody::Envelope(Blob(vec![1, 1, 0xab]));
    let expired = EntryBody::Expired(Digest::of(&[&[1, 1, 0xab]]));
    let by = Some(DeviceId::new([7; 16]));
    let entry = |fence, body: &EntryBody, by| Entry { seq: 5, fence, body: body.clone(), by };
    [
        ("with its envelope", entry(false, &there, None)),
        ("with its envelope and poster", entry(false, &there, by)),
        ("expired", entry(true, &expired, None)),
        ("expired, with its poster", entry(true, &expired, by)),
    ]
}

/// Values out of bytes; once these run out, zeros.
pub(crate) struct Source<'a> {
    bytes: &'a [u8],
    /// Whether everything that may be absent is there, if that is not for the bytes to say.
    fill: Option<bool>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, fill: None }
    }

    /// One of its own for what came later, so that it changes nothing of what was there.
    fn of(seed: &'a [u8], full: bool) -> Self {
        Self { fill: Some(full), ..Self::new(seed) }
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn one_of<T>(&mut self, kinds: &[T]) -> u8 {
        self.below(u8::try_from(kinds.len()).unwrap())
    }

    fn flag(&mut self) -> bool {
        let odd = self.byte() & 1 == 1;
        self.fill.unwrap_or(odd)
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
        let any = self.below(4);
        let length = self.fill.map_or(any, u8::from);
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
            line: self.list(Self::step),
        }
    }

    fn hello(&mut self) -> HelloBody {
        let device = self.flag();
        HelloBody {
            newest: 1,
            lowest: 1,
            device: device.then(|| DeviceId::new(self.array())),
            link_key: self.key(),
            agent: "privity/0.1".to_owned(),
            instance: device.then(|| Instance { number: self.number(), nonce: ByteArray::from(self.array()) }),
        }
    }

    fn admitted(&mut self) -> AdmittedBody {
        let full = self.flag();
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
            rotations: Vec::new(),
        }
    }

    fn seen(&mut self) -> Seen {
        let (roster, bundle) = (self.maybe(Self::digest), self.maybe(Self::digest));
        Seen { position: self.position(), roster, bundle, repair: self.maybe(Self::digest) }
    }

    fn context(&mut self) -> MatterContext {
        MatterContext {
            rules: RULES,
            mailbox: MailboxId::new(self.array()),
            title: self.text(),
            orders: [0; 48],
            people: self.list(|source| Participant {
                person: PersonId::new(source.array()),
                role: source.role(),
                person_key: source.digest(),
            }),
            continues: self.maybe(|source| Continues { group: MatterId::new(source.array()), epoch: source.number() }),
        }
    }

    fn sealed_note(&mut self) -> Between {
        Between::Note(SealedNote { reference: self.blob(), kem_output: self.blob(), ciphertext: self.blob() })
    }

    fn piece(&mut self) -> Between {
        let transfer = ByteArray::from(self.array());
        Between::Piece(Piece { transfer, index: self.number(), last: self.flag(), sealed: self.blob() })
    }

    fn segments(&mut self) -> Vec<Segment> {
        self.list(|source| {
            let matter = MatterId::new(source.array());
            let what = RecordBody::Text { id: MessageId::new(source.array()), text: source.text() };
            let (from, device) = (PersonId::new(source.array()), DeviceId::new(source.array()));
            let (cursor, seq, at) = (source.number(), source.number(), source.time());
            let record = Record { cursor, matter, seq, from: Some(from), device: Some(device), at, what };
            let joined = Record { from: None, device: None, what: RecordBody::Joined, ..record.clone() };
            let records = [record, joined].iter().map(|record| Blob(cbor::encode(record))).collect();
            Segment { matter, group: MatterId::new(source.array()), mailbox: MailboxId::new(source.array()), records }
        })
    }

    fn name(&mut self) -> Name {
        Name { name: self.text(), salt: self.array() }
    }

    fn note(&mut self, kind: u32) -> Note {
        let body = match kind {
            1 => NoteBody::Invites(self.list(|source| {
                let mut invite = SharedInvite {
                    secret: InviteSecret::new(source.array()),
                    role: source.role(),
                    statement: source.digest(),
                    name: source.maybe(Self::name),
                    expires: source.time(),
                    replaces: source.maybe(|source| PersonId::new(source.array())),
                    relay: source.maybe(|source| Fingerprint::new(source.array())),
                    by: None,
                };
                // Without noise of its own, which would change all that follows.
                invite.by = invite.relay.map(|_| DeviceId::new([9; 16]));
                invite
            })),
            2 => NoteBody::InviteGone(InviteId::new(self.array())),
            3 => NoteBody::Endorsed(Box::new(EndorsedNewcomer {
                invite: InviteId::new(self.array()),
                identity: self.identity(),
                name: self.maybe(Self::name),
            })),
            5 => {
                let (id, key) = (ByteArray::from(self.array()), Secret::new(self.some(32)));
                NoteBody::Transfer(Transfer { id, key, messages: self.number() })
            }
            6 => {
                let transfer = ByteArray::from(self.array());
                NoteBody::Received(Received { transfer, upto: self.number(), missing: self.flag() })
            }
            _ => NoteBody::Names(self.list(|source| DeviceName {
                device: DeviceId::new(source.array()),
                name: source.text(),
                at: source.time(),
            })),
        };
        Note { from: DeviceId::new(self.array()), to: DeviceId::new(self.array()), at: self.time(), body }
    }

    fn log_head(&mut self) -> LogHead {
        let root = TreeHash::new(self.array());
        LogHead { incarnation: self.array::<16>().into(), size: self.number(), root }
    }

    fn companion(&mut self) -> Companion {
        Companion {
            bundle: self.bundle(),
            seen: self.position(),
            line: self.list(Self::blob),
            fates: self.list(|source| Fate {
                person: PersonId::new(source.array()),
                number: u32::try_from(source.number() % 1000).unwrap(),
                out: source.number() % 2 == 0,
            }),
        }
    }

    fn credential(&mut self) -> LeafCredential {
        LeafCredential {
            person: PersonId::new(self.array()),
            device: DeviceId::new(self.array()),
            certificate: self.digest(),
        }
    }

    pub(crate) fn asked(&mut self) -> ToRelay {
        let kind = REQUESTS[usize::from(self.one_of(&REQUESTS))].0;
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
            6 => Request::TakeKeyPackages {
                person: PersonId::new(self.array()),
                device: self.maybe(|source| DeviceId::new(source.array())),
            },
            7 => Request::People,
            8 => Request::Chain { person: PersonId::new(self.array()) },
            9 => Request::Invite(NewInvite {
                token_hash: self.digest(),
                statement: self.signed(),
                name: self.maybe(Self::blob),
            }),
            10 => Request::Newcomers,
            11 => Request::Endorse { person: PersonId::new(self.array()), endorsement: self.signed() },
            12 => Request::Roster { mailbox: MailboxId::new(self.array()) },
            13 => Request::Checkpoint,
            14 => Request::Consistency { from: self.number(), to: self.number() },
            15 => Request::History { person: PersonId::new(self.array()), after: self.number(), size: self.number() },
            20 => Request::Invites,
            21 => Request::CancelInvite { invite: InviteId::new(self.array()) },
            22 => Request::Renewals,
            30 => Request::RegisterDevice(Box::new(self.device_registration())),
            31 => Request::WaitingDevices,
            32 => Request::CertifyDevice { certificate: self.signed(), pack: self.blob() },
            33 => Request::Certified,
            34 => Request::Linked,
            35 => Request::RevokeDevice { revocation: self.signed() },
            36 => Request::Revocations { after: self.number() },
            40 => Request::SetRecovery(Box::new(RecoveryFiling {
                token_hash: self.digest(),
                statement: self.signed(),
                note: self.blob(),
            })),
            41 => Request::OpenRecovery { handle: self.text(), token: self.array() },
            42 => Request::Recover(Box::new(Recovery {
                handle: self.text(),
                token: self.array(),
                person_key: self.key(),
                statement: self.signed(),
                certificate: self.signed(),
                stays: self.list(Self::signed),
                revocations: self.list(Self::signed),
                inbox: MailboxId::new(self.array()),
            })),
            50 => Request::Adoptable,
            43 => {
                let mut later = Self { ..*self };
                Request::ReplaceKey(Box::new(NewKey {
                    person_key: self.key(),
                    statement: self.signed(),
                    certificates: self.list(Self::signed),
                    recovery: self.maybe(Self::signed),
                    line: later.list(Self::step),
                    revocations: later.list(Self::signed),
                }))
            }
            70 => Request::WithdrawEndorsement { revocation: self.signed() },
            80 => Request::Adoption { person: PersonId::new(self.array()) },
            _ => Request::StatementsAbout { person: PersonId::new(self.array()), after: self.number() },
        }
    }

    fn step(&mut self) -> Step {
        Step { key: self.key(), statement: self.signed(), recovery: self.maybe(Self::signed) }
    }

    fn device_registration(&mut self) -> DeviceRegistration {
        DeviceRegistration {
            invite: InviteId::new(self.array()),
            token: self.array(),
            person: PersonId::new(self.array()),
            certificate: self.signed(),
            proof: self.digest(),
            inbox: MailboxId::new(self.array()),
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
            revocations: self.list(Self::signed),
        }
    }

    fn blob(&mut self) -> Blob {
        Blob(self.bytes())
    }

    fn any_part(&mut self) -> Part {
        let kind = self.one_of(&PARTS);
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
            2 => Part::Grant {
                mailbox,
                device: DeviceId::new(self.array()),
                rights: Rights(self.byte()),
                resume: self.flag(),
            },
            _ => Part::Revoke { mailbox, device: DeviceId::new(self.array()) },
        }
    }

    pub(crate) fn told(&mut self) -> FromRelay {
        match self.below(4) {
            0 => FromRelay::Admitted(Admitted { body: self.bytes(), signature: self.bytes() }),
            1 => {
                let kind = self.one_of(&REFUSALS);
                FromRelay::Refused(self.refused(kind))
            }
            2 => {
                let kind = REPLIES[usize::from(self.one_of(&REPLIES))].0;
                FromRelay::Reply { id: self.number(), reply: self.reply(kind) }
            }
            _ => {
                let kind = EVENTS[usize::from(self.one_of(&EVENTS))].0;
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
            10 => Refused::Storage,
            11 => Refused::Replaced,
            _ => Refused::Reused { idem: self.number(), parts: self.digest(), mac: self.digest() },
        }
    }

    fn reply(&mut self, kind: u8) -> Reply {
        match kind {
            0 => {
                let kind = self.one_of(&REFUSALS);
                Reply::Refused(self.refused(kind))
            }
            1 => Reply::Done,
            2 => Reply::Invite(Box::new(InviteView {
                statement: self.maybe(Self::signed),
                name: self.maybe(Self::blob),
                chain: self.list(Self::identity),
                replaced: self.maybe(Self::identity),
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
            8 => Reply::Newcomers { newcomers: self.list(Self::registration) },
            9 => Reply::Roster {
                grants: self.list(|source| Interval {
                    device: DeviceId::new(source.array()),
                    rights: Rights(source.byte()),
                    from: source.number(),
                }),
                fence: self.position(),
            },
            10 => {
                Reply::Checkpoint { note: self.text(), keys: LogKeys { vkeys: self.text(), signature: self.bytes() } }
            }
            11 => Reply::Consistency { proof: self.list(Self::tree_hash) },
            12 => Reply::History { leaves: self.list(Self::proved_leaf), more: self.flag() },
            20 => Reply::Invites { invites: self.list(Self::invite_state) },
            21 => Reply::Chains { chains: self.list(|source| source.list(Self::identity)) },
            50 => Reply::Adoptable { newcomers: self.list(Self::registration) },
            80 => Reply::Adoption(Box::new(AdoptionView {
                registration: self.registration(),
                statement: self.signed(),
                chain: self.list(Self::identity),
            })),
            30 => Reply::WaitingDevices { devices: self.list(Self::device_registration) },
            31 => Reply::Certified { certificate: self.signed(), pack: self.blob(), chain: self.list(Self::identity) },
            32 => {
                let revocations = self.list(Self::signed);
                let withdrawn = revocations.iter().rev().cloned().collect();
                let (identities, upto, more) = (self.list(Self::identity), self.number(), self.flag());
                let replaced = self.list(|source| PersonId::new(source.array()));
                Reply::Revocations { revocations, identities, upto, more, withdrawn, replaced }
            }
            _ => Reply::Recovery(Box::new(RecoveryView {
                chain: self.list(Self::identity),
                statement: self.signed(),
                note: self.blob(),
            })),
        }
    }

    fn invite_state(&mut self) -> InviteState {
        InviteState {
            invite: InviteId::new(self.array()),
            role: self.role(),
            handle: self.maybe(Self::text),
            expires: self.time(),
            standing: match self.below(5) {
                0 => Standing::Open,
                1 => Standing::Used { handle: self.text() },
                2 => Standing::Expired,
                3 => Standing::Cancelled,
                _ => Standing::Void,
            },
        }
    }

    fn tree_hash(&mut self) -> TreeHash {
        TreeHash::new([self.byte(); 32])
    }

    fn proved_leaf(&mut self) -> ProvedLeaf {
        ProvedLeaf {
            index: self.number(),
            leaf: self.bytes(),
            proof: self.list(Self::tree_hash),
            opening: self.maybe(|source| Opening { salt: ByteArray::from(source.array()), event: source.bytes() }),
        }
    }

    fn event(&mut self, kind: u8) -> Event {
        match kind {
            0 => Event::Entries { mailbox: MailboxId::new(self.array()), entries: self.list(Self::entry) },
            1 => Event::Ended { mailbox: MailboxId::new(self.array()) },
            2 => Event::Newcomer,
            3 => Event::Endorsed,
            30 => Event::Devices,
            31 => Event::Revoked,
            _ => Event::KeyPackagesLow { left: u32::from(self.byte()) },
        }
    }

    fn entry(&mut self) -> Entry {
        let body = if self.flag() { EntryBody::Envelope(self.blob()) } else { EntryBody::Expired(self.digest()) };
        let by = self.maybe(|source| DeviceId::new(source.array()));
        Entry { seq: self.number(), fence: self.flag(), body, by }
    }

    fn bundle(&mut self) -> Bundle {
        Bundle {
            identities: self.list(Self::identity),
            names: self.list(|source| NamedPerson {
                person: PersonId::new(source.array()),
                name: Name { name: source.text(), salt: source.array() },
                self_stated: source.flag(),
            }),
        }
    }

    pub(crate) fn content(&mut self) -> Content {
        let kind = self.one_of(&CONTENTS);
        self.content_of(kind)
    }

    fn content_of(&mut self, kind: u8) -> Content {
        let body = match kind {
            0 => Body::Text(self.text()),
            1 => Body::Bundle(self.bundle()),
            _ => Body::Unknown { kind: 1000 + u32::from(self.byte()) },
        };
        Content { id: MessageId::new(self.array()), sent_at: self.time(), body, log: self.maybe(Self::log_head) }
    }
}
