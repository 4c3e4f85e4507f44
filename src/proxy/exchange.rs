//! All we know about one request and its response, and about the connection they came on.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use smallvec::SmallVec;

use super::{http2::Stream, lease::Dial, mirror::PendingCopy, retry, stream::Wire};
use crate::{
    chain::Run,
    entity::{consumer::Consumer, message::RequestHead, reason::Reason},
    plugin::{Client, Directions, Identity, Notes, Reply, Scheme, Source},
    router::PatternId,
    snapshot::{ChainIndex, Retry, Route, RouteIndex, Service, Snapshot},
    state::{circuits::Permit, identifiers::RequestId},
    telemetry::requests::RouteSeries,
    tls::TlsFacts,
    upstream::{Hold, Key, Member, search::Search},
};

/// What is known of a client connection before its first request. Made once, shared by its
/// requests.
#[derive(Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    /// The peer's address, never IPv4-mapped.
    pub ip: IpAddr,
    /// The address that the client connected to, if the system told it; never IPv4-mapped.
    pub local_ip: Option<IpAddr>,
    /// The peer's address as text, for forwarding headers.
    pub ip_header: HeaderValue,
    /// The listener's port, and the same as text.
    pub port: u16,
    pub port_header: HeaderValue,
    pub scheme: Scheme,
    /// What the TLS handshake told; absent on cleartext.
    pub tls: Option<Box<TlsFacts>>,
    pub wire: Arc<Wire>,
}

/// A request as it came, on its way through Pingora to its exchange.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) connection: Arc<Connection>,
    /// Absent for HTTP/1.
    pub(super) stream: Option<Arc<Stream>>,
    pub(super) head: RequestHead,
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    pub snapshot: Arc<Snapshot>,
    /// Absent only until the connection wrapper has handed it over.
    pub connection: Option<Arc<Connection>>,
    /// The HTTP/2 stream that it came on; absent for HTTP/1.
    pub(super) stream: Option<Arc<Stream>>,
    pub id: RequestId,
    pub began: Instant,
    /// As the client sent it, without what it may not say, and with what plugins changed.
    pub head: RequestHead,
    pub client: Client,
    /// Whether the peer's forwarding headers are believed.
    pub trusted: bool,
    pub scheme: Scheme,
    /// The request's host in lower case without port, and the port it was sent to.
    pub host: Host,
    pub port: u16,
    /// The normalised path where it is not the path as sent.
    pub normal_path: Option<Vec<u8>>,
    pub route: Option<RouteIndex>,
    /// How many bytes of the normalised path the route matched; absent if it has no paths.
    pub matched: Option<usize>,
    /// The regex that matched it, where the route's path is one.
    pub pattern: Option<PatternId>,
    pub identity: Identity,
    pub notes: Notes,
    pub run: Run,
    pub forward: Forward,
    pub outcome: Outcome,
    /// The client asked for the names of route and service, and may.
    pub debug_wanted: bool,
}

/// The host of a request. Most are short enough to need no allocation.
pub(super) type Host = SmallVec<[u8; 64]>;

/// The way of a request upstream.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that another step asks for"
)]
pub struct Forward {
    /// What plugins decided of it.
    pub directions: Directions,
    /// Bytes of the body that went by, where a limit is set.
    pub body_bytes: u64,
    /// What of the request decides its target.
    pub key: Key,
    /// A cookie that the client gets so that the key stays.
    pub cookie: Option<HeaderValue>,
    pub search: Search,
    pub tries: u32,
    /// Where the last try went.
    pub member: Option<Arc<Member>>,
    /// The connection of the last try; absent where Pingora makes it, which is for HTTP/2.
    pub(super) dial: Option<Arc<Dial>>,
    pub tunnel: bool,
    /// The copy of it that waits for its body.
    pub(super) copy: Option<Box<PendingCopy>>,
    /// The client was told to send the body that it holds back.
    pub continued: bool,
    /// It was counted and has its deadline.
    pub is_begun: bool,
    /// By when the response must have begun, over all tries.
    pub deadline: Option<Instant>,
    /// A try on a pooled connection that turned out to be closed was repeated already.
    pub is_stale_repeated: bool,
    /// The next try must not take a connection from the pool.
    pub needs_new_connection: bool,
    /// How long the next try waits.
    pub pause: Duration,
    /// When the current try began.
    pub try_began: Option<Instant>,
    pub failed_tries: Vec<FailedTry>,
    /// What the circuit of the current address gave.
    pub permit: Option<Permit>,
    /// Counts the request for the member of the current try.
    pub hold: Option<Hold>,
    /// When the request was sent, and when the response head came.
    pub sent_at: Option<Instant>,
    pub answered_at: Option<Instant>,
}

