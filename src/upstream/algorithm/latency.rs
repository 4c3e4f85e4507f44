//! The better of two members that are drawn at random: by how long each takes to answer, times what
//! it has to do, for its weight. Two are enough to keep away from slow ones, and leave no herd that
//! runs to the fastest.

/// How often a member that is not usable may be drawn before all are looked at.
const DRAWS_MAX: usize = 8;

/// Picks the place of a member. `shares` are the weights at the moment; `cost` tells of a place what
/// a request would take there, `None` if it is not usable.
pub(in crate::upstream) fn pick(
    shares: &[u16],
    cost: impl Fn(usize) -> Option<f64>,
) -> Option<usize> {
    let count = shares.len();
    let weighed = |place: usize| {
        // Just healed, it has no share yet.
        let share = shares.get(place).copied().unwrap_or(0).max(1);
        cost(place).map(|cost| (place, cost / f64::from(share)))
    };
    let draw = |but: Option<usize>| {
        (0..DRAWS_MAX).find_map(|_| {
            let place = match but {
                None => fastrand::usize(..count),
                // Any other, each as likely.
                Some(but) => {
                    let other = fastrand::usize(..count - 1);
                    if other >= but { other + 1 } else { other }
                }
            };
            weighed(place)
        })
    };
    match count {
        0 => return None,
        1 => return weighed(0).map(|(place, _)| place),
        _ => {}
    }
    let Some((one, cost_of_one)) = draw(None) else {
        // Hardly any is usable: the best of those.
        let usable = (0..count).filter_map(weighed);
        let best = usable.min_by(|(_, one), (_, other)| one.total_cmp(other));
        return best.map(|(place, _)| place);
    };
    match draw(Some(one)) {
        Some((other, cost)) if cost < cost_of_one => Some(other),
        _ => Some(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(shares: &[u16], costs: &[Option<f64>]) -> Vec<usize> {
        let mut counts = vec![0; shares.len()];
        for _ in 0..3000 {
            let place = pick(shares, |place| costs.get(place).copied().flatten());
            counts[place.expect("a member")] += 1;
        }
        counts
    }

    #[test]
    fn of_two_the_faster_is_picked() {
        assert_eq!(tally(&[1, 1], &[Some(5.0), Some(500.0)]), [3000, 0]);
        assert_eq!(
            tally(&[1, 100], &[Some(5.0), Some(50.0)]),
            [0, 3000],
            "weights count"
        );
    }

    #[test]
    fn the_slowest_of_many_is_never_picked_and_the_rest_share() {
        let counts = tally(&[1; 4], &[Some(1.0), Some(1.0), Some(1.0), Some(9.0)]);
        assert_eq!(counts[3], 0);
        assert!(counts[..3].iter().all(|count| *count > 700), "{counts:?}");
    }

    #[test]
    fn what_is_not_usable_is_passed_over() {
        assert_eq!(tally(&[1, 1, 1], &[None, Some(9.0), None]), [0, 3000, 0]);
        assert_eq!(pick(&[1, 1], |_| None), None);
        assert_eq!(pick(&[], |_| Some(1.0)), None);
        let far = pick(&[1; 1000], |place| (place == 777).then_some(1.0));
        assert_eq!(far, Some(777));
    }
}
