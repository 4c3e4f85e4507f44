//! What came of the tests: for people, as JSON, and as `JUnit`'s XML. The same tests give the same text.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::{coverage::Coverage, judge::Miss, suite::Case};
use crate::config::{Diagnostics, diagnostics::one_line};

/// One request and what is wrong with what becomes of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) case: Case,
    pub(super) misses: Vec<Miss>,
}

/// Everything that there is to tell.
pub(super) struct Report<'a> {
    pub(super) outcomes: &'a [Outcome],
    pub(super) coverage: Option<&'a Coverage>,
    /// Knows the names of the files.
    pub(super) files: &'a Diagnostics,
}

/// A miss as a program reads it.
#[derive(Serialize)]
struct MissReport<'a> {
    field: &'a str,
    place: String,
    expected: &'a str,
    found: &'a str,
    why: &'a [String],
}

impl Report<'_> {
    pub(super) fn failed(&self) -> usize {
        let failed = |outcome: &&Outcome| !outcome.misses.is_empty();
        self.outcomes.iter().filter(failed).count()
    }

    /// Failures, routes without a test, and a line that sums up.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for outcome in self
            .outcomes
            .iter()
            .filter(|outcome| !outcome.misses.is_empty())
        {
            let _ = writeln!(text, "failed: {}", one_line(&outcome.case.name));
            for miss in &outcome.misses {
                let _ = writeln!(text, "  {}", self.line(miss));
                for why in &miss.why {
                    let _ = writeln!(text, "    - {}", one_line(why));
                }
            }
            text.push('\n');
        }
        if let Some(coverage) = self.coverage {
            for route in &coverage.missed {
                let _ = writeln!(text, "no test takes route {}  {}", route.route, route.place);
            }
            let _ = writeln!(
                text,
                "routes that a test takes: {} of {} ({} %)",
                coverage.hit,
                coverage.routes,
                coverage.percent()
            );
        }
        let (count, failed) = (self.outcomes.len(), self.failed());
        let tests = if count == 1 { "test" } else { "tests" };
        let _ = match failed {
            0 => writeln!(text, "ok: {count} {tests}"),
            _ => writeln!(text, "{failed} of {count} {tests} failed"),
        };
        text
    }

    fn line(&self, miss: &Miss) -> String {
        let Miss {
            field,
            expected,
            found,
            ..
        } = miss;
        let line = format!("{field}: expected {expected}, found {found}");
        format!("{}: {}", self.files.place(miss.place), one_line(&line))
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let tests: Vec<Value> = self
            .outcomes
            .iter()
            .map(|outcome| {
                let misses: Vec<MissReport<'_>> = outcome
                    .misses
                    .iter()
                    .map(|miss| MissReport {
                        field: &miss.field,
                        place: self.files.place(miss.place),
                        expected: &miss.expected,
                        found: &miss.found,
                        why: &miss.why,
                    })
                    .collect();
                json!({
                    "name": outcome.case.name,
                    "place": self.files.place(outcome.case.place),
                    "method": outcome.case.question.method,
                    "url": outcome.case.question.url,
                    "passed": misses.is_empty(),
                    "failures": misses,
                })
            })
            .collect();
        let report = json!({
            "passed": self.outcomes.len() - self.failed(),
            "failed": self.failed(),
            "tests": tests,
            "coverage": self.coverage,
        });
        format!("{report:#}\n")
    }

    /// What continuous integration shows: one suite for each file.
    pub(super) fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            text,
            "<testsuites name=\"tollgate test\" tests=\"{}\" failures=\"{}\">",
            self.outcomes.len(),
            self.failed()
        );
        for suite in self
            .outcomes
            .chunk_by(|one, next| one.case.place.file == next.case.place.file)
        {
            let file = suite
                .first()
                .map_or("", |outcome| self.files.file(outcome.case.place.file));
            let failures = suite.iter().filter(|outcome| !outcome.misses.is_empty());
            let _ = writeln!(
                text,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\">",
                xml(file),
                suite.len(),
                failures.count()
            );
            for outcome in suite {
                self.junit_case(&mut text, file, outcome);
            }
            text.push_str("  </testsuite>\n");
        }
        text.push_str("</testsuites>\n");
        text
    }

    fn junit_case(&self, text: &mut String, file: &str, outcome: &Outcome) {
        let _ = write!(
            text,
            "    <testcase classname=\"{0}\" name=\"{1}\" file=\"{0}\" line=\"{2}\"",
            xml(file),
            xml(&outcome.case.name),
            outcome.case.place.line
        );
        if outcome.misses.is_empty() {
            text.push_str("/>\n");
            return;
        }
        text.push_str(">\n");
        for miss in &outcome.misses {
            let _ = writeln!(
                text,
                "      <failure message=\"{}\">{}</failure>",
                xml(&self.line(miss)),
                xml(&miss.why.join("\n"))
            );
        }
        text.push_str("    </testcase>\n");
    }
}

/// Text for an attribute or an element. What XML cannot hold is escaped as elsewhere.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ if character.is_control() => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_hold_is_escaped() {
        assert_eq!(
            xml("a<b> & \"c\"\u{1b}\nd"),
            "a&lt;b&gt; &amp; &quot;c&quot;\\u{1b}\nd"
        );
    }
}
