//! Where the places behind services come from when the files do not say: names that are resolved, and Consul.

mod consul;
mod consul_tls;
mod dns;
mod routes;

use std::net::Ipv4Addr;

use crate::harness::{Gateway, Origin, Reply, free_port, wait_until};

/// Origins on different loopback addresses with one port, which reply with the address that they have.
struct Farm {
    port: u16,
    origins: Vec<Origin>,
}

impl Farm {
    fn start(count: u8) -> Self {
        let port = free_port();
        let origin = |last: u8| {
            let ip = Ipv4Addr::new(127, 0, 0, last);
            Origin::start_on(ip, port, move |_| Reply::ok(ip.to_string()))
        };
        let origins = (1..=count).map(origin).collect();
        Self { port, origins }
    }
}

/// Waits until each of the next requests goes to one of `expected`, and all of them get some.
#[track_caller]
fn wait_for_answers(gateway: &Gateway, path: &str, expected: &[&str]) {
    wait_until(&format!("answers of {expected:?} only"), || {
        let mut seen: Vec<String> = (0..2 * expected.len().max(2))
            .map(|_| {
                let response = gateway.get(path);
                match response.status {
                    200 => response.text(),
                    status => status.to_string(),
                }
            })
            .collect();
        seen.sort();
        seen.dedup();
        seen == expected
    });
}
