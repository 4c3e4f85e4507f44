//! How TLS is spoken with upstreams: for each service over TLS, for the probes of each upstream, for places outside
//! of the configuration, and for Consul.

use std::sync::Arc;

use super::{consul, references::References, tls_material::Material};
use crate::{
    config::{Config, Diagnostics},
    tls::UpstreamTls,
};

/// How TLS is spoken with whom.
#[derive(Debug)]
pub(super) struct Outbound {
    /// For each service, in their order; absent = no TLS.
    services: Vec<Option<Arc<UpstreamTls>>>,
    /// For each upstream: probes that verify, and those that do not.
    probes: Vec<[Arc<UpstreamTls>; 2]>,
    /// For places outside of the configuration, if some plugin names one over https.
    outside: Option<Arc<UpstreamTls>>,
    pub(super) consul: consul::ConsulTls,
}

impl Outbound {
    /// How the service at `index` speaks with its upstream; `None` = without TLS.
    pub(super) fn of_service(&self, index: usize) -> Option<Arc<UpstreamTls>> {
        self.services.get(index).cloned().flatten()
    }

    /// How TLS is spoken with places outside of the configuration.
    pub(super) fn of_outside(&self) -> Option<Arc<UpstreamTls>> {
        self.outside.clone()
    }

    /// How probes over https speak with targets of the upstream at `index`.
    pub(super) fn of_probes(&self, index: usize, verify: bool) -> Arc<UpstreamTls> {
        let [verifying, trusting] = self
            .probes
            .get(index)
            .expect("there is a pair for each upstream");
        Arc::clone(if verify { verifying } else { trusting })
    }
}

/// Decides for every service and upstream, and with `verifies_outside` for places outside of the
/// configuration. What is unusable is a diagnostic.
pub(super) fn compile(
    config: &Config,
    references: &References,
    verifies_outside: bool,
    diagnostics: &mut Diagnostics,
) -> Outbound {
    let material = Material::read(config, references, diagnostics);
    let services = (0..config.services.len())
        .map(|index| material.service(index, diagnostics).map(Arc::new))
        .collect();
    let probes = (0..config.upstreams.len())
        .map(|index| {
            let verifying = material.probes(index, diagnostics);
            let identity = material.identity(None, Some(index));
            [
                Arc::new(verifying),
                Arc::new(UpstreamTls::new(None, identity)),
            ]
        })
        .collect();
    let outside = verifies_outside.then(|| Arc::new(material.outside(diagnostics)));
    let consul = consul::compile(&material, diagnostics);
    Outbound {
        services,
        probes,
        outside,
        consul,
    }
}
