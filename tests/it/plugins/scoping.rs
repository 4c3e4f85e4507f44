//! Which configuration of a plugin runs: the most specific one whose scopes all hold.
//! Each instance of the limiter has a limit of its own, so that the answer tells which one ran.

use super::limiters::{limit, limiter};
use crate::harness::{Gateway, Origin};

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
