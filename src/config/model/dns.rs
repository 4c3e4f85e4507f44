//! The types of the `dns_…` settings: whom to ask for names, and for which records.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::settings::Written;

/// The port of a name server that is written without one.
const PORT: u16 = 53;

/// A name server: `ip` or `ip:port`, an IPv6 address with a port in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsServer(pub SocketAddr);

impl Written for DnsServer {
    const FORMAT: &'static str = "dns-server";
}

impl FromStr for DnsServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        let address = bare
            .parse()
            .map(|address: IpAddr| SocketAddr::new(address, PORT))
            .or_else(|_| text.parse());
        match address {
            Ok(address) if address.port() > 0 && !address.ip().is_unspecified() => {
                Ok(Self(address))
            }
            _ => Err(format!(
                "`{text}` is no name server: write its address, maybe with a port, such as `10.0.0.2` or `10.0.0.2:5353`"
            )),
        }
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A kind of records to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecords {
    /// That which gave the last answer.
    Last,
    Srv,
    A,
    Aaaa,
    /// Followed always, so it adds nothing.
    Cname,
}

impl Written for DnsRecords {
    const FORMAT: &'static str = "dns-records";
}

impl fmt::Display for DnsRecords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Last => "LAST",
            Self::Srv => "SRV",
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
        })
    }
}

impl FromStr for DnsRecords {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "LAST" => Ok(Self::Last),
            "SRV" => Ok(Self::Srv),
            "A" => Ok(Self::A),
            "AAAA" => Ok(Self::Aaaa),
            "CNAME" => Ok(Self::Cname),
            _ => Err(format!("`{text}` is none of LAST, SRV, A, AAAA, CNAME")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_maybe_with_a_port() {
        for (text, expected) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("10.0.0.2:5353", "10.0.0.2:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:54", "[::1]:54"),
        ] {
            let DnsServer(address) = text.parse().unwrap();
            assert_eq!(address.to_string(), expected, "{text}");
        }
        for text in ["", "ns.test", "10.0.0.2:0", "0.0.0.0", "10.0.0.2:x", "off"] {
            assert!(text.parse::<DnsServer>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_of_records_are_read_in_any_case() {
        assert_eq!("srv".parse(), Ok(DnsRecords::Srv));
        assert!("MX".parse::<DnsRecords>().unwrap_err().contains("none of"));
    }
}
