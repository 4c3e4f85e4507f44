//! Whole request bodies in `request_filter`: what is lost, and how it is given back.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora_core::protocols::http::ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session};

use super::bed::{Bed, PATIENCE, peer};
use super::whole_body::{put_back_body, read_whole_body};
use crate::harness::{Client, Origin, Reply, Request, Response, free_port};

const LIMIT: usize = 4 * 1024 * 1024;

/// Reads every request's whole body in `request_filter`; the body is edited by nobody.
struct Reader {
    /// Origins in the order in which they are tried.
    ports: Vec<u16>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Rely on the buffer that Pingora replays.
    Nothing,
    PutBack,
    /// Put it back, and again before every retry.
    PutBackAgain,
    /// Let the client's next request wait on the connection, and put the body back.
    PutBackPipelined,
}

#[derive(Default)]
struct Exchange {
    body: Option<Bytes>,
    tries: usize,
}

#[async_trait]
impl ProxyHttp for Reader {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Exchange) -> Result<bool> {
        session
            .req_header_mut()
            .insert_header("X-Noted", "before the body")?;
        if self.then == Then::Nothing {
            session.enable_retry_buffering();
            while session.read_request_body().await?.is_some() {}
            return Ok(false);
        }
        session.set_pipelining_enabled(self.then == Then::PutBackPipelined);
        let Some(body) = read_whole_body(&mut session.downstream_session, LIMIT).await? else {
            session.set_keepalive(None);
            let mut response = ResponseHeader::build(413, None)?;
            response.insert_header("Content-Length", 0)?;
            session
                .write_response_header(Box::new(response), true)
                .await?;
            return Ok(true);
        };
        Box::pin(put_back_body(&mut session.downstream_session, &body)).await?;
        ctx.body = Some(body);
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        let port = self.ports[ctx.tries.min(self.ports.len() - 1)];
        ctx.tries += 1;
        if let (Then::PutBackAgain, Some(body), 2..) = (self.then, &ctx.body, ctx.tries) {
            Box::pin(put_back_body(&mut session.downstream_session, body)).await?;
        }
        let mut peer = peer(port);
        if self.then == Then::Nothing {
            peer.options.read_timeout = Some(Duration::from_millis(300));
        }
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        _: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        error.set_retry(true);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        _: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Exchange,
        _: bool,
    ) -> Box<Error> {
        error.set_retry(ctx.tries < self.ports.len());
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut Exchange,
    ) -> Result<()> {
        let client = session
            .client_addr()
            .map(ToString::to_string)
            .unwrap_or_default();
        request.insert_header("X-Client", client)
    }
}

fn reading(ports: &[u16], then: Then) -> Bed {
    Bed::proxying(Reader {
        ports: ports.to_vec(),
        then,
    })
}

fn body(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

const SIZES: [usize; 3] = [10_000, 100_000, 3_000_000];

#[test]
fn a_body_read_early_is_replayed_up_to_64_kib() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::Nothing);

    for size in [1, 10_000, 64 * 1024] {
        let response = bed.client().send(&Request::post("/", body(size)));
        assert_eq!(
            (response.status, response.body == body(size)),
            (200, true),
            "{size} bytes"
        );
    }
}

#[test]
fn a_longer_body_read_early_is_lost_while_its_length_is_announced() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::Nothing);

    let response = bed.client().send(&Request::post("/", body(64 * 1024 + 1)));

    assert_eq!(
        response.status, 502,
        "the origin waits for the body until the proxy gives up"
    );
    assert_eq!(origin.last().header("content-length"), Some("65537"));
    assert_eq!(origin.last().body.len(), 0);
}

#[test]
fn a_body_put_back_arrives_whole_with_its_length_on_a_connection_that_stays_usable() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);
    let mut client = bed.client();

    for size in SIZES {
        for request in [
            Request::post("/sized", body(size)),
            Request::new("POST", "/chunked").chunked(body(size), 7_000),
        ] {
            let response = client.send(&request);

            assert_eq!(
                (response.status, response.body == body(size)),
                (200, true),
                "{size} bytes"
            );
            assert_eq!(
                origin.last().header("content-length"),
                Some(size.to_string().as_str())
            );
            assert_eq!(origin.last().header("transfer-encoding"), None);
            assert!(!response.announces_close());
        }
    }
    assert_eq!(client.send(&Request::get("/after")).status, 200);
}

#[test]
fn what_was_done_to_the_request_and_whose_it_is_survive() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);

    bed.client().send(
        &Request::post("/a%2Fb?c=d", body(100_000))
            .header("X-Given", "once")
            .header("X-Given", "twice"),
    );

    let received = origin.last();
    assert_eq!(
        (received.method.as_str(), received.target.as_str()),
        ("POST", "/a%2Fb?c=d")
    );
    assert_eq!(received.headers("x-given"), ["once", "twice"]);
    assert_eq!(received.header("x-noted"), Some("before the body"));
    assert!(
        received
            .header("x-client")
            .is_some_and(|client| client.starts_with("127.0.0.1:"))
    );
}

