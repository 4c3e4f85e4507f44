//! Upstreams whose instances Consul tells: what is asked, what follows, and what stays when Consul fails.

use std::time::Duration;

use super::wait_for_answers;
use crate::harness::{
    Client, Consul, ConsulFault, Gateway, Instance, Origin, Request, Stopwatch, check, dedent,
    tollgate, wait_until,
};

/// A route to the service `users` of `consul`; `more` are further members of its `discovery`.
fn users(consul: &Consul, more: &str) -> String {
    dedent(&format!(
        "
        services:
        - name: users
          host: users
          retries: 0
          connect_timeout: 1000
          routes:
          - paths: [/]
        upstreams:
        - name: users
          discovery: {{type: consul, address: '{}', service: users{more}}}
        ",
        consul.address()
    ))
}

/// A Consul that knows an origin as the one instance of `users`, and a gateway that has it from there.
fn scene(more: &str) -> (Consul, Origin, Gateway) {
    let (consul, a) = (Consul::start(), Origin::replying("a"));
    consul.register("users", vec![Instance::of(&a)]);
    let gateway = Gateway::start(&users(&consul, more));
    wait_for_answers(&gateway, "/", &["a"]);
    (consul, a, gateway)
}

fn is_up(gateway: &Gateway) -> f64 {
    gateway.metric("tollgate_discovery_up{upstream=\"users\"}")
}

#[test]
fn instances_are_followed_without_a_reload_and_within_a_second() {
    let (consul, a, gateway) = scene("");
    let b = Origin::replying("b");

    consul.register("users", vec![Instance::of(&a), Instance::of(&b)]);
    let watch = Stopwatch::start();
    wait_for_answers(&gateway, "/", &["a", "b"]);
    assert!(
        watch.elapsed() < Duration::from_secs(1),
        "{:?}",
        watch.elapsed()
    );

    consul.register("users", vec![Instance::of(&b)]);
    wait_for_answers(&gateway, "/", &["b"]);
    assert!((is_up(&gateway) - 1.0).abs() < 0.1);
    let asked = consul.questions();
    assert_eq!(asked[0], "/v1/health/service/users?passing=true");
    assert_eq!(
        asked[1],
        "/v1/health/service/users?passing=true&index=11&wait=30s"
    );
}

#[test]
fn however_many_lists_there_are_consul_sees_few_connections_and_all_are_followed() {
    let (consul, a, b) = (
        Consul::start(),
        Origin::replying("a"),
        Origin::replying("b"),
    );
    consul.register("s149", vec![Instance::of(&a)]);
    let address = consul.address();
    let upstreams = (0..150).map(|number| {
        format!("- {{name: u{number}, discovery: {{type: consul, address: '{address}', service: s{number}}}}}\n")
    });
    let service = "services:\n- {name: api, host: u149, routes: [{name: all, paths: [/]}]}\n";
    let upstreams: String = upstreams.collect();
    let gateway = Gateway::start(&format!("{service}upstreams:\n{upstreams}"));
    wait_for_answers(&gateway, "/", &["a"]);

    consul.register("s149", vec![Instance::of(&b)]);

    wait_for_answers(&gateway, "/", &["b"]);
    wait_until("every list to be followed", || {
        let asked = consul.questions();
        (0..150).all(|number| {
            let waiting = format!("/s{number}?passing=true&index=");
            asked.iter().any(|question| question.contains(&waiting))
        })
    });
    // It may see the end of one after the beginning of the next.
    assert!(consul.most_connections() < 150 * 4 / 5);
}

#[test]
fn the_first_request_waits_for_the_first_answer() {
    let (consul, a) = (Consul::start(), Origin::replying("a"));
    consul.register("users", vec![Instance::of(&a)]);
    let gateway = Gateway::start(&users(&consul, ""));

    assert_eq!(gateway.get("/").text(), "a");
    assert_eq!(a.last().header("host"), Some(a.authority().as_str()));
}

