//! Secrets are planted wherever a configuration and a request may hold one, and then looked for
//! wherever the gateway says anything. Each begins with the same word, which nothing else contains.

use crate::harness::{
    Blueprint, Gateway, Origin, Received, Reply, Request, Response, check, dedent, tollgate,
    wait_until,
};

/// The word that every planted secret holds.
const MARK: &str = "pl4nted";

fn document(origin: &Origin) -> String {
    dedent(&format!(
        "
        services:
        - name: orders
          host: pool
          routes:
          - {{ name: orders, paths: [/orders], plugins: [{{ name: key-auth, config: {{ key_in_body: true, hide_credentials: true }} }}] }}
          - {{ name: open, paths: [/open] }}
        upstreams:
        - name: pool
          healthchecks:
            active:
              headers: {{ Authorization: ['Bearer {MARK}-probe'] }}
              healthy: {{ interval: 0.2, successes: 1 }}
              unhealthy: {{ interval: 0.2, http_failures: 1 }}
          targets:
          - {{ target: '127.0.0.1:{}' }}
        consumers:
        - username: alice
          keyauth_credentials: [{{ key: {MARK}-written }}]
        - username: bob
          keyauth_credentials: [{{ key: '{{vault://env/bobs-key}}' }}]
        - username: carol
          keyauth_credentials: [{{ key: '${{{{ env \"DECK_CAROLS_KEY\" }}}}' }}]
        plugins:
        - {{ name: prometheus, config: {{ status_code_metrics: true, per_consumer: true, upstream_health_metrics: true }} }}
        - {{ name: rate-limiting, config: {{ minute: 100000, policy: local, redis: {{ host: 127.0.0.1, password: {MARK}-redis, username: {MARK}-user }} }} }}
        ",
        origin.port()
    ))
}

fn start(access_log: &str, origin: &Origin) -> Gateway {
    Blueprint::new(&format!(
        "log_level: debug\naccess_log: {access_log}\nallow_debug_header: on\nclient_max_body_size: 1k"
    ))
    .with_variable("BOBS_KEY", format!("{MARK}-vault"))
    .with_variable("DECK_CAROLS_KEY", format!("{MARK}-deck"))
    .start(&document(origin))
}

#[track_caller]
fn expect_no_secret(place: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(MARK));
    assert_eq!(line, None, "{place} shows a secret");
}

/// Requests with secrets in every place, good ones and bad ones. Gives the answers.
fn visit(gateway: &Gateway) -> Vec<Response> {
    let secret = |name: &str| format!("{MARK}-{name}");
    let form = "application/x-www-form-urlencoded";
    let mut answers = Vec::new();
    for key in ["written", "vault", "deck", "wrong"] {
        let key = secret(key);
        for accept in [
            "application/json",
            "text/html",
            "text/plain",
            "application/xml",
        ] {
            answers.push(
                gateway.send(
                    &Request::get("/orders")
                        .header("apikey", &key)
                        .header("Accept", accept),
                ),
            );
        }
        answers.push(gateway.get(&format!("/orders?a=b&apikey={key}&c=d")));
        answers.push(gateway.get(&format!("/orders?apikey={key}&apikey={key}-2")));
        answers.push(gateway.get(&format!("/nowhere?apikey={key}")));
        answers.push(
            gateway.send(
                &Request::post("/orders", format!("apikey={key}")).header("Content-Type", form),
            ),
        );
    }
    for target in ["/orders", "/open", "/nowhere"] {
        answers.push(
            gateway.send(
                &Request::get(target)
                    .header("Authorization", &format!("Bearer {}", secret("bearer")))
                    .header("Proxy-Authorization", &secret("proxy"))
                    .header("Cookie", &format!("session={}", secret("cookie")))
                    .header("Kong-Debug", "1"),
            ),
        );
    }
    // What never becomes a request, and what ends early.
    for head in [
        format!(
            "GET /open HTTP/1.1\r\nAuthorization: {}\r\n\r\n",
            secret("no-host")
        ),
        format!(
            "GET /open HTTP/1.1\r\nHost: a\r\nAuthorization : {}\r\n\r\n",
            secret("blank")
        ),
        format!(
            "GET /open?apikey={} HTTP/7\r\nHost: a\r\n\r\n",
            secret("version")
        ),
        format!(
            "{} /open HTTP/1.1\r\nHost: {}@a\r\n\r\n",
            "GET",
            secret("userinfo")
        ),
        format!(
            "GET /open\x01{} HTTP/1.1\r\nHost: a\r\n\r\n",
            secret("target")
        ),
        format!(
            "GET /open HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n",
            secret("long").repeat(2000)
        ),
        format!(
            "POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
            secret("chunk")
        ),
        format!(
            "POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{}",
            secret("body")
        ),
    ] {
        let mut client = gateway.connect();
        let _ = client.write(head);
        answers.extend(client.read_response());
    }
    answers
}

