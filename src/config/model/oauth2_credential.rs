//! An application of a consumer that asks for tokens of `oauth2`.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::entity::Secret;
use crate::entity::credential::ClientType;

/// An application of a consumer that asks for tokens of `oauth2`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct Oauth2Credential {
    /// A UUID; derived from `client_id` if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The consumer; left out if the credential is nested in it.
    pub consumer: Option<Reference>,
    /// What the application is called.
    pub name: String,
    /// What the application calls itself in requests; unique. Without it one is derived from the place.
    #[schemars(extend("format" = "header-value"))]
    pub client_id: Option<String>,
    /// The application's secret. Without it a confidential application gets a random one, which nobody can know.
    pub client_secret: Option<Secret<String>>,
    /// Whether the secret is kept as a hash.
    pub hash_secret: bool,
    /// Where users are sent back to: absolute URIs without a fragment.
    #[schemars(extend("items" = {"type": "string", "format": "redirect-uri"}))]
    pub redirect_uris: Vec<String>,
    /// Whether the application can keep a secret.
    pub client_type: ClientType,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for Oauth2Credential {
    model!(Oauth2Credential);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if !inspection.wrong.is_empty() {
            return;
        }
        if self.client_id.is_none() {
            self.client_id = Some(inspection.generated_name("client_id"));
        }
        if self.client_secret.is_none() && self.client_type == ClientType::Confidential {
            self.client_secret = Some(inspection.generated_secret("client_secret"));
        }
    }
}
