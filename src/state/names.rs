//! Host names and their addresses, resolved in the background; a request never waits for more than
//! the first answer, and the last known addresses are kept whatever the resolver says later.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tracing::{info, warn};

use super::registry::Registry;

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
    addresses: ArcSwapOption<Vec<IpAddr>>,
    /// Whether a look-up has ended, with or without addresses.
    answered: std::sync::atomic::AtomicBool,
    answer: Notify,
    position: AtomicUsize,
}

impl Name {
    fn new(host: String) -> Self {
        Self {
            host,
            addresses: ArcSwapOption::empty(),
            answered: std::sync::atomic::AtomicBool::new(false),
            answer: Notify::new(),
            position: AtomicUsize::new(0),
        }
    }

    /// A name whose addresses are known and stay as they are.
    #[cfg(test)]
    pub(crate) fn of_addresses(host: &str, addresses: Vec<IpAddr>) -> Self {
        let name = Self::new(host.to_owned());
        name.addresses.store(Some(Arc::new(addresses)));
        name
    }

    /// The name itself.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether an address is known.
    pub fn is_resolved(&self) -> bool {
        self.addresses.load().is_some()
    }

    /// The addresses that are known.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses
            .load()
            .as_ref()
            .map_or_else(Vec::new, |addresses| addresses.to_vec())
    }

    /// How many addresses are known, and how many of them are `usable`.
    pub fn count(&self, usable: impl Fn(IpAddr) -> bool) -> (usize, usize) {
        let addresses = self.addresses.load();
        let addresses = addresses.as_ref().map_or(&[][..], |known| known.as_slice());
        let is_usable = |address: &&IpAddr| usable(**address);
        (addresses.len(), addresses.iter().filter(is_usable).count())
    }

    /// The next address in turn that is `usable`; one that is also `preferred` while there is one.
    /// Waits up to `patience` for the very first answer of the resolver; `None` if no such address
    /// is known then.
    pub async fn address(
        &self,
        patience: Duration,
        usable: impl Fn(IpAddr) -> bool + Send,
        preferred: impl Fn(IpAddr) -> bool + Send,
    ) -> Option<IpAddr> {
        let known = self.next(&usable, &preferred);
        if known.is_some() || self.answered.load(Ordering::Acquire) {
            return known;
        }
        let answer = self.answer.notified();
        tokio::pin!(answer);
        answer.as_mut().enable();
        if !self.answered.load(Ordering::Acquire) {
            // A timeout is an answer too: there is no address.
            let _ = tokio::time::timeout(patience, answer).await;
        }
        self.next(&usable, &preferred)
    }

    fn next(
        &self,
        usable: &impl Fn(IpAddr) -> bool,
        preferred: &impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let addresses = self.addresses.load();
        let addresses = addresses.as_ref()?;
        // One turn fixes where to begin, so that others who take turns meanwhile hide no address.
        let first = self.position.fetch_add(1, Ordering::Relaxed);
        let mut spare = None;
        for passed_over in 0..addresses.len() {
            let turn = first.wrapping_add(passed_over) % addresses.len();
            let Some(address) = addresses.get(turn).filter(|address| usable(**address)) else {
                continue;
            };
            if preferred(*address) {
                // The turns that fell on others are over.
                self.position.fetch_add(passed_over, Ordering::Relaxed);
                return Some(*address);
            }
            spare.get_or_insert(*address);
        }
        spare
    }

    async fn resolve(&self) {
        let lookup = tokio::net::lookup_host((self.host.as_str(), 0));
        let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(addresses)) => Ok(sorted(addresses.map(|address| address.ip()))),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the resolver did not answer".to_owned()),
        };
        let first = !self.answered.load(Ordering::Acquire);
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                let known = self.addresses.load();
                if known.as_ref().is_none_or(|known| **known != addresses) {
                    info!(name = self.host, ?addresses, "name has new addresses");
                    self.addresses.store(Some(Arc::new(addresses)));
                }
            }
            Ok(_) if first => warn!(name = self.host, "name has no address"),
            Err(cause) if first => warn!(name = self.host, cause, "name does not resolve"),
            Ok(_) | Err(_) => {}
        }
        self.answered.store(true, Ordering::Release);
        self.answer.notify_waiters();
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
    news: Notify,
    /// Milliseconds between two look-ups of a name with addresses, and of one without.
    refresh_ms: AtomicU64,
    retry_ms: AtomicU64,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            known: Registry::default(),
            news: Notify::new(),
            refresh_ms: AtomicU64::new(milliseconds(REFRESH)),
            retry_ms: AtomicU64::new(milliseconds(RETRY)),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Names {
    /// The name `host`, which is resolved from now on.
    pub fn get(&self, host: &str) -> Arc<Name> {
        let name = self.known.get_or_create(host.to_ascii_lowercase(), || {
            Name::new(host.to_ascii_lowercase())
        });
        if !name.answered.load(Ordering::Acquire) {
            self.news.notify_one();
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
                () = self.news.notified() => {}
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
        let names = Arc::new(Names::default());
        let name = names.get("LocalHost");
        let resolver = Arc::clone(&names);
        let task = tokio::spawn(async move { resolver.run().await });
        let address = name
            .address(Duration::from_secs(5), |_| true, |_| true)
            .await;
        assert_eq!(address, Some(IpAddr::from([127, 0, 0, 1])));
        task.abort();
    }

    #[test]
    fn no_name_is_resolved_more_often_than_once_a_second() {
        let names = Names::default();
        names.set_pace(Duration::ZERO, Duration::from_secs(30));
        assert_eq!(names.refresh_ms.load(Ordering::Relaxed), 1000);
        assert_eq!(names.retry_ms.load(Ordering::Relaxed), 30_000);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_has_no_address() {
        let names = Names::default();
        let name = names.get("no-such-host.invalid");
        name.resolve().await;
        let address = name.address(Duration::from_secs(5), |_| true, |_| true);
        assert_eq!(address.await, None);
    }

    #[test]
    fn addresses_take_turns_and_unusable_ones_are_passed_over() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let name = Name::of_addresses("a.test", (1..=3).map(address).collect());
        let next = |out| name.next(&|known| known != address(out), &|_| true);
        let picks: Vec<_> = (0..4).map(|_| next(2)).collect();
        assert_eq!(picks, [1, 3, 1, 3].map(|last| Some(address(last))));
        assert_eq!(name.next(&|_| false, &|_| true), None);
        assert_eq!(name.count(|known| known != address(2)), (3, 2));
    }

    #[test]
    fn an_address_that_is_not_preferred_is_taken_only_if_no_other_is_left() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let name = Name::of_addresses("a.test", (1..=3).map(address).collect());
        let usable = |known| known != address(3);
        for _ in 0..4 {
            let next = name.next(&usable, &|known| known != address(1));
            assert_eq!(next, Some(address(2)));
        }
        assert!(name.next(&usable, &|_| false).is_some_and(usable));
    }

    #[test]
    fn threads_that_take_turns_together_hide_no_address_from_each_other() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let name = Name::of_addresses("a.test", vec![address(1), address(2)]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let next = name.next(&|known| known == address(2), &|_| true);
                        assert_eq!(next, Some(address(2)));
                    }
                });
            }
        });
    }

    #[test]
    fn a_name_is_shared_and_lives_with_its_holders() {
        let names = Names::default();
        let one = names.get("a.test");
        assert!(Arc::ptr_eq(&one, &names.get("A.test")));
    }
}
