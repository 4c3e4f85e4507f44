//! Consul: which instances a service has, and which services there are, followed by blocking queries
//! for as long as some snapshot wants to know. What was known last is kept whatever comes later.

mod catalog;
mod follow;
mod instances;
mod polls;
mod service;
mod standing;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{clock::Clock, feed::News, registry::Registry};
use crate::{
    client::{Base, Security},
    entity::Secret,
};
pub use catalog::{Catalog, CatalogKey, Routed, Skipped};
use polls::Polls;
pub use service::{Service, ServiceKey};
pub use standing::Standing;

/// Whom to ask, and as whom.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    pub address: Base,
    /// Of an address over TLS.
    pub security: Option<Security>,
    /// Absent: that of the agent itself.
    pub datacenter: Option<String>,
    /// Sent in a header, never shown.
    pub token: Option<Secret<String>>,
    /// How long a question waits for a change.
    pub wait: Duration,
}

impl fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.address.url(""))
    }
}

impl Agent {
    /// Whether both are answered by the same Consul, with whatever token, patience and authorities.
    fn is_same_consul(&self, other: &Self) -> bool {
        self.address == other.address && self.datacenter == other.datacenter
    }

    /// The parameter that names the datacenter.
    fn datacenter_parameter(&self) -> Option<(&'static str, &str)> {
        let datacenter = self.datacenter.as_deref()?;
        Some(("dc", datacenter))
    }
}

/// Everything that is asked of Consul.
#[derive(Debug, Default)]
pub struct Consul {
    services: Registry<ServiceKey, Service>,
    catalogs: Registry<CatalogKey, Catalog>,
    /// How many questions are under way, by whom they are asked.
    polls: Registry<Base, Polls>,
    /// Those that nobody follows yet.
    fresh: Mutex<Vec<Fresh>>,
    call: Notify,
    news: Arc<News>,
    catalog_news: Arc<Notify>,
}

/// Something to follow until `stop`.
#[derive(Debug)]
struct Fresh {
    what: List,
    polls: Arc<Polls>,
    stop: CancellationToken,
}

#[derive(Debug)]
enum List {
    Service(Weak<Service>),
    Catalog(Weak<Catalog>),
}

impl Consul {
    /// Consul whose instances tell changes by `news`.
    pub fn new(news: Arc<News>) -> Self {
        Self {
            news,
            ..Self::default()
        }
    }

    /// The instances of a service, which are followed from now on. If they are followed with another
    /// token, wait or TLS, it begins with what is known so.
    pub fn service(&self, key: ServiceKey) -> Arc<Service> {
        if let Some(known) = self.services.find(&key) {
            return known;
        }
        let others = self.services.values();
        let other = others
            .iter()
            .find(|other| other.feed().is_known() && other.key().is_same_list(&key));
        let address = key.agent.address.clone();
        let stop = CancellationToken::new();
        let service = self.services.get_or_create(key.clone(), || {
            let service = Service::new(key, Arc::clone(&self.news), stop.clone());
            if let Some(other) = other {
                service.begin_with(other);
            }
            service
        });
        self.follow(List::Service(Arc::downgrade(&service)), address, stop);
        service
    }

    /// The services that ask for routes, followed from now on. Begins like [`Self::service`].
    pub fn catalog(&self, key: CatalogKey) -> Arc<Catalog> {
        if let Some(known) = self.catalogs.find(&key) {
            return known;
        }
        let others = self.catalogs.values();
        let other = others
            .iter()
            .find(|other| !other.services().is_empty() && other.key().is_same_list(&key));
        let address = key.agent.address.clone();
        let stop = CancellationToken::new();
        let catalog = self.catalogs.get_or_create(key.clone(), || {
            let catalog = Catalog::new(key, Arc::clone(&self.catalog_news), stop.clone());
            if let Some(other) = other {
                catalog.begin_with(other);
            }
            catalog
        });
        self.follow(List::Catalog(Arc::downgrade(&catalog)), address, stop);
        catalog
    }

