//! HTTP inside TLS is the HTTP of any other connection, and what is no TLS is turned away.

use std::time::Duration;

use super::{connect, document, failures};
use crate::harness::{
    Blueprint, Client, Gateway, Issued, Origin, Reply, Request, Stopwatch, Tls, one_service,
    one_service_and, wait_until,
};

const SOON: Duration = Duration::from_secs(6);

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start_with_tls(&one_service(origin))
}

/// S63
#[test]
fn the_upstream_hears_that_the_client_came_by_https() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));

    let response = client.send(&Request::get("/orders?id=1").host("a.test"));

    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    let received = origin.last();
    assert_eq!(received.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(
        received.header("X-Forwarded-Port"),
        Some(gateway.tls_port().to_string().as_str())
    );
    assert_eq!(received.header("X-Forwarded-Host"), Some("a.test"));
    assert_eq!(received.target, "/orders?id=1");
    assert_eq!(
        gateway.metric("tollgate_tls_handshakes_total{kind=\"full\"}"),
        1.0
    );
}

#[test]
fn a_connection_carries_many_requests_also_pipelined_ones() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));

    for _ in 0..3 {
        assert_eq!(client.send(&Request::get("/")).status, 200);
    }
    let two = [
        Request::post("/1", "x".repeat(100)).bytes(),
        Request::get("/2").bytes(),
    ]
    .concat();
    client.write(two).expect("written");
    for _ in 0..2 {
        assert_eq!(client.read_response().expect("an answer").status, 200);
    }
    let targets: Vec<String> = origin
        .requests()
        .into_iter()
        .skip(3)
        .map(|request| request.target)
        .collect();
    assert_eq!(targets, ["/1", "/2"]);
}

#[test]
fn large_bodies_pass_in_both_directions_and_their_bytes_are_counted() {
    let origin = Origin::start(|request| Reply::ok(request.body.clone()));
    let gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|number| u8::try_from(number % 251).expect("small"))
        .collect();

    for request in [
        Request::post("/", body.clone()),
        Request::new("POST", "/").chunked(body.clone(), 70_000),
    ] {
        let response = client.send(&request);
        assert_eq!(response.status, 200);
        assert!(response.body == body, "the body came back changed");
    }
    gateway.wait_for_access_log("\"tls_version\":\"TLSv1.3\"");
    let log = gateway.access_log();
    let line: serde_json::Value =
        serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    let expected = Request::post("/", body).bytes().len();
    assert_eq!(line["bytes_received"], expected, "without what TLS adds");
    assert_eq!(line["tls_server_name"], "a.test");
    assert!(line.get("client_cert_subject").is_none());
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused_inside_tls_too() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));

    client
        .write("GET / HTTP/1.1\nHost: a.test\n\n")
        .expect("written");

    assert_eq!(client.read_response().expect("an answer").status, 400);
    assert!(client.closed_within(SOON).is_some());
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_trickling_head_inside_tls_is_a_408() {
    let origin = Origin::replying("hello");
    let gateway = Blueprint::new("client_header_timeout: 0.5")
        .with_tls()
        .start(&one_service(&origin));
    let mut client = connect(&gateway, &Tls::to("a.test"));

    client.write("GET / HTTP/1.1\r\nHo").expect("written");

    assert_eq!(client.read_response().expect("an answer").status, 408);
}

/// S63
#[test]
fn a_route_for_https_only_is_served_over_tls() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_tls(&format!(
        "services:\n- name: orders\n  url: {origin}\n  routes:\n  - {{name: orders, paths: [/], protocols: [https]}}\n"
    ));

    assert_eq!(gateway.get("/").status, 426);
    let mut client = connect(&gateway, &Tls::to("a.test"));
    assert_eq!(client.send(&Request::get("/")).status, 200);
}

/// S63
#[test]
fn a_websocket_works_over_tls() {
    let origin = Origin::start(|_| Reply::websocket());
    let gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));

    client
        .write(
            "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("written");
    let head = client.read_head().expect("an answer");
    assert!(head.start_line.contains("101"), "{}", head.start_line);
    for word in ["hello", "again"] {
        // A masked text of five bytes whose mask is zero.
        let frame = [&[0x81, 0x85, 0, 0, 0, 0], word.as_bytes()].concat();
        client.write(frame).expect("written");
        let echo = client.read_until(word.as_bytes());
        assert_eq!(echo, [&[0x81, 5], word.as_bytes()].concat());
    }
}

