//! Step 2: find the route, or say why there is none.

use std::net::SocketAddr;

use http::{HeaderValue, Version, header};

use super::{
    exchange::Exchange,
    hop_by_hop::FORWARDED_HOST,
    receive::raw_path,
    reply::{GRPC_MESSAGE, GRPC_STATUS},
};
use crate::{
    entity::{message::RequestHead, reason::Reason},
    plugin::{Reply, Scheme, is_grpc},
    router::{Key, MatchedPath},
};

/// Finds the route of the request and notes it in the exchange.
///
/// # Errors
/// A reply: 404 (405 where so configured), the way to HTTPS, or why it is no request for gRPC.
pub(super) fn find(exchange: &mut Exchange) -> Result<(), Box<Reply>> {
    let snapshot = &exchange.snapshot;
    let key = key(exchange);
    let Some(found) = snapshot.router.find(&key) else {
        if snapshot.settings.method_not_allowed {
            let methods = snapshot.router.allowed_methods(&key);
            if !methods.is_empty()
                && let Ok(allow) = HeaderValue::from_str(&methods.join(", "))
            {
                let reply = Reply::message(405, Reason::MethodNotAllowed, "Method not allowed");
                return Err(Box::new(reply.header(header::ALLOW, allow)));
            }
        }
        return Err(Box::new(Reply::message(
            404,
            Reason::NoRoute,
            "no Route matched with those values",
        )));
    };
    (exchange.matched, exchange.pattern) = match found.path {
        MatchedPath::None => (None, None),
        MatchedPath::Prefix(bytes) => (Some(bytes), None),
        MatchedPath::Regex { len, pattern } => (Some(len), Some(pattern)),
    };
    exchange.route = Some(found.route);
    let Some(route) = snapshot.routes.get(found.route) else {
        return Ok(());
    };
    let refused = if route.grpc {
        refuse_for_grpc(
            &exchange.head,
            route.https_only && exchange.scheme == Scheme::Http,
        )
    } else if route.https_only && exchange.scheme == Scheme::Http {
        Some(to_https(exchange, route.https_redirect_status))
    } else {
        None
    };
    refused.map_or(Ok(()), |reply| Err(Box::new(reply)))
}

/// What the router looks at.
pub(super) fn key(exchange: &Exchange) -> Key<'_> {
    let head = &exchange.head;
    let connection = exchange.connection.as_deref();
    let sni = connection.and_then(|connection| match &connection.tls {
        Some(tls) => Some(tls.server_name.as_deref().unwrap_or_default()),
        // An explanation has no handshake; clients ask for the host by its name.
        None if connection.scheme == Scheme::Https => Some(exchange.host()),
        None => None,
    });
    Key {
        method: head.method.as_str(),
        host: exchange.host(),
        port: exchange.port,
        path: exchange
            .normal_path
            .as_deref()
            .unwrap_or_else(|| raw_path(head)),
        headers: &head.headers,
        sni,
        query: head.uri.query().unwrap_or_default(),
        protocol: exchange.scheme.as_str(),
        source: SocketAddr::new(exchange.client.ip, exchange.client.peer.port()),
        destination: connection.and_then(|connection| connection.local_ip),
    }
}

/// The host that the client asked for, without its port, as far as a trusted proxy may say otherwise.
fn outer_host(exchange: &Exchange) -> &str {
    let forwarded = exchange.head.headers.get(&FORWARDED_HOST);
    let forwarded = forwarded
        .filter(|_| exchange.trusted)
        .and_then(|host| host.to_str().ok());
    match forwarded {
        Some(host) if !host.is_empty() => match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        },
        _ => exchange.host(),
    }
}

/// 426, or a redirect to the same address over HTTPS.
fn to_https(exchange: &Exchange, status: u16) -> Reply {
    if status != 426
        && let Ok(location) = location(&exchange.head, outer_host(exchange))
    {
        return Reply::empty(status, Reason::HttpsRequired).header(header::LOCATION, location);
    }
    Reply::message(426, Reason::HttpsRequired, "Please use HTTPS protocol")
        // `Connection` is the session's to write.
        .header(
            header::UPGRADE,
            HeaderValue::from_static("TLS/1.2, HTTP/1.1"),
        )
}

/// What a request gets that no gRPC route can take: it is no gRPC, does not come over HTTP/2, or
/// comes in `plain_text` where that is refused.
fn refuse_for_grpc(head: &RequestHead, plain_text: bool) -> Option<Reply> {
    if !is_grpc(&head.headers) {
        return Some(Reply::message(
            415,
            Reason::NotGrpc,
            "Non-gRPC request matched gRPC route",
        ));
    }
    if head.version != Version::HTTP_2 {
        return Some(
            Reply::message(426, Reason::Http2Required, "Please use HTTP2 protocol")
                .header(header::UPGRADE, HeaderValue::from_static("HTTP/2")),
        );
    }
    // A status of gRPC is an answer of HTTP that succeeds.
    plain_text.then(|| {
        Reply::empty(200, Reason::HttpsRequired)
            .header(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            )
            .header(GRPC_STATUS, HeaderValue::from_static("1"))
            .header(
                GRPC_MESSAGE,
                HeaderValue::from_static("gRPC request matched gRPCs route"),
            )
    })
}

fn location(head: &RequestHead, host: &str) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let target = head
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    HeaderValue::from_str(&format!("https://{host}{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(version: Version, content_type: &'static str) -> RequestHead {
        let request = http::Request::builder()
            .version(version)
            .header(header::CONTENT_TYPE, content_type);
        request.body(()).expect("a request").into_parts().0.into()
    }

    fn refused(head: &RequestHead, plain_text: bool) -> Option<(u16, Reason)> {
        refuse_for_grpc(head, plain_text).map(|reply| (reply.status, reply.reason))
    }

    #[test]
    fn a_grpc_route_takes_grpc_over_http_2_only() {
        let grpc = call(Version::HTTP_2, "application/grpc+proto");

        assert_eq!(refused(&grpc, false), None);
        assert_eq!(
            refused(&call(Version::HTTP_2, "application/json"), false),
            Some((415, Reason::NotGrpc))
        );
        assert_eq!(
            refused(&call(Version::HTTP_11, "application/grpc"), false),
            Some((426, Reason::Http2Required))
        );
    }

    #[test]
    fn a_call_in_plain_text_to_an_encrypted_route_gets_a_status_of_grpc() {
        let grpc = call(Version::HTTP_2, "application/grpc");

        let reply = refuse_for_grpc(&grpc, true).expect("a reply");

        let headers: Vec<_> = reply
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(reply.status, 200);
        assert_eq!(
            headers,
            [
                ("content-type", &b"application/grpc"[..]),
                ("grpc-status", b"1"),
                ("grpc-message", b"gRPC request matched gRPCs route"),
            ]
        );
    }
}
