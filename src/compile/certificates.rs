//! Certificates, names and authorities as they are written → what a TLS handshake chooses from.

use std::{
    collections::HashSet,
    fmt::Debug,
    sync::{Mutex, OnceLock, PoisonError},
};

use chrono::DateTime;
use sha2::{Digest, Sha256};

use super::references::References;
use crate::{
    config::{
        Certificate, Code, Config, Diagnostics, Entity, Span,
        model::{
            certificate::ClientVerify,
            gateway::CipherSuite as WrittenSuite,
            settings::List,
            tls::{DhGroup as WrittenGroup, DhParameters as WrittenParameters, TlsVersions},
        },
        pem_files::PairFiles,
    },
    entity::Secret,
    state::registry::Registry,
    telemetry::handshakes::CertificateExpiry,
    tls::{
        self, Certificates, CipherSuite, Ciphers, ClientRules, DhGroup, DhParameters, Pair,
        PairError, Policy, ServerContext, Verify, Version,
    },
};

/// What one session that is kept counts as: about what OpenSSL needs for it.
const SESSION_BYTES: u64 = 1 << 10;

/// What metrics call the default certificate.
const DEFAULT: &str = "ssl_cert";

/// What outlives a compilation: contexts with their session keys, so that sessions can be resumed after a reload, and
/// what was live before.
#[derive(Debug, Default)]
pub(super) struct Kept {
    contexts: Registry<[u8; 32], ServerContext>,
    self_signed: OnceLock<Option<(String, Secret<String>)>>,
    /// The certificates of the last configuration that compiled; absent before the first.
    before: Mutex<Option<HashSet<[u8; 32]>>>,
}

/// What came out.
pub(super) struct Compiled {
    pub(super) certificates: Certificates,
    pub(super) expiries: Vec<CertificateExpiry>,
    seen: HashSet<[u8; 32]>,
}

impl Kept {
    /// The configuration with `compiled` is taken over.
    pub(super) fn adopt(&self, compiled: &Compiled) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(compiled.seen.clone());
        self.contexts.sweep();
    }
}

/// Compiles all that TLS needs. What is wrong is a diagnostic at its place, which shows no key.
pub(super) fn compile(
    config: &Config,
    references: &References,
    kept: &Kept,
    now: i64,
    diagnostics: &mut Diagnostics,
) -> Compiled {
    let before = kept.before.lock().unwrap_or_else(PoisonError::into_inner);
    let mut builder = Builder {
        kept,
        now,
        before: before.as_ref(),
        policy: policy(config, diagnostics),
        compiled: Compiled {
            certificates: Certificates::default(),
            expiries: Vec::new(),
            seen: HashSet::new(),
        },
        diagnostics,
    };
    builder.entities(config, references);
    builder.default(config);
    builder.compiled
}

fn policy(config: &Config, diagnostics: &mut Diagnostics) -> Policy {
    let gateway = &config.gateway;
    let (oldest, newest) = versions(&gateway.ssl_protocols);
    let ciphers = match gateway.ssl_cipher_suite {
        WrittenSuite::Modern => Ciphers::Suite(CipherSuite::Modern),
        WrittenSuite::Intermediate => Ciphers::Suite(CipherSuite::Intermediate),
        WrittenSuite::Old => Ciphers::Suite(CipherSuite::Old),
        WrittenSuite::Fips => Ciphers::Suite(CipherSuite::Fips),
        WrittenSuite::Custom => {
            let ciphers = gateway.ssl_ciphers.clone().unwrap_or_default();
            match tls::check_ciphers(&ciphers) {
                Ok(()) => Ciphers::Own(ciphers),
                Err(message) => {
                    let span = config.setting_at("ssl_ciphers");
                    diagnostics.error(Code::InvalidValue, span, "gateway.ssl_ciphers", message);
                    Ciphers::Suite(CipherSuite::Intermediate)
                }
            }
        }
    };
    let oldest = if gateway.ssl_cipher_suite == WrittenSuite::Modern {
        Version::Tls13
    } else {
        oldest
    };
    Policy {
        versions: (oldest, newest),
        ciphers,
        prefers_own_order: gateway.ssl_prefer_server_ciphers.map(|switch| switch.0),
        dh: dh_parameters(config, diagnostics),
        tickets: gateway.ssl_session_tickets.0,
        sessions_max: i32::try_from(gateway.ssl_session_cache_size.0 / SESSION_BYTES)
            .unwrap_or(i32::MAX)
            .max(1),
    }
}

