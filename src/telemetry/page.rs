//! The metrics page under construction: text format 0.0.4, one block for each family.

use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use tracing::warn;

use super::{
    exports::Namespace,
    families::{Family, Kind},
    histogram::{Bounds, Reading},
};

/// The text so far. Families are encoded as they end, so that only one is in memory twice.
#[derive(Debug)]
pub(super) struct Page {
    namespace: Namespace,
    text: String,
}

/// One family under construction; a family without samples leaves no trace.
#[derive(Debug)]
pub(super) struct Block<'p> {
    page: &'p mut Page,
    family: &'static Family,
    metrics: Vec<Metric>,
}

impl Page {
    /// An empty page with the names of `namespace` and room for `expected_bytes`.
    pub(super) fn new(namespace: Namespace, expected_bytes: usize) -> Self {
        Self {
            namespace,
            text: String::with_capacity(expected_bytes),
        }
    }

    /// Whose names the page carries.
    pub(super) fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Starts a family.
    pub(super) fn family(&mut self, family: &'static Family) -> Block<'_> {
        Block {
            page: self,
            family,
            metrics: Vec::new(),
        }
    }

    /// Adds families that were gathered from a registry.
    pub(super) fn foreign(&mut self, families: &[MetricFamily]) {
        for family in families {
            self.encode(family);
        }
    }

    /// The finished page.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn encode(&mut self, family: &MetricFamily) {
        if let Err(error) =
            TextEncoder::new().encode_utf8(std::slice::from_ref(family), &mut self.text)
        {
            // A scrape never fails as a whole because of one family.
            warn!(family = family.name(), %error, "metric family cannot be exported");
        }
    }
}

impl Block<'_> {
    /// Adds a sample of a counter. `values` are those of the family's labels, in order.
    pub(super) fn count(&mut self, values: &[&str], count: u64) -> &mut Self {
        self.counter(values, number(count))
    }

    /// Adds a sample of a counter that need not be whole.
    pub(super) fn counter(&mut self, values: &[&str], value: f64) -> &mut Self {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.add(values, |metric| metric.set_counter(counter))
    }

    /// Adds a sample of a gauge.
    pub(super) fn gauge(&mut self, values: &[&str], value: f64) -> &mut Self {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.add(values, |metric| metric.set_gauge(gauge))
    }

    /// Adds a histogram, in milliseconds.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        values: &[&str],
        bounds: &Bounds<N>,
        reading: &Reading<N>,
    ) -> &mut Self {
        let buckets = bounds
            .iter()
            .zip(&reading.cumulative)
            .map(|(bound, cumulative)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(f64::from(*bound));
                bucket.set_cumulative_count(*cumulative);
                bucket
            })
            .collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(reading.count);
        histogram.set_sample_sum(number(reading.sum_micros) / 1000.0);
        self.add(values, |metric| metric.set_histogram(histogram))
    }

    /// Writes the family.
    pub(super) fn end(&mut self) {
        let metrics = std::mem::take(&mut self.metrics);
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.page.namespace.name_of(self.family).to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(match self.family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        self.page.encode(&family);
    }

    fn add(&mut self, values: &[&str], set: impl FnOnce(&mut Metric)) -> &mut Self {
        debug_assert_eq!(
            values.len(),
            self.family.labels.len(),
            "{}",
            self.family.name
        );
        let labels = self
            .family
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name((*name).to_owned());
                label.set_value((*value).to_owned());
                label
            })
            .collect();
        let mut metric = Metric::from_label(labels);
        set(&mut metric);
        self.metrics.push(metric);
        self
    }
}

impl Namespace {
    fn name_of(self, family: &Family) -> &'static str {
        match self {
            Self::Tollgate => family.name,
            Self::Kong => family.kong.unwrap_or(family.name),
        }
    }
}

/// A count as Prometheus wants it.
#[expect(
    clippy::cast_precision_loss,
    reason = "the format knows nothing but floats; they are exact up to 2^53"
)]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// A signed number as Prometheus wants it.
#[expect(
    clippy::cast_precision_loss,
    reason = "the format knows nothing but floats; they are exact up to 2^53"
)]
pub(super) fn signed_number(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::families;

    #[test]
    fn label_values_cannot_break_out() {
        let mut page = Page::new(Namespace::Tollgate, 0);
        page.family(&families::RETRIES)
            .count(&["a\"} 1\nb\\"], 1)
            .end();
        let text = page.into_text();
        assert_eq!(
            text.lines().nth(2),
            Some(r#"tollgate_upstream_retries_total{service="a\"} 1\nb\\"} 1"#)
        );
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_histogram_has_its_buckets_their_total_and_its_sum() {
        let mut page = Page::new(Namespace::Kong, 0);
        page.family(&families::GATEWAY_LATENCY)
            .histogram(
                &["s", "r", "default"],
                &[1, 5],
                &Reading {
                    cumulative: [2, 4],
                    count: 5,
                    sum_micros: 12_500,
                },
            )
            .end();
        let text = page.into_text();
        let samples: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            samples,
            [
                "# TYPE kong_kong_latency_ms histogram",
                r#"kong_kong_latency_ms_bucket{service="s",route="r",workspace="default",le="1"} 2"#,
                r#"kong_kong_latency_ms_bucket{service="s",route="r",workspace="default",le="5"} 4"#,
                r#"kong_kong_latency_ms_bucket{service="s",route="r",workspace="default",le="+Inf"} 5"#,
                r#"kong_kong_latency_ms_sum{service="s",route="r",workspace="default"} 12.5"#,
                r#"kong_kong_latency_ms_count{service="s",route="r",workspace="default"} 5"#,
            ]
        );
    }

    #[test]
    fn a_family_without_samples_leaves_no_trace() {
        let mut page = Page::new(Namespace::Tollgate, 0);
        page.family(&families::RETRIES).end();
        assert_eq!(page.into_text(), "");
    }
}
