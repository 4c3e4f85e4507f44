//! Authorities and the certificates that they issue, made for a test and trusted by nobody else.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameBuilder};

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

/// The algorithm of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Ecdsa,
    Rsa,
}

/// What to issue.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    name: &'a str,
    algorithm: Algorithm,
    is_authority: bool,
    /// Days from now.
    from: i64,
    until: i64,
}

impl Issued {
    /// An authority that nobody stands above.
    pub(crate) fn authority(name: &str) -> Self {
        Self::authority_until(name, 30)
    }

    /// The same that ends some days from now, or has ended some days ago.
    pub(crate) fn authority_until(name: &str, until: i64) -> Self {
        let wanted = Wanted {
            name,
            algorithm: Algorithm::Ecdsa,
            is_authority: true,
            from: -60,
            until,
        };
        issue(wanted, None)
    }

    /// Issues a certificate for `name` in the name of this authority.
    pub(crate) fn issue(&self, name: &str) -> Self {
        self.issue_until(name, 30)
    }

    /// The same that ends some days from now, or has ended some days ago.
    pub(crate) fn issue_until(&self, name: &str, until: i64) -> Self {
        let wanted = Wanted {
            name,
            algorithm: Algorithm::Ecdsa,
            is_authority: false,
            from: -60,
            until,
        };
        issue(wanted, Some(self))
    }

    /// The same with another algorithm.
    pub(crate) fn issue_with(&self, name: &str, algorithm: Algorithm) -> Self {
        let wanted = Wanted {
            name,
            algorithm,
            is_authority: false,
            from: -1,
            until: 30,
        };
        issue(wanted, Some(self))
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let wanted = Wanted {
            name,
            algorithm: Algorithm::Ecdsa,
            is_authority: true,
            from: -1,
            until: 30,
        };
        issue(wanted, Some(self))
    }

    pub(crate) fn certificate_pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().expect("PEM")).expect("text")
    }

    pub(crate) fn key_pem(&self) -> String {
        let pem = self.key.private_key_to_pem_pkcs8().expect("PEM");
        String::from_utf8(pem).expect("text")
    }

    /// `cert: …, key: …` for a flow mapping in YAML.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "cert: {}, key: {}",
            quoted(&self.certificate_pem()),
            quoted(&self.key_pem())
        )
    }
}

/// A text as a quoted string in YAML.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

fn issue(wanted: Wanted<'_>, by: Option<&Issued>) -> Issued {
    let key = match wanted.algorithm {
        Algorithm::Ecdsa => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
            PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
        }
        Algorithm::Rsa => PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key"),
    };
    let subject = distinguished(wanted.name);
    let issuer = by.map(|by| by.certificate.subject_name().to_owned().expect("a name"));
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("set");
    let mut serial = BigNum::new().expect("a number");
    serial
        .rand(100, MsbOption::MAYBE_ZERO, false)
        .expect("random");
    let serial = serial.to_asn1_integer().expect("a serial");
    builder.set_serial_number(&serial).expect("set");
    builder.set_subject_name(&subject).expect("set");
    builder
        .set_issuer_name(issuer.as_ref().unwrap_or(&subject))
        .expect("set");
    builder.set_pubkey(&key).expect("set");
    builder.set_not_before(&day(wanted.from)).expect("set");
    builder.set_not_after(&day(wanted.until)).expect("set");
    let mut constraints = BasicConstraints::new();
    constraints.critical();
    if wanted.is_authority {
        constraints.ca();
    }
    let constraints = constraints.build().expect("constraints");
    builder.append_extension(constraints).expect("set");
    let names = SubjectAlternativeName::new()
        .dns(wanted.name)
        .build(&builder.x509v3_context(by.map(|by| &*by.certificate), None))
        .expect("names");
    builder.append_extension(names).expect("set");
    let signer = by.map_or(&key, |by| &by.key);
    builder
        .sign(signer, MessageDigest::sha256())
        .expect("signed");
    Issued {
        certificate: builder.build(),
        key,
    }
}

fn distinguished(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("a name");
    builder
        .append_entry_by_text("O", "Example")
        .expect("an organisation");
    builder
        .append_entry_by_text("CN", name)
        .expect("a common name");
    builder.build()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate is valid by the real time"
)]
fn day(from_now: i64) -> Asn1Time {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let now = i64::try_from(now.as_secs()).expect("a time");
    Asn1Time::from_unix(now + from_now * DAY_SECONDS).expect("a time")
}
