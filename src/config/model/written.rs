//! The gateway's settings back in their notation, for the defaults in the schema and its pages.
//! Reading is in `settings.rs`.

use std::fmt::{self, Display};

use serde::{Serialize, Serializer};

use super::listen::{Listen, ListenEntry, StreamListenEntry};
use super::settings::{
    AccessLog, ErrorLog, FilePath, HeaderBuffers, List, PluginName, PortMap, RealIpHeader,
    RequestToken, ResponseToken, Seconds, Size, Switch, Threads, TrustedNetwork,
};
use super::tls::{DhGroup, DhParameters, TlsVersions, TrustedCertificates};

/// Implements `Serialize` for types that are written as one string.
macro_rules! as_string {
    ($($name:ident),+) => {
        $(impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        })+
    };
}

as_string!(
    AccessLog,
    DhParameters,
    ErrorLog,
    FilePath,
    HeaderBuffers,
    RealIpHeader,
    Switch,
    Threads
);

/// One item alone is that item; it reads better than a list of it.
impl<T: Display> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.collect_seq(std::iter::empty::<&str>()),
            [only] => serializer.collect_str(only),
            items => serializer.collect_seq(items.iter().map(ToString::to_string)),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1 << 10) && self.0 > 0 {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")];
        let unit = units
            .into_iter()
            .find(|(factor, _)| self.0 > 0 && self.0.is_multiple_of(*factor));
        let (factor, unit) = unit.unwrap_or((1, ""));
        write!(formatter, "{}{unit}", self.0 / factor)
    }
}

impl Display for TrustedCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::System => "system",
            Self::File(path) => path,
        })
    }
}

impl Display for DhParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Group(DhGroup::Ffdhe2048) => "ffdhe2048",
            Self::Group(DhGroup::Ffdhe3072) => "ffdhe3072",
            Self::Group(DhGroup::Ffdhe4096) => "ffdhe4096",
            Self::Group(DhGroup::Ffdhe6144) => "ffdhe6144",
            Self::Group(DhGroup::Ffdhe8192) => "ffdhe8192",
            Self::Pem(text) | Self::File(FilePath(text)) => text,
        })
    }
}

impl Display for StreamListenEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Display for Switch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0 { "on" } else { "off" })
    }
}

impl Display for Threads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Count(count) => count.fmt(formatter),
        }
    }
}

impl Display for AccessLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, plain) = match self {
            Self::Off => return formatter.write_str("off"),
            Self::On { path, plain } => (path, *plain),
        };
        match path {
            None => formatter.write_str("stdout")?,
            Some(path) => path.display().fmt(formatter)?,
        }
        formatter.write_str(if plain { " plain" } else { "" })
    }
}

impl Display for ErrorLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => formatter.write_str("stderr"),
            Self::Off => formatter.write_str("off"),
            Self::Path(path) => path.display().fmt(formatter),
        }
    }
}

impl Display for HeaderBuffers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.count, Size(self.bytes))
    }
}

impl Display for RealIpHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(formatter),
            Self::ProxyProtocol => formatter.write_str("proxy_protocol"),
        }
    }
}

impl Display for ListenEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::On(listen) => listen.fmt(formatter),
        }
    }
}

impl Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)?;
        if self.ssl {
            formatter.write_str(" ssl")?;
        }
        if self.http2 {
            formatter.write_str(" http2")?;
        }
        if self.reuseport {
            formatter.write_str(" reuseport")?;
        }
        if let Some(backlog) = self.backlog {
            write!(formatter, " backlog={backlog}")?;
        }
        if let Some(switch) = self.ipv6only {
            write!(formatter, " ipv6only={}", Switch(switch))?;
        }
        if let Some(keepalive) = self.so_keepalive {
            write!(formatter, " so_keepalive={keepalive}")?;
        }
        if self.proxy_protocol {
            formatter.write_str(" proxy_protocol")?;
        }
        Ok(())
    }
}

impl Display for FilePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Display for TlsVersions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.tls12, "TLSv1.2"), (self.tls13, "TLSv1.3")];
        let names: Vec<&str> = names
            .into_iter()
            .filter_map(|(is_on, name)| is_on.then_some(name))
            .collect();
        formatter.write_str(&names.join(" "))
    }
}

impl Display for TrustedNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Display for ResponseToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Display for RequestToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "off",
            Self::RequestId => "X-Kong-Request-Id",
        })
    }
}

impl Display for PortMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.outer, self.inner)
    }
}

impl Display for PluginName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bundled => "bundled",
            Self::Off => "off",
            Self::Named(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::model::settings::Written;

    fn comes_back<T: Written + Display + PartialEq + Debug>(texts: &[&str]) {
        for text in texts {
            let value: T = text.parse().unwrap();
            assert_eq!(value.to_string().parse(), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same_again() {
        comes_back::<Size>(&["0", "1", "1023", "1k", "10m", "3g", "1536k"]);
        comes_back::<Threads>(&["auto"]);
        comes_back::<AccessLog>(&["off", "stdout", "stdout plain", "/a/b", "/a/b plain"]);
        comes_back::<ErrorLog>(&["off", "stderr", "/a/b"]);
        comes_back::<HeaderBuffers>(&["4 8k", "1 1000"]);
        comes_back::<RealIpHeader>(&["X-Real-IP", "proxy_protocol"]);
        comes_back::<ListenEntry>(&[
            "off",
            "[::]:80 ssl http2 reuseport backlog=5 ipv6only=off so_keepalive=on proxy_protocol",
        ]);
        comes_back::<FilePath>(&["/a/b.pem", "b.pem"]);
        comes_back::<TlsVersions>(&["TLSv1.2", "TLSv1.3", "TLSv1.2 TLSv1.3"]);
        comes_back::<TrustedNetwork>(&["10.0.0.0/8", "::1"]);
        comes_back::<ResponseToken>(&["off", "latency_tokens", "via", "X-Kong-Admin-Latency"]);
        comes_back::<RequestToken>(&["off", "X-Kong-Request-Id"]);
        comes_back::<PortMap>(&["80:8000"]);
        comes_back::<PluginName>(&["bundled", "off", "cors"]);
    }

    #[test]
    fn numbers_stay_numbers_where_people_write_them_so() {
        let seconds = |millis| json!(Seconds(Duration::from_millis(millis)));
        assert_eq!(json!(Size(0)), json!(0));
        assert_eq!(json!(Size(8 << 20)), json!("8m"));
        assert_eq!(seconds(60_000), json!(60));
        assert_eq!(seconds(1500), json!(1.5));
        assert_eq!(json!(List(vec![Threads::Auto])), json!("auto"));
        assert_eq!(json!(List::<PortMap>::default()), json!([]));
    }
}
