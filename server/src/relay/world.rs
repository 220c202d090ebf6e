//! A relay's rules over a store in memory, and people to ask them; for tests.

use privity_protocol::cbor;
use privity_protocol::error::Refused;
use privity_protocol::frame::{Instance, Part, Post, Registration, Reply, Request, Rights};
use privity_protocol::identity::{DeviceCertificate, Endorsement, Issuer, Role, Signed};
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::suite::{Digest, Label, PublicKey, SecretKey};

use super::{From, Outcome, Rules};
use crate::policy::{Caller, No};
use crate::store::memory::Memory;
use crate::store::{DeviceRow, PersonRow, Read, Store, Write};

pub(super) struct World {
    pub(super) store: Memory,
    pub(super) rules: Rules,
    pub(super) now: Timestamp,
    idem: u64,
}

/// A person with one device, and its keys.
pub(super) struct Human {
    pub(super) caller: Caller,
    pub(super) inbox: MailboxId,
    pub(super) handle: String,
    pub(super) person_key: SecretKey,
    pub(super) link_key: SecretKey,
    pub(super) mls_key: SecretKey,
}

impl Human {
    pub(super) fn new(handle: &str) -> Self {
        let person_key = SecretKey::generate();
        Self {
            caller: caller(PersonId::of(&person_key.public().unwrap())),
            inbox: MailboxId::random(),
            handle: handle.to_owned(),
            person_key,
            link_key: SecretKey::generate(),
            mls_key: SecretKey::generate(),
        }
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer { person: self.caller.person, device: self.caller.device }
    }

    pub(super) fn certificate(&self) -> Signed {
        let statement = DeviceCertificate {
            person: self.caller.person,
            device: self.caller.device,
            link_key: self.link_key.public().unwrap().digest(),
            mls_key: self.mls_key.public().unwrap(),
            made_at: Timestamp(1),
        };
        Signed::make(Label::DeviceCertificate, &self.person_key, &statement).unwrap()
    }

    pub(super) fn registration(&self, invite: InviteId, token: [u8; 32], role: Role) -> Registration {
        Registration {
            invite,
            token,
            person: self.caller.person,
            person_key: self.person_key.public().unwrap(),
            certificate: self.certificate(),
            handle: self.handle.clone(),
            role,
            name: vec![1; 40],
            proof: Digest::of(&[b"proof"]),
            inbox: self.inbox,
            organisation: None,
            revocations: Vec::new(),
        }
    }

    pub(super) fn endorsement_by(&self, issuer: Option<Issuer>, role: Role) -> Endorsement {
        Endorsement {
            person: self.caller.person,
            person_key: self.person_key.public().unwrap().digest(),
            role,
            registrar: issuer.is_none(),
            handle: self.handle.clone(),
            name: Digest::of(&[b"name"]),
            issuer,
            from: Timestamp(0),
            until: Timestamp(u64::MAX),
            confirmed: false,
            adopted: false,
            after: None,
        }
    }

    pub(super) fn link_key(&self) -> PublicKey {
        self.link_key.public().unwrap()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self { store: Memory::new(), rules: Rules::default(), now: Timestamp(1_800_000_000_000), idem: 0 }
    }

    /// Somebody who is registered; endorsed if there is an endorsement.
    pub(super) fn settle(&mut self, human: &Human, role: Role, endorsement: Option<&Endorsement>) {
        let row = PersonRow {
            registration: human.registration(InviteId::random(), [0; 32], role),
            role,
            registrar: endorsement.is_some_and(|said| said.registrar),
            endorsement: endorsement.map(|said| Signed { body: cbor::encode(said), signature: Vec::new() }),
            inviter: None,
            registered: self.now,
            withdrawn: None,
            recovery: None,
            line: Vec::new(),
            again: None,
            past: Vec::new(),
        };
        self.put_person(row);
        self.put_device(human, human.caller, human.inbox);
    }

    fn put_device(&mut self, human: &Human, caller: Caller, inbox: MailboxId) {
        let Caller { device, person, .. } = caller;
        let row = DeviceRow {
            device,
            person,
            link_key: human.link_key(),
            certificate: human.certificate(),
            inbox,
            waiting: None,
            pack: None,
            revoked: None,
            pending: false,
            former: false,
            ended: false,
        };
        self.write(&[Write::Device(Box::new(row)), Write::Mailbox { mailbox: inbox, inbox_of: Some(device) }]);
        self.admit(caller).unwrap();
    }

    pub(super) fn put_person(&mut self, row: PersonRow) {
        self.write(&[Write::Person(Box::new(row))]);
    }

