//! Picks a member for each try of a request. How the members follow names and health is in `following.rs`.

mod following;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{
    Algorithm, Hold, Key, Member, Target,
    algorithm::{latency, least_connections},
    health::{
        Whose,
        checks::{Active, Checks, Passive},
        note,
    },
    roster::{Plan, Roster, Team},
};
use crate::state::{
    clock::Clock,
    feed::News,
    health::{Finding, Witness},
    load::Moment,
    turns::Turns,
};

/// How many turns in a row may fall on members that cannot be picked before they are looked
/// through in their order.
const TURNS_MAX: usize = 64;

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
    pub algorithm: Algorithm,
    /// In which time a new or recovered member gets its whole weight; zero: at once.
    pub slow_start: Duration,
    /// Where its turns go on.
    pub turns: Arc<Turns>,
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
    algorithm: Algorithm,
    slow_start: Duration,
    roster: ArcSwap<Roster>,
    /// Held by whoever makes a new roster.
    following: Mutex<()>,
    turns: Arc<Turns>,
    checks: Option<Checks>,
    /// Whether enough of the weight is available. It follows the health: a pick cannot count.
    is_above_threshold: AtomicBool,
    news: Arc<News>,
    clock: Clock,
}

impl Balancer {
    /// A balancer with the members that its targets stand for now.
    pub fn new(outline: Outline) -> Self {
        let team = Team {
            id: outline.id,
            targets: &outline.targets,
            algorithm: &outline.algorithm,
            slow_start: outline.slow_start,
            has_begun: outline.turns.have_begun(),
        };
        let roster = Roster::new(team, None, outline.clock.unix_milliseconds());
        let balancer = Self {
            id: outline.id,
            name: outline.name,
            host_header: outline.host_header,
            targets: outline.targets.into_boxed_slice(),
            algorithm: outline.algorithm,
            slow_start: outline.slow_start,
            roster: ArcSwap::from_pointee(roster),
            following: Mutex::default(),
            turns: outline.turns,
            checks: outline.checks,
            is_above_threshold: AtomicBool::new(true),
            news: outline.news,
            clock: outline.clock,
        };
        balancer.follow_threshold();
        balancer
    }

    /// The way in which members are picked.
    pub fn algorithm(&self) -> &Algorithm {
        &self.algorithm
    }

