//! What is asked of registries: the instances of upstreams, and the services that have routes.

use std::{sync::Arc, time::Duration};

use super::outbound::Outbound;
use crate::{
    client::Security,
    config::{
        Config,
        model::{
            Gateway,
            discovery::{Access, Discovery},
        },
    },
    snapshot::Discovered,
    state::{
        State,
        consul::{Agent, Catalog, CatalogKey, Service, ServiceKey},
    },
};

/// What the snapshot follows: the instances of each upstream that has a registry, and the catalog.
pub(super) fn compile(config: &Config, outbound: &Outbound, state: &State) -> Discovered {
    let upstreams = config.upstreams.iter().enumerate();
    let followed = upstreams.filter_map(|(index, upstream)| {
        let written = upstream.fields.discovery.as_ref()?;
        Some((index, service(written, outbound, state)?))
    });
    Discovered {
        upstreams: followed.collect(),
        catalog: catalog(&config.gateway, outbound, state),
    }
}

/// The instances that are written so.
fn service(written: &Discovery, outbound: &Outbound, state: &State) -> Option<Arc<Service>> {
    Some(state.consul.service(ServiceKey {
        agent: agent(&written.access(), outbound)?,
        service: written.service.clone(),
        tags: written.tags.clone(),
        passing: written.passing,
    }))
}

/// The services that ask for routes, where the settings take any.
fn catalog(gateway: &Gateway, outbound: &Outbound, state: &State) -> Option<Arc<Catalog>> {
    let written = gateway.discovery.as_ref()?.consul.as_ref()?;
    Some(state.consul.catalog(CatalogKey {
        agent: agent(&written.access(), outbound)?,
        tag_prefix: written.tag_prefix.clone(),
    }))
}

/// `None` for an address that was found to be none.
fn agent(access: &Access<'_>, outbound: &Outbound) -> Option<Agent> {
    let address = access.base()?;
    let tls = outbound.consul.of(access);
    let tls = tls.filter(|_| address.is_secure());
    let name = match access.tls_server_name {
        "" => address.host(),
        name => name,
    };
    Some(Agent {
        security: tls.map(|tls| Security::new(tls, name.to_owned())),
        datacenter: Some(access.datacenter.to_owned()).filter(|name| !name.is_empty()),
        token: Some(access.token.clone()).filter(|token| !token.expose().is_empty()),
        wait: Duration::from_secs(u64::from(access.wait)),
        address,
    })
}
