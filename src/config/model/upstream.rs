//! An upstream: a name that several targets share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::discovery::Discovery;
use super::healthchecks::{self, Healthchecks};
use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;

const REFUSED: &[(&str, &str)] = &[(
    "sticky_sessions_cookie",
    "it belongs to the algorithm `sticky-sessions`; leave the field out",
)];

const ROUND_ROBIN_ONLY: &str = "use round-robin";
const ALGORITHMS: &[(&str, &str)] = &[
    ("consistent-hashing", ROUND_ROBIN_ONLY),
    ("least-connections", ROUND_ROBIN_ONLY),
    ("latency", ROUND_ROBIN_ONLY),
    ("sticky-sessions", ROUND_ROBIN_ONLY),
];

const NO_HASHING: &str = "use none: there is no consistent hashing";
const HASH_INPUTS: &[(&str, &str)] = &[
    ("consumer", NO_HASHING),
    ("ip", NO_HASHING),
    ("header", NO_HASHING),
    ("cookie", NO_HASHING),
    ("path", NO_HASHING),
    ("query_arg", NO_HASHING),
    ("uri_capture", NO_HASHING),
];

/// How a target is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-refused-values" = ALGORITHMS))]
pub enum Algorithm {
    /// In turn, by weight.
    #[default]
    RoundRobin,
}

/// What consistent hashing hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(extend("x-refused-values" = HASH_INPUTS))]
pub enum HashInput {
    /// Nothing.
    #[default]
    None,
}

/// A name that several targets share; a service uses it as its `host`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "x-refused" = REFUSED))]
pub struct Upstream {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// What services give as their `host`: syntax of a host name, no IP address, no port. Unique among upstreams.
    #[schemars(extend("format" = "upstream-name"))]
    pub name: String,
    /// How a target is chosen.
    pub algorithm: Algorithm,
    /// What consistent hashing hashes.
    pub hash_on: HashInput,
    /// What is hashed if that is missing from a request.
    pub hash_fallback: HashInput,
    /// Unused without hashing.
    #[schemars(extend("format" = "header-name"))]
    pub hash_on_header: Option<String>,
    /// Unused without hashing.
    #[schemars(extend("format" = "header-name"))]
    pub hash_fallback_header: Option<String>,
    /// Unused without hashing.
    pub hash_on_cookie: Option<String>,
    /// Unused without hashing.
    pub hash_on_cookie_path: String,
    /// Unused without hashing.
    pub hash_on_query_arg: Option<String>,
    /// Unused without hashing.
    pub hash_fallback_query_arg: Option<String>,
    /// Unused without hashing.
    pub hash_on_uri_capture: Option<String>,
    /// Unused without hashing.
    pub hash_fallback_uri_capture: Option<String>,
    /// Unused without sticky sessions.
    pub sticky_sessions_cookie_path: String,
    /// The size of the ring of consistent hashing; unused without it.
    #[schemars(range(min = 10, max = 65536))]
    pub slots: u32,
    /// The Host header for all targets, maybe with a port.
    #[schemars(extend("format" = "host-header"))]
    pub host_header: Option<String>,
    /// Whether the Host header is the name of the SRV record; only `false` in this version.
    pub use_srv_name: bool,
    /// The most requests that one target serves at once, and so the most connections to it; 0: no limit. A further request waits up to `connect_timeout`.
    pub max_connections: u32,
    /// The `certificates` entry that is shown to targets over https, by id, where the service names none.
    #[serde(skip_serializing)]
    pub client_certificate: Option<Reference>,
    /// Where its instances are asked for; absent: it has the targets of the files.
    pub discovery: Option<Discovery>,
    /// How the health of targets is watched. Nothing is watched by default.
    pub healthchecks: Healthchecks,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            algorithm: Algorithm::RoundRobin,
            hash_on: HashInput::None,
            hash_fallback: HashInput::None,
            hash_on_header: None,
            hash_fallback_header: None,
            hash_on_cookie: None,
            hash_on_cookie_path: "/".to_owned(),
            hash_on_query_arg: None,
            hash_fallback_query_arg: None,
            hash_on_uri_capture: None,
            hash_fallback_uri_capture: None,
            sticky_sessions_cookie_path: "/".to_owned(),
            slots: 10_000,
            host_header: None,
            use_srv_name: false,
            max_connections: 0,
            client_certificate: None,
            discovery: None,
            healthchecks: Healthchecks::default(),
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Model for Upstream {
    model!(Upstream);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if self.use_srv_name {
            inspection
                .error(
                    Code::UnsupportedValue,
                    "use_srv_name",
                    "`use_srv_name: true` is not supported in this version",
                )
                .hint("give the name in `host_header`");
        }
        healthchecks::settle(inspection);
    }
}
