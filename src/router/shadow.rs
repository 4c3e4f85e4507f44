//! Routes that no request can reach, because one other route takes whatever they match and always
//! goes first. What several routes take together is not added up, so not every such route is found;
//! what is found is certain.

use std::collections::HashMap;

use http::HeaderValue;

use super::candidates::Candidate;
use super::conditions::{Conditions, HeaderCondition, PathCondition, ValueCondition};
use super::precedence::{PathRank, Precedence, Seniority};
use super::{Key, Router};
use crate::entity::host::{HostName, HostPattern};
use crate::entity::message::Headers;

/// So many rivals of one path of a route are compared; more stand only where hundreds of routes share
/// one path and tell requests apart by regexes.
const RIVALS_MAX: usize = 256;

/// So many times in all a regex is tried on a prefix, because the first time compiles it.
const REGEX_TRIALS_MAX: usize = 500;

/// Neither a method nor a label of a host, so it stands for those that nobody lists.
const UNLISTED: &str = "\u{1}";

/// A route that cannot win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its index.
    pub route: usize,
    /// The index of a route that takes all that it matches and goes first; if it has several paths,
    /// of the first one.
    pub by: usize,
}

impl Router {
    /// Routes that can never win, in the order of the file.
    pub fn shadowed(&self) -> Vec<Shadowed> {
        let mut search = Search {
            router: self,
            regex_trials: 0,
        };
        let expressions = self.best_of_each_expression();
        let routes = 0..self.conditions.len();
        routes
            .filter_map(|route| {
                let by = match &self.conditions[route].expression {
                    Some(expression) => {
                        let own = self.standing(route);
                        let best = expressions.get(&expression.root.to_string())?;
                        best.is_ahead_of(&own).then_some(best.route())?
                    }
                    None => search.cover_of_route(route)?,
                };
                Some(Shadowed { route, by })
            })
            .collect()
    }

    /// By the text of each expression, the route that goes first among those that have it.
    fn best_of_each_expression(&self) -> HashMap<String, Standing> {
        let mut best: HashMap<String, Standing> = HashMap::new();
        for (route, conditions) in self.conditions.iter().enumerate() {
            let Some(expression) = &conditions.expression else {
                continue;
            };
            let own = self.standing(route);
            best.entry(expression.root.to_string())
                .and_modify(|best| {
                    if own.is_ahead_of(best) {
                        *best = own;
                    }
                })
                .or_insert(own);
        }
        best
    }

    /// Where a route with an expression stands.
    fn standing(&self, route: usize) -> Standing {
        let conditions = &self.conditions[route];
        Standing {
            precedence: conditions.precedence(PathRank::Absent, false),
            seniority: Seniority {
                created_at: conditions.created_at,
                position: (route, 0),
            },
        }
    }
}

/// Where one way to match a route stands among all.
#[derive(Clone, Copy)]
struct Standing {
    precedence: Precedence,
    seniority: Seniority,
}

impl Standing {
    fn route(&self) -> usize {
        self.seniority.position.0
    }

    /// Whether `other` never wins where `self` matches too.
    fn is_ahead_of(&self, other: &Self) -> bool {
        self.precedence > other.precedence
            || self.precedence == other.precedence && self.seniority.always_beats(&other.seniority)
    }
}

struct Search<'r> {
    router: &'r Router,
    regex_trials: usize,
}

