//! What the operator wrote: files in, typed entities and diagnostics out. Knows nothing of how requests are served.

pub mod check;
pub mod consul_files;
pub mod diagnostics;
mod discovered;
mod document;
pub mod editor;
pub mod environment;
pub mod formats;
mod hash;
mod identities;
mod members;
mod merge;
mod migrate;
pub mod model;
mod named_files;
pub mod node;
pub mod outbound_files;
pub mod outline;
pub mod pem_files;
mod prepare;
pub mod read;
pub mod schema;
mod shared_addresses;
mod sources;
pub mod suggest;
mod templates;
mod vaults;
pub mod yaml;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

pub use diagnostics::{Code, Diagnostic, Diagnostics, Severity, Span};
pub use discovered::Services as DiscoveredServices;
pub use model::{
    Acl, BasicauthCredential, CaCertificate, Certificate, Consumer, ConsumerGroup,
    ConsumerGroupConsumer, Entity, EntityKind, Gateway, HmacauthCredential, JwtSecret, Key, KeySet,
    KeyauthCredential, Oauth2Credential, Place, Plugin, Reference, Route, Service, Sni, Target,
    Upstream, Vault,
};
pub use node::Node;
pub use sources::is_test_file;

use crate::entity::error_template::ErrorTemplates;

use self::consul_files::ConsulFiles;
use self::model::Document;
use self::model::gateway;
use self::named_files::NamedFiles;
use self::outbound_files::OutboundFiles;
use self::pem_files::{PairFiles, PemFile};
use self::schema::{Shape, shape_of};

/// What came out of loading: entities as far as they are usable, and everything that is wrong.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub diagnostics: Diagnostics,
    /// What to watch for changes: FILE, the conf.d folder and the files of certificates, also if they do not exist.
    pub watch: Vec<PathBuf>,
    /// The discovered services that are in the configuration, by the index of what stands for their file.
    pub discovered: Vec<(u16, String)>,
    /// The discovered services that are not, each with the reason.
    pub skipped: Vec<(String, String)>,
    /// What all this was put together from, where services are discovered: to be put together again with others.
    pub documents: Option<Arc<Documents>>,
}

/// The documents of a configuration as they were read.
#[derive(Debug)]
pub struct Documents {
    sources: sources::Sources,
    /// What was found wrong while they were read.
    diagnostics: Diagnostics,
    /// What files that the settings name are relative to.
    folder: PathBuf,
    /// What stands in these files.
    files: NamedFiles,
}

impl Documents {
    /// Puts a configuration together from the documents and from services that were discovered, which come last.
    pub fn assemble(
        &self,
        services: &DiscoveredServices,
        environment: environment::Environment<'_>,
    ) -> Loaded {
        let (sources, diagnostics) = (self.sources.clone(), self.diagnostics.clone());
        let files = (self.folder.as_path(), &self.files);
        assemble(sources, files, services, environment, diagnostics)
    }

    /// The same without services, for the first time: keeps the documents if services may come.
    fn load(self, environment: environment::Environment<'_>) -> Loaded {
        let none = DiscoveredServices::new();
        if self.discovers() {
            let mut loaded = self.assemble(&none, environment);
            loaded.documents = Some(Arc::new(self));
            return loaded;
        }
        let Self {
            sources,
            diagnostics,
            folder,
            files,
        } = self;
        assemble(sources, (&folder, &files), &none, environment, diagnostics)
    }

    /// Whether services are discovered beside those of the documents.
    fn discovers(&self) -> bool {
        let mut roots = self.sources.documents.iter().map(|document| &document.root);
        roots.any(|root| root.at("gateway.discovery").is_some())
    }
}

