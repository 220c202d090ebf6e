//! What the audit log says of people: read on from where it was read last, and held against what this device was told of them.
//!
//! 1. Whoever is to be added, and those above them, are looked up to the newest head: their key, certificates and endorsement must be there,
//!    and each endorsement must stand before whatever ended its author.
//! 2. On each link, and when a newer head is seen, so are those who share a matter with this device, the least recently read ones first.
//! 3. A revocation, a withdrawal or a new key that no statement explains is asked for. If the relay has none, it keeps something back: that is
//!    told and kept as its fault, and texts in matters with that person wait for the user's word.
//!
//! Invariant: what ended somebody in the log is either explained by a verified statement, or told to the user.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use crate::cbor;
use crate::device::state::{Doubt, Logged, Stage, Table};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{ProvedLeaf, Reply, Request};
use crate::identity::{Endorsement, Identity, Signed, verify_line};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::limits;
use crate::log::Act;
use crate::suite::Digest;

/// What is to be found of one identity.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) identity: Digest,
    wanted: BTreeSet<Digest>,
}

impl Proof {
    pub(super) fn of(identity: &Identity) -> Self {
        let mut wanted: BTreeSet<Digest> = identity.certificates.iter().map(Signed::digest).collect();
        wanted.insert(identity.person_key.digest());
        wanted.insert(identity.endorsement.digest());
        Self { identity: digest_of(identity), wanted }
    }

    fn holds(&self, history: &Logged) -> bool {
        let named: BTreeSet<Digest> = history.acts.iter().filter_map(|(_, act)| names(act)).collect();
        self.wanted.is_subset(&named)
    }
}

/// The key, certificate or endorsement that an act names as somebody's.
fn names(act: &Act) -> Option<Digest> {
    match act {
        Act::Registered { person_key, .. }
        | Act::Recovered { person_key, .. }
        | Act::Replaced { person_key, .. }
        | Act::KeyRotated { key: person_key, .. } => Some(*person_key),
        Act::DeviceAdded { certificate, .. } => Some(*certificate),
        Act::Endorsed { endorsement, .. } | Act::Adopted { endorsement, .. } => Some(*endorsement),
        _ => None,
    }
}

/// The key that an act gives somebody in place of the one before.
fn key_of(act: &Act) -> Option<Digest> {
    match act {
        Act::Recovered { person_key, .. }
        | Act::Replaced { person_key, .. }
        | Act::KeyRotated { key: person_key, .. } => Some(*person_key),
        _ => None,
    }
}

pub(super) fn digest_of(identity: &Identity) -> Digest {
    Digest::of(&[&cbor::encode(identity)])
}

impl Device {
    /// What the newest head is of.
    pub(super) fn log_size(&self) -> Option<u64> {
        self.watch.view.as_ref().map(|view| view.head.size)
    }

    /// What was read of somebody's history in this incarnation.
    pub(super) fn logged(&self, person: PersonId) -> Option<&Logged> {
        let here = self.incarnation?;
        self.histories.get(&person).filter(|history| *history.incarnation == here)
    }

    /// A head was taken: whoever is waited for is read up to it, and whoever shares a matter, if it is time.
    pub(super) fn read_histories(&mut self, news: bool) {
        let mut people: Vec<PersonId> = self.watch.proofs.keys().copied().collect();
        self.doubt_what_the_ended_said();
        people.extend(self.people_of_late_statements());
        for person in people {
            self.read_history(person);
        }
        if news {
            self.begin_round();
        }
    }

    /// Everybody who shares a matter with this device, the least recently read first.
    fn begin_round(&mut self) {
        if !self.watch.may_begin_round(self.now) {
            return;
        }
        let own = self.profile.person;
        let rooms = self.rooms.values().filter(|room| !matches!(room.row.stage, Stage::Removed | Stage::Forked));
        let people: BTreeSet<PersonId> =
            rooms.flat_map(|room| room.row.people.iter().copied()).filter(|person| *person != own).collect();
        let mut people: Vec<PersonId> = people.into_iter().collect();
        people.sort_by_key(|person| self.logged(*person).map_or(0, |history| history.size));
        people.truncate(limits::HISTORIES_A_ROUND);
        self.watch.round = people;
        self.go_on_with_round();
    }

