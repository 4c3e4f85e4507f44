//! The composition root: state, first snapshot, listeners, background tasks, and their end.

mod inherited;
mod listeners;
mod reminder;
mod service_manager;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use thiserror::Error;
use tokio::{
    runtime::{Builder, Handle},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

use self::{
    inherited::Inherited,
    listeners::{Audience, Bound, Listeners, Serving},
    service_manager::ServiceManager,
};
use crate::{
    admin::{self, Admin, Configuration, DiscoverySurvey, Facts, Reload},
    compile::{self, Compiler},
    config::{
        Gateway as Settings,
        model::{
            gateway::LogLevel,
            settings::{ErrorLog, Threads},
        },
    },
    explain::{
        Explanation, Listening, Question, StreamExplanation, StreamQuestion, Subject, Unanswerable,
        explain, explain_stream,
    },
    proxy::{Gateway, access_log::AccessLog, connection::Edge, listener::BindError},
    reload::{
        Reloader, Source,
        watch::{Ask, Watch},
    },
    snapshot::Snapshot,
    state::{State, circuits::CircuitSurvey, rates::Timestamp},
    stream::StreamEdge,
    telemetry::logging::{self, Level, Logging, Place},
    upstream::{
        follower::Follower,
        health::{survey::UpstreamSurvey, watchers::Watchers},
    },
};

/// How long requests in flight may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// How long the log may take to be written at the end.
const LOG_FLUSH: Duration = Duration::from_secs(1);
/// How long the runtime waits for its threads.
const RUNTIME_END: Duration = Duration::from_millis(100);
/// How often the state gives back what nobody uses.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections to upstreams over HTTP/2 that are kept while nobody uses them.
const IDLE_HTTP2_CONNECTIONS_MAX: usize = 4096;
/// Pingora's ceiling on tries; the retries of a service are counted by the proxy itself.
const TRIES_MAX: usize = 1 << 16;

/// What to start.
#[derive(Debug)]
pub struct Start {
    pub source: Source,
    /// What else runs in this process.
    pub beside: Option<Beside>,
}

/// Something that is started before the gateway and stopped behind it.
#[derive(Debug)]
pub struct Beside {
    pub start: fn(&Handle, &watch::Receiver<bool>) -> io::Result<()>,
    /// Called when everything is up.
    pub welcome: fn(),
}

/// Why the gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the configuration is not usable\n{0}")]
    Configuration(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the log cannot be set up")]
    Logging(#[from] logging::InitError),
    #[error("a metric is registered twice")]
    Metrics(#[from] prometheus::Error),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("what runs beside the gateway cannot be started")]
    Beside(#[source] io::Error),
}

/// Starts the gateway and serves until a signal ends it.
///
/// # Errors
/// When it cannot start. Nothing listens then.
pub fn run(start: Start) -> Result<(), StartError> {
    let manager = Arc::new(ServiceManager::from_environment());
    start_and_serve(start, &manager).inspect_err(|error| manager.failed(&error.to_string()))
}

fn start_and_serve(start: Start, manager: &Arc<ServiceManager>) -> Result<(), StartError> {
    let loaded = start.source.load();
    let settings = loaded.config.gateway.clone();
    let inherited = Inherited::from_environment();
    let logging = logging::init(level(settings.log_level))?;
    logging.write_to(place(&settings.error_log));
    let state = Arc::new(State::new());
    state.names.adopt(compile::dns_settings(&settings));
    state.telemetry.watch_log(logging.lines_dropped());
    let compiler = Compiler::new(state)?;
    let mut diagnostics = loaded.diagnostics;
    let snapshot = compiler
        .compile(&loaded.config, &mut diagnostics)
        .ok_or_else(|| StartError::Configuration(diagnostics.to_text()))?;
    for line in diagnostics.to_text().lines() {
        warn!("{line}");
    }
    raise_descriptor_limit();

    let listeners = Listeners::new(inherited);
    let sockets = listeners.bind_all(&settings)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads(settings.threads))
        .thread_name("tollgate")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    manager
        .watch_over(runtime.handle())
        .map_err(StartError::Runtime)?;
    let (stop_beside, beside_stopped) = watch::channel(false);
    if let Some(beside) = &start.beside {
        (beside.start)(runtime.handle(), &beside_stopped).map_err(StartError::Beside)?;
    }
    let reloader = Reloader::new(
        start.source,
        compiler,
        snapshot,
        settings,
        loaded.documents,
        &diagnostics,
    );
    let access_log = AccessLog::start(
        reloader.live().look().settings.access_log.as_ref(),
        reloader.state(),
    )
    .map_err(StartError::Runtime)?;
    let running = Arc::new(Running {
        gateway: Gateway {
            live: Arc::clone(reloader.live()),
            state: Arc::clone(reloader.state()),
            drain: Arc::default(),
            access_log: Arc::new(access_log),
            mirrors: Arc::default(),
        },
        watchers: Watchers::new(runtime.handle().clone(), reloader.state().clock.clone()),
        follower: Follower::new(
            Arc::clone(&reloader.state().news),
            Arc::clone(&reloader.state().pools),
        ),
        reloader,
        logging,
        manager: Arc::clone(manager),
        accepting: AtomicBool::new(false),
        listeners,
    });
    let served = runtime.block_on(serve(&running, sockets, loaded.watch, start.beside));
    // Whatever runs beside the gateway ends by itself or with the process.
    let _ = stop_beside.send(true);
    runtime.shutdown_timeout(RUNTIME_END);
    running.gateway.access_log.flush(LOG_FLUSH);
    running.logging.flush(LOG_FLUSH);
    served
}

/// The gateway while it runs.
#[derive(Debug)]
struct Running {
    gateway: Gateway,
    reloader: Reloader,
    logging: Logging,
    watchers: Watchers,
    follower: Follower,
    manager: Arc<ServiceManager>,
    accepting: AtomicBool,
    listeners: Listeners,
}

impl Running {
    /// Reloads; gives the paths to watch from now on.
    fn reload(&self) -> Vec<PathBuf> {
        // Before it is ready and while it drains, a reload is no news to the service manager.
        let announced = self.readiness().is_ok();
        if announced {
            self.manager.reloading();
        }
        let (paths, adopted) = self
            .reloader
            .reload(|config, diagnostics| self.listeners.prepare(config, diagnostics));
        if let Some(adopted) = adopted {
            let settings = adopted.settings;
            self.listeners.adopt(&settings, adopted.prepared);
            self.logging.set_level(level(settings.log_level));
            self.logging.write_to(place(&settings.error_log));
            self.gateway
                .state
                .names
                .adopt(compile::dns_settings(&settings));
            let snapshot = self.gateway.live.take();
            self.gateway
                .access_log
                .adopt(snapshot.settings.access_log.as_ref());
            self.replace(adopted.before);
        }
        if announced && self.readiness().is_ok() {
            self.manager.ready(&self.status());
        }
        paths
    }

    /// Takes over the services that a registry names now.
    fn follow_registry(&self) {
        if let Some(before) = self.reloader.follow_registry() {
            self.replace(before);
        }
    }

    /// Follows and watches the upstreams of the live snapshot instead of those of `before`.
    fn replace(&self, before: Arc<Snapshot>) {
        let snapshot = self.gateway.live.take();
        self.follower.adopt(snapshot.balancers());
        self.watchers.adopt(&snapshot.upstreams);
        drop(snapshot);
        // The last, as the state keeps for as long as somebody follows.
        self.reloader.retire(before);
    }

    /// What serves, and why the files on disk do not if they were refused.
    fn status(&self) -> String {
        let live = self.gateway.live.look();
        let serving = format!(
            "serving {} routes, configuration {}",
            live.routes.len(),
            live.hash
        );
        match self.reloader.history().last_reload {
            Some((_, Some(refused))) => {
                format!("{serving}; the files were refused: {}", refused.join("\n"))
            }
            _ => serving,
        }
    }
}

impl Facts for Running {
    fn readiness(&self) -> Result<(), &'static str> {
        if self.gateway.drain.is_draining() {
            Err("draining")
        } else if self.accepting.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err("starting")
        }
    }

    fn configuration(&self) -> Configuration {
        let history = self.reloader.history();
        Configuration {
            hash: self.gateway.live.look().hash.clone(),
            live_since: history.live_since,
            last_reload: history
                .last_reload
                .map(|(at, refused)| Reload { at, refused }),
        }
    }

    fn upstreams(&self) -> Vec<UpstreamSurvey> {
        let snapshot = self.gateway.live.take();
        snapshot
            .upstreams
            .iter()
            .map(|balancer| UpstreamSurvey::of(balancer))
            .collect()
    }

    fn discovery(&self) -> DiscoverySurvey {
        let snapshot = self.gateway.live.take();
        let followed = snapshot.discovered.upstreams.iter();
        let named = followed.filter_map(|(index, service)| {
            let upstream = snapshot.upstreams.get(*index)?;
            Some((upstream.name.clone(), Arc::clone(service)))
        });
        DiscoverySurvey {
            names: self.gateway.state.names.survey(),
            upstreams: named.collect(),
            catalog: snapshot.discovered.catalog.clone(),
        }
    }

    fn circuits(&self) -> Vec<CircuitSurvey> {
        let instances = self.gateway.state.circuits.values();
        instances
            .iter()
            .flat_map(|circuits| circuits.all())
            .map(|circuit| circuit.survey())
            .collect()
    }

    fn now(&self) -> i64 {
        self.gateway.state.clock.unix_seconds()
    }

    fn explain(&self, question: &Question) -> Result<Explanation, Unanswerable> {
        let subject = Subject {
            snapshot: &self.gateway.live.take(),
            state: &self.gateway.state,
            listening: &self.listeners.listening(),
            is_live: true,
        };
        explain(subject, question)
    }

    fn explain_stream(&self, question: &StreamQuestion) -> Result<StreamExplanation, Unanswerable> {
        let subject = Subject {
            snapshot: &self.gateway.live.take(),
            state: &self.gateway.state,
            listening: &self.listeners.listening(),
            is_live: true,
        };
        explain_stream(subject, question)
    }
}

async fn serve(
    running: &Arc<Running>,
    sockets: Vec<Bound>,
    watched: Vec<PathBuf>,
    beside: Option<Beside>,
) -> Result<(), StartError> {
    let gateway = &running.gateway;
    let signals = Signals::catch().map_err(StartError::Runtime)?;
    let (stop_keeping, keeping_stopped) = watch::channel(false);

    // Before the first reload can happen.
    let snapshot = gateway.live.take();
    running.follower.adopt(snapshot.balancers());
    running.watchers.adopt(&snapshot.upstreams);
    drop(snapshot);
    let following = Arc::clone(running);
    tokio::spawn(async move { following.follower.run().await });
    let state = Arc::clone(&gateway.state);
    tokio::spawn(async move { state.names.run(&state.clock).await });
    let state = Arc::clone(&gateway.state);
    tokio::spawn(async move { state.consul.run(&state.clock).await });
    let state = Arc::clone(&gateway.state);
    tokio::spawn(async move { sweep(&state).await });

    let state = Arc::clone(&gateway.state);
    tokio::spawn(async move { reminder::run(&state, reminder::tell).await });

    let facts: Arc<dyn Facts> = Arc::clone(running) as Arc<dyn Facts>;
    let serving = Serving {
        runtime: Handle::current(),
        streams: Arc::new(StreamEdge::new(gateway.clone())),
        edge: edge(running, keeping_stopped),
        live: Arc::clone(&gateway.live),
        drain: Arc::clone(&gateway.drain),
        pages: admin::router(Admin::new(Arc::clone(&gateway.state.telemetry), facts)),
    };
    running.listeners.start(serving, sockets);

    let (watch, ask) = Watch::new(watched, gateway.state.clock.clone());
    let state = Arc::clone(&gateway.state);
    let of_registry = ask.clone();
    tokio::spawn(async move {
        loop {
            state.consul.catalog_changed().await;
            of_registry.follow_registry();
        }
    });
    let reloader = Arc::clone(running);
    thread::Builder::new()
        .name("reload".into())
        .spawn(move || watch.run(|| reloader.reload(), || reloader.follow_registry()))
        .map_err(StartError::Runtime)?;
    running.accepting.store(true, Ordering::Release);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        routes = gateway.live.look().routes.len(),
        "tollgate is ready"
    );
    // The sockets listen since they were bound, and now somebody accepts from each.
    running.manager.ready(&running.status());
    if let Some(beside) = beside {
        (beside.welcome)();
    }

    until_stopped(signals, &ask, running, &stop_keeping).await;
    // The admin listener goes last, so that readiness says "draining" while there is something to
    // drain.
    for admin in running.listeners.close(Audience::Operators) {
        let _ = admin.await;
    }
    info!("stopped");
    Ok(())
}

