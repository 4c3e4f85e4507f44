//! Step 1: who asks, for which host and path. Client address, normalisation, body limit.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;

use super::{
    exchange::{Exchange, Host},
    framing,
    hop_by_hop::{self, FORWARDED_FOR, FORWARDED_PROTO},
};
use crate::{
    entity::{
        fields::Fields,
        message::{Headers, RequestHead},
        path,
        reason::Reason,
    },
    plugin::{Client, MIRRORED, Reply, Scheme, names},
    snapshot::{RealIp, Settings, Trusted},
};

static KONG_DEBUG: HeaderName = HeaderName::from_static("kong-debug");

/// How long the rest of a body is awaited after a request was answered without it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest body that is read only to keep a connection.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;

/// Fills in what the request says of itself.
///
/// # Errors
/// A reply, if the request is refused as it is.
pub(super) fn receive(session: &mut Session, exchange: &mut Exchange) -> Result<(), Box<Reply>> {
    if let Some(arrived) = framing::take_arrived(session.as_downstream_mut()) {
        exchange.take_in(arrived);
    }
    let fields = exchange.head.headers.fields();
    set_limits(session, exchange, fields);
    read(exchange, fields)
}

/// The same without a session, for a head with these `fields`.
///
/// # Errors
/// See [`receive`].
pub(super) fn read(exchange: &mut Exchange, fields: Fields) -> Result<(), Box<Reply>> {
    let settings = &exchange.snapshot.settings;
    let head = &exchange.head;
    let Some(connection) = &exchange.connection else {
        return Err(Box::new(Reply::message(
            500,
            Reason::Internal,
            "An unexpected error occurred",
        )));
    };
    exchange.trusted = settings.trusted.contains(connection.ip);
    exchange.client = Client {
        ip: if exchange.trusted {
            real_ip(&head.headers, settings).unwrap_or(connection.ip)
        } else {
            connection.ip
        },
        peer: connection.peer,
    };
    exchange.scheme = scheme(&head.headers, exchange.trusted, connection.scheme);
    let default_port = match exchange.scheme {
        Scheme::Http if exchange.snapshot.router.port_by_scheme() => 80,
        Scheme::Https if exchange.snapshot.router.port_by_scheme() => 443,
        _ => connection.port,
    };
    (exchange.host, exchange.port) = host_and_port(&head.headers, default_port);
    if let Some(tls) = &connection.tls
        && !(exchange.snapshot.certificates).allows(tls.rules, exchange.host())
    {
        // Whoever proved to be somebody for one name has proved nothing for another.
        return Err(Box::new(misdirected()));
    }
    if let std::borrow::Cow::Owned(normal) = path::normalise(raw_path(head)) {
        exchange.normal_path = Some(normal);
    }
    let head = &mut exchange.head;
    if fields.has(Fields::X) {
        remove_claims(&mut head.headers, settings.strip_identity_headers);
    }
    exchange.forward.tunnel = fields.has(Fields::UPGRADE) && asks_for_tunnel(head);
    if fields.has(Fields::CONNECTION.and(Fields::UPGRADE).and(Fields::HOP)) {
        hop_by_hop::remove_from_request(&mut head.headers, exchange.forward.tunnel);
    }
    exchange.debug_wanted = settings.debug_header
        && head
            .headers
            .get(&KONG_DEBUG)
            .is_some_and(|value| value == "1");
    match settings.body_bytes_max {
        Some(limit) if content_length(&head.headers).is_some_and(|length| length > limit) => {
            Err(Box::new(too_large()))
        }
        _ => Ok(()),
    }
}

/// Bounds how long the session waits for its client, whose head has these `fields`.
pub(super) fn set_limits(session: &mut Session, exchange: &Exchange, fields: Fields) {
    let settings = &exchange.snapshot.settings;
    session.set_read_timeout(Some(settings.body_timeout));
    session.set_write_timeout(Some(settings.send_timeout));
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    let drainable = is_drainable(&exchange.head.headers, fields);
    session.set_close_on_response_before_downstream_finish(!drainable);
    // Interim responses of origins concern the origin's client, which is the gateway.
    session.set_ignore_info_resp(true);
}

/// 413.
pub(super) fn too_large() -> Reply {
    Reply::message(413, Reason::BodyTooLarge, "Payload too large")
}

fn content_length(headers: &Headers) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// 421.
fn misdirected() -> Reply {
    Reply::message(421, Reason::MisdirectedRequest, "Misdirected request")
}

