//! From a request's host and path to the candidates, in time that does not grow with the number of
//! routes.
//!
//! Hosts lead to a tree of path prefixes; a regex stands in the tree at the literal text it begins
//! with, an expression at the prefixes of which it needs one. What host and path cannot decide is left to the caller: headers, methods, and the rest of
//! a regex.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Key;
use super::candidates::{Candidate, CandidatePath, Candidates};
use super::conditions::{Conditions, PathCondition};
use super::host::HostIndex;
use super::patterns::Patterns;
use super::precedence::{PathRank, Ranking};
use super::prefix_forest::{PrefixForest, Tree, as_index};
use crate::entity::host::{HostPattern, RequestHost};

/// The candidates of all routes by host and path.
#[derive(Debug)]
pub(super) struct Index {
    hosts: HostIndex<Tree>,
    paths: PrefixForest<Candidates>,
}

/// What decides a host's tree of paths. Hosts for which it is the same share one tree.
#[derive(PartialEq, Eq, Hash)]
struct TreeKey {
    host_with_port: bool,
    routes: Vec<usize>,
}

impl Index {
    /// `conditions` are those of all routes, by index.
    pub(super) fn build(conditions: &[Conditions], patterns: &Patterns, ranking: &Ranking) -> Self {
        let mut index = Self {
            hosts: HostIndex::new(),
            paths: PrefixForest::new(),
        };
        let mut trees: HashMap<TreeKey, Tree> = HashMap::new();
        for (host, routes) in routes_by_host(conditions) {
            let key = TreeKey {
                host_with_port: host.is_some_and(|host| host.port.is_some()),
                routes,
            };
            let tree = match trees.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let candidates = candidates_by_prefix(new.key(), conditions, patterns, ranking);
                    *new.insert(index.paths.plant(candidates))
                }
            };
            index.hosts.insert(host, tree);
        }
        index.paths.shrink_to_fit();
        index
    }

    /// Shows lists in which every candidate is that can match; each list is sorted from high
    /// precedence to low.
    ///
    /// `method` is the request's, or `None` for candidates of any method.
    pub(super) fn visit<'i>(
        &'i self,
        key: &Key<'_>,
        method: Option<&str>,
        mut visit: impl FnMut(&'i [Candidate]),
    ) {
        self.hosts
            .visit(&RequestHost::new(key.host), key.port, |tree| {
                for candidates in self.paths.prefixes_of(tree, key.path) {
                    candidates.visit(method, key.headers, &mut visit);
                }
            });
    }
}

fn routes_by_host(conditions: &[Conditions]) -> HashMap<Option<&HostPattern>, Vec<usize>> {
    let mut routes: HashMap<Option<&HostPattern>, Vec<usize>> = HashMap::new();
    for (route, conditions) in conditions.iter().enumerate() {
        if conditions.sought_hosts().is_empty() {
            routes.entry(None).or_default().push(route);
        }
        for host in conditions.sought_hosts() {
            let of_host = routes.entry(Some(host)).or_default();
            // A host may be listed twice.
            if of_host.last() != Some(&route) {
                of_host.push(route);
            }
        }
    }
    routes
}

fn candidates_by_prefix<'c>(
    key: &TreeKey,
    conditions: &'c [Conditions],
    patterns: &'c Patterns,
    ranking: &Ranking,
) -> Vec<(&'c [u8], Candidates)> {
    let mut flat: Vec<(&[u8], Candidate)> = Vec::with_capacity(key.routes.len());
    for &route in &key.routes {
        let conditions = &conditions[route];
        let candidate = |path, place, matched| {
            let rank = ranking.rank(&conditions.precedence(path, key.host_with_port));
            Candidate::new((route, place), rank, matched, conditions)
        };
        let without_path = || candidate(PathRank::Absent, 0, CandidatePath::Absent);
        if let Some(expression) = &conditions.expression {
            let prefixes = expression.needs.prefixes.iter();
            flat.extend(prefixes.map(|prefix| (&**prefix, without_path())));
            continue;
        }
        if conditions.paths.is_empty() {
            flat.push((b"", without_path()));
        }
        for (place, path) in conditions.paths.iter().enumerate() {
            let matched = match path {
                PathCondition::Prefix(prefix) => CandidatePath::Prefix(as_index(prefix.len())),
                PathCondition::Regex(id) => CandidatePath::Regex(*id),
            };
            flat.push((
                path.literal_prefix(patterns),
                candidate(conditions.path_rank(path), place, matched),
            ));
        }
    }
    flat.sort_by_key(|(prefix, _)| *prefix);
    let groups = flat.chunk_by(|(left, _), (right, _)| left == right);
    groups
        .filter_map(|group| {
            let (prefix, _) = group.first()?;
            let candidates = group.iter().map(|(_, candidate)| *candidate).collect();
            Some((*prefix, Candidates::new(candidates, conditions)))
        })
        .collect()
}

