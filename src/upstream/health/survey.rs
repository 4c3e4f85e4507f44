//! How the targets of an upstream are, as plain data: for metrics and the admin listener.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use uuid::Uuid;

use crate::{
    state::health::{Cause, Counters},
    telemetry::health::TargetState,
    upstream::{Balancer, Member, Target, target::Place},
};

/// An upstream and its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamSurvey {
    pub id: Uuid,
    pub name: String,
    /// The algorithm, in Kong's words.
    pub algorithm: &'static str,
    /// Whether a request to it would find an address now.
    pub is_available: bool,
    pub targets: Vec<TargetSurvey>,
}

/// A target and its addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSurvey {
    /// As it was written.
    pub target: String,
    pub weight: u16,
    /// Empty for a name without addresses.
    pub addresses: Vec<AddressSurvey>,
}

/// An address of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct AddressSurvey {
    pub address: SocketAddr,
    pub state: TargetState,
    /// Its weight: that of its target, or of its own record.
    pub weight: u16,
    /// The part of its weight that it has now, in percent.
    pub weight_percent: u8,
    /// The requests and streams that are under way.
    pub under_way: u32,
    /// How long it takes to answer, in milliseconds, where that is measured.
    pub latency_ms: Option<f64>,
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
        let standings: Standings = balancer
            .standings()
            .into_iter()
            .map(|(member, percent)| ((member.target, member.address), (member, percent)))
            .collect();
        let targets = balancer.targets().iter().enumerate();
        Self {
            id: balancer.id,
            name: balancer.name.clone(),
            algorithm: balancer.algorithm().as_str(),
            is_available: balancer.is_available(),
            targets: targets
                .filter(|(_, target)| !target.is_replaced())
                .map(|(index, target)| TargetSurvey::of(balancer, &standings, (index, target)))
                .collect(),
        }
    }
}

/// The members by target and address, each with the part of its weight that it has.
type Standings = HashMap<(usize, SocketAddr), (Arc<Member>, u8)>;

impl TargetSurvey {
    fn of(balancer: &Balancer, standings: &Standings, (index, target): (usize, &Target)) -> Self {
        let places = target.places();
        let survey = |place: &Place| {
            let standing = standings.get(&(index, place.address));
            match standing {
                Some((member, percent)) => AddressSurvey::of(balancer, member, *percent),
                None => AddressSurvey::idle(place),
            }
        };
        Self {
            target: target.label.to_string(),
            weight: target.weight,
            addresses: places.iter().map(survey).collect(),
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
    /// One that no request goes to.
    fn idle(place: &Place) -> Self {
        Self {
            address: place.address,
            state: TargetState::HealthchecksOff,
            weight: place.weight,
            weight_percent: 0,
            under_way: 0,
            latency_ms: None,
            watched: None,
        }
    }

    fn of(balancer: &Balancer, member: &Member, percent: u8) -> Self {
        let state = match &member.health {
            None => TargetState::HealthchecksOff,
            Some(health) if health.is_healthy() => TargetState::Healthy,
            Some(_) => TargetState::Unhealthy,
        };
        Self {
            address: member.address,
            state,
            weight: member.weight,
            weight_percent: percent,
            under_way: member.load.under_way(),
            latency_ms: balancer.latency_of(member).map(|latency| latency / 1000.0),
            watched: member.health.as_ref().map(|health| {
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
