//! What a log of requests could not deliver.

use super::Count;

/// Entries that a log lost, by the reason.
#[derive(Debug, Default)]
pub struct Losses {
    /// They came faster than they could be written, and waited longest.
    pub queue_full: Count,
    /// They could not be written.
    pub unwritable: Count,
}
