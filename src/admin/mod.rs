//! The admin listener: how the gateway is, for operators, orchestrators and Prometheus. It changes
//! nothing and shows no secret. It is never reachable through the proxy's listeners.

mod explain;
mod metrics;
pub mod serve;
mod status;

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
    explain::{Explanation, Question, Unanswerable},
    telemetry::{Telemetry, health::TargetHealth},
};

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

    /// All addresses of the targets of all upstreams. Not called on an async thread.
    fn targets(&self) -> Vec<TargetHealth>;

    /// What becomes of a request with the configuration that is live. Not called on an async thread.
    ///
    /// # Errors
    /// When the question makes no sense.
    fn explain(&self, question: &Question) -> Result<Explanation, Unanswerable>;
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
    scrapes: metrics::Scrapes,
    questions: explain::Questions,
}

impl Admin {
    /// Shows `telemetry` and `facts`.
    pub fn new(telemetry: Arc<Telemetry>, facts: Arc<dyn Facts>) -> Self {
        Self {
            telemetry,
            facts,
            scrapes: metrics::Scrapes::default(),
            questions: explain::Questions::default(),
        }
    }
}

/// The paths of the admin listener.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/status", get(status::show))
        .route("/status/ready", get(status::ready))
        .route("/metrics", get(metrics::show))
        .route("/explain", post(explain::show))
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::{connections::Activity, health::TargetState};

    #[derive(Debug, Default)]
    struct Gateway {
        ready: AtomicBool,
        last_reload: Option<Reload>,
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

        fn targets(&self) -> Vec<TargetHealth> {
            vec![TargetHealth {
                upstream: "users".into(),
                target: "users.internal:80".into(),
                address: "10.0.0.1:80".into(),
                state: TargetState::Healthy,
            }]
        }

        fn explain(&self, question: &Question) -> Result<Explanation, Unanswerable> {
            Err(Unanswerable::Url(question.url.clone()))
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
                .contains(r#"address="10.0.0.1:80",state="healthy",subsystem="http"} 1"#)
        );
    }

    #[tokio::test]
    async fn an_unknown_path_is_404() {
        for path in ["/", "/health", "/services", "/status/", "/metrics/x"] {
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
