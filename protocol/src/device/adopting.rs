//! Newcomers whose inviter is away, taken in by somebody else of the firm: a registrar, or for clients any attorney.
//!
//! 1. The relay shows who waits and may be taken in. Nobody here can check the newcomer's proof: the invite's secret is elsewhere.
//! 2. Of the one who is meant it shows the inviter's signed statement, too, with the inviter's chain: the role is the one in there, and the handle, where
//!    the inviter chose it.
//! 3. Then the two people compare the number of the newcomer and the firm, by telephone or side by side; the newcomer's device shows it while
//!    it waits. Key, handle and role are all in it.
//! 4. The endorsement says that it is an adoption, and states the name that the newcomer has told.
//!
//! Invariant: nobody is taken in whose number was not compared, nor in another role than an inviter has signed for; and an adoption is told
//! from an endorsement by the proof, for ever.

use crate::device::enrol::{identity_of, inviter_says};
use crate::device::state::{Profile, Verification};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{AdoptionView, Registration, Reply, Request};
use crate::identity::{DeviceCertificate, Endorsement, Name, Role, SafetyNumber, Signed, may_adopt, verify_chain};
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::suite::Label;

/// A newcomer to take in, as their inviter has said and the relay has registered them.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// Whoever has invited them.
    pub inviter: PersonId,
    /// What that one is called in the directory, as the firm has signed.
    pub inviter_handle: String,
    registration: Registration,
}

impl Adoption {
    /// Who waits.
    pub fn person(&self) -> PersonId {
        self.registration.person
    }

    /// Under which handle.
    pub fn handle(&self) -> &str {
        &self.registration.handle
    }

    /// In which role, as their inviter has signed.
    pub fn role(&self) -> Role {
        self.registration.role
    }
}

impl Device {
    /// The number of this person and the firm, while nobody has vouched for them: whoever takes them in sees the same.
    ///
    /// # Errors
    /// [`Misuse`] once somebody has, and on a device that does not hold the person key.
    pub fn firm_number(&self) -> Result<SafetyNumber, Error> {
        let key = self.profile.person_key.as_ref().filter(|_| !self.ready);
        let key = key.ok_or(Misuse::Busy("somebody vouches for you already"))?.public()?;
        let Profile { person, handle, role, organisation, .. } = &self.profile;
        Ok(SafetyNumber::with_firm((*person, &key), handle, *role, organisation))
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

    /// Asks the relay as whom one of them was invited; the answer is [`Notice::Adoption`].
    pub fn ask_adoption(&mut self, now: Timestamp, person: PersonId) {
        self.adoption = None;
        self.ask(Asked::Adoption(person), Request::Adoption { person });
        self.settle(now);
    }

    pub(super) fn adoption_came(&mut self, person: PersonId, reply: Reply) {
        let outcome = match reply {
            Reply::Adoption(view) => self.judge_adoption(person, *view),
            Reply::Refused(refused) => Err(refused.into()),
            _ => Err(PeerMisbehaved::Mismatch("the relay's answer").into()),
        };
        let outcome = match outcome {
            Ok(adoption) => {
                self.adoption = Some(Box::new(adoption));
                Ok(())
            }
            Err(why) => {
                if let Error::PeerMisbehaved(_) = why {
                    self.log_fault(
                        &format!("what the relay shows of a newcomer who is to be taken in: {why}"),
                        None,
                        None,
                    );
                }
                Err(why)
            }
        };
        self.deliver(Notice::Adoption { person, outcome });
    }

    /// Holds what the relay has registered against what the inviter has signed.
    fn judge_adoption(&self, person: PersonId, view: AdoptionView) -> Result<Adoption, Error> {
        let AdoptionView { registration, statement, chain } = view;
        let (said, inviter) = inviter_says(&statement, &chain, &self.profile.organisation, registration.invite)?;
        if registration.role != said.role {
            return Err(PeerMisbehaved::Mismatch("the newcomer's role").into());
        }
        if said.handle.as_ref().is_some_and(|chosen| *chosen != registration.handle) {
            return Err(PeerMisbehaved::Mismatch("the newcomer's handle").into());
        }
        // An invite that makes no new person lets nobody in so.
        if registration.person != person || said.links.is_some() || said.replaces.is_some() {
            return Err(PeerMisbehaved::Mismatch("the newcomer's registration").into());
        }
        let inviter_handle = inviter.endorsement.handle;
        Ok(Adoption { inviter: inviter.person, inviter_handle, registration })
    }

    /// The newcomer asked for with [`Self::ask_adoption`], once it is known as whom they were invited.
    pub fn adoption(&self) -> Option<&Adoption> {
        self.adoption.as_deref()
    }

    /// The number of that newcomer and the firm, over key, handle and role as they are shown here.
    ///
    /// # Errors
    /// [`Refused::NotFound`] for somebody else.
    pub fn adoption_number(&self, person: PersonId) -> Result<SafetyNumber, Error> {
        let Registration { person_key, handle, role, .. } = self.newcomer(person)?;
        Ok(SafetyNumber::with_firm((person, person_key), handle, *role, &self.profile.organisation))
    }

    fn newcomer(&self, person: PersonId) -> Result<&Registration, Refused> {
        let adoption = self.adoption.as_ref().filter(|adoption| adoption.person() == person);
        adoption.map(|adoption| &adoption.registration).ok_or_else(|| Refused::not_found("that newcomer"))
    }

    /// Takes a newcomer in, under the number that the user has compared with them and the name that they have told: whoever calls this has
    /// shown the user the role. [`Notice::Adopted`] tells what became of it.
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
        if certificate.person != person || person != PersonId::of(&newcomer.person_key) {
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
                self.adoption = None;
                self.materials.remove(&person);
                Ok(())
            }
        };
        self.deliver(Notice::Adopted { person, outcome });
    }
}
