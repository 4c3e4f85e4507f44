//! A histogram of durations, small enough to have three for each route.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::count::Count;

/// Counts durations in `N` buckets with the upper bounds of [`Bounds`], and above them.
///
/// An observation is two additions. The sum and the buckets are not read at one instant: a scrape
/// may see a bucket count without its share of the sum, as with every Prometheus client.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    buckets: [Count; N],
    above: Count,
    sum_micros: AtomicU64,
}

/// Upper bounds, inclusive, in milliseconds, rising.
pub(super) type Bounds<const N: usize> = [u32; N];

/// What a histogram held when it was read.
#[derive(Debug, PartialEq)]
pub(super) struct Reading<const N: usize> {
    /// How many observations were at or below each bound.
    pub(super) cumulative: [u64; N],
    pub(super) count: u64,
    pub(super) sum_micros: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Count::default()),
            above: Count::default(),
            sum_micros: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts one duration. `bounds` must be the same in every call.
    pub(super) fn observe(&self, bounds: &Bounds<N>, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = bounds.partition_point(|bound| u64::from(*bound) * 1000 < micros);
        self.buckets.get(place).unwrap_or(&self.above).inc();
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What it holds now; `None` if nothing was ever observed.
    pub(super) fn read(&self) -> Option<Reading<N>> {
        let mut count = 0;
        let cumulative = std::array::from_fn(|place| {
            count += self.buckets[place].get();
            count
        });
        count += self.above.get();
        (count > 0).then(|| Reading {
            cumulative,
            count,
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram: Histogram<2> = Histogram::default();
        for micros in [0, 1_000, 1_001, 5_000, 5_001] {
            histogram.observe(&[1, 5], Duration::from_micros(micros));
        }
        assert_eq!(
            histogram.read(),
            Some(Reading {
                cumulative: [2, 4],
                count: 5,
                sum_micros: 12_002
            })
        );
    }

    #[test]
    fn nothing_observed_is_nothing_read() {
        assert_eq!(Histogram::<3>::default().read(), None);
    }
}
