//! What outlives a snapshot: clock, identifiers, rate counters, balancer positions, health, resolved
//! names and metrics. Built once by `server`, shared by every snapshot, so that a reload loses nothing.

pub mod addresses;
pub mod budget;
pub mod circuits;
pub mod clock;
pub mod consul;
pub mod dns;
pub mod feed;
pub mod health;
pub mod identifiers;
mod inventory;
pub mod load;
pub mod names;
pub mod pool;
pub mod rates;
pub mod registry;
pub mod turns;
pub mod turnstiles;
mod window;

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::telemetry::Telemetry;
use addresses::{PerAddress, PerTarget};
use budget::RetryBudget;
use circuits::Circuits;
use clock::Clock;
use consul::Consul;
use feed::News;
use health::TargetsHealth;
use identifiers::Identifiers;
pub use inventory::Held;
use load::Load;
use names::Names;
use pool::Pools;
use rates::Rates;
use registry::Registry;
use turns::Turns;
use turnstiles::Turnstiles;

/// Everything that a reload keeps.
#[derive(Debug)]
pub struct State {
    pub clock: Clock,
    pub identifiers: Arc<Identifiers>,
    pub rates: Rates,
    /// The requests under way where their number is limited.
    pub turnstiles: Turnstiles,
    /// The turns of each upstream or service host, by the entity's id.
    pub turns: Registry<Uuid, Turns>,
    /// The turns of services between which a plugin splits requests, by its instance and the place of the rule.
    pub splits: Registry<(Uuid, usize), AtomicU64>,
    /// The connections that each address of a target may still take, by upstream, target and limit.
    pub slots: Registry<(Uuid, String, u32), PerAddress<Semaphore>>,
    /// What the addresses of targets have to do.
    pub loads: PerTarget<Load>,
    /// The idle connections to upstreams, by address.
    pub pools: Arc<Pools>,
    /// What the retries of a service may still cost, by its id.
    pub budgets: Registry<Uuid, RetryBudget>,
    /// The circuits of a plugin instance, by its id.
    pub circuits: Registry<Uuid, Circuits>,
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
            turns: Registry::default(),
            turnstiles: Turnstiles::default(),
            splits: Registry::default(),
            slots: Registry::default(),
            loads: PerTarget::default(),
            pools: Arc::default(),
            budgets: Registry::default(),
            circuits: Registry::default(),
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
