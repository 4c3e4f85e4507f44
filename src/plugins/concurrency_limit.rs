//! Limits how many requests of a client are under way at once. A bounded queue takes what comes in excess.
//!
//! ```yaml
//! _format_version: "3.0"
//! services:
//!   - name: orders
//!     url: http://orders.internal
//!     routes:
//!       - name: orders
//!         paths: [/orders]
//!     plugins:
//!       - name: concurrency-limit
//!         config:
//!           limit: 50
//!           limit_by: global
//!           queue: 100
//!           queue_timeout: 2000
//! ```
//!
//! # What counts
//!
//! A request is under way from its admission until its response ended or its client left, whichever comes first.
//! A WebSocket is under way until it closes. Requests that wait in the queue do not count, and reach neither
//! other plugins nor an upstream.
//!
//! With `limit_by: global` all requests of the place where the plugin is configured count together: what an
//! upstream can serve at once. Any other value gives each client a limit and a queue of its own.
//!
//! # The queue
//!
//! First come, first served. A request is refused if the queue is full when it comes, or if its turn has not
//! come after `queue_timeout`; the refusal carries `Retry-After: 1`. If the client leaves meanwhile, its place in
//! the queue is free at once (over HTTP/1 within a tenth of a second).
//!
//! A queue evens out bursts; it does not make an upstream faster. With `limit` places that take `t` seconds each,
//! whoever is last in the queue waits `queue × t ÷ limit` seconds: a longer queue than `queue_timeout` allows for
//! only lets clients wait in vain. See [Overload](../../operations/overload.md).
//!
//! # Reloads
//!
//! A reload keeps who is under way and who waits. A new limit holds once the next request comes that is counted
//! with them: a higher one then lets those in who wait; with a lower one nobody is let in until there are fewer
//! under way.
//!
//! Several gateways do not share counts.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    entity::reason::Reason,
    plugin::{ConfigError, Env, Grouping, Halt, LimitByOrGlobal, Plugin, Record, Reply, Request},
    state::turnstiles::{Bounds, Entrance, Pass, Ticket, Turnstile},
    telemetry::admissions::Admissions,
};

const MESSAGE: &str = "Too many concurrent requests";

/// The `config:` block of `concurrency-limit`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["limit"]))]
pub struct Config {
    /// How many requests may be under way at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: u32,
    /// Whose requests are counted together. What a request does not have falls back to its
    /// client's address, `consumer` to its credential first.
    pub limit_by: LimitByOrGlobal,
    /// How many more may wait.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub queue: u32,
    /// How long a request may wait, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub queue_timeout: u32,
    /// The status of a refusal.
    #[schemars(range(min = 200, max = 999))]
    pub error_code: u16,
    /// The message in the body of a refusal.
    pub error_message: String,
    /// The request header whose value is the client; required with `limit_by: header`.
    #[schemars(extend("format" = "header-name"))]
    pub header_name: Option<String>,
    /// The path whose requests count together; required with `limit_by: path`. It must match as a whole.
    #[schemars(regex(pattern = "^/"))]
    pub path: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limit: 0,
            limit_by: LimitByOrGlobal::default(),
            queue: 0,
            queue_timeout: 1000,
            error_code: 503,
            error_message: MESSAGE.to_owned(),
            header_name: None,
            path: None,
        }
    }
}

/// The plugin `concurrency-limit`.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    turnstile: Arc<Turnstile>,
    admissions: Arc<Admissions>,
    bounds: Bounds,
    grouping: Grouping,
    patience: Duration,
    refusal: Reply,
}

impl Plugin for ConcurrencyLimit {
    const NAME: &'static str = "concurrency-limit";
    type Config = Config;
    /// The place that the request holds. It goes back with the memo, also where `log` is never reached.
    type Memo = Option<Pass>;
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        if config.limit == 0 {
            return Err(ConfigError::at("limit", "required, and greater than 0"));
        }
        let grouping = config
            .limit_by
            .grouping(config.header_name.as_deref(), config.path.as_deref())?;
        let message = if config.error_message == MESSAGE {
            Cow::Borrowed(MESSAGE)
        } else {
            Cow::Owned(config.error_message)
        };
        let admissions = env.state.telemetry.admissions();
        Ok(Self {
            turnstile: env.state.turnstiles.of(env.id, admissions),
            admissions: Arc::clone(admissions),
            bounds: Bounds {
                running: config.limit,
                waiting: config.queue,
            },
            grouping,
            patience: Duration::from_millis(config.queue_timeout.into()),
            refusal: Reply::message(config.error_code, Reason::ConcurrencyLimited, message)
                .header(header::RETRY_AFTER, HeaderValue::from_static("1")),
        })
    }

    async fn access(&self, memo: &mut Option<Pass>, request: &mut Request<'_>) -> Result<(), Halt> {
        let entrance = self
            .turnstile
            .enter(&self.grouping.subject(request), self.bounds);
        *memo = Some(match entrance {
            Entrance::Open(pass) => pass,
            Entrance::Queue(ticket) => self.wait(ticket, request).await?,
            Entrance::Full => {
                self.admissions.queue_full.inc();
                return Err(self.refusal.clone().into());
            }
        });
        Ok(())
    }

    fn log(&self, memo: &mut Option<Pass>, _record: &Record<'_>) {
        // Not later: the connection may be kept open for more requests.
        memo.take();
    }
}

