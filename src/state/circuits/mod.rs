//! Circuits of services and of addresses: kept across reloads, asked by requests. When they open is
//! said by whoever asks; what became of a request is told by its permit.

mod machine;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use hashbrown::HashMap;
use tracing::{info, warn};
use uuid::Uuid;

use super::clock::Clock;
use crate::telemetry::circuits::{CircuitLabels, CircuitSeries};

pub use machine::{Cause, Limits, PROBES_MAX, Phase};
use machine::{Change, Machine, Ticket};

/// How long the circuit of an address, or of a service that is gone, is kept that nobody asks for.
const IDLE_MAX: Duration = Duration::from_mins(10);

/// Whose circuit it is: of a service, or of one address behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CircuitKey {
    pub service: Uuid,
    pub address: Option<SocketAddr>,
}

/// The circuits of one plugin instance. Each comes to be when it is first asked for.
#[derive(Debug)]
pub struct Circuits {
    clock: Clock,
    by_key: ArcSwap<ByKey>,
    /// The services that the live snapshot has; absent: nothing is known of that.
    served: ArcSwapOption<HashSet<Uuid>>,
}

type ByKey = HashMap<CircuitKey, Arc<Circuit>, ahash::RandomState>;

/// One circuit, with its name and what is told of it.
#[derive(Debug)]
pub struct Circuit {
    clock: Clock,
    made_at: Instant,
    machine: Machine,
    series: Arc<CircuitSeries>,
    last_change: ArcSwapOption<LastChange>,
    /// When it was asked for last, or until when it stays open if that is later, in minutes since it
    /// was made.
    needed_until: AtomicU64,
}

/// When a circuit became what it is, in Unix milliseconds, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastChange {
    pub at: i64,
    pub cause: Cause,
}

/// How a circuit is, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitSurvey {
    pub labels: CircuitLabels,
    pub phase: Phase,
    /// Absent if it was never open.
    pub last_change: Option<LastChange>,
}

/// Leave for one request. If it is dropped before anything was told, the request says nothing of the
/// upstream, and its place goes to another.
#[derive(Debug)]
pub struct Permit {
    circuit: Arc<Circuit>,
    ticket: Option<Ticket>,
    /// When the head of its answer counted as the success of a probe, a time since the circuit was made.
    answered_at: Option<Duration>,
}

impl Circuits {
    /// No circuits yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            by_key: ArcSwap::default(),
            served: ArcSwapOption::empty(),
        }
    }

    /// The circuit of `key` if somebody asked for it before.
    fn find(&self, key: &CircuitKey) -> Option<Arc<Circuit>> {
        self.by_key.load().get(key).map(Arc::clone)
    }

    /// Whether the circuit of `key` would let a request through; one that nobody asked for would.
    ///
    /// # Errors
    /// See [`Circuit::would_admit`].
    pub fn would_admit(&self, key: &CircuitKey, limits: &Limits) -> Result<(), Duration> {
        match self.by_key.load().get(key) {
            None => Ok(()),
            Some(circuit) => circuit.would_admit(limits),
        }
    }

    /// The circuit of `key`, closed if nobody asked for it before; its series come from `series`.
    pub fn find_or_create(
        &self,
        key: CircuitKey,
        series: impl FnOnce() -> Arc<CircuitSeries>,
    ) -> Arc<Circuit> {
        if let Some(circuit) = self.find(&key) {
            return circuit;
        }
        let new = Arc::new(Circuit::new(self.clock.clone(), series()));
        let mut kept = Arc::clone(&new);
        self.by_key.rcu(|known| {
            let mut more = kept_of(known, |key, circuit| !self.is_over(key, circuit));
            // Somebody else may have been first.
            kept = Arc::clone(more.entry(key).or_insert_with(|| Arc::clone(&new)));
            more
        });
        kept
    }

    /// Every circuit, in no particular order.
    pub fn all(&self) -> Vec<Arc<Circuit>> {
        self.forget(|key, circuit| self.is_over(key, circuit));
        self.by_key.load().values().map(Arc::clone).collect()
    }

    /// Forgets the circuits of services that are not `served` any more. One that a request of an old
    /// snapshot brings back after that is forgotten when nobody asks for it any more.
    pub fn keep(&self, served: &Arc<HashSet<Uuid>>) {
        self.served.store(Some(Arc::clone(served)));
        self.forget(|key, _| !served.contains(&key.service));
    }

    fn forget(&self, is_over: impl Fn(&CircuitKey, &Circuit) -> bool) {
        let known = self.by_key.load();
        if known.iter().any(|(key, circuit)| is_over(key, circuit)) {
            self.by_key
                .rcu(|known| kept_of(known, |key, circuit| !is_over(key, circuit)));
        }
    }

    /// Whether nobody will ask for a circuit any more, as far as that can be known.
    fn is_over(&self, key: &CircuitKey, circuit: &Circuit) -> bool {
        let is_gone = || {
            let served = self.served.load();
            served
                .as_ref()
                .is_some_and(|served| !served.contains(&key.service))
        };
        circuit.is_forgotten() && (key.address.is_some() || is_gone())
    }
}

