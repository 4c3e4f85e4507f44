//! What the operator wrote: files in, typed entities and diagnostics out. Knows nothing of how requests are served.

pub mod check;
pub mod diagnostics;
mod document;
pub mod environment;
pub mod formats;
mod hash;
mod identities;
mod merge;
mod migrate;
pub mod model;
pub mod node;
mod prepare;
pub mod read;
pub mod schema;
mod sources;
pub mod suggest;
pub mod yaml;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

pub use diagnostics::{Code, Diagnostic, Diagnostics, Severity, Span};
pub use model::{
    Consumer, Entity, EntityKind, Gateway, KeyauthCredential, Place, Plugin, Reference, Route, Service, Target, Upstream,
};
pub use node::Node;

use self::model::gateway;
use self::model::Document;
use self::schema::{Shape, shape_of};

/// What came out of loading: entities as far as they are usable, and everything that is wrong.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub diagnostics: Diagnostics,
    /// What to watch for changes: FILE and the conf.d folder, also if they do not exist.
    pub watch: Vec<PathBuf>,
}

/// A whole configuration. Nested entities stand in the same lists as the others and know their parents.
#[derive(Debug, Default)]
pub struct Config {
    pub gateway: Gateway,
    pub services: Vec<Entity<Service>>,
    pub routes: Vec<Entity<Route>>,
    pub upstreams: Vec<Entity<Upstream>>,
    pub targets: Vec<Entity<Target>>,
    pub consumers: Vec<Entity<Consumer>>,
    pub keyauth_credentials: Vec<Entity<KeyauthCredential>>,
    pub plugins: Vec<Entity<Plugin>>,
    /// Something could not be read at all, so a name that is not found may still exist.
    pub incomplete: bool,
    /// 32 hex digits that change when, and only when, the configuration does.
    pub hash: String,
}

/// Loads FILE and its conf.d fragments. It never fails: everything that is wrong is a diagnostic.
///
/// An entity with a mistake is still there, with the default in the place of the bad field, so that later checks find
/// its name; nothing may be served from a configuration whose diagnostics have errors.
pub fn load(path: &Path, environment: environment::Environment<'_>) -> Loaded {
    let mut diagnostics = Diagnostics::default();
    let mut sources = sources::read(path, environment, &mut diagnostics);
    // What a second key of the same name holds is not read, so it may be what a reference means.
    let incomplete = sources.incomplete || diagnostics.has(Code::DuplicateKey);
    let mut config = Config { incomplete, ..Config::default() };
    let mut main_version = None;
    for document in &mut sources.documents {
        let fragment = !document.name.is_empty();
        document::check(&document.root, fragment, &mut diagnostics);
        // A fragment whose main file cannot be read is taken for what is written today.
        let inherited = fragment.then(|| main_version.unwrap_or(document::FormatVersion::Three));
        let version = document::version(&document.root, inherited, &mut diagnostics);
        if !fragment {
            main_version = version;
            config.gateway = read_gateway(&document.root, &mut diagnostics);
        }
        prepare::prepare(&mut document.root, version, environment, &mut diagnostics);
    }
    let documents: Vec<Arc<Document>> = sources.documents.into_iter().map(Arc::new).collect();
    config.hash = hash::of(documents.iter().map(AsRef::as_ref));
    for document in &documents {
        merge::add(document, &mut config, &mut diagnostics);
    }
    identities::assign(&mut config);
    identities::check_unique(&config, &mut diagnostics);
    diagnostics.drop_consequences(&sources.failed);
    Loaded { config, diagnostics, watch: sources.watch }
}

fn read_gateway(root: &Node, diagnostics: &mut Diagnostics) -> Gateway {
    static SHAPE: LazyLock<Shape> = LazyLock::new(shape_of::<Gateway>);
    const PATH: &str = "gateway";
    let Some(node) = root.get(PATH) else { return Gateway::default() };
    let node = gateway::without_foreign_names(node, diagnostics);
    let Some(wrong) = check::check_entity(&node, &SHAPE, node::Path::Root(PATH), diagnostics) else {
        return Gateway::default();
    };
    read::read_without(&node, &wrong).unwrap_or_else(|error: read::ReadError| {
        let span = error.span.unwrap_or(node.span);
        diagnostics.error(Code::InvalidValue, span, format!("{PATH}.{}", error.path), error.to_string());
        Gateway::default()
    })
}
