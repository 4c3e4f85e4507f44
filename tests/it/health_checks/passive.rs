//! What is learnt from proxied requests.

use super::{Backend, IS_SILENT, RESETS, bodies, is_in_state, wait_for_state, watched};
use crate::harness::{Gateway, Origin, Reply, Request, dedent, wait_until};

/// Passive checks with three failures of each kind.
const THREE: &str = "{passive: {unhealthy: {http_failures: 3, tcp_failures: 3, timeouts: 3}}}";

fn counters(gateway: &Gateway) -> serde_json::Value {
    let shown = gateway.admin("/status/upstreams").json();
    shown["upstreams"][0]["targets"][0]["addresses"][0]["counters"]["passive"].clone()
}

/// S14
#[test]
fn a_target_that_resets_connections_is_out_after_its_failures_without_any_probe() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 0, THREE));
    a.answers(RESETS);

    let statuses: Vec<_> = (0..12).map(|_| gateway.get("/").status).collect();

    assert_eq!(
        statuses.iter().filter(|status| **status == 502).count(),
        3,
        "{statuses:?}"
    );
    assert_eq!(a.asked_for("/"), 3);
    assert!(is_in_state(&gateway, &a.authority(), "unhealthy"));
    gateway.wait_for_log("target is unhealthy (3/3 tcp connection");
    assert!(gateway.log().contains("(passive)\""));
    a.answers(200);
    assert_eq!(bodies(&gateway, 20), ["b"], "no target heals by time alone");
}

#[test]
fn each_try_counts_and_the_retry_saves_the_request() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 1, THREE));
    a.answers(RESETS);

    let statuses: Vec<_> = (0..20).map(|_| gateway.get("/").status).collect();

    assert_eq!(statuses, [200; 20]);
    assert_eq!(a.asked_for("/"), 3);
}

#[test]
fn refused_connections_count_like_broken_ones() {
    let (mut a, b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 0, THREE));
    a.origin.stop();

    let failed = (0..20).filter(|_| gateway.get("/").status == 502).count();

    assert_eq!(failed, 3);
    gateway.wait_for_log("target is unhealthy (3/3 tcp connection refused)");
}

#[test]
fn statuses_of_the_upstream_count_as_they_are_listed() {
    let a = Backend::start("a");
    let gateway = Gateway::start(&watched(&[&a], 0, THREE));
    let see = |status: u16, times: usize| {
        a.answers(status);
        for _ in 0..times {
            assert_eq!(gateway.get("/").status, status);
        }
    };
    see(500, 2);
    assert_eq!(counters(&gateway)["http_failures"], 2);

    see(418, 1);
    assert_eq!(
        counters(&gateway)["http_failures"],
        2,
        "a status in neither list counts for nothing"
    );
    see(200, 1);
    assert_eq!(
        counters(&gateway)["http_failures"],
        0,
        "a success ends the row, though `successes` is 0"
    );
    see(503, 3);

    assert!(is_in_state(&gateway, &a.authority(), "unhealthy"));
    gateway.wait_for_log("target is unhealthy (3/3 http 503)");
    assert_eq!(gateway.get("/").status, 503);
    gateway.wait_for_access_log("\"error\":\"no_healthy_upstream\"");
}

#[test]
fn silence_counts_as_a_timeout() {
    let a = Backend::start("a");
    let gateway = Gateway::start(&watched(&[&a], 0, "{passive: {unhealthy: {timeouts: 2}}}"));
    a.answers(IS_SILENT);

    let statuses: Vec<_> = (0..3).map(|_| gateway.get("/").status).collect();

    assert_eq!(statuses, [504, 504, 503]);
    gateway.wait_for_log("target is unhealthy (2/2 timeout)");
}

