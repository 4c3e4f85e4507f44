//! Routes: the router's table, and what a request needs once it has found its route.

use std::collections::BTreeSet;

use super::{chains::Instances, precedence::Chains, references::References, retries};
use crate::{
    chain::{Chain, Link},
    config::{Code, Config, Diagnostics, Entity, Route as Written, model::gateway::RouterFlavor},
    entity::facts::{RouteFacts, ServiceIndex},
    plugins::Instance,
    router::{Flavor, Router, Rule, Shadowed},
    snapshot::{Exceptions, Route, Service},
    state::State,
};

/// The routes that are served.
pub(super) struct Served {
    pub(super) router: Router,
    pub(super) routes: Box<[Route]>,
    /// Their places in the configuration.
    pub(super) written: Vec<usize>,
}

/// Compiles the routes of enabled services. `None` if the router refuses a pattern, which is then
/// a diagnostic.
pub(super) fn compile(
    config: &Config,
    references: &References,
    chains: &mut Chains<'_>,
    state: &State,
    diagnostics: &mut Diagnostics,
) -> Option<Served> {
    let loaded: Vec<(usize, &Entity<Written>, Option<usize>)> = config
        .routes
        .iter()
        .zip(&references.route_service)
        .enumerate()
        .filter(|(_, (route, _))| !route.fields.is_stream())
        .filter(|(_, (_, service))| {
            service
                .and_then(|service| config.services.get(service))
                .is_none_or(|service| service.fields.enabled)
        })
        .map(|(index, (route, service))| (index, route, *service))
        .collect();
    let flavor = flavor(config.gateway.router_flavor);
    let rules: Vec<Rule> = loaded
        .iter()
        .map(|(_, route, _)| rule(&route.fields))
        .collect();
    let table = match Router::build(&rules, flavor) {
        Ok(table) => table,
        Err(mistakes) => {
            for mistake in mistakes {
                let Some((_, route, _)) = loaded.get(mistake.rule) else {
                    continue;
                };
                let field = mistake.field.to_string();
                diagnostics.error(
                    Code::InvalidValue,
                    route.place.at(&field),
                    route.place.path_of(&field),
                    mistake.message,
                );
            }
            return None;
        }
    };
    for Shadowed { route, by } in table.shadowed() {
        if let (Some((_, route, _)), Some((_, by, _))) = (loaded.get(route), loaded.get(by)) {
            warn_of_shadow(route, by, diagnostics);
        }
    }
    let written = loaded.iter().map(|(index, _, _)| *index).collect();
    let routes = loaded
        .into_iter()
        .map(|(index, route, service)| {
            let fields = &route.fields;
            let label = label(route);
            let service_label = service
                .and_then(|service| config.services.get(service))
                .map_or("", |service| {
                    service
                        .fields
                        .name
                        .as_deref()
                        .unwrap_or(&service.fields.host)
                });
            Route {
                series: state.telemetry.route(service_label, &label),
                facts: Box::new(RouteFacts {
                    id: route.id,
                    name: fields.name.clone(),
                    label,
                    paths: fields.paths.clone(),
                    methods: fields.methods.iter().cloned().collect(),
                    hosts: fields.hosts.clone(),
                    tags: fields.tags.clone(),
                }),
                service,
                https_only: fields
                    .protocols
                    .iter()
                    .all(|protocol| protocol.is_encrypted()),
                grpc: fields.protocols.iter().any(|protocol| protocol.is_grpc()),
                https_redirect_status: fields.https_redirect_status_code,
                strip_path: fields.strip_path,
                preserve_host: fields.preserve_host,
                path_handling: fields.path_handling,
                exceptions: exceptions(fields),
                chains: chains.of_route(
                    index,
                    service,
                    fields.protocols.iter().any(|protocol| protocol.is_grpc()),
                ),
            }
        })
        .collect();
    Some(Served {
        router: table,
        routes,
        written,
    })
}

/// Gives every route the series of the services that a plugin of its may choose in place of its own.
pub(super) fn add_series(
    routes: &mut [Route],
    chains: &[Chain],
    instances: &Instances,
    services: &[Service],
    state: &State,
) {
    for route in routes {
        let chains = route
            .chains
            .iter()
            .filter_map(|chain| chains.get(chain.0 as usize));
        let chosen: BTreeSet<ServiceIndex> = chains
            .flat_map(Chain::links)
            .flat_map(Link::instances)
            .filter_map(|instance| instances.get(instance))
            .flat_map(Instance::services)
            .collect();
        if chosen.is_empty() {
            continue;
        }
        let series = chosen
            .into_iter()
            .filter_map(|index| {
                let service = services.get(index.0)?;
                let series = state
                    .telemetry
                    .route(&service.facts.label, &route.facts.label);
                Some((index, series))
            })
            .collect();
        route.exceptions.get_or_insert_default().series = series;
    }
}

/// What `route` says in place of its service, if anything.
fn exceptions(route: &Written) -> Option<Box<Exceptions>> {
    if route.retry.is_none() && route.total_timeout.is_none() {
        return None;
    }
    let retry = route.retry.as_ref();
    Some(Box::new(Exceptions {
        retry: retry.map(|retry| retries::compile(Some(retry))),
        total_timeout: route.total_timeout.map(retries::limit),
        series: Box::default(),
    }))
}

/// Reports every expression in a flavour that has none.
pub(super) fn check_flavor(config: &Config, diagnostics: &mut Diagnostics) {
    if config.gateway.router_flavor == RouterFlavor::Expressions {
        return;
    }
    for route in &config.routes {
        if route.fields.expression.is_some() {
            diagnostics
                .error(
                    Code::InvalidCombination,
                    route.place.key_at("expression"),
                    route.place.path_of("expression"),
                    "`expression` needs the router flavour `expressions`",
                )
                .hint("set `gateway.router_flavor: expressions`; routes with attributes go on as they are");
        }
    }
}

fn warn_of_shadow(route: &Entity<Written>, by: &Entity<Written>, diagnostics: &mut Diagnostics) {
    let place = diagnostics.place(by.place.span());
    diagnostics.warning(
        Code::ShadowedRoute,
        route.place.span(),
        route.place.path(),
        format!(
            "no request can reach route `{}`: route `{}` ({place}) takes all that it matches and goes first",
            label(route),
            label(by)
        ),
    );
}

/// The route's name, else its id.
fn label(route: &Entity<Written>) -> String {
    let name = route.fields.name.clone();
    name.unwrap_or_else(|| route.id.to_string())
}

const fn flavor(written: RouterFlavor) -> Flavor {
    match written {
        RouterFlavor::TraditionalCompatible => Flavor::TraditionalCompatible,
        RouterFlavor::Traditional => Flavor::Traditional,
        RouterFlavor::Expressions => Flavor::Expressions,
    }
}

fn rule(route: &Written) -> Rule {
    Rule {
        hosts: route.hosts.clone(),
        paths: route.paths.clone(),
        methods: route.methods.iter().cloned().collect(),
        headers: route
            .headers
            .iter()
            .map(|(name, values)| (name.clone(), values.clone()))
            .collect(),
        snis: route.snis.iter().cloned().collect(),
        expression: route.expression.clone(),
        priority: route.priority,
        regex_priority: route.regex_priority,
        created_at: route.created_at,
    }
}
