//! What a try tells of the member it went to: passive health checks, latency, and the circuit that it
//! has. Only what the upstream did counts, never what the gateway or the client did.

use pingora_core::{Error, ErrorSource};

use super::exchange::{Exchange, TryOutcome};
use crate::{plugin::Source, state::health::Finding, upstream::health::finding_of};

/// Notes the upstream's own status, before any plugin changes it.
pub(super) fn note_status(exchange: &Exchange, status: u16) {
    let Some(service) = exchange.service() else {
        return;
    };
    // Errors are fast: they must not draw more requests.
    note_latency(exchange, status < 500);
    if let Some(checks) = service.balancer.passive_checks()
        && let Some(finding) = checks.statuses.judge(status)
    {
        note(exchange, finding);
    }
}

/// Notes a try that ended before a response.
pub(super) fn note_failure(exchange: &Exchange, error: &Error) {
    if exchange.forward.answered_at.is_none()
        && let Some(finding) = finding(error)
    {
        note_latency(exchange, false);
        note(exchange, finding);
    }
}

fn note_latency(exchange: &Exchange, has_answered: bool) {
    if let (Some(service), Some(hold)) = (exchange.service(), &exchange.forward.hold) {
        service.balancer.note_latency(hold, has_answered);
    }
}

/// Tells the circuit of its address what a try came to.
pub(super) fn judge_try(exchange: &mut Exchange, outcome: TryOutcome) {
    let forward = &mut exchange.forward;
    if let (Some(guard), Some(permit)) = (&forward.directions.guard, forward.permit.take()) {
        match outcome {
            TryOutcome::Failed(_) => guard.judge(permit, None),
            TryOutcome::Status(status) => guard.judge(permit, Some(status)),
            TryOutcome::Stale => drop(permit),
        }
    }
}

/// Tells the circuit of its address of the `status` of a response as far as that says it: of a failure
/// and of a probe's success before the client can see it and come again, and of a tunnel, whose end may
/// be hours away. Any other success is one only when the response was whole.
pub(super) fn judge_status(exchange: &mut Exchange, status: u16) {
    let forward = &mut exchange.forward;
    let Some(guard) = &forward.directions.guard else {
        return;
    };
    if status == 101 || guard.is_failure(status) {
        judge_try(exchange, TryOutcome::Status(status));
    } else if let Some(permit) = &mut forward.permit {
        guard.note_head(permit);
    }
}

/// Tells the circuit of its address what the last try came to, once the exchange is over.
pub(super) fn judge_end(exchange: &mut Exchange) {
    if exchange.forward.permit.is_none() {
        return;
    }
    let outcome = &exchange.outcome;
    match outcome.reason {
        Some(reason) if reason.is_of_upstream() => {
            judge_try(exchange, TryOutcome::Failed(reason));
        }
        None if outcome.source == Source::Upstream => {
            judge_try(exchange, TryOutcome::Status(outcome.status));
        }
        _ => exchange.forward.permit = None,
    }
}

fn note(exchange: &Exchange, finding: Finding) {
    if let Some(service) = exchange.service()
        && let Some(member) = &exchange.forward.member
    {
        service.balancer.note_passively(member, finding);
    }
}

/// What `error` says of the upstream; `None` if it is not the upstream's.
fn finding(error: &Error) -> Option<Finding> {
    (error.esource() == &ErrorSource::Upstream)
        .then(|| finding_of(error.etype()))
        .flatten()
}

#[cfg(test)]
mod tests {
    use pingora_core::ErrorType;

    use super::*;

    fn of(source: ErrorSource, etype: ErrorType) -> Option<Finding> {
        let mut error = Error::new(etype);
        error.esource = source;
        finding(&error)
    }

    #[test]
    fn clients_and_the_gateway_itself_never_count() {
        assert_eq!(of(ErrorSource::Downstream, ErrorType::ReadError), None);
        assert_eq!(of(ErrorSource::Internal, ErrorType::InternalError), None);
        assert!(of(ErrorSource::Upstream, ErrorType::ReadError).is_some());
    }
}
