//! Addresses to listen on, in nginx's notation: what may stand behind `listen`, `stream_listen` and `admin`.

use std::net::SocketAddr;
use std::str::FromStr;

use super::keepalive::Keepalive;
use super::settings::{List, Written};
use crate::config::formats;

/// An address to listen on, with nginx's flags.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that operators write"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Other processes may listen on the same address, and share its connections.
    pub reuseport: bool,
    /// Clients may speak HTTP/2, with prior knowledge of it.
    pub http2: bool,
    /// How many connections wait to be accepted.
    pub backlog: Option<u32>,
    /// An IPv6 socket takes no IPv4 connections; `None`: nor does it.
    pub ipv6only: Option<bool>,
    /// TCP keep-alive on accepted connections; `None`: as the system does.
    pub so_keepalive: Option<Keepalive>,
    /// Connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Clients speak TLS.
    pub ssl: bool,
}

impl Listen {
    /// An address without any flag.
    pub const fn on(address: SocketAddr) -> Self {
        Self {
            address,
            reuseport: false,
            http2: false,
            backlog: None,
            ipv6only: None,
            so_keepalive: None,
            proxy_protocol: false,
            ssl: false,
        }
    }
}

/// One entry of a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenEntry {
    Off,
    On(Listen),
}

impl Written for ListenEntry {
    const FORMAT: &'static str = "listen";
}

impl List<ListenEntry> {
    /// The addresses to listen on; none if the list is `off`.
    pub fn addresses(&self) -> impl Iterator<Item = &Listen> {
        self.0.iter().filter_map(|entry| match entry {
            ListenEntry::Off => None,
            ListenEntry::On(listen) => Some(listen),
        })
    }
}

/// One entry of a list of addresses for streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamListenEntry(pub ListenEntry);

impl Written for StreamListenEntry {
    const FORMAT: &'static str = "stream-listen";
}

impl List<StreamListenEntry> {
    /// The addresses to listen on; none if the list is `off`.
    pub fn addresses(&self) -> impl Iterator<Item = &Listen> {
        self.0.iter().filter_map(|entry| match &entry.0 {
            ListenEntry::Off => None,
            ListenEntry::On(listen) => Some(listen),
        })
    }
}

impl FromStr for StreamListenEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let flag = |name: &str| text.split_whitespace().skip(1).any(|flag| flag == name);
        if flag("udp") {
            return Err(format!("`{text}`: streams carry TCP only, not `udp`"));
        }
        for name in ["http2", "proxy_protocol"] {
            if flag(name) {
                return Err(format!("`{text}`: streams do not know the flag `{name}`"));
            }
        }
        text.parse().map(Self)
    }
}

impl FromStr for ListenEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        if address == "off" && words.next().is_none() {
            return Ok(Self::Off);
        }
        let mut listen = Listen::on(listen_address(address)?);
        for flag in words {
            listen
                .set(flag)
                .map_err(|complaint| format!("`{text}`: {complaint}"))?;
        }
        Ok(Self::On(listen))
    }
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(port) = text.parse::<u16>() {
        return Err(format!("`{text}` has no address: write `0.0.0.0:{port}`"));
    }
    match formats::split_port(text) {
        ("localhost", Some(port)) => Err(format!(
            "`{text}` needs an IP address: write `127.0.0.1:{port}`"
        )),
        (host, None) if formats::ip_address(host).is_some() => {
            Err(format!("`{text}` has no port: write `{text}:8000`"))
        }
        _ => Err(format!(
            "`{text}` is not `ip:port`, such as `0.0.0.0:8000` or `[::]:8000`"
        )),
    }
}

impl Listen {
    fn set(&mut self, flag: &str) -> Result<(), String> {
        let (name, value) = flag
            .split_once('=')
            .map_or((flag, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("reuseport", None) => self.reuseport = true,
            ("proxy_protocol", None) => self.proxy_protocol = true,
            ("http2", None) => self.http2 = true,
            ("ssl", None) => self.ssl = true,
            // A socket of its own is what every address has; when the kernel wakes us changes nothing
            // that anybody sees.
            ("bind" | "deferred", None) => {}
            ("backlog", Some(value)) => {
                let backlog = value.parse().ok().filter(|&backlog: &u32| backlog > 0);
                self.backlog = Some(
                    backlog.ok_or_else(|| format!("`backlog={value}` is not a positive number"))?,
                );
            }
            ("ipv6only", Some("on")) => self.ipv6only = Some(true),
            ("ipv6only", Some("off")) => self.ipv6only = Some(false),
            ("so_keepalive", Some(value)) => self.so_keepalive = Some(value.parse()?),
            _ => {
                let known = "ssl, http2, proxy_protocol, reuseport, deferred, bind, backlog=N, ipv6only=on|off, \
                             so_keepalive=on|off|idle:interval:count";
                return Err(format!("unknown flag `{flag}`; there are {known}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn listen(text: &str) -> Result<Listen, String> {
        match text.parse()? {
            ListenEntry::On(listen) => Ok(listen),
            ListenEntry::Off => Err("off".into()),
        }
    }

    #[test]
    fn listen_flags_are_understood() {
        let found =
            listen("0.0.0.0:8000 ssl reuseport backlog=16384 so_keepalive=on bind").unwrap();
        assert_eq!(found.address, "0.0.0.0:8000".parse().unwrap());
        assert!(found.reuseport && found.ssl);
        assert_eq!(
            (found.backlog, found.so_keepalive, found.ipv6only),
            (Some(16384), "on".parse().ok(), None)
        );
        assert_eq!(
            listen("[::]:8000 ipv6only=on").unwrap().ipv6only,
            Some(true)
        );
        assert_eq!("off".parse(), Ok(ListenEntry::Off));
        let flagged = listen("0.0.0.0:8000 proxy_protocol deferred so_keepalive=30m::10").unwrap();
        assert!(flagged.proxy_protocol);
        assert_eq!(
            flagged.so_keepalive,
            Some(Keepalive::On {
                idle: Some(Duration::from_mins(30)),
                interval: None,
                count: Some(10)
            })
        );
    }

    #[test]
    fn what_a_listener_cannot_do_is_refused_by_name() {
        for (text, expected) in [
            ("0.0.0.0:8000 fast", "unknown flag `fast`"),
            ("8000", "write `0.0.0.0:8000`"),
            ("localhost:8000", "write `127.0.0.1:8000`"),
            ("0.0.0.0", "has no port"),
            ("0.0.0.0:80000", "is not `ip:port`"),
            ("0.0.0.0:1 backlog=x", "not a positive number"),
        ] {
            let error = listen(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
