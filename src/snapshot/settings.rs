//! The `gateway:` settings that a request reads. All of them change with a reload.

use std::{net::IpAddr, time::Duration};

use http::HeaderName;
use ipnet::IpNet;

use crate::{entity::error_template::ErrorTemplates, telemetry::log_file::Destination};

/// Settings in the form requests need them.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one switch of the operator's"
)]
pub struct Settings {
    pub trusted: Trusted,
    pub real_ip: RealIp,
    pub real_ip_recursive: bool,
    /// The most bytes of a request body; absent = no limit.
    pub body_bytes_max: Option<u64>,
    /// The most bytes of one request body that plugins may hold.
    pub body_buffer_bytes_max: usize,
    /// Client connections at once; absent = no limit.
    pub connections_max: Option<usize>,
    pub strip_identity_headers: bool,
    /// Whether a request that only its method keeps from a route gets 405 rather than 404.
    pub method_not_allowed: bool,
    /// The longest header line, request line included, in bytes.
    pub head_line_bytes_max: usize,
    /// The largest request head in bytes.
    pub head_bytes_max: usize,
    pub tokens: ResponseTokens,
    /// Whether upstreams get `X-Kong-Request-Id`.
    pub upstream_request_id: bool,
    pub error_type: ErrorType,
    pub error_templates: ErrorTemplates,
    pub keepalive_timeout: Duration,
    /// Requests per client connection.
    pub keepalive_requests: u32,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// How long a client may take nothing of a response.
    pub send_timeout: Duration,
    /// How idle connections to upstreams are kept; absent = none is.
    pub upkeep: Option<Upkeep>,
    /// Inner port → the outer port reported in `X-Forwarded-Port`.
    pub port_maps: Vec<(u16, u16)>,
    /// Whether `Kong-Debug: 1` is answered with the names of route and service.
    pub debug_header: bool,
    /// The log of requests; absent = there is none.
    pub access_log: Option<AccessLog>,
}

/// How connections to upstreams are kept between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// How long one may be idle.
    pub idle: Duration,
    /// How many requests it is used for; absent = any number.
    pub requests_max: Option<u32>,
    /// How many idle ones an address has at most.
    pub pool_size: usize,
}

/// Where a line for each request is written, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    pub to: Destination,
    pub format: AccessFormat,
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object.
    Json,
    /// What Kong writes, which is nginx's `combined` and the request id.
    Plain,
}

/// The peers whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Trusted(Vec<IpNet>);

impl Trusted {
    /// Trusts the addresses of `networks`.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is trusted. An IPv4-mapped IPv6 address counts as its IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        !self.0.is_empty() && {
            let address = address.to_canonical();
            self.0.iter().any(|network| network.contains(&address))
        }
    }
}

/// Where a trusted peer says who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIp {
    /// `X-Forwarded-For`: a list of addresses, the nearest last.
    ForwardedFor,
    /// A header with one address.
    Header(HeaderName),
    /// The PROXY header at the beginning of a connection.
    ProxyProtocol,
}

/// Which headers the gateway adds to responses (`headers`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one switch of the operator's"
)]
pub struct ResponseTokens {
    pub server: bool,
    pub via: bool,
    pub proxy_latency: bool,
    pub response_latency: bool,
    pub upstream_latency: bool,
    pub upstream_status: bool,
    pub request_id: bool,
}

/// The form of error bodies for clients that do not say what they accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    Plain,
    Html,
    Json,
    Xml,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_trusted_as_its_ipv4() {
        let trusted = Trusted::new(vec!["10.0.0.0/8".parse().expect("a network")]);
        assert!(trusted.contains("10.1.2.3".parse().expect("an address")));
        assert!(trusted.contains("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!trusted.contains("192.0.2.1".parse().expect("an address")));
        assert!(!Trusted::default().contains("10.1.2.3".parse().expect("an address")));
    }
}