    fn go_on_with_round(&mut self) {
        let under_way = |asked: &Asked| matches!(asked, Asked::History(..));
        let asked = self.link.as_ref().map_or(0, |link| link.asked.values().filter(|asked| under_way(asked)).count());
        let waiting = self.later.iter().filter(|(asked, _)| under_way(asked)).count();
        let room = limits::HISTORIES_AT_ONCE.saturating_sub(asked.saturating_add(waiting));
        for _ in 0..room {
            if self.watch.round.is_empty() {
                return;
            }
            let person = self.watch.round.remove(0);
            self.read_history(person);
        }
    }

    /// Reads what the log says of somebody up to the newest head, if that was not done.
    fn read_history(&mut self, person: PersonId) {
        let Some(size) = self.log_size() else { return };
        let of = |asked: &Asked| matches!(asked, Asked::History(other, _) if *other == person);
        let under_way = self.link.as_ref().is_some_and(|link| link.asked.values().any(of));
        if under_way || self.later.iter().any(|(asked, _)| of(asked)) {
            return;
        }
        let history = self.logged(person);
        if history.is_some_and(|history| history.size == size) {
            return self.history_read(person);
        }
        let after = history.and_then(Logged::last).map_or(0, |last| last.number);
        self.ask_later(Asked::History(person, size), Request::History { person, after, size });
    }

    pub(super) fn history_came(&mut self, person: PersonId, size: u64, reply: Reply) {
        let Reply::History { leaves, more } = reply else {
            self.not_shown(person);
            return self.go_on_with_round();
        };
        if self.log_size() != Some(size) {
            // The head has moved on meanwhile.
            return self.read_history(person);
        }
        let Ok(acts) = self.read_leaves(person, size, &leaves) else {
            self.unproved(person, "what the relay says of somebody is not in its audit log as it says");
            return self.go_on_with_round();
        };
        self.note_doubts(person, &acts);
        if more && !leaves.is_empty() {
            self.read_history(person);
        } else {
            let incarnation = self.incarnation.unwrap_or_default();
            self.histories.entry(person).or_insert_with(|| Logged::of(incarnation)).size = size;
            self.save_history(person);
            self.history_read(person);
        }
        self.go_on_with_round();
    }

    /// Takes leaves that follow those read before.
    fn read_leaves(&mut self, person: PersonId, size: u64, leaves: &[ProvedLeaf]) -> Result<Vec<Act>, Error> {
        let incarnation = self.incarnation.unwrap_or_default();
        let mut history = self.logged(person).cloned().unwrap_or_else(|| Logged::of(incarnation));
        let mut last = history.last();
        let acts = self.proved_leaves(person, size, &mut last, leaves)?;
        let acts: Vec<(u64, Act)> = leaves
            .iter()
            .zip(acts)
            .filter_map(|(leaf, act)| Some((leaf.index, act.filter(Act::is_identity)?)))
            .collect();
        history.read = last.map(|last| (last.number, last.hash));
        history.acts.extend(acts.iter().cloned());
        let surplus = history.acts.len().saturating_sub(limits::HISTORY_ACTS);
        history.acts.drain(..surplus);
        self.histories.insert(person, history);
        self.save_history(person);
        Ok(acts.into_iter().map(|(_, act)| act).collect())
    }

    fn save_history(&mut self, person: PersonId) {
        if let Some(history) = self.histories.get(&person) {
            self.batch.put(Table::Logged, None, person.as_bytes(), history);
        }
    }

    /// Somebody's history is read to its end: whoever waits for it goes on.
    fn history_read(&mut self, person: PersonId) {
        self.watch.refused.remove(&person);
        self.judge_late_statements();
        self.ask_for_what_is_in_doubt(person);
        let Some(proof) = self.watch.proofs.remove(&person) else { return };
        if self.logged(person).is_some_and(|history| proof.holds(history)) {
            self.watch.proved.insert(proof.identity);
        } else {
            self.watch.unproved.insert(proof.identity);
            self.unproved(person, "somebody's keys are not in the relay's audit log");
        }
    }

