//! What a circuit does, by examples and held against an obvious one.

use std::{collections::VecDeque, thread};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    consecutive: 3,
    ratio: None,
    requests_min: 5,
    window: Duration::from_secs(10),
    open: Duration::from_secs(10),
    probes: 2,
};

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Takes a request through; the change that its outcome made.
fn run(machine: &Machine, limits: &Limits, now: Duration, has_failed: bool) -> Option<Change> {
    let (ticket, _) = machine.admit(limits, now).expect("let through");
    machine.judge(ticket, has_failed, limits, now)
}

#[test]
fn failures_in_a_row_open_and_a_success_begins_the_row_anew() {
    let machine = Machine::default();
    for has_failed in [true, true, false, true, true] {
        assert_eq!(run(&machine, &LIMITS, at(0), has_failed), None);
    }
    let change = run(&machine, &LIMITS, at(1), true).expect("opened");
    assert_eq!((change.from, change.to), (Phase::Closed, Phase::Open));
    assert_eq!(change.cause.to_string(), "3 failures in a row");
    assert_eq!(machine.admit(&LIMITS, at(4)), Err(at(7)));
    assert_eq!(machine.would_admit(&LIMITS, at(4)), Err(at(7)));
}

#[test]
fn a_ratio_opens_once_enough_requests_were_seen() {
    let limits = Limits {
        consecutive: 0,
        ratio: Some(0.6),
        ..LIMITS
    };
    let machine = Machine::default();
    for has_failed in [true, true, false, false] {
        assert_eq!(run(&machine, &limits, at(0), has_failed), None);
    }
    let change = run(&machine, &limits, at(1), true).expect("opened");
    assert_eq!(change.cause, Cause::Ratio { failed: 3, all: 5 });
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let limits = Limits {
        consecutive: 0,
        ratio: Some(0.6),
        ..LIMITS
    };
    let machine = Machine::default();
    for _ in 0..4 {
        assert_eq!(run(&machine, &limits, at(0), true), None);
    }
    assert_eq!(run(&machine, &limits, at(10), true), None);
    assert_eq!(run(&machine, &limits, at(11), true), None);
    assert_eq!(machine.phase(), Phase::Closed);
}

#[test]
fn another_window_begins_anew() {
    let limits = |window| Limits {
        consecutive: 0,
        ratio: Some(0.6),
        window,
        ..LIMITS
    };
    for (old, new) in [(at(10), at(100)), (at(100), at(10))] {
        let machine = Machine::default();
        for _ in 0..4 {
            assert_eq!(run(&machine, &limits(old), at(1000), true), None);
        }
        for _ in 0..4 {
            assert_eq!(run(&machine, &limits(new), at(1000), true), None);
        }
        let change = run(&machine, &limits(new), at(1001), true).expect("opened");
        assert_eq!(change.cause, Cause::Ratio { failed: 5, all: 5 });
    }
}

#[test]
fn requests_of_before_a_reload_leave_the_new_window_alone() {
    let limits = |window| Limits {
        consecutive: 0,
        ratio: Some(0.5),
        requests_min: 3,
        window,
        ..LIMITS
    };
    let (old, new) = (limits(at(10)), limits(at(20)));
    let machine = Machine::default();
    let admitted = || machine.admit(&old, at(0)).expect("let through").0;
    let old_tickets = [(); 3].map(|()| admitted());
    for (ticket, is_third) in old_tickets.into_iter().zip([false, false, true]) {
        assert_eq!(run(&machine, &new, at(1), true).is_some(), is_third);
        assert_eq!(machine.judge(ticket, true, &old, at(1)), None);
    }
    assert_eq!(machine.phase(), Phase::Open);
}

#[test]
fn a_lower_number_of_probes_never_keeps_a_circuit_half_open() {
    let more = Limits {
        probes: 3,
        ..LIMITS
    };
    let fewer = Limits {
        probes: 1,
        ..LIMITS
    };
    let machine = opened_machine();
    for _ in 0..2 {
        assert_eq!(run(&machine, &more, at(10), false), None);
    }
    assert_eq!(machine.would_admit(&fewer, at(10)), Ok(()));
    let (probe, _) = machine.admit(&fewer, at(10)).expect("a probe");
    assert_eq!(machine.admit(&fewer, at(10)), Err(Duration::ZERO));
    let change = machine.judge(probe, false, &fewer, at(10)).expect("closed");
    assert_eq!(change.to, Phase::Closed);
}

