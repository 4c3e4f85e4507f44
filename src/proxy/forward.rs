//! Step 5: pick a target for a try, and shape the request for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri, Version, header};
use pingora_core::{
    Error, ErrorType, Result,
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{
    affinity,
    exchange::{Connection, Exchange, Forward, Outcome},
    failure,
    framing::{self, FRAMING},
    hop_by_hop::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO},
    lease::{Dial, Patience, Purpose},
    own_lines::{Lines, OwnLines},
    receive::raw_path,
    reply::REQUEST_ID,
    retry,
};
use crate::{
    entity::{
        fields::Fields,
        message::{Headers, RequestHead},
        reason::Reason,
    },
    plugin::{CircuitGuard, Reply},
    router::path::{encode_for_wire, is_fit_for_wire, is_kept, join},
    snapshot::{Route, Service, Snapshot},
    state::{State, clock::Clock, pool::Counterpart},
    upstream::{
        self, Member,
        search::{Absent, Found},
    },
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
/// Calls on one connection to a gRPC upstream at once.
const UPSTREAM_STREAMS_MAX: u32 = 100;
/// What an upstream may send of one response before the client takes it, and of all responses on a
/// connection: enough that slow clients do not hold up the others.
const UPSTREAM_STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const UPSTREAM_CONNECTION_WINDOW_BYTES: u32 = UPSTREAM_STREAM_WINDOW_BYTES * UPSTREAM_STREAMS_MAX;
/// How often a circuit may refuse what it seemed to let pass before the search is given up.
const PROBES_LOST_MAX: usize = 8;
/// What the gateway calls itself in `Via`.
pub(super) const VIA: &str = concat!("1.1 tollgate/", env!("CARGO_PKG_VERSION"));

/// Picks the target of the next try.
///
/// # Errors
/// When there is none; the answer for the client is in the exchange.
pub(super) async fn peer(exchange: &mut Exchange, state: &State) -> Result<Box<HttpPeer>> {
    note_key(exchange);
    // What an earlier try holds is given back before the next waits or asks for it.
    exchange.forward.hold = None;
    exchange.forward.permit = None;
    // Each try sends the body from its beginning.
    exchange.forward.body_bytes = 0;
    let pause = std::mem::take(&mut exchange.forward.pause);
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let Exchange {
        snapshot,
        route,
        head,
        forward,
        outcome,
        ..
    } = exchange;
    let Some((route, service)) = route
        .and_then(|route| snapshot.routes.get(route))
        .and_then(|route| Some((route, snapshot.service(route, forward.directions.service)?)))
    else {
        return Err(Error::new(ErrorType::InternalError));
    };
    let mut now = state.clock.instant();
    let policy = retry::policy(route, service);
    forward.begin(route, service, now);
    let mut left = forward
        .patience(policy, now)
        .map_err(|reply| ended(outcome, reply))?;
    let connect = service.timeouts.connect;
    let patience = left.map_or(connect, |left| connect.min(left));
    let found = find(forward, route, service, patience).await;
    let Found { member, hold } = found.map_err(|reply| {
        if forward.is_late(state.clock.instant()) {
            ended(outcome, Box::new(forward.out_of_time(reply.reason)))
        } else {
            ended(outcome, reply)
        }
    })?;
    if left.is_some() {
        // Finding it may have taken its time, and the try begins only now.
        now = state.clock.instant();
        left = forward.patience(policy, now).map_err(|reply| {
            // It was found, but never asked.
            forward.permit = None;
            ended(outcome, reply)
        })?;
    }
    forward.tries += 1;
    forward.try_began = Some(now);
    forward.hold = Some(hold);
    let host = host_header(head, route, service, &member);
    let peer = if service.protocol.is_grpc() {
        let needs_new_connection = std::mem::take(&mut forward.needs_new_connection);
        forward.dial = None;
        let mut peer = call_peer(snapshot, service, (&member, host), left);
        if needs_new_connection || snapshot.settings.upkeep.is_none() {
            unshare(&mut peer, state);
        }
        peer
    } else {
        let dial = Arc::new(dial(
            snapshot,
            service,
            (&member, host),
            forward,
            (now, left),
        ));
        forward.dial = Some(Arc::clone(&dial));
        let mut peer = HttpPeer::new(member.address, false, String::new());
        peer.options.custom_l4 = Some(dial);
        peer
    };
    forward.member = Some(member);
    let mut peer = Box::new(peer);
    // What concerns one connection only is removed as the request is received and shaped.
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    Ok(peer)
}

/// What a try asks the network for that began at `began`, with what is `left` of the time for the
/// response to begin.
fn dial(
    snapshot: &Snapshot,
    service: &Service,
    (member, host): (&Member, &HeaderValue),
    forward: &mut Forward,
    (began, left): (Instant, Option<Duration>),
) -> Dial {
    let timeouts = service.timeouts;
    let patience = Patience {
        connect: left.map_or(timeouts.connect, |left| timeouts.connect.min(left)),
        read: timeouts.read,
        write: timeouts.write,
        head_until: left.map(|left| tokio::time::Instant::from_std(began) + left),
    };
    let purpose = if forward.tunnel {
        Purpose::Tunnel
    } else if std::mem::take(&mut forward.needs_new_connection) {
        Purpose::RequestOnNew
    } else {
        Purpose::Request
    };
    let tls = service.tls.as_ref().map(|tls| {
        let host = host.to_str().unwrap_or_default();
        let name = upstream::server_name(host, &member.called.server_name, tls.verifies());
        let counterpart = Counterpart {
            terms: tls.key(),
            server_name: name.into(),
        };
        (Arc::clone(tls), counterpart)
    });
    Dial::new(
        (member.address, Arc::clone(&member.pool)),
        tls,
        (patience, snapshot.settings.upkeep),
        purpose,
        began,
    )
}

/// How `member` is asked over HTTP/2, on a connection that Pingora makes and keeps.
fn call_peer(
    snapshot: &Snapshot,
    service: &Service,
    (member, host): (&Member, &HeaderValue),
    left: Option<Duration>,
) -> HttpPeer {
    let limit = |own: Duration| Some(left.map_or(own, |left| own.min(left)));
    let mut peer = peer_at(service, member, host);
    let options = &mut peer.options;
    options.connection_timeout = limit(service.timeouts.connect);
    options.total_connection_timeout = limit(service.timeouts.connect);
    options.read_timeout = limit(service.timeouts.read);
    options.write_timeout = limit(service.timeouts.write);
    // Never HTTP/1, which has no room for what a call ends with.
    options.set_http_version(2, 2);
    options.max_h2_streams = UPSTREAM_STREAMS_MAX as usize;
    options.h2_stream_window_size = Some(UPSTREAM_STREAM_WINDOW_BYTES);
    options.h2_connection_window_size = Some(UPSTREAM_CONNECTION_WINDOW_BYTES);
    options.idle_timeout = snapshot.settings.upkeep.map(|upkeep| upkeep.idle);
    peer
}

/// Gives `peer` a connection of its own: no other request has the same key, and nothing stays idle.
fn unshare(peer: &mut HttpPeer, state: &State) {
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.group_key = state.identifiers.serial();
}

/// Whether the connection of the last try served requests before; `is_shared` is what Pingora says of one that it made.
pub(super) fn is_from_pool(exchange: &Exchange, is_shared: bool) -> bool {
    let dial = exchange.forward.dial.as_ref();
    dial.map_or(is_shared, |dial| dial.is_from_pool())
}

/// Notes what of the request decides its target. All tries have one key.
fn note_key(exchange: &mut Exchange) {
    if exchange.forward.member.is_some() {
        return;
    }
    if let Some(service) = exchange.service() {
        let (key, cookie) = affinity::key(service, exchange);
        exchange.forward.key = key;
        exchange.forward.cookie = cookie;
    }
}

/// Leaves `reply` for the client and ends the search.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn ended(outcome: &mut Outcome, reply: Box<Reply>) -> Box<Error> {
    outcome.failure = Some(reply);
    Error::new(ErrorType::Custom("no target"))
}

