//! The members of an upstream at one moment, with what its algorithm prepared from them. Made by
//! whoever follows the feeds and the health; read by requests.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::{Member, Target, wheel::Wheel};

/// The members at one moment.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) members: Box<[Arc<Member>]>,
    /// By place: the weight that each member has now; 0 for one that is out.
    shares: Box<[u16]>,
    /// The turns of those that are not out. They follow the health with a short delay, so whoever
    /// has a turn is asked all the same.
    pub(super) wheel: Wheel,
}

impl Roster {
    /// The members that `targets` stand for at `now`, in Unix milliseconds; those that were there
    /// `before` stay the same.
    pub(super) fn new(targets: &[Target], before: &[Arc<Member>], now: i64) -> Self {
        let known: HashMap<(usize, SocketAddr), &Arc<Member>> = before
            .iter()
            .map(|member| ((member.target, member.address), member))
            .collect();
        let mut members = Vec::with_capacity(before.len());
        for (index, target) in targets.iter().enumerate() {
            if target.weight == 0 {
                continue;
            }
            for place in target.places().into_iter().filter(|place| place.weight > 0) {
                let known = known
                    .get(&(index, place.address))
                    .filter(|member| member.is_at(index, &place));
                members.push(match known {
                    Some(member) => Arc::clone(member),
                    None => Arc::new(Member::new((index, target), place, now)),
                });
            }
        }
        let shares: Box<[u16]> = members.iter().map(|member| share(member)).collect();
        Self {
            wheel: Wheel::new(&shares),
            members: members.into_boxed_slice(),
            shares,
        }
    }

    /// Whether it says the same as `other`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.shares == other.shares
            && self.members.len() == other.members.len()
            && (self.members.iter().zip(&other.members)).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

fn share(member: &Member) -> u16 {
    if member.is_healthy() {
        member.weight
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        state::{feed::Record, names::Name},
        upstream::{TargetHost, target::tests::target},
    };

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
        let roster = Roster::new(&[name, target(50)], &[], 0);
        let weights: Vec<u16> = roster.members.iter().map(|member| member.weight).collect();
        assert_eq!(weights, [100, 100, 50]);
        assert_eq!(roster.wheel.turns(), 5);
    }

    #[test]
    fn a_target_of_weight_zero_has_no_members() {
        assert!(Roster::new(&[target(0)], &[], 0).members.is_empty());
    }

    #[test]
    fn members_that_stay_are_the_same_and_keep_their_load() {
        let (target, name) = named(&[1, 2], 1);
        let targets = [target];
        let first = Roster::new(&targets, &[], 0);
        assert!(first.is_like(&Roster::new(&targets, &first.members, 0)));
        let records = numbered(&[2, 3]).into_iter().map(Record::of_address);
        name.feed().publish(records.collect());
        let second = Roster::new(&targets, &first.members, 0);
        assert!(!second.is_like(&first));
        assert!(Arc::ptr_eq(&second.members[0], &first.members[1]));
    }
}
