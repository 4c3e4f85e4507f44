//! TLS towards upstreams: whom the gateway believes, who it says it is, and which connections it shares.

use std::fs;

use crate::harness::{
    Blueprint, Gateway, Issued, Origin, Request, TlsOrigin, check, dedent, wait_until,
};

const NAME: &str = "orders.test";

/// A service whose upstream has these targets and the host `orders.test`; `fields` are lines of the service.
fn service(targets: &[String], fields: &str) -> String {
    let mut text = dedent(
        "
        services:
        - name: orders
          protocol: https
          host: pool
          routes:
          - name: orders
            paths: [/]
        ",
    );
    text.push('\n');
    for line in dedent(fields).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&format!(
        "upstreams:\n- name: pool\n  host_header: {NAME}\n  targets:\n"
    ));
    for target in targets {
        text.push_str(&format!("  - target: {target}\n"));
    }
    text
}

/// A gateway with `settings` and the files that `prepare` puts beside its configuration.
fn gateway(settings: &str, authority: &Issued, yaml: &str) -> Gateway {
    let blueprint = Blueprint::new(settings);
    authority.write(blueprint.folder(), "authority");
    blueprint.start(yaml)
}

const TRUSTED: &str = "trusted_certificates: authority.pem\ntls_verify: on";

#[test]
fn an_upstream_with_a_certificate_of_a_trusted_authority_is_served() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::start(&authority.issue(NAME));
    let settings = format!("{TRUSTED}\nthreads: 1");
    let gateway = gateway(&settings, &authority, &service(&[origin.authority()], ""));
    let mut client = gateway.connect();

    assert_eq!(client.send(&Request::get("/")).status, 200);
    assert_eq!(client.send(&Request::get("/")).status, 200);

    let shown = origin.shown();
    assert_eq!(shown.len(), 1, "one connection for both: {shown:?}");
    assert_eq!(shown[0].server_name.as_deref(), Some(NAME));
}

#[test]
fn a_certificate_that_is_not_acceptable_is_a_502_with_the_reason_in_the_log() {
    let authority = Issued::authority("Root");
    let stranger = Issued::authority("Stranger");
    for (what, issued, reason) in [
        (
            "another authority",
            stranger.issue(NAME),
            "unable to get local issuer certificate",
        ),
        (
            "another name",
            authority.issue("other.test"),
            "hostname mismatch",
        ),
        (
            "past",
            authority.issue_until(NAME, -1),
            "certificate has expired",
        ),
    ] {
        let origin = TlsOrigin::start(&issued);
        let gateway = gateway(TRUSTED, &authority, &service(&[origin.authority()], ""));

        let response = gateway.send(&Request::post("/", "order"));

        assert_eq!(response.status, 502, "{what}");
        assert_eq!(origin.requests(), 0, "{what}: nothing was sent");
        assert!(
            origin.shown().len() <= 1,
            "{what}: the target is not tried again"
        );
        gateway.wait_for_log(reason);
        gateway.wait_for_access_log("\"error\":\"upstream_unverified\"");
        let count = gateway.metric("tollgate_replies_total{reason=\"upstream_unverified\"}");
        assert!((count - 1.0).abs() < f64::EPSILON, "{what}: {count}");
    }
}

#[test]
fn a_request_goes_to_another_target_if_the_certificate_of_one_is_not_acceptable() {
    let authority = Issued::authority("Root");
    let bad = TlsOrigin::start(&Issued::authority("Stranger").issue(NAME));
    let good = TlsOrigin::start(&authority.issue(NAME));
    let targets = [bad.authority(), good.authority()];
    let gateway = gateway(TRUSTED, &authority, &service(&targets, ""));

    for _ in 0..6 {
        let response = gateway.send(&Request::post("/", "order"));
        assert_eq!(response.status, 200);
    }

    assert_eq!((bad.requests(), good.requests()), (0, 6));
    assert!(gateway.metric("tollgate_upstream_retries_total{service=\"orders\"}") > 0.5);
}

