//! The instances of one service as Consul tells them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::{
    Agent, Standing,
    follow::{Subject, query},
    instances::{self, Instances},
};
use crate::state::feed::{Feed, News};

/// What may not stand in a path as it is (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What decides which instances are asked for, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    pub agent: Agent,
    pub service: String,
    /// An instance must have all of them.
    pub tags: Vec<String>,
    /// Only instances whose checks pass.
    pub passing: bool,
}

impl ServiceKey {
    /// Whether both stand for the same instances of the same Consul, whoever asks for them.
    pub(super) fn is_same_list(&self, other: &Self) -> bool {
        self.service == other.service
            && self.tags == other.tags
            && self.passing == other.passing
            && self.agent.is_same_consul(&other.agent)
    }
}

/// The instances of a service. They are followed until it is dropped.
#[derive(Debug)]
pub struct Service {
    key: ServiceKey,
    feed: Feed,
    standing: Mutex<Standing>,
    /// Instances of the last answer that cannot be used.
    unusable: AtomicUsize,
    _stop: DropGuard,
}

impl Service {
    pub(super) fn new(key: ServiceKey, news: Arc<News>, stop: CancellationToken) -> Self {
        Self {
            key,
            feed: Feed::new(news),
            standing: Mutex::default(),
            unusable: AtomicUsize::new(0),
            _stop: stop.drop_guard(),
        }
    }

    /// What it is.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// Its instances.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let standing = self.standing.lock();
        standing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Instances of the last answer that have no IP address or no port.
    pub fn unusable(&self) -> usize {
        self.unusable.load(Ordering::Relaxed)
    }

    /// Takes over what `other` knows, until there is an answer.
    pub(super) fn begin_with(&self, other: &Self) {
        self.feed.publish(other.feed.records().to_vec());
    }

    #[cfg(test)]
    pub(crate) fn read_and_adopt(&self, body: &[u8]) {
        let list = self.read(body).expect("a list");
        self.adopt(list);
    }
}

impl Subject for Service {
    type List = Instances;

    fn agent(&self) -> &Agent {
        &self.key.agent
    }

    fn path(&self) -> String {
        let passing = self.key.passing.then_some(("passing", "true"));
        let tags = self.key.tags.iter().map(|tag| ("tag", tag.as_str()));
        let parameters = passing
            .into_iter()
            .chain(tags)
            .chain(self.key.agent.datacenter_parameter());
        let name = utf8_percent_encode(&self.key.service, RESERVED);
        query(&format!("/v1/health/service/{name}"), parameters)
    }

    fn read(&self, body: &[u8]) -> Result<Instances, String> {
        instances::read(body)
    }

    fn leaves_nothing(&self, list: &Instances) -> bool {
        list.records.is_empty() && !self.feed.records().is_empty()
    }

    fn adopt(&self, list: Instances) {
        self.unusable.store(list.unusable, Ordering::Relaxed);
        let count = list.records.len();
        if self.feed.publish(list.records) {
            let service = &self.key.service;
            info!(service, instances = count, "service has other instances");
            if list.unusable > 0 {
                let unusable = list.unusable;
                warn!(
                    service,
                    unusable, "instances without an IP address or a port are left out"
                );
            }
        }
    }

    fn note_failure(&self) {
        self.feed.note_answer();
    }

    fn note(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut standing);
    }

    fn name(&self) -> &str {
        &self.key.service
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::consul::tests::agent;

    fn service(service: &str, tags: &[&str], passing: bool) -> Service {
        let key = ServiceKey {
            agent: Agent {
                datacenter: Some("dc 1".to_owned()),
                ..agent("t")
            },
            service: service.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            passing,
        };
        Service::new(key, Arc::default(), CancellationToken::new())
    }

    #[test]
    fn the_question_names_all_that_decides() {
        assert_eq!(
            service("users", &["v=1&2", "blue"], true).path(),
            "/v1/health/service/users?passing=true&tag=v%3D1%262&tag=blue&dc=dc+1"
        );
        assert_eq!(
            service("a/b", &[], false).path(),
            "/v1/health/service/a%2Fb?dc=dc+1"
        );
    }

    #[test]
    fn a_drop_to_zero_is_one_only_from_more_than_zero() {
        let service = service("users", &[], true);
        let none = || service.read(b"[]").expect("a list");
        assert!(!service.leaves_nothing(&none()));
        service.read_and_adopt(br#"[{"Service": {"Address": "10.0.0.1", "Port": 80}}]"#);
        assert!(service.leaves_nothing(&none()));
    }
}
