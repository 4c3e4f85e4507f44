//! Everything a test needs to put the gateway between a scripted client and scripted origins.
//! Blocking sockets and threads throughout; waiting always means a condition with a deadline.

mod certificates;
mod cli;
mod client;
mod consul;
mod dns;
mod echo;
mod gateway;
mod grpc;
mod http1;
pub(crate) mod http2;
mod metrics;
mod origin;
mod ports;
mod reply;
#[cfg(test)]
mod tests;
mod tls;
mod tls_origin;
mod wait;
mod websocket;

pub(crate) use certificates::{Algorithm, Issued, quoted};
pub(crate) use cli::{Outcome, check, tollgate};
pub(crate) use client::{Client, Request, Response};
pub(crate) use consul::{Consul, ConsulFault, Instance};
pub(crate) use dns::{DnsReply, DnsServer};
pub(crate) use echo::EchoOrigin;
pub(crate) use gateway::{Blueprint, Gateway, dedent};
pub(crate) use grpc::{GrpcOrigin, Says};
pub(crate) use origin::{Origin, Received};
pub(crate) use ports::free_port;
pub(crate) use reply::{Gate, Reply};
pub(crate) use tls::{Tls, common_name};
pub(crate) use tls_origin::TlsOrigin;
pub(crate) use wait::{Stopwatch, wait_for, wait_until};
pub(crate) use websocket::text;

/// A catch-all route to one origin: the smallest gateway that proxies.
pub(crate) fn one_service(origin: &Origin) -> String {
    dedent(&format!(
        "
        services:
        - name: orders
          url: {origin}
          routes:
          - name: orders
            paths: [/]
        "
    ))
}

/// `one_service` with more of the document after it, such as a `plugins:` list.
pub(crate) fn one_service_and(origin: &Origin, rest: &str) -> String {
    format!("{}\n{}", one_service(origin), dedent(rest))
}

/// An upstream `pool` over these origins, in this order, behind a catch-all route without retries.
pub(crate) fn pool(origins: &[(&Origin, u32)]) -> String {
    let mut text = dedent(
        "
        services:
        - name: orders
          host: pool
          retries: 0
          routes:
          - name: orders
            paths: [/]
        upstreams:
        - name: pool
          targets:
        ",
    );
    for (origin, weight) in origins {
        text.push_str(&format!(
            "\n  - target: {}\n    weight: {weight}",
            origin.authority()
        ));
    }
    text.push('\n');
    text
}
