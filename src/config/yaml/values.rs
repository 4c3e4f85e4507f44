//! What a document says, without places: `serde_yaml` reads it into a raw tree, duplicate keys and all.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::super::diagnostics::Code;
use super::{Position, Problem};

/// How many values a document may have once its aliases are expanded; a long string counts as several.
const NODES_MAX: usize = 4_000_000;

/// A value without places, as `serde_yaml` gives it, duplicate keys and all.
#[derive(Debug, PartialEq)]
pub(super) enum Raw {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Self>),
    Mapping(Vec<(Self, Self)>),
}

/// Why `serde_yaml` gave up.
#[derive(Debug)]
pub(super) struct ValueError {
    pub(super) position: Option<Position>,
    message: String,
}

impl ValueError {
    pub(super) fn unknown() -> Self {
        Self {
            position: None,
            message: "the YAML parser failed".to_owned(),
        }
    }

    fn new(error: &serde_yaml::Error) -> Self {
        let position = error.location().map(|location| Position {
            line: u32::try_from(location.line()).unwrap_or(u32::MAX),
            column: u32::try_from(location.column()).unwrap_or(u32::MAX),
        });
        let mut message = error.to_string();
        if let Some(location) = error.location() {
            message = message.replacen(
                &format!(" at line {} column {}", location.line(), location.column()),
                "",
                1,
            );
        }
        Self { position, message }
    }

    pub(super) fn to_problem(&self) -> Problem {
        let limit =
            self.message.contains("limit exceeded") || self.message.contains(TOO_MANY_NODES);
        let start = Position { line: 1, column: 1 };
        let (code, message) = if limit {
            (
                Code::YamlLimit,
                "aliases expand to too many values, or to themselves".to_owned(),
            )
        } else {
            (Code::YamlSyntax, format!("invalid YAML: {}", self.message))
        };
        Problem::at(self.position.unwrap_or(start), code, message)
    }
}

const TOO_MANY_NODES: &str = "too many values";

pub(super) fn read_values(text: &str) -> Result<Raw, ValueError> {
    struct Document(Raw);
    impl<'de> Deserialize<'de> for Document {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let mut left = NODES_MAX;
            RawReader { left: &mut left }
                .deserialize(deserializer)
                .map(Self)
        }
    }
    Document::deserialize(serde_yaml::Deserializer::from_str(text))
        .map(|document| document.0)
        .map_err(|error| ValueError::new(&error))
}

struct RawReader<'a> {
    left: &'a mut usize,
}

impl RawReader<'_> {
    /// Takes what a value costs from what is left, so that aliases cannot multiply without end.
    fn pay<E: de::Error>(&mut self, cost: usize) -> Result<(), E> {
        *self.left = self
            .left
            .checked_sub(cost)
            .ok_or_else(|| E::custom(TOO_MANY_NODES))?;
        Ok(())
    }

    fn inner(&mut self) -> RawReader<'_> {
        RawReader { left: self.left }
    }
}

impl<'de> DeserializeSeed<'de> for RawReader<'_> {
    type Value = Raw;

    fn deserialize<D: de::Deserializer<'de>>(mut self, deserializer: D) -> Result<Raw, D::Error> {
        self.pay(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RawReader<'_> {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no field takes such a number; it is only shown in a message"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Float(value as f64), Raw::Integer))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no field takes such a number; it is only shown in a message"
    )]
    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Float(value as f64))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "no field takes such a number; it is only shown in a message"
    )]
    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<Raw, E> {
        self.pay(value.len() / 64)?;
        Ok(Raw::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.inner())? {
            items.push(item);
        }
        Ok(Raw::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::with_capacity(8);
        while let Some(key) = access.next_key_seed(self.inner())? {
            entries.push((key, access.next_value_seed(self.inner())?));
        }
        Ok(Raw::Mapping(entries))
    }

    /// A value with a tag of its own; the tag is refused later, where its place is known.
    fn visit_enum<A: EnumAccess<'de>>(mut self, access: A) -> Result<Raw, A::Error> {
        let (_, variant): (de::IgnoredAny, _) = access.variant()?;
        variant.newtype_variant_seed(self.inner())
    }
}
