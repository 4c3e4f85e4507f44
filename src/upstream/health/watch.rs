//! The task of one upstream: probes what is due, follows addresses that come and go, and keeps the
//! balancer's turns in step with the health.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Whose, note,
    probe::Connectors,
    schedule::{Due, Schedule},
};
use crate::{
    state::{
        clock::Clock,
        health::{AddressHealth, Finding, Witness},
    },
    upstream::Balancer,
};

/// How often names are looked at again, and changes that requests caused.
const TICK: Duration = Duration::from_secs(1);

/// A probe that has ended.
struct Probed {
    /// With the settings that it was begun with.
    balancer: Arc<Balancer>,
    place: usize,
    health: Arc<AddressHealth>,
    finding: Option<Finding>,
}

/// Watches the upstream that `live` holds, until nobody can change it any more.
pub(super) async fn watch(
    mut live: watch::Receiver<Arc<Balancer>>,
    connectors: Arc<Connectors>,
    clock: Clock,
) {
    let mut schedule = Schedule::default();
    let mut running = JoinSet::new();
    let mut followed_at = None;
    loop {
        let balancer = Arc::clone(&live.borrow_and_update());
        let now = clock.instant();
        if followed_at.is_none_or(|at| now.saturating_duration_since(at) >= TICK) {
            followed_at = Some(now);
            schedule.follow(probed(&balancer, clock.unix_milliseconds()).into_iter());
        }
        balancer.follow_health();
        let mut pause = TICK;
        if let Some(active) = balancer.active_checks() {
            let room = active.concurrency.saturating_sub(running.len());
            for due in schedule.take_due(now, &active.intervals, room) {
                let (balancer, connectors) = (Arc::clone(&balancer), Arc::clone(&connectors));
                running.spawn(async move {
                    let finding = AssertUnwindSafe(probe(&connectors, &balancer, &due))
                        .catch_unwind()
                        .await
                        .unwrap_or(None);
                    Probed {
                        balancer,
                        place: due.place,
                        health: due.health,
                        finding,
                    }
                });
            }
            if let Some(next) = schedule.next_after(now) {
                pause = pause.min(next - now);
            }
        }
        tokio::select! {
            changed = live.changed() => {
                if changed.is_err() {
                    return;
                }
                followed_at = None;
            }
            Some(ended) = running.join_next(), if !running.is_empty() => {
                let more = std::iter::from_fn(|| running.try_join_next());
                for probed in std::iter::once(ended).chain(more).flatten() {
                    conclude(&mut schedule, &probed, &clock);
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// All addresses of targets with a weight.
fn probed(balancer: &Balancer, now: i64) -> Vec<(usize, Arc<AddressHealth>)> {
    let mut found = Vec::new();
    for (place, target) in balancer.targets().iter().enumerate() {
        if let Some(health) = &target.health
            && target.weight > 0
        {
            let addresses = health.follow(&target.addresses(), now);
            found.extend(addresses.into_iter().map(|address| (place, address)));
        }
    }
    found
}

async fn probe(connectors: &Connectors, balancer: &Balancer, due: &Due) -> Option<Finding> {
    let active = balancer.active_checks()?;
    let target = balancer.targets().get(due.place)?;
    connectors.probe(active, target, due.health.address()).await
}

fn conclude(schedule: &mut Schedule, probed: &Probed, clock: &Clock) {
    let is_known = schedule.finish(&probed.health);
    if is_known
        && let Some(finding) = probed.finding
        && let Some(active) = probed.balancer.active_checks()
        && let Some(target) = probed.balancer.targets().get(probed.place)
    {
        let whose = Whose {
            upstream: &probed.balancer.name,
            target: &target.label,
        };
        note(
            whose,
            &probed.health,
            (Witness::Active, finding),
            active.limits,
            clock,
        );
    }
}
