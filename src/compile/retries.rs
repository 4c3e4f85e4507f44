//! `retry` and `total_timeout` of services and routes: texts and numbers become what requests compare.

use std::time::Duration;

use http::Method;

use crate::{config::model::retry::Retry as Written, snapshot::Retry};

/// What `retry` says; what holds without it if nothing is written.
pub(super) fn compile(written: Option<&Written>) -> Retry {
    let default = Written::default();
    let written = written.unwrap_or(&default);
    let milliseconds = |number: u32| Duration::from_millis(number.into());
    Retry {
        statuses: written.statuses.iter().copied().collect(),
        methods: written
            .methods
            .iter()
            .filter_map(|method| Method::from_bytes(method.as_bytes()).ok())
            .collect(),
        backoff: milliseconds(written.backoff),
        backoff_max: milliseconds(written.max_backoff),
        budget: (written.budget < 1.0).then_some(written.budget),
        per_try: limit(written.per_try_timeout),
    }
}

/// A limit in milliseconds, of which 0 is none.
pub(super) fn limit(milliseconds: u32) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_block_statuses_are_final_and_the_budget_holds() {
        let retry = compile(None);
        assert!(retry.statuses.is_empty());
        assert_eq!(retry.methods.len(), 6);
        assert_eq!((retry.budget, retry.per_try), (Some(0.2), None));
        assert!(retry.backoff.is_zero());
    }

    #[test]
    fn a_budget_of_one_is_none() {
        let written = Written {
            budget: 1.0,
            per_try_timeout: 5,
            ..Written::default()
        };
        let retry = compile(Some(&written));
        assert_eq!(retry.budget, None);
        assert_eq!(retry.per_try, Some(Duration::from_millis(5)));
    }
}
