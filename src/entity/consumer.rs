//! Consumers and their credentials as one request sees them: an immutable directory built by
//! `compile` and searched by authentication plugins.

use std::collections::HashMap;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The place of a consumer in a [`Consumers`] directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerIndex(pub u32);

/// A consumer: somebody who uses the APIs behind the gateway.
///
/// At least one of `username` and `custom_id` is there. The `*_header` fields hold the same texts
/// ready to be sent upstream, so that no request formats them again.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub id: Uuid,
    pub username: Option<String>,
    pub custom_id: Option<String>,
    pub tags: Vec<String>,
    pub id_header: HeaderValue,
    pub username_header: Option<HeaderValue>,
    pub custom_id_header: Option<HeaderValue>,
}

impl Consumer {
    /// Builds a consumer. Control characters in the names were refused by the configuration check;
    /// a name that is no header value all the same is simply not sent upstream.
    pub fn new(
        id: Uuid,
        username: Option<String>,
        custom_id: Option<String>,
        tags: Vec<String>,
    ) -> Self {
        let header = |text: &Option<String>| {
            text.as_ref()
                .and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok())
        };
        Self {
            id,
            id_header: uuid_header(id),
            username_header: header(&username),
            custom_id_header: header(&custom_id),
            username,
            custom_id,
            tags,
        }
    }

    /// The name for logs and metrics: `username`, else `custom_id`, else the id.
    pub fn label(&self) -> String {
        self.username
            .clone()
            .or_else(|| self.custom_id.clone())
            .unwrap_or_else(|| self.id.to_string())
    }
}

/// One key of a consumer for `key-auth`.
#[derive(Debug, Clone)]
pub struct KeyCredential {
    pub id: Uuid,
    pub id_header: HeaderValue,
    pub consumer: ConsumerIndex,
    /// Unix seconds after which the key is unknown; absent = never.
    pub expires_at: Option<i64>,
}

impl KeyCredential {
    pub fn new(id: Uuid, consumer: ConsumerIndex, expires_at: Option<i64>) -> Self {
        Self {
            id,
            id_header: uuid_header(id),
            consumer,
            expires_at,
        }
    }
}

/// All consumers with the indexes that authentication needs.
#[derive(Debug, Default)]
pub struct Consumers {
    list: Vec<Consumer>,
    by_name: HashMap<String, ConsumerIndex>,
    /// By SHA-256 of the key: what is looked up is a digest of fixed length, so that neither the
    /// time of a look-up nor a dump of the table tells anything about a key.
    keys: HashMap<[u8; 32], KeyCredential, ahash::RandomState>,
}

impl Consumers {
    /// Adds a consumer and returns its place.
    pub fn add(&mut self, consumer: Consumer) -> ConsumerIndex {
        let index = ConsumerIndex(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.by_name.insert(consumer.id.to_string(), index);
        if let Some(username) = &consumer.username {
            self.by_name.entry(username.clone()).or_insert(index);
        }
        self.list.push(consumer);
        index
    }

    /// Adds a key. The key itself is not kept.
    pub fn add_key(&mut self, key: &str, credential: KeyCredential) {
        self.keys.insert(digest(key.as_bytes()), credential);
    }

    /// The consumer at `index`; `None` only for an index of another directory.
    pub fn get(&self, index: ConsumerIndex) -> Option<&Consumer> {
        self.list.get(index.0 as usize)
    }

    /// Finds a consumer by its id or username (Kong's `anonymous` knows no other name).
    pub fn find(&self, id_or_username: &str) -> Option<ConsumerIndex> {
        self.by_name.get(id_or_username).copied()
    }

    /// Finds the credential of an API key that is not expired. `now_seconds` tells the Unix time,
    /// and is asked only for a key that expires at all.
    pub fn find_key(
        &self,
        key: &[u8],
        now_seconds: impl FnOnce() -> i64,
    ) -> Option<&KeyCredential> {
        self.keys
            .get(&digest(key))
            .filter(|credential| credential.expires_at.is_none_or(|end| now_seconds() < end))
    }

    /// All consumers in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.list.iter()
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn uuid_header(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).expect("a UUID is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Consumers {
        let mut consumers = Consumers::default();
        let bob = consumers.add(Consumer::new(
            Uuid::from_u128(1),
            Some("bob".into()),
            None,
            vec![],
        ));
        consumers.add_key("secret", KeyCredential::new(Uuid::from_u128(2), bob, None));
        consumers.add_key(
            "old",
            KeyCredential::new(Uuid::from_u128(3), bob, Some(100)),
        );
        consumers
    }

    #[test]
    fn a_key_is_found_until_it_expires() {
        let consumers = directory();
        assert!(consumers.find_key(b"secret", || 1_000).is_some());
        assert!(consumers.find_key(b"old", || 99).is_some());
        assert!(consumers.find_key(b"old", || 100).is_none());
        assert!(consumers.find_key(b"Secret", || 0).is_none());
    }

    #[test]
    fn a_consumer_is_found_by_username_and_by_id() {
        let consumers = directory();
        let bob = consumers.find("bob").expect("by username");
        assert_eq!(consumers.find(&Uuid::from_u128(1).to_string()), Some(bob));
        assert_eq!(consumers.find("alice"), None);
    }
}
