//! What one address has to do at the moment, and how long it takes. Atomic words only, as every
//! request changes them.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// The time in which an old latency loses about two thirds of its weight, in milliseconds.
const DECAY_MS: f64 = 10_000.0;
/// No answer counts as faster, in microseconds: one that has faded to nothing must not hide how many
/// requests wait.
const LATENCY_MIN: f64 = 100.0;
/// What counts as the latency of an address that was asked and has not answered yet, in
/// microseconds: more than any that was measured, whatever the weights.
const LATENCY_UNKNOWN: f64 = 1e15;
/// What failures alone make a latency at most.
const PENALTY_MAX: Duration = Duration::from_secs(10);

/// The load of one address. It shares no cache line with those of others, which other threads write.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load {
    /// Since when it is there, in Unix milliseconds; 0: from the beginning.
    joined: AtomicI64,
    under_way: AtomicU32,
    /// The latency in microseconds above, the moment of its last change in milliseconds below; 0:
    /// not known.
    latency: AtomicU64,
}

/// A moment as latencies are stamped with it: Unix milliseconds, without their upper half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u32);

impl Moment {
    /// The moment at these Unix milliseconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of the time is enough: only differences count"
    )]
    pub const fn of_unix_milliseconds(now: i64) -> Self {
        Self(now as u32)
    }

    /// What is left of a latency that was stamped `then`.
    fn weight_of(self, then: u32) -> f64 {
        let since = self.0.wrapping_sub(then);
        // A clock that was set back tells nothing.
        if since > u32::MAX / 2 {
            return 1.0;
        }
        (-f64::from(since) / DECAY_MS).exp()
    }
}

fn unpacked(word: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (half(word >> 32), half(word))
}

fn packed(microseconds: f64, now: Moment) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and a latency is never negative"
    )]
    // 0 stands for a latency that is not known.
    let microseconds = (microseconds as u32).max(1);
    u64::from(microseconds) << 32 | u64::from(now.0)
}

impl Load {
    /// The load of an address that is there since `joined`, in Unix milliseconds; 0: from the
    /// beginning.
    pub fn new(joined: i64) -> Self {
        Self {
            joined: AtomicI64::new(joined),
            ..Self::default()
        }
    }

    /// It has come back, and is there since `joined`, as for [`Self::new`].
    pub fn rejoin(&self, joined: i64) {
        self.joined.store(joined, Ordering::Relaxed);
    }

    /// Since when it is there, in Unix milliseconds; 0: from the beginning.
    pub fn joined(&self) -> i64 {
        self.joined.load(Ordering::Relaxed)
    }

    /// Counts one more request.
    pub fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// The requests and streams that are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// The latency at `now` in microseconds: a moving average that follows peaks at once and fades
    /// with time; 0 if none is known.
    pub fn latency(&self, now: Moment) -> f64 {
        let (latency, then) = unpacked(self.latency.load(Ordering::Relaxed));
        f64::from(latency) * now.weight_of(then)
    }

    /// What one more request would cost at `now`: the latency for each that is under way and for
    /// itself. An address that was never measured costs nothing while it has nothing to do, so that
    /// it is measured, and more than any other until it has answered.
    pub fn cost(&self, now: Moment) -> f64 {
        let under_way = self.under_way();
        let latency = if self.is_measured() {
            self.latency(now).max(LATENCY_MIN)
        } else if under_way > 0 {
            LATENCY_UNKNOWN
        } else {
            0.0
        };
        latency * (f64::from(under_way) + 1.0)
    }

    /// Whether a latency is known.
    pub fn is_measured(&self) -> bool {
        self.latency.load(Ordering::Relaxed) != 0
    }

    /// Begins with a latency in microseconds, unless one is known.
    pub fn expect_latency(&self, microseconds: f64, now: Moment) {
        // Whoever measured meanwhile knows better.
        let _ = self.latency.compare_exchange(
            0,
            packed(microseconds, now),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Takes in how long an answer took to begin.
    pub fn observe(&self, took: Duration, now: Moment) {
        let took = took.as_secs_f64() * 1e6;
        self.update(now, |latency, weight| {
            if took >= latency {
                took
            } else {
                latency * weight + took * (1.0 - weight)
            }
        });
    }

    /// Takes in that there was no answer, though it was waited for so long. One that fails at once
    /// must not look fast: each failure doubles the latency, up to ten seconds.
    pub fn observe_failure(&self, waited: Duration, now: Moment) {
        let waited = waited.as_secs_f64() * 1e6;
        self.update(now, |latency, _| {
            let doubled = (latency * 2.0).max(1000.0);
            waited
                .max(doubled.min(PENALTY_MAX.as_secs_f64() * 1e6))
                .max(latency)
        });
    }

    fn update(&self, now: Moment, change: impl Fn(f64, f64) -> f64) {
        let step = |word| {
            let (latency, then) = unpacked(word);
            Some(packed(change(f64::from(latency), now.weight_of(then)), now))
        };
        // Never refused, so whatever comes back is no error.
        let _ = self
            .latency
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::of_unix_milliseconds(1_000);

    fn later(milliseconds: i64) -> Moment {
        Moment::of_unix_milliseconds(1_000 + milliseconds)
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn what_begins_is_under_way_until_it_ends() {
        let load = Load::default();
        load.begin();
        load.begin();
        load.end();
        assert_eq!(load.under_way(), 1);
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let load = Load::default();
        load.observe(milliseconds(5), START);
        load.observe(milliseconds(500), START);
        assert!((load.latency(START) - 500_000.0).abs() < 1.0);
        assert!((load.latency(later(10_000)) - 500_000.0 / std::f64::consts::E).abs() < 10.0);
        load.observe(milliseconds(5), later(10_000));
        let mixed = load.latency(later(10_000));
        assert!((180_000.0..190_000.0).contains(&mixed), "{mixed}");
    }

    #[test]
    fn failing_at_once_is_not_fast() {
        let load = Load::default();
        load.observe(milliseconds(5), START);
        for _ in 0..3 {
            load.observe_failure(Duration::ZERO, START);
        }
        assert!(load.latency(START) >= 40_000.0);
        for _ in 0..100 {
            load.observe_failure(Duration::ZERO, START);
        }
        assert!(load.latency(START) <= 10_000_001.0);
    }

    #[test]
    fn an_expectation_gives_way_to_what_is_known() {
        let load = Load::default();
        load.expect_latency(7_000.0, START);
        load.expect_latency(9_000.0, START);
        assert!((load.latency(START) - 7_000.0).abs() < 1.0);
    }

    #[test]
    fn one_that_has_not_answered_yet_costs_more_than_any_that_has() {
        let (measured, silent) = (Load::default(), Load::default());
        measured.observe(Duration::from_mins(1), START);
        assert!(silent.cost(START) < measured.cost(START));
        silent.begin();
        assert!(silent.cost(START) > measured.cost(START) * 65_535.0);
        let before = silent.cost(START);
        silent.begin();
        assert!(silent.cost(START) > before);
    }

    #[test]
    fn a_latency_that_has_faded_does_not_hide_what_waits() {
        let load = Load::default();
        load.observe(milliseconds(5), START);
        load.begin();
        assert!((load.cost(later(3_600_000)) - 2.0 * LATENCY_MIN).abs() < 1e-6);
    }

    #[test]
    fn a_clock_that_is_set_back_changes_nothing() {
        let load = Load::default();
        load.observe(milliseconds(5), later(60_000));
        assert!((load.latency(START) - 5_000.0).abs() < 1.0);
    }
}
