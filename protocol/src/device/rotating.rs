//! The relay's new key: what a device, or somebody who is joining, does with the statements in the relay's answer.
//!
//! 1. They lead from the pinned key to the newest; the profile pins that from then on, and remembers the one before.
//! 2. Invites that this device has made and that pin the key before go on naming that one, in their URLs and in newcomers' proofs.
//! 3. Where more were missed than one answer brings, another link brings the rest.
//!
//! Invariant: what does not verify changes nothing.

use crate::device::state::{OwnInvite, Profile, Table};
use crate::device::{Device, Notice};
use crate::error::Error;
use crate::identity::Signed;
use crate::limits;
use crate::rotation::{self, PastRelay};
use crate::suite::Fingerprint;

impl Profile {
    /// Pins the key to which the relay's statements lead from the one that is pinned; how many steps that were.
    ///
    /// # Errors
    /// As [`rotation::follow`]; nothing has changed then.
    pub fn follow(&mut self, statements: &[Signed]) -> Result<usize, Error> {
        let steps = rotation::follow(&self.relay, statements)?;
        let count = steps.len();
        for step in steps {
            self.relays_before.push(PastRelay { key: self.relay.fingerprint(), until: step.at });
            self.relay = step.to;
        }
        let too_many = self.relays_before.len().saturating_sub(limits::PAST_RELAYS);
        self.relays_before.drain(..too_many);
        Ok(count)
    }
}

impl Device {
    /// Follows the relay's statements, if there are any; whether there may be more than this answer has brought.
    pub(super) fn follow_relay(&mut self, statements: &[Signed]) -> Result<bool, Error> {
        let key = self.profile.relay.clone();
        let before = key.fingerprint();
        let steps = self.profile.follow(statements)?;
        let Some(newest) = self.profile.relays_before.last().filter(|_| steps > 0) else { return Ok(false) };
        let since = newest.until;
        for (id, own) in self.invites.iter_mut().filter(|(_, own)| own.relay.is_none()) {
            own.relay = Some(before);
            self.batch.put(Table::Invite, None, id.as_bytes(), own);
        }
        self.batch.put(Table::Profile, None, &[], &self.profile);
        self.log_was_signed_by(&key);
        self.deliver(Notice::RelayRotated { key: self.profile.relay.fingerprint(), before, since });
        Ok(steps == limits::ROTATIONS_MAX)
    }

    /// The key of the relay that an invite of this device's pins.
    pub(super) fn relay_of(&self, own: &OwnInvite) -> Fingerprint {
        own.relay.unwrap_or_else(|| self.profile.relay.fingerprint())
    }
}
