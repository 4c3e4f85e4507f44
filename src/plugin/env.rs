//! What `configure` gets besides the configuration, and how it refuses one.

use std::{borrow::Cow, sync::Arc};

use prometheus::Registry;
use thiserror::Error;
use uuid::Uuid;

use super::{
    Plugin,
    destinations::{Destinations, Unreachable},
};
use crate::{
    entity::{
        consumer::{ConsumerIndex, GroupIndex},
        consumers::Consumers,
        facts::ServiceIndex,
        key::Keys,
    },
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
    /// The services that a configuration may name.
    pub destinations: &'a Destinations,
    /// The own services of the routes that the instance is for, as far as they have one.
    pub own_services: &'a [ServiceIndex],
    pub metrics: &'a Arc<P::Metrics>,
    /// The most bytes of one request body that plugins may hold (`client_body_buffer_limit`).
    pub body_bytes_max: usize,
}

/// A configuration that its schema allows and the plugin refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The dotted name of the field within `config`, such as `rules[0].to`; empty for the block as a whole.
    pub field: Cow<'static, str>,
    /// What is wrong and what to write instead.
    pub message: String,
    /// The name that nothing has, if that is what is wrong.
    pub unknown: Option<Unknown>,
}

/// A name of an entity that there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub kind: Kind,
    pub name: String,
}

/// What a plugin's configuration may refer to by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Service,
    Consumer,
    ConsumerGroup,
}

impl Kind {
    /// The list that entities of the kind are written in.
    pub const fn list(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Consumer => "consumers",
            Self::ConsumerGroup => "consumer_groups",
        }
    }
}

impl<P: Plugin> Env<'_, P> {
    /// The service that `field` names by its name or id.
    ///
    /// # Errors
    /// When there is none, or none that requests can be sent to.
    pub fn service(&self, field: String, name: &str) -> Result<ServiceIndex, ConfigError> {
        self.destinations
            .find(name)
            .map_err(|unreachable| match unreachable {
                Unreachable::Unknown => ConfigError::unknown(field, Kind::Service, name),
                Unreachable::Obstacle(obstacle) => {
                    ConfigError::at(field, format!("service `{name}` {obstacle}"))
                }
            })
    }

    /// The consumer that `field` names by its username or id.
    ///
    /// # Errors
    /// When there is none.
    pub fn consumer(&self, field: String, name: &str) -> Result<ConsumerIndex, ConfigError> {
        let found = self.consumers.find(name);
        found.ok_or_else(|| ConfigError::unknown(field, Kind::Consumer, name))
    }

    /// The consumer group that `field` names by its name or id.
    ///
    /// # Errors
    /// When there is none.
    pub fn consumer_group(&self, field: String, name: &str) -> Result<GroupIndex, ConfigError> {
        let found = self.consumers.find_group(name);
        found.ok_or_else(|| ConfigError::unknown(field, Kind::ConsumerGroup, name))
    }
}

impl ConfigError {
    /// An error about one field.
    pub fn at(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
            unknown: None,
        }
    }

    /// An error about a field that names something that there is not. The nearest name is added where the
    /// error is reported.
    fn unknown(field: String, kind: Kind, name: &str) -> Self {
        Self {
            field: field.into(),
            message: format!(
                "invalid reference '{name}' (no such entry in '{}')",
                kind.list()
            ),
            unknown: Some(Unknown {
                kind,
                name: name.to_owned(),
            }),
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
