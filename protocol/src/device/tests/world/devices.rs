//! Several devices of one person: what the relay keeps of them, and how tests link and revoke them.

use zeroize::Zeroizing;

use super::{Node, Relay, Vault, World, mailbox, relay_key};
use crate::device::state::Table;
use crate::device::{Enrolment, NewPersonInvite, rows_of};
use crate::error::Refused;
use crate::frame::{Blob, DeviceRegistration, Event, InviteView, Part, Reply, Request};
use crate::identity::{DeviceCertificate, DeviceRevocation, EndorsementRevocation, Role, Signed};
use crate::ids::{DeviceId, InviteId, PersonId, Position};
use crate::invite::Invite;
use crate::log::Act;
use crate::suite::SecretKey;

/// A device that was linked, or waits to be.
#[derive(Clone)]
pub(in crate::device::tests) struct LinkedRow {
    pub(in crate::device::tests) registration: DeviceRegistration,
    pub(in crate::device::tests) certificate: Option<Signed>,
    pub(in crate::device::tests) pack: Option<Blob>,
}

/// What is told of somebody.
#[derive(Clone)]
pub(in crate::device::tests) enum Told {
    Revoked(PersonId, Signed),
    Withdrawn(PersonId, Signed),
}

impl Relay {
    /// Whether a device is served: it was not revoked, and somebody vouches for its person.
    pub(in crate::device::tests) fn serves(&self, device: DeviceId) -> bool {
        let withdrawn = self.owner(device).is_some_and(|person| self.withdrawn.contains_key(&person));
        !self.is_revoked(device) && !withdrawn
    }

    pub(super) fn waits(&self, device: DeviceId) -> bool {
        self.linked.get(&device).is_some_and(|linked| linked.certificate.is_none())
    }

    pub(in crate::device::tests) fn is_revoked(&self, device: DeviceId) -> bool {
        self.revoked.iter().any(|(_, revoked, _)| *revoked == device)
    }

    /// A device registers that has an invite of its person.
    pub(in crate::device::tests) fn register_device(&mut self, registration: &DeviceRegistration) {
        let certificate: DeviceCertificate = registration.certificate.unverified("certificate").unwrap();
        let device = certificate.device;
        self.devices.insert(device, (registration.person, registration.inbox));
        self.mailboxes.insert(registration.inbox, mailbox(registration.inbox, Some(device)));
        let row = LinkedRow { registration: registration.clone(), certificate: None, pack: None };
        self.linked.insert(device, row);
        self.events.push((registration.person, Event::Devices));
    }

    /// Puts a statement among the revocations, whoever made it.
    pub(in crate::device::tests) fn revoke(&mut self, person: PersonId, device: DeviceId, statement: &Signed) {
        self.single_use.remove(&device);
        self.last_resort.remove(&device);
        self.revoked.push((person, device, statement.clone()));
        self.told.push(Told::Revoked(person, statement.clone()));
        self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
    }

    /// A relay that means harm serves revoked devices again, and tells nobody of them.
    pub(in crate::device::tests) fn forget_revocations(&mut self) {
        self.revoked.clear();
        self.told.clear();
    }

    /// Puts a statement among the withdrawals, whoever made it.
    pub(in crate::device::tests) fn withdraw(&mut self, person: PersonId, statement: &Signed) {
        self.withdrawn.insert(person, statement.clone());
        self.told.push(Told::Withdrawn(person, statement.clone()));
        self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
    }

    /// Whether a device is let in.
    pub(in crate::device::tests) fn admits(&self, device: DeviceId) -> bool {
        self.serves(device)
    }

    /// A statement is told, and nothing follows from it here.
    pub(in crate::device::tests) fn tell_revoked(&mut self, person: PersonId, statement: &Signed) {
        self.told.push(Told::Revoked(person, statement.clone()));
        self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
    }

    /// The same of an endorsement.
    pub(in crate::device::tests) fn tell_withdrawn(&mut self, person: PersonId, statement: &Signed) {
        self.told.push(Told::Withdrawn(person, statement.clone()));
        self.events.extend(self.people.keys().map(|person| (*person, Event::Revoked)));
    }

