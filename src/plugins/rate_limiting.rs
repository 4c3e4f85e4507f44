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

use std::{borrow::Cow, hash::Hash, net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue, header::RETRY_AFTER};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::{
    entity::{Secret, number, reason::Reason},
    plugin::{ConfigError, Env, Halt, Plugin, Reply, Request, Response, ResponseHeaders},
    state::{
        clock::Clock,
        rates::{Limits, Period, Table, Timestamp, Usage},
    },
};

/// The message of a refusal if nothing else is configured.
const MESSAGE: &str = "API rate limit exceeded";

/// The fewest identities that a table may be asked to count.
const MAX_KEYS_MIN: usize = 1000;

/// Known fields that this version does not take.
const REFUSED: &[(&str, &str)] = &[
    (
        "burst",
        "it belongs to the algorithm `token-bucket`; leave it out and limit a `second` as well",
    ),
    (
        "cost_header",
        "every request counts as 1; leave the field out",
    ),
];

/// The `config:` block of `rate-limiting`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-refused" = REFUSED))]
pub struct Config {
    /// Requests per second. At least one period must be limited.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub second: Option<f64>,
    /// Requests per minute; not fewer than per second.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub minute: Option<f64>,
    /// Requests per hour; not fewer than in a shorter period.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub hour: Option<f64>,
    /// Requests per day (UTC); not fewer than in a shorter period.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub day: Option<f64>,
    /// Requests per calendar month (UTC); not fewer than in a shorter period.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub month: Option<f64>,
    /// Requests per calendar year (UTC); not fewer than in a shorter period.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub year: Option<f64>,
    /// Whose requests are counted together. What a request does not have falls back to its
    /// client's address, `consumer` to its credential first.
    pub limit_by: LimitBy,
    /// The request header whose value is the client; required with `limit_by: header`.
    #[schemars(extend("format" = "header-name"))]
    pub header_name: Option<String>,
    /// The path whose requests share one count; required with `limit_by: path`. It must match as a whole.
    #[schemars(regex(pattern = "^/"))]
    pub path: Option<String>,
    /// Where the counts live.
    pub policy: Policy,
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Whether requests pass while the store of the counts fails. The process's own memory does
    /// not fail, so this changes nothing with `policy: local`.
    pub fault_tolerant: bool,
    /// Leaves out the headers `X-RateLimit-…`, `RateLimit-…` and `Retry-After`.
    pub hide_client_headers: bool,
    /// The status of a refusal.
    #[schemars(range(min = 200, max = 999))]
    pub error_code: u16,
    /// The message in the body of a refusal.
    pub error_message: String,
    /// How many clients are counted exactly, in memory.
    #[schemars(range(min = 1000))]
    pub max_keys: usize,
    /// Seconds between reconciliations with a shared store. There is none with `policy: local`:
    /// only `-1`.
    pub sync_rate: f64,
    /// The shared store. Without effect with `policy: local`.
    pub redis: Option<Redis>,
    /// Deprecated spelling of `redis.host`.
    pub redis_host: Option<String>,
    /// Deprecated spelling of `redis.port`.
    pub redis_port: Option<u16>,
    /// Deprecated spelling of `redis.timeout`.
    pub redis_timeout: Option<u32>,
    /// Deprecated spelling of `redis.username`.
    pub redis_username: Option<String>,
    /// Deprecated spelling of `redis.password`.
    #[schemars(length(min = 0))]
    pub redis_password: Option<Secret<String>>,
    /// Deprecated spelling of `redis.database`.
    pub redis_database: Option<u32>,
    /// Deprecated spelling of `redis.ssl`.
    pub redis_ssl: Option<bool>,
    /// Deprecated spelling of `redis.ssl_verify`.
    pub redis_ssl_verify: Option<bool>,
    /// Deprecated spelling of `redis.server_name`.
    pub redis_server_name: Option<String>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitBy {
    /// Those of a consumer, else of a credential, else of a client address.
    #[default]
    Consumer,
    /// Those with the same credential, else from the same client address.
    Credential,
    /// Those from the same client address.
    Ip,
    /// All those to a service.
    Service,
    /// Those with the same value of `header_name`, else from the same client address.
    Header,
    /// Those to `path`; others by client address.
    Path,
}

/// Where the counts live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-refused-values" = [
    ("redis", "write `policy: local`: each process then counts for itself, so divide the limits by the number of processes"),
    ("cluster", "it needs a database, which there is not; write `policy: local`"),
]))]
pub enum Policy {
    /// In the memory of this process.
    #[default]
    Local,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-refused-values" = [
    ("sliding", "leave `algorithm` out: windows are fixed"),
    ("token-bucket", "leave `algorithm` out; limit a `second` as well to even out bursts"),
]))]
pub enum Algorithm {
    /// In windows that begin and end with the calendar.
    #[default]
    Fixed,
}

