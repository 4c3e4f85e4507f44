//! The requests that hold a place where only so many may be under way, those that wait for one, and those
//! that got none.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::{
    Count, families,
    page::{Page, signed_number},
};

/// What is counted of all limits together.
#[derive(Debug, Default)]
pub struct Admissions {
    pub running: Gauge,
    pub waiting: Gauge,
    /// Refused because too many waited.
    pub queue_full: Count,
    /// Refused because they had waited long enough.
    pub queue_timeout: Count,
    /// Their client left while they waited.
    pub client_closed: Count,
}

impl Admissions {
    pub(super) fn write(&self, page: &mut Page) {
        let level = |gauge: &Gauge| signed_number(gauge.get());
        page.family(&families::CONCURRENT_REQUESTS)
            .gauge(&["running"], level(&self.running))
            .gauge(&["waiting"], level(&self.waiting))
            .end();
        page.family(&families::CONCURRENCY_REFUSALS)
            .count(&["queue_full"], self.queue_full.get())
            .count(&["queue_timeout"], self.queue_timeout.get())
            .count(&["client_closed"], self.client_closed.get())
            .end();
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is counted in a gauge as long as it lives.
#[derive(Debug)]
pub struct Level {
    admissions: Arc<Admissions>,
    gauge: fn(&Admissions) -> &Gauge,
}

impl Level {
    /// Counts one more in `gauge` until it is dropped.
    pub fn begin(admissions: &Arc<Admissions>, gauge: fn(&Admissions) -> &Gauge) -> Self {
        gauge(admissions).0.fetch_add(1, Ordering::Relaxed);
        Self {
            admissions: Arc::clone(admissions),
            gauge,
        }
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        (self.gauge)(&self.admissions)
            .0
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_as_long_as_it_lives() {
        let admissions = Arc::<Admissions>::default();
        let level = Level::begin(&admissions, |admissions| &admissions.waiting);
        assert_eq!((admissions.waiting.get(), admissions.running.get()), (1, 0));
        drop(level);
        assert_eq!(admissions.waiting.get(), 0);
    }
}
