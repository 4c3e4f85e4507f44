//! Requests over HTTP/2 that HTTP/1 would read differently: none reaches an origin, and the connection goes on.

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, PROTOCOL_ERROR, Raw, block,
};
use crate::harness::{Gateway, Origin};

use super::gateway;

const GOOD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a.test"),
    (":path", "/"),
];

/// A good head with more fields.
fn and<'f>(fields: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    [&GOOD[..], fields].concat()
}

/// A good head without this pseudo-field, and more fields.
fn without<'f>(name: &str, fields: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let kept = GOOD.iter().filter(|(known, _)| *known != name).copied();
    kept.chain(fields.iter().copied()).collect()
}

/// Sends each head on a connection of its own; each must be turned away, and nothing arrive.
#[track_caller]
fn refused(heads: &[Vec<(&str, &str)>]) {
    let origin = Origin::replying("reached");
    let gateway: Gateway = gateway(&origin);
    for head in heads {
        let mut raw = Raw::connect(gateway.port());
        raw.request(1, head);
        let outcome = raw.outcome(1);
        assert!(outcome.is_refusal(), "{head:?}: {outcome:?}");
        if !matches!(outcome, Outcome::Connection(_)) {
            raw.get(3, "/good");
            assert_eq!(raw.outcome(3), Outcome::Answered(200), "{head:?}");
        }
    }
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.target == "/good")
    );
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn pseudo_fields_are_complete_single_known_and_first() {
    refused(&[
        without(":method", &[]),
        without(":scheme", &[]),
        without(":path", &[]),
        without(":authority", &[]),
        and(&[(":method", "GET")]),
        and(&[(":path", "/b")]),
        and(&[(":authority", "b.test")]),
        and(&[(":unknown", "1")]),
        and(&[(":status", "200")]),
        without(":path", &[("x", "1"), (":path", "/")]),
    ]);
}

#[test]
fn a_path_is_a_path() {
    refused(&[
        without(":path", &[(":path", "")]),
        without(":path", &[(":path", "a")]),
        without(":path", &[(":path", "*")]),
        without(":path", &[(":path", "/a b")]),
        without(":path", &[(":path", "/a\r\nX: 1")]),
        without(":path", &[(":path", "/a\0")]),
        without(":path", &[(":path", "http://b.test/")]),
        without(":path", &[(":path", "/ HTTP/1.1\r\nHost: b\r\n\r\nGET /")]),
    ]);
}

#[test]
fn an_authority_is_a_host_and_agrees_with_the_field() {
    refused(&[
        and(&[("host", "b.test")]),
        and(&[("host", "a.test"), ("host", "a.test")]),
        without(":authority", &[("host", "a.test"), ("host", "b.test")]),
        without(":authority", &[(":authority", "user@a.test")]),
        without(":authority", &[(":authority", "a.test/b")]),
        without(":authority", &[(":authority", "a b")]),
        without(":authority", &[(":authority", "a.test:99999")]),
    ]);
}

#[test]
fn names_and_values_hold_nothing_that_breaks_a_line() {
    refused(&[
        and(&[("X-Capital", "1")]),
        and(&[("x y", "1")]),
        and(&[("x:y", "1")]),
        and(&[("", "1")]),
        and(&[("x", "a\r\nb: c")]),
        and(&[("x", "a\nb")]),
        and(&[("x", "a\0b")]),
        and(&[("x\r\ny", "1")]),
        and(&[("x", " a")]),
        and(&[("x", "a\t")]),
    ]);
}

#[test]
fn fields_of_a_connection_are_none_of_a_stream() {
    refused(&[
        and(&[("connection", "close")]),
        and(&[("keep-alive", "timeout=5")]),
        and(&[("proxy-connection", "close")]),
        and(&[("transfer-encoding", "chunked")]),
        and(&[("upgrade", "websocket")]),
        and(&[("te", "gzip")]),
    ]);
}

#[test]
fn a_length_is_one_number() {
    refused(&[
        and(&[("content-length", "0"), ("content-length", "0")]),
        and(&[("content-length", "+0")]),
        and(&[("content-length", "0, 0")]),
        and(&[("content-length", "")]),
        and(&[("content-length", "5")]),
    ]);
}

