//! Authorities and certificates for tests: made in memory, valid for two days unless a test says otherwise.

use std::fs;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

/// A certificate with its key and the intermediate authorities above it.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
    pub(crate) chain: Vec<X509>,
}

impl Issued {
    /// The certificate and those above it, in PEM.
    pub(crate) fn pem(&self) -> String {
        let mut pem = text(self.certificate.to_pem());
        for above in &self.chain {
            pem.push_str(&text(above.to_pem()));
        }
        pem
    }

    pub(crate) fn key_pem(&self) -> String {
        text(self.key.private_key_to_pem_pkcs8())
    }

    /// Writes `NAME.pem` and `NAME.key` into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.pem")), self.pem()).expect("written");
        fs::write(folder.join(format!("{name}.key")), self.key_pem()).expect("written");
    }
}

fn text(pem: Result<Vec<u8>, openssl::error::ErrorStack>) -> String {
    String::from_utf8(pem.expect("PEM")).expect("PEM is text")
}

/// An authority that signs certificates.
#[derive(Clone)]
pub(crate) struct Authority(Issued);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = key();
        let mut builder = begin(name, &key, 2);
        builder.set_issuer_name(&called(name)).expect("set");
        authority_extensions(&mut builder);
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        Self(Issued {
            certificate: builder.build(),
            key,
            chain: Vec::new(),
        })
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = key();
        let mut builder = begin(name, &key, 2);
        authority_extensions(&mut builder);
        Self(self.sign(builder, key))
    }

    /// A certificate for these host names and addresses; the first one is its common name too.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for_days(names, 2)
    }

    /// A certificate that is valid until so many days from now, which may be past.
    pub(crate) fn issue_for_days(&self, names: &[&str], days: i64) -> Issued {
        let key = key();
        let mut builder = begin(names.first().copied().unwrap_or_default(), &key, days);
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                alternatives.ip(name);
            } else {
                alternatives.dns(name);
            }
        }
        let alternatives = alternatives.build(&builder.x509v3_context(None, None));
        builder
            .append_extension(alternatives.expect("an extension"))
            .expect("set");
        self.sign(builder, key)
    }

    fn sign(&self, mut builder: X509Builder, key: PKey<Private>) -> Issued {
        let above = &self.0;
        let issuer = above.certificate.subject_name();
        builder.set_issuer_name(issuer).expect("set");
        builder
            .sign(&above.key, MessageDigest::sha256())
            .expect("signed");
        let is_root = above
            .certificate
            .issuer_name()
            .try_cmp(issuer)
            .expect("compared")
            == std::cmp::Ordering::Equal;
        let mut chain = Vec::new();
        if !is_root {
            chain.push(above.certificate.clone());
            chain.extend(above.chain.iter().cloned());
        }
        Issued {
            certificate: builder.build(),
            key,
            chain,
        }
    }

    /// Its own certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        text(self.0.certificate.to_pem())
    }

    pub(crate) fn certificate(&self) -> &X509 {
        &self.0.certificate
    }

    /// Writes its certificate as `NAME.pem` into a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.pem")), self.pem()).expect("written");
    }
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn called(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("a name");
    builder.append_entry_by_text("CN", name).expect("set");
    builder.build()
}

fn begin(name: &str, key: &PKey<Private>, days: i64) -> X509Builder {
    const DAY: i64 = 24 * 60 * 60;
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("set");
    let mut serial = BigNum::new().expect("a number");
    serial
        .rand(128, MsbOption::MAYBE_ZERO, false)
        .expect("random");
    let serial = serial.to_asn1_integer().expect("a serial");
    builder.set_serial_number(&serial).expect("set");
    builder.set_subject_name(&called(name)).expect("set");
    builder.set_pubkey(key).expect("set");
    let now = chrono::Utc::now().timestamp();
    let at = |days: i64| Asn1Time::from_unix(now + days * DAY).expect("a time");
    builder.set_not_before(&at(days - 30)).expect("set");
    builder.set_not_after(&at(days)).expect("set");
    builder
}

fn authority_extensions(builder: &mut X509Builder) {
    let constraints = BasicConstraints::new().critical().ca().build();
    builder
        .append_extension(constraints.expect("an extension"))
        .expect("set");
}
