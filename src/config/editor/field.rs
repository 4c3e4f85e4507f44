//! One derived schema made strict: what `check` takes for granted (optional fields may be `null`,
//! strings are not empty, a record has no other keys) is said, and our own keywords become JSON
//! Schema's where it has such.

use serde_json::{Map, Value, json};

use super::patterns::pattern_of;
use crate::config::check::IGNORED_KEYS;

/// What is the same in every place where an environment variable may fill a gap in the text.
const TEMPLATE: &str = r"\$\{\{";
/// A whole string that stands for an environment variable.
const VAULT: &str = r"^\{vault://";

/// What a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// A record of settings.
    Record,
    /// An entity, which may carry keys that nobody reads. `vaults`: its strings may come from outside.
    Entity { vaults: bool },
    /// The configuration of a plugin, whose strings may come from outside.
    Config,
}

impl Position {
    /// The position of what is inside a field.
    const fn inside(self) -> Self {
        match self {
            Self::Entity { vaults: true } | Self::Config => Self::Config,
            Self::Entity { vaults: false } | Self::Record => Self::Record,
        }
    }

    /// What a string may be instead of what its field asks for.
    fn outside(self) -> String {
        match self {
            Self::Entity { vaults: true } | Self::Config => format!("{TEMPLATE}|{VAULT}"),
            Self::Entity { vaults: false } | Self::Record => TEMPLATE.to_owned(),
        }
    }
}

/// A field that is known but not taken, unless it has one of the values in `inert`, or is a record of them.
pub(super) fn refused(inert: &Value, reason: &str) -> Value {
    json!({
        "description": format!("Not supported in this version: {reason}."),
        "anyOf": [
            {"enum": inert},
            {"type": "object", "additionalProperties": {"enum": inert}},
        ],
        "doNotSuggest": true,
        "errorMessage": format!("not supported in this version: {reason}"),
        "x-refused": reason,
    })
}

/// The strict form of a derived schema that refers to nothing outside itself.
pub(super) fn published(schema: &Value, position: Position) -> Map<String, Value> {
    let mut strict = Map::new();
    let Value::Object(schema) = schema else {
        return strict;
    };
    if let Some(description) = schema.get("description").and_then(Value::as_str) {
        strict.insert("description".to_owned(), one_line(description).into());
    }
    let schema = Flat::new(schema);
    for keyword in ["title", "default", "x-noun"] {
        if let Some(value) = schema.object.get(keyword).filter(|value| worth(value)) {
            strict.insert(keyword.to_owned(), value.clone());
        }
    }
    if let Some(parts) = &schema.parts {
        let parts = parts.iter().map(|part| published(part, position).into());
        let null = schema.nullable.then(|| json!({"type": "null"}));
        let parts: Vec<Value> = parts.chain(null).collect();
        strict.insert("anyOf".to_owned(), parts.into());
    } else if let Some(values) = &schema.values {
        strict.extend(choice(&schema, values, position));
    } else {
        strict.extend(typed(&schema, position));
    }
    strict
}

/// Lines of a comment are one paragraph.
fn one_line(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|text| text.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// A default that a person would write: `null` and an empty text are none, and the fields of a record have their own.
fn worth(default: &Value) -> bool {
    !matches!(default, Value::Null | Value::Object(_)) && default != ""
}

/// A derived schema without the detours of its making.
struct Flat<'a> {
    object: Map<String, Value>,
    nullable: bool,
    /// The only values, and what each means.
    values: Option<Vec<(Value, String)>>,
    /// Alternatives that are not just values.
    parts: Option<Vec<&'a Value>>,
}

impl<'a> Flat<'a> {
    fn new(schema: &'a Map<String, Value>) -> Self {
        let mut flat = Self {
            object: schema.clone(),
            nullable: false,
            values: None,
            parts: None,
        };
        let parts = schema.get("anyOf").or_else(|| schema.get("oneOf"));
        if let Some(parts) = parts.and_then(Value::as_array) {
            flat.alternatives(parts);
        }
        if let Some(Value::Array(types)) = flat.object.get_mut("type") {
            let before = types.len();
            types.retain(|name| name != "null");
            flat.nullable |= types.len() < before;
            if let [only] = types.as_slice() {
                let only = only.clone();
                flat.object.insert("type".to_owned(), only);
            }
        }
        if let Some(values) = own_values(&flat.object) {
            flat.values = Some(values);
        }
        flat
    }

