//! Black-box tests: the real binary, real origins that we script, and what is seen on the wire.
//! They know the product by its files, sockets, signals and exit codes only; `generated.rs` alone
//! reads the catalogs of the library, to write the reference pages.

#![expect(
    clippy::format_push_string,
    reason = "documents are built line by line; tests do not count allocations"
)]

mod harness;

mod access_log;
mod admin;
mod balancing;
mod diagnostics;
mod diff;
mod discovery;
mod docker;
mod documents;
mod error_templates;
mod errors;
mod explain;
mod faulty_origins;
mod forwarding;
mod generated;
mod grpc;
mod handover;
mod health_checks;
mod hot_reload;
mod http2;
mod listeners;
mod malformed_requests;
mod manual;
mod monitoring;
mod pingora;
mod plugins;
mod pools;
mod probe;
mod proxy_protocol;
mod retries;
mod router_flavors;
mod routing;
mod run_without_a_file;
mod secrets;
mod shutdown;
mod slow_clients;
mod startup;
mod streams;
mod strict_parsing;
mod systemd;
mod test_files;
mod tidy;
mod tls;
mod upstream_tls;
mod websocket;
