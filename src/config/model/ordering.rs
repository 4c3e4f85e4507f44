//! A plugin's place beside its neighbours, where it is another than its priority gives it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Before and after which plugins one runs. It moves nothing but the phase `access`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ordering {
    /// The plugin runs before these.
    pub before: Option<Neighbours>,
    /// The plugin runs after these.
    pub after: Option<Neighbours>,
}

/// Other plugins, by phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Neighbours {
    /// The names of plugins.
    pub access: Vec<String>,
}

impl Ordering {
    /// The plugins that this one runs before.
    pub fn before(&self) -> &[String] {
        names(self.before.as_ref())
    }

    /// The plugins that this one runs after.
    pub fn after(&self) -> &[String] {
        names(self.after.as_ref())
    }
}

fn names(neighbours: Option<&Neighbours>) -> &[String] {
    neighbours.map_or(&[], |neighbours| neighbours.access.as_slice())
}
