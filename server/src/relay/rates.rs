//! How fast devices may be: what the relay remembers in memory alone.
//!
//! Invariant: both tables have a hard bound; beyond it, whoever is not in them yet waits.

use std::collections::HashMap;

use privity_protocol::error::Refused;
use privity_protocol::ids::{DeviceId, MailboxId, Timestamp};
use privity_protocol::limits;

/// Fences by device and mailbox, key packages by device.
#[derive(Debug, Default)]
pub(super) struct Rates {
    fences: HashMap<(DeviceId, MailboxId), Allowance>,
    taken: HashMap<DeviceId, Taken>,
}

/// A token bucket, in milliseconds of waiting.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    tokens_ms: u64,
    at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    day: u64,
    count: u32,
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
    /// Counts the fences of a Post that is otherwise good: all of them, or none if one comes too fast.
    pub(super) fn spend_fences(
        &mut self,
        device: DeviceId,
        mailboxes: impl Iterator<Item = MailboxId>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let mut spent: HashMap<MailboxId, Allowance> = HashMap::new();
        for mailbox in mailboxes {
            let known = || self.fences.get(&(device, mailbox)).copied();
            let full = Allowance { tokens_ms: FULL_MS, at: now };
            let allowance = spent.entry(mailbox).or_insert_with(|| known().unwrap_or(full));
            let gained = now.0.saturating_sub(allowance.at.0);
            allowance.tokens_ms = allowance.tokens_ms.saturating_add(gained).min(FULL_MS);
            allowance.at = now;
            match allowance.tokens_ms.checked_sub(FENCE_MS) {
                Some(left) => allowance.tokens_ms = left,
                None => return Err(Refused::Slow { after_ms: FENCE_MS - allowance.tokens_ms }),
            }
        }
        if self.fences.len() + spent.len() > RATES_MAX {
            self.fences.retain(|_, allowance| now.0.saturating_sub(allowance.at.0) < FULL_MS);
            if self.fences.len() + spent.len() > RATES_MAX {
                return Err(Refused::Slow { after_ms: FENCE_MS });
            }
        }
        self.fences.extend(spent.into_iter().map(|(mailbox, allowance)| ((device, mailbox), allowance)));
        Ok(())
    }

    /// Counts key packages that a device takes today.
    pub(super) fn take_key_packages(&mut self, device: DeviceId, wanted: u32, now: Timestamp) -> Result<(), Refused> {
        let day = now.0 / DAY_MS;
        let slow = Refused::Slow { after_ms: DAY_MS - now.0 % DAY_MS };
        if self.taken.len() >= RATES_MAX {
            self.taken.retain(|_, taken| taken.day == day);
            if self.taken.len() >= RATES_MAX && !self.taken.contains_key(&device) {
                return Err(slow);
            }
        }
        let taken = self.taken.entry(device).or_insert(Taken { day, count: 0 });
        if taken.day != day {
            *taken = Taken { day, count: 0 };
        }
        let count = taken.count.saturating_add(wanted);
        if count > limits::KEY_PACKAGES_TAKEN_PER_DAY {
            return Err(slow);
        }
        taken.count = count;
        Ok(())
    }
}
