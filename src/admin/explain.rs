//! `POST /explain`: what becomes of a request. It only looks.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;

use super::{Admin, message};
use crate::explain::Question;

/// A question is about one request head, in which nobody needs more.
pub(super) const QUESTION_BYTES_MAX: usize = 256 * 1024;
/// `POST /explain`.
pub(super) async fn show(
    State(admin): State<Admin>,
    question: Result<Json<Question>, JsonRejection>,
) -> Response {
    let question = match question {
        Ok(Json(question)) => question,
        Err(rejection) => return message(rejection.status(), &rejection.body_text()),
    };
    let turns = admin.questions.clone();
    match turns.make(move || admin.facts.explain(&question)).await {
        Ok(Ok(explanation)) => Json(explanation).into_response(),
        Ok(Err(unanswerable)) => message(StatusCode::BAD_REQUEST, &unanswerable.to_string()),
        Err(failed) => failed,
    }
}
