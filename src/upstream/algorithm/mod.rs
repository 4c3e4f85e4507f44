//! The ways in which an upstream picks one of its members, as they are configured. Each has a file;
//! what they prepare from the members is the roster's, the choice for a request the balancer's.

pub(super) mod latency;
pub(super) mod least_connections;
pub(super) mod ring;
pub(super) mod sessions;
pub mod wheel;

use std::net::IpAddr;

use http::HeaderName;
use xxhash_rust::xxh3::xxh3_64;

/// How members are picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    RoundRobin,
    LeastConnections,
    Latency,
    ConsistentHashing(Box<Hashing>),
    StickySessions(Cookie),
}

/// What is hashed, and how fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashing {
    /// What is hashed first of all; absent = nothing, and members take turns.
    pub on: Option<Input>,
    /// What is hashed where the request does not have that.
    pub fallback: Option<Input>,
    /// The places on the ring.
    pub slots: u32,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The id of the consumer, else of the credential.
    Consumer,
    /// The address of the client.
    Ip,
    Header(HeaderName),
    /// Its value; a request without it gets one.
    Cookie(Cookie),
    /// The normalised path.
    Path,
    QueryArg(String),
    /// A group of the regex that matched the path: its name or number.
    UriCapture(String),
}

/// A cookie that the gateway gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    pub name: String,
    pub path: String,
}

/// What of a request decides where it goes, where the algorithm asks for something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Key {
    /// Nothing does.
    #[default]
    Nothing,
    /// The hash of what the algorithm hashes.
    Hash(u64),
    /// The member that a cookie names.
    Session(u64),
}

impl Key {
    /// The key of what is hashed: the same in every process.
    pub fn of_value(value: &[u8]) -> Self {
        Self::Hash(xxh3_64(value))
    }

    /// The key of a client's address.
    pub fn of_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_value(&ip.octets()),
            IpAddr::V6(ip) => Self::of_value(&ip.octets()),
        }
    }
}

impl Algorithm {
    /// Its name in Kong's words.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Latency => "latency",
            Self::ConsistentHashing(_) => "consistent-hashing",
            Self::StickySessions(_) => "sticky-sessions",
        }
    }

    /// The key of a connection of which nothing is known but its client.
    pub fn key_of_stream(&self, client: IpAddr) -> Key {
        match self {
            Self::ConsistentHashing(hashing)
                if [&hashing.on, &hashing.fallback].contains(&&Some(Input::Ip)) =>
            {
                Key::of_ip(client)
            }
            _ => Key::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_hashed_by_its_client_or_not_at_all() {
        let client = IpAddr::from([10, 0, 0, 1]);
        let key = |on, fallback| {
            let hashing = Hashing {
                on: Some(on),
                fallback,
                slots: 10_000,
            };
            Algorithm::ConsistentHashing(Box::new(hashing)).key_of_stream(client)
        };
        assert_eq!(key(Input::Path, Some(Input::Ip)), Key::of_ip(client));
        assert_eq!(key(Input::Ip, None), Key::of_ip(client));
        assert_eq!(key(Input::Path, None), Key::Nothing);
    }
}
