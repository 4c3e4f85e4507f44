//! The one place where snapshots are swapped.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Snapshot;

/// The snapshot that new requests take.
#[derive(Debug)]
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    /// Starts with `snapshot`.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    /// The current snapshot, to be kept to the end of a request.
    pub fn take(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// A short look at the current snapshot.
    pub fn look(&self) -> Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// Publishes `snapshot` and gives back the one before it. Requests that hold that one finish
    /// with it.
    pub fn publish(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.0.swap(Arc::new(snapshot))
    }
}
