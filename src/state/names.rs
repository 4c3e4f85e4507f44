//! Host names and their addresses, resolved in the background; a request never waits for more than
//! the first answer, and the last known addresses are kept whatever the resolver says later.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tracing::{info, warn};

use super::{
    feed::{Feed, News, Record},
    registry::Registry,
};

/// How often a name is resolved again if nothing else is said. The system resolver tells no lifetime.
const REFRESH: Duration = Duration::from_secs(10);
/// The same for a name without addresses.
const RETRY: Duration = Duration::from_secs(1);
/// No name is resolved more often than this.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups at once.
const LOOKUPS_MAX: usize = 64;

/// One host name.
#[derive(Debug)]
pub struct Name {
    host: String,
    feed: Feed,
}

impl Name {
    fn new(host: String, news: Arc<News>) -> Self {
        Self {
            host,
            feed: Feed::new(news),
        }
    }

    /// A name whose addresses are known and stay as they are.
    #[cfg(test)]
    pub(crate) fn of_addresses(host: &str, addresses: Vec<IpAddr>) -> Self {
        let name = Self::new(host.to_owned(), Arc::default());
        let records = addresses.into_iter().map(Record::of_address);
        name.feed.publish(records.collect());
        name
    }

    /// The name itself.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What it stands for.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Whether an address is known.
    pub fn is_resolved(&self) -> bool {
        !self.feed.records().is_empty()
    }

    async fn resolve(&self) {
        let lookup = tokio::net::lookup_host((self.host.as_str(), 0));
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(addresses)) => Ok(sorted(addresses.map(|address| address.ip()))),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the resolver did not answer".to_owned()),
        };
        let first = !self.feed.is_answered();
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                let records = addresses.iter().copied().map(Record::of_address);
                if self.feed.publish(records.collect()) {
                    info!(name = self.host, ?addresses, "name has new addresses");
                }
            }
            Ok(_) if first => warn!(name = self.host, "name has no address"),
            Err(cause) if first => warn!(name = self.host, cause, "name does not resolve"),
            Ok(_) | Err(_) => {}
        }
        self.feed.note_answer();
    }
}

/// IPv4 first, as most origins listen there, each kind in a stable order.
fn sorted(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses
}

/// All names that some snapshot refers to.
#[derive(Debug)]
pub struct Names {
    known: Registry<String, Name>,
    /// Says that a name is to be resolved.
    wanted: Notify,
    /// Hears of new addresses.
    news: Arc<News>,
    /// Milliseconds between two look-ups of a name with addresses, and of one without.
    refresh_ms: AtomicU64,
    retry_ms: AtomicU64,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Names {
    /// No names yet; `news` will hear of their addresses.
    pub fn new(news: Arc<News>) -> Self {
        Self {
            known: Registry::default(),
            wanted: Notify::new(),
            news,
            refresh_ms: AtomicU64::new(milliseconds(REFRESH)),
            retry_ms: AtomicU64::new(milliseconds(RETRY)),
        }
    }

    /// The name `host`, which is resolved from now on.
    pub fn get(&self, host: &str) -> Arc<Name> {
        let name = self.known.get_or_create(host.to_ascii_lowercase(), || {
            Name::new(host.to_ascii_lowercase(), Arc::clone(&self.news))
        });
        if !name.feed.is_answered() {
            self.wanted.notify_one();
        }
        name
    }

    /// Resolves names again after `refresh`, and those without addresses after `retry`; never sooner
    /// than after a second.
    pub fn set_pace(&self, refresh: Duration, retry: Duration) {
        for (pause, place) in [(refresh, &self.refresh_ms), (retry, &self.retry_ms)] {
            place.store(milliseconds(pause.max(PAUSE_MIN)), Ordering::Relaxed);
        }
    }

    /// The names that are in use.
    pub fn hosts(&self) -> Vec<String> {
        self.known.keys()
    }

    /// Resolves names until it is dropped: new ones at once, known ones from time to time.
    pub async fn run(&self) {
        let mut refreshed = Instant::now();
        loop {
            let pause = |place: &AtomicU64| Duration::from_millis(place.load(Ordering::Relaxed));
            let refresh = refreshed.elapsed() >= pause(&self.refresh_ms);
            if refresh {
                refreshed = Instant::now();
                self.known.sweep();
            }
            let mut lookups = JoinSet::new();
            for name in self.known.values() {
                if refresh || !name.is_resolved() {
                    if lookups.len() >= LOOKUPS_MAX {
                        lookups.join_next().await;
                    }
                    lookups.spawn(async move { name.resolve().await });
                }
            }
            while lookups.join_next().await.is_some() {}
            let until_refresh = pause(&self.refresh_ms).saturating_sub(refreshed.elapsed());
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(until_refresh.min(pause(&self.retry_ms))) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_request_waits_for_the_first_answer() {
        let names = Arc::new(Names::new(Arc::default()));
        let name = names.get("LocalHost");
        let resolver = Arc::clone(&names);
        let task = tokio::spawn(async move { resolver.run().await });
        name.feed().first_answer(Duration::from_secs(5)).await;
        let records = name.feed().records();
        assert!(records.contains(&Record::of_address(IpAddr::from([127, 0, 0, 1]))));
        task.abort();
    }

    #[test]
    fn no_name_is_resolved_more_often_than_once_a_second() {
        let names = Names::new(Arc::default());
        names.set_pace(Duration::ZERO, Duration::from_secs(30));
        assert_eq!(names.refresh_ms.load(Ordering::Relaxed), 1000);
        assert_eq!(names.retry_ms.load(Ordering::Relaxed), 30_000);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_has_no_address() {
        let names = Names::new(Arc::default());
        let name = names.get("no-such-host.invalid");
        name.resolve().await;
        assert!(name.feed().is_answered() && !name.is_resolved());
    }

    #[test]
    fn a_name_is_shared_and_lives_with_its_holders() {
        let names = Names::new(Arc::default());
        let one = names.get("a.test");
        assert!(Arc::ptr_eq(&one, &names.get("A.test")));
    }
}
