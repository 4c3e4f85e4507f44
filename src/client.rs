//! The HTTP/1.1 client of the commands, and of the gateway's questions to registries: one kept connection, a
//! deadline for each request, bodies in memory. It follows no redirects, knows no cookies, and speaks no TLS.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// The longest body that an answer may have: more than an explanation with ten thousand routes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a listener is, and what stands before every path: `http://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// `host[:port]` as it was written, for `Host`.
    pub authority: String,
    host: String,
    port: u16,
    prefix: String,
}

impl Base {
    /// The whole URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.authority, self.prefix)
    }

    /// What stands in the request line for a path.
    pub fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write `http://host:port`, such as `http://127.0.0.1:8000`";
        if text.contains('@') {
            // What stands before it may be a password.
            return Err(format!(
                "there is a user name or password in the URL; {example}"
            ));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("`{text}` is not a URL; {example}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(format!("`{text}`: https is not spoken here; {example}"));
            }
            _ => return Err(format!("`{text}` does not begin with http://; {example}")),
        }
        let authority = uri
            .authority()
            .filter(|_| uri.query().is_none())
            .ok_or_else(|| format!("`{text}` has a query; {example}"))?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            authority: authority.to_string(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// An answer as it came.
#[derive(Debug)]
pub struct Received {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// There is no connection.
    #[error("cannot connect to {place}: {cause}")]
    Connect {
        /// `host[:port]`.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// The answer was not complete in time.
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke, or what came is no HTTP.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// A client with one connection.
#[derive(Debug)]
pub struct Client {
    base: Base,
    timeout: Duration,
    body_bytes_max: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects with the first request.
    pub fn new(base: Base, timeout: Duration) -> Self {
        Self {
            base,
            timeout,
            body_bytes_max: BODY_BYTES_MAX,
            connection: None,
        }
    }

    /// The same for answers with no longer bodies than this.
    #[must_use]
    pub fn with_body_bytes_max(self, body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            ..self
        }
    }

    /// Sends a request and reads the answer to its end, or to the deadline.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Received, Failure> {
        self.send_within(request, self.timeout).await
    }

    /// The same with a deadline of its own.
    pub async fn send_within(
        &mut self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Received, Failure> {
        let exchanged = tokio::time::timeout(timeout, self.exchange(request)).await;
        let received = exchanged.unwrap_or(Err(Failure::Timeout(timeout)));
        if received.is_err() {
            // What is left of the old answer must not be taken for the next one.
            self.connection = None;
        }
        received
    }

    /// Reads a page.
    pub async fn get(&mut self, path: &str) -> Result<Received, Failure> {
        let request = Request::get(self.base.target(path))
            .header(header::HOST, &self.base.authority)
            .body(Full::default())
            .map_err(|error| Failure::Broken(error.to_string()))?;
        self.send(request).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Received, Failure> {
        let broken = |error: hyper::Error| Failure::Broken(error.to_string());
        let mut connection = match self.kept().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let response = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.body_bytes_max)
            .collect()
            .await
            .map_err(|error| Failure::Broken(error.to_string()))?;
        self.connection = Some(connection);
        Ok(Received {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// The connection of the request before, unless it has ended.
    async fn kept(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut connection = self.connection.take()?;
        connection.ready().await.ok().map(|()| connection)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let failed = |cause: String| Failure::Connect {
            place: self.base.authority.clone(),
            cause,
        };
        let stream = TcpStream::connect((self.base.host.as_str(), self.base.port))
            .await
            .map_err(|error| failed(error.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Its end shows in the sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_has_a_place_and_maybe_a_path() {
        let base: Base = "http://gateway.test:8000/v1/".parse().expect("a base");
        assert_eq!(base.url("/x?y"), "http://gateway.test:8000/v1/x?y");
        assert_eq!(base.target("/x?y"), "/v1/x?y");
        let base: Base = "http://[::1]".parse().expect("a base");
        assert_eq!((base.host.as_str(), base.port), ("::1", 80));
        assert_eq!(base.authority, "[::1]");
    }

    #[test]
    fn what_cannot_be_probed_is_refused_with_a_way_out() {
        for (text, words) in [
            ("https://gateway.test", "https is not spoken"),
            ("gateway.test:8000", "does not begin with http://"),
            ("http://u:p@gateway.test", "or password"),
            ("http://gateway.test/?x", "a query"),
            ("http://", "is not a URL"),
            ("a b", "is not a URL"),
        ] {
            let error = text.parse::<Base>().expect_err("refused");
            assert!(error.contains(words), "{text}: {error}");
            assert!(error.contains("http://127.0.0.1:8000"), "{error}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
