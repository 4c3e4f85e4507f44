//! Certificates come, change and expire while the gateway runs.

use std::fs;

use super::{connect, document, shown};
use crate::harness::{Blueprint, Gateway, Issued, Origin, Request, Tls, one_service};

/// A gateway whose default certificate is in two files.
fn with_files(origin: &Origin, issued: &Issued) -> Gateway {
    let blueprint = Blueprint::new("ssl_cert: tls/a.crt\nssl_cert_key: tls/a.key").with_tls();
    let folder = blueprint.folder().join("tls");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("a.crt"), issued.certificate_pem()).expect("written");
    fs::write(folder.join("a.key"), issued.key_pem()).expect("written");
    blueprint.start(&one_service(origin))
}

/// Replaces a file by rename.
fn replace(gateway: &Gateway, name: &str, text: &str) {
    let folder = gateway.folder().join("tls");
    fs::write(folder.join("draft"), text).expect("written");
    fs::rename(folder.join("draft"), folder.join(name)).expect("renamed");
}

fn expiry(gateway: &Gateway) -> f64 {
    gateway.metric(
        "tollgate_certificate_expiry_timestamp_seconds{certificate=\"ssl_cert\",algorithm=\"ecdsa\"}",
    )
}

/// S63
#[test]
fn a_reload_changes_certificates_for_the_next_handshake_only() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let (one, two) = (authority.issue("one"), authority.issue("two"));
    let gateway = Gateway::start_with_tls(&document(&origin, &[(&one, "a.test")]));
    let to = Tls::to("a.test");
    let mut old = connect(&gateway, &to);
    assert_eq!(old.send(&Request::get("/")).status, 200);

    gateway.reload(&document(&origin, &[(&two, "a.test")]));

    assert_eq!(shown(&gateway, &to), "two");
    assert_eq!(old.send(&Request::get("/")).status, 200);
    gateway.reload(&one_service(&origin));
    assert_eq!(shown(&gateway, &to), "localhost");
}

/// S63
#[test]
fn renewed_files_are_live_at_the_next_handshake() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let gateway = with_files(&origin, &authority.issue("one"));
    let to = Tls::to("a.test");
    assert_eq!(shown(&gateway, &to), "one");
    let mut old = connect(&gateway, &to);

    let two = authority.issue_until("two", 20);
    let before = expiry(&gateway);
    gateway.changing_configuration(|| {
        replace(&gateway, "a.crt", &two.certificate_pem());
        replace(&gateway, "a.key", &two.key_pem());
    });
    assert_eq!(shown(&gateway, &to), "two");
    assert!(expiry(&gateway) < before);
    assert_eq!(old.send(&Request::get("/")).status, 200);
    assert_eq!(
        gateway.metric("tollgate_config_reloads_total{result=\"failure\"}"),
        0.0,
        "a pair that is half there is not looked at"
    );

    let three = authority.issue("three");
    gateway.changing_configuration(|| {
        let file = |name: &str| gateway.folder().join("tls").join(name);
        fs::write(file("a.crt"), three.certificate_pem()).expect("written in place");
        fs::write(file("a.key"), three.key_pem()).expect("written in place");
    });
    assert_eq!(shown(&gateway, &to), "three");
}

/// S63
#[test]
fn files_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let one = authority.issue("one");
    let gateway = with_files(&origin, &one);
    let to = Tls::to("a.test");

    gateway.refusing_configuration(|| replace(&gateway, "a.key", &authority.issue("x").key_pem()));
    gateway.wait_for_log("gateway.ssl_cert_key[0]: certificate does not match key");
    assert_eq!(shown(&gateway, &to), "one");

    gateway.refusing_configuration(|| replace(&gateway, "a.key", "nonsense"));
    gateway.wait_for_log("gateway.ssl_cert_key[0]: is not a private key in PEM");

    let expired = authority.issue_until("expired", -1);
    gateway.refusing_configuration(|| {
        replace(&gateway, "a.crt", &expired.certificate_pem());
        replace(&gateway, "a.key", &expired.key_pem());
    });
    gateway.wait_for_log("gateway.ssl_cert[0]: the certificate expired on ");
    assert_eq!(shown(&gateway, &to), "one");

    gateway.refusing_configuration(|| {
        fs::remove_file(gateway.folder().join("tls/a.crt")).expect("removed");
    });
    gateway.wait_for_log("tls/a.crt` cannot be read: no such file");
    assert_eq!(shown(&gateway, &to), "one");
}

/// What a machine that starts with it can do is to go on: the client decides.
#[test]
fn a_certificate_that_has_expired_serves_on_with_a_warning_and_a_metric() {
    let origin = Origin::replying("hello");
    let expired = Issued::authority("ca").issue_until("expired", -1);
    let gateway = with_files(&origin, &expired);

    assert_eq!(shown(&gateway, &Tls::to("a.test")), "expired");
    gateway
        .wait_for_log("warning[config::expiry]: gateway.ssl_cert[0]: the certificate expired on ");
    let seconds = expiry(&gateway);
    assert!(seconds > 1_600_000_000.0, "{seconds}");

    gateway.reload(&crate::harness::one_service_and(
        &origin,
        "consumers: [{username: alice}]",
    ));
    assert_eq!(
        shown(&gateway, &Tls::to("a.test")),
        "expired",
        "other changes are not held up"
    );
}

#[test]
fn a_certificate_that_expires_soon_is_warned_of() {
    let origin = Origin::replying("hello");
    let soon = Issued::authority("ca").issue_until("soon", 3);
    let gateway = Gateway::start_with_tls(&document(&origin, &[(&soon, "a.test")]));

    gateway
        .wait_for_log("warning[config::expiry]: certificates[0].cert: the certificate expires on ");
    let metrics = gateway.metrics();
    let family = "tollgate_certificate_expiry_timestamp_seconds";
    assert!(metrics.sum(family) > 0.0);
}

#[test]
fn without_a_certificate_a_self_signed_one_is_made_and_kept_over_reloads() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start_with_tls(&one_service(&origin));
    let fingerprint = || {
        let client = connect(&gateway, &Tls::to("a.test"));
        let certificate = client.ssl().peer_certificate().expect("a certificate");
        let digest = certificate.digest(openssl::hash::MessageDigest::sha256());
        digest.expect("a digest").to_vec()
    };
    gateway.wait_for_log(
        "warning[config::generated_certificate]: gateway.listen[1]: there is no certificate",
    );
    let before = fingerprint();

    gateway.reload(&crate::harness::one_service_and(
        &origin,
        "consumers: [{username: alice}]",
    ));

    assert_eq!(fingerprint(), before);
}
