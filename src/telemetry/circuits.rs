//! The series of circuits: what each is, and how often it became so. Who opens and closes them is
//! decided elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use super::{count::Count, families, held::Held, page::Page};

/// The phases, by their numbers: what the gauge shows, and the label `to`.
const PHASES: [(&str, f64); 3] = [("closed", 0.0), ("half-open", 1.0), ("open", 2.0)];

/// Whose circuit it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitLabels {
    /// The label of the service.
    pub service: String,
    /// The route, if the circuit is for its requests only; else empty.
    pub route: String,
    /// The address, if the circuit is for it only; else empty.
    pub target: String,
}

/// The phases of the circuits that there are, by number: of those with the same labels the worst.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CircuitPhases(BTreeMap<CircuitLabels, usize>);

impl CircuitPhases {
    /// Those of circuits with these labels, each with the number of its phase.
    pub fn of(circuits: impl IntoIterator<Item = (CircuitLabels, usize)>) -> Self {
        let mut phases = Self::default();
        for (labels, phase) in circuits {
            phases.add(labels, phase);
        }
        phases
    }

    fn add(&mut self, labels: CircuitLabels, phase: usize) {
        let worst = self.0.entry(labels).or_default();
        *worst = phase.max(*worst);
    }
}

/// How often the circuits with the same labels became what they are.
#[derive(Debug)]
pub struct CircuitSeries {
    labels: Arc<CircuitLabels>,
    changes: [Count; PHASES.len()],
}

impl CircuitSeries {
    /// Whose circuit it is.
    pub fn labels(&self) -> &CircuitLabels {
        &self.labels
    }

    /// Counts that a circuit is in the phase with this number from now on.
    pub fn count_change_to(&self, phase: usize) {
        if let Some(count) = self.changes.get(phase) {
            count.inc();
        }
    }
}

/// The series of all circuits.
#[derive(Debug, Default)]
pub(super) struct Circuits(Held<CircuitLabels, CircuitSeries>);

impl Circuits {
    pub(super) fn of(&self, labels: &CircuitLabels) -> Arc<CircuitSeries> {
        self.0.get_or_create_with(
            labels,
            || Arc::new(labels.clone()),
            |labels| CircuitSeries {
                labels: Arc::clone(labels),
                changes: Default::default(),
            },
        )
    }

    /// Writes them; `phases` are those of the circuits that there are now.
    pub(super) fn write(&self, page: &mut Page, phases: &CircuitPhases) {
        let all = self.0.sorted();
        let mut states = page.family(&families::CIRCUIT_STATE);
        for (labels, phase) in &phases.0 {
            let value = PHASES.get(*phase).map_or(0.0, |(_, value)| *value);
            states.gauge(&[&labels.service, &labels.route, &labels.target], value);
        }
        states.end();
        let mut changes = page.family(&families::CIRCUIT_TRANSITIONS);
        for (labels, series) in &all {
            for ((phase, _), count) in PHASES.iter().zip(&series.changes) {
                changes.count(
                    &[&labels.service, &labels.route, &labels.target, phase],
                    count.get(),
                );
            }
        }
        changes.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exports::Namespace;

    #[test]
    fn circuits_show_the_worst_that_they_are_and_how_often_they_became_so() {
        let circuits = Circuits::default();
        let labels = CircuitLabels {
            service: "orders".into(),
            route: String::new(),
            target: "10.0.0.1:80".into(),
        };
        let series = circuits.of(&labels);
        for phase in [2, 1, 2] {
            series.count_change_to(phase);
        }
        let phases = CircuitPhases::of([0, 2, 1].map(|phase| (labels.clone(), phase)));
        let mut page = Page::new(Namespace::Tollgate, 0);
        circuits.write(&mut page, &phases);
        let text = page.into_text();
        for line in [
            "tollgate_circuit_state{service=\"orders\",route=\"\",target=\"10.0.0.1:80\"} 2",
            "tollgate_circuit_transitions_total{service=\"orders\",route=\"\",target=\"10.0.0.1:80\",to=\"open\"} 2",
            "tollgate_circuit_transitions_total{service=\"orders\",route=\"\",target=\"10.0.0.1:80\",to=\"closed\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
