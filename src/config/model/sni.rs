//! A name for which clients get a certificate.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};

/// A name for which clients get a certificate.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct Sni {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// A host name, `*.example.com` or `example.*` for one label in the place of the `*`, or `*` for every other
    /// name; unique.
    #[schemars(extend("format" = "sni"))]
    pub name: String,
    /// The certificate, by id; left out if the name is nested in it.
    pub certificate: Option<Reference>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for Sni {
    model!(Sni);

    fn settle(&mut self, _: &mut Inspection<'_>) {
        self.name.make_ascii_lowercase();
    }
}
