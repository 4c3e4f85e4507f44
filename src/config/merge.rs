//! Many documents become one configuration: entities in the order of the files, nested ones beside their parents.

use std::sync::Arc;

use uuid::Uuid;

use super::check;
use super::diagnostics::{Code, Diagnostics};
use super::document;
use super::members::{self, Member};
use super::model::{
    Acl, BasicauthCredential, CaCertificate, Certificate, Consumer, ConsumerGroup,
    ConsumerGroupConsumer, Document, Entity, EntityKind, HmacauthCredential, Inspection, JwtSecret,
    Key, KeySet, KeyauthCredential, Model, Oauth2Credential, Place, Plugin, Route, Service, Sni,
    Target, Upstream, Vault,
};
use super::node::{Kind, Node, Path};
use super::{Config, read, vaults};

/// Where the walk is: the steps to the parent, and the parent itself.
struct Above<'a> {
    steps: &'a [(EntityKind, usize)],
    parent: Option<(EntityKind, usize)>,
}

/// Adds the entities of a document to the configuration, with a diagnostic for each mistake in them.
///
/// What is left to [`members::add`] is put into `members`.
pub(super) fn add(
    document: &Arc<Document>,
    config: &mut Config,
    members: &mut Vec<Member>,
    diagnostics: &mut Diagnostics,
) {
    let mut merge = Merge {
        document,
        config,
        members,
        diagnostics,
    };
    let above = Above {
        steps: &[],
        parent: None,
    };
    for kind in EntityKind::ALL {
        merge.list(kind, &document.root, &above);
    }
}

/// Adds a consumer that stands by itself.
pub(super) fn add_consumer(
    node: &Node,
    place: Place,
    parent: Option<(EntityKind, usize)>,
    config: &mut Config,
    diagnostics: &mut Diagnostics,
) {
    let document = Arc::clone(&place.document);
    let mut merge = Merge {
        document: &document,
        config,
        members: &mut Vec::new(),
        diagnostics,
    };
    merge.entity::<Consumer>(node, place, parent, |config| &mut config.consumers);
}

struct Merge<'a> {
    document: &'a Arc<Document>,
    config: &'a mut Config,
    members: &'a mut Vec<Member>,
    diagnostics: &'a mut Diagnostics,
}

