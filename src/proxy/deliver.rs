//! Step 6: the response head on its way to the client.

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::{
    exchange::Exchange,
    forward::{VIA, appended},
    health, hop_by_hop,
    reply::{REQUEST_ID, SERVER, request_id, run_response_phase},
};
use crate::{plugin::Source, state::State};

const UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
const PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
const UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-kong-upstream-status");

/// Shapes an upstream's response head for the client and runs the response phase of the chain.
///
/// # Errors
/// When a header cannot be set, which is a bug of ours.
pub(super) fn deliver(
    session: &mut Session,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
    state: &State,
    draining: bool,
) -> Result<()> {
    if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    let switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !exchange.forward.tunnel {
        return Err(Error::explain(
            ErrorType::InvalidHTTPHeader,
            "the upstream switches protocols without being asked",
        )
        .into_up());
    }
    health::note_status(exchange, response.status.as_u16(), &state.clock);
    exchange.outcome.status = response.status.as_u16();
    exchange.outcome.source = Source::Upstream;
    exchange
        .forward
        .answered_at
        .get_or_insert_with(|| state.clock.instant());
    if draining {
        session.set_keepalive(None);
    }
    let trailers = session.req_header().headers.contains_key(header::TE);
    hop_by_hop::remove_from_response(response, switching, trailers);
    if session.req_header().version == Version::HTTP_10 {
        // Chunks mean nothing to this client: the end of the connection ends the body.
        if response.headers.contains_key(header::TRANSFER_ENCODING) {
            response.remove_header(&header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
    }
    add_own(response, exchange)?;
    if switching
        && let (Some(connection), Some(service)) = (&exchange.connection, exchange.service())
    {
        let silence = service.timeouts.read.min(service.timeouts.write);
        connection.wire.begin_tunnel(silence);
    }
    run_response_phase(exchange, response, Source::Upstream, &state.telemetry);
    Ok(())
}

fn add_own(response: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    let tokens = exchange.snapshot.settings.tokens;
    let forward = &exchange.forward;
    if tokens.upstream_latency
        && let (Some(sent), Some(answered)) = (forward.sent_at, forward.answered_at)
    {
        response.insert_header(UPSTREAM_LATENCY, milliseconds(answered - sent))?;
    }
    if tokens.proxy_latency
        && let Some(sent) = forward.sent_at
    {
        response.insert_header(PROXY_LATENCY, milliseconds(sent - exchange.began))?;
    }
    if tokens.upstream_status {
        response.insert_header(UPSTREAM_STATUS, HeaderValue::from(response.status.as_u16()))?;
    }
    if tokens.via {
        let via = appended(
            &response.headers,
            &header::VIA,
            &HeaderValue::from_static(VIA),
        );
        response.insert_header(header::VIA, via)?;
    }
    if tokens.server && !response.headers.contains_key(header::SERVER) {
        response.insert_header(header::SERVER, SERVER)?;
    }
    if tokens.request_id {
        response.insert_header(REQUEST_ID, request_id(exchange))?;
    }
    if exchange.debug_wanted {
        add_debug(response, exchange)?;
    }
    Ok(())
}

fn add_debug(response: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    if let Some(route) = exchange.route() {
        response.insert_header("Kong-Route-Id", route.facts.id.to_string())?;
        if let Some(name) = &route.facts.name {
            response.insert_header("Kong-Route-Name", name.as_str())?;
        }
    }
    if let Some(service) = exchange.service() {
        response.insert_header("Kong-Service-Id", service.facts.id.to_string())?;
        if let Some(name) = &service.facts.name {
            response.insert_header("Kong-Service-Name", name.as_str())?;
        }
    }
    Ok(())
}

fn milliseconds(duration: std::time::Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
