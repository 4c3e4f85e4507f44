//! The protocols that a service is reached by and a route is open to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kong's protocols that this version does not speak, and what to do about each.
pub const REFUSED: &[(&str, &str)] = &[
    ("grpc", GRPC),
    ("grpcs", GRPC),
    ("tcp", STREAM),
    ("tls", STREAM),
    ("udp", STREAM),
    ("tls_passthrough", STREAM),
];

const GRPC: &str = "use http or https, or leave this entity out";
const STREAM: &str = "there is no stream proxying; use http or https, or leave this entity out";

/// Plain or encrypted HTTP. `WebSocket`s go over either, so `ws` and `wss` are other names for them.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("enum" = ["http", "https", "ws", "wss"], "x-refused-values" = REFUSED))]
pub enum Protocol {
    #[default]
    #[serde(alias = "ws")]
    Http,
    #[serde(alias = "wss")]
    Https,
}

impl Protocol {
    /// The scheme of a URL, `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_sockets_are_other_names_for_http() {
        assert_eq!(
            serde_json::from_str::<Protocol>("\"ws\"").unwrap(),
            Protocol::Http
        );
        assert_eq!(
            serde_json::from_str::<Protocol>("\"wss\"").unwrap(),
            Protocol::Https
        );
    }

    #[test]
    fn a_protocol_knows_its_port() {
        assert_eq!(Protocol::Https.default_port(), 443);
    }
}
