//! One answer: its status, who gave it, and what it says of limits. Judged by the headers that the gateway adds, so
//! that it does not matter which part of the gateway answered.

use std::fmt;

use http::{HeaderMap, StatusCode, header};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::client::Received;

/// The header in which a mock origin tells its name.
const NAME: &str = "x-backend";
/// On what an upstream answered, and only there.
const UPSTREAM_MARKS: [&str; 2] = ["x-kong-upstream-latency", "x-kong-proxy-latency"];
/// On what the gateway answered by itself, and only there.
const GATEWAY_MARK: &str = "x-kong-response-latency";
/// The product in `Via` and `Server`.
const PRODUCT: &str = "tollgate/";

/// Who gave an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// An origin that tells its name.
    Named(String),
    /// An origin that does not.
    Upstream,
    /// The gateway, by itself.
    Gateway,
    /// An answer that does not show it.
    Unknown,
    /// There was no answer.
    Nobody,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Named(name) => name,
            Self::Upstream => "an upstream",
            Self::Gateway => "the gateway",
            Self::Unknown => "unknown",
            Self::Nobody => "nobody",
        })
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Named(name) => name,
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
            Self::Unknown => "unknown",
            Self::Nobody => "nobody",
        })
    }
}

/// An answer, as far as it is judged.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) source: Source,
    /// What the body says in its field `message`.
    pub(super) message: Option<String>,
    /// `RateLimit-…` and `X-RateLimit-…` headers, by name.
    pub(super) limits: Vec<(String, String)>,
    pub(super) retry_after: Option<String>,
}

impl Answer {
    pub(super) fn of(received: &Received) -> Self {
        let body: Option<Value> = serde_json::from_slice(&received.body).ok();
        let headers = &received.headers;
        Self {
            status: received.status,
            source: source(headers, body.as_ref()),
            message: field(body.as_ref(), "message"),
            limits: limits(headers),
            retry_after: text(headers, header::RETRY_AFTER.as_str()),
        }
    }

    pub(super) fn is_by_gateway(&self) -> bool {
        self.source == Source::Gateway
    }
}

fn source(headers: &HeaderMap, body: Option<&Value>) -> Source {
    let upstream = || {
        text(headers, NAME)
            .or_else(|| field(body, "backend"))
            .map_or(Source::Upstream, Source::Named)
    };
    let carries = |name: &str| text(headers, name).is_some_and(|value| value.contains(PRODUCT));
    if UPSTREAM_MARKS
        .iter()
        .any(|mark| headers.contains_key(*mark))
        || carries(header::VIA.as_str())
    {
        return upstream();
    }
    if headers.contains_key(GATEWAY_MARK) {
        return Source::Gateway;
    }
    if headers.contains_key(NAME) {
        return upstream();
    }
    // `gateway.headers` may have switched the marks off; then the form of an error tells.
    if carries(header::SERVER.as_str()) || field(body, "request_id").is_some() {
        return Source::Gateway;
    }
    Source::Unknown
}

fn limits(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("ratelimit-") || name.starts_with("x-ratelimit-"))
        .filter_map(|name| Some((name.to_owned(), text(headers, name)?)))
        .collect();
    found.sort();
    found
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    value.to_str().ok().map(str::to_owned)
}

fn field(body: Option<&Value>, name: &str) -> Option<String> {
    body?.get(name)?.as_str().map(str::to_owned)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer with this status from this source, without anything else.
    pub(crate) fn answer(status: u16, source: Source) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            source,
            message: None,
            limits: Vec::new(),
            retry_after: None,
        }
    }

    fn judged(headers: &[(&'static str, &str)], body: &'static str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header's value"));
        }
        Answer::of(&Received {
            status: StatusCode::OK,
            headers: map,
            body: body.into(),
        })
    }

    #[test]
    fn the_headers_of_the_gateway_tell_who_answered() {
        let source = |headers, body| judged(headers, body).source;
        assert_eq!(
            source(&[("x-kong-upstream-latency", "1"), ("x-backend", "a")], ""),
            Source::Named("a".to_owned())
        );
        assert_eq!(
            source(&[("via", "1.1 tollgate/0.1.0")], "{\"backend\": \"b\"}"),
            Source::Named("b".to_owned())
        );
        assert_eq!(
            source(&[("x-kong-proxy-latency", "1")], "hello"),
            Source::Upstream
        );
        assert_eq!(
            source(&[("x-kong-response-latency", "0")], ""),
            Source::Gateway
        );
        assert_eq!(source(&[], "hello"), Source::Unknown);
    }

    #[test]
    fn without_those_headers_the_form_of_an_error_tells() {
        let error = "{\"message\": \"no\", \"request_id\": \"1\"}";
        assert_eq!(judged(&[], error).source, Source::Gateway);
        assert_eq!(
            judged(&[("x-backend", "a")], error).source,
            Source::Named("a".to_owned())
        );
        assert_eq!(judged(&[], error).message.as_deref(), Some("no"));
    }

    #[test]
    fn an_upstream_that_claims_to_be_the_gateway_is_an_upstream() {
        let headers = [
            ("x-kong-response-latency", "0"),
            ("x-kong-upstream-latency", "1"),
        ];
        assert_eq!(judged(&headers, "").source, Source::Upstream);
    }

    #[test]
    fn limits_are_told_by_name() {
        let answer = judged(
            &[
                ("x-ratelimit-limit-minute", "5"),
                ("ratelimit-limit", "5"),
                ("retry-after", "7"),
            ],
            "",
        );
        let limit = |name: &str| (name.to_owned(), "5".to_owned());
        assert_eq!(
            answer.limits,
            [limit("ratelimit-limit"), limit("x-ratelimit-limit-minute")]
        );
        assert_eq!(answer.retry_after.as_deref(), Some("7"));
    }
}