    /// An endorsed person.
    pub(super) fn person(&mut self, handle: &str, role: Role) -> Human {
        let human = Human::new(handle);
        let issuer = Issuer { person: PersonId::random(), device: DeviceId::random() };
        self.settle(&human, role, Some(&human.endorsement_by(Some(issuer), role)));
        human
    }

    /// One more device of somebody.
    pub(super) fn device(&mut self, human: &Human) -> Caller {
        let caller = caller(human.caller.person);
        self.put_device(human, caller, MailboxId::random());
        caller
    }

    pub(super) fn write(&mut self, writes: &[Write]) {
        self.store.begin().unwrap();
        self.store.apply(writes).unwrap();
        self.store.commit().unwrap();
    }

    pub(super) fn handle(&mut self, from: &From, request: &Request) -> Result<Outcome, Refused> {
        let outcome = self.rules.handle(&self.store, from, request, self.now).map_err(refused)?;
        self.write(&outcome.writes);
        match outcome.reply {
            Some(Reply::Refused(refused)) => Err(refused),
            _ => Ok(outcome),
        }
    }

    /// A hello of this instance.
    pub(super) fn admit(&mut self, caller: Caller) -> Result<Outcome, Refused> {
        let outcome = self.rules.admit(&self.store, caller.device, caller.instance).map_err(refused)?;
        self.write(&outcome.writes);
        Ok(outcome)
    }

    pub(super) fn ask(&mut self, caller: Caller, request: &Request) -> Result<Reply, Refused> {
        Ok(self.handle(&From::Device(caller), request)?.reply.unwrap())
    }

    pub(super) fn newcomer(&mut self, human: &Human, request: &Request) -> Result<Reply, Refused> {
        let reply = self.handle(&From::Newcomer(human.link_key()), request)?.reply.unwrap();
        if matches!(request, Request::Register(_)) {
            self.admit(human.caller).unwrap();
        }
        Ok(reply)
    }

    /// Posts under the next idem; the seqs of what was appended.
    pub(super) fn post(&mut self, caller: Caller, parts: Vec<Part>) -> Result<Vec<u64>, Refused> {
        self.idem += 1;
        self.post_as(caller, self.idem, parts)
    }

    pub(super) fn post_as(&mut self, caller: Caller, idem: u64, parts: Vec<Part>) -> Result<Vec<u64>, Refused> {
        let post = Post { idem, mac: Digest::of(&[&idem.to_be_bytes()]), parts };
        match self.ask(caller, &Request::Post(post))? {
            Reply::Posted { seqs } => Ok(seqs),
            other => panic!("{other:?}"),
        }
    }

    /// A matter of `owner` with `others` in it, and a first fence.
    pub(super) fn matter(&mut self, owner: &Human, others: &[(Caller, Rights)]) -> MailboxId {
        let mailbox = MailboxId::random();
        let mut parts = vec![Part::Create { mailbox }, append(mailbox, Position::start(mailbox), true, b"first")];
        parts.extend(others.iter().map(|(other, rights)| Part::Grant {
            mailbox,
            device: other.device,
            rights: *rights,
            resume: false,
        }));
        self.post(owner.caller, parts).unwrap();
        mailbox
    }

    pub(super) fn fence(&self, mailbox: MailboxId) -> Position {
        self.store.mailbox(mailbox).unwrap().unwrap().fence
    }

    pub(super) fn head(&self, mailbox: MailboxId) -> Position {
        self.store.mailbox(mailbox).unwrap().unwrap().head
    }

    /// Appends a message behind the newest fence.
    pub(super) fn say(&mut self, caller: Caller, mailbox: MailboxId) -> Result<Vec<u64>, Refused> {
        let base = self.fence(mailbox);
        self.post(caller, vec![append(mailbox, base, false, b"hello")])
    }

    /// Appends a fence behind the newest one.
    pub(super) fn commit(&mut self, caller: Caller, mailbox: MailboxId) -> Result<Vec<u64>, Refused> {
        let base = self.fence(mailbox);
        self.post(caller, vec![append(mailbox, base, true, b"commit")])
    }
}

fn caller(person: PersonId) -> Caller {
    Caller { device: DeviceId::random(), person, instance: Instance::after(None) }
}

fn refused(no: No) -> Refused {
    match no {
        No::Refused(refused) => refused,
        No::Store(failure) => panic!("{failure}"),
    }
}

pub(super) fn append(mailbox: MailboxId, base: Position, fence: bool, envelope: &[u8]) -> Part {
    let envelope = privity_protocol::frame::Blob(envelope.to_vec());
    Part::Append { mailbox, base, fence, envelope, keep_ms: 1000 }
}
