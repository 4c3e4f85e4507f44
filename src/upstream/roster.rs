//! The members of an upstream at one moment, with what its algorithm prepared from them. Made by
//! whoever follows the feeds and the health; read by requests.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    Member, Target,
    algorithm::{Algorithm, ring::Ring, sessions::Sessions, wheel::Wheel},
    lanes::Lanes,
};
use crate::state::load::Moment;

/// The part of its weight with which a member begins a slow start.
const FIRST_PART: f64 = 0.1;
/// While somebody starts slowly, weights are multiplied by this where there is room, so that a tenth
/// of a small one is no whole.
const SCALE: u16 = 10;
/// A slow start has so many steps, as far as that is neither too often nor too seldom.
const STEPS: u32 = 50;
const STEP_MIN: Duration = Duration::from_millis(100);
const STEP_MAX: Duration = Duration::from_secs(1);

/// The members at one moment.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) members: Box<[Arc<Member>]>,
    /// By place: the weight that each member has now; 0 for one that is out. During a slow start
    /// all may be multiplied.
    pub(super) shares: Box<[u16]>,
    /// The turns of those that are not out. They follow the health with a short delay, so whoever
    /// has a turn is asked all the same.
    pub(super) wheel: Wheel,
    pub(super) plan: Plan,
    /// The members as each thread picks them.
    lanes: Lanes,
    /// When the shares are others, though nothing happens.
    pub(super) next_step: Option<Duration>,
}

/// What an algorithm has beside the turns.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    Turns,
    LeastConnections,
    Latency,
    Ring(Arc<Ring>),
    Sessions(Arc<Sessions>),
}

/// Whose members they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Team<'a> {
    /// The id of the upstream or service.
    pub(super) id: Uuid,
    pub(super) targets: &'a [Target],
    pub(super) algorithm: &'a Algorithm,
    pub(super) slow_start: Duration,
    /// Whether new members join others.
    pub(super) has_begun: bool,
}

impl Roster {
    /// The members that the targets stand for at `now`, in Unix milliseconds; those that were there
    /// `before` stay the same.
    pub(super) fn new(team: Team<'_>, before: Option<&Self>, now: i64) -> Self {
        let known = before.map_or(&[][..], |before| &before.members);
        let members = gather(team, known, now);
        let (shares, next_step) = shares(&members, team.slow_start, now);
        let plan = match before {
            Some(before) if same(&before.members, &members) => before.plan.clone(),
            _ => plan(team.algorithm, &members, now),
        };
        Self {
            wheel: Wheel::new(&shares),
            plan,
            lanes: Lanes::default(),
            members: members.into_boxed_slice(),
            shares,
            next_step,
        }
    }

    /// The members for this thread to pick from.
    pub(super) fn own_members(&self) -> &[Arc<Member>] {
        self.lanes.own(&self.members)
    }

    /// Whether it says the same as `other`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.shares == other.shares && same(&self.members, &other.members)
    }

    /// The part of its weight that the member at `place` has now, in percent; 0 while it is out.
    pub(super) fn percent(&self, place: usize) -> u8 {
        let (Some(share), Some(member)) = (self.shares.get(place), self.members.get(place)) else {
            return 0;
        };
        let scale = u32::from(if self.next_step.is_some() {
            scale(&self.members)
        } else {
            1
        });
        let whole = u32::from(member.weight) * scale;
        u8::try_from(u32::from(*share) * 100 / whole.max(1)).unwrap_or(100)
    }

    /// The members of `targets`, which nobody watches.
    #[cfg(test)]
    pub(super) fn gathered(targets: &[Target]) -> Vec<Arc<Member>> {
        let team = Team {
            id: Uuid::nil(),
            targets,
            algorithm: &Algorithm::RoundRobin,
            slow_start: Duration::ZERO,
            has_begun: false,
        };
        gather(team, &[], 0)
    }
}

fn same(one: &[Arc<Member>], other: &[Arc<Member>]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| Arc::ptr_eq(one, other))
}

