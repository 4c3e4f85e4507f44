//! Routes of services that Consul's catalog names: how they come and go, and what keeps one out.

use std::time::Duration;

use super::wait_for_answers;
use crate::harness::{
    Client, Consul, ConsulFault, Gateway, Instance, Origin, Request, Stopwatch, one_service,
    wait_until,
};

fn settings(consul: &Consul) -> String {
    format!(
        "discovery: {{consul: {{address: '{}', token: hunter2, wait: 1}}}}",
        consul.address()
    )
}

fn start(consul: &Consul, yaml: &str) -> Gateway {
    Gateway::start_with(&settings(consul), yaml)
}

fn tagged(origin: &Origin, tags: &[&str]) -> Vec<Instance> {
    let enable = ["tollgate.enable=true"];
    vec![Instance::of(origin).tags(&[&enable[..], tags].concat())]
}

fn skipped(gateway: &Gateway) -> Vec<(String, String)> {
    let shown = gateway.admin("/status/discovery").json();
    let skipped = shown["catalog"]["skipped"]
        .as_array()
        .expect("a list")
        .clone();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    skipped
        .iter()
        .map(|skipped| (text(&skipped["service"]), text(&skipped["reason"])))
        .collect()
}

#[test]
fn a_service_that_is_registered_with_tags_is_reachable_without_a_reload() {
    let consul = Consul::start();
    let (file, users) = (Origin::replying("file"), Origin::replying("users"));
    let gateway = start(&consul, &one_service(&file));
    assert_eq!(gateway.get("/users").text(), "file");

    consul.register(
        "users",
        tagged(&users, &["tollgate.paths=/users,/people", "v2"]),
    );
    let watch = Stopwatch::start();
    wait_for_answers(&gateway, "/users/7", &["users"]);

    assert!(
        watch.elapsed() < Duration::from_secs(1),
        "{:?}",
        watch.elapsed()
    );
    assert_eq!(users.last().target, "/7");
    assert_eq!(gateway.get("/people").text(), "users");
    assert_eq!(gateway.get("/other").text(), "file");
    assert!(gateway.metric("tollgate_config_reloads_total") < 0.5);
    consul.register("users", Vec::new());
    wait_for_answers(&gateway, "/users/7", &["file"]);
}

#[test]
fn every_tag_has_its_effect() {
    let consul = Consul::start();
    let users = Origin::replying("users");
    let tags = [
        "tollgate.paths=/users",
        "tollgate.hosts=a.test,b.test",
        "tollgate.methods=GET,PUT",
        "tollgate.strip_path=false",
        "tollgate.protocol=http",
    ];
    consul.register("users", tagged(&users, &tags));
    let gateway = start(&consul, "services: []");
    let request = |method: &str, host: &str| {
        let request = Request::new(method, "/users/7").host(host);
        gateway.send(&request).status
    };
    wait_until("the route", || request("GET", "a.test") == 200);

    assert_eq!(users.last().target, "/users/7");
    assert_eq!(request("PUT", "b.test"), 200);
    assert_eq!(request("DELETE", "a.test"), 404);
    assert_eq!(request("GET", "c.test"), 404);
}

#[test]
fn one_that_is_not_right_is_skipped_with_the_reason_and_the_others_serve() {
    let consul = Consul::start();
    let (file, good) = (Origin::replying("file"), Origin::replying("good"));
    consul.register("aaa", tagged(&good, &["tollgate.path=/a"]));
    consul.register("bbb", tagged(&good, &["tollgate.paths=no-slash"]));
    consul.register("ccc", tagged(&good, &[]));
    consul.register("orders", tagged(&good, &["tollgate.paths=/stolen"]));
    consul.register("good", tagged(&good, &["tollgate.paths=/good"]));
    let gateway = start(&consul, &one_service(&file));

    wait_for_answers(&gateway, "/good", &["good"]);

    assert_eq!(gateway.get("/stolen").text(), "file");
    let skipped = skipped(&gateway);
    let services: Vec<&str> = skipped
        .iter()
        .map(|(service, _)| service.as_str())
        .collect();
    assert_eq!(services, ["aaa", "bbb", "ccc", "orders"]);
    for ((_, reason), expected) in skipped.iter().zip([
        "did you mean `tollgate.paths`?",
        "no-slash",
        "must set one of",
        "already declared",
    ]) {
        assert!(reason.contains(expected), "{reason}");
    }
    let gauge = "tollgate_discovery_services{state=\"skipped\"}";
    assert!((gateway.metric(gauge) - 4.0).abs() < 0.1);

    consul.register("aaa", tagged(&good, &["tollgate.paths=/a"]));
    wait_for_answers(&gateway, "/a", &["good"]);
    let told = gateway.log().matches("already declared").count();
    assert_eq!(told, 1, "each is told once");
}