/// Finds the member of the next try: one whose circuit is not open, where it has one.
///
/// # Errors
/// The answer, if there is none.
async fn find(
    forward: &mut Forward,
    route: &Route,
    service: &Service,
    patience: Duration,
) -> Result<Found, Box<Reply>> {
    let key = forward.key;
    let Some(guard) = &forward.directions.guard else {
        let found = forward
            .search
            .next(&service.balancer, key, patience, |_| true);
        let found = found.await;
        return found.map_err(|absent| Box::new(reply_to_absence(absent, forward.has_tried())));
    };
    let facts = &service.facts;
    let usable = |member: &Member| guard.check(facts, member.address).is_ok();
    let mut left = Duration::ZERO;
    // Another request may take the last place of a probe in between.
    for _ in 0..PROBES_LOST_MAX {
        let search = &mut forward.search;
        let found = search.next(&service.balancer, key, patience, usable).await;
        let found = match found {
            Ok(found) => found,
            Err(Absent::Usable) => {
                left = soonest(guard, service);
                break;
            }
            Err(absent) => return Err(Box::new(reply_to_absence(absent, forward.has_tried()))),
        };
        let circuit = guard.circuit(facts, &route.facts, Some(found.member.address));
        match circuit.admit(&guard.limits) {
            Ok(permit) => {
                forward.permit = Some(permit);
                return Ok(found);
            }
            Err(other) => left = other,
        }
    }
    Err(Box::new(guard.refuse(left)))
}

