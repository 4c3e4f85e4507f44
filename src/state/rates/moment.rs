//! One hit's limits together with the windows that its time lies in.

use smallvec::SmallVec;

use super::{
    calendar::{Period, Second, Timestamp, Window, saturate},
    limits::{Limits, Usage},
    slab::{Counts, Entry},
};

/// How far a time may lie before the last admission and still count as that admission.
const OVERTAKING_SECONDS: u32 = 1;

/// A limited period in its current window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) period: Period,
    pub(super) limit: f64,
    pub(super) window: Window,
}

impl Span {
    /// What `counts`, last changed at `at`, hold for this window.
    fn used(&self, counts: &Counts, at: Second) -> u64 {
        if self.window.contains(at) {
            counts.get(self.period)
        } else {
            0
        }
    }

    /// Whether a count has reached the limit.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts stay below 2^40, where f64 is exact"
    )]
    pub(super) fn is_reached(&self, used: u64) -> bool {
        used as f64 >= self.limit
    }

    /// The greatest count that has not reached the limit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from f64 saturates, and no count is beyond u64"
    )]
    pub(super) fn last_open(&self) -> u64 {
        (self.limit.ceil() as u64).saturating_sub(1)
    }
}

/// The limits and windows of one hit, from the shortest period to the longest.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    now: Timestamp,
    /// The second that the windows belong to.
    pub(super) second: Second,
    pub(super) spans: SmallVec<[Span; Period::ALL.len()]>,
}

impl Moment {
    /// The windows of `now` for every limited period.
    pub(super) fn new(now: Timestamp, limits: &Limits) -> Self {
        let mut moment = Self {
            now,
            second: now.second(),
            spans: SmallVec::new(),
        };
        for (period, limit) in limits.iter() {
            moment.spans.push(Span {
                period,
                limit,
                window: Window::of(period, moment.second),
            });
        }
        moment
    }

    /// The moment as a counter sees that was last changed a little later, by a thread that read
    /// the clock later but came first; `None` if it lies in the same windows anyway.
    pub(super) fn overtaken_by(&self, at: Second) -> Option<Self> {
        if at <= self.second || at - self.second > OVERTAKING_SECONDS {
            return None;
        }
        let mut moved = self.clone();
        moved.second = at;
        for span in &mut moved.spans {
            span.window = Window::of(span.period, at);
        }
        Some(moved)
    }

    /// When the last of the windows ends.
    pub(super) fn end(&self) -> i64 {
        self.spans
            .last()
            .map_or_else(|| self.second.into(), |span| span.window.end)
    }

    /// Whether any limit is reached by what `counts`, last changed at `at`, hold for its window.
    pub(super) fn is_exhausted(&self, counts: &Counts, at: Second) -> bool {
        let moved = self.overtaken_by(at);
        moved
            .as_ref()
            .unwrap_or(self)
            .spans
            .iter()
            .any(|span| span.is_reached(span.used(counts, at)))
    }

    /// Admits a hit to `entry` and counts it in every limited period, or refuses it.
    /// The second result says whether a limit is reached now.
    pub(super) fn hit(&self, entry: &mut Entry) -> (Usage, bool) {
        let moved = self.overtaken_by(entry.at);
        let moment = moved.as_ref().unwrap_or(self);
        let mut used = [0; Period::ALL.len()];
        for (span, used) in moment.spans.iter().zip(&mut used) {
            *used = span.used(&entry.counts, entry.at);
        }
        let is_admitted = !moment.is_reached(&used);
        if is_admitted {
            // A period without a limit is set to zero, lest a limit that comes back finds the
            // count of an old window under the new `at`.
            entry.counts = Counts::default();
            for (span, used) in moment.spans.iter().zip(&mut used) {
                *used += 1;
                entry.counts.set(span.period, *used);
            }
            entry.at = moment.second;
            entry.expires = saturate(moment.end());
        }
        let is_spent = !is_admitted || moment.is_reached(&used);
        (moment.usage(is_admitted, &used), is_spent)
    }

