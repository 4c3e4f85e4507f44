//! What was written becomes what runs. The only module that sees both.

mod chains;
mod consumers;
mod references;
mod routes;
mod settings;
mod upstreams;

use std::sync::Arc;

use crate::{
    config::{Config, Diagnostics},
    plugins::Families,
    snapshot::Snapshot,
    state::State,
};

/// Compiles `config` into a snapshot that shares `state` with the snapshots before it.
///
/// Everything that is wrong is added to `diagnostics`. `None` if there is any error, also one that
/// was found while the files were loaded.
pub fn compile(
    config: &Config,
    diagnostics: &mut Diagnostics,
    state: &State,
    families: &Families,
) -> Option<Snapshot> {
    let references = references::resolve(config, diagnostics);
    let settings = settings::compile(&config.gateway);
    let consumers = Arc::new(consumers::compile(config, &references, state));
    state.telemetry.exports().begin();
    let instances = chains::configure(
        config,
        &references,
        &chains::Surroundings {
            state,
            families,
            consumers: &consumers,
            body_bytes_max: settings.body_buffer_bytes_max,
        },
        diagnostics,
    );
    if diagnostics.has_errors() {
        return None;
    }
    let balancers = upstreams::compile(config, &references, state);
    let services = upstreams::services(config, &references, &balancers, state);
    let mut chains = chains::Chains::new(&instances);
    let (router, routes) = routes::compile(config, &references, &mut chains, state, diagnostics)?;
    let unrouted = chains.global();
    Some(Snapshot {
        hash: config.hash.clone(),
        settings,
        router,
        routes,
        services,
        consumers,
        chains: chains.into_chains(),
        instances: instances.into_instances(),
        unrouted,
        unrouted_series: state.telemetry.route("", ""),
        upstreams: balancers.into_iter().flatten().collect(),
    })
}
