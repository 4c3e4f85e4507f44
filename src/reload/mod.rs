//! From a saved file to a live configuration: load, compile, swap. On any mistake the last good
//! configuration stays, and the mistakes go to log, metrics and status.

mod discovered;
pub mod watch;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    compile::Compiler,
    config::{
        self, Config, Diagnostics, DiscoveredServices, Documents, Gateway as Settings,
        model::{listen::ListenEntry, settings::List},
    },
    snapshot::{Snapshot, live::Live},
    state::{State, consul::Catalog},
};
use discovered::Together;

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub struct Source {
    origin: Origin,
    listeners: Listeners,
    /// Looks a variable up in the environment.
    environment: fn(&str) -> Option<String>,
}

#[derive(Debug, Clone)]
enum Origin {
    File(PathBuf),
    Text { document: String, called: String },
}

/// Addresses that hold instead of those of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    pub listen: Option<List<ListenEntry>>,
    pub admin: Option<List<ListenEntry>>,
}

impl Source {
    /// A file and its fragments, which are watched for changes.
    pub fn file(file: PathBuf, environment: fn(&str) -> Option<String>) -> Self {
        Self {
            origin: Origin::File(file),
            listeners: Listeners::default(),
            environment,
        }
    }

    /// A document that is in no file and never changes. Diagnostics call it `called`.
    pub fn text(document: String, called: &str, environment: fn(&str) -> Option<String>) -> Self {
        Self {
            origin: Origin::Text {
                document,
                called: called.to_owned(),
            },
            listeners: Listeners::default(),
            environment,
        }
    }

    /// The same with other addresses to listen on, now and after every reload.
    #[must_use]
    pub fn listening(self, listeners: Listeners) -> Self {
        Self { listeners, ..self }
    }

    /// Reads what the configuration is made of.
    pub fn load(&self) -> config::Loaded {
        let loaded = match &self.origin {
            Origin::File(file) => config::load(file, &self.environment),
            Origin::Text { document, called } => {
                config::load_text(document.clone(), called, &self.environment)
            }
        };
        self.with_listeners(loaded)
    }

    /// Puts documents that were read before together again, with these services.
    fn assemble(&self, documents: &Documents, services: &DiscoveredServices) -> config::Loaded {
        self.with_listeners(documents.assemble(services, &self.environment))
    }

    fn with_listeners(&self, mut loaded: config::Loaded) -> config::Loaded {
        let settings = &mut loaded.config.gateway;
        if let Some(listen) = &self.listeners.listen {
            settings.listen.clone_from(listen);
        }
        if let Some(admin) = &self.listeners.admin {
            settings.admin.clone_from(admin);
        }
        loaded
    }
}

/// Takes configurations over.
#[derive(Debug)]
pub struct Reloader {
    source: Source,
    compiler: Compiler,
    live: Arc<Live>,
    /// What the process started with: settings that cannot change in place are compared to it.
    started_with: Settings,
    /// The files of the live configuration, where services are discovered beside them.
    documents: Mutex<Option<Arc<Documents>>>,
    /// The warnings of the live configuration, which the log has.
    warned: Mutex<HashSet<String>>,
    history: Mutex<History>,
}

/// What a reload has made live.
#[derive(Debug)]
pub struct Adopted<P> {
    /// The settings that are in effect now.
    pub settings: Settings,
    /// What was made ready for it.
    pub prepared: P,
    /// What was live before, to be given to [`Reloader::retire`] once nothing follows it any more.
    pub before: Arc<Snapshot>,
}

/// How the configuration came to be what it is. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub live_since: i64,
    /// When the files were last loaded, and the mistakes for which they were refused.
    pub last_reload: Option<(i64, Option<Vec<String>>)>,
}

impl Reloader {
    /// Makes `snapshot` live, the first one. `documents` are what it was made from, where services are discovered
    /// beside them; the log has its `diagnostics`.
    pub fn new(
        source: Source,
        compiler: Compiler,
        snapshot: Snapshot,
        started_with: Settings,
        documents: Option<Arc<Documents>>,
        diagnostics: &Diagnostics,
    ) -> Self {
        let state = compiler.state();
        let now = state.clock.unix_seconds();
        state.telemetry.exports().adopt();
        state
            .telemetry
            .handshakes()
            .adopt(snapshot.expiries.clone());
        state.telemetry.configuration_loaded(now);
        let warned = diagnostics.to_text().lines().map(str::to_owned).collect();
        Self {
            source,
            compiler,
            live: Arc::new(Live::new(snapshot)),
            started_with,
            documents: Mutex::new(documents),
            warned: Mutex::new(warned),
            history: Mutex::new(History {
                live_since: now,
                last_reload: None,
            }),
        }
    }

    /// Where the live snapshot is.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What the snapshots share.
    pub fn state(&self) -> &Arc<State> {
        self.compiler.state()
    }

    /// How the configuration came to be what it is.
    pub fn history(&self) -> History {
        self.lock_history().clone()
    }

