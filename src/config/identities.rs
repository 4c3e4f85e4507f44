//! Ids of entities that were given none, and what must be unique among all entities.

use std::collections::HashMap;

use uuid::Uuid;

use super::Config;
use super::diagnostics::{Code, Diagnostics, Span};
use super::model::{Entity, EntityKind, Model, Place, Reference};
use crate::entity::identifier::derive;

/// Gives every entity without an id the one that Kong would derive.
pub(super) fn assign(config: &mut Config) {
    assign_by(&mut config.services, EntityKind::Service, |service| {
        service.name.clone()
    });
    assign_by(&mut config.routes, EntityKind::Route, |route| {
        route.name.clone()
    });
    assign_by(&mut config.upstreams, EntityKind::Upstream, |upstream| {
        some_text(&upstream.name)
    });
    assign_by(&mut config.consumers, EntityKind::Consumer, |consumer| {
        let custom_id = consumer
            .custom_id
            .as_ref()
            .map(|custom_id| format!("custom_id:{custom_id}"));
        consumer.username.clone().or(custom_id)
    });
    assign_by(
        &mut config.keyauth_credentials,
        EntityKind::KeyauthCredential,
        |credential| {
            let key = credential.key.as_ref()?;
            cached(EntityKind::KeyauthCredential, key.expose())
        },
    );
    assign_by(
        &mut config.basicauth_credentials,
        EntityKind::BasicauthCredential,
        |credential| cached(EntityKind::BasicauthCredential, &credential.username),
    );
    assign_by(
        &mut config.jwt_secrets,
        EntityKind::JwtSecret,
        |credential| cached(EntityKind::JwtSecret, credential.key.as_ref()?),
    );
    assign_by(
        &mut config.hmacauth_credentials,
        EntityKind::HmacauthCredential,
        |credential| cached(EntityKind::HmacauthCredential, &credential.username),
    );
    assign_by(
        &mut config.oauth2_credentials,
        EntityKind::Oauth2Credential,
        |credential| cached(EntityKind::Oauth2Credential, credential.client_id.as_ref()?),
    );
    assign_by(
        &mut config.consumer_groups,
        EntityKind::ConsumerGroup,
        |group| some_text(&group.name),
    );
    assign_by(&mut config.key_sets, EntityKind::KeySet, |set| {
        set.name.clone()
    });
    assign_by(&mut config.vaults, EntityKind::Vault, |vault| {
        cached(EntityKind::Vault, &vault.prefix)
    });
    assign_by(&mut config.certificates, EntityKind::Certificate, |_| None);
    assign_by(
        &mut config.ca_certificates,
        EntityKind::CaCertificate,
        |_| None,
    );
    assign_by(&mut config.snis, EntityKind::Sni, |sni| {
        some_text(&sni.name)
    });
    assign_targets(config);
    assign_acls(config);
    assign_keys(config);
    assign_plugins(config);
}

