//! The admin listener.

use crate::harness::{Gateway, Origin, Request, free_port, one_service, wait_until};

fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn status_tells_connections_and_the_configuration() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    let response = gateway.admin("/status");

    let status = response.json();
    assert_eq!(response.status, 200);
    assert!(
        response
            .header("content-type")
            .is_some_and(|value| value.starts_with("application/json"))
    );
    for member in [
        "connections_active",
        "connections_reading",
        "connections_writing",
        "connections_waiting",
        "connections_accepted",
        "connections_handled",
        "total_requests",
    ] {
        assert!(status["server"][member].is_u64(), "{member}: {status}");
    }
    assert!(status["memory"].is_object() && status.get("database").is_none());
    assert!(
        status["configuration_hash"].as_str().is_some_and(is_hash),
        "{status}"
    );
}

#[test]
fn status_counts_requests_and_connections() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let server = |member: &str| {
        gateway.admin("/status").json()["server"][member]
            .as_u64()
            .expect("a number")
    };
    let (requests, accepted) = (server("total_requests"), server("connections_accepted"));

    let mut client = gateway.connect();
    for _ in 0..5 {
        client.send(&Request::get("/"));
    }

    wait_until("five requests more", || {
        server("total_requests") >= requests + 5
    });
    assert!(server("connections_accepted") > accepted);
    assert!(server("connections_active") >= 1);
}

#[test]
fn the_configuration_hash_changes_when_and_only_when_the_configuration_does() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let first = gateway.configuration_hash();

    gateway.reload(&format!("{}\n    tags: [a]", one_service(&origin)));
    let second = gateway.configuration_hash();
    gateway.reload(&one_service(&origin));

    assert!(is_hash(&second) && first != second);
    assert_eq!(gateway.configuration_hash(), first);
}

#[test]
fn readiness_is_told_once_a_configuration_is_live() {
    let gateway = Gateway::start("services: []\n");

    let response = gateway.admin("/status/ready");

    assert_eq!(
        (response.status, response.json()),
        (200, serde_json::json!({"message": "ready"}))
    );
}

/// S47
#[test]
fn metrics_are_in_the_text_format_with_help_and_type() {
    let gateway = Gateway::start("services: []\n");

    let response = gateway.admin("/metrics");

    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let metrics = gateway.metrics();
    let families = metrics.families();
    for (name, kind) in &families {
        assert!(metrics.documented().contains(name), "{name} has no HELP");
        assert!(
            *kind != "counter"
                || name.ends_with("_total")
                || name.ends_with("_bytes")
                || *name == "process_cpu_seconds_total",
            "{name}"
        );
    }
    let mut names: Vec<&str> = families.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), families.len(), "a family appears twice");
}

/// S47
#[test]
fn process_level_series_are_there_without_any_plugin() {
    let gateway = Gateway::start("services: []\n");
    let metrics = gateway.metrics();

    for selector in [
        "tollgate_config_reloads_total{result=\"success\"}",
        "tollgate_config_reloads_total{result=\"failure\"}",
        "tollgate_config_last_reload_successful",
        "tollgate_config_last_reload_timestamp_seconds",
        "tollgate_panics_total",
        "tollgate_node_info",
        "tollgate_datastore_reachable",
        "tollgate_connections{state=\"accepted\"}",
        "tollgate_connections{state=\"active\"}",
        "tollgate_requests_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(
            metrics.select(selector).count() > 0,
            "no {selector} in\n{}",
            metrics.text
        );
    }
    assert!((metrics.sum("tollgate_config_last_reload_successful") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn an_unknown_path_is_a_404_in_json() {
    let gateway = Gateway::start("services: []\n");

    for path in ["/", "/nowhere", "/status/nowhere"] {
        let response = gateway.admin(path);
        assert_eq!(
            (response.status, response.json()["message"].as_str()),
            (404, Some("Not found")),
            "{path}"
        );
    }
}

#[test]
fn nothing_of_it_is_on_the_proxy_listener() {
    let gateway = Gateway::start("services: []\n");

    for path in [
        "/status",
        "/status/ready",
        "/status/upstreams",
        "/health",
        "/metrics",
        "/usage",
        "/proxy-cache",
    ] {
        let response = gateway.get(path);
        let seen = (response.status, response.message());
        assert_eq!(
            seen,
            (404, "no Route matched with those values".to_owned()),
            "{path}"
        );
    }
}

#[test]
fn no_secret_is_in_any_answer() {
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: a, url: 'http://127.0.0.1:{}', routes: [{{ name: a, paths: [/], plugins: [{{ name: key-auth }}] }}] }}
        consumers:
        - {{ username: alice, keyauth_credentials: [{{ key: s3cr3t-key }}] }}
        ",
        free_port()
    ));
    gateway.send(&Request::get("/").header("apikey", "s3cr3t-key"));

    for path in [
        "/status",
        "/status/upstreams",
        "/health",
        "/metrics",
        "/usage",
    ] {
        assert!(!gateway.admin(path).text().contains("s3cr3t"), "{path}");
    }
}
