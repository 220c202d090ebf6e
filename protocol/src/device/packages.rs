//! Key packages that the relay hands out: each single-use one once.
//!
//! Whoever is added by a key package that was used before can't open the Welcome, and would be taken for a member who is not there. The
//! relay alone decides what it serves, so each device remembers what it was served. What another device was, the one that it belongs to
//! finds out: its private half is gone.
//!
//! Invariant: this device adds nobody by a single-use key package that the relay has served to it before.

use zeroize::Zeroizing;

use crate::cbor;
use crate::device::Device;
use crate::device::state::{Counters, Table};
use crate::error::{Error, PeerMisbehaved};
use crate::frame::TakenKeyPackage;
use crate::limits;
use crate::matter::is_last_resort;
use crate::suite::Digest;

/// What was noted before.
pub(super) fn served(value: Option<&Zeroizing<Vec<u8>>>) -> Vec<Digest> {
    value.and_then(|value| cbor::decode(value, "key packages").ok()).unwrap_or_default()
}

impl Device {
    /// Notes key packages that the relay serves.
    ///
    /// # Errors
    /// [`PeerMisbehaved::ServedTwice`] for a single-use one that it has served before.
    pub(super) fn note_packages(&mut self, packages: &[TakenKeyPackage]) -> Result<(), Error> {
        let before = self.served.len();
        for taken in packages.iter().filter(|taken| !is_last_resort(&taken.package.0)) {
            let digest = Digest::of(&[&taken.package.0]);
            if self.served.contains(&digest) {
                return Err(PeerMisbehaved::ServedTwice.into());
            }
            self.served.push(digest);
        }
        if self.served.len() > before {
            let old = self.served.len().saturating_sub(limits::SERVED_NOTED);
            self.served.drain(..old);
            self.batch.put(Table::Counter, None, Counters::SERVED, &self.served);
        }
        Ok(())
    }
}
