//! How many questions one Consul is asked at once. It takes 200 connections of a client by default
//! (`http_max_conns_per_client`), and two processes share these while one takes over from the other.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Questions that wait for a change, at once.
pub(super) const WAITING_MAX: usize = 64;
/// Questions that are answered at once, beside those: what is new does not stand behind what waits.
const PROMPT_MAX: usize = 32;
/// How long a question waits for a change where there are more lists than may wait at once.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// The questions to one Consul. Each list that is followed there holds it.
#[derive(Debug)]
pub(super) struct Polls {
    waiting: Semaphore,
    prompt: Semaphore,
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            waiting: Semaphore::new(WAITING_MAX),
            prompt: Semaphore::new(PROMPT_MAX),
        }
    }
}

impl Polls {
    /// The turn for a question, which waits for a change or is answered at once. In the order in which
    /// they ask; it ends when it is dropped. Absent never, as nobody closes what it stands for.
    pub(super) async fn turn(&self, waits: bool) -> Option<SemaphorePermit<'_>> {
        let turns = if waits { &self.waiting } else { &self.prompt };
        turns.acquire().await.ok()
    }

    /// Whether more lists are followed than may wait at once: then they take turns, none keeps its
    /// connection, and none waits for long.
    pub(super) fn is_crowded(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > WAITING_MAX
    }

    /// How long a question waits for a change that may wait for `wait`.
    pub(super) fn wait(self: &Arc<Self>, wait: Duration) -> Duration {
        if self.is_crowded() {
            wait.min(SHORT_WAIT)
        } else {
            wait
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_crowd_takes_turns_and_waits_for_a_short_time_only() {
        let polls = Arc::<Polls>::default();
        let long = Duration::from_secs(30);
        let mut lists: Vec<_> = (1..WAITING_MAX).map(|_| Arc::clone(&polls)).collect();
        assert_eq!(polls.wait(long), long);
        lists.push(Arc::clone(&polls));
        assert_eq!(polls.wait(long), SHORT_WAIT);
        let turn = || polls.turn(true).now_or_never().flatten();
        let mut turns: Vec<_> = (0..WAITING_MAX).filter_map(|_| turn()).collect();
        assert_eq!(turns.len(), WAITING_MAX);
        assert!(turn().is_none());
        assert!(polls.turn(false).now_or_never().is_some(), "what is new");
        turns.pop();
        assert!(turn().is_some());
    }
}