/// What Kong derives an id from that depends on one field, if that is not empty.
fn cached(kind: EntityKind, text: &str) -> Option<String> {
    (!text.is_empty()).then(|| format!("{}:*:{text}", kind.list()))
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn assign_by<T>(entities: &mut [Entity<T>], kind: EntityKind, key: impl Fn(&T) -> Option<String>) {
    for entity in entities.iter_mut().filter(|entity| entity.id.is_nil()) {
        let key = key(&entity.fields).unwrap_or_else(|| entity.place.position());
        entity.id = derive(kind.list(), &key);
    }
}

fn assign_targets(config: &mut Config) {
    let upstreams = Ids::of(&config.upstreams, |upstream| some_text(&upstream.name));
    for target in config
        .targets
        .iter_mut()
        .filter(|target| target.id.is_nil())
    {
        let upstream = upstreams.written(
            target.nested_in(EntityKind::Upstream),
            target.fields.upstream.as_ref(),
        );
        let key = format!("{}:{upstream}:*", target.fields.target);
        target.id = derive(EntityKind::Target.list(), &key);
    }
}

fn assign_acls(config: &mut Config) {
    let consumers = Ids::of(&config.consumers, |consumer| consumer.username.clone());
    for acl in config.acls.iter_mut().filter(|acl| acl.id.is_nil()) {
        let consumer = consumers.written(
            acl.nested_in(EntityKind::Consumer),
            acl.fields.consumer.as_ref(),
        );
        let key = format!("acls:*:{consumer}:{}", acl.fields.group);
        acl.id = derive(EntityKind::Acl.list(), &key);
    }
}

fn assign_keys(config: &mut Config) {
    let sets = Ids::of(&config.key_sets, |set| set.name.clone());
    for key in config.keys.iter_mut().filter(|key| key.id.is_nil()) {
        let set = sets.written(key.nested_in(EntityKind::KeySet), key.fields.set.as_ref());
        let text = format!("keys:*:{}:{set}", key.fields.kid);
        key.id = derive(EntityKind::Key.list(), &text);
    }
}

fn assign_plugins(config: &mut Config) {
    let services = Ids::of(&config.services, |service| service.name.clone());
    let routes = Ids::of(&config.routes, |route| route.name.clone());
    let consumers = Ids::of(&config.consumers, |consumer| consumer.username.clone());
    let groups = Ids::of(&config.consumer_groups, |group| some_text(&group.name));
    for plugin in config
        .plugins
        .iter_mut()
        .filter(|plugin| plugin.id.is_nil())
    {
        let fields = &plugin.fields;
        let service = services.written(
            plugin.nested_in(EntityKind::Service),
            fields.service.as_ref(),
        );
        let route = routes.written(plugin.nested_in(EntityKind::Route), fields.route.as_ref());
        let consumer = consumers.written(
            plugin.nested_in(EntityKind::Consumer),
            fields.consumer.as_ref(),
        );
        let group = groups.written(
            plugin.nested_in(EntityKind::ConsumerGroup),
            fields.consumer_group.as_ref(),
        );
        let mut key = format!("plugins:*:{}:{route}:{service}:{consumer}", fields.name);
        if !group.is_empty() {
            key.extend([":", group.as_str()]);
        }
        plugin.id = derive(EntityKind::Plugin.list(), &key);
    }
}

/// The ids of one kind of entity, by index and by name.
struct Ids {
    by_index: Vec<Uuid>,
    by_name: HashMap<String, Uuid>,
}

impl Ids {
    fn of<T>(entities: &[Entity<T>], name: impl Fn(&T) -> Option<String>) -> Self {
        let named = entities
            .iter()
            .filter_map(|entity| Some((name(&entity.fields)?, entity.id)));
        Self {
            by_index: entities.iter().map(|entity| entity.id).collect(),
            by_name: named.collect(),
        }
    }

    /// The id that a foreign field stands for; an unknown one is used as it is written, an absent one is empty.
    fn written(&self, nested: Option<usize>, reference: Option<&Reference>) -> String {
        let id = nested.and_then(|index| self.by_index.get(index));
        let id = id.or_else(|| reference.and_then(|reference| self.by_name.get(reference.text())));
        match (id, reference) {
            (Some(id), _) => id.to_string(),
            (None, Some(reference)) => reference.text().to_owned(),
            (None, None) => String::new(),
        }
    }
}

/// Reports what two entities have in common but must not.
pub(super) fn check_unique(config: &Config, diagnostics: &mut Diagnostics) {
    let mut unique = Unique { diagnostics };
    unique.field(&config.services, EntityKind::Service, "name", |service| {
        service.name.as_deref()
    });
    unique.field(&config.routes, EntityKind::Route, "name", |route| {
        route.name.as_deref()
    });
    unique.field(
        &config.upstreams,
        EntityKind::Upstream,
        "name",
        |upstream| Some(upstream.name.as_str()),
    );
    unique.field(
        &config.consumers,
        EntityKind::Consumer,
        "username",
        |consumer| consumer.username.as_deref(),
    );
    unique.field(
        &config.consumers,
        EntityKind::Consumer,
        "custom_id",
        |consumer| consumer.custom_id.as_deref(),
    );
    unique.field(&config.snis, EntityKind::Sni, "name", |sni| {
        Some(sni.name.as_str())
    });
    unique.field(
        &config.plugins,
        EntityKind::Plugin,
        "instance_name",
        |plugin| plugin.instance_name.as_deref(),
    );
    unique.field(
        &config.consumer_groups,
        EntityKind::ConsumerGroup,
        "name",
        |group| Some(group.name.as_str()),
    );
    unique.field(
        &config.basicauth_credentials,
        EntityKind::BasicauthCredential,
        "username",
        |credential| Some(credential.username.as_str()),
    );
    unique.field(
        &config.jwt_secrets,
        EntityKind::JwtSecret,
        "key",
        |credential| credential.key.as_deref(),
    );
    unique.field(
        &config.hmacauth_credentials,
        EntityKind::HmacauthCredential,
        "username",
        |credential| Some(credential.username.as_str()),
    );
    unique.field(
        &config.oauth2_credentials,
        EntityKind::Oauth2Credential,
        "client_id",
        |credential| credential.client_id.as_deref(),
    );
    unique.field(&config.key_sets, EntityKind::KeySet, "name", |set| {
        set.name.as_deref()
    });
    unique.field(&config.keys, EntityKind::Key, "name", |key| {
        key.name.as_deref()
    });
    unique.field(&config.vaults, EntityKind::Vault, "prefix", |vault| {
        Some(vault.prefix.as_str())
    });
    check_unique_ids(config, &mut unique);
}

fn check_unique_ids(config: &Config, unique: &mut Unique<'_>) {
    unique.ids(&config.services, EntityKind::Service);
    unique.ids(&config.routes, EntityKind::Route);
    unique.ids(&config.upstreams, EntityKind::Upstream);
    unique.ids(&config.targets, EntityKind::Target);
    unique.ids(&config.consumers, EntityKind::Consumer);
    unique.ids(&config.consumer_groups, EntityKind::ConsumerGroup);
    unique.ids(&config.keyauth_credentials, EntityKind::KeyauthCredential);
    unique.ids(
        &config.basicauth_credentials,
        EntityKind::BasicauthCredential,
    );
    unique.ids(&config.jwt_secrets, EntityKind::JwtSecret);
    unique.ids(&config.hmacauth_credentials, EntityKind::HmacauthCredential);
    unique.ids(&config.oauth2_credentials, EntityKind::Oauth2Credential);
    unique.ids(&config.acls, EntityKind::Acl);
    unique.ids(&config.key_sets, EntityKind::KeySet);
    unique.ids(&config.keys, EntityKind::Key);
    unique.ids(&config.vaults, EntityKind::Vault);
    unique.ids(&config.plugins, EntityKind::Plugin);
    unique.ids(&config.certificates, EntityKind::Certificate);
    unique.ids(&config.snis, EntityKind::Sni);
    unique.ids(&config.ca_certificates, EntityKind::CaCertificate);
}

struct Unique<'a> {
    diagnostics: &'a mut Diagnostics,
}

