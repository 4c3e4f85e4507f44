//! The strict reading of a request head that came over HTTP/2. What comes out is what the same
//! request over HTTP/1 would have: a path, one `Host`, one `Content-Length` at most. The HTTP/2
//! layer has refused before what breaks its own rules, such as names with capitals, pseudo-fields
//! in the wrong place, and fields of a connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts};

use crate::{
    entity::reason::Reason,
    proxy::head::{FIELDS_MAX, Limits, METHOD_BYTES_MAX, Refusal, bad, host, refusal, too_large},
};

/// Reads `head` and gives it the form that every step expects.
///
/// # Errors
/// The first thing that is not acceptable.
pub(super) fn read(mut head: Parts, limits: Limits) -> Result<Parts, Refusal> {
    method(&head.method)?;
    let path = path(&head, limits)?;
    let authority = authority(&head)?;
    fields(&head, limits)?;
    content_length(&head.headers)?;
    expectation(&head.headers)?;
    head.uri = path;
    head.headers.insert(header::HOST, authority);
    join_cookies(&mut head.headers);
    Ok(head)
}

fn method(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::CONNECT => Err(refusal(
            405,
            Reason::MethodNotAllowed,
            "CONNECT is not served",
        )),
        Method::TRACE => Err(refusal(
            405,
            Reason::MethodNotAllowed,
            "TRACE is not served",
        )),
        _ if method.as_str().len() > METHOD_BYTES_MAX => Err(refusal(
            501,
            Reason::NotImplemented,
            "the method is too long",
        )),
        _ => Ok(()),
    }
}

fn path(head: &Parts, limits: Limits) -> Result<Uri, Refusal> {
    let Some(path) = head.uri.path_and_query() else {
        return Err(bad("the request has no path"));
    };
    let text = path.as_str();
    let is_acceptable = text.starts_with('/') || (text == "*" && head.method == Method::OPTIONS);
    if !is_acceptable {
        return Err(bad("the path does not begin with a slash"));
    }
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Err(bad("the path holds a byte that must be percent-encoded"));
    }
    if head.method.as_str().len() + text.len() + 1 > limits.line {
        return Err(refusal(414, Reason::UriTooLong, "the path is too long"));
    }
    Ok(Uri::from(path.clone()))
}

/// What the request is for, of `:authority` and `Host`, which must not say two things.
fn authority(head: &Parts) -> Result<HeaderValue, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let written = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("there are two Host fields"));
    }
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    match (authority, written) {
        (None, None) => Err(bad("the request names no host")),
        (None, Some(written)) => {
            host(written.as_bytes(), true)?;
            Ok(written.clone())
        }
        (Some(authority), written) => {
            if written.is_some_and(|written| {
                !written
                    .as_bytes()
                    .eq_ignore_ascii_case(authority.as_bytes())
            }) {
                return Err(bad(":authority and Host name different hosts"));
            }
            host(authority.as_bytes(), false)?;
            HeaderValue::from_maybe_shared(Bytes::copy_from_slice(authority.as_bytes()))
                .map_err(|_| bad("the host is malformed"))
        }
    }
}

fn fields(head: &Parts, limits: Limits) -> Result<(), Refusal> {
    if head.headers.len() > FIELDS_MAX {
        return Err(too_large("there are too many header fields"));
    }
    // What the same head has in HTTP/1 beside names, values and their lines.
    let mut whole = head.method.as_str().len() + target_bytes(head);
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        // Name, colon and blank, as one line of HTTP/1.
        let line = name.as_str().len() + value.len() + 2;
        if line > limits.line {
            return Err(too_large("a header field is too long"));
        }
        whole += line + 2;
        if whole > limits.head {
            return Err(refusal(
                431,
                Reason::HeaderTooLarge,
                "the head is too large",
            ));
        }
        let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_blank(value.first()) || is_blank(value.last()) {
            return Err(bad("a header value begins or ends with a blank"));
        }
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    if lengths.next().is_some() {
        return Err(bad("there are two Content-Length fields"));
    }
    let digits = length.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = length
        .to_str()
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    if is_number && number.is_some() {
        Ok(())
    } else {
        Err(bad("Content-Length is not a number"))
    }
}

