//! Clients that show a certificate.

use super::{connect, failures};
use crate::harness::{
    Gateway, Issued, Origin, Request, Response, Tls, one_service, quoted, wait_until,
};

const AUTHORITY: &str = "9f1c1a31-6fbb-4f4d-8a5a-0f5d4f1f0001";

/// `a.test` with these rules for clients, `b.test` without any.
fn document(origin: &Origin, server: &Issued, authority: &Issued, rules: &str) -> String {
    format!(
        "{}\ncertificates:\n- {{{}, snis: [a.test], {rules}}}\n- {{{}, snis: [b.test]}}\nca_certificates:\n- {{id: {AUTHORITY}, cert: {}}}\n",
        one_service(origin),
        server.yaml(),
        server.yaml(),
        quoted(&authority.certificate_pem())
    )
}

fn rules(verify: &str) -> String {
    format!("client_verify: {verify}, client_ca_certificates: [{AUTHORITY}]")
}

/// A request on a connection of its own. With TLS 1.3 a client learns only then that it was turned away.
fn try_get(gateway: &Gateway, tls: &Tls, host: &str) -> Result<Response, String> {
    let mut client = gateway.secure(tls)?;
    client
        .try_send(&Request::get("/").host(host))
        .map_err(|error| error.to_string())
}

fn status(gateway: &Gateway, tls: &Tls, host: &str) -> Option<u16> {
    try_get(gateway, tls, host)
        .ok()
        .map(|response| response.status)
}

/// S63
#[test]
fn a_required_certificate_must_be_shown_and_is_told_to_the_upstream() {
    let origin = Origin::replying("hello");
    let (authority, stranger) = (Issued::authority("clients"), Issued::authority("clients"));
    let server = Issued::authority("servers").issue("a.test");
    let gateway =
        Gateway::start_with_tls(&document(&origin, &server, &authority, &rules("required")));
    let (alice, eve) = (authority.issue("alice"), stranger.issue("alice"));
    let to = || Tls::to("a.test");

    assert_eq!(status(&gateway, &to(), "a.test"), None);
    assert_eq!(status(&gateway, &to().showing(&eve), "a.test"), None);
    let expired = authority.issue_until("alice", -1);
    assert_eq!(status(&gateway, &to().showing(&expired), "a.test"), None);
    wait_until("three failures", || {
        failures(&gateway, "client_certificate") == 3.0
    });
    assert_eq!(origin.count(), 0);

    let request = Request::get("/")
        .host("a.test")
        .header("X-Client-Cert-Subject-DN", "CN=mallory")
        .header("X_Client_Cert_Fingerprint", "00");
    let response = connect(&gateway, &to().showing(&alice)).send(&request);

    assert_eq!(response.status, 200);
    let received = origin.last();
    assert_eq!(
        received.headers("X-Client-Cert-Subject-DN"),
        ["CN=alice,O=Example"]
    );
    assert_eq!(
        received.headers("X-Client-Cert-Issuer-DN"),
        ["CN=clients,O=Example"]
    );
    let fingerprint = alice
        .certificate
        .digest(openssl::hash::MessageDigest::sha256())
        .expect("a digest")
        .iter()
        .fold(String::new(), |mut text, byte| {
            text.push_str(&format!("{byte:02x}"));
            text
        });
    assert_eq!(
        received.headers("X-Client-Cert-Fingerprint"),
        [fingerprint.as_str()]
    );
    assert_eq!(received.headers("X_Client_Cert_Fingerprint"), [""; 0]);
    assert!(received.header("X-Client-Cert-Serial").is_some());
    gateway.wait_for_access_log(&format!(
        "\"client_cert_subject\":\"CN=alice,O=Example\",\"client_cert_fingerprint\":\"{fingerprint}\""
    ));
}

/// S63
#[test]
fn an_optional_certificate_may_be_missing_but_not_wrong() {
    let origin = Origin::replying("hello");
    let (authority, stranger) = (Issued::authority("clients"), Issued::authority("others"));
    let server = Issued::authority("servers").issue("a.test");
    let gateway =
        Gateway::start_with_tls(&document(&origin, &server, &authority, &rules("optional")));
    let to = || Tls::to("a.test");

    let forged = Request::get("/")
        .host("a.test")
        .header("X-Client-Cert-Subject-DN", "CN=mallory");
    assert_eq!(connect(&gateway, &to()).send(&forged).status, 200);
    assert_eq!(origin.last().header("X-Client-Cert-Subject-DN"), None);
    assert_eq!(
        status(&gateway, &to().showing(&authority.issue("alice")), "a.test"),
        Some(200)
    );
    assert!(origin.last().header("X-Client-Cert-Subject-DN").is_some());
    assert_eq!(
        status(&gateway, &to().showing(&stranger.issue("eve")), "a.test"),
        None
    );
}

#[test]
fn an_authority_that_is_listed_is_trusted_whoever_stands_above_it() {
    let origin = Origin::replying("hello");
    let root = Issued::authority("root");
    let middle = root.intermediate("middle");
    let server = Issued::authority("servers").issue("a.test");
    let gateway = Gateway::start_with_tls(&document(&origin, &server, &middle, &rules("required")));
    let to = || Tls::to("a.test");

    assert_eq!(
        status(&gateway, &to().showing(&middle.issue("alice")), "a.test"),
        Some(200)
    );
    assert_eq!(
        status(&gateway, &to().showing(&root.issue("eve")), "a.test"),
        None
    );
}

#[test]
fn a_connection_is_not_taken_for_a_host_with_other_rules_for_clients() {
    let origin = Origin::replying("hello");
    let authority = Issued::authority("clients");
    let server = Issued::authority("servers").issue("a.test");
    let text = document(&origin, &server, &authority, &rules("required"));
    let gateway = Gateway::start_with_tls(&text);
    let alice = authority.issue("alice");
    let as_alice = Tls::to("a.test").showing(&alice);

    assert_eq!(status(&gateway, &Tls::to("b.test"), "b.test"), Some(200));
    assert_eq!(status(&gateway, &Tls::to("b.test"), "a.test"), Some(421));
    assert_eq!(status(&gateway, &Tls::to_nobody(), "A.test:443"), Some(421));
    assert_eq!(status(&gateway, &as_alice, "b.test"), Some(421));
    assert_eq!(status(&gateway, &as_alice, "a.test"), Some(200));
    assert_eq!(
        gateway.metric("tollgate_replies_total{reason=\"misdirected_request\"}"),
        3.0
    );

    let mut kept = connect(&gateway, &as_alice);
    let request = Request::get("/").host("a.test");
    assert_eq!(kept.send(&request).status, 200);
    let stranger = Issued::authority("others");
    gateway.reload(&document(&origin, &server, &stranger, &rules("required")));
    assert_eq!(
        kept.send(&request).status,
        421,
        "what it proved is worth nothing by the new rules"
    );
    assert_eq!(status(&gateway, &as_alice, "a.test"), None);
}
