//! What the gateway does while its profile is taken: a day of a gateway's work in a minute, with HTTP/1, HTTP/2, gRPC,
//! TCP and every plugin. It is not what is measured: a profile of the benchmark would be good at the benchmark.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use h2::client::ResponseFuture;
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinSet, LocalSet},
};

use super::{
    contender::{Contender, free_address, gateway},
    load::{self, Load, Until},
    origin,
};

/// How long each kind of traffic lasts.
const SPELL: Duration = Duration::from_secs(4);
/// The connections of a kind of traffic.
const CONNECTIONS: usize = 32;
/// The requests that a connection of HTTP/2 has under way at once.
const STREAMS: usize = 4;
const CONSUMERS: usize = 50;
/// Services with some routes each, as a team has them.
const SERVICES: usize = 60;

/// Where the gateway listens.
struct Doors {
    plain: SocketAddr,
    secure: SocketAddr,
    streams: SocketAddr,
    admin: SocketAddr,
}

/// Has the gateway, which was built to count what it does, serve every kind of traffic; it leaves its counts in
/// `folder`. The certificate is there already.
pub(crate) async fn train(folder: &Path) {
    let origin = origin::start().await;
    let doors = Doors {
        plain: free_address(),
        secure: free_address(),
        streams: free_address(),
        admin: free_address(),
    };
    let file = folder.join("training.yaml");
    fs::write(&file, config(&doors, origin)).expect("a file");
    let mut command = Command::new(gateway());
    command
        .arg("run")
        .arg("--config")
        .arg(&file)
        .env("LLVM_PROFILE_FILE", folder.join("%p.profraw"));
    let running = Contender::start(command, doors.plain);
    for (name, address, load) in traffic(&doors) {
        let seen = load::send(address, &load, Until::After(SPELL)).await;
        println!("{name}: {} requests", seen.requests());
    }
    for (name, address, tls, requests) in traffic_over_http2(&doors) {
        let count = over_http2(address, tls, &requests).await;
        println!("{name}: {count} requests");
    }
    reload_under_load(&doors, origin, &file).await;
    running.stop();
}

fn traffic(doors: &Doors) -> Vec<(&'static str, SocketAddr, Load)> {
    let load = |requests: Vec<Vec<u8>>, tls| Load {
        requests: Rc::from(requests),
        connections: CONNECTIONS,
        tls,
        takes_refusals: false,
    };
    let mut refused = load(failures(), false);
    refused.takes_refusals = true;
    let tcp = load(vec![get("/", "")], false);
    let scrapes = load(vec![get("/metrics", "")], false);
    vec![
        ("browsers", doors.plain, load(pages(), false)),
        ("browsers over TLS", doors.secure, load(pages(), true)),
        ("applications", doors.plain, load(calls(), false)),
        ("applications over TLS", doors.secure, load(calls(), true)),
        ("large bodies", doors.plain, load(bodies(), false)),
        ("refusals and failures", doors.plain, refused),
        ("TCP", doors.streams, tcp),
        ("scrapes", doors.admin, scrapes),
    ]
}

