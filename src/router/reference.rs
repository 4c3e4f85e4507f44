//! The obvious matcher: every rule against every request, straight from the rules as written. Test
//! only.
//!
//! It shares no code with the router. It is our specification of routing, and the tests here hold
//! the router, its explanations and its 405 answers against it on random tables.

use std::cell::RefCell;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use regex::bytes::Regex;

use super::{Criterion, Key, LossReason, MatchedPath, Mismatch, Router, Rule};

/// The seven criteria of the order of evaluation, the most important first: number of attributes,
/// plain hosts only, number of headers, regex path, regex priority, prefix length, host with port.
type Rank = (usize, bool, usize, bool, i64, usize, bool);

/// How a path matched: by a regex or not, and how many bytes.
type PathMatch = Option<(bool, usize)>;

fn find(rules: &[Rule], key: &Key<'_>) -> Option<(usize, PathMatch)> {
    let matching: Vec<(usize, Rank, PathMatch)> = rules
        .iter()
        .enumerate()
        .filter_map(|(route, rule)| match_rule(rule, key).map(|(rank, path)| (route, rank, path)))
        .collect();
    let highest = matching.iter().map(|(_, rank, _)| *rank).max()?;
    let mut winner: Option<(usize, PathMatch)> = None;
    for (route, _, path) in matching.into_iter().filter(|(_, rank, _)| *rank == highest) {
        let is_better = match winner {
            None => true,
            Some((other, _)) => match (rules[route].created_at, rules[other].created_at) {
                (Some(own), Some(others)) => own < others,
                _ => false,
            },
        };
        if is_better {
            winner = Some((route, path));
        }
    }
    winner
}

fn allowed_methods<'r>(rules: &'r [Rule], key: &Key<'_>) -> Vec<&'r str> {
    let mut methods: Vec<&str> = rules
        .iter()
        .filter(|rule| {
            !method_matches(rule, key)
                && host_matches(rule, key)
                && path_matches(rule, key)
                && headers_match(rule, key)
        })
        .flat_map(|rule| rule.methods.iter().map(String::as_str))
        .collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}

fn match_rule(rule: &Rule, key: &Key<'_>) -> Option<(Rank, PathMatch)> {
    if !(method_matches(rule, key)
        && host_matches(rule, key)
        && path_matches(rule, key)
        && headers_match(rule, key))
    {
        return None;
    }
    let attributes = usize::from(!rule.methods.is_empty())
        + usize::from(!rule.hosts.is_empty())
        + usize::from(!rule.headers.is_empty())
        + usize::from(!rule.paths.is_empty());
    let plain_hosts = !rule.hosts.is_empty() && rule.hosts.iter().all(|host| !host.contains('*'));
    let with_port = rule
        .hosts
        .iter()
        .any(|host| one_host_matches(host, key) && has_port(host));
    let regex = rule
        .paths
        .iter()
        .find_map(|path| regex_match_len(path.strip_prefix('~')?, key.path));
    let longest = rule
        .paths
        .iter()
        .filter(|path| key.path.starts_with(path.as_bytes()))
        .map(String::len)
        .max();
    let rank = |is_regex, priority, len| {
        (
            attributes,
            plain_hosts,
            rule.headers.len(),
            is_regex,
            priority,
            len,
            with_port,
        )
    };
    Some(match (regex, longest) {
        (Some(len), _) => (rank(true, rule.regex_priority, 0), Some((true, len))),
        (None, Some(len)) => (rank(false, 0, len), Some((false, len))),
        (None, None) => (rank(false, 0, 0), None),
    })
}

fn method_matches(rule: &Rule, key: &Key<'_>) -> bool {
    rule.methods.is_empty() || rule.methods.iter().any(|method| method == key.method)
}

fn host_matches(rule: &Rule, key: &Key<'_>) -> bool {
    rule.hosts.is_empty() || rule.hosts.iter().any(|host| one_host_matches(host, key))
}

fn path_matches(rule: &Rule, key: &Key<'_>) -> bool {
    rule.paths.is_empty()
        || rule.paths.iter().any(|path| match path.strip_prefix('~') {
            Some(regex) => regex_match_len(regex, key.path).is_some(),
            None => key.path.starts_with(path.as_bytes()),
        })
}

fn headers_match(rule: &Rule, key: &Key<'_>) -> bool {
    rule.headers
        .iter()
        .all(|header| one_header_matches(header, key))
}

