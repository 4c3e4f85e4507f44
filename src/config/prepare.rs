//! What happens to a document before its entities are read: `_info`, `_plugin_configs`, values from vaults, and the
//! paths of old format versions. Everything keeps the place where it was written.

use super::diagnostics::{Code, Diagnostics};
use super::document::FormatVersion;
use super::environment::{self, Environment};
use super::migrate;
use super::model::EntityKind;
use super::node::{Entry, Kind, Node, Path};
use super::suggest::nearest;

/// Completes the entities of a document by what the document says elsewhere.
pub(super) fn prepare(
    root: &mut Node,
    version: Option<FormatVersion>,
    environment: Environment<'_>,
    diagnostics: &mut Diagnostics,
) {
    let info = root.get("_info").cloned();
    let info = Info::read(info.as_ref(), diagnostics);
    let shared = root.get("_plugin_configs").cloned();
    let mut preparation = Preparation {
        info,
        shared,
        version,
        environment,
        diagnostics,
    };
    preparation.lists(root, &EntityKind::ALL, Path::Root(""));
}

/// deck's `_info`: what all entities of a document have in common.
#[derive(Default)]
struct Info<'a> {
    defaults: Option<&'a Node>,
    tags: Vec<Node>,
}

impl<'a> Info<'a> {
    fn read(info: Option<&'a Node>, diagnostics: &mut Diagnostics) -> Self {
        let Some(info) = info else {
            return Self::default();
        };
        for entry in info.entries() {
            check_info(entry, diagnostics);
        }
        let tags = info
            .get("select_tags")
            .map(|tags| tags.items().to_vec())
            .unwrap_or_default();
        Self {
            defaults: info.get("defaults"),
            tags,
        }
    }
}

/// The kinds for which `_info.defaults` may have defaults.
pub(super) const WITH_DEFAULTS: [EntityKind; 4] = [
    EntityKind::Service,
    EntityKind::Route,
    EntityKind::Upstream,
    EntityKind::Target,
];

fn check_info(entry: &Entry, diagnostics: &mut Diagnostics) {
    let path = format!("_info.{}", entry.key);
    match (entry.key.as_str(), &entry.value.kind) {
        ("lookup_tags" | "consumer_group_policy_overrides", _)
        | ("select_tags" | "defaults", Kind::Null)
        | ("select_tags", Kind::Sequence(_)) => {}
        ("defaults", Kind::Mapping(kinds)) => {
            for kind in kinds {
                let known = || WITH_DEFAULTS.iter().map(|kind| kind.singular());
                if !known().any(|name| name == kind.key) {
                    let message = format!("unknown field `{}`", kind.key);
                    diagnostics
                        .error(
                            Code::UnknownField,
                            kind.key_span,
                            format!("{path}.{}", kind.key),
                            message,
                        )
                        .did_you_mean(nearest(&kind.key, known()));
                }
            }
        }
        ("select_tags" | "defaults", _) => {
            let expected = if entry.key == "defaults" {
                "a record"
            } else {
                "an array"
            };
            let message = format!("expected {expected}, found {}", entry.value.described());
            diagnostics.error(Code::WrongType, entry.value.span, path, message);
        }
        _ => {
            let message = format!("unknown field `{}`", entry.key);
            diagnostics
                .error(Code::UnknownField, entry.key_span, path, message)
                .did_you_mean(nearest(
                    &entry.key,
                    ["select_tags", "defaults", "lookup_tags"],
                ));
        }
    }
}

struct Preparation<'a> {
    info: Info<'a>,
    shared: Option<Node>,
    version: Option<FormatVersion>,
    environment: Environment<'a>,
    diagnostics: &'a mut Diagnostics,
}

