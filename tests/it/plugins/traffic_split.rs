//! `traffic-split`: which service a request goes to, what of it applies, and how that is shown.

use std::collections::BTreeMap;
use std::path::Path;

use crate::harness::{
    Gateway, Origin, Outcome, Reply, Request, check, free_port, tollgate, wait_until,
};

/// Two services, of which the route belongs to `v1`, and the plugin on that route.
fn site(v1: &Origin, v2: &Origin, config: &str) -> String {
    format!(
        "services:
- name: v1
  url: {v1}
  routes:
  - name: orders
    paths: [/orders]
    plugins:
    - name: traffic-split
      config: {config}
- name: v2
  url: {v2}/second
"
    )
}

const NINETY_TEN: &str =
    "{ rules: [{ to: [{ service: v1, weight: 90 }, { service: v2, weight: 10 }] }] }";

fn origins() -> (Origin, Origin) {
    (Origin::replying("one"), Origin::replying("two"))
}

#[test]
fn of_a_hundred_requests_ten_go_to_a_service_of_ten_percent_whatever_thread_they_run_on() {
    let (v1, v2) = origins();
    let gateway = Gateway::start(&site(&v1, &v2, NINETY_TEN));

    let bodies: Vec<String> = gateway
        .concurrently(4, |client| {
            (0..50)
                .map(|_| client.send(&Request::get("/orders")).text())
                .collect::<Vec<_>>()
        })
        .concat();

    let canary = bodies.iter().filter(|body| *body == "two").count();
    assert!((18..=22).contains(&canary), "{canary} of 200");
    assert_eq!(v1.count() + v2.count(), 200);
}

#[test]
fn a_reload_goes_on_where_the_turns_were() {
    let (v1, v2) = origins();
    let yaml = site(&v1, &v2, NINETY_TEN);
    let gateway = Gateway::start(&yaml);
    let mut canary = 0;
    for round in 0..5 {
        for _ in 0..20 {
            canary += usize::from(gateway.get("/orders").text() == "two");
        }
        gateway.reload(&format!("{yaml}- {{ name: other-{round}, url: {v1} }}\n"));
    }
    assert!((9..=11).contains(&canary), "{canary} of 100");
}

#[test]
fn the_first_rule_that_fits_decides() {
    let (v1, v2) = origins();
    let config = "
        rules:
        - when: { headers: { X-Canary: ['1', 'yes'] } }
          to: [{ service: v2 }]
        - when: { cookies: { canary: ['on'] } }
          to: [{ service: v2 }]
        - when: { query: { version: ['2'] } }
          to: [{ service: v2 }]
        - when: { headers: { X-Canary: ['own'] } }
          to: [{}]";
    let gateway = Gateway::start(&site(&v1, &v2, config));
    for (request, expected) in [
        (Request::get("/orders"), "one"),
        (Request::get("/orders").header("x-canary", "yes"), "two"),
        (Request::get("/orders").header("x-canary", "no"), "one"),
        (Request::get("/orders").header("x-canary", "own"), "one"),
        (
            Request::get("/orders").header("Cookie", "a=b; canary=on"),
            "two",
        ),
        (Request::get("/orders?version=2"), "two"),
    ] {
        assert_eq!(gateway.send(&request).text(), expected, "{request:?}");
    }
}

#[test]
fn consumers_and_their_groups_are_told_apart() {
    let (v1, v2) = origins();
    let config = "
        rules:
        - when: { consumers: [ann] }
          to: [{ service: v2 }]
        - when: { consumer_groups: [beta] }
          to: [{ service: v2 }]";
    let gateway = Gateway::start(&format!(
        "{}
plugins:
- name: key-auth
consumers:
- {{ username: ann, keyauth_credentials: [{{ key: ann-key }}] }}
- {{ username: ben, keyauth_credentials: [{{ key: ben-key }}], groups: [{{ name: beta }}] }}
- {{ username: cleo, keyauth_credentials: [{{ key: cleo-key }}] }}
consumer_groups:
- {{ name: beta }}
",
        site(&v1, &v2, config)
    ));
    for (consumer, expected) in [("ann", "two"), ("ben", "two"), ("cleo", "one")] {
        let request = Request::get("/orders").header("apikey", &format!("{consumer}-key"));
        assert_eq!(gateway.send(&request).text(), expected, "{consumer}");
    }
}

