//! The regexes of all routes: each distinct one is kept once, however many routes use it.

use std::collections::HashMap;

use regex::bytes::Regex;

use crate::entity::pattern::Pattern;

/// This many regexes are compiled when the router is built, so that in an ordinary table no request
/// waits for one. The others are compiled when first needed: ten thousand at once would take half a
/// second and much memory.
const COMPILED_AT_BUILD: usize = 100;

/// Names a regex of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternId(u32);

/// The regexes of a router, with the text that the operator wrote for each.
#[derive(Debug)]
pub(super) struct Patterns(Vec<(Box<str>, Pattern)>);

impl Patterns {
    pub(super) fn regex(&self, id: PatternId) -> &Regex {
        self.0[id.place()].1.regex()
    }

    pub(super) fn literal_prefix(&self, id: PatternId) -> &[u8] {
        self.0[id.place()].1.literal_prefix()
    }

    /// Whether a match depends on what stands around it.
    pub(super) fn has_assertions(&self, id: PatternId) -> bool {
        self.0[id.place()].1.has_assertions()
    }

    pub(super) fn written(&self, id: PatternId) -> &str {
        &self.0[id.place()].0
    }
}

impl PatternId {
    /// The one that was added `n` places later.
    pub(super) fn plus(self, n: usize) -> Self {
        Self::at(self.place() + n)
    }

    fn at(place: usize) -> Self {
        Self(u32::try_from(place).expect("a configuration has fewer than four billion regexes"))
    }

    fn place(self) -> usize {
        self.0 as usize
    }
}

/// [`Patterns`] while routes are still being read.
#[derive(Debug, Default)]
pub(super) struct PatternPool<'r> {
    patterns: Vec<(Box<str>, Pattern)>,
    ids: HashMap<&'r str, PatternId>,
}

impl<'r> PatternPool<'r> {
    /// The pattern that was added for the same text. Texts of paths and of header values differ in
    /// their mark.
    pub(super) fn known(&self, written: &str) -> Option<PatternId> {
        self.ids.get(written).copied()
    }

    pub(super) fn add(&mut self, written: &'r str, pattern: Pattern) -> PatternId {
        let id = PatternId::at(self.patterns.len());
        self.patterns.push((written.into(), pattern));
        self.ids.insert(written, id);
        id
    }

    /// Adds patterns that nobody else uses, and gives the name of the first; the others follow.
    pub(super) fn add_all(&mut self, patterns: Vec<Pattern>) -> PatternId {
        let first = PatternId::at(self.patterns.len());
        let unnamed = patterns.into_iter().map(|pattern| ("".into(), pattern));
        self.patterns.extend(unnamed);
        first
    }

    /// All that were added, the first of them compiled.
    pub(super) fn into_patterns(self) -> Patterns {
        for (_, pattern) in self.patterns.iter().take(COMPILED_AT_BUILD) {
            pattern.regex();
        }
        Patterns(self.patterns)
    }
}
