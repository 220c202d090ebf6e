//! Endorsements taken back: whoever may signs a statement, and nobody builds on that person's endorsement any more.
//!
//! 1. A registrar says so of anybody but registrars, an endorser of those they endorsed, the holder of the organisation's key of registrars.
//!    The relay keeps it, and serves that person no more.
//! 2. Everybody who may see the person is told, verifies the statement, and keeps the newest one.
//! 3. Nobody adds that person; in matters with them sending waits for the user's word, or for their removal (`lapses.rs`).
//! 4. A later endorsement that names the statement makes them whole again.
//!
//! Invariant: no Commit is judged by it, nobody falls out of a matter by it, and what that person has endorsed stays good.

use crate::device::inbox::assemble;
use crate::device::state::{KnownPerson, Table, Withdrawn};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Reply, Request};
use crate::identity::{Endorsement, EndorsementRevocation, Identity, Signed, is_lifted, verify_chain};
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::suite::Label;

impl Device {
    /// Takes somebody's endorsement back: nobody at the firm vouches for them any more. [`Notice::Withdrawn`] or
    /// [`Notice::NotWithdrawn`] tells what became of it.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] for whoever may not; [`Refused::NotFound`] if they are not known here.
    pub fn withdraw_endorsement(&mut self, now: Timestamp, person: PersonId) -> Result<(), Error> {
        if person == self.profile.person {
            return Err(Refused::not_allowed("nobody withdraws their own endorsement").into());
        }
        let known = self.people.get(&person).ok_or_else(|| Refused::not_found("that person"))?;
        let first = known.chain.first().ok_or_else(|| Refused::not_found("an endorsement of that person"))?;
        let endorsement = first.endorsement.digest();
        let before: Endorsement = first.endorsement.unverified("endorsement")?;
        let gave = before.issuer.is_some_and(|issuer| issuer.person == self.profile.person);
        let key = match (&self.profile.organisation_key, before.registrar) {
            (Some(key), true) => key,
            (None, true) => {
                return Err(Refused::not_allowed(
                    "only whoever holds the firm's key withdraws a registrar's endorsement",
                )
                .into());
            }
            (_, false) if self.profile.registrar || gave => &self.profile.mls_key,
            (_, false) => {
                return Err(
                    Refused::not_allowed("only whoever vouches for them, or a registrar, withdraws that").into()
                );
            }
        };
        // Later than what it takes back, whatever the clocks say.
        let earlier = self.withdrawn.get(&person).map_or(before.from, |row| row.said.at.max(before.from));
        let at = now.max(earlier.plus_ms(1));
        let issuer = (!before.registrar).then(|| self.issuer());
        let said = EndorsementRevocation { person, endorsement, issuer, at };
        let revocation = Signed::make(Label::EndorsementRevocation, key, &said)?;
        self.ask(Asked::Withdraw(said, revocation.clone()), Request::WithdrawEndorsement { revocation });
        self.settle(now);
        Ok(())
    }

    pub(super) fn withdraw_answered(&mut self, said: EndorsementRevocation, statement: Signed, reply: Reply) {
        let person = said.person;
        if let Reply::Refused(why) = reply {
            self.deliver(Notice::NotWithdrawn { person, why });
            return;
        }
        self.keep_withdrawal(said, statement);
        self.deliver(Notice::Withdrawn { person });
    }

    /// Vouches again for somebody whose endorsement was withdrawn. [`Notice::EndorsedAnew`] tells what became of it.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] for whoever may not; [`Misuse::Busy`] where nothing was withdrawn, as far as this device knows.
    pub fn endorse_again(&mut self, now: Timestamp, person: PersonId) -> Result<(), Error> {
        let known = self.people.get(&person).ok_or_else(|| Refused::not_found("that person"))?;
        if known.changed.is_some() {
            return Err(Misuse::IdentityChanged.into());
        }
        let withdrawn = self.withdrawn.get(&person).ok_or(Misuse::Busy("nobody has withdrawn their endorsement"))?;
        let by = withdrawn.said.issuer.map(|issuer| issuer.person);
        if !self.profile.registrar && by != Some(self.profile.person) {
            return Err(
                Refused::not_allowed("a registrar has withdrawn it: only a registrar vouches for them again").into()
            );
        }
        let (chain, after) = (known.chain.clone(), Some(withdrawn.statement.digest()));
        self.endorse_anew(now, &chain, false, after)?;
        self.settle(now);
        Ok(())
    }

    /// Whether nobody vouches for somebody any more, as far as this device knows.
    pub fn is_withdrawn(&self, person: PersonId) -> bool {
        self.withdrawal(person).is_some()
    }

