//! Open connections, counted; and the word to the idle ones that it is time to go.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, futures::Notified};

/// Connections wait on different shards so that going idle is not a point of contention.
const SHARDS: usize = 16;

/// The open connections of the process and whether it is shutting down.
#[derive(Debug, Default)]
pub struct Drain {
    draining: AtomicBool,
    idle: [Shard; SHARDS],
    open: AtomicUsize,
    closed: Notify,
    next: AtomicUsize,
}

/// Where a part of the connections listens.
#[derive(Debug, Default)]
struct Shard {
    notify: Notify,
    /// How often this part was asked to close.
    words: AtomicU64,
}

impl Shard {
    fn ask_to_close(&self) {
        self.words.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_waiters();
    }
}

/// One open connection; dropped when it closes.
#[derive(Debug)]
pub struct Open {
    drain: Arc<Drain>,
    shard: usize,
}

impl Drain {
    /// Counts one more connection.
    pub fn enter(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::AcqRel);
        Open {
            drain: Arc::clone(self),
            shard: self.next.fetch_add(1, Ordering::Relaxed) % SHARDS,
        }
    }

    /// Whether the process is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Begins to shut down: idle connections close now, the others after their request.
    pub fn begin(&self) {
        self.draining.store(true, Ordering::Release);
        for shard in &self.idle {
            shard.ask_to_close();
        }
    }

    /// Closes a part of the idle connections, to make room for new ones.
    pub fn shed(&self) {
        let shard = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        if let Some(shard) = self.idle.get(shard) {
            shard.ask_to_close();
        }
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until fewer than `limit` connections are open.
    pub async fn below(&self, limit: usize) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.open() < limit {
                return;
            }
            closed.await;
        }
    }
}

impl Open {
    /// Resolves when idle connections are asked to close. Whether that happened while it was being
    /// registered is told by [`Open::words`] and [`Drain::is_draining`].
    pub fn asked_to_close(&self) -> Notified<'_> {
        self.shard().notify.notified()
    }

    /// How often connections like this one were asked to close so far.
    pub fn words(&self) -> u64 {
        self.shard().words.load(Ordering::Acquire)
    }

    fn shard(&self) -> &Shard {
        let [first, ..] = &self.drain.idle;
        self.drain.idle.get(self.shard).unwrap_or(first)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.drain.open.fetch_sub(1, Ordering::AcqRel);
        self.drain.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_wakes_the_idle_and_ends_with_the_last_connection() {
        let drain = Arc::new(Drain::default());
        let open = drain.enter();
        let waiting = tokio::spawn(async move {
            let word = open.asked_to_close();
            tokio::pin!(word);
            word.as_mut().enable();
            if !open.drain.is_draining() {
                word.await;
            }
        });
        tokio::task::yield_now().await;
        drain.begin();
        drain.below(1).await;
        waiting.await.expect("no panic");
        assert_eq!(drain.open(), 0);
    }
}
