//! A gateway described by a few values instead of a file: one service over some servers. It becomes the document
//! that an operator would write, so that checks and defaults are the same; it is not a second way to configure.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use thiserror::Error;

use super::model::service::ServiceUrl;

/// The name of the service and of its route.
const SERVICE: &str = "app";
/// The name of the upstream.
const UPSTREAM: &str = "app-servers";
/// The plugin that limits rates.
const LIMITER: &str = "rate-limiting";

/// A gateway with one service.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// Addresses as `gateway.listen` takes them; empty for the default.
    pub listen: Vec<String>,
    /// An address as `gateway.admin` takes it.
    pub admin: Option<String>,
    /// Where the service is. They share scheme and path.
    pub servers: Vec<Server>,
    /// How much each client address may ask for.
    pub rate_limit: Option<RateLimit>,
    /// Further tries after the first one.
    pub retries: Option<u16>,
}

/// One place where the service is, written as `scheme://host[:port][/path]`.
#[derive(Clone, Debug)]
pub struct Server {
    written: String,
    url: ServiceUrl,
}

impl Server {
    /// What stands before the path of each request; `/` is nothing.
    fn path(&self) -> &str {
        self.url
            .path
            .as_deref()
            .unwrap_or_default()
            .trim_end_matches('/')
    }

    fn target(&self) -> String {
        format!("{}:{}", self.url.host, self.url.port)
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = ServiceUrl::parse(text).map_err(|(_, message, hint)| match hint {
            Some(hint) => format!("{message}; {hint}"),
            None => message,
        })?;
        if url.protocol.is_grpc() {
            return Err(format!(
                "`{text}` is for gRPC, which needs a route of its own; write a configuration file, or use http or https"
            ));
        }
        Ok(Self {
            written: text.to_owned(),
            url,
        })
    }
}

/// So many requests in each period, written as `100/minute` or, for a minute, as `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    requests: u32,
    period: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

impl Period {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// The plugin's field.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, period) = text.split_once('/').unwrap_or((text, "minute"));
        let requests = number.parse::<u32>();
        let period = Period::ALL
            .into_iter()
            .find(|known| known.as_str() == period);
        match (requests, period) {
            (Ok(requests), Some(period)) => Ok(Self { requests, period }),
            _ => Err(format!(
                "`{text}` is not a limit: write a number of requests and, after a slash, second, minute, hour or day, \
                 such as `200/minute`"
            )),
        }
    }
}

/// What two servers of one service do not agree in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{first}` and `{other}` differ in their {part}, which one service has once; give all of them the same, or write a \
     file with a service for each"
)]
pub struct Disagreement {
    first: String,
    other: String,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Scheme,
    Path,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Scheme => "scheme",
            Self::Path => "path",
        })
    }
}

impl Outline {
    /// The document that says the same, in YAML.
    ///
    /// # Errors
    /// If the servers cannot be those of one service.
    pub fn document(&self) -> Result<String, Disagreement> {
        self.agree()?;
        let document = serde_yaml::to_string(&self.value());
        Ok(document.expect("strings, numbers, lists and records can be written as YAML"))
    }

    fn agree(&self) -> Result<(), Disagreement> {
        let Some((first, others)) = self.servers.split_first() else {
            return Ok(());
        };
        for other in others {
            let part = if other.url.protocol != first.url.protocol {
                Part::Scheme
            } else if other.path() != first.path() {
                Part::Path
            } else {
                continue;
            };
            return Err(Disagreement {
                first: first.written.clone(),
                other: other.written.clone(),
                part,
            });
        }
        Ok(())
    }

    fn value(&self) -> Value {
        let mut document = json!({ "_format_version": "3.0" });
        let gateway = self.gateway();
        if gateway != json!({}) {
            document["gateway"] = gateway;
        }
        let targets: Vec<Value> = self
            .servers
            .iter()
            .map(|server| json!({ "target": server.target() }))
            .collect();
        document["upstreams"] = json!([{ "name": UPSTREAM, "targets": targets }]);
        document["services"] = json!([self.service()]);
        document
    }

    fn gateway(&self) -> Value {
        let mut gateway = json!({});
        match self.listen.as_slice() {
            [] => {}
            [one] => gateway["listen"] = json!(one),
            several => gateway["listen"] = json!(several),
        }
        if let Some(admin) = &self.admin {
            gateway["admin"] = json!(admin);
        }
        gateway
    }

