//! Where requests go: targets, their weights, and the choice among them.

pub mod balancer;
pub mod wheel;

use std::{net::IpAddr, sync::Arc};

use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::{entity::Protocol, state::names::Name};

pub use balancer::{Balancer, Tried};

/// One place behind an upstream or a service.
#[derive(Debug, Clone)]
pub struct Target {
    pub host: TargetHost,
    pub port: u16,
    pub weight: u16,
    /// As the operator wrote it, for logs and metrics.
    pub label: String,
    /// The `Host` sent to it over http and over https, unless the route or upstream says otherwise.
    pub host_headers: [HeaderValue; 2],
    /// What is left of `max_connections`; absent = no limit.
    pub slots: Option<Arc<Semaphore>>,
    /// The name to verify and to send as SNI: the host without its port.
    pub server_name: Arc<str>,
}

impl Target {
    /// The `Host` sent to it over `protocol`.
    pub fn host_header(&self, protocol: Protocol) -> &HeaderValue {
        let [http, https] = &self.host_headers;
        match protocol {
            Protocol::Http => http,
            Protocol::Https => https,
        }
    }
}

/// How a target is addressed.
#[derive(Debug, Clone)]
pub enum TargetHost {
    Address(IpAddr),
    Name(Arc<Name>),
}
