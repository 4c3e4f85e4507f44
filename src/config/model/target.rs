//! A target: one address of an upstream, or a name that stands for several.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::config::formats;

/// The port of a target that names none.
pub const DEFAULT_PORT: u16 = 8000;

/// One address of an upstream, or a name that stands for several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["target"]))]
pub struct Target {
    /// A UUID; derived from `target` and the upstream if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// `host:port`, an IPv6 address in brackets; without a port 8000.
    #[schemars(extend("format" = "target"))]
    pub target: String,
    /// The upstream; left out if the target is nested in it.
    #[serde(skip_serializing)]
    pub upstream: Option<Reference>,
    /// The share of the requests, relative to the other targets; 0: none.
    pub weight: u16,
    /// Accepted for Kong's sake, without effect.
    pub failover: bool,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970, maybe with a fraction.
    pub created_at: Option<f64>,
    /// Seconds since 1970, maybe with a fraction.
    pub updated_at: Option<f64>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            id: None,
            target: String::new(),
            upstream: None,
            weight: 100,
            failover: false,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Target {
    /// The host without brackets, and the port.
    pub fn address(&self) -> (&str, u16) {
        let (host, port) = formats::split_port(&self.target);
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        (
            host,
            port.and_then(|port| port.parse().ok())
                .unwrap_or(DEFAULT_PORT),
        )
    }

    /// The same in the one spelling that all spellings of an address or name have in common.
    pub fn canonical_address(&self) -> (String, u16) {
        let (host, port) = self.address();
        let host = host.parse().map_or_else(
            |_| host.to_ascii_lowercase(),
            |address: IpAddr| address.to_string(),
        );
        (host, port)
    }
}

impl Model for Target {
    model!(Target);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if self.failover {
            inspection.warning(
                Code::Ignored,
                "failover",
                "`failover` has no effect in this version",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_an_address() {
        let address = |target: &str| {
            let target = Target {
                target: target.to_owned(),
                ..Target::default()
            };
            let (host, port) = target.address();
            format!("{host} {port}")
        };
        assert_eq!(address("a:80"), "a 80");
        assert_eq!(address("a"), "a 8000");
        assert_eq!(address("[::1]:80"), "::1 80");
        assert_eq!(address("[::1]"), "::1 8000");
        assert_eq!(address("::1"), "::1 8000");
    }

    #[test]
    fn spellings_of_one_address_are_the_same() {
        let canonical = |target: &str| {
            let target = Target {
                target: target.to_owned(),
                ..Target::default()
            };
            target.canonical_address()
        };
        assert_eq!(canonical("A.test:80"), canonical("a.test:80"));
        assert_eq!(canonical("[0:0:0:0:0:0:0:1]:80"), canonical("[::1]:80"));
        assert_ne!(canonical("a.test:80"), canonical("a.test:81"));
    }
}
