//! What a client may do to an HTTP/2 connection that costs it nothing: how many streams it takes
//! back, and how many frames it sends that carry no message. The HTTP/2 layer bounds what such
//! frames make it keep, but not how many it answers.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::frames::{Frame, Frames, PREFACE, RST_STREAM};

/// Streams that a client may reset in one span, and on one connection.
const RESETS_PER_SPAN: u32 = 200;
const RESETS_MAX: u32 = 1000;
const RESET_SPAN: Duration = Duration::from_secs(10);
/// Frames without a message that a client may send at once, how many more each second, and how many
/// more for each frame that it gets. A client answers a frame with one update of the window of its
/// stream and one of that of the connection.
const IDLE_FRAMES_MAX: u32 = 1000;
const IDLE_FRAMES_PER_SECOND: u32 = 100;
const IDLE_FRAMES_PER_SENT: u32 = 3;

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Offence {
    Resets = 1,
    IdleFrames = 2,
}

impl Offence {
    /// For the log.
    pub(super) const fn detail(self) -> &'static str {
        match self {
            Self::Resets => "the client resets too many streams",
            Self::IdleFrames => "the client sends too many frames without a message",
        }
    }
}

/// What the task of a connection sees of its meter.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    offence: AtomicU8,
    /// When the header block began that is arriving, and when the client stopped to take bytes: in
    /// milliseconds since `began`, from 1 on; 0 = not so.
    block: AtomicU64,
    stalled: AtomicU64,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            offence: AtomicU8::new(0),
            block: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
        }
    }

    /// What the client did wrong, if anything.
    pub(super) fn offence(&self) -> Option<Offence> {
        match self.offence.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Offence::Resets),
            _ => Some(Offence::IdleFrames),
        }
    }

    /// When the header block began that has not arrived yet.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.instant(&self.block)
    }

    /// Since when the client takes none of what is sent to it.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.instant(&self.stalled)
    }

    /// Notes whether the client takes what is sent to it.
    pub(super) fn set_stalled(&self, stalled: bool) {
        let now = if stalled { self.now() } else { 0 };
        if (self.stalled.load(Ordering::Relaxed) == 0) == stalled {
            self.stalled.store(now, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis());
        elapsed.unwrap_or(u64::MAX).max(1)
    }

    fn instant(&self, milliseconds: &AtomicU64) -> Option<Instant> {
        match milliseconds.load(Ordering::Relaxed) {
            0 => None,
            milliseconds => Some(self.began + Duration::from_millis(milliseconds)),
        }
    }
}

