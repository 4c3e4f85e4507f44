//! Connections to origins and from clients: when they are kept, reused and closed.

use std::time::Duration;

use crate::harness::{
    Gate, Gateway, Origin, Reply, Request, Stopwatch, one_service, pool, wait_until,
};

/// S43
#[test]
fn a_thousand_sequential_requests_open_one_upstream_connection() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("threads: 1", &one_service(&origin));
    let mut client = gateway.connect();

    for _ in 0..1000 {
        assert_eq!(client.send(&Request::get("/")).status, 200);
    }

    assert_eq!((origin.count(), origin.connections()), (1000, 1));
}

/// S43
#[test]
fn connections_are_shared_between_clients_methods_and_routes() {
    let origin = Origin::echoing();
    let gateway = Gateway::start(&format!(
        "{}\n  - name: second\n    paths: [/second]",
        one_service(&origin)
    ));

    for number in 0..50 {
        let path = ["/", "/second"][number % 2];
        assert_eq!(gateway.send(&Request::post(path, "body")).text(), "body");
        assert_eq!(gateway.send(&Request::new("HEAD", path)).status, 200);
    }

    // A new client may come in the moment before the connection of the last one is back in the pool.
    assert_eq!(origin.count(), 100);
    assert!(
        origin.connections() <= 3,
        "{} connections",
        origin.connections()
    );
}

/// S43
#[test]
fn no_more_idle_connections_are_kept_than_the_pool_holds() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("hello").after(&held));
    let gateway = Gateway::start_with(
        "threads: 1\nupstream_keepalive_pool_size: 2",
        &one_service(&origin),
    );

    let statuses = std::thread::scope(|scope| {
        let visitors = scope
            .spawn(|| gateway.concurrently(6, |client| client.send(&Request::get("/")).status));
        origin.wait_until("six requests at once", |requests| requests.len() == 6);
        gate.open();
        visitors.join().expect("six visitors")
    });

    assert_eq!((statuses, origin.connections()), (vec![200; 6], 6));
    origin.wait_for_open_connections(2);
}

/// S43: over the limit a request waits, and is refused when it waited for too long.
#[test]
fn a_target_never_has_more_than_its_maximum_of_connections() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::ok("late").after(&held));
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: api, host: pool, connect_timeout: 300, retries: 0, routes: [{{ name: all, paths: [/] }}] }}
        upstreams:
        - name: pool
          max_connections: 2
          targets: [{{ target: '{}' }}]
        ",
        origin.authority()
    ));
    let mut holders = [gateway.connect(), gateway.connect()];
    for holder in &mut holders {
        holder.write(Request::get("/").bytes()).expect("written");
    }
    origin.wait_until("both requests", |requests| requests.len() == 2);

    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(origin.connections(), 2);

    gate.open();
    for holder in &mut holders {
        assert_eq!(holder.read_response().expect("an answer").text(), "late");
    }
    assert_eq!(gateway.get("/").text(), "late");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_pool_of_size_zero_keeps_nothing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("upstream_keepalive_pool_size: 0", &one_service(&origin));

    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 200);
    }

    assert_eq!(origin.connections(), 5);
    origin.wait_for_open_connections(0);
}

#[test]
fn an_idle_upstream_connection_is_closed_after_its_timeout() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("upstream_keepalive_idle_timeout: 1", &one_service(&origin));

    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(origin.open_connections(), 1);

    origin.wait_for_open_connections(0);
}

/// The idle ones at once, those in use when their request is over.
#[test]
fn connections_of_a_target_that_left_are_closed() {
    let gate = Gate::new();
    let held = gate.clone();
    let leaves = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("late").after(&held),
        _ => Reply::ok("leaves"),
    });
    let stays = Origin::replying("stays");
    let settings = "upstream_keepalive_idle_timeout: 3600";
    let gateway = Gateway::start_with(settings, &pool(&[(&leaves, 1), (&stays, 1)]));
    let mut busy = gateway.connect();
    busy.write(Request::get("/held").bytes()).expect("written");
    leaves.wait_until("the held request", |requests| requests.len() == 1);
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let before = leaves.count();
    assert_eq!((before, leaves.open_connections()), (3, 2));

    gateway.reload(&pool(&[(&stays, 1)]));

    leaves.wait_for_open_connections(1);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "stays");
    }
    assert_eq!(leaves.count(), before);
    gate.open();
    assert_eq!(busy.read_response().expect("an answer").text(), "late");
    leaves.wait_for_open_connections(0);
    assert_eq!(stays.open_connections(), stays.connections());
}

/// The pool belongs to the address: its upstream may be called otherwise, and so may its service.
#[test]
fn connections_survive_an_edit_of_all_that_leads_to_them() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("threads: 1", &pool(&[(&origin, 1)]));
    assert_eq!(gateway.get("/").status, 200);

    gateway.reload(&pool(&[(&origin, 7)]).replace("pool", "lake"));
    assert_eq!(gateway.get("/").status, 200);
    gateway.reload(&one_service(&origin));
    assert_eq!(gateway.get("/").status, 200);

    assert_eq!((origin.count(), origin.connections()), (3, 1));
}

