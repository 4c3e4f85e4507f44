//! Values from the environment in the place of whole strings: `{vault://env/NAME}`, and `{vault://PREFIX/NAME}` for the
//! entries of `vaults`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::environment::Environment;
use super::model::EntityKind;
use super::node::{Kind, Node};

/// The vault that is always there: the environment as it is.
pub(super) const ENVIRONMENT: &str = "env";

/// The vaults of a configuration.
pub(super) struct Vaults<'a> {
    environment: Environment<'a>,
    declared: HashMap<String, Declared>,
}

/// An entry of `vaults`, as far as it says how a variable is found.
#[derive(Debug, Clone, Default)]
struct Declared {
    prefix: String,
    base64: bool,
}

impl<'a> Vaults<'a> {
    /// The vaults of all documents. Mistakes in them are found later, when they are read like any other entity.
    pub(super) fn of<'d>(
        documents: impl Iterator<Item = &'d Node>,
        environment: Environment<'a>,
    ) -> Self {
        let lists = documents.filter_map(|document| document.get(EntityKind::Vault.list()));
        let declared = lists.flat_map(Node::items).filter_map(|vault| {
            let name = vault.get("prefix")?.as_str()?;
            let config = vault.get("config");
            let field = |name: &str| config.and_then(|config| config.get(name));
            let prefix = field("prefix").and_then(Node::as_str).unwrap_or_default();
            let base64 = field("base64_decode").map(|value| &value.kind);
            let declared = Declared {
                prefix: prefix.to_owned(),
                base64: matches!(base64, Some(Kind::Bool(true))),
            };
            Some((name.to_owned(), declared))
        });
        Self {
            environment,
            declared: declared.collect(),
        }
    }

    /// The value that a string stands for; `None` if it is no reference.
    ///
    /// The error names the variable, never what it holds.
    pub(super) fn open(&self, text: &str) -> Option<Result<String, String>> {
        let reference = text.strip_prefix("{vault://")?.strip_suffix('}')?;
        Some(self.resolve(reference))
    }

    fn resolve(&self, reference: &str) -> Result<String, String> {
        let mut parts = reference.splitn(3, '/');
        let (vault, name, field) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
            parts.next().filter(|field| !field.is_empty()),
        );
        let declared = match self.declared.get(vault) {
            Some(declared) => declared.clone(),
            None if vault == ENVIRONMENT => Declared::default(),
            None => {
                return Err(format!(
                    "vault `{vault}` is not known; declare it under `vaults` with `name: env`, or write `{{vault://env/NAME}}`"
                ));
            }
        };
        if name.is_empty() {
            return Err(format!(
                "the name of an environment variable is missing in `{{vault://{vault}/NAME}}`"
            ));
        }
        let variable = format!("{}{name}", declared.prefix)
            .to_uppercase()
            .replace('-', "_");
        let mut value = (self.environment)(&variable)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("environment variable `{variable}` is not set or empty"))?;
        if declared.base64 {
            value = decode(&value).ok_or_else(|| {
                format!("environment variable `{variable}` does not hold base64 of a text")
            })?;
        }
        match field {
            Some(field) => member(&value, &variable, field),
            None => Ok(value),
        }
    }
}

fn decode(value: &str) -> Option<String> {
    let bytes = STANDARD.decode(value.trim()).ok()?;
    String::from_utf8(bytes).ok()
}

/// A member of the JSON object that a variable holds.
fn member(value: &str, variable: &str, field: &str) -> Result<String, String> {
    let object: Value = serde_json::from_str(value)
        .map_err(|_| format!("environment variable `{variable}` does not hold a JSON object"))?;
    match object.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        _ => Err(format!(
            "the JSON object in environment variable `{variable}` has no string `{field}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Diagnostics;
    use crate::config::yaml::{self, Unchanged};

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "MY_SECRET" => "s3cret",
            "MY_JSON" => "{\"user\": \"u\", \"n\": 5}",
            "SECURE_PG_PASSWORD" => "pg",
            "ENCODED" => "cGxhaW4=",
            "BROKEN" => "%%%",
            "EMPTY" => "",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn open(text: &str) -> Option<Result<String, String>> {
        let document = "vaults:\n- {prefix: my-env, name: env, config: {prefix: SECURE_}}\n- {prefix: b64, name: env, config: {base64_decode: true}}\n";
        let mut diagnostics = Diagnostics::default();
        let file = diagnostics.add_file("f");
        let root = yaml::parse(document, file, &Unchanged, &mut diagnostics).unwrap();
        Vaults::of(std::iter::once(&root), &environment).open(text)
    }

    #[test]
    fn references_stand_for_variables() {
        for (text, value) in [
            ("{vault://env/my-secret}", "s3cret"),
            ("{vault://env/my-json/user}", "u"),
            ("{vault://env/my-json/n}", "5"),
            ("{vault://my-env/pg-password}", "pg"),
            ("{vault://b64/encoded}", "plain"),
        ] {
            assert_eq!(open(text), Some(Ok(value.to_owned())), "{text}");
        }
    }

    #[test]
    fn only_whole_strings_are_references() {
        for text in [
            "plain",
            "x{vault://env/my-secret}",
            "{vault://env/my-secret} ",
        ] {
            assert_eq!(open(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named_without_being_shown() {
        for (text, complaint) in [
            ("{vault://env/nope}", "`NOPE` is not set"),
            ("{vault://env/empty}", "`EMPTY` is not set or empty"),
            ("{vault://env/}", "missing in `{vault://env/NAME}`"),
            ("{vault://hcv/x}", "vault `hcv` is not known"),
            ("{vault://env/my-json/x}", "has no string `x`"),
            ("{vault://env/my-secret/x}", "does not hold a JSON object"),
            ("{vault://b64/broken}", "does not hold base64"),
            ("{vault://my-env/nope}", "`SECURE_NOPE` is not set"),
        ] {
            let found = open(text).unwrap().unwrap_err();
            assert!(found.contains(complaint), "{text}: {found}");
            assert!(!found.contains("s3cret"), "{text}: {found}");
        }
    }
}
