//! `GET /status/upstreams` and `GET /health`: how the targets behind the gateway are.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::{Admin, status::rfc3339};
use crate::{
    state::health::Tally,
    telemetry::health::{TargetHealth, TargetState, UpstreamsHealth},
    upstream::health::survey::{AddressSurvey, TargetSurvey, UpstreamSurvey},
};

#[derive(Debug, Serialize)]
struct ShownUpstreams {
    upstreams: Vec<ShownUpstream>,
}

#[derive(Debug, Serialize)]
struct ShownUpstream {
    name: String,
    id: Uuid,
    algorithm: &'static str,
    /// Whether a request to it finds an address; if not it gets 503.
    available: bool,
    targets: Vec<ShownTarget>,
}

#[derive(Debug, Serialize)]
struct ShownTarget {
    target: String,
    weight: u16,
    state: &'static str,
    addresses: Vec<ShownAddress>,
}

#[derive(Debug, Serialize)]
struct ShownAddress {
    address: String,
    state: &'static str,
    weight: u16,
    /// The part of it that counts now, in percent: less during a slow start, none while it is out.
    weight_percent: u8,
    /// What is under way.
    requests: u32,
    /// In milliseconds; absent unless the algorithm measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// Null if nobody watches it.
    since: Option<String>,
    /// Null if it never changed.
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Counters>,
}

#[derive(Debug, Serialize)]
struct Counters {
    active: Counts,
    passive: Counts,
}

#[derive(Debug, Serialize)]
struct Counts {
    successes: u8,
    http_failures: u8,
    tcp_failures: u8,
    timeouts: u8,
}

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    healthy_backends: usize,
    total_backends: usize,
    timestamp: String,
}

/// `GET /status/upstreams`.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let turns = admin.surveys.clone();
    let shown = turns.make(move || ShownUpstreams {
        upstreams: admin
            .facts
            .upstreams()
            .into_iter()
            .map(ShownUpstream::from)
            .collect(),
    });
    match shown.await {
        Ok(shown) => Json(shown).into_response(),
        Err(failed) => failed,
    }
}

/// `GET /health`: in one word, with 503 only if nothing is left. Targets without weight do not count.
pub(super) async fn health(State(admin): State<Admin>) -> Response {
    let turns = admin.surveys.clone();
    match turns.make(move || health_of(&admin)).await {
        Ok((code, health)) => (code, Json(health)).into_response(),
        Err(failed) => failed,
    }
}

fn health_of(admin: &Admin) -> (StatusCode, Health) {
    let mut upstreams = admin.facts.upstreams();
    for upstream in &mut upstreams {
        upstream.targets.retain(|target| target.weight > 0);
    }
    let targets = of_metrics(&upstreams).targets;
    let total = targets.len();
    let healthy = targets
        .iter()
        .filter(|target| {
            matches!(
                target.state,
                TargetState::Healthy | TargetState::HealthchecksOff
            )
        })
        .count();
    let (code, status) = if healthy == total {
        (StatusCode::OK, "ok")
    } else if healthy > 0 {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "down")
    };
    let health = Health {
        status,
        healthy_backends: healthy,
        total_backends: total,
        timestamp: rfc3339(admin.facts.now()),
    };
    (code, health)
}

/// The same as metrics have it: one entry for each address, and one for a name without any.
pub(super) fn of_metrics(upstreams: &[UpstreamSurvey]) -> UpstreamsHealth {
    let mut all = Vec::new();
    let mut available = Vec::with_capacity(upstreams.len());
    for upstream in upstreams {
        available.push((upstream.name.clone(), upstream.is_available));
        for target in &upstream.targets {
            let entry = |address: String, state| TargetHealth {
                upstream: upstream.name.clone(),
                target: target.target.clone(),
                address,
                state,
            };
            if target.addresses.is_empty() {
                all.push(entry(String::new(), TargetState::DnsError));
            }
            let addresses = target.addresses.iter();
            all.extend(addresses.map(|address| entry(address.address.to_string(), address.state)));
        }
    }
    UpstreamsHealth {
        available,
        targets: all,
        ..UpstreamsHealth::default()
    }
}

impl From<UpstreamSurvey> for ShownUpstream {
    fn from(survey: UpstreamSurvey) -> Self {
        Self {
            name: survey.name,
            id: survey.id,
            algorithm: survey.algorithm,
            available: survey.is_available,
            targets: survey.targets.into_iter().map(ShownTarget::from).collect(),
        }
    }
}

impl From<TargetSurvey> for ShownTarget {
    fn from(survey: TargetSurvey) -> Self {
        Self {
            state: survey.state().as_str(),
            target: survey.target,
            weight: survey.weight,
            addresses: survey
                .addresses
                .into_iter()
                .map(ShownAddress::from)
                .collect(),
        }
    }
}

impl From<AddressSurvey> for ShownAddress {
    fn from(survey: AddressSurvey) -> Self {
        let watched = survey.watched;
        Self {
            address: survey.address.to_string(),
            state: survey.state.as_str(),
            weight: survey.weight,
            weight_percent: survey.weight_percent,
            requests: survey.under_way,
            latency_ms: survey
                .latency_ms
                .map(|latency| (latency * 1e3).round() / 1e3),
            since: watched.map(|watched| rfc3339(watched.since.div_euclid(1000))),
            why: watched
                .and_then(|watched| watched.cause)
                .map(|cause| cause.with_witness()),
            counters: watched.map(|watched| Counters {
                active: watched.counters.active.into(),
                passive: watched.counters.passive.into(),
            }),
        }
    }
}

impl From<Tally> for Counts {
    fn from(tally: Tally) -> Self {
        Self {
            successes: tally.successes,
            http_failures: tally.http_failures,
            tcp_failures: tally.tcp_failures,
            timeouts: tally.timeouts,
        }
    }
}
