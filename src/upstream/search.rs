//! The search for a member over the tries of one request or stream: what was tried in vain is passed
//! over while something else is left.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::select_all;
use smallvec::SmallVec;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Balancer, Hold, Key, Member};

type Addresses = SmallVec<[SocketAddr; 2]>;

/// How long a request waits at most for its own member, where its key leads to one, before it goes to
/// another; never longer than half of its patience.
const OWN_WAIT_MAX: Duration = Duration::from_secs(1);
/// How many full members a request waits for at once.
const AWAITED_MAX: usize = 8;
/// How often others may take a place before a request that saw it does.
const PLACES_LOST_MAX: usize = 8;

/// What was tried so far.
#[derive(Debug, Default)]
pub struct Search {
    failed: Addresses,
    /// Of the failed ones, those whose certificate was not accepted: they are not asked again.
    unverified: Addresses,
}

/// Where the next try goes.
#[derive(Debug)]
pub struct Found {
    pub member: Arc<Member>,
    /// To be kept as long as the try lasts.
    pub hold: Hold,
}

/// Why there is no next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// No member is healthy.
    Target,
    /// Those that are healthy are not usable.
    Usable,
    /// They take no more connections.
    Slot,
    /// No address is known for a name.
    Address,
    /// All that is left has a certificate that was not accepted.
    Verified,
}

impl Search {
    /// Finds the next member that is `usable`: one that was not tried in vain, while there is one.
    /// Waits up to `patience` in all for the first answer about a name and, while every member is
    /// full, for a place among the connections of one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn next(
        &mut self,
        balancer: &Balancer,
        key: Key,
        patience: Duration,
        usable: impl Fn(&Member) -> bool,
    ) -> Result<Found, Absent> {
        // The clock is read once somebody waits, which few do.
        let mut began = None;
        let mut useless = Addresses::new();
        let mut has_waited = false;
        // Each round but one rules out one member that cannot be used, so the loop ends.
        loop {
            let is_left = |member: &Member| !useless.contains(&member.address) && usable(member);
            let Some(member) = self.pick(balancer, key, is_left) else {
                if has_waited || !balancer.lacks_addresses() {
                    return Err(absence(balancer, &useless, &usable));
                }
                has_waited = true;
                let began = *began.get_or_insert_with(Instant::now);
                balancer.first_members(began + patience).await;
                continue;
            };
            if let Some(taken) = taken(&member) {
                return Ok(found(balancer, taken));
            }
            let began = *began.get_or_insert_with(Instant::now);
            let until = began + patience;
            let own_until = until.min(began + OWN_WAIT_MAX.min(patience / 2));
            let waited = self.wait(balancer, key, member, (own_until, until), is_left);
            // Boxed, as it would be part of every request's memory.
            let Some(taken) = Box::pin(waited).await else {
                return Err(Absent::Slot);
            };
            // It may have become unhealthy or unusable while a place was waited for.
            let (member, _) = &taken;
            if !(member.is_healthy() && usable(member)) {
                useless.push(member.address);
                continue;
            }
            return Ok(found(balancer, taken));
        }
    }

    /// Where `picked` is full: a place at the member that `key` leads to, up to the first of two
    /// moments; else one that is free elsewhere; else, up to the second, the first place that becomes
    /// free; else one at a member that was tried in vain.
    async fn wait(
        &self,
        balancer: &Balancer,
        key: Key,
        picked: Arc<Member>,
        (own_until, until): (Instant, Instant),
        is_left: impl Fn(&Member) -> bool,
    ) -> Option<Taken> {
        let own = balancer.peek(key);
        // Threads have copies of members.
        let is_own =
            |own: Arc<Member>| own.target == picked.target && own.address == picked.address;
        if own.is_some_and(is_own)
            && let Some(taken) = first_slot(&[Arc::clone(&picked)], own_until).await
        {
            return Some(taken);
        }
        // What failed already is no better than waiting for what did not.
        let is_untried = !self.failed.contains(&picked.address);
        let is_alike = |member: &Member| {
            let in_vain: &Addresses = if is_untried {
                &self.failed
            } else {
                &self.unverified
            };
            !in_vain.contains(&member.address) && is_left(member)
        };
        let free = free_place(|| balancer.pick(key, |it| has_room(it) && is_alike(it)));
        if free.is_some() {
            return free;
        }
        let mut full: SmallVec<[Arc<Member>; AWAITED_MAX]> = SmallVec::new();
        while full.len() < AWAITED_MAX {
            let is_other = |member: &Member| full.iter().all(|it| it.address != member.address);
            let next = balancer.pick(key, |member| is_other(member) && is_alike(member));
            let Some(next) = next else { break };
            full.push(next);
        }
        let taken = first_slot(&full, until).await;
        taken.or_else(|| {
            free_place(|| self.pick(balancer, key, |member| has_room(member) && is_left(member)))
        })
    }

    fn pick(
        &self,
        balancer: &Balancer,
        key: Key,
        is_left: impl Fn(&Member) -> bool,
    ) -> Option<Arc<Member>> {
        let untried = |member: &Member| !self.failed.contains(&member.address) && is_left(member);
        let picked = balancer.pick(key, untried);
        if picked.is_some() || self.failed.is_empty() {
            return picked;
        }
        balancer.pick(key, |member| {
            !self.unverified.contains(&member.address) && is_left(member)
        })
    }

    /// Notes that a member is of no use.
    pub fn rule_out(&mut self, member: &Member) {
        if !self.failed.contains(&member.address) {
            self.failed.push(member.address);
        }
    }

    /// Whether a request may go to a member that is `usable` and was not tried in vain.
    pub fn has_untried(&self, balancer: &Balancer, usable: impl Fn(&Member) -> bool) -> bool {
        balancer.has_healthy(|member| !self.failed.contains(&member.address) && usable(member))
    }

    /// Notes that the certificate of a member was not accepted: it is not asked again. Whether
    /// anything else is left.
    pub fn distrust(&mut self, balancer: &Balancer, member: &Member) -> bool {
        self.rule_out(member);
        self.unverified.push(member.address);
        balancer.has_healthy(|member| !self.unverified.contains(&member.address))
    }
}

