//! Responses that the gateway makes itself when it cannot get one from an origin.

use std::io::Write;
use std::time::Duration;

use crate::harness::{
    Client, Gateway, Origin, Reply, Request, Response, Stopwatch, free_port, one_service,
    wait_until,
};

/// A service without retries to this authority, with more fields for it.
fn service_at(authority: &str, fields: &str) -> String {
    format!(
        "services:\n- {{ name: orders, url: 'http://{authority}', retries: 0, {fields} routes: [{{ name: orders, paths: [/] }}] }}\n"
    )
}

fn expect_plain_text(response: &Response, status: u16, message: &str) {
    let id = response.header("x-kong-request-id").expect("a request id");
    assert_eq!(response.status, status);
    assert_eq!(response.text(), format!("{message}\nrequest_id: {id}\n"));
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(response.header("x-kong-response-latency").is_some());
}

const BAD_RESPONSE: &str = "An invalid response was received from the upstream server";
const TIMEOUT: &str = "The upstream server is timing out";

/// S06
#[test]
fn a_route_without_service_is_a_503() {
    let gateway = Gateway::start("routes:\n- { name: lonely, paths: [/] }\n");

    let response = gateway.get("/");

    assert_eq!(
        (response.status, response.message().as_str()),
        (503, "no Service found with those values")
    );
    assert_eq!(
        response.header("content-type"),
        Some("application/json; charset=utf-8")
    );
}

/// S06, S12
#[test]
fn an_upstream_without_targets_is_a_503() {
    let gateway = Gateway::start(
        "
        services:
        - { name: orders, host: pool, routes: [{ name: orders, paths: [/] }] }
        upstreams:
        - { name: pool }
        ",
    );

    let response = gateway.get("/");

    assert_eq!(response.status, 503);
    assert_eq!(
        response.message(),
        "failure to get a peer from the ring-balancer"
    );
}

#[test]
fn a_host_that_does_not_resolve_is_a_503() {
    let gateway = Gateway::start(&service_at("no-such-host.invalid", ""));

    let response = gateway.get("/");

    assert_eq!(
        (response.status, response.message().as_str()),
        (503, "name resolution failed")
    );
}

#[test]
fn a_refused_connection_is_a_502() {
    let gateway = Gateway::start(&service_at(&format!("127.0.0.1:{}", free_port()), ""));

    expect_plain_text(&gateway.get("/"), 502, BAD_RESPONSE);
}

#[test]
fn an_origin_that_breaks_the_connection_or_http_is_a_502() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/close" => Reply::close(),
        "/reset" => Reply::reset(),
        "/garbage" => Reply::raw("\x01\x02 not http\r\n\r\n").then_close(),
        "/version" => Reply::raw("HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "/status" => Reply::raw("HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"),
        "/lengths" => {
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
        }
        "/field" => Reply::raw("HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n"),
        "/switch" => Reply::raw(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        ),
        _ => Reply::ok("fine"),
    });
    let gateway = Gateway::start(&service_at(&origin.authority(), ""));

    let paths = [
        "/close", "/reset", "/garbage", "/version", "/status", "/lengths", "/field", "/switch",
    ];
    for path in paths {
        let response = gateway.get(path);
        assert_eq!(response.status, 502, "{path}");
        assert!(
            response.text().starts_with(BAD_RESPONSE),
            "{path}: {}",
            response.text()
        );
        assert_eq!(gateway.get("/fine").text(), "fine", "after {path}");
    }
}

/// S44
#[test]
fn silence_beyond_read_timeout_is_a_504() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&service_at(&origin.authority(), "read_timeout: 300,"));
    let watch = Stopwatch::start();

    let response = gateway.get("/");

    let took = watch.elapsed();
    expect_plain_text(&response, 504, TIMEOUT);
    assert!(
        took >= Duration::from_millis(290) && took < Duration::from_secs(2),
        "{took:?}"
    );
    origin.wait_for_open_connections(0);
}

