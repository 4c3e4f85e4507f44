//! The admin listener: how the gateway is, for operators, orchestrators and Prometheus. It changes
//! nothing and shows no secret. It is never reachable through the proxy's listeners.

mod circuits;
mod discovery;
mod explain;
mod metrics;
pub mod serve;
mod status;
mod turns;
mod upstreams;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    explain::{Explanation, Question, StreamExplanation, StreamQuestion, Unanswerable},
    state::circuits::CircuitSurvey,
    telemetry::Telemetry,
    upstream::health::survey::UpstreamSurvey,
};
pub use discovery::DiscoverySurvey;
use turns::Turns;

const SERVER: HeaderValue =
    HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));

/// What the admin listener asks of the gateway, for each request anew.
pub trait Facts: Send + Sync + 'static {
    /// Whether the gateway takes requests.
    ///
    /// # Errors
    /// Why it does not: it is starting or draining.
    fn readiness(&self) -> Result<(), &'static str>;

    /// Which configuration is live and how the last change went.
    fn configuration(&self) -> Configuration;

    /// All upstreams, with their targets and how these are.
    fn upstreams(&self) -> Vec<UpstreamSurvey>;

    /// All circuits, and how these are.
    fn circuits(&self) -> Vec<CircuitSurvey>;

    /// What is resolved and discovered, and how it stands with that.
    fn discovery(&self) -> DiscoverySurvey;

    /// The time, in Unix seconds.
    fn now(&self) -> i64;

    /// What becomes of a request with the configuration that is live. Not called on an async thread.
    ///
    /// # Errors
    /// When the question makes no sense.
    fn explain(&self, question: &Question) -> Result<Explanation, Unanswerable>;

    /// The same for a connection to a stream listener.
    ///
    /// # Errors
    /// When the question makes no sense.
    fn explain_stream(&self, question: &StreamQuestion) -> Result<StreamExplanation, Unanswerable>;
}

/// The state of the configuration, as `GET /status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// 32 hex digits that change when, and only when, the configuration does.
    pub hash: String,
    /// When it went live, in Unix seconds.
    pub live_since: i64,
    /// The last change of the files since the start.
    pub last_reload: Option<Reload>,
}

/// How a change of the configuration's files went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// In Unix seconds.
    pub at: i64,
    /// Why it was refused, one line for each mistake; `None` if it went live.
    pub refused: Option<Vec<String>>,
}

/// Everything the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    telemetry: Arc<Telemetry>,
    facts: Arc<dyn Facts>,
    scrapes: Turns,
    surveys: Turns,
    questions: Turns,
}

impl Admin {
    /// Shows `telemetry` and `facts`.
    pub fn new(telemetry: Arc<Telemetry>, facts: Arc<dyn Facts>) -> Self {
        Self {
            telemetry,
            facts,
            // The metrics of a large configuration are tens of megabytes.
            scrapes: Turns::new(2),
            surveys: Turns::new(2),
            // An explanation looks at every route.
            questions: Turns::new(1),
        }
    }
}

/// The paths of the admin listener.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/status", get(status::show))
        .route("/status/ready", get(status::ready))
        .route("/status/upstreams", get(upstreams::show))
        .route("/status/circuits", get(circuits::show))
        .route("/status/discovery", get(discovery::show))
        .route("/health", get(upstreams::health))
        .route("/metrics", get(metrics::show))
        .route("/explain", post(explain::show))
        .route("/explain/stream", post(explain::show_stream))
        .layer(DefaultBodyLimit::max(explain::QUESTION_BYTES_MAX))
        .fallback(|| async { message(StatusCode::NOT_FOUND, "Not found") })
        .method_not_allowed_fallback(|| async {
            message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        })
        .layer(axum::middleware::map_response(name_server))
        .with_state(admin)
}

async fn name_server(mut response: Response) -> Response {
    response.headers_mut().insert(header::SERVER, SERVER);
    response
}

