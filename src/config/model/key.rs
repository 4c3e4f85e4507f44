//! A key for signing or encryption, and the set of keys that it is in.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::entity::Secret;
use crate::entity::key::{check_jwk, check_pem};

/// A key for signing or encryption.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["kid"]))]
pub struct Key {
    /// A UUID; derived from `kid` and the set if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The set that the key is in; left out if the key is nested in it.
    pub set: Option<Reference>,
    /// Unique among keys.
    pub name: Option<String>,
    /// What messages name the key by; unique within a set.
    pub kid: String,
    /// The key as a JSON Web Key, written as one string. Either this or `pem`.
    pub jwk: Option<Secret<String>>,
    /// The key as PEM.
    pub pem: Option<Pem>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

/// A key as PEM: the public half, the private one, or both.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pem {
    /// The public key.
    pub public_key: Option<String>,
    /// The private key.
    pub private_key: Option<Secret<String>>,
}

impl Model for Key {
    model!(Key);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if !inspection.wrong.is_empty() {
            return;
        }
        let complaint = match (&self.jwk, &self.pem) {
            (None, None) => {
                let message = "one of the fields `jwk` and `pem` is required";
                inspection.error(Code::MissingField, "", message);
                return;
            }
            (Some(_), Some(_)) => {
                let message = "only one of the fields `jwk` and `pem` may be given";
                inspection.error(Code::InvalidCombination, "pem", message);
                return;
            }
            (Some(jwk), None) => check_jwk(jwk.expose(), &self.kid)
                .err()
                .map(|complaint| ("jwk".to_owned(), complaint)),
            (None, Some(pem)) => check_pem(
                pem.public_key.as_deref(),
                pem.private_key.as_ref().map(|key| key.expose().as_str()),
            )
            .err()
            .map(|(field, complaint)| (format!("pem{field}"), complaint)),
        };
        if let Some((field, complaint)) = complaint {
            inspection.error(Code::InvalidValue, &field, complaint);
        }
    }
}

/// Keys that are used together.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeySet {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Unique among key sets.
    pub name: Option<String>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for KeySet {
    model!(KeySet);
}