/// S44: the timeout measures silence, so a slow but steady body goes on.
#[test]
fn a_steady_body_may_take_longer_than_read_timeout() {
    let origin = Origin::start(|_| {
        Reply::stream(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")?;
            for _ in 0..10 {
                Stopwatch::pace(Duration::from_millis(100));
                stream.write_all(b"x")?;
            }
            Ok(())
        })
    });
    let gateway = Gateway::start(&service_at(&origin.authority(), "read_timeout: 700,"));

    assert_eq!(gateway.get("/").text(), "xxxxxxxxxx");
}

#[test]
fn a_connection_that_is_not_accepted_is_a_504_after_connect_timeout() {
    let full = FullListener::new();
    let gateway = Gateway::start(&service_at(&full.authority, "connect_timeout: 300,"));
    let watch = Stopwatch::start();

    let response = gateway.get("/");

    expect_plain_text(&response, 504, TIMEOUT);
    assert!(
        watch.elapsed() >= Duration::from_millis(290),
        "{:?}",
        watch.elapsed()
    );
}

/// A listener whose backlog is full, so that further connections hang.
struct FullListener {
    authority: String,
    _listener: std::net::TcpListener,
    _pending: Vec<std::net::TcpStream>,
}

impl FullListener {
    fn new() -> Self {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&address.into()).expect("a free port");
        socket.listen(0).expect("a listening socket");
        let connect =
            || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let pending = std::iter::from_fn(connect).take(100).collect();
        Self {
            authority: address.to_string(),
            _listener: socket.into(),
            _pending: pending,
        }
    }
}

#[test]
fn an_origin_that_does_not_read_the_body_is_given_up_after_write_timeout() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
    let authority = listener.local_addr().expect("a bound address").to_string();
    let gateway = Gateway::start(&service_at(
        &authority,
        "write_timeout: 300, read_timeout: 10000,",
    ));
    let mut client = gateway.connect();

    client.write_in_background(Request::post("/", vec![0; 64 << 20]).bytes());
    let status = client.read_response().expect("an answer").status;

    assert!(matches!(status, 502 | 504), "{status}");
}

#[test]
fn a_body_over_the_limit_is_refused_before_the_origin_hears_of_it() {
    let origin = Origin::echoing();
    let gateway = Gateway::start_with("client_max_body_size: 1k", &one_service(&origin));

    let refused = gateway.send(&Request::post("/", vec![b'x'; 1025]));

    expect_plain_text(&refused, 413, "Payload too large");
    assert_eq!(origin.count(), 0);
    assert_eq!(
        gateway
            .send(&Request::post("/", vec![b'x'; 1024]))
            .body
            .len(),
        1024
    );
}

#[test]
fn a_chunked_body_is_refused_when_it_passes_the_limit() {
    let origin = Origin::echoing();
    let gateway = Gateway::start_with("client_max_body_size: 1k", &one_service(&origin));

    let refused = gateway.send(&Request::new("POST", "/").chunked(vec![b'x'; 4000], 500));

    assert_eq!(refused.status, 413);
    origin.wait_for_open_connections(0);
    assert!(origin.requests().iter().all(|request| !request.complete));
    assert_eq!(
        gateway
            .send(&Request::new("POST", "/").chunked(vec![b'x'; 1024], 500))
            .status,
        200
    );
}

/// Each form of the error body, for an error that defaults to JSON and one that defaults to plain text.
#[test]
fn the_error_body_follows_accept() {
    let gateway = Gateway::start(&format!(
        "services:\n- {{ name: dead, url: 'http://127.0.0.1:{}', retries: 0, routes: [{{ name: dead, paths: [/dead] }}] }}",
        free_port()
    ));
    for (accept, content_type) in [
        ("application/json", "application/json; charset=utf-8"),
        ("application/*", "application/json; charset=utf-8"),
        ("*/*", "application/json; charset=utf-8"),
        ("image/png", "application/json; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/*", "text/plain; charset=utf-8"),
        ("application/xml", "application/xml; charset=utf-8"),
        (
            "text/html;q=0.5, application/xml;q=0.9, */*;q=0.1",
            "application/xml; charset=utf-8",
        ),
        (
            "application/xml, text/html",
            "application/xml; charset=utf-8",
        ),
        (
            "text/plain;q=0, application/json;q=0.2",
            "application/json; charset=utf-8",
        ),
    ] {
        for (path, message) in [
            ("/nowhere", "no Route matched with those values"),
            ("/dead", BAD_RESPONSE),
        ] {
            let response = gateway.send(&Request::get(path).header("Accept", accept));
            assert_eq!(
                response.header("content-type"),
                Some(content_type),
                "{accept} {path}"
            );
            let length = response.body.len().to_string();
            assert_eq!(
                response.header("content-length"),
                Some(length.as_str()),
                "{accept} {path}"
            );
            expect_form(&response, content_type, message);
        }
    }
}

