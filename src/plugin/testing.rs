//! The harness for plugin tests: a visit to one plugin through the real configuration and views,
//! with a manual clock and no socket.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::{
    Client, ConfigError, Destination, Destinations, Directions, Env, Halt, Identity, Latencies,
    Matched, Metrics, Notes, Plugin, Record, Reply, Request, RequestBody, Response, Scheme, Scope,
    Source, Surroundings,
};
use crate::{
    entity::{
        consumer::Consumer,
        consumers::Consumers,
        credential::KeyCredential,
        facts::{RouteFacts, ServiceFacts},
        message::{RequestHead, ResponseHead},
        reason::Reason,
    },
    state::{State, clock::Clock},
    telemetry::requests::RouteSeries,
};

/// When the manual clock of a test stands: 2025-01-31T12:00:00Z.
pub(crate) const NOON: i64 = 1_738_324_800_000;

/// The names of the services besides that of a visit's route.
const SERVICES: [&str; 3] = ["v1", "v2", "v3"];

/// The process around the plugins of one test.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) consumers: Arc<Consumers>,
    pub(crate) destinations: Destinations,
    services: Vec<Arc<ServiceFacts>>,
}

impl World {
    /// A world with a manual clock at [`NOON`] and the consumers `bob` (key `bob-key`, expired key
    /// `bob-old-key`) and `guest` (no key).
    pub(crate) fn new() -> Self {
        let mut consumers = Consumers::default();
        let bob = consumers.add(Consumer::new(
            Uuid::from_u128(0xb0b),
            Some("bob".into()),
            Some("bob-42".into()),
            vec![],
        ));
        consumers.add_key(
            "bob-key",
            KeyCredential::new(Uuid::from_u128(0xce), bob, None),
        );
        consumers.add_key(
            "bob-old-key",
            KeyCredential::new(Uuid::from_u128(0xcf), bob, Some(NOON / 1000)),
        );
        consumers.add(Consumer::new(
            Uuid::from_u128(0x90e5),
            Some("guest".into()),
            None,
            vec![],
        ));
        let state = State {
            clock: Clock::manual(NOON),
            ..State::new()
        };
        Self {
            state,
            consumers: Arc::new(consumers),
            destinations: Destinations::new(SERVICES.iter().zip(1..).map(|(name, id)| {
                Destination {
                    id: Uuid::from_u128(id),
                    name: Some((*name).to_owned()),
                    obstacle: None,
                    is_grpc: false,
                }
            })),
            services: SERVICES
                .iter()
                .zip(1..)
                .map(|(name, id)| Arc::new(service_facts(id, name)))
                .collect(),
        }
    }

    /// Configures a plugin from YAML, as an operator writes its `config:` block.
    pub(crate) fn configure<P: Plugin>(&self, yaml: &str) -> Result<P, ConfigError> {
        let config =
            serde_yaml::from_str(yaml).map_err(|error| ConfigError::at("", error.to_string()))?;
        let metrics =
            Arc::new(P::Metrics::register(&prometheus::Registry::new()).expect("metrics register"));
        P::configure(
            config,
            &Env {
                id: Uuid::from_u128(0x1d),
                scope: Scope::default(),
                state: &self.state,
                consumers: &self.consumers,
                keys: &Arc::default(),
                destinations: &self.destinations,
                own_services: &[],
                metrics: &metrics,
                body_bytes_max: 1 << 20,
            },
        )
    }

    /// Like [`Self::configure`], for a configuration that is right.
    pub(crate) fn configured<P: Plugin>(&self, yaml: &str) -> P {
        self.configure(yaml).expect("the configuration is right")
    }
}

/// A request body held in memory.
#[derive(Debug, Default)]
struct MemoryBody {
    bytes: Bytes,
    replaced: bool,
    client_left: bool,
}

#[async_trait]
impl RequestBody for MemoryBody {
    async fn read(&mut self) -> Result<Bytes, Halt> {
        Ok(self.bytes.clone())
    }

    fn replace(&mut self, bytes: Bytes) {
        self.bytes = bytes;
        self.replaced = true;
    }

    async fn client_left(&mut self) {
        if !self.client_left {
            std::future::pending::<()>().await;
        }
    }
}

/// One request's visit to one plugin.
#[derive(Debug)]
pub(crate) struct Visit<'w, P: Plugin> {
    world: &'w World,
    memo: P::Memo,
    request: RequestHead,
    body: MemoryBody,
    response: ResponseHead,
    pub(crate) identity: Identity,
    pub(crate) notes: Notes,
    pub(crate) secret_arguments: Vec<String>,
    pub(crate) directions: Directions,
    route: RouteFacts,
    service: ServiceFacts,
    client: Client,
}

