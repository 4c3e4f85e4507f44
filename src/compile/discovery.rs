//! What is asked of registries: the instances of upstreams, and the services that have routes.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{
        Config,
        model::{
            Gateway,
            discovery::{ConsulRoutes, Discovery},
        },
    },
    entity::Secret,
    snapshot::Discovered,
    state::{
        State,
        consul::{Agent, Catalog, CatalogKey, Service, ServiceKey},
    },
};

/// What the snapshot follows: the instances of each upstream that has a registry, and the catalog.
pub(super) fn compile(config: &Config, state: &State) -> Discovered {
    let upstreams = config.upstreams.iter().enumerate();
    let followed = upstreams.filter_map(|(index, upstream)| {
        let written = upstream.fields.discovery.as_ref()?;
        Some((index, service(written, state)?))
    });
    Discovered {
        upstreams: followed.collect(),
        catalog: catalog(&config.gateway, state),
    }
}

/// The instances that are written so.
fn service(written: &Discovery, state: &State) -> Option<Arc<Service>> {
    let agent = agent(
        &written.address,
        &written.datacenter,
        &written.token,
        written.wait,
    )?;
    Some(state.consul.service(ServiceKey {
        agent,
        service: written.service.clone(),
        tags: written.tags.clone(),
        passing: written.passing,
    }))
}

/// The services that ask for routes, where the settings take any.
pub fn catalog(gateway: &Gateway, state: &State) -> Option<Arc<Catalog>> {
    let written: &ConsulRoutes = gateway.discovery.as_ref()?.consul.as_ref()?;
    let agent = agent(
        &written.address,
        &written.datacenter,
        &written.token,
        written.wait,
    )?;
    Some(state.consul.catalog(CatalogKey {
        agent,
        tag_prefix: written.tag_prefix.clone(),
    }))
}

/// `None` for an address that was found to be none.
fn agent(
    address: &str,
    datacenter: &str,
    token: &Secret<String>,
    wait_seconds: u32,
) -> Option<Agent> {
    Some(Agent {
        address: address.parse().ok()?,
        datacenter: Some(datacenter.to_owned()).filter(|name| !name.is_empty()),
        token: Some(token.clone()).filter(|token| !token.expose().is_empty()),
        wait: Duration::from_secs(u64::from(wait_seconds)),
    })
}
