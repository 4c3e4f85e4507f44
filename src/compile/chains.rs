//! Plugins: their configuration, and which of their instances runs where.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use crate::{
    chain::{Chain, InstanceIndex, Link},
    config::{
        Code, Config, Diagnostics, Entity, Node, Plugin,
        check::check,
        model::{plugin::PluginProtocol, settings::PluginName},
        node::Path,
        read::reader,
        schema::Shape,
        suggest::nearest,
    },
    entity::consumer::{ConsumerIndex, Consumers},
    plugin::{Scope, registry::Refused},
    plugins::{self, CATALOG, Families, Instance},
    snapshot::ChainIndex,
    state::State,
};

use super::references::{References, Scopes};

/// Plugins that Kong bundles and this version does not have.
const KONG_PLUGINS: &[&str] = &[
    "acl",
    "acme",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "proxy-cache",
    "redirect",
    "request-size-limiting",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// The shapes of the plugins' `config:` blocks, in the order of the catalog.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    CATALOG
        .iter()
        .map(|entry| Shape::of_schema(&(entry.schema)()))
        .collect()
});

/// What plugins are configured with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) state: &'a State,
    pub(super) families: &'a Families,
    pub(super) consumers: &'a Arc<Consumers>,
    pub(super) body_bytes_max: usize,
}

/// The configured plugins, and where each applies.
#[derive(Debug, Default)]
pub(super) struct Instances {
    instances: Vec<Instance>,
    placed: Vec<Placed>,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    /// The place of the plugin in the catalog.
    entry: usize,
    scopes: Scopes,
    /// Whether it runs for requests over http, and over https.
    protocols: [bool; 2],
}

impl Instances {
    /// The names of all instances' secret arguments, each once.
    pub(super) fn secret_arguments(&self) -> Box<[String]> {
        let names: BTreeSet<String> = self
            .instances
            .iter()
            .flat_map(Instance::secret_arguments)
            .collect();
        names.into_iter().collect()
    }

    /// For each instance whether it runs for requests over http, and over https.
    pub(super) fn protocols(&self) -> impl Iterator<Item = [bool; 2]> {
        self.placed.iter().map(|placed| placed.protocols)
    }

    pub(super) fn into_instances(self) -> Box<[Instance]> {
        self.instances.into_boxed_slice()
    }
}

/// Configures every enabled plugin.
pub(super) fn configure(
    config: &Config,
    references: &References,
    surroundings: &Surroundings<'_>,
    diagnostics: &mut Diagnostics,
) -> Instances {
    let mut instances = Instances::default();
    for (plugin, scopes) in config.plugins.iter().zip(&references.plugin_scopes) {
        if plugin.fields.name.is_empty() {
            continue;
        }
        let Some(entry) = find_entry(config, plugin, diagnostics) else {
            continue;
        };
        let checked = check_plugin(config, plugin, entry, *scopes, diagnostics);
        if !checked || !plugin.fields.enabled {
            continue;
        }
        let instance = configure_one(config, plugin, entry, *scopes, surroundings, diagnostics);
        if let Some(instance) = instance {
            let runs_on = |protocols: [PluginProtocol; 2]| {
                protocols
                    .iter()
                    .any(|protocol| plugin.fields.protocols.contains(protocol))
            };
            instances.instances.push(instance);
            instances.placed.push(Placed {
                entry,
                scopes: *scopes,
                protocols: [
                    runs_on([PluginProtocol::Http, PluginProtocol::Ws]),
                    runs_on([PluginProtocol::Https, PluginProtocol::Wss]),
                ],
            });
        }
    }
    instances
}

fn find_entry(
    config: &Config,
    plugin: &Entity<Plugin>,
    diagnostics: &mut Diagnostics,
) -> Option<usize> {
    let name = plugin.fields.name.as_str();
    let (span, path) = (plugin.place.at("name"), plugin.place.path_of("name"));
    let found = CATALOG.iter().position(|entry| entry.name == name);
    let enabled = config.gateway.plugins.iter().any(|allowed| match allowed {
        PluginName::Bundled => true,
        PluginName::Off => false,
        PluginName::Named(allowed) => allowed == name,
    });
    match found {
        Some(entry) if enabled => return Some(entry),
        None if KONG_PLUGINS.contains(&name) => {
            diagnostics
                .error(
                    Code::UnsupportedPlugin,
                    span,
                    path,
                    format!("plugin '{name}' is not supported in this version"),
                )
                .value(name)
                .hint(format!("remove it; supported are {}", known_plugins()));
        }
        _ => {
            let message = format!(
                "plugin '{name}' not enabled; add it to the 'plugins' configuration property"
            );
            let near = nearest(
                name,
                CATALOG
                    .iter()
                    .map(|entry| entry.name)
                    .filter(|known| *known != name),
            );
            diagnostics
                .error(Code::UnknownPlugin, span, path, message)
                .value(name)
                .did_you_mean(near.filter(|_| found.is_none()));
        }
    }
    None
}

