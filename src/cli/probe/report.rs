//! What a probe has found, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    answer::Source,
    calls::{Call, Kind},
    figures::{Counts, Latencies, Tally, milliseconds},
    reasons,
    scenario::Scenario,
    verdict::{Verdict, first_refused, phases},
};

/// Everything that a report is made of.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) scenario: Scenario,
    pub(super) url: String,
    pub(super) kinds: Vec<Kind>,
    pub(super) calls: Vec<Call>,
    /// How often each reason was counted; `None` if no admin listener told.
    pub(super) reasons: Option<reasons::Counts>,
    pub(super) verdict: Verdict,
}

/// The report as a program reads it.
#[derive(Serialize)]
struct Document<'a> {
    scenario: &'static str,
    url: &'a str,
    held: bool,
    verdict: &'a str,
    requests: usize,
    took_ms: f64,
    answers: Vec<Tally>,
    latency_ms: Option<Latencies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<&'a reasons::Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Line<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    phases: Vec<Stage>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failures: BTreeMap<String, usize>,
}

/// When a limit was reached.
#[derive(Serialize)]
struct Limit<'a> {
    /// The number of the first request that was refused.
    request: usize,
    at_ms: f64,
    headers: BTreeMap<&'a str, &'a str>,
    retry_after: Option<&'a str>,
}

/// One call.
#[derive(Serialize)]
struct Line<'a> {
    request: usize,
    at_ms: f64,
    took_ms: f64,
    status: Option<u16>,
    answered_by: Source,
    reason: Option<&'a str>,
    retry_after: Option<&'a str>,
}

/// Neighbouring calls with the same outcome.
#[derive(Serialize)]
struct Stage {
    outcome: String,
    requests: usize,
    at_ms: f64,
}

/// One call of a sequence, as it ends: time, status, who answered, `Retry-After`.
pub(super) fn line(call: &Call) -> String {
    let mut line = format!(
        "{:>7.3} s  {}  {} ms",
        call.ended.as_secs_f64(),
        call.summary(),
        milliseconds(call.took())
    );
    if let Some(after) = retry_after(call) {
        let _ = write!(line, "  Retry-After: {after}");
    }
    line
}

fn retry_after(call: &Call) -> Option<&str> {
    call.outcome.as_ref().ok()?.retry_after.as_deref()
}

impl Report {
    /// What stands above everything else.
    pub(super) fn title(scenario: Scenario, url: &str, count: usize) -> String {
        let requests = if count == 1 { "request" } else { "requests" };
        format!("{}: {count} {requests} to {url}", scenario.as_str())
    }

    /// For people, without the title.
    pub(super) fn text(&self) -> String {
        let mut text = Counts::of(&self.calls).table(&self.kinds);
        text.push('\n');
        if let Some(latencies) = Latencies::of(&self.calls) {
            let Latencies { min, p50, p99, max } = latencies;
            let _ = writeln!(
                text,
                "\nlatency: min {min} ms, p50 {p50} ms, p99 {p99} ms, max {max} ms; {} ms in all",
                milliseconds(self.took())
            );
        }
        if let Some(limit) = self.limit() {
            let _ = writeln!(
                text,
                "limit: request {} was the first to be refused, after {} ms",
                limit.request, limit.at_ms
            );
            for (name, value) in limit.headers {
                let _ = writeln!(text, "  {name}: {value}");
            }
            if let Some(value) = limit.retry_after {
                let _ = writeln!(text, "  retry-after: {value}");
            }
        }
        for (failure, count) in self.failures() {
            let _ = writeln!(text, "no answer: {failure} (×{count})");
        }
        if let Some(reasons) = self.reasons.as_ref().filter(|reasons| !reasons.is_empty()) {
            let reasons: Vec<String> = reasons
                .iter()
                .map(|(reason, count)| format!("{reason} ×{count}"))
                .collect();
            let _ = writeln!(text, "answers of the gateway's own: {}", reasons.join(", "));
        }
        if self.scenario.is_a_sequence() {
            let phases: Vec<String> = phases(&self.calls)
                .into_iter()
                .map(|phase| format!("{} ×{}", phase.text, phase.calls))
                .collect();
            let _ = writeln!(text, "transitions: {}", phases.join(" → "));
        }
        let word = if self.verdict.held {
            "ok"
        } else {
            "not as expected"
        };
        let _ = write!(text, "\n{word}: {}", self.verdict.text);
        text
    }

