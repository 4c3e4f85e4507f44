//! Step 7: the exchange is over; metrics, the log phase of the chain, and the access log.

use std::panic::AssertUnwindSafe;

use pingora_core::Error;
use pingora_proxy::Session;
use tracing::debug;

use super::{Gateway, access_log::Entry, exchange::Exchange, health, http2::ANSWERED};
use crate::{
    entity::{consumer::Consumer, reason::Reason},
    plugin::{Latencies, Record, Source},
    telemetry::Telemetry,
};

/// Records the exchange. `session` is absent if what came was no request.
pub(super) fn record(
    session: Option<&Session>,
    error: Option<&Error>,
    exchange: &mut Exchange,
    gateway: &Gateway,
) {
    let state = &gateway.state;
    let ended = state.clock.instant();
    let telemetry = &*state.telemetry;
    let aborted = error.is_some_and(|error| error.etype() != &ANSWERED);
    if exchange.outcome.status == 0 || (aborted && exchange.outcome.reason.is_none()) {
        note_abort(error, exchange, telemetry);
    }
    if exchange.forward.copy.take().is_some() {
        telemetry.mirrors().incomplete.inc();
    }
    if exchange.forward.directions.copy.take().is_some() && !exchange.forward.tunnel {
        telemetry.mirrors().not_sent.inc();
    }
    health::judge_end(exchange);
    let forward = &exchange.forward;
    let latencies = Latencies {
        total: ended - exchange.began,
        gateway: forward.sent_at.unwrap_or(ended) - exchange.began,
        upstream: forward
            .sent_at
            .zip(forward.answered_at)
            .map(|(sent, answered)| answered.saturating_duration_since(sent)),
    };
    let (received_bytes, sent_bytes) = exchange.bytes();
    let chain = exchange.chain();
    debug!(
        request_id = exchange.id.as_str(),
        status = exchange.outcome.status,
        reason = exchange.outcome.reason.map(Reason::code),
        route = exchange.route().map(|route| route.facts.label.as_str()),
        consumer = exchange.consumer().map(Consumer::label),
        client_ip = %exchange.client.ip,
        total_ms = latencies.total.as_secs_f64() * 1e3,
        error = error.map(tracing::field::display),
        "request"
    );
    let Exchange {
        snapshot,
        route,
        forward,
        run,
        identity,
        outcome,
        ..
    } = exchange;
    let series = route
        .and_then(|route| snapshot.routes.get(route))
        .map_or(&snapshot.unrouted_series, |route| {
            route.series_of(forward.directions.service)
        });
    let record = Record {
        status: outcome.status,
        source: outcome.source,
        reason: outcome.reason,
        latencies,
        received_bytes,
        sent_bytes,
        consumer: identity
            .consumer
            .and_then(|consumer| snapshot.consumers.get(consumer)),
        series,
    };
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        snapshot.chain(chain).complete(
            &snapshot.instances,
            run,
            &snapshot.consumers,
            identity.consumer,
        );
        run.log(&snapshot.instances, &record);
    }));
    if ran.is_err() {
        telemetry.panicked();
    }
    let bytes = (received_bytes, sent_bytes);
    if let Some(entry) = Entry::of(exchange, session, latencies, bytes) {
        gateway.access_log.push(entry);
    }
}

/// Says who broke off an exchange that got no answer, or only a part of one.
fn note_abort(error: Option<&Error>, exchange: &mut Exchange, telemetry: &Telemetry) {
    let by_upstream =
        error.is_some_and(|error| error.esource() == &pingora_core::ErrorSource::Upstream);
    let reason = if by_upstream {
        Reason::UpstreamReset
    } else {
        Reason::ClientClosed
    };
    if exchange.outcome.status == 0 {
        exchange.outcome.status = 499;
        exchange.outcome.source = Source::Gateway;
    }
    exchange.outcome.reason = Some(reason);
    telemetry.replies(reason).inc();
}
