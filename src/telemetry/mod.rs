//! What the process tells about itself: metrics of its own, those of the plugins, and the log.
//!
//! Labels come from the configuration, never from a client's bytes. Nothing here reads a clock or
//! knows a snapshot; whoever knows more hands it in.

pub mod admissions;
pub mod circuits;
pub mod connections;
mod count;
pub mod discovery;
pub mod exports;
pub mod families;
mod growing_map;
pub mod handshakes;
pub mod health;
mod held;
mod histogram;
pub mod log_file;
pub mod logging;
mod losses;
pub mod mirrors;
pub mod outbox;
mod page;
pub mod process;
pub mod requests;
pub mod streams;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use uuid::Uuid;

use crate::entity::reason::Reason;
use admissions::Admissions;
use circuits::{CircuitLabels, CircuitSeries, Circuits};
use connections::Connections;
pub use count::Count;
use exports::Exports;
use handshakes::Handshakes;
use health::UpstreamsHealth;
use held::Held;
pub use losses::Losses;
use mirrors::MirrorCounts;
use page::Page;
use requests::{Requests, RouteSeries};
use streams::{StreamSeries, Streams};

/// Kong's name for the only kind of traffic there is.
const SUBSYSTEM: &str = "http";

/// All metrics of the process. Built once; every snapshot shares it, so that counts survive reloads.
#[derive(Debug)]
pub struct Telemetry {
    node_id: String,
    plugins: prometheus::Registry,
    exports: Exports,
    connections: Arc<Connections>,
    handshakes: Handshakes,
    admissions: Arc<Admissions>,
    mirrors: Arc<MirrorCounts>,
    requests: Requests,
    retries: Held<str, Retries>,
    circuits: Circuits,
    streams: Streams,
    replies: [Count; Reason::ALL.len()],
    requests_received: Count,
    panics: Count,
    reloads: Reloads,
    log_lines_dropped: OnceLock<Arc<Count>>,
    losses: Held<str, Losses>,
    /// The size of the last page, so that the next one is not copied as it grows.
    page_bytes: AtomicUsize,
}

/// The repeated tries of a service.
#[derive(Debug, Default)]
pub struct Retries {
    pub made: Count,
    /// Those that its budget did not allow.
    pub refused: Count,
}

/// How the configuration came and went.
#[derive(Debug, Default)]
struct Reloads {
    succeeded: Count,
    failed: Count,
    /// 1 if the newest configuration that was offered is the one that is live.
    last_successful: AtomicI64,
    last_unix_seconds: AtomicI64,
}

impl Telemetry {
    /// The metrics of a process with a random node id.
    pub fn new() -> Self {
        Self::of_node(Uuid::new_v4())
    }

    /// The metrics of the process that calls itself `node_id`.
    pub fn of_node(node_id: Uuid) -> Self {
        Self {
            node_id: node_id.to_string(),
            plugins: prometheus::Registry::new(),
            exports: Exports::default(),
            connections: Arc::default(),
            handshakes: Handshakes::default(),
            admissions: Arc::default(),
            mirrors: Arc::default(),
            requests: Requests::default(),
            retries: Held::default(),
            circuits: Circuits::default(),
            streams: Streams::default(),
            replies: Default::default(),
            requests_received: Count::default(),
            panics: Count::default(),
            reloads: Reloads::default(),
            log_lines_dropped: OnceLock::new(),
            losses: Held::default(),
            page_bytes: AtomicUsize::new(0),
        }
    }

    /// Where plugins register families of their own. Never the global registry of the crate.
    pub fn registry(&self) -> &prometheus::Registry {
        &self.plugins
    }

    /// What the configuration asks of the metrics page as a whole.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// The client connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// TLS handshakes with clients, and the certificates for them.
    pub fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// The requests that are under way where their number is limited.
    pub fn admissions(&self) -> &Arc<Admissions> {
        &self.admissions
    }

    /// The copies of requests that are sent elsewhere.
    pub fn mirrors(&self) -> &Arc<MirrorCounts> {
        &self.mirrors
    }

    /// The request series of a service and a route, by their labels; both empty for requests
    /// without a route. The same `Arc` as long as somebody holds it, so that counts survive a
    /// reload that keeps the route; gone from the page when nobody does.
    pub fn route(&self, service: &str, route: &str) -> Arc<RouteSeries> {
        self.requests.route(service, route)
    }

    /// The retries of a service, by its label. Held like [`Self::route`].
    pub fn retries(&self, service: &str) -> Arc<Retries> {
        self.retries.get_or_create(service, Retries::default)
    }

