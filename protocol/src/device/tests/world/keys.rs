//! Keys that are replaced: what the relay keeps of them, and how tests restore and enrol people anew.

use zeroize::Zeroizing;

use super::{Node, Relay, Vault, World, mailbox, relay_key};
use crate::device::state::{Profile, Table};
use crate::device::{Enrolment, NewPersonInvite, Recovering, rows_of, with_step};
use crate::error::Refused;
use crate::frame::{Event, InviteView, NewKey, Recovery, RecoveryView, Registration, Reply, Request};
use crate::identity::{DeviceCertificate, DeviceRevocation, Identity, Replacement, Signed, Step};
use crate::ids::{DeviceId, MailboxId, PersonId};
use crate::invite::Invite;
use crate::recovery::RecoverySecret;
use crate::suite::{PublicKey, SecretKey};

impl Relay {
    pub(super) fn keys_request(&mut self, own: PersonId, request: &Request) -> Option<Reply> {
        match request {
            Request::SetRecovery(filing) => {
                self.people.get_mut(&own).unwrap().recovery = Some((**filing).clone());
            }
            Request::ReplaceKey(new) => {
                let NewKey { person_key, statement, certificates, recovery, mut line, .. } = (**new).clone();
                let row = self.people.get_mut(&own).unwrap();
                if row.registration.person_key == person_key {
                    return Some(Reply::Done);
                }
                let said: Replacement = statement.unverified("replacement").unwrap();
                if line.is_empty() && said.from != row.registration.person_key.digest() {
                    return Some(Reply::Refused(Refused::malformed("the statement is about other keys")));
                }
                let last = line.pop();
                for step in line {
                    row.line = with_step(&row.line, step);
                }
                if let Some(last) = last {
                    row.registration.person_key = last.key;
                }
                if let (Some(filed), Some(recovery)) = (row.recovery.as_mut(), recovery) {
                    filed.statement = recovery;
                }
                self.become_new(own, &person_key, &certificates, Some((statement, None)));
            }
            _ => return None,
        }
        Some(Reply::Done)
    }

    /// Somebody has another key from now on.
    fn become_new(
        &mut self,
        person: PersonId,
        key: &PublicKey,
        certificates: &[Signed],
        step: Option<(Signed, Option<Signed>)>,
    ) {
        let before: Identity = self.chain(person).remove(0);
        let row = self.people.get_mut(&person).unwrap();
        row.line = match step {
            Some((statement, recovery)) => {
                with_step(&row.line, Step { key: before.person_key.clone(), statement, recovery })
            }
            None => Vec::new(),
        };
        row.past.push(before);
        row.registration.person_key = key.clone();
        let mut first = Vec::new();
        for certificate in certificates {
            let said: DeviceCertificate = certificate.unverified("certificate").unwrap();
            match self.linked.get_mut(&said.device) {
                Some(linked) => linked.certificate = Some(certificate.clone()),
                None => first.push(certificate.clone()),
            }
        }
        let signed: Vec<_> = certificates.iter().map(Signed::digest).collect();
        let of_person = self.linked.iter().filter(|(_, linked)| linked.registration.person == person);
        let left = of_person.filter(|(_, linked)| {
            linked.certificate.as_ref().is_some_and(|certificate| !signed.contains(&certificate.digest()))
        });
        self.former.extend(left.map(|(device, _)| *device));
        row.certificates = Some(first);
        self.replaced.push(person);
        self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
    }

    fn take_in(&mut self, person: PersonId, certificate: &Signed, inbox: MailboxId) {
        let said: DeviceCertificate = certificate.unverified("certificate").unwrap();
        self.devices.insert(said.device, (person, inbox));
        self.mailboxes.insert(inbox, mailbox(inbox, Some(said.device)));
    }

    fn revoke_all(&mut self, revocations: &[Signed]) {
        for statement in revocations {
            let said: DeviceRevocation = statement.unverified("revocation").unwrap();
            self.revoke(said.person, said.device, statement);
        }
    }

