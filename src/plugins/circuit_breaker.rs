//! Stops sending requests to a service, or to one of its addresses, that fails, and tries again after a while.
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
//!       - name: circuit-breaker
//!         config:
//!           consecutive_failures: 5
//!           failure_ratio: 0.6
//!           window: 10
//!           open_timeout: 10
//!           half_open_requests: 3
//! ```
//!
//! # What a circuit does
//!
//! | circuit | requests | until |
//! |---|---|---|
//! | closed | all pass | `consecutive_failures` in a row, or `failure_ratio` of at least `min_requests` in `window` |
//! | open | all are answered at once with `error_code` and `Retry-After`; the upstream is left alone | `open_timeout` is over |
//! | half-open | `half_open_requests` probe, the others are answered as if it were open | so many successes close it; one failure opens it again |
//!
//! A failure is a status in `failure_statuses`, or no whole response: no connection, a reset, a timeout, garbage. With
//! `per: service` a request counts once, by what it came to after all retries. What says nothing of the upstream counts
//! as nothing, and leaves the place of a probe to another: a client that went away, an answer of the gateway or of
//! another plugin, no healthy target, `total_timeout` before a first try was made.
//!
//! A success counts when the response is whole, a WebSocket when it opens. That of a probe counts when the head of its
//! response is there, before the client can see it: who comes back at once finds the circuit closed. If the response of
//! such a probe breaks off within `open_timeout`, the circuit opens again; later it is a failure like others.
//!
//! # Whose circuit it is
//!
//! On a service or as a global plugin each service has a circuit for all its routes; on a route it has one for the
//! requests of that route. With `per: target` there is one for each address behind the service: each try counts for its
//! address, the balancer passes addresses over whose circuit is open, and the request is answered with `error_code` only
//! if no other is left. A consumer has no circuits: the plugin cannot be put on one.
//!
//! # What is seen of it
//!
//! `tollgate_circuit_state` and `tollgate_circuit_transitions_total` in [Metrics](../metrics.md), `GET /status/circuits`
//! on the admin listener, and one line in the log for each change, with its cause. The answer has the reason
//! `circuit_open`.
//!
//! # Reloads
//!
//! Circuits stay as they are over a reload that keeps plugin and service, also with other limits. Another `window` begins
//! to count anew.
//!
//! # Beside health checks
//!
//! [Passive health checks](../health-checks.md) see the same outcomes. They take addresses out for everybody and need
//! active checks to take them back; a circuit closes by its probes. With `per: target` leave passive checks off.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    entity::reason::Reason,
    plugin::{
        CircuitGuard, ConfigError, Env, Halt, Plugin, Record, Reply, Request, Response, Source,
    },
    state::circuits::{Circuits, Limits, PROBES_MAX, Permit},
};

const MESSAGE: &str = "Service temporarily unavailable";

/// What has a circuit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// The service.
    #[default]
    Service,
    /// Each address behind it.
    Target,
}

/// The `config:` block of `circuit-breaker`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What has a circuit of its own: the service, or each address behind it.
    pub per: Per,
    /// So many failures in a row open the circuit; 0: they do not.
    pub consecutive_failures: u32,
    /// The circuit opens when this share of the requests within `window` failed; absent: it does not for that.
    #[schemars(extend("exclusiveMinimum" = 0.0, "maximum" = 1.0))]
    pub failure_ratio: Option<f64>,
    /// How many requests `window` must hold for `failure_ratio` to count.
    #[schemars(range(min = 1))]
    pub min_requests: u32,
    /// Seconds that `failure_ratio` looks back.
    #[schemars(range(min = 0.1, max = 3600))]
    pub window: f64,
    /// Statuses of the upstream that are failures. No connection, a reset and a timeout always are.
    #[schemars(inner(range(min = 100, max = 599)))]
    pub failure_statuses: BTreeSet<u16>,
    /// Seconds that the circuit stays open before requests probe.
    #[schemars(range(min = 0.01, max = 86400))]
    pub open_timeout: f64,
    /// How many requests probe at once, and how many successes close the circuit.
    #[schemars(range(min = 1, max = PROBES_MAX))]
    pub half_open_requests: u32,
    /// The status of the answer while the circuit is open.
    #[schemars(range(min = 400, max = 599))]
    pub error_code: u16,
    /// The message of that answer.
    pub error_message: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            per: Per::Service,
            consecutive_failures: 5,
            failure_ratio: None,
            min_requests: 5,
            window: 10.0,
            failure_statuses: BTreeSet::from([500, 502, 503, 504]),
            open_timeout: 10.0,
            half_open_requests: 3,
            error_code: 503,
            error_message: MESSAGE.to_owned(),
        }
    }
}

