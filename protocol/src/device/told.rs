//! What is told of people: devices revoked, endorsements withdrawn; one feed, with one counter, for every kind of statement.
//!
//! 1. At each link, and when the relay says that there is something new, this device asks for what comes behind the last number it was told.
//! 2. Each statement is verified up to the organisation's key, and kept by its kind (`revoking.rs`, `withdrawing.rs`); one by somebody who was shut
//!    out, too, once the log has shown which came first (`late.rs`).
//! 3. Numbers belong to an incarnation: a relay that was restored is asked from the start, and whoever may file a statement does it again.
//!
//! Invariant: a relay that only claims something of somebody changes nothing here.

use minicbor::bytes::ByteArray;

use crate::cbor;
use crate::device::inbox::assemble;
use crate::device::late::Said;
use crate::device::state::{Counters, RevocationsTold, Revoked, Table, Withdrawn};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{Reply, Request};
use crate::identity::{Identity, Issuer, Signed, Verified, verify_chain};
use crate::ids::PersonId;
use crate::limits;

impl Device {
    /// Asks for statements beyond those that this incarnation of the relay has told.
    pub(super) fn ask_revocations(&mut self) {
        let under_way = |link: &super::Link| link.asked.values().any(|asked| *asked == Asked::Revocations);
        if self.ready && !self.link.as_ref().is_some_and(under_way) {
            self.file_again();
            let after = self.revocations_told();
            self.ask(Asked::Revocations, Request::Revocations { after });
        }
    }

    /// A relay that was restored may have forgotten statements: whoever may file one does it again, once for each incarnation.
    fn file_again(&mut self) {
        let known = self.told.is_some_and(|told| Some(*told.incarnation) != self.incarnation);
        let Some(incarnation) = self.incarnation.filter(|_| known) else { return };
        let (person, device) = (self.profile.person, self.profile.device);
        let by_this = |issuer: Option<Issuer>, without: bool| issuer.map_or(without, |issuer| issuer.device == device);
        let revoked = self.revoked.values().filter(|row| by_this(row.said.issuer, row.said.person == person));
        let revoked: Vec<Revoked> = revoked.cloned().collect();
        let organisation = self.profile.organisation_key.is_some();
        let withdrawn = self.withdrawn.values().filter(|row| by_this(row.said.issuer, organisation));
        let withdrawn: Vec<Withdrawn> = withdrawn.cloned().collect();
        for Revoked { said, statement } in revoked {
            let revocation = statement.clone();
            self.ask(Asked::Revoke(said, statement), Request::RevokeDevice { revocation });
        }
        for Withdrawn { said, statement, .. } in withdrawn {
            let revocation = statement.clone();
            self.ask(Asked::Withdraw(said, statement), Request::WithdrawEndorsement { revocation });
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
        let Reply::Revocations { revocations, identities, upto, more, withdrawn, replaced } = reply else { return };
        // New keys first: what they have signed is verified by them.
        for person in replaced.into_iter().take(limits::REVOCATIONS_MAX) {
            self.was_replaced(person, &identities);
        }
        self.take_statements(revocations, withdrawn, &identities);
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

    /// Verifies what is told of people, and keeps it.
    pub(super) fn take_statements(&mut self, revoked: Vec<Signed>, withdrawn: Vec<Signed>, identities: &[Identity]) {
        for statement in revoked.into_iter().take(limits::REVOCATIONS_MAX) {
            match self.verify_revocation(&statement, identities) {
                Ok(said) => self.take_said(Said::Revoked(said, statement)),
                Err(why) => self.deliver(Notice::Problem(why)),
            }
        }
        for statement in withdrawn.into_iter().take(limits::REVOCATIONS_MAX) {
            match self.verify_withdrawal(&statement, identities) {
                Ok(said) => self.take_said(Said::Withdrawn(said, statement)),
                Err(why) => self.deliver(Notice::Problem(why)),
            }
        }
        self.doubt_what_the_ended_said();
    }

    /// The author of a statement, as the identities beside it say, if that is who this device knows.
    pub(super) fn author(&self, person: PersonId, identities: &[Identity]) -> Result<Verified, Error> {
        let verified = verify_chain(&assemble(identities, person), &self.profile.organisation)?;
        // A key that nobody has accepted here yet is good enough to shut somebody out.
        let known = self.people.get(&person).filter(|known| !known.chain.is_empty());
        let other = known.is_some_and(|known| !known.shows(verified.person_key.digest()));
        if verified.person != person || other {
            return Err(PeerMisbehaved::WrongKey("the author of a statement about somebody").into());
        }
        Ok(verified)
    }
}

/// What the vault says about how far statements were told.
pub(super) fn told(bytes: Option<&zeroize::Zeroizing<Vec<u8>>>) -> Option<RevocationsTold> {
    bytes.and_then(|bytes| cbor::decode(bytes, "revocations").ok())
}
