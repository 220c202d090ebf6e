//! What the relay's directory says of people, and how a test changes it.

use super::{Relay, World};
use crate::frame::Reply;
use crate::identity::{DeviceCertificate, Endorsement, Signed};
use crate::ids::{PersonId, Timestamp};
use crate::suite::{Label, SecretKey};

impl Relay {
    /// The newest endorsement of somebody.
    pub(in crate::device::tests) fn endorsement(&self, person: PersonId) -> Endorsement {
        self.people[&person].endorsement.as_ref().unwrap().unverified("endorsement").unwrap()
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
