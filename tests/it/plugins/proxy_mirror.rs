//! `proxy-mirror`: what a copy is, and that no client ever notices it.

use std::time::Duration;

use tungstenite::Message;

use crate::harness::http2::Http2Client;
use crate::harness::{
    Blueprint, Gate, Gateway, Issued, Origin, Reply, Request, Stopwatch, TlsOrigin, free_port,
    tollgate, wait_until,
};

/// A route with a prefix that is stripped, a service with a path, and a mirror for it.
fn site(origin: &Origin, config: &str, more: &str) -> String {
    format!(
        "services:
- name: orders
  url: {origin}/v1
  routes:
  - name: orders
    paths: [/orders]
    plugins:
    - name: proxy-mirror
      config: {config}
{more}"
    )
}

fn to_url(origin: &Origin, mirror: &Origin, more: &str) -> Gateway {
    Gateway::start(&site(
        origin,
        &format!("{{ url: '{mirror}/shadow'{more} }}"),
        "",
    ))
}

#[track_caller]
fn wait_for_outcome(gateway: &Gateway, outcome: &str, count: u32) {
    let series = format!("tollgate_mirror_requests_total{{outcome=\"{outcome}\"}}");
    wait_until(&format!("{count} copies {outcome}"), || {
        (gateway.metric(&series) - f64::from(count)).abs() < 0.5
    });
}

#[test]
fn a_copy_has_all_that_goes_upstream_and_says_that_it_is_one() {
    let (origin, mirror) = (Origin::replying("one"), Origin::replying("two"));
    let gateway = to_url(&origin, &mirror, ", headers: { X-Added: yes }");
    let request = Request::post("/orders/7?x=1&y=%20", "a body")
        .header("Authorization", "Bearer abc")
        .header("X-Own", "1")
        .header("TE", "trailers")
        .header("Connection", "X-Hop")
        .header("X-Hop", "1");

    let response = gateway.send(&request);

    assert_eq!((response.status, response.text().as_str()), (200, "one"));
    mirror.wait_until("the copy", |copies| copies.len() == 1 && copies[0].complete);
    let (copy, original) = (mirror.last(), origin.last());
    assert_eq!(
        (copy.method.as_str(), copy.target.as_str()),
        ("POST", "/shadow/7?x=1&y=%20")
    );
    assert_eq!(original.target, "/v1/7?x=1&y=%20");
    assert_eq!(copy.text(), "a body");
    assert_eq!(copy.header("Host"), Some(mirror.authority().as_str()));
    assert_eq!(copy.header("X-Tollgate-Mirror"), Some("1"));
    assert_eq!(copy.header("X-Added"), Some("yes"));
    for same in [
        "Authorization",
        "X-Own",
        "X-Forwarded-For",
        "X-Forwarded-Path",
        "Via",
    ] {
        assert_eq!(copy.header(same), original.header(same), "{same}");
        assert!(copy.header(same).is_some(), "{same}");
    }
    for hop in ["TE", "Connection", "X-Hop", "Transfer-Encoding"] {
        assert_eq!(copy.header(hop), None, "{hop}");
    }
    assert_eq!(original.header("X-Tollgate-Mirror"), None);
    wait_for_outcome(&gateway, "answered", 1);
}

#[test]
fn copies_go_to_a_service_by_its_own_settings() {
    let (origin, mirror) = (Origin::replying("one"), Origin::replying("two"));
    let gateway = Gateway::start(&site(
        &origin,
        "{ service: next }",
        &format!(
            "- name: next
  host: pool
  path: /v2
upstreams:
- name: pool
  host_header: next.test
  targets: [{{ target: {} }}]
",
            mirror.authority()
        ),
    ));
    for _ in 0..3 {
        assert_eq!(gateway.get("/orders/7").text(), "one");
    }
    wait_for_outcome(&gateway, "answered", 3);
    let copy = mirror.last();
    assert_eq!(copy.target, "/v2/7");
    assert_eq!(copy.header("Host"), Some("next.test"));
    assert_eq!(copy.header("Content-Length"), None);
}

#[test]
fn chunked_bodies_and_bodies_that_a_plugin_read_are_copied() {
    let (origin, mirror) = (Origin::echoing(), Origin::replying("two"));
    let body = "x".repeat(40_000);
    let gateway = Gateway::start(&format!(
        "{}plugins:\n- {{ name: key-auth, config: {{ key_in_body: true, anonymous: guest }} }}\nconsumers:\n- {{ username: guest }}\n",
        site(&origin, &format!("{{ url: '{mirror}' }}"), "")
    ));

    let chunked = gateway.send(&Request::new("PUT", "/orders").chunked(body.as_bytes(), 1000));
    assert!(chunked.text() == body);
    wait_for_outcome(&gateway, "answered", 1);
    let copy = mirror.last();
    assert!(copy.text() == body && !copy.chunked);

    let empty = gateway.send(&Request::post("/orders", ""));
    assert_eq!(empty.status, 200);
    wait_for_outcome(&gateway, "answered", 2);
    assert_eq!(mirror.last().header("Content-Length"), Some("0"));
}

