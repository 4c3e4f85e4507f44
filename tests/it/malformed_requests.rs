//! Some two hundred malformed and ambiguous requests in one table, byte by byte. Behind each of them
//! stands another request, which must never be served. All along a neighbour keeps its connection.

#![expect(clippy::float_cmp, reason = "what is counted is whole")]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Client, Gateway, Origin, Reply, Request, one_service, wait_until};

/// What stands behind each malformed request.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Long enough for a lingering close, which may take two seconds.
const CLOSING: Duration = Duration::from_secs(8);

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Answered with one of these, and the origin hears nothing.
    Refused(&'static [u16]),
    /// Refused, or broken off after the origin saw a part of it: never a whole message.
    NeverWhole,
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    fate: Fate,
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, name: impl Into<String>, bytes: impl AsRef<[u8]>, fate: Fate) {
        let (name, bytes) = (name.into(), bytes.as_ref().to_vec());
        self.0.push(Case { name, bytes, fate });
    }

    /// Heads with these lines below a request line and Host, and a body that fits `Content-Length: 5`.
    fn lines(&mut self, group: &str, fate: Fate, lines: &[&str]) {
        for line in lines {
            let bytes = format!("POST /case HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n0\r\n\r\n");
            self.add(format!("{group}: {line:?}"), bytes, fate);
        }
    }

    /// Whole heads.
    fn heads(&mut self, group: &str, fate: Fate, heads: &[&[u8]]) {
        for head in heads {
            let name = format!("{group}: {:?}", String::from_utf8_lossy(head));
            self.add(name, head, fate);
        }
    }

    fn request_lines(&mut self, group: &str, fate: Fate, lines: &[&[u8]]) {
        for line in lines {
            let bytes = [line, &b"\r\nHost: a.test\r\n\r\n"[..]].concat();
            self.add(
                format!("{group}: {:?}", String::from_utf8_lossy(line)),
                bytes,
                fate,
            );
        }
    }

    fn hosts(&mut self, hosts: &[&[u8]]) {
        for host in hosts {
            let bytes = [&b"GET /case HTTP/1.1\r\nHost: "[..], host, b"\r\n\r\n"].concat();
            let name = format!("host: {:?}", String::from_utf8_lossy(host));
            self.add(name, bytes, Fate::Refused(&[400]));
        }
    }

    fn chunks(&mut self, group: &str, bodies: &[&[u8]]) {
        for body in bodies {
            let head = b"POST /case HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
            let name = format!("{group}: {:?}", String::from_utf8_lossy(body));
            self.add(name, [&head[..], body].concat(), Fate::NeverWhole);
        }
    }
}

const BAD: Fate = Fate::Refused(&[400]);
const BAD_OR_UNKNOWN: Fate = Fate::Refused(&[400, 501]);

#[expect(clippy::too_many_lines, reason = "a table is read from top to bottom")]
fn framing(table: &mut Table) {
    table.lines(
        "both framings",
        BAD,
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "content-length: 5\r\nX: y\r\ntransfer-encoding: CHUNKED",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nConnection: Content-Length",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding",
        ],
    );
    table.lines(
        "lengths",
        BAD,
        &[
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length:",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 0\r\nContent-Length: 5",
            "Content-Length: 5\r\ncontent-length: 5",
            "Content-Length: 5, 5",
            "Content-Length: 5,5",
            "Content-Length: 5, 6",
            "Content-Length: 5,",
            "Content-Length: ,5",
            "Content-Length: +5",
            "Content-Length: -1",
            "Content-Length: -0",
            "Content-Length: 0x5",
            "Content-Length: 5.0",
            "Content-Length: 5 5",
            "Content-Length: 5;",
            "Content-Length: \"5\"",
            "Content-Length: 1_0",
            "Content-Length: 1e1",
            "Content-Length: five",
            "Content-Length:",
            "Content-Length: \t",
            "Content-Length: \u{665}",
            "Content-Length: \u{a0}5",
            "Content-Length: 9223372036854775808",
            "Content-Length: 18446744073709551616",
            "Content-Length: 18446744073709551621",
            "Content-Length: 340282366920938463463374607431768211461",
        ],
    );
    table.lines(
        "codings",
        BAD_OR_UNKNOWN,
        &[
            "Transfer-Encoding:",
            "Transfer-Encoding: ,",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: chunke",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: 'chunked'",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked;",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding: chunked\u{b}",
            "Transfer-Encoding: chunked\u{c}",
            "Transfer-Encoding: \u{a0}chunked",
            "Transfer-Encoding: chun\tked",
            "Transfer-Encoding: chunked\0",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding:",
        ],
    );
    table.lines(
        "spellings of a coding",
        BAD,
        &[
            "Transfer-Encoding : chunked",
            "Transfer-Encoding : chunked\r\nContent-Length: 0",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "\tTransfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "Transfer-Encoding\0: chunked",
            "Transfer\u{ad}-Encoding: chunked",
            "Transfer-Encoding\u{b}: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Content-Length : 5",
            "Content-Length\r\n: 5",
            "X: y\rTransfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
        ],
    );
    table.heads(
        "codings of HTTP/1.0",
        BAD_OR_UNKNOWN,
        &[
            b"POST /case HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /case HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            b"POST /case HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    );
}

