//! The upstream end of a request that asks for a WebSocket.
//!
//! Pingora waits for the response and sends the end of the (empty) request body at the same time. An
//! upstream that answers 101 before that end was sent makes Pingora take the end for that of the
//! tunnel, which it then closes. So this socket lets one turn go by between a write and the next
//! read: the end of the body is always sent first.
//!
//! Once it is open, a tunnel may be silent in one direction for ever, so Pingora is given no read
//! timeout. This socket has one of its own for the answer to the handshake.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType, Result,
    connectors::l4::Connect as L4Connect,
    protocols::l4::{
        ext,
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Whether the upstream owes an answer: from the moment the handshake is sent until it is accepted.
#[derive(Debug, Clone, Default)]
pub struct Handshake(Arc<AtomicBool>);

impl Handshake {
    /// The request is on its way.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The tunnel is open.
    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_running(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connects the upstream ends of tunnels.
#[derive(Debug)]
struct Connector {
    connect_timeout: Duration,
    read_timeout: Duration,
    handshake: Handshake,
}

/// A connector that gives up after `connect_timeout`, and whose sockets give up when nothing comes for
/// `read_timeout` during the `handshake`.
pub(super) fn connector(
    connect_timeout: Duration,
    read_timeout: Duration,
    handshake: Handshake,
) -> Arc<dyn L4Connect + Send + Sync> {
    Arc::new(Connector {
        connect_timeout,
        read_timeout,
        handshake,
    })
}

/// Makes a timeout of the error with which a socket gave up: Pingora takes it for a broken connection.
pub(super) fn name_silence(error: &mut Error) {
    let cause = error.root_cause();
    let is_silence = cause.downcast_ref::<io::Error>().is_some_and(is_silence);
    if error.etype() == &ErrorType::ReadError && is_silence {
        error.etype = ErrorType::ReadTimedout;
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<Silence>())
}

/// The upstream did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the upstream did not answer the handshake in time")]
struct Silence;

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Err(Error::explain(
                ErrorType::ConnectError,
                "a tunnel goes to an IP address",
            ));
        };
        // Pingora's own, so that its errors tell the upstream's trouble from that of this machine.
        let connected =
            tokio::time::timeout(self.connect_timeout, ext::connect(address, None)).await;
        let tcp = connected
            .map_err(|_| Error::explain(ErrorType::ConnectTimedout, "no connection in time"))??;
        // A tunnel without it works, only slower.
        let _ = tcp.set_nodelay(true);
        let socket = Socket {
            tcp,
            wrote: false,
            handshake: self.handshake.clone(),
            read_timeout: self.read_timeout,
            timer: None,
        };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// A socket that lets one turn go by between a write and the next read, and is not silent for long
/// during the handshake.
#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    wrote: bool,
    handshake: Handshake,
    read_timeout: Duration,
    /// Runs while a read waits during the handshake.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.handshake.is_running() {
            return Poll::Pending;
        }
        let deadline = || Instant::now() + self.read_timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline())));
        std::task::ready!(timer.as_mut().poll(context));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, Silence))
    }
}

impl VirtualSocket for Socket {
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let this = &mut *self;
        match Pin::new(&mut this.tcp).poll_read(context, buffer) {
            Poll::Pending => this.poll_silence(context).map(Err),
            ready @ Poll::Ready(_) => {
                this.timer = None;
                ready
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn an_address_without_a_listener_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let timeout = Duration::from_secs(5);
        let refused = connector(timeout, timeout, Handshake::default())
            .connect(&SocketAddr::from(address))
            .await
            .expect_err("nobody listens");
        assert_eq!(refused.etype(), &ErrorType::ConnectRefused);
    }

    fn socket(tcp: TcpStream, handshake: Handshake) -> Socket {
        Socket {
            tcp,
            wrote: false,
            handshake,
            read_timeout: Duration::from_millis(50),
            timer: None,
        }
    }

    #[tokio::test]
    async fn silence_ends_a_read_during_the_handshake_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let tcp = TcpStream::connect(address).await.expect("connected");
        let handshake = Handshake::default();
        let mut socket = socket(tcp, handshake.clone());
        let patience = Duration::from_millis(200);
        let mut space = [0; 6];
        let read = tokio::time::timeout(patience, socket.read(&mut space));
        assert!(read.await.is_err(), "nobody was asked yet");
        handshake.begin();
        let read = socket.read(&mut space).await.expect_err("silence");
        assert!(is_silence(&read));
        let mut error = Error::because(ErrorType::ReadError, "while the answer was read", read);
        name_silence(&mut error);
        assert_eq!(error.etype(), &ErrorType::ReadTimedout);
        handshake.end();
        let read = tokio::time::timeout(patience, socket.read(&mut space));
        assert!(read.await.is_err(), "an open tunnel may be silent");
    }

    #[tokio::test]
    async fn a_read_behind_a_write_waits_for_one_turn() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tcp, (mut peer, _)) = (
            TcpStream::connect(address).await.expect("connected"),
            listener.accept().await.expect("accepted"),
        );
        peer.write_all(b"answer").await.expect("written");
        let mut socket = socket(tcp, Handshake::default());
        socket.tcp.readable().await.expect("an answer is there");
        socket.write_all(b"question").await.expect("written");
        let mut space = [0; 6];
        let mut read = std::pin::pin!(socket.read_exact(&mut space));
        assert!(futures_util::poll!(read.as_mut()).is_pending());
        read.await.expect("read in the next turn");
        assert_eq!(&space, b"answer");
    }
}
