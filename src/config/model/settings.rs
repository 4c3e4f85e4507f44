//! The types of the `gateway:` settings: Kong's notations (comma lists, `on`/`off`, `10m`) made into values that cannot
//! be misread. Addresses to listen on are in `listen.rs`, what concerns TLS is in `tls.rs`.

mod clients;
mod logs;
mod tokens;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::dns::{DnsRecords, DnsServer};
use super::listen::{ListenEntry, StreamListenEntry};
use super::tls::{DhParameters, TlsVersions, TrustedCertificates};
use crate::config::formats::{Format, comma_items};

pub use clients::{HeaderBuffers, PortMap, RealIpHeader, TrustedNetwork};
pub use logs::{AccessLog, ErrorLog};
pub use tokens::{RequestToken, ResponseHeaders, ResponseToken};

/// A value that is written as one string.
pub trait Written: FromStr<Err = String> {
    /// The name of its rule among the formats.
    const FORMAT: &'static str;
}

/// The rules of the types that settings have.
const FORMATS: &[Format] = &[
    Format {
        name: ListenEntry::FORMAT,
        validate: rule::<ListenEntry>,
    },
    Format {
        name: TrustedNetwork::FORMAT,
        validate: rule::<TrustedNetwork>,
    },
    Format {
        name: StreamListenEntry::FORMAT,
        validate: rule::<StreamListenEntry>,
    },
    Format {
        name: TrustedCertificates::FORMAT,
        validate: rule::<TrustedCertificates>,
    },
    Format {
        name: Size::FORMAT,
        validate: rule::<Size>,
    },
    Format {
        name: Seconds::FORMAT,
        validate: rule::<Seconds>,
    },
    Format {
        name: RealIpHeader::FORMAT,
        validate: rule::<RealIpHeader>,
    },
    Format {
        name: HeaderBuffers::FORMAT,
        validate: rule::<HeaderBuffers>,
    },
    Format {
        name: ResponseToken::FORMAT,
        validate: rule::<ResponseToken>,
    },
    Format {
        name: RequestToken::FORMAT,
        validate: rule::<RequestToken>,
    },
    Format {
        name: PortMap::FORMAT,
        validate: rule::<PortMap>,
    },
    Format {
        name: PluginName::FORMAT,
        validate: rule::<PluginName>,
    },
    Format {
        name: Threads::FORMAT,
        validate: rule::<Threads>,
    },
    Format {
        name: ErrorLog::FORMAT,
        validate: rule::<ErrorLog>,
    },
    Format {
        name: AccessLog::FORMAT,
        validate: rule::<AccessLog>,
    },
    Format {
        name: FilePath::FORMAT,
        validate: rule::<FilePath>,
    },
    Format {
        name: TlsVersions::FORMAT,
        validate: rule::<TlsVersions>,
    },
    Format {
        name: DhParameters::FORMAT,
        validate: rule::<DhParameters>,
    },
    Format {
        name: DnsServer::FORMAT,
        validate: rule::<DnsServer>,
    },
    Format {
        name: DnsRecords::FORMAT,
        validate: rule::<DnsRecords>,
    },
];

fn rule<T: Written>(value: &str) -> Result<(), String> {
    value.parse::<T>().map(drop)
}

/// The rule of one of these types by the name of its format.
pub fn find_format(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// A list that may also be written as one string with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Written> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Written> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list, or a string with commas")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<List<T>, E> {
        comma_items(value)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(List)
            .map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<List<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Cow<'_, str>>()? {
            items.push(item.parse().map_err(de::Error::custom)?);
        }
        Ok(List(items))
    }
}

impl<T: Written> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_{}", T::FORMAT).into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["array", "string"],
            "items": {"type": "string", "format": T::FORMAT},
            "x-comma-list": true,
        })
    }
}

/// Implements reading and the schema of a type that is a string, or one that is a string or a number.
macro_rules! written {
    ($name:ident, $format:literal, $types:tt $(, $number:ty)?) => {
        impl $crate::config::model::settings::Written for $name {
            const FORMAT: &'static str = $format;
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl ::serde::de::Visitor<'_> for Reader {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        formatter.write_str($format)
                    }

                    fn visit_str<E: ::serde::de::Error>(self, value: &str) -> Result<$name, E> {
                        value.parse().map_err(E::custom)
                    }

                    $(
                        fn visit_u64<E: ::serde::de::Error>(self, value: $number) -> Result<$name, E> {
                            $name::try_from(value).map_err(E::custom)
                        }

                        fn visit_f64<E: ::serde::de::Error>(self, value: f64) -> Result<$name, E> {
                            value.to_string().parse().map_err(E::custom)
                        }
                    )?
                }
                deserializer.deserialize_any(Reader)
            }
        }

        impl ::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                $format.into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({"type": $types, "minimum": 0, "format": $format})
            }
        }
    };
}
pub(super) use written;