fn dh_parameters(config: &Config, diagnostics: &mut Diagnostics) -> Option<DhParameters> {
    let written = config.gateway.ssl_dhparam.as_ref()?;
    let parameters = match (written, &config.dh_parameters) {
        (WrittenParameters::Group(group), _) => DhParameters::Group(match group {
            WrittenGroup::Ffdhe2048 => DhGroup::Ffdhe2048,
            WrittenGroup::Ffdhe3072 => DhGroup::Ffdhe3072,
            WrittenGroup::Ffdhe4096 => DhGroup::Ffdhe4096,
            WrittenGroup::Ffdhe6144 => DhGroup::Ffdhe6144,
            WrittenGroup::Ffdhe8192 => DhGroup::Ffdhe8192,
        }),
        (_, Some(file)) => DhParameters::Pem(file.text.expose().clone()),
        // What cannot be read is told already.
        (_, None) => return None,
    };
    if let Err(message) = parameters.check() {
        let span = config.setting_at("ssl_dhparam");
        diagnostics
            .error(Code::InvalidValue, span, "gateway.ssl_dhparam", message)
            .hint("write `ffdhe2048`, or make some with `openssl dhparam 2048`");
        return None;
    }
    Some(parameters)
}

fn versions(written: &List<TlsVersions>) -> (Version, Version) {
    let has = |wanted: fn(&TlsVersions) -> bool| written.iter().any(wanted);
    match (
        has(|versions| versions.tls12),
        has(|versions| versions.tls13),
    ) {
        (true, false) => (Version::Tls12, Version::Tls12),
        (false, true) => (Version::Tls13, Version::Tls13),
        _ => (Version::Tls12, Version::Tls13),
    }
}

struct Builder<'a> {
    kept: &'a Kept,
    now: i64,
    before: Option<&'a HashSet<[u8; 32]>>,
    policy: Policy,
    compiled: Compiled,
    diagnostics: &'a mut Diagnostics,
}

/// Where a text of PEM is written.
#[derive(Clone, Copy)]
struct Spot<'a> {
    span: Span,
    path: &'a str,
}

/// A certificate and its key, with their places.
struct Written<'a> {
    certificate: (&'a str, Spot<'a>),
    key: (&'a str, Spot<'a>),
}

