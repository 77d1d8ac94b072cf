//! How many connections the REST interface holds, in all and of one address (SEC-41): a crowd at one
//! address must leave places for balancers, members and this host.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// Connections at any time, if there are descriptors for so many.
pub const CONNECTIONS_MAX: usize = 512;
/// From one address.
const PER_ADDRESS_MAX: usize = 32;
/// From one address of the allowlist, of a member or of this host.
const PER_FAVOURED_MAX: usize = 128;
/// Places that only those can take.
const KEPT: usize = 8;

#[derive(Default)]
struct Taken {
    count: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The places of one listener.
#[derive(Clone)]
pub struct Places {
    max: usize,
    taken: Arc<Mutex<Taken>>,
}

/// One connection's place; free again when dropped.
pub struct Place {
    address: IpAddr,
    places: Places,
}

impl Places {
    pub fn new(max: usize) -> Places {
        Places { max, taken: Arc::default() }
    }

    /// A place for a connection of this address, if there is one.
    pub fn take(&self, address: IpAddr, favoured: bool) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.lock();
        let (kept, per_address) =
            if favoured { (0, PER_FAVOURED_MAX) } else { (KEPT, PER_ADDRESS_MAX) };
        let here = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.count + kept >= self.max || here >= per_address {
            return None;
        }
        taken.count += 1;
        taken.by_address.insert(address, here + 1);
        Some(Place { address, places: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.count -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_places_for_others() {
        let places = Places::new(64);
        let at = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut held: Vec<Place> = (0..100).filter_map(|_| places.take(at(1), false)).collect();
        assert_eq!(held.len(), PER_ADDRESS_MAX);
        held.extend((0..100).filter_map(|_| places.take(at(2), false)));
        assert_eq!(held.len(), 64 - KEPT);
        assert!(places.take(at(3), false).is_none());
        held.extend((0..100).filter_map(|_| places.take(at(4), true)));
        assert_eq!(held.len(), 64);
        drop(held);
        assert!(places.lock().by_address.is_empty() && places.take(at(3), false).is_some());
    }
}
