//! The consumers with their groups and credentials, ready to be looked up.

use http::HeaderValue;
use uuid::Uuid;

use super::references::References;
use crate::{
    config::{Config, Entity, model::JwtSecret},
    entity::{
        Secret,
        consumer::{Consumer, ConsumerGroup, ConsumerIndex, GroupIndex},
        consumers::Consumers,
        credential::{
            BasicCredential, HmacCredential, JwtCredential, JwtVerification, KeyCredential,
            Oauth2Credential, Password,
        },
        public_key,
    },
    state::State,
};

pub(super) fn compile(config: &Config, references: &References, state: &State) -> Consumers {
    let mut consumers = Consumers::default();
    let indexes: Vec<(ConsumerIndex, Uuid)> = config
        .consumers
        .iter()
        .map(|consumer| {
            let fields = &consumer.fields;
            let index = consumers.add(Consumer::new(
                consumer.id,
                fields.username.clone(),
                fields.custom_id.clone(),
                fields.tags.clone(),
            ));
            (index, consumer.id)
        })
        .collect();
    let directory = Directory {
        config,
        references,
        indexes: &indexes,
    };
    directory.add_groups(&mut consumers);
    directory.add_keys(&mut consumers, state.clock.unix_seconds());
    directory.add_passwords(&mut consumers);
    directory.add_tokens(&mut consumers);
    directory.add_signatures(&mut consumers);
    directory.add_applications(&mut consumers);
    directory.add_acl_groups(&mut consumers);
    consumers
}

struct Directory<'a> {
    config: &'a Config,
    references: &'a References,
    /// Each consumer's place in the directory, and its id.
    indexes: &'a [(ConsumerIndex, Uuid)],
}

impl<'a> Directory<'a> {
    /// Each credential of a list with its consumer, if that is known.
    fn owned<T>(
        &self,
        credentials: &'a [Entity<T>],
        owners: &'a [Option<usize>],
    ) -> impl Iterator<Item = (&'a Entity<T>, ConsumerIndex, Uuid)> {
        let indexes = self.indexes;
        credentials
            .iter()
            .zip(owners)
            .filter_map(move |(credential, owner)| {
                let (index, id) = indexes.get((*owner)?)?;
                Some((credential, *index, *id))
            })
    }

    fn add_groups(&self, consumers: &mut Consumers) {
        let groups: Vec<GroupIndex> = self
            .config
            .consumer_groups
            .iter()
            .map(|group| {
                consumers.add_group(ConsumerGroup {
                    id: group.id,
                    name: group.fields.name.clone(),
                })
            })
            .collect();
        let pairs = self.references.memberships.iter();
        consumers.join(pairs.filter_map(|(consumer, group)| {
            let (consumer, _) = self.indexes.get(*consumer)?;
            Some((*consumer, *groups.get(*group)?))
        }));
    }

    fn add_keys(&self, consumers: &mut Consumers, now: i64) {
        let owners = &self.references.key_consumer;
        for (credential, consumer, _) in self.owned(&self.config.keyauth_credentials, owners) {
            let fields = &credential.fields;
            let Some(key) = &fields.key else { continue };
            let expires_at = fields
                .ttl
                .filter(|ttl| *ttl > 0)
                .map(|ttl| fields.created_at.unwrap_or(now) + i64::from(ttl));
            consumers.add_key(
                key.expose(),
                KeyCredential::new(credential.id, consumer, expires_at),
            );
        }
    }

    fn add_passwords(&self, consumers: &mut Consumers) {
        let owners = &self.references.basic_consumer;
        let owned = self.owned(&self.config.basicauth_credentials, owners);
        for (credential, consumer, consumer_id) in owned {
            let text = credential.fields.password.expose();
            let password = if credential.place.is_transformed() {
                Password::plain(text, consumer_id)
            } else if let Some(password) = Password::hashed(text) {
                password
            } else {
                continue;
            };
            let id = credential.id;
            consumers.add_basic(
                credential.fields.username.clone(),
                BasicCredential {
                    id,
                    consumer,
                    password,
                },
            );
        }
    }

    fn add_tokens(&self, consumers: &mut Consumers) {
        let owners = &self.references.jwt_consumer;
        for (credential, consumer, _) in self.owned(&self.config.jwt_secrets, owners) {
            let fields = &credential.fields;
            if let (Some(key), Some(verification)) = (&fields.key, verification(fields)) {
                let id = credential.id;
                consumers.add_jwt(
                    key.clone(),
                    JwtCredential {
                        id,
                        consumer,
                        key_header: HeaderValue::from_bytes(key.as_bytes()).ok(),
                        algorithm: fields.algorithm,
                        verification,
                    },
                );
            }
        }
    }

    fn add_signatures(&self, consumers: &mut Consumers) {
        let owners = &self.references.hmac_consumer;
        for (credential, consumer, _) in self.owned(&self.config.hmacauth_credentials, owners) {
            if let Some(secret) = &credential.fields.secret {
                let (id, secret) = (credential.id, secret.clone());
                consumers.add_hmac(
                    credential.fields.username.clone(),
                    HmacCredential {
                        id,
                        consumer,
                        secret,
                    },
                );
            }
        }
    }

    fn add_applications(&self, consumers: &mut Consumers) {
        let owners = &self.references.oauth2_consumer;
        for (credential, consumer, _) in self.owned(&self.config.oauth2_credentials, owners) {
            let fields = &credential.fields;
            if let Some(client_id) = &fields.client_id {
                consumers.add_oauth2(
                    client_id.clone(),
                    Oauth2Credential {
                        id: credential.id,
                        consumer,
                        name: fields.name.clone(),
                        client_secret: fields.client_secret.clone(),
                        hash_secret: fields.hash_secret,
                        redirect_uris: fields.redirect_uris.clone(),
                        client_type: fields.client_type,
                    },
                );
            }
        }
    }

    fn add_acl_groups(&self, consumers: &mut Consumers) {
        let owners = &self.references.acl_consumer;
        for (acl, consumer, _) in self.owned(&self.config.acls, owners) {
            consumers.add_acl_group(consumer, acl.fields.group.clone());
        }
    }
}

fn verification(fields: &JwtSecret) -> Option<JwtVerification> {
    if fields.algorithm.is_symmetric() {
        let secret: &Secret<String> = fields.secret.as_ref()?;
        return Some(JwtVerification::Secret(secret.clone()));
    }
    let key = public_key::parse(fields.rsa_public_key.as_ref()?).ok()?;
    Some(JwtVerification::PublicKey(key))
}
