//! How TLS handshakes with clients end, and until when the certificates are good.

use std::sync::{Mutex, PoisonError};

use super::{Count, families, page, page::Page};

/// Why a handshake failed. The codes are labels, so there are few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HandshakeFailure {
    /// It did not end within `client_header_timeout`.
    Timeout,
    /// The client went away.
    Closed,
    /// HTTP without TLS came to a TLS port.
    Cleartext,
    /// Something else than TLS came.
    NotTls,
    /// What the client says is malformed.
    Protocol,
    /// No protocol version or cipher that both know.
    NothingInCommon,
    /// The client showed no certificate, or none that verifies.
    ClientCertificate,
    /// The client does not like our certificate, or something else.
    RefusedByClient,
    /// There is no certificate to show.
    NoCertificate,
    /// OpenSSL failed on our side.
    Internal,
}

impl HandshakeFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Timeout,
        Self::Closed,
        Self::Cleartext,
        Self::NotTls,
        Self::Protocol,
        Self::NothingInCommon,
        Self::ClientCertificate,
        Self::RefusedByClient,
        Self::NoCertificate,
        Self::Internal,
    ];

    /// The label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Cleartext => "cleartext",
            Self::NotTls => "not_tls",
            Self::Protocol => "protocol",
            Self::NothingInCommon => "nothing_in_common",
            Self::ClientCertificate => "client_certificate",
            Self::RefusedByClient => "refused_by_client",
            Self::NoCertificate => "no_certificate",
            Self::Internal => "internal",
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub struct Handshakes {
    full: Count,
    resumed: Count,
    failures: [Count; HandshakeFailure::ALL.len()],
    expiries: Mutex<Vec<CertificateExpiry>>,
}

/// A certificate that expires sooner than that is warned of.
const SOON_SECONDS: i64 = 14 * 24 * 60 * 60;

/// Until when a certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The id of the entity, or the setting that names the file.
    pub certificate: String,
    /// `rsa`, `ecdsa` or `other`.
    pub algorithm: &'static str,
    /// In Unix seconds.
    pub not_after: i64,
}

impl CertificateExpiry {
    /// Whether it has expired by `now`, in Unix seconds, or will within two weeks.
    pub const fn is_near(&self, now: i64) -> bool {
        self.not_after <= now.saturating_add(SOON_SECONDS)
    }
}

impl Handshakes {
    /// One succeeded.
    pub fn succeeded(&self, resumed: bool) {
        if resumed { &self.resumed } else { &self.full }.inc();
    }

    /// One failed.
    pub fn failed(&self, failure: HandshakeFailure) {
        self.failures[failure as usize].inc();
    }

    /// The certificates of the configuration that has gone live.
    pub fn adopt(&self, expiries: Vec<CertificateExpiry>) {
        *self.expiries.lock().unwrap_or_else(PoisonError::into_inner) = expiries;
    }

    /// The certificates of the live configuration.
    pub fn expiries(&self) -> Vec<CertificateExpiry> {
        self.expiries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes the families.
    pub(super) fn write(&self, page: &mut Page) {
        page.family(&families::TLS_HANDSHAKES)
            .count(&["full"], self.full.get())
            .count(&["resumed"], self.resumed.get())
            .end();
        let mut failures = page.family(&families::TLS_HANDSHAKE_FAILURES);
        for (failure, count) in HandshakeFailure::ALL.iter().zip(&self.failures) {
            failures.count(&[failure.code()], count.get());
        }
        failures.end();
        let mut expiries = page.family(&families::CERTIFICATE_EXPIRY);
        for expiry in self.expiries() {
            expiries.gauge(
                &[&expiry.certificate, expiry.algorithm],
                page::signed_number(expiry.not_after),
            );
        }
        expiries.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_stands_at_its_own_number() {
        for (number, failure) in HandshakeFailure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, number, "{}", failure.code());
        }
    }
}
