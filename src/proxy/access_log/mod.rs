//! The access log: one line for each request, also for those that were refused. Requests hand over
//! what they know and go on; a thread makes lines of it and writes them.

mod entry;
mod line;
mod stream;

use std::{
    io,
    mem::take,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub(super) use entry::Entry;
pub use line::masked;
pub use stream::StreamEntry;

use crate::{
    snapshot::AccessLog as Setting,
    state::{State, clock::Clock},
    telemetry::{
        Losses,
        log_file::{Destination, LogFile},
        outbox::Outbox,
    },
};

/// What the log is called in metrics.
const NAME: &str = "access-log";
/// The most requests that wait to be written.
const ENTRIES_MAX: usize = 10_000;
/// How long a new place waits for what belongs to the old one.
const TURN: Duration = Duration::from_millis(200);
/// How much memory for lines is kept from one batch to the next.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The way to the thread that writes. Where it writes is told to it; in what format, and whether
/// at all, each request decides by its own snapshot.
#[derive(Debug)]
pub struct AccessLog {
    outbox: Outbox<Item>,
    orders: Arc<Mutex<Vec<Order>>>,
    losses: Arc<Losses>,
}

/// What gets a line.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are requests, and a box would cost each an allocation"
)]
enum Item {
    Request(Entry),
    Stream(StreamEntry),
}

#[derive(Debug)]
enum Order {
    WriteTo(Destination),
    /// Write no more, but for what comes late.
    Stop,
    /// The file may be another by now.
    Reopen,
}

impl AccessLog {
    /// Starts the thread. It opens the file at once, and says so if it cannot.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(setting: Option<&Setting>, state: &State) -> io::Result<Self> {
        let losses = state.telemetry.losses(NAME);
        let orders = Arc::default();
        let mut writer = Writer {
            file: LogFile::new("the access log", Destination::Stdout),
            is_on: false,
            lines: Vec::new(),
            orders: Arc::clone(&orders),
            losses: Arc::clone(&losses),
            clock: state.clock.clone(),
        };
        let log = Self {
            outbox: Outbox::start("access-log", ENTRIES_MAX, move |entries: &[Item]| {
                writer.write(entries);
            })?,
            orders,
            losses,
        };
        log.adopt(setting);
        Ok(log)
    }

    /// Takes over where to write from a new configuration. What is queued by then still goes to the
    /// old place, unless that does not take it soon.
    pub fn adopt(&self, setting: Option<&Setting>) {
        self.flush(TURN);
        self.order(setting.map_or(Order::Stop, |setting| Order::WriteTo(setting.to.clone())));
    }

    /// Opens the file again, because whoever rotates logs says so.
    pub fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Waits until everything logged so far is written, but not longer than `at_most`.
    pub fn flush(&self, at_most: Duration) {
        self.outbox.flush(at_most);
    }

    /// Queues an entry. Never waits: a log that nobody reads costs its own oldest entries.
    pub(super) fn push(&self, entry: Entry) {
        self.push_item(Item::Request(entry));
    }

    /// The same for a stream that has ended.
    pub fn push_stream(&self, entry: StreamEntry) {
        self.push_item(Item::Stream(entry));
    }

    fn push_item(&self, item: Item) {
        if self.outbox.push(item).is_some() {
            self.losses.queue_full.inc();
        }
    }

    fn order(&self, order: Order) {
        self.orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(order);
        self.outbox.wake();
    }
}

/// What the thread works with.
#[derive(Debug)]
struct Writer {
    file: LogFile,
    is_on: bool,
    lines: Vec<u8>,
    orders: Arc<Mutex<Vec<Order>>>,
    losses: Arc<Losses>,
    clock: Clock,
}

impl Writer {
    fn write(&mut self, entries: &[Item]) {
        self.follow_orders();
        let now = line::Now {
            instant: self.clock.instant(),
            unix_milliseconds: self.clock.unix_milliseconds(),
        };
        if !entries.is_empty() {
            for entry in entries {
                match entry {
                    Item::Request(entry) => entry.write_line(now, &mut self.lines),
                    Item::Stream(entry) => entry.write_line(now, &mut self.lines),
                }
            }
            let lost = self.file.write(&self.lines, now.instant);
            self.losses.unwritable.add(lost);
            self.lines.clear();
            self.lines.shrink_to(KEPT_BYTES_MAX);
        }
        if self.is_on {
            self.file.look(now.instant);
        } else {
            self.file.close();
        }
    }

    fn follow_orders(&mut self) {
        let orders = take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        for order in orders {
            match order {
                Order::WriteTo(to) => {
                    if *self.file.destination() != to {
                        self.file.redirect(to);
                    }
                    self.is_on = true;
                }
                Order::Stop => self.is_on = false,
                Order::Reopen => self.file.close(),
            }
        }
    }
}
