//! Sends copies of requests somewhere else in the background: a new version under real traffic, without a client
//! noticing.
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
//!       - name: proxy-mirror
//!         config:
//!           service: orders-next
//!           sample: 0.1
//!   - name: orders-next
//!     url: http://orders-next.internal
//! ```
//!
//! # What is copied
//!
//! Method, path, query, headers and body as they go upstream, after all plugins: with the prefix stripped that the
//! route strips, with the forwarding headers, without hop-by-hop headers. `Host` is that of the mirror, and its own
//! path comes before the request's. `X-Tollgate-Mirror: 1` and the `headers` of the configuration are added.
//!
//! **Credentials are copied as well**: cookies, `Authorization`, API keys that no plugin has hidden. Whoever
//! receives copies can use them. Send them only where you would send the requests, and hide keys with
//! `hide_credentials`.
//!
//! Not copied are tunnels (WebSocket) and gRPC, requests whose body is over `max_body`, those whose body did not arrive whole,
//! and those that a plugin answered. A request that is a copy itself, which `X-Tollgate-Mirror` tells, is not
//! copied again, so two gateways that mirror to each other do no harm.
//!
//! # What the client notices
//!
//! Nothing. A copy is sent by itself once the request has gone upstream whole; its answer is read and thrown away.
//! Whether it is slow, fails or refuses connections changes neither the response nor its time, is no outcome for
//! health checks, and is not tried again, except once where a kept connection turns out to be closed. Copies have
//! connections of their own.
//!
//! # What it may cost
//!
//! At most `max_in_flight` copies are collected or under way at once, so at most `max_in_flight × max_body` bytes
//! are held for them; what comes beyond is not copied. Every request that was to be copied, except
//! a tunnel, is counted in `tollgate_mirror_requests_total` by what became of its copy.
//!
//! # Where to
//!
//! `service` names a service of the configuration, whose host, balancer, path, connect timeout and TLS settings are
//! used; it needs no route. `url` is a place outside of it. Over https its certificate is always verified, by what
//! `trusted_certificates` trusts; name a service with `tls_verify: false` where that cannot be.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    entity::facts::ServiceIndex,
    plugin::{Choice, ConfigError, Env, Halt, MIRRORED, Mirror, Outside, Plugin, Request},
    telemetry::mirrors::MirrorCounts,
};

/// The `config:` block of `proxy-mirror`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where copies go: `http://` or `https://`, a host, and what comes before the path. Either this or `service`.
    #[schemars(regex(pattern = "^https?://"))]
    pub url: Option<String>,
    /// The name or id of the service that copies go to.
    pub service: Option<String>,
    /// The share of requests that is copied, from 0 to 1. Which ones is left to chance.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// The largest body that is copied, in bytes.
    #[schemars(range(min = 0, max = 16_777_216))]
    pub max_body: usize,
    /// How long a copy may take, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub timeout: u32,
    /// How many copies may be collected or under way at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: usize,
    /// Headers to set on copies.
    #[schemars(extend("propertyNames" = {"format": "header-name"}))]
    pub headers: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            service: None,
            sample: 1.0,
            max_body: 65_536,
            timeout: 5000,
            max_in_flight: 100,
            headers: BTreeMap::new(),
        }
    }
}

/// The plugin `proxy-mirror`.
#[derive(Debug)]
pub struct ProxyMirror {
    mirror: Arc<Mirror>,
    sample: Sample,
    places: Arc<Semaphore>,
    counts: Arc<MirrorCounts>,
    /// What it does, for explanations.
    outlook: Box<str>,
}

impl Plugin for ProxyMirror {
    const NAME: &'static str = "proxy-mirror";
    type Config = Config;
    type Memo = ();
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        let to = match (&config.url, &config.service) {
            (Some(url), _) => url.clone(),
            (None, service) => format!("service {}", service.as_deref().unwrap_or_default()),
        };
        Ok(Self {
            outlook: format!("sends a copy of {} of the requests to {to}", config.sample).into(),
            mirror: Arc::new(Mirror {
                service: destination(&config, env)?,
                headers: headers(&config)?,
                body_bytes_max: config.max_body,
                timeout: Duration::from_millis(config.timeout.into()),
            }),
            sample: Sample::new(config.sample)?,
            places: Arc::new(Semaphore::new(
                config.max_in_flight.clamp(1, Semaphore::MAX_PERMITS),
            )),
            counts: Arc::clone(env.state.telemetry.mirrors()),
        })
    }

    fn choice(&self, request: &Request<'_>) -> Option<Choice> {
        let by = if is_left_out(request) {
            "makes no copy of this one".to_owned()
        } else {
            self.outlook.to_string()
        };
        Some(Choice {
            by,
            prospects: Vec::new(),
        })
    }

    async fn access(&self, _memo: &mut (), request: &mut Request<'_>) -> Result<(), Halt> {
        if is_left_out(request) || !self.sample.takes_next() {
            return Ok(());
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => request.mirror(Arc::clone(&self.mirror), place),
            Err(_) => self.counts.too_many.inc(),
        }
        Ok(())
    }
}

/// Whether `request` is a copy itself, or nothing that is copied.
fn is_left_out(request: &Request<'_>) -> bool {
    request.headers.contains(&MIRRORED) || request.is_grpc()
}

