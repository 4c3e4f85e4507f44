//! The commands. Each file is one of them.

mod check;
mod completions;
mod demo;
mod man;
mod mock;
mod run;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// A declarative API gateway that reads Kong's configuration format.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve traffic, and take over changes of the configuration as they are saved
    Run(run::Arguments),
    /// Report every mistake of a configuration
    Check(check::Arguments),
    /// Run a mock origin to put behind the gateway
    Mock(mock::Arguments),
    /// Run the gateway with three mock origins in one process
    Demo(demo::Arguments),
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
        Command::Mock(arguments) => report(mock::run(arguments)),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Completions(arguments) => report(completions::run(&arguments)),
        Command::Man(arguments) => report(man::run(&arguments)),
    }
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
