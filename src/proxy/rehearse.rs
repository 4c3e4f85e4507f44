//! The steps of a request without a connection, for explanations. Every rule is the one of live
//! requests, called from here; nothing is counted, nothing is sent, no target takes a turn.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;

use super::{
    admit::{self, Entrance},
    affinity,
    exchange::{Connection, Exchange},
    forward,
    head::{HeadReader, Limits},
    parse, receive, route, shape,
};
use crate::{
    chain::{Access, InstanceIndex, Step},
    entity::{consumer::ConsumerIndex, message::RequestHead, reason::Reason},
    plugin::{Client, Halt, Reply, RequestBody, Scheme},
    router::Key,
    snapshot::{ChainIndex, Route, Service, Snapshot},
    state::State,
    tls::{RulesId, TlsFacts},
    upstream::{self, Target, algorithm::Input},
};

/// Who is taken to send the request, and how.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub ip: IpAddr,
    /// The port of the listener that takes the request.
    pub port: u16,
    pub scheme: Scheme,
    /// What the client asks for in its handshake; absent: the host, empty: nothing.
    pub server_name: Option<String>,
    /// Whom authentication is taken to find.
    pub consumer: Option<ConsumerIndex>,
}

/// A request that went through the steps.
#[derive(Debug)]
pub struct Rehearsal {
    exchange: Exchange,
    /// The plugins that run for it, in order.
    pub steps: Vec<Step>,
    /// The gateway's own answer, if there is one: the request does not go upstream then.
    pub answer: Option<Answer>,
}

/// An answer of the gateway.
#[derive(Debug)]
pub struct Answer {
    pub by: AnsweredBy,
    pub reply: Box<Reply>,
}

/// The step that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The bytes of the head are not acceptable; what is wrong with them.
    Head(&'static str),
    /// The request is refused as it is.
    Receive,
    /// There is no route, or not over this protocol.
    Route,
    Plugin(InstanceIndex),
    /// The route has no service.
    NoService,
}

/// Takes the request with the head `bytes` (with the empty line that ends it) through the steps.
pub fn rehearse(
    snapshot: Arc<Snapshot>,
    state: &State,
    bytes: &[u8],
    visitor: &Visitor,
) -> Rehearsal {
    let mut exchange = Exchange::new(
        snapshot,
        state.identifiers.request_id(),
        state.clock.instant(),
    );
    let connection = connection(visitor, &exchange.snapshot);
    exchange.client = Client {
        ip: connection.ip,
        peer: connection.peer,
    };
    exchange.scheme = visitor.scheme;
    exchange.port = visitor.port;
    exchange.connection = Some(Arc::new(connection));
    let mut rehearsal = Rehearsal {
        exchange,
        steps: Vec::new(),
        answer: None,
    };
    rehearsal.answer = rehearsal.run(bytes, visitor.consumer);
    if rehearsal.steps.is_empty() {
        rehearsal.steps = rehearsal
            .exchange
            .snapshot
            .chain(rehearsal.chain())
            .bystanders();
    }
    rehearsal
}

impl Rehearsal {
    fn run(&mut self, bytes: &[u8], assumed: Option<ConsumerIndex>) -> Option<Answer> {
        let answer = |by| move |reply| Answer { by, reply };
        let exchange = &mut self.exchange;
        match read_head(bytes, exchange) {
            Ok(read) => exchange.head = read,
            Err((detail, reply)) => {
                let by = AnsweredBy::Head(detail);
                return Some(Answer { by, reply });
            }
        }
        let fields = exchange.head.headers.fields();
        let routed = receive::read(exchange, fields)
            .map_err(answer(AnsweredBy::Receive))
            .and_then(|()| route::find(exchange).map_err(answer(AnsweredBy::Route)));
        if let Err(answer) = routed {
            return Some(answer);
        }
        let mut body = NoBody;
        if let Some(entrance) = admit::enter(&mut body, exchange) {
            let Entrance {
                mut request,
                snapshot,
                chain,
                ..
            } = entrance;
            self.steps = chain.rehearse(&snapshot.instances, &mut request, assumed);
        }
        for step in &mut self.steps {
            let by = AnsweredBy::Plugin(step.instance);
            match &step.access {
                Access::Replied(reply) => {
                    let reply = reply.clone();
                    return Some(Answer { by, reply });
                }
                Access::Failed(_) => {
                    let reply = Box::new(admit::fault(Reason::PluginFault));
                    return Some(Answer { by, reply });
                }
                _ => {}
            }
        }
        admit::require_service(exchange)
            .err()
            .map(answer(AnsweredBy::NoService))
    }

