//! The router's flavours `traditional` and `expressions`, on the wire and in what `check` and
//! `explain` say.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Gateway, Origin, Outcome, Reply, Request, tollgate};

/// One service per route; the origin's reply names the route that won.
struct Site {
    gateway: Gateway,
    _origin: Origin,
}

impl Site {
    /// Each route is its name and its other fields as a block, indented by four.
    fn new(settings: &str, routes: &[(&str, &str)]) -> Self {
        let origin = Origin::start(|request| {
            let name = request.target.split(['/', '?']).nth(1).unwrap_or_default();
            Reply::ok(name)
        });
        Self {
            gateway: Gateway::start_with(settings, &document(&origin.to_string(), routes)),
            _origin: origin,
        }
    }

    fn winner(&self, request: &Request) -> String {
        let response = self.gateway.send(request);
        if response.status == 200 {
            response.text()
        } else {
            response.status.to_string()
        }
    }
}

fn document(origin: &str, routes: &[(&str, &str)]) -> String {
    let mut yaml = String::from("services:\n");
    for (name, fields) in routes {
        yaml.push_str(&format!("- name: {name}-service\n  url: {origin}/{name}\n"));
        yaml.push_str(&format!("  routes:\n  - name: {name}\n"));
        for line in fields.lines() {
            yaml.push_str(&format!("    {line}\n"));
        }
    }
    yaml
}

const EXPRESSIONS: &str = "router_flavor: expressions";

fn checked(folder: &Path, settings: &str, routes: &[(&str, &str)]) -> Outcome {
    let routes = document("http://127.0.0.1:9", routes);
    let text = format!("_format_version: \"3.0\"\ngateway:\n  {settings}\n{routes}");
    fs::write(folder.join("gateway.yaml"), text).expect("a writable folder");
    tollgate(folder, &["check", "-c", "gateway.yaml"])
}

#[test]
fn the_traditional_flavour_weighs_hosts_before_paths_and_a_regex_before_headers() {
    let routes = [
        ("path", "paths: [/a]"),
        ("host", "hosts: ['*.test']"),
        (
            "headers",
            "paths: [/b]\nheaders: { x-a: ['1'], x-b: ['2'] }",
        ),
        ("regex", "paths: ['~/b']\nheaders: { x-a: ['1'] }"),
    ];
    let by_host = Request::get("/a").host("a.test");
    let by_header = Request::get("/b").header("x-a", "1").header("x-b", "2");

    let compatible = Site::new("", &routes);
    assert_eq!(compatible.winner(&by_host), "path");
    assert_eq!(compatible.winner(&by_header), "headers");

    let traditional = Site::new("router_flavor: traditional", &routes);
    assert_eq!(traditional.winner(&by_host), "host");
    assert_eq!(traditional.winner(&by_header), "regex");
}

#[test]
fn in_the_traditional_flavour_a_host_without_port_names_the_usual_one() {
    let site = Site::new(
        "router_flavor: traditional",
        &[
            ("usual", "hosts: ['a.test:80']"),
            ("any", "hosts: [a.test]"),
        ],
    );

    assert_eq!(site.winner(&Request::get("/").host("a.test")), "usual");
    assert_eq!(site.winner(&Request::get("/").host("a.test:81")), "any");
}

#[test]
fn expressions_compare_method_host_path_headers_and_query() {
    let site = Site::new(
        EXPRESSIONS,
        &[
            (
                "orders",
                "expression: http.path ^= \"/orders\" && (http.method == \"GET\" || http.method == \"POST\")",
            ),
            (
                "users",
                "expression: 'http.path ~ r#\"^/users/\\d+$\"# && http.host =^ \".shop.test\"'",
            ),
            (
                "beta",
                "expression: any(lower(http.headers.x_release)) == \"beta\" && http.queries.page != \"0\"",
            ),
            (
                "v2",
                "expression: http.path.segments.0_1 == \"api/v2\" && http.path.segments.len >= 3",
            ),
        ],
    );

    for (request, winner) in [
        (Request::get("/orders/7"), "orders"),
        (Request::new("POST", "/orders"), "orders"),
        (Request::new("DELETE", "/orders"), "404"),
        (Request::get("/users/7").host("a.shop.test"), "users"),
        (Request::get("/users/7").host("shop.test"), "404"),
        (Request::get("/users/x").host("a.shop.test"), "404"),
        (
            Request::get("/x?page=2")
                .header("X-Release", "alpha")
                .header("X-Release", "BETA"),
            "beta",
        ),
        (Request::get("/x?page=0").header("X-Release", "beta"), "404"),
        (Request::get("/x").header("X-Release", "beta"), "404"),
        (Request::get("/api//v2/%75sers"), "v2"),
        (Request::get("/api/v2"), "404"),
    ] {
        assert_eq!(site.winner(&request), winner, "{request:?}");
    }
}

