//! Transparency: what the relay says of people and devices, held against its audit log, and the log against what it was before.
//!
//! 1. On each link the relay's newest checkpoint is fetched; it must continue the newest one that this device knows.
//! 2. What the log says of this person is read on from where it was read last: what this device does not know of is told.
//! 3. Nobody is added whose key, certificates and endorsement, and those above them, are not in the log (`logged.rs`).
//! 4. Every text carries the head of the log that its author knows; the reader's log must be the same one, grown or yet to grow.
//!
//! Invariant: this device never takes a head that does not continue the one it knows, and what contradicts it is kept as proof.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::content::Content;
use crate::device::logged::{Proof, Rounds, digest_of, ends};
use crate::device::state::{Counters, Table};
use crate::device::{Asked, Device, Notice};
use crate::envelope;
use crate::error::{Error, PeerMisbehaved};
use crate::frame::{ProvedLeaf, Reply, Request};
use crate::identity::Identity;
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::log::{Act, Last, Leaf, LogHead, LogKeys, TreeHash, note, tree};
use crate::suite::{Digest, PublicKey};

/// What this device knows of the relay's audit log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LogView {
    /// The newest head that this device has verified.
    #[n(0)]
    pub head: LogHead,
    /// The signed note that says so.
    #[n(1)]
    pub note: String,
    /// The keys that verify it.
    #[n(2)]
    pub keys: LogKeys,
    /// The last leaf about this person that was read, by its number and hash.
    #[n(3)]
    pub read: Option<(u64, TreeHash)>,
    /// What contradicts it: the first few.
    #[n(4)]
    pub faults: Vec<LogFault>,
    /// Whether what was read reaches to this device's own person key.
    #[n(40)]
    #[cbor(default)]
    pub begun: bool,
    /// The relay's key, which signed those keys; none where that is the one that the profile pins.
    #[n(60)]
    pub relay: Option<PublicKey>,
}

/// A contradiction in what the relay says of its log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LogFault {
    /// When it was found, by this device's clock.
    #[n(0)]
    pub at: Timestamp,
    /// What, a lowercase fact.
    #[n(1)]
    pub what: String,
    /// The note that this device had verified.
    #[n(2)]
    pub known: String,
    /// The note that the relay showed against it, if it was one.
    #[n(3)]
    pub shown: Option<String>,
    /// The head that a member says to know, and who says so.
    #[n(4)]
    pub told: Option<(PersonId, LogHead)>,
    /// The keys that verify the notes; of an older version's fault, those of the view.
    #[n(80)]
    pub keys: Option<LogKeys>,
    /// The relay's key, which signed those.
    #[n(81)]
    pub relay: Option<PublicKey>,
}

/// The log, as this device goes about it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) view: Option<LogView>,
    /// A checkpoint whose proof has not come.
    next: Option<LogView>,
    /// Heads that members say to know, which are not yet held against this device's.
    told: Vec<(PersonId, LogHead)>,
    /// Heads that were, and were found to be of one log.
    agreed: Vec<LogHead>,
    /// People whose leaves are being read.
    pub(super) proofs: BTreeMap<PersonId, Proof>,
    /// Identities that are in the log, by the hash of their encoding.
    pub(super) proved: BTreeSet<Digest>,
    /// Identities that were not found in it when they were looked for last.
    pub(super) unproved: BTreeSet<Digest>,
    /// Who is to be read in this round.
    pub(super) round: Vec<PersonId>,
    rounds: Rounds,
    /// No head was taken on this link yet.
    begins: bool,
    /// Whose history the relay did not show when it was asked last.
    pub(super) refused: BTreeSet<PersonId>,
    /// About whom statements were asked for on this link, because the log says more than was told.
    pub(super) statements_asked: BTreeSet<PersonId>,
}

impl Watch {
    pub(super) fn of(view: Option<LogView>) -> Self {
        Self { view, ..Self::default() }
    }
}