/// A member with a place among its connections, where those are limited.
type Taken = (Arc<Member>, Option<OwnedSemaphorePermit>);

fn found(balancer: &Balancer, (member, slot): Taken) -> Found {
    Found {
        hold: balancer.hold(Arc::clone(&member), slot),
        member,
    }
}

/// Why there is no member that is left.
fn absence(balancer: &Balancer, useless: &Addresses, usable: &impl Fn(&Member) -> bool) -> Absent {
    if !useless.is_empty() {
        return Absent::Slot;
    }
    if balancer.lacks_addresses() {
        return Absent::Address;
    }
    if !balancer.is_available() {
        Absent::Target
    } else if balancer.has_healthy(usable) {
        Absent::Verified
    } else {
        Absent::Usable
    }
}

fn has_room(member: &Member) -> bool {
    let slots = member.slots.as_ref();
    slots.is_none_or(|slots| slots.available_permits() > 0)
}

/// `member` with a place among its connections, if one is free.
fn taken(member: &Arc<Member>) -> Option<Taken> {
    let slot = match &member.slots {
        None => None,
        Some(slots) => Some(Arc::clone(slots).try_acquire_owned().ok()?),
    };
    Some((Arc::clone(member), slot))
}

/// A place at a member that `pick` gives because it has room.
fn free_place(pick: impl Fn() -> Option<Arc<Member>>) -> Option<Taken> {
    for _ in 0..PLACES_LOST_MAX {
        let taken = taken(&pick()?);
        if taken.is_some() {
            return taken;
        }
    }
    None
}

