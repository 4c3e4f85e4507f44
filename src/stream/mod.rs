//! Streams: connections of which the gateway reads nothing but, over TLS, the name of a server. A
//! route takes one by where it comes from, where it arrives and that name; then bytes go both ways
//! until both sides are done.

mod connect;
mod relay;

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tracing::debug;

use self::relay::Traffic;
use crate::{
    proxy::{Gateway, access_log::StreamEntry, connection::Arrival, drain::Open, listener::Serve},
    router::streams::{Arrived, Way},
    snapshot::{Service, Snapshot},
    telemetry::{
        connections::{Activity, Connection as Gauge},
        handshakes::HandshakeFailure,
        streams::{Ending, StreamSeries},
    },
    tls::{self, Greeted, Offer, Opened},
};

/// Serves the connections of stream listeners.
#[derive(Debug, Clone)]
pub struct StreamEdge {
    gateway: Gateway,
}

/// What is known of one stream.
#[derive(Debug)]
struct Stream {
    began: std::time::Instant,
    peer: SocketAddr,
    /// Where it arrived.
    local: SocketAddr,
    tls: bool,
    server_name: Option<Box<str>>,
    service: Option<Arc<str>>,
    route: Option<Arc<str>>,
    series: Arc<StreamSeries>,
    backend: Option<SocketAddr>,
    tries: u32,
    traffic: Arc<Traffic>,
}

/// What a stream needs of the configuration once it has found its route. The rest of a snapshot is
/// not kept: a stream may outlive many.
#[derive(Debug)]
struct Taken {
    snapshot: Arc<Snapshot>,
    route: usize,
    way: Way,
}

