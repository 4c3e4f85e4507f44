//! `prometheus`: request series by service, route, status and consumer.

use crate::harness::{
    Gateway, Origin, Reply, Request, Stopwatch, check, free_port, one_service, one_service_and,
    wait_until,
};

const ALL: &str = "status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, upstream_health_metrics: true";

fn measured(origin: &Origin, config: &str) -> Gateway {
    let plugin = format!("plugins:\n- {{ name: prometheus, config: {{ {config} }} }}");
    Gateway::start(&one_service_and(origin, &plugin))
}

/// A request is measured when it has ended, which may be a moment after its response.
fn wait_for_value(gateway: &Gateway, selector: &str, value: f64) {
    wait_until(&format!("{selector} {value}"), || {
        (gateway.metric(selector) - value).abs() < f64::EPSILON
    });
}

/// S47
#[test]
fn requests_are_counted_by_service_route_and_status() {
    let origin =
        Origin::start(|request| Reply::status(if request.target == "/bad" { 500 } else { 200 }));
    let gateway = measured(&origin, "status_code_metrics: true");

    for path in ["/", "/", "/bad"] {
        gateway.get(path);
    }

    let series = "tollgate_http_requests_total{service=\"orders\",route=\"orders\",source=\"service\",workspace=\"default\",consumer=\"\"";
    wait_for_value(&gateway, &format!("{series},code=\"200\"}}"), 2.0);
    wait_for_value(&gateway, &format!("{series},code=\"500\"}}"), 1.0);
}

#[test]
fn answers_of_the_gateway_have_another_source() {
    let gateway = Gateway::start(&format!(
        "
        plugins:
        - {{ name: prometheus, config: {{ status_code_metrics: true }} }}
        services:
        - {{ name: dead, url: 'http://127.0.0.1:{}', retries: 0, routes: [{{ name: dead, paths: [/dead] }}] }}
        ",
        free_port()
    ));

    gateway.get("/dead");
    gateway.get("/nowhere");

    let series = "tollgate_http_requests_total{source=\"tollgate\"";
    wait_for_value(
        &gateway,
        &format!("{series},service=\"dead\",route=\"dead\",code=\"502\"}}"),
        1.0,
    );
    wait_for_value(
        &gateway,
        &format!("{series},service=\"\",route=\"\",code=\"404\"}}"),
        1.0,
    );
}

/// S47
#[test]
fn latencies_are_histograms_with_kongs_buckets() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            use std::io::Write;
            Stopwatch::pace(std::time::Duration::from_millis(120));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        })
    });
    let gateway = measured(&origin, "latency_metrics: true");

    gateway.get("/");

    for (name, buckets) in [
        (
            "tollgate_gateway_latency_ms",
            "1 2 5 7 10 15 20 30 50 75 100 200 500 750 1000 3000 6000 +Inf",
        ),
        ("tollgate_upstream_latency_ms", UPSTREAM_BUCKETS),
        ("tollgate_request_latency_ms", UPSTREAM_BUCKETS),
    ] {
        wait_for_value(
            &gateway,
            &format!("{name}_count{{service=\"orders\",route=\"orders\"}}"),
            1.0,
        );
        let metrics = gateway.metrics();
        let selector = format!("{name}_bucket{{service=\"orders\"}}");
        let bounds: Vec<&str> = metrics
            .select(&selector)
            .map(|sample| sample.labels["le"].as_str())
            .collect();
        assert_eq!(bounds.join(" "), buckets, "{name}");
        assert!(
            metrics.select(&format!("{name}_sum")).count() == 1,
            "{name}"
        );
    }
    assert!(gateway.metric("tollgate_upstream_latency_ms_sum") >= 115.0);
    assert!(gateway.metric("tollgate_upstream_latency_ms_bucket{le=\"100\"}") < 0.5);
}

const UPSTREAM_BUCKETS: &str = "25 50 80 100 250 400 700 1000 2000 5000 10000 30000 60000 +Inf";

#[test]
fn upstream_latency_is_absent_for_requests_that_reached_no_origin() {
    let gateway = Gateway::start(
        "
        plugins:
        - { name: prometheus, config: { latency_metrics: true } }
        - { name: request-termination, config: { status_code: 200 } }
        routes:
        - { name: lonely, paths: [/] }
        ",
    );

    gateway.get("/");

    wait_for_value(
        &gateway,
        "tollgate_request_latency_ms_count{route=\"lonely\"}",
        1.0,
    );
    assert!(gateway.metric("tollgate_upstream_latency_ms_count{route=\"lonely\"}") < 0.5);
}

#[test]
fn bandwidth_counts_what_crosses_the_clients_connection() {
    let origin = Origin::start(|_| Reply::ok(vec![b'x'; 50_000]));
    let gateway = measured(&origin, "bandwidth_metrics: true");

    gateway.send(&Request::post("/", vec![b'y'; 20_000]));

    let bytes = |direction: &str| {
        gateway.metric(&format!(
            "tollgate_bandwidth_bytes{{route=\"orders\",direction=\"{direction}\"}}"
        ))
    };
    wait_until("both directions", || {
        bytes("egress") > 0.0 && bytes("ingress") > 0.0
    });
    assert!(
        (50_000.0..52_000.0).contains(&bytes("egress")),
        "{}",
        bytes("egress")
    );
    assert!(
        (20_000.0..21_000.0).contains(&bytes("ingress")),
        "{}",
        bytes("ingress")
    );
}

