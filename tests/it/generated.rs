//! What is generated from the source is current: the JSON Schema for editors and the reference
//! pages, which `make docs` (`UPDATE=1`) writes, and the profile, which `make profile` takes. These files
//! alone look into the library, for its catalogs; what the schema says is asked of the binary.

mod catalogs;
mod fields;
mod markdown;
mod plugins;

use std::fs;
use std::path::Path;
use std::process::Command;

use jsonschema::Validator;
use serde_json::Value;

use crate::documents::{blocks, entries, pages, root};
use crate::harness::tollgate;

const SCHEMA: &str = "config/gateway.schema.json";

fn printed_schema() -> String {
    let outcome = tollgate(&root(), &["schema"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout
}

fn schema() -> Value {
    serde_json::from_str(&printed_schema()).expect("a schema in JSON")
}

/// Compares a file of the repository with what it should be; with `UPDATE=1` makes it so.
fn is_current(name: &str, expected: &str) -> bool {
    let path = root().join(name);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found != expected && std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(&path, expected).expect("a file that can be written");
        return true;
    }
    found == expected
}

fn assert_current(stale: &[String]) {
    assert!(stale.is_empty(), "not current, run `make docs`: {stale:?}");
}

#[test]
fn the_schema_for_editors_is_current() {
    let current = is_current(SCHEMA, &printed_schema());
    assert!(current, "{SCHEMA} is not current, run `make docs`");
}

#[test]
fn the_pages_of_the_plugins_are_current() {
    let pages = plugins::pages(&schema());
    let stale: Vec<String> = pages
        .iter()
        .map(|(name, page)| (format!("docs/reference/plugins/{name}.md"), page))
        .filter(|(name, page)| !is_current(name, page))
        .map(|(name, _)| name)
        .collect();
    assert_current(&stale);

    let files = entries(&root().join("docs/reference/plugins"));
    assert_eq!(
        files.len(),
        pages.len(),
        "pages without a plugin: {files:?}"
    );
}

#[test]
fn the_generated_regions_of_all_other_pages_are_current() {
    let schema = schema();
    let stale: Vec<String> = pages()
        .into_iter()
        .filter(|page| {
            let requests = markdown::requests(&page.text);
            let filled =
                markdown::filled(&page.text, |request| content(request, &requests, &schema));
            !is_current(&page.name, &filled)
        })
        .map(|page| page.name)
        .collect();
    assert_current(&stale);
}

/// What a region asks for. `all` are the requests of its page, as some regions hold what the others leave.
fn content(request: &str, all: &[&str], schema: &Value) -> String {
    let words: Vec<&str> = request.split_whitespace().collect();
    let command = tollgate::cli::command();
    match words.as_slice() {
        ["keys"] => fields::keys(schema),
        ["fields", record, names @ ..] => {
            let elsewhere: Vec<&str> = all
                .iter()
                .filter_map(|request| request.strip_prefix("fields ")?.strip_prefix(record))
                .flat_map(str::split_whitespace)
                .collect();
            fields::tables(self::record(schema, record), names, &elsewhere)
        }
        ["refused", record] => fields::refusals(self::record(schema, record)),
        ["metrics", "always"] => catalogs::metrics(false),
        ["metrics", "switched"] => catalogs::metrics(true),
        ["reasons"] => catalogs::reasons(),
        ["diagnostics"] => catalogs::diagnostics(),
        ["commands"] => catalogs::commands(&command),
        ["command", name] => catalogs::command(&command, name),
        ["other", "commands"] => {
            let written: Vec<&str> = all
                .iter()
                .filter_map(|request| request.strip_prefix("command "))
                .collect();
            catalogs::other_commands(&command, &written)
        }
        ["order", "of", "plugins"] => plugins::order(),
        ["list", "of", "plugins"] => plugins::list(),
        _ => unreachable!("nobody knows how to generate `{request}`"),
    }
}

fn record<'a>(schema: &'a Value, name: &str) -> &'a Value {
    match name {
        "gateway" => &schema["properties"]["gateway"],
        "document" => schema,
        _ => &schema["definitions"][name],
    }
}

#[test]
fn the_profile_is_of_what_is_compiled() {
    let key = Command::new("ci/profile-key")
        .current_dir(root())
        .output()
        .expect("a script that runs");
    let current = String::from_utf8_lossy(&key.stdout);
    let taken = fs::read_to_string(root().join("profile/key")).expect("a key");
    assert!(key.status.success() && !taken.is_empty());
    assert_eq!(
        taken, current,
        "the profile knows none of the functions that are compiled now, run `make profile`"
    );
}

#[test]
fn every_field_is_described() {
    let silent = fields::undescribed(&schema());
    assert!(silent.is_empty(), "give these a `///`: {silent:#?}");
}

