//! `matter.json`: one matter, recorded in mailbox order, and everything with which a joiner can follow it.
//!
//! Ada, an attorney, opens a matter, adds Bob and then Cleo, whose key package's private half is recorded. After Cleo's Welcome: Dan is
//! added with a bundle, Bob removed, Dan's path renewed, Dan let back in at his request. At the end stands a successor.

use privity_protocol::cbor;
use privity_protocol::content::{Body, Bundle, Content, NamedPerson};
use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::{Blob, Part, Post, Rights};
use privity_protocol::identity::{DeviceCertificate, Endorsement, Identity, Name, Role, Signed, verify_chain};
use privity_protocol::ids::{DeviceId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use privity_protocol::matter::{
    Applied, Built, Certificates, Change, Companion, Continues, KeyPackages, LeafCredential, Matter, MatterContext, Me,
    Participant, RULES, Seen, key_package, key_package_owner,
};
use privity_protocol::rescue::{RepairRequest, Successor};
use privity_protocol::suite::{Digest, Label, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};

use crate::by_hand::{
    Reader, aead_open, derive_secret, encrypt_context, expand_with_label, extract, hpke_open, reference, sign_content,
    vector, x_wing_public,
};
use crate::json::{Hex, hex};
use crate::{follows, recorded, secret};

const FILE: &str = "matter.json";
const ABOUT: &str = "One matter, as its mailbox holds it, for a joiner who replays it: restore the joiner's private keys, join with the \
                     Welcome, then read the entries after `starts_at` in order. `envelope` is version, class, payload (an MLSMessage, or \
                     for repair requests and successors a signed statement); `content` what was in it, unpadded; `chain` the running \
                     hash after it; `seen` the authenticated data, CBOR; `roster` CBOR of the Grants and Revokes posted with a Commit; \
                     `epoch` and `context` (GroupContext extension 0xF0A2, CBOR) are the group's after the entry. Entries up to the \
                     Welcome's Commit are there for the running hash.";
const MAILBOX: [u8; 16] = [0x3b; 16];
const GROUP: [u8; 16] = [0x61; 16];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    about: String,
    mailbox: Hex,
    group: Hex,
    organisation: Hex,
    people: Vec<PersonVector>,
    joiner: Joiner,
    welcome: Welcome,
    starts_at: Start,
    entries: Vec<EntryVector>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonVector {
    name: String,
    person: Hex,
    device: Hex,
    role: u8,
    person_key: Hex,
    mls_key: Hex,
    credential: Hex,
}

/// `private` is `key_package<V> ‖ init_private<V> ‖ leaf_private<V> ‖ u64`, where `<V>` is MLS's vector, `key_package` without the four bytes
/// of MLSMessage in front, and the number the end of its lifetime.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Joiner {
    name: String,
    mls_seeds: Hex,
    key_package: Hex,
    reference: Hex,
    init_private: Hex,
    leaf_private: Hex,
    private: Hex,
}

/// The Welcome's envelope, and RFC 9420's key schedule from it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Welcome {
    envelope: Hex,
    joiner_secret: Hex,
    welcome_secret: Hex,
    group_info: Hex,
    epoch_secret: Hex,
    confirmation_tag: Hex,
    epoch_authenticator: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    seq: u64,
    chain: Hex,
    epoch: u64,
    context: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryVector {
    seq: u64,
    what: String,
    by: String,
    fence: bool,
    envelope: Hex,
    chain: Hex,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    seen: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    content: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    roster: Option<Hex>,
    epoch: u64,
    context: Hex,
}

// --- Making one.

/// A person with one device.
struct Actor {
    name: &'static str,
    me: Me,
    packages: KeyPackages,
    identity: Identity,
    participant: Participant,
    group: Option<Matter>,
}

impl Actor {
    fn new(name: &'static str, number: u8, role: Role) -> Self {
        let (person, device) = (PersonId::new([0x10 | number; 16]), DeviceId::new([0x20 | number; 16]));
        let (person_secret, key) = (secret(0x30 | number), secret(0x40 | number));
        let person_key = person_secret.public().unwrap();
        let certificate = DeviceCertificate {
            person,
            device,
            link_key: secret(0x50 | number).public().unwrap().digest(),
            mls_key: key.public().unwrap(),
            made_at: Timestamp(1_800_000_000_000),
        };
        let certificate = Signed::make(Label::DeviceCertificate, &person_secret, &certificate).unwrap();
        let endorsement = Endorsement {
            person,
            person_key: person_key.digest(),
            role,
            registrar: role == Role::Attorney,
            handle: name.to_lowercase(),
            name: named(name).commitment(),
            issuer: None,
            from: Timestamp(1_800_000_000_000),
            until: Timestamp(1_863_072_000_000),
        };
        let credential = LeafCredential { person, device, certificate: certificate.digest() };
        Self {
            name,
            me: Me { credential, key },
            packages: KeyPackages::default(),
            participant: Participant { person, role, person_key: person_key.digest() },
            identity: Identity {
                person,
                person_key,
                certificates: vec![certificate],
                endorsement: Signed::make(Label::Endorsement, &organisation(), &endorsement).unwrap(),
            },
            group: None,
        }
    }

