//! A name and secret by which `hmac-auth` knows a consumer.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::entity::Secret;

/// A name and secret by which `hmac-auth` knows a consumer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["username"]))]
pub struct HmacauthCredential {
    /// A UUID; derived from the username if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The consumer; left out if the credential is nested in it.
    pub consumer: Option<Reference>,
    /// The name in the signature; unique.
    #[schemars(extend("format" = "consumer-name"))]
    pub username: String,
    /// What requests are signed with. Without it a random one is made, which nobody can know.
    pub secret: Option<Secret<String>>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for HmacauthCredential {
    model!(HmacauthCredential);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if self.secret.is_none() && inspection.wrong.is_empty() {
            self.secret = Some(inspection.generated_secret("secret"));
        }
    }
}