#[test]
fn a_body_of_another_length_than_announced_never_arrives_whole() {
    for (length, pieces) in [
        ("5", &[&b"abcd"[..]][..]),
        ("5", &[b"abc", b"def"]),
        ("0", &[b"a"]),
    ] {
        let origin = Origin::replying("reached");
        let gateway = gateway(&origin);
        let mut raw = Raw::connect(gateway.port());
        let head = block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/"),
            ("content-length", length),
        ]);
        raw.send(HEADERS, END_HEADERS, 1, &head);
        for (place, piece) in pieces.iter().enumerate() {
            let flags = if place + 1 == pieces.len() {
                END_STREAM
            } else {
                0
            };
            raw.send(DATA, flags, 1, piece);
        }
        let outcome = raw.outcome(1);
        assert!(outcome.is_refusal(), "{length} {pieces:?}: {outcome:?}");
        raw.get(3, "/good");
        assert_eq!(raw.outcome(3), Outcome::Answered(200));
        assert!(
            origin
                .requests()
                .iter()
                .all(|request| request.target == "/good" || !request.complete),
            "{:?}",
            origin.requests()
        );
    }
}

#[test]
fn trailers_end_the_stream_and_stay_here() {
    let origin = Origin::replying("reached");
    let gateway = gateway(&origin);
    let head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
    ]);
    let mut raw = Raw::connect(gateway.port());
    raw.send(HEADERS, END_HEADERS, 1, &head);
    raw.send(DATA, 0, 1, b"abc");
    raw.send(HEADERS, END_HEADERS, 1, &block(&[("x", "1")]));
    let outcome = raw.outcome(1);
    assert!(outcome.is_refusal(), "{outcome:?}");
    assert!(origin.requests().iter().all(|request| !request.complete));

    raw.send(HEADERS, END_HEADERS, 3, &head);
    raw.send(DATA, 0, 3, b"abc");
    let trailers = block(&[(":path", "/b"), ("x", "1"), ("content-length", "5")]);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 3, &trailers);
    assert_eq!(raw.outcome(3), Outcome::Answered(200));
    // What is left of the refused one may be noted later.
    let received = origin
        .requests()
        .into_iter()
        .find(|request| request.complete);
    let received = received.expect("a whole request");
    assert_eq!(
        (received.target.as_str(), received.text().as_str()),
        ("/", "abc")
    );
    assert_eq!(
        (received.header("x"), received.header("content-length")),
        (None, None)
    );
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn connect_is_no_way_through_in_any_form() {
    let origin = Origin::replying("reached");
    let gateway = gateway(&origin);
    let connect = [(":method", "CONNECT"), (":authority", "a.test:80")];
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
    ];
    for head in [&connect[..], &extended[..]] {
        let mut raw = Raw::connect(gateway.port());
        raw.send(HEADERS, END_HEADERS, 1, &block(head));
        let outcome = raw.outcome(1);
        // 405 has no number in HPACK.
        assert!(
            outcome == Outcome::Answered(0) || outcome == Outcome::Reset(PROTOCOL_ERROR),
            "{outcome:?}"
        );
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_head_in_pieces_is_one_head() {
    let origin = Origin::replying("reached");
    let gateway = gateway(&origin);
    let mut raw = Raw::connect(gateway.port());
    let head = block(&and(&[("x-mine", "1")]));
    let (first, rest) = head.split_at(20);
    raw.send(HEADERS, END_STREAM, 1, first);
    let (second, third) = rest.split_at(5);
    raw.send(CONTINUATION, 0, 1, second);
    raw.send(CONTINUATION, END_HEADERS, 1, third);
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    assert_eq!(origin.last().header("x-mine"), Some("1"));
}

#[test]
fn a_refused_head_is_answered_logged_and_counted() {
    let origin = Origin::replying("reached");
    let gateway = gateway(&origin);
    let mut raw = Raw::connect(gateway.port());
    raw.request(1, &and(&[("host", "b.test")]));
    assert_eq!(raw.outcome(1), Outcome::Answered(400));
    gateway.wait_for_access_log("\"error\":\"bad_request\"");
    assert!(gateway.metric("tollgate_replies_total{reason=\"bad_request\"}") > 0.0);
}
