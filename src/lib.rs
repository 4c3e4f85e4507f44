//! Tollgate: a declarative API gateway on Pingora that speaks Kong's configuration format.
//!
//! Read in this order: what the operator wrote becomes what runs (`config` → `compile` →
//! `snapshot`), and `proxy` is the path of a request through it.

pub mod entity;

pub mod telemetry;
pub mod state;

pub mod plugin;
pub mod plugins;
pub mod chain;

pub mod config;
pub mod router;
pub mod upstream;

pub mod snapshot;
pub mod compile;

pub mod proxy;
pub mod admin;
pub mod reload;

pub mod server;
pub mod cli;
