//! gRPC through the gateway: calls, streams, trailers, errors and deadlines.

use crate::harness::http2::{Call, Http2Client, Http2Response};
use crate::harness::{
    Blueprint, Gateway, GrpcOrigin, Issued, Request, TlsOrigin, dedent, free_port, wait_until,
};

fn document(port: u16, rest: &str) -> String {
    dedent(&format!(
        "
        services:
        - name: echo
          url: grpc://127.0.0.1:{port}
          {rest}
          routes:
          - name: echo
            protocols: [grpc]
            hosts: [gateway.test]
            paths: [/echo.Echo]
        "
    ))
}

fn gateway(origin: &GrpcOrigin) -> Gateway {
    Gateway::start_with_http2("", &document(origin.port(), "retries: 5"))
}

/// A call that is open for messages.
fn begin<'c>(client: &'c Http2Client, method: &str) -> Call<'c> {
    let request = client
        .request("POST", &format!("/echo.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S");
    client.begin(request, false)
}

/// A call with one message.
fn call(client: &Http2Client, method: &str) -> Http2Response {
    let mut call = begin(client, method);
    call.send(b"message", true);
    call.finish()
}

#[test]
fn a_call_ends_with_the_trailers_of_its_origin() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());

    let response = call(&client, "Unary");

    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "message")
    );
    assert_eq!(response.header("content-type"), Some("application/grpc"));
    assert_eq!(response.trailer("grpc-status"), Some("0"));
    let seen = origin.last_ended();
    assert_eq!(
        (seen.path.as_str(), seen.ended),
        ("/echo.Echo/Unary", Some(true))
    );
    assert_eq!(seen.authority, format!("127.0.0.1:{}", origin.port()));
    let header = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("te"), Some("trailers"));
    assert_eq!(header("grpc-timeout"), Some("5S"));
    assert_eq!(header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn a_chunked_request_of_http_1_goes_to_a_service_for_grpc() {
    let origin = GrpcOrigin::start();
    let document = document(origin.port(), "").replace("[grpc]", "[http]");
    let gateway = Gateway::start_with_http2("", &document);
    let request = Request::post("/echo.Echo/Unary", "")
        .host("gateway.test")
        .header("content-type", "application/grpc")
        .chunked("message", 3);

    let response = gateway.send(&request);

    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "message")
    );
    let seen = origin.last_ended();
    for name in ["transfer-encoding", "connection", "upgrade"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[test]
fn messages_flow_in_both_directions_at_once() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let mut call = begin(&client, "Bidi");

    assert_eq!(call.head().0, 200);
    for number in 0..20 {
        let message = format!("message {number}");
        call.send(message.as_bytes(), false);
        assert_eq!(call.data().as_deref(), Some(message.as_bytes()));
    }
    call.send(b"", true);
    assert_eq!(call.data(), None);
    let trailers = call.try_trailers().expect("an end").expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn an_origin_may_end_a_call_before_its_client_does() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let mut call = begin(&client, "Early");
    call.send(b"first", false);

    assert_eq!(call.head().0, 200);
    assert_eq!(call.data(), None);
    let trailers = call.try_trailers().expect("an end").expect("trailers");
    assert_eq!(trailers["grpc-status"], "8");
    gateway.wait_for_access_log("\"status_code\":200");
    assert!(
        gateway.access_log().contains("\"error\":\"\""),
        "{}",
        gateway.access_log()
    );
}

#[test]
fn a_failure_in_the_head_passes() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let response = call(&client, "Fail");
    assert_eq!(response.header("grpc-status"), Some("5"));
    assert_eq!(response.body, b"");
}

#[test]
fn calls_share_one_connection() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    for _ in 0..10 {
        assert_eq!(call(&client, "Unary").trailer("grpc-status"), Some("0"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_call_that_was_not_looked_at_goes_again() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let response = call(&client, "Refuse");
    assert_eq!(response.trailer("grpc-status"), Some("0"));
    assert_eq!(origin.calls().len(), 2);
}

#[test]
fn a_call_that_is_cut_is_cut_for_its_client() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let mut cut = begin(&client, "Cut");
    cut.send(b"message", true);
    assert!(cut.try_finish().is_err());
    assert_eq!(call(&client, "Unary").trailer("grpc-status"), Some("0"));
}

#[test]
fn a_client_that_gives_up_cancels_its_call() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let mut silent = begin(&client, "Silent");
    silent.send(b"message", true);
    wait_until("the call to arrive", || origin.calls().len() == 1);
    silent.reset();
    wait_until("the call to be cancelled", || {
        origin
            .calls()
            .last()
            .is_some_and(|call| call.ended == Some(false))
    });
    gateway.wait_for_access_log("\"status_code\":499");
}