    /// The series of a circuit. Held like [`Self::route`].
    pub fn circuit(&self, labels: &CircuitLabels) -> Arc<CircuitSeries> {
        self.circuits.of(labels)
    }

    /// The stream series of a service and a route, by their labels; both empty for connections
    /// without a route. Held like [`Self::route`].
    pub fn streams(&self, service: &str, route: &str) -> Arc<StreamSeries> {
        self.streams.of(service, route)
    }

    /// The entries that a log of requests lost, by the name of the log. Held like [`Self::route`].
    pub fn losses(&self, log: &str) -> Arc<Losses> {
        self.losses.get_or_create(log, Losses::default)
    }

    /// The responses that the gateway made for `reason`.
    pub fn replies(&self, reason: Reason) -> &Count {
        &self.replies[reason.index()]
    }

    /// Counts a request whose head arrived.
    pub fn request_received(&self) {
        self.requests_received.inc();
    }

    /// The requests that arrived so far.
    pub fn requests_received(&self) -> u64 {
        self.requests_received.get()
    }

    /// Counts a panic that was caught.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// The first configuration went live at `unix_seconds`: no reload, but the state is good.
    pub fn configuration_loaded(&self, unix_seconds: i64) {
        self.reloads.last_successful.store(1, Ordering::Relaxed);
        self.reloads
            .last_unix_seconds
            .store(unix_seconds, Ordering::Relaxed);
    }

    /// A new configuration replaced the old one at `unix_seconds`.
    pub fn reload_succeeded(&self, unix_seconds: i64) {
        self.reloads.succeeded.inc();
        self.configuration_loaded(unix_seconds);
    }

    /// A new configuration was refused and the old one serves on.
    pub fn reload_failed(&self) {
        self.reloads.failed.inc();
        self.reloads.last_successful.store(0, Ordering::Relaxed);
    }

    /// Shows the log's count of lost lines on the page. Only the first call has an effect.
    pub fn watch_log(&self, lines_dropped: Arc<Count>) {
        // A process has one log; a second one can only be a test's.
        let _ = self.log_lines_dropped.set(lines_dropped);
    }

    /// The metrics page in Prometheus' text format 0.0.4. Reads `/proc`, so it may take a moment:
    /// not for an async worker thread.
    ///
    /// The health of `upstreams` is looked at only if some plugin instance asked for it.
    pub fn render(&self, upstreams: &UpstreamsHealth) -> String {
        let live = self.exports.live();
        let expected_bytes = self.page_bytes.load(Ordering::Relaxed);
        // A little more than last time, because numbers grow.
        let mut page = Page::new(live.namespace, expected_bytes + expected_bytes / 32);
        page.foreign(&self.plugins.gather());
        self.write_process(&mut page);
        self.connections
            .write(&mut page, &self.node_id, self.requests_received());
        self.handshakes.write(&mut page);
        self.admissions.write(&mut page);
        self.mirrors.write(&mut page);
        self.write_configuration(&mut page);
        self.requests.write(&mut page);
        let all = self.retries.sorted();
        let mut retries = page.family(&families::RETRIES);
        for (service, count) in &all {
            retries.count(&[service], count.made.get());
        }
        retries.end();
        let mut refused = page.family(&families::RETRIES_REFUSED);
        for (service, count) in &all {
            refused.count(&[service], count.refused.get());
        }
        refused.end();
        self.circuits.write(&mut page, &upstreams.circuits);
        self.streams.write(&mut page);
        if live.target_health {
            health::write(&mut page, upstreams);
        }
        discovery::write(&mut page, &upstreams.discovery);
        let text = page.into_text();
        self.page_bytes.store(text.len(), Ordering::Relaxed);
        text
    }

    fn write_process(&self, page: &mut Page) {
        process::write(page);
        page.family(&families::NODE_INFO)
            .gauge(&[&self.node_id, env!("CARGO_PKG_VERSION")], 1.0)
            .end();
        page.family(&families::REQUESTS)
            .count(&[&self.node_id, SUBSYSTEM], self.requests_received())
            .end();
        page.family(&families::PANICS)
            .count(&[], self.panics.get())
            .end();
        let mut replies = page.family(&families::REPLIES);
        for (reason, count) in Reason::ALL.iter().zip(&self.replies) {
            replies.count(&[reason.code()], count.get());
        }
        replies.end();
        page.family(&families::LOG_LINES_DROPPED)
            .count(
                &[],
                self.log_lines_dropped.get().map_or(0, |count| count.get()),
            )
            .end();
        let mut losses = page.family(&families::LOG_ENTRIES_DROPPED);
        for (log, lost) in self.losses.sorted() {
            losses
                .count(&[&log, "queue_full"], lost.queue_full.get())
                .count(&[&log, "unwritable"], lost.unwritable.get());
        }
        losses.end();
    }

