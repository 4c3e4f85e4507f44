//! `key-auth`: who may pass, with which key from where, and what the origin gets to know.

use crate::harness::{Gateway, Origin, Received, Request, Response, check, one_service_and};

const CONSUMERS: &str = "
consumers:
- username: alice
  custom_id: c-1
  keyauth_credentials:
  - { key: alice-key, id: 5f0c3a9e-6f0b-4c8a-9c8d-000000000001 }
- username: bob
  keyauth_credentials: [{ key: bob-key }]
- username: guest
";

struct Door {
    gateway: Gateway,
    origin: Origin,
}

impl Door {
    fn new(config: &str) -> Self {
        let origin = Origin::replying("welcome");
        let plugin =
            format!("plugins:\n- {{ name: key-auth, config: {{ {config} }} }}\n{CONSUMERS}");
        let gateway = Gateway::start(&one_service_and(&origin, &plugin));
        Self { gateway, origin }
    }

    fn knock(&self, request: &Request) -> Response {
        self.gateway.send(request)
    }

    /// What the origin received of an admitted request.
    fn admitted(&self, request: &Request) -> Received {
        let response = self.knock(request);
        assert_eq!(response.status, 200, "{}", response.text());
        self.origin.last()
    }

    fn refused(&self, request: &Request, message: &str) {
        let before = self.origin.count();
        let response = self.knock(request);
        assert_eq!(
            (response.status, response.message().as_str()),
            (401, message)
        );
        assert_eq!(response.header("WWW-Authenticate"), Some("Key"));
        assert_eq!(self.origin.count(), before, "the origin was asked");
    }
}

const NONE: &str = "No API key found in request";
const WRONG: &str = "Unauthorized";
const TWO: &str = "Duplicate API key found";

/// S28
#[test]
fn a_good_key_passes_and_none_or_a_bad_one_does_not() {
    let door = Door::new("");

    door.admitted(&Request::get("/").header("apikey", "alice-key"));
    door.admitted(&Request::get("/").header("APIKEY", "bob-key"));
    door.admitted(&Request::get("/?apikey=alice-key"));
    door.refused(&Request::get("/"), NONE);
    door.refused(&Request::get("/").header("apikey", ""), NONE);
    door.refused(&Request::get("/?apikey="), NONE);
    door.refused(&Request::get("/").header("apikey", "eve-key"), WRONG);
    door.refused(&Request::get("/").header("apikey", "ALICE-KEY"), WRONG);
    door.refused(&Request::get("/?APIKEY=alice-key"), NONE);
    door.refused(&Request::get("/?apikey%5B%5D=alice-key"), NONE);
}

/// S30
#[test]
fn the_origin_learns_who_called_and_nobody_can_pretend() {
    let door = Door::new("");
    let spoofed = Request::get("/")
        .header("X-Consumer-Username", "root")
        .header("X_Consumer_Username", "root")
        .header("X-Consumer-Custom-ID", "0")
        .header("X-Anonymous-Consumer", "true")
        .header("X-Consumer-Groups", "admins");

    let alice = door.admitted(&spoofed.clone().header("apikey", "alice-key"));
    let bob = door.admitted(&spoofed.header("apikey", "bob-key"));

    assert_eq!(alice.headers("X-Consumer-Username"), ["alice"]);
    assert_eq!(alice.headers("X-Consumer-Custom-ID"), ["c-1"]);
    assert_eq!(
        alice.headers("X-Credential-Identifier"),
        ["5f0c3a9e-6f0b-4c8a-9c8d-000000000001"]
    );
    assert!(
        alice
            .header("X-Consumer-ID")
            .is_some_and(|id| id.len() == 36)
    );
    assert_eq!(
        (
            bob.headers("X-Consumer-Username"),
            bob.header("X-Consumer-Custom-ID")
        ),
        (vec!["bob"], None)
    );
    assert_ne!(alice.header("X-Consumer-ID"), bob.header("X-Consumer-ID"));
    for received in [&alice, &bob] {
        for name in [
            "X-Anonymous-Consumer",
            "X-Consumer-Groups",
            "X_Consumer_Username",
        ] {
            assert!(received.header(name).is_none(), "{name}");
        }
    }
}

#[test]
fn a_consumers_id_is_the_same_after_a_reload() {
    let door = Door::new("");
    let request = Request::get("/").header("apikey", "bob-key");
    let id = |received: &Received| received.header("X-Consumer-ID").map(str::to_owned);
    let before = id(&door.admitted(&request));

    door.gateway.reload(&one_service_and(
        &door.origin,
        &format!("plugins:\n- name: key-auth\n{CONSUMERS}- username: new\n"),
    ));

    assert_eq!(id(&door.admitted(&request)), before);
}

