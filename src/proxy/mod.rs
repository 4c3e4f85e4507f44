//! The path of a request, step by step, in the order of the modules. Pingora's callback names
//! appear here and nowhere else; each callback only delegates.

pub mod access_log;
pub mod connection;
pub mod drain;
pub mod listener;

mod chunks;
mod head;
mod http2;
mod idle;
mod own_lines;
mod proxy_protocol;
mod secure;
mod spelling;
mod stream;
mod transport;

pub mod rehearse;

mod exchange;
mod framing;
mod hop_by_hop;
mod parse;
mod receive;
mod route;

mod admit;
mod body;

mod affinity;
mod forward;
mod health;
mod lease;
pub mod mirror;
mod retry;
mod shape;
pub(crate) mod verify;

mod deliver;
mod inspect;

mod error_body;
mod failure;
mod reply;

mod record;

use std::{any::Any, os::fd::RawFd, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::{
    Error, Result, modules::http::HttpModules, protocols::Digest, upstreams::peer::HttpPeer,
};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::{plugin::Reply, snapshot::live::Live, state::State};
use access_log::AccessLog;
use drain::Drain;
use exchange::{Arrived, Exchange};
use mirror::Mirrors;

/// The gateway behind every listener.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub live: Arc<Live>,
    pub state: Arc<State>,
    pub drain: Arc<Drain>,
    pub access_log: Arc<AccessLog>,
    /// The connections of copies that go to mirrors.
    pub mirrors: Arc<Mirrors>,
}

impl Gateway {
    fn exchange(&self) -> Exchange {
        Exchange::new(
            self.live.take(),
            self.state.identifiers.request_id(),
            self.state.clock.instant(),
        )
    }

    /// Steps 1 to 3.
    async fn admit(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<(), Box<Reply>> {
        receive::receive(session, exchange)?;
        route::find(exchange)?;
        admit::admit(session, exchange, &self.state.telemetry).await
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    // Boxed, because Pingora moves it from one future into the next.
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Box<Exchange> {
        Box::new(self.exchange())
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default registers a compression module that costs every request and is off.
    }

    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        exchange: &mut Box<Exchange>,
        facts: Box<dyn Any + Send + Sync>,
    ) {
        if let Ok(arrived) = facts.downcast::<Arrived>() {
            exchange.take_in(*arrived);
        }
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        exchange: &mut Box<Exchange>,
    ) -> Result<bool> {
        match self.admit(session, exchange).await {
            Ok(()) => Ok(false),
            Err(reply) => {
                if self.drain.is_draining() {
                    session.set_keepalive(None);
                }
                reply::send(session, exchange, *reply, &self.state.telemetry).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        exchange: &mut Box<Exchange>,
    ) -> Result<Box<HttpPeer>> {
        forward::peer(exchange, &self.state).await
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        peer: &HttpPeer,
        _descriptor: RawFd,
        connection: Option<&Digest>,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        verify::check(peer, connection, exchange, &self.state.clock)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        shape::shape(session, request, exchange, &self.state.clock).await?;
        mirror::begin(session, exchange, self)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        receive::limit_body(body.as_ref(), exchange)?;
        mirror::append(exchange, body.as_ref(), ends, self);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Box<Exchange>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        retry::after_connect_failure(exchange, &mut error, &self.state);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Box<Exchange>,
        is_shared: bool,
    ) -> Box<Error> {
        let from_pool = forward::is_from_pool(exchange, is_shared);
        retry::after_exchange_failure(session, exchange, &mut error, from_pool, &self.state);
        error
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Box<Exchange>,
    ) -> Result<()> {
        deliver::deliver(
            session,
            response,
            exchange,
            &self.state,
            self.drain.is_draining(),
        )
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Box<Exchange>,
    ) -> FailToProxy {
        let answered = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational() || head.status == 101);
        let reply = match exchange.outcome.failure.take() {
            Some(reply) => Some(*reply),
            None => failure::reply(error),
        };
        if !answered && let Some(reply) = reply {
            // Where the request stands on the wire is not known after a failure.
            session.set_keepalive(None);
            // If the client is gone as well there is nobody to tell.
            let _ = reply::send(session, exchange, reply, &self.state.telemetry).await;
        }
        FailToProxy {
            error_code: exchange.outcome.status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        exchange: &mut Box<Exchange>,
    ) {
        record::record(Some(session), error, exchange, self);
    }

    fn suppress_error_log(&self, _: &Session, _: &Box<Exchange>, _: &Error) -> bool {
        // The record says it once, in our own terms.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<Exchange>,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
