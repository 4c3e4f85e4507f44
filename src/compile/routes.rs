//! Routes: the router's table, and what a request needs once it has found its route.

use super::{chains::Chains, references::References};
use crate::{
    config::{Code, Config, Diagnostics, Entity, Route as Written},
    entity::facts::RouteFacts,
    router::{Field, Router, Rule},
    snapshot::Route,
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
        .filter(|(_, (_, service))| {
            service
                .and_then(|service| config.services.get(service))
                .is_none_or(|service| service.fields.enabled)
        })
        .map(|(index, (route, service))| (index, route, *service))
        .collect();
    let rules: Vec<Rule> = loaded
        .iter()
        .map(|(_, route, _)| rule(&route.fields))
        .collect();
    let table = match Router::build(&rules) {
        Ok(table) => table,
        Err(mistakes) => {
            for mistake in mistakes {
                let Some((_, route, _)) = loaded.get(mistake.rule) else {
                    continue;
                };
                let field = match mistake.field {
                    Field::Hosts => "hosts",
                    Field::Paths => "paths",
                    Field::Headers => "headers",
                };
                diagnostics.error(
                    Code::InvalidValue,
                    route.place.at(field),
                    route.place.path_of(field),
                    mistake.message,
                );
            }
            return None;
        }
    };
    let written = loaded.iter().map(|(index, _, _)| *index).collect();
    let routes = loaded
        .into_iter()
        .map(|(index, route, service)| {
            let fields = &route.fields;
            let label = fields.name.clone().unwrap_or_else(|| route.id.to_string());
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
                facts: RouteFacts {
                    id: route.id,
                    name: fields.name.clone(),
                    label,
                    paths: fields.paths.clone(),
                    methods: fields.methods.iter().cloned().collect(),
                    hosts: fields.hosts.clone(),
                    tags: fields.tags.clone(),
                },
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
                chains: chains.of_route(index, service),
            }
        })
        .collect();
    Some(Served {
        router: table,
        routes,
        written,
    })
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
        regex_priority: i64::from(route.regex_priority),
        created_at: route.created_at,
    }
}