fn one_header_matches((name, wanted): &(String, Vec<String>), key: &Key<'_>) -> bool {
    key.headers
        .iter()
        .filter(|(sent_name, _)| sent_name.as_str() == name.to_lowercase())
        .any(|(_, sent)| {
            wanted
                .iter()
                .any(|wanted| header_value_matches(wanted, sent.as_bytes()))
        })
}

fn header_value_matches(wanted: &str, sent: &[u8]) -> bool {
    match wanted.strip_prefix("~*") {
        Some(regex) => compiled(&format!("(?i){regex}")).is_match(sent),
        None => wanted.to_lowercase().as_bytes() == sent.to_ascii_lowercase(),
    }
}

fn has_port(host: &str) -> bool {
    host.ends_with(|c: char| c.is_ascii_digit())
        && (host.contains("]:") || host.matches(':').count() == 1)
}

fn one_host_matches(pattern: &str, key: &Key<'_>) -> bool {
    let (name, port) = match pattern.rsplit_once(':') {
        Some((name, port)) if has_port(pattern) => (name, Some(port)),
        _ => (pattern, None),
    };
    if port.is_some_and(|port| port != key.port.to_string()) {
        return false;
    }
    let name = name.to_lowercase().replace(['[', ']'], "");
    let host = key.host.to_lowercase().replace(['[', ']'], "");
    let host = host.strip_suffix('.').unwrap_or(&host);
    if let Some(suffix) = name.strip_prefix('*') {
        host.ends_with(suffix) && host.len() > suffix.len()
    } else if let Some(prefix) = name.strip_suffix('*') {
        host.starts_with(prefix) && host.len() > prefix.len()
    } else {
        host == name
    }
}

fn regex_match_len(pattern: &str, path: &[u8]) -> Option<usize> {
    compiled(&format!("^(?:{pattern})"))
        .find(path)
        .map(|found| found.end())
}

thread_local! {
    static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::new(HashMap::new());
}

fn compiled(pattern: &str) -> Regex {
    COMPILED.with_borrow_mut(|known| {
        known
            .entry(pattern.to_owned())
            .or_insert_with(|| Regex::new(pattern).unwrap())
            .clone()
    })
}

// Small pools make it likely that rules collide with each other and that requests hit them.

const HOSTS: &[&str] = &[
    "a.test",
    "b.test",
    "A.TEST:80",
    "a.test:81",
    "*.test",
    "*.test:81",
    "*.a.test",
    "a.*",
    "a.*:80",
    "x.*",
    "x.a.*",
    "::1",
    "[::1]:80",
];
const REQUEST_HOSTS: &[&str] = &[
    "a.test", "A.Test.", "b.test", "x.a.test", "x.test", "a.", "a..", ".test", "test", "[::1]", "",
    "a.b.c",
];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/ab",
    "/b",
    "/b/c",
    "/caf\u{e9}",
    "/a%2Fb",
];
const REGEXES: &[&str] = &[
    r"~/a",
    r"~/a/\d+",
    r"~/a/(?<id>[^/]+)$",
    r"~/(a|b)/c?",
    r"~/a|/b",
    r"~/.*",
    r"~/a/b$",
    r"~/(?i)A/B",
    r"~/b/(?P<x>.)",
    r"~/\w+/",
];
const REQUEST_PATHS: &[&[u8]] = &[
    b"/",
    b"/a",
    b"/a/",
    b"/a/b",
    b"/a/b/c",
    b"/a/12",
    b"/ab",
    b"/b",
    b"/b/c",
    b"/b/\xff",
    b"/A/B",
    b"/caf\xc3\xa9",
    b"/a%2Fb",
    b"/x",
];
const METHODS: &[&str] = &["GET", "POST", "PUT"];
const HEADER_NAMES: &[&str] = &["x-a", "X-B"];
const HEADER_VALUES: &[&str] = &["1", "Two", "~*^t", "~*[0-9]", "~*O$"];
const REQUEST_HEADER_VALUES: &[&[u8]] = &[b"1", b"TWO", b"two", b"3", b"", b"1, two", b"t\xff"];

fn some_of(pool: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    let chosen =
        prop::collection::vec(prop::sample::select(pool).prop_map(str::to_owned), 1..=most);
    prop_oneof![Just(Vec::new()), chosen]
}

fn any_paths() -> impl Strategy<Value = Vec<String>> {
    let path = prop_oneof![2 => prop::sample::select(PATHS), 1 => prop::sample::select(REGEXES)];
    prop::collection::vec(path.prop_map(str::to_owned), 0..=3)
}

