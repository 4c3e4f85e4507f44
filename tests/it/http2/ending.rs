//! The end of a connection: what a client may still do that does not want to hear of it.

use std::time::Duration;

use crate::harness::http2::{
    ENHANCE_YOUR_CALM, Frame, NO_ERROR, Outcome, PING, REFUSED_STREAM, Raw, frame,
};
use crate::harness::{Gate, Gateway, Origin, Reply, Stopwatch, one_service, wait_until};

use super::SOON;

/// A connection that may carry one request and carries it: its end is announced, and waits for the gate.
fn ending(gate: &Gate) -> (Gateway, Origin, Raw) {
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("late").after(&held),
        _ => Reply::ok("hello"),
    });
    let gateway = Gateway::start_with_http2("keepalive_requests: 1", &one_service(&origin));
    let mut raw = Raw::connect(gateway.port());
    raw.get(1, "/held");
    wait_until("the request to arrive", || origin.count() == 1);
    let goaway = raw.until("the announcement", |frame| frame.goaway().is_some());
    assert_eq!(goaway.goaway().map(|(_, code)| code), Some(NO_ERROR));
    (gateway, origin, raw)
}

#[test]
fn a_client_that_does_not_answer_goaway_is_served_for_a_while_and_then_refused() {
    let gate = Gate::new();
    let (gateway, origin, mut raw) = ending(&gate);
    raw.get(3, "/");
    assert_eq!(
        raw.outcome(3),
        Outcome::Answered(200),
        "it may not know yet"
    );

    let mut stream = 5;
    let mut refused = || {
        raw.get(stream, "/");
        let outcome = raw.outcome(stream);
        stream += 2;
        Stopwatch::pace(Duration::from_millis(100));
        outcome == Outcome::Reset(REFUSED_STREAM)
    };
    wait_until("a refusal", &mut refused);
    assert!(refused(), "and no other stream is taken");

    let taken = origin.count();
    gate.open();
    let watch = Stopwatch::start();
    let mut has_answer = false;
    loop {
        stream += 2;
        let sent = raw.get(stream, "/");
        while let Some(frame) = raw.next_within(Duration::from_millis(100)) {
            has_answer |= frame.stream == 1 && frame.ends_stream();
        }
        if !sent {
            break;
        }
        assert!(watch.elapsed() < SOON, "streams that are refused keep it");
    }
    assert!(has_answer, "what was begun is finished");
    assert_eq!(origin.count(), taken);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_offence_ends_a_connection_that_is_ending() {
    let gate = Gate::new();
    let (gateway, _origin, mut raw) = ending(&gate);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
    for _ in 0..2000 {
        if !raw.write_within(&pings, Duration::from_secs(2)) {
            break;
        }
    }

    let codes = raw.ends_within(SOON).expect("the connection ends");

    assert!(
        codes.is_empty() || codes.contains(&ENHANCE_YOUR_CALM),
        "{codes:?}"
    );
    assert_eq!(gateway.get("/").status, 200);
    gate.open();
}

#[test]
fn a_connection_of_a_removed_listener_ends_with_its_next_request() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start_with_http2("", &yaml);
    let mut raw = Raw::connect(gateway.port());
    raw.get(1, "/");
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    let other = crate::harness::free_port();
    let text = gateway.compose(&yaml).replace(
        &format!("listen: 127.0.0.1:{}", gateway.port()),
        &format!("listen: 127.0.0.1:{other}"),
    );
    gateway.changing_configuration(|| gateway.replace_exactly(&text));
    let is_quiet = |frame: &Frame| frame.goaway().is_none();
    while let Some(frame) = raw.next_within(Duration::from_millis(50)) {
        assert!(is_quiet(&frame), "an idle connection is left alone");
    }

    raw.get(3, "/");

    let mut seen = Vec::new();
    let mut is_told = || {
        seen.extend(raw.next_within(Duration::from_millis(100)));
        let is_answered = seen
            .iter()
            .any(|frame| frame.stream == 3 && frame.ends_stream());
        is_answered && seen.iter().any(|frame| frame.goaway().is_some())
    };
    wait_until("the answer and the end", &mut is_told);
    assert!(raw.ends_within(SOON).is_some());
}
