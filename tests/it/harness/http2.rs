//! Two clients for HTTP/2 without TLS: one that speaks it properly, and one that sends whatever frames a test wants.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::tls::{Tls, Wire};
use super::wait::{PATIENCE, Stopwatch, fail};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The kinds of frames that tests name.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Codes of errors.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame as it is on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a reset.
    pub(crate) fn reset_code(&self) -> Option<u32> {
        (self.kind == RST_STREAM).then(|| number(&self.payload, 0))
    }

    /// The last stream and the code of a GOAWAY.
    pub(crate) fn goaway(&self) -> Option<(u32, u32)> {
        (self.kind == GOAWAY).then(|| (number(&self.payload, 0), number(&self.payload, 4)))
    }

    /// Whether it ends its stream.
    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The status of a response head that begins with it, where HPACK has a number for it.
    pub(crate) fn status(&self) -> Option<u16> {
        match (self.kind, self.payload.first()) {
            (HEADERS, Some(byte @ 0x88..=0x8e)) => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)])
            }
            _ => None,
        }
    }
}

fn number(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..at + 4).expect("a number of four bytes");
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literal fields, of which the table of the connection learns none.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(&mut bytes, name);
        string(&mut bytes, value);
    }
    bytes
}

/// A string of HPACK, not compressed.
pub(crate) fn string(bytes: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).expect("a small number"));
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push(u8::try_from(length % 128).expect("a small number") | 128);
            length /= 128;
        }
        bytes.push(u8::try_from(length).expect("a small number"));
    }
    bytes.extend(text.as_bytes());
}

/// The head of `GET path`.
pub(crate) fn get_block(path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", path),
    ])
}

fn tcp(port: u16) -> TcpStream {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(address).expect("the gateway accepts");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// A client that sends whatever frames a test wants.
pub(crate) struct Raw {
    stream: Wire,
    unread: Vec<u8>,
}

impl Raw {
    /// Connects; sends the preface and settings, and acknowledges those of the gateway.
    pub(crate) fn connect(port: u16) -> Self {
        Self::connect_with(port, &[])
    }

    /// The same with settings of its own: pairs of identifier and value.
    pub(crate) fn connect_with(port: u16, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::connect_silently(port);
        raw.begin(settings);
        raw
    }

    /// Connects inside TLS, where it offers HTTP/2.
    pub(crate) fn connect_securely(port: u16) -> Self {
        let tls = Tls::to("gateway.test").offering(b"\x02h2\x08http/1.1");
        let stream = tls.shake_hands(tcp(port)).expect("a handshake");
        let chosen = stream.ssl().and_then(|ssl| ssl.selected_alpn_protocol());
        assert_eq!(chosen, Some(&b"h2"[..]));
        let mut raw = Self::over(stream);
        raw.begin(&[]);
        raw
    }

    fn begin(&mut self, settings: &[(u16, u32)]) {
        let mut payload = Vec::new();
        for (identifier, value) in settings {
            payload.extend(identifier.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        self.write(PREFACE);
        self.send(SETTINGS, 0, 0, &payload);
        self.until("the gateway's settings", |frame| frame.kind == SETTINGS);
        self.send(SETTINGS, 1, 0, &[]);
    }

    /// Connects and says nothing.
    pub(crate) fn connect_silently(port: u16) -> Self {
        Self::over(Wire::Plain(tcp(port)))
    }

    fn over(stream: Wire) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Writes bytes; false once the gateway takes none.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Writes bytes unless the gateway takes none for the time given.
    pub(crate) fn write_within(&mut self, bytes: &[u8], time: Duration) -> bool {
        let limit = |time| self.stream.tcp().set_write_timeout(time);
        limit(Some(time)).expect("a timeout is set");
        let written = self.stream.write_all(bytes).is_ok();
        let limit = |time| self.stream.tcp().set_write_timeout(time);
        limit(None).expect("no timeout is set");
        written
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// Sends `GET path` on a stream.
    pub(crate) fn get(&mut self, stream: u32, path: &str) -> bool {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &get_block(path))
    }

    /// Sends a request head with these fields, and no body.
    pub(crate) fn request(&mut self, stream: u32, fields: &[(&str, &str)]) -> bool {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
    }

    /// The next frame within the time given; `None` if there is none or the connection ended.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Frame> {
        let watch = Stopwatch::start();
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let left = time.checked_sub(watch.elapsed())?;
            let left = left.max(Duration::from_millis(1));
            let tcp = self.stream.tcp();
            tcp.set_read_timeout(Some(left)).expect("a timeout");
            let mut space = [0; 16 * 1024];
            match self.stream.read(&mut space) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend(&space[..count]),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.unread.get(..9)?;
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).ok()?;
        let (kind, flags) = (head[3], head[4]);
        let stream = number(head, 5) & 0x7fff_ffff;
        let payload = self.unread.get(9..9 + length)?.to_vec();
        self.unread.drain(..9 + length);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// Reads until a frame is `wanted`.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let watch = Stopwatch::start();
        while let Some(left) = PATIENCE.checked_sub(watch.elapsed()) {
            let Some(frame) = self.next_within(left) else {
                break;
            };
            if wanted(&frame) {
                return frame;
            }
        }
        fail(&format!(
            "the connection ended or fell silent before {what}"
        ))
    }

    /// Reads until the connection ends; gives the codes of GOAWAY that came. `None` if it goes on.
    pub(crate) fn ends_within(&mut self, time: Duration) -> Option<Vec<u32>> {
        let watch = Stopwatch::start();
        let mut codes = Vec::new();
        while let Some(left) = time.checked_sub(watch.elapsed()) {
            match self.next_within(left) {
                Some(frame) => codes.extend(frame.goaway().map(|(_, code)| code)),
                None if watch.elapsed() < time => return Some(codes),
                None => return None,
            }
        }
        None
    }

    /// How the request on a stream ends: the status if it is one that HPACK has a number for, or the code of a reset or of the end of the connection.
    #[track_caller]
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        let end = self.until("the end of the stream", |frame| {
            frame.kind == GOAWAY
                || (frame.stream == stream && (frame.kind == HEADERS || frame.kind == RST_STREAM))
        });
        if let Some((_, code)) = end.goaway() {
            return Outcome::Connection(code);
        }
        if let Some(code) = end.reset_code() {
            return Outcome::Reset(code);
        }
        let status = end.status();
        if !end.ends_stream() {
            self.until("the end of the body", |frame| {
                frame.stream == stream && (frame.ends_stream() || frame.kind == RST_STREAM)
            });
        }
        Outcome::Answered(status.unwrap_or(0))
    }

    /// Says that nothing more comes.
    pub(crate) fn close(&mut self) {
        let _ = self.stream.tcp().shutdown(Shutdown::Both);
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a status; 0 = one that HPACK has no number for.
    Answered(u16),
    Reset(u32),
    Connection(u32),
}

impl Outcome {
    /// Whether the request was turned away as malformed.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Answered(400) | Self::Reset(PROTOCOL_ERROR) | Self::Connection(PROTOCOL_ERROR)
        )
    }
}

