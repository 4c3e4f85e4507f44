//! A client that can say anything on a connection and reads whole responses.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use openssl::ssl::SslRef;

use super::http1::{Framing, Head, chunked, read_body};
use super::tls::{Tls, Wire};
use super::wait::{PATIENCE, fail};

/// An HTTP/1.1 request to be. `Host` is `gateway.test` unless given.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    version: &'static str,
    fields: Vec<(String, String)>,
    body: Option<Body>,
}

#[derive(Clone, Debug)]
enum Body {
    Sized(Vec<u8>),
    Chunked(Vec<u8>, usize),
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self {
            method,
            target,
            version: "HTTP/1.1",
            fields: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body(body)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(self, host: &str) -> Self {
        self.header("Host", host)
    }

    /// A body with `Content-Length`.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(Body::Sized(body.into()));
        self
    }

    /// A body in chunks of at most `size` bytes.
    pub(crate) fn chunked(mut self, body: impl Into<Vec<u8>>, size: usize) -> Self {
        self.body = Some(Body::Chunked(body.into(), size));
        self
    }

    pub(crate) fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    /// The request as it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        if !self
            .fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head.push_str("Host: gateway.test\r\n");
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = match &self.body {
            None => Vec::new(),
            Some(Body::Sized(body)) => {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                body.clone()
            }
            Some(Body::Chunked(body, size)) => {
                head.push_str("Transfer-Encoding: chunked\r\n");
                chunked(body, *size)
            }
        };
        head.push_str("\r\n");
        [head.into_bytes(), body].concat()
    }
}

