//! What the log remembers of a finished request: counted references and small values, so that
//! handing it over costs the request next to nothing.

use std::{
    borrow::Cow,
    mem::take,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, Method, Version, header};
use pingora_proxy::Session;

use super::line::{Extras, Line, Now, Tls, Try, masked, milliseconds};
use crate::{
    entity::{consumer::Consumer, facts::ServiceIndex, message::RequestHead, reason::Reason},
    plugin::{Identity, Latencies, Notes, Source},
    proxy::exchange::{Connection, Exchange, FailedTry, TryOutcome},
    snapshot::{AccessFormat, RouteIndex, Snapshot},
    state::identifiers::RequestId,
    tls::ClientCertificate,
};

/// One request and how it ended.
#[derive(Debug)]
pub(in crate::proxy) struct Entry {
    snapshot: Arc<Snapshot>,
    id: RequestId,
    began: Instant,
    client_ip: IpAddr,
    /// Absent if what came was no request.
    request: Option<Asked>,
    route: Option<RouteIndex>,
    /// The service that a plugin chose in place of the route's.
    chosen: Option<ServiceIndex>,
    identity: Identity,
    notes: Notes,
    backend: Option<SocketAddr>,
    failed_tries: Vec<FailedTry>,
    /// How long the last try took; absent if it failed as well, or there was none.
    last_try: Option<Duration>,
    status: u16,
    source: Source,
    reason: Option<Reason>,
    latencies: Latencies,
    received_bytes: u64,
    sent_bytes: u64,
    /// Only of a connection with TLS.
    connection: Option<Arc<Connection>>,
    /// What only the plain format tells.
    plain: Option<Box<Plain>>,
}

#[derive(Debug)]
struct Asked {
    method: Method,
    /// As sent, without scheme and authority. A copy: a part of the head would keep all of it in memory.
    target: Box<str>,
}

/// Copies, for the same reason.
#[derive(Debug, Default)]
struct Plain {
    version: Option<Version>,
    referer: Box<[u8]>,
    user_agent: Box<[u8]>,
    body_bytes_sent: u64,
}

impl Entry {
    /// Takes what the log needs out of `exchange`, which is over; `None` if its configuration wants
    /// no log. `session` is absent if what came was no request.
    pub(in crate::proxy) fn of(
        exchange: &mut Exchange,
        session: Option<&Session>,
        latencies: Latencies,
        (received_bytes, sent_bytes): (u64, u64),
    ) -> Option<Self> {
        let ended = exchange.began + latencies.total;
        let format = exchange.snapshot.settings.access_log.as_ref()?.format;
        Some(Self {
            snapshot: Arc::clone(&exchange.snapshot),
            id: exchange.id,
            began: exchange.began,
            client_ip: exchange.client.ip,
            request: session.map(|_| Asked {
                method: take(&mut exchange.head.method),
                target: exchange
                    .head
                    .uri
                    .path_and_query()
                    .map_or_else(Box::default, |target| target.as_str().into()),
            }),
            route: exchange.route,
            chosen: exchange.forward.directions.service,
            identity: take(&mut exchange.identity),
            notes: take(&mut exchange.notes),
            backend: exchange
                .forward
                .member
                .as_ref()
                .map(|member| member.address),
            failed_tries: take(&mut exchange.forward.failed_tries),
            last_try: exchange.forward.try_began.map(|began| {
                let answered = exchange.forward.answered_at.unwrap_or(ended);
                answered.saturating_duration_since(began)
            }),
            status: exchange.outcome.status,
            source: exchange.outcome.source,
            reason: exchange.outcome.reason,
            latencies,
            received_bytes,
            sent_bytes,
            connection: exchange
                .connection
                .as_ref()
                .filter(|connection| connection.tls.is_some())
                .map(Arc::clone),
            plain: match format {
                AccessFormat::Json => None,
                AccessFormat::Plain => {
                    Some(Box::new(session.map_or_else(Plain::default, |session| {
                        plain(session, &exchange.head)
                    })))
                }
            },
        })
    }

