//! Who means whom: foreign fields and nesting become indexes into the lists of the configuration.

use std::collections::HashMap;

use uuid::Uuid;

use crate::config::suggest::nearest;
use crate::config::{Code, Config, Diagnostics, Entity, EntityKind, Place, Plugin, Reference};

/// The resolved references of a configuration. Every list runs parallel to the list of the same entities in
/// [`Config`], every number is an index into the list of what is referred to, and what could not be resolved is `None`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct References {
    /// For each route its service.
    pub route_service: Vec<Option<usize>>,
    /// For each target its upstream.
    pub target_upstream: Vec<Option<usize>>,
    /// For each credential its consumer.
    pub key_consumer: Vec<Option<usize>>,
    pub basic_consumer: Vec<Option<usize>>,
    pub jwt_consumer: Vec<Option<usize>>,
    pub hmac_consumer: Vec<Option<usize>>,
    pub oauth2_consumer: Vec<Option<usize>>,
    pub acl_consumer: Vec<Option<usize>>,
    /// For each key its set.
    pub key_set: Vec<Option<usize>>,
    /// Who is in which group: pairs of a consumer and a consumer group, not each only once.
    pub memberships: Vec<(usize, usize)>,
    /// For each sni its certificate.
    pub sni_certificate: Vec<Option<usize>>,
    /// For each service the certificate that it shows upstream.
    pub service_certificate: Vec<Option<usize>>,
    /// For each service the authorities that it believes.
    pub service_authorities: Vec<Vec<usize>>,
    /// For each upstream the certificate that is shown to its targets.
    pub upstream_certificate: Vec<Option<usize>>,
    /// For each certificate the authorities whose clients it asks for.
    pub certificate_authorities: Vec<Vec<usize>>,
    /// For each plugin where it applies.
    pub plugin_scopes: Vec<Scopes>,
    /// For each service the upstream that has its host for a name.
    pub service_upstream: Vec<Option<usize>>,
}

/// Where a plugin applies; all `None`: everywhere.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scopes {
    pub service: Option<usize>,
    pub route: Option<usize>,
    pub consumer: Option<usize>,
    pub consumer_group: Option<usize>,
}

