//! Step 5, the request itself: what the member of a try gets of it.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{
    exchange::{Connection, Exchange},
    forward::host_header,
    framing::{self, FRAMING},
    hop_by_hop::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO},
    own_lines::{Lines, OwnLines},
    receive::raw_path,
    reply::REQUEST_ID,
};
use crate::{
    entity::{
        fields::Fields,
        message::{Headers, RequestHead},
    },
    router::path::{encode_for_wire, is_fit_for_wire, is_kept, join},
    snapshot::Service,
    state::clock::Clock,
};

static FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
static FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
static CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject-dn");
static CLIENT_ISSUER: HeaderName = HeaderName::from_static("x-client-cert-issuer-dn");
static CLIENT_SERIAL: HeaderName = HeaderName::from_static("x-client-cert-serial");
static CLIENT_FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// What is not passed on as it came.
const WRITTEN_ANEW: Fields = Fields::HOST
    .and(Fields::EXPECT)
    .and(Fields::TE)
    .and(Fields::TRAILER)
    .and(Fields::VIA)
    .and(Fields::FORWARDED_FOR)
    .and(Fields::REAL_IP)
    .and(Fields::REQUEST_ID);
/// What is passed on as it came if a trusted peer says it.
const BELIEVED: Fields = Fields::FORWARDED_PROTO
    .and(Fields::FORWARDED_HOST)
    .and(Fields::FORWARDED_PORT)
    .and(Fields::FORWARDED_PATH)
    .and(Fields::FORWARDED_PREFIX);
/// How many fields the gateway adds to a request.
const ADDED_FIELDS: usize = 12;
/// Most heads for upstreams are shorter.
const HEAD_BYTES: usize = 1024;
/// What the gateway calls itself in `Via`.
pub(super) const VIA: &str = concat!("1.1 tollgate/", env!("CARGO_PKG_VERSION"));

/// Shapes the request for the upstream.
///
/// # Errors
/// When the client is gone, when an upstream for gRPC speaks HTTP/1 only, or when a path is not
/// sendable, which is a bug of ours.
pub(super) async fn shape(
    session: &mut Session,
    request: &mut RequestHeader,
    exchange: &mut Exchange,
    clock: &Clock,
) -> Result<()> {
    let is_call = exchange
        .service()
        .is_some_and(|service| service.protocol.is_grpc());
    if is_call && request.version != Version::HTTP_2 {
        return Err(
            Error::explain(ErrorType::InvalidH2, "the upstream does not speak HTTP/2").into_up(),
        );
    }
    if exchange.head.headers.contains_key(header::EXPECT)
        && !exchange.forward.continued
        && exchange.head.version != Version::HTTP_10
        && !session.as_downstream_mut().is_body_done()
    {
        session
            .as_downstream_mut()
            .write_continue_response()
            .await
            .map_err(Error::into_down)?;
        exchange.forward.continued = true;
    }
    let now = clock.instant();
    *request = if let Some(dial) = &exchange.forward.dial {
        let (target, prefix) = target(exchange, exchange.service())?;
        let request = framing::request(&exchange.head, target);
        let mut lines = OwnLines::new(framing::request_line_bytes(&request), HEAD_BYTES);
        write_lines(&mut lines, exchange, prefix);
        dial.follow_head(lines, now);
        request
    } else {
        let mut head = whole(exchange)?;
        head.version = request.version;
        // HTTP/2 frames messages by itself (RFC 9113 §8.2.2).
        for name in [
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
        ] {
            head.headers.remove(name);
        }
        framing::whole_request(head)
    };
    exchange.forward.sent_at = Some(now);
    Ok(())
}

/// The whole head that the member of the current try gets.
///
/// # Errors
/// When a path is not sendable, which is a bug of ours.
pub(super) fn whole(exchange: &Exchange) -> Result<RequestHead> {
    let (uri, prefix) = target(exchange, exchange.service())?;
    let mut headers = Headers::with_capacity(exchange.head.headers.len() + ADDED_FIELDS);
    for (name, value) in framing::lines_of(&exchange.head, FRAMING) {
        headers.append(name, value.clone());
    }
    write_lines(&mut headers, exchange, prefix);
    Ok(RequestHead {
        method: exchange.head.method.clone(),
        uri,
        version: Version::HTTP_11,
        headers,
    })
}

