//! Which hooks see a response that comes from the cache, and which of them see where its body ends.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use pingora_cache::{CacheKey, CacheMeta, MemCache, RespCacheable};
use pingora_core::modules::http::{HttpModule, HttpModuleBuilder, HttpModules, Module};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};

use super::bed::{Bed, peer};
use crate::harness::{Client, Origin, Received, Reply, Request, wait_for};

/// Caches `/fresh` for a minute and `/stale` for no time at all; `/uncached` never.
#[derive(Clone)]
struct Cacher {
    port: u16,
    store: &'static MemCache,
    seen: Journal,
}

/// What the hooks saw of the requests so far.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<Event>>>);

#[derive(Clone, Debug, PartialEq)]
enum Event {
    UpstreamHeader,
    /// The header in `response_filter`.
    Header(Header),
    /// The end of the body in `response_body_filter`.
    FilterEnd,
    /// The end of the body in a downstream module, with the length of what it saw.
    ModuleEnd(usize),
    Logged,
}

#[derive(Clone, Debug, PartialEq)]
struct Header {
    status: u16,
    fields: Vec<(String, String)>,
}

impl From<&ResponseHeader> for Header {
    fn from(response: &ResponseHeader) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let fields = response.headers.iter();
        let fields = fields
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        Self {
            status: response.status.as_u16(),
            fields,
        }
    }
}

impl Journal {
    fn note(&self, event: Event) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
    }

    /// Waits for the end of the request and takes what was noted.
    fn take(&self) -> Vec<Event> {
        wait_for("the request to be logged", Duration::from_secs(15), || {
            let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            events
                .contains(&Event::Logged)
                .then(|| mem::take(&mut *events))
        })
    }
}

#[async_trait]
impl ProxyHttp for Cacher {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(self.clone()));
    }

    fn request_cache_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        if session.req_header().uri.path() != "/uncached" {
            session.cache.enable(self.store, None, None, None, None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, (): &mut ()) -> Result<CacheKey> {
        Ok(CacheKey::new(
            session.req_header().uri.path().as_bytes(),
            String::new(),
        ))
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        (): &mut (),
    ) -> Result<RespCacheable> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the cache compares with the wall clock"
        )]
        let now = SystemTime::now();
        let fresh = if session.req_header().uri.path() == "/fresh" {
            Duration::from_mins(1)
        } else {
            Duration::ZERO
        };
        Ok(RespCacheable::Cacheable(CacheMeta::new(
            now + fresh,
            now,
            0,
            0,
            response.clone(),
        )))
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(peer(self.port))
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        _: &mut ResponseHeader,
        (): &mut (),
    ) -> Result<()> {
        self.seen.note(Event::UpstreamHeader);
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        (): &mut (),
    ) -> Result<()> {
        self.seen.note(Event::Header(Header::from(&*response)));
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end: bool,
        (): &mut (),
    ) -> Result<Option<Duration>> {
        if end {
            self.seen.note(Event::FilterEnd);
        }
        Ok(None)
    }

    async fn logging(&self, _: &mut Session, _: Option<&Error>, (): &mut ()) {
        self.seen.note(Event::Logged);
    }
}

/// Adds up a body and notes where it ends.
struct Counter {
    seen: Journal,
    bytes: usize,
    ended: bool,
}

impl HttpModuleBuilder for Cacher {
    fn init(&self) -> Module {
        Box::new(Counter {
            seen: self.seen.clone(),
            bytes: 0,
            ended: false,
        })
    }
}

impl Counter {
    fn end(&mut self) {
        if !mem::replace(&mut self.ended, true) {
            self.seen.note(Event::ModuleEnd(self.bytes));
        }
    }
}

