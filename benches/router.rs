//! Look-ups and table building at 1, 100 and 10,000 routes: the time of a look-up must not grow
//! with their number.
//!
//! `cargo bench --bench router`; each look-up bench goes round 64 requests that are spread over the
//! table.

use std::hint::black_box;

use divan::{Bencher, counter::ItemsCount};
use http::HeaderValue;
use tollgate::entity::message::Headers;
use tollgate::entity::path::normalise;
use tollgate::router::{Flavor, Key, Router, Rule};

const SIZES: [usize; 3] = [1, 100, 10_000];
const REQUESTS: usize = 64;

fn main() {
    divan::main();
}

/// What a request sends besides its method: host, path and the value of the header `x-tenant`.
type Request = (String, String, String);

/// Makes the n-th route of a table, and a request for it.
type Make = fn(usize) -> (Rule, Request);

fn paths(n: usize) -> (Rule, Request) {
    (
        Rule {
            paths: vec![format!("/api/v1/service-{n}")],
            ..Rule::default()
        },
        request("example.com", &format!("/api/v1/service-{n}/items/42"), ""),
    )
}

fn hosts(n: usize) -> (Rule, Request) {
    let host = format!("tenant-{n}.example.com");
    (
        Rule {
            hosts: vec![host.clone()],
            ..Rule::default()
        },
        request(&host, "/api/v1/items/42", ""),
    )
}

fn wildcard_hosts(n: usize) -> (Rule, Request) {
    let rule = Rule {
        hosts: vec![format!("*.tenant-{n}.example.com")],
        ..Rule::default()
    };
    (
        rule,
        request(
            &format!("www.tenant-{n}.example.com"),
            "/api/v1/items/42",
            "",
        ),
    )
}

/// Expressions that begin with a path, as those of real files do.
fn expressions(n: usize) -> (Rule, Request) {
    let rule = Rule {
        expression: Some(format!(
            r#"http.path ^= "/service-{n}/" && (http.method == "GET" || http.method == "HEAD")"#
        )),
        ..Rule::default()
    };
    (
        rule,
        request("example.com", &format!("/service-{n}/items/42"), ""),
    )
}

/// Hosts with several paths each, methods on some, a few routes without a host, and a catch-all.
fn mixed(n: usize) -> (Rule, Request) {
    let (tenant, service) = (n / 10, n % 10);
    let mut rule = Rule {
        hosts: vec![
            format!("tenant-{tenant}.example.com"),
            format!("tenant-{tenant}.example.org"),
        ],
        paths: vec![
            format!("/service-{service}"),
            format!("/v2/service-{service}"),
        ],
        ..Rule::default()
    };
    match n % 10 {
        0 => rule.paths = vec!["/".to_owned()],
        1 => rule.hosts.clear(),
        2 => rule.methods = vec!["GET".to_owned(), "HEAD".to_owned()],
        3 => rule.paths = vec![format!(r"~/service-{service}/(?<id>\d+)$")],
        4 => rule.hosts = vec![format!("*.tenant-{tenant}.example.com")],
        _ => {}
    }
    (
        rule,
        request(
            &format!("tenant-{tenant}.example.com"),
            &format!("/service-{service}/42"),
            "",
        ),
    )
}

fn regexes(n: usize) -> (Rule, Request) {
    let rule = Rule {
        paths: vec![format!(r"~/api/v1/service-{n}/(?<id>\d+)$")],
        ..Rule::default()
    };
    (
        rule,
        request("example.com", &format!("/api/v1/service-{n}/42"), ""),
    )
}

/// All on one path, told apart by a header alone.
fn headers(n: usize) -> (Rule, Request) {
    let tenant = format!("tenant-{n}");
    let rule = Rule {
        paths: vec!["/api".to_owned()],
        headers: vec![("x-tenant".to_owned(), vec![tenant.clone()])],
        ..Rule::default()
    };
    (rule, request("example.com", "/api/items/42", &tenant))
}

fn request(host: &str, path: &str, tenant: &str) -> Request {
    (host.to_owned(), path.to_owned(), tenant.to_owned())
}

fn look_up(bencher: Bencher<'_, '_>, size: usize, make: Make) {
    let (rules, requests): (Vec<Rule>, Vec<Request>) = (0..size).map(make).unzip();
    let router =
        Router::build(&rules, Flavor::Expressions).expect("the bench's patterns are valid");
    let requests: Vec<(String, String, Headers)> = (0..REQUESTS)
        .filter_map(|nth| requests.get(nth * 7919 % size).cloned())
        .map(|(host, path, tenant)| {
            let tenant =
                HeaderValue::from_str(&tenant).expect("the bench's header values are valid");
            (
                host,
                path,
                Headers::from_iter([(http::HeaderName::from_static("x-tenant"), tenant)]),
            )
        })
        .collect();
    let find_all = || {
        for (host, path, headers) in &requests {
            let key = Key {
                host,
                path: path.as_bytes(),
                ..Key::plain(headers)
            };
            assert!(router.find(black_box(&key)).is_some());
        }
    };
    // Regexes beyond the first few are compiled by their first request.
    find_all();
    bencher.counter(ItemsCount::new(REQUESTS)).bench(find_all);
}

#[divan::bench(args = SIZES)]
fn find_by_path(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, paths);
}

#[divan::bench(args = SIZES)]
fn find_by_expression(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, expressions);
}

#[divan::bench(args = SIZES)]
fn find_by_host(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, hosts);
}

#[divan::bench(args = SIZES)]
fn find_by_wildcard_host(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, wildcard_hosts);
}

#[divan::bench(args = SIZES)]
fn find_in_mixed(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, mixed);
}

#[divan::bench(args = SIZES)]
fn find_by_regex(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, regexes);
}

#[divan::bench(args = SIZES)]
fn find_by_header(bencher: Bencher<'_, '_>, size: usize) {
    look_up(bencher, size, headers);
}

#[divan::bench(args = ["/api/v1/service-77/items/42", "/api/v1/%73ervice-77/./items//42"])]
fn normalise_path(bencher: Bencher<'_, '_>, path: &str) {
    bencher.bench(|| normalise(black_box(path.as_bytes())).len());
}

const KINDS: [(&str, Make); 5] = [
    ("path", paths),
    ("host", hosts),
    ("mixed", mixed),
    ("regex", regexes),
    ("header", headers),
];

#[divan::bench(args = KINDS.map(|(name, _)| name))]
fn build_10000(bencher: Bencher<'_, '_>, kind: &str) {
    let (_, make) = KINDS
        .into_iter()
        .find(|(name, _)| *name == kind)
        .expect("the argument is one of the kinds");
    let rules: Vec<Rule> = (0..10_000).map(|n| make(n).0).collect();
    bencher.bench_local(|| Router::build(black_box(&rules), Flavor::Expressions).is_ok());
}
