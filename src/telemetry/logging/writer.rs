//! Writes lines on a thread of its own behind a bounded queue: whoever logs never waits for whoever
//! reads stderr, and what does not fit is counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread,
    time::Duration,
};

use crate::telemetry::Count;

/// The most lines that wait to be written.
const LINES_MAX: usize = 4096;

/// The way into the queue. Each `write` must be one whole line.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
    dropped: Arc<Count>,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Everything before this is written.
    Flush(Sender<()>),
}

impl Lines {
    /// Starts the thread that writes to `to`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = mpsc::sync_channel(LINES_MAX);
        let dropped = Arc::new(Count::default());
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&waiting, to, &lost))?;
        Ok(Self { queue, dropped })
    }

    /// The count of lines that were lost.
    pub(super) fn dropped(&self) -> Arc<Count> {
        Arc::clone(&self.dropped)
    }

    /// Waits until the lines before are written, at most `at_most`, and not at all if the queue is
    /// full: then nobody reads.
    pub(super) fn flush(&self, at_most: Duration) {
        let (done, wait) = mpsc::channel();
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            // Too late is not an error: the lines are written later or never.
            let _ = wait.recv_timeout(at_most);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until nobody can log any more. A line that cannot be written is lost; the next one is
/// tried all the same, because whoever reads may come back.
fn write_all(waiting: &Receiver<Item>, mut to: impl Write, lost: &Count) {
    for item in waiting {
        match item {
            Item::Line(line) => {
                if to.write_all(&line).and_then(|()| to.flush()).is_err() {
                    lost.inc();
                }
            }
            // Whoever wanted to know may have given up.
            Item::Flush(done) => _ = done.send(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets one write through for each permit, and reports what was written.
    struct Gate {
        permits: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.permits
                .recv()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.written
                .send(bytes.to_vec())
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Gate, Sender<()>, Receiver<Vec<u8>>) {
        let (permit, permits) = mpsc::channel();
        let (written, seen) = mpsc::channel();
        (Gate { permits, written }, permit, seen)
    }

    #[test]
    fn a_reader_that_blocks_costs_lines_but_no_time() {
        let (to, permit, seen) = gate();
        let mut lines = Lines::start(to).expect("a thread starts");
        for _ in 0..LINES_MAX * 2 {
            lines.write_all(b"line\n").expect("logging never fails");
        }
        let dropped = lines.dropped().get();
        // The thread holds one line and the queue the rest.
        assert!(
            dropped >= u64::try_from(LINES_MAX).expect("small") - 1,
            "{dropped}"
        );
        lines.flush(Duration::from_millis(1));
        permit.send(()).expect("the thread waits");
        assert_eq!(seen.recv().expect("it writes on"), b"line\n");
    }

    #[test]
    fn a_reader_that_is_gone_does_not_end_the_log() {
        let (to, permit, seen) = gate();
        drop((permit, seen));
        let mut lines = Lines::start(to).expect("a thread starts");
        for _ in 0..3 {
            lines.write_all(b"line\n").expect("logging never fails");
        }
        lines.flush(Duration::from_secs(5));
        assert_eq!(lines.dropped().get(), 3);
    }
}
