//! The client's end of a connection, as Pingora sees it.
//!
//! It ends each request's input exactly where its framing ends, so that a pipelined request is
//! answered in its turn; it checks chunked framing on the way; it joins a response head and its
//! body into one send; and it holds no buffer while the connection is idle.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_util::io::poll_read_buf;

use super::{chunks::Chunks, head::Framing, hop_by_hop, own_lines::OwnLines, transport::Transport};

/// The most that is joined with a response head into one send.
const JOIN_BYTES_MAX: usize = 16 * 1024;
/// How much is looked at beyond the end of a request to learn whether the client is still there.
const AHEAD_BYTES: usize = 1024;
/// How much room a request head gets at first; most fit.
const HEAD_BYTES: usize = 2048;

/// Counters and switches of a connection that outlive Pingora's hold on its stream.
#[derive(Debug, Default)]
pub struct Wire {
    received: AtomicU64,
    sent: AtomicU64,
    /// The two counts when the current request began.
    received_before: AtomicU64,
    sent_before: AtomicU64,
    /// Milliseconds of silence after which a tunnel ends; 0 = not a tunnel.
    tunnel_silence_ms: AtomicU64,
    /// Our lines of the next response head. Nobody ever waits for it: request and stream take turns.
    lines: Mutex<Option<OwnLines>>,
}

impl Wire {
    /// Bytes received and sent for the current request so far, heads included.
    pub fn of_request(&self) -> (u64, u64) {
        let since = |count: &AtomicU64, before: &AtomicU64| {
            count
                .load(Ordering::Relaxed)
                .saturating_sub(before.load(Ordering::Relaxed))
        };
        (
            since(&self.received, &self.received_before),
            since(&self.sent, &self.sent_before),
        )
    }

    fn begin_request(&self) {
        self.received_before
            .store(self.received.load(Ordering::Relaxed), Ordering::Relaxed);
        self.sent_before
            .store(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A number that changes whenever a byte moves.
    fn moved(&self) -> u64 {
        self.received
            .load(Ordering::Relaxed)
            .wrapping_add(self.sent.load(Ordering::Relaxed))
    }

    /// Lets `lines` be in the next response head, in place of any other.
    pub(super) fn follow_head(&self, lines: OwnLines) {
        *self.lines() = Some(lines);
    }

    fn lines(&self) -> MutexGuard<'_, Option<OwnLines>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection became a tunnel that ends after `silence` without a byte in either direction.
    pub fn begin_tunnel(&self, silence: Duration) {
        let milliseconds = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        self.tunnel_silence_ms
            .store(milliseconds.max(1), Ordering::Relaxed);
    }
}

/// What may still be read of the current request.
#[derive(Debug)]
enum Input {
    /// Exactly so many bytes; then the fence.
    Length(u64),
    /// Chunks until the last one and its trailers; then the fence.
    Chunked(Box<Chunks>),
    /// Whatever comes: the request asks for a tunnel.
    Unbounded,
}

/// A client connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    transport: Transport,
    digest: Arc<SocketDigest>,
    wire: Arc<Wire>,
    /// Bytes that were read and belong to what comes next.
    ahead: BytesMut,
    input: Input,
    output: BytesMut,
    /// The next write begins a response head, which waits for the body behind it.
    joining: bool,
    tunnel: Option<Tunnel>,
}

#[derive(Debug)]
struct Tunnel {
    timer: Pin<Box<Sleep>>,
    seen: u64,
}

impl ClientStream {
    /// Takes over an accepted socket, with or without TLS.
    pub(super) fn new(transport: Transport, digest: SocketDigest, wire: Arc<Wire>) -> Self {
        Self {
            transport,
            digest: Arc::new(digest),
            wire,
            ahead: BytesMut::new(),
            input: Input::Length(0),
            output: BytesMut::new(),
            joining: false,
            tunnel: None,
        }
    }

    /// The bytes read ahead: the beginning of the next request.
    pub(super) fn ahead(&mut self) -> &mut BytesMut {
        &mut self.ahead
    }

