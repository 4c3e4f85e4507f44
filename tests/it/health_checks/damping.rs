//! Targets that come and go: what is asked of them before they are used again.

use super::{Backend, wait_for_state, watched};
use crate::harness::{Gateway, wait_until};

fn document(backend: &Backend, damping: &str) -> String {
    let healthchecks = format!(
        "{{active: {{http_path: /ready, healthy: {{interval: 0.05, successes: 2}}, \
         unhealthy: {{interval: 0.05, http_failures: 1}}}}{damping}}}"
    );
    watched(&[backend], 0, &healthchecks)
}

/// Lets the backend fail until it is out, and answer until it is back.
#[track_caller]
fn falls_and_comes_back(gateway: &Gateway, backend: &Backend) {
    backend.answers(500);
    wait_for_state(gateway, &backend.authority(), "unhealthy");
    backend.answers(200);
    wait_for_state(gateway, &backend.authority(), "healthy");
}

fn why(gateway: &Gateway) -> String {
    let shown = gateway.admin("/status/upstreams").json();
    let why = &shown["upstreams"][0]["targets"][0]["addresses"][0]["why"];
    why.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_target_that_fell_often_needs_more_successes_also_after_a_reload() {
    let backend = Backend::start("a");
    let damping = ", damping: {falls: 2, window: 600, factor: 4}";
    let gateway = Gateway::start(&document(&backend, damping));
    falls_and_comes_back(&gateway, &backend);
    assert!(why(&gateway).starts_with("2/2 "), "{}", why(&gateway));

    falls_and_comes_back(&gateway, &backend);
    assert!(why(&gateway).starts_with("8/8 "), "{}", why(&gateway));

    gateway.reload(&document(
        &backend,
        ", damping: {falls: 2, window: 600, factor: 5}",
    ));
    falls_and_comes_back(&gateway, &backend);
    assert!(why(&gateway).starts_with("10/10 "), "{}", why(&gateway));
    wait_until("requests to be served", || gateway.get("/").status == 200);
}

#[test]
fn without_damping_every_time_is_like_the_first() {
    let backend = Backend::start("a");
    let gateway = Gateway::start(&document(&backend, ""));
    for _ in 0..4 {
        falls_and_comes_back(&gateway, &backend);
        assert!(why(&gateway).starts_with("2/2 "), "{}", why(&gateway));
    }
}
