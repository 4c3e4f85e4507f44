//! `tollgate mock`: a small origin to put behind the gateway, so that a first configuration has
//! something to talk to. It answers a few fixed paths and shows what reached it; it keeps no state.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::body::{self, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::HeaderValue;
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version};
use axum::middleware::{Next, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

/// The longest request body that is accepted; a longer one is answered with 413.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What `/api/slow` waits without `?ms=`.
const DELAY_MS_DEFAULT: u64 = 2_000;
/// The longest wait that `/api/slow?ms=` grants.
const DELAY_MS_MAX: u64 = 60_000;
/// How long answers under way may take once the origin was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Arguments of `tollgate mock`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8081)]
    pub port: u16,
    /// Address or host name to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Name that every answer carries, as `backend` in the body and as `X-Backend`
    #[arg(long, default_value = "Backend-1")]
    pub name: String,
}

/// Why a mock origin could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub(super) enum MockError {
    /// The name cannot be sent in a header field.
    #[error("the name {name:?} cannot be sent as a header; use printable ASCII in `--name`")]
    Name {
        /// The name as given.
        name: String,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {host}:{port}; choose another address with `--host` and `--port`")]
    Listen {
        /// `--host` as given.
        host: String,
        /// `--port` as given.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The process cannot have an event loop or signal handlers.
    #[error("cannot start an event loop")]
    Runtime(#[source] io::Error),
    /// The listener broke while serving.
    #[error("the mock origin {name:?} stopped serving")]
    Serve {
        /// The origin's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Serves until the process receives SIGTERM or SIGINT, then finishes the answers under way.
///
/// # Errors
/// See [`MockError`]; a port that is taken is [`MockError::Listen`].
pub(super) fn run(arguments: Arguments) -> Result<(), MockError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MockError::Runtime)?;
    runtime.block_on(async {
        let stop = termination().map_err(MockError::Runtime)?;
        let Arguments { host, port, name } = arguments;
        match TcpListener::bind((host.as_str(), port)).await {
            Ok(listener) => serve(listener, name, stop).await,
            Err(source) => Err(MockError::Listen { host, port, source }),
        }
    })
}

/// Serves on `listener` until `stop` completes; answers under way then have five seconds to finish.
///
/// # Errors
/// [`MockError::Name`] if `name` is not printable ASCII, [`MockError::Serve`] if the listener breaks.
pub(super) async fn serve(
    listener: TcpListener,
    name: String,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), MockError> {
    serve_and_drain(listener, name, stop, DRAIN).await
}

async fn serve_and_drain(
    listener: TcpListener,
    name: String,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> Result<(), MockError> {
    let router = router(&name)?;
    if let Ok(address) = listener.local_addr() {
        info!(%address, name, "mock origin is listening");
    }
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        stop.await;
        // The other side is gone only when `serve` itself was dropped.
        let _ = stopping.send(());
    });
    let overdue = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(drain).await,
            Err(_) => std::future::pending().await,
        }
    };
    // A client that never finishes its request must not keep the process alive.
    tokio::select! {
        ended = server => ended.map_err(|source| MockError::Serve { name, source }),
        () = overdue => Ok(()),
    }
}

/// Completes at the first SIGTERM or SIGINT after this call.
fn termination() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn router(name: &str) -> Result<Router, MockError> {
    let backend = HeaderValue::from_str(name).map_err(|_| MockError::Name {
        name: name.to_owned(),
    })?;
    let name = Name(name.into());
    let router = Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/api/user", any(user))
        .route("/api/data", any(data))
        .route("/api/slow", any(slow))
        .route("/api/fail", any(fail))
        .route("/api/echo", any(echo))
        .route("/api/echo/{*rest}", any(echo))
        .route("/status/{code}", any(status))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(name.clone(), read_the_body))
        .layer(map_response_with_state(backend, name_the_backend))
        .with_state(name);
    Ok(router)
}

/// Reads the body whether or not the answer depends on it: with one unread the connection would be closed, and
/// whoever still sends it would be reset and lose the answer.
async fn read_the_body(State(name): State<Name>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(_) => name.refuses(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body may have {BODY_BYTES_MAX} bytes"),
        ),
    }
}

async fn name_the_backend(State(backend): State<HeaderValue>, mut response: Response) -> Response {
    response.headers_mut().insert("x-backend", backend);
    response
}

