//! Consul behind TLS: who is believed, what is shown to it, and what happens when it is somebody else.

use super::wait_for_answers;
use crate::harness::{
    Blueprint, Consul, Gateway, Instance, Issued, Origin, check, dedent, wait_until,
};

/// A Consul with an authority of its own, and an origin that it knows as the service `users`.
struct Scene {
    authority: Issued,
    consul: Consul,
    users: Origin,
}

impl Scene {
    fn new(name: &str) -> Self {
        let authority = Issued::authority("Root");
        let consul = Consul::start_with_tls(&authority.issue(name), None);
        Self::of(authority, consul)
    }

    fn of(authority: Issued, consul: Consul) -> Self {
        let users = Origin::replying("users");
        let enabled = ["tollgate.enable=true", "tollgate.paths=/users"];
        consul.register("users", vec![Instance::of(&users).tags(&enabled)]);
        Self {
            authority,
            consul,
            users,
        }
    }

    /// The catalog, asked with a token; `more` are further members.
    fn settings(&self, more: &str) -> String {
        format!(
            "discovery: {{consul: {{address: '{}', token: hunter2, wait: 1{more}}}}}",
            self.consul.address()
        )
    }

    /// A gateway with the authority's certificate in `ca.pem`.
    fn start(&self, settings: &str, yaml: &str) -> Gateway {
        let blueprint = Blueprint::new(settings);
        self.authority.write(blueprint.folder(), "ca");
        blueprint.start(yaml)
    }
}

fn is_up(gateway: &Gateway) -> bool {
    gateway.metric("tollgate_discovery_catalog_up") > 0.5
}

fn catalog(gateway: &Gateway) -> serde_json::Value {
    gateway.admin("/status/discovery").json()["catalog"].clone()
}

/// Waits until Consul was not believed; gives the reason that is shown.
#[track_caller]
fn wait_for_distrust(gateway: &Gateway) -> String {
    wait_until("a refusal", || catalog(gateway)["state"] == "down");
    let error = &catalog(gateway)["error"];
    error.as_str().expect("a reason").to_owned()
}

#[test]
fn a_consul_with_a_certificate_of_the_file_is_believed_and_gets_the_token() {
    let scene = Scene::new("127.0.0.1");
    let gateway = scene.start(&scene.settings(", ca_file: ca.pem"), "services: []");

    wait_for_answers(&gateway, "/users", &["users"]);

    assert!(is_up(&gateway));
    assert_eq!(catalog(&gateway)["agent"], scene.consul.address());
    let tokens = scene.consul.tokens();
    let is_sent = |token: &Option<String>| token.as_deref() == Some("hunter2");
    assert!(tokens.iter().all(is_sent), "{tokens:?}");
    assert_eq!(scene.users.last().target, "/");
}

#[test]
fn without_a_file_the_trusted_certificates_of_the_gateway_decide() {
    let scene = Scene::new("127.0.0.1");
    let trusted = format!("{}\ntrusted_certificates: ca.pem", scene.settings(""));
    let gateway = scene.start(&trusted, "services: []");
    wait_for_answers(&gateway, "/users", &["users"]);

    let gateway = scene.start(&scene.settings(""), "services: []");
    let reason = wait_for_distrust(&gateway);
    assert!(
        reason.contains("unable to get local issuer certificate"),
        "{reason}"
    );
}

