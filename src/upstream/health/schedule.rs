//! When which address is probed next. Knows no clock and no network, so that it can be tested.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::RandomState;

use super::checks::Intervals;
use crate::{state::health::AddressHealth, upstream::Member};

/// The longest wait for a first probe, and for one that is overdue after new settings.
const FIRST_MAX: Duration = Duration::from_secs(1);
/// The part of an interval by which it may be shorter, so that probes do not fall into step.
const JITTER: f64 = 0.1;

/// The addresses of an upstream and when each is probed.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: HashMap<Key, Entry>,
    /// When whose turn is. A turn counts only while its entry says the same.
    queue: BinaryHeap<Reverse<(Instant, Key)>>,
    dice: Dice,
}

/// Spreads the probes.
#[derive(Debug, Default)]
struct Dice {
    random: RandomState,
    draws: u64,
}

/// Where the health of an address lies in memory: each has its own as long as it is held.
type Key = usize;

#[derive(Debug)]
struct Entry {
    /// As it was when it was followed last.
    member: Arc<Member>,
    health: Arc<AddressHealth>,
    /// When the last probe began.
    began: Option<Instant>,
    is_running: bool,
    /// When the next one begins, and the interval that this was planned for.
    next: Option<(Instant, Duration)>,
}

/// A probe to be made.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) member: Arc<Member>,
    pub(super) health: Arc<AddressHealth>,
}

fn key(health: &Arc<AddressHealth>) -> Key {
    Arc::as_ptr(health).addr()
}

impl Schedule {
    /// Follows the addresses that there are now. What was planned for those that stay, stays.
    pub(super) fn follow(
        &mut self,
        addresses: impl Iterator<Item = (Arc<Member>, Arc<AddressHealth>)>,
    ) {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = addresses
            .map(|(member, health)| {
                let key = key(&health);
                let entry = match before.remove(&key) {
                    Some(entry) => Entry { member, ..entry },
                    None => Entry {
                        member,
                        health,
                        began: None,
                        is_running: false,
                        next: None,
                    },
                };
                (key, entry)
            })
            .collect();
    }

    /// Plans the probes whose interval has changed, or that were never planned.
    pub(super) fn plan(&mut self, now: Instant, intervals: &Intervals) {
        let entries = &self.entries;
        // What was planned anew left its old place behind.
        if self.queue.len() > 2 * entries.len() {
            self.queue
                .retain(|Reverse((at, key))| is_planned(entries, *at, *key));
        }
        for (key, entry) in &mut self.entries {
            let interval = intervals.of(entry.health.is_healthy());
            if !entry.is_running && entry.interval() != interval {
                entry.next = self.dice.planned(entry.began, now, interval);
                self.queue.extend(entry.turn(*key));
            }
        }
    }

    /// At most `room` probes that are due at `now`, the most overdue first. They count as running.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        intervals: &Intervals,
        room: usize,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < room
            && let Some(Reverse((at, key))) = self.queue.peek().copied()
            && at <= now
        {
            self.queue.pop();
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.is_due_at(at)
            {
                entry.is_running = true;
                entry.began = Some(now);
                let interval = intervals.of(entry.health.is_healthy());
                entry.next = self.dice.planned(entry.began, now, interval);
                due.push(Due {
                    member: Arc::clone(&entry.member),
                    health: Arc::clone(&entry.health),
                });
            }
        }
        due
    }

    /// Whether the address is still one of the upstream's.
    pub(super) fn knows(&self, health: &Arc<AddressHealth>) -> bool {
        self.entries.contains_key(&key(health))
    }

    /// A probe has ended, and what it showed was noted.
    pub(super) fn finish(
        &mut self,
        health: &Arc<AddressHealth>,
        now: Instant,
        intervals: &Intervals,
    ) {
        let key = key(health);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.is_running = false;
            let interval = intervals.of(entry.health.is_healthy());
            if entry.interval() != interval {
                entry.next = self.dice.planned(entry.began, now, interval);
            }
            self.queue.extend(entry.turn(key));
        }
    }

    /// When the next probe is due; absent also while one that is due at `now` waits for room.
    pub(super) fn next_after(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, key))) = self.queue.peek().copied() {
            if is_planned(&self.entries, at, key) {
                return (at > now).then_some(at);
            }
            self.queue.pop();
        }
        None
    }
}

