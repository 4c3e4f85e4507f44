//! A service: where requests go once a route has taken them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reference::Reference;
use super::retry::{self, Retry};
use super::{EntityKind, Inspection, Model, model};
use crate::config::diagnostics::Code;
use crate::config::formats;
use crate::entity::{Protocol, Timeouts};

/// Fields of Kong's that this version does not have, and what to do about each.
const REFUSED: &[(&str, &str)] = &[(
    "tls_sans",
    "it is an enterprise field; an upstream's certificate is verified for the name that it gets as `Host`, which an upstream's `host_header` sets",
)];

/// Where requests go once a route has taken them: a host, or an upstream whose name is the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = REFUSED))]
pub struct Service {
    /// A UUID; derived from the name if absent.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub id: Option<Uuid>,
    /// Unique among services.
    #[schemars(extend("format" = "entity-name"))]
    pub name: Option<String>,
    /// `false`: its routes are not loaded.
    pub enabled: bool,
    /// `http`, `https`, `grpc` or `grpcs` (`ws` and `wss` mean the first two); for stream routes `tcp`, `tls` or `tls_passthrough`.
    pub protocol: Protocol,
    /// A host name or IP address without scheme and port; the name of an upstream makes that one balance. Required, unless `url` is given.
    #[schemars(extend("format" = "service-host"))]
    pub host: String,
    /// The default stays 80 for https too, unless `url` set it. Unused if `host` is an upstream.
    pub port: u16,
    /// Put before the path of every request.
    #[schemars(extend("format" = "service-path"))]
    pub path: Option<String>,
    /// Short for `protocol`, `host`, `port` and `path`, and stronger than they are: `http://orders.internal:8080/v1`.
    #[serde(skip_serializing)]
    pub url: Option<String>,
    /// Further tries after the first one.
    #[schemars(range(max = 32767))]
    pub retries: u16,
    /// How tries are repeated; a route's own takes its place.
    pub retry: Option<Retry>,
    /// Milliseconds until the head of the response must be there, over all tries and what they wait for; 0: no such limit. A route's own takes its place.
    #[schemars(range(max = 2_147_483_646))]
    pub total_timeout: u32,
    /// Milliseconds for the connection, TLS included.
    #[schemars(range(min = 1, max = 2_147_483_646))]
    pub connect_timeout: u32,
    /// Milliseconds between two successive writes to the upstream.
    #[schemars(range(min = 1, max = 2_147_483_646))]
    pub write_timeout: u32,
    /// Milliseconds between two successive reads from the upstream.
    #[schemars(range(min = 1, max = 2_147_483_646))]
    pub read_timeout: u32,
    /// Whether the upstream's certificate is verified (https only); absent: as `gateway.tls_verify` says.
    pub tls_verify: Option<bool>,
    /// The `ca_certificates` that the upstream's certificate is verified by (https only), by id; none: those of `gateway.trusted_certificates`.
    #[serde(skip_serializing)]
    pub ca_certificates: Vec<Reference>,
    /// The `certificates` entry that is shown to the upstream (https only), by id.
    #[serde(skip_serializing)]
    pub client_certificate: Option<Reference>,
    /// How many authorities may stand between the upstream's certificate and a trusted one (https only); absent: as `gateway.tls_verify_depth` says.
    #[schemars(range(max = 64))]
    pub tls_verify_depth: Option<u8>,
    /// Free words for finding the entity.
    #[schemars(extend("items" = {"type": "string", "format": "tag"}))]
    pub tags: Vec<String>,
    /// Seconds since 1970.
    pub created_at: Option<i64>,
    /// Seconds since 1970.
    pub updated_at: Option<i64>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            enabled: true,
            protocol: Protocol::Http,
            host: String::new(),
            port: 80,
            path: None,
            url: None,
            retries: 5,
            retry: None,
            total_timeout: 0,
            connect_timeout: 60_000,
            write_timeout: 60_000,
            read_timeout: 60_000,
            tls_verify: None,
            tls_verify_depth: None,
            ca_certificates: Vec::new(),
            client_certificate: None,
            tags: Vec::new(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl Service {
    /// The three time limits together.
    pub const fn timeouts(&self) -> Timeouts {
        Timeouts::from_millis(self.connect_timeout, self.write_timeout, self.read_timeout)
    }
}

impl Model for Service {
    model!(Service);

    fn settle(&mut self, inspection: &mut Inspection<'_>) {
        if let Some(url) = self.url.take() {
            match ServiceUrl::parse(&url) {
                Ok(url) => {
                    self.protocol = url.protocol;
                    self.host = url.host;
                    self.port = url.port;
                    self.path = url.path;
                }
                Err((code, message, hint)) => {
                    let diagnostic = inspection.error(code, "url", message);
                    diagnostic.hint = hint.map(str::to_owned);
                    // What stands before an `@` may be a password.
                    diagnostic.value = (!url.contains('@')).then_some(url);
                    return;
                }
            }
        } else if !inspection.has("host") && inspection.sound("host") && inspection.sound("url") {
            inspection
                .error(Code::MissingField, "", "required field `host` is missing")
                .hint("give `host`, or `url` for protocol, host, port and path together");
        }
        if self.protocol.is_grpc() && self.path.is_some() && inspection.sound("path") {
            let field = if inspection.has("path") {
                "path"
            } else {
                "url"
            };
            let message = format!(
                "`path` must be null, as `protocol` is {}: the path of a call is its method",
                self.protocol
            );
            inspection.error(Code::InvalidCombination, field, message);
        }
        if self.protocol.is_stream() && self.path.is_some() && inspection.sound("path") {
            let field = if inspection.has("path") {
                "path"
            } else {
                "url"
            };
            let message = format!("`path` must be null, as `protocol` is {}", self.protocol);
            inspection.error(Code::InvalidCombination, field, message);
        }
        let stream = self.protocol.is_stream().then(|| self.protocol.as_str());
        retry::settle(self.retry.as_ref(), stream, inspection);
        if !self.protocol.is_encrypted() && inspection.sound("protocol") && inspection.sound("url")
        {
            for (field, is_given) in [
                ("tls_verify", inspection.has("tls_verify")),
                ("tls_verify_depth", inspection.has("tls_verify_depth")),
                ("ca_certificates", !self.ca_certificates.is_empty()),
                ("client_certificate", inspection.has("client_certificate")),
            ] {
                if is_given {
                    let message = format!("`{field}` must be null, as `protocol` is not https");
                    inspection.error(Code::InvalidCombination, field, message);
                }
            }
            if inspection.is_nested_in(EntityKind::Certificate) {
                let message =
                    "the service cannot be inside a certificate, as `protocol` is not https";
                inspection
                    .error(Code::InvalidCombination, "", message)
                    .hint("only https shows an upstream a certificate; move the service out");
            }
        }
    }
}

/// What the `url` of a service stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    pub protocol: Protocol,
    /// A name or an address, an IPv6 address in brackets.
    pub host: String,
    pub port: u16,
    pub path: Option<String>,
}

/// Why a URL is none of a service, with a way out if there is one.
pub type UrlProblem = (Code, String, Option<&'static str>);

impl ServiceUrl {
    /// Reads `scheme://host[:port][/path]`.
    ///
    /// # Errors
    /// If it has no host, or parts that a service cannot have.
    pub fn parse(url: &str) -> Result<Self, UrlProblem> {
        let invalid = |message: String| (Code::InvalidValue, message, None);
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, url),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(invalid(
                "the URL has a user name or password, which a service cannot have".to_owned(),
            ));
        }
        if path.contains(['?', '#']) {
            return Err(invalid(format!(
                "`{url}` has a query or fragment, which a service cannot have"
            )));
        }
        let (host, port) = formats::split_port(authority);
        if host.is_empty() {
            return Err((
                Code::InvalidValue,
                format!("`{url}` has no host"),
                Some("write scheme://host[:port][/path]"),
            ));
        }
        formats::service_host(host)
            .map_err(|complaint| invalid(format!("`{url}`: {complaint}")))?;
        let port = port
            .map(|port| {
                port.parse::<u16>()
                    .map_err(|_| invalid(format!("`{url}` has a bad port `{port}`")))
            })
            .transpose()?;
        let protocol = match scheme.map(str::to_ascii_lowercase).as_deref() {
            Some("https" | "wss") => Protocol::Https,
            None if port == Some(443) => Protocol::Https,
            Some("http" | "ws") | None => Protocol::Http,
            Some("grpc") => Protocol::Grpc,
            Some("grpcs") => Protocol::Grpcs,
            Some("tcp") => Protocol::Tcp,
            Some("tls") => Protocol::Tls,
            Some("tls_passthrough") => Protocol::TlsPassthrough,
            Some(other) => return Err(Self::bad_scheme(url, other)),
        };
        if !path.is_empty() {
            formats::service_path(path)
                .map_err(|complaint| invalid(format!("path of `{url}`: {complaint}")))?;
        }
        Ok(Self {
            protocol,
            host: host.to_owned(),
            port: port.unwrap_or(if protocol == Protocol::Https { 443 } else { 80 }),
            path: (!path.is_empty()).then(|| path.to_owned()),
        })
    }