    /// What is told, of one person or of all, one at a time.
    fn tell(&self, of: Option<PersonId>, after: u64) -> Reply {
        let about = |told: &Told| match told {
            Told::Revoked(person, _) | Told::Withdrawn(person, _) => *person,
        };
        let all = (1_u64..).zip(&self.told).filter(|(_, told)| of.is_none_or(|of| about(told) == of));
        let mut new = all.filter(|(number, _)| *number > after);
        let (mut revocations, mut withdrawn, mut identities) = (Vec::new(), Vec::new(), Vec::new());
        let mut upto = after;
        if let Some((number, told)) = new.next() {
            upto = number;
            let person = about(told);
            let issuer = match told {
                Told::Revoked(_, statement) => {
                    revocations.push(statement.clone());
                    statement.unverified::<DeviceRevocation>("revocation").unwrap().issuer
                }
                Told::Withdrawn(_, statement) => {
                    withdrawn.push(statement.clone());
                    statement.unverified::<EndorsementRevocation>("withdrawal").unwrap().issuer
                }
            };
            identities.extend(self.chain(person));
            identities.extend(self.chain(issuer.map_or(person, |issuer| issuer.person)));
        }
        identities.extend(self.replaced.iter().flat_map(|person| self.chain(*person)));
        let (more, replaced) = (new.next().is_some(), self.replaced.clone());
        Reply::Revocations { revocations, identities, upto, more, withdrawn, replaced }
    }

    /// Takes a key package of a device, as whoever may reach it does.
    pub(in crate::device::tests) fn take_package(&mut self, device: DeviceId) -> Blob {
        self.single_use.get_mut(&device).unwrap().pop_front().unwrap()
    }

    /// The key packages of one device are shown as those of another.
    pub(in crate::device::tests) fn swap_device(&mut self, device: DeviceId, by: DeviceId) {
        let packages = self.single_use[&by].clone();
        self.swapped = self.single_use.insert(device, packages).map(|own| (device, own));
        self.swap_packages.clear();
    }

    /// No more.
    pub(in crate::device::tests) fn swap_back(&mut self) {
        if let Some((device, own)) = self.swapped.take() {
            self.single_use.insert(device, own);
        }
    }

    /// Whether an invite is filed.
    pub(in crate::device::tests) fn is_filed(&self, invite: InviteId) -> bool {
        self.invites.contains_key(&invite)
    }

    /// Puts something into a device's inbox.
    pub(in crate::device::tests) fn deliver(&mut self, by: DeviceId, to: DeviceId, envelope: &[u8]) {
        let (_, inbox) = self.devices[&to];
        let (base, envelope) = (Position::start(inbox), Blob(envelope.to_vec()));
        let part = Part::Append { mailbox: inbox, base, fence: false, envelope, keep_ms: 1 };
        self.part(by, &part, &mut Vec::new()).unwrap();
    }

    pub(super) fn devices_request(&mut self, device: DeviceId, own: PersonId, request: &Request) -> Reply {
        match request {
            Request::WaitingDevices => {
                let waiting = self.linked.values().filter(|row| row.certificate.is_none());
                let waiting = waiting.filter(|row| row.registration.person == own).map(|row| row.registration.clone());
                Reply::WaitingDevices { devices: waiting.collect() }
            }
            Request::CertifyDevice { certificate, pack } => {
                let said: DeviceCertificate = certificate.unverified("certificate").unwrap();
                let row = self.linked.get_mut(&said.device).unwrap();
                (row.certificate, row.pack) = (Some(certificate.clone()), Some(pack.clone()));
                self.events.push((own, Event::Devices));
                Reply::Done
            }
            Request::Certified => match self.linked.get(&device) {
                Some(LinkedRow { certificate: Some(certificate), pack: Some(pack), .. }) => {
                    Reply::Certified { certificate: certificate.clone(), pack: pack.clone(), chain: self.chain(own) }
                }
                _ => Reply::Refused(Refused::not_found("a certificate")),
            },
            Request::Linked => {
                self.linked.get_mut(&device).unwrap().pack = None;
                Reply::Done
            }
            Request::RevokeDevice { revocation } => {
                let said: DeviceRevocation = revocation.unverified("revocation").unwrap();
                let (device, by) = (said.device, said.issuer.map(|issuer| issuer.person));
                if self.revoked.iter().any(|(_, gone, _)| *gone == device) {
                    return Reply::Done;
                }
                let chain = self.chain(said.person);
                let of = |signed: &&Signed| {
                    signed.unverified::<DeviceCertificate>("certificate").is_ok_and(|said| said.device == device)
                };
                let certificate = chain[0].certificates.iter().find(of).map(Signed::digest);
                let certificate = certificate.unwrap_or_else(|| crate::suite::Digest::of(&[]));
                self.log.add(said.person, Act::DeviceRevoked { device, certificate, by });
                self.revoke(said.person, device, revocation);
                Reply::Done
            }
            Request::WithdrawEndorsement { revocation } => {
                let said: EndorsementRevocation = revocation.unverified("withdrawal").unwrap();
                if !self.withdrawn.contains_key(&said.person) {
                    let (endorsement, by) = (said.endorsement, said.issuer.map(|issuer| issuer.person));
                    self.log.add(said.person, Act::EndorsementRevoked { endorsement, by });
                    self.withdraw(said.person, revocation);
                }
                Reply::Done
            }
            Request::Adoptable | Request::Adoption { .. } => self.adoption_request(request),
            Request::CancelInvite { invite } => {
                self.invites.remove(invite);
                Reply::Done
            }
            Request::Revocations { after } | Request::StatementsAbout { after, .. }
                if self.keeps_back == Some(device) =>
            {
                let upto = self.told.len().max(usize::try_from(*after).unwrap()) as u64;
                Reply::Revocations {
                    revocations: Vec::new(),
                    identities: Vec::new(),
                    upto,
                    more: false,
                    withdrawn: Vec::new(),
                    replaced: Vec::new(),
                }
            }
            Request::Revocations { after } => self.tell(None, *after),
            Request::StatementsAbout { person, after } => self.tell(Some(*person), *after),
            request => self.keys_request(own, request).unwrap_or_else(|| Reply::Refused(Refused::malformed("request"))),
        }
    }
}