    fn alternatives(&mut self, parts: &'a [Value]) {
        let is_null = |part: &&Value| part.get("type").and_then(Value::as_str) == Some("null");
        self.nullable = parts.iter().any(|part| is_null(&part));
        let rest: Vec<&Value> = parts.iter().filter(|part| !is_null(part)).collect();
        let values: Option<Vec<_>> = rest
            .iter()
            .map(|part| own_values(part.as_object()?))
            .collect();
        if let Some(values) = values {
            self.values = Some(values.into_iter().flatten().collect());
        } else if let [Value::Object(only)] = rest.as_slice() {
            let inner = Flat::new(only);
            for (keyword, value) in inner.object {
                self.object.entry(keyword).or_insert(value);
            }
            self.values = inner.values;
            self.parts = inner.parts;
            self.nullable |= inner.nullable;
        } else {
            self.parts = Some(rest);
        }
    }
}

/// The values that a schema lists by itself, each with its meaning.
fn own_values(object: &Map<String, Value>) -> Option<Vec<(Value, String)>> {
    let meaning = object
        .get("description")
        .and_then(Value::as_str)
        .map(one_line);
    if let Some(value) = object.get("const") {
        return Some(vec![(value.clone(), meaning.unwrap_or_default())]);
    }
    let values = object.get("enum")?.as_array()?.iter();
    let values = values.filter(|value| !value.is_null());
    Some(values.map(|value| (value.clone(), String::new())).collect())
}

/// One of a few values.
fn choice(flat: &Flat<'_>, values: &[(Value, String)], position: Position) -> Map<String, Value> {
    let mut allowed: Vec<Value> = values.iter().map(|(value, _)| value.clone()).collect();
    let mut meanings: Vec<&str> = values.iter().map(|(_, meaning)| meaning.as_str()).collect();
    if flat.nullable {
        allowed.push(Value::Null);
        meanings.push("");
    }
    let mut only = Map::from_iter([("enum".to_owned(), Value::Array(allowed))]);
    if meanings.iter().any(|meaning| !meaning.is_empty()) {
        only.insert("enumDescriptions".to_owned(), json!(meanings));
    }
    let outside = json!({"type": "string", "pattern": position.outside(), "doNotSuggest": true});
    let mut choice = Map::from_iter([("anyOf".to_owned(), json!([only, outside]))]);
    if let Some(refused) = flat.object.get("x-refused-values") {
        choice.insert("x-refused-values".to_owned(), refused.clone());
    }
    choice
}

fn typed(flat: &Flat<'_>, position: Position) -> Map<String, Value> {
    let object = &flat.object;
    let mut types: Vec<&str> = match object.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Map::new(),
    };
    let mut strict = Map::new();
    for name in types.clone() {
        match name {
            "string" if types.contains(&"array") => {}
            "string" => strict.extend(text(object, position)),
            "integer" | "number" => strict.extend(number(object)),
            "array" => strict.extend(list(object, position)),
            "object" => strict.extend(record_or_map(object, position)),
            _ => {}
        }
    }
    // A number or a switch may be filled in from the environment before the text is parsed.
    let scalar = types
        .iter()
        .any(|name| matches!(*name, "boolean" | "integer" | "number"));
    if scalar && !types.contains(&"string") {
        let expected = types.join(" or ");
        types.push("string");
        strict.insert("pattern".to_owned(), TEMPLATE.into());
        strict.insert(
            "patternErrorMessage".to_owned(),
            format!("expected: {expected}").into(),
        );
    }
    if flat.nullable {
        types.push("null");
    }
    let types = match types.as_slice() {
        [only] => json!(only),
        types => json!(types),
    };
    strict.insert("type".to_owned(), types);
    strict
}

