//! The whole gateway beside bare Pingora.
//!
//! `make bench` measures processor time, throughput, latency and memory; the contenders take turns,
//! so that what disturbs the machine disturbs all of them, and ratios are taken within a turn.
//! `make bench-instructions` counts user instructions under callgrind, which repeats within a few
//! percent on any machine. `make profile` has the gateway serve what `training.rs` sends.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement takes the time and prints, and its numbers are small"
)]

mod configs;
mod contender;
mod load;
mod origin;
mod training;

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tokio::runtime::{Builder, Runtime};

use contender::{
    Contender, LOAD_CORE, bare_pingora, free_address, gateway, on_proxy_core, under_callgrind,
};
use load::{Load, Until};

/// How often all contenders are started: where a process comes to lie in memory makes a percent or two.
const STARTS: usize = 6;
/// How many turns each has after a start.
const ROUNDS: usize = 6;
/// How long a turn is: short, so that what is compared is close together in time.
const TURN: Duration = Duration::from_millis(500);
/// How long it warms up: until each of the many routes has been asked for once, at more than 33,000 requests a second.
const WARM_UP: Duration = Duration::from_millis(300);
/// Idle connections that memory is measured with.
const IDLE_CONNECTIONS: usize = 2_000;
/// The connections of a load.
const CONNECTIONS: usize = 64;
/// Requests that are not counted, and that are, when instructions are.
const INSTRUCTIONS_WARM_UP: usize = 500;
const INSTRUCTIONS_REQUESTS: usize = 2_000;

/// What is compared: a proxy under a load, and the row that it is compared with.
struct Row {
    name: &'static str,
    program: Program,
    load: Load,
    /// The row that the ratio is taken to.
    base: usize,
    /// What the ratio must not pass.
    limit: Option<f64>,
}

#[derive(Clone, Copy)]
enum Program {
    Bare,
    BareWithTls,
    Tollgate(fn(SocketAddr, SocketAddr) -> String),
}

fn main() {
    let mut arguments = env::args().skip(1);
    let mode = arguments.next();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if mode.as_deref() == Some("--train") {
        let folder = PathBuf::from(arguments.next().expect("--train FOLDER"));
        write_certificate(&folder);
        return runtime.block_on(training::train(&folder));
    }
    let on_load_core = {
        let mut cores = CpuSet::new();
        cores.set(LOAD_CORE).expect("a core");
        sched_setaffinity(Pid::from_raw(0), &cores)
    };
    on_load_core.expect("two cores: one for the proxies, one for the load");
    let bench = Bench {
        origin: runtime.block_on(origin::start()),
        runtime,
        folder: tempfile::tempdir().expect("a folder"),
    };
    write_certificate(bench.folder.path());
    if mode.as_deref() == Some("--instructions") {
        bench.count_instructions();
    } else {
        bench.measure();
    }
}

/// A certificate for listeners with TLS.
fn write_certificate(folder: &Path) {
    let (certificate, key) = tollgate::tls::self_signed().expect("a certificate");
    for (name, pem) in [("bench.crt", certificate), ("bench.key", key)] {
        fs::write(folder.join(name), pem).expect("a file");
    }
}

