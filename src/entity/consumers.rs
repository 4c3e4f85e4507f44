//! All consumers and their credentials as one request sees them: an immutable directory built by
//! `compile` and searched by authentication plugins.

use std::collections::HashMap;

use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::{
    consumer::{Caller, Consumer, ConsumerGroup, ConsumerIndex, GroupIndex},
    credential::{BasicCredential, HmacCredential, JwtCredential, KeyCredential, Oauth2Credential},
};

/// What a consumer is in.
#[derive(Debug, Default)]
struct Memberships {
    groups: Vec<GroupIndex>,
    /// The names of `groups`, ready to be sent upstream; absent if there are none.
    groups_header: Option<HeaderValue>,
    acl_groups: Vec<String>,
}

/// All consumers with the indexes that authentication needs.
#[derive(Debug, Default)]
pub struct Consumers {
    list: Vec<Consumer>,
    /// Runs parallel to `list`.
    memberships: Vec<Memberships>,
    groups: Vec<ConsumerGroup>,
    by_name: HashMap<String, ConsumerIndex>,
    /// By SHA-256 of the key: what is looked up is a digest of fixed length, so that neither the
    /// time of a look-up nor a dump of the table tells anything about a key.
    keys: HashMap<[u8; 32], KeyCredential, ahash::RandomState>,
    basic: HashMap<String, BasicCredential, ahash::RandomState>,
    jwt: HashMap<String, JwtCredential, ahash::RandomState>,
    hmac: HashMap<String, HmacCredential, ahash::RandomState>,
    oauth2: HashMap<String, Oauth2Credential, ahash::RandomState>,
}

impl Consumers {
    /// Adds a consumer and returns its place.
    pub fn add(&mut self, consumer: Consumer) -> ConsumerIndex {
        let index = ConsumerIndex(place(self.list.len()));
        self.by_name.insert(consumer.id.to_string(), index);
        if let Some(username) = &consumer.username {
            self.by_name.entry(username.clone()).or_insert(index);
        }
        self.list.push(consumer);
        self.memberships.push(Memberships::default());
        index
    }

    /// Adds a consumer group and returns its place.
    pub fn add_group(&mut self, group: ConsumerGroup) -> GroupIndex {
        self.groups.push(group);
        GroupIndex(place(self.groups.len() - 1))
    }

    /// Puts consumers into groups; once for a directory. A pair may come twice.
    pub fn join(&mut self, pairs: impl IntoIterator<Item = (ConsumerIndex, GroupIndex)>) {
        for (consumer, group) in pairs {
            if let Some(memberships) = self.memberships.get_mut(consumer.0 as usize) {
                memberships.groups.push(group);
            }
        }
        for memberships in &mut self.memberships {
            let name = |group: &GroupIndex| {
                let group = self.groups.get(group.0 as usize);
                group.map_or("", |group| group.name.as_str())
            };
            let groups = &mut memberships.groups;
            groups
                .sort_unstable_by(|left, right| name(left).cmp(name(right)).then(left.cmp(right)));
            groups.dedup();
            let names: Vec<&str> = groups.iter().map(name).collect();
            if !names.is_empty() {
                memberships.groups_header =
                    HeaderValue::from_bytes(names.join(", ").as_bytes()).ok();
            }
        }
    }

    /// Adds a group of the plugin `acl` to a consumer.
    pub fn add_acl_group(&mut self, consumer: ConsumerIndex, group: String) {
        if let Some(memberships) = self.memberships.get_mut(consumer.0 as usize) {
            memberships.acl_groups.push(group);
        }
    }

    /// Adds a key. The key itself is not kept.
    pub fn add_key(&mut self, key: &str, credential: KeyCredential) {
        self.keys.insert(digest(key.as_bytes()), credential);
    }

    /// Adds the password of a user of `basic-auth`.
    pub fn add_basic(&mut self, username: String, credential: BasicCredential) {
        self.basic.insert(username, credential);
    }

    /// Adds what verifies the tokens that name `key`.
    pub fn add_jwt(&mut self, key: String, credential: JwtCredential) {
        self.jwt.insert(key, credential);
    }

    /// Adds the secret of a user of `hmac-auth`.
    pub fn add_hmac(&mut self, username: String, credential: HmacCredential) {
        self.hmac.insert(username, credential);
    }

    /// Adds an application of `oauth2`.
    pub fn add_oauth2(&mut self, client_id: String, credential: Oauth2Credential) {
        self.oauth2.insert(client_id, credential);
    }

    /// The consumer at `index`; `None` only for an index of another directory.
    pub fn get(&self, index: ConsumerIndex) -> Option<&Consumer> {
        self.list.get(index.0 as usize)
    }

    /// The consumer group at `index`; `None` only for an index of another directory.
    pub fn group(&self, index: GroupIndex) -> Option<&ConsumerGroup> {
        self.groups.get(index.0 as usize)
    }

