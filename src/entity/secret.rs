//! A value that must not be shown: keys, passwords, tokens.
//! It keeps a value out of logs, messages and `Debug` output; it does not protect memory.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What the secrets that this process makes up depend on, so that nobody can guess them.
static SEED: LazyLock<[Uuid; 2]> = LazyLock::new(|| [Uuid::new_v4(), Uuid::new_v4()]);

/// A secret value. `Debug` and `Display` print `***`; [`Secret::expose`] is the only way in.
///
/// In a configuration type it also marks its field: diagnostics never print what was found there.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for comparing, hashing or sending; never for showing.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Secret<String> {
    /// A secret of 32 hex digits that nobody knows: the same for the same `place` as long as the process lives.
    pub fn generated(place: &str) -> Self {
        let mut hasher = Sha256::new();
        for seed in &*SEED {
            hasher.update(seed.as_bytes());
        }
        hasher.update(place.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let (half, _) = digest.split_at(16);
        let half: [u8; 16] = half.try_into().expect("half of 32 bytes are 16");
        Self(Uuid::from_bytes(half).simple().to_string())
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for Secret<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Secret_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        schema.insert("x-secret".to_owned(), true.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_generated_secret_depends_on_its_place_alone() {
        let secret = Secret::generated("a");
        assert_eq!(secret.expose().len(), 32);
        assert_eq!(secret, Secret::generated("a"));
        assert_ne!(secret, Secret::generated("b"));
    }

    #[test]
    fn a_secret_marks_its_field_in_the_schema() {
        let schema = schemars::schema_for!(Secret<String>);
        assert_eq!(schema.get("x-secret"), Some(&true.into()));
    }
}
