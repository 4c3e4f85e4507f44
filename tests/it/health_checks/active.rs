//! Probes that the gateway sends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Backend, IS_SILENT, QUICK, bodies, is_in_state, pool, wait_for_state, watched};
use crate::harness::{Gateway, Origin, Reply, Request, Stopwatch, free_port, wait_for, wait_until};

/// Sends requests from four clients until `disturb` has run, and for a moment longer. Gives the
/// statuses other than 200.
fn failures_under_load(gateway: &Gateway, disturb: impl FnOnce()) -> Vec<u16> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        let status = gateway.get("/").status;
                        if status != 200 {
                            failed.push(status);
                        }
                    }
                    failed
                })
            })
            .collect();
        disturb();
        is_over.store(true, Ordering::SeqCst);
        visitors
            .into_iter()
            .flat_map(|visitor| visitor.join().expect("a visitor that did not fail"))
            .collect()
    })
}

/// S13
#[test]
fn a_target_that_answers_500_goes_out_and_comes_back_when_it_is_well() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 0, QUICK));
    wait_for_state(&gateway, &a.authority(), "healthy");
    assert_eq!(bodies(&gateway, 10), ["a", "b"]);

    a.answers(500);
    wait_for_state(&gateway, &a.authority(), "unhealthy");

    assert!(!is_in_state(&gateway, &a.authority(), "healthy"));
    assert!(is_in_state(&gateway, &b.authority(), "healthy"));
    assert_eq!(bodies(&gateway, 10), ["b"]);
    gateway.wait_for_log("target is unhealthy (3/3 http 500)");
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("is unhealthy"))
        .expect("a line");
    for part in [
        "WARN",
        "upstream=pool",
        &format!("target={}", a.authority()),
        &format!("address={}", a.authority()),
        "cause=\"3/3 http 500 (active)\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }

    a.answers(200);
    wait_for_state(&gateway, &a.authority(), "healthy");
    gateway.wait_for_log("target is healthy (2/2 http 200)");
    wait_until("both to be picked again", || {
        bodies(&gateway, 10).len() == 2
    });
    assert_eq!(gateway.log().matches("target is unhealthy").count(), 1);
    assert_eq!(gateway.log().matches("target is healthy").count(), 1);
}

/// S11
#[test]
fn killing_one_of_two_targets_under_load_with_retries_fails_no_request() {
    let (mut a, b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 2, QUICK));
    let target = a.authority();

    let failures = failures_under_load(&gateway, || {
        wait_until("both to be in use", || {
            a.asked_for("/") > 20 && b.asked_for("/") > 20
        });
        a.origin.stop();
        wait_for_state(&gateway, &target, "unhealthy");
        let before = b.asked_for("/");
        wait_until("the other to serve", || b.asked_for("/") > before + 50);
    });

    assert_eq!(failures, [0_u16; 0]);
    gateway.wait_for_log("target is unhealthy (3/3 tcp connection refused)");
}

/// S15
#[test]
fn with_two_of_three_targets_gone_nothing_fails_once_that_is_noticed() {
    let (mut a, mut b, c) = (
        Backend::start("a"),
        Backend::start("b"),
        Backend::start("c"),
    );
    let gateway = Gateway::start(&watched(&[&a, &b, &c], 0, QUICK));
    let targets = [a.authority(), b.authority()];
    a.origin.stop();
    b.origin.stop();
    for target in &targets {
        wait_for_state(&gateway, target, "unhealthy");
    }

    let failures = failures_under_load(&gateway, || {
        wait_until("requests to be served", || c.asked_for("/") > 100);
    });

    assert_eq!(failures, [0_u16; 0]);
}

