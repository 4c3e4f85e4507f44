//! One circuit by itself: closed, open or half-open, decided by what requests came to. Lock-free, with
//! the time handed in; it logs and counts nothing.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::state::window::{SLICES, Window};

const PHASE_SHIFT: u32 = 62;
const GENERATION_SHIFT: u32 = 40;
const GENERATION_MASK: u64 = (1 << (PHASE_SHIFT - GENERATION_SHIFT)) - 1;
const REST_MASK: u64 = (1 << GENERATION_SHIFT) - 1;
const HALF_SHIFT: u32 = 20;
const HALF_MASK: u64 = (1 << HALF_SHIFT) - 1;
/// The most probes that there is room for.
pub const PROBES_MAX: u32 = 1000;

/// Whether requests may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Closed,
    HalfOpen,
    Open,
}

impl Phase {
    /// Every phase, by its number.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The phase as logs, metrics and pages call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// When a circuit opens and closes. A reload may change it while the circuit goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// It opens after so many failures in a row; 0 = not for that.
    pub consecutive: u32,
    /// It opens when this share of the requests of the window failed.
    pub ratio: Option<f64>,
    /// And at least so many requests were seen in it.
    pub requests_min: u32,
    pub window: Duration,
    /// How long it stays open.
    pub open: Duration,
    /// So many requests probe at once, and so many successes close it; at most [`PROBES_MAX`].
    pub probes: u32,
}

/// Leave for one request. What it came to is told with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u64,
    is_probe: bool,
}

impl Ticket {
    /// Whether it is one of the few that decide over a half-open circuit.
    pub(super) fn is_probe(self) -> bool {
        self.is_probe
    }
}

/// Why a circuit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Consecutive(u32),
    Ratio { failed: u64, all: u64 },
    Waited(Duration),
    ProbeFailed,
    ProbesSucceeded(u32),
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(1) => formatter.write_str("1 failure"),
            Self::Consecutive(count) => write!(formatter, "{count} failures in a row"),
            Self::Ratio { failed, all } => write!(formatter, "{failed} of {all} requests failed"),
            Self::Waited(open) => write!(formatter, "was open for {open:?}"),
            Self::ProbeFailed => formatter.write_str("a probe failed"),
            Self::ProbesSucceeded(1) => formatter.write_str("a probe succeeded"),
            Self::ProbesSucceeded(count) => write!(formatter, "{count} probes succeeded"),
        }
    }
}

/// A change of a circuit, told to the one who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) from: Phase,
    pub(super) to: Phase,
    pub(super) cause: Cause,
}

/// A circuit.
///
/// All of it is in one word, so that each step is one exchange: the phase, a number that every change
/// makes new (what an outcome of before a change says no longer counts), and in 40 bits the failures
/// in a row while closed, the moment of opening while open, or how many probes were let through and
/// how many of them succeeded while half-open.
#[derive(Debug, Default)]
pub(super) struct Machine {
    word: AtomicU64,
    all: Window,
    failed: Window,
    /// How wide the slices of both windows are, in milliseconds; 0 before the first.
    width: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    generation: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u64 },
    Open { since: u64 },
    HalfOpen { probing: u64, succeeded: u64 },
}

impl State {
    const fn phase(self) -> Phase {
        match self {
            Self::Closed { .. } => Phase::Closed,
            Self::Open { .. } => Phase::Open,
            Self::HalfOpen { .. } => Phase::HalfOpen,
        }
    }
}

impl Word {
    const fn unpack(bits: u64) -> Self {
        let rest = bits & REST_MASK;
        let state = match bits >> PHASE_SHIFT {
            0 => State::Closed { failures: rest },
            1 => State::HalfOpen {
                probing: rest >> HALF_SHIFT,
                succeeded: rest & HALF_MASK,
            },
            _ => State::Open { since: rest },
        };
        Self {
            generation: bits >> GENERATION_SHIFT & GENERATION_MASK,
            state,
        }
    }

    const fn pack(self) -> u64 {
        let rest = match self.state {
            State::Closed { failures } => failures,
            State::Open { since } => since,
            State::HalfOpen { probing, succeeded } => probing << HALF_SHIFT | succeeded,
        };
        (self.state.phase() as u64) << PHASE_SHIFT
            | (self.generation & GENERATION_MASK) << GENERATION_SHIFT
            | rest & REST_MASK
    }

    const fn within(self, state: State) -> Self {
        Self { state, ..self }
    }

