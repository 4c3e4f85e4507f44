//! Which files make up a configuration: FILE, and the fragments in its `gateway.conf_d` folder, in name order.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::diagnostics::{Code, Diagnostics, Span, place_after};
use super::environment::{self, Environment};
use super::model::Document;
use super::node::Node;
use super::yaml;

/// The documents of a configuration, before anything in them is looked at.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) documents: Vec<Document>,
    /// What to watch for changes.
    pub(super) watch: Vec<PathBuf>,
    /// Places where a value from the environment is missing, so that other mistakes there mean nothing.
    pub(super) failed: BTreeSet<(u16, u32)>,
    /// A file or the folder could not be read.
    pub(super) incomplete: bool,
}

/// Reads FILE and its fragments. What cannot be read is a diagnostic, and the rest is read all the same.
pub(super) fn read(
    path: &Path,
    environment: Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> Sources {
    let mut sources = Sources {
        documents: Vec::new(),
        watch: vec![path.to_owned()],
        failed: BTreeSet::new(),
        incomplete: false,
    };
    sources.add(path, String::new(), environment, diagnostics);
    let conf_d = sources.documents.first().and_then(conf_d);
    if let Some((folder, span)) = conf_d {
        let folder = path.parent().unwrap_or_else(|| Path::new("")).join(folder);
        for fragment in fragments(&folder, span, diagnostics) {
            let name = fragment
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            sources.add(&fragment, name, environment, diagnostics);
        }
        sources.watch.push(folder);
    }
    sources
}

/// Takes a document that is in no file. It has no fragments, and there is nothing to watch.
pub(super) fn take(
    text: String,
    called: &str,
    environment: Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> Sources {
    let mut sources = Sources {
        documents: Vec::new(),
        watch: Vec::new(),
        failed: BTreeSet::new(),
        incomplete: false,
    };
    let file = diagnostics.add_file(called);
    sources.parse(text, file, String::new(), environment, diagnostics);
    sources
}

/// Reads a document that is no configuration. `None`, with a diagnostic, if there is no usable tree.
pub(super) fn tree(
    path: &Path,
    environment: Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
    let mut sources = Sources {
        documents: Vec::new(),
        watch: Vec::new(),
        failed: BTreeSet::new(),
        incomplete: false,
    };
    sources.add(path, String::new(), environment, diagnostics);
    sources.documents.pop().map(|document| document.root)
}

/// Whether a file holds tests of a configuration: `NAME.test.yaml` or `NAME.test.yml`.
pub fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes);
    is_yaml(path) && name.is_some_and(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
}

/// How the names of test files end.
const ENDINGS: [&[u8]; 2] = [b".test.yaml", b".test.yml"];

impl Sources {
    fn add(
        &mut self,
        path: &Path,
        name: String,
        environment: Environment<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        let file = diagnostics.add_file(path.display().to_string());
        match text(path, file, diagnostics) {
            Some(text) => self.parse(text, file, name, environment, diagnostics),
            None => self.incomplete = true,
        }
    }

    fn parse(
        &mut self,
        text: String,
        file: u16,
        name: String,
        environment: Environment<'_>,
        diagnostics: &mut Diagnostics,
    ) {
        let text = environment::substitute(text, file, environment, diagnostics);
        match yaml::parse(&text.text, file, &text, diagnostics) {
            Some(root) => self.documents.push(Document { file, name, root }),
            None => self.incomplete = true,
        }
        self.failed
            .extend(text.failed_lines.iter().map(|&line| (file, line)));
    }
}

fn text(path: &Path, file: u16, diagnostics: &mut Diagnostics) -> Option<String> {
    let start = Span::start_of(file);
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("cannot be read: {}", cause(&error));
            diagnostics.error(Code::UnreadableFile, start, "", message);
            return None;
        }
    };
    if bytes.len() > yaml::FILE_BYTES_MAX {
        let message = format!(
            "the file has {} bytes, more than the limit of {}",
            bytes.len(),
            yaml::FILE_BYTES_MAX
        );
        diagnostics.error(Code::YamlLimit, start, "", message);
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(
            text.strip_prefix('\u{feff}')
                .map(str::to_owned)
                .unwrap_or(text),
        ),
        Err(error) => {
            let span = place_of_bad_byte(file, error.as_bytes(), error.utf8_error().valid_up_to());
            diagnostics.error(
                Code::YamlSyntax,
                span,
                "",
                "the file is not valid UTF-8 here",
            );
            None
        }
    }
}

