//! Sessions that are resumed, by OpenSSL's own client.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::document;
use crate::harness::{
    Blueprint, Gateway, Issued, Origin, check, one_service, one_service_and, quoted,
};

const AUTHORITY: &str = "9f1c1a31-6fbb-4f4d-8a5a-0f5d4f1f0002";

/// One request by `openssl s_client`, with the session of `from` if there is one; the session is left in `to`.
/// What it says of the handshake and the answer.
fn visit(gateway: &Gateway, version: &str, name: &str, from: Option<&Path>, to: &Path) -> String {
    let mut command = Command::new("openssl");
    command
        .arg("s_client")
        .args(["-connect", &format!("127.0.0.1:{}", gateway.tls_port())])
        .args(["-servername", name, version, "-ign_eof", "-sess_out"])
        .arg(to);
    if let Some(from) = from {
        command.arg("-sess_in").arg(from);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let mut stdin = child.stdin.take().expect("a pipe");
    let _ = stdin.write_all(request.as_bytes());
    let output = child.wait_with_output().expect("openssl ends");
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_resumed(said: &str) -> bool {
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    said.contains("Reused, ")
}

/// S63
#[test]
fn a_session_is_resumed_also_after_a_reload() {
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue("a.test");
    for (settings, version) in [
        ("", "-tls1_3"),
        ("", "-tls1_2"),
        ("ssl_session_tickets: off", "-tls1_3"),
        ("ssl_session_tickets: off", "-tls1_2"),
    ] {
        let gateway = Blueprint::new(settings)
            .with_tls()
            .start(&document(&origin, &[(&issued, "a.test")]));
        let file = |name: &str| gateway.folder().join(name);
        let (first, second) = (file("first"), file("second"));

        let said = visit(&gateway, version, "a.test", None, &first);
        assert!(!is_resumed(&said), "{said}");
        let said = visit(&gateway, version, "a.test", Some(&first), &second);
        assert!(is_resumed(&said), "{settings} {version}: {said}");
        assert_eq!(
            gateway.metric("tollgate_tls_handshakes_total{kind=\"resumed\"}"),
            1.0
        );

        gateway.reload(&format!(
            "{}\nconsumers: [{{username: alice}}]\n",
            document(&origin, &[(&issued, "a.test")])
        ));
        let said = visit(&gateway, version, "a.test", Some(&first), &file("third"));
        assert!(is_resumed(&said), "{settings} {version}: {said}");
    }
}

#[test]
fn a_session_is_not_resumed_for_a_name_with_other_rules_for_clients() {
    let origin = Origin::replying("hello");
    let (server, authority) = (
        Issued::authority("servers").issue("a.test"),
        Issued::authority("clients"),
    );
    let gateway = Gateway::start_with_tls(&format!(
        "{}\ncertificates:\n- {{{}, snis: [a.test], client_verify: required, client_ca_certificates: [{AUTHORITY}]}}\n- {{{}, snis: [b.test]}}\nca_certificates:\n- {{id: {AUTHORITY}, cert: {}}}\n",
        one_service(&origin),
        server.yaml(),
        server.yaml(),
        quoted(&authority.certificate_pem())
    ));
    let file = |name: &str| gateway.folder().join(name);

    for version in ["-tls1_3", "-tls1_2"] {
        let said = visit(&gateway, version, "b.test", None, &file("b"));
        assert!(!is_resumed(&said), "{said}");
        let said = visit(&gateway, version, "a.test", Some(&file("b")), &file("a"));
        assert!(!said.contains("HTTP/1.1"), "{version}: {said}");
    }
}

#[test]
fn a_session_ends_with_its_certificate() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let (one, two) = (authority.issue("a.test"), authority.issue("a.test"));
    let gateway = Gateway::start_with_tls(&document(&origin, &[(&one, "a.test")]));
    let file = |name: &str| gateway.folder().join(name);
    assert!(!is_resumed(&visit(
        &gateway,
        "-tls1_3",
        "a.test",
        None,
        &file("one")
    )));

    gateway.reload(&document(&origin, &[(&two, "a.test")]));

    let said = visit(
        &gateway,
        "-tls1_3",
        "a.test",
        Some(&file("one")),
        &file("two"),
    );
    assert!(!is_resumed(&said), "{said}");
}

#[test]
fn the_default_certificate_keeps_its_sessions_when_others_change() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    let file = |name: &str| gateway.folder().join(name);
    assert!(!is_resumed(&visit(
        &gateway,
        "-tls1_3",
        "x.test",
        None,
        &file("one")
    )));

    gateway.reload(&one_service_and(&origin, "consumers: [{username: alice}]"));

    let said = visit(
        &gateway,
        "-tls1_3",
        "x.test",
        Some(&file("one")),
        &file("two"),
    );
    assert!(is_resumed(&said), "{said}");
}

#[test]
fn of_clients_without_tickets_as_many_sessions_are_kept_as_the_setting_has_room_for() {
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue("a.test");
    for (size, is_kept) in [("1k", false), ("2k", true)] {
        let settings = format!("ssl_session_tickets: off\nssl_session_cache_size: {size}");
        let gateway = Blueprint::new(&settings)
            .with_tls()
            .start(&document(&origin, &[(&issued, "a.test")]));
        let file = |name: &str| gateway.folder().join(name);
        for name in ["one", "two"] {
            let said = visit(&gateway, "-tls1_2", "a.test", None, &file(name));
            assert!(!is_resumed(&said), "{said}");
        }

        let again = |name: &str| {
            let (from, to) = (file(name), file("again"));
            is_resumed(&visit(&gateway, "-tls1_2", "a.test", Some(&from), &to))
        };
        assert!(again("two"), "{size}");
        assert_eq!(again("one"), is_kept, "{size}");
    }
}

#[test]
fn a_session_ends_after_two_hours_and_settings_that_want_it_shorter_are_refused() {
    let with = |timeout: &str| {
        check(&format!(
            "_format_version: \"3.0\"\ngateway:\n  ssl_session_timeout: {timeout}\n"
        ))
    };
    for timeout in ["2h", "7200"] {
        let outcome = with(timeout);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
    }
    let outcome = with("1d");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let expected = "gateway.yaml:3:24: warning[config::ignored]: gateway.ssl_session_timeout: a session can be resumed for two hours, not longer";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    let outcome = with("10m");
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let expected = "error[config::unsupported_value]: gateway.ssl_session_timeout: a session can be resumed for two hours";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
