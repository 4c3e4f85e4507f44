//! Upstreams with their targets, and services with the balancer that they send to.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use uuid::Uuid;

use super::{balancing, health, outbound::Outbound, references::References, retries};
use crate::{
    config::{Config, Entity, Upstream},
    entity::{Protocol, Timeouts, facts::ServiceFacts, identifier::derive},
    plugin::Outside,
    snapshot::{Discovered, Service},
    state::{State, addresses::TargetKey, budget::RetryBudget, consul},
    upstream::{
        Algorithm, Balancer, Outline, Target, TargetHost,
        target::{Called, Slots},
    },
};

/// The weight of what a registry tells, beside which there is nothing; each instance has its own.
const INSTANCES_WEIGHT: u16 = 100;

/// The balancers of the upstreams, in their order.
pub(super) fn compile(
    config: &Config,
    references: &References,
    outbound: &Outbound,
    discovered: &Discovered,
    state: &State,
) -> Vec<Arc<Balancer>> {
    let mut targets: Vec<Vec<Target>> = vec![Vec::new(); config.upstreams.len()];
    let mut instances: Vec<Option<Arc<consul::Service>>> = vec![None; config.upstreams.len()];
    for (index, service) in &discovered.upstreams {
        let places = targets.get_mut(*index).zip(instances.get_mut(*index));
        if let (Some((targets, slot)), Some(upstream)) = (places, config.upstreams.get(*index)) {
            let label = &service.key().service;
            let host = TargetHost::Instances(Arc::clone(service));
            let mut target = target(upstream.id, (host, label, 0), label, state);
            target.weight = INSTANCES_WEIGHT;
            watch(&mut target, upstream, state);
            targets.push(target);
            *slot = Some(Arc::clone(service));
        }
    }
    for (written, index) in config.targets.iter().zip(&references.target_upstream) {
        let Some((upstream, targets)) = index.and_then(|index| {
            let upstream = config.upstreams.get(index)?;
            Some((upstream, targets.get_mut(index)?))
        }) else {
            continue;
        };
        let fields = &written.fields;
        let mut target = written_target(upstream.id, fields.address(), &fields.target, state);
        target.weight = fields.weight;
        target.srv_host = upstream.fields.use_srv_name;
        target.until = index.and_then(|index| instances.get(index)?.clone());
        watch(&mut target, upstream, state);
        targets.push(target);
    }
    config
        .upstreams
        .iter()
        .zip(targets)
        .enumerate()
        .map(|(index, (upstream, targets))| {
            let fields = &upstream.fields;
            let host_header = fields
                .host_header
                .as_ref()
                .and_then(|host| HeaderValue::from_str(host).ok());
            Arc::new(Balancer::new(Outline {
                host_header,
                algorithm: balancing::algorithm(fields),
                slow_start: balancing::slow_start(fields),
                checks: health::checks(fields, |verify| outbound.of_probes(index, verify)),
                ..outline(upstream.id, fields.name.clone(), targets, state)
            }))
        })
        .collect()
}

/// Gives a target of `upstream` the limit of its connections, and a health if it is watched.
fn watch(target: &mut Target, upstream: &Entity<Upstream>, state: &State) {
    target.slots = slots(upstream.id, &upstream.fields, &target.label, state);
    if health::is_watched(&upstream.fields.healthchecks) {
        let key = key(upstream.id, target);
        target.health = Some(state.health.get_or_create(key, Default::default));
    }
}

/// The connections that each address of a target may take, where they are limited.
fn slots(id: Uuid, upstream: &Upstream, label: &str, state: &State) -> Option<Slots> {
    let limit = upstream.max_connections;
    (limit > 0).then(|| Slots {
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        left: state
            .slots
            .get_or_create((id, label.to_owned(), limit), Default::default),
    })
}

/// Turns among `targets` and nothing else.
fn outline(id: Uuid, name: String, targets: Vec<Target>, state: &State) -> Outline {
    Outline {
        id,
        name,
        host_header: None,
        targets,
        algorithm: Algorithm::RoundRobin,
        slow_start: Duration::ZERO,
        turns: state.turns.get_or_create(id, Default::default),
        checks: None,
        news: Arc::clone(&state.news),
        clock: state.clock.clone(),
    }
}

/// The balancer of something that has no upstream, only a host.
fn balancer_of_host(id: Uuid, (host, port): (&str, u16), state: &State) -> Arc<Balancer> {
    let label = format!("{host}:{port}");
    let target = written_target(id, (host, port), &label, state);
    Arc::new(Balancer::new(outline(
        id,
        host.to_owned(),
        vec![target],
        state,
    )))
}