fn rows() -> Vec<Row> {
    let row = |name, program, requests: Vec<Vec<u8>>, base, limit| Row {
        name,
        program,
        load: Load {
            requests: Rc::from(requests),
            connections: CONNECTIONS,
            tls: false,
            takes_refusals: false,
        },
        base,
        limit,
    };
    let small = || vec![get("/", "")];
    let keyed = (0..configs::CONSUMERS)
        .map(|number| get("/", &format!("apikey: {}\r\n", configs::key(number))))
        .collect();
    let spread: Vec<_> = (0..configs::ROUTES)
        .map(|number| get(&configs::path(number), ""))
        .collect();
    let large = || vec![get("/large", "")];
    let post = || vec![post(64 * 1024)];
    let plain = Program::Tollgate(configs::plain);
    let secure = |mut row: Row| {
        row.load.tls = true;
        row
    };
    vec![
        row("bare Pingora, GET 100 B", Program::Bare, small(), 0, None),
        row("Tollgate, plain", plain, small(), 0, Some(0.95)),
        row(
            "Tollgate, access log",
            Program::Tollgate(configs::logged),
            small(),
            0,
            None,
        ),
        row(
            "Tollgate, gateway chain",
            Program::Tollgate(configs::chain),
            keyed,
            0,
            Some(1.00),
        ),
        row(
            "Tollgate, plain, 10,000 paths",
            plain,
            spread.clone(),
            0,
            None,
        ),
        row(
            "Tollgate, 10,000 routes",
            Program::Tollgate(configs::routes),
            spread,
            4,
            Some(1.03),
        ),
        row("bare Pingora, GET 1 MiB", Program::Bare, large(), 6, None),
        row("Tollgate, plain, GET 1 MiB", plain, large(), 6, Some(0.95)),
        row("bare Pingora, POST 64 KiB", Program::Bare, post(), 8, None),
        row("Tollgate, plain, POST 64 KiB", plain, post(), 8, Some(0.88)),
        secure(row(
            "bare Pingora, TLS",
            Program::BareWithTls,
            small(),
            10,
            None,
        )),
        secure(row(
            "Tollgate, TLS",
            Program::Tollgate(configs::secure),
            small(),
            10,
            Some(0.95),
        )),
    ]
}

fn get(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n{more}\r\n"
    )
    .into_bytes()
}