    /// The relay does not show somebody's history. Whoever has just left may not be seen any more; twice it is no accident.
    fn not_shown(&mut self, person: PersonId) {
        let proof = self.watch.proofs.get(&person).map(|proof| proof.identity);
        let again = !self.watch.refused.insert(person);
        if let Some(identity) = proof {
            self.watch.unproved.insert(identity);
        }
        if proof.is_some() || (again && self.shares(person)) {
            self.unproved(person, "the relay does not show what its audit log says of somebody");
        }
    }

    fn shares(&self, person: PersonId) -> bool {
        let open = self.rooms.values().filter(|room| room.row.stage == Stage::Open);
        open.into_iter().any(|room| room.row.people.contains(&person))
    }

    fn unproved(&mut self, person: PersonId, what: &str) {
        if let Some(proof) = self.watch.proofs.remove(&person) {
            self.watch.unproved.insert(proof.identity);
        }
        self.log_fault(what, None, None);
        self.cannot_be_added(person, &PeerMisbehaved::Unlogged.into());
    }

    /// Nobody is added in whose chain somebody is of whom this was found.
    fn cannot_be_added(&mut self, person: PersonId, why: &Error) {
        let concerned: Vec<PersonId> = self
            .materials
            .iter()
            .filter(|(_, material)| material.chain.iter().flatten().any(|identity| identity.person == person))
            .map(|(wanted, _)| *wanted)
            .collect();
        for wanted in concerned {
            self.material_failed(wanted, why.clone());
        }
    }

    /// Whether each endorsement of a proved chain stands in the log before whatever ended its author; reads on, where that is not known. None
    /// where one does not.
    pub(super) fn is_in_order(&mut self, chain: &[Identity]) -> Option<bool> {
        let mut known = true;
        for (below, above) in chain.iter().zip(chain.iter().skip(1)) {
            let said: Option<Endorsement> = below.endorsement.unverified("endorsement").ok();
            let Some(issuer) = said.and_then(|said| said.issuer) else { break };
            let digest = below.endorsement.digest();
            let given = |history: &Logged| {
                let is = |act: &Act| matches!(act, Act::Endorsed { endorsement, .. } | Act::Adopted { endorsement, .. } if *endorsement == digest);
                history.acts.iter().find(|(_, act)| is(act)).map(|(place, _)| *place)
            };
            let place = self.logged(below.person).and_then(given);
            let unread = match (place, self.logged(above.person)) {
                (None, _) => below,
                (Some(place), Some(history)) if history.size > place => {
                    if stood(history, place, issuer.device) {
                        continue;
                    }
                    return None;
                }
                _ => above,
            };
            known = false;
            if let Entry::Vacant(place) = self.watch.proofs.entry(unread.person) {
                place.insert(Proof::of(unread));
                self.ask_checkpoint();
            }
        }
        Some(known)
    }

    /// Somebody was endorsed by whoever might not any more.
    pub(super) fn endorsed_too_late(&mut self, chain: &[Identity]) {
        if let Some(first) = chain.first() {
            self.watch.unproved.insert(digest_of(first));
            self.cannot_be_added(first.person, &PeerMisbehaved::EndorsedLate.into());
        }
    }

    /// Notes what ends something of somebody's and no statement explains.
    fn note_doubts(&mut self, person: PersonId, acts: &[Act]) {
        if person == self.profile.person {
            return;
        }
        let news: Vec<Act> = acts.iter().filter(|act| ends(act) && !self.is_explained(person, act)).cloned().collect();
        if news.is_empty() {
            return;
        }
        if let Some(history) = self.histories.get_mut(&person) {
            history.doubts.extend(news.into_iter().map(|act| Doubt { act, told: false }));
            let surplus = history.doubts.len().saturating_sub(limits::LOG_FAULTS_MAX);
            history.doubts.drain(..surplus);
        }
        self.save_history(person);
    }

