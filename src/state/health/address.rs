//! The health of one address: healthy or not, since when and why, and what was counted on the way
//! to the next change. One atomic word, so that reading and counting take no lock.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

/// Who saw it. Each counts for itself, so that good traffic cannot hide failing probes, nor the
/// other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// A probe of the gateway.
    Active,
    /// A request that was proxied.
    Passive,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A status that counts as a success.
    GoodStatus(u16),
    /// A connection, where no more is asked for.
    Connected,
    /// A status that counts as a failure.
    BadStatus(u16),
    /// A gRPC server that says it serves.
    Serving,
    /// A gRPC server that does not say so; in a few words what it says.
    NotServing(&'static str),
    /// No connection, or one that broke before a response; in a few words how.
    Broken(&'static str),
    /// No connection or no response in time.
    TimedOut,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoodStatus(status) | Self::BadStatus(status) => {
                write!(formatter, "http {status}")
            }
            Self::Connected => formatter.write_str("tcp connected"),
            Self::Serving => formatter.write_str("grpc serving"),
            Self::NotServing(what) => write!(formatter, "grpc {what}"),
            Self::Broken(how) => write!(formatter, "tcp {how}"),
            Self::TimedOut => formatter.write_str("timeout"),
        }
    }
}

/// How many findings of a kind in a row change the health; 0: that kind counts for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
    /// Absent = every time the same.
    pub damping: Option<Damping>,
}

/// When an address that comes and goes must prove itself for longer before it is healthy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damping {
    /// So often it became unhealthy; at most [`FALLS_MAX`].
    pub falls: u8,
    /// Within so many milliseconds.
    pub window: i64,
    /// Then it takes so many times the successes, at most 255.
    pub factor: u8,
}

/// How many times of becoming unhealthy an address remembers.
pub const FALLS_MAX: u8 = 16;

/// What was counted since the last change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
}

/// The counts of both witnesses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub active: Tally,
    pub passive: Tally,
}

/// The last change of the health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub healthy: bool,
    /// In Unix milliseconds.
    pub since: i64,
    /// Such as `3/3 http 500`; absent as long as nothing changed.
    pub cause: Option<Cause>,
    /// When it became unhealthy so far, in Unix milliseconds, the last [`FALLS_MAX`] times.
    falls: Vec<i64>,
}

impl Change {
    /// How often it became unhealthy from `since` on, in Unix milliseconds.
    fn falls_since(&self, since: i64) -> usize {
        self.falls.iter().filter(|fall| **fall > since).count()
    }
}

/// Why the health changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    pub finding: Finding,
    /// The limit that was reached.
    pub limit: u8,
    pub witness: Witness,
}

impl fmt::Display for Cause {
    /// `3/3 http 500`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { finding, limit, .. } = self;
        write!(formatter, "{limit}/{limit} {finding}")
    }
}

impl Cause {
    /// `3/3 http 500 (active)`
    pub fn with_witness(&self) -> String {
        format!("{self} ({})", self.witness)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Active => "active",
            Self::Passive => "passive",
        })
    }
}

/// What a finding is counted as. The failures are at the same time the places of their counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Success,
    Http,
    Tcp,
    Timeout,
}

impl Finding {
    /// Whether it speaks for the address.
    pub const fn is_success(self) -> bool {
        matches!(self.kind(), Kind::Success)
    }

    const fn kind(self) -> Kind {
        match self {
            Self::GoodStatus(_) | Self::Connected | Self::Serving => Kind::Success,
            Self::BadStatus(_) | Self::NotServing(_) => Kind::Http,
            Self::Broken(_) => Kind::Tcp,
            Self::TimedOut => Kind::Timeout,
        }
    }
}

impl Limits {
    const fn of(self, kind: Kind) -> u8 {
        match kind {
            Kind::Success => self.successes,
            Kind::Http => self.http_failures,
            Kind::Tcp => self.tcp_failures,
            Kind::Timeout => self.timeouts,
        }
    }
}

