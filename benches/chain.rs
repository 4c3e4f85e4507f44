//! The plugins of a route through all phases of a request, without a connection: one plugin at a
//! time, and the chain that most gateways have.

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use divan::Bencher;
use futures_util::FutureExt;
use tollgate::{
    chain::Run,
    compile::Compiler,
    config,
    entity::message::{RequestHead, ResponseHead},
    plugin::{
        Client, Directions, Halt, Identity, Latencies, Matched, Notes, Record, Request,
        RequestBody, Response, Scheme, Source, Surroundings,
    },
    snapshot::Snapshot,
    state::State,
};

const KEY_AUTH: &str = "{name: key-auth}";
const RATE_LIMITING: &str =
    "{name: rate-limiting, config: {hour: 1000000000, policy: local, limit_by: consumer}}";
const CORRELATION_ID: &str =
    "{name: correlation-id, config: {generator: uuid, echo_downstream: true}}";
const PROMETHEUS: &str = "{name: prometheus, config: {status_code_metrics: true, \
     latency_metrics: true, bandwidth_metrics: true, per_consumer: true}}";

fn main() {
    divan::main();
}

fn snapshot(plugins: &[&str]) -> Snapshot {
    let plugins = plugins.join(", ");
    let text = format!(
        "_format_version: \"3.0\"\n\
         services: [{{name: api, url: \"http://127.0.0.1:9001\", routes: [{{name: all, paths: [/]}}]}}]\n\
         consumers: [{{username: alice, keyauth_credentials: [{{key: secret}}]}}]\n\
         plugins: [{plugins}]\n"
    );
    let mut loaded = config::load_text(text, "bench.yaml", &|_| None);
    Compiler::new(Arc::new(State::new()))
        .expect("a fresh state")
        .compile(&loaded.config, &mut loaded.diagnostics)
        .expect("the document is good")
}

#[derive(Debug)]
struct NoBody;

#[async_trait]
impl RequestBody for NoBody {
    async fn read(&mut self) -> Result<Bytes, Halt> {
        Ok(Bytes::new())
    }

    fn replace(&mut self, _bytes: Bytes) {}
}

/// A request with a key through access, response and log.
fn exchange(snapshot: &Snapshot) -> RequestHead {
    let (head, ()) = http::Request::builder()
        .uri("/orders/7?expand=lines")
        .header("host", "api.test")
        .header("user-agent", "bench")
        .header("accept", "*/*")
        .header("apikey", "secret")
        .body(())
        .expect("a request")
        .into_parts();
    let mut head = RequestHead::from(head);
    let route = &snapshot.routes[0];
    let chain = snapshot.chain(route.chains[0]);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    let about = Surroundings {
        request_id: "0123456789abcdef0123456789abcdef",
        client: Client {
            ip: peer.ip(),
            peer,
        },
        scheme: Scheme::Http,
        host: "api.test",
        port: 8000,
        route: &route.facts,
        service: snapshot.service(route, None).map(|service| &*service.facts),
        services: &snapshot.service_facts,
        consumers: &snapshot.consumers,
        secret_arguments: &snapshot.secret_arguments,
        matched: Matched::default(),
    };
    let (mut identity, mut notes) = (Identity::default(), Notes::default());
    let (mut body, mut directions) = (NoBody, Directions::default());
    let mut run = Run::default();
    let mut request = Request::new(
        &mut head,
        about,
        &mut identity,
        &mut notes,
        &mut body,
        &mut directions,
    );
    chain
        .access(&snapshot.instances, &mut run, &mut request)
        .now_or_never()
        .expect("nothing waits")
        .expect("nobody answers");
    let mut response = ResponseHead::default();
    run.response(
        &snapshot.instances,
        &mut Response::new(&mut response, Source::Upstream, None),
    );
    let consumer = identity.consumer;
    run.log(
        &snapshot.instances,
        &Record {
            status: 200,
            source: Source::Upstream,
            reason: None,
            latencies: Latencies::default(),
            received_bytes: 100,
            sent_bytes: 200,
            consumer: consumer.and_then(|consumer| snapshot.consumers.get(consumer)),
            series: &route.series,
        },
    );
    head
}

fn bench(bencher: Bencher<'_, '_>, plugins: &[&str]) {
    let snapshot = snapshot(plugins);
    bencher.bench(|| black_box(exchange(&snapshot)));
}

#[divan::bench]
fn no_plugin(bencher: Bencher<'_, '_>) {
    bench(bencher, &[]);
}

#[divan::bench]
fn key_auth(bencher: Bencher<'_, '_>) {
    bench(bencher, &[KEY_AUTH]);
}

#[divan::bench]
fn rate_limiting(bencher: Bencher<'_, '_>) {
    bench(bencher, &[RATE_LIMITING]);
}

#[divan::bench]
fn correlation_id(bencher: Bencher<'_, '_>) {
    bench(bencher, &[CORRELATION_ID]);
}

#[divan::bench]
fn prometheus(bencher: Bencher<'_, '_>) {
    bench(bencher, &[PROMETHEUS]);
}

#[divan::bench]
fn gateway_chain(bencher: Bencher<'_, '_>) {
    bench(
        bencher,
        &[KEY_AUTH, RATE_LIMITING, CORRELATION_ID, PROMETHEUS],
    );
}