impl Preparation<'_> {
    fn lists(&mut self, parent: &mut Node, kinds: &[EntityKind], path: Path<'_>) {
        for &kind in kinds {
            let list_path = path.key(kind.list());
            let Some(list) = parent.get_mut(kind.list()) else {
                continue;
            };
            for (index, entity) in list.items_mut().iter_mut().enumerate() {
                if kind == EntityKind::Sni {
                    name_alone(entity);
                }
                if matches!(entity.kind, Kind::Mapping(_)) {
                    let path = list_path.index(index);
                    self.entity(kind, entity, path);
                    self.lists(entity, kind.children(), path);
                }
            }
        }
    }

    fn entity(&mut self, kind: EntityKind, entity: &mut Node, path: Path<'_>) {
        let defaults = self.info.defaults.filter(|_| WITH_DEFAULTS.contains(&kind));
        if let Some(defaults) = defaults.and_then(|defaults| defaults.get(kind.singular())) {
            fill_in(entity, defaults);
        }
        self.add_tags(entity);
        match kind {
            EntityKind::Plugin => {
                self.use_shared_config(entity, path);
                if let Some(config) = entity.get_mut("config") {
                    self.open_vaults(config, path.key("config"));
                }
            }
            EntityKind::KeyauthCredential | EntityKind::Certificate | EntityKind::CaCertificate => {
                self.open_vaults(entity, path)
            }
            EntityKind::Route if self.version == Some(FormatVersion::BeforeTilde) => {
                for item in entity
                    .get_mut("paths")
                    .into_iter()
                    .flat_map(Node::items_mut)
                {
                    if let Kind::String(text) = &mut item.kind {
                        *text = migrate::path(text);
                    }
                }
            }
            _ => {}
        }
    }

    fn add_tags(&self, entity: &mut Node) {
        let Kind::Mapping(entries) = &mut entity.kind else {
            return;
        };
        if self.info.tags.is_empty() {
            return;
        }
        match entries.iter_mut().find(|entry| entry.key == "tags") {
            Some(Entry {
                value:
                    Node {
                        kind: Kind::Sequence(tags),
                        ..
                    },
                ..
            }) => tags.extend(self.info.tags.clone()),
            Some(entry) if entry.value.is_null() => {
                entry.value.kind = Kind::Sequence(self.info.tags.clone());
            }
            Some(_) => {}
            None => {
                let span = entity.span;
                let value = Node::new(span, Kind::Sequence(self.info.tags.clone()));
                entries.push(Entry {
                    key: "tags".to_owned(),
                    key_span: span,
                    value,
                });
            }
        }
    }

    /// deck's `_config`: the plugin's own `config` wins key by key.
    fn use_shared_config(&mut self, plugin: &mut Node, path: Path<'_>) {
        let Some(name) = plugin.get("_config").cloned() else {
            return;
        };
        let Some(text) = name.as_str() else { return };
        let Some(shared) = self.shared.as_ref().and_then(|shared| shared.get(text)) else {
            let known = self
                .shared
                .iter()
                .flat_map(Node::entries)
                .map(|entry| entry.key.as_str());
            let message = format!("`{text}` is not among the document's `_plugin_configs`");
            self.diagnostics
                .error(
                    Code::UnknownReference,
                    name.span,
                    path.key("_config").to_string(),
                    message,
                )
                .did_you_mean(nearest(text, known));
            return;
        };
        match plugin.get_mut("config") {
            Some(config) if !config.is_null() => fill_in(config, shared),
            Some(config) => *config = shared.clone(),
            None => {
                if let Kind::Mapping(entries) = &mut plugin.kind {
                    entries.push(Entry {
                        key: "config".to_owned(),
                        key_span: name.span,
                        value: shared.clone(),
                    });
                }
            }
        }
    }

    fn open_vaults(&mut self, node: &mut Node, path: Path<'_>) {
        match &mut node.kind {
            Kind::String(text) => match environment::vault(text, self.environment) {
                None => {}
                Some(Ok(value)) => {
                    *text = value;
                    node.secret = true;
                }
                Some(Err(message)) => {
                    self.diagnostics
                        .error(Code::Environment, node.span, path.to_string(), message);
                }
            },
            Kind::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.open_vaults(item, path.index(index));
                }
            }
            Kind::Mapping(entries) => {
                for entry in entries {
                    let Entry { key, value, .. } = entry;
                    self.open_vaults(value, path.key(key));
                }
            }
            _ => {}
        }
    }
}

/// A name alone is short for an sni with that name.
fn name_alone(sni: &mut Node) {
    if let Kind::String(_) = sni.kind {
        let name = Entry {
            key: "name".to_owned(),
            key_span: sni.span,
            value: sni.clone(),
        };
        sni.kind = Kind::Mapping(vec![name]);
    }
}

/// Adds what a record leaves out, nested records included.
fn fill_in(node: &mut Node, defaults: &Node) {
    let Kind::Mapping(entries) = &mut node.kind else {
        return;
    };
    for default in defaults.entries() {
        match entries.iter_mut().find(|entry| entry.key == default.key) {
            Some(entry) => fill_in(&mut entry.value, &default.value),
            None => entries.push(default.clone()),
        }
    }
}
