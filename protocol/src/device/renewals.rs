//! Endorsements given once more: renewed in time, or with a name that the endorser states, too.
//!
//! 1. When a device that may endorse is online, it asks the relay whose endorsements it may renew by now: those that its person gave, and
//!    every one of somebody else's where that person is a registrar, once less than a third of their life is left.
//! 2. Each chain is verified up to the organisation's key, and the same statement signed anew.
//! 3. Those who know these people see it in the directory: before somebody's endorsement ends, their chain is asked for again.
//!
//! Invariant: an endorsement given once more says of the person what the valid one before it said; a name alone may become confirmed.
//! No leaf, key or matter changes with it.

use crate::device::state::Stage;
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved, Refused};
use crate::frame::{Reply, Request};
use crate::identity::{Endorsement, Identity, Signed, may_endorse, verify_chain};
use crate::ids::{MatterId, PersonId, Timestamp};
use crate::limits;
use crate::suite::{Digest, Label};

impl Endorsement {
    /// Whether less than a third of its life is left.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.until.0.saturating_sub(self.from.0);
        self.until.0.saturating_sub(now.0) < life.checked_div(3).unwrap_or_default()
    }
}

impl Device {
    /// States somebody's name, too: it is shown as self-stated no more. [`Notice::EndorsedAnew`] tells what became of it.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] where this person may not endorse them; [`Refused::NotFound`] where their name is not known here.
    pub fn confirm_name(&mut self, now: Timestamp, person: PersonId) -> Result<(), Error> {
        let known = self.people.get(&person).ok_or_else(|| Refused::not_found("that person"))?;
        if known.changed.is_some() {
            return Err(crate::error::Misuse::IdentityChanged.into());
        }
        self.check_may_endorse(&known.endorsements().into_iter().next().ok_or(PeerMisbehaved::NotEndorsed)?)?;
        if !known.is_named() {
            return Err(Refused::not_found("their name on this device; whoever has vouched for them knows it").into());
        }
        let chain = known.chain.clone();
        self.endorse_anew(now, &chain, true, None)?;
        self.settle(now);
        Ok(())
    }

    fn check_may_endorse(&self, said: &Endorsement) -> Result<(), Refused> {
        let may = if said.registrar {
            self.profile.organisation_key.is_some()
        } else {
            may_endorse(self.profile.role, self.profile.registrar, said.role)
        };
        if may {
            return Ok(());
        }
        Err(Refused::not_allowed("only whoever invited them, or a registrar, vouches for them"))
    }

    /// Signs what the first of a valid chain is endorsed with once more, and files it; `again` names the withdrawal that it comes after.
    pub(super) fn endorse_anew(
        &mut self,
        now: Timestamp,
        chain: &[Identity],
        confirm: bool,
        again: Option<Digest>,
    ) -> Result<(), Error> {
        let said = verify_chain(chain, &self.profile.organisation)?;
        if again.is_none() && self.is_withdrawn(said.person) {
            return Err(Refused::not_allowed("that person's endorsement was withdrawn").into());
        }
        let first = chain.first().ok_or(PeerMisbehaved::NotEndorsed)?;
        let before = said.endorsement;
        let by_organisation = before.registrar;
        self.check_may_endorse(&before)?;
        let from = now.max(before.from.plus_ms(1));
        let statement = Endorsement {
            issuer: (!by_organisation).then(|| self.issuer()),
            from,
            until: from.plus_ms(limits::ENDORSEMENT_LIFETIME_MS),
            confirmed: before.confirmed || confirm,
            after: again.or(before.after),
            // Where statements have led to another key since, it is that one's from now on.
            person_key: said.person_key.digest(),
            ..before
        };
        let key = self.profile.organisation_key.as_ref().filter(|_| by_organisation).unwrap_or(&self.profile.mls_key);
        let endorsement = Signed::make(Label::Endorsement, key, &statement)?;
        let mut anew = vec![Identity { endorsement: endorsement.clone(), ..first.clone() }];
        if !by_organisation {
            anew.extend(self.people.get(&self.profile.person).into_iter().flat_map(|own| own.chain.iter().cloned()));
        }
        let person = said.person;
        self.ask(Asked::EndorseAnew(person, anew), Request::Endorse { person, endorsement });
        Ok(())
    }

    pub(super) fn endorsed_anew(&mut self, person: PersonId, chain: Vec<Identity>, reply: Reply) {
        let outcome = match reply {
            Reply::Done => self.take_chain(person, Reply::Chain { chain }).map(|_| ()),
            Reply::Refused(refused) => Err(refused.into()),
            _ => Err(PeerMisbehaved::Mismatch("the relay's answer").into()),
        };
        self.deliver(Notice::EndorsedAnew { person, outcome });
    }

