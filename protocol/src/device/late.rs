//! Statements about people by somebody who had been shut out before they were made: worth nothing, whatever the relay makes of them.
//!
//! 1. A statement by a device that was revoked, or of somebody whose endorsement was withdrawn, is not believed yet: it may be from before.
//! 2. What the log says of both is read. The statement stands where it was logged: what had ended its author by then makes it void.
//! 3. One that was believed before its author's end was known is looked at once more, and taken back if it comes after that.
//!
//! Invariant: of whoever is shut out no later word shuts out anybody else; what they said before stays good.

use std::collections::BTreeSet;

use crate::device::logged::{stood, was_added};
use crate::device::state::Table;
use crate::device::{Device, Notice};
use crate::error::PeerMisbehaved;
use crate::identity::{DeviceRevocation, EndorsementRevocation, Issuer, Signed};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::limits;
use crate::log::Act;
use crate::suite::Digest;

/// A statement whose signature is good.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Revoked(DeviceRevocation, Signed),
    Withdrawn(EndorsementRevocation, Signed),
}

impl Said {
    fn issuer(&self) -> Option<Issuer> {
        match self {
            Self::Revoked(said, _) => said.issuer,
            Self::Withdrawn(said, _) => said.issuer,
        }
    }

    fn person(&self) -> PersonId {
        match self {
            Self::Revoked(said, _) => said.person,
            Self::Withdrawn(said, _) => said.person,
        }
    }

    pub(super) fn statement(&self) -> &Signed {
        match self {
            Self::Revoked(_, statement) | Self::Withdrawn(_, statement) => statement,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        self.statement().digest()
    }

    /// When it was made, by its author's clock.
    pub(super) fn at(&self) -> Timestamp {
        match self {
            Self::Revoked(said, _) => said.at,
            Self::Withdrawn(said, _) => said.at,
        }
    }

    /// Whether an act about its person is what it says.
    fn is(&self, act: &Act) -> bool {
        match (self, act) {
            (Self::Revoked(said, _), Act::DeviceRevoked { device, by, .. }) => {
                said.device == *device && *by == self.issuer().map(|issuer| issuer.person)
            }
            (Self::Withdrawn(said, _), Act::EndorsementRevoked { endorsement, by }) => {
                said.endorsement == *endorsement && *by == self.issuer().map(|issuer| issuer.person)
            }
            _ => false,
        }
    }
}

/// Statements that are looked at for when they were made.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// They wait for what the log says.
    waiting: Vec<Said>,
    /// Those that were found to be in order, by hash.
    good: BTreeSet<Digest>,
    /// Those that came too late, by hash.
    void: Vec<Said>,
    /// A restored relay has not told everything yet that it has.
    pub(super) untold: bool,
    /// What it has told so far, and what this device has filed there as its own, by hash.
    pub(super) told: BTreeSet<Digest>,
    pub(super) filed: BTreeSet<Digest>,
}

impl Device {
    /// Takes a statement whose signature is good: at once, or once the log has shown that its author might still make it.
    pub(super) fn take_said(&mut self, said: Said) {
        let (digest, same) = (said.digest(), |other: &Said| other.digest() == said.digest());
        if self.late.void.iter().any(same) || self.late.waiting.iter().any(same) {
            return;
        }
        if !self.is_kept(&said) && !self.late.good.contains(&digest) && self.is_ended(said.issuer()) {
            return self.look_when_it_was_said(said);
        }
        self.keep_said(said);
    }

    fn keep_said(&mut self, said: Said) {
        match said {
            Said::Revoked(said, statement) => self.keep_revocation(said, statement),
            Said::Withdrawn(said, statement) => self.keep_withdrawal(said, statement),
        }
    }

    fn is_kept(&self, said: &Said) -> bool {
        match said {
            Said::Revoked(said, _) => self.revoked.contains_key(&said.device),
            Said::Withdrawn(said, statement) => {
                self.withdrawn.get(&said.person).is_some_and(|row| row.statement == *statement)
            }
        }
    }

    /// Whether something has ended the author of a statement, now or at any time.
    fn is_ended(&self, issuer: Option<Issuer>) -> bool {
        let Some(Issuer { person, device }) = issuer else { return false };
        let ends = |act: &Act| match act {
            Act::DeviceRevoked { device: gone, .. } => *gone == device,
            Act::EndorsementRevoked { .. } => true,
            _ => false,
        };
        let logged = self.logged(person).is_some_and(|history| history.acts.iter().any(|(_, act)| ends(act)));
        logged
            || self.is_revoked(device)
            || self.withdrawn.contains_key(&person)
            || self.is_of_a_key_before(person, device)
    }

    /// Whether somebody is known under a key that does not certify this device: it went with the key before.
    fn is_of_a_key_before(&self, person: PersonId, device: DeviceId) -> bool {
        let Some(known) = self.people.get(&person).filter(|known| !known.chain.is_empty()) else { return false };
        let changed = known.changed.as_ref().and_then(|changed| changed.chain.first());
        !known.chain.first().into_iter().chain(changed).any(|identity| identity.certifies(device))
    }

    fn look_when_it_was_said(&mut self, said: Said) {
        if self.late.waiting.len() < limits::LATE_MAX {
            self.late.waiting.push(said);
            self.ask_checkpoint();
        }
    }

