//! A TLS connection with a client as a stream of bytes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use openssl::ssl::{Ssl, SslRef};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use super::records::Records;

/// A TLS connection, after its handshake.
#[derive(Debug)]
pub struct SecureStream(SslStream<Source>);

/// What OpenSSL reads from and writes to.
#[derive(Debug)]
struct Source {
    socket: Replayed,
    records: Records,
    held: Held,
}

/// What OpenSSL has read and may still hand out, before it reads again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nobody knows.
    Something,
    /// At most what is in one record.
    OneRecord,
    /// Nothing: it has asked for more in vain, or handed out the one record.
    Nothing,
}

/// A socket of which the first bytes were read already.
#[derive(Debug)]
pub struct Replayed {
    read: Bytes,
    tcp: TcpStream,
}

impl Replayed {
    pub(super) fn new(read: Bytes, tcp: TcpStream) -> Self {
        Self { read, tcp }
    }
}

impl SecureStream {
    /// A stream of which `read` came already. Its handshake is still to come.
    pub(super) fn new(
        ssl: Ssl,
        tcp: TcpStream,
        read: Bytes,
    ) -> Result<Self, openssl::error::ErrorStack> {
        let source = Source {
            socket: Replayed::new(read, tcp),
            records: Records::default(),
            held: Held::Something,
        };
        Ok(Self(SslStream::new(ssl, source)?))
    }

    pub(super) async fn accept(&mut self) -> Result<(), openssl::ssl::Error> {
        Pin::new(&mut self.0).accept().await
    }

    pub(super) fn ssl(&self) -> &SslRef {
        self.0.ssl()
    }

    /// Tells the client that nothing more comes, if there is room for it now.
    pub fn close(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        // A client that takes nothing will not miss it.
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut context);
    }
}

impl AsFd for SecureStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().socket.tcp.as_fd()
    }
}

impl AsRawFd for SecureStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.get_ref().socket.tcp.as_raw_fd()
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut self.0;
        let source = stream.get_ref();
        // OpenSSL gets memory for a whole record before it looks for one, which is 1,200 instructions in vain; while a
        // request is served, that is asked four times.
        if source.held == Held::Nothing {
            ready!(source.socket.tcp.poll_read_ready(context))?;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *stream).poll_read(context, buffer))?;
        let is_handed_out = buffer.filled().len() > before && stream.ssl().pending() == 0;
        if is_handed_out && stream.get_ref().held == Held::OneRecord {
            stream.get_mut().held = Held::Nothing;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(context, buffer);
        this.held = if read.is_pending() {
            Held::Nothing
        } else if (this.records).take(buffer.filled().get(before..).unwrap_or_default()) {
            Held::OneRecord
        } else {
            Held::Something
        };
        read
    }
}

impl AsyncWrite for Source {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(context, buffer);
        }
        let count = buffer.remaining().min(self.read.len());
        let (bytes, _) = self.read.split_at(count);
        buffer.put_slice(bytes);
        self.read.advance(count);
        if self.read.is_empty() {
            // Gives the buffer back.
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
