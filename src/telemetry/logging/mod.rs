//! The gateway's own log: one line for each event, on stderr or in a file, for people and for journald. The
//! access log is something else.

mod bridge;
mod format;
mod sink;
mod writer;

use std::{
    io::{self, IsTerminal},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Registry, filter::Targets, fmt, layer::SubscriberExt, reload};

use super::Count;
pub use sink::Place;
use sink::{Orders, Sink};
use writer::Lines;

/// The crate whose events the level is about.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// The crate that reads frames of HTTP/2: it warns of what clients send, as often as they send it.
const HTTP2: &str = "h2";

/// The least that is logged, with Kong's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    Debug,
    Info,
    /// Kong's default. The same as `info`: start, stop, reload, and changes of health.
    #[default]
    Notice,
    Warn,
    Error,
    /// The same as `error`: nothing that an operator must act upon is left out.
    Crit,
}

/// A name that is no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not one of debug, info, notice, warn, error, crit")]
pub struct UnknownLevel;

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "notice" => Self::Notice,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "crit" => Self::Crit,
            _ => return Err(UnknownLevel),
        })
    }
}

impl Level {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info | Self::Notice => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error | Self::Crit => LevelFilter::ERROR,
        }
    }
}

/// The log could not be set up.
#[derive(Debug, Error)]
pub enum InitError {
    /// The thread that writes did not start.
    #[error("cannot start the log's thread")]
    Thread(#[from] io::Error),
    /// Somebody set up a log before.
    #[error("the process has a log already")]
    AlreadySet,
}

/// The log of the process. The log itself works on without it.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
    lines: Lines,
    orders: Orders,
}

/// Sets up the log of the process, once. Colours only on a terminal.
///
/// # Errors
/// When there is a log already, or no thread.
pub fn init(level: Level) -> Result<Logging, InitError> {
    let orders = Orders::default();
    let lines = Lines::start(Sink::new(io::stderr(), orders.clone()))?;
    let (subscriber, filter) = subscriber(level, lines.clone(), io::stderr().is_terminal());
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::AlreadySet)?;
    bridge::install().map_err(|_| InitError::AlreadySet)?;
    Ok(Logging {
        filter,
        lines,
        orders,
    })
}

impl Logging {
    /// Logs from `level` on.
    pub fn set_level(&self, level: Level) {
        self.filter
            .reload(targets(level))
            .expect("the subscriber lives as long as the process");
    }

    /// Writes to `place` from now on.
    pub fn write_to(&self, place: Place) {
        self.orders.write_to(place);
    }

    /// Opens the file again, because whoever rotates logs says so.
    pub fn reopen(&self) {
        self.orders.reopen();
    }

    /// How many lines were lost because nobody read stderr fast enough, or at all.
    pub fn lines_dropped(&self) -> Arc<Count> {
        self.lines.dropped()
    }

    /// Waits until everything logged so far is written, but not longer than `at_most`.
    pub fn flush(&self, at_most: Duration) {
        self.lines.flush(at_most);
    }
}

/// Our own events from `level` on; of other crates only warnings, because their details are theirs.
fn targets(level: Level) -> Targets {
    let level = level.filter();
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(HTTP2, LevelFilter::OFF)
        .with_target(OURS, level)
}

fn subscriber(
    level: Level,
    lines: Lines,
    colours: bool,
) -> (
    impl Subscriber + Send + Sync,
    reload::Handle<Targets, Registry>,
) {
    let (filter, handle) = reload::Layer::new(targets(level));
    let subscriber = tracing_subscriber::registry().with(filter).with(
        fmt::layer()
            .event_format(format::Line)
            .with_ansi(colours)
            .with_writer(move || lines.clone()),
    );
    (subscriber, handle)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Mutex, PoisonError},
    };

    use tracing::{Level as Severity, debug, info, subscriber::with_default, warn};

    use super::*;

    /// A place for lines that a test can read.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `act` runs, which may change the level.
    fn logged(level: Level, act: impl FnOnce(&dyn Fn(Level))) -> Vec<String> {
        let paper = Paper::default();
        let lines = Lines::start(paper.clone()).expect("a thread starts");
        let (subscriber, filter) = subscriber(level, lines.clone(), false);
        with_default(subscriber, || {
            act(&|level| filter.reload(targets(level)).expect("the subscriber lives"));
        });
        lines.flush(Duration::from_secs(5));
        let bytes = paper.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes)
            .expect("UTF-8")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn an_event_is_one_line_with_time_level_message_and_fields() {
        let lines = logged(Level::Notice, |_| {
            warn!(upstream = %"users", failures = 3, why = "no\nanswer", "target is\nunhealthy");
        });
        let (time, rest) = lines[0].split_once(' ').expect("a time");
        assert!(
            chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.ends_with('Z'),
            "{time}"
        );
        assert_eq!(
            rest,
            r#"WARN  target is\nunhealthy upstream=users failures=3 why="no\nanswer""#
        );
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn the_level_can_be_changed_at_run_time() {
        let lines = logged(Level::Notice, |set_level| {
            debug!("hidden");
            info!("shown");
            set_level(Level::Debug);
            debug!("shown now");
            set_level(Level::Crit);
            warn!("hidden now");
        });
        let messages: Vec<_> = lines
            .iter()
            .filter_map(|line| line.splitn(3, ' ').last())
            .map(str::trim)
            .collect();
        assert_eq!(messages, ["shown", "shown now"]);
    }

    #[test]
    fn other_crates_are_heard_from_warn_on() {
        let targets = targets(Level::Debug);
        assert!(targets.would_enable(OURS, &Severity::DEBUG));
        assert!(!targets.would_enable("hyper", &Severity::INFO));
        assert!(targets.would_enable("hyper", &Severity::WARN));
    }

    #[test]
    fn the_names_of_levels_are_kongs() {
        for name in ["debug", "info", "notice", "warn", "error", "crit"] {
            assert!(name.parse::<Level>().is_ok(), "{name}");
        }
        assert_eq!("loud".parse::<Level>(), Err(UnknownLevel));
    }
}
