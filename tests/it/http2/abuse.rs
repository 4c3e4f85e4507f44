//! What a client may do to a connection that costs it nothing: it costs the connection, and nobody else.

use std::time::Duration;

use crate::harness::http2::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, HEADERS,
    Http2Client, Outcome, PING, PRIORITY, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
    block, frame, get_block, string,
};
use crate::harness::{Gate, Gateway, Origin, Reply, wait_until};

use super::{SOON, gateway};

const MIB: u64 = 1 << 20;

/// Lets a client do its worst; its connection must end, and a bystander on another one must not notice.
#[track_caller]
fn ends_and_disturbs_nobody(attack: impl FnOnce(&mut Raw)) -> Vec<u32> {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let bystander = Http2Client::connect(gateway.port());
    assert_eq!(bystander.get("/").status, 200);
    let before = gateway.rss_bytes();
    let mut raw = Raw::connect(gateway.port());

    attack(&mut raw);
    let codes = raw.ends_within(SOON).expect("the connection ends");

    assert_eq!(
        bystander.get("/").status,
        200,
        "the same connection still serves"
    );
    assert_eq!(Http2Client::connect(gateway.port()).get("/").status, 200);
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");
    codes
}

/// Sends a frame again and again until the gateway takes no more.
fn flood(raw: &mut Raw, one: &[u8]) {
    let many = one.repeat(100);
    for _ in 0..2000 {
        if !raw.write_within(&many, Duration::from_secs(2)) {
            return;
        }
    }
}

#[test]
fn resets_in_a_loop_end_the_connection_and_cancel_what_was_begun() {
    let codes = ends_and_disturbs_nobody(|raw| {
        for number in 0..2000 {
            let stream = number * 2 + 1;
            let sent =
                raw.get(stream, "/") && raw.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            if !sent {
                return;
            }
        }
    });
    // Where the client still writes the last word may not reach it.
    assert!(
        codes.is_empty() || codes.contains(&ENHANCE_YOUR_CALM),
        "{codes:?}"
    );
}

#[test]
fn a_client_that_resets_too_often_hears_why() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = gateway(&origin);
    let mut raw = Raw::connect(gateway.port());
    for number in 0..201 {
        let stream = number * 2 + 1;
        raw.get(stream, "/");
        raw.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }
    let goaway = raw.until("a word", |frame| frame.goaway().is_some());
    assert_eq!(
        goaway.goaway().map(|(_, code)| code),
        Some(ENHANCE_YOUR_CALM)
    );
    origin.wait_for_open_connections(0);
}

#[test]
fn two_hundred_resets_are_borne() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut raw = Raw::connect(gateway.port());
    for number in 0..200 {
        let stream = number * 2 + 1;
        raw.get(stream, "/");
        raw.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }
    raw.get(1001, "/");
    assert_eq!(raw.outcome(1001), Outcome::Answered(200));
}

#[test]
fn frames_without_a_message_end_the_connection() {
    for (what, one) in [
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("ping answers", frame(PING, 1, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        (
            "window updates",
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        ),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown frames", frame(200, 0, 1, b"what")),
    ] {
        let codes = ends_and_disturbs_nobody(|raw| flood(raw, &one));
        assert!(
            codes.is_empty() || codes == [ENHANCE_YOUR_CALM],
            "{what}: {codes:?}"
        );
    }
}

#[test]
fn empty_pieces_of_a_body_end_the_connection() {
    ends_and_disturbs_nobody(|raw| {
        let head = block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
        ]);
        raw.send(HEADERS, END_HEADERS, 1, &head);
        flood(raw, &frame(DATA, 0, 1, &[]));
    });
}

#[test]
fn a_header_block_without_end_ends_the_connection() {
    for piece in [
        &b""[..],
        &[0; 1000],
        &block(&[("x-padding", &"a".repeat(900))]),
    ] {
        ends_and_disturbs_nobody(|raw| {
            raw.send(HEADERS, END_STREAM, 1, &get_block("/"));
            flood(raw, &frame(CONTINUATION, 0, 1, piece));
        });
    }
}

#[test]
fn a_head_over_the_limit_is_turned_away_alone() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let mut raw = Raw::connect(gateway.port());
    let large = "a".repeat(4000);
    let fields: Vec<(String, &str)> = (0..10)
        .map(|n| (format!("x-{n}"), large.as_str()))
        .collect();
    let mut head = get_block("/");
    for (name, value) in &fields {
        head.extend(block(&[(name, value)]));
    }
    let mut pieces = head.chunks(16_000).peekable();
    let first = pieces.next().expect("a piece");
    raw.send(HEADERS, END_STREAM, 1, first);
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        raw.send(CONTINUATION, flags, 1, piece);
    }
    // 431 has no number in HPACK.
    assert_eq!(raw.outcome(1), Outcome::Answered(0));
    raw.get(3, "/");
    assert_eq!(raw.outcome(3), Outcome::Answered(200));
    assert_eq!(origin.count(), 1);
    gateway.wait_for_access_log("\"status_code\":431");
    gateway.wait_for_access_log("\"error\":\"header_too_large\"");
    assert!(gateway.metric("tollgate_replies_total{reason=\"header_too_large\"}") > 0.0);
}