fn chunked_bodies(table: &mut Table) {
    table.chunks(
        "chunk sizes",
        &[
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\t\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b";a=b\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"5h\r\nhello\r\n0\r\n\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
        ],
    );
    table.chunks(
        "chunk framing",
        &[
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"4\r\nhello\r\n0\r\n\r\n",
            b"6\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\n\n",
            b"5\r\nhello\r\n0\r\n\n",
            b"5\r\nhello\r\n0\n\r\n",
            b"5\r\nhello\r\n0\r\r\n\r\n",
            b"5\r\nhello\r\nzz\r\n0\r\n\r\n",
            b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a=\0b\r\nhello\r\n0\r\n\r\n",
            b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a=\"\nb\"\r\nhello\r\n0\r\n\r\n",
        ],
    );
    table.chunks(
        "trailers",
        &[
            b"0\r\nnonsense\r\n\r\n",
            b"0\r\n: empty\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\nX: y\r\n folded\r\n\r\n",
            b"0\r\nX: y\0\r\n\r\n",
            b"0\r\nX: y\x01\r\n\r\n",
            b"0\r\nX: y\rz\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX(: y\r\n\r\n",
            b"0\r\nX\x80: y\r\n\r\n",
        ],
    );
    let head = "POST /case HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = |what: &str| what.replace("LONG", &"x".repeat(20_000));
    for (name, body) in [
        ("an endless extension", long("5;LONG\r\nhello\r\n0\r\n\r\n")),
        (
            "many extensions",
            "1;abcdefghij\r\nx\r\n".repeat(2000) + "0\r\n\r\n",
        ),
        ("an endless trailer", long("0\r\nX: LONG\r\n\r\n")),
        (
            "many trailers",
            "0\r\n".to_owned() + &"X: y\r\n".repeat(4000) + "\r\n",
        ),
    ] {
        table.add(name, format!("{head}{body}"), Fate::NeverWhole);
    }
}

