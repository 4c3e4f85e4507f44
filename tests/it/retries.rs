//! When a failed try is repeated, and when it must not be.

mod pace;
mod statuses;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Gateway, Origin, Received, Reply, Request, dedent, free_port, one_service};

/// A catch-all route whose service has these retries and more fields.
fn retrying(origin: &Origin, retries: u32, fields: &str) -> Gateway {
    Gateway::start(&format!(
        "{}\n  retries: {retries}\n{}",
        one_service(origin),
        indented(fields)
    ))
}

fn indented(fields: &str) -> String {
    dedent(fields)
        .lines()
        .flat_map(|line| ["  ", line, "\n"])
        .collect()
}

/// Closes the connection on the first `failures` requests, then echoes.
fn failing_first(failures: usize) -> Origin {
    Origin::start(move |request| {
        if request.number < failures {
            Reply::close()
        } else {
            Reply::ok(request.body.clone())
        }
    })
}

const IDEMPOTENT: [&str; 5] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
const OTHERS: [&str; 3] = ["POST", "PATCH", "LOCK"];

#[test]
fn an_idempotent_request_is_repeated_when_the_connection_breaks_before_an_answer() {
    for method in IDEMPOTENT {
        let origin = failing_first(1);
        let gateway = retrying(&origin, 1, "");

        assert_eq!(
            gateway
                .send(&Request::new(method, "/").body("again"))
                .status,
            200,
            "{method}"
        );

        let bodies: Vec<String> = origin.requests().iter().map(Received::text).collect();
        assert_eq!(bodies, ["again", "again"], "{method}");
    }
}

#[test]
fn other_methods_are_never_sent_twice() {
    for method in OTHERS {
        let origin = failing_first(1);
        let gateway = retrying(&origin, 5, "");

        assert_eq!(
            gateway.send(&Request::new(method, "/").body("once")).status,
            502,
            "{method}"
        );

        assert_eq!(origin.count(), 1, "{method}");
    }
}

#[test]
fn the_number_of_tries_is_retries_and_one() {
    for retries in [0, 1, 3] {
        let origin = Origin::start(|_| Reply::close());
        let gateway = retrying(&origin, retries, "");

        assert_eq!(gateway.get("/").status, 502);

        assert_eq!(origin.count(), retries as usize + 1, "retries: {retries}");
    }
}

#[test]
fn five_retries_are_the_default() {
    let origin = failing_first(5);
    let gateway = Gateway::start(&one_service(&origin));

    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(origin.count(), 6);
}

#[test]
fn silence_is_repeated_for_idempotent_methods_only() {
    for (method, tries) in [("GET", 3), ("POST", 1)] {
        let origin = Origin::start(|_| Reply::never());
        let gateway = retrying(&origin, 2, "read_timeout: 100");

        assert_eq!(
            gateway.send(&Request::new(method, "/")).status,
            504,
            "{method}"
        );

        assert_eq!(origin.count(), tries, "{method}");
    }
}

#[test]
fn any_method_goes_to_another_target_when_nothing_was_sent() {
    let alive = Origin::echoing();
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retries: 1, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '127.0.0.1:{}' }}, {{ target: '{}' }}] }}
        ",
        free_port(),
        alive.authority()
    ));

    for method in IDEMPOTENT.iter().chain(&OTHERS).cycle().take(32) {
        assert_eq!(
            gateway.send(&Request::new(method, "/").body("x")).status,
            200,
            "{method}"
        );
    }
    assert_eq!(alive.count(), 32);
}

/// S11: a repetition passes over the targets that this request has tried.
#[test]
fn every_other_target_is_tried_before_one_is_tried_twice() {
    let dead = [free_port(), free_port(), free_port()];
    let alive = Origin::replying("alive");
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retries: 3, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - name: pool
          targets:
          - {{ target: '127.0.0.1:{}', weight: 500 }}
          - {{ target: '127.0.0.1:{}', weight: 500 }}
          - {{ target: '127.0.0.1:{}', weight: 500 }}
          - {{ target: '{}', weight: 1 }}
        ",
        dead[0],
        dead[1],
        dead[2],
        alive.authority()
    ));

    for attempt in 0..50 {
        assert_eq!(gateway.get("/").status, 200, "attempt {attempt}");
    }
}