fn text(object: &Map<String, Value>, position: Position) -> Map<String, Value> {
    let mut strict = Map::new();
    // Kong refuses empty strings unless a field says otherwise.
    let min = object.get("minLength").cloned().unwrap_or_else(|| 1.into());
    if min != 0 {
        strict.insert("minLength".to_owned(), min);
    }
    if let Some(max) = object.get("maxLength") {
        strict.insert("maxLength".to_owned(), max.clone());
    }
    let format = object.get("format").and_then(Value::as_str);
    let known = format.and_then(pattern_of);
    if let Some(known) = known {
        strict.insert("x-noun".to_owned(), known.noun.into());
    }
    let own = object.get("pattern").and_then(Value::as_str);
    if let Some(regex) = own.or_else(|| known.map(|known| known.regex)) {
        let outside = position.outside();
        strict.insert("pattern".to_owned(), format!("{regex}|{outside}").into());
        let message = match known {
            Some(known) => format!("expected: {}", known.noun),
            None => format!("expected: text that matches {regex}"),
        };
        strict.insert("patternErrorMessage".to_owned(), message.into());
    }
    strict
}

/// The limits of an integer's Rust type are said like any others.
fn number(object: &Map<String, Value>) -> Map<String, Value> {
    let mut strict = Map::new();
    for keyword in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
        if let Some(limit) = object.get(keyword) {
            strict.insert(keyword.to_owned(), limit.clone());
        }
    }
    let limits = match object.get("format").and_then(Value::as_str) {
        Some("int8") => (Some(i64::from(i8::MIN)), Some(i64::from(i8::MAX))),
        Some("int16") => (Some(i64::from(i16::MIN)), Some(i64::from(i16::MAX))),
        Some("int32") => (Some(i64::from(i32::MIN)), Some(i64::from(i32::MAX))),
        Some("uint8") => (Some(0), Some(i64::from(u8::MAX))),
        Some("uint16") => (Some(0), Some(i64::from(u16::MAX))),
        Some("uint32") => (Some(0), Some(i64::from(u32::MAX))),
        Some("uint64" | "uint") => (Some(0), None),
        _ => (None, None),
    };
    for (keyword, limit) in [("minimum", limits.0), ("maximum", limits.1)] {
        if let Some(limit) = limit {
            strict
                .entry(keyword.to_owned())
                .or_insert_with(|| limit.into());
        }
    }
    strict
}

fn list(object: &Map<String, Value>, position: Position) -> Map<String, Value> {
    let mut strict = Map::new();
    if let Some(items) = object.get("items") {
        let items = published(items, position.inside());
        strict.insert("items".to_owned(), items.into());
    }
    for keyword in ["minItems", "maxItems"] {
        if let Some(limit) = object.get(keyword) {
            strict.insert(keyword.to_owned(), limit.clone());
        }
    }
    strict
}

fn record_or_map(object: &Map<String, Value>, position: Position) -> Map<String, Value> {
    let properties = object.get("properties").and_then(Value::as_object);
    match (properties, object.get("additionalProperties")) {
        (None, Some(values @ Value::Object(_))) => {
            let values = published(values, position.inside());
            let mut strict = Map::from_iter([("additionalProperties".to_owned(), values.into())]);
            let names = object.get("propertyNames").and_then(Value::as_object);
            if let Some(names) = names {
                strict.insert("propertyNames".to_owned(), text(names, position).into());
            }
            strict
        }
        (None, None | Some(Value::Bool(true))) => Map::new(),
        (properties, _) => record(properties, object, position),
    }
}