/// A response as the client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// False if the connection ended before the body did.
    pub(crate) complete: bool,
    /// Statuses of the 1xx responses that came before.
    pub(crate) interim: Vec<u16>,
    pub(crate) chunked: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.head.headers(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => fail(&format!("not JSON ({error}): {}", self.text())),
        }
    }

    /// The `message` of an error body in JSON.
    #[track_caller]
    pub(crate) fn message(&self) -> String {
        self.json()
            .get("message")
            .and_then(|message| message.as_str())
            .unwrap_or_default()
            .to_owned()
    }

    /// Does the server announce that it will close the connection?
    pub(crate) fn announces_close(&self) -> bool {
        self.headers("connection")
            .iter()
            .any(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// One connection of a client.
pub(crate) struct Client {
    reader: BufReader<Wire>,
}

impl Client {
    /// Connects to a loopback port.
    pub(crate) fn connect(port: u16) -> Self {
        Self::try_connect(port).expect("a connection to a listening port")
    }

    pub(crate) fn try_connect(port: u16) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::new(Wire::Plain(tcp(port)?)),
        })
    }

    /// Connects to a loopback port and shakes hands; `Err` says why that failed.
    pub(crate) fn secure(port: u16, tls: &Tls) -> Result<Self, String> {
        Self::secure_behind(b"", port, tls)
    }

    /// The same, with these bytes before the handshake.
    pub(crate) fn secure_behind(preamble: &[u8], port: u16, tls: &Tls) -> Result<Self, String> {
        let mut stream = tcp(port).expect("a connection to a listening port");
        stream
            .write_all(preamble)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            reader: BufReader::new(tls.shake_hands(stream)?),
        })
    }

    /// What was negotiated, on a connection with TLS.
    #[track_caller]
    pub(crate) fn ssl(&self) -> &SslRef {
        let wire = self.reader.get_ref();
        wire.ssl().expect("a connection with TLS")
    }

    /// Whether the peer said in TLS that nothing more comes.
    pub(crate) fn heard_goodbye(&mut self) -> bool {
        self.stream().heard_goodbye()
    }

    /// Sends a request and reads its response.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        match self.try_send(request) {
            Ok(response) => response,
            Err(error) => fail(&format!(
                "no response to {} {}: {error}",
                request.method, request.target
            )),
        }
    }

    pub(crate) fn try_send(&mut self, request: &Request) -> io::Result<Response> {
        // A server may answer and close before it has read everything; its answer decides.
        let written = self.stream().write_all(&request.bytes());
        self.read_response_to(&request.method)
            .map_err(|error| written.err().unwrap_or(error))
    }

    /// Writes bytes as they are. A peer that has closed is no failure here: what it answered is judged.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream().write_all(bytes.as_ref())
    }

    /// Reads the next response, assuming that it answers a method that is not HEAD.
    pub(crate) fn read_response(&mut self) -> io::Result<Response> {
        self.read_response_to("GET")
    }

    pub(crate) fn read_response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.read_head()?;
            let status = status_of(&head)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let framing = response_framing(&head, status, method)?;
            let mut body = Vec::new();
            let outcome = read_body(&mut self.reader, framing, |piece| {
                body.extend_from_slice(piece);
            });
            let timed_out = matches!(&outcome, Err(error) if is_timeout(error));
            assert!(
                !timed_out,
                "the body of a {status} stalled after {} bytes",
                body.len()
            );
            let chunked = framing == Framing::Chunked;
            return Ok(Response {
                status,
                head,
                body,
                complete: outcome.is_ok(),
                interim,
                chunked,
            });
        }
    }

    /// Reads one head, interim or final, and leaves the body on the connection.
    pub(crate) fn read_head(&mut self) -> io::Result<Head> {
        Head::read(&mut self.reader)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// Reads so many bytes, of whatever comes.
    pub(crate) fn take(&mut self, count: usize) -> io::Result<()> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)
    }

    /// Reads until what came ends in `bytes`, and yields all that came.
    pub(crate) fn read_until(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while !all.ends_with(bytes) {
            let mut byte = [0];
            let read = self
                .reader
                .read(&mut byte)
                .expect("more bytes from the gateway");
            assert!(
                read == 1,
                "closed after {:?}",
                String::from_utf8_lossy(&all)
            );
            all.extend_from_slice(&byte);
        }
        all
    }

    /// Waits until the peer closes or resets, at most `deadline`; yields the bytes that still came.
    pub(crate) fn closed_within(&mut self, deadline: Duration) -> Option<Vec<u8>> {
        self.tcp()
            .set_read_timeout(Some(deadline))
            .expect("a read timeout");
        let mut rest = Vec::new();
        let outcome = self.reader.read_to_end(&mut rest);
        self.tcp()
            .set_read_timeout(Some(PATIENCE))
            .expect("a read timeout");
        match outcome {
            Err(error) if is_timeout(&error) => None,
            _ => Some(rest),
        }
    }

    /// Are there bytes to read, or has the peer closed, within `deadline`?
    pub(crate) fn hears_within(&mut self, deadline: Duration) -> bool {
        self.tcp()
            .set_read_timeout(Some(deadline))
            .expect("a read timeout");
        let silent = matches!(self.reader.fill_buf(), Err(error) if is_timeout(&error));
        self.tcp()
            .set_read_timeout(Some(PATIENCE))
            .expect("a read timeout");
        !silent
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn half_close(&mut self) {
        self.stream().half_close().expect("an open connection");
    }

    /// Writes from another thread, without TLS, so that a peer that does not read cannot block the test.
    pub(crate) fn write_in_background(&mut self, bytes: Vec<u8>) {
        let mut stream = self
            .tcp()
            .try_clone()
            .expect("a second handle of the connection");
        std::thread::spawn(move || stream.write_all(&bytes));
    }

    fn stream(&mut self) -> &mut Wire {
        self.reader.get_mut()
    }

    fn tcp(&self) -> &TcpStream {
        self.reader.get_ref().tcp()
    }
}

fn tcp(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn status_of(head: &Head) -> io::Result<u16> {
    let status = head
        .start_line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, head.start_line.clone()))
}

fn response_framing(head: &Head, status: u16, method: &str) -> io::Result<Framing> {
    if method == "HEAD" || matches!(status, 101 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    Ok(head.framing()?.unwrap_or(Framing::UntilClose))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
