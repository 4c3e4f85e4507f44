//! The conditions of one route in the form in which requests are compared with them.
//!
//! Whether a method, a header or a regex matches is decided here alone, for routing and for its
//! explanation. Hosts and prefixes are found through an index when routing; the tests hold it
//! against these definitions.

use http::{HeaderMap, HeaderName};

use super::patterns::{PatternId, PatternPool, Patterns};
use super::precedence::{PathRank, Precedence};
use super::{Field, InvalidPattern, Rule};
use crate::entity::host::{HostPattern, RequestHost};
use crate::entity::path::RoutePath;
use crate::entity::pattern::HeaderValue;

/// All conditions of one route. An empty list is no condition.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) paths: Vec<PathCondition>,
    pub(super) methods: Vec<String>,
    pub(super) headers: Vec<HeaderCondition>,
    pub(super) regex_priority: i64,
    pub(super) created_at: Option<i64>,
}

/// One entry of a route's paths.
#[derive(Debug)]
pub(super) enum PathCondition {
    Prefix(String),
    Regex(PatternId),
}

/// A header that a route asks for, and the values that will do.
#[derive(Debug)]
pub(super) struct HeaderCondition {
    pub(super) name: HeaderName,
    pub(super) values: Vec<ValueCondition>,
}

/// One value that a route lists for a header.
#[derive(Debug)]
pub(super) enum ValueCondition {
    /// The whole value, in lower case.
    Whole(String),
    Regex(PatternId),
}

impl Conditions {
    /// Reads the conditions of the route with this index, or all mistakes in them.
    pub(super) fn read<'r>(
        route: usize,
        rule: &'r Rule,
        pool: &mut PatternPool<'r>,
    ) -> Result<Self, Vec<InvalidPattern>> {
        let mut invalid = Vec::new();
        let mut report = |field, pattern: &str, message| {
            invalid.push(InvalidPattern {
                rule: route,
                field,
                pattern: pattern.to_owned(),
                message,
            });
        };
        let mut hosts = Vec::with_capacity(rule.hosts.len());
        for written in &rule.hosts {
            match HostPattern::parse(written) {
                Ok(host) => hosts.push(host),
                Err(message) => report(Field::Hosts, written, message),
            }
        }
        let mut paths = Vec::with_capacity(rule.paths.len());
        for written in &rule.paths {
            match PathCondition::read(written, pool) {
                Ok(path) => paths.push(path),
                Err(message) => report(Field::Paths, written, message),
            }
        }
        let mut headers = Vec::with_capacity(rule.headers.len());
        for (name, written_values) in &rule.headers {
            let Ok(header_name) = HeaderName::from_bytes(name.as_bytes()) else {
                report(
                    Field::Headers,
                    name,
                    format!("`{name}` is not a header name"),
                );
                continue;
            };
            let mut values = Vec::with_capacity(written_values.len());
            for written in written_values {
                match ValueCondition::read(written, pool) {
                    Ok(value) => values.push(value),
                    Err(message) => report(Field::Headers, written, message),
                }
            }
            headers.push(HeaderCondition {
                name: header_name,
                values,
            });
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let Rule {
            regex_priority,
            created_at,
            ..
        } = *rule;
        Ok(Self {
            hosts,
            paths,
            methods: rule.methods.clone(),
            headers,
            regex_priority,
            created_at,
        })
    }

    /// How specific the route is if it matches with a path of this rank, and by a host with or
    /// without a port.
    pub(super) fn precedence(&self, path: PathRank, host_with_port: bool) -> Precedence {
        let is_absent = [
            self.methods.is_empty(),
            self.hosts.is_empty(),
            self.headers.is_empty(),
            self.paths.is_empty(),
        ];
        Precedence {
            attributes: is_absent.iter().filter(|&&is_absent| !is_absent).count(),
            only_plain_hosts: !self.hosts.is_empty()
                && !self.hosts.iter().any(|host| host.name.is_wildcard()),
            header_names: self.headers.len(),
            path,
            host_with_port,
        }
    }

    /// How many conditions there are, each header counted by itself.
    pub(super) fn count(&self) -> usize {
        let lists = [
            self.methods.is_empty(),
            self.hosts.is_empty(),
            self.paths.is_empty(),
        ];
        lists.iter().filter(|&&is_empty| !is_empty).count() + self.headers.len()
    }

    pub(super) fn path_rank(&self, path: &PathCondition) -> PathRank {
        match path {
            PathCondition::Prefix(prefix) => PathRank::Prefix(prefix.len()),
            PathCondition::Regex(_) => PathRank::Regex(self.regex_priority),
        }
    }

    pub(super) fn method_matches(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|wanted| wanted == method)
    }

    pub(super) fn headers_match(&self, headers: &HeaderMap, patterns: &Patterns) -> bool {
        self.headers
            .iter()
            .all(|condition| condition.matches(headers, patterns))
    }

    /// Whether the host that matches names a port; `None` if no host matches.
    pub(super) fn matching_host(&self, host: &RequestHost<'_>, port: u16) -> Option<bool> {
        if self.hosts.is_empty() {
            return Some(false);
        }
        self.hosts
            .iter()
            .filter(|pattern| pattern.matches(host, port))
            .map(|pattern| pattern.port.is_some())
            .max()
    }

    /// The highest rank of the paths that match; `None` if none does.
    pub(super) fn matching_path(&self, path: &[u8], patterns: &Patterns) -> Option<PathRank> {
        if self.paths.is_empty() {
            return Some(PathRank::Absent);
        }
        self.paths
            .iter()
            .filter(|condition| condition.matches(path, patterns))
            .map(|condition| self.path_rank(condition))
            .max()
    }
}

