//! Heads taken out of Pingora's hands to be edited. Pingora keeps the spelling of every field name
//! beside the fields, in a second map; without it a change is one operation on one map. The price
//! is that names go out in lower case, as they do in HTTP/2.

use http::{request, response};
use pingora_http::{RequestHeader, ResponseHeader};

/// Takes the request head; an empty one stays in its place.
pub(super) fn of_request(head: &mut RequestHeader) -> request::Parts {
    let (nothing, ()) = http::Request::new(()).into_parts();
    std::mem::replace(head, RequestHeader::from(nothing)).into()
}

/// Takes the response head; an empty one stays in its place. A reason phrase of its own is lost.
pub(super) fn of_response(head: &mut ResponseHeader) -> response::Parts {
    let (nothing, ()) = http::Response::new(()).into_parts();
    std::mem::replace(head, ResponseHeader::from(nothing)).into()
}
