//! What a counter is asked with, and what it answers.

use smallvec::SmallVec;

use super::calendar::Period;

/// How many admissions each period allows. A fraction allows as many as its next whole number:
/// an identity is refused once its count has reached the limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits(SmallVec<[(Period, f64); 6]>);

impl Limits {
    /// The limits that `limit` names; `None` leaves a period unlimited and uncounted.
    pub fn new(limit: impl Fn(Period) -> Option<f64>) -> Self {
        Self(
            Period::ALL
                .into_iter()
                .filter_map(|period| Some((period, limit(period)?)))
                .collect(),
        )
    }

    /// The limited periods with their limits, from the shortest to the longest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Period, f64)> + ExactSizeIterator {
        self.0.iter().copied()
    }
}

/// The outcome of one hit: what the client may still do, for the decision and for its headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    pub(super) is_admitted: bool,
    pub(super) tightest: Period,
    pub(super) reset_seconds: u32,
    pub(super) remaining: [f64; Period::ALL.len()],
}

impl Usage {
    /// Whether the hit passed, and was counted in every limited period. If not, it counted nowhere.
    pub const fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// What is left of the limit of `period` after this hit, never below 0; 0 also for a period
    /// without a limit.
    pub const fn remaining(&self, period: Period) -> f64 {
        self.remaining[period.index()]
    }

    /// The limited period with the least remaining; the longest one of several.
    pub const fn tightest(&self) -> Period {
        self.tightest
    }

    /// Whole seconds until the window of [`Self::tightest`] ends, at least 1.
    pub const fn reset_seconds(&self) -> u32 {
        self.reset_seconds
    }
}