impl Watch {
    /// Whether it is time to read what the log says of everybody.
    pub(super) fn may_begin_round(&mut self, now: Timestamp) -> bool {
        self.rounds.may_begin(now)
    }
}

impl Device {
    /// What this device knows of the relay's audit log; none before the first checkpoint.
    pub fn log(&self) -> Option<&LogView> {
        self.watch.view.as_ref()
    }

    pub(super) fn ask_checkpoint(&mut self) {
        let asked = |link: &super::Link| link.asked.values().any(|asked| *asked == Asked::Checkpoint);
        let waits = self.later.iter().any(|(asked, _)| *asked == Asked::Checkpoint);
        if self.link.as_ref().is_some_and(|link| !asked(link)) && !waits {
            self.ask_later(Asked::Checkpoint, Request::Checkpoint);
        }
    }

    /// On a new link nothing that was asked before is under way.
    pub(super) fn watch_anew(&mut self) {
        self.watch.next = None;
        self.watch.proofs.clear();
        self.watch.unproved.clear();
        self.watch.round.clear();
        self.watch.statements_asked.clear();
        (self.watch.rounds, self.watch.begins) = (Rounds::default(), true);
        self.ask_checkpoint();
    }

    pub(super) fn checkpoint_came(&mut self, reply: Reply) {
        let Reply::Checkpoint { note, keys } = reply else {
            self.log_fault("the relay shows no checkpoint of its audit log", None, None);
            return;
        };
        match self.checkpoint(&note, keys) {
            Ok(next) => self.next_head(next),
            Err(error) => self.log_fault(&error.to_string(), Some(note), None),
        }
    }

    fn checkpoint(&self, note: &str, keys: LogKeys) -> Result<LogView, Error> {
        let verifier = keys.verifier(&self.profile.relay)?;
        let incarnation = self.incarnation.unwrap_or_default();
        if verifier.origin() != note::origin(&self.profile.relay.fingerprint(), &incarnation) {
            return Err(PeerMisbehaved::Mismatch("the name of the relay's audit log").into());
        }
        let (checkpoint, _) = verifier.open_exactly(note)?;
        let head = LogHead { incarnation: incarnation.into(), size: checkpoint.size, root: checkpoint.root };
        Ok(LogView { head, note: note.to_owned(), keys, read: None, faults: Vec::new(), begun: false, relay: None })
    }

    fn next_head(&mut self, next: LogView) {
        let Some(known) = self.watch.view.as_ref() else { return self.take_head(next) };
        let (from, to) = (known.head, next.head);
        if from.incarnation != to.incarnation {
            // A restored relay has another log; what it says of this person is read anew.
            return self.take_head(next);
        }
        if from.size == to.size && from.root == to.root {
            return self.take_head(next);
        }
        if to.size <= from.size {
            let what = if to.size < from.size { "has become shorter" } else { "has changed" };
            self.log_fault(&format!("the relay's audit log {what}"), Some(next.note), None);
            return;
        }
        self.watch.next = Some(next);
        self.ask_later(Asked::Grown { from, to, by: None }, Request::Consistency { from: from.size, to: to.size });
    }

    /// The log has only grown from one head to the other, or so the relay has to prove.
    pub(super) fn growth_came(&mut self, (from, to): (LogHead, LogHead), by: Option<PersonId>, reply: Reply) {
        let proved = match &reply {
            Reply::Consistency { proof } => {
                tree::verify_consistency((from.size, &from.root), (to.size, &to.root), proof).is_ok()
            }
            _ => false,
        };
        match (by, self.watch.next.take()) {
            (None, Some(next)) if next.head == to && proved => self.take_head(next),
            (None, next) => {
                let shown = next.map(|next| next.note);
                self.log_fault("the relay's audit log does not continue what it was", shown, None);
            }
            (Some(person), next) => {
                self.watch.next = next;
                let own = self.watch.view.as_ref().map(|view| view.head);
                let told = if Some(to) == own { from } else { to };
                if proved {
                    self.agree(told);
                } else {
                    self.log_fault(
                        "a member has seen another audit log of the relay than this device",
                        None,
                        Some((person, told)),
                    );
                }
            }
        }
    }

