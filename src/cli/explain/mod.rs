//! `tollgate explain`: what becomes of a request or a connection, and why; from the files, or from the running
//! process. It sends no request anywhere but to the admin listener, and changes nothing.

mod live;
mod streams;
mod text;

use std::{
    io::{self, IsTerminal, Write as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;
use thiserror::Error;

use super::{Candidate, Format, LoadError, report, say};
use crate::{
    explain::{Question, StreamQuestion, Subject, Unanswerable, explain, explain_stream},
    server::listening,
};
use live::AskError;

/// The exit code when no route takes the request or connection.
const NO_ROUTE: u8 = 3;

/// The exit code for arguments that do not go together, as for those that are none.
const NOT_UNDERSTOOD: u8 = 2;

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
    /// The address that the request comes from; that of a connection may have a port
    #[arg(long, visible_alias = "source", value_name = "IP", default_value = "127.0.0.1", value_parser = source)]
    client_ip: Source,
    /// The name that the client asks for in its TLS handshake, if it is not the host; empty for none
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
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
    /// The method, such as GET; or, with nothing behind it, `tls://HOST:PORT` or `tcp://HOST:PORT` for a
    /// connection to `stream_listen`
    method: String,
    /// `http://HOST:PORT/PATH?QUERY`, `https://…`, or a path alone
    url: Option<String>,
}

/// Where a client is.
#[derive(Debug, Clone, Copy)]
struct Source {
    ip: IpAddr,
    port: Option<u16>,
}

/// Why there is no explanation.
#[derive(Debug, Error)]
enum ExplainError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Question(#[from] Unanswerable),
    #[error(
        "`{0}` is a method without a URL; write METHOD URL, or tls://HOST:PORT for a connection"
    )]
    NoUrl(String),
    #[error("{0} is part of requests; a connection of `stream_listen` has none")]
    OfRequests(&'static str),
    #[error("the running process was not asked")]
    Ask(#[from] AskError),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let told = match &arguments.url {
        Some(url) => request(arguments, url),
        None => connection(arguments),
    };
    let told = match told {
        Ok(told) => told,
        Err(ExplainError::Load(error)) => {
            say(&error.to_string());
            return ExitCode::FAILURE;
        }
        Err(error @ (ExplainError::NoUrl(_) | ExplainError::OfRequests(_))) => {
            report(Err::<(), _>(error));
            return NOT_UNDERSTOOD.into();
        }
        Err(error) => return report(Err::<(), _>(error)),
    };
    // If nobody reads it, the exit code says something still.
    let _ = io::stdout().write_all(told.text.as_bytes());
    if told.has_route {
        ExitCode::SUCCESS
    } else {
        NO_ROUTE.into()
    }
}

/// An explanation, ready to be printed.
struct Told {
    text: String,
    has_route: bool,
}

impl Told {
    fn new<E: Serialize>(
        explanation: &E,
        has_route: bool,
        format: Format,
        text: fn(&E, bool) -> String,
    ) -> Self {
        let text = match format {
            Format::Text => text(explanation, may_color()),
            Format::Json => {
                serde_json::to_string_pretty(explanation)
                    .expect("an explanation is plain data with text for keys")
                    + "\n"
            }
        };
        Self { text, has_route }
    }
}

fn request(arguments: &Arguments, url: &str) -> Result<Told, ExplainError> {
    let question = Question {
        method: arguments.method.clone(),
        url: url.to_owned(),
        headers: arguments.headers.clone(),
        client_ip: Some(arguments.client_ip.ip),
        sni: arguments.sni.clone(),
        consumer: arguments.consumer.clone(),
        all: arguments.all,
    };
    let explanation = match &arguments.admin {
        Some(admin) => live::ask(admin, "/explain", &question)?,
        None => from_files(&arguments.config, |subject| explain(subject, &question))?,
    };
    let has_route = explanation.route.is_some();
    Ok(Told::new(
        &explanation,
        has_route,
        arguments.format,
        text::write,
    ))
}

fn connection(arguments: &Arguments) -> Result<Told, ExplainError> {
    let url = &arguments.method;
    if !url.contains("://") {
        return Err(ExplainError::NoUrl(url.clone()));
    }
    if !arguments.headers.is_empty() {
        return Err(ExplainError::OfRequests("a header"));
    }
    if arguments.consumer.is_some() {
        return Err(ExplainError::OfRequests("a consumer"));
    }
    let question = StreamQuestion {
        url: url.clone(),
        client_ip: Some(arguments.client_ip.ip),
        client_port: arguments.client_ip.port,
        sni: arguments.sni.clone(),
        all: arguments.all,
    };
    let explanation = match &arguments.admin {
        Some(admin) => live::ask(admin, "/explain/stream", &question)?,
        None => from_files(&arguments.config, |subject| {
            explain_stream(subject, &question)
        })?,
    };
    let has_route = explanation.route.is_some();
    Ok(Told::new(
        &explanation,
        has_route,
        arguments.format,
        streams::write,
    ))
}

fn from_files<A>(
    file: &Path,
    answer: impl FnOnce(Subject<'_>) -> Result<A, Unanswerable>,
) -> Result<A, ExplainError> {
    let candidate = Candidate::load(file)?;
    let subject = Subject {
        snapshot: &candidate.snapshot,
        state: &candidate.state,
        listening: &listening(&candidate.loaded.config.gateway),
        is_live: false,
    };
    Ok(answer(subject)?)
}

/// `IP` or `IP:PORT`.
fn source(written: &str) -> Result<Source, String> {
    if let Ok(ip) = written.parse() {
        return Ok(Source { ip, port: None });
    }
    match written.parse::<SocketAddr>() {
        Ok(address) => Ok(Source {
            ip: address.ip(),
            port: Some(address.port()),
        }),
        Err(_) => Err(format!("`{written}` is neither an IP address nor IP:PORT")),
    }
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