#[test]
fn expressions_compare_protocol_addresses_and_ports() {
    let site = Site::new(
        "router_flavor: expressions\ntrusted_ips: 127.0.0.1\nreal_ip_header: X-Real-IP",
        &[
            (
                "office",
                "expression: net.src.ip in 10.0.0.0/8 && net.src.ip not in 10.9.0.0/16",
            ),
            ("secure", "expression: net.protocol == \"https\""),
            ("port", "expression: net.dst.port == 8443"),
            (
                "local",
                "expression: net.dst.ip == 127.0.0.1 && net.src.port > 0 && http.path == \"/local\"",
            ),
        ],
    );

    for (request, winner) in [
        (Request::get("/").header("X-Real-IP", "10.1.2.3"), "office"),
        (Request::get("/").header("X-Real-IP", "10.9.2.3"), "404"),
        (
            Request::get("/").header("X-Forwarded-Proto", "https"),
            "secure",
        ),
        (Request::get("/").host("a.test:8443"), "port"),
        (Request::get("/local"), "local"),
        (Request::get("/"), "404"),
    ] {
        assert_eq!(site.winner(&request), winner, "{request:?}");
    }
}

#[test]
fn the_higher_priority_goes_first_and_attributes_come_after_every_expression() {
    let site = Site::new(
        EXPRESSIONS,
        &[
            (
                "attributes",
                "hosts: [a.test]\npaths: [/a/b/c]\nmethods: [GET]",
            ),
            ("low", "expression: http.path ^= \"/a/b\"\npriority: 1"),
            ("high", "expression: http.path ^= \"/a\"\npriority: 2"),
            ("fallback", "paths: [/]"),
        ],
    );

    assert_eq!(site.winner(&Request::get("/a/b/c").host("a.test")), "high");
    assert_eq!(site.winner(&Request::get("/b").host("a.test")), "fallback");
}

#[test]
fn strip_path_cuts_what_the_expression_says_of_the_beginning() {
    let origin = Origin::replying("");
    let gateway = Gateway::start_with(
        EXPRESSIONS,
        &format!(
            "
services:
- url: '{origin}/base'
  routes:
  - expression: http.path ^= \"/shop\" && http.method == \"GET\"
  - expression: http.path ~ \"^/v[0-9]+\"
  - expression: http.path contains \"x\"
"
        ),
    );

    for (path, received) in [
        ("/shop/cart?a=1", "/base/cart?a=1"),
        ("/v12/cart", "/base/cart"),
        ("/a/x", "/base/a/x"),
    ] {
        gateway.get(path);
        assert_eq!(origin.last().target, received, "{path}");
    }
}

#[test]
fn with_method_not_allowed_405_an_expression_names_its_methods() {
    let site = Site::new(
        "router_flavor: expressions\nmethod_not_allowed: 405",
        &[(
            "read",
            "expression: http.path ^= \"/a\" && (http.method == \"GET\" || http.method == \"HEAD\")",
        )],
    );

    let response = site.gateway.send(&Request::new("PUT", "/a"));

    assert_eq!(response.status, 405);
    assert_eq!(response.header("allow"), Some("GET, HEAD"));
    assert_eq!(site.winner(&Request::new("PUT", "/b")), "404");
}

#[test]
fn a_reload_changes_the_flavour() {
    let origin = Origin::start(|request| Reply::ok(request.target.clone()));
    let routes = |flavor: &str| {
        format!(
            "_format_version: \"3.0\"\nservices:\n- url: {origin}\n  routes:\n  - {flavor}\n    strip_path: false\n"
        )
    };
    let flavor = "router_flavor: traditional";
    let gateway = Gateway::start_with(flavor, &routes("paths: [/a]"));
    assert_eq!(gateway.get("/b").status, 404);

    let changed = gateway.compose(&routes("expression: http.path ^= \"/b\""));
    gateway.changing_configuration(|| {
        gateway.replace_exactly(&changed.replace(flavor, EXPRESSIONS));
    });

    assert_eq!(gateway.get("/b").status, 200);
    assert_eq!(gateway.get("/a").status, 404);
}