/// Whether the rest of a body is awaited when a request was answered without it, so that the
/// connection can go on: only if it is announced and small. A client that waits for "100 Continue"
/// may never send it.
fn is_drainable(headers: &Headers, fields: Fields) -> bool {
    !fields.has(Fields::EXPECT.and(Fields::TRANSFER_ENCODING))
        && (!fields.has(Fields::CONTENT_LENGTH)
            || content_length(headers).is_some_and(|length| length <= DRAIN_BYTES_MAX))
}

/// Counts a piece of the body against the limit, where there is one. A body with a length was
/// judged by it before.
///
/// # Errors
/// 413 when the body passes the limit.
pub(super) fn limit_body(piece: Option<&Bytes>, exchange: &mut Exchange) -> Result<(), Box<Error>> {
    if let (Some(limit), Some(piece)) = (exchange.snapshot.settings.body_bytes_max, piece)
        && !exchange.forward.tunnel
    {
        exchange.forward.body_bytes += piece.len() as u64;
        if exchange.forward.body_bytes > limit {
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
    }
    Ok(())
}

/// The path as sent, without the query.
pub(super) fn raw_path(head: &RequestHead) -> &[u8] {
    head.uri.path().as_bytes()
}

/// Whether the request asks for a WebSocket, the only upgrade that is passed on: the same rules as
/// those by which its head was read.
fn asks_for_tunnel(head: &RequestHead) -> bool {
    let headers = &head.headers;
    let mut connection = headers.get_all(header::CONNECTION);
    head.version == http::Version::HTTP_11
        && is_websocket(headers)
        && connection.any(|line| {
            line.as_bytes()
                .split(|byte| *byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && content_length(headers).unwrap_or(0) == 0
}

/// Whether a head names one upgrade, and that is to a WebSocket.
pub(super) fn is_websocket(headers: &Headers) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE);
    let first = protocols.next();
    first.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
}

fn scheme(headers: &Headers, trusted: bool, actual: Scheme) -> Scheme {
    if !trusted {
        return actual;
    }
    match headers.get(&FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") => Scheme::Http,
        _ => actual,
    }
}

/// The client address that a trusted peer reports; `None` where it reports none.
fn real_ip(headers: &Headers, settings: &Settings) -> Option<IpAddr> {
    match &settings.real_ip {
        // The connection said it already.
        RealIp::ProxyProtocol => None,
        RealIp::Header(name) => address(headers.get(name)?.to_str().ok()?),
        RealIp::ForwardedFor => {
            forwarded_for(headers, &settings.trusted, settings.real_ip_recursive)
        }
    }
}

/// The last address of `X-Forwarded-For`, or with `recursive` the last one that is not trusted.
/// Garbage stops the walk: what is left of it was not vouched for by anybody.
fn forwarded_for(headers: &Headers, trusted: &Trusted, recursive: bool) -> Option<IpAddr> {
    let mut found = None;
    let lines: Vec<&HeaderValue> = headers.get_all(&FORWARDED_FOR).collect();
    for line in lines.iter().rev() {
        for entry in line.to_str().ok()?.rsplit(',') {
            let Some(entry) = address(entry) else {
                return found;
            };
            found = Some(entry);
            if !recursive || !trusted.contains(entry) {
                return found;
            }
        }
    }
    found
}

/// `ip`, `ip:port`, `[ip]` or `[ip]:port`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse()
        .ok()
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip())
        })
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|address: IpAddr| address.to_canonical())
}

fn host_and_port(headers: &Headers, default_port: u16) -> (Host, u16) {
    let raw = headers
        .get(header::HOST)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let name_end = match raw.iter().rposition(|byte| *byte == b':') {
        // The colons of a bare IPv6 address in brackets are not the port's.
        Some(colon) if raw.first() != Some(&b'[') || raw.get(colon - 1) == Some(&b']') => colon,
        _ => raw.len(),
    };
    let (name, port) = raw.split_at(name_end);
    let port = port
        .get(1..)
        .and_then(|port| std::str::from_utf8(port).ok()?.parse().ok())
        .unwrap_or(default_port);
    let mut name = Host::from_slice(name);
    name.make_ascii_lowercase();
    (name, port)
}

/// Removes what a client must not say: who it is, and the `_` twins of headers that the gateway
/// sets, which many servers read as the same name.
fn remove_claims(headers: &mut Headers, identity: bool) {
    headers.retain(|name| !is_claim(name.as_str(), identity));
}

