//! A circuit for each address behind a service: what a plugin hands to the proxy, which asks it for
//! each try and tells it what the try came to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, header};

use super::Reply;
use crate::{
    entity::facts::{RouteFacts, ServiceFacts},
    state::circuits::{Circuit, CircuitKey, Circuits, Limits, Permit},
    telemetry::{Telemetry, circuits::CircuitLabels},
};

/// Circuits with the limits by which they open, and the answer while they are open.
#[derive(Debug)]
pub struct CircuitGuard {
    pub circuits: Arc<Circuits>,
    pub limits: Limits,
    /// The statuses that are failures.
    pub failures: Box<[u16]>,
    pub refusal: Reply,
    /// Whether they are for the requests of one route only.
    pub of_route: bool,
    pub telemetry: Arc<Telemetry>,
}

impl CircuitGuard {
    /// The circuit of `service`, or of one `address` behind it.
    pub fn circuit(
        &self,
        service: &ServiceFacts,
        route: &RouteFacts,
        address: Option<SocketAddr>,
    ) -> Arc<Circuit> {
        let key = CircuitKey {
            service: service.id,
            address,
        };
        self.circuits.find_or_create(key, || {
            let route = if self.of_route {
                route.label.as_str()
            } else {
                ""
            };
            self.telemetry.circuit(&CircuitLabels {
                service: service.label.clone(),
                route: route.to_owned(),
                target: address.map_or_else(String::new, |address| address.to_string()),
            })
        })
    }

    /// Whether a request of `service` may go to `address`.
    ///
    /// # Errors
    /// How long its circuit stays open.
    pub fn check(&self, service: &ServiceFacts, address: SocketAddr) -> Result<(), Duration> {
        let key = CircuitKey {
            service: service.id,
            address: Some(address),
        };
        self.circuits.would_admit(&key, &self.limits)
    }

    /// Whether the `status` of an upstream is a failure.
    pub fn is_failure(&self, status: u16) -> bool {
        self.failures.contains(&status)
    }

    /// Tells what the request with `permit` came to: the status of an upstream, or none if there was
    /// no response.
    pub fn judge(&self, permit: Permit, status: Option<u16>) {
        let has_failed = status.is_none_or(|status| self.is_failure(status));
        permit.judge(has_failed, &self.limits);
    }

    /// Tells that the head of an upstream's answer is there, with a status that is no failure.
    pub fn note_head(&self, permit: &mut Permit) {
        permit.note_head(&self.limits);
    }

    /// The answer while the circuit is open, which it is for `left`.
    pub fn refuse(&self, left: Duration) -> Reply {
        // A circuit that waits for its probes may close any moment.
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        self.refusal
            .clone()
            .header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }
}
