//! Where the lines of the log go: standard error, a file that may be rotated, or nowhere. What a file
//! does not take goes to standard error, so that nothing is lost in silence.

use std::{
    io::{self, Write},
    mem::take,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use crate::telemetry::log_file::{Destination, LogFile};

/// A place for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Stderr,
    /// Created if it is not there.
    File(PathBuf),
    Off,
}

#[derive(Debug)]
enum Order {
    WriteTo(Place),
    /// The file may be another by now.
    Reopen,
}

/// What the log is to do before its next line.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders(Arc<Mutex<Vec<Order>>>);

impl Orders {
    pub(super) fn write_to(&self, place: Place) {
        self.add(Order::WriteTo(place));
    }

    pub(super) fn reopen(&self) {
        self.add(Order::Reopen);
    }

    fn add(&self, order: Order) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(order);
    }

    fn take(&self) -> Vec<Order> {
        take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes each line where the last order says; to standard error before the first.
#[derive(Debug)]
pub(super) struct Sink<W> {
    orders: Orders,
    place: Place,
    file: LogFile,
    stderr: W,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(stderr: W, orders: Orders) -> Self {
        Self {
            orders,
            place: Place::Stderr,
            file: LogFile::new("the error log", Destination::Stdout),
            stderr,
        }
    }

    fn follow_orders(&mut self) {
        for order in self.orders.take() {
            match order {
                Order::WriteTo(place) => {
                    if place == self.place {
                        continue;
                    }
                    match &place {
                        Place::File(path) => self.file.redirect(Destination::Path(path.clone())),
                        Place::Stderr | Place::Off => self.file.close(),
                    }
                    self.place = place;
                }
                Order::Reopen => self.file.close(),
            }
        }
    }
}

impl<W: Write> Write for Sink<W> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the log is there before any clock, and only the distance between lines counts"
    )]
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.follow_orders();
        let is_written = match &self.place {
            Place::Off => true,
            Place::Stderr => false,
            Place::File(_) => self.file.write(line, Instant::now()) == 0,
        };
        if !is_written {
            self.stderr.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_go_where_the_last_order_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("error.log");
        let orders = Orders::default();
        let mut sink = Sink::new(Vec::new(), orders.clone());
        sink.write_all(b"one\n").expect("written");
        orders.write_to(Place::File(path.clone()));
        sink.write_all(b"two\n").expect("written");
        orders.write_to(Place::Off);
        sink.write_all(b"three\n").expect("written");
        orders.write_to(Place::Stderr);
        sink.write_all(b"four\n").expect("written");
        assert_eq!(sink.stderr, b"one\nfour\n");
        assert_eq!(fs::read(path).expect("a file"), b"two\n");
    }

    #[test]
    fn what_a_file_does_not_take_goes_to_standard_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let orders = Orders::default();
        let mut sink = Sink::new(Vec::new(), orders.clone());
        orders.write_to(Place::File(folder.path().join("none/error.log")));
        sink.write_all(b"one\n").expect("written");
        assert_eq!(sink.stderr, b"one\n");
    }

    #[test]
    fn after_a_rotation_a_new_file_is_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("error.log");
        let orders = Orders::default();
        let mut sink = Sink::new(Vec::new(), orders.clone());
        orders.write_to(Place::File(path.clone()));
        sink.write_all(b"one\n").expect("written");
        fs::rename(&path, folder.path().join("error.log.1")).expect("renamed");
        orders.reopen();
        sink.write_all(b"two\n").expect("written");
        assert_eq!(fs::read(path).expect("a file"), b"two\n");
    }
}
