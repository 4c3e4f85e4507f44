//! Listening sockets: bound before anything is served, so that a port that is taken ends the start
//! with a message; and the loop that accepts from them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};
use tracing::error;

use super::{
    connection::{Arrival, Edge},
    drain::Drain,
};
use crate::snapshot::live::Live;

/// How long to wait before accepting again when there are no descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// How often to say so.
const EXHAUSTED_LOG_INTERVAL: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 4096;

/// What to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub socket: SocketAddr,
    pub reuse_port: bool,
    /// Whether an IPv6 wildcard takes IPv6 only.
    pub ipv6_only: bool,
    pub backlog: Option<i32>,
    /// Whether TCP keep-alive probes are sent; absent = as the system does.
    pub keepalive: Option<bool>,
}

impl Address {
    /// An address without options.
    pub fn plain(socket: SocketAddr) -> Self {
        Self {
            socket,
            reuse_port: false,
            ipv6_only: true,
            backlog: None,
            keepalive: None,
        }
    }
}

/// How clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// Everything is inside TLS.
    pub tls: bool,
    /// Clients may speak HTTP/2, which ALPN settles inside TLS and their first bytes without.
    pub http2: bool,
}

/// A socket that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub cause: io::Error,
}

/// Binds and listens. Needs no runtime.
///
/// # Errors
/// When the address is taken, not ours, or not allowed.
pub fn bind(address: Address) -> Result<std::net::TcpListener, BindError> {
    let bind = || {
        let socket = Socket::new(
            Domain::for_address(address.socket),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if address.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.socket.is_ipv6() {
            socket.set_only_v6(address.ipv6_only)?;
        }
        if let Some(keepalive) = address.keepalive {
            socket.set_keepalive(keepalive)?;
        }
        socket.bind(&address.socket.into())?;
        socket.listen(address.backlog.unwrap_or(BACKLOG))?;
        Ok(socket.into())
    };
    bind().map_err(|cause| BindError {
        address: address.socket,
        cause,
    })
}

/// Accepts from `listener`, as `dialect` says, and serves through `edge` until `stop` turns true; then the socket is
/// closed.
pub async fn accept(
    listener: TcpListener,
    dialect: Dialect,
    edge: Arc<Edge>,
    live: Arc<Live>,
    drain: Arc<Drain>,
    mut stop: watch::Receiver<bool>,
) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let mut said_exhausted: Option<tokio::time::Instant> = None;
    loop {
        let limit = live.look().settings.connections_max;
        let next = async {
            if let Some(limit) = limit {
                // Whoever comes beyond the limit waits in the kernel's backlog.
                drain.below(limit).await;
            }
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stop.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((tcp, peer)) => {
                // A connection without it works, only slower.
                let _ = tcp.set_nodelay(true);
                let edge = Arc::clone(&edge);
                // Counted before the next one is accepted, or the limit would be overrun.
                let open = drain.enter();
                let arrival = Arrival {
                    peer,
                    port,
                    dialect,
                };
                tokio::spawn(async move { edge.serve(tcp, arrival, open).await });
            }
            Err(error) if is_exhaustion(&error) => {
                let now = tokio::time::Instant::now();
                if said_exhausted.is_none_or(|said| now - said >= EXHAUSTED_LOG_INTERVAL) {
                    error!(%error, "cannot accept: idle connections are closed to make room");
                    said_exhausted = Some(now);
                }
                drain.shed();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The client gave up between its arrival and our look.
            Err(_) => {}
        }
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: nothing is left for a new connection.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_with_the_address() {
        let first =
            bind(Address::plain(SocketAddr::from(([127, 0, 0, 1], 0)))).expect("a free port");
        let taken = first.local_addr().expect("an address");
        let error = bind(Address::plain(taken)).expect_err("the port is taken");
        assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
    }
}
