//! TLS: certificates, keys and authorities, and what is made of them towards upstreams. All that
//! names a type of the `openssl` crate is here.
//!
//! It knows neither the YAML nor requests.

mod authorities;
mod upstream;

pub use authorities::{Authorities, AuthoritiesError};
pub use upstream::{Identity, IdentityError, Trust, UpstreamTls};
