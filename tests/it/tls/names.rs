//! The certificate for a name.

use openssl::ssl::SslVersion;

use super::{connect, document, shown};
use crate::harness::{
    Algorithm, Blueprint, Gateway, Issued, Origin, Reply, Request, Tls, check, one_service, quoted,
};

/// S63
#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let names = ["exact.a.test", "any.a.test", "a.any"].map(|name| authority.issue(name));
    let [exact, before, after] = &names;
    let gateway = Gateway::start_with_tls(&document(
        &origin,
        &[
            (exact, "exact.a.test, other.test"),
            (before, "'*.a.test'"),
            (after, "'a.*'"),
        ],
    ));

    for (name, expected) in [
        ("exact.a.test", "exact.a.test"),
        ("EXACT.a.test", "exact.a.test"),
        ("other.test", "exact.a.test"),
        ("b.a.test", "any.a.test"),
        ("a.example", "a.any"),
        ("c.b.a.test", "localhost"),
        ("unknown.test", "localhost"),
    ] {
        assert_eq!(shown(&gateway, &Tls::to(name)), expected, "{name}");
    }
    assert_eq!(shown(&gateway, &Tls::to_nobody()), "localhost");
}

/// S63
#[test]
fn names_may_stand_by_themselves_and_a_star_takes_the_rest() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let (one, rest) = (authority.issue("one.test"), authority.issue("rest.test"));
    let id = "4e13f54a-bbf1-47a8-8777-255fed7116f2";
    let text = format!(
        "{}\ncertificates:\n- {{id: {id}, {}}}\n- {{{}, snis: [{{name: '*'}}]}}\nsnis:\n- {{name: One.test, certificate: {id}}}\n- {{name: two.test, certificate: {{id: {id}}}}}\n",
        one_service(&origin),
        one.yaml(),
        rest.yaml()
    );
    let gateway = Gateway::start_with_tls(&text);

    assert_eq!(shown(&gateway, &Tls::to("one.test")), "one.test");
    assert_eq!(shown(&gateway, &Tls::to("two.test")), "one.test");
    assert_eq!(shown(&gateway, &Tls::to("three.test")), "rest.test");
    assert_eq!(
        shown(&gateway, &Tls::to_nobody()),
        "localhost",
        "a client that asks for nothing gets the default"
    );
}

/// S63
#[test]
fn the_default_certificate_comes_from_files_one_for_each_algorithm() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("ca");
    let rsa = authority.issue_with("rsa.test", Algorithm::Rsa);
    let ecdsa = authority.issue("ecdsa.test");
    let blueprint =
        Blueprint::new("ssl_cert: [rsa.crt, ecdsa.crt]\nssl_cert_key: [rsa.key, ecdsa.key]")
            .with_tls();
    for (name, issued) in [("rsa", &rsa), ("ecdsa", &ecdsa)] {
        let file = |ending| blueprint.folder().join(format!("{name}.{ending}"));
        std::fs::write(file("crt"), issued.certificate_pem()).expect("written");
        std::fs::write(file("key"), issued.key_pem()).expect("written");
    }
    let gateway = blueprint.start(&one_service(&origin));

    let verifying = |signatures| Tls::to("x.test").verifying(signatures);
    assert_eq!(shown(&gateway, &verifying("ECDSA+SHA256")), "ecdsa.test");
    assert_eq!(shown(&gateway, &verifying("RSA-PSS+SHA256")), "rsa.test");
    let old = Tls::to("x.test").only(SslVersion::TLS1_2);
    assert_eq!(
        shown(&gateway, &old.with_ciphers("ECDHE-RSA-AES128-GCM-SHA256")),
        "rsa.test"
    );
}

#[test]
fn the_certificates_above_are_sent_along() {
    let origin = Origin::replying("hello");
    let root = Issued::authority("root");
    let middle = root.intermediate("middle");
    let leaf = middle.issue("a.test");
    let chain = format!("{}{}", leaf.certificate_pem(), middle.certificate_pem());
    let gateway = Gateway::start_with_tls(&format!(
        "{}\ncertificates:\n- {{cert: {}, key: {}, snis: [a.test]}}\n",
        one_service(&origin),
        quoted(&chain),
        quoted(&leaf.key_pem())
    ));

    let client = connect(&gateway, &Tls::to("a.test"));

    let sent = client.ssl().peer_cert_chain().expect("a chain");
    assert_eq!(sent.len(), 2);
}

#[test]
fn a_certificate_may_come_out_of_the_environment() {
    let origin = Origin::replying("hello");
    let issued = Issued::authority("ca").issue("a.test");
    let gateway = Blueprint::new("")
        .with_tls()
        .with_variable("MY_CERT", issued.certificate_pem())
        .with_variable("MY_KEY", issued.key_pem())
        .start(&format!(
            "{}\ncertificates:\n- {{cert: '{{vault://env/my-cert}}', key: '{{vault://env/my-key}}', snis: [a.test]}}\n",
            one_service(&origin)
        ));

    assert_eq!(shown(&gateway, &Tls::to("a.test")), "a.test");
    assert_eq!(
        connect(&gateway, &Tls::to("a.test"))
            .send(&Request::get("/"))
            .status,
        200
    );
}