fn place_of_bad_byte(file: u16, bytes: &[u8], at: usize) -> Span {
    let before = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
    let (line, column) = place_after(&before);
    Span { file, line, column }
}

fn conf_d(document: &Document) -> Option<(String, Span)> {
    let folder: &Node = document.root.get("gateway")?.get("conf_d")?;
    let name = folder.as_str().filter(|name| !name.is_empty())?;
    Some((name.to_owned(), folder.span))
}

/// The fragments of a folder by name. A missing folder is an empty one.
fn fragments(folder: &Path, span: Span, diagnostics: &mut Diagnostics) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let message = format!(
                "the folder `{}` cannot be read: {}",
                folder.display(),
                cause(&error)
            );
            diagnostics.error(Code::UnreadableFile, span, "gateway.conf_d", message);
            return Vec::new();
        }
    };
    let mut fragments: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_fragment(path))
        .collect();
    fragments.sort();
    fragments
}

fn is_fragment(path: &Path) -> bool {
    is_yaml(path) && !is_test_file(path)
}

/// Whether a path names a file in YAML that is meant to be seen.
fn is_yaml(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    yaml && !hidden && !path.is_dir()
}

/// Why a file cannot be read, in short.
pub(super) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        ErrorKind::NotADirectory => "it is not a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(folder: &Path) -> (Vec<String>, String, Sources) {
        let mut diagnostics = Diagnostics::default();
        let sources = read(&folder.join("gateway.yaml"), &|_| None, &mut diagnostics);
        let names = sources
            .documents
            .iter()
            .map(|document| document.name.clone())
            .collect();
        (names, diagnostics.to_text(), sources)
    }

    #[test]
    fn fragments_follow_the_file_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let conf_d = folder.path().join("conf.d");
        fs::create_dir(&conf_d).unwrap();
        fs::write(
            folder.path().join("gateway.yaml"),
            "gateway: {conf_d: conf.d}\n",
        )
        .unwrap();
        for name in [
            "20-b.yml",
            "10-a.yaml",
            ".hidden.yaml",
            "notes.txt",
            "30-c.yaml.bak",
            "10-a.test.yaml",
        ] {
            fs::write(conf_d.join(name), "services: []\n").unwrap();
        }
        let (names, diagnostics, sources) = read_all(folder.path());
        assert_eq!(names, ["", "10-a.yaml", "20-b.yml"]);
        assert_eq!(diagnostics, "");
        assert_eq!(sources.watch, [folder.path().join("gateway.yaml"), conf_d]);
    }

    #[test]
    fn a_missing_folder_is_an_empty_one_and_a_broken_fragment_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("gateway.yaml"),
            "gateway: {conf_d: conf.d}\n",
        )
        .unwrap();
        assert_eq!(read_all(folder.path()).1, "");
        let conf_d = folder.path().join("conf.d");
        fs::create_dir(&conf_d).unwrap();
        fs::write(conf_d.join("a.yaml"), "services: [\n").unwrap();
        fs::write(conf_d.join("b.yaml"), b"a: \"\xff\"\n").unwrap();
        fs::write(conf_d.join("c.yaml"), "services: []\n").unwrap();
        let (names, diagnostics, _) = read_all(folder.path());
        assert_eq!(names, ["", "c.yaml"]);
        assert!(
            diagnostics.contains("conf.d/a.yaml:2:1: error[config::yaml_syntax]"),
            "{diagnostics}"
        );
        assert!(
            diagnostics.contains(
                "conf.d/b.yaml:1:5: error[config::yaml_syntax]: the file is not valid UTF-8"
            ),
            "{diagnostics}"
        );
    }

    #[test]
    fn a_missing_file_is_a_diagnostic() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_all(folder.path()).1.contains(
            "gateway.yaml:1:1: error[config::unreadable_file]: cannot be read: no such file"
        ));
    }
}
