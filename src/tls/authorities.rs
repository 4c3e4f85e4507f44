//! Sets of authorities: whose word about an upstream's name is believed. Parsed once, when the
//! configuration is compiled.

use std::{fs, io};

use openssl::{error::ErrorStack, x509::X509};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Certificates of authorities, none twice.
#[derive(Debug, Clone, Default)]
pub struct Authorities {
    certificates: Vec<X509>,
    /// By SHA-256 of the whole, in the order of `certificates`.
    fingerprints: Vec<[u8; 32]>,
}

/// Why there are no authorities.
#[derive(Debug, Error)]
pub enum AuthoritiesError {
    #[error("holds no certificate in PEM (`-----BEGIN CERTIFICATE-----` …)")]
    NoCertificate,
    #[error("this system has no file of authorities; name one in `gateway.trusted_certificates`")]
    NoSystemFile,
    #[error("the authorities of this system cannot be read: {0}")]
    System(#[source] io::Error),
    #[error("OpenSSL cannot describe a certificate")]
    OpenSsl(#[from] ErrorStack),
}

impl Authorities {
    /// Reads one or more certificates in PEM.
    ///
    /// # Errors
    /// When there is none, or one is malformed.
    pub fn parse(pem: &[u8]) -> Result<Self, AuthoritiesError> {
        let certificates =
            X509::stack_from_pem(pem).map_err(|_| AuthoritiesError::NoCertificate)?;
        if certificates.is_empty() {
            return Err(AuthoritiesError::NoCertificate);
        }
        Ok(Self::of(certificates.into_iter())?)
    }

    /// Those that were read one by one.
    ///
    /// # Errors
    /// When OpenSSL cannot describe one.
    pub fn of(certificates: impl Iterator<Item = X509>) -> Result<Self, ErrorStack> {
        let mut authorities = Self::default();
        for certificate in certificates {
            authorities.add(certificate)?;
        }
        Ok(authorities)
    }

    /// Those that this system trusts: the file in `SSL_CERT_FILE`, else where distributions put it.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be read.
    pub fn of_system() -> Result<Self, AuthoritiesError> {
        let file = openssl_probe::probe()
            .cert_file
            .ok_or(AuthoritiesError::NoSystemFile)?;
        Self::parse(&fs::read(file).map_err(AuthoritiesError::System)?)
    }

    /// Adds those of `other`.
    ///
    /// # Errors
    /// When OpenSSL cannot describe a certificate.
    pub fn extend(&mut self, other: &Self) -> Result<(), ErrorStack> {
        for certificate in &other.certificates {
            self.add(certificate.clone())?;
        }
        Ok(())
    }

    fn add(&mut self, certificate: X509) -> Result<(), ErrorStack> {
        let fingerprint = Sha256::digest(certificate.to_der()?).into();
        if !self.fingerprints.contains(&fingerprint) {
            self.fingerprints.push(fingerprint);
            self.certificates.push(certificate);
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    pub(super) fn certificates(&self) -> &[X509] {
        &self.certificates
    }

    /// The same for the same set, in whatever order it is written.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprints = self.fingerprints.clone();
        fingerprints.sort_unstable();
        Sha256::digest(fingerprints.concat()).into()
    }
}
