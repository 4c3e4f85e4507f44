//! Where requests go: targets, their weights, their health, and the choice among them.

pub mod balancer;
pub mod health;
pub mod wheel;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::{
    entity::Protocol,
    state::{health::TargetAddresses, names::Name},
};

pub use balancer::{Balancer, Failed, Tried};

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
    /// How its addresses are; absent = nobody watches them.
    pub health: Option<Arc<TargetAddresses>>,
    /// What is left of `max_connections`; absent = no limit.
    pub slots: Option<Arc<Semaphore>>,
    /// The name to verify and to send as SNI: the host without its port.
    pub server_name: Arc<str>,
}

impl Target {
    /// The `Host` sent to it over `protocol`.
    pub fn host_header(&self, protocol: Protocol) -> &HeaderValue {
        let [http, https] = &self.host_headers;
        if protocol.is_encrypted() { https } else { http }
    }

    /// The next of its addresses that requests may go to; one that is `untried` while there is one.
    /// Waits up to `patience` for the first answer of the resolver to a name.
    pub async fn address(
        &self,
        patience: Duration,
        untried: impl Fn(IpAddr) -> bool + Send,
    ) -> Option<IpAddr> {
        let healthy = |address| self.is_healthy(address);
        match &self.host {
            TargetHost::Address(address) => healthy(*address).then_some(*address),
            TargetHost::Name(name) => name.address(patience, healthy, untried).await,
        }
    }

    /// Whether a request may go to one of its addresses that is `untried`.
    pub fn has_address(&self, untried: impl Fn(IpAddr) -> bool) -> bool {
        let is_left = |address| self.is_healthy(address) && untried(address);
        match &self.host {
            TargetHost::Address(address) => is_left(*address),
            TargetHost::Name(name) => name.count(is_left).1 > 0,
        }
    }

    /// Whether a request may go to any of its addresses. A name without addresses may yet get some.
    pub fn is_available(&self) -> bool {
        match (&self.health, &self.host) {
            (None, _) => true,
            (Some(health), TargetHost::Address(address)) => health.is_healthy(*address),
            (Some(_), TargetHost::Name(_)) => {
                let (known, healthy) = self.count();
                known == 0 || healthy > 0
            }
        }
    }

    /// How many addresses are known, and how many of them are healthy.
    pub fn count(&self) -> (usize, usize) {
        match &self.host {
            TargetHost::Address(address) => (1, usize::from(self.is_healthy(*address))),
            TargetHost::Name(name) => name.count(|address| self.is_healthy(address)),
        }
    }

    /// The addresses that are known.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match &self.host {
            TargetHost::Address(address) => vec![*address],
            TargetHost::Name(name) => name.addresses(),
        }
    }

    fn is_healthy(&self, address: IpAddr) -> bool {
        self.health
            .as_ref()
            .is_none_or(|health| health.is_healthy(address))
    }
}

/// The server name for TLS: `host` without its port. A bare address is no name (RFC 6066 §3) and is
/// sent only where it must be verified; an empty one, which would switch verification off, is
/// replaced by `fallback`.
pub fn server_name(host: &str, fallback: &str, verify: bool) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if !verify && bare.parse::<IpAddr>().is_ok() {
        return String::new();
    }
    if bare.is_empty() {
        return fallback.to_owned();
    }
    bare.to_owned()
}

/// How a target is addressed.
#[derive(Debug, Clone)]
pub enum TargetHost {
    Address(IpAddr),
    Name(Arc<Name>),
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::state::health::{Finding, Limits, Witness};

    /// `127.0.0.1:80`, not watched.
    pub(crate) fn target(weight: u16) -> Target {
        Target {
            host: TargetHost::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: 80,
            weight,
            label: "127.0.0.1:80".into(),
            host_headers: [
                HeaderValue::from_static("127.0.0.1"),
                HeaderValue::from_static("127.0.0.1:80"),
            ],
            health: None,
            slots: None,
            server_name: "127.0.0.1".into(),
        }
    }

    #[tokio::test]
    async fn a_name_is_used_while_one_of_its_addresses_is_healthy() {
        let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let health = Arc::new(TargetAddresses::of_name(80));
        let name = Name::of_addresses("a.test", addresses.to_vec());
        let target = Target {
            host: TargetHost::Name(Arc::new(name)),
            health: Some(Arc::clone(&health)),
            ..target(1)
        };
        let limits = Limits {
            timeouts: 1,
            ..Limits::default()
        };
        let fail = |address| {
            health.find_or_create(address, 0).report(
                Witness::Active,
                Finding::TimedOut,
                limits,
                || 0,
            )
        };
        fail(addresses[0]);
        assert_eq!(target.count(), (2, 1));
        for _ in 0..3 {
            let next = target.address(Duration::ZERO, |_| true).await;
            assert_eq!(next, Some(addresses[1]));
        }
        assert!(target.is_available());
        fail(addresses[1]);
        assert!(!target.is_available());
        assert_eq!(target.address(Duration::ZERO, |_| true).await, None);
    }

    #[tokio::test]
    async fn a_name_has_an_address_left_until_all_were_tried() {
        let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let name = Name::of_addresses("a.test", addresses.to_vec());
        let target = Target {
            host: TargetHost::Name(Arc::new(name)),
            ..target(1)
        };
        let untried = |address| address != addresses[0];
        assert!(target.has_address(untried));
        for _ in 0..3 {
            let next = target.address(Duration::ZERO, untried).await;
            assert_eq!(next, Some(addresses[1]));
        }
        assert!(!target.has_address(|_| false));
        assert!(target.address(Duration::ZERO, |_| false).await.is_some());
    }

    #[tokio::test]
    async fn an_address_that_is_out_is_not_given() {
        let mut target = target(1);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let health = Arc::new(TargetAddresses::of_address(address, 0));
        target.health = Some(Arc::clone(&health));
        let limits = Limits {
            timeouts: 1,
            ..Limits::default()
        };
        health.find_or_create(address.ip(), 0).report(
            Witness::Active,
            Finding::TimedOut,
            limits,
            || 0,
        );
        assert_eq!(target.address(Duration::ZERO, |_| true).await, None);
    }

    #[test]
    fn the_server_name_is_the_host_without_its_port() {
        assert_eq!(server_name("a.test:8443", "b", false), "a.test");
        assert_eq!(server_name("a.test", "b", true), "a.test");
        assert_eq!(server_name("[::1]:443", "b", true), "::1");
        assert_eq!(server_name("10.0.0.1:443", "b", false), "");
        assert_eq!(server_name("", "10.0.0.1", true), "10.0.0.1");
    }
}
