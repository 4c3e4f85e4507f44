//! The shape of the YAML, one file per entity, and what all entities have in common.

pub mod ca_certificate;
pub mod certificate;
pub mod consumer;
pub mod gateway;
pub mod healthchecks;
pub mod keyauth_credential;
pub mod plugin;
pub mod reference;
pub mod route;
pub mod service;
pub mod settings;
pub mod sni;
pub mod target;
pub mod upstream;
mod written;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use ca_certificate::CaCertificate;
pub use certificate::Certificate;
pub use consumer::Consumer;
pub use gateway::Gateway;
pub use keyauth_credential::KeyauthCredential;
pub use plugin::Plugin;
pub use reference::Reference;
pub use route::Route;
pub use service::Service;
pub use sni::Sni;
pub use target::Target;
pub use upstream::Upstream;

use super::diagnostics::{Code, Diagnostic, Diagnostics, Span};
use super::node::Node;
use super::schema::{Shape, shape_of};

/// The kinds of entities that this version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    Service,
    Route,
    Upstream,
    Target,
    Consumer,
    KeyauthCredential,
    Certificate,
    Sni,
    CaCertificate,
    Plugin,
}

impl EntityKind {
    /// Every kind; parents come before their children.
    pub const ALL: [Self; 10] = [
        Self::Service,
        Self::Route,
        Self::Upstream,
        Self::Target,
        Self::Consumer,
        Self::KeyauthCredential,
        Self::Certificate,
        Self::Sni,
        Self::CaCertificate,
        Self::Plugin,
    ];

    /// The key of the list that holds such entities.
    pub const fn list(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Route => "routes",
            Self::Upstream => "upstreams",
            Self::Target => "targets",
            Self::Consumer => "consumers",
            Self::KeyauthCredential => "keyauth_credentials",
            Self::Certificate => "certificates",
            Self::Sni => "snis",
            Self::CaCertificate => "ca_certificates",
            Self::Plugin => "plugins",
        }
    }

    /// The name of a foreign field that refers to such an entity.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Target => "target",
            Self::Consumer => "consumer",
            Self::KeyauthCredential => "keyauth_credential",
            Self::Certificate => "certificate",
            Self::Sni => "sni",
            Self::CaCertificate => "ca_certificate",
            Self::Plugin => "plugin",
        }
    }

    /// The kinds that may be nested inside such an entity.
    pub const fn children(self) -> &'static [Self] {
        match self {
            Self::Service => &[Self::Route, Self::Plugin],
            Self::Route => &[Self::Plugin],
            Self::Upstream => &[Self::Target],
            Self::Consumer => &[Self::KeyauthCredential, Self::Plugin],
            Self::Certificate => &[Self::Sni],
            Self::Target
            | Self::KeyauthCredential
            | Self::Sni
            | Self::CaCertificate
            | Self::Plugin => &[],
        }
    }
}

/// One kind of entity as it is written.
///
/// Every field has a default, so that an entity with a mistake can still be read and take part in further checks;
/// what is required is said by the schema's `required`.
pub trait Model: Default + DeserializeOwned + JsonSchema {
    const KIND: EntityKind;

    /// The shape of this type, made once, without the lists of nested entities.
    fn shape() -> &'static Shape;

    /// Completes shorthands and reports the rules that span several fields.
    fn settle(&mut self, _inspection: &mut Inspection<'_>) {}

    /// The id that is written, if one is.
    fn id(&self) -> Option<Uuid>;
}

/// The shape of an entity, nested lists included.
pub(super) fn entity_shape<T: Model>() -> Shape {
    let lists: Vec<&str> = T::KIND
        .children()
        .iter()
        .map(|child| child.list())
        .collect();
    shape_of::<T>().with_lists(&lists)
}

/// Implements the parts of [`Model`] that are the same for each entity.
macro_rules! model {
    ($kind:ident) => {
        const KIND: $crate::config::model::EntityKind = $crate::config::model::EntityKind::$kind;

        fn shape() -> &'static $crate::config::schema::Shape {
            static SHAPE: std::sync::LazyLock<$crate::config::schema::Shape> =
                std::sync::LazyLock::new($crate::config::model::entity_shape::<$kind>);
            &SHAPE
        }

        fn id(&self) -> Option<uuid::Uuid> {
            self.id
        }
    };
}
pub(crate) use model;

