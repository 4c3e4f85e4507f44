//! The keys and key sets, ready to be looked up.

use super::references::References;
use crate::{
    config::Config,
    entity::key::{Key, KeyMaterial, Keys},
};

pub(super) fn compile(config: &Config, references: &References) -> Keys {
    let mut keys = Keys::default();
    let sets: Vec<usize> = config
        .key_sets
        .iter()
        .map(|set| keys.add_set(set.id, set.fields.name.as_deref()))
        .collect();
    for (key, set) in config.keys.iter().zip(&references.key_set) {
        let fields = &key.fields;
        let material = match (&fields.jwk, &fields.pem) {
            (Some(jwk), _) => KeyMaterial::Jwk(jwk.clone()),
            (None, Some(pem)) => KeyMaterial::Pem {
                public: pem.public_key.clone(),
                private: pem.private_key.clone(),
            },
            (None, None) => continue,
        };
        let set = set.and_then(|index| sets.get(index).copied());
        keys.add(
            set,
            Key {
                id: key.id,
                kid: fields.kid.clone(),
                material,
            },
        );
    }
    keys
}
