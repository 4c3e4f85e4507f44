//! The series of requests: status codes, latencies and bytes by service, route and consumer.
//!
//! A route gets its series when a snapshot is compiled, so that no request looks one up by labels,
//! and the series take memory only from their first use. Which of them a request feeds is decided
//! by the caller.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tracing::warn;

use super::{
    count::Count,
    families::{self, Family},
    growing_map::GrowingMap,
    held::Held,
    histogram::{Bounds, Histogram},
    page::Page,
};

/// The most label sets at a time; a histogram counts as one.
const SERIES_MAX: usize = 100_000;
/// The most that label sets with a consumer may take: the last tenth is for those without, so that
/// a crowd of consumers cannot hide a route.
const CONSUMER_SERIES_MAX: usize = SERIES_MAX / 10 * 9;
/// The consumer of what has no series of its own.
const OTHER: &str = "__other__";
/// Kong's name for the only workspace there is.
const WORKSPACE: &str = "default";

/// Kong's buckets, in milliseconds.
const GATEWAY_BOUNDS: Bounds<17> = [
    1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000,
];
const LONG_BOUNDS: Bounds<13> = [
    25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000,
];

/// Who decided the status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnsweredBy {
    Service,
    Gateway,
}

/// All request series of one (service label, route label).
#[derive(Debug)]
pub struct RouteSeries {
    labels: Arc<Labels>,
    shared: Arc<Shared>,
    responses: GrowingMap<ResponseKey, Count>,
    bandwidth: GrowingMap<Option<Box<str>>, Bandwidth>,
    latencies: OnceLock<Box<Latencies>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Labels {
    service: Box<str>,
    route: Box<str>,
}

#[derive(Debug, PartialEq)]
struct ResponseKey {
    /// Not an empty string for none: to compare two of those costs more than all the rest, because
    /// they point nowhere and the C library reads there all the same.
    consumer: Option<Box<str>>,
    code: u16,
    by: AnsweredBy,
}

#[derive(Debug, Default)]
struct Bandwidth {
    ingress: Count,
    egress: Count,
}

#[derive(Debug, Default)]
struct Latencies {
    gateway: Histogram<17>,
    upstream: Histogram<13>,
    total: Histogram<13>,
}

/// How many label sets each of these exports.
const BANDWIDTH_SERIES: usize = 2;
const LATENCY_SERIES: usize = 3;

impl RouteSeries {
    /// Counts a response by its status. `consumer` is the consumer's label, if it is to be one.
    pub fn answered(&self, code: u16, by: AnsweredBy, consumer: Option<&str>) {
        if let Some(count) =
            self.own_or_folded(consumer, |consumer| self.response(code, by, consumer))
        {
            count.inc();
        }
    }

    /// Counts bytes that came from and went to the client.
    pub fn transferred(&self, received: u64, sent: u64, consumer: Option<&str>) {
        if let Some(bandwidth) = self.own_or_folded(consumer, |consumer| self.bandwidth(consumer)) {
            bandwidth.ingress.add(received);
            bandwidth.egress.add(sent);
        }
    }

    /// Counts how long a request took: as a whole, in the gateway, and upstream if it got there.
    pub fn took(&self, total: Duration, gateway: Duration, upstream: Option<Duration>) {
        let Some(latencies) = self.latencies() else {
            return self.shared.dropped.inc();
        };
        latencies.total.observe(&LONG_BOUNDS, total);
        latencies.gateway.observe(&GATEWAY_BOUNDS, gateway);
        if let Some(upstream) = upstream {
            latencies.upstream.observe(&LONG_BOUNDS, upstream);
        }
    }

