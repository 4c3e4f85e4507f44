//! From a request to a route, in Kong's three flavours: of the routes whose conditions all hold, the
//! most specific one wins; a route with an expression goes before all others.
//!
//! Pure: no I/O, no sockets, no knowledge of services or plugins. `protocols` are not decided here.

mod candidates; // the routes at one host and prefix, in the order in which they are tried
mod conditions; // what one route asks for, and whether a request meets it
mod evaluation; // whether a request meets an expression
mod explain; // how the winner matches, and why the other routes lost
mod host; // from a host to what is stored for it
mod index; // from host and path to the few routes worth comparing
mod needs; // what a request must have for an expression to hold
pub mod path; // the path for the upstream, once a route is found
mod patterns; // the regexes of all routes
mod precedence; // which of several matching routes wins
mod prefix_forest; // from a path to all prefixes of it
#[cfg(test)]
mod reference; // the same rules in the most obvious code: our specification
mod shadow; // routes that no request can reach
pub mod streams; // the same for connections of which nothing is read

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use regex::bytes::Regex;

use crate::entity::message::Headers;

use candidates::{Candidate, CandidatePath};
use conditions::Conditions;
use evaluation::Evaluation;
pub use explain::{Explanation, Finding, Likeness, Loser, LossReason, Met, Mismatch, Subject};
use index::Index;
pub use patterns::PatternId;
use patterns::{PatternPool, Patterns};
pub use precedence::Criterion;
use precedence::{Contest, Ranking};
pub use shadow::Shadowed;

/// In which order routes are tried, as in Kong's setting of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavor {
    /// By the number of attributes, then by what they are.
    #[default]
    TraditionalCompatible,
    /// The same with other weights.
    Traditional,
    /// Expressions by priority, then the others as in [`Self::TraditionalCompatible`].
    Expressions,
}

/// The conditions of one route. An empty list is no condition. A rule has an expression or lists.
///
/// A route's index is its place in the slice given to [`Router::build`], which is the order of the
/// file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Names and addresses, maybe with one wildcard, maybe with a port; see
    /// [`HostPattern::parse`](crate::entity::host::HostPattern::parse).
    pub hosts: Vec<String>,
    /// `/…`: a prefix in normal form; `~/…`: a regex, anchored at the start.
    pub paths: Vec<String>,
    /// Methods, compared exactly.
    pub methods: Vec<String>,
    /// Header names, each once, with the values that will do; `~*…` is a regex over the value. A
    /// name without values is never met.
    pub headers: Vec<(String, Vec<String>)>,
    /// Server names, maybe with one wildcard; see
    /// [`parse_server_name`](crate::entity::host::parse_server_name).
    pub snis: Vec<String>,
    /// See [`Expression::parse`](crate::entity::expression::Expression::parse).
    pub expression: Option<String>,
    /// Among routes with an expression, the higher is tried first.
    pub priority: u64,
    /// Among routes that match with a regex and are equal otherwise, the higher wins.
    pub regex_priority: i64,
    /// Among equal routes that both have it, the smaller wins.
    pub created_at: Option<i64>,
}

/// What routing looks at in a request.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// As sent.
    pub method: &'a str,
    /// The Host without its port, as sent; empty if there is none.
    pub host: &'a str,
    /// The port in the Host, else as [`Router::port_by_scheme`] says.
    pub port: u16,
    /// Normalised by [`normalise`](crate::entity::path::normalise).
    pub path: &'a [u8],
    /// As sent.
    pub headers: &'a Headers,
    /// The server name that a TLS client asked for, empty if none; `None`: no TLS.
    pub sni: Option<&'a str>,
    /// Without `?`, as sent.
    pub query: &'a str,
    /// `http` or `https`.
    pub protocol: &'a str,
    /// The client.
    pub source: SocketAddr,
    /// The address that took the connection, if it is known.
    pub destination: Option<IpAddr>,
}

impl<'a> Key<'a> {
    /// A GET in plain text on port 80 with these headers, from nowhere, without host and path.
    pub const fn plain(headers: &'a Headers) -> Self {
        Self {
            method: "GET",
            host: "",
            port: 80,
            path: b"",
            headers,
            sni: None,
            query: "",
            protocol: "http",
            source: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            destination: None,
        }
    }
}

/// A route for a request.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    /// The route's index.
    pub route: usize,
    /// What matched the path.
    pub path: MatchedPath,
}

/// What matched a request's path.
#[derive(Clone, Copy, Debug)]
pub enum MatchedPath {
    /// The route has no paths.
    None,
    /// A prefix of this many bytes.
    Prefix(usize),
    /// A regex. If several of the route match, the first that it lists; in an expression, the last
    /// that made it hold.
    Regex {
        /// How many bytes of the path it matched, from the start; 1 if not from the start.
        len: usize,
        /// For [`Router::regex`].
        pattern: PatternId,
    },
}

impl MatchedPath {
    /// How many bytes `strip_path` takes off the path. Without a path the route counts as one for
    /// `/`.
    pub fn cut_len(&self) -> usize {
        match *self {
            Self::None => 1,
            Self::Prefix(len) | Self::Regex { len, .. } => len,
        }
    }
}

/// A pattern that keeps [`Router::build`] from building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPattern {
    /// The index of the rule.
    pub rule: usize,
    /// The list that the pattern is in.
    pub field: Field,
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it, in a sentence that quotes it.
    pub message: String,
}

