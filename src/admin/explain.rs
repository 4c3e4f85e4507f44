//! `POST /explain` and `POST /explain/stream`: what becomes of a request, or of a connection. They only look.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use super::{Admin, Facts, message};
use crate::explain::{Question, StreamQuestion, Unanswerable};

/// A question is about one request head, in which nobody needs more.
pub(super) const QUESTION_BYTES_MAX: usize = 256 * 1024;

/// `POST /explain`.
pub(super) async fn show(
    admin: State<Admin>,
    question: Result<Json<Question>, JsonRejection>,
) -> Response {
    answer(admin, question, Facts::explain).await
}

/// `POST /explain/stream`.
pub(super) async fn show_stream(
    admin: State<Admin>,
    question: Result<Json<StreamQuestion>, JsonRejection>,
) -> Response {
    answer(admin, question, Facts::explain_stream).await
}

async fn answer<Q: Send + 'static, A: Serialize + Send + 'static>(
    State(admin): State<Admin>,
    question: Result<Json<Q>, JsonRejection>,
    explain: fn(&(dyn Facts + 'static), &Q) -> Result<A, Unanswerable>,
) -> Response {
    let question = match question {
        Ok(Json(question)) => question,
        Err(rejection) => return message(rejection.status(), &rejection.body_text()),
    };
    let turns = admin.questions.clone();
    match turns.make(move || explain(&*admin.facts, &question)).await {
        Ok(Ok(explanation)) => Json(explanation).into_response(),
        Ok(Err(unanswerable)) => message(StatusCode::BAD_REQUEST, &unanswerable.to_string()),
        Err(failed) => failed,
    }
}
