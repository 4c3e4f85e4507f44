//! The question that gRPC servers answer about themselves: a call of `grpc.health.v1.Health/Check`.
//! Its two messages have one field each, so they are written and read by hand.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use pingora_core::{
    Error, ErrorType, Result,
    connectors::http::v2,
    protocols::http::{client::HttpSession, v2::client::Http2Session},
    upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;

use super::checks::GrpcAsk;
use crate::state::health::Finding;

const PATH: &str = "/grpc.health.v1.Health/Check";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Whether a message is compressed, and its length (the prefix of every gRPC message).
const PREFIX_BYTES: usize = 5;
/// No answer to this call is longer.
const ANSWER_BYTES_MAX: usize = 4096;
/// The one field of each message: the name of a service as text, the state of health as a number.
const SERVICE_FIELD: u8 = 0x0a;
const STATE_FIELD: u8 = 0x08;

/// The message that asks for the health of `service`; empty = of the server as a whole.
pub fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE_FIELD);
        put_number(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut whole = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    whole.put_u8(0);
    whole.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    whole.put(message);
    whole.freeze()
}

/// A number in groups of seven bits, the lowest first, as Protocol Buffers write it.
fn put_number(message: &mut BytesMut, mut number: usize) {
    let group = |number: usize| u8::try_from(number & 0x7f).unwrap_or(0);
    while number > 0x7f {
        message.put_u8(group(number) | 0x80);
        number >>= 7;
    }
    message.put_u8(group(number));
}

/// Asks over a new connection, which ends with the answer.
pub(super) async fn check(
    connector: &v2::Connector,
    mut peer: HttpPeer,
    ask: &GrpcAsk,
    host: &HeaderValue,
) -> Result<Finding> {
    peer.options.set_http_version(2, 2);
    // A connection that takes no second stream is not kept.
    peer.options.max_h2_streams = 1;
    let session = connector.new_http_session::<_, ()>(&peer).await?;
    let HttpSession::H2(mut session) = session else {
        return Ok(Finding::Broken("not http/2"));
    };
    if let Some(tls) = &ask.envelope.tls {
        tls.tls.check(session.digest())?;
    }
    session.write_request_header(Box::new(request(ask, host)?), false)?;
    session
        .write_request_body(ask.message.clone(), true)
        .await?;
    session.read_response_header().await?;
    answer(&mut session).await
}

fn request(ask: &GrpcAsk, host: &HeaderValue) -> Result<RequestHeader> {
    let scheme = match ask.envelope.tls {
        Some(_) => "https",
        None => "http",
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(host.as_bytes())
        .path_and_query(PATH)
        .build()
        .map_err(|cause| {
            Error::because(ErrorType::InternalError, "a host is no authority", cause)
        })?;
    let mut request = RequestHeader::build("POST", PATH.as_bytes(), None)?;
    request.set_uri(uri);
    request.set_version(http::Version::HTTP_2);
    ask.envelope.set_headers(&mut request)?;
    request.insert_header(header::CONTENT_TYPE, GRPC)?;
    request.insert_header(header::TE, HeaderValue::from_static("trailers"))?;
    Ok(request)
}

/// Reads what was answered, and judges it.
async fn answer(session: &mut Http2Session) -> Result<Finding> {
    let Some(head) = session.response_header() else {
        return Ok(Finding::Broken("not grpc"));
    };
    if head.status != http::StatusCode::OK {
        return Ok(Finding::BadStatus(head.status.as_u16()));
    }
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(GRPC.as_bytes());
    if !head.headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        return Ok(Finding::Broken("not grpc"));
    }
    // A failure without a message is told in the head.
    let mut status = status_of(&head.headers);
    let mut message = BytesMut::new();
    while let Some(piece) = session.read_response_body().await? {
        if message.len() + piece.len() > ANSWER_BYTES_MAX {
            return Ok(Finding::Broken("not grpc"));
        }
        message.put(piece);
    }
    if status.is_none() {
        let trailers = session.read_trailers().await?;
        status = trailers.as_ref().and_then(status_of);
    }
    Ok(judge(status, &message))
}

fn status_of(fields: &HeaderMap) -> Option<u8> {
    fields.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// What a call shows that ended with `status`, after `message` with its prefix.
fn judge(status: Option<u8>, message: &[u8]) -> Finding {
    match status {
        None => return Finding::Broken("not grpc"),
        Some(0) => {}
        Some(status) => return Finding::NotServing(name(status)),
    }
    match state(message) {
        None => Finding::Broken("not grpc"),
        Some(1) => Finding::Serving,
        Some(2) => Finding::NotServing("not serving"),
        Some(3) => Finding::NotServing("service unknown"),
        Some(_) => Finding::NotServing("health unknown"),
    }
}

/// The state of health in a message, which is 0 where it is left out; `None` if this is none.
fn state(message: &[u8]) -> Option<u64> {
    let (prefix, content) = message.split_first_chunk::<PREFIX_BYTES>()?;
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    if compressed != 0 || content.len() != length {
        return None;
    }
    match content {
        [] => Some(0),
        [STATE_FIELD, number @ ..] => {
            let (last, rest) = number.split_last()?;
            let is_number = *last < 0x80 && rest.iter().all(|byte| *byte >= 0x80);
            (is_number && number.len() <= 9).then(|| {
                let digits = number.iter().rev();
                digits.fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f))
            })
        }
        _ => None,
    }
}

/// What a status of gRPC is called.
fn name(status: u8) -> &'static str {
    const NAMES: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown",
        "invalid argument",
        "deadline exceeded",
        "not found",
        "already exists",
        "permission denied",
        "resource exhausted",
        "failed precondition",
        "aborted",
        "out of range",
        "unimplemented",
        "internal",
        "unavailable",
        "data loss",
        "unauthenticated",
    ];
    NAMES.get(usize::from(status)).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service_or_none() {
        assert_eq!(&question("")[..], [0; 5]);
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "a".repeat(300);
        let question = question(&long);
        assert_eq!(question.get(..8), Some(&b"\0\0\0\x01\x2f\x0a\xac\x02"[..]));
        assert_eq!(question.len(), 5 + 3 + 300);
    }

    #[test]
    fn only_a_server_that_serves_is_well() {
        let of = |message: &[u8]| judge(Some(0), message);
        assert_eq!(of(b"\0\0\0\0\x02\x08\x01"), Finding::Serving);
        assert_eq!(
            of(b"\0\0\0\0\x02\x08\x02"),
            Finding::NotServing("not serving")
        );
        assert_eq!(
            of(b"\0\0\0\0\x02\x08\x03"),
            Finding::NotServing("service unknown")
        );
        assert_eq!(
            of(b"\0\0\0\0\0"),
            Finding::NotServing("health unknown"),
            "what is left out is 0"
        );
        assert_eq!(judge(Some(12), b""), Finding::NotServing("unimplemented"));
        assert_eq!(judge(Some(99), b""), Finding::NotServing("unknown"));
    }

    #[test]
    fn what_is_no_answer_of_a_grpc_server_is_none() {
        assert_eq!(
            judge(None, b"\0\0\0\0\x02\x08\x01"),
            Finding::Broken("not grpc")
        );
        for message in [
            &b""[..],
            b"\0\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x03\x08\x01",
            b"\0\0\0\0\x02\x10\x01",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x08\x81",
            b"\0\0\0\0\x03\x08\x01\x01",
        ] {
            assert_eq!(
                judge(Some(0), message),
                Finding::Broken("not grpc"),
                "{message:?}"
            );
        }
    }
}
