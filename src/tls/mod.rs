//! TLS from clients: certificates and keys, which of them a client gets, and the handshake. All that
//! names a type of the `openssl` crate on the side of the clients is here.
//!
//! It knows neither the YAML nor requests.

mod certificates;
mod context;
mod facts;
mod handshake;
mod hello;
mod names;
mod pem;
mod policy;
mod self_signed;
mod stream;

pub use certificates::{Certificates, Chosen};
pub use context::{ClientRules, ContextError, RulesId, ServerContext, Verify};
pub use facts::{ClientCertificate, Protocol, TlsFacts};
pub use handshake::{Failed, Offer, Opened, open};
pub use openssl::x509::X509 as Authority;
pub use pem::{AuthorityError, Certificate, Pair, PairError, authority};
pub use policy::{CipherSuite, Ciphers, Policy, Version, check_ciphers};
pub use self_signed::self_signed;
pub use stream::SecureStream;