/// When the first circuit of the members of `service` lets a request pass again.
fn soonest(guard: &CircuitGuard, service: &Service) -> Duration {
    let left = service.balancer.with_members(|members| {
        let left = members
            .iter()
            .filter_map(|member| guard.check(&service.facts, member.address).err());
        left.min()
    });
    left.unwrap_or_default()
}

fn reply_to_absence(absent: Absent, has_tried: bool) -> Reply {
    match absent {
        Absent::Target | Absent::Usable | Absent::Slot => no_target(has_tried),
        Absent::Address => Reply::message(503, Reason::NameResolution, "name resolution failed"),
        Absent::Verified => failure::unverified(),
    }
}

fn no_target(has_tried: bool) -> Reply {
    Reply::message(
        503,
        Reason::NoTarget,
        if has_tried {
            "The upstream server is currently unavailable"
        } else {
            "failure to get a peer from the ring-balancer"
        },
    )
}

/// How `member` is connected to for `service`. Over https it must prove that it is `host`.
pub(super) fn peer_at(service: &Service, member: &Member, host: &HeaderValue) -> HttpPeer {
    let mut peer = match &service.tls {
        Some(tls) => {
            let host = host.to_str().unwrap_or_default();
            let name = upstream::server_name(host, &member.called.server_name, tls.verifies());
            let mut peer = HttpPeer::new(member.address, true, name);
            tls.equip(&mut peer);
            peer
        }
        None => HttpPeer::new(member.address, false, String::new()),
    };
    peer.options.connection_timeout = Some(service.timeouts.connect);
    peer.options.total_connection_timeout = Some(service.timeouts.connect);
    peer
}

/// The `Host` that `member` gets.
pub(super) fn host_header<'h>(
    head: &'h RequestHead,
    route: &Route,
    service: &'h Service,
    member: &'h Member,
) -> &'h HeaderValue {
    if route.preserve_host
        && let Some(host) = head.headers.get(header::HOST)
    {
        return host;
    }
    match &service.balancer.host_header {
        Some(host) => host,
        None => member.host_header(service.protocol),
    }
}

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
