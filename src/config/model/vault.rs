//! A vault: a name for environment variables that begin alike. How its values get into the document is said in
//! `config::vaults`.

use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::{Model, model};

const WAY_OUT: &str = "put the secret into an environment variable and use `name: env`";
const REFUSED_NAMES: &[(&str, &str)] = &[
    ("aws", WAY_OUT),
    ("azure", WAY_OUT),
    ("conjur", WAY_OUT),
    ("gcp", WAY_OUT),
    ("hcv", WAY_OUT),
    ("konnect", WAY_OUT),
];

/// A name for environment variables that begin alike: `{vault://PREFIX/NAME}` is the variable whose name is
/// `config.prefix` followed by NAME.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["prefix", "name"]))]
pub struct Vault {
    /// A UUID; derived from the prefix if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// What references name the vault by; unique.
    #[schemars(extend("format" = "vault-prefix"))]
    pub prefix: String,
    /// The kind of vault: `env`, the environment.
    #[schemars(extend("enum" = ["env"], "x-refused-values" = REFUSED_NAMES))]
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// How a variable is found.
    pub config: Option<VaultConfig>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

/// How a vault finds a variable.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VaultConfig {
    /// What the names of the variables begin with.
    #[schemars(regex(pattern = "^[A-Za-z_-][A-Za-z0-9_-]*$"))]
    pub prefix: Option<String>,
    /// Whether the variables hold base64.
    pub base64_decode: bool,
}

impl Model for Vault {
    model!(Vault);
}