    /// Appends the line for this request, with its line break.
    pub(super) fn write_line(&self, now: Now, lines: &mut Vec<u8>) {
        let line = self.line(now);
        match &self.plain {
            None => line.write_json(lines),
            Some(plain) => line.write_plain(
                &Extras {
                    version: plain.version,
                    referer: &plain.referer,
                    user_agent: &plain.user_agent,
                    body_bytes_sent: plain.body_bytes_sent,
                },
                &self.snapshot.secret_arguments,
                lines,
            ),
        }
    }

    fn tls(&self) -> Option<Tls<'_>> {
        let facts = self.connection.as_ref()?.tls.as_ref()?;
        let client = facts.client.as_ref();
        Some(Tls {
            version: facts.version,
            cipher: &facts.cipher,
            server_name: facts.server_name.as_deref(),
            client_subject: client.map(ClientCertificate::subject),
            client_fingerprint: client.map(ClientCertificate::fingerprint),
        })
    }

    /// Every try, the last one with the outcome of the request.
    fn tries(&self) -> Vec<Try> {
        let failed = self.failed_tries.iter().map(|failed| Try {
            address: failed.address,
            outcome: match failed.outcome {
                TryOutcome::Failed(reason) => Cow::Borrowed(reason.code()),
                TryOutcome::Stale => Cow::Borrowed("stale_connection"),
                TryOutcome::Status(status) => Cow::Owned(status.to_string()),
            },
            time_ms: milliseconds(failed.took),
        });
        let last = self.backend.zip(self.last_try).map(|(address, took)| Try {
            address,
            outcome: match self.source {
                Source::Upstream => Cow::Owned(self.status.to_string()),
                Source::Gateway => Cow::Borrowed(self.reason.map_or("", Reason::code)),
            },
            time_ms: milliseconds(took),
        });
        failed.chain(last).collect()
    }

    fn line(&self, now: Now) -> Line<'_> {
        let route = self.route.and_then(|route| self.snapshot.routes.get(route));
        let service = route.and_then(|route| self.snapshot.service(route, self.chosen));
        let scheme = match service {
            Some(service) if service.protocol.is_encrypted() => "https",
            _ => "http",
        };
        let target = self.request.as_ref().map(|request| &*request.target);
        Line {
            started_at: now.at(self.began),
            method: self
                .request
                .as_ref()
                .map_or("", |request| request.method.as_str()),
            path: target.map_or(Cow::Borrowed(""), |target| {
                masked(target, &self.snapshot.secret_arguments)
            }),
            client_ip: self.client_ip,
            api_key: self
                .identity
                .credential
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default(),
            consumer: self
                .identity
                .consumer
                .and_then(|consumer| self.snapshot.consumers.get(consumer))
                .map_or_else(String::new, Consumer::label),
            status: self.status,
            response_time_ms: milliseconds(self.latencies.total),
            backend: self
                .backend
                .map_or_else(String::new, |address| format!("{scheme}://{address}")),
            error: self.reason.map_or("", Reason::code),
            route: route.map_or("", |route| &route.facts.label),
            service: service.map_or(Cow::Borrowed(""), |service| match &service.facts.name {
                Some(name) => Cow::Borrowed(name.as_str()),
                None => Cow::Owned(service.facts.id.to_string()),
            }),
            request_id: self.id.as_str(),
            correlation_id: self
                .notes
                .correlation_id
                .as_ref()
                .and_then(|id| id.to_str().ok()),
            upstream_status: (self.source == Source::Upstream).then_some(self.status),
            upstream_latency_ms: self.latencies.upstream.map(milliseconds),
            gateway_latency_ms: milliseconds(self.latencies.gateway),
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            tries: self.tries(),
            tls: self.tls(),
        }
    }
}

fn plain(session: &Session, head: &RequestHead) -> Plain {
    let copy = |name: HeaderName| {
        head.headers
            .get(name)
            .map_or_else(Box::default, |value| value.as_bytes().into())
    };
    Plain {
        version: Some(head.version),
        referer: copy(header::REFERER),
        user_agent: copy(header::USER_AGENT),
        body_bytes_sent: u64::try_from(session.body_bytes_sent()).unwrap_or(u64::MAX),
    }
}