/// A whole configuration. Nested entities stand in the same lists as the others and know their parents.
#[derive(Debug, Default)]
pub struct Config {
    pub gateway: Gateway,
    pub error_templates: ErrorTemplates,
    pub services: Vec<Entity<Service>>,
    pub routes: Vec<Entity<Route>>,
    pub upstreams: Vec<Entity<Upstream>>,
    pub targets: Vec<Entity<Target>>,
    pub consumers: Vec<Entity<Consumer>>,
    pub consumer_groups: Vec<Entity<ConsumerGroup>>,
    /// Who is in which group, as far as neither the group nor the consumer says so itself.
    pub consumer_group_consumers: Vec<Entity<ConsumerGroupConsumer>>,
    pub keyauth_credentials: Vec<Entity<KeyauthCredential>>,
    pub basicauth_credentials: Vec<Entity<BasicauthCredential>>,
    pub jwt_secrets: Vec<Entity<JwtSecret>>,
    pub hmacauth_credentials: Vec<Entity<HmacauthCredential>>,
    pub oauth2_credentials: Vec<Entity<Oauth2Credential>>,
    pub acls: Vec<Entity<Acl>>,
    pub key_sets: Vec<Entity<KeySet>>,
    pub keys: Vec<Entity<Key>>,
    pub vaults: Vec<Entity<Vault>>,
    pub certificates: Vec<Entity<Certificate>>,
    pub snis: Vec<Entity<Sni>>,
    pub ca_certificates: Vec<Entity<CaCertificate>>,
    pub plugins: Vec<Entity<Plugin>>,
    /// What is in the files of `ssl_cert` and `ssl_cert_key`.
    pub default_pairs: Vec<PairFiles>,
    /// What `ssl_dhparam` says, if that is not the name of a group.
    pub dh_parameters: Option<PemFile>,
    /// What is in the files for TLS towards upstreams.
    pub outbound_files: OutboundFiles,
    /// What is in the files for TLS to Consul.
    pub consul_files: ConsulFiles,
    /// The main file.
    main: Option<Arc<Document>>,
    /// Something could not be read at all, so a name that is not found may still exist.
    pub incomplete: bool,
    /// 32 hex digits that change when, and only when, the configuration does.
    pub hash: String,
}

impl Config {
    /// Where a setting of the gateway is written, else the nearest thing around it.
    pub fn setting_at(&self, field: &str) -> Span {
        let node = self.main.as_ref().map(|main| &main.root);
        node.map_or_else(Span::default, |node| {
            node.span_at(&format!("gateway.{field}"))
        })
    }
}

/// Loads FILE and its conf.d fragments. It never fails: everything that is wrong is a diagnostic.
///
/// An entity with a mistake is still there, with the default in the place of the bad field, so that later checks find
/// its name; nothing may be served from a configuration whose diagnostics have errors.
pub fn load(path: &Path, environment: environment::Environment<'_>) -> Loaded {
    let mut diagnostics = Diagnostics::default();
    let documents = Documents {
        sources: sources::read(path, environment, &mut diagnostics),
        diagnostics,
        folder: path.parent().unwrap_or_else(|| Path::new("")).to_owned(),
        files: NamedFiles::default(),
    };
    documents.load(environment)
}

/// Loads a document that is in no file, as [`load`] does one that is. Diagnostics call it `called`.
pub fn load_text(text: String, called: &str, environment: environment::Environment<'_>) -> Loaded {
    let mut diagnostics = Diagnostics::default();
    let documents = Documents {
        sources: sources::take(text, called, environment, &mut diagnostics),
        diagnostics,
        folder: PathBuf::new(),
        files: NamedFiles::default(),
    };
    documents.load(environment)
}

/// Reads one document of another kind than configurations, with values from the environment put in. `None`, with a
/// diagnostic, if there is no usable tree.
pub fn read_tree(
    path: &Path,
    environment: environment::Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
    sources::tree(path, environment, diagnostics)
}

