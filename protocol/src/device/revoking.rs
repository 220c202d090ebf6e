//! Revoked devices: nobody's any more, as their person or a registrar has signed.
//!
//! 1. Who may signs a statement; the relay keeps it, and never serves that device again.
//! 2. Everybody who may see the person is told (`told.rs`), verifies the statement, and keeps it.
//! 3. A relay that was restored, and may have forgotten it, gets it again.
//! 4. Whoever builds a Commit takes no key package of such a device, and removes its leaf where they may (`tidy.rs`).
//!
//! Invariant: a relay that only claims a revocation moves nobody, and no Commit is judged by one.

use crate::device::inbox::assemble;
use crate::device::state::{KnownPerson, Revoked, Table};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved, Refused};
use crate::frame::{Reply, Request};
use crate::identity::{DeviceRevocation, Identity, Signed};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::suite::{Label, PublicKey};

impl Device {
    /// Revokes a device: one of this person's own with the person key, anybody's as a registrar. [`Notice::DeviceRevoked`] or
    /// [`Notice::DeviceRefused`] tells what became of it; matters follow by themselves.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] for whoever may not.
    pub fn revoke_device(&mut self, now: Timestamp, person: PersonId, device: DeviceId) -> Result<(), Error> {
        let own = person == self.profile.person;
        let person_key = self.profile.person_key.as_ref().filter(|_| own);
        if person_key.is_none() && !self.profile.registrar {
            return Err(Refused::not_allowed(if own {
                "your devices are revoked on the one that holds your person key, or by a registrar"
            } else {
                "only a registrar revokes somebody else's device"
            })
            .into());
        }
        let issuer = if person_key.is_some() { None } else { Some(self.issuer()) };
        let said = DeviceRevocation { person, device, issuer, at: now };
        let key = person_key.unwrap_or(&self.profile.mls_key);
        let revocation = Signed::make(Label::DeviceRevocation, key, &said)?;
        self.ask(Asked::Revoke(said, revocation.clone()), Request::RevokeDevice { revocation });
        self.settle(now);
        Ok(())
    }

    pub(super) fn revoke_answered(&mut self, said: DeviceRevocation, statement: Signed, reply: Reply) {
        let device = said.device;
        if let Reply::Refused(why) = reply {
            self.deliver(Notice::DeviceRefused { device, why });
            return;
        }
        self.keep_revocation(said, statement);
        self.deliver(Notice::DeviceRevoked { device });
    }

    /// Whether a device was revoked, as far as this one knows.
    pub fn is_revoked(&self, device: DeviceId) -> bool {
        self.revoked.contains_key(&device)
    }

    pub(super) fn keep_revocation(&mut self, said: DeviceRevocation, statement: Signed) {
        self.waiting.remove(&said.device);
        if self.revoked.contains_key(&said.device) {
            return;
        }
        let device = said.device;
        let revoked = Revoked { said, statement, under: self.incarnation.map(Into::into) };
        self.batch.put(Table::Revoked, None, device.as_bytes(), &revoked);
        self.revoked.insert(device, revoked);
        self.look_at_devices();
        // What this device writes from now on tells of a log that has it.
        self.ask_checkpoint();
    }

    /// What a revocation says: signed by the device's person with their newest key, or by a registrar.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] where neither has signed it. A key that was replaced, as far as this device knows, revokes nothing more: whom it
    /// had revoked the next one leaves out.
    pub(super) fn verify_revocation(
        &self,
        signed: &Signed,
        identities: &[Identity],
    ) -> Result<DeviceRevocation, Error> {
        const WHAT: &str = "a revocation";
        let said: DeviceRevocation = signed.unverified(WHAT)?;
        if let Some(issuer) = said.issuer {
            let author = self.author(issuer.person, Some(issuer.device), identities)?;
            if !author.endorsement.registrar {
                return Err(PeerMisbehaved::Role("revoking").into());
            }
            let key = &author.device(issuer.device).ok_or(PeerMisbehaved::NotEndorsed)?.mls_key;
            return signed.verify(Label::DeviceRevocation, key, WHAT);
        }
        self.author(said.person, None, identities)?;
        let shown = assemble(identities, said.person);
        let known = self.people.get(&said.person);
        let theirs: Vec<&Identity> =
            shown.first().into_iter().chain(known.into_iter().flat_map(KnownPerson::shown)).collect();
        let is_over = |key: &PublicKey| theirs.iter().any(|other| other.line.iter().any(|step| step.key == *key));
        let newest = || theirs.iter().filter(|identity| !is_over(&identity.person_key));
        // Of keys of which none leads to the other, each speaks for its own devices.
        let alone = newest().all(|identity| newest().all(|other| other.person_key == identity.person_key));
        let by = newest().filter(|identity| alone || identity.certifies(said.device));
        let verify = |identity: &&&Identity| {
            signed.verify::<DeviceRevocation>(Label::DeviceRevocation, &identity.person_key, WHAT).is_ok()
        };
        by.into_iter().find(verify).map(|_| said).ok_or_else(|| PeerMisbehaved::Signature(WHAT).into())
    }

    /// Somebody is known under another key: what one before has said of a device that this one certifies is over.
    pub(super) fn forget_what_is_over(&mut self, person: PersonId) {
        let known: Vec<Identity> =
            self.people.get(&person).map(|known| known.shown().cloned().collect()).unwrap_or_default();
        let Some(newest) = known.iter().find(|identity| !identity.line.is_empty()) else { return };
        let is_over = |row: &Revoked| {
            let by =
                |key| row.statement.verify::<DeviceRevocation>(Label::DeviceRevocation, key, "a revocation").is_ok();
            row.said.person == person
                && row.said.issuer.is_none()
                && newest.certifies(row.said.device)
                && !by(&newest.person_key)
        };
        let over: Vec<DeviceId> = self.revoked.values().filter(|row| is_over(row)).map(|row| row.said.device).collect();
        for device in over {
            self.revoked.remove(&device);
            self.batch.delete(Table::Revoked, None, device.as_bytes());
        }
    }
}
