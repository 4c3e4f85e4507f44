//! Which configuration of a plugin runs: the most specific one whose scopes all hold.
//! Each instance of the limiter has a limit of its own, so that the answer tells which one ran.

use crate::harness::{Gateway, Origin, Request};

fn limiter(limit: u32, scope: &str) -> String {
    format!("- {{ name: rate-limiting, config: {{ year: {limit}, limit_by: ip }}, {scope} }}\n")
}

/// Alice and Bob may call two routes of one service; `plugins` are added at the top level.
fn site(origin: &Origin, plugins: &str) -> Gateway {
    Gateway::start(&format!(
        "services:
- name: orders
  url: {origin}
  routes:
  - {{ name: first, paths: [/first] }}
  - {{ name: second, paths: [/second] }}
- name: other
  url: {origin}
  routes:
  - {{ name: third, paths: [/third] }}
consumers:
- {{ username: alice, keyauth_credentials: [{{ key: alice-key }}] }}
- {{ username: bob, keyauth_credentials: [{{ key: bob-key }}] }}
plugins:
- name: key-auth
{plugins}"
    ))
}

/// The limit of the instance that ran, 0 if none did.
fn limit(gateway: &Gateway, path: &str, consumer: &str) -> u32 {
    let response = gateway.send(&Request::get(path).header("apikey", &format!("{consumer}-key")));
    assert_eq!(response.status, 200);
    response
        .header("X-RateLimit-Limit-Year")
        .map_or(0, |limit| limit.parse().expect("a number"))
}

/// S25, S69
#[test]
fn route_goes_before_service_and_service_before_global() {
    let origin = Origin::replying("hello");
    let plugins = limiter(10_012, "")
        + &limiter(10_011, "service: orders")
        + &limiter(10_010, "route: first");
    let gateway = site(&origin, &plugins);

    assert_eq!(limit(&gateway, "/first", "alice"), 10_010);
    assert_eq!(limit(&gateway, "/second", "alice"), 10_011);
    assert_eq!(limit(&gateway, "/third", "alice"), 10_012);
}

/// S25
#[test]
fn a_consumers_instance_goes_before_a_routes() {
    let origin = Origin::replying("hello");
    let plugins = limiter(10_012, "")
        + &limiter(10_010, "route: first")
        + &limiter(10_008, "consumer: alice");
    let gateway = site(&origin, &plugins);

    assert_eq!(limit(&gateway, "/first", "alice"), 10_008);
    assert_eq!(limit(&gateway, "/third", "alice"), 10_008);
    assert_eq!(limit(&gateway, "/first", "bob"), 10_010);
    assert_eq!(limit(&gateway, "/third", "bob"), 10_012);
}

#[test]
fn combined_scopes_go_before_single_ones_in_kongs_order() {
    let origin = Origin::replying("hello");
    let ladder = [
        (10_001, "consumer: alice, route: first, service: orders"),
        (10_003, "consumer: alice, route: first"),
        (10_004, "consumer: alice, service: orders"),
        (10_007, "route: first, service: orders"),
        (10_008, "consumer: alice"),
        (10_010, "route: first"),
        (10_011, "service: orders"),
        (10_012, ""),
    ];
    // With every rung present the first wins; without it the next one, and so on.
    for rung in 0..ladder.len() {
        let plugins: String = ladder[rung..]
            .iter()
            .map(|(limit, scope)| limiter(*limit, scope))
            .collect();
        let gateway = site(&origin, &plugins);
        assert_eq!(
            limit(&gateway, "/first", "alice"),
            ladder[rung].0,
            "{}",
            ladder[rung].1
        );
    }
}

#[test]
fn a_disabled_instance_does_not_hide_a_less_specific_one() {
    let origin = Origin::replying("hello");
    let plugins = limiter(10_012, "") + &limiter(10_010, "route: first, enabled: false");

    assert_eq!(limit(&site(&origin, &plugins), "/first", "alice"), 10_012);
}

#[test]
fn an_instance_for_another_protocol_does_not_hide_a_less_specific_one() {
    let origin = Origin::replying("hello");
    let plugins = limiter(10_012, "") + &limiter(10_010, "route: first, protocols: [https]");

    assert_eq!(limit(&site(&origin, &plugins), "/first", "alice"), 10_012);
}

#[test]
fn scopes_can_be_nested() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          url: {origin}
          plugins:
          - {{ name: rate-limiting, config: {{ year: 10011, limit_by: ip }} }}
          routes:
          - name: first
            paths: [/first]
            plugins:
            - {{ name: rate-limiting, config: {{ year: 10010, limit_by: ip }} }}
          - name: second
            paths: [/second]
        consumers:
        - username: alice
          keyauth_credentials: [{{ key: alice-key }}]
          plugins:
          - {{ name: rate-limiting, config: {{ year: 10008, limit_by: ip }} }}
        - username: bob
          keyauth_credentials: [{{ key: bob-key }}]
        plugins:
        - name: key-auth
        "
    ));

    assert_eq!(limit(&gateway, "/first", "alice"), 10_008);
    assert_eq!(limit(&gateway, "/first", "bob"), 10_010);
    assert_eq!(limit(&gateway, "/second", "bob"), 10_011);
}