/// A try that failed.
#[derive(Debug, Clone, Copy)]
pub struct FailedTry {
    pub address: SocketAddr,
    pub outcome: TryOutcome,
    pub took: Duration,
}

/// What a try came to that was not the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryOutcome {
    /// There was no response, for this reason.
    Failed(Reason),
    /// The connection from the pool was closed.
    Stale,
    /// The response was one to try again for.
    Status(u16),
}

/// How the exchange ended.
#[derive(Debug)]
pub struct Outcome {
    /// The status sent to the client; 0 before there is one.
    pub status: u16,
    pub source: Source,
    pub reason: Option<Reason>,
    /// An answer that was decided where none can be written.
    pub failure: Option<Box<Reply>>,
}

impl Exchange {
    /// An exchange of which nothing is known yet.
    pub fn new(snapshot: Arc<Snapshot>, id: RequestId, began: Instant) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            snapshot,
            connection: None,
            stream: None,
            id,
            began,
            head: RequestHead::default(),
            client: Client {
                ip: nowhere.ip(),
                peer: nowhere,
            },
            trusted: false,
            scheme: Scheme::Http,
            host: Host::new(),
            port: 0,
            normal_path: None,
            route: None,
            matched: None,
            pattern: None,
            identity: Identity::default(),
            notes: Notes::default(),
            run: Run::default(),
            forward: Forward::default(),
            outcome: Outcome {
                status: 0,
                source: Source::Gateway,
                reason: None,
                failure: None,
            },
            debug_wanted: false,
        }
    }

    /// Takes over the request as it came.
    pub(super) fn take_in(&mut self, arrived: Arrived) {
        self.connection = Some(arrived.connection);
        self.stream = arrived.stream;
        self.head = arrived.head;
    }

    /// Bytes received from the client and sent to it so far, heads included.
    pub(super) fn bytes(&self) -> (u64, u64) {
        match (&self.stream, &self.connection) {
            (Some(stream), _) => stream.bytes(),
            (None, Some(connection)) => connection.wire.of_request(),
            (None, None) => (0, 0),
        }
    }

    /// The route, once it is found.
    pub fn route(&self) -> Option<&Route> {
        self.snapshot.routes.get(self.route?)
    }

    /// The service that the request goes to: that of the route, unless a plugin chose another.
    pub fn service(&self) -> Option<&Service> {
        let chosen = self.forward.directions.service;
        self.snapshot.service(self.route()?, chosen)
    }

    /// How tries are repeated.
    pub fn retry(&self) -> Option<&Retry> {
        Some(retry::policy(self.route()?, self.service()?))
    }

    /// The consumer that authentication found.
    pub fn consumer(&self) -> Option<&Consumer> {
        self.snapshot.consumers.get(self.identity.consumer?)
    }

    /// The chain of the route, or that of requests without one.
    pub fn chain(&self) -> ChainIndex {
        self.route().map_or(self.snapshot.unrouted, |route| {
            route.chains[usize::from(self.scheme == Scheme::Https)]
        })
    }

    /// The metric series of the route and the service, or those of requests without a route.
    pub fn series(&self) -> &Arc<RouteSeries> {
        self.route()
            .map_or(&self.snapshot.unrouted_series, |route| {
                route.series_of(self.forward.directions.service)
            })
    }

    /// The host as text.
    pub fn host(&self) -> &str {
        std::str::from_utf8(&self.host).unwrap_or_default()
    }
}
