//! Takes over what Pingora and other crates log through the `log` crate: warnings and errors only,
//! and each kind of them at most once in ten seconds, because clients can provoke them at will.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use tracing::{error, warn};

/// How long a kind of message is silent after it was logged.
const SILENCE: Duration = Duration::from_secs(10);

/// Receives the records of the `log` crate from now on.
///
/// # Errors
/// When the process has such a receiver already.
pub(super) fn install() -> Result<(), SetLoggerError> {
    log::set_boxed_logger(Box::<Bridge>::default())?;
    log::set_max_level(LevelFilter::Warn);
    Ok(())
}

#[derive(Debug, Default)]
struct Bridge {
    limiter: Limiter,
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the log is there before any clock, and only the distance between lines counts"
    )]
    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let kind = Kind {
            module: record.module_path_static().unwrap_or_default(),
            line: record.line().unwrap_or_default(),
        };
        let Some(suppressed) = self.limiter.admit(kind, Instant::now()) else {
            return;
        };
        let message = record.args().to_string();
        let message = without_client_bytes(&message);
        let suppressed = (suppressed > 0).then_some(suppressed);
        if record.level() == Level::Error {
            error!(suppressed, source = record.target(), "{message}");
        } else {
            warn!(suppressed, source = record.target(), "{message}");
        }
    }

    fn flush(&self) {}
}

/// Cuts off the dump of what a client sent, which Pingora appends to its parse errors: it may
/// contain credentials.
fn without_client_bytes(message: &str) -> &str {
    message
        .split_once("buf: ")
        .map_or(message, |(before, _)| before.trim_end())
}

/// Messages of one kind come from one place in the source. There are only so many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    module: &'static str,
    line: u32,
}

#[derive(Debug, Default)]
struct Limiter(Mutex<HashMap<Kind, Silence>>);

#[derive(Debug)]
struct Silence {
    ends: Instant,
    suppressed: u64,
}

impl Limiter {
    /// Whether a message may be logged at `now`, and if so, how many of its kind were not since the
    /// last that was.
    fn admit(&self, kind: Kind, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Silence {
            ends: now + SILENCE,
            suppressed: 0,
        };
        let Some(silence) = kinds.get_mut(&kind) else {
            kinds.insert(kind, fresh);
            return Some(0);
        };
        if now < silence.ends {
            silence.suppressed += 1;
            return None;
        }
        Some(std::mem::replace(silence, fresh).suppressed)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do")]
mod tests {
    use super::*;

    const HANDSHAKE: Kind = Kind {
        module: "pingora_core::listeners",
        line: 7,
    };
    const OTHER: Kind = Kind {
        line: 8,
        ..HANDSHAKE
    };

    #[test]
    fn a_kind_is_logged_once_in_ten_seconds() {
        let limiter = Limiter::default();
        let start = Instant::now();
        assert_eq!(limiter.admit(HANDSHAKE, start), Some(0));
        for milliseconds in [0, 1, 9_999] {
            let now = start + Duration::from_millis(milliseconds);
            assert_eq!(limiter.admit(HANDSHAKE, now), None);
        }
        assert_eq!(limiter.admit(HANDSHAKE, start + SILENCE), Some(3));
        assert_eq!(limiter.admit(HANDSHAKE, start + SILENCE), None);
    }

    #[test]
    fn one_kind_does_not_silence_another() {
        let limiter = Limiter::default();
        let start = Instant::now();
        assert_eq!(limiter.admit(HANDSHAKE, start), Some(0));
        assert_eq!(limiter.admit(OTHER, start), Some(0));
    }

    #[test]
    fn what_a_client_sent_is_not_logged() {
        assert_eq!(
            without_client_bytes(
                "Fail to proxy: Downstream InvalidHTTPHeader context: buf: GET /?apikey=secret"
            ),
            "Fail to proxy: Downstream InvalidHTTPHeader context:"
        );
        assert_eq!(
            without_client_bytes("nothing of a client"),
            "nothing of a client"
        );
    }
}