impl PathCondition {
    fn read<'r>(written: &'r str, pool: &mut PatternPool<'r>) -> Result<Self, String> {
        if let Some(known) = pool.known(written) {
            return Ok(Self::Regex(known));
        }
        Ok(match RoutePath::parse(written)? {
            RoutePath::Prefix(prefix) => Self::Prefix(prefix.to_owned()),
            RoutePath::Regex(pattern) => Self::Regex(pool.add(written, pattern)),
        })
    }

    /// Bytes with which every matching path begins.
    pub(super) fn literal_prefix<'c>(&'c self, patterns: &'c Patterns) -> &'c [u8] {
        match self {
            Self::Prefix(prefix) => prefix.as_bytes(),
            Self::Regex(id) => patterns.literal_prefix(*id),
        }
    }

    fn matches(&self, path: &[u8], patterns: &Patterns) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix.as_bytes()),
            Self::Regex(id) => patterns.regex(*id).is_match(path),
        }
    }
}

impl HeaderCondition {
    /// Whether any occurrence of the header has any of the values. A value is never split at
    /// commas.
    pub(super) fn matches(&self, headers: &HeaderMap, patterns: &Patterns) -> bool {
        self.matching(headers, patterns).is_some()
    }

    /// The first value that an occurrence of the header has, and that occurrence.
    pub(super) fn matching<'c, 'h>(
        &'c self,
        headers: &'h HeaderMap,
        patterns: &Patterns,
    ) -> Option<(&'c ValueCondition, &'h http::HeaderValue)> {
        headers.get_all(&self.name).iter().find_map(|sent| {
            self.values
                .iter()
                .find(|wanted| wanted.matches(sent.as_bytes(), patterns))
                .map(|wanted| (wanted, sent))
        })
    }

    /// The values, in lower case, if none of them is a regex.
    pub(super) fn whole_values(&self) -> Option<Vec<&str>> {
        let values = self.values.iter().map(|value| match value {
            ValueCondition::Whole(text) => Some(text.as_str()),
            ValueCondition::Regex(_) => None,
        });
        values.collect()
    }
}

impl ValueCondition {
    fn read<'r>(written: &'r str, pool: &mut PatternPool<'r>) -> Result<Self, String> {
        if let Some(known) = pool.known(written) {
            return Ok(Self::Regex(known));
        }
        Ok(match HeaderValue::parse(written)? {
            HeaderValue::Whole(value) => Self::Whole(value.to_ascii_lowercase()),
            HeaderValue::Regex(pattern) => Self::Regex(pool.add(written, pattern)),
        })
    }

    fn matches(&self, sent: &[u8], patterns: &Patterns) -> bool {
        match self {
            Self::Whole(wanted) => sent.eq_ignore_ascii_case(wanted.as_bytes()),
            Self::Regex(id) => patterns.regex(*id).is_match(sent),
        }
    }
}
