//! `tollgate check`: every mistake of a configuration, with its place, in one run. Starts nothing.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use super::{Format, compile, environment, say};
use crate::config;

/// Arguments of `tollgate check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, short, default_value = "config/gateway.yaml")]
    config: PathBuf,
    /// How mistakes are written: lines on stderr, or one JSON array on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let mut loaded = config::load(&arguments.config, &environment);
    if let Err(error) = compile(&mut loaded) {
        say(&format!("error: {error}"));
        return ExitCode::FAILURE;
    }
    let diagnostics = &loaded.diagnostics;
    match arguments.format {
        Format::Json => {
            // If nobody reads it, the exit code says enough.
            let _ = writeln!(io::stdout(), "{}", diagnostics.to_json());
        }
        Format::Text => {
            if !diagnostics.is_empty() {
                say(&diagnostics.to_text());
            }
            say(&summary(&loaded));
        }
    }
    if diagnostics.has_errors() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn summary(loaded: &config::Loaded) -> String {
    let diagnostics = &loaded.diagnostics;
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let mistakes = [
        (diagnostics.error_count(), "error"),
        (diagnostics.warning_count(), "warning"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| counted(count, what))
    .collect::<Vec<_>>()
    .join(", ");
    if diagnostics.has_errors() {
        return mistakes;
    }
    let config = &loaded.config;
    let fine = format!(
        "ok: {}, {}, {}, {}",
        counted(config.services.len(), "service"),
        counted(config.routes.len(), "route"),
        counted(config.consumers.len(), "consumer"),
        counted(config.plugins.len(), "plugin"),
    );
    if mistakes.is_empty() {
        fine
    } else {
        format!("{fine} ({mistakes})")
    }
}
