//! `tollgate run`: serve until told to stop.

use std::{path::PathBuf, process::ExitCode};

use super::{environment, report};
use crate::{reload::Source, server};

/// Arguments of `tollgate run`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, short, default_value = "config/gateway.yaml")]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    report(server::run(server::Start {
        source: Source {
            file: arguments.config.clone(),
            environment,
        },
        beside: None,
    }))
}
