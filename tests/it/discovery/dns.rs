//! Names: when they are asked for, what their answers become, and what happens without an answer.

use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};

use super::{Farm, wait_for_answers};
use crate::harness::{
    Blueprint, DnsReply, DnsServer, Gateway, Origin, Stopwatch, check, dedent, wait_until,
};

/// A route to a service at this host and port.
fn service(host: &str, port: u16) -> String {
    dedent(&format!(
        "
        services:
        - name: orders
          host: {host}
          port: {port}
          retries: 0
          connect_timeout: 2000
          routes:
          - paths: [/]
        "
    ))
}

fn start(dns: &DnsServer, host: &str, port: u16) -> Gateway {
    Gateway::start_with(&dns.settings(), &service(host, port))
}

#[test]
fn a_name_is_asked_for_again_when_its_answer_runs_out() {
    let (dns, farm) = (DnsServer::start(), Farm::start(2));
    dns.addresses("orders.test", 1, &["127.0.0.1"]);
    dns.addresses("users.test", 3600, &["127.0.0.1"]);
    let services = service("orders.test", farm.port);
    let other = format!("- {{name: users, host: users.test, port: {}}}", farm.port);
    let gateway = Gateway::start_with(&dns.settings(), &format!("{services}\n{other}"));
    wait_for_answers(&gateway, "/", &["127.0.0.1"]);

    dns.addresses("orders.test", 1, &["127.0.0.2"]);

    wait_for_answers(&gateway, "/", &["127.0.0.2"]);
    let asked_of = |name| dns.asked(|asked, kind, _| asked == name && kind == RecordType::A);
    assert!(asked_of("orders.test") >= 2);
    assert_eq!(asked_of("users.test"), 1, "that one holds for an hour");
}

