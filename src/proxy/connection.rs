//! One client connection: strict heads, deadlines, keep-alive. It stands in front of Pingora, so
//! that what Pingora would answer by itself is answered, counted and logged like everything else.

use std::{net::SocketAddr, os::fd::AsRawFd, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::HeaderValue;
use pingora_core::{
    apps::HttpServerApp,
    protocols::{SocketDigest, http::ServerSession, l4::socket::SocketAddr as PingoraAddress},
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tracing::debug;

use super::{
    Gateway,
    drain::Open,
    exchange::Connection,
    head::{Head, HeadReader, Limits, Refusal},
    idle::{Idle, Waited},
    record, reply,
    stream::{ClientStream, Wire},
};
use crate::{
    entity::reason::Reason,
    plugin::{Reply, Scheme},
    telemetry::connections::{Activity, Connection as Gauge},
};

/// How long a refused client may go on sending before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is taken.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Serves client connections.
pub struct Edge {
    proxy: Arc<HttpProxy<Gateway>>,
    gateway: Arc<Gateway>,
    shutdown: ShutdownWatch,
}

/// What came next on a connection.
enum Next {
    Head(Head),
    Closed,
    Refused(Refusal),
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    /// An edge in front of `gateway`. `shutdown` turns true when connections should not be kept.
    pub fn new(proxy: Arc<HttpProxy<Gateway>>, gateway: Gateway, shutdown: ShutdownWatch) -> Self {
        Self {
            proxy,
            gateway: Arc::new(gateway),
            shutdown,
        }
    }

    /// Serves one accepted connection until it closes.
    pub async fn serve(&self, tcp: TcpStream, peer: SocketAddr, port: u16, open: Open) {
        let gauge = self.gateway.state.telemetry.connections().accept();
        let wire = Arc::new(Wire::default());
        let ip = peer.ip().to_canonical();
        let connection = Arc::new(Connection {
            peer,
            ip,
            local_ip: tcp.local_addr().ok().map(|local| local.ip().to_canonical()),
            ip_header: HeaderValue::from_str(&ip.to_string()).expect("an address is visible ASCII"),
            port,
            port_header: port.into(),
            scheme: Scheme::Http,
            wire: Arc::clone(&wire),
        });
        let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
        // Known already, so that nobody asks the kernel again.
        let _ = digest.peer_addr.set(Some(PingoraAddress::Inet(peer)));
        let mut stream = Box::new(ClientStream::new(tcp, digest, wire));
        let mut idle = Idle::new(&open);
        let mut requests = 0;
        loop {
            gauge.enter(Activity::Waiting);
            let head = match self
                .next_head(&mut stream, &mut idle, &gauge, requests == 0)
                .await
            {
                Next::Head(head) => head,
                Next::Closed => return,
                Next::Refused(refusal) => {
                    Box::pin(self.refuse(&mut stream, &connection, refusal)).await;
                    return;
                }
            };
            gauge.enter(Activity::Writing);
            requests += 1;
            self.gateway.state.telemetry.request_received();
            let Some(next) = self.exchange(stream, head, &connection, requests).await else {
                return;
            };
            stream = next;
        }
    }

    /// Hands one request to Pingora. Gives the stream back if the connection goes on.
    async fn exchange(
        &self,
        mut stream: Box<ClientStream>,
        head: Head,
        connection: &Arc<Connection>,
        requests: u32,
    ) -> Option<Box<ClientStream>> {
        let _ = stream.ahead().split_to(head.leading);
        let bytes = head.bytes - head.leading;
        let Ok(request) = stream.begin(bytes, head.framing, head.tunnel) else {
            let refusal = Refusal {
                status: 400,
                reason: Reason::BadRequest,
                detail: "the chunked body is malformed",
            };
            Box::pin(self.refuse(&mut stream, connection, refusal)).await;
            return None;
        };
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(0));
        if requests >= self.gateway.live.look().settings.keepalive_requests {
            session.set_keepalive_reuses_remaining(Some(0));
        }
        session.set_connection_user_context(Some(Box::new(Arc::clone(connection))));
        if let ServerSession::H1(http1) = &mut session {
            http1.set_pipelined_prefix(request);
        }
        let processed = AssertUnwindSafe(self.proxy.process_new_http(session, &self.shutdown))
            .catch_unwind()
            .await;
        if let Ok(reused) = processed {
            let (stream, _) = reused?.consume();
            stream.into_any().downcast::<ClientStream>().ok()
        } else {
            self.gateway.state.telemetry.panicked();
            None
        }
    }

    /// Waits for the next head within the deadlines of an idle connection and of a begun head.
    async fn next_head(
        &self,
        stream: &mut ClientStream,
        idle: &mut Idle<'_>,
        gauge: &Gauge,
        first: bool,
    ) -> Next {
        let (limits, header_timeout, idle_timeout) = {
            let snapshot = self.gateway.live.look();
            let settings = &snapshot.settings;
            (
                Limits {
                    line: settings.head_line_bytes_max,
                    head: settings.head_bytes_max,
                },
                settings.header_timeout,
                if first {
                    settings.header_timeout
                } else {
                    settings.keepalive_timeout
                },
            )
        };
        let mut reader = HeadReader::default();
        let mut deadline: Option<Instant> = None;
        loop {
            if !stream.ahead().is_empty() {
                match reader.read(stream.ahead(), limits) {
                    Ok(Some(head)) => return Next::Head(head),
                    Ok(None) => {}
                    Err(refusal) => return Next::Refused(refusal),
                }
            }
            let begun = reader.has_begun(stream.ahead());
            // The deadline of a head counts from its first byte and no further byte moves it.
            if begun && deadline.is_none() {
                deadline = Some(Instant::now() + header_timeout);
                gauge.enter(Activity::Reading);
            }
            if !begun && self.gateway.drain.is_draining() {
                return Next::Closed;
            }
            let until = deadline.unwrap_or_else(|| Instant::now() + idle_timeout);
            let read = match idle.wait(stream, until, !begun).await {
                Waited::Read(read) => read,
                Waited::Late if begun => return Next::Refused(too_slow()),
                Waited::Late | Waited::Asked => return Next::Closed,
            };
            match read {
                Ok(0) | Err(_) => return Next::Closed,
                Ok(_) => {}
            }
        }
    }

    /// Answers what never became a request, and closes without cutting the answer off.
    async fn refuse(
        &self,
        stream: &mut ClientStream,
        connection: &Arc<Connection>,
        refusal: Refusal,
    ) {
        debug!(client_ip = %connection.ip, detail = refusal.detail, "request refused");
        let mut exchange = self.gateway.exchange();
        exchange.connection = Some(Arc::clone(connection));
        exchange.client.peer = connection.peer;
        exchange.client.ip = connection.ip;
        let state = &self.gateway.state;
        let message = Reply::message(refusal.status, refusal.reason, refusal.message());
        let bytes = reply::raw(&mut exchange, message, state);
        let sent = tokio::time::timeout(LINGER, async {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            AsyncWriteExt::shutdown(stream).await
        })
        .await;
        record::record(None, None, &mut exchange, &self.gateway);
        if matches!(sent, Ok(Ok(()))) {
            linger(stream).await;
        }
    }
}

/// Takes what a refused client still sends, for a while: a connection closed with unread bytes
/// is reset, and the reset would overtake the answer.
async fn linger(stream: &mut ClientStream) {
    let drained = async {
        stream.abandon();
        let mut space = vec![0; 4096];
        let mut taken = 0;
        while let Ok(count) = stream.read(&mut space).await {
            taken += count;
            if count == 0 || taken > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    // Whoever still sends after that is cut off.
    let _ = tokio::time::timeout(LINGER, drained).await;
}

fn too_slow() -> Refusal {
    Refusal {
        status: 408,
        reason: Reason::RequestTimeout,
        detail: "the request head did not arrive in time",
    }
}
