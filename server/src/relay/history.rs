//! What the audit log says of a person, and that it has only grown.
//!
//! Invariant: nobody learns of a person whom they may not see, and what a person did, beside who they are, only that person.

use privity_protocol::error::Refused;
use privity_protocol::frame::{ProvedLeaf, Reply};
use privity_protocol::ids::PersonId;
use privity_protocol::limits;
use privity_protocol::log::{Event, tree};
use privity_protocol::{cbor, log};

use super::people;
use crate::policy::{Caller, No};
use crate::store::{LogRow, LogTiles, Read, StoreError};

/// The state of the log at this moment: its size and root.
///
/// # Errors
/// [`StoreError`] if the store failed.
pub fn state(store: &dyn Read) -> Result<(u64, log::TreeHash), StoreError> {
    let tiles = LogTiles::of(store)?;
    Ok((tiles.size(), tree::root(&tiles, tiles.size())?))
}

pub(super) fn consistency(store: &dyn Read, from: u64, to: u64) -> Result<Reply, No> {
    let tiles = LogTiles::of(store)?;
    if from > to || to > tiles.size() {
        return Err(Refused::malformed("the log has no such sizes").into());
    }
    Ok(Reply::Consistency { proof: tree::consistency(&tiles, from, to)? })
}

pub(super) fn history(store: &dyn Read, caller: Caller, person: PersonId, after: u64, size: u64) -> Result<Reply, No> {
    people::seen(store, caller, person)?;
    let tiles = LogTiles::of(store)?;
    if size > tiles.size() {
        return Err(Refused::malformed("the log has no such size").into());
    }
    let mut rows = store.log_of(person, after, size, limits::HISTORY_MAX + 1)?;
    let more = rows.len() > limits::HISTORY_MAX;
    rows.truncate(limits::HISTORY_MAX);
    let proved = |row: LogRow| {
        let proof = tree::inclusion(&tiles, row.index, size)?;
        let event: Event = cbor::decode(&row.opening.event, "event")?;
        let shown = caller.person == person || event.act.is_identity();
        Ok(ProvedLeaf { index: row.index, leaf: row.leaf, proof, opening: shown.then_some(row.opening) })
    };
    let leaves = rows.into_iter().map(proved).collect::<Result<_, StoreError>>()?;
    Ok(Reply::History { leaves, more })
}

#[cfg(test)]
mod tests;
