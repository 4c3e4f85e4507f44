//! `circuit-breaker`: what is cut off, when, for whom, and how it comes back.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{
    Client, Gate, Gateway, Origin, Reply, Request, check, one_service_and, tollgate, wait_for,
    wait_until,
};

/// How long a circuit may take to let a probe through.
const PATIENCE: Duration = Duration::from_secs(10);

/// An origin that fails while it is told to.
struct Moody {
    origin: Origin,
    fails: Arc<AtomicBool>,
}

impl Moody {
    fn failing() -> Self {
        let fails = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&fails);
        let origin = Origin::start(move |_| {
            if told.load(Ordering::SeqCst) {
                Reply::status(500).body("broken")
            } else {
                Reply::ok("fine")
            }
        });
        Self { origin, fails }
    }

    fn recover(&self) {
        self.fails.store(false, Ordering::SeqCst);
    }
}

fn breaking(origin: &Origin, config: &str) -> Gateway {
    Gateway::start(&document(origin, config))
}

fn document(origin: &Origin, config: &str) -> String {
    one_service_and(
        origin,
        &format!("plugins:\n- {{ name: circuit-breaker, config: {{ {config} }} }}"),
    )
}

fn state(gateway: &Gateway, target: &str) -> f64 {
    gateway.metric(&format!(
        "tollgate_circuit_state{{service=\"orders\",route=\"\",target=\"{target}\"}}"
    ))
}

fn transitions(gateway: &Gateway, to: &str) -> f64 {
    gateway.metric(&format!(
        "tollgate_circuit_transitions_total{{service=\"orders\",route=\"\",target=\"\",to=\"{to}\"}}"
    ))
}

#[track_caller]
fn assert_is(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < f64::EPSILON,
        "{found}, not {expected}"
    );
}

/// S16
#[test]
fn failures_in_a_row_cut_the_upstream_off_at_once() {
    let moody = Moody::failing();
    let gateway = breaking(&moody.origin, "consecutive_failures: 5, open_timeout: 60");

    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 500);
    }
    for _ in 0..10 {
        let response = gateway.get("/");
        assert_eq!(response.status, 503);
        assert!(response.text().contains("Service temporarily unavailable"));
        let seconds: u64 = response
            .header("Retry-After")
            .and_then(|value| value.parse().ok())
            .expect("seconds");
        assert!((50..=60).contains(&seconds), "{seconds}");
    }

    assert_eq!(moody.origin.count(), 5);
    assert_is(state(&gateway, ""), 2.0);
    assert_is(transitions(&gateway, "open"), 1.0);
    assert_is(
        gateway.metric("tollgate_replies_total{reason=\"circuit_open\"}"),
        10.0,
    );
    gateway.wait_for_log("circuit is open (5 failures in a row)");
    gateway.wait_for_access_log("\"error\":\"circuit_open\"");
}

/// S17, S18
#[test]
fn a_share_of_failures_opens_and_probes_close() {
    let moody = Moody::failing();
    let gateway = breaking(
        &moody.origin,
        "consecutive_failures: 0, failure_ratio: 0.6, min_requests: 5, open_timeout: 0.3, half_open_requests: 3",
    );
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 500);
    }
    assert_eq!(gateway.get("/").status, 503);
    moody.recover();

    wait_until("three probes have passed", || {
        gateway.get("/");
        state(&gateway, "") < 0.5
    });
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }

    for to in ["open", "half-open", "closed"] {
        assert_is(transitions(&gateway, to), 1.0);
    }
    for line in [
        "circuit is open (5 of 5 requests failed)",
        "circuit is half-open (was open for 300ms)",
        "circuit is closed (3 probes succeeded)",
    ] {
        gateway.wait_for_log(line);
    }
}

