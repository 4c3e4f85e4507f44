//! The task of one upstream: probes what is due, and follows addresses that come and go.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Whose,
    checks::Intervals,
    note,
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

/// How often the members are looked at again, and changes that requests caused.
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
        let is_over = |began: Option<Instant>, time: Duration| {
            began.is_none_or(|began| now.saturating_duration_since(began) >= time)
        };
        if is_over(followed_at, TICK) {
            followed_at = Some(now);
            schedule.follow(probed(&balancer).into_iter());
            if let Some(active) = balancer.active_checks() {
                schedule.plan(now, &active.intervals);
            }
        }
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
                let intervals = balancer
                    .active_checks()
                    .map_or_else(Intervals::default, |active| active.intervals);
                let mut has_changed = false;
                for probed in std::iter::once(ended).chain(more).flatten() {
                    if schedule.knows(&probed.health) {
                        has_changed |= conclude(&probed, &clock);
                        schedule.finish(&probed.health, clock.instant(), &intervals);
                    }
                }
                if has_changed {
                    balancer.health_has_changed();
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// All members that have a health, with the places of their targets.
fn probed(balancer: &Balancer) -> Vec<(usize, Arc<AddressHealth>)> {
    let members = balancer.members();
    let watched = members
        .iter()
        .filter_map(|member| Some((member.target, Arc::clone(member.health.as_ref()?))));
    watched.collect()
}

async fn probe(connectors: &Connectors, balancer: &Balancer, due: &Due) -> Option<Finding> {
    let active = balancer.active_checks()?;
    let target = balancer.targets().get(due.place)?;
    connectors.probe(active, target, due.health.address()).await
}

/// Notes what a probe showed. Whether that changed the health.
fn conclude(probed: &Probed, clock: &Clock) -> bool {
    let Some(finding) = probed.finding else {
        return false;
    };
    let (Some(active), Some(target)) = (
        probed.balancer.active_checks(),
        probed.balancer.targets().get(probed.place),
    ) else {
        return false;
    };
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
    )
}