#[test]
fn nothing_is_verified_unless_asked_for() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::start(&Issued::authority("Stranger").issue("other.test"));
    let gateway = gateway("", &authority, &service(&[origin.authority()], ""));

    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn the_setting_of_a_service_goes_before_the_global_one() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::start(&Issued::authority("Stranger").issue(NAME));
    let targets = [origin.authority()];
    let lax = gateway(TRUSTED, &authority, &service(&targets, "tls_verify: false"));
    let strict = gateway(
        "trusted_certificates: authority.pem",
        &authority,
        &service(&targets, "tls_verify: true"),
    );

    assert_eq!((lax.get("/").status, strict.get("/").status), (200, 502));
}

#[test]
fn an_address_is_verified_against_the_addresses_of_the_certificate() {
    let authority = Issued::authority("Root");
    let document = |origin: &TlsOrigin| {
        format!(
            "services:\n- name: orders\n  url: https://{}\n  routes: [{{paths: [/]}}]\n",
            origin.authority()
        )
    };
    let named = TlsOrigin::start(&authority.issue_for(&[NAME, "127.0.0.1"]));
    let other = TlsOrigin::start(&authority.issue_for(&[NAME, "127.0.0.2"]));

    assert_eq!(
        gateway(TRUSTED, &authority, &document(&named))
            .get("/")
            .status,
        200
    );
    assert_eq!(
        gateway(TRUSTED, &authority, &document(&other))
            .get("/")
            .status,
        502
    );
    assert_eq!(
        named.shown()[0].server_name,
        None,
        "an address is no server name"
    );
}

#[test]
fn the_name_that_the_client_asked_for_is_verified_where_it_is_preserved() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::start(&authority.issue_for(&["a.test", "b.test"]));
    let yaml = service(&[origin.authority()], "")
        .replace("paths: [/]", "paths: [/]\n    preserve_host: true");
    let gateway = gateway(TRUSTED, &authority, &yaml);
    let status = |host: &str| gateway.send(&Request::get("/").host(host)).status;

    assert_eq!(
        (status("a.test"), status("b.test"), status("c.test")),
        (200, 200, 502)
    );

    let names: Vec<_> = origin
        .shown()
        .into_iter()
        .map(|shown| shown.server_name)
        .collect();
    let name = |name: &str| Some(name.to_owned());
    // Whether the origin saw the end of a handshake that was broken off is a matter of chance.
    assert!(
        names.starts_with(&[name("a.test"), name("b.test")]),
        "{names:?}"
    );
}

#[test]
fn a_chain_may_be_as_long_as_its_depth_says() {
    let root = Issued::authority("Root");
    let deep = root.intermediate("First").intermediate("Second");
    let origin = TlsOrigin::start(&deep.issue(NAME));
    let targets = [origin.authority()];
    for (settings, fields, expected) in [
        (TRUSTED.to_owned(), "", 502),
        (TRUSTED.to_owned(), "tls_verify_depth: 2", 200),
        (format!("{TRUSTED}\ntls_verify_depth: 2"), "", 200),
        (
            format!("{TRUSTED}\ntls_verify_depth: 2"),
            "tls_verify_depth: 1",
            502,
        ),
    ] {
        let gateway = gateway(&settings, &root, &service(&targets, fields));
        assert_eq!(gateway.get("/").status, expected, "{settings}, {fields}");
    }
}

#[test]
fn the_client_certificate_is_shown_to_an_upstream_that_asks_for_one() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::start_for_clients_of(&authority.issue(NAME), &authority);
    let start = |settings: &str| {
        let blueprint = Blueprint::new(settings);
        authority.write(blueprint.folder(), "authority");
        authority
            .issue("gateway")
            .write(blueprint.folder(), "client");
        blueprint.start(&service(&[origin.authority()], ""))
    };
    let pair = "client_ssl_cert: client.pem\nclient_ssl_cert_key: client.key";

    assert_eq!(start("").get("/").status, 502);
    assert_eq!(
        start(&format!("{pair}\nclient_ssl: off")).get("/").status,
        502
    );
    let gateway = start(pair);
    assert_eq!(gateway.get("/").status, 200);

    let last = origin.shown().pop().expect("a connection");
    assert_eq!(last.client.as_deref(), Some("gateway"));
    assert!(!gateway.log().contains("PRIVATE"));
}

