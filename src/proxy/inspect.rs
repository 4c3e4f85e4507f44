//! Whether the head of a response is one that may be passed on: what Pingora takes and HTTP does not
//! allow, or nobody can be expected to hold in memory.

use http::{Version, header};
use pingora_core::{Error, ErrorType, Result};

use crate::entity::{fields::Fields, message::ResponseHead};

/// How many fields a response may have, and how large they may be all together.
const FIELDS_MAX: usize = 200;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a line of a field has beside name and value.
const LINE_BYTES: usize = 4;

/// Checks the head of a response with these `fields`.
///
/// # Errors
/// The upstream's, if the head is not acceptable.
pub(super) fn check(head: &ResponseHead, fields: Fields) -> Result<()> {
    match complaint(head, fields) {
        None => Ok(()),
        Some(complaint) => Err(Error::explain(ErrorType::InvalidHTTPHeader, complaint).into_up()),
    }
}

fn complaint(head: &ResponseHead, fields: Fields) -> Option<&'static str> {
    let headers = &head.headers;
    if headers.len() > FIELDS_MAX {
        return Some("the response has more than 200 fields");
    }
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + LINE_BYTES)
        .sum();
    if bytes > HEAD_BYTES_MAX {
        return Some("the head of the response is larger than 64 KiB");
    }
    if fields.has(Fields::CONTENT_LENGTH) {
        let mut lines = headers.get_all(header::CONTENT_LENGTH);
        let first = lines.next().map_or(&b""[..], |value| value.as_bytes());
        if lines.next().is_some() || first.contains(&b',') {
            return Some("the response has more than one length");
        }
    }
    if fields.has(Fields::TRANSFER_ENCODING) {
        let mut lines = headers.get_all(header::TRANSFER_ENCODING);
        let is_chunked = lines
            .next()
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || lines.next().is_some() {
            return Some("the response has a transfer coding other than `chunked`");
        }
        if head.version == Version::HTTP_10 {
            return Some("a response of HTTP/1.0 has a transfer coding");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn complaint_of(version: Version, fields: &[(&'static str, &str)]) -> Option<&'static str> {
        let mut head = ResponseHead {
            version,
            ..ResponseHead::default()
        };
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).expect("a value");
            head.headers.append(HeaderName::from_static(name), value);
        }
        let fields = head.headers.fields();
        complaint(&head, fields)
    }

    #[test]
    fn a_response_has_one_framing() {
        let of = |fields: &[_]| complaint_of(Version::HTTP_11, fields).is_some();
        assert!(!of(&[("content-length", "5"), ("server", "x")]));
        assert!(!of(&[("transfer-encoding", "Chunked")]));
        assert!(of(&[("content-length", "5"), ("content-length", "5")]));
        assert!(of(&[("content-length", "5, 5")]));
        assert!(of(&[("transfer-encoding", "gzip, chunked")]));
        assert!(of(&[("transfer-encoding", "xchunked")]));
        assert!(of(&[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked")
        ]));
        let chunked = [("transfer-encoding", "chunked")];
        assert!(complaint_of(Version::HTTP_10, &chunked).is_some());
    }

    #[test]
    fn a_head_has_an_end() {
        let many = vec![("x-a", "b"); FIELDS_MAX];
        assert_eq!(complaint_of(Version::HTTP_11, &many), None);
        let more = vec![("x-a", "b"); FIELDS_MAX + 1];
        assert!(complaint_of(Version::HTTP_11, &more).is_some());
        let long = "x".repeat(8 * 1024);
        assert_eq!(
            complaint_of(Version::HTTP_11, &[("x-a", long.as_str()); 7]),
            None
        );
        assert!(complaint_of(Version::HTTP_11, &[("x-a", long.as_str()); 8]).is_some());
    }
}
