//! One client connection: strict heads, deadlines, keep-alive. It stands in front of Pingora, so
//! that what Pingora would answer by itself is answered, counted and logged like everything else.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use http::HeaderValue;
use pingora_core::{
    apps::{HttpServerApp, ReusedHttpStream},
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
    exchange::{Arrived, Connection, Exchange},
    framing,
    head::{Head, HeadReader, Limits, Refusal, bad},
    http2::{self, PREFACE},
    idle::{Idle, Waited},
    listener::{Retired, Serve, Terms},
    parse,
    proxy_protocol::{self, Absent},
    record, reply,
    secure::{self, Beginning, Told},
    stream::ClientStream,
    transport::Transport,
};
use crate::{
    entity::reason::Reason,
    plugin::{Reply, Scheme},
    snapshot::{RealIp, Settings},
    telemetry::connections::{Activity, Connection as Gauge, TurnedAway},
    tls::{Protocol, TlsFacts},
};

/// How long a refused client may go on sending before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is taken.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// How long a client that has just connected may take for its first request when the process wants to
/// end: it connected because somebody listened.
pub(super) const LAST_CALL: Duration = Duration::from_secs(1);

/// Serves client connections.
pub struct Edge {
    proxy: Arc<HttpProxy<Gateway>>,
    gateway: Arc<Gateway>,
    shutdown: ShutdownWatch,
    told: Told,
}

/// Where a connection came in.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub peer: SocketAddr,
    /// The listener's port.
    pub port: u16,
    pub terms: Terms,
    pub retired: Retired,
}

/// What a connection is held to until its next request has come.
struct Bounds {
    is_first: bool,
    /// The client may begin to speak HTTP/2.
    may_be_http2: bool,
    limits: Limits,
    header_timeout: Duration,
    idle_timeout: Duration,
    requests_max: u32,
}

impl Bounds {
    /// Those of now, for the first request of a connection, which may be one of `http2`, or for another.
    fn of(settings: &Settings, is_first: bool, http2: bool) -> Self {
        Self {
            is_first,
            may_be_http2: http2 && is_first,
            limits: Limits {
                line: settings.head_line_bytes_max,
                head: settings.head_bytes_max,
            },
            header_timeout: settings.header_timeout,
            idle_timeout: if is_first {
                settings.header_timeout
            } else {
                settings.keepalive_timeout
            },
            requests_max: settings.keepalive_requests,
        }
    }
}

