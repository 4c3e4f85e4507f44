//! How one entity names another.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// The value of a foreign field: a string, or a record with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A name or an id; an id that matches wins.
    Any(String),
    Id(String),
    Name(String),
    Username(String),
    CustomId(String),
    /// An id, and a name for whoever does not know the id: an export may have ids of another gateway.
    IdElse(String, Box<Self>),
}

impl Reference {
    /// The text that identifies the other entity.
    pub fn text(&self) -> &str {
        match self {
            Self::Any(text)
            | Self::Id(text)
            | Self::Name(text)
            | Self::Username(text)
            | Self::CustomId(text) => text,
            Self::IdElse(_, other) => other.text(),
        }
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

struct ReferenceVisitor;

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = Reference;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name or an id, or a record with one of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Reference, E> {
        Ok(Reference::Any(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Reference, A::Error> {
        let (mut id, mut name) = (None, None);
        while let Some(key) = access.next_key::<String>()? {
            let reference = match key.as_str() {
                "id" => {
                    id = access.next_value::<Option<String>>()?;
                    continue;
                }
                "name" => Reference::Name,
                "username" => Reference::Username,
                "custom_id" => Reference::CustomId,
                _ => {
                    access.next_value::<de::IgnoredAny>()?;
                    continue;
                }
            };
            let Some(text) = access.next_value::<Option<String>>()? else {
                continue;
            };
            if name.replace(reference(text)).is_some() {
                return Err(de::Error::custom(
                    "a reference names one entity in one way: give one name only",
                ));
            }
        }
        match (id, name) {
            (Some(id), Some(name)) => Ok(Reference::IdElse(id, Box::new(name))),
            (Some(id), None) => Ok(Reference::Id(id)),
            (None, Some(name)) => Ok(name),
            (None, None) => Err(de::Error::custom(
                "a reference needs one of `name`, `id`, `username`, `custom_id`",
            )),
        }
    }
}

impl JsonSchema for Reference {
    fn schema_name() -> Cow<'static, str> {
        "Reference".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = || json!({"type": ["string", "null"]});
        text_or_record(
            "A name or an id, or a record with one of `name`, `id`, `username`, `custom_id`.",
            &json!({"id": text(), "name": text(), "username": text(), "custom_id": text()}),
        )
    }
}

/// A string, or a record with these properties.
fn text_or_record(description: &str, properties: &Value) -> Schema {
    json_schema!({
        "x-noun": "name or id",
        "description": description,
        "anyOf": [
            {"type": "string"},
            {"type": "object", "additionalProperties": false, "properties": properties},
        ]
    })
}

/// What an item of a consumer's `groups` may be: a reference, or the group as an export repeats it.
pub(super) struct GroupItem;

impl JsonSchema for GroupItem {
    fn schema_name() -> Cow<'static, str> {
        "GroupItem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_or_record(
            "A name or an id, or a record with `name`, `id` or both.",
            &json!({
                "id": {"type": ["string", "null"]},
                "name": {"type": ["string", "null"]},
                "tags": {"type": ["array", "null"], "items": {"type": "string"}},
                "created_at": {"type": ["integer", "null"]},
                "updated_at": {"type": ["integer", "null"]},
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_records_are_both_references() {
        let read = |text: &str| serde_json::from_str::<Reference>(text);
        assert_eq!(read("\"a\"").unwrap(), Reference::Any("a".into()));
        assert_eq!(
            read("{\"username\": \"a\"}").unwrap(),
            Reference::Username("a".into())
        );
        assert_eq!(
            read("{\"name\": \"a\", \"id\": \"b\", \"tags\": [\"c\"]}").unwrap(),
            Reference::IdElse("b".into(), Box::new(Reference::Name("a".into())))
        );
        assert!(read("{\"name\": \"a\", \"username\": \"b\"}").is_err());
        assert!(read("{}").is_err());
    }
}
