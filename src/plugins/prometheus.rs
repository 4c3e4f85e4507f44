//! Counts the requests of its scope for Prometheus.
//!
//! `GET /metrics` on the admin listener always shows how the gateway itself is. What it shows of requests is what
//! this plugin turns on. Everything is off by default.
//!
//! ```yaml
//! _format_version: "3.0"
//! services:
//!   - name: orders
//!     url: http://orders.internal
//!     routes:
//!       - name: orders
//!         paths: [/orders]
//! plugins:
//!   - name: prometheus
//!     config:
//!       status_code_metrics: true
//!       latency_metrics: true
//!       bandwidth_metrics: true
//!       upstream_health_metrics: true
//! ```
//!
//! # Names and limits
//!
//! With `namespace: kong` dashboards made for Kong keep working. The families, labels and limits are in
//! [Metrics](../metrics.md).
//!
//! Only a global instance counts requests without a route, such as 404s.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    entity::consumer::Consumer,
    plugin::{ConfigError, Env, Plugin, Record, Source},
    telemetry::{exports::Namespace, requests::AnsweredBy},
};

/// The `config:` block of `prometheus`.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one switch of the operator's"
)]
pub struct Config {
    /// Counts requests by status: `http_requests_total`.
    pub status_code_metrics: bool,
    /// Measures how long requests take as a whole, in the gateway and upstream: three histograms.
    pub latency_metrics: bool,
    /// Counts the bytes that cross client connections: `bandwidth_bytes`.
    pub bandwidth_metrics: bool,
    /// Shows the health of every upstream's targets: `upstream_target_health`. One instance
    /// suffices, whatever its scope.
    pub upstream_health_metrics: bool,
    /// Splits status codes and bytes by consumer: the label `consumer`, empty otherwise.
    pub per_consumer: bool,
    /// Accepted for Kong's sake; there are no such metrics.
    pub ai_metrics: bool,
    /// Accepted for Kong's sake; there are no such metrics.
    pub wasm_metrics: bool,
    /// The prefix of the metric names and the value of the label `source`: `tollgate` if nothing is
    /// written, or `kong`. It is one for the whole process, so no two instances may differ.
    pub namespace: Option<Namespace>,
}

/// The plugin `prometheus`.
#[derive(Debug)]
pub struct Prometheus {
    config: Config,
}

impl Plugin for Prometheus {
    const NAME: &'static str = "prometheus";
    const REHEARSABLE: bool = true;
    type Config = Config;
    type Memo = ();
    type Metrics = ();

    fn configure(config: Config, env: &Env<'_, Self>) -> Result<Self, ConfigError> {
        env.state
            .telemetry
            .exports()
            .request(config.namespace, config.upstream_health_metrics)
            .map_err(|other| {
                ConfigError::at(
                    "namespace",
                    format!(
                        "another instance says `{}`, and there is one namespace for the whole \
                         process: write the same in every instance",
                        other.as_str()
                    ),
                )
            })?;
        Ok(Self { config })
    }

    fn log(&self, _memo: &mut (), record: &Record<'_>) {
        let consumer = record
            .consumer
            .filter(|_| self.config.per_consumer)
            .map(label);
        let consumer = consumer.as_deref();
        if self.config.status_code_metrics {
            let by = match record.source {
                Source::Upstream => AnsweredBy::Service,
                Source::Gateway => AnsweredBy::Gateway,
            };
            record.series.answered(record.status, by, consumer);
        }
        if self.config.latency_metrics {
            let latencies = record.latencies;
            record
                .series
                .took(latencies.total, latencies.gateway, latencies.upstream);
        }
        if self.config.bandwidth_metrics {
            record
                .series
                .transferred(record.received_bytes, record.sent_bytes, consumer);
        }
    }
}

