//! Clients of HTTP/2 that are slow or silent.

use std::time::Duration;

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, NO_ERROR, Outcome,
    PREFACE, Raw, WINDOW_UPDATE, block, frame, get_block,
};
use crate::harness::{Gateway, Origin, Reply, Stopwatch, one_service};

use super::SOON;

fn with(settings: &str, origin: &Origin) -> Gateway {
    Gateway::start_with_http2(settings, &one_service(origin))
}

#[test]
fn an_idle_connection_is_closed_with_a_word() {
    let origin = Origin::replying("hello");
    let gateway = with("keepalive_timeout: 0.5", &origin);
    let mut raw = Raw::connect(gateway.port());
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    let watch = Stopwatch::start();
    assert_eq!(raw.ends_within(SOON), Some(vec![NO_ERROR]));
    assert!(
        watch.elapsed() >= Duration::from_millis(400),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn a_connection_on_which_nothing_is_asked_is_closed() {
    let origin = Origin::replying("hello");
    let gateway = with("client_header_timeout: 0.5", &origin);
    let mut silent = Raw::connect(gateway.port());
    let mut halfway = Raw::connect_silently(gateway.port());
    halfway.write(PREFACE.split_at(10).0);
    assert!(silent.ends_within(SOON).is_some());
    assert!(halfway.ends_within(SOON).is_some());
}

#[test]
fn a_header_block_has_a_deadline_that_no_piece_moves() {
    let origin = Origin::replying("hello");
    let gateway = with("client_header_timeout: 0.5", &origin);
    let mut raw = Raw::connect(gateway.port());
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    let head = get_block("/");
    let (first, rest) = head.split_at(5);
    raw.send(HEADERS, END_STREAM, 3, first);
    for byte in rest {
        let piece = frame(CONTINUATION, 0, 3, &[*byte]);
        if !raw.write(&piece) {
            break;
        }
        Stopwatch::pace(Duration::from_millis(50));
    }
    let codes = raw.ends_within(SOON).expect("the connection ends");
    assert!(
        codes.is_empty() || codes.contains(&ENHANCE_YOUR_CALM),
        "{codes:?}"
    );
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_body_that_stops_is_a_408_and_never_whole_upstream() {
    let origin = Origin::replying("hello");
    let gateway = with("client_body_timeout: 0.5", &origin);
    let mut raw = Raw::connect(gateway.port());
    let head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("content-length", "10"),
    ]);
    raw.send(HEADERS, END_HEADERS, 1, &head);
    raw.send(DATA, 0, 1, b"abc");
    // 408 has no number in HPACK.
    assert_eq!(raw.outcome(1), Outcome::Answered(0));
    gateway.wait_for_access_log("\"error\":\"request_timeout\"");
    origin.wait_for_open_connections(0);
    assert!(origin.requests().iter().all(|request| !request.complete));
    raw.get(3, "/");
    assert_eq!(raw.outcome(3), Outcome::Answered(200));
}

/// Reliability 2.9.
#[test]
fn a_stream_whose_window_stays_shut_is_reset_in_time_and_the_others_go_on() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/large" => Reply::ok(vec![b'x'; 1_000_000]),
        _ => Reply::ok(""),
    });
    let gateway = with("client_send_timeout: 0.5", &origin);
    // INITIAL_WINDOW_SIZE 0.
    let mut raw = Raw::connect_with(gateway.port(), &[(4, 0)]);
    raw.get(1, "/large");
    raw.until("the head", |frame| frame.kind == HEADERS);

    let reset = raw.until("a reset", |frame| frame.reset_code().is_some());

    assert_eq!(reset.stream, 1);
    raw.get(3, "/");
    assert_eq!(raw.outcome(3), Outcome::Answered(200));
    origin.wait_for_open_connections(1);
}

#[test]
fn a_connection_whose_client_takes_nothing_is_cut_in_time() {
    let origin = Origin::start(|_| Reply::ok(vec![b'x'; 20_000_000]));
    let gateway = with("client_send_timeout: 0.5", &origin);
    // The largest windows there are.
    let mut raw = Raw::connect_with(gateway.port(), &[(4, 0x7fff_ffff)]);
    raw.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    raw.get(1, "/");
    origin.wait_until("the request", |requests| requests.len() == 1);

    origin.wait_for_open_connections(0);

    assert!(raw.ends_within(SOON).is_some());
}

#[test]
fn a_slow_response_keeps_its_connection() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            use std::io::Write;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
            for byte in b"hello" {
                Stopwatch::pace(Duration::from_millis(200));
                stream.write_all(&[*byte])?;
            }
            Ok(())
        })
    });
    let gateway = with(
        "keepalive_timeout: 0.3\nclient_header_timeout: 0.3",
        &origin,
    );
    let mut raw = Raw::connect(gateway.port());
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
}