    fn service(&self) -> Value {
        let mut service = json!({ "name": SERVICE });
        if let Some(server) = self.servers.first() {
            service["protocol"] = json!(server.url.protocol.as_str());
            service["host"] = json!(UPSTREAM);
            if !server.path().is_empty() {
                service["path"] = json!(server.path());
            }
        }
        if let Some(retries) = self.retries {
            service["retries"] = json!(retries);
        }
        service["routes"] = json!([{ "name": SERVICE, "paths": ["/"] }]);
        if let Some(RateLimit { requests, period }) = self.rate_limit {
            let config = json!({ period.as_str(): requests, "limit_by": "ip", "policy": "local" });
            service["plugins"] = json!([{ "name": LIMITER, "config": config }]);
        }
        service
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    fn servers(urls: &[&str]) -> Vec<Server> {
        urls.iter()
            .map(|url| url.parse().expect("a server"))
            .collect()
    }

    #[test]
    fn everything_that_can_be_said_is_in_the_document() {
        let outline = Outline {
            listen: vec!["0.0.0.0:8080".to_owned()],
            admin: Some("off".to_owned()),
            servers: servers(&["http://a:81/base/", "http://b:82/base"]),
            rate_limit: Some("200".parse().expect("a limit")),
            retries: Some(1),
        };
        let document = outline.document().expect("they agree");
        assert_eq!(
            document,
            "_format_version: '3.0'
gateway:
  listen: 0.0.0.0:8080
  admin: off
upstreams:
- name: app-servers
  targets:
  - target: a:81
  - target: b:82
services:
- name: app
  protocol: http
  host: app-servers
  path: /base
  retries: 1
  routes:
  - name: app
    paths:
    - /
  plugins:
  - name: rate-limiting
    config:
      minute: 200
      limit_by: ip
      policy: local
"
        );
        let loaded = load_text(document, "flags", &|_| None);
        assert_eq!(loaded.diagnostics.to_text(), "");
        assert_eq!(loaded.config.gateway.admin.addresses().count(), 0);
        assert_eq!(loaded.watch.len(), 0);
    }

    #[test]
    fn what_is_not_said_is_left_to_the_defaults() {
        let outline = Outline {
            servers: servers(&["https://a"]),
            ..Outline::default()
        };
        let document = outline.document().expect("one agrees with itself");
        assert!(!document.contains("gateway:"), "{document}");
        assert!(document.contains("- target: a:443"), "{document}");
        assert!(document.contains("protocol: https"), "{document}");
        assert!(!document.contains("plugins:"), "{document}");
    }

    #[test]
    fn servers_of_different_services_are_refused() {
        for (other, part) in [("https://b/x", "scheme"), ("http://b/y", "path")] {
            let outline = Outline {
                servers: servers(&["http://a/x", other]),
                ..Outline::default()
            };
            let message = outline.document().expect_err("they differ").to_string();
            assert!(message.contains(&format!("their {part}")), "{message}");
            assert!(message.contains(other), "{message}");
        }
        let same = Outline {
            servers: servers(&["http://a/", "http://b"]),
            ..Outline::default()
        };
        assert!(same.document().is_ok(), "a lone slash is no path");
    }

    #[test]
    fn a_limit_is_for_a_minute_unless_it_says_otherwise() {
        let limit = |text: &str| text.parse::<RateLimit>().map(|limit| limit.period.as_str());
        assert_eq!(limit("200"), Ok("minute"));
        assert_eq!(limit("5/second"), Ok("second"));
        assert_eq!(limit("5/hour"), Ok("hour"));
        assert_eq!(limit("5/day"), Ok("day"));
        for text in ["", "many", "-1", "5/", "5/week", "/minute", "1.5"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_without_a_way_to_reach_it_is_refused_with_a_way_out() {
        for (url, words) in [
            ("http://", "write scheme://host[:port][/path]"),
            ("ftp://a", "neither http:// nor https://"),
            ("grpc://a", "use http or https"),
            ("http://a?x=1", "query"),
        ] {
            let message = url.parse::<Server>().expect_err("refused");
            assert!(message.contains(words), "{url}: {message}");
        }
    }
}
