//! The health checks of an upstream: when its targets are out, and when they are back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Inspection;
use crate::config::diagnostics::Code;
use crate::config::node::{Entry, Kind};

/// How the health of targets is watched. Active checks are on if one of their intervals is above 0, passive ones if one of their failure limits is. Each address of a target has its own health and starts healthy; unhealthy ones get no requests. Nothing heals by time alone: it takes active probes with `active.unhealthy.interval` and `active.healthy.successes` above 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Healthchecks {
    /// The upstream is used only while more than this percentage of its weight is on healthy addresses; else its requests get 503.
    #[schemars(range(min = 0, max = 100))]
    pub threshold: f64,
    /// Probes that the gateway sends.
    pub active: Active,
    /// What is learnt from the traffic.
    pub passive: Passive,
    /// An extension: what is asked of addresses that come and go.
    pub damping: Damping,
}

/// An extension: what is asked of addresses that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Damping {
    /// An address that became unhealthy so often within `window` needs `factor` times as many successes; 0: every time the same.
    #[schemars(range(max = 16))]
    pub falls: u8,
    /// Seconds in which they are counted.
    #[schemars(range(min = 1, max = 65535))]
    pub window: f64,
    /// How many times `healthy.successes` are needed then, together at most 255.
    #[schemars(range(min = 1))]
    pub factor: u8,
}

impl Default for Damping {
    fn default() -> Self {
        Self {
            falls: 0,
            window: 600.0,
            factor: 5,
        }
    }
}

/// What a probe is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActiveType {
    /// A TCP connection is a success.
    Tcp,
    /// A GET over plain HTTP, judged by its status.
    #[default]
    Http,
    /// A GET over TLS, judged by its status.
    Https,
    /// A call of `grpc.health.v1.Health/Check`, judged by what the server says of itself.
    Grpc,
    /// The same over TLS.
    Grpcs,
}

/// What passive checks look at: always the outcome of proxied requests, whichever is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PassiveType {
    Tcp,
    #[default]
    Http,
    Https,
    Grpc,
    Grpcs,
}

/// Probes that the gateway sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Active {
    /// What a probe is: a GET with `http` and `https`, a call of `grpc.health.v1.Health/Check` with `grpc` and `grpcs`, a connection with `tcp`.
    #[serde(rename = "type")]
    pub kind: ActiveType,
    /// Seconds for one probe, from connecting to the response's head (of gRPC: to its end); 0: 60 seconds.
    #[schemars(range(min = 0, max = 65535))]
    pub timeout: f64,
    /// How many addresses of the upstream are probed at once.
    #[schemars(range(min = 1, max = 2_147_483_648_i64))]
    pub concurrency: u32,
    /// The path that is asked for. With `grpc` and `grpcs`: the service that is asked for behind a slash, such as `/orders.v1.Orders`; `/` for the server as a whole.
    #[schemars(extend("format" = "service-path"))]
    pub http_path: String,
    /// The server name in the TLS handshake of `https` and `grpcs` probes, and the one that the certificate must prove; the `Host` that is sent if absent.
    #[schemars(extend("format" = "service-host"))]
    pub https_sni: Option<String>,
    /// Whether the certificate of the target is verified by `https` and `grpcs` probes.
    pub https_verify_certificate: bool,
    /// Headers that probes carry, each with a list of values. `Host` replaces the one that is sent by default: the upstream's `host_header`, else the target's name with its port unless that is the protocol's own.
    #[schemars(extend(
        "propertyNames" = {"format": "header-name"},
        "additionalProperties" = {"type": "array", "items": {"type": "string", "format": "header-value"}}
    ))]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Probing of healthy addresses, and what makes an address healthy.
    pub healthy: ActiveHealthy,
    /// Probing of unhealthy addresses, and what makes an address unhealthy.
    pub unhealthy: ActiveUnhealthy,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            kind: ActiveType::Http,
            timeout: 1.0,
            concurrency: 10,
            http_path: "/".to_owned(),
            https_sni: None,
            https_verify_certificate: true,
            headers: BTreeMap::new(),
            healthy: ActiveHealthy::default(),
            unhealthy: ActiveUnhealthy::default(),
        }
    }
}

