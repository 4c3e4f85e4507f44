//! The health checks of an upstream as they run: what is looked at, and what it counts as.

use std::time::Duration;

use bytes::Bytes;

pub use super::envelope::{Envelope, TlsAsk};
use crate::state::health::{Finding, Limits};

/// The health checks of an upstream; at least one kind is on.
#[derive(Debug)]
pub struct Checks {
    /// The percentage of the weight that healthy addresses must exceed.
    pub threshold: f64,
    pub active: Option<Active>,
    pub passive: Option<Passive>,
}

/// Probes that the gateway sends.
#[derive(Debug)]
pub struct Active {
    pub ask: Ask,
    /// For the whole probe.
    pub timeout: Duration,
    /// How many addresses are probed at once.
    pub concurrency: usize,
    pub intervals: Intervals,
    pub limits: Limits,
}

/// How often an address is probed; absent = never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Intervals {
    pub healthy: Option<Duration>,
    pub unhealthy: Option<Duration>,
}

/// What a probe asks.
#[derive(Debug)]
pub enum Ask {
    /// Whether a connection can be made.
    Tcp,
    /// What the answer to a GET is.
    Http(Box<HttpAsk>),
    /// What a gRPC server says of itself.
    Grpc(Box<GrpcAsk>),
}

/// A GET and how its answer is judged.
#[derive(Debug)]
pub struct HttpAsk {
    pub envelope: Envelope,
    /// A path as it stands in a request line.
    pub path: String,
    pub statuses: Statuses,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug)]
pub struct GrpcAsk {
    pub envelope: Envelope,
    /// The message that is sent, with its prefix.
    pub message: Bytes,
}

/// What is learnt from proxied requests.
#[derive(Debug)]
pub struct Passive {
    pub statuses: Statuses,
    pub limits: Limits,
}

/// Which statuses count, and as what.
#[derive(Debug, Default)]
pub struct Statuses {
    good: Box<[u16]>,
    bad: Box<[u16]>,
}

impl Statuses {
    /// A status in both lists is good.
    pub fn new(mut good: Vec<u16>, mut bad: Vec<u16>) -> Self {
        good.sort_unstable();
        bad.sort_unstable();
        Self {
            good: good.into_boxed_slice(),
            bad: bad.into_boxed_slice(),
        }
    }

    /// What `status` counts as; `None` if it counts for nothing.
    pub fn judge(&self, status: u16) -> Option<Finding> {
        if self.good.binary_search(&status).is_ok() {
            Some(Finding::GoodStatus(status))
        } else if self.bad.binary_search(&status).is_ok() {
            Some(Finding::BadStatus(status))
        } else {
            None
        }
    }
}

impl Intervals {
    /// How often an address in this state is probed.
    pub const fn of(&self, healthy: bool) -> Option<Duration> {
        if healthy {
            self.healthy
        } else {
            self.unhealthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_good_or_bad_or_counts_for_nothing() {
        let statuses = Statuses::new(vec![302, 200, 404], vec![500, 404]);
        assert_eq!(statuses.judge(200), Some(Finding::GoodStatus(200)));
        assert_eq!(statuses.judge(500), Some(Finding::BadStatus(500)));
        assert_eq!(statuses.judge(404), Some(Finding::GoodStatus(404)));
        assert_eq!(statuses.judge(204), None);
    }
}
