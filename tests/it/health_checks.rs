//! Health checks of upstreams: what is noticed, what follows for requests, and what shows it.

mod active;
mod damping;
mod grpc;
mod kept;
mod passive;
mod shown;
mod survival;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::{Gateway, Origin, Reply, dedent, wait_until};

/// What an origin does instead of answering with a status.
const RESETS: u16 = 0;
const IS_SILENT: u16 = 1;

/// An origin whose answers can be changed while it runs; it begins with 200.
struct Backend {
    origin: Origin,
    answer: Arc<AtomicU16>,
}

impl Backend {
    fn start(name: &'static str) -> Self {
        let answer = Arc::new(AtomicU16::new(200));
        let now = Arc::clone(&answer);
        let origin = Origin::start(move |_| match now.load(Ordering::SeqCst) {
            RESETS => Reply::reset(),
            IS_SILENT => Reply::never(),
            status => Reply::status(status).body(name),
        });
        Self { origin, answer }
    }

    fn answers(&self, status: u16) {
        self.answer.store(status, Ordering::SeqCst);
    }

    fn authority(&self) -> String {
        self.origin.authority()
    }

    /// Requests for this path so far.
    fn asked_for(&self, path: &str) -> usize {
        let requests = self.origin.requests();
        requests
            .iter()
            .filter(|request| request.target == path)
            .count()
    }

    fn is_asked_for(&self, path: &str) {
        let before = self.asked_for(path);
        wait_until(&format!("one more request for {path}"), || {
            self.asked_for(path) > before
        });
    }
}

/// Active checks that are quick to judge: `/ready` every 50 ms, out after three, back after two.
const QUICK: &str = "{active: {http_path: /ready, timeout: 0.3, \
    healthy: {interval: 0.05, successes: 2}, \
    unhealthy: {interval: 0.05, http_failures: 3, tcp_failures: 3, timeouts: 3}}}";

/// An upstream `pool` over these targets with these `healthchecks`, behind a catch-all route.
fn pool(targets: &[(String, u32)], retries: u32, healthchecks: &str) -> String {
    let mut text = dedent(&format!(
        "
        plugins:
        - {{ name: prometheus, config: {{ upstream_health_metrics: true }} }}
        services:
        - name: orders
          host: pool
          retries: {retries}
          read_timeout: 300
          routes:
          - name: orders
            paths: [/]
        upstreams:
        - name: pool
          healthchecks: {healthchecks}
          targets:
        "
    ));
    for (target, weight) in targets {
        text.push_str(&format!("\n  - {{ target: '{target}', weight: {weight} }}"));
    }
    text
}

/// The same with equal weights over these backends.
fn watched(backends: &[&Backend], retries: u32, healthchecks: &str) -> String {
    let targets: Vec<_> = backends
        .iter()
        .map(|backend| (backend.authority(), 100))
        .collect();
    pool(&targets, retries, healthchecks)
}

/// Waits until the metric says that `target` is in `state`.
#[track_caller]
fn wait_for_state(gateway: &Gateway, target: &str, state: &str) {
    wait_until(&format!("{target} to be {state}"), || {
        is_in_state(gateway, target, state)
    });
}

fn is_in_state(gateway: &Gateway, target: &str, state: &str) -> bool {
    let series =
        format!("tollgate_upstream_target_health{{target=\"{target}\",state=\"{state}\"}}");
    gateway.metric(&series) > 0.5
}

/// How often each body came in `count` answers.
fn bodies(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut client = gateway.connect();
    let mut bodies: Vec<String> = (0..count)
        .map(|_| client.send(&crate::harness::Request::get("/")).text())
        .collect();
    bodies.sort();
    bodies.dedup();
    bodies
}
