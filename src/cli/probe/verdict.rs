//! Whether what a scenario expects has happened. It judges by who answered, not by which part of the gateway did.

use std::time::Duration;

use super::{calls::Call, figures::milliseconds, scenario::Scenario};

/// The end of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What the scenario expects has happened.
    pub(super) held: bool,
    pub(super) text: String,
}

impl Verdict {
    fn held(text: impl Into<String>) -> Self {
        Self {
            held: true,
            text: text.into(),
        }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self {
            held: false,
            text: text.into(),
        }
    }

    pub(super) fn of(scenario: Scenario, calls: &[Call]) -> Self {
        match scenario {
            Scenario::Health
            | Scenario::Echo
            | Scenario::User
            | Scenario::Data
            | Scenario::Slow => all_succeed(calls),
            Scenario::Auth => keys_decide(calls),
            Scenario::RateLimit => a_limit_bites(calls),
            Scenario::Breaker => failures_are_cut_off(calls),
        }
    }
}

fn all_succeed(calls: &[Call]) -> Verdict {
    let failed = calls.iter().filter(|call| !call.succeeded()).count();
    match calls.iter().find(|call| !call.succeeded()) {
        None => Verdict::held(format!(
            "{} requests, all answered as they should",
            calls.len()
        )),
        Some(first) => Verdict::failed(format!(
            "{failed} of {} requests were not answered as they should; request {}: {}",
            calls.len(),
            first.number,
            first.summary()
        )),
    }
}

/// The last kind of request has the key; the others must not get in.
fn keys_decide(calls: &[Call]) -> Verdict {
    let with_key = calls.iter().map(|call| call.kind).max().unwrap_or(0);
    let is_right = |call: &&Call| {
        if call.kind == with_key {
            call.succeeded()
        } else {
            call.status() == Some(401)
        }
    };
    match calls.iter().find(|call| !is_right(call)) {
        None => Verdict::held("401 without the key, 2xx with it"),
        Some(call) => {
            let (what, expected) = if call.kind == with_key {
                ("with the key", "2xx")
            } else {
                ("without the key", "401")
            };
            Verdict::failed(format!(
                "{what} expected {expected}, got {}",
                call.summary()
            ))
        }
    }
}

/// The first request that was refused because of a limit.
pub(super) fn first_refused(calls: &[Call]) -> Option<&Call> {
    calls.iter().find(|call| is_refused(call))
}

fn is_refused(call: &Call) -> bool {
    call.is_by_gateway() && call.status() == Some(429)
}

fn a_limit_bites(calls: &[Call]) -> Verdict {
    let passed = calls.iter().filter(|call| call.succeeded()).count();
    let refused = calls.iter().filter(|call| is_refused(call)).count();
    let odd = calls
        .iter()
        .find(|call| !call.succeeded() && !is_refused(call));
    if let Some(call) = odd {
        return Verdict::failed(format!(
            "expected 2xx or 429 from the gateway; request {}: {}",
            call.number,
            call.summary()
        ));
    }
    if refused == 0 {
        return Verdict::failed(format!(
            "no limit was reached in {passed} requests; send more with `--count`, or try a path that has a limit with \
             `--path`"
        ));
    }
    if passed == 0 {
        return Verdict::failed(
            "the limit was reached before the first request; try again when its period is over",
        );
    }
    Verdict::held(format!("{passed} requests passed, {refused} got 429"))
}

/// Neighbouring calls with the same outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    /// `500 from Backend-1, Backend-2`, `503 from the gateway (no_healthy_upstream)`.
    pub(super) text: String,
    pub(super) calls: usize,
    /// When the first of them ended.
    pub(super) at: Duration,
}

/// The calls as phases: those that upstreams answered with the same status are one, whichever answered.
pub(super) fn phases(calls: &[Call]) -> Vec<Phase> {
    let key = |call: &Call| {
        let outcome = call.summary();
        let by_upstream = call.outcome.is_ok() && !call.is_by_gateway();
        (call.status(), (!by_upstream).then_some(outcome))
    };
    let mut phases = Vec::new();
    for alike in calls.chunk_by(|one, other| key(one) == key(other)) {
        let Some(first) = alike.first() else { continue };
        let text = match key(first) {
            (_, Some(outcome)) => outcome,
            (status, None) => {
                let mut names: Vec<_> = alike.iter().map(Call::source).collect();
                names.sort();
                names.dedup();
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                format!("{} from {}", status.unwrap_or_default(), names.join(", "))
            }
        };
        phases.push(Phase {
            text,
            calls: alike.len(),
            at: first.ended,
        });
    }
    phases
}

/// An upstream failed, or could not be reached at all.
fn is_failure(call: &Call) -> bool {
    let status = call.status().unwrap_or(0);
    if call.is_by_gateway() {
        matches!(status, 502 | 504)
    } else {
        status >= 500
    }
}

/// The gateway did not even try. Other plugins and a missing service answer 503 too, but not after failures.
fn is_cut_off(call: &Call) -> bool {
    call.is_by_gateway() && call.status() == Some(503)
}

