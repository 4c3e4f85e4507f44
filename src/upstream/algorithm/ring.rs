//! The ring of consistent hashing (ketama): each address has points on it, a key goes to the next
//! point. Made of addresses and weights alone, so it is the same in every process and whatever the
//! order in the file.

use std::{fmt::Write as _, net::SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

/// The points of an address where all weigh the same.
const POINTS: u64 = 160;
/// A ring with fewer places counts as one with so many.
const PLACES_MIN: u32 = 1000;
/// How many points of others may be passed before it is asked whether anybody is usable at all.
const PASSED_MAX: usize = 1024;

/// The points of all members.
#[derive(Debug)]
pub(in crate::upstream) struct Ring {
    /// For each place on the ring the owner of the first point at or behind it: all that most keys ask for, in
    /// few cache lines. Empty where there are more members than it has room for.
    homes: Box<[u16]>,
    /// For each place on the ring the first point at or behind it.
    places: Box<[u32]>,
    /// The owners of the points, in the order on the ring.
    owners: Box<[u32]>,
    members: usize,
}

impl Ring {
    /// A ring with so many places over members with these weights. Weights are not 0.
    pub(in crate::upstream) fn new(members: &[(SocketAddr, u16)], slots: u32) -> Self {
        let points = points(members);
        let count = u32::try_from(points.len()).unwrap_or(u32::MAX);
        let slots = slots.max(PLACES_MIN);
        let mut point = 0_usize;
        let places: Box<[u32]> = (0..slots)
            .map(|place| {
                let begins = (u128::from(place) << 64) / u128::from(slots);
                while points
                    .get(point)
                    .is_some_and(|(hash, ..)| u128::from(*hash) < begins)
                {
                    point += 1;
                }
                // Behind the last point comes the first.
                u32::try_from(point).unwrap_or(u32::MAX) % count.max(1)
            })
            .collect();
        let owners: Box<[u32]> = points.into_iter().map(|(_, _, owner)| owner).collect();
        let home = |point: &u32| u16::try_from(*owners.get(*point as usize)?).ok();
        let homes: Option<Box<[u16]>> = places.iter().map(home).collect();
        Self {
            homes: homes.unwrap_or_default(),
            places,
            owners,
            members: members.len(),
        }
    }

    /// The member to which `key` goes: the owner of the next point who is `usable`, so that only the
    /// keys of those who are not move.
    pub(in crate::upstream) fn find(
        &self,
        key: u64,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let place = (u128::from(key) * self.places.len() as u128) >> 64;
        let place = usize::try_from(place).ok()?;
        if let Some(home) = self.homes.get(place).map(|home| usize::from(*home))
            && usable(home)
        {
            return Some(home);
        }
        let first = *self.places.get(place)? as usize;
        let points = self.owners.get(first..)?.iter().chain(&self.owners);
        let mut last = None;
        for (passed, owner) in points.take(self.owners.len()).enumerate() {
            if passed == PASSED_MAX && !(0..self.members).any(&usable) {
                return None;
            }
            if last == Some(owner) {
                continue;
            }
            if usable(*owner as usize) {
                return Some(*owner as usize);
            }
            last = Some(owner);
        }
        None
    }
}

/// The points in the order on the ring: where each is, its address, and the place of the member.
fn points(members: &[(SocketAddr, u16)]) -> Vec<(u64, SocketAddr, u32)> {
    let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let all = POINTS * members.len() as u64;
    let mut points = Vec::new();
    let mut text = String::new();
    for ((address, weight), owner) in members.iter().zip(0_u32..) {
        let count = (u64::from(*weight) * all / total.max(1)).max(1);
        for number in 1..=count {
            text.clear();
            // Writing to a string does not fail.
            let _ = write!(text, "{address} {number}");
            points.push((xxh3_64(text.as_bytes()), *address, owner));
        }
    }
    // Equal hashes are as good as impossible; the address decides, for the same map everywhere.
    points.sort_unstable();
    points
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::algorithm::Key;

    const KEYS: usize = 20_000;

    fn members(weights: &[u16]) -> Vec<(SocketAddr, u16)> {
        let weights = weights.iter().zip(0..);
        weights
            .map(|(weight, port)| (SocketAddr::from(([10, 0, 0, 1], 8000 + port)), *weight))
            .collect()
    }

    fn key(number: usize) -> u64 {
        match Key::of_value(format!("client-{number}").as_bytes()) {
            Key::Hash(hash) => hash,
            _ => 0,
        }
    }

    /// For each key the address that it goes to.
    fn map(members: &[(SocketAddr, u16)], usable: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
        let ring = Ring::new(members, 10_000);
        let owner = |number| ring.find(key(number), |place| usable(members[place].0));
        (0..KEYS)
            .map(|number| members[owner(number).expect("a member")].0)
            .collect()
    }

    fn moved(before: &[SocketAddr], after: &[SocketAddr]) -> usize {
        let both = before.iter().zip(after);
        both.filter(|(before, after)| before != after).count()
    }

    #[test]
    fn the_map_is_the_same_in_every_version_and_process() {
        let members = members(&[1, 1, 1]);
        let ring = Ring::new(&members, 10_000);
        let owners: Vec<_> = (0..12)
            .filter_map(|number| ring.find(key(number), |_| true))
            .collect();
        assert_eq!(owners, [1, 1, 0, 2, 2, 2, 2, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn weights_are_shares_of_the_keys() {
        let members = members(&[100, 300]);
        let heavy = map(&members, |_| true)
            .iter()
            .filter(|address| address.port() == 8001)
            .count();
        assert!(
            (KEYS * 68 / 100..KEYS * 82 / 100).contains(&heavy),
            "{heavy}"
        );
    }

    #[test]
    fn nobody_usable_is_found_out_in_bounded_time() {
        let ring = Ring::new(&members(&[1; 100]), 65_536);
        assert_eq!(ring.find(key(1), |_| false), None);
        assert_eq!(ring.find(key(1), |place| place == 42), Some(42));
        assert_eq!(Ring::new(&[], 10_000).find(key(1), |_| true), None);
        let asked = std::cell::Cell::new(0_usize);
        let nobody = |_| {
            asked.set(asked.get() + 1);
            false
        };
        assert_eq!(ring.find(key(1), nobody), None);
        assert!(asked.get() <= PASSED_MAX + 100, "{}", asked.get());
    }

    #[test]
    fn a_small_ring_counts_as_one_of_a_thousand_places() {
        assert_eq!(Ring::new(&members(&[1]), 10).places.len(), 1000);
        assert_eq!(Ring::new(&members(&[1]), 65_536).places.len(), 65_536);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_order_of_the_members_changes_nothing(
            weights in proptest::collection::vec(1_u16..300, 1..12),
            turn in 0_usize..12,
        ) {
            let members = members(&weights);
            let mut turned = members.clone();
            turned.rotate_left(turn % members.len());
            prop_assert_eq!(map(&members, |_| true), map(&turned, |_| true));
        }

        #[test]
        fn the_keys_of_one_that_leaves_move_and_few_others(count in 3_usize..20, out in 0_usize..20) {
            let members = members(&vec![100; count]);
            let out = members[out % count].0;
            let before = map(&members, |_| true);
            let rest: Vec<_> = members.iter().copied().filter(|(it, _)| *it != out).collect();
            let after = map(&rest, |_| true);
            prop_assert!(moved(&before, &after) * count * 10 <= KEYS * 13);
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || *before == out, "only its own");
            }
            // Passing over the one who is out is the same as having none such.
            prop_assert_eq!(map(&members, |address| address != out), after);
        }
    }
}
