//! A bounded queue with a thread behind it, for work that no request may wait for. It drops what
//! is oldest when it is full; what a drop means, and to whom it is counted, is its user's business.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The most items that the thread takes at once, so that the lock is never held long.
const BATCH_MAX: usize = 256;
/// How long the thread gathers items after a batch: under load it wakes up a hundred times a
/// second and not for each item.
const PAUSE: Duration = Duration::from_millis(10);

/// The way into the queue. The thread ends when it is dropped, with what is queued by then.
#[derive(Debug)]
pub struct Outbox<T> {
    shared: Arc<Shared<T>>,
    room: usize,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// Tells the thread that there is something to do.
    work: Condvar,
    /// Tells those who wait for the thread that it got on.
    done: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    /// The thread sleeps until it is told.
    idle: bool,
    /// The thread shall go on at once, with items or without.
    hurried: bool,
    closed: bool,
    /// How many items came, and how many of them are dealt with or were dropped.
    came: u64,
    gone: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hurry(&self) {
        self.lock().hurried = true;
        self.work.notify_one();
    }
}

impl<T: Send + 'static> Outbox<T> {
    /// Starts a thread that calls `deal` with each batch of items, and with none after
    /// [`Self::wake`]. At most `room` items wait.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        thread_name: &str,
        room: usize,
        deal: impl FnMut(&[T]) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                idle: false,
                hurried: false,
                closed: false,
                came: 0,
                gone: 0,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || run(&theirs, deal))?;
        Ok(Self { shared, room })
    }
}

impl<T> Outbox<T> {
    /// Queues `item`. If there is no room the item that waited longest is given back instead.
    #[must_use = "an item that is given back is lost and wants to be counted"]
    pub fn push(&self, item: T) -> Option<T> {
        let mut queue = self.shared.lock();
        let displaced = if queue.waiting.len() < self.room {
            None
        } else {
            queue.gone += 1;
            queue.waiting.pop_front()
        };
        queue.waiting.push_back(item);
        queue.came += 1;
        let was_idle = std::mem::take(&mut queue.idle);
        drop(queue);
        if was_idle {
            self.shared.work.notify_one();
        }
        displaced
    }

    /// Has the thread look at the world, also if nothing is queued.
    pub fn wake(&self) {
        self.shared.hurry();
    }

    /// Waits until everything queued before is dealt with, at most `at_most`.
    pub fn flush(&self, at_most: Duration) {
        self.shared.hurry();
        let queue = self.shared.lock();
        let came = queue.came;
        // Too late is not an error: the items are dealt with later or never.
        let _ = self
            .shared
            .done
            .wait_timeout_while(queue, at_most, |queue| queue.gone < came);
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.hurry();
    }
}

fn run<T>(shared: &Shared<T>, mut deal: impl FnMut(&[T])) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut queue = shared.lock();
    loop {
        while queue.waiting.is_empty() && !queue.hurried {
            queue.idle = true;
            queue = wait(shared.work.wait(queue));
        }
        queue.idle = false;
        queue.hurried = false;
        let count = queue.waiting.len().min(BATCH_MAX);
        batch.extend(queue.waiting.drain(..count));
        drop(queue);
        deal(&batch);
        batch.clear();
        queue = shared.lock();
        queue.gone += count as u64;
        shared.done.notify_all();
        if queue.closed && queue.waiting.is_empty() {
            return;
        }
        if queue.waiting.len() < BATCH_MAX && !queue.closed {
            let paused = shared
                .work
                .wait_timeout_while(queue, PAUSE, |queue| !queue.hurried);
            queue = wait(paused).0;
        }
    }
}

/// A panic while the lock was held leaves no item half queued.
fn wait<G>(waited: Result<G, PoisonError<G>>) -> G {
    waited.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Deals with a batch for each permit, and reports what was in it.
    fn gated(room: usize) -> (Outbox<u32>, Sender<()>, Receiver<Vec<u32>>) {
        let (permit, permits) = mpsc::channel();
        let (dealt, seen) = mpsc::channel();
        let outbox = Outbox::start("test", room, move |batch: &[u32]| {
            if permits.recv().is_ok() {
                let _ = dealt.send(batch.to_vec());
            }
        })
        .expect("a thread starts");
        (outbox, permit, seen)
    }

    #[test]
    fn items_arrive_in_their_order() {
        let (outbox, permit, seen) = gated(10_000);
        for item in 0..1_000 {
            assert_eq!(outbox.push(item), None);
        }
        let mut items = Vec::new();
        while items.len() < 1_000 {
            permit.send(()).expect("the thread waits");
            items.extend(seen.recv().expect("it goes on"));
        }
        assert!(items.iter().copied().eq(0..1_000));
    }

    #[test]
    fn a_full_queue_gives_back_its_oldest_item() {
        let (outbox, permit, seen) = gated(2);
        assert_eq!(outbox.push(0), None);
        // The thread holds the first item until it may go on.
        while !outbox.shared.lock().waiting.is_empty() {
            thread::yield_now();
        }
        let given_back: Vec<_> = (1..=4).map(|item| outbox.push(item)).collect();
        assert_eq!(given_back, [None, None, Some(1), Some(2)]);
        for expected in [vec![0], vec![3, 4]] {
            permit.send(()).expect("the thread waits");
            assert_eq!(seen.recv().expect("it goes on"), expected);
        }
    }

    #[test]
    fn flushing_waits_for_what_came_before_and_not_for_ever() {
        let (outbox, permit, seen) = gated(10);
        assert_eq!(outbox.push(1), None);
        outbox.flush(Duration::from_millis(1));
        assert!(seen.try_recv().is_err());
        for _ in 0..2 {
            permit.send(()).expect("the thread waits");
        }
        outbox.flush(Duration::from_mins(1));
        assert_eq!(seen.try_recv().expect("dealt with"), [1]);
    }

    #[test]
    fn waking_needs_no_item() {
        let (outbox, permit, seen) = gated(10);
        permit.send(()).expect("the thread waits");
        outbox.wake();
        assert!(seen.recv().expect("it looks").is_empty());
    }

    #[test]
    fn what_is_queued_when_the_way_in_goes_is_dealt_with() {
        let (outbox, permit, seen) = gated(1_000);
        for item in 0..1_000 {
            assert_eq!(outbox.push(item), None);
        }
        for _ in 0..1_000 {
            permit.send(()).expect("the thread is there");
        }
        drop(outbox);
        assert_eq!(seen.iter().flatten().count(), 1_000);
    }
}