#[test]
fn only_so_many_requests_probe_at_once() {
    let gate = Gate::new();
    let told = gate.clone();
    let origin = Origin::start(move |request| {
        if request.number == 0 {
            Reply::status(500)
        } else {
            Reply::ok("fine").after(&told)
        }
    });
    let gateway = breaking(
        &origin,
        "consecutive_failures: 1, open_timeout: 0.05, half_open_requests: 2",
    );
    assert_eq!(gateway.get("/").status, 500);
    let mut probes: Vec<Client> = Vec::new();
    for number in 2..4 {
        wait_until("a probe is let through", || {
            let mut client = gateway.connect();
            client.write(Request::get("/").bytes()).expect("written");
            let passed = || origin.count() == number;
            wait_until("the origin or the gateway has it", || {
                passed() || client.hears_within(Duration::from_millis(20))
            });
            if passed() {
                probes.push(client);
            }
            passed()
        });
    }

    for _ in 0..10 {
        let refused = gateway.get("/");
        assert_eq!(
            (refused.status, refused.header("Retry-After")),
            (503, Some("1"))
        );
    }
    assert_eq!(origin.count(), 3);

    gate.open();
    for mut probe in probes {
        assert_eq!(probe.read_response().expect("an answer").status, 200);
    }
    wait_until("the circuit closes", || state(&gateway, "") < 0.5);
}

#[test]
fn one_failed_probe_opens_the_circuit_again() {
    let moody = Moody::failing();
    let gateway = breaking(&moody.origin, "consecutive_failures: 1, open_timeout: 0.1");
    assert_eq!(gateway.get("/").status, 500);

    wait_until("a probe fails", || gateway.get("/").status == 500);

    wait_until("it is counted", || transitions(&gateway, "open") > 1.5);
    gateway.wait_for_log("circuit is open (a probe failed)");
}

#[test]
fn a_probe_whose_client_goes_away_leaves_its_place_to_another() {
    let origin = Origin::start(|request| {
        if request.number == 0 {
            Reply::status(500)
        } else if request.target == "/slow" {
            Reply::never()
        } else {
            Reply::ok("fine")
        }
    });
    let gateway = breaking(
        &origin,
        "consecutive_failures: 1, open_timeout: 0.05, half_open_requests: 1",
    );
    assert_eq!(gateway.get("/").status, 500);
    wait_until("the probe is under way", || {
        let mut client = gateway.connect();
        client
            .write(Request::get("/slow").bytes())
            .expect("written");
        wait_until("the origin or the gateway has it", || {
            origin.count() == 2 || client.hears_within(Duration::from_millis(20))
        });
        origin.count() == 2
    });

    // It is gone with its client; another may probe.
    wait_until("another probe passes", || gateway.get("/").status == 200);
    assert_eq!(gateway.get("/").status, 200);
}

/// An origin that fails once, and then writes `rest` behind the head of an answer with 4 bytes, once told to.
fn slow_after_its_head(rest: &'static str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |request| {
        if request.number == 0 {
            return Reply::status(500);
        }
        let gate = gate.clone();
        Reply::stream(move |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
            gate.wait();
            stream.write_all(rest.as_bytes())
        })
        .then_close()
    })
}

/// A client with a good head whose body is still to come.
fn served_head(gateway: &Gateway) -> Option<Client> {
    let mut client = gateway.connect();
    client.write(Request::get("/").bytes()).expect("written");
    let head = client.read_head().expect("a head");
    head.start_line.contains(" 200 ").then_some(client)
}

#[test]
fn whoever_comes_back_at_once_finds_the_circuit_closed() {
    for per in ["service", "target"] {
        let gate = Gate::new();
        let origin = slow_after_its_head("fine", &gate);
        let gateway = breaking(
            &origin,
            &format!(
                "per: {per}, consecutive_failures: 1, open_timeout: 0.05, half_open_requests: 1"
            ),
        );
        let probe = wait_for("the head of a probe", PATIENCE, || served_head(&gateway));

        // The body of the probe is still to come, and nobody is refused for that.
        let others: Vec<_> = (0..5).map(|_| served_head(&gateway)).collect();
        assert!(others.iter().all(Option::is_some), "{per}");
        gate.open();
        drop((probe, others));
    }
}

#[test]
fn a_probe_whose_body_breaks_off_opens_the_circuit_again() {
    let gate = Gate::new();
    let origin = slow_after_its_head("f", &gate);
    let gateway = breaking(
        &origin,
        "consecutive_failures: 1, open_timeout: 1, half_open_requests: 1",
    );
    assert_eq!(gateway.get("/").status, 500);
    let _probe = wait_for("the head of a probe", PATIENCE, || served_head(&gateway));
    assert_is(state(&gateway, ""), 0.0);

    gate.open();

    wait_until("the circuit is open", || state(&gateway, "") > 1.5);
    assert_is(transitions(&gateway, "open"), 2.0);
    gateway.wait_for_log("circuit is open (a probe failed)");
}