fn failures_are_cut_off(calls: &[Call]) -> Verdict {
    let Some(failed) = calls.iter().position(is_failure) else {
        return Verdict::failed(match calls.first() {
            Some(first) if is_cut_off(first) => {
                "traffic was cut off before the first request; try again when it is let through"
                    .to_owned()
            }
            Some(first) => format!(
                "no upstream failed, so there was nothing to cut off; request 1: {}",
                first.summary()
            ),
            None => "nothing was sent".to_owned(),
        });
    };
    let after = calls.iter().enumerate().skip(failed);
    let failures = |until: usize| {
        calls
            .iter()
            .take(until)
            .filter(|call| is_failure(call))
            .count()
    };
    match after.into_iter().find(|(_, call)| is_cut_off(call)) {
        Some((index, call)) => Verdict::held(format!(
            "after {} failures the gateway answered request {} by itself, in {} ms",
            failures(index),
            call.number,
            milliseconds(call.took())
        )),
        None => Verdict::failed(format!(
            "{} requests failed and nothing cut the traffic off",
            failures(calls.len())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::probe::{
        answer::Source::{self, Gateway},
        calls::tests::calls,
    };

    fn named(name: &str) -> Source {
        Source::Named(name.to_owned())
    }

    fn verdict(scenario: Scenario, answers: &[(u16, Source)]) -> Verdict {
        Verdict::of(scenario, &calls(answers))
    }

    #[test]
    fn one_bad_answer_is_told_by_its_number() {
        let good = verdict(Scenario::User, &[(200, named("a")), (204, named("b"))]);
        assert!(good.held, "{good:?}");
        let bad = verdict(Scenario::User, &[(200, named("a")), (404, Gateway)]);
        assert!(!bad.held);
        assert!(bad.text.contains("1 of 2"), "{bad:?}");
        assert!(
            bad.text.contains("request 2: 404 from the gateway"),
            "{bad:?}"
        );
    }

    #[test]
    fn an_echo_without_what_was_sent_is_a_bad_answer() {
        let mut calls = calls(&[(200, named("a"))]);
        calls[0].echo_missing = true;
        let verdict = Verdict::of(Scenario::Echo, &calls);
        assert!(!verdict.held && verdict.text.contains("without what was sent"));
    }

    #[test]
    fn keys_must_make_the_difference() {
        let judge = |statuses: [u16; 3]| {
            let mut calls = calls(&statuses.map(|status| (status, Gateway)));
            for (kind, call) in calls.iter_mut().enumerate() {
                call.kind = kind;
            }
            Verdict::of(Scenario::Auth, &calls)
        };
        assert!(judge([401, 401, 200]).held);
        let open = judge([200, 200, 200]);
        assert!(!open.held && open.text.starts_with("without the key expected 401"));
        let closed = judge([401, 401, 401]);
        assert!(!closed.held && closed.text.starts_with("with the key expected 2xx"));
    }

    #[test]
    fn a_limit_must_let_some_pass_and_then_refuse() {
        let limit = |answers: &[(u16, Source)]| verdict(Scenario::RateLimit, answers);
        let good = limit(&[(200, named("a")), (429, Gateway)]);
        assert_eq!(
            (good.held, good.text.as_str()),
            (true, "1 requests passed, 1 got 429")
        );
        assert!(
            limit(&[(200, named("a"))])
                .text
                .contains("no limit was reached")
        );
        assert!(
            limit(&[(429, Gateway)])
                .text
                .contains("before the first request")
        );
        let upstream = limit(&[(200, named("a")), (429, named("a"))]);
        assert!(!upstream.held, "an upstream's 429 is not the gateway's");
    }

    #[test]
    fn phases_show_who_answered_when() {
        let mut calls = calls(&[
            (500, named("b")),
            (500, named("a")),
            (500, named("b")),
            (503, Gateway),
            (503, Gateway),
            (200, named("a")),
        ]);
        for call in &mut calls[3..5] {
            call.reason = Some("no_healthy_upstream".to_owned());
        }
        let texts: Vec<_> = phases(&calls)
            .into_iter()
            .map(|phase| (phase.text, phase.calls))
            .collect();
        assert_eq!(
            texts,
            [
                ("500 from a, b".to_owned(), 3),
                ("503 from the gateway (no_healthy_upstream)".to_owned(), 2),
                ("200 from a".to_owned(), 1),
            ]
        );
    }

    #[test]
    fn failures_must_be_followed_by_the_gateways_own_503() {
        let breaker = |answers: &[(u16, Source)]| verdict(Scenario::Breaker, answers);
        let cut = breaker(&[(500, named("a")), (500, named("a")), (503, Gateway)]);
        assert!(cut.held, "{cut:?}");
        assert!(cut.text.starts_with("after 2 failures"), "{cut:?}");
        assert!(
            breaker(&[(502, Gateway), (503, Gateway)]).held,
            "a dead upstream fails too"
        );
        for (answers, words) in [
            (&[(500, named("a")), (500, named("a"))][..], "nothing cut"),
            (&[(503, Gateway), (503, Gateway)], "before the first"),
            (&[(200, named("a"))], "no upstream failed"),
            (&[(500, named("a")), (503, named("a"))], "nothing cut"),
            (&[(500, named("a")), (429, Gateway)], "nothing cut"),
            (&[], "nothing was sent"),
        ] {
            let verdict = breaker(answers);
            assert!(!verdict.held && verdict.text.contains(words), "{verdict:?}");
        }
    }
}
