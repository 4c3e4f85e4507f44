//! Host names and what they stand for, asked for in the background each time an answer runs out; a
//! request never waits for more than the first answer, and what was known last is kept whatever the
//! servers say later.

use std::{
    cmp::Ordering as Order,
    collections::{BinaryHeap, HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{Id, JoinSet},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    clock::Clock,
    dns::{Dns, Found, Settings, Source, Unresolved},
    feed::{Feed, News, Record},
    registry::Registry,
};

/// No name is asked for more often than this.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// However long an answer holds, it is asked for again after this.
const PAUSE_MAX: Duration = Duration::from_hours(24);
/// The longest pause after failures, unless the settings begin with a longer one.
const ERROR_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Look-ups at once.
const LOOKUPS_MAX: usize = 64;

/// One host name.
#[derive(Debug)]
pub struct Name {
    host: String,
    feed: Feed,
    standing: Mutex<Standing>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

/// How the last look-ups of a name went.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// What gave what is known.
    by: Option<Source>,
    /// Failures since the last answer.
    failures: u32,
    /// Unix seconds.
    last_success: Option<i64>,
    /// Why the last look-up gave nothing, or not all.
    error: Option<String>,
    /// Whether the last look-up gave something in spite of its error.
    is_partial: bool,
    next: Option<Instant>,
}

impl Standing {
    /// How long to wait after one more failure: twice as long each time.
    fn pause_after_failure(&mut self, settings: &Settings) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let longest = ERROR_PAUSE_MAX.max(settings.error_ttl);
        let pause = settings.error_ttl.max(PAUSE_MIN);
        pause.saturating_mul(1 << doublings).min(longest)
    }
}

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Found,
    /// The servers know of no records.
    NotFound,
    /// No server gave an answer that can be used, at least about some of the hosts that it stands for.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Found, Self::NotFound, Self::Failed];

    /// The outcome as a metric spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
        }
    }
}

/// How a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameSurvey {
    pub host: String,
    /// `pending`, `resolved`, `partial` (some of the hosts that it stands for could not be asked for,
    /// what was known of them before is used), `stale` (the last look-up gave nothing, what was known
    /// before is used) or `dns_error` (nothing was ever known).
    pub state: &'static str,
    pub records: Arc<Vec<Record>>,
    /// The kind of records that gave them.
    pub by: Option<&'static str>,
    /// Unix seconds.
    pub last_success: Option<i64>,
    /// Why the last look-up gave nothing, or not all.
    pub error: Option<String>,
    /// How long it takes until it is asked for again; absent while it is being asked for.
    pub next_in: Option<Duration>,
    /// How many look-ups ended how.
    pub outcomes: [(Outcome, u64); Outcome::ALL.len()],
}

