//! A certificate that clients get, with its key, and whether they must show one of their own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reference::Reference;
use super::{Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::entity::Secret;

/// A certificate that clients get for the names of its `snis`, and its key.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub struct Certificate {
    /// A UUID; derived from the position in the file if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// The certificate in PEM, with those above it behind it.
    pub cert: String,
    /// Its private key in PEM, without a passphrase.
    pub key: Secret<String>,
    /// A second certificate for the same names with a key of another algorithm: RSA beside ECDSA.
    pub cert_alt: Option<String>,
    /// The key of `cert_alt`.
    pub key_alt: Option<Secret<String>>,
    /// Whether a client may (`optional`) or must (`required`) show a certificate itself.
    pub client_verify: Option<ClientVerify>,
    /// The `ca_certificates` whose certificates clients may show, by id.
    pub client_ca_certificates: Vec<Reference>,
    /// How many intermediate certificates may stand between a client's and an authority's.
    #[schemars(range(max = 64))]
    pub client_verify_depth: u32,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientVerify {
    /// They may; one that does not verify ends the handshake.
    Optional,
    /// They must.
    Required,
}

impl Default for Certificate {
    fn default() -> Self {
        Self {
            id: None,
            cert: String::new(),
            key: Secret::default(),
            cert_alt: None,
            key_alt: None,
            client_verify: None,
            client_ca_certificates: Vec::new(),
            client_verify_depth: 1,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Model for Certificate {
    model!(Certificate);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if inspection.has("cert_alt") != inspection.has("key_alt") {
            let field = if inspection.has("cert_alt") {
                "cert_alt"
            } else {
                "key_alt"
            };
            inspection.error(
                Code::InvalidCombination,
                field,
                "`cert_alt` and `key_alt` belong together",
            );
        }
        let authorities = inspection.has("client_ca_certificates");
        match (self.client_verify, authorities) {
            (Some(_), false) => {
                inspection
                    .error(
                        Code::MissingField,
                        "client_verify",
                        "`client_verify` needs `client_ca_certificates`",
                    )
                    .hint("list the ids of the `ca_certificates` that are believed");
            }
            (None, true) if inspection.sound("client_verify") => {
                inspection
                    .error(
                        Code::InvalidCombination,
                        "client_ca_certificates",
                        "`client_ca_certificates` has no effect without `client_verify`",
                    )
                    .hint("say whether clients may show a certificate, `optional`, or must, `required`");
            }
            _ => {}
        }
    }
}
