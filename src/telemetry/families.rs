//! The table of our own metric families: names, kinds, labels and what they mean. It is also the
//! source of the reference page. Plugins register families of their own elsewhere.

/// What a family counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric family.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    pub name: &'static str,
    /// Its name under `namespace: kong`, if Kong has such a family.
    pub kong: Option<&'static str>,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// The setting of the plugin `prometheus` that shows it; absent: it is always there.
    pub switch: Option<&'static str>,
}

/// Defines the families and lists them all.
macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal $(= $kong:literal)? [$($label:literal),*] $help:literal $(if $switch:literal)?;)+) => {
        $(pub(super) const $constant: Family = Family {
            name: $name,
            kong: families!(@optional $($kong)?),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
            switch: families!(@optional $($switch)?),
        };)+

        /// Every family of our own.
        pub const CATALOG: &[Family] = &[$($constant),+];
    };
    (@optional) => { None };
    (@optional $text:literal) => { Some($text) };
}

families! {
    HTTP_REQUESTS: Counter "tollgate_http_requests_total" = "kong_http_requests_total"
        ["service", "route", "code", "source", "workspace", "consumer"]
        "Requests by the status that was sent and by who decided it: `source` is `service` for the upstream, `tollgate` for the gateway. A client that went away before an answer counts as 499."
        if "status_code_metrics";
    GATEWAY_LATENCY: Histogram "tollgate_gateway_latency_ms" = "kong_kong_latency_ms"
        ["service", "route", "workspace"]
        "The time of a request before it went upstream, connecting and failed tries included, or until it was answered, in milliseconds."
        if "latency_metrics";
    UPSTREAM_LATENCY: Histogram "tollgate_upstream_latency_ms" = "kong_upstream_latency_ms"
        ["service", "route", "workspace"]
        "The time from sending a request upstream to the response head, in milliseconds."
        if "latency_metrics";
    REQUEST_LATENCY: Histogram "tollgate_request_latency_ms" = "kong_request_latency_ms"
        ["service", "route", "workspace"]
        "The time from the first byte of a request to the last byte of its response, in milliseconds."
        if "latency_metrics";
    BANDWIDTH: Counter "tollgate_bandwidth_bytes" = "kong_bandwidth_bytes"
        ["service", "route", "direction", "workspace", "consumer"]
        "Bytes that crossed client connections, heads and bodies; `direction` is `ingress` or `egress`."
        if "bandwidth_metrics";
    TARGET_HEALTH: Gauge "tollgate_upstream_target_health" = "kong_upstream_target_health"
        ["upstream", "target", "address", "state", "subsystem"]
        "The state of each target address: one of the four states is 1."
        if "upstream_health_metrics";
    UPSTREAM_AVAILABLE: Gauge "tollgate_upstream_available"
        ["upstream"]
        "1 if a request to the upstream finds an address, 0 if it gets 503."
        if "upstream_health_metrics";
    DNS_NAME_RESOLVED: Gauge "tollgate_dns_name_resolved"
        ["name"]
        "1 if the last look-up of a host name gave all its addresses, 0 if not; the last known ones are used then.";
    DNS_LOOKUPS: Counter "tollgate_dns_lookups_total"
        ["name", "result"]
        "Look-ups of a host name: `found`, `not_found` (there are no records) or `failed` (no server gave an answer that can be used, at least about some of the hosts of an SRV record).";
    DNS_LAST_SUCCESS: Gauge "tollgate_dns_last_success_timestamp_seconds"
        ["name"]
        "When a look-up of a host name last gave all its addresses, in Unix seconds.";
    DISCOVERY_UP: Gauge "tollgate_discovery_up"
        ["upstream"]
        "1 if the last question for the instances of an upstream was answered, 0 if not; the last known ones are used then.";
    DISCOVERY_CATALOG_UP: Gauge "tollgate_discovery_catalog_up"
        []
        "1 if the last question for the services that ask for routes was answered, 0 if not; the last known ones stay then.";
    DISCOVERY_SERVICES: Gauge "tollgate_discovery_services"
        ["state"]
        "Services of the registry that ask for routes: `routed`, or `skipped` because of what `/status/discovery` tells.";
    CONNECTIONS: Gauge "tollgate_connections" = "kong_nginx_connections_total"
        ["node_id", "subsystem", "state"]
        "Client connections by state: `active`, `reading`, `writing`, `waiting`; `accepted`, `handled` and `total` (requests) count up.";
    CONNECTIONS_TURNED_AWAY: Counter "tollgate_connections_turned_away_total"
        ["reason"]
        "Client connections that were closed before they could carry a request: `proxy_protocol` for one without the PROXY header that its listener requires.";
    REQUESTS: Counter "tollgate_requests_total" = "kong_nginx_requests_total"
        ["node_id", "subsystem"]
        "Requests whose head arrived and was accepted.";
    TLS_HANDSHAKES: Counter "tollgate_tls_handshakes_total"
        ["kind"]
        "TLS handshakes with clients: `full`, or `resumed` with a session of before.";
    TLS_HANDSHAKE_FAILURES: Counter "tollgate_tls_handshake_failures_total"
        ["reason"]
        "TLS handshakes with clients that failed: `timeout`, `closed` (the client went away), `cleartext` (HTTP came to a TLS port), `not_tls`, `protocol`, `nothing_in_common` (protocol version, cipher or ALPN), `client_certificate`, `refused_by_client` (it sent an alert), `no_certificate`, `internal`.";
    CERTIFICATE_EXPIRY: Gauge "tollgate_certificate_expiry_timestamp_seconds"
        ["certificate", "algorithm"]
        "When a certificate for clients expires, in Unix seconds: `certificate` is the id of the entity, or `ssl_cert` for the default one.";
    NODE_INFO: Gauge "tollgate_node_info" = "kong_node_info"
        ["node_id", "version"]
        "Always 1; the labels tell the node and its version.";
    DATASTORE_REACHABLE: Gauge "tollgate_datastore_reachable" = "kong_datastore_reachable"
        []
        "Always 1: the configuration comes from files.";
    RELOADS: Counter "tollgate_config_reloads_total"
        ["result"]
        "Changes of the configuration files that were applied or refused: `success` or `failure`.";
    LAST_RELOAD_SUCCESSFUL: Gauge "tollgate_config_last_reload_successful"
        []
        "1 if the newest configuration is live, 0 if it was refused and an older one serves on.";
    LAST_RELOAD_TIMESTAMP: Gauge "tollgate_config_last_reload_timestamp_seconds"
        []
        "When the live configuration went live, in Unix seconds.";
    RETRIES: Counter "tollgate_upstream_retries_total"
        ["service"]
        "Attempts to reach an upstream after the first.";
    RETRIES_REFUSED: Counter "tollgate_upstream_retries_refused_total"
        ["service"]
        "Attempts that were not made because the budget of the service's retries was spent.";
    CIRCUIT_STATE: Gauge "tollgate_circuit_state"
        ["service", "route", "target"]
        "What a circuit is: 0 closed, 1 half-open, 2 open; of several with the same labels the worst. `route` and `target` are empty unless the circuit is for that route or address only.";
    CIRCUIT_TRANSITIONS: Counter "tollgate_circuit_transitions_total"
        ["service", "route", "target", "to"]
        "How often a circuit became `closed`, `half-open` or `open`.";
    CONCURRENT_REQUESTS: Gauge "tollgate_concurrency_requests"
        ["state"]
        "Requests where their number is limited: `running` for those that hold a place, `waiting` for those in a queue.";
    CONCURRENCY_REFUSALS: Counter "tollgate_concurrency_refused_total"
        ["reason"]
        "Requests that got no place: `queue_full`, `queue_timeout`, or `client_closed` for a client that left while it waited.";
    MIRROR_REQUESTS: Counter "tollgate_mirror_requests_total"
        ["outcome"]
        "Copies of requests by what became of them: `answered`, `failed`, `timeout`; not sent were those with `too_many_in_flight`, `body_too_large`, `body_incomplete`, and with `not_sent` those whose request did not go upstream.";
    STREAM_SESSIONS: Counter "tollgate_stream_sessions_total"
        ["service", "route", "ending"]
        "Connections of stream listeners by how they ended.";
    STREAM_BYTES: Counter "tollgate_stream_bytes_total"
        ["service", "route", "direction"]
        "Bytes that crossed client connections of streams; `direction` is `ingress` or `egress`.";
    STREAM_OPEN: Gauge "tollgate_stream_sessions_open"
        ["service", "route"]
        "Streams that go on now.";
    REPLIES: Counter "tollgate_replies_total"
        ["reason"]
        "Responses that the gateway made itself.";
    PANICS: Counter "tollgate_panics_total"
        []
        "Panics that were caught. Each is a bug.";
    OVER_LIMIT: Counter "tollgate_metrics_over_limit_total"
        ["outcome"]
        "Observations without a series of their own because there are too many: `folded` into `consumer=\"__other__\"`, or `dropped`.";
    LOG_LINES_DROPPED: Counter "tollgate_log_lines_dropped_total"
        []
        "Lines of the gateway's log that were lost because nobody read stderr fast enough.";
    LOG_ENTRIES_DROPPED: Counter "tollgate_log_entries_dropped_total"
        ["plugin", "reason"]
        "Entries about requests that were lost: too many waited, or they could not be written.";
    OPEN_FDS: Gauge "process_open_fds"
        []
        "Open file descriptors.";
    MAX_FDS: Gauge "process_max_fds"
        []
        "The most file descriptors that may be open.";
    RESIDENT_MEMORY: Gauge "process_resident_memory_bytes"
        []
        "Resident memory, in bytes.";
    CPU_SECONDS: Counter "process_cpu_seconds_total"
        []
        "User and system CPU time, in seconds.";
    START_TIME: Gauge "process_start_time_seconds"
        []
        "When the process started, in Unix seconds.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_but_for_those_taken_over_from_kong() {
        for family in CATALOG {
            assert!(!family.help.is_empty());
            assert!(family.name.starts_with("tollgate_") || family.name.starts_with("process_"));
            if family.kind == Kind::Counter && family.name != "tollgate_bandwidth_bytes" {
                assert!(family.name.ends_with("_total"), "{}", family.name);
            }
            if family.kind != Kind::Counter {
                assert!(!family.name.ends_with("_total"), "{}", family.name);
            }
        }
    }

    #[test]
    fn no_two_families_share_a_name() {
        let mut names: Vec<_> = CATALOG
            .iter()
            .flat_map(|family| [Some(family.name), family.kong])
            .flatten()
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
