//! The files of `error_template_…`: read with the configuration, so that one that is missing or no
//! template is a mistake at its setting.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::diagnostics::{Code, Diagnostics, Span};
use super::model::Gateway;
use super::named_files::NamedFiles;
use super::sources;
use crate::entity::error_template::{ErrorTemplate, ErrorTemplates};

/// The largest template.
const BYTES_MAX: u64 = 64 << 10;

/// What the settings name, as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) templates: ErrorTemplates,
    /// What was read, so that a change of it is a change of the configuration.
    pub(super) texts: Vec<String>,
    /// The files, also those that could not be read.
    pub(super) files: Vec<PathBuf>,
}

/// Reads the templates that `gateway` names, relative to `folder`; `files` is what is known of them. `place` tells
/// where a setting stands.
pub(super) fn read(
    gateway: &Gateway,
    (folder, files): (&Path, &NamedFiles),
    place: impl Fn(&str) -> Span,
    diagnostics: &mut Diagnostics,
) -> Found {
    let mut found = Found::default();
    let mut template = |setting: &str, path: Option<&String>| {
        let path = folder.join(path?);
        found.files.push(path.clone());
        let mut refuse = |code, complaint: String| {
            let message = format!("`{}` {complaint}", path.display());
            diagnostics.error(code, place(setting), format!("gateway.{setting}"), message);
        };
        let text = match files.text(&path, text_of) {
            Ok(text) => text.into_inner(),
            Err(complaint) => {
                refuse(Code::UnreadableFile, complaint);
                return None;
            }
        };
        let parsed = ErrorTemplate::parse(&text);
        found.texts.push(text);
        parsed
            .map_err(|error| refuse(Code::InvalidValue, error.to_string()))
            .ok()
    };
    let templates = ErrorTemplates {
        html: template("error_template_html", gateway.error_template_html.as_ref()),
        json: template("error_template_json", gateway.error_template_json.as_ref()),
        plain: template(
            "error_template_plain",
            gateway.error_template_plain.as_ref(),
        ),
        xml: template("error_template_xml", gateway.error_template_xml.as_ref()),
    };
    found.templates = templates;
    found
}

fn text_of(path: &Path) -> Result<String, String> {
    let unreadable = |error: &std::io::Error| format!("cannot be read: {}", sources::cause(error));
    let mut text = String::new();
    // Looked at before it is opened, as opening a pipe would wait for whoever writes to it.
    let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    match file.take(BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 > BYTES_MAX => {
            Err(format!("is larger than the limit of {BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err("is not valid UTF-8".to_owned())
        }
        Err(error) => Err(unreadable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_plain(content: &[u8]) -> (Found, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain.txt"), content).unwrap();
        let gateway = Gateway {
            error_template_plain: Some("plain.txt".into()),
            ..Gateway::default()
        };
        let mut diagnostics = Diagnostics::default();
        diagnostics.add_file("gateway.yaml");
        let read = read(
            &gateway,
            (folder.path(), &NamedFiles::default()),
            |_| Span::start_of(0),
            &mut diagnostics,
        );
        (read, diagnostics.to_text())
    }

    #[test]
    fn a_template_is_read_and_watched() {
        let (read, diagnostics) = read_plain(b"%s (%s)");
        assert_eq!(diagnostics, "");
        assert!(read.templates.plain.is_some() && read.templates.html.is_none());
        assert_eq!((read.texts.len(), read.files.len()), (1, 1));
    }

    #[test]
    fn what_is_no_template_is_a_mistake_at_the_setting() {
        for (content, complaint) in [
            (&b"%s"[..], "needs `%s` twice"),
            (b"\xff%s%s", "is not valid UTF-8"),
            (&vec![b'x'; 70_000], "is larger than the limit"),
        ] {
            let (read, diagnostics) = read_plain(content);
            assert!(
                diagnostics.contains("gateway.error_template_plain")
                    && diagnostics.contains(complaint),
                "{diagnostics}"
            );
            assert_eq!(read.templates, ErrorTemplates::default());
        }
    }
}