impl Unique<'_> {
    fn field<'e, T>(
        &mut self,
        entities: &'e [Entity<T>],
        kind: EntityKind,
        field: &str,
        value: impl Fn(&'e T) -> Option<&'e str>,
    ) {
        let mut seen: HashMap<&str, &Place> = HashMap::with_capacity(entities.len());
        for entity in entities {
            let Some(value) = value(&entity.fields).filter(|value| !value.is_empty()) else {
                continue;
            };
            match seen.get(value) {
                Some(first) => self.report(kind, field, value, first, &entity.place),
                None => drop(seen.insert(value, &entity.place)),
            }
        }
    }

    fn ids<T: Model>(&mut self, entities: &[Entity<T>], kind: EntityKind) {
        let mut seen: HashMap<Uuid, &Place> = HashMap::new();
        for entity in entities {
            let Some(id) = entity.fields.id() else {
                continue;
            };
            match seen.get(&id) {
                Some(first) => self.report(kind, "id", &id.to_string(), first, &entity.place),
                None => drop(seen.insert(id, &entity.place)),
            }
        }
    }

    fn report(
        &mut self,
        kind: EntityKind,
        field: &str,
        value: &str,
        first: &Place,
        second: &Place,
    ) {
        let message = format!(
            "uniqueness violation: '{}' entity with {field} set to '{value}' already declared",
            kind.list()
        );
        let hint = format!("the first one is at {}", self.first(first.at(field)));
        let (span, path) = (second.at(field), second.path_of(field));
        self.diagnostics
            .error(Code::Duplicate, span, path, message)
            .value(value)
            .hint(hint);
    }

    fn first(&self, span: Span) -> String {
        self.diagnostics.place(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    const DOCUMENT: &str = r#"
_format_version: "3.0"
services:
- name: orders
  host: a
  routes:
  - name: search
    paths: [/search]
    plugins: [{name: key-auth}]
upstreams:
- name: pool
  targets: [{target: "10.0.0.1:80"}]
consumers:
- username: alice
  keyauth_credentials: [{key: k}]
  basicauth_credentials: [{username: u, password: p}]
  jwt_secrets: [{key: iss, secret: s}]
  hmacauth_credentials: [{username: u, secret: s}]
  oauth2_credentials: [{name: app, client_id: app, client_secret: s}]
  acls: [{group: staff}]
consumer_groups: [{name: gold}]
key_sets:
- name: signing
  keys: [{kid: k1, jwk: '{"kid": "k1", "kty": "oct", "k": "AAAA"}'}]
vaults: [{name: env, prefix: my-env}]
"#;

    /// The expected ids were made by another program from Kong's rule: UUID version 5 of the key in the namespace of
    /// the list, which is version 5 of the list's name in Kong's.
    #[test]
    fn ids_are_those_of_kongs_rule() {
        let loaded = load_text(DOCUMENT.to_owned(), "f", &|_| None);
        assert_eq!(loaded.diagnostics.to_text(), "");
        let config = loaded.config;
        for (list, id, expected) in [
            (
                "services",
                config.services[0].id,
                "580c8aca-d632-5804-b307-a24326e1e2d5",
            ),
            (
                "routes",
                config.routes[0].id,
                "6dc82737-c67a-5e25-bb0a-613778908e52",
            ),
            (
                "upstreams",
                config.upstreams[0].id,
                "84cf81c7-fae6-5920-b712-292931a8c3ff",
            ),
            (
                "targets",
                config.targets[0].id,
                "fc202352-e446-59a5-adfc-695b183d4bd6",
            ),
            (
                "consumers",
                config.consumers[0].id,
                "b32379d9-3d28-5683-a79c-72139be6e34f",
            ),
            (
                "consumer_groups",
                config.consumer_groups[0].id,
                "292e2838-e71a-5766-868d-840f7af2afa2",
            ),
            (
                "keyauth_credentials",
                config.keyauth_credentials[0].id,
                "3c45ea7d-1e22-587c-ad2f-e4631336c6ba",
            ),
            (
                "basicauth_credentials",
                config.basicauth_credentials[0].id,
                "b8b13216-f8d0-5482-8264-f38e673a5811",
            ),
            (
                "jwt_secrets",
                config.jwt_secrets[0].id,
                "a776f8a7-c960-56d0-a745-798354a415c3",
            ),
            (
                "hmacauth_credentials",
                config.hmacauth_credentials[0].id,
                "dffd3dbe-ea3a-5c5c-b278-bd1ed52f697f",
            ),
            (
                "oauth2_credentials",
                config.oauth2_credentials[0].id,
                "d8b1af50-b5ae-585a-8201-6e55e52f1c89",
            ),
            (
                "acls",
                config.acls[0].id,
                "f0ba2d78-91a9-52bd-a34c-6e2efb206a25",
            ),
            (
                "key_sets",
                config.key_sets[0].id,
                "7eb0ad2a-016a-576d-a9cf-34dba5cedb47",
            ),
            (
                "keys",
                config.keys[0].id,
                "d1a9cbb2-77b7-5329-b87a-3af4612c75aa",
            ),
            (
                "vaults",
                config.vaults[0].id,
                "3dc3bf8d-e9b4-576c-af74-01619966a0d0",
            ),
            (
                "plugins",
                config.plugins[0].id,
                "be0c4d6e-a867-5f10-9811-e84a1b2cf282",
            ),
        ] {
            assert_eq!(id.to_string(), expected, "{list}");
        }
    }

    #[test]
    fn a_plugin_of_a_group_has_an_id_of_its_own() {
        let text = "_format_version: \"3.0\"\nconsumer_groups: [{name: gold}, {name: silver}]\n\
             plugins: [{name: a}, {name: a, consumer_group: gold}, {name: a, consumer_group: silver}]\n";
        let plugins = load_text(text.to_owned(), "f", &|_| None).config.plugins;
        let ids: std::collections::HashSet<Uuid> = plugins.iter().map(|plugin| plugin.id).collect();
        assert_eq!(ids.len(), 3);
    }
}
