//! How many may come in: connections in all, those not admitted yet, and those from one address.
//!
//! Invariant: every place taken is given back when its holder is dropped, however its task ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that are not admitted devices yet, from everywhere and from one address: each may live ten seconds and cost two
/// signatures. A firm behind one address comes back within a minute.
const STRANGERS_MAX: usize = 1024;
const STRANGERS_PER_ADDRESS_MAX: usize = 128;

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
    fn neighbours_in_one_ipv6_network_are_one_address() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::2".parse().unwrap()));
        assert_ne!(network("2001:db8:0:1::1".parse().unwrap()), network("2001:db8::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
