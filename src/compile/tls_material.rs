//! What TLS towards upstreams is made of: authorities, client certificates and depths.

use std::cell::OnceCell;

use super::references::References;
use crate::{
    config::{
        Code, Config, Diagnostics,
        model::{gateway::Gateway, tls::TrustedCertificates},
        pem_files::{PairFiles, PemFile},
    },
    tls::{self, Authorities, Identity, Pair, PairError, Trust, UpstreamTls},
};

/// The certificates of one configuration, and how they are used.
pub(super) struct Material<'a> {
    pub(super) config: &'a Config,
    references: &'a References,
    /// `client_ssl_cert`.
    default_identity: Option<Identity>,
    /// By their places in `certificates`, as far as some service or upstream shows them.
    identities: Vec<Option<Identity>>,
    /// By their places in `ca_certificates`. One that is wrong was reported with all others.
    authorities: Vec<Option<tls::Authority>>,
    /// Those of the files of `trusted_certificates`.
    trusted: Authorities,
    /// The same with those of the system if these are wanted. They are many, so they are read only
    /// if somebody verifies by them.
    default_authorities: OnceCell<Authorities>,
}

impl<'a> Material<'a> {
    /// Reads the certificates of `config` and of the files that it names. What is unusable is a diagnostic.
    pub(super) fn read(
        config: &'a Config,
        references: &'a References,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut trusted = Authorities::default();
        for file in &config.outbound_files.trusted {
            let read = Authorities::parse(file.text.expose().as_bytes())
                .and_then(|authorities| Ok(trusted.extend(&authorities)?));
            if let Err(error) = read {
                complain(file, format!("the file {error}"), diagnostics);
            }
        }
        let shown = |index: usize| {
            let mut all = references
                .service_certificate
                .iter()
                .chain(&references.upstream_certificate);
            all.any(|certificate| *certificate == Some(index))
        };
        Self {
            config,
            references,
            default_identity: config
                .outbound_files
                .client_pair
                .as_ref()
                .and_then(|files| identity(files, diagnostics)),
            identities: config
                .certificates
                .iter()
                .enumerate()
                .map(|(index, certificate)| {
                    let fields = &certificate.fields;
                    let pair = shown(index).then(|| Pair::parse(&fields.cert, fields.key.expose()));
                    // One that is wrong was reported with all others.
                    pair?.ok().map(Identity::of)
                })
                .collect(),
            authorities: config
                .ca_certificates
                .iter()
                .map(|authority| Some(tls::authority(&authority.fields.cert).ok()?.0))
                .collect(),
            trusted,
            default_authorities: OnceCell::new(),
        }
    }

    /// How the service at `index` speaks with its upstream; `None` = without TLS.
    pub(super) fn service(
        &self,
        index: usize,
        diagnostics: &mut Diagnostics,
    ) -> Option<UpstreamTls> {
        let gateway = &self.config.gateway;
        let fields = &self.config.services.get(index)?.fields;
        if !fields.protocol.is_encrypted() {
            return None;
        }
        let verify = fields.tls_verify.unwrap_or(gateway.tls_verify.0);
        let trust = verify.then(|| {
            let depth = fields.tls_verify_depth.unwrap_or(gateway.tls_verify_depth);
            let own = self.own_authorities(index);
            let authorities = if own.is_empty() {
                self.default_authorities(diagnostics).clone()
            } else {
                own
            };
            Trust::new(authorities, depth)
        });
        let upstream = self.references.service_upstream.get(index).copied();
        Some(UpstreamTls::new(
            trust,
            self.identity(Some(index), upstream.flatten()),
        ))
    }

    /// Places outside of the configuration must always prove who they are.
    pub(super) fn outside(&self, diagnostics: &mut Diagnostics) -> UpstreamTls {
        let authorities = self.default_authorities(diagnostics).clone();
        let depth = self.config.gateway.tls_verify_depth;
        UpstreamTls::new(
            Some(Trust::new(authorities, depth)),
            self.identity(None, None),
        )
    }

    /// Probes believe whom the services believe that send their requests there.
    pub(super) fn probes(&self, upstream: usize, diagnostics: &mut Diagnostics) -> UpstreamTls {
        let identity = self.identity(None, Some(upstream));
        let written = self.config.upstreams.get(upstream);
        let verifies = written.is_some_and(|written| super::health::verifies(&written.fields));
        if !verifies {
            return UpstreamTls::new(None, identity);
        }
        let mut authorities = Authorities::default();
        for (service, its_upstream) in self.references.service_upstream.iter().enumerate() {
            if *its_upstream == Some(upstream) {
                let own = self.own_authorities(service);
                // What OpenSSL cannot describe it could not verify by either.
                let _ = authorities.extend(&own);
            }
        }
        if authorities.is_empty() {
            authorities = self.default_authorities(diagnostics).clone();
        }
        let depth = self.config.gateway.tls_verify_depth;
        UpstreamTls::new(Some(Trust::new(authorities, depth)), identity)
    }

    /// The `ca_certificates` of a service.
    fn own_authorities(&self, service: usize) -> Authorities {
        let listed = self.references.service_authorities.get(service);
        let listed = listed
            .into_iter()
            .flatten()
            .filter_map(|index| self.authorities.get(*index)?.clone());
        // What OpenSSL cannot describe it could not verify by either.
        Authorities::of(listed).unwrap_or_default()
    }

    /// What is shown on behalf of a service, an upstream, or everybody.
    pub(super) fn identity(
        &self,
        service: Option<usize>,
        upstream: Option<usize>,
    ) -> Option<Identity> {
        let references = self.references;
        let of = |certificates: &[Option<usize>], index: Option<usize>| {
            certificates.get(index?).copied().flatten()
        };
        of(&references.service_certificate, service)
            .or_else(|| of(&references.upstream_certificate, upstream))
            .and_then(|certificate| self.identities.get(certificate)?.clone())
            .or_else(|| self.default_identity.clone())
    }

    /// Those of `trusted_certificates`.
    pub(super) fn default_authorities(&self, diagnostics: &mut Diagnostics) -> &Authorities {
        self.default_authorities.get_or_init(|| {
            let mut all = self.trusted.clone();
            if wants_system(&self.config.gateway) {
                let read = Authorities::of_system().and_then(|system| Ok(all.extend(&system)?));
                if let Err(error) = read {
                    diagnostics
                        .warning(
                            Code::UnreadableFile,
                            self.config.setting_at("trusted_certificates"),
                            "gateway.trusted_certificates",
                            error.to_string(),
                        )
                        .hint("until then nobody with `tls_verify` is accepted");
                }
            }
            all
        })
    }
}

fn wants_system(gateway: &Gateway) -> bool {
    gateway
        .trusted_certificates
        .contains(&TrustedCertificates::System)
}

fn identity(files: &PairFiles, diagnostics: &mut Diagnostics) -> Option<Identity> {
    let (certificate, key) = (&files.certificate, &files.key);
    match Pair::parse(certificate.text.expose(), key.text.expose()) {
        Ok(pair) => Some(Identity::of(pair)),
        Err(error) => {
            let (file, message) = match error {
                PairError::Certificate => (certificate, format!("the file {error}")),
                PairError::Key => (key, format!("the file {error}")),
                PairError::Mismatch => (key, error.to_string()),
            };
            complain(file, message, diagnostics);
            None
        }
    }
}

fn complain(file: &PemFile, message: String, diagnostics: &mut Diagnostics) {
    diagnostics.error(Code::InvalidValue, file.span, file.path.clone(), message);
}