#[test]
fn a_body_that_came_over_http2_without_a_length_is_copied() {
    let (origin, mirror) = (Origin::echoing(), Origin::replying("two"));
    let yaml = site(&origin, &format!("{{ url: '{mirror}' }}"), "");
    let gateway = Gateway::start_with_http2("", &yaml);
    let client = Http2Client::connect(gateway.port());

    assert_eq!(client.post("/orders", b"a body").text(), "a body");

    wait_for_outcome(&gateway, "answered", 1);
    let copy = mirror.last();
    assert_eq!(copy.text(), "a body");
    assert_eq!(copy.header("Content-Length"), Some("6"));
}

#[test]
fn a_body_over_the_limit_is_not_copied_and_reaches_the_upstream_whole() {
    let (origin, mirror) = (Origin::echoing(), Origin::replying("two"));
    let gateway = to_url(&origin, &mirror, ", max_body: 1000");
    let large = "x".repeat(1001);
    assert!(
        gateway
            .send(&Request::post("/orders", large.clone()))
            .text()
            == large
    );
    let chunked = Request::new("POST", "/orders").chunked(large.as_bytes(), 100);
    assert!(gateway.send(&chunked).text() == large);
    wait_for_outcome(&gateway, "body_too_large", 2);
    assert_eq!(mirror.count(), 0);

    gateway.send(&Request::post("/orders", "x".repeat(1000)));
    wait_for_outcome(&gateway, "answered", 1);
    assert_eq!(mirror.last().body.len(), 1000);
}

#[test]
fn a_body_that_the_upstream_did_not_wait_for_is_not_copied() {
    let mirror = Origin::replying("two");
    let origin = Origin::replying("one");
    let gateway = to_url(&origin, &mirror, "");
    let mut client = gateway.connect();
    let mut bytes = Request::post("/orders", "x".repeat(2000)).bytes();
    bytes.truncate(bytes.len() - 1000);
    client.write(bytes).expect("half a request goes out");
    origin.wait_until("half a request", |requests| requests.len() == 1);
    drop(client);
    wait_for_outcome(&gateway, "body_incomplete", 1);
    assert_eq!(mirror.count(), 0);
}

#[test]
fn a_repeated_try_makes_one_copy_with_one_body() {
    let mirror = Origin::replying("two");
    let origin = Origin::echoing();
    let gateway = Gateway::start(&format!(
        "services:
- name: orders
  host: pool
  retries: 3
  routes: [{{ name: orders, paths: [/] }}]
  plugins:
  - {{ name: proxy-mirror, config: {{ url: '{mirror}' }} }}
upstreams:
- name: pool
  targets:
  - {{ target: '127.0.0.1:{}' }}
  - {{ target: {} }}
",
        free_port(),
        origin.authority()
    ));
    for count in 1..=4 {
        let response = gateway.send(&Request::post("/", "just once"));
        assert_eq!(response.text(), "just once");
        wait_for_outcome(&gateway, "answered", count);
        assert_eq!(mirror.last().text(), "just once");
    }
    assert_eq!(mirror.count(), 4);
}

#[test]
fn a_slow_dead_or_failing_mirror_changes_neither_the_answer_nor_its_time() {
    let origin = Origin::replying("one");
    let gate = Gate::new();
    let held = gate.clone();
    let slow = Origin::start(move |_| Reply::ok("late").after(&held));
    let gateway = to_url(&origin, &slow, ", timeout: 60000, max_in_flight: 5");
    let watch = Stopwatch::start();
    for _ in 0..20 {
        assert_eq!(gateway.get("/orders").text(), "one");
    }
    assert!(
        watch.elapsed() < Duration::from_secs(10),
        "it was waited for"
    );
    wait_for_outcome(&gateway, "too_many_in_flight", 15);
    slow.wait_until("the copies in flight", |requests| requests.len() == 5);
    gate.open();
    wait_for_outcome(&gateway, "answered", 5);
    gateway.get("/orders");
    wait_for_outcome(&gateway, "answered", 6);

    let failing = Origin::start(|_| Reply::status(500));
    let gateway = to_url(&origin, &failing, "");
    assert_eq!(gateway.get("/orders").status, 200);
    wait_for_outcome(&gateway, "answered", 1);

    let resetting = Origin::start(|_| Reply::reset());
    let gateway = to_url(&origin, &resetting, "");
    assert_eq!(gateway.get("/orders").status, 200);
    wait_for_outcome(&gateway, "failed", 1);

    let silent = Origin::start(|_| Reply::never());
    let gateway = to_url(&origin, &silent, ", timeout: 100");
    assert_eq!(gateway.get("/orders").status, 200);
    wait_for_outcome(&gateway, "timeout", 1);

    let dead = format!("{{ url: 'http://127.0.0.1:{}' }}", free_port());
    let gateway = Gateway::start(&site(&origin, &dead, ""));
    assert_eq!(gateway.get("/orders").status, 200);
    wait_for_outcome(&gateway, "failed", 1);
}