    /// `consumer` with its groups.
    pub fn caller(&self, consumer: Option<ConsumerIndex>) -> Caller<'_> {
        let memberships = consumer.and_then(|index| self.memberships.get(index.0 as usize));
        Caller {
            consumer,
            groups: memberships.map_or(&[], |memberships| memberships.groups.as_slice()),
        }
    }

    /// The names of a consumer's groups as a header sends them; `None` without groups.
    pub fn groups_header(&self, index: ConsumerIndex) -> Option<&HeaderValue> {
        let memberships = self.memberships.get(index.0 as usize)?;
        memberships.groups_header.as_ref()
    }

    /// The groups of a consumer for the plugin `acl`, in the order of the file.
    pub fn acl_groups(&self, index: ConsumerIndex) -> &[String] {
        let memberships = self.memberships.get(index.0 as usize);
        memberships.map_or(&[], |memberships| memberships.acl_groups.as_slice())
    }

    /// Finds a consumer by its id or username (Kong's `anonymous` knows no other name).
    pub fn find(&self, id_or_username: &str) -> Option<ConsumerIndex> {
        self.by_name.get(id_or_username).copied()
    }

    /// Finds a consumer group by its id or name.
    pub fn find_group(&self, id_or_name: &str) -> Option<GroupIndex> {
        let is =
            |group: &ConsumerGroup| group.name == id_or_name || group.id.to_string() == id_or_name;
        let index = self.groups.iter().position(is)?;
        Some(GroupIndex(place(index)))
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

    /// Finds the password of a user of `basic-auth`.
    pub fn find_basic(&self, username: &str) -> Option<&BasicCredential> {
        self.basic.get(username)
    }

    /// Finds what verifies the tokens that name `key`.
    pub fn find_jwt(&self, key: &str) -> Option<&JwtCredential> {
        self.jwt.get(key)
    }

    /// Finds the secret of a user of `hmac-auth`.
    pub fn find_hmac(&self, username: &str) -> Option<&HmacCredential> {
        self.hmac.get(username)
    }

    /// Finds an application of `oauth2`.
    pub fn find_oauth2(&self, client_id: &str) -> Option<&Oauth2Credential> {
        self.oauth2.get(client_id)
    }

    /// All consumers in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.list.iter()
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::entity::{
        Secret,
        credential::{ClientType, JwtAlgorithm, JwtVerification, Password},
    };

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
    fn groups_stand_by_name_whatever_the_order_of_joining() {
        let mut consumers = directory();
        let bob = consumers.find("bob").unwrap();
        let mut group = |name: &str| {
            consumers.add_group(ConsumerGroup {
                id: Uuid::nil(),
                name: name.to_owned(),
            })
        };
        let (silver, gold) = (group("silver"), group("gold"));
        consumers.join([(bob, silver), (bob, gold), (bob, silver)]);

        assert_eq!(consumers.caller(Some(bob)).groups, [gold, silver]);
        assert_eq!(consumers.groups_header(bob).unwrap(), "gold, silver");
        assert!(consumers.caller(None).groups.is_empty());
    }

    #[test]
    fn each_kind_of_credential_is_found_by_its_own_name() {
        let mut consumers = directory();
        let consumer = consumers.find("bob").unwrap();
        let id = Uuid::from_u128(9);
        let secret = || Secret::new("s".to_owned());
        consumers.add_basic(
            "b".to_owned(),
            BasicCredential {
                id,
                consumer,
                password: Password::plain("p", id),
            },
        );
        consumers.add_jwt(
            "j".to_owned(),
            JwtCredential {
                id,
                consumer,
                key_header: None,
                algorithm: JwtAlgorithm::HS256,
                verification: JwtVerification::Secret(secret()),
            },
        );
        consumers.add_hmac(
            "h".to_owned(),
            HmacCredential {
                id,
                consumer,
                secret: secret(),
            },
        );
        consumers.add_oauth2(
            "o".to_owned(),
            Oauth2Credential {
                id,
                consumer,
                name: "app".to_owned(),
                client_secret: Some(secret()),
                hash_secret: false,
                redirect_uris: Vec::new(),
                client_type: ClientType::Confidential,
            },
        );
        consumers.add_acl_group(consumer, "staff".to_owned());

        assert!(consumers.find_basic("b").is_some() && consumers.find_basic("B").is_none());
        assert!(consumers.find_jwt("j").is_some() && consumers.find_jwt("b").is_none());
        assert!(consumers.find_hmac("h").is_some() && consumers.find_hmac("b").is_none());
        assert!(consumers.find_oauth2("o").is_some() && consumers.find_oauth2("b").is_none());
        assert_eq!(consumers.acl_groups(consumer), ["staff"]);
        assert!(!format!("{consumers:?}").contains("\"s\""));
    }

    #[test]
    fn a_consumer_is_found_by_username_and_by_id() {
        let consumers = directory();
        let bob = consumers.find("bob").expect("by username");
        assert_eq!(consumers.find(&Uuid::from_u128(1).to_string()), Some(bob));
        assert_eq!(consumers.find("alice"), None);
    }
}