    /// Loads the files again and takes them over if they are right. Gives the paths to watch, and
    /// what is live now.
    ///
    /// `prepare` makes ready what the new configuration needs of the outside world. What it adds to
    /// the diagnostics refuses the configuration like any other mistake; what it made is given back
    /// once the configuration is live.
    pub fn reload<P>(
        &self,
        prepare: impl FnOnce(&Config, &mut Diagnostics) -> P,
    ) -> (Vec<PathBuf>, Option<Adopted<P>>) {
        let state = self.state();
        let began = state.clock.instant();
        let loaded = self.source.load();
        let mut diagnostics = loaded.diagnostics;
        let snapshot = self.compiler.compile(&loaded.config, &mut diagnostics);
        let Some(snapshot) = snapshot else {
            self.refuse(&diagnostics);
            return (loaded.watch, None);
        };
        let prepared = prepare(&loaded.config, &mut diagnostics);
        if diagnostics.has_errors() {
            self.refuse(&diagnostics);
            return (loaded.watch, None);
        }
        let snapshot =
            self.with_discovered(snapshot, loaded.documents.as_deref(), &mut diagnostics);
        self.warn(&diagnostics, true);
        let routes = snapshot.routes.len();
        *self.lock_documents() = loaded.documents;
        let (changed, before) = self.publish(snapshot);
        let now = state.clock.unix_seconds();
        state.telemetry.reload_succeeded(now);
        let took = state.clock.instant() - began;
        info!(
            changed,
            routes,
            took = ?took,
            "configuration reloaded"
        );
        self.lock_history().last_reload = Some((now, None));
        self.tell_what_needs_a_restart(&loaded.config);
        let adopted = Adopted {
            settings: loaded.config.gateway,
            prepared,
            before,
        };
        (loaded.watch, Some(adopted))
    }

    /// Takes over the services that ask for routes now, beside the files as they were last taken over. If that made
    /// another configuration live, gives the one before, for [`Self::retire`].
    pub fn follow_registry(&self) -> Option<Arc<Snapshot>> {
        let documents = self.lock_documents().clone();
        let catalog = self.live.look().discovered.catalog.clone();
        let (documents, catalog) = documents.zip(catalog)?;
        let Some(together) = self.compile_with(&documents, &catalog) else {
            error!("discovered services wait: the files beside them cannot be read again");
            return None;
        };
        catalog.note_skipped(together.skipped);
        if together.snapshot.hash == self.live.look().hash {
            return None;
        }
        self.warn(&together.diagnostics, false);
        let routes = together.snapshot.routes.len();
        let (_, before) = self.publish(together.snapshot);
        info!(routes, "discovered services taken over");
        Some(before)
    }

    /// `alone`, which was made from the files, or the same with the services that are known to ask for routes.
    fn with_discovered(
        &self,
        alone: Snapshot,
        documents: Option<&Documents>,
        diagnostics: &mut Diagnostics,
    ) -> Snapshot {
        let catalog = alone.discovered.catalog.clone();
        let Some((catalog, documents)) = catalog.zip(documents) else {
            return alone;
        };
        if catalog.services().is_empty() {
            return alone;
        }
        let Some(together) = self.compile_with(documents, &catalog) else {
            error!("discovered services wait: they do not go together with the files");
            return alone;
        };
        catalog.note_skipped(together.skipped);
        *diagnostics = together.diagnostics;
        together.snapshot
    }

    fn compile_with(&self, documents: &Documents, catalog: &Catalog) -> Option<Together> {
        let assemble = |services: &DiscoveredServices| self.source.assemble(documents, services);
        discovered::compile(&self.compiler, assemble, &catalog.services())
    }

    /// Makes `snapshot` live. Whether it says something else than the one before, which is given back.
    fn publish(&self, snapshot: Snapshot) -> (bool, Arc<Snapshot>) {
        let state = self.state();
        let changed = snapshot.hash != self.live.look().hash;
        let expiries = snapshot.expiries.clone();
        state.telemetry.handshakes().adopt(expiries);
        let before = self.live.publish(snapshot);
        state.telemetry.exports().adopt();
        if changed {
            self.lock_history().live_since = state.clock.unix_seconds();
        }
        (changed, before)
    }

    /// Gives back a snapshot that was live, and what the state held for it alone.
    pub fn retire(&self, before: Arc<Snapshot>) {
        let state = self.state();
        // Freeing a large table takes its time, which is nobody's but this thread's.
        drop(before);
        state.turnstiles.sweep();
        state.turns.sweep();
        state.splits.sweep();
        state.slots.sweep();
        state.budgets.sweep();
        state.pools.sweep();
        state.circuits.sweep();
        self.forget_circuits();
        state.health.sweep();
        state.names.sweep();
        state.consul.sweep();
        state.loads.sweep();
    }

    /// Forgets the circuits of services that are gone, where their plugin is not.
    fn forget_circuits(&self) {
        let snapshot = self.live.take();
        let services = snapshot.services.iter();
        let served: HashSet<Uuid> = services.map(|service| service.facts.id).collect();
        let served = Arc::new(served);
        for circuits in self.state().circuits.values() {
            circuits.keep(&served);
        }
    }

    /// Tells the log of the warnings of what goes live, `again` or only of those that it does not have yet.
    fn warn(&self, diagnostics: &Diagnostics, again: bool) {
        let text = diagnostics.to_text();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines().filter(|line| again || !warned.contains(*line)) {
            warn!("{line}");
        }
        *warned = text.lines().map(str::to_owned).collect();
    }

    fn refuse(&self, diagnostics: &Diagnostics) {
        let state = self.state();
        state.telemetry.reload_failed();
        let lines: Vec<String> = diagnostics.to_text().lines().map(str::to_owned).collect();
        error!(
            errors = diagnostics.error_count(),
            "configuration refused, the last good one keeps serving"
        );
        for line in &lines {
            error!("{line}");
        }
        self.lock_history().last_reload = Some((state.clock.unix_seconds(), Some(lines)));
    }

    fn tell_what_needs_a_restart(&self, config: &Config) {
        for name in needs_restart(&self.started_with, &config.gateway) {
            warn!("gateway.{name} needs a restart to change; everything else is live");
        }
    }

    fn lock_documents(&self) -> MutexGuard<'_, Option<Arc<Documents>>> {
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of the settings that differ and that a reload cannot change.
pub fn needs_restart(old: &Settings, new: &Settings) -> impl Iterator<Item = &'static str> {
    let differs = old.threads != new.threads;
    differs.then_some("threads").into_iter()
}