    /// The targets, also those without weight.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// A copy of the members at the moment: the addresses of all targets with a weight. For surveys;
    /// a request looks at them by [`Self::with_members`].
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.roster.load().members.to_vec()
    }

    /// What `look` finds among the members at the moment, which are not copied for it.
    pub fn with_members<T>(&self, look: impl FnOnce(&[Arc<Member>]) -> T) -> T {
        look(&self.roster.load().members)
    }

    /// Whether a member that is healthy is as `is_it` says.
    pub(super) fn has_healthy(&self, is_it: impl Fn(&Member) -> bool) -> bool {
        let is_it = |member: &Arc<Member>| member.is_healthy() && is_it(member);
        self.with_members(|members| members.iter().any(is_it))
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

    /// The next healthy member that is `usable`, by the algorithm; `key` is what that asks of the
    /// request. `None` if there is none, or if too little of the weight is healthy.
    pub fn pick(&self, key: Key, usable: impl Fn(&Member) -> bool) -> Option<Arc<Member>> {
        if !self.is_above_threshold.load(Ordering::Relaxed) {
            return None;
        }
        let roster = self.roster.load();
        let members = roster.own_members();
        let usable = |place: usize| {
            let member = members.get(place)?;
            (member.is_healthy() && usable(member)).then_some(&**member)
        };
        let place = self.place(&roster, key, usable);
        place.and_then(|place| members.get(place)).cloned()
    }

    /// The healthy member that `key` leads to, where it leads to one; nobody takes a turn.
    pub fn peek(&self, key: Key) -> Option<Arc<Member>> {
        let roster = self.roster.load();
        let is_healthy = |place| {
            let member: Option<&Arc<Member>> = roster.members.get(place);
            member.is_some_and(|member| member.is_healthy())
        };
        let place = match (&roster.plan, key) {
            (Plan::Ring(ring), Key::Hash(hash)) => ring.find(hash, is_healthy),
            (Plan::Sessions(sessions), Key::Session(id)) => {
                sessions.find(id).filter(|place| is_healthy(*place))
            }
            _ => None,
        };
        place.and_then(|place| roster.members.get(place)).cloned()
    }

    /// `member` gives the member at a place if it is usable.
    fn place<'m>(
        &self,
        roster: &Roster,
        key: Key,
        member: impl Fn(usize) -> Option<&'m Member>,
    ) -> Option<usize> {
        let is_usable = |place| member(place).is_some();
        match (&roster.plan, key) {
            (Plan::LeastConnections, _) => {
                // Only members alike take turns, and few are looked at in their order.
                let turn = self.turns.next();
                least_connections::pick(&roster.shares, &roster.wheel, turn, |place| {
                    member(place).map(|member| member.load.under_way())
                })
            }
            (Plan::Latency, _) => {
                let now = self.moment();
                latency::pick(&roster.shares, |place| {
                    member(place).map(|member| member.load.cost(now))
                })
            }
            (Plan::Ring(ring), Key::Hash(hash)) => ring.find(hash, is_usable),
            (Plan::Sessions(sessions), Key::Session(id)) => sessions
                .find(id)
                .filter(|place| is_usable(*place))
                .or_else(|| self.next_turn(roster, is_usable)),
            (Plan::Turns | Plan::Ring(_) | Plan::Sessions(_), _) => {
                self.next_turn(roster, is_usable)
            }
        }
    }

    fn next_turn(&self, roster: &Roster, usable: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..TURNS_MAX {
            let Some(place) = roster.wheel.target(self.turns.next()) else {
                break;
            };
            if usable(place) {
                return Some(place);
            }
        }
        (0..roster.members.len()).find(|place| usable(*place))
    }

    /// Whether latencies are to be measured.
    fn measures_latency(&self) -> bool {
        matches!(self.algorithm, Algorithm::Latency)
    }

    /// Counts a try for `member`, for as long as what comes back is kept.
    pub(super) fn hold(&self, member: Arc<Member>, slot: Option<OwnedSemaphorePermit>) -> Hold {
        let began = self.measures_latency().then(|| self.clock.instant());
        Hold::new(member, slot, began)
    }

    /// Notes that a try was answered now, or failed now.
    pub fn note_latency(&self, hold: &Hold, has_answered: bool) {
        let Some(began) = hold.began else {
            return;
        };
        let took = self.clock.instant().saturating_duration_since(began);
        let now = self.moment();
        if has_answered {
            hold.member.load.observe(took, now);
        } else {
            hold.member.load.observe_failure(took, now);
        }
    }

    fn moment(&self) -> Moment {
        Moment::of_unix_milliseconds(self.clock.unix_milliseconds())
    }

    /// The members at the moment, each with the part of its weight that it has now, in percent.
    pub fn standings(&self) -> Vec<(Arc<Member>, u8)> {
        let roster = self.roster.load();
        let members = roster.members.iter().enumerate();
        members
            .map(|(place, member)| (Arc::clone(member), roster.percent(place)))
            .collect()
    }

    /// The latency of `member` in microseconds; absent if it is not measured.
    pub fn latency_of(&self, member: &Member) -> Option<f64> {
        let now = self.moment();
        (self.measures_latency() && member.load.is_measured()).then(|| member.load.latency(now))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        state::health::Limits,
        upstream::{
            algorithm::{Cookie, Hashing, Input},
            target::tests::at,
        },
    };

    /// A balancer over `targets` that nobody watches.
    pub(crate) fn outline(targets: Vec<Target>) -> Outline {
        Outline {
            id: Uuid::nil(),
            name: "pool".into(),
            host_header: None,
            targets,
            algorithm: Algorithm::RoundRobin,
            slow_start: Duration::ZERO,
            turns: Arc::default(),
            checks: None,
            news: Arc::default(),
            clock: Clock::manual(0),
        }
    }

    fn targets(weights: &[u16]) -> Vec<Target> {
        let weights = weights.iter().zip(1..);
        weights.map(|(weight, last)| at(last, *weight)).collect()
    }

    fn balancer(weights: &[u16], turns: &Arc<Turns>) -> Balancer {
        Balancer::new(Outline {
            turns: Arc::clone(turns),
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

    /// Brings it back.
    pub(crate) fn heal(balancer: &Balancer, place: usize) {
        report(balancer, place, Finding::Connected);
    }

    fn place(member: &Member) -> usize {
        member.target
    }

    /// The targets of so many picks.
    pub(crate) fn picks(balancer: &Balancer, count: usize) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.pick(Key::Nothing, |_| true))
            .map(|member| place(&member))
            .collect()
    }

    #[test]
    fn a_new_snapshot_goes_on_where_the_old_one_stopped() {
        let turns = Arc::default();
        assert_eq!(picks(&balancer(&[1, 1], &turns), 3), [0, 1, 0]);
        assert_eq!(picks(&balancer(&[1, 1], &turns), 2), [1, 0]);
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

    fn with(algorithm: Algorithm, weights: &[u16]) -> Balancer {
        Balancer::new(Outline {
            algorithm,
            ..outline(targets(weights))
        })
    }

    fn hashing() -> Algorithm {
        Algorithm::ConsistentHashing(Box::new(Hashing {
            on: Some(Input::Ip),
            fallback: None,
            slots: 10_000,
        }))
    }

    #[test]
    fn the_fewest_connections_are_kept_in_proportion_to_the_weights() {
        let balancer = with(Algorithm::LeastConnections, &[1, 3]);
        let holds: Vec<_> = (0..40)
            .filter_map(|_| balancer.pick(Key::Nothing, |_| true))
            .map(|member| balancer.hold(member, None))
            .collect();
        let members = balancer.members();
        let loads: Vec<u32> = members.iter().map(|it| it.load.under_way()).collect();
        assert_eq!(loads, [10, 30]);
        drop(holds);
        assert_eq!(members[1].load.under_way(), 0);
    }

    #[test]
    fn the_slower_of_two_gets_only_what_the_faster_cannot_take() {
        let balancer = with(Algorithm::Latency, &[1, 1]);
        let members = balancer.members();
        for (member, took) in members.iter().zip([500, 5]) {
            member
                .load
                .observe(Duration::from_millis(took), balancer.moment());
        }
        assert_eq!(picks(&balancer, 20), [1; 20]);
        let _busy: Vec<_> = (0..200)
            .map(|_| balancer.hold(Arc::clone(&members[1]), None))
            .collect();
        assert_eq!(picks(&balancer, 20), [0; 20], "201 times 5 ms is more");
    }

    #[test]
    fn one_that_never_answers_gets_one_request_and_the_other_the_rest() {
        let balancer = with(Algorithm::Latency, &[1, 1]);
        let members = balancer.members();
        members[0]
            .load
            .observe(Duration::from_millis(500), balancer.moment());
        assert_eq!(picks(&balancer, 1), [1], "to be measured");
        let _hangs = balancer.hold(Arc::clone(&members[1]), None);
        assert_eq!(picks(&balancer, 20), [0; 20]);
    }

    #[test]
    fn a_key_goes_to_one_member_and_elsewhere_only_while_that_is_out() {
        let balancer = with(hashing(), &[1; 5]);
        for number in 0..50_u8 {
            let key = Key::of_value(&[number]);
            let home = balancer.pick(key, |_| true).expect("a member");
            assert_eq!(balancer.peek(key).map(|it| it.address), Some(home.address));
            let other = balancer.pick(key, |it| it.address != home.address);
            assert!(other.is_some_and(|other| other.address != home.address));
            let again = balancer.pick(key, |_| true).expect("a member");
            assert!(Arc::ptr_eq(&home, &again));
        }
        assert_eq!(
            picks(&balancer, 5),
            [0, 1, 2, 3, 4],
            "without a key in turn"
        );
    }

    #[test]
    fn a_session_stays_while_its_member_is_usable() {
        let cookie = Cookie {
            name: "sid".into(),
            path: "/".into(),
        };
        let balancer = with(Algorithm::StickySessions(cookie), &[1, 1]);
        let first = balancer.pick(Key::Nothing, |_| true).expect("a member");
        let key = Key::Session(first.session);
        for _ in 0..4 {
            let again = balancer.pick(key, |_| true).expect("a member");
            assert!(Arc::ptr_eq(&first, &again));
        }
        let other = balancer.pick(key, |it| it.address != first.address);
        assert!(other.is_some());
        assert!(balancer.peek(Key::Session(1)).is_none());
    }

    #[test]
    fn load_and_latency_stay_with_the_address_over_a_reload() {
        let targets = targets(&[1, 1]);
        let balancer = |targets: Vec<Target>| {
            Balancer::new(Outline {
                algorithm: Algorithm::Latency,
                ..outline(targets)
            })
        };
        let before = balancer(targets.clone());
        let member = &before.members()[0];
        let _hold = before.hold(Arc::clone(member), None);
        member
            .load
            .observe(Duration::from_millis(70), before.moment());
        let mut targets = targets;
        targets[0].weight = 9;
        let after = balancer(targets);
        let member = &after.members()[0];
        assert_eq!(member.load.under_way(), 1);
        assert!(after.latency_of(member).is_some_and(|it| it > 60_000.0));
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
            for _ in 0..start {
                balancer.turns.next();
            }
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
