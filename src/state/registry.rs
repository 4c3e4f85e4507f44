//! Values that live exactly as long as some snapshot refers to them, found again by a stable key.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Finds or creates shared values by key. The registry itself holds them weakly: a value goes when
/// the last snapshot that uses it goes.
///
/// Only `compile` asks it, never a request, so a plain lock is enough.
#[derive(Debug)]
pub struct Registry<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash + Debug, V> Registry<K, V> {
    /// The value of `key`, made by `create` if nobody holds one.
    pub fn get_or_create(&self, key: K, create: impl FnOnce() -> V) -> Arc<V> {
        let Ok(value) = self.get_or_try_create::<Infallible>(key, || Ok(create()));
        value
    }

    /// The value of `key`, made by `create` if nobody holds one.
    ///
    /// # Errors
    /// That of `create`.
    pub fn get_or_try_create<E>(
        &self,
        key: K,
        create: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = entries.get(&key).and_then(Weak::upgrade) {
            return Ok(value);
        }
        let value = Arc::new(create()?);
        entries.insert(key, Arc::downgrade(&value));
        Ok(value)
    }

    /// The value of `key`, if somebody holds one.
    pub fn find(&self, key: &K) -> Option<Arc<V>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).and_then(Weak::upgrade)
    }

    /// Forgets the keys whose values are gone. Called after each reload.
    pub fn sweep(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, value| value.strong_count() > 0);
    }

    /// The keys whose values are in use.
    pub fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|(_, value)| value.strong_count() > 0)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The values that are in use.
    pub fn values(&self) -> Vec<Arc<V>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The values that are in use, with their keys.
    pub fn entries(&self) -> Vec<(K, Arc<V>)>
    where
        K: Clone,
    {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.upgrade()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_while_somebody_holds_it() {
        let registry: Registry<u8, u32> = Registry::default();
        let first = registry.get_or_create(1, || 10);
        let again = registry.get_or_create(1, || 20);
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(registry.keys(), [1]);
    }

    #[test]
    fn a_value_goes_with_its_last_holder() {
        let registry: Registry<u8, u32> = Registry::default();
        drop(registry.get_or_create(1, || 10));
        assert!(registry.keys().is_empty());
        assert_eq!(*registry.get_or_create(1, || 20), 20);
        registry.sweep();
        assert!(registry.values().is_empty());
    }
}
