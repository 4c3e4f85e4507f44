//! Listening sockets: bound before anything is served, so that a port that is taken ends the start
//! with a message; and the loop that accepts from them.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tracing::error;

use super::{
    connection::Arrival,
    drain::{Drain, Open},
};
use crate::snapshot::live::Live;

/// How long to wait before accepting again when there are no descriptors left, or the socket is broken.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// How often to say so.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 4096;

/// What to listen on.
#[derive(Debug, Clone)]
pub struct Address {
    pub socket: SocketAddr,
    pub reuse_port: bool,
    /// Whether an IPv6 wildcard takes IPv6 only.
    pub ipv6_only: bool,
    pub backlog: Option<i32>,
    pub keepalive: Probes,
}

/// Whether TCP keep-alive probes are sent on accepted connections.
#[derive(Debug, Clone, Default)]
pub enum Probes {
    /// As the system does.
    #[default]
    AsTheSystem,
    Off,
    /// At these times.
    On(TcpKeepalive),
}

/// How clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dialect {
    /// Everything is inside TLS.
    pub tls: bool,
    /// Clients may speak HTTP/2, which ALPN settles inside TLS and their first bytes without.
    pub http2: bool,
}

/// What is agreed with those who connect to a listener. It may change while the socket stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A connection begins with a PROXY header.
    pub proxy_protocol: bool,
    pub dialect: Dialect,
}

/// Whether a listener was taken out of the configuration: its connections end after the request
/// they are at.
#[derive(Debug, Clone, Default)]
pub struct Retired(Arc<AtomicBool>);

impl Retired {
    /// The listener is gone.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is gone.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What tells a running listener what to do.
#[derive(Debug)]
pub struct Orders {
    pub terms: watch::Receiver<Terms>,
    /// Turns true, or loses its sender, when the socket is to be closed.
    pub stop: watch::Receiver<bool>,
    pub retired: Retired,
}

impl Address {
    /// An address without options.
    pub fn plain(socket: SocketAddr) -> Self {
        Self {
            socket,
            reuse_port: false,
            ipv6_only: true,
            backlog: None,
            keepalive: Probes::AsTheSystem,
        }
    }
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
pub fn bind(address: &Address) -> Result<std::net::TcpListener, BindError> {
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
        set_keepalive(&SockRef::from(&socket), &address.keepalive)?;
        socket.bind(&address.socket.into())?;
        socket.listen(address.backlog.unwrap_or(BACKLOG))?;
        Ok(socket.into())
    };
    bind().map_err(|cause| BindError {
        address: address.socket,
        cause,
    })
}

/// Has connections that are accepted from `socket` probed in this way.
///
/// # Errors
/// When the system does not take the times.
pub fn set_keepalive(socket: &SockRef<'_>, keepalive: &Probes) -> io::Result<()> {
    match keepalive {
        Probes::AsTheSystem => Ok(()),
        Probes::Off => socket.set_keepalive(false),
        Probes::On(times) => socket.set_tcp_keepalive(times),
    }
}

/// Serves accepted connections.
pub trait Serve: Send + Sync + 'static {
    /// Serves one connection until it ends.
    fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        arrival: Arrival,
        open: Open,
    ) -> impl Future<Output = ()> + Send;
}

/// Accepts from `listener` and serves through `edge` until it is told to stop; then the socket is
/// closed.
pub async fn accept<S: Serve>(
    listener: TcpListener,
    edge: Arc<S>,
    live: Arc<Live>,
    drain: Arc<Drain>,
    mut orders: Orders,
) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let mut said: Option<tokio::time::Instant> = None;
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
            _ = orders.stop.wait_for(|stopped| *stopped) => return,
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
                    terms: *orders.terms.borrow(),
                    retired: orders.retired.clone(),
                };
                tokio::spawn(async move { edge.serve(tcp, arrival, open).await });
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                let is_exhausted = is_exhaustion(&error);
                let now = tokio::time::Instant::now();
                if said.is_none_or(|said| now - said >= FAILURE_LOG_INTERVAL) {
                    if is_exhausted {
                        error!(%error, "cannot accept: idle connections are closed to make room");
                    } else {
                        error!(port, %error, "cannot accept");
                    }
                    said = Some(now);
                }
                if is_exhausted {
                    drain.shed();
                }
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// ECONNABORTED, EINTR: the client gave up between its arrival and our look, or a signal came.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR))
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
            bind(&Address::plain(SocketAddr::from(([127, 0, 0, 1], 0)))).expect("a free port");
        let taken = first.local_addr().expect("an address");
        let error = bind(&Address::plain(taken)).expect_err("the port is taken");
        assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
    }
}
