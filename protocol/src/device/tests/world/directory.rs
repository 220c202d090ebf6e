//! What the relay's directory says of people, and how a test changes it.

use super::{Person, Relay, World, mailbox};
use crate::frame::{AdoptionView, Event, Registration, Reply, Request};
use crate::identity::{DeviceCertificate, Endorsement, Identity, Signed};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::suite::{Label, SecretKey};

impl Relay {
    pub(super) fn chain(&self, person: PersonId) -> Vec<Identity> {
        let mut chain = Vec::new();
        let mut next = Some((person, None));
        while let Some((row, issuer)) = next.and_then(|(person, issuer)| Some((self.people.get(&person)?, issuer))) {
            let Some(endorsement) = row.endorsement.clone() else { break };
            let mut identity = crate::device::enrol::identity_of(&row.registration, endorsement);
            identity.line.clone_from(&row.line);
            if let Some(certificates) = &row.certificates {
                identity.certificates.clone_from(certificates);
            }
            if let Some(past) = issuer.and_then(|device| self.past(identity.person, device)) {
                // Whoever endorsed somebody under a key that was replaced since is shown as they were then.
                identity = past;
            }
            let said: Endorsement = identity.endorsement.unverified("endorsement").unwrap();
            next = said.issuer.map(|issuer| (issuer.person, Some(issuer.device)));
            let now = identity.person_key == row.registration.person_key;
            let linked = self.linked.iter().filter(|(device, linked)| {
                now && linked.registration.person == identity.person && !self.former.contains(device)
            });
            identity.certificates.extend(linked.filter_map(|(_, linked)| linked.certificate.clone()));
            chain.push(identity);
        }
        chain
    }

    /// A newcomer with what their inviter has said of them.
    pub(in crate::device::tests) fn adoption(&self, person: PersonId) -> AdoptionView {
        let registration = self.people[&person].registration.clone();
        let (inviter, filed) = self.invites[&registration.invite].clone();
        AdoptionView { registration, statement: filed.statement, chain: self.chain(inviter) }
    }

    pub(super) fn adoption_request(&self, request: &Request) -> Reply {
        if let Request::Adoption { person } = request {
            let mut view = self.adoption(*person);
            self.altered.iter().for_each(|alter| alter(&mut view.registration));
            self.altered_adoption.iter().for_each(|alter| alter(&mut view));
            return Reply::Adoption(Box::new(view));
        }
        let waiting = self.people.values().filter(|row| row.endorsement.is_none());
        let mut newcomers: Vec<Registration> = waiting.map(|row| row.registration.clone()).collect();
        if let Some(alter) = self.altered {
            newcomers.iter_mut().for_each(alter);
        }
        Reply::Adoptable { newcomers }
    }

    pub(in crate::device::tests) fn register(
        &mut self,
        registration: &Registration,
        inviter: Option<PersonId>,
    ) -> DeviceId {
        let certificate: DeviceCertificate = registration.certificate.unverified("certificate").unwrap();
        let endorsement = registration.organisation.as_ref().map(|founding| founding.endorsement.clone());
        if let Some(founding) = &registration.organisation {
            self.organisation = Some(founding.key.clone());
        }
        self.people.insert(
            registration.person,
            Person {
                registration: registration.clone(),
                endorsement,
                inviter,
                recovery: None,
                line: Vec::new(),
                past: Vec::new(),
                certificates: None,
                again: None,
            },
        );
        self.devices.insert(certificate.device, (registration.person, registration.inbox));
        self.mailboxes.insert(registration.inbox, mailbox(registration.inbox, Some(certificate.device)));
        if let Some(inviter) = inviter {
            self.events.push((inviter, Event::Newcomer));
        }
        certificate.device
    }

    /// The newest endorsement of somebody.
    pub(in crate::device::tests) fn endorsement(&self, person: PersonId) -> Endorsement {
        self.people[&person].endorsement.as_ref().unwrap().unverified("endorsement").unwrap()
    }

    /// Whose endorsements somebody may renew.
    pub(super) fn renewals(&self, own: PersonId) -> Reply {
        let registrar = self.people[&own].endorsement.is_some() && self.endorsement(own).registrar;
        let may = |person: &&PersonId| {
            let row = &self.people[*person];
            row.endorsement.is_some() && {
                let said = self.endorsement(**person);
                let by = said.issuer.map(|issuer| issuer.person);
                (said.is_due(self.now) || said.person_key != row.registration.person_key.digest())
                    && (by == Some(own) || **person == own && by.is_none() || registrar && by.is_some())
            }
        };
        Reply::Chains { chains: self.people.keys().filter(may).map(|person| self.chain(*person)).collect() }
    }

    /// What the relay answers somebody's device that asks for a chain.
    pub(in crate::device::tests) fn show(&self, person: PersonId) -> Reply {
        Reply::Chain { chain: self.chain(person) }
    }
}

impl World {
    /// Somebody's endorsement is another one, signed by `by`.
    pub(in crate::device::tests) fn endorse_anew(
        &mut self,
        by: usize,
        whom: usize,
        change: impl FnOnce(&mut Endorsement),
    ) {
        let person = self.person(whom);
        let mut said = self.relay.endorsement(person);
        change(&mut said);
        let signed = Signed::make(Label::Endorsement, &self.nodes[by].device.profile().mls_key, &said).unwrap();
        self.relay.people.get_mut(&person).unwrap().endorsement = Some(signed);
    }

    /// As [`Self::endorse_anew`], by the organisation's key.
    pub(in crate::device::tests) fn organisation_endorses(
        &mut self,
        whom: usize,
        change: impl FnOnce(&mut Endorsement),
    ) {
        let person = self.person(whom);
        let mut said = self.relay.endorsement(person);
        change(&mut said);
        let key = self.nodes[whom].device.profile().organisation_key.clone().unwrap();
        let signed = Signed::make(Label::Endorsement, &key, &said).unwrap();
        self.relay.people.get_mut(&person).unwrap().endorsement = Some(signed);
    }

    /// Somebody's link breaks and is up again.
    pub(in crate::device::tests) fn again(&mut self, who: usize) {
        self.disconnect(who);
        self.settle();
    }

    /// In the directory somebody has another person key from now on, which `by` has endorsed.
    pub(in crate::device::tests) fn give_another_key(&mut self, by: usize, whom: usize, from: Timestamp) {
        let (person, key) = (self.person(whom), SecretKey::generate());
        let registration = &mut self.relay.people.get_mut(&person).unwrap().registration;
        let certificate: DeviceCertificate = registration.certificate.unverified("certificate").unwrap();
        registration.certificate = Signed::make(Label::DeviceCertificate, &key, &certificate).unwrap();
        registration.person_key = key.public().unwrap();
        let key = registration.person_key.digest();
        self.endorse_anew(by, whom, |said| (said.person_key, said.from) = (key, from));
    }

    /// Somebody asks for an identity.
    pub(in crate::device::tests) fn look(&mut self, who: usize, whom: usize) {
        let person = self.person(whom);
        self.nodes[who].device.ask_identity(self.now, person);
        self.run();
    }
}
