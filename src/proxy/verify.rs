//! Whether the upstream behind a new or pooled connection is who it should be. Asked before anything
//! is sent.

use pingora_core::{
    Result,
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
        Some(service) => judge(service, peer, connection, clock),
        None => Ok(()),
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
        if tls.may_say(clock.unix_milliseconds()) {
            warn!(
                service = service.facts.label,
                address = %peer.address(),
                server_name = peer.sni,
                "the certificate of an upstream was not accepted: {}",
                error.context.as_ref().map_or("", |context| context.as_str())
            );
        }
    })
}
