//! How the targets of an upstream are, as plain data: for metrics and the admin listener.

use std::net::SocketAddr;

use uuid::Uuid;

use crate::{
    state::health::{Cause, Counters},
    telemetry::health::TargetState,
    upstream::{Balancer, Target, target::Place},
};

/// An upstream and its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSurvey {
    pub id: Uuid,
    pub name: String,
    /// Whether a request to it would find an address now.
    pub is_available: bool,
    pub targets: Vec<TargetSurvey>,
}

/// A target and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSurvey {
    /// As it was written.
    pub target: String,
    pub weight: u16,
    /// Empty for a name without addresses.
    pub addresses: Vec<AddressSurvey>,
}

/// An address of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressSurvey {
    pub address: SocketAddr,
    pub state: TargetState,
    /// Absent if nobody watches it.
    pub watched: Option<Watched>,
}

/// What is known of an address that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Since when it is healthy or unhealthy, in Unix milliseconds.
    pub since: i64,
    /// Why; absent if it was healthy from the start.
    pub cause: Option<Cause>,
    pub counters: Counters,
}

impl UpstreamSurvey {
    /// How the upstream is now.
    pub fn of(balancer: &Balancer) -> Self {
        Self {
            id: balancer.id,
            name: balancer.name.clone(),
            is_available: balancer.is_available(),
            targets: balancer
                .targets()
                .iter()
                .filter(|target| !target.is_replaced())
                .map(TargetSurvey::of)
                .collect(),
        }
    }
}

impl TargetSurvey {
    fn of(target: &Target) -> Self {
        Self {
            target: target.label.to_string(),
            weight: target.weight,
            addresses: target
                .places()
                .iter()
                .map(|place| AddressSurvey::of(target, place))
                .collect(),
        }
    }

    /// Unhealthy only if all its addresses are.
    pub fn state(&self) -> TargetState {
        let states = || self.addresses.iter().map(|address| address.state);
        states()
            .find(|state| *state != TargetState::Unhealthy)
            .or_else(|| states().next())
            .unwrap_or(TargetState::DnsError)
    }
}

impl AddressSurvey {
    fn of(target: &Target, place: &Place) -> Self {
        let address = place.address;
        let Some(addresses) = target.health.as_ref().filter(|_| target.weight > 0) else {
            return Self {
                address,
                state: TargetState::HealthchecksOff,
                watched: None,
            };
        };
        let health = addresses.find(address);
        let is_healthy = health.as_ref().is_none_or(|health| health.is_healthy());
        Self {
            address,
            state: if is_healthy {
                TargetState::Healthy
            } else {
                TargetState::Unhealthy
            },
            watched: health.map(|health| {
                let change = health.last_change();
                Watched {
                    since: change.since,
                    cause: change.cause,
                    counters: health.counters(),
                }
            }),
        }
    }
}