impl Search<'_> {
    /// The route that covers the first path of this one, if each path is covered by some route.
    fn cover_of_route(&mut self, route: usize) -> Option<usize> {
        let conditions = &self.router.conditions[route];
        let first = self.cover(route, conditions, 0, conditions.paths.first())?;
        for (place, path) in conditions.paths.iter().enumerate().skip(1) {
            self.cover(route, conditions, place, Some(path))?;
        }
        Some(first)
    }

    /// A route that covers one path of a route.
    ///
    /// It matches in particular a request that has nothing but what the path asks for, so it stands
    /// where the index looks for that one.
    fn cover(
        &mut self,
        route: usize,
        conditions: &Conditions,
        place: usize,
        path: Option<&PathCondition>,
    ) -> Option<usize> {
        let router = self.router;
        let rank = path.map_or(PathRank::Absent, |path| conditions.path_rank(path));
        let names_port = conditions.hosts.iter().any(|host| host.port.is_some());
        let own = Standing {
            precedence: conditions.precedence(rank, names_port),
            seniority: Seniority {
                created_at: conditions.created_at,
                position: (route, place),
            },
        };
        let (host, port) = conditions
            .hosts
            .first()
            .map_or_else(Default::default, example);
        let headers = example_headers(&conditions.headers);
        let key = Key {
            host: &host,
            port,
            path: path.map_or(&[][..], |path| path.literal_prefix(&router.patterns)),
            ..Key::plain(&headers)
        };
        let method = conditions.methods.first().map_or(UNLISTED, String::as_str);
        let mut rivals = 0;
        let mut cover = None;
        router.index.visit(&key, Some(method), |candidates| {
            for candidate in candidates {
                rivals += 1;
                let is_over = cover.is_some() || rivals > RIVALS_MAX;
                let precedence = router.ranking.precedence(candidate.rank);
                if is_over || is_below(precedence, &own.precedence) {
                    break;
                }
                if candidate.route() != route
                    && self.covers(candidate, &own, names_port, conditions, path)
                {
                    cover = Some(candidate.route());
                }
            }
        });
        cover
    }

    /// Whether a candidate matches whatever one path of a route does, and goes first.
    fn covers(
        &mut self,
        candidate: &Candidate,
        own: &Standing,
        names_port: bool,
        conditions: &Conditions,
        path: Option<&PathCondition>,
    ) -> bool {
        let rival = &self.router.conditions[candidate.route()];
        if rival.expression.is_some() {
            return false;
        }
        let (_, place) = candidate.position();
        let rival_path = rival.paths.get(place);
        let rank = rival_path.map_or(PathRank::Absent, |path| rival.path_rank(path));
        let standing = Standing {
            precedence: rival.precedence(rank, names_port),
            seniority: candidate.seniority(&self.router.conditions),
        };
        standing.is_ahead_of(own)
            && covers_list(&rival.methods, &conditions.methods, |wide, narrow| {
                wide == narrow
            })
            && covers_list(&rival.hosts, &conditions.hosts, |wide, narrow| {
                covers_host(wide, narrow) && (!names_port || wide.port.is_some())
            })
            && covers_list(&rival.snis, &conditions.snis, covers_name)
            && covers_headers(&rival.headers, &conditions.headers)
            && self.covers_path(rival_path, path)
    }

    fn covers_path(
        &mut self,
        wide: Option<&PathCondition>,
        narrow: Option<&PathCondition>,
    ) -> bool {
        let patterns = &self.router.patterns;
        match (wide, narrow) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(PathCondition::Prefix(wide)), Some(narrow)) => {
                narrow.literal_prefix(patterns).starts_with(wide.as_bytes())
            }
            (Some(PathCondition::Regex(wide)), Some(PathCondition::Regex(narrow)))
                if wide == narrow =>
            {
                true
            }
            (Some(PathCondition::Regex(wide)), Some(narrow)) => {
                // Without assertions a regex that matches a beginning matches with anything behind.
                self.regex_trials += 1;
                self.regex_trials <= REGEX_TRIALS_MAX
                    && !patterns.has_assertions(*wide)
                    && patterns
                        .regex(*wide)
                        .is_match(narrow.literal_prefix(patterns))
            }
        }
    }
}

/// Whether no candidate from here on can go first: lists are sorted by precedence, of which the last
/// criterion depends on the host.
fn is_below(candidate: &Precedence, own: &Precedence) -> bool {
    let without_port = |precedence: &Precedence| Precedence {
        host_with_port: false,
        ..*precedence
    };
    without_port(candidate) < without_port(own)
}

/// Whether whatever meets the list `narrow` meets the list `wide`. An empty list is met by all.
fn covers_list<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    wide.is_empty()
        || (!narrow.is_empty()
            && (narrow.iter()).all(|narrow| wide.iter().any(|wide| covers(wide, narrow))))
}

fn covers_headers(wide: &[HeaderCondition], narrow: &[HeaderCondition]) -> bool {
    wide.iter().all(|wide| {
        let same = narrow.iter().find(|narrow| narrow.name == wide.name);
        same.is_some_and(|narrow| {
            let is_listed = |value| wide.values.iter().any(|wide| is_same(wide, value));
            narrow.values.iter().all(is_listed)
        })
    })
}

fn is_same(left: &ValueCondition, right: &ValueCondition) -> bool {
    match (left, right) {
        (ValueCondition::Whole(left), ValueCondition::Whole(right)) => left == right,
        (ValueCondition::Regex(left), ValueCondition::Regex(right)) => left == right,
        _ => false,
    }
}

fn covers_host(wide: &HostPattern, narrow: &HostPattern) -> bool {
    covers_name(&wide.name, &narrow.name) && (wide.port.is_none() || wide.port == narrow.port)
}

fn covers_name(wide: &HostName, narrow: &HostName) -> bool {
    match (wide, narrow) {
        (_, HostName::Exact(name)) => wide.matches(name.as_bytes()),
        (HostName::AnyBefore(wide), HostName::AnyBefore(narrow)) => narrow.ends_with(&**wide),
        (HostName::AnyAfter(wide), HostName::AnyAfter(narrow)) => narrow.starts_with(&**wide),
        _ => false,
    }
}

/// A host that this pattern matches and no narrower one, and its port; 0: one that nobody lists.
fn example(host: &HostPattern) -> (String, u16) {
    let name = match &host.name {
        HostName::Exact(name) => name.clone(),
        HostName::AnyBefore(suffix) => format!("{UNLISTED}{suffix}"),
        HostName::AnyAfter(prefix) => format!("{prefix}{UNLISTED}"),
    };
    (name, host.port.unwrap_or(0))
}

