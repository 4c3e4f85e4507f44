//! What a reload keeps of the health, and what it does not.

use super::{Backend, QUICK, RESETS, bodies, is_in_state, pool, wait_for_state, watched};
use crate::harness::{Gateway, wait_until};

const PASSIVE: &str = "{passive: {unhealthy: {tcp_failures: 1}}}";

/// A gateway over two backends, of which traffic has found the first one broken.
fn with_one_out() -> (Gateway, Backend, Backend) {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 1, PASSIVE));
    a.answers(RESETS);
    wait_until("the first to be out", || {
        gateway.get("/");
        is_in_state(&gateway, &a.authority(), "unhealthy")
    });
    a.answers(200);
    (gateway, a, b)
}

fn since(gateway: &Gateway) -> (String, String) {
    let shown = gateway.admin("/status/upstreams").json();
    let address = &shown["upstreams"][0]["targets"][0]["addresses"][0];
    let text = |member: &str| address[member].as_str().unwrap_or_default().to_owned();
    (text("since"), text("why"))
}

#[test]
fn the_health_survives_new_weights_and_new_limits() {
    let (gateway, a, b) = with_one_out();
    let before = since(&gateway);
    assert!(before.1.starts_with("1/1 tcp"), "{before:?}");

    gateway.reload(&pool(
        &[(a.authority(), 7), (b.authority(), 9)],
        1,
        "{threshold: 1, passive: {healthy: {successes: 1}, unhealthy: {tcp_failures: 5, timeouts: 9}}}",
    ));

    assert_eq!(since(&gateway), before);
    assert_eq!(bodies(&gateway, 20), ["b"]);
}

#[test]
fn probing_goes_on_with_a_new_interval() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    a.answers(500);
    let slow = "{active: {http_path: /ready, healthy: {interval: 0.05, successes: 2}, \
                unhealthy: {interval: 600, http_failures: 1}}}";
    let gateway = Gateway::start(&watched(&[&a, &b], 0, slow));
    wait_for_state(&gateway, &a.authority(), "unhealthy");
    let probed = a.asked_for("/ready");
    b.is_asked_for("/ready");
    assert_eq!(a.asked_for("/ready"), probed, "the next is due in minutes");
    a.answers(200);

    gateway.reload(&watched(&[&a, &b], 0, &slow.replace("600", "0.05")));

    assert_eq!(gateway.log().matches("target is unhealthy").count(), 1);
    wait_for_state(&gateway, &a.authority(), "healthy");
    wait_until("both to be picked again", || {
        bodies(&gateway, 10).len() == 2
    });
}

#[test]
fn active_checks_that_are_added_to_passive_ones_heal_what_was_out() {
    let (gateway, a, b) = with_one_out();

    gateway.reload(&watched(&[&a, &b], 0, QUICK));

    wait_for_state(&gateway, &a.authority(), "healthy");
}

#[test]
fn the_health_of_a_target_that_vanished_goes_with_it() {
    let (gateway, a, b) = with_one_out();

    gateway.reload(&watched(&[&b], 1, PASSIVE));
    gateway.reload(&watched(&[&a, &b], 1, PASSIVE));

    assert_eq!(bodies(&gateway, 10), ["a", "b"]);
}

#[test]
fn without_checks_every_target_is_used_again() {
    let (gateway, a, b) = with_one_out();

    gateway.reload(&watched(&[&a, &b], 1, "{}"));

    assert_eq!(bodies(&gateway, 10), ["a", "b"]);
    assert!(is_in_state(&gateway, &a.authority(), "healthchecks_off"));
}

#[test]
fn probes_end_with_the_upstream() {
    let a = Backend::start("a");
    let gateway = Gateway::start(&watched(&[&a], 0, QUICK));
    a.is_asked_for("/ready");

    gateway.reload("services: []\n");
    a.origin.wait_for_open_connections(0);
    let at_the_end = a.asked_for("/ready");
    let b = Backend::start("b");
    gateway.reload(&watched(&[&b], 0, QUICK));
    wait_until("probes of another upstream", || b.asked_for("/ready") > 10);

    assert_eq!(a.asked_for("/ready"), at_the_end);
}

#[test]
fn a_refused_configuration_leaves_health_and_probes_alone() {
    let (gateway, a, b) = with_one_out();

    gateway.refusing_configuration(|| {
        gateway.replace(&watched(&[&a, &b], 1, "{threshold: 101}"));
    });

    assert_eq!(bodies(&gateway, 10), ["b"]);
}