#[test]
fn a_client_stays_with_its_service_over_restarts_and_on_every_gateway() {
    let (v1, v2) = origins();
    let config =
        "{ sticky: 'cookie:session', rules: [{ to: [{ service: v1 }, { service: v2 }] }] }";
    let chosen = || -> Vec<String> {
        let gateway = Gateway::start(&site(&v1, &v2, config));
        let of = |number: u32| {
            Request::get("/orders").header("Cookie", &format!("session=user-{number}"))
        };
        let first: Vec<String> = (0..40)
            .map(|number| gateway.send(&of(number)).text())
            .collect();
        let again: Vec<String> = (0..40)
            .map(|number| gateway.send(&of(number)).text())
            .collect();
        assert_eq!(first, again);
        first
    };

    let here = chosen();

    assert_eq!(here, chosen());
    for body in ["one", "two"] {
        let share = here.iter().filter(|chosen| *chosen == body).count();
        assert!(share >= 8, "{share} of 40 got {body}");
    }
}

#[test]
fn what_is_the_chosen_services_applies_but_for_its_plugins() {
    let (v1, v2) = (Origin::replying("one"), Origin::replying("two"));
    let dead = free_port();
    let gateway = Gateway::start(&format!(
        "services:
- name: v1
  url: {v1}/first
  routes:
  - name: orders
    paths: [/orders]
  plugins:
  - {{ name: correlation-id, config: {{ header_name: X-Of-One, echo_downstream: true }} }}
  - name: traffic-split
    config: {{ rules: [{{ to: [{{ service: v2 }}] }}] }}
- name: v2
  host: pool
  path: /second
  retries: 1
  plugins:
  - {{ name: request-termination, config: {{ status_code: 418 }} }}
upstreams:
- name: pool
  host_header: second.test
  targets:
  - {{ target: '127.0.0.1:{dead}' }}
  - {{ target: {} }}
",
        v2.authority()
    ));

    for _ in 0..2 {
        let response = gateway.get("/orders/7?x=1");
        assert_eq!((response.status, response.text().as_str()), (200, "two"));
        assert!(response.header("X-Of-One").is_some());
    }

    assert_eq!(v1.count(), 0);
    let received = v2.last();
    assert_eq!(received.target, "/second/7?x=1");
    assert_eq!(received.header("Host"), Some("second.test"));
    assert!(gateway.metric("tollgate_upstream_retries_total{service=\"v2\"}") >= 1.0);
}

#[test]
fn metrics_and_log_name_the_chosen_service() {
    let (v1, v2) = origins();
    let gateway = Gateway::start(&format!(
        "{}plugins:\n- {{ name: prometheus, config: {{ status_code_metrics: true }} }}\n",
        site(&v1, &v2, NINETY_TEN)
    ));
    for _ in 0..20 {
        gateway.get("/orders");
    }

    for (service, count) in [("v1", 18.0), ("v2", 2.0)] {
        let series =
            format!("tollgate_http_requests_total{{service=\"{service}\",route=\"orders\"}}");
        wait_until(&format!("{count} requests to {service}"), || {
            (gateway.metric(&series) - count).abs() < 0.5
        });
    }
    gateway.wait_for_access_log("\"service\":\"v2\"");
}

#[test]
fn a_route_without_a_service_can_be_given_one() {
    let origin = Origin::start(|request| Reply::ok(request.target.clone()));
    let gateway = Gateway::start(&format!(
        "routes:
- name: anything
  paths: [/]
  plugins:
  - name: traffic-split
    config: {{ rules: [{{ when: {{ headers: {{ x-to: [v1] }} }}, to: [{{ service: v1 }}] }}] }}
services:
- {{ name: v1, url: {origin} }}
"
    ));

    let sent = gateway.send(&Request::get("/here").header("X-To", "v1"));
    assert_eq!((sent.status, sent.text().as_str()), (200, "/here"));
    assert_eq!(gateway.get("/here").status, 503);
}

