//! `tollgate probe` against the gateway, and against scripted answers where the gateway would need luck.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::harness::{
    Blueprint, Gate, Gateway, Origin, Outcome, Reply, free_port, one_service, one_service_and,
    pool, tollgate,
};

/// Runs a scenario against this gateway; the exit code must be `code`.
#[track_caller]
fn probe(gateway: &Gateway, code: i32, arguments: &[&str]) -> Outcome {
    probe_at(gateway.port(), gateway.admin_port(), code, arguments)
}

#[track_caller]
fn probe_at(port: u16, admin_port: u16, code: i32, arguments: &[&str]) -> Outcome {
    let url = format!("http://127.0.0.1:{port}");
    let admin = format!("http://127.0.0.1:{admin_port}");
    let common = ["probe", "--url", &url, "--admin", &admin];
    let outcome = tollgate(&std::env::temp_dir(), &[&common, arguments].concat());
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    outcome
}

#[track_caller]
fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).expect("one JSON document")
}

fn named(name: &'static str) -> Origin {
    Origin::start(move |request| Reply::ok(request.body.clone()).header("X-Backend", name))
}

#[test]
fn the_answers_of_each_origin_are_counted() {
    let (a, b) = (named("first"), named("second"));
    let gateway = Gateway::start(&pool(&[(&a, 3), (&b, 1)]));

    for scenario in ["user", "data", "health", "slow"] {
        let outcome = probe(&gateway, 0, &[scenario, "--count", "8"]);

        let row = |name: &str| {
            let mut rows = outcome.stdout.lines();
            let row = rows.find(|line| line.starts_with(name)).expect("a row");
            row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("first"), "6 6", "{}", outcome.stdout);
        assert_eq!(row("second"), "2 2", "{}", outcome.stdout);
        assert_eq!(row("total"), "8 8", "{}", outcome.stdout);
        assert!(outcome.stdout.contains("p99"), "{}", outcome.stdout);
        assert!(
            outcome.stdout.contains("\nok: 8 requests"),
            "{}",
            outcome.stdout
        );
    }
    assert_eq!(a.last().target, "/api/slow?ms=1000");
}

#[test]
fn an_echo_must_show_what_was_sent() {
    let (echo, mute) = (Origin::echoing(), Origin::replying("hello"));

    probe(&Gateway::start(&one_service(&echo)), 0, &["echo"]);
    assert_eq!(echo.last().method, "POST");

    let outcome = probe(&Gateway::start(&one_service(&mute)), 1, &["echo"]);
    assert!(
        outcome.stdout.contains("without what was sent"),
        "{outcome:?}"
    );
}

#[test]
fn the_requests_are_sent_as_the_options_say() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    probe(
        &gateway,
        0,
        &[
            "user",
            "--path",
            "/cart?x=1",
            "--count",
            "1",
            "--key",
            "k",
            "--key-header",
            "X-Api-Key",
            "-H",
            "Host: shop.test",
            "-H",
            "X-Team: a",
        ],
    );

    let received = origin.last();
    assert_eq!(received.target, "/cart?x=1");
    assert_eq!(received.header("x-api-key"), Some("k"));
    assert_eq!(received.header("x-forwarded-host"), Some("shop.test"));
    assert_eq!(received.header("x-team"), Some("a"));
}

#[test]
fn several_requests_are_under_way_at_a_time() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    let outcome = probe(
        &gateway,
        0,
        &[
            "user",
            "--count",
            "500",
            "--concurrency",
            "20",
            "--format",
            "json",
        ],
    );

    let report = json(&outcome);
    assert_eq!(report["requests"], 500);
    assert_eq!(report["answers"][0]["count"], 500);
    assert_eq!(report["answers"][0]["answered_by"], "upstream");
    assert!(report["latency_ms"]["p99"].as_f64() >= report["latency_ms"]["p50"].as_f64());
    assert_eq!(origin.count(), 500);
}