fn header_lines(table: &mut Table) {
    table.heads(
        "line ends",
        BAD,
        &[
            b"GET /case HTTP/1.1\nHost: a\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\r\n\n",
            b"GET /case HTTP/1.1\nHost: a\n\n",
            b"GET /case HTTP/1.1\r\r\nHost: a\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\r\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\r\n\r\r\n",
            b"GET /case HTTP/1.1\rHost: a\r\rX\r\n\r\n",
            b"\r\n\r\n\r\nGET /case HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\nGET /case HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    for byte in (0..=8).chain(0xb..=0xc).chain(0xe..=0x1f).chain([0x7f]) {
        let bytes = [
            &b"GET /case HTTP/1.1\r\nHost: a\r\nX-A: b"[..],
            &[byte],
            b"c\r\n\r\n",
        ]
        .concat();
        table.add(format!("value with byte {byte}"), bytes, BAD);
    }
    for byte in (0..=0x20).chain(0x7f..=0x81).chain(*br#""(),/;<=>?@[\]{}"#) {
        // A line feed ends the line, which then has no colon.
        let bytes = [
            &b"GET /case HTTP/1.1\r\nHost: a\r\nX"[..],
            &[byte],
            b"A: b\r\n\r\n",
        ]
        .concat();
        table.add(format!("name with byte {byte}"), bytes, BAD);
    }
    table.lines(
        "fields",
        BAD,
        &[
            ": empty",
            "nonsense",
            "X-A",
            "X-A b",
            "\u{dc}n\u{ef}: b",
            "X-A: b\r\n folded",
            "X-A: b\r\n\tfolded",
            "X-A: b\r\n ",
            "X-A : b",
            "X-A\t: b",
        ],
    );
    table.heads(
        "first field",
        BAD,
        &[
            b"GET /case HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n",
            b"GET /case HTTP/1.1\r\n\tX: y\r\nHost: b\r\n\r\n",
            b"GET /case HTTP/1.1\r\nnonsense\r\nHost: a\r\n\r\n",
        ],
    );
}

#[expect(clippy::too_many_lines, reason = "a table is read from top to bottom")]
fn request_lines(table: &mut Table) {
    table.request_lines(
        "request line",
        Fate::Refused(&[400, 505]),
        &[
            b"GET",
            b"GET /case",
            b"GET HTTP/1.1",
            b"/case HTTP/1.1",
            b"GET  /case HTTP/1.1",
            b"GET /case  HTTP/1.1",
            b"GET /case HTTP/1.1 ",
            b" GET /case HTTP/1.1",
            b"\tGET /case HTTP/1.1",
            b"GET\t/case\tHTTP/1.1",
            b"GET\x0b/case HTTP/1.1",
            b"GET /case\x0cHTTP/1.1",
            b"GET /case x HTTP/1.1",
            b"GET /case http/1.1",
            b"GET /case Http/1.1",
            b"GET /case HTTP/1",
            b"GET /case HTTP/1.",
            b"GET /case HTTP/.1",
            b"GET /case HTTP/1.2",
            b"GET /case HTTP/1.9",
            b"GET /case HTTP/1.10",
            b"GET /case HTTP/1.1x",
            b"GET /case HTTP/01.1",
            b"GET /case HTTP/0.9",
            b"GET /case HTTP/2.0",
            b"GET /case HTTP/2",
            b"GET /case HTTP/3",
            b"GET /case HTTP/9.9",
            b"GET /case HTTP/-1.1",
            b"GET /case HTTP 1.1",
            b"GET /case HTTPS/1.1",
            b"GET /case ICY/1.1",
            b"GET /case \xef\xbc\xa8TTP/1.1",
        ],
    );
    table.request_lines(
        "method",
        BAD_OR_UNKNOWN,
        &[
            b"G(T /case HTTP/1.1",
            b"GE\"T /case HTTP/1.1",
            b"G@T /case HTTP/1.1",
            b"GET: /case HTTP/1.1",
            b"G\xe9T /case HTTP/1.1",
            b"G\0T /case HTTP/1.1",
            b"[GET] /case HTTP/1.1",
            b" /case HTTP/1.1",
            b"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM /case HTTP/1.1",
        ],
    );
    table.request_lines(
        "method that is never served",
        Fate::Refused(&[405]),
        &[
            b"CONNECT a.test:443 HTTP/1.1",
            b"CONNECT /case HTTP/1.1",
            b"TRACE /case HTTP/1.1",
        ],
    );
    table.request_lines(
        "target",
        BAD,
        &[
            b"GET case HTTP/1.1",
            b"GET ?case HTTP/1.1",
            b"GET * HTTP/1.1",
            b"GET a.test:80 HTTP/1.1",
            b"OPTIONS *x HTTP/1.1",
            b"GET /a\tb HTTP/1.1",
            b"GET /case\r HTTP/1.1",
            b"GET /a\0b HTTP/1.1",
            b"GET /a\x01b HTTP/1.1",
            b"GET /a\x7fb HTTP/1.1",
            b"GET /a\x80b HTTP/1.1",
            b"GET /caf\xc3\xa9 HTTP/1.1",
            b"GET /a#b HTTP/1.1",
            b"GET /?a#b HTTP/1.1",
            b"GET https://a.test/ HTTP/1.1",
            b"GET ftp://a.test/ HTTP/1.1",
            b"GET http:// HTTP/1.1",
            b"GET http:///case HTTP/1.1",
            b"GET http://user@a.test/case HTTP/1.1",
            b"GET http://a.test@b.test/case HTTP/1.1",
            b"GET http://a.test:/x:y/ HTTP/1.1",
            b"GET http://a.test:x/case HTTP/1.1",
            b"GET http://a.test:70000/case HTTP/1.1",
            b"GET http://b.test/case HTTP/1.1",
            b"GET http:/case HTTP/1.1",
            b"GET http:\\\\a.test\\case HTTP/1.1",
        ],
    );
    table.hosts(&[
        b"a b",
        b"a\tb",
        b"a,b",
        b"a, b",
        b"user@a",
        b"a/b",
        b"a\\b",
        b"a?b",
        b"a#b",
        b"a:8x",
        b"a:-1",
        b"a:+1",
        b"a:65536",
        b"a:080000",
        b"a:1:2",
        b"::1",
        b":80",
        b"[::1",
        b"[::1]x",
        b"[::1]:x",
        b"[]",
        b"[zz]",
        b"[[::1]]",
        b"[::1%eth0]",
        b"a\x01",
        b"a\xff",
        b"\"a\"",
        b"<a>",
    ]);
    table.heads(
        "hosts",
        BAD,
        &[
            b"GET /case HTTP/1.1\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            b"GET /case HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET /case HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET http://a/case HTTP/1.1\r\n\r\n",
            b"GET /case\r\n\r\n",
            b"GET http://a/case HTTP/1.1\r\nHost: b\r\n\r\n",
            b"GET http://a/case HTTP/1.1\r\nHost: a:81\r\n\r\n",
        ],
    );
}

fn sizes_and_strangers(table: &mut Table) {
    let get = "GET /case HTTP/1.1\r\nHost: a\r\n";
    for (name, bytes, statuses) in [
        (
            "a long request line",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000)),
            &[414][..],
        ),
        (
            "a long query",
            format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(60_000)),
            &[414],
        ),
        (
            "a request line without end",
            "G".repeat(20_000),
            &[400, 414],
        ),
        (
            "a long value",
            format!("{get}X: {}\r\n\r\n", "a".repeat(9000)),
            &[400, 431],
        ),
        (
            "a long name",
            format!("{get}{}: x\r\n\r\n", "a".repeat(9000)),
            &[400, 431],
        ),
        (
            "a large head",
            format!(
                "{get}{}\r\n",
                format!("X: {}\r\n", "a".repeat(4000)).repeat(10)
            ),
            &[400, 431],
        ),
        (
            "many fields",
            format!("{get}{}\r\n", "X: y\r\n".repeat(1100)),
            &[400, 431],
        ),
    ] {
        table.add(name, bytes, Fate::Refused(statuses));
    }
    table.lines(
        "expectations",
        Fate::Refused(&[417]),
        &["Expect: 200-ok", "Expect: 100-continue, x", "Expect:"],
    );
    table.heads(
        "other protocols",
        Fate::Refused(&[400, 405, 505]),
        &[
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
            b"\x16\x03\x01\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"\x80\x81\x82\xff\xfe\x00\x01\r\n",
            b"\0\0\0\0\r\n\r\n",
            b"EHLO mail.test\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"{\"jsonrpc\":\"2.0\"}\r\n\r\n",
        ],
    );
}