#[test]
fn a_few_requests_probe_and_their_successes_close() {
    let machine = opened_machine();
    let (one, change) = machine.admit(&LIMITS, at(10)).expect("a probe");
    assert_eq!(change.map(|change| change.to), Some(Phase::HalfOpen));
    let (two, change) = machine.admit(&LIMITS, at(10)).expect("another probe");
    assert_eq!(change, None);
    assert_eq!(machine.admit(&LIMITS, at(10)), Err(Duration::ZERO));
    assert_eq!(machine.judge(one, false, &LIMITS, at(11)), None);
    assert_eq!(machine.admit(&LIMITS, at(11)), Err(Duration::ZERO));
    let change = machine.judge(two, false, &LIMITS, at(11)).expect("closed");
    assert_eq!((change.from, change.to), (Phase::HalfOpen, Phase::Closed));
    assert_eq!(machine.would_admit(&LIMITS, at(11)), Ok(()));
}

#[test]
fn one_failed_probe_opens_again_and_the_others_no_longer_count() {
    let machine = opened_machine();
    let (one, _) = machine.admit(&LIMITS, at(10)).expect("a probe");
    let (two, _) = machine.admit(&LIMITS, at(10)).expect("another probe");
    let change = machine.judge(one, true, &LIMITS, at(12)).expect("opened");
    assert_eq!(change.cause, Cause::ProbeFailed);
    assert_eq!(machine.judge(two, true, &LIMITS, at(12)), None);
    assert_eq!(machine.admit(&LIMITS, at(13)), Err(at(9)));
}

#[test]
fn a_probe_that_says_nothing_leaves_its_place_to_another() {
    let machine = opened_machine();
    for _ in 0..10 {
        let (ticket, _) = machine.admit(&LIMITS, at(10)).expect("a probe");
        assert!(ticket.is_probe());
        machine.give_back(ticket);
    }
    assert_eq!(machine.phase(), Phase::HalfOpen);
}

#[test]
fn a_probe_that_breaks_after_its_head_opens_again_what_it_closed() {
    let machine = opened_machine();
    let (one, _) = machine.admit(&LIMITS, at(10)).expect("a probe");
    let (two, _) = machine.admit(&LIMITS, at(10)).expect("another probe");
    machine.judge(one, false, &LIMITS, at(11));
    machine.judge(two, false, &LIMITS, at(11));
    assert_eq!(machine.phase(), Phase::Closed);

    let change = machine.revoke(one, true, &LIMITS, at(12)).expect("opened");
    assert_eq!((change.from, change.to), (Phase::Closed, Phase::Open));
    assert_eq!(change.cause, Cause::ProbeFailed);
    assert_eq!(machine.revoke(two, true, &LIMITS, at(12)), None);
    assert_eq!(machine.admit(&LIMITS, at(13)), Err(at(9)));
}

#[test]
fn a_probe_that_breaks_while_others_probe_opens_the_circuit() {
    let machine = opened_machine();
    let (one, _) = machine.admit(&LIMITS, at(10)).expect("a probe");
    machine.judge(one, false, &LIMITS, at(11));
    let change = machine.revoke(one, true, &LIMITS, at(12)).expect("opened");
    assert_eq!((change.from, change.to), (Phase::HalfOpen, Phase::Open));
}

#[test]
fn a_probe_that_breaks_long_after_its_head_is_one_failure_of_many() {
    let machine = opened_machine();
    let probes = [(); 2].map(|()| machine.admit(&LIMITS, at(10)).expect("a probe").0);
    for probe in probes {
        machine.judge(probe, false, &LIMITS, at(11));
    }
    for probe in probes {
        assert_eq!(machine.revoke(probe, false, &LIMITS, at(90)), None);
    }
    assert_eq!(machine.phase(), Phase::Closed);
    let change = run(&machine, &LIMITS, at(90), true).expect("the third failure");
    assert_eq!(change.cause, Cause::Consecutive(3));
}

#[test]
fn an_outcome_of_before_a_change_does_not_count_after_it() {
    let machine = Machine::default();
    let (late, _) = machine.admit(&LIMITS, at(0)).expect("let through");
    for _ in 0..3 {
        run(&machine, &LIMITS, at(0), true);
    }
    let (probe, _) = machine.admit(&LIMITS, at(10)).expect("a probe");
    assert_eq!(machine.judge(late, true, &LIMITS, at(10)), None);
    machine.give_back(late);
    assert_eq!(machine.judge(probe, false, &LIMITS, at(10)), None);
    assert_eq!(machine.phase(), Phase::HalfOpen);
}

fn opened_machine() -> Machine {
    let machine = Machine::default();
    for _ in 0..3 {
        run(&machine, &LIMITS, at(0), true);
    }
    assert_eq!(machine.phase(), Phase::Open);
    machine
}

#[test]
fn however_many_ask_at_once_only_the_probes_pass() {
    for _ in 0..50 {
        let machine = opened_machine();
        let passed: usize = thread::scope(|scope| {
            let asking: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..50)
                            .filter(|_| machine.admit(&LIMITS, at(10)).is_ok())
                            .count()
                    })
                })
                .collect();
            asking
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(passed, 2);
    }
}

