//! Consumer groups: who is in one, which plugins run for its consumers, and what services learn of it.
//! Each instance of the limiter has a limit of its own, so that the answer tells which one ran.

use super::limiters::{limit, limiter};
use crate::harness::{Blueprint, Gateway, Origin, Request, Response};

/// Ann is in `gold` and `silver`, Ben in `silver`, Cleo in no group. `groups` are added to these.
fn site(origin: &Origin, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "services:
- name: orders
  url: {origin}
  routes:
  - {{ name: first, paths: [/first] }}
  - {{ name: second, paths: [/second] }}
consumers:
- {{ username: ann, keyauth_credentials: [{{ key: ann-key }}], groups: [{{ name: silver }}, {{ name: gold }}] }}
- {{ username: ben, keyauth_credentials: [{{ key: ben-key }}] }}
- {{ username: cleo, keyauth_credentials: [{{ key: cleo-key }}] }}
consumer_groups:
- {{ name: silver, consumers: [{{ username: ben }}] }}
- {{ name: gold }}
{rest}"
    ))
}

fn call(gateway: &Gateway, path: &str, consumer: &str) -> Response {
    gateway.send(&Request::get(path).header("apikey", &format!("{consumer}-key")))
}

#[test]
fn all_twelve_combinations_of_scopes_have_kongs_order() {
    let origin = Origin::replying("hello");
    let ladder = [
        (10_001, "consumer: ann, route: first, service: orders"),
        (
            10_002,
            "consumer_group: gold, route: first, service: orders",
        ),
        (10_003, "consumer: ann, route: first"),
        (10_004, "consumer: ann, service: orders"),
        (10_005, "consumer_group: gold, route: first"),
        (10_006, "consumer_group: gold, service: orders"),
        (10_007, "route: first, service: orders"),
        (10_008, "consumer: ann"),
        (10_009, "consumer_group: gold"),
        (10_010, "route: first"),
        (10_011, "service: orders"),
        (10_012, ""),
    ];
    let rungs = |from: usize| -> String {
        let plugins: String = ladder[from..]
            .iter()
            .map(|(limit, scope)| limiter(*limit, scope))
            .collect();
        format!("plugins:\n- name: key-auth\n{plugins}")
    };
    // With every rung present the first wins; without it the next one, and so on.
    for (rung, (expected, scope)) in ladder.into_iter().enumerate() {
        let gateway = site(&origin, &rungs(rung));
        assert_eq!(limit(&gateway, "/first", "ann"), expected, "{scope}");
    }
}

#[test]
fn of_several_groups_the_alphabetically_first_with_the_plugin_decides() {
    let origin = Origin::replying("hello");
    let plugins = limiter(20_001, "consumer_group: silver")
        + &limiter(20_002, "consumer_group: gold")
        + &limiter(20_003, "");
    let gateway = site(&origin, &format!("plugins:\n- name: key-auth\n{plugins}"));

    assert_eq!(limit(&gateway, "/first", "ann"), 20_002);
    assert_eq!(limit(&gateway, "/first", "ben"), 20_001);
    assert_eq!(limit(&gateway, "/first", "cleo"), 20_003);

    let silver_only = limiter(20_001, "consumer_group: silver");
    let gateway = site(
        &origin,
        &format!("plugins:\n- name: key-auth\n{silver_only}"),
    );
    assert_eq!(limit(&gateway, "/first", "ann"), 20_001);
    assert_eq!(limit(&gateway, "/first", "cleo"), 0);
}

