//! Which ciphers and keys clients get, and what the settings change about it.

use openssl::ssl::SslVersion;

use super::{document, failures};
use crate::harness::{
    Algorithm, Blueprint, Client, Gateway, Issued, Origin, Tls, check, quoted, wait_until,
};

const DHE: &str = "DHE-RSA-AES128-GCM-SHA256";

fn old() -> Tls {
    Tls::to("a.test").only(SslVersion::TLS1_2)
}

fn cipher(client: &Client) -> String {
    let cipher = client.ssl().current_cipher().expect("one was agreed on");
    cipher.name().to_owned()
}

/// The bits of the key that was made for this connection alone.
fn bits(gateway: &Gateway) -> u32 {
    let client = gateway.secure(&old().with_ciphers(DHE)).expect("secure");
    assert_eq!(cipher(&client), DHE);
    client.ssl().peer_tmp_key().expect("a key").bits()
}

#[test]
fn dhe_has_the_group_of_the_setting_and_is_not_used_without() {
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue_with("a.test", Algorithm::Rsa);
    let yaml = document(&origin, &[(&issued, "a.test")]);
    let start = |settings: &str| Blueprint::new(settings).with_tls().start(&yaml);

    let without = start("");
    assert!(without.secure(&old().with_ciphers(DHE)).is_err());
    wait_until("the failure is counted", || {
        failures(&without, "nothing_in_common") == 1.0
    });
    assert_eq!(bits(&start("ssl_dhparam: ffdhe2048")), 2048);
    assert_eq!(bits(&start("ssl_dhparam: ffdhe3072")), 3072);
}

#[test]
fn parameters_of_dhe_come_from_a_file_that_is_watched() {
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue_with("a.test", Algorithm::Rsa);
    let blueprint = Blueprint::new("ssl_dhparam: dh.pem").with_tls();
    let own = openssl::dh::Dh::get_2048_256().expect("known parameters");
    let file = blueprint.folder().join("dh.pem");
    std::fs::write(&file, own.params_to_pem().expect("PEM")).expect("written");
    let gateway = blueprint.start(&document(&origin, &[(&issued, "a.test")]));
    assert_eq!(bits(&gateway), 2048);

    gateway.refusing_configuration(|| {
        std::fs::write(&file, "nonsense").expect("written");
    });

    assert_eq!(bits(&gateway), 2048);
}

#[test]
fn parameters_that_are_of_no_use_are_refused_at_their_place() {
    let weak = openssl::dh::Dh::get_1024_160().expect("known parameters");
    let weak = String::from_utf8(weak.params_to_pem().expect("PEM")).expect("text");
    for (value, expected) in [
        (
            quoted(&weak),
            "gateway.yaml:3:16: error[config::invalid_value]: gateway.ssl_dhparam: OpenSSL refuses the parameters: dh key too small",
        ),
        (
            "ffdhe1024".to_owned(),
            "gateway.ssl_dhparam: `ffdhe1024` is none of ffdhe2048, ",
        ),
        (
            "missing.pem".to_owned(),
            "error[config::unreadable_file]: gateway.ssl_dhparam: the file `missing.pem` cannot be read",
        ),
        (
            "'-----BEGIN NONSENSE-----'".to_owned(),
            "gateway.ssl_dhparam: are no parameters in PEM",
        ),
    ] {
        let outcome = check(&format!(
            "_format_version: \"3.0\"\ngateway:\n  ssl_dhparam: {value}\n"
        ));
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}

#[test]
fn the_order_of_ciphers_is_whose_the_setting_says() {
    const BOTH: &str = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256";
    const CUSTOM: &str = "ssl_cipher_suite: custom\nssl_ciphers: ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384";
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue("a.test");
    for (settings, expected) in [
        ("", "AES256"),
        ("ssl_prefer_server_ciphers: on", "AES128"),
        (CUSTOM, "AES128"),
        (
            &format!("{CUSTOM}\nssl_prefer_server_ciphers: off"),
            "AES256",
        ),
    ] {
        let gateway = Blueprint::new(settings)
            .with_tls()
            .start(&document(&origin, &[(&issued, "a.test")]));
        let client = gateway.secure(&old().with_ciphers(BOTH)).expect("secure");
        let cipher = cipher(&client);
        assert!(cipher.contains(expected), "{settings}: {cipher}");
    }
}
