//! The keys and key sets of a configuration as plugins may read them: an immutable directory built by `compile`, and
//! what a key must look like. Nothing is signed or encrypted here.

use std::collections::HashMap;

use openssl::pkey::PKey;
use serde_json::Value;
use uuid::Uuid;

use super::{Secret, public_key};

/// A key for signing or encryption.
#[derive(Debug, Clone)]
pub struct Key {
    pub id: Uuid,
    /// What messages name the key by.
    pub kid: String,
    pub material: KeyMaterial,
}

/// A key as it is written.
#[derive(Debug, Clone)]
pub enum KeyMaterial {
    /// A JSON Web Key.
    Jwk(Secret<String>),
    /// PEM; at least one of both is there.
    Pem {
        public: Option<String>,
        private: Option<Secret<String>>,
    },
}

/// All keys by the sets that they are in.
#[derive(Debug, Default)]
pub struct Keys {
    sets: Vec<HashMap<String, Key>>,
    by_name: HashMap<String, usize>,
    alone: HashMap<String, Key>,
}

impl Keys {
    /// Adds a set, and gives its place.
    pub fn add_set(&mut self, id: Uuid, name: Option<&str>) -> usize {
        let place = self.sets.len();
        self.sets.push(HashMap::new());
        self.by_name.insert(id.to_string(), place);
        if let Some(name) = name {
            self.by_name.entry(name.to_owned()).or_insert(place);
        }
        place
    }

    /// Adds a key to the set at a place, or to none.
    pub fn add(&mut self, set: Option<usize>, key: Key) {
        let keys = match set {
            Some(place) => self.sets.get_mut(place),
            None => Some(&mut self.alone),
        };
        if let Some(keys) = keys {
            keys.insert(key.kid.clone(), key);
        }
    }

    /// The key `kid` of the set with an id or a name.
    pub fn find(&self, set: &str, kid: &str) -> Option<&Key> {
        self.sets.get(*self.by_name.get(set)?)?.get(kid)
    }

    /// The key `kid` that is in no set.
    pub fn find_alone(&self, kid: &str) -> Option<&Key> {
        self.alone.get(kid)
    }
}

/// Whether a text is a JSON Web Key that calls itself `kid`.
///
/// # Errors
/// A sentence for the operator that shows nothing of the key.
pub fn check_jwk(jwk: &str, kid: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(jwk).unwrap_or_default();
    let Value::Object(members) = value else {
        return Err(
            "could not json decode jwk string: write a JSON object as one string".to_owned(),
        );
    };
    let text = |member: &str| members.get(member).and_then(Value::as_str);
    if text("kid") != Some(kid) {
        return Err("kid in jwk.kid must be equal to keys.kid".to_owned());
    }
    let required: &[&str] = match text("kty") {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["crv", "x", "y"],
        Some("OKP") => &["crv", "x"],
        Some("oct") => &["k"],
        _ => return Err("a jwk needs the member `kty`: RSA, EC, OKP or oct".to_owned()),
    };
    match required.iter().find(|member| text(member).is_none()) {
        Some(member) => Err(format!("a jwk of this `kty` needs the member `{member}`")),
        None => Ok(()),
    }
}

/// Whether two texts are the halves of a key.
///
/// # Errors
/// The field below `pem` (empty for the whole) and a sentence for the operator that shows nothing of the key.
pub fn check_pem(
    public: Option<&str>,
    private: Option<&str>,
) -> Result<(), (&'static str, String)> {
    if public.is_none() && private.is_none() {
        let message = "need to supply a PEM formatted public and/or private key";
        return Err(("", message.to_owned()));
    }
    let public = public.map(public_key::parse).transpose();
    let public = public.map_err(|complaint| (".public_key", complaint))?;
    let Some(private) = private else {
        return Ok(());
    };
    let private = PKey::private_key_from_pem_passphrase(private.as_bytes(), b"").map_err(|_| {
        let message = "invalid key: this is no PEM of a private key without a passphrase";
        (".private_key", message.to_owned())
    })?;
    match public {
        Some(public) if !public.public_eq(&private) => Err((
            ".private_key",
            "this is not the private key of `public_key`".to_owned(),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::public_key::samples;

    fn key(kid: &str) -> Key {
        Key {
            id: Uuid::from_u128(1),
            kid: kid.to_owned(),
            material: KeyMaterial::Jwk(Secret::new("{}".to_owned())),
        }
    }

    #[test]
    fn keys_are_found_in_their_sets() {
        let mut keys = Keys::default();
        let set = keys.add_set(Uuid::from_u128(7), Some("signing"));
        keys.add(Some(set), key("a"));
        keys.add(None, key("b"));

        assert!(keys.find("signing", "a").is_some());
        assert!(keys.find(&Uuid::from_u128(7).to_string(), "a").is_some());
        assert!(keys.find("signing", "b").is_none());
        assert!(keys.find_alone("b").is_some());
        assert!(keys.find_alone("a").is_none());
        assert!(!format!("{keys:?}").contains("{}\""));
    }

    #[test]
    fn a_jwk_is_json_with_its_own_kid_and_what_its_type_needs() {
        let check = |jwk: &str| check_jwk(jwk, "k1");
        assert_eq!(check(r#"{"kid": "k1", "kty": "oct", "k": "AAAA"}"#), Ok(()));
        for (jwk, complaint) in [
            ("nonsense", "json decode"),
            ("[]", "json decode"),
            (
                r#"{"kid": "k2", "kty": "oct", "k": "AAAA"}"#,
                "must be equal",
            ),
            (r#"{"kid": "k1"}"#, "`kty`"),
            (r#"{"kid": "k1", "kty": "RSA", "n": "AAAA"}"#, "`e`"),
        ] {
            let found = check(jwk).unwrap_err();
            assert!(found.contains(complaint), "{jwk}: {found}");
        }
    }

    #[test]
    fn the_halves_of_a_pem_belong_together() {
        let (one, other) = (samples::rsa(2048), samples::rsa(2048));
        let (public, private) = (samples::public_pem(&one), samples::private_pem(&one));
        assert_eq!(check_pem(Some(&public), Some(&private)), Ok(()));
        assert_eq!(check_pem(None, Some(&private)), Ok(()));
        assert_eq!(check_pem(Some(&public), None), Ok(()));
        let field = |public: Option<&str>, private: Option<&str>| {
            check_pem(public, private).map_err(|(field, _)| field)
        };
        let other = samples::private_pem(&other);
        assert_eq!(field(None, None), Err(""));
        assert_eq!(field(Some("x"), None), Err(".public_key"));
        assert_eq!(field(None, Some("x")), Err(".private_key"));
        assert_eq!(field(Some(&public), Some(&other)), Err(".private_key"));
    }
}
