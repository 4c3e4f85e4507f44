//! Instances of the limiter, each with a limit of its own, so that the answer tells which one ran.

use crate::harness::{Gateway, Request};

/// An instance in a list of plugins.
pub(super) fn limiter(limit: u32, scope: &str) -> String {
    format!("- {{ name: rate-limiting, config: {{ year: {limit}, limit_by: ip }}, {scope} }}\n")
}

/// The limit of the instance that ran for a request with the key of this consumer, 0 if none did.
pub(super) fn limit(gateway: &Gateway, path: &str, consumer: &str) -> u32 {
    let response = gateway.send(&Request::get(path).header("apikey", &format!("{consumer}-key")));
    assert_eq!(response.status, 200);
    response
        .header("X-RateLimit-Limit-Year")
        .map_or(0, |limit| limit.parse().expect("a number"))
}
