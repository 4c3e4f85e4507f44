//! `tollgate test`: requests and what must become of them, tried by the code that serves requests. It opens no
//! socket and sends nothing.

mod coverage;
mod judge;
mod report;
mod suite;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use thiserror::Error;

use self::{
    coverage::Coverage,
    judge::{Miss, judge},
    report::{Outcome, Report},
    suite::Case,
};
use super::{Candidate, LoadError, MISTAKE, environment, say};
use crate::{
    config::{self, Diagnostics},
    explain::{Subject, explain, foretell},
    server::listening,
};

/// Arguments of `tollgate test`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, short, default_value = "config/gateway.yaml")]
    config: PathBuf,
    /// How results are written: for people, as one JSON object, or as `JUnit` XML
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// List the routes that no test takes
    #[arg(long)]
    coverage: bool,
    /// Fail if the tests take less than so many percent of the routes
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    coverage_min: Option<u8>,
    /// Test files, or folders with files `*.test.yaml`; left out: those beside the configuration and in its
    /// `conf_d` folder
    #[arg(value_name = "TESTFILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
}

/// Why nothing was tried.
#[derive(Debug, Error)]
enum TestError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("error: there is no file `*.test.yaml` in {0}; write one, or name the files")]
    NoFiles(String),
    #[error("error: the folder {} cannot be read: {cause}", .folder.display())]
    Folder { folder: PathBuf, cause: io::Error },
    /// The mistakes of the test files.
    #[error("{0}")]
    Tests(String),
    #[error("error: the files hold no test; write one under `tests`")]
    NoTests,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match run_tests(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(MISTAKE)
        }
    }
}

/// Whether everything is as it should be.
fn run_tests(arguments: &Arguments) -> Result<bool, TestError> {
    let candidate = Candidate::load(&arguments.config)?;
    let files = if arguments.files.is_empty() {
        beside(&candidate.loaded.watch)?
    } else {
        named(&arguments.files)?
    };
    let mut diagnostics = Diagnostics::default();
    let mut cases = Vec::new();
    for file in &files {
        cases.extend(suite::read_file(file, &environment, &mut diagnostics));
    }
    if diagnostics.has_errors() {
        return Err(TestError::Tests(diagnostics.to_text()));
    }
    if cases.is_empty() {
        return Err(TestError::NoTests);
    }
    let mut taken = BTreeSet::new();
    let outcomes = attempt(&candidate, cases, &mut taken);
    let coverage = Coverage::of(&candidate.snapshot, &taken);
    let wants_coverage = arguments.coverage || arguments.coverage_min.is_some();
    let report = Report {
        outcomes: &outcomes,
        coverage: wants_coverage.then_some(&coverage),
        files: &diagnostics,
    };
    let written = match arguments.format {
        Format::Text => report.text(),
        Format::Json => report.json(),
        Format::Junit => report.junit(),
    };
    // If nobody reads it, the exit code says enough.
    let _ = io::stdout().write_all(written.as_bytes());
    let is_covered = match arguments.coverage_min {
        Some(least) if coverage.percent() < usize::from(least) => {
            say(&format!(
                "too few routes have a test: {} %, and --coverage-min is {least}",
                coverage.percent()
            ));
            false
        }
        _ => true,
    };
    Ok(report.failed() == 0 && is_covered)
}

/// Tries every case; adds the ids of the routes that were taken.
fn attempt(candidate: &Candidate, cases: Vec<Case>, taken: &mut BTreeSet<String>) -> Vec<Outcome> {
    let subject = Subject {
        snapshot: &candidate.snapshot,
        state: &candidate.state,
        listening: &listening(&candidate.loaded.config.gateway),
        is_live: false,
    };
    cases
        .into_iter()
        .map(|case| {
            let misses = match foretell(subject, &case.question) {
                Ok(found) => {
                    taken.extend(found.route.as_ref().map(|route| route.id.clone()));
                    let why = || explain(subject, &case.question).ok();
                    judge(&case.expected, &found, &candidate.snapshot, &why)
                }
                Err(error) => vec![Miss {
                    field: "request".to_owned(),
                    place: case.place,
                    expected: "a request that can be sent".to_owned(),
                    found: error.to_string(),
                    why: Vec::new(),
                }],
            };
            Outcome { case, misses }
        })
        .collect()
}

/// The test files beside the configuration, and in its folder of fragments.
fn beside(watch: &[PathBuf]) -> Result<Vec<PathBuf>, TestError> {
    let mut files = Vec::new();
    let mut places = Vec::new();
    for (index, path) in watch.iter().enumerate() {
        let folder = match path.parent() {
            // What is watched first is the file; the folder of fragments comes behind it.
            Some(parent) if index == 0 && parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) if index == 0 => parent,
            _ => path,
        };
        if folder.is_dir() {
            files.extend(test_files(folder)?);
            places.push(folder.display().to_string());
        }
    }
    if files.is_empty() {
        return Err(TestError::NoFiles(places.join(" and ")));
    }
    Ok(files)
}

/// The files that were named, and the test files of the folders that were.
fn named(paths: &[PathBuf]) -> Result<Vec<PathBuf>, TestError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = test_files(path)?;
            if found.is_empty() {
                return Err(TestError::NoFiles(path.display().to_string()));
            }
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// The test files of a folder in the order of their names.
fn test_files(folder: &Path) -> Result<Vec<PathBuf>, TestError> {
    let entries = fs::read_dir(folder).map_err(|cause| TestError::Folder {
        folder: folder.to_owned(),
        cause,
    })?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| config::is_test_file(path))
        // As the folder is named by the operator, so are its files.
        .map(|path| {
            path.strip_prefix(".")
                .map_or_else(|_| path.clone(), Path::to_owned)
        })
        .collect();
    files.sort();
    Ok(files)
}
