//! `retry` of a service or route: which tries are repeated beside those whose connection failed, how
//! soon, and how many of all requests at most.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Inspection;
use crate::config::diagnostics::Code;

/// How tries are repeated. How many there are at most is the service's `retries`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Statuses of an upstream for which a request is sent again; without any a status is final.
    #[schemars(inner(range(min = 400, max = 599)))]
    pub statuses: BTreeSet<u16>,
    /// Methods that may be sent again once an upstream may have seen the request. Any method may while nothing was sent.
    #[schemars(extend("items" = {"type": "string", "format": "method"}))]
    pub methods: BTreeSet<String>,
    /// Milliseconds that the first repetition waits at most, each further one twice as long; how long is left to chance. 0: none waits.
    #[schemars(range(max = 60_000))]
    pub backoff: u32,
    /// Milliseconds that no repetition waits longer than.
    #[schemars(range(max = 60_000))]
    pub max_backoff: u32,
    /// Which share of the service's requests may be repetitions to targets that the request has tried already, 30 apart, over 10 seconds; 1: any.
    #[schemars(range(min = 0, max = 1))]
    pub budget: f64,
    /// Milliseconds from the begin of a try until the head of the response must be there, where the service's own limits are longer; 0: no such limit.
    #[schemars(range(max = 2_147_483_646))]
    pub per_try_timeout: u32,
}

impl Default for Retry {
    fn default() -> Self {
        let methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
        Self {
            statuses: BTreeSet::new(),
            methods: methods.map(str::to_owned).into(),
            backoff: 0,
            max_backoff: 1000,
            budget: 0.2,
            per_try_timeout: 0,
        }
    }
}

impl Retry {
    fn settle(&self, inspection: &mut Inspection<'_>) {
        if self.backoff > self.max_backoff {
            let message = format!(
                "`backoff` is {} ms, longer than `max_backoff`, which is {} ms",
                self.backoff, self.max_backoff
            );
            inspection
                .error(Code::InvalidCombination, "retry.backoff", message)
                .hint("raise `max_backoff`");
        }
    }
}

/// Checks `retry` and `total_timeout` of an entity; `stream` is the protocol of one that carries
/// connections, which have neither.
pub(super) fn settle(retry: Option<&Retry>, stream: Option<&str>, inspection: &mut Inspection<'_>) {
    if let Some(protocol) = stream {
        for field in ["retry", "total_timeout"] {
            if inspection.has(field) {
                let message = format!(
                    "`{field}` must be null, as the protocol is {protocol}: it is for requests"
                );
                inspection.error(Code::InvalidCombination, field, message);
            }
        }
    } else if let Some(retry) = retry {
        retry.settle(inspection);
    }
}
