//! How requests are spread over the targets of an upstream.

mod hashing;
mod load;
mod sessions;
mod slow_start;

use std::collections::BTreeMap;

use crate::harness::{Gateway, Origin, Request, dedent, pool};

/// An upstream `pool` with these fields, one a line, over these origins, behind a catch-all route.
fn upstream(fields: &str, targets: &[String]) -> String {
    let mut text = dedent(
        "
        services:
        - name: orders
          host: pool
          retries: 1
          routes:
          - name: orders
            paths: [/]
        upstreams:
        - name: pool
        ",
    );
    for field in fields.lines() {
        text.push_str(&format!("\n  {field}"));
    }
    text.push_str("\n  targets:");
    for target in targets {
        text.push_str(&format!("\n  - target: {target}"));
    }
    text.push('\n');
    text
}

fn authorities(origins: &[&Origin]) -> Vec<String> {
    origins.iter().map(|origin| origin.authority()).collect()
}

/// The bodies of `count` requests one after the other on one connection.
fn visits(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut client = gateway.connect();
    (0..count)
        .map(|_| client.send(&Request::get("/")).text())
        .collect()
}

fn tally(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_insert(0) += 1;
    }
    counts
}

/// The longest run of `name` in a row.
fn longest_run(names: &[String], name: &str) -> usize {
    names
        .split(|other| other != name)
        .map(<[String]>::len)
        .max()
        .unwrap_or(0)
}

/// S07
#[test]
fn ten_requests_over_two_targets_are_five_and_five() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&pool(&[(&a, 100), (&b, 100)]));

    let names = visits(&gateway, 10);

    assert_eq!(tally(&names), BTreeMap::from([("a", 5), ("b", 5)]));
    assert_eq!(
        (longest_run(&names, "a"), longest_run(&names, "b")),
        (1, 1),
        "{names:?}"
    );
}

/// S08
#[test]
fn weights_of_three_to_one_are_exact_and_smooth() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&pool(&[(&a, 3), (&b, 1)]));

    let names = visits(&gateway, 400);

    assert_eq!(tally(&names), BTreeMap::from([("a", 300), ("b", 100)]));
    assert!(
        longest_run(&names, "a") <= 3 && longest_run(&names, "b") <= 1,
        "{names:?}"
    );
}

/// S08: only the proportion counts, so a full cycle is four requests here too.
#[test]
fn weights_are_reduced_to_their_proportion() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&pool(&[(&a, 300), (&b, 100)]));

    assert_eq!(
        tally(&visits(&gateway, 4)),
        BTreeMap::from([("a", 3), ("b", 1)])
    );
}

#[test]
fn a_target_of_weight_zero_is_never_picked() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&pool(&[(&a, 0), (&b, 1)]));

    assert_eq!(tally(&visits(&gateway, 20)), BTreeMap::from([("b", 20)]));
    assert_eq!(a.connections(), 0);
}

/// S12
#[test]
fn an_upstream_whose_weights_are_all_zero_is_a_503() {
    let a = Origin::replying("a");
    let gateway = Gateway::start(&pool(&[(&a, 0)]));

    let response = gateway.get("/");

    assert_eq!(response.status, 503);
    assert_eq!(
        response.message(),
        "failure to get a peer from the ring-balancer"
    );
    assert_eq!(a.connections(), 0);
}

#[test]
fn targets_may_be_nested_or_stand_beside_their_upstream() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '{}' }}] }}
        targets:
        - {{ target: '{}', upstream: pool }}
        ",
        a.authority(),
        b.authority()
    ));

    assert_eq!(
        tally(&visits(&gateway, 10)),
        BTreeMap::from([("a", 5), ("b", 5)]),
        "the default weights are equal"
    );
}

/// S07: one wheel for the process, whatever thread a request is on.
#[test]
fn the_spread_is_exact_over_concurrent_clients() {
    let origins = ["a", "b", "c", "d"].map(Origin::replying);
    let gateway = Gateway::start(&pool(&origins.each_ref().map(|origin| (origin, 10))));

    let names = gateway.concurrently(8, |client| {
        (0..25)
            .map(|_| client.send(&Request::get("/")).text())
            .collect::<Vec<_>>()
    });

    let counts = origins.each_ref().map(Origin::count);
    assert_eq!((names.concat().len(), counts), (200, [50, 50, 50, 50]));
}

#[test]
fn two_services_on_one_upstream_share_its_wheel() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: one, host: pool, routes: [{{ name: one, paths: [/one] }}] }}
        - {{ name: two, host: pool, routes: [{{ name: two, paths: [/two] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '{}' }}, {{ target: '{}' }}] }}
        ",
        a.authority(),
        b.authority()
    ));

    let names: Vec<String> = ["/one", "/two"]
        .repeat(5)
        .into_iter()
        .map(|path| gateway.get(path).text())
        .collect();

    assert_eq!(tally(&names), BTreeMap::from([("a", 5), ("b", 5)]));
    assert_eq!(longest_run(&names, "a"), 1, "{names:?}");
}

#[test]
fn a_target_given_by_name_is_resolved() {
    let a = Origin::replying("a");
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: 'localhost:{}' }}] }}
        ",
        a.port()
    ));

    assert_eq!(gateway.get("/").text(), "a");
    assert_eq!(
        a.last().header("host"),
        Some(format!("localhost:{}", a.port()).as_str())
    );
}