    /// Reads more bytes ahead. `Ok(0)` means that the client closed.
    pub(super) fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.ahead.reserve(HEAD_BYTES);
        poll_read_buf(Pin::new(&mut self.transport), context, &mut self.ahead)
    }

    /// Says that nothing more comes, where TLS has a word for it: a connection that is closed without it looks cut.
    pub(super) fn say_goodbye(&mut self) {
        if let Transport::Secure(stream) = &mut self.transport {
            stream.close();
        }
    }

    /// Takes whatever still comes as input of nothing.
    pub(super) fn abandon(&mut self) {
        self.ahead.clear();
        self.unfence();
    }

    /// Lets everything through: what was read ahead and all that comes.
    pub(super) fn unfence(&mut self) {
        self.input = Input::Unbounded;
        self.joining = false;
    }

    /// Begins a request whose head is the first `head_bytes` of what was read ahead. Gives the head and as much
    /// of the body as is here already; the rest will be read by the request.
    pub(super) fn begin(
        &mut self,
        head_bytes: usize,
        framing: Framing,
        tunnel: bool,
    ) -> io::Result<(Bytes, BytesMut)> {
        let mut body_bytes = 0;
        self.input = match framing {
            _ if tunnel => Input::Unbounded,
            Framing::Length(length) => {
                let here = u64::try_from(self.ahead.len() - head_bytes).unwrap_or(u64::MAX);
                let body = length.min(here);
                body_bytes = usize::try_from(body).unwrap_or(usize::MAX);
                Input::Length(length - body)
            }
            Framing::Chunked => {
                let mut chunks = Box::<Chunks>::default();
                let rest = self.ahead.get(head_bytes..).unwrap_or_default();
                body_bytes = chunks.scan(rest)?;
                Input::Chunked(chunks)
            }
        };
        self.joining = true;
        *self.wire.lines() = None;
        self.wire.begin_request();
        self.wire
            .received
            .fetch_add((head_bytes + body_bytes) as u64, Ordering::Relaxed);
        let head = if self.ahead.len() == head_bytes {
            // Splitting would share the memory with a rest that has nothing.
            std::mem::take(&mut self.ahead)
        } else {
            self.ahead.split_to(head_bytes)
        };
        Ok((head.freeze(), self.ahead.split_to(body_bytes)))
    }

    /// Makes `body` what is read next, as the whole body of the current request.
    pub(super) fn put_back(&mut self, body: &[u8]) {
        let mut ahead = BytesMut::with_capacity(body.len() + self.ahead.len());
        ahead.extend_from_slice(body);
        ahead.extend_from_slice(&self.ahead);
        self.ahead = ahead;
        self.input = Input::Length(body.len() as u64);
        // It was counted when it came, and will be counted when it is read again.
        self.wire
            .received
            .fetch_sub(body.len() as u64, Ordering::Relaxed);
    }

    /// Whether the client has closed the connection, also behind bytes that nobody has read yet. It asks the
    /// system.
    pub(super) fn has_hung_up(&self) -> bool {
        let asked = PollFlags::RDHUP;
        let mut socket = [PollFd::from_borrowed_fd(self.transport.as_fd(), asked)];
        let answered = poll(&mut socket, Some(&Timespec::default())).is_ok();
        let closed = asked | PollFlags::HUP | PollFlags::ERR;
        answered && socket[0].revents().intersects(closed)
    }

