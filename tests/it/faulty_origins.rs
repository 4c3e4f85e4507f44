//! Origins that break HTTP: what of it a client gets to see, and that nothing of it reaches anybody
//! else. What origins may do within HTTP is in `forwarding.rs`, how they fail in `errors.rs`.

use std::io::Write as _;

use crate::harness::http2::{Http2Client, INTERNAL_ERROR};
use crate::harness::{Client, Gate, Gateway, Origin, Reply, Request, free_port, wait_until};

/// A catch-all route to this origin, with more fields for the service.
fn service(origin: &Origin, fields: &str) -> String {
    format!(
        "services:\n- {{ name: orders, url: '{origin}', {fields} routes: [{{ name: orders, paths: [/] }}] }}\n"
    )
}

/// Sends these bytes for `/bad`, and `fine` for everything else.
fn origin_sending(bytes: impl Into<Vec<u8>>) -> Origin {
    let bytes = bytes.into();
    Origin::start(move |request| {
        if request.target == "/bad" {
            Reply::raw(bytes.clone())
        } else {
            Reply::ok("fine")
        }
    })
}

const INVALID: &str = "An invalid response was received from the upstream server";

#[test]
fn a_head_that_is_no_http_is_a_502_and_its_connection_is_not_used_again() {
    for head in [
        "garbage\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 1000 High\r\n\r\n",
        "HTTP/1.1 2xx OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/9 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\r\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: a\x07b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-\u{e4}: b\r\nContent-Length: 0\r\n\r\n",
    ] {
        let origin = origin_sending(head);
        let gateway = Gateway::start(&service(&origin, "retries: 0,"));

        let response = gateway.get("/bad");

        assert_eq!(response.status, 502, "{head:?}");
        assert!(response.text().starts_with(INVALID), "{head:?}");
        assert_eq!(response.header("X-A"), None, "{head:?}");
        assert_eq!(gateway.get("/").text(), "fine", "{head:?}");
        assert_eq!(origin.connections(), 2, "{head:?}");
    }
}

#[test]
fn a_response_that_could_end_in_two_places_is_a_502() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999999",
        "Content-Length: five",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "transfer-encoding:chunked\r\nX-A: b\r\ncontent-length:6",
    ] {
        let origin = origin_sending(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello!"));
        let gateway = Gateway::start(&service(&origin, "retries: 0,"));

        let response = gateway.get("/bad");

        assert_eq!(response.status, 502, "{fields}");
        assert_eq!(gateway.get("/").text(), "fine", "{fields}");
        assert_eq!(origin.connections(), 2, "{fields}");
    }
}

#[test]
fn a_transfer_coding_of_http_1_0_is_a_502() {
    let origin = origin_sending(
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let gateway = Gateway::start(&service(&origin, "retries: 0,"));

    assert_eq!(gateway.get("/bad").status, 502);
    assert_eq!(gateway.get("/").text(), "fine");
}

#[test]
fn a_line_that_is_folded_arrives_as_one_line_or_not_at_all() {
    let origin = origin_sending(
        "HTTP/1.1 200 OK\r\nX-A: a\r\n Set-Cookie: stolen\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(&service(&origin, "retries: 0,"));

    let response = gateway.get("/bad");

    assert_eq!(response.header("Set-Cookie"), None);
    if response.status == 200 {
        assert_eq!(response.header("X-A"), Some("a Set-Cookie: stolen"));
    } else {
        assert_eq!(response.status, 502);
    }
}

#[test]
fn lines_that_end_without_a_carriage_return_arrive_as_proper_ones() {
    let origin = origin_sending("HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok");
    let gateway = Gateway::start(&service(&origin, "retries: 0,"));

    let response = gateway.get("/bad");

    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.header("X-A"), Some("b"));
}

#[test]
fn a_head_that_is_too_large_is_a_502() {
    let fields = |count: usize, bytes: usize| {
        let value = "x".repeat(bytes);
        let fields = (0..count).map(|number| format!("X-{number}: {value}\r\n"));
        fields.collect::<Vec<_>>().concat()
    };
    for (name, fields, status) in [
        ("190 fields", fields(190, 10), 200),
        ("201 fields", fields(201, 10), 502),
        ("1000 fields", fields(1000, 10), 502),
        ("48 KiB", fields(6, 8 * 1024), 200),
        ("66 KiB", fields(11, 6 * 1024), 502),
        ("one field of 70 KiB", fields(1, 70 * 1024), 502),
        ("2 MiB", fields(200, 10 * 1024), 502),
    ] {
        let origin = origin_sending(format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"
        ));
        let gateway = Gateway::start(&service(&origin, "retries: 0,"));

        assert_eq!(gateway.get("/bad").status, status, "{name}");
        assert_eq!(gateway.get("/").text(), "fine", "{name}");
    }
}