#[cfg(test)]
mod tests {

    use super::super::{Flavor, Router, Rule};
    use super::*;
    use crate::entity::message::Headers;

    /// How many candidates are compared for a GET on `a.test` and `path` with the header `x-a: 77`.
    fn compared(rules: &[Rule], path: &str) -> usize {
        let router = Router::build(rules, Flavor::Expressions).unwrap();
        let headers = Headers::from_iter([("x-a".parse().unwrap(), "77".parse().unwrap())]);
        let key = Key {
            host: "a.test",
            path: path.as_bytes(),
            ..Key::plain(&headers)
        };
        let mut compared = 0;
        router.index.visit(&key, Some(key.method), |candidates| {
            compared += candidates.len();
        });
        compared
    }

    fn thousand(make: impl Fn(usize) -> Rule) -> Vec<Rule> {
        (1000..2000).map(make).collect()
    }

    #[test]
    fn other_paths_hosts_and_regexes_are_not_looked_at() {
        let by_path = thousand(|n| Rule {
            paths: vec![format!("/{n}")],
            ..Rule::default()
        });
        assert_eq!(compared(&by_path, "/1077/x"), 1);
        let by_regex = thousand(|n| Rule {
            paths: vec![format!(r"~/{n}/\d+")],
            ..Rule::default()
        });
        assert_eq!(compared(&by_regex, "/1077/1"), 1);
        let by_host = thousand(|n| Rule {
            hosts: vec![format!("{n}.test"), format!("*.{n}")],
            ..Rule::default()
        });
        assert_eq!(compared(&by_host, "/"), 0);
        let by_expression = thousand(|n| Rule {
            expression: Some(format!(
                r#"http.method == "GET" && (http.path == "/{n}" || http.path ~ "^/{n}/[0-9]")"#
            )),
            ..Rule::default()
        });
        assert_eq!(compared(&by_expression, "/1077/1"), 1);
        let by_host_in_expression = thousand(|n| Rule {
            expression: Some(format!(r#"http.host == "{n}.test""#)),
            ..Rule::default()
        });
        assert_eq!(compared(&by_host_in_expression, "/"), 0);
    }

    #[test]
    fn routes_on_one_path_are_told_apart_by_header_and_method_without_looking_at_each() {
        let paths = vec!["/".to_owned()];
        let value = |n: usize| vec![("X-A".to_owned(), vec![(n - 1000).to_string()])];
        let by_header = thousand(|n| Rule {
            paths: paths.clone(),
            headers: value(n),
            ..Rule::default()
        });
        assert_eq!(compared(&by_header, "/"), 1);
        let by_method = thousand(|n| Rule {
            paths: paths.clone(),
            methods: vec![format!("M{n}")],
            ..Rule::default()
        });
        assert_eq!(compared(&by_method, "/"), 0);
    }

    #[test]
    fn hosts_with_the_same_routes_share_one_tree() {
        let hosts: Vec<String> = (0..1000).map(|n| format!("{n}.test")).collect();
        let rules = thousand(|n| Rule {
            hosts: hosts.clone(),
            paths: vec![format!("/{n}")],
            ..Rule::default()
        });
        let router = Router::build(&rules, Flavor::default()).unwrap();
        assert!(router.index.paths.len() < 2 * rules.len());
    }
}
