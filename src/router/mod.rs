//! From a request's method, host, path and headers to a route, in Kong's flavour
//! `traditional_compatible`: of the routes whose conditions all hold, the most specific one wins.
//!
//! Pure: no I/O, no sockets, no knowledge of services or plugins. `snis` and `protocols` are not
//! decided here.

mod candidates; // the routes at one host and prefix, in the order in which they are tried
mod conditions; // what one route asks for, and whether a request meets it
mod explain; // how the winner matches, and why the other routes lost
mod host; // from a host to what is stored for it
mod index; // from host and path to the few routes worth comparing
pub mod path; // the path for the upstream, once a route is found
mod patterns; // the regexes of all routes
mod precedence; // which of several matching routes wins
mod prefix_forest; // from a path to all prefixes of it
#[cfg(test)]
mod reference;
pub mod streams; // the same for connections of which nothing is read // the same rules in the most obvious code: our specification

use std::collections::BTreeSet;
use std::fmt;

use http::HeaderMap;
use regex::bytes::Regex;

use candidates::Candidate;
use conditions::Conditions;
pub use explain::{Explanation, Likeness, Loser, LossReason, Met, Mismatch};
use index::Index;
pub use patterns::PatternId;
use patterns::{PatternPool, Patterns};
pub use precedence::Criterion;
use precedence::{Contest, PathRank};

/// The conditions of one route. An empty list is no condition.
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
    /// The port in the Host, else the listener's.
    pub port: u16,
    /// Normalised by [`normalise`](crate::entity::path::normalise).
    pub path: &'a [u8],
    /// As sent.
    pub headers: &'a HeaderMap,
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
    /// A regex. If several of the route match, the first that it lists.
    Regex {
        /// How many bytes of the path it matched, from the start.
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
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hosts => "hosts",
            Self::Paths => "paths",
            Self::Headers => "headers",
        })
    }
}

/// A table of routes, immutable once built.
#[derive(Debug)]
pub struct Router {
    conditions: Vec<Conditions>,
    patterns: Patterns,
    index: Index,
}

/// A candidate that matches, and how much of the path its regex took.
#[derive(Clone, Copy, Debug)]
struct Hit<'r> {
    candidate: &'r Candidate,
    regex_len: usize,
}

