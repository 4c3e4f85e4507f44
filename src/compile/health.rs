//! Health checks of an upstream as they are written → as they run.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    config::{
        Upstream,
        model::healthchecks::{self as written, ActiveType, Healthchecks},
    },
    state::health::{Damping, Limits},
    tls::UpstreamTls,
    upstream::health::{
        checks::{
            Active, Ask, Checks, Envelope, GrpcAsk, HttpAsk, Intervals, Passive, Statuses, TlsAsk,
        },
        grpc,
    },
};

/// What Kong takes a timeout of 0 for.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);
/// Probes are never closer to each other.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Whether any check is on.
pub(super) fn is_watched(healthchecks: &Healthchecks) -> bool {
    is_active(&healthchecks.active) || is_passive(&healthchecks.passive)
}

/// Whether certificates of targets are verified by its probes.
pub(super) fn verifies(upstream: &Upstream) -> bool {
    let active = &upstream.healthchecks.active;
    is_active(active)
        && matches!(active.kind, ActiveType::Https | ActiveType::Grpcs)
        && active.https_verify_certificate
}

fn is_active(active: &written::Active) -> bool {
    active.healthy.interval > 0.0 || active.unhealthy.interval > 0.0
}

fn is_passive(passive: &written::Passive) -> bool {
    let limits = &passive.unhealthy;
    limits.http_failures > 0 || limits.tcp_failures > 0 || limits.timeouts > 0
}

/// The checks of an upstream; `None` if all are off. `tls` says how probes over https speak, whether
/// they verify or not.
pub(super) fn checks(
    upstream: &Upstream,
    tls: impl FnOnce(bool) -> Arc<UpstreamTls>,
) -> Option<Checks> {
    let healthchecks = &upstream.healthchecks;
    let damping = damping(healthchecks.damping);
    is_watched(healthchecks).then(|| Checks {
        threshold: healthchecks.threshold,
        active: is_active(&healthchecks.active).then(|| active(upstream, damping, tls)),
        passive: is_passive(&healthchecks.passive).then(|| passive(&healthchecks.passive, damping)),
    })
}

fn damping(written: written::Damping) -> Option<Damping> {
    (written.falls > 0).then(|| Damping {
        falls: written.falls,
        window: seconds(written.window)
            .and_then(|window| i64::try_from(window.as_millis()).ok())
            .unwrap_or(0),
        factor: written.factor,
    })
}

fn active(
    upstream: &Upstream,
    damping: Option<Damping>,
    tls: impl FnOnce(bool) -> Arc<UpstreamTls>,
) -> Active {
    let written = &upstream.healthchecks.active;
    let (healthy, unhealthy) = (&written.healthy, &written.unhealthy);
    let tls = match written.kind {
        ActiveType::Tcp | ActiveType::Http | ActiveType::Grpc => None,
        ActiveType::Https | ActiveType::Grpcs => Some(TlsAsk {
            server_name: written.https_sni.clone(),
            tls: tls(written.https_verify_certificate),
        }),
    };
    let envelope = || {
        let (host, headers) = headers(upstream);
        Envelope { tls, host, headers }
    };
    let ask = match written.kind {
        ActiveType::Tcp => Ask::Tcp,
        ActiveType::Grpc | ActiveType::Grpcs => Ask::Grpc(Box::new(GrpcAsk {
            envelope: envelope(),
            message: grpc::question(service(&written.http_path)),
        })),
        ActiveType::Http | ActiveType::Https => Ask::Http(Box::new(HttpAsk {
            envelope: envelope(),
            path: written.http_path.clone(),
            statuses: Statuses::new(
                healthy.http_statuses.clone(),
                unhealthy.http_statuses.clone(),
            ),
        })),
    };
    Active {
        ask,
        timeout: seconds(written.timeout).unwrap_or(DEFAULT_TIMEOUT),
        concurrency: usize::try_from(written.concurrency).unwrap_or(usize::MAX),
        intervals: Intervals {
            healthy: interval(healthy.interval),
            unhealthy: interval(unhealthy.interval),
        },
        limits: Limits {
            successes: healthy.successes,
            http_failures: unhealthy.http_failures,
            tcp_failures: unhealthy.tcp_failures,
            timeouts: unhealthy.timeouts,
            damping,
        },
    }
}

/// The service of a gRPC server that a path names; `/` is the server as a whole.
fn service(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// The `Host` of probes, where it is not the target's own, and their other headers.
fn headers(upstream: &Upstream) -> (Option<HeaderValue>, HeaderMap) {
    let mut host = upstream
        .host_header
        .as_ref()
        .and_then(|host| HeaderValue::from_str(host).ok());
    let mut headers = HeaderMap::new();
    for (name, values) in &upstream.healthchecks.active.headers {
        let values = values
            .iter()
            .filter_map(|value| HeaderValue::from_str(value).ok());
        let Ok(name) = HeaderName::try_from(name) else {
            continue;
        };
        for value in values {
            if name == header::HOST {
                host = Some(value);
            } else {
                headers.append(name.clone(), value);
            }
        }
    }
    (host, headers)
}

fn passive(written: &written::Passive, damping: Option<Damping>) -> Passive {
    let (healthy, unhealthy) = (&written.healthy, &written.unhealthy);
    Passive {
        statuses: Statuses::new(
            healthy.http_statuses.clone(),
            unhealthy.http_statuses.clone(),
        ),
        limits: Limits {
            successes: healthy.successes,
            http_failures: unhealthy.http_failures,
            tcp_failures: unhealthy.tcp_failures,
            timeouts: unhealthy.timeouts,
            damping,
        },
    }
}

fn interval(written: f64) -> Option<Duration> {
    seconds(written).map(|interval| interval.max(INTERVAL_MIN))
}

/// `None` for 0, and for what is no time at all.
fn seconds(written: f64) -> Option<Duration> {
    (written > 0.0)
        .then(|| Duration::try_from_secs_f64(written).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(upstream: &Upstream) -> Option<Checks> {
        super::checks(upstream, |_| Arc::new(UpstreamTls::new(None, None)))
    }

    fn upstream(change: impl FnOnce(&mut Upstream)) -> Upstream {
        let mut upstream = Upstream::default();
        change(&mut upstream);
        upstream
    }

    #[test]
    fn nothing_is_watched_by_default_nor_for_a_threshold_alone() {
        assert!(checks(&Upstream::default()).is_none());
        assert!(checks(&upstream(|it| it.healthchecks.threshold = 50.0)).is_none());
    }

    #[test]
    fn an_interval_switches_active_checks_on_and_a_limit_passive_ones() {
        let active = checks(&upstream(|it| {
            it.healthchecks.active.unhealthy.interval = 0.001;
        }))
        .expect("on");
        assert!(active.passive.is_none());
        assert_eq!(
            active.active.expect("on").intervals,
            Intervals {
                healthy: None,
                unhealthy: Some(INTERVAL_MIN),
            }
        );
        let passive = checks(&upstream(|it| {
            it.healthchecks.passive.unhealthy.tcp_failures = 1;
        }))
        .expect("on");
        assert!(passive.active.is_none() && passive.passive.is_some());
    }

    #[test]
    fn a_configured_host_goes_before_the_host_header_of_the_upstream() {
        let host = |written: &Upstream| headers(written).0.expect("a host");
        let mut written = upstream(|it| it.host_header = Some("a.test".to_owned()));
        assert_eq!(host(&written), "a.test");
        let own = vec!["b.test".to_owned()];
        written
            .healthchecks
            .active
            .headers
            .insert("Host".to_owned(), own);
        assert_eq!(host(&written), "b.test");
    }
}
