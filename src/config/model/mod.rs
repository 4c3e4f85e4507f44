//! The shape of the YAML, one file per entity, and what all entities have in common.

pub mod acl;
pub mod basicauth_credential;
pub mod ca_certificate;
pub mod certificate;
pub mod consumer;
pub mod consumer_group;
pub mod discovery;
pub mod dns;
pub mod gateway;
pub mod healthchecks;
pub mod hmacauth_credential;
pub mod jwt_secret;
pub mod keepalive;
pub mod key;
pub mod keyauth_credential;
pub mod listen;
pub mod oauth2_credential;
pub mod ordering;
pub mod plugin;
pub mod reference;
pub mod retry;
pub mod route;
pub mod service;
pub mod settings;
pub mod sni;
pub mod target;
pub mod tls;
pub mod upstream;
pub mod vault;
mod written;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub use acl::Acl;
pub use basicauth_credential::BasicauthCredential;
pub use ca_certificate::CaCertificate;
pub use certificate::Certificate;
pub use consumer::Consumer;
pub use consumer_group::{ConsumerGroup, ConsumerGroupConsumer};
pub use gateway::Gateway;
pub use hmacauth_credential::HmacauthCredential;
pub use jwt_secret::JwtSecret;
pub use key::{Key, KeySet};
pub use keyauth_credential::KeyauthCredential;
pub use oauth2_credential::Oauth2Credential;
pub use plugin::Plugin;
pub use reference::Reference;
pub use route::Route;
pub use service::Service;
pub use sni::Sni;
pub use target::Target;
pub use upstream::Upstream;
pub use vault::Vault;

use super::diagnostics::{Code, Diagnostic, Diagnostics, Span};
use super::node::{Kind, Node};
use super::schema::{Shape, shape_of};
use crate::entity::{Secret, identifier};

/// The kinds of entities that this version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    Service,
    Route,
    Upstream,
    Target,
    Consumer,
    ConsumerGroup,
    ConsumerGroupConsumer,
    KeyauthCredential,
    BasicauthCredential,
    JwtSecret,
    HmacauthCredential,
    Oauth2Credential,
    Acl,
    KeySet,
    Key,
    Vault,
    Certificate,
    Sni,
    CaCertificate,
    Plugin,
    /// A plugin of a consumer group in a list of its own; but for the list it is like any other.
    ConsumerGroupPlugin,
}

