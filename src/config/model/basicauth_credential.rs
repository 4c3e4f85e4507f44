//! A name and password by which `basic-auth` knows a consumer.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::entity::Secret;
use crate::entity::credential::Password;

/// A name and password by which `basic-auth` knows a consumer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["username", "password"]))]
pub struct BasicauthCredential {
    /// A UUID; derived from the username if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The consumer; left out if the credential is nested in it.
    pub consumer: Option<Reference>,
    /// The name in the request; unique.
    #[schemars(extend("format" = "consumer-name"))]
    pub username: String,
    /// The password itself; in a document with `_transform: false` the hex SHA-1 of the password followed by the consumer's id.
    pub password: Secret<String>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for BasicauthCredential {
    model!(BasicauthCredential);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        let may_be_checked = inspection.has("password") && inspection.sound("password");
        if may_be_checked
            && !inspection.place.is_transformed()
            && Password::hashed(self.password.expose()).is_none()
        {
            inspection
                .error(
                    Code::InvalidValue,
                    "password",
                    "with `_transform: false` a password is the lower-case hex SHA-1 of the password and the consumer's id, and this is none",
                )
                .hint("write the hash, or the password itself and leave `_transform` out");
        }
    }
}
