//! How often and how soon tries are repeated, and by when all of them are over.

use std::{io::Write as _, time::Duration};

use super::{IDEMPOTENT, failing_first, retrying};
use crate::harness::{Client, Gate, Gateway, Origin, Reply, Request, Stopwatch, free_port};

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_dead_upstream_is_not_asked_many_times_for_each_request() {
    let origin = Origin::start(|_| Reply::close());
    let gateway = retrying(&origin, 5, "");

    for _ in 0..100 {
        assert_eq!(gateway.get("/").status, 502);
    }

    // 100 requests, a fifth of them again, and 30.
    let tries = origin.count();
    assert!((130..=150).contains(&tries), "{tries} tries");
    let counted = |family: &str| gateway.metric(&format!("{family}{{service=\"orders\"}}"));
    assert!(counted("tollgate_upstream_retries_total") <= 50.0);
    assert!(counted("tollgate_upstream_retries_refused_total") >= 50.0);
}

#[test]
fn a_budget_of_one_is_none_and_of_nothing_leaves_thirty() {
    for (budget, tries) in [("1", 120), ("0", 90)] {
        let origin = Origin::start(|_| Reply::close());
        let gateway = retrying(&origin, 1, &format!("retry: {{ budget: {budget} }}"));
        for _ in 0..60 {
            assert_eq!(gateway.get("/").status, 502);
        }
        assert_eq!(origin.count(), tries, "budget: {budget}");
    }
}

#[test]
fn what_was_spent_is_remembered_over_a_reload() {
    let origin = Origin::start(|_| Reply::close());
    let document = |retries: u32| {
        format!(
            "services:\n- {{ name: orders, url: '{origin}', retries: {retries}, retry: {{ budget: 0 }}, routes: [{{ name: orders, paths: [/] }}] }}\n"
        )
    };
    let gateway = Gateway::start(&document(1));
    for _ in 0..30 {
        gateway.get("/");
    }
    assert_eq!(origin.count(), 60);

    gateway.reload(&document(2));
    gateway.get("/");

    assert_eq!(origin.count(), 61);
}

#[test]
fn fail_over_to_another_target_costs_no_budget() {
    let alive = Origin::replying("alive");
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retries: 1, retry: {{ budget: 0 }}, routes: [{{ name: orders, paths: [/] }}] }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '127.0.0.1:{}' }}, {{ target: '{}' }}] }}
        ",
        free_port(),
        alive.authority()
    ));

    for attempt in 0..100 {
        assert_eq!(gateway.get("/").status, 200, "attempt {attempt}");
    }
    let refused = gateway.metric("tollgate_upstream_retries_refused_total{service=\"orders\"}");
    assert!(refused.abs() < f64::EPSILON, "{refused}");
}

#[test]
fn repetitions_wait_no_longer_than_their_backoff() {
    let origin = failing_first(3);
    let gateway = retrying(&origin, 5, "retry: { backoff: 50, max_backoff: 100 }");
    let watch = Stopwatch::start();

    assert_eq!(gateway.get("/").status, 200);

    assert_eq!(origin.count(), 4);
    assert!(watch.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_try_may_wait_less_long_than_the_service_says() {
    let origin = Origin::start(|request| {
        if request.number == 0 {
            Reply::never()
        } else {
            Reply::ok("second")
        }
    });
    let gateway = retrying(&origin, 1, "retry: { per_try_timeout: 200 }");

    assert_eq!(gateway.get("/").text(), "second");
}

#[test]
fn all_tries_together_end_in_time() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = retrying(
        &origin,
        50,
        "total_timeout: 500\nretry: { per_try_timeout: 150, budget: 1 }",
    );
    let watch = Stopwatch::start();

    let response = gateway.get("/");

    assert_eq!(response.status, 504);
    assert!(
        response
            .text()
            .contains("The upstream server is timing out")
    );
    let took = watch.elapsed();
    assert!(
        took >= Duration::from_millis(490) && took < Duration::from_secs(4),
        "{took:?}"
    );
    assert!((3..=5).contains(&origin.count()), "{}", origin.count());
    assert!(gateway.metric("tollgate_replies_total{reason=\"total_timeout\"}") > 0.5);
    gateway.wait_for_access_log("\"error\":\"total_timeout\"");
}

#[test]
fn the_time_of_a_route_takes_the_place_of_the_services_and_none_is_none() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          url: {origin}
          retries: 0
          read_timeout: 900
          total_timeout: 100
          routes:
          - {{ name: short, paths: [/short] }}
          - {{ name: long, paths: [/long], total_timeout: 300 }}
          - {{ name: none, paths: [/none], total_timeout: 0 }}
        "
    ));

    for (path, least) in [("/short", 90), ("/long", 290), ("/none", 890)] {
        let watch = Stopwatch::start();
        assert_eq!(gateway.get(path).status, 504, "{path}");
        assert!(watch.elapsed() >= Duration::from_millis(least), "{path}");
    }
    let timeouts =
        |reason: &str| gateway.metric(&format!("tollgate_replies_total{{reason=\"{reason}\"}}"));
    assert!((timeouts("total_timeout") - 2.0).abs() < f64::EPSILON);
    assert!((timeouts("upstream_timeout") - 1.0).abs() < f64::EPSILON);
}

/// Also of a response whose head has begun, which no silence interrupts.
#[test]
fn a_head_that_drips_ends_in_time() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: "
                .iter()
                .chain([b'a'; 400].iter())
            {
                stream.write_all(&[*byte])?;
                Stopwatch::pace(Duration::from_millis(50));
            }
            Ok(())
        })
    });
    let gateway = retrying(&origin, 0, "total_timeout: 400");
    let watch = Stopwatch::start();

    assert_eq!(gateway.get("/").status, 504);

    let took = watch.elapsed();
    assert!(
        took >= Duration::from_millis(390) && took < Duration::from_secs(5),
        "{took:?}"
    );
    gateway.wait_for_access_log("\"error\":\"total_timeout\"");
}

