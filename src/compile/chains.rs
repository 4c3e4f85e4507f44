//! Plugins: their configuration, checked and turned into instances. Which of them runs where is in `precedence`.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use crate::{
    chain::InstanceIndex,
    config::{
        Code, Config, Diagnostics, Entity, Node, Plugin,
        check::check,
        model::{ordering::Ordering, plugin::PluginProtocol, settings::PluginName},
        node::Path,
        read::reader,
        schema::Shape,
        suggest::nearest,
    },
    entity::{consumers::Consumers, facts::ServiceIndex, key::Keys},
    plugin::{ConfigError, Destination, Destinations, Kind, Scope, registry::Refused},
    plugins::{self, CATALOG, Families, Instance},
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

const REMOVE: &str = "remove it";

/// Plugins of Kong's commercial build, and what to do without each.
const ENTERPRISE_PLUGINS: &[(&str, &str)] = &[
    ("ace", REMOVE),
    ("ai-a2a-proxy", REMOVE),
    ("ai-aws-guardrails", REMOVE),
    ("ai-azure-content-safety", REMOVE),
    ("ai-custom-guardrail", REMOVE),
    ("ai-gcp-model-armor", REMOVE),
    ("ai-lakera-guard", REMOVE),
    ("ai-llm-as-judge", REMOVE),
    ("ai-mcp-oauth2", REMOVE),
    ("ai-mcp-proxy", REMOVE),
    ("ai-model-selector", REMOVE),
    ("ai-prompt-compressor", REMOVE),
    ("ai-proxy-advanced", REMOVE),
    ("ai-rag-injector", REMOVE),
    ("ai-rate-limiting-advanced", "use `rate-limiting`"),
    ("ai-sanitizer", REMOVE),
    ("ai-semantic-cache", REMOVE),
    ("ai-semantic-prompt-guard", REMOVE),
    ("ai-semantic-response-guard", REMOVE),
    ("app-dynamics", REMOVE),
    ("application-registration", REMOVE),
    ("canary", "use `traffic-split`"),
    ("confluent", REMOVE),
    ("confluent-consume", REMOVE),
    ("datakit", REMOVE),
    ("degraphql", REMOVE),
    ("exit-transformer", REMOVE),
    ("forward-proxy", REMOVE),
    ("graphql-proxy-cache-advanced", REMOVE),
    ("graphql-rate-limiting-advanced", "use `rate-limiting`"),
    ("header-cert-auth", REMOVE),
    ("injection-protection", REMOVE),
    ("jq", REMOVE),
    ("json-threat-protection", REMOVE),
    ("jwe-decrypt", REMOVE),
    ("jwt-signer", REMOVE),
    ("kafka-consume", REMOVE),
    ("kafka-log", REMOVE),
    ("kafka-upstream", REMOVE),
    ("key-auth-enc", "use `key-auth`"),
    ("kong-service-virtualization", REMOVE),
    ("ldap-auth-advanced", REMOVE),
    ("metering-and-billing", REMOVE),
    ("mocking", "use `request-termination`"),
    ("mtls-auth", REMOVE),
    ("oas-validation", REMOVE),
    ("oauth2-introspection", REMOVE),
    ("opa", REMOVE),
    ("openid-connect", REMOVE),
    ("proxy-cache-advanced", REMOVE),
    ("rate-limiting-advanced", "use `rate-limiting`"),
    ("request-callout", REMOVE),
    ("request-transformer-advanced", REMOVE),
    ("request-validator", REMOVE),
    ("response-transformer-advanced", REMOVE),
    ("route-by-header", "use routes with `headers`"),
    ("route-transformer-advanced", REMOVE),
    ("saml", REMOVE),
    (
        "service-protection",
        "use `rate-limiting` or `concurrency-limit` on the service",
    ),
    ("solace-consume", REMOVE),
    ("solace-log", REMOVE),
    ("solace-upstream", REMOVE),
    ("statsd-advanced", "use `prometheus`"),
    ("tls-handshake-modifier", REMOVE),
    ("tls-metadata-headers", REMOVE),
    ("upstream-oauth", REMOVE),
    ("upstream-timeout", "set the time limits of the service"),
    ("vault-auth", REMOVE),
    ("websocket-size-limit", REMOVE),
    ("websocket-validator", REMOVE),
    ("xml-threat-protection", REMOVE),
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
    pub(super) keys: &'a Arc<Keys>,
    pub(super) destinations: &'a Destinations,
    /// The own services of the routes that the plugin in question is for.
    pub(super) own_services: &'a [ServiceIndex],
    pub(super) body_bytes_max: usize,
}

