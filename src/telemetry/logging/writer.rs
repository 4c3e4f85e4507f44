//! Writes the lines of the log on a thread of its own: whoever logs never waits for whoever reads
//! stderr, and what does not fit is counted.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use crate::telemetry::{Count, outbox::Outbox};

/// The most lines that wait to be written.
const LINES_MAX: usize = 4096;

/// The way to the thread. Each `write` must be one whole line.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    outbox: Arc<Outbox<Vec<u8>>>,
    dropped: Arc<Count>,
}

impl Lines {
    /// Starts the thread that writes to `to`. A line that cannot be written is lost; the next one
    /// is tried all the same, because whoever reads may come back.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let dropped = Arc::new(Count::default());
        let lost = Arc::clone(&dropped);
        let outbox = Outbox::start("log", LINES_MAX, move |lines: &[Vec<u8>]| {
            for line in lines {
                if to.write_all(line).and_then(|()| to.flush()).is_err() {
                    lost.inc();
                }
            }
        })?;
        Ok(Self {
            outbox: Arc::new(outbox),
            dropped,
        })
    }

    /// The count of lines that were lost.
    pub(super) fn dropped(&self) -> Arc<Count> {
        Arc::clone(&self.dropped)
    }

    /// Waits until the lines before are written, at most `at_most`.
    pub(super) fn flush(&self, at_most: Duration) {
        self.outbox.flush(at_most);
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.outbox.push(line.to_vec()).is_some() {
            self.dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

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
        for _ in 0..LINES_MAX * 3 {
            lines.write_all(b"line\n").expect("logging never fails");
        }
        let dropped = lines.dropped().get();
        // The thread holds a batch and the queue the rest.
        assert!(
            dropped >= u64::try_from(LINES_MAX).expect("small"),
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