/// Resolves every reference. What is dangling, contradictory or twice is a diagnostic.
#[expect(
    clippy::too_many_lines,
    reason = "a few lines for each kind of reference, one after another"
)]
pub(super) fn resolve(config: &Config, diagnostics: &mut Diagnostics) -> References {
    let services = Index::new(config, EntityKind::Service, &config.services, |service| {
        service.name.as_deref()
    });
    let routes = Index::new(config, EntityKind::Route, &config.routes, |route| {
        route.name.as_deref()
    });
    let upstreams = Index::new(
        config,
        EntityKind::Upstream,
        &config.upstreams,
        |upstream| Some(upstream.name.as_str()),
    );
    let mut consumers = Index::new(
        config,
        EntityKind::Consumer,
        &config.consumers,
        |consumer| consumer.username.as_deref(),
    );
    consumers.by_custom_id = by_text(&config.consumers, |consumer| consumer.custom_id.as_deref());

    let groups = Index::new(
        config,
        EntityKind::ConsumerGroup,
        &config.consumer_groups,
        |group| Some(group.name.as_str()),
    );
    let key_sets = Index::new(config, EntityKind::KeySet, &config.key_sets, |set| {
        set.name.as_deref()
    });

    let route_service = resolved(&config.routes, &services, diagnostics, |route| {
        route.service.as_ref()
    });
    let target_upstream = resolved(&config.targets, &upstreams, diagnostics, |target| {
        target.upstream.as_ref()
    });
    require(&config.targets, EntityKind::Upstream, diagnostics);
    let [
        key_consumer,
        basic_consumer,
        jwt_consumer,
        hmac_consumer,
        oauth2_consumer,
        acl_consumer,
    ] = credential_owners(config, &consumers, diagnostics);
    let certificates = Index::new(
        config,
        EntityKind::Certificate,
        &config.certificates,
        |_| None,
    );
    let authorities = Index::new(
        config,
        EntityKind::CaCertificate,
        &config.ca_certificates,
        |_| None,
    );
    let sni_certificate = resolved(&config.snis, &certificates, diagnostics, |sni| {
        sni.certificate.as_ref()
    });
    let service_certificate = named(
        &config.services,
        &certificates,
        "client_certificate",
        diagnostics,
        |service| service.client_certificate.as_ref(),
    );
    let upstream_certificate = named(
        &config.upstreams,
        &certificates,
        "client_certificate",
        diagnostics,
        |upstream| upstream.client_certificate.as_ref(),
    );
    let service_authorities = resolved_lists(
        &config.services,
        &authorities,
        "ca_certificates",
        diagnostics,
        |service| &service.ca_certificates,
    );
    let certificate_authorities = resolved_lists(
        &config.certificates,
        &authorities,
        "client_ca_certificates",
        diagnostics,
        |certificate| &certificate.client_ca_certificates,
    );
    require(&config.snis, EntityKind::Certificate, diagnostics);
    let key_set = resolved(&config.keys, &key_sets, diagnostics, |key| key.set.as_ref());
    let memberships = memberships(config, &consumers, &groups, diagnostics);

    let plugin_services = resolved(&config.plugins, &services, diagnostics, |plugin| {
        plugin.service.as_ref()
    });
    let plugin_routes = resolved(&config.plugins, &routes, diagnostics, |plugin| {
        plugin.route.as_ref()
    });
    let plugin_consumers = resolved(&config.plugins, &consumers, diagnostics, |plugin| {
        plugin.consumer.as_ref()
    });
    let plugin_groups = resolved(&config.plugins, &groups, diagnostics, |plugin| {
        plugin.consumer_group.as_ref()
    });
    let plugin_scopes = plugin_services
        .into_iter()
        .zip(plugin_routes)
        .zip(plugin_consumers)
        .zip(plugin_groups)
        .map(|(((service, route), consumer), consumer_group)| Scopes {
            service,
            route,
            consumer,
            consumer_group,
        })
        .collect();
    require_groups(&config.plugins, diagnostics);

    let service_upstream = config
        .services
        .iter()
        .map(|service| upstreams.by_name.get(service.fields.host.as_str()).copied())
        .collect();
    check_protocols(config, &route_service, diagnostics);
    let references = References {
        route_service,
        target_upstream,
        key_consumer,
        basic_consumer,
        jwt_consumer,
        hmac_consumer,
        oauth2_consumer,
        acl_consumer,
        key_set,
        memberships,
        sni_certificate,
        service_certificate,
        service_authorities,
        upstream_certificate,
        certificate_authorities,
        plugin_scopes,
        service_upstream,
    };
    references.check_unique(config, diagnostics);
    references
}

/// Reports routes for requests whose service takes plain connections only.
fn check_protocols(
    config: &Config,
    route_service: &[Option<usize>],
    diagnostics: &mut Diagnostics,
) {
    for (route, service) in config.routes.iter().zip(route_service) {
        let Some(service) = service.and_then(|service| config.services.get(service)) else {
            continue;
        };
        let protocol = service.fields.protocol;
        if protocol.is_stream() && !route.fields.is_stream() {
            diagnostics
                .error(
                    Code::InvalidCombination,
                    route.place.at("protocols"),
                    route.place.path_of("protocols"),
                    format!(
                        "a route for requests cannot lead to a service with the protocol {protocol}"
                    ),
                )
                .hint("give the route `protocols: [tcp]`, or the service `protocol: http`");
        }
    }
}

/// The entities of one kind by everything that can name them.
struct Index<'a> {
    kind: EntityKind,
    /// All entities could be read: what is not found does not exist.
    complete: bool,
    by_id: HashMap<Uuid, usize>,
    by_name: HashMap<&'a str, usize>,
    /// Consumers only.
    by_custom_id: HashMap<&'a str, usize>,
}