/// Path and query for `service`, and the prefix that was cut off the path.
///
/// # Errors
/// When a path is not sendable, which is a bug of ours.
pub(super) fn target(
    exchange: &Exchange,
    service: Option<&Service>,
) -> Result<(Uri, Option<HeaderValue>)> {
    let client = &exchange.head;
    let sent = raw_path(client);
    let (Some(route), Some(service)) = (exchange.route(), service) else {
        return Ok((client.uri.clone(), None));
    };
    if sent == b"*" {
        return Ok((client.uri.clone(), None));
    }
    let normal = exchange.normal_path.as_deref().unwrap_or(sent);
    // A route without paths counts as one for `/`.
    let cut = route.strip_path.then(|| exchange.matched.unwrap_or(1));
    let unchanged = cut.is_none_or(|bytes| is_kept(normal, bytes))
        && service.path.is_none()
        && exchange.normal_path.is_none()
        && exchange.forward.directions.query.is_none();
    if unchanged && is_fit_for_wire(sent) {
        return Ok((client.uri.clone(), None));
    }
    let path = join(service.path.as_deref(), normal, cut, route.path_handling);
    let mut target = encode_for_wire(&path).into_owned();
    let query = exchange.forward.directions.query.as_deref();
    match query {
        Some("") => {}
        Some(query) => {
            target.push('?');
            target.push_str(query);
        }
        None => {
            if let Some(query) = client.uri.query() {
                target.push('?');
                target.push_str(query);
            }
        }
    }
    let uri = Uri::from_maybe_shared(Bytes::from(target)).map_err(|error| {
        Error::because(
            ErrorType::InternalError,
            "an upstream path is not a URI",
            error,
        )
    })?;
    let prefix = cut
        .and_then(|bytes| normal.get(..bytes))
        .filter(|prefix| *prefix != b"/" && !prefix.is_empty())
        .map(encode_for_wire)
        .and_then(|prefix| HeaderValue::from_str(&prefix).ok());
    Ok((uri, prefix))
}

/// Writes the fields that the member of the current try gets, but for those that frame the message.
fn write_lines(lines: &mut impl Lines, exchange: &Exchange, prefix: Option<HeaderValue>) {
    let client = &exchange.head.headers;
    let forward = &exchange.forward;
    if let (Some(route), Some(service), Some(member)) =
        (exchange.route(), exchange.service(), &forward.member)
    {
        let host = host_header(&exchange.head, route, service, member);
        lines.add(&header::HOST, host.as_bytes());
    }
    let connection = exchange.connection.as_deref();
    let proved = connection.and_then(|connection| connection.tls.as_ref()?.client.as_ref());
    let mut dropped = FRAMING.and(WRITTEN_ANEW);
    if !exchange.trusted {
        dropped = dropped.and(BELIEVED);
    }
    if proved.is_some() {
        dropped = dropped.and(Fields::CERTIFICATE);
    }
    let mut fields = Fields::default();
    for (field, name, value) in client.iter_fields() {
        fields = fields.and(field);
        if !field.has(dropped) {
            lines.add(name, value.as_bytes());
        }
    }
    if fields.has(Fields::TE) && te_trailers(client) {
        lines.add(&header::TE, b"trailers");
    }
    if let Some(connection) = connection {
        write_forwarding(lines, (fields, prefix), exchange, connection);
    }
    if let Some(proved) = proved {
        lines.add(&CLIENT_SUBJECT, proved.subject.as_bytes());
        lines.add(&CLIENT_ISSUER, proved.issuer.as_bytes());
        lines.add(&CLIENT_SERIAL, proved.serial.as_bytes());
        lines.add(&CLIENT_FINGERPRINT, proved.fingerprint.as_bytes());
    }
    if exchange.snapshot.settings.upstream_request_id {
        lines.add(&REQUEST_ID, exchange.id.as_bytes());
    }
}