/// `on`/`off` or true/false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Switch(pub bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Plain(bool),
            Word(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Plain(value) => Ok(Self(value)),
            Either::Word(word) => Ok(Self(word == "on")),
        }
    }
}

impl JsonSchema for Switch {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["boolean", "string"], "enum": [true, false, "on", "off"]})
    }
}

/// A number of bytes: an integer, or a string such as `8k`, `10m`, `1g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Size(pub u64);

written!(Size, "size", ["integer", "string"], u64);

impl TryFrom<u64> for Size {
    type Error = String;

    fn try_from(bytes: u64) -> Result<Self, String> {
        Ok(Self(bytes))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let (digits, factor) = ['k', 'm', 'g']
            .into_iter()
            .zip([1_u64 << 10, 1 << 20, 1 << 30])
            .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, factor)))
            .unwrap_or((&lower, 1));
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a size: write bytes, or a number with k, m or g such as `10m`"
                )
            })
    }
}

/// A duration: a number of seconds, or a string with a unit such as `75s`, `500ms`, `5m`, `1h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Seconds(pub Duration);

written!(Seconds, "seconds", ["number", "string"], u64);

impl TryFrom<u64> for Seconds {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [
            ("ms", 0.001),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
            ("d", 86_400.0),
        ];
        let lower = text.trim().to_ascii_lowercase();
        let (digits, factor) = units
            .into_iter()
            .find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, factor)))
            .unwrap_or((&lower, 1.0));
        let number: Option<f64> = digits.parse().ok().filter(|number: &f64| *number >= 0.0);
        number
            .and_then(|number| Duration::try_from_secs_f64(number * factor).ok())
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a duration: write seconds, or a number with ms, s, m, h or d"
                )
            })
    }
}

/// How many threads serve requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Threads {
    /// One per core.
    #[default]
    Auto,
    Count(NonZeroUsize),
}

written!(Threads, "threads", ["integer", "string"], u64);

impl TryFrom<u64> for Threads {
    type Error = String;

    fn try_from(value: u64) -> Result<Self, String> {
        usize::try_from(value)
            .ok()
            .filter(|&count| count <= 1024)
            .and_then(NonZeroUsize::new)
            .map(Self::Count)
            .ok_or_else(|| format!("must be `auto` or between 1 and 1024, found `{value}`"))
    }
}

impl FromStr for Threads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => Err(format!(
                "must be `auto` or an integer between 1 and 1024, found `{text}`"
            )),
        }
    }
}

/// The path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub String);

written!(FilePath, "file-path", "string");

impl FromStr for FilePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("-----BEGIN") {
            return Err(
                "is the certificate or key itself: put it into a file and write its path".into(),
            );
        }
        if text.is_empty() || text.contains(char::is_control) {
            return Err(format!("{text:?} is not a path"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A plugin that may be configured, or `bundled` for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginName {
    Bundled,
    Off,
    Named(String),
}

impl Written for PluginName {
    const FORMAT: &'static str = "plugin-name";
}

impl FromStr for PluginName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "bundled" => Self::Bundled,
            "off" => Self::Off,
            _ => Self::Named(text.to_owned()),
        })
    }
}

impl List<PluginName> {
    /// Whether a plugin of this name may be configured.
    pub fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|entry| match entry {
            PluginName::Bundled => true,
            PluginName::Off => false,
            PluginName::Named(named) => named == name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!("8k".parse(), Ok(Size(8192)));
        assert_eq!("10M".parse(), Ok(Size(10 << 20)));
        assert_eq!("512".parse(), Ok(Size(512)));
        assert!("10mb".parse::<Size>().is_err() && "-1".parse::<Size>().is_err());
        assert_eq!("75s".parse(), Ok(Seconds(Duration::from_secs(75))));
        assert_eq!("500ms".parse(), Ok(Seconds(Duration::from_millis(500))));
        assert_eq!("1.5".parse(), Ok(Seconds(Duration::from_millis(1500))));
        assert!(
            "x".parse::<Seconds>().is_err()
                && "-1".parse::<Seconds>().is_err()
                && "inf".parse::<Seconds>().is_err()
        );
    }

    #[test]
    fn a_key_in_the_place_of_its_path_is_not_shown() {
        let error = "-----BEGIN PRIVATE KEY-----abc"
            .parse::<FilePath>()
            .unwrap_err();
        assert!(!error.contains("abc"), "{error}");
    }

    #[test]
    fn plugins_are_allowed_by_name_or_bundle() {
        let list: List<PluginName> = List(vec![PluginName::Named("cors".into())]);
        assert!(list.allows("cors") && !list.allows("jwt"));
        assert!(List(vec![PluginName::Bundled]).allows("jwt"));
    }
}