fn post(bytes: usize) -> Vec<u8> {
    let mut request = format!(
        "POST / HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nContent-Length: {bytes}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + bytes, b'x');
    request
}

struct Bench {
    origin: SocketAddr,
    runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Bench {
    /// The contender of `row`, started by the command that `launch` makes for its program.
    fn start(&self, row: &Row, launch: impl FnOnce(&Path) -> Command) -> Contender {
        let listen = free_address();
        match row.program {
            Program::Bare => {
                let mut command = launch(&bare_pingora());
                command.args([listen.to_string(), self.origin.to_string()]);
                Contender::start(command, listen)
            }
            Program::BareWithTls => {
                let mut command = launch(&bare_pingora());
                command.args([listen.to_string(), self.origin.to_string()]);
                command.args(["bench.crt", "bench.key"].map(|name| self.folder.path().join(name)));
                Contender::start(command, listen)
            }
            Program::Tollgate(config) => {
                let file = self.folder.path().join(format!("{}.yaml", listen.port()));
                fs::write(&file, config(listen, self.origin)).expect("a file");
                let mut command = launch(&gateway());
                command.arg("run").arg("--config").arg(file);
                Contender::start(command, listen)
            }
        }
    }

    fn measure(&self) {
        let rows = rows();
        let mut turns: Vec<Vec<Turn>> = rows.iter().map(|_| Vec::new()).collect();
        let mut at_rest = Vec::new();
        self.runtime.spawn(stay_awake());
        for _ in 0..STARTS {
            let contenders: Vec<Contender> = rows
                .iter()
                .map(|row| self.start(row, on_proxy_core))
                .collect();
            at_rest = contenders.iter().map(Contender::resident_bytes).collect();
            for round in 0..ROUNDS {
                let in_turn = rows.iter().zip(&contenders).zip(&mut turns);
                // There and back, so that nobody always comes behind the same other.
                let in_turn: Vec<_> = if round % 2 == 0 {
                    in_turn.collect()
                } else {
                    in_turn.rev().collect()
                };
                for ((row, contender), turns) in in_turn {
                    turns.push(self.turn(row, contender));
                }
            }
        }
        println!(
            "{:<30} {:>11} {:>22} {:>11} {:>9}",
            "", "CPU/request", "ratio (middle half)", "requests/s", "p99"
        );
        for (row, own) in rows.iter().zip(&turns) {
            let ratios: Vec<f64> = own
                .iter()
                .zip(&turns[row.base])
                .map(|(own, base)| own.cpu_us / base.cpu_us)
                .collect();
            let ratio = Spread::of(ratios);
            println!(
                "{:<30} {:>8.2} µs {:>5.3} ({:.3} to {:.3}) {:>11.0} {:>6.2} ms  {}",
                row.name,
                Spread::of(own.iter().map(|turn| turn.cpu_us).collect()).median,
                ratio.median,
                ratio.low,
                ratio.high,
                Spread::of(own.iter().map(|turn| turn.per_second).collect()).median,
                Spread::of(own.iter().map(|turn| turn.p99_ms).collect()).median,
                verdict(ratio.median, row.limit, rows[row.base].name)
            );
        }
        self.measure_memory(&rows, &at_rest);
    }

    fn turn(&self, row: &Row, contender: &Contender) -> Turn {
        self.runtime.block_on(async {
            load::send(contender.address, &row.load, Until::After(WARM_UP)).await;
            let before = contender.cpu();
            let seen = load::send(contender.address, &row.load, Until::After(TURN)).await;
            let used = contender.cpu().saturating_sub(before);
            Turn {
                cpu_us: used.as_secs_f64() * 1e6 / seen.requests() as f64,
                per_second: seen.per_second(),
                p99_ms: seen.p99_ms(),
            }
        })
    }

    fn measure_memory(&self, rows: &[Row], at_rest: &[usize]) {
        println!("\n{:<30} {:>11} {:>22}", "", "at rest", "idle connection");
        let rows = rows.iter().zip(at_rest).enumerate();
        // Large bodies make no difference to a connection at rest.
        for (_, (row, at_rest)) in rows.filter(|(place, (row, _))| *place < 6 || row.load.tls) {
            let contender = self.start(row, on_proxy_core);
            let request = &row.load.requests[0];
            let used = self.runtime.block_on(async {
                let mut space = vec![0; 64 * 1024];
                let before = contender.resident_bytes();
                let mut idle = Vec::with_capacity(IDLE_CONNECTIONS);
                for _ in 0..IDLE_CONNECTIONS {
                    let mut client = load::connect(contender.address, row.load.tls).await;
                    load::exchange(&mut client, request, &mut space).await;
                    idle.push(client);
                }
                contender.resident_bytes().saturating_sub(before)
            });
            println!(
                "{:<30} {:>7.1} MiB {:>18.1} KiB",
                row.name,
                *at_rest as f64 / f64::from(1 << 20),
                used as f64 / IDLE_CONNECTIONS as f64 / 1024.0
            );
        }
    }

    fn count_instructions(&self) {
        println!("{:<30} {:>20} {:>8}", "", "instructions/request", "ratio");
        let rows = rows();
        let mut counts: Vec<f64> = Vec::new();
        for row in &rows {
            let few = self.instructions(row, INSTRUCTIONS_WARM_UP);
            let many = self.instructions(row, INSTRUCTIONS_WARM_UP + INSTRUCTIONS_REQUESTS);
            let count = (many as f64 - few as f64) / INSTRUCTIONS_REQUESTS as f64;
            counts.push(count);
            let ratio = count / counts[row.base];
            println!("{:<30} {count:>20.0} {ratio:>8.3}", row.name);
        }
    }

    /// The instructions of a process that serves `requests`, from its start to its end.
    fn instructions(&self, row: &Row, requests: usize) -> u64 {
        let out: PathBuf = self.folder.path().join("callgrind.out");
        let contender = self.start(row, |program| under_callgrind(program, &out));
        let one_client = Load {
            connections: 1,
            ..row.load.clone()
        };
        self.runtime.block_on(load::send(
            contender.address,
            &one_client,
            Until::Answered(requests),
        ));
        contender.stop();
        contender::instructions(&out)
    }
}

/// Keeps clients and origin from ever falling asleep. To wake them would be the work of whoever sends to them, and on
/// virtual machines it costs more than the proxies do themselves, and never the same.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

struct Turn {
    cpu_us: f64,
    per_second: f64,
    p99_ms: f64,
}

/// Half of the values lie between `low` and `high`.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len() - 1;
        Self {
            low: values[last / 4],
            median: values[last / 2],
            high: values[last - last / 4],
        }
    }
}

fn verdict(ratio: f64, limit: Option<f64>, base: &str) -> String {
    match limit {
        None => String::new(),
        Some(limit) if ratio <= limit => format!("within {limit:.2} × {base}"),
        Some(limit) => format!("ABOVE {limit:.2} × {base}"),
    }
}