#[test]
fn an_upstream_connection_is_closed_after_its_number_of_requests() {
    let origin = Origin::replying("hello");
    let settings = "threads: 1\nupstream_keepalive_max_requests: 3";
    let gateway = Gateway::start_with(settings, &one_service(&origin));

    for _ in 0..7 {
        assert_eq!(gateway.get("/").status, 200);
    }

    assert_eq!(origin.connections(), 3);
    origin.wait_for_open_connections(1);
    let written = std::fs::read_to_string(gateway.file()).expect("the document");
    gateway.changing_configuration(|| {
        gateway.replace_exactly(&written.replace("requests: 3", "requests: 0"));
    });
    for _ in 0..7 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(origin.connections(), 3);
}

/// What the upstream closes while nobody uses it is closed here too, before anybody asks.
#[test]
fn an_idle_connection_that_the_origin_closes_is_let_go() {
    let origin = Origin::start(|_| Reply::ok("hello").then_close());
    let gateway = Gateway::start(&one_service(&origin));
    let level = gateway.open_files();

    assert_eq!(gateway.get("/").status, 200);

    wait_until("the descriptor to be given back", || {
        gateway.open_files() <= level
    });
}

#[test]
fn each_target_has_its_own_maximum_and_one_with_room_is_asked_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let busy = Origin::start(move |_| Reply::ok("busy").after(&held));
    let free = Origin::replying("free");
    let document = pool(&[(&busy, 100), (&free, 1)])
        .replace("- name: pool", "- name: pool\n  max_connections: 1");
    let gateway = Gateway::start(&document);
    let mut holder = gateway.connect();
    holder.write(Request::get("/").bytes()).expect("written");
    busy.wait_until("the request", |requests| requests.len() == 1);
    let watch = Stopwatch::start();

    for _ in 0..3 {
        assert_eq!(gateway.get("/").text(), "free");
    }

    // A connection may take a minute.
    assert!(watch.elapsed() < Duration::from_secs(10));
    assert_eq!(busy.count(), 1);
    gate.open();
    assert_eq!(holder.read_response().expect("an answer").text(), "busy");
}

#[test]
fn an_origin_that_announces_close_is_not_asked_again_on_that_connection() {
    let origin = Origin::start(|_| {
        Reply::ok("hello")
            .header("Connection", "close")
            .then_close()
    });
    let gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();

    for _ in 0..5 {
        let response = client.send(&Request::post("/", "x"));
        assert_eq!(
            (response.status, response.announces_close()),
            (200, false),
            "the client's connection lives on"
        );
    }

    assert_eq!((origin.count(), origin.connections()), (5, 5));
}

#[test]
fn a_client_connection_is_retired_after_keepalive_requests() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with("keepalive_requests: 3", &one_service(&origin));
    let mut client = gateway.connect();

    let announcements: Vec<bool> = (0..3)
        .map(|_| client.send(&Request::get("/")).announces_close())
        .collect();

    assert_eq!(announcements, [false, false, true]);
    assert!(
        client
            .closed_within(Duration::from_secs(5))
            .is_some_and(|rest| rest.is_empty())
    );
}

#[test]
fn an_aborted_download_does_not_return_its_connection_to_the_pool() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("late").after(&held),
        _ => Reply::ok("clean"),
    });
    let gateway = Gateway::start(&one_service(&origin));

    let mut client = gateway.connect();
    client
        .write(Request::get("/held").bytes())
        .expect("a written request");
    origin.wait_until("the request", |requests| requests.len() == 1);
    drop(client);
    // One client after itself needs one upstream connection; two clients might need two.
    let mut other = gateway.connect();
    let mut text = || other.send(&Request::get("/")).text();
    let texts: Vec<String> = (0..5).map(|_| text()).collect();
    gate.open();

    assert_eq!(texts, ["clean"; 5]);
    wait_until("the held connection to end", || {
        origin.open_connections() <= 1
    });
    assert_eq!(text(), "clean");
}

/// The target goes out while a request waits for its turn there.
#[test]
fn a_request_that_waited_for_a_connection_does_not_go_to_a_target_that_is_out_by_then() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Reply::status(500).after(&held));
    let gateway = Gateway::start(&format!(
        "
        services:
        - {{ name: api, host: pool, retries: 0, routes: [{{ name: all, paths: [/] }}] }}
        upstreams:
        - name: pool
          max_connections: 1
          healthchecks: {{ passive: {{ unhealthy: {{ http_failures: 1 }} }} }}
          targets: [{{ target: '{}' }}]
        ",
        origin.authority()
    ));
    let mut first = gateway.connect();
    first.write(Request::get("/").bytes()).expect("written");
    origin.wait_until("the request", |requests| requests.len() == 1);
    let mut second = gateway.connect();
    second.write(Request::get("/").bytes()).expect("written");
    assert!(
        !second.hears_within(Duration::from_millis(300)),
        "it has to wait"
    );

    gate.open();

    assert_eq!(first.read_response().expect("an answer").status, 500);
    assert_eq!(second.read_response().expect("an answer").status, 503);
    gateway.wait_for_access_log("\"error\":\"no_healthy_upstream\"");
    assert_eq!(origin.count(), 1);
}
