//! What the origin receives of a request, and what the client receives of a response.

use std::io::Write;
use std::time::Duration;

use crate::harness::{
    Gate, Gateway, Origin, Received, Reply, Request, Stopwatch, dedent, one_service,
    one_service_and,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A catch-all gateway with these settings in front of an origin.
fn before(origin: &Origin, settings: &str) -> Gateway {
    Gateway::start_with(settings, &one_service(origin))
}

/// Sends the request through a gateway with these settings and yields what the origin received.
fn forwarded(settings: &str, request: &Request) -> Received {
    let origin = Origin::replying("hello");
    let response = before(&origin, settings).send(request);
    assert_eq!(response.status, 200);
    origin.last()
}

fn is_request_id(id: &str) -> bool {
    id.len() == 32
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

// Host

/// S65
#[test]
fn the_host_sent_upstream_is_the_services_unless_the_clients_is_preserved() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!(
        "
        services:
        - name: orders
          url: http://localhost:{port}
          routes:
          - {{ name: changed, paths: [/changed] }}
          - {{ name: preserved, paths: [/preserved], preserve_host: true }}
        - name: pooled
          host: pool.test
          routes:
          - {{ name: pooled, paths: [/pooled] }}
          - {{ name: pooled-preserved, paths: [/pooled-preserved], preserve_host: true }}
        - name: renamed
          host: renamed.test
          routes:
          - {{ name: renamed, paths: [/renamed] }}
        upstreams:
        - {{ name: pool.test, targets: [{{ target: '127.0.0.1:{port}' }}] }}
        - {{ name: renamed.test, host_header: 'inner.test:81', targets: [{{ target: '127.0.0.1:{port}' }}] }}
        ",
        port = origin.port()
    ));
    let (by_name, by_address) = (format!("localhost:{}", origin.port()), origin.authority());
    for (path, host) in [
        ("/changed", by_name.as_str()),
        ("/preserved", "Client.test:1234"),
        ("/pooled", by_address.as_str()),
        ("/pooled-preserved", "Client.test:1234"),
        ("/renamed", "inner.test:81"),
    ] {
        assert_eq!(
            gateway
                .send(&Request::get(path).host("Client.test:1234"))
                .status,
            200,
            "{path}"
        );
        assert_eq!(origin.last().headers("host"), [host], "{path}");
    }
}

// Forwarding headers

/// S27, S65
#[test]
fn an_untrusted_peer_cannot_choose_its_forwarding_headers() {
    let origin = Origin::replying("hello");
    let gateway = before(&origin, "");
    let request = Request::get("/some/path?query=1")
        .host("Shop.Test:8443")
        .header("X-Forwarded-For", "10.1.1.1")
        .header("X-Real-IP", "10.2.2.2")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Forwarded-Port", "443")
        .header("X-Forwarded-Path", "/evil")
        .header("X-Forwarded-Prefix", "/evil");

    assert_eq!(gateway.send(&request).status, 200);

    let received = origin.last();
    let port = gateway.port().to_string();
    for (name, value) in [
        ("X-Forwarded-For", "10.1.1.1, 127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "shop.test"),
        ("X-Forwarded-Port", port.as_str()),
        ("X-Forwarded-Path", "/some/path"),
    ] {
        assert_eq!(received.headers(name), [value], "{name}");
    }
    assert!(received.header("X-Forwarded-Prefix").is_none());
}

#[test]
fn without_incoming_forwarding_headers_the_gateway_makes_them() {
    let received = forwarded("", &Request::get("/a%20b/?x"));

    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "gateway.test"),
        ("X-Forwarded-Path", "/a%20b/"),
    ] {
        assert_eq!(received.headers(name), [value], "{name}");
    }
}

/// S27
#[test]
fn a_trusted_peers_forwarding_headers_are_kept() {
    let request = Request::get("/a")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "Outer.test")
        .header("X-Forwarded-Port", "443")
        .header("X-Forwarded-Path", "/outer/a")
        .header("X-Forwarded-Prefix", "/outer");

    let received = forwarded("trusted_ips: [127.0.0.0/8]", &request);

    for (name, value) in [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "Outer.test"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Path", "/outer/a"),
        ("X-Forwarded-Prefix", "/outer"),
    ] {
        assert_eq!(received.headers(name), [value], "{name}");
    }
}

