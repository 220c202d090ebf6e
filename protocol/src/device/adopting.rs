//! Newcomers whose inviter is away, taken in by somebody else of the firm: a registrar, or for clients any attorney.
//!
//! 1. The relay shows who waits and may be taken in. Nobody here can check the newcomer's proof: the invite's secret is elsewhere.
//! 2. So the two people compare the number of the newcomer and the firm, by telephone or side by side; the newcomer's device shows it while
//!    it waits.
//! 3. The endorsement says that it is an adoption, and states the name that the newcomer has told.
//!
//! Invariant: nobody is taken in whose number was not compared, and an adoption is told from an endorsement by the proof, for ever.

use crate::device::enrol::identity_of;
use crate::device::state::Verification;
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Registration, Reply, Request};
use crate::identity::{DeviceCertificate, Endorsement, Name, Role, SafetyNumber, Signed, may_adopt, verify_chain};
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::suite::Label;

impl Device {
    /// The number of this person and the firm, while nobody has vouched for them: whoever takes them in sees the same.
    ///
    /// # Errors
    /// [`Misuse`] once somebody has, and on a device that does not hold the person key.
    pub fn firm_number(&self) -> Result<SafetyNumber, Error> {
        let key = self.profile.person_key.as_ref().filter(|_| !self.ready);
        let key = key.ok_or(Misuse::Busy("somebody vouches for you already"))?.public()?;
        Ok(SafetyNumber::with_firm((self.profile.person, &key), &self.profile.organisation))
    }

    /// Asks the relay whom this person may take in; the answer is [`Notice::Adoptable`].
    pub fn ask_adoptable(&mut self, now: Timestamp) {
        self.ask(Asked::Adoptable, Request::Adoptable);
        self.settle(now);
    }

    pub(super) fn adoptable_came(&mut self, reply: Reply) {
        let outcome = match reply {
            Reply::Adoptable { newcomers } => {
                let newcomers = newcomers.into_iter().take(limits::ADOPTABLE_MAX);
                self.adoptable = newcomers.map(|newcomer| (newcomer.person, newcomer)).collect();
                Ok(())
            }
            Reply::Refused(refused) => Err(refused),
            _ => Err(Refused::malformed("the relay's answer")),
        };
        self.deliver(Notice::Adoptable(outcome));
    }

    /// Who waits to be taken in, as the relay says: with the handle and the role that they asked for.
    pub fn adoptable(&self) -> impl Iterator<Item = (PersonId, &str, Role)> {
        self.adoptable.values().map(|newcomer| (newcomer.person, newcomer.handle.as_str(), newcomer.role))
    }

    /// The number of a newcomer and the firm, over the key that the relay shows as theirs.
    ///
    /// # Errors
    /// [`Refused::NotFound`] for somebody who does not wait.
    pub fn adoption_number(&self, person: PersonId) -> Result<SafetyNumber, Error> {
        let newcomer = self.newcomer(person)?;
        Ok(SafetyNumber::with_firm((newcomer.person, &newcomer.person_key), &self.profile.organisation))
    }

    fn newcomer(&self, person: PersonId) -> Result<&Registration, Refused> {
        self.adoptable.get(&person).ok_or_else(|| Refused::not_found("that newcomer"))
    }

    /// Takes a newcomer in, under the number that the user has compared with them and the name that they have told. [`Notice::Adopted`]
    /// tells what became of it.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongKey`] if it is another number; [`Refused::NotAllowed`] for whoever may not.
    pub fn adopt(&mut self, now: Timestamp, person: PersonId, number: &SafetyNumber, name: &str) -> Result<(), Error> {
        let newcomer = self.newcomer(person)?.clone();
        if !may_adopt(self.profile.role, self.profile.registrar, newcomer.role) {
            return Err(Refused::not_allowed(
                "only a registrar takes in somebody whom another has invited; clients also any attorney",
            )
            .into());
        }
        if self.adoption_number(person)? != *number {
            return Err(PeerMisbehaved::WrongKey("the safety number").into());
        }
        let certificate: DeviceCertificate =
            newcomer.certificate.verify(Label::DeviceCertificate, &newcomer.person_key, "device certificate")?;
        if certificate.person != person {
            return Err(PeerMisbehaved::Mismatch("the newcomer's registration").into());
        }
        let (name, key) = (Name::new(name)?, newcomer.person_key.digest());
        let statement = Endorsement {
            person,
            person_key: key,
            role: newcomer.role,
            registrar: false,
            handle: newcomer.handle.clone(),
            name: name.commitment(),
            issuer: Some(self.issuer()),
            from: now,
            until: now.plus_ms(limits::ENDORSEMENT_LIFETIME_MS),
            confirmed: true,
            adopted: true,
            after: None,
        };
        let endorsement = Signed::make(Label::Endorsement, &self.profile.mls_key, &statement)?;
        let mut chain = vec![identity_of(&newcomer, endorsement.clone())];
        chain.extend(self.people.get(&self.profile.person).into_iter().flat_map(|own| own.chain.iter().cloned()));
        let said = verify_chain(&chain, &self.profile.organisation)?;
        if self.people.get(&person).is_some_and(|known| known.key() != Some(key)) {
            return Err(PeerMisbehaved::WrongKey("the newcomer's identity").into());
        }
        self.meet(&said, &chain, Some(name))?;
        if let Some(mut known) = self.people.get(&person).cloned() {
            // What was compared is their key.
            known.verified = Some(Verification { key, at: now });
            self.know(person, known);
        }
        self.warn_of_look_alikes(person);
        self.ask(Asked::Adopt(person), Request::Endorse { person, endorsement });
        self.settle(now);
        Ok(())
    }

    pub(super) fn adopt_answered(&mut self, person: PersonId, reply: Reply) {
        let outcome = match reply {
            Reply::Refused(refused) => Err(refused),
            _ => {
                self.adoptable.remove(&person);
                self.materials.remove(&person);
                Ok(())
            }
        };
        self.deliver(Notice::Adopted { person, outcome });
    }
}
