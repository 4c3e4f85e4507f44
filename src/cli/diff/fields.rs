//! What is written in an entity, field by field, with the defaults of what is not: two spellings of one thing are
//! equal. Knows no kind of entity.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{
    Gateway, Node,
    check::IGNORED_KEYS,
    node::{Kind, shorten},
    read::read,
};

/// What stands in place of a secret.
const MASK: &str = "***";

/// The values of an entity by the dotted paths of their fields.
pub(super) type Fields = BTreeMap<String, Field>;

/// A value that is no record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) value: Value,
    pub(super) is_secret: bool,
}

/// A field whose value is another one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FieldChange {
    pub(super) field: String,
    /// Absent if there is none; masked if it is secret.
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
}

impl Field {
    pub(super) fn of(value: impl Into<Value>) -> Self {
        Self {
            value: value.into(),
            is_secret: false,
        }
    }

    fn shown(&self) -> Value {
        if self.is_secret {
            MASK.into()
        } else {
            self.value.clone()
        }
    }
}

/// The fields that differ, in the order of their paths.
pub(super) fn compare(old: &Fields, new: &Fields) -> Vec<FieldChange> {
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
        .into_iter()
        .filter_map(|path| {
            let (old, new) = (old.get(path), new.get(path));
            let is_same = match (old, new) {
                (Some(old), Some(new)) => is_same(&old.value, &new.value),
                _ => false,
            };
            (!is_same).then(|| FieldChange {
                field: path.clone(),
                old: old.map(Field::shown),
                new: new.map(Field::shown),
            })
        })
        .collect()
}

/// 1 and 1.0 are the same to every field that takes both.
fn is_same(old: &Value, new: &Value) -> bool {
    match (old.as_f64(), new.as_f64()) {
        (Some(old), Some(new)) => old.to_bits() == new.to_bits(),
        _ => old == new,
    }
}

/// A value as people read it; long ones are cut.
pub(super) fn shown(value: Option<&Value>) -> String {
    match value {
        None => "(nothing)".to_owned(),
        Some(Value::String(text)) if !text.is_empty() => shorten(text),
        Some(value) => shorten(&value.to_string()),
    }
}

/// The settings of the gateway.
pub(super) fn of_settings(settings: &Gateway) -> Fields {
    let mut fields = Fields::new();
    let value = serde_json::to_value(settings).expect("settings are plain data");
    add_defaults(&mut fields, "", &value);
    fields
}

/// What `node` says and, by its JSON Schema, what holds for what it leaves out. `without` are keys that are read in
/// another way.
pub(super) fn of_node(node: &Node, schema: &Value, without: &[&str]) -> Fields {
    let mut walk = Walk {
        fields: Fields::new(),
    };
    for entry in node.entries() {
        let key = entry.key.as_str();
        if !without.contains(&key) && !IGNORED_KEYS.contains(&key) {
            walk.node(key.to_owned(), &entry.value, schema_of(schema, key), false);
        }
    }
    walk.defaults("", schema, without);
    walk.fields
}

struct Walk {
    fields: Fields,
}

impl Walk {
    fn node(&mut self, path: String, node: &Node, schema: Option<&Value>, is_secret: bool) {
        let is_secret = is_secret || node.secret || schema.is_some_and(marks_secret);
        match &node.kind {
            Kind::Null => {}
            Kind::Mapping(entries) => {
                for entry in entries {
                    let inner = schema.and_then(|schema| schema_of(schema, &entry.key));
                    let path = format!("{path}.{}", entry.key);
                    self.node(path, &entry.value, inner, is_secret);
                }
            }
            _ => {
                let mut value: Value = read(node).unwrap_or_default();
                if let Value::Array(items) = &mut value
                    && schema.is_some_and(is_set)
                {
                    items.sort_by_key(ToString::to_string);
                }
                let is_secret = is_secret || node.items().iter().any(|item| item.secret);
                self.fields.insert(path, Field { value, is_secret });
            }
        }
    }