/// The time of all tries is for the begin of the response only.
#[test]
fn a_body_may_take_longer_than_all_tries() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
            Stopwatch::pace(Duration::from_millis(900));
            stream.write_all(b"cd")
        })
    });
    let gateway = retrying(
        &origin,
        1,
        "total_timeout: 300\nretry: { per_try_timeout: 200 }",
    );

    let response = gateway.get("/");

    assert_eq!((response.status, response.text()), (200, "abcd".to_owned()));
}

/// A target that got what others left of the time is not to blame.
#[test]
fn a_target_that_was_given_no_time_stays_healthy() {
    let hangs = Origin::start(|_| Reply::never());
    let well = Origin::start(|_| {
        Stopwatch::pace(Duration::from_millis(300));
        Reply::ok("well")
    });
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          host: pool
          retries: 1
          total_timeout: 500
          retry: {{ per_try_timeout: 400, budget: 1 }}
          routes: [{{ name: orders, paths: [/] }}]
        upstreams:
        - name: pool
          healthchecks: {{ passive: {{ unhealthy: {{ timeouts: 1, http_failures: 1 }} }} }}
          targets: [{{ target: '{}', weight: 100 }}, {{ target: '{}', weight: 1 }}]
        ",
        hangs.authority(),
        well.authority()
    ));

    assert_eq!(gateway.get("/").status, 504);
    assert_eq!((hangs.count(), well.count()), (1, 1));

    assert_eq!(gateway.get("/").text(), "well");
}

/// Each try sends the body from its beginning, so it counts once.
#[test]
fn a_body_within_its_limit_stays_within_it_when_it_is_sent_again() {
    let origin = Origin::start(|request| {
        if request.number == 0 {
            Reply::status(503)
        } else {
            Reply::ok("second")
        }
    });
    let gateway = Gateway::start_with(
        "client_max_body_size: 6k",
        &format!(
            "
            services:
            - name: orders
              url: {origin}
              retries: 1
              retry: {{ statuses: [503], budget: 1 }}
              routes: [{{ name: orders, paths: [/] }}]
            "
        ),
    );
    let body = "x".repeat(4000);
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let mut client = gateway.connect();
    client.write(request).expect("written");

    let response = client.read_response().expect("an answer");

    assert_eq!(
        (response.status, response.text()),
        (200, "second".to_owned())
    );
    assert_eq!(origin.count(), 2);
}

#[test]
fn waiting_for_a_connection_counts_into_the_time_of_all_tries() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: orders, host: pool, retries: 0, total_timeout: 300, routes: [{{ name: orders, paths: [/] }}, {{ name: patient, paths: [/patient], total_timeout: 0 }}] }}
        upstreams:
        - {{ name: pool, max_connections: 1, targets: [{{ target: '{}' }}] }}
        ",
        origin.authority()
    ));
    let mut first = Client::connect(gateway.port());
    first
        .write(Request::get("/patient").bytes())
        .expect("written");
    origin.wait_until("the first request", |requests| !requests.is_empty());
    let watch = Stopwatch::start();

    let response = gateway.get("/");

    assert_eq!(response.status, 504);
    assert!(watch.elapsed() < MINUTE / 4);
    assert_eq!(origin.count(), 1);
}

/// A try begins when there is a place for it.
#[test]
fn waiting_for_a_connection_is_no_part_of_the_time_of_a_try() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        if request.number == 0 {
            return Reply::ok("late").after(&held);
        }
        Stopwatch::pace(Duration::from_millis(600));
        Reply::ok("in time")
    });
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          host: pool
          retries: 0
          retry: {{ per_try_timeout: 900 }}
          routes:
          - {{ name: orders, paths: [/] }}
          - {{ name: patient, paths: [/patient], retry: {{ per_try_timeout: 0 }} }}
        upstreams:
        - {{ name: pool, max_connections: 1, targets: [{{ target: '{}' }}] }}
        ",
        origin.authority()
    ));
    let mut first = Client::connect(gateway.port());
    first
        .write(Request::get("/patient").bytes())
        .expect("written");
    origin.wait_until("the first request", |requests| !requests.is_empty());
    let mut second = Client::connect(gateway.port());
    second.write(Request::get("/").bytes()).expect("written");
    Stopwatch::pace(Duration::from_millis(600));
    gate.open();

    assert_eq!(first.read_response().expect("an answer").text(), "late");
    let response = second.read_response().expect("an answer");
    assert_eq!(
        (response.status, response.text()),
        (200, "in time".to_owned())
    );
}

/// The repetition of a try on a connection that was closed meanwhile goes on a new one, though there
/// are more of the same kind in the pool.
#[test]
fn a_stale_connection_is_never_followed_by_another() {
    let served = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |request| {
        let order = std::sync::atomic::Ordering::SeqCst;
        let is_first = served.fetch_max(request.connection + 1, order) <= request.connection;
        if request.target == "/warm" {
            // All at once, so that each has a connection of its own.
            Stopwatch::pace(Duration::from_millis(200));
            Reply::ok("warm")
        } else if is_first {
            Reply::ok("fresh")
        } else {
            Reply::close()
        }
    });
    let gateway = retrying(&origin, 0, "");
    let warm = gateway.concurrently(6, |client| client.send(&Request::get("/warm")).status);
    assert_eq!(warm, [200; 6]);

    for method in IDEMPOTENT.iter().filter(|method| **method != "HEAD") {
        let response = gateway.send(&Request::new(method, "/"));
        assert_eq!(response.text(), "fresh", "{method}");
    }
}
