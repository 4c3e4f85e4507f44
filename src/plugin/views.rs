//! What a plugin sees of a request, phase by phase. Plain structs, so that tests build them in a
//! line; the connection behind them stays with the proxy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Uri, Version,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    CircuitGuard, Directions, Duplicate, Halt, Mirror, Reply,
    headers::{RequestHeaders, ResponseHeaders},
};
use crate::{
    entity::{
        consumer::{Consumer, ConsumerIndex},
        consumers::Consumers,
        credential::KeyCredential,
        facts::{RouteFacts, ServiceFacts, ServiceIndex},
        message::{Headers, RequestHead, ResponseHead},
        reason::Reason,
    },
    telemetry::requests::RouteSeries,
};

/// Who sent the request, after trusted proxies were looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The forwarded address if the peer is trusted, else the peer's. Never an IPv4-mapped IPv6.
    pub ip: IpAddr,
    /// The socket's other end.
    pub peer: SocketAddr,
}

/// The scheme the client used, as far as a trusted proxy may say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Who the request is, as authentication found out.
#[derive(Debug, Default, Clone)]
pub struct Identity {
    pub consumer: Option<ConsumerIndex>,
    /// The id of the credential, for logs and rate limits. Never the credential.
    pub credential: Option<HeaderValue>,
    pub anonymous: bool,
}

/// Facts that a plugin leaves for the log.
#[derive(Debug, Default, Clone)]
pub struct Notes {
    pub correlation_id: Option<HeaderValue>,
}

/// What is the same for all plugins of the request.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    pub request_id: &'a str,
    pub client: Client,
    pub scheme: Scheme,
    /// The request's host in lower case without port, and the port it was sent to.
    pub host: &'a str,
    pub port: u16,
    pub route: &'a RouteFacts,
    /// The service that the request goes to: that of the route, unless a plugin chose another.
    pub service: Option<&'a ServiceFacts>,
    /// All services, by their places.
    pub services: &'a [Arc<ServiceFacts>],
    pub consumers: &'a Consumers,
    /// Names of arguments whose values nobody may see, see `Plugin::secret_arguments`.
    pub secret_arguments: &'a [String],
    /// How the route's path matched, for captures.
    pub matched: Matched<'a>,
}

/// The part of the path that the route matched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Matched<'a> {
    /// The normalised path of the request, where it is not the path as sent.
    pub normal_path: Option<&'a [u8]>,
    /// The regex that matched it, if the route's path is one.
    pub regex: Option<&'a regex::bytes::Regex>,
}

/// A request in the access phase.
#[derive(Debug)]
pub struct Request<'a> {
    /// The headers as the client sent them, minus what earlier plugins removed.
    pub headers: RequestHeaders<'a>,
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    pub about: Surroundings<'a>,
    pub identity: &'a mut Identity,
    pub notes: &'a mut Notes,
    body: &'a mut dyn RequestBody,
    directions: &'a mut Directions,
}

/// Where a whole request body comes from.
#[async_trait]
pub trait RequestBody: Send + Sync + std::fmt::Debug {
    /// Reads the whole body, at most once; later calls give the same bytes.
    ///
    /// # Errors
    /// A reply: 413 if the body is over the gateway's buffer limit, 408 or 400 if it does not arrive.
    async fn read(&mut self) -> Result<Bytes, Halt>;

    /// Sends `bytes` upstream in place of the client's body.
    fn replace(&mut self, bytes: Bytes);

    /// Waits until the client has gone away; for ever while it stays.
    async fn client_left(&mut self) {
        std::future::pending::<()>().await;
    }
}

