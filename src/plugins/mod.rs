//! Every plugin, first to last. The order is the behaviour.

pub mod circuit_breaker;
pub mod concurrency_limit;
pub mod correlation_id;
pub mod key_auth;
pub mod prometheus;
pub mod proxy_mirror;
pub mod rate_limiting;
pub mod request_termination;
pub mod traffic_split;

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    entity::{consumers::Consumers, facts::ServiceIndex, key::Keys},
    plugin::{
        Choice, Destinations, Env, Halt, Metrics, Plugin, Record, Request, Response, Scope,
        registry::{Entry, Refused, plugins, read_config, schema_of},
    },
    state::State,
};

plugins! {
    100_001 => correlation_id::CorrelationId,
      1_250 => key_auth::KeyAuth,
        930 => concurrency_limit::ConcurrencyLimit,
        910 => rate_limiting::RateLimiting,
         60 => traffic_split::TrafficSplit,
         50 => circuit_breaker::CircuitBreaker,
         40 => proxy_mirror::ProxyMirror,
         13 => prometheus::Prometheus,
          2 => request_termination::RequestTermination,
}

/// What `configure` hands on to every plugin.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    pub id: Uuid,
    pub scope: Scope,
    pub state: &'a State,
    pub consumers: &'a Arc<Consumers>,
    pub keys: &'a Arc<Keys>,
    pub destinations: &'a Destinations,
    /// The own services of the routes that the plugin is for.
    pub own_services: &'a [ServiceIndex],
    pub families: &'a Families,
    pub body_bytes_max: usize,
}

impl<'a> Surroundings<'a> {
    fn env<P: Plugin>(&self, metrics: &'a Arc<P::Metrics>) -> Env<'a, P> {
        Env {
            id: self.id,
            scope: self.scope,
            state: self.state,
            consumers: self.consumers,
            keys: self.keys,
            destinations: self.destinations,
            own_services: self.own_services,
            metrics,
            body_bytes_max: self.body_bytes_max,
        }
    }
}
