//! Requests at the edge of what is legal, byte by byte: what passes, in which form, and how a refusal looks. Judged by
//! the answer, by whether the connection is closed, and by what the origin received: never a message that nobody sent.
//! What is refused is in the table of `malformed_requests.rs`.

use std::time::Duration;

use crate::harness::{Client, Gateway, Origin, Received, Reply, Request, Response, one_service};

/// Long enough for a lingering close, which may take two seconds.
const CLOSING: Duration = Duration::from_secs(8);

struct Bench {
    gateway: Gateway,
    origin: Origin,
}

/// What came back for a case.
struct Seen {
    responses: Vec<Response>,
    closed: bool,
    /// What the origin received because of the case.
    received: Vec<Received>,
}

impl Seen {
    fn statuses(&self) -> Vec<u16> {
        self.responses
            .iter()
            .map(|response| response.status)
            .collect()
    }
}

impl Bench {
    fn new() -> Self {
        let origin =
            Origin::start(|request| Reply::ok(format!("{} {}", request.method, request.target)));
        let gateway = Gateway::start(&one_service(&origin));
        Self { gateway, origin }
    }

    /// Sends the bytes on a connection of their own, reads until it closes, and checks that the
    /// gateway lives and that the origin only ever saw well-formed HTTP.
    fn try_out(&self, case: &str, bytes: &[u8]) -> Seen {
        let before = self.origin.count();
        let mut client = self.gateway.connect();
        let _ = client.write(bytes);
        let mut responses = Vec::new();
        while client.hears_within(CLOSING) {
            match client.read_response() {
                Ok(response) => responses.push(response),
                Err(_) => break,
            }
        }
        let closed = client.closed_within(Duration::from_millis(1)).is_some();
        drop(client);
        self.expect_alive(case);
        let mut received = self.origin.requests().split_off(before);
        received.retain(|request| request.target != "/alive");
        assert_eq!(
            self.origin.malformed(),
            Vec::<String>::new(),
            "{case}: the origin received what is no HTTP"
        );
        Seen {
            responses,
            closed,
            received,
        }
    }

    fn expect_alive(&self, case: &str) {
        let response = self.gateway.get("/alive");
        assert_eq!(
            response.text(),
            "GET /alive",
            "{case}: the gateway answers the next client"
        );
    }

    /// The request is refused with one of these statuses, the connection closed, the origin not asked.
    fn expect_refused(&self, case: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        let seen = self.try_out(case, bytes.as_ref());
        let shown = String::from_utf8_lossy(bytes.as_ref())
            .chars()
            .take(200)
            .collect::<String>();
        assert_eq!(
            seen.received.len(),
            0,
            "{case}: the origin was asked {:#?} because of {shown:?}",
            seen.received
        );
        assert!(
            seen.responses.len() == 1 && statuses.contains(&seen.responses[0].status),
            "{case}: expected one of {statuses:?}, got {:?} to {shown:?}",
            seen.statuses()
        );
        assert!(
            seen.closed,
            "{case}: the connection stayed open after {:?}",
            seen.statuses()
        );
    }

    /// Refused or cut off; whatever the origin saw of it was not a complete message.
    fn expect_never_complete(&self, case: &str, bytes: impl AsRef<[u8]>) {
        let seen = self.try_out(case, bytes.as_ref());
        assert!(
            seen.received.iter().all(|request| !request.complete),
            "{case}: {:#?}",
            seen.received
        );
        assert!(
            seen.statuses()
                .iter()
                .all(|status| matches!(status, 400 | 408 | 413 | 501)),
            "{case}: {:?}",
            seen.statuses()
        );
        assert!(
            seen.closed,
            "{case}: the connection stayed open after {:?}",
            seen.statuses()
        );
    }
}

/// A head with these lines between the request line with Host and the empty line.
fn head(lines: &str) -> String {
    format!("POST /case HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n\r\n")
}