    fn group(&mut self) -> &mut Matter {
        self.group.as_mut().unwrap()
    }

    fn vector(&self) -> PersonVector {
        PersonVector {
            name: self.name.to_owned(),
            person: hex(self.identity.person.as_bytes()),
            device: hex(self.me.credential.device.as_bytes()),
            role: u8::try_from(self.participant.role as usize).unwrap(),
            person_key: hex(self.identity.person_key.as_bytes()),
            mls_key: hex(self.me.key.public().unwrap().as_bytes()),
            credential: hex(cbor::encode(&self.me.credential)),
        }
    }
}

fn organisation() -> SecretKey {
    secret(10)
}

fn named(name: &str) -> Name {
    Name { name: name.to_owned(), salt: [0x5a; 16] }
}

const ADA: usize = 0;
const BOB: usize = 1;
const CLEO: usize = 2;
const DAN: usize = 3;

/// Everybody, the mailbox, and what was recorded.
struct Stage {
    actors: Vec<Actor>,
    position: Position,
    fence: Position,
    messages: u8,
    entries: Vec<EntryVector>,
}

/// What a Commit does, beside its path.
#[derive(Default)]
struct Plan {
    add: Vec<(usize, Vec<u8>)>,
    remove: Vec<usize>,
    listed: Option<Vec<usize>>,
    repair: Option<Digest>,
}

impl Stage {
    fn open() -> Self {
        let mut actors = vec![
            Actor::new("Ada", 1, Role::Attorney),
            Actor::new("Bob", 2, Role::Client),
            Actor::new("Cleo", 3, Role::Staff),
            Actor::new("Dan", 4, Role::Client),
        ];
        let context = context(&actors, &[ADA]);
        let group = Matter::create(&actors[ADA].me, &actors[ADA].packages, MatterId::new(GROUP), &context).unwrap();
        actors[ADA].group = Some(group);
        let position = Position::start(MailboxId::new(MAILBOX));
        Self { actors, position, fence: position, messages: 0, entries: Vec::new() }
    }

    /// One more entry; what else is known of it is filled in by who posts it.
    fn append(&mut self, by: usize, what: &str, class: Class, payload: &[u8]) -> (Digest, &mut EntryVector) {
        let envelope = envelope::wrap(class, payload).unwrap();
        let (digest, fence) = (Digest::of(&[&envelope]), matches!(class, Class::Commit | Class::Successor));
        self.position = self.position.next(fence, &digest);
        if fence {
            self.fence = self.position;
        }
        let context = cbor::encode(&self.actors[ADA].group().context().unwrap());
        self.entries.push(EntryVector {
            seq: self.position.seq,
            what: what.to_owned(),
            by: self.actors[by].name.to_owned(),
            fence,
            envelope: hex(envelope),
            chain: hex(self.position.chain.as_bytes()),
            seen: None,
            content: None,
            text: None,
            roster: None,
            epoch: self.actors[ADA].group().epoch(),
            context: hex(context),
        });
        (digest, self.entries.last_mut().unwrap())
    }

    /// Seals, appends and lets everybody else open it.
    fn seal(&mut self, by: usize, what: &str, content: &[u8], seen: &Seen) -> Digest {
        let payload = self.actors[by].group().seal(&envelope::pad(content).unwrap(), seen).unwrap();
        for (_, actor) in self.actors.iter_mut().enumerate().filter(|(index, _)| *index != by) {
            if let Some(group) = &mut actor.group {
                group.open(&payload).unwrap();
            }
        }
        let (digest, entry) = self.append(by, what, Class::Message, &payload);
        entry.seen = Some(hex(cbor::encode(seen)));
        entry.content = Some(hex(content));
        digest
    }

    fn say(&mut self, by: usize, text: &str) {
        self.messages += 1;
        let sent_at = Timestamp(1_800_000_000_000 + u64::from(self.messages) * 60_000);
        let content = Content::text(MessageId::new([self.messages; 16]), sent_at, text).unwrap();
        let seen = Seen::at(self.position);
        self.seal(by, "message", &content.encode(), &seen);
        self.entries.last_mut().unwrap().text = Some(text.to_owned());
    }