const WITH_KEYS: &str = "
    consumers:
    - username: ann
      keyauth_credentials: [{ key: s3cr3t }]
    plugins:
    - name: key-auth
      config: { key_names: [x-api-key] }
";

#[test]
fn a_key_makes_the_difference() {
    let origin = named("first");
    let gateway = Gateway::start(&one_service_and(&origin, WITH_KEYS));
    let with_key = ["auth", "--key", "s3cr3t", "--key-header", "X-Api-Key"];

    let outcome = probe(&gateway, 0, &[&with_key[..], &["--count", "2"]].concat());

    for row in [
        "without a key: the gateway",
        "with a wrong key: the gateway",
        "with the key: first",
    ] {
        assert!(outcome.stdout.contains(row), "{}", outcome.stdout);
    }
    assert!(
        outcome.stdout.contains("unauthorized ×4"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stdout.contains("s3cr3t"), "{}", outcome.stdout);
    let wrong = probe(
        &gateway,
        1,
        &["auth", "--key", "other", "--key-header", "X-Api-Key"],
    );
    assert!(
        wrong.stdout.contains("with the key expected 2xx, got 401"),
        "{}",
        wrong.stdout
    );

    let open = Gateway::start(&one_service(&origin));
    let outcome = probe(&open, 1, &with_key);
    assert!(
        outcome.stdout.contains("without the key expected 401"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn the_request_at_which_a_limit_bites_is_told_with_its_headers() {
    let origin = named("first");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - name: rate-limiting
          config: { year: 100, policy: local }
        ",
    ));

    let outcome = probe(&gateway, 0, &["rate-limit"]);

    let text = &outcome.stdout;
    assert!(
        text.starts_with("rate-limit: 150 requests to http://127.0.0.1:"),
        "{text}"
    );
    assert!(
        text.contains("limit: request 101 was the first to be refused"),
        "{text}"
    );
    for header in [
        "ratelimit-limit: 100",
        "ratelimit-remaining: 0",
        "retry-after: ",
    ] {
        assert!(text.contains(header), "no {header} in {text}");
    }
    assert!(text.contains("rate_limited ×50"), "{text}");
    assert!(
        text.ends_with("ok: 100 requests passed, 50 got 429\n"),
        "{text}"
    );

    let again = probe(
        &gateway,
        1,
        &["rate-limit", "--count", "3", "--format", "json"],
    );
    let report = json(&again);
    assert_eq!(report["held"], false);
    assert_eq!(report["limit"]["request"], 1);
    assert!(
        report["limit"]["headers"]["ratelimit-limit"].is_string(),
        "{report}"
    );
}

#[test]
fn a_limit_that_is_not_there_is_missed() {
    let origin = named("first");
    let gateway = Gateway::start(&one_service(&origin));

    let outcome = probe(&gateway, 1, &["rate-limit", "--count", "5"]);

    assert!(
        outcome
            .stdout
            .contains("no limit was reached in 5 requests"),
        "{}",
        outcome.stdout
    );
}

fn failure() -> Reply {
    Reply::status(500).header("X-Backend", "Backend-1")
}

#[test]
fn the_moment_when_traffic_is_cut_off_is_told() {
    let gate = Gate::new();
    let cut_off = gate.clone();
    let origin = Origin::start(move |request| match request.number {
        2 => failure().after(&cut_off),
        _ => failure(),
    });
    let gateway = Gateway::start(&pool(&[(&origin, 1)]));

    let outcome = thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&gateway, 0, &["breaker", "--interval", "10ms"]));
        origin.wait_until("three failures", |requests| requests.len() == 3);
        gateway.reload(&pool(&[(&origin, 0)]));
        gate.open();
        probing.join().expect("a probe that did not fail")
    });

    let text = &outcome.stdout;
    let calls = text.lines().filter(|line| line.contains(" s  "));
    assert_eq!(calls.count(), 10, "{text}");
    assert!(
        text.contains(
            "transitions: 500 from Backend-1 ×3 → 503 from the gateway (no_healthy_upstream) ×7"
        ),
        "{text}"
    );
    assert!(text.contains("ok: after 3 failures"), "{text}");
}