    /// The statement by which somebody's endorsement was taken back, while no later one has made it good.
    pub fn withdrawal(&self, person: PersonId) -> Option<&EndorsementRevocation> {
        self.withdrawn_row(person).map(|row| &row.said)
    }

    pub(super) fn withdrawn_row(&self, person: PersonId) -> Option<&Withdrawn> {
        let row = self.withdrawn.get(&person)?;
        let chain = self.people.get(&person).map_or(&[][..], |known| &known.chain);
        (!is_lifted(chain, row.statement.digest(), &row.said)).then_some(row)
    }

    pub(super) fn keep_withdrawal(&mut self, said: EndorsementRevocation, statement: Signed) {
        let person = said.person;
        let under = self.incarnation.map(Into::into);
        let row = match self.withdrawn.get(&person) {
            Some(known) if known.said == said => return,
            Some(known) => {
                let known = known.clone();
                let before = known.statement.clone();
                let row = known.with(said, statement);
                let under = if row.statement == before { row.under } else { under };
                Withdrawn { under, ..row }
            }
            None => Withdrawn { said, statement, past: Vec::new(), under },
        };
        self.batch.put(Table::Withdrawn, None, person.as_bytes(), &row);
        self.withdrawn.insert(person, row);
        self.materials.remove(&person);
        self.look_for_lapses();
        // What this device writes from now on tells of a log that has it.
        self.ask_checkpoint();
    }

    pub(super) fn verify_withdrawal(
        &self,
        signed: &Signed,
        identities: &[Identity],
    ) -> Result<EndorsementRevocation, Error> {
        const WHAT: &str = "a withdrawal";
        let said: EndorsementRevocation = signed.unverified(WHAT)?;
        let Some(issuer) = said.issuer else {
            return signed.verify(Label::EndorsementRevocation, &self.profile.organisation, WHAT);
        };
        let author = self.author(issuer.person, Some(issuer.device), identities)?;
        let key = &author.device(issuer.device).ok_or(PeerMisbehaved::NotEndorsed)?.mls_key;
        let said: EndorsementRevocation = signed.verify(Label::EndorsementRevocation, key, WHAT)?;
        let of = self.endorsements_of(said.person, identities);
        let gave = |(digest, endorsement): &(_, Endorsement)| {
            let its = *digest == said.endorsement && endorsement.issuer.is_some_and(|by| by.person == issuer.person);
            // Whoever endorsed them since has seen it.
            its || endorsement.after == Some(signed.digest())
        };
        let may = match author.endorsement.registrar {
            true => !of.is_empty() && of.iter().all(|(_, endorsement)| !endorsement.registrar),
            false => of.iter().any(gave),
        };
        if may && said.person != issuer.person {
            Ok(said)
        } else {
            Err(PeerMisbehaved::Role("withdrawing an endorsement").into())
        }
    }

    /// What is known of somebody's endorsement here, and what the relay shows of it, verified, each with its hash.
    fn endorsements_of(&self, person: PersonId, identities: &[Identity]) -> Vec<(crate::suite::Digest, Endorsement)> {
        let known = self.people.get(&person).and_then(|known| known.chain.first());
        let known = known.map(|first| &first.endorsement);
        let mut of: Vec<_> = known
            .and_then(|signed| Some((signed.digest(), signed.unverified("endorsement").ok()?)))
            .into_iter()
            .collect();
        let chain = assemble(identities, person);
        if let (Ok(shown), Some(first)) = (verify_chain(&chain, &self.profile.organisation), chain.first()) {
            of.push((first.endorsement.digest(), shown.endorsement));
        }
        of
    }

    /// Whoever has no endorsement, as far as this device knows, may have another by now: those first with whom it shares a matter.
    pub(super) fn look_who_is_whole_again(&mut self) {
        let mut people: Vec<PersonId> =
            self.withdrawn.keys().copied().filter(|person| self.is_withdrawn(*person)).collect();
        people.sort_by_key(|person| !self.rooms.values().any(|room| room.row.people.contains(person)));
        people.truncate(limits::RENEWALS_AT_ONCE);
        for person in people {
            self.ask(Asked::Chain(person), Request::Chain { person });
        }
    }

    /// What to call somebody.
    pub(super) fn label_of(&self, person: PersonId) -> String {
        self.people.get(&person).map(KnownPerson::label).unwrap_or_default()
    }
}

/// Why somebody is not added.
pub(super) fn withdrawn_told() -> Error {
    Refused::not_allowed("the firm has withdrawn that person's endorsement").into()
}