    /// Whether any of the counts, in the order of the spans, has reached its limit.
    fn is_reached(&self, used: &[u64]) -> bool {
        let mut pairs = self.spans.iter().zip(used);
        pairs.any(|(span, &used)| span.is_reached(used))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "counts stay below 2^40, where f64 is exact"
    )]
    fn usage(&self, is_admitted: bool, used: &[u64]) -> Usage {
        let mut usage = Usage {
            is_admitted,
            tightest: Period::Year,
            reset_seconds: 1,
            remaining: [0.0; Period::ALL.len()],
        };
        let mut least = f64::INFINITY;
        for (span, &used) in self.spans.iter().zip(used) {
            let remaining = (span.limit - used as f64).max(0.0);
            usage.remaining[span.period.index()] = remaining;
            if remaining <= least {
                least = remaining;
                usage.tightest = span.period;
                usage.reset_seconds = self.now.seconds_until(span.window.end);
            }
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rates::slab::Identity;

    fn entry() -> Entry {
        let identity = Identity { hash: 1, place: 2 };
        Entry::new(identity, 0)
    }

    fn hit(entry: &mut Entry, limits: &[(Period, f64)], now: i64) -> Usage {
        let limits = Limits::new(|period| {
            let mut limits = limits.iter();
            limits.find(|limit| limit.0 == period).map(|limit| limit.1)
        });
        let now = Timestamp::from_unix_milliseconds(now);
        Moment::new(now, &limits).hit(entry).0
    }

    fn assert_usage(usage: Usage, is_admitted: bool, tightest: (Period, f64, u32)) {
        let seen = (usage.is_admitted(), usage.tightest(), usage.reset_seconds());
        assert_eq!(seen, (is_admitted, tightest.0, tightest.2));
        assert!(
            (usage.remaining(tightest.0) - tightest.1).abs() < 1e-9,
            "{usage:?}"
        );
    }

    #[test]
    fn a_refused_hit_counts_in_no_period() {
        let (mut entry, limits) = (entry(), [(Period::Second, 1.0), (Period::Hour, 10.0)]);
        assert_usage(hit(&mut entry, &limits, 0), true, (Period::Second, 0.0, 1));
        for _ in 0..20 {
            let usage = hit(&mut entry, &limits, 999);
            assert_usage(usage, false, (Period::Second, 0.0, 1));
            assert!((usage.remaining(Period::Hour) - 9.0).abs() < 1e-9);
        }
        let usage = hit(&mut entry, &limits, 1000);
        assert!((usage.remaining(Period::Hour) - 8.0).abs() < 1e-9);
    }

    #[test]
    fn of_equally_tight_periods_the_longest_is_reported() {
        let limits = [(Period::Second, 2.0), (Period::Minute, 2.0)];
        assert_usage(
            hit(&mut entry(), &limits, 0),
            true,
            (Period::Minute, 1.0, 60),
        );
    }

    #[test]
    fn fractional_limits_refuse_once_the_count_has_reached_them() {
        let (mut one, mut two) = (entry(), entry());
        let half = [(Period::Minute, 0.5)];
        assert_usage(hit(&mut one, &half, 0), true, (Period::Minute, 0.0, 60));
        assert_usage(hit(&mut one, &half, 1), false, (Period::Minute, 0.0, 60));
        let two_and_a_half = [(Period::Minute, 2.5)];
        assert_usage(
            hit(&mut two, &two_and_a_half, 0),
            true,
            (Period::Minute, 1.5, 60),
        );
        assert_usage(
            hit(&mut two, &two_and_a_half, 0),
            true,
            (Period::Minute, 0.5, 60),
        );
        assert_usage(
            hit(&mut two, &two_and_a_half, 0),
            true,
            (Period::Minute, 0.0, 60),
        );
        assert_usage(
            hit(&mut two, &two_and_a_half, 0),
            false,
            (Period::Minute, 0.0, 60),
        );
    }

    #[test]
    fn a_thread_that_was_overtaken_at_the_edge_counts_in_the_new_window() {
        let (mut entry, limits) = (entry(), [(Period::Minute, 1.0)]);
        assert_usage(
            hit(&mut entry, &limits, 60_000),
            true,
            (Period::Minute, 0.0, 60),
        );
        assert_usage(
            hit(&mut entry, &limits, 59_999),
            false,
            (Period::Minute, 0.0, 61),
        );
    }

    #[test]
    fn a_step_back_within_a_window_keeps_its_count_and_prolongs_it() {
        let (mut entry, limits) = (entry(), [(Period::Hour, 1.0)]);
        assert_usage(
            hit(&mut entry, &limits, 3_000_000),
            true,
            (Period::Hour, 0.0, 600),
        );
        assert_usage(
            hit(&mut entry, &limits, 0),
            false,
            (Period::Hour, 0.0, 3600),
        );
    }

    #[test]
    fn a_step_back_over_windows_begins_a_new_one() {
        let (mut entry, limits) = (entry(), [(Period::Minute, 1.0)]);
        hit(&mut entry, &limits, 7_200_000);
        assert_usage(
            hit(&mut entry, &limits, 3_600_001),
            true,
            (Period::Minute, 0.0, 60),
        );
        assert_usage(
            hit(&mut entry, &limits, 3_600_002),
            false,
            (Period::Minute, 0.0, 60),
        );
    }

    #[test]
    fn a_limit_that_comes_back_does_not_find_the_count_of_an_old_window() {
        let (mut entry, minute) = (entry(), [(Period::Minute, 5.0)]);
        let both = [(Period::Minute, 5.0), (Period::Hour, 1.0)];
        hit(&mut entry, &both, 0);
        hit(&mut entry, &minute, 3_600_000);
        assert!(hit(&mut entry, &both, 3_600_001).is_admitted());
    }

    #[test]
    fn the_last_open_count_is_the_last_that_passes() {
        for (limit, last) in [
            (0.5, 0),
            (1.0, 0),
            (1.5, 1),
            (5.0, 4),
            (1e300, u64::MAX - 1),
        ] {
            let window = Window::of(Period::Hour, 0);
            let span = Span {
                period: Period::Hour,
                limit,
                window,
            };
            assert_eq!(span.last_open(), last);
            assert!(!span.is_reached(last.min(1 << 40)));
        }
    }
}