fn edge(running: &Running, shutdown: watch::Receiver<bool>) -> Arc<Edge> {
    let conf = ServerConf {
        threads: 1,
        max_retries: TRIES_MAX,
        // It is for HTTP/2 only, where one connection carries many requests.
        upstream_keepalive_pool_size: IDLE_HTTP2_CONNECTIONS_MAX,
        ..ServerConf::default()
    };
    let proxy = http_proxy(&Arc::new(conf), running.gateway.clone());
    Arc::new(Edge::new(
        Arc::new(proxy),
        running.gateway.clone(),
        shutdown,
    ))
}

/// The signals that mean something. Those that mean nothing here are caught, so that their default
/// does not end the process.
struct Signals {
    terminate: Signal,
    quit: Signal,
    interrupt: Signal,
    hangup: Signal,
    ignored: Vec<Signal>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            ignored: [
                SignalKind::user_defined1(),
                SignalKind::user_defined2(),
                SignalKind::alarm(),
                SignalKind::pipe(),
            ]
            .into_iter()
            .map(signal)
            .collect::<Result<_, _>>()?,
        })
    }

    /// Waits for the next word to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.quit.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reloads and reopens the logs on SIGHUP; on SIGTERM, SIGQUIT or SIGINT drains, and on a
/// second one stops at once.
async fn until_stopped(
    mut signals: Signals,
    ask: &Ask,
    running: &Running,
    stop_keeping: &watch::Sender<bool>,
) {
    let gateway = &running.gateway;
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                gateway.access_log.reopen();
                running.logging.reopen();
                ask.reload();
            }
            _ = signals.terminate.recv() => break,
            _ = signals.quit.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    info!(open_connections = gateway.drain.open(), "stopping");
    running.manager.stopping(gateway.drain.open());
    gateway.drain.begin();
    let _ = stop_keeping.send(true);
    let closing = [Audience::Clients, Audience::Streams].map(|of| running.listeners.close(of));
    let ended = async {
        // Until it has ended, a task may accept one more connection, which must be counted as well.
        join_all(closing.into_iter().flatten()).await;
        gateway.drain.below(1).await;
    };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(DRAIN) => {
            warn!(open_connections = gateway.drain.open(), "not everything ended in time");
        }
        () = signals.stop() => warn!("told to stop twice: stopping at once"),
    }
    drop(signals.ignored);
}

