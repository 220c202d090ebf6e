//! What is told of people: devices revoked, endorsements withdrawn; one feed, with one counter, for every kind of statement.
//!
//! 1. At each link, and when the relay says that there is something new, this device asks for what comes behind the last number it was told.
//! 2. Each statement is verified up to the organisation's key, and kept by its kind (`revoking.rs`, `withdrawing.rs`); one by somebody who was shut
//!    out, too, once the log has shown which came first (`late.rs`).
//! 3. Numbers belong to an incarnation: a relay that was restored is asked from the start. Whoever has made a statement files it again; what
//!    nobody has filed by the end, whoever holds it does.
//!
//! Invariant: a relay that only claims something of somebody changes nothing here.

use minicbor::bytes::ByteArray;

use crate::cbor;
use crate::device::inbox::{assemble, assemble_from};
use crate::device::late::Said;
use crate::device::state::{Counters, RevocationsTold, Table};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{Reply, Request};
use crate::identity::{DeviceRevocation, Endorsement, Identity, Issuer, Signed, Verified, verify_chain};
use crate::ids::{DeviceId, PersonId};
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

    /// A relay that was restored may have forgotten statements: whoever has made one files it again at once, once for each incarnation.
    fn file_again(&mut self) {
        let known = self.told.is_some_and(|told| Some(*told.incarnation) != self.incarnation);
        let Some(incarnation) = self.incarnation.filter(|_| known) else { return };
        let (person, device) = (self.profile.person, self.profile.device);
        let by_this = |issuer: Option<Issuer>, without: bool| issuer.map_or(without, |issuer| issuer.device == device);
        let organisation = self.profile.organisation_key.is_some();
        for said in self.said_before() {
            let own = match &said {
                Said::Revoked(said, _) => by_this(said.issuer, said.person == person),
                Said::Withdrawn(said, _) => by_this(said.issuer, organisation),
            };
            if own {
                self.file_said(said);
            }
        }
        self.late.untold = true;
        self.keep_told(RevocationsTold { incarnation: ByteArray::from(incarnation), upto: 0 });
    }

    /// What this device holds of people, oldest first: an author's word comes before what ended them.
    fn said_before(&self) -> Vec<Said> {
        let revoked = self.revoked.values().map(|row| Said::Revoked(row.said.clone(), row.statement.clone()));
        let withdrawn = self.withdrawn.iter().filter(|(person, _)| self.is_withdrawn(**person));
        let withdrawn = withdrawn.map(|(_, row)| Said::Withdrawn(row.said.clone(), row.statement.clone()));
        let mut all: Vec<Said> = revoked.chain(withdrawn).collect();
        all.sort_by_key(Said::at);
        all
    }

    fn file_said(&mut self, said: Said) {
        self.late.filed.insert(said.digest());
        match said {
            Said::Revoked(said, statement) => {
                let revocation = statement.clone();
                self.ask_later(Asked::Revoke(said, statement), Request::RevokeDevice { revocation });
            }
            Said::Withdrawn(said, statement) => {
                let revocation = statement.clone();
                self.ask_later(Asked::Withdraw(said, statement), Request::WithdrawEndorsement { revocation });
            }
        }
    }

    /// A restored relay has told everything that it has: what it has not told, and this device holds, is filed in its author's place, who may
    /// be away for long.
    fn file_what_was_not_told(&mut self) {
        if !std::mem::take(&mut self.late.untold) {
            return;
        }
        let told = std::mem::take(&mut self.late.told);
        let filed = std::mem::take(&mut self.late.filed);
        let missing = self.said_before().into_iter().filter(|said| {
            let digest = said.digest();
            !told.contains(&digest) && !filed.contains(&digest)
        });
        let missing: Vec<Said> = missing.take(limits::FILED_AGAIN).collect();
        for said in missing {
            let revocation = said.statement().clone();
            let request = match said {
                Said::Revoked(..) => Request::RevokeDevice { revocation },
                Said::Withdrawn(..) => Request::WithdrawEndorsement { revocation },
            };
            self.ask_later(Asked::FiledAgain, request);
        }
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
        if self.late.untold {
            let told = revocations.iter().chain(&withdrawn).map(Signed::digest);
            self.late.told.extend(told);
        }
        self.take_statements(revocations, withdrawn, &identities);
        let before = self.revocations_told();
        if upto > before
            && let Some(incarnation) = self.incarnation
        {
            self.keep_told(RevocationsTold { incarnation: ByteArray::from(incarnation), upto });
            if more {
                return self.ask_revocations();
            }
        }
        self.file_what_was_not_told();
    }

    /// Somebody has another key, as the relay shows: taken for what their chain says.
    fn was_replaced(&mut self, person: PersonId, identities: &[Identity]) {
        let chain = assemble(identities, person);
        let met = verify_chain(&chain, &self.profile.organisation).and_then(|said| match said.person == person {
            true => self.meet(&said, &chain, None),
            false => Err(PeerMisbehaved::Mismatch("a chain of endorsements").into()),
        });
        let own = self.profile.person;
        let by_this = |said: Endorsement| said.issuer.is_some_and(|issuer| issuer.person == own);
        if met.is_ok() && self.said_of(person).is_some_and(by_this) {
            // Whoever vouches for them does it again for the new key: without waiting for tomorrow.
            self.renew_again();
        }
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
                Err(_) if self.is_nobodys(&statement, identities) => {}
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

    /// Whether a revocation is of a device that its person's key of now does not certify: whoever meets somebody under a key that no
    /// statement leads to cannot verify what the one before has signed, and need not.
    fn is_nobodys(&self, statement: &Signed, identities: &[Identity]) -> bool {
        let Ok(said) = statement.unverified::<DeviceRevocation>("a revocation") else { return false };
        let shown = assemble(identities, said.person);
        let known = self.people.get(&said.person).and_then(|known| known.shown().next());
        let newest = known.or_else(|| shown.first());
        said.issuer.is_none() && newest.is_some_and(|newest| !newest.certifies(said.device))
    }

    /// The author of a statement, as the identities beside it say, if that is who this device knows, or was before their key was replaced.
    pub(super) fn author(
        &self,
        person: PersonId,
        device: Option<DeviceId>,
        identities: &[Identity],
    ) -> Result<Verified, Error> {
        let mut theirs = identities.iter().filter(|identity| identity.person == person);
        let of_then = device.and_then(|device| theirs.clone().find(|identity| identity.certifies(device)));
        let chain = of_then.or_else(|| theirs.next()).map(|first| assemble_from(identities, first));
        let verified = verify_chain(&chain.unwrap_or_default(), &self.profile.organisation)?;
        // A key that nobody has accepted here yet is good enough to shut somebody out.
        let key = verified.person_key.digest();
        let known = self.people.get(&person).filter(|known| !known.chain.is_empty());
        let other = known.is_some_and(|known| !known.shows(key) && !known.keys().any(|known| known.digest() == key));
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
