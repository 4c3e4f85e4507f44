//! How one entity names another.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The value of a foreign field: a string, or a record with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A name or an id; an id that matches wins.
    Any(String),
    Id(String),
    Name(String),
    Username(String),
    CustomId(String),
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
        let mut found = None;
        while let Some((key, text)) = access.next_entry::<String, Option<String>>()? {
            let Some(text) = text else { continue };
            let reference = match key.as_str() {
                "id" => Reference::Id(text),
                "name" => Reference::Name(text),
                "username" => Reference::Username(text),
                "custom_id" => Reference::CustomId(text),
                _ => continue,
            };
            if found.replace(reference).is_some() {
                return Err(de::Error::custom(
                    "a reference names one entity in one way: give one key only",
                ));
            }
        }
        found.ok_or_else(|| {
            de::Error::custom("a reference needs one of `name`, `id`, `username`, `custom_id`")
        })
    }
}

impl JsonSchema for Reference {
    fn schema_name() -> Cow<'static, str> {
        "Reference".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-noun": "name or id",
            "description": "A name or an id, or a record with one of `name`, `id`, `username`, `custom_id`.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "id": {"type": ["string", "null"]},
                        "name": {"type": ["string", "null"]},
                        "username": {"type": ["string", "null"]},
                        "custom_id": {"type": ["string", "null"]}
                    }
                }
            ]
        })
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
        assert!(read("{\"name\": \"a\", \"id\": \"b\"}").is_err());
        assert!(read("{}").is_err());
    }
}
