//! The counters of one plugin instance: many shards, each under a lock of its own.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    calendar::{Second, Timestamp},
    evicted::Sketches,
    limits::{Limits, Usage},
    moment::Moment,
    shard::Shard,
    slab::Identity,
};

/// A random number.
fn drawn() -> u64 {
    RandomState::new().hash_one(())
}

/// Shards for the smallest and the largest tables. More shards mean less waiting for each other
/// and shorter pauses when an index grows; fewer, an order of eviction closer to that of the whole.
const SHARDS: (usize, usize) = (16, 128);

/// Keys that make another shard worth it.
const KEYS_PER_SHARD: usize = 4096;

/// Evicted identities that a table remembers: as many as it has keys, within these bounds.
const NOTES: (usize, usize) = (65_536, 1 << 20);

/// Exact counters for up to `max_keys` identities. The rules above that are those of the module.
pub struct Table {
    /// The random key of the 128-bit hash of an identity.
    key: (u64, u64),
    /// Made when first needed: a gateway may have thousands of tables with few clients each.
    shards: Box<[OnceLock<Box<Aligned>>]>,
    sketches: Sketches,
    len: AtomicUsize,
    max_keys: AtomicUsize,
    notes_per_shard: usize,
}

/// A shard on cache lines that no other shard writes to.
#[repr(align(128))]
#[derive(Default)]
struct Aligned(Mutex<Shard>);

impl Aligned {
    fn lock(&self) -> MutexGuard<'_, Shard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// An empty table for `max_keys` identities. The number of shards is set once, by this bound.
    pub fn new(max_keys: usize) -> Self {
        let shards = (max_keys / KEYS_PER_SHARD)
            .next_power_of_two()
            .clamp(SHARDS.0, SHARDS.1);
        Self {
            key: (drawn(), drawn()),
            shards: (0..shards).map(|_| OnceLock::new()).collect(),
            sketches: Sketches::default(),
            len: AtomicUsize::new(0),
            max_keys: AtomicUsize::new(max_keys),
            notes_per_shard: max_keys.clamp(NOTES.0, NOTES.1) / shards,
        }
    }

    /// Changes the bound. A table that is over it gets down to it as new identities come or
    /// windows end.
    pub fn resize(&self, max_keys: usize) {
        self.max_keys.store(max_keys, Ordering::Relaxed);
    }

    /// How many identities are counted exactly at the moment.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no identity is counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts one request of `identity` if none of its `limits` is reached at `now`, in all their
    /// periods at once; else counts nothing. Identities of different kinds must hash apart.
    pub fn hit(&self, identity: &(impl Hash + ?Sized), limits: &Limits, now: Timestamp) -> Usage {
        let identity = self.identity(identity);
        let moment = Moment::new(now, limits);
        let mut shard = self.shard(identity).lock();
        let place = if let Some(place) = shard.find(identity) {
            place
        } else {
            self.make_room(&mut shard, &moment);
            shard.insert(identity, &moment, &self.sketches)
        };
        shard.hit(place, &moment)
    }

    fn identity(&self, identity: &(impl Hash + ?Sized)) -> Identity {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        identity.hash(&mut hasher);
        let hash = hasher.finish128();
        Identity {
            hash: hash.h1,
            place: hash.h2,
        }
    }

