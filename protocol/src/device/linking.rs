//! Several devices of one person: how one more is linked.
//!
//! 1. The device that holds the person key makes an invite for its own person, good for ten minutes and one device.
//! 2. The new device registers with keys of its own, and waits: it can publish key packages, and nothing else.
//! 3. The old device is shown who waits, holds it against the invite's check key, and, once its user says so, certifies it.
//! 4. The new device fetches certificate and pack, checks both, and is ready; then its matters let it in (`tidy.rs`).
//!
//! Invariant: the person key signs for no device whose keys the invite's proof does not cover, and a new device believes no other
//! certificate than that of the person whom the invite's chain names, over the very keys that it made.

use crate::device::state::{KnownPerson, OwnInvite, Table};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Blob, DeviceRegistration, NewInvite, Reply, Request};
use crate::identity::{DeviceCertificate, Identity, Signed, stays_since, verify_chain};
use crate::ids::{DeviceId, InviteId, PersonId, Timestamp};
use crate::invite::{Claim, Invite, InviteSecret, InviteStatement, LinkPack};
use crate::limits;
use crate::suite::{Digest, Fingerprint, Label};

/// A device of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonsDevice {
    /// Which.
    pub device: DeviceId,
    /// What its keys are told apart by.
    pub fingerprint: Fingerprint,
    /// When it was made, by its own clock.
    pub since: Timestamp,
    /// How it stands.
    pub standing: Standing,
    /// Whether it is the one that holds the person key, as far as this device can tell.
    pub holds_person_key: bool,
    /// What its person calls it, where that is this device's own.
    pub name: Option<String>,
}

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// In use.
    Linked,
    /// It waits to be certified.
    Waiting,
    /// It is nobody's any more.
    Revoked,
}

/// The fingerprint by which people tell a device: of its certificate, and so of both its keys.
pub fn device_fingerprint(certificate: &Digest) -> Fingerprint {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(certificate.as_bytes()) {
        *to = *from;
    }
    Fingerprint::new(bytes)
}

impl Device {
    /// Makes an invite for one more device of this person and files it. It may be used once [`Notice::InviteFiled`] comes.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] on a device that does not hold the person key, or before anybody has endorsed this person.
    pub fn link_invite(&mut self, now: Timestamp) -> Result<Invite, Error> {
        self.must_hold_person_key()?;
        self.own_person_key()?;
        let secret = InviteSecret::random();
        let expires = now.plus_ms(limits::LINK_LIFETIME_MS);
        let statement = InviteStatement {
            invite: secret.id(),
            issuer: self.issuer(),
            role: self.profile.role,
            handle: None,
            name: None,
            expires,
            links: Some(self.profile.person),
            replaces: None,
        };
        let statement = Signed::make(Label::Invite, &self.profile.mls_key, &statement)?;
        let own = OwnInvite {
            secret: secret.clone(),
            role: self.profile.role,
            statement: statement.digest(),
            name: None,
            expires,
            links: true,
            shared: false,
            replaces: None,
            relay: None,
            from: None,
            by: None,
        };
        self.batch.put(Table::Invite, None, secret.id().as_bytes(), &own);
        self.invites.insert(secret.id(), own);
        let filed = NewInvite { token_hash: secret.token_hash(), statement, name: None };
        self.ask(Asked::Invite(secret.id()), Request::Invite(filed));
        self.settle(now);
        Ok(Invite {
            address: self.profile.address.clone(),
            relay: self.profile.relay.fingerprint(),
            organisation: Some(self.profile.organisation.fingerprint()),
            secret,
        })
    }

    pub(super) fn must_hold_person_key(&self) -> Result<(), Error> {
        match self.profile.person_key {
            Some(_) => Ok(()),
            None => Err(Refused::not_allowed(
                "this device does not hold your person key: do it on the device with which you joined first; if that is lost, begin again from \
                 your recovery sheet, or be enrolled anew (privity invite new --for your handle)",
            )
            .into()),
        }
    }

    /// Asks which devices of this person wait. Each whose proof holds comes as [`Notice::DeviceWaits`], then [`Notice::DevicesAsked`].
    pub fn ask_waiting(&mut self, now: Timestamp) {
        self.ask(Asked::WaitingDevices, Request::WaitingDevices);
        self.settle(now);
    }

    /// Asks who waits, if this device could certify them.
    pub(super) fn look_who_waits(&mut self) {
        if self.profile.person_key.is_some() && self.invites.values().any(|own| own.links) {
            self.ask(Asked::WaitingDevices, Request::WaitingDevices);
        }
    }

