//! Health checks: what they look at, by which limits they judge, and what they say in the log. The
//! health itself is kept by the state, so that it outlives a snapshot.

pub mod checks;
pub mod grpc;
pub mod survey;
pub mod watchers;

mod envelope;
mod probe;
mod schedule;
mod watch;

use pingora_core::ErrorType;
use tracing::{info, warn};

use crate::state::{
    clock::Clock,
    health::{AddressHealth, Finding, Limits, Witness},
};

/// Whose address it is that was looked at, for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) upstream: &'a str,
    pub(super) target: &'a str,
}

/// Counts what was seen of an address, and logs the change if this made one. Whether it did.
pub(super) fn note(
    whose: Whose<'_>,
    health: &AddressHealth,
    (witness, finding): (Witness, Finding),
    limits: Limits,
    clock: &Clock,
) -> bool {
    let now = || clock.unix_milliseconds();
    let Some(change) = health.report(witness, finding, limits, now) else {
        return false;
    };
    let Some(cause) = change.cause else {
        return true;
    };
    let Whose { upstream, target } = whose;
    let address = health.address();
    let full_cause = cause.with_witness();
    if change.healthy {
        info!(upstream, target, %address, cause = full_cause, "target is healthy ({cause})");
    } else {
        warn!(upstream, target, %address, cause = full_cause, "target is unhealthy ({cause})");
    }
    true
}

/// What an error on the way to an upstream's response says of the upstream; `None` for what is no
/// matter of the connection, and for what went wrong on this machine.
pub fn finding_of(etype: &ErrorType) -> Option<Finding> {
    let how = match etype {
        ErrorType::ConnectTimedout
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => return Some(Finding::TimedOut),
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectNoRoute => "no route",
        ErrorType::ConnectError => "connection failed",
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => "tls handshake failed",
        ErrorType::InvalidCert => "certificate not valid",
        ErrorType::ConnectionClosed => "connection closed",
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error => "connection reset",
        _ => return None,
    };
    Some(Finding::Broken(how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_connection_are_findings() {
        assert_eq!(
            finding_of(&ErrorType::ConnectRefused),
            Some(Finding::Broken("connection refused"))
        );
        assert_eq!(
            finding_of(&ErrorType::ConnectionClosed),
            Some(Finding::Broken("connection closed"))
        );
        for etype in [ErrorType::ConnectTimedout, ErrorType::ReadTimedout] {
            assert_eq!(finding_of(&etype), Some(Finding::TimedOut));
        }
    }

    #[test]
    fn trouble_of_this_machine_and_bad_http_are_none() {
        assert_eq!(finding_of(&ErrorType::SocketError), None);
        assert_eq!(finding_of(&ErrorType::InvalidHTTPHeader), None);
        assert_eq!(finding_of(&ErrorType::InternalError), None);
    }
}