#[test]
fn connections_are_not_shared_between_names_settings_and_certificates() {
    let authority = Issued::authority("Root");
    let origin = TlsOrigin::start(&authority.issue_for(&["a.test", "b.test", "127.0.0.1"]));
    let other = Issued::authority("Other");
    let blueprint = Blueprint::new("trusted_certificates: authority.pem\nthreads: 1");
    authority.write(blueprint.folder(), "authority");
    other.write(blueprint.folder(), "other");
    let mut yaml = String::from("services:\n");
    for (name, fields) in [
        ("plain", ""),
        ("same", ""),
        ("verified", "tls_verify: true"),
        ("deep", "tls_verify: true, tls_verify_depth: 3"),
    ] {
        let comma = if fields.is_empty() { "" } else { ", " };
        yaml.push_str(&format!(
            "- {{name: {name}, url: 'https://{}'{comma}{fields}, routes: [{{paths: [/{name}], preserve_host: true}}]}}\n",
            origin.authority()
        ));
    }
    let gateway = blueprint.start(&yaml);

    for _ in 0..2 {
        for service in ["plain", "same", "verified", "deep"] {
            for host in ["a.test", "b.test"] {
                let request = Request::get(&format!("/{service}")).host(host);
                assert_eq!(gateway.send(&request).status, 200, "{service} {host}");
            }
        }
    }

    let shown = origin.shown();
    let kind = |line: &String| match line.split(' ').nth(1) {
        // Two services that do not differ share.
        Some("/same" | "/plain") => "plain".to_owned(),
        Some(path) => path.to_owned(),
        None => String::new(),
    };
    for connection in &shown {
        let first = connection.requests.first().map(kind);
        assert!(
            connection
                .requests
                .iter()
                .all(|line| Some(kind(line)) == first),
            "{connection:?}"
        );
    }
    assert!((6..=8).contains(&shown.len()), "{shown:#?}");
}

