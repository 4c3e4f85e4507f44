//! The conditions of one route in the form in which requests are compared with them.
//!
//! Whether a method, a header, an SNI or a regex matches is decided here alone, for routing and for its
//! explanation. Hosts and prefixes are found through an index when routing; the tests hold it
//! against these definitions.

use http::HeaderName;

use super::needs::Needs;
use super::patterns::{PatternId, PatternPool, Patterns};
use super::precedence::{Attributes, PathRank, Precedence};
use super::{Field, Flavor, InvalidPattern, Rule};
use crate::entity::expression::{Comparison, Expression, Node, TextField, TextTest};
use crate::entity::host::{HostName, HostPattern, RequestHost, parse_server_name};
use crate::entity::message::Headers;
use crate::entity::path::RoutePath;
use crate::entity::pattern::HeaderValue;

/// All conditions of one route. An empty list is no condition.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) paths: Vec<PathCondition>,
    pub(super) methods: Vec<String>,
    pub(super) headers: Vec<HeaderCondition>,
    pub(super) snis: Vec<HostName>,
    /// In place of all others.
    pub(super) expression: Option<Box<ExpressionCondition>>,
    pub(super) regex_priority: i64,
    pub(super) created_at: Option<i64>,
    flavor: Flavor,
}

/// The expression of a route.
#[derive(Debug)]
pub(super) struct ExpressionCondition {
    pub(super) root: Node,
    /// The router's name for its first regex; the others follow.
    pub(super) first_pattern: PatternId,
    pub(super) priority: u64,
    /// By what it is found.
    pub(super) needs: Needs,
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
        flavor: Flavor,
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
            // Kong's older router knows a regex only where it is the one value of its name.
            let may_be_regex = flavor != Flavor::Traditional || written_values.len() == 1;
            for written in written_values {
                match ValueCondition::read(written, may_be_regex, pool) {
                    Ok(value) => values.push(value),
                    Err(message) => report(Field::Headers, written, message),
                }
            }
            headers.push(HeaderCondition {
                name: header_name,
                values,
            });
        }
        let mut snis = Vec::with_capacity(rule.snis.len());
        for written in &rule.snis {
            match parse_server_name(written) {
                Ok(name) => snis.push(name),
                Err(message) => report(Field::Snis, written, message),
            }
        }
        let expression = match rule
            .expression
            .as_deref()
            .map(Expression::parse)
            .transpose()
        {
            Ok(expression) => expression
                .map(|expression| Box::new(ExpressionCondition::new(expression, rule, pool))),
            Err(mistake) => {
                let written = rule.expression.as_deref().unwrap_or_default();
                report(Field::Expression, written, mistake.told(written));
                None
            }
        };
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
            snis,
            expression,
            regex_priority,
            created_at,
            flavor,
        })
    }

    /// How specific the route is if it matches with a path of this rank, and by a host with or
    /// without a port.
    pub(super) fn precedence(&self, path: PathRank, host_with_port: bool) -> Precedence {
        let attributes = self.attributes();
        let is_traditional = self.flavor == Flavor::Traditional;
        let expression = self.expression.as_ref();
        Precedence {
            expression: expression.map(|expression| expression.priority),
            attributes: attributes.count(),
            set: if is_traditional { attributes.0 } else { 0 },
            wildcard_host_with_port: is_traditional
                && (self.hosts.iter()).any(|host| host.name.is_wildcard() && host.port.is_some()),
            only_plain_hosts: !self.hosts.is_empty()
                && !self.hosts.iter().any(|host| host.name.is_wildcard()),
            regex_first: is_traditional && matches!(path, PathRank::Regex(_)),
            header_names: self.headers.len(),
            path,
            host_with_port: host_with_port && expression.is_none(),
        }
    }

    /// Every precedence with which the route may match.
    pub(super) fn precedences(&self) -> impl Iterator<Item = Precedence> {
        let listed = self.paths.iter().map(|path| self.path_rank(path));
        let absent = self.paths.is_empty() || self.expression.is_some();
        let ranks = listed.chain(absent.then_some(PathRank::Absent));
        ranks.flat_map(|rank| [false, true].map(|with_port| self.precedence(rank, with_port)))
    }

    /// Whether more is asked of a request than its host and its path.
    pub(super) fn are_beyond_host_and_path(&self) -> bool {
        self.expression.is_some()
            || !(self.methods.is_empty() && self.headers.is_empty() && self.snis.is_empty())
    }

    /// Which attributes the route has.
    pub(super) fn attributes(&self) -> Attributes {
        Attributes::new([
            !self.snis.is_empty(),
            !self.methods.is_empty(),
            !self.paths.is_empty(),
            !self.headers.is_empty(),
            !self.hosts.is_empty(),
        ])
    }

    /// How many conditions there are, each header and each predicate counted by itself.
    pub(super) fn count(&self) -> usize {
        let lists = [
            self.methods.is_empty(),
            self.hosts.is_empty(),
            self.paths.is_empty(),
            self.snis.is_empty(),
        ];
        let predicates = (self.expression.as_ref())
            .map_or(0, |expression| count_of_predicates(&expression.root));
        lists.iter().filter(|&&is_empty| !is_empty).count() + self.headers.len() + predicates
    }

    /// The hosts by which the route is found; none: any host.
    pub(super) fn sought_hosts(&self) -> &[HostPattern] {
        match &self.expression {
            Some(expression) => &expression.needs.hosts,
            None => &self.hosts,
        }
    }

    /// Whether the name that a TLS client asked for will do; `None` is a request without TLS, of
    /// which nothing is asked.
    pub(super) fn sni_matches(&self, sni: Option<&str>) -> bool {
        let Some(sni) = sni.filter(|_| !self.snis.is_empty()) else {
            return true;
        };
        let name = RequestHost::new(sni);
        self.snis.iter().any(|wanted| wanted.matches(&name))
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

    pub(super) fn headers_match(&self, headers: &Headers, patterns: &Patterns) -> bool {
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

fn count_of_predicates(node: &Node) -> usize {
    match node {
        Node::All(parts) | Node::Any(parts) => parts.iter().map(count_of_predicates).sum(),
        Node::Not(inner) => count_of_predicates(inner),
        Node::Is(_) => 1,
    }
}

fn collect_methods<'n>(node: &'n Node, methods: &mut Vec<&'n str>) {
    match node {
        Node::All(parts) | Node::Any(parts) => {
            parts.iter().for_each(|part| collect_methods(part, methods));
        }
        Node::Not(inner) => collect_methods(inner, methods),
        Node::Is(predicate) => {
            if let Comparison::Text {
                field: TextField::Method,
                test: TextTest::Equals(method),
                ..
            } = &predicate.comparison
            {
                methods.push(method);
            }
        }
    }
}

impl ExpressionCondition {
    /// The methods that it asks for somewhere.
    pub(super) fn methods(&self) -> Vec<&str> {
        let mut methods = Vec::new();
        collect_methods(&self.root, &mut methods);
        methods
    }

    fn new(expression: Expression, rule: &Rule, pool: &mut PatternPool<'_>) -> Self {
        let needs = Needs::of(&expression);
        Self {
            root: expression.root,
            first_pattern: pool.add_all(expression.patterns),
            priority: rule.priority,
            needs,
        }
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
    pub(super) fn matches(&self, headers: &Headers, patterns: &Patterns) -> bool {
        self.matching(headers, patterns).is_some()
    }

    /// The first value that an occurrence of the header has, and that occurrence.
    pub(super) fn matching<'c, 'h>(
        &'c self,
        headers: &'h Headers,
        patterns: &Patterns,
    ) -> Option<(&'c ValueCondition, &'h http::HeaderValue)> {
        headers.get_all(&self.name).find_map(|sent| {
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
    fn read<'r>(
        written: &'r str,
        may_be_regex: bool,
        pool: &mut PatternPool<'r>,
    ) -> Result<Self, String> {
        if !may_be_regex {
            return Ok(Self::Whole(written.to_ascii_lowercase()));
        }
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
