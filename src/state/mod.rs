//! What outlives a snapshot: clock, identifiers, rate counters, balancer positions, health, resolved
//! names and metrics. Built once by `server`, shared by every snapshot, so that a reload loses nothing.

pub mod addresses;
pub mod clock;
pub mod consul;
pub mod dns;
pub mod feed;
pub mod health;
pub mod identifiers;
mod inventory;
pub mod load;
pub mod names;
pub mod rates;
pub mod registry;
pub mod turnstiles;

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::telemetry::Telemetry;
use addresses::{PerAddress, PerTarget};
use clock::Clock;
use consul::Consul;
use feed::News;
use health::TargetsHealth;
use identifiers::Identifiers;
pub use inventory::Held;
use load::Load;
use names::Names;
use rates::Rates;
use registry::Registry;
use turnstiles::Turnstiles;

/// Everything that a reload keeps.
#[derive(Debug)]
pub struct State {
    pub clock: Clock,
    pub identifiers: Arc<Identifiers>,
    pub rates: Rates,
    /// The requests under way where their number is limited.
    pub turnstiles: Turnstiles,
    /// The round-robin position of each upstream or service host, by the entity's id.
    pub positions: Registry<Uuid, AtomicU64>,
    /// The turns of services between which a plugin splits requests, by its instance and the place of the rule.
    pub splits: Registry<(Uuid, usize), AtomicU64>,
    /// The connections that each address of a target may still take, by upstream, target and limit.
    pub slots: Registry<(Uuid, String, u32), PerAddress<Semaphore>>,
    /// What the addresses of targets have to do.
    pub loads: PerTarget<Load>,
    /// How the addresses of watched targets are.
    pub health: TargetsHealth,
    pub names: Names,
    /// What is asked of Consul.
    pub consul: Consul,
    /// Wakes whoever keeps balancers in step with what their targets stand for.
    pub news: Arc<News>,
    pub telemetry: Arc<Telemetry>,
}

impl State {
    /// The state of a process that just started.
    pub fn new() -> Self {
        let identifiers = Arc::new(Identifiers::new());
        let telemetry = Arc::new(Telemetry::of_node(identifiers.process()));
        let news = Arc::new(News::default());
        Self {
            clock: Clock::system(),
            identifiers,
            rates: Rates::default(),
            turnstiles: Turnstiles::default(),
            positions: Registry::default(),
            splits: Registry::default(),
            slots: Registry::default(),
            loads: PerTarget::default(),
            health: TargetsHealth::default(),
            names: Names::new(Arc::clone(&news)),
            consul: Consul::new(Arc::clone(&news)),
            news,
            telemetry,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
