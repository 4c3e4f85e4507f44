//! Step 2: find the route, or say why there is none.

use http::{HeaderValue, header, request::Parts};

use super::{exchange::Exchange, receive::raw_path};
use crate::{
    entity::reason::Reason,
    plugin::{Reply, Scheme},
    router::{Key, MatchedPath},
};

/// Finds the route of the request and notes it in the exchange.
///
/// # Errors
/// A reply: 404 (405 where so configured), or the way to HTTPS.
pub(super) fn find(head: &Parts, exchange: &mut Exchange) -> Result<(), Box<Reply>> {
    let snapshot = &exchange.snapshot;
    let key = key(head, exchange);
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
    match snapshot.routes.get(found.route) {
        Some(route) if route.https_only && exchange.scheme == Scheme::Http => Err(Box::new(
            to_https(head, exchange.host(), route.https_redirect_status),
        )),
        _ => Ok(()),
    }
}

/// What the router looks at.
pub(super) fn key<'e>(head: &'e Parts, exchange: &'e Exchange) -> Key<'e> {
    Key {
        method: head.method.as_str(),
        host: exchange.host(),
        port: exchange.port,
        path: exchange
            .normal_path
            .as_deref()
            .unwrap_or_else(|| raw_path(head)),
        headers: &head.headers,
    }
}

/// 426, or a redirect to the same address over HTTPS.
fn to_https(head: &Parts, host: &str, status: u16) -> Reply {
    if status != 426
        && let Ok(location) = location(head, host)
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

fn location(head: &Parts, host: &str) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let target = head
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    HeaderValue::from_str(&format!("https://{host}{target}"))
}