    /// Whether what this device was told of somebody explains what the log says.
    fn is_explained(&self, person: PersonId, act: &Act) -> bool {
        if self.is_said_late(person, act) {
            return true;
        }
        let is_theirs = |key| self.people.get(&person).is_some_and(|known| known.has_had(key));
        match act {
            Act::DeviceRevoked { .. } | Act::Recovered { .. } | Act::Replaced { .. } if self.is_past(person, act) => {
                true
            }
            Act::DeviceRevoked { device, certificate, .. } => {
                self.is_revoked(*device) || self.is_left_out(person, act, *certificate)
            }
            Act::EndorsementRevoked { endorsement, .. } => {
                self.withdrawn.get(&person).is_some_and(|row| row.takes_back(*endorsement))
            }
            Act::Recovered { person_key, .. }
            | Act::Replaced { person_key, .. }
            | Act::KeyRotated { key: person_key, .. } => is_theirs(*person_key),
            _ => true,
        }
    }

    /// Whether a key of somebody's that came later, in the log, has left that certificate out: their own word that the device is gone.
    fn is_left_out(&self, person: PersonId, act: &Act, certificate: Digest) -> bool {
        let Some((history, known)) = self.logged(person).zip(self.people.get(&person)) else { return false };
        let Some(place) = history.acts.iter().rposition(|(_, other)| other == act) else { return false };
        let steps = known.shown().filter_map(|identity| verify_line(identity).ok()).flatten();
        let mut leave_out = steps.filter(|step| !step.said.stays.contains(&certificate));
        leave_out.any(|step| {
            let later = history.acts.iter().skip(place.saturating_add(1));
            later.into_iter().any(|(_, later)| key_of(later) == Some(step.said.to))
        })
    }

    /// Whether somebody has begun anew since, in the log, with a key that this device knows: whoever was enrolled anew, and whoever has
    /// replaced more keys than are shown, brings no statements from before.
    fn is_past(&self, person: PersonId, act: &Act) -> bool {
        let Some((history, known)) = self.logged(person).zip(self.people.get(&person)) else { return false };
        let Some(place) = history.acts.iter().rposition(|(_, other)| other == act) else { return false };
        let first = known.oldest_shown();
        let begins = |act: &Act| match act {
            Act::Replaced { person_key, .. } => known.has_had(*person_key),
            Act::Recovered { person_key, .. } | Act::KeyRotated { key: person_key, .. } => first == Some(*person_key),
            _ => false,
        };
        history.acts.iter().skip(place.saturating_add(1)).any(|(_, later)| begins(later))
    }

    /// What the log says of somebody, the relay was asked for, and nothing explains.
    pub(super) fn unexplained(&self, person: PersonId) -> Vec<&Act> {
        let doubts = self.logged(person).map(|history| history.doubts.as_slice()).unwrap_or_default();
        doubts
            .iter()
            .filter(|doubt| doubt.told && !self.is_explained(person, &doubt.act))
            .map(|doubt| &doubt.act)
            .collect()
    }

    /// Asks for the statements about somebody of whom the log says more than this device was told; once on each link.
    fn ask_for_what_is_in_doubt(&mut self, person: PersonId) {
        let Some(history) = self.logged(person) else { return };
        if history.doubts.is_empty() {
            return;
        }
        if history.doubts.iter().all(|doubt| self.is_explained(person, &doubt.act)) {
            if let Some(history) = self.histories.get_mut(&person) {
                history.doubts.clear();
            }
            self.save_history(person);
            self.look_for_lapses();
        } else if self.watch.statements_asked.insert(person) {
            self.ask_later(Asked::Chain(person), Request::Chain { person });
            self.ask_statements(person, 0);
        }
    }

    pub(super) fn ask_statements(&mut self, person: PersonId, after: u64) {
        self.ask_later(Asked::Statements(person, after), Request::StatementsAbout { person, after });
    }

