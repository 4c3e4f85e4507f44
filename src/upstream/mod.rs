//! Where requests go: targets, the addresses that they stand for, and the choice among those.

pub mod algorithm;
pub mod balancer;
pub mod follower;
pub mod health;
mod lanes;
pub mod member;
mod roster;
pub mod search;
pub mod target;

use std::net::IpAddr;

pub use algorithm::{Algorithm, Key};
pub use balancer::{Balancer, Outline};
pub use member::{Hold, Member};
pub use target::{Target, TargetHost};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_name_is_the_host_without_its_port() {
        assert_eq!(server_name("a.test:8443", "b", false), "a.test");
        assert_eq!(server_name("a.test", "b", true), "a.test");
        assert_eq!(server_name("[::1]:443", "b", true), "::1");
        assert_eq!(server_name("10.0.0.1:443", "b", false), "");
        assert_eq!(server_name("", "10.0.0.1", true), "10.0.0.1");
    }
}
