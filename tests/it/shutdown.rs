//! How the gateway stops.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{
    Client, Gate, Gateway, Origin, Reply, Request, one_service, text, wait_until,
};

const PROMPTLY: Duration = Duration::from_secs(2);
const EVENTUALLY: Duration = Duration::from_secs(10);

/// A gateway in front of an origin whose replies to `/held` wait for the gate.
fn gated() -> (Gateway, Origin, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("finished").after(&held),
        "/ws" => Reply::websocket(),
        _ => Reply::ok("hello"),
    });
    (Gateway::start(&one_service(&origin)), origin, gate)
}

/// A client whose request to `/held` has reached the origin.
fn in_flight(gateway: &Gateway, origin: &Origin) -> Client {
    let mut client = gateway.connect();
    client
        .write(Request::get("/held").bytes())
        .expect("written");
    origin.wait_until("the request in flight", |requests| {
        requests.iter().any(|request| request.target == "/held")
    });
    client
}

#[test]
fn an_idle_gateway_exits_promptly_with_success() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let (mut gateway, _origin, _) = gated();
        let mut idle = gateway.connect();
        assert_eq!(idle.send(&Request::get("/")).status, 200);

        gateway.signal(signal);

        assert_eq!(gateway.wait_exit(PROMPTLY).code(), Some(0), "{signal}");
        assert_eq!(
            idle.closed_within(PROMPTLY).expect("a closed connection"),
            b""
        );
    }
}

#[test]
fn requests_in_flight_are_finished_and_their_connections_closed() {
    let (mut gateway, origin, gate) = gated();
    let mut client = in_flight(&gateway, &origin);

    gateway.sigterm();
    wait_until("the listener to close", || {
        Client::try_connect(gateway.port()).is_err()
    });
    gate.open();
    let response = client.read_response().expect("an answer");

    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "finished")
    );
    assert!(response.announces_close());
    assert_eq!(gateway.wait_exit(PROMPTLY).code(), Some(0));
}

#[test]
fn readiness_is_withdrawn_while_requests_are_finished() {
    let (mut gateway, origin, gate) = gated();
    let mut client = in_flight(&gateway, &origin);

    gateway.sigterm();

    wait_until("readiness to be withdrawn", || {
        gateway.readiness() == Some(503)
    });
    assert!(gateway.is_running());
    gate.open();
    assert_eq!(client.read_response().expect("an answer").status, 200);
    assert_eq!(gateway.wait_exit(EVENTUALLY).code(), Some(0));
}

#[test]
fn a_long_response_is_finished_whole() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let gate = held.clone();
        Reply::stream(move |stream| {
            use std::io::Write;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst ")?;
            gate.wait();
            stream.write_all(b"later")
        })
    });
    let mut gateway = Gateway::start(&one_service(&origin));
    let mut client = gateway.connect();
    client.write(Request::get("/").bytes()).expect("written");
    client.read_until(b"first ");

    gateway.sigterm();
    wait_until("the listener to close", || {
        Client::try_connect(gateway.port()).is_err()
    });
    gate.open();

    client.read_until(b"later");
    assert_eq!(gateway.wait_exit(PROMPTLY).code(), Some(0));
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let (mut gateway, origin, _gate) = gated();
    let _client = in_flight(&gateway, &origin);

    gateway.sigterm();
    wait_until("the listener to close", || {
        Client::try_connect(gateway.port()).is_err()
    });
    gateway.sigterm();

    gateway.wait_exit(PROMPTLY);
}

#[test]
fn sigint_twice_does_not_wait() {
    let (mut gateway, origin, _gate) = gated();
    let _client = in_flight(&gateway, &origin);

    gateway.signal(Signal::SIGINT);
    wait_until("the listener to close", || {
        Client::try_connect(gateway.port()).is_err()
    });
    gateway.signal(Signal::SIGINT);

    gateway.wait_exit(PROMPTLY);
}

/// S62
#[test]
fn a_web_socket_lives_on_while_draining() {
    let (mut gateway, _origin, _) = gated();
    let (mut socket, _) = gateway.websocket("/ws", &[]).expect("an open socket");

    gateway.sigterm();
    wait_until("the listener to close", || {
        Client::try_connect(gateway.port()).is_err()
    });

    assert_eq!(text(&mut socket, "still here"), "still here");
    drop(socket);
    assert_eq!(gateway.wait_exit(EVENTUALLY).code(), Some(0));
}

#[test]
fn the_port_is_free_for_a_successor_at_once() {
    let (mut gateway, origin, gate) = gated();
    let mut client = in_flight(&gateway, &origin);
    gateway.sigterm();

    wait_until("a successor on the port", || {
        std::net::TcpListener::bind(("127.0.0.1", gateway.port())).is_ok()
    });

    gate.open();
    assert_eq!(client.read_response().expect("an answer").status, 200);
    assert_eq!(gateway.wait_exit(EVENTUALLY).code(), Some(0));
}

#[test]
fn the_access_log_is_complete_after_the_end() {
    let (mut gateway, _origin, _) = gated();
    let ids: Vec<String> = (0..50)
        .map(|_| {
            gateway
                .get("/")
                .header("x-kong-request-id")
                .expect("an id")
                .to_owned()
        })
        .collect();

    gateway.sigterm();
    gateway.wait_exit(EVENTUALLY);

    for id in ids {
        gateway.wait_for_access_log(&id);
    }
}