    /// A bundle if it adds somebody new, then the Commit, applied by everybody.
    fn commit(&mut self, by: usize, what: &str, plan: Plan) -> Built {
        let mailbox = MailboxId::new(MAILBOX);
        let grant = |device| Part::Grant { mailbox, device, rights: Rights::MEMBER, resume: false };
        let device = |index: &usize| self.actors[*index].me.credential.device;
        let mut roster: Vec<Part> = Vec::new();
        if plan.repair.is_none() {
            roster.extend(plan.add.iter().map(|(index, _)| grant(device(index))));
            roster.extend(plan.remove.iter().map(|index| Part::Revoke { mailbox, device: device(index) }));
        }
        let mut seen = Seen { roster: Some(Post::roster_digest(&roster)), ..Seen::at(self.position) };
        let newcomers: Vec<usize> = plan.add.iter().map(|(index, _)| *index).collect();
        let mut certificates = bundle(&self.actors, &newcomers);
        if plan.repair.is_some() {
            seen.repair = plan.repair;
        } else if !newcomers.is_empty() {
            let content = Content {
                id: MessageId::new([0xf0 | u8::try_from(newcomers[0]).unwrap(); 16]),
                sent_at: Timestamp(0),
                body: Body::Bundle(certificates.clone()),
            };
            let content = content.encode();
            seen.bundle = Some(self.seal(by, "bundle", &content, &Seen { roster: None, ..seen }));
        } else {
            certificates = Bundle::default();
        }
        let certificates = Certificates::of(&certificates.identities).unwrap();
        let companion = self.companion(&plan, seen.position);
        let leaves = |group: &Matter| -> Vec<u32> {
            let leaf = |index: &usize| {
                let credential = self.actors[*index].me.credential;
                group.members().iter().find(|member| member.credential == credential).unwrap().leaf
            };
            plan.remove.iter().map(leaf).collect()
        };
        let change = Change {
            add: plan.add.iter().map(|(_, package)| package.clone()).collect(),
            remove: leaves(self.actors[by].group.as_ref().unwrap()),
            context: plan.listed.as_ref().map(|listed| context(&self.actors, listed)),
            companion,
        };
        let built = self.actors[by].group().build(change, &seen, certificates.clone()).unwrap();
        self.everybody_applies(by, &built, &certificates);
        for (index, _) in &plan.add {
            let actor = &mut self.actors[*index];
            let welcome = built.welcome.as_ref().unwrap();
            actor.group = Some(Matter::join(&actor.me, &actor.packages, welcome).unwrap().0);
        }
        let (_, entry) = self.append(by, what, Class::Commit, &built.commit);
        entry.seen = Some(hex(cbor::encode(&seen)));
        entry.roster = Some(hex(cbor::encode(&roster)));
        built
    }

    fn everybody_applies(&mut self, by: usize, built: &Built, certificates: &Certificates) {
        for (index, actor) in self.actors.iter_mut().enumerate() {
            let Some(group) = &mut actor.group else { continue };
            let applied = if index == by {
                group.apply_own(&built.secrets, built.epoch).unwrap()
            } else {
                group.apply(&built.commit, certificates.clone()).unwrap()
            };
            if applied.removed_me {
                actor.group = None;
            }
        }
    }

    /// What the newcomers get: everybody who is in the matter then.
    fn companion(&mut self, plan: &Plan, seen: Position) -> Option<Companion> {
        let members = self.actors[ADA].group().context().unwrap().people;
        let now = |index: &usize| members.contains(&self.actors[*index].participant);
        let listed = plan.listed.clone().unwrap_or_else(|| (ADA..=DAN).filter(now).collect());
        (!plan.add.is_empty()).then(|| Companion { bundle: bundle(&self.actors, &listed), seen })
    }

    fn key_package(&self, of: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (package, reference, private) = key_package(&self.actors[of].me, &self.actors[of].packages, false).unwrap();
        (package, reference, private.to_vec())
    }
}

fn context(actors: &[Actor], listed: &[usize]) -> MatterContext {
    let mut people: Vec<Participant> = listed.iter().map(|index| actors[*index].participant).collect();
    people.sort();
    MatterContext {
        rules: RULES,
        mailbox: MailboxId::new(MAILBOX),
        title: "Smith v Jones".to_owned(),
        orders: [0; 48],
        people,
        continues: None,
    }
}

fn bundle(actors: &[Actor], people: &[usize]) -> Bundle {
    let name = |index: &usize| NamedPerson {
        person: actors[*index].identity.person,
        name: named(actors[*index].name),
        self_stated: false,
    };
    Bundle {
        identities: people.iter().map(|index| actors[*index].identity.clone()).collect(),
        names: people.iter().map(name).collect(),
    }
}

