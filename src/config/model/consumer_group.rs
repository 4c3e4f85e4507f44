//! A consumer group: consumers that share plugins; and the flat form of who is in one.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Model, model};

/// Consumers that share plugins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct ConsumerGroup {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Unique among consumer groups.
    #[schemars(extend("format" = "entity-name"))]
    pub name: String,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for ConsumerGroup {
    model!(ConsumerGroup);
}

/// One consumer in one consumer group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerGroupConsumer {
    /// A UUID, without effect.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Who is in the group.
    pub consumer: Option<Reference>,
    /// The group.
    pub consumer_group: Option<Reference>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for ConsumerGroupConsumer {
    model!(ConsumerGroupConsumer);
}
