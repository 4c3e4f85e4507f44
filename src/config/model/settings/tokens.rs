//! The headers that the gateway adds, by the names and groups of `kong.conf`.

use std::str::FromStr;

use super::{List, Written};

/// A header, or a group of headers, that the gateway adds to responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseToken {
    Off,
    ServerTokens,
    LatencyTokens,
    Server,
    Via,
    ProxyLatency,
    ResponseLatency,
    UpstreamLatency,
    AdminLatency,
    UpstreamStatus,
    RequestId,
}

impl ResponseToken {
    const NAMES: &[(Self, &'static str)] = &[
        (Self::Off, "off"),
        (Self::ServerTokens, "server_tokens"),
        (Self::LatencyTokens, "latency_tokens"),
        (Self::Server, "Server"),
        (Self::Via, "Via"),
        (Self::ProxyLatency, "X-Kong-Proxy-Latency"),
        (Self::ResponseLatency, "X-Kong-Response-Latency"),
        (Self::UpstreamLatency, "X-Kong-Upstream-Latency"),
        (Self::AdminLatency, "X-Kong-Admin-Latency"),
        (Self::UpstreamStatus, "X-Kong-Upstream-Status"),
        (Self::RequestId, "X-Kong-Request-Id"),
    ];

    /// The name as operators write it.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(token, _)| *token == self);
        found.map_or("", |(_, name)| *name)
    }
}

impl Written for ResponseToken {
    const FORMAT: &'static str = "response-token";
}

impl FromStr for ResponseToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        found.map(|(token, _)| *token).ok_or_else(|| {
            format!(
                "`{text}` is none of server_tokens, latency_tokens, Server, Via, X-Kong-Proxy-Latency, \
                 X-Kong-Response-Latency, X-Kong-Upstream-Latency, X-Kong-Upstream-Status, X-Kong-Request-Id, off"
            )
        })
    }
}

/// Which headers the gateway adds to responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one switch for each header")]
pub struct ResponseHeaders {
    pub server: bool,
    pub via: bool,
    pub proxy_latency: bool,
    pub response_latency: bool,
    pub upstream_latency: bool,
    pub upstream_status: bool,
    pub request_id: bool,
}

impl List<ResponseToken> {
    /// What the names and groups come to.
    pub fn headers(&self) -> ResponseHeaders {
        use ResponseToken as Token;
        let named = |token: Token| self.0.contains(&token);
        let (server, latency) = (named(Token::ServerTokens), named(Token::LatencyTokens));
        ResponseHeaders {
            server: server || named(Token::Server),
            via: server || named(Token::Via),
            proxy_latency: latency || named(Token::ProxyLatency),
            response_latency: latency || named(Token::ResponseLatency),
            upstream_latency: latency || named(Token::UpstreamLatency),
            upstream_status: named(Token::UpstreamStatus),
            request_id: named(Token::RequestId),
        }
    }
}

/// A header that the gateway adds to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestToken {
    Off,
    RequestId,
}

impl Written for RequestToken {
    const FORMAT: &'static str = "request-token";
}

impl FromStr for RequestToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "x-kong-request-id" => Ok(Self::RequestId),
            _ => Err(format!("`{text}` is none of X-Kong-Request-Id, off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_headers_are_expanded() {
        let list: List<ResponseToken> =
            List(vec![ResponseToken::LatencyTokens, ResponseToken::Via]);
        let headers = list.headers();
        assert!(headers.proxy_latency && headers.via && !headers.server && !headers.request_id);
    }
}
