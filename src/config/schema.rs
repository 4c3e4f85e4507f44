//! What a typed value may look like, as a lean tree made once from the type's derived JSON Schema.
//!
//! Beside JSON Schema's own keywords these are understood:
//! `x-secret: true` (never show what was found), `x-not-null: true` (the field has a default but refuses `null`),
//! `x-comma-list: true` (a list may also be one string with commas), `x-hint` (the way out if a value is none of the
//! allowed ones), and the tables `x-refused` (fields) and
//! `x-refused-values`: pairs of a name and the sentence that says why this version does not take it.

use regex::Regex;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::formats::{self, Format};
use super::model::settings;

/// What a value may look like.
#[derive(Debug, Clone)]
pub struct Shape {
    pub(super) kind: ShapeKind,
    /// `null` is one of the values.
    pub(super) nullable: bool,
    /// Never show what was found here.
    pub(super) secret: bool,
}

#[derive(Debug, Clone)]
pub(super) enum ShapeKind {
    Any,
    Boolean,
    Text(Text),
    Integer(IntegerRange),
    Number(NumberRange),
    List(List),
    /// A record with free keys.
    Map(MapShape),
    Record(Record),
    /// One of several types.
    Union(Vec<Shape>),
}

#[derive(Debug, Clone)]
pub(super) struct MapShape {
    pub(super) keys: Text,
    pub(super) values: Box<Shape>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    pub(super) length_min: u64,
    pub(super) length_max: Option<u64>,
    pub(super) pattern: Option<Regex>,
    pub(super) format: Option<&'static Format>,
    /// The only values; empty: any.
    pub(super) allowed: Vec<String>,
    /// Values that are known but not taken, and why.
    pub(super) refused: Vec<(String, String)>,
    /// What to say about any other value.
    pub(super) hint: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct IntegerRange {
    pub(super) min: i64,
    pub(super) max: i64,
    /// The only values; empty: any in the range.
    pub(super) allowed: Vec<i64>,
}

#[derive(Debug, Clone)]
pub(super) struct NumberRange {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// `min` itself is not allowed.
    pub(super) above_min: bool,
}

#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) items: Box<Shape>,
    pub(super) min: u64,
    pub(super) max: Option<u64>,
    /// One string with commas will do.
    pub(super) comma: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// In alphabetical order.
    pub(super) fields: Vec<Field>,
    /// Fields that are known but not taken, and why.
    pub(super) refused: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) required: bool,
    /// Has a default, but `null` does not mean it.
    pub(super) not_null: bool,
}

impl Record {
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .binary_search_by(|field| field.name.as_str().cmp(name))
            .ok()
            .and_then(|index| self.fields.get(index))
    }
}

/// The shape of a type. Costs some tens of microseconds, so keep it.
pub fn shape_of<T: JsonSchema>() -> Shape {
    Shape::of_schema(&derived::<T>())
}

/// The JSON Schema of a type, with nothing referred to elsewhere.
pub fn derived<T: JsonSchema>() -> Schema {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<T>()
}

impl Shape {
    /// The shape of a schema that refers to nothing outside itself.
    pub fn of_schema(schema: &Schema) -> Self {
        shape(schema.as_value())
    }

    /// The same record with more fields that may hold anything: children that are entities of their own.
    #[must_use]
    pub fn with_lists(mut self, names: &[&str]) -> Self {
        if let ShapeKind::Record(record) = &mut self.kind {
            record.fields.extend(names.iter().map(|&name| Field {
                name: name.to_owned(),
                shape: Self::of(ShapeKind::Any),
                required: false,
                not_null: false,
            }));
            record
                .fields
                .sort_by(|left, right| left.name.cmp(&right.name));
        }
        self
    }

    /// The names of a record's fields, in alphabetical order; none for any other shape.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        let fields = match &self.kind {
            ShapeKind::Record(record) => record.fields.as_slice(),
            _ => &[],
        };
        fields.iter().map(|field| field.name.as_str())
    }

    /// Whether a record has a field of this name, or one that it refuses.
    pub fn knows(&self, name: &str) -> bool {
        match &self.kind {
            ShapeKind::Record(record) => {
                record.field(name).is_some()
                    || record.refused.iter().any(|(refused, _)| refused == name)
            }
            _ => false,
        }
    }

    /// Whether a record has a field whose values must not be shown.
    pub(super) fn has_secret_field(&self) -> bool {
        matches!(&self.kind, ShapeKind::Record(record) if record.fields.iter().any(|field| field.shape.secret))
    }

    const fn of(kind: ShapeKind) -> Self {
        Self {
            kind,
            nullable: false,
            secret: false,
        }
    }

    /// What a message calls this type.
    pub(super) fn expected(&self) -> String {
        match &self.kind {
            ShapeKind::Any => "a value".to_owned(),
            ShapeKind::Boolean => "a boolean".to_owned(),
            ShapeKind::Text(_) => "a string".to_owned(),
            ShapeKind::Integer(_) => "an integer".to_owned(),
            ShapeKind::Number(_) => "a number".to_owned(),
            ShapeKind::List(_) => "an array".to_owned(),
            ShapeKind::Map(_) | ShapeKind::Record(_) => "a record".to_owned(),
            ShapeKind::Union(shapes) => {
                let mut names: Vec<String> = shapes.iter().map(Self::expected).collect();
                names.dedup();
                names.join(" or ")
            }
        }
    }
}