/// S12
#[test]
fn with_every_target_stopped_requests_are_503_within_a_second_and_it_is_told_why() {
    let (mut a, mut b) = (Backend::start("a"), Backend::start("b"));
    let gateway = Gateway::start(&watched(&[&a, &b], 0, QUICK));
    let targets = [a.authority(), b.authority()];
    assert_eq!(bodies(&gateway, 4), ["a", "b"]);

    a.origin.stop();
    b.origin.stop();
    let response = wait_for("503", Duration::from_secs(1), || {
        let response = gateway.get("/");
        (response.status == 503).then_some(response)
    });

    assert_eq!(
        response.message(),
        "failure to get a peer from the ring-balancer"
    );
    assert!(
        !response.text().contains("127.0.0.1"),
        "{}",
        response.text()
    );
    let shown = gateway.admin("/status/upstreams").json();
    let upstream = &shown["upstreams"][0];
    assert_eq!(upstream["available"], false);
    for (place, target) in targets.iter().enumerate() {
        let shown = &upstream["targets"][place];
        assert_eq!(shown["target"], target.as_str());
        assert_eq!(shown["state"], "unhealthy");
        assert_eq!(
            shown["addresses"][0]["why"],
            "3/3 tcp connection refused (active)"
        );
    }
    gateway.wait_for_log("target is unhealthy (3/3 tcp connection refused)");
    gateway.wait_for_access_log("\"error\":\"no_healthy_upstream\"");

    a.origin.restart();
    wait_until("the first to serve again", || {
        gateway.get("/").status == 200
    });
}

#[test]
fn a_probe_is_a_get_of_the_path_with_the_host_of_the_target_and_the_configured_headers() {
    let backend = Backend::start("a");
    let gateway = Gateway::start(&watched(
        &[&backend],
        0,
        "{active: {http_path: /live/now, headers: {X-Probe: [one, two]}, healthy: {interval: 0.05}}}",
    ));
    backend.is_asked_for("/live/now");

    let probe = backend.origin.last();

    assert_eq!(probe.method, "GET");
    assert_eq!(probe.header("host"), Some(backend.authority().as_str()));
    assert_eq!(probe.headers("x-probe"), ["one", "two"]);
    assert_eq!(probe.headers("connection"), ["close"]);
    assert!(
        probe
            .header("user-agent")
            .is_some_and(|agent| agent.starts_with("tollgate/"))
    );
    drop(gateway);
}

#[test]
fn the_host_header_of_the_upstream_is_that_of_its_probes_too() {
    let backend = Backend::start("a");
    let yaml = watched(&[&backend], 0, "{active: {healthy: {interval: 0.05}}}")
        .replace("- name: pool", "- name: pool\n  host_header: shop.test");
    let _gateway = Gateway::start(&yaml);

    backend.origin.wait_until("a probe", |requests| {
        requests
            .iter()
            .any(|request| request.header("host") == Some("shop.test"))
    });
}

#[test]
fn redirects_are_not_followed_and_other_statuses_count_for_nothing() {
    let redirecting = Origin::start(|request| match request.target.as_str() {
        "/ready" => Reply::status(302).header("Location", "/elsewhere"),
        _ => Reply::status(500),
    });
    let odd = Origin::start(|_| Reply::status(418));
    let targets = [(redirecting.authority(), 1), (odd.authority(), 1)];
    let gateway = Gateway::start(&pool(&targets, 0, QUICK));

    for origin in [&redirecting, &odd] {
        origin.wait_until("ten probes", |requests| requests.len() >= 10);
    }

    assert!(
        redirecting
            .requests()
            .iter()
            .all(|request| request.target == "/ready")
    );
    for (target, _) in &targets {
        assert!(is_in_state(&gateway, target, "healthy"), "{target}");
    }
}

#[test]
fn a_silent_target_times_out() {
    let backend = Backend::start("a");
    let gateway = Gateway::start(&watched(&[&backend], 0, QUICK));
    wait_for_state(&gateway, &backend.authority(), "healthy");

    backend.answers(IS_SILENT);

    wait_for_state(&gateway, &backend.authority(), "unhealthy");
    gateway.wait_for_log("target is unhealthy (3/3 timeout)");
}

