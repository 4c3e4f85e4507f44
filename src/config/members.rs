//! The consumers inside of consumer groups: an entry that only names a consumer means one that is declared elsewhere,
//! and declares it if there is none. Entries with more than a name are consumers like any other, and not treated here.

use std::collections::HashSet;

use uuid::Uuid;

use super::Config;
use super::diagnostics::{Code, Diagnostics};
use super::merge;
use super::model::{ConsumerGroupConsumer, Entity, EntityKind, Place, Reference};
use super::node::{Kind, Node};

/// An entry that only names a consumer.
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) place: Place,
    /// The place of the group in the configuration.
    pub(super) group: usize,
}

/// What an entry may have that only names a consumer, beside what every entity may carry.
const BARE: &[&str] = &[
    "id",
    "username",
    "custom_id",
    "tags",
    "created_at",
    "updated_at",
    "_comment",
    "_ignore",
];

/// Whether an entry only names a consumer.
pub(super) fn is_bare(node: &Node) -> bool {
    match &node.kind {
        Kind::String(_) => true,
        Kind::Mapping(entries) => entries
            .iter()
            .all(|entry| entry.value.is_null() || BARE.contains(&entry.key.as_str())),
        _ => false,
    }
}

/// Adds what the groups of all documents name, now that all consumers are known.
pub(super) fn add(members: Vec<Member>, config: &mut Config, diagnostics: &mut Diagnostics) {
    let mut declared = Declared::of(config);
    for member in members {
        let named = declared.find(&member.node);
        let parent = Some((EntityKind::ConsumerGroup, member.group));
        if let Some(consumer) = named {
            config.consumer_group_consumers.push(Entity {
                id: Uuid::nil(),
                fields: ConsumerGroupConsumer {
                    consumer: Some(consumer),
                    ..ConsumerGroupConsumer::default()
                },
                place: member.place,
                parent,
            });
            continue;
        }
        if !config.incomplete {
            diagnostics
                .warning(
                    Code::UnknownReference,
                    member.place.span(),
                    member.place.path(),
                    "no consumer of this name is declared elsewhere, so this entry declares one",
                )
                .hint("declare the consumer under `consumers`, if the name is right");
        }
        declared.add(&member.node);
        merge::add_consumer(&member.node, member.place, parent, config, diagnostics);
    }
}

/// Everything that names a consumer.
#[derive(Default)]
struct Declared {
    ids: HashSet<String>,
    usernames: HashSet<String>,
    custom_ids: HashSet<String>,
}

impl Declared {
    fn of(config: &Config) -> Self {
        let mut declared = Self::default();
        for consumer in &config.consumers {
            declared.add(consumer.place.node());
        }
        declared
    }

    fn add(&mut self, consumer: &Node) {
        for (field, names) in [
            ("id", &mut self.ids),
            ("username", &mut self.usernames),
            ("custom_id", &mut self.custom_ids),
        ] {
            let name = consumer.get(field).and_then(Node::as_str);
            names.extend(name.map(str::to_owned));
        }
    }

    /// The consumer that an entry means. A text is never more than a name.
    fn find(&self, node: &Node) -> Option<Reference> {
        if let Some(text) = node.as_str() {
            return Some(Reference::Any(text.to_owned()));
        }
        let field = |name: &str, names: &HashSet<String>| {
            let text = node.get(name)?.as_str()?;
            names.contains(text).then(|| text.to_owned())
        };
        field("id", &self.ids)
            .map(Reference::Id)
            .or_else(|| field("username", &self.usernames).map(Reference::Username))
            .or_else(|| field("custom_id", &self.custom_ids).map(Reference::CustomId))
    }
}