/// A Redis server, as in Kong's files. Without effect with `policy: local`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// The server's name or address.
    pub host: Option<String>,
    /// Its port; 6379 if nothing is written.
    pub port: Option<u16>,
    /// Milliseconds for connecting and one command; 2000 if nothing is written.
    pub timeout: Option<u32>,
    /// The user to log in as.
    pub username: Option<String>,
    /// The password to log in with.
    #[schemars(length(min = 0))]
    pub password: Option<Secret<String>>,
    /// The number of the database; 0 if nothing is written.
    pub database: Option<u32>,
    /// Whether to connect over TLS.
    pub ssl: Option<bool>,
    /// Whether to verify the server's certificate.
    pub ssl_verify: Option<bool>,
    /// The name to expect in the server's certificate.
    pub server_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            second: None,
            minute: None,
            hour: None,
            day: None,
            month: None,
            year: None,
            limit_by: LimitBy::default(),
            header_name: None,
            path: None,
            policy: Policy::default(),
            algorithm: Algorithm::default(),
            fault_tolerant: true,
            hide_client_headers: false,
            error_code: 429,
            error_message: MESSAGE.to_owned(),
            max_keys: 1_000_000,
            sync_rate: -1.0,
            redis: None,
            redis_host: None,
            redis_port: None,
            redis_timeout: None,
            redis_username: None,
            redis_password: None,
            redis_database: None,
            redis_ssl: None,
            redis_ssl_verify: None,
            redis_server_name: None,
        }
    }
}

impl Config {
    fn limit(&self, period: Period) -> Option<f64> {
        match period {
            Period::Second => self.second,
            Period::Minute => self.minute,
            Period::Hour => self.hour,
            Period::Day => self.day,
            Period::Month => self.month,
            Period::Year => self.year,
        }
    }

    /// Kong's rules for the limits: at least one, all positive, none lower than a shorter period's.
    fn limits(&self) -> Result<Limits, ConfigError> {
        let limits = Limits::new(|period| self.limit(period));
        let mut shorter: Option<(Period, f64)> = None;
        for (period, limit) in limits.iter() {
            if !(limit > 0.0 && limit.is_finite()) {
                let message = format!("a limit must be greater than 0, found {limit}");
                return Err(ConfigError::at(period.name(), message));
            }
            if let Some((shorter, least)) = shorter.filter(|(_, least)| limit < *least) {
                let (period, shorter) = (period.name(), shorter.name());
                let message = format!(
                    "the limit per {period} ({limit}) must not be lower than the limit per \
                     {shorter} ({least}), which could never be used up"
                );
                return Err(ConfigError::at(period, message));
            }
            shorter = Some((period, limit));
        }
        if shorter.is_none() {
            let message = "no limit is set: write at least one of `second`, `minute`, `hour`, \
                           `day`, `month` and `year`";
            return Err(ConfigError::at("", message));
        }
        Ok(limits)
    }

    /// Who is counted, with what it needs to be found out.
    fn key(&self) -> Result<Key, ConfigError> {
        Ok(match self.limit_by {
            LimitBy::Consumer => Key::Consumer,
            LimitBy::Credential => Key::Credential,
            LimitBy::Ip => Key::Ip,
            LimitBy::Service => Key::Service,
            LimitBy::Header => {
                let name = self.header_name.as_deref().ok_or_else(|| {
                    ConfigError::at("header_name", "required with `limit_by: header`")
                })?;
                Key::Header(name.parse().map_err(|_| {
                    ConfigError::at("header_name", format!("`{name}` is not a header name"))
                })?)
            }
            LimitBy::Path => match self.path.as_deref() {
                Some(path) if path.starts_with('/') => Key::Path(path.into()),
                Some(path) => {
                    let message = format!("`{path}` must start with `/`");
                    return Err(ConfigError::at("path", message));
                }
                None => return Err(ConfigError::at("path", "required with `limit_by: path`")),
            },
        })
    }

