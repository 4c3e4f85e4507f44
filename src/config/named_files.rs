//! Files that a setting names and whose text is part of the configuration: certificates and keys.
//! They are read together with the documents, and watched like these.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::diagnostics::{Code, Diagnostics, Span};
use super::model::gateway::Gateway;
use super::model::settings::TrustedCertificates;
use super::node::Node;

/// No file of certificates is larger.
const BYTES_MAX: u64 = 8 << 20;

/// A file that a setting names.
#[derive(Clone, Default)]
pub struct NamedFile {
    /// The path as it is written.
    pub written: String,
    /// What is in it; it may be a key, so it is never shown.
    pub text: Vec<u8>,
    /// Where the setting is.
    pub span: Span,
    /// The dotted path of the setting.
    pub field: String,
}

impl fmt::Debug for NamedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NamedFile")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// The files of the `gateway:` settings. What could not be read is missing, and a diagnostic.
#[derive(Clone, Debug, Default)]
pub struct NamedFiles {
    /// Of `trusted_certificates`.
    pub trusted: Vec<NamedFile>,
    /// `client_ssl_cert` and its key, where they are to be used.
    pub client_pair: Option<(NamedFile, NamedFile)>,
}

/// Reads files relative to a folder, and notes what to watch.
struct Reader<'a> {
    gateway: &'a Node,
    folder: &'a Path,
    watch: &'a mut Vec<PathBuf>,
    diagnostics: &'a mut Diagnostics,
}

/// Reads the files that `settings` name, which were read from `gateway`.
pub(super) fn read(
    settings: &Gateway,
    gateway: &Node,
    folder: &Path,
    watch: &mut Vec<PathBuf>,
    diagnostics: &mut Diagnostics,
) -> NamedFiles {
    let mut reader = Reader {
        gateway,
        folder,
        watch,
        diagnostics,
    };
    let mut files = NamedFiles::default();
    for trusted in settings.trusted_certificates.iter() {
        if let TrustedCertificates::File(written) = trusted {
            files
                .trusted
                .extend(reader.file("trusted_certificates", written));
        }
    }
    files.client_pair = reader.client_pair(settings);
    files
}

impl Reader<'_> {
    fn client_pair(&mut self, settings: &Gateway) -> Option<(NamedFile, NamedFile)> {
        let (certificate, key) = (&settings.client_ssl_cert, &settings.client_ssl_cert_key);
        match settings.client_ssl.map(|switch| switch.0) {
            Some(false) => return None,
            Some(true) if certificate.is_none() && key.is_none() => {
                self.missing("client_ssl", "client_ssl_cert");
                return None;
            }
            Some(true) | None => {}
        }
        match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let certificate = self.file("client_ssl_cert", certificate);
                let key = self.file("client_ssl_cert_key", key);
                certificate.zip(key)
            }
            (Some(_), None) => {
                self.missing("client_ssl_cert", "client_ssl_cert_key");
                None
            }
            (None, Some(_)) => {
                self.missing("client_ssl_cert_key", "client_ssl_cert");
                None
            }
        }
    }

    fn missing(&mut self, given: &str, missing: &str) {
        self.diagnostics.error(
            Code::InvalidCombination,
            self.gateway.span_at(given),
            format!("gateway.{given}"),
            format!("`{given}` needs `{missing}` as well"),
        );
    }

    fn file(&mut self, field: &str, written: &str) -> Option<NamedFile> {
        let path = self.folder.join(written);
        let read = read_bounded(&path);
        self.watch.push(path);
        let (span, field) = (self.gateway.span_at(field), format!("gateway.{field}"));
        match read {
            Ok(text) => Some(NamedFile {
                written: written.to_owned(),
                text,
                span,
                field,
            }),
            Err(error) => {
                let message = format!("`{written}` cannot be read: {error}");
                self.diagnostics
                    .error(Code::InvalidValue, span, field, message)
                    .hint("a relative path begins at the folder of the configuration file");
                None
            }
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it is larger than 8 MiB"));
    }
    Ok(text)
}
