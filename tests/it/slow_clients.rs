//! Clients that are slow, silent or gone.

use std::time::Duration;

use crate::harness::{
    Blueprint, Client, Gateway, Origin, Reply, Request, Stopwatch, one_service, wait_until,
};

const SOON: Duration = Duration::from_secs(6);

/// Writes a byte every 50 ms until the gateway has something to say.
fn trickle(client: &mut Client, byte: &str) {
    let watch = Stopwatch::start();
    while !client.hears_within(Duration::from_millis(50)) {
        assert!(
            watch.elapsed() < SOON,
            "the gateway still listens to a trickle after {SOON:?}"
        );
        let _ = client.write(byte);
    }
}

/// S66
#[test]
fn a_trickling_head_is_a_408_after_its_deadline() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("client_header_timeout: 0.5", &one_service(&origin));
    let mut client = gateway.connect();
    let watch = Stopwatch::start();

    client
        .write("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        .expect("written");
    trickle(&mut client, "a");
    let response = client.read_response().expect("an answer");

    assert_eq!(response.status, 408);
    assert!(
        response.text().starts_with("Request timeout"),
        "{}",
        response.text()
    );
    assert!(
        watch.elapsed() >= Duration::from_millis(450),
        "{:?}",
        watch.elapsed()
    );
    assert!(client.closed_within(SOON).is_some());
    assert_eq!(origin.count(), 0);
}

/// S66
#[test]
fn a_client_that_never_speaks_is_closed() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("client_header_timeout: 0.5", &one_service(&origin));

    let mut silent = gateway.connect();
    let mut interrupted = gateway.connect();
    interrupted.write("GET / HT").expect("written");

    assert!(silent.closed_within(SOON).is_some());
    assert!(interrupted.closed_within(SOON).is_some());
}

#[test]
fn an_idle_keep_alive_connection_is_closed_without_a_word() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("keepalive_timeout: 0.5", &one_service(&origin));
    let mut client = gateway.connect();
    assert_eq!(client.send(&Request::get("/")).status, 200);
    let watch = Stopwatch::start();

    let rest = client.closed_within(SOON).expect("a closed connection");

    assert_eq!(rest, b"");
    assert!(
        watch.elapsed() >= Duration::from_millis(450),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn a_body_that_stops_is_a_408_and_never_complete_upstream() {
    let origin = Origin::echoing();
    let gateway = Gateway::start_with("client_body_timeout: 0.5", &one_service(&origin));

    for head in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = gateway.connect();
        client
            .write(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"))
            .expect("written");
        let response = client.read_response().expect("an answer");
        assert_eq!(response.status, 408, "{head}");
        assert!(client.closed_within(SOON).is_some(), "{head}");
    }
    origin.wait_for_open_connections(0);
    assert!(origin.requests().iter().all(|request| !request.complete));
}

#[test]
fn a_slow_but_steady_body_is_accepted() {
    let origin = Origin::echoing();
    let gateway = Gateway::start_with("client_body_timeout: 1", &one_service(&origin));
    let mut client = gateway.connect();

    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n")
        .expect("written");
    for _ in 0..20 {
        Stopwatch::pace(Duration::from_millis(80));
        client.write("x").expect("written");
    }

    assert_eq!(
        client.read_response().expect("an answer").text(),
        "x".repeat(20)
    );
}

#[test]
fn a_client_that_leaves_cancels_its_upstream_request() {
    let origin = Origin::start(|_| Reply::never());
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();
    client.write(Request::get("/").bytes()).expect("written");
    origin.wait_until("the request", |requests| requests.len() == 1);
    let watch = Stopwatch::start();

    drop(client);

    origin.wait_for_open_connections(0);
    assert!(
        watch.elapsed() < Duration::from_secs(3),
        "{:?}",
        watch.elapsed()
    );
    gateway.wait_for_access_log("499");
}

#[test]
fn a_client_that_half_closes_after_its_request_is_answered_or_treated_as_gone() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();

    client.write(Request::get("/").bytes()).expect("written");
    client.half_close();

    if let Ok(response) = client.read_response() {
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    }
    assert!(client.closed_within(SOON).is_some());
}

/// S66
#[test]
fn clients_over_the_limit_wait_or_are_refused_while_the_admin_listener_answers() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("client_max_connections: 2", &one_service(&origin));
    let mut holders = [gateway.connect(), gateway.connect()];
    for holder in &mut holders {
        assert_eq!(holder.send(&Request::get("/")).status, 200);
    }

    let mut third = gateway.connect();
    third.write(Request::get("/").bytes()).expect("written");
    if third.hears_within(Duration::from_millis(500)) {
        let status = third
            .read_response()
            .map_or(503, |response| response.status);
        assert_eq!(status, 503);
    }
    assert_eq!(gateway.admin("/status").status, 200);
    assert_eq!(holders[0].send(&Request::get("/")).status, 200);

    drop(holders);
    drop(third);
    let served = || {
        Client::try_connect(gateway.port())
            .and_then(|mut client| client.try_send(&Request::get("/")))
    };
    wait_until("service for new clients", || {
        served().is_ok_and(|response| response.status == 200)
    });
}