    fn agree(&mut self, head: LogHead) {
        if self.watch.agreed.len() >= limits::LOG_HEADS_MAX {
            self.watch.agreed.remove(0);
        }
        self.watch.agreed.push(head);
    }

    /// A head that continues the one before: what waited for it goes on.
    fn take_head(&mut self, next: LogView) {
        let before = self.watch.view.take();
        let same = before.as_ref().filter(|before| before.head.incarnation == next.head.incarnation);
        let (read, begun) = (same.and_then(|before| before.read), same.is_some_and(|before| before.begun));
        let faults = before.clone().map(|before| before.faults);
        let head = next.head;
        // The same head is news under another key of the relay's: what is kept is to verify under the pinned one.
        let news = before.is_none_or(|before| before.head != head || before.keys != next.keys);
        // What was withheld on the link before is asked for on each.
        let first = std::mem::take(&mut self.watch.begins);
        self.watch.view = Some(LogView { read, begun, faults: faults.unwrap_or_default(), ..next });
        if news {
            self.save_log();
        }
        for (person, told) in std::mem::take(&mut self.watch.told) {
            if told.size > head.size && told.incarnation == head.incarnation {
                self.log_fault(
                    "the relay shows a shorter audit log than a member has seen",
                    None,
                    Some((person, told)),
                );
            } else {
                self.log_told(person, told);
            }
        }
        self.read_histories(news || first);
        self.read_own_history();
    }

    /// The relay's key is another one from now on: what is kept so far was signed under the one before.
    pub(super) fn log_was_signed_by(&mut self, before: &PublicKey) {
        let Some(view) = self.watch.view.as_mut() else { return };
        view.relay.get_or_insert_with(|| before.clone());
        for fault in view.faults.iter_mut().filter(|fault| fault.relay.is_none()) {
            fault.relay = view.relay.clone();
            fault.keys.get_or_insert_with(|| view.keys.clone());
        }
        self.save_log();
    }

    fn save_log(&mut self) {
        if let Some(view) = &self.watch.view {
            self.batch.put(Table::Counter, None, Counters::LOG, view);
        }
    }

    /// A member says which head of the log they know.
    pub(super) fn log_told(&mut self, person: PersonId, told: LogHead) {
        let here = self.incarnation.unwrap_or_default();
        if told.incarnation[..] != here[..] || self.watch.agreed.contains(&told) {
            return;
        }
        let own = self.watch.view.as_ref().map(|view| view.head).filter(|own| own.incarnation == told.incarnation);
        match own {
            Some(own) if own == told => {}
            Some(own) if own.size == told.size => {
                self.log_fault(
                    "a member has seen another audit log of the relay than this device",
                    None,
                    Some((person, told)),
                );
            }
            Some(own) if told.size < own.size => {
                let asked = Asked::Grown { from: told, to: own, by: Some(person) };
                let under_way = |link: &super::Link| {
                    link.asked.values().filter(|asked| matches!(asked, Asked::Grown { .. })).count()
                };
                if self.link.as_ref().is_some_and(|link| under_way(link) < limits::LOG_HEADS_MAX)
                    && !self.later.iter().any(|(other, _)| *other == asked)
                {
                    self.ask_later(asked, Request::Consistency { from: told.size, to: own.size });
                }
            }
            _ => {
                if self.watch.told.len() < limits::LOG_HEADS_MAX {
                    self.watch.told.push((person, told));
                }
                self.ask_checkpoint();
            }
        }
    }

