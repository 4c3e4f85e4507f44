//! The fields that expressions compare, and their names. What their values are in a request is the
//! router's to say.

use std::fmt;

use http::HeaderName;

/// A field whose values are texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextField {
    /// `http.method`.
    Method,
    /// `http.host`: in lower case, without port and trailing dot.
    Host,
    /// `http.path`: normalised.
    Path,
    /// `http.path.segments.N` and `http.path.segments.N_M`: from one to another, counted from 0.
    Segments(usize, usize),
    /// `http.headers.name`: one value for each occurrence.
    Header(HeaderName),
    /// `http.queries.name`: one decoded value for each occurrence.
    Query(Box<str>),
    /// `net.protocol`: `http` or `https`.
    Protocol,
    /// `tls.sni`: in lower case, without trailing dot; no value without TLS.
    ServerName,
}

/// A field whose value is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberField {
    /// `http.path.segments.len`.
    SegmentCount,
    /// `net.src.port`: the client's.
    SourcePort,
    /// `net.dst.port`: that in the Host, else the listener's.
    DestinationPort,
}

/// A field whose value is an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressField {
    /// `net.src.ip`: the client's, as far as a trusted proxy may say otherwise.
    Source,
    /// `net.dst.ip`: the one that took the connection.
    Destination,
}

/// A field of any type.
#[derive(Debug)]
pub(super) enum Field {
    Text(TextField),
    Number(NumberField),
    Address(AddressField),
}

const NAMES: &str = "http.method, http.host, http.path, http.path.segments.…, http.headers.…, http.queries.…, net.protocol, \
                     net.src.ip, net.src.port, net.dst.ip, net.dst.port, tls.sni";

impl Field {
    /// The field of this name; the error is a sentence.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "http.method" => Self::Text(TextField::Method),
            "http.host" => Self::Text(TextField::Host),
            "http.path" => Self::Text(TextField::Path),
            "net.protocol" => Self::Text(TextField::Protocol),
            "tls.sni" => Self::Text(TextField::ServerName),
            "http.path.segments.len" => Self::Number(NumberField::SegmentCount),
            "net.src.port" => Self::Number(NumberField::SourcePort),
            "net.dst.port" => Self::Number(NumberField::DestinationPort),
            "net.src.ip" => Self::Address(AddressField::Source),
            "net.dst.ip" => Self::Address(AddressField::Destination),
            _ => {
                if let Some(range) = name.strip_prefix("http.path.segments.") {
                    Self::Text(segments(name, range)?)
                } else if let Some(header) = name.strip_prefix("http.headers.") {
                    Self::Text(TextField::Header(header_name(header)?))
                } else if let Some(argument) = name.strip_prefix("http.queries.")
                    && !argument.is_empty()
                {
                    Self::Text(TextField::Query(argument.into()))
                } else {
                    return Err(format!("unknown field `{name}`; there are {NAMES}"));
                }
            }
        })
    }

    /// What its values are.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Address(_) => "an address",
        }
    }
}

fn segments(name: &str, range: &str) -> Result<TextField, String> {
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<usize>().ok()).flatten()
    };
    let (from, to) = range.split_once('_').unwrap_or((range, range));
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => Ok(TextField::Segments(from, to)),
        (Some(_), Some(_)) => Err(format!(
            "`{name}` has no segments: the second number is the smaller"
        )),
        _ => Err(format!(
            "unknown field `{name}`; segments are `http.path.segments.0`, `http.path.segments.0_2` or `http.path.segments.len`"
        )),
    }
}

/// Names in expressions have `_` for `-`.
fn header_name(written: &str) -> Result<HeaderName, String> {
    let name = written.to_ascii_lowercase().replace('_', "-");
    if name == "host" {
        return Err("the header `host` cannot be compared; use `http.host`".to_owned());
    }
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`http.headers.{written}` names no header"))
}

impl fmt::Display for TextField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("http.method"),
            Self::Host => f.write_str("http.host"),
            Self::Path => f.write_str("http.path"),
            Self::Segments(from, to) if from == to => write!(f, "http.path.segments.{from}"),
            Self::Segments(from, to) => write!(f, "http.path.segments.{from}_{to}"),
            Self::Header(name) => {
                write!(f, "http.headers.{}", name.as_str().replace('-', "_"))
            }
            Self::Query(name) => write!(f, "http.queries.{name}"),
            Self::Protocol => f.write_str("net.protocol"),
            Self::ServerName => f.write_str("tls.sni"),
        }
    }
}

impl fmt::Display for NumberField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SegmentCount => "http.path.segments.len",
            Self::SourcePort => "net.src.port",
            Self::DestinationPort => "net.dst.port",
        })
    }
}

impl fmt::Display for AddressField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "net.src.ip",
            Self::Destination => "net.dst.ip",
        })
    }
}
