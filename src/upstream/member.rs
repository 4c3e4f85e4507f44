//! A member of an upstream: one address that a target stands for at the moment. It is what requests
//! are sent to, and what their load and its health are counted for.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::target::{Called, Place, Target};
use crate::{
    entity::Protocol,
    state::{health::AddressHealth, load::Load},
};

/// One address of a target.
#[derive(Debug)]
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
    /// What it is called towards itself, unless the route or upstream says otherwise.
    pub called: Called,
    /// How it is; absent = nobody watches it.
    pub health: Option<Arc<AddressHealth>>,
    /// What it has to do.
    pub load: Arc<Load>,
    /// What is left of `max_connections`; absent = no limit.
    pub slots: Option<Arc<Semaphore>>,
}

impl Member {
    /// The member at `place`, one of those of the target at `index`. What is kept of its address is
    /// found again; what is not is new since `now`, in Unix milliseconds.
    pub(super) fn new((index, target): (usize, &Target), place: Place, now: i64) -> Self {
        let Place {
            address,
            weight,
            name,
        } = place;
        Self {
            address,
            weight,
            target: index,
            label: Arc::clone(&target.label),
            name,
            called: target.called_at(address),
            health: target
                .health
                .as_ref()
                .map(|health| health.find_or_create(address, || AddressHealth::new(address, now))),
            load: target.loads.find_or_create(address, Load::default),
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
    member: Arc<Member>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Hold {
    /// Counts one more for `member`.
    pub fn new(member: Arc<Member>, slot: Option<OwnedSemaphorePermit>) -> Self {
        member.load.begin();
        Self {
            member,
            _slot: slot,
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
    use super::*;
    use crate::upstream::target::tests::target;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let target = target(1);
        let place = || target.places().remove(0);
        let member = Arc::new(Member::new((0, &target), place(), 0));
        let hold = Hold::new(Arc::clone(&member), None);
        let again = Member::new((0, &target), place(), 0);
        assert_eq!(again.load.under_way(), 1, "the address is the same");
        drop(hold);
        assert_eq!(member.load.under_way(), 0);
    }
}