    /// The defaults of the record `schema` at `path`, which is empty or ends with a dot.
    fn defaults(&mut self, path: &str, schema: &Value, without: &[&str]) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, schema) in properties.into_iter().flatten() {
            if path.is_empty() && without.contains(&key.as_str()) {
                continue;
            }
            let path = format!("{path}{key}");
            let inner = format!("{path}.");
            // A record that is not written at all may be absent by default, and then its fields have none.
            let is_written = self.fields.keys().any(|known| known.starts_with(&inner));
            match schema.get("default") {
                Some(default) if !default.is_null() => {
                    add_defaults(&mut self.fields, &path, default);
                }
                _ if is_written => {
                    for schema in alternatives(schema) {
                        self.defaults(&inner, schema, &[]);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Adds the values of `value` that have no field yet.
fn add_defaults(fields: &mut Fields, path: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(record) => {
            for (key, value) in record {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                add_defaults(fields, &path, value);
            }
        }
        _ => {
            fields
                .entry(path.to_owned())
                .or_insert_with(|| Field::of(value.clone()));
        }
    }
}

/// The schema itself and those of which it takes any one.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["anyOf", "oneOf"].into_iter();
    let parts = lists.filter_map(|key| schema.get(key)?.as_array());
    std::iter::once(schema).chain(parts.flatten())
}

fn schema_of<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    let properties = |schema: &'s Value| schema.get("properties").and_then(Value::as_object);
    let mut schemas = alternatives(schema);
    schemas.find_map(|schema| properties(schema).and_then(|fields: &Map<_, _>| fields.get(key)))
}

fn marks_secret(schema: &Value) -> bool {
    let is_marked = |schema: &Value| schema.get("x-secret") == Some(&Value::Bool(true));
    alternatives(schema)
        .any(|schema| is_marked(schema) || schema.get("items").is_some_and(is_marked))
}

/// Whether the order of a list means nothing.
fn is_set(schema: &Value) -> bool {
    schema.get("uniqueItems") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::{
        config::{
            Diagnostics,
            schema::derived,
            yaml::{self, Unchanged},
        },
        entity::Secret,
    };

    #[derive(Deserialize, JsonSchema)]
    #[serde(default)]
    struct Sample {
        retries: u16,
        ratio: f64,
        protocols: std::collections::BTreeSet<String>,
        key: Option<Secret<String>>,
        redis: Option<Nested>,
    }

    #[derive(Default, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Nested {
        port: u16,
        password: Secret<String>,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                retries: 5,
                ratio: 1.0,
                protocols: ["http", "https"].map(str::to_owned).into(),
                key: None,
                redis: None,
            }
        }
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        let schema = derived::<Sample>().to_value();
        let fields = |text: &str| {
            let mut diagnostics = Diagnostics::default();
            let node = yaml::parse(text, 0, &Unchanged, &mut diagnostics).expect("a tree");
            of_node(&node, &schema, &["name"])
        };
        compare(&fields(old), &fields(new))
            .iter()
            .map(|change| {
                let (old, new) = (shown(change.old.as_ref()), shown(change.new.as_ref()));
                format!("{}: {old} → {new}", change.field)
            })
            .collect()
    }

    #[test]
    fn what_says_the_default_says_nothing_new() {
        let same =
            "{retries: 5, ratio: 1, protocols: [https, http], name: b, _comment: x, key: null}";
        assert_eq!(changes("{name: a}", same), Vec::<String>::new());
        assert_eq!(changes("{name: a}", "{retries: 2}"), ["retries: 5 → 2"]);
    }

    #[test]
    fn a_secret_differs_without_being_shown() {
        assert_eq!(changes("{key: a}", "{key: b}"), ["key: *** → ***"]);
        assert_eq!(changes("{key: a}", "{key: a}"), Vec::<String>::new());
        assert_eq!(
            changes("{}", "{redis: {password: hunter2}}")
                .iter()
                .filter(|change| change.contains("hunter2"))
                .count(),
            0
        );
    }

    #[test]
    fn the_fields_of_a_record_that_is_written_have_their_defaults() {
        assert_eq!(
            changes("{redis: {port: 1}}", "{redis: {port: 2}}"),
            ["redis.port: 1 → 2"]
        );
    }
}