fn get(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: training/1.0\r\nAccept: */*\r\n{more}\r\n"
    )
    .into_bytes()
}

fn post(path: &str, more: &str, bytes: usize) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/json\r\n\
         Content-Length: {bytes}\r\n{more}\r\n"
    )
    .into_bytes();
    request.resize(request.len() + bytes, b'x');
    request
}

/// What browsers ask for: many fields, cookies, balanced upstreams.
fn pages() -> Vec<Vec<u8>> {
    const FIELDS: &str = "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.7\r\n\
        Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nDNT: 1\r\n\
        Referer: https://shop.test/list?page=2\r\nSec-Fetch-Mode: navigate\r\nX-Forwarded-For: 10.1.2.3\r\n";
    let mut pages: Vec<_> = (0..SERVICES)
        .map(|number| get(&format!("/team-{number}/list?page={number}"), FIELDS))
        .collect();
    for (algorithm, _) in ALGORITHMS {
        pages.push(get(&format!("/{algorithm}/item/7?q=a%20b"), FIELDS));
    }
    pages.push(get("/team-1/chunked", FIELDS));
    pages.push(get("/orders/%7Ea/../b//c", FIELDS));
    pages
}

/// What applications ask for: keys, limits, bodies.
fn calls() -> Vec<Vec<u8>> {
    let mut calls = Vec::new();
    for number in 0..CONSUMERS {
        let key = format!("apikey: {}\r\n", key(number));
        calls.push(get("/keyed/orders", &key));
        calls.push(post("/keyed/orders", &key, 700));
        calls.push(get(
            "/keyed/chunked",
            &format!("{key}X-Request-Id: id-{number}\r\n"),
        ));
        calls.push(get(&format!("/keyed/a?apikey={}", self::key(number)), ""));
        calls.push(get("/guarded/a", "X-Version: beta\r\n"));
        calls.push(get("/split/a", ""));
        calls.push(get("/orders/42/lines", ""));
    }
    calls.push(chunked("/team-2/upload"));
    calls.push(get("/mirrored/a", ""));
    calls
}

fn chunked(path: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
    )
    .into_bytes()
}

fn bodies() -> Vec<Vec<u8>> {
    vec![
        get("/team-3/large", ""),
        post("/team-4/", "", 64 * 1024),
        post("/team-5/", "", 8 * 1024),
        post("/team-6/", "", 8 * 1024),
    ]
}

/// What is refused, and what goes wrong behind the gateway. Little of it: most requests are good ones.
fn failures() -> Vec<Vec<u8>> {
    let mut requests: Vec<_> = (0..20)
        .map(|number| get(&format!("/team-{number}/"), ""))
        .collect();
    requests.extend([
        get("/nowhere", ""),
        get("/keyed/", ""),
        get("/keyed/", "apikey: wrong\r\n"),
        get("/limited/", ""),
        get("/closed/", ""),
        get("/team-7/failure", ""),
        get("/guarded/failure", ""),
        get("/half-dead/a", ""),
        get("/half-dead/b", ""),
    ]);
    requests
}

/// Methods, paths and kinds of content.
type Calls = Vec<(&'static str, String, &'static str)>;

fn traffic_over_http2(doors: &Doors) -> Vec<(&'static str, SocketAddr, bool, Rc<Calls>)> {
    let mut pages: Calls = (0..SERVICES)
        .map(|number| ("GET", format!("/team-{number}/list?page=1"), "text/html"))
        .collect();
    pages.push(("GET", "/team-1/large".to_owned(), "text/html"));
    let calls = vec![("POST", "/shop.Cart/Add".to_owned(), "application/grpc")];
    let (pages, calls) = (Rc::new(pages), Rc::new(calls));
    vec![
        (
            "browsers over HTTP/2",
            doors.secure,
            true,
            Rc::clone(&pages),
        ),
        ("HTTP/2 without TLS", doors.plain, false, pages),
        ("gRPC", doors.plain, false, calls),
    ]
}

async fn over_http2(address: SocketAddr, tls: bool, requests: &Rc<Calls>) -> usize {
    let local = LocalSet::new();
    let mut clients = JoinSet::new();
    let end = Instant::now() + SPELL;
    for number in 0..CONNECTIONS {
        let requests = Rc::clone(requests);
        let client = async move {
            if tls {
                let stream = load::connect_securely(address, b"\x02h2").await;
                converse(stream, &requests, number, end).await
            } else {
                let stream = load::connect_plainly(address).await;
                converse(stream, &requests, number, end).await
            }
        };
        clients.spawn_local_on(client, &local);
    }
    local.run_until(clients.join_all()).await.into_iter().sum()
}

/// Sends requests over one connection, some at a time, until `end`. Gives how many were answered.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    requests: &Calls,
    number: usize,
    end: Instant,
) -> usize {
    let (mut client, connection) = h2::client::handshake(stream).await.expect("a connection");
    let driver = tokio::task::spawn_local(connection);
    let mut turn = number * 7;
    let mut answered = 0;
    while Instant::now() < end {
        let mut answers = Vec::with_capacity(STREAMS);
        for _ in 0..STREAMS {
            let (method, path, kind) = &requests[turn % requests.len()];
            turn += 1;
            let request = Request::builder()
                .method(*method)
                .uri(format!("http://shop.test{path}"))
                .header("accept", *kind)
                .header("content-type", *kind)
                .header("te", "trailers")
                .body(())
                .expect("a request");
            client = client.ready().await.expect("a connection");
            let has_body = *method == "POST";
            let (answer, mut body) = client.send_request(request, !has_body).expect("sent");
            if has_body {
                // A message without fields (gRPC over HTTP/2, Length-Prefixed-Message).
                let message = bytes::Bytes::from_static(&[0; 5]);
                body.send_data(message, true).expect("sent");
            }
            answers.push(answer);
        }
        // All at once: a body that nobody reads takes the window of the connection from the others.
        answered += join_all(answers.into_iter().map(read)).await.len();
    }
    driver.abort();
    answered
}

/// Reads an answer to its end.
async fn read(answer: ResponseFuture) {
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    while let Some(part) = body.data().await {
        let taken = part.expect("a body").len();
        body.flow_control().release_capacity(taken).expect("taken");
    }
}

/// Saves the configuration a few times while clients are served.
async fn reload_under_load(doors: &Doors, origin: SocketAddr, file: &Path) {
    let (_, address, load) = traffic(doors).swap_remove(0);
    let whole = config(doors, origin);
    for number in 0..4 {
        fs::write(
            file,
            format!("{whole}  - {{name: new-{number}, url: \"http://{origin}\"}}\n"),
        )
        .expect("a file");
        load::send(address, &load, Until::After(SPELL / 8)).await;
    }
}

/// The algorithms, and what they need to be told.
const ALGORITHMS: [(&str, &str); 5] = [
    ("round-robin", ""),
    ("least-connections", ""),
    ("latency", ""),
    (
        "consistent-hashing",
        ", hash_on: header, hash_on_header: referer",
    ),
    ("sticky-sessions", ", sticky_sessions_cookie: seat"),
];

fn key(number: usize) -> String {
    format!("training-key-{number:04}")
}

/// The configuration; its last list is that of the services.
fn config(doors: &Doors, origin: SocketAddr) -> String {
    [
        settings(doors),
        consumers(),
        upstreams(origin),
        services(doors, origin),
        plugins(origin),
        teams(origin),
    ]
    .concat()
}

fn settings(doors: &Doors) -> String {
    let Doors {
        plain,
        secure,
        streams,
        admin,
    } = doors;
    format!(
        r#"_format_version: "3.0"
gateway:
  listen: ["{plain} http2", "{secure} ssl http2"]
  stream_listen: "{streams}"
  admin: "{admin}"
  ssl_cert: bench.crt
  ssl_cert_key: bench.key
  access_log: /dev/null
  trusted_ips: [127.0.0.1]
plugins:
  - name: prometheus
    config: {{status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, upstream_health_metrics: true}}
"#
    )
}

fn consumers() -> String {
    let mut yaml = "consumers:\n".to_owned();
    for number in 0..CONSUMERS {
        let _ = writeln!(
            yaml,
            "  - {{username: application-{number}, keyauth_credentials: [{{key: {}}}]}}",
            key(number)
        );
    }
    yaml
}

fn upstreams(origin: SocketAddr) -> String {
    let nobody = free_address();
    let mut yaml = format!(
        r#"upstreams:
  - name: half-dead
    targets: [{{target: "{origin}"}}, {{target: "{nobody}"}}]
    healthchecks:
      passive: {{unhealthy: {{tcp_failures: 3, http_failures: 5}}}}
"#
    );
    for (algorithm, more) in ALGORITHMS {
        let _ = writeln!(
            yaml,
            "  - {{name: {algorithm}, algorithm: {algorithm}{more}, targets: [{{target: \"{origin}\", weight: 10}}, {{target: \"localhost:{}\", weight: 5}}]}}",
            origin.port()
        );
    }
    yaml
}

/// Services for every protocol and every upstream.
fn services(doors: &Doors, origin: SocketAddr) -> String {
    let Doors { plain, streams, .. } = doors;
    let mut yaml = format!(
        r#"services:
  - name: tcp
    protocol: tcp
    host: {origin_ip}
    port: {origin_port}
    routes: [{{name: tcp, protocols: [tcp], destinations: [{{port: {stream_port}}}]}}]
  # The gateway is its own upstream over HTTP/2.
  - name: grpc
    protocol: grpc
    host: {ip}
    port: {port}
    routes: [{{name: grpc, protocols: [grpc], hosts: [shop.test], paths: [/shop.Cart]}}]
  - name: cart
    url: "http://{origin}"
    routes: [{{name: cart, hosts: ["{ip}"], paths: [/shop.Cart]}}]
  - name: half-dead
    host: half-dead
    retries: 2
    routes: [{{name: half-dead, paths: [/half-dead]}}]
  - name: orders
    url: "http://{origin}/base"
    routes:
      - {{name: order, paths: ["~/orders/(?<id>\\d+)/lines$"], strip_path: false}}
      - {{name: orders, paths: [/orders], methods: [GET, POST], preserve_host: true}}
"#,
        origin_ip = origin.ip(),
        origin_port = origin.port(),
        stream_port = streams.port(),
        ip = plain.ip(),
        port = plain.port(),
    );
    for (algorithm, _) in ALGORITHMS {
        let _ = writeln!(
            yaml,
            "  - {{name: {algorithm}, host: {algorithm}, routes: [{{name: {algorithm}, paths: [/{algorithm}]}}]}}"
        );
    }
    yaml
}

/// Services with plugins.
fn plugins(origin: SocketAddr) -> String {
    format!(
        r#"  - name: keyed
    url: "http://{origin}"
    routes: [{{name: keyed, paths: [/keyed]}}]
    plugins:
      - {{name: key-auth, config: {{hide_credentials: true}}}}
      - {{name: rate-limiting, config: {{minute: 100000000, hour: 1000000000, limit_by: consumer, policy: local}}}}
      - {{name: correlation-id, config: {{header_name: X-Request-Id, echo_downstream: true}}}}
  - name: guarded
    url: "http://{origin}"
    routes: [{{name: guarded, paths: [/guarded], headers: {{x-version: [beta]}}}}, {{name: guarded-too, paths: [/guarded]}}]
    plugins:
      - {{name: circuit-breaker, config: {{consecutive_failures: 50}}}}
      - {{name: concurrency-limit, config: {{limit: 500, limit_by: global}}}}
      - {{name: correlation-id, config: {{header_name: X-Trace, generator: tracker}}}}
  - name: limited
    url: "http://{origin}"
    routes: [{{name: limited, paths: [/limited]}}]
    plugins: [{{name: rate-limiting, config: {{minute: 5, limit_by: ip, policy: local}}}}]
  - name: closed
    url: "http://{origin}"
    routes: [{{name: closed, paths: [/closed]}}]
    plugins: [{{name: request-termination, config: {{status_code: 503, message: closed}}}}]
  - name: mirrored
    url: "http://{origin}"
    routes: [{{name: mirrored, paths: [/mirrored]}}]
    plugins: [{{name: proxy-mirror, config: {{service: orders, sample: 0.5}}}}]
  - name: split
    url: "http://{origin}"
    routes: [{{name: split, paths: [/split]}}]
    plugins: [{{name: traffic-split, config: {{rules: [{{to: [{{service: split, weight: 9}}, {{service: orders, weight: 1}}]}}]}}}}]
"#
    )
}

/// What most of a configuration is.
fn teams(origin: SocketAddr) -> String {
    let mut yaml = String::new();
    for number in 0..SERVICES {
        let _ = writeln!(
            yaml,
            "  - {{name: team-{number}, url: \"http://{origin}\", routes: [{{name: team-{number}, paths: [/team-{number}]}}, {{name: host-{number}, hosts: [team-{number}.test, \"*.team-{number}.test\"]}}]}}"
        );
    }
    yaml
}
