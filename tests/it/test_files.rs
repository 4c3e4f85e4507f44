//! `tollgate test`: requests with what is expected of them, tried without a socket.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::documents::{blocks, root};
use crate::harness::{Outcome, tollgate};

const GATEWAY: &str = "_format_version: '3.0'
gateway: { listen: '127.0.0.1:8000', admin: 'off', conf_d: conf.d }
services:
- name: orders
  host: pool
  path: /v1
  routes:
  - { name: orders, hosts: [shop.test], paths: [/orders], methods: [GET] }
  - { name: secure, paths: [/secure], protocols: [https], https_redirect_status_code: 308 }
  plugins:
  - { name: key-auth, config: { hide_credentials: true } }
- { name: off, host: a.test, enabled: false, routes: [{ name: dark, paths: [/dark] }] }
upstreams:
- { name: pool, targets: [{ target: '10.0.0.1:80' }, { target: '10.0.0.2:80', weight: 0 }] }
consumers:
- { username: ann, keyauth_credentials: [{ key: ann-key }] }
";

/// A folder with `gateway.yaml` and these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("conf.d")).expect("a folder");
    let main = [("gateway.yaml", GATEWAY)];
    for (name, text) in main.iter().chain(files) {
        fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
    }
    folder
}

fn test(folder: &Path, arguments: &[&str]) -> Outcome {
    let mut all = vec!["test", "-c", "gateway.yaml"];
    all.extend(arguments);
    tollgate(folder, &all)
}

/// Runs one file with these tests.
fn run(tests: &str, arguments: &[&str]) -> Outcome {
    test(folder(&[("a.test.yaml", tests)]).path(), arguments)
}

