//! How many may come in: connections in all, those not admitted yet, and those from one address; and how often somebody there may try
//! invites in vain.
//!
//! Invariant: every place taken is given back when its holder is dropped, however its task ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that are not admitted devices yet, from everywhere and from one address: each may live ten seconds and cost two
/// signatures. A firm behind one address comes back within a minute.
const STRANGERS_MAX: usize = 1024;
const STRANGERS_PER_ADDRESS_MAX: usize = 128;

/// Refused attempts with invites from one address, at once and then one in so long: people mistype handles, and nobody guesses 128 bits.
const ATTEMPTS_MAX: u32 = 32;
const ATTEMPT_EACH: Duration = Duration::from_secs(2);
/// Addresses remembered for that, those with the fewest attempts left out first.
const ADDRESSES_MAX: usize = 16_384;

/// The places there are.
#[derive(Debug)]
pub(super) struct Doors {
    connections_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    strangers: usize,
    by_address: HashMap<IpAddr, usize>,
    attempts: HashMap<IpAddr, Attempts>,
}

/// Refused attempts that count against an address: one fewer after each [`ATTEMPT_EACH`].
#[derive(Debug, Clone, Copy)]
struct Attempts {
    count: u32,
    since: Instant,
}

impl Attempts {
    fn at(self, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.since).as_millis() / ATTEMPT_EACH.as_millis();
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        let since = if forgiven >= self.count { now } else { self.since + ATTEMPT_EACH * forgiven };
        Self { count: self.count.saturating_sub(forgiven), since }
    }
}

/// Why nobody else comes in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shut {
    /// As many connections as configured.
    Connections,
    /// Too many that are not admitted yet.
    Strangers,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    doors: Arc<Doors>,
    stranger: Option<IpAddr>,
}

impl Doors {
    pub(super) fn new(connections_max: usize) -> Self {
        Self { connections_max, taken: Mutex::default() }
    }

    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Shut> {
        let address = network(address);
        let mut taken = self.lock();
        if taken.connections >= self.connections_max {
            return Err(Shut::Connections);
        }
        let from_there = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.strangers >= STRANGERS_MAX || from_there >= STRANGERS_PER_ADDRESS_MAX {
            return Err(Shut::Strangers);
        }
        taken.connections += 1;
        taken.strangers += 1;
        taken.by_address.insert(address, from_there + 1);
        Ok(Place { doors: Arc::clone(self), stranger: Some(address) })
    }

    /// How long somebody at an address waits before the next attempt with an invite, if they do.
    pub(super) fn waits(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let attempts = self.lock().attempts.get(&network(address))?.at(now);
        let next = (attempts.since + ATTEMPT_EACH).saturating_duration_since(now);
        (attempts.count >= ATTEMPTS_MAX).then_some(next)
    }

    /// An attempt with an invite was refused.
    pub(super) fn refused(&self, address: IpAddr, now: Instant) {
        let address = network(address);
        let mut taken = self.lock();
        if taken.attempts.len() >= ADDRESSES_MAX && !taken.attempts.contains_key(&address) {
            taken.attempts.retain(|_, attempts| attempts.at(now).count > 0);
            if taken.attempts.len() >= ADDRESSES_MAX {
                taken.attempts.retain(|_, attempts| attempts.at(now).count > 1);
            }
            if taken.attempts.len() >= ADDRESSES_MAX {
                return;
            }
        }
        let attempts = taken.attempts.entry(address).or_insert(Attempts { count: 0, since: now });
        *attempts = attempts.at(now);
        attempts.count = attempts.count.saturating_add(1).min(ATTEMPTS_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The holder is an admitted device now.
    pub(super) fn admitted(&mut self) {
        let Some(address) = self.stranger.take() else { return };
        let mut taken = self.doors.lock();
        taken.strangers = taken.strangers.saturating_sub(1);
        let left = taken.by_address.get(&address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.by_address.remove(&address);
        } else {
            taken.by_address.insert(address, left);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admitted();
        let mut taken = self.doors.lock();
        taken.connections = taken.connections.saturating_sub(1);
    }
}

/// What counts as one address: all of an IPv4 address, the first 64 bits of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let doors = Arc::new(Doors::new(200));
        let here = IpAddr::from([192, 0, 2, 1]);
        let mut places: Vec<Place> = (0..STRANGERS_PER_ADDRESS_MAX).map(|_| doors.enter(here).unwrap()).collect();
        assert_eq!(doors.enter(here).unwrap_err(), Shut::Strangers);
        doors.enter(IpAddr::from([192, 0, 2, 2])).unwrap();
        places.iter_mut().for_each(Place::admitted);
        places.extend((0..72).map(|_| doors.enter(here).unwrap()));
        assert_eq!(doors.enter(IpAddr::from([192, 0, 2, 2])).unwrap_err(), Shut::Connections);
        drop(places);
        let taken = doors.lock();
        assert_eq!((taken.connections, taken.strangers, taken.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn invites_tried_in_vain_count_against_an_address_and_are_forgiven() {
        let (doors, start) = (Doors::new(200), Instant::now());
        let (here, there) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(doors.waits(here, start), None);
            doors.refused(here, start);
        }
        assert_eq!(doors.waits(here, start), Some(ATTEMPT_EACH));
        assert_eq!(doors.waits(there, start), None, "nobody else waits");
        assert_eq!(doors.waits(here, start + ATTEMPT_EACH / 2), Some(ATTEMPT_EACH / 2));
        let later = start + ATTEMPT_EACH;
        assert_eq!(doors.waits(here, later), None);
        doors.refused(here, later);
        assert_eq!(doors.waits(here, later), Some(ATTEMPT_EACH), "one at a time from there on");
        assert_eq!(doors.waits(here, later + ATTEMPT_EACH * 1000), None);
    }

    #[test]
    fn addresses_remembered_are_bounded() {
        let (doors, start) = (Doors::new(200), Instant::now());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..u32::try_from(ADDRESSES_MAX).unwrap() + 100 {
            doors.refused(address(number), start);
            doors.refused(address(7), start);
        }
        assert!(doors.lock().attempts.len() <= ADDRESSES_MAX);
        assert!(doors.waits(address(7), start).is_some(), "whoever tries most is remembered");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_address() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::2".parse().unwrap()));
        assert_ne!(network("2001:db8:0:1::1".parse().unwrap()), network("2001:db8::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