/// What the gateway answers by itself ends in the head, as clients of gRPC need it.
#[track_caller]
fn assert_failed(response: &Http2Response, status: &str) {
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/grpc"));
    assert_eq!(response.header("grpc-status"), Some(status));
    assert!(response.header("grpc-message").is_some());
    assert_eq!((response.body.len(), &response.trailers), (0, &None));
}

#[test]
fn an_origin_that_is_silent_or_gone_is_a_status_of_grpc() {
    let origin = GrpcOrigin::start();
    let slow = Gateway::start_with_http2("", &document(origin.port(), "read_timeout: 300"));
    let client = Http2Client::connect(slow.port());
    let mut silent = begin(&client, "Silent");
    silent.send(b"message", true);
    assert_failed(&silent.finish(), "4");

    let gone = Gateway::start_with_http2("", &document(free_port(), "retries: 0"));
    let client = Http2Client::connect(gone.port());
    assert_failed(&call(&client, "Unary"), "14");
}

#[test]
fn a_route_that_is_missing_is_a_status_of_grpc() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let request = client
        .request("POST", "/other.Service/Method")
        .header("content-type", "application/grpc");
    let response = client.begin(request, true).finish();
    assert_failed(&response, "12");
}

#[test]
fn large_messages_pass_in_both_directions() {
    let origin = GrpcOrigin::start();
    let gateway = gateway(&origin);
    let client = Http2Client::connect(gateway.port());
    let message: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut call = begin(&client, "Unary");
    call.send(&message, true);
    let response = call.finish();
    assert!(response.body == message, "{} bytes", response.body.len());
    assert_eq!(response.trailer("grpc-status"), Some("0"));
}

#[test]
fn a_plugin_for_grpc_alone_runs_for_calls() {
    let origin = GrpcOrigin::start();
    let plugins = "
        plugins:
        - name: request-termination
          protocols: [grpc]
          config: {status_code: 403, message: no calls}
        ";
    let document = document(origin.port(), "retries: 0") + "\n" + &dedent(plugins);
    let gateway = Gateway::start_with_http2("", &document);
    let client = Http2Client::connect(gateway.port());

    let response = call(&client, "Unary");

    assert_eq!(response.header("grpc-message"), Some("no calls"));
}

/// A gateway for calls over TLS to this port, which believes `authority`.
fn over_tls(authority: &Issued, port: u16) -> Gateway {
    let settings = "trusted_certificates: authority.pem\ntls_verify: on";
    let blueprint = Blueprint::new(settings).with_http2();
    authority.write(blueprint.folder(), "authority");
    let document = document(port, "retries: 0").replace("url: grpc:", "url: grpcs:");
    blueprint.start(&document)
}

#[test]
fn calls_go_over_tls_to_a_server_with_a_good_certificate() {
    let authority = Issued::authority("Root");
    let origin = GrpcOrigin::start_with_tls(&authority.issue_for(&["echo.test", "127.0.0.1"]));
    let gateway = over_tls(&authority, origin.port());
    let client = Http2Client::connect(gateway.port());

    for _ in 0..3 {
        let response = call(&client, "Unary");
        assert_eq!(response.text(), "message");
        assert_eq!(response.trailer("grpc-status"), Some("0"));
    }

    assert_eq!(origin.connections(), 1, "calls share one connection");
}

#[test]
fn a_server_with_a_bad_certificate_or_without_http2_gets_no_call() {
    let authority = Issued::authority("Root");
    let origin = GrpcOrigin::start_with_tls(&authority.issue_for(&["echo.test", "127.0.0.2"]));
    let gateway = over_tls(&authority, origin.port());
    let client = Http2Client::connect(gateway.port());
    assert_failed(&call(&client, "Unary"), "14");
    assert!(origin.calls().is_empty());

    let old = TlsOrigin::start(&authority.issue_for(&["echo.test", "127.0.0.1"]));
    let gateway = over_tls(&authority, old.port());
    let client = Http2Client::connect(gateway.port());
    assert_failed(&call(&client, "Unary"), "14");
    assert_eq!(old.requests(), 0);
}