/// What came next on a connection.
enum Next {
    Head(Head),
    /// The client begins to speak HTTP/2.
    Http2,
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
            told: Told::default(),
        }
    }

    /// Serves one accepted connection until it closes.
    async fn converse(self: Arc<Self>, mut tcp: TcpStream, mut arrival: Arrival, open: Open) {
        let gauge = self.gateway.state.telemetry.connections().accept();
        if arrival.terms.proxy_protocol {
            let Some(peer) = self.introduced(&mut tcp, arrival.peer, &open).await else {
                return;
            };
            arrival.peer = peer;
        }
        let local = tcp.local_addr().ok();
        let local_ip = local.map(|local| local.ip().to_canonical());
        let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
        // Known already, so that nobody asks the kernel again.
        let _ = digest
            .peer_addr
            .set(Some(PingoraAddress::Inet(arrival.peer)));
        let http2 = arrival.terms.dialect.http2;
        let (transport, facts) = if arrival.terms.dialect.tls {
            // Boxed, so that connections without TLS have no room for a handshake.
            let begun = Box::pin(secure::begin(
                &self.gateway,
                tcp,
                &arrival,
                &open,
                &self.told,
            ));
            match begun.await {
                Beginning::Secure(stream, facts) => (Transport::Secure(stream), Some(facts)),
                Beginning::Cleartext(tcp) => {
                    Box::pin(self.refuse_cleartext(tcp, digest, &arrival)).await;
                    return;
                }
                Beginning::Over => return,
            }
        } else {
            (Transport::Plain(tcp), None)
        };
        let connection = Arc::new(connection(&arrival, local_ip, facts));
        let mut stream = Box::new(ClientStream::new(
            transport,
            digest,
            Arc::clone(&connection.wire),
        ));
        if settled_on_http2(&connection) {
            Box::pin(http2::serve(
                self,
                stream,
                connection,
                arrival.retired,
                &open,
                &gauge,
            ))
            .await;
            return;
        }
        // Inside TLS the handshake settled it.
        let http2 = http2 && connection.tls.is_none();
        let mut idle = Idle::new(&open);
        let mut requests = 0;
        loop {
            gauge.enter(Activity::Waiting);
            let bounds = Bounds::of(&self.gateway.live.look().settings, requests == 0, http2);
            let next = self.next_head(&mut stream, &mut idle, &gauge, &bounds);
            let head = match next.await {
                Next::Head(head) => head,
                Next::Http2 => {
                    drop(idle);
                    // A connection of HTTP/1 does not carry what one of HTTP/2 needs.
                    Box::pin(http2::serve(
                        self,
                        stream,
                        connection,
                        arrival.retired,
                        &open,
                        &gauge,
                    ))
                    .await;
                    return;
                }
                Next::Closed => {
                    stream.say_goodbye();
                    return;
                }
                Next::Refused(refusal) => {
                    Box::pin(self.refuse(&mut stream, &connection, refusal)).await;
                    return;
                }
            };
            gauge.enter(Activity::Writing);
            requests += 1;
            self.gateway.state.telemetry.request_received();
            let is_last = arrival.retired.is_set() || requests >= bounds.requests_max;
            let Some(goes_on) = self.exchange(stream, head, &connection, is_last).await else {
                return;
            };
            stream = goes_on;
        }
    }

    /// Reads what the balancer in front says of the client, and gives the address to go by: the
    /// client's if the balancer is trusted and `real_ip_header` asks for it, else the balancer's
    /// own. `None` if the connection is to be closed.
    async fn introduced(
        &self,
        tcp: &mut TcpStream,
        peer: SocketAddr,
        open: &Open,
    ) -> Option<SocketAddr> {
        let timeout = self.gateway.live.look().settings.header_timeout;
        let word = open.asked_to_close();
        tokio::pin!(word);
        word.as_mut().enable();
        if self.gateway.drain.is_draining() {
            return None;
        }
        let said = tokio::select! {
            said = tokio::time::timeout(timeout, proxy_protocol::read(tcp)) => said,
            () = word => return None,
        };
        let announced = match said {
            Ok(Ok(announced)) => announced,
            Ok(Err(Absent::Silent)) => return None,
            Ok(Err(Absent::Malformed(detail))) => {
                self.turn_away(peer, detail);
                return None;
            }
            Ok(Err(Absent::Failed(error))) => {
                debug!(%peer, %error, "connection failed before its PROXY header");
                return None;
            }
            Err(_) => {
                self.turn_away(peer, "the header did not arrive in time");
                return None;
            }
        };
        let snapshot = self.gateway.live.look();
        let is_believed = snapshot.settings.real_ip == RealIp::ProxyProtocol
            && snapshot.settings.trusted.contains(peer.ip());
        Some(announced.filter(|_| is_believed).unwrap_or(peer))
    }

    fn turn_away(&self, peer: SocketAddr, detail: &str) {
        debug!(%peer, detail, "no PROXY header: connection closed");
        self.gateway
            .state
            .telemetry
            .connections()
            .turned_away(TurnedAway::ProxyProtocol);
    }

    /// Hands one request to Pingora. Gives the stream back if the connection goes on.
    async fn exchange(
        &self,
        mut stream: Box<ClientStream>,
        head: Head,
        connection: &Arc<Connection>,
        is_last: bool,
    ) -> Option<Box<ClientStream>> {
        let _ = stream.ahead().split_to(head.leading);
        let bytes = head.bytes - head.leading;
        let begun = match stream.begin(bytes, head.framing, head.tunnel) {
            Ok((bytes, body)) => parse::request(&bytes)
                .map(|head| (head, body))
                .ok_or_else(|| bad("the head is not HTTP")),
            Err(_) => Err(bad("the chunked body is malformed")),
        };
        let (request, body) = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                Box::pin(self.refuse(&mut stream, connection, refusal)).await;
                return None;
            }
        };
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(0));
        if is_last {
            session.set_keepalive_reuses_remaining(Some(0));
        }
        if let ServerSession::H1(http1) = &mut session {
            http1.set_pipelined_prefix(framing::stand_in(&request, &body));
        }
        session.set_connection_user_context(Some(Box::new(Arrived {
            connection: Arc::clone(connection),
            stream: None,
            head: request,
        })));
        let processed = AssertUnwindSafe(self.process(session)).catch_unwind().await;
        if let Ok(reused) = processed {
            let (stream, _) = reused?.consume();
            stream.into_any().downcast::<ClientStream>().ok()
        } else {
            self.gateway.state.telemetry.panicked();
            None
        }
    }

    /// Takes a request through all steps.
    pub(super) async fn process(&self, session: ServerSession) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, &self.shutdown).await
    }

    /// What the connections are served with.
    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Waits for the next head within the deadlines of an idle connection and of a begun head.
    async fn next_head(
        &self,
        stream: &mut ClientStream,
        idle: &mut Idle<'_>,
        gauge: &Gauge,
        bounds: &Bounds,
    ) -> Next {
        let mut reader = HeadReader::default();
        let mut deadline: Option<Instant> = None;
        let mut last_call: Option<Instant> = None;
        loop {
            let may_be_preface =
                bounds.may_be_http2 && PREFACE.starts_with(first_of(stream.ahead(), PREFACE.len()));
            if may_be_preface && stream.ahead().len() >= PREFACE.len() {
                return Next::Http2;
            }
            if !stream.ahead().is_empty() && !may_be_preface {
                match reader.read(stream.ahead(), bounds.limits) {
                    Ok(Some(head)) => return Next::Head(head),
                    Ok(None) => {}
                    Err(refusal) => return Next::Refused(refusal),
                }
            }
            let begun = reader.has_begun(stream.ahead());
            // The deadline of a head counts from its first byte and no further byte moves it.
            if begun && deadline.is_none() {
                deadline = Some(Instant::now() + bounds.header_timeout);
                gauge.enter(Activity::Reading);
            }
            if !begun && self.gateway.drain.is_draining() {
                if !bounds.is_first {
                    return Next::Closed;
                }
                last_call.get_or_insert_with(|| Instant::now() + LAST_CALL);
            }
            let until = deadline
                .or(last_call)
                .unwrap_or_else(|| Instant::now() + bounds.idle_timeout);
            let closes = !begun && last_call.is_none();
            let read = match idle.wait(stream, until, closes).await {
                Waited::Read(read) => read,
                Waited::Asked if bounds.is_first && self.gateway.drain.is_draining() => continue,
                Waited::Late if begun => return Next::Refused(too_slow()),
                Waited::Late | Waited::Asked => return Next::Closed,
            };
            match read {
                Ok(0) | Err(_) => return Next::Closed,
                Ok(_) => {}
            }
        }
    }

    /// The exchange of what never became a request.
    pub(super) fn stranger(&self, connection: &Arc<Connection>, refusal: Refusal) -> Exchange {
        debug!(client_ip = %connection.ip, detail = refusal.detail, "request refused");
        let mut exchange = self.gateway.exchange();
        exchange.connection = Some(Arc::clone(connection));
        exchange.client.peer = connection.peer;
        exchange.client.ip = connection.ip;
        exchange
    }

    /// Answers HTTP without TLS on a TLS port, which a browser's user can only understand in the clear.
    async fn refuse_cleartext(&self, tcp: TcpStream, digest: SocketDigest, arrival: &Arrival) {
        let connection = Arc::new(connection(arrival, None, None));
        let wire = Arc::clone(&connection.wire);
        let mut stream = ClientStream::new(Transport::Plain(tcp), digest, wire);
        let refusal = Refusal {
            status: 400,
            reason: Reason::HttpsRequired,
            detail: "HTTP without TLS came to a TLS port",
        };
        self.refuse(&mut stream, &connection, refusal).await;
    }

    /// Answers what never became a request, and closes without cutting the answer off.
    async fn refuse(
        &self,
        stream: &mut ClientStream,
        connection: &Arc<Connection>,
        refusal: Refusal,
    ) {
        let mut exchange = self.stranger(connection, refusal);
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

/// The first `count` of `bytes`, or all of them.
fn first_of(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(..count).unwrap_or(bytes)
}

/// Whether the TLS handshake settled on HTTP/2.
fn settled_on_http2(connection: &Connection) -> bool {
    let facts = connection.tls.as_ref();
    facts.is_some_and(|facts| facts.protocol == Protocol::Http2)
}

/// What is known of a connection before its first request.
fn connection(
    arrival: &Arrival,
    local_ip: Option<IpAddr>,
    tls: Option<Box<TlsFacts>>,
) -> Connection {
    let ip = arrival.peer.ip().to_canonical();
    Connection {
        peer: arrival.peer,
        ip,
        local_ip,
        ip_header: HeaderValue::from_str(&ip.to_string()).expect("an address is visible ASCII"),
        port: arrival.port,
        port_header: arrival.port.into(),
        scheme: if tls.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        },
        tls,
        wire: Arc::default(),
    }
}

impl Serve for Edge {
    fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        arrival: Arrival,
        open: Open,
    ) -> impl Future<Output = ()> + Send {
        self.converse(tcp, arrival, open)
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
