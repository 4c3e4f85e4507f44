//! How TLS is spoken with upstreams: authorities, client certificates and depths, for each https
//! service and for the probes of each upstream.

use std::{cell::OnceCell, sync::Arc};

use super::references::References;
use crate::{
    config::{
        Code, Config, Diagnostics, NamedFile, Span,
        model::{gateway::Gateway, settings::TrustedCertificates},
    },
    tls::{Authorities, Identity, IdentityError, Trust, UpstreamTls},
};

/// How TLS is spoken with whom.
#[derive(Debug)]
pub(super) struct Outbound {
    /// For each service, in their order; absent = no TLS.
    services: Vec<Option<Arc<UpstreamTls>>>,
    /// For each upstream: probes that verify, and those that do not.
    probes: Vec<[Arc<UpstreamTls>; 2]>,
}

impl Outbound {
    /// How the service at `index` speaks with its upstream; `None` = without TLS.
    pub(super) fn of_service(&self, index: usize) -> Option<Arc<UpstreamTls>> {
        self.services.get(index).cloned().flatten()
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

/// Decides for every service and upstream. What is unusable is a diagnostic.
pub(super) fn compile(
    config: &Config,
    references: &References,
    diagnostics: &mut Diagnostics,
) -> Outbound {
    let defaults = Defaults::read(config, diagnostics);
    let services = config
        .services
        .iter()
        .map(|service| {
            let fields = &service.fields;
            fields.protocol.is_encrypted().then(|| {
                let verify = fields.tls_verify.unwrap_or(config.gateway.tls_verify.0);
                let trust = verify.then(|| {
                    let depth = fields
                        .tls_verify_depth
                        .unwrap_or(config.gateway.tls_verify_depth);
                    Trust::new(defaults.authorities(diagnostics).clone(), depth)
                });
                Arc::new(UpstreamTls::new(trust, defaults.identity.clone()))
            })
        })
        .collect();
    let probes = config
        .upstreams
        .iter()
        .map(|upstream| {
            let needed = super::health::verifies(&upstream.fields);
            let trust = needed.then(|| {
                Trust::new(
                    defaults.authorities(diagnostics).clone(),
                    config.gateway.tls_verify_depth,
                )
            });
            let trusting = || Arc::new(UpstreamTls::new(None, defaults.identity.clone()));
            let verifying =
                trust.map(|trust| UpstreamTls::new(Some(trust), defaults.identity.clone()));
            [verifying.map_or_else(trusting, Arc::new), trusting()]
        })
        .collect();
    let _ = references;
    Outbound { services, probes }
}

/// What holds where an entity does not say.
struct Defaults<'a> {
    identity: Option<Identity>,
    /// Those of the files of `trusted_certificates`.
    trusted: Authorities,
    gateway: &'a Gateway,
    /// The same with those of the system if these are wanted. They are many, so they are read only
    /// if somebody verifies.
    all: OnceCell<Authorities>,
}

impl<'a> Defaults<'a> {
    fn read(config: &'a Config, diagnostics: &mut Diagnostics) -> Self {
        let mut trusted = Authorities::default();
        for file in &config.files.trusted {
            let read = Authorities::parse(&file.text)
                .and_then(|authorities| Ok(trusted.extend(&authorities)?));
            if let Err(error) = read {
                complain(file, &error.to_string(), diagnostics);
            }
        }
        let identity = config
            .files
            .client_pair
            .as_ref()
            .and_then(|(certificate, key)| {
                Identity::parse(&certificate.text, &key.text)
                    .map_err(|error| {
                        let file = match error {
                            IdentityError::Certificate => certificate,
                            IdentityError::Key | IdentityError::Mismatch => key,
                        };
                        complain(file, &error.to_string(), diagnostics);
                    })
                    .ok()
            });
        Self {
            identity,
            trusted,
            gateway: &config.gateway,
            all: OnceCell::new(),
        }
    }

    fn authorities(&self, diagnostics: &mut Diagnostics) -> &Authorities {
        self.all.get_or_init(|| {
            let mut all = self.trusted.clone();
            let wants_system = self
                .gateway
                .trusted_certificates
                .contains(&TrustedCertificates::System);
            if wants_system {
                let read = Authorities::of_system().and_then(|system| Ok(all.extend(&system)?));
                if let Err(error) = read {
                    diagnostics.warning(
                        Code::InvalidValue,
                        Span::default(),
                        "gateway.trusted_certificates",
                        format!("{error}; until then no certificate of an upstream is accepted"),
                    );
                }
            }
            all
        })
    }
}

fn complain(file: &NamedFile, problem: &str, diagnostics: &mut Diagnostics) {
    diagnostics.error(
        Code::InvalidValue,
        file.span,
        file.field.clone(),
        format!("`{}` {problem}", file.written),
    );
}