impl Name {
    fn new(host: String, news: Arc<News>) -> Self {
        Self {
            host,
            feed: Feed::new(news),
            standing: Mutex::default(),
            outcomes: Default::default(),
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

    fn addresses(&self) -> Vec<IpAddr> {
        let records = self.feed.records();
        records.iter().map(|record| record.address).collect()
    }

    /// How it is.
    pub fn survey(&self) -> NameSurvey {
        let records = self.feed.records();
        let standing = self.lock().clone();
        let state = match (&standing.error, records.is_empty()) {
            _ if !self.feed.is_answered() => "pending",
            (None, _) => "resolved",
            (Some(_), _) if standing.is_partial => "partial",
            (Some(_), false) => "stale",
            (Some(_), true) => "dns_error",
        };
        let count = |outcome: Outcome| self.outcomes[outcome as usize].load(Ordering::Relaxed);
        NameSurvey {
            host: self.host.clone(),
            state,
            records,
            by: standing.by.map(|by| by.ask.as_str()),
            last_success: standing.last_success,
            error: standing.error,
            next_in: standing
                .next
                .map(|next| next.saturating_duration_since(Instant::now())),
            outcomes: Outcome::ALL.map(|outcome| (outcome, count(outcome))),
        }
    }

    /// Asks for it once. How long to wait until the next time.
    async fn resolve(&self, dns: &Dns, clock: &Clock) -> Duration {
        let last = {
            let mut standing = self.lock();
            standing.next = None;
            standing.by.clone()
        };
        let known = self.feed.records();
        let found = dns.look_up(&self.host, last.as_ref(), &known).await;
        self.note(found, &dns.settings(), clock)
    }

    /// Takes an answer over, and tells the log where something has changed.
    fn note(
        &self,
        found: Result<Found, Unresolved>,
        settings: &Settings,
        clock: &Clock,
    ) -> Duration {
        let first = !self.feed.is_answered();
        let mut standing = self.lock();
        let outcome = match &found {
            Ok(found) if found.failure.is_none() => Outcome::Found,
            Err(Unresolved::NotFound) => Outcome::NotFound,
            Ok(_) | Err(Unresolved::Failed(_)) => Outcome::Failed,
        };
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let pause = match found {
            Ok(found) => {
                standing.is_partial = found.failure.is_some();
                standing.by = Some(found.by);
                let pause = match found.failure {
                    None => {
                        if standing.error.take().is_some() {
                            info!(name = self.host, "name resolves again");
                        }
                        standing.failures = 0;
                        standing.last_success = Some(clock.unix_seconds());
                        settings.valid_ttl.unwrap_or(found.ttl)
                    }
                    Some(cause) => {
                        let cause = cause.to_string();
                        if standing.error.is_none() {
                            warn!(name = self.host, cause, "name resolves only in part");
                        }
                        standing.error = Some(cause);
                        standing.pause_after_failure(settings).min(found.ttl)
                    }
                };
                if self.feed.publish(found.records) {
                    let addresses = self.addresses();
                    info!(name = self.host, ?addresses, "name has new addresses");
                }
                pause
            }
            Err(cause) => {
                standing.is_partial = false;
                let pause = match cause {
                    Unresolved::NotFound => {
                        standing.failures = 0;
                        settings.not_found_ttl
                    }
                    Unresolved::Failed(_) => standing.pause_after_failure(settings),
                };
                let cause = cause.to_string();
                let kept = self.feed.records().len();
                if standing.error.is_none() && !first {
                    warn!(
                        name = self.host,
                        cause, kept, "name does not resolve any more"
                    );
                } else if first {
                    warn!(name = self.host, cause, "name does not resolve");
                }
                standing.error = Some(cause);
                self.feed.note_answer();
                pause
            }
        };
        let pause = pause.clamp(PAUSE_MIN, PAUSE_MAX);
        standing.next = Some(Instant::now() + pause);
        pause
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a name is to be asked for. The soonest is the greatest.
#[derive(Debug)]
struct Due {
    at: Instant,
    name: Weak<Name>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Order {
        other.at.cmp(&self.at)
    }
}

/// All names that some snapshot refers to.
#[derive(Debug, Default)]
pub struct Names {
    known: Registry<String, Name>,
    dns: Arc<Dns>,
    /// Names that nobody has asked for yet.
    fresh: Mutex<Vec<Weak<Name>>>,
    /// There are fresh names, or other settings.
    call: Notify,
    news: Arc<News>,
}

impl Names {
    /// Names whose changes are told by `news`.
    pub fn new(news: Arc<News>) -> Self {
        Self {
            news,
            ..Self::default()
        }
    }

    /// The name `host`, which is asked for from now on.
    pub fn get(&self, host: &str) -> Arc<Name> {
        let host = host.to_ascii_lowercase();
        let mut is_fresh = false;
        let name = self.known.get_or_create(host.clone(), || {
            is_fresh = true;
            Name::new(host, Arc::clone(&self.news))
        });
        if is_fresh {
            self.lock_fresh().push(Arc::downgrade(&name));
            self.call.notify_one();
        }
        name
    }

    /// Asks by `settings` from now on, and for all names at once if they differ from those before.
    pub fn adopt(&self, settings: Settings) {
        if self.dns.adopt(settings) {
            let all = self.known.values();
            *self.lock_fresh() = all.iter().map(Arc::downgrade).collect();
            self.call.notify_one();
        }
    }

    /// The names that are in use.
    pub fn hosts(&self) -> Vec<String> {
        self.known.keys()
    }

    /// Forgets the names that nobody uses any more.
    pub fn sweep(&self) {
        self.known.sweep();
    }

    /// How each name is, in the order of names.
    pub fn survey(&self) -> Vec<NameSurvey> {
        let mut all: Vec<NameSurvey> = self
            .known
            .values()
            .iter()
            .map(|name| name.survey())
            .collect();
        all.sort_by(|left, right| left.host.cmp(&right.host));
        all
    }

    /// Asks for names until it is dropped: new ones at once, known ones when their answers run out.
    pub async fn run(&self, clock: &Clock) {
        let mut schedule = Schedule::default();
        loop {
            let fresh = std::mem::take(&mut *self.lock_fresh());
            schedule.add(fresh);
            let now = Instant::now();
            while let Some(name) = schedule.next_due(now) {
                let weak = Arc::downgrade(&name);
                let (dns, clock) = (Arc::clone(&self.dns), clock.clone());
                let lookup = async move { name.resolve(&dns, &clock).await };
                schedule.begin(weak, lookup);
            }
            let next = schedule.wakes_at(now);
            tokio::select! {
                () = self.call.notified() => {}
                () = schedule.finished() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    fn lock_fresh(&self) -> MutexGuard<'_, Vec<Weak<Name>>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which name is asked for when, and those that are being asked for.
#[derive(Debug, Default)]
struct Schedule {
    due: BinaryHeap<Due>,
    lookups: JoinSet<Duration>,
    under_way: HashMap<Id, UnderWay>,
}

/// A name that is being asked for.
#[derive(Debug)]
struct UnderWay {
    name: Weak<Name>,
    /// Whether it is to be asked for again as soon as there is an answer, which holds no more by then.
    again: bool,
}

impl Schedule {
    /// Asks for `names` at once, also for those that would be asked for later; for those that are being
    /// asked for, as soon as that ends.
    fn add(&mut self, names: Vec<Weak<Name>>) {
        if names.is_empty() {
            return;
        }
        let added: HashSet<*const Name> = names.iter().map(Weak::as_ptr).collect();
        self.due.retain(|due| !added.contains(&due.name.as_ptr()));
        let now = Instant::now();
        let mut asked: HashSet<*const Name> = HashSet::new();
        for under_way in self.under_way.values_mut() {
            let name = under_way.name.as_ptr();
            under_way.again |= added.contains(&name);
            asked.insert(name);
        }
        let names = names.into_iter();
        let fresh = names.filter(|name| !asked.contains(&name.as_ptr()));
        self.due.extend(fresh.map(|name| Due { at: now, name }));
    }

    /// A name that is due and still in use, if another look-up may begin.
    fn next_due(&mut self, now: Instant) -> Option<Arc<Name>> {
        while self.lookups.len() < LOOKUPS_MAX && self.due.peek().is_some_and(|due| due.at <= now) {
            if let Some(name) = self.due.pop().and_then(|due| due.name.upgrade()) {
                return Some(name);
            }
        }
        None
    }

    fn begin(&mut self, name: Weak<Name>, lookup: impl Future<Output = Duration> + Send + 'static) {
        let id = self.lookups.spawn(lookup).id();
        let again = false;
        self.under_way.insert(id, UnderWay { name, again });
    }

    fn wakes_at(&self, now: Instant) -> Instant {
        match self.due.peek() {
            Some(due) if self.lookups.len() < LOOKUPS_MAX => due.at,
            _ => now + PAUSE_MAX,
        }
    }

    /// Waits for the end of a look-up, for ever if there is none.
    async fn finished(&mut self) {
        let (id, pause) = match self.lookups.join_next_with_id().await {
            Some(Ok(ended)) => ended,
            // A look-up that panicked is no reason to forget its name.
            Some(Err(error)) => (error.id(), ERROR_PAUSE_MAX),
            None => std::future::pending().await,
        };
        if let Some(UnderWay { name, again }) = self.under_way.remove(&id) {
            let pause = if again { Duration::ZERO } else { pause };
            let at = Instant::now() + pause;
            self.due.push(Due { at, name });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::dns::Ask;

    #[tokio::test]
    async fn the_first_request_waits_for_the_first_answer() {
        let names = Arc::new(Names::default());
        let name = names.get("LocalHost");
        let resolver = Arc::clone(&names);
        let task = tokio::spawn(async move { resolver.run(&Clock::system()).await });
        name.feed().first_answer(Duration::from_secs(5)).await;
        assert_eq!(name.addresses(), [IpAddr::from([127, 0, 0, 1])]);
        task.abort();
    }

    fn unasked() -> Name {
        Name::new("a.test".to_owned(), Arc::default())
    }

    fn found(ttl: u64, last: u8) -> Found {
        Found {
            records: vec![Record::of_address(IpAddr::from([10, 0, 0, last]))],
            ttl: Duration::from_secs(ttl),
            by: Source::hosts_file(Ask::A),
            failure: None,
        }
    }

    fn failed() -> Result<Found, Unresolved> {
        Err(Unresolved::Failed("refused".to_owned()))
    }

    /// The seconds until the next look-up.
    fn pause(name: &Name, settings: &Settings, found: Result<Found, Unresolved>) -> u64 {
        name.note(found, settings, &Clock::system()).as_secs()
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_but_at_least_a_second() {
        let name = unasked();
        let mut settings = Settings::default();
        assert_eq!(pause(&name, &settings, Ok(found(0, 1))), 1);
        assert_eq!(pause(&name, &settings, Ok(found(7, 1))), 7);
        assert_eq!(pause(&name, &settings, Ok(found(1 << 31, 1))), 24 * 3600);
        settings.valid_ttl = Some(Duration::from_secs(3));
        assert_eq!(pause(&name, &settings, Ok(found(7, 1))), 3);
    }

    #[test]
    fn failures_are_retried_more_and_more_slowly_up_to_half_a_minute() {
        let name = unasked();
        let settings = Settings::default();
        let pauses: Vec<u64> = (0..7).map(|_| pause(&name, &settings, failed())).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        pause(&name, &settings, Ok(found(1, 1)));
        assert_eq!(pause(&name, &settings, failed()), 1);
        let missing = Err(Unresolved::NotFound);
        assert_eq!(pause(&name, &settings, missing), 30);
    }

    #[test]
    fn an_answer_in_part_is_asked_for_again_like_a_failure_and_shows() {
        let name = unasked();
        let settings = Settings {
            valid_ttl: Some(Duration::from_hours(1)),
            ..Settings::default()
        };
        let in_part = |ttl| {
            let failure = Some(Unresolved::Failed("b.test: refused".to_owned()));
            let found = found(ttl, 1);
            Ok(Found { failure, ..found })
        };
        let pauses = [60, 60, 60, 3].map(|ttl| pause(&name, &settings, in_part(ttl)));
        assert_eq!(pauses, [1, 2, 4, 3]);
        let survey = name.survey();
        assert_eq!((survey.state, survey.records.len()), ("partial", 1));
        assert_eq!(survey.error.as_deref(), Some("b.test: refused"));
        assert_eq!((survey.last_success, survey.outcomes[2].1), (None, 4));
        assert_eq!(pause(&name, &settings, Ok(found(60, 1))), 3600);
        assert_eq!(name.survey().state, "resolved");
    }

    #[test]
    fn what_was_known_stays_whatever_comes_later() {
        let name = unasked();
        let settings = Settings::default();
        let state = |found| {
            pause(&name, &settings, found);
            (name.survey().state, name.addresses().len())
        };
        assert_eq!(name.survey().state, "pending");
        assert_eq!(state(failed()), ("dns_error", 0));
        assert_eq!(state(Ok(found(1, 1))), ("resolved", 1));
        assert_eq!(state(failed()), ("stale", 1));
        assert_eq!(state(Err(Unresolved::NotFound)), ("stale", 1));
        assert_eq!(state(Ok(found(1, 2))), ("resolved", 1));
        let counts = name.survey().outcomes.map(|(_, count)| count);
        assert_eq!(counts, [2, 1, 2]);
    }

    #[tokio::test]
    async fn the_soonest_is_asked_for_first_and_a_name_that_nobody_uses_not_at_all() {
        let now = Instant::now();
        let names = Names::default();
        let (late, soon, gone) = (names.get("late"), names.get("soon"), names.get("gone"));
        let mut schedule = Schedule::default();
        for (name, seconds) in [(&late, 2), (&gone, 0), (&soon, 1)] {
            schedule.due.push(Due {
                at: now + Duration::from_secs(seconds),
                name: Arc::downgrade(name),
            });
        }
        drop(gone);
        assert!(schedule.next_due(now).is_none());
        assert_eq!(schedule.wakes_at(now), now + Duration::from_secs(1));
        let next = schedule.next_due(now + Duration::from_secs(5));
        assert_eq!(next.expect("one is due").host(), "soon");
        schedule.add(vec![Arc::downgrade(&late)]);
        assert_eq!(schedule.due.len(), 1, "it has one place in the schedule");
    }

    #[tokio::test]
    async fn a_name_that_is_being_asked_for_as_settings_change_is_asked_for_again_at_once() {
        let names = Names::default();
        let name = names.get("a.test");
        let mut schedule = Schedule::default();
        schedule.begin(Arc::downgrade(&name), async { PAUSE_MAX });
        schedule.add(vec![Arc::downgrade(&name)]);
        assert!(schedule.due.is_empty(), "not twice at once");
        schedule.finished().await;
        assert!(schedule.next_due(Instant::now()).is_some());
    }

    #[test]
    fn a_name_is_shared_and_lives_with_its_holders() {
        let names = Names::default();
        let one = names.get("a.test");
        assert!(Arc::ptr_eq(&one, &names.get("A.test")));
    }
}
