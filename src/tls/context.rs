//! One certificate ready to be served: an OpenSSL context of its own, with its own session keys. So a session can
//! never be resumed under another certificate, or under other rules for client certificates.

use std::collections::HashSet;

use openssl::{
    error::ErrorStack,
    ssl::{
        AlpnError, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef,
        SslVerifyMode, select_next_proto,
    },
    x509::{X509, store::X509StoreBuilder, verify::X509VerifyFlags},
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    handshake::{Offer, offer_of},
    pem::Certificate,
    pem::Pair,
    policy::Policy,
};

const ALPN_HTTP1: &[u8] = b"\x08http/1.1\x08http/1.0";
const ALPN_HTTP2: &[u8] = b"\x02h2\x08http/1.1\x08http/1.0";

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// It may; one that does not verify ends the handshake.
    Optional,
    Required,
}

/// What is asked of clients.
#[derive(Debug)]
pub struct ClientRules {
    pub verify: Verify,
    /// Whose certificates are believed.
    pub authorities: Vec<X509>,
    /// How many intermediate certificates may stand between a client's and an authority's.
    pub depth: u32,
}

/// Tells rules apart: the same rules have the same id, no rules have `NONE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RulesId([u8; 16]);

impl RulesId {
    /// The client is not asked for a certificate.
    pub const NONE: Self = Self([0; 16]);
}

impl ClientRules {
    /// The id of these rules.
    pub fn id(&self) -> RulesId {
        let mut authorities: Vec<Vec<u8>> = self
            .authorities
            .iter()
            .map(|authority| authority.to_der().unwrap_or_default())
            .collect();
        authorities.sort();
        let mut hash = Sha256::new();
        hash.update([u8::from(self.verify == Verify::Required)]);
        hash.update(self.depth.to_be_bytes());
        for authority in authorities {
            hash.update(Sha256::digest(authority));
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(hash.split_at(16).0);
        RulesId(id)
    }
}

/// OpenSSL refuses what it was given.
#[derive(Debug, Error)]
#[error("OpenSSL refuses it: {0}")]
pub struct ContextError(#[from] ErrorStack);

/// A certificate, or one of each algorithm, ready to be served.
#[derive(Debug)]
pub struct ServerContext {
    pub(super) context: SslContext,
    pub(super) rules: RulesId,
    served: Vec<(&'static str, Certificate)>,
}

impl ServerContext {
    /// Makes a context that serves `pairs`, which have different algorithms.
    ///
    /// # Errors
    /// When OpenSSL finds something to object to, such as a key that is too short.
    pub fn new(
        pairs: &[Pair],
        client: Option<&ClientRules>,
        policy: &Policy,
    ) -> Result<Self, ContextError> {
        let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
        context.set_mode(
            SslMode::AUTO_RETRY
                | SslMode::ACCEPT_MOVING_WRITE_BUFFER
                | SslMode::ENABLE_PARTIAL_WRITE
                | SslMode::RELEASE_BUFFERS,
        );
        context.set_options(
            SslOptions::NO_COMPRESSION
                | SslOptions::NO_RENEGOTIATION
                // A client that just closes is no more than that; requests have lengths of their own.
                | SslOptions::IGNORE_UNEXPECTED_EOF,
        );
        // Or each record would take two reads, one for its five bytes of header.
        context.set_read_ahead(true);
        policy.apply(&mut context)?;
        let mut sent = HashSet::new();
        for pair in pairs {
            context.set_certificate(&pair.leaf)?;
            context.set_private_key(&pair.key)?;
            for above in &pair.chain {
                if sent.insert(above.to_der()?) {
                    context.add_extra_chain_cert(above.clone())?;
                }
            }
        }
        context.set_session_id_context(b"tollgate")?;
        context.set_alpn_select_callback(select_protocol);
        if let Some(client) = client {
            demand(&mut context, client)?;
        }
        Ok(Self {
            context: context.build(),
            rules: client.map_or(RulesId::NONE, ClientRules::id),
            served: pairs
                .iter()
                .map(|pair| (pair.algorithm(), pair.certificate()))
                .collect(),
        })
    }

    /// The certificates that it serves, with their algorithms.
    pub fn served(&self) -> &[(&'static str, Certificate)] {
        &self.served
    }

    /// What is asked of clients.
    pub fn rules(&self) -> RulesId {
        self.rules
    }
}

fn demand(context: &mut SslContextBuilder, client: &ClientRules) -> Result<(), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    // Whoever is listed is trusted, whether or not somebody stands above it.
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    for authority in &client.authorities {
        store.add_cert(authority.clone())?;
        context.add_client_ca(authority)?;
    }
    context.set_verify_cert_store(store.build())?;
    context.set_verify_depth(client.depth);
    context.set_verify(match client.verify {
        Verify::Optional => SslVerifyMode::PEER,
        Verify::Required => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
    });
    Ok(())
}

/// A client that offers only what the listener does not speak is told so, rather than understood by chance.
fn select_protocol<'c>(ssl: &mut SslRef, offered: &'c [u8]) -> Result<&'c [u8], AlpnError> {
    let ours = match offer_of(ssl) {
        Offer::Http1 => ALPN_HTTP1,
        Offer::Http2 => ALPN_HTTP2,
        Offer::Opaque => return Err(AlpnError::NOACK),
    };
    select_next_proto(ours, offered).ok_or(AlpnError::ALERT_FATAL)
}

#[cfg(test)]
mod tests {
    use super::{super::self_signed, *};

    fn pair() -> Pair {
        let (certificate, key) = self_signed().expect("made");
        Pair::parse(&certificate, &key).expect("a pair")
    }

    #[test]
    fn a_context_tells_what_it_serves() {
        let pair = pair();
        let facts = pair.certificate();
        let context = ServerContext::new(&[pair], None, &Policy::usual()).expect("a context");
        assert_eq!(context.served(), [("ecdsa", facts)]);
        assert_eq!(context.rules(), RulesId::NONE);
    }

    #[test]
    fn rules_are_told_apart_by_everything_that_is_in_them() {
        let (one, two) = (pair().leaf, pair().leaf);
        let rules = |verify, authorities: &[&X509], depth| {
            let authorities = authorities.iter().map(|&one| one.clone()).collect();
            ClientRules {
                verify,
                authorities,
                depth,
            }
            .id()
        };
        let id = rules(Verify::Required, &[&one, &two], 1);
        assert_eq!(id, rules(Verify::Required, &[&two, &one], 1));
        assert_ne!(id, rules(Verify::Optional, &[&one, &two], 1));
        assert_ne!(id, rules(Verify::Required, &[&one], 1));
        assert_ne!(id, rules(Verify::Required, &[&one, &two], 2));
    }
}