impl EntityKind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Service,
        Self::Route,
        Self::Upstream,
        Self::Target,
        Self::Consumer,
        Self::ConsumerGroup,
        Self::ConsumerGroupConsumer,
        Self::KeyauthCredential,
        Self::BasicauthCredential,
        Self::JwtSecret,
        Self::HmacauthCredential,
        Self::Oauth2Credential,
        Self::Acl,
        Self::KeySet,
        Self::Key,
        Self::Vault,
        Self::Certificate,
        Self::Sni,
        Self::CaCertificate,
        Self::Plugin,
        Self::ConsumerGroupPlugin,
    ];

    /// The key of the list that holds such entities.
    pub const fn list(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Route => "routes",
            Self::Upstream => "upstreams",
            Self::Target => "targets",
            Self::Consumer => "consumers",
            Self::ConsumerGroup => "consumer_groups",
            Self::ConsumerGroupConsumer => "consumer_group_consumers",
            Self::KeyauthCredential => "keyauth_credentials",
            Self::BasicauthCredential => "basicauth_credentials",
            Self::JwtSecret => "jwt_secrets",
            Self::HmacauthCredential => "hmacauth_credentials",
            Self::Oauth2Credential => "oauth2_credentials",
            Self::Acl => "acls",
            Self::KeySet => "key_sets",
            Self::Key => "keys",
            Self::Vault => "vaults",
            Self::Certificate => "certificates",
            Self::Sni => "snis",
            Self::CaCertificate => "ca_certificates",
            Self::Plugin => "plugins",
            Self::ConsumerGroupPlugin => "consumer_group_plugins",
        }
    }

    /// One such entity, as messages call it.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Target => "target",
            Self::Consumer => "consumer",
            Self::ConsumerGroup => "consumer_group",
            Self::ConsumerGroupConsumer => "consumer_group_consumer",
            Self::KeyauthCredential => "keyauth_credential",
            Self::BasicauthCredential => "basicauth_credential",
            Self::JwtSecret => "jwt_secret",
            Self::HmacauthCredential => "hmacauth_credential",
            Self::Oauth2Credential => "oauth2_credential",
            Self::Acl => "acl",
            Self::KeySet => "key_set",
            Self::Key => "key",
            Self::Vault => "vault",
            Self::Certificate => "certificate",
            Self::Sni => "sni",
            Self::CaCertificate => "ca_certificate",
            Self::Plugin => "plugin",
            Self::ConsumerGroupPlugin => "consumer_group_plugin",
        }
    }

    /// The name of a foreign field that refers to such an entity.
    pub const fn foreign_field(self) -> &'static str {
        match self {
            Self::KeySet => "set",
            _ => self.singular(),
        }
    }

    /// The name of the field by which a `child` refers to such an entity.
    pub const fn foreign_field_of(self, child: Self) -> &'static str {
        match (self, child) {
            (Self::Certificate, Self::Service | Self::Upstream) => "client_certificate",
            _ => self.foreign_field(),
        }
    }

    /// The kinds that may be nested inside such an entity.
    pub const fn children(self) -> &'static [Self] {
        match self {
            Self::Service => &[Self::Route, Self::Plugin],
            Self::Route => &[Self::Plugin],
            Self::Upstream => &[Self::Target],
            Self::Consumer => &[
                Self::ConsumerGroupConsumer,
                Self::KeyauthCredential,
                Self::BasicauthCredential,
                Self::JwtSecret,
                Self::HmacauthCredential,
                Self::Oauth2Credential,
                Self::Acl,
                Self::Plugin,
            ],
            Self::ConsumerGroup => &[
                Self::Consumer,
                Self::ConsumerGroupConsumer,
                Self::Plugin,
                Self::ConsumerGroupPlugin,
            ],
            Self::KeySet => &[Self::Key],
            Self::Certificate => &[Self::Sni, Self::Service, Self::Upstream],
            _ => &[],
        }
    }

    /// Whether such an entity is a plugin.
    pub const fn is_plugin(self) -> bool {
        matches!(self, Self::Plugin | Self::ConsumerGroupPlugin)
    }

    /// Whether the strings of such an entity may come from a vault. Those of a plugin's `config` may as well.
    pub const fn has_secrets(self) -> bool {
        matches!(
            self,
            Self::KeyauthCredential
                | Self::BasicauthCredential
                | Self::JwtSecret
                | Self::HmacauthCredential
                | Self::Oauth2Credential
                | Self::Acl
                | Self::Key
                | Self::Certificate
                | Self::CaCertificate
        )
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
    pub(super) place: &'a Place,
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

    /// Whether the entity is written inside one of this kind.
    pub fn is_nested_in(&self, kind: EntityKind) -> bool {
        let mut around = self.place.steps.iter().rev().skip(1);
        around.next().is_some_and(|(parent, _)| *parent == kind)
    }

    /// The value of a dotted path below the entity.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.node.at(path)
    }

    /// A name for an entity that was given none, which the operator is told.
    pub fn generated_name(&mut self, field: &str) -> String {
        let list = self.place.kind().list();
        let position = format!("{}.{field}", self.place.position());
        let name = identifier::derive(list, &position).simple().to_string();
        self.warning(
            Code::GeneratedKey,
            "",
            format!("the credential has no `{field}`, so `{name}` is used"),
        )
        .hint(format!("write the {field}"));
        name
    }

    /// A secret for a credential that was given none: nobody knows it, but reloads keep it.
    pub fn generated_secret(&mut self, field: &str) -> Secret<String> {
        let position = format!("{}.{field}", self.place.position());
        self.warning(
            Code::GeneratedKey,
            "",
            format!("the credential has no `{field}`, so a random one is used that nobody knows"),
        )
        .hint(format!("write the {field}"));
        Secret::generated(&position)
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
#[derive(Clone, Debug)]
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
    /// The kind of the entity.
    pub fn kind(&self) -> EntityKind {
        let last = self.steps.last();
        last.map_or(EntityKind::Service, |(kind, _)| *kind)
    }

    /// Whether what is written is still to be brought into the form in which it is kept; a document that was
    /// exported says `_transform: false`, or as deck has it `skip_hash_for_basic_auth: true`.
    pub fn is_transformed(&self) -> bool {
        let root = &self.document.root;
        let says = |path: &str, value: bool| {
            root.at(path)
                .is_some_and(|node| matches!(node.kind, Kind::Bool(found) if found == value))
        };
        !says("_transform", false) && !says("_info.skip_hash_for_basic_auth", true)
    }

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
