//! The host names that a route lists, and the form in which a request's host is compared with them.
//!
//! Nothing here resolves names; the index that finds a route by its host is the router's.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::Deref;

use smallvec::SmallVec;

/// One entry of a route's `hosts`, checked and in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// The names that match.
    pub name: HostName,
    /// The request's port must be this one; `None`: any port.
    pub port: Option<u16>,
}

/// The part of a [`HostPattern`] before its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// This name or address alone. An IPv6 address stands without its brackets.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name that ends so and has something before it.
    AnyBefore(String),
    /// `example.*`, kept as `example.`: any name that begins so and has something after it.
    AnyAfter(String),
}

impl HostPattern {
    /// Reads one entry of a route's `hosts`: a name, an IPv4 or IPv6 address (bracketed or not), or
    /// a name with `*` as its whole first or last label; then `:port` if wanted (an IPv6 address
    /// then needs its brackets).
    ///
    /// The error is a sentence for the operator, without the field's place.
    pub fn parse(written: &str) -> Result<Self, String> {
        let (name, port) = split_port(written)?;
        let name = parse_name(name).map_err(|problem| format!("host `{written}` {problem}"))?;
        Ok(Self { name, port })
    }

    /// Whether a request for `host` on `port` is meant.
    pub fn matches(&self, host: &RequestHost<'_>, port: u16) -> bool {
        self.name.matches(host) && self.port.is_none_or(|wanted| wanted == port)
    }
}

impl HostName {
    /// Whether the pattern has a `*`.
    pub fn is_wildcard(&self) -> bool {
        !matches!(self, Self::Exact(_))
    }

    /// Whether a name in lower case, without brackets, is meant.
    pub fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => name.as_bytes() == host,
            Self::AnyBefore(suffix) => host
                .strip_suffix(suffix.as_bytes())
                .is_some_and(|before| !before.is_empty()),
            Self::AnyAfter(prefix) => host
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|after| !after.is_empty()),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(address) if address.contains(':') => write!(f, "[{address}]"),
            Self::Exact(name) => f.write_str(name),
            Self::AnyBefore(suffix) => write!(f, "*{suffix}"),
            Self::AnyAfter(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Checks one entry of a route's `hosts`; see [`HostPattern::parse`].
pub fn validate(written: &str) -> Result<(), String> {
    HostPattern::parse(written).map(|_| ())
}

/// Reads one entry of a route's `snis`: a name as in [`HostPattern::parse`], without a port; a dot at
/// its end is dropped.
///
/// The error is a sentence for the operator, without the field's place.
pub fn parse_server_name(written: &str) -> Result<HostName, String> {
    let name = written.strip_suffix('.').unwrap_or(written);
    if name.contains(':') || name.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!(
            "server name `{written}` has a port or is an address; TLS clients name a host only"
        ));
    }
    parse_name(name).map_err(|problem| format!("server name `{written}` {problem}"))
}

/// Checks one entry of a route's `snis`; see [`parse_server_name`].
pub fn validate_server_name(written: &str) -> Result<(), String> {
    parse_server_name(written).map(|_| ())
}

fn split_port(written: &str) -> Result<(&str, Option<u16>), String> {
    let (name, port) = match written.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => (name, port),
        _ => return Ok((written, None)),
    };
    match port.parse() {
        Ok(port) if port > 0 && name != "[" => Ok((name, Some(port))),
        _ => Err(format!(
            "host `{written}` has port `{port}`, which is not a number from 1 to 65535"
        )),
    }
}

fn parse_name(name: &str) -> Result<HostName, String> {
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some() || name.contains(':') {
        let address = bare.unwrap_or(name);
        return match address.parse::<Ipv6Addr>() {
            Ok(_) => Ok(HostName::Exact(address.to_ascii_lowercase())),
            Err(_) => Err("is not an IPv6 address; scheme and path do not belong here".to_owned()),
        };
    }
    let name = name.to_ascii_lowercase();
    if let Some(rest) = name.strip_prefix("*.") {
        check_labels(rest)?;
        return Ok(HostName::AnyBefore(format!(".{rest}")));
    }
    if let Some(rest) = name.strip_suffix(".*") {
        check_labels(rest)?;
        return Ok(HostName::AnyAfter(format!("{rest}.")));
    }
    check_labels(&name)?;
    Ok(HostName::Exact(name))
}

fn check_labels(name: &str) -> Result<(), String> {
    if name.contains('*') {
        return Err(
            "may have one `*`, as the whole first or last label: `*.example.com` or `example.*`"
                .to_owned(),
        );
    }
    if name.is_empty() {
        return Err("is empty; leave it out to match any host".to_owned());
    }
    if let Some(wrong) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return Err(if wrong.is_ascii() {
            format!("has `{wrong}`; a host name has letters, digits, `-`, `_` and `.`")
        } else {
            format!("has `{wrong}`; write an international name in its `xn--` form")
        });
    }
    if name.ends_with('.') {
        return Err("ends with a dot; leave it out, requests match with and without it".to_owned());
    }
    if name
        .split('.')
        .any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-'))
    {
        return Err("has a label that is empty or begins or ends with `-`".to_owned());
    }
    Ok(())
}

