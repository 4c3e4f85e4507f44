//! What an upstream keeps as a whole: where its turns stand, and whether it has begun.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The turns of an upstream or of the one host of a service.
#[derive(Debug, Default)]
pub struct Turns {
    position: Position,
    has_begun: AtomicBool,
}

/// All threads write it all the time, so it shares no cache line with what they only read.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Position(AtomicU64);

impl Turns {
    /// Takes a turn.
    pub fn next(&self) -> u64 {
        self.position.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that all first members are there: whoever comes from now on joins them.
    pub fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Whether new members join others.
    pub fn have_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_on_and_begin_once() {
        let turns = Turns::default();
        assert_eq!((turns.next(), turns.next()), (0, 1));
        assert!(!turns.have_begun());
        turns.begin();
        assert!(turns.have_begun());
    }
}
