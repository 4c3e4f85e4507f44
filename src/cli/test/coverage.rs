//! Which routes the tests take. A route counts as taken by a request whose test fails, too: it was looked at.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::snapshot::Snapshot;

/// How many of the routes some test takes.
#[derive(Debug, Serialize)]
pub(super) struct Coverage {
    /// The routes that are served.
    pub(super) routes: usize,
    pub(super) hit: usize,
    /// The others, in the order of the files.
    pub(super) missed: Vec<Missed>,
}

/// A route that no test takes.
#[derive(Debug, Serialize)]
pub(super) struct Missed {
    pub(super) route: String,
    /// `FILE:LINE:COLUMN`.
    pub(super) place: String,
}

impl Coverage {
    /// `taken` are the ids of the routes that requests took.
    pub(super) fn of(snapshot: &Snapshot, taken: &BTreeSet<String>) -> Self {
        let routes = snapshot.routes.iter().zip(&snapshot.origins.routes);
        let missed: Vec<Missed> = routes
            .filter(|(route, _)| !taken.contains(&route.facts.id.to_string()))
            .map(|(route, place)| Missed {
                route: route.facts.label.clone(),
                place: snapshot.origins.shown(*place),
            })
            .collect();
        let routes = snapshot.routes.len();
        Self {
            routes,
            hit: routes - missed.len(),
            missed,
        }
    }

    /// Rounded down, so that 100 means all. Without routes there is nothing to miss.
    pub(super) fn percent(&self) -> usize {
        (self.hit * 100).checked_div(self.routes).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_percent_are_all() {
        let percent = |hit, routes| {
            let coverage = Coverage {
                routes,
                hit,
                missed: Vec::new(),
            };
            coverage.percent()
        };
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(3, 3), 100);
    }
}
