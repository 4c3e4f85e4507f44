//! The entities of a configuration as they are compared: what they are called, where they are written, and what holds
//! for each of their fields.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::fields::{Field, Fields, of_node};
use crate::{
    config::{
        Config, Entity, Loaded, Node, Reference, Service,
        model::{EntityKind, Model},
        read::read,
        schema::derived,
    },
    plugins::CATALOG,
};

/// The parts of a service that its `url` stands for.
const PARTS_OF_URL: [&str; 4] = ["protocol", "host", "port", "path"];

/// The kinds that others may belong to, by nesting or by a field of this name.
const OWNERS: [EntityKind; 7] = [
    EntityKind::Service,
    EntityKind::Route,
    EntityKind::Upstream,
    EntityKind::Consumer,
    EntityKind::ConsumerGroup,
    EntityKind::KeySet,
    EntityKind::Certificate,
];

/// An entity, ready to be compared.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) id: Uuid,
    /// What people call it, without its kind.
    pub(super) label: String,
    /// `FILE:LINE:COLUMN`.
    pub(super) place: String,
    pub(super) fields: Fields,
}

/// The entities of a kind, in their order.
pub(super) fn all(kind: EntityKind, loaded: &Loaded) -> Vec<Described> {
    let config = &loaded.config;
    let labels = Labels::of(config);
    let listing = Listing {
        loaded,
        labels: &labels,
    };
    match kind {
        EntityKind::Service => {
            let mut services = listing.describe(&config.services);
            for (service, described) in config.services.iter().zip(&mut services) {
                put_parts_of_url(service, &mut described.fields);
            }
            services
        }
        EntityKind::Route => listing.describe(&config.routes),
        EntityKind::Upstream => listing.describe(&config.upstreams),
        EntityKind::Target => listing.describe(&config.targets),
        EntityKind::Consumer => listing.describe(&config.consumers),
        EntityKind::ConsumerGroup => listing.describe(&config.consumer_groups),
        EntityKind::ConsumerGroupConsumer => listing.describe(&config.consumer_group_consumers),
        EntityKind::KeyauthCredential => listing.describe(&config.keyauth_credentials),
        EntityKind::BasicauthCredential => listing.describe(&config.basicauth_credentials),
        EntityKind::JwtSecret => listing.describe(&config.jwt_secrets),
        EntityKind::HmacauthCredential => listing.describe(&config.hmacauth_credentials),
        EntityKind::Oauth2Credential => listing.describe(&config.oauth2_credentials),
        EntityKind::Acl => listing.describe(&config.acls),
        EntityKind::KeySet => listing.describe(&config.key_sets),
        EntityKind::Key => listing.describe(&config.keys),
        EntityKind::Vault => listing.describe(&config.vaults),
        EntityKind::Certificate => listing.describe(&config.certificates),
        EntityKind::Sni => listing.describe(&config.snis),
        EntityKind::CaCertificate => listing.describe(&config.ca_certificates),
        EntityKind::Plugin => listing.describe(&config.plugins),
        // They are among the plugins.
        EntityKind::ConsumerGroupPlugin => Vec::new(),
    }
}

/// What entities are called, by kind and by whatever may refer to them.
#[derive(Debug, Default)]
pub(super) struct Labels {
    by_index: HashMap<(EntityKind, usize), String>,
    by_reference: HashMap<(EntityKind, String), String>,
}

impl Labels {
    /// The labels of all entities that others may belong to.
    pub(super) fn of(config: &Config) -> Self {
        let mut labels = Self::default();
        labels.add(&config.services);
        labels.add(&config.routes);
        labels.add(&config.upstreams);
        labels.add(&config.consumers);
        labels.add(&config.consumer_groups);
        labels.add(&config.key_sets);
        labels.add(&config.certificates);
        labels
    }

    fn add<T: Model>(&mut self, entities: &[Entity<T>]) {
        for (index, entity) in entities.iter().enumerate() {
            let node = entity.place.node();
            let label = own_name(node).unwrap_or_else(|| entity.id.to_string());
            for name in NAMES {
                if let Some(name) = text(node, name) {
                    self.by_reference.insert((T::KIND, name), label.clone());
                }
            }
            self.by_reference
                .insert((T::KIND, entity.id.to_string()), label.clone());
            self.by_index.insert((T::KIND, index), label);
        }
    }

