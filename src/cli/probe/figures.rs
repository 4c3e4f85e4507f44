//! Counts and latencies of calls, and the table that shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use super::{
    answer::Source,
    calls::{Call, Kind},
};

/// How often each status came, by kind of request and by who answered.
#[derive(Debug)]
pub(super) struct Counts(BTreeMap<(usize, Source), BTreeMap<Column, usize>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Status(u16),
    NoAnswer,
}

impl Column {
    fn title(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::NoAnswer => "no answer".to_owned(),
        }
    }
}

/// One number of the table, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Tally {
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'static str>,
    answered_by: Source,
    status: Option<u16>,
    count: usize,
}

impl Counts {
    pub(super) fn of(calls: &[Call]) -> Self {
        let mut counts: BTreeMap<_, BTreeMap<_, usize>> = BTreeMap::new();
        for call in calls {
            let column = call.status().map_or(Column::NoAnswer, Column::Status);
            let row = counts.entry((call.kind, call.source())).or_default();
            *row.entry(column).or_default() += 1;
        }
        Self(counts)
    }

    /// One item for each number that is not 0.
    pub(super) fn list(&self, kinds: &[Kind]) -> Vec<Tally> {
        let mut list = Vec::new();
        for ((kind, source), row) in &self.0 {
            for (column, count) in row {
                list.push(Tally {
                    request: label(kinds, *kind),
                    answered_by: source.clone(),
                    status: match column {
                        Column::Status(status) => Some(*status),
                        Column::NoAnswer => None,
                    },
                    count: *count,
                });
            }
        }
        list
    }

    /// Statuses across, who answered down, sums at the edges.
    pub(super) fn table(&self, kinds: &[Kind]) -> String {
        let columns: BTreeSet<Column> = self.0.values().flat_map(BTreeMap::keys).copied().collect();
        let numbers = |row: &BTreeMap<Column, usize>| -> Vec<String> {
            let shown = |column| match row.get(column) {
                None => "-".to_owned(),
                Some(count) => count.to_string(),
            };
            let mut cells: Vec<String> = columns.iter().map(shown).collect();
            cells.push(row.values().sum::<usize>().to_string());
            cells
        };
        let mut header = vec!["answered by".to_owned()];
        header.extend(columns.iter().map(|column| column.title()));
        header.push("requests".to_owned());
        let mut rows = vec![header];
        let mut total: BTreeMap<Column, usize> = BTreeMap::new();
        for ((kind, source), row) in &self.0 {
            let mut cells = vec![match label(kinds, *kind) {
                Some(label) => format!("{label}: {source}"),
                None => source.to_string(),
            }];
            cells.extend(numbers(row));
            rows.push(cells);
            for (column, count) in row {
                *total.entry(*column).or_default() += count;
            }
        }
        if self.0.len() > 1 {
            let mut cells = vec!["total".to_owned()];
            cells.extend(numbers(&total));
            rows.push(cells);
        }
        aligned(&rows)
    }
}

/// What a kind is called, if there are several.
fn label(kinds: &[Kind], kind: usize) -> Option<&'static str> {
    let kind = kinds.get(kind).filter(|_| kinds.len() > 1)?;
    Some(kind.label)
}

/// Lines with columns of the same width: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut cells = row.iter().zip(&widths);
        let first = cells
            .next()
            .map_or_else(String::new, |(cell, width)| format!("{cell:<width$}"));
        cells.fold(first, |line, (cell, width)| {
            format!("{line}  {cell:>width$}")
        })
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// How long answers took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latencies {
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Latencies {
    /// None if nothing was answered.
    pub(super) fn of(calls: &[Call]) -> Option<Self> {
        let answered = calls.iter().filter(|call| call.outcome.is_ok());
        let mut durations: Vec<Duration> = answered.map(Call::took).collect();
        durations.sort_unstable();
        Some(Self {
            min: milliseconds(*durations.first()?),
            p50: milliseconds(*durations.get(rank(durations.len(), 50))?),
            p99: milliseconds(*durations.get(rank(durations.len(), 99))?),
            max: milliseconds(*durations.last()?),
        })
    }
}

/// The index of a percentile among so many sorted values, by nearest rank.
fn rank(count: usize, percent: usize) -> usize {
    (count * percent).div_ceil(100).saturating_sub(1)
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::probe::calls::tests::calls;

    fn kind(label: &'static str) -> Kind {
        Kind {
            label,
            headers: http::HeaderMap::new(),
            echo: false,
        }
    }

    fn named(name: &str) -> Source {
        Source::Named(name.to_owned())
    }

    #[test]
    fn statuses_are_counted_for_each_who_answered() {
        let calls = calls(&[
            (200, named("b")),
            (200, named("a")),
            (200, named("a")),
            (429, Source::Gateway),
        ]);
        assert_eq!(
            Counts::of(&calls).table(&[kind("")]),
            "\
answered by  200  429  requests
a              2    -         2
b              1    -         1
the gateway    -    1         1
total          3    1         4"
        );
    }

    #[test]
    fn several_kinds_of_requests_have_rows_of_their_own() {
        let mut calls = calls(&[(401, Source::Gateway), (200, named("a"))]);
        calls[1].kind = 1;
        let kinds = [kind("without"), kind("with")];
        let counts = Counts::of(&calls);
        let table = counts.table(&kinds);
        assert!(table.contains("without: the gateway"), "{table}");
        assert!(table.contains("with: a"), "{table}");
        let list = serde_json::to_value(counts.list(&kinds)).expect("JSON");
        assert_eq!(
            list[1],
            serde_json::json!({ "request": "with", "answered_by": "a", "status": 200, "count": 1 })
        );
    }

    #[test]
    fn a_request_without_an_answer_has_a_column() {
        let mut calls = calls(&[(200, named("a"))]);
        calls[0].outcome = Err(crate::client::Failure::Timeout(Duration::from_secs(1)));
        let table = Counts::of(&calls).table(&[kind("")]);
        assert_eq!(
            table,
            "answered by  no answer  requests\nnobody               1         1"
        );
        assert_eq!(Latencies::of(&calls), None);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let index = |count| (rank(count, 50), rank(count, 99));
        assert_eq!(index(1), (0, 0));
        assert_eq!(index(2), (0, 1));
        assert_eq!(index(100), (49, 98));
        assert_eq!(index(101), (50, 99));
    }
}
