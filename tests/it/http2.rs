//! HTTP/2 from clients: the same requests, answers, logs and numbers as over HTTP/1.1, on streams.

mod abuse;
mod conformance;
mod ending;
mod malformed;
mod slow;

use std::time::Duration;

use crate::harness::http2::{
    CANCEL, END_HEADERS, HEADERS, Http2Client, INTERNAL_ERROR, NO_ERROR, Outcome, PREFACE, Raw,
    SETTINGS, block,
};
use crate::harness::{
    Blueprint, Gate, Gateway, Origin, Reply, Request, Tls, check, one_service, one_service_and,
    wait_until,
};

const SOON: Duration = Duration::from_secs(6);

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start_with_http2("", &one_service(origin))
}

#[test]
fn a_request_arrives_at_an_http1_origin_like_any_other() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());

    let request = client
        .request("GET", "/a/b?c=d")
        .header("x-mine", "1")
        .header("te", "trailers")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let response = client.begin(request, true).finish();

    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    let received = origin.last();
    assert_eq!(
        (received.method.as_str(), received.target.as_str()),
        ("GET", "/a/b?c=d")
    );
    assert_eq!(received.headers("host").len(), 1);
    assert_eq!(received.header("x-forwarded-host"), Some("gateway.test"));
    assert_eq!(received.header("x-mine"), Some("1"));
    assert_eq!(received.headers("cookie"), ["a=1; b=2"]);
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
}

#[test]
fn a_response_has_the_gateways_headers_and_none_of_a_connection() {
    let origin = Origin::start(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Gone\r\nKeep-Alive: timeout=5\r\nX-Gone: 1\r\nContent-Length: 2\r\n\r\nhi",
        )
    });
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());

    let response = client.get("/");

    for name in [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "x-gone",
        "upgrade",
    ] {
        assert_eq!(response.header(name), None, "{name}");
    }
    for name in ["x-kong-request-id", "x-kong-proxy-latency", "via", "date"] {
        assert!(response.header(name).is_some(), "{name}");
    }
    assert_eq!(response.header("content-length"), Some("2"));
}

#[test]
fn http1_goes_on_beside_http2_on_the_same_port() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);

    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(
        Http2Client::connect(gateway.port()).get("/").text(),
        "hello"
    );
    // It begins like the preface.
    assert_eq!(gateway.send(&Request::new("PRINT", "/")).status, 200);
}

#[test]
fn the_preface_may_come_byte_by_byte() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut raw = Raw::connect_silently(gateway.port());
    for byte in PREFACE {
        assert!(raw.write(&[*byte]));
    }
    raw.send(SETTINGS, 0, 0, &[]);
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
}

#[test]
fn a_listener_without_the_flag_takes_no_http2() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();
    client
        .write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .expect("written");
    assert_eq!(client.read_response().expect("an answer").status, 400);
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let reply = Reply::ok(request.target.as_str());
        if request.target == "/slow" {
            reply.after(&held)
        } else {
            reply
        }
    });
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());

    let slow = client.begin(client.request("GET", "/slow"), true);
    for number in 0..20 {
        let path = format!("/{number}");
        assert_eq!(client.get(&path).text(), path);
    }
    gate.open();
    assert_eq!(slow.finish().text(), "/slow");
}

#[test]
fn bodies_are_passed_in_both_directions_whole() {
    let origin = Origin::start(|request| Reply::ok(request.text()).chunked(7000));
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|n| b'a' + u8::try_from(n % 23).expect("small"))
        .collect();

    let response = client.post("/", &body);

    assert_eq!(response.status, 200);
    assert!(
        response.body == body,
        "{} bytes came back",
        response.body.len()
    );
    let received = origin.last();
    assert!(received.chunked && received.complete);
}

