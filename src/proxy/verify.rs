//! Whether the upstream behind a new or pooled connection that Pingora made is who it should be. Asked before
//! anything is sent. What the gateway connects by itself it has judged by then.

use std::net::SocketAddr;

use pingora_core::{
    Error, Result,
    protocols::Digest,
    upstreams::peer::{HttpPeer, Peer},
};
use tracing::warn;

use super::exchange::Exchange;
use crate::{snapshot::Service, state::clock::Clock};

/// Checks the certificate of the connection that the current try is about to use.
///
/// # Errors
/// When it was not accepted. The log says why, but not for every request.
pub(super) fn check(
    peer: &HttpPeer,
    connection: Option<&Digest>,
    exchange: &Exchange,
    clock: &Clock,
) -> Result<()> {
    match exchange.service() {
        Some(service) if exchange.forward.dial.is_none() => judge(service, peer, connection, clock),
        _ => Ok(()),
    }
}

/// Checks the certificate of a connection to `service`.
///
/// # Errors
/// See [`check`].
pub(super) fn judge(
    service: &Service,
    peer: &HttpPeer,
    connection: Option<&Digest>,
    clock: &Clock,
) -> Result<()> {
    let Some(tls) = &service.tls else {
        return Ok(());
    };
    tls.check(connection).inspect_err(|error| {
        let to = peer.address().as_inet().copied();
        complain(service, (to, Some(&peer.sni)), error, clock);
    })
}

/// Says why the certificate that an upstream showed at an address, for a name if that is known, was not accepted; but not
/// every time.
pub(crate) fn complain(
    service: &Service,
    (address, server_name): (Option<SocketAddr>, Option<&str>),
    error: &Error,
    clock: &Clock,
) {
    let says = service
        .tls
        .as_ref()
        .is_some_and(|tls| tls.may_say(clock.unix_milliseconds()));
    if says {
        warn!(
            service = service.facts.label,
            address = address.map(tracing::field::display),
            server_name,
            "the certificate of an upstream was not accepted: {}",
            error
                .context
                .as_ref()
                .map_or("", |context| context.as_str())
        );
    }
}