/// Headers that meet the conditions that ask for a whole value.
fn example_headers(conditions: &[HeaderCondition]) -> Headers {
    let mut headers = Headers::default();
    for condition in conditions {
        let whole = condition.values.iter().find_map(|value| match value {
            ValueCondition::Whole(text) => HeaderValue::from_bytes(text.as_bytes()).ok(),
            ValueCondition::Regex(_) => None,
        });
        if let Some(value) = whole {
            headers.insert(&condition.name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::super::{Flavor, Rule};
    use super::*;

    fn rule(hosts: &[&str], paths: &[&str], methods: &[&str]) -> Rule {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Rule {
            hosts: texts(hosts),
            paths: texts(paths),
            methods: texts(methods),
            ..Rule::default()
        }
    }

    fn expression(source: &str, priority: u64) -> Rule {
        Rule {
            expression: Some(source.to_owned()),
            priority,
            ..Rule::default()
        }
    }

    /// Pairs of a shadowed route and the one that shadows it.
    fn shadowed(rules: &[Rule]) -> Vec<(usize, usize)> {
        let router = Router::build(rules, Flavor::Expressions).unwrap();
        let shadowed = router.shadowed().into_iter();
        shadowed
            .map(|shadowed| (shadowed.route, shadowed.by))
            .collect()
    }

    #[test]
    fn a_route_that_another_one_covers_is_found() {
        for (why, rules) in [
            (
                "the same path",
                [rule(&[], &["/a"], &[]), rule(&[], &["/a"], &[])],
            ),
            (
                "a regex over a prefix",
                [rule(&[], &["~/api"], &[]), rule(&[], &["/api/users"], &[])],
            ),
            (
                "a regex over a regex",
                [
                    rule(&[], &["~/api/.*"], &[]),
                    rule(&[], &[r"~/api/users/\d+$"], &[]),
                ],
            ),
            (
                "all of its hosts and methods",
                [
                    rule(&["*.test", "b.c"], &["/a"], &["GET", "PUT"]),
                    rule(&["*.a.test"], &["/a"], &["PUT"]),
                ],
            ),
            (
                "plain hosts",
                [
                    rule(&["a.test", "b.test"], &["/a"], &[]),
                    rule(&["b.test"], &["/a"], &[]),
                ],
            ),
            (
                "a host with its port",
                [
                    rule(&["a.test:80"], &[], &[]),
                    rule(&["A.test:80"], &[], &[]),
                ],
            ),
            (
                "expressions that say the same",
                [
                    expression(r#"http.path ^= "/a" && http.method == "GET""#, 1),
                    expression(r#"(http.path^="/a") && (http.method  == "GET")"#, 0),
                ],
            ),
        ] {
            assert_eq!(shadowed(&rules), [(1, 0)], "{why}");
        }
    }

    #[test]
    fn a_route_that_wins_some_request_is_not_found() {
        for (why, rules) in [
            (
                "a longer path",
                [rule(&[], &["/a"], &[]), rule(&[], &["/a/b"], &[])],
            ),
            (
                "a path of two",
                [rule(&[], &["/a"], &[]), rule(&[], &["/a", "/b"], &[])],
            ),
            (
                "a method of two",
                [
                    rule(&[], &["/a"], &["GET"]),
                    rule(&[], &["/a"], &["GET", "PUT"]),
                ],
            ),
            (
                "more attributes",
                [rule(&[], &["/a"], &[]), rule(&["a.test"], &["/a"], &[])],
            ),
            (
                "paths that do not begin with a slash",
                [rule(&["a.test"], &["/"], &[]), rule(&["a.test"], &[], &[])],
            ),
            (
                "a regex that wants an end",
                [rule(&[], &["~/a$"], &[]), rule(&[], &["/a"], &[])],
            ),
            (
                "any port",
                [rule(&["a.test:80"], &[], &[]), rule(&["a.test"], &[], &[])],
            ),
            (
                "its port goes first",
                [rule(&["a.test"], &[], &[]), rule(&["a.test:80"], &[], &[])],
            ),
            (
                "plain hosts go first",
                [
                    rule(&["*.test"], &["/a"], &[]),
                    rule(&["a.test"], &["/a"], &[]),
                ],
            ),
            (
                "an older one with an undated one",
                [
                    rule(&[], &["/a"], &[]),
                    Rule {
                        created_at: Some(1),
                        ..rule(&[], &["/a"], &[])
                    },
                ],
            ),
        ] {
            assert_eq!(shadowed(&rules), [], "{why}");
        }
    }

    #[test]
    fn one_of_ten_thousand_routes_is_found() {
        let mut rules: Vec<Rule> = (0..10_000)
            .map(|n| {
                let (host, path) = (format!("h{}.test", n / 10), format!("/s{}", n % 10));
                rule(&[&host, "*.all.test"], &[&path, r"~/v\d+/x"], &["GET"])
            })
            .collect();
        rules.push(rules[5_000].clone());
        assert!(shadowed(&rules).contains(&(10_000, 5_000)));
    }
}