    /// Something contradicts what this device knows of the log: told once, and kept.
    pub(super) fn log_fault(&mut self, what: &str, shown: Option<String>, told: Option<(PersonId, LogHead)>) {
        let by = told.map(|(person, _)| person);
        let (at, pinned) = (self.now, &self.profile.relay);
        let fresh = match self.watch.view.as_mut() {
            Some(view) => {
                let same = |fault: &LogFault| fault.what == what && fault.told.map(|(person, _)| person) == by;
                let fresh = !view.faults.iter().any(same);
                if fresh && view.faults.len() < limits::LOG_FAULTS_MAX {
                    let known = view.note.clone();
                    let (what, keys) = (what.to_owned(), Some(view.keys.clone()));
                    let relay = Some(view.relay.as_ref().unwrap_or(pinned).clone());
                    view.faults.push(LogFault { at, what, known, shown, told, keys, relay });
                }
                fresh
            }
            None => true,
        };
        self.save_log();
        if fresh {
            self.deliver(Notice::Log { what: what.to_owned(), by });
        }
    }

    /// A content with the head of the log that this device knows, where that makes the envelope no larger.
    pub(super) fn with_log(&self, content: &[u8]) -> Vec<u8> {
        let head = self.watch.view.as_ref().filter(|view| view.faults.is_empty()).map(|view| view.head);
        let Ok(plain) = Content::decode(content) else { return content.to_vec() };
        let told = Content { log: head, ..plain }.encode();
        let size = |bytes: &[u8]| envelope::pad(bytes).map(|padded| padded.len()).ok();
        if size(&told).is_some() && size(&told) == size(content) { told } else { content.to_vec() }
    }

    /// Whether everybody in a chain is in the log; asks, where that is not known.
    pub(super) fn is_proved(&mut self, chain: &[Identity]) -> bool {
        let unproved: Vec<&Identity> =
            chain.iter().filter(|identity| !self.watch.proved.contains(&digest_of(identity))).collect();
        let mut asks = false;
        for identity in &unproved {
            let known =
                self.watch.proofs.get(&identity.person).is_some_and(|proof| proof.identity == digest_of(identity));
            if !known {
                self.watch.proofs.insert(identity.person, Proof::of(identity));
                asks = true;
            }
        }
        let done = unproved.is_empty();
        if asks {
            // What was done a moment ago is in the newest state alone.
            self.ask_checkpoint();
        }
        done && match self.is_in_order(chain) {
            Some(known) => known,
            None => {
                self.endorsed_too_late(chain);
                false
            }
        }
    }

    /// Whether somebody in a chain was looked for in the log in vain; said once for each time.
    pub(super) fn was_unproved(&mut self, chain: &[Identity]) -> bool {
        chain.iter().any(|identity| self.watch.unproved.remove(&digest_of(identity)))
    }

    pub(super) fn read_own_history(&mut self) {
        let Some(view) = &self.watch.view else { return };
        let (person, size, after) = (self.profile.person, view.head.size, view.read.map_or(0, |(number, _)| number));
        // The same leaves read twice would not follow themselves.
        let asked = Asked::OwnHistory { after, size };
        let under_way = self.link.as_ref().is_some_and(|link| link.asked.values().any(|other| *other == asked));
        if !under_way && !self.later.iter().any(|(other, _)| *other == asked) {
            self.ask_later(asked, Request::History { person, after, size });
        }
    }

    /// The acts of leaves that are in the log one after the other, as far as they are shown.
    pub(super) fn proved_leaves(
        &self,
        person: PersonId,
        size: u64,
        last: &mut Option<Last>,
        leaves: &[ProvedLeaf],
    ) -> Result<Vec<Option<Act>>, Error> {
        let wrong = || Error::from(PeerMisbehaved::Mismatch("a leaf of the audit log"));
        let view = self.watch.view.as_ref().filter(|view| view.head.size == size).ok_or_else(wrong)?;
        let mut acts = Vec::new();
        for proved in leaves {
            let leaf = Leaf::decode(&proved.leaf)?;
            if leaf.person != Some(person) || !leaf.follows(last.as_ref()) {
                return Err(wrong());
            }
            tree::verify_inclusion(&leaf.hash(), proved.index, size, &proved.proof, &view.head.root)?;
            *last = Some(leaf.last());
            let event = proved.opening.as_ref().map(|opening| leaf.open(opening)).transpose();
            // A newer relay may log what this version does not know.
            acts.push(match event {
                Ok(event) => event.map(|event| event.act),
                Err(Error::Malformed(_)) => None,
                Err(error) => return Err(error),
            });
        }
        Ok(acts)
    }