#[test]
fn without_retries_a_dead_target_fails_its_share_of_requests() {
    let alive = Origin::replying("alive");
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retries: 0, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '127.0.0.1:{}' }}, {{ target: '{}' }}] }}
        ",
        free_port(),
        alive.authority()
    ));

    let failures = (0..10).filter(|_| gateway.get("/").status == 502).count();

    assert_eq!(failures, 5);
}

#[test]
fn a_status_of_the_origin_is_final() {
    let origin = Origin::start(|_| Reply::status(503).body("busy"));
    let gateway = retrying(&origin, 5, "");

    let response = gateway.get("/");

    assert_eq!(
        (response.status, response.text().as_str(), origin.count()),
        (503, "busy", 1)
    );
}

#[test]
fn nothing_is_repeated_once_the_client_has_seen_a_byte() {
    let origin = Origin::start(|_| {
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").then_close()
    });
    let gateway = retrying(&origin, 5, "");

    assert!(!gateway.get("/").complete);
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_body_that_is_too_large_to_keep_is_not_repeated() {
    let origin = failing_first(1);
    let gateway = retrying(&origin, 5, "");

    assert_eq!(
        gateway
            .send(&Request::new("PUT", "/").body(vec![b'x'; 1 << 20]))
            .status,
        502
    );
    assert_eq!(origin.count(), 1);
}

/// A kept connection that the origin closes while it is idle.
#[test]
fn stale_connections_are_invisible_to_idempotent_requests_even_without_retries() {
    let origin = Origin::start(|_| Reply::ok("hello").then_close());
    let gateway = retrying(&origin, 0, "");
    let mut client = gateway.connect();

    for attempt in 0..100 {
        assert_eq!(
            client.send(&Request::get("/")).status,
            200,
            "attempt {attempt}"
        );
    }
}

/// The origin closes a reused connection on reading the request: a race that it always wins.
#[test]
fn a_reused_connection_that_breaks_is_replaced_without_counting_as_a_retry() {
    let served = AtomicUsize::new(0);
    let origin = Origin::start(move |request| {
        let first_on_its_connection =
            served.fetch_max(request.connection + 1, Ordering::SeqCst) <= request.connection;
        if first_on_its_connection {
            Reply::ok("fresh")
        } else {
            Reply::close()
        }
    });
    let gateway = retrying(&origin, 0, "");
    let mut client = gateway.connect();

    for attempt in 0..20 {
        assert_eq!(
            client.send(&Request::get("/")).text(),
            "fresh",
            "attempt {attempt}"
        );
    }
}

#[test]
fn retries_are_counted_per_service() {
    let origin = failing_first(2);
    let gateway = retrying(&origin, 5, "");

    assert_eq!(gateway.get("/").status, 200);

    let counted = gateway.metric("tollgate_upstream_retries_total{service=\"orders\"}");
    assert!((counted - 2.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn a_client_that_waits_for_continue_is_told_though_the_first_target_refused() {
    let alive = Origin::echoing();
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retries: 1, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '127.0.0.1:{}' }}, {{ target: '{}' }}] }}
        ",
        free_port(),
        alive.authority()
    ));

    for attempt in 0..4 {
        let mut client = gateway.connect();
        client
            .write(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
            )
            .expect("written");
        let interim = client.read_head().expect("an interim response");
        assert!(
            interim.start_line.starts_with("HTTP/1.1 100"),
            "attempt {attempt}: {}",
            interim.start_line
        );
        client.write("body").expect("written");
        let response = client.read_response().expect("an answer");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "body"),
            "attempt {attempt}"
        );
        assert!(response.interim.is_empty(), "it was told once");
    }
}
