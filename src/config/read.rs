//! From a value tree to typed values: a `serde::Deserializer` over [`Node`].
//!
//! It is lenient where `check` has already spoken: unknown fields are skipped, and so is a `null` where a record wants
//! a field, which then keeps its default. What a type itself refuses becomes an error at the place of the value.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::diagnostics::Span;
use super::node::{Entry, Kind, Node};

/// Why a value could not be read, and where.
#[derive(Debug, Clone)]
pub struct ReadError {
    /// The innermost value that was being read.
    pub span: Option<Span>,
    /// Its path relative to where reading began, such as `redis.port` or `names[2]`.
    pub path: String,
    pub message: String,
    /// The value must not be shown, so the message was replaced.
    secret: bool,
}

impl ReadError {
    fn within(mut self, node: &Node, step: &str) -> Self {
        if self.span.is_none() {
            self.span = Some(node.span);
            self.secret = node.secret;
        }
        if !self.path.is_empty() && !self.path.starts_with('[') && !step.is_empty() {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, step);
        self
    }
}

impl ReadError {
    /// The field of the outermost record in which the mistake is.
    pub fn field(&self) -> Option<String> {
        self.path
            .split(['.', '['])
            .next()
            .filter(|field| !field.is_empty())
            .map(str::to_owned)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.secret {
            "the secret value does not fit"
        } else {
            &self.message
        })
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            span: None,
            path: String::new(),
            message: message.to_string(),
            secret: false,
        }
    }
}

/// Reads a typed value. Check the node against the type's shape first: this stops at the first mistake.
pub fn read<T: DeserializeOwned>(node: &Node) -> Result<T, ReadError> {
    T::deserialize(Reader { node, skip: &[] }).map_err(|error| error.within(node, ""))
}

/// A deserializer over a node, for types that only others know.
pub fn reader(node: &Node) -> impl de::Deserializer<'_, Error = ReadError> {
    Reader::inner(node)
}

/// Reads a record but leaves out the fields `skip`, which then have their defaults.
///
/// So an entity with a mistake can still take part in the checks that follow.
pub fn read_without<T: DeserializeOwned>(node: &Node, skip: &[String]) -> Result<T, ReadError> {
    T::deserialize(Reader { node, skip }).map_err(|error| error.within(node, ""))
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    /// Fields of the outermost record to pass over.
    skip: &'a [String],
}

impl<'a> Reader<'a> {
    const fn inner(node: &'a Node) -> Self {
        Self { node, skip: &[] }
    }

    fn records(self, fields: Option<&'static [&'static str]>) -> Records<'a> {
        Records {
            entries: self.node.entries().iter(),
            skip: self.skip,
            fields,
            entry: None,
        }
    }
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::String(text) => visitor.visit_str(text),
            Kind::Sequence(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
            }),
            Kind::Mapping(_) => visitor.visit_map(self.records(None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Mapping(_) => visitor.visit_map(self.records(Some(fields))),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Kind::Mapping(_) => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(self.records(None)))
            }
            _ => Err(de::Error::custom(format_args!(
                "expected a string, found {}",
                self.node.described()
            ))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, ReadError> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        self.items
            .next()
            .map(|(index, node)| {
                seed.deserialize(Reader::inner(node))
                    .map_err(|error| error.within(node, &format!("[{index}]")))
            })
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Records<'a> {
    entries: std::slice::Iter<'a, Entry>,
    skip: &'a [String],
    /// The fields of a struct; `None` for a map, whose entries are all wanted.
    fields: Option<&'static [&'static str]>,
    entry: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Records<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let wanted = |entry: &&Entry| {
            !self.skip.contains(&entry.key)
                && self.fields.is_none_or(|fields| {
                    !entry.value.is_null() && fields.contains(&entry.key.as_str())
                })
        };
        self.entry = self.entries.by_ref().find(wanted);
        self.entry
            .map(|entry| {
                let key: StrDeserializer<'_, ReadError> = entry.key.as_str().into_deserializer();
                seed.deserialize(key).map_err(|mut error| {
                    error.span = error.span.or(Some(entry.key_span));
                    error
                })
            })
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let entry = self
            .entry
            .take()
            .ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Reader::inner(&entry.value))
            .map_err(|error| error.within(&entry.value, &entry.key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::config::diagnostics::Diagnostics;
    use crate::config::yaml::{self, Unchanged};

    fn node(text: &str) -> Node {
        yaml::parse(text, 0, &Unchanged, &mut Diagnostics::default()).unwrap()
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Choice {
        OneThing,
        Other,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        number: u16,
        names: Vec<String>,
        choice: Choice,
        maybe: Option<f64>,
        map: BTreeMap<String, Vec<String>>,
        any: serde_json::Value,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                number: 3,
                names: vec!["x".into()],
                choice: Choice::Other,
                maybe: None,
                map: BTreeMap::new(),
                any: serde_json::Value::Null,
            }
        }
    }

    #[test]
    fn a_record_is_read_with_its_defaults() {
        let config: Config =
            read(&node("number: 7\nnames: null\nchoice: one-thing\nmaybe: 2\nmap: {a: [b]}\nany: {k: [1, null]}\n"))
                .unwrap();
        assert_eq!(config.number, 7);
        assert_eq!(config.names, ["x"], "null means absent");
        assert_eq!(config.choice, Choice::OneThing);
        assert_eq!(config.maybe, Some(2.0));
        assert_eq!(config.any, serde_json::json!({"k": [1, null]}));
    }

    #[test]
    fn unknown_and_skipped_fields_are_passed_over() {
        let config: Config = read_without(
            &node("number: wrong\nother: 1\nmaybe: 1.5\n"),
            &["number".into()],
        )
        .unwrap();
        assert_eq!((config.number, config.maybe), (3, Some(1.5)));
    }

    #[test]
    fn a_mistake_has_the_place_of_its_value() {
        let error = read::<Config>(&node("map:\n  a:\n    - b\n    - 5\n")).unwrap_err();
        assert_eq!(error.path, "map.a[1]");
        assert_eq!(error.span.unwrap().line, 4);
    }

    #[test]
    fn a_secret_is_not_shown_by_the_mistake() {
        let mut document = node("number: hunter2\n");
        document.get_mut("number").unwrap().secret = true;
        assert!(
            !read::<Config>(&document)
                .unwrap_err()
                .to_string()
                .contains("hunter2")
        );
    }

    #[test]
    fn a_float_is_not_an_integer() {
        assert!(read::<Config>(&node("number: 1.5\n")).is_err());
    }
}
