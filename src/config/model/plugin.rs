//! A plugin: where it applies. What its `config` means is the plugin's own business.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::ordering::Ordering;
use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;

const REFUSED: &[(&str, &str)] = &[
    (
        "condition",
        "it is an enterprise field; scope the plugin to routes, services, consumers or consumer groups",
    ),
    ("model", "it is a field of Kong's AI gateway; leave it out"),
    (
        "partials",
        "they are an enterprise entity; write what each of them holds into `config`",
    ),
];

/// A plugin and where it applies: on every request, or on those of a service, route, consumer or consumer group.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "x-refused" = REFUSED))]
pub struct Plugin {
    /// A UUID; derived from the name and the scopes if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Which plugin it is.
    pub name: String,
    /// A name of this instance; unique.
    #[schemars(extend("format" = "entity-name"))]
    pub instance_name: Option<String>,
    /// The plugin's own settings.
    pub config: Settings,
    /// The name of one of the document's `_plugin_configs`, on which `config` builds.
    #[serde(rename = "_config")]
    pub shared_config: Option<String>,
    /// `false`: as if it were not there.
    pub enabled: bool,
    /// The plugin runs only on requests that come in one of these ways.
    #[schemars(length(min = 1))]
    pub protocols: BTreeSet<PluginProtocol>,
    /// Only on requests to this service.
    pub service: Option<Reference>,
    /// Only on requests of this route.
    pub route: Option<Reference>,
    /// Only on requests of this consumer.
    pub consumer: Option<Reference>,
    /// Only on requests of consumers in this group.
    pub consumer_group: Option<Reference>,
    /// Before and after which plugins it runs, where its priority would have it otherwise.
    pub ordering: Option<Ordering>,
    /// Accepted for the sake of old files, without effect since Kong 2.0.
    pub run_on: Option<String>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

/// The ways in which a request can come to a plugin: by its route's protocols and whether there is TLS.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PluginProtocol {
    Grpc,
    Grpcs,
    Http,
    Https,
    Tcp,
    Tls,
    TlsPassthrough,
    Udp,
    Ws,
    Wss,
}

impl Default for Plugin {
    fn default() -> Self {
        use PluginProtocol::{Grpc, Grpcs, Http, Https};
        Self {
            id: None,
            name: String::new(),
            instance_name: None,
            config: Settings,
            shared_config: None,
            enabled: true,
            protocols: BTreeSet::from([Grpc, Grpcs, Http, Https]),
            service: None,
            route: None,
            consumer: None,
            consumer_group: None,
            ordering: None,
            run_on: None,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Model for Plugin {
    model!(Plugin);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if self.run_on.is_some() {
            inspection
                .warning(
                    Code::Ignored,
                    "run_on",
                    "`run_on` has no effect: it means nothing since Kong 2.0",
                )
                .hint("leave it out");
        }
    }
}

/// Stands for the plugin's own settings, which are read later, by the plugin, from the entity's node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings;

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for Settings {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Settings".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}
