//! Tables from the catalogs of the source: metrics, reasons, codes of diagnostics, commands.

use std::fs;

use clap::{Command, builder::StyledStr};
use regex::Regex;
use tollgate::config::Code;
use tollgate::entity::reason::Reason;
use tollgate::telemetry::families::{CATALOG, Family, Kind};

use super::markdown::{code, codes, table};
use crate::documents::root;

/// The metric families: those that are always there, or those that a setting of `prometheus` shows.
pub(crate) fn metrics(switched: bool) -> String {
    let families = CATALOG
        .iter()
        .filter(|family| family.switch.is_some() == switched);
    let row = |family: &Family| {
        let mut cells = vec![
            code(family.name),
            family.kong.map(code).unwrap_or_default(),
            kind(family.kind).to_owned(),
            codes(family.labels.iter().copied()),
        ];
        cells.extend(family.switch.map(code));
        cells.push(family.help.to_owned());
        cells
    };
    let rows: Vec<Vec<String>> = families.map(row).collect();
    let mut columns = vec!["family", "Kong's name", "type", "labels"];
    if switched {
        columns.push("switched on by");
    }
    columns.push("meaning");
    table(&columns, &rows)
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// The reasons, with what the comments in their source say: when, and in a last paragraph status and message.
pub(crate) fn reasons() -> String {
    let path = root().join("src/entity/reason.rs");
    let source = fs::read_to_string(path).expect("a readable source file");
    let row = |reason: &Reason| {
        let comment = comment(&source, &format!("{reason:?}"));
        let (when, answer) = comment.split_once("\n\n").unwrap_or((&comment, ""));
        let (status, message) = answer.split_once(": ").unwrap_or((answer, ""));
        vec![
            code(reason.code()),
            status.to_owned(),
            message.to_owned(),
            when.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = Reason::ALL.iter().map(row).collect();
    table(&["reason", "status", "message", "when"], &rows)
}

/// The comment of a variant.
fn comment(source: &str, variant: &str) -> String {
    let pattern = format!(r"(?m)((?:^    ///.*\n)+)    {variant},$");
    let pattern = Regex::new(&pattern).expect("a pattern");
    let found = pattern.captures(source);
    let comment = found.map(|found| found[1].to_owned()).unwrap_or_default();
    let lines = comment.lines().map(|line| {
        let text = line.trim_start().trim_start_matches("///");
        text.strip_prefix(' ').unwrap_or(text)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The codes of diagnostics.
pub(crate) fn diagnostics() -> String {
    let row = |found: &Code| vec![code(found.as_str()), found.explanation().to_owned()];
    let rows: Vec<Vec<String>> = Code::ALL.iter().map(row).collect();
    table(&["code", "meaning"], &rows)
}

/// All commands, each with a sentence.
pub(crate) fn commands(command: &Command) -> String {
    let row = |command: &Command| {
        let name = command.get_name();
        let about = written(command.get_about());
        vec![format!("[`{name}`](#{name})"), sentences(&about, " ")]
    };
    let rows: Vec<Vec<String>> = visible(command).map(row).collect();
    table(&["command", "what it does"], &rows)
}

/// A command: what it does in a sentence, since the page has prose of its own, and its options.
pub(crate) fn command(whole: &Command, name: &str) -> String {
    let command = visible(whole)
        .find(|command| command.get_name() == name)
        .ok_or(name)
        .expect("a command of this name");
    let about = written(command.get_about());
    format!("{}\n\n{}", sentences(&about, "\n\n"), options(command))
}

/// The sections of the commands that the page has no region for.
pub(crate) fn other_commands(whole: &Command, written: &[&str]) -> String {
    let section = |command: &Command| {
        let about = self::written(command.get_long_about().or_else(|| command.get_about()));
        let about = sentences(&about, "\n\n");
        format!(
            "## {}\n\n{about}\n\n{}",
            command.get_name(),
            options(command)
        )
    };
    let sections: Vec<String> = visible(whole)
        .filter(|command| !written.contains(&command.get_name()))
        .map(section)
        .collect();
    sections.join("\n")
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let commands = command.get_subcommands();
    commands.filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn written(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// The paragraphs of a help text, in which clap leaves out the last full stop, as whole sentences.
fn sentences(text: &str, between: &str) -> String {
    let ended = |paragraph: &str| {
        let stop = if paragraph.ends_with(['.', ':', '!', '?']) {
            ""
        } else {
            "."
        };
        format!("{paragraph}{stop}")
    };
    let paragraphs = text.split("\n\n").map(str::trim);
    let ended: Vec<String> = paragraphs
        .filter(|paragraph| !paragraph.is_empty())
        .map(ended)
        .collect();
    ended.join(between)
}

fn options(command: &Command) -> String {
    let arguments = command.get_arguments().filter(|argument| {
        !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
    });
    let rows: Vec<Vec<String>> = arguments.map(option).collect();
    if rows.is_empty() {
        return "It has no options.\n".to_owned();
    }
    table(&["option", "default", "meaning"], &rows)
}

fn option(argument: &clap::Arg) -> Vec<String> {
    let takes_value = argument.get_action().takes_values();
    let possible: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| takes_value && !value.is_hide_set())
        .map(|value| value.get_name().to_owned())
        .collect();
    let value = match possible.as_slice() {
        [] => match argument.get_value_names() {
            Some(names) => names.join(" "),
            None => argument.get_id().as_str().to_uppercase(),
        },
        possible => possible.join("|"),
    };
    let mut spellings: Vec<String> = argument
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .collect();
    spellings.extend(argument.get_long().map(|long| format!("--{long}")));
    if let Some(last) = spellings.last_mut().filter(|_| takes_value) {
        last.push(' ');
        last.push_str(&value);
    }
    if spellings.is_empty() {
        spellings.push(value);
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .filter(|_| takes_value)
        .map(|default| code(&default.to_string_lossy()))
        .collect();
    let default = if argument.is_required_set() {
        "required".to_owned()
    } else {
        defaults.join(", ")
    };
    let help = argument.get_long_help().or_else(|| argument.get_help());
    vec![
        codes(spellings.iter().map(String::as_str)),
        default,
        sentences(&written(help), " "),
    ]
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn sample() -> Command {
        Command::new("x").subcommand(
            Command::new("do")
                .about("Do it")
                .arg(
                    Arg::new("file")
                        .long("file")
                        .short('f')
                        .default_value("a.yaml")
                        .help("The file"),
                )
                .arg(
                    Arg::new("fast")
                        .long("fast")
                        .action(ArgAction::SetTrue)
                        .help("Now"),
                )
                .arg(
                    Arg::new("url")
                        .value_name("URL")
                        .required(true)
                        .help("Where"),
                ),
        )
    }

    #[test]
    fn options_have_spellings_defaults_and_meanings() {
        assert_eq!(
            command(&sample(), "do"),
            "Do it.\n\n| option | default | meaning |\n|---|---|---|\n\
             | `-f`, `--file FILE` | `a.yaml` | The file. |\n\
             | `--fast` | | Now. |\n| `URL` | required | Where. |\n"
        );
    }

    #[test]
    fn a_command_without_a_region_gets_a_section() {
        assert!(other_commands(&sample(), &[]).starts_with("## do\n\nDo it.\n"));
        assert_eq!(other_commands(&sample(), &["do"]), "");
    }

    #[test]
    fn a_long_description_stands_only_where_the_page_says_nothing_else() {
        let whole = Command::new("x").subcommand(
            Command::new("do")
                .about("Do it")
                .long_about("Do it\n\nAt once."),
        );

        assert!(command(&whole, "do").starts_with("Do it.\n\nIt has no options."));
        assert!(commands(&whole).ends_with("| Do it. |\n"));
        assert!(other_commands(&whole, &[]).starts_with("## do\n\nDo it.\n\nAt once.\n\n"));
    }

    #[test]
    fn paragraphs_of_a_help_text_become_sentences() {
        assert_eq!(sentences("One\n\nTwo. Three.", " "), "One. Two. Three.");
        assert_eq!(sentences("", " "), "");
    }

    #[test]
    fn a_variants_comment_may_have_two_paragraphs() {
        let source = "enum R {\n    /// One.\n    A,\n    /// Two\n    /// lines.\n    ///\n    /// 400: No\n    B,\n}\n";
        assert_eq!(comment(source, "B"), "Two\nlines.\n\n400: No");
        assert_eq!(comment(source, "A"), "One.");
    }
}
