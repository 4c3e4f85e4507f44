//! What comes with the binary for shells and for `man`.

use std::fs;

use crate::harness::tollgate;

const COMMANDS: [&str; 11] = [
    "run",
    "check",
    "explain",
    "test",
    "diff",
    "schema",
    "mock",
    "demo",
    "probe",
    "completions",
    "man",
];

#[test]
fn the_completions_of_each_shell_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = tollgate(&std::env::temp_dir(), &["completions", shell]);

        assert_eq!(outcome.code, Some(0), "{shell}: {}", outcome.stderr);
        for command in COMMANDS {
            assert!(outcome.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn a_shell_that_is_unknown_is_refused_with_those_that_are_known() {
    let outcome = tollgate(&std::env::temp_dir(), &["completions", "tcsh"]);

    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("fish"), "{}", outcome.stderr);
}

#[test]
fn the_manual_page_is_printed() {
    let outcome = tollgate(&std::env::temp_dir(), &["man"]);

    assert_eq!(outcome.code, Some(0));
    assert!(
        outcome.stdout.contains(".TH tollgate 1"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");

    let outcome = tollgate(folder.path(), &["man", "--to", "."]);

    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for command in COMMANDS {
        let page = folder.path().join(format!("tollgate-{command}.1"));
        let page = fs::read_to_string(page).expect("a page");
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error_with_its_name() {
    let outcome = tollgate(&std::env::temp_dir(), &["man", "--to", "/nowhere/at/all"]);

    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .starts_with("error: cannot write manual pages to /nowhere/at/all: "),
        "{}",
        outcome.stderr
    );
}