#[test]
fn a_body_with_a_length_arrives_with_that_length() {
    let origin = Origin::replying("ok");
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let request = client.request("POST", "/").header("content-length", "5");
    let mut call = client.begin(request, false);
    call.send(b"hello", true);
    assert_eq!(call.finish().status, 200);
    let received = origin.last();
    assert_eq!(
        (received.header("content-length"), received.text().as_str()),
        (Some("5"), "hello")
    );
}

#[test]
fn a_head_request_and_an_empty_answer_have_no_body() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/none" => Reply::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        _ => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    });
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());

    let head = client.begin(client.request("HEAD", "/"), true).finish();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5"))
    );
    assert_eq!(head.body, b"");
    let none = client.get("/none");
    assert_eq!((none.status, none.body.len()), (204, 0));
}

#[test]
fn an_answer_of_the_gateway_has_its_usual_form_log_and_count() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_http2(
        "access_log: stdout plain",
        "
        services:
        - name: orders
          url: http://127.0.0.1:1
          retries: 0
          routes:
          - name: orders
            paths: [/orders]
        ",
    );
    drop(origin);
    let client = Http2Client::connect(gateway.port());

    let missing = client.get("/other");
    assert_eq!(missing.status, 404);
    assert!(
        missing
            .text()
            .contains("no Route matched with those values"),
        "{}",
        missing.text()
    );
    assert_eq!(
        missing.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert!(missing.header("x-kong-request-id").is_some());
    assert_eq!(client.get("/orders").status, 502);
    let head = client
        .begin(client.request("HEAD", "/orders"), true)
        .finish();
    assert_eq!(head.status, 502);

    let line = "\"GET /other HTTP/2.0\" 404";
    gateway.wait_for_access_log(line);
}

#[test]
fn plugins_run_on_streams_and_may_read_the_body() {
    let origin = Origin::start(|request| Reply::ok(request.text()));
    let yaml = one_service_and(
        &origin,
        "
        plugins:
        - name: key-auth
          config:
            key_in_body: true
        consumers:
        - username: bob
          keyauth_credentials:
          - key: bob-key
        ",
    );
    let gateway = Gateway::start_with_http2("", &yaml);
    let client = Http2Client::connect(gateway.port());
    assert_eq!(client.get("/").status, 401);

    let padding = "x".repeat(300_000);
    let body = format!("{{\"apikey\":\"bob-key\",\"padding\":\"{padding}\"}}");
    let request = client
        .request("POST", "/")
        .header("content-type", "application/json");
    let mut call = client.begin(request, false);
    call.send(body.as_bytes(), true);
    let response = call.finish();

    assert_eq!(response.status, 200);
    assert!(
        response.text() == body,
        "{} bytes came back",
        response.body.len()
    );
    assert_eq!(origin.last().header("x-consumer-username"), Some("bob"));
}

#[test]
fn a_client_that_takes_a_request_back_cancels_it_upstream() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let mut call = client.begin(client.request("GET", "/"), true);
    wait_until("the request to arrive", || origin.count() == 1);

    call.reset();

    origin.wait_for_open_connections(0);
    gateway.wait_for_access_log("\"status_code\":499");
    // The connection goes on.
    drop(call);
    assert_eq!(
        client
            .begin(client.request("TRACE", "/"), true)
            .finish()
            .status,
        405
    );
}

#[test]
fn a_response_that_breaks_off_resets_the_stream_and_nothing_else() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/cut" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").then_close(),
        _ => Reply::ok("whole"),
    });
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());

    let cut = client
        .begin(client.request("GET", "/cut"), true)
        .try_finish();

    let reason = cut.expect_err("a cut response").reason();
    assert_eq!(reason.map(u32::from), Some(INTERNAL_ERROR));
    assert_eq!(client.get("/").text(), "whole");
}

#[test]
fn a_client_that_waits_for_permission_gets_it() {
    let origin = Origin::start(|request| Reply::ok(request.text()));
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let request = client.request("POST", "/").header("expect", "100-continue");
    let mut call = client.begin(request, false);
    call.send(b"hello", true);
    assert_eq!(call.finish().text(), "hello");
    assert_eq!(origin.last().header("expect"), None);
}