fn is_planned(entries: &HashMap<Key, Entry>, at: Instant, key: Key) -> bool {
    entries.get(&key).is_some_and(|entry| entry.is_due_at(at))
}

impl Entry {
    fn interval(&self) -> Option<Duration> {
        self.next.map(|(_, interval)| interval)
    }

    /// Whether the next probe begins at this moment, and not at another.
    fn is_due_at(&self, moment: Instant) -> bool {
        !self.is_running && self.next.is_some_and(|(at, _)| at == moment)
    }

    fn turn(&self, key: Key) -> Option<Reverse<(Instant, Key)>> {
        self.next.map(|(at, _)| Reverse((at, key)))
    }
}

impl Dice {
    /// When to probe next at this interval, if the last probe began at `began`.
    fn planned(
        &mut self,
        began: Option<Instant>,
        now: Instant,
        interval: Option<Duration>,
    ) -> Option<(Instant, Duration)> {
        let interval = interval?;
        self.draws += 1;
        let part = fraction(self.random.hash_one(self.draws));
        let regular = began.map(|began| began + interval.mul_f64(1.0 - JITTER * part));
        let at = match regular {
            Some(at) if at >= now => at,
            // The first, or one that would have been long ago at this interval: not all at once.
            _ => now + interval.min(FIRST_MAX).mul_f64(part),
        };
        Some((at, interval))
    }
}

