//! Origins that die, hang, reset, fail and come back while clients and reloads go on.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Backend, IS_SILENT, RESETS, is_in_state, pool, wait_for_state};
use crate::harness::{Gateway, Request, Stopwatch};

/// How long faults go on. `TOLLGATE_SURVIVAL_SECONDS` makes it minutes.
const SECONDS: u64 = 10;
const CLIENTS: usize = 4;
const RELOADS_PER_PHASE: usize = 20;
/// More than a request that was under way when a target went out may still take: its read timeout.
const GRACE: Duration = Duration::from_millis(500);

/// One late answer on a busy machine says nothing; two in a row do.
const CHECKS: &str = "{active: {http_path: /ready, timeout: 1, concurrency: 4, \
    healthy: {interval: 0.05, successes: 1}, \
    unhealthy: {interval: 0.05, http_failures: 2, tcp_failures: 1, timeouts: 2}}, \
    passive: {unhealthy: {tcp_failures: 1, timeouts: 2}}}";

/// What may happen to an origin.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Dies,
    Hangs,
    Resets,
    /// Answers with 500.
    Fails,
}

/// Xorshift: the same order of faults for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

fn seconds() -> Duration {
    let wanted = std::env::var("TOLLGATE_SURVIVAL_SECONDS").ok();
    Duration::from_secs(wanted.and_then(|text| text.parse().ok()).unwrap_or(SECONDS))
}

fn configuration(backends: &[Backend], weights: &[u32]) -> String {
    let targets: Vec<_> = backends
        .iter()
        .zip(weights)
        .map(|(backend, weight)| (backend.authority(), *weight))
        .collect();
    pool(&targets, 5, CHECKS).replace("retries: 5", "retries: 5\n  retry: { statuses: [500] }")
}

/// With retries no idempotent request fails while one origin is well, and no target gets a request
/// while it is known to be out, whatever is reloaded meanwhile.
#[test]
fn no_request_fails_while_one_origin_is_well_and_none_goes_to_a_target_that_is_out() {
    let mut backends = ["a", "b", "c"].map(Backend::start);
    let gateway = Gateway::start(&configuration(&backends, &[100; 3]));
    let ended = AtomicBool::new(false);
    let answers: Mutex<BTreeMap<u16, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !ended.load(Ordering::Relaxed) {
                    let response = client.send(&Request::get("/"));
                    if response.announces_close() {
                        client = gateway.connect();
                    }
                    let mut answers = answers.lock().expect("no panic");
                    *answers.entry(response.status).or_default() += 1;
                }
            });
        }
        // The clients end with the scope, also when an assertion fails.
        let _end = EndOnDrop(&ended);
        let (watch, mut chance, mut phase) = (Stopwatch::start(), Chance(0x5eed), 0);
        while watch.elapsed() < seconds() {
            phase += 1;
            let well = chance.below(backends.len());
            fault_and_revive(&gateway, &mut backends, well, &mut chance, phase);
        }
    });
    let answers = answers.into_inner().expect("no panic");
    assert_eq!(
        answers.keys().collect::<Vec<_>>(),
        [&200],
        "answers by status: {answers:?}"
    );
}

/// Faults all origins but the one that stays `well`, reloads while they are out, and brings them
/// back.
fn fault_and_revive(
    gateway: &Gateway,
    backends: &mut [Backend],
    well: usize,
    chance: &mut Chance,
    phase: usize,
) {
    let others: Vec<usize> = (0..backends.len()).filter(|place| *place != well).collect();
    let faults: Vec<(usize, Fault)> = others
        .into_iter()
        .map(|place| {
            let faults = [Fault::Dies, Fault::Hangs, Fault::Resets, Fault::Fails];
            (place, faults[chance.below(faults.len())])
        })
        .collect();
    for (place, fault) in &faults {
        let backend = &mut backends[*place];
        match fault {
            Fault::Dies => backend.origin.stop(),
            Fault::Hangs => backend.answers(IS_SILENT),
            Fault::Resets => backend.answers(RESETS),
            Fault::Fails => backend.answers(500),
        }
    }
    for (place, _) in &faults {
        wait_for_state(gateway, &backends[*place].authority(), "unhealthy");
    }
    Stopwatch::pace(GRACE);
    let asked = |backends: &[Backend]| -> Vec<usize> {
        let counts = faults
            .iter()
            .map(|(place, _)| backends[*place].asked_for("/"));
        counts.collect()
    };
    let before = asked(backends);
    for turn in 0..RELOADS_PER_PHASE {
        let weights = [
            100,
            100 + u32::try_from(phase * 1000 + turn).expect("small"),
            50,
        ];
        gateway.reload(&configuration(backends, &weights));
        for (place, _) in &faults {
            let target = backends[*place].authority();
            assert!(
                is_in_state(gateway, &target, "unhealthy"),
                "kept over a reload"
            );
        }
    }
    assert_eq!(asked(backends), before, "{faults:?} in phase {phase}");
    for (place, fault) in &faults {
        let backend = &mut backends[*place];
        match fault {
            Fault::Dies => backend.origin.restart(),
            Fault::Hangs | Fault::Resets | Fault::Fails => backend.answers(200),
        }
    }
    for (place, _) in &faults {
        wait_for_state(gateway, &backends[*place].authority(), "healthy");
    }
    for backend in backends.iter() {
        backend.is_asked_for("/");
    }
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
