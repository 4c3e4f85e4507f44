//! `tollgate man`: the manual pages, made from the definition of commands and options.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::CommandFactory as _;
use clap_mangen::Man;

/// Arguments of `tollgate man`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write one page for each command into this folder, which exists
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let command = super::Arguments::command();
    if let Some(folder) = &arguments.to {
        return clap_mangen::generate_to(command, folder).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot write manual pages to {}: {error}", folder.display()),
            )
        });
    }
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    io::stdout().write_all(&page)
}
