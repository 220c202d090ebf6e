//! From where to where a device reads a mailbox, pure.
//!
//! 1. A subscription begins at the position that the device names, or where its newest interval does ([`place`]).
//! 2. Entries are sent up to the end of the interval that holds them ([`interval`]).
//!
//! Invariant: a device is shown no entry outside its intervals, and of an inbox nothing unless it is its own.

use privity_protocol::error::Refused;
use privity_protocol::ids::{MailboxId, Position};

use super::admission;
use crate::policy::{self, Caller, No};
use crate::store::{Read, StoreError};

/// Where a device's reading begins, and the newest entry it may read.
///
/// # Errors
/// [`No`]: it may read nothing there, its instance was replaced, or the store failed.
pub fn place(
    store: &dyn Read,
    caller: Caller,
    mailbox: MailboxId,
    after: Option<Position>,
) -> Result<(Position, u64), No> {
    let caller = admission::still(store, caller)?;
    let not_found = || Refused::not_found("that mailbox");
    let head = store.mailbox(mailbox)?.ok_or_else(not_found)?.head.seq;
    let asked = after.map(|after| after.seq.min(head));
    let (from, until) = interval(store, caller, mailbox, asked)?.ok_or_else(not_found)?;
    let start = store.position(mailbox, asked.unwrap_or(from))?.ok_or_else(not_found)?;
    Ok((start, until.map_or(head, |until| until.min(head))))
}

/// The entries that a device may read: of its own inbox all, of another mailbox what its roster says.
///
/// # Errors
/// [`StoreError`] if the store failed.
pub fn interval(
    store: &dyn Read,
    caller: Caller,
    mailbox: MailboxId,
    seq: Option<u64>,
) -> Result<Option<(u64, Option<u64>)>, StoreError> {
    match store.mailbox(mailbox)? {
        Some(row) if row.inbox_of == Some(caller.device) => Ok(Some((0, None))),
        Some(_) => Ok(policy::reading(&store.grants(mailbox, caller.device)?, seq)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
