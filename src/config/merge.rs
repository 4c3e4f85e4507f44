//! Many documents become one configuration: entities in the order of the files, nested ones beside their parents.

use std::sync::Arc;

use uuid::Uuid;

use super::check;
use super::diagnostics::{Code, Diagnostics};
use super::document;
use super::model::{
    CaCertificate, Certificate, Consumer, KeyauthCredential, Sni, Target, Upstream,
};
use super::model::{
    Document, Entity, EntityKind, Inspection, Model, Place, Plugin, Route, Service,
};
use super::node::{Kind, Node, Path};
use super::{Config, read};

/// Where the walk is: the steps to the parent, and the parent itself.
struct Above<'a> {
    steps: &'a [(EntityKind, usize)],
    parent: Option<(EntityKind, usize)>,
}

/// Adds the entities of a document to the configuration, with a diagnostic for each mistake in them.
pub(super) fn add(document: &Arc<Document>, config: &mut Config, diagnostics: &mut Diagnostics) {
    let mut merge = Merge {
        document,
        config,
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

struct Merge<'a> {
    document: &'a Arc<Document>,
    config: &'a mut Config,
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
            let added = match kind {
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
                    self.entity::<Certificate>(node, place, parent, |config| {
                        &mut config.certificates
                    })
                }
                EntityKind::Sni => {
                    self.entity::<Sni>(node, place, parent, |config| &mut config.snis)
                }
                EntityKind::CaCertificate => {
                    self.entity::<CaCertificate>(node, place, parent, |config| {
                        &mut config.ca_certificates
                    })
                }
                EntityKind::Plugin => {
                    self.entity::<Plugin>(node, place, parent, |config| &mut config.plugins)
                }
            };
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

    /// Checks and reads one entity. Its index, unless it is no record at all.
    fn entity<T: Model>(
        &mut self,
        node: &Node,
        place: Place,
        parent: Option<(EntityKind, usize)>,
        list: impl Fn(&mut Config) -> &mut Vec<Entity<T>>,
    ) -> Option<usize> {
        let path = place.path();
        let without = if T::KIND == EntityKind::Consumer {
            self.refuse_nested(node, &path)
        } else {
            None
        };
        let checked = without.as_ref().unwrap_or(node);
        let Some(mut wrong) =
            check::check_entity(checked, T::shape(), Path::Root(&path), self.diagnostics)
        else {
            self.config.incomplete = true;
            return None;
        };
        let mut fields: T = self.read(node, &path, &mut wrong);
        let mut inspection = Inspection {
            node,
            path: &path,
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
    fn refuse_nested(&mut self, node: &Node, path: &str) -> Option<Node> {
        let unsupported = document::unsupported_entity;
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