/// A list of a [`Rule`] that holds patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// [`Rule::hosts`].
    Hosts,
    /// [`Rule::paths`].
    Paths,
    /// [`Rule::headers`].
    Headers,
    /// [`Rule::snis`].
    Snis,
    /// [`Rule::expression`].
    Expression,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hosts => "hosts",
            Self::Paths => "paths",
            Self::Headers => "headers",
            Self::Snis => "snis",
            Self::Expression => "expression",
        })
    }
}

/// A table of routes, immutable once built.
#[derive(Debug)]
pub struct Router {
    conditions: Box<[Conditions]>,
    patterns: Patterns,
    ranking: Ranking,
    index: Index,
    flavor: Flavor,
}

/// A candidate that matches, and what matched the path.
#[derive(Clone, Copy, Debug)]
struct Hit<'r> {
    candidate: &'r Candidate,
    path: MatchedPath,
}

impl Router {
    /// Builds the table, or reports every pattern in `rules` that is invalid.
    pub fn build(rules: &[Rule], flavor: Flavor) -> Result<Self, Vec<InvalidPattern>> {
        let mut pool = PatternPool::default();
        let mut conditions = Vec::with_capacity(rules.len());
        let mut invalid = Vec::new();
        for (route, rule) in rules.iter().enumerate() {
            match Conditions::read(route, rule, flavor, &mut pool) {
                Ok(read) => conditions.push(read),
                Err(mistakes) => invalid.extend(mistakes),
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let patterns = pool.into_patterns();
        let ranking = Ranking::new(conditions.iter().flat_map(Conditions::precedences));
        let index = Index::build(&conditions, &patterns, &ranking);
        Ok(Self {
            conditions: conditions.into(),
            patterns,
            ranking,
            index,
            flavor,
        })
    }

    /// The route for a request.
    ///
    /// Takes no lock and makes no allocation, except for the first use of a regex, for a text of more
    /// than 128 bytes that is compared in lower case, and for an encoded argument of the query.
    pub fn find(&self, key: &Key<'_>) -> Option<Match> {
        let Hit { candidate, path } = self.best(key)?;
        Some(Match {
            route: candidate.route(),
            path,
        })
    }

    /// Whether a request whose Host has no port is one for the usual port of its scheme, as in the
    /// flavour `traditional`; else it is one for the listener's.
    pub fn port_by_scheme(&self) -> bool {
        self.flavor == Flavor::Traditional
    }

    /// The regex that a match names, for its captures: it matches the same path again.
    pub fn regex(&self, pattern: PatternId) -> &Regex {
        self.patterns.regex(pattern)
    }

    /// The methods of the routes that only the request's method keeps from matching, sorted: an
    /// `Allow` header, where [`Self::find`] found nothing.
    pub fn allowed_methods(&self, key: &Key<'_>) -> Vec<&str> {
        let mut allowed = BTreeSet::new();
        self.index.visit(key, None, |candidates| {
            for candidate in candidates {
                let conditions = &self.conditions[candidate.route()];
                if let Some(expression) = &conditions.expression {
                    allowed.extend(expression.methods().into_iter().filter(|method| {
                        let key = Key { method, ..*key };
                        Evaluation::new(expression, &self.patterns, &key)
                            .outcome()
                            .is_some()
                    }));
                } else if !conditions.method_matches(key.method)
                    && self.match_but_for_method(candidate, key).is_some()
                {
                    allowed.extend(conditions.methods.iter().map(String::as_str));
                }
            }
        });
        allowed.into_iter().collect()
    }

    fn best(&self, key: &Key<'_>) -> Option<Hit<'_>> {
        let mut contest = Contest::new();
        self.index.visit(key, Some(key.method), |candidates| {
            for candidate in candidates {
                let seniority = candidate.seniority(&self.conditions);
                let Ok(is_admitted) = contest.admits(&candidate.rank, &seniority) else {
                    break;
                };
                if is_admitted
                    && (!candidate.is_conditional
                        || self.conditions[candidate.route()].method_matches(key.method))
                    && let Some(hit) = self.match_but_for_method(candidate, key)
                {
                    contest.enter(candidate.rank, seniority, hit);
                }
            }
        });
        contest.winner()
    }

    /// Compares what the index has not: SNI, headers and regex, the cheaper first; or an expression.
    fn match_but_for_method<'r>(
        &'r self,
        candidate: &'r Candidate,
        key: &Key<'_>,
    ) -> Option<Hit<'r>> {
        if candidate.is_conditional {
            let conditions = &self.conditions[candidate.route()];
            if let Some(expression) = &conditions.expression {
                let path = Evaluation::new(expression, &self.patterns, key).outcome()?;
                return Some(Hit { candidate, path });
            }
            if !(conditions.sni_matches(key.sni)
                && conditions.headers_match(key.headers, &self.patterns))
            {
                return None;
            }
        }
        let path = match candidate.path {
            CandidatePath::Regex(pattern) => MatchedPath::Regex {
                len: self.patterns.regex(pattern).find(key.path)?.end(),
                pattern,
            },
            CandidatePath::Prefix(len) => MatchedPath::Prefix(len as usize),
            CandidatePath::Absent => MatchedPath::None,
        };
        Some(Hit { candidate, path })
    }
}

#[cfg(test)]
mod tests;
