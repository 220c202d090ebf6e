//! A matter in memory, with what belongs to it: its row, its group once it is loaded, and everything that waits.
//!
//! Invariant: what is in memory alone can be found out again; what can't is in a row.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::heal;
use super::state::{Intent, MatterRow, OutItem, OwnCommit, Recent, Snapshot, Stage, Table, load};
use crate::error::{Error, Misuse};
use crate::ids::{MatterId, Timestamp};
use crate::limits;
use crate::matter::Matter;
use crate::suite::Digest;

/// A matter with what belongs to it.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) row: MatterRow,
    pub(super) state: Zeroizing<Vec<u8>>,
    pub(super) group: Option<Matter>,
    pub(super) outbox: BTreeMap<u64, OutItem>,
    pub(super) intents: BTreeMap<u64, Intent>,
    pub(super) commits: BTreeMap<Digest, OwnCommit>,
    pub(super) recent: BTreeMap<u64, Recent>,
    /// Nothing is posted before: the relay said "slow", or could not store.
    pub(super) not_before: Timestamp,
    /// Nothing is posted before this seq is read: an own Commit, or a fence the relay named, stands there.
    pub(super) read_first: u64,
    /// When the last fence was read, or the link came up.
    pub(super) fence_at: Timestamp,
    /// When the last fence was read, on any link.
    pub(super) fence_read: Timestamp,
    /// Keys that are owed are renewed now.
    pub(super) heal_now: bool,
    /// Whether this matter's devices are to be held against those that their people have.
    pub(super) tidy: bool,
    /// When it is this device's turn to do what follows from that.
    pub(super) tidy_at: Option<Timestamp>,
    /// When it is this device's turn to renew keys that are owed.
    pub(super) heal_from: Option<Timestamp>,
}

impl Room {
    pub(super) fn open(vault: &dyn Snapshot, id: MatterId, row: MatterRow) -> Result<Self, Error> {
        let state = vault.rows(Table::Group, Some(id))?.into_iter().next().map(|(_, state)| state).unwrap_or_default();
        let recent: Vec<(Vec<u8>, Recent)> = load(vault, Table::Recent, Some(id), "recent entry")?;
        Ok(Self {
            row,
            state,
            group: None,
            outbox: numbered(load(vault, Table::Outbox, Some(id), "outbox")?)?,
            intents: numbered(load(vault, Table::Intent, Some(id), "intent")?)?,
            commits: keyed(load(vault, Table::Commit, Some(id), "commit")?, Digest::from_slice)?,
            recent: recent.into_iter().map(|(_, recent)| (recent.position.seq, recent)).collect(),
            not_before: Timestamp(0),
            read_first: 0,
            fence_at: Timestamp(0),
            fence_read: Timestamp(0),
            heal_now: false,
            tidy: false,
            tidy_at: None,
            heal_from: None,
        })
    }

    /// Whether this device reads the mailbox: also where it can't apply what it reads, and for a while behind its own removal.
    pub(super) fn reads(&self, now: Timestamp) -> bool {
        match self.row.stage {
            _ if self.row.gone => false,
            Stage::Opening | Stage::Forked => false,
            Stage::Removed => self.row.removal.is_some_and(|removal| now <= removal.at.plus_ms(limits::REMOVAL_MS)),
            _ => true,
        }
    }

    /// When something of this matter comes due.
    pub(super) fn wakes(&self) -> Vec<Timestamp> {
        let mut wakes = vec![self.not_before];
        wakes.extend(self.row.lost.as_ref().filter(|_| !self.row.forgotten).map(|lost| lost.ask_at));
        wakes.extend(self.row.continue_at);
        if self.heal_now {
            wakes.push(self.fence_read.plus_ms(heal::FENCE_GAP_MS));
        }
        if self.row.stage == Stage::Open {
            wakes.extend(self.row.requests.iter().map(|held| held.answer_at));
        }
        wakes.extend(self.keys_due());
        wakes.extend(self.heal_from);
        wakes.extend(self.tidy_at);
        wakes.retain(|at| *at != Timestamp(u64::MAX));
        wakes
    }

    /// Whether there is something that this device would post if it could.
    pub(super) fn wants_to_post(&self) -> bool {
        !matches!(self.row.stage, Stage::Removed | Stage::Forked)
            && (!self.intents.is_empty()
                || self.outbox.values().any(|item| item.digest.is_none() && item.failed.is_none()))
    }
}

pub(super) fn numbered<T>(rows: Vec<(Vec<u8>, T)>) -> Result<BTreeMap<u64, T>, Misuse> {
    keyed(rows, |key| {
        let bytes: [u8; 8] = key.try_into().map_err(|_| crate::error::Malformed::Length("number"))?;
        Ok(u64::from_be_bytes(bytes))
    })
}

pub(super) fn keyed<K: Ord, T>(
    rows: Vec<(Vec<u8>, T)>,
    key: impl Fn(&[u8]) -> Result<K, crate::error::Malformed>,
) -> Result<BTreeMap<K, T>, Misuse> {
    rows.into_iter().map(|(bytes, row)| Ok((key(&bytes).map_err(|_| Misuse::State("row"))?, row))).collect()
}