/// `folder`: what files that the settings name are relative to; `files`: what stands in them.
fn assemble(
    mut sources: sources::Sources,
    (folder, files): (&Path, &NamedFiles),
    services: &DiscoveredServices,
    environment: environment::Environment<'_>,
    mut diagnostics: Diagnostics,
) -> Loaded {
    // What a second key of the same name holds is not read, so it may be what a reference means.
    let incomplete = sources.incomplete || diagnostics.has(Code::DuplicateKey);
    let mut config = Config {
        incomplete,
        ..Config::default()
    };
    let roots = sources.documents.iter().map(|document| &document.root);
    let common = prepare::Common::of(roots, environment);
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
            if let Some(node) = document.root.get("gateway") {
                let mut reader = pem_files::Reader {
                    node,
                    folder,
                    files,
                    watch: &mut sources.watch,
                    diagnostics: &mut diagnostics,
                };
                config.outbound_files = outbound_files::read(&config.gateway, &mut reader);
                config.default_pairs = pem_files::read(&config.gateway, &mut reader);
                config.dh_parameters = pem_files::dh_parameters(&config.gateway, &mut reader);
            }
        }
        prepare::prepare(&mut document.root, version, &common, &mut diagnostics);
    }
    let mut found = Found::default();
    found.add(services, &config.gateway, &mut diagnostics);
    for document in &mut found.documents {
        let version = Some(document::FormatVersion::Three);
        prepare::prepare(&mut document.root, version, &common, &mut diagnostics);
    }
    let written = sources.documents.into_iter().chain(found.documents);
    let documents: Vec<Arc<Document>> = written.map(Arc::new).collect();
    config.main = documents
        .iter()
        .find(|document| document.name.is_empty())
        .cloned();
    let templates = templates::read(
        &config.gateway,
        (folder, files),
        |setting| config.setting_at(setting),
        &mut diagnostics,
    );
    config.error_templates = templates.templates;
    sources.watch.extend(templates.files);
    let mut members = Vec::new();
    for document in &documents {
        merge::add(document, &mut config, &mut members, &mut diagnostics);
    }
    members::add(members, &mut config, &mut diagnostics);
    config.consul_files = consul_files::read(
        &config,
        (folder, files),
        &mut sources.watch,
        &mut diagnostics,
    );
    let pairs = config.default_pairs.iter();
    let files = pairs
        .flat_map(|pair| [&pair.certificate, &pair.key])
        .chain(&config.dh_parameters)
        .chain(config.outbound_files.all());
    config.hash = hash::of(&documents, files, &config.consul_files, &templates.texts);
    identities::assign(&mut config);
    identities::check_unique(&config, &mut diagnostics);
    diagnostics.drop_consequences(&sources.failed);
    Loaded {
        config,
        diagnostics,
        watch: sources.watch,
        discovered: found.services,
        skipped: found.skipped,
        documents: None,
    }
}

/// The services that a registry names.
#[derive(Default)]
struct Found {
    documents: Vec<Document>,
    services: Vec<(u16, String)>,
    skipped: Vec<(String, String)>,
}

impl Found {
    fn add(
        &mut self,
        services: &DiscoveredServices,
        gateway: &Gateway,
        diagnostics: &mut Diagnostics,
    ) {
        let consul = gateway.discovery.as_ref();
        let Some(consul) = consul.and_then(|discovery| discovery.consul.as_ref()) else {
            return;
        };
        for (service, tags) in services {
            let file = diagnostics.add_file(discovered::called(service));
            match discovered::document(service, tags, consul, file) {
                Ok(document) => {
                    self.documents.push(document);
                    self.services.push((file, service.clone()));
                }
                Err(reason) => self.skipped.push((service.clone(), reason)),
            }
        }
    }
}

