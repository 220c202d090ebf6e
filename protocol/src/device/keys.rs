//! Person keys that change: this person's, by a rotation, a sheet or another device; and what is filed so that they can.
//!
//! 1. The device that holds the person key certifies a recovery key, whose secret goes on paper; the relay keeps what restores from it.
//! 2. It may replace the person key by a new one. The request is kept until the relay has answered: the same one goes out on each link.
//! 3. This person's other devices follow a new key that statements lead to from the one they know, if it names them among those that stay.
//!
//! 4. A relay that was restored from before is told again what led to the key of now.
//!
//! Of other people another key is kept beside the one known, and told (`identities.rs`); matters follow in `tidy.rs`.
//!
//! Invariant: this device never takes another key for its own person's but along statements signed by the key before, or by the recovery
//! key which that one certified.

use minicbor::{Decode, Encode};

use crate::device::recover::with_step;
use crate::device::state::{KnownPerson, Table};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Blob, NewKey, RecoveryFiling, Reply, Request};
use crate::identity::{
    DeviceCertificate, DeviceRevocation, Identity, RecoveryKey, Replacement, Signed, Step, Verified, stays_since,
    verify_chain, verify_line,
};
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::recovery::{RecoveryNote, RecoverySecret, SheetKind};
use crate::suite::{Digest, Label, SecretKey};

/// A new person key that the relay has not acknowledged. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Replacing {
    /// The new key.
    #[n(0)]
    pub key: SecretKey,
    /// What is asked of the relay.
    #[n(1)]
    pub request: NewKey,
}

impl Device {
    /// A new sheet for this person, not filed yet: it is to be on paper first.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] on a device that does not hold the person key, or before anybody has endorsed this person.
    pub fn new_sheet(&self) -> Result<RecoverySecret, Error> {
        self.must_hold_person_key()?;
        self.own_person_key()?;
        Ok(RecoverySecret::random(SheetKind::Person))
    }

    /// Files a sheet in place of the one before. It is good once [`Notice::SheetFiled`] comes; [`Notice::SheetRefused`] tells why not.
    ///
    /// # Errors
    /// As [`Self::new_sheet`]; [`Misuse`] for an organisation's.
    pub fn file_sheet(&mut self, now: Timestamp, secret: &RecoverySecret) -> Result<(), Error> {
        self.must_hold_person_key()?;
        if secret.kind() != SheetKind::Person {
            return Err(Misuse::Busy("an organisation's sheet is not filed").into());
        }
        let person_key = self.profile.person_key.as_ref().ok_or(Misuse::State("person key"))?;
        let person = self.profile.person;
        let said = RecoveryKey { person, key: secret.key()?.public()?, made_at: now };
        let statement = Signed::make(Label::RecoveryKey, person_key, &said)?;
        let note = RecoveryNote {
            person,
            relay: self.profile.relay.fingerprint(),
            organisation: self.profile.organisation.fingerprint(),
            name: self.profile.name.clone(),
            self_stated: self.profile.self_stated,
        };
        let note = Blob(secret.seal(&note)?);
        let filing = RecoveryFiling { token_hash: secret.token_hash(), statement, note };
        // Kept until the relay has answered: should the link break, it may be there, and the sheet before void.
        self.profile.filing = Some(filing);
        self.save_profile();
        self.ask_to_file();
        self.settle(now);
        Ok(())
    }

    pub(super) fn ask_to_file(&mut self) {
        if let Some(filing) = self.profile.filing.clone().filter(|_| self.profile.person_key.is_some()) {
            self.ask(Asked::SetRecovery(filing.statement.clone()), Request::SetRecovery(Box::new(filing)));
        }
    }

    pub(super) fn sheet_answered(&mut self, statement: Signed, reply: Reply) {
        let again = matches!(reply, Reply::Refused(Refused::Slow { .. } | Refused::Storage));
        if self.profile.filing.as_ref().is_some_and(|filing| filing.statement == statement) && !again {
            self.profile.filing = None;
            self.save_profile();
        }
        if let Reply::Refused(refused) = reply {
            self.deliver(Notice::SheetRefused(refused));
            return;
        }
        self.profile.recovery = Some(statement);
        self.save_profile();
        self.deliver(Notice::SheetFiled);
    }

