//! What became of the copies of requests that were to be sent elsewhere.

use super::{Count, families, page::Page};

/// The copies of the process, each counted once.
#[derive(Debug, Default)]
pub struct MirrorCounts {
    /// The mirror answered, whatever.
    pub answered: Count,
    /// It could not be reached, or broke off.
    pub failed: Count,
    pub timed_out: Count,
    /// Not copied: too many copies were in flight.
    pub too_many: Count,
    /// Not copied: the body was too large.
    pub too_large: Count,
    /// Not copied: the body did not arrive whole.
    pub incomplete: Count,
    /// Not copied: the request itself did not go upstream.
    pub not_sent: Count,
}

impl MirrorCounts {
    pub(super) fn write(&self, page: &mut Page) {
        page.family(&families::MIRROR_REQUESTS)
            .count(&["answered"], self.answered.get())
            .count(&["failed"], self.failed.get())
            .count(&["timeout"], self.timed_out.get())
            .count(&["too_many_in_flight"], self.too_many.get())
            .count(&["body_too_large"], self.too_large.get())
            .count(&["body_incomplete"], self.incomplete.get())
            .count(&["not_sent"], self.not_sent.get())
            .end();
    }
}
