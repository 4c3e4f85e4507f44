//! TLS from clients: which certificate they get, what they must show, and that HTTP is the same inside.

#![expect(clippy::float_cmp, reason = "what is counted is whole")]

mod ciphers;
mod clients;
mod lifetime;
mod names;
mod records;
mod requests;
mod sessions;

use crate::harness::{Client, Gateway, Issued, Origin, Tls, common_name, one_service};

/// A document with a service for everything and these certificates, each for its names.
fn document(origin: &Origin, certificates: &[(&Issued, &str)]) -> String {
    let mut text = one_service(origin);
    text.push_str("\ncertificates:\n");
    for (issued, snis) in certificates {
        text.push_str(&format!("- {{{}, snis: [{snis}]}}\n", issued.yaml()));
    }
    text
}

/// A connection on which the handshake must succeed.
#[track_caller]
fn connect(gateway: &Gateway, tls: &Tls) -> Client {
    gateway.secure(tls).expect("a handshake")
}

/// The common name of the certificate that a client gets.
#[track_caller]
fn shown(gateway: &Gateway, tls: &Tls) -> String {
    let client = connect(gateway, tls);
    let certificate = client.ssl().peer_certificate();
    common_name(&certificate.expect("a certificate"))
}

/// Handshakes that failed for this reason.
fn failures(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!(
        "tollgate_tls_handshake_failures_total{{reason=\"{reason}\"}}"
    ))
}