    pub(super) fn waiting_came(&mut self, reply: Reply) {
        let Reply::WaitingDevices { devices } = reply else { return };
        let before = std::mem::take(&mut self.waiting);
        for registration in devices.into_iter().take(limits::DEVICES_PER_PERSON_MAX) {
            match self.check_waiting(&registration) {
                Ok(None) => {}
                Ok(Some(certificate)) => {
                    let device = certificate.device;
                    if !before.contains_key(&device) {
                        let fingerprint = device_fingerprint(&registration.certificate.digest());
                        self.deliver(Notice::DeviceWaits { device, fingerprint });
                    }
                    self.waiting.insert(device, registration);
                }
                Err(why) => self.deliver(Notice::FalseDevice(why)),
            }
        }
        self.deliver(Notice::DevicesAsked);
    }

    /// Holds a device that waits against the check key of the invite that it names. None where this device made no such invite.
    fn check_waiting(&self, registration: &DeviceRegistration) -> Result<Option<DeviceCertificate>, Error> {
        let Some(invite) = self.invites.get(&registration.invite).filter(|own| own.links) else { return Ok(None) };
        let certificate: DeviceCertificate = registration.certificate.unverified("device certificate")?;
        let claim = Claim {
            invite: registration.invite,
            relay: self.relay_of(invite),
            person: self.profile.person,
            device: certificate.device,
            person_key: self.own_person_key()?,
            certificate: registration.certificate.digest(),
            handle: self.profile.handle.clone(),
            statement: Some(invite.statement),
        };
        // The key may have been replaced since the new device read the invite.
        let past = self.people.get(&self.profile.person).map(|own| own.past.clone()).unwrap_or_default();
        let before = past.into_iter().map(|person_key| Claim { person_key, ..claim.clone() });
        if !before.into_iter().any(|claim| invite.secret.check(&claim, &registration.proof).is_ok()) {
            invite.secret.check(&claim, &registration.proof)?;
        }
        if registration.person != self.profile.person || certificate.person != self.profile.person {
            return Err(PeerMisbehaved::Mismatch("the new device's registration").into());
        }
        Ok(Some(certificate))
    }

    /// Certifies a device that waits: it is this person's from now on. [`Notice::DeviceLinked`] or [`Notice::DeviceRefused`] tells what
    /// became of it; should the link break meanwhile, it goes out again on the next.
    ///
    /// # Errors
    /// [`Refused::NotFound`] if no such device waits whose proof holds.
    pub fn certify(&mut self, now: Timestamp, device: DeviceId) -> Result<(), Error> {
        self.must_hold_person_key()?;
        let waits = || Refused::not_found("a device of yours that waits under that id");
        let registration = self.waiting.get(&device).ok_or_else(waits)?;
        let invite = self.invites.get(&registration.invite).filter(|own| own.links).ok_or_else(waits)?;
        let key = self.profile.person_key.as_ref().ok_or(Misuse::State("person key"))?;
        let body = registration.certificate.body.clone();
        let signature = key.sign(Label::DeviceCertificate, &body)?;
        let certificate = Signed { body, signature };
        let pack = LinkPack { name: self.profile.name.clone(), self_stated: self.profile.self_stated };
        let pack = Blob(invite.secret.seal_pack(&certificate.digest(), &pack)?);
        let request = Request::CertifyDevice { certificate, pack };
        self.certifying = Some((device, registration.invite, request));
        self.ask_to_certify();
        self.settle(now);
        Ok(())
    }

    pub(super) fn ask_to_certify(&mut self) {
        if let Some((device, invite, request)) = self.certifying.clone() {
            self.ask(Asked::Certify(device, invite), request);
        }
    }

    pub(super) fn certify_answered(&mut self, device: DeviceId, invite: InviteId, reply: Reply) {
        let certified = self.certifying.take();
        if let Reply::Refused(refused) = reply {
            self.deliver(Notice::DeviceRefused { device, why: refused });
            return;
        }
        self.waiting.remove(&device);
        self.forget_invite(invite);
        let own = self.people.get(&self.profile.person).cloned();
        if let (Some(mut own), Some((_, _, Request::CertifyDevice { certificate, .. }))) = (own, certified)
            && let Some(identity) = own.chain.first_mut()
        {
            // Signed here: matters need not wait for the relay to show it.
            identity.certificates.push(certificate);
            self.know(self.profile.person, own);
            self.look_at_devices();
            self.greet();
        }
        self.deliver(Notice::DeviceLinked { device });
        self.ask_own_chain();
    }

