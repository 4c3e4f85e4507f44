//! `GET /status/circuits`: which circuits there are, and which of them let requests pass.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Admin, status::rfc3339};
use crate::{
    state::circuits::CircuitSurvey,
    telemetry::circuits::{CircuitLabels, CircuitPhases},
};

#[derive(Debug, Serialize)]
struct ShownCircuits {
    circuits: Vec<ShownCircuit>,
}

#[derive(Debug, Serialize)]
struct ShownCircuit {
    service: String,
    /// Null unless it is for the requests of one route.
    route: Option<String>,
    /// Null unless it is for one address.
    target: Option<String>,
    state: &'static str,
    /// Null if it never changed.
    since: Option<String>,
    why: Option<String>,
}

/// `GET /status/circuits`.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let turns = admin.surveys.clone();
    let shown = turns.make(move || {
        let mut circuits = admin.facts.circuits();
        circuits.sort_by(|one, other| one.labels.cmp(&other.labels));
        ShownCircuits {
            circuits: circuits.into_iter().map(ShownCircuit::from).collect(),
        }
    });
    match shown.await {
        Ok(shown) => Json(shown).into_response(),
        Err(failed) => failed,
    }
}

/// The same as metrics.
pub(super) fn of_metrics(circuits: Vec<CircuitSurvey>) -> CircuitPhases {
    let circuits = circuits.into_iter();
    CircuitPhases::of(circuits.map(|circuit| (circuit.labels, circuit.phase as usize)))
}

impl From<CircuitSurvey> for ShownCircuit {
    fn from(survey: CircuitSurvey) -> Self {
        let CircuitLabels {
            service,
            route,
            target,
        } = survey.labels;
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            service,
            route: given(route),
            target: given(target),
            state: survey.phase.as_str(),
            since: survey
                .last_change
                .map(|change| rfc3339(change.at.div_euclid(1000))),
            why: survey.last_change.map(|change| change.cause.to_string()),
        }
    }
}