/// A request's host as it is compared: lower case, without brackets and without one trailing dot.
///
/// It borrows a host that is already so, and copies names up to 128 bytes without an allocation.
#[derive(Debug)]
pub struct RequestHost<'a>(LowerCase<'a>);

impl<'a> RequestHost<'a> {
    /// `host` is the request's Host without its port, in any letter case, maybe empty, maybe
    /// bracketed.
    pub fn new(host: &'a str) -> Self {
        let host = host.strip_suffix('.').unwrap_or(host);
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        Self(LowerCase::new(bare.unwrap_or(host).as_bytes()))
    }
}

impl Deref for RequestHost<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes with ASCII letters in lower case: the form in which names and values that know no case are
/// looked up.
#[derive(Debug)]
pub enum LowerCase<'a> {
    /// They were so already.
    Borrowed(&'a [u8]),
    /// A copy, on the stack up to 128 bytes.
    Copied(SmallVec<[u8; 128]>),
}

impl<'a> LowerCase<'a> {
    /// Lower-cases `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        // Without a short cut: the compiler then looks at many bytes at once.
        let has_upper_case = bytes
            .iter()
            .fold(false, |found, byte| found | byte.is_ascii_uppercase());
        if has_upper_case {
            let mut copy = SmallVec::from_slice(bytes);
            copy.make_ascii_lowercase();
            Self::Copied(copy)
        } else {
            Self::Borrowed(bytes)
        }
    }
}

impl Deref for LowerCase<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str, port: u16) -> bool {
        HostPattern::parse(pattern)
            .unwrap()
            .matches(&RequestHost::new(host), port)
    }

    #[test]
    fn names_match_whole_and_in_any_letter_case() {
        assert!(matches("Example.com", "eXample.COM", 80));
        assert!(matches("example.com", "example.com.", 80));
        assert!(!matches("example.com", "example.com..", 80));
        assert!(!matches("example.com", "www.example.com", 80));
        assert!(!matches("example.com", "", 80));
    }

    #[test]
    fn a_wildcard_needs_something_in_its_place() {
        assert!(matches("*.a.b", "x.a.b", 80));
        assert!(matches("*.a.b", "x.y.a.b.", 80));
        assert!(!matches("*.a.b", "a.b", 80));
        assert!(!matches("*.a.b", ".a.b", 80));
        assert!(!matches("*.a.b", "xa.b", 80));
        assert!(matches("a.*", "a.b", 80));
        assert!(matches("a.*", "a.b.c", 80));
        assert!(!matches("a.*", "a.", 80));
        assert!(!matches("a.*", "a..", 80));
        assert!(!matches("a.*", "ab.c", 80));
    }

    #[test]
    fn a_port_must_be_the_requests_port() {
        assert!(matches("a.b:8080", "a.b", 8080));
        assert!(!matches("a.b:8080", "a.b", 80));
        assert!(matches("a.b", "a.b", 9999));
        assert!(matches("*.b:8080", "a.b", 8080));
        assert!(!matches("a.*:8080", "a.b", 80));
    }

    #[test]
    fn ipv6_addresses_match_with_and_without_brackets() {
        for pattern in ["::1", "[::1]", "[::1]:80"] {
            assert!(matches(pattern, "[::1]", 80), "{pattern}");
            assert!(matches(pattern, "::1", 80), "{pattern}");
        }
        assert!(!matches("[::1]:80", "[::1]", 81));
        assert!(matches("2001:DB8::1", "[2001:db8::1]", 80));
    }

    #[test]
    fn a_malformed_host_is_refused() {
        for wrong in [
            "",
            "*",
            "a.*.b",
            "*.a.*",
            "*example.com",
            "example*",
            "a.*b",
            "*.",
            ".*",
            "a..b",
            ".a",
            "a.",
            "-a.b",
            "a-.b",
            "a b",
            "http://a",
            "a/b",
            "a:0",
            "a:65536",
            "a:x",
            "a:",
            ":80",
            "[::1",
            "::1]",
            "[::1]:",
            "[]",
            "[a]:80",
            "[:80",
            "bücher.example",
            "*.*",
        ] {
            assert!(validate(wrong).is_err(), "{wrong}");
        }
        for right in [
            "a",
            "a.b",
            "a_b.c",
            "1.2.3.4",
            "1.2.3.4:80",
            "*.b:80",
            "b.*",
            "b.*:1",
        ] {
            assert_eq!(validate(right), Ok(()), "{right}");
        }
        assert_eq!(
            validate("a:x").unwrap_err(),
            "host `a:x` has port `x`, which is not a number from 1 to 65535"
        );
    }

    #[test]
    fn a_pattern_is_shown_in_the_form_it_is_compared() {
        for (written, shown) in [
            ("A.b", "a.b"),
            ("::1", "[::1]"),
            ("*.B:80", "*.b:80"),
            ("b.*", "b.*"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(HostPattern::parse(written).unwrap().to_string(), shown);
        }
    }
}