fn any_headers() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    let names = prop::sample::subsequence(HEADER_NAMES, 0..=HEADER_NAMES.len());
    let values = prop::collection::vec(
        prop::sample::select(HEADER_VALUES).prop_map(str::to_owned),
        1..=2,
    );
    let headers = (names, prop::collection::vec(values, HEADER_NAMES.len()))
        .prop_map(|(names, values)| names.into_iter().map(str::to_owned).zip(values).collect());
    prop_oneof![2 => Just(Vec::new()), 1 => headers]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let created_at = prop::option::of(0_i64..3);
    (
        some_of(HOSTS, 2),
        any_paths(),
        some_of(METHODS, 2),
        any_headers(),
        -1_i64..=1,
        created_at,
    )
        .prop_map(
            |(hosts, paths, methods, headers, regex_priority, created_at)| Rule {
                hosts,
                paths,
                methods,
                headers,
                regex_priority,
                created_at,
            },
        )
}

/// Tables of few rules, and some whose rules crowd in one place, so that they are looked up by
/// method and header.
fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let crowd = prop::collection::vec(
        (
            some_of(METHODS, 2),
            any_headers(),
            prop::option::of(0_i64..3),
        ),
        9..24,
    );
    let crowded = (any_rule(), crowd).prop_map(|(rule, crowd)| {
        crowd
            .into_iter()
            .map(|(methods, headers, created_at)| Rule {
                methods,
                headers,
                created_at,
                ..rule.clone()
            })
            .collect()
    });
    prop_oneof![4 => prop::collection::vec(any_rule(), 0..10), 1 => crowded]
}

/// A [`Key`] that owns its headers.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    host: &'static str,
    port: u16,
    path: &'static [u8],
    headers: HeaderMap,
}

impl Request {
    fn key(&self) -> Key<'_> {
        Key {
            method: self.method,
            host: self.host,
            port: self.port,
            path: self.path,
            headers: &self.headers,
        }
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let header = (
        prop::sample::select(HEADER_NAMES),
        prop::sample::select(REQUEST_HEADER_VALUES),
    );
    let headers = prop::collection::vec(header, 0..4).prop_map(|headers| {
        let parse = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers
            .into_iter()
            .map(|(name, value)| (parse(name), HeaderValue::from_bytes(value).unwrap()))
            .collect()
    });
    (
        prop::sample::select(METHODS),
        prop::sample::select(REQUEST_HOSTS),
        79_u16..=81,
        prop::sample::select(REQUEST_PATHS),
        headers,
    )
        .prop_map(|(method, host, port, path, headers)| Request {
            method,
            host,
            port,
            path,
            headers,
        })
}

/// Ten thousand tables take a few seconds; `PROPTEST_CASES` asks for another number.
fn config() -> ProptestConfig {
    let is_set = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if is_set {
        config
    } else {
        ProptestConfig {
            cases: 10_000,
            ..config
        }
    }
}

fn found(router: &Router, key: &Key<'_>) -> Option<(usize, PathMatch)> {
    router.find(key).map(|found| {
        let path = match found.path {
            MatchedPath::None => None,
            MatchedPath::Prefix(len) => Some((false, len)),
            MatchedPath::Regex { len, pattern } => {
                assert_eq!(router.regex(pattern).find(key.path).unwrap().end(), len);
                Some((true, len))
            }
        };
        (found.route, path)
    })
}

/// Whether the reference agrees that exactly these conditions of the rule fail.
fn are_all_failing_conditions(mismatches: &[Mismatch], rule: &Rule, key: &Key<'_>) -> bool {
    let mut reported = (false, false, false, Vec::new());
    for mismatch in mismatches {
        match mismatch {
            Mismatch::Host { .. } => reported.0 = true,
            Mismatch::Path { .. } => reported.1 = true,
            Mismatch::Method { .. } => reported.2 = true,
            Mismatch::Header { name, .. } => reported.3.push(name.clone()),
        }
    }
    let failing_headers = rule
        .headers
        .iter()
        .filter(|header| !one_header_matches(header, key));
    let names: Vec<String> = failing_headers
        .map(|(name, _)| name.to_lowercase())
        .collect();
    !mismatches.is_empty()
        && reported
            == (
                !host_matches(rule, key),
                !path_matches(rule, key),
                !method_matches(rule, key),
                names,
            )
}