#[test]
fn a_field_that_only_looks_like_a_coding_is_none() {
    let bench = Bench::new();
    let twin =
        head("Transfer_Encoding: chunked\r\nContent-Length: 5\r\nConnection: close") + "hello";
    let seen = bench.try_out("underscore", twin.as_bytes());

    assert_eq!(seen.statuses(), [200]);
    assert_eq!(
        (seen.received[0].text().as_str(), seen.received[0].chunked),
        ("hello", false)
    );
}

#[test]
fn a_broken_chunk_is_judged_without_waiting_for_the_client_to_leave() {
    let bench = Bench::new();

    bench.expect_never_complete(
        "no digit",
        head("Transfer-Encoding: chunked") + "zz\r\nhello\r\n0\r\n\r\n",
    );
    bench.expect_never_complete(
        "late",
        head("Transfer-Encoding: chunked") + "5\r\nhello\r\nzz\r\n0\r\n\r\n",
    );
}

#[test]
fn chunk_extensions_are_dropped() {
    let bench = Bench::new();
    let bytes = head("Transfer-Encoding: chunked\r\nConnection: close")
        + "5;name=\"a;b\"\r\nhello\r\n0;last\r\n\r\n";

    let seen = bench.try_out("extensions", bytes.as_bytes());

    assert_eq!(seen.statuses(), [200]);
    assert_eq!(seen.received[0].text(), "hello");
}

#[test]
fn a_tab_inside_a_value_is_legal() {
    let bench = Bench::new();
    let tab = "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\tc\r\nConnection: close\r\n\r\n";
    let seen = bench.try_out("a tab inside a value", tab.as_bytes());
    assert_eq!(
        (seen.statuses(), seen.received[0].header("X-A")),
        (vec![200], Some("b\tc"))
    );
}

#[test]
fn one_or_two_empty_lines_before_a_request_are_skipped() {
    let bench = Bench::new();

    for lines in ["\r\n", "\r\n\r\n"] {
        let bytes = format!("{lines}GET /case HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(
            bench.try_out("empty lines", bytes.as_bytes()).statuses(),
            [200],
            "{lines:?}"
        );
    }
}

#[test]
fn an_absolute_target_is_sent_in_origin_form_with_its_own_host() {
    let bench = Bench::new();
    let bytes = "GET http://user@a.test:81/case?x=1 HTTP/1.1\r\nHost: a.test:81\r\nConnection: close\r\n\r\n";

    let plain = bench.try_out("absolute", bytes.replace("user@", "").as_bytes());
    let userinfo = bench.try_out("userinfo", bytes.as_bytes());

    assert_eq!(
        (plain.statuses(), plain.received[0].target.as_str()),
        (vec![200], "/case?x=1")
    );
    assert_eq!(plain.received[0].header("X-Forwarded-Host"), Some("a.test"));
    assert!(
        userinfo.received.iter().all(|request| !request
            .head
            .raw
            .windows(5)
            .any(|bytes| bytes == b"user@"))
    );
}

#[test]
fn a_query_behind_an_authority_is_sent_behind_a_slash() {
    let bench = Bench::new();
    let bytes = b"GET http://a.test?case=1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

    let seen = bench.try_out("no path", bytes);

    assert_eq!(
        (seen.statuses(), seen.received[0].target.as_str()),
        (vec![200], "/?case=1")
    );
}

#[test]
fn connect_and_trace_are_never_served() {
    let bench = Bench::new();
    for (bytes, statuses) in [
        (
            "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: close\r\n\r\n",
            &[405, 400, 501][..],
        ),
        (
            "CONNECT /case HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            &[405, 400, 501],
        ),
        (
            "TRACE /case HTTP/1.1\r\nHost: a.test\r\nX-Secret: s3cret\r\nConnection: close\r\n\r\n",
            &[405],
        ),
    ] {
        let seen = bench.try_out(bytes, bytes.as_bytes());
        assert!(
            seen.responses.len() == 1 && statuses.contains(&seen.responses[0].status),
            "{bytes:?}: {:?}",
            seen.statuses()
        );
        assert!(!seen.responses[0].text().contains("s3cret") && seen.received.is_empty());
    }
}

