//! Malformed and ambiguous requests, byte by byte. Judged by the answer, by whether the connection
//! is closed, and by what the origin received: never a message that nobody sent.

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

    fn expect_all_refused(&self, cases: &[(&str, &str)], statuses: &[u16]) {
        for (case, bytes) in cases {
            self.expect_refused(case, bytes, statuses);
        }
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
fn both_framings_in_one_request_are_refused() {
    let bench = Bench::new();
    for (case, lines) in [
        (
            "length first",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        (
            "coding first",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
        ),
        (
            "length zero",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
        ),
        (
            "other case",
            "content-length: 5\r\ntransfer-encoding: Chunked",
        ),
    ] {
        bench.expect_refused(case, format!("{}0\r\n\r\n", head(lines)), &[400]);
    }
    let old =
        "POST /case HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    bench.expect_refused("HTTP/1.0", old, &[400, 501]);
}

#[test]
fn several_content_lengths_are_refused() {
    let bench = Bench::new();
    for (case, lines) in [
        ("two equal", "Content-Length: 5\r\nContent-Length: 5"),
        ("a list", "Content-Length: 5, 5"),
        ("two different", "Content-Length: 5\r\nContent-Length: 6"),
        ("a list of different ones", "Content-Length: 5, 6"),
        ("the second empty", "Content-Length: 5\r\nContent-Length:"),
    ] {
        bench.expect_refused(case, format!("{}hello", head(lines)), &[400]);
    }
}

#[test]
fn a_content_length_that_is_no_plain_number_is_refused() {
    let bench = Bench::new();
    for value in [
        "+5",
        "-1",
        "-0",
        "0x5",
        "5.0",
        "5 5",
        "1_0",
        "",
        "٥",
        "5,",
        "five",
        "1e1",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        bench.expect_refused(
            value,
            format!("{}hello", head(&format!("Content-Length: {value}"))),
            &[400],
        );
    }
}

#[test]
fn a_transfer_coding_other_than_exactly_chunked_is_refused() {
    let bench = Bench::new();
    for lines in [
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\u{c}",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    ] {
        bench.expect_refused(lines, format!("{}0\r\n\r\n", head(lines)), &[400, 501]);
    }
    let old = "POST /case HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    bench.expect_refused("HTTP/1.0", old, &[400, 501]);
}

#[test]
fn variants_of_the_field_name_do_not_smuggle_a_coding() {
    let bench = Bench::new();
    bench.expect_refused(
        "blank before the colon",
        head("Transfer-Encoding : chunked\r\nContent-Length: 0"),
        &[400],
    );
    bench.expect_refused(
        "blank before the name",
        head(" Transfer-Encoding: chunked\r\nContent-Length: 0"),
        &[400],
    );
    bench.expect_refused(
        "tab before the colon",
        head("Transfer-Encoding\t: chunked\r\nContent-Length: 0"),
        &[400],
    );

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
fn broken_chunks_never_make_a_complete_message() {
    let bench = Bench::new();
    for (case, body) in [
        ("hex prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("blank before CRLF", "5 \r\nhello\r\n0\r\n\r\n"),
        ("blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("underscore", "5_0\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("no digit", "g\r\nhello\r\n0\r\n\r\n"),
        ("overflow", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        (
            "many digits",
            "00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare CR after the size", "5\rhello\r\n0\r\n\r\n"),
        ("no CRLF after the data", "5\r\nhello0\r\n\r\n"),
        ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("data longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
        ("data shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
        ("bare LF in an extension", "5;a=\nb\r\nhello\r\n0\r\n\r\n"),
        ("NUL in an extension", "5;a=\0b\r\nhello\r\n0\r\n\r\n"),
    ] {
        let bytes = format!("{}{body}", head("Transfer-Encoding: chunked"));
        // A body that ends too early would wait for more: the client says that there is none.
        let before = bench.origin.count();
        let mut client = bench.gateway.connect();
        let _ = client.write(&bytes);
        client.half_close();
        let answered = client.read_response().map(|response| response.status);
        assert!(
            client.closed_within(CLOSING).is_some(),
            "{case}: the connection stayed open"
        );
        if let Ok(status) = answered {
            assert!(matches!(status, 400 | 408 | 413 | 501), "{case}: {status}");
        }
        let received = bench.origin.requests().split_off(before);
        assert!(
            received.iter().all(|request| !request.complete),
            "{case}: {received:#?}"
        );
        bench.expect_alive(case);
    }
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
fn bare_line_feeds_are_refused() {
    let bench = Bench::new();
    bench.expect_all_refused(
        &[
            ("request line", "GET /case HTTP/1.1\nHost: a\r\n\r\n"),
            (
                "header line",
                "GET /case HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
            ),
            ("empty line", "GET /case HTTP/1.1\r\nHost: a\r\n\n"),
            ("everywhere", "GET /case HTTP/1.1\nHost: a\n\n"),
        ],
        &[400],
    );
}

#[test]
fn control_characters_in_the_head_are_refused() {
    let bench = Bench::new();
    bench.expect_all_refused(
        &[
            (
                "bare CR in a value",
                "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\rX-C: d\r\n\r\n",
            ),
            (
                "bare CR in the request line",
                "GET /case\r HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("CR CR LF", "GET /case HTTP/1.1\r\r\nHost: a\r\n\r\n"),
            ("NUL", "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n"),
            (
                "bell",
                "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\x07c\r\n\r\n",
            ),
            (
                "escape",
                "GET /case HTTP/1.1\r\nHost: a\r\nX-A: \x1b[2J\r\n\r\n",
            ),
            (
                "DEL",
                "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\x7fc\r\n\r\n",
            ),
        ],
        &[400],
    );

    let tab = "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\tc\r\nConnection: close\r\n\r\n";
    let seen = bench.try_out("a tab inside a value", tab.as_bytes());
    assert_eq!(
        (seen.statuses(), seen.received[0].header("X-A")),
        (vec![200], Some("b\tc"))
    );
}

#[test]
fn folded_lines_are_refused() {
    let bench = Bench::new();
    bench.expect_all_refused(
        &[
            (
                "blank",
                "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
            ),
            (
                "tab",
                "GET /case HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n",
            ),
            (
                "first line",
                "GET /case HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n",
            ),
            (
                "a folded coding",
                "POST /case HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            ),
        ],
        &[400],
    );
}

#[test]
fn illegal_field_names_are_refused() {
    let bench = Bench::new();
    let mut names: Vec<Vec<u8>> =
        br#" "(),/;<=>?@[\]{}"#.iter().map(|byte| vec![b'X', *byte, b'A']).collect();
    names.extend([
        vec![b'X', 1],
        vec![b'X', 0x7f],
        vec![b'X', 0x80],
        "Ünï".into(),
        Vec::new(),
        b"X-A ".to_vec(),
    ]);
    for name in names {
        let bytes = [
            b"GET /case HTTP/1.1\r\nHost: a\r\n",
            name.as_slice(),
            b": b\r\n\r\n",
        ]
        .concat();
        bench.expect_refused(
            &format!("name {:?}", String::from_utf8_lossy(&name)),
            bytes,
            &[400],
        );
    }
    bench.expect_refused(
        "no colon",
        "GET /case HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
        &[400],
    );
    bench.expect_refused(
        "no colon in the first line",
        "GET /case HTTP/1.1\r\nnonsense\r\nHost: a\r\n\r\n",
        &[400],
    );
}

#[test]
fn broken_request_lines_are_refused() {
    let bench = Bench::new();
    bench.expect_all_refused(
        &[
            ("no version", "GET /case\r\nHost: a\r\n\r\n"),
            ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("method alone", "GET\r\nHost: a\r\n\r\n"),
            (
                "two blanks before the target",
                "GET  /case HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "two blanks before the version",
                "GET /case  HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("blank at the end", "GET /case HTTP/1.1 \r\nHost: a\r\n\r\n"),
            (
                "tab as separator",
                "GET\t/case\tHTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("leading blank", " GET /case HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("four parts", "GET /case x HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "lower-case version",
                "GET /case http/1.1\r\nHost: a\r\n\r\n",
            ),
            ("HTTP/2.0", "GET /case HTTP/2.0\r\nHost: a\r\n\r\n"),
            ("HTTP/3", "GET /case HTTP/3\r\nHost: a\r\n\r\n"),
            ("HTTP/1.10", "GET /case HTTP/1.10\r\nHost: a\r\n\r\n"),
            ("HTTP/1", "GET /case HTTP/1\r\nHost: a\r\n\r\n"),
            ("other protocol", "GET /case ICY/1.1\r\nHost: a\r\n\r\n"),
            ("HTTP/0.9", "GET /case\r\n\r\n"),
        ],
        &[400, 505],
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
fn illegal_methods_are_refused() {
    let bench = Bench::new();
    for method in ["G(T", "GE\"T", "G@T", "GET:", "G\u{e9}T", ""] {
        bench.expect_refused(
            method,
            format!("{method} /case HTTP/1.1\r\nHost: a\r\n\r\n"),
            &[400, 501],
        );
    }
    let long = "M".repeat(33);
    bench.expect_refused(
        "33 letters",
        format!("{long} /case HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[400, 501],
    );
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
fn a_target_and_a_host_that_disagree_never_reach_the_origin_as_two_hosts() {
    let bench = Bench::new();
    let bytes = "GET http://a.test/case HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n";

    let seen = bench.try_out("disagreement", bytes.as_bytes());

    match seen.statuses().as_slice() {
        [400] => assert_eq!(seen.received.len(), 0),
        statuses => {
            assert_eq!(statuses, [200]);
            assert_eq!(seen.received[0].header("X-Forwarded-Host"), Some("a.test"));
        }
    }
}

#[test]
fn illegal_targets_are_refused() {
    let bench = Bench::new();
    bench.expect_all_refused(
        &[
            ("blank", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("tab", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("NUL", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "control character",
                "GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("DEL", "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("no leading slash", "GET case HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("query alone", "GET ?case HTTP/1.1\r\nHost: a\r\n\r\n"),
        ],
        &[400],
    );
}

#[test]
fn fragments_and_raw_bytes_are_refused_or_made_harmless() {
    let bench = Bench::new();
    for (case, target, forwarded) in [
        ("fragment", "/case#part", "/case"),
        ("non-ASCII bytes", "/caf\u{e9}", "/caf%C3%A9"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let seen = bench.try_out(case, bytes.as_bytes());
        match seen.statuses().as_slice() {
            [400] => assert_eq!(seen.received.len(), 0, "{case}"),
            statuses => {
                assert_eq!(
                    (statuses, seen.received[0].target.as_str()),
                    (&[200][..], forwarded),
                    "{case}"
                );
            }
        }
    }
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
fn illegal_hosts_are_refused() {
    let bench = Bench::new();
    bench.expect_all_refused(
        &[
            ("none", "GET /case HTTP/1.1\r\n\r\n"),
            ("two", "GET /case HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            (
                "two equal",
                "GET /case HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            ),
            ("blank", "GET /case HTTP/1.1\r\nHost: a b\r\n\r\n"),
            ("userinfo", "GET /case HTTP/1.1\r\nHost: user@a\r\n\r\n"),
            ("path", "GET /case HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            ("list", "GET /case HTTP/1.1\r\nHost: a, b\r\n\r\n"),
            (
                "port with letters",
                "GET /case HTTP/1.1\r\nHost: a:8x\r\n\r\n",
            ),
            (
                "port too large",
                "GET /case HTTP/1.1\r\nHost: a:65536\r\n\r\n",
            ),
            ("two ports", "GET /case HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
            (
                "control character",
                "GET /case HTTP/1.1\r\nHost: a\x01\r\n\r\n",
            ),
            ("query", "GET /case HTTP/1.1\r\nHost: a?b\r\n\r\n"),
        ],
        &[400],
    );
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