fn table() -> Vec<Case> {
    let mut table = Table::default();
    framing(&mut table);
    chunked_bodies(&mut table);
    header_lines(&mut table);
    request_lines(&mut table);
    sizes_and_strangers(&mut table);
    table.0
}

/// Whether every answer looks like one of the gateway's own.
fn expect_our_form(name: &str, response: &crate::harness::Response) {
    assert!(
        response.header("x-kong-request-id").is_some(),
        "{name}: an answer without request id: {:?}",
        response.head
    );
    let server = response.header("server").unwrap_or_default();
    assert!(server.starts_with("tollgate/"), "{name}: {server:?}");
    assert!(
        response.text().contains("request_id"),
        "{name}: {:?}",
        response.text()
    );
}

#[test]
fn two_hundred_malformed_requests_smuggle_nothing_and_disturb_nobody() {
    let cases = table();
    let distinct: BTreeSet<&[u8]> = cases.iter().map(|case| case.bytes.as_slice()).collect();
    assert!(distinct.len() >= 200, "{} distinct cases", distinct.len());
    assert_eq!(distinct.len(), cases.len(), "no case stands there twice");
    let origin =
        Origin::start(|request| Reply::ok(format!("{} {}", request.method, request.target)));
    let gateway = Gateway::start(&one_service(&origin));
    let mut neighbour = gateway.connect();
    let mut answered = 0;
    let mut failures = Vec::new();

    for Case { name, bytes, fate } in &cases {
        let before = origin.count();
        let mut client = gateway.connect();
        // An answer may come, and the connection be closed, before everything was taken.
        let _ = client.write([bytes.as_slice(), SMUGGLED].concat());
        let mut statuses = Vec::new();
        // What waits for more than there is must not wait for ever.
        if matches!(fate, Fate::NeverWhole) && !client.hears_within(Duration::from_millis(300)) {
            client.half_close();
        }
        while client.hears_within(CLOSING) {
            match client.read_response() {
                Ok(response) => {
                    expect_our_form(name, &response);
                    statuses.push(response.status);
                }
                Err(_) => break,
            }
        }
        answered += statuses.len();
        if client.closed_within(Duration::from_millis(1)).is_none() {
            failures.push(format!("{name}: open after {statuses:?}"));
        }
        assert_eq!(
            neighbour.send(&Request::get("/neighbour")).text(),
            "GET /neighbour",
            "{name}: the neighbour is served"
        );
        let mut received = origin.requests().split_off(before);
        received.retain(|request| request.target != "/neighbour");
        let whole = received.iter().any(|request| request.complete);
        let as_expected = match fate {
            Fate::Refused(allowed) => {
                received.is_empty() && matches!(statuses.as_slice(), [one] if allowed.contains(one))
            }
            Fate::NeverWhole => {
                !whole && matches!(statuses.as_slice(), [] | [400 | 408 | 413 | 501])
            }
        };
        if !as_expected {
            failures.push(format!(
                "{name}: {statuses:?} instead of {fate:?}; the origin received {received:#?}"
            ));
        }
    }

    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(origin.malformed(), Vec::<String>::new());
    let counted = gateway.metric("tollgate_replies_total");
    let expected = u32::try_from(answered).expect("a small number");
    assert!(counted >= f64::from(expected), "every answer is counted");
    wait_until("a line of the log for every answer", || {
        gateway.access_log().lines().count() >= answered + cases.len()
    });
    assert_eq!(gateway.metric("tollgate_panics_total"), 0.0);
}