    pub(super) fn statements_came(&mut self, person: PersonId, before: u64, reply: Reply) {
        if let Reply::Revocations { revocations, identities, upto, more, withdrawn, .. } = reply {
            self.take_statements(revocations, withdrawn, &identities);
            if more && upto > before {
                return self.ask_statements(person, upto);
            }
        }
        if person == self.profile.person {
            return self.read_own_history();
        }
        let left: Vec<Act> = match self.logged(person) {
            Some(history) => history.doubts.iter().map(|doubt| doubt.act.clone()).collect(),
            None => return,
        };
        let left: Vec<Act> = left.into_iter().filter(|act| !self.is_explained(person, act)).collect();
        let handle = self.people.get(&person).map(|known| known.handle.clone()).unwrap_or_default();
        for act in &left {
            self.log_fault(
                &format!("the relay keeps back {} of {handle}, which its audit log has", kept_back(act)),
                None,
                None,
            );
        }
        if let Some(history) = self.histories.get_mut(&person) {
            history.doubts = left.into_iter().map(|act| Doubt { act, told: true }).collect();
        }
        self.save_history(person);
        self.look_for_lapses();
    }

    /// What is told of an act about this person that another device of theirs, or a registrar, has done; true where it was.
    pub(super) fn is_told_as_done(&mut self, act: &Act) -> bool {
        let person = self.profile.person;
        let issuer = match act {
            Act::DeviceRevoked { device, .. } => self.revoked.get(device).map(|row| row.said.issuer),
            Act::EndorsementRevoked { endorsement, .. } => {
                let row = self.withdrawn.get(&person).filter(|row| row.takes_back(*endorsement));
                row.map(|row| row.said.issuer)
            }
            _ => None,
        };
        let Some(issuer) = issuer else { return false };
        let here = match issuer {
            Some(issuer) => issuer.device == self.profile.device,
            None => self.profile.person_key.is_some(),
        };
        if !here {
            let by = issuer.map(|issuer| issuer.person).filter(|by| *by != person);
            let label = by.map(|by| self.label_of(by));
            self.deliver(Notice::DoneForYou { act: act.clone(), by, label });
        }
        true
    }
}

/// Whether an act ends something that others may go on to rely on.
pub(super) fn ends(act: &Act) -> bool {
    matches!(
        act,
        Act::DeviceRevoked { .. } | Act::EndorsementRevoked { .. } | Act::Recovered { .. } | Act::Replaced { .. }
    )
}

fn kept_back(act: &Act) -> &'static str {
    match act {
        Act::DeviceRevoked { .. } => "the revocation of a device",
        Act::EndorsementRevoked { .. } => "the withdrawal of the endorsement",
        _ => "the new key",
    }
}

/// Whether somebody might endorse with a device at a place in the log: neither had it been revoked, nor had they been withdrawn and not
/// endorsed again.
pub(super) fn stood(history: &Logged, place: u64, device: DeviceId) -> bool {
    let mut stands = true;
    for (_, act) in history.acts.iter().take_while(|(at, _)| *at < place) {
        match act {
            Act::DeviceRevoked { device: gone, .. } if *gone == device => return false,
            Act::EndorsementRevoked { .. } => stands = false,
            Act::Endorsed { .. } | Act::Adopted { .. } => stands = true,
            _ => {}
        }
    }
    stands
}

/// Whether somebody had added a device before a place in the log, and before they had the key of now, as far back as it is kept.
pub(super) fn was_added(history: &Logged, place: u64, device: DeviceId) -> bool {
    let newest = history.acts.iter().rev().find(|(_, act)| key_of(act).is_some()).map_or(place, |(at, _)| *at);
    let before = history.acts.iter().take_while(|(at, _)| *at < place.min(newest));
    let added = |act: &Act| matches!(act, Act::DeviceAdded { device: new, .. } if *new == device);
    history.acts.len() >= limits::HISTORY_ACTS || before.into_iter().any(|(_, act)| added(act))
}

/// How often histories of everybody may be read: a few times at once, then now and then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    left: u32,
    since: Timestamp,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { left: limits::HISTORY_ROUNDS, since: Timestamp(0) }
    }
}

impl Rounds {
    pub(super) fn may_begin(&mut self, now: Timestamp) -> bool {
        if self.since.plus_ms(limits::HISTORY_ROUND_MS) <= now {
            *self = Self { left: limits::HISTORY_ROUNDS, since: now };
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}