/// `{"message": …}`, as Kong answers where there is nothing more to say.
fn message(status: StatusCode, message: &str) -> Response {
    #[derive(Serialize)]
    struct Message<'m> {
        message: &'m str,
    }
    (status, Json(Message { message })).into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicBool, Ordering},
    };

    use axum::body::Body;
    use http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::*;
    use crate::{
        state::{
            circuits::{self, LastChange, Phase},
            health::{Cause, Counters, Finding, Witness},
            names::Names,
        },
        telemetry::{circuits::CircuitLabels, connections::Activity, health::TargetState},
        upstream::health::survey::{AddressSurvey, TargetSurvey, Watched},
    };

    #[derive(Debug, Default)]
    struct Gateway {
        ready: AtomicBool,
        last_reload: Option<Reload>,
        is_down: bool,
    }

    impl Facts for Gateway {
        fn readiness(&self) -> Result<(), &'static str> {
            if self.ready.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("starting")
            }
        }

        fn configuration(&self) -> Configuration {
            Configuration {
                hash: "779742c3d7afee2e38f977044d2ed96b".to_owned(),
                live_since: 1_738_324_800,
                last_reload: self.last_reload.clone(),
            }
        }

        fn upstreams(&self) -> Vec<UpstreamSurvey> {
            let address = |last: u8, state, watched| AddressSurvey {
                address: SocketAddr::from(([10, 0, 0, last], 80)),
                state,
                weight: 100,
                weight_percent: 100,
                under_way: 0,
                latency_ms: None,
                watched,
            };
            let failed = Watched {
                since: 1_738_324_800_000,
                cause: Some(Cause {
                    finding: Finding::BadStatus(500),
                    limit: 3,
                    witness: Witness::Active,
                }),
                counters: Counters::default(),
            };
            let target = |target: &str, addresses| TargetSurvey {
                target: target.into(),
                weight: 100,
                addresses,
            };
            let mut targets = vec![target(
                "users.internal:80",
                vec![
                    address(1, TargetState::Unhealthy, Some(failed)),
                    address(2, TargetState::Unhealthy, Some(failed)),
                ],
            )];
            if !self.is_down {
                targets.push(target(
                    "10.0.0.3:80",
                    vec![address(3, TargetState::HealthchecksOff, None)],
                ));
                targets.push(target("nowhere.invalid:80", Vec::new()));
            }
            vec![UpstreamSurvey {
                id: Uuid::nil(),
                name: "users".into(),
                algorithm: "round-robin",
                is_available: !self.is_down,
                targets,
            }]
        }

        fn discovery(&self) -> DiscoverySurvey {
            let names = Names::default();
            let _name = names.get("users.internal");
            DiscoverySurvey {
                names: names.survey(),
                ..DiscoverySurvey::default()
            }
        }

        fn circuits(&self) -> Vec<CircuitSurvey> {
            vec![
                circuit("users", "", Phase::Closed, None),
                circuit(
                    "orders",
                    "10.0.0.3:80",
                    Phase::Open,
                    Some(LastChange {
                        at: 1_738_324_800_000,
                        cause: circuits::Cause::Consecutive(5),
                    }),
                ),
            ]
        }

        fn now(&self) -> i64 {
            1_738_324_860
        }

        fn explain(&self, question: &Question) -> Result<Explanation, Unanswerable> {
            Err(Unanswerable::Url(question.url.clone()))
        }

        fn explain_stream(
            &self,
            question: &StreamQuestion,
        ) -> Result<StreamExplanation, Unanswerable> {
            Err(Unanswerable::StreamUrl(question.url.clone()))
        }
    }

    struct Answer {
        response: http::response::Parts,
        body: String,
    }

    impl Answer {
        fn status(&self) -> u16 {
            self.response.status.as_u16()
        }

        fn header(&self, name: &str) -> &str {
            self.response
                .headers
                .get(name)
                .map_or("", |value| value.to_str().expect("text"))
        }

        fn json(&self) -> Value {
            serde_json::from_str(&self.body).expect("JSON")
        }
    }

    async fn ask(admin: Admin, method: &str, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .expect("a request builds");
        let response = router(admin).oneshot(request).await.expect("infallible");
        let (response, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a body in memory");
        Answer {
            response,
            body: String::from_utf8(body.to_vec()).expect("UTF-8"),
        }
    }

    fn admin(gateway: Gateway) -> Admin {
        Admin::new(Arc::new(Telemetry::new()), Arc::new(gateway))
    }

    #[tokio::test]
    async fn status_shows_the_numbers_of_kong_and_the_configuration() {
        let admin = admin(Gateway::default());
        let connection = admin.telemetry.connections().accept();
        connection.enter(Activity::Writing);
        admin.telemetry.request_received();
        let answer = ask(admin, "GET", "/status").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("content-type"), "application/json");
        let status = answer.json();
        assert_eq!(
            status["server"],
            json!({
                "connections_accepted": 1,
                "connections_handled": 1,
                "connections_active": 1,
                "connections_reading": 0,
                "connections_writing": 1,
                "connections_waiting": 0,
                "total_requests": 1,
            })
        );
        assert!(status["memory"]["resident"].is_u64(), "{status}");
        assert_eq!(
            status["configuration_hash"],
            "779742c3d7afee2e38f977044d2ed96b"
        );
        assert_eq!(
            status["configuration"],
            json!({"live_since": "2025-01-31T12:00:00Z", "last_reload": null})
        );
    }

    #[tokio::test]
    async fn status_says_why_a_reload_was_refused() {
        let answer = ask(
            admin(Gateway {
                last_reload: Some(Reload {
                    at: 1_738_324_860,
                    refused: Some(vec!["gateway.yaml:3:5: unknown field `prot`".to_owned()]),
                }),
                ..Gateway::default()
            }),
            "GET",
            "/status",
        )
        .await;
        assert_eq!(
            answer.json()["configuration"]["last_reload"],
            json!({
                "result": "failure",
                "at": "2025-01-31T12:01:00Z",
                "diagnostics": ["gateway.yaml:3:5: unknown field `prot`"],
            })
        );
    }

    #[tokio::test]
    async fn readiness_follows_the_gateway() {
        let starting = ask(admin(Gateway::default()), "GET", "/status/ready").await;
        assert_eq!(starting.status(), 503);
        assert_eq!(starting.body, r#"{"message":"starting"}"#);
        let ready = Gateway {
            ready: AtomicBool::new(true),
            ..Gateway::default()
        };
        let ready = ask(admin(ready), "GET", "/status/ready").await;
        assert_eq!(ready.status(), 200);
        assert_eq!(ready.body, r#"{"message":"ready"}"#);
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let answer = ask(admin(Gateway::default()), "GET", "/metrics").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(answer.body.contains("tollgate_node_info{"));
    }

    #[tokio::test]
    async fn the_phase_of_a_circuit_is_what_it_is_now() {
        let answer = ask(admin(Gateway::default()), "GET", "/metrics").await;
        for (labels, phase) in [
            ("service=\"orders\",route=\"\",target=\"10.0.0.3:80\"", 2),
            ("service=\"users\",route=\"\",target=\"\"", 0),
        ] {
            let line = format!("tollgate_circuit_state{{{labels}}} {phase}");
            assert!(answer.body.lines().any(|found| found == line), "{line}");
        }
    }

    #[tokio::test]
    async fn target_health_comes_from_the_gateway() {
        let admin = admin(Gateway::default());
        let exports = admin.telemetry.exports();
        exports.begin();
        exports.request(None, true).expect("nobody else asked");
        exports.adopt();
        let answer = ask(admin, "GET", "/metrics").await;
        assert!(
            answer
                .body
                .contains(r#"address="10.0.0.1:80",state="unhealthy",subsystem="http"} 1"#)
        );
    }

    #[tokio::test]
    async fn upstreams_show_each_address_with_its_state_and_the_cause() {
        let answer = ask(admin(Gateway::default()), "GET", "/status/upstreams").await;
        assert_eq!(answer.status(), 200);
        let shown = answer.json();
        let upstream = &shown["upstreams"][0];
        assert_eq!(upstream["name"], "users");
        assert_eq!(upstream["available"], true);
        assert_eq!(upstream["targets"][0]["state"], "unhealthy");
        let none = json!({"successes": 0, "http_failures": 0, "tcp_failures": 0, "timeouts": 0});
        assert_eq!(
            upstream["targets"][0]["addresses"][1],
            json!({
                "address": "10.0.0.2:80",
                "state": "unhealthy",
                "weight": 100,
                "weight_percent": 100,
                "requests": 0,
                "since": "2025-01-31T12:00:00Z",
                "why": "3/3 http 500 (active)",
                "counters": {"active": none, "passive": none},
            })
        );
        assert_eq!(
            upstream["targets"][1],
            json!({
                "target": "10.0.0.3:80",
                "weight": 100,
                "state": "healthchecks_off",
                "addresses": [{
                    "address": "10.0.0.3:80",
                    "state": "healthchecks_off",
                    "weight": 100,
                    "weight_percent": 100,
                    "requests": 0,
                    "since": null,
                    "why": null,
                }],
            })
        );
        assert_eq!(upstream["targets"][2]["state"], "dns_error");
    }

    #[tokio::test]
    async fn discovery_shows_names_and_what_is_known_of_them() {
        let answer = ask(admin(Gateway::default()), "GET", "/status/discovery").await;
        assert_eq!(
            answer.json(),
            json!({
                "names": [{
                    "name": "users.internal",
                    "state": "pending",
                    "records": [],
                    "by": null,
                    "last_success": null,
                    "error": null,
                    "next_in_seconds": null,
                }],
                "upstreams": [],
                "catalog": null,
            })
        );
    }

    #[tokio::test]
    async fn health_counts_addresses_and_is_down_only_without_any() {
        let degraded = ask(admin(Gateway::default()), "GET", "/health").await;
        assert_eq!(degraded.status(), 200);
        assert_eq!(
            degraded.json(),
            json!({
                "status": "degraded",
                "healthy_backends": 1,
                "total_backends": 4,
                "timestamp": "2025-01-31T12:01:00Z",
            })
        );
        let down = Gateway {
            is_down: true,
            ..Gateway::default()
        };
        let down = ask(admin(down), "GET", "/health").await;
        assert_eq!(down.status(), 503);
        assert_eq!(down.json()["status"], "down");
    }

    fn circuit(
        service: &str,
        target: &str,
        phase: Phase,
        last_change: Option<LastChange>,
    ) -> CircuitSurvey {
        CircuitSurvey {
            labels: CircuitLabels {
                service: service.into(),
                route: String::new(),
                target: target.into(),
            },
            phase,
            last_change,
        }
    }

    #[tokio::test]
    async fn circuits_are_shown_with_since_when_and_why() {
        let answer = ask(admin(Gateway::default()), "GET", "/status/circuits").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.json(),
            json!({"circuits": [
                {
                    "service": "orders",
                    "route": null,
                    "target": "10.0.0.3:80",
                    "state": "open",
                    "since": "2025-01-31T12:00:00Z",
                    "why": "5 failures in a row",
                },
                {
                    "service": "users",
                    "route": null,
                    "target": null,
                    "state": "closed",
                    "since": null,
                    "why": null,
                },
            ]})
        );
    }

    #[tokio::test]
    async fn an_unknown_path_is_404() {
        for path in ["/", "/healthz", "/services", "/status/", "/metrics/x"] {
            let answer = ask(admin(Gateway::default()), "GET", path).await;
            assert_eq!(answer.status(), 404, "{path}");
            assert_eq!(answer.body, r#"{"message":"Not found"}"#);
        }
    }

    #[tokio::test]
    async fn another_method_is_405_and_says_which_are_allowed() {
        for path in ["/status", "/status/ready", "/metrics"] {
            let answer = ask(admin(Gateway::default()), "POST", path).await;
            assert_eq!(answer.status(), 405, "{path}");
            assert_eq!(answer.body, r#"{"message":"Method not allowed"}"#);
            assert_eq!(answer.header("allow"), "GET,HEAD");
        }
    }

    #[tokio::test]
    async fn every_answer_names_the_server() {
        for path in ["/status", "/nowhere"] {
            let answer = ask(admin(Gateway::default()), "GET", path).await;
            assert_eq!(
                answer.header("server"),
                concat!("tollgate/", env!("CARGO_PKG_VERSION"))
            );
        }
    }
}
