//! `rate-limiting`: how many, whose, and what the client is told.

use crate::harness::{
    Gateway, Origin, Reply, Request, Response, check, one_service_and, wait_until,
};

/// Long periods, so that no window ends while a test runs.
fn limited(origin: &Origin, config: &str) -> Gateway {
    limited_with("", origin, config)
}

fn limited_with(settings: &str, origin: &Origin, config: &str) -> Gateway {
    let plugin = format!("plugins:\n- {{ name: rate-limiting, config: {{ {config} }} }}");
    Gateway::start_with(settings, &one_service_and(origin, &plugin))
}

fn number(response: &Response, name: &str) -> Option<u64> {
    response
        .header(name)
        .map(|value| value.parse().expect("rate-limit headers are whole numbers"))
}

fn statuses(gateway: &Gateway, request: &Request, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.send(request).status).collect()
}

/// S20
#[test]
fn the_request_after_the_limit_is_a_429_with_its_headers() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 3, limit_by: ip");

    for left in [2, 1, 0] {
        let response = gateway.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(number(&response, "X-RateLimit-Limit-Year"), Some(3));
        assert_eq!(number(&response, "X-RateLimit-Remaining-Year"), Some(left));
        assert_eq!(number(&response, "RateLimit-Limit"), Some(3));
        assert_eq!(number(&response, "RateLimit-Remaining"), Some(left));
        assert!(
            number(&response, "RateLimit-Reset")
                .is_some_and(|seconds| (1..=366 * 86_400).contains(&seconds))
        );
        assert!(response.header("Retry-After").is_none());
    }

    let refused = gateway.get("/");
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (429, "API rate limit exceeded")
    );
    assert_eq!(number(&refused, "X-RateLimit-Remaining-Year"), Some(0));
    assert_eq!(
        refused.header("Retry-After"),
        refused.header("RateLimit-Reset")
    );
    assert_eq!(origin.count(), 3);
}

/// S24
#[test]
fn several_windows_count_together_and_the_tightest_is_told() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "day: 2, year: 10, limit_by: ip");

    let first = gateway.get("/");
    assert_eq!(number(&first, "X-RateLimit-Remaining-Day"), Some(1));
    assert_eq!(number(&first, "X-RateLimit-Remaining-Year"), Some(9));
    assert_eq!(
        (
            number(&first, "RateLimit-Limit"),
            number(&first, "RateLimit-Remaining")
        ),
        (Some(2), Some(1))
    );
    assert!(number(&first, "RateLimit-Reset").is_some_and(|seconds| seconds <= 86_400));

    assert_eq!(gateway.get("/").status, 200);
    for _ in 0..3 {
        let refused = gateway.get("/");
        assert_eq!(refused.status, 429);
        assert_eq!(number(&refused, "X-RateLimit-Remaining-Day"), Some(0));
        assert_eq!(
            number(&refused, "X-RateLimit-Remaining-Year"),
            Some(8),
            "a refusal counts for no window"
        );
    }
}

#[test]
fn every_period_has_its_name_in_the_headers() {
    let origin = Origin::replying("hello");
    let config = "second: 10, minute: 20, hour: 30, day: 40, month: 50, year: 60, limit_by: ip";

    let response = limited(&origin, config).get("/");

    for (period, limit) in [
        ("Second", 10),
        ("Minute", 20),
        ("Hour", 30),
        ("Day", 40),
        ("Month", 50),
        ("Year", 60),
    ] {
        assert_eq!(
            number(&response, &format!("X-RateLimit-Limit-{period}")),
            Some(limit)
        );
        assert_eq!(
            number(&response, &format!("X-RateLimit-Remaining-{period}")),
            Some(limit - 1)
        );
    }
}

#[test]
fn a_window_ends_with_its_second() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "second: 1, limit_by: ip");

    wait_until("a second that is used up", || {
        gateway.get("/").status == 429
    });

    wait_until("the next second", || gateway.get("/").status == 200);
}

#[test]
fn exactly_the_limit_passes_of_many_requests_at_once() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 50, limit_by: ip");

    let outcomes = gateway.concurrently(8, |client| {
        (0..25)
            .filter(|_| client.send(&Request::get("/")).status == 200)
            .count()
    });

    assert_eq!((outcomes.iter().sum::<usize>(), origin.count()), (50, 50));
}

/// S25, S69
#[test]
fn a_request_refused_by_authentication_consumes_nothing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - name: key-auth
        - { name: rate-limiting, config: { year: 1, limit_by: ip } }
        consumers:
        - { username: alice, keyauth_credentials: [{ key: alice-key }] }
        ",
    ));
    let wrong = Request::get("/").header("apikey", "wrong");
    let right = Request::get("/").header("apikey", "alice-key");

    for _ in 0..5 {
        let refused = gateway.send(&wrong);
        assert_eq!(
            (refused.status, refused.header("X-RateLimit-Limit-Year")),
            (401, None)
        );
    }
    assert_eq!(statuses(&gateway, &right, 2), [200, 429]);
}

