//! The files that settings name for certificates and keys. They are part of the configuration: watched like it, and
//! loaded whenever it is. What is in them is for others to judge.

use std::fs;
use std::path::{Path, PathBuf};

use super::Gateway;
use super::diagnostics::{Code, Diagnostics, Span};
use super::model::tls::DhParameters;
use super::named_files::NamedFiles;
use super::node::Node;
use super::sources::cause;
use crate::entity::Secret;

/// More than any chain of certificates has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate and its key, from two files.
#[derive(Debug)]
pub struct PairFiles {
    pub certificate: PemFile,
    pub key: PemFile,
}

/// What stands in a file, and where the file is named.
#[derive(Debug)]
pub struct PemFile {
    pub text: Secret<String>,
    pub span: Span,
    /// The dotted path of the setting.
    pub path: String,
}

/// Reads files that settings name.
pub(super) struct Reader<'a> {
    /// Where the settings are written.
    pub(super) node: &'a Node,
    /// Where relative paths begin.
    pub(super) folder: &'a Path,
    pub(super) files: &'a NamedFiles,
    /// Every file is added, also one that cannot be read.
    pub(super) watch: &'a mut Vec<PathBuf>,
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl Reader<'_> {
    /// Reads the file `name`, which the setting `field` names.
    pub(super) fn file(&mut self, name: &str, field: &str) -> Option<PemFile> {
        let (span, path) = (self.node.span_at(field), format!("gateway.{field}"));
        let file = self.folder.join(name);
        let text = self.files.text(&file, text).map_err(|problem| {
            let message = format!("the file `{}` cannot be read: {problem}", file.display());
            self.diagnostics
                .error(Code::UnreadableFile, span, &path, message);
        });
        self.watch.push(file);
        Some(PemFile {
            text: text.ok()?,
            span,
            path,
        })
    }
}

/// Reads the pairs of `ssl_cert` and `ssl_cert_key`.
pub(super) fn read(gateway: &Gateway, reader: &mut Reader<'_>) -> Vec<PairFiles> {
    let (certificates, keys) = (&gateway.ssl_cert, &gateway.ssl_cert_key);
    if certificates.len() != keys.len() {
        let field = if certificates.is_empty() {
            "ssl_cert_key"
        } else {
            "ssl_cert"
        };
        let message = format!(
            "there must be as many files in `ssl_cert` as in `ssl_cert_key`, found {} and {}",
            certificates.len(),
            keys.len()
        );
        let (span, path) = (reader.node.span_at(field), format!("gateway.{field}"));
        let code = Code::InvalidCombination;
        reader.diagnostics.error(code, span, path, message);
        return Vec::new();
    }
    let pairs = certificates.iter().zip(keys.iter()).enumerate();
    pairs
        .filter_map(|(index, (certificate, key))| {
            let certificate = reader.file(&certificate.0, &format!("ssl_cert[{index}]"));
            let key = reader.file(&key.0, &format!("ssl_cert_key[{index}]"));
            Some(PairFiles {
                certificate: certificate?,
                key: key?,
            })
        })
        .collect()
}

/// Reads what `ssl_dhparam` names, unless that is a group.
pub(super) fn dh_parameters(gateway: &Gateway, reader: &mut Reader<'_>) -> Option<PemFile> {
    const FIELD: &str = "ssl_dhparam";
    match gateway.ssl_dhparam.as_ref()? {
        DhParameters::Group(_) => None,
        DhParameters::Pem(text) => Some(PemFile {
            text: Secret::new(text.clone()),
            span: reader.node.span_at(FIELD),
            path: format!("gateway.{FIELD}"),
        }),
        DhParameters::File(name) => reader.file(&name.0, FIELD),
    }
}

/// What is in a file.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn text(file: &Path) -> Result<String, String> {
    let metadata = fs::metadata(file).map_err(|error| cause(&error))?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let bytes = fs::read(file).map_err(|error| cause(&error))?;
    String::from_utf8(bytes).map_err(|_| "it is not PEM, which is text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(settings: &str) -> (config::Loaded, PathBuf, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.crt"), "certificate").unwrap();
        fs::write(folder.path().join("a.key"), "key").unwrap();
        let file = folder.path().join("gateway.yaml");
        fs::write(
            &file,
            format!("_format_version: \"3.0\"\ngateway: {{{settings}}}\n"),
        )
        .unwrap();
        (config::load(&file, &|_| None), file, folder)
    }

    #[test]
    fn the_files_are_found_beside_the_configuration_and_watched() {
        let (loaded, file, folder) = load("ssl_cert: a.crt, ssl_cert_key: a.key");
        assert_eq!(loaded.diagnostics.to_text(), "");
        let [pair] = loaded.config.default_pairs.as_slice() else {
            panic!("one pair");
        };
        assert_eq!(pair.certificate.text.expose(), "certificate");
        assert_eq!(pair.key.text.expose(), "key");
        let beside = |name: &str| folder.path().join(name);
        assert_eq!(loaded.watch, [file, beside("a.crt"), beside("a.key")]);
    }

    #[test]
    fn the_hash_changes_with_the_files() {
        let (loaded, file, folder) = load("ssl_cert: a.crt, ssl_cert_key: a.key");
        assert_eq!(
            config::load(&file, &|_| None).config.hash,
            loaded.config.hash
        );
        fs::write(folder.path().join("a.crt"), "another").unwrap();
        assert_ne!(
            config::load(&file, &|_| None).config.hash,
            loaded.config.hash
        );
    }

    #[test]
    fn what_is_missing_is_told_at_its_place() {
        let (loaded, ..) = load("ssl_cert: [a.crt, b.crt], ssl_cert_key: [a.key, a.key]");
        let text = loaded.diagnostics.to_text();
        assert!(
            text.contains("error[config::unreadable_file]: gateway.ssl_cert[1]: the file `"),
            "{text}"
        );
        assert!(
            text.contains("b.crt` cannot be read: no such file"),
            "{text}"
        );
        let (loaded, ..) = load("ssl_cert: a.crt");
        let text = loaded.diagnostics.to_text();
        assert!(text.contains("found 1 and 0"), "{text}");
    }
}
