//! Certificates and keys out of PEM. What is wrong is told without showing any of it.

use std::fmt;

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    pkey::{Id, PKey, Private},
    x509::{X509, X509Ref},
};
use sha2::{Digest, Sha256};
use thiserror::Error;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A certificate with its private key and the certificates above it.
pub struct Pair {
    pub(super) leaf: X509,
    pub(super) chain: Vec<X509>,
    pub(super) key: PKey<Private>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// Why two texts are no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PairError {
    #[error("is not a certificate in PEM (`-----BEGIN CERTIFICATE-----` …)")]
    Certificate,
    #[error("is not a private key in PEM (`-----BEGIN PRIVATE KEY-----` …) without a passphrase")]
    Key,
    #[error("certificate does not match key")]
    Mismatch,
}

/// Why a text is no certificate of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthorityError {
    #[error("is not a certificate in PEM (`-----BEGIN CERTIFICATE-----` …)")]
    Certificate,
    #[error("holds more than one certificate; give each authority an entry of its own")]
    Several,
    #[error("is not the certificate of an authority: it lacks the constraint CA:TRUE")]
    NotAnAuthority,
}

impl Pair {
    /// Reads the certificate, with those above it behind it, and its key.
    ///
    /// # Errors
    /// When one of them is unreadable, or they do not belong together.
    pub fn parse(certificate: &str, key: &str) -> Result<Self, PairError> {
        let mut certificates =
            X509::stack_from_pem(certificate.as_bytes()).map_err(|_| PairError::Certificate)?;
        if certificates.is_empty() {
            return Err(PairError::Certificate);
        }
        let leaf = certificates.remove(0);
        // An encrypted key must not make OpenSSL ask the terminal for a passphrase.
        let no_passphrase = |_: &mut [u8]| Ok(0);
        let key = PKey::private_key_from_pem_callback(key.as_bytes(), no_passphrase)
            .map_err(|_| PairError::Key)?;
        let public = leaf.public_key().map_err(|_| PairError::Certificate)?;
        if !key.public_eq(&public) {
            return Err(PairError::Mismatch);
        }
        Ok(Self {
            leaf,
            chain: certificates,
            key,
        })
    }

    /// `rsa`, `ecdsa` or `other`: a client gets the one that it can verify.
    pub fn algorithm(&self) -> &'static str {
        match self.key.id() {
            Id::RSA | Id::RSA_PSS => "rsa",
            Id::EC => "ecdsa",
            _ => "other",
        }
    }

    /// What can be told of the certificate.
    pub fn certificate(&self) -> Certificate {
        Certificate::of(&self.leaf)
    }
}

/// What can be told of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the whole.
    pub fingerprint: [u8; 32],
    /// In Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
}

impl Certificate {
    fn of(certificate: &X509Ref) -> Self {
        Self {
            fingerprint: Sha256::digest(certificate.to_der().unwrap_or_default()).into(),
            not_before: unix_seconds(certificate.not_before()),
            not_after: unix_seconds(certificate.not_after()),
        }
    }
}

fn unix_seconds(time: &Asn1TimeRef) -> i64 {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    since.map_or(0, |since| {
        i64::from(since.days) * DAY_SECONDS + i64::from(since.secs)
    })
}

/// Reads the certificate of an authority.
///
/// # Errors
/// When it is unreadable, not alone, or not an authority's.
pub fn authority(pem: &str) -> Result<(X509, Certificate), AuthorityError> {
    let mut certificates =
        X509::stack_from_pem(pem.as_bytes()).map_err(|_| AuthorityError::Certificate)?;
    if certificates.len() > 1 {
        return Err(AuthorityError::Several);
    }
    let certificate = certificates.pop().ok_or(AuthorityError::Certificate)?;
    if !is_authority(&certificate) {
        return Err(AuthorityError::NotAnAuthority);
    }
    let facts = Certificate::of(&certificate);
    Ok((certificate, facts))
}

/// The `openssl` crate shows the constraint in the printed form only.
fn is_authority(certificate: &X509Ref) -> bool {
    let text = certificate.to_text().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| line.starts_with("X509v3 Basic Constraints:"))
        .and_then(|_| lines.next())
        .is_some_and(|line| line.split(',').any(|item| item.trim() == "CA:TRUE"))
}

#[cfg(test)]
mod tests {
    use super::{super::self_signed, *};

    #[test]
    fn a_certificate_and_its_key_are_a_pair() {
        let (certificate, key) = self_signed().expect("made");
        let pair = Pair::parse(&certificate, &key).expect("a pair");
        assert_eq!(pair.algorithm(), "ecdsa");
        let facts = pair.certificate();
        assert!(facts.not_after - facts.not_before > 300 * DAY_SECONDS);
    }

    #[test]
    fn what_is_no_pair_says_which_half_is_wrong() {
        let (certificate, key) = self_signed().expect("made");
        let (_, other) = self_signed().expect("made");
        let problem = |certificate: &str, key: &str| Pair::parse(certificate, key).err();
        assert_eq!(problem("x", &key), Some(PairError::Certificate));
        assert_eq!(problem(&key, &key), Some(PairError::Certificate));
        assert_eq!(problem(&certificate, "x"), Some(PairError::Key));
        assert_eq!(problem(&certificate, &other), Some(PairError::Mismatch));
    }

    #[test]
    fn a_servers_certificate_is_no_authority() {
        let (certificate, _) = self_signed().expect("made");
        assert_eq!(
            authority(&certificate).err(),
            Some(AuthorityError::NotAnAuthority)
        );
        let twice = format!("{certificate}{certificate}");
        assert_eq!(authority(&twice).err(), Some(AuthorityError::Several));
        assert_eq!(authority("x").err(), Some(AuthorityError::Certificate));
    }
}
