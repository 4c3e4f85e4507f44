//! A wrapper around a client's connection: a stream type of our own, and facts that travel with it.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session};
use tokio::io::AsyncReadExt;

use super::bed::{Bed, PATIENCE, peer, proxy};
use super::connection::Connection;
use crate::harness::{Origin, Request, free_port, wait_until};

/// What the wrapper knows of a connection, and the proxy of its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Facts {
    requests: u32,
}

struct Hooks {
    port: u16,
    /// The facts delivered with each request.
    delivered: Arc<Mutex<Vec<Facts>>>,
}

#[async_trait]
impl ProxyHttp for Hooks {
    type CTX = Option<Facts>;

    fn new_ctx(&self) -> Option<Facts> {
        None
    }

    fn on_connection_reuse(
        &self,
        _: &mut Session,
        ctx: &mut Option<Facts>,
        facts: Box<dyn Any + Send + Sync>,
    ) {
        let facts = *facts.downcast::<Facts>().expect("the type that was sent");
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(facts);
        *ctx = Some(facts);
    }

    fn persist_connection_context(
        &self,
        _: &Session,
        ctx: &Option<Facts>,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        ctx.map(|facts| {
            Box::new(Facts {
                requests: facts.requests + 1,
            }) as Box<_>
        })
    }

    async fn request_filter(&self, session: &mut Session, _: &mut Option<Facts>) -> Result<bool> {
        let replies = session.req_header().uri.path() == "/reply";
        if replies {
            reply(session, 403).await?;
        }
        Ok(replies)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        _: &mut Option<Facts>,
    ) -> Result<Box<HttpPeer>> {
        let unreachable = session.req_header().uri.path() == "/unreachable";
        Ok(peer(if unreachable { free_port() } else { self.port }))
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        _: &Error,
        _: &mut Option<Facts>,
    ) -> FailToProxy {
        reply(session, 502).await.expect("a client that listens");
        FailToProxy {
            error_code: 502,
            can_reuse_downstream: true,
        }
    }
}

async fn reply(session: &mut Session, status: u16) -> Result<()> {
    let mut response = ResponseHeader::build(status, None)?;
    response.insert_header("Content-Length", 0)?;
    session
        .write_response_header(Box::new(response), true)
        .await
}

/// Reads the first bytes of each request itself, then lets Pingora have them.
struct Wrapper {
    proxy: Arc<HttpProxy<Hooks>>,
    /// How often the connection came back from Pingora as our own type.
    returned: Arc<Mutex<u32>>,
}

#[async_trait]
impl ServerApp for Wrapper {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let mut connection = Box::new(Connection::new(stream));
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            let mut start = BytesMut::new();
            connection
                .read_buf(&mut start)
                .await
                .ok()
                .filter(|length| *length > 0)?;
            connection.put_back(start.freeze());
            let mut session = ServerSession::new_http1(connection);
            match settings {
                Some(settings) => HttpPersistentSettings::apply_to_session(settings, &mut session),
                None => session.set_connection_user_context(Some(Box::new(Facts { requests: 0 }))),
            }
            let (stream, kept) = self
                .proxy
                .process_new_http(session, shutdown)
                .await?
                .consume();
            settings = kept;
            connection = stream.into_any().downcast().ok()?;
            *self.returned.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }
}

struct Scene {
    origin: Origin,
    bed: Bed,
    delivered: Arc<Mutex<Vec<Facts>>>,
    returned: Arc<Mutex<u32>>,
}

impl Scene {
    fn new() -> Self {
        let (origin, delivered, returned) = (Origin::echoing(), Arc::default(), Arc::default());
        let hooks = Hooks {
            port: origin.port(),
            delivered: Arc::clone(&delivered),
        };
        let bed = Bed::serving(Wrapper {
            proxy: Arc::new(proxy(hooks)),
            returned: Arc::clone(&returned),
        });
        Self {
            origin,
            bed,
            delivered,
            returned,
        }
    }

    fn delivered(&self) -> Vec<u32> {
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|facts| facts.requests)
            .collect()
    }

    fn returned(&self) -> u32 {
        *self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn facts_set_before_the_first_request_are_delivered_with_it_and_travel_from_request_to_request() {
    let scene = Scene::new();
    let mut client = scene.bed.client();

    for target in ["/", "/reply", "/"] {
        client.send(&Request::get(target));
    }

    assert_eq!(scene.delivered(), [0, 1, 2]);
    scene.bed.client().send(&Request::get("/"));
    assert_eq!(
        scene.delivered(),
        [0, 1, 2, 0],
        "another connection has its own"
    );
}

#[test]
fn a_stream_of_our_own_type_carries_requests_and_comes_back() {
    let scene = Scene::new();
    let mut client = scene.bed.client();

    for size in [0, 100, 200_000] {
        let response = client.send(&Request::post("/", vec![b'x'; size]));
        assert_eq!((response.status, response.body.len()), (200, size));
    }

    assert_eq!(scene.origin.count(), 3);
    wait_until("the connection to come back three times", || {
        scene.returned() == 3
    });
}

#[test]
fn a_connection_that_closes_does_not_come_back() {
    let scene = Scene::new();
    let mut client = scene.bed.client();

    client.send(&Request::get("/").header("Connection", "close"));

    assert!(client.closed_within(PATIENCE).is_some());
    assert_eq!(scene.returned(), 0);
}

#[test]
fn a_failed_upstream_closes_the_clients_connection_although_fail_to_proxy_would_keep_it() {
    let scene = Scene::new();
    let mut client = scene.bed.client();

    let response = client.send(&Request::get("/unreachable"));

    // So whoever replies there has to announce the close: Pingora promises the opposite.
    assert_eq!(
        (response.status, response.header("connection")),
        (502, Some("keep-alive"))
    );
    assert!(client.closed_within(PATIENCE).is_some());
}
