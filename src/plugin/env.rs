//! What `configure` gets besides the configuration, and how it refuses one.

use std::sync::Arc;

use prometheus::Registry;
use thiserror::Error;
use uuid::Uuid;

use super::Plugin;
use crate::{
    entity::{consumer::Consumers, key::Keys},
    state::State,
};

/// Where an instance is attached: the ids of the entities it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scope {
    pub service: Option<Uuid>,
    pub route: Option<Uuid>,
    pub consumer: Option<Uuid>,
    pub consumer_group: Option<Uuid>,
}

/// The surroundings of one configured instance.
#[derive(Debug)]
pub struct Env<'a, P: Plugin> {
    /// The stable identity of the instance: state that must survive a reload is keyed by it.
    pub id: Uuid,
    pub scope: Scope,
    pub state: &'a State,
    pub consumers: &'a Arc<Consumers>,
    pub keys: &'a Arc<Keys>,
    pub metrics: &'a Arc<P::Metrics>,
    /// The most bytes of one request body that plugins may hold (`client_body_buffer_limit`).
    pub body_bytes_max: usize,
}

/// A configuration that its schema allows and the plugin refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The dotted name of the field within `config`, empty for the block as a whole.
    pub field: &'static str,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl ConfigError {
    /// An error about one field.
    pub fn at(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            message: message.into(),
        }
    }
}

/// The metric families of a plugin type.
pub trait Metrics: Send + Sync + 'static {
    /// Registers the families. Called once per process.
    ///
    /// # Errors
    /// When a family of that name is registered already, which is a bug of the plugin.
    fn register(registry: &Registry) -> Result<Self, prometheus::Error>
    where
        Self: Sized;
}

impl Metrics for () {
    fn register(_registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(())
    }
}