    /// Statements that were believed, and whose author is known to have been shut out since: they may be from after that.
    pub(super) fn doubt_what_the_ended_said(&mut self) {
        let revoked = self.revoked.values().map(|row| Said::Revoked(row.said.clone(), row.statement.clone()));
        let withdrawn = self.withdrawn.values().map(|row| Said::Withdrawn(row.said.clone(), row.statement.clone()));
        let doubted = revoked.chain(withdrawn).filter(|said| self.is_ended(said.issuer())).filter(|said| {
            let digest = said.digest();
            !self.late.good.contains(&digest) && !self.late.waiting.iter().any(|other| other.digest() == digest)
        });
        let doubted: Vec<Said> = doubted.collect();
        doubted.into_iter().for_each(|said| self.look_when_it_was_said(said));
    }

    /// Of whom the log is to be read because of statements that wait.
    pub(super) fn people_of_late_statements(&self) -> Vec<PersonId> {
        let both = |said: &Said| [Some(said.person()), said.issuer().map(|issuer| issuer.person)];
        self.late.waiting.iter().flat_map(both).flatten().collect()
    }

    /// Something of the log was read: what can be judged by it is judged.
    pub(super) fn judge_late_statements(&mut self) {
        for said in std::mem::take(&mut self.late.waiting) {
            match self.was_in_time(&said) {
                None => self.late.waiting.push(said),
                Some(true) => {
                    self.late.good.insert(said.digest());
                    self.keep_said(said);
                }
                Some(false) => {
                    // A restored relay took it before it heard again that its author had been shut out; and what was made good since is
                    // no fault either.
                    let honest = self.was_shut_out_before(&said) || self.is_made_good(&said);
                    self.void_statement(said, honest);
                }
            }
        }
    }

    /// Whether the author of a statement might still make it where it stands in the log; none where that is not read yet.
    fn was_in_time(&self, said: &Said) -> Option<bool> {
        let issuer = said.issuer()?;
        let (of, by) = (self.logged(said.person())?, self.logged(issuer.person)?);
        let before = self.is_from_before(said);
        let Some(place) = of.acts.iter().find(|(_, act)| said.is(act)).map(|(place, _)| *place) else {
            // What was believed under a relay that was restored since need not be in this log; all else is.
            return (Some(of.size) == self.log_size()).then_some(before);
        };
        if by.size <= place {
            return None;
        }
        // Whoever has stolen a key that is over can certify any device with it: only one that was added in its time counts.
        let over = self.is_of_a_key_before(issuer.person, issuer.device);
        let stood = stood(by, place, issuer.device) && (!over || was_added(by, place, issuer.device));
        Some(before || (stood && !self.was_shut_out_before(said) && !self.is_made_good(said)))
    }

    /// Whether a statement was believed already when the relay was restored.
    fn is_from_before(&self, said: &Said) -> bool {
        let here = self.incarnation.map(Into::into);
        match said {
            Said::Revoked(said, _) => self.revoked.get(&said.device).is_some_and(|row| row.under != here),
            Said::Withdrawn(said, statement) => {
                let row = self.withdrawn.get(&said.person).filter(|row| row.statement == *statement);
                row.is_some_and(|row| row.under != here)
            }
        }
    }

    /// Whether its author was known to be shut out when the relay was restored, and it was not believed then.
    fn was_shut_out_before(&self, said: &Said) -> bool {
        let here = self.incarnation.map(Into::into);
        let Some(Issuer { person, device }) = said.issuer() else { return false };
        let gone = self.revoked.get(&device).is_some_and(|row| row.under != here);
        let ended = gone || self.withdrawn_row(person).is_some_and(|row| row.under != here);
        ended && !self.is_from_before(said)
    }

    /// Whether somebody was endorsed again, in the log, after the withdrawal of which a statement says to be the reason, and that
    /// endorsement names another.
    fn is_made_good(&self, said: &Said) -> bool {
        let Said::Withdrawn(withdrawal, statement) = said else { return false };
        let Some(history) = self.logged(withdrawal.person) else { return false };
        let after = history.acts.iter().skip_while(|(_, act)| !said.is(act));
        let again = |act: &Act| matches!(act, Act::Endorsed { .. } | Act::Adopted { .. });
        let names = self.said_of(withdrawal.person).is_some_and(|said| said.after == Some(statement.digest()));
        after.into_iter().any(|(_, act)| again(act)) && !names
    }

    fn void_statement(&mut self, said: Said, honest: bool) {
        if self.is_kept(&said) {
            match &said {
                Said::Revoked(said, _) => {
                    self.revoked.remove(&said.device);
                    self.batch.delete(Table::Revoked, None, said.device.as_bytes());
                }
                Said::Withdrawn(said, _) => {
                    self.withdrawn.remove(&said.person);
                    self.batch.delete(Table::Withdrawn, None, said.person.as_bytes());
                }
            }
        }
        self.late.void.push(said);
        let surplus = self.late.void.len().saturating_sub(limits::LATE_MAX);
        self.late.void.drain(..surplus);
        self.look_at_devices();
        self.look_for_lapses();
        if honest {
            return;
        }
        self.log_fault("the relay passes on what somebody said of others after they had been shut out", None, None);
        self.deliver(Notice::Problem(PeerMisbehaved::SaidLate.into()));
    }

    /// Whether a statement that is being looked at, or was found to be void, is why the log says so.
    pub(super) fn is_said_late(&self, person: PersonId, act: &Act) -> bool {
        let mut all = self.late.waiting.iter().chain(&self.late.void);
        all.any(|said| said.person() == person && said.is(act))
    }
}
