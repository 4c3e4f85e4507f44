//! A count over the last while that many threads add to without a lock. It forgets by slices of time,
//! which its owner numbers; it knows no clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Into how many slices the time is cut that a window looks back on.
pub(super) const SLICES: u32 = 10;

/// Events of the last [`SLICES`] slices.
///
/// Each place holds the number of its slice in the upper half and the count in the lower one, so
/// that starting a slice and counting in it are one step.
#[derive(Debug, Default)]
pub(super) struct Window([AtomicU64; SLICES as usize]);

impl Window {
    /// Counts an event in `slice`.
    pub(super) fn add(&self, slice: u32) {
        let Some(place) = self.0.get((slice % SLICES) as usize) else {
            return;
        };
        let mut seen = place.load(Ordering::Relaxed);
        loop {
            let (number, count) = parts(seen);
            let age = slice.wrapping_sub(number);
            // Whoever was late counts in the slice that has begun meanwhile.
            let is_current = age == 0 || age > u32::MAX / 2;
            if is_current && count == u32::MAX {
                return;
            }
            let new = if is_current {
                seen + 1
            } else {
                u64::from(slice) << 32 | 1
            };
            match place.compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// How many events there were in `slice` and those before it.
    pub(super) fn sum(&self, slice: u32) -> u64 {
        self.0
            .iter()
            .map(|place| parts(place.load(Ordering::Relaxed)))
            .filter(|(number, _)| slice.wrapping_sub(*number) < SLICES)
            .map(|(_, count)| u64::from(count))
            .sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for place in &self.0 {
            place.store(0, Ordering::Relaxed);
        }
    }
}

/// The number of a slice and its count.
fn parts(place: u64) -> (u32, u32) {
    let number = u32::try_from(place >> 32).expect("32 bits are left");
    let count = u32::try_from(place & u64::from(u32::MAX)).expect("32 bits are left");
    (number, count)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_counts_what_is_younger_than_its_slices(
            steps in prop::collection::vec((0_u32..4, 0_u32..30), 1..60),
        ) {
            let window = Window::default();
            let mut events = Vec::new();
            let mut slice = 1000;
            for (events_now, later) in steps {
                slice += later;
                for _ in 0..events_now {
                    window.add(slice);
                    events.push(slice);
                }
                let expected = events.iter().filter(|at| slice - **at < SLICES).count();
                prop_assert_eq!(window.sum(slice), expected as u64);
            }
        }
    }

    #[test]
    fn no_event_of_several_threads_is_lost() {
        let window = Window::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for event in 0..4000_u32 {
                        window.add(7 + event / 1000);
                    }
                });
            }
        });
        assert_eq!(window.sum(10), 16_000);
    }

    #[test]
    fn who_is_late_takes_nothing_away() {
        let window = Window::default();
        window.add(20);
        window.add(10);
        assert_eq!(window.sum(20), 2);
        window.clear();
        assert_eq!(window.sum(20), 0);
    }
}
