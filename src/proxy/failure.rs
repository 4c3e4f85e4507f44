//! Any error on the way → a reply with a reason, or the knowledge that nobody is left to answer.

use pingora_core::{Error, ErrorSource, ErrorType};

use crate::{entity::reason::Reason, plugin::Reply};

/// What the client is told of `error`; `None` if it is gone.
pub(super) fn reply(error: &Error) -> Option<Reply> {
    let reply = match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(413)) => super::receive::too_large(),
        (ErrorSource::Upstream, etype) => upstream(etype),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => request_timeout(),
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => {
            Reply::message(400, Reason::BadRequest, "Bad request")
        }
        (ErrorSource::Downstream, _) if is_malformed(error) => {
            Reply::message(400, Reason::BadRequest, "Bad request")
        }
        (ErrorSource::Downstream, _) => return None,
        (ErrorSource::Internal | ErrorSource::Unset, _) => {
            Reply::message(500, Reason::Internal, "An unexpected error occurred")
        }
    };
    Some(reply)
}

/// What a client gets that does not send its body in time.
pub(super) fn request_timeout() -> Reply {
    Reply::message(408, Reason::RequestTimeout, "Request timeout")
}

/// What a client gets when the time for all tries is over.
pub(super) fn total_timeout() -> Reply {
    out_of_time(Reason::TotalTimeout)
}

/// What a client gets when that time is over for a `reason` that is not the upstream's.
pub(super) fn out_of_time(reason: Reason) -> Reply {
    Reply::message(504, reason, TIMING_OUT)
}

const TIMING_OUT: &str = "The upstream server is timing out";
const INVALID: &str = "An invalid response was received from the upstream server";

/// What a client gets when no target has an acceptable certificate.
pub(super) fn unverified() -> Reply {
    Reply::message(502, Reason::UpstreamUnverified, INVALID)
}

fn upstream(etype: &ErrorType) -> Reply {
    match etype {
        ErrorType::ConnectTimedout
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => Reply::message(504, Reason::UpstreamTimeout, TIMING_OUT),
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure
        | ErrorType::TLSHandshakeFailure
        | ErrorType::HandshakeError => Reply::message(502, Reason::UpstreamConnect, INVALID),
        ErrorType::InvalidCert => unverified(),
        ErrorType::ConnectionClosed
        | ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::H2Error => Reply::message(502, Reason::UpstreamReset, INVALID),
        _ => Reply::message(502, Reason::UpstreamInvalid, INVALID),
    }
}

/// Whether the client broke the framing of its body.
pub(super) fn is_malformed(error: &Error) -> bool {
    error
        .root_cause()
        .downcast_ref::<std::io::Error>()
        .is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidData)
        || error.etype() == &ErrorType::InvalidHTTPHeader
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(source: ErrorSource, etype: ErrorType) -> Option<(u16, &'static str)> {
        let mut error = Error::new(etype);
        error.esource = source;
        reply(&error).map(|reply| (reply.status, reply.reason.code()))
    }

    #[test]
    fn upstream_troubles_are_502_and_its_silence_504() {
        let of = |etype| status(ErrorSource::Upstream, etype);
        assert_eq!(
            of(ErrorType::ConnectRefused),
            Some((502, "upstream_connect"))
        );
        assert_eq!(
            of(ErrorType::ConnectTimedout),
            Some((504, "upstream_timeout"))
        );
        assert_eq!(of(ErrorType::ReadTimedout), Some((504, "upstream_timeout")));
        assert_eq!(
            of(ErrorType::ConnectionClosed),
            Some((502, "upstream_reset"))
        );
        assert_eq!(
            of(ErrorType::InvalidCert),
            Some((502, "upstream_unverified"))
        );
        assert_eq!(
            of(ErrorType::InvalidHTTPHeader),
            Some((502, "upstream_invalid"))
        );
    }

    #[test]
    fn a_slow_client_is_told_and_an_absent_one_is_not() {
        let of = |etype| status(ErrorSource::Downstream, etype);
        assert_eq!(of(ErrorType::ReadTimedout), Some((408, "request_timeout")));
        assert_eq!(of(ErrorType::ConnectionClosed), None);
    }

    #[test]
    fn our_own_mistakes_are_500() {
        assert_eq!(
            status(ErrorSource::Internal, ErrorType::InternalError),
            Some((500, "internal"))
        );
    }
}
