//! The member with the fewest requests under way for its weight. Few members are all looked at; of
//! many the best of a few is taken, drawn by weight: that spreads nearly as well, and its cost does
//! not grow with the number of members.

use super::wheel::Wheel;

/// Up to so many members all are looked at.
const ALL_MAX: usize = 32;
/// Of more, so many are drawn.
const DRAWN: usize = 4;
/// How often members that are not usable may be drawn before all are looked at.
const DRAWS_MAX: usize = 16;

/// Picks the place of a member. `shares` are the weights at the moment, `wheel` has the turns by
/// them; `under_way` tells of a place how much is to be done there, `None` if it is not usable.
/// Members alike are taken in turn, from `first` on.
pub(in crate::upstream) fn pick(
    shares: &[u16],
    wheel: &Wheel,
    first: u64,
    under_way: impl Fn(usize) -> Option<u32>,
) -> Option<usize> {
    let best = |places: &mut dyn Iterator<Item = usize>| {
        let mut best: Option<(usize, u64, u64)> = None;
        for place in places {
            let Some(under_way) = under_way(place) else {
                continue;
            };
            // Just healed, it has no share yet.
            let share = u64::from(shares.get(place).copied().unwrap_or(0).max(1));
            let load = u64::from(under_way) + 1;
            let is_better =
                best.is_none_or(|(_, best_load, best_share)| load * best_share < best_load * share);
            if is_better {
                best = Some((place, load, share));
            }
        }
        best.map(|(place, _, _)| place)
    };
    let count = shares.len();
    if count > ALL_MAX {
        let drawn = std::iter::repeat_with(|| wheel.target(fastrand::u64(..)))
            .take(DRAWS_MAX)
            .flatten()
            .filter(|place| under_way(*place).is_some());
        let picked = best(&mut drawn.take(DRAWN));
        if picked.is_some() {
            return picked;
        }
    }
    let first = usize::try_from(first % count.max(1) as u64).unwrap_or(0);
    best(&mut (first..count).chain(0..first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(shares: &[u16], loads: &[u32]) -> Option<usize> {
        let wheel = Wheel::new(shares);
        pick(shares, &wheel, 0, |place| loads.get(place).copied())
    }

    #[test]
    fn the_one_with_the_least_to_do_for_its_weight_is_picked() {
        assert_eq!(picked(&[1, 1, 1], &[3, 1, 2]), Some(1));
        assert_eq!(picked(&[10, 1], &[8, 0]), Some(0), "9/10 is less than 1/1");
        assert_eq!(picked(&[10, 1], &[10, 0]), Some(1), "11/10 is more");
        assert_eq!(picked(&[], &[]), None);
    }

    #[test]
    fn members_alike_take_turns() {
        let shares = [1; 3];
        let wheel = Wheel::new(&shares);
        let picks: Vec<_> = (0..4)
            .filter_map(|turn| pick(&shares, &wheel, turn, |_| Some(0)))
            .collect();
        assert_eq!(picks, [0, 1, 2, 0]);
    }

    #[test]
    fn the_usable_one_is_found_among_many_that_are_not() {
        let shares = [1; 1000];
        let wheel = Wheel::new(&shares);
        let only = |place| (place == 777).then_some(0);
        assert_eq!(pick(&shares, &wheel, 0, only), Some(777));
        assert_eq!(pick(&shares, &wheel, 0, |_| None), None);
    }

    #[test]
    fn many_members_get_nearly_the_same_though_only_a_few_are_looked_at() {
        let shares = [1; 200];
        let wheel = Wheel::new(&shares);
        let mut loads = [0_u32; 200];
        for _ in 0..200 * 50 {
            let place = pick(&shares, &wheel, 0, |place| loads.get(place).copied());
            loads[place.expect("a member")] += 1;
        }
        let (least, most) = (loads.iter().min(), loads.iter().max());
        assert!(
            least >= Some(&47) && most <= Some(&53),
            "{least:?} {most:?}"
        );
    }
}