#[test]
fn a_request_counts_once_by_what_it_came_to_after_its_retries() {
    let seen = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        if seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            Reply::close()
        } else {
            Reply::ok("second")
        }
    });
    let gateway = breaking(&origin, "consecutive_failures: 2");

    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(origin.count(), 20);
}

#[test]
fn connections_that_fail_count_and_clients_that_go_away_do_not() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/never" => Reply::never(),
        _ => Reply::close(),
    });
    let gateway = breaking(&origin, "consecutive_failures: 3");
    for number in 1..6 {
        let mut client = gateway.connect();
        client
            .write(Request::get("/never").bytes())
            .expect("written");
        origin.wait_until("the request", |requests| requests.len() == number);
        drop(client);
        origin.wait_for_open_connections(0);
    }
    assert_is(state(&gateway, ""), 0.0);

    for _ in 0..3 {
        assert_eq!(gateway.send(&Request::post("/", "x")).status, 502);
    }
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(origin.count(), 8);
}

/// S19
#[test]
fn routes_and_services_have_circuits_of_their_own() {
    let moody = Moody::failing();
    let origin = &moody.origin;
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: one
          url: {origin}
          routes:
          - {{ name: own, paths: [/own], plugins: [{{ name: circuit-breaker, config: {{ consecutive_failures: 1 }} }}] }}
          - {{ name: shared, paths: [/shared] }}
          - {{ name: sharing, paths: [/sharing] }}
        - name: two
          url: {origin}
          routes: [{{ name: other, paths: [/other] }}]
        plugins:
        - {{ name: circuit-breaker, config: {{ consecutive_failures: 1 }} }}
        "
    ));
    let outcome = |path: &str| gateway.get(path).status;

    assert_eq!((outcome("/own"), outcome("/own")), (500, 503));
    assert_eq!((outcome("/shared"), outcome("/sharing")), (500, 503));
    assert_eq!((outcome("/other"), outcome("/other")), (500, 503));
    assert_eq!(origin.count(), 3);
    let open = gateway.metric("tollgate_circuit_state{route=\"own\"}");
    assert_is(open, 2.0);
}

