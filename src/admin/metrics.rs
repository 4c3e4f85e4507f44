//! `GET /metrics`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};

use super::{Admin, circuits, discovery, upstreams};

const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `GET /metrics`.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let turns = admin.scrapes.clone();
    let page = turns.make(move || {
        let mut health = upstreams::of_metrics(&admin.facts.upstreams());
        health.discovery = discovery::of_metrics(&admin.facts.discovery());
        health.circuits = circuits::of_metrics(admin.facts.circuits());
        admin.telemetry.render(&health)
    });
    match page.await {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(failed) => failed,
    }
}
