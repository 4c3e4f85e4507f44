//! The upstream end of a request that asks for a WebSocket.
//!
//! Pingora waits for the response and sends the end of the (empty) request body at the same time. An
//! upstream that answers 101 before that end was sent makes Pingora take the end for that of the
//! tunnel, which it then closes. So this socket lets one turn go by between a write and the next
//! read: the end of the body is always sent first.

use std::{
    io,
    pin::Pin,
    sync::Arc,
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
};

/// Connects the upstream ends of tunnels.
#[derive(Debug)]
struct Connector {
    timeout: Duration,
}

/// A connector that gives up after `timeout`.
pub(super) fn connector(timeout: Duration) -> Arc<dyn L4Connect + Send + Sync> {
    Arc::new(Connector { timeout })
}

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
        let connected = tokio::time::timeout(self.timeout, ext::connect(address, None)).await;
        let tcp = connected
            .map_err(|_| Error::explain(ErrorType::ConnectTimedout, "no connection in time"))??;
        // A tunnel without it works, only slower.
        let _ = tcp.set_nodelay(true);
        let socket = Socket { tcp, wrote: false };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

/// A socket that lets one turn go by between a write and the next read.
#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    wrote: bool,
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
        Pin::new(&mut self.tcp).poll_read(context, buffer)
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
        let refused = connector(Duration::from_secs(5))
            .connect(&SocketAddr::from(address))
            .await
            .expect_err("nobody listens");
        assert_eq!(refused.etype(), &ErrorType::ConnectRefused);
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
        let mut socket = Socket { tcp, wrote: false };
        socket.tcp.readable().await.expect("an answer is there");
        socket.write_all(b"question").await.expect("written");
        let mut space = [0; 6];
        let mut read = std::pin::pin!(socket.read_exact(&mut space));
        assert!(futures_util::poll!(read.as_mut()).is_pending());
        read.await.expect("read in the next turn");
        assert_eq!(&space, b"answer");
    }
}