fn record(
    properties: Option<&Map<String, Value>>,
    object: &Map<String, Value>,
    position: Position,
) -> Map<String, Value> {
    let required: Vec<&str> = strings(object.get("required")).collect();
    let mut fields = Map::new();
    for (name, schema) in properties.into_iter().flatten() {
        let mut field = published(schema, position.inside());
        let not_null = schema.get("x-not-null") == Some(&Value::Bool(true));
        if !not_null && !required.contains(&name.as_str()) {
            accept_null(&mut field);
        }
        fields.insert(name.clone(), field.into());
    }
    let inert = json!([null, false, 0, [], {}]);
    for pair in object
        .get("x-refused")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let [name, reason] = strings(Some(pair)).collect::<Vec<_>>()[..] {
            fields.insert(name.to_owned(), refused(&inert, reason));
        }
    }
    if matches!(position, Position::Entity { .. }) {
        for key in IGNORED_KEYS {
            let ignored = json!({"description": "Accepted, without effect.", "doNotSuggest": true});
            fields.insert((*key).to_owned(), ignored);
        }
    }
    let mut strict = Map::from_iter([("properties".to_owned(), fields.into())]);
    if !required.is_empty() {
        strict.insert("required".to_owned(), json!(required));
    }
    strict.insert("additionalProperties".to_owned(), false.into());
    strict
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// `null` for an optional field is as if it were absent.
fn accept_null(field: &mut Map<String, Value>) {
    let null = Value::Null;
    match field.get_mut("anyOf").and_then(Value::as_array_mut) {
        Some(parts) => {
            let values = parts.first_mut().and_then(|part| part.get_mut("enum"));
            if let Some(values) = values.and_then(Value::as_array_mut) {
                if !values.contains(&null) {
                    values.push(null);
                }
            } else if !parts
                .iter()
                .any(|part| part.get("type") == Some(&json!("null")))
            {
                parts.push(json!({"type": "null"}));
            }
        }
        None => match field.get_mut("type") {
            Some(Value::Array(types)) if !types.contains(&json!("null")) => {
                types.push("null".into());
            }
            Some(only @ Value::String(_)) => *only = json!([only.clone(), "null"]),
            _ => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::config::schema::derived;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Side {
        /// Port.
        #[default]
        Left,
        /// Starboard.
        Right,
    }

    /// A boat.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    #[schemars(extend("required" = ["name"], "x-refused" = [("sail", "use the engine")]))]
    struct Boat {
        /// What it is called,
        /// in letters.
        #[schemars(extend("format" = "entity-name"))]
        name: String,
        #[schemars(extend("x-not-null" = true))]
        engine: bool,
        berths: u8,
        side: Side,
        other: Option<Side>,
    }

    fn boat(position: Position) -> Value {
        published(derived::<Boat>().as_value(), position).into()
    }

    #[test]
    fn optional_fields_may_be_null_and_others_not() {
        let boat = boat(Position::Record);
        let fields = &boat["properties"];
        assert_eq!(fields["name"]["type"], "string");
        assert_eq!(fields["engine"]["type"], json!(["boolean", "string"]));
        assert_eq!(
            fields["berths"]["type"],
            json!(["integer", "string", "null"])
        );
        for field in ["side", "other"] {
            let values = &fields[field]["anyOf"][0];
            assert_eq!(values["enum"], json!(["left", "right", null]), "{field}");
        }
    }

    #[test]
    fn a_record_has_no_other_keys_and_says_why_some_are_refused() {
        let boat = boat(Position::Record);
        assert_eq!(boat["additionalProperties"], false);
        assert_eq!(boat["required"], json!(["name"]));
        assert_eq!(boat["properties"]["sail"]["x-refused"], "use the engine");
        assert!(boat["properties"].get("_comment").is_none());
    }

    #[test]
    fn comments_meanings_defaults_and_limits_are_kept() {
        let boat = boat(Position::Record);
        let fields = &boat["properties"];
        assert_eq!(
            fields["name"]["description"],
            "What it is called, in letters."
        );
        assert_eq!(fields["berths"]["default"], 0);
        assert_eq!(fields["berths"]["maximum"], 255);
        let meanings = &fields["side"]["anyOf"][0]["enumDescriptions"];
        assert_eq!(*meanings, json!(["Port.", "Starboard."]));
        assert_eq!(fields["side"]["default"], "left");
    }

    #[test]
    fn strings_of_a_plugins_configuration_may_come_from_a_vault() {
        let pattern = |position| boat(position)["properties"]["name"]["pattern"].to_string();
        assert!(pattern(Position::Config).contains("vault"));
        assert!(!pattern(Position::Entity { vaults: false }).contains("vault"));
        assert!(pattern(Position::Entity { vaults: true }).contains("vault"));
    }

    #[test]
    fn an_entity_may_carry_keys_that_nobody_reads() {
        let boat = boat(Position::Entity { vaults: false });
        assert!(boat["properties"].get("_comment").is_some());
    }
}
