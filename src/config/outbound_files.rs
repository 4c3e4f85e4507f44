//! The files that settings name for TLS towards upstreams: whom to believe, and what to show.

use super::diagnostics::Code;
use super::model::gateway::Gateway;
use super::model::tls::TrustedCertificates;
use super::pem_files::{PairFiles, PemFile, Reader};

/// What is in the files. What could not be read is missing, and a diagnostic.
#[derive(Debug, Default)]
pub struct OutboundFiles {
    /// Of `trusted_certificates`.
    pub trusted: Vec<PemFile>,
    /// `client_ssl_cert` and its key, where they are to be used.
    pub client_pair: Option<PairFiles>,
}

impl OutboundFiles {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &PemFile> {
        let pair = self.client_pair.iter();
        let pair = pair.flat_map(|pair| [&pair.certificate, &pair.key]);
        self.trusted.iter().chain(pair)
    }
}

/// Reads the files that `settings` name.
pub(super) fn read(settings: &Gateway, reader: &mut Reader<'_>) -> OutboundFiles {
    let mut trusted = Vec::new();
    for (index, entry) in settings.trusted_certificates.iter().enumerate() {
        if let TrustedCertificates::File(name) = entry {
            trusted.extend(reader.file(name, &format!("trusted_certificates[{index}]")));
        }
    }
    OutboundFiles {
        trusted,
        client_pair: client_pair(settings, reader),
    }
}

fn client_pair(settings: &Gateway, reader: &mut Reader<'_>) -> Option<PairFiles> {
    let (certificate, key) = (&settings.client_ssl_cert, &settings.client_ssl_cert_key);
    let switch = settings.client_ssl.map(|switch| switch.0);
    let (given, missing) = match (certificate, key) {
        _ if switch == Some(false) => return None,
        (Some(certificate), Some(key)) => {
            let certificate = reader.file(&certificate.0, "client_ssl_cert");
            let key = reader.file(&key.0, "client_ssl_cert_key");
            return Some(PairFiles {
                certificate: certificate?,
                key: key?,
            });
        }
        (Some(_), None) => ("client_ssl_cert", "client_ssl_cert_key"),
        (None, Some(_)) => ("client_ssl_cert_key", "client_ssl_cert"),
        (None, None) if switch == Some(true) => ("client_ssl", "client_ssl_cert"),
        (None, None) => return None,
    };
    reader.diagnostics.error(
        Code::InvalidCombination,
        reader.node.span_at(given),
        format!("gateway.{given}"),
        format!("`{given}` needs `{missing}` as well"),
    );
    None
}
