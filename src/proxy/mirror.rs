//! Copies of requests that are sent elsewhere in the background. What becomes of them is counted, and nobody waits
//! for it. Which requests are copied is decided by plugins.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Version, header};
use pingora_core::{
    Error, ErrorType, Result,
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tracing::debug;

use super::{Gateway, exchange::Exchange, forward, framing, shape, verify};
use crate::{
    entity::message::RequestHead,
    plugin::{Duplicate, MIRRORED, Mirror},
    snapshot::{Service, Snapshot},
    state::{State, clock::Clock},
    upstream::{
        Key,
        search::{Found, Search},
    },
};

/// Idle connections to mirrors.
const IDLE_CONNECTIONS_MAX: usize = 128;
/// How long one is kept at most.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of an answer to have its connection back; the connection of a longer one is closed.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The connections of copies, apart from those of requests. They are made ready for the first copy, because they take
/// memory for all authorities that the system trusts.
#[derive(Default)]
pub struct Mirrors(OnceCell<Connector>);

impl fmt::Debug for Mirrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mirrors").finish_non_exhaustive()
    }
}

/// A copy that waits for the body of its request.
#[derive(Debug)]
pub(super) struct PendingCopy {
    mirror: Arc<Mirror>,
    place: OwnedSemaphorePermit,
    head: RequestHead,
    body: BytesMut,
    /// Whether the request says how long its body is, or that it has one.
    is_sized: bool,
}

/// Begins the copy of a request, if there is to be one, with the head that goes upstream. Each try begins anew,
/// until the copy is sent.
///
/// # Errors
/// When a path is not sendable, which is a bug of ours.
pub(super) fn begin(
    session: &mut Session,
    exchange: &mut Exchange,
    gateway: &Gateway,
) -> Result<()> {
    let forward = &mut exchange.forward;
    let (mirror, place) = match (forward.directions.copy.take(), forward.copy.take()) {
        (Some(duplicate), _) => {
            let Duplicate { mirror, place } = *duplicate;
            (mirror, place)
        }
        // A further try sends the body from its beginning.
        (None, Some(copy)) => (copy.mirror, copy.place),
        (None, None) => return Ok(()),
    };
    if forward.tunnel {
        return Ok(());
    }
    let mut head = shape::whole(exchange)?;
    if announced(&head).is_some_and(|length| length > mirror.body_bytes_max) {
        gateway.state.telemetry.mirrors().too_large.inc();
        return Ok(());
    }
    let Some(service) = exchange.snapshot.services.get(mirror.service.0) else {
        return Ok(());
    };
    (head.uri, _) = shape::target(exchange, Some(service))?;
    let is_sized = head.headers.contains_key(header::CONTENT_LENGTH)
        || head.headers.contains_key(header::TRANSFER_ENCODING);
    for name in Mirror::OWN {
        head.headers.remove(name);
    }
    head.headers.insert(MIRRORED, HeaderValue::from_static("1"));
    for (name, value) in &mirror.headers {
        head.headers.insert(name, value.clone());
    }
    head.version = Version::HTTP_11;
    let copy = Box::new(PendingCopy {
        mirror,
        place,
        head,
        body: BytesMut::new(),
        is_sized,
    });
    if session.as_downstream_mut().is_body_empty() {
        send(copy, exchange, gateway);
    } else {
        exchange.forward.copy = Some(copy);
    }
    Ok(())
}

/// Takes a piece of the body on its way upstream, and sends the copy behind the last one.
pub(super) fn append(
    exchange: &mut Exchange,
    piece: Option<&Bytes>,
    ends: bool,
    gateway: &Gateway,
) {
    let Some(mut copy) = exchange.forward.copy.take() else {
        return;
    };
    if let Some(piece) = piece {
        if copy.body.len() + piece.len() > copy.mirror.body_bytes_max {
            gateway.state.telemetry.mirrors().too_large.inc();
            return;
        }
        copy.body.extend_from_slice(piece);
    }
    if ends {
        send(copy, exchange, gateway);
    } else {
        exchange.forward.copy = Some(copy);
    }
}