/// Whether the reference agrees that this criterion is the first in which the two routes differ.
fn is_deciding(
    criterion: Criterion,
    rules: &[Rule],
    winner: usize,
    loser: usize,
    key: &Key<'_>,
) -> bool {
    let rank = |route: usize| match_rule(&rules[route], key).unwrap().0;
    let (high, low) = (rank(winner), rank(loser));
    let first_difference = [
        high.0 != low.0,
        high.1 != low.1,
        high.2 != low.2,
        high.3 != low.3,
        high.4 != low.4,
        high.5 != low.5,
        high.6 != low.6,
    ]
    .into_iter()
    .position(|differs| differs);
    let dates = (rules[winner].created_at, rules[loser].created_at);
    match criterion {
        Criterion::Attributes { winner, loser } => {
            first_difference == Some(0) && (winner, loser) == (high.0, low.0)
        }
        Criterion::OnlyPlainHosts => first_difference == Some(1),
        Criterion::HeaderNames { winner, loser } => {
            first_difference == Some(2) && (winner, loser) == (high.2, low.2)
        }
        Criterion::RegexPath => first_difference == Some(3),
        Criterion::RegexPriority { winner, loser } => {
            first_difference == Some(4) && (winner, loser) == (high.4, low.4)
        }
        Criterion::PrefixLength { winner, loser } => {
            first_difference == Some(5) && (winner, loser) == (high.5, low.5)
        }
        Criterion::HostWithPort => first_difference == Some(6),
        Criterion::CreatedAt { winner, loser } => {
            first_difference.is_none() && dates == (Some(winner), Some(loser)) && winner < loser
        }
        Criterion::FileOrder { first } => {
            // Either the winner itself comes first, or an equal that does and that the winner is
            // older than.
            let is_settled_by_date =
                matches!(dates, (Some(winner), Some(loser)) if winner != loser);
            let first_is_beaten =
                first == winner || rules[winner].created_at < rules[first].created_at;
            first_difference.is_none()
                && !is_settled_by_date
                && first < loser
                && rank(first) == high
                && first_is_beaten
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_router_agrees_with_the_reference(rules in any_rules(), requests in prop::collection::vec(any_request(), 8)) {
        let router = Router::build(&rules).unwrap();
        for request in &requests {
            let key = request.key();
            prop_assert_eq!(found(&router, &key), find(&rules, &key), "{:?}", request);
            prop_assert_eq!(router.allowed_methods(&key), allowed_methods(&rules, &key), "{:?}", request);
        }
    }

    #[test]
    fn every_reason_in_an_explanation_is_true(rules in any_rules(), requests in prop::collection::vec(any_request(), 4)) {
        let router = Router::build(&rules).unwrap();
        for request in &requests {
            let key = request.key();
            let explanation = router.explain(&key);
            prop_assert_eq!(explanation.winner, find(&rules, &key).map(|(route, _)| route));
            let explained = explanation.losers.iter().map(|loser| loser.route).chain(explanation.winner);
            let mut explained: Vec<usize> = explained.collect();
            explained.sort_unstable();
            prop_assert!(explained.into_iter().eq(0..rules.len()));
            for loser in &explanation.losers {
                let is_true = match (&loser.reason, explanation.winner) {
                    (LossReason::Mismatched(mismatches), _) => are_all_failing_conditions(mismatches, &rules[loser.route], &key),
                    (LossReason::Outranked(criterion), Some(winner)) => is_deciding(*criterion, &rules, winner, loser.route, &key),
                    (LossReason::Outranked(_), None) => false,
                };
                prop_assert!(is_true, "{:?}: {} for {:?}", request, loser.reason, loser);
            }
        }
    }

    #[test]
    fn another_file_order_gives_the_same_route_or_one_equal_to_it(
        (rules, shuffled) in any_rules().prop_flat_map(|rules| {
            let order: Vec<usize> = (0..rules.len()).collect();
            (Just(rules), Just(order).prop_shuffle())
        }),
        request in any_request(),
    ) {
        let key = request.key();
        let reordered: Vec<Rule> = shuffled.iter().map(|&route| rules[route].clone()).collect();
        let winner = Router::build(&rules).unwrap().find(&key).map(|found| found.route);
        let other = Router::build(&reordered).unwrap().find(&key).map(|found| shuffled[found.route]);
        prop_assert_eq!(winner.is_some(), other.is_some());
        if let (Some(winner), Some(other)) = (winner, other) {
            let rank = |route: usize| match_rule(&rules[route], &key).unwrap().0;
            prop_assert_eq!(rank(winner), rank(other));
            // With a date on every rule that matches equally well, the file's order decides between
            // equal dates only.
            let equals = (0..rules.len()).filter(|&route| match_rule(&rules[route], &key).is_some_and(|(own, _)| own == rank(winner)));
            if equals.into_iter().all(|route| rules[route].created_at.is_some()) {
                prop_assert_eq!(rules[winner].created_at, rules[other].created_at);
            }
        }
    }
}