/// Sends a request and reads what comes; 200 with the target that the origin saw, or a refusal in the
/// form of the gateway.
fn fate_of(gateway: &Gateway, origin: &Origin, bytes: &[u8]) -> Option<String> {
    let name = String::from_utf8_lossy(bytes).into_owned();
    let mut client: Client = gateway.connect();
    // A refusal may come before everything was taken.
    let _ = client.write(bytes);
    let response = client.read_response().expect("an answer");
    if response.status == 200 {
        return Some(origin.last().target);
    }
    assert_eq!(response.status, 400, "{name:?}");
    expect_our_form(&name, &response);
    None
}

#[test]
fn each_printable_byte_in_a_target_is_forwarded_unchanged_or_encoded_or_refused_in_our_form() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    for byte in 0x21..0x7f_u8 {
        let character = char::from(byte);
        for target in [format!("/a{character}b"), format!("/?a{character}b")] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let seen = fate_of(&gateway, &origin, bytes.as_bytes());
            let encoded = target.replace(character, &format!("%{byte:02X}"));
            assert!(
                seen.as_ref()
                    .is_none_or(|seen| *seen == target || *seen == encoded),
                "{target}: {seen:?}"
            );
        }
    }
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn each_printable_byte_in_a_host_is_taken_or_refused_in_our_form() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    for byte in 0x21..0x7f_u8 {
        let host = format!("a{}b.test", char::from(byte));
        for target in ["/case".to_owned(), format!("http://{host}/case")] {
            let bytes =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let seen = fate_of(&gateway, &origin, bytes.as_bytes());
            assert!(
                seen.as_ref().is_none_or(|seen| seen == "/case"),
                "{host}: {seen:?}"
            );
        }
    }
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn heads_at_the_limits_are_taken_or_refused_in_our_form() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with(
        "large_client_header_buffers: 64 256k",
        &one_service(&origin),
    );
    let mut cases: Vec<String> = (250..=260)
        .map(|count| {
            // Two of the fields are Host and Connection.
            let fields = "X: y\r\n".repeat(count - 2);
            format!("GET /case HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")
        })
        .collect();
    let line = "X: ".to_owned() + &"y".repeat(200_000) + "\r\n";
    for count in 1..=7 {
        let fields = line.repeat(count);
        cases.push(format!(
            "GET /case HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n"
        ));
    }
    for bytes in cases {
        fate_of(&gateway, &origin, bytes.as_bytes());
    }
    for length in [65_000, 65_533, 65_534, 65_535, 65_536, 70_000, 200_000] {
        let target = format!("/{}", "a".repeat(length - 1));
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut client = gateway.connect();
        client.write(&bytes).expect("written");
        let response = client.read_response().expect("an answer");
        if length > 65_534 {
            assert_eq!(response.status, 414, "{length}");
            expect_our_form("a long target", &response);
        } else {
            assert_eq!(response.status, 200, "{length}");
        }
    }
}

