//! TLS: certificates and keys, which of them a client gets, and the handshake; and whom the gateway believes as a
//! client of upstreams. All that names a type of the `openssl` crate is here.
//!
//! It knows neither the YAML nor requests.

mod authorities;
mod certificates;
mod context;
mod diffie_hellman;
mod facts;
mod handshake;
mod hello;
mod names;
mod pem;
mod policy;
mod records;
mod self_signed;
mod stream;
mod upstream;

pub use authorities::{Authorities, AuthoritiesError};
pub use certificates::{Certificates, Chosen};
pub use context::{ClientRules, ContextError, RulesId, ServerContext, Verify};
pub use diffie_hellman::{DhGroup, DhParameters};
pub use facts::{ClientCertificate, Protocol, TlsFacts};
pub use handshake::{Failed, Greeted, Greeting, Offer, Opened, answer, greet, open};
pub use openssl::x509::X509 as Authority;
pub use pem::{AuthorityError, Certificate, Pair, PairError, authority};
pub use policy::{CipherSuite, Ciphers, Policy, Version, check_ciphers};
pub use self_signed::self_signed;
pub use stream::{Replayed, SecureStream};
pub use upstream::{HandshakeError, Identity, Trust, UpstreamStream, UpstreamTls};