impl ConcurrencyLimit {
    /// Waits in the queue until it is the turn of `request`, its client leaves, or it took too long.
    async fn wait(&self, mut ticket: Ticket, request: &mut Request<'_>) -> Result<Pass, Halt> {
        tokio::select! {
            biased;
            pass = ticket.turn() => pass.ok_or_else(|| self.refusal.clone().into()),
            halt = request.client_left() => {
                self.admissions.client_closed.inc();
                Err(halt)
            }
            () = tokio::time::sleep(self.patience) => {
                self.admissions.queue_timeout.inc();
                Err(self.refusal.clone().into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        plugin::testing::{Visit, World, reply_header},
        telemetry::requests::RouteSeries,
    };

    fn series(world: &World) -> Arc<RouteSeries> {
        world.state.telemetry.route("", "")
    }

    #[tokio::test]
    async fn a_request_over_the_limit_is_refused_until_one_ends() {
        let world = World::new();
        let plugin = world.configured::<ConcurrencyLimit>("{ limit: 1 }");
        let mut first = Visit::get(&world, "/");
        first.admit(&plugin).await.expect("there is a place");
        let reply = Visit::get(&world, "/").refused(&plugin).await;
        assert_eq!(
            (reply.status, reply.reason),
            (503, Reason::ConcurrencyLimited)
        );
        assert_eq!(reply_header(&reply, "Retry-After"), "1");
        // Another client has a place of its own.
        let mut other = Visit::get(&world, "/").client_ip("192.0.2.8");
        other.admit(&plugin).await.expect("there is a place");
        first.log(&plugin, 200, None, &series(&world));
        let mut second = Visit::get(&world, "/");
        second.admit(&plugin).await.expect("the place is free");
        assert_eq!(world.state.telemetry.admissions().queue_full.get(), 1);
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_gives_its_place_back() {
        let world = World::new();
        let plugin = world.configured::<ConcurrencyLimit>("{ limit: 1, limit_by: global }");
        let mut first = Visit::get(&world, "/");
        first.admit(&plugin).await.expect("there is a place");
        drop(first);
        let mut second = Visit::get(&world, "/").client_ip("192.0.2.8");
        second.admit(&plugin).await.expect("the place is free");
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_places_and_in_time() {
        let world = World::new();
        let plugin =
            world.configured::<ConcurrencyLimit>("{ limit: 1, queue: 1, queue_timeout: 1 }");
        let mut inside = Visit::get(&world, "/");
        inside.admit(&plugin).await.expect("there is a place");
        let mut waiting = Visit::get(&world, "/");
        let mut wait = Box::pin(waiting.admit(&plugin));
        assert!((&mut wait).now_or_never().is_none());
        let reply = Visit::get(&world, "/").refused(&plugin).await;
        assert_eq!(reply.reason, Reason::ConcurrencyLimited);
        assert!(matches!(wait.await, Err(Halt::Reply(_))));
        let admissions = world.state.telemetry.admissions();
        let refused = (
            admissions.queue_full.get(),
            admissions.queue_timeout.get(),
            admissions.waiting.get(),
        );
        assert_eq!(refused, (1, 1, 0));
    }

    #[tokio::test]
    async fn a_client_that_leaves_leaves_the_queue() {
        let world = World::new();
        let plugin = world.configured::<ConcurrencyLimit>("{ limit: 1, queue: 1 }");
        let mut inside = Visit::get(&world, "/");
        inside.admit(&plugin).await.expect("there is a place");
        let reply = Visit::get(&world, "/")
            .whose_client_left()
            .refused(&plugin)
            .await;
        assert_eq!((reply.status, reply.reason), (499, Reason::ClientClosed));
        assert_eq!(world.state.telemetry.admissions().client_closed.get(), 1);
    }

    #[tokio::test]
    async fn a_reload_keeps_who_is_under_way_and_takes_the_new_limit() {
        let world = World::new();
        let before = world.configured::<ConcurrencyLimit>("{ limit: 1 }");
        let mut first = Visit::get(&world, "/");
        first.admit(&before).await.expect("there is a place");
        let after = world.configured::<ConcurrencyLimit>("{ limit: 2 }");
        drop(before);
        let mut second = Visit::get(&world, "/");
        second.admit(&after).await.expect("there are two places");
        Visit::get(&world, "/").refused(&after).await;
    }

    #[test]
    fn what_a_limit_needs_must_be_there() {
        let world = World::new();
        for (yaml, field) in [
            ("{}", "limit"),
            ("{ limit: 0 }", "limit"),
            ("{ limit: 1, limit_by: header }", "header_name"),
            ("{ limit: 1, limit_by: path }", "path"),
            ("{ limit: 1, limit_by: path, path: orders }", "path"),
        ] {
            let error = world.configure::<ConcurrencyLimit>(yaml);
            assert_eq!(error.expect_err("refused").field, field, "{yaml}");
        }
    }
}
