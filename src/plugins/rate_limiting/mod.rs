//! Limits how many requests a client may make in a second, minute, hour, day, month or year.
//!
//! ```yaml
//! _format_version: "3.0"
//! services:
//!   - name: orders
//!     url: http://orders.internal
//!     routes:
//!       - name: orders
//!         paths: [/orders]
//!     plugins:
//!       - name: rate-limiting
//!         config:
//!           second: 5
//!           hour: 10000
//!           limit_by: header
//!           header_name: X-Api-Client
//!           policy: local
//! ```
//!
//! # Whose requests
//!
//! The client address is that of the peer, or the one that a trusted peer reports (`gateway.trusted_ips`).
//!
//! # Windows
//!
//! Windows follow the calendar in UTC: a minute begins at :00, a month on the 1st. A request passes if none of
//! the limits is reached; then it counts in all windows, whatever the upstream answers. Otherwise it is refused
//! and counts nowhere. With a limit of N exactly N requests pass, however many arrive at once.
//!
//! # Headers
//!
//! | header | on | value |
//! |---|---|---|
//! | `X-RateLimit-Limit-Minute` and its like | every response | the limit of each period |
//! | `X-RateLimit-Remaining-Minute` and its like | every response | what is left of it |
//! | `RateLimit-Limit`, `RateLimit-Remaining` | every response | those of the period with the least remaining |
//! | `RateLimit-Reset` | every response | seconds until the window of that period ends |
//! | `Retry-After` | a refusal | the same |
//!
//! # Where it counts
//!
//! Every place where the plugin is configured counts for itself: on two routes it counts each route apart, on a
//! service all its routes together. A reload keeps the counts, also under new limits. Several gateways do not
//! share counts.
//!
//! Counts are exact for `max_keys` clients; a million take about 90 MiB. If there are more, those that were let
//! through longest ago are kept as estimates, and clients that reached a limit are kept longest. An estimate
//! never refuses a client that had not reached its limit.

mod configuration;
mod headers;

use std::{borrow::Cow, sync::Arc};

use smallvec::SmallVec;

use crate::{
    entity::reason::Reason,
    plugin::{ConfigError, Env, Grouping, Halt, Plugin, Reply, Request, Response},
    state::{
        clock::Clock,
        rates::{Limits, Period, Table, Timestamp, Usage},
    },
};

pub use configuration::Config;
use configuration::MESSAGE;
use headers::{LimitHeaders, announce};

/// The plugin `rate-limiting`.
#[derive(Debug)]
pub struct RateLimiting {
    clock: Clock,
    table: Arc<Table>,
    limits: Limits,
    grouping: Grouping,
    refusal: Reply,
    /// `None` if the client is not to see them.
    headers: Option<SmallVec<[LimitHeaders; Period::ALL.len()]>>,
}

impl Plugin for RateLimiting {
    const NAME: &'static str = "rate-limiting";
    type Config = Config;
    type Memo = Option<Usage>;
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        config.check()?;
        let limits = config.limits()?;
        let (header_name, path) = (config.header_name.as_deref(), config.path.as_deref());
        let grouping = config.limit_by.grouping(header_name, path)?;
        let headers = limits.iter().map(LimitHeaders::new).collect();
        let message = if config.error_message == MESSAGE {
            Cow::Borrowed(MESSAGE)
        } else {
            Cow::Owned(config.error_message)
        };
        Ok(Self {
            clock: env.state.clock.clone(),
            table: env.state.rates.table(env.id, config.max_keys),
            limits,
            grouping,
            refusal: Reply::message(config.error_code, Reason::RateLimited, message),
            headers: (!config.hide_client_headers).then_some(headers),
        })
    }

    async fn access(
        &self,
        memo: &mut Option<Usage>,
        request: &mut Request<'_>,
    ) -> Result<(), Halt> {
        let now = Timestamp::from_unix_milliseconds(self.clock.unix_milliseconds());
        let usage = self
            .table
            .hit(&self.grouping.subject(request), &self.limits, now);
        *memo = Some(usage);
        if usage.is_admitted() {
            Ok(())
        } else {
            Err(self.refusal.clone().into())
        }
    }

    fn response(&self, memo: &mut Option<Usage>, response: &mut Response<'_>) {
        if let (Some(usage), Some(headers)) = (memo, &self.headers) {
            announce(usage, headers, &mut response.headers);
        }
    }
}

#[cfg(test)]
mod tests;
