//! `GET /metrics`.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tracing::error;

use super::{Admin, message, upstreams};

/// The page of a large configuration is tens of megabytes: so many are made at a time.
const AT_A_TIME: usize = 2;

const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Bounds the pages that are made at a time.
#[derive(Debug, Clone)]
pub(super) struct Scrapes(Arc<Semaphore>);

impl Default for Scrapes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

/// `GET /metrics`. The page is made on a thread where it may take its time.
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let turn = Arc::clone(&admin.scrapes.0).acquire_owned().await;
    let rendered = tokio::task::spawn_blocking(move || {
        // A client that goes away does not end the work, so the work has to hold the turn.
        let _turn = turn;
        let health = upstreams::of_metrics(&admin.facts.upstreams());
        admin.telemetry.render(&health)
    });
    match rendered.await {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => {
            error!(%error, "metrics page failed");
            message(
                StatusCode::INTERNAL_SERVER_ERROR,
                "An unexpected error occurred",
            )
        }
    }
}
