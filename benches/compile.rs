//! From text to a snapshot: what a reload does before the swap, at 1, 1,000 and 10,000 routes.

use std::{fmt::Write as _, hint::black_box, sync::Arc};

use divan::Bencher;
use tollgate::{
    compile::Compiler,
    config::{self, Loaded},
    snapshot::Snapshot,
    state::State,
};

const SIZES: [usize; 3] = [1, 1_000, 10_000];

fn main() {
    divan::main();
}

/// One service for ten routes, every route with a plugin of its own, ten consumers.
fn document(routes: usize) -> String {
    let mut yaml = String::from("_format_version: \"3.0\"\nservices:\n");
    for service in 0..routes.div_ceil(10) {
        let _ = writeln!(
            yaml,
            "  - name: service-{service}\n    url: http://127.0.0.1:9001/base\n    routes:"
        );
        for route in service * 10..routes.min(service * 10 + 10) {
            let _ = writeln!(
                yaml,
                "      - name: route-{route}\n        paths: [/api/{route}]\n        methods: [GET, POST]\n        plugins:\n          - {{name: rate-limiting, config: {{minute: 100, policy: local}}}}"
            );
        }
    }
    yaml.push_str("plugins:\n  - name: key-auth\nconsumers:\n");
    for consumer in 0..10 {
        let _ = writeln!(
            yaml,
            "  - {{username: consumer-{consumer}, keyauth_credentials: [{{key: key-{consumer}}}]}}"
        );
    }
    yaml
}

fn load(text: String) -> Loaded {
    config::load_text(text, "bench.yaml", &|_| None)
}

fn compile(compiler: &Compiler, loaded: &mut Loaded) -> Snapshot {
    compiler
        .compile(&loaded.config, &mut loaded.diagnostics)
        .expect("the document is good")
}

#[divan::bench(args = SIZES)]
fn load_text(bencher: Bencher<'_, '_>, routes: usize) {
    let text = document(routes);
    bencher
        .with_inputs(|| text.clone())
        .bench_values(|text| black_box(load(text)));
}

#[divan::bench(args = SIZES)]
fn compile_snapshot(bencher: Bencher<'_, '_>, routes: usize) {
    let compiler = Compiler::new(Arc::new(State::new())).expect("a fresh state");
    let mut loaded = load(document(routes));
    // As in a reload, the old snapshot lives while the new one is compiled.
    let live = compile(&compiler, &mut loaded);
    bencher.bench_local(|| black_box(compile(&compiler, &mut loaded)));
    drop(live);
}