#[async_trait]
impl HttpModule for Counter {
    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        self.bytes += body.as_ref().map_or(0, Bytes::len);
        if end {
            self.end();
        }
        Ok(())
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        self.end();
        Ok(None)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

const BODY: &str = "the same body every time";

fn origin() -> Origin {
    Origin::start(|request: &Received| match request.header("if-none-match") {
        Some("\"v1\"") => Reply::status(304).header("ETag", "\"v1\""),
        _ => Reply::ok(BODY)
            .chunked(10)
            .header("ETag", "\"v1\"")
            .header("X-Origin", "one"),
    })
}

struct Scene {
    origin: Origin,
    seen: Journal,
    client: Client,
    _bed: Bed,
}

impl Scene {
    fn new() -> Self {
        let (origin, seen) = (origin(), Journal::default());
        let store = Box::leak(Box::new(MemCache::new()));
        let bed = Bed::proxying(Cacher {
            port: origin.port(),
            store,
            seen: seen.clone(),
        });
        Self {
            origin,
            seen,
            client: bed.client(),
            _bed: bed,
        }
    }

    /// What the hooks saw of one more request for `target`.
    fn get(&mut self, target: &str) -> Vec<Event> {
        let response = self.client.send(&Request::get(target));
        assert_eq!((response.status, response.text().as_str()), (200, BODY));
        self.seen.take()
    }
}

fn header(events: &[Event]) -> &Header {
    let mut headers = events.iter().filter_map(|event| match event {
        Event::Header(header) => Some(header),
        _ => None,
    });
    let header = headers.next().expect("a response header");
    assert_eq!(headers.next(), None, "one response header");
    header
}

#[test]
fn response_filter_sees_a_hit_as_it_saw_the_miss_and_upstream_response_filter_does_not() {
    let mut scene = Scene::new();

    let (miss, hit) = (scene.get("/fresh"), scene.get("/fresh"));

    assert_eq!(scene.origin.count(), 1);
    assert!(miss.contains(&Event::UpstreamHeader));
    assert!(!hit.contains(&Event::UpstreamHeader));
    let mut expected = header(&miss).clone();
    expected.fields.push(("age".to_owned(), "0".to_owned()));
    assert_eq!(header(&hit), &expected);
}

#[test]
fn response_filter_sees_a_revalidated_response_whole() {
    let mut scene = Scene::new();

    let (miss, revalidated) = (scene.get("/stale"), scene.get("/stale"));

    assert_eq!(scene.origin.last().header("if-none-match"), Some("\"v1\""));
    assert!(
        revalidated.contains(&Event::UpstreamHeader),
        "it sees the bare 304"
    );
    assert_eq!(header(&miss), header(&revalidated));
}

#[test]
fn a_module_sees_the_end_of_every_body() {
    let mut scene = Scene::new();

    for target in ["/uncached", "/fresh", "/fresh", "/stale", "/stale"] {
        let events = scene.get(target);
        assert!(
            events.contains(&Event::ModuleEnd(BODY.len())),
            "{target}: {events:?}"
        );
    }
}

#[test]
fn response_body_filter_is_not_told_the_end_of_a_body_that_enters_the_cache() {
    let mut scene = Scene::new();

    for (target, told) in [
        ("/uncached", true),
        ("/fresh", false),
        ("/fresh", true),
        ("/stale", false),
        ("/stale", false),
    ] {
        let events = scene.get(target);
        assert_eq!(
            events.contains(&Event::FilterEnd),
            told,
            "{target}: {events:?}"
        );
    }
}

#[test]
fn a_conditional_request_is_answered_from_the_cache_through_response_filter() {
    let mut scene = Scene::new();
    scene.get("/fresh");

    let response = scene
        .client
        .send(&Request::get("/fresh").header("If-None-Match", "\"v1\""));

    let events = scene.seen.take();
    assert_eq!((response.status, header(&events).status), (304, 304));
    assert!(
        !events.iter().any(|event| matches!(event, Event::FilterEnd)),
        "{events:?}"
    );
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::ModuleEnd(_))),
        "{events:?}"
    );
}
