//! `names.json`, `statements.json`, `invite.json`, `safety.json`: who somebody is, and how they begin.

use minicbor::Encode;
use privity_protocol::cbor;
use privity_protocol::frame::Blob;
use privity_protocol::identity::{
    DeviceCertificate, DeviceRevocation, Endorsement, EndorsementRevocation, Identity, Issuer, Name, Role,
    SafetyNumber, Signed, check_handle, handle_skeleton, verify_chain,
};
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, MatterId, PersonId, Position, Timestamp};
use privity_protocol::invite::{Claim, Invite, InviteSecret, InviteStatement};
use privity_protocol::rescue::{Fate, RepairRequest, Successor};
use privity_protocol::suite::{self, Digest, Fingerprint, Label, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};

use crate::json::{self, Hex, hex};
use crate::suite::aead_seal;
use crate::{follows, recorded, secret};

const SALT: [u8; 16] = [0x5a; 16];
const ADA: Someone = Someone([0xa0; 16], [0xa1; 16]);
const CLEO: Someone = Someone([0xc0; 16], [0xc1; 16]);

/// A person's and their device's id.
#[derive(Clone, Copy)]
struct Someone([u8; 16], [u8; 16]);

impl Someone {
    fn issuer(&self) -> Issuer {
        Issuer { person: PersonId::new(self.0), device: DeviceId::new(self.1) }
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    about: String,
    ids: Vec<IdText>,
    names: Vec<Commitment>,
    handles: Vec<Handle>,
    no_handles: Vec<String>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdText {
    bytes: Hex,
    text: String,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commitment {
    name: String,
    salt: Hex,
    cbor: Hex,
    commitment: Hex,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handle {
    handle: String,
    skeleton: String,
}

#[test]
fn ids_names_and_handles_are_as_recorded() {
    let id = |bytes: [u8; 16]| IdText { bytes: hex(bytes), text: MatterId::new(bytes).to_string() };
    let named = |name: &str| {
        let name = Name { name: name.to_owned(), salt: SALT };
        let cbor = cbor::encode(&name);
        assert!(follows("name", &cbor));
        Commitment { salt: hex(SALT), cbor: hex(cbor), commitment: hex(name.commitment().as_bytes()), name: name.name }
    };
    let handle = |handle: &str| {
        check_handle(handle).unwrap();
        Handle { handle: handle.to_owned(), skeleton: handle_skeleton(handle) }
    };
    let no_handle = |handle: &str| {
        assert!(check_handle(handle).is_err(), "{handle}");
        handle.to_owned()
    };
    json::computed("names.json", &Names {
        about: "Ids as people see them; names with the commitment that endorsements carry; handles, of which the relay takes one of each \
                skeleton; and what is no handle."
            .to_owned(),
        ids: [[0; 16], [0xff; 16], std::array::from_fn(|at| u8::try_from(at * 17).unwrap())].map(id).into(),
        names: ["Ada Byron", "Çelik & Söhne"].map(named).into(),
        handles: ["ada", "a.da-1", "corner.clever", "vvill1am", "50"].map(handle).into(),
        no_handles: ["a", "Ada", ".ada", "ada-", "ada_b", "", "ä-a", &"x".repeat(33)].map(no_handle).into(),
    });
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statements {
    about: String,
    keys: Vec<Key>,
    statements: Vec<Statement>,
    chain: Hex,
    chain_ends_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    seeds: Hex,
    public_key: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    name: String,
    rule: String,
    label: String,
    key: String,
    body: Hex,
    signature: Hex,
}

/// The keys by name.
const KEYS: [(&str, u8); 6] = [
    ("organisation", 10),
    ("Ada's person key", 11),
    ("Ada's link key", 12),
    ("Ada's MLS key", 13),
    ("Cleo's person key", 14),
    ("Cleo's MLS key", 15),
];

fn key(name: &str) -> SecretKey {
    secret(KEYS.iter().find(|(other, _)| *other == name).unwrap().1)
}

fn certificate(of: Someone, mls_key: &str) -> DeviceCertificate {
    DeviceCertificate {
        person: of.issuer().person,
        device: of.issuer().device,
        link_key: key("Ada's link key").public().unwrap().digest(),
        mls_key: key(mls_key).public().unwrap(),
        made_at: Timestamp(1_800_000_000_000),
    }
}

fn endorsement(of: Someone, person_key: &str, role: Role, handle: &str, issuer: Option<Issuer>) -> Endorsement {
    Endorsement {
        person: of.issuer().person,
        person_key: key(person_key).public().unwrap().digest(),
        role,
        registrar: issuer.is_none(),
        handle: handle.to_owned(),
        name: Name { name: handle.to_owned(), salt: SALT }.commitment(),
        issuer,
        from: Timestamp(1_800_000_000_000),
        until: Timestamp(1_863_072_000_000),
        confirmed: issuer.is_none(),
        adopted: false,
        after: None,
    }
}

fn invite_statement(full: bool) -> InviteStatement {
    InviteStatement {
        invite: InviteId::new([0x1e; 16]),
        issuer: ADA.issuer(),
        role: Role::Client,
        handle: full.then(|| "cleo".to_owned()),
        name: full.then(|| Name { name: "Cleo".to_owned(), salt: SALT }.commitment()),
        expires: Timestamp(1_800_259_200_000),
        links: None,
        replaces: None,
    }
}

fn device_invite() -> InviteStatement {
    let expires = Timestamp(1_800_000_600_000);
    InviteStatement { role: Role::Attorney, expires, links: Some(ADA.issuer().person), ..invite_statement(false) }
}

fn revocation(issuer: Option<Issuer>) -> DeviceRevocation {
    let Issuer { person, device } = CLEO.issuer();
    DeviceRevocation { person, device, issuer, at: Timestamp(1_800_000_000_000) }
}

/// Of the endorsement that Ada's device gave Cleo, or of Ada's own.
fn withdrawal(issuer: Option<Issuer>) -> EndorsementRevocation {
    let of = |who, key, role, handle| Digest::of(&[&cbor::encode(&endorsement(who, key, role, handle, issuer))]);
    let (person, endorsement) = match issuer {
        Some(_) => (CLEO.issuer().person, of(CLEO, "Cleo's person key", Role::Client, "cleo")),
        None => (ADA.issuer().person, of(ADA, "Ada's person key", Role::Attorney, "ada")),
    };
    EndorsementRevocation { person, endorsement, issuer, at: Timestamp(1_800_000_000_000) }
}

fn endorsement_after() -> Endorsement {
    let after = Some(Digest::of(&[&cbor::encode(&withdrawal(Some(ADA.issuer())))]));
    let from = Timestamp(1_800_000_000_001);
    Endorsement { after, from, ..endorsement(CLEO, "Cleo's person key", Role::Client, "cleo", Some(ADA.issuer())) }
}

fn position(seq: u64) -> Position {
    Position { seq, chain: Digest::of(&[&[9; 16]]) }
}

fn repair() -> RepairRequest {
    RepairRequest {
        group: MatterId::new([0x61; 16]),
        device: CLEO.issuer().device,
        epoch: 7,
        fence: position(41),
        package: Blob(b"a key package".to_vec()),
        inbox: MailboxId::new([0x1b; 16]),
    }
}

fn successor() -> Successor {
    Successor {
        group: MatterId::new([0x61; 16]),
        device: ADA.issuer().device,
        epoch: 8,
        position: position(300),
        mailbox: MailboxId::new([0x3b; 16]),
        successor: MatterId::new([0x62; 16]),
        turn: 2,
        people: vec![ADA.issuer().person],
        fates: vec![Fate { person: PersonId::new([0x63; 16]), number: 3, out: true }],
    }
}

/// What is signed, and with what: name, rule of the schema, label, key, body.
fn bodies() -> Vec<(&'static str, &'static str, Label, &'static str, Vec<u8>)> {
    fn encode(body: &impl Encode<()>) -> Vec<u8> {
        cbor::encode(body)
    }
    let (certificate_rule, endorsement_rule, invite_rule) = ("device-certificate", "endorsement", "invite-statement");
    let (first, by_ada) = (
        endorsement(ADA, "Ada's person key", Role::Attorney, "ada", None),
        endorsement(CLEO, "Cleo's person key", Role::Client, "cleo", Some(ADA.issuer())),
    );
    let (organisation, adas_person, adas) = ("organisation", "Ada's person key", "Ada's MLS key");
    let (revocation_rule, withdrawal_rule) = ("device-revocation", "endorsement-revocation");
    let (cleos_person, cleos) = ("Cleo's person key", "Cleo's MLS key");
    vec![
        ("Ada's device", certificate_rule, Label::DeviceCertificate, adas_person, encode(&certificate(ADA, adas))),
        ("Cleo's device", certificate_rule, Label::DeviceCertificate, cleos_person, encode(&certificate(CLEO, cleos))),
        ("the first registrar", endorsement_rule, Label::Endorsement, organisation, encode(&first)),
        ("a client, by a registrar's device", endorsement_rule, Label::Endorsement, adas, encode(&by_ada)),
        ("an invite with handle and name", invite_rule, Label::Invite, adas, encode(&invite_statement(true))),
        ("an invite without", invite_rule, Label::Invite, adas, encode(&invite_statement(false))),
        ("a repair request", "repair-request", Label::Repair, cleos, encode(&repair())),
        ("a successor", "successor", Label::Successor, adas, encode(&successor())),
        ("an invite for a device", invite_rule, Label::Invite, adas, encode(&device_invite())),
        (
            "a revocation by the person key",
            revocation_rule,
            Label::DeviceRevocation,
            cleos_person,
            encode(&revocation(None)),
        ),
        (
            "a revocation by a registrar's device",
            revocation_rule,
            Label::DeviceRevocation,
            adas,
            encode(&revocation(Some(ADA.issuer()))),
        ),
        (
            "a withdrawal by a registrar's device",
            withdrawal_rule,
            Label::EndorsementRevocation,
            adas,
            encode(&withdrawal(Some(ADA.issuer()))),
        ),
        (
            "a withdrawal by the organisation",
            withdrawal_rule,
            Label::EndorsementRevocation,
            organisation,
            encode(&withdrawal(None)),
        ),
        ("an endorsement after a withdrawal", endorsement_rule, Label::Endorsement, adas, encode(&endorsement_after())),
    ]
}

fn statements() -> Statements {
    recorded("statements.json", || {
        let signed: Vec<(&str, Signed)> = bodies()
            .into_iter()
            .map(|(name, _, label, by, body)| {
                let signature = key(by).sign(label, &body).unwrap();
                (name, Signed { body, signature })
            })
            .collect();
        let of = |name: &str| signed.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        let identity = |person: Someone, person_key: &str, certificate: &str, endorsement: &str| Identity {
            person: person.issuer().person,
            person_key: key(person_key).public().unwrap(),
            certificates: vec![of(certificate)],
            endorsement: of(endorsement),
            line: Vec::new(),
        };
        let chain = vec![
            identity(CLEO, "Cleo's person key", "Cleo's device", "a client, by a registrar's device"),
            identity(ADA, "Ada's person key", "Ada's device", "the first registrar"),
        ];
        let statement = |(name, rule, label, key, body): (&str, &str, Label, &str, Vec<u8>)| Statement {
            name: name.to_owned(),
            rule: rule.to_owned(),
            label: String::from_utf8(label.as_bytes().to_vec()).unwrap(),
            key: key.to_owned(),
            body: hex(body),
            signature: hex(of(name).signature),
        };
        Statements {
            about: "Every kind of signed statement. `rule` is the body's in privity.cddl, `key` who signed. `chain` is CBOR of identities, \
                    the person first, up to one whom the organisation's key endorses."
                .to_owned(),
            keys: KEYS
                .map(|(name, number)| Key {
                    name: name.to_owned(),
                    seeds: hex(secret(number).as_bytes()),
                    public_key: hex(secret(number).public().unwrap().as_bytes()),
                })
                .into(),
            statements: bodies().into_iter().map(statement).collect(),
            chain: hex(cbor::encode(&chain)),
            chain_ends_at: "organisation".to_owned(),
        }
    })
}

fn public(file: &Statements, name: &str) -> PublicKey {
    PublicKey::from_slice(&file.keys.iter().find(|key| key.name == name).unwrap().public_key.0).unwrap()
}

#[test]
fn every_recorded_statement_is_what_is_encoded_today_and_verifies() {
    let file = statements();
    assert_eq!(file.statements.len(), bodies().len());
    for (recorded, (name, rule, label, key, body)) in file.statements.iter().zip(bodies()) {
        assert_eq!((&*recorded.name, &*recorded.rule, &*recorded.key), (name, rule, key));
        assert_eq!(recorded.label.as_bytes(), label.as_bytes());
        assert_eq!(recorded.body, hex(&body), "{name}");
        assert!(follows(rule, &body), "{name}");
        for other in [
            "device-certificate",
            "endorsement",
            "invite-statement",
            "repair-request",
            "successor",
            "claim",
            "device-revocation",
            "endorsement-revocation",
        ] {
            // A mailbox's id could be a key package, for the schema: it is labels that tell these two apart.
            let alike = (rule, other) == ("successor", "repair-request");
            assert_eq!(follows(other, &body), other == rule || alike, "{name} as {other}");
        }
        let signature = &recorded.signature.0;
        assert!(follows("signed", &cbor::encode(&Signed { body: body.clone(), signature: signature.clone() })));
        public(&file, key).verify(label, &body, signature, "x").unwrap();
        let mut other = body.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(public(&file, key).verify(label, &other, signature, "x").is_err(), "{name}, altered");
    }
}

#[test]
fn the_two_unsealed_statements_are_read_as_what_they_say() {
    let file = statements();
    let payload = |name: &str| {
        let found = file.statements.iter().find(|statement| statement.name == name).unwrap();
        cbor::encode(&Signed { body: found.body.0.clone(), signature: found.signature.0.clone() })
    };
    let (read, signed) = RepairRequest::read(&payload("a repair request")).unwrap();
    assert_eq!(read, repair());
    assert_eq!(RepairRequest::verify(&signed, &public(&file, "Cleo's MLS key")).unwrap(), repair());
    assert!(RepairRequest::verify(&signed, &public(&file, "Ada's MLS key")).is_err());
    let (read, signed) = Successor::read(&payload("a successor")).unwrap();
    assert_eq!(read, successor());
    assert_eq!(Successor::verify(&signed, &public(&file, "Ada's MLS key")).unwrap(), successor());
    assert!(Successor::verify(&signed, &public(&file, "Cleo's MLS key")).is_err());
}

#[test]
fn the_recorded_chain_reaches_the_organisation() {
    let file = statements();
    let chain: Vec<Identity> = cbor::decode(&file.chain.0, "x").unwrap();
    let organisation = public(&file, &file.chain_ends_at);
    let verified = verify_chain(&chain, &organisation).unwrap();
    assert_eq!((verified.person, &*verified.endorsement.handle), (CLEO.issuer().person, "cleo"));
    assert!(verify_chain(&chain[..1], &organisation).is_err());
    assert!(verify_chain(&chain, &public(&file, "Ada's MLS key")).is_err());
    assert!(chain.iter().all(|identity| follows("identity", &cbor::encode(identity))));
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invites {
    about: String,
    invites: Vec<InviteVector>,
    secret: Hex,
    id: Hex,
    token: Hex,
    token_hash: Hex,
    check_key: Hex,
    name_key: Hex,
    name: Hex,
    name_nonce: Hex,
    name_sealed: Hex,
    claims: Vec<Proof>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteVector {
    url: String,
    address: String,
    relay: Hex,
    organisation: Option<Hex>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    claim: Hex,
    proof: Hex,
}

#[test]
fn an_invite_and_what_comes_from_its_secret_are_as_recorded() {
    let secret = InviteSecret::new([0x5e; 16]);
    let check_key = suite::derive::<48>(&[0x5e; 16], b"privity/1 invite check");
    let name_key = suite::derive::<32>(&[0x5e; 16], b"privity/1 invite name");
    let name = Name { name: "Cleo".to_owned(), salt: SALT };
    let name_sealed = [&[0x0c; 12][..], &aead_seal(&name_key[..], &[0x0c; 12], b"name", &cbor::encode(&name))].concat();
    assert_eq!(secret.open_name(&name_sealed).unwrap(), name);
    let proof = |statement: bool| {
        let claim = claim(&secret, statement);
        let encoded = cbor::encode(&claim);
        assert!(follows("claim", &encoded) && !follows("endorsement", &encoded));
        assert_eq!(secret.prove(&claim), suite::mac(&check_key[..], &encoded));
        Proof { claim: hex(encoded), proof: hex(secret.prove(&claim).as_bytes()) }
    };
    json::computed("invite.json", &Invites {
        about: "Invites' URLs and what is in them; keys and proofs out of their secret. `name_sealed` is nonce, ciphertext, tag; the \
                claims are CBOR, the second without a statement, as with a relay's first invite."
            .to_owned(),
        invites: [("relay.example.com:4433", true), ("192.0.2.7:443", false), ("[2001:db8::7]:4433", true)].map(invite).into(),
        secret: hex([0x5e; 16]),
        id: hex(secret.id().as_bytes()),
        token: hex(secret.token()),
        token_hash: hex(secret.token_hash().as_bytes()),
        check_key: hex(&check_key[..]),
        name_key: hex(&name_key[..]),
        name: hex(cbor::encode(&name)),
        name_nonce: hex([0x0c; 12]),
        name_sealed: hex(name_sealed),
        claims: [true, false].map(proof).into(),
    });
}

fn invite((address, organisation): (&str, bool)) -> InviteVector {
    let (relay, organisation) = ([1; 32], organisation.then_some([2; 32]));
    let invite = Invite {
        address: address.to_owned(),
        relay: Fingerprint::new(relay),
        organisation: organisation.map(Fingerprint::new),
        secret: InviteSecret::new([0x5e; 16]),
    };
    let read: Invite = invite.url().parse().unwrap();
    assert_eq!((&read.address, read.relay, read.organisation), (&invite.address, invite.relay, invite.organisation));
    assert_eq!(read.secret.token(), invite.secret.token());
    InviteVector {
        url: invite.url(),
        address: address.to_owned(),
        relay: hex(relay),
        organisation: organisation.map(hex),
    }
}

fn claim(secret: &InviteSecret, statement: bool) -> Claim {
    Claim {
        invite: secret.id(),
        relay: Fingerprint::new([1; 32]),
        person: CLEO.issuer().person,
        device: CLEO.issuer().device,
        person_key: key("Cleo's person key").public().unwrap().digest(),
        certificate: Digest::of(&[&cbor::encode(&certificate(CLEO, "Cleo's MLS key"))]),
        handle: "cleo".to_owned(),
        statement: statement.then(|| Digest::of(&[&cbor::encode(&invite_statement(true))])),
    }
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SafetyNumbers {
    about: String,
    numbers: Vec<Compared>,
    firm_numbers: Vec<WithFirm>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithFirm {
    person: Hex,
    person_fingerprint: Hex,
    organisation_fingerprint: Hex,
    role: u8,
    handle: String,
    sha_384: Hex,
    number: String,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    persons: [Hex; 2],
    person_keys: [Hex; 2],
    fingerprints: [Hex; 2],
    sha_384: Hex,
    number: String,
}

#[test]
fn safety_numbers_are_as_recorded_and_as_made_by_hand() {
    let compared = |one: (Someone, &str), other: (Someone, &str)| {
        let side = |(someone, name): (Someone, &str)| (someone.issuer().person, key(name).public().unwrap());
        let (one, other) = (side(one), side(other));
        let number = SafetyNumber::between((one.0, &one.1), (other.0, &other.1));
        let bytes = |(person, key): &(PersonId, PublicKey)| {
            [&person.as_bytes()[..], key.digest().as_bytes().get(..32).unwrap()].concat()
        };
        let (smaller, greater) = (bytes(&one).min(bytes(&other)), bytes(&one).max(bytes(&other)));
        let digest = Digest::of(&[b"privity/1 safety number", &[0], &smaller, &greater]);
        let group = |bytes: &[u8]| format!("{:05}", u32::from_be_bytes(bytes.try_into().unwrap()) % 100_000);
        let by_hand: Vec<String> = digest.as_bytes().chunks(4).map(group).collect();
        assert_eq!(number.to_string(), by_hand.join(" "));
        Compared {
            persons: [hex(one.0.as_bytes()), hex(other.0.as_bytes())],
            fingerprints: [hex(one.1.fingerprint().as_bytes()), hex(other.1.fingerprint().as_bytes())],
            person_keys: [hex(one.1.as_bytes()), hex(other.1.as_bytes())],
            sha_384: hex(digest.as_bytes()),
            number: number.to_string(),
        }
    };
    let with_firm = |role: Role, number: u8| {
        let (person, key, firm) = (CLEO.issuer().person, key("Cleo's person key"), key("organisation"));
        let (key, firm) = (key.public().unwrap(), firm.public().unwrap());
        let shown = SafetyNumber::with_firm((person, &key), "cleo", role, &firm);
        let fingerprints = [key.fingerprint(), firm.fingerprint()];
        let [own, firms] = &fingerprints;
        let said = [&[0x82, number, 0x64][..], b"cleo"].concat();
        let digest =
            Digest::of(&[b"privity/1 firm number", &[0], person.as_bytes(), own.as_bytes(), firms.as_bytes(), &said]);
        let group = |bytes: &[u8]| format!("{:05}", u32::from_be_bytes(bytes.try_into().unwrap()) % 100_000);
        assert_eq!(shown.to_string(), digest.as_bytes().chunks(4).map(group).collect::<Vec<_>>().join(" "));
        WithFirm {
            person: hex(person.as_bytes()),
            person_fingerprint: hex(own.as_bytes()),
            organisation_fingerprint: hex(firms.as_bytes()),
            role: number,
            handle: "cleo".to_owned(),
            sha_384: hex(digest.as_bytes()),
            number: shown.to_string(),
        }
    };
    let (ada, cleo) = ((ADA, "Ada's person key"), (CLEO, "Cleo's person key"));
    json::computed("safety.json", &SafetyNumbers {
        about: "Safety numbers: SHA-384 of the label `privity/1 safety number`, a zero byte, and both sides, the smaller first; a side is \
                the person's id and the fingerprint of their key. Each four bytes of it, modulo 100,000, are five digits. Firm numbers: SHA-384 of the \
                label `privity/1 firm number`, a zero byte, the newcomer's side, the fingerprint of the organisation's key, and CBOR \
                [role, handle]."
            .to_owned(),
        numbers: vec![compared(ada, cleo), compared(cleo, ada), compared((ADA, "organisation"), cleo)],
        firm_numbers: vec![with_firm(Role::Client, 2), with_firm(Role::Attorney, 0)],
    });
}