#[track_caller]
fn assert_all_pass(tests: &str) {
    let outcome = run(tests, &[]);
    assert_eq!(
        outcome.code,
        Some(0),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
}

#[test]
fn the_tests_of_the_example_pass_and_take_every_route() {
    let outcome = tollgate(&root(), &["test", "--coverage-min", "100"]);

    assert_eq!(
        outcome.code,
        Some(0),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
    assert!(
        outcome
            .stdout
            .ends_with("routes that a test takes: 6 of 6 (100 %)\nok: 13 tests\n"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn everything_that_a_request_comes_to_can_be_expected() {
    assert_all_pass(
        "defaults: { host: shop.test }
tests:
- request: { path: /orders/7?x=1, headers: { apikey: ann-key } }
  expect:
    route: orders
    service: orders
    consumer: ann
    upstream: pool
    targets: ['10.0.0.2:80', '10.0.0.1:80']
    upstream_url: http://10.0.0.1:80/v1/7?x=1
    upstream_path: /v1/7?x=1
    upstream_host: 10.0.0.1
    upstream_headers: { apikey: false, x-consumer-username: ann, x-real-ip: 127.0.0.1, x-kong-request-id: true }
    plugins: [key-auth @ service orders]
    plugins_exclude: [rate-limiting]
    proxied: true
- request: { path: /orders, client_ip: 192.0.2.7, consumer: ann }
  expect: { consumer: ann, upstream_headers: { X-Real-IP: 192.0.2.7 } }
- request: /orders
  expect: { route: orders, proxied: false, status: 401, reason: unauthorized, answer_headers: { WWW-Authenticate: true } }
- request: http://any.test/secure?a
  expect: { route: secure, status: 308, location: 'https://any.test/secure?a' }
- request: https://any.test/secure
  expect: { route: secure, status: 401 }
- request: POST /orders
  expect: { route: none, status: 404, reason: no_route, message: no Route matched with those values, plugins: [] }
",
    );
}

#[test]
fn a_failure_says_what_was_expected_and_found_and_why_the_route_lost() {
    let outcome = run(
        "tests:
- name: orders can be made
  request: POST http://shop.test/orders
  expect:
    route: orders
    status: 200
- name: found
  request: GET http://shop.test/orders
  expect: { route: none, upstream_path: /v1 }
- request: /dark
  expect: { route: dark }
- request: /
  expect: { route: ordes }
- request: GET http://shop.test/orders
  expect: { route: orders }
",
        &[],
    );

    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let expected = "failed: orders can be made
  a.test.yaml:5:12: route: expected `orders`, found none
    - orders (gateway.yaml:8:5): REASON
  a.test.yaml:6:13: status: expected 200, found the gateway answers 404 no_route, by routing

failed: found
  a.test.yaml:9:20: route: expected none, found `orders` (gateway.yaml:8:5)
    - orders: MET
    - orders: MET
    - orders: MET
  a.test.yaml:9:41: upstream_path: expected `/v1`, found nothing: the gateway answers 401 unauthorized, by key-auth

failed: GET /dark
  a.test.yaml:11:20: route: expected `dark`, found none
    - dark (gateway.yaml:12:55) is not served, for its service has `enabled: false`

failed: GET /
  a.test.yaml:13:20: route: expected `ordes`, found none
    - there is no route `ordes` in the configuration (did you mean `orders`?)

4 of 5 tests failed
";
    // How a condition is told is the router's business.
    let found: Vec<&str> = outcome.stdout.lines().collect();
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(found.len(), expected.len(), "{}", outcome.stdout);
    for (found, expected) in found.iter().zip(expected) {
        let told = expected.trim_end_matches("REASON").trim_end_matches("MET");
        assert!(
            if told == expected {
                *found == expected
            } else {
                found.starts_with(told)
            },
            "{found}\n{expected}"
        );
    }
    assert!(outcome.stdout.contains("POST"), "{}", outcome.stdout);
}

#[test]
fn the_same_tests_give_the_same_text() {
    let tests = "tests: [{request: /a, expect: {route: orders}}, {requests: [/b, /c], expect: {route: x}}]\n";
    for format in ["text", "json", "junit"] {
        let once = run(tests, &["--format", format, "--coverage"]);
        let again = run(tests, &["--format", format, "--coverage"]);
        assert_eq!(once.stdout, again.stdout);
        assert!(!once.stdout.is_empty());
    }
}

#[test]
fn mistakes_in_a_test_file_have_places_and_nothing_is_tried() {
    let outcome = run(
        "tests:\n- request: /a\n  expect: {rout: a}\n- request: /b\n  expect: {status: many}\n",
        &[],
    );

    assert_eq!(outcome.code, Some(2));
    assert_eq!(outcome.stdout, "");
    assert_eq!(
        outcome.stderr,
        "a.test.yaml:3:12: error[config::unknown_field]: tests[0].expect.rout: unknown field `rout` (did you mean `route`?)\n\
         a.test.yaml:5:20: error[config::wrong_type]: tests[1].expect.status: expected an integer, found the string `many`\n"
    );
}

#[test]
fn a_request_that_makes_no_sense_is_a_failure() {
    let outcome = run(
        "tests: [{request: {path: /orders, consumer: joe}, expect: {route: orders}}]\n",
        &[],
    );

    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stdout.contains("a.test.yaml:1:19: request: expected a request that can be sent, found there is no consumer `joe`"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_configuration_with_mistakes_is_told_and_nothing_is_tried() {
    let folder = folder(&[("b.yaml", "_format_version: '3.0'\nservces: []\n")]);
    let outcome = tollgate(folder.path(), &["test", "-c", "b.yaml"]);

    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("b.yaml:2:1: error"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn files_beside_the_configuration_and_its_fragments_are_found() {
    let test_of = |route: &str| format!("tests: [{{request: /x, expect: {{route: {route}}}}}]\n");
    let folder = folder(&[
        ("b.test.yaml", &test_of("b")),
        ("a.test.yml", &test_of("a")),
        (".hidden.test.yaml", &test_of("hidden")),
        ("conf.d/c.test.yaml", &test_of("c")),
        ("other.yaml", "unrelated: true\n"),
    ]);
    let places = |arguments: &[&str]| -> Vec<String> {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        let outcome = test(folder.path(), &all);
        let report: Value = serde_json::from_str(&outcome.stdout).expect(&outcome.stderr);
        let tests = report["tests"].as_array().expect("a list");
        tests
            .iter()
            .map(|test| {
                let place = test["place"].as_str().expect("a place");
                place.split(':').next().unwrap_or_default().to_owned()
            })
            .collect()
    };

    assert_eq!(
        places(&[]),
        ["a.test.yml", "b.test.yaml", "conf.d/c.test.yaml"]
    );
    assert_eq!(
        places(&["conf.d", "b.test.yaml"]),
        ["conf.d/c.test.yaml", "b.test.yaml"]
    );
    let check = tollgate(folder.path(), &["check", "-c", "gateway.yaml"]);
    assert_eq!(
        check.code,
        Some(0),
        "no test file is a fragment: {}",
        check.stderr
    );
}

#[test]
fn without_any_test_file_there_is_a_way_out() {
    let outcome = test(folder(&[]).path(), &[]);

    assert_eq!(outcome.code, Some(2));
    assert_eq!(
        outcome.stderr,
        "error: there is no file `*.test.yaml` in . and conf.d; write one, or name the files\n"
    );
}

#[test]
fn routes_that_no_test_takes_are_named_and_can_fail_the_run() {
    let tests = "tests: [{request: 'http://shop.test/orders', expect: {route: orders}}]\n";
    let shown = run(tests, &["--coverage"]);
    let enough = run(tests, &["--coverage-min", "50"]);
    let failed = run(tests, &["--coverage-min", "51"]);

    assert_eq!(shown.code, Some(0));
    assert_eq!(
        shown.stdout,
        "no test takes route secure  gateway.yaml:9:5\nroutes that a test takes: 1 of 2 (50 %)\nok: 1 test\n"
    );
    assert_eq!(enough.code, Some(0));
    assert_eq!(failed.code, Some(1));
    assert_eq!(
        failed.stderr,
        "too few routes have a test: 50 %, and --coverage-min is 51\n"
    );
}

#[test]
fn what_may_be_a_credential_is_neither_compared_nor_shown() {
    let outcome = run(
        "tests:
- request: { url: 'http://shop.test/orders', headers: { apikey: ann-key, authorization: Basic c2VjcmV0 } }
  expect: { upstream_headers: { authorization: Basic b3RoZXI= } }
- request: { url: 'http://shop.test/orders', headers: { apikey: ann-key, authorization: Basic c2VjcmV0 } }
  expect: { upstream_headers: { authorization: true, apikey: false } }
",
        &[],
    );

    assert_eq!(outcome.code, Some(1));
    assert!(!outcome.stdout.contains("c2VjcmV0"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("expect `true`"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.ends_with("1 of 2 tests failed\n"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn programs_get_json_and_continuous_integration_gets_junit() {
    let tests = "tests: [{name: 'a <b>', request: /a, expect: {route: orders}}, {request: /a, expect: {route: none}}]\n";
    let json = run(tests, &["--format", "json"]);
    let report: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json.code, Some(1));
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&1.into(), &1.into())
    );
    let failure = &report["tests"][0]["failures"][0];
    assert_eq!(failure["field"], "route");
    assert_eq!(failure["place"], "a.test.yaml:1:54");
    assert_eq!(failure["expected"], "`orders`");
    assert_eq!(failure["found"], "none");
    assert!(failure["why"][0].is_string(), "{failure}");

    let junit = run(tests, &["--format", "junit"]).stdout;
    assert!(junit.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"tollgate test\" tests=\"2\" failures=\"1\">\n"), "{junit}");
    assert!(junit.contains("<testcase classname=\"a.test.yaml\" name=\"a &lt;b&gt;\" file=\"a.test.yaml\" line=\"1\">"), "{junit}");
    assert!(
        junit.contains(
            "<testcase classname=\"a.test.yaml\" name=\"GET /a\" file=\"a.test.yaml\" line=\"1\"/>"
        ),
        "{junit}"
    );
}

/// The page has a configuration with its tests, another one, what the tests say of that, and how the two differ.
#[test]
fn the_examples_in_the_documentation_are_what_is_printed() {
    let page = root().join("docs/operations/testing-a-configuration.md");
    let page = fs::read_to_string(page).expect("the page");
    let block = |language: &str, index: usize| blocks(&page, language).remove(index).1;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [
        ("gateway.yaml", block("yaml", 0)),
        ("gateway.test.yaml", block("yaml test", 0)),
        ("new.yaml", block("yaml", 1)),
    ] {
        fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
    }

    let good = tollgate(folder.path(), &["test", "-c", "gateway.yaml"]);
    let failing = tollgate(folder.path(), &["test", "-c", "new.yaml"]);
    let diff = tollgate(folder.path(), &["diff", "gateway.yaml", "new.yaml"]);

    assert_eq!(
        (good.code, good.stdout.as_str()),
        (Some(0), "ok: 6 tests\n")
    );
    assert_eq!((failing.code, failing.stdout), (Some(1), block("text", 0)));
    assert_eq!((diff.code, diff.stdout), (Some(1), block("text", 1)));
}