#[test]
fn a_service_that_cannot_be_sent_to_is_a_mistake_at_its_place() {
    let of = |service: &str, more: &str| {
        check(&format!(
            "_format_version: '3.0'
services:
- name: orders
  url: http://a.test
  routes: [{{ name: orders, paths: [/] }}]
  plugins:
  - name: traffic-split
    config:
      rules:
      - to:
        - service: {service}
{more}"
        ))
    };
    let unknown = of("orders-v2", "- { name: orders-v3, url: http://b.test }");
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
    for part in [
        "invalid reference 'orders-v2' (no such entry in 'services')",
        ":11:20",
        "did you mean `orders-v3`?",
    ] {
        assert!(unknown.stderr.contains(part), "{part}: {}", unknown.stderr);
    }
    for (more, expected) in [
        (
            "- { name: other, url: http://b.test, enabled: false }",
            "service `other` has `enabled: false`; enable it, or leave it out here",
        ),
        (
            "- { name: other, url: 'tcp://b.test:1' }",
            "service `other` carries streams, not requests",
        ),
    ] {
        let outcome = of("other", more);
        assert!(
            outcome.stderr.contains(expected),
            "{expected}: {}",
            outcome.stderr
        );
    }
}

fn in_a_folder(yaml: &str, more: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let yaml = format!("_format_version: '3.0'\ngateway: {{ admin: 'off' }}\n{yaml}");
    let main = [("gateway.yaml", yaml.as_str())];
    for (name, text) in main.iter().chain(more) {
        std::fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
    }
    let folder: &Path = folder.path();
    tollgate(folder, arguments)
}

fn two_versions() -> String {
    let (v1, v2) = origins();
    site(
        &v1,
        &v2,
        "{ rules: [{ when: { headers: { X-Canary: ['1'] } }, to: [{ service: v2 }] }, \
         { to: [{ service: v1, weight: 90 }, { service: v2, weight: 10 }] }] }",
    )
}

#[test]
fn explain_shows_between_which_services_a_request_is_split() {
    let yaml = two_versions();
    let explained = |more: &[&str]| {
        let arguments = [&["explain", "-c", "gateway.yaml", "GET", "/orders/7"], more].concat();
        in_a_folder(&yaml, &[], &arguments).stdout
    };

    let split = explained(&[]);
    let sentence = "rule 2, by weight: service v1 for 90 of 100, service v2 for 10 of 100; what follows is for service v1";
    assert!(split.contains(sentence), "{split}");

    let canary = explained(&["-H", "X-Canary: 1"]);
    assert!(canary.contains("rule 1, by weight: service v2"), "{canary}");
    assert!(canary.contains("/second/7"), "{canary}");

    let json = explained(&["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let plugin = &json["plugins"][0];
    assert_eq!(plugin["access"], "chooses");
    let choices: BTreeMap<&str, u64> = plugin["choices"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|share| Some((share["service"].as_str()?, share["weight"].as_u64()?)))
        .collect();
    assert_eq!(choices, BTreeMap::from([("v1", 90), ("v2", 10)]));
}

#[test]
fn a_test_can_expect_a_service_and_the_shares() {
    let run = |tests: &str| {
        in_a_folder(
            &two_versions(),
            &[("a.test.yaml", tests)],
            &["test", "-c", "gateway.yaml"],
        )
    };
    let right = run("tests:
- request: /orders
  expect: { service: v1, services: { v1: 90, v2: 10 } }
- request: { path: /orders/7, headers: { X-Canary: '1' } }
  expect: { service: v2, services: { v2: 1 }, upstream_path: /second/7 }
");
    assert_eq!(right.code, Some(0), "{}{}", right.stdout, right.stderr);

    let wrong = run("tests:
- request: /orders
  expect: { services: { v1: 80, v2: 20 } }
");
    assert_ne!(wrong.code, Some(0));
    assert!(
        wrong.stdout.contains("[v1: 90, v2: 10]"),
        "{}",
        wrong.stdout
    );
}