#[test]
fn a_draining_gateway_says_so_and_lets_streams_finish() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("late").after(&held));
    let mut gateway = gateway(&origin);
    let mut busy = Raw::connect(gateway.port());
    let mut idle = Raw::connect(gateway.port());
    busy.get(1, "/");
    wait_until("the request to arrive", || origin.count() == 1);

    gateway.sigterm();

    assert_eq!(
        idle.until("its end", |frame| frame.goaway().is_some())
            .goaway()
            .map(|(_, code)| code),
        Some(NO_ERROR)
    );
    busy.until("its end", |frame| frame.goaway().is_some());
    gate.open();
    assert_eq!(busy.outcome(1), Outcome::Answered(200));
    busy.close();
    idle.close();
    assert!(gateway.wait_exit(SOON).success());
}

#[test]
fn a_connection_ends_after_the_requests_that_it_may_carry() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_http2("keepalive_requests: 2", &one_service(&origin));
    let mut raw = Raw::connect(gateway.port());
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    raw.get(3, "/");
    let goaway = raw.until("the end", |frame| frame.goaway().is_some());
    assert_eq!(goaway.goaway().map(|(_, code)| code), Some(NO_ERROR));
    assert_eq!(raw.outcome(3), Outcome::Answered(200));
}

#[test]
fn the_gateway_counts_http2_connections_and_requests_like_others() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let before = gateway.metric("tollgate_requests_total");
    for _ in 0..3 {
        client.get("/");
    }
    let after = gateway.metric("tollgate_requests_total");
    assert!((after - before - 3.0).abs() < 0.1, "{before} {after}");
}

#[test]
fn a_reload_cuts_no_stream() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let reply = Reply::ok("old");
        if request.target == "/held" {
            reply.after(&held)
        } else {
            reply
        }
    });
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let call = client.begin(client.request("GET", "/held"), true);
    wait_until("the request to arrive", || origin.count() == 1);

    let next = Origin::replying("new");
    gateway.reload(&one_service(&next));

    assert_eq!(client.get("/").text(), "new");
    gate.open();
    assert_eq!(call.finish().text(), "old");
}

#[test]
fn an_early_answer_ends_the_stream_and_the_upload() {
    let origin = Origin::replying("unused");
    let gateway = Gateway::start_with_http2("client_max_body_size: 1k", &one_service(&origin));
    let mut raw = Raw::connect(gateway.port());
    let head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("content-length", "100000"),
    ]);
    raw.send(HEADERS, END_HEADERS, 1, &head);
    let answer = raw.outcome(1);
    assert_eq!(answer, Outcome::Answered(0), "413 has no number in HPACK");
    let reset = raw.until("a word about the rest", |frame| {
        frame.reset_code().is_some()
    });
    assert!(
        [Some(NO_ERROR), Some(CANCEL)].contains(&reset.reset_code()),
        "{reset:?}"
    );
    assert_eq!(origin.count(), 0);
}

#[test]
fn inside_tls_alpn_settles_it() {
    let origin = Origin::replying("hello");
    let blueprint = Blueprint::new("").with_tls().with_http2();
    let gateway = blueprint.start(&one_service(&origin));

    let mut raw = Raw::connect_securely(gateway.tls_port());
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));

    let tls = Tls::to("a.test").offering(b"\x08http/1.1");
    let mut client = gateway.secure(&tls).expect("a handshake");
    assert_eq!(client.send(&Request::get("/")).text(), "hello");
}

#[test]
fn the_admin_listener_takes_no_http2() {
    let outcome = check(
        "
        _format_version: \"3.0\"
        gateway:
          admin: 127.0.0.1:8001 http2
        ",
    );
    assert_ne!(outcome.code, Some(0));
    assert!(
        outcome
            .stderr
            .contains("the admin listener speaks HTTP/1.1 only"),
        "{}",
        outcome.stderr
    );
}
