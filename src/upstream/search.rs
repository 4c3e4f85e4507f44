//! The search for a member over the tries of one request or stream: what was tried in vain is passed
//! over while something else is left.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Balancer, Hold, Key, Member};

type Addresses = SmallVec<[SocketAddr; 2]>;

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
    /// Waits up to `patience` in all for a place among its connections and for the first answer
    /// about a name.
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
        let until = Instant::now() + patience;
        let mut full = Addresses::new();
        let mut has_waited = false;
        // Each round but one rules out one member that cannot be used, so the loop ends.
        loop {
            let Some(member) = self.pick(balancer, key, &full, &usable) else {
                if has_waited || !balancer.lacks_addresses() {
                    return Err(absence(balancer, &full, &usable));
                }
                has_waited = true;
                balancer.first_members(until).await;
                continue;
            };
            let Some(slot) = slot(&member, until).await else {
                full.push(member.address);
                continue;
            };
            // It may have become unhealthy or unusable while a place was waited for.
            if slot.is_some() && !(member.is_healthy() && usable(&member)) {
                full.push(member.address);
                continue;
            }
            return Ok(Found {
                hold: balancer.hold(Arc::clone(&member), slot),
                member,
            });
        }
    }

    fn pick(
        &self,
        balancer: &Balancer,
        key: Key,
        full: &Addresses,
        usable: &impl Fn(&Member) -> bool,
    ) -> Option<Arc<Member>> {
        let is_left = |member: &Member| !full.contains(&member.address) && usable(member);
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
        let members = balancer.members();
        let mut healthy = members.iter().filter(|member| member.is_healthy());
        healthy.any(|member| !self.failed.contains(&member.address) && usable(member))
    }

    /// Notes that the certificate of a member was not accepted: it is not asked again. Whether
    /// anything else is left.
    pub fn distrust(&mut self, balancer: &Balancer, member: &Member) -> bool {
        self.rule_out(member);
        self.unverified.push(member.address);
        let members = balancer.members();
        let mut healthy = members.iter().filter(|member| member.is_healthy());
        healthy.any(|member| !self.unverified.contains(&member.address))
    }
}

/// Why there is no member that is left.
fn absence(balancer: &Balancer, full: &Addresses, usable: &impl Fn(&Member) -> bool) -> Absent {
    if !full.is_empty() {
        return Absent::Slot;
    }
    if balancer.lacks_addresses() {
        return Absent::Address;
    }
    let members = balancer.members();
    let mut healthy = members.iter().filter(|member| member.is_healthy());
    if !balancer.is_available() {
        Absent::Target
    } else if healthy.any(|member| usable(member)) {
        Absent::Verified
    } else {
        Absent::Usable
    }
}

/// Waits up to `until` for a place among the connections of `member`; `None` if it gets none,
/// else the place, where places are limited.
async fn slot(member: &Member, until: Instant) -> Option<Option<OwnedSemaphorePermit>> {
    let Some(slots) = &member.slots else {
        return Some(None);
    };
    match tokio::time::timeout_at(until, Arc::clone(slots).acquire_owned()).await {
        Ok(Ok(slot)) => Some(Some(slot)),
        Ok(Err(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        state::names::Name,
        upstream::{
            TargetHost,
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
        let limited = |last| {
            let mut target = at(last, 1);
            target.slots = Some(Slots {
                limit: 1,
                left: Arc::default(),
            });
            target
        };
        let balancer = Balancer::new(outline(vec![limited(1), limited(2)]));
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

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_one_however_many_members_are_full() {
        let full = |last| {
            let mut target = at(last, 1);
            target.slots = Some(Slots {
                limit: 0,
                left: Arc::default(),
            });
            target
        };
        let balancer = Balancer::new(outline((1..=5).map(full).collect()));
        let mut search = Search::default();
        let began = Instant::now();
        let found = search.next(&balancer, Key::Nothing, Duration::from_secs(10), |_| true);
        assert_eq!(found.await.map(|_| ()), Err(Absent::Slot));
        assert!(began.elapsed() < Duration::from_secs(11));
    }
}
