//! Why the gateway answered by itself: one stable code for logs and metrics.

/// The reason of a response that the gateway made rather than an upstream.
///
/// The codes are part of the product: dashboards and alerts name them, so they are never renamed.
/// The comment of each is its row of the reference page: when it is given, and in a paragraph of
/// its own `status: message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The request is not acceptable HTTP/1.1: framing, characters, Host, target, version. A body with broken chunks.
    ///
    /// 400, 505: Bad request · HTTP version not supported
    BadRequest,
    /// A header line or the head is over its limit, or there are more than 256 fields. With 431: the head as a whole, over HTTP/2.
    ///
    /// 400, 431: Request header or cookie too large
    HeaderTooLarge,
    /// The request line is over its limit.
    ///
    /// 414: URI too long
    UriTooLong,
    /// Head or body did not arrive in time. With 504: `total_timeout` passed while the client still owed its body.
    ///
    /// 408, 504: Request timeout · The upstream server is timing out
    RequestTimeout,
    /// `Expect` is something other than `100-continue`.
    ///
    /// 417: Expectation failed
    ExpectationFailed,
    /// CONNECT or TRACE; or, with `gateway.method_not_allowed: 405`, only the method keeps the request from a route.
    ///
    /// 405: Method not allowed
    MethodNotAllowed,
    /// A transfer coding other than `chunked`, or a method of more than 32 characters.
    ///
    /// 501: Not implemented
    NotImplemented,
    /// The body is over `client_max_body_size`, or over `client_body_buffer_limit` when a plugin reads it.
    ///
    /// 413: Payload too large
    BodyTooLarge,
    /// No route matches.
    ///
    /// 404: no Route matched with those values
    NoRoute,
    /// The route is for https only (a redirect has no body). A route for grpcs only answers with 200 and `grpc-status: 1`. With 400: a request without TLS came to a TLS port.
    ///
    /// 426, 301, 302, 307, 308, 400: Please use HTTPS protocol · The plain HTTP request was sent to HTTPS port
    HttpsRequired,
    /// The connection's TLS handshake was for a name with other rules for client certificates than the request's host has.
    ///
    /// 421: Misdirected request
    MisdirectedRequest,
    /// A request to a route for gRPC whose `Content-Type` is not that of gRPC.
    ///
    /// 415: Non-gRPC request matched gRPC route
    NotGrpc,
    /// gRPC over HTTP/1 to a route for gRPC.
    ///
    /// 426: Please use HTTP2 protocol
    Http2Required,
    /// The route has no service, and no plugin answered.
    ///
    /// 503: no Service found with those values
    NoService,
    /// No target with a weight above 0 is healthy, or not more than `threshold` percent of the weight
    /// is; or `max_connections` leaves no place. The second message is that of a later try. With 504:
    /// `total_timeout` passed before a first try was made.
    ///
    /// 503, 504: failure to get a peer from the ring-balancer · The upstream server is currently unavailable · The upstream server is timing out
    NoTarget,
    /// No address is known for the name. With 504: `total_timeout` passed while one was waited for.
    ///
    /// 503, 504: name resolution failed · The upstream server is timing out
    NameResolution,
    /// The upstream could not be connected to, or the TLS handshake with it failed.
    ///
    /// 502: An invalid response was received from the upstream server
    UpstreamConnect,
    /// The certificate of the upstream was not accepted: its chain, its name, its time. The log tells which.
    ///
    /// 502: An invalid response was received from the upstream server
    UpstreamUnverified,
    /// `connect_timeout`, `write_timeout` or `read_timeout` passed.
    ///
    /// 504: The upstream server is timing out
    UpstreamTimeout,
    /// `total_timeout` passed before the response began, over all tries and what they waited for; at least one was made.
    ///
    /// 504: The upstream server is timing out
    TotalTimeout,
    /// The upstream closed or reset the connection.
    ///
    /// 502: An invalid response was received from the upstream server
    UpstreamReset,
    /// The upstream sent something that is not HTTP.
    ///
    /// 502: An invalid response was received from the upstream server
    UpstreamInvalid,
    /// The client went away; nothing is sent.
    ///
    /// 499: –
    ClientClosed,
    /// `key-auth` found no valid key.
    ///
    /// 401: No API key found in request · Duplicate API key found · Unauthorized
    Unauthorized,
    /// A limit of `rate-limiting` is reached; status and message can be configured.
    ///
    /// 429: API rate limit exceeded
    RateLimited,
    /// `concurrency-limit` has no place, neither at once nor in its queue; status and message can be configured.
    ///
    /// 503: Too many concurrent requests
    ConcurrencyLimited,
    /// A circuit of `circuit-breaker` is open; status and message can be configured.
    ///
    /// 503: Service temporarily unavailable
    CircuitOpen,
    /// `request-termination` answered.
    ///
    /// as configured: as configured
    Terminated,
    /// A plugin failed; the cause is in the log.
    ///
    /// 500: An unexpected error occurred
    PluginFault,
    /// A bug of the gateway.
    ///
    /// 500: An unexpected error occurred
    Internal,
}

impl Reason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 30] = [
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::UriTooLong,
        Self::RequestTimeout,
        Self::ExpectationFailed,
        Self::MethodNotAllowed,
        Self::NotImplemented,
        Self::BodyTooLarge,
        Self::NoRoute,
        Self::HttpsRequired,
        Self::MisdirectedRequest,
        Self::NotGrpc,
        Self::Http2Required,
        Self::NoService,
        Self::NoTarget,
        Self::NameResolution,
        Self::UpstreamConnect,
        Self::UpstreamUnverified,
        Self::UpstreamTimeout,
        Self::TotalTimeout,
        Self::UpstreamReset,
        Self::UpstreamInvalid,
        Self::ClientClosed,
        Self::Unauthorized,
        Self::RateLimited,
        Self::ConcurrencyLimited,
        Self::CircuitOpen,
        Self::Terminated,
        Self::PluginFault,
        Self::Internal,
    ];

    /// The code as it appears in logs and in the metric label `reason`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::RequestTimeout => "request_timeout",
            Self::ExpectationFailed => "expectation_failed",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotImplemented => "not_implemented",
            Self::BodyTooLarge => "body_too_large",
            Self::NoRoute => "no_route",
            Self::HttpsRequired => "https_required",
            Self::MisdirectedRequest => "misdirected_request",
            Self::NotGrpc => "not_grpc",
            Self::Http2Required => "http2_required",
            Self::NoService => "no_service",
            Self::NoTarget => "no_healthy_upstream",
            Self::NameResolution => "name_resolution",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamUnverified => "upstream_unverified",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::ClientClosed => "client_closed",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::CircuitOpen => "circuit_open",
            Self::Terminated => "terminated",
            Self::PluginFault => "plugin_fault",
            Self::Internal => "internal",
        }
    }

    /// Whether an upstream was asked and did not give a whole response.
    pub const fn is_of_upstream(self) -> bool {
        matches!(
            self,
            Self::UpstreamConnect
                | Self::UpstreamUnverified
                | Self::UpstreamTimeout
                | Self::TotalTimeout
                | Self::UpstreamReset
                | Self::UpstreamInvalid
        )
    }

    /// The place of this reason in [`Self::ALL`], for tables indexed by reason.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_index_and_has_a_code_of_its_own() {
        let mut codes = std::collections::HashSet::new();
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(codes.insert(reason.code()), "{} twice", reason.code());
        }
    }
}