    /// The remaining rules of single fields, and that no setting is written twice and differently.
    fn check(&self) -> Result<(), ConfigError> {
        if (self.sync_rate + 1.0).abs() > f64::EPSILON {
            let message = "only -1 goes with `policy: local`: there is no shared store to \
                           reconcile with; leave the field out";
            return Err(ConfigError::at("sync_rate", message));
        }
        if self.max_keys < MAX_KEYS_MIN {
            let message = format!("must be at least {MAX_KEYS_MIN}, found {}", self.max_keys);
            return Err(ConfigError::at("max_keys", message));
        }
        if !(200..=999).contains(&self.error_code) {
            let message = format!(
                "must be the status of a response, 200 to 999, found {}",
                self.error_code
            );
            return Err(ConfigError::at("error_code", message));
        }
        match self
            .redis
            .as_ref()
            .and_then(|redis| self.contradiction(redis))
        {
            Some(field) => Err(ConfigError::at(
                field,
                "differs from the field of this name in `redis`; leave the deprecated spelling out",
            )),
            None => Ok(()),
        }
    }

    /// A deprecated field that says something else than its successor.
    fn contradiction(&self, redis: &Redis) -> Option<&'static str> {
        fn differ<T: PartialEq>(old: Option<&T>, new: Option<&T>) -> bool {
            old.zip(new).is_some_and(|(old, new)| old != new)
        }
        let pairs = [
            (
                "redis_host",
                differ(self.redis_host.as_ref(), redis.host.as_ref()),
            ),
            (
                "redis_port",
                differ(self.redis_port.as_ref(), redis.port.as_ref()),
            ),
            (
                "redis_timeout",
                differ(self.redis_timeout.as_ref(), redis.timeout.as_ref()),
            ),
            (
                "redis_username",
                differ(self.redis_username.as_ref(), redis.username.as_ref()),
            ),
            (
                "redis_password",
                differ(self.redis_password.as_ref(), redis.password.as_ref()),
            ),
            (
                "redis_database",
                differ(self.redis_database.as_ref(), redis.database.as_ref()),
            ),
            (
                "redis_ssl",
                differ(self.redis_ssl.as_ref(), redis.ssl.as_ref()),
            ),
            (
                "redis_ssl_verify",
                differ(self.redis_ssl_verify.as_ref(), redis.ssl_verify.as_ref()),
            ),
            (
                "redis_server_name",
                differ(self.redis_server_name.as_ref(), redis.server_name.as_ref()),
            ),
        ];
        pairs
            .into_iter()
            .find(|(_, differ)| *differ)
            .map(|(field, _)| field)
    }
}

