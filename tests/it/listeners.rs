//! Listeners that come and go with a reload: what is added serves, what is removed finishes, and what
//! cannot be bound changes nothing.

#![expect(clippy::float_cmp, reason = "what is counted is whole")]

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{
    Client, Gate, Gateway, Origin, Reply, Request, Tls, free_port, one_service, wait_until,
};

/// The document of `gateway`, listening on `listen` as it is written there.
fn listening(gateway: &Gateway, yaml: &str, listen: &str) -> String {
    let before = format!("listen: 127.0.0.1:{}", gateway.port());
    gateway
        .compose(yaml)
        .replace(&before, &format!("listen: {listen}"))
}

/// Listens on these ports of loopback from now on.
#[track_caller]
fn listen_on(gateway: &Gateway, yaml: &str, ports: &[u16]) {
    let addresses: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let listen = match ports {
        [] => "off".to_owned(),
        _ => format!("[{}]", addresses.join(", ")),
    };
    let text = listening(gateway, yaml, &listen);
    gateway.changing_configuration(|| gateway.replace_exactly(&text));
}

#[track_caller]
fn wait_until_refused(port: u16) {
    wait_until("nobody listens", || Client::try_connect(port).is_err());
}

#[test]
fn an_added_listener_serves_and_the_others_go_on() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let added = free_port();
    let mut kept = gateway.connect();
    assert_eq!(kept.send(&Request::get("/")).status, 200);

    listen_on(&gateway, &yaml, &[gateway.port(), added]);

    let response = Client::connect(added).send(&Request::get("/"));
    assert_eq!(response.text(), "hello");
    let port = added.to_string();
    assert_eq!(
        origin.last().header("X-Forwarded-Port"),
        Some(port.as_str())
    );
    assert_eq!(kept.send(&Request::get("/")).status, 200);
}

#[test]
fn a_listener_with_tls_can_be_added_and_tls_can_come_to_one_that_stays() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let added = free_port();
    let (own, tls) = (gateway.port(), Tls::to("a.test"));

    let text = listening(
        &gateway,
        &yaml,
        &format!("[127.0.0.1:{own}, 127.0.0.1:{added} ssl]"),
    );
    gateway.changing_configuration(|| gateway.replace_exactly(&text));
    let client = Client::secure(added, &tls);
    let response = client.expect("a handshake").send(&Request::get("/"));
    assert_eq!(response.text(), "hello");
    assert_eq!(gateway.get("/").status, 200);

    let text = listening(&gateway, &yaml, &format!("127.0.0.1:{own} ssl"));
    gateway.changing_configuration(|| gateway.replace_exactly(&text));
    wait_until("TLS on the listener that stays", || {
        Client::secure(own, &tls).is_ok()
    });
}

#[test]
fn a_removed_listener_accepts_no_more_and_its_connections_finish() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Reply::ok("finished").after(&held),
        _ => Reply::ok("hello"),
    });
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let other = free_port();
    let mut in_flight = gateway.connect();
    in_flight
        .write(Request::get("/held").bytes())
        .expect("written");
    origin.wait_until("the request in flight", |requests| requests.len() == 1);
    let mut idle = gateway.connect();
    assert!(!idle.send(&Request::get("/")).announces_close());

    listen_on(&gateway, &yaml, &[other]);

    wait_until_refused(gateway.port());
    gate.open();
    let response = in_flight.read_response().expect("an answer");
    assert_eq!(response.text(), "finished");
    let last = idle.send(&Request::get("/"));
    assert_eq!(last.text(), "hello");
    assert!(last.announces_close());
    assert!(idle.closed_within(Duration::from_secs(5)).is_some());
    let response = Client::connect(other).send(&Request::get("/"));
    assert_eq!(response.status, 200);
}

#[test]
fn an_address_that_is_taken_refuses_the_whole_change_at_its_place() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let port = free_port();
    let _holder = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let free = free_port();
    let other_routes = yaml.replace("paths: [/]", "paths: [/other]");
    let text = listening(
        &gateway,
        &other_routes,
        &format!("\n  - 127.0.0.1:{free}\n  - 127.0.0.1:{port}"),
    );

    gateway.refusing_configuration(|| gateway.replace_exactly(&text));

    let line = text
        .lines()
        .position(|line| line.ends_with(&format!("- 127.0.0.1:{port}")))
        .expect("the line of the address")
        + 1;
    gateway.wait_for_log(&format!(
        "gateway.yaml:{line}:5: error[config::cannot_listen]: gateway.listen[1]: cannot listen on 127.0.0.1:{port}"
    ));
    assert_eq!(gateway.get("/").status, 200, "the old routes serve");
    assert!(
        Client::try_connect(free).is_err(),
        "nothing of a refused change is left listening"
    );
    assert_eq!(
        gateway.metric("tollgate_config_last_reload_successful"),
        0.0
    );
}

