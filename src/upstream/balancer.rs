//! Picks a member for each try of a request.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::select_all;
use http::HeaderValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Member, Target,
    health::{
        Whose,
        checks::{Active, Checks, Passive},
        note,
    },
    roster::Roster,
};
use crate::state::{
    clock::Clock,
    feed::{Feed, News},
    health::{Finding, Witness},
};

/// How many turns in a row may fall on members that cannot be picked before they are looked
/// through in their order.
const TURNS_MAX: usize = 64;

/// What of a request decides where it goes, where the algorithm asks for something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Key {
    /// Nothing does.
    #[default]
    Nothing,
}

/// What a balancer is made of.
#[derive(Debug)]
pub struct Outline {
    /// The id of the upstream, or of the service.
    pub id: Uuid,
    /// The upstream's name, or the service's host.
    pub name: String,
    /// `host_header` of the upstream.
    pub host_header: Option<HeaderValue>,
    pub targets: Vec<Target>,
    /// Where its turns go on.
    pub position: Arc<AtomicU64>,
    /// They go with targets that have a health.
    pub checks: Option<Checks>,
    /// Hears of changes that the turns are to follow.
    pub news: Arc<News>,
    pub clock: Clock,
}

/// The members of an upstream, or of the one host of a service, and the choice among them.
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
    roster: ArcSwap<Roster>,
    /// Held by whoever makes a new roster.
    following: Mutex<()>,
    position: Arc<AtomicU64>,
    checks: Option<Checks>,
    /// Whether enough of the weight is available. It follows the health: a pick cannot count.
    is_above_threshold: AtomicBool,
    news: Arc<News>,
    clock: Clock,
}

impl Balancer {
    /// A balancer with the members that its targets stand for now.
    pub fn new(outline: Outline) -> Self {
        let roster = Roster::new(&outline.targets, &[], outline.clock.unix_milliseconds());
        let balancer = Self {
            id: outline.id,
            name: outline.name,
            host_header: outline.host_header,
            targets: outline.targets.into_boxed_slice(),
            roster: ArcSwap::from_pointee(roster),
            following: Mutex::default(),
            position: outline.position,
            checks: outline.checks,
            is_above_threshold: AtomicBool::new(true),
            news: outline.news,
            clock: outline.clock,
        };
        balancer.follow_threshold();
        balancer
    }