fn shape(schema: &Value) -> Shape {
    let Value::Object(object) = schema else {
        return Shape::of(ShapeKind::Any);
    };
    let mut shape = alternatives(object).unwrap_or_else(|| by_types(object));
    shape.secret |= object.get("x-secret") == Some(&Value::Bool(true));
    shape
}

/// `anyOf` and `oneOf`: enums with documented variants become one text, `null` becomes a flag, the rest a union.
fn alternatives(object: &Map<String, Value>) -> Option<Shape> {
    let parts = object
        .get("anyOf")
        .or_else(|| object.get("oneOf"))?
        .as_array()?;
    let is_null = |part: &&Value| part.get("type").and_then(Value::as_str) == Some("null");
    let nullable = parts.iter().any(|part| is_null(&part));
    let mut shapes: Vec<Shape> = parts
        .iter()
        .filter(|part| !is_null(part))
        .map(shape)
        .collect();
    let only_enums = shapes
        .iter()
        .all(|shape| matches!(&shape.kind, ShapeKind::Text(text) if !text.allowed.is_empty()));
    let mut united = if only_enums {
        let whole = text(object);
        let mut allowed: Vec<String> = shapes
            .into_iter()
            .flat_map(|shape| match shape.kind {
                ShapeKind::Text(text) => text.allowed,
                _ => Vec::new(),
            })
            .collect();
        // A type may list other names of its variants beside them.
        let more = whole.allowed.iter().filter(|name| !allowed.contains(name));
        let more: Vec<String> = more.cloned().collect();
        allowed.extend(more);
        Shape::of(ShapeKind::Text(Text { allowed, ..whole }))
    } else if shapes.len() == 1 {
        shapes.remove(0)
    } else {
        Shape::of(ShapeKind::Union(shapes))
    };
    united.nullable |= nullable;
    Some(united)
}

fn by_types(object: &Map<String, Value>) -> Shape {
    let types: Vec<&str> = match object.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if object.contains_key("enum") || object.contains_key("const") => vec!["string"],
        _ => return Shape::of(ShapeKind::Any),
    };
    let nullable = types.contains(&"null");
    let comma = object.get("x-comma-list") == Some(&Value::Bool(true));
    let mut shapes: Vec<Shape> = types
        .iter()
        .filter(|&&name| name != "null" && !(comma && name == "string"))
        .map(|name| Shape::of(by_type(name, object)))
        .collect();
    let mut shape = if shapes.len() == 1 {
        shapes.remove(0)
    } else {
        Shape::of(ShapeKind::Union(shapes))
    };
    shape.nullable = nullable;
    shape
}

fn by_type(name: &str, object: &Map<String, Value>) -> ShapeKind {
    match name {
        "boolean" => ShapeKind::Boolean,
        "string" => ShapeKind::Text(text(object)),
        "integer" => ShapeKind::Integer(integer(object)),
        "number" => ShapeKind::Number(number(object)),
        "array" => ShapeKind::List(List {
            items: Box::new(object.get("items").map_or(Shape::of(ShapeKind::Any), shape)),
            min: unsigned(object, "minItems").unwrap_or(0),
            max: unsigned(object, "maxItems"),
            comma: object.get("x-comma-list") == Some(&Value::Bool(true)),
        }),
        "object" => record_or_map(object),
        _ => ShapeKind::Any,
    }
}

fn text(object: &Map<String, Value>) -> Text {
    let texts = |value: &Value| value.as_str().map(str::to_owned);
    let mut allowed: Vec<String> = object
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(texts)
        .collect();
    allowed.extend(object.get("const").and_then(texts));
    Text {
        // Kong refuses empty strings unless a field says otherwise.
        length_min: unsigned(object, "minLength").unwrap_or(1),
        length_max: unsigned(object, "maxLength"),
        pattern: object
            .get("pattern")
            .and_then(Value::as_str)
            .and_then(|pattern| Regex::new(pattern).ok()),
        format: object
            .get("format")
            .and_then(Value::as_str)
            .and_then(|name| formats::find(name).or_else(|| settings::find_format(name))),
        allowed,
        refused: pairs(object, "x-refused-values"),
        hint: object
            .get("x-hint")
            .and_then(Value::as_str)
            .map(str::to_owned),
    }
}

