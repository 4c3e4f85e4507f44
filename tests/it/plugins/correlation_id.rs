//! `correlation-id`: one id for a request, upstream, downstream and in the log.

use crate::harness::{
    Gateway, Origin, Reply, Request, Response, free_port, one_service, one_service_and,
};

fn with(origin: &Origin, config: &str) -> Gateway {
    let plugin = format!("plugins:\n- {{ name: correlation-id, config: {{ {config} }} }}");
    Gateway::start(&one_service_and(origin, &plugin))
}

/// What the origin receives under this header name.
fn sent_upstream(gateway: &Gateway, origin: &Origin, request: &Request, name: &str) -> String {
    assert_eq!(gateway.send(request).status, 200);
    let received = origin.last();
    let values = received.headers(name);
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values[0].to_owned()
}

fn matches(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern)
        .expect("a pattern")
        .is_match(text)
}

const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

#[test]
fn by_default_a_uuid_with_a_counter_goes_upstream_only() {
    let origin = Origin::replying("hello");
    let gateway = with(&origin, "");

    let ids: Vec<String> = (0..3)
        .map(|_| sent_upstream(&gateway, &origin, &Request::get("/"), "Kong-Request-ID"))
        .collect();

    let parts: Vec<(&str, u64)> = ids
        .iter()
        .map(|id| {
            id.split_once('#')
                .map(|(uuid, count)| (uuid, count.parse().expect("a number")))
                .expect("uuid#counter")
        })
        .collect();
    assert!(matches(&format!("^{UUID}$"), parts[0].0), "{ids:?}");
    assert!(parts.iter().all(|(uuid, _)| *uuid == parts[0].0), "{ids:?}");
    assert!(
        parts[0].1 < parts[1].1 && parts[1].1 < parts[2].1,
        "{ids:?}"
    );
    assert!(gateway.get("/").header("Kong-Request-ID").is_none());
}

#[test]
fn the_uuid_generator_makes_a_random_one_each_time() {
    let origin = Origin::replying("hello");
    let gateway = with(&origin, "generator: uuid");
    let id = || sent_upstream(&gateway, &origin, &Request::get("/"), "Kong-Request-ID");

    let (first, second) = (id(), id());

    let v4 = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";
    assert!(
        matches(v4, &first) && matches(v4, &second) && first != second,
        "{first} {second}"
    );
}

#[test]
fn the_tracker_generator_names_place_and_time() {
    let origin = Origin::replying("hello");
    let gateway = with(&origin, "generator: tracker");

    let id = sent_upstream(&gateway, &origin, &Request::get("/"), "Kong-Request-ID");

    let pattern = r"^127\.0\.0\.1-\d+-\d+-\d+-\d+-\d+\.\d{3}$";
    assert!(matches(pattern, &id), "{id}");
}

#[test]
fn an_incoming_id_is_kept() {
    let origin = Origin::replying("hello");
    let gateway = with(&origin, "header_name: X-Trace, echo_downstream: true");
    let longest = "a".repeat(128);

    for id in ["abc", "!~weird~!", longest.as_str()] {
        let request = Request::get("/").header("x-trace", id);
        let response = gateway.send(&request);
        assert_eq!(
            (
                origin.last().headers("X-Trace"),
                response.headers("X-Trace")
            ),
            (vec![id], vec![id])
        );
    }
}

#[test]
fn a_blank_overlong_or_unprintable_id_is_replaced() {
    let origin = Origin::replying("hello");
    let gateway = with(&origin, "header_name: X-Trace, generator: uuid");
    let overlong = "a".repeat(129);

    for id in ["", "   ", overlong.as_str(), "caf\u{e9}"] {
        let sent = sent_upstream(
            &gateway,
            &origin,
            &Request::get("/").header("X-Trace", id),
            "X-Trace",
        );
        assert!(
            matches(&format!("^{UUID}$"), &sent),
            "{id:?} became {sent:?}"
        );
    }
}

fn echoed(response: &Response) -> bool {
    response
        .header("X-Trace")
        .is_some_and(|id| matches(&format!("^{UUID}$"), id))
}

#[test]
fn the_id_is_echoed_on_every_response_also_the_gateways_own() {
    let origin = Origin::start(|_| Reply::ok("hello").header("X-Trace", "from the origin"));
    let gateway = Gateway::start(&format!(
        "
        plugins:
        - {{ name: correlation-id, config: {{ header_name: X-Trace, generator: uuid, echo_downstream: true }} }}
        services:
        - name: alive
          url: {origin}
          routes:
          - {{ name: open, paths: [/open] }}
          - {{ name: locked, paths: [/locked], plugins: [{{ name: key-auth }}] }}
          - name: limited
            paths: [/limited]
            plugins: [{{ name: rate-limiting, config: {{ year: 1, limit_by: ip }} }}]
          - name: ended
            paths: [/ended]
            plugins: [{{ name: request-termination, config: {{ status_code: 410 }} }}]
        - {{ name: dead, url: 'http://127.0.0.1:{}', retries: 0, routes: [{{ name: dead, paths: [/dead] }}] }}
        ",
        free_port()
    ));

    for (path, status) in [
        ("/open", 200),
        ("/locked", 401),
        ("/limited", 200),
        ("/limited", 429),
        ("/ended", 410),
        ("/dead", 502),
        ("/nowhere", 404),
    ] {
        let response = gateway.get(path);
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.headers("X-Trace").len(), 1, "{path}");
        assert!(
            echoed(&response),
            "{path}: {:?}",
            response.header("X-Trace")
        );
    }
}

#[test]
fn the_id_is_in_the_access_log() {
    let origin = Origin::replying("hello");
    let gateway = with(&origin, "header_name: X-Trace");

    gateway.send(&Request::get("/").header("X-Trace", "find-me-in-the-log"));

    gateway.wait_for_access_log("find-me-in-the-log");
}

#[test]
fn a_bad_generator_is_refused_at_load() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    let bad = one_service_and(
        &origin,
        "plugins:\n- { name: correlation-id, config: { generator: random } }",
    );
    gateway.refusing_configuration(|| gateway.replace(&bad));

    gateway.wait_for_log("generator");
}
