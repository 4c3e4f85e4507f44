//! `GET /status/discovery`: what names and registries say of the places behind the gateway, and how it
//! stands with asking them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Admin, status::rfc3339};
use crate::{
    state::{
        consul::{Catalog, Service, Skipped, Standing},
        feed::Record,
        names::NameSurvey,
    },
    telemetry::discovery::{CatalogHealth, DiscoveryHealth, NameHealth},
};

/// Everything that is resolved or discovered.
#[derive(Debug, Default)]
pub struct DiscoverySurvey {
    pub names: Vec<NameSurvey>,
    /// The upstreams whose instances a registry tells, by name.
    pub upstreams: Vec<(String, Arc<Service>)>,
    /// The services that ask for routes.
    pub catalog: Option<Arc<Catalog>>,
}

#[derive(Debug, Serialize)]
struct Shown {
    names: Vec<ShownName>,
    upstreams: Vec<ShownUpstream>,
    /// Null if no routes are taken from a registry.
    catalog: Option<ShownCatalog>,
}

#[derive(Debug, Serialize)]
struct ShownName {
    name: String,
    state: &'static str,
    records: Vec<String>,
    /// The kind of records that gave them.
    by: Option<&'static str>,
    last_success: Option<String>,
    error: Option<String>,
    /// Null while it is being asked for.
    next_in_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ShownUpstream {
    upstream: String,
    agent: String,
    service: String,
    #[serde(flatten)]
    standing: ShownStanding,
    instances: Vec<String>,
    /// Instances without an IP address or a port.
    unusable: usize,
}

#[derive(Debug, Serialize)]
struct ShownCatalog {
    agent: String,
    #[serde(flatten)]
    standing: ShownStanding,
    routed: Vec<String>,
    skipped: Vec<ShownSkipped>,
}

#[derive(Debug, Serialize)]
struct ShownSkipped {
    service: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct ShownStanding {
    state: &'static str,
    index: u64,
    last_success: Option<String>,
    error: Option<String>,
    failures: u32,
}

impl From<Standing> for ShownStanding {
    fn from(standing: Standing) -> Self {
        Self {
            state: match standing.is_up {
                None => "pending",
                Some(true) if standing.is_doubted => "doubted",
                Some(true) => "up",
                Some(false) => "down",
            },
            index: standing.index,
            last_success: standing.last_success.map(rfc3339),
            error: standing.error,
            failures: standing.failures,
        }
    }
}

/// `GET /status/discovery`.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let turns = admin.surveys.clone();
    match turns.make(move || shown(admin.facts.discovery())).await {
        Ok(shown) => Json(shown).into_response(),
        Err(failed) => failed,
    }
}

fn shown(survey: DiscoverySurvey) -> Shown {
    Shown {
        names: survey.names.into_iter().map(shown_name).collect(),
        upstreams: survey
            .upstreams
            .into_iter()
            .map(|(upstream, service)| ShownUpstream {
                upstream,
                agent: format!("{:?}", service.key().agent),
                service: service.key().service.clone(),
                standing: service.standing().into(),
                instances: places(&service.feed().records()),
                unusable: service.unusable(),
            })
            .collect(),
        catalog: survey.catalog.as_deref().map(shown_catalog),
    }
}

fn shown_catalog(catalog: &Catalog) -> ShownCatalog {
    let skipped = catalog.skipped();
    let shown = |skipped: &Skipped| ShownSkipped {
        service: skipped.service.clone(),
        reason: skipped.reason.clone(),
    };
    ShownCatalog {
        agent: format!("{:?}", catalog.key().agent),
        standing: catalog.standing().into(),
        routed: routed(catalog),
        skipped: skipped.iter().map(shown).collect(),
    }
}

/// The services that have routes.
fn routed(catalog: &Catalog) -> Vec<String> {
    let (services, skipped) = (catalog.services(), catalog.skipped());
    let is_skipped = |name: &String| {
        let found = skipped.binary_search_by(|skipped| skipped.service.cmp(name));
        found.is_ok()
    };
    let routed = services.keys().filter(|name| !is_skipped(name));
    routed.cloned().collect()
}

fn shown_name(name: NameSurvey) -> ShownName {
    ShownName {
        name: name.host,
        state: name.state,
        records: places(&name.records),
        by: name.by,
        last_success: name.last_success.map(rfc3339),
        error: name.error,
        next_in_seconds: name.next_in.as_ref().map(Duration::as_secs),
    }
}

fn places(records: &[Record]) -> Vec<String> {
    let place = |record: &Record| match record.port {
        Some(port) => SocketAddr::new(record.address, port).to_string(),
        None => record.address.to_string(),
    };
    records.iter().map(place).collect()
}

/// The same as metrics.
pub(super) fn of_metrics(survey: &DiscoverySurvey) -> DiscoveryHealth {
    let is_up = |standing: Standing| standing.is_up == Some(true);
    let name = |name: &NameSurvey| NameHealth {
        name: name.host.clone(),
        is_resolved: name.state == "resolved",
        last_success: name.last_success,
        lookups: name
            .outcomes
            .map(|(outcome, count)| (outcome.as_str(), count))
            .into(),
    };
    DiscoveryHealth {
        names: survey.names.iter().map(name).collect(),
        upstreams: survey
            .upstreams
            .iter()
            .map(|(upstream, service)| (upstream.clone(), is_up(service.standing())))
            .collect(),
        catalog: survey.catalog.as_ref().map(|catalog| CatalogHealth {
            is_up: is_up(catalog.standing()),
            routed: routed(catalog).len(),
            skipped: catalog.skipped().len(),
        }),
    }
}
