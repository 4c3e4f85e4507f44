//! Probes over TLS, against an origin with a certificate that nobody signed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{NameType, SslAcceptor, SslMethod};
use openssl::x509::{X509, X509NameBuilder};

use super::{is_in_state, pool, wait_for_state};
use crate::harness::{Gateway, free_port, wait_until};

/// An origin that answers 200 to everything over TLS; it ends with the test process.
struct TlsOrigin {
    port: u16,
    /// The server names that clients sent, by connection.
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl TlsOrigin {
    fn start() -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&names);
        let acceptor = acceptor();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(mut stream) = acceptor.accept(stream) else {
                    continue;
                };
                let name = stream.ssl().servername(NameType::HOST_NAME);
                seen.lock().expect("names").push(name.map(str::to_owned));
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        Self { port, names }
    }

    fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn names(&self) -> Vec<Option<String>> {
        self.names.lock().expect("names").clone()
    }
}

fn acceptor() -> SslAcceptor {
    let (certificate, key) = self_signed();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
    acceptor.set_certificate(&certificate).expect("set");
    acceptor.set_private_key(&key).expect("set");
    acceptor.build()
}

fn self_signed() -> (X509, PKey<Private>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "origin.test").expect("set");
    let name = name.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("set");
    let serial = BigNum::from_u32(1).and_then(|serial| serial.to_asn1_integer());
    builder
        .set_serial_number(&serial.expect("a serial"))
        .expect("set");
    builder.set_subject_name(&name).expect("set");
    builder.set_issuer_name(&name).expect("set");
    builder.set_pubkey(&key).expect("set");
    let day = |days| Asn1Time::days_from_now(days).expect("a day");
    builder.set_not_before(&day(0)).expect("set");
    builder.set_not_after(&day(2)).expect("set");
    builder.sign(&key, MessageDigest::sha256()).expect("signed");
    (builder.build(), key)
}

fn checks(more: &str) -> String {
    format!(
        "{{active: {{type: https, {more}, healthy: {{interval: 0.05, successes: 1}}, \
         unhealthy: {{interval: 0.05, tcp_failures: 2}}}}}}"
    )
}

#[test]
fn an_https_probe_sends_its_server_name() {
    let origin = TlsOrigin::start();
    let gateway = Gateway::start(&pool(
        &[(origin.target(), 1)],
        0,
        &checks("https_verify_certificate: false, https_sni: origin.test"),
    ));

    wait_until("five probes", || origin.names().len() >= 5);

    assert!(
        origin
            .names()
            .iter()
            .all(|name| name.as_deref() == Some("origin.test"))
    );
    assert!(is_in_state(&gateway, &origin.target(), "healthy"));
}

#[test]
fn a_certificate_that_nobody_signed_is_a_failure_unless_it_is_not_verified() {
    let origin = TlsOrigin::start();
    let document = |more: &str| pool(&[(origin.target(), 1)], 0, &checks(more));
    let gateway = Gateway::start(&document("https_sni: origin.test"));

    wait_for_state(&gateway, &origin.target(), "unhealthy");
    gateway.wait_for_log("target is unhealthy (2/2 tcp ");
    gateway.reload(&document(
        "https_sni: origin.test, https_verify_certificate: false",
    ));

    wait_for_state(&gateway, &origin.target(), "healthy");
}