#[test]
fn a_renewed_authority_counts_from_the_next_request_on() {
    let (old, new) = (Issued::authority("Old"), Issued::authority("New"));
    let origin = TlsOrigin::start(&old.issue(NAME));
    let gateway = gateway(TRUSTED, &old, &service(&[origin.authority()], ""));
    assert_eq!(gateway.get("/").status, 200);

    let replace = |authority: &Issued| {
        let draft = gateway.folder().join("draft");
        fs::write(&draft, authority.certificate_pem()).expect("written");
        fs::rename(&draft, gateway.folder().join("authority.pem")).expect("renamed");
    };
    replace(&new);
    // A connection that the old authority vouched for is not used any more.
    wait_until("the new authority", || gateway.get("/").status == 502);
    replace(&old);
    wait_until("the old authority again", || gateway.get("/").status == 200);

    gateway.refusing_configuration(|| {
        fs::write(gateway.folder().join("authority.pem"), "nothing").expect("written");
    });
    gateway.wait_for_log("the file holds no certificate in PEM");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn probes_over_https_verify_by_the_same_authorities() {
    let authority = Issued::authority("Root");
    let checks = "healthchecks: {active: {type: https, https_sni: orders.test, \
                  healthy: {interval: 0.05, successes: 1}, \
                  unhealthy: {interval: 0.05, tcp_failures: 1}}}";
    for (issuer, expected) in [
        (authority.clone(), 200),
        (Issued::authority("Stranger"), 503),
    ] {
        let origin = TlsOrigin::start(&issuer.issue(NAME));
        let yaml = service(&[origin.authority()], "tls_verify: false")
            .replace("  host_header", &format!("  {checks}\n  host_header"));
        let gateway = gateway("trusted_certificates: authority.pem", &authority, &yaml);

        wait_until("the health to show", || {
            origin.requests() > 2 || gateway.log().contains("target is unhealthy")
        });

        assert_eq!(gateway.get("/").status, expected);
    }
}

#[test]
fn mistakes_in_the_files_of_the_settings_are_told_at_their_place() {
    let authority = Issued::authority("Root");
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (authority.issue("one"), authority.issue("two"));
    one.write(folder.path(), "one");
    two.write(folder.path(), "two");
    fs::write(folder.path().join("empty.pem"), "").expect("written");
    for (settings, expected) in [
        ("trusted_certificates: gone.pem", "gone.pem` cannot be read"),
        (
            "trusted_certificates: [system, empty.pem]",
            "the file holds no certificate in PEM",
        ),
        (
            "client_ssl_cert: one.pem",
            "`client_ssl_cert` needs `client_ssl_cert_key` as well",
        ),
        (
            "client_ssl: on",
            "`client_ssl` needs `client_ssl_cert` as well",
        ),
        (
            "{client_ssl_cert: one.pem, client_ssl_cert_key: two.key}",
            "certificate does not match key",
        ),
        (
            "{client_ssl_cert: one.pem, client_ssl_cert_key: one.pem}",
            "the file is not a private key in PEM",
        ),
        (
            "lua_ssl_trusted_certificate: one.pem",
            "here it is called `trusted_certificates`",
        ),
    ] {
        let file = folder.path().join("gateway.yaml");
        let text = format!("_format_version: \"3.0\"\ngateway:\n  {settings}\n")
            .replace("gateway:\n  {", "gateway: {");
        fs::write(&file, text).expect("written");

        let outcome = crate::harness::tollgate(
            folder.path(),
            &["check", "--config", &file.display().to_string()],
        );

        assert!(
            outcome.stderr.contains(expected),
            "{settings}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn plain_upstreams_do_not_notice_any_of_it() {
    let authority = Issued::authority("Root");
    let origin = Origin::replying("hello");
    let gateway = gateway(TRUSTED, &authority, &crate::harness::one_service(&origin));

    assert_eq!(gateway.get("/").text(), "hello");
}

/// A service or an upstream inside a certificate shows it, as one with `client_certificate` does.
#[test]
fn what_is_nested_in_a_certificate_shows_it_to_upstreams() {
    let authority = Issued::authority("Root");
    let client = authority.issue("gateway.test");
    let origin = TlsOrigin::start_for_clients_of(&authority.issue(NAME), &authority);
    let target = origin.authority();
    let gateway = gateway(
        TRUSTED,
        &authority,
        &format!(
            "certificates:
- {issued}
  services:
  - name: direct
    url: https://{target}
    tls_verify: false
    routes: [{{name: direct, paths: [/direct]}}]
- {issued}
  upstreams:
  - name: pool
    host_header: {NAME}
    targets: [{{target: '{target}'}}]
services:
- name: pooled
  protocol: https
  host: pool
  routes: [{{name: pooled, paths: [/pooled]}}]
",
            issued = client.yaml().replacen(", ", "\n  ", 1),
        ),
    );

    for path in ["/direct", "/pooled"] {
        let response = gateway.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    }
    let shown: Vec<_> = origin
        .shown()
        .into_iter()
        .map(|shown| shown.client)
        .collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    for name in shown {
        assert_eq!(name.as_deref(), Some("gateway.test"));
    }
}

#[test]
fn what_cannot_be_nested_in_a_certificate_is_refused() {
    let issued = Issued::authority("Root").issue(NAME);
    let outcome = check(&format!(
        "_format_version: \"3.0\"
certificates:
- {yaml}
  services:
  - name: plain
    url: http://orders.test
- {yaml}
  id: 4e13f54a-bbf1-47a8-8777-255fed7116f2
  upstreams:
  - name: same
    client_certificate: 4e13f54a-bbf1-47a8-8777-255fed7116f2
- {yaml}
  upstreams:
  - name: other
    client_certificate: {{id: 4e13f54a-bbf1-47a8-8777-255fed7116f2}}
",
        yaml = issued.yaml().replacen(", ", "\n  ", 1),
    ));

    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    for expected in [
        "certificates[0].services[0]: the service cannot be inside a certificate, as `protocol` is not https",
        "certificates[2].upstreams[0].client_certificate: `client_certificate` names another certificate than the one that this is nested in",
    ] {
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
    assert_eq!(
        outcome.stderr.matches("error[").count(),
        2,
        "{}",
        outcome.stderr
    );
}
