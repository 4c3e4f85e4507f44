//! What the configuration as a whole asks of the metrics page, beyond one request or route.

use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Deserialize;

/// Whose names the metrics carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// `tollgate_http_requests_total`, `source="tollgate"`.
    #[default]
    Tollgate,
    /// `kong_http_requests_total`, `source="kong"`: dashboards made for Kong keep working.
    Kong,
}

impl Namespace {
    /// The name as operators write it, which is also the value of the label `source`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tollgate => "tollgate",
            Self::Kong => "kong",
        }
    }
}

/// The wishes of all plugin instances of one configuration, taken together.
///
/// They are collected while a configuration is compiled and take effect when it goes live:
/// [`Self::begin`], [`Self::request`] for each instance, and [`Self::adopt`] together with the swap
/// of the snapshot, or nothing if the configuration is refused. One compilation at a time.
#[derive(Debug, Default)]
pub struct Exports(Mutex<Rounds>);

#[derive(Debug, Default)]
struct Rounds {
    compiling: Wishes,
    live: Wishes,
}

#[derive(Debug, Default, Clone, Copy)]
struct Wishes {
    namespace: Option<Namespace>,
    target_health: bool,
}

/// What the live configuration exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    pub namespace: Namespace,
    pub target_health: bool,
}

impl Exports {
    /// Starts to collect: forgets what a configuration that never went live asked for.
    pub fn begin(&self) {
        self.rounds(|rounds| rounds.compiling = Wishes::default());
    }

    /// One instance's wishes; no namespace means that it does not mind.
    ///
    /// # Errors
    /// The namespace that another instance of the same configuration asked for, if it differs.
    pub fn request(
        &self,
        namespace: Option<Namespace>,
        target_health: bool,
    ) -> Result<(), Namespace> {
        self.rounds(|rounds| {
            let wishes = &mut rounds.compiling;
            match (wishes.namespace, namespace) {
                (Some(other), Some(wanted)) if other != wanted => return Err(other),
                _ => wishes.namespace = wishes.namespace.or(namespace),
            }
            wishes.target_health |= target_health;
            Ok(())
        })
    }

    /// The configuration that was compiled last is live now.
    pub fn adopt(&self) {
        self.rounds(|rounds| rounds.live = rounds.compiling);
    }

    /// What is in effect.
    pub fn live(&self) -> Live {
        self.rounds(|rounds| Live {
            namespace: rounds.live.namespace.unwrap_or_default(),
            target_health: rounds.live.target_health,
        })
    }

    fn rounds<T>(&self, act: impl FnOnce(&mut Rounds) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_take_effect_when_the_configuration_goes_live() {
        let exports = Exports::default();
        exports.begin();
        assert_eq!(exports.request(Some(Namespace::Kong), false), Ok(()));
        assert_eq!(exports.request(None, true), Ok(()));
        assert_eq!(exports.live().namespace, Namespace::Tollgate);
        exports.adopt();
        assert_eq!(
            exports.live(),
            Live {
                namespace: Namespace::Kong,
                target_health: true
            }
        );
    }

    #[test]
    fn two_namespaces_in_one_configuration_are_refused() {
        let exports = Exports::default();
        exports.begin();
        assert_eq!(exports.request(Some(Namespace::Kong), false), Ok(()));
        assert_eq!(
            exports.request(Some(Namespace::Tollgate), false),
            Err(Namespace::Kong)
        );
    }

    #[test]
    fn a_reload_may_change_the_namespace() {
        let exports = Exports::default();
        for namespace in [Namespace::Kong, Namespace::Tollgate] {
            exports.begin();
            assert_eq!(exports.request(Some(namespace), false), Ok(()));
            exports.adopt();
            assert_eq!(exports.live().namespace, namespace);
        }
    }
}
