//! How TLS is spoken with Consul, for each way in which that is written.

use std::{collections::BTreeMap, sync::Arc};

use super::tls_material::Material;
use crate::{
    config::{
        Code, Diagnostics,
        consul_files::{WrittenAccess, accesses},
        model::{discovery::Access, settings::FilePath},
    },
    tls::{Authorities, Identity, Pair, PairError, Trust, UpstreamTls},
};

/// What decides how TLS is spoken: whether to verify, then the files of authorities, certificate and key.
type Way = (bool, [Option<String>; 3]);

/// How TLS is spoken with Consul. Each way is made once, however many upstreams have it.
#[derive(Debug, Default)]
pub(super) struct ConsulTls(BTreeMap<Way, Arc<UpstreamTls>>);

impl ConsulTls {
    /// How it is spoken where it is written so.
    pub(super) fn of(&self, access: &Access<'_>) -> Option<Arc<UpstreamTls>> {
        self.0.get(&way(access)).cloned()
    }
}

fn way(access: &Access<'_>) -> Way {
    let name = |file: Option<&FilePath>| file.map(|file| file.0.clone());
    let files = [access.ca_file, access.cert_file, access.key_file];
    (access.tls_verify, files.map(name))
}

/// Makes every way that is written. What is unusable is a diagnostic.
pub(super) fn compile(material: &Material<'_>, diagnostics: &mut Diagnostics) -> ConsulTls {
    let mut ways = BTreeMap::new();
    for written in accesses(material.config) {
        let base = written.access.base();
        if base.is_some_and(|base| base.is_secure()) {
            ways.entry(way(&written.access))
                .or_insert_with(|| Arc::new(make(material, &written, diagnostics)));
        }
    }
    ConsulTls(ways)
}

fn make(
    material: &Material<'_>,
    written: &WrittenAccess<'_>,
    diagnostics: &mut Diagnostics,
) -> UpstreamTls {
    let access = &written.access;
    let depth = material.config.gateway.tls_verify_depth;
    let trust = access.tls_verify.then(|| {
        let authorities = match access.ca_file {
            Some(file) => authorities(material, written, file, diagnostics),
            None => material.default_authorities(diagnostics).clone(),
        };
        Trust::new(authorities, depth)
    });
    let identity = access
        .cert_file
        .zip(access.key_file)
        .and_then(|(certificate, key)| identity(material, written, certificate, key, diagnostics));
    UpstreamTls::new(trust, identity)
}

/// None if they cannot be used, which is an error then.
fn authorities(
    material: &Material<'_>,
    written: &WrittenAccess<'_>,
    file: &FilePath,
    diagnostics: &mut Diagnostics,
) -> Authorities {
    let text = material.config.consul_files.text(file);
    // One that cannot be read was reported.
    let read = text.map(|text| Authorities::parse(text.expose().as_bytes()));
    match read {
        Some(Ok(authorities)) => authorities,
        Some(Err(error)) => {
            let message = format!("the file {error}");
            complain(material, written, "ca_file", message, diagnostics);
            Authorities::default()
        }
        None => Authorities::default(),
    }
}

fn identity(
    material: &Material<'_>,
    written: &WrittenAccess<'_>,
    certificate: &FilePath,
    key: &FilePath,
    diagnostics: &mut Diagnostics,
) -> Option<Identity> {
    let files = &material.config.consul_files;
    let (certificate, key) = files.text(certificate).zip(files.text(key))?;
    let error = match Pair::parse(certificate.expose(), key.expose()) {
        Ok(pair) => return Some(Identity::of(pair)),
        Err(error) => error,
    };
    let (field, message) = match error {
        PairError::Certificate => ("cert_file", format!("the file {error}")),
        PairError::Key => ("key_file", format!("the file {error}")),
        PairError::Mismatch => ("key_file", error.to_string()),
    };
    complain(material, written, field, message, diagnostics);
    None
}

fn complain(
    material: &Material<'_>,
    written: &WrittenAccess<'_>,
    field: &str,
    message: String,
    diagnostics: &mut Diagnostics,
) {
    let (span, path) = written.at(material.config, field);
    diagnostics.error(Code::InvalidValue, span, path, message);
}