impl Merge<'_> {
    fn list(&mut self, kind: EntityKind, parent: &Node, above: &Above<'_>) {
        let Some(list) = parent.get(kind.list()) else {
            return;
        };
        let mut steps = above.steps.to_vec();
        let Kind::Sequence(items) = &list.kind else {
            self.config.incomplete = true;
            if !above.steps.is_empty() {
                let message = format!("expected an array, found {}", list.type_described());
                let place = Place {
                    document: Arc::clone(self.document),
                    steps,
                };
                self.diagnostics.error(
                    Code::WrongType,
                    list.span,
                    place.path_of(kind.list()),
                    message,
                );
            }
            return;
        };
        steps.push((kind, 0));
        for (index, node) in items.iter().enumerate() {
            if let Some(last) = steps.last_mut() {
                last.1 = index;
            }
            let place = Place {
                document: Arc::clone(self.document),
                steps: steps.clone(),
            };
            let parent = above.parent;
            if let Some((EntityKind::ConsumerGroup, group)) = parent
                && kind == EntityKind::Consumer
                && members::is_bare(node)
            {
                self.members.push(Member {
                    node: node.clone(),
                    place,
                    group,
                });
                continue;
            }
            let added = self.add(kind, node, place, parent);
            if let Some(added) = added {
                let above = Above {
                    steps: &steps,
                    parent: Some((kind, added)),
                };
                for &child in kind.children() {
                    self.list(child, node, &above);
                }
            }
        }
    }

    /// Adds one entity of a kind. Its index, unless it is no record at all.
    fn add(
        &mut self,
        kind: EntityKind,
        node: &Node,
        place: Place,
        parent: Option<(EntityKind, usize)>,
    ) -> Option<usize> {
        match kind {
            EntityKind::Service => {
                self.entity::<Service>(node, place, parent, |config| &mut config.services)
            }
            EntityKind::Route => {
                self.entity::<Route>(node, place, parent, |config| &mut config.routes)
            }
            EntityKind::Upstream => {
                self.entity::<Upstream>(node, place, parent, |config| &mut config.upstreams)
            }
            EntityKind::Target => {
                self.entity::<Target>(node, place, parent, |config| &mut config.targets)
            }
            EntityKind::Consumer => {
                self.entity::<Consumer>(node, place, parent, |config| &mut config.consumers)
            }
            EntityKind::KeyauthCredential => {
                self.entity::<KeyauthCredential>(node, place, parent, |config| {
                    &mut config.keyauth_credentials
                })
            }
            EntityKind::Certificate => {
                self.entity::<Certificate>(node, place, parent, |config| &mut config.certificates)
            }
            EntityKind::Sni => self.entity::<Sni>(node, place, parent, |config| &mut config.snis),
            EntityKind::CaCertificate => {
                self.entity::<CaCertificate>(node, place, parent, |config| {
                    &mut config.ca_certificates
                })
            }
            EntityKind::ConsumerGroup => {
                self.entity::<ConsumerGroup>(node, place, parent, |config| {
                    &mut config.consumer_groups
                })
            }
            EntityKind::ConsumerGroupConsumer => {
                self.entity::<ConsumerGroupConsumer>(node, place, parent, |config| {
                    &mut config.consumer_group_consumers
                })
            }
            EntityKind::BasicauthCredential => {
                self.entity::<BasicauthCredential>(node, place, parent, |config| {
                    &mut config.basicauth_credentials
                })
            }
            EntityKind::JwtSecret => {
                self.entity::<JwtSecret>(node, place, parent, |config| &mut config.jwt_secrets)
            }
            EntityKind::HmacauthCredential => {
                self.entity::<HmacauthCredential>(node, place, parent, |config| {
                    &mut config.hmacauth_credentials
                })
            }
            EntityKind::Oauth2Credential => {
                self.entity::<Oauth2Credential>(node, place, parent, |config| {
                    &mut config.oauth2_credentials
                })
            }
            EntityKind::Acl => self.entity::<Acl>(node, place, parent, |config| &mut config.acls),
            EntityKind::KeySet => {
                self.entity::<KeySet>(node, place, parent, |config| &mut config.key_sets)
            }
            EntityKind::Key => self.entity::<Key>(node, place, parent, |config| &mut config.keys),
            EntityKind::Vault => {
                self.entity::<Vault>(node, place, parent, |config| &mut config.vaults)
            }
            EntityKind::Plugin | EntityKind::ConsumerGroupPlugin => {
                self.entity::<Plugin>(node, place, parent, |config| &mut config.plugins)
            }
        }
    }

    /// Checks and reads one entity. Its index, unless it is no record at all.
    fn entity<T: Model>(
        &mut self,
        node: &Node,
        place: Place,
        parent: Option<(EntityKind, usize)>,
        list: impl Fn(&mut Config) -> &mut Vec<Entity<T>>,
    ) -> Option<usize> {
        let path = place.path();
        let without = self.refuse_nested::<T>(node, &path);
        let checked = without.as_ref().unwrap_or(node);
        let without_config = foreign_vault::<T>(checked);
        let checked = without_config.as_ref().unwrap_or(checked);
        let Some(mut wrong) =
            check::check_entity(checked, T::shape(), Path::Root(&path), self.diagnostics)
        else {
            self.config.incomplete = true;
            return None;
        };
        if without_config.is_some() {
            wrong.push("config".to_owned());
        }
        let mut fields: T = self.read(node, &path, &mut wrong);
        let mut inspection = Inspection {
            node,
            path: &path,
            place: &place,
            wrong: &wrong,
            diagnostics: self.diagnostics,
        };
        fields.settle(&mut inspection);
        let id = fields.id().unwrap_or(Uuid::nil());
        let list = list(self.config);
        list.push(Entity {
            id,
            fields,
            place,
            parent,
        });
        Some(list.len() - 1)
    }

    /// Reads the fields that are not wrong, and reports those that only turn out to be wrong now.
    fn read<T: Model>(&mut self, node: &Node, path: &str, wrong: &mut Vec<String>) -> T {
        loop {
            let error = match read::read_without(node, wrong) {
                Ok(fields) => return fields,
                Err(error) => error,
            };
            let span = error.span.unwrap_or(node.span);
            self.diagnostics.error(
                Code::InvalidValue,
                span,
                format!("{path}.{}", error.path),
                error.to_string(),
            );
            match error.field() {
                Some(field) if !wrong.contains(&field) => wrong.push(field),
                _ => return T::default(),
            }
        }
    }

    /// Reports nested lists of entities that this version does not have; gives the record without them.
    fn refuse_nested<T: Model>(&mut self, node: &Node, path: &str) -> Option<Node> {
        let unsupported = |key: &str| {
            let hint = document::unsupported_entity(key);
            hint.filter(|_| !T::shape().knows(key))
        };
        if !node
            .entries()
            .iter()
            .any(|entry| unsupported(&entry.key).is_some())
        {
            return None;
        }
        let mut rest = Node::empty_mapping(node.span);
        for entry in node.entries() {
            match (unsupported(&entry.key), &mut rest.kind) {
                (Some(hint), _) => {
                    let path = format!("{path}.{}", entry.key);
                    document::refuse_entity(entry, hint, path, self.diagnostics);
                }
                (None, Kind::Mapping(entries)) => entries.push(entry.clone()),
                _ => {}
            }
        }
        Some(rest)
    }
}

/// A vault of a kind that this version does not have, without its `config`, which only that kind understands.
fn foreign_vault<T: Model>(node: &Node) -> Option<Node> {
    let name = node.get("name").and_then(Node::as_str);
    if T::KIND != EntityKind::Vault || name.is_none_or(|name| name == vaults::ENVIRONMENT) {
        return None;
    }
    let mut rest = Node::empty_mapping(node.span);
    if let Kind::Mapping(entries) = &mut rest.kind {
        let kept = node.entries().iter().filter(|entry| entry.key != "config");
        entries.extend(kept.cloned());
    }
    Some(rest)
}
