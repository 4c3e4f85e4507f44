//! A map that only grows and is read without a lock.

use std::sync::OnceLock;

/// A hash trie: each node holds an entry, and two bits of the hash choose among its four children.
///
/// A look-up follows at most a handful of pointers, an insertion fills one empty link, and nothing
/// is ever copied or moved, so that references stay valid as long as the map. An empty map costs
/// 16 bytes: most routes never need more.
#[derive(Debug)]
pub(super) struct GrowingMap<K, V> {
    root: Link<K, V>,
}

type Link<K, V> = OnceLock<Box<Node<K, V>>>;

#[derive(Debug)]
struct Node<K, V> {
    /// Tells whether the key is worth a look, which may lie elsewhere in memory.
    hash: u64,
    key: K,
    value: V,
    children: [Link<K, V>; 4],
}

impl<K, V> Default for GrowingMap<K, V> {
    fn default() -> Self {
        Self {
            root: OnceLock::new(),
        }
    }
}

impl<K, V> GrowingMap<K, V> {
    /// The value whose key has this hash and `is` the one wanted.
    pub(super) fn find(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&V> {
        let mut link = &self.root;
        let mut path = hash;
        while let Some(node) = link.get() {
            if node.hash == hash && is(&node.key) {
                return Some(&node.value);
            }
            link = node.child(&mut path);
        }
        None
    }

    /// Adds an entry, and gives its value. If the key is there already, gives that value and
    /// `false`.
    pub(super) fn insert(&self, hash: u64, key: K, value: V) -> (&V, bool)
    where
        K: PartialEq,
    {
        let mut new = Box::new(Node {
            hash,
            key,
            value,
            children: Default::default(),
        });
        let mut link = &self.root;
        let mut path = hash;
        loop {
            if let Some(node) = link.get() {
                if node.hash == hash && node.key == new.key {
                    return (&node.value, false);
                }
                link = node.child(&mut path);
                continue;
            }
            match link.set(new) {
                Ok(()) => {
                    let node = link.get().expect("the link was set a line ago");
                    return (&node.value, true);
                }
                // Another thread filled this link first: go on below its node.
                Err(refused) => new = refused,
            }
        }
    }

    /// Shows every entry, in no particular order.
    pub(super) fn for_each<'m>(&'m self, mut show: impl FnMut(&'m K, &'m V)) {
        let mut unseen: Vec<&Node<K, V>> = self.root.get().map(Box::as_ref).into_iter().collect();
        while let Some(node) = unseen.pop() {
            show(&node.key, &node.value);
            unseen.extend(
                node.children
                    .iter()
                    .filter_map(OnceLock::get)
                    .map(Box::as_ref),
            );
        }
    }

    /// How many entries there are. Counts them one by one.
    pub(super) fn len(&self) -> usize {
        let mut entries = 0;
        self.for_each(|_, _| entries += 1);
        entries
    }
}

impl<K, V> Node<K, V> {
    /// The child for the topmost two bits of `path`, what is left of a hash; they are used up. Keys
    /// whose hashes are equal to the last bit end up in a list below the first child.
    fn child(&self, path: &mut u64) -> &Link<K, V> {
        let place = usize::try_from(*path >> 62).expect("two bits");
        *path <<= 2;
        &self.children[place]
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Count;

    proptest! {
        #[test]
        fn a_growing_map_agrees_with_a_hash_map(entries in prop::collection::vec((0_u64..4, 0_u16..20), 0..100)) {
            let map = GrowingMap::default();
            let mut reference = HashMap::new();
            for (number, (hash, low)) in entries.into_iter().enumerate() {
                // Few distinct hashes, so that keys collide to the last bit.
                let key = (hash << 62, low);
                let expected = reference.contains_key(&key);
                prop_assert_eq!(map.find(key.0, |candidate| *candidate == key).is_some(), expected);
                let (_, inserted) = map.insert(key.0, key, number);
                prop_assert_eq!(inserted, !expected);
                reference.entry(key).or_insert(number);
            }
            for (key, value) in &reference {
                prop_assert_eq!(map.find(key.0, |candidate| candidate == key), Some(value));
            }
            prop_assert_eq!(map.len(), reference.len());
        }
    }

    #[test]
    fn threads_that_insert_the_same_keys_share_the_values() {
        let map: GrowingMap<u64, Count> = GrowingMap::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for key in 0..1_000_u64 {
                        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        map.find(hash, |candidate| *candidate == key)
                            .unwrap_or_else(|| map.insert(hash, key, Count::default()).0)
                            .inc();
                    }
                });
            }
        });
        assert_eq!(map.len(), 1_000);
        map.for_each(|key, count| assert_eq!(count.get(), 4, "of {key}"));
    }
}
