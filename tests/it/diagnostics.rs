//! What `tollgate check` prints about each broken configuration in `diagnostics/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::tollgate;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/diagnostics")
}

fn broken_files() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the folder of broken configurations");
    let names = entries.map(|entry| {
        entry
            .expect("a readable entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let mut names: Vec<String> = names
        .filter(|name| name.strip_suffix(".yaml").is_some())
        .collect();
    names.sort();
    names
}

#[test]
fn every_broken_configuration_is_reported_as_recorded() {
    let files = broken_files();
    assert!(
        !files.is_empty(),
        "no broken configuration in {}",
        folder().display()
    );
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);

    settings.bind(|| {
        for file in files {
            let outcome = tollgate(&folder(), &["check", "-c", &file]);
            insta::assert_snapshot!(file.trim_end_matches(".yaml"), outcome.stderr);
        }
    });
}

/// A file whose name begins with `warning` is usable; every other one is not.
#[test]
fn the_exit_code_tells_mistakes_from_warnings() {
    for file in broken_files() {
        let outcome = tollgate(&folder(), &["check", "-c", &file]);
        let usable = file.starts_with("warning");
        assert_eq!(
            outcome.code == Some(0),
            usable,
            "{file}: {:?}\n{}",
            outcome.code,
            outcome.stderr
        );
    }
}