/// One entity while its rules are checked.
pub struct Inspection<'a> {
    pub(super) node: &'a Node,
    pub(super) path: &'a str,
    /// The fields that were already found to be wrong.
    pub(super) wrong: &'a [String],
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl Inspection<'_> {
    /// Whether the field is written and not `null`.
    pub fn has(&self, field: &str) -> bool {
        self.node.get(field).is_some()
    }

    /// Whether nothing was found wrong with the field, so that a rule may look at it.
    pub fn sound(&self, field: &str) -> bool {
        !self.wrong.iter().any(|wrong| wrong == field)
    }

    /// The value of a dotted path below the entity.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.node.at(path)
    }

    /// Reports a mistake at a field, or at the entity if the field is empty or absent.
    pub fn error(
        &mut self,
        code: Code,
        field: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let (span, path) = (self.node.span_at(field), self.path_of(field));
        self.diagnostics.error(code, span, path, message)
    }

    /// Remarks on a field, or on the entity if the field is empty or absent.
    pub fn warning(
        &mut self,
        code: Code,
        field: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let (span, path) = (self.node.span_at(field), self.path_of(field));
        self.diagnostics.warning(code, span, path, message)
    }

    fn path_of(&self, field: &str) -> String {
        if field.is_empty() {
            self.path.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }
}

/// One document as it was written, after values from outside were put in.
#[derive(Debug)]
pub struct Document {
    pub file: u16,
    /// What tells the positions of nameless entities in different files apart.
    pub name: String,
    pub root: Node,
}

/// Where an entity is written.
#[derive(Clone)]
pub struct Place {
    pub(super) document: Arc<Document>,
    pub(super) steps: Vec<(EntityKind, usize)>,
}

impl Place {
    /// The dotted path, such as `services[0].routes[1]`.
    pub fn path(&self) -> String {
        let steps: Vec<String> = self
            .steps
            .iter()
            .map(|(kind, index)| format!("{}[{index}]", kind.list()))
            .collect();
        steps.join(".")
    }

    /// The dotted path of a field, such as `services[0].routes[1].paths[0]`.
    pub fn path_of(&self, field: &str) -> String {
        if field.is_empty() {
            self.path()
        } else {
            format!("{}.{field}", self.path())
        }
    }

    /// The entity as it is written.
    pub fn node(&self) -> &Node {
        let mut node = &self.document.root;
        for (kind, index) in &self.steps {
            let item = node
                .entry(kind.list())
                .and_then(|entry| entry.value.items().get(*index));
            node = item.unwrap_or(node);
        }
        node
    }

    /// Where a field stands (`config.minute`, `paths[0]`): its value, else the nearest thing around it.
    pub fn at(&self, field: &str) -> Span {
        self.node().span_at(field)
    }

    /// Where the key of a field stands; for a field that is not there, like [`Place::at`].
    pub fn key_at(&self, field: &str) -> Span {
        let (parent, key) = field.rsplit_once('.').unwrap_or(("", field));
        let entry = self.node().at(parent).and_then(|parent| parent.entry(key));
        entry.map_or_else(|| self.at(field), |entry| entry.key_span)
    }

    /// Where the entity begins.
    pub fn span(&self) -> Span {
        self.node().span
    }

    /// What is the same after every reload for an entity that has no name: its position.
    pub fn position(&self) -> String {
        format!("{}:{}", self.document.name, self.path())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Place({} in file {})",
            self.path(),
            self.document.file
        )
    }
}

/// An entity with its id and place.
#[derive(Clone, Debug)]
pub struct Entity<T> {
    pub id: Uuid,
    pub fields: T,
    pub place: Place,
    /// The entity inside which it is written: its kind and its index in the list of that kind.
    pub parent: Option<(EntityKind, usize)>,
}

impl<T> Entity<T> {
    /// The index of the parent of a kind, if the entity is nested in one.
    pub fn nested_in(&self, kind: EntityKind) -> Option<usize> {
        self.parent
            .filter(|(parent, _)| *parent == kind)
            .map(|(_, index)| index)
    }
}

impl Entity<Plugin> {
    /// The plugin's `config` as written; `None` means all defaults.
    pub fn config(&self) -> Option<&Node> {
        self.place.node().get("config")
    }
}
