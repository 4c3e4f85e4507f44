//! The request that is asked about, as an operator writes it, and the bytes that a client would
//! send for it.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    entity::consumer::ConsumerIndex, plugin::Scheme, proxy::rehearse::Visitor, snapshot::Snapshot,
};

/// A question: what becomes of this request?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub method: String,
    /// `http://host:port/path?query` or `https://…`, or a path alone.
    pub url: String,
    /// Names and values in the order sent. A `Host` goes before that of the URL.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Whose connection the request comes on; absent = 127.0.0.1.
    #[serde(default)]
    pub client_ip: Option<IpAddr>,
    /// The name that the client asks for in its TLS handshake; absent = the host, empty = none.
    #[serde(default)]
    pub sni: Option<String>,
    /// Username, custom id or id of the consumer whose request it is taken to be.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Lists every route that lost, not only the nearest.
    #[serde(default)]
    pub all: bool,
}

/// Why a question cannot be answered.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unanswerable {
    #[error("`{0}` is neither a path nor an http or https URL; write http://HOST/PATH or /PATH")]
    Url(String),
    #[error("`{0}` is neither tcp://HOST:PORT nor tls://HOST:PORT")]
    StreamUrl(String),
    #[error("`stream_listen` has no address that the URL could mean; write its port")]
    StreamPort,
    #[error("a server name is asked for in a TLS handshake; write an https URL")]
    Sni,
    #[error("the URL has a fragment, which no client sends; leave `#` and what follows out")]
    Fragment,
    #[error("{0} holds a line break or another control character")]
    Control(&'static str),
    #[error(
        "there is no consumer `{0}` in this configuration; name one by username, custom_id or id"
    )]
    Consumer(String),
}

/// A question that was understood.
#[derive(Debug)]
pub(super) struct Asked {
    /// A request head with the empty line that ends it.
    pub(super) bytes: Vec<u8>,
    pub(super) visitor: Visitor,
}

impl Asked {
    /// Reads `question`; `ports` are those of the listeners.
    pub(super) fn read(
        question: &Question,
        snapshot: &Snapshot,
        ports: &[u16],
    ) -> Result<Self, Unanswerable> {
        let Url {
            scheme,
            authority,
            target,
        } = Url::read(&question.url)?;
        let port = authority
            .and_then(|authority| authority.rsplit_once(':')?.1.parse().ok())
            .filter(|port| ports.contains(port))
            .or_else(|| ports.first().copied())
            .unwrap_or(match scheme {
                Scheme::Http => 80,
                Scheme::Https => 443,
            });
        if question.sni.is_some() && scheme == Scheme::Http {
            return Err(Unanswerable::Sni);
        }
        let consumer = question.consumer.as_deref().map(|name| {
            let mut consumers = snapshot.consumers.iter().zip(0..);
            let by_custom_id = || {
                consumers
                    .find(|(consumer, _)| consumer.custom_id.as_deref() == Some(name))
                    .map(|(_, index)| ConsumerIndex(index))
            };
            snapshot
                .consumers
                .find(name)
                .or_else(by_custom_id)
                .ok_or_else(|| Unanswerable::Consumer(name.to_owned()))
        });
        Ok(Self {
            bytes: head(question, authority, &target)?,
            visitor: Visitor {
                ip: question
                    .client_ip
                    .unwrap_or_else(|| Ipv4Addr::LOCALHOST.into()),
                port,
                scheme,
                server_name: question.sni.clone(),
                consumer: consumer.transpose()?,
            },
        })
    }
}

/// The parts of a URL. The path stays as written: what it means is the gateway's to say.
struct Url<'u> {
    scheme: Scheme,
    authority: Option<&'u str>,
    target: String,
}

impl<'u> Url<'u> {
    fn read(written: &'u str) -> Result<Self, Unanswerable> {
        if written.contains('#') {
            return Err(Unanswerable::Fragment);
        }
        if written.starts_with('/') || written == "*" {
            return Ok(Self {
                scheme: Scheme::Http,
                authority: None,
                target: written.to_owned(),
            });
        }
        let (scheme, rest) = match written.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(Unanswerable::Url(written.to_owned())),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.is_empty() {
            return Err(Unanswerable::Url(written.to_owned()));
        }
        Ok(Self {
            scheme,
            authority: Some(authority),
            target: if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("/{target}")
            },
        })
    }
}

/// What a client would send. Without a host it speaks HTTP/1.0, for 1.1 needs one.
fn head(
    question: &Question,
    authority: Option<&str>,
    target: &str,
) -> Result<Vec<u8>, Unanswerable> {
    let one_line = |text: &str, what: &'static str| {
        let is_wrong = text.chars().any(|char| char.is_control() && char != '\t');
        if is_wrong {
            Err(Unanswerable::Control(what))
        } else {
            Ok(())
        }
    };
    one_line(&question.method, "the method")?;
    one_line(target, "the URL")?;
    let has_host = question
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = authority.filter(|_| !has_host);
    let version = if has_host || host.is_some() {
        "1.1"
    } else {
        "1.0"
    };
    let mut text = format!("{} {target} HTTP/{version}\r\n", question.method);
    for (name, value) in host.map(|host| ("Host", host)).into_iter().chain(
        question
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    ) {
        one_line(name, "a header name")?;
        one_line(value, "a header value")?;
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str) -> Question {
        Question {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            client_ip: None,
            sni: None,
            consumer: None,
            all: false,
        }
    }

    fn sent(question: &Question) -> String {
        let url = Url::read(&question.url).expect("a URL");
        let bytes = head(question, url.authority, &url.target).expect("a head");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_url_becomes_a_path_as_it_is_written_and_a_host() {
        let cases = [
            ("http://a.test", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            (
                "http://A.test:81/b/../c%2f?x=1",
                "GET /b/../c%2f?x=1 HTTP/1.1\r\nHost: A.test:81\r\n\r\n",
            ),
            (
                "https://a.test?x",
                "GET /?x HTTP/1.1\r\nHost: a.test\r\n\r\n",
            ),
            ("/b", "GET /b HTTP/1.0\r\n\r\n"),
        ];
        for (url, expected) in cases {
            assert_eq!(sent(&question(url)), expected);
        }
    }

    #[test]
    fn a_host_header_goes_before_that_of_the_url() {
        let mut question = question("http://a.test/");
        question.headers.push(("host".into(), "b.test".into()));

        assert_eq!(sent(&question), "GET / HTTP/1.1\r\nhost: b.test\r\n\r\n");
    }

    #[test]
    fn what_is_no_request_is_not_asked_about() {
        for url in ["orders", "ftp://a.test/", "http://", "http:///b", ""] {
            assert_eq!(
                Url::read(url).err(),
                Some(Unanswerable::Url(url.to_owned())),
                "{url}"
            );
        }
        assert_eq!(Url::read("/a#b").err(), Some(Unanswerable::Fragment));
        let mut smuggling = question("/");
        smuggling.headers.push(("a".into(), "b\r\nc: d".into()));
        assert_eq!(
            head(&smuggling, None, "/"),
            Err(Unanswerable::Control("a header value"))
        );
    }
}