    /// What `find` finds for this consumer, else for all those without series of their own.
    fn own_or_folded<'s, V>(
        &'s self,
        consumer: Option<&str>,
        find: impl Fn(Option<&str>) -> Option<&'s V>,
    ) -> Option<&'s V> {
        if let Some(own) = find(consumer) {
            return Some(own);
        }
        let folded = consumer.and_then(|_| find(Some(OTHER)));
        let outcome = if folded.is_some() {
            &self.shared.folded
        } else {
            &self.shared.dropped
        };
        outcome.inc();
        folded
    }

    /// The count of a label set; `None` if there are too many.
    fn response(&self, code: u16, by: AnsweredBy, consumer: Option<&str>) -> Option<&Count> {
        let hash = self.shared.hasher.hash_one((code, by, consumer));
        let is = |key: &ResponseKey| {
            key.code == code && key.by == by && key.consumer.as_deref() == consumer
        };
        self.responses.find(hash, is).or_else(|| {
            let key = ResponseKey {
                consumer: consumer.map(Box::from),
                code,
                by,
            };
            self.create(&self.responses, hash, consumer, key, 1)
        })
    }

    /// The bytes of a label set; `None` if there are too many.
    fn bandwidth(&self, consumer: Option<&str>) -> Option<&Bandwidth> {
        let hash = self.shared.hasher.hash_one(consumer);
        self.bandwidth
            .find(hash, |key| key.as_deref() == consumer)
            .or_else(|| {
                let key = consumer.map(Box::from);
                self.create(&self.bandwidth, hash, consumer, key, BANDWIDTH_SERIES)
            })
    }

    fn create<'s, K: PartialEq, V: Default>(
        &self,
        map: &'s GrowingMap<K, V>,
        hash: u64,
        consumer: Option<&str>,
        key: K,
        series: usize,
    ) -> Option<&'s V> {
        let for_consumer = consumer.is_some_and(|consumer| consumer != OTHER);
        if !self.shared.reserve(series, for_consumer) {
            return None;
        }
        let (value, inserted) = map.insert(hash, key, V::default());
        if !inserted {
            self.shared.release(series);
        }
        Some(value)
    }

    fn latencies(&self) -> Option<&Latencies> {
        if let Some(latencies) = self.latencies.get() {
            return Some(latencies);
        }
        if !self.shared.reserve(LATENCY_SERIES, false) {
            return None;
        }
        if self.latencies.set(Box::default()).is_err() {
            self.shared.release(LATENCY_SERIES);
        }
        self.latencies.get().map(Box::as_ref)
    }
}

impl Drop for RouteSeries {
    fn drop(&mut self) {
        let latencies = if self.latencies.get().is_some() {
            LATENCY_SERIES
        } else {
            0
        };
        self.shared
            .release(latencies + self.responses.len() + self.bandwidth.len() * BANDWIDTH_SERIES);
    }
}

/// What the series of all routes have in common.
#[derive(Debug)]
struct Shared {
    hasher: ahash::RandomState,
    series: AtomicUsize,
    /// Observations that went to `consumer="__other__"`, and those that went nowhere.
    folded: Count,
    dropped: Count,
    warned: OnceLock<()>,
}

impl Shared {
    /// Takes room for `series` more label sets, if there is.
    fn reserve(&self, series: usize, for_consumer: bool) -> bool {
        let max = if for_consumer {
            CONSUMER_SERIES_MAX
        } else {
            SERIES_MAX
        };
        let reserved = self
            .series
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                let then = now + series;
                (then <= max).then_some(then)
            })
            .is_ok();
        if !reserved && self.warned.set(()).is_ok() {
            warn!(
                series_max = SERIES_MAX,
                "too many metric series, new ones are folded into consumer=\"__other__\""
            );
        }
        reserved
    }

    fn release(&self, series: usize) {
        self.series.fetch_sub(series, Ordering::Relaxed);
    }
}

/// The request series of all routes that are in use.
#[derive(Debug)]
pub(super) struct Requests {
    routes: Held<Labels, RouteSeries>,
    shared: Arc<Shared>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            routes: Held::default(),
            shared: Arc::new(Shared {
                hasher: ahash::RandomState::new(),
                series: AtomicUsize::new(0),
                folded: Count::default(),
                dropped: Count::default(),
                warned: OnceLock::new(),
            }),
        }
    }
}

impl Requests {
    /// The series of a service and a route; the same as long as somebody holds them.
    pub(super) fn route(&self, service: &str, route: &str) -> Arc<RouteSeries> {
        let labels = Arc::new(Labels {
            service: service.into(),
            route: route.into(),
        });
        self.routes.get_or_create_with(
            &labels,
            || Arc::clone(&labels),
            |labels| RouteSeries {
                labels: Arc::clone(labels),
                shared: Arc::clone(&self.shared),
                responses: GrowingMap::default(),
                bandwidth: GrowingMap::default(),
                latencies: OnceLock::new(),
            },
        )
    }