#[test]
fn a_wider_address_on_a_port_that_is_in_use_is_refused_with_the_way_out() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let text = listening(&gateway, &yaml, &format!("0.0.0.0:{}", gateway.port()));

    gateway.refusing_configuration(|| gateway.replace_exactly(&text));

    gateway.wait_for_log(&format!(
        "127.0.0.1:{} still listens on this port",
        gateway.port()
    ));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn listeners_come_and_go_under_load_and_no_request_fails() {
    const CLIENTS: usize = 4;
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start_with("keepalive_requests: 1000000", &yaml);
    let (running, served) = (AtomicBool::new(true), AtomicUsize::new(0));

    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            gateway.concurrently(CLIENTS, |client| {
                let mut number = 0;
                while running.load(Ordering::Relaxed) {
                    assert_eq!(client.send(&Request::get("/")).status, 200);
                    // A new connection now and then: the socket that stays must lose none.
                    number += 1;
                    if number % 10 == 0 {
                        *client = gateway.connect();
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let all = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..15 {
                let added = free_port();
                listen_on(&gateway, &yaml, &[gateway.port(), added]);
                let response = Client::connect(added).send(&Request::get("/"));
                assert_eq!(response.status, 200);
                listen_on(&gateway, &yaml, &[gateway.port()]);
                wait_until_refused(added);
            }
        }));
        running.store(false, Ordering::Relaxed);
        load.join().expect("no client failed");
        assert!(all.is_ok(), "every change was followed");
    });

    assert!(served.load(Ordering::Relaxed) > 100);
}

#[test]
fn the_admin_listener_moves_with_a_reload() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let moved = free_port();
    let text = gateway.compose(&yaml).replace(
        &format!("admin: 127.0.0.1:{}", gateway.admin_port()),
        &format!("admin: 127.0.0.1:{moved}"),
    );

    gateway.replace_exactly(&text);

    wait_until("the new admin listener", || {
        Client::try_connect(moved).is_ok()
    });
    let response = Client::connect(moved).send(&Request::get("/status/ready"));
    assert_eq!(response.status, 200);
    wait_until_refused(gateway.admin_port());
    assert_eq!(gateway.get("/").status, 200);
}

/// Reliability 8.5.
#[test]
fn an_admin_listener_that_is_not_on_loopback_is_warned_of() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    assert!(!gateway.log().contains("is not on loopback"));
    let open = free_port();
    let own = format!("admin: 127.0.0.1:{}", gateway.admin_port());
    let text = gateway
        .compose(&yaml)
        .replace(&own, &format!("{own}, 0.0.0.0:{open}"));

    gateway.changing_configuration(|| gateway.replace_exactly(&text));

    gateway.wait_for_log("the admin listener is not on loopback");
    gateway.wait_for_log(&format!("address=0.0.0.0:{open}"));
}

#[test]
fn a_gateway_may_stop_listening_and_begin_again() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);

    listen_on(&gateway, &yaml, &[]);
    wait_until_refused(gateway.port());
    listen_on(&gateway, &yaml, &[gateway.port()]);

    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn options_of_a_socket_that_stays_need_a_restart_and_the_rest_applies() {
    let origin = Origin::replying("hello");
    let yaml = one_service(&origin);
    let gateway = Gateway::start(&yaml);
    let text = listening(
        &gateway,
        &yaml.replace("paths: [/]", "paths: [/b]"),
        &format!(
            "127.0.0.1:{} backlog=64 so_keepalive=30m::10 deferred bind",
            gateway.port()
        ),
    );

    gateway.changing_configuration(|| gateway.replace_exactly(&text));

    assert_eq!(gateway.get("/b").status, 200);
    gateway.wait_for_log("need a restart to change");
    assert_eq!(
        gateway.metric("tollgate_config_last_reload_successful"),
        1.0
    );
}

#[test]
fn a_proxy_header_is_not_for_operators() {
    let outcome = crate::harness::check(
        "_format_version: \"3.0\"\ngateway: {admin: 127.0.0.1:8001 proxy_protocol}\n",
    );
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("the admin listener takes no `proxy_protocol`"),
        "{}",
        outcome.stderr
    );
}