fn read_gateway(root: &Node, diagnostics: &mut Diagnostics) -> Gateway {
    static SHAPE: LazyLock<Shape> = LazyLock::new(shape_of::<Gateway>);
    const PATH: &str = "gateway";
    let Some(node) = root.get(PATH) else {
        return Gateway::default();
    };
    let node = gateway::without_foreign_names(node, diagnostics);
    let Some(wrong) = check::check_entity(&node, &SHAPE, node::Path::Root(PATH), diagnostics)
    else {
        return Gateway::default();
    };
    let gateway = read::read_without(&node, &wrong).unwrap_or_else(|error: read::ReadError| {
        let span = error.span.unwrap_or(node.span);
        diagnostics.error(
            Code::InvalidValue,
            span,
            format!("{PATH}.{}", error.path),
            error.to_string(),
        );
        Gateway::default()
    });
    if wrong.is_empty() {
        gateway::check(&gateway, &node, diagnostics);
    }
    // Where one of them is wrong its default stands in its place.
    let is_sound = |setting: &&str| !wrong.iter().any(|field| field == setting);
    if ["listen", "stream_listen", "admin"].iter().all(is_sound) {
        shared_addresses::check(&gateway, &node, diagnostics);
    }
    gateway
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Loads one file in a folder of its own, with fragments.
    fn load_files(main: &str, fragments: &[(&str, &str)]) -> (Loaded, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        fs::write(&path, main).unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in fragments {
            fs::write(folder.path().join("conf.d").join(name), text).unwrap();
        }
        let environment = |name: &str| (name == "API_KEY").then(|| "from-vault".to_owned());
        let loaded = load(&path, &environment);
        let text = loaded
            .diagnostics
            .to_text()
            .replace(&format!("{}/", folder.path().display()), "");
        (loaded, text)
    }

    fn load_text(text: &str) -> (Config, String) {
        let (loaded, diagnostics) = load_files(&format!("_format_version: \"3.0\"\n{text}"), &[]);
        (loaded.config, diagnostics)
    }

    #[test]
    fn nested_entities_stand_beside_the_others_and_know_their_parents() {
        let (config, diagnostics) = load_text(
            "services:\n- name: a\n  url: https://h/v1\n  plugins: [{name: cors}]\n  routes:\n  - paths: [/a]\n    plugins: [{name: jwt, config: {x: 1}}]\n\
             consumers:\n- username: c\n  keyauth_credentials: [{key: k}]\n  plugins: [{name: acl}]\n\
             upstreams:\n- name: u\n  targets: [{target: 'x:1', weight: 5}]\nplugins: [{name: prometheus}]\n",
        );
        assert_eq!(diagnostics, "");
        assert_eq!(config.services[0].fields.port, 443);
        assert_eq!(config.routes[0].nested_in(EntityKind::Service), Some(0));
        assert_eq!(config.targets[0].nested_in(EntityKind::Upstream), Some(0));
        assert_eq!(
            config.keyauth_credentials[0].nested_in(EntityKind::Consumer),
            Some(0)
        );
        let parents: Vec<_> = config
            .plugins
            .iter()
            .map(|plugin| (plugin.fields.name.as_str(), plugin.parent))
            .collect();
        assert_eq!(
            parents,
            [
                ("jwt", Some((EntityKind::Route, 0))),
                ("cors", Some((EntityKind::Service, 0))),
                ("acl", Some((EntityKind::Consumer, 0))),
                ("prometheus", None),
            ]
        );
        assert_eq!(
            config.plugins[0].place.path(),
            "services[0].routes[0].plugins[0]"
        );
        assert_eq!(config.plugins[0].place.at("config.x").line, 8);
        assert_eq!(
            config.plugins[0].place.at("config.y.z").line,
            8,
            "the nearest thing around it"
        );
        assert_eq!(
            config.plugins[0].config().unwrap().at("x").unwrap().text(),
            "1"
        );
    }

    #[test]
    fn what_files_held_is_kept_with_the_documents_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let named = ["a.crt", "a.key", "ca.pem", "consul.pem", "plain.txt"];
        let named = named.map(|name| folder.path().join(name));
        for file in &named {
            fs::write(file, "%s %s").unwrap();
        }
        let path = folder.path().join("gateway.yaml");
        let text = "_format_version: \"3.0\"\ngateway:\n  ssl_cert: a.crt\n  ssl_cert_key: a.key\n  trusted_certificates: [ca.pem]\n  error_template_plain: plain.txt\n  discovery: {consul: {address: 'https://127.0.0.1:8501', ca_file: consul.pem}}\n";
        fs::write(&path, text).unwrap();
        let loaded = load(&path, &|_| None);
        assert_eq!(loaded.diagnostics.to_text(), "");
        for file in &named {
            fs::remove_file(file).unwrap();
        }
        let documents = loaded.documents.unwrap();
        let again = documents.assemble(&DiscoveredServices::new(), &|_| None);
        assert_eq!(again.diagnostics.to_text(), "");
        assert_eq!(again.config.hash, loaded.config.hash);
        assert!(load(&path, &|_| None).diagnostics.has_errors());
    }

    #[test]
    fn fragments_are_more_of_the_same_configuration() {
        let (loaded, diagnostics) = load_files(
            "_format_version: \"3.0\"\ngateway: {conf_d: conf.d}\nservices: [{name: a, host: h}]\n",
            &[
                ("20-b.yaml", "services: [{name: a, host: h}]\n"),
                (
                    "10-a.yaml",
                    "services: [{name: b, host: h}]\ngateway: {listen: off}\n",
                ),
            ],
        );
        let names: Vec<_> = loaded
            .config
            .services
            .iter()
            .map(|service| service.fields.name.clone().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!(
            diagnostics,
            "conf.d/10-a.yaml:2:1: error[config::misplaced_field]: gateway: `gateway` settings do not belong into a fragment (move them into the main file)\n\
             conf.d/20-b.yaml:1:19: error[config::duplicate]: services[0].name: uniqueness violation: 'services' entity with name set to 'a' already declared (the first one is at gateway.yaml:3:19)\n"
        );
    }

    #[test]
    fn ids_are_those_that_kong_derives() {
        let (config, _) = load_text(
            "services: [{name: a, host: h, routes: [{name: r, paths: [/]}, {paths: [/x]}]}]\nupstreams: [{name: u, targets: [{target: 'x:1'}]}]\n",
        );
        assert_eq!(
            config.services[0].id,
            crate::entity::identifier::derive("services", "a")
        );
        let target = format!("x:1:{}:*", config.upstreams[0].id);
        assert_eq!(
            config.targets[0].id,
            crate::entity::identifier::derive("targets", &target)
        );
        let (again, _) = load_text(
            "services: [{name: a, host: h, routes: [{name: q, paths: [/]}, {paths: [/y]}]}]\n",
        );
        assert_eq!(
            config.routes[1].id, again.routes[1].id,
            "a nameless entity is known by its position"
        );
        assert_ne!(config.routes[0].id, again.routes[0].id);
    }

    #[test]
    fn an_entity_with_a_mistake_keeps_its_name_for_later_checks() {
        let (config, diagnostics) =
            load_text("services: [{name: a, host: h, retries: -1, port: 81}]\n");
        assert_eq!(diagnostics.lines().count(), 1, "{diagnostics}");
        let service = &config.services[0].fields;
        assert_eq!(
            (service.name.as_deref(), service.retries, service.port),
            (Some("a"), 5, 81)
        );
    }

    #[test]
    fn the_hash_changes_with_the_content_alone() {
        let hash = |text: &str| load_text(text).0.hash;
        let plain = hash("services:\n- name: a\n  host: h\n");
        assert_eq!(plain.len(), 32);
        assert_eq!(
            plain,
            hash("# comment\nservices: [{host: h, name: 'a', port: null, _comment: x}]\n\n")
        );
        for other in [
            "services: [{name: a, host: i}]\n",
            "services: [{name: a, host: h, port: 81}]\n",
            "upstreams: [{name: a}]\n",
        ] {
            assert_ne!(plain, hash(other), "{other}");
        }
        assert_ne!(
            plain,
            hash("services: [{name: a, host: h}]\ngateway: {log_level: debug}\n")
        );
    }

    #[test]
    fn settings_have_rich_types() {
        let (config, diagnostics) = load_text(
            "gateway:\n  listen: 127.0.0.1:1 reuseport, 127.0.0.1:2\n  admin: off\n  threads: 3\n  trusted_ips: [10.0.0.0/8, '::1']\n\
             \x20 real_ip_recursive: on\n  client_max_body_size: 10m\n  keepalive_timeout: 1.5\n  headers: off\n  plugins: bundled\n",
        );
        assert_eq!(diagnostics, "");
        let gateway = config.gateway;
        assert_eq!(gateway.listen.addresses().count(), 2);
        assert_eq!(gateway.admin.addresses().count(), 0);
        assert_eq!(gateway.client_max_body_size.0, 10 << 20);
        assert_eq!(
            gateway.keepalive_timeout.0,
            std::time::Duration::from_millis(1500)
        );
        assert!(gateway.real_ip_recursive.0);
        assert_eq!(
            gateway.headers.headers(),
            model::settings::ResponseHeaders::default()
        );
        assert_eq!(gateway.trusted_ips.len(), 2);
    }

    #[test]
    fn values_from_vaults_are_secret() {
        let (config, diagnostics) = load_text(
            "consumers: [{username: a, keyauth_credentials: [{key: '{vault://env/api-key}'}]}]\n\
             plugins: [{name: x, config: {token: '{vault://env/api-key}', port: '{vault://env/nope}'}}]\n",
        );
        assert_eq!(
            config.keyauth_credentials[0]
                .fields
                .key
                .as_ref()
                .unwrap()
                .expose(),
            "from-vault"
        );
        assert!(
            config.plugins[0]
                .config()
                .unwrap()
                .get("token")
                .unwrap()
                .secret
        );
        assert_eq!(
            diagnostics,
            "gateway.yaml:3:68: error[config::environment]: plugins[0].config.port: environment variable `NOPE` is not set or empty\n"
        );
    }

    #[test]
    fn decks_defaults_tags_and_shared_configs_are_filled_in() {
        let (config, diagnostics) = load_text(
            "_info: {select_tags: [team-a], defaults: {service: {retries: 1, port: 9}}}\n_plugin_configs: {limits: {minute: 5, policy: local}}\n\
             services: [{name: a, host: h, port: 10, tags: [x]}]\nplugins: [{name: rate-limiting, _config: limits, config: {minute: 6}}]\n",
        );
        assert_eq!(diagnostics, "");
        let service = &config.services[0].fields;
        assert_eq!(
            (service.retries, service.port, service.tags.as_slice()),
            (1, 10, ["x".to_owned(), "team-a".to_owned()].as_slice())
        );
        let plugin = config.plugins[0].config().unwrap();
        assert_eq!(
            (
                plugin.get("minute").unwrap().text(),
                plugin.get("policy").unwrap().text()
            ),
            ("6".into(), "local".into())
        );
    }

    #[test]
    fn paths_of_old_formats_are_migrated_and_fragments_may_have_a_format_of_their_own() {
        let (loaded, diagnostics) = load_files(
            "_format_version: \"2.1\"\ngateway: {conf_d: conf.d}\nroutes: [{paths: ['/a/(\\d+)', /b/../c]}]\n",
            &[
                ("a.yaml", "routes: [{paths: ['/d/(\\d+)']}]\n"),
                (
                    "b.yaml",
                    "_format_version: \"3.0\"\nroutes: [{paths: ['~/e/(\\d+)']}]\n",
                ),
            ],
        );
        assert_eq!(diagnostics, "");
        let paths: Vec<_> = loaded
            .config
            .routes
            .iter()
            .flat_map(|route| route.fields.paths.clone())
            .collect();
        assert_eq!(paths, [r"~/a/(\d+)", "/c", r"~/d/(\d+)", r"~/e/(\d+)"]);
    }

    #[test]
    fn a_failed_variable_hides_its_consequences() {
        let (_, diagnostics) = load_text(
            "services: [{name: a, host: h}]\nroutes:\n- paths: ${{ env \"DECK_NOPE\" }}\n  name: 5\n",
        );
        assert_eq!(diagnostics.lines().count(), 2, "{diagnostics}");
        assert!(diagnostics.contains("gateway.yaml:4:10: error[config::environment]: environment variable `DECK_NOPE` is not set"));
    }

    #[test]
    fn inert_values_of_unsupported_things_do_no_harm() {
        let (_, diagnostics) = load_text(
            "certificates: []\nvaults: null\nroutes: [{paths: [/], snis: [], sources: null}]\n\
             upstreams: [{name: u, use_srv_name: false, hash_on: none, hash_on_cookie_path: /, slots: 10000, healthchecks: {threshold: 0, active: {type: http, healthy: {interval: 0, successes: 3}}}}]\n\
             services: [{name: s, host: h, client_certificate: null, ca_certificates: []}]\ngateway: {stream_listen: off, access_log: stdout}\n",
        );
        assert_eq!(diagnostics, "");
    }

    #[test]
    fn no_input_makes_loading_panic() {
        let sample = "_format_version: \"3.0\"\nservices: [{name: a, url: http://h, routes: [{paths: [~/a], headers: {x: [y]}}]}]\nplugins: [{name: b, config: {c: &d [1]}, tags: *d}]\n";
        for cut in (0..sample.len()).filter(|&cut| sample.is_char_boundary(cut)) {
            let (start, end) = sample.split_at(cut);
            load_files(start, &[]);
            load_files(end, &[]);
            load_files(&format!("{start}[{end}"), &[]);
            load_files(&format!("{start}: {end}"), &[]);
        }
    }

    #[test]
    fn file_names_are_shown_as_they_were_given() {
        let loaded = load(Path::new("no/such/gateway.yaml"), &|_| None);
        assert_eq!(
            loaded.diagnostics.to_text(),
            "no/such/gateway.yaml:1:1: error[config::unreadable_file]: cannot be read: no such file\n"
        );
        assert_eq!(loaded.watch, [PathBuf::from("no/such/gateway.yaml")]);
    }
}