/// The first place that becomes free at one of `full`, up to `until`.
async fn first_slot(full: &[Arc<Member>], until: Instant) -> Option<Taken> {
    let awaited = full.iter().filter_map(|member| {
        let slots = Arc::clone(member.slots.as_ref()?);
        Some(Box::pin(async move {
            let slot = slots.acquire_owned().await.ok()?;
            Some((Arc::clone(member), Some(slot)))
        }))
    });
    let awaited: Vec<_> = awaited.collect();
    if awaited.is_empty() {
        return None;
    }
    let first = tokio::time::timeout_at(until, select_all(awaited)).await;
    first.ok().and_then(|(taken, ..)| taken)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        state::names::Name,
        upstream::{
            Algorithm, Outline, TargetHost,
            algorithm::{Hashing, Input},
            balancer::tests::{fail, outline, watched},
            target::{Slots, tests::at},
        },
    };

    async fn next(search: &mut Search, balancer: &Balancer) -> Result<usize, Absent> {
        let found = search.next(balancer, Key::Nothing, Duration::ZERO, |_| true);
        found.await.map(|found| found.member.target)
    }

    #[tokio::test]
    async fn a_retry_takes_an_untried_member_while_there_is_one() {
        let balancer = watched(&[3, 1, 0], 0.0);
        for _ in 0..4 {
            let mut search = Search::default();
            search.rule_out(&balancer.members()[0]);
            assert_eq!(next(&mut search, &balancer).await, Ok(1));
            search.rule_out(&balancer.members()[1]);
            assert!(next(&mut search, &balancer).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_retry_prefers_a_healthy_member_that_was_tried_to_an_unhealthy_one() {
        let balancer = watched(&[1, 1, 1], 0.0);
        fail(&balancer, 2);
        let mut search = Search::default();
        for place in [0, 1] {
            search.rule_out(&balancer.members()[place]);
        }
        assert!(next(&mut search, &balancer).await.is_ok_and(|it| it < 2));
    }

    #[tokio::test]
    async fn a_retry_goes_to_another_address_of_the_same_name() {
        let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let name = Name::of_addresses("a.test", addresses.to_vec());
        let mut target = at(1, 1);
        target.host = TargetHost::Name(Arc::new(name));
        let balancer = Balancer::new(outline(vec![target]));
        let mut search = Search::default();
        search.rule_out(&balancer.members()[0]);
        for _ in 0..3 {
            let found = search.next(&balancer, Key::Nothing, Duration::ZERO, |_| true);
            let member = found.await.expect("a member").member;
            assert_eq!(member.address.ip(), addresses[1]);
        }
    }

    #[tokio::test]
    async fn what_was_not_verified_is_never_asked_again() {
        let balancer = watched(&[1, 1], 0.0);
        let mut search = Search::default();
        assert!(search.distrust(&balancer, &balancer.members()[0]));
        search.rule_out(&balancer.members()[1]);
        assert_eq!(next(&mut search, &balancer).await, Ok(1));
        assert!(!search.distrust(&balancer, &balancer.members()[1]));
        assert_eq!(next(&mut search, &balancer).await, Err(Absent::Verified));
    }

    #[tokio::test]
    async fn it_is_told_why_there_is_none() {
        let balancer = watched(&[1], 0.0);
        let mut search = Search::default();
        let unusable = search.next(&balancer, Key::Nothing, Duration::ZERO, |_| false);
        assert_eq!(unusable.await.map(|_| ()), Err(Absent::Usable));
        fail(&balancer, 0);
        assert_eq!(next(&mut search, &balancer).await, Err(Absent::Target));
        let mut named = at(1, 1);
        named.host = TargetHost::Name(Arc::new(Name::of_addresses("a.test", Vec::new())));
        let balancer = Balancer::new(outline(vec![named]));
        assert_eq!(next(&mut search, &balancer).await, Err(Absent::Address));
    }

    #[tokio::test]
    async fn a_member_whose_connections_are_taken_is_passed_over_after_the_wait() {
        let balancer = narrow(2, 1, Algorithm::RoundRobin);
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut search = Search::default();
            let found = search.next(&balancer, Key::Nothing, Duration::from_millis(1), |_| true);
            held.push(found.await.expect("a place"));
        }
        let mut search = Search::default();
        assert_eq!(next(&mut search, &balancer).await, Err(Absent::Slot));
        held.pop();
        assert!(next(&mut search, &balancer).await.is_ok());
        let slots = balancer.members()[0].slots.as_ref().map(|slots| {
            let slots: &Semaphore = slots;
            slots.available_permits()
        });
        assert_eq!(slots, Some(0), "the first is still held");
    }

    /// Over as many members that take one connection each.
    fn narrow(count: u8, limit: usize, algorithm: Algorithm) -> Balancer {
        let limited = |last| {
            let mut target = at(last, 1);
            target.slots = Some(Slots {
                limit,
                left: Arc::default(),
            });
            target
        };
        Balancer::new(Outline {
            algorithm,
            ..outline((1..=count).map(limited).collect())
        })
    }

    /// What a search for `key` finds, and how long that takes.
    async fn timed(balancer: &Balancer, key: Key) -> (Result<Found, Absent>, Duration) {
        let began = Instant::now();
        let mut search = Search::default();
        let found = search.next(balancer, key, Duration::from_secs(10), |_| true);
        (found.await, began.elapsed())
    }

    fn place_at(balancer: &Balancer, place: usize) -> Taken {
        taken(&balancer.members()[place]).expect("a place")
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_full_member_while_another_has_room() {
        let balancer = narrow(3, 1, Algorithm::RoundRobin);
        let _full = [place_at(&balancer, 0), place_at(&balancer, 2)];
        for _ in 0..6 {
            let (found, took) = timed(&balancer, Key::Nothing).await;
            assert_eq!(found.expect("the idle one").member.target, 1);
            assert_eq!(took, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_full_the_first_place_that_becomes_free_is_taken() {
        for place in 0..3 {
            let balancer = narrow(3, 1, Algorithm::RoundRobin);
            let mut held: Vec<_> = (0..3).map(|place| place_at(&balancer, place)).collect();
            let leaves = held.remove(place);
            let leaving = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(leaves);
            };
            let ((found, took), ()) = tokio::join!(timed(&balancer, Key::Nothing), leaving);
            assert_eq!(found.expect("a place").member.target, place);
            assert!(took < Duration::from_millis(50), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_for_its_own_member_for_a_short_time_only() {
        let hashing = Hashing {
            on: Some(Input::Ip),
            fallback: None,
            slots: 1000,
        };
        let balancer = narrow(3, 1, Algorithm::ConsistentHashing(Box::new(hashing)));
        let key = Key::of_value(b"a");
        let own = balancer.peek(key).expect("a member").target;
        let full = place_at(&balancer, own);
        let (found, took) = timed(&balancer, key).await;
        assert_ne!(found.expect("another").member.target, own);
        assert!(took >= OWN_WAIT_MAX && took < OWN_WAIT_MAX * 2, "{took:?}");
        let leaving = async {
            tokio::time::sleep(OWN_WAIT_MAX / 2).await;
            drop(full);
        };
        let ((found, _), ()) = tokio::join!(timed(&balancer, key), leaving);
        assert_eq!(found.expect("its own").member.target, own);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_for_an_untried_member_before_it_goes_back_to_one_that_failed() {
        let balancer = narrow(2, 1, Algorithm::RoundRobin);
        let full = place_at(&balancer, 1);
        let mut search = Search::default();
        search.rule_out(&balancer.members()[0]);
        let patience = Duration::from_secs(10);
        let found = search.next(&balancer, Key::Nothing, patience, |_| true);
        assert_eq!(found.await.expect("the idle one").member.target, 0);
        let leaving = async {
            tokio::time::sleep(patience / 2).await;
            drop(full);
        };
        let found = search.next(&balancer, Key::Nothing, patience, |_| true);
        let (found, ()) = tokio::join!(found, leaving);
        assert_eq!(found.expect("the untried one").member.target, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_one_however_many_members_are_full() {
        let balancer = narrow(5, 0, Algorithm::RoundRobin);
        let mut search = Search::default();
        let began = Instant::now();
        let found = search.next(&balancer, Key::Nothing, Duration::from_secs(10), |_| true);
        assert_eq!(found.await.map(|_| ()), Err(Absent::Slot));
        assert!(began.elapsed() < Duration::from_secs(11));
    }
}
