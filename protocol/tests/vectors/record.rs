//! Making `matter.json`: a play of four people, and what a Welcome says by hand.
//!
//! Ada, an attorney, opens a matter, adds Bob and then Cleo, whose key package's private half is recorded. After Cleo's Welcome: Dan is
//! added with a bundle, Bob removed, Dan's path renewed, Dan let back in at his request. At the end stands a successor.

use privity_protocol::cbor;
use privity_protocol::content::{Body, Bundle, Content, NamedPerson};
use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::{Blob, Part, Post, Rights};
use privity_protocol::identity::{DeviceCertificate, Endorsement, Identity, Name, Role, Signed};
use privity_protocol::ids::{DeviceId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use privity_protocol::matter::{
    Built, Certificates, Change, Companion, KeyPackages, LeafCredential, Matter, MatterContext, Me, Participant, RULES,
    Seen, key_package,
};
use privity_protocol::rescue::{RepairRequest, Successor};
use privity_protocol::suite::{Digest, Label, SecretKey};
use serde::{Deserialize, Serialize};

use crate::by_hand::{Reader, aead_open, derive_secret, encrypt_context, expand_with_label, extract, hpke_open};
use crate::json::{Hex, hex};
use crate::secret;

const ABOUT: &str = "One matter, as its mailbox holds it, for a joiner who replays it: restore the joiner's private keys, join with the \
                     Welcome, then read the entries after `starts_at` in order. `envelope` is version, class, payload (an MLSMessage, or \
                     for repair requests and successors a signed statement); `content` what was in it, unpadded; `chain` the running \
                     hash after it; `seen` the authenticated data, CBOR; `roster` CBOR of the Grants and Revokes posted with a Commit; \
                     `epoch` and `context` (GroupContext extension 0xF0A2, CBOR) are the group's after the entry. Entries up to the \
                     Welcome's Commit are there for the running hash.";
const MAILBOX: [u8; 16] = [0x3b; 16];
pub(crate) const GROUP: [u8; 16] = [0x61; 16];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recording {
    pub(crate) about: String,
    pub(crate) mailbox: Hex,
    pub(crate) group: Hex,
    pub(crate) organisation: Hex,
    pub(crate) people: Vec<PersonVector>,
    pub(crate) joiner: Joiner,
    pub(crate) welcome: Welcome,
    pub(crate) starts_at: Start,
    pub(crate) entries: Vec<EntryVector>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersonVector {
    pub(crate) name: String,
    pub(crate) person: Hex,
    pub(crate) device: Hex,
    pub(crate) role: u8,
    pub(crate) person_key: Hex,
    pub(crate) mls_key: Hex,
    pub(crate) credential: Hex,
}

/// `private` is `key_package<V> ‖ init_private<V> ‖ leaf_private<V> ‖ u64`, where `<V>` is MLS's vector, `key_package` without the four bytes
/// of MLSMessage in front, and the number the end of its lifetime.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joiner {
    pub(crate) name: String,
    pub(crate) mls_seeds: Hex,
    pub(crate) key_package: Hex,
    pub(crate) reference: Hex,
    pub(crate) init_private: Hex,
    pub(crate) leaf_private: Hex,
    pub(crate) private: Hex,
}

/// The Welcome's envelope, and RFC 9420's key schedule from it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Welcome {
    pub(crate) envelope: Hex,
    pub(crate) joiner_secret: Hex,
    pub(crate) welcome_secret: Hex,
    pub(crate) group_info: Hex,
    pub(crate) epoch_secret: Hex,
    pub(crate) confirmation_tag: Hex,
    pub(crate) epoch_authenticator: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    pub(crate) seq: u64,
    pub(crate) chain: Hex,
    pub(crate) epoch: u64,
    pub(crate) context: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryVector {
    pub(crate) seq: u64,
    pub(crate) what: String,
    pub(crate) by: String,
    pub(crate) fence: bool,
    pub(crate) envelope: Hex,
    pub(crate) chain: Hex,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) seen: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) content: Option<Hex>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) roster: Option<Hex>,
    pub(crate) epoch: u64,
    pub(crate) context: Hex,
}

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
            confirmed: false,
            adopted: false,
            after: None,
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
                line: Vec::new(),
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
    repair: Option<(Digest, RepairRequest)>,
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
        let changes_roster = (!roster.is_empty()).then(|| Post::roster_digest(&roster));
        let mut seen = Seen { roster: changes_roster, ..Seen::at(self.position) };
        let newcomers: Vec<usize> = plan.add.iter().map(|(index, _)| *index).collect();
        let mut certificates = Certificates::default();
        if let Some((digest, request)) = plan.repair.clone() {
            seen.repair = Some(digest);
            certificates = Certificates::repair(request);
        } else if !newcomers.is_empty() {
            let bundle = bundle(&self.actors, &newcomers);
            certificates = Certificates::of(&bundle.identities).unwrap();
            let id = MessageId::new([0xf0 | u8::try_from(newcomers[0]).unwrap(); 16]);
            let content = Content { id, sent_at: Timestamp(0), body: Body::Bundle(bundle), log: None }.encode();
            seen.bundle = Some(self.seal(by, "bundle", &content, &Seen { roster: None, ..seen }));
        }
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
        (!plan.add.is_empty()).then(|| Companion {
            bundle: bundle(&self.actors, &listed),
            seen,
            line: Vec::new(),
            fates: Vec::new(),
        })
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
pub(crate) fn record() -> Recording {
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
    let add = vec![(DAN, request.package.0.clone())];
    let plan = Plan { add, remove: vec![DAN], repair: Some((digest, request)), ..Plan::default() };
    stage.commit(ADA, "commit: lets Dan back in", plan);
    stage.say(DAN, "Back again.");
    let successor = Successor {
        group: MatterId::new(GROUP),
        device: stage.actors[ADA].me.credential.device,
        epoch: stage.actors[ADA].group().epoch(),
        position: stage.position,
        mailbox: MailboxId::new([0x3c; 16]),
        successor: MatterId::new([0x62; 16]),
        turn: 0,
        people: vec![stage.actors[DAN].me.credential.person],
        fates: Vec::new(),
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
pub(crate) fn welcome(joiner: &Joiner, payload: &[u8]) -> Welcome {
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
pub(crate) struct GroupInfo<'a> {
    pub(crate) context: &'a [u8],
    pub(crate) group: &'a [u8],
    pub(crate) epoch: u64,
    pub(crate) transcript_hash: &'a [u8],
    pub(crate) context_extensions: &'a [u8],
    pub(crate) extensions: &'a [u8],
    pub(crate) confirmation_tag: &'a [u8],
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> GroupInfo<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
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
pub(crate) fn extension(extensions: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(extensions);
    while !reader.0.is_empty() {
        let (number, data) = (reader.number(2), reader.vector());
        if number == 0xF0A2 {
            return Some(data);
        }
    }
    None
}
