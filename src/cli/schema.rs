//! `tollgate schema`: the JSON Schema of the configuration, for editors. It reads no file.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::{config::editor::document_schema, plugins::CATALOG};

pub(super) fn run() -> ExitCode {
    let plugins = CATALOG.iter().map(|entry| (entry.name, (entry.schema)()));
    // A pipe that is closed early, such as that of `head`, is no failure.
    let _ = writeln!(io::stdout(), "{:#}", document_schema(plugins));
    ExitCode::SUCCESS
}