#[test]
fn copies_share_connections_and_a_closed_one_loses_no_copy() {
    let origin = Origin::replying("one");
    let mut mirror = Origin::replying("two");
    let gateway = to_url(&origin, &mirror, "");
    for count in 1..=3 {
        gateway.get("/orders");
        wait_for_outcome(&gateway, "answered", count);
    }
    // A copy may come in the moment before the connection of the last one is back in its pool.
    assert!(mirror.connections() < 3, "{}", mirror.connections());
    mirror.stop();
    mirror.restart();
    gateway.get("/orders");
    wait_for_outcome(&gateway, "answered", 4);
}

#[test]
fn two_gateways_that_mirror_to_each_other_do_no_harm() {
    let origin = Origin::replying("one");
    let second = Gateway::start(&site(&origin, &format!("{{ url: '{origin}' }}"), ""));
    let config = format!("{{ url: 'http://127.0.0.1:{}/orders' }}", second.port());
    let first = Gateway::start(&site(&origin, &config, ""));

    assert_eq!(first.get("/orders").status, 200);

    wait_for_outcome(&first, "answered", 1);
    // The request, and its copy by way of the second gateway, which makes no other.
    assert_eq!(origin.count(), 2);
    let copies = second.metric("tollgate_mirror_requests_total");
    assert!(copies < 0.5, "a copy was copied");
}

#[test]
fn what_a_plugin_answers_and_what_is_a_websocket_is_not_copied() {
    let mirror = Origin::replying("two");
    let origin = Origin::start(|_| Reply::websocket());
    let gateway = to_url(&origin, &mirror, "");
    let (mut socket, _) = gateway.websocket("/orders", &[]).expect("an open socket");
    socket
        .send(Message::text("hello"))
        .expect("a message goes out");
    socket.read().expect("a message comes back");
    drop(socket);

    let answering = Gateway::start(&format!(
        "{}plugins:\n- {{ name: request-termination, config: {{ status_code: 204 }} }}\n",
        site(&origin, &format!("{{ url: '{mirror}' }}"), "")
    ));
    assert_eq!(answering.get("/orders").status, 204);
    wait_for_outcome(&answering, "not_sent", 1);
    origin.wait_for_open_connections(0);
    assert_eq!(mirror.count(), 0);
}

#[test]
fn a_mirror_over_https_must_prove_who_it_is() {
    let origin = Origin::replying("one");
    let authority = Issued::authority("Root");
    let mirror = TlsOrigin::start(&authority.issue_for(&["mirror.test", "127.0.0.1"]));
    let config = format!("{{ url: 'https://{}/shadow' }}", mirror.authority());
    let yaml = site(&origin, &config, "");

    let distrusting = Gateway::start(&yaml);
    assert_eq!(distrusting.get("/orders").status, 200);
    wait_for_outcome(&distrusting, "failed", 1);
    assert!(mirror.shown().iter().all(|shown| shown.requests.is_empty()));
    distrusting.wait_for_log("the certificate of an upstream was not accepted");

    let blueprint = Blueprint::new("trusted_certificates: authority.pem");
    authority.write(blueprint.folder(), "authority");
    let trusting = blueprint.start(&yaml);
    assert_eq!(trusting.get("/orders/7").status, 200);
    wait_for_outcome(&trusting, "answered", 1);
    let shown = mirror.shown();
    let requests: Vec<&String> = shown.iter().flat_map(|shown| &shown.requests).collect();
    assert_eq!(requests, ["GET /shadow/7 HTTP/1.1"]);
}

#[test]
fn explain_says_where_copies_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let origin = Origin::replying("one");
    let yaml = site(&origin, "{ url: 'http://mirror.test', sample: 0.1 }", "");
    let yaml = format!("_format_version: '3.0'\ngateway: {{ admin: 'off' }}\n{yaml}");
    std::fs::write(folder.path().join("gateway.yaml"), yaml).expect("a file");
    let arguments = ["explain", "-c", "gateway.yaml", "GET", "/orders"];
    let outcome = tollgate(folder.path(), &arguments);
    let sentence = "sends a copy of 0.1 of the requests to http://mirror.test";
    assert!(outcome.stdout.contains(sentence), "{}", outcome.stdout);
}
