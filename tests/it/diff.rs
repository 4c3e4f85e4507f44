//! `tollgate diff`: what a reload would change, and what becomes of the state.

use std::fs;

use serde_json::Value;

use crate::harness::{Outcome, tollgate};

const OLD: &str = "_format_version: '3.0'
gateway: { listen: '127.0.0.1:8000', admin: 'off', threads: 2 }
services:
- name: orders
  url: http://pool/v1
  routes:
  - { name: orders, paths: [/orders] }
  - { name: limited, paths: [/limited], plugins: [{ name: rate-limiting, config: { minute: 5 } }] }
- { name: old, host: old.test, routes: [{ name: old, paths: [/old] }] }
upstreams:
- name: pool
  max_connections: 10
  healthchecks: { active: { healthy: { interval: 1 } } }
  targets: [{ target: '10.0.0.1:80' }, { target: '10.0.0.2:80' }]
consumers:
- { username: ann, keyauth_credentials: [{ key: first-secret-key }] }
plugins:
- { name: key-auth, route: orders }
";

const NEW: &str = "_format_version: '3.0'
gateway: { listen: '127.0.0.1:9000', admin: 'off', client_max_body_size: 1m, threads: 3 }
services:
- name: orders
  protocol: http
  host: pool
  path: /v1
  retries: 2
  routes:
  - { name: limited, paths: [/limited], plugins: [{ name: rate-limiting, config: { minute: 7, policy: local } }] }
  - { name: orders, paths: [/orders, /order], strip_path: true }
  - { name: new, paths: [/new] }
upstreams:
- name: pool
  max_connections: 20
  healthchecks: { active: { healthy: { interval: 1 } } }
  targets: [{ target: '10.0.0.1:80' }, { target: '10.0.0.3:80' }]
consumers:
- { username: ann, keyauth_credentials: [{ key: second-secret-key }] }
plugins:
- { name: key-auth, route: { name: orders }, config: { key_names: [apikey] } }
";

fn diff(old: &str, new: &str, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [("old.yaml", old), ("new.yaml", new)] {
        fs::write(folder.path().join(name), text).expect("a file in a temporary folder");
    }
    let mut all = vec!["diff", "old.yaml", "new.yaml"];
    all.extend(arguments);
    tollgate(folder.path(), &all)
}

#[test]
fn every_difference_is_named_with_old_and_new_values_and_the_fate_of_the_state() {
    let outcome = diff(OLD, NEW, &[]);

    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_eq!(
        outcome.stdout,
        "gateway
  ~ client_max_body_size: 0 → 1m
  ~ listen: 127.0.0.1:8000 → 127.0.0.1:9000
  ~ threads: 2 → 3  needs a restart
services
  ~ orders  new.yaml:4:3
      retries: 5 → 2
  - old  old.yaml:9:3
routes
  ~ orders  new.yaml:11:5
      paths: [\"/orders\"] → [\"/orders\",\"/order\"]
  ~ orders is in another order  new.yaml:11:5
  + new  new.yaml:12:5
  - old  old.yaml:9:41
upstreams
  ~ pool  new.yaml:14:3
      max_connections: 10 → 20
targets
  + 10.0.0.3:80 of upstream pool  new.yaml:17:40
  - 10.0.0.2:80 of upstream pool  old.yaml:14:40
keyauth_credentials
  + of consumer ann  new.yaml:19:42
  - of consumer ann  old.yaml:16:42
plugins
  ~ rate-limiting (route limited)  new.yaml:10:51
      config.minute: 5 → 7
state that goes
  addresses of old.test
  connections of 10.0.0.2:80 (http)
  connections of old.test:80 (http)
  health of 10.0.0.2:80 of upstream pool
  places of 10 for 10.0.0.1:80 of upstream pool
  places of 10 for 10.0.0.2:80 of upstream pool
  retry budget of service old
  turns of service old
state that begins anew
  connections of 10.0.0.3:80 (http)
  health of 10.0.0.3:80 of upstream pool
  places of 20 for 10.0.0.1:80 of upstream pool
  places of 20 for 10.0.0.3:80 of upstream pool
3 added, 4 removed, 4 changed, 1 moved; state kept: connections 1, counts 1, health 1, retry budget 1, turns 1; a restart is needed for some settings
"
    );
}

#[test]
fn a_configuration_does_not_differ_from_itself_or_another_spelling() {
    let same = diff(OLD, OLD, &[]);
    let respelled = OLD
        .replace(
            "url: http://pool/v1",
            "{host: pool, path: /v1, protocol: http, retries: 5}",
        )
        .replace("- name: orders\n  {", "- name: orders\n  ")
        .replace(
            "host: pool, path: /v1, protocol: http, retries: 5}",
            "host: pool\n  path: /v1\n  retries: 5",
        );
    let respelled = diff(OLD, &respelled, &[]);

    assert_eq!(
        (same.code, same.stdout.as_str()),
        (Some(0), "no difference\n")
    );
    assert_eq!(
        respelled.code,
        Some(0),
        "{}{}",
        respelled.stdout,
        respelled.stderr
    );
    assert_eq!(
        respelled.stdout,
        "no difference but in spelling: the hash changes, nothing else does\n"
    );
}

#[test]
fn secrets_are_compared_and_not_shown() {
    let secret = |value: &str| {
        format!(
            "_format_version: '3.0'\nservices: [{{name: a, host: a.test, routes: [{{name: a, paths: [/]}}]}}]\n\
             plugins: [{{name: rate-limiting, config: {{minute: 1, redis: {{password: {value}}}}}}}]\n\
             consumers: [{{username: ann, keyauth_credentials: [{{id: 4e13f54a-bbf1-47a8-8777-255fed7116f2, key: {value}}}]}}]\n"
        )
    };
    for format in ["text", "json"] {
        let outcome = diff(
            &secret("hunter2"),
            &secret("tr0ub4dor"),
            &["--format", format],
        );
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        for value in ["hunter2", "tr0ub4dor"] {
            assert!(!outcome.stdout.contains(value), "{}", outcome.stdout);
        }
        for field in ["config.redis.password", "key"] {
            assert!(outcome.stdout.contains(field), "{}", outcome.stdout);
        }
    }
    let keys = diff(OLD, NEW, &["--format", "json"]);
    assert!(!keys.stdout.contains("secret-key"), "{}", keys.stdout);
}

#[test]
fn programs_get_every_part_as_json() {
    let outcome = diff(OLD, NEW, &["--format", "json"]);
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");

    assert_eq!(outcome.code, Some(1));
    let threads = &report["gateway"][2];
    assert_eq!(
        (&threads["field"], &threads["needs_restart"]),
        (&"threads".into(), &true.into())
    );
    let service = &report["entities"][0];
    assert_eq!(
        (&service["kind"], &service["label"], &service["change"]),
        (&"service".into(), &"orders".into(), &"changed".into())
    );
    assert_eq!(service["fields"][0]["old"], 5);
    assert_eq!(service["fields"][0]["new"], 2);
    let kept = report["state"]["kept"].as_array().expect("a list");
    assert!(
        kept.contains(
            &serde_json::json!({"what": "counts", "of": "plugin rate-limiting (route limited)"})
        ),
        "{kept:?}"
    );
}

#[test]
fn a_configuration_with_mistakes_cannot_be_compared() {
    let outcome = diff(OLD, "_format_version: '3.0'\nservces: []\n", &[]);

    assert_eq!(outcome.code, Some(2));
    assert_eq!(outcome.stdout, "");
    assert!(
        outcome.stderr.contains("new.yaml:2:1: error"),
        "{}",
        outcome.stderr
    );
}