/// S27
#[test]
fn the_client_address_comes_from_a_trusted_peers_header_only() {
    let chain = "10.1.1.1, 10.2.2.2, 127.0.0.9";
    let real_ip = |settings: &str, name: &str, value: &str| {
        let received = forwarded(&dedent(settings), &Request::get("/").header(name, value));
        received.header("X-Real-IP").map(str::to_owned)
    };
    for (case, settings, name, value, client) in [
        (
            "the default header",
            "trusted_ips: 127.0.0.1",
            "X-Real-IP",
            "10.9.9.9",
            "10.9.9.9",
        ),
        (
            "an untrusted peer",
            "trusted_ips: 192.0.2.1",
            "X-Real-IP",
            "10.9.9.9",
            "127.0.0.1",
        ),
        (
            "another header than configured",
            "trusted_ips: 127.0.0.1",
            "X-Forwarded-For",
            "10.9.9.9",
            "127.0.0.1",
        ),
        (
            "the last address",
            "trusted_ips: 127.0.0.0/8\nreal_ip_header: X-Forwarded-For",
            "X-Forwarded-For",
            chain,
            "127.0.0.9",
        ),
        (
            "the last address that is not trusted",
            "trusted_ips: 127.0.0.0/8\nreal_ip_header: X-Forwarded-For\nreal_ip_recursive: on",
            "X-Forwarded-For",
            chain,
            "10.2.2.2",
        ),
        (
            "garbage",
            "trusted_ips: 127.0.0.0/8\nreal_ip_header: X-Forwarded-For\nreal_ip_recursive: on",
            "X-Forwarded-For",
            "10.1.1.1, not-an-address",
            "127.0.0.1",
        ),
    ] {
        assert_eq!(
            real_ip(settings, name, value).as_deref(),
            Some(client),
            "{case}"
        );
    }
}

#[test]
fn the_peer_is_appended_to_a_trusted_x_forwarded_for() {
    let settings = "trusted_ips: 127.0.0.1\nreal_ip_header: X-Forwarded-For";

    let received = forwarded(
        settings,
        &Request::get("/").header("X-Forwarded-For", "10.9.9.9"),
    );

    assert_eq!(received.headers("X-Forwarded-For"), ["10.9.9.9, 127.0.0.1"]);
}

#[test]
fn the_stripped_prefix_is_told_when_there_is_one() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&format!(
        r"
        services:
        - name: orders
          url: {origin}
          routes:
          - {{ name: stripped, paths: [/api/v1] }}
          - {{ name: kept, paths: [/kept], strip_path: false }}
          - {{ name: regex, paths: ['~/r/\d+'] }}
          - {{ name: root, paths: [/] }}
        "
    ));
    for (path, prefix) in [
        ("/api/v1/users", Some("/api/v1")),
        ("/r/12/users", Some("/r/12")),
        ("/kept/users", None),
        ("/other", None),
    ] {
        gateway.send(&Request::get(path).header("X-Forwarded-Prefix", "/spoofed"));
        assert_eq!(origin.last().header("X-Forwarded-Prefix"), prefix, "{path}");
    }
}

#[test]
fn via_grows_by_one_entry_in_both_directions() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/via" => Reply::ok("").header("Via", "1.1 cache"),
        _ => Reply::ok(""),
    });
    let gateway = before(&origin, "");
    let own = format!("1.1 tollgate/{VERSION}");

    let plain = gateway.get("/");
    assert_eq!(
        (origin.last().header("via"), plain.header("via")),
        (Some(own.as_str()), Some(own.as_str()))
    );

    let grown = gateway.send(&Request::get("/via").header("Via", "1.0 fred"));
    let seen = origin.last().headers("via").join(", ");
    assert_eq!(seen, format!("1.0 fred, {own}"));
    assert_eq!(grown.headers("via").join(", "), format!("1.1 cache, {own}"));
}

// Identity of the request

