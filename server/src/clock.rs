//! The relay's clock: the only place that asks the system for the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use privity_protocol::ids::Timestamp;

/// Now, by the system's clock; 1970 if that stands before it.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