fn destination(config: &Config, env: &Env<'_, ProxyMirror>) -> Result<ServiceIndex, ConfigError> {
    match (&config.url, &config.service) {
        (Some(url), None) => {
            let outside = Outside::parse(url).map_err(|wrong| ConfigError::at("url", wrong))?;
            Ok(env.destinations.outside(outside))
        }
        (None, Some(name)) => {
            let service = env.service("service".to_owned(), name)?;
            if env.destinations.is_grpc(service) {
                let message = format!(
                    "service `{name}` speaks gRPC, which is not copied: name one whose protocol is http or https"
                );
                return Err(ConfigError::at("service", message));
            }
            Ok(service)
        }
        (Some(_), Some(_)) => Err(ConfigError::at(
            "service",
            "`url` says already where copies go: leave one of the two out",
        )),
        (None, None) => Err(ConfigError::at(
            "",
            "where copies go is missing: write `service` or `url`",
        )),
    }
}

fn headers(config: &Config) -> Result<Box<[(HeaderName, HeaderValue)]>, ConfigError> {
    let parsed = config.headers.iter().map(|(name, value)| {
        let wrong = |what: String| ConfigError::at("headers", what);
        let header: HeaderName = name
            .parse()
            .map_err(|_| wrong(format!("`{name}` is not a header name")))?;
        if Mirror::OWN.contains(&header) {
            return Err(wrong(format!(
                "`{name}` says where the copy goes or how it is framed: leave it out"
            )));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| wrong(format!("the value of `{name}` cannot be one of a header")))?;
        Ok((header, value))
    });
    parsed.collect()
}

/// Which requests are copied: a share of them, scattered so that no pattern of traffic meets a pattern of
/// samples.
#[derive(Debug)]
struct Sample {
    /// Of 2^53.
    below: u64,
    keys: RandomState,
    seen: AtomicU64,
}

/// How finely a share is told.
const STEPS: u64 = 1 << 53;

impl Sample {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of 2^53 is what the type holds exactly"
    )]
    fn new(share: f64) -> Result<Self, ConfigError> {
        if !(0.0..=1.0).contains(&share) {
            let message = format!("must be from 0 to 1, found {share}");
            return Err(ConfigError::at("sample", message));
        }
        Ok(Self {
            below: (share * STEPS as f64) as u64,
            keys: RandomState::new(),
            seen: AtomicU64::new(0),
        })
    }

    fn takes_next(&self) -> bool {
        self.below == STEPS || {
            let number = self.seen.fetch_add(1, Ordering::Relaxed);
            self.keys.hash_one(number) % STEPS < self.below
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Visit, World};

    async fn is_copied(plugin: &ProxyMirror, mut visit: Visit<'_, ProxyMirror>) -> bool {
        visit.admit(plugin).await.expect("it never answers");
        visit.directions.copy.is_some()
    }

    #[tokio::test]
    async fn every_request_is_copied_but_copies() {
        let world = World::new();
        let plugin = world.configured::<ProxyMirror>("{ service: v2 }");
        assert!(is_copied(&plugin, Visit::get(&world, "/")).await);
        let copy = Visit::get(&world, "/").header("x-tollgate-mirror", "1");
        assert!(!is_copied(&plugin, copy).await);
        let grpc = Visit::get(&world, "/").header("content-type", "application/grpc");
        assert!(!is_copied(&plugin, grpc).await);
    }

    #[tokio::test]
    async fn a_sample_is_a_share_of_the_requests() {
        let world = World::new();
        for (sample, least, most) in [("0", 0, 0), ("0.25", 400, 600), ("1.0", 2000, 2000)] {
            let plugin =
                world.configured::<ProxyMirror>(&format!("{{ service: v2, sample: {sample} }}"));
            let mut copied = 0;
            for _ in 0..2000 {
                copied += usize::from(is_copied(&plugin, Visit::get(&world, "/")).await);
            }
            assert!((least..=most).contains(&copied), "{sample}: {copied}");
        }
    }

    #[tokio::test]
    async fn what_exceeds_the_copies_in_flight_is_dropped_and_counted() {
        let world = World::new();
        let plugin = world.configured::<ProxyMirror>("{ service: v2, max_in_flight: 2 }");
        let mut visits: Vec<_> = (0..3).map(|_| Visit::get(&world, "/")).collect();
        for visit in &mut visits {
            visit.admit(&plugin).await.expect("it never answers");
        }
        let copied = visits
            .iter()
            .filter(|visit| visit.directions.copy.is_some())
            .count();
        assert_eq!(copied, 2);
        assert_eq!(world.state.telemetry.mirrors().too_many.get(), 1);
        drop(visits);
        assert!(is_copied(&plugin, Visit::get(&world, "/")).await);
    }

    #[test]
    fn mistakes_are_told_at_their_field() {
        let world = World::new();
        for (yaml, field) in [
            ("{}", ""),
            ("{ url: 'http://a.test', service: v1 }", "service"),
            ("{ service: v9 }", "service"),
            ("{ url: 'ftp://a.test' }", "url"),
            ("{ url: 'http://ann:secret@a.test' }", "url"),
            ("{ url: 'http://a.test/x?y=1' }", "url"),
            ("{ service: v1, sample: 1.5 }", "sample"),
            ("{ service: v1, headers: { 'no name': x } }", "headers"),
            ("{ service: v1, headers: { Host: x } }", "headers"),
            ("{ service: v1, headers: { X-A: \"a\\nb\" } }", "headers"),
        ] {
            let error = world.configure::<ProxyMirror>(yaml).expect_err(yaml);
            assert_eq!(error.field, field, "{yaml}");
        }
    }
}