#[test]
fn many_idle_connections_do_not_keep_others_from_being_served() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service(&origin));
    let before = gateway.rss_bytes();

    let idle: Vec<Client> = (0..300).map(|_| gateway.connect()).collect();

    assert_eq!(gateway.get("/").text(), "hello");
    let growth = gateway.rss_bytes().saturating_sub(before);
    assert!(
        growth < 32 << 20,
        "{growth} bytes for {} idle connections",
        idle.len()
    );
}

/// The origin is held back instead of the response being kept in memory.
#[test]
fn a_response_that_the_client_does_not_read_is_not_piled_up() {
    const BODY: usize = 64 << 20;
    let origin = Origin::start(|request| match request.target.as_str() {
        "/large" => Reply::ok(vec![b'x'; BODY]),
        _ => Reply::ok("hello"),
    });
    let gateway = Gateway::start(&one_service(&origin));
    assert_eq!(gateway.get("/").status, 200);
    let before = gateway.rss_bytes();
    let mut clients: Vec<Client> = (0..3).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client
            .write(Request::get("/large").bytes())
            .expect("written");
        assert!(client.hears_within(SOON), "the response begins");
    }

    // Time enough to take all of it, if it were taken.
    for _ in 0..10 {
        Stopwatch::pace(Duration::from_millis(100));
        let growth = gateway.rss_bytes().saturating_sub(before);
        assert!(growth < 24 << 20, "{growth} bytes for three responses");
    }

    assert_eq!(gateway.get("/").text(), "hello");
    let whole = clients.remove(0).read_response().expect("an answer");
    assert_eq!((whole.body.len(), whole.complete), (BODY, true));
}

/// Reliability 3.5.
#[test]
fn a_client_that_takes_nothing_of_its_response_is_cut_in_time() {
    let origin = Origin::start(|_| Reply::ok(vec![b'x'; 64 << 20]));
    let gateway = Gateway::start_with("client_send_timeout: 0.5", &one_service(&origin));
    let mut stuck = gateway.connect();
    stuck.write(Request::get("/").bytes()).expect("written");
    assert!(stuck.hears_within(SOON), "the response begins");

    gateway.wait_for_access_log("\"error\":\"client_closed\"");

    origin.wait_for_open_connections(0);
    let received = stuck.read_response();
    assert!(
        received.is_err() || received.is_ok_and(|response| !response.complete),
        "the response is not whole"
    );
}

#[test]
fn a_response_that_is_taken_slowly_but_steadily_is_whole() {
    const BODY: usize = 8 << 20;
    let origin = Origin::start(|_| Reply::ok(vec![b'x'; BODY]));
    let gateway = Gateway::start_with("client_send_timeout: 0.5", &one_service(&origin));
    let mut slow = gateway.connect();
    slow.write(Request::get("/").bytes()).expect("written");
    let head = slow.read_head().expect("a head");
    assert_eq!(
        head.header("Content-Length"),
        Some(BODY.to_string().as_str())
    );

    for piece in 0..32 {
        Stopwatch::pace(Duration::from_millis(50));
        let taken = slow.take(BODY / 32);
        assert!(taken.is_ok(), "cut after {piece} of 32 pieces: {taken:?}");
    }
}

#[test]
fn without_descriptors_idle_connections_make_room_and_nothing_spins() {
    let origin = Origin::replying("hello");
    let gateway = Blueprint::new("upstream_keepalive_pool_size: 2")
        .with_open_files_max(64)
        .start(&one_service(&origin));
    assert_eq!(gateway.get("/").status, 200);
    let level = gateway.open_files();
    let mut idle: Vec<Client> = (0..100).map(|_| gateway.connect()).collect();
    for client in &mut idle {
        // Some of them are never accepted.
        let _ = client.write("GET /idle HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gateway.wait_for_log("idle connections are closed to make room");

    wait_until("service for a new client", || {
        let served = Client::try_connect(gateway.port())
            .and_then(|mut client| client.try_send(&Request::get("/")));
        served.is_ok_and(|response| response.status == 200)
    });

    let complaints = gateway.log().matches("cannot accept").count();
    assert!(complaints <= 2, "{complaints} lines about the same");
    drop(idle);
    wait_until("an end of the shortage", || {
        gateway.open_files() <= level + 4
    });
    assert_eq!(gateway.get("/").status, 200);
}
