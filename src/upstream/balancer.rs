//! Picks a target for each try of a request.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use smallvec::SmallVec;
use uuid::Uuid;

use super::{
    Target,
    health::{
        Whose,
        checks::{Active, Checks, Passive},
        note,
    },
    wheel::Wheel,
};
use crate::state::{
    clock::Clock,
    health::{Finding, Witness},
};

/// How many turns in a row may fall on targets that cannot be picked before they are looked
/// through in their order.
const TURNS_MAX: usize = 64;

/// The targets of an upstream, or the one host of a service, with their turns.
///
/// The position lives in the state, so a reload goes on where the old configuration stopped, also
/// with new weights. One position serves all threads: the counts are exact whatever `threads` is.
#[derive(Debug)]
pub struct Balancer {
    /// The id of the upstream, or of the service.
    pub id: Uuid,
    /// The upstream's name, or the service's host.
    pub name: String,
    /// `host_header` of the upstream.
    pub host_header: Option<HeaderValue>,
    targets: Box<[Target]>,
    wheel: Wheel,
    position: Arc<AtomicU64>,
    watched: Option<Watched>,
}

/// What an upstream with health checks has beside its targets.
#[derive(Debug)]
struct Watched {
    checks: Checks,
    /// The turns of the targets that are available, while not all are. They follow the health with
    /// a short delay, so whoever has a turn is asked all the same.
    reduced: ArcSwapOption<Reduced>,
    /// Whether enough of the weight is available. It follows the health: a pick cannot count.
    is_above_threshold: AtomicBool,
}

#[derive(Debug)]
struct Reduced {
    /// By place: which targets have turns.
    available: Box<[bool]>,
    wheel: Wheel,
}

/// The targets of which a request has tried every address in vain, by their places.
pub type Tried = SmallVec<[usize; 4]>;

/// The addresses that a request has tried in vain, each with the place of its target.
pub type Failed = SmallVec<[(usize, IpAddr); 4]>;

impl Balancer {
    /// A balancer that goes on from `position`. `checks` go with targets that have a health.
    pub fn new(
        (id, name): (Uuid, String),
        host_header: Option<HeaderValue>,
        targets: Vec<Target>,
        position: Arc<AtomicU64>,
        checks: Option<Checks>,
    ) -> Self {
        let weights: Vec<u16> = targets.iter().map(|target| target.weight).collect();
        let balancer = Self {
            id,
            name,
            host_header,
            wheel: Wheel::new(&weights),
            targets: targets.into_boxed_slice(),
            position,
            watched: checks.map(|checks| Watched {
                checks,
                reduced: ArcSwapOption::empty(),
                is_above_threshold: AtomicBool::new(true),
            }),
        };
        balancer.follow_health();
        balancer
    }