    fn bad_scheme(url: &str, scheme: &str) -> UrlProblem {
        match crate::entity::protocol::REFUSED
            .iter()
            .find(|(name, _)| *name == scheme)
        {
            Some((name, reason)) => (
                Code::UnsupportedValue,
                format!("`{url}`: `{name}` is not supported in this version"),
                Some(reason),
            ),
            None => (
                Code::InvalidValue,
                format!("`{url}` begins with neither http:// nor https://"),
                None,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (Protocol, String, u16, Option<String>) {
        let url = ServiceUrl::parse(url).map_err(|problem| problem.1).unwrap();
        (url.protocol, url.host, url.port, url.path)
    }

    #[test]
    fn a_url_sets_all_four_fields() {
        assert_eq!(
            parsed("http://a/v1"),
            (Protocol::Http, "a".into(), 80, Some("/v1".into()))
        );
        assert_eq!(
            parsed("https://a"),
            (Protocol::Https, "a".into(), 443, None)
        );
        assert_eq!(
            parsed("https://a:8443/"),
            (Protocol::Https, "a".into(), 8443, Some("/".into()))
        );
        assert_eq!(
            parsed("http://[::1]:80/x"),
            (Protocol::Http, "[::1]".into(), 80, Some("/x".into()))
        );
        assert_eq!(parsed("a:443"), (Protocol::Https, "a".into(), 443, None));
        assert_eq!(parsed("a"), (Protocol::Http, "a".into(), 80, None));
        assert_eq!(
            parsed("grpc://a:9000"),
            (Protocol::Grpc, "a".into(), 9000, None)
        );
        assert_eq!(parsed("grpcs://a"), (Protocol::Grpcs, "a".into(), 80, None));
    }

    #[test]
    fn a_url_that_would_lose_something_is_refused() {
        for url in [
            "http://",
            "http://a?x=1",
            "http://a#x",
            "http://u:p@a",
            "udp://a",
            "ftp://a",
            "http://a:99999",
            "http://a//b",
            "http://a b",
        ] {
            assert!(ServiceUrl::parse(url).is_err(), "{url}");
        }
    }
}