#[test]
fn odd_but_legal_requests_arrive_as_they_were_meant() {
    let origin = Origin::start(|request| Reply::ok(request.body.clone()));
    let gateway = Gateway::start(&one_service(&origin));
    let twenty: Vec<String> = (0..20).map(|number| format!("x-{number}")).collect();
    let many = format!("Connection: close, {}", twenty.join(", "));
    for (lines, body, expected) in [
        ("Content-Length: 5", "hello", "hello"),
        ("Content-Length:5", "hello", "hello"),
        ("Content-Length: \t 5 \t", "hello", "hello"),
        ("Content-Length: 0005", "hello", "hello"),
        (
            "Transfer-Encoding: CHUNKED",
            "5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "Transfer-Encoding:chunked",
            "05;a=b\r\nhello\r\n000\r\n\r\n",
            "hello",
        ),
        (
            "Transfer-Encoding: chunked\r\nTrailer: X",
            "5;\"a;b\"\r\nhello\r\n0\r\nX: y\r\nContent-Length: 7\r\n\r\n",
            "hello",
        ),
        (
            "Transfer_Encoding: chunked\r\nContent-Length: 5",
            "hello",
            "hello",
        ),
        ("Content_Length: 7\r\nContent-Length: 5", "hello", "hello"),
        ("X-Empty:\r\nContent-Length: 5", "hello", "hello"),
        ("X-High: \u{e9}\r\nContent-Length: 5", "hello", "hello"),
        (many.as_str(), "", ""),
        ("Upgrade: h2c\r\nContent-Length: 5", "hello", "hello"),
        (
            "Expect: 100-continue\r\nContent-Length: 5",
            "hello",
            "hello",
        ),
    ] {
        let before = origin.count();
        let bytes = format!(
            "POST /case HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}\
             GET /behind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        );
        let mut client = gateway.connect();
        client.write(&bytes).expect("written");
        let response = client.read_response().expect("an answer");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, expected),
            "{lines:?}"
        );
        let rest = client.closed_within(CLOSING);
        assert!(rest.is_some(), "{lines:?}");
        let received = origin.requests().split_off(before);
        let targets: Vec<&str> = received
            .iter()
            .map(|request| request.target.as_str())
            .collect();
        assert!(
            targets == ["/case", "/behind"] || targets == ["/case"],
            "{lines:?}: {targets:?}"
        );
        assert!(received.iter().all(|request| request.complete), "{lines:?}");
        assert!(
            received[0]
                .header("Trailer")
                .is_none_or(|names| !names.contains("Content-Length"))
        );
    }
    assert_eq!(origin.malformed(), Vec::<String>::new());
}
