//! Which protocols and ciphers are spoken: Mozilla's three profiles, one for FIPS, and the operator's own.

use openssl::ssl::{SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslVersion};

use super::diffie_hellman::DhParameters;

/// What every certificate of a listener is served with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The oldest and the newest version.
    pub versions: (Version, Version),
    pub ciphers: Ciphers,
    /// Whether the gateway's order of ciphers counts, not the client's; `None`: as the ciphers have it.
    pub prefers_own_order: Option<bool>,
    /// Without them there is no DHE.
    pub dh: Option<DhParameters>,
    /// Whether clients may keep their sessions in tickets.
    pub tickets: bool,
    /// How many sessions of clients without tickets are kept for a certificate; at least 1.
    pub sessions_max: i32,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    Tls12,
    Tls13,
}

/// The ciphers of all versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ciphers {
    Suite(CipherSuite),
    /// In OpenSSL's notation; those of TLS 1.3 are the default ones.
    Own(String),
}

/// A profile of ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    Modern,
    Intermediate,
    Old,
    Fips,
}

impl CipherSuite {
    /// Ciphers up to TLS 1.2, in OpenSSL's notation.
    const fn ciphers(self) -> &'static str {
        match self {
            Self::Modern | Self::Intermediate => {
                "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                 ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
                 DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
            }
            Self::Old => {
                "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                 ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
                 ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:\
                 ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA:\
                 AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA256:AES128-SHA:AES256-SHA"
            }
            Self::Fips => {
                "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                 ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
            }
        }
    }

    /// Cipher suites of TLS 1.3.
    const fn suites(self) -> &'static str {
        match self {
            Self::Fips => "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
            _ => "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
        }
    }
}

impl Version {
    const fn openssl(self) -> SslVersion {
        match self {
            Self::Tls12 => SslVersion::TLS1_2,
            Self::Tls13 => SslVersion::TLS1_3,
        }
    }
}

impl Policy {
    /// Sets up a context for it.
    pub(super) fn apply(
        &self,
        context: &mut SslContextBuilder,
    ) -> Result<(), openssl::error::ErrorStack> {
        let (oldest, newest) = self.versions;
        context.set_min_proto_version(Some(oldest.openssl()))?;
        context.set_max_proto_version(Some(newest.openssl()))?;
        match &self.ciphers {
            Ciphers::Suite(suite) => {
                context.set_cipher_list(suite.ciphers())?;
                context.set_ciphersuites(suite.suites())?;
            }
            Ciphers::Own(ciphers) => context.set_cipher_list(ciphers)?,
        }
        // Clients of the profiles without weak ciphers know best which one their hardware is good at.
        let weighs = matches!(
            self.ciphers,
            Ciphers::Own(_) | Ciphers::Suite(CipherSuite::Old)
        );
        if self.prefers_own_order.unwrap_or(weighs) {
            context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        }
        if let Some(parameters) = &self.dh {
            let parameters = parameters.read()?;
            context.set_tmp_dh(&parameters)?;
        }
        if !self.tickets {
            context.set_options(SslOptions::NO_TICKET);
        }
        context.set_session_cache_mode(SslSessionCacheMode::SERVER);
        // When it has so many it forgets one.
        context.set_session_cache_size(self.sessions_max.saturating_add(1));
        Ok(())
    }
}

/// Whether OpenSSL knows at least one of the ciphers.
///
/// # Errors
/// A sentence for the operator.
pub fn check_ciphers(ciphers: &str) -> Result<(), String> {
    let known = SslContextBuilder::new(SslMethod::tls_server())
        .and_then(|mut context| context.set_cipher_list(ciphers));
    known.map_err(|_| {
        format!(
            "OpenSSL knows none of the ciphers `{ciphers}`; `openssl ciphers` lists what there is"
        )
    })
}

#[cfg(test)]
impl Policy {
    /// What an operator gets who says nothing.
    pub(super) fn usual() -> Self {
        Self {
            versions: (Version::Tls12, Version::Tls13),
            ciphers: Ciphers::Suite(CipherSuite::Intermediate),
            prefers_own_order: None,
            dh: None,
            tickets: true,
            sessions_max: 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_known_to_openssl() {
        for suite in [
            CipherSuite::Modern,
            CipherSuite::Intermediate,
            CipherSuite::Old,
            CipherSuite::Fips,
        ] {
            let policy = Policy {
                ciphers: Ciphers::Suite(suite),
                ..Policy::usual()
            };
            let mut context = SslContextBuilder::new(SslMethod::tls_server()).expect("a context");
            policy.apply(&mut context).expect("known ciphers");
        }
    }

    #[test]
    fn ciphers_that_nobody_knows_are_told() {
        assert_eq!(check_ciphers("ECDHE-RSA-AES128-GCM-SHA256"), Ok(()));
        let error = check_ciphers("NONSENSE").expect_err("unknown");
        assert!(error.contains("`NONSENSE`"), "{error}");
    }
}
