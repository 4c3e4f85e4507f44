//! What responses say of limits: names and values prepared for each period, and their writing.

use http::{HeaderName, HeaderValue, header::RETRY_AFTER};

use crate::{
    entity::number,
    plugin::ResponseHeaders,
    state::rates::{Period, Usage},
};

static RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The headers of one limited period, prepared as far as no request is needed.
#[derive(Debug)]
pub(super) struct LimitHeaders {
    period: Period,
    limit_name: HeaderName,
    limit: HeaderValue,
    remaining_name: HeaderName,
}

impl LimitHeaders {
    pub(super) fn new((period, limit): (Period, f64)) -> Self {
        let (limit_name, remaining_name) = match period {
            Period::Second => ("x-ratelimit-limit-second", "x-ratelimit-remaining-second"),
            Period::Minute => ("x-ratelimit-limit-minute", "x-ratelimit-remaining-minute"),
            Period::Hour => ("x-ratelimit-limit-hour", "x-ratelimit-remaining-hour"),
            Period::Day => ("x-ratelimit-limit-day", "x-ratelimit-remaining-day"),
            Period::Month => ("x-ratelimit-limit-month", "x-ratelimit-remaining-month"),
            Period::Year => ("x-ratelimit-limit-year", "x-ratelimit-remaining-year"),
        };
        Self {
            period,
            limit_name: HeaderName::from_static(limit_name),
            limit: decimal(limit),
            remaining_name: HeaderName::from_static(remaining_name),
        }
    }
}

/// Tells the client its limits and what is left of them; when refused, also when to come back.
pub(super) fn announce(usage: &Usage, limits: &[LimitHeaders], headers: &mut ResponseHeaders<'_>) {
    for limit in limits {
        let remaining = decimal(usage.remaining(limit.period));
        headers.set(&limit.limit_name, limit.limit.clone());
        if limit.period == usage.tightest() {
            headers.set(&RATELIMIT_LIMIT, limit.limit.clone());
            headers.set(&RATELIMIT_REMAINING, remaining.clone());
        }
        headers.set(&limit.remaining_name, remaining);
    }
    headers.set(
        &RATELIMIT_RESET,
        number::header(usage.reset_seconds().into()),
    );
    if !usage.is_admitted() {
        headers.set(&RETRY_AFTER, number::header(usage.reset_seconds().into()));
    }
}

/// A number without a decimal point if it is whole.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and below 2^53, so both are exact"
)]
fn decimal(number: f64) -> HeaderValue {
    const TWO_TO_THE_53RD: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && (0.0..TWO_TO_THE_53RD).contains(&number) {
        return number::header(number as u64);
    }
    HeaderValue::try_from(number.to_string()).expect("digits make a header value")
}
