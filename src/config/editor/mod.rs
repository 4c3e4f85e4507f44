//! The JSON Schema of a whole document, for editors and other tools: draft 7, which the YAML
//! language server knows best. It is made of the same definitions as `check`, but says less: rules
//! that span fields, references and uniqueness are left to `check`.

mod field;
mod patterns;

use schemars::Schema;
use serde_json::{Map, Value, json};

use field::{Position, published, refused};

use super::document::{BOOKKEEPING, UNSUPPORTED_ENTITIES};
use super::model::{
    CaCertificate, Certificate, Consumer, EntityKind, Gateway, KeyauthCredential, Plugin, Route,
    Service, Sni, Target, Upstream, gateway::KONG_NAMES,
};
use super::prepare::WITH_DEFAULTS;
use super::schema::derived;

/// What `_format_version` may be.
const FORMAT_VERSIONS: [&str; 3] = ["3.0", "2.1", "1.1"];

/// The schema of a document: the main file or a fragment.
///
/// `plugins` gives each plugin's name and the schema of its `config`. Beside JSON Schema's own keywords there are
/// those of editors (`enumDescriptions`, `errorMessage`, `patternErrorMessage`, `deprecationMessage`,
/// `doNotSuggest`), and `x-` keys for whoever makes documentation of it: `x-noun` (what people call such a string),
/// `x-refused` (why a field is not taken), `x-refused-values` (pairs of a value and why it is not taken).
pub fn document_schema<'a>(plugins: impl Iterator<Item = (&'a str, Schema)>) -> Value {
    let plugins: Vec<(&str, Schema)> = plugins.collect();
    let definitions: Map<String, Value> = EntityKind::ALL
        .into_iter()
        .map(|kind| (kind.singular().to_owned(), entity(kind, &plugins)))
        .chain([(UNSUPPORTED.to_owned(), unsupported())])
        .collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Tollgate configuration",
        "description": "A document of Tollgate's: Kong's declarative format, with the settings of the gateway itself under `gateway`.",
        "type": "object",
        "properties": document(),
        "additionalProperties": false,
        "definitions": definitions,
    })
}

/// The name of the definition that lists of entities which this version does not have follow.
const UNSUPPORTED: &str = "unsupported";

fn unsupported() -> Value {
    json!({
        "enum": [null, [], {}],
        "doNotSuggest": true,
        "errorMessage": "this entity is not supported in this version; leave the list out",
    })
}

/// A list of entities.
fn list_of(kind: EntityKind) -> Value {
    json!({
        "type": ["array", "null"],
        "items": {"$ref": format!("#/definitions/{}", kind.singular())},
    })
}

fn entity(kind: EntityKind, plugins: &[(&str, Schema)]) -> Value {
    let position = Position::Entity {
        vaults: matches!(
            kind,
            EntityKind::KeyauthCredential | EntityKind::Certificate | EntityKind::CaCertificate
        ),
    };
    let mut schema = published(derived_entity(kind).as_value(), position);
    schema.remove("title");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for &child in kind.children() {
            let mut list = list_of(child);
            list["description"] = described(child, "nested here").into();
            if child == EntityKind::Sni {
                // A name alone will do.
                list["items"] = json!({"anyOf": [list["items"].clone(), {"type": "string"}]});
            }
            properties.insert(child.list().to_owned(), list);
        }
        if kind == EntityKind::Plugin {
            properties["name"] = names(plugins);
        }
    }
    schema.insert("patternProperties".to_owned(), unsupported_names());
    if kind == EntityKind::Plugin {
        schema.insert("allOf".to_owned(), configs(plugins));
    }
    Value::Object(schema)
}

fn derived_entity(kind: EntityKind) -> Schema {
    match kind {
        EntityKind::Service => derived::<Service>(),
        EntityKind::Route => derived::<Route>(),
        EntityKind::Upstream => derived::<Upstream>(),
        EntityKind::Target => derived::<Target>(),
        EntityKind::Consumer => derived::<Consumer>(),
        EntityKind::KeyauthCredential => derived::<KeyauthCredential>(),
        EntityKind::Certificate => derived::<Certificate>(),
        EntityKind::Sni => derived::<Sni>(),
        EntityKind::CaCertificate => derived::<CaCertificate>(),
        EntityKind::Plugin => derived::<Plugin>(),
    }
}

fn described(kind: EntityKind, place: &str) -> String {
    format!("The {} {place}.", kind.list().replace('_', " "))
}

/// Exported files carry empty lists of entities that this version does not have.
fn unsupported_names() -> Value {
    let names: Vec<&str> = UNSUPPORTED_ENTITIES.iter().map(|(name, _)| *name).collect();
    let pattern = format!("^({}|graphql_.*)$", names.join("|"));
    json!({ pattern: {"$ref": format!("#/definitions/{UNSUPPORTED}")} })
}

fn names(plugins: &[(&str, Schema)]) -> Value {
    let names: Vec<&str> = plugins.iter().map(|(name, _)| *name).collect();
    json!({"description": "Which plugin it is.", "enum": names})
}

/// What `config` may hold, by the plugin's name.
fn configs(plugins: &[(&str, Schema)]) -> Value {
    let config = |(name, schema): &(&str, Schema)| {
        let mut config = published(schema.as_value(), Position::Config);
        for keyword in ["title", "$schema"] {
            config.remove(keyword);
        }
        config.insert("type".to_owned(), json!(["object", "null"]));
        json!({
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {"properties": {"config": config}},
        })
    };
    plugins.iter().map(config).collect()
}