async fn sweep(state: &State) {
    loop {
        tokio::time::sleep(SWEEP).await;
        state.rates.reclaim(Timestamp::from_unix_milliseconds(
            state.clock.unix_milliseconds(),
        ));
        state.pools.reclaim(state.clock.instant());
    }
}

fn place(written: &ErrorLog) -> Place {
    match written {
        ErrorLog::Stderr => Place::Stderr,
        ErrorLog::Off => Place::Off,
        ErrorLog::Path(path) => Place::File(path.clone()),
    }
}

const fn level(written: LogLevel) -> Level {
    match written {
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Notice => Level::Notice,
        LogLevel::Warn => Level::Warn,
        LogLevel::Error => Level::Error,
        LogLevel::Crit => Level::Crit,
    }
}

/// Where clients come in by these settings.
pub fn listening(settings: &Settings) -> Listening {
    let mut listening = Listening::default();
    for listen in settings.listen.addresses() {
        listening.ports.push(listen.address.port());
        listening.has_tls |= listen.ssl;
    }
    let streams = settings.stream_listen.addresses();
    listening.streams = streams.map(listeners::for_streams).collect();
    listening
}

fn threads(written: Threads) -> usize {
    match written {
        Threads::Auto => thread::available_parallelism().map_or(1, usize::from),
        Threads::Count(count) => count.get(),
    }
}

/// Raises the soft limit of open descriptors to the hard one: each proxied connection needs two.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of open descriptors stays as it is");
    }
}