    /// The name of the way in which targets are picked, in Kong's words.
    pub fn algorithm(&self) -> &'static str {
        "round-robin"
    }

    /// The targets, also those without weight.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether the health of its targets is watched.
    pub fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// The active health checks, if any are on.
    pub fn active_checks(&self) -> Option<&Active> {
        self.watched.as_ref()?.checks.active.as_ref()
    }

    /// The passive health checks, if any are on.
    pub fn passive_checks(&self) -> Option<&Passive> {
        self.watched.as_ref()?.checks.passive.as_ref()
    }

    /// Notes what a request showed of `address` of the target at `place`.
    pub fn note_passively(&self, place: usize, address: IpAddr, finding: Finding, clock: &Clock) {
        let Some(passive) = self.passive_checks() else {
            return;
        };
        let Some(target) = self.targets.get(place) else {
            return;
        };
        let Some(addresses) = &target.health else {
            return;
        };
        let whose = Whose {
            upstream: &self.name,
            target: &target.label,
        };
        let health = if finding.is_success() {
            // An address of which nothing was noted has nothing to recover from.
            match addresses.find(address) {
                Some(health) => health,
                None => return,
            }
        } else {
            addresses.find_or_create(address, clock.unix_milliseconds())
        };
        let has_changed = note(
            whose,
            &health,
            (Witness::Passive, finding),
            passive.limits,
            clock,
        );
        if has_changed {
            self.follow_threshold();
        }
    }

    /// The next available target; passes over those in `tried` while another is left. `None` if no
    /// target that is available has a positive weight, or too little of the weight is available.
    pub fn pick(&self, tried: &Tried) -> Option<(usize, &Target)> {
        if let Some(watched) = &self.watched
            && !watched.is_above_threshold.load(Ordering::Relaxed)
        {
            return None;
        }
        let reduced = self.watched.as_ref().map(|watched| watched.reduced.load());
        let wheel = match reduced.as_ref().and_then(|reduced| reduced.as_deref()) {
            Some(reduced) => &reduced.wheel,
            None => &self.wheel,
        };
        let place = self
            .next_turn(wheel, tried)
            .or_else(|| self.candidates().next())?;
        self.targets.get(place).map(|target| (place, target))
    }

    /// Whether a request would find an address now.
    pub fn is_available(&self) -> bool {
        let mut candidates = self.targets.iter().filter(|target| target.weight > 0);
        self.is_above_threshold() && candidates.any(|target| target.has_address(|_| true))
    }

    fn next_turn(&self, wheel: &Wheel, tried: &Tried) -> Option<usize> {
        let untried = || self.candidates().find(|place| !tried.contains(place));
        let mut spare = None;
        for _ in 0..TURNS_MAX {
            let place = wheel.target(self.position.fetch_add(1, Ordering::Relaxed))?;
            if !self.targets.get(place).is_some_and(Target::is_available) {
                continue;
            }
            if !tried.contains(&place) {
                return Some(place);
            }
            if spare.is_none() {
                spare = Some(place);
                if untried().is_none() {
                    return spare;
                }
            }
        }
        untried().or(spare)
    }

    /// The places of the targets that may be picked.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        self.targets
            .iter()
            .enumerate()
            .filter(|(_, target)| has_turns(target))
            .map(|(place, _)| place)
    }

    /// Each address has the weight of its target here, as in Kong.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum of weights is far below 2^52"
    )]
    fn is_above_threshold(&self) -> bool {
        let threshold = match &self.watched {
            Some(watched) if watched.checks.threshold > 0.0 => watched.checks.threshold,
            _ => return true,
        };
        let (mut total, mut available) = (0, 0);
        for target in &self.targets {
            let (known, healthy) = target.count();
            total += known * usize::from(target.weight);
            available += healthy * usize::from(target.weight);
        }
        // Without any address there is nothing to be healthy or not.
        total == 0 || available as f64 * 100.0 > total as f64 * threshold
    }

    /// Sees whether enough of the weight is available now.
    pub(super) fn follow_threshold(&self) {
        if let Some(watched) = &self.watched {
            let is_above = self.is_above_threshold();
            watched
                .is_above_threshold
                .store(is_above, Ordering::Relaxed);
        }
    }

    /// Gives turns to the targets that are available now, and to no others.
    pub(super) fn follow_health(&self) {
        let Some(watched) = &self.watched else {
            return;
        };
        self.follow_threshold();
        let is_missing = |target: &Target| target.weight > 0 && !target.is_available();
        if !self.targets.iter().any(is_missing) {
            watched.reduced.store(None);
            return;
        }
        let available: Box<[bool]> = self.targets.iter().map(has_turns).collect();
        let is_known = watched
            .reduced
            .load()
            .as_ref()
            .is_some_and(|reduced| reduced.available == available);
        if is_known {
            return;
        }
        let weights: Vec<u16> = self
            .targets
            .iter()
            .zip(&available)
            .map(|(target, available)| if *available { target.weight } else { 0 })
            .collect();
        watched.reduced.store(Some(Arc::new(Reduced {
            available,
            wheel: Wheel::new(&weights),
        })));
    }
}