/// S21, S22
#[test]
fn consumers_count_apart_and_without_one_the_address_counts() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - { name: key-auth, config: { anonymous: guest } }
        - { name: rate-limiting, config: { year: 2 } }
        consumers:
        - { username: alice, keyauth_credentials: [{ key: a1 }, { key: a2 }] }
        - { username: bob, keyauth_credentials: [{ key: b1 }] }
        - { username: guest }
        ",
    ));
    let visit = |key: &str| {
        gateway
            .send(&Request::get("/").header("apikey", key))
            .status
    };

    assert_eq!(
        [visit("a1"), visit("a2"), visit("a1"), visit("a2")],
        [200, 200, 429, 429],
        "one consumer, two keys"
    );
    assert_eq!([visit("b1"), visit("b1"), visit("b1")], [200, 200, 429]);

    let open = limited(&origin, "year: 1");
    assert_eq!(
        statuses(&open, &Request::get("/"), 2),
        [200, 429],
        "no consumer: the address counts"
    );
}

/// S21
#[test]
fn credentials_count_apart_when_asked_to() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - name: key-auth
        - { name: rate-limiting, config: { year: 1, limit_by: credential } }
        consumers:
        - { username: alice, keyauth_credentials: [{ key: a1 }, { key: a2 }] }
        ",
    ));
    let visit = |key: &str| {
        gateway
            .send(&Request::get("/").header("apikey", key))
            .status
    };

    assert_eq!(
        [visit("a1"), visit("a2"), visit("a1"), visit("a2")],
        [200, 200, 429, 429]
    );
}

/// S20, S27
#[test]
fn a_client_cannot_choose_its_address_but_a_trusted_proxy_can() {
    let origin = Origin::replying("hello");
    let from = |address: &str| {
        Request::get("/")
            .header("X-Real-IP", address)
            .header("X-Forwarded-For", address)
    };

    let wary = limited(&origin, "year: 1, limit_by: ip");
    assert_eq!(
        [
            wary.send(&from("10.0.0.1")).status,
            wary.send(&from("10.0.0.2")).status
        ],
        [200, 429]
    );

    let trusting = limited_with("trusted_ips: 127.0.0.1", &origin, "year: 1, limit_by: ip");
    let visits = ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1", "10.0.0.2"]
        .map(|ip| trusting.send(&from(ip)).status);
    assert_eq!(
        visits,
        [200, 200, 429, 429],
        "an IPv4-mapped address equals its IPv4 form"
    );
}

#[test]
fn header_values_count_apart_and_without_the_header_the_address_counts() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 1, limit_by: header, header_name: X-Tenant");
    let tenant = |name: &str| {
        gateway
            .send(&Request::get("/").header("X-Tenant", name))
            .status
    };

    assert_eq!([tenant("a"), tenant("b"), tenant("a")], [200, 200, 429]);
    assert_eq!(
        [gateway.get("/").status, gateway.get("/").status],
        [200, 429]
    );
    assert_eq!(tenant(&"long".repeat(1500)), 200);
}

#[test]
fn one_path_can_share_a_bucket_of_its_own() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 1, limit_by: path, path: /search");

    let visits =
        ["/search", "/search?q=1", "/search/more", "/other"].map(|path| gateway.get(path).status);

    assert_eq!(
        visits,
        [200, 429, 200, 429],
        "other paths share the address's bucket"
    );
}

#[test]
fn a_service_can_have_one_bucket_for_all() {
    let origin = Origin::replying("hello");
    let gateway = limited_with(
        "trusted_ips: 127.0.0.1",
        &origin,
        "year: 2, limit_by: service",
    );

    let visits = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| {
        gateway
            .send(&Request::get("/").header("X-Real-IP", ip))
            .status
    });

    assert_eq!(visits, [200, 200, 429]);
}

/// S25
#[test]
fn the_scope_of_the_plugin_is_part_of_the_bucket() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: together
          url: {origin}
          plugins: [{{ name: rate-limiting, config: {{ year: 2, limit_by: ip }} }}]
          routes:
          - {{ name: a, paths: [/a] }}
          - {{ name: b, paths: [/b] }}
        - name: apart
          url: {origin}
          routes:
          - {{ name: c, paths: [/c], plugins: [{{ name: rate-limiting, config: {{ year: 1, limit_by: ip }} }}] }}
          - {{ name: d, paths: [/d], plugins: [{{ name: rate-limiting, config: {{ year: 1, limit_by: ip }} }}] }}
        "
    ));

    assert_eq!(
        ["/a", "/b", "/a"].map(|path| gateway.get(path).status),
        [200, 200, 429]
    );
    assert_eq!(
        ["/c", "/d", "/c", "/d"].map(|path| gateway.get(path).status),
        [200, 200, 429, 429]
    );
}