#[test]
fn http_1_0_does_without_host_and_an_empty_host_is_legal() {
    let bench = Bench::new();

    assert_eq!(
        bench
            .try_out("HTTP/1.0", b"GET /case HTTP/1.0\r\n\r\n")
            .statuses(),
        [200]
    );

    let empty = bench
        .try_out(
            "empty",
            b"GET /case HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        )
        .statuses();
    assert!(empty == [200] || empty == [400], "{empty:?}");
}

#[test]
fn what_is_forwarded_is_what_was_matched() {
    let bench = Bench::new();
    for (target, forwarded) in [
        ("/a/../case", "/case"),
        ("/%2e%2e/case", "/case"),
        ("/a/%2E/case", "/a/case"),
        ("//case", "/case"),
        ("/%252e%252e/case", "/%252e%252e/case"),
        ("/a%2f..%2fcase", "/a%2F..%2Fcase"),
        ("/a;x/../case", "/case"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let seen = bench.try_out(target, bytes.as_bytes());
        assert_eq!(
            (seen.statuses(), seen.received[0].target.as_str()),
            (vec![200], forwarded),
            "{target}"
        );
    }
}

#[test]
fn a_request_line_over_its_buffer_is_a_414() {
    let bench = Bench::new();
    let line = |length: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "a".repeat(length)
        )
    };

    bench.expect_refused("9,000 bytes", line(9000), &[414]);
    bench.expect_refused("60,000 bytes", line(60_000), &[414]);
    assert_eq!(
        bench
            .try_out("8,000 bytes", line(8000).as_bytes())
            .statuses(),
        [200]
    );
}

#[test]
fn a_head_over_its_buffers_is_refused() {
    let bench = Bench::new();
    let wide = |length: usize| {
        head(&format!(
            "Content-Length: 0\r\nConnection: close\r\nX-Wide: {}",
            "a".repeat(length)
        ))
    };
    let tall = |count: usize, length: usize| {
        let lines: Vec<String> = (0..count)
            .map(|n| format!("X-{n}: {}", "a".repeat(length)))
            .collect();
        head(&format!(
            "Content-Length: 0\r\nConnection: close\r\n{}",
            lines.join("\r\n")
        ))
    };

    bench.expect_refused("a line of 9,000 bytes", wide(9000), &[400, 431]);
    bench.expect_refused("a line of 200,000 bytes", wide(200_000), &[400, 431]);
    bench.expect_refused("a head of 40,000 bytes", tall(10, 4000), &[400, 431]);
    bench.expect_refused("1,100 fields", tall(1100, 1), &[400, 431]);
    assert_eq!(
        bench
            .try_out("a line of 8,000 bytes", wide(8000).as_bytes())
            .statuses(),
        [200]
    );
    assert_eq!(
        bench
            .try_out("a head of 28,000 bytes", tall(7, 4000).as_bytes())
            .statuses(),
        [200]
    );
    assert_eq!(
        bench
            .try_out("200 fields", tall(200, 20).as_bytes())
            .statuses(),
        [200]
    );
}

#[test]
fn the_bytes_of_one_message_never_become_another_message() {
    let bench = Bench::new();
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let outer = format!(
        "POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{inner}",
        inner.len()
    );

    let seen = bench.try_out("a request as body", outer.as_bytes());

    assert_eq!(seen.statuses(), [200]);
    assert_eq!(
        (seen.received.len(), seen.received[0].text().as_str()),
        (1, inner)
    );
}

#[test]
fn pipelined_requests_are_answered_in_order_or_the_connection_is_closed() {
    let bench = Bench::new();
    let bytes = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
                 POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
                 GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    let seen = bench.try_out("pipelining", bytes.as_bytes());

    let texts: Vec<String> = seen.responses.iter().map(Response::text).collect();
    let all = ["GET /1", "POST /2", "GET /3"];
    assert!(
        !texts.is_empty() && texts == all[..texts.len()],
        "{texts:?}"
    );
    assert!(seen.closed);
    assert!(seen.received.len() <= 3 && seen.received.len() >= texts.len());
}