impl Router {
    /// Builds the table, or reports every pattern in `rules` that is invalid.
    pub fn build(rules: &[Rule]) -> Result<Self, Vec<InvalidPattern>> {
        let mut pool = PatternPool::default();
        let mut conditions = Vec::with_capacity(rules.len());
        let mut invalid = Vec::new();
        for (route, rule) in rules.iter().enumerate() {
            match Conditions::read(route, rule, &mut pool) {
                Ok(read) => conditions.push(read),
                Err(mistakes) => invalid.extend(mistakes),
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let patterns = pool.into_patterns();
        let index = Index::build(&conditions, &patterns);
        Ok(Self {
            conditions,
            patterns,
            index,
        })
    }

    /// The route for a request.
    ///
    /// Takes no lock and makes no allocation, except for the first use of a regex and for a host or
    /// header value of more than 128 bytes in upper case.
    pub fn find(&self, key: &Key<'_>) -> Option<Match> {
        let Hit {
            candidate,
            regex_len,
        } = self.best(key)?;
        let path = match (candidate.precedence.path, candidate.regex) {
            (_, Some(id)) => MatchedPath::Regex {
                len: regex_len,
                pattern: id,
            },
            (PathRank::Prefix(len), None) => MatchedPath::Prefix(len),
            (_, None) => MatchedPath::None,
        };
        Some(Match {
            route: candidate.route(),
            path,
        })
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
                if !conditions.method_matches(key.method)
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
                let Ok(is_admitted) = contest.admits(&candidate.precedence, &candidate.seniority)
                else {
                    break;
                };
                if is_admitted
                    && self.conditions[candidate.route()].method_matches(key.method)
                    && let Some(hit) = self.match_but_for_method(candidate, key)
                {
                    contest.enter(candidate.precedence, candidate.seniority, hit);
                }
            }
        });
        contest.winner()
    }

    /// Compares what the index has not: headers and regex, the cheaper first.
    fn match_but_for_method<'r>(
        &'r self,
        candidate: &'r Candidate,
        key: &Key<'_>,
    ) -> Option<Hit<'r>> {
        if !self.conditions[candidate.route()].headers_match(key.headers, &self.patterns) {
            return None;
        }
        let regex_len = match candidate.regex {
            Some(id) => self.patterns.regex(id).find(key.path)?.end(),
            None => 0,
        };
        Some(Hit {
            candidate,
            regex_len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn host(host: &str) -> Rule {
        Rule {
            hosts: texts(&[host]),
            ..Rule::default()
        }
    }

    fn path(path: &str) -> Rule {
        Rule {
            paths: texts(&[path]),
            ..Rule::default()
        }
    }

    fn method(method: &str) -> Rule {
        Rule {
            methods: texts(&[method]),
            ..Rule::default()
        }
    }

    fn header(name: &str, value: &str) -> Rule {
        Rule {
            headers: vec![(name.to_owned(), texts(&[value]))],
            ..Rule::default()
        }
    }

    /// One rule with the conditions of both.
    fn both(left: Rule, right: Rule) -> Rule {
        Rule {
            hosts: [left.hosts, right.hosts].concat(),
            paths: [left.paths, right.paths].concat(),
            methods: [left.methods, right.methods].concat(),
            headers: [left.headers, right.headers].concat(),
            ..left
        }
    }

    fn router(rules: &[Rule]) -> Router {
        Router::build(rules).unwrap()
    }

    /// A GET request on port 80 with the header `x-a: 1`.
    fn with_key<R>(host: &str, path: &str, look_up: impl FnOnce(&Key<'_>) -> R) -> R {
        let headers =
            [("x-a", "1")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers);
        look_up(&Key {
            method: "GET",
            host,
            port: 80,
            path: path.as_bytes(),
            headers: &headers,
        })
    }

    fn route(rules: &[Rule], host: &str, path: &str) -> Option<usize> {
        let router = router(rules);
        with_key(host, path, |key| router.find(key).map(|found| found.route))
    }

    #[test]
    fn more_conditions_beat_a_longer_path() {
        assert_eq!(
            route(
                &[path("/orders/new"), both(host("a.test"), path("/"))],
                "a.test",
                "/orders/new"
            ),
            Some(1)
        );
        assert_eq!(
            route(
                &[host("a.test"), both(host("a.test"), path("/"))],
                "a.test",
                "/"
            ),
            Some(1)
        );
    }

    #[test]
    fn a_regex_beats_even_the_whole_path_as_a_prefix() {
        assert_eq!(
            route(
                &[path("/orders/42"), path(r"~/orders/\d")],
                "",
                "/orders/42"
            ),
            Some(1)
        );
    }

    #[test]
    fn a_prefix_needs_no_segment_boundary() {
        assert_eq!(route(&[path("/foo")], "", "/foobar"), Some(0));
    }

    #[test]
    fn a_better_candidate_that_fails_falls_through_to_the_next() {
        let rules = [
            path("/"),
            both(path("/orders"), method("POST")),
            both(path("/orders"), header("x-a", "2")),
        ];
        assert_eq!(route(&rules, "", "/orders"), Some(0));
    }

    #[test]
    fn a_host_with_its_port_comes_before_the_host_alone() {
        assert_eq!(
            route(&[host("a.test"), host("a.test:80")], "a.test", "/"),
            Some(1)
        );
    }

    #[test]
    fn among_equal_routes_the_older_or_else_the_first_wins() {
        let dated = |created_at| Rule {
            created_at: Some(created_at),
            ..path("/")
        };
        assert_eq!(route(&[path("/"), path("/")], "", "/"), Some(0));
        assert_eq!(route(&[dated(2), dated(1)], "", "/"), Some(1));
        assert_eq!(route(&[path("/"), dated(1)], "", "/"), Some(0));
    }

    #[test]
    fn a_match_says_what_strip_path_cuts() {
        let router = router(&[
            path(r"~/users/(?<id>\d+)"),
            path("/static/"),
            host("a.test"),
        ]);
        let cut = |host, path| with_key(host, path, |key| router.find(key).unwrap().path.cut_len());
        assert_eq!(cut("", "/users/42/x"), "/users/42".len());
        assert_eq!(cut("", "/static/x"), "/static/".len());
        assert_eq!(cut("a.test", "/x"), 1);
    }

    #[test]
    fn captures_can_be_taken_from_the_path_that_matched() {
        let router = router(&[path(r"~/users/(?<id>\d+)")]);
        let path = "/users/42/x";
        with_key("", path, |key| {
            let MatchedPath::Regex { pattern, .. } = router.find(key).unwrap().path else {
                unreachable!()
            };
            let regex = router.regex(pattern);
            assert_eq!(&regex.captures(path.as_bytes()).unwrap()["id"], b"42");
        });
    }

    #[test]
    fn the_allowed_methods_are_those_of_routes_that_only_the_method_excludes() {
        let rules = [
            both(
                path("/orders"),
                Rule {
                    methods: texts(&["PUT", "POST"]),
                    ..Rule::default()
                },
            ),
            both(path("/orders"), method("POST")),
            both(path("/users"), method("DELETE")),
            both(both(path("/orders"), method("PATCH")), header("x-a", "2")),
        ];
        assert_eq!(
            with_key("", "/orders", |key| router(&rules)
                .allowed_methods(key)
                .join(", ")),
            "POST, PUT"
        );
    }

    #[test]
    fn every_invalid_pattern_is_reported() {
        let rules = [
            both(both(host("a.*.b"), path("/a//b")), header("x-a", "~*(")),
            path("/"),
            both(path(r"~/(?!a)"), header("x a", "1")),
        ];
        let invalid = Router::build(&rules).unwrap_err();
        let places: Vec<_> = invalid
            .iter()
            .map(|invalid| (invalid.rule, invalid.field, invalid.pattern.as_str()))
            .collect();
        assert_eq!(
            places,
            [
                (0, Field::Hosts, "a.*.b"),
                (0, Field::Paths, "/a//b"),
                (0, Field::Headers, "~*("),
                (2, Field::Paths, r"~/(?!a)"),
                (2, Field::Headers, "x a"),
            ]
        );
    }

    #[test]
    fn an_explanation_reads_as_sentences() {
        let rules = [
            path("/orders"),
            path("/"),
            both(
                both(host("*.b.test"), path(r"~/users/\d")),
                both(method("POST"), header("x-a", "~*two")),
            ),
            header("x-b", "3"),
        ];
        let explanation = with_key("A.test.", "/orders", |key| router(&rules).explain(key));
        assert_eq!(explanation.winner, Some(0));
        let reasons: Vec<String> = explanation
            .losers
            .iter()
            .map(|loser| loser.reason.to_string())
            .collect();
        assert_eq!(
            reasons,
            [
                "it matches, but the winner's prefix has 7 bytes, this route's has 1",
                "host `a.test` on port 80 is not `*.b.test`; path `/orders` does not begin with a match of \
                 `~/users/\\d`; method `GET` is not `POST`; header `x-a` is `1` and should be `~*two`",
                "header `x-b` is absent and should be `3`",
            ]
        );
    }

    #[test]
    fn the_winners_conditions_are_told_with_what_meets_them() {
        let rules = [both(
            both(host("*.test"), path(r"~/users/(?<id>\d+)/([a-z]*)")),
            both(method("GET"), header("x-a", "~*^1")),
        )];
        let explanation = with_key("A.test.", "/users/7/cart", |key| {
            router(&rules).explain(key)
        });
        let met: Vec<String> = explanation.met.iter().map(ToString::to_string).collect();
        assert_eq!(
            met,
            [
                "host `a.test` on port 80 is `*.test`",
                r"the path begins with a match of `~/users/(?<id>\d+)/([a-z]*)`: `/users/7/cart`, id = `7`, 2 = `cart`",
                "the method is `GET`",
                "header `x-a` is `1`, as `~*^1` asks",
            ]
        );
    }

    #[test]
    fn the_nearest_losers_match_or_fail_least_or_share_most_of_the_path() {
        let rules = [
            path("/users"),
            path("/ordinary"),
            both(path("/orders"), method("POST")),
            path("/"),
            both(path("/users"), method("POST")),
            path("/orders"),
            path("/order"),
        ];
        let mut losers = with_key("a.test", "/orders", |key| router(&rules).explain(key)).losers;
        losers.sort_by_key(|loser| std::cmp::Reverse(loser.likeness));
        let nearest: Vec<usize> = losers.iter().map(|loser| loser.route).collect();
        assert_eq!(nearest, [6, 3, 2, 1, 0, 4]);
    }

    #[test]
    fn a_router_can_be_shared_between_threads() {
        fn is_shareable<T: Send + Sync + 'static>(_: &T) {}
        is_shareable(&router(&[path("/")]));
    }
}