#[test]
fn every_way_of_writing_a_group_means_the_same() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!(
        "services:
- name: orders
  url: {origin}
  routes: [{{ name: first, paths: [/first] }}]
consumers:
- {{ username: named, keyauth_credentials: [{{ key: named-key }}] }}
- {{ username: recorded, keyauth_credentials: [{{ key: recorded-key }}] }}
- {{ username: listed, custom_id: \"4711\", keyauth_credentials: [{{ key: listed-key }}] }}
- {{ username: own, keyauth_credentials: [{{ key: own-key }}], groups: [gold] }}
consumer_groups:
- name: gold
  consumers:
  - named
  - username: recorded
  - username: inside
    keyauth_credentials: [{{ key: inside-key }}]
  plugins:
  - {{ name: rate-limiting, config: {{ year: 30001, limit_by: ip }} }}
- name: silver
consumer_group_consumers:
- {{ consumer: {{ custom_id: \"4711\" }}, consumer_group: {{ name: silver }} }}
consumer_group_plugins:
- {{ name: rate-limiting, consumer_group: silver, config: {{ year: 30002, limit_by: ip }} }}
plugins:
- name: key-auth
"
    ));

    for consumer in ["named", "recorded", "inside", "own"] {
        assert_eq!(limit(&gateway, "/first", consumer), 30_001, "{consumer}");
    }
    assert_eq!(limit(&gateway, "/first", "listed"), 30_002);
}

#[test]
fn a_group_has_its_limit_and_each_of_its_consumers_a_count() {
    let origin = Origin::replying("hello");
    let plugins = "plugins:
- name: key-auth
- { name: rate-limiting, consumer_group: silver, config: { year: 2, policy: local } }
- { name: rate-limiting, config: { year: 1, policy: local } }
";
    let gateway = site(&origin, plugins);
    let statuses = |consumer: &str| {
        let statuses: Vec<u16> = (0..3)
            .map(|_| call(&gateway, "/first", consumer).status)
            .collect();
        statuses
    };

    assert_eq!(statuses("ben"), [200, 200, 429]);
    assert_eq!(statuses("ann"), [200, 200, 429]);
    assert_eq!(statuses("cleo"), [200, 429, 429]);
}

#[test]
fn a_group_can_be_shut_out() {
    let origin = Origin::replying("hello");
    let plugins = "plugins:
- name: key-auth
- { name: request-termination, consumer_group: gold, route: second, config: { status_code: 403, message: not for gold } }
";
    let gateway = site(&origin, plugins);

    let refused = call(&gateway, "/second", "ann");
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("not for gold"),
        "{}",
        refused.text()
    );
    assert_eq!(call(&gateway, "/first", "ann").status, 200);
    assert_eq!(call(&gateway, "/second", "ben").status, 200);
}

#[test]
fn services_learn_the_groups_by_name_and_never_from_the_client() {
    let origin = Origin::replying("hello");
    let gateway = site(&origin, "plugins:\n- name: key-auth\n");
    let groups = |consumer: &str| {
        let request = Request::get("/first")
            .header("apikey", &format!("{consumer}-key"))
            .header("X-Consumer-Groups", "admins");
        assert_eq!(gateway.send(&request).status, 200);
        origin.last().header("X-Consumer-Groups").map(str::to_owned)
    };

    assert_eq!(groups("ann").as_deref(), Some("gold, silver"));
    assert_eq!(groups("ben").as_deref(), Some("silver"));
    assert_eq!(groups("cleo"), None);
}

#[test]
fn joining_a_group_is_a_matter_of_a_reload() {
    let origin = Origin::replying("hello");
    let document = |member: &str| {
        format!(
            "services: [{{ name: orders, url: {origin}, routes: [{{ name: first, paths: [/first] }}] }}]
consumers: [{{ username: ann, keyauth_credentials: [{{ key: ann-key }}] }}]
consumer_groups: [{{ name: gold, consumers: [{member}] }}]
plugins: [{{ name: key-auth }}, {{ name: rate-limiting, consumer_group: gold, config: {{ year: 40001, limit_by: ip }} }}]
"
        )
    };
    let gateway = Gateway::start(&document(""));
    assert_eq!(limit(&gateway, "/first", "ann"), 0);
    gateway.reload(&document("ann"));
    assert_eq!(limit(&gateway, "/first", "ann"), 40_001);
}

#[test]
fn an_entry_of_vaults_names_variables_by_their_beginning() {
    let origin = Origin::replying("hello");
    let gateway = Blueprint::new("")
        .with_variable("SECURE_ANN_KEY", "YW5uLWtleQ==")
        .start(&format!(
            "services: [{{ name: orders, url: {origin}, routes: [{{ name: first, paths: [/first] }}] }}]
vaults: [{{ prefix: secrets, name: env, config: {{ prefix: SECURE_, base64_decode: true }} }}]
consumers: [{{ username: ann, keyauth_credentials: [{{ key: \"{{vault://secrets/ann-key}}\" }}] }}]
plugins: [{{ name: key-auth }}]
"
        ));

    assert_eq!(call(&gateway, "/first", "ann").status, 200);
    assert_eq!(call(&gateway, "/first", "ben").status, 401);
    assert!(!gateway.log().contains("ann-key"));
}

#[test]
fn members_and_plugins_may_be_nested_under_the_names_of_their_lists() {
    let origin = Origin::replying("hello");
    let gateway = site(
        &origin,
        "- name: bronze
  consumer_group_consumers: [{ consumer: cleo }]
  consumer_group_plugins: [{ name: rate-limiting, config: { year: 30, limit_by: ip } }]
plugins: [{ name: key-auth }]
",
    );

    assert_eq!(limit(&gateway, "/first", "cleo"), 30);
    assert_eq!(limit(&gateway, "/first", "ann"), 0);
}
