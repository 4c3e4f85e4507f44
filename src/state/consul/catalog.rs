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

/// The services of an answer.
#[derive(Debug)]
pub(super) struct Services {
    routed: Routed,
    /// Those that ask for routes beyond the most that may, in order.
    beyond: Vec<String>,
}

/// What decides which services there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CatalogKey {
    pub agent: Agent,
    /// What the tags begin with that are meant for the gateway.
    pub tag_prefix: String,
}

impl CatalogKey {
    /// Whether both stand for the same services of the same Consul, whoever asks for them.
    pub(super) fn is_same_list(&self, other: &Self) -> bool {
        self.tag_prefix == other.tag_prefix && self.agent.is_same_consul(&other.agent)
    }
}

/// The services that ask for routes. They are followed until it is dropped.
#[derive(Debug)]
pub struct Catalog {
    key: CatalogKey,
    services: ArcSwap<Routed>,
    /// Services that ask for routes and are too many, in order.
    beyond: ArcSwap<Vec<String>>,
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
            beyond: ArcSwap::default(),
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

    /// Those that ask for routes and have none, in the order of the services.
    pub fn skipped(&self) -> Arc<Vec<Skipped>> {
        self.skipped.load_full()
    }

    /// Notes which of the services have no routes, beside those that are too many, and tells the log of
    /// those that are new.
    pub fn note_skipped(&self, mut skipped: Vec<Skipped>) {
        let beyond = self.beyond.load_full();
        skipped.extend(beyond.iter().map(|service| Skipped {
            service: service.clone(),
            reason: format!("only {SERVICES_MAX} services may ask for routes"),
        }));
        skipped.sort_by(|left, right| left.service.cmp(&right.service));
        let before = self.skipped();
        let is_known = |new: &Skipped| {
            let found = before.binary_search_by(|known| known.service.cmp(&new.service));
            found.is_ok_and(|index| before.get(index) == Some(new))
        };
        for skipped in skipped.iter().filter(|new| !is_known(new)) {
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
        self.beyond.store(other.beyond.load_full());
        self.skipped.store(other.skipped());
    }
}

impl Subject for Catalog {
    type List = Services;

    fn agent(&self) -> &Agent {
        &self.key.agent
    }

    fn path(&self) -> String {
        let parameters = self.key.agent.datacenter_parameter();
        query("/v1/catalog/services", parameters.into_iter())
    }

    fn read(&self, body: &[u8]) -> Result<Services, String> {
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
        let wanting = all.filter(|(_, tags)| tags.iter().any(|tag| tag == ENABLE));
        let mut routed: Routed = wanting.collect();
        let first_beyond = routed.keys().nth(SERVICES_MAX).cloned();
        let beyond = first_beyond.map(|first| routed.split_off(&first));
        Ok(Services {
            routed,
            beyond: beyond.into_iter().flat_map(Routed::into_keys).collect(),
        })
    }

    fn leaves_nothing(&self, list: &Services) -> bool {
        list.routed.is_empty() && !self.services.load().is_empty()
    }

    fn adopt(&self, list: Services) {
        let Services { routed, beyond } = list;
        if **self.services.load() != routed || **self.beyond.load() != beyond {
            info!(services = routed.len(), "other services ask for routes");
            self.beyond.store(Arc::new(beyond));
            self.services.store(Arc::new(routed));
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
        let found = catalog().read(body).expect("a list").routed;
        let tags = ["enable=true", "paths=/users"].map(str::to_owned);
        let expected = Routed::from([("users".to_owned(), tags.to_vec())]);
        assert_eq!(found, expected);
    }

    #[test]
    fn services_that_are_too_many_are_skipped_with_the_reason() {
        let services: BTreeMap<String, [&str; 1]> = (0..=SERVICES_MAX)
            .map(|number| (format!("s{number:05}"), ["tollgate.enable=true"]))
            .collect();
        let body = serde_json::to_vec(&services).expect("json");
        let catalog = catalog();
        catalog.adopt(catalog.read(&body).expect("a list"));
        let skip = |service: &str, reason: &str| Skipped {
            service: service.to_owned(),
            reason: reason.to_owned(),
        };
        catalog.note_skipped(vec![skip("s00007", "no paths")]);
        assert_eq!(catalog.services().len(), SERVICES_MAX);
        let beyond = "only 4096 services may ask for routes";
        let expected = [skip("s00007", "no paths"), skip("s04096", beyond)];
        assert_eq!(*catalog.skipped(), expected);
    }

    #[test]
    fn what_is_no_catalog_is_an_error() {
        for body in ["", "[]", "null", "{\"a\": null}", "{\"a\": [1]}", "{\"a\""] {
            assert!(catalog().read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
