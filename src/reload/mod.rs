//! From a saved file to a live configuration: load, compile, swap. On any mistake the last good
//! configuration stays, and the mistakes go to log, metrics and status.

pub mod watch;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{error, info, warn};

use crate::{
    compile::Compiler,
    config::{self, Config, Diagnostics, Gateway as Settings},
    snapshot::{Snapshot, live::Live},
    state::State,
};

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub struct Source {
    pub file: PathBuf,
    /// Looks a variable up in the environment.
    pub environment: fn(&str) -> Option<String>,
}

impl Source {
    /// Reads the files.
    pub fn load(&self) -> config::Loaded {
        config::load(&self.file, &self.environment)
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
    history: Mutex<History>,
}

/// How the configuration came to be what it is. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub live_since: i64,
    /// When the files were last loaded, and the mistakes for which they were refused.
    pub last_reload: Option<(i64, Option<Vec<String>>)>,
}

impl Reloader {
    /// Makes `snapshot` live, the first one.
    pub fn new(
        source: Source,
        compiler: Compiler,
        snapshot: Snapshot,
        started_with: Settings,
    ) -> Self {
        let state = compiler.state();
        let now = state.clock.unix_seconds();
        state.telemetry.exports().adopt();
        state.telemetry.configuration_loaded(now);
        Self {
            source,
            compiler,
            live: Arc::new(Live::new(snapshot)),
            started_with,
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
    /// the settings that are in effect now.
    pub fn reload(&self) -> (Vec<PathBuf>, Option<Settings>) {
        let state = self.state();
        let began = state.clock.instant();
        let loaded = self.source.load();
        let mut diagnostics = loaded.diagnostics;
        let snapshot = self.compiler.compile(&loaded.config, &mut diagnostics);
        let Some(snapshot) = snapshot else {
            self.refuse(&diagnostics);
            return (loaded.watch, None);
        };
        for line in diagnostics.to_text().lines() {
            warn!("{line}");
        }
        let changed = snapshot.hash != self.live.look().hash;
        let routes = snapshot.routes.len();
        let before = self.live.publish(snapshot);
        let now = state.clock.unix_seconds();
        state.telemetry.exports().adopt();
        state.telemetry.reload_succeeded(now);
        let took = state.clock.instant() - began;
        info!(
            changed,
            routes,
            took = ?took,
            "configuration reloaded"
        );
        {
            let mut history = self.lock_history();
            if changed {
                history.live_since = now;
            }
            history.last_reload = Some((now, None));
        }
        self.tell_what_needs_a_restart(&loaded.config);
        // Freeing a large table takes its time, which is nobody's but this thread's.
        drop(before);
        state.positions.sweep();
        state.slots.sweep();
        state.health.sweep();
        (loaded.watch, Some(loaded.config.gateway))
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
        let (old, new) = (&self.started_with, &config.gateway);
        for (name, differs) in [
            ("listen", old.listen != new.listen),
            ("admin", old.admin != new.admin),
            ("threads", old.threads != new.threads),
            (
                "upstream_keepalive_pool_size",
                old.upstream_keepalive_pool_size != new.upstream_keepalive_pool_size,
            ),
        ] {
            if differs {
                warn!("gateway.{name} needs a restart to change; everything else is live");
            }
        }
    }

    fn lock_history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
