//! How the members of a balancer follow names, registries and health, and what is said of them meanwhile.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::select_all;
use tokio::time::Instant;

use super::Balancer;
use crate::{
    state::feed::Feed,
    upstream::{
        Member, Target,
        roster::{Roster, Team},
    },
};

impl Balancer {
    /// Whether a request would find a member now.
    pub fn is_available(&self) -> bool {
        self.is_above_threshold() && self.has_healthy(|_| true)
    }

    /// Whether it has no members only because no address is known of its names.
    pub(in crate::upstream) fn lacks_addresses(&self) -> bool {
        self.roster.load().members.is_empty() && self.feeds().next().is_some()
    }

    /// Waits up to `until` for the very first answers about its names, unless there is a member
    /// already.
    pub(in crate::upstream) async fn first_members(&self, until: Instant) {
        while self.roster.load().members.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let awaited: Vec<_> = self
                .feeds()
                .filter(|feed| !feed.is_answered())
                .map(|feed| Box::pin(feed.first_answer(left)))
                .collect();
            let has_awaited = !awaited.is_empty() && !left.is_zero();
            if has_awaited {
                select_all(awaited).await;
            }
            // Whoever follows the feeds may be a moment behind, or follow a newer configuration.
            if self.has_places() {
                self.follow();
            }
            if !has_awaited {
                return;
            }
        }
    }

    /// Those that may have members.
    fn weighed_targets(&self) -> impl Iterator<Item = &Target> {
        let targets = self.targets.iter();
        targets.filter(|target| target.weight > 0 && !target.is_replaced())
    }

    /// What says which addresses its targets with a weight stand for.
    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.weighed_targets()
            .filter_map(|target| target.host.feed())
    }

    /// Whether there is anything that a member can be made of.
    fn has_places(&self) -> bool {
        self.weighed_targets()
            .any(|target| target.places().iter().any(|place| place.weight > 0))
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

    pub(super) fn follow_threshold(&self) {
        if self.checks.is_some() {
            let is_above = self.is_above_threshold();
            self.is_above_threshold.store(is_above, Ordering::Relaxed);
        }
    }

    /// Notes that the health of a member is another now: at once whether enough of them is left,
    /// and a moment later in the turns.
    pub(in crate::upstream) fn health_has_changed(&self) {
        self.follow_threshold();
        self.news.tell();
    }

    /// Follows what the targets stand for now and how that is. Forgets what nobody names any more.
    /// Gives the time after which it is to be followed again though nothing happens.
    pub(in crate::upstream) fn follow(&self) -> Option<Duration> {
        let is_fixed = self.checks.is_none() && self.feeds().next().is_none();
        if is_fixed && self.slow_start.is_zero() {
            // Whoever joins by a reload may start slowly, by its settings.
            self.turns.begin();
            return None;
        }
        let _alone = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.unix_milliseconds();
        let before = self.roster.load_full();
        let team = Team {
            id: self.id,
            targets: &self.targets,
            algorithm: &self.algorithm,
            slow_start: self.slow_start,
            has_begun: self.turns.have_begun(),
        };
        let after = Roster::new(team, Some(&before), now);
        self.forget(&after.members, now);
        if !after.members.is_empty() && self.feeds().all(Feed::is_answered) {
            self.turns.begin();
        }
        let next_step = after.next_step;
        if !after.is_like(&before) {
            self.roster.store(Arc::new(after));
        }
        self.follow_threshold();
        next_step
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
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        state::{
            consul::{Consul, ServiceKey, tests::agent},
            feed::Record,
            names::Name,
        },
        upstream::{
            Outline, TargetHost,
            balancer::tests::{fail, heal, outline, picks, watched},
            health::checks::Checks,
            target::tests::at,
        },
    };

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
    fn what_a_registry_replaced_is_not_waited_for() {
        let consul = Consul::default();
        let service = consul.service(ServiceKey {
            agent: agent("t"),
            service: "users".to_owned(),
            tags: Vec::new(),
            passing: true,
        });
        let name = Name::of_addresses("a.test", vec![IpAddr::from([10, 0, 0, 1])]);
        let written = Target {
            host: TargetHost::Name(Arc::new(name)),
            until: Some(Arc::clone(&service)),
            ..at(1, 1)
        };
        let told = Target {
            host: TargetHost::Instances(Arc::clone(&service)),
            ..at(2, 1)
        };
        let balancer = Balancer::new(outline(vec![written, told]));
        assert_eq!(balancer.feeds().count(), 2);
        assert!(balancer.has_places());
        service.feed().publish(Vec::new());
        assert_eq!(balancer.feeds().count(), 1);
        assert!(!balancer.has_places());
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
}
