//! The services of Consul's catalog that ask for routes by their tags.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::{
    Agent, Standing,
    follow::{Subject, query},
};

/// The most services that may ask for routes.
const SERVICES_MAX: usize = 4096;
/// What a service says that wants routes, behind the prefix of its tags.
const ENABLE: &str = "enable=true";

/// The services that ask for routes, each with its tags without their prefix, in order.
pub type Routed = BTreeMap<String, Vec<String>>;

/// A service that asks for routes and has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub service: String,
    /// A sentence for the operator.
    pub reason: String,
}

/// What decides which services there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CatalogKey {
    pub agent: Agent,
    /// What the tags begin with that are meant for the gateway.
    pub tag_prefix: String,
}

impl CatalogKey {
    /// Whether both stand for the same services, however they are asked for.
    pub(super) fn is_same_list(&self, other: &Self) -> bool {
        self.tag_prefix == other.tag_prefix && self.agent.datacenter == other.agent.datacenter
    }
}

/// The services that ask for routes. They are followed until it is dropped.
#[derive(Debug)]
pub struct Catalog {
    key: CatalogKey,
    services: ArcSwap<Routed>,
    /// In the order of the services.
    skipped: ArcSwap<Vec<Skipped>>,
    standing: Mutex<Standing>,
    changed: Arc<Notify>,
    _stop: DropGuard,
}

impl Catalog {
    pub(super) fn new(key: CatalogKey, changed: Arc<Notify>, stop: CancellationToken) -> Self {
        Self {
            key,
            services: ArcSwap::default(),
            skipped: ArcSwap::default(),
            standing: Mutex::default(),
            changed,
            _stop: stop.drop_guard(),
        }
    }

    /// What it is.
    pub fn key(&self) -> &CatalogKey {
        &self.key
    }

    /// The services.
    pub fn services(&self) -> Arc<Routed> {
        self.services.load_full()
    }

    /// Those of the services that have no routes.
    pub fn skipped(&self) -> Arc<Vec<Skipped>> {
        self.skipped.load_full()
    }

    /// Notes which services have no routes, and tells the log of those that are new.
    pub fn note_skipped(&self, skipped: Vec<Skipped>) {
        let before = self.skipped();
        for skipped in skipped.iter().filter(|new| !before.contains(new)) {
            let Skipped { service, reason } = skipped;
            warn!(service, reason, "service of consul has no routes");
        }
        self.skipped.store(Arc::new(skipped));
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let standing = self.standing.lock();
        standing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what `other` knows, until there is an answer.
    pub(super) fn begin_with(&self, other: &Self) {
        self.services.store(other.services());
        self.skipped.store(other.skipped());
    }
}

impl Subject for Catalog {
    type List = Routed;

    fn agent(&self) -> &Agent {
        &self.key.agent
    }

    fn path(&self) -> String {
        let parameters = self.key.agent.datacenter_parameter();
        query("/v1/catalog/services", parameters.into_iter())
    }

    fn read(&self, body: &[u8]) -> Result<Routed, String> {
        let all: BTreeMap<String, Vec<String>> = serde_json::from_slice(body)
            .map_err(|error| format!("the answer is no list of services: {error}"))?;
        let ours = |tags: Vec<String>| -> Vec<String> {
            let prefix = self.key.tag_prefix.as_str();
            let ours = tags.iter().filter_map(|tag| tag.strip_prefix(prefix));
            let mut ours: Vec<String> = ours.map(str::to_owned).collect();
            ours.sort_unstable();
            ours
        };
        let all = all.into_iter().map(|(name, tags)| (name, ours(tags)));
        let routed = all.filter(|(_, tags)| tags.iter().any(|tag| tag == ENABLE));
        Ok(routed.take(SERVICES_MAX).collect())
    }

    fn leaves_nothing(&self, list: &Routed) -> bool {
        list.is_empty() && !self.services.load().is_empty()
    }

    fn adopt(&self, list: Routed) {
        if **self.services.load() != list {
            info!(services = list.len(), "other services ask for routes");
            self.services.store(Arc::new(list));
            self.changed.notify_one();
        }
    }

    fn note_failure(&self) {}

    fn note(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut standing);
    }

    fn name(&self) -> &'static str {
        "catalog"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::consul::tests::agent;

    fn catalog() -> Catalog {
        let key = CatalogKey {
            agent: agent("t"),
            tag_prefix: "tollgate.".to_owned(),
        };
        Catalog::new(key, Arc::default(), CancellationToken::new())
    }

    #[test]
    fn only_services_that_ask_for_it_count_and_only_their_tags_for_us() {
        let body = br#"{
            "consul": [],
            "users": ["v2", "tollgate.paths=/users", "tollgate.enable=true"],
            "orders": ["tollgate.paths=/orders"],
            "off": ["tollgate.enable=false", "enable=true"]
        }"#;
        let found = catalog().read(body).expect("a list");
        let tags = ["enable=true", "paths=/users"].map(str::to_owned);
        let expected = Routed::from([("users".to_owned(), tags.to_vec())]);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_catalog_is_an_error() {
        for body in ["", "[]", "null", "{\"a\": null}", "{\"a\": [1]}", "{\"a\""] {
            assert!(catalog().read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