fn expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().all(is_known) {
        Ok(())
    } else {
        Err(refusal(
            417,
            Reason::ExpectationFailed,
            "an expectation other than 100-continue",
        ))
    }
}

/// Makes one `Cookie` of its crumbs (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let mut whole = Vec::new();
    for crumb in headers.get_all(header::COOKIE) {
        if !whole.is_empty() {
            whole.extend_from_slice(b"; ");
        }
        whole.extend_from_slice(crumb.as_bytes());
    }
    let whole = HeaderValue::from_maybe_shared(Bytes::from(whole))
        .expect("values joined by a semicolon and a blank are a value");
    headers.insert(header::COOKIE, whole);
}

/// The bytes of a head as it was before it was compressed, as the limits count them.
pub(super) fn size(head: &Parts) -> u64 {
    let pair = |name: &HeaderName, value: &HeaderValue| name.as_str().len() + value.len();
    let fields: usize = head
        .headers
        .iter()
        .map(|(name, value)| pair(name, value))
        .sum();
    (fields + target_bytes(head) + head.method.as_str().len()) as u64
}

fn target_bytes(head: &Parts) -> usize {
    let target = head.uri.path_and_query();
    target.map_or(0, |target| target.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 8192,
        head: 32768,
    };

    fn head(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn refused(method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<u16> {
        read(head(method, uri, fields), LIMITS)
            .err()
            .map(|refusal| refusal.status)
    }

    #[test]
    fn authority_becomes_the_host_and_the_target_a_path() {
        let read = read(head("GET", "https://a.test:8443/x?y=1", &[]), LIMITS).expect("good");
        assert_eq!(read.uri, "/x?y=1");
        assert_eq!(read.headers["host"], "a.test:8443");
    }

    #[test]
    fn authority_and_host_must_agree_and_one_must_be_there() {
        let uri = "http://a.test/";
        assert_eq!(refused("GET", uri, &[("host", "A.test")]), None);
        assert_eq!(refused("GET", uri, &[("host", "b.test")]), Some(400));
        assert_eq!(
            refused("GET", uri, &[("host", "a.test"), ("host", "a.test")]),
            Some(400)
        );
        assert_eq!(refused("GET", "/", &[]), Some(400));
        assert_eq!(refused("GET", "/", &[("host", "a.test")]), None);
        assert_eq!(refused("GET", "http://user@a.test/", &[]), Some(400));
    }

    #[test]
    fn what_http1_would_read_differently_is_refused() {
        let uri = "http://a.test/";
        let length = |value: &str| refused("POST", uri, &[("content-length", value)]);
        for value in ["+5", "-1", "", "5, 5", "99999999999999999999"] {
            assert_eq!(length(value), Some(400), "{value}");
        }
        assert_eq!(length("5"), None);
        assert_eq!(
            refused(
                "POST",
                uri,
                &[("content-length", "5"), ("content-length", "5")]
            ),
            Some(400)
        );
        assert_eq!(refused("GET", uri, &[("x", "a ")]), Some(400));
        assert_eq!(refused("GET", uri, &[("expect", "more")]), Some(417));
        assert_eq!(refused("CONNECT", "a.test:80", &[]), Some(405));
        assert_eq!(refused("TRACE", uri, &[]), Some(405));
        assert_eq!(refused(&"M".repeat(33), uri, &[]), Some(501));
    }

    #[test]
    fn lines_have_the_length_of_http1() {
        let long = "a".repeat(9000);
        let uri = format!("http://a.test/{long}");
        assert_eq!(refused("GET", &uri, &[]), Some(414));
        assert_eq!(refused("GET", "http://a.test/", &[("x", &long)]), Some(400));
    }

    #[test]
    fn a_head_has_the_size_of_http1() {
        let value = "a".repeat(8000);
        let fields = [("x", value.as_str()); 5];
        let sent = |count| refused("GET", "http://a.test/", fields.split_at(count).0);
        assert_eq!(sent(4), None);
        assert_eq!(sent(5), Some(431));
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let fields = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")];
        let read = read(head("GET", "http://a.test/", &fields), LIMITS).expect("good");
        let cookies: Vec<_> = read.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
    }
}
