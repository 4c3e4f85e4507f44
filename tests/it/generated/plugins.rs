//! A plugin's page: the documentation that its source file begins with, and what the registry and
//! the schema say of it.

use std::fs;
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;
use tollgate::plugin::registry::Entry;
use tollgate::plugins::CATALOG;

use super::fields;
use super::markdown::table;
use crate::documents::root;

/// Every plugin's name and page.
pub(crate) fn pages(schema: &Value) -> Vec<(&'static str, String)> {
    let page = |entry: &Entry| (entry.name, page(entry, schema));
    CATALOG.iter().map(page).collect()
}

/// The order of the plugins, for the page about it. Links are relative to a folder beside `reference`.
pub(crate) fn order() -> String {
    let row = |entry: &Entry| {
        let link = format!("[{0}](../reference/plugins/{0}.md)", entry.name);
        let source = source(entry.name).1;
        vec![entry.priority.to_string(), link, phases(&source)]
    };
    let rows: Vec<Vec<String>> = CATALOG.iter().map(row).collect();
    table(&["priority", "plugin", "phases"], &rows)
}

/// A list of links to the pages, for the index.
pub(crate) fn list() -> String {
    let mut names: Vec<&str> = CATALOG.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    let items: Vec<String> = names
        .into_iter()
        .map(|name| format!("- [{name}](reference/plugins/{name}.md): {}", summary(name)))
        .collect();
    items.join("\n")
}

/// What a plugin does, up to the first point or colon of its documentation.
fn summary(name: &str) -> String {
    let documentation = documentation(&source(name).1);
    let first = documentation.split("\n\n").next().unwrap_or_default();
    let text = without_links(&first.replace('\n', " "));
    let sentence = text.split(": ").next().unwrap_or_default();
    let sentence = sentence.split(". ").next().unwrap_or_default();
    sentence.trim_end_matches('.').to_owned()
}

/// A link in a summary would lead from the wrong place.
fn without_links(text: &str) -> String {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").expect("a pattern");
    let text = link.replace_all(text, "$1");
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_lowercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

fn page(entry: &Entry, schema: &Value) -> String {
    let (path, source) = source(entry.name);
    let documentation = documentation(&source);
    let (summary, rest) = documentation
        .split_once("\n\n")
        .unwrap_or((&documentation, ""));
    let (example, rest) = example(rest);
    let scopes = if entry.consumer_scope {
        "global, service, route, consumer"
    } else {
        "global, service, route"
    };
    let facts = [
        ("priority", entry.priority.to_string()),
        ("phases", phases(&source)),
        ("scopes", scopes.to_owned()),
    ];
    let facts = facts.map(|(name, fact)| format!("| {name} | {fact} |"));
    let config = config(schema, entry.name);
    let refusals = fields::refusals(config);
    let parts = [
        format!("# {}", entry.name),
        format!("<!-- Made by `make docs` from {path}. Change it there. -->"),
        summary.to_owned(),
        format!("| | |\n|---|---|\n{}", facts.join("\n")),
        example,
        "## Fields of `config`".to_owned(),
        fields::tables(config, &[], &[]),
        refusals,
        rest,
    ];
    let parts: Vec<&str> = parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("\n\n") + "\n"
}

/// The text up to the end of its first block of code, and the rest with its headings one level down.
fn example(text: &str) -> (String, String) {
    let (mut before, mut rest) = (String::new(), String::new());
    let mut fences = 0;
    for line in text.lines() {
        let part = if fences < 2 { &mut before } else { &mut rest };
        let fence = line.starts_with("```");
        if line.starts_with('#') && fences >= 2 && fences % 2 == 0 {
            part.push('#');
        }
        fences += usize::from(fence);
        part.push_str(line);
        part.push('\n');
    }
    (before, rest)
}

/// The file that a plugin begins in, relative to the repository, and its text.
fn source(name: &str) -> (String, String) {
    let stem = format!("src/plugins/{}", name.replace('-', "_"));
    let candidates = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
    let exists = |path: &&String| root().join(PathBuf::from(path.as_str())).exists();
    let path = candidates
        .iter()
        .find(exists)
        .expect("a plugin's file carries its name");
    let text = fs::read_to_string(root().join(path)).expect("a readable source file");
    (path.clone(), text)
}

/// The `//!` lines that a source file begins with.
fn documentation(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The hooks that the source implements, in the order in which they run.
fn phases(source: &str) -> String {
    let block = Regex::new(r"(?ms)^impl Plugin for \w+ \{\n(.*?)^\}").expect("a pattern");
    let block = block
        .captures(source)
        .map(|found| found[1].to_owned())
        .unwrap_or_default();
    let hook = Regex::new(r"(?m)^    (?:async )?fn (access|response|log)\(").expect("a pattern");
    let hooks: Vec<String> = hook
        .captures_iter(&block)
        .map(|found| found[1].to_owned())
        .collect();
    hooks.join(", ")
}

/// The schema of a plugin's `config`.
fn config<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let rules = schema["definitions"]["plugin"]["allOf"].as_array();
    let rule = rules
        .into_iter()
        .flatten()
        .find(|rule| rule["if"]["properties"]["name"]["const"] == name);
    let rule = rule.ok_or(name).expect("a rule for every plugin");
    &rule["then"]["properties"]["config"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_what_a_file_begins_with() {
        let source = "//! Does a.\n//!\n//! - b\n\nuse c;\n//! not this\n";
        assert_eq!(documentation(source), "Does a.\n\n- b");
    }

    #[test]
    fn headings_behind_the_example_go_one_level_down() {
        let (before, rest) =
            example("```yaml\n# comment\n```\n\n# More\n```sh\n# no heading\n```\n");
        assert_eq!(before, "```yaml\n# comment\n```\n");
        assert_eq!(rest, "\n## More\n```sh\n# no heading\n```\n");
    }

    #[test]
    fn phases_are_the_hooks_that_are_there() {
        let source = "impl Plugin for X {\n    async fn access(&self) {\n    }\n    fn log(&self) {}\n}\nfn response() {}\n";
        assert_eq!(phases(source), "access, log");
    }
}