impl StreamEdge {
    /// An edge of `gateway`.
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway }
    }

    async fn converse(&self, tcp: TcpStream, arrival: Arrival, open: Open) {
        let gauge = self.gateway.state.telemetry.connections().accept();
        let tls = arrival.terms.dialect.tls;
        let mut stream = Stream {
            began: self.gateway.state.clock.instant(),
            peer: arrival.peer,
            local: tcp.local_addr().unwrap_or(arrival.peer),
            tls,
            server_name: None,
            service: None,
            route: None,
            series: Arc::clone(&self.gateway.live.look().streams.unrouted_series),
            backend: None,
            tries: 0,
            traffic: Arc::default(),
        };
        gauge.enter(Activity::Reading);
        let ending = if tls {
            self.serve_tls(tcp, &mut stream, &gauge, &open).await
        } else {
            match self.take(&mut stream) {
                Ok(taken) => self.forward(tcp, taken, &mut stream, &gauge).await,
                Err(ending) => ending,
            }
        };
        self.record(&stream, ending);
    }

    /// Reads the name that the client asks for, and ends its TLS if the route wants that.
    async fn serve_tls(
        &self,
        mut tcp: TcpStream,
        stream: &mut Stream,
        gauge: &Gauge,
        open: &Open,
    ) -> Ending {
        let timeout = self.gateway.live.look().settings.header_timeout;
        let deadline = Instant::now() + timeout;
        let word = open.asked_to_close();
        tokio::pin!(word);
        word.as_mut().enable();
        if self.gateway.drain.is_draining() {
            return Ending::Handshake;
        }
        let greeted = tokio::select! {
            greeted = tokio::time::timeout_at(deadline, tls::greet(&mut tcp)) => greeted,
            () = word => return Ending::Handshake,
        };
        let handshakes = self.gateway.state.telemetry.handshakes();
        let failed = |failure| {
            handshakes.failed(failure);
            Ending::Handshake
        };
        let greeting = match greeted {
            Ok(Greeted::Hello(greeting)) => greeting,
            Ok(Greeted::Cleartext) => return failed(HandshakeFailure::Cleartext),
            Ok(Greeted::Failed(why)) => return failed(why.failure),
            Err(_) => return failed(HandshakeFailure::Timeout),
        };
        stream.server_name = greeting.server_name().map(Box::from);
        let taken = match self.take(stream) {
            Ok(taken) => taken,
            Err(ending) => return ending,
        };
        if taken.way == Way::Passthrough {
            return self
                .forward(greeting.replay(tcp), taken, stream, gauge)
                .await;
        }
        let certificates = &taken.snapshot.certificates;
        let chosen = certificates.choose(greeting.server_name()).cloned();
        let answer = tls::answer(tcp, greeting, Offer::Opaque, chosen);
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Opened::Secure(secure, facts)) => {
                handshakes.succeeded(facts.resumed);
                self.forward(*secure, taken, stream, gauge).await
            }
            Ok(Opened::Cleartext(_)) => failed(HandshakeFailure::Cleartext),
            Ok(Opened::Failed(why)) => failed(why.failure),
            Err(_) => failed(HandshakeFailure::Timeout),
        }
    }

    /// Finds the route of a stream.
    fn take(&self, stream: &mut Stream) -> Result<Taken, Ending> {
        let snapshot = self.gateway.live.take();
        let arrived = Arrived {
            source: stream.peer,
            destination: stream.local,
            tls: stream.tls,
            server_name: stream.server_name.as_deref(),
        };
        let (index, way) = snapshot
            .streams
            .router
            .find(&arrived)
            .ok_or(Ending::NoRoute)?;
        let route = snapshot.streams.routes.get(index).ok_or(Ending::NoRoute)?;
        stream.route = Some(Arc::clone(&route.label));
        stream.series = Arc::clone(&route.series);
        let service = route
            .service
            .and_then(|service| snapshot.services.get(service))
            .ok_or(Ending::NoService)?;
        stream.service = Some(service.facts.label.as_str().into());
        Ok(Taken {
            route: index,
            way,
            snapshot,
        })
    }

    /// Connects to a target of the route and lets the bytes through.
    async fn forward(
        &self,
        client: impl AsyncRead + AsyncWrite + Unpin + Send,
        taken: Taken,
        stream: &mut Stream,
        gauge: &Gauge,
    ) -> Ending {
        gauge.enter(Activity::Writing);
        let _open = stream.series.begin();
        let Some(service) = taken.service() else {
            return Ending::NoService;
        };
        let idle = service.timeouts.read.max(service.timeouts.write);
        let connected = connect::connect(service, &self.gateway.state.clock, stream).await;
        let upstream = match connected {
            Ok(upstream) => upstream,
            Err(ending) => return ending,
        };
        drop(taken);
        let (_hold, upstream) = upstream;
        relay::relay(client, upstream, idle, &stream.traffic).await
    }

    fn record(&self, stream: &Stream, ending: Ending) {
        let (received, sent) = stream.traffic.bytes();
        stream.series.ended(ending, received, sent);
        debug!(
            peer = %stream.peer,
            route = stream.route.as_deref(),
            ending = ending.code(),
            "stream"
        );
        let snapshot = self.gateway.live.look();
        let Some(log) = &snapshot.settings.access_log else {
            return;
        };
        self.gateway.access_log.push_stream(StreamEntry {
            format: log.format,
            began: stream.began,
            took: self.gateway.state.clock.instant() - stream.began,
            tls: stream.tls,
            client_ip: stream.peer.ip().to_canonical(),
            local: stream.local,
            server_name: stream.server_name.clone(),
            route: stream.route.clone(),
            service: stream.service.clone(),
            backend: stream.backend,
            tries: stream.tries,
            ending,
            received_bytes: received,
            sent_bytes: sent,
        });
    }
}

impl Serve for StreamEdge {
    async fn serve(self: Arc<Self>, tcp: TcpStream, arrival: Arrival, open: Open) {
        self.converse(tcp, arrival, open).await;
    }
}

impl Taken {
    fn service(&self) -> Option<&Service> {
        let route = self.snapshot.streams.routes.get(self.route)?;
        self.snapshot.services.get(route.service?)
    }
}