impl<'w, P: Plugin> Visit<'w, P> {
    /// A request of `method` for `target` (path and query).
    pub(crate) fn new(world: &'w World, method: &str, target: &str) -> Self {
        let (request, ()) = http::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "api.test")
            .body(())
            .expect("a request builds")
            .into_parts();
        let peer: SocketAddr = "192.0.2.7:40000".parse().expect("an address");
        Self {
            world,
            memo: P::Memo::default(),
            request: request.into(),
            body: MemoryBody::default(),
            response: response_head(200),
            identity: Identity::default(),
            notes: Notes::default(),
            secret_arguments: Vec::new(),
            directions: Directions::default(),
            route: RouteFacts {
                id: Uuid::from_u128(0xa),
                name: Some("orders-route".into()),
                label: "orders-route".into(),
                paths: vec!["/orders".into()],
                methods: vec![],
                hosts: vec![],
                tags: vec![],
            },
            service: service_facts(0xb, "orders"),
            client: Client {
                ip: peer.ip(),
                peer,
            },
        }
    }

    pub(crate) fn get(world: &'w World, target: &str) -> Self {
        Self::new(world, "GET", target)
    }

    /// Adds one header line.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let name = header_name(name);
        self.request
            .headers
            .append(name, value.parse().expect("a header is valid"));
        self
    }

    pub(crate) fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body.bytes = bytes.into();
        self
    }

    /// The client goes away as soon as somebody asks.
    pub(crate) fn whose_client_left(mut self) -> Self {
        self.body.client_left = true;
        self
    }

    pub(crate) fn client_ip(mut self, ip: &str) -> Self {
        self.client.ip = ip.parse().expect("an address");
        self
    }

    /// Runs the access phase.
    pub(crate) async fn admit(&mut self, plugin: &P) -> Result<(), Halt> {
        let mut request = Request::new(
            &mut self.request,
            Surroundings {
                request_id: "0123456789abcdef0123456789abcdef",
                client: self.client,
                scheme: Scheme::Http,
                host: "api.test",
                port: 8000,
                route: &self.route,
                service: Some(&self.service),
                services: &self.world.services,
                consumers: &self.world.consumers,
                secret_arguments: &self.secret_arguments,
                matched: Matched::default(),
            },
            &mut self.identity,
            &mut self.notes,
            &mut self.body,
            &mut self.directions,
        );
        plugin.access(&mut self.memo, &mut request).await
    }

    /// Runs the access phase of a plugin that is to answer, and gives its answer.
    pub(crate) async fn refused(&mut self, plugin: &P) -> Reply {
        match self.admit(plugin).await {
            Err(Halt::Reply(reply)) => *reply,
            other => panic!("expected a reply, got {other:?}"),
        }
    }

    /// Runs the response phase on a response of `status` with `headers`.
    pub(crate) fn deliver(&mut self, plugin: &P, status: u16, headers: &[(&'static str, &str)]) {
        self.response = response_head(status);
        for (name, value) in headers {
            let name = header_name(name);
            self.response
                .headers
                .append(name, value.parse().expect("a header is valid"));
        }
        plugin.response(
            &mut self.memo,
            &mut Response::new(&mut self.response, Source::Upstream, None),
        );
    }

    /// Runs the log phase after a response of `status`.
    pub(crate) fn log(
        &mut self,
        plugin: &P,
        status: u16,
        reason: Option<Reason>,
        series: &RouteSeries,
    ) {
        plugin.log(
            &mut self.memo,
            &Record {
                status,
                source: if reason.is_some() {
                    Source::Gateway
                } else {
                    Source::Upstream
                },
                reason,
                latencies: Latencies::default(),
                received_bytes: 100,
                sent_bytes: 200,
                consumer: self
                    .identity
                    .consumer
                    .and_then(|index| self.world.consumers.get(index)),
                series,
            },
        );
    }

    /// The value of a header that goes upstream, empty if there is none.
    pub(crate) fn seen_by_origin(&self, name: &str) -> &str {
        text(self.request.headers.get(header_name(name)))
    }

    /// The value of a header of the response, empty if there is none.
    pub(crate) fn seen_by_client(&self, name: &str) -> &str {
        text(self.response.headers.get(header_name(name)))
    }

    /// The query that goes upstream.
    pub(crate) fn query_seen_by_origin(&self) -> Option<&str> {
        self.directions
            .query
            .as_deref()
            .or_else(|| self.request.uri.query())
    }

    /// Whether circuits decide to which addresses it goes.
    pub(crate) fn is_guarded(&self) -> bool {
        self.directions.guard.is_some()
    }

    /// The body that goes upstream, if the plugin replaced it.
    pub(crate) fn replaced_body(&self) -> Option<&Bytes> {
        self.body.replaced.then_some(&self.body.bytes)
    }
}

fn service_facts(id: u128, name: &str) -> ServiceFacts {
    ServiceFacts {
        id: Uuid::from_u128(id),
        name: Some(name.to_owned()),
        label: name.to_owned(),
        host: format!("{name}.internal"),
        port: 80,
        protocol: "http",
        path: None,
        tags: vec![],
    }
}

/// The value of a header of a reply, empty if there is none.
pub(crate) fn reply_header<'r>(reply: &'r Reply, name: &str) -> &'r str {
    let name = header_name(name);
    text(
        reply
            .headers
            .iter()
            .find(|(candidate, _)| *candidate == name)
            .map(|(_, value)| value),
    )
}

fn header_name(name: &str) -> HeaderName {
    name.parse().expect("a header name")
}

fn response_head(status: u16) -> ResponseHead {
    ResponseHead {
        status: status.try_into().expect("a status"),
        ..ResponseHead::default()
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.map_or("", |value| value.to_str().unwrap_or("<not text>"))
}