fn integer(object: &Map<String, Value>) -> IntegerRange {
    let (min, max) = match object.get("format").and_then(Value::as_str) {
        Some("int8") => (i64::from(i8::MIN), i64::from(i8::MAX)),
        Some("int16") => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some("uint8") => (0, i64::from(u8::MAX)),
        Some("uint16") => (0, i64::from(u16::MAX)),
        Some("uint32") => (0, i64::from(u32::MAX)),
        Some("uint64" | "uint") => (0, i64::MAX),
        _ => (i64::MIN, i64::MAX),
    };
    let keyword = |name: &str| {
        object
            .get(name)
            .and_then(|limit| limit.as_i64().or_else(|| whole(limit.as_f64()?)))
    };
    IntegerRange {
        min: min
            .max(keyword("minimum").unwrap_or(min))
            .max(keyword("exclusiveMinimum").map_or(min, |limit| limit + 1)),
        max: max
            .min(keyword("maximum").unwrap_or(max))
            .min(keyword("exclusiveMaximum").map_or(max, |limit| limit - 1)),
        allowed: object
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_i64)
            .collect(),
    }
}

/// Limits are derived as floats if the attribute was written so.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked first"
)]
fn whole(number: f64) -> Option<i64> {
    (number.abs() < 9e15).then_some(number as i64)
}

fn number(object: &Map<String, Value>) -> NumberRange {
    let keyword = |name: &str| object.get(name).and_then(Value::as_f64);
    let above = keyword("exclusiveMinimum");
    NumberRange {
        min: above.or_else(|| keyword("minimum")),
        max: keyword("maximum"),
        above_min: above.is_some(),
    }
}

fn record_or_map(object: &Map<String, Value>) -> ShapeKind {
    let properties = object.get("properties").and_then(Value::as_object);
    match (properties, object.get("additionalProperties")) {
        (None, Some(values @ Value::Object(_))) => ShapeKind::Map(map(object, shape(values))),
        (None, None | Some(Value::Bool(true))) => {
            ShapeKind::Map(map(object, Shape::of(ShapeKind::Any)))
        }
        (properties, _) => ShapeKind::Record(record(properties, object)),
    }
}

fn map(object: &Map<String, Value>, values: Shape) -> MapShape {
    let keys = object
        .get("propertyNames")
        .and_then(Value::as_object)
        .map(text)
        .unwrap_or_default();
    MapShape {
        keys,
        values: Box::new(values),
    }
}

fn record(properties: Option<&Map<String, Value>>, object: &Map<String, Value>) -> Record {
    let required: Vec<&str> = object
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields: Vec<Field> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| Field {
            name: name.clone(),
            shape: shape(schema),
            required: required.contains(&name.as_str()),
            not_null: schema.get("x-not-null") == Some(&Value::Bool(true)),
        })
        .collect();
    fields.sort_by(|left, right| left.name.cmp(&right.name));
    Record {
        fields,
        refused: pairs(object, "x-refused"),
    }
}

fn pairs(object: &Map<String, Value>, keyword: &str) -> Vec<(String, String)> {
    let pair = |pair: &Value| {
        Some((
            pair.get(0)?.as_str()?.to_owned(),
            pair.get(1)?.as_str()?.to_owned(),
        ))
    };
    object
        .get(keyword)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(pair)
        .collect()
}

fn unsigned(object: &Map<String, Value>, keyword: &str) -> Option<u64> {
    object.get(keyword).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Documented {
        /// One.
        #[default]
        One,
        /// Two.
        Two,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    #[schemars(extend("required" = ["name"]))]
    struct Sample {
        name: String,
        maybe: Option<Documented>,
        port: u16,
        #[schemars(extend("x-secret" = true), length(min = 0))]
        password: String,
        inner: Option<Inner>,
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        #[schemars(range(min = 1, max = 5))]
        limit: u32,
    }

    fn field(shape: &Shape, name: &str) -> Field {
        match &shape.kind {
            ShapeKind::Record(record) => record.field(name).unwrap().clone(),
            other => panic!("not a record: {other:?}"),
        }
    }

    #[test]
    fn a_struct_becomes_a_record_with_sorted_fields() {
        let shape = shape_of::<Sample>();
        assert_eq!(
            shape.field_names().collect::<Vec<_>>(),
            ["inner", "maybe", "name", "password", "port"]
        );
        assert!(field(&shape, "name").required);
        assert!(field(&shape, "password").shape.secret);
        assert!(
            matches!(field(&shape, "port").shape.kind, ShapeKind::Integer(range) if range.max == 65535)
        );
    }

    #[test]
    fn an_optional_enum_is_a_nullable_text() {
        let maybe = field(&shape_of::<Sample>(), "maybe").shape;
        assert!(maybe.nullable);
        assert!(matches!(maybe.kind, ShapeKind::Text(text) if text.allowed == ["one", "two"]));
    }

    #[test]
    fn an_optional_record_keeps_its_fields() {
        let inner = field(&shape_of::<Sample>(), "inner").shape;
        assert!(
            matches!(field(&inner, "limit").shape.kind, ShapeKind::Integer(range) if (range.min, range.max) == (1, 5))
        );
    }
}