    /// Waits until the services that ask for routes have changed since the last wait ended.
    pub async fn catalog_changed(&self) {
        self.catalog_news.notified().await;
    }

    /// The services whose instances are followed.
    pub fn followed(&self) -> Vec<ServiceKey> {
        self.services.keys()
    }

    /// The lists of services that are followed.
    pub fn followed_catalogs(&self) -> Vec<CatalogKey> {
        self.catalogs.keys()
    }

    /// Forgets what nobody wants to know any more.
    pub fn sweep(&self) {
        self.services.sweep();
        self.catalogs.sweep();
        self.polls.sweep();
    }

    /// Follows what is wanted until it is dropped.
    pub async fn run(&self, clock: &Clock) {
        loop {
            let fresh = std::mem::take(&mut *self.lock_fresh());
            for Fresh { what, polls, stop } in fresh {
                let clock = clock.clone();
                tokio::spawn(async move {
                    let follow = async {
                        match what {
                            List::Service(service) => {
                                follow::follow(service, &polls, &clock).await;
                            }
                            List::Catalog(catalog) => {
                                follow::follow(catalog, &polls, &clock).await;
                            }
                        }
                    };
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = follow => {}
                    }
                });
            }
            self.call.notified().await;
        }
    }

    fn follow(&self, what: List, address: Base, stop: CancellationToken) {
        let polls = self.polls.get_or_create(address, Polls::default);
        self.lock_fresh().push(Fresh { what, polls, stop });
        self.call.notify_one();
    }

    fn lock_fresh(&self) -> std::sync::MutexGuard<'_, Vec<Fresh>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn agent(token: &str) -> Agent {
        Agent {
            address: "http://127.0.0.1:8500".parse().expect("an address"),
            security: None,
            datacenter: None,
            token: Some(Secret::new(token.to_owned())),
            wait: Duration::from_secs(30),
        }
    }

    fn key(token: &str) -> ServiceKey {
        ServiceKey {
            agent: agent(token),
            service: "users".to_owned(),
            tags: Vec::new(),
            passing: true,
        }
    }

    #[test]
    fn a_list_is_followed_once_for_all_who_want_it() {
        let consul = Consul::default();
        let one = consul.service(key("a"));
        let again = consul.service(key("a"));
        assert!(Arc::ptr_eq(&one, &again));
        assert_eq!(consul.lock_fresh().len(), 1);
        drop((one, again));
        assert!(consul.followed().is_empty());
    }

    #[test]
    fn another_token_begins_with_what_the_old_one_knew() {
        let consul = Consul::default();
        let old = consul.service(key("a"));
        let body = br#"[{"Service": {"Address": "10.0.0.1", "Port": 80}}]"#;
        old.read_and_adopt(body);
        let new = consul.service(key("b"));
        assert!(!Arc::ptr_eq(&old, &new));
        assert_eq!(new.feed().records(), old.feed().records());
        assert!(new.feed().is_known());
    }

    #[test]
    fn another_consul_begins_anew() {
        let consul = Consul::default();
        let old = consul.service(key("a"));
        old.read_and_adopt(br#"[{"Service": {"Address": "10.0.0.1", "Port": 80}}]"#);
        let agent = Agent {
            address: "http://127.0.0.1:8501".parse().expect("an address"),
            ..agent("a")
        };
        let new = consul.service(ServiceKey { agent, ..key("a") });
        assert!(!new.feed().is_known());
    }

    #[test]
    fn what_is_not_known_yet_is_nothing_to_begin_with() {
        let consul = Consul::default();
        let unanswered = consul.service(key("a"));
        let known = consul.service(key("b"));
        known.read_and_adopt(br#"[{"Service": {"Address": "10.0.0.1", "Port": 80}}]"#);
        let new = consul.service(key("c"));
        assert_eq!(new.feed().records(), known.feed().records());
        drop(unanswered);
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?} {:#?}", key("hunter2"), agent("hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