#[test]
fn failures_that_nothing_cuts_off_are_not_as_expected() {
    let origin = Origin::start(|_| failure());
    let gateway = Gateway::start(&pool(&[(&origin, 1)]));

    let outcome = probe(
        &gateway,
        1,
        &["breaker", "--interval", "10ms", "--format", "json"],
    );

    let report = json(&outcome);
    assert_eq!(report["calls"].as_array().map(Vec::len), Some(10));
    assert_eq!(report["phases"][0]["outcome"], "500 from Backend-1");
    assert_eq!(report["phases"][0]["requests"], 10);
    assert_eq!(
        report["verdict"],
        "10 requests failed and nothing cut the traffic off"
    );
}

/// A breaker that closes again, and that has no admin listener which knows the reasons.
#[test]
fn whatever_cuts_traffic_off_is_recognised_by_its_answers() {
    let seen = AtomicUsize::new(0);
    let gateway = Origin::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0..3 => Reply::status(500)
            .header("X-Backend", "Backend-1")
            .header("X-Kong-Upstream-Latency", "1"),
        3..8 => Reply::status(503)
            .header("X-Kong-Response-Latency", "0")
            .header("Retry-After", "2")
            .body("{\"message\": \"circuit open\", \"request_id\": \"1\"}"),
        _ => Reply::ok("")
            .header("X-Backend", "Backend-1")
            .header("X-Kong-Upstream-Latency", "1"),
    });

    let outcome = probe_at(
        gateway.port(),
        free_port(),
        0,
        &["breaker", "--interval", "0"],
    );

    let text = &outcome.stdout;
    assert!(
        text.contains(
            "transitions: 500 from Backend-1 ×3 → 503 from the gateway (\"circuit open\") ×5 → 200 from Backend-1 ×2"
        ),
        "{text}"
    );
    assert!(text.contains("Retry-After: 2"), "{text}");
    assert!(
        text.contains("ok: after 3 failures the gateway answered request 4 by itself"),
        "{text}"
    );
}

/// What `tollgate demo` serves, with other ports and origins that answer like its mocks.
fn default_configuration(origins: &[Origin]) -> Gateway {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let blueprint = Blueprint::new("");
    let mut text = fs::read_to_string(root.join("config/gateway.yaml")).expect("the file");
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "no {from} in config/gateway.yaml");
        text = text.replace(from, to);
    };
    for (origin, port) in origins.iter().zip(9001..) {
        replace(&format!("127.0.0.1:{port}"), &origin.authority());
    }
    replace(":8000 ", &format!(":{} ", blueprint.port()));
    replace(
        "127.0.0.1:8001",
        &format!("127.0.0.1:{}", blueprint.admin_port()),
    );
    replace("../conf.d", &root.join("conf.d").display().to_string());
    fs::write(blueprint.folder().join("gateway.yaml"), text).expect("written");
    blueprint.start_as_it_is()
}

#[test]
fn the_default_configuration_has_a_route_for_every_scenario() {
    let origins = ["one", "two", "three"].map(|name| {
        Origin::start(move |request| {
            let status = if request.target == "/api/fail" {
                500
            } else {
                200
            };
            let body = request.body.clone();
            Reply::status(status).body(body).header("X-Backend", name)
        })
    });
    let gateway = default_configuration(&origins);

    for scenario in ["health", "echo", "user", "data", "slow", "auth"] {
        probe(&gateway, 0, &[scenario]);
    }
    probe(&gateway, 0, &["rate-limit", "--count", "400"]);
    let url = format!("http://127.0.0.1:{}", gateway.port());
    let breaker = tollgate(
        gateway.folder(),
        &["probe", "breaker", "--interval", "0", "--url", &url],
    );
    assert_eq!(breaker.code, Some(0), "{breaker:?}");
    assert!(breaker.stdout.contains("500 from one"), "{breaker:?}");
    assert!(
        breaker.stdout.contains("503 from the gateway"),
        "{breaker:?}"
    );
}