/// S48
#[test]
fn consumers_are_a_label_when_asked_for() {
    let origin = Origin::replying("hello");
    let document = |per_consumer: bool| {
        one_service_and(
            &origin,
            &format!(
                "
                plugins:
                - name: key-auth
                - {{ name: prometheus, config: {{ status_code_metrics: true, per_consumer: {per_consumer} }} }}
                consumers:
                - {{ username: alice, keyauth_credentials: [{{ key: alice-key }}] }}
                "
            ),
        )
    };
    for (per_consumer, label) in [(true, "alice"), (false, "")] {
        let gateway = Gateway::start(&document(per_consumer));
        gateway.send(&Request::get("/").header("apikey", "alice-key"));
        wait_for_value(
            &gateway,
            &format!("tollgate_http_requests_total{{code=\"200\",consumer=\"{label}\"}}"),
            1.0,
        );
    }
}

#[test]
fn nothing_is_measured_unless_switched_on() {
    let origin = Origin::replying("hello");
    let gateway = measured(&origin, "");

    gateway.get("/");
    gateway.get("/");

    let names = gateway.metrics();
    for family in [
        "tollgate_http_requests_total",
        "tollgate_request_latency_ms_count",
        "tollgate_bandwidth_bytes",
        "tollgate_upstream_target_health",
    ] {
        assert!(!names.names().contains(family), "{family}");
    }
}

#[test]
fn the_health_of_targets_is_one_of_four_states() {
    let gateway = Gateway::start(&format!(
        "
        plugins:
        - {{ name: prometheus, config: {{ {ALL} }} }}
        upstreams:
        - {{ name: pool, targets: [{{ target: '127.0.0.1:9001' }}] }}
        "
    ));
    let metrics = gateway.metrics();
    let series = "tollgate_upstream_target_health{upstream=\"pool\",target=\"127.0.0.1:9001\"";

    let states: Vec<_> = metrics.select(&format!("{series}}}")).collect();
    assert_eq!(states.len(), 4, "{}", metrics.text);
    assert!(
        (metrics.sum(&format!("{series},state=\"healthchecks_off\"}}")) - 1.0).abs() < f64::EPSILON
    );
    assert!(
        (metrics.sum(&format!("{series}}}")) - 1.0).abs() < f64::EPSILON,
        "exactly one state holds"
    );
}

/// S48: nothing that a client sends becomes a label.
#[test]
fn labels_come_from_the_configuration_only() {
    let origin = Origin::replying("hello");
    let gateway = measured(&origin, ALL);

    for number in 0..20 {
        gateway.send(
            &Request::new("PURGE", &format!("/secret-path-{number}"))
                .host(&format!("secret-host-{number}.test")),
        );
    }

    wait_for_value(&gateway, "tollgate_http_requests_total", 20.0);
    let metrics = gateway.metrics();
    assert!(!metrics.text.contains("secret-") && !metrics.text.contains("PURGE"));
    assert_eq!(metrics.select("tollgate_http_requests_total").count(), 1);
}

#[test]
fn series_of_removed_entities_are_gone_and_the_others_go_on() {
    let (origin, plugin) = (
        Origin::replying("hello"),
        "plugins:\n- { name: prometheus, config: { status_code_metrics: true } }\n",
    );
    let both = format!(
        "{plugin}{}\n- {{ name: extra, url: '{origin}', routes: [{{ name: extra, paths: [/extra] }}] }}\n",
        one_service(&origin)
    );
    let gateway = Gateway::start(&both);
    gateway.get("/");
    gateway.get("/extra");
    wait_for_value(
        &gateway,
        "tollgate_http_requests_total{service=\"extra\"}",
        1.0,
    );

    gateway.reload(&format!("{plugin}{}", one_service(&origin)));

    // They go with the snapshot, which is freed after the new one is live.
    wait_until("the series to be gone", || {
        !gateway.metrics().text.contains("extra")
    });
    wait_for_value(
        &gateway,
        "tollgate_http_requests_total{service=\"orders\"}",
        1.0,
    );
}

#[test]
fn the_names_of_kong_can_be_had() {
    let origin = Origin::replying("hello");
    let gateway = measured(&origin, &format!("namespace: kong, {ALL}"));

    gateway.get("/");

    wait_for_value(
        &gateway,
        "kong_http_requests_total{service=\"orders\",code=\"200\",source=\"service\"}",
        1.0,
    );
    for series in [
        "kong_kong_latency_ms_count",
        "kong_upstream_latency_ms_count",
        "kong_request_latency_ms_count",
    ] {
        wait_for_value(&gateway, &format!("{series}{{service=\"orders\"}}"), 1.0);
    }
}

#[test]
fn instances_that_disagree_about_the_namespace_are_refused() {
    let outcome = check(
        "_format_version: \"3.0\"\nservices:\n- { name: a, host: a.test, plugins: [{ name: prometheus, config: { namespace: kong } }] }\n- { name: b, host: b.test, plugins: [{ name: prometheus, config: { namespace: tollgate } }] }\n",
    );

    assert!(outcome.code.is_some_and(|code| code != 0));
    assert!(outcome.stderr.contains("namespace"), "{}", outcome.stderr);
}