#[test]
fn fields_listed_in_connection_go_but_never_the_gateways_own() {
    let bench = Bench::new();
    let bytes = "GET /case HTTP/1.1\r\nHost: a\r\nX-Foo: 1\r\nAuthorization: secret\r\n\
                 Connection: close, X-Foo, Authorization, X-Forwarded-For, X-Real-IP, Host, Content-Length\r\n\r\n";

    let seen = bench.try_out("listed", bytes.as_bytes());

    let received = &seen.received[0];
    assert_eq!(seen.statuses(), [200]);
    assert!(received.header("X-Foo").is_none() && received.header("Authorization").is_none());
    for name in ["X-Forwarded-For", "X-Real-IP", "Host"] {
        assert!(received.header(name).is_some(), "{name}");
    }
}

#[test]
fn a_content_length_listed_in_connection_still_frames_the_body() {
    let bench = Bench::new();
    let bytes =
        head("Content-Length: 5\r\nConnection: close, Content-Length, Transfer-Encoding") + "hello";

    let seen = bench.try_out("listed length", bytes.as_bytes());

    assert_eq!(seen.statuses(), [200]);
    assert_eq!(
        (seen.received.len(), seen.received[0].text().as_str()),
        (1, "hello")
    );
}

#[test]
fn an_upgrade_to_h2c_is_served_as_plain_http() {
    let bench = Bench::new();
    let bytes = "GET /case HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
                 Connection: close, Upgrade, HTTP2-Settings\r\n\r\n";

    let seen = bench.try_out("h2c", bytes.as_bytes());

    assert_eq!(seen.statuses(), [200]);
    assert!(
        seen.received[0].header("Upgrade").is_none()
            && seen.received[0].header("HTTP2-Settings").is_none()
    );
}

#[test]
fn other_protocols_on_a_plain_port_are_turned_away() {
    let bench = Bench::new();
    let hello =
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08\r\n\r\n";
    for (case, bytes) in [
        ("TLS", &hello[..]),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("noise", b"\x80\x81\x82\xff\xfe\x00\x01\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ] {
        let seen = bench.try_out(case, bytes);
        assert!(seen.closed && seen.received.is_empty(), "{case}");
        assert!(
            seen.statuses()
                .iter()
                .all(|status| matches!(status, 400 | 405 | 505)),
            "{case}: {:?}",
            seen.statuses()
        );
    }
}

#[test]
fn bytes_after_a_last_request_are_ignored() {
    let bench = Bench::new();
    let bytes = "GET /case HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /ignored HTTP/1.1\r\nHost: a\r\n\r\n";

    let seen = bench.try_out("surplus", bytes.as_bytes());

    assert_eq!(
        (seen.statuses(), seen.received.len(), seen.closed),
        (vec![200], 1, true)
    );
}

#[test]
fn a_refusal_has_the_usual_error_body_and_is_counted() {
    let bench = Bench::new();
    let reason = "tollgate_replies_total{reason=\"bad_request\"}";
    let before = bench.gateway.metric(reason);

    let seen = bench.try_out("no host", b"GET /case HTTP/1.1\r\n\r\n");

    let response = &seen.responses[0];
    let id = response.header("x-kong-request-id").expect("a request id");
    assert_eq!(response.text(), format!("Bad request\nrequest_id: {id}\n"));
    assert!(bench.gateway.metric(reason) > before);
}

#[test]
fn a_refusal_is_readable_while_the_client_keeps_sending() {
    let bench = Bench::new();
    let mut client = Client::connect(bench.gateway.port());

    client.write_in_background(
        [b"GET /case HTTP/1.1\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat(),
    );
    let response = client.read_response().expect("a readable refusal");

    assert_eq!(response.status, 400);
    assert!(client.closed_within(CLOSING).is_some());
}

#[test]
fn other_connections_are_served_while_one_misbehaves() {
    let bench = Bench::new();
    let mut kept = bench.gateway.connect();

    for garbage in [
        "\0\0\0\r\n\r\n",
        "GET /case HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut rude = bench.gateway.connect();
        let _ = rude.write(garbage);
        assert_eq!(kept.send(&Request::get("/kept")).text(), "GET /kept");
    }
}
