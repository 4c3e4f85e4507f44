//! What Pingora sees of heads: the line, and the fields that frame the message or belong to its connection. All
//! other fields stay with the exchange; over HTTP/1 they are written behind Pingora's first line as they are.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, StatusCode, Uri, Version, request, response};
use pingora_core::protocols::http::ServerSession;
use pingora_http::{RequestHeader, ResponseHeader};

use super::{
    exchange::{Arrived, Exchange},
    own_lines::{OwnLines, put_line},
};
use crate::entity::{
    fields::Fields,
    message::{RequestHead, ResponseHead},
};

/// What frames a request or belongs to its connection, which is Pingora's to write.
pub(super) const FRAMING: Fields = Fields::CONTENT_LENGTH
    .and(Fields::TRANSFER_ENCODING)
    .and(Fields::CONNECTION)
    .and(Fields::UPGRADE);
/// What Pingora needs of a request that came.
const OF_REQUESTS: Fields = FRAMING.and(Fields::EXPECT);
/// What Pingora needs of a response.
const OF_RESPONSES: Fields = Fields::CONTENT_LENGTH.and(Fields::TRANSFER_ENCODING);
/// What Pingora writes of its own, unless the response switches protocols.
const PINGORAS: Fields = Fields::CONNECTION.and(Fields::DATE);
/// Most names and values of one line are shorter together.
const USUAL_LINE_BYTES: usize = 64;
/// Most status lines are shorter.
const STATUS_LINE_BYTES: usize = 48;
/// What Pingora writes behind the lines of a response, and a short body.
const REST_BYTES: usize = 640;

/// The lines of `head` that are one of `fields`.
pub(super) fn lines_of(
    head: &RequestHead,
    fields: Fields,
) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let lines = head.headers.iter_fields();
    lines.filter_map(move |(field, name, value)| field.has(fields).then_some((name, value)))
}

/// The head that Pingora reads in place of `head`, with as much of the body behind it as is here.
pub(super) fn stand_in(head: &RequestHead, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(2 * USUAL_LINE_BYTES + body.len());
    bytes.extend_from_slice(head.method.as_str().as_bytes());
    bytes.extend_from_slice(match head.version {
        Version::HTTP_10 => b" / HTTP/1.0\r\n",
        _ => b" / HTTP/1.1\r\n",
    });
    for (name, value) in lines_of(head, OF_REQUESTS) {
        put_line(&mut bytes, name, value.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The head that Pingora gets in place of that of `arrived`, which came over HTTP/2. It carries it along.
pub(super) fn carry(arrived: Arrived) -> RequestHeader {
    let mut parts = framed(&arrived.head, Uri::default(), OF_REQUESTS);
    parts.version = Version::HTTP_2;
    parts.extensions.insert(arrived);
    parts.into()
}

/// What came with the head of a request over HTTP/2; `None` over HTTP/1.
pub(super) fn take_arrived(session: &mut ServerSession) -> Option<Arrived> {
    if !session.is_custom() {
        return None;
    }
    let head = session.req_header_mut();
    let mut parts = request::Parts::from(std::mem::replace(head, empty_parts().into()));
    let arrived = parts.extensions.remove();
    *head = parts.into();
    arrived
}

/// The head with which Pingora sends the request of `head` to `target`. All other fields follow it.
pub(super) fn request(head: &RequestHead, target: Uri) -> RequestHeader {
    framed(head, target, FRAMING).into()
}

/// How long the first line of `request` is as Pingora writes it.
pub(super) fn request_line_bytes(request: &RequestHeader) -> usize {
    let target = request.uri.path_and_query();
    let target = target.map_or(1, |target| target.as_str().len());
    request.method.as_str().len() + target + b"  HTTP/1.1\r\n".len()
}

fn framed(head: &RequestHead, target: Uri, fields: Fields) -> request::Parts {
    let mut parts = empty_parts();
    parts.method = head.method.clone();
    parts.uri = target;
    for (name, value) in lines_of(head, fields) {
        parts.headers.append(name, value.clone());
    }
    parts
}

/// `head` with all its fields, as Pingora has it.
pub(super) fn whole_request(head: RequestHead) -> RequestHeader {
    let mut parts = empty_parts();
    parts.method = head.method;
    parts.uri = head.uri;
    parts.version = head.version;
    parts.headers = head.headers.into();
    parts.into()
}

fn empty_parts() -> request::Parts {
    http::Request::new(()).into_parts().0
}

/// Takes the head of a response out of Pingora's hands; an empty one stays in its place. A reason phrase of
/// its own is lost.
pub(super) fn take_response(response: &mut ResponseHeader) -> ResponseHead {
    let nothing = parts_of(&ResponseHead::default());
    let parts = response::Parts::from(std::mem::replace(response, nothing.into()));
    ResponseHead {
        status: parts.status,
        version: parts.version,
        headers: parts.headers.into(),
    }
}

/// Gives the finished head of a response to Pingora. Over HTTP/1 that is what frames it; the rest waits at the
/// client's stream, which writes it behind that.
pub(super) fn give_response(head: ResponseHead, exchange: &Exchange) -> ResponseHeader {
    let wire = match (&exchange.stream, &exchange.connection) {
        (None, Some(connection)) => &connection.wire,
        _ => return whole_response(head),
    };
    let mut parts = parts_of(&head);
    let rest = USUAL_LINE_BYTES * head.headers.len() + REST_BYTES;
    let mut lines = OwnLines::new(STATUS_LINE_BYTES, rest);
    let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
    for (field, name, value) in head.headers.iter_fields() {
        if field.has(OF_RESPONSES) {
            parts.headers.append(name, value.clone());
        } else if is_switch || !field.has(PINGORAS) {
            lines.add_spelled(name, value);
        }
    }
    wire.follow_head(lines);
    parts.into()
}

/// `head` with all its fields, as Pingora has it.
pub(super) fn whole_response(head: ResponseHead) -> ResponseHeader {
    let mut parts = parts_of(&head);
    parts.headers = head.headers.into();
    parts.into()
}

/// The parts of `head` without its fields.
fn parts_of(head: &ResponseHead) -> response::Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = head.status;
    parts.version = head.version;
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, lines: &[(&'static str, &'static str)]) -> RequestHead {
        let line = |&(name, value): &_| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        RequestHead {
            version,
            uri: "/orders?a".parse().expect("a URI"),
            headers: lines.iter().map(line).collect(),
            ..RequestHead::default()
        }
    }

    #[test]
    fn pingora_reads_what_frames_a_request_and_nothing_else() {
        let head = head(
            Version::HTTP_11,
            &[
                ("host", "a.test"),
                ("content-length", "5"),
                ("x-a", "b"),
                ("connection", "close"),
            ],
        );

        assert_eq!(
            stand_in(&head, b"hel"),
            "GET / HTTP/1.1\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhel"
        );
        let sent = request(&head, head.uri.clone());
        let names: Vec<_> = sent.headers.keys().cloned().collect();
        assert_eq!(names, ["content-length", "connection"]);
        assert_eq!(whole_request(head).headers.len(), 4);
    }

    #[test]
    fn the_version_of_a_request_stays() {
        let head = head(Version::HTTP_10, &[("connection", "keep-alive")]);
        assert_eq!(
            stand_in(&head, b""),
            "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
        );
    }
}