impl<'a> Request<'a> {
    /// Puts a view together. The proxy and the test harness do so.
    pub fn new(
        head: &'a mut RequestHead,
        about: Surroundings<'a>,
        identity: &'a mut Identity,
        notes: &'a mut Notes,
        body: &'a mut dyn RequestBody,
        directions: &'a mut Directions,
    ) -> Self {
        Self {
            headers: RequestHeaders(&mut head.headers),
            method: &head.method,
            uri: &head.uri,
            version: head.version,
            about,
            identity,
            notes,
            body,
            directions,
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        self.method
    }

    /// The HTTP version the client speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path as the client sent it, without the query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The path in its normal form, by which routes are found.
    pub fn normal_path(&self) -> &[u8] {
        let normal = self.about.matched.normal_path;
        normal.unwrap_or_else(|| self.uri.path().as_bytes())
    }

    /// The query as the client sent it, without `?`; `None` if there is no `?`.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The consumer that authentication found.
    pub fn consumer(&self) -> Option<&'a Consumer> {
        self.about.consumers.get(self.identity.consumer?)
    }

    /// Whether the request is gRPC.
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.headers.0)
    }

    /// Records who the request is and writes the identity headers for the upstream: sets what is
    /// known and removes the rest, so that a client can never smuggle one in.
    pub fn authenticate(&mut self, credential: &KeyCredential) {
        self.identity.credential = Some(credential.id_header.clone());
        self.identify(credential.consumer, false);
        self.headers
            .set(&names::CREDENTIAL_IDENTIFIER, credential.id_header.clone());
    }

    /// Records that nobody authenticated and that `consumer` stands in.
    pub fn authenticate_anonymous(&mut self, consumer: ConsumerIndex) {
        self.identity.credential = None;
        self.identify(consumer, true);
    }

    /// Takes for granted that `consumer` was authenticated, with whatever credential: what an
    /// explanation does in place of authentication.
    pub fn assume(&mut self, consumer: ConsumerIndex) {
        self.identity.credential = None;
        self.identify(consumer, false);
    }

    fn identify(&mut self, index: ConsumerIndex, anonymous: bool) {
        self.identity.consumer = Some(index);
        self.identity.anonymous = anonymous;
        let Some(consumer) = self.about.consumers.get(index) else {
            return;
        };
        // Rarely there: they were removed as the request came, unless that is switched off.
        for name in names::ALL {
            self.headers.remove(name);
        }
        self.headers
            .add(&names::CONSUMER_ID, consumer.id_header.clone());
        for (name, value) in [
            (&names::CONSUMER_USERNAME, &consumer.username_header),
            (&names::CONSUMER_CUSTOM_ID, &consumer.custom_id_header),
        ] {
            if let Some(value) = value {
                self.headers.add(name, value.clone());
            }
        }
        if anonymous {
            self.headers
                .add(&names::ANONYMOUS_CONSUMER, HeaderValue::from_static("true"));
        }
        if let Some(groups) = self.about.consumers.groups_header(index) {
            self.headers.add(&names::CONSUMER_GROUPS, groups.clone());
        }
    }

    /// Reads the whole request body, however large, up to the gateway's buffer limit.
    ///
    /// # Errors
    /// See [`RequestBody::read`].
    pub async fn body(&mut self) -> Result<Bytes, Halt> {
        self.body.read().await
    }

    /// Sends a copy of the request to `mirror` in the background, once it has gone upstream whole. Nobody waits
    /// for it. `place` is given back when the copy is done with.
    pub fn mirror(&mut self, mirror: Arc<Mirror>, place: OwnedSemaphorePermit) {
        self.directions.copy = Some(Box::new(Duplicate { mirror, place }));
    }

    /// Waits until the client has gone away, for ever while it stays: what a plugin that waits for something
    /// else waits for as well. Gives what to end the request with then.
    pub async fn client_left(&mut self) -> Halt {
        self.body.client_left().await;
        Reply::empty(499, Reason::ClientClosed).into()
    }

    /// Sends `bytes` upstream in place of the client's body. Content-Length follows.
    pub fn replace_body(&mut self, bytes: Bytes) {
        self.body.replace(bytes);
    }

    /// The query that goes upstream: an earlier plugin's, else the client's.
    pub fn forwarded_query(&self) -> Option<&str> {
        self.directions.query.as_deref().or_else(|| self.query())
    }

    /// Sends `query` (without `?`) upstream in place of the client's; empty means none.
    pub fn forward_query(&mut self, query: String) {
        self.directions.query = Some(query);
    }

    /// Sends the request to this service in place of the route's. Its host, path, timeouts, retries and
    /// TLS apply; its plugins do not.
    pub fn send_to(&mut self, service: ServiceIndex) {
        self.directions.service = Some(service);
        self.about.service = self.about.services.get(service.0).map(|facts| &**facts);
    }

    /// Lets the circuits of `guard` decide to which addresses the request may go, and learn from each
    /// try.
    pub fn guard_targets(&mut self, guard: &Arc<CircuitGuard>) {
        self.directions.guard = Some(Arc::clone(guard));
    }
}