#[test]
fn the_first_name_and_place_that_yield_anything_decide() {
    let door = Door::new("key_names: [x-first, x-second]");

    door.admitted(&Request::get("/").header("X-Second", "alice-key"));
    door.admitted(&Request::get("/?x-second=alice-key"));
    door.admitted(
        &Request::get("/")
            .header("X-First", "alice-key")
            .header("X-Second", "wrong"),
    );
    door.refused(
        &Request::get("/")
            .header("X-First", "wrong")
            .header("X-Second", "alice-key"),
        WRONG,
    );
    door.refused(
        &Request::get("/?x-first=alice-key").header("X-First", "wrong"),
        WRONG,
    );
    door.admitted(&Request::get("/?x-first=wrong").header("X-First", "alice-key"));
    door.refused(&Request::get("/").header("apikey", "alice-key"), NONE);
}

#[test]
fn several_values_under_one_name_are_refused() {
    let door = Door::new("key_in_body: true");

    door.refused(
        &Request::get("/")
            .header("apikey", "alice-key")
            .header("apikey", "alice-key"),
        TWO,
    );
    door.refused(&Request::get("/?apikey=alice-key&apikey=alice-key"), TWO);
    let form = Request::post("/", "apikey=alice-key&a=1&apikey=x").header("Content-Type", FORM);
    door.refused(&form, TWO);
    let json = Request::post("/", r#"{"apikey":["alice-key","x"]}"#)
        .header("Content-Type", "application/json");
    door.refused(&json, TWO);
}

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn places_can_be_switched_off() {
    let header_only = Door::new("key_in_query: false");
    header_only.refused(&Request::get("/?apikey=alice-key"), NONE);
    header_only.admitted(&Request::get("/").header("apikey", "alice-key"));

    let query_only = Door::new("key_in_header: false");
    query_only.refused(&Request::get("/").header("apikey", "alice-key"), NONE);
    query_only.admitted(&Request::get("/?apikey=alice-key"));

    let by_default = Door::new("");
    by_default.refused(
        &Request::post("/", "apikey=alice-key").header("Content-Type", FORM),
        NONE,
    );
}

#[test]
fn a_key_in_the_body_is_found_and_the_body_arrives_unchanged() {
    let door = Door::new("key_in_body: true");
    let multipart =
        "--b\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\nalice-key\r\n--b--\r\n";

    for (content_type, body) in [
        (FORM, "a=1&apikey=alice-key&b=%20"),
        ("application/json", r#"{"a": 1, "apikey": "alice-key"}"#),
        (
            "application/json; charset=utf-8",
            r#"{"apikey":"alice-key"}"#,
        ),
        ("multipart/form-data; boundary=b", multipart),
    ] {
        let received =
            door.admitted(&Request::post("/", body).header("Content-Type", content_type));
        assert_eq!(received.text(), body, "{content_type}");
    }
    door.refused(
        &Request::post("/", "apikey=alice-key").header("Content-Type", "text/plain"),
        NONE,
    );
    door.refused(
        &Request::post("/", "{not json").header("Content-Type", "application/json"),
        NONE,
    );
    door.refused(
        &Request::post("/", "apikey=wrong").header("Content-Type", FORM),
        WRONG,
    );
}

#[test]
fn hidden_credentials_do_not_reach_the_origin_and_the_rest_stays_as_it_was() {
    let door = Door::new("hide_credentials: true, key_in_body: true");

    let received = door.admitted(&Request::get("/p?b=%2f&a=1").header("apikey", "alice-key"));
    assert_eq!(
        (received.header("apikey"), received.target.as_str()),
        (None, "/p?b=%2f&a=1")
    );

    let received = door.admitted(&Request::get("/p?b=%2f&apikey=alice-key&a=+&&c"));
    assert_eq!(received.target, "/p?b=%2f&a=+&&c");

    let received = door.admitted(&Request::get("/p?api%6Bey=alice-key&z=1"));
    assert_eq!(received.target, "/p?z=1");

    let form = Request::post("/", "b=%2f&apikey=alice-key&a=1").header("Content-Type", FORM);
    let received = door.admitted(&form);
    assert_eq!(
        (received.text().as_str(), received.header("Content-Length")),
        ("b=%2f&a=1", Some("9"))
    );

    let json = Request::post("/", r#"{"apikey":"alice-key","a":1}"#)
        .header("Content-Type", "application/json");
    let body: serde_json::Value =
        serde_json::from_str(&door.admitted(&json).text()).expect("still JSON");
    assert_eq!(body, serde_json::json!({"a": 1}));
}

#[test]
fn without_hiding_the_key_is_passed_on() {
    let door = Door::new("");

    let received = door.admitted(&Request::get("/?apikey=alice-key"));

    assert_eq!(received.target, "/?apikey=alice-key");
}

#[test]
fn a_realm_is_named_in_the_challenge() {
    let door = Door::new("realm: Orders");

    assert_eq!(
        door.knock(&Request::get("/")).header("WWW-Authenticate"),
        Some("Key realm=\"Orders\"")
    );
}

#[test]
fn an_anonymous_consumer_takes_over_silently() {
    let door = Door::new("anonymous: guest, hide_credentials: true");

    for request in [
        Request::get("/"),
        Request::get("/").header("apikey", "wrong"),
    ] {
        let received = door.admitted(&request);
        assert_eq!(received.headers("X-Consumer-Username"), ["guest"]);
        assert_eq!(received.headers("X-Anonymous-Consumer"), ["true"]);
        assert!(
            received.header("X-Credential-Identifier").is_none()
                && received.header("apikey").is_none()
        );
    }
    let alice = door.admitted(&Request::get("/").header("apikey", "alice-key"));
    assert_eq!(alice.headers("X-Consumer-Username"), ["alice"]);
    assert!(alice.header("X-Anonymous-Consumer").is_none());
}

#[test]
fn preflights_can_be_exempt() {
    let exempt = Door::new("run_on_preflight: false");
    let received = exempt.admitted(&Request::new("OPTIONS", "/"));
    assert!(received.header("X-Consumer-Username").is_none());
    exempt.refused(&Request::get("/"), NONE);

    Door::new("").refused(&Request::new("OPTIONS", "/"), NONE);
}

#[test]
fn an_expired_key_is_unknown() {
    let origin = Origin::replying("welcome");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - name: key-auth
        consumers:
        - username: alice
          keyauth_credentials:
          - { key: expired, ttl: 60, created_at: 1600000000 }
          - { key: lasting, ttl: 2000000000, created_at: 1600000000 }
        ",
    ));
    let status = |key: &str| {
        gateway
            .send(&Request::get("/").header("apikey", key))
            .status
    };

    assert_eq!((status("expired"), status("lasting")), (401, 200));
}

/// S28
#[test]
fn keys_never_reach_the_log_and_the_consumer_does() {
    let door = Door::new("");

    door.admitted(&Request::get("/header").header("apikey", "alice-key"));
    door.admitted(&Request::get("/query?apikey=bob-key"));
    door.knock(&Request::get("/wrong?apikey=eve-key"));

    for path in ["/header", "/query", "/wrong"] {
        door.gateway.wait_for_access_log(path);
    }
    let logs = door.gateway.access_log() + &door.gateway.log() + &door.gateway.metrics().text;
    for key in ["alice-key", "bob-key", "eve-key"] {
        assert!(!logs.contains(key), "{key} in {logs}");
    }
    assert!(door.gateway.access_log().contains("alice"));
}

/// S31
#[test]
fn other_routes_stay_open() {
    let origin = Origin::replying("welcome");
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: api
          url: {origin}
          routes:
          - {{ name: open, paths: [/api/health] }}
          - {{ name: locked, paths: [/api], plugins: [{{ name: key-auth }}] }}
        "
    ));

    assert_eq!(
        (
            gateway.get("/api/health").status,
            gateway.get("/api/orders").status
        ),
        (200, 401)
    );
}