#[test]
fn tags_checks_and_the_datacenter_decide_who_counts() {
    let origins = ["a", "b", "c"].map(Origin::replying);
    let [a, b, c] = origins.each_ref().map(Instance::of);
    let consul = Consul::start();
    let instances = vec![
        a.tags(&["v2", "eu"]),
        b.tags(&["v2", "eu"]).failing(),
        c.tags(&["v2"]),
    ];
    consul.register("users", instances);
    let gateway = Gateway::start(&users(&consul, ", tags: [v2, eu], datacenter: dc1"));
    wait_for_answers(&gateway, "/", &["a"]);
    let expected = "/v1/health/service/users?passing=true&tag=v2&tag=eu&dc=dc1";
    assert_eq!(consul.questions()[0], expected);

    gateway.reload(&users(&consul, ", tags: [v2, eu], passing: false"));

    wait_for_answers(&gateway, "/", &["a", "b"]);
}

#[test]
fn weights_are_those_of_the_registration() {
    let (consul, a, b) = (
        Consul::start(),
        Origin::replying("a"),
        Origin::replying("b"),
    );
    let instances = vec![Instance::of(&a).weight(30), Instance::of(&b).weight(10)];
    consul.register("users", instances);
    let gateway = Gateway::start(&users(&consul, ""));
    wait_for_answers(&gateway, "/", &["a", "b"]);

    let (before_a, before_b) = (a.count(), b.count());
    for _ in 0..40 {
        gateway.get("/");
    }

    assert_eq!((a.count() - before_a, b.count() - before_b), (30, 10));
}

#[test]
fn whatever_happens_to_consul_the_last_instances_stay() {
    let (consul, a, gateway) = scene(", wait: 1");
    let b = Origin::replying("b");

    for fault in [
        ConsulFault::Status(500),
        ConsulFault::Status(403),
        ConsulFault::Body("<html>".to_owned()),
        ConsulFault::Body("[{\"Service\": {\"Address\": \"nonsense\", \"Port\": 1}}]".to_owned()),
        ConsulFault::Close,
    ] {
        consul.fail(fault.clone());
        wait_until("a failure", || is_up(&gateway) < 0.5);
        assert_eq!(gateway.get("/").text(), "a", "{fault:?}");
        consul.fail(None);
        wait_until("an answer", || is_up(&gateway) > 0.5);
    }
    let shown = gateway.admin("/status/discovery").json();
    assert_eq!(shown["upstreams"][0]["state"], "up", "{shown}");
    assert_eq!(
        shown["upstreams"][0]["instances"],
        serde_json::json!([a.authority()])
    );

    consul.register("users", vec![Instance::of(&b)]);
    wait_for_answers(&gateway, "/", &["b"]);
}

#[test]
fn a_consul_that_hangs_is_given_up_and_asked_again() {
    let (consul, _a, gateway) = scene(", wait: 1");

    consul.fail(ConsulFault::Hang);
    wait_until("the end of patience", || is_up(&gateway) < 0.5);
    assert_eq!(gateway.get("/").text(), "a");

    consul.fail(None);
    wait_until("an answer", || is_up(&gateway) > 0.5);
}

#[test]
fn an_index_that_went_back_begins_anew() {
    let (consul, _a, gateway) = scene("");
    let b = Origin::replying("b");

    consul.reset_index(2);
    consul.register("users", vec![Instance::of(&b)]);

    wait_for_answers(&gateway, "/", &["b"]);
    wait_until("a question of the new history", || {
        consul
            .questions()
            .iter()
            .any(|asked| asked.contains("index=3&"))
    });
}

#[test]
fn a_drop_to_zero_is_believed_when_it_is_seen_twice() {
    let (consul, a, gateway) = scene("");
    let before = consul.questions().len();

    consul.register("users", Vec::new());

    wait_until("the end of the last instance", || {
        gateway.get("/").status == 503
    });
    let asked = consul.questions();
    let repeated = asked[before..]
        .iter()
        .filter(|asked| !asked.contains("index="));
    assert_eq!(repeated.count(), 1, "{asked:?}");
    assert!(is_up(&gateway) > 0.5);
    consul.register("users", vec![Instance::of(&a)]);
    wait_for_answers(&gateway, "/", &["a"]);
}

#[test]
fn targets_of_the_file_are_used_until_the_first_answer_and_no_longer() {
    let consul = Consul::absent();
    let (written, told) = (Origin::replying("written"), Origin::replying("told"));
    consul.register("users", vec![Instance::of(&told)]);
    let targets = format!("  targets: [{{target: '{}'}}]", written.authority());
    let gateway = Gateway::start(&format!("{}\n{targets}", users(&consul, "")));
    assert_eq!(gateway.readiness(), Some(200));
    wait_for_answers(&gateway, "/", &["written"]);

    consul.listen();

    wait_for_answers(&gateway, "/", &["told"]);
}