#[test]
fn a_request_has_one_new_id_everywhere() {
    let origin = Origin::replying("hello");
    let gateway = before(&origin, "");
    let request = Request::get("/").header("X-Kong-Request-Id", "spoofed");

    let ids: Vec<String> = (0..3)
        .map(|_| {
            let response = gateway.send(&request);
            let id = response
                .header("X-Kong-Request-Id")
                .expect("an id in the response")
                .to_owned();
            assert_eq!(origin.last().headers("X-Kong-Request-Id"), [id.as_str()]);
            id
        })
        .collect();

    assert!(ids.iter().all(|id| is_request_id(id)), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn the_request_id_is_in_the_access_log() {
    let origin = Origin::replying("hello");
    let gateway = before(&origin, "");

    let id = gateway
        .get("/")
        .header("X-Kong-Request-Id")
        .expect("an id")
        .to_owned();

    gateway.wait_for_access_log(&id);
}

#[test]
fn the_request_id_upstream_can_be_switched_off() {
    let received = forwarded("headers_upstream: off", &Request::get("/"));

    assert!(received.header("X-Kong-Request-Id").is_none());
}

// What is removed

#[test]
fn hop_by_hop_fields_are_removed() {
    let origin = Origin::replying("hello");
    let gateway = before(&origin, "");
    let request = Request::get("/")
        .header("Connection", "keep-alive, X-Listed, X-Forwarded-For, Host")
        .header("X-Listed", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy", "http://evil.test")
        .header("Proxy-Connection", "keep-alive")
        .header("Upgrade", "h2c")
        .header("TE", "deflate");

    assert_eq!(gateway.send(&request).status, 200);

    let received = origin.last();
    for name in [
        "X-Listed",
        "Keep-Alive",
        "Proxy",
        "Proxy-Connection",
        "Upgrade",
        "TE",
        "Transfer-Encoding",
    ] {
        assert!(received.header(name).is_none(), "{name} was forwarded");
    }
    let connection = received.header("connection").unwrap_or("keep-alive");
    assert!(
        connection.eq_ignore_ascii_case("keep-alive"),
        "Connection: {connection}"
    );
    assert!(received.header("Host").is_some() && received.header("X-Forwarded-For").is_some());
}

#[test]
fn te_trailers_is_kept_alone() {
    let received = forwarded(
        "",
        &Request::get("/").header("TE", "deflate;q=0.5, trailers"),
    );

    assert_eq!(received.headers("TE"), ["trailers"]);
}

/// S30
#[test]
fn identity_fields_of_the_client_are_removed_on_every_route() {
    const IDENTITY: [&str; 7] = [
        "X-Consumer-ID",
        "X-Consumer-Custom-ID",
        "X-Consumer-Username",
        "X-Credential-Identifier",
        "X-Anonymous-Consumer",
        "X-Consumer-Groups",
        "X-Authenticated-Groups",
    ];
    let spoofed = IDENTITY.iter().fold(Request::get("/"), |request, name| {
        let twin = name.replace('-', "_");
        request
            .header(name, "spoofed")
            .header(&name.to_lowercase(), "again")
            .header(&twin, "twin")
    });

    let stripped = forwarded("", &spoofed);
    let kept = forwarded("strip_identity_headers: off", &spoofed);

    for name in IDENTITY {
        assert!(stripped.header(name).is_none(), "{name}");
        assert!(
            stripped.header(&name.replace('-', "_")).is_none(),
            "the twin of {name}"
        );
        assert!(kept.header(name).is_some(), "{name} with the setting off");
    }
}

#[test]
fn underscore_twins_of_the_gateways_fields_are_dropped_and_others_kept() {
    let request = Request::get("/")
        .header("X_Forwarded_For", "10.0.0.1")
        .header("X_Real_IP", "10.0.0.1")
        .header("x_forwarded_proto", "https")
        .header("X-Forwarded_Host", "evil.test")
        .header("X_Kong_Request_Id", "spoofed")
        .header("X_Custom_Field", "kept");

    let received = forwarded("", &request);

    for name in [
        "X_Forwarded_For",
        "X_Real_IP",
        "x_forwarded_proto",
        "X-Forwarded_Host",
        "X_Kong_Request_Id",
    ] {
        assert!(received.header(name).is_none(), "{name}");
    }
    assert_eq!(received.header("X_Custom_Field"), Some("kept"));
}

// What is kept

#[test]
fn end_to_end_fields_arrive_unchanged_and_in_order() {
    let fields = [
        ("Forwarded", "for=10.0.0.1"),
        ("Proxy-Authorization", "Basic a"),
        ("Authorization", "Bearer b"),
        ("Cookie", "a=1"),
        ("Accept-Encoding", "gzip, br"),
        ("X-Many", "first"),
        ("X-Between", ""),
        ("X-Many", "second"),
        ("x-many", "third, fourth"),
    ];
    let request = fields
        .iter()
        .fold(Request::get("/"), |request, (name, value)| {
            request.header(name, value)
        });

    let received = forwarded("", &request);

    assert_eq!(
        received.headers("X-Many"),
        ["first", "second", "third, fourth"]
    );
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("x-many"))
    {
        assert_eq!(received.headers(name), [*value], "{name}");
    }
}

#[test]
fn method_query_and_unknown_methods_pass_unchanged() {
    let origin = Origin::replying("hello");
    let gateway = before(&origin, "");

    for (method, target) in [
        ("GET", "/a?"),
        ("DELETE", "/a?b&c=&d==%3D&e=+%20"),
        ("PATCH", "/a??"),
        ("OPTIONS", "/a?x[]=1&x[]=2"),
        ("PURGE", "/"),
        ("M-SEARCH", "/"),
    ] {
        assert_eq!(
            gateway.send(&Request::new(method, target)).status,
            200,
            "{method} {target}"
        );
        assert_eq!(
            (origin.last().method.as_str(), origin.last().target.as_str()),
            (method, target)
        );
    }
}

#[test]
fn duplicate_response_fields_keep_their_order_and_hop_by_hop_ones_are_removed() {
    let origin = Origin::start(|_| {
        Reply::ok("hello")
            .header("Set-Cookie", "a=1")
            .header("X-Other", "x")
            .header("Set-Cookie", "b=2; Path=/")
            .header("Connection", "keep-alive, X-Listed")
            .header("X-Listed", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Upgrade", "h2c")
    });
    let gateway = before(&origin, "");

    let response = gateway.get("/");

    assert_eq!(response.headers("Set-Cookie"), ["a=1", "b=2; Path=/"]);
    assert_eq!(response.header("X-Other"), Some("x"));
    for name in ["X-Listed", "Keep-Alive", "Upgrade"] {
        assert!(response.header(name).is_none(), "{name}");
    }
}

// Fields of the response

#[test]
fn a_proxied_response_carries_latencies_and_the_origins_server() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/named" => Reply::ok("").header("Server", "mine/1"),
        _ => Reply::ok(""),
    });
    let gateway = before(&origin, "");

    let (named, unnamed) = (gateway.get("/named"), gateway.get("/"));

    assert_eq!(named.headers("Server"), ["mine/1"]);
    assert_eq!(
        unnamed.headers("Server"),
        [format!("tollgate/{VERSION}").as_str()]
    );
    for name in ["X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency"] {
        assert!(
            named
                .header(name)
                .is_some_and(|ms| ms.parse::<u64>().is_ok()),
            "{name}: {:?}",
            named.header(name)
        );
    }
    for name in ["X-Kong-Response-Latency", "X-Kong-Upstream-Status"] {
        assert!(named.header(name).is_none(), "{name}");
    }
}

