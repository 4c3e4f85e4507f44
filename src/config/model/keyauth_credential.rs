//! A key by which `key-auth` knows a consumer.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::entity::Secret;

/// A key by which `key-auth` knows a consumer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyauthCredential {
    /// A UUID; derived from the key if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The consumer; left out if the credential is nested in it.
    pub consumer: Option<Reference>,
    /// The key itself; unique. Without it a random one is made, which nobody can know.
    pub key: Option<Secret<String>>,
    /// Seconds after `created_at`, or after loading, until the key stops working.
    pub ttl: Option<u32>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for KeyauthCredential {
    model!(KeyauthCredential);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if self.key.is_none() && inspection.wrong.is_empty() {
            self.key = Some(inspection.generated_secret("key"));
        }
    }
}