#[test]
fn calls_keep_their_distance() {
    let origin = named("first");
    let gateway = Gateway::start(&one_service(&origin));

    let outcome = probe(
        &gateway,
        0,
        &["user", "--count", "4", "--interval", "100ms"],
    );

    assert!(outcome.took.as_millis() >= 300, "{:?}", outcome.took);
}

#[test]
fn an_answer_that_takes_too_long_is_none() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&one_service(&origin));

    let outcome = probe(&gateway, 1, &["user", "--count", "1", "--timeout", "100ms"]);

    assert!(
        outcome.stdout.contains("no whole answer within 100ms"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_connection_that_the_gateway_closes_is_replaced() {
    let origin = Origin::start(|_| Reply::ok("hello"));
    let gateway = Gateway::start_with("keepalive_requests: 2", &one_service(&origin));

    probe(&gateway, 0, &["user", "--count", "9"]);

    assert_eq!(origin.count(), 9);
}

#[test]
fn where_nobody_listens_the_way_out_is_told() {
    let outcome = probe_at(free_port(), free_port(), 1, &["user", "--count", "2"]);

    assert!(
        outcome.stdout.contains("cannot connect to 127.0.0.1:"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stderr.contains("tollgate demo"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_listener_that_does_not_speak_http_is_told() {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
    let port = listener.local_addr().expect("a bound address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(stream);
        }
    });

    let outcome = probe_at(port, free_port(), 1, &["user", "--count", "1"]);

    assert!(outcome.stdout.contains("no answer: "), "{}", outcome.stdout);
}

#[test]
fn bad_arguments_are_refused() {
    let mut told = String::new();
    for arguments in [
        &["nonsense"][..],
        &["user", "--url", "https://127.0.0.1:8443"],
        &["user", "--url", "127.0.0.1:8000"],
        &["user", "--path", "api"],
        &["user", "--count", "0"],
        &["user", "--timeout", "0"],
        &["user", "-H", "nothing"],
        &["breaker", "--concurrency", "2"],
    ] {
        let outcome = tollgate(&std::env::temp_dir(), &[&["probe"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        let error = outcome
            .stderr
            .split("\n\n")
            .next()
            .expect("a first paragraph");
        told.push_str(&format!(
            "{}\n{}\n\n",
            arguments.join(" "),
            error.trim_end()
        ));
    }
    insta::assert_snapshot!(told, @r"
    nonsense
    error: invalid value 'nonsense' for '<SCENARIO>'
      [possible values: health, echo, user, data, slow, auth, rate-limit, breaker]

    user --url https://127.0.0.1:8443
    error: --url: `https://127.0.0.1:8443`: https is not spoken here; write `http://host:port`, such as `http://127.0.0.1:8000`

    user --url 127.0.0.1:8000
    error: --url: `127.0.0.1:8000` does not begin with http://; write `http://host:port`, such as `http://127.0.0.1:8000`

    user --path api
    error: invalid value 'api' for '--path <PATH>': `api` is not a path; write `/` and what follows, percent-encoded, such as `/api/user?id=1`

    user --count 0
    error: invalid value '0' for '--count <N>': 0 is not in 1..=100000

    user --timeout 0
    error: invalid value '0' for '--timeout <TIME>': no answer takes no time at all; write a time such as `10s`

    user -H nothing
    error: --header: it has no name or cannot be sent; write `Name: value`

    breaker --concurrency 2
    error: --concurrency: `breaker` sends one request after the other; leave the option out
    ");
}
