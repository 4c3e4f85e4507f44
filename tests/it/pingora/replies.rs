//! Replies that a proxy writes itself in `request_filter`, and what becomes of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};

use super::bed::{Bed, PATIENCE};
use crate::harness::{Client, Request, wait_until};

const BODY: &str = "denied";

/// Replies to every request with the status in its path, as in `/204`.
#[derive(Clone, Default)]
struct Replier {
    /// How long an unread request body may take to arrive for the sake of the connection.
    drain: Option<Duration>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    response_filter: AtomicUsize,
    module: AtomicUsize,
    logging: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Replier {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(self.clone()));
    }

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        if self.drain.is_some() {
            session.set_close_on_response_before_downstream_finish(false);
            session.set_total_drain_timeout(self.drain);
        }
        let status: u16 = session
            .req_header()
            .uri
            .path()
            .trim_start_matches('/')
            .parse()
            .expect("a status");
        let mut response = ResponseHeader::build(status, None)?;
        if !matches!(status, 204 | 304) {
            response.insert_header("Content-Length", BODY.len())?;
        }
        session
            .write_response_header(Box::new(response), false)
            .await?;
        session
            .write_response_body(Some(Bytes::from_static(BODY.as_bytes())), true)
            .await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Error::e_explain(
            ErrorType::InternalError,
            "every request has been answered before",
        )
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        _: &mut ResponseHeader,
        (): &mut (),
    ) -> Result<()> {
        self.seen.response_filter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn logging(&self, _: &mut Session, _: Option<&Error>, (): &mut ()) {
        self.seen.logging.fetch_add(1, Ordering::SeqCst);
    }
}

impl HttpModuleBuilder for Replier {
    fn init(&self) -> Module {
        Box::new(self.clone())
    }
}

#[async_trait]
impl HttpModule for Replier {
    async fn response_header_filter(&mut self, _: &mut ResponseHeader, _: bool) -> Result<()> {
        self.seen.module.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

fn draining(drain: Duration) -> Bed {
    Bed::proxying(Replier {
        drain: Some(drain),
        ..Replier::default()
    })
}

fn stays_usable(client: &mut Client) -> bool {
    client.send(&Request::get("/401")).body == BODY.as_bytes()
}

#[test]
fn only_modules_and_logging_see_a_reply() {
    let replier = Replier::default();
    let bed = Bed::proxying(replier.clone());

    bed.client().send(&Request::get("/401"));

    wait_until("the request to be logged", || {
        replier.seen.logging.load(Ordering::SeqCst) == 1
    });
    assert_eq!(replier.seen.module.load(Ordering::SeqCst), 1);
    assert_eq!(replier.seen.response_filter.load(Ordering::SeqCst), 0);
}

#[test]
fn a_reply_to_head_has_the_length_of_the_body_that_is_not_sent() {
    let bed = Bed::proxying(Replier::default());
    let mut client = bed.client();

    let response = client.send(&Request::new("HEAD", "/401"));

    assert_eq!(
        (response.status, response.header("content-length")),
        (401, Some("6"))
    );
    assert!(stays_usable(&mut client));
}

#[test]
fn a_body_written_after_a_204_or_304_is_not_sent() {
    let bed = Bed::proxying(Replier::default());
    let mut client = bed.client();

    for status in [204, 304] {
        let response = client.send(&Request::get(&format!("/{status}")));
        assert_eq!(
            (response.status, response.header("content-length")),
            (status, None)
        );
        assert!(stays_usable(&mut client));
    }
}

#[test]
fn an_http_1_0_client_keeps_its_connection_only_if_it_asks_to() {
    let bed = Bed::proxying(Replier::default());

    let mut client = bed.client();
    let response = client.send(
        &Request::get("/401")
            .version("HTTP/1.0")
            .header("Connection", "keep-alive"),
    );
    assert_eq!(
        (response.header("connection"), response.body.as_slice()),
        (Some("keep-alive"), BODY.as_bytes())
    );
    assert!(stays_usable(&mut client));

    let mut client = bed.client();
    let response = client.send(&Request::get("/401").version("HTTP/1.0"));
    assert_eq!(
        (response.header("connection"), response.body.as_slice()),
        (Some("close"), BODY.as_bytes())
    );
    assert!(client.closed_within(PATIENCE).is_some());
}

#[test]
fn a_reply_before_the_request_body_is_read_closes_the_connection_by_default() {
    let bed = Bed::proxying(Replier::default());
    let mut client = bed.client();

    // The body is in the same packet, so "unread" is what counts, not "not yet there".
    let response = client.send(&Request::post("/401", "small"));

    assert!(response.announces_close());
    assert!(client.closed_within(PATIENCE).is_some());
}

#[test]
fn an_unread_request_body_can_be_drained_whatever_its_size() {
    let bed = draining(PATIENCE);
    let mut client = bed.client();

    for request in [
        Request::post("/401", "small"),
        Request::post("/401", vec![b'x'; 300_000]),
    ] {
        let response = client.send(&request);
        assert_eq!((response.status, response.announces_close()), (401, false));
        assert!(stays_usable(&mut client));
    }
}

#[test]
fn draining_ends_at_its_deadline_although_the_reply_promised_to_stay() {
    let bed = draining(Duration::from_millis(100));
    let mut client = bed.client();

    client
        .write("POST /401 HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 1000\r\n\r\nhalf")
        .unwrap();
    let response = client.read_response().unwrap();

    assert_eq!((response.status, response.announces_close()), (401, false));
    assert!(client.closed_within(PATIENCE).is_some());
}