#[test]
fn upstream_latency_measures_the_origin() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            Stopwatch::pace(Duration::from_millis(200));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        })
    });

    let response = before(&origin, "").get("/");

    let latency = |name: &str| {
        response
            .header(name)
            .and_then(|ms| ms.parse::<u64>().ok())
            .expect("milliseconds")
    };
    assert!(latency("X-Kong-Upstream-Latency") >= 195);
    assert!(latency("X-Kong-Proxy-Latency") < 195);
}

#[test]
fn the_gateways_response_fields_can_be_chosen() {
    let origin = Origin::start(|_| Reply::status(201).header("Server", "mine"));
    let cases: [(&str, &[&str]); 5] = [
        ("headers: off", &[]),
        ("headers: [Via]", &["Via"]),
        ("headers: server_tokens", &["Via"]),
        (
            "headers: x-kong-upstream-status, X-Kong-Request-Id",
            &["X-Kong-Upstream-Status", "X-Kong-Request-Id"],
        ),
        (
            "headers: latency_tokens",
            &["X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency"],
        ),
    ];
    let all = [
        "Via",
        "X-Kong-Upstream-Status",
        "X-Kong-Request-Id",
        "X-Kong-Upstream-Latency",
        "X-Kong-Proxy-Latency",
    ];
    for (settings, expected) in cases {
        let response = before(&origin, settings).get("/");
        let present: Vec<&str> = all
            .into_iter()
            .filter(|name| response.header(name).is_some())
            .collect();
        let mut expected = expected.to_vec();
        expected.sort_by_key(|name| all.iter().position(|other| other == name));
        assert_eq!(present, expected, "{settings}");
        assert_eq!(
            response.header("Server"),
            Some("mine"),
            "{settings}: the origin's Server always passes"
        );
    }
}