fn known_plugins() -> String {
    let names: Vec<&str> = CATALOG.iter().map(|entry| entry.name).collect();
    names.join(", ")
}

/// Checks scope and shape. `true` if nothing is wrong.
fn check_plugin(
    config: &Config,
    plugin: &Entity<Plugin>,
    entry: usize,
    scopes: Scopes,
    diagnostics: &mut Diagnostics,
) -> bool {
    let mut right = true;
    let name = plugin.fields.name.as_str();
    let route = scopes.route.and_then(|index| config.routes.get(index));
    let service = scopes.service.and_then(|index| config.services.get(index));
    let on_stream = [
        ("route", route.is_some_and(|route| route.fields.is_stream())),
        (
            "service",
            service.is_some_and(|service| service.fields.protocol.is_stream()),
        ),
    ];
    for (scope, _) in on_stream.iter().filter(|(_, is_stream)| *is_stream) {
        right = false;
        diagnostics
            .error(
                Code::PluginScope,
                plugin.place.at(scope),
                plugin.place.path_of("protocols"),
                format!("must match the associated {scope}: plugin '{name}' works on requests, and this {scope} carries streams"),
            )
            .hint("take the plugin away; none of this version works on streams");
    }
    if scopes.consumer.is_some()
        && CATALOG
            .get(entry)
            .is_some_and(|entry| !entry.consumer_scope)
    {
        right = false;
        diagnostics
            .error(
                Code::PluginScope,
                plugin.place.at("consumer"),
                plugin.place.path_of("consumer"),
                format!(
                    "plugin '{name}' cannot be put on a consumer: it is what finds the consumer"
                ),
            )
            .hint("put it on a route or service, or make it global");
    }
    if let (Some(node), Some(shape)) = (plugin.config(), SHAPES.get(entry)) {
        let path = plugin.place.path_of("config");
        let mut own = Diagnostics::default();
        right &= check(node, shape, Path::Root(&path), &mut own);
        diagnostics.absorb(own.about(&format!("plugin '{name}': ")));
    }
    right
}

fn configure_one(
    config: &Config,
    plugin: &Entity<Plugin>,
    entry: usize,
    scopes: Scopes,
    surroundings: &Surroundings<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Instance> {
    let nothing = Node::empty_mapping(plugin.place.span());
    let node = plugin.config().unwrap_or(&nothing);
    let scope = Scope {
        service: scopes
            .service
            .and_then(|index| config.services.get(index))
            .map(|service| service.id),
        route: scopes
            .route
            .and_then(|index| config.routes.get(index))
            .map(|route| route.id),
        consumer: scopes
            .consumer
            .and_then(|index| config.consumers.get(index))
            .map(|consumer| consumer.id),
    };
    let env = plugins::Surroundings {
        id: plugin.id,
        scope,
        state: surroundings.state,
        consumers: surroundings.consumers,
        families: surroundings.families,
        body_bytes_max: surroundings.body_bytes_max,
    };
    let name = CATALOG.get(entry)?.name;
    let refused = match plugins::configure(name, reader(node), &env)? {
        Ok(instance) => return Some(instance),
        Err(refused) => refused,
    };
    let (field, message) = match refused {
        Refused::Rule(error) if error.field.is_empty() => ("config".to_owned(), error.message),
        Refused::Rule(error) => (format!("config.{}", error.field), error.message),
        Refused::Unreadable(message) => ("config".to_owned(), message),
    };
    diagnostics.error(
        Code::PluginConfig,
        plugin.place.at(&field),
        plugin.place.path_of(&field),
        format!("plugin '{name}': {message}"),
    );
    None
}

/// Makes chains, and gives routes with the same plugins the same one.
pub(super) struct Chains<'i> {
    plugins: Vec<ByScope>,
    /// Services and routes that some plugin names: the others share the global chain.
    scoped_services: Vec<usize>,
    scoped_routes: Vec<usize>,
    protocols_differ: bool,
    list: Vec<Chain>,
    made: HashMap<(Option<usize>, Option<usize>, usize), ChainIndex>,
    instances: &'i Instances,
}

