//! Values that are exported exactly as long as some snapshot holds them.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Finds or creates shared values by key and holds them weakly.
///
/// Only the compilation of a snapshot and a scrape ask it, never a request, so a plain lock is
/// enough.
#[derive(Debug)]
pub(super) struct Held<K: ?Sized, V>(Mutex<Entries<K, V>>);

#[derive(Debug)]
struct Entries<K: ?Sized, V> {
    by_key: HashMap<Arc<K>, Weak<V>, ahash::RandomState>,
    /// At how many entries the next search for dead ones is worth its time.
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 64;

impl<K: ?Sized, V> Default for Held<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries {
            by_key: HashMap::default(),
            sweep_at: SWEEP_AT_LEAST,
        }))
    }
}

impl<K: ?Sized + Eq + Hash, V> Held<K, V> {
    /// The value of `key`, made by `create` if nobody holds one.
    pub(super) fn get_or_create<'k>(&self, key: &'k K, create: impl FnOnce() -> V) -> Arc<V>
    where
        Arc<K>: From<&'k K>,
    {
        self.get_or_create_with(key, || Arc::from(key), |_| create())
    }

    /// Like [`Self::get_or_create`] for a key that the value shares.
    pub(super) fn get_or_create_with(
        &self,
        key: &K,
        own: impl FnOnce() -> Arc<K>,
        create: impl FnOnce(&Arc<K>) -> V,
    ) -> Arc<V> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = entries.by_key.get(key).and_then(Weak::upgrade) {
            return value;
        }
        // An entry whose value is gone still holds the old key: it goes with it.
        entries.by_key.remove(key);
        entries.sweep();
        let key = own();
        let value = Arc::new(create(&key));
        entries.by_key.insert(key, Arc::downgrade(&value));
        value
    }

    /// Every value that somebody holds, sorted by key.
    pub(super) fn sorted(&self) -> Vec<(Arc<K>, Arc<V>)>
    where
        K: Ord,
    {
        let mut held = self.held();
        held.sort_by(|(one, _), (other, _)| one.cmp(other));
        held
    }

    fn held(&self) -> Vec<(Arc<K>, Arc<V>)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .iter()
            .filter_map(|(key, value)| Some((Arc::clone(key), value.upgrade()?)))
            .collect()
    }
}

impl<K: ?Sized + Eq + Hash, V> Entries<K, V> {
    /// Forgets dead entries, at a cost that is constant for each entry ever made.
    fn sweep(&mut self) {
        if self.by_key.len() < self.sweep_at {
            return;
        }
        self.by_key.retain(|_, value| value.strong_count() > 0);
        self.sweep_at = (self.by_key.len() * 2).max(SWEEP_AT_LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_gives_the_same_value_while_it_is_held() {
        let held: Held<str, u32> = Held::default();
        let first = held.get_or_create("orders", || 1);
        assert!(Arc::ptr_eq(&first, &held.get_or_create("orders", || 2)));
        drop(first);
        assert_eq!(*held.get_or_create("orders", || 3), 3);
    }

    #[test]
    fn only_held_values_are_listed_and_in_order() {
        let held: Held<str, u32> = Held::default();
        let _users = held.get_or_create("users", || 1);
        let _orders = held.get_or_create("orders", || 2);
        drop(held.get_or_create("gone", || 3));
        let listed: Vec<_> = held
            .sorted()
            .into_iter()
            .map(|(key, value)| (key.to_string(), *value))
            .collect();
        assert_eq!(listed, [("orders".to_owned(), 2), ("users".to_owned(), 1)]);
    }

    #[test]
    fn entries_of_values_that_are_gone_do_not_pile_up() {
        let held: Held<str, u32> = Held::default();
        for number in 0..10_000 {
            drop(held.get_or_create(number.to_string().as_str(), || number));
        }
        let entries = held.0.lock().expect("not poisoned").by_key.len();
        assert!(entries <= SWEEP_AT_LEAST, "{entries} entries");
    }
}