    const fn changed(self, state: State) -> Self {
        Self {
            generation: self.generation.wrapping_add(1) & GENERATION_MASK,
            state,
        }
    }
}

impl Machine {
    /// Whether requests may pass. One that has been open for long enough is open until somebody asks.
    pub(super) fn phase(&self) -> Phase {
        self.look().state.phase()
    }

    /// Whether a request at `now` would be let through.
    ///
    /// # Errors
    /// How long the circuit stays open; zero if it only waits for its probes.
    pub(super) fn would_admit(&self, limits: &Limits, now: Duration) -> Result<(), Duration> {
        match self.look().state {
            State::Closed { .. } => Ok(()),
            State::HalfOpen { probing, succeeded } if has_room(probing, succeeded, limits) => {
                Ok(())
            }
            State::HalfOpen { .. } => Err(Duration::ZERO),
            State::Open { since } => match remaining(since, limits, now) {
                Duration::ZERO => Ok(()),
                left => Err(left),
            },
        }
    }

    /// Asks leave for a request at `now`, a time since the circuit was made; gives the change as
    /// well that this may make.
    ///
    /// # Errors
    /// See [`Self::would_admit`].
    pub(super) fn admit(
        &self,
        limits: &Limits,
        now: Duration,
    ) -> Result<(Ticket, Option<Change>), Duration> {
        self.adopt_width(limits);
        loop {
            let word = self.look();
            let (new, change) = match word.state {
                State::Closed { .. } => {
                    return Ok((
                        Ticket {
                            generation: word.generation,
                            is_probe: false,
                        },
                        None,
                    ));
                }
                State::HalfOpen { probing, succeeded } if has_room(probing, succeeded, limits) => {
                    let probing = probing + 1;
                    (word.within(State::HalfOpen { probing, succeeded }), None)
                }
                State::HalfOpen { .. } => return Err(Duration::ZERO),
                State::Open { since } => {
                    let left = remaining(since, limits, now);
                    if left > Duration::ZERO {
                        return Err(left);
                    }
                    let change = Change {
                        from: Phase::Open,
                        to: Phase::HalfOpen,
                        cause: Cause::Waited(limits.open),
                    };
                    let state = State::HalfOpen {
                        probing: 1,
                        succeeded: 0,
                    };
                    (word.changed(state), Some(change))
                }
            };
            if self.exchange(word, new) {
                let ticket = Ticket {
                    generation: new.generation,
                    is_probe: true,
                };
                return Ok((ticket, change));
            }
        }
    }

    /// Tells what the request with this ticket came to.
    pub(super) fn judge(
        &self,
        ticket: Ticket,
        has_failed: bool,
        limits: &Limits,
        now: Duration,
    ) -> Option<Change> {
        let mut is_counted = false;
        loop {
            let word = self.look();
            if word.generation != ticket.generation {
                return None;
            }
            let (new, change) = match word.state {
                State::Closed { failures } => {
                    if !is_counted {
                        is_counted = true;
                        self.count(has_failed, limits, now);
                    }
                    if !has_failed && failures == 0 {
                        return None;
                    }
                    let failures = if has_failed {
                        (failures + 1).min(REST_MASK)
                    } else {
                        0
                    };
                    match self.cause_to_open(has_failed, failures, limits, now) {
                        Some(cause) => (word.changed(opened(now)), Some((Phase::Open, cause))),
                        None => (word.within(State::Closed { failures }), None),
                    }
                }
                State::HalfOpen { .. } if has_failed => {
                    let change = (Phase::Open, Cause::ProbeFailed);
                    (word.changed(opened(now)), Some(change))
                }
                State::HalfOpen { probing, succeeded } => {
                    let succeeded = succeeded + 1;
                    if succeeded >= u64::from(limits.probes) {
                        // Nobody else counts until the circuit is closed.
                        self.clear();
                        let cause = Cause::ProbesSucceeded(limits.probes);
                        let state = State::Closed { failures: 0 };
                        (word.changed(state), Some((Phase::Closed, cause)))
                    } else {
                        (word.within(State::HalfOpen { probing, succeeded }), None)
                    }
                }
                // Whoever has this number was let through by a later phase than open.
                State::Open { .. } => return None,
            };
            if self.exchange(word, new) {
                return change.map(|(to, cause)| Change {
                    from: word.state.phase(),
                    to,
                    cause,
                });
            }
        }
    }