#[test]
fn a_head_far_over_the_limit_is_turned_away_and_one_beyond_all_measure_ends_the_connection() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let large = |count| {
        // Each byte names the entry of the table that the first field made.
        let mut head = get_block("/");
        head.push(0x40);
        string(&mut head, "x");
        string(&mut head, &"a".repeat(3900));
        head.extend(vec![0xbe; count]);
        head
    };
    let mut raw = Raw::connect(gateway.port());
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &large(20));
    assert_eq!(raw.outcome(1), Outcome::Answered(0));
    raw.get(3, "/");
    assert_eq!(raw.outcome(3), Outcome::Answered(200));
    raw.send(HEADERS, END_HEADERS | END_STREAM, 5, &large(100));
    assert_eq!(raw.outcome(5), Outcome::Connection(ENHANCE_YOUR_CALM));
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_small_head_that_grows_when_it_is_read_takes_no_memory() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let before = gateway.rss_bytes();
    let mut raw = Raw::connect(gateway.port());
    // One entry of the table of almost four thousand bytes, which a byte names again and again.
    let mut head = get_block("/");
    head.push(0x40);
    string(&mut head, "x");
    string(&mut head, &"a".repeat(3900));
    head.extend([0xbe; 8000]);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &head);
    let outcome = raw.outcome(1);
    assert!(
        matches!(
            outcome,
            Outcome::Answered(0) | Outcome::Connection(_) | Outcome::Reset(_)
        ),
        "{outcome:?}"
    );
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes more");
    assert_eq!(origin.count(), 0);
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_others_go_on() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("late").after(&held));
    let gateway = gateway(&origin);
    let mut raw = Raw::connect(gateway.port());
    for number in 0..129 {
        raw.get(number * 2 + 1, "/");
    }
    assert_eq!(raw.outcome(257), Outcome::Reset(REFUSED_STREAM));
    origin.wait_until("all others", |requests| requests.len() == 128);
    gate.open();
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    raw.get(259, "/");
    assert_eq!(raw.outcome(259), Outcome::Answered(200));
}

/// The frames of bodies that came within a while.
fn body_bytes(raw: &mut Raw) -> usize {
    let mut bytes = 0;
    while let Some(Frame { kind, payload, .. }) = raw.next_within(Duration::from_millis(300)) {
        if kind == DATA {
            bytes += payload.len();
        }
    }
    bytes
}

#[test]
fn a_window_that_never_opens_holds_the_upstream_back() {
    let origin = Origin::start(|_| Reply::ok(vec![b'x'; 20_000_000]));
    let gateway = gateway(&origin);
    let before = gateway.rss_bytes();
    // INITIAL_WINDOW_SIZE 0.
    let mut raw = Raw::connect_with(gateway.port(), &[(4, 0)]);
    raw.get(1, "/");
    let head = raw.until("the head", |frame| frame.kind == HEADERS);
    assert_eq!(head.status(), Some(200));
    assert_eq!(body_bytes(&mut raw), 0);
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes more");
    // One byte is as good as its client likes it.
    raw.send(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
    let piece = raw.until("a piece", |frame| frame.kind == DATA);
    assert_eq!(piece.payload.len(), 1);
    raw.close();
    origin.wait_for_open_connections(0);
}

#[test]
fn a_client_that_reads_nothing_of_many_responses_takes_little_memory() {
    let origin = Origin::start(|_| Reply::ok(vec![b'x'; 3_000_000]));
    let gateway = gateway(&origin);
    let before = gateway.rss_bytes();
    // The largest windows there are.
    let mut raw = Raw::connect_with(gateway.port(), &[(4, 0x7fff_ffff)]);
    raw.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    for number in 0..64 {
        raw.get(number * 2 + 1, "/");
    }
    origin.wait_until("all requests", |requests| requests.len() == 64);
    let mut last = 0;
    wait_until("the memory to settle", || {
        let now = gateway.rss_bytes();
        let settled = now.abs_diff(last) < MIB / 8;
        last = now;
        std::thread::yield_now();
        settled
    });
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes more");
}

#[test]
fn acknowledgements_that_nobody_reads_do_not_pile_up() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin);
    let before = gateway.rss_bytes();
    let mut raw = Raw::connect(gateway.port());
    let ping = frame(PING, 0, 0, &[0; 8]).repeat(500);
    for _ in 0..200 {
        if !raw.write_within(&ping, Duration::from_millis(500)) {
            break;
        }
    }
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes more");
    assert_eq!(Http2Client::connect(gateway.port()).get("/").status, 200);
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_http2(
        "client_max_connections: 1",
        &crate::harness::one_service(&origin),
    );
    let mut first = Raw::connect(gateway.port());
    first.get(1, "/");
    assert_eq!(first.outcome(1), Outcome::Answered(200));
    let mut second = Raw::connect_silently(gateway.port());
    second.write(crate::harness::http2::PREFACE);
    assert!(second.next_within(Duration::from_millis(300)).is_none());
    first.close();
    second.until("its turn", |frame| frame.kind == SETTINGS);
}
