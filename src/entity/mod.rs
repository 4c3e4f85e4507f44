//! The nouns that every layer shares: identifiers, secrets, consumers, paths, hosts, expressions,
//! time limits.
//! Nothing here does I/O or knows where a value came from.

pub mod consumer;
pub mod expression;
pub mod facts;
pub mod host;
pub mod identifier;
pub mod path;
pub mod pattern;
pub mod protocol;
pub mod reason;
pub mod secret;
pub mod timeouts;

pub use protocol::Protocol;
pub use secret::Secret;
pub use timeouts::Timeouts;
