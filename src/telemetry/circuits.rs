//! The series of circuits: what each is, and how often it became so. Who opens and closes them is
//! decided elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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

/// The series of one circuit.
#[derive(Debug)]
pub struct CircuitSeries {
    labels: Arc<CircuitLabels>,
    phase: AtomicUsize,
    changes: [Count; PHASES.len()],
}

impl CircuitSeries {
    /// Whose circuit it is.
    pub fn labels(&self) -> &CircuitLabels {
        &self.labels
    }

    /// The circuit is in the phase with this number from now on.
    pub fn changed_to(&self, phase: usize) {
        self.phase.store(phase, Ordering::Relaxed);
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
                phase: AtomicUsize::new(0),
                changes: Default::default(),
            },
        )
    }

    pub(super) fn write(&self, page: &mut Page) {
        let all = self.0.sorted();
        let mut states = page.family(&families::CIRCUIT_STATE);
        for (labels, series) in &all {
            let phase = PHASES.get(series.phase.load(Ordering::Relaxed));
            let value = phase.map_or(0.0, |(_, value)| *value);
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
    fn a_circuit_shows_what_it_is_and_how_often_it_became_so() {
        let circuits = Circuits::default();
        let series = circuits.of(&CircuitLabels {
            service: "orders".into(),
            route: String::new(),
            target: "10.0.0.1:80".into(),
        });
        for phase in [2, 1, 2] {
            series.changed_to(phase);
        }
        let mut page = Page::new(Namespace::Tollgate, 0);
        circuits.write(&mut page);
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