#[test]
fn without_any_answer_requests_get_503_and_the_gateway_is_ready() {
    let consul = Consul::absent();
    let gateway = Gateway::start(&users(&consul, ""));

    assert_eq!(gateway.readiness(), Some(200));
    assert_eq!(gateway.get("/").status, 503);
    wait_until("a failure", || {
        let shown = gateway.admin("/status/discovery").json();
        shown["upstreams"][0]["state"] == "down"
    });
}

#[test]
fn one_list_is_asked_for_once_whoever_wants_it_and_reloads_keep_it() {
    let (consul, a) = (Consul::start(), Origin::replying("a"));
    consul.register("users", vec![Instance::of(&a)]);
    let discovery = format!(
        "discovery: {{type: consul, address: '{}', service: users}}",
        consul.address()
    );
    let document = |path: &str| {
        let rest = users(&consul, "").replace("paths: [/]", &format!("paths: [{path}]"));
        format!("{rest}\n- {{name: again, {discovery}}}")
    };
    let gateway = Gateway::start(&document("/"));
    wait_for_answers(&gateway, "/", &["a"]);

    gateway.reload(&document("/v2"));

    assert_eq!(gateway.get("/v2").text(), "a");
    let at_once = consul.questions();
    let at_once = at_once.iter().filter(|asked| !asked.contains("index="));
    assert_eq!(at_once.count(), 1, "{:?}", consul.questions());
}

#[test]
fn another_token_begins_with_what_the_old_one_knew_and_none_is_ever_shown() {
    let (consul, _a, gateway) = scene(", token: first-hunter2");
    assert_eq!(consul.tokens()[0].as_deref(), Some("first-hunter2"));

    consul.fail(ConsulFault::Status(403));
    gateway.reload(&users(&consul, ", token: second-hunter2"));
    assert_eq!(gateway.get("/").text(), "a");
    wait_until("the new token", || {
        let tokens = consul.tokens();
        tokens
            .iter()
            .flatten()
            .any(|token| token == "second-hunter2")
    });

    let question = Request::post("/explain", r#"{"method": "GET", "url": "/"}"#);
    let question = question.header("Content-Type", "application/json");
    let explained = Client::connect(gateway.admin_port()).send(&question);
    for text in [
        gateway.log(),
        gateway.admin("/status/discovery").text(),
        gateway.admin("/status/upstreams").text(),
        gateway.admin("/metrics").text(),
        explained.text(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn mistakes_are_found_where_they_stand_and_show_no_token() {
    for (members, expected) in [
        (
            "type: eureka, address: 'http://c:1', service: a",
            "discovery.type",
        ),
        ("type: consul, service: a", "address"),
        (
            "type: consul, address: 'c:1', service: a",
            "does not begin with http://",
        ),
        (
            "type: consul, address: 'http://c:1', service: a, wait: 0",
            "discovery.wait",
        ),
        (
            "type: consul, address: 'http://c:1', service: a, token: [hunter2]",
            "discovery.token",
        ),
    ] {
        let outcome = check(&format!(
            "_format_version: \"3.0\"\nupstreams:\n- name: u\n  discovery: {{{members}}}\n"
        ));
        assert_ne!(outcome.code, Some(0), "{members}");
        assert!(
            outcome.stderr.contains(expected),
            "{members}: {}",
            outcome.stderr
        );
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    }
}

#[test]
fn a_token_that_changes_is_told_of_and_not_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let document = |token: &str| {
        let discovery =
            format!("{{type: consul, address: 'http://c:1', service: users, token: {token}}}");
        format!(
            "_format_version: '3.0'\ngateway: {{discovery: {{consul: {{address: 'http://c:1', token: {token}}}}}}}\n\
             upstreams: [{{name: users, discovery: {discovery}}}]\n"
        )
    };
    for (name, token) in [("old.yaml", "old-hunter2"), ("new.yaml", "new-hunter2")] {
        std::fs::write(folder.path().join(name), document(token)).expect("a file");
    }

    let outcome = tollgate(folder.path(), &["diff", "old.yaml", "new.yaml"]);

    assert!(
        outcome.stdout.contains("discovery.token"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stdout.contains("hunter2"), "{}", outcome.stdout);
}