    /// For programs: one JSON document.
    pub(super) fn json(&self) -> String {
        let (mut lines, mut stages) = (Vec::new(), Vec::new());
        if self.scenario.is_a_sequence() {
            lines.extend(self.calls.iter().map(|call| Line {
                request: call.number,
                at_ms: milliseconds(call.ended),
                took_ms: milliseconds(call.took()),
                status: call.status(),
                answered_by: call.source(),
                reason: call.reason.as_deref(),
                retry_after: retry_after(call),
            }));
            stages.extend(phases(&self.calls).into_iter().map(|phase| Stage {
                outcome: phase.text,
                requests: phase.calls,
                at_ms: milliseconds(phase.at),
            }));
        }
        let document = Document {
            scenario: self.scenario.as_str(),
            url: &self.url,
            held: self.verdict.held,
            verdict: &self.verdict.text,
            requests: self.calls.len(),
            took_ms: milliseconds(self.took()),
            answers: Counts::of(&self.calls).list(&self.kinds),
            latency_ms: Latencies::of(&self.calls),
            reasons: self.reasons.as_ref(),
            limit: self.limit(),
            calls: lines,
            phases: stages,
            failures: self.failures(),
        };
        serde_json::to_string_pretty(&document)
            .expect("strings, numbers, lists and records can be written as JSON")
    }

    fn took(&self) -> Duration {
        let ends = self.calls.iter().map(|call| call.ended);
        ends.max().unwrap_or_default()
    }

    fn limit(&self) -> Option<Limit<'_>> {
        let call = first_refused(&self.calls)?;
        let answer = call.outcome.as_ref().ok()?;
        Some(Limit {
            request: call.number,
            at_ms: milliseconds(call.ended),
            headers: answer
                .limits
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            retry_after: answer.retry_after.as_deref(),
        })
    }

    /// Why requests were not answered, and how many of each.
    fn failures(&self) -> BTreeMap<String, usize> {
        let mut failures = BTreeMap::new();
        for failure in self
            .calls
            .iter()
            .filter_map(|call| call.outcome.as_ref().err())
        {
            *failures.entry(failure.to_string()).or_default() += 1;
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::probe::{answer::Source::Gateway, calls::tests::calls};

    fn report(scenario: Scenario, calls: Vec<Call>) -> Report {
        Report {
            scenario,
            url: "http://gateway.test/".to_owned(),
            kinds: scenario.kinds(
                &http::HeaderMap::new(),
                &http::HeaderName::from_static("apikey"),
                None,
            ),
            verdict: Verdict::of(scenario, &calls),
            calls,
            reasons: None,
        }
    }

    #[test]
    fn a_limit_is_told_with_its_headers() {
        let mut calls = calls(&[(200, Source::Named("a".to_owned())), (429, Gateway)]);
        if let Ok(answer) = &mut calls[1].outcome {
            answer.limits = vec![("ratelimit-limit".to_owned(), "1".to_owned())];
            answer.retry_after = Some("30".to_owned());
        }
        let report = report(Scenario::RateLimit, calls);
        assert_eq!(
            report.text(),
            "\
answered by  200  429  requests
a              1    -         1
the gateway    -    1         1
total          1    1         2

latency: min 1 ms, p50 1 ms, p99 2 ms, max 2 ms; 202 ms in all
limit: request 2 was the first to be refused, after 202 ms
  ratelimit-limit: 1
  retry-after: 30

ok: 1 requests passed, 1 got 429"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["limit"]["request"], 2);
        assert_eq!(json["limit"]["headers"]["ratelimit-limit"], "1");
        assert_eq!(json["held"], true);
        assert!(json.get("calls").is_none());
    }

    #[test]
    fn a_sequence_is_told_call_by_call_and_by_its_transitions() {
        let mut calls = calls(&[(500, Source::Named("a".to_owned())), (503, Gateway)]);
        calls[1].reason = Some("no_healthy_upstream".to_owned());
        if let Ok(answer) = &mut calls[1].outcome {
            answer.retry_after = Some("10".to_owned());
        }
        assert_eq!(
            line(&calls[1]),
            "  0.202 s  503 from the gateway (no_healthy_upstream)  2 ms  Retry-After: 10"
        );
        let report = report(Scenario::Breaker, calls);
        let text = report.text();
        assert!(
            text.contains(
                "transitions: 500 from a ×1 → 503 from the gateway (no_healthy_upstream) ×1"
            ),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["calls"][1]["answered_by"], "gateway");
        assert_eq!(json["phases"][0]["outcome"], "500 from a");
    }
}
