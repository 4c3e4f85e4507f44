//! The plugin contract: what a plugin is, what it sees, and how it answers.
//!
//! A plugin never holds the connection. It gets a view of its phase, edits that view, or returns a
//! reply with `?`; the proxy acts on it. So a plugin cannot bypass the response phases, and its
//! tests need no socket.

mod destinations;
mod directions;
mod env;
mod guard;
mod halt;
mod headers;
pub mod registry;
mod subject;
mod views;

#[cfg(test)]
pub mod testing;

use std::future::Future;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::entity::facts::ServiceIndex;

pub use destinations::{Destination, Destinations, Outside};
pub use directions::{Choice, Directions, Duplicate, MIRRORED, Mirror, Prospect};
pub use env::{ConfigError, Env, Kind, Metrics, Scope, Unknown};
pub use guard::CircuitGuard;
pub use halt::{Body, Fault, Halt, Reply};
pub use headers::{RequestHeaders, ResponseHeaders};
pub use subject::{Grouping, LimitBy, LimitByOrGlobal, Subject};
pub use views::{
    Client, Identity, Latencies, Matched, Notes, Record, Request, RequestBody, Response, Scheme,
    Source, Surroundings, is_credential,
};
pub(crate) use views::{is_grpc, names};

/// One gateway feature. The registry in `plugins/mod.rs` gives it its place in the order.
///
/// All phases run in the same order, that of the registry. `response` and `log` run for every
/// response, also for one that another plugin or the gateway itself made.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// The name operators write.
    const NAME: &'static str;
    /// Whether it may be attached to a consumer. Not so for plugins that find the consumer.
    const CONSUMER_SCOPE: bool = true;
    /// Whether `access` only looks at the request and edits or answers it: it counts nothing, waits
    /// for nobody, and leaves nothing behind. Such an `access` is also run for explanations.
    const REHEARSABLE: bool = false;
    /// The `config:` block exactly as written.
    type Config: DeserializeOwned + JsonSchema;
    /// What the plugin remembers from one phase to the next of the same request.
    /// Starts at its default, also when another plugin ended `access` first.
    type Memo: Default + Send + Sync;
    /// Metric families of the plugin's own, registered once per process; `()` for none.
    type Metrics: Metrics;

    /// Checks the configuration and prepares everything a request needs. No I/O.
    ///
    /// # Errors
    /// The field that is wrong and why, for a rule that spans fields or that its type cannot say.
    fn configure(config: Self::Config, env: &Env<'_, Self>) -> Result<Self, ConfigError>;

    /// Names of query arguments and form fields in which this instance may find a credential. Their
    /// values are masked on every route, in logs and wherever a request is shown.
    fn secret_arguments(&self) -> Vec<String> {
        Vec::new()
    }

    /// The services that `access` may send a request to in place of the route's. The series and the log of
    /// a request name the one it went to.
    fn services(&self) -> Vec<ServiceIndex> {
        Vec::new()
    }

    /// For explanations of a plugin that is not [`Self::REHEARSABLE`] and never answers: what `access` does for
    /// this request, such as the services that it chooses from, without doing it; `None` if it may answer.
    fn choice(&self, _request: &Request<'_>) -> Option<Choice> {
        None
    }

    /// Before the request is proxied. `Err` ends it: with a reply, or with a fault of ours.
    fn access(
        &self,
        _memo: &mut Self::Memo,
        _request: &mut Request<'_>,
    ) -> impl Future<Output = Result<(), Halt>> + Send {
        async { Ok(()) }
    }

    /// The response head, whoever made it: an origin or the gateway.
    fn response(&self, _memo: &mut Self::Memo, _response: &mut Response<'_>) {}

    /// After the last byte. Must not block.
    fn log(&self, _memo: &mut Self::Memo, _record: &Record<'_>) {}
}