fn kept_of(known: &ByKey, is_kept: impl Fn(&CircuitKey, &Circuit) -> bool) -> ByKey {
    let kept = known.iter().filter(|(key, circuit)| is_kept(key, circuit));
    kept.map(|(key, circuit)| (*key, Arc::clone(circuit)))
        .collect()
}

impl Circuit {
    fn new(clock: Clock, series: Arc<CircuitSeries>) -> Self {
        Self {
            made_at: clock.instant(),
            clock,
            machine: Machine::default(),
            series,
            last_change: ArcSwapOption::empty(),
            needed_until: AtomicU64::new(0),
        }
    }

    /// Whether requests may pass.
    pub fn phase(&self) -> Phase {
        self.machine.phase()
    }

    /// How it is now.
    pub fn survey(&self) -> CircuitSurvey {
        CircuitSurvey {
            labels: self.series.labels().clone(),
            phase: self.phase(),
            last_change: self.last_change.load().as_deref().copied(),
        }
    }

    /// Whether a request would be let through.
    ///
    /// # Errors
    /// How long the circuit stays open; zero if it only waits for its probes.
    pub fn would_admit(&self, limits: &Limits) -> Result<(), Duration> {
        let now = self.now();
        self.note_needed(now);
        self.machine.would_admit(limits, now)
    }

    /// Asks leave for a request.
    ///
    /// # Errors
    /// See [`Self::would_admit`].
    pub fn admit(self: &Arc<Self>, limits: &Limits) -> Result<Permit, Duration> {
        let now = self.now();
        self.note_needed(now);
        let (ticket, change) = self.machine.admit(limits, now)?;
        if let Some(change) = change {
            self.tell(change);
        }
        Ok(Permit {
            circuit: Arc::clone(self),
            ticket: Some(ticket),
            answered_at: None,
        })
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.made_at)
    }

    fn is_forgotten(&self) -> bool {
        let needed_until = Duration::from_secs(self.needed_until.load(Ordering::Relaxed) * 60);
        self.now().saturating_sub(needed_until) > IDLE_MAX
    }

    fn note_needed(&self, until: Duration) {
        let minute = until.as_secs() / 60;
        if self.needed_until.load(Ordering::Relaxed) < minute {
            self.needed_until.fetch_max(minute, Ordering::Relaxed);
        }
    }

    fn adopt(&self, change: Option<Change>, limits: &Limits, now: Duration) {
        if let Some(change) = change {
            if change.to == Phase::Open {
                self.note_needed(now.saturating_add(limits.open));
            }
            self.tell(change);
        }
    }

    fn tell(&self, change: Change) {
        let Change { from, to, cause } = change;
        self.last_change.store(Some(Arc::new(LastChange {
            at: self.clock.unix_milliseconds(),
            cause,
        })));
        self.series.count_change_to(to as usize);
        let CircuitLabels {
            service,
            route,
            target,
        } = self.series.labels();
        let (from, to_name) = (from.as_str(), to.as_str());
        let cause = cause.to_string();
        match to {
            Phase::Open => {
                warn!(
                    service,
                    route, target, from, cause, "circuit is {to_name} ({cause})"
                );
            }
            Phase::HalfOpen | Phase::Closed => {
                info!(
                    service,
                    route, target, from, cause, "circuit is {to_name} ({cause})"
                );
            }
        }
    }
}

impl Permit {
    /// Tells that the head of an answer is there, and is no failure. For a probe that is its success: whoever
    /// comes back with the answer must find the circuit closed if it was the last.
    pub fn note_head(&mut self, limits: &Limits) {
        if self.answered_at.is_none()
            && let Some(ticket) = self.ticket.filter(|ticket| ticket.is_probe())
        {
            let now = self.circuit.now();
            self.answered_at = Some(now);
            let change = self.circuit.machine.judge(ticket, false, limits, now);
            self.circuit.adopt(change, limits, now);
        }
    }

