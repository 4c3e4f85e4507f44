//! What one address has to do at the moment. Atomic words only, as every request changes them.

use std::sync::atomic::{AtomicU32, Ordering};

/// The load of one address.
#[derive(Debug, Default)]
pub struct Load {
    under_way: AtomicU32,
}

impl Load {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_is_under_way_until_it_ends() {
        let load = Load::default();
        load.begin();
        load.begin();
        load.end();
        assert_eq!(load.under_way(), 1);
    }
}
