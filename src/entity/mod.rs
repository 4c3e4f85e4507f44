//! The nouns that every layer shares: identifiers, secrets, consumers, credentials, keys, paths, hosts, expressions,
//! heads of messages, time limits, templates of error bodies. Nothing here does I/O or knows where a value came from.

pub mod consumer;
pub mod consumers;
pub mod credential;
pub mod error_template;
pub mod expression;
pub mod facts;
pub mod fields;
pub mod host;
pub mod identifier;
pub mod key;
pub mod message;
pub mod number;
pub mod path;
pub mod pattern;
pub mod protocol;
pub mod public_key;
pub mod reason;
pub mod secret;
pub mod timeouts;

pub use protocol::Protocol;
pub use secret::Secret;
pub use timeouts::Timeouts;