/// The length that a head announces.
fn announced(head: &RequestHead) -> Option<usize> {
    let length = head.headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Sends `copy` in a task of its own.
fn send(copy: Box<PendingCopy>, exchange: &Exchange, gateway: &Gateway) {
    let snapshot = Arc::clone(&exchange.snapshot);
    let state = Arc::clone(&gateway.state);
    let mirrors = Arc::clone(&gateway.mirrors);
    tokio::spawn(async move {
        let limit = copy.mirror.timeout;
        let delivery = mirrors.deliver(*copy, &snapshot, &state);
        let counts = state.telemetry.mirrors();
        match tokio::time::timeout(limit, Box::pin(delivery)).await {
            Ok(Ok(())) => counts.answered.inc(),
            Ok(Err(error)) => {
                debug!(%error, "a copy of a request was not answered");
                counts.failed.inc();
            }
            Err(_) => counts.timed_out.inc(),
        }
    });
}

impl Mirrors {
    async fn connector(&self) -> Result<&Connector> {
        let connect = || {
            let options = ConnectorOptions::new(IDLE_CONNECTIONS_MAX);
            Connector::new(Some(options))
        };
        // Reading the authorities takes a while, which the threads that serve requests do not have.
        let ready = self
            .0
            .get_or_try_init(|| tokio::task::spawn_blocking(connect));
        ready.await.map_err(|cause| {
            Error::because(ErrorType::InternalError, "no connections to mirrors", cause)
        })
    }

    /// Sends a copy and throws the answer away. A connection from the pool that turns out to be closed is
    /// replaced by a new one, once.
    async fn deliver(&self, copy: PendingCopy, snapshot: &Snapshot, state: &State) -> Result<()> {
        let PendingCopy {
            mirror,
            place: _place,
            mut head,
            body,
            is_sized,
        } = copy;
        let service = snapshot
            .services
            .get(mirror.service.0)
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "a mirror has no service"))?;
        let patience = service.timeouts.connect;
        let mut search = Search::default();
        let found = search
            .next(&service.balancer, Key::Nothing, patience, |_| true)
            .await;
        let Found {
            member,
            hold: _hold,
        } = found.map_err(|absent| {
            let why = format!("no target of the mirror: {absent:?}");
            Error::explain(ErrorType::ConnectError, why)
        })?;
        let host = match &service.balancer.host_header {
            Some(host) => host,
            None => member.host_header(service.protocol),
        };
        head.headers.insert(header::HOST, host.clone());
        // A body that came over HTTP/2 may have neither a length nor an encoding.
        if is_sized || !body.is_empty() {
            head.headers
                .insert(header::CONTENT_LENGTH, body.len().into());
        }
        let peer = forward::peer_at(service, &member, host);
        let (head, body) = (framing::whole_request(head), body.freeze());
        let (request, to) = ((&head, &body), (service, &peer));
        let connector = self.connector().await?;
        let (mut session, is_reused) = connector.get_http_session(&peer).await?;
        let mut outcome = converse(&mut session, request, to, &state.clock).await;
        if is_reused
            && session.response_header().is_none()
            && outcome.as_ref().is_err_and(|error| is_broken(error))
        {
            // No other connection has this key, so the pool has none.
            let mut unshared = peer.clone();
            unshared.group_key = state.identifiers.serial();
            (session, _) = connector.get_http_session(&unshared).await?;
            outcome = converse(&mut session, request, to, &state.clock).await;
        }
        if outcome? {
            let upkeep = snapshot.settings.upkeep;
            let idle = upkeep.map_or(Duration::ZERO, |upkeep| upkeep.idle.min(IDLE_TIMEOUT));
            let released = connector.release_http_session(session, &peer, Some(idle));
            released.await;
        }
        Ok(())
    }
}

/// Whether `error` says that the connection broke, as one does that was closed while it was idle.
fn is_broken(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    )
}

/// One request and its answer. Whether the connection can be used again.
async fn converse(
    session: &mut HttpSession,
    (head, body): (&RequestHeader, &Bytes),
    (service, peer): (&Service, &HttpPeer),
    clock: &Clock,
) -> Result<bool> {
    verify::judge(service, peer, session.digest(), clock)?;
    session.write_request_header(Box::new(head.clone())).await?;
    if !body.is_empty() {
        session.write_request_body(body.clone(), true).await?;
    }
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let head = session.response_header();
        if head.is_none_or(|head| !head.status.is_informational()) {
            break;
        }
    }
    let mut answer_bytes = 0;
    while let Some(piece) = session.read_response_body().await? {
        answer_bytes += piece.len();
        if answer_bytes > ANSWER_BYTES_MAX {
            session.shutdown().await;
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_length_that_is_a_number_is_announced() {
        let head = |length: Option<&'static str>| {
            let request = http::Request::builder();
            let request = match length {
                Some(length) => request.header("content-length", length),
                None => request,
            };
            announced(&request.body(()).expect("a request").into_parts().0.into())
        };
        assert_eq!(head(Some("17")), Some(17));
        assert_eq!(head(Some("x")), None);
        assert_eq!(head(None), None);
    }
}
