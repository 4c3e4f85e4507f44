//! The routes that share a host and a path prefix, in the order in which they are tried.
//!
//! Where there are many, they are looked up by method or by a header's value, so that a path that
//! hundreds of routes share costs no more than one of its own.

use std::collections::BTreeMap;

use ahash::AHashMap;
use http::HeaderName;

use super::conditions::Conditions;
use super::patterns::PatternId;
use super::precedence::{Rank, Seniority};
use crate::entity::host::LowerCase;
use crate::entity::message::Headers;

/// Up to this many candidates are tried one by one, which is faster than any look-up.
const FEW: usize = 8;

/// One way to match one route, its host and prefix found already: all that a request reads where
/// nothing else is asked of it, in few bytes, for in a large table they are in no cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) rank: Rank,
    route: u32,
    /// The place of the path in the route.
    path_place: u32,
    pub(super) path: CandidatePath,
    /// Whether the route's conditions have to be asked still.
    pub(super) is_conditional: bool,
    is_dated: bool,
}

/// The path by which a candidate matches.
#[derive(Clone, Copy, Debug)]
pub(super) enum CandidatePath {
    /// The route has none, or an expression in its place.
    Absent,
    /// A prefix of so many bytes, which is found already.
    Prefix(u32),
    /// A regex that must match still.
    Regex(PatternId),
}

impl Candidate {
    /// A way to match the route with the index `route` by the path at `path_place` of its list.
    pub(super) fn new(
        (route, path_place): (usize, usize),
        rank: Rank,
        path: CandidatePath,
        conditions: &Conditions,
    ) -> Self {
        let small = |place| {
            u32::try_from(place).expect("a configuration has fewer than four billion routes")
        };
        Self {
            rank,
            route: small(route),
            path_place: small(path_place),
            path,
            is_conditional: conditions.are_beyond_host_and_path(),
            is_dated: conditions.created_at.is_some(),
        }
    }

    /// The index of the route.
    pub(super) fn route(&self) -> usize {
        self.route as usize
    }

    /// Where it stands among those of its rank. `conditions` are those of all routes, by index.
    pub(super) fn seniority(&self, conditions: &[Conditions]) -> Seniority {
        let created_at = (self.is_dated)
            .then(|| conditions[self.route()].created_at)
            .flatten();
        Seniority {
            created_at,
            position: self.position(),
        }
    }

    /// The index of the route, and the place of the path in it.
    pub(super) fn position(&self) -> (usize, usize) {
        (self.route(), self.path_place as usize)
    }
}

/// Candidates, in lists that are each sorted from high precedence to low.
#[derive(Debug)]
pub(super) enum Candidates {
    /// Nearly always there is one, which needs no list.
    One(Candidate),
    Few(Box<[Candidate]>),
    Many(Box<Crowd>),
}

/// Each candidate is in `by_header` if one of its headers has plain values, else in `by_method` if
/// it has methods, else in `others`.
#[derive(Debug)]
pub(super) struct Crowd {
    others: Vec<Candidate>,
    by_method: AHashMap<String, Vec<Candidate>>,
    by_header: Vec<(HeaderName, ByValue)>,
}

/// Candidates by a header's value in lower case.
type ByValue = AHashMap<Box<[u8]>, Vec<Candidate>>;

impl Candidates {
    /// `conditions` are those of all routes, by index.
    pub(super) fn new(mut candidates: Vec<Candidate>, conditions: &[Conditions]) -> Self {
        candidates.sort_by(|left, right| {
            (right.rank.cmp(&left.rank)).then(left.position().cmp(&right.position()))
        });
        match candidates.as_slice() {
            [one] => Self::One(*one),
            few if few.len() <= FEW => Self::Few(few.into()),
            many => Self::Many(Box::new(Crowd::new(many, conditions))),
        }
    }

    /// Shows the lists in which every candidate is that `method` and `headers` allow. `None` stands
    /// for any method.
    pub(super) fn visit<'c>(
        &'c self,
        method: Option<&str>,
        headers: &Headers,
        visit: &mut impl FnMut(&'c [Candidate]),
    ) {
        match self {
            Self::One(candidate) => visit(std::slice::from_ref(candidate)),
            Self::Few(candidates) => visit(candidates),
            Self::Many(crowd) => crowd.visit(method, headers, visit),
        }
    }
}

impl Crowd {
    fn new(candidates: &[Candidate], conditions: &[Conditions]) -> Self {
        let mut others = Vec::new();
        let mut by_method: AHashMap<String, Vec<Candidate>> = AHashMap::new();
        let mut by_header: BTreeMap<&str, (HeaderName, ByValue)> = BTreeMap::new();
        for &candidate in candidates {
            let route = &conditions[candidate.route()];
            let plain_header = route
                .headers
                .iter()
                .find_map(|header| Some((&header.name, header.whole_values()?)));
            if let Some((name, values)) = plain_header {
                let (_, by_value) = by_header
                    .entry(name.as_str())
                    .or_insert_with(|| (name.clone(), ByValue::new()));
                for value in values {
                    by_value
                        .entry(value.as_bytes().into())
                        .or_default()
                        .push(candidate);
                }
            } else if route.methods.is_empty() {
                others.push(candidate);
            } else {
                for method in &route.methods {
                    by_method.entry(method.clone()).or_default().push(candidate);
                }
            }
        }
        Self {
            others,
            by_method,
            by_header: by_header.into_values().collect(),
        }
    }

    fn visit<'c>(
        &'c self,
        method: Option<&str>,
        headers: &Headers,
        visit: &mut impl FnMut(&'c [Candidate]),
    ) {
        for (name, by_value) in &self.by_header {
            for sent in headers.get_all(name) {
                if let Some(candidates) = by_value.get(&*LowerCase::new(sent.as_bytes())) {
                    visit(candidates);
                }
            }
        }
        match method {
            Some(method) => self
                .by_method
                .get(method)
                .into_iter()
                .for_each(|candidates| visit(candidates)),
            None => self
                .by_method
                .values()
                .for_each(|candidates| visit(candidates)),
        }
        visit(&self.others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_with_one_candidate_takes_24_bytes() {
        assert_eq!(size_of::<Candidates>(), 24);
    }
}
