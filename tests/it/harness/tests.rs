//! The harness tested against itself: a client and an origin without a gateway between them.

use std::io::Write;
use std::time::Duration;

use super::websocket::open;
use super::{Client, Gate, Origin, Reply, Request, text, wait_until};

#[test]
fn a_body_arrives_as_it_was_sent_in_either_framing() {
    let origin = Origin::start(|request| Reply::ok(request.body.clone()).chunked(1000));
    let mut client = Client::connect(origin.port());
    let body = vec![b'x'; 70_000];

    let sized = client.send(&Request::post("/", body.clone()));
    let chunked = client.send(&Request::new("PUT", "/").chunked(body.clone(), 999));

    assert!(sized.complete && sized.chunked && sized.body == body);
    assert!(chunked.complete && chunked.body == body);
    assert_eq!(
        origin
            .requests()
            .iter()
            .map(|request| request.chunked)
            .collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(origin.connections(), 1);
}

#[test]
fn requests_are_recorded_with_their_bytes_and_connection() {
    let origin = Origin::replying("hello");

    let first = Client::connect(origin.port()).send(&Request::get("/a?b").header("X-One", "1"));
    let head = Client::connect(origin.port()).send(&Request::new("HEAD", "/"));

    assert_eq!((first.status, first.text().as_str()), (200, "hello"));
    assert_eq!(
        (head.header("content-length"), head.body.len()),
        (Some("5"), 0)
    );
    let received = origin.requests();
    assert_eq!(
        received[0].head.raw,
        b"GET /a?b HTTP/1.1\r\nHost: gateway.test\r\nX-One: 1\r\n\r\n"
    );
    assert_eq!((received[0].connection, received[1].connection), (0, 1));
}

#[test]
fn a_stream_is_seen_piece_by_piece() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let gate = held.clone();
        Reply::stream(move |stream| {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")?;
            gate.wait();
            stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n")
        })
    });
    let mut client = Client::connect(origin.port());

    client
        .write(Request::get("/").bytes())
        .expect("a written request");
    client.read_until(b"3\r\none\r\n");
    assert!(!client.hears_within(Duration::from_millis(50)));
    gate.open();
    client.read_until(b"0\r\n\r\n");
}

#[test]
fn an_incomplete_request_is_recorded_as_such() {
    let origin = Origin::replying("never sent");
    let mut client = Client::connect(origin.port());

    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        .expect("a written request");
    origin.wait_until("the first bytes", |requests| {
        requests
            .first()
            .is_some_and(|request| request.body == b"ab")
    });
    drop(client);

    origin.wait_for_open_connections(0);
    assert!(!origin.last().complete);
}

#[test]
fn malformed_requests_are_noticed() {
    let origin = Origin::replying("never sent");
    let mut client = Client::connect(origin.port());

    client
        .write("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("written");

    wait_until("the complaint", || origin.malformed().len() == 1);
    assert_eq!(origin.count(), 0);
}

#[test]
fn connections_end_in_every_scripted_way() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/close" => Reply::close(),
        "/reset" => Reply::reset(),
        "/short" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").then_close(),
        _ => Reply::never(),
    });
    let visit = |path: &str| Client::connect(origin.port()).try_send(&Request::get(path));

    assert_eq!(
        visit("/close").expect_err("no answer").kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    assert_eq!(
        visit("/reset").expect_err("no answer").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(!visit("/short").expect("an answer").complete);
    let mut patient = Client::connect(origin.port());
    patient
        .write(Request::get("/never").bytes())
        .expect("a written request");
    assert!(!patient.hears_within(Duration::from_millis(50)));
    drop(patient);
    origin.wait_for_open_connections(0);
}

#[test]
fn an_origin_can_stop_and_come_back_on_its_port() {
    let mut origin = Origin::replying("back");
    let mut kept = Client::connect(origin.port());
    assert_eq!(kept.send(&Request::get("/")).status, 200);

    origin.stop();
    assert!(kept.closed_within(Duration::from_secs(2)).is_some());
    assert!(Client::try_connect(origin.port()).is_err());

    origin.restart();
    assert_eq!(
        Client::connect(origin.port())
            .send(&Request::get("/"))
            .text(),
        "back"
    );
}

#[test]
fn interim_responses_are_told_from_the_final_one() {
    let origin = Origin::echoing();
    let request = Request::post("/", "body").header("Expect", "100-continue");

    let response = Client::connect(origin.port()).send(&request);

    assert_eq!(
        (
            response.status,
            response.interim.as_slice(),
            response.text().as_str()
        ),
        (200, &[100][..], "body")
    );
}

#[test]
fn web_sockets_echo_until_one_side_closes() {
    let origin = Origin::start(|_| Reply::websocket());

    let (mut socket, handshake) = open(
        origin.port(),
        "/ws",
        &[("Sec-WebSocket-Protocol", "chat, other")],
    )
    .expect("an open socket");
    assert_eq!(handshake.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(text(&mut socket, "hello"), "hello");
    socket.close(None).expect("a closing frame");
    while socket.read().is_ok() {}

    origin.wait_for_open_connections(0);
}
