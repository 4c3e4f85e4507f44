//! `tollgate completions`: what a shell needs to complete commands and options, made from their definition.

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Arguments of `tollgate completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let mut command = super::Arguments::command();
    let name = command.get_name().to_owned();
    // The generator panics when it cannot write, memory always takes it.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    io::stdout().write_all(&script)
}