    /// A device of this person waits, or was certified.
    pub(super) fn devices_changed(&mut self) {
        self.ask_whether_certified();
        self.look_who_waits();
        self.ask_own_chain();
    }

    /// A device that waits asks whether it was certified.
    pub(super) fn ask_whether_certified(&mut self) {
        if self.profile.linking.is_some() {
            self.ask(Asked::Certified, Request::Certified);
        }
    }

    pub(super) fn certified_came(&mut self, reply: Reply) {
        match reply {
            Reply::Certified { certificate, pack, chain } => {
                if let Err(why) = self.take_certificate(certificate, &pack.0, &chain) {
                    self.deliver(Notice::Problem(why));
                }
            }
            // Not yet.
            Reply::Refused(Refused::NotFound { .. }) => {}
            Reply::Refused(refused) => self.deliver(Notice::Problem(refused.into())),
            _ => self.deliver(Notice::Problem(PeerMisbehaved::Mismatch("the relay's answer").into())),
        }
    }

    fn take_certificate(&mut self, certificate: Signed, pack: &[u8], chain: &[Identity]) -> Result<(), Error> {
        let Some(secret) = self.profile.linking.clone() else { return Ok(()) };
        if certificate.body != self.profile.certificate.body {
            return Err(PeerMisbehaved::Mismatch("this device's certificate").into());
        }
        let own: Option<&KnownPerson> = self.people.get(&self.profile.person);
        let followed = own.and_then(|own| self.followed(own, chain));
        let person = followed.as_ref().or(own).and_then(|known| known.chain.first()).ok_or(Misuse::State("person"))?;
        let _said: DeviceCertificate =
            certificate.verify(Label::DeviceCertificate, &person.person_key, "this device's certificate")?;
        let pack = secret.open_pack(&certificate.digest(), pack)?;
        if let Some(followed) = followed {
            self.know(self.profile.person, followed);
        }
        let (name, self_stated) = (pack.name, pack.self_stated);
        self.profile.certificate = certificate;
        (self.profile.name, self.profile.self_stated, self.profile.linking) = (name, self_stated, None);
        self.batch.put(Table::Profile, None, &[], &self.profile);
        self.become_ready();
        self.ask(Asked::Linked, Request::Linked);
        self.ask_about_people();
        Ok(())
    }

    /// This person, where statements lead from the key that the invite's chain showed to another since, and nothing else.
    fn followed(&self, own: &KnownPerson, chain: &[Identity]) -> Option<KnownPerson> {
        let said = verify_chain(chain, &self.profile.organisation).ok()?;
        let leads = said.person == self.profile.person && stays_since(&said.line, own.key()?).is_some();
        leads.then(|| own.clone().replaced(&said, chain, None, self.now))
    }

    /// The devices of somebody, as far as they are known here, the oldest first: this person's with those that wait.
    pub fn devices_of(&self, person: PersonId) -> Vec<PersonsDevice> {
        let own = person == self.profile.person;
        let known = self.people.get(&person).and_then(|known| known.chain.first());
        let certified = known.map_or(&[][..], |identity| &identity.certificates);
        let waiting = self.waiting.values().filter(|_| own);
        let waiting = waiting.map(|registration| (&registration.certificate, Standing::Waiting));
        let mut devices: Vec<PersonsDevice> = Vec::new();
        for (signed, standing) in certified.iter().map(|signed| (signed, Standing::Linked)).chain(waiting) {
            let Ok(certificate) = signed.unverified::<DeviceCertificate>("device certificate") else { continue };
            let (device, fingerprint) = (certificate.device, device_fingerprint(&signed.digest()));
            let standing = if self.is_revoked(device) { Standing::Revoked } else { standing };
            let (since, holds_person_key) = (certificate.made_at, false);
            let name = self.device_name(device).filter(|_| own).map(str::to_owned);
            devices.push(PersonsDevice { device, fingerprint, since, standing, holds_person_key, name });
        }
        devices.sort_by_key(|device| (device.since, device.device));
        // It never leaves the device that made it, the first.
        let here = own && self.profile.person_key.is_some();
        let holds = |seen: &PersonsDevice| !here || seen.device == self.profile.device;
        if let Some(first) = devices.iter_mut().find(|seen| holds(seen)) {
            first.holds_person_key = true;
        }
        devices
    }
}