/// The whole play.
fn record() -> Recording {
    let mut stage = Stage::open();
    let (bobs, _, _) = stage.key_package(BOB);
    let listed = Some(vec![ADA, BOB]);
    stage.commit(ADA, "commit: adds Bob", Plan { add: vec![(BOB, bobs)], listed, ..Plan::default() });
    stage.say(BOB, "Good morning.");
    let (package, reference, private) = stage.key_package(CLEO);
    let listed = Some(vec![ADA, BOB, CLEO]);
    let add = vec![(CLEO, package.clone())];
    let built = stage.commit(ADA, "commit: adds Cleo", Plan { add, listed, ..Plan::default() });
    let starts_at = Start {
        seq: stage.position.seq,
        chain: hex(stage.position.chain.as_bytes()),
        epoch: stage.actors[CLEO].group().epoch(),
        context: hex(cbor::encode(&stage.actors[CLEO].group().context().unwrap())),
    };
    let joiner = joiner(&stage.actors[CLEO], &package, &reference, &private);
    let welcome = welcome(&joiner, &built.welcome.unwrap());
    after_the_welcome(&mut stage);
    Recording {
        about: ABOUT.to_owned(),
        mailbox: hex(MAILBOX),
        group: hex(GROUP),
        organisation: hex(organisation().public().unwrap().as_bytes()),
        people: stage.actors.iter().map(Actor::vector).collect(),
        joiner,
        welcome,
        starts_at,
        entries: stage.entries,
    }
}

fn after_the_welcome(stage: &mut Stage) {
    stage.say(ADA, "Cleo, welcome. You read from here on.");
    stage.say(BOB, "Hello, Cleo.");
    let (dans, _, _) = stage.key_package(DAN);
    let listed = Some(vec![ADA, BOB, CLEO, DAN]);
    stage.commit(ADA, "commit: adds Dan", Plan { add: vec![(DAN, dans)], listed, ..Plan::default() });
    stage.say(DAN, "Grüße — § 823 BGB, 請多指教.");
    stage.say(ADA, "");
    stage.say(BOB, "I am leaving.");
    let listed = Some(vec![ADA, CLEO, DAN]);
    stage.commit(ADA, "commit: removes Bob", Plan { remove: vec![BOB], listed, ..Plan::default() });
    stage.say(DAN, "Bob reads no more.");
    stage.say(ADA, "One line.\nAnother.");
    stage.commit(DAN, "commit: renews Dan's path", Plan::default());
    stage.say(DAN, "Under a new path.");
    stage.say(ADA, "Still here.");
    stage.say(DAN, &"A text that needs the second bucket. ".repeat(20));
    let request = RepairRequest {
        group: MatterId::new(GROUP),
        device: stage.actors[DAN].me.credential.device,
        epoch: stage.actors[DAN].group().epoch(),
        fence: stage.fence,
        package: Blob(stage.key_package(DAN).0),
        inbox: MailboxId::new([0x1b; 16]),
    };
    let payload = request.sign(&stage.actors[DAN].me.key).unwrap();
    let (digest, _) = stage.append(DAN, "repair request", Class::Repair, &payload);
    stage.actors[DAN].group = None;
    let plan = Plan { add: vec![(DAN, request.package.0)], remove: vec![DAN], repair: Some(digest), ..Plan::default() };
    stage.commit(ADA, "commit: lets Dan back in", plan);
    stage.say(DAN, "Back again.");
    let successor = Successor {
        group: MatterId::new(GROUP),
        device: stage.actors[ADA].me.credential.device,
        epoch: stage.actors[ADA].group().epoch(),
        position: stage.position,
        mailbox: MailboxId::new([0x3c; 16]),
        successor: MatterId::new([0x62; 16]),
    };
    let payload = successor.sign(&stage.actors[ADA].me.key).unwrap();
    stage.append(ADA, "successor", Class::Successor, &payload);
}

fn joiner(actor: &Actor, package: &[u8], reference: &[u8], private: &[u8]) -> Joiner {
    let mut reader = Reader(private);
    let (_, init, leaf) = (reader.vector(), reader.vector(), reader.vector());
    Joiner {
        name: actor.name.to_owned(),
        mls_seeds: hex(actor.me.key.as_bytes()),
        key_package: hex(package),
        reference: hex(reference),
        init_private: hex(init),
        leaf_private: hex(leaf),
        private: hex(private),
    }
}