#[test]
fn what_is_wrong_is_told_at_its_place_and_shows_no_key() {
    let authority = Issued::authority("ca");
    let (one, other) = (authority.issue("a.test"), authority.issue("b.test"));
    let expired = Issued::authority_until("old", -2);
    let text = format!(
        "_format_version: \"3.0\"\n\
         certificates:\n\
         - {{cert: {certificate}, key: {wrong_key}}}\n\
         - {{cert: nonsense, key: {key}}}\n\
         - {{cert: {certificate}, key: nonsense-key}}\n\
         - {{cert: {certificate}, key: {key}, cert_alt: {certificate}}}\n\
         - {{cert: {certificate}, key: {key}, cert_alt: {certificate}, key_alt: {key}}}\n\
         - {{cert: {certificate}, key: {key}, client_verify: required}}\n\
         - {{cert: {certificate}, key: {key}, client_verify: optional, client_ca_certificates: [nobody]}}\n\
         ca_certificates:\n\
         - {{cert: {certificate}}}\n\
         - {{cert: {expired}}}\n\
         snis:\n\
         - {{name: a.test}}\n\
         - {{name: 'a.test:443', certificate: x}}\n\
         - {{name: 192.0.2.1, certificate: x}}\n\
         - {{name: 'a.*.test', certificate: x}}\n",
        certificate = quoted(&one.certificate_pem()),
        key = quoted(&one.key_pem()),
        wrong_key = quoted(&other.key_pem()),
        expired = quoted(&expired.certificate_pem()),
    );

    let outcome = check(&text);

    assert_ne!(outcome.code, Some(0));
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    for expected in [
        "3:", // the line of the first one
        "certificates[0].key: certificate does not match key",
        "certificates[1].cert: is not a certificate in PEM",
        "certificates[2].key: is not a private key in PEM",
        "certificates[3].cert_alt: `cert_alt` and `key_alt` belong together",
        "certificates[4].cert_alt: there are two certificates with a key of the same algorithm",
        "certificates[5].client_verify: `client_verify` needs `client_ca_certificates`",
        "certificates[6].client_ca_certificates[0]: invalid reference 'nobody'",
        "ca_certificates[0].cert: is not the certificate of an authority",
        "ca_certificates[1].cert: the certificate of the authority expired on ",
        "snis[0].certificate: required field `certificate` is missing",
        "snis[1].name: `a.test:443` has a port",
        "snis[1].certificate: invalid reference 'certificate: x'",
        "snis[2].name: `192.0.2.1` is an address",
        "snis[3].name: ",
    ] {
        assert!(said.contains(expected), "{expected} not in\n{said}");
    }
    for secret in [&one, &other] {
        let pem = secret.key_pem();
        let line = pem.lines().nth(1).expect("a line of the key");
        assert!(!said.contains(line), "{said}");
    }
    assert!(!said.contains("nonsense-key"), "{said}");
}

/// Core 3.2: `snis` of a route are what the handshake named, whatever `Host` says.
#[test]
fn routes_are_chosen_by_the_name_of_the_handshake() {
    let origin = Origin::start(|request| {
        Reply::ok(request.header("X-Route").unwrap_or_default().to_owned())
    });
    let route = |name: &str, snis: &str| {
        format!(
            "- name: {name}\n  url: http://{origin}/{name}\n  routes: [{{name: {name}, protocols: [https], {snis}}}]\n",
            origin = origin.authority(),
        )
    };
    let gateway = Gateway::start_with_tls(&format!(
        "services:\n{}{}{}",
        route("exact", "paths: [/], snis: [a.test]"),
        route("wild", "paths: [/], snis: ['*.b.test']"),
        route("rest", "paths: [/]"),
    ));
    let arrives_at = |tls: &Tls, host: &str| {
        let mut client = gateway.secure(tls).expect("a handshake");
        let response = client.send(&Request::get("/").host(host));
        assert_eq!(response.status, 200);
        let target = origin.last().target;
        target.trim_matches('/').to_owned()
    };

    assert_eq!(arrives_at(&Tls::to("a.test"), "other.test"), "exact");
    assert_eq!(arrives_at(&Tls::to("A.test"), "other.test"), "exact");
    assert_eq!(arrives_at(&Tls::to("x.b.test"), "other.test"), "wild");
    assert_eq!(arrives_at(&Tls::to("b.test"), "b.test"), "rest");
    assert_eq!(arrives_at(&Tls::to_nobody(), "a.test"), "rest");
}

#[test]
fn a_name_has_one_certificate() {
    let issued = Issued::authority("ca").issue("a.test");
    let outcome = check(&format!(
        "_format_version: \"3.0\"\ncertificates:\n- {{{0}, snis: [a.test]}}\n- {{{0}, snis: [A.test]}}\n",
        issued.yaml()
    ));

    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(
        said.contains("certificates[1].snis[0].name: uniqueness violation: 'snis' entity with name set to 'a.test'"),
        "{said}"
    );
}