/// The same with a list of what happened and no bits.
#[derive(Debug)]
struct Obvious {
    limits: Limits,
    phase: Phase,
    generation: u64,
    opened_at: Duration,
    in_a_row: u32,
    outcomes: VecDeque<(u32, bool)>,
    probing: u32,
    succeeded: u32,
}

impl Obvious {
    fn admit(&mut self, now: Duration) -> Option<(u64, bool)> {
        if self.phase == Phase::Open && now >= self.opened_at + self.limits.open {
            self.go_to(Phase::HalfOpen);
        }
        match self.phase {
            Phase::Closed => Some((self.generation, false)),
            Phase::HalfOpen if self.probing < self.limits.probes => {
                self.probing += 1;
                Some((self.generation, true))
            }
            _ => None,
        }
    }

    fn judge(&mut self, generation: u64, has_failed: bool, now: Duration) {
        if generation != self.generation {
            return;
        }
        if self.phase == Phase::HalfOpen {
            self.succeeded += 1;
            if has_failed {
                self.opened_at = now;
                self.go_to(Phase::Open);
            } else if self.succeeded == self.limits.probes {
                self.go_to(Phase::Closed);
            }
            return;
        }
        self.in_a_row = if has_failed { self.in_a_row + 1 } else { 0 };
        let slice = slice(&self.limits, now);
        self.outcomes.push_back((slice, has_failed));
        self.outcomes.retain(|(at, _)| slice - at < SLICES);
        let all = self.outcomes.len();
        let failed = self.outcomes.iter().filter(|(_, failed)| *failed).count();
        let by_row = self.limits.consecutive > 0 && self.in_a_row >= self.limits.consecutive;
        let by_ratio = self.limits.ratio.is_some_and(|ratio| {
            all >= self.limits.requests_min as usize
                && number(failed as u64) >= ratio * number(all as u64)
        });
        if has_failed && (by_row || by_ratio) {
            self.opened_at = now;
            self.go_to(Phase::Open);
        }
    }

    fn give_back(&mut self, (generation, is_probe): (u64, bool)) {
        if is_probe && generation == self.generation && self.phase == Phase::HalfOpen {
            self.probing -= 1;
        }
    }

    fn go_to(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.in_a_row = 0;
        self.outcomes.clear();
        (self.probing, self.succeeded) = (0, 0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit,
    Judge { which: usize, has_failed: bool },
    GiveBack { which: usize },
    Wait { milliseconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Admit),
        4 => (0_usize..8, any::<bool>())
            .prop_map(|(which, has_failed)| Step::Judge { which, has_failed }),
        1 => (0_usize..8).prop_map(|which| Step::GiveBack { which }),
        2 => (0_u64..700).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

proptest! {
    #[test]
    fn a_circuit_agrees_with_the_obvious_one(
        consecutive in 0_u32..4,
        ratio in prop::option::of(0.1_f64..1.0),
        requests_min in 1_u32..6,
        probes in 1_u32..4,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let limits = Limits {
            consecutive,
            ratio,
            requests_min,
            window: at(1),
            open: at(1),
            probes,
        };
        let machine = Machine::default();
        let mut obvious = Obvious {
            limits,
            phase: Phase::Closed,
            generation: 0,
            opened_at: at(0),
            in_a_row: 0,
            outcomes: VecDeque::new(),
            probing: 0,
            succeeded: 0,
        };
        let mut under_way = Vec::new();
        let mut now = at(100);
        for step in steps {
            match step {
                Step::Admit => {
                    let would = machine.would_admit(&limits, now).is_ok();
                    let ticket = machine.admit(&limits, now).map(|(ticket, _)| ticket);
                    let expected = obvious.admit(now);
                    prop_assert_eq!(would, expected.is_some());
                    prop_assert_eq!(ticket.is_ok(), expected.is_some());
                    under_way.extend(ticket.ok().zip(expected));
                }
                Step::Judge { which, has_failed } if which < under_way.len() => {
                    let (ticket, expected) = under_way.swap_remove(which);
                    let before = obvious.phase;
                    let change = machine.judge(ticket, has_failed, &limits, now);
                    obvious.judge(expected.0, has_failed, now);
                    prop_assert_eq!(change.is_some(), before != obvious.phase);
                }
                Step::GiveBack { which } if which < under_way.len() => {
                    let (ticket, expected) = under_way.swap_remove(which);
                    machine.give_back(ticket);
                    obvious.give_back(expected);
                }
                Step::Wait { milliseconds } => now += Duration::from_millis(milliseconds),
                Step::Judge { .. } | Step::GiveBack { .. } => {}
            }
            prop_assert_eq!(machine.phase(), obvious.phase);
        }
    }
}