/// A response as a proper client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Http2Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Http2Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name)?.to_str().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client that speaks HTTP/2 properly.
pub(crate) struct Http2Client {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    authority: String,
}

impl Http2Client {
    pub(crate) fn connect(port: u16) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let send = runtime.block_on(async {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let tcp = tokio::net::TcpStream::connect(address)
                .await
                .expect("the gateway accepts");
            tcp.set_nodelay(true).expect("TCP_NODELAY");
            let (send, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
            // Its end shows in the streams.
            tokio::spawn(async move { drop(connection.await) });
            send
        });
        Self {
            runtime,
            send,
            authority: "gateway.test".to_owned(),
        }
    }

    /// A request head to be.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.authority))
    }

    /// Begins a request; its body follows unless `ended`.
    pub(crate) fn begin(&self, request: http::request::Builder, ended: bool) -> Call<'_> {
        let request = request.body(()).expect("a request");
        let mut send = self.send.clone();
        let (response, body) = self.runtime.block_on(async {
            send = send.ready().await.expect("room for a stream");
            send.send_request(request, ended)
                .expect("a sendable request")
        });
        Call {
            runtime: &self.runtime,
            response: Some(response),
            send: body,
            body: None,
        }
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Http2Response {
        self.begin(self.request("GET", path), true).finish()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Http2Response {
        let mut call = self.begin(self.request("POST", path), false);
        call.send(body, true);
        call.finish()
    }
}

/// One request on its way.
pub(crate) struct Call<'c> {
    runtime: &'c Runtime,
    response: Option<ResponseFuture>,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
}

impl Call<'_> {
    /// Sends a piece of the body, as the gateway makes room for it. A gateway that has answered already wants none.
    pub(crate) fn send(&mut self, piece: &[u8], ends: bool) {
        let _ = self.send.send_data(Bytes::copy_from_slice(piece), ends);
    }

    /// Takes the request back.
    pub(crate) fn reset(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// The response head, or why there is none.
    pub(crate) fn try_head(&mut self) -> Result<(u16, HeaderMap), h2::Error> {
        let response = self.response.take().expect("a head is read once");
        let response = self
            .runtime
            .block_on(async { timeout(PATIENCE, response).await })
            .unwrap_or_else(|_| fail("no response head"))?;
        let (head, body) = response.into_parts();
        self.body = Some(body);
        Ok((head.status.as_u16(), head.headers))
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> (u16, HeaderMap) {
        self.try_head().expect("a response head")
    }

    /// The next piece of the response's body; `None` behind the last one.
    pub(crate) fn try_data(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let body = self.body.as_mut().expect("the head comes first");
        self.runtime.block_on(async {
            match timeout(PATIENCE, body.data()).await {
                Err(_) => fail("no piece of the body"),
                Ok(None) => Ok(None),
                Ok(Some(Err(error))) => Err(error),
                Ok(Some(Ok(piece))) => {
                    body.flow_control().release_capacity(piece.len())?;
                    Ok(Some(piece))
                }
            }
        })
    }

    #[track_caller]
    pub(crate) fn data(&mut self) -> Option<Bytes> {
        self.try_data().expect("a body that is not cut")
    }

    pub(crate) fn try_trailers(&mut self) -> Result<Option<HeaderMap>, h2::Error> {
        let body = self.body.as_mut().expect("the head comes first");
        self.runtime.block_on(async {
            timeout(PATIENCE, body.trailers())
                .await
                .unwrap_or_else(|_| fail("no end of the body"))
        })
    }

    /// The whole response, or why it was cut.
    pub(crate) fn try_finish(mut self) -> Result<Http2Response, h2::Error> {
        let (status, headers) = self.try_head()?;
        let mut body = Vec::new();
        while let Some(piece) = self.try_data()? {
            body.extend(piece);
        }
        let trailers = self.try_trailers()?;
        Ok(Http2Response {
            status,
            headers,
            body,
            trailers,
        })
    }

    #[track_caller]
    pub(crate) fn finish(self) -> Http2Response {
        self.try_finish().expect("a whole response")
    }
}
