//! `tollgate run`: serve until told to stop, from a file or from a few flags.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{USAGE, compile, environment, report, say};
use crate::{
    config::{
        self, Diagnostics,
        model::{listen::ListenEntry, settings::List},
        outline::{Outline, RateLimit, Server},
    },
    reload::{Listeners, Source},
    server,
};

/// The file that is served if nothing else is said.
const DEFAULT_FILE: &str = "config/gateway.yaml";
/// What diagnostics call the document that the flags stand for.
const FLAGS: &str = "command line";

const EXAMPLES: &str = "\
Examples:
  tollgate run -c gateway.yaml
  tollgate run -c gateway.yaml --listen :8080
  tollgate run --listen :8080 --upstream http://127.0.0.1:9001 --upstream http://127.0.0.1:9002
  tollgate run --upstream http://127.0.0.1:9001/v1 --rate-limit 200/minute
  tollgate run --upstream http://127.0.0.1:9001 --print-config > gateway.yaml";

/// Arguments of `tollgate run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Listen for clients here instead of where the file says; repeat it for more addresses
    ///
    /// `:8080` is port 8080 of every IPv4 address. Anything that `gateway.listen` takes is understood. Without a file
    /// the default is 0.0.0.0:8000.
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    listen: Vec<String>,
    /// Listen for operators here instead of where the file says; `off` for nowhere
    ///
    /// Without a file the default is 127.0.0.1:8001.
    #[arg(long, value_name = "ADDRESS", value_parser = admin_address)]
    admin: Option<String>,
    /// Serve without a file: send every request to this server; repeat it to take turns among several
    ///
    /// Written as `scheme://host[:port][/path]`. The path is put before that of each request. All of them must have
    /// the same scheme and path.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Vec<String>,
    /// Without a file: how many requests each client address may make, such as `200` (a minute) or `5/second`
    ///
    /// After a slash stands second, minute, hour or day.
    #[arg(
        long,
        value_name = "N[/PERIOD]",
        requires = "upstream",
        conflicts_with = "config"
    )]
    rate_limit: Option<RateLimit>,
    /// Without a file: how often a request that failed is tried again on another server
    #[arg(
        long,
        value_name = "N",
        requires = "upstream",
        conflicts_with = "config"
    )]
    retries: Option<u16>,
    /// Print the file that says the same as the flags, and end
    #[arg(long, requires = "upstream", conflicts_with = "config")]
    print_config: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let source = if arguments.upstream.is_empty() {
        from_file(arguments)
    } else {
        from_flags(arguments)
    };
    match source {
        Ok(source) => report(server::run(server::Start {
            source,
            beside: None,
        })),
        Err(code) => code,
    }
}

/// The file, with the addresses of the flags.
fn from_file(arguments: &Arguments) -> Result<Source, ExitCode> {
    let file = &arguments.config;
    if file == Path::new(DEFAULT_FILE) && !file.exists() {
        say(&format!(
            "error: there is no {DEFAULT_FILE} here; name another file with `--config FILE`, or serve without one: \
             `tollgate run --listen :8080 --upstream http://127.0.0.1:9001`"
        ));
        return Err(ExitCode::FAILURE);
    }
    let source = Source::file(file.clone(), environment);
    Ok(source.listening(Listeners {
        listen: entries(&arguments.listen),
        admin: entries(arguments.admin.as_slice()),
    }))
}

/// The document that the flags stand for, or the code to end with.
fn from_flags(arguments: &Arguments) -> Result<Source, ExitCode> {
    let usage = ExitCode::from(USAGE);
    let refuse = |message: String| {
        say(&format!("error: --upstream: {message}"));
        usage
    };
    // Not read by clap, whose messages would show a password that does not belong there.
    let servers: Result<Vec<Server>, String> =
        arguments.upstream.iter().map(|url| url.parse()).collect();
    let outline = Outline {
        listen: arguments.listen.clone(),
        admin: arguments.admin.clone(),
        servers: servers.map_err(refuse)?,
        rate_limit: arguments.rate_limit,
        retries: arguments.retries,
    };
    let document = outline
        .document()
        .map_err(|disagreement| refuse(disagreement.to_string()))?;
    let mut loaded = config::load_text(document.clone(), FLAGS, &environment);
    compile(&mut loaded).map_err(|error| {
        say(&format!("error: {error}"));
        ExitCode::FAILURE
    })?;
    if loaded.diagnostics.has_errors() {
        say(&by_flag(&loaded.diagnostics));
        return Err(usage);
    }
    if arguments.print_config {
        // If nobody reads it, there is nobody to tell.
        let _ = write!(io::stdout(), "{document}");
        return Err(ExitCode::SUCCESS);
    }
    Ok(Source::text(document, FLAGS, environment))
}

/// The mistakes under the names of the flags, since nobody wrote the lines that they are in.
fn by_flag(diagnostics: &Diagnostics) -> String {
    let lines = diagnostics.sorted().into_iter().map(|diagnostic| {
        let hint = diagnostic.hint.as_ref();
        let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
        let flag = flag_of(&diagnostic.path);
        format!("error: {flag}: {}{hint}", diagnostic.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The flag that a dotted path of the document comes from.
fn flag_of(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("gateway.listen") => "--listen",
        _ if path.starts_with("gateway.admin") => "--admin",
        _ if path.contains(".plugins") => "--rate-limit",
        _ if path.ends_with(".retries") => "--retries",
        _ => "--upstream",
    }
}

/// An address as `gateway.listen` takes it; `:8080` is short for every IPv4 address.
fn listen_address(text: &str) -> Result<String, String> {
    let address = match text.strip_prefix(':') {
        Some(rest) => format!("0.0.0.0:{rest}"),
        None => text.to_owned(),
    };
    address.parse::<ListenEntry>().map(|_| address)
}

/// The same for operators, who have no TLS.
fn admin_address(text: &str) -> Result<String, String> {
    let address = listen_address(text)?;
    match address.parse() {
        Ok(ListenEntry::On(listen)) if listen.ssl => {
            Err("the admin listener has no TLS: leave `ssl` out".to_owned())
        }
        _ => Ok(address),
    }
}

fn entries(addresses: &[String]) -> Option<List<ListenEntry>> {
    let entries = addresses
        .iter()
        .map(|address| address.parse().expect("it was parsed before"));
    (!addresses.is_empty()).then(|| List(entries.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_port_means_every_address() {
        assert_eq!(listen_address(":8080"), Ok("0.0.0.0:8080".to_owned()));
        assert_eq!(
            listen_address("[::]:8080 reuseport"),
            Ok("[::]:8080 reuseport".to_owned())
        );
        assert_eq!(listen_address("off"), Ok("off".to_owned()));
        for text in ["8080", "localhost:8080", ":", ":80000", "127.0.0.1:1 fast"] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told_under_the_name_of_its_flag() {
        for (path, flag) in [
            ("gateway.listen[0]", "--listen"),
            ("gateway.admin", "--admin"),
            ("services[0].plugins[0].config.minute", "--rate-limit"),
            ("services[0].retries", "--retries"),
            ("upstreams[0].targets[1].target", "--upstream"),
            ("services[0].path", "--upstream"),
        ] {
            assert_eq!(flag_of(path), flag, "{path}");
        }
    }
}
