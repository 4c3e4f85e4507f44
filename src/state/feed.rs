//! What a name or a registry says of the places that it stands for: replaced as a whole by whoever
//! asks it, read by balancers. It knows neither DNS nor Consul.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

/// One place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub address: IpAddr,
    /// Absent = that of the target.
    pub port: Option<u16>,
    /// Absent = that of the target.
    pub weight: Option<u16>,
    /// The host name of an SRV record.
    pub name: Option<Arc<str>>,
}

impl Record {
    /// An address with the port and weight of its target.
    pub fn of_address(address: IpAddr) -> Self {
        Self {
            address,
            port: None,
            weight: None,
            name: None,
        }
    }
}

/// Wakes whoever follows the feeds: one for all, as changes are rare.
#[derive(Debug, Default)]
pub struct News(Notify);

impl News {
    /// Says that something has changed.
    pub fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits until something has changed since the last wait ended.
    pub async fn heard(&self) {
        self.0.notified().await;
    }
}

/// The places that a name or a registry stands for at the moment.
#[derive(Debug)]
pub struct Feed {
    records: ArcSwap<Vec<Record>>,
    /// Whether it was ever said what they are.
    known: AtomicBool,
    /// Whether it was asked once, with whatever outcome.
    answered: AtomicBool,
    answer: Notify,
    news: Arc<News>,
}

impl Feed {
    /// A feed that nobody has answered yet.
    pub fn new(news: Arc<News>) -> Self {
        Self {
            records: ArcSwap::default(),
            known: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            answer: Notify::new(),
            news,
        }
    }

    /// The places that are known, in a stable order.
    pub fn records(&self) -> Arc<Vec<Record>> {
        self.records.load_full()
    }

    /// Whether an answer has come, good or bad.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Whether it is known what there is, be it nothing.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Replaces what is known. Whether that changes anything.
    pub fn publish(&self, mut records: Vec<Record>) -> bool {
        records.sort_unstable();
        records.dedup();
        let differs = **self.records.load() != records;
        if differs {
            self.records.store(Arc::new(records));
        }
        // To know that there is nothing is another thing than to know nothing.
        let has_changed = !self.known.swap(true, Ordering::AcqRel) || differs;
        self.note_answer();
        if has_changed {
            self.news.tell();
        }
        has_changed
    }

    /// Notes an answer that says nothing: what is known stays.
    pub fn note_answer(&self) {
        let is_first = !self.answered.swap(true, Ordering::AcqRel);
        self.answer.notify_waiters();
        if is_first {
            self.news.tell();
        }
    }

    /// Waits up to `patience` for the very first answer.
    pub async fn first_answer(&self, patience: Duration) {
        if self.is_answered() {
            return;
        }
        let answer = self.answer.notified();
        tokio::pin!(answer);
        answer.as_mut().enable();
        if !self.is_answered() {
            // A timeout is an answer too: nothing is known.
            let _ = tokio::time::timeout(patience, answer).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(last: &[u8]) -> Vec<Record> {
        last.iter()
            .map(|last| Record::of_address(IpAddr::from([10, 0, 0, *last])))
            .collect()
    }

    #[tokio::test]
    async fn only_a_change_is_news() {
        let news = Arc::new(News::default());
        let feed = Feed::new(Arc::clone(&news));
        assert!(feed.publish(records(&[2, 1, 2])));
        assert_eq!(*feed.records(), records(&[1, 2]));
        news.heard().await;
        assert!(!feed.publish(records(&[1, 2])), "the order says nothing");
        let silence = tokio::time::timeout(Duration::ZERO, news.heard()).await;
        assert!(silence.is_err());
    }

    #[test]
    fn that_there_is_nothing_is_news_too() {
        let feed = Feed::new(Arc::default());
        feed.note_answer();
        assert!(!feed.is_known());
        assert!(feed.publish(Vec::new()));
        assert!(feed.is_known());
        assert!(!feed.publish(Vec::new()));
    }

    #[tokio::test]
    async fn the_first_answer_ends_every_wait() {
        let feed = Arc::new(Feed::new(Arc::default()));
        let waiting = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { feed.first_answer(Duration::from_mins(1)).await }
        });
        tokio::task::yield_now().await;
        feed.note_answer();
        waiting.await.expect("no panic");
        feed.first_answer(Duration::from_mins(1)).await;
        assert!(feed.records().is_empty());
    }
}