    fn write_configuration(&self, page: &mut Page) {
        page.family(&families::DATASTORE_REACHABLE)
            .gauge(&[], 1.0)
            .end();
        page.family(&families::RELOADS)
            .count(&["success"], self.reloads.succeeded.get())
            .count(&["failure"], self.reloads.failed.get())
            .end();
        for (family, value) in [
            (
                &families::LAST_RELOAD_SUCCESSFUL,
                &self.reloads.last_successful,
            ),
            (
                &families::LAST_RELOAD_TIMESTAMP,
                &self.reloads.last_unix_seconds,
            ),
        ] {
            page.family(family)
                .gauge(&[], page::signed_number(value.load(Ordering::Relaxed)))
                .end();
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{
        circuits::CircuitPhases,
        discovery::{CatalogHealth, DiscoveryHealth, NameHealth},
        exports::Namespace,
        health::{TargetHealth, TargetState},
        *,
    };

    fn page(telemetry: &Telemetry) -> String {
        telemetry.render(&UpstreamsHealth::default())
    }

    fn upstreams() -> UpstreamsHealth {
        UpstreamsHealth {
            available: vec![("users".into(), true)],
            targets: vec![TargetHealth {
                upstream: "users".into(),
                target: "users.internal:80".into(),
                address: "10.0.0.1:80".into(),
                state: TargetState::Healthy,
            }],
            discovery: DiscoveryHealth {
                names: vec![NameHealth {
                    name: "users.internal".into(),
                    is_resolved: true,
                    last_success: Some(1),
                    lookups: vec![("found", 1)],
                }],
                upstreams: vec![("users".into(), true)],
                catalog: Some(CatalogHealth {
                    is_up: true,
                    routed: 1,
                    skipped: 0,
                }),
            },
            circuits: CircuitPhases::of([(orders(), 2)]),
        }
    }

    fn orders() -> CircuitLabels {
        CircuitLabels {
            service: "orders".into(),
            route: String::new(),
            target: String::new(),
        }
    }

    /// The lines of a family that carry values.
    fn samples<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
        page.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .collect()
    }

    #[test]
    fn counters_are_there_with_zero_from_the_start() {
        let page = page(&Telemetry::new());
        for line in [
            "tollgate_config_reloads_total{result=\"success\"} 0",
            "tollgate_config_reloads_total{result=\"failure\"} 0",
            "tollgate_config_last_reload_successful 0",
            "tollgate_replies_total{reason=\"no_route\"} 0",
            "tollgate_panics_total 0",
            "tollgate_datastore_reachable 1",
            "tollgate_log_lines_dropped_total 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert_eq!(
            samples(&page, "tollgate_replies_total").len(),
            Reason::ALL.len()
        );
    }

    #[test]
    fn what_happens_is_counted() {
        let telemetry = Telemetry::new();
        telemetry.replies(Reason::NoRoute).inc();
        telemetry.replies(Reason::NoRoute).inc();
        telemetry.panicked();
        telemetry.request_received();
        telemetry.configuration_loaded(1_700_000_000);
        telemetry.reload_succeeded(1_800_000_000);
        telemetry.reload_failed();
        let page = page(&telemetry);
        for line in [
            "tollgate_replies_total{reason=\"no_route\"} 2",
            "tollgate_panics_total 1",
            "tollgate_config_reloads_total{result=\"success\"} 1",
            "tollgate_config_reloads_total{result=\"failure\"} 1",
            "tollgate_config_last_reload_successful 0",
            "tollgate_config_last_reload_timestamp_seconds 1800000000",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert_eq!(telemetry.requests_received(), 1);
    }

    #[test]
    fn the_retries_of_a_removed_service_are_gone() {
        let telemetry = Telemetry::new();
        let retries = telemetry.retries("orders");
        retries.made.inc();
        telemetry.retries("orders").made.inc();
        assert_eq!(
            samples(&page(&telemetry), "tollgate_upstream_retries_total"),
            ["tollgate_upstream_retries_total{service=\"orders\"} 2"]
        );
        drop(retries);
        assert!(samples(&page(&telemetry), "tollgate_upstream_retries_total").is_empty());
    }

    #[test]
    fn lost_entries_are_counted_by_log_and_reason() {
        let telemetry = Telemetry::new();
        let losses = telemetry.losses("some-log");
        losses.queue_full.inc();
        assert_eq!(
            samples(&page(&telemetry), "tollgate_log_entries_dropped_total"),
            [
                "tollgate_log_entries_dropped_total{plugin=\"some-log\",reason=\"queue_full\"} 1",
                "tollgate_log_entries_dropped_total{plugin=\"some-log\",reason=\"unwritable\"} 0",
            ]
        );
    }

    #[test]
    fn families_of_plugins_are_on_the_page() {
        let telemetry = Telemetry::new();
        let counter = prometheus::IntCounter::new("tollgate_example_total", "An example.")
            .expect("the name is valid");
        telemetry
            .registry()
            .register(Box::new(counter.clone()))
            .expect("the name is new");
        counter.inc();
        assert_eq!(
            samples(&page(&telemetry), "tollgate_example_total"),
            ["tollgate_example_total 1"]
        );
    }

    #[test]
    fn target_health_is_there_only_when_asked_for() {
        let telemetry = Telemetry::new();
        assert!(
            !telemetry
                .render(&upstreams())
                .contains("upstream_target_health")
        );
        telemetry.exports().begin();
        telemetry
            .exports()
            .request(None, true)
            .expect("nobody else asked");
        telemetry.exports().adopt();
        let page = telemetry.render(&upstreams());
        assert_eq!(samples(&page, "tollgate_upstream_target_health").len(), 4);
    }

    #[test]
    fn the_namespace_kong_gives_kongs_names_and_no_others() {
        let telemetry = Telemetry::new();
        telemetry.exports().begin();
        telemetry
            .exports()
            .request(Some(Namespace::Kong), true)
            .expect("nobody else asked");
        telemetry.exports().adopt();
        let series = telemetry.route("orders", "list");
        series.answered(200, requests::AnsweredBy::Gateway, None);
        let page = telemetry.render(&upstreams());
        for family in families::CATALOG {
            let Some(kong) = family.kong else { continue };
            assert!(
                samples(&page, family.name).is_empty(),
                "{} in\n{page}",
                family.name
            );
            if family.kind == families::Kind::Histogram || kong == "kong_bandwidth_bytes" {
                continue;
            }
            assert!(!samples(&page, kong).is_empty(), "{kong} not in\n{page}");
        }
        assert!(page.contains("source=\"kong\""), "{page}");
    }

    #[test]
    fn each_family_is_one_block_with_help_and_type() {
        let telemetry = Telemetry::new();
        telemetry.exports().begin();
        telemetry
            .exports()
            .request(None, true)
            .expect("nobody else asked");
        telemetry.exports().adopt();
        let (orders, users) = (
            telemetry.route("orders", "list"),
            telemetry.route("users", "get"),
        );
        for series in [&orders, &users] {
            series.answered(200, requests::AnsweredBy::Service, Some("bob"));
            series.took(
                std::time::Duration::from_millis(30),
                std::time::Duration::from_millis(2),
                Some(std::time::Duration::from_millis(28)),
            );
            series.transferred(100, 200, None);
        }
        let _retries = telemetry.retries("orders");
        let _circuit = telemetry.circuit(&CircuitLabels {
            service: "orders".into(),
            route: String::new(),
            target: String::new(),
        });
        let _losses = telemetry.losses("some-log");
        telemetry
            .handshakes()
            .adopt(vec![handshakes::CertificateExpiry {
                certificate: "ssl_cert".into(),
                algorithm: "rsa",
                not_after: 1_800_000_000,
            }]);
        let mqtt = telemetry.streams("mqtt", "mqtt");
        mqtt.ended(streams::Ending::Done, 10, 20);
        let page = telemetry.render(&upstreams());
        let mut seen = HashSet::new();
        let mut current = String::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                current = rest.split(' ').next().expect("a name").to_owned();
                assert!(seen.insert(current.clone()), "{current} has two blocks");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest.split(' ').next(), Some(current.as_str()));
            } else {
                let name = line.split(['{', ' ']).next().expect("a name");
                assert!(
                    name == current
                        || ["_bucket", "_sum", "_count"]
                            .iter()
                            .any(|ending| name.strip_suffix(ending) == Some(&current)),
                    "{name} in the block of {current}"
                );
            }
        }
        for family in families::CATALOG {
            let over_limit = family.name == families::OVER_LIMIT.name;
            assert!(
                seen.contains(family.name) || over_limit,
                "{} is missing",
                family.name
            );
        }
    }
}
