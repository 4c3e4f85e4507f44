//! `request-termination`: answering without an origin.

use crate::harness::{Gateway, Origin, Request, Response, check, one_service_and};

fn terminated(config: &str) -> (Gateway, Origin) {
    let origin = Origin::replying("hello");
    let plugin = format!("plugins:\n- {{ name: request-termination, config: {{ {config} }} }}");
    (Gateway::start(&one_service_and(&origin, &plugin)), origin)
}

/// The answer to a plain GET, which no origin saw.
fn answer(config: &str) -> Response {
    let (gateway, origin) = terminated(config);
    let response = gateway.get("/");
    assert_eq!(origin.count(), 0);
    response
}

#[test]
fn by_default_the_service_is_unavailable() {
    let response = answer("");

    assert_eq!(
        (response.status, response.message().as_str()),
        (503, "Service unavailable")
    );
}

#[test]
fn a_message_is_wrapped_as_json() {
    let response = answer("status_code: 410, message: 'gone for \"good\"'");

    assert_eq!(
        (response.status, response.message().as_str()),
        (410, "gone for \"good\"")
    );
    assert_eq!(
        response.header("content-type"),
        Some("application/json; charset=utf-8")
    );
}

#[test]
fn a_body_is_sent_raw_with_a_fitting_or_given_type() {
    for (config, body, content_type) in [
        (
            r#"body: '{"up": false}'"#,
            "{\"up\": false}",
            "application/json; charset=utf-8",
        ),
        ("body: plain words", "plain words", "text/plain"),
        (
            "body: <p>gone</p>, content_type: text/html",
            "<p>gone</p>",
            "text/html",
        ),
    ] {
        let response = answer(&format!("status_code: 200, {config}"));
        assert_eq!((response.status, response.text().as_str()), (200, body));
        let sent = response.header("content-type").unwrap_or_default();
        assert!(sent.starts_with(content_type), "{config}: {sent}");
        assert_eq!(
            response.header("content-length"),
            Some(body.len().to_string().as_str())
        );
    }
}

#[test]
fn bodiless_statuses_have_neither_body_nor_length() {
    for status in [204, 304] {
        let (gateway, _origin) = terminated(&format!("status_code: {status}, message: unheard"));
        let mut client = gateway.connect();
        for _ in 0..3 {
            let response = client.send(&Request::get("/"));
            assert_eq!(
                (response.status, response.header("content-length")),
                (status, None)
            );
        }
    }
}

#[test]
fn a_head_request_gets_no_body() {
    let (gateway, _origin) = terminated("status_code: 200, body: hello");
    let mut client = gateway.connect();

    assert_eq!(client.send(&Request::new("HEAD", "/")).status, 200);
    assert_eq!(
        client.send(&Request::get("/")).text(),
        "hello",
        "the connection is still in step"
    );
}

#[test]
fn a_trigger_in_header_or_query_is_needed_if_configured() {
    let (gateway, origin) = terminated("status_code: 403, trigger: x-stop");

    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.get("/?x-stop").status, 403);
    assert_eq!(gateway.get("/?a=1&x-stop=0").status, 403);
    assert_eq!(
        gateway
            .send(&Request::get("/").header("X-Stop", "any"))
            .status,
        403
    );
    assert_eq!(gateway.get("/?x-stopped=1").status, 200);
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_request_is_echoed_with_its_route_and_service() {
    let (gateway, _origin) = terminated("status_code: 200, echo: true, message: seen");
    let request = Request::post("/a%20b?x=1", "the body")
        .host("shop.test")
        .header("X-One", "1");

    let echo = gateway.send(&request).json();

    assert_eq!(echo["message"], "seen");
    for (member, value) in [
        ("method", "POST"),
        ("scheme", "http"),
        ("host", "shop.test"),
        ("raw_body", "the body"),
    ] {
        assert_eq!(echo["request"][member], value, "{member} in {echo}");
    }
    assert_eq!(echo["request"]["headers"]["x-one"], "1");
    assert_eq!(echo["request"]["query"]["x"], "1");
    assert_eq!(
        (
            &echo["matched_route"]["name"],
            &echo["matched_service"]["name"]
        ),
        (&"orders".into(), &"orders".into())
    );
}

#[test]
fn credentials_are_not_echoed_to_a_triggered_request() {
    let (gateway, _origin) = terminated("status_code: 200, echo: true, trigger: x-echo");
    let request = Request::get("/?x-echo")
        .header("Authorization", "Bearer s3cret")
        .header("Cookie", "a=s3cret");

    let response = gateway.send(&request);

    assert_eq!(response.status, 200);
    assert!(!response.text().contains("s3cret"), "{}", response.text());
}

#[test]
fn a_route_without_service_can_answer() {
    let gateway = Gateway::start(
        "
        routes:
        - name: lonely
          paths: [/]
          plugins: [{ name: request-termination, config: { status_code: 200, message: alone } }]
        ",
    );

    assert_eq!(gateway.get("/").message(), "alone");
}

/// S69: it comes last, so authentication still speaks first.
#[test]
fn authentication_answers_first() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - { name: request-termination, config: { status_code: 418 } }
        - name: key-auth
        consumers:
        - { username: alice, keyauth_credentials: [{ key: alice-key }] }
        ",
    ));

    assert_eq!(gateway.get("/").status, 401);
    assert_eq!(
        gateway
            .send(&Request::get("/").header("apikey", "alice-key"))
            .status,
        418
    );
}

#[test]
fn an_unread_request_body_leaves_the_connection_in_step_or_closed() {
    let (gateway, _origin) = terminated("status_code: 200, body: hello");
    let mut client = gateway.connect();

    for _ in 0..3 {
        let response = client.send(&Request::post("/", vec![b'x'; 100_000]));
        assert_eq!(response.text(), "hello");
        if response.announces_close() {
            client = gateway.connect();
        }
    }
}

#[test]
fn contradictory_configurations_are_refused() {
    for (config, word) in [
        ("message: a, body: b", "message"),
        ("message: a, content_type: text/plain", "content_type"),
        ("content_type: text/plain", "content_type"),
        ("echo: true, body: b", "echo"),
        ("status_code: 99", "status_code"),
        ("status_code: 600", "status_code"),
        ("status_code: 101", "status_code"),
        ("status_code: null", "status_code"),
        ("stauts_code: 200", "stauts_code"),
    ] {
        let document = format!(
            "_format_version: \"3.0\"\nplugins:\n- {{ name: request-termination, config: {{ {config} }} }}\n"
        );
        let outcome = check(&document);
        assert!(outcome.code.is_some_and(|code| code != 0), "{config}");
        assert!(
            outcome.stderr.contains("gateway.yaml:3:") && outcome.stderr.contains(word),
            "{config}: {}",
            outcome.stderr
        );
    }
}
