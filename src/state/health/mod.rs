//! The health of the addresses behind upstreams: kept across reloads, read by every request. Who
//! judges, and by which limits, is said by the caller.

mod address;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::registry::Registry;

pub use address::{
    AddressHealth, Cause, Change, Counters, Damping, FALLS_MAX, Finding, Limits, Tally, Witness,
};

/// How long an address keeps its health after the resolver named it last, in milliseconds: many
/// resolvers name only some of the addresses each time.
const UNNAMED_MAX: i64 = 5 * 60 * 1000;

/// Finds the health of a target again: the id of its upstream, its host in lower case, its port.
pub type TargetKey = (Uuid, String, u16);

/// The health of all targets that some snapshot watches.
pub type TargetsHealth = Registry<TargetKey, TargetAddresses>;

/// The addresses of one target, each with its own health.
#[derive(Debug)]
pub struct TargetAddresses {
    port: u16,
    addresses: Addresses,
}

#[derive(Debug)]
enum Addresses {
    /// The target is an address.
    One(Arc<AddressHealth>),
    /// The target is a name. Short, as names have few addresses, so it is searched in order.
    Several(ArcSwap<Vec<Arc<Known>>>),
}

/// An address of a name.
#[derive(Debug)]
struct Known {
    health: Arc<AddressHealth>,
    /// When the resolver named it last, in Unix milliseconds.
    named_at: AtomicI64,
}

impl TargetAddresses {
    /// A target that is an address; healthy since `now`, in Unix milliseconds.
    pub fn of_address(address: SocketAddr, now: i64) -> Self {
        Self {
            port: address.port(),
            addresses: Addresses::One(Arc::new(AddressHealth::new(address, now))),
        }
    }

    /// A target that is a name, whose addresses come and go.
    pub fn of_name(port: u16) -> Self {
        Self {
            port,
            addresses: Addresses::Several(ArcSwap::default()),
        }
    }

    /// Whether requests may go to `address`. One that nobody has looked at yet is healthy.
    pub fn is_healthy(&self, address: IpAddr) -> bool {
        match &self.addresses {
            Addresses::One(health) => health.is_healthy(),
            Addresses::Several(known) => known
                .load()
                .iter()
                .find(|known| known.ip() == address)
                .is_none_or(|known| known.health.is_healthy()),
        }
    }

    /// The health of `address`, if something was noted of it.
    pub fn find(&self, address: IpAddr) -> Option<Arc<AddressHealth>> {
        match &self.addresses {
            Addresses::One(health) => Some(Arc::clone(health)),
            Addresses::Several(known) => find(&known.load(), address),
        }
    }

    /// The health of `address`, new and healthy since `now` if nothing was noted of it.
    pub fn find_or_create(&self, address: IpAddr, now: i64) -> Arc<AddressHealth> {
        let known = match &self.addresses {
            Addresses::One(health) => return Arc::clone(health),
            Addresses::Several(known) => known,
        };
        if let Some(health) = find(&known.load(), address) {
            return health;
        }
        let health = Arc::new(AddressHealth::new(SocketAddr::new(address, self.port), now));
        let new = Arc::new(Known {
            health: Arc::clone(&health),
            named_at: AtomicI64::new(now),
        });
        known.rcu(|known| {
            let mut more = known.to_vec();
            if find(&more, address).is_none() {
                more.push(Arc::clone(&new));
            }
            more
        });
        // Somebody else may have been first.
        find(&known.load(), address).unwrap_or(health)
    }

    /// Follows the addresses that a name has at `now`, in Unix milliseconds: new ones are healthy
    /// since then, those that were not named for long are forgotten. Gives the health of each of
    /// `addresses`, in their order.
    pub fn follow(&self, addresses: &[IpAddr], now: i64) -> Vec<Arc<AddressHealth>> {
        match &self.addresses {
            Addresses::One(health) => vec![Arc::clone(health)],
            Addresses::Several(known) => {
                let mut has_outdated = false;
                for known in known.load().iter() {
                    if addresses.contains(&known.ip()) {
                        known.named_at.store(now, Ordering::Relaxed);
                    }
                    has_outdated |= known.is_outdated(now);
                }
                if has_outdated {
                    known.rcu(|known| {
                        known
                            .iter()
                            .filter(|known| !known.is_outdated(now))
                            .cloned()
                            .collect::<Vec<_>>()
                    });
                }
                addresses
                    .iter()
                    .map(|address| self.find_or_create(*address, now))
                    .collect()
            }
        }
    }
}

impl Known {
    fn ip(&self) -> IpAddr {
        self.health.address().ip()
    }

    fn is_outdated(&self, now: i64) -> bool {
        now.saturating_sub(self.named_at.load(Ordering::Relaxed)) > UNNAMED_MAX
    }
}

fn find(known: &[Arc<Known>], address: IpAddr) -> Option<Arc<AddressHealth>> {
    let known = known.iter().find(|known| known.ip() == address)?;
    Some(Arc::clone(&known.health))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn fail(health: &AddressHealth) {
        let limits = Limits {
            tcp_failures: 1,
            ..Limits::default()
        };
        health
            .report(Witness::Active, Finding::Broken("refused"), limits, || 0)
            .expect("one failure is enough");
    }

    #[test]
    fn each_address_of_a_name_has_its_own_health() {
        let target = TargetAddresses::of_name(80);
        fail(&target.find_or_create(FIRST, 0));
        assert!(!target.is_healthy(FIRST));
        assert!(target.is_healthy(SECOND));
    }

    #[test]
    fn an_address_that_vanished_long_ago_is_forgotten_and_the_others_stay() {
        let target = TargetAddresses::of_name(80);
        for health in target.follow(&[FIRST, SECOND], 0) {
            fail(&health);
        }
        let later = UNNAMED_MAX + 1;
        assert_eq!(target.follow(&[SECOND], later).len(), 1);
        assert!(target.find(FIRST).is_none());
        target.follow(&[FIRST, SECOND], later);
        assert!(target.is_healthy(FIRST), "it is new");
        assert!(!target.is_healthy(SECOND), "it was there all the time");
    }

    #[test]
    fn an_address_that_some_answers_omit_keeps_its_health() {
        let target = TargetAddresses::of_name(80);
        fail(&target.find_or_create(FIRST, 0));
        for round in 1..100 {
            let named = if round % 2 == 0 { FIRST } else { SECOND };
            target.follow(&[named], round * UNNAMED_MAX / 2);
            assert!(!target.is_healthy(FIRST), "round {round}");
        }
    }

    #[test]
    fn a_target_that_is_an_address_has_one_health() {
        let target = TargetAddresses::of_address(SocketAddr::new(FIRST, 80), 7);
        fail(&target.find_or_create(FIRST, 0));
        assert!(!target.is_healthy(FIRST));
        assert_eq!(target.follow(&[FIRST], 0).len(), 1);
    }
}
