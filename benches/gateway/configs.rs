//! The configurations that are measured.

use std::{fmt::Write as _, net::SocketAddr};

/// Routes in the large table.
pub(crate) const ROUTES: usize = 10_000;
/// Consumers with a key.
pub(crate) const CONSUMERS: usize = 100;

fn settings(listen: SocketAddr) -> String {
    format!(
        "_format_version: \"3.0\"\n\
         gateway: {{listen: \"{listen}\", admin: off, threads: 1, access_log: off}}\n"
    )
}

/// One route and no plugin.
pub(crate) fn plain(listen: SocketAddr, origin: SocketAddr) -> String {
    format!(
        "{}services:\n  - {{name: origin, url: \"http://{origin}\", routes: [{{name: all, paths: [/]}}]}}\n",
        settings(listen)
    )
}

/// The same behind TLS.
pub(crate) fn secure(listen: SocketAddr, origin: SocketAddr) -> String {
    plain(listen, origin).replace(
        &format!("listen: \"{listen}\""),
        &format!("listen: \"{listen} ssl\", ssl_cert: bench.crt, ssl_cert_key: bench.key"),
    )
}

/// The same with an access log, whose lines nobody reads.
pub(crate) fn logged(listen: SocketAddr, origin: SocketAddr) -> String {
    plain(listen, origin).replace("access_log: off", "access_log: /dev/null")
}

/// One route with what most gateways do: a key, a limit, a request id, metrics.
pub(crate) fn chain(listen: SocketAddr, origin: SocketAddr) -> String {
    let mut yaml = plain(listen, origin);
    yaml.push_str(
        "plugins:\n\
         \x20 - {name: key-auth}\n\
         \x20 - {name: rate-limiting, config: {hour: 1000000000, policy: local, limit_by: consumer}}\n\
         \x20 - {name: correlation-id, config: {header_name: X-Correlation-Id, generator: uuid, echo_downstream: true}}\n\
         \x20 - {name: prometheus, config: {status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, per_consumer: true}}\n\
         consumers:\n",
    );
    for number in 0..CONSUMERS {
        let _ = writeln!(
            yaml,
            "  - {{username: consumer-{number}, keyauth_credentials: [{{key: {}}}]}}",
            key(number)
        );
    }
    yaml
}

/// The key of a consumer.
pub(crate) fn key(number: usize) -> String {
    format!("key-of-consumer-{number:04}")
}

/// Many routes of one service.
pub(crate) fn routes(listen: SocketAddr, origin: SocketAddr) -> String {
    let mut yaml = format!(
        "{}services:\n  - name: origin\n    url: \"http://{origin}\"\n    routes:\n",
        settings(listen)
    );
    for number in 0..ROUTES {
        let _ = writeln!(
            yaml,
            "      - {{name: route-{number}, paths: [{}], strip_path: false}}",
            path(number)
        );
    }
    yaml
}

/// The path of a route in the large table.
pub(crate) fn path(number: usize) -> String {
    format!("/api/v{}/resource-{number}", number % 10)
}
