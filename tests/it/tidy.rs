//! Our own rules about the source: who may import whom, what every file begins with, where plugins are named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Imports only go down this table, except along [`ALONGSIDE`].
const LEVELS: &[&[&str]] = &[
    &["entity"],
    &["client", "plugin", "state", "telemetry", "tls"],
    &["config", "router", "upstream"],
    &["chain", "plugins"],
    &["compile", "snapshot"],
    &["reload", "admin", "explain", "proxy", "stream"],
    &["main", "cli", "server"],
];

/// Imports within a level: the first may import the ones after it.
const ALONGSIDE: &[&[&str]] = &[
    &["plugin", "state", "client", "tls", "telemetry"],
    &["chain", "plugins"],
    &["compile", "snapshot"],
    &["explain", "proxy"],
    &["stream", "proxy"],
    &["admin", "explain"],
    &["main", "cli", "server"],
];

/// Modules that only these may import, whatever the level.
const RESERVED: &[(&str, &[&str])] = &[
    ("config", &["cli", "server", "reload", "compile"]),
    ("plugins", &["chain", "snapshot", "compile", "cli"]),
];

/// One source file without its comments and its unit tests.
struct Source {
    /// Relative to `src`, with forward slashes.
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The top-level modules that the code names after `crate::` or, in the binary, after `tollgate::`.
    fn imports(&self) -> BTreeSet<String> {
        let single = Regex::new(r"\b(?:crate|tollgate)::([a-z_]+)\b").expect("a pattern");
        let group = Regex::new(r"\b(?:crate|tollgate)::\{").expect("a pattern");
        let mut modules: BTreeSet<String> = single
            .captures_iter(&self.code)
            .map(|found| found[1].to_owned())
            .collect();
        for start in group.find_iter(&self.code) {
            modules.extend(heads_of_group(self.code.split_at(start.end()).1));
        }
        modules
    }
}

/// The first names of the members of a `{a::b, c::{d, e}}` group, from just after its brace.
fn heads_of_group(text: &str) -> Vec<String> {
    let (mut depth, mut heads, mut head) = (0, Vec::new(), Some(String::new()));
    for character in text.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(head.replace(String::new())),
            ':' => heads.extend(head.take()),
            _ if character.is_whitespace() => {}
            _ => {
                if let Some(head) = &mut head {
                    head.push(character);
                }
            }
        }
    }
    heads.extend(head);
    heads.retain(|head| !head.is_empty());
    heads
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable source file");
        let path = path
            .strip_prefix(&root)
            .expect("a path below src")
            .to_string_lossy()
            .replace('\\', "/");
        let code = code_of(&text);
        Source { path, text, code }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The text up to the unit tests, which end every file, without line comments.
fn code_of(text: &str) -> String {
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*(?:pub(?:\(.*\))? )?mod ")
        .expect("a pattern");
    let end = tests.find(text).map_or(text.len(), |found| found.start());
    let lines = text.split_at(end).0.lines();
    lines.map(without_comment).collect::<Vec<_>>().join("\n")
}

/// A `//` inside a string, such as a URL's, begins no comment.
fn without_comment(line: &str) -> &str {
    match line.split_once("//") {
        Some((before, _)) if before.matches('"').count() % 2 == 0 => before,
        _ => line,
    }
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

fn may_import(importer: &str, module: &str) -> bool {
    if importer == module {
        return true;
    }
    let reserved = RESERVED.iter().find(|(reserved, _)| *reserved == module);
    if reserved.is_some_and(|(_, importers)| !importers.contains(&importer)) {
        return false;
    }
    let place = |chain: &[&str], module: &str| chain.iter().position(|other| *other == module);
    let alongside = ALONGSIDE.iter().any(|chain| {
        place(chain, importer)
            .zip(place(chain, module))
            .is_some_and(|(a, b)| a < b)
    });
    alongside || level(importer) > level(module)
}

#[test]
fn imports_only_go_down() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs") {
        for imported in source.imports() {
            let known = level(&imported).is_some();
            if known && !may_import(source.module(), &imported) {
                offences.push(format!("src/{} imports {imported}", source.path));
            }
        }
    }
    assert!(
        offences.is_empty(),
        "against the table of layers:\n{}",
        offences.join("\n")
    );
}

#[test]
fn every_module_has_its_place_in_the_table() {
    let modules: BTreeSet<String> = sources()
        .iter()
        .map(|source| source.module().to_owned())
        .collect();
    let unknown: Vec<&String> = modules
        .iter()
        .filter(|module| *module != "lib" && level(module).is_none())
        .collect();

    assert!(unknown.is_empty(), "give these a level: {unknown:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();

    assert!(
        silent.is_empty(),
        "these do not begin with `//!`: {silent:?}"
    );
}

/// Plugin names by the file or folder that declares them.
fn plugins(sources: &[Source]) -> BTreeMap<String, String> {
    let name = Regex::new(r#"const NAME: &'static str = "([a-z0-9-]+)""#).expect("a pattern");
    let declared = sources
        .iter()
        .filter(|source| source.path.starts_with("plugins/"));
    declared
        .filter_map(|source| {
            Some((
                name.captures(&source.code)?[1].to_owned(),
                own_place(&source.path),
            ))
        })
        .collect()
}

/// `plugins/key_auth.rs` or, for a plugin in a folder, `plugins/rate_limiting`.
fn own_place(path: &str) -> String {
    path.split('/').take(2).collect::<Vec<_>>().join("/")
}

#[test]
fn every_plugin_is_named_like_its_file_and_has_a_test_file() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plugins");
    let plugins = plugins(&sources());
    assert!(!plugins.is_empty(), "no plugin declares its NAME");
    for (name, place) in plugins {
        let file = name.replace('-', "_");
        assert_eq!(
            place.trim_end_matches(".rs"),
            format!("plugins/{file}"),
            "the place of {name}"
        );
        assert!(
            tests.join(format!("{file}.rs")).exists(),
            "no tests/it/plugins/{file}.rs"
        );
    }
}

#[test]
fn no_plugin_is_known_by_name_outside_its_own_file_and_the_configuration() {
    let sources = sources();
    let mut offences = Vec::new();
    for (name, place) in plugins(&sources) {
        let literal = format!("\"{name}\"");
        let elsewhere = sources
            .iter()
            .filter(|source| own_place(&source.path) != place && source.module() != "config");
        let offenders = elsewhere.filter(|source| source.code.contains(&literal));
        offences.extend(offenders.map(|source| format!("src/{} names {name}", source.path)));
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn only_the_proxy_sees_pingoras_session() {
    let session =
        Regex::new(r"pingora(?:_proxy|::proxy|::prelude)::(?:\{[^}]*\bSession\b|Session\b|\*)")
            .expect("a pattern");
    let offenders: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.module() != "proxy" && session.is_match(&source.code))
        .map(|source| source.path)
        .collect();

    assert!(offenders.is_empty(), "{offenders:?}");
}

#[test]
fn groups_of_imports_are_read_by_their_heads() {
    assert_eq!(
        heads_of_group("config::{a, b}, entity::c, router}; more"),
        ["config", "entity", "router"]
    );
}

#[test]
fn comments_and_unit_tests_are_no_code() {
    let text = "use crate::a; // crate::b\nlet url = \"http://c\";\n#[cfg(test)]\nmod tests { use crate::d; }\n";

    assert_eq!(code_of(text), "use crate::a; \nlet url = \"http://c\";");
}