    pub(in crate::device::tests) fn recover(&mut self, person: PersonId, asked: &Recovery) {
        let recovery = self.people[&person].recovery.clone().unwrap().statement;
        let certificates: Vec<Signed> = std::iter::once(&asked.certificate).chain(&asked.stays).cloned().collect();
        self.become_new(person, &asked.person_key, &certificates, Some((asked.statement.clone(), Some(recovery))));
        self.take_in(person, &asked.certificate, asked.inbox);
        self.revoke_all(&asked.revocations);
        self.people.get_mut(&person).unwrap().recovery = None;
    }

    /// Somebody who is enrolled anew waits for the endorsement of the new key.
    fn register_anew(&mut self, registration: &Registration) {
        let row = self.people.get_mut(&registration.person).unwrap();
        row.again = Some(registration.clone());
        let inviter = self.invites[&registration.invite].0;
        self.events.push((inviter, Event::Newcomer));
    }

    /// The endorsement has come.
    pub(super) fn endorsed_anew(&mut self, person: PersonId) {
        let Some(registration) = self.people.get_mut(&person).unwrap().again.take() else { return };
        let certificates = [registration.certificate.clone()];
        self.become_new(person, &registration.person_key, &certificates, None);
        self.people.get_mut(&person).unwrap().registration = registration.clone();
        self.take_in(person, &registration.certificate, registration.inbox);
        self.revoke_all(&registration.revocations);
    }

    /// Whether another device of the same person has these rights in a mailbox: whoever may post gives them to this one, too.
    pub(super) fn has_one_like(&self, mailbox: MailboxId, device: DeviceId, rights: crate::frame::Rights) -> bool {
        let Some(row) = self.mailboxes.get(&mailbox) else { return false };
        let mut open = row.grants.iter().filter(|grant| grant.until.is_none() && grant.rights.include(rights));
        open.any(|grant| self.owner(grant.device) == self.owner(device))
    }

    pub(in crate::device::tests) fn chain_of(&self, person: PersonId) -> Vec<Identity> {
        self.chain(person)
    }

    pub(in crate::device::tests) fn organisation_key(&self) -> Option<PublicKey> {
        self.organisation.clone()
    }

    /// The relay tells that somebody's key was replaced.
    pub(in crate::device::tests) fn now_replaced(&mut self, person: PersonId) {
        self.replaced.push(person);
        self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
    }

    /// What an invite says.
    pub(in crate::device::tests) fn invite_statement(&self, invite: crate::ids::InviteId) -> Signed {
        self.invites[&invite].1.statement.clone()
    }

    /// The relay shows another identity of somebody.
    pub(in crate::device::tests) fn forge(&mut self, person: PersonId, identity: &Identity, device: DeviceId) {
        let row = self.people.get_mut(&person).unwrap();
        row.line = identity.line.clone();
        row.registration.person_key = identity.person_key.clone();
        row.certificates = Some(identity.certificates.clone());
        row.endorsement = Some(identity.endorsement.clone());
        let inbox = MailboxId::random();
        self.devices.insert(device, (person, inbox));
        self.mailboxes.insert(inbox, mailbox(inbox, Some(device)));
        self.now_replaced(person);
    }

    /// The identity of somebody that certifies a device, if it is one from before their key was replaced.
    pub(super) fn past(&self, person: PersonId, device: DeviceId) -> Option<Identity> {
        self.people[&person].past.iter().rev().find(|past| past.certifies(device)).cloned()
    }
}

impl World {
    /// Somebody makes a recovery sheet.
    pub(in crate::device::tests) fn sheet(&mut self, who: usize) -> RecoverySecret {
        let secret = self.nodes[who].device.new_sheet().unwrap();
        self.nodes[who].device.file_sheet(self.now, &secret).unwrap();
        self.run();
        secret
    }

    /// What the relay shows to the holder of somebody's sheet.
    pub(in crate::device::tests) fn recovery_view(&self, whom: usize) -> RecoveryView {
        let person = self.person(whom);
        let filed = self.relay.people[&person].recovery.clone().unwrap();
        RecoveryView { chain: self.relay.chain(person), statement: filed.statement, note: filed.note }
    }