fn expect_form(response: &Response, content_type: &str, message: &str) {
    let id = response.header("x-kong-request-id").expect("a request id");
    let body = response.text();
    match content_type.split(';').next().unwrap_or_default() {
        "application/json" => {
            assert_eq!(
                body,
                format!("{{\n  \"message\":\"{message}\",\n  \"request_id\":\"{id}\"\n}}")
            );
        }
        "text/plain" => assert_eq!(body, format!("{message}\nrequest_id: {id}\n")),
        "application/xml" => assert_eq!(
            body,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  <requestid>{id}</requestid>\n</error>"
            )
        ),
        _ => {
            for part in [
                "<h1>Error</h1>",
                &format!("<p>{message}.</p>"),
                &format!("request_id: {id}"),
            ] {
                assert!(body.contains(part), "no {part} in {body}");
            }
        }
    }
}

#[test]
fn a_grpc_client_gets_its_error_in_headers() {
    let gateway = Gateway::start("routes:\n- { name: lonely, paths: [/lonely] }\n");

    let missing = gateway
        .send(&Request::post("/pkg.Service/Method", "").header("Content-Type", "application/grpc"));
    let lonely = gateway
        .send(&Request::post("/lonely", "").header("Content-Type", "application/grpc+proto"));

    for (response, status) in [(&missing, "12"), (&lonely, "14")] {
        assert_eq!((response.status, response.body.len()), (200, 0));
        assert_eq!(response.header("content-type"), Some("application/grpc"));
        assert_eq!(response.header("grpc-status"), Some(status));
    }
    assert_eq!(
        missing.header("grpc-message"),
        Some("no Route matched with those values")
    );
}

#[test]
fn the_default_form_of_proxy_errors_can_be_chosen() {
    let yaml = service_at(&format!("127.0.0.1:{}", free_port()), "");
    let gateway = Gateway::start_with("error_default_type: application/json", &yaml);

    let response = gateway.get("/");

    assert_eq!(
        (response.status, response.message().as_str()),
        (502, BAD_RESPONSE)
    );
}

#[test]
fn an_error_for_head_has_the_length_but_no_body() {
    let gateway = Gateway::start("routes:\n- { name: lonely, paths: [/lonely] }\n");
    let mut client = gateway.connect();

    let head = client.send(&Request::new("HEAD", "/nowhere"));

    assert_eq!(head.status, 404);
    assert_eq!(
        client.send(&Request::get("/lonely")).status,
        503,
        "the connection is still in step"
    );
}

#[test]
fn an_error_response_of_the_origin_passes_through_unchanged() {
    let origin = Origin::start(|request| {
        let status = request
            .target
            .trim_start_matches('/')
            .parse()
            .unwrap_or(200);
        Reply::status(status)
            .header("Content-Type", "text/x-mine")
            .body("from the origin")
    });
    let gateway = Gateway::start(&one_service(&origin));

    for status in [
        400, 401, 403, 404, 405, 413, 418, 429, 499, 500, 502, 503, 504, 599,
    ] {
        let response = gateway.get(&format!("/{status}"));
        let seen = (
            response.status,
            response.text(),
            response.header("content-type").map(str::to_owned),
        );
        assert_eq!(
            seen,
            (
                status,
                "from the origin".to_owned(),
                Some("text/x-mine".to_owned())
            )
        );
    }
}

#[test]
fn trace_is_refused_and_not_echoed() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));

    let response = gateway.send(&Request::new("TRACE", "/").header("X-Secret", "do-not-echo"));

    assert_eq!(response.status, 405);
    assert!(!response.text().contains("do-not-echo"));
    assert_eq!(origin.count(), 0);
}