fn gather(team: Team<'_>, before: &[Arc<Member>], now: i64) -> Vec<Arc<Member>> {
    let known: HashMap<(usize, SocketAddr), &Arc<Member>> = before
        .iter()
        .map(|member| ((member.target, member.address), member))
        .collect();
    let mut members = Vec::with_capacity(before.len());
    for (index, target) in team.targets.iter().enumerate() {
        if target.weight == 0 {
            continue;
        }
        for place in target.places().into_iter().filter(|place| place.weight > 0) {
            let known = known
                .get(&(index, place.address))
                .filter(|member| member.is_at(index, &place));
            members.push(match known {
                Some(member) => Arc::clone(member),
                None => Arc::new(Member::new(team, (index, target), place, now)),
            });
        }
    }
    members
}

fn plan(algorithm: &Algorithm, members: &[Arc<Member>], now: i64) -> Plan {
    match algorithm {
        Algorithm::RoundRobin => Plan::Turns,
        Algorithm::LeastConnections => Plan::LeastConnections,
        Algorithm::Latency => {
            expect_the_average(members, Moment::of_unix_milliseconds(now));
            Plan::Latency
        }
        Algorithm::ConsistentHashing(hashing) => {
            let weights: Vec<_> = members
                .iter()
                .map(|member| (member.address, member.weight))
                .collect();
            Plan::Ring(Arc::new(Ring::new(&weights, hashing.slots)))
        }
        Algorithm::StickySessions(_) => Plan::Sessions(Arc::new(Sessions::new(members))),
    }
}

/// Nobody who was not measured yet looks fast or slow.
fn expect_the_average(members: &[Arc<Member>], now: Moment) {
    let measured = || members.iter().filter(|member| member.load.is_measured());
    let count = u32::try_from(measured().count()).unwrap_or(u32::MAX);
    if count > 0 {
        let sum: f64 = measured().map(|member| member.load.latency(now)).sum();
        for member in members {
            member.load.expect_latency(sum / f64::from(count), now);
        }
    }
}

/// The weight that each member has at `now`, and when that changes by itself.
fn shares(
    members: &[Arc<Member>],
    slow_start: Duration,
    now: i64,
) -> (Box<[u16]>, Option<Duration>) {
    let parts: Vec<f64> = members
        .iter()
        .map(|member| part(member, slow_start, now))
        .collect();
    if parts.iter().all(|part| *part == 0.0 || *part >= 1.0) {
        let shares = members.iter().zip(parts);
        let shares = shares.map(|(member, part)| if part > 0.0 { member.weight } else { 0 });
        return (shares.collect(), None);
    }
    let scale = f64::from(scale(members));
    let share = |weight: u16, part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the scale leaves room for the product"
        )]
        let share = (f64::from(weight) * scale * part).round() as u16;
        if part > 0.0 { share.max(1) } else { 0 }
    };
    let shares = members.iter().zip(parts);
    let shares = shares.map(|(member, part)| share(member.weight, part));
    let step = (slow_start / STEPS).clamp(STEP_MIN, STEP_MAX);
    (shares.collect(), Some(step))
}

fn scale(members: &[Arc<Member>]) -> u16 {
    let has_room = |member: &Arc<Member>| member.weight <= u16::MAX / SCALE;
    if members.iter().all(has_room) {
        SCALE
    } else {
        1
    }
}