#[test]
fn no_secret_is_in_logs_metrics_admin_pages_or_answers() {
    for format in ["stdout", "stdout plain"] {
        let origin = Origin::start(|request| {
            Reply::ok(format!(
                "{} {}",
                request.method,
                request.target.split('?').next().unwrap_or_default()
            ))
        });
        let gateway = start(format, &origin);

        let answers = visit(&gateway);

        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        for expected in [200, 400, 401, 404, 413] {
            assert!(
                statuses.contains(&expected),
                "no {expected} among {statuses:?}"
            );
        }
        for answer in &answers {
            expect_no_secret(
                "the head of an answer",
                &String::from_utf8_lossy(&answer.head.raw),
            );
            expect_no_secret("the body of an answer", &answer.text());
        }
        wait_until("a line for each request", || {
            gateway.access_log().lines().count() >= answers.len()
        });
        expect_no_secret("the access log", &gateway.access_log());
        for path in [
            "/metrics",
            "/status",
            "/status/ready",
            "/status/upstreams",
            "/health",
            "/usage",
            "/config",
        ] {
            expect_no_secret(path, &gateway.admin(path).text());
        }
        // A refused change is told with its mistakes, and so is one that is applied.
        let good = document(&origin);
        let bad = good.replace("minute: 100000", "minute: many");
        gateway.refusing_configuration(|| gateway.replace(&bad));
        expect_no_secret("/status", &gateway.admin("/status").text());
        gateway.reload(&good.replace("minute: 100000", "minute: 100001"));
        expect_no_secret("the log", &gateway.log());
        assert!(
            gateway.log().contains("DEBUG"),
            "also what is only for debugging"
        );
        origin.wait_until("the secret of the probes in use", |requests| {
            let of_probe = |request: &Received| {
                let value = request.header("Authorization");
                value.is_some_and(|value| value.ends_with("-probe"))
            };
            requests.iter().any(of_probe)
        });
    }
}

#[test]
fn a_key_that_was_accepted_does_not_go_upstream_when_it_is_hidden() {
    let origin = Origin::replying("hello");
    let gateway = start("off", &origin);
    let key = format!("{MARK}-written");
    for request in [
        Request::get("/orders").header("apikey", &key),
        Request::get(&format!("/orders?a=b&apikey={key}")),
        Request::post("/orders", format!("a=b&apikey={key}"))
            .header("Content-Type", "application/x-www-form-urlencoded"),
    ] {
        let before = origin.count();
        assert_eq!(gateway.send(&request).status, 200);
        let received = origin.requests().split_off(before);
        let forwarded = received
            .iter()
            .find(|request| request.header("X-Consumer-Username").is_some())
            .expect("the request, among probes");
        expect_no_secret(
            "the head upstream",
            &String::from_utf8_lossy(&forwarded.head.raw),
        );
        expect_no_secret("the body upstream", &forwarded.text());
    }
}

#[test]
fn no_secret_of_the_configuration_is_in_an_explanation() {
    let origin = Origin::replying("hello");
    let gateway = start("off", &origin);
    let admin = format!("http://127.0.0.1:{}", gateway.admin_port());
    for format in ["text", "json"] {
        for consumer in ["alice", "bob", "carol"] {
            let outcome = tollgate(
                gateway.folder(),
                &[
                    "explain",
                    "--admin",
                    &admin,
                    "--format",
                    format,
                    "--consumer",
                    consumer,
                    "GET",
                    "/orders",
                ],
            );
            assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
            expect_no_secret("an explanation", &outcome.stdout);
            expect_no_secret("what explain says besides", &outcome.stderr);
        }
    }
}

#[test]
fn no_secret_is_in_a_diagnostic() {
    for (case, yaml) in [
        (
            "a key of the wrong type",
            format!("consumers: [{{username: a, keyauth_credentials: [{{key: [{MARK}]}}]}}]"),
        ),
        (
            "the same key twice",
            format!(
                "consumers:\n- {{username: a, keyauth_credentials: [{{key: {MARK}}}]}}\n- {{username: b, keyauth_credentials: [{{key: {MARK}}}]}}"
            ),
        ),
        (
            "an unknown field beside a key",
            format!(
                "consumers: [{{username: a, keyauth_credentials: [{{key: {MARK}, kye: {MARK}}}]}}]"
            ),
        ),
        (
            "a key without consumer",
            format!("keyauth_credentials: [{{key: {MARK}, consumer: nobody}}]"),
        ),
        (
            "a password in a URL",
            format!("services: [{{name: a, url: 'http://user:{MARK}@a.test:x/'}}]"),
        ),
        (
            "a password in a good URL",
            format!("services: [{{name: a, url: 'http://user:{MARK}@a.test/'}}]"),
        ),
        (
            "a password of redis of the wrong type",
            format!(
                "plugins: [{{name: rate-limiting, config: {{minute: 1, redis: {{password: [{MARK}]}}}}}}]"
            ),
        ),
        (
            "a key in broken YAML",
            format!("consumers:\n- username: a\n  keyauth_credentials:\n  - key: \"{MARK}\n"),
        ),
    ] {
        let outcome = check(&format!("_format_version: \"3.0\"\n{yaml}\n"));
        assert_eq!(outcome.code, Some(1), "{case}: {}", outcome.stderr);
        expect_no_secret(case, &outcome.stderr);
        expect_no_secret(case, &outcome.stdout);
    }
}
