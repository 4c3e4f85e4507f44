//! Ids of entities that were given none, and what must be unique among all entities.

use std::collections::HashMap;

use uuid::Uuid;

use super::Config;
use super::diagnostics::{Code, Diagnostics, Span};
use super::model::{Entity, EntityKind, Place, Reference};
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
            credential
                .key
                .as_ref()
                .map(|key| format!("keyauth_credentials:*:{}", key.expose()))
        },
    );
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
    assign_plugins(config);
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

fn assign_plugins(config: &mut Config) {
    let services = Ids::of(&config.services, |service| service.name.clone());
    let routes = Ids::of(&config.routes, |route| route.name.clone());
    let consumers = Ids::of(&config.consumers, |consumer| consumer.username.clone());
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
        let key = format!("plugins:*:{}:{route}:{service}:{consumer}", fields.name);
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
    unique.ids(&config.services, EntityKind::Service, |service| service.id);
    unique.ids(&config.routes, EntityKind::Route, |route| route.id);
    unique.ids(&config.upstreams, EntityKind::Upstream, |upstream| {
        upstream.id
    });
    unique.ids(&config.targets, EntityKind::Target, |target| target.id);
    unique.ids(&config.consumers, EntityKind::Consumer, |consumer| {
        consumer.id
    });
    unique.ids(
        &config.keyauth_credentials,
        EntityKind::KeyauthCredential,
        |credential| credential.id,
    );
    unique.ids(
        &config.certificates,
        EntityKind::Certificate,
        |certificate| certificate.id,
    );
    unique.ids(&config.snis, EntityKind::Sni, |sni| sni.id);
    unique.ids(
        &config.ca_certificates,
        EntityKind::CaCertificate,
        |authority| authority.id,
    );
    unique.ids(&config.plugins, EntityKind::Plugin, |plugin| plugin.id);
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

    fn ids<T>(
        &mut self,
        entities: &[Entity<T>],
        kind: EntityKind,
        written: impl Fn(&T) -> Option<Uuid>,
    ) {
        let mut seen: HashMap<Uuid, &Place> = HashMap::new();
        for entity in entities {
            let Some(id) = written(&entity.fields) else {
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
