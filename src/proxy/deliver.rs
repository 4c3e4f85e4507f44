//! Step 6: the response head on its way to the client.

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::{
    affinity,
    exchange::Exchange,
    framing, health, hop_by_hop, inspect,
    receive::is_websocket,
    reply::{REQUEST_ID, SERVER, request_id, run_response_phase},
    retry,
    shape::{VIA, appended},
};
use crate::{
    entity::{
        fields::Fields,
        message::{Headers, ResponseHead},
        number,
    },
    plugin::Source,
    state::State,
};

static UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
static PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
static UPSTREAM_STATUS: HeaderName = HeaderName::from_static("x-kong-upstream-status");
static ROUTE_ID: HeaderName = HeaderName::from_static("kong-route-id");
static ROUTE_NAME: HeaderName = HeaderName::from_static("kong-route-name");
static SERVICE_ID: HeaderName = HeaderName::from_static("kong-service-id");
static SERVICE_NAME: HeaderName = HeaderName::from_static("kong-service-name");

/// Shapes an upstream's response head for the client and runs the response phase of the chain.
///
/// # Errors
/// When the request goes upstream once more instead; when the upstream switches protocols without
/// being asked.
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
    let status = response.status.as_u16();
    let phrase = unusual_phrase(response);
    let mut head = framing::take_response(response);
    if switching && !(exchange.forward.tunnel && is_websocket(&head.headers)) {
        return Err(Error::explain(
            ErrorType::InvalidHTTPHeader,
            "the upstream switches protocols without being asked",
        )
        .into_up());
    }
    let fields = head.headers.fields();
    inspect::check(&head, fields)?;
    health::note_status(exchange, status);
    retry::check_status(session, exchange, status, state)?;
    health::judge_status(exchange, status);
    exchange.outcome.status = status;
    exchange.outcome.source = Source::Upstream;
    exchange
        .forward
        .answered_at
        .get_or_insert_with(|| state.clock.instant());
    if draining {
        session.set_keepalive(None);
    }
    if fields.has(
        Fields::CONNECTION
            .and(Fields::UPGRADE)
            .and(Fields::TRAILER)
            .and(Fields::HOP),
    ) {
        let trailers = exchange.head.headers.contains_key(header::TE);
        hop_by_hop::remove_from_response(&mut head.headers, switching, trailers);
    }
    // Chunks mean nothing to a client of HTTP/1.0: the end of the connection ends the body.
    if exchange.head.version == Version::HTTP_10 && head.headers.remove(header::TRANSFER_ENCODING) {
        session.set_keepalive(None);
    }
    add_own(&mut head, fields, exchange);
    if switching
        && let (Some(connection), Some(service)) = (&exchange.connection, exchange.service())
    {
        let silence = service.timeouts.read.min(service.timeouts.write);
        connection.wire.begin_tunnel(silence);
    }
    run_response_phase(exchange, &mut head, Source::Upstream, &state.telemetry);
    *response = framing::give_response(head, exchange);
    match phrase {
        Some(phrase) => response.set_reason_phrase(Some(&phrase)),
        None => Ok(()),
    }
}

/// The reason phrase, if it is not the customary one of the status.
fn unusual_phrase(response: &ResponseHeader) -> Option<String> {
    let phrase = response.get_reason_phrase()?;
    (response.status.canonical_reason() != Some(phrase)).then(|| phrase.to_owned())
}

fn add_own(response: &mut ResponseHead, fields: Fields, exchange: &Exchange) {
    let tokens = exchange.snapshot.settings.tokens;
    let forward = &exchange.forward;
    let status = response.status.as_u16();
    let headers = &mut response.headers;
    // Most upstreams send no field whose name begins like these.
    let has_extensions = fields.has(Fields::X);
    let mut set = |name: &HeaderName, value: HeaderValue| {
        if has_extensions {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    };
    if tokens.upstream_latency
        && let (Some(sent), Some(answered)) = (forward.sent_at, forward.answered_at)
    {
        set(&UPSTREAM_LATENCY, milliseconds(answered - sent));
    }
    if tokens.proxy_latency
        && let Some(sent) = forward.sent_at
    {
        set(&PROXY_LATENCY, milliseconds(sent - exchange.began));
    }
    if tokens.upstream_status {
        set(&UPSTREAM_STATUS, status.into());
    }
    if tokens.request_id {
        set(&REQUEST_ID, request_id(exchange));
    }
    if tokens.via {
        let mut via = HeaderValue::from_static(VIA);
        if fields.has(Fields::VIA) {
            via = appended(headers, &header::VIA, &via);
        }
        headers.insert(header::VIA, via);
    }
    if tokens.server && !fields.has(Fields::SERVER) {
        headers.append(header::SERVER, SERVER);
    }
    let cookie = exchange.service();
    if let Some(cookie) = cookie.and_then(|service| affinity::cookie(service, forward)) {
        headers.append(header::SET_COOKIE, cookie);
    }
    if exchange.debug_wanted {
        add_debug(headers, exchange);
    }
}

fn add_debug(headers: &mut Headers, exchange: &Exchange) {
    let mut set = |name: &HeaderName, value: &str| {
        // Names of entities hold letters, digits and a few marks.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if let Some(route) = exchange.route() {
        set(&ROUTE_ID, &route.facts.id.to_string());
        if let Some(name) = &route.facts.name {
            set(&ROUTE_NAME, name);
        }
    }
    if let Some(service) = exchange.service() {
        set(&SERVICE_ID, &service.facts.id.to_string());
        if let Some(name) = &service.facts.name {
            set(&SERVICE_NAME, name);
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> HeaderValue {
    number::header(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