/// From 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a fraction need not be exact")]
fn fraction(random: u64) -> f64 {
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        state::{
            clock::Clock,
            health::{Finding, Limits, Witness},
        },
        upstream::target::tests::target,
    };

    const INTERVALS: Intervals = Intervals {
        healthy: Some(Duration::from_secs(10)),
        unhealthy: Some(Duration::from_secs(2)),
    };

    fn addresses(count: u16) -> Vec<Arc<AddressHealth>> {
        (1..=count)
            .map(|port| {
                Arc::new(AddressHealth::new(
                    SocketAddr::from(([127, 0, 0, 1], port)),
                    0,
                ))
            })
            .collect()
    }

    fn follow(schedule: &mut Schedule, addresses: &[Arc<AddressHealth>]) {
        let member = Arc::new(target(1).stand_in());
        let addresses = addresses.iter();
        schedule.follow(addresses.map(|health| (Arc::clone(&member), Arc::clone(health))));
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Probes everything that is due until `until`; gives the times since `began`.
    fn run(
        schedule: &mut Schedule,
        began: Instant,
        from: Duration,
        until: Duration,
        intervals: &Intervals,
    ) -> Vec<f64> {
        let mut times = Vec::new();
        let mut now = began + from;
        while now <= began + until {
            schedule.plan(now, intervals);
            for due in schedule.take_due(now, intervals, usize::MAX) {
                schedule.finish(&due.health, now, intervals);
                times.push((now - began).as_secs_f64());
            }
            now += seconds(0.01);
        }
        times
    }

    #[test]
    fn the_first_probe_comes_soon_and_the_next_after_the_interval() {
        let mut schedule = Schedule::default();
        follow(&mut schedule, &addresses(1));
        let began = Clock::system().instant();
        let times = run(
            &mut schedule,
            began,
            seconds(0.0),
            seconds(30.0),
            &INTERVALS,
        );
        assert!(times[0] <= 1.01, "{times:?}");
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!((8.98..=10.03).contains(&gap), "{times:?}");
        }
    }

    #[test]
    fn first_probes_of_many_addresses_are_spread() {
        let mut schedule = Schedule::default();
        follow(&mut schedule, &addresses(100));
        let began = Clock::system().instant();
        let times = run(&mut schedule, began, seconds(0.0), seconds(1.1), &INTERVALS);
        assert_eq!(times.len(), 100);
        let early = times.iter().filter(|time| **time < 0.5).count();
        assert!((20..=80).contains(&early), "{early}");
    }

    #[test]
    fn an_unhealthy_address_is_probed_at_its_own_interval() {
        let mut schedule = Schedule::default();
        let addresses = addresses(1);
        follow(&mut schedule, &addresses);
        let began = Clock::system().instant();
        run(&mut schedule, began, seconds(0.0), seconds(1.5), &INTERVALS);
        let limits = Limits {
            timeouts: 1,
            ..Limits::default()
        };
        addresses[0].report(Witness::Passive, Finding::TimedOut, limits, || 0);
        let times = run(&mut schedule, began, seconds(1.5), seconds(9.0), &INTERVALS);
        assert!((3..=5).contains(&times.len()), "{times:?}");
    }

    #[test]
    fn without_an_interval_there_is_no_probe() {
        let mut schedule = Schedule::default();
        follow(&mut schedule, &addresses(1));
        let began = Clock::system().instant();
        let none = Intervals::default();
        assert!(run(&mut schedule, began, seconds(0.0), seconds(5.0), &none).is_empty());
        assert_eq!(schedule.next_after(began), None);
    }

    #[test]
    fn new_settings_go_on_from_the_last_probe_without_a_burst() {
        let mut schedule = Schedule::default();
        let addresses = addresses(100);
        follow(&mut schedule, &addresses);
        let began = Clock::system().instant();
        run(&mut schedule, began, seconds(0.0), seconds(5.0), &INTERVALS);
        let faster = Intervals {
            healthy: Some(seconds(1.0)),
            ..INTERVALS
        };
        follow(&mut schedule, &addresses);
        let times = run(&mut schedule, began, seconds(5.0), seconds(5.05), &faster);
        assert!(times.len() < 30, "{}", times.len());
        let times = run(&mut schedule, began, seconds(5.05), seconds(6.1), &faster);
        assert!(times.len() >= 70, "{}", times.len());
    }

    #[test]
    fn no_more_than_there_is_room_for_and_never_one_twice() {
        let mut schedule = Schedule::default();
        let addresses = addresses(3);
        follow(&mut schedule, &addresses);
        let began = Clock::system().instant();
        schedule.plan(began, &INTERVALS);
        let later = began + seconds(2.0);
        let first = schedule.take_due(later, &INTERVALS, 2);
        assert_eq!(first.len(), 2);
        assert_eq!(schedule.take_due(later, &INTERVALS, 2).len(), 1);
        assert!(
            schedule
                .take_due(later + seconds(60.0), &INTERVALS, 2)
                .is_empty()
        );
        schedule.finish(&first[0].health, later, &INTERVALS);
        let again = schedule.take_due(later + seconds(60.0), &INTERVALS, 2);
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn changes_to_and_fro_leave_nothing_behind() {
        let mut schedule = Schedule::default();
        follow(&mut schedule, &addresses(10));
        let began = Clock::system().instant();
        let faster = Intervals {
            healthy: Some(seconds(5.0)),
            ..INTERVALS
        };
        for round in 0..1000 {
            let intervals = [INTERVALS, faster][round % 2];
            schedule.plan(began, &intervals);
        }
        assert!(schedule.queue.len() <= 30, "{}", schedule.queue.len());
    }

    #[test]
    fn the_result_for_a_vanished_address_is_known_as_such() {
        let mut schedule = Schedule::default();
        let addresses = addresses(2);
        follow(&mut schedule, &addresses);
        follow(&mut schedule, &addresses[..1]);
        assert!(schedule.knows(&addresses[0]));
        assert!(!schedule.knows(&addresses[1]));
    }
}