impl World {
    /// Asks for an invite, whatever becomes of that.
    pub(in crate::device::tests) fn invite_unfiled(&mut self, by: usize) -> InviteId {
        let wanted = NewPersonInvite::new(Role::Client);
        let invite = self.nodes[by].device.invite(self.now, &wanted).unwrap();
        invite.secret.id()
    }

    /// What a link invite of a device says, as its URL and the relay show it.
    pub(in crate::device::tests) fn link_invite(&mut self, by: usize) -> (Invite, InviteView) {
        let invite = self.nodes[by].device.link_invite(self.now).unwrap();
        self.run();
        let (person, filed) = self.relay.invites[&invite.secret.id()].clone();
        let view = InviteView {
            statement: Some(filed.statement),
            name: None,
            chain: self.relay.chain(person),
            replaced: None,
        };
        (invite, view)
    }

    /// One more device of somebody's, registered and online: it waits.
    pub(in crate::device::tests) fn waiting(&mut self, by: usize) -> usize {
        let (invite, view) = self.link_invite(by);
        let enrolment =
            Enrolment::new(invite, SecretKey::generate(), view, self.relay.organisation.clone(), self.now).unwrap();
        let (person, known) = enrolment.inviter().map(|(person, known)| (person, known.clone())).unwrap();
        let (profile, registration) = enrolment.link(self.now, relay_key().public().unwrap(), "Firm").unwrap();
        let mut vault = Vault::default();
        for (key, value) in rows_of(&profile) {
            vault.0.insert((Table::Profile, None, key), value);
        }
        let known = Zeroizing::new(crate::cbor::encode(&known));
        vault.0.insert((Table::Person, None, person.as_bytes().to_vec()), known);
        self.relay.register_device(&registration);
        self.nodes.push(Node::open(vault));
        let index = self.nodes.len() - 1;
        self.connect(index);
        self.run();
        index
    }

    /// One more device of somebody's, certified by the first.
    pub(in crate::device::tests) fn link(&mut self, by: usize) -> usize {
        let index = self.waiting(by);
        let device = self.device(index);
        self.nodes[by].device.certify(self.now, device).unwrap();
        self.run();
        index
    }

    pub(in crate::device::tests) fn device(&self, index: usize) -> DeviceId {
        self.nodes[index].device.profile().device
    }

    pub(in crate::device::tests) fn revoke(&mut self, by: usize, whose: usize) {
        let (person, device) = (self.person(whose), self.device(whose));
        self.nodes[by].device.revoke_device(self.now, person, device).unwrap();
        self.run();
    }

    /// Somebody withdraws somebody's endorsement.
    pub(in crate::device::tests) fn withdraw(&mut self, by: usize, whose: usize) {
        let person = self.person(whose);
        self.nodes[by].device.withdraw_endorsement(self.now, person).unwrap();
        self.run();
    }
}