    /// Since when there is a recovery sheet, as far as this device knows.
    pub fn sheet_since(&self) -> Option<Timestamp> {
        let statement = self.profile.recovery.as_ref()?;
        statement.unverified::<RecoveryKey>("recovery key").ok().map(|said| said.made_at)
    }

    /// Takes the organisation's key from its sheet into this vault again.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongKey`] if it is another organisation's; [`Refused::NotAllowed`] for whoever is no registrar.
    pub fn restore_organisation(&mut self, now: Timestamp, secret: &RecoverySecret) -> Result<(), Error> {
        if secret.kind() != SheetKind::Organisation {
            return Err(Malformed::Text("recovery code of an organisation").into());
        }
        if !self.profile.registrar {
            return Err(Refused::not_allowed("only a registrar's device keeps the organisation's key").into());
        }
        let key = secret.key()?;
        if key.public()? != self.profile.organisation {
            return Err(PeerMisbehaved::WrongKey("the organisation's key").into());
        }
        self.profile.organisation_key = Some(key);
        self.save_profile();
        self.settle(now);
        Ok(())
    }

    /// Replaces this person's key by a new one, made here; every device stays. [`Notice::KeyReplaced`] or [`Notice::KeyRefused`] tells what
    /// became of it.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] on a device that does not hold the person key, or before anybody has endorsed this person.
    pub fn replace_key(&mut self, now: Timestamp) -> Result<(), Error> {
        self.must_hold_person_key()?;
        if self.profile.filing.is_some() {
            let what = "your new recovery sheet is not at the relay yet; try again once it is";
            return Err(Refused::not_allowed(what).into());
        }
        if self.profile.replacing.is_some() {
            // The relay may have taken that key already: it is the one to go on with, whatever became of the answer.
            self.ask_to_replace();
            self.settle(now);
            return Ok(());
        }
        let own: &KnownPerson =
            self.people.get(&self.profile.person).ok_or_else(|| Refused::not_allowed("nobody has endorsed you yet"))?;
        let person_key = self.profile.person_key.as_ref().ok_or(Misuse::State("person key"))?;
        let verified = verify_chain(&own.chain, &self.profile.organisation)?;
        if let Some(first) = own.chain.first()
            && first.steps_since(verified.endorsement.person_key) >= Some(limits::ROTATIONS_UNENDORSED)
        {
            return Err(too_many_steps().into());
        }
        let key = SecretKey::generate();
        let stay = verified.devices.iter().filter(|(_, certificate)| !self.is_revoked(certificate.device));
        let stay: Vec<&(Digest, DeviceCertificate)> = stay.collect();
        let certificates = stay.iter().map(|(_, said)| Signed::make(Label::DeviceCertificate, &key, said));
        let certificates = certificates.collect::<Result<Vec<Signed>, Misuse>>()?;
        let stays = certificates.iter().map(Signed::digest).collect();
        let person = self.profile.person;
        let said = Replacement::new(person, &verified.person_key, &key, stays, now)?;
        let statement = Signed::make(Label::Replacement, person_key, &said)?;
        let recovery = match &self.profile.recovery {
            Some(known) => {
                let known: RecoveryKey = known.unverified("recovery key")?;
                Some(Signed::make(Label::RecoveryKey, &key, &RecoveryKey { made_at: known.made_at, ..known })?)
            }
            None => None,
        };
        let (line, revocations) = (Vec::new(), Vec::new());
        let request = NewKey { person_key: key.public()?, statement, certificates, recovery, line, revocations };
        self.profile.replacing = Some(Replacing { key, request });
        self.save_profile();
        self.ask_to_replace();
        self.settle(now);
        Ok(())
    }

    pub(super) fn ask_to_replace(&mut self) {
        if let Some(replacing) = &self.profile.replacing {
            let request = replacing.request.clone();
            self.ask(Asked::ReplaceKey, Request::ReplaceKey(Box::new(request)));
        }
    }