/// S19
#[test]
fn per_target_the_others_go_on_serving() {
    let (bad, good) = (
        Origin::start(|_| Reply::status(500)),
        Origin::replying("good"),
    );
    let gateway = Gateway::start(&pool_of(&[&bad, &good], "consecutive_failures: 3"));

    let statuses: Vec<u16> = (0..60).map(|_| gateway.get("/").status).collect();

    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert_eq!((failed, bad.count(), good.count()), (3, 3, 57));
    assert_is(state(&gateway, &bad.authority()), 2.0);
    assert_is(state(&gateway, &good.authority()), 0.0);
    let shown = gateway.admin("/status/circuits").json();
    let states: Vec<(&str, &str)> = shown["circuits"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|circuit| {
            (
                circuit["target"].as_str().unwrap_or_default(),
                circuit["state"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    let (bad, good) = (bad.authority(), good.authority());
    assert!(states.contains(&(&bad, "open")), "{states:?}");
    assert!(states.contains(&(&good, "closed")), "{states:?}");
}

fn pool_of(origins: &[&Origin], config: &str) -> String {
    let targets: Vec<String> = origins
        .iter()
        .map(|origin| format!("{{ target: '{}' }}", origin.authority()))
        .collect();
    format!(
        "
        services:
        - name: orders
          host: pool
          retries: 1
          routes: [{{ name: orders, paths: [/] }}]
          plugins: [{{ name: circuit-breaker, config: {{ per: target, {config} }} }}]
        upstreams:
        - {{ name: pool, targets: [{}] }}
        ",
        targets.join(", ")
    )
}

#[test]
fn per_target_each_try_counts_and_when_all_are_open_nobody_is_asked() {
    let dead = [
        Origin::start(|_| Reply::close()),
        Origin::start(|_| Reply::close()),
    ];
    let gateway = Gateway::start(&pool_of(
        &[&dead[0], &dead[1]],
        "consecutive_failures: 2, open_timeout: 60, error_code: 500, error_message: nobody",
    ));

    // Two tries each, one for each target.
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status, 502);
    }
    let response = gateway.get("/");

    assert_eq!(response.status, 500);
    assert!(response.text().contains("nobody"));
    let after = response.header("Retry-After").expect("a time");
    assert!((50..=60).contains(&after.parse::<u64>().expect("seconds")));
    assert_eq!((dead[0].count(), dead[1].count()), (2, 2));
}

#[test]
fn per_target_an_address_comes_back_by_its_probes() {
    let (moody, good) = (Moody::failing(), Origin::replying("fine"));
    let gateway = Gateway::start(&pool_of(
        &[&moody.origin, &good],
        "consecutive_failures: 1, open_timeout: 0.2, half_open_requests: 1",
    ));
    wait_until("the circuit opens", || {
        gateway.get("/");
        state(&gateway, &moody.origin.authority()) > 1.5
    });
    moody.recover();

    wait_until("the circuit closes", || {
        assert_eq!(gateway.get("/").status, 200);
        state(&gateway, &moody.origin.authority()) < 0.5
    });
    let before = moody.origin.count();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(moody.origin.count() - before, 5);
}

#[test]
fn circuits_stay_open_over_a_reload_and_go_with_their_service() {
    let moody = Moody::failing();
    let gateway = breaking(&moody.origin, "consecutive_failures: 1, open_timeout: 60");
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(gateway.get("/").status, 503);

    gateway.reload(&document(
        &moody.origin,
        "consecutive_failures: 9, open_timeout: 60, error_message: still open",
    ));

    let response = gateway.get("/");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("still open"));
    assert_eq!(moody.origin.count(), 1);

    gateway.reload(
        "services: [{ name: other, host: other.test }]\nplugins: [{ name: circuit-breaker }]\n",
    );
    // The old configuration is freed behind the new one.
    wait_until("the circuit is gone", || {
        let shown = gateway.admin("/status/circuits").json();
        shown["circuits"].as_array().map(Vec::len) == Some(0)
    });
    let page = gateway.admin("/metrics").text();
    assert!(!page.contains("tollgate_circuit_state{"), "{page}");
}

/// S57
#[test]
fn the_probe_of_the_breaker_shows_the_transition() {
    let moody = Moody::failing();
    let gateway = breaking(&moody.origin, "consecutive_failures: 4");

    let outcome = tollgate(
        gateway.folder(),
        &[
            "probe",
            "breaker",
            "--interval",
            "10ms",
            "--url",
            &format!("http://127.0.0.1:{}", gateway.port()),
            "--admin",
            &format!("http://127.0.0.1:{}", gateway.admin_port()),
        ],
    );

    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("circuit_open"), "{outcome:?}");
    assert_eq!(moody.origin.count(), 4);
}

#[test]
fn explain_names_it_in_the_chain() {
    let moody = Moody::failing();
    let gateway = breaking(&moody.origin, "");

    let outcome = tollgate(
        gateway.folder(),
        &[
            "explain",
            "GET",
            "/",
            "-c",
            &gateway.file().display().to_string(),
        ],
    );

    assert!(outcome.stdout.contains("circuit-breaker"), "{outcome:?}");
}

#[test]
fn what_means_nothing_is_refused_with_its_place() {
    for (config, scope, message) in [
        ("consecutive_failures: 0", "", "would never open"),
        ("failure_ratio: 0", "", "failure_ratio"),
        ("failure_ratio: 1.5", "", "failure_ratio"),
        ("half_open_requests: 0", "", "half_open_requests"),
        ("open_timeout: 0", "", "open_timeout"),
        ("per: route", "", "per"),
        ("treshold: 5", "", "treshold"),
        ("", "consumer: alice, ", "not of its consumers"),
    ] {
        let outcome = check(&format!(
            "plugins: [{{ name: circuit-breaker, {scope}config: {{ {config} }} }}]\nconsumers: [{{ username: alice }}]\n"
        ));
        assert_eq!(outcome.code, Some(1), "{config}: {outcome:?}");
        assert!(
            outcome.stderr.contains(message),
            "{config}: {}",
            outcome.stderr
        );
    }
}