    /// Writes the families, routes in the order of their labels.
    pub(super) fn write(&self, page: &mut Page) {
        let routes = self.routes.sorted();
        let routes: Vec<_> = routes.iter().map(|(_, route)| route.as_ref()).collect();
        write_responses(page, &routes);
        write_latency(
            page,
            &routes,
            &families::GATEWAY_LATENCY,
            &GATEWAY_BOUNDS,
            |latencies| &latencies.gateway,
        );
        write_latency(
            page,
            &routes,
            &families::UPSTREAM_LATENCY,
            &LONG_BOUNDS,
            |latencies| &latencies.upstream,
        );
        write_latency(
            page,
            &routes,
            &families::REQUEST_LATENCY,
            &LONG_BOUNDS,
            |latencies| &latencies.total,
        );
        write_bandwidth(page, &routes);
        page.family(&families::OVER_LIMIT)
            .count(&["folded"], self.shared.folded.get())
            .count(&["dropped"], self.shared.dropped.get())
            .end();
    }
}

fn write_responses(page: &mut Page, routes: &[&RouteSeries]) {
    let gateway = page.namespace().as_str();
    let mut family = page.family(&families::HTTP_REQUESTS);
    for route in routes {
        let Labels {
            service,
            route: name,
        } = route.labels.as_ref();
        route.responses.for_each(|key, count| {
            let source = match key.by {
                AnsweredBy::Service => "service",
                AnsweredBy::Gateway => gateway,
            };
            let code = key.code.to_string();
            let consumer = key.consumer.as_deref().unwrap_or_default();
            family.count(
                &[service, name, &code, source, WORKSPACE, consumer],
                count.get(),
            );
        });
    }
    family.end();
}

fn write_latency<const N: usize>(
    page: &mut Page,
    routes: &[&RouteSeries],
    family: &'static Family,
    bounds: &Bounds<N>,
    of: impl Fn(&Latencies) -> &Histogram<N>,
) {
    let mut family = page.family(family);
    for route in routes {
        if let Some(latencies) = route.latencies.get()
            && let Some(reading) = of(latencies).read()
        {
            let Labels { service, route } = route.labels.as_ref();
            family.histogram(&[service, route, WORKSPACE], bounds, &reading);
        }
    }
    family.end();
}

