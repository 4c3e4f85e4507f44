//! The certificate of an authority, whose word about others is believed where its id is listed.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::{Model, model};

/// The certificate of an authority, which is believed where its id is listed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert"]))]
pub struct CaCertificate {
    /// A UUID, by which others refer to it; derived from the position in the file if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// One certificate in PEM, that of an authority.
    pub cert: String,
    /// Kong's own bookkeeping; ignored.
    pub cert_digest: Option<String>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Model for CaCertificate {
    model!(CaCertificate);
}
