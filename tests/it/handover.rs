//! Sockets that outlive the process, because whoever starts it holds them open: a restart refuses nobody.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{
    Blueprint, Client, Gateway, Origin, Request, Tls, free_port, one_service, wait_until,
};

const SOON: Duration = Duration::from_secs(10);

/// A socket such as systemd opens for a `.socket` unit.
fn socket() -> TcpListener {
    TcpListener::bind(("127.0.0.1", free_port())).expect("the port is free")
}

/// Reliability 6.11.
#[test]
fn restarts_under_load_refuse_and_reset_nobody() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let socket = socket();
    let start = || Blueprint::new("").with_socket(&socket).start(&yaml);
    let mut gateway = start();
    let (running, served) = (AtomicBool::new(true), AtomicUsize::new(0));
    let failures = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    let port = socket.local_addr().expect("an address").port();
                    while running.load(Ordering::Relaxed) {
                        let answer = Client::try_connect(port)
                            .and_then(|mut client| client.try_send(&Request::get("/")));
                        match answer {
                            Ok(response) if response.status == 200 => {
                                served.fetch_add(1, Ordering::Relaxed);
                            }
                            other => failures.push(format!("{other:?}")),
                        }
                    }
                    failures
                })
            })
            .collect();
        let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..5 {
                let before = served.load(Ordering::Relaxed);
                wait_until("some requests", || {
                    served.load(Ordering::Relaxed) > before + 50
                });
                gateway.sigterm();
                assert!(gateway.wait_exit(SOON).success());
                gateway = start();
            }
        }));
        running.store(false, Ordering::Relaxed);
        assert!(restarted.is_ok(), "every restart went well");
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn a_client_that_has_just_connected_is_served_before_the_end() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::start_with_tls(&one_service(&origin));
    let accepted = "tollgate_connections{state=\"accepted\"}";
    let before = gateway.metric(accepted);
    let mut plain = gateway.connect();
    let mut secure = gateway.secure(&Tls::to("a.test")).expect("a handshake");
    wait_until("both to be accepted", || {
        gateway.metric(accepted) >= before + 2.0
    });

    gateway.sigterm();
    gateway.wait_for_log("stopping");

    for client in [&mut plain, &mut secure] {
        let response = client.send(&Request::get("/"));
        assert_eq!(response.status, 200);
        assert!(response.announces_close());
    }
    assert!(gateway.wait_exit(SOON).success());
}

#[test]
fn a_socket_that_was_handed_over_can_be_left_and_taken_up_again() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let socket = socket();
    let gateway = Blueprint::new("").with_socket(&socket).start(&yaml);
    assert_eq!(gateway.get("/").status, 200);
    let own = format!("listen: 127.0.0.1:{}", gateway.port());
    let other = free_port();
    let text = gateway
        .compose(&yaml)
        .replace(&own, &format!("listen: 127.0.0.1:{other}"));
    gateway.changing_configuration(|| gateway.replace_exactly(&text));
    assert_eq!(Client::connect(other).send(&Request::get("/")).status, 200);

    gateway.reload(&yaml);

    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_socket_at_no_address_of_the_configuration_is_warned_of() {
    let origin = Origin::replying("hello");
    let socket = socket();
    let blueprint = Blueprint::new("").with_socket(&socket);
    let own = blueprint.port();
    let text = blueprint
        .compose(&one_service(&origin))
        .replace(&format!("listen: 127.0.0.1:{own}"), "listen: off");
    std::fs::write(blueprint.folder().join("gateway.yaml"), text).expect("written");

    let gateway = blueprint.start_as_it_is();

    gateway.wait_for_log("a socket that was handed over is at no address");
    gateway.wait_for_log(&format!("address=127.0.0.1:{own}"));
}
