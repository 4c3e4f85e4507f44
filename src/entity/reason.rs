//! Why the gateway answered by itself: one stable code for logs and metrics.

/// The reason of a response that the gateway made rather than an upstream.
///
/// The codes are part of the product: dashboards and alerts name them, so they are never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The request's bytes are not acceptable HTTP.
    BadRequest,
    /// A header line or the whole head is over the limit.
    HeaderTooLarge,
    /// The request line is over the limit.
    UriTooLong,
    /// The client was too slow with its head or body.
    RequestTimeout,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// CONNECT, TRACE, or a method that only kept a route from matching.
    MethodNotAllowed,
    /// A transfer coding that the gateway does not speak.
    NotImplemented,
    /// The request body is over the limit.
    BodyTooLarge,
    /// No route matches.
    NoRoute,
    /// The route is served over HTTPS only.
    HttpsRequired,
    /// The route has no service and no plugin answered.
    NoService,
    /// The upstream has no usable target.
    NoTarget,
    /// No address is known for the upstream's name.
    NameResolution,
    /// The upstream could not be connected to.
    UpstreamConnect,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream closed or reset the connection.
    UpstreamReset,
    /// The upstream sent something that is not HTTP.
    UpstreamInvalid,
    /// The client went away before it was answered.
    ClientClosed,
    /// Authentication failed.
    Unauthorized,
    /// A rate limit is exhausted.
    RateLimited,
    /// `request-termination` answered.
    Terminated,
    /// A plugin failed.
    PluginFault,
    /// A bug of the gateway.
    Internal,
}

impl Reason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 23] = [
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
        Self::NoService,
        Self::NoTarget,
        Self::NameResolution,
        Self::UpstreamConnect,
        Self::UpstreamTimeout,
        Self::UpstreamReset,
        Self::UpstreamInvalid,
        Self::ClientClosed,
        Self::Unauthorized,
        Self::RateLimited,
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
            Self::NoService => "no_service",
            Self::NoTarget => "no_healthy_upstream",
            Self::NameResolution => "name_resolution",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::ClientClosed => "client_closed",
            Self::Unauthorized => "unauthorized",
            Self::RateLimited => "rate_limited",
            Self::Terminated => "terminated",
            Self::PluginFault => "plugin_fault",
            Self::Internal => "internal",
        }
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
