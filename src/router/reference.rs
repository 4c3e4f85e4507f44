//! The obvious matcher: every rule against every request, straight from the rules as written. Test
//! only.
//!
//! It shares no code with the router; what expressions mean is left to the crate of Kong's own router.
//! It is our specification of routing, and the tests here hold the router, its explanations, its 405
//! answers and its warnings of shadowed routes against it on random tables in all flavours.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use atc_router::ast::{Type, Value};
use atc_router::schema::Schema;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use regex::bytes::Regex;

use super::{Criterion, Flavor, Key, LossReason, MatchedPath, Mismatch, Router, Rule};
use crate::entity::message::Headers;

/// The criteria of the order of evaluation as numbers, the most important first, by their names.
type Rank = Vec<(&'static str, i64)>;

/// How a path matched: by a regex or not, and how many bytes.
type PathMatch = Option<(bool, usize)>;

fn find(rules: &[Rule], flavor: Flavor, key: &Key<'_>) -> Option<(usize, PathMatch)> {
    let matching: Vec<(usize, Rank, PathMatch)> = rules
        .iter()
        .enumerate()
        .filter_map(|(route, rule)| {
            match_rule(rule, flavor, key).map(|(rank, path)| (route, rank, path))
        })
        .collect();
    let highest = matching.iter().map(|(_, rank, _)| rank).max()?;
    let mut winner: Option<(usize, PathMatch)> = None;
    for (route, _, path) in matching.iter().filter(|(_, rank, _)| rank == highest) {
        let (route, path) = (*route, *path);
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

fn allowed_methods<'r>(rules: &'r [Rule], flavor: Flavor, key: &Key<'_>) -> Vec<&'r str> {
    let mut methods: Vec<&str> = rules
        .iter()
        .filter(|rule| {
            !method_matches(rule, key)
                && host_matches(rule, key)
                && path_matches(rule, key)
                && headers_match(rule, flavor, key)
                && sni_matches(rule, key)
        })
        .flat_map(|rule| rule.methods.iter().map(String::as_str))
        .collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}

fn match_rule(rule: &Rule, flavor: Flavor, key: &Key<'_>) -> Option<(Rank, PathMatch)> {
    if let Some(expression) = &rule.expression {
        let priority = i64::try_from(rule.priority).unwrap();
        return kong_holds(expression, key)
            .then(|| (vec![("expression", 1), ("priority", priority)], None));
    }
    if !(method_matches(rule, key)
        && host_matches(rule, key)
        && path_matches(rule, key)
        && headers_match(rule, flavor, key)
        && sni_matches(rule, key))
    {
        return None;
    }
    let has = |is_empty: bool| i64::from(!is_empty);
    let (hosts, headers) = (has(rule.hosts.is_empty()), has(rule.headers.is_empty()));
    let (paths, methods) = (has(rule.paths.is_empty()), has(rule.methods.is_empty()));
    let snis = has(rule.snis.is_empty());
    let attributes = hosts + headers + paths + methods + snis;
    let set = 16 * hosts + 8 * headers + 4 * paths + 2 * methods + snis;
    let is_wildcard = |host: &String| host.contains('*');
    let plain_hosts = !rule.hosts.is_empty() && !rule.hosts.iter().any(is_wildcard);
    let wildcard_with_port = (rule.hosts.iter()).any(|host| is_wildcard(host) && has_port(host));
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
    let rank = |is_regex: bool, priority, len: usize| {
        let names = ("headers", i64::try_from(rule.headers.len()).unwrap());
        let regex = ("regex", i64::from(is_regex));
        let plain_hosts = ("plain hosts", i64::from(plain_hosts));
        let mut rank = vec![("expression", 0), ("attributes", attributes)];
        rank.extend(match flavor {
            Flavor::Traditional => {
                let wildcard = ("wildcard with port", i64::from(wildcard_with_port));
                vec![("set", set), wildcard, plain_hosts, regex, names]
            }
            Flavor::TraditionalCompatible | Flavor::Expressions => vec![plain_hosts, names, regex],
        });
        rank.push(("regex priority", priority));
        rank.push(("prefix", i64::try_from(len).unwrap()));
        rank.push(("host with port", i64::from(with_port)));
        rank
    };
    Some(match (regex, longest) {
        (Some(len), _) => (rank(true, rule.regex_priority, 0), Some((true, len))),
        (None, Some(len)) => (rank(false, 0, len), Some((false, len))),
        (None, None) => (rank(false, 0, 0), None),
    })
}

/// What Kong's router says of one expression. Paths that are not UTF-8 it does not know.
fn kong_holds(expression: &str, key: &Key<'_>) -> bool {
    KONG.with_borrow_mut(|routers| {
        if routers.len() > 5_000 {
            routers.clear();
        }
        let schema = kong_schema();
        let router = routers.entry(expression.to_owned()).or_insert_with(|| {
            let mut router = atc_router::router::Router::new(schema);
            let id = uuid::Uuid::nil();
            router.add_matcher(0, id, expression).unwrap();
            router
        });
        let mut context = atc_router::context::Context::new(schema);
        let text = |text: &[u8]| Value::String(String::from_utf8(text.to_vec()).unwrap());
        context.add_value("http.method", text(key.method.as_bytes()));
        let host = key.host.to_lowercase();
        context.add_value(
            "http.host",
            text(host.strip_suffix('.').unwrap_or(&host).as_bytes()),
        );
        context.add_value("http.path", text(key.path));
        context.add_value("net.dst.port", Value::Int(key.port.into()));
        for (name, value) in key.headers.iter() {
            let field = format!("http.headers.{}", name.as_str().replace('-', "_"));
            context.add_value(&field, text(value.as_bytes()));
        }
        if let Some(name) = key.sni.filter(|name| !name.is_empty()) {
            context.add_value("tls.sni", text(name.as_bytes()));
        }
        router.execute(&mut context)
    })
}

thread_local! {
    static KONG: RefCell<HashMap<String, atc_router::router::Router<'static>>> = RefCell::new(HashMap::new());
}

fn kong_schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let mut schema = Schema::default();
        for field in [
            "http.method",
            "http.host",
            "http.path",
            "http.headers.*",
            "tls.sni",
        ] {
            schema.add_field(field, Type::String);
        }
        schema.add_field("net.dst.port", Type::Int);
        schema
    });
    &SCHEMA
}

