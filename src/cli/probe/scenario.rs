//! What each scenario sends if nothing else is said. What it expects is in `verdict.rs`.

use std::time::Duration;

use clap::ValueEnum;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::calls::Kind;

/// What is tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// GET /health: every request is answered with 2xx
    Health,
    /// POST /api/echo: every request is answered with 2xx and shows the body that was sent
    Echo,
    /// GET /api/user: every request is answered with 2xx
    User,
    /// GET /api/data: every request is answered with 2xx
    Data,
    /// GET /api/slow?ms=1000, four at a time: every request is answered with 2xx
    Slow,
    /// GET /orders/api/user without a key, with a wrong one and with the right one: 401, 401, 2xx
    Auth,
    /// GET /api/user 150 times: requests pass until a limit is reached, then the gateway answers 429
    RateLimit,
    /// GET /api/fail 10 times, 500 ms apart: upstreams fail until the gateway answers 503 in their place
    Breaker,
}

impl Scenario {
    /// The name on the command line.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Echo => "echo",
            Self::User => "user",
            Self::Data => "data",
            Self::Slow => "slow",
            Self::Auth => "auth",
            Self::RateLimit => "rate-limit",
            Self::Breaker => "breaker",
        }
    }

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Echo => "/api/echo",
            Self::User | Self::RateLimit => "/api/user",
            Self::Data => "/api/data",
            Self::Slow => "/api/slow?ms=1000",
            Self::Auth => "/orders/api/user",
            Self::Breaker => "/api/fail",
        }
    }

    /// Requests of each kind.
    pub(super) const fn count(self) -> usize {
        match self {
            Self::Auth => 1,
            Self::Slow => 4,
            Self::RateLimit => 150,
            Self::Health | Self::Echo | Self::User | Self::Data | Self::Breaker => 10,
        }
    }

    pub(super) const fn concurrency(self) -> usize {
        match self {
            Self::Slow => 4,
            _ => 1,
        }
    }

    pub(super) const fn interval(self) -> Duration {
        match self {
            Self::Breaker => Duration::from_millis(500),
            _ => Duration::ZERO,
        }
    }

    /// One request waits for the answer to the one before it.
    pub(super) const fn is_a_sequence(self) -> bool {
        matches!(self, Self::Breaker)
    }

    /// The key that is sent if none is given: that of the default configuration.
    const fn key(self) -> Option<&'static str> {
        match self {
            Self::Auth => Some("demo-key"),
            _ => None,
        }
    }

    /// The kinds of requests, each with `headers` and, unless it is about lacking it, the key.
    pub(super) fn kinds(
        self,
        headers: &HeaderMap,
        key_header: &HeaderName,
        key: Option<&HeaderValue>,
    ) -> Vec<Kind> {
        let key = key
            .cloned()
            .or_else(|| self.key().map(HeaderValue::from_static));
        let kind = |label, key: Option<HeaderValue>| {
            let mut headers = headers.clone();
            if let Some(key) = key {
                headers.insert(key_header, key);
            }
            Kind {
                label,
                headers,
                echo: self == Self::Echo,
            }
        };
        match self {
            Self::Auth => vec![
                kind("without a key", None),
                kind(
                    "with a wrong key",
                    Some(HeaderValue::from_static("no-such-key")),
                ),
                kind("with the key", key),
            ],
            _ => vec![kind("", key)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_named_as_on_the_command_line() {
        for scenario in Scenario::value_variants() {
            let name = scenario.to_possible_value().expect("none is hidden");
            assert_eq!(name.get_name(), scenario.as_str());
        }
    }

    #[test]
    fn a_given_key_is_sent_in_every_scenario() {
        let name = HeaderName::from_static("x-api-key");
        let key = HeaderValue::from_static("k");
        let sent = |scenario: Scenario, key: Option<&HeaderValue>| -> Vec<Option<HeaderValue>> {
            let kinds = scenario.kinds(&HeaderMap::new(), &name, key);
            kinds
                .iter()
                .map(|kind| kind.headers.get(&name).cloned())
                .collect()
        };
        assert_eq!(sent(Scenario::User, None), [None]);
        assert_eq!(sent(Scenario::User, Some(&key)), [Some(key.clone())]);
        let auth = sent(Scenario::Auth, Some(&key));
        assert_eq!((&auth[0], &auth[2]), (&None, &Some(key)));
        assert!(auth[1].is_some() && auth[1] != auth[2]);
    }
}
