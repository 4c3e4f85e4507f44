//! What is kept of each address of a target: found again by snapshots and by followers, never asked
//! by a request. An address that is no longer named is remembered for a while.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::registry::Registry;

/// How long an address is remembered after it was named last, in milliseconds: many resolvers name
/// only some of the addresses each time.
const UNNAMED_MAX: i64 = 5 * 60 * 1000;

/// Finds what is kept of a target again: the id of its upstream or service, its host in lower case,
/// its port.
pub type TargetKey = (Uuid, String, u16);

/// What is kept of all targets that some snapshot has.
pub type PerTarget<T> = Registry<TargetKey, PerAddress<T>>;

/// One `T` for each address of a target.
#[derive(Debug)]
pub struct PerAddress<T>(Mutex<HashMap<SocketAddr, Known<T>>>);

#[derive(Debug)]
struct Known<T> {
    value: Arc<T>,
    /// When it was seen for the first time that nobody names it, in Unix milliseconds; absent while
    /// it is named.
    unnamed_since: Option<i64>,
}

impl<T> Default for PerAddress<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PerAddress<T> {
    /// What is kept of `address`, made by `create` if nothing is.
    pub fn find_or_create(&self, address: SocketAddr, create: impl FnOnce() -> T) -> Arc<T> {
        let mut known = self.lock();
        let known = known.entry(address).or_insert_with(|| Known {
            value: Arc::new(create()),
            unnamed_since: None,
        });
        Arc::clone(&known.value)
    }

    /// Whether something is kept of `address` though nobody named it when that was noted last.
    pub fn is_unnamed(&self, address: SocketAddr) -> bool {
        let known = self.lock();
        let known = known.get(&address);
        known.is_some_and(|known| known.unnamed_since.is_some())
    }

    /// What is kept of `address`.
    pub fn find(&self, address: SocketAddr) -> Option<Arc<T>> {
        let known = self.lock();
        known.get(&address).map(|known| Arc::clone(&known.value))
    }

    /// Notes which addresses are named at `now`, in Unix milliseconds, and forgets those that have
    /// not been for long and that nobody holds, such as a request that is under way.
    pub fn follow(&self, is_named: impl Fn(SocketAddr) -> bool, now: i64) {
        self.lock().retain(|address, known| {
            known.unnamed_since = match known.unnamed_since {
                _ if is_named(*address) => None,
                Some(since) => Some(since),
                None => Some(now),
            };
            // What is in use counts on if the address comes back.
            let is_held = Arc::strong_count(&known.value) > 1;
            is_held
                || known
                    .unnamed_since
                    .is_none_or(|since| now.saturating_sub(since) <= UNNAMED_MAX)
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Known<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn each_address_keeps_its_own() {
        let kept = PerAddress::default();
        assert_eq!(*kept.find_or_create(address(1), || 1), 1);
        assert_eq!(*kept.find_or_create(address(2), || 2), 2);
        assert_eq!(*kept.find_or_create(address(1), || 3), 1);
        assert!(kept.find(address(3)).is_none());
    }

    #[test]
    fn an_address_that_vanished_long_ago_is_forgotten_and_the_others_stay() {
        let kept = PerAddress::default();
        for last in [1, 2] {
            kept.find_or_create(address(last), || last);
        }
        kept.follow(|named| named == address(2), 0);
        let unnamed = [1, 2, 3].map(|last| kept.is_unnamed(address(last)));
        assert_eq!(unnamed, [true, false, false]);
        kept.follow(|named| named == address(2), UNNAMED_MAX);
        assert!(kept.find(address(1)).is_some());
        kept.follow(|named| named == address(2), UNNAMED_MAX + 1);
        assert!(kept.find(address(1)).is_none());
        assert!(kept.find(address(2)).is_some());
    }

    #[test]
    fn an_address_that_is_in_use_is_kept_as_long() {
        let kept = PerAddress::default();
        let held = kept.find_or_create(address(1), || 1);
        kept.follow(|_| false, 0);
        kept.follow(|_| false, 2 * UNNAMED_MAX);
        assert!(kept.find(address(1)).is_some());
        drop(held);
        kept.follow(|_| false, 2 * UNNAMED_MAX);
        assert!(kept.find(address(1)).is_none());
    }

    #[test]
    fn an_address_that_some_answers_omit_is_kept() {
        let kept = PerAddress::default();
        kept.find_or_create(address(1), || 1);
        for round in 0..100 {
            kept.follow(|_| round % 2 == 0, round * UNNAMED_MAX / 2);
            assert!(kept.find(address(1)).is_some(), "round {round}");
        }
    }
}