/// The plugin `rate-limiting`.
#[derive(Debug)]
pub struct RateLimiting {
    clock: Clock,
    table: Arc<Table>,
    limits: Limits,
    key: Key,
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
        let (limits, key) = (config.limits()?, config.key()?);
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
            key,
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
            .hit(&self.key.subject(request), &self.limits, now);
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

/// Whose requests are counted together, with what it takes to tell.
#[derive(Debug)]
enum Key {
    Consumer,
    Credential,
    Ip,
    Service,
    Header(HeaderName),
    Path(Box<str>),
}

/// Whose count a request belongs to. The kind is part of it: a header value that looks like an
/// address is not that address.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Subject<'a> {
    Consumer(Uuid),
    Credential(&'a [u8]),
    Client(IpAddr),
    Service(Uuid),
    Header(&'a [u8]),
    Path,
}

impl Key {
    fn subject<'a>(&self, request: &'a Request<'_>) -> Subject<'a> {
        let credential = || {
            let credential = request.identity.credential.as_ref();
            credential.map(|id| Subject::Credential(id.as_bytes()))
        };
        let found = match self {
            Self::Consumer => request
                .consumer()
                .map(|consumer| Subject::Consumer(consumer.id))
                .or_else(credential),
            Self::Credential => credential(),
            Self::Ip => None,
            Self::Service => request
                .about
                .service
                .map(|service| Subject::Service(service.id)),
            Self::Header(name) => request
                .headers
                .get(name)
                .map(|value| Subject::Header(value.as_bytes())),
            Self::Path(path) => is_path(request, path).then_some(Subject::Path),
        };
        found.unwrap_or(Subject::Client(request.about.client.ip))
    }
}

/// Whether the request is for `path`, as it was sent or in the normal form it is routed by: else
/// an escaped letter would slip past the limit.
fn is_path(request: &Request<'_>, path: &str) -> bool {
    request.path() == path || request.about.matched.path == path.as_bytes()
}

static RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The headers of one limited period, prepared as far as no request is needed.
#[derive(Debug)]
struct LimitHeaders {
    period: Period,
    limit_name: HeaderName,
    limit: HeaderValue,
    remaining_name: HeaderName,
}

impl LimitHeaders {
    fn new((period, limit): (Period, f64)) -> Self {
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
fn announce(usage: &Usage, limits: &[LimitHeaders], headers: &mut ResponseHeaders<'_>) {
    for limit in limits {
        let remaining = usage.remaining(limit.period);
        headers.set(&limit.limit_name, limit.limit.clone());
        headers.set(&limit.remaining_name, decimal(remaining));
        if limit.period == usage.tightest() {
            headers.set(&RATELIMIT_LIMIT, limit.limit.clone());
            headers.set(&RATELIMIT_REMAINING, decimal(remaining));
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin::testing::{Visit, World};

    type Limited<'w> = Visit<'w, RateLimiting>;

    async fn is_admitted(visit: &mut Limited<'_>, plugin: &RateLimiting) -> bool {
        visit.admit(plugin).await.is_ok()
    }

    fn refused(yaml: &str) -> ConfigError {
        World::new()
            .configure::<RateLimiting>(yaml)
            .expect_err("the configuration is wrong")
    }

    #[tokio::test]
    async fn the_first_of_one_passes_and_the_second_is_refused() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 1 }");
        let (mut first, mut second) = (Limited::get(&world, "/"), Limited::get(&world, "/"));

        assert!(is_admitted(&mut first, &plugin).await);
        first.deliver(&plugin, 200, &[("X-RateLimit-Remaining-Minute", "77")]);
        assert_eq!(first.seen_by_client("X-RateLimit-Limit-Minute"), "1");
        assert_eq!(first.seen_by_client("X-RateLimit-Remaining-Minute"), "0");
        assert_eq!(first.seen_by_client("Retry-After"), "");

        world.state.clock.advance(Duration::from_millis(1500));
        let reply = second.refused(&plugin).await;
        assert_eq!((reply.status, reply.reason), (429, Reason::RateLimited));
        assert_eq!(reply.body, crate::plugin::Body::Message(MESSAGE.into()));
        second.deliver(&plugin, 429, &[]);
        assert_eq!(second.seen_by_client("RateLimit-Limit"), "1");
        assert_eq!(second.seen_by_client("RateLimit-Remaining"), "0");
        assert_eq!(second.seen_by_client("RateLimit-Reset"), "59");
        assert_eq!(second.seen_by_client("Retry-After"), "59");
    }

    #[tokio::test]
    async fn a_refusal_shows_the_other_periods_undiminished() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ second: 2, hour: 10 }");
        let mut visit = Limited::get(&world, "/");
        for _ in 0..5 {
            is_admitted(&mut visit, &plugin).await;
        }
        visit.deliver(&plugin, 429, &[]);
        assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Second"), "0");
        assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Hour"), "10");
        assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Hour"), "8");
        assert_eq!(visit.seen_by_client("RateLimit-Limit"), "2");
        assert_eq!(visit.seen_by_client("Retry-After"), "1");
        world.state.clock.advance(Duration::from_secs(1));
        assert!(is_admitted(&mut visit, &plugin).await);
    }

    #[tokio::test]
    async fn fractions_show_a_decimal_point_and_whole_numbers_do_not() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 2.5, hour: 1e3 }");
        let mut visit = Limited::get(&world, "/");
        assert!(is_admitted(&mut visit, &plugin).await);
        visit.deliver(&plugin, 200, &[]);
        assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Minute"), "2.5");
        assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Minute"), "1.5");
        assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Hour"), "1000");
        assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Hour"), "999");
    }

