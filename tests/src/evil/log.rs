//! An evil relay's audit log: the one that its store has, and others that it shows some people.
//!
//! Invariant: every log it shows is in order in itself, and signed with the relay's key: only two of them together give it away.

use std::collections::BTreeMap;

use privity_protocol::cbor;
use privity_protocol::error::Refused;
use privity_protocol::frame::{ProvedLeaf, Reply, Request};
use privity_protocol::ids::PersonId;
use privity_protocol::limits;
use privity_protocol::log::{Act, Checkpoint, Event, Last, Leaf, Opening, TreeHash, tree};
use privity_server::clock::now;
use privity_server::policy::No;
use privity_server::relay::{self, From, admission, history};
use privity_server::store::{Read as _, StoreError};

use super::Who;
use super::inside::{Inside, is_of_the_log};

/// Another log than everybody's.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// How many of everybody's leaves it begins with.
    pub from: u64,
    /// What follows them here alone, about whom.
    pub instead: Vec<(Option<PersonId>, Opening)>,
    /// How many of everybody's are left out behind that; none where nothing more of them follows.
    pub without: Option<u64>,
}

impl Fork {
    /// Everybody's log up to there, and nothing more: as it was before.
    pub fn rolled_back(to: u64) -> Self {
        Self { from: to, ..Self::default() }
    }

    /// One more thing that happened here alone.
    #[must_use]
    pub fn and(mut self, person: Option<PersonId>, act: Act) -> Self {
        self.instead.push((person, Opening::new(&Event { at: now(), act })));
        self
    }

    /// Everybody's log goes on behind it, without the first so many of what is left.
    #[must_use]
    pub fn then_goes_on(mut self, without: u64) -> Self {
        self.without = Some(without);
        self
    }
}

impl Inside {
    /// How many leaves everybody's log has.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn log_size(&self) -> Result<u64, StoreError> {
        self.store.log_size()
    }

    /// What a question about the log is answered; none where it is none.
    pub(super) fn of_the_log(&self, from: &From, who: &Who, request: &Request) -> Result<Option<Reply>, No> {
        if !is_of_the_log(request) {
            return Ok(None);
        }
        let From::Device(caller) = from else { return Err(Refused::not_allowed("register first").into()) };
        admission::still(&self.store, *caller)?;
        let Some(fork) = self.forks.get(&who.handle) else {
            return match request {
                Request::Checkpoint => {
                    let (_, note) = self.signer.note(history::state(&self.store)?, now())?;
                    Ok(Some(Reply::Checkpoint { note, keys: self.signer.keys().clone() }))
                }
                _ => relay::answer(&self.store, from, request, now()).map(Some),
            };
        };
        let leaves = self.forked(fork)?;
        let hashes: Vec<TreeHash> = leaves.iter().map(|(leaf, _)| leaf.hash()).collect();
        let log = Shown { leaves, hashes };
        Ok(Some(match request {
            Request::Checkpoint => {
                let (origin, size) = (self.signer.origin().to_owned(), log.hashes.len() as u64);
                let root = tree::root(&log.hashes[..], size).map_err(StoreError::from)?;
                let checkpoint = Checkpoint { origin, size, root };
                let note = checkpoint.sign(&self.key, now()).map_err(|_| Refused::Storage)?;
                Reply::Checkpoint { note, keys: self.signer.keys().clone() }
            }
            Request::Consistency { from, to } => log.consistency(*from, *to),
            Request::History { person, after, size } => log.history(caller.person, *person, *after, *size)?,
            _ => return Ok(None),
        }))
    }

    fn forked(&self, fork: &Fork) -> Result<Vec<(Leaf, Opening)>, StoreError> {
        let size = self.store.log_size()?;
        let mut acts: Vec<(Option<PersonId>, Opening)> = Vec::new();
        let everybody = |from: u64, until: u64| -> Result<Vec<(Option<PersonId>, Opening)>, StoreError> {
            let rows = self.store.log_rows(from.min(until), until)?;
            let act = |row: privity_server::store::LogRow| Ok((Leaf::decode(&row.leaf)?.person, row.opening));
            rows.into_iter().map(act).collect()
        };
        acts.extend(everybody(0, fork.from.min(size))?);
        acts.extend(fork.instead.iter().cloned());
        if let Some(without) = fork.without {
            acts.extend(everybody(fork.from.saturating_add(without), size)?);
        }
        let mut last: BTreeMap<Option<PersonId>, Last> = BTreeMap::new();
        let leaf = |(person, opening): (Option<PersonId>, Opening)| {
            let leaf = Leaf::after(last.get(&person), person, &opening);
            last.insert(person, leaf.last());
            (leaf, opening)
        };
        Ok(acts.into_iter().map(leaf).collect())
    }
}

/// A log as somebody is shown it.
struct Shown {
    leaves: Vec<(Leaf, Opening)>,
    hashes: Vec<TreeHash>,
}

impl Shown {
    fn consistency(&self, from: u64, to: u64) -> Reply {
        match tree::consistency(&self.hashes[..], from, to) {
            Ok(proof) if to <= self.hashes.len() as u64 => Reply::Consistency { proof },
            _ => Reply::Refused(Refused::malformed("the log has no such sizes")),
        }
    }

    fn history(&self, caller: PersonId, person: PersonId, after: u64, size: u64) -> Result<Reply, No> {
        let of = self.leaves.iter().zip(0..size);
        let of = of.filter(|((leaf, _), _)| leaf.person == Some(person) && leaf.number > after);
        let mut leaves = Vec::new();
        for ((leaf, opening), index) in of.take(limits::HISTORY_MAX + 1) {
            let proof = tree::inclusion(&self.hashes[..], index, size).map_err(StoreError::from)?;
            let event: Event = cbor::decode(&opening.event, "event").map_err(StoreError::from)?;
            let shown = caller == person || event.act.is_identity();
            leaves.push(ProvedLeaf { index, leaf: leaf.encode(), proof, opening: shown.then(|| opening.clone()) });
        }
        let more = leaves.len() > limits::HISTORY_MAX;
        leaves.truncate(limits::HISTORY_MAX);
        Ok(Reply::History { leaves, more })
    }
}
