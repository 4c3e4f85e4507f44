//! Tollgate: a declarative API gateway on Pingora that speaks Kong's configuration format.
//!
//! Read in this order: what the operator wrote becomes what runs (`config` → `compile` →
//! `snapshot`), and `proxy` is the path of a request through it.

pub mod entity;

pub mod client;
pub mod state;
pub mod telemetry;
pub mod tls;

pub mod chain;
pub mod plugin;
pub mod plugins;

pub mod config;
pub mod router;
pub mod upstream;

pub mod compile;
pub mod snapshot;

pub mod admin;
pub mod explain;
pub mod proxy;
pub mod reload;
pub mod stream;

pub mod cli;
pub mod server;
