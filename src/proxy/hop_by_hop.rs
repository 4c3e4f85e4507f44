//! Fields that concern one connection only and are not passed on (RFC 9110 §7.6.1).

use http::{HeaderName, HeaderValue, header};

use crate::entity::message::Headers;

pub(super) static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY: HeaderName = HeaderName::from_static("proxy");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that a client cannot take away by naming them in `Connection`: they frame or address the
/// message, or mean something on this hop that is dealt with elsewhere.
static KEPT: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Removes what concerns only the client's connection, and every upgrade but that to a WebSocket.
pub(super) fn remove_from_request(headers: &mut Headers, tunnel: bool) {
    if headers.contains_key(header::CONNECTION) {
        remove_nominated(headers, &KEPT);
        headers.remove(header::CONNECTION);
    }
    if tunnel {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else {
        headers.remove(header::UPGRADE);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
    // CGI programs behind an origin would take it for the variable HTTP_PROXY.
    headers.remove(&PROXY);
}

/// Removes what concerns only the upstream's connection. `switching` is a 101 that was asked for;
/// `trailers` is whether the client said that it takes them.
pub(super) fn remove_from_response(headers: &mut Headers, switching: bool, trailers: bool) {
    if headers.contains_key(header::CONNECTION) {
        let kept: &[HeaderName] = if switching {
            &[
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
                header::UPGRADE,
            ]
        } else {
            &[header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        };
        remove_nominated(headers, kept);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    if !switching {
        headers.remove(header::UPGRADE);
    }
    if !trailers {
        headers.remove(header::TRAILER);
    }
}

/// Removes the fields that `Connection` names, but for those that it may not name.
fn remove_nominated(headers: &mut Headers, kept: &[HeaderName]) {
    let mut names: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !kept.contains(name))
        .collect();
    // A client may name a great many, and each of them as often as it likes.
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    headers.retain(|name| {
        let found = names.binary_search_by(|other| other.as_str().cmp(name.as_str()));
        found.is_err()
    });
}

/// A response head whose `Connection` also names the `Upgrade` that stands in it, as RFC 9110 §7.8
/// wants: Pingora writes that field by itself. Names have their capitals.
pub(super) fn with_upgrade(head: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    let field = b"\r\nConnection: ";
    let end = memchr::memmem::find(&head, field).and_then(|begin| {
        let value = begin + field.len();
        Some(value + memchr::memmem::find(head.get(value..)?, b"\r\n")?)
    });
    if let Some(end) = end.filter(|_| memchr::memmem::find(&head, b"\r\nUpgrade: ").is_some()) {
        head.splice(end..end, *b", Upgrade");
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_away_its_own_fields_and_no_framing() {
        let mut headers = Headers::default();
        for (name, value) in [
            ("connection", "close, X-Mine, Host, Content-Length"),
            ("x-mine", "1"),
            ("host", "a.test"),
            ("content-length", "0"),
            ("upgrade", "h2c"),
            ("proxy", "http://evil.test"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        remove_from_request(&mut headers, false);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host"]);
    }

    #[test]
    fn a_switch_of_protocols_keeps_its_name() {
        let head = |switching| {
            let mut headers = Headers::default();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            remove_from_response(&mut headers, switching, false);
            headers.contains_key(header::UPGRADE)
        };
        assert!(head(true));
        assert!(!head(false));
    }

    #[test]
    fn connection_names_an_upgrade_that_is_there() {
        let with =
            b"HTTP/1.1 426 x\r\nUpgrade: HTTP/2\r\nConnection: close\r\n\r\nConnection: a\r\n";
        let expected = b"HTTP/1.1 426 x\r\nUpgrade: HTTP/2\r\nConnection: close, Upgrade\r\n\r\nConnection: a\r\n";
        assert_eq!(with_upgrade(with), expected);
        let without = b"HTTP/1.1 426 x\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(with_upgrade(without), without);
    }
}