#[test]
fn the_refusal_follows_accept_and_head_has_no_body() {
    let door = Door::new("");
    let mut client = door.gateway.connect();

    let plain = client.send(&Request::get("/").header("Accept", "text/plain"));
    let head = client.send(&Request::new("HEAD", "/"));
    let after = client.send(&Request::get("/").header("apikey", "alice-key"));

    assert!(
        plain
            .text()
            .starts_with("No API key found in request\nrequest_id: "),
        "{}",
        plain.text()
    );
    assert_eq!((head.status, after.status), (401, 200));
}

#[test]
fn a_refused_request_with_a_body_leaves_the_connection_in_step() {
    let door = Door::new("");
    let mut client = door.gateway.connect();

    let refused = client.send(&Request::post("/", vec![b'x'; 100_000]));

    assert_eq!(refused.status, 401);
    if !refused.announces_close() {
        assert_eq!(
            client
                .send(&Request::get("/").header("apikey", "alice-key"))
                .status,
            200
        );
    }
}

#[test]
fn a_consumer_scope_and_an_unknown_anonymous_are_refused_at_load() {
    let document = |plugin: &str| {
        format!("_format_version: \"3.0\"\nconsumers:\n- username: alice\nplugins:\n- {plugin}\n")
    };

    for (plugin, word) in [
        ("{ name: key-auth, consumer: alice }", "consumer"),
        (
            "{ name: key-auth, config: { anonymous: nobody } }",
            "anonymous",
        ),
        (
            "{ name: key-auth, config: { key_names: null } }",
            "key_names",
        ),
        (
            "{ name: key-auth, config: { key_names: ['a b'] } }",
            "key_names",
        ),
        (
            "{ name: key-auth, config: { key_nmaes: [a] } }",
            "key_nmaes",
        ),
    ] {
        let outcome = check(&document(plugin));
        assert!(outcome.code.is_some_and(|code| code != 0), "{plugin}");
        assert!(
            outcome.stderr.contains("gateway.yaml:5:") && outcome.stderr.contains(word),
            "{plugin}: {}",
            outcome.stderr
        );
    }
}
