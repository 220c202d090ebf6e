//! Revoked devices: nobody's any more, as their person or a registrar has signed.
//!
//! 1. Who may signs a statement; the relay keeps it, and never serves that device again.
//! 2. Everybody who may see the person is told, verifies the statement, and keeps it.
//! 3. A relay that was restored, and may have forgotten it, gets it again.
//! 4. Whoever builds a Commit takes no key package of such a device, and removes its leaf where they may (`tidy.rs`).
//!
//! Invariant: a relay that only claims a revocation moves nobody, and no Commit is judged by one.

use minicbor::bytes::ByteArray;

use crate::cbor;
use crate::device::inbox::assemble;
use crate::device::state::{Counters, RevocationsTold, Revoked, Table};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved, Refused};
use crate::frame::{Reply, Request};
use crate::identity::{DeviceRevocation, Identity, Signed, verify_chain};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::limits;
use crate::suite::Label;

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

    fn keep_revocation(&mut self, said: DeviceRevocation, statement: Signed) {
        self.waiting.remove(&said.device);
        if self.revoked.contains_key(&said.device) {
            return;
        }
        let device = said.device;
        let revoked = Revoked { said, statement };
        self.batch.put(Table::Revoked, None, device.as_bytes(), &revoked);
        self.revoked.insert(device, revoked);
        self.look_at_devices();
    }

    /// Asks for revocations beyond those that this incarnation of the relay has told.
    pub(super) fn ask_revocations(&mut self) {
        let under_way = |link: &super::Link| link.asked.values().any(|asked| *asked == Asked::Revocations);
        if self.ready && !self.link.as_ref().is_some_and(under_way) {
            self.file_again();
            let after = self.revocations_told();
            self.ask(Asked::Revocations, Request::Revocations { after });
        }
    }

    /// A relay that was restored may have forgotten revocations: whoever may file one does it again, once for each incarnation.
    fn file_again(&mut self) {
        let known = self.told.is_some_and(|told| Some(*told.incarnation) != self.incarnation);
        let Some(incarnation) = self.incarnation.filter(|_| known) else { return };
        let (person, device) = (self.profile.person, self.profile.device);
        let may = |said: &DeviceRevocation| match said.issuer {
            None => said.person == person,
            Some(issuer) => issuer.device == device,
        };
        let own: Vec<Revoked> = self.revoked.values().filter(|revoked| may(&revoked.said)).cloned().collect();
        for Revoked { said, statement } in own {
            let revocation = statement.clone();
            self.ask(Asked::Revoke(said, statement), Request::RevokeDevice { revocation });
        }
        self.keep_told(RevocationsTold { incarnation: ByteArray::from(incarnation), upto: 0 });
    }

    fn keep_told(&mut self, told: RevocationsTold) {
        self.batch.put(Table::Counter, None, Counters::REVOCATIONS, &told);
        self.told = Some(told);
    }

    fn revocations_told(&self) -> u64 {
        self.told.filter(|told| Some(*told.incarnation) == self.incarnation).map_or(0, |told| told.upto)
    }

    pub(super) fn revocations_came(&mut self, reply: Reply) {
        let Reply::Revocations { revocations, identities, upto, more, replaced } = reply else { return };
        // New keys first: what they have signed is verified by them.
        for person in replaced.into_iter().take(limits::REVOCATIONS_MAX) {
            self.was_replaced(person, &identities);
        }
        for statement in revocations.into_iter().take(limits::REVOCATIONS_MAX) {
            match self.verify_revocation(&statement, &identities) {
                Ok(said) => self.keep_revocation(said, statement),
                Err(why) => self.deliver(Notice::Problem(why)),
            }
        }
        let before = self.revocations_told();
        if upto > before
            && let Some(incarnation) = self.incarnation
        {
            self.keep_told(RevocationsTold { incarnation: ByteArray::from(incarnation), upto });
            if more {
                self.ask_revocations();
            }
        }
    }

    /// Somebody has another key, as the relay shows: taken for what their chain says.
    fn was_replaced(&mut self, person: PersonId, identities: &[Identity]) {
        let chain = assemble(identities, person);
        let met = verify_chain(&chain, &self.profile.organisation).and_then(|said| match said.person == person {
            true => self.meet(&said, &chain, None),
            false => Err(PeerMisbehaved::Mismatch("a chain of endorsements").into()),
        });
        match met {
            // What this device knows may be newer.
            Ok(()) | Err(Error::PeerMisbehaved(PeerMisbehaved::Mismatch(_))) => {}
            Err(error) => self.deliver(Notice::Problem(error)),
        }
    }

    fn verify_revocation(&self, signed: &Signed, identities: &[Identity]) -> Result<DeviceRevocation, Error> {
        const WHAT: &str = "a revocation";
        let said: DeviceRevocation = signed.unverified(WHAT)?;
        let author = said.issuer.map_or(said.person, |issuer| issuer.person);
        let verified = verify_chain(&assemble(identities, author), &self.profile.organisation)?;
        // A key that nobody has accepted here yet is good enough to shut a device out.
        let known = self.people.get(&author).filter(|known| !known.chain.is_empty());
        let other = known.is_some_and(|known| !known.shows(verified.person_key.digest()));
        if verified.person != author || other {
            return Err(PeerMisbehaved::WrongKey("the author of a revocation").into());
        }
        let key = match said.issuer {
            None => &verified.person_key,
            Some(_) if !verified.endorsement.registrar => return Err(PeerMisbehaved::Role("revoking").into()),
            Some(issuer) => &verified.device(issuer.device).ok_or(PeerMisbehaved::NotEndorsed)?.mls_key,
        };
        signed.verify(Label::DeviceRevocation, key, WHAT)
    }
}

/// What the vault says about how far revocations were told.
pub(super) fn told(bytes: Option<&zeroize::Zeroizing<Vec<u8>>>) -> Option<RevocationsTold> {
    bytes.and_then(|bytes| cbor::decode(bytes, "revocations").ok())
}