/// From 0 for a member that is out to 1 for one that has its whole weight.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of a slow start are far below 2^52"
)]
fn part(member: &Member, slow_start: Duration, now: i64) -> f64 {
    if !member.is_healthy() {
        return 0.0;
    }
    if slow_start.is_zero() {
        return 1.0;
    }
    let recovered = member.health.as_ref().map_or(0, |health| {
        let change = health.last_change();
        if change.cause.is_some() {
            change.since
        } else {
            0
        }
    });
    let since = member.load.joined().max(recovered);
    if since == 0 {
        return 1.0;
    }
    let passed = now.saturating_sub(since).max(0) as f64 / (slow_start.as_secs_f64() * 1e3);
    (FIRST_PART + (1.0 - FIRST_PART) * passed).min(1.0)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        state::{
            feed::Record,
            health::{Finding, Limits, TargetHealth, Witness},
            names::Name,
        },
        upstream::{
            TargetHost,
            target::tests::{at, target},
        },
    };

    const SLOW_START: Duration = Duration::from_secs(10);

    fn team(targets: &[Target], has_begun: bool) -> Team<'_> {
        Team {
            id: Uuid::nil(),
            targets,
            algorithm: &Algorithm::RoundRobin,
            slow_start: SLOW_START,
            has_begun,
        }
    }

    fn roster(targets: &[Target]) -> Roster {
        Roster::new(team(targets, false), None, 0)
    }

    fn named(addresses: &[u8], weight: u16) -> (Target, Arc<Name>) {
        let name = Arc::new(Name::of_addresses("a.test", numbered(addresses)));
        let target = Target {
            host: TargetHost::Name(Arc::clone(&name)),
            ..target(weight)
        };
        (target, name)
    }

    fn numbered(addresses: &[u8]) -> Vec<IpAddr> {
        let last = addresses.iter();
        last.map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    #[test]
    fn each_address_of_a_name_has_the_weight_of_its_target() {
        let (name, _) = named(&[1, 2], 100);
        let roster = roster(&[name, target(50)]);
        assert_eq!(*roster.shares, [100, 100, 50]);
        assert_eq!(roster.wheel.turns(), 5);
    }

    #[test]
    fn a_target_of_weight_zero_has_no_members() {
        assert!(roster(&[target(0)]).members.is_empty());
    }

    #[test]
    fn members_that_stay_are_the_same() {
        let (target, name) = named(&[1, 2], 1);
        let targets = [target];
        let first = roster(&targets);
        let follow = |before| Roster::new(team(&targets, true), Some(before), 0);
        assert!(first.is_like(&follow(&first)));
        let records = numbered(&[2, 3]).into_iter().map(Record::of_address);
        name.feed().publish(records.collect());
        let second = follow(&first);
        assert!(!second.is_like(&first));
        assert!(Arc::ptr_eq(&second.members[0], &first.members[1]));
    }

    #[test]
    fn a_new_member_grows_from_a_tenth_to_its_weight_and_never_shrinks() {
        let targets = [at(1, 100), at(2, 100)];
        roster(&targets[..1]);
        let at = |now| Roster::new(team(&targets, true), None, now);
        let first = at(50_000);
        assert_eq!(*first.shares, [1000, 100], "only the proportion counts");
        assert_eq!((first.percent(0), first.percent(1)), (100, 10));
        let grown = (0..=100).map(|step| at(50_000 + step * 100).percent(1));
        assert!(grown.is_sorted());
        let end = at(60_000);
        assert_eq!((&*end.shares, end.next_step), (&[100, 100][..], None));
    }

    #[test]
    fn the_first_members_have_their_weight_at_once() {
        assert_eq!(*roster(&[at(1, 7), at(2, 7)]).shares, [7, 7]);
    }

    #[test]
    fn one_that_recovered_starts_slowly_also_with_a_small_weight() {
        let limits = Limits {
            timeouts: 1,
            successes: 1,
            ..Limits::default()
        };
        let health = Arc::new(TargetHealth::default());
        let mut watched = at(1, 1);
        watched.health = Some(Arc::clone(&health));
        let targets = [watched, at(2, 1)];
        let team = team(&targets, true);
        let before = roster(&targets);
        let address = before.members[0].address;
        for (finding, now) in [(Finding::TimedOut, 1000), (Finding::Connected, 2000)] {
            let health = health.find(address).expect("a health");
            health.report(Witness::Active, finding, limits, || now);
        }
        assert_eq!(*Roster::new(team, Some(&before), 2000).shares, [1, 10]);
        assert_eq!(*Roster::new(team, Some(&before), 12_000).shares, [1, 1]);
    }

    #[test]
    fn what_was_not_measured_is_expected_to_be_average() {
        let targets = [at(1, 1), at(2, 1), at(3, 1)];
        let members = Roster::gathered(&targets);
        let now = Moment::of_unix_milliseconds(0);
        members[0].load.observe(Duration::from_millis(10), now);
        members[1].load.observe(Duration::from_millis(30), now);
        expect_the_average(&members, now);
        assert!((members[2].load.latency(now) - 20_000.0).abs() < 2.0);
    }
}
