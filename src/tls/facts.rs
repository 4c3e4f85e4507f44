//! What is known of a TLS connection after its handshake.

use http::HeaderValue;
use openssl::{nid::Nid, ssl::SslRef, x509::X509NameRef, x509::X509Ref};
use sha2::{Digest, Sha256};

use super::{context::RulesId, names};

/// What was negotiated, and who the client proved to be.
#[derive(Debug)]
pub struct TlsFacts {
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// `TLSv1.3` and the like.
    pub version: &'static str,
    /// The cipher suite by its OpenSSL name.
    pub cipher: Box<str>,
    pub protocol: Protocol,
    /// A session of before was resumed, so that no certificate was exchanged.
    pub resumed: bool,
    /// The rules for client certificates that the handshake followed.
    pub rules: RulesId,
    /// The client's certificate, verified by those rules.
    pub client: Option<ClientCertificate>,
}

/// What is spoken over the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A verified client certificate.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// Distinguished names as in RFC 4514, in ASCII.
    pub subject: HeaderValue,
    pub issuer: HeaderValue,
    /// In capital hexadecimal digits.
    pub serial: HeaderValue,
    /// SHA-256 of the certificate, 64 hexadecimal digits.
    pub fingerprint: HeaderValue,
    /// The certificate itself.
    pub pem: Box<str>,
}

impl ClientCertificate {
    /// The subject as text.
    pub fn subject(&self) -> &str {
        self.subject.to_str().unwrap_or_default()
    }

    /// The fingerprint as text.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.to_str().unwrap_or_default()
    }

    fn of(certificate: &X509Ref) -> Option<Self> {
        let serial = certificate.serial_number().to_bn().ok()?;
        let serial = serial.to_hex_str().ok()?;
        let header = |text: &str| HeaderValue::from_str(text).ok();
        Some(Self {
            subject: header(&distinguished_name(certificate.subject_name()))?,
            issuer: header(&distinguished_name(certificate.issuer_name()))?,
            serial: header(&serial)?,
            fingerprint: header(&hex(&Sha256::digest(certificate.to_der().ok()?)))?,
            pem: String::from_utf8(certificate.to_pem().ok()?).ok()?.into(),
        })
    }
}

impl TlsFacts {
    /// Those of a connection that is only talked about: of a client without a certificate that asks for `server_name`,
    /// which is in lower case.
    pub fn assumed(server_name: Option<String>, rules: RulesId) -> Self {
        Self {
            server_name: server_name.map(String::into_boxed_str),
            version: "TLSv1.3",
            cipher: "".into(),
            protocol: Protocol::Http1,
            resumed: false,
            rules,
            client: None,
        }
    }

    /// The facts of a finished handshake that was to follow `rules`; `None` if the client's certificate cannot be
    /// described, which is then no basis for trust.
    pub(super) fn of(ssl: &SslRef, server_name: Option<Box<str>>, rules: RulesId) -> Option<Self> {
        let client = match ssl.peer_certificate() {
            Some(certificate) => Some(ClientCertificate::of(&certificate)?),
            None => None,
        };
        Some(Self {
            server_name,
            version: ssl.version_str(),
            cipher: ssl
                .current_cipher()
                .map_or("", |cipher| cipher.name())
                .into(),
            protocol: match ssl.selected_alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
            resumed: ssl.session_reused(),
            rules,
            client,
        })
    }
}

/// A name as RFC 4514 writes it: the most specific part first.
fn distinguished_name(name: &X509NameRef) -> String {
    let parts: Vec<(String, Vec<u8>)> = name
        .entries()
        .map(|entry| {
            let nid = entry.object().nid();
            let kind = match nid.short_name() {
                Ok(short) if nid != Nid::UNDEF => short.to_owned(),
                _ => entry.object().to_string(),
            };
            let value = entry.data().to_string();
            let value = value.map_or_else(|_| entry.data().as_slice().to_vec(), String::into_bytes);
            (kind, value)
        })
        .collect();
    names::distinguished(
        parts
            .iter()
            .rev()
            .map(|(kind, value)| (kind.as_str(), value.as_slice())),
    )
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}
