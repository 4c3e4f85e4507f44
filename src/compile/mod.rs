//! What was written becomes what runs. The only module that sees both.

mod chains;
mod consumers;
mod health;
mod origins;
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

/// Compiles configurations into snapshots that share one state, so that a reload loses nothing.
#[derive(Debug)]
pub struct Compiler {
    state: Arc<State>,
    families: Families,
}

impl Compiler {
    /// A compiler for the process with `state`. Registers the plugins' metric families there.
    ///
    /// # Errors
    /// When a family is registered already: there is one compiler to a state.
    pub fn new(state: Arc<State>) -> Result<Self, prometheus::Error> {
        let families = Families::register(state.telemetry.registry())?;
        Ok(Self { state, families })
    }

    /// What the snapshots share.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Compiles `config`.
    ///
    /// Everything that is wrong is added to `diagnostics`. `None` if there is any error, also one
    /// that was found while the files were loaded.
    pub fn compile(&self, config: &Config, diagnostics: &mut Diagnostics) -> Option<Snapshot> {
        let state = &*self.state;
        let references = references::resolve(config, diagnostics);
        let settings = settings::compile(&config.gateway);
        let consumers = Arc::new(consumers::compile(config, &references, state));
        state.telemetry.exports().begin();
        let instances = chains::configure(
            config,
            &references,
            &chains::Surroundings {
                state,
                families: &self.families,
                consumers: &consumers,
                body_bytes_max: settings.body_buffer_bytes_max,
            },
            diagnostics,
        );
        routes::check_flavor(config, diagnostics);
        if diagnostics.has_errors() {
            return None;
        }
        let balancers = upstreams::compile(config, &references, state);
        let services = upstreams::services(config, &references, &balancers, state);
        let mut chains = chains::Chains::new(&instances);
        let served = routes::compile(config, &references, &mut chains, state, diagnostics)?;
        let unrouted = chains.global();
        let origins = origins::compile(
            config,
            &references,
            &instances,
            &served.written,
            diagnostics,
        );
        Some(Snapshot {
            hash: config.hash.clone(),
            settings,
            router: served.router,
            routes: served.routes,
            services,
            consumers,
            chains: chains.into_chains(),
            secret_arguments: instances.secret_arguments(),
            instances: instances.into_instances(),
            unrouted,
            unrouted_series: state.telemetry.route("", ""),
            upstreams: balancers,
            origins,
        })
    }
}