    /// Tells what the request came to.
    pub fn judge(mut self, has_failed: bool, limits: &Limits) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let (circuit, now) = (&self.circuit, self.circuit.now());
        let change = match self.answered_at {
            None => circuit.machine.judge(ticket, has_failed, limits, now),
            Some(at) if has_failed => {
                let is_soon = now.saturating_sub(at) <= limits.open;
                circuit.machine.revoke(ticket, is_soon, limits, now)
            }
            Some(_) => None,
        };
        circuit.adopt(change, limits, now);
    }

    /// Whether the request is one of the few that decide over a half-open circuit.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take()
            && self.answered_at.is_none()
        {
            self.circuit.machine.give_back(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    const LIMITS: Limits = Limits {
        consecutive: 1,
        ratio: None,
        requests_min: 5,
        window: Duration::from_secs(10),
        open: Duration::from_secs(10),
        probes: 1,
    };

    fn series(target: &str) -> Arc<CircuitSeries> {
        Telemetry::new().circuit(&CircuitLabels {
            service: "orders".into(),
            route: String::new(),
            target: target.into(),
        })
    }

    fn key(service: u128, port: Option<u16>) -> CircuitKey {
        CircuitKey {
            service: Uuid::from_u128(service),
            address: port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        }
    }

    #[test]
    fn a_circuit_is_the_same_until_its_service_goes() {
        let circuits = Circuits::new(Clock::manual(0));
        let one = circuits.find_or_create(key(1, None), || series(""));
        let two = circuits.find_or_create(key(2, None), || series(""));
        assert!(Arc::ptr_eq(
            &one,
            &circuits.find_or_create(key(1, None), || series(""))
        ));
        circuits.keep(&Arc::new(HashSet::from([Uuid::from_u128(2)])));
        assert!(circuits.find(&key(1, None)).is_none());
        assert!(Arc::ptr_eq(
            &two,
            &circuits.find(&key(2, None)).expect("kept")
        ));
    }

    #[test]
    fn a_circuit_that_an_old_snapshot_brings_back_goes_once_nobody_asks_for_it() {
        let clock = Clock::manual(0);
        let circuits = Circuits::new(clock.clone());
        circuits.keep(&Arc::new(HashSet::from([Uuid::from_u128(2)])));
        circuits.find_or_create(key(1, None), || series(""));
        circuits.find_or_create(key(2, None), || series(""));
        clock.advance(IDLE_MAX);
        assert_eq!(circuits.all().len(), 2);
        clock.advance(Duration::from_secs(1));
        assert_eq!(circuits.all().len(), 1);
        assert!(circuits.find(&key(2, None)).is_some(), "it is served");
    }

    #[test]
    fn a_permit_that_is_dropped_leaves_its_place() {
        let clock = Clock::manual(0);
        let circuits = Circuits::new(clock.clone());
        let circuit = circuits.find_or_create(key(1, None), || series(""));
        circuit.admit(&LIMITS).expect("closed").judge(true, &LIMITS);
        assert_eq!(circuit.phase(), Phase::Open);
        assert_eq!(
            circuit.survey().last_change.map(|change| change.cause),
            Some(Cause::Consecutive(1))
        );
        clock.advance(Duration::from_secs(10));
        for _ in 0..3 {
            let permit = circuit.admit(&LIMITS).expect("a probe");
            assert!(permit.is_probe());
            assert!(circuit.admit(&LIMITS).is_err());
        }
        circuit
            .admit(&LIMITS)
            .expect("a probe")
            .judge(false, &LIMITS);
        assert_eq!(circuit.phase(), Phase::Closed);
    }

    #[test]
    fn circuits_of_addresses_that_are_gone_are_forgotten() {
        let clock = Clock::manual(0);
        let circuits = Circuits::new(clock.clone());
        for port in 1..4 {
            circuits.find_or_create(key(1, Some(port)), || series(""));
        }
        clock.advance(IDLE_MAX + Duration::from_secs(1));
        circuits.find_or_create(key(1, Some(9)), || series(""));
        assert_eq!(circuits.all().len(), 1);
    }

    #[test]
    fn an_open_circuit_is_not_forgotten_before_it_may_probe() {
        let clock = Clock::manual(0);
        let circuits = Circuits::new(clock.clone());
        let limits = Limits {
            open: Duration::from_hours(1),
            ..LIMITS
        };
        let circuit = circuits.find_or_create(key(1, Some(1)), || series(""));
        circuit.admit(&limits).expect("closed").judge(true, &limits);

        clock.advance(Duration::from_mins(59));
        circuits.find_or_create(key(1, Some(2)), || series(""));
        assert!(circuits.find(&key(1, Some(1))).is_some());

        clock.advance(Duration::from_mins(12));
        circuits.find_or_create(key(1, Some(3)), || series(""));
        assert!(circuits.find(&key(1, Some(1))).is_none());
    }
}