    pub(super) fn replace_answered(&mut self, reply: Reply) {
        let Some(replacing) = self.profile.replacing.clone() else { return };
        if let Reply::Refused(refused) = reply {
            self.profile.replacing = None;
            self.save_profile();
            self.deliver(Notice::KeyRefused(refused));
            return;
        }
        let Some(own) = self.people.get(&self.profile.person).cloned() else { return };
        let Some((first, above)) = own.chain.split_first() else { return };
        let NewKey { person_key, statement, certificates, .. } = replacing.request;
        let step = Step { key: first.person_key.clone(), statement, recovery: None };
        let line = with_step(&first.line, step);
        let identity = Identity { person_key, certificates, line, ..first.clone() };
        let chain: Vec<Identity> = std::iter::once(identity).chain(above.iter().cloned()).collect();
        match verify_chain(&chain, &self.profile.organisation).and_then(|said| self.follow_own_key(&said, &chain)) {
            Ok(()) => self.ask_own_chain(),
            Err(error) => self.deliver(Notice::Problem(error)),
        }
    }

    /// A relay that was restored shows an earlier key of this person's: it is told again, once on a link, what led to the one of now.
    /// Whether the key is one of those.
    pub(super) fn file_line_again(&mut self, shown: Digest) -> Result<bool, Error> {
        let own = self.people.get(&self.profile.person).and_then(|known| known.chain.first());
        let Some(first) = own.cloned() else { return Ok(false) };
        let Some(at) = first.line.iter().position(|step| step.key.digest() == shown) else { return Ok(false) };
        let here = self.profile.person_key.is_some() && self.profile.replacing.is_none();
        let Some(link) = self.link.as_mut().filter(|link| here && !link.line_filed) else { return Ok(true) };
        link.line_filed = true;
        let Some(stays) = stays_since(&verify_line(&first)?, shown) else { return Ok(true) };
        let line: Vec<Step> = first.line.iter().skip(at).cloned().collect();
        let Some(statement) = line.last().map(|last| last.statement.clone()) else { return Ok(true) };
        let revoked = self.revoked.values().filter(|row| row.said.person == first.person && row.said.issuer.is_none());
        let known_there = |statement: &&Signed| {
            let mut keys = line.iter().map(|step| &step.key).chain([&first.person_key]);
            keys.any(|key| statement.verify::<DeviceRevocation>(Label::DeviceRevocation, key, "a revocation").is_ok())
        };
        let revocations = revoked.map(|row| &row.statement).filter(known_there);
        let revocations = revocations.take(limits::DEVICES_PER_PERSON_MAX).cloned().collect();
        let mut certificates = first.certificates;
        certificates.retain(|signed| {
            let said = signed.unverified::<DeviceCertificate>("device certificate");
            stays.contains(&signed.digest()) && said.is_ok_and(|said| !self.is_revoked(said.device))
        });
        let (person_key, recovery) = (first.person_key, self.profile.recovery.clone());
        let request = NewKey { person_key, statement, certificates, recovery, line, revocations };
        self.ask_later(Asked::ReplaceKeyAgain, Request::ReplaceKey(Box::new(request)));
        Ok(true)
    }

    pub(super) fn replaced_again(&mut self, reply: Reply) {
        match reply {
            Reply::Refused(refused) => self.deliver(Notice::Problem(refused.into())),
            _ => self.ask_own_chain(),
        }
    }

