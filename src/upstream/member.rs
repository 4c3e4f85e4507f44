//! A member of an upstream: one address that a target stands for at the moment. It is what requests
//! are sent to, and what their load and its health are counted for.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    algorithm::sessions,
    roster::Team,
    target::{Called, Place, Target, TargetHost},
};
use crate::{
    entity::Protocol,
    state::{health::AddressHealth, load::Load, pool::Pool},
};

/// One address of a target.
#[derive(Debug, Clone)]
pub struct Member {
    pub address: SocketAddr,
    /// That of its target, or of its own record.
    pub weight: u16,
    /// The place of its target.
    pub target: usize,
    /// Its target as the operator wrote it, for logs and metrics.
    pub label: Arc<str>,
    /// The host name of its SRV record.
    pub(super) name: Option<Arc<str>>,
    /// What the cookie of a sticky session calls it.
    pub session: u64,
    /// What it is called towards itself, unless the route or upstream says otherwise.
    pub called: Called,
    /// How it is; absent = nobody watches it.
    pub health: Option<Arc<AddressHealth>>,
    /// What it has to do.
    pub load: Arc<Load>,
    /// The idle connections to its address.
    pub pool: Arc<Pool>,
    /// What is left of `max_connections`; absent = no limit.
    pub slots: Option<Arc<Semaphore>>,
}

impl Member {
    /// The member at `place`, one of those of the target at `index`. What is kept of its address is
    /// found again; what is not is new since `now`, in Unix milliseconds, and so is an instance that
    /// was gone.
    pub(super) fn new(
        team: Team<'_>,
        (index, target): (usize, &Target),
        place: Place,
        now: i64,
    ) -> Self {
        let Place {
            address,
            weight,
            name,
        } = place;
        let joined = if team.has_begun { now } else { 0 };
        let load = target.loads.find_or_create(address, || Load::new(joined));
        // An instance that was gone was started again; of a name, many answers omit addresses.
        if matches!(target.host, TargetHost::Instances(_)) && target.loads.is_unnamed(address) {
            load.rejoin(joined);
        }
        Self {
            address,
            weight,
            target: index,
            label: Arc::clone(&target.label),
            session: sessions::id(team.id, address),
            called: target.called_at(address, name.as_deref()),
            name,
            health: target
                .health
                .as_ref()
                .map(|health| health.find_or_create(address, || AddressHealth::new(address, now))),
            load,
            pool: target.pools.get_or_create(address, Pool::default),
            slots: target.slots.as_ref().map(|slots| {
                slots
                    .left
                    .find_or_create(address, || Semaphore::new(slots.limit))
            }),
        }
    }

    /// Whether it is the one that [`Self::new`] would make.
    pub(super) fn is_at(&self, index: usize, place: &Place) -> bool {
        self.target == index
            && self.address == place.address
            && self.weight == place.weight
            && self.name == place.name
    }

    /// Whether requests may go there.
    pub fn is_healthy(&self) -> bool {
        self.health
            .as_ref()
            .is_none_or(|health| health.is_healthy())
    }

    /// The `Host` sent to it over `protocol`.
    pub fn host_header(&self, protocol: Protocol) -> &HeaderValue {
        self.called.host_header(protocol)
    }
}

/// A request or stream that is under way to a member, and its place among the connections where
/// those are limited. Both are given back with it.
#[derive(Debug)]
pub struct Hold {
    pub(super) member: Arc<Member>,
    _slot: Option<OwnedSemaphorePermit>,
    /// When it began, where latencies are measured.
    pub(super) began: Option<Instant>,
}

impl Hold {
    /// Counts one more for `member`; `began` is now, where latencies are measured.
    pub(super) fn new(
        member: Arc<Member>,
        slot: Option<OwnedSemaphorePermit>,
        began: Option<Instant>,
    ) -> Self {
        member.load.begin();
        Self {
            member,
            _slot: slot,
            began,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.member.load.end();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use uuid::Uuid;

    use super::*;
    use crate::{
        state::{
            consul::{Consul, ServiceKey, tests::agent},
            feed::Record,
            names::Name,
        },
        upstream::{Algorithm, roster::Roster, target::tests::target},
    };

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let targets = [target(1)];
        let member = || Roster::gathered(&targets).remove(0);
        let hold = Hold::new(member(), None, None);
        assert_eq!(member().load.under_way(), 1, "the address is the same");
        drop(hold);
        assert_eq!(member().load.under_way(), 0);
    }

    #[test]
    fn an_instance_that_comes_back_is_new_and_an_address_of_a_name_is_not() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let service = Consul::default().service(ServiceKey {
            agent: agent("t"),
            service: "users".to_owned(),
            tags: Vec::new(),
            passing: true,
        });
        service.feed().publish(vec![Record::of_address(address)]);
        let name = Arc::new(Name::of_addresses("a.test", vec![address]));
        for (host, joined_again) in [
            (TargetHost::Instances(service), 50),
            (TargetHost::Name(name), 0),
        ] {
            let targets = [Target { host, ..target(1) }];
            let joined = |has_begun, now| {
                let team = Team {
                    id: Uuid::nil(),
                    targets: &targets,
                    algorithm: &Algorithm::RoundRobin,
                    slow_start: std::time::Duration::ZERO,
                    has_begun,
                };
                let place = targets[0].places().remove(0);
                let member = Member::new(team, (0, &targets[0]), place, now);
                member.load.joined()
            };
            assert_eq!(joined(false, 0), 0);
            targets[0].loads.follow(|_| true, 10);
            assert_eq!(joined(true, 20), 0, "it was never gone");
            targets[0].loads.follow(|_| false, 40);
            assert_eq!(joined(true, 50), joined_again);
            targets[0].loads.follow(|_| true, 50);
            assert_eq!(joined(true, 60), joined_again, "it is there");
        }
    }
}
