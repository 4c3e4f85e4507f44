//! Where the connection for a try comes from: the pool of its address, or the network.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType, Result,
    connectors::l4::Connect,
    protocols::l4::{
        ext, socket::SocketAddr as PingoraAddress, stream::Stream, virt::VirtualSocketStream,
    },
};

use super::{Following, Lease, Patience, Purpose};
use crate::{
    proxy::own_lines::OwnLines,
    snapshot::Upkeep,
    state::pool::{Counterpart, Pool, Socket, Wire},
    tls::UpstreamTls,
};

/// The connection that a try asks for, and what became of it. Pingora calls it when it wants to connect.
#[derive(Debug)]
pub(in crate::proxy) struct Dial {
    address: SocketAddr,
    tls: Option<(Arc<UpstreamTls>, Counterpart)>,
    pool: Arc<Pool>,
    patience: Patience,
    upkeep: Option<Upkeep>,
    purpose: Purpose,
    /// When the try began.
    began: Instant,
    from_pool: AtomicBool,
    lines: Arc<Mutex<Option<Following>>>,
}

impl Dial {
    /// Asks for a connection to `address` for a try that began at `began`.
    pub(in crate::proxy) fn new(
        (address, pool): (SocketAddr, Arc<Pool>),
        tls: Option<(Arc<UpstreamTls>, Counterpart)>,
        (patience, upkeep): (Patience, Option<Upkeep>),
        purpose: Purpose,
        began: Instant,
    ) -> Self {
        Self {
            address,
            tls,
            pool,
            patience,
            upkeep: upkeep.filter(|_| purpose != Purpose::Tunnel),
            purpose,
            began,
            from_pool: AtomicBool::new(false),
            lines: Arc::default(),
        }
    }

    /// Lets `lines` be in the head of the request, which Pingora writes `now`.
    pub(in crate::proxy) fn follow_head(&self, lines: OwnLines, now: Instant) {
        let following = Following { lines, sent: now };
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = Some(following);
    }

    /// Whether the connection served other requests before.
    pub(in crate::proxy) fn is_from_pool(&self) -> bool {
        self.from_pool.load(Ordering::Relaxed)
    }

    /// The name that the upstream was called in the handshake; absent without TLS.
    pub(in crate::proxy) fn server_name(&self) -> Option<&str> {
        self.tls
            .as_ref()
            .map(|(_, counterpart)| &*counterpart.server_name)
    }

    fn counterpart(&self) -> Option<&Counterpart> {
        self.tls.as_ref().map(|(_, counterpart)| counterpart)
    }

    /// Makes a new connection.
    async fn open(&self) -> Result<Wire> {
        let opened = tokio::time::timeout(self.patience.connect, self.socket()).await;
        let socket = opened.map_err(|_| {
            Error::explain(ErrorType::ConnectTimedout, "no connection in time").into_up()
        })??;
        Ok(Wire::new(socket, self.counterpart().cloned()))
    }

    async fn socket(&self) -> Result<Box<dyn Socket>> {
        // Pingora's own, so that its errors tell the upstream's trouble from that of this machine.
        let tcp = ext::connect(&self.address, None).await?;
        // A connection without it works, only slower.
        let _ = tcp.set_nodelay(true);
        Ok(match &self.tls {
            Some((tls, counterpart)) => Box::new(
                tls.connect(tcp, &counterpart.server_name, Some(HTTP1))
                    .await?,
            ),
            None => Box::new(tcp),
        })
    }
}

/// HTTP/1.1 as ALPN writes it (RFC 7301 §3.1).
const HTTP1: &[u8] = b"\x08http/1.1";

#[async_trait]
impl Connect for Dial {
    async fn connect(&self, _: &PingoraAddress) -> Result<Stream> {
        let pooled = match self.purpose {
            Purpose::Request => self.pool.take(self.counterpart(), self.began),
            Purpose::RequestOnNew | Purpose::Tunnel => None,
        };
        let mut wire = if let Some(wire) = pooled {
            self.from_pool.store(true, Ordering::Relaxed);
            wire
        } else {
            // Boxed, so that a connection from the pool has no room for a handshake.
            Box::pin(self.open()).await?
        };
        wire.requests = wire.requests.saturating_add(1);
        let pool = Arc::clone(&self.pool);
        let mut lease = Lease::new(wire, pool, self.patience, self.upkeep);
        lease.lines = Some(Arc::clone(&self.lines));
        if self.purpose == Purpose::Tunnel {
            lease.yields = Some(false);
        }
        Ok(VirtualSocketStream::new(Box::new(lease)).into())
    }
}