/// The origin's name; every body is made by it, so that no answer leaves without the name.
#[derive(Clone)]
struct Name(std::sync::Arc<str>);

impl Name {
    /// A body with `backend` first and then the fields of `body`, which is a JSON object.
    fn says(&self, body: Value) -> Json<Value> {
        let mut fields = Map::new();
        fields.insert("backend".to_owned(), Value::from(&*self.0));
        if let Value::Object(body) = body {
            fields.extend(body);
        }
        Json(Value::Object(fields))
    }

    fn refuses(&self, status: StatusCode, message: impl Into<String>) -> Response {
        (status, self.says(json!({ "message": message.into() }))).into_response()
    }
}

async fn index(State(name): State<Name>) -> Json<Value> {
    name.says(json!({
        "paths": ["/health", "/api/user", "/api/data", "/api/echo", "/api/slow?ms=500", "/api/fail", "/status/503"],
    }))
}

async fn health(State(name): State<Name>) -> Json<Value> {
    name.says(json!({ "status": "ok" }))
}

async fn user(State(name): State<Name>) -> Json<Value> {
    name.says(json!({ "id": 1, "name": "Ada Lovelace", "email": "ada@example.com" }))
}

async fn data(State(name): State<Name>) -> Json<Value> {
    name.says(json!({
        "items": [
            { "id": 1, "title": "first", "price": 9.5 },
            { "id": 2, "title": "second", "price": 12 },
            { "id": 3, "title": "third", "price": 0.99 },
        ],
        "total": 3,
    }))
}

#[derive(Deserialize)]
struct Delay {
    ms: Option<u64>,
}

async fn slow(State(name): State<Name>, delay: Result<Query<Delay>, QueryRejection>) -> Response {
    let ms = delay.map(|Query(delay)| delay.ms.unwrap_or(DELAY_MS_DEFAULT));
    let Some(ms) = ms.ok().filter(|ms| *ms <= DELAY_MS_MAX) else {
        let message = format!("`ms` must be a number of milliseconds from 0 to {DELAY_MS_MAX}");
        return name.refuses(StatusCode::BAD_REQUEST, message);
    };
    tokio::time::sleep(Duration::from_millis(ms)).await;
    name.says(json!({ "delayed_ms": ms })).into_response()
}

async fn fail(State(name): State<Name>) -> Response {
    name.refuses(StatusCode::INTERNAL_SERVER_ERROR, "this path always fails")
}

async fn status(State(name): State<Name>, code: Result<Path<u16>, PathRejection>) -> Response {
    // A 1xx is not a final answer, and no client has to understand a code of 600 or more.
    let code = code
        .ok()
        .map(|Path(code)| code)
        .filter(|code| (200..600).contains(code));
    let Some(code) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return name.refuses(
            StatusCode::BAD_REQUEST,
            "the status must be a number from 200 to 599",
        );
    };
    (code, name.says(json!({ "status": code.as_u16() }))).into_response()
}

/// What reached this origin, field by field, so that a user sees what the gateway sends upstream.
#[derive(Serialize)]
struct Echo {
    method: String,
    path: String,
    query: Option<String>,
    version: String,
    headers: BTreeMap<String, Values>,
    #[serde(flatten)]
    body: Body,
}

/// One field's values: a string where it came once, as nearly always; a list where it was repeated.
#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body {
    Text { body: String },
    Binary { body_base64: String },
}