/// What a Welcome gives to whoever has the private half of the key package, by RFC 9420's sections 12.4.3.1 and 8, without the engine.
fn welcome(joiner: &Joiner, payload: &[u8]) -> Welcome {
    let mut reader = Reader(payload);
    assert_eq!((reader.number(2), reader.number(2)), (1, 3), "an MLSMessage with a Welcome");
    assert_eq!(reader.number(2), 0xF0A2);
    let (mut secrets, sealed_info) = (Reader(reader.vector()), reader.vector());
    let (new_member, enc, sealed) = (secrets.vector(), secrets.vector(), secrets.vector());
    assert_eq!(new_member, joiner.reference.0);
    let info = encrypt_context("Welcome", sealed_info);
    let group_secrets = hpke_open(&joiner.init_private.0, enc, &info, b"", sealed).unwrap();
    let joiner_secret = Reader(&group_secrets).vector();

    let member_secret = extract(joiner_secret, &[0; 48]);
    let welcome_secret = derive_secret(&member_secret, "welcome");
    let key = expand_with_label(&welcome_secret, "key", b"", 32);
    let nonce = expand_with_label(&welcome_secret, "nonce", b"", 12);
    let group_info = aead_open(&key, &nonce, b"", sealed_info).unwrap();

    let read = GroupInfo::read(&group_info);
    let epoch_secret = expand_with_label(&member_secret, "epoch", read.context, 48);
    let tag = extract(&derive_secret(&epoch_secret, "confirm"), read.transcript_hash);
    assert_eq!(tag, read.confirmation_tag);
    Welcome {
        envelope: hex(envelope::wrap(Class::Welcome, payload).unwrap()),
        joiner_secret: hex(joiner_secret),
        welcome_secret: hex(welcome_secret),
        epoch_authenticator: hex(derive_secret(&epoch_secret, "authentication")),
        epoch_secret: hex(epoch_secret),
        confirmation_tag: hex(tag),
        group_info: hex(&group_info),
    }
}

/// A GroupInfo taken apart (RFC 9420, section 12.4.3).
struct GroupInfo<'a> {
    context: &'a [u8],
    group: &'a [u8],
    epoch: u64,
    transcript_hash: &'a [u8],
    context_extensions: &'a [u8],
    extensions: &'a [u8],
    confirmation_tag: &'a [u8],
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> GroupInfo<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let until = |reader: &Reader<'_>| &bytes[..bytes.len() - reader.0.len()];
        let mut reader = Reader(bytes);
        reader.version_and_suite();
        let (group, epoch, _tree_hash, transcript_hash) =
            (reader.vector(), reader.number(8), reader.vector(), reader.vector());
        let context_extensions = reader.vector();
        let context = until(&reader);
        let (extensions, confirmation_tag, _signer) = (reader.vector(), reader.vector(), reader.number(4));
        let signed = until(&reader);
        let signature = reader.vector();
        assert!(reader.0.is_empty());
        Self {
            context,
            group,
            epoch,
            transcript_hash,
            context_extensions,
            extensions,
            confirmation_tag,
            signed,
            signature,
        }
    }
}

/// The data of extension 0xF0A2.
fn extension(extensions: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(extensions);
    while !reader.0.is_empty() {
        let (number, data) = (reader.number(2), reader.vector());
        if number == 0xF0A2 {
            return Some(data);
        }
    }
    None
}

// --- Following it.

fn recording() -> Recording {
    recorded(FILE, record)
}

impl Recording {
    fn person(&self, name: &str) -> &PersonVector {
        self.people.iter().find(|person| person.name == name).unwrap()
    }

    /// CBOR of the Companion, out of the GroupInfo.
    fn companion(&self) -> &[u8] {
        extension(GroupInfo::read(&self.welcome.group_info.0).extensions).unwrap()
    }

    fn mls_key(&self, name: &str) -> PublicKey {
        PublicKey::from_slice(&self.person(name).mls_key.0).unwrap()
    }

    fn joiner(&self) -> (Me, KeyPackages) {
        let credential = cbor::decode(&self.person(&self.joiner.name).credential.0, "x").unwrap();
        let me = Me { credential, key: SecretKey::from_slice(&self.joiner.mls_seeds.0).unwrap() };
        let packages = KeyPackages::default();
        packages.restore(self.joiner.reference.0.clone(), &self.joiner.private.0).unwrap();
        (me, packages)
    }

    /// Entries that the joiner reads.
    fn to_read(&self) -> impl Iterator<Item = &EntryVector> {
        self.entries.iter().filter(|entry| entry.seq > self.starts_at.seq)
    }
}

/// The joiner's device, entry by entry.
struct Follower {
    me: Me,
    packages: KeyPackages,
    group: Matter,
    position: Position,
    fence: Position,
    known: Vec<Identity>,
    bundle: Option<(Digest, Bundle)>,
    request: Option<Digest>,
}

/// What an entry turned out to be.
#[derive(Debug)]
enum Read {
    Said(LeafCredential, Seen, Vec<u8>),
    Changed(Applied),
    Unsealed(Vec<u8>),
}

impl Follower {
    fn join(recording: &Recording) -> Self {
        let (me, packages) = recording.joiner();
        let (class, payload) = envelope::unwrap(&recording.welcome.envelope.0).unwrap();
        assert_eq!(class, Class::Welcome);
        let (group, companion) = Matter::join(&me, &packages, payload).unwrap();
        assert_eq!(cbor::encode(&companion), recording.companion());
        let chain = Digest::from_slice(&recording.starts_at.chain.0).unwrap();
        let position = Position { seq: recording.starts_at.seq, chain };
        let known = companion.bundle.identities;
        Self { me, packages, group, position, fence: position, known, bundle: None, request: None }
    }