/// The services of the configuration, in their order.
pub(super) fn services(
    config: &Config,
    references: &References,
    balancers: &[Arc<Balancer>],
    outbound: &Outbound,
    state: &State,
) -> impl Iterator<Item = Service> {
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
                None => balancer_of_host(written.id, (&fields.host, fields.port), state),
            };
            let label = fields.name.clone().unwrap_or_else(|| fields.host.clone());
            Service {
                repeats: state.telemetry.retries(&label),
                facts: Arc::new(ServiceFacts {
                    id: written.id,
                    name: fields.name.clone(),
                    label,
                    host: fields.host.clone(),
                    port: fields.port,
                    protocol: fields.protocol.as_str(),
                    path: fields.path.clone(),
                    tags: fields.tags.clone(),
                }),
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
}

/// The services that stand for the places that plugins name by URL.
pub(super) fn outside(
    places: &[Outside],
    outbound: &Outbound,
    state: &State,
) -> impl Iterator<Item = Service> {
    places.iter().map(|place| {
        let protocol = if place.is_encrypted {
            Protocol::Https
        } else {
            Protocol::Http
        };
        let Outside {
            host, port, path, ..
        } = place;
        let label = format!(
            "{protocol}://{host}:{port}{}",
            path.as_deref().unwrap_or_default()
        );
        let id = derive("destinations", &label);
        Service {
            // Nothing is sent there twice, so there is nothing to show.
            repeats: Arc::default(),
            balancer: balancer_of_host(id, (host, *port), state),
            facts: Arc::new(ServiceFacts {
                id,
                name: None,
                label,
                host: host.clone(),
                port: *port,
                protocol: protocol.as_str(),
                path: path.clone(),
                tags: Vec::new(),
            }),
            protocol,
            path: path.clone(),
            retries: 0,
            retry: retries::compile(None),
            total_timeout: None,
            budget: Arc::new(RetryBudget::new(state.clock.instant())),
            timeouts: Timeouts::default(),
            tls: place.is_encrypted.then(|| outbound.of_outside()).flatten(),
        }
    })
}

/// The target that is written as `host` and `port`, one of those of the upstream or service with this id.
fn written_target(id: Uuid, (host, port): (&str, u16), label: &str, state: &State) -> Target {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let host = match bare.parse() {
        Ok(address) => TargetHost::Address(address),
        Err(_) => TargetHost::Name(state.names.get(bare)),
    };
    target(id, (host, bare, port), label, state)
}

/// A target that is called `name`.
fn target(
    id: Uuid,
    (host, name, port): (TargetHost, &str, u16),
    label: &str,
    state: &State,
) -> Target {
    let mut target = Target {
        called: Called::new(name, port),
        srv_host: false,
        host,
        port,
        weight: 1,
        label: label.into(),
        health: None,
        loads: Arc::default(),
        pools: Arc::clone(&state.pools),
        slots: None,
        until: None,
    };
    target.loads = state
        .loads
        .get_or_create(key(id, &target), Default::default);
    target
}

/// Finds what is kept of a target again.
fn key(id: Uuid, target: &Target) -> TargetKey {
    let host = match &target.host {
        TargetHost::Address(address) => address.to_string(),
        TargetHost::Name(name) => name.host().to_owned(),
        TargetHost::Instances(service) => service.key().service.clone(),
    };
    (id, host, target.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_target_is_found_again_however_it_is_spelled() {
        let state = State::new();
        let first = written_target(Uuid::nil(), ("127.0.0.1", 80), "127.0.0.1:80", &state);
        let again = written_target(Uuid::nil(), ("127.0.0.1", 80), "127.0.0.1", &state);
        assert!(Arc::ptr_eq(&first.loads, &again.loads));
        let other = written_target(Uuid::nil(), ("127.0.0.1", 81), "127.0.0.1:81", &state);
        assert!(!Arc::ptr_eq(&first.loads, &other.loads));
    }

    #[test]
    fn an_address_may_stand_in_brackets() {
        let state = State::new();
        let target = written_target(Uuid::nil(), ("[::1]", 80), "[::1]:80", &state);
        assert_eq!(target.places()[0].address.to_string(), "[::1]:80");
        assert_eq!(&*target.called.server_name, "::1");
    }
}