/// The instances of one plugin by where they apply, for each of http and https.
#[derive(Debug, Default)]
struct ByScope(HashMap<Scopes, (InstanceIndex, [bool; 2])>);

impl ByScope {
    fn find(&self, scopes: Scopes, protocol: usize) -> Option<InstanceIndex> {
        let (instance, protocols) = self.0.get(&scopes)?;
        protocols.get(protocol)?.then_some(*instance)
    }
}

impl<'i> Chains<'i> {
    pub(super) fn new(instances: &'i Instances) -> Self {
        let mut plugins: Vec<ByScope> = CATALOG.iter().map(|_| ByScope::default()).collect();
        let mut scoped_services = Vec::new();
        let mut scoped_routes = Vec::new();
        for (placed, index) in instances.placed.iter().zip(0..) {
            scoped_services.extend(placed.scopes.service);
            scoped_routes.extend(placed.scopes.route);
            if let Some(plugin) = plugins.get_mut(placed.entry) {
                plugin
                    .0
                    .insert(placed.scopes, (InstanceIndex(index), placed.protocols));
            }
        }
        scoped_services.sort_unstable();
        scoped_routes.sort_unstable();
        Self {
            plugins,
            scoped_services,
            scoped_routes,
            protocols_differ: instances
                .placed
                .iter()
                .any(|placed| placed.protocols != [true, true]),
            list: Vec::new(),
            made: HashMap::new(),
            instances,
        }
    }

    /// The chain of requests without a route: the global plugins.
    pub(super) fn global(&mut self) -> ChainIndex {
        self.chain(None, None, 0)
    }

    /// The chains of a route for http and https.
    pub(super) fn of_route(&mut self, route: usize, service: Option<usize>) -> [ChainIndex; 2] {
        let route = self
            .scoped_routes
            .binary_search(&route)
            .is_ok()
            .then_some(route);
        let service = service.filter(|service| self.scoped_services.binary_search(service).is_ok());
        let http = self.chain(route, service, 0);
        let https = if self.protocols_differ {
            self.chain(route, service, 1)
        } else {
            http
        };
        [http, https]
    }

    pub(super) fn into_chains(self) -> Box<[Chain]> {
        self.list.into_boxed_slice()
    }

    fn chain(
        &mut self,
        route: Option<usize>,
        service: Option<usize>,
        protocol: usize,
    ) -> ChainIndex {
        if let Some(made) = self.made.get(&(route, service, protocol)) {
            return *made;
        }
        let links: Vec<Link> = self
            .plugins
            .iter()
            .zip(0..)
            .map(|(plugin, entry)| self.link(plugin, entry, route, service, protocol))
            .filter(|link| link.everyone.is_some() || !link.consumers.is_empty())
            .collect();
        let index = ChainIndex(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(Chain::new(links));
        self.made.insert((route, service, protocol), index);
        index
    }

    /// Kong's order of scopes, most specific first: consumer + route + service, consumer + route,
    /// consumer + service, route + service, consumer, route, service, global.
    fn link(
        &self,
        plugin: &ByScope,
        entry: usize,
        route: Option<usize>,
        service: Option<usize>,
        protocol: usize,
    ) -> Link {
        let find = |consumer: Option<usize>, by_route: bool, by_service: bool| {
            // A scope that is asked for must be there: without it the scope would be wider.
            if by_route && route.is_none() || by_service && service.is_none() {
                return None;
            }
            let scopes = Scopes {
                consumer,
                route: route.filter(|_| by_route),
                service: service.filter(|_| by_service),
            };
            plugin.find(scopes, protocol)
        };
        let route_and_service = find(None, true, true);
        let everyone = route_and_service
            .or_else(|| find(None, true, false))
            .or_else(|| find(None, false, true))
            .or_else(|| find(None, false, false));
        let mut link = Link {
            everyone,
            ..Link::default()
        };
        for placed in self
            .instances
            .placed
            .iter()
            .filter(|placed| placed.entry == entry)
        {
            let Some(consumer) = placed.scopes.consumer else {
                continue;
            };
            let best = find(Some(consumer), true, true)
                .or_else(|| find(Some(consumer), true, false))
                .or_else(|| find(Some(consumer), false, true))
                .or(route_and_service)
                .or_else(|| find(Some(consumer), false, false));
            if let Some(best) = best {
                let consumer = ConsumerIndex(u32::try_from(consumer).unwrap_or(u32::MAX));
                link.consumers.insert(consumer, best);
            }
        }
        link
    }
}