#[test]
fn with_headers_off_an_answer_of_the_gateway_is_anonymous() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin).replace("paths: [/]", "paths: [/a]");

    let response = Gateway::start_with("headers: off", &yaml).get("/none");

    assert_eq!(response.status, 404);
    for name in [
        "Server",
        "Via",
        "X-Kong-Request-Id",
        "X-Kong-Response-Latency",
    ] {
        assert!(response.header(name).is_none(), "{name}");
    }
}

// Bodies

/// Bytes in which a shift or a loss shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251).expect("a remainder below 256"))
        .collect()
}

const SIZES: [usize; 4] = [0, 1, 70_000, 3 << 20];

#[test]
fn bodies_with_a_length_arrive_byte_for_byte_both_ways() {
    let origin = Origin::echoing();
    let gateway = before(&origin, "");
    let mut client = gateway.connect();

    for size in SIZES {
        let response = client.send(&Request::post("/", pattern(size)));
        assert!(
            response.complete && response.body == pattern(size),
            "{size} bytes back"
        );
        assert_eq!(
            response.header("Content-Length"),
            Some(size.to_string().as_str())
        );
        let received = origin.last();
        assert!(
            received.body == pattern(size) && !received.chunked,
            "{size} bytes there"
        );
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn chunked_bodies_arrive_byte_for_byte_both_ways() {
    let origin = Origin::start(|request| Reply::ok(request.body.clone()).chunked(8000));
    let gateway = before(&origin, "");
    let mut client = gateway.connect();

    for size in SIZES {
        let response = client.send(&Request::new("PUT", "/").chunked(pattern(size), 5000));
        assert!(
            response.complete && response.chunked && response.body == pattern(size),
            "{size} bytes back"
        );
        let received = origin.last();
        assert!(
            received.body == pattern(size) && received.chunked,
            "{size} bytes there"
        );
    }
}

#[test]
fn a_response_that_ends_with_its_connection_arrives_whole() {
    let origin = Origin::start(|_| {
        let body = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &pattern(70_000)].concat();
        Reply::raw(body).then_close()
    });

    let response = before(&origin, "").get("/");

    assert!(response.complete && response.body == pattern(70_000));
}

#[test]
fn get_head_and_delete_may_carry_a_body() {
    let origin = Origin::echoing();
    let gateway = before(&origin, "");

    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        assert_eq!(
            gateway
                .send(&Request::new(method, "/").body("query"))
                .status,
            200,
            "{method}"
        );
        assert_eq!(
            (origin.last().method.as_str(), origin.last().text().as_str()),
            (method, "query")
        );
    }
}

#[test]
fn bodiless_responses_leave_the_connection_in_step() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/204" => Reply::status(204),
        "/304" => Reply::status(304).header("ETag", "\"a\""),
        _ => Reply::ok("hello"),
    });
    let gateway = before(&origin, "");
    let mut client = gateway.connect();

    for _ in 0..3 {
        let head = client.send(&Request::new("HEAD", "/"));
        assert_eq!(
            (head.status, head.header("Content-Length")),
            (200, Some("5"))
        );
        let empty = client.send(&Request::get("/204"));
        assert_eq!(
            (
                empty.status,
                empty.header("Content-Length"),
                empty.header("Transfer-Encoding")
            ),
            (204, None, None)
        );
        let unchanged = client.send(&Request::get("/304"));
        assert_eq!(
            (unchanged.status, unchanged.header("ETag")),
            (304, Some("\"a\""))
        );
        assert_eq!(client.send(&Request::get("/")).text(), "hello");
    }
}

#[test]
fn a_response_streams_to_the_client_as_it_arrives() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let gate = held.clone();
        Reply::stream(move |stream| {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst \r\n",
            )?;
            gate.wait();
            stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n")
        })
    });
    let gateway = before(&origin, "");
    let mut client = gateway.connect();

    client
        .write(Request::get("/").bytes())
        .expect("a written request");
    client.read_until(b"first ");
    gate.open();
    client.read_until(b"second");
}

