//! `POST /explain`: what becomes of a request. It only looks.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tokio::sync::Semaphore;
use tracing::error;

use super::{Admin, message};
use crate::explain::Question;

/// A question is about one request head, in which nobody needs more.
pub(super) const QUESTION_BYTES_MAX: usize = 256 * 1024;
/// An explanation looks at every route: so many are made at a time.
const AT_A_TIME: usize = 1;

/// Bounds the explanations that are made at a time.
#[derive(Debug, Clone)]
pub(super) struct Questions(Arc<Semaphore>);

impl Default for Questions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

/// `POST /explain`. The explanation is made on a thread where it may take its time.
pub(super) async fn show(
    State(admin): State<Admin>,
    question: Result<Json<Question>, JsonRejection>,
) -> Response {
    let question = match question {
        Ok(Json(question)) => question,
        Err(rejection) => return message(rejection.status(), &rejection.body_text()),
    };
    let turn = Arc::clone(&admin.questions.0).acquire_owned().await;
    let explained = tokio::task::spawn_blocking(move || {
        // A client that goes away does not end the work, so the work has to hold the turn.
        let _turn = turn;
        admin.facts.explain(&question)
    });
    match explained.await {
        Ok(Ok(explanation)) => Json(explanation).into_response(),
        Ok(Err(unanswerable)) => message(StatusCode::BAD_REQUEST, &unanswerable.to_string()),
        Err(error) => {
            error!(%error, "an explanation failed");
            message(
                StatusCode::INTERNAL_SERVER_ERROR,
                "An unexpected error occurred",
            )
        }
    }
}