    /// Somebody begins again with a sheet; the new device.
    pub(in crate::device::tests) fn restore_person(&mut self, whom: usize, secret: &RecoverySecret) -> usize {
        let view = self.recovery_view(whom);
        let recovering = Recovering::new(secret.clone(), view, self.relay.organisation.clone()).unwrap();
        let relay = relay_key().public().unwrap();
        assert_eq!(recovering.relay(), relay.fingerprint());
        let made = recovering.recover(self.now, SecretKey::generate(), relay, "localhost:1", "Firm").unwrap();
        let (profile, known, request) = made;
        self.relay.recover(profile.person, &request);
        let known = (profile.person, crate::cbor::encode(&known));
        self.begin(&rows_of(&profile), Some(known))
    }

    /// Somebody is enrolled anew by another; the new device.
    pub(in crate::device::tests) fn enrol_anew(&mut self, by: usize, whom: usize) -> usize {
        self.enrol_anew_as(by, whom, None)
    }

    /// As [`Self::enrol_anew`], under a name that they choose themselves.
    pub(in crate::device::tests) fn enrol_anew_as(&mut self, by: usize, whom: usize, name: Option<&str>) -> usize {
        let profile = self.register_anew_only(by, whom, name);
        self.begin(&rows_of(&profile), None)
    }

    /// The same, without the new device.
    pub(in crate::device::tests) fn register_anew_only(
        &mut self,
        by: usize,
        whom: usize,
        name: Option<&str>,
    ) -> Profile {
        let (person, role) = (self.person(whom), self.nodes[whom].device.profile().role);
        let wanted = NewPersonInvite { replaces: Some(person), ..NewPersonInvite::new(role) };
        let invite = self.nodes[by].device.invite(self.now, &wanted).unwrap();
        self.run();
        self.use_anew(&invite, whom, name)
    }

    /// Somebody registers anew with such an invite.
    pub(in crate::device::tests) fn use_anew(&mut self, invite: &Invite, whom: usize, name: Option<&str>) -> Profile {
        let (person, role) = (self.person(whom), self.nodes[whom].device.profile().role);
        let (inviter, filed) = self.relay.invites[&invite.secret.id()].clone();
        let replaced = Some(self.relay.chain(person).remove(0));
        let chain = self.relay.chain(inviter);
        let view = InviteView { statement: Some(filed.statement), name: filed.name, chain, replaced };
        let enrolment =
            Enrolment::new(invite.clone(), SecretKey::generate(), view, self.relay.organisation.clone(), self.now)
                .unwrap();
        assert!(enrolment.is_anew());
        let (handle, relay) = (enrolment.handle().unwrap().to_owned(), relay_key().public().unwrap());
        let name = name.or_else(|| enrolment.name()).unwrap_or(&handle).to_owned();
        let enrolled = enrolment.enrol(self.now, relay, "Firm", &handle, &name, role);
        let (profile, registration) = enrolled.unwrap();
        self.relay.register_anew(&registration);
        self.run();
        profile
    }

    /// A matter of somebody's with some of the others in it.
    pub(in crate::device::tests) fn matter_by(&mut self, by: usize, with: &[usize]) -> crate::ids::MatterId {
        let matter = self.open(by);
        for other in with {
            self.add(by, matter, *other);
        }
        self.settle();
        matter
    }

    fn begin(&mut self, profile: &[(Vec<u8>, Zeroizing<Vec<u8>>)], known: Option<(PersonId, Vec<u8>)>) -> usize {
        let mut vault = Vault::default();
        for (key, value) in profile {
            vault.0.insert((Table::Profile, None, key.clone()), value.clone());
        }
        if let Some((person, known)) = known {
            vault.0.insert((Table::Person, None, person.as_bytes().to_vec()), Zeroizing::new(known));
        }
        self.nodes.push(Node::open(vault));
        let index = self.nodes.len() - 1;
        self.connect(index);
        self.run();
        index
    }
}