/// Probing of healthy addresses, and what makes an address healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveHealthy {
    /// Seconds between two probes of a healthy address, a tenth less at times; 0: none. Less than 0.01 is 0.01.
    #[schemars(range(min = 0, max = 65535))]
    pub interval: f64,
    /// Successes in a row that make an address healthy; 0: they count for nothing.
    pub successes: u8,
    /// Statuses that are a success. One that is in neither list counts for nothing.
    #[schemars(inner(range(min = 100, max = 999)))]
    pub http_statuses: Vec<u16>,
}

impl Default for ActiveHealthy {
    fn default() -> Self {
        Self {
            interval: 0.0,
            successes: 0,
            http_statuses: vec![200, 302],
        }
    }
}

/// Probing of unhealthy addresses, and what makes an address unhealthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveUnhealthy {
    /// Seconds between two probes of an unhealthy address, a tenth less at times; 0: none. Less than 0.01 is 0.01.
    #[schemars(range(min = 0, max = 65535))]
    pub interval: f64,
    /// Statuses that are a failure, unless they are in the list of successes.
    #[schemars(inner(range(min = 100, max = 999)))]
    pub http_statuses: Vec<u16>,
    /// Failed or broken connections in a row that make an address unhealthy; 0: they count for nothing.
    pub tcp_failures: u8,
    /// Timeouts in a row that make an address unhealthy; 0: they count for nothing.
    pub timeouts: u8,
    /// Bad statuses in a row that make an address unhealthy; 0: they count for nothing.
    pub http_failures: u8,
}

impl Default for ActiveUnhealthy {
    fn default() -> Self {
        Self {
            interval: 0.0,
            http_statuses: vec![429, 404, 500, 501, 502, 503, 504, 505],
            tcp_failures: 0,
            timeouts: 0,
            http_failures: 0,
        }
    }
}

/// What is learnt from the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Passive {
    /// Accepted for Kong's sake, without effect: passive checks look at proxied requests.
    #[serde(rename = "type")]
    pub kind: PassiveType,
    /// What makes an address healthy.
    pub healthy: PassiveHealthy,
    /// What makes an address unhealthy.
    pub unhealthy: PassiveUnhealthy,
}

/// Responses that speak for a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveHealthy {
    /// Successes in a row that make an address healthy; 0: they only end a row of failures. Little use alone, as no request goes to an unhealthy address.
    pub successes: u8,
    /// Statuses that are a success. One that is in neither list counts for nothing.
    #[schemars(inner(range(min = 100, max = 999)))]
    pub http_statuses: Vec<u16>,
}

impl Default for PassiveHealthy {
    fn default() -> Self {
        let http_statuses = (200..=208).chain([226]).chain(300..=308).collect();
        Self {
            successes: 0,
            http_statuses,
        }
    }
}

/// Responses that speak against a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveUnhealthy {
    /// Bad statuses in a row that make an address unhealthy; 0: they count for nothing.
    pub http_failures: u8,
    /// Failed or broken connections in a row that make an address unhealthy; 0: they count for nothing.
    pub tcp_failures: u8,
    /// Timeouts in a row that make an address unhealthy; 0: they count for nothing.
    pub timeouts: u8,
    /// Statuses that are a failure, unless they are in the list of successes.
    #[schemars(inner(range(min = 100, max = 999)))]
    pub http_statuses: Vec<u16>,
}

impl Default for PassiveUnhealthy {
    fn default() -> Self {
        Self {
            http_failures: 0,
            tcp_failures: 0,
            timeouts: 0,
            http_statuses: vec![429, 500, 503],
        }
    }
}

/// Headers that would make a probe something else than one request without a body.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
];

/// Refuses headers of probes that the gateway decides on.
///
/// It looks at what is written rather than at what was read, as another mistake nearby keeps the record from being read.
pub(super) fn settle(inspection: &mut Inspection<'_>) {
    let headers = inspection.at("healthchecks.active.headers");
    let Some(Kind::Mapping(entries)) = headers.map(|node| &node.kind) else {
        return;
    };
    let framing = |entry: &Entry| FRAMING.contains(&entry.key.to_ascii_lowercase().as_str());
    let refused: Vec<String> = entries
        .iter()
        .filter(|entry| framing(entry))
        .map(|entry| entry.key.clone())
        .collect();
    for name in refused {
        inspection
            .error(
                Code::InvalidValue,
                &format!("healthchecks.active.headers.{name}"),
                format!("a probe cannot carry the header `{name}`: it is one request without a body on a connection of its own"),
            )
            .hint("leave it out");
    }
}