    pub(super) fn own_history_came(&mut self, after: u64, size: u64, reply: Reply) {
        // Before anybody has endorsed this person, the relay may have nothing to show.
        let Reply::History { leaves, more } = reply else { return };
        let Some(view) = self.watch.view.as_ref().filter(|view| view.head.size == size) else { return };
        let mut last = view.read.map(|(number, hash)| Last { number, hash });
        if last.map_or(0, |last| last.number) != after {
            // It was read on meanwhile, by the answer to another request.
            return;
        }
        let person = self.profile.person;
        let Ok(acts) = self.proved_leaves(person, size, &mut last, &leaves) else {
            return self.log_fault("the relay's audit log about you is not what it was", None, None);
        };
        let (begun, acts) = self.since_own_key(acts.into_iter().flatten().collect());
        let strange: Vec<Act> = acts.into_iter().filter(|act| !self.is_own_act(act)).collect();
        if strange.iter().any(ends) && self.watch.statements_asked.insert(person) {
            // What others have done is told as what it is: by their statements.
            return self.ask_statements(person, 0);
        }
        for act in strange {
            if !self.is_told_as_done(&act) {
                self.deliver(Notice::DoneInYourName(act));
            }
        }
        if leaves.is_empty() {
            return;
        }
        if let Some(view) = self.watch.view.as_mut() {
            (view.read, view.begun) = (last.map(|last| (last.number, last.hash)), begun);
        }
        self.save_log();
        if more {
            self.read_own_history();
        }
    }

    /// Of a person who was here before this device what was done until then is none of its business: those who were here have watched.
    /// Whether it has begun by the end of these acts, and those since.
    fn since_own_key(&self, acts: Vec<Act>) -> (bool, Vec<Act>) {
        let (begun, reads) = self.watch.view.as_ref().map_or((false, false), |view| (view.begun, view.read.is_some()));
        let (again, linked) = (self.profile.again, self.profile.person_key.is_none());
        if begun || !(again || linked) {
            return (begun, acts);
        }
        let own = self.profile.certificate.digest();
        let begins = |act: &Act| match act {
            Act::Recovered { person_key, .. } | Act::Replaced { person_key, .. } => {
                again && self.is_own_key(*person_key)
            }
            Act::DeviceAdded { certificate, .. } => *certificate == own,
            _ => false,
        };
        match acts.iter().position(begins) {
            Some(from) => (true, acts.into_iter().skip(from).collect()),
            // A vault from before this was kept has read on from its beginning.
            None if linked && !again && reads => (false, acts),
            None => (false, Vec::new()),
        }
    }

    /// Whether this device knows how it came that the log says so.
    fn is_own_act(&self, act: &Act) -> bool {
        match act {
            Act::Registered { person_key, .. } => self.own_key().is_err() || self.is_own_key(*person_key),
            Act::Recovered { person_key, .. }
            | Act::Replaced { person_key, .. }
            | Act::KeyRotated { key: person_key, .. } => self.is_own_key(*person_key),
            Act::DeviceAdded { certificate, .. } => {
                let known = self.people.get(&self.profile.person).and_then(|known| known.chain.first());
                *certificate == self.profile.certificate.digest()
                    || known.is_some_and(|own| own.certificates.iter().any(|known| known.digest() == *certificate))
            }
            Act::DeviceRevoked { .. } | Act::EndorsementRevoked { .. } => false,
            _ => true,
        }
    }
}