impl Builder<'_> {
    fn entities(&mut self, config: &Config, references: &References) {
        let authorities: Vec<_> = config
            .ca_certificates
            .iter()
            .map(|entity| {
                let path = entity.place.path_of("cert");
                let spot = Spot {
                    span: entity.place.at("cert"),
                    path: &path,
                };
                self.authority(&entity.fields.cert, spot)
            })
            .collect();
        let contexts: Vec<_> = config
            .certificates
            .iter()
            .zip(&references.certificate_authorities)
            .map(|(entity, listed)| {
                let believed = listed
                    .iter()
                    .filter_map(|&index| authorities.get(index)?.clone());
                let rules = entity.fields.client_verify.map(|verify| ClientRules {
                    verify: match verify {
                        ClientVerify::Optional => Verify::Optional,
                        ClientVerify::Required => Verify::Required,
                    },
                    authorities: believed.collect(),
                    depth: entity.fields.client_verify_depth,
                });
                self.entity(entity, rules.as_ref())
            })
            .collect();
        for (sni, certificate) in config.snis.iter().zip(&references.sni_certificate) {
            let context = certificate.and_then(|index| contexts.get(index)?.clone());
            if let Some(context) = context {
                self.compiled.certificates.add(&sni.fields.name, context);
            }
        }
    }

    fn authority(&mut self, pem: &str, spot: Spot<'_>) -> Option<tls::Authority> {
        // The schema has complained already.
        if pem.is_empty() {
            return None;
        }
        match tls::authority(pem) {
            Ok((authority, facts)) if facts.not_after > self.now => Some(authority),
            Ok((_, facts)) => {
                let message = format!(
                    "the certificate of the authority expired on {}",
                    date(facts.not_after)
                );
                self.diagnostics
                    .error(Code::Expiry, spot.span, spot.path, message)
                    .hint("replace it, or leave it out");
                None
            }
            Err(problem) => {
                self.wrong(spot, &problem);
                None
            }
        }
    }

    fn entity(
        &mut self,
        entity: &Entity<Certificate>,
        rules: Option<&ClientRules>,
    ) -> Option<tls::Chosen> {
        let fields = &entity.fields;
        let path = |field: &str| entity.place.path_of(field);
        let paths = ["cert", "key", "cert_alt", "key_alt"].map(path);
        let spot = |field: &str, path| Spot {
            span: entity.place.at(field),
            path,
        };
        let [cert, key, cert_alt, key_alt] = &paths;
        let mut written = vec![Written {
            certificate: (&fields.cert, spot("cert", cert)),
            key: (fields.key.expose(), spot("key", key)),
        }];
        if let (Some(certificate), Some(alt)) = (&fields.cert_alt, &fields.key_alt) {
            written.push(Written {
                certificate: (certificate, spot("cert_alt", cert_alt)),
                key: (alt.expose(), spot("key_alt", key_alt)),
            });
        }
        self.context(&written, rules, &entity.id.to_string())
    }

    fn default(&mut self, config: &Config) {
        let spot = |span, path| Spot { span, path };
        let written: Vec<Written<'_>> = config
            .default_pairs
            .iter()
            .map(|PairFiles { certificate, key }| Written {
                certificate: (
                    certificate.text.expose(),
                    spot(certificate.span, &certificate.path),
                ),
                key: (key.text.expose(), spot(key.span, &key.path)),
            })
            .collect();
        let mut listeners = config.gateway.listen.addresses();
        let mut of_streams = config.gateway.stream_listen.addresses();
        let has_tls = listeners.any(|listen| listen.ssl) || of_streams.any(|listen| listen.ssl);
        let context = if !written.is_empty() {
            self.context(&written, None, DEFAULT)
        } else if has_tls && config.gateway.ssl_cert.is_empty() {
            self.generated(config)
        } else {
            None
        };
        if let Some(context) = context {
            self.compiled.certificates.set_default(context);
        }
    }

    /// A self-signed certificate, the same after every reload.
    fn generated(&mut self, config: &Config) -> Option<tls::Chosen> {
        let entries = config.gateway.listen.addresses();
        let first = entries.into_iter().position(|listen| listen.ssl);
        let setting = first.map_or_else(|| "listen".to_owned(), |index| format!("listen[{index}]"));
        let span = config.setting_at(&setting);
        let path = format!("gateway.{setting}");
        let spot = Spot { span, path: &path };
        let generated = self.kept.self_signed.get_or_init(|| {
            let (certificate, key) = tls::self_signed().ok()?;
            Some((certificate, Secret::new(key)))
        });
        let Some((certificate, key)) = generated else {
            let message = "a self-signed certificate cannot be made";
            self.diagnostics
                .error(Code::GeneratedCertificate, span, path.as_str(), message)
                .hint("name a certificate with `ssl_cert` and `ssl_cert_key`");
            return None;
        };
        // Where every name has a certificate nobody misses a default one.
        if config.snis.is_empty() {
            self.diagnostics
                .warning(
                    Code::GeneratedCertificate,
                    span,
                    path.as_str(),
                    "there is no certificate, so a self-signed one is used that no client trusts",
                )
                .hint("name one with `ssl_cert` and `ssl_cert_key`, or add `certificates`");
        }
        let written = Written {
            certificate: (certificate, spot),
            key: (key.expose(), spot),
        };
        self.context(&[written], None, DEFAULT)
    }

    /// The context that serves what is written, from before if it is the same.
    fn context(
        &mut self,
        written: &[Written<'_>],
        rules: Option<&ClientRules>,
        name: &str,
    ) -> Option<tls::Chosen> {
        let mut pairs: Vec<Pair> = Vec::new();
        let mut hash = Sha256::new();
        for one in written {
            let pair = self.pair(one)?;
            if pairs
                .iter()
                .any(|other| other.algorithm() == pair.algorithm())
            {
                let spot = one.certificate.1;
                let message = format!(
                    "there are two certificates with a key of the same algorithm, {}",
                    pair.algorithm()
                );
                self.diagnostics
                    .error(Code::InvalidCombination, spot.span, spot.path, message)
                    .hint(
                        "a second one is for clients that do not take the first: RSA beside ECDSA",
                    );
                return None;
            }
            self.expiry(&pair, one.certificate.1, name);
            for text in [one.certificate.0, one.key.0] {
                hash.update(text.len().to_be_bytes());
                hash.update(text);
            }
            pairs.push(pair);
        }
        hash.update(described(&(rules.map(ClientRules::id), &self.policy)));
        let policy = &self.policy;
        let context = self
            .kept
            .contexts
            .get_or_try_create(hash.finalize().into(), || {
                ServerContext::new(&pairs, rules, policy)
            });
        context
            .map_err(|problem| {
                if let Some(one) = written.first() {
                    self.wrong(one.certificate.1, &problem);
                }
            })
            .ok()
    }

    fn pair(&mut self, written: &Written<'_>) -> Option<Pair> {
        let ((certificate, at_certificate), (key, at_key)) = (written.certificate, written.key);
        // The schema has complained already.
        if certificate.is_empty() || key.is_empty() {
            return None;
        }
        let pair = Pair::parse(certificate, key);
        pair.map_err(|problem| match problem {
            PairError::Certificate => self.wrong(at_certificate, &problem),
            PairError::Key => self.wrong(at_key, &problem),
            PairError::Mismatch => {
                let Spot { span, path } = at_key;
                let message = problem.to_string();
                self.diagnostics
                    .error(Code::InvalidCombination, span, path, message)
                    .hint("the certificate that belongs to the key stands first in its text");
            }
        })
        .ok()
    }

    fn wrong(&mut self, spot: Spot<'_>, problem: &impl ToString) {
        let message = problem.to_string();
        self.diagnostics
            .error(Code::InvalidValue, spot.span, spot.path, message);
    }

    fn expiry(&mut self, pair: &Pair, spot: Spot<'_>, name: &str) {
        let facts = pair.certificate();
        self.compiled.seen.insert(facts.fingerprint);
        let expiry = CertificateExpiry {
            certificate: name.to_owned(),
            algorithm: pair.algorithm(),
            not_after: facts.not_after,
        };
        let is_near = expiry.is_near(self.now);
        self.compiled.expiries.push(expiry);
        let is_new = self
            .before
            .is_some_and(|before| !before.contains(&facts.fingerprint));
        let message = if facts.not_after <= self.now {
            format!("the certificate expired on {}", date(facts.not_after))
        } else if facts.not_before > self.now {
            format!(
                "the certificate is not valid before {}",
                date(facts.not_before)
            )
        } else if is_near {
            let message = format!("the certificate expires on {}", date(facts.not_after));
            self.diagnostics
                .warning(Code::Expiry, spot.span, spot.path, message);
            return;
        } else {
            return;
        };
        // What serves already is better than nothing; what is to replace it must be better than that.
        if is_new {
            self.diagnostics
                .error(Code::Expiry, spot.span, spot.path, message)
                .hint("the certificates that are live stay; put a valid one there");
        } else {
            self.diagnostics
                .warning(Code::Expiry, spot.span, spot.path, message)
                .hint("clients will refuse it");
        }
    }
}

fn described(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn date(unix_seconds: i64) -> String {
    DateTime::from_timestamp(unix_seconds, 0).map_or_else(
        || "an unknown day".to_owned(),
        |time| time.format("%Y-%m-%d").to_string(),
    )
}