/// The keys of the top level.
fn document() -> Map<String, Value> {
    let mut keys = Map::new();
    let mut add = |key: &str, schema: Value| keys.insert(key.to_owned(), schema);
    add("_format_version", format_version());
    add("gateway", gateway());
    for kind in EntityKind::ALL {
        let mut list = list_of(kind);
        let nested = EntityKind::ALL
            .into_iter()
            .any(|parent| parent.children().contains(&kind));
        let place = if nested {
            "that are not nested in the entity they belong to"
        } else {
            "of this document"
        };
        list["description"] = described(kind, place).into();
        add(kind.list(), list);
    }
    add("_info", info());
    add(
        "_plugin_configs",
        json!({
            "type": ["object", "null"],
            "description": "deck's shared plugin configurations; a plugin's `_config` names one, and its own `config` wins key by key.",
            "additionalProperties": {"type": "object"},
        }),
    );
    add(
        "_transform",
        json!({"type": ["boolean", "null"], "description": "Accepted, without effect."}),
    );
    add(
        "_workspace",
        json!({"type": ["string", "null"], "description": "Accepted, without effect."}),
    );
    for key in super::check::IGNORED_KEYS {
        add(
            key,
            json!({"description": "Accepted, without effect. May stand in every entity."}),
        );
    }
    for key in ["_konnect"].iter().chain(BOOKKEEPING) {
        add(
            key,
            json!({
                "description": "Accepted with a warning, without effect.",
                "deprecationMessage": format!("`{key}` has no effect here"),
            }),
        );
    }
    for (name, reason) in UNSUPPORTED_ENTITIES {
        add(name, refused(&json!([null, [], {}]), reason));
    }
    keys
}

fn format_version() -> Value {
    let numbers: Vec<Value> = FORMAT_VERSIONS
        .iter()
        .filter_map(|version| serde_json::from_str(version).ok())
        .collect();
    json!({
        "description": "The version of the format; required in the main file. A fragment without one has the main file's. In 2.1 and 1.1 a path with anything but letters, digits and `.-_~/%` is a regex.",
        "anyOf": [
            {"enum": FORMAT_VERSIONS},
            {"enum": numbers, "doNotSuggest": true, "deprecationMessage": "write the version in quotes"},
        ],
    })
}

/// The settings, and the names that Kong has for some of them.
fn gateway() -> Value {
    let mut schema = published(derived::<Gateway>().as_value(), Position::Record);
    schema.remove("title");
    schema.insert("type".to_owned(), json!(["object", "null"]));
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (kong, ours) in KONG_NAMES {
            let reason = format!("here it is called `{ours}`");
            let renamed = json!({"enum": [null], "doNotSuggest": true, "errorMessage": reason});
            properties.insert((*kong).to_owned(), renamed);
        }
    }
    Value::Object(schema)
}

fn info() -> Value {
    let defaults: Map<String, Value> = WITH_DEFAULTS
        .into_iter()
        .map(|kind| {
            let what = format!("Fields that a {} does not have.", kind.singular());
            let name = kind.singular().to_owned();
            (
                name,
                json!({"type": ["object", "null"], "description": what}),
            )
        })
        .collect();
    json!({
        "type": ["object", "null"],
        "description": "What all entities of the document have in common, as deck writes it.",
        "properties": {
            "defaults": {
                "type": ["object", "null"],
                "description": "deck's defaults for `service`, `route`, `upstream` and `target`: fields that an entity does not have.",
                "properties": defaults,
                "additionalProperties": false,
            },
            "select_tags": {
                "type": ["array", "null"],
                "description": "deck's tags for every entity of the document.",
                "items": {"type": "string"},
            },
            "lookup_tags": {"description": "Accepted, without effect."},
            "consumer_group_policy_overrides": {"description": "Accepted, without effect."},
        },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostics::Code;

    fn schema() -> Value {
        let none =
            schemars::json_schema!({"type": "object", "properties": {"a": {"type": "integer"}}});
        document_schema([("sample", none)].into_iter())
    }

    #[test]
    fn every_key_of_the_top_level_is_known_to_the_loader() {
        let schema = schema();
        let keys = schema["properties"].as_object().unwrap().keys();
        let rest = keys.filter(|key| *key != "_format_version");
        let lines: Vec<String> = rest.map(|key| format!("{key}: null")).collect();
        let text = format!("_format_version: \"3.0\"\n{}\n", lines.join("\n"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, text).unwrap();
        let loaded = crate::config::load(&path, &|_| None);
        let text = loaded.diagnostics.to_text();
        assert!(!loaded.diagnostics.has(Code::UnknownField), "{text}");
        assert!(!loaded.diagnostics.has_errors(), "{text}");
    }

    #[test]
    fn every_kind_of_entity_has_a_list_and_a_definition() {
        let schema = schema();
        for kind in EntityKind::ALL {
            let target = format!("#/definitions/{}", kind.singular());
            assert_eq!(schema["properties"][kind.list()]["items"]["$ref"], *target);
            assert!(schema["definitions"].get(kind.singular()).is_some());
        }
        let nested = &schema["definitions"]["service"]["properties"]["routes"];
        assert_eq!(nested["items"]["$ref"], "#/definitions/route");
    }

    #[test]
    fn what_a_config_may_hold_depends_on_the_name() {
        let schema = schema();
        let plugin = &schema["definitions"]["plugin"];
        assert_eq!(plugin["properties"]["name"]["enum"], json!(["sample"]));
        let rule = &plugin["allOf"][0];
        assert_eq!(rule["if"]["properties"]["name"]["const"], "sample");
        let config = &rule["then"]["properties"]["config"];
        assert_eq!(config["additionalProperties"], false);
        assert!(config["properties"].get("a").is_some());
    }
}