    /// Tells that a probe failed after all, whose success was told. As long as that `is_soon`, the circuit opens,
    /// also if it has closed by that success; later it is a failure like others.
    pub(super) fn revoke(
        &self,
        ticket: Ticket,
        is_soon: bool,
        limits: &Limits,
        now: Duration,
    ) -> Option<Change> {
        loop {
            let word = self.look();
            let next = ticket.generation.wrapping_add(1) & GENERATION_MASK;
            let from = match word.state {
                State::HalfOpen { .. } if word.generation == ticket.generation => Phase::HalfOpen,
                State::Closed { .. } if word.generation == next && is_soon => Phase::Closed,
                State::Closed { .. } if word.generation == next => {
                    let ticket = Ticket {
                        generation: next,
                        is_probe: false,
                    };
                    return self.judge(ticket, true, limits, now);
                }
                _ => return None,
            };
            if self.exchange(word, word.changed(opened(now))) {
                return Some(Change {
                    from,
                    to: Phase::Open,
                    cause: Cause::ProbeFailed,
                });
            }
        }
    }

    /// Takes back the ticket of a request that says nothing of the upstream, so that another may probe.
    pub(super) fn give_back(&self, ticket: Ticket) {
        if !ticket.is_probe {
            return;
        }
        loop {
            let word = self.look();
            let State::HalfOpen { probing, succeeded } = word.state else {
                return;
            };
            if word.generation != ticket.generation {
                return;
            }
            let probing = probing.saturating_sub(1);
            if self.exchange(word, word.within(State::HalfOpen { probing, succeeded })) {
                return;
            }
        }
    }

    fn count(&self, has_failed: bool, limits: &Limits, now: Duration) {
        if limits.ratio.is_some() && self.has_width(limits) {
            let slice = slice(limits, now);
            self.all.add(slice);
            if has_failed {
                self.failed.add(slice);
            }
        }
    }

    fn cause_to_open(
        &self,
        has_failed: bool,
        failures: u64,
        limits: &Limits,
        now: Duration,
    ) -> Option<Cause> {
        if !has_failed {
            return None;
        }
        if limits.consecutive > 0 && failures >= u64::from(limits.consecutive) {
            return Some(Cause::Consecutive(limits.consecutive));
        }
        let ratio = limits.ratio.filter(|_| self.has_width(limits))?;
        let slice = slice(limits, now);
        let (failed, all) = (self.failed.sum(slice), self.all.sum(slice));
        let is_over =
            all >= u64::from(limits.requests_min) && number(failed) >= ratio * number(all);
        is_over.then_some(Cause::Ratio { failed, all })
    }

    /// Counts in slices as wide as `limits` say from now on. What was counted in others is forgotten:
    /// their numbers mean nothing any more. Only who comes in decides that: requests of before a reload
    /// end long after it.
    fn adopt_width(&self, limits: &Limits) {
        let width = width(limits);
        if limits.ratio.is_some()
            && !self.has_width(limits)
            && self.width.swap(width, Ordering::Relaxed) != width
        {
            self.clear();
        }
    }

    /// Whether it counts in slices as wide as `limits` say.
    fn has_width(&self, limits: &Limits) -> bool {
        self.width.load(Ordering::Relaxed) == width(limits)
    }

    fn clear(&self) {
        self.all.clear();
        self.failed.clear();
    }

    fn look(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    fn exchange(&self, old: Word, new: Word) -> bool {
        self.word
            .compare_exchange(old.pack(), new.pack(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

fn opened(now: Duration) -> State {
    State::Open {
        since: milliseconds(now) & REST_MASK,
    }
}

fn remaining(since: u64, limits: &Limits, now: Duration) -> Duration {
    // Whoever opened the circuit may have looked at the clock after us.
    let been_open = milliseconds(now).saturating_sub(since);
    limits.open.saturating_sub(Duration::from_millis(been_open))
}

/// Whether one more request may probe. A reload may lower the limit to what has succeeded already, so
/// one may always be under way: its success closes the circuit.
fn has_room(probing: u64, succeeded: u64, limits: &Limits) -> bool {
    probing < u64::from(limits.probes) || probing == succeeded
}

fn width(limits: &Limits) -> u64 {
    (milliseconds(limits.window) / u64::from(SLICES)).max(1)
}

fn slice(limits: &Limits, now: Duration) -> u32 {
    let slice = (milliseconds(now) / width(limits)) & u64::from(u32::MAX);
    u32::try_from(slice).expect("32 bits are left")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no circuit sees so many requests in its window"
)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