fn sni_matches(rule: &Rule, key: &Key<'_>) -> bool {
    let Some(name) = key.sni.filter(|_| !rule.snis.is_empty()) else {
        return true;
    };
    let name = name.to_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    rule.snis.iter().any(|wanted| {
        let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
        if let Some(suffix) = wanted.strip_prefix('*') {
            name.ends_with(suffix) && name.len() > suffix.len()
        } else if let Some(prefix) = wanted.strip_suffix('*') {
            name.starts_with(prefix) && name.len() > prefix.len()
        } else {
            name == wanted
        }
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

fn headers_match(rule: &Rule, flavor: Flavor, key: &Key<'_>) -> bool {
    rule.headers
        .iter()
        .all(|header| one_header_matches(header, flavor, key))
}

fn one_header_matches(
    (name, wanted): &(String, Vec<String>),
    flavor: Flavor,
    key: &Key<'_>,
) -> bool {
    let may_be_regex = flavor != Flavor::Traditional || wanted.len() == 1;
    key.headers
        .iter()
        .filter(|(sent_name, _)| sent_name.as_str() == name.to_lowercase())
        .any(|(_, sent)| {
            wanted
                .iter()
                .any(|wanted| header_value_matches(wanted, may_be_regex, sent.as_bytes()))
        })
}

fn header_value_matches(wanted: &str, may_be_regex: bool, sent: &[u8]) -> bool {
    match wanted.strip_prefix("~*").filter(|_| may_be_regex) {
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
const SNIS: &[&str] = &["a.test", "*.test", "x.a.test.", "a.*"];
const REQUEST_SNIS: &[Option<&str>] =
    &[None, Some(""), Some("a.test"), Some("x.a.test"), Some("b")];
const PREDICATES: &[&str] = &[
    r#"http.method == "GET""#,
    r#"http.method != "PUT""#,
    r#"lower(http.method) ^= "p""#,
    r#"http.host == "a.test""#,
    r#"http.host == "[::1]""#,
    r#"http.host =^ ".test""#,
    r#"http.host contains "a.""#,
    r#"http.path ^= "/a""#,
    r#"http.path ^= "/a/b""#,
    r#"http.path == "/b/c""#,
    r#"http.path == "/""#,
    r#"http.path =^ "c""#,
    r#"lower(http.path) ^= "/a/b""#,
    r##"http.path ~ r#"^/a/\d+"#"##,
    r#"http.path ~ "b""#,
    r#"http.path ~ "^/(a|b)/c?$""#,
    r#"http.headers.x_a == "1""#,
    r#"any(http.headers.x_a) == "1""#,
    r#"any(lower(http.headers.x_b)) ~ "^t""#,
    r#"http.headers.x_b != "3""#,
    "net.dst.port == 80",
    "net.dst.port >= 80",
    "net.dst.port != 81",
    r#"tls.sni == "a.test""#,
    r#"tls.sni =^ "test""#,
];
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

/// A rule with lists.
fn any_rule() -> impl Strategy<Value = Rule> {
    let created_at = prop::option::of(0_i64..3);
    let snis = prop_oneof![4 => Just(Vec::new()), 1 => some_of(SNIS, 2)];
    (
        some_of(HOSTS, 2),
        any_paths(),
        some_of(METHODS, 2),
        any_headers(),
        snis,
        -1_i64..=1,
        created_at,
    )
        .prop_map(
            |(hosts, paths, methods, headers, snis, regex_priority, created_at)| Rule {
                hosts,
                paths,
                methods,
                headers,
                snis,
                expression: None,
                priority: 0,
                regex_priority,
                created_at,
            },
        )
}

/// An expression of a few predicates.
fn any_expression() -> impl Strategy<Value = String> {
    let predicate = prop::sample::select(PREDICATES).prop_map(str::to_owned);
    predicate.prop_recursive(3, 8, 3, |inner| {
        let parts = prop::collection::vec(inner.clone(), 2..=3);
        prop_oneof![
            2 => parts.clone().prop_map(|parts| format!("({})", parts.join(" && "))),
            2 => parts.clone().prop_map(|parts| format!("({})", parts.join(" || "))),
            1 => parts.prop_map(|parts| parts.join(" && ").replacen("&&", "||", 1)),
            1 => inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

fn any_rule_with_expression() -> impl Strategy<Value = Rule> {
    let created_at = prop::option::of(0_i64..3);
    (any_expression(), 0_u64..2, created_at).prop_map(|(expression, priority, created_at)| Rule {
        expression: Some(expression),
        priority,
        created_at,
        ..Rule::default()
    })
}

/// A table and the flavour in which it is one.
fn any_table() -> impl Strategy<Value = (Vec<Rule>, Flavor)> {
    let either = prop_oneof![1 => any_rule(), 2 => any_rule_with_expression()];
    prop_oneof![
        1 => (any_rules(), Just(Flavor::TraditionalCompatible)),
        1 => (any_rules(), Just(Flavor::Traditional)),
        1 => (prop::collection::vec(either, 0..10), Just(Flavor::Expressions)),
    ]
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
    headers: Headers,
    sni: Option<&'static str>,
}

impl Request {
    fn key(&self) -> Key<'_> {
        Key {
            method: self.method,
            host: self.host,
            port: self.port,
            path: self.path,
            sni: self.sni,
            ..Key::plain(&self.headers)
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
        prop::sample::select(REQUEST_SNIS),
    )
        .prop_map(|(method, host, port, path, headers, sni)| Request {
            method,
            host,
            port,
            path,
            headers,
            sni,
        })
}

impl Request {
    /// Whether Kong's router, which knows only UTF-8, can be asked about it.
    fn is_text(&self) -> bool {
        let mut values = self.headers.iter().map(|(_, value)| value);
        std::str::from_utf8(self.path).is_ok()
            && values.all(|value| std::str::from_utf8(value.as_bytes()).is_ok())
    }
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

fn found(router: &Router, rules: &[Rule], key: &Key<'_>) -> Option<(usize, PathMatch)> {
    router.find(key).map(|found| {
        let path = match found.path {
            // What of an expression matched the path is not Kong's to say.
            _ if rules[found.route].expression.is_some() => None,
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
fn are_all_failing_conditions(
    mismatches: &[Mismatch],
    rule: &Rule,
    flavor: Flavor,
    key: &Key<'_>,
) -> bool {
    let mut reported = (false, false, false, Vec::new(), false);
    for mismatch in mismatches {
        match mismatch {
            Mismatch::Host { .. } => reported.0 = true,
            Mismatch::Path { .. } => reported.1 = true,
            Mismatch::Method { .. } => reported.2 = true,
            Mismatch::Header { name, .. } => reported.3.push(name.clone()),
            Mismatch::Sni { .. } => reported.4 = true,
            // Each predicate that is named has the value that is told.
            Mismatch::Predicate(finding) if rule.expression.is_some() => {
                if kong_holds(&finding.predicate, key) != finding.holds {
                    return false;
                }
            }
            Mismatch::Predicate(_) => return false,
        }
    }
    if rule.expression.is_some() {
        return !mismatches.is_empty() && match_rule(rule, flavor, key).is_none();
    }
    let failing_headers = rule
        .headers
        .iter()
        .filter(|header| !one_header_matches(header, flavor, key));
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
                !sni_matches(rule, key),
            )
}

/// Whether the reference agrees that this criterion is the first in which the two routes differ.
fn is_deciding(
    criterion: Criterion,
    (rules, flavor): (&[Rule], Flavor),
    winner: usize,
    loser: usize,
    key: &Key<'_>,
) -> bool {
    let rank = |route: usize| match_rule(&rules[route], flavor, key).unwrap().0;
    let (high, low) = (rank(winner), rank(loser));
    let pairs = high.iter().zip(&low);
    let first_difference = pairs
        .filter(|(high, low)| high != low)
        .map(|((name, high), (_, low))| (*name, *high, *low))
        .next();
    let dates = (rules[winner].created_at, rules[loser].created_at);
    let numbers = |name, high, low| first_difference == Some((name, high, low));
    let is_first = |name| first_difference.is_some_and(|(first, _, _)| first == name);
    match criterion {
        Criterion::Expression => is_first("expression"),
        Criterion::ExpressionPriority { winner, loser } => {
            numbers("priority", winner.cast_signed(), loser.cast_signed())
        }
        Criterion::Attributes { winner, loser } => {
            numbers("attributes", winner.into(), loser.into())
        }
        Criterion::AttributeSet { winner, loser } => {
            is_first("set") && !winner.is_empty() && !loser.is_empty()
        }
        Criterion::WildcardHostWithPort => is_first("wildcard with port"),
        Criterion::OnlyPlainHosts => is_first("plain hosts"),
        Criterion::HeaderNames { winner, loser } => {
            let number = |names: usize| i64::try_from(names).unwrap();
            numbers("headers", number(winner), number(loser))
        }
        Criterion::RegexPath => is_first("regex"),
        Criterion::RegexPriority { winner, loser } => numbers("regex priority", winner, loser),
        Criterion::PrefixLength { winner, loser } => {
            let number = |len: usize| i64::try_from(len).unwrap();
            numbers("prefix", number(winner), number(loser))
        }
        Criterion::HostWithPort => is_first("host with port"),
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
    fn the_router_agrees_with_the_reference((rules, flavor) in any_table(), requests in prop::collection::vec(any_request(), 8)) {
        let router = Router::build(&rules, flavor).unwrap();
        let shadowed = router.shadowed();
        for request in requests.iter().filter(|request| flavor != Flavor::Expressions || request.is_text()) {
            let key = request.key();
            let expected = find(&rules, flavor, &key);
            prop_assert_eq!(found(&router, &rules, &key), expected, "{:?}", request);
            for shadowed in &shadowed {
                prop_assert_ne!(expected.map(|(route, _)| route), Some(shadowed.route), "{:?}", request);
            }
            if flavor != Flavor::Expressions {
                prop_assert_eq!(router.allowed_methods(&key), allowed_methods(&rules, flavor, &key), "{:?}", request);
            }
        }
    }

    /// A route that is said to be shadowed would match, if its shadow were not there, only requests
    /// that its shadow matches too.
    #[test]
    fn whatever_a_shadowed_route_matches_the_route_that_shadows_it_matches_too((rules, flavor) in any_table(), requests in prop::collection::vec(any_request(), 16)) {
        let router = Router::build(&rules, flavor).unwrap();
        for shadowed in router.shadowed() {
            let is_one_path = rules[shadowed.route].paths.len() < 2;
            for request in requests.iter().filter(|request| is_one_path && request.is_text()) {
                let key = request.key();
                let own = match_rule(&rules[shadowed.route], flavor, &key);
                let by = match_rule(&rules[shadowed.by], flavor, &key);
                prop_assert!(own.is_none() || by.is_some_and(|by| own.is_some_and(|own| by.0 >= own.0)), "{:?}: {:?}", request, shadowed);
            }
        }
    }

    #[test]
    fn every_reason_in_an_explanation_is_true((rules, flavor) in any_table(), requests in prop::collection::vec(any_request(), 4)) {
        let router = Router::build(&rules, flavor).unwrap();
        for request in requests.iter().filter(|request| request.is_text()) {
            let key = request.key();
            let explanation = router.explain(&key);
            prop_assert_eq!(explanation.winner, find(&rules, flavor, &key).map(|(route, _)| route));
            let explained = explanation.losers.iter().map(|loser| loser.route).chain(explanation.winner);
            let mut explained: Vec<usize> = explained.collect();
            explained.sort_unstable();
            prop_assert!(explained.into_iter().eq(0..rules.len()));
            for loser in &explanation.losers {
                let is_true = match (&loser.reason, explanation.winner) {
                    (LossReason::Mismatched(mismatches), _) => are_all_failing_conditions(mismatches, &rules[loser.route], flavor, &key),
                    (LossReason::Outranked(criterion), Some(winner)) => is_deciding(*criterion, (&rules, flavor), winner, loser.route, &key),
                    (LossReason::Outranked(_), None) => false,
                };
                prop_assert!(is_true, "{:?}: {} for {:?}", request, loser.reason, loser);
            }
        }
    }

    #[test]
    fn another_file_order_gives_the_same_route_or_one_equal_to_it(
        (rules, shuffled, flavor) in any_table().prop_flat_map(|(rules, flavor)| {
            let order: Vec<usize> = (0..rules.len()).collect();
            (Just(rules), Just(order).prop_shuffle(), Just(flavor))
        }),
        request in any_request().prop_filter("Kong's router knows only text", Request::is_text),
    ) {
        let key = request.key();
        let reordered: Vec<Rule> = shuffled.iter().map(|&route| rules[route].clone()).collect();
        let winner = Router::build(&rules, flavor).unwrap().find(&key).map(|found| found.route);
        let other = Router::build(&reordered, flavor).unwrap().find(&key).map(|found| shuffled[found.route]);
        prop_assert_eq!(winner.is_some(), other.is_some());
        if let (Some(winner), Some(other)) = (winner, other) {
            let rank = |route: usize| match_rule(&rules[route], flavor, &key).unwrap().0;
            prop_assert_eq!(rank(winner), rank(other));
            // With a date on every rule that matches equally well, the file's order decides between
            // equal dates only.
            let equals = (0..rules.len()).filter(|&route| match_rule(&rules[route], flavor, &key).is_some_and(|(own, _)| own == rank(winner)));
            if equals.into_iter().all(|route| rules[route].created_at.is_some()) {
                prop_assert_eq!(rules[winner].created_at, rules[other].created_at);
            }
        }
    }
}