#[test]
fn a_request_without_a_body_passes() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);
    let mut client = bed.client();

    assert_eq!(client.send(&Request::get("/")).status, 200);
    assert_eq!(
        client
            .send(&Request::new("POST", "/").chunked("", 10))
            .status,
        200
    );
    assert_eq!(client.send(&Request::get("/")).status, 200);
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_once() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);
    let mut client = bed.client();

    let head = "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n";
    client.write(head).unwrap();
    assert_eq!(
        client.read_head().unwrap().start_line,
        "HTTP/1.1 100 Continue"
    );
    client.write(body(100_000)).unwrap();
    let response = client.read_response().unwrap();

    assert_eq!(
        (response.status, response.interim.as_slice()),
        (200, [].as_slice())
    );
    assert_eq!(response.body.len(), 100_000);
    assert_eq!(origin.last().header("expect"), None);
}

#[test]
fn a_body_announced_over_the_limit_is_refused_before_it_is_sent() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);
    let mut client = bed.client();

    let head = "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4194305\r\nExpect: 100-continue\r\n\r\n";
    client.write(head).unwrap();
    let response = client.read_response().unwrap();

    assert_eq!(
        (response.status, response.interim.as_slice()),
        (413, [].as_slice())
    );
    assert!(response.announces_close());
    assert!(client.closed_within(PATIENCE).is_some());
}

#[test]
fn a_chunked_body_that_grows_over_the_limit_is_refused() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);
    let mut client = bed.client();

    client.write_in_background(
        Request::new("POST", "/")
            .chunked(body(LIMIT + 1), 60_000)
            .bytes(),
    );

    assert_eq!(
        client
            .read_response()
            .map(|response| response.status)
            .unwrap(),
        413
    );
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_retry_after_a_failed_connect_sends_the_body() {
    let origin = Origin::echoing();
    for size in SIZES {
        let bed = reading(&[free_port(), origin.port()], Then::PutBack);

        let response = bed
            .client()
            .send(&Request::new("POST", "/").chunked(body(size), 50_000));

        assert_eq!(
            (response.status, response.body == body(size)),
            (200, true),
            "{size} bytes"
        );
    }
}

#[test]
fn a_retry_after_the_body_was_sent_needs_the_body_put_back_again() {
    let failing = Origin::start(|_| Reply::close());
    let origin = Origin::echoing();
    let retried = |then, size| -> Response {
        let bed = reading(&[failing.port(), origin.port()], then);
        let mut client = bed.client();
        let response = client.send(&Request::post("/", body(size)));
        assert!(
            response.status != 200 || client.send(&Request::get("/")).status == 200,
            "usable afterwards"
        );
        response
    };

    for size in SIZES {
        let response = retried(Then::PutBackAgain, size);
        assert_eq!(
            (response.status, response.body == body(size)),
            (200, true),
            "{size} bytes"
        );
    }
    let sent = failing
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST");
    assert_eq!(
        sent.map(|request| request.body.len()).collect::<Vec<_>>(),
        SIZES
    );
}

#[test]
fn a_client_that_wants_its_connection_closed_gets_that() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBack);
    let sends = |request: &Request| -> (Response, Client) {
        let mut client = bed.client();
        (client.send(request), client)
    };

    let (response, mut client) =
        sends(&Request::post("/", body(100_000)).header("Connection", "close"));
    assert!(response.announces_close() && response.body.len() == 100_000);
    assert!(client.closed_within(PATIENCE).is_some());

    let (response, mut client) = sends(&Request::post("/", body(100_000)).version("HTTP/1.0"));
    assert!(response.announces_close() && response.body.len() == 100_000);
    assert!(client.closed_within(PATIENCE).is_some());
}

#[test]
fn a_next_request_sent_too_early_fares_as_without_putting_back() {
    let origin = Origin::echoing();
    let first_of_two = |then, size| {
        let bed = reading(&[origin.port()], then);
        let mut client = bed.client();
        client
            .write(
                [
                    Request::post("/first", body(size)).bytes(),
                    Request::get("/second").bytes(),
                ]
                .concat(),
            )
            .unwrap();
        let response = client.read_response().unwrap();
        (
            response.status,
            response.body.len(),
            client.closed_within(PATIENCE),
        )
    };

    for then in [Then::Nothing, Then::PutBack] {
        // Read along with the first request: dropped, and the close tells the client.
        assert_eq!(first_of_two(then, 100), (200, 100, Some(Vec::new())));
        // Still unread when proxying watches the client: Pingora takes it for too long a body.
        assert_eq!(first_of_two(then, 10_000), (400, 0, Some(Vec::new())));
    }
}

#[test]
fn a_next_request_sent_too_early_is_answered_if_the_session_pipelines() {
    let origin = Origin::echoing();
    let bed = reading(&[origin.port()], Then::PutBackPipelined);

    for size in [100, 10_000, 100_000] {
        let mut client = bed.client();
        client
            .write(
                [
                    Request::post("/first", body(size)).bytes(),
                    Request::get("/second").bytes(),
                ]
                .concat(),
            )
            .unwrap();
        assert_eq!(client.read_response().unwrap().body.len(), size);
        assert_eq!(client.read_response().unwrap().status, 200);
        assert_eq!(origin.last().target, "/second");
    }
}

/// Why the body is put back on the connection and not into the bytes that a session starts with.
#[tokio::test]
async fn a_session_takes_no_more_than_1_mib_to_start_with() {
    for (size, parsed) in [(1_000_000, true), (1_100_000, false)] {
        let mut session = ServerSession::new_http1(Box::new(std::io::Cursor::new(Vec::new())));
        let request = Request::post("/", body(size)).bytes();
        session.set_pipelined_prefix(BytesMut::from(request.as_slice()));

        assert_eq!(session.read_request().await.is_ok(), parsed, "{size} bytes");
    }
}
