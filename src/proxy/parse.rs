//! Takes an acceptable head apart: its names and values are parts of the bytes as they came, not copies.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use memchr::{memchr, memrchr};

use crate::entity::message::{Headers, RequestHead};

/// Room for the fields of most requests and for what plugins add.
const LINES: usize = 16;

/// The head of a request that [`super::head::HeadReader`] accepted; `None` if `bytes` are none.
pub(super) fn request(bytes: &Bytes) -> Option<RequestHead> {
    let mut end = memchr(b'\n', bytes)?;
    let line = bytes.get(..end)?.strip_suffix(b"\r")?;
    let (method_end, target_end) = (memchr(b' ', line)?, memrchr(b' ', line)?);
    let method = Method::from_bytes(line.get(..method_end)?).ok()?;
    let version = match line.get(target_end + 1..)? {
        b"HTTP/1.0" => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    if target_end <= method_end {
        return None;
    }
    let uri = target(bytes.slice(method_end + 1..target_end))?;
    let mut headers = Headers::with_capacity(LINES);
    loop {
        let begin = end + 1;
        end = begin + memchr(b'\n', bytes.get(begin..)?)?;
        let line = bytes.get(begin..end)?.strip_suffix(b"\r")?;
        if line.is_empty() {
            break;
        }
        let colon = memchr(b':', line)?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = line.get(colon + 1..)?.trim_ascii();
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value)).ok()?;
        headers.append(name, value);
    }
    Some(RequestHead {
        method,
        uri,
        version,
        headers,
    })
}

/// Path and query of a target. The authority of an absolute one is that of `Host`, which was compared with it.
fn target(target: Bytes) -> Option<Uri> {
    let uri = Uri::from_maybe_shared(target).ok()?;
    if uri.authority().is_none() {
        return Some(uri);
    }
    match uri.path_and_query() {
        None => Some(Uri::default()),
        // A query behind the authority stands without the slash that goes before it.
        Some(path) if path.as_str().starts_with('?') => {
            Uri::from_maybe_shared(Bytes::from(format!("/{}", path.as_str()))).ok()
        }
        Some(path) => Some(Uri::from(path.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Option<RequestHead> {
        request(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_head_comes_apart_line_by_line() {
        let head = read(
            "PATCH /a%20b?c=d HTTP/1.0\r\nHost:a.test\r\nX-Two: \t b c \r\nx-two:\r\n\r\nbody: x\r\n",
        )
        .expect("a head");

        assert_eq!(
            (head.method, head.version),
            (Method::PATCH, Version::HTTP_10)
        );
        assert_eq!(head.uri, "/a%20b?c=d");
        let lines: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        assert_eq!(lines, [("host", "a.test"), ("x-two", "b c"), ("x-two", "")]);
    }

    #[test]
    fn of_an_absolute_target_path_and_query_stay() {
        for (target, expected) in [
            ("http://a.test/b?c", "/b?c"),
            ("HTTP://a.test:80", "/"),
            ("http://a.test?c=d", "/?c=d"),
            ("*", "*"),
            ("/", "/"),
        ] {
            let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let head = request(&Bytes::from(text)).expect("a head");
            let path = head.uri.path_and_query().expect("a path");
            assert_eq!(path.as_str(), expected, "{target}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_head() {
        let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for end in 0..whole.len() {
            let cut = whole.get(..end).expect("ASCII");
            assert!(read(cut).is_none(), "{end}");
        }
        assert!(read(whole).is_some());
    }
}
