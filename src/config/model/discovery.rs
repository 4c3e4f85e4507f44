//! Where a registry tells what the files do not: the instances of an upstream, and whole services with their
//! routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::entity::Secret;

/// The kinds of registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// Consul, by its HTTP API.
    #[default]
    Consul,
}

/// Where the instances of an upstream are asked for. Targets of the files are used only until the first answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["type", "address", "service"]))]
pub struct Discovery {
    /// The kind of registry.
    #[serde(rename = "type")]
    pub kind: Registry,
    /// The HTTP API: `http://host:port`, maybe with a path.
    #[schemars(extend("format" = "consul-address"))]
    pub address: String,
    /// The name of the service there.
    #[schemars(length(min = 1, max = 256))]
    pub service: String,
    /// Tags that an instance must have, all of them.
    #[schemars(inner(length(min = 1, max = 256)), length(max = 64))]
    pub tags: Vec<String>,
    /// Whether only instances count whose checks pass.
    pub passing: bool,
    /// The datacenter; empty: that of the agent.
    #[schemars(length(min = 0, max = 128))]
    pub datacenter: String,
    /// The ACL token; empty: none. It is sent in a header and never shown.
    #[serde(skip_serializing)]
    #[schemars(length(min = 0, max = 1024))]
    pub token: Secret<String>,
    /// Seconds that a question waits for a change.
    #[schemars(range(min = 1, max = 600))]
    pub wait: u32,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            kind: Registry::Consul,
            address: String::new(),
            service: String::new(),
            tags: Vec::new(),
            passing: true,
            datacenter: String::new(),
            token: Secret::default(),
            wait: 30,
        }
    }
}

/// Where whole services with their routes are taken from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteDiscovery {
    /// The catalog of a Consul.
    pub consul: Option<ConsulRoutes>,
}

/// The catalog of a Consul, whose services ask for routes by their tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub struct ConsulRoutes {
    /// The HTTP API: `http://host:port`, maybe with a path.
    #[schemars(extend("format" = "consul-address"))]
    pub address: String,
    /// The ACL token; empty: none. It is sent in a header and never shown.
    #[serde(skip_serializing)]
    #[schemars(length(min = 0, max = 1024))]
    pub token: Secret<String>,
    /// The datacenter; empty: that of the agent.
    #[schemars(length(min = 0, max = 128))]
    pub datacenter: String,
    /// What the tags begin with that are meant for the gateway.
    #[schemars(length(min = 1, max = 64))]
    pub tag_prefix: String,
    /// Seconds that a question waits for a change.
    #[schemars(range(min = 1, max = 600))]
    pub wait: u32,
}

impl Default for ConsulRoutes {
    fn default() -> Self {
        Self {
            address: String::new(),
            token: Secret::default(),
            datacenter: String::new(),
            tag_prefix: "tollgate.".to_owned(),
            wait: 30,
        }
    }
}