/// The configured plugins, and where each applies.
#[derive(Debug, Default)]
pub(super) struct Instances {
    instances: Vec<Instance>,
    pub(super) placed: Vec<Placed>,
}

/// An instance, as far as it decides where it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// The place of the plugin in the catalog.
    pub(super) entry: usize,
    /// Its place in the configuration.
    pub(super) written: usize,
    pub(super) scopes: Scopes,
    /// Whether it runs for requests over http, https, grpc and grpcs.
    pub(super) protocols: [bool; 4],
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

    /// For each instance whether it runs for requests over http, https, grpc and grpcs.
    pub(super) fn protocols(&self) -> impl Iterator<Item = [bool; 4]> {
        self.placed.iter().map(|placed| placed.protocols)
    }

    /// The instance at `index`.
    pub(super) fn get(&self, index: InstanceIndex) -> Option<&Instance> {
        self.instances.get(index.0 as usize)
    }

    pub(super) fn into_instances(self) -> Box<[Instance]> {
        self.instances.into_boxed_slice()
    }
}

/// The services that plugins may name, in their order.
pub(super) fn destinations(config: &Config) -> Destinations {
    Destinations::new(config.services.iter().map(|service| {
        let fields = &service.fields;
        Destination {
            id: service.id,
            name: fields.name.clone(),
            is_grpc: fields.protocol.is_grpc(),
            obstacle: if !fields.enabled {
                Some("has `enabled: false`; enable it, or leave it out here")
            } else if fields.protocol.is_stream() {
                Some("carries streams, not requests; name one whose protocol is http or https")
            } else {
                None
            },
        }
    }))
}