fn has_turns(target: &Target) -> bool {
    target.weight > 0 && target.is_available()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;
    use crate::{
        state::{
            health::{Limits, TargetAddresses},
            names::Name,
        },
        upstream::{TargetHost, tests::target},
    };

    fn balancer(weights: &[u16], position: &Arc<AtomicU64>) -> Balancer {
        Balancer::new(
            (Uuid::nil(), "pool".into()),
            None,
            weights.iter().map(|weight| target(*weight)).collect(),
            Arc::clone(position),
            None,
        )
    }

    fn watched(weights: &[u16], threshold: f64) -> Balancer {
        let healthy = |weight: &u16| {
            let mut target = target(*weight);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
            target.health = Some(Arc::new(TargetAddresses::of_address(address, 0)));
            target
        };
        Balancer::new(
            (Uuid::nil(), "pool".into()),
            None,
            weights.iter().map(healthy).collect(),
            Arc::default(),
            Some(Checks {
                threshold,
                active: None,
                passive: None,
            }),
        )
    }

    fn report(balancer: &Balancer, place: usize, finding: Finding) {
        let limits = Limits {
            successes: 1,
            timeouts: 1,
            ..Limits::default()
        };
        let target = balancer.targets.get(place).expect("a target");
        target
            .health
            .as_ref()
            .and_then(|health| health.find(Ipv4Addr::LOCALHOST.into()))
            .expect("a health")
            .report(Witness::Active, finding, limits, || 0);
    }

    fn fail(balancer: &Balancer, place: usize) {
        report(balancer, place, Finding::TimedOut);
    }

    fn heal(balancer: &Balancer, place: usize) {
        report(balancer, place, Finding::Connected);
    }

    fn picks(balancer: &Balancer, count: usize) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.pick(&Tried::new()).map(|(place, _)| place))
            .collect()
    }

    #[test]
    fn a_new_snapshot_goes_on_where_the_old_one_stopped() {
        let position = Arc::new(AtomicU64::new(0));
        assert_eq!(picks(&balancer(&[1, 1], &position), 3), [0, 1, 0]);
        assert_eq!(picks(&balancer(&[1, 1], &position), 2), [1, 0]);
    }

    #[test]
    fn a_retry_takes_an_untried_target_while_there_is_one() {
        let balancer = balancer(&[3, 1, 0], &Arc::default());
        for _ in 0..8 {
            assert_eq!(
                balancer.pick(&smallvec![0]).map(|(place, _)| place),
                Some(1)
            );
        }
        assert!(balancer.pick(&smallvec![0, 1]).is_some());
    }

    #[test]
    fn a_retry_finds_a_target_with_few_turns_too() {
        let balancer = balancer(&[60_000, 1], &Arc::default());
        assert_eq!(
            balancer.pick(&smallvec![0]).map(|(place, _)| place),
            Some(1)
        );
    }

    #[test]
    fn threads_together_keep_the_exact_proportion() {
        let balancer = Arc::new(balancer(&[3, 1], &Arc::default()));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let balancer = Arc::clone(&balancer);
                std::thread::spawn(move || picks(&balancer, 1000))
            })
            .collect();
        let mut counts = [0; 2];
        for thread in threads {
            for place in thread.join().expect("no panic") {
                counts[place] += 1;
            }
        }
        assert_eq!(counts, [3000, 1000]);
    }

    #[test]
    fn without_weight_there_is_no_target() {
        assert!(
            balancer(&[0, 0], &Arc::default())
                .pick(&Tried::new())
                .is_none()
        );
    }

    #[test]
    fn an_unhealthy_target_is_passed_over_at_once_and_comes_back() {
        let balancer = watched(&[1, 1, 1], 0.0);
        fail(&balancer, 1);
        assert_eq!(picks(&balancer, 4), [0, 2, 0, 2]);
        balancer.follow_health();
        assert!(!picks(&balancer, 6).contains(&1));
        heal(&balancer, 1);
        balancer.follow_health();
        assert_eq!(picks(&balancer, 3).iter().sum::<usize>(), 3);
    }

    #[test]
    fn a_healed_target_is_found_before_the_turns_follow() {
        let balancer = watched(&[1, 1], 0.0);
        fail(&balancer, 0);
        fail(&balancer, 1);
        balancer.follow_health();
        assert!(picks(&balancer, 1).is_empty() && !balancer.is_available());
        heal(&balancer, 1);
        assert_eq!(picks(&balancer, 2), [1, 1]);
    }

    #[test]
    fn a_retry_prefers_a_healthy_target_that_was_tried_to_an_unhealthy_one() {
        let balancer = watched(&[1, 1, 1], 0.0);
        fail(&balancer, 2);
        let pick = |tried: Tried| balancer.pick(&tried).map(|(place, _)| place);
        assert_eq!(pick(smallvec![0]), Some(1));
        assert!(pick(smallvec![0, 1]).is_some_and(|place| place < 2));
    }

    #[test]
    fn a_name_without_an_address_makes_nothing_available() {
        let mut named = target(1);
        named.host = TargetHost::Name(Arc::new(Name::of_addresses("a.test", Vec::new())));
        let balancer = |targets| {
            let id = (Uuid::nil(), "pool".into());
            Balancer::new(id, None, targets, Arc::default(), None)
        };
        assert!(!balancer(vec![named.clone(), target(0)]).is_available());
        assert!(balancer(vec![named, target(1)]).is_available());
    }

    #[test]
    fn the_threshold_must_be_exceeded() {
        let balancer = watched(&[50, 50, 100], 50.0);
        fail(&balancer, 0);
        balancer.follow_threshold();
        assert_eq!(picks(&balancer, 1).len(), 1, "150 of 200");
        fail(&balancer, 1);
        balancer.follow_threshold();
        assert!(picks(&balancer, 1).is_empty(), "100 of 200");
        heal(&balancer, 0);
        assert!(balancer.is_available());
    }

    proptest! {
        #[test]
        fn healthy_targets_keep_their_proportions(
            // So that no row of unavailable turns is longer than `TURNS_MAX`.
            weights in proptest::collection::vec(0_u16..7, 1..10),
            out in proptest::collection::vec(any::<bool>(), 10),
            start in 0_u64..1000,
            follow in any::<bool>(),
        ) {
            let balancer = watched(&weights, 0.0);
            balancer.position.store(start, Ordering::Relaxed);
            for (place, _) in out.iter().enumerate().take(weights.len()).filter(|(_, out)| **out) {
                fail(&balancer, place);
            }
            if follow {
                balancer.follow_health();
            }
            let left: Vec<u16> = weights
                .iter()
                .zip(&out)
                .map(|(weight, out)| if *out { 0 } else { *weight })
                .collect();
            let total: usize = left.iter().map(|weight| usize::from(*weight)).sum();
            let mut counts = vec![0; weights.len()];
            // Whole cycles, whichever way the weights were reduced.
            for place in picks(&balancer, total) {
                counts[place] += 1;
            }
            prop_assert_eq!(counts, left.into_iter().map(usize::from).collect::<Vec<_>>());
        }
    }
}