/// Counts the frames of a connection.
#[derive(Debug)]
pub(super) struct Meter {
    received: Frames,
    sent: Frames,
    /// How many frames without a message the client may still send.
    allowance: u32,
    allowed_at: Instant,
    resets: u32,
    resets_in_span: u32,
    span_began: Instant,
    /// Whether the last frame belongs to a header block, and whether that block goes on behind it.
    of_block: bool,
    block_open: bool,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            received: Frames::behind(PREFACE.len()),
            sent: Frames::behind(0),
            allowance: IDLE_FRAMES_MAX,
            allowed_at: now,
            resets: 0,
            resets_in_span: 0,
            span_began: now,
            of_block: false,
            block_open: false,
        }
    }

    /// Counts what the client sent.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant, pulse: &Pulse) {
        let Self {
            received,
            allowance,
            allowed_at,
            resets,
            resets_in_span,
            span_began,
            of_block,
            block_open,
            ..
        } = self;
        received.read(bytes, |frame: Frame| {
            *of_block = frame.is_of_block();
            *block_open = frame.leaves_block_open();
            if frame.is_useful() {
                return;
            }
            if frame.kind == RST_STREAM {
                if now - *span_began >= RESET_SPAN {
                    *span_began = now;
                    *resets_in_span = 0;
                }
                *resets += 1;
                *resets_in_span += 1;
                if *resets_in_span > RESETS_PER_SPAN || *resets > RESETS_MAX {
                    pulse
                        .offence
                        .store(Offence::Resets as u8, Ordering::Relaxed);
                }
            }
            if *allowance == 0 {
                let seconds = u32::try_from((now - *allowed_at).as_secs()).unwrap_or(u32::MAX);
                if seconds > 0 {
                    *allowed_at = now;
                    *allowance = seconds
                        .saturating_mul(IDLE_FRAMES_PER_SECOND)
                        .min(IDLE_FRAMES_MAX);
                } else {
                    let offence = Offence::IdleFrames as u8;
                    // The first offence is the one that is told.
                    let _ = pulse.offence.compare_exchange(
                        0,
                        offence,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                }
            }
            *allowance = allowance.saturating_sub(1);
        });
        let arriving = *block_open || (*of_block && received.is_within_frame());
        if arriving != (pulse.block.load(Ordering::Relaxed) != 0) {
            let since = if arriving { pulse.now() } else { 0 };
            pulse.block.store(since, Ordering::Relaxed);
        }
    }

    /// Counts what was sent to the client.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let allowance = &mut self.allowance;
        self.sent.read(bytes, |frame: Frame| {
            if frame.is_useful() {
                *allowance = (*allowance + IDLE_FRAMES_PER_SENT).min(IDLE_FRAMES_MAX);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http2::frames::{CONTINUATION, DATA, HEADERS};

    const PING: u8 = 6;
    const END_HEADERS: u8 = 4;

    struct Bench {
        meter: Meter,
        pulse: Pulse,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let mut meter = Meter::new(now);
            let pulse = Pulse::new(now);
            meter.receive(PREFACE, now, &pulse);
            Self { meter, pulse, now }
        }

        fn receive(&mut self, kind: u8, flags: u8, count: u32) -> Option<Offence> {
            for _ in 0..count {
                let bytes = frame(kind, flags, 4);
                self.meter.receive(&bytes, self.now, &self.pulse);
            }
            self.pulse.offence()
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.resize(bytes.len() + usize::from(length), 0);
        bytes
    }

    #[test]
    fn two_hundred_resets_in_ten_seconds_are_borne_and_one_more_is_not() {
        let mut bench = Bench::new();
        assert_eq!(bench.receive(RST_STREAM, 0, 200), None);
        bench.wait(10);
        assert_eq!(bench.receive(RST_STREAM, 0, 200), None);
        assert_eq!(bench.receive(RST_STREAM, 0, 1), Some(Offence::Resets));
    }

    #[test]
    fn a_thousand_resets_are_the_most_of_a_connection() {
        let mut bench = Bench::new();
        for _ in 0..5 {
            assert_eq!(bench.receive(RST_STREAM, 0, 200), None);
            bench.wait(10);
        }
        assert_eq!(bench.receive(RST_STREAM, 0, 1), Some(Offence::Resets));
    }

    #[test]
    fn pings_without_end_are_an_offence_and_a_few_each_second_are_not() {
        let mut bench = Bench::new();
        assert_eq!(bench.receive(PING, 0, IDLE_FRAMES_MAX), None);
        for _ in 0..10 {
            bench.wait(1);
            assert_eq!(bench.receive(PING, 0, IDLE_FRAMES_PER_SECOND), None);
        }
        assert_eq!(bench.receive(PING, 0, 1), Some(Offence::IdleFrames));
    }

    #[test]
    fn every_frame_that_is_sent_allows_for_its_answers() {
        let mut bench = Bench::new();
        for _ in 0..100_000 {
            bench.meter.send(&frame(DATA, 0, 100));
            assert_eq!(bench.receive(8, 0, 2), None);
        }
    }

    #[test]
    fn a_header_block_arrives_from_its_first_byte_to_its_last() {
        let mut bench = Bench::new();
        let headers = frame(HEADERS, 0, 4);
        let end = frame(CONTINUATION, END_HEADERS, 4);
        let mut receive = |bytes: &[u8]| {
            bench.meter.receive(bytes, bench.now, &bench.pulse);
            bench.pulse.block_since().is_some()
        };
        assert!(receive(headers.split_at(10).0));
        assert!(receive(headers.split_at(10).1));
        assert!(receive(end.split_at(10).0));
        assert!(receive(end.split_at(10).1.split_at(1).0));
        assert!(!receive(end.split_at(11).1));
        assert!(!receive(frame(DATA, 0, 9).split_at(12).0));
    }
}