/// Whether the header `name` may hold what authenticates a request, where `secret_arguments` are the
/// names under which plugins look for credentials. Its value is shown to nobody.
pub fn is_credential(name: &HeaderName, secret_arguments: &[String]) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name)
        || secret_arguments
            .iter()
            .any(|secret| secret.eq_ignore_ascii_case(name.as_str()))
}

/// Whether a request's content type says gRPC.
pub(crate) fn is_grpc(headers: &Headers) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Who made a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Upstream,
    Gateway,
}

/// A response head on its way to the client.
#[derive(Debug)]
pub struct Response<'a> {
    pub headers: ResponseHeaders<'a>,
    status: u16,
    pub source: Source,
    /// Why the gateway answers by itself; absent if it does not.
    pub reason: Option<Reason>,
}

impl<'a> Response<'a> {
    /// Puts a view together. The proxy and the test harness do so.
    pub fn new(head: &'a mut ResponseHead, source: Source, reason: Option<Reason>) -> Self {
        Self {
            headers: ResponseHeaders(&mut head.headers),
            status: head.status.as_u16(),
            source,
            reason,
        }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// How long the parts of an exchange took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latencies {
    /// From the first byte of the request to the last byte of the response.
    pub total: Duration,
    /// The gateway's own share until the request went upstream or was answered.
    pub gateway: Duration,
    /// From sending to the response head; absent if no upstream was reached.
    pub upstream: Option<Duration>,
}

/// The finished exchange, for logs and metrics.
#[derive(Debug)]
pub struct Record<'a> {
    /// The status sent; 499 if the client went away before there was one.
    pub status: u16,
    pub source: Source,
    /// Why the gateway answered by itself.
    pub reason: Option<Reason>,
    pub latencies: Latencies,
    /// What crossed the client connection: head and body.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub consumer: Option<&'a Consumer>,
    /// The metric series of the route, resolved when the snapshot was compiled.
    pub series: &'a RouteSeries,
}

/// Names of the headers that say who a request is.
pub(crate) mod names {
    use http::HeaderName;

    pub(crate) static CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
    pub(crate) static CONSUMER_CUSTOM_ID: HeaderName =
        HeaderName::from_static("x-consumer-custom-id");
    pub(crate) static CONSUMER_USERNAME: HeaderName =
        HeaderName::from_static("x-consumer-username");
    pub(crate) static CREDENTIAL_IDENTIFIER: HeaderName =
        HeaderName::from_static("x-credential-identifier");
    pub(crate) static ANONYMOUS_CONSUMER: HeaderName =
        HeaderName::from_static("x-anonymous-consumer");
    pub(crate) static CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
    pub(crate) static AUTHENTICATED_GROUPS: HeaderName =
        HeaderName::from_static("x-authenticated-groups");

    pub(crate) static ALL: [&HeaderName; 7] = [
        &CONSUMER_ID,
        &CONSUMER_CUSTOM_ID,
        &CONSUMER_USERNAME,
        &CREDENTIAL_IDENTIFIER,
        &ANONYMOUS_CONSUMER,
        &CONSUMER_GROUPS,
        &AUTHENTICATED_GROUPS,
    ];
}