    /// The entity of `kind` inside which `entity` is written or that it refers to.
    fn owner<T>(&self, entity: &Entity<T>, kind: EntityKind) -> Option<String> {
        if let Some(index) = entity.nested_in(kind) {
            return self.by_index.get(&(kind, index)).cloned();
        }
        let field = kind.foreign_field_of(entity.place.kind());
        let reference: Reference = read(entity.place.node().get(field)?).ok()?;
        let written = reference.text().to_owned();
        let label = self.by_reference.get(&(kind, written.clone()));
        Some(label.cloned().unwrap_or(written))
    }

    /// All the entities that `entity` belongs to: kind and label.
    fn owners<T>(&self, entity: &Entity<T>) -> Vec<(EntityKind, String)> {
        OWNERS
            .into_iter()
            .filter_map(|kind| Some((kind, self.owner(entity, kind)?)))
            .collect()
    }

    /// What an entity is called, by what it belongs to if it has no name.
    pub(super) fn label<T: Model>(&self, entity: &Entity<T>) -> String {
        let node = entity.place.node();
        let owners: Vec<String> = self
            .owners(entity)
            .into_iter()
            .map(|(kind, label)| format!("{} {label}", kind.singular()))
            .collect();
        let owners = owners.join(" and ");
        match T::KIND {
            EntityKind::Plugin => {
                let scope = if owners.is_empty() { "global" } else { &owners };
                format!("{} ({scope})", text(node, "name").unwrap_or_default())
            }
            EntityKind::Target => {
                format!("{} of {owners}", text(node, "target").unwrap_or_default())
            }
            EntityKind::KeyauthCredential => format!("of {owners}"),
            _ => own_name(node).unwrap_or_else(|| entity.id.to_string()),
        }
    }
}

/// The fields by which entities are called, the best first.
const NAMES: [&str; 3] = ["name", "username", "custom_id"];

fn own_name(node: &Node) -> Option<String> {
    NAMES.iter().find_map(|name| text(node, name))
}

/// The text of a field, unless it is secret.
fn text(node: &Node, field: &str) -> Option<String> {
    let value = node.get(field).filter(|value| !value.secret)?;
    value.as_str().map(str::to_owned)
}

struct Listing<'a> {
    loaded: &'a Loaded,
    labels: &'a Labels,
}

impl Listing<'_> {
    fn describe<T: Model>(&self, entities: &[Entity<T>]) -> Vec<Described> {
        let schema = derived::<T>().to_value();
        // Children are entities of their own, owners are compared by what they are called, and entities with another
        // id are other ones.
        let mut without: Vec<&str> = vec!["id", "_config"];
        without.extend(T::KIND.children().iter().map(|kind| kind.list()));
        without.extend(OWNERS.iter().map(|kind| kind.foreign_field_of(T::KIND)));
        without.extend((T::KIND == EntityKind::Plugin).then_some("config"));
        entities
            .iter()
            .map(|entity| {
                let node = entity.place.node();
                let mut fields = of_node(node, &schema, &without);
                for (kind, label) in self.labels.owners(entity) {
                    let field = kind.foreign_field_of(T::KIND);
                    fields.insert(field.to_owned(), Field::of(label));
                }
                if T::KIND == EntityKind::Plugin {
                    fields.extend(settings_of_plugin(node));
                }
                Described {
                    id: entity.id,
                    label: self.labels.label(entity),
                    place: self.loaded.diagnostics.place(entity.place.span()),
                    fields,
                }
            })
            .collect()
    }
}

/// The fields of a plugin's `config`, by what the plugin says of it.
fn settings_of_plugin(node: &Node) -> Fields {
    let name = text(node, "name").unwrap_or_default();
    let entry = CATALOG.iter().find(|entry| entry.name == name);
    let schema = entry.map_or(Value::Null, |entry| (entry.schema)().to_value());
    let nothing = Node::empty_mapping(node.span);
    of_node(node.get("config").unwrap_or(&nothing), &schema, &[])
        .into_iter()
        .map(|(field, value)| (format!("config.{field}"), value))
        .collect()
}

/// Puts what a `url` stands for in its place.
fn put_parts_of_url(service: &Entity<Service>, fields: &mut Fields) {
    let Some(url) = service.place.node().get("url") else {
        return;
    };
    fields.remove("url");
    let Service {
        protocol,
        host,
        port,
        path,
        ..
    } = &service.fields;
    let values: [Option<Value>; 4] = [
        Some(protocol.as_str().into()),
        Some(host.as_str().into()),
        Some((*port).into()),
        path.as_deref().map(Into::into),
    ];
    for (field, value) in PARTS_OF_URL.into_iter().zip(values) {
        fields.remove(field);
        if let Some(value) = value {
            let is_secret = url.secret;
            fields.insert(field.to_owned(), Field { value, is_secret });
        }
    }
}
