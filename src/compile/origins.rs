//! Where the entities of a snapshot are written: the places of the configuration, renumbered as the
//! snapshot numbers its entities.

use super::{chains::Instances, references::References};
use crate::{
    chain::InstanceIndex,
    config::{Config, Diagnostics, Entity, Span},
    plugins::CATALOG,
    snapshot::{Origins, Place, PluginOrigin, Unserved},
};

/// `served` and `streams` are the routes of the snapshot by their places in `config`. There must be no error in
/// `diagnostics`: every enabled plugin then is an instance.
pub(super) fn compile(
    config: &Config,
    references: &References,
    instances: &Instances,
    served: &[usize],
    streams: &[usize],
    diagnostics: &Diagnostics,
) -> Origins {
    let mut route_indexes: Vec<Option<u32>> = vec![None; config.routes.len()];
    for (written, index) in served.iter().zip(0..) {
        if let Some(slot) = route_indexes.get_mut(*written) {
            *slot = Some(index);
        }
    }
    let places = |written: &[usize]| -> Box<[Place]> {
        let routes = written.iter().filter_map(|index| config.routes.get(*index));
        routes.map(place_of).collect()
    };
    Origins {
        files: diagnostics.files().map(Into::into).collect(),
        routes: places(served),
        streams: places(streams),
        services: config.services.iter().map(place_of).collect(),
        upstreams: config.upstreams.iter().map(place_of).collect(),
        plugins: plugins(config, references, instances, &route_indexes),
        unserved: unserved(config, references, &route_indexes),
    }
}

fn plugins(
    config: &Config,
    references: &References,
    instances: &Instances,
    route_indexes: &[Option<u32>],
) -> Box<[PluginOrigin]> {
    let mut configured = instances.protocols().zip(0..);
    let mut plugins = Vec::with_capacity(config.plugins.len());
    for (plugin, scopes) in config.plugins.iter().zip(&references.plugin_scopes) {
        let instance = if plugin.fields.enabled {
            configured.next()
        } else {
            None
        };
        let route = match scopes.route {
            Some(written) => match route_indexes.get(written).copied().flatten() {
                Some(route) => Some(route),
                // A plugin of a route that is not served concerns no request.
                None => continue,
            },
            None => None,
        };
        let entry = CATALOG
            .iter()
            .position(|entry| entry.name == plugin.fields.name);
        let Some(entry) = entry else {
            continue;
        };
        plugins.push(PluginOrigin {
            place: place_of(plugin),
            entry: u16::try_from(entry).unwrap_or(u16::MAX),
            service: scopes.service.map(small),
            route,
            consumer: scopes.consumer.map(small),
            consumer_group: scopes.consumer_group.map(small),
            instance: instance.map(|(_, index)| InstanceIndex(index)),
            protocols: instance.map_or([true; 4], |(protocols, _)| protocols),
        });
    }
    plugins.into_boxed_slice()
}

fn unserved(
    config: &Config,
    references: &References,
    route_indexes: &[Option<u32>],
) -> Box<[Unserved]> {
    config
        .routes
        .iter()
        .zip(&references.route_service)
        .zip(route_indexes)
        .filter(|((route, _), index)| index.is_none() && !route.fields.is_stream())
        .filter_map(|((route, service), _)| {
            let label = match &route.fields.name {
                Some(name) => name.as_str().into(),
                None => route.id.to_string().into(),
            };
            Some(Unserved {
                label,
                service: small((*service)?),
                place: place_of(route),
            })
        })
        .collect()
}

fn place_of<T>(entity: &Entity<T>) -> Place {
    let Span { file, line, column } = entity.place.span();
    Place { file, line, column }
}

fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