#[test]
fn a_client_that_says_it_is_done_still_gets_its_answer() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));

    client
        .write("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .expect("written");
    let response = client.read_response().expect("an answer");

    assert_eq!((response.status, response.complete), (200, true));
    assert_eq!(client.closed_within(SOON), Some(Vec::new()));
    assert!(
        client.heard_goodbye(),
        "the end is announced, so that nothing can be cut off unnoticed"
    );
}

#[test]
fn an_idle_connection_is_closed_with_a_word_of_tls() {
    let origin = Origin::replying("hello");
    let gateway = Blueprint::new("keepalive_timeout: 0.3")
        .with_tls()
        .start(&one_service(&origin));
    let mut client = connect(&gateway, &Tls::to("a.test"));
    assert_eq!(client.send(&Request::get("/")).status, 200);

    assert_eq!(client.closed_within(SOON), Some(Vec::new()));
    assert!(client.heard_goodbye());
}

#[test]
fn http1_is_agreed_on_where_the_client_asks() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let agreed = |offer: &'static [u8]| {
        let client = connect(&gateway, &Tls::to("a.test").offering(offer));
        client.ssl().selected_alpn_protocol().map(<[u8]>::to_vec)
    };

    assert_eq!(agreed(b"\x02h2\x08http/1.1"), Some(b"http/1.1".to_vec()));
    assert!(
        gateway
            .secure(&Tls::to("a.test").offering(b"\x03foo"))
            .is_err()
    );
    wait_until("the failure is counted", || {
        failures(&gateway, "nothing_in_common") == 1.0
    });
}

/// S63
#[test]
fn http_without_tls_is_told_so_on_a_tls_port() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut client = Client::connect(gateway.tls_port());

    let response = client.send(&Request::get("/").header("Accept", "application/json"));

    assert_eq!(response.status, 400);
    assert!(
        response
            .text()
            .contains("The plain HTTP request was sent to HTTPS port"),
        "{}",
        response.text()
    );
    assert!(client.closed_within(SOON).is_some());
    assert_eq!(origin.count(), 0);
    assert_eq!(failures(&gateway, "cleartext"), 1.0);
    assert_eq!(
        gateway.metric("tollgate_replies_total{reason=\"https_required\"}"),
        1.0
    );
}

#[test]
fn garbage_on_a_tls_port_is_closed_counted_and_told_once() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);

    for _ in 0..5 {
        let mut client = Client::connect(gateway.tls_port());
        let _ = client.write(b"\x00\x01\x02garbage");
        assert!(client.closed_within(SOON).is_some());
    }
    wait_until("five failures", || failures(&gateway, "not_tls") == 5.0);
    // A ClientHello that OpenSSL has to judge.
    let mut client = Client::connect(gateway.tls_port());
    let _ = client.write(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00");
    assert!(client.closed_within(SOON).is_some());
    wait_until("one more", || failures(&gateway, "protocol") == 1.0);

    gateway.wait_for_log("reason=protocol");
    let told = gateway.log().matches("reason=not_tls").count();
    assert_eq!(told, 1, "{}", gateway.log());
    assert_eq!(
        connect(&gateway, &Tls::to("a.test"))
            .send(&Request::get("/"))
            .status,
        200
    );
}

/// S66
#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let origin = Origin::replying("hello");
    let gateway = Blueprint::new("client_header_timeout: 0.5")
        .with_tls()
        .start(&one_service(&origin));
    let watch = Stopwatch::start();
    let mut silent = Client::connect(gateway.tls_port());
    let mut begun = Client::connect(gateway.tls_port());
    begun.write(b"\x16\x03\x01\x02\x00").expect("written");
    let mut trickling = Client::connect(gateway.tls_port());
    while !trickling.hears_within(Duration::from_millis(50)) {
        assert!(watch.elapsed() < SOON, "a trickle goes on for ever");
        let _ = trickling.write(b"\x16");
    }

    assert!(silent.closed_within(SOON).is_some());
    assert!(begun.closed_within(SOON).is_some());
    assert!(watch.elapsed() >= Duration::from_millis(450));
    wait_until("two timeouts at least", || {
        failures(&gateway, "timeout") >= 2.0
    });
}

