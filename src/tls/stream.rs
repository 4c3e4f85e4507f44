//! A TLS connection with a client as a stream of bytes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use openssl::ssl::{Ssl, SslRef};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_openssl::SslStream;

/// A TLS connection, after its handshake.
#[derive(Debug)]
pub struct SecureStream(SslStream<Replayed>);

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
        Ok(Self(SslStream::new(ssl, Replayed::new(read, tcp))?))
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
        self.0.get_ref().tcp.as_fd()
    }
}

impl AsRawFd for SecureStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.get_ref().tcp.as_raw_fd()
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
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