#[test]
fn a_request_streams_to_the_origin_as_it_arrives() {
    let origin = Origin::echoing();
    let gateway = before(&origin, "");
    let mut client = gateway.connect();

    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .expect("written");
    origin.wait_until("the first chunk", |requests| {
        requests.iter().any(|request| request.body == b"first")
    });
    client.write("6\r\nsecond\r\n0\r\n\r\n").expect("written");

    assert_eq!(
        client.read_response().expect("an answer").text(),
        "firstsecond"
    );
}

#[test]
fn a_client_that_expects_continue_is_told_to_go_on() {
    let origin = Origin::echoing();
    let gateway = before(&origin, "");
    let mut client = gateway.connect();

    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .expect("a written head");
    let interim = client.read_head().expect("an interim response");
    client.write("body").expect("a written body");
    let response = client.read_response().expect("an answer");

    assert!(
        interim.start_line.starts_with("HTTP/1.1 100"),
        "{}",
        interim.start_line
    );
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
}

#[test]
fn a_rejected_request_gets_its_answer_instead_of_continue() {
    let origin = Origin::echoing();
    let yaml = one_service(&origin).replace("paths: [/]", "paths: [/a]");
    let gateway = Gateway::start_with("client_max_body_size: 1k", &yaml);

    for (path, length, status) in [("/none", 4, 404), ("/a", 5000, 413)] {
        let mut client = gateway.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        client.write(head).expect("a written head");
        let response = client.read_response().expect("an answer");
        assert_eq!(
            (response.status, response.interim.as_slice()),
            (status, &[][..]),
            "{path}"
        );
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn other_expectations_fail_and_http_1_0_ones_are_ignored() {
    let origin = Origin::echoing();
    let gateway = before(&origin, "");

    let unknown = gateway.send(&Request::post("/", "x").header("Expect", "miracles"));
    let old = gateway.send(
        &Request::post("/", "x")
            .version("HTTP/1.0")
            .header("Expect", "100-continue"),
    );

    assert_eq!(unknown.status, 417);
    assert_eq!(
        (old.status, old.interim.len(), old.text().as_str()),
        (200, 0, "x")
    );
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let origin = Origin::start(|_| Reply::ok(pattern(70_000)).chunked(1000));
    let gateway = before(&origin, "");

    let response = gateway.send(&Request::get("/").version("HTTP/1.0"));

    assert!(!response.chunked && response.complete);
    assert!(response.body == pattern(70_000));
    assert_eq!(origin.last().head.start_line, "GET / HTTP/1.1");
}

/// S60
#[test]
fn many_clients_at_once_get_their_own_answers() {
    let origin = Origin::echoing();
    let gateway = before(&origin, "");

    let answers = gateway.concurrently(32, |client| {
        let own = format!("{:p}", std::ptr::from_ref(client));
        (0..30).all(|round| {
            let body = format!("{own}-{round}");
            client.send(&Request::post("/", body.clone())).text() == body
        })
    });

    assert_eq!(answers, vec![true; 32]);
    assert_eq!(origin.count(), 32 * 30);
}

#[test]
fn an_origin_cannot_set_what_the_gateway_tells_of_itself() {
    let origin = Origin::start(|_| {
        Reply::ok("hello")
            .header("X-Kong-Request-Id", "forged")
            .header("X-Kong-Proxy-Latency", "forged")
            .header("X-Kong-Upstream-Latency", "forged")
            .header("X-RateLimit-Remaining-Minute", "forged")
            .header("RateLimit-Remaining", "forged")
            .header("Connection", "X-Hop, Via")
            .header("X-Hop", "forged")
    });
    let plugins = "plugins: [{name: rate-limiting, config: {minute: 100, policy: local}}]";
    let gateway = Gateway::start(&one_service_and(&origin, plugins));

    let response = gateway.get("/");

    let forged = |(_, value): &&(String, String)| value == "forged";
    assert_eq!(response.head.fields.iter().find(forged), None);
    assert_eq!(response.headers("X-RateLimit-Remaining-Minute"), ["99"]);
    assert_eq!(response.headers("X-Kong-Request-Id").len(), 1);
    assert!(response.header("Via").is_some());
}