fn validator() -> Validator {
    jsonschema::draft7::new(&schema()).expect("a valid schema")
}

/// A document as an editor sees it, with anchors and merges resolved.
fn parsed(yaml: &str) -> Result<Value, String> {
    let mut value: serde_yaml::Value =
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
    value.apply_merge().map_err(|error| error.to_string())?;
    serde_json::to_value(value).map_err(|error| error.to_string())
}

fn complaints(validator: &Validator, yaml: &str) -> Vec<String> {
    match parsed(yaml) {
        Ok(document) => validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect(),
        Err(error) => vec![error],
    }
}

/// Whether a file is a configuration, or a part of one.
fn is_configuration(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with(".yaml") && !name.ends_with(".test.yaml")
}

fn yaml_files(folder: &Path) -> Vec<(String, String)> {
    let read = |path: std::path::PathBuf| {
        let text = fs::read(&path).expect("a readable file");
        let name = path.file_stem().unwrap_or_default();
        (
            name.to_string_lossy().into_owned(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let files = entries(folder).into_iter();
    files
        .filter(|path| is_configuration(path))
        .map(read)
        .collect()
}

#[test]
fn the_schema_takes_every_configuration_of_the_repository() {
    let validator = validator();
    let mut documents = yaml_files(&root().join("config"));
    documents.extend(yaml_files(&root().join("conf.d")));
    for page in pages() {
        let name = |line: usize| format!("{}, line {line}", page.name);
        documents.extend(
            blocks(&page.text, "yaml")
                .into_iter()
                .map(|(line, yaml)| (name(line), yaml)),
        );
    }
    assert!(documents.len() > 10, "found {}", documents.len());
    for (name, yaml) in documents {
        let complaints = complaints(&validator, &yaml);
        assert!(complaints.is_empty(), "{name}:\n{complaints:#?}");
    }
}

#[test]
fn the_schema_takes_what_comes_from_outside_and_what_exports_leave_empty() {
    let yaml = r#"
_format_version: "1.1"
_transform: false
_info: {select_tags: [a], defaults: {service: {retries: 1}}}
_plugin_configs: {limits: {minute: 5}}
_comment: exported
certificates: []
vaults: null
services:
- &first
  name: a
  url: ${{ env "DECK_URL" }}
  retries: ${{ env "DECK_RETRIES" | toInt }}
  enabled: ${{ env "DECK_ENABLED" | toBool }}
  protocol: ${{ env "DECK_PROTOCOL" }}
  client_certificate: null
  path: null
  plugins: [{name: rate-limiting, _config: limits, config: {policy: "{vault://env/policy}", limit_by: null}}]
- <<: *first
  name: b
consumers:
- username: ann
  acls: []
  keyauth_credentials: [{key: "{vault://env/ANN}", ttl: 5}]
routes: [{paths: [/], snis: [], service: {name: a}}]
gateway: {listen: "off", admin: [127.0.0.1:1, "127.0.0.1:2 backlog=5"], tls_verify: on, keepalive_timeout: 1.5, client_max_body_size: 10m}
"#;
    let complaints = complaints(&validator(), yaml);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Mistakes that are not in the shape of one document: what names what, what goes with what, what a string means
/// beyond a regex, and the text of the file itself.
const BEYOND_A_SCHEMA: &[&str] = &[
    "bad_hashed_passwords",
    "bad_router_flavor",
    "bad_split_of_grpc",
    "contradicting_ordering",
    "dangling_references",
    "duplicate_credential_names",
    "duplicate_names",
    "not_utf8",
    "old_format_path",
    "shared_addresses",
];

#[test]
fn the_schema_refuses_every_broken_configuration_that_a_schema_can_refuse() {
    let validator = validator();
    let mut wrong = Vec::new();
    for (name, yaml) in yaml_files(&root().join("tests/it/diagnostics")) {
        let refused = !complaints(&validator, &yaml).is_empty();
        let expected = !BEYOND_A_SCHEMA.contains(&name.as_str()) && !name.starts_with("warning");
        if refused != expected {
            wrong.push(format!("{name}: refused is {refused}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_configurations_that_are_shipped_lead_editors_to_the_schema() {
    let mark = "# yaml-language-server: $schema=";
    let folders = ["config", "conf.d"].map(|folder| root().join(folder));
    for folder in folders {
        for path in entries(&folder)
            .into_iter()
            .filter(|path| is_configuration(path))
        {
            let text = fs::read_to_string(&path).expect("a readable file");
            let target = text.lines().find_map(|line| line.strip_prefix(mark));
            let target = target.unwrap_or_else(|| panic!("{} has no {mark}", path.display()));
            assert!(folder.join(target).exists(), "{}: {target}", path.display());
        }
    }
}