    /// Reads an envelope without going on.
    fn read(&mut self, envelope: &[u8], by: &PublicKey) -> Result<Read, privity_protocol::Error> {
        let (class, payload) = envelope::unwrap(envelope)?;
        Ok(match class {
            Class::Message => {
                let opened = self.group.open(payload)?;
                let content = envelope::unpad(&opened.plaintext)?;
                Read::Said(opened.sender.credential, opened.seen, content.to_vec())
            }
            Class::Commit => {
                let seen = Seen::of_message(payload)?;
                let mut judged_by = self.bundle.iter().filter(|(digest, _)| seen.bundle == Some(*digest));
                let identities = match judged_by.next() {
                    Some((_, bundle)) => bundle.identities.clone(),
                    None if seen.repair.is_some() && seen.repair == self.request => self.known.clone(),
                    None => Vec::new(),
                };
                Read::Changed(self.group.apply(payload, Certificates::of(&identities)?)?)
            }
            Class::Repair => {
                let (_, signed) = RepairRequest::read(payload)?;
                RepairRequest::verify(&signed, by)?;
                Read::Unsealed(signed.body)
            }
            _ => {
                let (_, signed) = Successor::read(payload)?;
                Successor::verify(&signed, by)?;
                Read::Unsealed(signed.body)
            }
        })
    }

    /// As after an error: from the last saved state.
    fn reload(&self, state: &[u8]) -> Matter {
        let state = zeroize::Zeroizing::new(state.to_vec());
        Matter::load(&self.me, &self.packages, MatterId::new(GROUP), state).unwrap()
    }

    /// Takes note of what the entry means for those after it.
    fn go_on(&mut self, entry: &EntryVector, read: &Read) {
        let digest = Digest::of(&[&entry.envelope.0]);
        self.position = self.position.next(entry.fence, &digest);
        if entry.fence {
            self.fence = self.position;
        }
        if let Read::Said(_, _, content) = read
            && let Body::Bundle(bundle) = Content::decode(content).unwrap().body
        {
            self.known.extend(bundle.identities.clone());
            self.bundle = Some((digest, bundle));
        }
        if entry.what == "repair request" {
            self.request = Some(digest);
        }
    }
}

#[test]
fn a_joiner_follows_the_recorded_matter_to_its_end() {
    let recording = recording();
    let mut follower = Follower::join(&recording);
    assert_eq!(follower.group.epoch(), recording.starts_at.epoch);
    assert_eq!(hex(cbor::encode(&follower.group.context().unwrap())), recording.starts_at.context);
    for entry in recording.to_read() {
        let by = recording.mls_key(&entry.by);
        let read = follower.read(&entry.envelope.0, &by).unwrap_or_else(|error| panic!("{}: {error}", entry.seq));
        let before = follower.position;
        follower.go_on(entry, &read);
        assert_eq!((follower.position.seq, hex(follower.position.chain.as_bytes())), (entry.seq, entry.chain.clone()));
        let author: LeafCredential = cbor::decode(&recording.person(&entry.by).credential.0, "x").unwrap();
        match read {
            Read::Said(sender, seen, content) => {
                assert_eq!((sender, Some(hex(cbor::encode(&seen)))), (author, entry.seen.clone()));
                assert_eq!((seen.position, Some(hex(&content))), (before, entry.content.clone()));
                if let Body::Text(text) = Content::decode(&content).unwrap().body {
                    assert_eq!(Some(text), entry.text);
                }
            }
            Read::Changed(applied) => {
                assert_eq!(applied.committer.credential, author);
                assert_eq!(Some(hex(cbor::encode(&applied.seen))), entry.seen);
                let roster: Vec<Part> = cbor::decode(&entry.roster.as_ref().unwrap().0, "x").unwrap();
                assert_eq!(applied.seen.roster, Some(Post::roster_digest(&roster)));
            }
            Read::Unsealed(body) => {
                let rule = if entry.what == "successor" { "successor" } else { "repair-request" };
                assert!(follows(rule, &body));
            }
        }
        assert_eq!(follower.group.epoch(), entry.epoch, "{}", entry.seq);
        assert_eq!(hex(cbor::encode(&follower.group.context().unwrap())), entry.context, "{}", entry.seq);
    }
}