    /// Reads past the fence only to learn whether the client closed.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        let mut space = [0; AHEAD_BYTES];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.transport).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Pending
    }

    /// Ends a tunnel in which nothing moved for its time.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.wire.tunnel_silence_ms.load(Ordering::Relaxed);
        if limit == 0 {
            return Poll::Pending;
        }
        let limit = Duration::from_millis(limit);
        let moved = self.wire.moved();
        let tunnel = self.tunnel.get_or_insert_with(|| Tunnel {
            timer: Box::pin(tokio::time::sleep(limit)),
            seen: moved,
        });
        loop {
            if tunnel.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if tunnel.seen == moved {
                return Poll::Ready(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the tunnel was silent for too long",
                ));
            }
            tunnel.seen = moved;
            tunnel.timer.as_mut().reset(Instant::now() + limit);
        }
    }

    /// Joins the head that Pingora wrote and our lines.
    fn write_head(&mut self, head: &[u8]) {
        let lines = self.wire.lines().take();
        let mut joined = lines.map_or_else(|| BytesMut::from(head), |lines| lines.join(head));
        if head.starts_with(b"HTTP/1.1 426 ") {
            joined = BytesMut::from(&*hop_by_hop::with_upgrade(&joined));
        }
        if self.output.is_empty() {
            self.output = joined;
        } else {
            self.output.extend_from_slice(&joined);
        }
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(context, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        if self.output.capacity() > 0 {
            self.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Whoever waits for input has nothing more to say for now: a head must not wait for a body
        // that is not there yet.
        if !this.output.is_empty()
            && let Poll::Ready(Err(error)) = this.poll_output(context)
        {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let read = match &mut this.input {
            Input::Length(0) => return this.poll_closed(context),
            Input::Chunked(chunks) if chunks.is_done() => return this.poll_closed(context),
            Input::Length(remaining) if this.ahead.is_empty() => {
                let mut limited = (&mut this.transport).take(*remaining);
                Pin::new(&mut limited).poll_read(context, buffer)
            }
            Input::Unbounded if this.ahead.is_empty() => {
                Pin::new(&mut this.transport).poll_read(context, buffer)
            }
            Input::Length(remaining) => {
                let remaining = usize::try_from(*remaining).unwrap_or(usize::MAX);
                let count = buffer.remaining().min(remaining).min(this.ahead.len());
                buffer.put_slice(&this.ahead.split_to(count));
                Poll::Ready(Ok(()))
            }
            Input::Unbounded => {
                let count = buffer.remaining().min(this.ahead.len());
                buffer.put_slice(&this.ahead.split_to(count));
                Poll::Ready(Ok(()))
            }
            Input::Chunked(chunks) => {
                if this.ahead.is_empty() {
                    ready!(poll_read_buf(
                        Pin::new(&mut this.transport),
                        context,
                        &mut this.ahead
                    ))?;
                }
                let count = buffer.remaining().min(this.ahead.len());
                let ours = chunks.scan(this.ahead.get(..count).unwrap_or_default())?;
                buffer.put_slice(&this.ahead.split_to(ours));
                Poll::Ready(Ok(()))
            }
        };
        if read.is_pending() {
            return this.poll_silence(context).map(Err);
        }
        ready!(read)?;
        let count = (buffer.filled().len() - before) as u64;
        if let Input::Length(remaining) = &mut this.input {
            *remaining = remaining.saturating_sub(count);
        }
        this.wire.received.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.joining {
            // Behind the head of an interim response comes another head.
            this.joining = bytes.starts_with(b"HTTP/1.1 1") && !bytes.starts_with(b"HTTP/1.1 101");
            let begin = this.output.len();
            if this.joining {
                this.output.extend_from_slice(bytes);
            } else {
                this.write_head(bytes);
            }
            let written = this.output.len() - begin;
            this.wire.sent.fetch_add(written as u64, Ordering::Relaxed);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = if this.output.is_empty() {
            ready!(Pin::new(&mut this.transport).poll_write(context, bytes))?
        } else if this.output.len() + bytes.len() <= JOIN_BYTES_MAX {
            this.output.extend_from_slice(bytes);
            // The bytes are taken whether or not all of them leave now; a flush sends the rest.
            if let Poll::Ready(Err(error)) = this.poll_output(context) {
                return Poll::Ready(Err(error));
            }
            bytes.len()
        } else {
            ready!(this.poll_output(context))?;
            ready!(Pin::new(&mut this.transport).poll_write(context, bytes))?
        };
        this.wire.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_output(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_output(context))?;
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // The client may be gone; there is nobody left to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.transport.as_raw_fd()
    }
}

impl Ssl for ClientStream {}

impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}