/// Tells the upstream who asked for what, and how it came here. `fields` are those that came; `prefix` was cut
/// off the path.
fn write_forwarding(
    lines: &mut impl Lines,
    (fields, prefix): (Fields, Option<HeaderValue>),
    exchange: &Exchange,
    connection: &Connection,
) {
    let client = &exchange.head;
    let ip = &connection.ip_header;
    if fields.has(Fields::FORWARDED_FOR) {
        let chain = appended(&client.headers, &FORWARDED_FOR, ip);
        lines.add(&FORWARDED_FOR, chain.as_bytes());
    } else {
        lines.add(&FORWARDED_FOR, ip.as_bytes());
    }
    if exchange.client.ip == connection.ip {
        lines.add(&REAL_IP, ip.as_bytes());
    } else {
        lines.add(&REAL_IP, exchange.client.ip.to_string().as_bytes());
    }
    let is_kept = |field| exchange.trusted && fields.has(field);
    if !is_kept(Fields::FORWARDED_PROTO) {
        lines.add(&FORWARDED_PROTO, connection.scheme.as_str().as_bytes());
    }
    if !is_kept(Fields::FORWARDED_HOST) {
        lines.add(&FORWARDED_HOST, &exchange.host);
    }
    if !is_kept(Fields::FORWARDED_PORT) {
        let outer = outer_port(exchange, connection);
        let port = outer.as_ref().unwrap_or(&connection.port_header);
        lines.add(&FORWARDED_PORT, port.as_bytes());
    }
    if !is_kept(Fields::FORWARDED_PATH) {
        lines.add(&FORWARDED_PATH, raw_path(client));
    }
    if let Some(prefix) = prefix.filter(|_| !is_kept(Fields::FORWARDED_PREFIX)) {
        lines.add(&FORWARDED_PREFIX, prefix.as_bytes());
    }
    if fields.has(Fields::VIA) {
        let via = appended(
            &client.headers,
            &header::VIA,
            &HeaderValue::from_static(VIA),
        );
        lines.add(&header::VIA, via.as_bytes());
    } else {
        lines.add(&header::VIA, VIA.as_bytes());
    }
}

/// The port that clients connect to, where that is another than the listener's.
fn outer_port(exchange: &Exchange, connection: &Connection) -> Option<HeaderValue> {
    let maps = &exchange.snapshot.settings.port_maps;
    let map = maps.iter().find(|(inner, _)| *inner == connection.port);
    map.map(|(_, outer)| HeaderValue::from(*outer))
}

/// All lines of `name` and `value` behind them, as one list.
pub(super) fn appended(headers: &Headers, name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let mut lines = headers.get_all(name).peekable();
    if lines.peek().is_none() {
        return value.clone();
    }
    let mut list = Vec::with_capacity(64);
    for line in lines {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value.as_bytes());
    HeaderValue::from_bytes(&list).unwrap_or_else(|_| value.clone())
}

fn te_trailers(headers: &Headers) -> bool {
    headers.get_all(header::TE).any(|line| {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_header_is_appended_to_over_all_its_lines() {
        let mut headers = Headers::default();
        let name = FORWARDED_FOR.clone();
        let peer = HeaderValue::from_static("10.0.0.1");
        assert_eq!(appended(&headers, &name, &peer), "10.0.0.1");
        headers.append(&name, HeaderValue::from_static("a"));
        headers.append(&name, HeaderValue::from_static("b, c"));
        assert_eq!(appended(&headers, &name, &peer), "a, b, c, 10.0.0.1");
    }

    #[test]
    fn te_is_passed_on_only_for_trailers() {
        let mut headers = Headers::default();
        headers.append(header::TE, HeaderValue::from_static("gzip, Trailers"));
        assert!(te_trailers(&headers));
        headers.insert(header::TE, HeaderValue::from_static("gzip"));
        assert!(!te_trailers(&headers));
    }
}
