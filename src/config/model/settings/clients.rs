//! What concerns the connections of clients: who they are behind proxies, how large their heads may be, and which
//! ports they see.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Size, Written, written};

/// An address or network whose word about the client is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedNetwork(pub IpNet);

impl Written for TrustedNetwork {
    const FORMAT: &'static str = "trusted-network";
}

impl FromStr for TrustedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| match text {
                "unix:" => "`unix:` is not supported in this version".to_owned(),
                _ => format!("`{text}` is neither an IP address nor a network such as 10.0.0.0/8"),
            })
    }
}

/// What tells the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RealIpHeader {
    /// A header of the request.
    Named(http::HeaderName),
    /// The PROXY header of the connection.
    ProxyProtocol,
}

written!(RealIpHeader, "real-ip-header", "string");

impl FromStr for RealIpHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "proxy_protocol" {
            return Ok(Self::ProxyProtocol);
        }
        text.parse()
            .map(Self::Named)
            .map_err(|_| format!("`{text}` is not a header name"))
    }
}

/// How many header lines of what size a request may have, `4 8k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderBuffers {
    pub count: u32,
    pub bytes: u64,
}

written!(HeaderBuffers, "header-buffers", "string");

impl FromStr for HeaderBuffers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let count = words
            .next()
            .and_then(|count| count.parse().ok())
            .filter(|&count: &u32| count > 0);
        let size = words
            .next()
            .and_then(|size| size.parse::<Size>().ok())
            .filter(|size| size.0 > 0);
        match (count, size, words.next()) {
            (Some(count), Some(size), None) => Ok(Self {
                count,
                bytes: size.0,
            }),
            _ => Err(format!(
                "`{text}` is not a number and a size, such as `4 8k`"
            )),
        }
    }
}

/// The port that clients see and the port that the gateway listens on, `80:8000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMap {
    pub outer: u16,
    pub inner: u16,
}

impl Written for PortMap {
    const FORMAT: &'static str = "port-map";
}

impl FromStr for PortMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = text.split_once(':').and_then(|(outer, inner)| {
            Some(Self {
                outer: outer.trim().parse().ok()?,
                inner: inner.trim().parse().ok()?,
            })
        });
        ports.ok_or_else(|| format!("`{text}` is not `outer:inner`, such as `80:8000`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_a_number_and_a_size() {
        assert_eq!(
            "4 8k".parse(),
            Ok(HeaderBuffers {
                count: 4,
                bytes: 8192
            })
        );
        assert!("4".parse::<HeaderBuffers>().is_err());
    }
}