#[test]
fn a_tcp_check_asks_for_a_connection_only() {
    let mut backend = Backend::start("a");
    backend.answers(500);
    let checks = QUICK.replace("http_path: /ready", "type: tcp");
    let gateway = Gateway::start(&watched(&[&backend], 0, &checks));
    wait_until("five connections", || backend.origin.connections() >= 5);
    assert!(is_in_state(&gateway, &backend.authority(), "healthy"));
    assert_eq!(backend.origin.count(), 0, "nothing was sent");

    backend.origin.stop();
    wait_for_state(&gateway, &backend.authority(), "unhealthy");
    backend.origin.restart();
    wait_for_state(&gateway, &backend.authority(), "healthy");

    gateway.wait_for_log("target is healthy (2/2 tcp connected)");
}

#[test]
fn healthy_and_unhealthy_targets_have_intervals_of_their_own() {
    let (well, ill) = (Backend::start("a"), Backend::start("b"));
    ill.answers(500);
    let gateway = Gateway::start(&watched(
        &[&well, &ill],
        0,
        "{active: {http_path: /ready, healthy: {interval: 0.05, successes: 1}, \
         unhealthy: {interval: 0, http_failures: 1}}}",
    ));
    wait_for_state(&gateway, &ill.authority(), "unhealthy");
    let at_the_end = ill.asked_for("/ready");

    wait_until("many probes of the other", || well.asked_for("/ready") > 20);

    assert_eq!(
        ill.asked_for("/ready"),
        at_the_end,
        "an interval of 0 is no probe"
    );
}

#[test]
fn a_target_of_weight_zero_is_not_probed() {
    let (used, unused) = (Backend::start("a"), Backend::start("b"));
    let targets = [(used.authority(), 1), (unused.authority(), 0)];
    let gateway = Gateway::start(&pool(&targets, 0, QUICK));

    wait_until("probes of the other", || used.asked_for("/ready") >= 5);

    assert_eq!(unused.origin.connections(), 0);
    assert!(is_in_state(
        &gateway,
        &unused.authority(),
        "healthchecks_off"
    ));
}

#[test]
fn no_more_addresses_are_probed_at_once_than_concurrency_says() {
    let backends: Vec<_> = (0..4).map(|_| Backend::start("a")).collect();
    for backend in &backends {
        backend.answers(IS_SILENT);
    }
    // Before the first probe can begin.
    let watch = Stopwatch::start();
    let _gateway = Gateway::start(&watched(
        &backends.iter().collect::<Vec<_>>(),
        0,
        "{active: {concurrency: 1, timeout: 0.4, healthy: {interval: 0.05}}}",
    ));
    let asked = || backends.iter().map(|it| it.origin.count()).sum::<usize>();

    wait_until("four probes", || asked() >= 4);

    assert!(
        watch.elapsed() >= Duration::from_secs(1),
        "one after the other: {:?}",
        watch.elapsed()
    );
}

#[test]
fn a_target_given_by_name_is_probed_by_its_name() {
    let backend = Backend::start("a");
    let target = format!("localhost:{}", backend.origin.port());
    let gateway = Gateway::start(&pool(&[(target.clone(), 1)], 0, QUICK));
    wait_for_state(&gateway, &target, "healthy");
    backend.is_asked_for("/ready");
    assert_eq!(backend.origin.last().header("host"), Some(target.as_str()));

    backend.answers(500);
    wait_for_state(&gateway, &target, "unhealthy");

    assert_eq!(gateway.get("/").status, 503);
    let shown = gateway.admin("/status/upstreams").json();
    assert_eq!(
        shown["upstreams"][0]["targets"][0]["addresses"][0]["address"],
        backend.authority()
    );
}

#[test]
fn a_target_that_was_never_up_is_found_out_before_it_gets_a_request() {
    let backend = Backend::start("a");
    let nobody = format!("127.0.0.1:{}", free_port());
    let targets = [(backend.authority(), 1), (nobody.clone(), 1)];
    let gateway = Gateway::start(&pool(&targets, 0, QUICK));
    wait_for_state(&gateway, &nobody, "unhealthy");

    let statuses: Vec<_> = (0..10)
        .map(|_| gateway.send(&Request::post("/", "x")).status)
        .collect();

    assert_eq!(statuses, [200; 10]);
}