fn by_text<'a, T>(
    entities: &'a [Entity<T>],
    text: impl Fn(&'a T) -> Option<&'a str>,
) -> HashMap<&'a str, usize> {
    // From the back, so that of two equal names (which is an error anyway) the first one is meant.
    let texts = entities
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(index, entity)| Some((text(&entity.fields)?, index)));
    texts.filter(|(text, _)| !text.is_empty()).collect()
}

impl<'a> Index<'a> {
    fn new<T>(
        config: &Config,
        kind: EntityKind,
        entities: &'a [Entity<T>],
        name: impl Fn(&'a T) -> Option<&'a str>,
    ) -> Self {
        let by_id = entities
            .iter()
            .enumerate()
            .rev()
            .map(|(index, entity)| (entity.id, index))
            .collect();
        Self {
            kind,
            complete: !config.incomplete,
            by_id,
            by_name: by_text(entities, name),
            by_custom_id: HashMap::new(),
        }
    }

    fn find(&self, reference: &Reference) -> Option<usize> {
        let id = |text: &str| {
            Uuid::try_parse(text)
                .ok()
                .and_then(|id| self.by_id.get(&id).copied())
        };
        let name = |text: &str| self.by_name.get(text).copied();
        match reference {
            Reference::Any(text) => id(text).or_else(|| name(text)),
            Reference::Id(text) => id(text),
            Reference::Name(text) | Reference::Username(text) => name(text),
            Reference::CustomId(text) => self.by_custom_id.get(text.as_str()).copied(),
            Reference::IdElse(text, other) => id(text).or_else(|| self.find(other)),
        }
    }

    /// Whether entities of this kind can be named in this way at all.
    fn understands(&self, reference: &Reference) -> bool {
        match reference {
            Reference::Any(_) | Reference::Id(_) => true,
            Reference::Name(_) => !matches!(
                self.kind,
                EntityKind::Consumer | EntityKind::Certificate | EntityKind::CaCertificate
            ),
            Reference::Username(_) | Reference::CustomId(_) => self.kind == EntityKind::Consumer,
            Reference::IdElse(_, other) => self.understands(other),
        }
    }

    fn nearest(&self, reference: &Reference) -> Option<&str> {
        let known = match reference {
            Reference::CustomId(_) => &self.by_custom_id,
            _ => &self.by_name,
        };
        // Comparing with every name is too slow if there are many mistakes among many names.
        let affordable = known.len() <= 2000;
        affordable
            .then(|| nearest(reference.text(), known.keys().copied()))
            .flatten()
    }

    fn resolve(
        &self,
        place: &Place,
        nested: Option<usize>,
        reference: Option<&Reference>,
        diagnostics: &mut Diagnostics,
    ) -> Option<usize> {
        let Some(reference) = reference else {
            return nested;
        };
        self.resolve_field(
            place,
            self.kind.foreign_field(),
            nested,
            reference,
            diagnostics,
        )
    }

    /// The entity that is named at `at`, a field or an item of a list.
    fn resolve_field(
        &self,
        place: &Place,
        at: &str,
        nested: Option<usize>,
        reference: &Reference,
        diagnostics: &mut Diagnostics,
    ) -> Option<usize> {
        let field = self.kind.foreign_field();
        let (span, path) = (place.at(at), place.path_of(at));
        if !self.understands(reference) {
            let keys = match self.kind {
                EntityKind::Consumer => "`username`, `custom_id` or `id`",
                EntityKind::Certificate | EntityKind::CaCertificate => "`id`",
                _ => "`name` or `id`",
            };
            let message = format!("a {field} is named by {keys}");
            diagnostics.error(Code::UnknownReference, span, path, message);
            return nested;
        }
        let found = self.find(reference);
        if found.is_none() && self.complete {
            let (text, list) = (reference.text(), self.kind.list());
            let message =
                format!("invalid reference '{field}: {text}' (no such entry in '{list}')");
            diagnostics
                .error(Code::UnknownReference, span, path, message)
                .value(text)
                .did_you_mean(self.nearest(reference));
        }
        self.nested_or_named(place, at, nested, found, reference, diagnostics)
    }

    /// What an entity is nested in goes before what its field `at` names, which must not be another one.
    fn nested_or_named(
        &self,
        place: &Place,
        at: &str,
        nested: Option<usize>,
        found: Option<usize>,
        reference: &Reference,
        diagnostics: &mut Diagnostics,
    ) -> Option<usize> {
        if nested.is_some() && found.is_some() && found != nested {
            let (span, path) = (place.at(at), place.path_of(at));
            let message = format!(
                "`{at}` names another {} than the one that this is nested in",
                self.kind.singular()
            );
            diagnostics
                .error(Code::InvalidCombination, span, path, message)
                .value(reference.text())
                .hint("leave the field out");
        }
        nested.or(found)
    }
}

fn resolved<'a, T>(
    entities: &'a [Entity<T>],
    index: &Index<'_>,
    diagnostics: &mut Diagnostics,
    reference: impl Fn(&'a T) -> Option<&'a Reference>,
) -> Vec<Option<usize>> {
    entities
        .iter()
        .map(|entity| {
            let nested = entity.nested_in(index.kind);
            index.resolve(
                &entity.place,
                nested,
                reference(&entity.fields),
                diagnostics,
            )
        })
        .collect()
}

/// The same for a field that lists several.
fn resolved_lists<'a, T>(
    entities: &'a [Entity<T>],
    index: &Index<'_>,
    field: &str,
    diagnostics: &mut Diagnostics,
    references: impl Fn(&'a T) -> &'a [Reference],
) -> Vec<Vec<usize>> {
    entities
        .iter()
        .map(|entity| {
            let references = references(&entity.fields).iter().enumerate();
            references
                .filter_map(|(place, reference)| {
                    let item = format!("{field}[{place}]");
                    named_by_id(&entity.place, &item, reference, index, diagnostics)
                })
                .collect()
        })
        .collect()
}

/// The same for a field with a name of its own that refers to one.
fn named<'a, T>(
    entities: &'a [Entity<T>],
    index: &Index<'_>,
    field: &str,
    diagnostics: &mut Diagnostics,
    reference: impl Fn(&'a T) -> Option<&'a Reference>,
) -> Vec<Option<usize>> {
    entities
        .iter()
        .map(|entity| {
            let nested = entity.nested_in(index.kind);
            let Some(reference) = reference(&entity.fields) else {
                return nested;
            };
            let place = &entity.place;
            let found = named_by_id(place, field, reference, index, diagnostics);
            index.nested_or_named(place, field, nested, found, reference, diagnostics)
        })
        .collect()
}

fn named_by_id(
    place: &Place,
    item: &str,
    reference: &Reference,
    index: &Index<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<usize> {
    let found = index.find(reference);
    if found.is_none() && index.complete {
        let (text, list) = (reference.text(), index.kind.list());
        let message = format!("invalid reference '{text}' (no such entry in '{list}')");
        diagnostics
            .error(
                Code::UnknownReference,
                place.at(item),
                place.path_of(item),
                message,
            )
            .value(text)
            .hint("name it by its `id`");
    }
    found
}

/// The consumers of all credentials, list by list.
fn credential_owners(
    config: &Config,
    consumers: &Index<'_>,
    diagnostics: &mut Diagnostics,
) -> [Vec<Option<usize>>; 6] {
    [
        owners(
            &config.keyauth_credentials,
            consumers,
            diagnostics,
            |credential| credential.consumer.as_ref(),
        ),
        owners(
            &config.basicauth_credentials,
            consumers,
            diagnostics,
            |credential| credential.consumer.as_ref(),
        ),
        owners(&config.jwt_secrets, consumers, diagnostics, |credential| {
            credential.consumer.as_ref()
        }),
        owners(
            &config.hmacauth_credentials,
            consumers,
            diagnostics,
            |credential| credential.consumer.as_ref(),
        ),
        owners(
            &config.oauth2_credentials,
            consumers,
            diagnostics,
            |credential| credential.consumer.as_ref(),
        ),
        owners(&config.acls, consumers, diagnostics, |acl| {
            acl.consumer.as_ref()
        }),
    ]
}

/// The consumers of credentials, which each of them needs.
fn owners<'a, T>(
    credentials: &'a [Entity<T>],
    consumers: &Index<'_>,
    diagnostics: &mut Diagnostics,
    reference: impl Fn(&'a T) -> Option<&'a Reference>,
) -> Vec<Option<usize>> {
    require(credentials, EntityKind::Consumer, diagnostics);
    resolved(credentials, consumers, diagnostics, reference)
}

/// Who is in which group, in whichever way it is written.
fn memberships(
    config: &Config,
    consumers: &Index<'_>,
    groups: &Index<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (index, consumer) in config.consumers.iter().enumerate() {
        // The consumer may itself be written inside a group.
        let around = consumer.nested_in(EntityKind::ConsumerGroup);
        pairs.extend(around.map(|group| (index, group)));
        for (item, reference) in consumer.fields.groups.iter().enumerate() {
            let field = format!("groups[{item}]");
            let group = groups.resolve_field(&consumer.place, &field, None, reference, diagnostics);
            pairs.extend(group.map(|group| (index, group)));
        }
    }
    let members = &config.consumer_group_consumers;
    require(members, EntityKind::Consumer, diagnostics);
    require(members, EntityKind::ConsumerGroup, diagnostics);
    let who = resolved(members, consumers, diagnostics, |member| {
        member.consumer.as_ref()
    });
    let where_to = resolved(members, groups, diagnostics, |member| {
        member.consumer_group.as_ref()
    });
    pairs.extend(
        who.into_iter()
            .zip(where_to)
            .filter_map(|(consumer, group)| consumer.zip(group)),
    );
    pairs
}

/// Reports plugins whose list says that they are a group's, and that name no group.
fn require_groups(plugins: &[Entity<Plugin>], diagnostics: &mut Diagnostics) {
    for plugin in plugins {
        let is_groups = plugin.place.kind() == EntityKind::ConsumerGroupPlugin
            && plugin.nested_in(EntityKind::ConsumerGroup).is_none();
        if is_groups && plugin.place.node().get("consumer_group").is_none() {
            missing_parent(&plugin.place, EntityKind::ConsumerGroup, diagnostics);
        }
    }
}

/// Reports entities that need a parent and name none.
fn require<T>(entities: &[Entity<T>], parent: EntityKind, diagnostics: &mut Diagnostics) {
    let field = parent.foreign_field();
    for entity in entities {
        // A member that is written inside its group is named by the whole entry.
        let is_named = parent == EntityKind::Consumer && entity.place.kind() == parent;
        let is_nested = entity.nested_in(parent).is_some() || is_named;
        if !is_nested && entity.place.node().get(field).is_none() {
            missing_parent(&entity.place, parent, diagnostics);
        }
    }
}

fn missing_parent(place: &Place, parent: EntityKind, diagnostics: &mut Diagnostics) {
    let field = parent.foreign_field();
    diagnostics
        .error(
            Code::MissingField,
            place.span(),
            place.path_of(field),
            format!("required field `{field}` is missing"),
        )
        .hint(format!("name the {field}, or put this inside it"));
}

impl References {
    fn check_unique(&self, config: &Config, diagnostics: &mut Diagnostics) {
        self.check_targets(config, diagnostics);
        check_secret_keys(config, diagnostics);
        self.check_pairs(config, diagnostics);
        self.check_plugins(config, diagnostics);
    }

    fn check_targets(&self, config: &Config, diagnostics: &mut Diagnostics) {
        let mut seen = HashMap::new();
        for (target, upstream) in config.targets.iter().zip(&self.target_upstream) {
            let Some(upstream) = upstream else { continue };
            if target.fields.target.is_empty() {
                continue;
            }
            let address = target.fields.canonical_address();
            let key = (*upstream, address);
            if let Some(first) = seen.insert(key.clone(), &target.place) {
                seen.insert(key, first);
                let name = config
                    .upstreams
                    .get(*upstream)
                    .map_or("", |upstream| upstream.fields.name.as_str());
                let message = format!(
                    "uniqueness violation: 'targets' entity with target set to '{}' already declared for upstream '{name}'",
                    target.fields.target
                );
                duplicate(&target.place, first, "target", message, diagnostics);
            }
        }
    }

    /// Pairs that must not come twice: a consumer's groups for `acl`, and the keys of a set by their names.
    fn check_pairs(&self, config: &Config, diagnostics: &mut Diagnostics) {
        let mut seen: HashMap<(usize, &str), &Place> = HashMap::new();
        for (acl, consumer) in config.acls.iter().zip(&self.acl_consumer) {
            let (Some(consumer), group) = (*consumer, acl.fields.group.as_str()) else {
                continue;
            };
            if group.is_empty() {
                continue;
            }
            if let Some(first) = seen.get(&(consumer, group)) {
                let message = format!(
                    "uniqueness violation: 'acls' entity with group set to '{group}' already declared for this consumer"
                );
                duplicate(&acl.place, first, "group", message, diagnostics);
            } else {
                seen.insert((consumer, group), &acl.place);
            }
        }
        let mut seen: HashMap<(Option<usize>, &str), &Place> = HashMap::new();
        for (key, set) in config.keys.iter().zip(&self.key_set) {
            let kid = key.fields.kid.as_str();
            if kid.is_empty() {
                continue;
            }
            if let Some(first) = seen.get(&(*set, kid)) {
                let message = format!(
                    "uniqueness violation: 'keys' entity with kid set to '{kid}' already declared in this set"
                );
                duplicate(&key.place, first, "kid", message, diagnostics);
            } else {
                seen.insert((*set, kid), &key.place);
            }
        }
    }

    fn check_plugins(&self, config: &Config, diagnostics: &mut Diagnostics) {
        let mut seen = HashMap::new();
        for (plugin, scopes) in config.plugins.iter().zip(&self.plugin_scopes) {
            let node = plugin.place.node();
            // A scope that did not resolve is not the same as no scope.
            let unresolved = (scopes.service.is_none() && node.get("service").is_some())
                || (scopes.route.is_none() && node.get("route").is_some())
                || (scopes.consumer.is_none() && node.get("consumer").is_some())
                || (scopes.consumer_group.is_none() && node.get("consumer_group").is_some());
            if plugin.fields.name.is_empty() || unresolved {
                continue;
            }
            if scopes.consumer.is_some() && scopes.consumer_group.is_some() {
                let (span, path) = (
                    plugin.place.at("consumer_group"),
                    plugin.place.path_of("consumer_group"),
                );
                diagnostics
                    .error(
                        Code::InvalidCombination,
                        span,
                        path,
                        "a plugin is for one consumer or for a consumer group, not for both",
                    )
                    .hint("leave one of them out");
            }
            let name = plugin.fields.name.as_str();
            if let Some(first) = seen.insert((name, *scopes), &plugin.place) {
                seen.insert((name, *scopes), first);
                let scope = scopes.described(config);
                let message =
                    format!("uniqueness violation: plugin '{name}' is already configured {scope}");
                duplicate(&plugin.place, first, "name", message, diagnostics);
            }
        }
    }
}

fn check_secret_keys(config: &Config, diagnostics: &mut Diagnostics) {
    let mut seen = HashMap::new();
    for credential in &config.keyauth_credentials {
        let Some(key) = &credential.fields.key else {
            continue;
        };
        if let Some(first) = seen.insert(key.expose().as_str(), &credential.place) {
            seen.insert(key.expose().as_str(), first);
            let message =
                "uniqueness violation: a 'keyauth_credentials' entity with the same key is already declared".to_owned();
            duplicate(&credential.place, first, "key", message, diagnostics);
        }
    }
}

fn duplicate(
    second: &Place,
    first: &Place,
    field: &str,
    message: String,
    diagnostics: &mut Diagnostics,
) {
    let hint = format!("the first one is at {}", diagnostics.place(first.at(field)));
    diagnostics
        .error(
            Code::Duplicate,
            second.at(field),
            second.path_of(field),
            message,
        )
        .hint(hint);
}

impl Scopes {
    /// The scopes as a message names them.
    fn described(self, config: &Config) -> String {
        let name = |list: &str, name: Option<&str>, id: Uuid| {
            format!(
                "{list} '{}'",
                name.map_or_else(|| id.to_string(), str::to_owned)
            )
        };
        let service = self.service.and_then(|index| config.services.get(index));
        let route = self.route.and_then(|index| config.routes.get(index));
        let consumer = self.consumer.and_then(|index| config.consumers.get(index));
        let group = self
            .consumer_group
            .and_then(|index| config.consumer_groups.get(index));
        let scopes: Vec<String> = [
            service.map(|service| name("service", service.fields.name.as_deref(), service.id)),
            route.map(|route| name("route", route.fields.name.as_deref(), route.id)),
            consumer
                .map(|consumer| name("consumer", consumer.fields.username.as_deref(), consumer.id)),
            group.map(|group| name("consumer group", Some(&group.fields.name), group.id)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if scopes.is_empty() {
            "globally".to_owned()
        } else {
            format!("on {}", scopes.join(" and "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, load};

    fn resolve_text(text: &str) -> (Loaded, References) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, format!("_format_version: \"3.0\"\n{text}")).unwrap();
        let mut loaded = load(&path, &|_| None);
        let references = resolve(&loaded.config, &mut loaded.diagnostics);
        (loaded, references)
    }

    fn messages(text: &str) -> Vec<String> {
        let (loaded, _) = resolve_text(text);
        let shown = |diagnostic: &&crate::config::Diagnostic| {
            let hint = diagnostic.hint.clone().unwrap_or_default();
            format!(
                "{}:{} {}: {} | {hint}",
                diagnostic.span.line, diagnostic.span.column, diagnostic.path, diagnostic.message
            )
        };
        loaded.diagnostics.sorted().iter().map(shown).collect()
    }

    #[test]
    fn references_by_name_id_and_record_find_the_same_entity() {
        let (loaded, references) = resolve_text(
            "services:\n- {name: a, host: h, id: 4e13f54a-bbf1-47a8-8777-255fed7116f2}\n- {name: b, host: pool}\n\
             routes:\n- {paths: [/1], service: a}\n- {paths: [/2], service: 4e13f54a-bbf1-47a8-8777-255fed7116f2}\n\
             - {paths: [/3], service: {name: b}}\n- {paths: [/4], service: {id: 4e13f54a-bbf1-47a8-8777-255fed7116f2}}\n- {paths: [/5]}\n\
             upstreams:\n- name: pool\n  targets: [{target: 'x:1'}]\n\
             targets:\n- {target: 'y:1', upstream: pool}\n\
             consumers:\n- {username: u, custom_id: c, keyauth_credentials: [{key: k1}]}\n\
             keyauth_credentials:\n- {key: k2, consumer: u}\n- {key: k3, consumer: {custom_id: c}}\n\
             plugins:\n- {name: cors, service: b}\n- {name: cors, consumer: {username: u}, service: {name: a}}\n- {name: cors}\n",
        );
        assert_eq!(loaded.diagnostics.to_text(), "");
        assert_eq!(
            references.route_service,
            [Some(0), Some(0), Some(1), Some(0), None]
        );
        assert_eq!(references.target_upstream, [Some(0), Some(0)]);
        assert_eq!(references.key_consumer, [Some(0), Some(0), Some(0)]);
        assert_eq!(references.service_upstream, [None, Some(0)]);
        let scope = |service, consumer| Scopes {
            service,
            route: None,
            consumer,
            consumer_group: None,
        };
        assert_eq!(
            references.plugin_scopes,
            [
                scope(Some(1), None),
                scope(Some(0), Some(0)),
                scope(None, None)
            ]
        );
    }

    #[test]
    fn an_id_match_wins_over_a_name_match() {
        let (_, references) = resolve_text(
            "services:\n- {name: 4e13f54a-bbf1-47a8-8777-255fed7116f2, host: h}\n\
             - {name: b, host: h, id: 4e13f54a-bbf1-47a8-8777-255fed7116f2}\n\
             routes:\n- {paths: [/1], service: 4e13f54a-bbf1-47a8-8777-255fed7116f2}\n",
        );
        assert_eq!(references.route_service, [Some(1)]);
    }

    #[test]
    fn a_nested_entity_may_repeat_its_parent_but_not_name_another() {
        let found = messages(
            "services:\n- name: a\n  host: h\n  routes: [{name: r, paths: [/1], service: a}, {name: q, paths: [/2], service: b}]\n\
             - {name: b, host: h}\n",
        );
        assert_eq!(
            found,
            [
                "5:80 services[0].routes[1].service: `service` names another service than the one that this is nested in | leave the field out"
            ]
        );
    }

    #[test]
    fn dangling_references_are_reported_with_the_nearest_name() {
        let found = messages(
            "services:\n- {name: orders, host: h}\nroutes:\n- {paths: [/1], service: order}\n- {paths: [/2], service: {username: orders}}\n\
             targets:\n- {target: 'a:1'}\nplugins:\n- {name: cors, route: nope}\n",
        );
        assert_eq!(
            found,
            [
                "5:26 routes[0].service: invalid reference 'service: order' (no such entry in 'services') | did you mean `orders`?",
                "6:26 routes[1].service: a service is named by `name` or `id` | ",
                "8:3 targets[0].upstream: required field `upstream` is missing | name the upstream, or put this inside it",
                "10:23 plugins[0].route: invalid reference 'route: nope' (no such entry in 'routes') | ",
            ]
        );
    }

    #[test]
    fn two_spellings_of_a_target_are_one() {
        let found = messages(
            "upstreams:\n- name: u\n  targets: [{target: 'a.test:80'}, {target: 'A.test:80'}, \
             {target: '[::1]:80'}, {target: '[0:0:0:0:0:0:0:1]:80'}]\n",
        );
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains("targets[1].target: uniqueness violation"));
        assert!(found[1].contains("targets[3].target: uniqueness violation"));
    }

    #[test]
    fn equal_targets_keys_and_plugins_are_refused_without_showing_a_key() {
        let found = messages(
            "services:\n- name: a\n  host: h\n  plugins: [{name: cors}]\n\
             upstreams:\n- name: u\n  targets: [{target: 'x:8000'}, {target: x}]\n\
             consumers:\n- {username: c, keyauth_credentials: [{key: hunter2}, {key: hunter2}]}\n\
             plugins:\n- {name: cors, service: a}\n- {name: jwt}\n- {name: jwt}\n",
        );
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found.iter().all(|message| !message.contains("hunter2")));
        assert!(found[0].contains("targets[1].target: uniqueness violation: 'targets' entity with target set to 'x' already declared for upstream 'u'"), "{}", found[0]);
        assert!(
            found[1].contains("keyauth_credentials[1].key"),
            "{}",
            found[1]
        );
        assert!(found[2].contains("plugins[0].name: uniqueness violation: plugin 'cors' is already configured on service 'a'"), "{}", found[2]);
        assert!(
            found[3].contains("plugin 'jwt' is already configured globally"),
            "{}",
            found[3]
        );
    }
}
