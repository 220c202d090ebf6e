//! What was shown already: a cursor over everything, and one for each matter that `chat` has shown on its own.
//!
//! `recv` moves the cursor over everything; `chat` shows one matter at a time and moves that matter's. A record was shown if it stands
//! at or before either.
//!
//! Invariant: a cursor is moved only after what stands before it was written out, and never back.

use privity_protocol::cbor;
use privity_protocol::device::state::{Batch, Counters, Record, RecordBody, Table};
use privity_protocol::ids::MatterId;

use crate::error::Error;
use crate::session::Session;

/// Records counted at most, for showing how many are new.
const COUNT_MAX: usize = 500;

/// The cursor of the last record that was shown: over everything, or in one matter.
///
/// # Errors
/// [`Error::Machine`] if the vault fails.
pub fn shown(session: &Session, matter: Option<MatterId>) -> Result<u64, Error> {
    let read = |place| -> Result<u64, Error> {
        let value = session.vault.get(Table::Counter, place, Counters::PRINTED)?;
        Ok(value.and_then(|value| cbor::decode(&value, "cursor").ok()).unwrap_or(0))
    };
    let all = read(None)?;
    match matter {
        Some(_) => Ok(all.max(read(matter)?)),
        None => Ok(all),
    }
}

/// Remembers that everything up to a cursor was shown: of all matters, or of one.
///
/// # Errors
/// [`Error::Machine`] if the vault fails.
pub fn mark(session: &mut Session, matter: Option<MatterId>, cursor: u64) -> Result<(), Error> {
    if cursor <= shown(session, matter)? {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.put(Table::Counter, matter, Counters::PRINTED, &cursor);
    session.vault.apply(batch)
}

/// Remembers that everything after `from` and up to `to` was shown, of all matters.
///
/// # Errors
/// [`Error::Machine`] if the vault fails.
pub fn mark_from(session: &mut Session, from: u64, to: u64) -> Result<(), Error> {
    let cursor = moved(shown(session, None)?, from, to);
    mark(session, None, cursor)
}

/// Where a cursor goes once everything after `from` and up to `to` was shown: never over what was not.
fn moved(cursor: u64, from: u64, to: u64) -> u64 {
    if from <= cursor { cursor.max(to) } else { cursor }
}

/// How many texts of others were not shown yet in a matter; five hundred at most.
///
/// # Errors
/// [`Error::Machine`] if the vault fails.
pub fn unread(session: &Session, matter: MatterId) -> Result<usize, Error> {
    let records = session.vault.records(Some(matter), shown(session, Some(matter))?, COUNT_MAX)?;
    let own = session.device.profile().person;
    let is_new = |record: &&Record| matches!(record.what, RecordBody::Text { .. }) && record.from != Some(own);
    Ok(records.iter().filter(is_new).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_moves_only_over_what_was_shown_without_a_gap() {
        assert_eq!(moved(3, 3, 5), 5, "from where it stands");
        assert_eq!(moved(3, 0, 5), 5, "over what was shown before");
        assert_eq!(moved(3, 0, 2), 3, "never back");
        assert_eq!(moved(3, 4, 5), 3, "4 was not shown");
        assert_eq!(moved(moved(3, 0, 2), 2, 7), 7, "page by page");
        assert_eq!(moved(moved(3, 4, 5), 5, 7), 3, "page by page");
    }
}
