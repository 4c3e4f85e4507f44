//! The commands. Each file is one of them.

mod check;
mod client;
mod completions;
mod demo;
mod explain;
mod man;
mod mock;
mod probe;
mod run;
mod schema;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::{compile::Compiler, config::Loaded, state::State};

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