fn write_bandwidth(page: &mut Page, routes: &[&RouteSeries]) {
    let mut family = page.family(&families::BANDWIDTH);
    for route in routes {
        let Labels {
            service,
            route: name,
        } = route.labels.as_ref();
        route.bandwidth.for_each(|consumer, bandwidth| {
            let consumer = consumer.as_deref().unwrap_or_default();
            for (direction, count) in [
                ("ingress", &bandwidth.ingress),
                ("egress", &bandwidth.egress),
            ] {
                family.count(
                    &[service, name, direction, WORKSPACE, consumer],
                    count.get(),
                );
            }
        });
    }
    family.end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exports::Namespace;

    fn page(requests: &Requests) -> String {
        let mut page = Page::new(Namespace::Tollgate, 0);
        requests.write(&mut page);
        page.into_text()
    }

    fn has(page: &str, line: &str) {
        assert!(
            page.lines().any(|found| found == line),
            "{line} not in\n{page}"
        );
    }

    const OK: (u16, AnsweredBy) = (200, AnsweredBy::Service);

    #[test]
    fn responses_are_counted_by_status_source_and_consumer() {
        let requests = Requests::default();
        let series = requests.route("orders", "list");
        series.answered(OK.0, OK.1, None);
        series.answered(OK.0, OK.1, Some("bob"));
        series.answered(OK.0, OK.1, Some("bob"));
        series.answered(401, AnsweredBy::Gateway, None);
        let page = page(&requests);
        for line in [
            r#"tollgate_http_requests_total{service="orders",route="list",code="200",source="service",workspace="default",consumer=""} 1"#,
            r#"tollgate_http_requests_total{service="orders",route="list",code="200",source="service",workspace="default",consumer="bob"} 2"#,
            r#"tollgate_http_requests_total{service="orders",route="list",code="401",source="tollgate",workspace="default",consumer=""} 1"#,
        ] {
            has(&page, line);
        }
    }

    #[test]
    fn latencies_and_bytes_are_counted() {
        let requests = Requests::default();
        let series = requests.route("orders", "list");
        series.took(
            Duration::from_millis(90),
            Duration::from_micros(1_500),
            Some(Duration::from_millis(60)),
        );
        series.transferred(100, 2_000, None);
        let page = page(&requests);
        for line in [
            r#"tollgate_gateway_latency_ms_bucket{service="orders",route="list",workspace="default",le="1"} 0"#,
            r#"tollgate_gateway_latency_ms_bucket{service="orders",route="list",workspace="default",le="2"} 1"#,
            r#"tollgate_gateway_latency_ms_sum{service="orders",route="list",workspace="default"} 1.5"#,
            r#"tollgate_upstream_latency_ms_bucket{service="orders",route="list",workspace="default",le="80"} 1"#,
            r#"tollgate_request_latency_ms_bucket{service="orders",route="list",workspace="default",le="60000"} 1"#,
            r#"tollgate_request_latency_ms_count{service="orders",route="list",workspace="default"} 1"#,
            r#"tollgate_bandwidth_bytes{service="orders",route="list",direction="ingress",workspace="default",consumer=""} 100"#,
            r#"tollgate_bandwidth_bytes{service="orders",route="list",direction="egress",workspace="default",consumer=""} 2000"#,
        ] {
            has(&page, line);
        }
    }

    #[test]
    fn a_route_that_never_reached_an_upstream_has_no_upstream_latency() {
        let requests = Requests::default();
        let series = requests.route("orders", "list");
        series.took(Duration::from_millis(1), Duration::from_millis(1), None);
        assert!(!page(&requests).contains("upstream_latency"));
    }

    #[test]
    fn counts_survive_a_reload_and_go_with_their_route() {
        let requests = Requests::default();
        let old = requests.route("orders", "list");
        old.answered(OK.0, OK.1, None);
        let new = requests.route("orders", "list");
        drop(old);
        new.answered(OK.0, OK.1, None);
        assert!(page(&requests).contains("consumer=\"\"} 2"));
        drop(new);
        assert!(!page(&requests).contains("http_requests"));
        assert_eq!(requests.shared.series.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_crowd_of_consumers_is_folded_and_hides_no_route() {
        let requests = Requests::default();
        let series = requests.route("orders", "list");
        let crowd = u64::try_from(CONSUMER_SERIES_MAX).expect("small") + 10;
        for number in 0..crowd {
            series.answered(OK.0, OK.1, Some(&number.to_string()));
        }
        series.transferred(1, 2, Some("late"));
        let late = requests.route("users", "get");
        late.answered(OK.0, OK.1, None);
        late.took(Duration::ZERO, Duration::ZERO, None);
        let page = page(&requests);
        for line in [
            r#"tollgate_http_requests_total{service="orders",route="list",code="200",source="service",workspace="default",consumer="__other__"} 10"#,
            r#"tollgate_http_requests_total{service="users",route="get",code="200",source="service",workspace="default",consumer=""} 1"#,
            r#"tollgate_bandwidth_bytes{service="orders",route="list",direction="egress",workspace="default",consumer="__other__"} 2"#,
            r#"tollgate_metrics_over_limit_total{outcome="folded"} 11"#,
            r#"tollgate_metrics_over_limit_total{outcome="dropped"} 0"#,
        ] {
            has(&page, line);
        }
        let total: u64 = page
            .lines()
            .filter(|line| line.starts_with("tollgate_http_requests_total{service=\"orders\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(total, crowd, "every request is counted somewhere");
    }

    #[test]
    fn series_stay_under_the_limit_and_what_is_dropped_is_counted() {
        let requests = Requests::default();
        let routes: Vec<_> = (0..SERIES_MAX / 4)
            .map(|number| requests.route("orders", &number.to_string()))
            .collect();
        for route in &routes {
            route.took(Duration::ZERO, Duration::ZERO, None);
            route.transferred(1, 1, None);
        }
        let used = requests.shared.series.load(Ordering::Relaxed);
        assert!(used <= SERIES_MAX, "{used}");
        assert!(requests.shared.dropped.get() > 0);
    }

    #[test]
    fn threads_that_meet_at_a_first_use_lose_nothing() {
        let requests = Requests::default();
        let series = requests.route("orders", "list");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for code in 200..400 {
                        series.answered(code, AnsweredBy::Service, Some("bob"));
                        series.took(Duration::ZERO, Duration::ZERO, None);
                    }
                });
            }
        });
        series
            .responses
            .for_each(|key, count| assert_eq!(count.get(), 4, "of {}", key.code));
        assert_eq!(
            requests.shared.series.load(Ordering::Relaxed),
            200 + LATENCY_SERIES
        );
        assert!(page(&requests).contains(
            "request_latency_ms_count{service=\"orders\",route=\"list\",workspace=\"default\"} 800"
        ));
    }
}
