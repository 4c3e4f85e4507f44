//! The one place that reads the time, so that tests can hold it still.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Wall clock and monotonic clock of the process.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    /// The time of day, and the point of the monotonic clock at which it was 0.
    Manual(Arc<AtomicI64>, Instant),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `unix_milliseconds` until [`Self::advance`] moves it.
    pub fn manual(unix_milliseconds: i64) -> Self {
        let now = Arc::new(AtomicI64::new(unix_milliseconds));
        let real = Self::system().instant();
        let since = Duration::from_millis(u64::try_from(unix_milliseconds).unwrap_or(0));
        Self(Source::Manual(now, real.checked_sub(since).unwrap_or(real)))
    }

    /// Moves a manual clock; the system clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now, _) = &self.0 {
            now.fetch_add(
                i64::try_from(by.as_millis()).unwrap_or(i64::MAX),
                Ordering::Relaxed,
            );
        }
    }

    /// Milliseconds since 1970-01-01 UTC. Follows steps of the machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    pub fn unix_milliseconds(&self) -> i64 {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
                }),
            Source::Manual(now, _) => now.load(Ordering::Relaxed),
        }
    }

    /// The wall clock as the standard library knows it.
    pub fn system_time(&self) -> SystemTime {
        let since = u64::try_from(self.unix_milliseconds()).unwrap_or(0);
        UNIX_EPOCH + Duration::from_millis(since)
    }

    /// Seconds since 1970-01-01 UTC.
    pub fn unix_seconds(&self) -> i64 {
        self.unix_milliseconds().div_euclid(1000)
    }

    /// A point of the monotonic clock, for durations and deadlines.
    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    pub fn instant(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(now, zero) => {
                let since = u64::try_from(now.load(Ordering::Relaxed)).unwrap_or(0);
                *zero + Duration::from_millis(since)
            }
        }
    }
}
