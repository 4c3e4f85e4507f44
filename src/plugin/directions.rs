//! What plugins decide of a request's way upstream: plain values, which the proxy follows.

use std::sync::Arc;

use super::CircuitGuard;
use crate::entity::facts::ServiceIndex;

/// Where a request goes on, and as what. At its default it goes as it came to the service of its route.
#[derive(Debug, Default)]
pub struct Directions {
    /// The query to send in place of the client's, without `?`; empty means none.
    pub query: Option<String>,
    /// The service to send it to in place of the route's.
    pub service: Option<ServiceIndex>,
    /// The circuits of the addresses that it may go to.
    pub guard: Option<Arc<CircuitGuard>>,
}

/// Between which services a plugin chooses for a request, in an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What decides, as half a sentence: `rule 2, by weight`.
    pub by: String,
    pub prospects: Vec<Prospect>,
}

impl Choice {
    /// The service that is chosen most often, the first of several: the one to go on with in an explanation.
    pub fn likeliest(&self) -> Option<&Prospect> {
        // Of equals `max_by_key` gives the last.
        self.prospects
            .iter()
            .rev()
            .max_by_key(|prospect| prospect.weight)
    }
}

/// One of the services that a plugin may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prospect {
    /// Absent = that of the route.
    pub service: Option<ServiceIndex>,
    /// How often it is chosen, compared with the others.
    pub weight: u32,
}
