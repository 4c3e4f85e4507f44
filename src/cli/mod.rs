//! The commands. Each file is one of them.

mod check;
mod completions;
mod demo;
mod diff;
mod explain;
mod man;
mod mock;
mod probe;
mod run;
mod schema;
mod test;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use thiserror::Error;

use crate::{
    compile::Compiler,
    config::{self, Loaded},
    snapshot::Snapshot,
    state::State,
};

/// A declarative API gateway that reads Kong's configuration format.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve traffic, from a file whose changes are taken over as they are saved, or from a few flags
    Run(run::Arguments),
    /// Report every mistake of a configuration
    Check(check::Arguments),
    /// Say what becomes of a request, and why: route, near misses, plugins, upstream request
    ///
    /// Names the route that takes the request and why each similar one does not, the plugins in their
    /// order with the place in the files that each comes from, the service with its targets, and the
    /// request as the upstream gets it. The code that finds this out is the one that serves requests.
    ///
    /// Nothing is sent and nothing is counted. A plugin that keeps counts is therefore only named;
    /// whether it lets the request pass depends on them.
    ///
    /// Exit codes: 0 if a route takes the request, also where the gateway answers it by itself; 3 if
    /// none does; 1 if the configuration has mistakes, the process cannot be asked, or the question
    /// makes no sense; 2 for arguments that are not understood.
    Explain(explain::Arguments),
    /// Try requests against a configuration and compare what becomes of them with what is expected
    ///
    /// Test files hold requests, and for each the route, the plugins, the upstream request or the answer
    /// that is expected. They are tried by the code that serves requests; no socket is opened, and
    /// nothing is sent or counted.
    ///
    /// Exit codes: 0 if everything is as expected; 1 if something is not, or too few routes have a test;
    /// 2 if the configuration or a test file has mistakes, or arguments are not understood.
    Test(test::Arguments),
    /// Say what a reload from one configuration to another would change, and what state it keeps
    ///
    /// Names every entity that is added, removed or changed with the old and the new value of each field,
    /// which rate counters, turns, health and addresses are kept and which begin anew, and what needs a
    /// restart. Values of secret fields are not shown.
    ///
    /// Exit codes: 0 if there is no difference; 1 if there is one; 2 if a configuration has mistakes, or
    /// arguments are not understood.
    Diff(diff::Arguments),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Run a mock origin to put behind the gateway
    Mock(mock::Arguments),
    /// Run the gateway with three mock origins in one process
    Demo(demo::Arguments),
    /// Send requests to a running gateway and judge its answers
    Probe(probe::Arguments),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Print the manual page, or write all of them into a folder
    Man(man::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Schema => schema::run(),
        Command::Mock(arguments) => report(mock::run(arguments)),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Completions(arguments) => report(completions::run(&arguments)),
        Command::Man(arguments) => report(man::run(&arguments)),
    }
}

/// The commands and their options, for the reference page about them.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// How a command writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// The exit code of arguments that are not understood, as clap has it.
const USAGE: u8 = 2;

/// The exit code of `test` and `diff` if there is nothing to compare: 1 says that something differs.
const MISTAKE: u8 = 2;

/// A configuration that was compiled from its files and serves nobody.
struct Candidate {
    loaded: Loaded,
    snapshot: Arc<Snapshot>,
    state: Arc<State>,
}

/// Why a configuration cannot be looked at.
#[derive(Debug, Error)]
enum LoadError {
    /// Its mistakes, one line each.
    #[error("{0}")]
    Configuration(String),
    #[error("error: a metric is registered twice: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Candidate {
    /// Compiles FILE and its fragments with a state of their own.
    fn load(file: &Path) -> Result<Self, LoadError> {
        Self::load_with(&Compiler::new(Arc::new(State::new()))?, file)
    }

    /// The same with the state of `compiler`, as a reload does.
    fn load_with(compiler: &Compiler, file: &Path) -> Result<Self, LoadError> {
        let mut loaded = config::load(file, &environment);
        match compiler.compile(&loaded.config, &mut loaded.diagnostics) {
            Some(snapshot) => Ok(Self {
                loaded,
                snapshot: Arc::new(snapshot),
                state: Arc::clone(compiler.state()),
            }),
            None => Err(LoadError::Configuration(loaded.diagnostics.to_text())),
        }
    }
}

/// Compiles what was loaded, for its mistakes only: they are added to its diagnostics.
fn compile(loaded: &mut Loaded) -> Result<(), prometheus::Error> {
    let compiler = Compiler::new(Arc::new(State::new()))?;
    compiler.compile(&loaded.config, &mut loaded.diagnostics);
    Ok(())
}

fn report<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            say(&text);
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to stderr. If nobody reads it, so be it.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}

/// The environment of the process.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
