//! What a try tells of the address it went to: passive health checks. Only what the upstream did
//! counts, never what the gateway or the client did.

use pingora_core::{Error, ErrorSource};

use super::exchange::Exchange;
use crate::{state::health::Finding, upstream::health::finding_of};

/// Notes the upstream's own status, before any plugin changes it.
pub(super) fn note_status(exchange: &Exchange, status: u16) {
    let Some(service) = exchange.service() else {
        return;
    };
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
        note(exchange, finding);
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