/// The authenticated data of each Commit says what stands before it: a bundle where it adds, a request where it lets back in.
#[test]
fn every_recorded_commit_names_what_stands_before_it() {
    let recording = recording();
    let before = |seq: u64, what: &str| {
        let found = recording.entries.iter().rfind(|entry| entry.seq < seq && entry.what == what);
        found.map(|entry| Digest::of(&[&entry.envelope.0]))
    };
    let mut fence = 0;
    for entry in recording.entries.iter().filter(|entry| entry.fence && entry.what != "successor") {
        let (class, payload) = envelope::unwrap(&entry.envelope.0).unwrap();
        let seen = Seen::of_message(payload).unwrap();
        assert_eq!((class, Some(hex(cbor::encode(&seen)))), (Class::Commit, entry.seen.clone()));
        assert!(follows("seen", &entry.seen.as_ref().unwrap().0));
        let (adds, repairs) = (entry.what.contains("adds"), entry.what.contains("lets"));
        assert_eq!(seen.bundle, if adds { before(entry.seq, "bundle") } else { None });
        assert_eq!(seen.repair, if repairs { before(entry.seq, "repair request") } else { None });
        assert!(seen.position.seq >= fence);
        fence = entry.seq;
    }
    let request = recording.entries.iter().find(|entry| entry.what == "repair request").unwrap();
    let (_, payload) = envelope::unwrap(&request.envelope.0).unwrap();
    let (request, _) = RepairRequest::read(payload).unwrap();
    let fence = recording.entries.iter().rfind(|entry| entry.fence && entry.seq <= request.fence.seq).unwrap();
    assert_eq!((request.fence.seq, hex(request.fence.chain.as_bytes())), (fence.seq, fence.chain.clone()));
    let owner = key_package_owner(&request.package.0).unwrap();
    assert_eq!(hex(cbor::encode(&owner)), recording.person("Dan").credential);
}

/// Its head, its middle, its signature's or tag's last byte, and for sealed ones what they authenticate.
#[test]
fn an_altered_byte_in_any_recorded_envelope_is_refused() {
    let recording = recording();
    let (me, packages) = recording.joiner();
    let welcome = &recording.welcome.envelope.0;
    for at in places(welcome) {
        let joined = envelope::unwrap(&flipped(welcome, at)).map_err(privity_protocol::Error::from).and_then(
            |(class, payload)| {
                assert_eq!(class, Class::Welcome);
                Matter::join(&me, &packages, payload)
            },
        );
        assert!(joined.is_err(), "the Welcome's byte {at}");
    }
    let mut follower = Follower::join(&recording);
    for entry in recording.to_read() {
        let by = recording.mls_key(&entry.by);
        let state = follower.group.state();
        for at in places(&entry.envelope.0) {
            let read = follower.read(&flipped(&entry.envelope.0, at), &by);
            assert!(read.is_err(), "byte {at} of {} ({})", entry.seq, entry.what);
            follower.group = follower.reload(&state);
        }
        let read = follower.read(&entry.envelope.0, &by).unwrap();
        follower.go_on(entry, &read);
    }
}

fn places(envelope: &[u8]) -> Vec<usize> {
    let last = envelope.len() - 1;
    vec![0, 1, 2, 9, 40, 60, last / 2, last - 3309, last - 17, last]
}

fn flipped(envelope: &[u8], at: usize) -> Vec<u8> {
    let mut envelope = envelope.to_vec();
    // Away from the other classes of envelopes: 9 is none.
    envelope[at] ^= 8;
    envelope
}

#[test]
fn the_running_hash_leads_from_the_mailboxs_id_to_the_recorded_end() {
    let recording = recording();
    let mut position = Position::start(MailboxId::from_slice(&recording.mailbox.0).unwrap());
    for entry in &recording.entries {
        let (class, _) = envelope::unwrap(&entry.envelope.0).unwrap();
        assert_eq!(entry.fence, matches!(class, Class::Commit | Class::Successor), "{}", entry.seq);
        position = position.next(entry.fence, &Digest::of(&[&entry.envelope.0]));
        assert_eq!((position.seq, hex(position.chain.as_bytes())), (entry.seq, entry.chain.clone()));
        if entry.seq == recording.starts_at.seq {
            assert_eq!(entry.chain, recording.starts_at.chain);
        }
    }
    let told = recording.to_read().filter(|entry| entry.what == "message").count();
    assert!(told >= 10, "{told}");
}

/// Nothing of the engine is used here: HPKE, key schedule and signatures are written out.
#[test]
fn the_recorded_welcome_opens_by_hand() {
    let recording = recording();
    let (_, payload) = envelope::unwrap(&recording.welcome.envelope.0).unwrap();
    let opened = welcome(&recording.joiner, payload);
    for (name, opened, recorded) in [
        ("joiner_secret", &opened.joiner_secret, &recording.welcome.joiner_secret),
        ("welcome_secret", &opened.welcome_secret, &recording.welcome.welcome_secret),
        ("group_info", &opened.group_info, &recording.welcome.group_info),
        ("epoch_secret", &opened.epoch_secret, &recording.welcome.epoch_secret),
        ("confirmation_tag", &opened.confirmation_tag, &recording.welcome.confirmation_tag),
        ("epoch_authenticator", &opened.epoch_authenticator, &recording.welcome.epoch_authenticator),
    ] {
        assert_eq!(opened, recorded, "{name}");
    }
    let info = GroupInfo::read(&opened.group_info.0);
    assert_eq!((info.group, info.epoch), (&recording.group.0[..], recording.starts_at.epoch));
    assert_eq!(extension(info.context_extensions).unwrap(), recording.starts_at.context.0);
    let signed = sign_content("GroupInfoTBS", info.signed);
    recording.mls_key("Ada").verify(Label::Mls, &signed, info.signature, "x").unwrap();

    let companion: Companion = cbor::decode(recording.companion(), "x").unwrap();
    assert!(follows("companion", recording.companion()));
    let organisation = PublicKey::from_slice(&recording.organisation.0).unwrap();
    for identity in companion.bundle.identities {
        verify_chain(&[identity], &organisation).unwrap();
    }
}