/// S12
#[test]
fn no_error_names_an_internal_address() {
    let port = free_port();
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: dead, host: secret-pool, retries: 1, routes: [{{ name: dead, paths: [/dead] }}] }}
        - {{ name: void, host: secret-void, retries: 1, routes: [{{ name: void, paths: [/void] }}] }}
        upstreams:
        - {{ name: secret-pool, targets: [{{ target: '127.0.0.1:{port}' }}] }}
        - {{ name: secret-void, targets: [{{ target: '127.0.0.1:{port}', weight: 0 }}] }}
        "
    ));
    for (path, status) in [("/dead", 502), ("/void", 503), ("/none", 404)] {
        let response = gateway.get(path);
        let seen = format!(
            "{}{}",
            String::from_utf8_lossy(&response.head.raw),
            response.text()
        );
        assert_eq!(response.status, status);
        for secret in [
            port.to_string(),
            "127.0.0.1".to_owned(),
            "secret-".to_owned(),
            "gateway.yaml".to_owned(),
        ] {
            assert!(!seen.contains(&secret), "{path} tells {secret}: {seen}");
        }
    }
}

/// S06
#[test]
fn answers_of_the_gateway_are_counted_by_reason() {
    let silent = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: dead, url: 'http://127.0.0.1:{}', retries: 0, routes: [{{ name: dead, paths: [/dead] }}] }}
        - {{ name: slow, url: '{silent}', retries: 0, read_timeout: 100, routes: [{{ name: slow, paths: [/slow] }}] }}
        - {{ name: void, host: void, routes: [{{ name: void, paths: [/void] }}] }}
        upstreams:
        - {{ name: void }}
        ",
        free_port()
    ));
    for (path, reason) in [
        ("/none", "no_route"),
        ("/dead", "upstream_connect"),
        ("/slow", "upstream_timeout"),
        ("/void", "no_healthy_upstream"),
    ] {
        let count = || gateway.metric(&format!("tollgate_replies_total{{reason=\"{reason}\"}}"));
        let before = count();
        gateway.get(path);
        wait_until(&format!("a reply counted as {reason}"), || {
            count() >= before + 1.0
        });
    }
}

/// What came is passed on, and the client can tell that it is not all.
#[test]
fn a_response_that_breaks_off_is_never_passed_off_as_complete() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/length" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").then_close(),
        _ => Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")
            .then_close(),
    });
    let gateway = Gateway::start(&one_service(&origin));

    for path in ["/length", "/chunked"] {
        let response = gateway.get(path);
        assert!(
            !response.complete,
            "{path} ended as if complete: {}",
            response.text()
        );
    }
}

#[test]
fn surplus_bytes_of_a_response_never_reach_another_one() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/long" => Reply::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        ),
        _ => Reply::ok("clean"),
    });
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();

    for _ in 0..10 {
        assert_eq!(client.send(&Request::get("/long")).text(), "hello");
        assert_eq!(client.send(&Request::get("/clean")).text(), "clean");
    }
}

#[test]
fn interim_responses_of_the_origin_do_not_hide_the_final_one() {
    let origin = Origin::start(|_| {
        Reply::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
        )
    });
    let gateway = Gateway::start(&one_service(&origin));

    let response = gateway.get("/");

    assert_eq!((response.status, response.text().as_str()), (200, "final"));
    assert!(
        response.interim.iter().all(|status| *status == 103),
        "{:?}",
        response.interim
    );
}

#[test]
fn an_early_refusal_by_the_origin_is_delivered() {
    let port = free_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream
            .write_all(
                b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
            )
            .expect("written");
        // The client's bytes are read so that closing does not reset the connection.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let gateway = Gateway::start(&service_at(&format!("127.0.0.1:{port}"), ""));
    let mut client = Client::connect(gateway.port());

    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nfirst bytes")
        .expect("written");
    let response = client.read_response().expect("an answer");

    assert_eq!((response.status, response.text().as_str()), (413, "big"));
    drop(client);
    drop(gateway);
    origin.join().expect("the origin ends");
}
