//! Rewriting the bodies of origins that compress.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session};

use super::bed::{Bed, peer};
use crate::harness::{Origin, Received, Reply, Request};

/// `hello` in gzip.
const HELLO: [u8; 25] = [
    0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0x86, 0xa6,
    0x10, 0x36, 0x05, 0, 0, 0,
];

/// Turns bodies to upper case, unless they are encoded.
struct Shouter {
    port: u16,
    ask: Ask,
}

#[derive(Clone, Copy, PartialEq)]
enum Ask {
    AsTheClientDid,
    ForIdentity,
    /// And let Pingora decode what comes encoded nevertheless.
    ForIdentityAndDecode,
}

#[async_trait]
impl ProxyHttp for Shouter {
    type CTX = bool;

    fn new_ctx(&self) -> bool {
        false
    }

    async fn upstream_peer(&self, session: &mut Session, _: &mut bool) -> Result<Box<HttpPeer>> {
        if self.ask == Ask::ForIdentityAndDecode {
            session.upstream_compression.adjust_decompression(true);
        }
        Ok(peer(self.port))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        _: &mut bool,
    ) -> Result<()> {
        if self.ask != Ask::AsTheClientDid {
            request.remove_header("Accept-Encoding");
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        rewrites: &mut bool,
    ) -> Result<()> {
        *rewrites = !response.headers.contains_key("Content-Encoding");
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        rewrites: &mut bool,
    ) -> Result<Option<Duration>> {
        if *rewrites {
            *body = body.take().map(|body| body.to_ascii_uppercase().into());
        }
        Ok(None)
    }
}

fn gzipped() -> Reply {
    Reply::ok(HELLO).header("Content-Encoding", "gzip")
}

/// Compresses for those who accept it.
fn polite(request: &Received) -> Reply {
    match request.header("accept-encoding") {
        Some(accepted) if accepted.contains("gzip") => gzipped(),
        _ => Reply::ok("hello"),
    }
}

fn ask(origin: &Origin, ask: Ask) -> (Option<String>, Vec<u8>) {
    let bed = Bed::proxying(Shouter {
        port: origin.port(),
        ask,
    });
    let response = bed
        .client()
        .send(&Request::get("/").header("Accept-Encoding", "gzip, br"));
    assert!(response.complete);
    (
        response.header("content-encoding").map(str::to_owned),
        response.body,
    )
}

#[test]
fn what_the_client_accepts_reaches_the_origin() {
    let origin = Origin::start(polite);

    assert_eq!(
        ask(&origin, Ask::AsTheClientDid),
        (Some("gzip".to_owned()), HELLO.to_vec())
    );
    assert_eq!(origin.last().header("accept-encoding"), Some("gzip, br"));
}

#[test]
fn an_origin_that_is_not_told_what_the_client_accepts_sends_identity() {
    let origin = Origin::start(polite);

    assert_eq!(ask(&origin, Ask::ForIdentity), (None, b"HELLO".to_vec()));
    assert_eq!(origin.last().header("accept-encoding"), None);
}

#[test]
fn an_origin_that_compresses_all_the_same_is_known_by_its_header() {
    let origin = Origin::start(|_| gzipped());

    assert_eq!(
        ask(&origin, Ask::ForIdentity),
        (Some("gzip".to_owned()), HELLO.to_vec())
    );
}

#[test]
fn pingora_decodes_what_was_not_asked_for_before_the_filters_see_it() {
    let origin = Origin::start(|_| gzipped());

    assert_eq!(
        ask(&origin, Ask::ForIdentityAndDecode),
        (None, b"HELLO".to_vec())
    );
}