    /// Frees the counters whose windows ended. Holds a lock for one chunk of one shard at a time.
    pub fn reclaim(&self, now: Timestamp) {
        let now: Second = now.second();
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            let mut next = Some(0);
            while let Some(chunk) = next {
                let freed;
                (freed, next) = shard.lock().reclaim(chunk, now);
                self.len.fetch_sub(freed, Ordering::Relaxed);
            }
        }
        self.sketches.clear_ended(now);
    }

    /// The high bits select the shard: the low ones select the place of a note within it.
    fn shard(&self, identity: Identity) -> &Aligned {
        let bits = self.shards.len().trailing_zeros();
        let number = usize::try_from(identity.place >> (u64::BITS - bits)).unwrap_or(0);
        self.shards[number].get_or_init(Box::default)
    }

    /// Takes a place for a new identity. Two old ones go for it while the table is over its bound,
    /// none if the shard is empty: other shards make up for it.
    fn make_room(&self, shard: &mut Shard, moment: &Moment) {
        let mut len = self.len.fetch_add(1, Ordering::Relaxed) + 1;
        let max_keys = self.max_keys.load(Ordering::Relaxed);
        for _ in 0..2 {
            if len <= max_keys || !shard.evict(moment, &self.sketches, self.notes_per_shard) {
                return;
            }
            len = self.len.fetch_sub(1, Ordering::Relaxed) - 1;
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Table")
            .field("len", &self.len)
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, thread};

    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::state::rates::calendar::Period;

    const NOON: i64 = 1_738_324_800_000;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_unix_milliseconds(milliseconds)
    }

    fn per(period: Period, limit: f64) -> Limits {
        Limits::new(|candidate| (candidate == period).then_some(limit))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and whole"
    )]
    fn remaining(usage: Usage, period: Period) -> u64 {
        usage.remaining(period) as u64
    }

    fn is_admitted(table: &Table, identity: &impl Hash, limits: &Limits) -> bool {
        table.hit(identity, limits, at(NOON)).is_admitted()
    }

    #[test]
    fn of_simultaneous_hits_exactly_the_limit_passes() {
        let table = Table::new(1000);
        let limits = Limits::new(|period| (period >= Period::Hour).then_some(10_000.0));
        let passed: usize = thread::scope(|scope| {
            let hammer = || {
                (0..5000)
                    .filter(|_| is_admitted(&table, &"one", &limits))
                    .count()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(hammer)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(passed, 10_000);
    }

    #[test]
    fn simultaneous_hits_of_many_identities_keep_each_one_exact() {
        let table = Table::new(1000);
        let limits = per(Period::Minute, 100.0);
        let passed: usize = thread::scope(|scope| {
            let (table, limits) = (&table, &limits);
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        let hits = (0..40_000_u32).map(|hit| hit % 500);
                        hits.filter(|identity| is_admitted(table, identity, limits))
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(passed, 500 * 100);
        assert_eq!(table.len(), 500);
    }

    #[test]
    fn a_flood_of_invented_keys_neither_grows_nor_unlocks_nor_blocks() {
        let table = Table::new(10_000);
        let limits = per(Period::Hour, 5.0);
        let hit = |kind: &str, number: u32| table.hit(&(kind, number), &limits, at(NOON));
        for _ in 0..5 {
            assert!(hit("blocked", 0).is_admitted());
        }
        for known in 0..3000 {
            assert!(hit("known", known).is_admitted());
        }
        for flood in 0..1_000_000 {
            assert!(hit("flood", flood).is_admitted());
            if flood % 200 == 0 {
                let usage = hit("new", flood);
                assert_eq!(remaining(usage, Period::Hour), 4, "an innocent was charged");
            }
        }
        assert!(
            !hit("blocked", 0).is_admitted(),
            "the flood unlocked a client"
        );
        for known in 0..3000 {
            assert!(
                hit("known", known).is_admitted(),
                "the flood blocked a client"
            );
        }
        assert!(table.len() <= 10_000 + SHARDS.0, "{} entries", table.len());
    }

    #[test]
    fn a_client_that_was_turned_away_outlives_a_flood_in_which_every_key_is_spent() {
        let table = Table::new(1000);
        let limits = per(Period::Hour, 1.0);
        assert!(is_admitted(&table, &("blocked", 0), &limits));
        assert!(!is_admitted(&table, &("blocked", 0), &limits));
        for flood in 0..200_000 {
            assert!(is_admitted(&table, &("flood", flood), &limits));
        }
        assert!(!is_admitted(&table, &("blocked", 0), &limits));
    }

    #[test]
    fn a_client_blocked_for_long_outlives_a_flood_blocked_for_a_second() {
        let table = Table::new(1000);
        let limits = Limits::new(|period| match period {
            Period::Second => Some(1.0),
            Period::Hour => Some(3.0),
            _ => None,
        });
        for second in 0..4 {
            table.hit("blocked", &limits, at(NOON + second * 1000));
        }
        for flood in 0..100_000 {
            assert!(
                table
                    .hit(&flood, &limits, at(NOON + 5000 + flood))
                    .is_admitted()
            );
        }
        assert!(
            !table
                .hit("blocked", &limits, at(NOON + 200_000))
                .is_admitted()
        );
    }

    #[test]
    fn the_blocked_stay_blocked_when_they_are_more_than_the_table_holds() {
        let table = Table::new(1000);
        let limits = per(Period::Hour, 1.0);
        for _ in 0..2 {
            for client in 0..20_000 {
                is_admitted(&table, &client, &limits);
            }
        }
        for client in 0..20_000 {
            assert!(!is_admitted(&table, &client, &limits), "client {client}");
        }
    }

    #[test]
    fn who_returns_after_an_eviction_continues() {
        let table = Table::new(1000);
        let limits = per(Period::Hour, 10.0);
        for _ in 0..4 {
            is_admitted(&table, &("returning", 0), &limits);
        }
        for other in 0..5000 {
            is_admitted(&table, &("other", other), &limits);
        }
        let usage = table.hit(&("returning", 0), &limits, at(NOON));
        assert!(
            (4..=5).contains(&remaining(usage, Period::Hour)),
            "{usage:?}"
        );
    }

    #[test]
    fn counters_whose_windows_ended_are_freed_without_a_hit() {
        let table = Table::new(100_000);
        for client in 0..50_000 {
            table.hit(&client, &per(Period::Minute, 5.0), at(NOON));
        }
        for client in 0..100 {
            table.hit(&client, &per(Period::Hour, 5.0), at(NOON));
        }
        table.reclaim(at(NOON + 59_999));
        assert_eq!(table.len(), 50_000);
        table.reclaim(at(NOON + 60_000));
        assert_eq!(table.len(), 100);
        let usage = table.hit(&7, &per(Period::Hour, 5.0), at(NOON + 60_000));
        assert_eq!(remaining(usage, Period::Hour), 3);
        table.reclaim(at(NOON + 3_600_000));
        assert!(table.is_empty());
        assert!(is_admitted(&table, &7, &per(Period::Hour, 1.0)));
    }

    #[test]
    fn a_smaller_bound_is_reached_as_new_identities_come() {
        let table = Table::new(10_000);
        let limits = per(Period::Hour, 5.0);
        for client in 0..10_000 {
            is_admitted(&table, &client, &limits);
        }
        table.resize(2000);
        for client in 10_000..19_000 {
            is_admitted(&table, &client, &limits);
        }
        assert!(table.len() <= 2000 + SHARDS.0, "{} entries", table.len());
    }

    #[test]
    fn hits_go_on_while_windows_are_reclaimed() {
        let table = Table::new(5000);
        let limits = per(Period::Second, 3.0);
        thread::scope(|scope| {
            let hits = scope.spawn(|| {
                for hit in 0..200_000 {
                    table.hit(&(hit % 7000), &limits, at(NOON + hit / 20));
                }
            });
            let mut now = NOON;
            while !hits.is_finished() {
                table.reclaim(at(now));
                now += 100;
            }
        });
        table.reclaim(at(NOON + 1_000_000));
        assert!(table.is_empty());
    }

    /// The obvious counters: one number for each identity, period and name of a window.
    #[derive(Default)]
    struct Model(HashMap<(u8, Period, String), u32>);

    impl Model {
        fn window(period: Period, now: i64) -> String {
            let format = match period {
                Period::Second => "%Y-%m-%d %H:%M:%S",
                Period::Minute => "%Y-%m-%d %H:%M",
                Period::Hour => "%Y-%m-%d %H",
                Period::Day => "%Y-%m-%d",
                Period::Month => "%Y-%m",
                Period::Year => "%Y",
            };
            let now = DateTime::from_timestamp_millis(now).expect("a time");
            now.format(format).to_string()
        }

        fn hit(&mut self, identity: u8, limits: &Limits, now: i64) -> (bool, Vec<f64>) {
            let key = |period| (identity, period, Self::window(period, now));
            let used = |model: &Self, period| f64::from(*model.0.get(&key(period)).unwrap_or(&0));
            let is_admitted = limits
                .iter()
                .all(|(period, limit)| used(self, period) < limit);
            if is_admitted {
                for (period, _) in limits.iter() {
                    *self.0.entry(key(period)).or_default() += 1;
                }
            }
            let remaining = limits
                .iter()
                .map(|(period, limit)| (limit - used(self, period)).max(0.0))
                .collect();
            (is_admitted, remaining)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hit(u8),
        Wait(i64),
        Reclaim,
        Relimit(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0_u8..20).prop_map(Step::Hit),
            3 => (0_i64..1500).prop_map(Step::Wait),
            1 => (0_i64..5_000_000_000).prop_map(Step::Wait),
            1 => Just(Step::Reclaim),
            1 => any::<u8>().prop_map(Step::Relimit),
        ]
    }

    proptest! {
        #[test]
        fn below_the_bound_a_table_agrees_with_the_obvious_counters(
            periods in 1_u8..64,
            start in 0_i64..4_000_000_000_000,
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let (table, mut model) = (Table::new(1000), Model::default());
            let limits = |scale: u8| Limits::new(|period| {
                let is_limited = periods & (1 << period.index()) != 0;
                let factor = f64::from(1 + scale % 8) / 2.0;
                is_limited.then_some(factor * f64::from(1_u8 << period.index()))
            });
            let (mut now, mut current) = (start, limits(3));
            for step in steps {
                match step {
                    Step::Wait(milliseconds) => now += milliseconds,
                    Step::Reclaim => table.reclaim(at(now)),
                    Step::Relimit(scale) => current = limits(scale),
                    Step::Hit(identity) => {
                        let usage = table.hit(&identity, &current, at(now));
                        let (is_admitted, left) = model.hit(identity, &current, now);
                        prop_assert_eq!(usage.is_admitted(), is_admitted);
                        let seen: Vec<_> =
                            current.iter().map(|(period, _)| usage.remaining(period)).collect();
                        prop_assert_eq!(&seen, &left);
                        let least = left.iter().copied().fold(f64::INFINITY, f64::min);
                        let tightest = current
                            .iter()
                            .zip(&left)
                            .rfind(|(_, left)| **left <= least)
                            .map(|((period, _), _)| period);
                        prop_assert_eq!(Some(usage.tightest()), tightest);
                        let window = |now| Model::window(usage.tightest(), now);
                        let reset = i64::from(usage.reset_seconds()) * 1000;
                        prop_assert_ne!(window(now), window(now + reset));
                        prop_assert_eq!(window(now), window(now + reset - 1000));
                    }
                }
            }
        }
    }
}
