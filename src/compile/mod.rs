//! What was written becomes what runs. The only module that sees both.

mod balancing;
mod certificates;
mod chains;
mod consul;
mod consumers;
mod discovery;
mod dns;
mod health;
mod hosts;
mod keys;
mod origins;
mod outbound;
mod precedence;
mod references;
mod retries;
mod routes;
mod settings;
mod streams;
mod tls_material;
mod upstreams;

use std::sync::Arc;

use crate::{
    config::{Config, Diagnostics},
    plugins::Families,
    snapshot::{Service, Snapshot},
    state::State,
};

pub use dns::settings as dns_settings;

/// Compiles configurations into snapshots that share one state, so that a reload loses nothing.
#[derive(Debug)]
pub struct Compiler {
    state: Arc<State>,
    families: Families,
    certificates: certificates::Kept,
}

impl Compiler {
    /// A compiler for the process with `state`. Registers the plugins' metric families there.
    ///
    /// # Errors
    /// When a family is registered already: there is one compiler to a state.
    pub fn new(state: Arc<State>) -> Result<Self, prometheus::Error> {
        let families = Families::register(state.telemetry.registry())?;
        Ok(Self {
            state,
            families,
            certificates: certificates::Kept::default(),
        })
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
        let settings = settings::compile(&config.gateway, &config.error_templates);
        let tls = certificates::compile(
            config,
            &references,
            &self.certificates,
            state.clock.unix_seconds(),
            diagnostics,
        );
        let consumers = Arc::new(consumers::compile(config, &references, state));
        let keys = Arc::new(keys::compile(config, &references));
        state.telemetry.exports().begin();
        let destinations = chains::destinations(config);
        let instances = chains::configure(
            config,
            &references,
            &chains::Surroundings {
                state,
                families: &self.families,
                consumers: &consumers,
                keys: &keys,
                destinations: &destinations,
                own_services: &[],
                body_bytes_max: settings.body_buffer_bytes_max,
            },
            diagnostics,
        );
        let outside = destinations.into_outside();
        let verifies_outside = outside.iter().any(|place| place.is_encrypted);
        let outbound = outbound::compile(config, &references, verifies_outside, diagnostics);
        routes::check_flavor(config, diagnostics);
        hosts::check(config, &references, diagnostics);
        if diagnostics.has_errors() {
            return None;
        }
        let discovered = discovery::compile(config, &outbound, state);
        let balancers = upstreams::compile(config, &references, &outbound, &discovered, state);
        let written = upstreams::services(config, &references, &balancers, &outbound, state);
        let outside = upstreams::outside(&outside, &outbound, state);
        let services: Box<[Service]> = written.chain(outside).collect();
        let mut chains = precedence::Chains::new(config, &instances);
        let mut served = routes::compile(config, &references, &mut chains, state, diagnostics)?;
        let (streams, stream_places) = streams::compile(config, &references, state, diagnostics);
        let unrouted = chains.global();
        let chains = chains.into_chains(diagnostics)?;
        routes::add_series(&mut served.routes, &chains, &instances, &services, state);
        let origins = origins::compile(
            config,
            &references,
            &instances,
            &served.written,
            &stream_places,
            diagnostics,
        );
        self.certificates.adopt(&tls);
        Some(Snapshot {
            hash: config.hash.clone(),
            settings,
            certificates: tls.certificates,
            expiries: tls.expiries,
            router: served.router,
            routes: served.routes,
            streams,
            service_facts: services
                .iter()
                .map(|service| Arc::clone(&service.facts))
                .collect(),
            services,
            consumers,
            chains,
            secret_arguments: instances.secret_arguments(),
            instances: instances.into_instances(),
            unrouted,
            unrouted_series: state.telemetry.route("", ""),
            upstreams: balancers,
            discovered,
            origins,
        })
    }
}
