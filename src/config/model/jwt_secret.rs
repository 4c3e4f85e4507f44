//! What verifies the tokens of a consumer for `jwt`.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::entity::Secret;
use crate::entity::credential::JwtAlgorithm;
use crate::entity::public_key;

/// What verifies the tokens of a consumer for `jwt`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JwtSecret {
    /// A UUID; derived from the key if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The consumer; left out if the credential is nested in it.
    pub consumer: Option<Reference>,
    /// What tokens name the credential by, in their claim `iss`; unique. Without it one is derived from the place.
    #[schemars(extend("format" = "header-value"))]
    pub key: Option<String>,
    /// The secret of the HS algorithms. Without it a random one is made, which nobody can know.
    pub secret: Option<Secret<String>>,
    /// How the tokens are signed.
    pub algorithm: JwtAlgorithm,
    /// The public key, or a certificate that has it, as PEM: required for every algorithm but the HS ones.
    pub rsa_public_key: Option<String>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for JwtSecret {
    model!(JwtSecret);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if !inspection.wrong.is_empty() {
            return;
        }
        if self.key.is_none() {
            self.key = Some(inspection.generated_name("key"));
        }
        if self.algorithm.is_symmetric() {
            if self.secret.is_none() {
                self.secret = Some(inspection.generated_secret("secret"));
            }
            return;
        }
        let algorithm = self.algorithm.as_str();
        let Some(pem) = &self.rsa_public_key else {
            let message = format!(
                "required field `rsa_public_key` is missing: {algorithm} is verified with a public key"
            );
            inspection.error(Code::MissingField, "rsa_public_key", message);
            return;
        };
        if let Err(complaint) = public_key::parse(pem).and_then(|key| self.algorithm.fits(&key)) {
            inspection.error(Code::InvalidValue, "rsa_public_key", complaint);
        }
    }
}
