//! The tasks that watch upstreams: one for each upstream with health checks, for as long as a live
//! snapshot has it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::{probe::Connectors, watch::watch};
use crate::{state::clock::Clock, upstream::Balancer};

/// The watchers of the live snapshot.
#[derive(Debug)]
pub struct Watchers {
    runtime: Handle,
    clock: Clock,
    connectors: Arc<Connectors>,
    running: Mutex<HashMap<Uuid, Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    live: watch::Sender<Arc<Balancer>>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Probes end with their task.
        self.task.abort();
    }
}

impl Watchers {
    /// Watches nothing yet.
    pub fn new(runtime: Handle, clock: Clock) -> Self {
        Self {
            runtime,
            clock,
            connectors: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// Watches the upstreams with health checks among `upstreams`, and no others. A watcher of one
    /// that stays goes on with its new settings.
    pub fn adopt(&self, upstreams: &[Arc<Balancer>]) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for balancer in upstreams.iter().filter(|balancer| balancer.is_watched()) {
            let watcher = match before.remove(&balancer.id) {
                Some(watcher) => {
                    watcher.live.send_replace(Arc::clone(balancer));
                    watcher
                }
                None => self.start(Arc::clone(balancer)),
            };
            running.insert(balancer.id, watcher);
        }
    }

    fn start(&self, balancer: Arc<Balancer>) -> Watcher {
        let (live, changes) = watch::channel(balancer);
        let watching = watch(changes, Arc::clone(&self.connectors), self.clock.clone());
        Watcher {
            live,
            task: self.runtime.spawn(watching),
        }
    }
}
