//! Plugins that say before or after which others they run.

use crate::harness::{Gateway, Origin, Request};

fn site(origin: &Origin, plugins: &str) -> Gateway {
    Gateway::start(&format!(
        "services: [{{ name: orders, url: {origin}, routes: [{{ name: first, paths: [/first] }}, {{ name: second, paths: [/second] }}] }}]
consumers: [{{ username: ann, keyauth_credentials: [{{ key: ann-key }}] }}]
plugins:
{plugins}"
    ))
}

#[test]
fn a_limiter_before_authentication_counts_those_who_fail_it() {
    let origin = Origin::replying("hello");
    let gateway = site(
        &origin,
        "- { name: key-auth }
- name: rate-limiting
  config: { year: 2, limit_by: ip }
  ordering: { before: { access: [key-auth] } }
- { name: prometheus }
- { name: correlation-id, config: { echo_downstream: true, header_name: X-Id } }
",
    );

    let statuses: Vec<u16> = (0..3).map(|_| gateway.get("/first").status).collect();
    assert_eq!(statuses, [401, 401, 429]);
    assert!(gateway.get("/first").header("X-Id").is_some());
}

#[test]
fn an_order_of_its_own_moves_one_plugin_and_only_where_it_applies() {
    let origin = Origin::replying("hello");
    let gateway = site(
        &origin,
        "- { name: rate-limiting, config: { year: 1, limit_by: ip } }
- { name: key-auth }
- { name: key-auth, route: second, ordering: { after: { access: [rate-limiting] } } }
",
    );
    let statuses = |path: &str| {
        let statuses: Vec<u16> = (0..3).map(|_| gateway.get(path).status).collect();
        statuses
    };

    // Before the limiter nobody without a key is counted.
    assert_eq!(statuses("/first"), [401, 401, 401]);
    assert_eq!(statuses("/second"), [401, 429, 429]);
}

#[test]
fn a_plugin_moved_before_authentication_sees_no_consumer() {
    let origin = Origin::replying("hello");
    let gateway = site(
        &origin,
        "- { name: key-auth }
- name: rate-limiting
  config: { year: 50001, limit_by: ip }
  ordering: { before: { access: [key-auth] } }
- { name: rate-limiting, consumer: ann, config: { year: 50002, limit_by: ip } }
",
    );

    let response = gateway.send(&Request::get("/first").header("apikey", "ann-key"));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("X-RateLimit-Limit-Year"), Some("50001"));
}
