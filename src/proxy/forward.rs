//! Step 5: pick a target for a try. [`super::shape`] shapes the request for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, header};
use pingora_core::{
    Error, ErrorType, Result,
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
};

use super::{
    affinity,
    exchange::{Exchange, Forward, Outcome},
    failure,
    lease::{Dial, Patience, Purpose},
    retry,
};
use crate::{
    entity::{message::RequestHead, reason::Reason},
    plugin::{CircuitGuard, Reply},
    snapshot::{Route, Service, Snapshot},
    state::{State, pool::Counterpart},
    upstream::{
        self, Member,
        search::{Absent, Found},
    },
};

/// Calls on one connection to a gRPC upstream at once.
const UPSTREAM_STREAMS_MAX: u32 = 100;
/// What an upstream may send of one response before the client takes it, and of all responses on a
/// connection: enough that slow clients do not hold up the others.
const UPSTREAM_STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const UPSTREAM_CONNECTION_WINDOW_BYTES: u32 = UPSTREAM_STREAM_WINDOW_BYTES * UPSTREAM_STREAMS_MAX;
/// How often a circuit may refuse what it seemed to let pass before the search is given up.
const PROBES_LOST_MAX: usize = 8;

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