fn is_claim(name: &str, identity: bool) -> bool {
    let bytes = name.as_bytes();
    if bytes.first() != Some(&b'x') || !matches!(bytes.get(1), Some(b'-' | b'_')) {
        return false;
    }
    let same = |known: &&str| {
        known.len() == bytes.len()
            && known
                .bytes()
                .zip(bytes)
                .all(|(known, byte)| known == *byte || (known == b'-' && *byte == b'_'))
    };
    let has_twin = bytes.contains(&b'_');
    if names::ALL.iter().any(|known| same(&known.as_str())) || CERTIFICATE.iter().any(same) {
        return identity || has_twin;
    }
    let is_ours = name.starts_with("x-tollgate-") || name.starts_with("x_tollgate_");
    // That a request is a copy is no claim, and what keeps gateways from copying it in a circle.
    if identity && is_ours && name != MIRRORED.as_str() {
        return true;
    }
    has_twin && FORWARDING.iter().any(same)
}

/// What tells of a client's certificate.
const CERTIFICATE: [&str; 5] = [
    "x-client-cert",
    "x-client-cert-subject-dn",
    "x-client-cert-issuer-dn",
    "x-client-cert-serial",
    "x-client-cert-fingerprint",
];

const FORWARDING: [&str; 8] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-real-ip",
    "x-kong-request-id",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    fn trusted() -> Trusted {
        Trusted::new(vec!["10.0.0.0/8".parse().expect("a network")])
    }

    #[test]
    fn the_last_forwarded_address_is_the_client() {
        let headers = headers(&[("x-forwarded-for", "192.0.2.1, 198.51.100.2")]);
        let expected = "198.51.100.2".parse().ok();
        assert_eq!(forwarded_for(&headers, &trusted(), false), expected);
        assert_eq!(forwarded_for(&headers, &trusted(), true), expected);
    }

    #[test]
    fn recursion_walks_over_trusted_addresses_and_lines() {
        let headers = headers(&[
            ("x-forwarded-for", "203.0.113.9, 192.0.2.1"),
            ("x-forwarded-for", "10.0.0.2, 10.0.0.3"),
        ]);
        assert_eq!(
            forwarded_for(&headers, &trusted(), true),
            "192.0.2.1".parse().ok()
        );
        assert_eq!(
            forwarded_for(&headers, &trusted(), false),
            "10.0.0.3".parse().ok()
        );
    }

    #[test]
    fn garbage_stops_the_walk() {
        let garbage = headers(&[("x-forwarded-for", "192.0.2.1, unknown")]);
        assert_eq!(forwarded_for(&garbage, &trusted(), true), None);
        let behind = headers(&[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.2")]);
        assert_eq!(
            forwarded_for(&behind, &trusted(), true),
            "10.0.0.2".parse().ok()
        );
    }

    #[test]
    fn an_address_may_carry_brackets_and_a_port() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            (" 192.0.2.1:8080 ", "192.0.2.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(address(text), expected.parse().ok(), "{text}");
        }
        assert_eq!(address("unknown"), None);
    }

    #[test]
    fn identity_headers_and_twins_are_claims() {
        for (name, with, without) in [
            ("x-consumer-id", true, false),
            ("x_consumer_id", true, true),
            ("x-consumer_id", true, true),
            ("x-tollgate-aggregate", true, false),
            ("x-tollgate-mirror", false, false),
            ("x_tollgate_mirror", true, false),
            ("x-client-cert-subject-dn", true, false),
            ("x_client_cert_subject_dn", true, true),
            ("x_forwarded_for", true, true),
            ("x_real_ip", true, true),
            ("x-forwarded-for", false, false),
            ("x-consumer-idx", false, false),
            ("x_custom", false, false),
            ("accept", false, false),
        ] {
            assert_eq!(is_claim(name, true), with, "{name}");
            assert_eq!(is_claim(name, false), without, "{name}");
        }
    }

    #[test]
    fn the_host_is_lower_case_and_the_port_is_its_own_or_the_listeners() {
        let host = |value: &'static str| {
            let (name, port) = host_and_port(&headers(&[("host", value)]), 8000);
            (String::from_utf8(name.to_vec()).expect("text"), port)
        };
        assert_eq!(host("API.test"), ("api.test".into(), 8000));
        assert_eq!(host("api.test:9000"), ("api.test".into(), 9000));
        assert_eq!(host("[::1]:9000"), ("[::1]".into(), 9000));
        assert_eq!(host("[::1]"), ("[::1]".into(), 8000));
        assert_eq!(host(""), (String::new(), 8000));
    }
}