#[test]
fn headers_can_be_hidden_and_the_answer_be_chosen() {
    let origin = Origin::replying("hello");
    let config = "year: 1, limit_by: ip, hide_client_headers: true, error_code: 418, error_message: too much tea";
    let gateway = limited(&origin, config);

    let (admitted, refused) = (gateway.get("/"), gateway.get("/"));

    assert_eq!(
        (admitted.status, refused.status, refused.message().as_str()),
        (200, 418, "too much tea")
    );
    for response in [&admitted, &refused] {
        for name in [
            "X-RateLimit-Limit-Year",
            "X-RateLimit-Remaining-Year",
            "RateLimit-Limit",
            "RateLimit-Reset",
            "Retry-After",
        ] {
            assert!(response.header(name).is_none(), "{name}");
        }
    }
}

#[test]
fn headers_of_the_origin_are_overwritten() {
    let origin = Origin::start(|_| {
        Reply::ok("hello")
            .header("X-RateLimit-Limit-Year", "999")
            .header("RateLimit-Remaining", "999")
    });

    let response = limited(&origin, "year: 7, limit_by: ip").get("/");

    assert_eq!(response.headers("X-RateLimit-Limit-Year"), ["7"]);
    assert_eq!(response.headers("RateLimit-Remaining"), ["6"]);
}

#[test]
fn every_method_and_every_status_of_the_origin_counts() {
    let origin = Origin::start(|_| Reply::status(500));
    let gateway = limited(&origin, "year: 3, limit_by: ip");

    let statuses = ["HEAD", "OPTIONS", "POST", "GET"]
        .map(|method| gateway.send(&Request::new(method, "/")).status);

    assert_eq!(statuses, [500, 500, 500, 429]);
}

#[test]
fn requests_without_a_route_are_not_limited() {
    let origin = Origin::replying("hello");
    let plugin = "plugins:\n- { name: rate-limiting, config: { year: 1, limit_by: ip } }";
    let gateway =
        Gateway::start(&one_service_and(&origin, plugin).replace("paths: [/]", "paths: [/a]"));

    assert_eq!(statuses(&gateway, &Request::get("/nowhere"), 3), [404; 3]);
    assert_eq!(statuses(&gateway, &Request::get("/a"), 2), [200, 429]);
}

#[test]
fn a_fraction_rejects_once_it_is_used_up() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 0.5, limit_by: ip");

    assert_eq!(statuses(&gateway, &Request::get("/"), 3), [200, 429, 429]);
}

#[test]
fn a_grpc_client_is_told_in_its_own_way() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 1, limit_by: ip");
    assert_eq!(gateway.get("/").status, 200);

    let refused =
        gateway.send(&Request::post("/a.B/C", "").header("Content-Type", "application/grpc"));

    assert_eq!(
        (
            refused.status,
            refused.header("grpc-status"),
            refused.body.len()
        ),
        (200, Some("8"), 0)
    );
}

/// S53
#[test]
fn counts_survive_a_reload() {
    let origin = Origin::replying("hello");
    let document = |tag: &str| {
        let plugin = format!(
            "plugins:\n- {{ name: rate-limiting, tags: [{tag}], config: {{ year: 2, limit_by: ip }} }}"
        );
        one_service_and(&origin, &plugin)
    };
    let gateway = Gateway::start(&document("before"));
    assert_eq!(gateway.get("/").status, 200);

    gateway.reload(&document("after"));

    assert_eq!(statuses(&gateway, &Request::get("/"), 2), [200, 429]);
}

/// S06
#[test]
fn refusals_are_counted_by_reason() {
    let origin = Origin::replying("hello");
    let gateway = limited(&origin, "year: 1, limit_by: ip");

    statuses(&gateway, &Request::get("/"), 3);

    let counted = gateway.metric("tollgate_replies_total{reason=\"rate_limited\"}");
    assert!((counted - 2.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    for (config, word) in [
        ("limit_by: ip", "minute"),
        ("minute: 0", "minute"),
        ("minute: -1", "minute"),
        ("minute: 10, hour: 5", "hour"),
        ("minute: 10, policy: cluster", "policy"),
        ("minute: 10, policy: redis", "redis"),
        ("minute: 10, limit_by: header", "header_name"),
        ("minute: 10, limit_by: path", "path"),
        ("minute: 10, limit_by: mood", "limit_by"),
        ("minute: 10, burst: 5", "burst"),
        ("minuet: 10", "minuet"),
        ("minute: '10'", "minute"),
    ] {
        let document = format!(
            "_format_version: \"3.0\"\nplugins:\n- {{ name: rate-limiting, config: {{ {config} }} }}\n"
        );
        let outcome = check(&document);
        assert!(outcome.code.is_some_and(|code| code != 0), "{config}");
        assert!(
            outcome.stderr.contains("gateway.yaml:3:"),
            "{config}: {}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains(word),
            "{config}: {}",
            outcome.stderr
        );
    }
}