impl Echo {
    fn new(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap, body: Bytes) -> Self {
        let named = |name| {
            headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
        };
        Self {
            method: method.to_string(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            version: format!("{version:?}"),
            headers: headers
                .keys()
                .map(|name| (name.to_string(), Values::new(named(name).collect())))
                .collect(),
            body: Body::new(body),
        }
    }
}

impl Values {
    fn new(mut values: Vec<String>) -> Self {
        match values.pop() {
            Some(value) if values.is_empty() => Self::One(value),
            last => {
                values.extend(last);
                Self::Many(values)
            }
        }
    }
}

impl Body {
    fn new(body: Bytes) -> Self {
        match String::from_utf8(body.into()) {
            Ok(body) => Self::Text { body },
            Err(binary) => Self::Binary {
                body_base64: BASE64.encode(binary.as_bytes()),
            },
        }
    }
}

async fn echo(
    State(name): State<Name>,
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let echo = Echo::new(&method, &uri, version, &headers, body);
    match serde_json::to_value(echo) {
        Ok(echo) => name.says(echo).into_response(),
        Err(error) => name.refuses(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn unknown_path(State(name): State<Name>) -> Response {
    name.refuses(
        StatusCode::NOT_FOUND,
        "no such path; `/` lists those that exist",
    )
}

async fn method_not_allowed(State(name): State<Name>) -> Response {
    name.refuses(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path answers GET and HEAD",
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Mock {
        address: SocketAddr,
        stop: Option<oneshot::Sender<()>>,
        served: JoinHandle<Result<(), MockError>>,
    }

    impl Mock {
        async fn start(name: &str) -> Self {
            Self::start_with(name, PATIENCE).await
        }

        async fn start_with(name: &str, drain: Duration) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .expect("a free port");
            let address = listener
                .local_addr()
                .expect("a bound listener has an address");
            let (stop, stopped) = oneshot::channel();
            let served = tokio::spawn(serve_and_drain(
                listener,
                name.to_owned(),
                async {
                    drop(stopped.await);
                },
                drain,
            ));
            Self {
                address,
                stop: Some(stop),
                served,
            }
        }

        async fn get(&self, target: &str) -> Answer {
            self.send(
                format!("GET {target} HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .await
        }

        async fn send(&self, request: &[u8]) -> Answer {
            let mut stream = TcpStream::connect(self.address)
                .await
                .expect("the mock listens");
            stream.write_all(request).await.expect("the mock reads");
            Answer::read(&mut stream).await
        }

        async fn stop(mut self) -> Result<(), MockError> {
            self.stop
                .take()
                .expect("stopped once")
                .send(())
                .expect("the mock waits for this");
            self.served.await.expect("the mock does not panic")
        }
    }

    #[derive(Debug)]
    struct Answer {
        head: String,
        body: String,
    }

    impl Answer {
        async fn read(stream: &mut TcpStream) -> Self {
            let mut text = String::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
            read.unwrap_or_else(|_| unreachable!("the mock did not close after {text:?}"))
                .expect("UTF-8");
            let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
            Self {
                head: head.to_ascii_lowercase(),
                body: body.to_owned(),
            }
        }

        fn status(&self) -> u16 {
            self.head
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .expect("a status line")
        }

        fn json(&self) -> Value {
            serde_json::from_str(&self.body).expect("a body in JSON")
        }
    }

    #[tokio::test]
    async fn every_answer_names_the_backend_in_body_and_header() {
        let mock = Mock::start("Backend-7").await;

        for (target, status) in [
            ("/", 200),
            ("/health", 200),
            ("/api/user", 200),
            ("/api/data", 200),
            ("/api/echo", 200),
            ("/api/slow?ms=0", 200),
            ("/api/slow?ms=soon", 400),
            ("/api/fail", 500),
            ("/status/503", 503),
            ("/status/99", 400),
            ("/status/ok", 400),
            ("/nowhere", 404),
        ] {
            let answer = mock.get(target).await;
            assert_eq!(answer.status(), status, "{target}");
            assert_eq!(answer.json()["backend"], "Backend-7", "{target}");
            assert!(
                answer.head.contains("\r\nx-backend: backend-7"),
                "{target}: {}",
                answer.head
            );
        }
        let refused = mock
            .send(b"DELETE /health HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(
            (refused.status(), refused.json()["backend"].as_str()),
            (405, Some("Backend-7"))
        );
    }

    #[tokio::test]
    async fn the_echo_shows_what_arrived() {
        let mock = Mock::start("Backend-1").await;

        let request =
            b"PATCH /api/echo/a%20b?x=1&y= HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n\
            X-Twice: one\r\nX-Twice: two\r\nContent-Length: 5\r\n\r\nhello";
        let echo = mock.send(request).await.json();

        assert_eq!(echo["method"], "PATCH");
        assert_eq!(echo["path"], "/api/echo/a%20b");
        assert_eq!(echo["query"], "x=1&y=");
        assert_eq!(echo["version"], "HTTP/1.1");
        assert_eq!(echo["headers"]["host"], "mock.test");
        assert_eq!(echo["headers"]["x-twice"], json!(["one", "two"]));
        assert_eq!(echo["body"], "hello");
    }

    #[tokio::test]
    async fn a_body_that_is_not_text_is_echoed_in_base64() {
        let mock = Mock::start("Backend-1").await;

        let request = b"PUT /api/echo HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n\
            Content-Length: 2\r\n\r\n\xff\x00";
        let echo = mock.send(request).await.json();

        assert_eq!(echo["body_base64"], "/wA=");
        assert!(echo.get("body").is_none());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let mock = Mock::start("Backend-1").await;

        let head = "POST /api/echo HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n";
        let head = format!("{head}Content-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        let answer = mock
            .send(&[head.into_bytes(), vec![b'x'; BODY_BYTES_MAX + 1]].concat())
            .await;

        assert_eq!(answer.status(), 413);
        assert_eq!(answer.json()["backend"], "Backend-1");
    }

    #[tokio::test]
    async fn a_body_is_read_before_an_answer_that_does_not_need_it() {
        let mock = Mock::start("Backend-1").await;
        let mut stream = TcpStream::connect(mock.address)
            .await
            .expect("the mock listens");

        let head = b"POST /api/user HTTP/1.1\r\nHost: mock.test\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head).await.expect("the mock reads");
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(early.is_err(), "answered without the body: {early:?}");
        let rest = b"bodyGET /health HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n\r\n";
        stream.write_all(rest).await.expect("the mock reads");

        let answers = Answer::read(&mut stream).await;
        assert_eq!(answers.status(), 200);
        assert!(answers.body.contains(r#""status":"ok""#), "{answers:?}");
    }

    #[tokio::test]
    async fn a_slow_answer_takes_at_least_the_time_asked_for_and_at_most_a_minute_can_be_asked() {
        let mock = Mock::start("Backend-1").await;

        let before = Instant::now();
        let answer = mock.get("/api/slow?ms=30").await;
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert_eq!(answer.json()["delayed_ms"], 30);

        assert_eq!(mock.get("/api/slow?ms=60001").await.status(), 400);
    }

    #[tokio::test]
    async fn a_head_request_gets_no_body() {
        let mock = Mock::start("Backend-1").await;

        let answer = mock
            .send(b"HEAD /api/user HTTP/1.1\r\nHost: mock.test\r\nConnection: close\r\n\r\n")
            .await;

        assert_eq!((answer.status(), answer.body.as_str()), (200, ""));
    }

    #[tokio::test]
    async fn stopping_lets_an_answer_under_way_finish() {
        let mock = Mock::start("Backend-1").await;
        let mut stream = TcpStream::connect(mock.address)
            .await
            .expect("the mock listens");
        stream
            .write_all(b"GET /api/slow?ms=200 HTTP/1.1\r\nHost: mock.test\r\n\r\n")
            .await
            .expect("the mock reads");
        // A second answered request shows that the first connection has been accepted.
        mock.get("/health").await;

        mock.stop().await.expect("a clean stop");

        assert_eq!(Answer::read(&mut stream).await.status(), 200);
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_a_client_that_never_finishes_its_request() {
        let mock = Mock::start_with("Backend-1", Duration::from_millis(50)).await;
        let mut stream = TcpStream::connect(mock.address)
            .await
            .expect("the mock listens");
        stream
            .write_all(
                b"POST /api/echo HTTP/1.1\r\nHost: mock.test\r\nContent-Length: 9\r\n\r\nhalf",
            )
            .await
            .unwrap();
        mock.get("/health").await;

        mock.stop().await.expect("a clean stop");
    }

    #[tokio::test]
    async fn a_name_that_no_header_can_carry_is_an_error() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");

        let error = serve(listener, "one\r\ntwo".to_owned(), async {})
            .await
            .expect_err("a bad name");

        assert_eq!(
            error.to_string(),
            r#"the name "one\r\ntwo" cannot be sent as a header; use printable ASCII in `--name`"#
        );
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_that_names_the_address() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken
            .local_addr()
            .expect("a bound listener has an address")
            .port();

        let error = run(Arguments {
            port,
            host: "127.0.0.1".to_owned(),
            name: "Backend-1".to_owned(),
        });

        let message = error.expect_err("the port is taken").to_string();
        let expected = format!(
            "cannot listen on 127.0.0.1:{port}; choose another address with `--host` and `--port`"
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn the_defaults_are_one_backend_on_port_8081() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            arguments: Arguments,
        }
        let Command { arguments } = clap::Parser::parse_from(["mock"]);

        assert_eq!(
            (arguments.host.as_str(), arguments.port),
            ("127.0.0.1", 8081)
        );
        assert_eq!(arguments.name, "Backend-1");
    }
}