    #[tokio::test]
    async fn hidden_headers_are_not_sent() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 1, hide_client_headers: true }");
        let mut visit = Limited::get(&world, "/");
        assert!(is_admitted(&mut visit, &plugin).await);
        assert!(!is_admitted(&mut visit, &plugin).await);
        visit.deliver(&plugin, 429, &[]);
        for name in ["X-RateLimit-Limit-Minute", "RateLimit-Limit", "Retry-After"] {
            assert_eq!(visit.seen_by_client(name), "");
        }
    }

    #[tokio::test]
    async fn a_request_that_never_came_here_carries_no_headers() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 1 }");
        let mut visit = Limited::get(&world, "/");
        visit.deliver(&plugin, 401, &[]);
        assert_eq!(visit.seen_by_client("X-RateLimit-Limit-Minute"), "");
    }

    #[tokio::test]
    async fn status_and_message_of_a_refusal_can_be_chosen() {
        let world = World::new();
        let plugin = world
            .configured::<RateLimiting>("{ minute: 1, error_code: 403, error_message: slow down }");
        let mut visit = Limited::get(&world, "/");
        assert!(is_admitted(&mut visit, &plugin).await);
        let reply = visit.refused(&plugin).await;
        assert_eq!(reply.status, 403);
        assert_eq!(reply.body, crate::plugin::Body::Message("slow down".into()));
    }

    #[tokio::test]
    async fn clients_are_told_apart_by_address_unless_they_are_known() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 1 }");
        let from = |ip| Limited::get(&world, "/").client_ip(ip);
        assert!(is_admitted(&mut from("192.0.2.1"), &plugin).await);
        assert!(is_admitted(&mut from("192.0.2.2"), &plugin).await);
        assert!(!is_admitted(&mut from("192.0.2.1"), &plugin).await);

        let mut bob = from("192.0.2.1");
        bob.identity.consumer = world.consumers.find("bob");
        assert!(is_admitted(&mut bob, &plugin).await);
        let mut bob_elsewhere = from("2001:db8::1");
        bob_elsewhere.identity.consumer = world.consumers.find("bob");
        assert!(!is_admitted(&mut bob_elsewhere, &plugin).await);
        let mut guest = from("192.0.2.1");
        guest.identity.consumer = world.consumers.find("guest");
        assert!(is_admitted(&mut guest, &plugin).await);
    }

    #[tokio::test]
    async fn a_credential_counts_for_itself() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 1, limit_by: credential }");
        let with = |id: &'static str| {
            let mut visit = Limited::get(&world, "/");
            visit.identity.consumer = world.consumers.find("bob");
            visit.identity.credential = Some(HeaderValue::from_static(id));
            visit
        };
        assert!(is_admitted(&mut with("key-1"), &plugin).await);
        assert!(is_admitted(&mut with("key-2"), &plugin).await);
        assert!(!is_admitted(&mut with("key-1"), &plugin).await);
        assert!(is_admitted(&mut Limited::get(&world, "/"), &plugin).await);
    }

    #[tokio::test]
    async fn a_service_counts_all_clients_together() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>("{ minute: 1, limit_by: service }");
        let from = |ip| Limited::get(&world, "/").client_ip(ip);
        assert!(is_admitted(&mut from("192.0.2.1"), &plugin).await);
        assert!(!is_admitted(&mut from("192.0.2.2"), &plugin).await);
    }

    #[tokio::test]
    async fn a_header_value_counts_for_itself_and_is_no_address() {
        let world = World::new();
        let plugin = world.configured::<RateLimiting>(
            "{ minute: 1, limit_by: header, header_name: X-Api-Client }",
        );
        let with = |value| Limited::get(&world, "/").header("x-api-client", value);
        assert!(is_admitted(&mut with("a"), &plugin).await);
        assert!(is_admitted(&mut with("192.0.2.7"), &plugin).await);
        assert!(!is_admitted(&mut with("a"), &plugin).await);
        assert!(is_admitted(&mut Limited::get(&world, "/"), &plugin).await);
        assert!(!is_admitted(&mut Limited::get(&world, "/"), &plugin).await);
    }

    #[tokio::test]
    async fn one_path_shares_a_count_and_others_go_by_address() {
        let world = World::new();
        let plugin =
            world.configured::<RateLimiting>("{ minute: 1, limit_by: path, path: /login }");
        let from = |ip, target| Limited::get(&world, target).client_ip(ip);
        assert!(is_admitted(&mut from("192.0.2.1", "/login?a=1"), &plugin).await);
        assert!(!is_admitted(&mut from("192.0.2.2", "/login"), &plugin).await);
        assert!(is_admitted(&mut from("192.0.2.1", "/login/"), &plugin).await);
        assert!(is_admitted(&mut from("192.0.2.2", "/login/"), &plugin).await);
        assert!(!is_admitted(&mut from("192.0.2.1", "/other"), &plugin).await);
    }

    #[tokio::test]
    async fn a_reload_with_another_limit_keeps_the_counts() {
        let world = World::new();
        let before = world.configured::<RateLimiting>("{ hour: 1 }");
        let mut visit = Limited::get(&world, "/");
        assert!(is_admitted(&mut visit, &before).await);
        let after = world.configured::<RateLimiting>("{ hour: 3, max_keys: 5000 }");
        drop(before);
        assert!(is_admitted(&mut visit, &after).await);
        visit.deliver(&after, 200, &[]);
        assert_eq!(visit.seen_by_client("X-RateLimit-Remaining-Hour"), "1");
    }

    #[test]
    fn what_kong_files_say_of_redis_is_known_and_inert() {
        let yaml = "
            minute: 5
            policy: local
            sync_rate: -1
            fault_tolerant: true
            redis_host: cache
            redis_port: 6379
            redis_ssl: false
            redis: { host: cache, port: 6379, timeout: 2000, username: u, password: p,
                     database: 0, ssl: false, ssl_verify: false, server_name: cache }";
        World::new().configured::<RateLimiting>(yaml);
        let error = refused("{ minute: 5, redis_port: 6380, redis: { port: 6379 } }");
        assert_eq!(error.field, "redis_port");
    }

    #[test]
    fn rules_between_fields_name_the_field_at_fault() {
        for (yaml, field) in [
            ("{}", ""),
            ("{ second: 10, hour: 9 }", "hour"),
            ("{ day: 10, month: 20, year: 19.5 }", "year"),
            ("{ minute: 0 }", "minute"),
            ("{ minute: .inf }", "minute"),
            ("{ minute: 5, limit_by: header }", "header_name"),
            (
                "{ minute: 5, limit_by: header, header_name: 'a b' }",
                "header_name",
            ),
            ("{ minute: 5, limit_by: path }", "path"),
            ("{ minute: 5, limit_by: path, path: login }", "path"),
            ("{ minute: 5, sync_rate: 0.5 }", "sync_rate"),
            ("{ minute: 5, max_keys: 999 }", "max_keys"),
            ("{ minute: 5, error_code: 42 }", "error_code"),
        ] {
            assert_eq!(refused(yaml).field, field, "{yaml}");
        }
    }

    #[test]
    fn what_this_version_does_not_take_is_refused_with_a_way_out() {
        let schema = schemars::schema_for!(Config).to_value().to_string();
        for name in [
            "redis",
            "cluster",
            "sliding",
            "token-bucket",
            "burst",
            "cost_header",
        ] {
            assert!(schema.contains(&format!("[\"{name}\",\"")), "{name}");
        }
        for yaml in [
            "{ minute: 5, policy: redis }",
            "{ minute: 5, policy: cluster }",
            "{ minute: 5, algorithm: sliding }",
            "{ minute: 5, burst: 10 }",
        ] {
            refused(yaml);
        }
    }
}