    /// Once a day on a link: asks for what this person may renew, and for the chains that come to an end of those in its matters.
    pub(super) fn renew_in_time(&mut self, now: Timestamp) {
        let due = self.link.as_ref().is_some_and(|link| link.renewals_asked.is_none_or(|at| at.plus_ms(DAY_MS) <= now));
        if !due || !self.ready {
            return;
        }
        if let Some(link) = self.link.as_mut() {
            link.renewals_asked = Some(now);
        }
        if self.profile.registrar || self.profile.role.manages() {
            self.ask(Asked::Renewals, Request::Renewals);
        }
        for person in self.ending(now) {
            self.ask(Asked::Chain(person), Request::Chain { person });
        }
        self.look_who_is_whole_again();
    }

    /// Asks at once for what may be renewed.
    pub(super) fn renew_again(&mut self) {
        if let Some(link) = self.link.as_mut() {
            link.renewals_asked = None;
        }
    }

    /// People of this device's matters, and this person, whose endorsements as known here are due.
    fn ending(&self, now: Timestamp) -> Vec<PersonId> {
        let own = self.profile.person;
        let shared = |person: PersonId| self.rooms.values().any(|room| room.row.people.contains(&person));
        let ends = |person: &PersonId| self.said_of(*person).is_some_and(|said| said.is_due(now));
        let people = self.people.keys().copied().filter(|person| *person == own || shared(*person));
        people.filter(ends).take(limits::RENEWALS_AT_ONCE).collect()
    }

    pub(super) fn said_of(&self, person: PersonId) -> Option<Endorsement> {
        self.people.get(&person)?.chain.first()?.endorsement.unverified("endorsement").ok()
    }

    pub(super) fn renewals_came(&mut self, now: Timestamp, reply: Reply) {
        let Reply::Chains { chains } = reply else { return };
        for chain in chains.into_iter().take(limits::RENEWALS_AT_ONCE) {
            if let Err(why) = self.renew(now, &chain) {
                self.deliver(Notice::Problem(why));
            }
        }
    }

    /// Renews one endorsement, if it is due, and the person is who this device knows.
    fn renew(&mut self, now: Timestamp, chain: &[Identity]) -> Result<(), Error> {
        let said = verify_chain(chain, &self.profile.organisation)?;
        let due = said.endorsement.is_due(now);
        let key = said.person_key.digest();
        let replaced = said.endorsement.person_key != key;
        let outlived = self.is_outlived(chain);
        let may = self.check_may_endorse(&said.endorsement).is_ok();
        if !(due || (replaced || outlived) && may) {
            return Ok(());
        }
        // Whoever has a lost device must not get this one's word for what they have signed with it since.
        if outlived && !self.is_proved(chain) {
            return Ok(());
        }
        let name = self.people.get(&said.person).and_then(|known| known.name.clone());
        self.meet(&said, chain, name)?;
        let known = self.people.get(&said.person);
        let changed = known.is_some_and(|known| known.changed.is_some());
        // A key that statements lead to is vouched for like the one before, once the user has accepted it where it has to be.
        let follows = known.is_some_and(|known| {
            !known.is_in_doubt() && known.key().is_some_and(|before| said.is_listed_as(before) && before != key)
        });
        if !changed || follows {
            self.endorse_anew(now, chain, false, None)
        } else if due {
            Err(crate::error::Misuse::IdentityChanged.into())
        } else {
            Ok(())
        }
    }

    /// Whether a key that this person has no more certified the device of theirs that vouches for somebody.
    fn is_outlived(&self, chain: &[Identity]) -> bool {
        let above = chain.get(1).filter(|above| above.person == self.profile.person);
        above.is_some_and(|above| self.own_key().is_ok_and(|own| own != above.person_key))
    }

    /// Whose endorsement has ended among the others in a matter, as far as this device knows.
    pub fn expired_in(&self, matter: MatterId, now: Timestamp) -> Vec<PersonId> {
        let room = self.rooms.get(&matter).filter(|room| room.row.stage != Stage::Removed);
        let people = room.map(|room| room.row.people.as_slice()).unwrap_or_default();
        let expired = |person: &&PersonId| self.said_of(**person).is_some_and(|said| said.until <= now);
        people.iter().filter(expired).copied().collect()
    }
}

const DAY_MS: u64 = 24 * 3600 * 1000;