    /// The name of the way in which members are picked, in Kong's words.
    pub fn algorithm(&self) -> &'static str {
        "round-robin"
    }

    /// The targets, also those without weight.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The members at the moment: the addresses of all targets with a weight.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.roster.load().members.to_vec()
    }

    /// Whether the health of its targets is watched.
    pub fn is_watched(&self) -> bool {
        self.checks.is_some()
    }

    /// The active health checks, if any are on.
    pub fn active_checks(&self) -> Option<&Active> {
        self.checks.as_ref()?.active.as_ref()
    }

    /// The passive health checks, if any are on.
    pub fn passive_checks(&self) -> Option<&Passive> {
        self.checks.as_ref()?.passive.as_ref()
    }

    /// Notes what a request showed of `member`.
    pub fn note_passively(&self, member: &Member, finding: Finding) {
        let (Some(passive), Some(health)) = (self.passive_checks(), &member.health) else {
            return;
        };
        let whose = Whose {
            upstream: &self.name,
            target: &member.label,
        };
        let seen = (Witness::Passive, finding);
        if note(whose, health, seen, passive.limits, &self.clock) {
            self.health_has_changed();
        }
    }

    /// The next healthy member that is `usable`. `None` if there is none, or if too little of the
    /// weight is healthy.
    pub fn pick(&self, key: Key, usable: impl Fn(&Member) -> bool) -> Option<Arc<Member>> {
        if !self.is_above_threshold.load(Ordering::Relaxed) {
            return None;
        }
        let roster = self.roster.load();
        let is_usable = |member: &Arc<Member>| member.is_healthy() && usable(member);
        let place = match key {
            Key::Nothing => self.next_turn(&roster, is_usable),
        };
        place.and_then(|place| roster.members.get(place)).cloned()
    }

    fn next_turn(&self, roster: &Roster, usable: impl Fn(&Arc<Member>) -> bool) -> Option<usize> {
        for _ in 0..TURNS_MAX {
            let turn = self.position.fetch_add(1, Ordering::Relaxed);
            let Some(place) = roster.wheel.target(turn) else {
                break;
            };
            if roster.members.get(place).is_some_and(&usable) {
                return Some(place);
            }
        }
        roster.members.iter().position(usable)
    }

    /// Whether a request would find a member now.
    pub fn is_available(&self) -> bool {
        self.is_above_threshold() && self.roster.load().members.iter().any(|it| it.is_healthy())
    }

    /// Whether it has no members only because no address is known of its names.
    pub(super) fn lacks_addresses(&self) -> bool {
        self.roster.load().members.is_empty() && self.feeds().next().is_some()
    }

    /// Waits up to `patience` for the very first answers about its names, unless there is a member
    /// already.
    pub(super) async fn first_members(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while self.roster.load().members.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let awaited: Vec<_> = self
                .feeds()
                .filter(|feed| !feed.is_answered())
                .map(|feed| Box::pin(feed.first_answer(left)))
                .collect();
            if awaited.is_empty() || left.is_zero() {
                return;
            }
            select_all(awaited).await;
            // Whoever follows the feeds may be a moment behind, or follow a newer configuration.
            self.follow();
        }
    }

    /// What says which addresses its targets with a weight stand for.
    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        let targets = self.targets.iter().filter(|target| target.weight > 0);
        targets.filter_map(|target| target.host.feed())
    }

    /// Each address has the weight of its target here, as in Kong.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum of weights is far below 2^52"
    )]
    fn is_above_threshold(&self) -> bool {
        let threshold = match &self.checks {
            Some(checks) if checks.threshold > 0.0 => checks.threshold,
            _ => return true,
        };
        let (mut total, mut available) = (0_u64, 0_u64);
        for member in &self.roster.load().members {
            total += u64::from(member.weight);
            if member.is_healthy() {
                available += u64::from(member.weight);
            }
        }
        // Without any address there is nothing to be healthy or not.
        total == 0 || available as f64 * 100.0 > total as f64 * threshold
    }

    fn follow_threshold(&self) {
        if self.checks.is_some() {
            let is_above = self.is_above_threshold();
            self.is_above_threshold.store(is_above, Ordering::Relaxed);
        }
    }

    /// Notes that the health of a member is another now: at once whether enough of them is left,
    /// and a moment later in the turns.
    pub(super) fn health_has_changed(&self) {
        self.follow_threshold();
        self.news.tell();
    }

    /// Follows what the targets stand for now and how that is. Forgets what nobody names any more.
    pub(super) fn follow(&self) {
        if self.checks.is_none() && self.feeds().next().is_none() {
            return;
        }
        let _alone = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.unix_milliseconds();
        let before = self.roster.load_full();
        let after = Roster::new(&self.targets, &before.members, now);
        self.forget(&after.members, now);
        if !after.is_like(&before) {
            self.roster.store(Arc::new(after));
        }
        self.follow_threshold();
    }

    fn forget(&self, members: &[Arc<Member>], now: i64) {
        let mut rest = members;
        for (index, target) in self.targets.iter().enumerate() {
            // Members stand in the order of their targets.
            let (own, others) =
                rest.split_at(rest.partition_point(|member| member.target <= index));
            rest = others;
            let is_named = |address| own.iter().any(|member| member.address == address);
            if target.host.feed().is_none() {
                continue;
            }
            if let Some(health) = &target.health {
                health.follow(is_named, now);
            }
            target.loads.follow(is_named, now);
            if let Some(slots) = &target.slots {
                slots.left.follow(is_named, now);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        state::{feed::Record, health::Limits, names::Name},
        upstream::{TargetHost, target::tests::at},
    };

    /// A balancer over `targets` that nobody watches.
    pub(crate) fn outline(targets: Vec<Target>) -> Outline {
        Outline {
            id: Uuid::nil(),
            name: "pool".into(),
            host_header: None,
            targets,
            position: Arc::default(),
            checks: None,
            news: Arc::default(),
            clock: Clock::manual(0),
        }
    }

    fn targets(weights: &[u16]) -> Vec<Target> {
        let weights = weights.iter().zip(1..);
        weights.map(|(weight, last)| at(last, *weight)).collect()
    }

    fn balancer(weights: &[u16], position: &Arc<AtomicU64>) -> Balancer {
        Balancer::new(Outline {
            position: Arc::clone(position),
            ..outline(targets(weights))
        })
    }

    /// Over targets that are watched.
    pub(crate) fn watched(weights: &[u16], threshold: f64) -> Balancer {
        let mut targets = targets(weights);
        for target in &mut targets {
            target.health = Some(Arc::default());
        }
        Balancer::new(Outline {
            checks: Some(Checks {
                threshold,
                active: None,
                passive: None,
            }),
            ..outline(targets)
        })
    }

    fn report(balancer: &Balancer, place: usize, finding: Finding) {
        let limits = Limits {
            successes: 1,
            timeouts: 1,
            ..Limits::default()
        };
        let health = balancer.members()[place].health.clone();
        health
            .expect("a health")
            .report(Witness::Active, finding, limits, || 0);
    }

    /// Takes the member at `place` out.
    pub(crate) fn fail(balancer: &Balancer, place: usize) {
        report(balancer, place, Finding::TimedOut);
    }

    fn heal(balancer: &Balancer, place: usize) {
        report(balancer, place, Finding::Connected);
    }

    fn place(member: &Member) -> usize {
        member.target
    }

    fn picks(balancer: &Balancer, count: usize) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.pick(Key::Nothing, |_| true))
            .map(|member| place(&member))
            .collect()
    }

    #[test]
    fn a_new_snapshot_goes_on_where_the_old_one_stopped() {
        let position = Arc::new(AtomicU64::new(0));
        assert_eq!(picks(&balancer(&[1, 1], &position), 3), [0, 1, 0]);
        assert_eq!(picks(&balancer(&[1, 1], &position), 2), [1, 0]);
    }

    #[test]
    fn what_is_not_usable_is_passed_over_also_if_it_has_nearly_all_turns() {
        for weights in [[3, 1], [60_000, 1]] {
            let balancer = balancer(&weights, &Arc::default());
            for _ in 0..8 {
                let member = balancer.pick(Key::Nothing, |member| member.target != 0);
                assert_eq!(member.as_deref().map(place), Some(1));
            }
            assert!(balancer.pick(Key::Nothing, |_| false).is_none());
        }
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
    fn without_weight_there_is_no_member() {
        assert!(picks(&balancer(&[0, 0], &Arc::default()), 1).is_empty());
    }

    #[test]
    fn an_unhealthy_member_is_passed_over_at_once_and_comes_back() {
        let balancer = watched(&[1, 1, 1], 0.0);
        fail(&balancer, 1);
        assert_eq!(picks(&balancer, 4), [0, 2, 0, 2]);
        balancer.follow();
        assert!(!picks(&balancer, 6).contains(&1));
        heal(&balancer, 1);
        balancer.follow();
        assert_eq!(picks(&balancer, 3).iter().sum::<usize>(), 3);
    }

    #[test]
    fn a_healed_member_is_found_before_the_turns_follow() {
        let balancer = watched(&[1, 1], 0.0);
        fail(&balancer, 0);
        fail(&balancer, 1);
        balancer.follow();
        assert!(picks(&balancer, 1).is_empty() && !balancer.is_available());
        heal(&balancer, 1);
        assert_eq!(picks(&balancer, 2), [1, 1]);
    }

    #[test]
    fn a_name_without_an_address_makes_nothing_available() {
        let mut named = at(1, 1);
        named.host = TargetHost::Name(Arc::new(Name::of_addresses("a.test", Vec::new())));
        let lacking = Balancer::new(outline(vec![named.clone(), at(2, 0)]));
        assert!(!lacking.is_available() && lacking.lacks_addresses());
        let rest = Balancer::new(outline(vec![named, at(2, 1)]));
        assert!(rest.is_available() && !rest.lacks_addresses());
    }

    #[test]
    fn addresses_come_and_go_and_keep_their_health() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let name = Arc::new(Name::of_addresses("a.test", vec![address(1), address(2)]));
        let publish = |last: &[u8]| {
            let records = last.iter().map(|last| Record::of_address(address(*last)));
            name.feed().publish(records.collect());
        };
        let balancer = Balancer::new(Outline {
            checks: Some(Checks {
                threshold: 0.0,
                active: None,
                passive: None,
            }),
            ..outline(vec![Target {
                host: TargetHost::Name(Arc::clone(&name)),
                health: Some(Arc::default()),
                ..at(1, 1)
            }])
        });
        fail(&balancer, 0);
        publish(&[2]);
        balancer.follow();
        assert_eq!(balancer.members().len(), 1);
        publish(&[1, 2]);
        balancer.follow();
        let healthy: Vec<bool> = balancer
            .members()
            .iter()
            .map(|it| it.is_healthy())
            .collect();
        assert_eq!(healthy, [false, true]);
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
        fn healthy_members_keep_their_proportions(
            // So that no row of unavailable turns is longer than `TURNS_MAX`.
            weights in proptest::collection::vec(1_u16..7, 1..10),
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
                balancer.follow();
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
