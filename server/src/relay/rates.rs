//! How fast devices may be: what the relay remembers in memory alone.
//!
//! - Fences of a device in a mailbox: a token bucket.
//! - Key packages that a device takes, and bytes that a person appends: so many a day, counted anew each day and after a restart.
//!
//! Invariant: every table has a hard bound; beyond it, whoever is not in it yet waits. A Post that is refused has spent nothing.

use std::collections::HashMap;
use std::hash::Hash;

use privity_protocol::error::Refused;
use privity_protocol::frame::Part;
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Timestamp};
use privity_protocol::limits;

use crate::policy::Caller;

/// Fences by device and mailbox, key packages by device, bytes by person.
#[derive(Debug, Default)]
pub(super) struct Rates {
    fences: HashMap<(DeviceId, MailboxId), Allowance>,
    taken: HashMap<DeviceId, Today>,
    appended: HashMap<PersonId, Today>,
}

/// A token bucket, in milliseconds of waiting.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    tokens_ms: u64,
    at: Timestamp,
}

/// How much of a day's allowance is gone.
#[derive(Debug, Clone, Copy)]
struct Today {
    day: u64,
    spent: u64,
}

/// Milliseconds that one fence costs.
const FENCE_MS: u64 = 60_000 / limits::FENCES_PER_MINUTE as u64;
/// Milliseconds of a full bucket.
const FULL_MS: u64 = FENCE_MS * limits::FENCE_BURST as u64;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Rates remembered at once; those that have recovered are forgotten first.
const RATES_MAX: usize = 65_536;

impl Rates {
    /// Counts the fences and the bytes of a Post that is otherwise good: all of them, or none if something comes too fast.
    pub(super) fn post(&mut self, caller: Caller, parts: &[Part], now: Timestamp) -> Result<(), Refused> {
        let (mut bytes, mut fences) = (0_u64, Vec::new());
        for part in parts {
            if let Part::Append { mailbox, fence, envelope, .. } = part {
                bytes = bytes.saturating_add(envelope.0.len() as u64);
                fences.extend(fence.then_some((caller.device, *mailbox)));
            }
        }
        let fences = self.after(&fences, now)?;
        spend(&mut self.appended, caller.person, bytes, limits::APPENDED_PER_DAY, now)?;
        self.fences.extend(fences);
        Ok(())
    }

    /// Counts single-use key packages that a device takes today.
    pub(super) fn take_key_packages(&mut self, device: DeviceId, wanted: u64, now: Timestamp) -> Result<(), Refused> {
        spend(&mut self.taken, device, wanted, u64::from(limits::KEY_PACKAGES_TAKEN_PER_DAY), now)
    }

    /// What a person has appended since their day began.
    #[cfg(test)]
    pub(super) fn appended_by(&self, person: PersonId) -> u64 {
        self.appended.get(&person).map_or(0, |today| today.spent)
    }

    /// What the allowances would be after these fences.
    fn after(
        &mut self,
        fences: &[(DeviceId, MailboxId)],
        now: Timestamp,
    ) -> Result<HashMap<(DeviceId, MailboxId), Allowance>, Refused> {
        let mut after = HashMap::new();
        for key in fences {
            let known = || self.fences.get(key).copied();
            let full = Allowance { tokens_ms: FULL_MS, at: now };
            let allowance = after.entry(*key).or_insert_with(|| known().unwrap_or(full));
            let gained = now.0.saturating_sub(allowance.at.0);
            allowance.tokens_ms = allowance.tokens_ms.saturating_add(gained).min(FULL_MS);
            allowance.at = now;
            match allowance.tokens_ms.checked_sub(FENCE_MS) {
                Some(left) => allowance.tokens_ms = left,
                None => return Err(Refused::Slow { after_ms: FENCE_MS - allowance.tokens_ms }),
            }
        }
        let new = after.keys().filter(|key| !self.fences.contains_key(key)).count();
        if self.fences.len() + new > RATES_MAX {
            self.fences.retain(|_, allowance| now.0.saturating_sub(allowance.at.0) < FULL_MS);
            let new = after.keys().filter(|key| !self.fences.contains_key(key)).count();
            if self.fences.len() + new > RATES_MAX {
                return Err(Refused::Slow { after_ms: FENCE_MS });
            }
        }
        Ok(after)
    }
}

/// Counts something against a day's allowance: all of it, or none where that is not enough.
fn spend<K: Eq + Hash>(
    table: &mut HashMap<K, Today>,
    who: K,
    wanted: u64,
    allowance: u64,
    now: Timestamp,
) -> Result<(), Refused> {
    let day = now.0 / DAY_MS;
    let slow = Refused::Slow { after_ms: DAY_MS - now.0 % DAY_MS };
    if table.len() >= RATES_MAX && !table.contains_key(&who) {
        table.retain(|_, today| today.day == day);
        if table.len() >= RATES_MAX {
            return Err(slow);
        }
    }
    let today = table.entry(who).or_insert(Today { day, spent: 0 });
    if today.day != day {
        *today = Today { day, spent: 0 };
    }
    let spent = today.spent.saturating_add(wanted);
    if spent > allowance {
        return Err(slow);
    }
    today.spent = spent;
    Ok(())
}

#[cfg(test)]
mod tests;
