//! Tables of fields from the schema that `tollgate schema` prints.

use serde_json::{Map, Value};

use super::markdown::{code, codes, table};

/// The tables of a record: its fields, what their values mean, and what of Kong's is refused.
/// `names` chooses among the fields; without any all are taken but those in `elsewhere`.
pub(crate) fn tables(record: &Value, names: &[&str], elsewhere: &[&str]) -> String {
    let chosen = chosen(record, names, elsewhere);
    let mut rows = Vec::new();
    for (name, schema) in &chosen {
        add_rows(name, schema, is_required(record, name), &mut rows);
    }
    let rows = joined(rows);
    let mut text = table(&["field", "type", "default", "meaning"], &rows);
    for (name, schema) in &chosen {
        text.push_str(&meanings(name, schema));
    }
    text
}

/// The fields and names of Kong's that a record does not take, with the way out.
pub(crate) fn refusals(record: &Value) -> String {
    let rows: Vec<Vec<String>> = properties(record)
        .filter_map(|(name, schema)| {
            let reason = schema
                .get("x-refused")
                .or_else(|| schema.get("errorMessage"))?;
            Some(vec![code(name), reason.as_str()?.to_owned()])
        })
        .collect();
    let rows = joined(rows);
    if rows.is_empty() {
        return String::new();
    }
    table(&["field of Kong's", "what to do"], &rows)
}

/// Neighbours that differ in their first cell alone become one row.
fn joined(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut joined: Vec<Vec<String>> = Vec::new();
    for row in rows {
        match joined.last_mut() {
            Some(last) if last[1..] == row[1..] => last[0] = format!("{}, {}", last[0], row[0]),
            _ => joined.push(row),
        }
    }
    joined
}

/// The keys of the top level that have a meaning, and those that have none.
pub(crate) fn keys(document: &Value) -> String {
    let rows: Vec<Vec<String>> = properties(document)
        .filter(|(_, schema)| !is_refused(schema))
        .map(|(name, schema)| vec![code(name), description(schema)])
        .collect();
    table(&["key", "meaning"], &joined(rows))
}

fn properties(record: &Value) -> impl Iterator<Item = (&String, &Value)> {
    record
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn is_refused(schema: &Value) -> bool {
    schema.get("errorMessage").is_some()
}

/// Lists of entities have pages of their own, and what nobody reads is said once for all.
fn is_own_field(schema: &Value) -> bool {
    let of_entities = schema.pointer("/items/$ref").is_some();
    !is_refused(schema) && !of_entities && schema.get("doNotSuggest").is_none()
}

fn chosen<'a>(
    record: &'a Value,
    names: &[&str],
    elsewhere: &[&str],
) -> Vec<(&'a String, &'a Value)> {
    let own = || properties(record).filter(|(_, schema)| is_own_field(schema));
    if names.is_empty() {
        return own()
            .filter(|(name, _)| !elsewhere.contains(&name.as_str()))
            .collect();
    }
    let find = |name: &&str| {
        own()
            .find(|(own, _)| own == name)
            .ok_or(name)
            .expect("a field of this name")
    };
    names.iter().map(find).collect()
}

fn is_required(record: &Value, name: &str) -> bool {
    let required = record.get("required").and_then(Value::as_array);
    required.is_some_and(|names| names.iter().any(|required| required == name))
}

fn add_rows(name: &str, schema: &Value, required: bool, rows: &mut Vec<Vec<String>>) {
    let default = if required {
        "required".to_owned()
    } else {
        default_of(schema)
    };
    rows.push(vec![
        code(name),
        type_of(schema),
        default,
        description(schema),
    ]);
    for (inner, field) in properties(schema).filter(|(_, field)| is_own_field(field)) {
        let required = is_required(schema, inner);
        add_rows(&format!("{name}.{inner}"), field, required, rows);
    }
}

fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn default_of(schema: &Value) -> String {
    match schema.get("default") {
        None => String::new(),
        Some(Value::Array(items)) if items.is_empty() => String::new(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            code(&items.join(", "))
        }
        Some(value) => code(&plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Derived defaults of fractional fields: `1.0` is 1.
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// What people call the values of a field.
fn type_of(schema: &Value) -> String {
    if let Some(values) = values_of(schema) {
        return if values.contains(&Value::Bool(true)) {
            "switch".to_owned()
        } else {
            let texts: Vec<String> = values.iter().map(plain).collect();
            codes(texts.iter().map(String::as_str))
        };
    }
    if let Some(noun) = schema.get("x-noun").and_then(Value::as_str) {
        return noun.to_owned();
    }
    if let Some(parts) = schema.get("anyOf").and_then(Value::as_array) {
        let mut types: Vec<String> = parts.iter().map(type_of).collect();
        types.retain(|name| !name.is_empty());
        types.dedup();
        return types.join(" or ");
    }
    let types = types(schema);
    let limits = limits(schema);
    match types.first().copied() {
        Some("array") => list_type(schema),
        Some("object") => "record".to_owned(),
        Some(name @ ("integer" | "number")) => format!("{name}{limits}"),
        Some("null") | None => String::new(),
        Some(name) => name.to_owned(),
    }
}

fn list_type(schema: &Value) -> String {
    let items = schema.get("items").map(type_of).unwrap_or_default();
    match items.as_str() {
        "" | "string" => "list".to_owned(),
        items => format!("list: {items}"),
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The values that a field lists, without `null`.
fn values_of(schema: &Value) -> Option<Vec<Value>> {
    let list = schema
        .pointer("/anyOf/0/enum")
        .or_else(|| schema.get("enum"))?;
    let mut values = list.as_array()?.clone();
    values.retain(|value| !value.is_null());
    Some(values)
}

/// Limits that come from the type alone would be noise.
fn limits(schema: &Value) -> String {
    let limit = |keyword: &str| {
        let limit = schema.get(keyword).filter(|limit| {
            let number = limit.as_f64().unwrap_or_default().abs();
            number < f64::from(i32::MAX - 1)
        })?;
        Some(plain(limit))
    };
    match (
        limit("minimum"),
        limit("maximum"),
        limit("exclusiveMinimum"),
    ) {
        (Some(min), Some(max), _) => format!(", {min} to {max}"),
        (Some(min), None, _) if min != "0" => format!(" from {min}"),
        (None, Some(max), _) => format!(" up to {max}"),
        (_, _, Some(min)) => format!(" above {min}"),
        _ => String::new(),
    }
}

/// What the values of a field mean, where that is said, and the values of Kong's that are not taken.
fn meanings(name: &str, schema: &Value) -> String {
    let inner: String = properties(schema)
        .map(|(inner, field)| meanings(&format!("{name}.{inner}"), field))
        .collect();
    let choice = schema.get("items").unwrap_or(schema);
    let Some(values) = values_of(choice) else {
        return inner;
    };
    let meaning = |index: usize| {
        let pointer = format!("/anyOf/0/enumDescriptions/{index}");
        let text = choice.pointer(&pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let refused = choice.get("x-refused-values").and_then(Value::as_array);
    let mut rows: Vec<Vec<String>> = values
        .iter()
        .enumerate()
        .map(|(index, value)| vec![code(&plain(value)), meaning(index)])
        .collect();
    rows.retain(|row| !row[1].is_empty());
    let told = !rows.is_empty();
    for pair in refused.into_iter().flatten() {
        let text = |index: usize| pair[index].as_str().unwrap_or_default().to_owned();
        let why = format!("not supported in this version: {}", text(1));
        rows.push(vec![code(&text(0)), why]);
    }
    if rows.len() < 2 && (told || refused.is_none()) {
        return inner;
    }
    let heading = code(name);
    format!("\n{}{inner}", table(&[&heading, "meaning"], &joined(rows)))
}

/// Every field, at any depth, that the schema does not describe.
pub(crate) fn undescribed(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    visit("", schema, &mut found);
    found
}

fn visit(path: &str, schema: &Value, found: &mut Vec<String>) {
    let empty = Map::new();
    let object = schema.as_object().unwrap_or(&empty);
    for (keyword, inner) in object {
        match (keyword.as_str(), inner) {
            ("properties" | "definitions", Value::Object(fields)) => {
                for (name, field) in fields {
                    let path = format!("{path}/{name}");
                    // The branches of a condition repeat what is described beside them.
                    let condition = path.contains("/if/") || field.get("const").is_some();
                    let told = !description(field).is_empty() || is_refused(field);
                    if keyword == "properties" && !told && !condition && !path.contains("/part/") {
                        found.push(path.clone());
                    }
                    visit(&path, field, found);
                }
            }
            ("anyOf", Value::Array(parts)) => {
                for part in parts {
                    visit(&format!("{path}/part"), part, found);
                }
            }
            ("allOf", Value::Array(rules)) => {
                for rule in rules {
                    visit(path, &rule["then"], found);
                }
            }
            ("items" | "additionalProperties", inner) => visit(path, inner, found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Value {
        json!({
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "x-noun": "host name", "description": "Who."},
                "port": {"type": ["integer", "string", "null"], "minimum": 0, "maximum": 65535, "default": 80, "description": "Where."},
                "way": {"anyOf": [{"enum": ["up", "down", null], "enumDescriptions": ["Higher.", "Lower.", ""]}, {"type": "string"}],
                        "x-refused-values": [["left", "turn around"]], "description": "How."},
                "inner": {"type": ["object", "null"], "properties": {"on": {"type": ["boolean", "string"], "description": "Whether."}}, "description": "More."},
                "old": {"enum": [null], "errorMessage": "gone", "x-refused": "leave it out"},
            }
        })
    }

    #[test]
    fn a_field_has_its_type_default_and_meaning() {
        let text = tables(&record(), &[], &["way"]);
        assert_eq!(
            text,
            "| field | type | default | meaning |\n|---|---|---|---|\n\
             | `name` | host name | required | Who. |\n\
             | `port` | integer, 0 to 65535 | `80` | Where. |\n\
             | `inner` | record | | More. |\n\
             | `inner.on` | boolean | | Whether. |\n"
        );
    }

    #[test]
    fn values_are_told_with_those_that_are_refused() {
        let text = tables(&record(), &["way"], &[]);
        assert!(
            text.contains("| `way` | `up`, `down` | | How. |\n"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "\n| `way` | meaning |\n|---|---|\n| `up` | Higher. |\n| `down` | Lower. |\n\
                 | `left` | not supported in this version: turn around |\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn neighbours_that_say_the_same_share_a_row() {
        let row = |name: &str, meaning: &str| vec![name.to_owned(), meaning.to_owned()];
        let rows = joined(vec![row("a", "x"), row("b", "x"), row("c", "y")]);
        assert_eq!(rows, [row("a, b", "x"), row("c", "y")]);
    }

    #[test]
    fn refused_fields_stand_apart() {
        assert!(refusals(&record()).ends_with("| `old` | leave it out |\n"));
        assert!(!tables(&record(), &[], &[]).contains("old"));
    }
}
