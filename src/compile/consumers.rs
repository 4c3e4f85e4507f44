//! The consumers and their credentials, ready to be looked up.

use super::references::References;
use crate::{
    config::Config,
    entity::consumer::{Consumer, Consumers, KeyCredential},
    state::State,
};

pub(super) fn compile(config: &Config, references: &References, state: &State) -> Consumers {
    let mut consumers = Consumers::default();
    let indexes: Vec<_> = config
        .consumers
        .iter()
        .map(|consumer| {
            let fields = &consumer.fields;
            consumers.add(Consumer::new(
                consumer.id,
                fields.username.clone(),
                fields.custom_id.clone(),
                fields.tags.clone(),
            ))
        })
        .collect();
    let now = state.clock.unix_seconds();
    for (credential, consumer) in config
        .keyauth_credentials
        .iter()
        .zip(&references.credential_consumer)
    {
        let fields = &credential.fields;
        let (Some(key), Some(consumer)) =
            (&fields.key, consumer.and_then(|index| indexes.get(index)))
        else {
            continue;
        };
        let expires_at = fields
            .ttl
            .filter(|ttl| *ttl > 0)
            .map(|ttl| fields.created_at.unwrap_or(now) + i64::from(ttl));
        consumers.add_key(
            key.expose(),
            KeyCredential::new(credential.id, *consumer, expires_at),
        );
    }
    consumers
}