#[test]
fn answers_of_the_gateway_and_what_plugins_make_of_a_status_do_not_count() {
    let a = Backend::start("a");
    let yaml = watched(
        &[&a],
        0,
        "{passive: {healthy: {http_statuses: [299]}, \
          unhealthy: {http_failures: 1, tcp_failures: 1, timeouts: 1, http_statuses: [401, 404, 429, 503]}}}",
    );
    let terminated = dedent(
        "
        routes:
        - name: closed
          paths: [/closed]
          service: orders
          plugins: [{ name: request-termination, config: { status_code: 503 } }]
        ",
    );
    let gateway = Gateway::start(&format!("{yaml}\n{terminated}"));

    for _ in 0..3 {
        assert_eq!(gateway.get("/closed").status, 503);
    }

    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn clients_that_go_away_do_not_count() {
    let a = Backend::start("a");
    let yaml = watched(
        &[&a],
        0,
        "{passive: {unhealthy: {http_failures: 1, tcp_failures: 1, timeouts: 1}}}",
    )
    .replace("read_timeout: 300", "read_timeout: 10000");
    let gateway = Gateway::start(&yaml);
    a.answers(IS_SILENT);

    for number in 1..=3 {
        let mut client = gateway.connect();
        client
            .write(Request::get("/").bytes())
            .expect("the gateway listens");
        wait_until("the request upstream", || a.asked_for("/") == number);
        drop(client);
    }
    a.origin.wait_for_open_connections(0);

    a.answers(200);
    assert_eq!(gateway.get("/").status, 200);
    assert!(!gateway.log().contains("unhealthy"), "{}", gateway.log());
}

#[test]
fn a_response_that_breaks_off_in_its_body_was_an_answer() {
    let origin = Origin::start(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").then_close()
    });
    let gateway = Gateway::start(&super::pool(
        &[(origin.authority(), 1)],
        0,
        "{passive: {unhealthy: {http_failures: 1, tcp_failures: 1, timeouts: 1}}}",
    ));
    for _ in 0..3 {
        let _ = gateway.connect().try_send(&Request::get("/"));
    }

    assert!(is_in_state(&gateway, &origin.authority(), "healthy"));
    assert_eq!(origin.count(), 3);
}

#[test]
fn probes_heal_what_traffic_has_found() {
    let a = Backend::start("a");
    let gateway = Gateway::start(&watched(
        &[&a],
        0,
        "{active: {http_path: /ready, healthy: {successes: 2}, unhealthy: {interval: 0.05}}, \
         passive: {unhealthy: {http_failures: 1}}}",
    ));
    a.answers(500);
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(gateway.get("/").status, 503);
    a.is_asked_for("/ready");

    a.answers(200);
    wait_for_state(&gateway, &a.authority(), "healthy");

    assert_eq!(gateway.get("/").status, 200);
    let asked = a.asked_for("/ready");
    assert!(asked >= 2, "it was probed while it was out");
}

#[test]
fn good_traffic_does_not_hide_failing_probes() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/ready" => Reply::status(500),
        _ => Reply::ok("well"),
    });
    let gateway = Gateway::start(&super::pool(
        &[(origin.authority(), 1)],
        0,
        "{active: {http_path: /ready, healthy: {interval: 0.2, successes: 1}, unhealthy: {http_failures: 3}}, \
          passive: {healthy: {successes: 1}, unhealthy: {http_failures: 3}}}",
    ));

    wait_until("the probes to win", || gateway.get("/").status == 503);

    gateway.wait_for_log("target is unhealthy (3/3 http 500)");
}

#[test]
fn a_client_that_stalls_its_body_does_not_count_and_is_not_repeated() {
    let origin = Origin::echoing();
    let gateway = Gateway::start(&super::pool(
        &[(origin.authority(), 1)],
        3,
        "{passive: {unhealthy: {http_failures: 1, tcp_failures: 1, timeouts: 1}}}",
    ));

    for number in 1..=2 {
        let mut client = gateway.connect();
        client
            .write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
            .expect("written");
        let response = client.read_response().expect("an answer");
        assert_eq!(response.status, 408);
        assert_eq!(origin.count(), number);
    }

    gateway.wait_for_access_log("\"error\":\"request_timeout\"");
    assert!(is_in_state(&gateway, &origin.authority(), "healthy"));
    assert_eq!(gateway.send(&Request::post("/", "whole")).status, 200);
}
