//! The protocols that a service is reached by and a route is open to.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kong's protocols that this version does not speak, and what to do about each.
pub const REFUSED: &[(&str, &str)] = &[
    ("tcp", STREAM),
    ("tls", STREAM),
    ("udp", STREAM),
    ("tls_passthrough", STREAM),
];

const STREAM: &str = "there is no stream proxying; use http or https, or leave this entity out";

/// HTTP or gRPC, plain or encrypted. `WebSocket`s go over HTTP, so `ws` and `wss` are other names
/// for it.
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
#[schemars(extend("enum" = ["http", "https", "grpc", "grpcs", "ws", "wss"], "x-refused-values" = REFUSED))]
pub enum Protocol {
    #[default]
    #[serde(alias = "ws")]
    Http,
    #[serde(alias = "wss")]
    Https,
    Grpc,
    Grpcs,
}

impl Protocol {
    /// The name that operators write, which is also the scheme of a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }

    /// The port that a `Host` header need not name.
    pub const fn default_port(self) -> u16 {
        if self.is_encrypted() { 443 } else { 80 }
    }

    /// Whether it goes over TLS.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }

    /// Whether it is gRPC, which HTTP/2 carries.
    pub const fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
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
        assert_eq!(Protocol::Grpcs.default_port(), 443);
        assert_eq!(Protocol::Grpc.default_port(), 80);
    }
}
