//! The `config:` block: its fields, and the rules between them that its schema cannot say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    entity::Secret,
    plugin::{ConfigError, LimitBy},
    state::rates::{Limits, Period},
};

/// The message of a refusal if nothing else is configured.
pub(super) const MESSAGE: &str = "API rate limit exceeded";

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
#[schemars(extend("x-refused" = [(
    "cloud_authentication",
    "it is an enterprise field; log in with `username` and `password`",
)]))]
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
    pub(super) fn limits(&self) -> Result<Limits, ConfigError> {
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

    /// The remaining rules of single fields, and that no setting is written twice and differently.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