const UNHEALTHY: u64 = 1 << 63;
const COUNTER: u64 = 0xff;
const COUNTER_BITS: u32 = 8;
/// Three counters of one witness.
const LANE: u64 = 0x00ff_ffff;
const LANE_BITS: u32 = 24;

/// The health of one address.
#[derive(Debug)]
pub struct AddressHealth {
    address: SocketAddr,
    /// The top bit says unhealthy. Below it each witness has a lane of three counters: failures by
    /// http, tcp and timeout while healthy; while unhealthy the first of them counts successes.
    word: AtomicU64,
    change: ArcSwap<Change>,
}

impl AddressHealth {
    /// Healthy since `now`, in Unix milliseconds.
    pub fn new(address: SocketAddr, now: i64) -> Self {
        Self {
            address,
            word: AtomicU64::new(0),
            change: ArcSwap::from_pointee(Change {
                healthy: true,
                since: now,
                cause: None,
                falls: Vec::new(),
            }),
        }
    }

    /// The address itself.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether requests may go there.
    pub fn is_healthy(&self) -> bool {
        self.word.load(Ordering::Relaxed) & UNHEALTHY == 0
    }

    /// The last change.
    pub fn last_change(&self) -> Arc<Change> {
        self.change.load_full()
    }

    /// What was counted since then.
    pub fn counters(&self) -> Counters {
        let word = self.word.load(Ordering::Relaxed);
        let tally = |witness: Witness| {
            let counter = |place: u32| {
                u8::try_from(word >> (witness.shift() + place * COUNTER_BITS) & COUNTER)
                    .unwrap_or(u8::MAX)
            };
            if word & UNHEALTHY == 0 {
                Tally {
                    successes: 0,
                    http_failures: counter(0),
                    tcp_failures: counter(1),
                    timeouts: counter(2),
                }
            } else {
                Tally {
                    successes: counter(0),
                    ..Tally::default()
                }
            }
        };
        Counters {
            active: tally(Witness::Active),
            passive: tally(Witness::Passive),
        }
    }

    /// Counts what was seen. Gives the change, if this made one; `now` tells the time then, in Unix
    /// milliseconds.
    pub fn report(
        &self,
        witness: Witness,
        finding: Finding,
        limits: Limits,
        now: impl Fn() -> i64,
    ) -> Option<Arc<Change>> {
        let kind = finding.kind();
        let mut limit = limits.of(kind);
        if kind == Kind::Success
            && let Some(damping) = limits.damping
            && !self.is_healthy()
            && self.is_flapping(damping, now())
        {
            limit = limit.saturating_mul(damping.factor);
        }
        // A good response ends a row of bad ones even where it heals nobody.
        let ends_a_row = kind == Kind::Success && witness == Witness::Passive;
        if limit == 0 && !ends_a_row {
            return None;
        }
        let mut changed_to = None;
        let counted = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                let (next, outcome) = step(word, witness, kind, limit);
                changed_to = outcome;
                (next != word).then_some(next)
            });
        let healthy = counted.ok().and(changed_to)?;
        let since = now();
        let mut falls = self.change.load().falls.clone();
        if !healthy {
            if falls.len() == usize::from(FALLS_MAX) {
                falls.remove(0);
            }
            falls.push(since);
        }
        let change = Arc::new(Change {
            healthy,
            since,
            falls,
            cause: Some(Cause {
                finding,
                limit,
                witness,
            }),
        });
        self.change.store(Arc::clone(&change));
        Some(change)
    }

    fn is_flapping(&self, damping: Damping, now: i64) -> bool {
        let falls = self.change.load().falls_since(now - damping.window);
        falls >= usize::from(damping.falls)
    }
}

impl Witness {
    const fn shift(self) -> u32 {
        match self {
            Self::Active => 0,
            Self::Passive => LANE_BITS,
        }
    }
}

