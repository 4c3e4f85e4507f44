//! The HTTP/1.1 client of the commands, and of the gateway's questions to registries: one kept connection, a
//! deadline for each request, bodies in memory, TLS where it is asked for. It follows no redirects and knows no cookies.

use std::{
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::tls::UpstreamTls;

/// The longest body that an answer may have: more than an explanation with ten thousand routes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a listener is, and what stands before every path: `http://host[:port][/path]`, or the same with https.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    is_secure: bool,
    /// `host[:port]` as it was written, for `Host`.
    pub authority: String,
    host: String,
    port: u16,
    prefix: String,
}

impl Base {
    /// The whole URL of a path.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority, self.prefix)
    }

    /// Whether it is reached over TLS only.
    pub const fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The host without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Reads an address that may also begin with `https://`.
    ///
    /// # Errors
    /// A sentence that says what to write.
    pub fn with_tls(text: &str) -> Result<Self, String> {
        let example =
            "write `http://host:port` or `https://host:port`, such as `http://127.0.0.1:8500`";
        Self::read(text, true, example)
    }

    /// What stands in the request line for a path.
    pub fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    fn read(text: &str, takes_tls: bool, example: &str) -> Result<Self, String> {
        if text.contains('@') {
            // What stands before it may be a password.
            return Err(format!(
                "there is a user name or password in the URL; {example}"
            ));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("`{text}` is not a URL; {example}"))?;
        let (is_secure, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") if takes_tls => (true, 443),
            Some("https") => {
                return Err(format!("`{text}`: https is not spoken here; {example}"));
            }
            _ => return Err(format!("`{text}` does not begin with http://; {example}")),
        };
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
            is_secure,
            authority: authority.to_string(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write `http://host:port`, such as `http://127.0.0.1:8000`";
        Self::read(text, false, example)
    }
}

/// How a connection is secured, and as whom the other side must prove itself.
#[derive(Clone, Debug)]
pub struct Security {
    tls: Arc<UpstreamTls>,
    /// A host name or an IP address.
    name: String,
}

impl Security {
    /// By `tls`, with whoever is `name`.
    pub const fn new(tls: Arc<UpstreamTls>, name: String) -> Self {
        Self { tls, name }
    }
}

impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        self.tls.key() == other.tls.key() && self.name == other.name
    }
}

impl Eq for Security {}

impl Hash for Security {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.tls.key().hash(hasher);
        self.name.hash(hasher);
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
    security: Option<Security>,
    timeout: Duration,
    body_bytes_max: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects with the first request.
    pub fn new(base: Base, timeout: Duration) -> Self {
        Self {
            base,
            security: None,
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

    /// The same with what a base over TLS needs.
    #[must_use]
    pub fn secured(self, security: Option<Security>) -> Self {
        Self { security, ..self }
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
        if !self.base.is_secure {
            return begin(stream).await.map_err(failed);
        }
        let Some(Security { tls, name }) = &self.security else {
            return Err(failed("nobody said whom to believe over TLS".to_owned()));
        };
        let stream = tls.shake_hands(stream, name, None).await;
        begin(stream.map_err(|error| failed(error.to_string()))?)
            .await
            .map_err(failed)
    }
}

/// Speaks HTTP over `stream`.
async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its end shows in the sender.
    tokio::spawn(connection);
    Ok(sender)
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
    fn a_base_may_be_secure_where_that_is_taken() {
        let base = Base::with_tls("https://consul.test/v1").expect("a base");
        assert!(base.is_secure());
        assert_eq!((base.host(), base.port), ("consul.test", 443));
        assert_eq!(base.url("/x"), "https://consul.test/v1/x");
        let base = Base::with_tls("http://consul.test:8500").expect("a base");
        assert!(!base.is_secure());
        let error = Base::with_tls("consul.test").expect_err("refused");
        assert!(error.contains("`https://host:port`"), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_sent_in_clear_to_a_base_over_tls() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let base = Base::with_tls(&format!("https://127.0.0.1:{port}")).expect("a base");
        let mut client = Client::new(base, Duration::from_secs(5));
        let (answer, connection) = tokio::join!(client.get("/"), async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut sent = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut sent);
            read.await.expect("the end");
            sent
        });
        assert!(matches!(answer, Err(Failure::Connect { .. })), "{answer:?}");
        assert!(connection.is_empty(), "{connection:?}");
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