/// A key package taken apart (RFC 9420, sections 7.2 and 10), and its private half put together from the two raw keys.
#[test]
fn the_recorded_key_package_is_what_its_private_half_says() {
    let recording = recording();
    let Joiner { key_package, reference: recorded, init_private, leaf_private, private, .. } = &recording.joiner;
    let mut reader = Reader(&key_package.0);
    assert_eq!((reader.number(2), reader.number(2)), (1, 5), "an MLSMessage with a KeyPackage");
    let package = reader.0;
    reader.version_and_suite();
    let (init_key, leaf) = (reader.vector(), reader.0);
    let (leaf_key, signature_key) = (reader.vector(), reader.vector());
    assert_eq!(init_key, x_wing_public(&init_private.0));
    assert_eq!(leaf_key, x_wing_public(&leaf_private.0));
    let joiner = recording.person(&recording.joiner.name);
    assert_eq!(signature_key, joiner.mls_key.0);
    assert_eq!((reader.number(2), reader.vector()), (1, &joiner.credential.0[..]), "a basic credential");
    assert!(follows("leaf-credential", &joiner.credential.0));
    let (versions, suites, extensions, proposals, credentials) =
        (reader.vector(), reader.vector(), reader.vector(), reader.vector(), reader.vector());
    assert_eq!((versions, suites, extensions), (&[0, 1][..], &[0xF0, 0xA2][..], &[0xF0, 0xA2][..]));
    assert_eq!((proposals, credentials), (&[][..], &[0, 1][..]));
    assert_eq!((reader.number(1), reader.number(8), reader.number(8)), (1, 0, 1 << 32), "from a key package; lifetime");
    assert_eq!(reader.vector(), b"", "no extensions of the leaf");
    let signed = &leaf[..leaf.len() - reader.0.len()];
    let signature = reader.vector();
    let key = recording.mls_key(&recording.joiner.name);
    key.verify(Label::Mls, &sign_content("LeafNodeTBS", signed), signature, "x").unwrap();
    assert_eq!(reader.vector(), b"", "no extensions of the package");
    let signed = &package[..package.len() - reader.0.len()];
    key.verify(Label::Mls, &sign_content("KeyPackageTBS", signed), reader.vector(), "x").unwrap();
    assert!(reader.0.is_empty());
    assert_eq!(reference("KeyPackage Reference", package), recorded.0);

    let end = u64::to_be_bytes(1 << 32);
    let by_hand = [vector(package), vector(&init_private.0), vector(&leaf_private.0), end.to_vec()].concat();
    assert_eq!(hex(by_hand), *private);
}

#[test]
fn recorded_contexts_follow_the_schema_and_others_do_not() {
    let recording = recording();
    for entry in &recording.entries {
        assert!(follows("matter-context", &entry.context.0), "{}", entry.seq);
        assert!(entry.content.iter().all(|content| follows("content", &content.0)), "{}", entry.seq);
    }
    let context: MatterContext = cbor::decode(&recording.starts_at.context.0, "x").unwrap();
    let continues = Continues { group: MatterId::new(GROUP), epoch: 7 };
    let continued = MatterContext { continues: Some(continues), ..context.clone() };
    assert!(follows("matter-context", &cbor::encode(&continued)));
    assert!(follows("continues", &cbor::encode(&continues)));
    assert!(context.people.iter().all(|participant| follows("participant", &cbor::encode(participant))));
    let other_rules = MatterContext { rules: RULES + 1, ..context };
    assert!(!follows("matter-context", &cbor::encode(&other_rules)));
    for (rule, bytes) in [
        ("seen", &recording.starts_at.context.0[..]),
        ("companion", &recording.starts_at.context.0[..]),
        ("matter-context", recording.companion()),
        ("leaf-credential", &recording.starts_at.context.0[..]),
        ("participant", &recording.person("Ada").credential.0[..]),
        ("continues", &recording.person("Ada").credential.0[..]),
    ] {
        assert!(!follows(rule, bytes), "{rule}");
    }
}
