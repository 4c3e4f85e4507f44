//! Fields that concern one connection only and are not passed on (RFC 9110 §7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::{RequestHeader, ResponseHeader};

use super::receive::{FORWARDED_FOR, FORWARDED_PROTO};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that a client cannot take away by naming them in `Connection`: they frame or address the
/// message, or mean something on this hop that is dealt with elsewhere.
const KEPT: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
    FORWARDED_FOR,
    FORWARDED_PROTO,
];

/// Removes what concerns only the client's connection, and every upgrade but that to a WebSocket.
pub(super) fn remove_from_request(head: &mut RequestHeader, tunnel: bool) {
    if head.headers.contains_key(header::CONNECTION) {
        for name in nominated(&head.headers, &KEPT) {
            head.remove_header(&name);
        }
        head.remove_header(&header::CONNECTION);
        if tunnel {
            head.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
                .expect("a constant header is valid");
        }
    }
    if !tunnel {
        head.remove_header(&header::UPGRADE);
    }
    // CGI programs behind an origin would take it for the variable HTTP_PROXY.
    head.remove_header(&PROXY);
}

/// Removes what concerns only the upstream's connection. `switching` is a 101 that was asked for;
/// `trailers` is whether the client said that it takes them.
pub(super) fn remove_from_response(head: &mut ResponseHeader, switching: bool, trailers: bool) {
    let kept: &[HeaderName] = if switching {
        &[
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
        ]
    } else {
        &[header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
    };
    for name in nominated(&head.headers, kept) {
        head.remove_header(&name);
    }
    head.remove_header(&KEEP_ALIVE);
    head.remove_header(&PROXY_CONNECTION);
    if !switching {
        head.remove_header(&header::UPGRADE);
    }
    if !trailers {
        head.remove_header(&header::TRAILER);
    }
}

/// The fields that `Connection` names, without those that it may not name.
fn nominated(headers: &HeaderMap, kept: &[HeaderName]) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !kept.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_away_its_own_fields_and_no_framing() {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        for (name, value) in [
            ("Connection", "close, X-Mine, Host, Content-Length"),
            ("X-Mine", "1"),
            ("Host", "a.test"),
            ("Content-Length", "0"),
            ("Upgrade", "h2c"),
            ("Proxy", "http://evil.test"),
        ] {
            head.insert_header(name, value).expect("a header");
        }
        remove_from_request(&mut head, false);
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host"]);
    }

    #[test]
    fn a_switch_of_protocols_keeps_its_name() {
        let head = |switching| {
            let mut head = ResponseHeader::build(101, None).expect("a head");
            head.insert_header("Connection", "Upgrade")
                .expect("a header");
            head.insert_header("Upgrade", "websocket")
                .expect("a header");
            remove_from_response(&mut head, switching, false);
            head.headers.contains_key(header::UPGRADE)
        };
        assert!(head(true));
        assert!(!head(false));
    }
}
