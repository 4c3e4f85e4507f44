//! Pages that take their time: so many are made at once, on threads where nobody else waits.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use tokio::sync::Semaphore;
use tracing::error;

use super::message;

/// Bounds how many pages of a kind are made at a time.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new(at_a_time: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_a_time)))
    }

    /// Waits for a turn and makes `page`.
    ///
    /// # Errors
    /// 500, if making it panicked.
    pub(super) async fn make<T: Send + 'static>(
        &self,
        page: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Response> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let made = tokio::task::spawn_blocking(move || {
            // A client that goes away does not end the work, so the work has to hold the turn.
            let _turn = turn;
            page()
        });
        made.await.map_err(|error| {
            error!(%error, "an admin page failed");
            message(
                StatusCode::INTERNAL_SERVER_ERROR,
                "An unexpected error occurred",
            )
        })
    }
}
