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

use http::HeaderMap;
use regex::bytes::Regex;

use candidates::Candidate;
use conditions::Conditions;
use evaluation::Evaluation;
pub use explain::{Explanation, Finding, Likeness, Loser, LossReason, Met, Mismatch, Subject};
use index::Index;
pub use patterns::PatternId;
use patterns::{PatternPool, Patterns};
pub use precedence::Criterion;
use precedence::{Contest, PathRank};
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
    pub headers: &'a HeaderMap,
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
    pub const fn plain(headers: &'a HeaderMap) -> Self {
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
    conditions: Vec<Conditions>,
    patterns: Patterns,
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
        let index = Index::build(&conditions, &patterns);
        Ok(Self {
            conditions,
            patterns,
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

    /// Compares what the index has not: SNI, headers and regex, the cheaper first; or an expression.
    fn match_but_for_method<'r>(
        &'r self,
        candidate: &'r Candidate,
        key: &Key<'_>,
    ) -> Option<Hit<'r>> {
        let conditions = &self.conditions[candidate.route()];
        let path = if let Some(expression) = &conditions.expression {
            Evaluation::new(expression, &self.patterns, key).outcome()?
        } else {
            if !(conditions.sni_matches(key.sni)
                && conditions.headers_match(key.headers, &self.patterns))
            {
                return None;
            }
            match (candidate.precedence.path, candidate.regex) {
                (_, Some(pattern)) => MatchedPath::Regex {
                    len: self.patterns.regex(pattern).find(key.path)?.end(),
                    pattern,
                },
                (PathRank::Prefix(len), None) => MatchedPath::Prefix(len),
                (_, None) => MatchedPath::None,
            }
        };
        Some(Hit { candidate, path })
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
        Router::build(rules, Flavor::default()).unwrap()
    }

    /// A GET request on port 80 with the header `x-a: 1`.
    fn with_key<R>(host: &str, path: &str, look_up: impl FnOnce(&Key<'_>) -> R) -> R {
        let headers =
            [("x-a", "1")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers);
        look_up(&Key {
            host,
            path: path.as_bytes(),
            ..Key::plain(&headers)
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
        let invalid = Router::build(&rules, Flavor::default()).unwrap_err();
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

    fn sni(name: &str) -> Rule {
        Rule {
            snis: texts(&[name]),
            ..Rule::default()
        }
    }

    #[test]
    fn a_server_name_is_compared_only_where_there_is_tls() {
        let router = router(&[sni("a.test"), sni("*.b.test"), sni("c.*")]);
        let found = |sni| {
            let headers = HeaderMap::new();
            let key = Key {
                sni,
                ..Key::plain(&headers)
            };
            router.find(&key).map(|found| found.route)
        };
        for (name, route) in [
            ("a.test", Some(0)),
            ("A.test.", Some(0)),
            ("x.y.b.test", Some(1)),
            ("b.test", None),
            ("c.d", Some(2)),
            ("", None),
        ] {
            assert_eq!(found(Some(name)), route, "{name}");
        }
        assert_eq!(found(None), Some(0));
    }

    #[test]
    fn an_expression_goes_before_every_attribute_and_the_higher_priority_first() {
        let expression = |source: &str, priority| Rule {
            expression: Some(source.to_owned()),
            priority,
            ..Rule::default()
        };
        let rules = [
            both(host("a.test"), path("~/.*")),
            expression(r#"http.path ^= "/a""#, 1),
            expression(r#"http.path ^= "/a/b""#, 0),
            expression(r#"http.method == "GET" && http.path == "/a""#, 2),
        ];
        let router = Router::build(&rules, Flavor::Expressions).unwrap();
        let winner = |path| {
            with_key("a.test", path, |key| {
                router.find(key).map(|found| found.route)
            })
        };
        assert_eq!(winner("/a"), Some(3));
        assert_eq!(winner("/a/b"), Some(1));
        assert_eq!(winner("/b"), Some(0));
    }

    #[test]
    fn the_allowed_methods_of_expressions_are_those_with_which_they_hold() {
        let rules = [
            Rule {
                expression: Some(
                    r#"(http.method == "PUT" || http.method == "POST") && http.path ^= "/a""#
                        .to_owned(),
                ),
                ..Rule::default()
            },
            both(path("/a"), method("DELETE")),
        ];
        let router = Router::build(&rules, Flavor::Expressions).unwrap();
        let allowed = |path| with_key("", path, |key| router.allowed_methods(key).join(", "));
        assert_eq!(allowed("/a"), "DELETE, POST, PUT");
        assert_eq!(allowed("/b"), "");
    }

    #[test]
    fn the_traditional_flavour_puts_hosts_before_paths() {
        let rules = [path("/a"), host("*.test")];
        let winner = |flavor| {
            let router = Router::build(&rules, flavor).unwrap();
            with_key("a.test", "/a", |key| {
                router.find(key).map(|found| found.route)
            })
        };
        assert_eq!(winner(Flavor::TraditionalCompatible), Some(0));
        assert_eq!(winner(Flavor::Traditional), Some(1));
    }

    #[test]
    fn the_traditional_flavour_puts_a_regex_before_more_headers() {
        let two_headers = both(header("x-a", "1"), header("x-b", "2"));
        let rules = [
            both(path("/a"), two_headers),
            both(path("~/a"), header("x-a", "1")),
        ];
        let headers = [("x-a", "1"), ("x-b", "2")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers);
        let winner = |flavor| {
            let router = Router::build(&rules, flavor).unwrap();
            let key = Key {
                path: b"/a",
                ..Key::plain(&headers)
            };
            router.find(&key).map(|found| found.route)
        };
        assert_eq!(winner(Flavor::TraditionalCompatible), Some(0));
        assert_eq!(winner(Flavor::Traditional), Some(1));
    }

    #[test]
    fn an_explanation_of_expressions_names_what_fails_with_its_value() {
        let expression = |source: &str| Rule {
            expression: Some(source.to_owned()),
            ..Rule::default()
        };
        let rules = [
            expression(r#"http.path ^= "/a" && (http.method == "GET" || http.host == "b.test")"#),
            expression(r#"http.method == "PUT" && (http.path == "/b" || http.headers.x_b == "1")"#),
            expression(r#"!(http.path ^= "/a")"#),
            path("/a"),
        ];
        let router = Router::build(&rules, Flavor::Expressions).unwrap();
        let explanation = with_key("a.test", "/a/b", |key| router.explain(key));
        let met: Vec<String> = explanation.met.iter().map(ToString::to_string).collect();
        assert_eq!(
            met,
            [
                "`http.path ^= \"/a\"` holds: it is `/a/b`",
                "`http.method == \"GET\"` holds: it is `GET`",
            ]
        );
        let reasons: Vec<String> = explanation
            .losers
            .iter()
            .map(|loser| loser.reason.to_string())
            .collect();
        assert_eq!(
            reasons,
            [
                "`http.method == \"PUT\"` does not hold: it is `GET`; `http.path == \"/b\"` does not hold: it is `/a/b`; \
                 `http.headers.x_b == \"1\"` does not hold: it has no value",
                "`http.path ^= \"/a\"` holds and should not: it is `/a/b`",
                "it matches, but the winner has an expression, this route has attributes",
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
