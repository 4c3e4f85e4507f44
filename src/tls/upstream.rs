//! TLS towards upstreams: whom the gateway believes, who it says it is, and how a handshake is judged.
//!
//! The handshake itself is Pingora's or that of a stream. The certificate is judged right behind it,
//! before a byte of a request is sent, as nginx does: so the log can tell what is wrong with it.

use std::{
    any::Any,
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
};

use openssl::{
    error::ErrorStack,
    ssl::{SslConnector, SslMethod, SslRef, SslVerifyMode, SslVersion},
    stack::Stack,
    x509::{
        X509PurposeId, X509StoreContext,
        store::X509StoreBuilder,
        verify::{X509CheckFlags, X509VerifyParam},
    },
};
use pingora_core::{
    Error, ErrorType, Result, protocols::Digest as ConnectionDigest, upstreams::peer::HttpPeer,
    utils::tls::CertKey,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::{Authorities, Pair};

/// How often the same upstream's bad certificate is logged at most, in milliseconds.
const SAID_INTERVAL: i64 = 10_000;

/// What Pingora calls when a handshake is done; what it gives is kept with the connection.
type Judge = Arc<dyn Fn(&SslRef) -> Option<Arc<dyn Any + Send + Sync>> + Send + Sync>;

/// A TLS connection with an upstream.
pub type UpstreamStream = SslStream<TcpStream>;

/// Why there is no TLS connection with an upstream.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The handshake was not completed.
    #[error("no TLS: {0}")]
    Broken(String),
    /// What is wrong with the certificate.
    #[error("its certificate is not accepted: {0}")]
    Unverified(String),
}

/// What was found of the certificate of a connection; it stays with the connection.
struct Verdict(std::result::Result<(), String>);

/// A client certificate with its key, to be shown to upstreams.
#[derive(Clone)]
pub struct Identity {
    pair: Arc<CertKey>,
    fingerprint: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Shows the certificate of `pair`.
    pub fn of(pair: Pair) -> Self {
        let mut certificates = vec![pair.leaf];
        certificates.extend(pair.chain);
        let mut digest = Sha256::new();
        for certificate in &certificates {
            digest.update(certificate.to_der().unwrap_or_default());
        }
        Self {
            fingerprint: digest.finalize().into(),
            pair: Arc::new(CertKey::new(certificates, pair.key)),
        }
    }
}

/// By whom and how far certificates of upstreams are verified.
pub struct Trust {
    authorities: Authorities,
    /// The most authorities between the upstream's certificate and a trusted one.
    depth: u8,
}

impl Trust {
    /// Believes `authorities`, over at most `depth` others in between.
    pub fn new(authorities: Authorities, depth: u8) -> Self {
        Self { authorities, depth }
    }

    /// Judges the upstream's certificate: it must lead to one of the authorities, be valid now, and
    /// be for `name`, which is a host name or an IP address. An error is a sentence for the log.
    fn judge(&self, ssl: &SslRef, name: &str) -> std::result::Result<(), String> {
        let verified = self.verify(ssl, name);
        // What OpenSSL left behind must not be taken for a mistake of the next call.
        drop(ErrorStack::get());
        verified.unwrap_or_else(|error| Err(format!("it cannot be verified: {error}")))
    }

    fn verify(
        &self,
        ssl: &SslRef,
        name: &str,
    ) -> std::result::Result<std::result::Result<(), String>, ErrorStack> {
        let Some(leaf) = ssl.peer_certificate() else {
            return Ok(Err("the upstream sent none".to_owned()));
        };
        let mut parameters = X509VerifyParam::new()?;
        parameters.set_purpose(X509PurposeId::SSL_SERVER)?;
        parameters.set_depth(i32::from(self.depth));
        parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        match name.parse::<IpAddr>() {
            Ok(address) => parameters.set_ip(address)?,
            // An empty name would match every certificate.
            Err(_) if name.is_empty() => return Ok(Err("there is no name to verify".to_owned())),
            Err(_) => parameters.set_host(name)?,
        }
        let mut store = X509StoreBuilder::new()?;
        for authority in self.authorities.certificates() {
            store.add_cert(authority.clone())?;
        }
        store.set_param(&parameters)?;
        let store = store.build();
        let none = Stack::new()?;
        let chain = ssl.peer_cert_chain().unwrap_or(&none);
        X509StoreContext::new()?.init(&store, &leaf, chain, |context| {
            if context.verify_cert()? {
                return Ok(Ok(()));
            }
            Ok(Err(format!(
                "{} (depth {}, expected name `{name}`)",
                context.error().error_string(),
                context.error_depth()
            )))
        })
    }
}

/// How TLS is spoken with an upstream.
pub struct UpstreamTls {
    trust: Option<Arc<Trust>>,
    identity: Option<Identity>,
    /// Judges by the server name that was sent.
    judge: Option<Judge>,
    /// Differs wherever anything here differs, so that no connection is shared.
    key: u64,
    /// When something was last said of a certificate, in Unix milliseconds.
    said: AtomicI64,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UpstreamTls")
            .field("verifies", &self.verifies())
            .finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// Without `trust` any certificate will do; without `identity` the gateway is anonymous.
    pub fn new(trust: Option<Trust>, identity: Option<Identity>) -> Self {
        let trust = trust.map(Arc::new);
        Self {
            key: key_of(trust.as_deref(), identity.as_ref()),
            judge: trust.clone().map(|trust| {
                judge_of(trust, |ssl| {
                    ssl.servername(openssl::ssl::NameType::HOST_NAME)
                        .unwrap_or_default()
                        .to_owned()
                })
            }),
            trust,
            identity,
            said: AtomicI64::new(0),
        }
    }