/// What came is passed on, then the connection ends in a way that cannot be taken for the end of the
/// body.
#[test]
fn a_body_that_breaks_off_aborts_the_client_and_is_logged() {
    let origin = Origin::start(|request| {
        let head = "HTTP/1.1 200 OK\r\n";
        match request.target.as_str() {
            "/length" => Reply::raw(format!("{head}Content-Length: 9\r\n\r\nshort")).then_close(),
            "/chunked" => Reply::raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"
            ))
            .then_close(),
            "/chunk" => Reply::raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n9\r\nshort"
            ))
            .then_close(),
            "/chunk-size" => Reply::raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\nmore"
            )),
            "/chunk-end" => Reply::raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n5\r\nshort__0\r\n\r\n"
            )),
            _ => Reply::ok("fine"),
        }
    });
    let gateway = Gateway::start_with_http2("", &service(&origin, "retries: 0,"));
    let http2 = Http2Client::connect(gateway.port());

    for path in ["/length", "/chunked", "/chunk", "/chunk-size", "/chunk-end"] {
        let over_1 = gateway.connect().try_send(&Request::get(path));
        assert!(
            over_1.is_err()
                || over_1.is_ok_and(|response| !response.complete || response.status == 502),
            "{path}"
        );
        let over_2 = http2.begin(http2.request("GET", path), true).try_finish();
        match over_2 {
            Ok(response) => assert_eq!(response.status, 502, "{path}"),
            Err(error) => {
                let reason = error.reason().map(u32::from);
                assert_eq!(reason, Some(INTERNAL_ERROR), "{path}");
            }
        }
        assert_eq!(gateway.get("/").text(), "fine", "after {path}");
        assert_eq!(http2.get("/").text(), "fine", "after {path}");
    }
    gateway.wait_for_access_log("\"error\":\"upstream_reset\"");
}

#[test]
fn a_body_that_is_longer_than_its_length_is_cut_there_and_its_connection_closed() {
    let origin = origin_sending(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    let gateway = Gateway::start_with_http2("", &service(&origin, "retries: 0,"));
    let http2 = Http2Client::connect(gateway.port());

    for round in 1..4 {
        assert_eq!(gateway.get("/bad").text(), "hello");
        assert_eq!(http2.get("/bad").text(), "hello");
        assert_eq!(gateway.get("/").text(), "fine", "round {round}");
        assert_eq!(http2.get("/").text(), "fine", "round {round}");
    }
}

#[test]
fn what_has_no_body_is_not_given_one_and_its_connection_is_closed() {
    let origin = Origin::start(|request| {
        let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        match (request.method.as_str(), request.target.as_str()) {
            (_, "/204") => Reply::raw(format!("HTTP/1.1 204 No Content\r\n\r\n{poison}")),
            (_, "/304") => Reply::raw(format!("HTTP/1.1 304 Not Modified\r\n\r\n{poison}")),
            ("HEAD", _) => Reply::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{poison}"
            )),
            _ => Reply::ok("fine"),
        }
    });
    let gateway = Gateway::start(&service(&origin, "retries: 0,"));
    let mut client = gateway.connect();

    for (method, path, status) in [
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/", 200),
    ] {
        for _ in 0..3 {
            let response = client.send(&Request::new(method, path));
            assert_eq!(
                (response.status, response.text().as_str()),
                (status, ""),
                "{method} {path}"
            );
            assert_eq!(client.send(&Request::get("/")).text(), "fine");
        }
    }
    assert!(origin.connections() >= 9, "{}", origin.connections());
}

#[test]
fn what_an_origin_says_unasked_on_an_idle_connection_answers_nobody() {
    let said = Gate::new();
    let told = said.clone();
    let origin = Origin::start(move |request| {
        if request.number > 0 {
            return Reply::ok("fine");
        }
        let said = told.clone();
        Reply::stream(move |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")?;
            said.wait();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        })
    });
    let gateway = Gateway::start(&service(&origin, "retries: 0,"));
    assert_eq!(gateway.get("/").text(), "first");

    said.open();
    wait_until("the connection is given up", || {
        origin.open_connections() == 0
    });

    for _ in 0..3 {
        assert_eq!(gateway.get("/").text(), "fine");
    }
}