/// The plugin `circuit-breaker`.
#[derive(Debug)]
pub struct CircuitBreaker {
    per: Per,
    guard: Arc<CircuitGuard>,
}

impl Plugin for CircuitBreaker {
    const NAME: &'static str = "circuit-breaker";
    type Config = Config;
    type Memo = Option<Permit>;
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        if env.scope.consumer.is_some() || env.scope.consumer_group.is_some() {
            return Err(ConfigError::at(
                "",
                "a circuit is of a service, not of its consumers: put the plugin on a service or route, or make it global",
            ));
        }
        if config.consecutive_failures == 0 && config.failure_ratio.is_none() {
            return Err(ConfigError::at(
                "consecutive_failures",
                "the circuit would never open: give a number above 0, or `failure_ratio`",
            ));
        }
        let message = if config.error_message == MESSAGE {
            Cow::Borrowed(MESSAGE)
        } else {
            Cow::Owned(config.error_message)
        };
        let circuits = env
            .state
            .circuits
            .get_or_create(env.id, || Circuits::new(env.state.clock.clone()));
        Ok(Self {
            per: config.per,
            guard: Arc::new(CircuitGuard {
                circuits,
                limits: Limits {
                    consecutive: config.consecutive_failures,
                    ratio: config.failure_ratio,
                    requests_min: config.min_requests,
                    window: Duration::from_secs_f64(config.window),
                    open: Duration::from_secs_f64(config.open_timeout),
                    probes: config.half_open_requests.min(PROBES_MAX),
                },
                failures: config.failure_statuses.into_iter().collect(),
                refusal: Reply::message(config.error_code, Reason::CircuitOpen, message),
                of_route: env.scope.route.is_some(),
                telemetry: Arc::clone(&env.state.telemetry),
            }),
        })
    }

    async fn access(
        &self,
        memo: &mut Option<Permit>,
        request: &mut Request<'_>,
    ) -> Result<(), Halt> {
        if self.per == Per::Target {
            request.guard_targets(&self.guard);
            return Ok(());
        }
        let Some(service) = request.about.service else {
            return Ok(());
        };
        let circuit = self.guard.circuit(service, request.about.route, None);
        match circuit.admit(&self.guard.limits) {
            Ok(permit) => {
                *memo = Some(permit);
                Ok(())
            }
            Err(left) => Err(self.guard.refuse(left).into()),
        }
    }

    /// What decides over a circuit counts before the client can see it and come again: a failure, and the
    /// success of a probe. Any other success is one only when the response was whole.
    fn response(&self, memo: &mut Option<Permit>, response: &mut Response<'_>) {
        let status = match (response.source, response.reason) {
            (_, Some(reason)) if reason.is_of_upstream() => None,
            // A tunnel says what it has to say by opening: its end may be hours away.
            (Source::Upstream, None)
                if response.status() == 101 || self.guard.is_failure(response.status()) =>
            {
                Some(response.status())
            }
            (Source::Upstream, None) => {
                if let Some(permit) = memo {
                    self.guard.note_head(permit);
                }
                return;
            }
            _ => return,
        };
        if let Some(permit) = memo.take() {
            self.guard.judge(permit, status);
        }
    }

    fn log(&self, memo: &mut Option<Permit>, record: &Record<'_>) {
        let Some(permit) = memo.take() else {
            return;
        };
        match record.reason {
            Some(reason) if reason.is_of_upstream() => self.guard.judge(permit, None),
            None if record.source == Source::Upstream => {
                self.guard.judge(permit, Some(record.status));
            }
            // The permit is dropped: nothing was learnt.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plugin::testing::{Visit, World, reply_header},
        state::circuits::Phase,
        telemetry::requests::RouteSeries,
    };

    type Outcome = (u16, Option<Reason>);

    const SERVED: Outcome = (200, None);
    const FAILED: Outcome = (500, None);

    async fn run(world: &World, plugin: &CircuitBreaker, (status, reason): Outcome) {
        let mut visit = Visit::get(world, "/");
        visit.admit(plugin).await.expect("let through");
        if reason.is_none() {
            visit.deliver(plugin, status, &[]);
        }
        visit.log(plugin, status, reason, &series());
    }

    fn series() -> Arc<RouteSeries> {
        crate::telemetry::Telemetry::new().route("orders", "orders-route")
    }

    fn phase(plugin: &CircuitBreaker) -> Phase {
        let circuits = plugin.guard.circuits.all();
        circuits.first().expect("a circuit").phase()
    }

    #[tokio::test]
    async fn failures_open_the_circuit_and_it_says_when_to_come_back() {
        let world = World::new();
        let plugin = world.configured::<CircuitBreaker>("{ consecutive_failures: 2 }");
        run(&world, &plugin, FAILED).await;
        run(&world, &plugin, (502, Some(Reason::UpstreamReset))).await;

        world.state.clock.advance(Duration::from_millis(2500));
        let reply = Visit::get(&world, "/").refused(&plugin).await;

        assert_eq!((reply.status, reply.reason), (503, Reason::CircuitOpen));
        assert_eq!(reply_header(&reply, "retry-after"), "8");
    }

    #[tokio::test]
    async fn the_answer_is_as_configured() {
        let world = World::new();
        let plugin = world.configured::<CircuitBreaker>(
            "{ consecutive_failures: 1, failure_statuses: [404], error_code: 599, error_message: broken }",
        );
        run(&world, &plugin, FAILED).await;
        run(&world, &plugin, (404, None)).await;

        let reply = Visit::get(&world, "/").refused(&plugin).await;

        assert_eq!(reply.status, 599);
        assert_eq!(reply.body, crate::plugin::Body::Message("broken".into()));
    }

    #[tokio::test]
    async fn what_says_nothing_of_the_upstream_is_no_outcome() {
        let world = World::new();
        let plugin = world.configured::<CircuitBreaker>("{ consecutive_failures: 2 }");
        run(&world, &plugin, FAILED).await;
        for (status, reason) in [
            (499, Reason::ClientClosed),
            (503, Reason::NoTarget),
            (503, Reason::Terminated),
            (408, Reason::RequestTimeout),
        ] {
            run(&world, &plugin, (status, Some(reason))).await;
        }
        assert_eq!(phase(&plugin), Phase::Closed);
        run(&world, &plugin, FAILED).await;
        assert_eq!(phase(&plugin), Phase::Open);
    }

    #[tokio::test]
    async fn probes_close_the_circuit_and_one_that_nobody_waited_for_leaves_its_place() {
        let world = World::new();
        let plugin = world
            .configured::<CircuitBreaker>("{ consecutive_failures: 1, half_open_requests: 2 }");
        run(&world, &plugin, FAILED).await;
        world.state.clock.advance(Duration::from_secs(10));

        let mut gone = Visit::get(&world, "/");
        gone.admit(&plugin).await.expect("a probe");
        drop(gone);
        run(&world, &plugin, SERVED).await;
        assert_eq!(phase(&plugin), Phase::HalfOpen);
        run(&world, &plugin, SERVED).await;
        assert_eq!(phase(&plugin), Phase::Closed);
    }

    #[tokio::test]
    async fn a_tunnel_is_a_success_when_it_opens() {
        let world = World::new();
        let plugin = world
            .configured::<CircuitBreaker>("{ consecutive_failures: 1, half_open_requests: 1 }");
        run(&world, &plugin, FAILED).await;
        world.state.clock.advance(Duration::from_secs(10));

        let mut visit = Visit::get(&world, "/");
        visit.admit(&plugin).await.expect("a probe");
        visit.deliver(&plugin, 101, &[]);

        assert_eq!(phase(&plugin), Phase::Closed);
    }

    #[tokio::test]
    async fn a_plugin_that_is_configured_again_finds_its_circuits() {
        let world = World::new();
        let old = world.configured::<CircuitBreaker>("{ consecutive_failures: 1 }");
        run(&world, &old, FAILED).await;
        let new = world.configured::<CircuitBreaker>("{ consecutive_failures: 9 }");
        assert_eq!(phase(&new), Phase::Open);
    }

    #[tokio::test]
    async fn per_target_the_proxy_asks_for_each_try() {
        let world = World::new();
        let plugin = world.configured::<CircuitBreaker>("{ per: target }");
        let mut visit = Visit::get(&world, "/");
        visit.admit(&plugin).await.expect("let through");
        assert!(visit.is_guarded());
        assert!(plugin.guard.circuits.all().is_empty());
    }

    #[test]
    fn a_circuit_that_never_opens_is_refused() {
        let world = World::new();
        let refused = |yaml| {
            world
                .configure::<CircuitBreaker>(yaml)
                .expect_err("refused")
                .field
        };
        assert_eq!(
            refused("{ consecutive_failures: 0 }"),
            "consecutive_failures"
        );
        world.configured::<CircuitBreaker>("{ consecutive_failures: 0, failure_ratio: 0.5 }");
    }
}
