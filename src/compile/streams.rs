//! Stream routes: the table of their router, and what a connection needs once it has found its route.

use std::sync::Arc;

use ipnet::IpNet;

use super::references::References;
use crate::{
    config::{
        Code, Config, Diagnostics, Route as Written, model::route::Endpoint as WrittenEndpoint,
    },
    entity::{Protocol, host::parse_server_name},
    router::streams::{Endpoint, StreamRouter, StreamRule, Way},
    snapshot::{StreamRoute, Streams},
    state::State,
};

/// Compiles the stream routes of enabled services, and gives their places in `config`. Warns of those that nothing can
/// reach.
pub(super) fn compile(
    config: &Config,
    references: &References,
    state: &State,
    diagnostics: &mut Diagnostics,
) -> (Streams, Vec<usize>) {
    let has_listener = config.gateway.stream_listen.addresses().next().is_some();
    let mut rules = Vec::new();
    let mut routes = Vec::new();
    let mut places = Vec::new();
    let all = config.routes.iter().zip(&references.route_service);
    let of_streams = all
        .enumerate()
        .filter(|(_, (route, _))| route.fields.is_stream());
    for (place, (route, service)) in of_streams {
        let written = service.and_then(|service| config.services.get(service));
        if written.is_some_and(|service| !service.fields.enabled) {
            continue;
        }
        let fields = &route.fields;
        if !has_listener {
            diagnostics
                .warning(
                    Code::Ignored,
                    route.place.span(),
                    route.place.path_of("protocols"),
                    "no connection reaches this route: there is no listener for streams",
                )
                .hint("add one to `gateway.stream_listen`");
        }
        let label = fields.name.clone().unwrap_or_else(|| route.id.to_string());
        let service_label = written.map_or("", |service| {
            let fields = &service.fields;
            fields.name.as_deref().unwrap_or(&fields.host)
        });
        places.push(place);
        rules.push(rule(fields));
        routes.push(StreamRoute {
            series: state.telemetry.streams(service_label, &label),
            label: Arc::from(label),
            service: *service,
        });
    }
    let streams = Streams {
        router: StreamRouter::new(rules),
        routes: routes.into_boxed_slice(),
        unrouted_series: state.telemetry.streams("", ""),
    };
    (streams, places)
}

fn rule(route: &Written) -> StreamRule {
    let way = |protocol: &Protocol| match protocol {
        Protocol::Tcp => Some(Way::Tcp),
        Protocol::Tls => Some(Way::Tls),
        Protocol::TlsPassthrough => Some(Way::Passthrough),
        Protocol::Http | Protocol::Https | Protocol::Grpc | Protocol::Grpcs => None,
    };
    StreamRule {
        over: route.protocols.iter().filter_map(way).collect(),
        snis: route
            .snis
            .iter()
            .filter_map(|sni| parse_server_name(&sni.to_ascii_lowercase()).ok())
            .collect(),
        sources: route.sources.iter().map(endpoint).collect(),
        destinations: route.destinations.iter().map(endpoint).collect(),
        created_at: route.created_at,
    }
}

fn endpoint(written: &WrittenEndpoint) -> Endpoint {
    let ip = written.ip.as_deref();
    let address = ip.and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
    let network = ip.and_then(|ip| ip.parse::<IpNet>().ok());
    Endpoint {
        network: address.map(IpNet::from).or(network),
        port: written.port,
        is_network: network.is_some(),
    }
}