    /// A number that differs wherever connections may not be shared.
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Whether certificates are verified.
    pub fn verifies(&self) -> bool {
        self.trust.is_some()
    }

    /// Prepares `peer`, which has its server name, for a connection of its own kind.
    pub fn equip(&self, peer: &mut HttpPeer) {
        peer.group_key = self.key;
        peer.client_cert_key = self
            .identity
            .as_ref()
            .map(|identity| Arc::clone(&identity.pair));
        let options = &mut peer.options;
        options.verify_cert = false;
        options.verify_hostname = false;
        options
            .upstream_tls_handshake_complete_hook
            .clone_from(&self.judge);
        // An address is never sent as a server name, so the handshake cannot tell it.
        if let Some(trust) = &self.trust
            && peer.sni.parse::<IpAddr>().is_ok()
        {
            let name = peer.sni.clone();
            options.upstream_tls_handshake_complete_hook =
                Some(judge_of(Arc::clone(trust), move |_| name.clone()));
        }
    }

    /// Whether a connection that was made for a peer equipped by this may be used.
    ///
    /// # Errors
    /// When its certificate was not accepted, or nobody judged it.
    pub fn check(&self, connection: Option<&ConnectionDigest>) -> Result<()> {
        if self.trust.is_none() {
            return Ok(());
        }
        let verdict = connection
            .and_then(|connection| connection.ssl_digest.as_ref())
            .and_then(|tls| tls.extension.get::<Verdict>());
        let complaint = match verdict {
            Some(Verdict(Ok(()))) => return Ok(()),
            Some(Verdict(Err(complaint))) => complaint.clone(),
            None => "nobody looked at it".to_owned(),
        };
        Err(Error::explain(ErrorType::InvalidCert, complaint).into_up())
    }

    /// Shakes hands over `tcp`, as `name`, and judges the certificate. `protocols` are those to offer, as ALPN writes
    /// them (RFC 7301 §3.1).
    ///
    /// # Errors
    /// When there is no TLS connection, or its certificate is not accepted.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        name: &str,
        protocols: Option<&[u8]>,
    ) -> Result<UpstreamStream> {
        self.shake_hands(tcp, name, protocols)
            .await
            .map_err(|error| {
                let (kind, cause) = match error {
                    HandshakeError::Broken(cause) => (ErrorType::TLSHandshakeFailure, cause),
                    HandshakeError::Unverified(complaint) => (ErrorType::InvalidCert, complaint),
                };
                Error::explain(kind, cause).into_up()
            })
    }

    /// The same for those who speak no Pingora.
    ///
    /// # Errors
    /// When there is no TLS connection, or its certificate is not accepted.
    pub async fn shake_hands(
        &self,
        tcp: TcpStream,
        name: &str,
        protocols: Option<&[u8]>,
    ) -> std::result::Result<UpstreamStream, HandshakeError> {
        let broken = |error: &dyn fmt::Display| HandshakeError::Broken(error.to_string());
        let connector = CONNECTOR.as_ref().map_err(|error| broken(error))?;
        let mut ssl = self
            .prepared(connector, name)
            .map_err(|error| broken(&error))?;
        if let Some(protocols) = protocols {
            ssl.set_alpn_protos(protocols)
                .map_err(|error| broken(&error))?;
        }
        let mut stream = SslStream::new(ssl, tcp).map_err(|error| broken(&error))?;
        Pin::new(&mut stream)
            .connect()
            .await
            .map_err(|error| broken(&error))?;
        if let Some(trust) = &self.trust {
            trust
                .judge(stream.ssl(), name)
                .map_err(HandshakeError::Unverified)?;
        }
        Ok(stream)
    }

    fn prepared(
        &self,
        connector: &SslConnector,
        name: &str,
    ) -> std::result::Result<openssl::ssl::Ssl, ErrorStack> {
        let mut configuration = connector.configure()?;
        configuration.set_use_server_name_indication(!name.is_empty());
        configuration.set_verify_hostname(false);
        configuration.set_verify(SslVerifyMode::NONE);
        if let Some(Identity { pair, .. }) = &self.identity {
            configuration.set_certificate(pair.leaf())?;
            configuration.set_private_key(pair.key())?;
            for above in pair.intermediates() {
                configuration.add_chain_cert(above.clone())?;
            }
        }
        configuration.into_ssl(name)
    }

    /// Whether it is time again to log that a certificate was not accepted.
    pub fn may_say(&self, unix_milliseconds: i64) -> bool {
        let said = self.said.load(Ordering::Relaxed);
        unix_milliseconds.saturating_sub(said) >= SAID_INTERVAL
            && self
                .said
                .compare_exchange(
                    said,
                    unix_milliseconds,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

/// What streams shake hands with. Certificates are judged by us, so it knows no authority.
static CONNECTOR: LazyLock<std::result::Result<SslConnector, ErrorStack>> = LazyLock::new(|| {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    Ok(builder.build())
});

fn judge_of(trust: Arc<Trust>, name: impl Fn(&SslRef) -> String + Send + Sync + 'static) -> Judge {
    Arc::new(move |ssl| Some(Arc::new(Verdict(trust.judge(ssl, &name(ssl)))) as _))
}

fn key_of(trust: Option<&Trust>, identity: Option<&Identity>) -> u64 {
    let mut digest = Sha256::new();
    if let Some(trust) = trust {
        digest.update([1, trust.depth]);
        digest.update(trust.authorities.fingerprint());
    }
    if let Some(identity) = identity {
        digest.update([2]);
        digest.update(identity.fingerprint);
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
