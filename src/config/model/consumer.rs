//! A consumer: somebody who uses the APIs behind the gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reference::{GroupItem, Reference};
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;

/// Somebody who uses the APIs behind the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Consumer {
    /// A UUID; derived from the username if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Unique among consumers. At least one of `username` and `custom_id` is needed.
    #[schemars(extend("format" = "consumer-name"))]
    pub username: Option<String>,
    /// The consumer's id in a system of yours; unique among consumers.
    #[schemars(extend("format" = "consumer-name"))]
    pub custom_id: Option<String>,
    /// The consumer groups that the consumer is in.
    #[serde(skip_serializing)]
    #[schemars(with = "Vec<GroupItem>")]
    pub groups: Vec<Reference>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for Consumer {
    model!(Consumer);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if !inspection.has("username") && !inspection.has("custom_id") {
            inspection.error(
                Code::MissingField,
                "",
                "at least one of the fields `username` and `custom_id` is required",
            );
        }
    }
}
