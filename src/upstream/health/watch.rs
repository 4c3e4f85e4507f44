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
    upstream::{Balancer, Member},
};

/// How often the members are looked at again, and changes that requests caused.
const TICK: Duration = Duration::from_secs(1);

/// A probe that has ended.
struct Probed {
    /// With the settings that it was begun with.
    balancer: Arc<Balancer>,
    due: Due,
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
                        due,
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
                    if schedule.knows(&probed.due.health) {
                        has_changed |= conclude(&probed, &clock);
                        schedule.finish(&probed.due.health, clock.instant(), &intervals);
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

/// All members that have a health.
fn probed(balancer: &Balancer) -> Vec<(Arc<Member>, Arc<AddressHealth>)> {
    let members = balancer.members().into_iter();
    let watched = members.filter_map(|member| {
        let health = Arc::clone(member.health.as_ref()?);
        Some((member, health))
    });
    watched.collect()
}

async fn probe(connectors: &Connectors, balancer: &Balancer, due: &Due) -> Option<Finding> {
    let active = balancer.active_checks()?;
    let member = &due.member;
    connectors
        .probe(active, &member.called, member.address)
        .await
}

/// Notes what a probe showed. Whether that changed the health.
fn conclude(probed: &Probed, clock: &Clock) -> bool {
    let Some(finding) = probed.finding else {
        return false;
    };
    let Some(active) = probed.balancer.active_checks() else {
        return false;
    };
    let whose = Whose {
        upstream: &probed.balancer.name,
        target: &probed.due.member.label,
    };
    note(
        whose,
        &probed.due.health,
        (Witness::Active, finding),
        active.limits,
        clock,
    )
}