#[test]
fn the_process_ends_at_once_though_handshakes_hang() {
    let origin = Origin::replying("hello");
    let mut gateway = gateway(&origin);
    let mut idle = connect(&gateway, &Tls::to("a.test"));
    assert_eq!(idle.send(&Request::get("/")).status, 200);
    let mut hanging = Client::connect(gateway.tls_port());
    hanging.write(b"\x16\x03\x01").expect("written");

    gateway.sigterm();

    let status = gateway.wait_exit(SOON);
    assert!(status.success(), "{status:?}");
    assert!(idle.closed_within(SOON).is_some());
}

#[test]
fn a_request_in_flight_over_tls_is_finished_before_the_end() {
    let gate = crate::harness::Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("late").after(&held));
    let mut gateway = gateway(&origin);
    let mut client = connect(&gateway, &Tls::to("a.test"));
    client
        .write("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("written");
    wait_until("the request at the origin", || origin.count() == 1);

    gateway.sigterm();
    gateway.wait_for_log("stopping");
    gate.open();

    let response = client.read_response().expect("an answer");
    assert_eq!((response.status, response.text().as_str()), (200, "late"));
    assert!(response.announces_close());
    assert!(gateway.wait_exit(SOON).success());
}

#[test]
fn versions_and_ciphers_are_those_of_the_settings() {
    use openssl::ssl::SslVersion;
    let origin = Origin::replying("hello");
    let start = |settings| {
        Blueprint::new(settings)
            .with_tls()
            .start(&one_service(&origin))
    };
    let with = |version| Tls::to("a.test").only(version);
    let (old, new) = (with(SslVersion::TLS1_2), with(SslVersion::TLS1_3));

    let usual = start("");
    assert_eq!(connect(&usual, &old).ssl().version_str(), "TLSv1.2");
    assert_eq!(connect(&usual, &new).ssl().version_str(), "TLSv1.3");
    assert!(usual.secure(&with(SslVersion::TLS1_1)).is_err());

    let modern = start("ssl_cipher_suite: modern");
    assert!(modern.secure(&old).is_err());
    assert!(modern.secure(&new).is_ok());

    let only_old = start("ssl_protocols: TLSv1.2");
    assert!(only_old.secure(&old).is_ok());
    assert!(only_old.secure(&new).is_err());

    let custom = start("ssl_cipher_suite: custom\nssl_ciphers: ECDHE-ECDSA-AES256-GCM-SHA384");
    let cipher = connect(&custom, &old)
        .ssl()
        .current_cipher()
        .expect("one")
        .name();
    assert_eq!(cipher, "ECDHE-ECDSA-AES256-GCM-SHA384");
    assert!(
        custom
            .secure(&old.with_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256"))
            .is_err()
    );
}

#[test]
fn the_limit_of_connections_counts_handshakes() {
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue("a.test");
    let gateway = Blueprint::new("client_max_connections: 1")
        .with_tls()
        .start(&document(&origin, &[(&issued, "a.test")]));
    let hanging = Client::connect(gateway.tls_port());
    wait_until("the first connection", || {
        gateway.metric("tollgate_connections{state=\"active\"}") == 1.0
    });
    let mut second = Client::connect(gateway.tls_port());
    second
        .write(Request::get("/").bytes())
        .expect("written into the backlog");
    assert!(!second.hears_within(Duration::from_millis(200)));

    drop(hanging);

    let response = second.read_response().expect("an answer");
    assert_eq!(response.status, 400, "it is its turn, though without TLS");
}

#[test]
fn a_plugin_runs_inside_tls_as_outside() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_tls(&one_service_and(
        &origin,
        "
        plugins:
        - {name: key-auth, protocols: [https]}
        ",
    ));

    assert_eq!(gateway.get("/").status, 200);
    let mut client = connect(&gateway, &Tls::to("a.test"));
    assert_eq!(client.send(&Request::get("/")).status, 401);
}
