//! The route that takes a request, and those that nearly do, in the router's own words.

use super::document::{Matched, NearMiss, Route};
use crate::{
    plugin::is_credential,
    proxy::rehearse::{AnsweredBy, Rehearsal},
    router::{Finding, Loser, LossReason, Met, Mismatch, Subject},
    snapshot::Snapshot,
};

/// How many other routes are shown unless all are asked for.
const NEAR_MISSES_MAX: usize = 10;

/// What the router says of a request.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) winner: Option<Route>,
    pub(super) near_misses: Vec<NearMiss>,
    /// How many other routes are not among them.
    pub(super) omitted: usize,
}

pub(super) fn explain(snapshot: &Snapshot, rehearsal: &Rehearsal, all: bool) -> Routes {
    if let Some(answer) = &rehearsal.answer
        && matches!(answer.by, AnsweredBy::Head(_) | AnsweredBy::Receive)
    {
        // The router never sees it.
        return Routes::default();
    }
    let explanation = snapshot.router.explain(&rehearsal.key());
    let mut losers: Vec<&Loser> = explanation.losers.iter().collect();
    let total = losers.len();
    // Stable, so that of equally near ones the first in the file comes first.
    losers.sort_by_key(|loser| std::cmp::Reverse(loser.likeness));
    if !all {
        // Without a route even those that share nothing but the beginning of a path are a hint.
        losers.retain(|loser| explanation.winner.is_none() || loser.likeness.is_partial());
        losers.truncate(NEAR_MISSES_MAX);
    }
    let first_because = first_because(snapshot, &explanation.losers, &losers);
    Routes {
        winner: explanation.winner.and_then(|index| {
            let met = explanation.met.iter().map(|met| matched(snapshot, met));
            winner(snapshot, index, met.collect(), first_because)
        }),
        omitted: total - losers.len(),
        near_misses: losers
            .into_iter()
            .filter_map(|loser| near_miss(snapshot, loser))
            .collect(),
    }
}

/// The route that was taken, and nothing of any other.
pub(super) fn winner_alone(snapshot: &Snapshot, rehearsal: &Rehearsal) -> Routes {
    let winner = rehearsal
        .route_index()
        .and_then(|index| winner(snapshot, index, Vec::new(), String::new()));
    Routes {
        winner,
        ..Routes::default()
    }
}

fn winner(
    snapshot: &Snapshot,
    index: usize,
    matched: Vec<Matched>,
    first_because: String,
) -> Option<Route> {
    let route = snapshot.routes.get(index)?;
    Some(Route {
        label: route.facts.label.clone(),
        id: route.facts.id.to_string(),
        name: route.facts.name.clone(),
        place: place(snapshot, index),
        matched,
        first_because,
        strip_path: route.strip_path,
        preserve_host: route.preserve_host,
    })
}

fn place(snapshot: &Snapshot, route: usize) -> String {
    let origins = &snapshot.origins;
    let place = origins.routes.get(route);
    place.map_or_else(String::new, |place| origins.shown(*place))
}

fn first_because(snapshot: &Snapshot, losers: &[Loser], nearest: &[&Loser]) -> String {
    let outranked = |loser: &&Loser| matches!(loser.reason, LossReason::Outranked(_));
    let rivals = losers.iter().filter(outranked).count();
    let Some(rival) = nearest.first().filter(|loser| outranked(loser)) else {
        return "no other route matches".to_owned();
    };
    let label = snapshot
        .routes
        .get(rival.route)
        .map_or("?", |route| &route.facts.label);
    match rivals {
        1 => format!("1 other route matches, {label}: {}", rival.reason),
        _ => format!(
            "{rivals} other routes match; the next is {label}: {}",
            rival.reason
        ),
    }
}

fn near_miss(snapshot: &Snapshot, loser: &Loser) -> Option<NearMiss> {
    let route = snapshot.routes.get(loser.route)?;
    Some(NearMiss {
        label: route.facts.label.clone(),
        place: place(snapshot, loser.route),
        matches: matches!(loser.reason, LossReason::Outranked(_)),
        reasons: match &loser.reason {
            LossReason::Mismatched(mismatches) => mismatches
                .iter()
                .map(|mismatch| concealed(snapshot, mismatch))
                .collect(),
            LossReason::Outranked(_) => vec![loser.reason.to_string()],
        },
    })
}

/// A sentence that shows no credential.
fn concealed(snapshot: &Snapshot, mismatch: &Mismatch) -> String {
    match mismatch {
        Mismatch::Predicate(finding) if is_about_a_secret(snapshot, finding) => {
            secret_finding(finding)
        }
        Mismatch::Header { name, got, .. } if is_secret(snapshot, name) => {
            if got.is_empty() {
                format!("header `{name}` is absent")
            } else {
                format!("header `{name}` has none of the values")
            }
        }
        _ => mismatch.to_string(),
    }
}

fn is_about_a_secret(snapshot: &Snapshot, finding: &Finding) -> bool {
    match &finding.subject {
        Subject::Header(name) => is_secret(snapshot, name),
        Subject::Argument(name) => snapshot
            .secret_arguments
            .iter()
            .any(|secret| secret == name),
        Subject::Other => false,
    }
}

fn secret_finding(finding: &Finding) -> String {
    let what = match &finding.subject {
        Subject::Header(name) => format!("header `{name}`"),
        Subject::Argument(name) => format!("argument `{name}`"),
        Subject::Other => "a value".to_owned(),
    };
    let holds = if finding.holds {
        "holds"
    } else {
        "does not hold"
    };
    format!("what the expression says of {what} {holds}")
}

fn is_secret(snapshot: &Snapshot, name: &str) -> bool {
    http::HeaderName::from_bytes(name.as_bytes())
        .is_ok_and(|name| is_credential(&name, &snapshot.secret_arguments))
}

fn matched(snapshot: &Snapshot, met: &Met) -> Matched {
    let (attribute, by) = match met {
        Met::Host { by, .. } => ("hosts", by.clone()),
        Met::Prefix { by } | Met::Regex { by, .. } => ("paths", by.clone()),
        Met::Method { wanted } => ("methods", wanted.join(", ")),
        Met::Header { name, .. } if is_secret(snapshot, name) => {
            return Matched {
                attribute: "headers".to_owned(),
                by: name.clone(),
                sentence: format!("header `{name}` has one of the values"),
                captures: Vec::new(),
            };
        }
        Met::Header { name, by, .. } => ("headers", format!("{name}: {by}")),
        Met::Sni { wanted, .. } => ("snis", wanted.join(", ")),
        Met::Predicate(finding) if is_about_a_secret(snapshot, finding) => {
            return Matched {
                attribute: "expression".to_owned(),
                by: "***".to_owned(),
                sentence: secret_finding(finding),
                captures: Vec::new(),
            };
        }
        Met::Predicate(finding) => ("expression", finding.predicate.clone()),
    };
    Matched {
        attribute: attribute.to_owned(),
        by,
        sentence: met.to_string(),
        captures: match met {
            Met::Regex { captures, .. } => captures.clone(),
            _ => Vec::new(),
        },
    }
}