#[test]
fn a_reload_of_the_files_keeps_discovered_routes() {
    let consul = Consul::start();
    let (file, users) = (Origin::replying("file"), Origin::replying("users"));
    consul.register("users", tagged(&users, &["tollgate.paths=/users"]));
    let gateway = start(&consul, &one_service(&file));
    wait_for_answers(&gateway, "/users", &["users"]);
    consul.fail(ConsulFault::Status(500));

    gateway.reload(&one_service(&file).replace("paths: [/]", "paths: [/v2]"));

    assert_eq!(gateway.get("/users").text(), "users");
    assert_eq!(gateway.get("/v2").text(), "file");
    assert_eq!(gateway.get("/").status, 404);

    // A file that takes the name wins.
    let other = one_service(&file).replace("orders", "users");
    gateway.reload(&other);
    assert_eq!(gateway.get("/users").text(), "file");
    assert_eq!(skipped(&gateway).len(), 1);
}

#[test]
fn discovered_routes_go_live_while_the_files_are_broken() {
    let consul = Consul::start();
    let (file, users) = (Origin::replying("file"), Origin::replying("users"));
    let gateway = start(&consul, &one_service(&file));
    gateway.refusing_configuration(|| gateway.replace("services: [{name: 5}]"));

    consul.register("users", tagged(&users, &["tollgate.paths=/users"]));

    wait_for_answers(&gateway, "/users", &["users"]);
    assert_eq!(gateway.get("/other").text(), "file");
}

#[test]
fn routes_stay_while_consul_fails_and_an_empty_catalog_is_believed_when_it_is_seen_twice() {
    let consul = Consul::start();
    let users = Origin::replying("users");
    consul.register("users", tagged(&users, &["tollgate.paths=/users"]));
    let gateway = start(&consul, "services: []");
    wait_for_answers(&gateway, "/users", &["users"]);
    let is_up = || gateway.metric("tollgate_discovery_catalog_up");

    for fault in [
        ConsulFault::Status(500),
        ConsulFault::Body("[]".to_owned()),
        ConsulFault::Close,
    ] {
        consul.fail(fault.clone());
        wait_until("a failure", || is_up() < 0.5);
        assert_eq!(gateway.get("/users").text(), "users", "{fault:?}");
        consul.fail(None);
        wait_until("an answer", || is_up() > 0.5);
    }
    consul.register("users", Vec::new());
    wait_until("the end of the route", || {
        gateway.get("/users").status == 404
    });
}

#[test]
fn explain_names_the_service_of_consul_as_the_place_of_its_route() {
    let consul = Consul::start();
    let users = Origin::replying("users");
    consul.register("users", tagged(&users, &["tollgate.paths=/users"]));
    let gateway = start(&consul, "services: []");
    wait_for_answers(&gateway, "/users", &["users"]);

    let question = Request::post("/explain", r#"{"method": "GET", "url": "/users"}"#);
    let question = question.header("content-type", "application/json");
    let explained = Client::connect(gateway.admin_port()).send(&question).text();

    assert!(
        explained.contains("from Consul service users"),
        "{explained}"
    );
    assert!(!explained.contains("hunter2") && !gateway.log().contains("hunter2"));
}

#[test]
fn removing_the_setting_removes_the_routes() {
    let consul = Consul::start();
    let users = Origin::replying("users");
    consul.register("users", tagged(&users, &["tollgate.paths=/users"]));
    let gateway = start(&consul, "services: []");
    wait_for_answers(&gateway, "/users", &["users"]);

    gateway.changing_configuration(|| {
        let text = gateway.compose("services: []");
        gateway.replace_exactly(&text.replace(&settings(&consul), ""));
    });

    assert_eq!(gateway.get("/users").status, 404);
}