#[test]
fn a_consul_that_is_not_believed_is_told_no_token_and_what_is_known_stays() {
    let scene = Scene::new("127.0.0.1");
    let gateway = scene.start(&scene.settings(", ca_file: ca.pem"), "services: []");
    wait_for_answers(&gateway, "/users", &["users"]);

    // The file is watched, and another authority in it is a change.
    let stranger = Issued::authority("Stranger");
    gateway.changing_configuration(|| stranger.write(gateway.folder(), "ca"));
    let reason = wait_for_distrust(&gateway);
    let asked = scene.consul.questions().len();

    assert!(
        reason.contains("its certificate is not accepted") && reason.contains("127.0.0.1"),
        "{reason}"
    );
    gateway.wait_for_log("consul does not answer: what is known stays");
    assert!(gateway.log().contains("its certificate is not accepted"));
    assert_eq!(gateway.get("/users").text(), "users");
    assert!(gateway.metric("tollgate_discovery_up{upstream=\"users.from-consul\"}") < 0.5);

    gateway.changing_configuration(|| scene.authority.write(gateway.folder(), "ca"));
    wait_until("an answer", || is_up(&gateway));
    assert_eq!(gateway.get("/users").text(), "users");
    let between = &scene.consul.questions()[asked..];
    assert!(
        between.iter().any(|asked| !asked.contains("index=")),
        "it is asked anew: {between:?}"
    );
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_that_name_is_asked_for() {
    let scene = Scene::new("server.dc1.consul");
    let gateway = scene.start(&scene.settings(", ca_file: ca.pem"), "services: []");
    let reason = wait_for_distrust(&gateway);
    assert!(reason.contains("mismatch"), "{reason}");
    assert_eq!(scene.consul.tokens(), []);

    let named = ", ca_file: ca.pem, tls_server_name: server.dc1.consul";
    let gateway = scene.start(&scene.settings(named), "services: []");
    wait_for_answers(&gateway, "/users", &["users"]);
}

#[test]
fn what_is_not_to_be_verified_is_believed() {
    let scene = Scene::new("server.dc1.consul");
    let gateway = scene.start(&scene.settings(", tls_verify: false"), "services: []");

    wait_for_answers(&gateway, "/users", &["users"]);
}

#[test]
fn a_token_is_never_sent_to_what_speaks_no_tls() {
    let scene = Scene::of(Issued::authority("Root"), Consul::start());
    let settings = scene.settings(", ca_file: ca.pem, tls_verify: false");
    let settings = settings.replace("http://", "https://");
    let gateway = scene.start(&settings, "services: []");

    let reason = wait_for_distrust(&gateway);

    assert!(reason.contains("no TLS"), "{reason}");
    assert_eq!(scene.consul.tokens(), []);
}

#[test]
fn a_client_certificate_is_shown_to_a_consul_that_asks_for_one() {
    let authority = Issued::authority("Root");
    let issued = authority.issue("127.0.0.1");
    let consul = Consul::start_with_tls(&issued, Some(&authority));
    let scene = Scene::of(authority, consul);
    let blueprint =
        Blueprint::new(&scene.settings(", ca_file: ca.pem, cert_file: me.pem, key_file: me.key"));
    scene.authority.write(blueprint.folder(), "ca");
    let me = scene.authority.issue("gateway.test");
    me.write(blueprint.folder(), "me");
    let gateway = blueprint.start("services: []");
    wait_for_answers(&gateway, "/users", &["users"]);

    let gateway = scene.start(&scene.settings(", ca_file: ca.pem"), "services: []");
    wait_for_distrust(&gateway);
}

#[test]
fn an_upstream_has_the_same_settings() {
    let scene = Scene::new("server.dc1.consul");
    let yaml = dedent(&format!(
        "
        services:
        - {{name: users, host: users, routes: [{{paths: [/]}}]}}
        upstreams:
        - name: users
          discovery:
            type: consul
            address: '{}'
            service: users
            ca_file: ca.pem
            tls_server_name: server.dc1.consul
        ",
        scene.consul.address()
    ));
    let gateway = scene.start("", &yaml);

    wait_for_answers(&gateway, "/", &["users"]);
}

#[test]
fn mistakes_are_told_where_they_are() {
    for (members, place, expected) in [
        (
            "address: 'http://c:8500', ca_file: ca.pem",
            "discovery.consul.ca_file",
            "write `https://`",
        ),
        (
            "address: 'https://c:8501', ca_file: missing.pem",
            "discovery.consul.ca_file",
            "cannot be read",
        ),
        (
            "address: 'https://c:8501', ca_file: gateway.yaml",
            "discovery.consul.ca_file",
            "holds no certificate in PEM",
        ),
        (
            "address: 'https://c:8501', cert_file: a.pem",
            "discovery.consul.cert_file",
            "needs `key_file`",
        ),
    ] {
        // A settings file that names itself is no PEM either.
        let document =
            format!("_format_version: \"3.0\"\ngateway:\n  discovery: {{consul: {{{members}}}}}\n");
        let outcome = check(&document);
        assert_ne!(outcome.code, Some(0), "{members}");
        let said = &outcome.stderr;
        assert!(
            said.contains(place) && said.contains(expected),
            "{members}: {said}"
        );
    }
    let upstream = "upstreams: [{name: u, discovery: {type: consul, service: a, address: 'http://c', key_file: a}}]";
    let outcome = check(&format!("_format_version: \"3.0\"\n{upstream}\n"));
    let place = "upstreams[0].discovery.key_file";
    assert!(outcome.stderr.contains(place), "{}", outcome.stderr);
}
