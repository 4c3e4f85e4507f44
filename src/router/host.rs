//! Finds what is stored for a request's host without looking at the other hosts.

use ahash::AHashMap;

use crate::entity::host::{HostName, HostPattern, RequestHost};

/// Values by host pattern, and one for requests of any host.
///
/// The time of a look-up depends on the request's host and on the longest wildcard, not on how many
/// hosts there are.
#[derive(Debug)]
pub(super) struct HostIndex<T> {
    exact: AHashMap<Box<[u8]>, ByPort<T>>,
    /// `*.example.com`, by `.example.com`.
    any_before: Wildcards<T>,
    /// `example.*`, by `example.`.
    any_after: Wildcards<T>,
    any_host: Option<T>,
}

#[derive(Debug)]
struct Wildcards<T> {
    by_fixed_part: AHashMap<Box<[u8]>, ByPort<T>>,
    /// Keeps a long host sent by a client from costing one look-up for each of its dots.
    longest: usize,
}

#[derive(Debug)]
struct ByPort<T> {
    any: Option<T>,
    /// Sorted by port.
    listed: Vec<(u16, T)>,
}

impl<T: Copy> HostIndex<T> {
    pub(super) fn new() -> Self {
        Self {
            exact: AHashMap::new(),
            any_before: Wildcards::new(),
            any_after: Wildcards::new(),
            any_host: None,
        }
    }

    /// Stores a value. Each pattern is stored once; `None` stands for requests of any host.
    pub(super) fn insert(&mut self, pattern: Option<&HostPattern>, value: T) {
        let Some(HostPattern { name, port }) = pattern else {
            self.any_host = Some(value);
            return;
        };
        let by_port = match name {
            HostName::Exact(name) => self.exact.entry(name.as_bytes().into()).or_default(),
            HostName::AnyBefore(suffix) => self.any_before.entry(suffix.as_bytes()),
            HostName::AnyAfter(prefix) => self.any_after.entry(prefix.as_bytes()),
        };
        by_port.insert(*port, value);
    }

    /// Shows the values of all patterns that match the host and the port.
    pub(super) fn visit(&self, host: &RequestHost<'_>, port: u16, mut visit: impl FnMut(T)) {
        self.find_names(host, |by_port| by_port.get(port).for_each(&mut visit));
        self.any_host.into_iter().for_each(visit);
    }

    fn find_names(&self, host: &[u8], mut found: impl FnMut(&ByPort<T>)) {
        self.exact.get(host).into_iter().for_each(&mut found);
        if !self.any_before.is_empty() {
            let suffixes = dots(host)
                .filter(|&at| at > 0)
                .filter_map(|at| host.get(at..));
            suffixes
                .filter_map(|suffix| self.any_before.get(suffix))
                .for_each(&mut found);
        }
        if !self.any_after.is_empty() {
            let prefixes = dots(host)
                .filter(|&at| at + 1 < host.len())
                .filter_map(|at| host.get(..=at));
            prefixes
                .filter_map(|prefix| self.any_after.get(prefix))
                .for_each(&mut found);
        }
    }
}

fn dots(host: &[u8]) -> impl Iterator<Item = usize> {
    host.iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'.')
        .map(|(at, _)| at)
}

impl<T: Copy> Wildcards<T> {
    fn new() -> Self {
        Self {
            by_fixed_part: AHashMap::new(),
            longest: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.by_fixed_part.is_empty()
    }

    fn entry(&mut self, fixed_part: &[u8]) -> &mut ByPort<T> {
        self.longest = self.longest.max(fixed_part.len());
        self.by_fixed_part.entry(fixed_part.into()).or_default()
    }

    fn get(&self, fixed_part: &[u8]) -> Option<&ByPort<T>> {
        if fixed_part.len() > self.longest {
            None
        } else {
            self.by_fixed_part.get(fixed_part)
        }
    }
}

impl<T: Copy> ByPort<T> {
    fn insert(&mut self, port: Option<u16>, value: T) {
        match port {
            None => self.any = Some(value),
            Some(port) => {
                let at = self.listed.partition_point(|&(listed, _)| listed < port);
                self.listed.insert(at, (port, value));
            }
        }
    }

    fn get(&self, port: u16) -> impl Iterator<Item = T> {
        let listed = self
            .listed
            .binary_search_by_key(&port, |&(listed, _)| listed)
            .ok();
        listed
            .and_then(|at| self.listed.get(at))
            .map(|&(_, value)| value)
            .into_iter()
            .chain(self.any)
    }
}

impl<T> Default for ByPort<T> {
    fn default() -> Self {
        Self {
            any: None,
            listed: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patterns: &[&str], host: &str, port: u16) -> Vec<String> {
        let patterns: Vec<HostPattern> = patterns
            .iter()
            .map(|written| HostPattern::parse(written).unwrap())
            .collect();
        let mut index = HostIndex::new();
        for (at, pattern) in patterns.iter().enumerate() {
            index.insert(Some(pattern), at);
        }
        let mut found = Vec::new();
        index.visit(&RequestHost::new(host), port, |at| {
            found.push(patterns[at].to_string());
        });
        found
    }

    #[test]
    fn every_pattern_that_matches_is_found_and_no_other() {
        let patterns = [
            "a.b",
            "a.b:80",
            "a.b:81",
            "*.b",
            "*.a.b",
            "*.b:80",
            "a.*",
            "a.b.*",
            "b.*",
            "a.*:81",
            "*.example.com",
            "::1",
        ];
        for host in [
            "a.b",
            "A.b.",
            "x.a.b",
            "a.b.c",
            "b",
            ".b",
            ".a.b",
            "a.",
            "a..",
            "b.",
            "",
            "[::1]",
            "a.example.com",
        ] {
            for port in [80, 81, 82] {
                let mut expected: Vec<&str> = patterns
                    .into_iter()
                    .filter(|written| {
                        HostPattern::parse(written)
                            .unwrap()
                            .matches(&RequestHost::new(host), port)
                    })
                    .map(|written| if written == "::1" { "[::1]" } else { written })
                    .collect();
                let mut found = found(&patterns, host, port);
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected, "{host}:{port}");
            }
        }
    }

    #[test]
    fn the_value_for_any_host_is_always_found() {
        let mut index = HostIndex::new();
        index.insert(None, 7);
        let mut found = Vec::new();
        index.visit(&RequestHost::new("a"), 80, |value| found.push(value));
        index.visit(&RequestHost::new(""), 80, |value| found.push(value));
        assert_eq!(found, [7, 7]);
    }
}
