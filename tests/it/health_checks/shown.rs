//! What shows the health: `/health`, `/status/upstreams`, and the threshold's effect on them.

use super::{Backend, QUICK, is_in_state, pool, wait_for_state, watched};
use crate::harness::{Gateway, Response, wait_until};

fn health(gateway: &Gateway) -> (u16, serde_json::Value) {
    let response: Response = gateway.admin("/health");
    (response.status, response.json())
}

/// S49
#[test]
fn health_is_ok_then_degraded_then_down() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let gateway = Gateway::start(&watched(&backends.each_ref(), 0, QUICK));
    let (code, body) = health(&gateway);
    assert_eq!((code, &body["status"]), (200, &"ok".into()));
    assert_eq!(
        (&body["healthy_backends"], &body["total_backends"]),
        (&3.into(), &3.into())
    );
    let timestamp = body["timestamp"].as_str().expect("a timestamp");
    assert!(
        timestamp.len() == 20 && timestamp.ends_with('Z'),
        "{timestamp}"
    );

    let [a, b, c] = &backends;
    a.answers(500);
    wait_for_state(&gateway, &a.authority(), "unhealthy");
    let (code, body) = health(&gateway);
    assert_eq!((code, &body["status"]), (200, &"degraded".into()));
    assert_eq!(body["healthy_backends"], 2);

    b.answers(500);
    c.answers(500);
    wait_until("all to be out", || health(&gateway).0 == 503);
    let (_, body) = health(&gateway);
    assert_eq!(body["status"], "down");
    assert_eq!(
        (&body["healthy_backends"], &body["total_backends"]),
        (&0.into(), &3.into())
    );
}

#[test]
fn a_gateway_without_upstreams_is_ok() {
    let gateway = Gateway::start("services: []\n");

    let (code, body) = health(&gateway);

    assert_eq!((code, &body["status"]), (200, &"ok".into()));
    assert_eq!(body["total_backends"], 0);
    assert_eq!(
        gateway.admin("/status/upstreams").json(),
        serde_json::json!({"upstreams": []})
    );
}

#[test]
fn upstreams_without_checks_are_shown_as_such_and_count_as_healthy() {
    let gateway = Gateway::start(&pool(
        &[
            ("127.0.0.1:9".to_owned(), 3),
            ("no-such-host.invalid:80".to_owned(), 1),
        ],
        0,
        "{}",
    ));
    wait_until("the resolver's answer", || {
        is_in_state(&gateway, "no-such-host.invalid:80", "dns_error")
    });

    let (code, body) = health(&gateway);
    assert_eq!((code, &body["status"]), (200, &"degraded".into()));
    assert_eq!(
        (&body["healthy_backends"], &body["total_backends"]),
        (&1.into(), &2.into())
    );
    let shown = gateway.admin("/status/upstreams").json();
    let targets = &shown["upstreams"][0]["targets"];
    assert_eq!(targets[0]["weight"], 3);
    assert_eq!(targets[0]["state"], "healthchecks_off");
    assert_eq!(targets[0]["addresses"][0]["since"], serde_json::Value::Null);
    assert_eq!(targets[1]["state"], "dns_error");
    assert_eq!(targets[1]["addresses"], serde_json::json!([]));
}

#[test]
fn below_the_threshold_the_upstream_is_not_used_though_a_target_is_healthy() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let targets = [(a.authority(), 100), (b.authority(), 100)];
    let checks = QUICK.replacen('{', "{threshold: 50, ", 1);
    let gateway = Gateway::start(&pool(&targets, 0, &checks));
    assert_eq!(gateway.get("/").status, 200);

    a.answers(500);
    wait_for_state(&gateway, &a.authority(), "unhealthy");

    assert_eq!(gateway.get("/").status, 503);
    let shown = gateway.admin("/status/upstreams").json();
    assert_eq!(shown["upstreams"][0]["available"], false);
    assert_eq!(shown["upstreams"][0]["targets"][1]["state"], "healthy");
    a.answers(200);
    wait_until("it to be used again", || gateway.get("/").status == 200);
}

#[test]
fn the_counters_of_probes_and_of_traffic_are_shown_apart() {
    let a = Backend::start("a");
    let gateway = Gateway::start(&watched(
        &[&a],
        0,
        "{active: {http_path: /ready, healthy: {interval: 0.05}, unhealthy: {http_failures: 255}}, \
         passive: {unhealthy: {http_failures: 255}}}",
    ));
    a.answers(500);
    gateway.get("/");

    wait_until("both to have counted", || {
        let shown = gateway.admin("/status/upstreams").json();
        let counters = &shown["upstreams"][0]["targets"][0]["addresses"][0]["counters"];
        counters["passive"]["http_failures"] == 1
            && counters["active"]["http_failures"].as_u64() > Some(1)
    });
}
