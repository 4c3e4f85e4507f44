//! Upstreams with their targets, and services with the balancer that they send to.

use std::sync::Arc;

use http::HeaderValue;
use tokio::sync::Semaphore;

use super::{health, outbound::Outbound, references::References, retries};
use crate::{
    config::Config,
    entity::{Protocol, facts::ServiceFacts},
    snapshot::Service,
    state::{State, budget::RetryBudget},
    upstream::{Balancer, Target, TargetHost},
};

/// The balancers of the upstreams, in their order.
pub(super) fn compile(
    config: &Config,
    references: &References,
    outbound: &Outbound,
    state: &State,
) -> Vec<Arc<Balancer>> {
    let mut targets: Vec<Vec<Target>> = vec![Vec::new(); config.upstreams.len()];
    for (written, upstream) in config.targets.iter().zip(&references.target_upstream) {
        if let Some(targets) = upstream.and_then(|upstream| targets.get_mut(upstream)) {
            let (host, port) = written.fields.address();
            let mut target = target(
                host,
                port,
                written.fields.weight,
                written.fields.target.clone(),
                state,
            );
            target.slots = slots(config, *upstream, &target.label, state);
            target.health = upstream
                .and_then(|upstream| config.upstreams.get(upstream))
                .filter(|upstream| health::is_watched(&upstream.fields.healthchecks))
                .map(|upstream| health::of_target(upstream.id, &target, state));
            targets.push(target);
        }
    }
    config
        .upstreams
        .iter()
        .zip(targets)
        .enumerate()
        .map(|(index, (upstream, targets))| {
            let host_header = upstream
                .fields
                .host_header
                .as_ref()
                .and_then(|host| HeaderValue::from_str(host).ok());
            Arc::new(Balancer::new(
                (upstream.id, upstream.fields.name.clone()),
                host_header,
                targets,
                state.positions.get_or_create(upstream.id, Default::default),
                health::checks(&upstream.fields, |verify| outbound.of_probes(index, verify)),
            ))
        })
        .collect()
}

/// The connections that a target of an upstream may take, where they are limited.
fn slots(
    config: &Config,
    upstream: Option<usize>,
    label: &str,
    state: &State,
) -> Option<Arc<Semaphore>> {
    let upstream = config.upstreams.get(upstream?)?;
    let limit = upstream.fields.max_connections;
    (limit > 0).then(|| {
        state
            .slots
            .get_or_create((upstream.id, label.to_owned(), limit), || {
                Semaphore::new(usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS))
            })
    })
}

pub(super) fn services(
    config: &Config,
    references: &References,
    balancers: &[Arc<Balancer>],
    outbound: &Outbound,
    state: &State,
) -> Box<[Service]> {
    config
        .services
        .iter()
        .zip(&references.service_upstream)
        .enumerate()
        .map(|(index, (written, upstream))| {
            let fields = &written.fields;
            let shared = upstream.and_then(|upstream| balancers.get(upstream));
            let balancer = match shared {
                Some(balancer) => Arc::clone(balancer),
                None => Arc::new(Balancer::new(
                    (written.id, fields.host.clone()),
                    None,
                    vec![target(
                        &fields.host,
                        fields.port,
                        1,
                        format!("{}:{}", fields.host, fields.port),
                        state,
                    )],
                    state.positions.get_or_create(written.id, Default::default),
                    None,
                )),
            };
            let label = fields.name.clone().unwrap_or_else(|| fields.host.clone());
            Service {
                repeats: state.telemetry.retries(&label),
                facts: ServiceFacts {
                    id: written.id,
                    name: fields.name.clone(),
                    label,
                    host: fields.host.clone(),
                    port: fields.port,
                    protocol: fields.protocol.as_str(),
                    path: fields.path.clone(),
                    tags: fields.tags.clone(),
                },
                protocol: fields.protocol,
                path: fields.path.clone().filter(|path| path != "/"),
                retries: fields.retries,
                retry: retries::compile(fields.retry.as_ref()),
                total_timeout: retries::limit(fields.total_timeout),
                budget: state
                    .budgets
                    .get_or_create(written.id, || RetryBudget::new(state.clock.instant())),
                timeouts: fields.timeouts(),
                tls: outbound.of_service(index),
                balancer,
            }
        })
        .collect()
}

fn target(host: &str, port: u16, weight: u16, label: String, state: &State) -> Target {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let (host, name) = match bare.parse() {
        Ok(address @ std::net::IpAddr::V6(_)) => {
            (TargetHost::Address(address), format!("[{bare}]"))
        }
        Ok(address) => (TargetHost::Address(address), bare.to_owned()),
        Err(_) => (TargetHost::Name(state.names.get(bare)), bare.to_owned()),
    };
    let header = |protocol: Protocol| {
        let text = if port == protocol.default_port() {
            name.clone()
        } else {
            format!("{name}:{port}")
        };
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    };
    Target {
        host_headers: [header(Protocol::Http), header(Protocol::Https)],
        host,
        port,
        weight,
        label,
        health: None,
        slots: None,
        server_name: bare.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_names_the_port_unless_it_is_the_protocols() {
        let state = State::new();
        let host = |host, port, protocol| {
            let target = target(host, port, 1, String::new(), &state);
            target
                .host_header(protocol)
                .to_str()
                .expect("text")
                .to_owned()
        };
        assert_eq!(host("a.test", 80, Protocol::Http), "a.test");
        assert_eq!(host("a.test", 80, Protocol::Https), "a.test:80");
        assert_eq!(host("a.test", 443, Protocol::Https), "a.test");
        assert_eq!(host("::1", 8080, Protocol::Http), "[::1]:8080");
        assert_eq!(host("[::1]", 80, Protocol::Http), "[::1]");
    }
}