#[test]
fn interim_responses_come_before_the_final_one_and_never_instead() {
    let many = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(20);
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/many" => Reply::raw(format!(
            "{many}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal"
        )),
        "/continue" => Reply::raw(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
        ),
        "/only" => Reply::raw("HTTP/1.1 103 Early Hints\r\n\r\n").then_close(),
        "/switch" => Reply::raw(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
        ),
        _ => Reply::ok("fine"),
    });
    let gateway = Gateway::start(&service(&origin, "retries: 0,"));

    for path in ["/many", "/continue"] {
        let response = gateway.get(path);
        assert_eq!((response.status, response.text().as_str()), (200, "final"));
        let interim = &response.interim;
        assert!(interim.iter().all(|status| *status == 103), "{interim:?}");
    }
    for path in ["/only", "/switch"] {
        assert_eq!(gateway.get(path).status, 502, "{path}");
        assert_eq!(gateway.get("/").text(), "fine", "after {path}");
    }
}

/// The origin answers before it has read the body, and resets the connection by closing it.
#[test]
fn an_early_answer_is_delivered_though_the_origin_slams_the_door() {
    let port = free_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 512];
            let _ = std::io::Read::read(&mut stream, &mut head);
            let _ = stream.write_all(
                b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
            );
        }
    });
    let gateway = Gateway::start(&format!(
        "services:\n- {{ name: orders, url: 'http://127.0.0.1:{port}', retries: 0, routes: [{{ name: orders, paths: [/] }}] }}\n"
    ));

    for attempt in 0..5 {
        let mut client = Client::connect(gateway.port());
        client
            .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nfirst bytes")
            .expect("written");
        let response = client.read_response().expect("an answer");
        assert_eq!(
            (response.status, response.text().as_str()),
            (413, "big"),
            "attempt {attempt}"
        );
    }
}

#[test]
fn a_reset_before_an_answer_is_repeated_for_what_may_be_and_never_sends_a_post_twice() {
    for (method, status, requests) in [("GET", 200, 2), ("PUT", 200, 2), ("POST", 502, 1)] {
        let origin = Origin::start(|request| {
            if request.number == 0 {
                Reply::reset()
            } else {
                Reply::ok("second")
            }
        });
        let gateway = Gateway::start(&service(&origin, "retries: 3,"));

        assert_eq!(
            gateway.send(&Request::new(method, "/").body("x")).status,
            status,
            "{method}"
        );
        assert_eq!(origin.count(), requests, "{method}");
    }
}

#[test]
fn garbage_before_an_answer_is_repeated_for_what_may_be() {
    for (method, status, requests) in [("GET", 200, 2), ("POST", 502, 1)] {
        let origin = Origin::start(|request| {
            if request.number == 0 {
                Reply::raw("garbage\r\n\r\n").then_close()
            } else {
                Reply::ok("second")
            }
        });
        let gateway = Gateway::start(&service(&origin, "retries: 3,"));

        assert_eq!(
            gateway.send(&Request::new(method, "/").body("x")).status,
            status
        );
        assert_eq!(origin.count(), requests, "{method}");
    }
}

/// The origin reads a POST on a kept connection and closes: whether it did something is not known.
#[test]
fn a_post_on_a_kept_connection_that_closes_is_sent_once() {
    let origin = Origin::start(|request| {
        if request.method == "POST" {
            Reply::close()
        } else {
            Reply::ok("warm")
        }
    });
    let gateway = Gateway::start(&service(&origin, "retries: 5,"));
    assert_eq!(gateway.get("/").text(), "warm");

    assert_eq!(gateway.send(&Request::post("/", "once")).status, 502);

    let posts = origin
        .requests()
        .iter()
        .filter(|request| request.method == "POST")
        .count();
    assert_eq!((posts, origin.connections()), (1, 1));
}

#[test]
fn an_upstream_that_refuses_is_tried_as_often_as_it_may_be_and_no_more() {
    let gateway = Gateway::start(&format!(
        "services:\n- {{ name: orders, url: 'http://127.0.0.1:{}', retries: 3, routes: [{{ name: orders, paths: [/] }}] }}\n",
        free_port()
    ));

    assert_eq!(gateway.get("/refused").status, 502);

    let retries = gateway.metric("tollgate_upstream_retries_total{service=\"orders\"}");
    assert!((retries - 3.0).abs() < f64::EPSILON, "{retries}");
    wait_until("the entry", || gateway.access_log().contains("/refused"));
    let log = gateway.access_log();
    assert_eq!(
        log.matches("\"outcome\":\"upstream_connect\"").count(),
        4,
        "{log}"
    );
}
