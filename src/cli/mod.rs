//! The commands. Each file is one of them.

mod check;
mod demo;
mod mock;
mod probe;
mod run;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};

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
    /// Run a mock origin to put behind the gateway
    Mock(mock::Arguments),
    /// Run the gateway with three mock origins in one process
    Demo(demo::Arguments),
    /// Send requests to a running gateway and judge its answers
    Probe(probe::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Mock(arguments) => report(mock::run(arguments)),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
    }
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
