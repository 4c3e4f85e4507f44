//! One compiled, immutable configuration: everything that a request may read.

pub mod live;
mod origins;
mod retry;
mod settings;

use std::{sync::Arc, time::Duration};

use crate::{
    chain::Chain,
    entity::{
        Protocol, Timeouts,
        consumers::Consumers,
        facts::{RouteFacts, ServiceFacts, ServiceIndex},
        path::PathHandling,
    },
    plugins::Instance,
    router::{Router, streams::StreamRouter},
    state::{budget::RetryBudget, consul},
    telemetry::{
        Retries, handshakes::CertificateExpiry, requests::RouteSeries, streams::StreamSeries,
    },
    tls::{Certificates, UpstreamTls},
    upstream::Balancer,
};

pub use origins::{Origins, Place, PluginOrigin, Unserved};
pub use retry::Retry;
pub use settings::{
    AccessFormat, AccessLog, ErrorType, RealIp, ResponseTokens, Settings, Trusted, Upkeep,
};

/// The place of a route in [`Snapshot::routes`].
pub type RouteIndex = usize;

/// The place of a chain in the snapshot. Routes with the same plugins share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainIndex(pub u32);

/// A compiled configuration. A request takes one and keeps it to its end.
#[derive(Debug)]
pub struct Snapshot {
    /// 32 hex digits that change when, and only when, the configuration does.
    pub hash: String,
    pub settings: Settings,
    /// What clients get in a TLS handshake.
    pub certificates: Certificates,
    /// Until when they are good.
    pub expiries: Vec<CertificateExpiry>,
    pub router: Router,
    pub routes: Box<[Route]>,
    /// What connections find in place of all this.
    pub streams: Streams,
    pub services: Box<[Service]>,
    /// The names of the services, for plugins.
    pub service_facts: Box<[Arc<ServiceFacts>]>,
    pub consumers: Arc<Consumers>,
    pub instances: Box<[Instance]>,
    /// Names of arguments in which some plugin may find a credential.
    pub secret_arguments: Box<[String]>,
    pub chains: Box<[Chain]>,
    /// The global plugins, whose response and log phases see requests without a route.
    pub unrouted: ChainIndex,
    /// The series of requests without a route.
    pub unrouted_series: Arc<RouteSeries>,
    /// The upstreams with a name, for those who watch and show their health.
    pub upstreams: Vec<Arc<Balancer>>,
    /// What registries are asked for.
    pub discovered: Discovered,
    /// Where all this is written, for explanations.
    pub origins: Origins,
}

/// What registries are asked for as long as the snapshot is in use.
#[derive(Debug, Default)]
pub struct Discovered {
    /// The upstreams whose instances are, by their places in [`Snapshot::upstreams`].
    pub upstreams: Box<[(usize, Arc<consul::Service>)]>,
    /// The services that have routes by their tags.
    pub catalog: Option<Arc<consul::Catalog>>,
}

impl Snapshot {
    /// The chain at `index`.
    pub fn chain(&self, index: ChainIndex) -> &Chain {
        self.chains
            .get(index.0 as usize)
            .expect("a chain index comes from the snapshot that it is used with")
    }

    /// All balancers: those of upstreams, and those of services whose host is none.
    pub fn balancers(&self) -> impl Iterator<Item = Arc<Balancer>> {
        // A balancer of its own has the id of the service.
        let own = self
            .services
            .iter()
            .filter(|service| service.balancer.id == service.facts.id);
        let own = own.map(|service| &service.balancer);
        self.upstreams.iter().chain(own).cloned()
    }

    /// The service that requests of a route go to: the one that was `chosen` for a request, else the
    /// route's own.
    pub fn service(&self, route: &Route, chosen: Option<ServiceIndex>) -> Option<&Service> {
        let index = chosen.map(|chosen| chosen.0).or(route.service)?;
        self.services.get(index)
    }
}

/// A route as requests see it: what every request reads is in one cache line, for in a large table no
/// cache has the route, and each line more is a trip to memory.
#[derive(Debug)]
#[repr(align(64))]
pub struct Route {
    pub facts: Box<RouteFacts>,
    /// The place of its service.
    pub service: Option<usize>,
    /// Whether plain text is refused: for HTTP with `https_redirect_status`.
    pub https_only: bool,
    /// Whether it takes gRPC only.
    pub grpc: bool,
    pub https_redirect_status: u16,
    pub strip_path: bool,
    pub preserve_host: bool,
    pub path_handling: PathHandling,
    /// The plugins for requests over `http` and over `https`, the same unless some plugin names
    /// its protocols.
    pub chains: [ChainIndex; 2],
    pub series: Arc<RouteSeries>,
    /// What most routes have not.
    pub exceptions: Option<Box<Exceptions>>,
}

/// What a route has in place of what its service says.
#[derive(Debug, Default)]
pub struct Exceptions {
    pub retry: Option<Retry>,
    /// The inner one absent = no such limit.
    pub total_timeout: Option<Option<Duration>>,
    /// The series of requests that go to services which a plugin may choose in place of its own; few.
    pub series: Box<[(ServiceIndex, Arc<RouteSeries>)]>,
}

impl Route {
    /// The series of requests that go to `chosen`; absent = to the route's own service.
    pub fn series_of(&self, chosen: Option<ServiceIndex>) -> &Arc<RouteSeries> {
        let other = chosen.zip(self.exceptions.as_ref());
        let other = other.and_then(|(chosen, exceptions)| {
            let mut others = exceptions.series.iter();
            others.find(|(service, _)| *service == chosen)
        });
        other.map_or(&self.series, |(_, series)| series)
    }

    /// How tries are repeated, in place of what the service says.
    pub fn retry(&self) -> Option<&Retry> {
        self.exceptions.as_ref()?.retry.as_ref()
    }

    /// By when the response must have begun, in place of what the service says; the inner one
    /// absent = no such limit.
    pub fn total_timeout(&self) -> Option<Option<Duration>> {
        self.exceptions.as_ref()?.total_timeout
    }
}

/// The routes of connections of which nothing is read.
#[derive(Debug)]
pub struct Streams {
    pub router: StreamRouter,
    pub routes: Box<[StreamRoute]>,
    /// The series of connections without a route.
    pub unrouted_series: Arc<StreamSeries>,
}

/// A route as connections see it.
#[derive(Debug)]
pub struct StreamRoute {
    /// Its name, else its id.
    pub label: Arc<str>,
    /// The place of its service.
    pub service: Option<usize>,
    pub series: Arc<StreamSeries>,
}

/// A service as requests see it.
#[derive(Debug)]
pub struct Service {
    pub facts: Arc<ServiceFacts>,
    pub protocol: Protocol,
    /// What comes before the request's path; absent if it is `/`.
    pub path: Option<String>,
    pub retries: u16,
    pub retry: Retry,
    /// By when the response must have begun, from the moment that the request is forwarded.
    pub total_timeout: Option<Duration>,
    /// What repeating requests may still cost.
    pub budget: Arc<RetryBudget>,
    pub timeouts: Timeouts,
    /// Absent = plain HTTP.
    pub tls: Option<Arc<UpstreamTls>>,
    pub balancer: Arc<Balancer>,
    /// How often requests were sent again, and how often not for want of budget.
    pub repeats: Arc<Retries>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_one_cache_line() {
        assert_eq!(size_of::<Route>(), 64);
    }
}
