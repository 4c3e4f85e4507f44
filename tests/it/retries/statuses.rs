//! Repeating for a status: which statuses and methods, what the client gets, and what is told of it.

use serde_json::Value;

use super::retrying;
use crate::harness::http2::Http2Client;
use crate::harness::{Gateway, GrpcOrigin, Origin, Received, Reply, Request, check, wait_until};

/// Answers the first `failures` requests with this status and a body, then echoes.
fn busy_first(failures: usize, status: u16) -> Origin {
    Origin::start(move |request| {
        if request.number < failures {
            Reply::status(status)
                .header("X-Try", "first")
                .body("not this one")
        } else {
            Reply::ok(request.body.clone())
        }
    })
}

#[test]
fn a_listed_status_is_repeated_and_nothing_of_it_reaches_the_client() {
    let origin = busy_first(2, 503);
    let gateway = retrying(&origin, 5, "retry: { statuses: [502, 503] }");
    let mut client = gateway.connect();

    let response = client.send(&Request::new("PUT", "/").body("again"));

    assert_eq!((response.status, response.text().as_str()), (200, "again"));
    assert_eq!(response.header("X-Try"), None);
    let bodies: Vec<String> = origin.requests().iter().map(Received::text).collect();
    assert_eq!(bodies, ["again", "again", "again"]);
    assert_eq!(client.send(&Request::get("/")).status, 200, "in step");
}

#[test]
fn the_last_response_is_delivered_when_no_try_is_left() {
    let origin = busy_first(usize::MAX, 503);
    let gateway = retrying(&origin, 2, "retry: { statuses: [503] }");

    let response = gateway.get("/");

    assert_eq!(
        (response.status, response.text().as_str()),
        (503, "not this one")
    );
    assert_eq!(origin.count(), 3);
}

#[test]
fn other_statuses_and_other_methods_are_final() {
    let origin = busy_first(usize::MAX, 500);
    let gateway = retrying(&origin, 5, "retry: { statuses: [503] }");
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(origin.count(), 1);

    let origin = busy_first(usize::MAX, 503);
    let gateway = retrying(&origin, 5, "retry: { statuses: [503] }");
    let response = gateway.send(&Request::post("/", "once"));
    assert_eq!(
        (response.status, response.text().as_str()),
        (503, "not this one")
    );
    assert_eq!(origin.count(), 1);
}

#[test]
fn methods_are_those_that_the_operator_names() {
    let origin = Origin::start(|_| Reply::close());
    let gateway = retrying(&origin, 1, "retry: { methods: [POST] }");

    for (method, tries) in [("POST", 2), ("GET", 1)] {
        let before = origin.count();
        assert_eq!(gateway.send(&Request::new(method, "/")).status, 502);
        assert_eq!(origin.count() - before, tries, "{method}");
    }
}

#[test]
fn the_block_of_a_route_takes_the_place_of_the_services() {
    let origin = busy_first(usize::MAX, 503);
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          url: {origin}
          retries: 1
          retry: {{ statuses: [503] }}
          routes:
          - {{ name: twice, paths: [/twice] }}
          - {{ name: once, paths: [/once], retry: {{ backoff: 1 }} }}
        "
    ));

    for (path, tries) in [("/twice", 2), ("/once", 1)] {
        let before = origin.count();
        assert_eq!(gateway.get(path).status, 503);
        assert_eq!(origin.count() - before, tries, "{path}");
    }
}

#[test]
fn a_body_that_is_too_large_to_keep_is_answered_with_what_came() {
    let origin = busy_first(1, 503);
    let gateway = retrying(&origin, 5, "retry: { statuses: [503] }");

    let response = gateway.send(&Request::new("PUT", "/").body(vec![b'x'; 1 << 20]));

    assert_eq!(response.status, 503);
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_repeated_status_is_invisible_over_http2_as_well() {
    let origin = busy_first(1, 503);
    let document = format!(
        "services:\n- {{ name: orders, url: '{origin}', retry: {{ statuses: [503] }}, routes: [{{ name: orders, paths: [/] }}] }}\n"
    );
    let gateway = Gateway::start_with_http2("", &document);
    let client = Http2Client::connect(gateway.port());

    let response = client.get("/");

    assert_eq!((response.status, response.header("x-try")), (200, None));
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_status_of_a_grpc_upstream_is_repeated_and_its_stream_is_over() {
    let origin = GrpcOrigin::start();
    let document = format!(
        "services:\n- {{ name: calls, host: 127.0.0.1, port: {}, protocol: grpc, retries: 2, retry: {{ statuses: [503], methods: [POST] }}, routes: [{{ name: calls, protocols: [grpc], paths: [/] }}] }}\n",
        origin.port()
    );
    let gateway = Gateway::start_with_http2("", &document);
    let client = Http2Client::connect(gateway.port());
    let request = client
        .request("POST", "/orders.Orders/Busy")
        .header("content-type", "application/grpc")
        .header("te", "trailers");

    let response = client.begin(request, true).finish();

    assert_eq!(
        (response.status, response.trailer("grpc-status")),
        (200, Some("0"))
    );
    assert!(!response.text().contains("not this one"));
    assert_eq!((origin.calls().len(), origin.connections()), (2, 1));
    wait_until("the first call is given up", || {
        origin
            .calls()
            .first()
            .is_some_and(|call| call.ended == Some(false))
    });
}

#[test]
fn the_access_log_lists_every_try() {
    let origin = busy_first(1, 503);
    let gateway = retrying(&origin, 5, "retry: { statuses: [503] }");

    gateway.get("/listed");

    let entry = || {
        gateway
            .access_log()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .find(|entry| entry["path"] == "/listed")
    };
    wait_until("the entry", || entry().is_some());
    let entry = entry().expect("it is there");
    let tries = entry["tries"].as_array().expect("a list");
    let outcomes: Vec<&Value> = tries.iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["503", "200"]);
    assert!(tries.iter().all(|one| one["address"] == origin.authority()));
    assert!(tries.iter().all(|one| one["time_ms"].is_number()));
}

#[test]
fn passive_health_checks_learn_from_the_status_of_each_try() {
    let (busy, fine) = (busy_first(usize::MAX, 503), Origin::replying("fine"));
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retry: {{ statuses: [503] }}, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - name: pool
          targets: [{{ target: '{}' }}, {{ target: '{}' }}]
          healthchecks: {{ passive: {{ unhealthy: {{ http_failures: 2 }} }} }}
        ",
        busy.authority(),
        fine.authority()
    ));

    for _ in 0..20 {
        assert_eq!(gateway.get("/").text(), "fine");
    }

    assert_eq!(busy.count(), 2);
}

#[test]
fn what_means_nothing_is_refused_with_its_place() {
    for (retry, message) in [
        ("retry: { statuses: [200] }", "statuses[0]"),
        ("retry: { methods: [get] }", "methods[0]"),
        ("retry: { budget: 1.5 }", "budget"),
        ("retry: { backoff: 500, max_backoff: 100 }", "backoff"),
        ("retry: { attempts: 3 }", "attempts"),
        ("total_timeout: -1", "total_timeout"),
        ("protocol: tcp, retry: {}", "retry"),
    ] {
        let outcome = check(&format!("services: [{{ name: a, host: a.test, {retry} }}]"));
        assert_eq!(outcome.code, Some(1), "{retry}: {outcome:?}");
        assert!(
            outcome.stderr.contains(message),
            "{retry}: {}",
            outcome.stderr
        );
    }
}