/// The names that entities of a kind have.
fn names(config: &Config, kind: Kind) -> Vec<&str> {
    match kind {
        Kind::Service => {
            let services = config.services.iter();
            services
                .filter_map(|service| service.fields.name.as_deref())
                .collect()
        }
        Kind::Consumer => {
            let consumers = config.consumers.iter();
            consumers
                .filter_map(|consumer| consumer.fields.username.as_deref())
                .collect()
        }
        Kind::ConsumerGroup => {
            let groups = config.consumer_groups.iter();
            groups.map(|group| group.fields.name.as_str()).collect()
        }
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
    let routed: BTreeSet<usize> = references.route_service.iter().flatten().copied().collect();
    let plugins = config.plugins.iter().zip(&references.plugin_scopes);
    for (written, (plugin, scopes)) in plugins.enumerate() {
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
        let own_services = own_services(config, plugin, *scopes, references, &routed);
        let env = Surroundings {
            own_services: &own_services,
            ..*surroundings
        };
        let instance = configure_one(config, plugin, entry, *scopes, &env, diagnostics);
        if let Some(instance) = instance {
            let runs_on = |protocols: &[PluginProtocol]| {
                protocols
                    .iter()
                    .any(|protocol| plugin.fields.protocols.contains(protocol))
            };
            instances.instances.push(instance);
            instances.placed.push(Placed {
                entry,
                written,
                scopes: *scopes,
                protocols: [
                    runs_on(&[PluginProtocol::Http, PluginProtocol::Ws]),
                    runs_on(&[PluginProtocol::Https, PluginProtocol::Wss]),
                    runs_on(&[PluginProtocol::Grpc]),
                    runs_on(&[PluginProtocol::Grpcs]),
                ],
            });
        }
    }
    instances
}

/// The own services of the routes that a plugin is for; `routed` are those that have any route.
fn own_services(
    config: &Config,
    plugin: &Entity<Plugin>,
    scopes: Scopes,
    references: &References,
    routed: &BTreeSet<usize>,
) -> Vec<ServiceIndex> {
    if let Some(route) = scopes.route {
        let own = references.route_service.get(route).copied().flatten();
        return own.into_iter().map(ServiceIndex).collect();
    }
    if let Some(service) = scopes.service {
        return vec![ServiceIndex(service)];
    }
    let is_of_grpc = |protocol: &PluginProtocol| {
        matches!(protocol, PluginProtocol::Grpc | PluginProtocol::Grpcs)
    };
    let takes_part = |service: &usize| {
        config.services.get(*service).is_some_and(|service| {
            let is_grpc = service.fields.protocol.is_grpc();
            let mut protocols = plugin.fields.protocols.iter();
            protocols.any(|protocol| is_of_grpc(protocol) == is_grpc)
        })
    };
    let routed = routed.iter().copied().filter(takes_part);
    routed.map(ServiceIndex).collect()
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
        None if unsupported_plugin(name).is_some() => {
            diagnostics
                .error(
                    Code::UnsupportedPlugin,
                    span,
                    path,
                    format!("plugin '{name}' is not supported in this version"),
                )
                .value(name)
                .hint(unsupported_plugin(name).unwrap_or_default());
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

/// What to do about a plugin of Kong's that this version does not have; `None` for any other name.
fn unsupported_plugin(name: &str) -> Option<String> {
    if KONG_PLUGINS.contains(&name) {
        return Some(format!("remove it; supported are {}", known_plugins()));
    }
    let (_, way_out) = ENTERPRISE_PLUGINS
        .iter()
        .find(|(plugin, _)| *plugin == name)?;
    Some(format!("it is an enterprise plugin; {way_out}"))
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
    let finds_consumers = CATALOG
        .get(entry)
        .is_some_and(|entry| !entry.consumer_scope);
    for (scope, field, called) in [
        (scopes.consumer, "consumer", "consumer"),
        (scopes.consumer_group, "consumer_group", "consumer group"),
    ] {
        if scope.is_none() || !finds_consumers {
            continue;
        }
        right = false;
        diagnostics
            .error(
                Code::PluginScope,
                plugin.place.at(field),
                plugin.place.path_of(field),
                format!(
                    "plugin '{name}' cannot be put on a {called}: it is what finds the consumer"
                ),
            )
            .hint("put it on a route or service, or make it global");
    }
    if let Some(ordering) = &plugin.fields.ordering {
        check_ordering(plugin, ordering, scopes, diagnostics);
    }
    if let (Some(node), Some(shape)) = (plugin.config(), SHAPES.get(entry)) {
        let path = plugin.place.path_of("config");
        let mut own = Diagnostics::default();
        right &= check(node, shape, Path::Root(&path), &mut own);
        diagnostics.absorb(own.about(&format!("plugin '{name}': ")));
    }
    right
}

/// Names that no plugin has are mistakes; an order that cannot be kept is found when the chains are made.
fn check_ordering(
    plugin: &Entity<Plugin>,
    ordering: &Ordering,
    scopes: Scopes,
    diagnostics: &mut Diagnostics,
) {
    if scopes.consumer.is_some() || scopes.consumer_group.is_some() {
        diagnostics
            .warning(
                Code::Ignored,
                plugin.place.at("ordering"),
                plugin.place.path_of("ordering"),
                "`ordering` has no effect on a plugin of a consumer or consumer group: the order is settled before the consumer is known",
            )
            .hint("order the plugin that is for everybody");
    }
    for (side, names) in [("before", ordering.before()), ("after", ordering.after())] {
        for (index, name) in names.iter().enumerate() {
            let field = format!("ordering.{side}.access[{index}]");
            let (span, path) = (plugin.place.at(&field), plugin.place.path_of(&field));
            if *name == plugin.fields.name {
                let message = format!("plugin '{name}' cannot run {side} itself");
                diagnostics.error(Code::InvalidValue, span, path, message);
                continue;
            }
            let is_known = CATALOG.iter().any(|entry| entry.name == name)
                || unsupported_plugin(name).is_some();
            if !is_known {
                diagnostics
                    .error(
                        Code::UnknownPlugin,
                        span,
                        path,
                        format!("there is no plugin '{name}'"),
                    )
                    .value(name)
                    .did_you_mean(nearest(name, CATALOG.iter().map(|entry| entry.name)));
            }
        }
    }
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
        consumer_group: scopes
            .consumer_group
            .and_then(|index| config.consumer_groups.get(index))
            .map(|group| group.id),
    };
    let env = plugins::Surroundings {
        id: plugin.id,
        scope,
        state: surroundings.state,
        consumers: surroundings.consumers,
        keys: surroundings.keys,
        destinations: surroundings.destinations,
        own_services: surroundings.own_services,
        families: surroundings.families,
        body_bytes_max: surroundings.body_bytes_max,
    };
    let name = CATALOG.get(entry)?.name;
    let refused = match plugins::configure(name, reader(node), &env)? {
        Ok(instance) => return Some(instance),
        Err(refused) => refused,
    };
    let error = match refused {
        Refused::Rule(error) => error,
        Refused::Unreadable(message) => ConfigError::at("", message),
    };
    let field = match error.field.as_ref() {
        "" => "config".to_owned(),
        field => format!("config.{field}"),
    };
    let (code, value) = match &error.unknown {
        Some(unknown) => (Code::UnknownReference, Some(unknown.name.as_str())),
        None => (Code::PluginConfig, None),
    };
    let diagnostic = diagnostics.error(
        code,
        plugin.place.at(&field),
        plugin.place.path_of(&field),
        format!("plugin '{name}': {}", error.message),
    );
    if let (Some(unknown), Some(value)) = (&error.unknown, value) {
        diagnostic
            .value(value)
            .did_you_mean(nearest(value, names(config, unknown.kind)));
    }
    None
}