#[test]
fn a_name_with_several_addresses_uses_each() {
    let (dns, farm) = (DnsServer::start(), Farm::start(3));
    dns.addresses(
        "orders.test",
        60,
        &["127.0.0.1", "127.0.0.3", "127.0.0.2", "::1"],
    );
    let gateway = start(&dns, "orders.test", farm.port);

    wait_for_answers(&gateway, "/", &["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    assert_eq!(farm.origins.len(), 3);
}

#[test]
fn no_name_is_asked_for_more_often_than_once_a_second() {
    let (dns, farm) = (DnsServer::start(), Farm::start(1));
    dns.addresses("orders.test", 0, &["127.0.0.1"]);
    let _gateway = start(&dns, "orders.test", farm.port);
    let of_address = || dns.asked(|_, kind, _| kind == RecordType::A);
    wait_until("the first question", || of_address() > 0);
    let watch = Stopwatch::start();
    let before = of_address();

    wait_until("three more", || of_address() >= before + 3);

    assert!(
        watch.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn whatever_goes_wrong_later_the_last_addresses_stay() {
    let (dns, farm) = (DnsServer::start(), Farm::start(2));
    dns.addresses("orders.test", 1, &["127.0.0.1"]);
    let settings = format!("{}\ndns_not_found_ttl: 1", dns.settings());
    let gateway = Gateway::start_with(&settings, &service("orders.test", farm.port));
    wait_for_answers(&gateway, "/", &["127.0.0.1"]);

    for fault in [
        DnsReply::NotFound,
        DnsReply::Empty,
        DnsReply::ServerFailure,
        DnsReply::Garbage,
        DnsReply::Silence,
    ] {
        dns.instead(fault.clone());
        dns.wait_for_questions("orders.test", 2);
        assert_eq!(gateway.get("/").text(), "127.0.0.1", "{fault:?}");
    }
    let shown = gateway.admin("/status/discovery").json();
    assert_eq!(shown["names"][0]["state"], "stale", "{shown}");

    dns.addresses("orders.test", 1, &["127.0.0.2"]);
    dns.instead(None);
    wait_for_answers(&gateway, "/", &["127.0.0.2"]);
}

#[test]
fn a_gateway_starts_with_names_that_do_not_resolve_and_uses_them_once_they_do() {
    let (dns, farm) = (DnsServer::start(), Farm::start(1));
    dns.instead(DnsReply::ServerFailure);
    let gateway = start(&dns, "orders.test", farm.port);
    assert_eq!(gateway.readiness(), Some(200));
    assert_eq!(gateway.get("/").status, 503);
    let shown = gateway.admin("/status/discovery").json();
    assert_eq!(shown["names"][0]["name"], "orders.test", "{shown}");
    assert_eq!(shown["names"][0]["state"], "dns_error", "{shown}");

    dns.addresses("orders.test", 60, &["127.0.0.1"]);
    dns.instead(None);

    wait_for_answers(&gateway, "/", &["127.0.0.1"]);
    let resolved = "tollgate_dns_name_resolved{name=\"orders.test\"}";
    wait_until("the metric", || gateway.metric(resolved) >= 1.0);
    let failed = "tollgate_dns_lookups_total{name=\"orders.test\",result=\"failed\"}";
    assert!(gateway.metric(failed) >= 1.0);
}

#[test]
fn a_silent_server_keeps_no_request_longer_than_its_time_to_connect() {
    let dns = DnsServer::start();
    dns.instead(DnsReply::Silence);
    let services = service("orders.test", 80).replace("2000", "300");
    let gateway = Gateway::start_with(&dns.settings(), &services);
    let watch = Stopwatch::start();

    assert_eq!(gateway.get("/").status, 503);

    assert!(
        watch.elapsed() < Duration::from_secs(5),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn an_answer_that_was_cut_short_is_asked_for_over_tcp() {
    let (dns, farm) = (DnsServer::start(), Farm::start(2));
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2]];
    let records = addresses.map(|address| RData::from(std::net::IpAddr::from(address)));
    let cut = DnsReply::Truncated(records.to_vec(), 60);
    dns.reply("orders.test", RecordType::A, cut);
    let gateway = start(&dns, "orders.test", farm.port);

    wait_for_answers(&gateway, "/", &["127.0.0.1", "127.0.0.2"]);
    assert_eq!(dns.asked(|_, kind, tcp| tcp && kind == RecordType::A), 1);
}

#[test]
fn aliases_are_followed_and_the_shortest_time_of_the_chain_holds() {
    let (dns, farm) = (DnsServer::start(), Farm::start(2));
    dns.alias("orders.test", 1, "blue.test");
    dns.addresses("blue.test", 3600, &["127.0.0.1"]);
    dns.addresses("green.test", 3600, &["127.0.0.2"]);
    let gateway = start(&dns, "orders.test", farm.port);
    wait_for_answers(&gateway, "/", &["127.0.0.1"]);

    dns.alias("orders.test", 1, "green.test");

    wait_for_answers(&gateway, "/", &["127.0.0.2"]);
}

#[test]
fn ipv6_is_used_where_there_is_nothing_else_or_where_it_is_asked_for_first() {
    let (dns, farm) = (DnsServer::start(), Farm::start(1));
    dns.addresses("orders.test", 60, &["127.0.0.1", "::1"]);
    let settings = format!("{}\ndns_order: AAAA,A", dns.settings());
    let gateway = Gateway::start_with(&settings, &service("orders.test", farm.port));
    // The farm has no origin there.
    wait_until("an attempt at IPv6", || gateway.get("/").status == 502);
    assert_eq!(dns.asked(|_, kind, _| kind == RecordType::SRV), 0);
    let shown = gateway.admin("/status/discovery").json();
    assert_eq!(
        shown["names"][0]["records"],
        serde_json::json!(["::1"]),
        "{shown}"
    );

    gateway.changing_configuration(|| {
        let text = gateway.compose(&service("orders.test", farm.port));
        gateway.replace_exactly(&text.replace("AAAA,A", "A"));
    });
    wait_for_answers(&gateway, "/", &["127.0.0.1"]);
}

#[test]
fn the_hosts_file_and_localhost_need_no_server() {
    let (dns, farm) = (DnsServer::start(), Farm::start(2));
    dns.instead(DnsReply::Silence);
    let blueprint = Blueprint::new("");
    let hosts = blueprint.folder().join("hosts");
    std::fs::write(&hosts, "127.0.0.2 orders.internal orders\n").expect("a file");
    let settings = dns
        .settings()
        .replace("/dev/null", &hosts.display().to_string());
    let gateway = Gateway::start_with(&settings, &service("orders.internal", farm.port));
    wait_for_answers(&gateway, "/", &["127.0.0.2"]);

    gateway.reload(&service("localhost", farm.port));
    wait_for_answers(&gateway, "/", &["127.0.0.1"]);
    assert_eq!(dns.asked(|_, _, _| true), 0);
}

#[test]
fn services_give_ports_and_weights_and_only_the_best_priority_counts() {
    let dns = DnsServer::start();
    let origins = ["a", "b", "c"].map(Origin::replying);
    let [a, b, c] = origins.each_ref().map(Origin::port);
    dns.services(
        "_http._tcp.orders.test",
        60,
        &[
            (10, 3, a, "one.test"),
            (10, 0, b, "two.test"),
            (20, 9, c, "one.test"),
        ],
    );
    dns.addresses("one.test", 60, &["127.0.0.1"]);
    dns.addresses("two.test", 60, &["127.0.0.1"]);
    let gateway = start(&dns, "_http._tcp.orders.test", 1);
    wait_for_answers(&gateway, "/", &["a", "b"]);

    let answers: Vec<String> = (0..40).map(|_| gateway.get("/").text()).collect();

    let of = |name: &str| answers.iter().filter(|answer| *answer == name).count();
    assert_eq!((of("a"), of("b"), of("c")), (30, 10, 0));
}

#[test]
fn a_service_without_a_port_has_that_of_the_target() {
    let (dns, farm) = (DnsServer::start(), Farm::start(2));
    let places = [(1, 1, 0, "one.test"), (1, 1, 0, "two.test")];
    dns.services("orders.test", 60, &places);
    dns.addresses("one.test", 60, &["127.0.0.1"]);
    dns.addresses("two.test", 60, &["127.0.0.2"]);
    let gateway = start(&dns, "orders.test", farm.port);

    wait_for_answers(&gateway, "/", &["127.0.0.1", "127.0.0.2"]);
}

#[test]
fn a_target_may_be_a_name_of_services_and_be_called_like_their_hosts() {
    let (dns, origin) = (DnsServer::start(), Origin::replying("a"));
    let port = origin.port();
    dns.services("_http._tcp.orders.test", 60, &[(1, 1, port, "one.test")]);
    dns.addresses("one.test", 60, &["127.0.0.1"]);
    let document = |use_srv_name: bool| {
        dedent(&format!(
            "
            services:
            - {{name: orders, host: pool, routes: [{{paths: [/]}}]}}
            upstreams:
            - name: pool
              use_srv_name: {use_srv_name}
              targets: [{{target: _http._tcp.orders.test}}]
            "
        ))
    };
    let gateway = Gateway::start_with(&dns.settings(), &document(true));
    wait_for_answers(&gateway, "/", &["a"]);
    let host = || origin.last().header("host").map(str::to_owned);
    assert_eq!(host(), Some(format!("one.test:{port}")));

    gateway.reload(&document(false));
    gateway.get("/");
    assert_eq!(host(), Some(format!("_http._tcp.orders.test:{port}")));
}

#[test]
fn a_host_of_a_service_that_cannot_be_asked_for_keeps_its_address() {
    let (dns, farm) = (DnsServer::start(), Farm::start(3));
    let places = [(1, 1, farm.port, "one.test"), (1, 1, farm.port, "two.test")];
    dns.services("orders.test", 1, &places);
    dns.addresses("one.test", 1, &["127.0.0.1"]);
    dns.addresses("two.test", 1, &["127.0.0.2"]);
    let gateway = start(&dns, "orders.test", farm.port);
    wait_for_answers(&gateway, "/", &["127.0.0.1", "127.0.0.2"]);

    for kind in [RecordType::A, RecordType::AAAA] {
        dns.reply("one.test", kind, DnsReply::ServerFailure);
    }
    dns.addresses("two.test", 1, &["127.0.0.3"]);

    wait_for_answers(&gateway, "/", &["127.0.0.1", "127.0.0.3"]);
    let name = &gateway.admin("/status/discovery").json()["names"][0];
    assert_eq!(name["state"], "partial", "{name}");
    let error = name["error"].as_str().expect("an error");
    assert!(error.starts_with("one.test: "), "{error}");
}

#[test]
fn settings_of_names_that_make_no_sense_are_refused_where_they_stand() {
    for (setting, expected) in [
        ("dns_resolver: ns.test", "`ns.test` is no name server"),
        ("dns_order: LAST,CNAME", "at least one of SRV, A, AAAA"),
        ("dns_order: [A, MX]", "`MX` is none of"),
        (
            "resolver_address: 10.0.0.1",
            "here it is called `dns_resolver`",
        ),
    ] {
        let outcome = check(&format!(
            "_format_version: \"3.0\"\ngateway:\n  {setting}\n"
        ));
        assert_ne!(outcome.code, Some(0), "{setting}");
        assert!(
            outcome.stderr.contains(expected),
            "{setting}: {}",
            outcome.stderr
        );
    }
}