    /// Another key of this person's own, in a chain that reaches the organisation: taken over where statements lead to it.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongKey`] where none do, or this device is not among those that stay.
    pub(super) fn follow_own_key(&mut self, said: &Verified, chain: &[Identity]) -> Result<(), Error> {
        let wrong = || Error::from(PeerMisbehaved::WrongKey("this person's own key, as the relay shows it,"));
        let known = self.own_key()?.digest();
        let own = self.profile.certificate.digest();
        let stays = stays_since(&said.line, known).ok_or_else(wrong)?;
        let certificates = chain.first().map(|first| first.certificates.as_slice()).unwrap_or_default();
        let certificate = certificates.iter().find(|signed| signed.digest() == own && stays.contains(&own));
        let certificate = certificate.ok_or_else(wrong)?.clone();
        let made_here = self.profile.replacing.take().map(|replacing| replacing.key);
        let made_here = match made_here {
            Some(key) if key.public()? == said.person_key => Some(key),
            _ => None,
        };
        let here = made_here.is_some();
        if let Some(replacing) = &made_here {
            let recovery = self.profile.recovery.take();
            self.profile.recovery = recertified(recovery, replacing)?;
        }
        (self.profile.person_key, self.profile.certificate) = (made_here, certificate);
        self.save_profile();
        let person = self.profile.person;
        let name = Some(self.profile.name.clone());
        match self.people.get(&person).cloned() {
            Some(before) => self.know(person, before.replaced(said, chain, name, self.now)),
            None => self.know(person, KnownPerson::new(said, chain.to_vec(), name, self.now)),
        }
        if here {
            self.deliver(Notice::KeyReplaced);
        } else {
            let recovered = said.line.last().is_some_and(|step| step.recovered);
            self.deliver(Notice::OwnKeyReplaced { recovered });
        }
        self.look_at_devices();
        Ok(())
    }

    /// Whether a matter that lists this key means this person: it is theirs, or was before statements led on.
    pub(super) fn is_own_key(&self, key: Digest) -> bool {
        let own = self.people.get(&self.profile.person);
        let under_way = self.profile.replacing.as_ref().is_some_and(|one| one.request.person_key.digest() == key);
        under_way || self.own_key().is_ok_and(|own| own.digest() == key) || own.is_some_and(|own| own.has_had(key))
    }

    /// The newest chain of somebody that this device may go by: another key counts unless the one before was verified, and the user has
    /// not accepted it yet.
    pub(super) fn newest_chain(&self, person: PersonId) -> Option<&[Identity]> {
        let known = self.people.get(&person).filter(|known| !known.is_in_doubt())?;
        if self.awaits_word(person) {
            return Some(known.chain.as_slice()).filter(|chain| !chain.is_empty());
        }
        let changed = known.changed.as_ref().map(|changed| changed.chain.as_slice()).filter(|chain| !chain.is_empty());
        Some(changed.unwrap_or(&known.chain)).filter(|chain| !chain.is_empty())
    }

    pub(super) fn save_profile(&mut self) {
        self.batch.put(Table::Profile, None, &[], &self.profile);
    }
}

/// Why a key is not replaced again yet.
pub fn too_many_steps() -> Refused {
    Refused::not_allowed(
        "your key was replaced several times since somebody last vouched for you; once whoever does has been online, and has accepted \
         your key where they had verified you, it can be replaced again",
    )
}

/// The recovery key stays good under the new key.
fn recertified(known: Option<Signed>, key: &SecretKey) -> Result<Option<Signed>, Error> {
    let Some(known) = known else { return Ok(None) };
    let said: RecoveryKey = known.unverified("recovery key")?;
    Ok(Some(Signed::make(Label::RecoveryKey, key, &said)?))
}

impl KnownPerson {
    /// Somebody known, under another key that was accepted.
    pub(super) fn replaced(
        self,
        said: &Verified,
        chain: &[Identity],
        name: Option<crate::identity::Name>,
        now: Timestamp,
    ) -> Self {
        let fits = |name: &crate::identity::Name| name.commitment() == said.endorsement.name;
        // Until somebody tells the name that fits, the one known before is better than none, on nobody's word.
        let name = name.filter(fits).or(self.name);
        let stated = name.as_ref().is_some_and(|name| !fits(name));
        let mut accepted = Self::new(said, chain.to_vec(), name, now);
        accepted.self_stated |= stated;
        accepted.past = self.past;
        accepted.past.extend(self.chain.first().map(|identity| identity.person_key.digest()));
        let surplus = accepted.past.len().saturating_sub(limits::PAST_KEYS);
        accepted.past.drain(..surplus);
        accepted.before = self.chain;
        accepted
    }
}