    /// The request as the router sees it.
    pub fn key(&self) -> Key<'_> {
        route::key(&self.exchange)
    }

    /// The index of the route.
    pub fn route_index(&self) -> Option<usize> {
        self.exchange.route
    }

    /// The route.
    pub fn route(&self) -> Option<&Route> {
        self.exchange.route()
    }

    /// The place of the service that the request goes to.
    pub fn service_index(&self) -> Option<usize> {
        let chosen = self.exchange.forward.directions.service;
        chosen
            .map(|chosen| chosen.0)
            .or_else(|| self.route()?.service)
    }

    /// The service that the request goes to: that of the route, unless a plugin chose another.
    pub fn service(&self) -> Option<&Service> {
        self.exchange.service()
    }

    /// The consumer that was found or taken for granted.
    pub fn consumer(&self) -> Option<ConsumerIndex> {
        self.exchange.identity.consumer
    }

    /// Who sent the request, as far as trusted proxies say.
    pub fn client(&self) -> Client {
        self.exchange.client
    }

    /// Whether the client's forwarding headers are believed.
    pub fn is_trusted(&self) -> bool {
        self.exchange.trusted
    }

    /// The scheme that the client used.
    pub fn scheme(&self) -> Scheme {
        self.exchange.scheme
    }

    /// The chain of the route, or that of requests without one.
    pub fn chain(&self) -> ChainIndex {
        self.exchange.chain()
    }

    /// The `Host` that `target` gets; absent if there is no route with a service.
    pub fn host_for(&self, target: &Target) -> Option<String> {
        let member = target.stand_in();
        let host =
            forward::host_header(&self.exchange.head, self.route()?, self.service()?, &member);
        Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
    }

    /// Whether the request has a cookie of this name.
    pub fn has_cookie(&self, name: &str) -> bool {
        affinity::value_of(&self.exchange.head.headers, name).is_some()
    }

    /// What of the request decides its target.
    pub fn target_key(&self) -> Option<(upstream::Key, Option<&Input>)> {
        let service = self.service()?;
        let (key, _) = affinity::key(service, &self.exchange);
        Some((key, affinity::deciding(service, &self.exchange)))
    }

    /// The head that goes to the target at `place` of the service's balancer; `None` without a
    /// service or such a target.
    pub fn sent_to(&mut self, place: usize) -> Option<RequestHead> {
        let member = self.service()?.balancer.targets().get(place)?.stand_in();
        self.exchange.forward.member = Some(Arc::new(member));
        shape::whole(&self.exchange).ok()
    }
}

fn connection(visitor: &Visitor, snapshot: &Snapshot) -> Connection {
    let ip = visitor.ip.to_canonical();
    let tls = visitor.server_name.as_deref().map(|written| {
        let written = written.trim_end_matches('.').to_ascii_lowercase();
        let name = Some(written).filter(|name| !name.is_empty());
        let chosen = snapshot.certificates.choose(name.as_deref());
        let rules = chosen.map_or(RulesId::NONE, |chosen| chosen.rules());
        Box::new(TlsFacts::assumed(name, rules))
    });
    Connection {
        peer: SocketAddr::new(ip, 0),
        ip,
        local_ip: None,
        ip_header: HeaderValue::from_str(&ip.to_string()).expect("an address is visible ASCII"),
        port: visitor.port,
        port_header: visitor.port.into(),
        scheme: visitor.scheme,
        tls,
        wire: Arc::default(),
    }
}

/// Judges the bytes and takes them apart, or says what is wrong with them and how it is answered.
fn read_head(bytes: &[u8], exchange: &Exchange) -> Result<RequestHead, (&'static str, Box<Reply>)> {
    let settings = &exchange.snapshot.settings;
    let limits = Limits {
        line: settings.head_line_bytes_max,
        head: settings.head_bytes_max,
    };
    match HeadReader::default().read(bytes, limits) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(unreadable()),
        Err(refusal) => {
            let reply = Reply::message(refusal.status, refusal.reason, refusal.message());
            return Err((refusal.detail, Box::new(reply)));
        }
    }
    parse(bytes).ok_or_else(unreadable)
}

fn unreadable() -> (&'static str, Box<Reply>) {
    let reply = Reply::message(400, Reason::BadRequest, "Bad request");
    ("the head is not HTTP", Box::new(reply))
}

/// Takes an acceptable head apart; `None` if the bytes are no head.
pub fn parse(bytes: &[u8]) -> Option<RequestHead> {
    parse::request(&Bytes::copy_from_slice(bytes))
}

/// The body of a request that is only talked about.
#[derive(Debug)]
struct NoBody;

#[async_trait]
impl RequestBody for NoBody {
    async fn read(&mut self) -> Result<Bytes, Halt> {
        Ok(Bytes::new())
    }

    fn replace(&mut self, _bytes: Bytes) {}
}
