//! The health checks of an upstream: known in full, but not run by this version.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Inspection;
use crate::config::diagnostics::Code;
use crate::config::node::Kind;

/// How the health of targets is watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Healthchecks {
    /// The percentage of the weight that must be available.
    #[schemars(range(min = 0, max = 100))]
    pub threshold: f64,
    /// Probes that the gateway sends.
    pub active: Active,
    /// What is learnt from the traffic.
    pub passive: Passive,
}

/// What a health check speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckType {
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
    /// What a probe speaks.
    #[serde(rename = "type")]
    pub kind: CheckType,
    /// Seconds for one probe.
    #[schemars(range(min = 0, max = 65535))]
    pub timeout: f64,
    /// How many targets are probed at once.
    #[schemars(range(min = 1, max = 2_147_483_648_i64))]
    pub concurrency: u32,
    /// The path that is asked for.
    #[schemars(extend("format" = "service-path"))]
    pub http_path: String,
    /// The server name in the TLS handshake.
    pub https_sni: Option<String>,
    /// Whether the target's certificate is verified.
    pub https_verify_certificate: bool,
    /// Headers that probes carry.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Probing of healthy targets.
    pub healthy: ActiveHealthy,
    /// Probing of unhealthy targets.
    pub unhealthy: ActiveUnhealthy,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            kind: CheckType::Http,
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

/// Probing of healthy targets, and what makes a target healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveHealthy {
    /// Seconds between probes; 0: none.
    #[schemars(range(min = 0, max = 65535))]
    pub interval: f64,
    /// Successes in a row that make a target healthy; 0: never.
    pub successes: u8,
    /// Statuses that are a success.
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

/// Probing of unhealthy targets, and what makes a target unhealthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveUnhealthy {
    /// Seconds between probes; 0: none.
    #[schemars(range(min = 0, max = 65535))]
    pub interval: f64,
    /// Statuses that are a failure.
    #[schemars(inner(range(min = 100, max = 999)))]
    pub http_statuses: Vec<u16>,
    /// Failed connections in a row that make a target unhealthy; 0: never.
    pub tcp_failures: u8,
    /// Timeouts in a row that make a target unhealthy; 0: never.
    pub timeouts: u8,
    /// Bad statuses in a row that make a target unhealthy; 0: never.
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
    /// What the traffic speaks.
    #[serde(rename = "type")]
    pub kind: CheckType,
    /// What makes a target healthy.
    pub healthy: PassiveHealthy,
    /// What makes a target unhealthy.
    pub unhealthy: PassiveUnhealthy,
}

/// Responses that speak for a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveHealthy {
    /// Successes in a row that make a target healthy; 0: never.
    pub successes: u8,
    /// Statuses that are a success.
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
    /// Bad statuses in a row that make a target unhealthy; 0: never.
    pub http_failures: u8,
    /// Failed connections in a row that make a target unhealthy; 0: never.
    pub tcp_failures: u8,
    /// Timeouts in a row that make a target unhealthy; 0: never.
    pub timeouts: u8,
    /// Statuses that are a failure.
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

/// Settings that would switch a check on.
const SWITCHES: &[&str] = &[
    "threshold",
    "active.healthy.interval",
    "active.unhealthy.interval",
    "passive.unhealthy.http_failures",
    "passive.unhealthy.tcp_failures",
    "passive.unhealthy.timeouts",
];

/// Refuses, one by one, the settings that would switch a check on.
///
/// It looks at what is written rather than at what was read, as another mistake nearby keeps the record from being read.
pub(super) fn refuse(inspection: &mut Inspection<'_>) {
    for setting in SWITCHES {
        let field = format!("healthchecks.{setting}");
        let on = match inspection.at(&field).map(|node| &node.kind) {
            Some(Kind::Integer(value)) => *value > 0,
            Some(Kind::Float(value)) => *value > 0.0,
            _ => false,
        };
        if on {
            let message = format!(
                "`{setting}` above 0 is not supported in this version: health checks are not run"
            );
            inspection
                .error(Code::UnsupportedValue, &field, message)
                .hint("set it to 0 or leave it out");
        }
    }
}
