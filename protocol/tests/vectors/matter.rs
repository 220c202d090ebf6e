//! `matter.json`: one matter, recorded in mailbox order (`record.rs`), and everything with which a joiner can follow it.

use privity_protocol::cbor;
use privity_protocol::content::{Body, Bundle, Content};
use privity_protocol::envelope::{self, Class};
use privity_protocol::frame::{Blob, Part, Post};
use privity_protocol::identity::verify_chain;
use privity_protocol::ids::{MailboxId, MatterId, Position};
use privity_protocol::matter::{
    Applied, Certificates, Companion, Continues, KeyPackages, LeafCredential, Matter, MatterContext, Me, RULES, Seen,
    key_package, key_package_owner,
};
use privity_protocol::rescue::{RepairRequest, Successor};
use privity_protocol::suite::{Digest, Label, PublicKey, SecretKey};

use crate::by_hand::{Reader, reference, sign_content, vector, x_wing_public};
use crate::json::hex;
use crate::record::{EntryVector, GROUP, GroupInfo, Joiner, PersonVector, Recording, extension, record, welcome};
use crate::{follows, recorded};

fn recording() -> Recording {
    recorded("matter.json", record)
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
    bundle: Option<(Digest, Bundle)>,
    request: Option<(Digest, RepairRequest)>,
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
        Self { me, packages, group, position, fence: position, bundle: None, request: None }
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
                let certificates = self.evidence(&Seen::of_message(payload)?)?;
                Read::Changed(self.group.apply(payload, certificates)?)
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

    /// What a Commit is judged by: the request or the bundle that it names, and nothing else.
    fn evidence(&self, seen: &Seen) -> Result<Certificates, privity_protocol::Error> {
        if let Some((_, request)) = self.request.as_ref().filter(|(digest, _)| seen.repair == Some(*digest)) {
            return Ok(Certificates::repair(request.clone()));
        }
        let bundle = self.bundle.as_ref().filter(|(digest, _)| seen.bundle == Some(*digest));
        Certificates::of(bundle.map_or(&[][..], |(_, bundle)| &bundle.identities))
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
            self.bundle = Some((digest, bundle));
        }
        if let Ok((Class::Repair, payload)) = envelope::unwrap(&entry.envelope.0) {
            self.request = Some((digest, RepairRequest::read(payload).unwrap().0));
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
                let digest = (!roster.is_empty()).then(|| Post::roster_digest(&roster));
                assert_eq!(applied.seen.roster, digest);
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

/// Without its bundle, without its request, or with a request for another key package, a Commit is void for who judges it.
#[test]
fn a_recorded_commit_is_void_without_what_it_names() {
    let recording = recording();
    let mut follower = Follower::join(&recording);
    let mut tried = 0;
    for entry in recording.to_read() {
        let (class, payload) = envelope::unwrap(&entry.envelope.0).unwrap();
        if class == Class::Commit && (entry.what.contains("adds") || entry.what.contains("lets")) {
            let state = follower.group.state();
            let mut evidence = vec![Certificates::default()];
            if let Some((_, request)) = follower.request.clone() {
                let package = Blob(recording.joiner.key_package.0.clone());
                evidence.push(Certificates::repair(RepairRequest { package, ..request }));
            }
            for certificates in evidence {
                assert!(follower.group.apply(payload, certificates).is_err(), "{}", entry.seq);
                follower.group = follower.reload(&state);
                tried += 1;
            }
        }
        let read = follower.read(&entry.envelope.0, &recording.mls_key(&entry.by)).unwrap();
        follower.go_on(entry, &read);
    }
    assert_eq!(tried, 3);
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
    capabilities_and_lifetime(&mut reader);
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

/// What a leaf says of itself (RFC 9420, section 7.2), up to its signature.
fn capabilities_and_lifetime(reader: &mut Reader<'_>) {
    let (versions, suites, extensions, proposals, credentials) =
        (reader.vector(), reader.vector(), reader.vector(), reader.vector(), reader.vector());
    assert_eq!((versions, suites, extensions), (&[0, 1][..], &[0xF0, 0xA2][..], &[0xF0, 0xA2][..]));
    assert_eq!((proposals, credentials), (&[][..], &[0, 1][..]));
    assert_eq!((reader.number(1), reader.number(8), reader.number(8)), (1, 0, 1 << 32), "from a key package; lifetime");
    assert_eq!(reader.vector(), b"", "no extensions of the leaf");
}

#[test]
fn a_key_package_made_today_says_the_same_of_itself() {
    let (me, packages) = recording().joiner();
    for last_resort in [false, true] {
        let (package, recorded, _) = key_package(&me, &packages, last_resort).unwrap();
        let mut reader = Reader(&package[4..]);
        reader.version_and_suite();
        let (_init, _leaf, key) = (reader.vector(), reader.vector(), reader.vector());
        assert_eq!(key, me.key.public().unwrap().as_bytes());
        assert_eq!((reader.number(2), reader.vector()), (1, &cbor::encode(&me.credential)[..]));
        capabilities_and_lifetime(&mut reader);
        let _signature = reader.vector();
        assert_eq!(reader.vector(), if last_resort { &[0, 10, 0][..] } else { &[] });
        assert_eq!(reference("KeyPackage Reference", &package[4..]), recorded);
    }
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
