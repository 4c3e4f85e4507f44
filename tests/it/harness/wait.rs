//! Time in tests: waiting for a condition, and measuring how long something took.
//! There is no bare sleep anywhere else.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once: generous, the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Fails the test with a message.
#[track_caller]
#[expect(clippy::panic, reason = "a test fails by panicking")]
pub(crate) fn fail(message: &str) -> ! {
    panic!("{message}")
}

/// Waits until `probe` yields a value; fails the test with `what` after the deadline.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            watch.elapsed() < deadline,
            "waited {deadline:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds; fails the test with `what` after [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || condition().then_some(()));
}

/// Measures elapsed time.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests measure real time; this is their only clock"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Lets `interval` pass, as a pace-maker for what a test does to the gateway (never to wait for it).
    pub(crate) fn pace(interval: Duration) {
        thread::sleep(interval);
    }
}
