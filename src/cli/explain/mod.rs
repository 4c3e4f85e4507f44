//! `tollgate explain`: what becomes of a request, and why; from the files, or from the running
//! process. It sends no request anywhere but to the admin listener, and changes nothing.

mod live;
mod text;

use std::{
    io::{self, IsTerminal, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use thiserror::Error;

use super::{Candidate, Format, LoadError, report, say};
use crate::{
    explain::{Explanation, Question, Subject, Unanswerable, explain},
    server::listen_ports,
};
use live::AskError;

/// The exit code when no route takes the request.
const NO_ROUTE: u8 = 3;

/// Arguments of `tollgate explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, short, default_value = "config/gateway.yaml")]
    config: PathBuf,
    /// Ask the running process at this admin listener, such as `http://127.0.0.1:8001`, instead of
    /// reading files
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
    /// The address that the request comes from
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// Take authentication to find this consumer, by username, `custom_id` or id
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// A header of the request; may be given several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// List every route that does not take the request, not only the ten nearest
    #[arg(long)]
    all: bool,
    /// How the explanation is written: text for people, or one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The method, such as GET
    method: String,
    /// `http://HOST:PORT/PATH?QUERY`, `https://…`, or a path alone
    url: String,
}

/// Why there is no explanation.
#[derive(Debug, Error)]
enum ExplainError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Question(#[from] Unanswerable),
    #[error("the running process was not asked")]
    Ask(#[from] AskError),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let question = Question {
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: arguments.headers.clone(),
        client_ip: Some(arguments.client_ip),
        consumer: arguments.consumer.clone(),
        all: arguments.all,
    };
    let answer = match &arguments.admin {
        Some(admin) => live::ask(admin, &question).map_err(ExplainError::from),
        None => from_files(&arguments.config, &question),
    };
    let explanation = match answer {
        Ok(explanation) => explanation,
        Err(ExplainError::Load(error)) => {
            say(&error.to_string());
            return ExitCode::FAILURE;
        }
        Err(error) => return report(Err::<(), _>(error)),
    };
    let written = match arguments.format {
        Format::Text => text::write(&explanation, may_color()),
        Format::Json => {
            serde_json::to_string_pretty(&explanation)
                .expect("an explanation is plain data with text for keys")
                + "\n"
        }
    };
    // If nobody reads it, the exit code says something still.
    let _ = io::stdout().write_all(written.as_bytes());
    match explanation.route {
        Some(_) => ExitCode::SUCCESS,
        None => NO_ROUTE.into(),
    }
}

fn from_files(file: &Path, question: &Question) -> Result<Explanation, ExplainError> {
    let candidate = Candidate::load(file)?;
    let subject = Subject {
        snapshot: &candidate.snapshot,
        state: &candidate.state,
        ports: &listen_ports(&candidate.loaded.config.gateway),
        is_live: false,
    };
    Ok(explain(subject, question)?)
}

/// Whether stdout is a terminal whose owner has not asked for plain text (<https://no-color.org>).
fn may_color() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_unwanted
}

/// `Name: value`, as curl takes it.
fn header(written: &str) -> Result<(String, String), String> {
    match written.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("`{written}` is not `NAME: VALUE`")),
    }
}