#[test]
fn check_says_where_in_an_expression_a_mistake_is() {
    let folder = tempfile::tempdir().expect("a folder");

    let outcome = checked(
        folder.path(),
        EXPRESSIONS,
        &[
            ("typo", "expression: http.paht == \"/a\""),
            ("open", "expression: http.path == \"/a\" &&"),
            ("both", "expression: http.path == \"/a\"\npaths: [/a]"),
            ("lone", "paths: [/a]\npriority: 3"),
        ],
    );

    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    for told in [
        "gateway.yaml:9:17: error[config::invalid_value]: services[0].routes[0].expression: expression, character 1: unknown field `http.paht`",
        "gateway.yaml:14:17: error[config::invalid_value]: services[1].routes[0].expression: expression, character 21: expected",
        "gateway.yaml:20:12: error[config::invalid_combination]: services[2].routes[0].paths: a route has either `expression` or attributes",
        "gateway.yaml:26:15: error[config::invalid_combination]: services[3].routes[0].priority: `priority` has no meaning without",
    ] {
        assert!(outcome.stderr.contains(told), "{told}\n{}", outcome.stderr);
    }
}

#[test]
fn an_expression_in_another_flavour_is_a_mistake() {
    let folder = tempfile::tempdir().expect("a folder");

    let outcome = checked(
        folder.path(),
        "router_flavor: traditional",
        &[("a", "expression: http.path == \"/a\"")],
    );

    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(
        outcome
            .stderr
            .contains("gateway.yaml:9:5: error[config::invalid_combination]")
            && outcome
                .stderr
                .contains("gateway.router_flavor: expressions"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn check_warns_of_a_route_that_no_request_can_reach() {
    let folder = tempfile::tempdir().expect("a folder");

    let outcome = checked(
        folder.path(),
        "router_flavor: traditional_compatible",
        &[
            ("all", "paths: ['~/api']"),
            ("users", "paths: [/api/users, '~/api/v1']"),
            ("orders", "paths: [/orders]"),
        ],
    );

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(
            "gateway.yaml:13:5: warning[config::shadowed_route]: services[1].routes[0]: no request can reach route `users`: \
             route `all` (gateway.yaml:8:5) takes all that it matches and goes first"
        ),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stderr.matches("shadowed_route").count(), 1);
}

#[test]
fn explain_names_the_predicate_that_fails_with_the_value_it_met() {
    let folder = tempfile::tempdir().expect("a folder");
    let routes = [
        (
            "read",
            "expression: http.path ^= \"/a\" && http.method == \"GET\"\npriority: 2",
        ),
        (
            "write",
            "expression: http.path ^= \"/a\" && http.method == \"PUT\"",
        ),
        ("attributes", "paths: [/a]"),
    ];
    checked(folder.path(), EXPRESSIONS, &routes);

    let outcome = tollgate(
        folder.path(),
        &[
            "explain",
            "-c",
            "gateway.yaml",
            "--format",
            "json",
            "GET",
            "http://a.test/a/b",
        ],
    );

    let explanation: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(explanation["route"]["label"], "read");
    let matched = &explanation["route"]["matched"];
    assert_eq!(matched[0]["attribute"], "expression");
    assert_eq!(matched[0]["by"], "http.path ^= \"/a\"");
    assert_eq!(
        matched[1]["sentence"],
        "`http.method == \"GET\"` holds: it is `GET`"
    );
    let near_misses = explanation["near_misses"].as_array().expect("a list");
    let reasons = |label: &str| {
        let near = near_misses.iter().find(|near| near["label"] == label);
        near.expect("a near miss")["reasons"].clone()
    };
    assert_eq!(
        reasons("write"),
        serde_json::json!(["`http.method == \"PUT\"` does not hold: it is `GET`"])
    );
    assert_eq!(
        reasons("attributes"),
        serde_json::json!([
            "it matches, but the winner has an expression, this route has attributes"
        ])
    );
}
