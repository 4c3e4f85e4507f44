//! Fields that only Konnect knows. What its exports say of a gateway without their use is accepted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin::ConfigError;

/// Where consumers are looked for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityRealm {
    /// `cp`: among the consumers of this configuration.
    pub scope: Scope,
    /// The realm; without effect with `scope: cp`.
    pub id: Option<String>,
    /// Its region; without effect with `scope: cp`.
    pub region: Option<String>,
}

/// What kind of realm it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-refused-values" = [(
    "realm",
    "consumers of a realm live in Konnect; write them with their keys into this configuration, and `scope: cp`",
)]))]
pub enum Scope {
    /// The consumers of this configuration.
    #[default]
    Cp,
}

/// Konnect's directory of principals.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Principals {
    /// Only `false`: there is no such directory here.
    pub enabled: bool,
    /// The name of the directory; without effect.
    pub directory: Option<String>,
    /// Without effect.
    pub error_on_miss: Option<bool>,
}

impl Principals {
    /// Refuses what would need Konnect.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.enabled {
            return Err(ConfigError::at(
                "principals.enabled",
                "principals live in Konnect: write `false`, and consumers with their keys into this configuration",
            ));
        }
        Ok(())
    }
}