/// [`Consumer::label`] without a copy of it for each request.
fn label(consumer: &Consumer) -> Cow<'_, str> {
    match consumer.username.as_ref().or(consumer.custom_id.as_ref()) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(consumer.label()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        entity::reason::Reason,
        plugin::testing::{Visit, World},
        telemetry::health::UpstreamsHealth,
    };

    const EVERYTHING: &str =
        "{status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true}";

    /// The metrics page after one request of `bob` that was answered with `status`.
    fn page_after(yaml: &str, status: u16, reason: Option<Reason>) -> String {
        let world = World::new();
        let telemetry = &world.state.telemetry;
        telemetry.exports().begin();
        let plugin: Prometheus = world.configured(yaml);
        telemetry.exports().adopt();
        let series = telemetry.route("orders", "list");
        let mut visit = Visit::<Prometheus>::get(&world, "/orders");
        visit.identity.consumer = world.consumers.find("bob");
        visit.log(&plugin, status, reason, &series);
        telemetry.render(&UpstreamsHealth::default())
    }

    #[test]
    fn nothing_is_counted_unless_turned_on() {
        let page = page_after("{}", 200, None);
        for name in ["http_requests", "latency_ms", "bandwidth_bytes"] {
            assert!(!page.contains(name), "{name} in\n{page}");
        }
    }

    #[test]
    fn what_is_turned_on_is_counted() {
        let page = page_after(EVERYTHING, 200, None);
        for sample in [
            r#"http_requests_total{service="orders",route="list",code="200",source="service",workspace="default",consumer=""} 1"#,
            r#"request_latency_ms_count{service="orders",route="list",workspace="default"} 1"#,
            r#"gateway_latency_ms_count{service="orders",route="list",workspace="default"} 1"#,
            r#"bandwidth_bytes{service="orders",route="list",direction="ingress",workspace="default",consumer=""} 100"#,
            r#"bandwidth_bytes{service="orders",route="list",direction="egress",workspace="default",consumer=""} 200"#,
        ] {
            assert!(page.contains(sample), "{sample} not in\n{page}");
        }
        assert!(!page.contains("tollgate_upstream_latency_ms"), "{page}");
    }

    #[test]
    fn a_reply_of_the_gateway_has_the_gateway_as_its_source() {
        let page = page_after(EVERYTHING, 401, Some(Reason::Unauthorized));
        assert!(page.contains(r#"code="401",source="tollgate""#), "{page}");
    }

    #[test]
    fn consumers_are_a_label_only_when_asked_for() {
        let yaml = "{status_code_metrics: true, bandwidth_metrics: true, per_consumer: true}";
        let page = page_after(yaml, 200, None);
        assert!(page.contains(r#"source="service",workspace="default",consumer="bob"} 1"#));
        assert!(page.contains(r#"direction="egress",workspace="default",consumer="bob"} 200"#));
    }

    #[test]
    fn the_namespace_kong_gives_kongs_names() {
        let page = page_after(
            "{status_code_metrics: true, latency_metrics: true, namespace: kong}",
            404,
            Some(Reason::NoRoute),
        );
        assert!(page.contains("kong_http_requests_total{"), "{page}");
        assert!(page.contains(r#"source="kong""#), "{page}");
        assert!(page.contains("kong_kong_latency_ms_count{"), "{page}");
    }

    #[test]
    fn two_instances_may_not_disagree_on_the_namespace() {
        let world = World::new();
        world.state.telemetry.exports().begin();
        let _first: Prometheus = world.configured("namespace: kong");
        let _silent: Prometheus = world.configured("{}");
        let error = world
            .configure::<Prometheus>("namespace: tollgate")
            .expect_err("they disagree");
        assert_eq!(error.field, "namespace");
        assert!(error.message.contains("`kong`"), "{error}");
    }

    #[test]
    fn kongs_switches_without_a_meaning_here_are_accepted() {
        let _plugin: Prometheus = World::new().configured("{ai_metrics: true, wasm_metrics: true}");
    }

    #[test]
    fn unknown_fields_and_namespaces_are_refused() {
        let world = World::new();
        for yaml in ["{status_codes: true}", "namespace: apisix"] {
            assert!(world.configure::<Prometheus>(yaml).is_err(), "{yaml}");
        }
    }
}