/// The word after one more finding, and what the health becomes if it changes.
fn step(word: u64, witness: Witness, kind: Kind, limit: u8) -> (u64, Option<bool>) {
    let lane = witness.shift();
    let is_unhealthy = word & UNHEALTHY != 0;
    let counter = match (is_unhealthy, kind) {
        (false, Kind::Success) | (true, Kind::Http | Kind::Tcp | Kind::Timeout) => {
            return (word & !(LANE << lane), None);
        }
        (true, Kind::Success) | (false, Kind::Http) => lane,
        (false, Kind::Tcp) => lane + COUNTER_BITS,
        (false, Kind::Timeout) => lane + 2 * COUNTER_BITS,
    };
    if limit == 0 {
        return (word, None);
    }
    let count = (word >> counter & COUNTER) + 1;
    if count < u64::from(limit) {
        return (word + (1 << counter), None);
    }
    // All counters begin anew.
    if is_unhealthy {
        (0, Some(true))
    } else {
        (UNHEALTHY, Some(false))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::state::clock::Clock;

    const LIMITS: Limits = Limits {
        successes: 2,
        http_failures: 3,
        tcp_failures: 2,
        timeouts: 1,
        damping: None,
    };
    const GOOD: Finding = Finding::GoodStatus(200);
    const BAD: Finding = Finding::BadStatus(500);
    const REFUSED: Finding = Finding::Broken("connection refused");

    fn address() -> AddressHealth {
        AddressHealth::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)), 0)
    }

    fn active(health: &AddressHealth, findings: &[Finding]) {
        report(health, Witness::Active, LIMITS, findings);
    }

    fn report(health: &AddressHealth, witness: Witness, limits: Limits, findings: &[Finding]) {
        for finding in findings {
            health.report(witness, *finding, limits, || 0);
        }
    }

    #[test]
    fn the_limit_of_a_kind_changes_the_health_and_says_when_and_why() {
        let clock = Clock::manual(1000);
        let health = address();
        let see = |finding| {
            clock.advance(Duration::from_millis(500));
            health.report(Witness::Active, finding, LIMITS, || {
                clock.unix_milliseconds()
            })
        };
        assert!(see(BAD).is_none() && see(BAD).is_none() && health.is_healthy());
        let change = see(BAD).expect("the third");
        assert!(!change.healthy && !health.is_healthy());
        assert_eq!(change.since, 2500);
        assert_eq!(change.cause.expect("a cause").to_string(), "3/3 http 500");
        assert!(see(GOOD).is_none());
        let change = see(GOOD).expect("the second");
        assert!(change.healthy && health.is_healthy());
        assert_eq!(change.cause.expect("a cause").to_string(), "2/2 http 200");
        assert_eq!(*health.last_change(), *change);
    }

    #[test]
    fn kinds_of_failures_are_counted_apart() {
        let health = address();
        active(&health, &[BAD, BAD, REFUSED]);
        assert!(health.is_healthy());
        assert_eq!(
            health.counters().active,
            Tally {
                http_failures: 2,
                tcp_failures: 1,
                ..Tally::default()
            }
        );
        active(&health, &[Finding::TimedOut]);
        assert!(!health.is_healthy());
        assert_eq!(health.counters(), Counters::default());
    }

    #[test]
    fn a_success_ends_every_row_of_failures() {
        let health = address();
        active(&health, &[BAD, BAD, REFUSED, GOOD, BAD, BAD, REFUSED]);
        assert!(health.is_healthy());
    }

    #[test]
    fn a_failure_of_any_kind_ends_a_row_of_successes() {
        let health = address();
        active(&health, &[Finding::TimedOut, GOOD, REFUSED, GOOD]);
        assert!(!health.is_healthy());
        active(&health, &[GOOD]);
        assert!(health.is_healthy());
    }

    #[test]
    fn failures_are_not_counted_while_unhealthy_nor_successes_while_healthy() {
        let health = address();
        active(&health, &[GOOD, GOOD, GOOD]);
        assert_eq!(health.counters(), Counters::default());
        active(&health, &[Finding::TimedOut, BAD, BAD, BAD, REFUSED]);
        assert_eq!(health.counters(), Counters::default());
        active(&health, &[GOOD, GOOD, BAD, BAD]);
        assert!(health.is_healthy(), "old failures are forgotten");
    }

    #[test]
    fn a_limit_of_zero_drops_the_kind_altogether() {
        let no_successes = Limits {
            successes: 0,
            ..LIMITS
        };
        let health = address();
        let see = |findings: &[Finding]| report(&health, Witness::Active, no_successes, findings);
        see(&[BAD, BAD, GOOD, BAD]);
        assert!(!health.is_healthy(), "the success did not reset anything");
        see(&[GOOD; 300]);
        assert!(!health.is_healthy());

        let no_http = Limits {
            http_failures: 0,
            ..LIMITS
        };
        let health = address();
        report(&health, Witness::Active, no_http, &[BAD; 300]);
        assert!(health.is_healthy());
    }

    #[test]
    fn a_passive_success_always_ends_passive_failures() {
        let limits = Limits {
            successes: 0,
            ..LIMITS
        };
        let health = address();
        let see = |findings: &[Finding]| report(&health, Witness::Passive, limits, findings);
        see(&[BAD, BAD, GOOD, BAD, BAD]);
        assert!(health.is_healthy());
        see(&[BAD, GOOD, GOOD, GOOD]);
        assert!(!health.is_healthy(), "but it heals nobody");
    }

    #[test]
    fn probes_and_traffic_do_not_mask_each_other() {
        let health = address();
        for _ in 0..2 {
            report(&health, Witness::Active, LIMITS, &[BAD]);
            report(&health, Witness::Passive, LIMITS, &[GOOD]);
        }
        assert_eq!(health.counters().active.http_failures, 2);
        report(&health, Witness::Active, LIMITS, &[BAD]);
        assert!(!health.is_healthy());
        report(&health, Witness::Active, LIMITS, &[GOOD]);
        report(&health, Witness::Passive, LIMITS, &[GOOD]);
        assert!(!health.is_healthy(), "one of each is not two of one");
    }

    #[test]
    fn the_largest_limit_can_be_reached() {
        let limits = Limits {
            http_failures: 255,
            ..LIMITS
        };
        let health = address();
        report(&health, Witness::Passive, limits, &[BAD; 254]);
        assert!(health.is_healthy());
        assert_eq!(health.counters().passive.http_failures, 254);
        report(&health, Witness::Passive, limits, &[BAD]);
        assert!(!health.is_healthy());
    }

    #[test]
    fn an_address_that_fell_too_often_proves_itself_for_longer_until_that_is_long_ago() {
        let clock = Clock::manual(0);
        let health = address();
        let limits = Limits {
            damping: Some(Damping {
                falls: 2,
                window: 10_000,
                factor: 3,
            }),
            ..LIMITS
        };
        let falls = || {
            let now = || clock.unix_milliseconds();
            let fell = health.report(Witness::Active, Finding::TimedOut, limits, now);
            assert!(fell.is_some_and(|change| !change.healthy));
            clock.advance(Duration::from_secs(1));
        };
        let successes_until_healthy = || {
            let now = || clock.unix_milliseconds();
            let mut successes = 1;
            while health.report(Witness::Active, GOOD, limits, now).is_none() {
                successes += 1;
                assert!(successes < 100, "never");
            }
            successes
        };
        falls();
        assert_eq!(successes_until_healthy(), 2);
        falls();
        assert_eq!(successes_until_healthy(), 6);
        let cause = health.last_change().cause.expect("a cause");
        assert_eq!(cause.to_string(), "6/6 http 200");
        falls();
        assert_eq!(successes_until_healthy(), 6);
        clock.advance(Duration::from_secs(9));
        falls();
        assert_eq!(successes_until_healthy(), 2, "the others are long ago");
        for _ in 0..100 {
            falls();
            successes_until_healthy();
        }
        assert_eq!(health.last_change().falls.len(), usize::from(FALLS_MAX));
    }

    #[test]
    fn many_threads_make_one_change() {
        let health = Arc::new(address());
        let changes: usize = (0..4)
            .map(|_| {
                let health = Arc::clone(&health);
                std::thread::spawn(move || {
                    (0..100)
                        .filter_map(|_| health.report(Witness::Passive, BAD, LIMITS, || 0))
                        .count()
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();
        assert_eq!(changes, 1);
    }
}
