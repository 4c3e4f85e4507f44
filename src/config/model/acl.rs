//! A group that a consumer is in, for the plugin `acl`.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Model, model};

/// A group that a consumer is in, for the plugin `acl`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["group"]))]
pub struct Acl {
    /// A UUID; derived from the consumer and the group if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The consumer; left out if the entry is nested in it.
    pub consumer: Option<Reference>,
    /// The group's name.
    #[schemars(extend("format" = "consumer-name"))]
    pub group: String,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for Acl {
    model!(Acl);
}
