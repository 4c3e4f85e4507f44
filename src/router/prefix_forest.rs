//! Radix trees in one arena: for a text, all stored keys that it begins with, in time that depends
//! on the text alone.
//!
//! Built once, never changed. It knows nothing of routes.

use std::collections::VecDeque;
use std::num::NonZero;
use std::ops::Range;

/// Many radix trees from byte strings to values. Each tree's keys are distinct.
#[derive(Debug)]
pub(super) struct PrefixForest<T> {
    /// Each tree breadth first, with one more node at its end.
    nodes: Vec<Node>,
    /// The byte that leads to each node, so that a child is found without touching its siblings. It is
    /// no part of the label: most nodes need none, and then no other memory is read.
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
    values: Vec<T>,
}

/// Names one tree of a [`PrefixForest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree(u32);

/// Where the label and the children of a node begin. They end where those of the next node do.
#[derive(Debug)]
struct Node {
    label: u32,
    children: u32,
    /// One more than the place of its value.
    value: Option<NonZero<u32>>,
}

impl<T> PrefixForest<T> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            first_bytes: Vec::new(),
            labels: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a tree. `entries` are sorted by key, and no key comes twice.
    pub(super) fn plant(&mut self, entries: Vec<(&[u8], T)>) -> Tree {
        let (keys, values): (Vec<&[u8]>, Vec<T>) = entries.into_iter().unzip();
        let values_start = self.values.len();
        self.values.extend(values);
        let tree = Tree(self.add_node(0));
        // Breadth first, so that the children of a node stand next to each other; and deep keys
        // need no deep stack.
        let mut unfinished = VecDeque::from([(tree.0, 0..keys.len(), 0)]);
        while let Some((node, range, depth)) = unfinished.pop_front() {
            self.begin(node);
            let Some((first, last)) = keys
                .get(range.clone())
                .and_then(|keys| keys.first().zip(keys.last()))
            else {
                continue;
            };
            // Between sorted keys, all share what the outer two share.
            let end = depth + shared_len(&first[depth..], &last[depth..]);
            self.labels.extend_from_slice(&first[depth..end]);
            let has_value = first.len() == end;
            if has_value {
                let place = NonZero::new(as_index(values_start + range.start + 1));
                self.nodes[node as usize].value = place;
            }
            let mut rest = range.start + usize::from(has_value)..range.end;
            while let Some(&byte) = keys
                .get(rest.start)
                .filter(|_| !rest.is_empty())
                .and_then(|key| key.get(end))
            {
                let len = keys[rest.clone()].partition_point(|key| key[end] == byte);
                unfinished.push_back((self.add_node(byte), rest.start..rest.start + len, end + 1));
                rest.start += len;
            }
        }
        self.add_node(0);
        tree
    }

    /// The values of all keys of `tree` with which `text` begins, the shortest key first.
    pub(super) fn prefixes_of<'f, 't>(&'f self, tree: Tree, text: &'t [u8]) -> Prefixes<'f, 't, T> {
        Prefixes {
            forest: self,
            next: Some(tree.0),
            rest: text,
        }
    }

    /// How many nodes there are, as a measure of memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Gives back the memory that further trees would take.
    pub(super) fn shrink_to_fit(&mut self) {
        self.nodes.shrink_to_fit();
        self.first_bytes.shrink_to_fit();
        self.labels.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    fn add_node(&mut self, first_byte: u8) -> u32 {
        let node = as_index(self.nodes.len());
        self.nodes.push(Node {
            label: as_index(self.labels.len()),
            children: node,
            value: None,
        });
        self.first_bytes.push(first_byte);
        node
    }

    /// Lets the label and the children of `node` begin behind all others.
    fn begin(&mut self, node: u32) {
        let (label, children) = (as_index(self.labels.len()), as_index(self.nodes.len()));
        let node = &mut self.nodes[node as usize];
        node.label = label;
        node.children = children;
    }
}

/// See [`PrefixForest::prefixes_of`].
#[derive(Debug)]
pub(super) struct Prefixes<'f, 't, T> {
    forest: &'f PrefixForest<T>,
    next: Option<u32>,
    rest: &'t [u8],
}

impl<'f, T> Iterator for Prefixes<'f, '_, T> {
    type Item = &'f T;

    fn next(&mut self) -> Option<&'f T> {
        let forest = self.forest;
        while let Some(at) = self.next.take() {
            let [node, end] = forest.nodes.get(at as usize..)?.first_chunk()?;
            let label = as_range(node.label..end.label);
            // Comparing nothing is not free: of a forest without labels it costs a `memcmp` at a
            // dangling address.
            if !label.is_empty() {
                self.rest = self.rest.strip_prefix(&forest.labels[label])?;
            }
            if let Some((byte, rest)) = self.rest.split_first() {
                let siblings = &forest.first_bytes[as_range(node.children..end.children)];
                if let Ok(nth) = siblings.binary_search(byte) {
                    self.next = Some(node.children + as_index(nth));
                    self.rest = rest;
                }
            }
            if let Some(value) = node.value {
                return forest.values.get(value.get() as usize - 1);
            }
        }
        None
    }
}

fn shared_len(left: &[u8], right: &[u8]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}

/// `position` in four bytes, for there may be many.
pub(super) fn as_index(position: usize) -> u32 {
    u32::try_from(position).expect("a configuration has fewer than four billion bytes of paths")
}

fn as_range(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_finds_exactly_its_prefixes_the_shortest_first(
            first in prop::collection::btree_set("[ab]{0,6}", 0..12),
            second in prop::collection::btree_set("[abc]{0,4}", 0..12),
            text in "[abcd]{0,8}",
        ) {
            let mut forest = PrefixForest::new();
            let mut plant = |keys: &BTreeSet<String>| {
                forest.plant(keys.iter().map(|key| (key.as_bytes(), key.clone())).collect())
            };
            let trees = [(plant(&first), &first), (plant(&second), &second)];
            for (tree, keys) in trees {
                let found: Vec<&String> = forest.prefixes_of(tree, text.as_bytes()).collect();
                let mut expected: Vec<&String> = keys.iter().filter(|key| text.starts_with(key.as_str())).collect();
                expected.sort_by_key(|key| key.len());
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn ten_thousand_nested_keys_need_no_deep_stack() {
        let longest = "a".repeat(10_000);
        let keys = (0..=longest.len())
            .filter_map(|len| longest.as_bytes().get(..len))
            .map(|key| (key, key.len()))
            .collect();
        let mut forest = PrefixForest::new();
        let tree = forest.plant(keys);
        assert!(
            forest
                .prefixes_of(tree, longest.as_bytes())
                .copied()
                .eq(0..=10_000)
        );
    }
}
